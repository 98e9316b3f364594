"""etcd's own history, read by a fresh watch from each member, piece by piece before it is compacted away."""

from __future__ import annotations

import time
from pathlib import Path

from tests.faults.checker import Finding, check_members
from tests.faults.cluster import Cluster
from tests.faults.records import Event, Log, Truth
from tests.live.history import Recorder, compact

_SECONDS = 120.0


class TruthReader:
    """Reads the history of a prefix from each member, and writes down what they agree on.

    What a member tells otherwise goes to a file of its own, and so does what was compacted away. ``read`` is
    the last revision that is not of interest.
    """

    def __init__(self, cluster: Cluster, prefix: str, path: Path, read: int = 0) -> None:
        self._cluster = cluster
        self._prefix = prefix
        self._path = path
        self._log = Log(path)
        self._compactions = Log(path.with_name("compactions.jsonl"))
        self.truth: Truth = []
        self.read = read
        self.findings: list[Finding] = []

    def extend(self, revision: int) -> None:
        """Read on up to a revision that changes something here. The cluster must be whole."""
        pieces: dict[str, Truth] = {}
        for member in self._cluster.members:
            with Recorder([member.endpoint], self._prefix, start=self.read + 1) as recorder:
                recorder.wait(revision, _SECONDS)
                with recorder.changed:  # it goes on, with what is no part of this piece
                    found = [(at, dict(events)) for at, events in recorder.events.items() if at <= revision]
                pieces[member.name] = [
                    (at, [self._event(recorder, key, value) for key, value in events.items()])
                    for at, events in sorted(found, key=lambda each: each[0])
                ]
        self.findings += check_members(pieces)
        piece = next(iter(pieces.values()))
        for name, other in pieces.items():
            if other != piece:
                self._keep(name, revision, other)
        for line in piece:
            self._log.note(line)
        self.truth += piece
        self.read = revision

    def _keep(self, name: str, revision: int, piece: Truth) -> None:
        """Write down what a member has instead of what the first one has."""
        log = Log(self._path.with_name(f"truth-{name}.jsonl"))
        log.note({"after": self.read, "end": revision})
        for line in piece:
            log.note(line)
        log.close()

    @staticmethod
    def _event(recorder: Recorder, key: bytes, value: bytes | None) -> Event:
        relative = key[len(recorder.prefix) :].decode()
        return relative, None if value is None else value.decode()

    def compact(self, revision: int) -> bool:
        """Forget in etcd what was read here, up to a revision at most; whether it did."""
        assert revision <= self.read
        self._compactions.note([revision, time.monotonic()])  # before: it may happen though no answer comes
        return compact(self._cluster.endpoints[0], revision)

    def close(self) -> None:
        self._log.close()
        self._compactions.close()
