"""Signals as one interrupt that is raised where it can be caught, and that is not lost."""

from __future__ import annotations

import math
import signal
import sys
import time
from types import FrameType
from typing import Any

_ONE_SECONDS = 1.0
_LATER_SECONDS = 0.001
_TICK_SECONDS = 1.0


class Interrupts:
    """Raises KeyboardInterrupt in the main thread for SIGINT, SIGTERM and the terminal's end, from when it
    is made until `ignore`.

    Once for signals that come close together: programs that run others often pass one Ctrl-C on as two, and
    the second would hit the cleaning up.
    """

    def __init__(self) -> None:
        self._last = -math.inf
        self._due = False
        """Whether one could not be raised where it came, and an alarm is set for it."""
        # Shells start background commands with SIGINT ignored; those must be stoppable. nohup means it.
        nohup = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        self._numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGALRM, *([] if nohup else [signal.SIGHUP])]
        sys.unraisablehook = self._unraisable
        for number in self._numbers:
            signal.signal(number, self._come)
        # One that comes just before the main thread begins to wait is handled only when something wakes it.
        signal.setitimer(signal.ITIMER_REAL, _TICK_SECONDS, _TICK_SECONDS)

    def ignore(self) -> None:
        """Ignore them from now on.

        The interpreter ends with the defaults: an interrupt that comes twice would be what killed it.
        """
        for number in self._numbers:
            signal.signal(number, signal.SIG_IGN)

    def _come(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGALRM and not self._due:
            return  # a tick
        if frame is not None and frame.f_code.co_filename == "<string>":
            # As dataclasses and named tuples run one when they are made. What leaves such a string is for
            # `python -m` an interrupt that nobody caught, whoever catches it: the process would die of it.
            self._raise_later()
            return
        self._due = False
        now = time.monotonic()
        if now - self._last > _ONE_SECONDS:
            self._last = now
            raise KeyboardInterrupt

    def _raise_later(self) -> None:
        self._due = True
        signal.setitimer(signal.ITIMER_REAL, _LATER_SECONDS, _TICK_SECONDS)

    def _unraisable(self, raised: Any) -> None:
        if issubclass(raised.exc_type, KeyboardInterrupt):  # within a __del__, say, where nobody can catch it
            self._last = -math.inf
            self._raise_later()
        elif "ignored due to race condition" not in str(raised.exc_value):  # one that came with `ignore`
            sys.__unraisablehook__(raised)
