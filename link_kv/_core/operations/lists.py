"""Lists: at their end, and as a whole."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from link_kv import plan as plans
from link_kv._core.operations.reading import missing
from link_kv._core.operations.writing import layer, not_root, write
from link_kv._core.wire.exchange import Exchange
from link_kv.errors import (
    KeyExists,
    ListIndexError,
    NotATree,
)
from link_kv.plan import Get, Plan, Put
from link_kv.tree import (
    LIST,
    MISSING,
    Flat,
    Place,
    build,
    flatten,
)

T = TypeVar("T")


async def append(ex: Exchange, path: str, value: Any) -> str:
    """Add an item to a list, made when nothing is there; the path of the item.

    In a list under a lease the item is under it too, so that all of it goes at once.
    """
    at = ex.place(path)
    not_root(at, "appended to")
    guessed = None
    while True:
        marker, keys = await _list_at(ex, at)
        if marker is None:
            item = at.child("1")
            try:
                await write(ex, at, layer([value], at), 0, 0)
            except KeyExists:
                continue
            return item.path
        # Where every item is one key, there are as many items as keys. The transaction checks that; where
        # it did not hold, and not because others append too, the end is looked for.
        guess = (marker.mod_revision, keys) != guessed
        guessed = (marker.mod_revision, keys)
        last = keys if guess else await _last_of_all(ex, at)
        item = at.child(str(last + 1))
        lay = layer(value, item)
        flat = lay.flat if lay.stored is None else Flat([(item.key, lay.stored)], [])
        compares, operations = plans.create(item, flat, marker.lease)
        if guess and last:
            compares = (plans.present(at.child(str(last)).key), *compares)
        plan = Plan((plans.unmoved(at.marker, marker.mod_revision), *compares), operations, guarded=True)
        if (await ex.commit(plan, item.path)).succeeded:
            return item.path


async def _list_at(ex: Exchange, at: Place) -> tuple[Any, int]:
    """The marker of a list, None where nothing is, and how many keys its items have."""
    _, (leaf, near, far) = await ex.ask(plans.reads(at, limit=1))
    marker = _marker(at, leaf.kvs, near.kvs, far.kvs)
    return marker, near.count + far.count - 1 if marker else 0


def _marker(at: Place, leaf: Sequence[Any], *below: Sequence[Any]) -> Any:
    """The marker of a list among what was found at its place, None where nothing is."""
    if leaf:
        raise NotATree(f"{at.path}: holds a value, not a list")
    if not any(below):
        return None
    first = below[0][0] if below[0] else None
    if first is None or first.key != at.marker or first.value != LIST:
        raise NotATree(f"{at.path}: is a dict, not a list")
    return first


async def _last_of_all(ex: Exchange, at: Place) -> int:
    """The length of a list, of which every key is looked at; 0 also where nothing is.

    Raises `ListIndexError` where others left a gap: an item at its place would show all of them as a list.
    """
    _, found = await ex.read([*plans.reads(at, limit=1), *plans.reads(at, keys_only=True)])
    if _marker(at, *found[:3]) is None:
        return 0
    start = len(at.marker)
    segments = {kv.key[start:].partition(b"/")[0] for kvs in found[4:] for kv in kvs} - {b""}
    for index in range(1, len(segments) + 1):
        if str(index).encode() not in segments:
            raise ListIndexError(
                f"{at.path}: its marker says list, but item {index} is missing, as others left it: "
                f"write {at.path}/{index}, or assign the list as a whole"
            )
    return len(segments)


async def _last_index(ex: Exchange, at: Place) -> int:
    """The length of a list, 0 also where nothing is.

    It is found by asking for many places at once, first at powers of two, then between them.
    """
    probes = [2**power for power in range(20)]
    low, high = 0, 0
    mod = 0
    while True:
        gets = [get for index in probes for get in plans.reads(at.child(str(index)), keys_only=True, limit=1)]
        _, found = await ex.read([*plans.reads(at, limit=1), *gets])
        marker = _marker(at, *found[:3])
        if marker is None:
            return 0
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
            return low
        if not high:
            probes = [low * 2 ** (power + 1) for power in range(20)]
        else:
            step = max(1, math.ceil((high - low) / 40))
            probes = list(range(low + step, high, step)) or [high - 1]


async def length(ex: Exchange, path: str) -> int:
    """The number of items of a list."""
    at = ex.place(path)
    marker, keys = await _list_at(ex, at)
    if marker is None:
        raise missing(path)
    if not keys:
        return 0
    last = Get(at.child(str(keys)).key, keys_only=True)
    _, (found, *following) = await ex.read(
        [last, *plans.reads(at.child(str(keys + 1)), keys_only=True, limit=1)]
    )
    if found and not any(following):
        return keys  # every item is one key
    return await _last_index(ex, at)


async def edit_list(ex: Exchange, path: str, edit: Callable[[list[Any]], T]) -> T:
    """Read a list, let ``edit`` change it, and write what differs in one transaction.

    Again when it has moved. The housekeeping of an item goes where the item goes.
    """
    at = ex.place(path)
    guards = plans.guard_reads([at])
    while True:
        revision, found = await ex.read([*guards, Get(at.key), Get(at.marker, at.end)])
        leaf, below = found[len(guards) :]
        value = build([(kv.key, kv.value) for kv in below], at)
        if not leaf and value is MISSING:
            raise missing(at.path)
        if leaf or not isinstance(value, list):
            raise NotATree(f"{at.path}: is not a list")
        before = value.copy()
        result = edit(value)
        guard = plans.resolve([at], found[: len(guards)], revision)
        assert guard is not None
        marker = below[0]
        flat = flatten(value, at)
        notes = [*_housekeeping(at, below, before, value, flat)]
        keys = [*(key for key, _ in flat.pairs), *(note.key for note in notes)]
        operations = [*plans.in_lists(plans.puts(flat, marker.lease), guard), *notes]
        # What others change in a list puts a key in it, or its marker: that one is put whatever differs.
        there = {Put(kv.key, kv.value, kv.lease) for kv in below[1:]}
        operations = [put for put in operations if put not in there]
        operations += plans.gone([kv.key for kv in below], keys)
        quiet = plans.quiet(at.marker, at.end, revision)
        unmoved = plans.unmoved(at.marker, marker.mod_revision)
        compares = (*guard.compares, unmoved, plans.absent(at.key), quiet)
        plan = Plan(compares, [*operations, *guard.operations], guarded=True)
        if (await ex.commit(plan, at.path)).succeeded:
            return result


def _housekeeping(
    at: Place, below: Sequence[Any], before: Sequence[Any], after: Sequence[Any], flat: Flat
) -> Iterator[Put]:
    """The housekeeping below a list once it was edited: an item's where the item is now.

    Where an item gave way to another at its place, what belongs to a dict or list that the new one still has
    stays, as it does when the item is assigned.
    """
    # Trees were made when the list was read, and each is itself alone. Leaves have no housekeeping.
    new = {id(item): index for index, item in enumerate(after, 1) if isinstance(item, (dict, list))}
    places = {b"%d" % index: new.get(id(item), 0) for index, item in enumerate(before, 1)}
    nodes, taken = set(flat.nodes), {b"%d" % place for place in places.values()}
    for kv in below:
        owner = plans.owner(kv.key, at)
        if owner is None:
            continue
        index, _, rest = kv.key[len(at.marker) :].partition(b"/")
        place = places.get(index)
        if place:
            yield Put(b"%s%d/%s" % (at.marker, place, rest), kv.value, kv.lease)
        elif owner in nodes and index not in taken:
            yield Put(kv.key, kv.value, kv.lease)
