"""Leases that are kept alive, and that know when they may be lost."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from link_kv._core.calls import KEEP_ALIVE, Repeat
from link_kv._core.exchange import Exchange, Namespace, new_lease_id
from link_kv._core.operations import Layer, write
from link_kv._core.requests import varint
from link_kv.errors import ConfigError, LeaseLost, LinkKVError, Unavailable
from link_kv.tree import Place

log = logging.getLogger("link_kv.sessions")

Pause = Callable[[float], Awaitable[bool]]
"""Waits for some seconds, or until the keeper is told to stop: then True."""


class Flag(Protocol):
    """A `threading.Event` or an `asyncio.Event`."""

    def set(self) -> None: ...
    def clear(self) -> None: ...


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
        self._registered: dict[bytes, tuple[Place, Layer]] = {}
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
            for at, lay in list(self._registered.values()):
                await write(Exchange(self.space), at, lay, None, lease)
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

    async def put(self, at: Place, lay: Layer) -> int:
        """Write a value that goes with the lease; after a renewal it is written again."""
        self.check()
        self._registered[at.key] = at, lay
        try:
            return await write(Exchange(self.space), at, lay, None, self.id)
        except BaseException:
            self._registered.pop(at.key, None)
            raise

    def unregister(self, at: Place) -> None:
        """Do not write again what stands at or below a place."""
        for key in [key for key in self._registered if key == at.key or key.startswith(at.marker)]:
            self._registered.pop(key, None)

    async def keep(self, pause: Pause, renew: bool, lost: Flag) -> None:
        """Keep the lease alive until told to stop; ``lost`` is set while it must be taken as lost."""
        wait = self.ttl / 3
        while not await pause(wait):
            try:
                if self.alive:
                    await self.keep_alive()
                elif renew:
                    await self.grant()
                    log.warning("a session's lease was lost, and another was granted")
                    lost.clear()
                wait = self.ttl / 3
            except (LeaseLost, Unavailable) as error:
                log.warning("a session's lease could not be kept alive: %s", error)
                wait = min(1.0, self.ttl / 10)
            if not self.alive:
                self._lost = True
                lost.set()
                if not renew:
                    return
                wait = min(1.0, self.ttl / 10)
            # The deadline must not pass while nobody looks.
            wait = max(0.0, min(wait, self._expires - now()))

    async def revoke(self) -> None:
        """End the lease, with every key under it. What etcd no longer knows, or cannot be told, expires."""
        if self._pid != os.getpid() or not self.id:
            return
        lease, self.id = self.id, 0
        with contextlib.suppress(LeaseLost, Unavailable):
            await Exchange(self.space).revoke(lease)
