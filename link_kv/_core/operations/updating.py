"""Writing many values at once."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from link_kv import plan as plans
from link_kv._core.operations.fold import fold
from link_kv._core.operations.writing import (
    LOST_BEFORE_GAPS,
    Layer,
    as_found,
    guarded,
    layer,
    read_limit,
    unread,
)
from link_kv._core.wire.exchange import Exchange
from link_kv.codec import encode
from link_kv.errors import TooLarge
from link_kv.plan import Delete, Get, Operation, Plan, Put
from link_kv.tree import Place, placer

_FEW = 16
"""Up to this many pairs, an update deletes below each leaf unseen, or looks at each place by itself."""


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
    if len(assignments) > _FEW:
        siblings = _siblings(ex, assignments)
        if siblings is not None:
            return await _update_siblings(ex, *siblings)
    writes = [(at, layer(value, at)) for at, value in fold(assignments, placer(ex.space.prefix))]
    if not writes:
        return 0
    places = [at for at, _ in writes]
    few = len(writes) <= _FEW
    if few:
        blind = _blind(writes)
        if len(blind) <= plans.MAX_COMPARES:
            return await _update_unread(ex, places, blind)
    guards = plans.guard_reads(places)
    ranges = [_span(at.key for at in places)]
    if few:
        ranges = [each for at in places for each in ((at.key, b""), (at.marker, at.end))]
    limit = read_limit(sum(len(lay.flat.pairs) + 1 for _, lay in writes))
    reads = [Get(start, end, limit, keys_only=True) for start, end in ranges]
    too_many = False
    for _ in range(LOST_BEFORE_GAPS):
        revision, found = await ex.read([*guards, *reads])
        room = plans.MAX_COMPARES - len(ranges)
        guard = plans.resolve(places, found[: len(guards)], revision, room)
        assert guard is not None
        keys = sorted(kv.key for kvs in found[len(guards) :] for kv in kvs)
        too_many = len(keys) >= limit
        if too_many:
            break  # what is there dwarfs what is written
        operations: list[Operation] = []
        key = None
        for (at, lay), (leaf, below) in zip(writes, _below(places, keys), strict=True):
            if lay.stored is not None:
                operations.append(Put(at.key, lay.stored))
                operations += [Delete(at.marker, at.end)] if below else []
            else:
                operations += plans.replace(at, lay.flat, leaf, below, revision)[1]
            if key is None:
                key = at.key if leaf else plans.touched(at, lay.flat, below)
        silent = (plans.quiet(start, end, revision) for start, end in ranges)
        compares = (*guard.compares, *silent, *as_found(key, found[len(guards) :]))
        operations = [*plans.in_lists(operations, guard), *guard.operations]
        plan = Plan(compares, operations, guarded=key is not None)
        try:
            outcome = await ex.commit(plan, places[0].path)
        except TooLarge:
            too_many = True
            break
        if outcome.succeeded:
            return outcome.revision
    try:
        return await _update_unread(ex, places, _blind(writes))
    except TooLarge:
        if too_many:
            raise
        return await update(ex, assignments)


def _siblings(ex: Exchange, assignments: Sequence[tuple[str, Any]]) -> tuple[Place, dict[str, Any]] | None:
    """The parent of all that is written, and the values by segment, where all are leaves side by side.

    Large updates mostly are of this kind, and need no place of its own for each leaf. None for all others.
    """
    head = assignments[0][0].rpartition("/")[0] if type(assignments[0][0]) is str else ""
    if not head.strip("/") or head.endswith("/"):
        return None
    values: dict[str, Any] = {}
    for path, value in assignments:
        if type(path) is not str or isinstance(value, (dict, list, tuple)):
            return None
        above, _, segment = path.rpartition("/")
        if above != head or not segment or segment[0] in ".123456789" or not segment.isascii():
            return None  # among them what cannot be named, and the items of lists
        values[segment] = value
    return ex.place(head), values


async def _update_siblings(ex: Exchange, parent: Place, values: Mapping[str, Any]) -> int:
    """Write many leaves below one parent, which is no list."""
    stored = {
        parent.marker + segment.encode(): encode(value, f"{parent.path}/{segment}")
        for segment, value in values.items()
    }
    puts = [Put(key, data) for key, data in stored.items()]
    one = parent.child(next(iter(values)))
    guards = plans.guard_reads([one])
    start, end = _span(stored)
    limit = read_limit(len(stored))
    too_many = False
    for _ in range(LOST_BEFORE_GAPS):
        revision, found = await ex.read([*guards, Get(start, end, limit, keys_only=True)])
        guard = plans.resolve([one], found[: len(guards)], revision)
        assert guard is not None
        there = found[len(guards)]
        too_many = len(there) >= limit
        if too_many:
            break  # what is there dwarfs what is written
        hidden = {_above(kv.key, parent) for kv in there if kv.key not in stored}.intersection(stored)
        deletes = [Delete(key + b"/", key + b"0") for key in hidden]
        touched = next((kv for kv in there if kv.key in stored), None)
        compares = (*guard.compares, plans.quiet(start, end, revision))
        if touched is not None:
            compares = (*compares, plans.unmoved(touched.key, touched.mod_revision))
        operations = [*plans.in_lists([*puts, *deletes], guard), *guard.operations]
        plan = Plan(compares, operations, guarded=touched is not None)
        outcome = await ex.commit(plan, one.path)
        if outcome.succeeded:
            return outcome.revision
    deletes = [Delete(key + b"/", key + b"0") for key in stored]
    try:
        return await _update_unread(ex, [one], [*puts, *deletes])
    except TooLarge:
        if too_many:
            raise
        return await _update_siblings(ex, parent, values)


def _above(key: bytes, parent: Place) -> bytes:
    """The key of the child that a key below ``parent`` lies under."""
    slash = key.find(b"/", len(parent.marker))
    return key if slash < 0 else key[:slash]


def _blind(writes: Sequence[tuple[Place, Layer]]) -> list[Operation]:
    return [operation for at, lay in writes for operation in unread(at, lay)]


async def _update_unread(ex: Exchange, places: Sequence[Place], operations: Sequence[Operation]) -> int:
    outcome, _ = await guarded(ex, places, lambda guard: ((), operations))
    return outcome.revision


def _span(keys: Iterable[bytes]) -> tuple[bytes, bytes]:
    """The smallest range that holds all the keys, and what lies below each."""
    keys = list(keys)
    return min(keys), max(key + b"0" for key in keys)


def _below(places: Sequence[Place], keys: Sequence[bytes]) -> list[tuple[bool, list[bytes]]]:
    """For each place: whether its leaf is among the sorted keys, and the keys below it."""
    leaves = {at.key for at in places}
    found = leaves.intersection(keys)
    deeper = [key for key in keys if key not in leaves]  # no place is above another
    result = []
    for at in places:
        first = bisect_left(deeper, at.marker) if deeper else 0
        below = first < len(deeper) and deeper[first] < at.end
        result.append((at.key in found, deeper[first : bisect_left(deeper, at.end, first)] if below else []))
    return result
