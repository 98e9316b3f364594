"""Transactions of many reads and writes: software transactional memory over one etcd transaction.

Reads are of one revision. What was read is compared when the writes are committed; when it has moved, all of
it is done again.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from link_kv import plan as plans
from link_kv._core.exchange import Exchange, Namespace
from link_kv._core.fold import Overlay, take_from
from link_kv._core.operations import layer, missing, unread
from link_kv.codec import decode
from link_kv.errors import Conflict, PathError, RevisionError, TooLarge
from link_kv.plan import Compare, Get, Operation, Plan
from link_kv.tree import LIST, MISSING, Place, build, is_index

T = TypeVar("T")

MAX_RUNS = 1000
"""How often a transaction runs before it gives up against others that keep moving what it reads."""

_ROOM = 120
"""How many compares a commit may have, of the 128 that etcd takes."""


class Transaction:
    """One run: what was read, compared at the commit, and what is to be written. Not thread-safe."""

    def __init__(self, space: Namespace) -> None:
        self._ex = Exchange(space)
        self._revision = 0
        self._compares: dict[Compare, None] = {}
        self._overlay = Overlay()

    async def _read(self, gets: Sequence[Get]) -> list[Sequence[Any]]:
        self._ex.renew()
        revision, found = await self._ex.read([get._replace(revision=self._revision) for get in gets])
        self._revision = self._revision or revision
        return found

    def _compare(self, *compares: Compare) -> None:
        self._compares.update(dict.fromkeys(compares))
        if len(self._compares) > plans.MAX_COMPARES:
            raise TooLarge(
                f"a transaction can read {plans.MAX_COMPARES} leaves at most: deletes in what it reads "
                "beyond that cannot be compared"
            )

    async def read(self, path: str) -> Any:
        """The value at a path as this transaction sees it, `MISSING` when nothing is there."""
        at = self._ex.place(path)
        known, value = self._overlay.known(at)
        if not known:
            value = self._overlay.over(await self._committed(at), at)
        return copy.deepcopy(value) if isinstance(value, (dict, list)) else value

    async def _committed(self, at: Place) -> Any:
        if at.segments:
            leaf, *below = await self._read(plans.reads(at))
            if leaf:
                self._compare(plans.unmoved(leaf[0].key, leaf[0].mod_revision))
                return decode(leaf[0].value)
            self._compare(plans.absent(at.key))
        else:
            below = await self._read([Get(start, end) for start, end in at.visible])
        kvs = [kv for part in below for kv in part if plans.owner(kv.key, at) is None]
        if kvs:
            self._compare(*(plans.unmoved(kv.key, kv.mod_revision) for kv in kvs))
        for start, end in at.visible:
            # Together with the keys one by one: nothing new has come.
            self._compare(plans.quiet(start, end, self._revision))
        return build([(kv.key, kv.value) for kv in kvs], at)

    async def contains(self, path: str) -> bool:
        at = self._ex.place(path)
        if not at.segments:
            return True
        known, value = self._overlay.known(at)
        if known:
            return value is not MISSING
        if self._overlay.over(MISSING, at) is not MISSING:
            return True
        found = await self._read(plans.reads(at, keys_only=True, limit=1))
        if not any(found):
            self._compare(plans.absent(at.key), *(plans.absent(start, end) for start, end in at.visible))
            return False
        if self._overlay.over({}, at) == {}:
            self._compare(plans.present(next(kv.key for part in found for kv in part)))
            return True
        return await self.read(path) is not MISSING

    def write(self, path: str, value: Any) -> None:
        at = self._ex.place(path)
        if not at.segments:
            raise PathError("/: the root cannot be assigned; name a path below it")
        layer(value, at)  # what cannot be stored is said here, where it was written
        self._overlay.assign(at, copy.deepcopy(value))

    async def delete(self, path: str) -> None:
        at = self._ex.place(path)
        if not at.segments:
            raise PathError("/: the root cannot be deleted; name a path below it")
        if not await self.contains(path):
            raise missing(at.path)
        if self._overlay.remove(at):
            return
        above = await self._list_above(at)
        if above is None:
            self._overlay.assign(at, MISSING)
        else:
            items = await self.read(above.path)
            self._overlay.assign(above, take_from(items, at, len(above.segments)))

    async def _list_above(self, at: Place) -> Place | None:
        """The uppermost list that a place is in."""
        ancestors = list(at.ancestors())
        if not ancestors:
            return None
        found = await self._read([Get(above.marker) for above in ancestors])
        for above, marker in zip(ancestors, found, strict=True):
            if not marker:
                self._compare(plans.absent(above.marker))
                continue
            self._compare(plans.unmoved(above.marker, marker[0].mod_revision))
            if marker[0].value == LIST and is_index(at.segments[len(above.segments)]):
                return above
        return None

    async def commit(self) -> bool:
        """Write what is to be written, if what was read still stands; whether it does."""
        writes = self._overlay.writes()
        if not writes:
            return True
        self._ex.renew()
        places = [at for at, value in writes if value is not MISSING]
        operations: list[Operation] = []
        for at, value in writes:
            operations += plans.delete(at) if value is MISSING else unread(at, layer(value, at))
        compares = tuple(self._compares)
        room = _ROOM - len(compares)
        reads = plans.guard_reads(places, inline=True)
        guard = plans.optimistic(places)
        for _ in range(2):  # a second time when what stands above was not what is usual
            if guard is None or len(guard.compares) > room:
                gets = [get._replace(revision=self._revision) for get in plans.guard_reads(places)]
                revision, answers = await self._ex.read(gets) if gets else (self._revision, [])
                guard = plans.resolve(places, answers, self._revision or revision, room)
                assert guard is not None
            plan = Plan(
                (*guard.compares, *compares),
                (*operations, *guard.operations),
                reads,
                guarded=self._guarded(operations),
            )
            outcome = await self._ex.commit(plan, writes[0][0].path)
            if outcome.succeeded:
                return True
            again = plans.resolve(places, outcome.found()[: len(reads)], outcome.revision, room)
            if again == guard:
                break
            guard = again
        return False

    def _guarded(self, operations: Sequence[Operation]) -> bool:
        """Whether the writes themselves undo what is compared, so that they cannot happen twice."""
        written = {op.key for op in operations if isinstance(op, plans.Put)}
        return any(
            not compare.end and compare.key in written and compare.op == "=" for compare in self._compares
        )


async def transact(space: Namespace, function: Callable[[Transaction], Awaitable[T]]) -> T:
    """Run ``function`` until what it read still stands when its writes are committed."""
    for run in range(MAX_RUNS):
        transaction = Transaction(space)
        try:
            result = await function(transaction)
        except RevisionError:
            if run + 1 == MAX_RUNS:
                raise
            continue  # compacted between two of its reads
        if await transaction.commit():
            return result
        await space.caller.wire.sleep(random.uniform(0, min(0.02, 0.0005 * 2 ** min(run, 8))))
    raise Conflict(f"the transaction ran {MAX_RUNS} times, and what it read moved each time")
