"""Thirty endpoints at ten looks a second: memory, ticks, and every alert once."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.endpoints import ENDPOINTS, INTERVAL, measure
from link_kv import local


@pytest.mark.parametrize(
    "seconds", [3, pytest.param(600, marks=[pytest.mark.slow, pytest.mark.timeout(900)])]
)
def test_every_alert_is_heard_and_recorded_once(tmp_path: Path, seconds: int) -> None:
    with local.start(tmp_path / "data") as server:
        figures = measure(server.endpoints[0], seconds)
    print(figures._replace(idle=[]))
    assert figures.wrong == 0
    assert figures.heard == figures.recorded
    # Each tick came, or is known not to have come.
    assert figures.ticks + figures.missed >= 0.9 * ENDPOINTS * seconds / INTERVAL
    settled = figures.memory[len(figures.memory) // 4]
    assert figures.memory[-1] < 1.1 * settled + 4096
