"""A configuration as its keys: read at a revision, and replaced by writing only what differs.

A replacement says who made it and when, at ``<path>/.link/written``, in its own transaction. That counts only
for the revision it was written at, so other writers need know nothing of it.
"""

from __future__ import annotations

import getpass
import json
import os
import socket
import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from link_kv import plan as plans
from link_kv._core.configuration.tree import order_key, place_of
from link_kv._core.operations import past_revision
from link_kv._core.wire.exchange import Exchange
from link_kv.errors import Conflict, RevisionError
from link_kv.plan import Delete, Get, Operation, Plan, Put
from link_kv.tree import LIST, Place, nameable

_RACES = 100


class Keys(NamedTuple):
    """The keys of a configuration at a revision, without its housekeeping."""

    at: Place
    revision: int
    pairs: dict[bytes, bytes]
    order: bytes | None
    """What is stored of the order of categories."""
    newest: int
    """The newest write among those that are there."""


def written_key(at: Place) -> bytes:
    return at.marker + b".link/written"


def shows(at: Place, key: bytes) -> bool:
    """Whether a key is part of the value at a place, rather than housekeeping or nobody's."""
    if key == at.key:
        return True
    try:
        relative = str(key[len(at.marker) :], "utf-8")
    except UnicodeDecodeError:
        return False
    return relative == "" or nameable(relative.removesuffix("/"))


async def keys(ex: Exchange, path: str, revision: int | None = None) -> Keys:
    """What is at a path, now or at a revision. Raises `RevisionError`."""
    at = place_of(ex, path)
    then = 0 if revision is None else past_revision(revision)
    gets = [Get(at.key, revision=then), Get(at.marker, at.end, revision=then)]
    try:
        read, found = await ex.read(gets)
    except RevisionError as error:
        raise RevisionError(f"{at.path}: revision {revision}: {error}") from None
    kvs = [kv for each in found for kv in each]
    pairs = {kv.key: kv.value for kv in kvs if shows(at, kv.key)}
    order = next((kv.value for kv in kvs if kv.key == order_key(at)), None)
    return Keys(at, then or read, pairs, order, max((kv.mod_revision for kv in kvs), default=0))


async def replace(
    ex: Exchange, path: str, pairs: Mapping[bytes, bytes], order: bytes | None, shown: Keys | None = None
) -> int:
    """Let a configuration have exactly these keys, in one transaction; the revision, 0 when it has them.

    Only what differs is written. Raises `NotATree` below a value, `ListIndexError`, `TooLarge`; `Conflict`
    when it lost a hundred races, or where others have changed what was ``shown``.
    """
    at = place_of(ex, path)
    guards = plans.guard_reads([at])
    last = 0
    for _ in range(_RACES):
        reads = [*guards, Get(at.key), Get(at.marker, at.end)]
        revision, found = await ex.read(reads)
        guard = plans.resolve([at], found[: len(guards)], revision)
        assert guard is not None  # the items of lists were read
        before = {kv.key: kv.value for each in found[len(guards) :] for kv in each}
        now = {key: value for key, value in before.items() if shows(at, key)}, before.get(order_key(at))
        if shown is not None and not last and now != (shown.pairs, shown.order):
            raise Conflict(f"{at.path}: was changed by others meanwhile; nothing was written, look again")
        changes = _differences(at, before, pairs, order)
        if not changes:
            return last
        compares = [*guard.compares, plans.quiet(at.marker, at.end, revision)]
        if at.key not in before:
            compares.append(plans.absent(at.key))
        operations = [*changes, Put(written_key(at), _stamp()), *guard.operations]
        operations += [Put(above.marker, LIST) for above in guard.lists]
        # Deletes by others do not fail the compares, so what came of it is looked at.
        operations.append(Get(at.marker, at.end, keys_only=True))
        outcome = await ex.commit(Plan(tuple(compares), operations, guarded=True), at.path)
        if not outcome.succeeded:
            continue
        last = outcome.revision
        left = {kv.key for kv in outcome.found()[-1] if shows(at, kv.key)}
        if left == pairs.keys() - {at.key}:
            return last
    raise Conflict(f"{at.path}: changed by others a hundred times meanwhile")


def _differences(
    at: Place, before: Mapping[bytes, bytes], pairs: Mapping[bytes, bytes], order: bytes | None
) -> list[Operation]:
    operations: list[Operation] = [
        Put(key, value) for key, value in pairs.items() if before.get(key) != value
    ]
    gone = [key for key in before if key not in pairs and shows(at, key)]
    operations += [Delete(key) for key in gone]
    resized = [key for key in pairs if key not in before] + gone
    again = {marker for key in resized for marker in _lists_above(at, key, pairs)}
    operations += [Put(marker, LIST) for marker in again if before.get(marker) == LIST]
    if order is None and order_key(at) in before:
        operations.append(Delete(order_key(at)))
    elif order is not None and before.get(order_key(at)) != order:
        operations.append(Put(order_key(at), order))
    return operations


def _lists_above(at: Place, key: bytes, pairs: Mapping[bytes, bytes]) -> Iterable[bytes]:
    """The markers of the lists that a key is in: each change of their length rewrites them."""
    slash = len(at.key)
    while 0 <= slash < len(key) - 1:
        marker = key[: slash + 1]
        if pairs.get(marker) == LIST:
            yield marker
        slash = key.find(b"/", slash + 1)


def ordered(names: list[str], spelled: list[bytes]) -> bytes | None:
    """What to store of an order of names, given also as they are spelled in keys; None for the keys' own."""
    return None if spelled == sorted(spelled) else json.dumps(names, ensure_ascii=False).encode()


def _stamp() -> bytes:
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a user without a name
        user = str(os.getuid())
    writer = f"{user}@{socket.gethostname()}:{os.getpid()}"
    return json.dumps({"time": time.time(), "writer": writer}, ensure_ascii=False).encode()


def read_stamp(stored: bytes) -> tuple[float, str] | None:
    """Time and writer of a write; None for what says neither."""
    try:
        said: Any = json.loads(stored)
        return float(said["time"]), str(said["writer"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


async def stamp_of(ex: Exchange, place: Place, revision: int) -> tuple[float, str] | None:
    """Time and writer of the last write of a leaf, where its writer has said so, and etcd remembers."""
    candidates = [written_key(above) for above in place.ancestors()]
    if len(place.segments) > 1:  # what an item's store says of it
        store = place._of(place.segments[:1])
        candidates.append(store.marker + b".link/at/" + place.segments[1].encode())
    try:
        _, found = await ex.read([Get(key, revision=revision) for key in candidates])
    except RevisionError:
        return None
    for kvs in found:
        if kvs and kvs[0].mod_revision == revision and (stamp := read_stamp(kvs[0].value)):
            return stamp
    return None
