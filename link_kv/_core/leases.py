"""Leases that are kept alive, and that know when they may be lost."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Awaitable, Callable

from link_kv._core.calls import KEEP_ALIVE, Repeat
from link_kv._core.exchange import Exchange, Namespace, new_lease_id
from link_kv._core.requests import varint
from link_kv.errors import ConfigError, LeaseLost, LinkKVError, Unavailable
from link_kv.plan import Plan, Put

Pause = Callable[[float], Awaitable[bool]]
"""Waits for some seconds, or until the keeper is told to stop: then True."""

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def now() -> float:
    """Seconds on a clock that goes on while the machine is suspended."""
    return time.clock_gettime(_CLOCK)


class Lease:
    """One lease and what is registered under it. Only the process that made it keeps it alive."""

    def __init__(self, space: Namespace, ttl: float) -> None:
        if not isinstance(ttl, (int, float)) or not 1 <= ttl <= 9_000_000_000:
            raise ConfigError(f"ttl={ttl!r}: a lease lives for at least 1 second")
        self.space = space
        self.wanted = ttl
        self.id = 0
        self.ttl = 0
        """The seconds that etcd granted, often more than was asked for."""
        self.registered: dict[bytes, bytes] = {}
        self._expires = 0.0
        self._lost = False
        self._pid = os.getpid()

    @property
    def alive(self) -> bool:
        """Whether the lease is certainly still there. Counted from when the last keepalive was sent."""
        return not self._lost and self.id != 0 and now() < self._expires and self._pid == os.getpid()

    def check(self) -> None:
        """Raise `LeaseLost` unless the lease is certainly still there."""
        if self._pid != os.getpid():
            raise LeaseLost("this session belongs to the process that made it: make another after a fork")
        if not self.alive:
            raise LeaseLost(f"the session's lease of {self.ttl} s was not kept alive in time")

    async def grant(self) -> None:
        """Get a lease, and write again what was registered under the one before."""
        lease, sent = new_lease_id(), now()
        try:
            granted = await Exchange(self.space).grant(lease, self.wanted)
            if self.registered:
                puts = [Put(key, value, lease) for key, value in self.registered.items()]
                await Exchange(self.space).commit(Plan((), puts), "session")
        except BaseException:
            with contextlib.suppress(LinkKVError):  # it expires by itself
                await Exchange(self.space).revoke(lease)
            raise
        self.id, self.ttl, self._expires, self._lost = lease, granted, sent + granted, False

    async def keep_alive(self) -> None:
        """Send one keepalive. Raises `LeaseLost` when etcd no longer knows the lease."""
        sent = now()
        until = time.monotonic() + min(self.ttl / 3, max(0.1, self._expires - sent))
        request = b"\x08" + varint(self.id)
        answer = await self.space.caller.call(KEEP_ALIVE, request, Repeat.READ, until)
        if answer.TTL <= 0:
            self._lost = True
            raise LeaseLost("etcd no longer knows the session's lease")
        self._expires = sent + answer.TTL

    async def keep(self, pause: Pause) -> bool:
        """Keep the lease alive until told to stop, or until it is lost: then True."""
        wait = self.ttl / 3
        while not await pause(wait):
            if not self.alive:
                return True
            try:
                await self.keep_alive()
                wait = self.ttl / 3
            except LeaseLost:
                return True
            except Unavailable:
                wait = min(1.0, self.ttl / 10)
        return False

    def forget(self) -> None:
        """Take the lease as lost from now on."""
        self._lost = True

    async def revoke(self) -> None:
        """End the lease, with every key under it. What etcd no longer knows, or cannot be told, expires."""
        if self._pid != os.getpid() or not self.id:
            return
        lease, self.id = self.id, 0
        with contextlib.suppress(LeaseLost, Unavailable):
            await Exchange(self.space).revoke(lease)
