"""Transactions of many reads and writes: software transactional memory over one etcd transaction.

Reads are of one revision. What was read is compared when the writes are committed; when it has moved, all of
it is done again. What was there is compared key by key, since a compare over a range cannot see deletes; what
was not there is compared as ranges in which nothing was put.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeVar

from link_kv import plan as plans
from link_kv._core.operations import layer, missing, not_root, unread
from link_kv._core.operations.fold import Overlay, copied, take_from, value_in
from link_kv._core.wire.exchange import Exchange, Namespace
from link_kv.codec import decode
from link_kv.errors import Closed, Conflict, ListIndexError, NotATree, RevisionError, TooLarge
from link_kv.plan import Compare, Delete, Get, Guard, Operation, Plan, Put
from link_kv.tree import EMPTY_DICT, LIST, MISSING, Flat, Leaf, Place, build, is_index, leaves

T = TypeVar("T")

MAX_RUNS = 1000
"""How often a transaction runs before it gives up against others that keep moving what it reads."""

MAX_LEAVES = 96
"""How many leaves a transaction may read."""

_ROOM = 110
"""How many compares a commit may have. etcd takes 128; the rest is for the depth that the writes need."""

_TOPS = 8
"""Up to this many top-level trees are compared one by one, where there is no room for finer compares."""

_PEEK = 8
"""How many keys are read to find one that can be seen."""


class Transaction:
    """One run: what was read, and what is to be written. Not thread-safe."""

    def __init__(self, space: Namespace) -> None:
        self._ex = Exchange(space)
        self._revision = 0
        self._leaves: dict[bytes, int] = {}
        """The leaves that were read and their revisions; 0 where it only matters that they are there."""
        self._markers: dict[bytes, int] = {}
        """The markers of lists that were read."""
        self._silent: dict[tuple[bytes, bytes], None] = {}
        """The keys and ranges where no put may have come."""
        self._overlay = Overlay()
        self._leases: dict[bytes, int] = {}
        """The markers of lists under a lease that are written because an item was deleted."""
        self._notes: dict[bytes, dict[bytes, Any]] = {}
        """By the marker of a list that was read: the housekeeping below it, by the key where it is to be."""
        self._ended: list[Place] = []
        """The empty dicts below which something was written that is deleted again: they went with it."""
        self.compacted = False
        """Whether the revision that is read was compacted away meanwhile."""
        self.over = False

    # Reading

    async def _read(self, gets: Iterable[Get]) -> list[Sequence[Any]]:
        self._ex.renew()
        try:
            revision, found = await self._ex.read([get._replace(revision=self._revision) for get in gets])
        except RevisionError:
            self.compacted = True
            raise
        self._revision = self._revision or revision
        return found

    async def read(self, path: str, default: Any = MISSING) -> Any:
        """The value at a path as this transaction sees it, ``default`` when nothing is there."""
        value = await self._value(self._place(path))
        return default if value is MISSING else copied(value)

    async def get(self, path: str) -> Any:
        """The same; raises `NotFound`."""
        value = await self.read(path)
        if value is MISSING:
            raise missing(self._ex.place(path).path)
        return value

    def _place(self, path: str) -> Place:
        if self.over:
            raise Closed(f"{path}: the transaction is over; what is done to it now would be lost")
        return self._ex.place(path)

    async def _value(self, at: Place) -> Any:
        known, value = self._overlay.known(at)
        return value if known else self._overlay.over(await self._committed(at), at)

    async def _committed(self, at: Place) -> Any:
        if at.segments:
            leaf, *below = await self._read(plans.reads(at))
        else:
            leaf, below = (), await self._read([Get(start, end) for start, end in at.visible])
        if leaf:
            self._saw(at, [Leaf(at.path, b"", False, leaf[0])])
            return decode(leaf[0].value)
        self._nothing_came(at)
        kvs = [kv for part in below for kv in part]
        self._saw(at, leaves(kvs, at))
        self._markers.update(
            (kv.key, kv.mod_revision)
            for kv in kvs
            if kv.value == LIST and kv.key[-1:] == b"/" and plans.owner(kv.key, at) is None
        )
        value = build([(kv.key, kv.value) for kv in kvs], at)
        if isinstance(value, list) and at.marker not in self._notes:
            self._notes[at.marker] = {kv.key: kv for kv in kvs if plans.owner(kv.key, at) is not None}
        return {} if value is MISSING and not at.segments else value

    def _saw(self, at: Place, found: Iterable[Leaf]) -> None:
        self._leaves.update((leaf.kv.key, leaf.kv.mod_revision) for leaf in found)
        if len(self._leaves) > MAX_LEAVES:
            raise TooLarge(
                f"{at.path}: a transaction can read {MAX_LEAVES} leaves at most, and has read "
                f"{len(self._leaves)}: deletes in what it reads beyond that could not be compared"
            )

    def _nothing_came(self, at: Place) -> None:
        if at.segments:
            self._silent[at.key, b""] = None
        self._silent.update(dict.fromkeys(at.visible))

    async def contains(self, path: str) -> bool:
        """Whether a leaf or a tree is at a path; looks at one leaf only where it can."""
        at = self._place(path)
        if not at.segments:
            return True
        if self._overlay.touches(at):
            return await self._value(at) is not MISSING
        leaf, *below = await self._read(plans.reads(at, limit=_PEEK))
        kvs = [kv for part in below for kv in part]
        first = leaf[0].key if leaf else next((found.kv.key for found in leaves(kvs, at)), None)
        if first is not None:
            self._leaves.setdefault(first, 0)
            self._saw(at, ())
            return True
        if any(len(part) == _PEEK for part in below):
            return await self._value(at) is not MISSING
        self._nothing_came(at)
        return False

    # Writing

    def write(self, path: str, value: Any) -> None:
        at = self._place(path)
        layer(value, at)  # what cannot be stored is said here, where it was written
        self._leases.pop(at.marker, None)
        self._notes.pop(at.marker, None)
        self._overlay.assign(at, copied(value))

    async def delete(self, path: str) -> None:
        """Delete a leaf or a tree. In a list those behind it move up. Raises `NotFound`."""
        at = self._place(path)
        not_root(at, "deleted")
        if not await self.contains(path):
            raise missing(at.path)
        above = await self._list_above(at)
        if above is None:
            self._overlay.remove(at)
        else:
            items, depth = await self._value(above), len(above.segments)
            self._overlay.assign(above, take_from(items, at, depth))
            if above.marker in self._notes:
                item = isinstance(value_in(items, at.segments[depth:-1]), (list, tuple))
                self._notes[above.marker] = plans.notes_left(self._notes[above.marker], at, item=item)

    async def _list_above(self, at: Place) -> Place | None:
        """The uppermost list that a place is in."""
        unknown = []
        for above in at.ancestors():
            known, value = self._overlay.known(above)
            if known and isinstance(value, (list, tuple)):
                return above
            if not known:
                unknown.append(above)
        if not unknown:
            return None
        found = await self._read([Get(above.marker) for above in unknown])
        for above, marker in zip(unknown, found, strict=True):
            if marker and marker[0].value == LIST and is_index(at.segments[len(above.segments)]):
                self._leases[above.marker] = marker[0].lease
                return above
            self._silent[above.marker, b""] = None
            if marker and marker[0].value == EMPTY_DICT and self._overlay.touches(at):
                self._ended.append(above)
        return None

    # Committing

    async def commit(self) -> bool:
        """Write what is to be written, if what was read still stands; whether it does."""
        writes = self._overlay.writes()
        if not writes or self.compacted:
            return not self.compacted
        self._ex.renew()
        operations: list[Operation] = []
        for at, value in writes:
            operations += plans.delete(at) if value is MISSING else self._written(at, value)
        operations += [Delete(at.marker) for at in self._ended if not self._overlay.known(at)[0]]
        places = [at for at, value in writes if value is not MISSING]
        path = writes[0][0].path
        room = _ROOM - len(self._ex.space.fences)
        fine = self._fine()
        guard = plans.optimistic(places)
        reads = plans.guard_reads(places, inline=True)
        tries = 2  # the second when what stands above was not what is usual
        while tries and guard is not None and len(guard.compares) + len(fine) <= room:
            outcome = await self._ex.commit(self._plan(fine, guard, operations, reads), path)
            if outcome.succeeded:
                return True
            before, tries = guard, tries - 1
            try:
                guard = plans.resolve(places, outcome.found()[: len(reads)], outcome.revision, room)
            except (NotATree, ListIndexError):
                if not self._revision:
                    raise
                break  # is it so at the revision that was read?
            if guard == before:
                return False
        if not tries:
            return False
        return await self._commit_coarsely(places, operations, path, room)

    def _written(self, at: Place, value: Any) -> Sequence[Operation]:
        lay, lease = layer(value, at), self._leases.get(at.marker, 0)
        notes = self._notes.get(at.marker)
        if notes is None:
            return unread(at, lay, lease)
        nodes = set(lay.flat.nodes)
        kept = {key: kv for key, kv in notes.items() if plans.owner(key, at) in nodes}
        # What moves is compared, so that none comes back that others delete meanwhile.
        moved = {key: kv for key, kv in kept.items() if key != kv.key}
        self._markers.update((kv.key, kv.mod_revision) for kv in moved.values())
        flat = Flat([*lay.flat.pairs, *((key, kv.value) for key, kv in kept.items())], [at.key])
        operations = [op for op in plans.gaps(at, flat, lease) if type(op) is Delete]
        puts = [Put(key, kv.value, kv.lease) for key, kv in moved.items()]
        return [*plans.puts(lay.flat, lease), *puts, *operations]

    async def _commit_coarsely(
        self, places: Sequence[Place], operations: Sequence[Operation], path: str, room: int
    ) -> bool:
        """Commit where one compare for each thing is too much, or what stands above must be read anew.

        All of the guard is read at the revision of the transaction, and nothing may have been put since.
        """
        gets = plans.guard_reads(places)
        answers = await self._read(gets) if gets else []
        guard = plans.resolve(places, answers, self._revision, room)
        assert guard is not None
        fine = self._fine()
        if len(guard.compares) + len(fine) <= room:
            plan = self._plan(fine, guard, operations, ())
        else:
            quiet = self._quiet_tops(places)
            plan = self._plan((*self._there(), *quiet), guard._replace(compares=()), operations, ())
        return (await self._ex.commit(plan, path)).succeeded

    def _plan(
        self, compares: Sequence[Compare], guard: Guard, operations: Sequence[Operation], reads: Sequence[Get]
    ) -> Plan:
        operations = (*plans.in_lists(operations, guard), *guard.operations)
        compares = (*guard.compares, *compares)
        written = {op.key for op in operations if isinstance(op, (Put, Delete))}
        deleted = [(op.key, op.end) for op in operations if isinstance(op, Delete) and op.end]
        # A second arrival fails when the writes themselves move a key whose revision is compared: that never
        # comes back, whatever others do. That nothing is there may be true again.
        guarded = any(
            each.key in written or any(start <= each.key < end for start, end in deleted)
            for each in compares
            if each.target == "mod" and each.op == "="
        )
        return Plan(compares, operations, reads, guarded=guarded)

    def _there(self) -> tuple[Compare, ...]:
        return tuple(
            plans.unmoved(key, mod) if mod else plans.present(key) for key, mod in self._leaves.items()
        )

    def _fine(self) -> tuple[Compare, ...]:
        """What was read still stands, one compare for each thing."""
        markers = (plans.unmoved(key, mod) for key, mod in self._markers.items() if key not in self._leaves)
        silent = (plans.quiet(key, end, self._revision) for key, end in self._silent)
        return (*self._there(), *markers, *silent)

    def _quiet_tops(self, places: Sequence[Place]) -> list[Compare]:
        """Nothing was put in the top-level trees of all that was read and that is written."""
        root = self._ex.place("/")
        keys = [*self._leaves, *(key for key, _ in self._silent), *(place.key for place in places)]
        tops = {root.marker + key[len(root.marker) :].split(b"/")[0] for key in keys}
        if len(tops) > _TOPS or root.marker in tops:
            return [plans.quiet(start, end, self._revision) for start, end in root.visible]
        return [plans.quiet(top, top + b"0", self._revision) for top in tops]


async def transact(space: Namespace, function: Callable[[Transaction], Awaitable[T]]) -> T:
    """Run ``function`` until what it read still stands when its writes are committed."""
    for run in range(MAX_RUNS):
        transaction = Transaction(space)
        try:
            result = await function(transaction)
            if await transaction.commit():
                return result
        except RevisionError:
            if not transaction.compacted:
                raise
        finally:
            transaction.over = True
        await space.caller.wire.sleep(random.uniform(0, min(0.02, 0.0005 * 2 ** min(run, 8))))
    raise Conflict(f"the transaction ran {MAX_RUNS} times, and what it read moved each time")
