"""Threads that answer requests: as many as are busy at the same time, and no more awake than needed.

A request wakes a thread only when none is looking for work already. Where requests are quick a few threads
do them all, in turn. Where they block, so that none of those that wait is taken for some milliseconds,
there are twice as many threads, and again.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable

log = logging.getLogger("link_kv.services")

_IDLE = 5.0
"""Seconds after which a thread that is not needed ends."""
_AT_ONCE = 4
"""How many threads are started as soon as they could be busy."""
_STUCK = 0.005
"""Seconds in which nothing that waits was taken, after which there are too few."""


class Workers:
    """Runs jobs, up to ``most`` at the same time. Thread-safe. What a job raises is logged. Its threads
    are daemons.
    """

    def __init__(self, name: str, most: int) -> None:
        self._name = name
        self._most = most
        self.begin_anew()

    def begin_anew(self) -> None:
        """Have no part in what the parent has, in a forked child: its threads are not there."""
        self._jobs: deque[Callable[[], object]] = deque()
        self._lock = threading.Lock()
        self._idle: deque[threading.Event] = deque()
        self._threads = 0
        self._seeking = 0
        """How many threads are awake and about to take a job."""
        self._taken = 0
        """Counts the jobs that were taken."""
        self._growing = False
        self._short = False
        """Whether a thread could not be started."""

    def add(self, job: Callable[[], object]) -> None:
        """Have a job done. Raises RuntimeError when there is no thread, and none can be started."""
        self._jobs.append(job)
        if self._seeking:
            return
        try:
            self._more()
        except RuntimeError:
            with contextlib.suppress(ValueError):
                self._jobs.remove(job)
            raise

    def _more(self) -> None:
        """Wake a thread, or start one, unless one is coming."""
        with self._lock:
            if self._seeking or not self._jobs:
                return
            if self._idle:
                self._seeking += 1
                self._idle.pop().set()
                return
            if self._threads < _AT_ONCE:
                if not self._begin(1) and not self._threads:
                    raise RuntimeError(f"{self._name}: no thread can be started")
                return
            if self._growing:
                return
            self._growing = self._start(self._grow)

    def _start(self, target: Callable[[], None]) -> bool:
        """Start a thread; False where the machine has no more. Those that there are do the work then."""
        try:
            threading.Thread(target=target, name=self._name, daemon=True).start()
        except RuntimeError as error:
            if not self._short:
                self._short = True
                log.warning("%s: goes on with the threads that it has: %s", self._name, error)
            return False
        return True

    def _begin(self, number: int) -> bool:
        """Start threads that work; whether all could be."""
        for _ in range(number):
            self._seeking += 1
            self._threads += 1
            if not self._start(self._work):
                self._seeking -= 1
                self._threads -= 1
                return False
        return True

    def _grow(self) -> None:
        """Start more threads, for as long as jobs wait and none is taken."""
        pause = threading.Event()
        while True:
            taken = self._taken
            pause.wait(_STUCK)
            with self._lock:
                if not self._jobs or self._threads >= self._most:
                    self._growing = False
                    return
                if self._taken == taken and not self._idle:
                    more = min(len(self._jobs), self._threads, self._most - self._threads)
                    if not self._begin(more):
                        self._growing = False
                        return

    def _work(self) -> None:
        woken = threading.Event()
        while True:
            with self._lock:
                self._seeking -= 1
                job = self._jobs.popleft() if self._jobs else None
                if job is None:
                    woken.clear()
                    self._idle.append(woken)
                else:
                    self._taken += 1
            if job is not None:
                if self._jobs and not self._seeking:
                    self._more()
                try:
                    job()
                except BaseException:  # a thread is not a job's to end
                    with contextlib.suppress(Exception):  # nor a log handler's
                        log.exception("%s: a job raised", self._name)
                with self._lock:
                    self._seeking += 1
                continue
            if self._jobs:
                # Came while this thread looked, and was told that one was looking.
                self._more()
            if not woken.wait(_IDLE):
                with self._lock:
                    if not woken.is_set():
                        self._idle.remove(woken)
                        self._threads -= 1
                        return
