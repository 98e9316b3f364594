"""Timing two things in turn, so that a machine that speeds up or slows down does so for both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple


class Row(NamedTuple):
    """One comparison."""

    what: str
    ours: float
    theirs: float
    unit: str
    peer: str
    ratio: float
    """Ours over theirs for a time, so that less is better; the other way round where ``reach`` is a least."""
    reach: float
    at_least: bool = False

    @property
    def met(self) -> bool:
        return self.ratio >= self.reach if self.at_least else self.ratio <= self.reach


def clock(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def in_turn(
    ours: Callable[[], object], theirs: Callable[[], object], rounds: int, warm_up: int = 0
) -> tuple[float, float]:
    """The median seconds of each, run in turn."""
    for _ in range(warm_up):
        ours()
        theirs()
    times = [(clock(ours), clock(theirs)) for _ in range(rounds)]
    return statistics.median(a for a, _ in times), statistics.median(b for _, b in times)


async def in_turn_async(
    ours: Callable[[], Awaitable[object]], theirs: Callable[[], Awaitable[object]], rounds: int
) -> tuple[float, float]:
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + 1):
        for function, kept in zip((ours, theirs), times, strict=True):
            start = time.perf_counter()
            await function()
            if number:  # the first round warms up
                kept.append(time.perf_counter() - start)
    return statistics.median(times[0]), statistics.median(times[1])
