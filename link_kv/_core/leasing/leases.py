"""Leases that are kept alive, and that know when they may be lost.

The blocking session and the asyncio one are thin façades of `Lease`.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, Protocol, TypeVar

from link_kv._core import operations
from link_kv._core.leasing.keeper import AGAIN, PATIENCE, Keeper, now
from link_kv._core.operations import Layer, layer, not_root, without, write
from link_kv._core.wire.exchange import Exchange, Namespace, new_lease_id
from link_kv.errors import Closed, ConfigError, LeaseLost, LinkKVError, LockLost, NoSpace, Unavailable
from link_kv.tree import Place

log = logging.getLogger("link_kv.sessions")

LET_GO = 2.0
"""Seconds that are spent on ending a lease which ends by itself soon, and `_TRY` more at most."""

_TRY = 0.5
"""Seconds that etcd has at least to end a lease, however few are left."""


def checked_ttl(ttl: float) -> float:
    if isinstance(ttl, bool) or not isinstance(ttl, (int, float)) or not 1 <= ttl <= 9_000_000_000:
        raise ConfigError(f"ttl={ttl!r}: a lease lives for a number of seconds, at least 1")
    return ttl


class Flag(Protocol):
    """A `threading.Event` or an `asyncio.Event`."""

    def set(self) -> None: ...
    def clear(self) -> None: ...


E = TypeVar("E", bound=Flag)


class Lease(Generic[E]):
    """A lease, kept alive at a third of its time to live, and what was put under it.

    The deadline is counted from when the last keepalive was sent. Once it has passed the lease stays lost,
    whatever etcd answers later. Only the process that made a lease keeps it alive, and ends it.
    """

    def __init__(
        self, space: Namespace, ttl: float, renew: bool, lost: E, find_keeper: Callable[[], Keeper]
    ) -> None:
        self._space = space
        self._wanted = checked_ttl(ttl)
        self._renew = renew
        self._pid = os.getpid()
        self._find_keeper = find_keeper
        self._keeper: Keeper | None = None
        self._registered: dict[bytes, tuple[Place, Layer]] = {}
        self._changes = threading.Lock()
        """Held, and for moments only, by what changes the state below."""
        self._writing = 0
        """How many writes under the lease are under way: it is not renewed meanwhile."""
        self._gone = False
        self.closed = False
        self.lost = lost
        self.id = 0
        self.ttl = 0
        self.due = math.inf
        self.expires = 0.0

    @property
    def alive(self) -> bool:
        return self.trouble() is None

    def check(self) -> None:
        if trouble := self.trouble():
            raise LeaseLost(f"session: {trouble}")

    def trouble(self) -> str | None:
        """Why the lease is not to be relied on."""
        if self._pid != os.getpid():
            return "belongs to the process that made it, and this one was forked; make another here"
        if self.closed:
            return "is closed"
        if not self.id:
            return "is not open"
        if self._gone:
            return "the lease is lost"
        if now() >= self.expires:
            return f"the lease of {self.ttl} s was not kept alive in time, so it is lost"
        return None

    # The verbs

    async def open(self, seconds: float | None = None) -> None:
        """Get the lease, within ``seconds`` at most. Does nothing when it is open."""
        if self.closed:
            raise Closed("the session was closed; make another")
        if self.id:
            return
        try:
            await self._grant(seconds)
            self._keeper = self._find_keeper()
            self._keeper.add(self)
        except BaseException:
            if self.id:
                await self.close()
            raise

    async def put(self, path: str, value: Any) -> int:
        at = self._space.place(path)
        not_root(at, "assigned")
        return await self.put_at(at, value)

    async def put_at(self, at: Place, value: Any) -> int:
        """Write at a place, which may be one that no path names."""
        ex = Exchange(self._space)
        lay = layer(value, at)
        with self._write():
            revision = await write(ex, at, lay, None, self.id)
            self._forget(at)
            self._registered[at.key] = at, lay
            return revision

    async def delete(self, path: str) -> int:
        ex = Exchange(self._space)
        at = ex.place(path)
        with self._write():
            revision = await operations.delete(ex, path)
            self._forget(at)
            for key, (above, lay) in list(self._registered.items()):
                if at.key.startswith(above.marker):
                    left = without(lay, above, at)
                    if left is None:
                        del self._registered[key]
                    else:
                        self._registered[key] = above, left
            return revision

    @contextmanager
    def _write(self) -> Iterator[None]:
        self.check()
        with self._changes:
            self.check()
            self._writing += 1
        try:
            yield
        except LeaseLost as error:
            if not isinstance(error, LockLost) and self._keeper is not None:
                self._gone, self.due = True, now()
                self._keeper.look()
            raise
        finally:
            with self._changes:
                self._writing -= 1

    async def close(self, seconds: float | None = None) -> bool:
        """End the lease, within ``seconds`` or little more; False when etcd did not know it any more.

        It is tried in any case: the process may have stood still meanwhile. Cancelling does not stop this.
        """
        if self._pid != os.getpid():
            return False
        self.closed = True
        return await self._space.caller.wire.finish(self._close(seconds))

    async def _close(self, seconds: float | None) -> bool:
        began = time.monotonic()
        if self._keeper is not None:
            await self._keeper.remove(self, seconds)
        with self._changes:
            lease, self.id = self.id, 0
        try:
            if lease:
                left = None if seconds is None else max(_TRY, seconds - (time.monotonic() - began))
                await self._exchange(left).revoke(lease)
        except LeaseLost:
            return False
        except LinkKVError as error:
            log.warning("a session's lease could not be ended, and expires within %d s: %s", self.ttl, error)
        finally:
            self.lost.set()
        return True

    def _forget(self, at: Place) -> None:
        """Do not write again what stood at or below a place."""
        for key in [key for key in self._registered if key == at.key or key.startswith(at.marker)]:
            del self._registered[key]

    # What the keeper calls

    def prolong(self, sent: float, granted: int) -> None:
        """Take etcd's answer to a keepalive that was sent at a time."""
        if granted <= 0:
            log.warning("etcd does not know a session's lease any more")
            self._gone = True
        elif now() >= self.expires:
            # Whoever asked meanwhile was told that it is lost, and may have acted on that.
            log.warning("a session's lease is lost: etcd's answer came after its deadline")
            self._gone = True
        else:
            self.expires, self.due = sent + granted, sent + granted / 3

    def lose(self) -> bool:
        """Take the lease as lost; whether another is to be got."""
        if self.closed:
            return False
        self._gone = True
        if self.expires != math.inf:
            self.expires, self.due = math.inf, now()
            log.warning("a session's lease of %d s was lost", self.ttl)
            self.lost.set()
        return self._renew

    async def regain(self) -> None:
        """Get another lease, and write again what was put under the one before."""
        with self._changes:
            if self._writing:
                self.due = now() + AGAIN  # those writes are about to fail
                return
        await self._grant(PATIENCE)
        log.warning("a session got another lease")

    async def _grant(self, seconds: float | None) -> None:
        lease, sent, granted = new_lease_id(), now(), 0
        try:
            granted = await self._exchange(seconds).grant(lease, self._wanted)
            for at, lay in self._registered.values():
                await self._restore(at, lay, lease, seconds)
            with self._changes:
                if not self.closed:
                    self.id, self.ttl = lease, granted
                    self.expires, self.due = sent + granted, sent + granted / 3
                    self._gone = False
                    self.lost.clear()
                    return
        except BaseException:
            if granted and self.id != lease:  # else `grant` has seen to it, or `close` will
                await Exchange(self._space).abandon(lease)
            raise
        await Exchange(self._space).abandon(lease)

    async def _restore(self, at: Place, lay: Layer, lease: int, seconds: float | None) -> None:
        try:
            await write(self._exchange(seconds), at, lay, None, lease)
        except (Unavailable, LeaseLost, NoSpace, Closed):
            raise
        except LinkKVError as error:
            log.error("%s: could not be written again under a session's new lease: %s", at.path, error)

    def _exchange(self, seconds: float | None) -> Exchange:
        ex = Exchange(self._space)
        if seconds is not None:
            ex.deadline = min(ex.deadline, time.monotonic() + seconds)
        return ex


class SessionBase(Generic[E]):
    """What the blocking session and the asyncio one show alike."""

    def __init__(self, lease: Lease[E]) -> None:
        self._lease = lease

    @property
    def lease(self) -> int:
        """The lease's id, another one after a renewal; 0 when closed."""
        return self._lease.id

    @property
    def ttl(self) -> int:
        """The seconds that etcd granted, often more than was asked for."""
        return self._lease.ttl

    @property
    def lost(self) -> E:
        """An event, set while the lease must be taken as lost, and when the session was closed."""
        return self._lease.lost

    @property
    def alive(self) -> bool:
        """Whether the lease is certainly still there, and this process is its own."""
        return self._lease.alive

    def check(self) -> None:
        """Raise `LeaseLost` unless the lease is certainly still there, and this process is its own."""
        self._lease.check()

    def __repr__(self) -> str:
        lease = self._lease
        return f"<Session {lease.id:x} {lease.trouble() or 'alive'}, ttl {lease.ttl} s>"
