"""A part of etcd in which all that is written is written down, and read back from etcd's own history."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from link_kv.errors import OutcomeUnknown
from tests.faults.checker import Finding, History, check, check_delivery, check_members, written
from tests.faults.cluster import Cluster
from tests.faults.records import (
    Log,
    Truth,
    read_compactions,
    read_delivery,
    read_ops,
    read_pieces,
    read_truth,
)
from tests.faults.run import Outcome
from tests.faults.truth import TruthReader
from tests.faults.workload import connect


class Arena:
    """A prefix on a cluster, and a directory for what is written down of it."""

    def __init__(self, cluster: Cluster, prefix: str, directory: Path) -> None:
        directory.mkdir()
        self.directory = directory
        self._client = connect(cluster.endpoints, prefix, timeout=30)
        self._log = Log(directory / "worker-marks.jsonl")
        self._numbers = count(1)
        self.start = self.mark()
        self.truth = TruthReader(cluster, prefix, directory / "truth.jsonl", self.start - 1)

    def mark(self) -> int:
        """The revision of a write that comes after all that was acknowledged so far."""
        while True:
            number = next(self._numbers)
            self._log.note([f"mark.{number}", "put", ["end", number], time.monotonic()])
            try:
                revision = self._client.put("/end", number)
            except OutcomeUnknown as error:  # as after a fault
                told = f"{type(error).__name__}: {error}"
                self._log.note([f"mark.{number}", time.monotonic(), "unknown", told, None])
                continue
            self._log.note([f"mark.{number}", time.monotonic(), "ok", "", revision])
            return revision

    def log(self, number: int) -> Path:
        """Where a worker writes down what it does."""
        return self.directory / f"worker-{number}.jsonl"

    def noted(self) -> int:
        """How many operations were begun, about."""
        return sum(path.read_bytes().count(b"\n") for path in self.directory.glob("worker-*.jsonl")) // 2

    def close(self) -> None:
        self._client.close()
        self._log.close()
        self.truth.close()


def examine(directory: Path, truth: Truth | None = None) -> tuple[Outcome, Outcome]:
    """Hold what was written down against etcd's history: what clients did, and what watchers were told.

    Without the history, that of the file is taken, and what members told otherwise.
    """
    done, seen = Outcome("history"), Outcome("watch")
    if truth is None:
        truth = read_truth(directory / "truth.jsonl")
        done.findings += _divergences(directory, truth)
    compactions = read_compactions(directory / "compactions.jsonl")
    ops = read_ops(sorted(directory.glob("worker-*.jsonl")))
    read = time.monotonic()
    history = History(truth)
    result = check(history, ops, compactions)
    took = time.monotonic() - read
    done.findings += result.findings
    writes = Counter(op.outcome for op in ops if written(op))
    done.numbers = {
        "operations": len(ops),
        "in doubt": writes["unknown"],
        "refused": writes["not applied"],
        **result.counts,
    }
    told = ", ".join(f"{number} {name}" for name, number in result.counts.most_common())
    done.figures = f"{len(ops)} operations ({told}), {len(truth)} revisions, checked in {took:.2f} s"
    events, gaps = [], 0
    for path in sorted(directory.glob("watcher-*.jsonl")):
        delivery = read_delivery(path)
        seen.findings += check_delivery(history, delivery, compactions)
        events.append(sum(len(told.changes) for told in delivery.told if not told.synthetic))
        gaps += sum(told.synthetic for told in delivery.told)
    seen.numbers = {"events": min(events, default=0), "gaps": gaps}
    seen.figures = f"{len(events)} watchers with {', '.join(map(str, events))} events, {gaps} gaps"
    return done, seen


def _divergences(directory: Path, truth: Truth) -> Iterator[Finding]:
    """Where a member has another history than the first."""
    for path in sorted(directory.glob("truth-*.jsonl")):
        for piece in read_pieces(path):
            first = [(revision, events) for revision, events in truth if piece.after < revision <= piece.end]
            yield from check_members({"the first": first, path.stem.removeprefix("truth-"): piece.truth})
