"""Fair locks with a fencing token.

A lock is a key below ``<prefix>/.link/locks/<name>/``, under a lease. Who came first, by create revision,
holds it; who came later waits for those in front. The create revision is the token: etcd gives it once, and
a write that compares it cannot happen after the lock is gone.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Sequence
from typing import Any

from link_kv._core.calls import (
    DEADLINE_EXCEEDED,
    UNAVAILABLE,
    WATCH,
    WireFailure,
)
from link_kv._core.exchange import Exchange, Fence, Namespace
from link_kv._core.leases import Lease
from link_kv._core.requests import field, varint
from link_kv.errors import LeaseLost, LockLost, PathError
from link_kv.plan import Get, Plan, Put, absent
from link_kv.tree import encode_name


def directory(space: Namespace, name: str) -> bytes:
    """Where the claims on a lock stand."""
    if not isinstance(name, str) or not name:
        raise PathError(f"{name!r}: a lock's name is a str that is not empty")
    return space.prefix + b"/.link/locks/" + encode_name(name, "lock").encode() + b"/"


def _owner(shared: bool) -> bytes:
    owner = {"shared": shared, "host": socket.gethostname(), "pid": os.getpid()}
    return json.dumps(owner).encode()


def _is_shared(kv: Any) -> bool:
    try:
        return json.loads(kv.value).get("shared") is True
    except (ValueError, AttributeError):
        return False


class Claim:
    """One try at a lock: a key under a lease, in the queue of those who want the same."""

    def __init__(self, space: Namespace, name: str, shared: bool, lease: Lease) -> None:
        self.name = name
        self.shared = shared
        self.lease = lease
        self._space = space
        self._directory = directory(space, name)
        self._key = b""
        self.token = 0

    async def enter(self) -> None:
        """Take a place in the queue."""
        self._key = self._directory + f"{self.lease.id:016x}".encode()
        plan = Plan((absent(self._key),), [Put(self._key, _owner(self.shared), self.lease.id)], guarded=True)
        self.token = (await Exchange(self._space).commit(plan, f"lock {self.name}")).revision

    async def ahead(self) -> tuple[int, Sequence[Any]]:
        """Those in front who bar the way, the last one first, and the revision at which that was so."""
        end = self._directory[:-1] + b"0"
        answer = await Exchange(self._space).range(Get(self._directory, end))
        mine = [kv for kv in answer.kvs if kv.key == self._key]
        if not mine or mine[0].create_revision != self.token:
            raise LockLost(f"lock {self.name}: the place in the queue is gone with its lease")
        barring = [
            kv
            for kv in answer.kvs
            if kv.create_revision < self.token and not (self.shared and _is_shared(kv))
        ]
        barring.sort(key=lambda kv: -kv.create_revision)
        return answer.header.revision, barring

    async def wait(self, deadline: float | None) -> bool:
        """Wait until nobody is ahead; False when the deadline passes before."""
        while True:
            self.check()
            revision, barring = await self.ahead()
            if not barring:
                return True
            if not await self._gone(barring[0].key, revision, deadline):
                return False

    async def _gone(self, key: bytes, revision: int, deadline: float | None) -> bool:
        """Wait until a key is deleted after ``revision``, or something else is worth another look."""
        # Looking again from time to time notices a lease that was lost while waiting.
        patience = self.lease.ttl / 3
        timeout = patience if deadline is None else min(patience, deadline - time.monotonic())
        if timeout <= 0:
            return False
        create = field(b"\x0a", key) + b"\x18" + varint(revision + 1)
        caller = self._space.caller
        try:
            endpoint, stream = await caller.open(WATCH, timeout)
            try:
                await stream.send(field(b"\x0a", create))
                while True:
                    answer = await stream.receive()
                    if answer.canceled or any(event.type == event.DELETE for event in answer.events):
                        return True
            finally:
                stream.cancel()
        except WireFailure as failure:
            if failure.code == UNAVAILABLE:
                caller.avoid(endpoint)
                await caller.wire.sleep(min(0.1, timeout))
            elif failure.code != DEADLINE_EXCEEDED:
                await caller.wire.sleep(min(0.1, timeout))
            return True

    def check(self) -> None:
        """Raise `LockLost` unless the lock's lease is certainly still there."""
        try:
            self.lease.check()
        except LeaseLost as error:
            raise LockLost(f"lock {self.name}: {error}") from None

    def fence(self) -> Fence:
        return Fence(self._key, self.token, self.check, f"lock {self.name}: another may hold it by now")
