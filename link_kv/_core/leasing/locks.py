"""Fair locks with a fencing token.

A lock is a directory, ``<prefix>/.link/locks/<name>/``. Whoever wants it puts a key there,
``exclusive-<id>`` or ``shared-<id>``, under a lease of its own. Who came first, by create revision, holds the
lock; who came later waits for those in front, and one that shares waits only for those that do not. The
create revision is the token: etcd gives it once, and a write that compares it cannot happen after the key is
gone.

After etcd's ``client/v3/concurrency/mutex.go``, with two differences: the key is named after the claim and
not after the session, so that two threads with one session cannot both hold it, and a claim may be shared.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, Generic, NamedTuple, TypeVar

from link_kv._core.leasing.leases import E, Lease, checked_ttl
from link_kv._core.wire.calls import WATCH
from link_kv._core.wire.connection import Connection
from link_kv._core.wire.exchange import Exchange, Fence, Namespace, new_lease_id
from link_kv._core.wire.failures import DEADLINE_EXCEEDED, UNAVAILABLE, WireFailure
from link_kv._core.wire.requests import field, varint
from link_kv.errors import (
    ConfigError,
    LeaseLost,
    LinkKVError,
    LockLost,
    LockRefused,
    OutcomeUnknown,
    PathError,
    Unavailable,
)
from link_kv.plan import Get, Plan, Put, absent
from link_kv.tree import encode_name

C = TypeVar("C", bound=Connection)

_LOCKS = b"/.link/locks/"

_CLAIM = re.compile(rb"(?:exclusive|shared)-[0-9a-f]{16}\Z")

_ASK = 1.0
"""Seconds that etcd has at least to answer whether the lock is free, however short the timeout."""

_LOOK_AGAIN = 30.0
"""Seconds after which a wait looks at the queue again, though nothing was heard of it."""

_BEYOND = 1.0
"""Seconds that ending an acquire which failed may take beyond its timeout; asking etcd may take half of one
more."""


def directory(space: Namespace, name: str) -> bytes:
    """Where the claims on a lock stand."""
    if not isinstance(name, str) or not name:
        raise PathError(f"{name!r}: a lock's name is a str that is not empty")
    return space.prefix + _LOCKS + encode_name(name, "lock").encode() + b"/"


async def lost(ex: Exchange, held: Iterable[tuple[bytes, int, str]]) -> str:
    """The name of the first lock that is not held any more; '' for none.

    Each by its claim's key, its token and its name, as somebody else says. A key that is no claim's, in this
    prefix, is held by nobody.
    """
    where = ex.space.prefix + _LOCKS
    for key, token, name in held:
        if not key.startswith(where):
            return str(name)
        found = await ex.range(Get(key, keys_only=True))
        if not found.kvs or found.kvs[0].create_revision != token:
            return str(name)
    return ""


class Queue(NamedTuple):
    """A claim's place among those who want the same lock."""

    token: int
    """The claim's create revision; 0 when it has no place."""
    barring: bytes
    """The last one in front that bars the way; empty when there is none."""
    revision: int
    """When this was so."""


class Claim(Generic[E]):
    """One try at a lock."""

    def __init__(self, space: Namespace, name: str, shared: bool, lease: Lease[E]) -> None:
        self.name = name
        self.shared = shared
        self.lease = lease
        self.token = 0
        self._space = space
        self._directory = directory(space, name)
        self._everyone = Get(self._directory, self._directory[:-1] + b"0", keys_only=True)
        kind = "shared" if shared else "exclusive"
        self._key = self._directory + f"{kind}-{new_lease_id():016x}".encode()

    async def take(self, deadline: float | None) -> bool:
        """Wait until the lock is ours; False when the deadline passes before."""
        ask = None if deadline is None else max(deadline, time.monotonic() + _ASK)
        await self.lease.open(None if ask is None else ask - time.monotonic())
        try:
            queue = await self._enter(ask)
            if queue is None:
                return False
            self.token = queue.token
            while queue.barring:
                if not await self._gone(queue, deadline):
                    return False
                queue = await self._look(deadline)
                if queue is None:
                    return False
                if queue.token != self.token:
                    raise LockLost(f"lock {self.name}: its place in the queue was deleted")
            self.lease.check()
        except LockLost:
            raise
        except LeaseLost as error:
            raise LockLost(f"lock {self.name}: lost its place in the queue: {error}") from None
        return True

    async def _enter(self, deadline: float | None) -> Queue | None:
        """Take a place in the queue; None when the deadline passes before it is certain that it was got."""
        owner = json.dumps({"host": socket.gethostname(), "pid": os.getpid()}).encode()
        put = Put(self._key, owner, self.lease.id)
        plan = Plan((absent(self._key),), [put, self._everyone], [self._everyone], guarded=True)
        try:
            outcome = await self._exchange(deadline).commit(plan, f"lock {self.name}")
        except OutcomeUnknown:
            # The key is nobody else's: if it is there, the request did arrive.
            queue = await self._look(deadline)
            if queue is not None and not queue.token:
                raise
            return queue
        return self._queue(outcome.answers()[1].response_range)._replace(revision=outcome.revision)

    async def _look(self, deadline: float | None) -> Queue | None:
        """The place in the queue now; None when the deadline passes before etcd answers."""
        while True:
            self.lease.check()
            try:
                return self._queue(await self._exchange(deadline).range(self._everyone))
            except Unavailable:
                if deadline is not None and time.monotonic() >= deadline:
                    return None
                await self._space.caller.wire.sleep(0.1)

    def _exchange(self, deadline: float | None) -> Exchange:
        ex = Exchange(self._space)
        if deadline is not None:
            ex.deadline = min(ex.deadline, deadline)
        return ex

    def _queue(self, answer: Any) -> Queue:
        token = 0
        for kv in answer.kvs:
            if kv.key == self._key:
                token = kv.create_revision
        last, barring = 0, b""
        for kv in answer.kvs:
            name = kv.key[len(self._directory) :]
            if last < kv.create_revision < token and _CLAIM.match(name):
                if self.shared and name.startswith(b"shared-"):
                    continue
                last, barring = kv.create_revision, kv.key
        return Queue(token, barring, answer.header.revision)

    async def _gone(self, queue: Queue, deadline: float | None) -> bool:
        """Wait until the one in front is gone, or another look is due; False when the deadline has passed."""
        # Looking again from time to time notices that the place in the queue was lost while waiting, and a
        # server that was restored to an older state, which keeps a watch open in silence.
        timeout = min(self.lease.ttl / 3, _LOOK_AGAIN)
        if deadline is not None:
            timeout = min(timeout, deadline - time.monotonic())
        if timeout <= 0:
            return False
        create = field(b"\x0a", queue.barring) + b"\x18" + varint(queue.revision + 1)
        caller = self._space.caller
        try:
            endpoint, stream = await caller.open(WATCH, timeout)
        except Unavailable:
            await caller.wire.sleep(min(0.1, timeout))
            return True
        try:
            await stream.send(field(b"\x0a", create))
            while True:
                answer = await stream.receive()
                if any(event.type == event.DELETE for event in answer.events):
                    return True
                if answer.canceled:
                    break
        except WireFailure as failure:
            if failure.code == DEADLINE_EXCEEDED:
                return True
            if failure.code == UNAVAILABLE:
                caller.avoid(endpoint)
        finally:
            stream.cancel()
        await caller.wire.sleep(min(0.1, timeout))
        return True

    async def leave(self) -> str | None:
        """Give the lock up; why it was lost before, None when it was not. Cancelling does not stop this."""
        return await self._space.caller.wire.finish(self._leave())

    async def _leave(self) -> str | None:
        trouble = self.lease.trouble()
        ex = Exchange(self._space)
        until = ex.deadline
        # Ending a lease does not tell whether the key was still there, so it is looked at before. Who cannot
        # look does not know: what was written through the lock's client compared the key anyhow.
        if trouble is None:
            ex.deadline = (time.monotonic() + until) / 2  # the lease is to be ended in any case
            with contextlib.suppress(LinkKVError):
                found = await ex.range(Get(self._key, keys_only=True))
                if not found.kvs or found.kvs[0].create_revision != self.token:
                    trouble = "its key is gone"
        if not await self.lease.close(max(0.0, until - time.monotonic())) and trouble is None:
            trouble = "etcd did not know its lease any more"
        return trouble

    def fence(self) -> Fence:
        return Fence(self._key, self.token, self.name, self._lost)

    def _lost(self) -> str | None:
        return "was released" if self.lease.closed else self.lease.trouble()


class Mutex(ABC, Generic[C, E]):
    """What the blocking lock and the asyncio one have in common."""

    def __init__(self, client: C, name: str, *, shared: bool = False, ttl: float = 10) -> None:
        directory(client._space, name)  # refuses a bad name here
        self.name = name
        self.shared = shared
        self._client = client
        self._ttl = checked_ttl(ttl)
        self._claim: Claim[E] | None = None
        self._fenced: C | None = None
        self._pid = os.getpid()
        self._busy = threading.Lock()

    @property
    def held(self) -> bool:
        """Whether the lock's lease is certainly still alive, in this process.

        That somebody deleted the lock's key is not noticed here, but by `release` and by each write through
        `client`.
        """
        return self._claim is not None and self._claim.lease.alive

    @property
    def token(self) -> int:
        """A number that grows from holder to holder, and that none shares: etcd's create revision.

        Raises `LockLost` when the lock was not acquired.
        """
        return self._acquired().token

    @property
    def lost(self) -> E:
        """An event: set when the lock's lease must be taken as lost, and when the lock was released.

        Raises `LockLost` when the lock was not acquired.
        """
        return self._acquired().lease.lost

    @property
    def client(self) -> C:
        """A client whose every write compares the token, and raises `LockLost` when the lock is gone.

        It shares the connection of the client that the lock was made with, and is closed with it. A lock made
        with such a client has both fences. Raises `LockLost` when the lock was not acquired.
        """
        claim = self._acquired()
        if self._fenced is None:
            self._fenced = self._client._fenced(claim.fence())
        return self._fenced

    def __repr__(self) -> str:
        kind = "shared" if self.shared else "exclusive"
        return f"<{type(self).__name__} {self.name!r} {kind}, {'held' if self.held else 'not held'}>"

    def _acquired(self) -> Claim[E]:
        claim = self._claim
        if claim is None:
            raise LockLost(f"lock {self.name}: is not held; acquire it first")
        return claim

    @abstractmethod
    def _new_lease(self) -> Lease[E]:
        """A lease that is not open yet."""

    async def _acquire(self, timeout: float | None) -> bool:
        if timeout is not None and not (isinstance(timeout, (int, float)) and timeout >= 0):
            raise ConfigError(f"timeout={timeout!r}: a timeout is a number of seconds, 0 to ask once")
        deadline = None if timeout is None else time.monotonic() + timeout
        if self._pid != os.getpid():
            # What was held before a fork is the parent's.
            self._pid, self._busy, self._claim, self._fenced = os.getpid(), threading.Lock(), None, None
        if not self._busy.acquire(blocking=False):
            raise LockRefused(
                f"lock {self.name}: this object holds it or waits for it; let another Lock wait for it"
            )
        claim = Claim(self._client._space, self.name, self.shared, self._new_lease())
        try:
            got = await claim.take(deadline)
            if got:
                self._claim = claim
        finally:
            if self._claim is None:
                try:
                    await claim.lease.close(_BEYOND)
                finally:
                    self._busy.release()
        return got

    async def _release(self) -> None:
        claim = self._claim
        if claim is None:
            raise LockRefused(f"lock {self.name}: is not held, so it cannot be released")
        if self._pid == os.getpid():
            self._claim = self._fenced = None
            try:
                trouble = await claim.leave()
            finally:
                self._busy.release()
        else:  # it is the parent's to give up
            trouble = claim.lease.trouble()
        if trouble is not None:
            raise LockLost(f"lock {self.name}: was lost before it was released: {trouble}")

    async def _leave(self, error: BaseException | None) -> None:
        """Release at the end of a block; an error of the block itself goes before `LockLost`."""
        try:
            await self._release()
        except LockLost:
            if error is None:
                raise
