"""Thirty endpoints, each looked at ten times a second: whether ticks come on time, what memory that takes,
and whether every alert is heard and recorded, once.

The peers are the bounds of the design: 5 % of the interval, and memory that stays as it is. What the machine
itself makes late is measured beside it: a process that does nothing but wake up as often. Served, recorded
and heard in three processes more.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.measure import Row
from link_kv import EtcdMiddleware
from link_kv.endpoints import Alerts, Endpoints, KVStoreKey

ENDPOINTS = 30
INTERVAL = 0.1
SECONDS = 20.0
PREFIX = "/bench-endpoints"
BOUND = 0.05
"""Of the interval, by which a tick may come late or early."""
BINS = 1000
"""Into which the interval is divided."""


class Counting(KVStoreKey):
    """Has another value each time, and knows when it was looked at."""

    public_methods = ("figures",)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._start = 0.0
        self._ticks = 0
        # Counted, not kept: memory is measured too.
        self._beside = [0] * (BINS // 2 + 1)

    def on_get(self, *args: Any, **kwargs: Any) -> Any:
        now = time.monotonic()
        self._start = self._start or now
        self._ticks += 1
        turn = (now - self._start) / INTERVAL % 1
        self._beside[round(min(turn, 1 - turn) * BINS)] += 1
        return self._ticks

    def figures(self) -> dict[str, Any]:
        """How many ticks came how far beside the time that they were due, and how many were left out."""
        ticket = self._kv_ticket
        return {"beside": list(self._beside), "missed": ticket.missed if ticket else 0}


class Figures(NamedTuple):
    """What was measured."""

    ticks: int
    missed: int
    """Ticks that were left out."""
    beyond: int
    """Ticks that came more than 5 % of the interval beside the time that they were due."""
    worst: float
    """Of the interval."""
    usual: float
    """Of the interval, at the 99th percentile."""
    heard: int
    """Alerts."""
    recorded: int
    """Values, by another process."""
    wrong: int
    """Alerts and values that were missing, out of order, or there twice."""
    memory: list[int]
    """Of the serving process in KiB, at even times."""
    busy: float
    """Part of a processor that the serving process took."""
    idle: list[float]
    """Of a process that does nothing: by how much its ticks came late, of the interval."""


def measure(endpoint: str, seconds: float) -> Figures:
    with tempfile.TemporaryDirectory() as name, EtcdMiddleware(endpoints=[endpoint], prefix=PREFIX) as client:
        directory = Path(name)
        parts = "\n".join(
            f"      - {{name: n{number}, module: benchmarks.endpoints.Counting}}"
            for number in range(ENDPOINTS)
        )
        (directory / "load.yaml").write_text(
            f"providers:\n  - name: load\n    module: kv_store\n    endpoints:\n{parts}\n"
        )
        here = Path(__file__).parent.parent
        command = [sys.executable, "-m", "link_kv.cli", "--endpoints", endpoint, "--prefix", PREFIX]
        environment = {**os.environ, "PYTHONPATH": str(here), "PYTHONUNBUFFERED": "1"}
        with (
            subprocess.Popen(
                [*command, "serve", "-c", str(directory / "load.yaml")],
                env=environment,
                stdout=subprocess.PIPE,
            ) as server,
            subprocess.Popen([*command, "record", "/load", "-o", str(directory / "rec.sqlite")]) as recorder,
        ):
            try:
                assert server.stdout is not None
                assert server.stdout.readline()
                return _measured(client, server, directory / "rec.sqlite", seconds)
            finally:
                for process in (recorder, server):
                    process.send_signal(signal.SIGINT)


def _measured(client: EtcdMiddleware, server: subprocess.Popen[bytes], file: Path, seconds: float) -> Figures:
    names = [f"n{number}" for number in range(ENDPOINTS)]
    heard: dict[str, list[int]] = defaultdict(list)
    with Alerts(client, ["sensor_value.*"]) as alerts, Endpoints(client) as endpoints:

        def listen() -> None:
            for alert in alerts:
                heard[alert.routing_key.removeprefix("sensor_value.")].append(alert.payload["value_raw"])

        listener = threading.Thread(target=listen)
        listener.start()
        for name in names:
            endpoints.config(name, "schedule_interval", INTERVAL)
            endpoints.config(name, "schedule_status", "on")
        memory = []
        idle = subprocess.Popen(
            [sys.executable, "-c", _IDLE, str(seconds)], stdout=subprocess.PIPE, text=True
        )
        begun, end = _processor(server.pid), time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, seconds / 20))
            memory.append(_resident(server.pid))
        busy = (_processor(server.pid) - begun) / seconds
        found = {name: endpoints.cmd(name, "figures") for name in names}
        for name in names:
            endpoints.config(name, "schedule_status", "off")
        end = time.monotonic() + 30
        while time.monotonic() < end and not _all_there(file, heard):
            time.sleep(0.2)
    listener.join()
    recorded = _recorded(file)
    wrong = sum(_wrong(heard[name]) + _wrong(recorded[name]) for name in names)
    wrong += sum(abs(len(heard[name]) - len(recorded[name])) for name in names)
    beside = [sum(counts) for counts in zip(*(each["beside"] for each in found.values()), strict=True)]
    late = [number / BINS for number, times in enumerate(beside) for _ in range(times)]
    return Figures(
        ticks=len(late),
        missed=sum(figures["missed"] for figures in found.values()),
        beyond=sum(each > BOUND for each in late),
        worst=late[-1],
        usual=late[int(len(late) * 0.99)],
        heard=sum(map(len, heard.values())),
        recorded=sum(map(len, recorded.values())),
        wrong=wrong,
        memory=memory,
        busy=busy,
        idle=sorted(float(each) / INTERVAL for each in idle.communicate()[0].split()),
    )


_IDLE = f"""
import sys, time
start, number = time.monotonic(), 0
while time.monotonic() < start + float(sys.argv[1]):
    number += 1
    due = start + number * {INTERVAL / ENDPOINTS}
    time.sleep(max(0, due - time.monotonic()))
    print(time.monotonic() - due)
"""


def _processor(pid: int) -> float:
    """Seconds of a processor that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _resident(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024


def _all_there(file: Path, heard: dict[str, list[int]]) -> bool:
    recorded = _recorded(file)
    return all(len(recorded[name]) >= len(values) for name, values in heard.items())


def _recorded(file: Path) -> dict[str, list[int]]:
    found: dict[str, list[int]] = defaultdict(list)
    database = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
    try:
        for path, value in database.execute("SELECT path, value FROM changes ORDER BY revision"):
            if path != "/load":
                found[path.rpartition("/")[2]].append(int(value))
    finally:
        database.close()
    return found


def _wrong(values: list[int]) -> int:
    """How many numbers are missing, there twice, or out of order."""
    counted = Counter(values)
    twice = sum(times - 1 for times in counted.values())
    missing = (max(values) - len(counted)) if values else 1
    unordered = sum(one > other for one, other in pairwise(values))
    return twice + missing + unordered


def run(endpoint: str) -> list[Row]:
    figures = measure(endpoint, SECONDS)
    idle = figures.idle
    print(f"{figures._replace(memory=[figures.memory[0], figures.memory[-1]], idle=[])}")
    beyond = sum(each > BOUND for each in idle)
    print(f"idle: 99 % {idle[int(len(idle) * 0.99)]:.3f}, beyond {beyond} of {len(idle)}")
    grown = figures.memory[-1] / figures.memory[len(figures.memory) // 4]
    usual, ticks = figures.usual * 100, float(figures.ticks)
    return [
        Row("endpoints: 99 % on time", usual, 5.0, "%", "5 % of the interval", usual / 5.0, 1.0),
        Row("endpoints: beyond 5 %", figures.beyond, ticks, "", "all ticks", figures.beyond / ticks, 0.01),
        Row(
            "endpoints: recorded",
            figures.recorded,
            figures.heard,
            "",
            "alerts heard",
            figures.recorded / max(1, figures.heard),
            1.0,
            True,
        ),
        Row("endpoints: memory", grown, 1.0, "", "a quarter into the run", grown, 1.05),
    ]
