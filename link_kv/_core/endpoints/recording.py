"""Changes in a file, SQLite or CSV: each once, whatever happens to who writes it.

A file knows how far it is. Who goes on with it asks for the changes from that revision on, that one included,
since the writer may have died in the middle of it; what is there already is not written again.
"""

from __future__ import annotations

import csv
import io
import json
import os
import sqlite3
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from link_kv.errors import ConfigError

FIELDS = ("revision", "recorded", "path", "kind", "value", "inferred")


class Row(NamedTuple):
    """One change."""

    revision: int
    recorded: str
    """When it was recorded, UTC."""
    path: str
    kind: str
    """``put`` or ``delete``."""
    value: str
    """As JSON; '' for a delete."""
    inferred: bool
    """Whether it was found by comparing, since history was gone."""


def as_json(value: Any) -> str:
    """A value as JSON, what JSON has not as text."""
    return json.dumps(value, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, (bytes, bytearray)):
        return {"$bytes": value.hex()}
    listed = getattr(value, "tolist", None)
    return listed() if callable(listed) else str(value)


class Recorder:
    """A file that takes changes. A context manager that closes it. Not for several threads at once."""

    revision: int
    """How far it is; 0 for a new one."""

    def add(self, rows: Iterable[Row]) -> int:
        """Take changes that are not there yet; how many those are. They are on disk after this."""
        raise NotImplementedError

    def last(self) -> dict[str, Row]:
        """The last change of each path."""
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_recorder(file: Path, path: str, prefix: str) -> Recorder:
    """A file that takes the changes below a path, as its name says; it is gone on with where it is there.

    Raises `ConfigError` for a name that says neither, and for a file that is of something else.
    """
    kinds: dict[str, type[_Sqlite] | type[_Csv]] = {
        ".csv": _Csv,
        ".sqlite": _Sqlite,
        ".sqlite3": _Sqlite,
        ".db": _Sqlite,
    }
    kind = kinds.get(file.suffix.lower())
    if kind is None:
        raise ConfigError(f"{file}: its name says no format; it ends in {', '.join(kinds)}")
    return kind(file, path, prefix)


class _Sqlite(Recorder):
    def __init__(self, file: Path, path: str, prefix: str) -> None:
        try:
            self._db = sqlite3.connect(file, isolation_level=None)
        except sqlite3.Error as error:
            raise ConfigError(f"{file}: cannot be opened: {error}") from None
        try:
            self._prepare({"path": path, "prefix": prefix}, file)
        except sqlite3.Error as error:
            self._db.close()
            raise ConfigError(f"{file}: cannot be used as an SQLite file: {error}") from None
        except ConfigError:
            self._db.close()
            raise

    def _prepare(self, about: Mapping[str, str], file: Path) -> None:
        run = self._db.execute
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = FULL")
        run("BEGIN IMMEDIATE")
        run(
            "CREATE TABLE IF NOT EXISTS changes (revision INTEGER NOT NULL, recorded TEXT NOT NULL, "
            "path TEXT NOT NULL, kind TEXT NOT NULL, value TEXT NOT NULL, inferred INTEGER NOT NULL, "
            "PRIMARY KEY (revision, path)) WITHOUT ROWID"
        )
        run("CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL)")
        for name, value in about.items():
            run("INSERT OR IGNORE INTO about VALUES (?, ?)", (name, value))
            [(known,)] = run("SELECT value FROM about WHERE name = ?", (name,))
            if known != value:
                raise ConfigError(f"{file}: is of the {name} {known or '/'}, not of {value or '/'}")
        run("COMMIT")
        [(revision,)] = run("SELECT max(revision) FROM changes")
        self.revision = revision or 0

    def add(self, rows: Iterable[Row]) -> int:
        self._db.execute("BEGIN IMMEDIATE")
        before = self._db.total_changes
        self._db.executemany("INSERT OR IGNORE INTO changes VALUES (?, ?, ?, ?, ?, ?)", rows)
        self._db.execute("COMMIT")
        [(revision,)] = self._db.execute("SELECT max(revision) FROM changes")
        self.revision = revision or 0
        return self._db.total_changes - before

    def last(self) -> dict[str, Row]:
        found = self._db.execute(
            "SELECT c.* FROM changes c JOIN (SELECT path, max(revision) AS newest FROM changes "
            "GROUP BY path) n ON c.path = n.path AND c.revision = n.newest"
        )
        rows = [Row(*fields) for fields in found]
        return {row.path: row for row in rows}

    def close(self) -> None:
        self._db.close()


class _Csv(Recorder):
    def __init__(self, file: Path, path: str, prefix: str) -> None:
        csv.field_size_limit(sys.maxsize)  # a value may be as large as etcd takes
        self._name = file
        self._file = open(file, "a+b")  # noqa: SIM115 - closed by close()
        self.revision = 0
        self._at_last: set[str] = set()
        """The paths that are there of the last revision."""
        try:
            self._prepare(path)
        except BaseException:
            self._file.close()
            raise

    def _prepare(self, path: str) -> None:
        end = self._whole()
        if end:
            next(self._rows(), None)  # raises where it is no such file, before anything is cut off
        else:
            self._file.seek(0)
            if not _lines([FIELDS]).startswith(self._file.read()):  # its first line was not being written
                raise ConfigError(f"{self._name}: is no file that this command has written")
        self._file.truncate(end)
        if not end:
            self._write([FIELDS])
        for row in self._rows():
            if not _below(row.path, path):
                raise ConfigError(f"{self._name}: has changes of {row.path}, so it is not of {path}")
            self._note(row)

    def _whole(self) -> int:
        """Where the last whole line ends: a writer may have died in the middle of one."""
        self._file.seek(0)
        at, end, quotes = 0, 0, 0
        for line in self._file:
            at += len(line)
            quotes += line.count(b'"')
            if line.endswith(b"\n") and quotes % 2 == 0:  # a value may contain line ends, in quotes
                end = at
        return end

    def _rows(self) -> Iterator[Row]:
        try:
            with open(self._name, encoding="utf-8", newline="") as lines:
                reader = csv.reader(lines)
                if tuple(next(reader, ())) != FIELDS:
                    raise ValueError("its first line has other names")
                for revision, recorded, path, kind, value, inferred in reader:
                    yield Row(int(revision), recorded, path, kind, value, inferred == "1")
        except (ValueError, csv.Error) as error:
            raise ConfigError(f"{self._name}: is no file that this command has written: {error}") from None

    def _note(self, row: Row) -> bool:
        """Whether a row comes next, rather than being there already."""
        if row.revision < self.revision or (row.revision == self.revision and row.path in self._at_last):
            return False
        if row.revision > self.revision:
            self.revision = row.revision
            self._at_last = set()
        self._at_last.add(row.path)
        return True

    def add(self, rows: Iterable[Row]) -> int:
        new = [row for row in rows if self._note(row)]
        self._write([(*row[:5], "1" if row.inferred else "0") for row in new])
        return len(new)

    def _write(self, rows: Iterable[Iterable[Any]]) -> None:
        self._file.write(_lines(rows))
        self._file.flush()
        os.fsync(self._file.fileno())

    def last(self) -> dict[str, Row]:
        return {row.path: row for row in self._rows()}

    def close(self) -> None:
        self._file.close()


def _lines(rows: Iterable[Iterable[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _below(path: str, top: str) -> bool:
    return top == "/" or path == top or path.startswith(f"{top}/")
