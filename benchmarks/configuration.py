"""Configurations: from a write to its being in force, a thousand parameters applied, and what a process
tells.

The peers are the bounds of the design: the settle time and 2 ms, 30 ms, and two writes a process.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from pydantic_settings import BaseSettings

from benchmarks.measure import Row, clock
from link_kv import EtcdMiddleware
from link_kv._core.configuration.applied import acknowledgements
from link_kv._core.configuration.reload import SETTLE, Following
from link_kv._core.wire.calls import run as finish
from link_kv.driver import Configurable, EtcdConfDriver, Parameter, category, watch
from link_kv.settings import follow

PARAMETERS = 1000
WRITES = 100
PROCESSES = 100


class Settings(BaseSettings):
    port: int = 8080
    name: str = ""


def run(endpoint: str) -> list[Row]:
    with EtcdMiddleware(endpoints=[endpoint], prefix="/bench-configuration") as client:
        rows = [_in_force(endpoint, client, settings=True), _in_force(endpoint, client, settings=False)]
        rows += _applied(client)
        rows.append(_told(endpoint, client))
        del client["/x.conf"], client["/settings"]
    return rows


def _configurable(client: EtcdMiddleware, names: list[str]) -> Any:
    parameters = [Parameter(name, ptype=int, value=0) for name in names]
    return Configurable(
        paths="x.conf", conf=category("C", *parameters), drivers=[EtcdConfDriver(client)], targets=[_Target()]
    )


class _Target:
    pass


def _in_force(endpoint: str, writer: EtcdMiddleware, *, settings: bool) -> Row:
    """From when a write has returned, to when another client has it in force, less the settle time."""
    with EtcdMiddleware(endpoints=[endpoint], prefix="/bench-configuration") as client:
        following: Following[Any]
        if settings:
            path, following = "/settings/port", follow(Settings, "/settings", client=client)
        else:
            path, following = "/x.conf/C/port", watch(_configurable(client, ["port"]))
        with following:
            times = []
            for number in range(WRITES):
                revision = writer.put(path, number)
                start = time.perf_counter()
                assert following.wait(revision, 10)
                times.append(time.perf_counter() - start)
                time.sleep(0.02)  # the acknowledgement is another's time
    beyond = (statistics.median(times) - SETTLE) * 1e3
    what = "in force: pydantic" if settings else "in force: b3j0f"
    return Row(what, beyond, 2.0, "ms", "2 ms beyond the settle time", beyond / 2.0, 1.0)


def _applied(client: EtcdMiddleware) -> list[Row]:
    """All parameters of a configuration changed: read as what they are, and set on an instance."""
    names = [f"p{number}" for number in range(PARAMETERS)]
    with watch(_configurable(client, names), settle=0) as following:
        times = _timed(following)
        for number in range(20):
            revision = client.put("/x.conf/C", {name: number + index for index, name in enumerate(names)})
            assert following.wait(revision, 10)
        ours = statistics.median(times) * 1e3
    configurable = _configurable(client, names)
    by_hand = _median_ms(configurable.applyconfiguration)
    by_b3j0f = _median_ms(lambda: configurable.applyconfiguration(conf=configurable.conf))
    return [
        Row("1,000 parameters, live", ours, 30.0, "ms", "30 ms", ours / 30.0, 1.0),
        Row("1,000 parameters, by hand", by_hand, 30.0, "ms", "30 ms", by_hand / 30.0, 1.0),
        Row("1,000 parameters, live", ours, by_b3j0f, "ms", "b3j0f.conf's own way", ours / by_b3j0f, 1.0),
    ]


def _median_ms(function: Callable[[], object]) -> float:
    return statistics.median(clock(function) for _ in range(5)) * 1e3


def _timed(following: Any) -> list[float]:
    """The seconds that each configuration takes from now on."""
    consider: Callable[[Any], None] = following._consider
    times: list[float] = []

    def timed(trees: Any) -> None:
        start = time.perf_counter()
        consider(trees)
        times.append(time.perf_counter() - start)

    following._consider = timed
    return times


def _told(endpoint: str, writer: EtcdMiddleware) -> Row:
    """How many revisions etcd takes for one change that a hundred followers acknowledge."""
    clients = [EtcdMiddleware(endpoints=[endpoint], prefix="/bench-configuration") for _ in range(5)]
    for number in range(PROCESSES):
        follow(Settings, "/settings", client=clients[number % len(clients)])

    def until_all_saw(revision: int) -> int:
        while True:
            now, told = finish(acknowledgements(writer._exchange(), "/settings"))
            if len(told) == PROCESSES and all(each.seen >= revision for each in told):
                return now
            time.sleep(0.05)

    until_all_saw(0)
    revision = writer.put("/settings/port", -1)
    writes = until_all_saw(revision) - revision
    for client in clients:
        client.close()
    return Row("writes a change, 100 procs", writes, 200, "", "two a process", writes / 200, 1.0)
