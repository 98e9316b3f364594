"""How long the machine let a thread rest: what explains that something else came late."""

from __future__ import annotations

import threading
import time

from tests.faults.run import Outcome

_SLEEP = 0.05


class Stalls:
    """Measures it from beginning to end, by a thread that sleeps and looks how late it wakes."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._measure, daemon=True)

    def __enter__(self) -> Stalls:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _measure(self) -> None:
        before = time.monotonic()
        while not self._stop.wait(_SLEEP):
            now = time.monotonic()
            self.longest = max(self.longest, now - before - _SLEEP)
            before = now

    def demand(self, outcome: Outcome, took: float, bound: float, check: str, detail: str) -> None:
        """Something is to take no longer than this. Where the machine explains it, the check says nothing."""
        if bound < took <= bound + self.longest:
            outcome.void = (
                outcome.void or f"{check}, {detail}, on a machine that stood for {self.longest:.1f} s"
            )
        else:
            outcome.demand(took <= bound, check, detail)
