"""How items are found and written: the value, and who wrote it when, in one transaction.

An item's description is at ``/store/.link/items/KEY``, time and writer of its value are at
``/store/.link/at/KEY``. The latter count only while their revision is the value's, so a write by other means
needs no care for them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from link_kv import plan as plans
from link_kv._core.items.store_state import description_key, stamp_key
from link_kv._core.operations import Layer, guarded, layer
from link_kv._core.wire.exchange import Exchange, Namespace
from link_kv.codec import decode
from link_kv.errors import ConfigError, Conflict, LinkKVError, NotATree, TooLarge
from link_kv.plan import Compare, Get, Guard, Operation, Plan, Put
from link_kv.tree import MISSING, Flat, Place, build, decode_name, encode_name, nameable

PAGE = 10_000
"""Keys read at once, without their values."""

_MAX_TRIES = 1000
_PAUSE = 0.02


# Finding


class Names(NamedTuple):
    """The names directly below a place, as they are stored."""

    cluster: int
    revision: int
    trees: dict[str, bool]
    """Segments, and whether a tree stands there, be it only housekeeping."""


async def names(ex: Exchange, at: Place) -> Names:
    """What stands directly below a place, whatever its size: what is deeper is stepped over, page by page."""
    start, revision, cluster = at.marker, 0, 0
    trees: dict[str, bool] = {}
    while start < at.end:
        ex.renew()
        page = await ex.range(Get(start, at.end, PAGE, keys_only=True, revision=revision))
        revision, cluster = revision or page.header.revision, page.header.cluster_id
        last = b""
        for kv in page.kvs:
            last, slash, _ = kv.key[len(at.marker) :].partition(b"/")
            segment = last.decode(errors="replace")
            if segment.encode() == last and nameable(segment):
                trees[segment] = trees.get(segment, False) or bool(slash)
        if not page.more:
            break
        start = max(page.kvs[-1].key + b"\0", at.marker + last + b"0" if slash else b"")
    return Names(cluster, revision, trees)


def spelled(found: Mapping[str, bool], name: str, path: str) -> str | None:
    """The segment that is a name in any case, None for none. Raises `LinkKVError` when there are two."""
    lower = name.lower()
    same = sorted(segment for segment in found if decode_name(segment).lower() == lower)
    if len(same) > 1:
        paths = " and as ".join(f"{path}/{segment}" for segment in same)
        raise LinkKVError(f"{name}: is stored as {paths}; rename or delete one of them")
    return same[0] if same else None


async def spelling(ex: Exchange, store: Place, name: str) -> tuple[int, str | None]:
    """A revision, and the segment of an item that has a value or a description then; None for a new one.

    Raises `LinkKVError` when there are two spellings, `NotATree` when the store is a value.
    """
    found = await names(ex, store)
    ex.renew()
    start = description_key(store, "")
    _, (leaf, described) = await ex.read(
        [
            Get(store.key, revision=found.revision),
            Get(start, start[:-1] + b"0", keys_only=True, revision=found.revision),
        ]
    )
    if leaf:
        raise NotATree(f"{store.path}: holds a value, so it is no store")
    known = dict(found.trees)
    for kv in described:
        segment = kv.key[len(start) :].decode(errors="replace")
        if nameable(segment) and "/" not in segment:
            known.setdefault(segment, False)
    return found.revision, spelled(known, name, store.path)


# Writing


class Seen(NamedTuple):
    """An item as it was when it was looked at."""

    value: Any
    """`MISSING` when nothing was there."""
    revision: int
    keys: dict[bytes, int]
    """The keys that it consists of, with the revisions of their last writes."""


async def _look(ex: Exchange, at: Place) -> Seen:
    """The item as it is now."""
    revision, found = await ex.read(plans.reads(at))
    return _seen(at, revision, found)


def _seen(at: Place, revision: int, found: Sequence[Sequence[Any]]) -> Seen:
    leaf, *below = found
    kvs = [kv for part in below for kv in part]
    value = decode(leaf[0].value) if leaf else build([(kv.key, kv.value) for kv in kvs], at)
    return Seen(value, revision, {kv.key: kv.mod_revision for kv in (*leaf, *kvs)})


def _still(at: Place, seen: Seen) -> tuple[Compare, ...]:
    """That an item is as it was seen."""
    if len(seen.keys) > plans.MAX_COMPARES:
        raise TooLarge(
            f"{at.path}: has {len(seen.keys)} keys, and {plans.MAX_COMPARES} can be compared one by one; a "
            "compare over a range does not notice deletes. Set it as a whole"
        )
    compares = tuple(plans.unmoved(key, mod) for key, mod in seen.keys.items())
    if at.key in seen.keys:
        return compares
    nothing_new = (plans.quiet(start, end, seen.revision) for start, end in at.visible)
    return (*compares, plans.absent(at.key), *nothing_new)


class Stamp(NamedTuple):
    """What is written beside a value."""

    data: bytes
    """Time and writer."""
    lease: int = 0
    """The lease that both go with, 0 for none."""


def _operations(store: Place, at: Place, lay: Layer, stamp: Stamp) -> list[Operation]:
    """An item's new value, over whatever is there, with its stamp."""
    if lay.stored is None:
        operations = list(plans.gaps(at, lay.flat, stamp.lease))
    else:
        operations = list(plans.set_leaf(at, lay.stored, stamp.lease))
    return [*operations, Put(stamp_key(store, at.segments[-1]), stamp.data, stamp.lease)]


async def put(ex: Exchange, store: Place, segment: str, lay: Layer, stamp: Stamp) -> int:
    """Replace the value of an item, whatever it is; the revision."""
    at = store.child(segment)
    operations = _operations(store, at, lay, stamp)

    def make(guard: Guard) -> tuple[Sequence[Compare], Sequence[Operation]]:
        _no_lease_in_list(guard, stamp, at)
        return (), operations

    outcome, _ = await guarded(ex, [at], make)
    return outcome.revision


async def put_all(
    ex: Exchange, store: Place, items: Sequence[tuple[str, Layer, Stamp]], besides: Sequence[Operation]
) -> int:
    """Replace the values of several items of a store, and do something besides, at one revision."""
    places = [store.child(segment) for segment, _, _ in items]
    operations = [
        operation
        for at, (_, lay, stamp) in zip(places, items, strict=True)
        for operation in _operations(store, at, lay, stamp)
    ]

    def make(guard: Guard) -> tuple[Sequence[Compare], Sequence[Operation]]:
        return (), (*operations, *besides)

    outcome, _ = await guarded(ex, places, make)
    return outcome.revision


async def write(
    space: Namespace, store: Place, segment: str, value: Any, stamp: Stamp, *, first: bool
) -> int:
    """Replace the value of an item, whatever it is; the revision of the write.

    ``first``: it has none, as far as is known.
    """
    if first:
        # Nobody may write it in another spelling at the same time.
        segment, revision = await introduce(Exchange(space), store, decode_name(segment), value, stamp)
        if revision:
            return revision
    return await put(Exchange(space), store, segment, layer(value, store.child(segment)), stamp)


async def change(
    space: Namespace, store: Place, segment: str, make: Callable[[Any], Any], stamp: Stamp, seen: Seen | None
) -> None:
    """Replace the value of an item by what ``make`` makes of it, unless it has moved by then: then again.

    ``seen`` is the item as it is known, None to look first. Nothing is sent again when its answer is lost,
    since that would look as if somebody else had written: then `OutcomeUnknown` is raised.
    """
    at = store.child(segment)
    if seen is None:
        seen = await _look(Exchange(space), at)
    for attempt in range(_MAX_TRIES):
        lay = layer(make(seen.value), at)
        seen = await _swap(Exchange(space), store, at, lay, stamp, seen)
        if seen is None:
            return
        await space.caller.wire.sleep(random.uniform(0, min(_PAUSE, 0.0005 * 2 ** min(attempt, 8))))
    raise Conflict(f"{at.path}: it moved {_MAX_TRIES} times while it was to be changed")


async def _swap(ex: Exchange, store: Place, at: Place, lay: Layer, stamp: Stamp, seen: Seen) -> Seen | None:
    """Replace the value of an item if it still is as it was seen; else what it is instead."""
    operations, compares = _operations(store, at, lay, stamp), _still(at, seen)

    def plan(guard: Guard) -> tuple[Sequence[Compare], Sequence[Operation]]:
        _no_lease_in_list(guard, stamp, at)
        return compares, operations

    def moved(own: Sequence[Sequence[Any]], guard: Guard) -> bool:
        return _seen(at, 0, own).keys != seen.keys

    outcome, own = await guarded(ex, [at], plan, plans.reads(at), moved)
    return None if outcome.succeeded else _seen(at, outcome.revision, own)


async def introduce(
    ex: Exchange, store: Place, name: str, value: Any, stamp: Stamp, description: bytes | None = None
) -> tuple[str, int]:
    """Write the description of an item, and its value where it has none; its segment, and the revision.

    ``value`` may be `MISSING`. When there is a value already and no description to write, the revision is 0,
    and nothing was written. Two programs that introduce one name in two spellings get one item: it is written
    only if nothing has appeared in the store since its names were read.
    """
    for _ in range(_MAX_TRIES):
        ex.renew()
        revision, known = await spelling(ex, store, name)
        segment = encode_name(name, store.path) if known is None else known
        at = store.child(segment)
        alone = Compare(store.marker, "create", "<", revision + 1, store.end)
        compares: list[Compare] = [plans.absent(store.key)]
        operations: list[Operation] = []
        if description is not None:
            operations.append(Put(description_key(store, segment), description))
            compares += (alone,) if known is None else ()
        if value is not MISSING:
            guards = plans.guard_reads([at])
            revision, found = await ex.read([*guards, *plans.reads(at)])
            if not any(found[len(guards) :]):
                guard = plans.resolve([at], found[: len(guards)], revision)
                assert guard is not None
                _no_lease_in_list(guard, stamp, at)
                compares += (*guard.compares, *plans.create(at, Flat([], []))[0], alone)
                writes = _operations(store, at, layer(value, at), stamp)
                operations += (*plans.in_lists(writes, guard), *guard.operations)
            elif description is None:
                return segment, 0
        outcome = await ex.commit(Plan(tuple(compares), operations), at.path)
        if outcome.succeeded:
            return segment, outcome.revision
        await ex.space.caller.wire.sleep(random.uniform(0, _PAUSE))
    raise Conflict(f"{store.path}/{name}: so much appears in the store that no moment was free to write it")


def _no_lease_in_list(guard: Guard, stamp: Stamp, at: Place) -> None:
    if stamp.lease and guard.lists:
        raise ConfigError(
            f"{at.path}: persist=False is refused in the list {guard.lists[-1].path}: "
            "what goes with a program would leave a gap"
        )
