"""Until when answers are waited for that nobody waits for in a thread of his own."""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, NamedTuple

log = logging.getLogger("link_kv.links")


class _Bound(NamedTuple):
    when: float
    number: int
    future: Future[Any]
    late: Callable[[], object]


class Bounds:
    """Calls a function for each future that is not done in time, in one thread for all of them.

    Thread-safe. The thread is a daemon, and ends when nothing is left to wait for.
    """

    def __init__(self) -> None:
        self.begin_anew()

    def begin_anew(self) -> None:
        """Have no part in what the parent has, in a forked child."""
        self._changed = threading.Condition(threading.Lock())
        self._heap: list[_Bound] = []
        self._numbers = itertools.count()
        self._done = 0
        """How many in the heap are done."""
        self._running = False

    def add(self, when: float, future: Future[Any], late: Callable[[], object]) -> None:
        """Call ``late`` when a future is not done at ``when``, of `time.monotonic`."""
        with self._changed:
            heapq.heappush(self._heap, _Bound(when, next(self._numbers), future, late))
            if not self._running:
                self._running = self._start()
            elif self._heap[0].future is future:
                self._changed.notify()
        Future.add_done_callback(future, self._count)

    def _start(self) -> bool:
        try:
            threading.Thread(target=self._work, name="link-kv-bounds", daemon=True).start()
        except RuntimeError as error:  # the call was sent, and its future is there
            log.warning("timeouts of calls are told late: %s", error)
            return False
        return True

    def _count(self, _: object) -> None:
        """Let go of what is done, once that is most of it: its time may be far away."""
        with self._changed:
            self._done += 1
            if 2 * self._done > len(self._heap):
                self._heap = [each for each in self._heap if not each.future.done()]
                heapq.heapify(self._heap)
                self._done = 0
                self._changed.notify()

    def _work(self) -> None:
        while True:
            with self._changed:
                while self._heap and (left := self._heap[0].when - time.monotonic()) > 0:
                    self._changed.wait(min(left, threading.TIMEOUT_MAX))
                if not self._heap:
                    self._running = False
                    return
                bound = heapq.heappop(self._heap)
                self._done -= bound.future.done()
            bound.late()


BOUNDS = Bounds()
"""Those of this process."""
os.register_at_fork(after_in_child=BOUNDS.begin_anew)
