"""One operation's conversation with etcd: its deadline, its namespace, its transactions."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from link_kv._core.calls import LEASE_GRANT, LEASE_REVOKE, RANGE, TXN, Caller, Repeat
from link_kv._core.requests import (
    leaf_read_request,
    leaf_request,
    range_request,
    read_request,
    txn_request,
    varint,
)
from link_kv.errors import AccessDenied, ConfigError, LockLost, NoSpace, TooLarge
from link_kv.plan import Compare, Get, Operation, Plan, PutNew, reads
from link_kv.tree import Place, place

_REMEMBERED = 10_000
"""How many leaves a client remembers to be leaves."""

LAYOUT = b"1"
"""The version of the layout that this library reads and writes."""


class Outcome(NamedTuple):
    """What a transaction did."""

    succeeded: bool
    revision: int
    response: Any

    def answers(self) -> list[Any]:
        """The answers to the operations, in order."""
        return list(_flat(self.response.responses))

    def found(self) -> list[Sequence[Any]]:
        """The key-values for each Get, in order."""
        return [answer.response_range.kvs for answer in _flat(self.response.responses)]


def _flat(responses: Iterable[Any]) -> Iterator[Any]:
    for answer in responses:
        if answer.HasField("response_txn"):
            yield from _flat(answer.response_txn.responses)
        else:
            yield answer


class Fence(NamedTuple):
    """What every write of a namespace compares: a lock's key, still as it was when the lock was taken."""

    key: bytes
    created: int
    check: Callable[[], None]
    """Raises `LockLost` when it is known here already."""
    lost: str


class Namespace:
    """A prefix on a cluster, and what is known of the layout there. Shared by all operations of a client."""

    def __init__(self, caller: Caller, prefix: bytes, fence: Fence | None = None) -> None:
        self.caller = caller
        self.prefix = prefix
        self.fence = fence
        self.leaves: set[bytes] = set()
        """Keys where a leaf was found when last looked at."""
        self.checked = False
        self.new_layout: tuple[Operation, ...] = ()
        """What the next write adds, so that the layout's version is in etcd from the first write on."""

    def place(self, path: str) -> Place:
        return place(path, self.prefix)


def new_lease_id() -> int:
    """An id for a lease, chosen here so that a lease whose grant was not answered can still be revoked."""
    return secrets.randbits(62) + 1


class Exchange:
    """What an operation sends, within one deadline. Not shared between threads."""

    __slots__ = ("deadline", "space")

    def __init__(self, space: Namespace) -> None:
        self.space = space
        self.renew()

    def renew(self) -> None:
        """Start the deadline anew."""
        self.deadline = time.monotonic() + self.space.caller.config.timeout

    def place(self, path: str) -> Place:
        return place(path, self.space.prefix)

    async def range(self, get: Get, *, count_only: bool = False) -> Any:
        if not self.space.checked:
            await self._check_layout()
        request = range_request(get, count_only=count_only)
        return await self.space.caller.call(RANGE, request, Repeat.READ, self.deadline)

    async def read(self, gets: Sequence[Get]) -> tuple[int, list[Sequence[Any]]]:
        """The key-values of each Get, all at one revision, and that revision."""
        if not self.space.checked:
            await self._check_layout()
        if len(gets) == 1:
            answer = await self.range(gets[0])
            return answer.header.revision, [answer.kvs]
        return await self._read(txn_request(Plan(operations=gets)), gets)

    async def look(self, at: Place) -> list[Sequence[Any]]:
        """What `link_kv.plan.reads` finds at a place now.

        Where a leaf was found before, the leaf alone is asked for first: a leaf hides whatever is below it,
        and a plain Range is cheaper for the server than a transaction of three.
        """
        space = self.space
        if not space.checked:
            await self._check_layout()
        if at.key in space.leaves:
            answer = await space.caller.call(RANGE, leaf_read_request(at), Repeat.READ, self.deadline)
            if answer.kvs:
                return [answer.kvs, (), ()]
            space.leaves.discard(at.key)
        _, found = await self._read(read_request(at), reads(at))
        if found[0]:
            if len(space.leaves) >= _REMEMBERED:
                space.leaves.clear()
            space.leaves.add(at.key)
        return found

    async def _read(self, request: bytes, gets: Sequence[Get]) -> tuple[int, list[Sequence[Any]]]:
        try:
            response = await self.space.caller.call(TXN, request, Repeat.READ, self.deadline)
        except NoSpace:
            # Before 3.5.2 a full server refuses every transaction, reads too.
            return await self._read_singly(gets)
        outcome = Outcome(True, response.header.revision, response)
        return outcome.revision, outcome.found()

    async def _read_singly(self, gets: Sequence[Get]) -> tuple[int, list[Sequence[Any]]]:
        revision = 0
        found = []
        for get in gets:
            answer = await self.range(get._replace(revision=get.revision or revision))
            revision = revision or answer.header.revision
            found.append(answer.kvs)
        return revision, found

    async def commit(self, plan: Plan, path: str) -> Outcome:
        """Do a transaction that writes. ``path`` is for errors."""
        space = self.space
        if not space.checked:
            await self._check_layout()
        extra = space.new_layout
        fence = space.fence
        if fence is not None:
            fence.check()
            compare = Compare(fence.key, "create", "=", fence.created)
            plan = plan._replace(
                compares=(compare, *plan.compares), otherwise=(*plan.otherwise, Get(fence.key))
            )
        repeat = Repeat.GUARDED if plan.guarded else Repeat.ONCE
        try:
            outcome = await self._write(txn_request(plan, extra), repeat, path)
        except AccessDenied:
            if not extra:
                raise
            # A role that may write its own keys and not the layout's.
            space.new_layout = ()
            return await self.commit(plan, path)
        if fence is not None and not outcome.succeeded:
            found = outcome.found()[-1]
            if not found or found[0].create_revision != fence.created:
                raise LockLost(f"{path}: {fence.lost}; nothing was written")
        if extra and outcome.succeeded:
            space.new_layout = ()
        return outcome

    async def assign(self, at: Place, stored: bytes) -> Outcome | None:
        """Try to assign a leaf by a request that is mostly prepared; None where that does not fit."""
        space = self.space
        if not space.checked:
            await self._check_layout()
        request = leaf_request(at, stored)
        if request is None or space.new_layout or space.fence is not None:
            return None
        return await self._write(request, Repeat.ONCE, at.path)

    async def _write(self, request: bytes, repeat: Repeat, path: str) -> Outcome:
        try:
            response = await self.space.caller.call(TXN, request, repeat, self.deadline)
        except TooLarge as error:
            raise TooLarge(f"{path}: {error}; nothing was written") from None
        except AccessDenied as error:
            raise AccessDenied(f"{path}: {error}") from None
        return Outcome(response.succeeded, response.header.revision, response)

    async def _check_layout(self) -> None:
        space = self.space
        key = space.prefix + b"/.link/layout"
        answer = await space.caller.call(RANGE, range_request(Get(key)), Repeat.READ, self.deadline)
        if not answer.kvs:
            space.new_layout = (PutNew(key, LAYOUT),)
        elif answer.kvs[0].value != LAYOUT:
            raise ConfigError(
                f"{key.decode()}: the layout there has version {answer.kvs[0].value!r}, and this link_kv "
                f"knows version {LAYOUT.decode()}: upgrade link_kv, or use another prefix"
            )
        space.checked = True

    async def grant(self, lease: int, ttl: float) -> int:
        """Make a lease of at least ``ttl`` seconds; the seconds that etcd granted."""
        request = b"\x08" + varint(max(1, math.ceil(ttl))) + b"\x10" + varint(lease)
        answer = await self.space.caller.call(LEASE_GRANT, request, Repeat.GUARDED, self.deadline)
        return int(answer.TTL)

    async def revoke(self, lease: int) -> None:
        request = b"\x08" + varint(lease)
        await self.space.caller.call(LEASE_REVOKE, request, Repeat.GUARDED, self.deadline)
