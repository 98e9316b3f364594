"""Work that is done again and again, on time.

The n-th tick is due at start + n · interval, however late the one before was: lateness does not add up. A
tick that comes while the work of the one before still goes on is left out, and counted.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

log = logging.getLogger("link_kv.endpoints")

_GOLDEN = 0.6180339887498949
"""Multiples of it, modulo 1, lie evenly apart however many there are."""
_SPREAD = 0.1
"""Seconds over which those that start together are spread, so that they do not crowd."""


class Ticket:
    """One piece of work in a `Scheduler`."""

    def __init__(self, what: str, work: Callable[[], object], interval: float | None) -> None:
        self.what = what
        self.interval = interval
        self.ticks = 0
        """How often the work was begun."""
        self.missed = 0
        """Ticks left out, since the work of the one before was not done."""
        self.latest = 0.0
        """Seconds by which the latest tick came late, at most."""
        self._work = work
        self._due = 0.0
        self._busy = False
        self._cancelled = False

    def cancel(self) -> None:
        """Do it no more. What is being done is done to its end."""
        self._cancelled = True

    @property
    def on(self) -> bool:
        return not self._cancelled


class Scheduler:
    """Does work at its times, each piece in a thread of a few. Starts with the first piece. Thread-safe."""

    def __init__(self, name: str, workers: int = 32) -> None:
        self._name = name
        self._workers = workers
        self._changed = threading.Condition()
        self._queue: list[tuple[float, int, Ticket]] = []
        self._numbers = itertools.count()
        self._pool: ThreadPoolExecutor | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    def every(self, interval: float, what: str, work: Callable[[], object]) -> Ticket:
        """Do work each ``interval`` seconds; the first time soon. ``what`` names it in messages."""
        ticket = Ticket(what, work, interval)
        with self._changed:
            number = next(self._numbers)
            ticket._due = time.monotonic() + (number * _GOLDEN % 1) * min(interval, _SPREAD)
            self._add(ticket, number)
        return ticket

    def once(self, delay: float, what: str, work: Callable[[], object]) -> Ticket:
        """Do work after ``delay`` seconds."""
        ticket = Ticket(what, work, None)
        with self._changed:
            ticket._due = time.monotonic() + delay
            self._add(ticket, next(self._numbers))
        return ticket

    def _add(self, ticket: Ticket, number: int) -> None:
        if self._closed:
            ticket.cancel()
            return
        if self._thread is None:
            self._pool = ThreadPoolExecutor(self._workers, f"link-kv-poll-{self._name}")
            self._thread = threading.Thread(
                target=self._run, name=f"link-kv-schedule-{self._name}", daemon=True
            )
            self._thread.start()
        heapq.heappush(self._queue, (ticket._due, number, ticket))
        self._changed.notify()

    def close(self) -> None:
        """Begin no more work, and wait for what is being done. May be called twice."""
        with self._changed:
            self._closed = True
            self._queue.clear()
            self._changed.notify()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._closed:
                    return
                now = time.monotonic()
                if not self._queue or self._queue[0][0] > now:
                    self._changed.wait(self._queue[0][0] - now if self._queue else None)
                    continue
                _, number, ticket = heapq.heappop(self._queue)
                if ticket._cancelled:
                    continue
                self._begin(ticket, now)
                if ticket.interval is not None:
                    ticket._due += ticket.interval
                    if ticket._due <= now:  # the machine slept, or was too busy
                        left_out = int((now - ticket._due) // ticket.interval) + 1
                        ticket.missed += left_out
                        ticket._due += left_out * ticket.interval
                    heapq.heappush(self._queue, (ticket._due, number, ticket))

    def _begin(self, ticket: Ticket, now: float) -> None:
        if ticket._busy:
            if not ticket.missed:
                log.warning("%s: takes longer than its interval; ticks are left out", ticket.what)
            ticket.missed += 1
            return
        ticket.latest = max(ticket.latest, now - ticket._due)
        ticket.ticks += 1
        ticket._busy = True
        assert self._pool is not None
        self._pool.submit(self._work, ticket)

    def _work(self, ticket: Ticket) -> None:
        try:
            ticket._work()
        except BaseException:  # the next tick tries again
            log.exception("%s: raised", ticket.what)
        finally:
            ticket._busy = False
