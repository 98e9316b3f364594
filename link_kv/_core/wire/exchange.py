"""One operation's conversation with etcd: its deadline, its namespace, its transactions."""

from __future__ import annotations

import contextlib
import copy
import math
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from link_kv._core.wire.calls import (
    KEEP_ALIVE,
    LEASE_GRANT,
    LEASE_REVOKE,
    RANGE,
    TIME_TO_LIVE,
    TXN,
    Caller,
    Method,
    Repeat,
)
from link_kv._core.wire.requests import (
    leaf_read_request,
    leaf_request,
    range_request,
    read_request,
    txn_request,
    varint,
)
from link_kv.errors import (
    AccessDenied,
    ConfigError,
    Conflict,
    LeaseLost,
    LinkKVError,
    LockLost,
    NoSpace,
    OutcomeUnknown,
    RevisionError,
    TooLarge,
    Unavailable,
)
from link_kv.plan import Compare, Get, Operation, Plan, PutNew, reads
from link_kv.tree import RESERVED, Place, place

_REMEMBERED = 10_000
"""How many leaves a client remembers to be leaves."""

LAYOUT = b"1"
"""The version of the layout that this library reads and writes."""


class Outcome(NamedTuple):
    """What a transaction did."""

    succeeded: bool
    revision: int
    response: Any
    fences: int = 0
    """How many fences were read behind the plan's own Gets."""

    def answers(self) -> list[Any]:
        """The answers to the operations, in order."""
        return list(_flat(self.response.responses))

    def found(self) -> list[Sequence[Any]]:
        """The key-values for each Get, in order."""
        found = [answer.response_range.kvs for answer in _flat(self.response.responses)]
        return found[: len(found) - self.fences]


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
    name: str
    lost: Callable[[], str | None]
    """Why the lock is known here to be lost; None when it is not."""


class Namespace:
    """A prefix on a cluster, and what is known of the layout there. Shared by all operations of a client."""

    def __init__(self, caller: Caller, prefix: bytes, fences: tuple[Fence, ...] = ()) -> None:
        self.caller = caller
        self.prefix = prefix
        self.fences = fences
        self.leaves: set[bytes] = set()
        """Keys where a leaf was found when last looked at."""
        self.checked = False
        self.new_layout: tuple[Operation, ...] = ()
        """What the next write adds, so that the layout's version is in etcd from the first write on."""

    def bare(self) -> Namespace:
        """The same for raw keys, which the layout does not concern."""
        twin = copy.copy(self)
        twin.checked, twin.new_layout = True, ()
        return twin

    def place(self, path: str) -> Place:
        return place(path, self.prefix)

    def fenced(self, fence: Fence) -> Namespace:
        """The same, with one fence more."""
        twin = Namespace(self.caller, self.prefix, (*self.fences, fence))
        twin.checked, twin.new_layout = self.checked, self.new_layout
        return twin

    @property
    def lost(self) -> str | None:
        """Which lock is known here to be lost, and why, so that nothing can be written; None while it can."""
        for fence in self.fences:
            if why := fence.lost():
                return f"lock {fence.name}: {why}"
        return None


def new_lease_id() -> int:
    """An id for a lease, chosen here so that a lease whose grant was not answered can still be revoked."""
    return secrets.randbits(62) + 1


def _request(plan: Plan, extra: Sequence[Operation], insist: Sequence[Compare], path: str) -> bytes:
    try:
        return txn_request(plan, extra, insist)
    except TooLarge as error:
        raise TooLarge(f"{path}: {error}; nothing was written") from None


class Exchange:
    """What an operation sends, within one deadline. Not shared between threads."""

    __slots__ = ("deadline", "each", "space")

    def __init__(self, space: Namespace, *, each: float = math.inf) -> None:
        self.space = space
        self.each = each
        """How long a read waits for each endpoint; see `Caller.call`."""
        self.renew()

    def renew(self) -> None:
        """Start the deadline anew."""
        self.deadline = time.monotonic() + self.space.caller.config.timeout

    def place(self, path: str) -> Place:
        return place(path, self.space.prefix)

    async def range(self, get: Get, *, count_only: bool = False) -> Any:
        if not self.space.checked:
            await self._check_layout(self._path(get.key))
        return await self.fetch(RANGE, range_request(get, count_only=count_only), get.key)

    async def fetch(self, method: Method, request: bytes, about: bytes) -> Any:
        """The answer to a request that reads, ``about`` a key, for errors."""
        try:
            return await self.space.caller.call(method, request, Repeat.READ, self.deadline, self.each)
        except AccessDenied as error:
            raise AccessDenied(f"{self._path(about)}: {error}") from None

    def _about(self, gets: Sequence[Get]) -> bytes:
        """The key of the last: those before it may be about what stands above."""
        return gets[-1].key if gets else self.space.prefix

    def _path(self, key: bytes) -> str:
        """The path of the leaf or the tree that a key belongs to; a raw key beyond the prefix as it is."""
        prefix = self.space.prefix
        if not key.startswith(prefix + b"/") and key != prefix:
            return repr(key)
        tree = key[len(prefix) :].partition(f"/{RESERVED}".encode())[0]
        return tree.rstrip(b"/\0").decode(errors="backslashreplace") or "/"

    async def read(self, gets: Sequence[Get]) -> tuple[int, list[Sequence[Any]]]:
        """The key-values of each Get, all at one revision, and that revision."""
        revision, answers = await self.ask(gets)
        return revision, [answer.kvs for answer in answers]

    async def ask(self, gets: Sequence[Get]) -> tuple[int, list[Any]]:
        """The RangeResponse to each Get, all at one revision, and that revision.

        Its ``count`` is that of all keys in the range, however few were asked for.
        """
        if not self.space.checked:
            await self._check_layout(self._path(self._about(gets)))
        if len(gets) == 1:
            answer = await self.range(gets[0])
            return answer.header.revision, [answer]
        return await self._ask(txn_request(Plan(operations=gets)), gets)

    async def look(self, at: Place) -> list[Sequence[Any]]:
        """What `link_kv.plan.reads` finds at a place now.

        Where a leaf was found before, the leaf alone is asked for first: a leaf hides whatever is below it,
        and a plain Range is cheaper for the server than a transaction of three.
        """
        space = self.space
        if not space.checked:
            await self._check_layout(at.path)
        if at.key in space.leaves:
            answer = await self.fetch(RANGE, leaf_read_request(at), at.key)
            if answer.kvs:
                return [answer.kvs, (), ()]
            space.leaves.discard(at.key)
        _, answers = await self._ask(read_request(at), reads(at))
        found = [answer.kvs for answer in answers]
        if found[0]:
            if len(space.leaves) >= _REMEMBERED:
                space.leaves.clear()
            space.leaves.add(at.key)
        return found

    async def _ask(self, request: bytes, gets: Sequence[Get]) -> tuple[int, list[Any]]:
        try:
            response = await self.fetch(TXN, request, self._about(gets))
        except (NoSpace, TooLarge):
            # Before 3.5.2 a full server refuses every transaction, reads too. And thousands of long keys to
            # read are more than one request may carry.
            return await self._ask_singly(gets)
        return response.header.revision, [answer.response_range for answer in _flat(response.responses)]

    async def _ask_singly(self, gets: Sequence[Get]) -> tuple[int, list[Any]]:
        revision = 0
        answers = []
        for get in gets:
            answer = await self.range(get._replace(revision=get.revision or revision))
            revision = revision or answer.header.revision
            answers.append(answer)
        return revision, answers

    async def commit(self, plan: Plan, path: str, insist: Sequence[Compare] = ()) -> Outcome:
        """Do a transaction that writes. ``path`` is for errors.

        A plan can have some hundred compares. ``insist`` takes any number more; `Conflict` when one fails,
        and what is read otherwise is not read then.
        """
        space = self.space
        if not space.checked:
            await self._check_layout(path)
        fences = space.fences
        if why := space.lost:
            raise LockLost(f"{path}: {why}; nothing was written")
        if fences:
            compares = (Compare(fence.key, "create", "=", fence.created) for fence in fences)
            gets = (Get(fence.key, keys_only=True) for fence in fences)
            plan = plan._replace(compares=(*compares, *plan.compares), otherwise=(*plan.otherwise, *gets))
        settling = space.caller.settling
        if settling is not None:
            plan = plan._replace(operations=settling.prepare(plan.operations))
        repeat = Repeat.GUARDED if plan.guarded else Repeat.ONCE
        extra = space.new_layout
        try:
            try:
                outcome = await self._write(_request(plan, extra, insist, path), repeat, path)
            except AccessDenied:
                if not extra:
                    raise
                # A role that may write its own keys and not the layout's.
                space.new_layout = extra = ()
                outcome = await self._write(_request(plan, (), insist, path), repeat, path)
        except RevisionError:
            if not insist:
                raise
            raise Conflict(f"{path}: something moved meanwhile; nothing was written") from None
        if fences and not outcome.succeeded:
            for fence, found in zip(fences, outcome.found()[-len(fences) :], strict=True):
                if not found or found[0].create_revision != fence.created:
                    raise LockLost(
                        f"{path}: lock {fence.name}: is lost, another may hold it by now; nothing was written"
                    )
            outcome = outcome._replace(fences=len(fences))
        if extra and outcome.succeeded:
            space.new_layout = ()
        if settling is not None and outcome.succeeded:
            await settling.settle(plan.operations, outcome.answers(), outcome.revision)
        return outcome

    async def assign(self, at: Place, stored: bytes) -> Outcome | None:
        """Try to assign a leaf by a request that is mostly prepared; None where that does not fit."""
        space = self.space
        if not space.checked:
            await self._check_layout(at.path)
        request = leaf_request(at, stored)
        if request is None or space.new_layout or space.fences or space.caller.settling is not None:
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

    async def _check_layout(self, path: str) -> None:
        """Look at the layout, before the first operation. ``path`` is what that is about, for errors."""
        space = self.space
        key = space.prefix + b"/.link/layout"
        try:
            answer = await space.caller.call(RANGE, range_request(Get(key)), Repeat.READ, self.deadline)
        except AccessDenied as error:
            beyond = f" {key.decode()}" if "permission denied" in str(error) else ""
            raise AccessDenied(f"{path}: {error}{beyond}") from None
        if not answer.kvs:
            space.new_layout = (PutNew(key, LAYOUT),)
        elif answer.kvs[0].value != LAYOUT:
            raise ConfigError(
                f"{key.decode()}: the layout there has version {answer.kvs[0].value!r}, and this link_kv "
                f"knows version {LAYOUT.decode()}: upgrade link_kv, or use another prefix"
            )
        space.checked = True

    # Leases

    async def grant(self, lease: int, ttl: float) -> int:
        """Make a lease of at least ``ttl`` seconds; the seconds that etcd granted."""
        request = b"\x08" + varint(max(1, math.ceil(ttl))) + b"\x10" + varint(lease)
        doubtful = False
        try:
            try:
                answer = await self.space.caller.call(LEASE_GRANT, request, Repeat.GUARDED, self.deadline)
                return int(answer.TTL)
            except OutcomeUnknown as unknown:
                doubtful = True
                # The id is nobody else's: if etcd knows it, the request did arrive.
                with contextlib.suppress(Unavailable):
                    if granted := await self.keep_alive(lease):
                        return granted
                raise unknown from None
        except BaseException as error:
            # etcd may grant a lease and answer then that it has no space; what is no error of ours cancels.
            if doubtful or isinstance(error, NoSpace) or not isinstance(error, LinkKVError):
                await self.abandon(lease)
            raise

    async def keep_alive(self, lease: int) -> int:
        """Prolong a lease; the seconds that it has from now on, 0 when etcd does not know it."""
        request = b"\x08" + varint(lease)
        answer = await self.space.caller.call(KEEP_ALIVE, request, Repeat.READ, self.deadline)
        return max(0, int(answer.TTL))

    async def revoke(self, lease: int) -> None:
        """End a lease, with every key under it. Raises `LeaseLost` when etcd does not know it."""
        request = b"\x08" + varint(lease)
        await self.space.caller.call(LEASE_REVOKE, request, Repeat.GUARDED, self.deadline)

    async def abandon(self, lease: int, *, unless_used: bool = False) -> None:
        """Try for a second to end a lease that nobody will hear of. Cancelling does not stop this.

        ``unless_used`` leaves it where the write happened after all: with it the value would go.
        """
        await self.space.caller.wire.finish(self._abandon(lease, unless_used))

    async def _abandon(self, lease: int, unless_used: bool) -> None:
        self.deadline = time.monotonic() + min(1.0, self.space.caller.config.timeout)
        with contextlib.suppress(LinkKVError):  # it expires by itself
            if unless_used:
                await self.space.caller.wire.sleep(0.1)  # the write may still be on its way
                request = b"\x08" + varint(lease) + b"\x10\x01"
                if (await self.space.caller.call(TIME_TO_LIVE, request, Repeat.READ, self.deadline)).keys:
                    return
            try:
                await self.revoke(lease)
            except LeaseLost:
                # When the grant was cancelled, it may still be on its way.
                await self.space.caller.wire.sleep(0.1)
                await self.revoke(lease)
