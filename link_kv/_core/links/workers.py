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
        self._jobs: deque[Callable[[], object]] = deque()
        self._lock = threading.Lock()
        self._idle: deque[threading.Event] = deque()
        self._threads = 0
        self._seeking = 0
        """How many threads are awake and about to take a job."""
        self._taken = 0
        """Counts the jobs that were taken."""
        self._growing = False

    def add(self, job: Callable[[], object]) -> None:
        """Have a job done."""
        self._jobs.append(job)
        if not self._seeking:
            self._more()

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
                self._begin(1)
                return
            if self._growing:
                return
            self._growing = True
        threading.Thread(target=self._grow, name=self._name, daemon=True).start()

    def _begin(self, number: int) -> None:
        self._seeking += number
        self._threads += number
        for _ in range(number):
            threading.Thread(target=self._work, name=self._name, daemon=True).start()

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
                    self._begin(min(len(self._jobs), self._threads, self._most - self._threads))

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
