"""What keeps leases alive: one sender for all the leases of a client.

A keepalive is sent at a third of a lease's time to live, over one stream for all that are due. A thread and a
stream for each lease is simpler, and fails: a thousand of them, which all wake at once, take longer than the
leases live.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any, Protocol

from link_kv._core.wire.calls import KEEP_ALIVE, Caller
from link_kv._core.wire.failures import Meaning, WireFailure, meaning
from link_kv._core.wire.requests import varint
from link_kv.errors import Closed, LinkKVError

log = logging.getLogger("link_kv.sessions")

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

BATCH = 200
"""How many keepalives are sent at once."""

PATIENCE = 1.0
"""Seconds that etcd has for its answers. The shortest lease that it grants, of 2 s, must outlive that."""

AGAIN = 0.5
"""Seconds after which what failed is tried again."""

_LONGEST = 5.0
"""Seconds that are slept at once. The clock of pauses may stand still while the machine is suspended, that of
deadlines goes on: a lease that was lost meanwhile is known to be soon after, not after what was left."""


def now() -> float:
    """Seconds on a clock that goes on while the machine is suspended."""
    return time.clock_gettime(_CLOCK)


class Kept(Protocol):
    """What a keeper knows of a lease."""

    id: int
    ttl: int
    due: float
    """When the next keepalive is to be sent, or a lost lease is to be got again."""
    expires: float
    """When the lease must be taken as lost."""

    @property
    def alive(self) -> bool: ...

    def prolong(self, sent: float, granted: int) -> None:
        """Take etcd's answer to a keepalive."""

    def lose(self) -> bool:
        """Take the lease as lost; whether another is to be got."""

    async def regain(self) -> None:
        """Get another lease. Raises what the client raises."""


Pause = Callable[[float], Awaitable[bool]]
"""Waits for some seconds, or until it is woken; whether to end."""


Work = Callable[[Pause], Coroutine[Any, Any, None]]


class Run(Protocol):
    """A keeper at work, in a thread or as a task."""

    def wake(self) -> None: ...

    def end(self) -> None: ...

    async def join(self, seconds: float | None) -> None:
        """Wait until it has ended, for ``seconds`` at most."""


class Keeper:
    """Keeps the leases of one client alive. It runs while there are any. Thread-safe."""

    def __init__(self, caller: Caller, start: Callable[[Work], Run]) -> None:
        self._caller = caller
        self._start = start
        self._lock = threading.Lock()
        self._leases: dict[Kept, None] = {}
        self._run: Run | None = None
        self._turn = 0
        """Counts the runs."""
        self._failing = False

    def add(self, lease: Kept) -> None:
        """Keep a lease alive from now on."""
        with self._lock:
            self._leases[lease] = None
            if self._run is not None:
                self._run.wake()
                return
            self._turn += 1
            turn = self._turn
            try:
                self._run = self._start(lambda pause: self._keep(turn, pause))
            except BaseException:
                del self._leases[lease]
                raise

    def look(self) -> None:
        """See to the leases now."""
        with self._lock:
            if self._run is not None:
                self._run.wake()

    async def remove(self, lease: Kept, seconds: float | None) -> None:
        """Let a lease go; with the last one the run ends, which is waited for."""
        with self._lock:
            self._leases.pop(lease, None)
            run = self._run
            if self._leases or run is None:
                return
            self._run = None
            run.end()
        await run.join(seconds)

    async def _keep(self, turn: int, pause: Pause) -> None:
        try:
            while True:
                with self._lock:
                    if self._turn != turn or self._run is None:
                        return
                    if not self._leases:
                        self._run = None
                        return
                    leases = list(self._leases)
                first = min(min(lease.due, lease.expires) for lease in leases)
                # Also when there is no time to wait: it may have been told to end.
                if await pause(min(max(0.0, first - now()), _LONGEST)):
                    return
                if first <= now():
                    await self._tend(leases)
        except Closed:
            log.warning("sessions end, since their client was closed")
        finally:
            with self._lock:
                left = []
                if self._turn == turn and self._run is not None:
                    left, self._leases, self._run = list(self._leases), {}, None
            for lease in left:
                lease.lose()

    async def _tend(self, leases: Sequence[Kept]) -> None:
        alive: list[Kept] = []
        lost: list[Kept] = []
        for lease in leases:
            (alive if lease.alive else lost).append(lease)
        soon = now()
        due = [lease for lease in alive if lease.due <= soon + lease.ttl / 30]
        until = min((lease.expires for lease in alive), default=math.inf)
        for start in range(0, len(due), BATCH):
            if not await self._send(due[start : start + BATCH], until):
                break
        regained: list[Kept] = []
        for lease in lost:
            if lease.lose():
                regained.append(lease)
            else:
                with self._lock:
                    self._leases.pop(lease, None)
        # Those that wait longest come first: there may not be time for all.
        for lease in sorted(regained, key=lambda lease: lease.due):
            if lease.due > soon or any(other.alive and other.due <= now() for other in leases):
                break  # what is alive goes before what is lost
            await self._regain(lease)

    async def _send(self, leases: Iterable[Kept], until: float) -> bool:
        """Send a keepalive for each lease, and take the answers, in any order; whether all came."""
        sent = now()
        patience = max(0.05, min(PATIENCE, until - sent))
        waiting = {lease.id: lease for lease in leases}
        try:
            endpoint, stream = await self._caller.open(KEEP_ALIVE, patience)
            try:
                for number in waiting:
                    await stream.send(b"\x08" + varint(number))
                while waiting:
                    answer = await stream.receive()
                    lease = waiting.pop(answer.ID, None)
                    if lease is not None:
                        lease.prolong(sent, answer.TTL)
                self._failing = False
                return True
            except WireFailure as failure:
                if self._caller.closed:
                    raise Closed("the client was closed") from None
                trouble = failure.details or f"status {failure.code}"
                if meaning(failure) is Meaning.STALE_TOKEN:
                    await self._caller.renew_token(patience)
                else:
                    self._caller.avoid(endpoint)
            finally:
                stream.cancel()
        except Closed:
            raise
        except LinkKVError as error:
            trouble = str(error)
        self._warn("leases could not be kept alive, trying again", trouble)
        for lease in waiting.values():
            lease.due = now() + AGAIN
        return False

    async def _regain(self, lease: Kept) -> None:
        try:
            await lease.regain()
        except Closed:
            raise
        except LinkKVError as error:
            self._warn("another lease for a session could not be had, trying again", error)
            lease.due = now() + AGAIN

    def _warn(self, what: str, why: object) -> None:
        """Say it once in an outage, not each time it is tried."""
        log.log(logging.DEBUG if self._failing else logging.WARNING, "%s: %s", what, why)
        self._failing = True
