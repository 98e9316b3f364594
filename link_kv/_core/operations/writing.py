"""Writing: a value over whatever is there, or only where nothing or a certain revision is; many at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from link_kv import plan as plans
from link_kv._core.operations.reading import PAGE, value_found
from link_kv._core.wire.exchange import Exchange, Outcome, new_lease_id
from link_kv._core.wire.requests import LAST_REVISION
from link_kv.codec import encode
from link_kv.errors import (
    ConfigError,
    Conflict,
    KeyExists,
    LinkKVError,
    OutcomeUnknown,
    PathError,
    RevisionError,
    TooLarge,
)
from link_kv.plan import Get, Guard, Operation, Plan
from link_kv.tree import (
    LIST,
    MISSING,
    Flat,
    Place,
    build,
    decode_name,
    flatten,
    is_index,
)

LOST_BEFORE_GAPS = 2
"""How often a replacement may lose the race between its read and its write."""


_NO_KEYS = Flat([], [])


class Layer(NamedTuple):
    """How a value lies at a place: as a leaf, or as a tree's keys."""

    stored: bytes | None
    flat: Flat


def layer(value: Any, at: Place) -> Layer:
    if isinstance(value, (dict, list, tuple)):
        return Layer(None, flatten(value, at))
    return Layer(encode(value, at.path), _NO_KEYS)


def without(lay: Layer, at: Place, gone: Place) -> Layer | None:
    """What lies at a place once something below it was deleted; None for nothing."""
    value = node = build(sorted(lay.flat.pairs), at)
    way: list[tuple[Any, Any]] = []
    for segment in gone.segments[len(at.segments) :]:
        name: Any = decode_name(segment)
        if isinstance(node, list):
            name = int(segment) - 1 if is_index(segment) and int(segment) <= len(node) else None
        if (
            not isinstance(node, (dict, list))
            or name is None
            or (isinstance(node, dict) and name not in node)
        ):
            return lay  # somebody else's
        way.append((node, name))
        node = node[name]
    for depth, (node, name) in reversed(list(enumerate(way))):
        del node[name]
        # With its last key a dict goes, unless a list would have a gap then.
        if node or isinstance(node, list) or (depth and isinstance(way[depth - 1][0], list)):
            return layer(value, at)
    return None


def not_root(at: Place, what: str) -> None:
    if not at.segments:
        raise PathError(f"/: the root cannot be {what}; name a path below it")


async def guarded(
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
            Plan(
                (*guard.compares, *compares),
                (*plans.in_lists(operations, guard), *guard.operations),
                (*guards, *reads),
            ),
            path,
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
    if revision is not None and not (isinstance(revision, int) and 0 <= revision <= LAST_REVISION):
        raise RevisionError(
            f"{at.path}: revision={revision!r}: a revision is a whole number below 2**63, 0 for create"
        )
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
    except OutcomeUnknown:
        raise
    except BaseException as error:
        # What is no error of ours cancels: a loop that ends does, shielded or not. A value may be there then.
        await ex.abandon(lease, unless_used=not isinstance(error, LinkKVError))
        raise


async def write(ex: Exchange, at: Place, lay: Layer, revision: int | None, lease: int) -> int:
    """Replace what is at a place, under a lease unless it is 0."""
    if revision == 0:
        written, existing = await create_or_find(ex, at, lay, lease)
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
    outcome, _ = await guarded(ex, [at], make, first=first)
    return outcome.revision


async def _put_at(ex: Exchange, at: Place, lay: Layer, revision: int, lease: int) -> int:
    """Replace a leaf that is still at ``revision``."""
    if lease or any(map(is_index, at.segments[1:])):
        _, found = await ex.read([Get(above.marker) for above in at.ancestors()])
        lists = [kv for kvs in found for kv in kvs if kv.value == LIST]
        if lease and lists:
            raise ConfigError(f"{at.path}: ttl= is refused below a list: expiry would leave a gap")
        lease = lists[-1].lease if lists else lease
    operations = unread(at, lay, lease)
    probe = plans.reads(at, limit=2)
    plan = Plan((plans.unmoved(at.key, revision),), operations, probe, guarded=True)
    outcome = await ex.commit(plan, at.path)
    if outcome.succeeded:
        return outcome.revision
    leaf, *below = outcome.found()
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
    operations = unread(at, lay, lease)
    outcome = await ex.commit(Plan(tuple(compares), operations, guarded=True), at.path)
    if not outcome.succeeded:
        raise Conflict(f"{at.path}: has moved on from revision {revision}")
    return outcome.revision


async def _replace(ex: Exchange, at: Place, flat: Flat, lease: int) -> int:
    """Put a tree where something may be: read the keys, write what is new, delete what is gone."""
    guards = plans.guard_reads([at])
    limit = read_limit(len(flat.pairs))
    reads = (Get(at.key, keys_only=True), Get(at.marker, at.end, limit, keys_only=True))
    too_many = False
    for _ in range(LOST_BEFORE_GAPS):
        revision, found = await ex.read([*guards, *reads])
        guard = plans.resolve([at], found[: len(guards)], revision)
        assert guard is not None
        _no_ttl_in_list(guard, lease, at.path)
        leaf, below = found[len(guards) :]
        too_many = len(below) >= limit
        if too_many:
            break  # what is there dwarfs what is written
        keys = [kv.key for kv in below]
        compares, operations = plans.replace(at, flat, bool(leaf), keys, revision, lease)
        key = at.key if leaf else plans.touched(at, flat, keys)
        compares = (*guard.compares, *compares, *as_found(key, [leaf, below]))
        operations = [*plans.in_lists(operations, guard), *guard.operations]
        plan = Plan(compares, operations, guarded=key is not None)
        try:
            outcome = await ex.commit(plan, at.path)
        except TooLarge:
            too_many = True  # or what is written does not fit: the gaps tell
            break
        if outcome.succeeded:
            return outcome.revision
    # Too much is there, or others write here faster than we read and write: leave reading out.
    operations = plans.gaps(at, flat, lease)

    def make(guard: Guard) -> tuple[Sequence[plans.Compare], Sequence[Operation]]:
        _no_ttl_in_list(guard, lease, at.path)
        return (), operations

    try:
        outcome, _ = await guarded(ex, [at], make)
    except TooLarge:
        if too_many:
            raise
        return await _replace(ex, at, flat, lease)
    return outcome.revision


async def create_or_find(ex: Exchange, at: Place, lay: Layer, lease: int) -> tuple[int, Any]:
    """Write where nothing is. The revision, and what was there instead, or `MISSING`."""
    flat = lay.flat if lay.stored is None else Flat([(at.key, lay.stored)], [])
    compares, operations = plans.create(at, flat, lease)

    def make(guard: Guard) -> tuple[Sequence[plans.Compare], Sequence[Operation]]:
        _no_ttl_in_list(guard, lease, at.path)
        return compares, operations

    def refused(own: Sequence[Sequence[Any]], guard: Guard) -> bool:
        return any(own)

    outcome, own = await guarded(ex, [at], make, plans.reads(at), refused)
    if outcome.succeeded:
        return outcome.revision, MISSING
    value = value_found(at, own)
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
    _, existing = await create_or_find(ex, at, layer(value, at), 0)
    return value if existing is MISSING else existing


def as_found(key: bytes | None, found: Sequence[Sequence[Any]]) -> Sequence[plans.Compare]:
    """That a key is as it was found."""
    if key is None:
        return ()
    return [plans.unmoved(key, kv.mod_revision) for kvs in found for kv in kvs if kv.key == key][:1]


def read_limit(written: int) -> int:
    """How many keys are read to see what is there, for so many that are written."""
    return 4 * written + PAGE


def unread(at: Place, lay: Layer, lease: int = 0) -> Sequence[Operation]:
    """A replacement of whatever is at a place, without looking first."""
    return plans.gaps(at, lay.flat, lease) if lay.stored is None else plans.set_leaf(at, lay.stored, lease)
