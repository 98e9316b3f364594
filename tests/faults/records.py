"""What is written down while a run goes on, a line each, so that a run can be checked again later.

Values are numbers, and each is written once in all of a run: so the revision that holds it is where its write
took effect. Times are of one clock, that all processes of a machine share.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

Json = Any


class Op(NamedTuple):
    """One operation of a client, and what it was told."""

    id: str
    kind: str
    args: list[Any]
    began: float
    ended: float | None = None
    """None when nobody was told: its process was killed."""
    outcome: str = "unknown"
    """``ok``; ``unknown``; ``not applied``; or the name of an error that tells of the state."""
    result: Any = None

    @property
    def ok(self) -> bool:
        return self.outcome == "ok"


class Told(NamedTuple):
    """What a watcher was told of one revision: path, value, previous value; None where there is none."""

    revision: int
    changes: list[tuple[str, Any, Any]]
    synthetic: bool = False


class Delivery(NamedTuple):
    """All that one watcher of a path was told, from after a revision up to another."""

    name: str
    path: str
    start: int
    end: int
    told: list[Told]


Event = tuple[str, str | None]
"""A key, relative to the prefix, and its new value; None when it was deleted."""

Truth = list[tuple[int, list[Event]]]
"""What etcd itself holds: each revision, and all that it did."""


class Log:
    """A file of lines. Each is in the file before `note` returns: its writer may be killed at any time."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def note(self, line: Json) -> None:
        os.write(self._file, json.dumps(line, separators=(",", ":")).encode() + b"\n")

    def close(self) -> None:
        os.close(self._file)


def lines(path: Path) -> Iterator[Json]:
    """The lines of a file, but for one that its writer did not come to finishing."""
    with path.open() as file:
        for line in file:
            if line.endswith("\n"):
                yield json.loads(line)


def read_ops(paths: Iterable[Path]) -> list[Op]:
    """The operations that processes wrote down, each as it began and, later, as it ended."""
    found: dict[str, Op] = {}
    for path in paths:
        for line in lines(path):
            if len(line) == 4:
                name, kind, args, began = line
                found[name] = Op(name, kind, args, began)
            else:
                name, ended, outcome, _, result = line
                found[name] = found[name]._replace(ended=ended, outcome=outcome, result=result)
    return list(found.values())


def read_delivery(path: Path) -> Delivery:
    """What one watcher wrote down: who it is and where it began, what it was told, where it ended."""
    head, *rest = lines(path)
    *told, tail = rest
    return Delivery(head["name"], head["path"], head["start"], tail["end"], [as_told(line) for line in told])


def as_told(line: Json) -> Told:
    revision, synthetic, changes = line
    return Told(revision, [(path, value, previous) for path, value, previous in changes], bool(synthetic))


def read_truth(path: Path) -> Truth:
    return [(revision, [(key, value) for key, value in events]) for revision, events in lines(path)]
