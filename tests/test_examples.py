"""The programs in examples/, as they stand there."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType

import pytest

from link_kv import EtcdMiddleware, local

from .processes import until

EXAMPLES = Path(__file__).parent.parent / "examples"
DRAWN = r" (-?\d+\.\d\d) █"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Program:
    """One that runs, and the lines that it has written so far."""

    def __init__(self, name: str, *args: str, endpoint: str) -> None:
        self.lines: list[str] = []
        environment = {name: value for name, value in os.environ.items() if not name.startswith("LINK_KV_")}
        self._process = subprocess.Popen(
            [sys.executable, str(EXAMPLES / f"{name}.py"), *args],
            env={
                **environment,
                "LINK_KV_ENDPOINTS": endpoint,
                "LINK_KV_TIMEOUT": "2",
                "PYTHONIOENCODING": "utf-8",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self.lines.append(line)

    def stop(self) -> int:
        self._process.send_signal(signal.SIGINT)
        status = self._process.wait(30)
        self._reader.join(30)
        return status

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join(30)

    def numbers(self, pattern: str) -> list[float]:
        return [float(found[1]) for line in self.lines[:] if (found := re.search(pattern, line))]


def test_a_temperature_is_plotted_through_a_restart(tmp_path: Path) -> None:
    with local.start(tmp_path / "data") as server:
        endpoint = server.endpoints[0]
        port = int(endpoint.rpartition(":")[2])
        thermometer = Program("thermometer", "--period", "0.02", endpoint=endpoint)
        plot = None
        try:
            until(lambda: len(thermometer.lines) > 3, 60)
            plot = Program("terminal_plot", endpoint=endpoint)
            until(lambda: len(plot.lines) > 20, 60)
            server.stop()
            until(lambda: any("stale" in line for line in plot.lines), 60)
            with local.start(tmp_path / "data", port=port):
                until(lambda: any("live" in line for line in plot.lines), 60)
                seen = len(plot.lines)
                until(lambda: len(plot.lines) > seen + 20, 60)
                assert thermometer.stop() == 0
                last = thermometer.numbers(r"^ *(\S+) ")[-1]
                # It may have been interrupted between writing one more and saying so.
                until(lambda: last in plot.numbers(DRAWN)[-2:], 60)
                assert plot.stop() == 0
        finally:
            thermometer.kill()
            if plot is not None:
                plot.kill()
        drawn = plot.numbers(DRAWN)
        written = thermometer.numbers(r"^ *(\S+) written")
        # All that was written since it began was drawn, in order. A value may have come more than once.
        starts = [index for index, value in enumerate(written) if value == drawn[0]]
        assert any(is_part(written[start:], drawn) for start in starts)


def is_part(some: list[float], numbers: list[float]) -> bool:
    """Whether these are among the numbers, in the same order."""
    rest = iter(numbers)
    return all(value in rest for value in some)


def test_a_curve_has_a_column_for_each_value() -> None:
    plot = load("terminal_plot")
    assert plot.curve([], 80) == "no value yet"
    rows = plot.curve([1, 2, 3], 80, rows=3).split("\n")
    assert rows == ["    3.00 ┤  ●", "    2.00 ┤ ● ", "    1.00 ┤●  "]
    assert all(len(row) == 20 for row in plot.curve(range(100), 20).split("\n"))
    assert "●" in plot.curve([5, 5], 80)
    assert (plot.bar(0, 0, 1), len(plot.bar(1, 0, 1)), plot.bar(1, 1, 1)) == ("█", 40, "█")


def test_what_is_described(etcd_client: EtcdMiddleware) -> None:
    thermometer = load("thermometer")
    item = thermometer.thermometer(etcd_client)
    item.set(thermometer.measure(0))
    assert (item.formatted, item.description.units) == ("20.00", "degC")
    assert thermometer.thermometer(etcd_client) is item
    assert all(-50 < thermometer.measure(number) < 150 for number in range(1000))
    with pytest.raises(ValueError, match="outside of its range"):
        item.set(1000)
