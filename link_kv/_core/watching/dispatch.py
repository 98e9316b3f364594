"""The threads that run callbacks: one, and more only while callbacks block."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable

log = logging.getLogger("link_kv.live")

Job = Callable[[], float | None]
"""Does some work. Returns when it wants to run again, by `time.monotonic`, or None when it is done."""

MAX_WORKERS = 33
PATIENCE = 0.01
"""Seconds after which a job that runs is taken to block, so that another thread takes the next."""
_IDLE = 2.0


class Dispatcher:
    """Runs jobs in the order in which they were scheduled. Thread-safe; its threads are daemons.

    A job is scheduled again only after it is done, so it never runs twice at once. Once it is hurried, what
    runs goes on to its end without letting others go first.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._ready: deque[Job] = deque()
        self._later: list[tuple[float, int, Job]] = []
        self._order = itertools.count()
        self._workers = 0
        self._busy = 0
        self._taken = 0.0
        self._hurried = False
        self._stopped = False

    @property
    def workers(self) -> int:
        """How many threads there are."""
        return self._workers

    def schedule(self, job: Job) -> bool:
        """Run a job soon. False where it has to wait, since a thread it needs could not be started."""
        with self._changed:
            self._ready.append(job)
            # Where the last one that was to be started was not, it is tried again.
            if len(self._ready) == 1 or self._workers == self._busy:
                return self._call_worker()
            return True

    def hurry(self) -> None:
        """Run soon what was to run later, since the end is near."""
        with self._changed:
            self._hurried = True
            while self._later:
                self._ready.append(heapq.heappop(self._later)[2])
            if self._ready:
                self._call_worker()

    def stop(self) -> None:
        """Run nothing more. What runs goes on to its end, and is not waited for."""
        with self._changed:
            self._stopped = True
            self._ready.clear()
            self._later.clear()
            self._changed.notify_all()

    def _call_worker(self) -> bool:
        """See to it that some thread looks at what is to be done; False when none could be started."""
        if self._workers > self._busy:
            self._changed.notify()
        elif self._workers < MAX_WORKERS and not self._stopped:
            try:
                threading.Thread(target=self._work, name="link-kv-callbacks", daemon=True).start()
            except RuntimeError:  # the process has as many as it may have, or is about to end
                return False
            self._workers += 1
        return True

    def _work(self) -> None:
        while (job := self._next()) is not None:
            while self._run(job):
                pass

    def _run(self, job: Job) -> bool:
        """Run a job once, and schedule it again when it asks for that. Whether it is to run again at once."""
        hurried, again, at_once = self._hurried, None, False
        try:
            again = job()
        except BaseException:  # a thread is not a job's to end
            with contextlib.suppress(Exception):  # nor a log handler's
                log.exception("%r raised", job)
        finally:
            with self._changed:
                if again is not None and self._hurried:
                    # One that was hurried while it ran did not know that the end is near.
                    at_once = not hurried or again <= time.monotonic()
                if not at_once:
                    self._busy -= 1
                    if again is not None and not self._stopped:
                        self._put(again, job)
        return at_once

    def _put(self, when: float, job: Job) -> None:
        if when <= time.monotonic():
            self._ready.append(job)
        else:
            heapq.heappush(self._later, (when, next(self._order), job))
        # This thread itself looks next.

    def _next(self) -> Job | None:
        """The job to do now; None when this thread is to end."""
        with self._changed:
            idle_since = time.monotonic()
            while not self._stopped:
                now = time.monotonic()
                while self._later and self._later[0][0] <= now:
                    self._ready.append(heapq.heappop(self._later)[2])
                wait: float | None
                if self._ready:
                    wait = self._taken + PATIENCE - now if self._busy else 0
                    if wait <= 0:
                        return self._take(now)
                elif self._later:
                    wait = self._later[0][0] - now
                elif self._workers - self._busy == 1:
                    wait = None  # the last one that is free stays
                elif now - idle_since >= _IDLE:
                    break
                else:
                    wait = idle_since + _IDLE - now
                self._changed.wait(wait)
            self._workers -= 1
            return None

    def _take(self, now: float) -> Job:
        job = self._ready.popleft()
        self._taken = now
        self._busy += 1
        if self._ready or self._later:
            self._call_worker()
        return job
