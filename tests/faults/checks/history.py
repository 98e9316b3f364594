"""Everything that a dictionary can do, from several processes, through every fault.

Meanwhile watchers are told of it all, and mirrors and stores follow it: three outcomes of one run.
"""

from __future__ import annotations

import time
from itertools import count
from pathlib import Path

from tests.faults.checker import History, check, check_delivery
from tests.faults.mirrors import Followed
from tests.faults.programs import Clients, Process
from tests.faults.records import Log, Truth, read_delivery, read_ops
from tests.faults.run import Outcome, Run
from tests.faults.schedule import Faults
from tests.faults.truth import TruthReader
from tests.faults.workload import CLIENTS, PREFIX, connect, rotated

PROCESSES = 3
_KEPT = 1000
"""How many revisions a compaction leaves, so that not every watcher that lags must read anew."""
_LONGEST = 1.6
"""How much longer than planned it may go on, for the figures that it must reach."""


class Marks:
    """Writes that say: all before this has happened."""

    def __init__(self, endpoints: list[str], log: Log) -> None:
        self._client = connect(endpoints, timeout=30)
        self._log = log
        self._numbers = count(1)

    def put(self) -> int:
        """The revision of a write that comes after all that was acknowledged so far."""
        number = next(self._numbers)
        self._log.note([f"mark.{number}", "put", ["end", number], time.monotonic()])
        revision = self._client.put("/end", number)
        self._log.note([f"mark.{number}", time.monotonic(), "ok", None, revision])
        return revision

    def close(self) -> None:
        self._client.close()
        self._log.close()


def run(run: Run, seconds: float) -> list[Outcome]:
    directory = run.directory / "history"
    directory.mkdir()
    mirrors = Outcome("mirrors, stores")
    with run.proxies() as proxies:
        endpoints = run.cluster.endpoints
        links = [proxy.endpoint for proxy in proxies]
        both = ",".join(endpoints), ",".join(links)

        def start(number: int) -> Process:
            file = directory / f"worker-{number}.jsonl"
            return Process(
                run.directory / "log", "tests.faults.workload", str(number), str(run.seed), str(file), *both
            )

        truth = TruthReader(run.cluster, PREFIX, directory / "truth.jsonl")
        marks = Marks(endpoints, Log(directory / "worker-marks.jsonl"))
        first = marks.put()
        watchers = Process(run.directory / "log", "tests.faults.watchers", str(directory), *both, str(first))
        client = connect(rotated(links, 1))
        followed = Followed(client, run.cluster, ["/", "/t1"])
        clients = Clients(PROCESSES, start)
        try:
            watchers.ready()
            clients.others.append(watchers)

            def compact() -> None:
                truth.extend(marks.put())
                if truth.read > 2 * _KEPT:
                    truth.compact(truth.read - _KEPT)

            def compare(name: str) -> None:
                if not followed.stores:
                    followed.add_store("t0")
                mirrors.findings += followed.compare(marks.put())

            def enough() -> bool:
                return (
                    sum(faults.done.values()) >= run.profile.faults
                    and _noted(directory) >= 2 * run.profile.operations
                )

            faults = Faults(
                run.cluster, proxies, f"{run.seed} history", compact=compact, clients=clients, note=run.note
            )
            began = time.monotonic()
            faults.run(seconds, _LONGEST * seconds, enough, compare)
            took = time.monotonic() - began
            clients.finish()
            end = marks.put()
            watchers.tell(str(end))
            truth.extend(end)
            assert watchers.line() == "done", "the watchers have not been told everything: see the log"
            watchers.finish()
        finally:
            clients.close()
            followed.close()
            client.close()
            marks.close()
            truth.close()
            if watchers.running:
                watchers.kill()
    made = sum(faults.done.values())
    run.say("faults:", ", ".join(f"{number} {name}" for name, number in sorted(faults.done.items())))
    outcomes = examine(directory, truth.truth, took)
    history, watch = outcomes
    history.findings += truth.findings
    history.figures += f", {made} faults"
    history.need(_rate(history), run.profile.rate, "operations that succeeded a second")
    history.need(history.numbers["operations"], run.profile.operations, "operations")
    history.need(made, run.profile.faults, "faults")
    watch.need(watch.numbers["events"], run.profile.events, "events for each watcher")
    mirrors.figures = f"equal a Range in {followed.compared} comparisons after {made} faults"
    return [*outcomes, mirrors]


def examine(directory: Path, truth: Truth, took: float) -> list[Outcome]:
    """Hold what was written down against etcd's history."""
    began = time.monotonic()
    ops = read_ops(sorted(directory.glob("worker-*.jsonl")))
    read = time.monotonic()
    result = check(truth, ops)
    told = ", ".join(f"{number} {name}" for name, number in result.counts.most_common())
    outcome = Outcome("history", findings=result.findings)
    outcome.numbers = {"operations": len(ops), "ok": result.counts["ok"], "seconds": took}
    outcome.figures = (
        f"{len(ops)} operations of {PROCESSES} x {CLIENTS} clients in {took:.0f} s ({told}), "
        f"{_rate(outcome):.0f} ok/s, {len(truth)} revisions, checked in {time.monotonic() - read:.2f} s"
    )
    watch = Outcome("watch")
    history = History(truth)
    events = []
    gaps = 0
    for path in sorted(directory.glob("watcher-*.jsonl")):
        delivery = read_delivery(path)
        watch.findings += check_delivery(history, delivery)
        events.append(sum(len(told.changes) for told in delivery.told))
        gaps += sum(told.synthetic for told in delivery.told)
    watch.numbers = {"events": min(events, default=0)}
    watch.figures = f"{len(events)} watchers with {events} events, {gaps} gaps"
    outcome.seconds = watch.seconds = time.monotonic() - began
    return [outcome, watch]


def _rate(outcome: Outcome) -> float:
    return outcome.numbers["ok"] / outcome.numbers["seconds"]


def _noted(directory: Path) -> int:
    """How many lines the workers have written."""
    return sum(path.read_bytes().count(b"\n") for path in directory.glob("worker-*.jsonl"))
