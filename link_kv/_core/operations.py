"""What the mapping does, each operation once, for the blocking client and for asyncio.

An operation is an ``async def`` over an `Exchange`. How the plans are made is in `link_kv.plan`.
"""

from __future__ import annotations

import enum
import math
from bisect import bisect_left
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from link_kv import plan as plans
from link_kv._core.exchange import Exchange, Namespace, Outcome, new_lease_id
from link_kv._core.fold import fold
from link_kv.codec import decode, encode
from link_kv.errors import (
    ConfigError,
    Conflict,
    EncodeError,
    KeyExists,
    LinkKVError,
    NotATree,
    NotFound,
    OutcomeUnknown,
    PathError,
    RevisionError,
    TooLarge,
)
from link_kv.plan import Delete, Get, Guard, Operation, Plan, Put
from link_kv.tree import (
    LIST,
    MISSING,
    Flat,
    Leaf,
    LeafReader,
    Place,
    build,
    flatten,
    is_index,
    leaves,
)

T = TypeVar("T")

PAGE = 2000
"""Keys read at once while iterating."""

_UPDATE_UNREAD = 16
"""Up to this many pairs, an update deletes below each leaf unseen instead of looking first."""

_LOST_BEFORE_GAPS = 2
"""How often a replacement may lose the race between its read and its write."""


class Entry(NamedTuple):
    """A value and what etcd knows of it. Of a tree: the newest revision, the oldest created."""

    value: Any
    revision: int
    created: int
    version: int
    lease: int


class Layer(NamedTuple):
    """How a value lies at a place: as a leaf, or as a tree's keys."""

    stored: bytes | None
    flat: Flat


def layer(value: Any, at: Place) -> Layer:
    if isinstance(value, (dict, list, tuple)):
        return Layer(None, flatten(value, at))
    return Layer(encode(value, at.path), Flat([], []))


def not_root(at: Place, what: str) -> None:
    if not at.segments:
        raise PathError(f"/: the root cannot be {what}; name a path below it")


# Reading


async def read(ex: Exchange, path: str, revision: int = 0) -> Any:
    """The value at a path, `MISSING` when nothing is there. The root reads as a dict."""
    at = ex.place(path)
    if not at.segments:
        _, found = await ex.read([Get(key, end, revision=revision) for key, end in at.visible])
        value = build([(kv.key, kv.value) for kvs in found for kv in kvs], at)
        return {} if value is MISSING else value
    if not revision:
        return _value(at, await ex.look(at))
    return _value(at, (await ex.read(plans.reads(at, revision=revision)))[1])


def _value(at: Place, found: Sequence[Sequence[Any]]) -> Any:
    """The value of what `plans.reads` found."""
    if found[0]:
        return decode(found[0][0].value)
    return build([(kv.key, kv.value) for kvs in found[1:] for kv in kvs], at)


def missing(path: str) -> NotFound:
    return NotFound(f"{path}: nothing is there")


async def get(ex: Exchange, path: str, revision: int = 0) -> Any:
    value = await read(ex, path, revision)
    if value is MISSING:
        raise missing(ex.place(path).path)
    return value


async def contains(ex: Exchange, path: str, revision: int = 0) -> bool:
    at = ex.place(path)
    if not at.segments:
        return True
    _, found = await ex.read(plans.reads(at, limit=8, revision=revision))
    if found[0] or any(True for _ in leaves([kv for kvs in found[1:] for kv in kvs], at)):
        return True
    if all(len(kvs) < 8 for kvs in found[1:]):
        return False
    # Nothing but invisible keys so far: look on.
    async for _ in scan(ex, at, revision):
        return True
    return False


async def entry(ex: Exchange, path: str) -> Entry:
    at = ex.place(path)
    if at.segments:
        _, found = await ex.read(plans.reads(at))
    else:
        _, below = await ex.read([Get(key, end) for key, end in at.visible])
        found = [[], *below]
    if found[0]:
        kv = found[0][0]
        return Entry(decode(kv.value), kv.mod_revision, kv.create_revision, kv.version, kv.lease)
    kvs = [kv for part in found[1:] for kv in part]
    value = build([(kv.key, kv.value) for kv in kvs], at)
    if value is MISSING:
        if at.segments:
            raise missing(at.path)
        return Entry({}, 0, 0, 0, 0)
    own = [kv for kv in kvs if plans.owner(kv.key, at) is None]
    newest = max(kv.mod_revision for kv in own)
    return Entry(value, newest, min(kv.create_revision for kv in own), 0, 0)


async def pages(ex: Exchange, start: bytes, end: bytes, revision: int = 0) -> AsyncIterator[Any]:
    """The answers that hold the keys in [start, end), in order, pinned to one revision."""
    while True:
        ex.renew()  # what is done between pages takes no time from the next
        page = await ex.range(Get(start, end, PAGE, revision=revision))
        revision = revision or page.header.revision
        yield page
        if not page.more:
            return
        start = page.kvs[-1].key + b"\0"


async def scan(ex: Exchange, at: Place, revision: int = 0) -> AsyncIterator[Leaf]:
    """The leaves of a tree, the leaf at the place itself first."""
    if at.segments:
        answer = await ex.range(Get(at.key, revision=revision))
        revision = revision or answer.header.revision
        for kv in answer.kvs:
            yield Leaf(at.path, kv.value, False, kv)
    reader = LeafReader(at)
    for start, end in at.visible:
        async for page in pages(ex, start, end, revision):
            revision = revision or page.header.revision
            for leaf in reader.feed(page.kvs):
                yield leaf
    for leaf in reader.finish():
        yield leaf


def leaf_value(leaf: Leaf) -> Any:
    if leaf.marker:
        return [] if leaf.stored == LIST else {}
    return decode(leaf.stored)


# Writing


async def _guarded(
    ex: Exchange,
    places: Sequence[Place],
    make: Callable[[Guard], tuple[Sequence[plans.Compare], Sequence[Operation]]],
    reads: Sequence[Get] = (),
    refused: Callable[[Sequence[Sequence[Any]], Guard], bool] | None = None,
    first: Outcome | None = None,
) -> tuple[Outcome, Sequence[Sequence[Any]]]:
    """Commit what ``make`` plans under a guard, as often as the guard has to be made anew.

    When the guard holds and ``refused`` says of ``reads`` that the plan's own compares fail, the outcome
    that failed is returned. ``first`` is the outcome of a first try that failed.
    """
    guard = plans.optimistic(places)
    path = places[0].path
    guards = plans.guard_reads(places, inline=True)
    while True:
        if guard is None:
            full = plans.guard_reads(places)
            revision, answers = await ex.read(full)
            guard = plans.resolve(places, answers, revision)
            assert guard is not None
        compares, operations = make(guard)
        outcome = first or await ex.commit(
            Plan((*guard.compares, *compares), (*operations, *guard.operations), (*guards, *reads)), path
        )
        first = None
        if outcome.succeeded:
            return outcome, ()
        found = outcome.found()
        own = found[len(guards) :]
        guard = plans.resolve(places, found[: len(guards)], outcome.revision)
        if guard is not None and refused is not None and refused(own, guard):
            return outcome, own


def _check_ttl(ttl: float | None, path: str) -> None:
    if ttl is not None and not (isinstance(ttl, (int, float)) and 0 < ttl <= 9_000_000_000):
        raise ConfigError(f"{path}: ttl={ttl!r}: a time to live is a positive number of seconds")


def _no_ttl_in_list(guard: Guard, lease: int, path: str) -> None:
    if lease and guard.lists:
        raise ConfigError(
            f"{path}: ttl= is refused below the list {guard.lists[-1].path}: expiry would leave a gap"
        )


async def put(
    ex: Exchange, path: str, value: Any, revision: int | None = None, ttl: float | None = None
) -> int:
    """Replace what is at a path; the revision of the write."""
    at = ex.place(path)
    not_root(at, "assigned")
    _check_ttl(ttl, at.path)
    if revision is not None and (not isinstance(revision, int) or revision < 0):
        raise RevisionError(f"{at.path}: revision={revision!r}: a revision is a whole number, 0 for create")
    lay = layer(value, at)
    if ttl is None:
        return await write(ex, at, lay, revision, 0)
    # Cancelled between the write and its answer, it would leave a lease, or end one that a value is under.
    return await ex.space.caller.wire.finish(_put_leased(ex, at, lay, revision, ttl))


async def _put_leased(ex: Exchange, at: Place, lay: Layer, revision: int | None, ttl: float) -> int:
    lease = new_lease_id()
    await ex.grant(lease, ttl)
    try:
        return await write(ex, at, lay, revision, lease)
    except LinkKVError as error:
        if not isinstance(error, OutcomeUnknown):
            await ex.abandon(lease)
        raise


async def write(ex: Exchange, at: Place, lay: Layer, revision: int | None, lease: int) -> int:
    """Replace what is at a place, under a lease unless it is 0."""
    if revision == 0:
        written, existing = await _create(ex, at, lay, lease)
        if existing is not MISSING:
            raise KeyExists(f"{at.path}: something is there already, and revision=0 means create")
        return written
    if revision is not None:
        return await _put_at(ex, at, lay, revision, lease)
    if lay.stored is None:
        return await _replace(ex, at, lay.flat, lease)
    stored = lay.stored

    def make(guard: Guard) -> tuple[Sequence[plans.Compare], Sequence[Operation]]:
        _no_ttl_in_list(guard, lease, at.path)
        return (), plans.set_leaf(at, stored, lease)

    first = None if lease else await ex.assign(at, stored)
    if first is not None and first.succeeded:
        return first.revision
    outcome, _ = await _guarded(ex, [at], make, first=first)
    return outcome.revision


async def _put_at(ex: Exchange, at: Place, lay: Layer, revision: int, lease: int) -> int:
    """Replace a leaf that is still at ``revision``."""
    operations = (
        plans.gaps(at, lay.flat, lease) if lay.stored is None else plans.set_leaf(at, lay.stored, lease)
    )
    markers = [Get(above.marker) for above in at.ancestors()] if lease else []
    probe = (*plans.reads(at, limit=2), *markers)
    if lease:
        _, found = await ex.read(probe)
        if any(kv.value == LIST for kvs in found[3:] for kv in kvs):
            raise ConfigError(f"{at.path}: ttl= is refused below a list: expiry would leave a gap")
    plan = Plan((plans.unmoved(at.key, revision),), operations, probe, guarded=True)
    outcome = await ex.commit(plan, at.path)
    if outcome.succeeded:
        return outcome.revision
    leaf, *below = outcome.found()[:3]
    if leaf:
        raise Conflict(f"{at.path}: is at revision {leaf[0].mod_revision}, not {revision}")
    kvs = [kv for part in below for kv in part]
    if not kvs:
        raise Conflict(f"{at.path}: nothing is there, and revision={revision} was expected")
    if len(kvs) > 1 or kvs[0].key != at.marker:
        raise TooLarge(
            f"{at.path}: revision= compares a leaf, and a tree is there: deletes in a tree cannot be compared"
        )
    if kvs[0].mod_revision != revision:
        raise Conflict(f"{at.path}: is at revision {kvs[0].mod_revision}, not {revision}")
    return await _put_over_empty(ex, at, lay, revision, lease)


async def _put_over_empty(ex: Exchange, at: Place, lay: Layer, revision: int, lease: int) -> int:
    """Replace an empty dict or list, which counts as a leaf, that is still at ``revision``."""
    compares = [plans.unmoved(at.marker, revision), plans.absent(at.key)]
    after = at.marker + b"\0"
    compares += (plans.absent(after, at.housekeeping[0]), plans.absent(*at.visible[1]))
    operations = (
        plans.gaps(at, lay.flat, lease) if lay.stored is None else plans.set_leaf(at, lay.stored, lease)
    )
    outcome = await ex.commit(Plan(tuple(compares), operations, guarded=True), at.path)
    if not outcome.succeeded:
        raise Conflict(f"{at.path}: has moved on from revision {revision}")
    return outcome.revision


async def _replace(ex: Exchange, at: Place, flat: Flat, lease: int) -> int:
    """Put a tree where something may be: read the keys, write what is new, delete what is gone."""
    guards = plans.guard_reads([at])
    reads = (Get(at.key, keys_only=True), Get(at.marker, at.end, keys_only=True))
    for _ in range(_LOST_BEFORE_GAPS):
        revision, found = await ex.read([*guards, *reads])
        guard = plans.resolve([at], found[: len(guards)], revision)
        assert guard is not None
        _no_ttl_in_list(guard, lease, at.path)
        leaf, below = found[len(guards) :]
        compares, operations = plans.replace(at, flat, bool(leaf), [kv.key for kv in below], revision, lease)
        plan = Plan((*guard.compares, *compares), [*operations, *guard.operations], guarded=True)
        outcome = await ex.commit(plan, at.path)
        if outcome.succeeded:
            return outcome.revision
    # Others write here faster than we read and write: leave reading out.
    operations = plans.gaps(at, flat, lease)

    def make(guard: Guard) -> tuple[Sequence[plans.Compare], Sequence[Operation]]:
        _no_ttl_in_list(guard, lease, at.path)
        return (), operations

    try:
        outcome, _ = await _guarded(ex, [at], make)
    except TooLarge:
        return await _replace(ex, at, flat, lease)
    return outcome.revision


async def _create(ex: Exchange, at: Place, lay: Layer, lease: int) -> tuple[int, Any]:
    """Write where nothing is. The revision, and what was there instead, or `MISSING`."""
    flat = lay.flat if lay.stored is None else Flat([(at.key, lay.stored)], [])
    compares, operations = plans.create(at, flat, lease)

    def make(guard: Guard) -> tuple[Sequence[plans.Compare], Sequence[Operation]]:
        _no_ttl_in_list(guard, lease, at.path)
        return compares, operations

    def refused(own: Sequence[Sequence[Any]], guard: Guard) -> bool:
        return any(own)

    outcome, own = await _guarded(ex, [at], make, plans.reads(at), refused)
    if outcome.succeeded:
        return outcome.revision, MISSING
    value = _value(at, own)
    # Only keys that no path can name: they count as something, since they bar the compare.
    return outcome.revision, {} if value is MISSING else value


async def create(ex: Exchange, path: str, value: Any, ttl: float | None = None) -> int:
    at = ex.place(path)
    not_root(at, "created")
    try:
        return await put(ex, path, value, revision=0, ttl=ttl)
    except KeyExists:
        raise KeyExists(f"{at.path}: something is there already") from None


async def setdefault(ex: Exchange, path: str, value: Any) -> Any:
    at = ex.place(path)
    not_root(at, "assigned")
    _, existing = await _create(ex, at, layer(value, at), 0)
    return value if existing is MISSING else existing


# Deleting


async def delete(ex: Exchange, path: str) -> int:
    """Delete a leaf or a tree; the revision of the delete."""
    at = ex.place(path)
    not_root(at, "deleted")
    revision, _ = await _remove(ex, at, previous=False)
    return revision


async def pop(ex: Exchange, path: str, default: Any = MISSING) -> Any:
    """Delete a leaf or a tree; the value that it had, or ``default`` when nothing is there."""
    at = ex.place(path)
    not_root(at, "popped")
    try:
        _, value = await _remove(ex, at, previous=True)
    except NotFound:
        if default is MISSING:
            raise
        return default
    return value


async def _remove(ex: Exchange, at: Place, *, previous: bool) -> tuple[int, Any]:
    plan = Plan(
        plans.no_list_above(at),
        plans.delete(at, previous=previous),
        [Get(above.marker) for above in at.ancestors()],
    )
    if len(plan.compares) <= plans.MAX_COMPARES:
        outcome = await ex.commit(plan, at.path)
        if outcome.succeeded:
            answers = [answer.response_delete_range for answer in outcome.answers()[:3]]
            if not any(answer.deleted for answer in answers):
                raise missing(at.path)
            value = _value(at, [answer.prev_kvs for answer in answers]) if previous else MISSING
            if previous and value is MISSING:
                raise missing(at.path)
            return outcome.revision, value
    while True:
        done = await _remove_below_list(ex, at)
        if done is not None:
            return done


async def _remove_below_list(ex: Exchange, at: Place) -> tuple[int, Any] | None:
    """Delete where lists may stand above; None when others were faster."""
    ancestors = list(at.ancestors())
    revision, found = await ex.read([*(Get(above.marker) for above in ancestors), *plans.reads(at)])
    value = _value(at, found[len(ancestors) :])
    if value is MISSING:
        raise missing(at.path)
    lists: list[Place] = []
    markers: list[Any] = []
    compares: list[plans.Compare] = []
    for above, marker in zip(ancestors, found, strict=False):
        if not marker:
            compares.append(plans.absent(above.marker))
            continue
        compares.append(plans.unmoved(above.marker, marker[0].mod_revision))
        if marker[0].value == LIST and is_index(at.segments[len(above.segments)]):
            lists.append(above)
            markers += marker
    if len(compares) > plans.MAX_COMPARES:
        # Whatever is put shows over the range; and without a put, a list only goes together with those in it.
        top = ancestors[0]
        compares = [plans.quiet(top.key, top.end, revision)]
        compares += [plans.unmoved(marker.key, marker.mod_revision) for marker in markers[-1:]]
    reread = True
    plan = Plan((), plans.delete(at, previous=True))
    if lists:
        above = lists[-1]
        index = int(at.segments[len(above.segments)])
        if len(at.segments) > len(above.segments) + 1:
            item = above.child(str(index))
            _, found = await ex.read(plans.reads(item, keys_only=True, revision=revision))
            visible = [kv for kvs in found for kv in kvs if plans.owner(kv.key, item) is None]
            plan = plans.delete_in_item(at, item, markers, visible, revision)
            reread = False
        else:
            _, found = await ex.read([Get(above.marker, above.end, revision=revision)])
            if _is_proper_list(above, found[0]):
                plan = plans.delete_item(above, index, markers, found[0], revision)
                reread = False
            else:
                plan = Plan((), (*plan.operations, *plans.markers_again(markers)))
    outcome = await ex.commit(plan._replace(compares=(*plan.compares, *compares)), at.path)
    if not outcome.succeeded:
        return None
    if reread:
        value = _value(at, [answer.response_delete_range.prev_kvs for answer in outcome.answers()[:3]])
        if value is MISSING:
            raise missing(at.path)
    return outcome.revision, value


def _is_proper_list(at: Place, kvs: Sequence[Any]) -> bool:
    return isinstance(build([(kv.key, kv.value) for kv in kvs], at), list)


async def clear(ex: Exchange, force: bool) -> None:
    at = ex.place("/")
    if not at.prefix and not force:
        raise PathError("clear() without a prefix would empty the whole etcd: say clear(force=True)")
    await ex.commit(Plan((), [Delete(start, end) for start, end in at.visible]), "/")


async def popitem(ex: Exchange) -> tuple[str, Any]:
    root = ex.place("/")
    while True:
        leaf = await _first(ex, root)
        if leaf is None:
            raise NotFound("/: nothing is there")
        at = ex.place(leaf.path)
        if await _in_list(ex, at):
            try:
                return leaf.path, await pop(ex, leaf.path)
            except NotFound:
                continue
        compares = (plans.unmoved(leaf.kv.key, leaf.kv.mod_revision), *plans.no_list_above(at))
        plan = Plan(compares[: plans.MAX_COMPARES], [Delete(leaf.kv.key)], guarded=True)
        if (await ex.commit(plan, leaf.path)).succeeded:
            return leaf.path, leaf_value(leaf)


async def _first(ex: Exchange, at: Place) -> Leaf | None:
    async for leaf in scan(ex, at):
        return leaf
    return None


async def _in_list(ex: Exchange, at: Place) -> bool:
    above = list(at.ancestors())
    if not above:
        return False
    _, found = await ex.read([Get(place.marker) for place in above])
    return any(kv.value == LIST for kvs in found for kv in kvs)


# Many at once, and at the end of a list


def pairs(other: Any, names: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """What ``dict.update`` would take, in order."""
    if isinstance(other, Mapping):
        given = list(other.items())
    elif hasattr(other, "keys"):
        given = [(key, other[key]) for key in other.keys()]  # noqa: SIM118
    else:
        given = [(key, value) for key, value in other]
    return given + list(names.items())


async def update(ex: Exchange, assignments: Sequence[tuple[str, Any]]) -> int:
    """Write the pairs as one transaction, as a dict would take them in order; the revision, 0 for none."""
    writes = [(at, layer(value, at)) for at, value in fold(assignments, ex.place)]
    if not writes:
        return 0
    places = [at for at, _ in writes]
    blind = [op for at, lay in writes for op in unread(at, lay)]
    if len(writes) <= _UPDATE_UNREAD and len(blind) <= plans.MAX_COMPARES:
        return await _update_unread(ex, places, blind)
    guards = plans.guard_reads(places)
    span = _span(places)
    limit = 4 * sum(len(lay.flat.pairs) + 1 for _, lay in writes) + PAGE
    for _ in range(_LOST_BEFORE_GAPS):
        revision, found = await ex.read([*guards, Get(*span, limit, keys_only=True)])
        guard = plans.resolve(places, found[: len(guards)], revision)
        assert guard is not None
        keys = [kv.key for kv in found[-1]]
        if len(keys) >= limit:
            break  # what is there dwarfs what is written
        operations: list[Operation] = []
        for (at, lay), (leaf, below) in zip(writes, _below(places, keys), strict=True):
            if lay.stored is not None:
                operations.append(Put(at.key, lay.stored))
                operations += [Delete(at.marker, at.end)] if below else []
            else:
                operations += plans.replace(at, lay.flat, leaf, below, revision)[1]
        plan = Plan(
            (*guard.compares, plans.quiet(*span, revision)), [*operations, *guard.operations], guarded=True
        )
        outcome = await ex.commit(plan, places[0].path)
        if outcome.succeeded:
            return outcome.revision
    return await _update_unread(ex, places, blind)


def unread(at: Place, lay: Layer) -> Sequence[Operation]:
    """A replacement of whatever is at a place, without looking first."""
    return plans.gaps(at, lay.flat) if lay.stored is None else plans.set_leaf(at, lay.stored)


async def _update_unread(ex: Exchange, places: Sequence[Place], operations: Sequence[Operation]) -> int:
    outcome, _ = await _guarded(ex, places, lambda guard: ((), operations))
    return outcome.revision


def _span(places: Sequence[Place]) -> tuple[bytes, bytes]:
    """The range of the smallest tree that holds all the places."""
    first, last = min(place.segments for place in places), max(place.segments for place in places)
    common = 0
    while common < min(len(first), len(last)) - 1 and first[common] == last[common]:
        common += 1
    prefix = places[0].prefix
    key = prefix + "".join("/" + segment for segment in first[:common]).encode()
    return key + b"/", key + b"0"


def _below(places: Sequence[Place], keys: list[bytes]) -> list[tuple[bool, list[bytes]]]:
    """For each place: whether its leaf is among the sorted keys, and the keys below it."""
    result = []
    for at in places:
        start = bisect_left(keys, at.key)
        leaf = start < len(keys) and keys[start] == at.key
        first = bisect_left(keys, at.marker, start)
        result.append((leaf, keys[first : bisect_left(keys, at.end, first)]))
    return result


async def append(ex: Exchange, path: str, value: Any) -> str:
    """Add an item to a list, made when nothing is there; the path of the item."""
    at = ex.place(path)
    not_root(at, "appended to")
    while True:
        mod, last = await _last_index(ex, at)
        if mod == 0:
            item = at.child("1")
            try:
                await write(ex, at, layer([value], at), 0, 0)
            except KeyExists:
                continue
            return item.path
        item = at.child(str(last + 1))
        lay = layer(value, item)
        flat = lay.flat if lay.stored is None else Flat([(item.key, lay.stored)], [])
        compares, operations = plans.create(item, flat)
        plan = Plan((plans.unmoved(at.marker, mod), *compares), operations, guarded=True)
        if (await ex.commit(plan, item.path)).succeeded:
            return item.path


async def _last_index(ex: Exchange, at: Place) -> tuple[int, int]:
    """The revision of a list's marker, 0 where nothing is, and the list's length.

    The length is found by asking for many places at once, first at powers of two, then between them.
    """
    probes = [2**power for power in range(20)]
    low, high = 0, 0
    mod = 0
    while True:
        gets = [get for index in probes for get in plans.reads(at.child(str(index)), keys_only=True, limit=1)]
        _, found = await ex.read([*plans.reads(at, limit=1), *gets])
        leaf, *below = found[:3]
        if leaf:
            raise NotATree(f"{at.path}: holds a value, not a list")
        marker = below[0][0] if below[0] and below[0][0].key == at.marker else None
        if marker is None and not any(below):
            return 0, 0
        if marker is None or marker.value != LIST:
            raise NotATree(f"{at.path}: is a dict, not a list")
        if mod and marker.mod_revision != mod:
            probes, low, high, mod = [2**power for power in range(20)], 0, 0, 0
            continue
        mod = marker.mod_revision
        for number, index in enumerate(probes):
            if any(found[3 + 3 * number : 6 + 3 * number]):
                low = max(low, index)
            elif not high or index < high:
                high = index
                break
        if high and high - low <= 1:
            return mod, low
        if not high:
            probes = [low * 2 ** (power + 1) for power in range(20)]
        else:
            step = max(1, math.ceil((high - low) / 40))
            probes = list(range(low + step, high, step)) or [high - 1]


# The past


async def revision_now(ex: Exchange) -> int:
    answer = await ex.range(Get(ex.space.prefix + b"/.link/layout"), count_only=True)
    return int(answer.header.revision)


# What views need


def past_revision(revision: object) -> int:
    if not isinstance(revision, int) or isinstance(revision, bool) or revision < 1:
        raise RevisionError(f"revision {revision!r}: a revision is a whole number from 1 on")
    return revision


class Kind(enum.Enum):
    LEAF = "leaf"
    DICT = "dict"
    LIST = "list"
    NOTHING = "nothing"


async def peek(ex: Exchange, path: str) -> tuple[Kind, Any]:
    """What stands at a path, and its value if it is a leaf."""
    at = ex.place(path)
    if not at.segments:
        return Kind.DICT, MISSING
    _, found = await ex.read(plans.reads(at, limit=8))
    leaf, *below = found
    if leaf:
        return Kind.LEAF, decode(leaf[0].value)
    if below[0] and below[0][0].key == at.marker and below[0][0].value == LIST:
        _, found = await ex.read([Get(at.marker, at.end)])
        return (Kind.LIST if _is_proper_list(at, found[0]) else Kind.DICT), MISSING
    if any(True for _ in leaves([kv for kvs in below for kv in kvs], at)):
        return Kind.DICT, MISSING
    if all(len(kvs) < 8 for kvs in below):
        return Kind.NOTHING, MISSING
    return (Kind.DICT if await contains(ex, path) else Kind.NOTHING), MISSING


async def children(ex: Exchange, path: str) -> list[str]:
    """The segments that stand directly below a path, in the order of their bytes."""
    at = ex.place(path)
    seen: dict[str, None] = {}
    depth = len(at.segments)
    async for leaf in scan(ex, at):
        if leaf.path != at.path:
            seen.setdefault(leaf.path.split("/", depth + 2)[depth + 1])
    return list(seen)


async def length(ex: Exchange, path: str) -> int:
    """The number of items of a list."""
    mod, last = await _last_index(ex, ex.place(path))
    if not mod:
        raise missing(path)
    return last


async def edit_list(ex: Exchange, path: str, edit: Callable[[list[Any]], T]) -> T:
    """Read a list, let ``edit`` change it, and write it back in one transaction; again when it has moved."""
    at = ex.place(path)
    while True:
        revision, found = await ex.read([Get(at.marker), *plans.reads(at)])
        value = _value(at, found[1:])
        if value is MISSING:
            raise missing(at.path)
        if not isinstance(value, list):
            raise NotATree(f"{at.path}: is not a list")
        mod = found[0][0].mod_revision
        result = edit(value)
        guards = plans.guard_reads([at])
        _, below = await ex.read([*guards, Get(at.marker, at.end, keys_only=True, revision=revision)])
        guard = plans.resolve([at], below[: len(guards)], revision)
        assert guard is not None
        compares, operations = plans.replace(
            at, flatten(value, at), False, [kv.key for kv in below[-1]], revision
        )
        plan = Plan(
            (*guard.compares, plans.unmoved(at.marker, mod), *compares),
            [*operations, *guard.operations],
            guarded=True,
        )
        if (await ex.commit(plan, at.path)).succeeded:
            return result


async def any_leaf(ex: Exchange, at: Place, revision: int = 0, *, below: bool = False) -> bool:
    """Whether anything visible is in a tree; ``below`` leaves out its own marker."""
    _, found = await ex.read([Get(start, end, 8, revision=revision) for start, end in at.visible])
    kvs = [kv for part in found for kv in part]
    if any(not below or leaf.path != at.path for leaf in leaves(kvs, at)):
        return True
    if all(len(part) < 8 for part in found):
        return False
    async for leaf in scan(ex, at, revision):
        if not below or leaf.path != at.path:
            return True
    return False


# The raw keys


def _raw(key: object, what: str = "key") -> bytes:
    if not isinstance(key, bytes):
        raise EncodeError(f"{key!r}: a raw {what} is bytes, not {type(key).__name__}")
    if not key and what == "key":
        raise PathError("b'': etcd has no empty key")
    return key


def raw_range(space: Namespace) -> tuple[bytes, bytes]:
    """Every key below the prefix; all there are where there is no prefix."""
    prefix = space.prefix
    return (prefix + b"/", prefix + b"0") if prefix else (b"\0", b"\0")


async def raw_get(ex: Exchange, key: bytes) -> bytes | None:
    answer = await ex.range(Get(_raw(key)))
    return answer.kvs[0].value if answer.kvs else None


async def raw_item(ex: Exchange, key: bytes) -> bytes:
    found = await raw_get(ex, key)
    if found is None:
        raise NotFound(f"{key!r}: no such key")
    return found


async def raw_put(ex: Exchange, key: bytes, value: bytes) -> int:
    plan = Plan((), [Put(_raw(key), _raw(value, "value"))])
    return (await ex.commit(plan, repr(key))).revision


async def raw_delete(ex: Exchange, key: bytes) -> int:
    outcome = await ex.commit(Plan((), [Delete(_raw(key))]), repr(key))
    if not outcome.answers()[0].response_delete_range.deleted:
        raise NotFound(f"{key!r}: no such key")
    return outcome.revision


async def raw_count(ex: Exchange, start: bytes, end: bytes) -> int:
    return int((await ex.range(Get(start, end), count_only=True)).count)
