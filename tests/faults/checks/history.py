"""Everything that a dictionary can do, from several processes, through every fault."""

from __future__ import annotations

import time
from itertools import count

from tests.faults.checker import check
from tests.faults.programs import Clients, Process
from tests.faults.records import Log, read_ops
from tests.faults.run import Outcome, Run
from tests.faults.schedule import Faults
from tests.faults.truth import TruthReader
from tests.faults.workload import CLIENTS, PREFIX, connect

PROCESSES = 3
_KEPT = 1000
"""How many revisions a compaction leaves, so that not every watcher that lags must read anew."""


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


def run(run: Run, seconds: float) -> list[Outcome]:
    outcome = Outcome("history")
    directory = run.directory / "history"
    directory.mkdir()
    endpoints = run.cluster.endpoints
    with run.proxies() as proxies:

        def start(number: int) -> Process:
            return Process(
                run.directory / "log",
                "tests.faults.workload",
                str(number),
                str(run.seed),
                str(directory / f"worker-{number}.jsonl"),
                ",".join(endpoints),
                ",".join(proxy.endpoint for proxy in proxies),
            )

        truth = TruthReader(run.cluster, PREFIX, directory / "truth.jsonl")
        marks = Marks(endpoints, Log(directory / "worker-marks.jsonl"))
        clients = Clients(PROCESSES, start)
        try:

            def compact() -> None:
                truth.extend(marks.put())
                if truth.read > 2 * _KEPT:
                    truth.compact(truth.read - _KEPT)

            faults = Faults(
                run.cluster, proxies, f"{run.seed} history", compact=compact, clients=clients, note=run.note
            )
            began = time.monotonic()
            faults.run(seconds)
            took = time.monotonic() - began
            clients.finish()
            truth.extend(marks.put())
        finally:
            clients.close()
            marks.close()
            truth.close()
    ops = read_ops(sorted(directory.glob("worker-*.jsonl")))
    began = time.monotonic()
    result = check(truth.truth, ops)
    outcome.findings += [*truth.findings, *result.findings]
    made = sum(faults.done.values())
    told = ", ".join(f"{number} {name}" for name, number in result.counts.most_common())
    outcome.figures = (
        f"{len(ops)} operations of {PROCESSES} x {CLIENTS} clients in {took:.0f} s ({told}), "
        f"{result.counts['ok'] / took:.0f} ok/s, {len(truth.truth)} revisions, {made} faults; "
        f"{len(outcome.findings)} anomalies, checked in {time.monotonic() - began:.2f} s"
    )
    run.say("faults:", ", ".join(f"{number} {name}" for name, number in sorted(faults.done.items())))
    outcome.need(result.counts["ok"] / took, run.profile.rate, "operations that succeeded a second")
    outcome.need(len(ops), run.profile.operations, "operations")
    outcome.need(made, run.profile.faults, "faults")
    return [outcome]
