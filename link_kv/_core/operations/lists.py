"""Lists: at their end, and as a whole."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

from link_kv import plan as plans
from link_kv._core.exchange import Exchange
from link_kv._core.operations.reading import missing
from link_kv._core.operations.writing import layer, not_root, write
from link_kv.errors import (
    KeyExists,
    NotATree,
)
from link_kv.plan import Get, Plan
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


async def length(ex: Exchange, path: str) -> int:
    """The number of items of a list."""
    mod, last = await _last_index(ex, ex.place(path))
    if not mod:
        raise missing(path)
    return last


async def edit_list(ex: Exchange, path: str, edit: Callable[[list[Any]], T]) -> T:
    """Read a list, let ``edit`` change it, and write it back in one transaction; again when it has moved."""
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
        result = edit(value)
        guard = plans.resolve([at], found[: len(guards)], revision)
        assert guard is not None
        keys = [kv.key for kv in below]
        compares, operations = plans.replace(at, flatten(value, at), False, keys, revision)
        compares = (*guard.compares, plans.unmoved(at.marker, below[0].mod_revision), *compares)
        plan = Plan(compares, [*operations, *guard.operations], guarded=True)
        if (await ex.commit(plan, at.path)).succeeded:
            return result
