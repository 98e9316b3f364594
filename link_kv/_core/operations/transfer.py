"""Copying and moving a leaf or a tree to another path, in one transaction."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

from link_kv import plan as plans
from link_kv._core.operations import missing, not_root, stm
from link_kv._core.wire.exchange import Exchange
from link_kv.errors import ConfigError, Conflict, KeyExists, PathError, TooLarge
from link_kv.plan import Compare, Delete, Get, Operation, Plan, Put
from link_kv.tree import LIST, Place, is_index, leaves


async def transfer(
    ex: Exchange, source: str, target: str, *, move: bool, revision: int | None = None
) -> tuple[int, str]:
    """Write what is at a path over what is at another, and with ``move`` delete it there.

    Returns the revision and the path where it lies then. That is ``target``, unless an item moved to behind
    itself in its list: those behind it move up, and it with them.

    All of it is of one revision, and as it is when it is written: each key that was read is compared, however
    many there are. A tree takes its housekeeping along, and when it moves its leases. Out of a list a move
    is a transaction of `link_kv._core.operations.stm`, with its limits, since those behind it move up; its
    revision is not known, and 0 is returned.

    Raises `NotFound`; `Conflict` when ``target`` is not at ``revision``, `KeyExists` when that is 0 and
    something is there; `PathError` when one path is in the other.
    """
    at, to = ex.place(source), ex.place(target)
    not_root(at, "moved" if move else "copied")
    not_root(to, "replaced")
    shorter = min(len(at.segments), len(to.segments))
    if at.segments[:shorter] == to.segments[:shorter]:
        raise PathError(f"{at.path}: cannot be written to {to.path}: one is in the other")
    guards = plans.guard_reads([to])
    above = list(at.ancestors()) if move else []
    reads = [
        *(Get(place.marker) for place in above),
        *(Get(at.key), Get(at.marker, at.end)),
        *(Get(to.key, keys_only=True), Get(to.marker, to.end, keys_only=True)),
    ]
    for run in range(stm.MAX_RUNS):
        now, found = await ex.read([*guards, *reads])
        guard = plans.resolve([to], found[: len(guards)], now)
        assert guard is not None  # the items of lists were read
        *markers, leaf, below, old_leaf, old = found[len(guards) :]
        kvs = [*leaf, *below]
        if not any(True for _ in leaves(kvs, at)):
            raise missing(at.path)
        _check_target(to, revision, old_leaf, old)
        if _in_list(at, above, markers):
            return await _move_from_list(ex, at, to, revision)
        if move and guard.lists and any(kv.lease for kv in kvs):
            raise ConfigError(f"{to.path}: is in a list, where what is under a lease would leave a gap")
        new = [Put(to.key + kv.key[len(at.key) :], kv.value, kv.lease if move else 0) for kv in kvs]
        operations: list[Operation] = [*plans.in_lists(new, guard), *guard.operations]
        kept = {put.key for put in new}
        operations += [Delete(to.key)] if old_leaf and to.key not in kept else []
        operations += plans.gone([kv.key for kv in old], kept)
        operations += [Delete(at.key), Delete(at.marker, at.end)] if move else []
        compares = (*guard.compares, *_still(to, old_leaf, now), *_still(at, leaf, now))
        insist = [plans.unmoved(kv.key, kv.mod_revision) for kv in kvs]
        insist += [_as_it_was(place.marker, kvs) for place, kvs in zip(above, markers, strict=False)]
        try:
            outcome = await ex.commit(Plan(compares, operations, guarded=move), to.path, insist)
        except Conflict:
            outcome = None
        if outcome is not None and outcome.succeeded:
            return outcome.revision, to.path
        await ex.space.caller.wire.sleep(random.uniform(0, min(0.02, 0.0005 * 2 ** min(run, 8))))
        ex.renew()
    raise Conflict(f"{to.path}: others kept writing to {at.path}; nothing was written")


def _still(place: Place, leaf: Sequence[Any], revision: int) -> Iterator[Compare]:
    """Nothing was put at a place or below it since ``revision``."""
    yield _as_it_was(place.key, leaf)
    yield plans.quiet(place.marker, place.end, revision)


def _as_it_was(key: bytes, found: Sequence[Any]) -> Compare:
    return plans.unmoved(key, found[0].mod_revision) if found else plans.absent(key)


def _check_target(to: Place, revision: int | None, leaf: Sequence[Any], below: Sequence[Any]) -> None:
    if revision is None:
        return
    if revision == 0:
        if leaf or any(plans.owner(kv.key, to) is None for kv in below):
            raise KeyExists(f"{to.path}: something is there already, and revision=0 means create")
        return
    if below and not leaf:
        raise TooLarge(f"{to.path}: revision= compares a leaf, and a tree is there")
    found = leaf[0].mod_revision if leaf else 0
    if found != revision:
        raise Conflict(f"{to.path}: is at revision {found}, not {revision}")


def _in_list(at: Place, above: Sequence[Place], markers: Sequence[Sequence[Any]]) -> bool:
    return any(
        marker and marker[0].value == LIST and is_index(at.segments[len(place.segments)])
        for place, marker in zip(above, markers, strict=True)
    )


async def _move_from_list(ex: Exchange, at: Place, to: Place, revision: int | None) -> tuple[int, str]:
    """Move an item, or what is in one. What remains of the list moves up."""
    if revision:
        raise TooLarge(f"{at.path}: is in a list, and a move from there compares no revision but 0")

    *_, parent = at.ancestors()

    async def step(transaction: stm.Transaction) -> str:
        if revision == 0 and await transaction.contains(to.path):
            raise KeyExists(f"{to.path}: something is there already, and revision=0 means create")
        transaction.write(to.path, await transaction.get(at.path))
        await transaction.delete(at.path)
        within = isinstance(await transaction.read(parent.path), list)
        return _moved_up(to, at, parent) if within else to.path

    return 0, await stm.transact(ex.space, step)


def _moved_up(place: Place, item: Place, above: Place) -> str:
    """The path of a place once an item was deleted out of the list above it."""
    depth = len(above.segments)
    *before, index = place.segments[: depth + 1]
    if tuple(before) != above.segments or int(index) < int(item.segments[-1]):
        return place.path
    return "/".join(("", *before, str(int(index) - 1), *place.segments[depth + 1 :]))
