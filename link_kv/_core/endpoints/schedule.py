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

log = logging.getLogger("link_kv.endpoints")

LONGEST = 366 * 86_400.0
"""Seconds that something may be scheduled ahead; threads cannot wait for any length of time."""

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
        self._failure = ""
        """What the work raised last."""

    def cancel(self) -> None:
        """Do it no more. What is being done is done to its end."""
        self._cancelled = True

    @property
    def on(self) -> bool:
        return not self._cancelled


class Scheduler:
    """Does work at its times, in as many threads as there is work at once. Thread-safe.

    One idle thread waits for the next tick and does its work itself, since handing it to another would come
    later; before that it lets the next one wait.
    """

    def __init__(self, name: str, threads: int = 32) -> None:
        self._name = name
        self._most = threads
        self._changed = threading.Condition()
        self._leading = threading.Lock()
        """Held by the thread that waits for the next tick."""
        self._queue: list[tuple[float, int, Ticket]] = []
        self._numbers = itertools.count()
        self._threads: list[threading.Thread] = []
        self._doing: dict[Ticket, threading.Thread] = {}
        self._idle = 0
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
        heapq.heappush(self._queue, (ticket._due, number, ticket))
        if not self._threads:
            self._start()
        self._changed.notify()

    def _start(self) -> None:
        number = len(self._threads) + 1
        thread = threading.Thread(target=self._run, name=f"link-kv-poll-{self._name}-{number}", daemon=True)
        thread.start()
        self._threads.append(thread)
        self._idle += 1

    def close(self, seconds: float = 5.0) -> None:
        """Begin no more work, and wait for what is being done, for some seconds at most. May be called
        twice.
        """
        end = time.monotonic() + seconds
        with self._changed:
            self._closed = True
            self._queue.clear()
            self._changed.notify()
            threads = list(self._threads)
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, end - time.monotonic()))
        with self._changed:
            for ticket, thread in self._doing.items():
                if thread is not threading.current_thread():
                    log.error("%s: is not done yet, and is not waited for any more", ticket.what)

    def _run(self) -> None:
        while True:
            with self._leading:
                ticket = self._next()
            if ticket is None:
                return
            _do(ticket)
            with self._changed:
                ticket._busy = False
                del self._doing[ticket]
                self._idle += 1

    def _next(self) -> Ticket | None:
        """Wait for the next tick that has work to begin; None at the end."""
        with self._changed:
            while not self._closed:
                now = time.monotonic()
                if not self._queue or self._queue[0][0] > now:
                    self._changed.wait(self._queue[0][0] - now if self._queue else None)
                    continue
                _, number, ticket = heapq.heappop(self._queue)
                if ticket._cancelled:
                    continue
                begun = _begin(ticket, now)
                if ticket.interval is not None:
                    ticket._due += ticket.interval
                    if ticket._due <= now:  # the machine slept, or was too busy
                        left_out = int((now - ticket._due) // ticket.interval) + 1
                        ticket.missed += left_out
                        ticket._due += left_out * ticket.interval
                    heapq.heappush(self._queue, (ticket._due, number, ticket))
                if begun:
                    self._idle -= 1
                    self._doing[ticket] = threading.current_thread()
                    if not self._idle and len(self._threads) < self._most:
                        try:
                            self._start()
                        except RuntimeError:  # no more threads are to be had: those there are do the work
                            log.exception("%s: no thread could be started", self._name)
                    return ticket
            return None


def _do(ticket: Ticket) -> None:
    """Do the work. What it raises is logged once, not at each tick at which it is the same."""
    try:
        ticket._work()
    except BaseException as raised:  # the next tick tries again
        try:
            failure = repr(raised)
        except Exception:  # noqa: BLE001 - an exception of somebody's own, that cannot be shown
            failure = type(raised).__name__
        if failure != ticket._failure:
            log.exception("%s: raised", ticket.what)
        ticket._failure = failure
    else:
        if ticket._failure:
            log.warning("%s: works again", ticket.what)
        ticket._failure = ""


def _begin(ticket: Ticket, now: float) -> bool:
    if ticket._busy:
        if not ticket.missed:
            log.warning("%s: takes longer than its interval; ticks are left out", ticket.what)
        ticket.missed += 1
        return False
    ticket.latest = max(ticket.latest, now - ticket._due)
    ticket.ticks += 1
    ticket._busy = True
    return True
