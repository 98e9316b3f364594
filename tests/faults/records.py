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
    """``ok``; ``unknown``; ``not applied``; ``untyped``; or the name of a refusal."""
    result: Any = None
    error: str = ""
    """What was raised, where that was written down."""

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

Compactions = list[tuple[int, float]]
"""The revisions before which history was thrown away, and when that was begun."""


class Piece(NamedTuple):
    """What one member told of the revisions after one up to another, where the first told otherwise."""

    after: int
    end: int
    truth: Truth


class Log:
    """A file of lines. Each is in the file before `note` returns: its writer may be killed at any time."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def note(self, line: Json) -> None:
        # What is no JSON was told by a library that is wrong, and equals nothing that it should have told.
        os.write(self._file, json.dumps(line, separators=(",", ":"), default=repr).encode() + b"\n")

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
                name, ended, outcome, error, result = line
                kind = error.partition(":")[0]
                if outcome == "not applied" and kind not in ("", "Unavailable", "DeadlineExceeded"):
                    outcome = kind  # as all refusals were written down at first
                result = None if error else result
                found[name] = found[name]._replace(ended=ended, outcome=outcome, result=result, error=error)
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
    return [as_truth(line) for line in lines(path)]


def as_truth(line: Json) -> tuple[int, list[Event]]:
    revision, events = line
    return revision, [(key, value) for key, value in events]


def read_compactions(path: Path) -> Compactions | None:
    """None where nobody wrote them down."""
    return [(revision, at) for revision, at in lines(path)] if path.exists() else None


def read_pieces(path: Path) -> list[Piece]:
    """Where one member's history is not that of the first."""
    found: list[Piece] = []
    for line in lines(path):
        if isinstance(line, dict):
            found.append(Piece(line["after"], line["end"], []))
        else:
            found[-1].truth.append(as_truth(line))
    return found


def keep(path: Path, findings: Iterable[object]) -> None:
    """Write down all that was found, of which only the first is shown."""
    if said := [f"{finding}\n" for finding in findings]:
        path.write_text("".join(said))
