"""``link-kv record``: each change once, whatever happens to who writes it."""

from __future__ import annotations

import csv
import json
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from link_kv import ConfigError, EtcdMiddleware, LinkKVError, PathError, local
from link_kv._core.endpoints.recording import Row, open_recorder

from ..processes import until
from .command import end, link_kv
from .conftest import Cli

Recording = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def recording(cli: Cli, tmp_path: Path) -> Iterator[Recording]:
    running: list[subprocess.Popen[str]] = []

    def start(path: str, file: Path) -> subprocess.Popen[str]:
        process = link_kv(*cli.options, "record", path, "-o", str(file), temporary=tmp_path)
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate()


def rows(file: Path) -> list[tuple[int, str, str, str, bool]]:
    """Revision, path, kind, value, and whether it was inferred, as they are in the file."""
    if not file.exists():
        return []
    if file.suffix == ".csv":
        with file.open(newline="") as lines:
            found = list(csv.reader(lines))[1:]
        return [(int(r[0]), r[2], r[3], r[4], r[5] == "1") for r in found if len(r) == 6]
    database = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
    try:
        query = "SELECT revision, path, kind, value, inferred FROM changes ORDER BY revision, path"
        return [(r[0], r[1], r[2], r[3], bool(r[4])) for r in database.execute(query)]
    except sqlite3.OperationalError:
        return []  # nothing there yet
    finally:
        database.close()


@pytest.mark.parametrize("name", ["rec.csv", "rec.sqlite"])
def test_each_change_once(
    recording: Recording, etcd_client: EtcdMiddleware, tmp_path: Path, name: str
) -> None:
    file = tmp_path / name
    etcd_client["/kv"] = {"a": 1, "b": 'two\nlines, "quoted"'}
    etcd_client["/other"] = 5
    process = recording("/kv", file)
    until(lambda: len(rows(file)) == 2)
    etcd_client["/kv"] = {"a": 2, "c": [1.5, None]}
    etcd_client["/other"] = 6
    until(lambda: len(rows(file)) == 6)
    revision = etcd_client.entry("/kv/a").revision
    first = rows(file)[0][0]
    assert [(path, kind, value) for _, path, kind, value, _ in rows(file)[:2]] == [
        ("/kv/a", "put", "1"),
        ("/kv/b", "put", json.dumps('two\nlines, "quoted"')),
    ]
    assert sorted(rows(file)[2:]) == [
        (revision, "/kv/a", "put", "2", False),
        (revision, "/kv/b", "delete", "", False),
        (revision, "/kv/c/1", "put", "1.5", False),
        (revision, "/kv/c/2", "put", "null", False),
    ]
    assert {row[0] for row in rows(file)} == {first, revision}
    process.send_signal(signal.SIGINT)
    assert end(process)[:2] == (0, "")


@pytest.mark.parametrize("name", ["rec.csv", "rec.db"])
def test_killed_and_started_again_there_is_no_gap_and_no_repetition(
    recording: Recording, etcd_client: EtcdMiddleware, tmp_path: Path, name: str
) -> None:
    file = tmp_path / name
    etcd_client["/kv/n"] = -1
    process = recording("/kv", file)
    until(lambda: rows(file))
    for number in range(300):
        etcd_client["/kv"] = {"n": number, "m": number}
        if number in (100, 200):
            until(lambda least=number: len(rows(file)) > least)  # in the middle of something
            process.kill()
            process.communicate()
        if number in (150, 250):
            process = recording("/kv", file)
    until(lambda: len(rows(file)) >= 601)
    process.send_signal(signal.SIGINT)
    _, _, errors = end(process)
    assert "goes on after revision" in errors
    assert "compacted" not in errors
    found = rows(file)
    assert [row[3] for row in found if row[1] == "/kv/n"] == [str(number) for number in range(-1, 300)]
    assert [row[3] for row in found if row[1] == "/kv/m"] == [str(number) for number in range(300)]
    assert not any(row[4] for row in found)


@pytest.mark.parametrize("name", ["rec.csv", "rec.sqlite3"])
def test_history_that_was_compacted_away_is_told_and_made_up_for(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    # An etcd of its own, since compaction is everybody's.
    with local.start(tmp_path / "data") as server, EtcdMiddleware(endpoints=server.endpoints) as client:
        client["/kv"] = {"a": 1, "b": 1, "c": 1}

        def record() -> subprocess.Popen[str]:
            options = ("--endpoints", server.endpoints[0])
            return link_kv(*options, "record", "/kv", "-o", str(file), temporary=tmp_path)

        process = record()
        until(lambda: len(rows(file)) == 3)
        process.send_signal(signal.SIGINT)
        end(process)
        client["/kv/a"] = 2
        client["/kv/a"] = 3
        del client["/kv/b"]
        compact(client)
        process = record()
        until(lambda: len(rows(file)) == 5)
        client["/kv/c"] = 2
        until(lambda: len(rows(file)) == 6)
        process.send_signal(signal.SIGINT)
        _, _, errors = end(process)
        assert "was compacted away" in errors
        news = [(path, kind, value, inferred) for _, path, kind, value, inferred in rows(file)[3:]]
        assert sorted(news) == [
            ("/kv/a", "put", "3", True),
            ("/kv/b", "delete", "", True),
            ("/kv/c", "put", "2", False),
        ]
    # Another etcd has another history.
    with local.start(tmp_path / "other") as server:
        options = ("--endpoints", server.endpoints[0])
        process = link_kv(*options, "record", "/kv", "-o", str(file), temporary=tmp_path)
        status, _, errors = end(process)
        assert status == 1
        assert "it is another etcd, or was restored; begin another file" in errors


def compact(client: EtcdMiddleware) -> None:
    server: Any = client.etcd3
    revision = client.put("/elsewhere", 1)
    server.compact(revision, physical=True)
    server.close()


@pytest.mark.parametrize("name", ["rec.csv", "rec.sqlite"])
def test_a_file_of_something_else_is_refused(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    with open_recorder(file, "/kv", "") as recorder:
        recorder.add([Row(5, "now", "/kv/a", "put", "1", False)])
    with pytest.raises(ConfigError, match=r"/kv.*not of /other"):
        open_recorder(file, "/other", "")
    file.write_bytes(b"something\nelse\n" * 100)
    for leftover in tmp_path.glob(f"{name}-*"):
        leftover.unlink()
    with pytest.raises(ConfigError, match=r"is no file that this|cannot be used as an SQLite file"):
        open_recorder(file, "/kv", "")


@pytest.mark.parametrize("text", [b"no line end", b'an "odd quote\nand more\n', b"revision,recorded\nx"])
def test_no_file_of_something_else_is_cut_off(tmp_path: Path, text: bytes) -> None:
    file = tmp_path / "rec.csv"
    file.write_bytes(text)
    with pytest.raises(ConfigError, match="is no file that this command has written"):
        open_recorder(file, "/kv", "")
    assert file.read_bytes() == text


def test_half_a_first_line_is_written_anew(tmp_path: Path) -> None:
    file = tmp_path / "rec.csv"
    open_recorder(file, "/kv", "").close()
    whole = file.read_bytes()
    for cut in range(len(whole)):
        file.write_bytes(whole[:cut])
        open_recorder(file, "/kv", "").close()
        assert file.read_bytes() == whole


def test_a_large_value_may_be_gone_on_after(tmp_path: Path) -> None:
    file = tmp_path / "rec.csv"
    row = Row(5, "now", "/kv/a", "put", "x" * 1_000_000, False)
    with open_recorder(file, "/kv", "") as recorder:
        recorder.add([row])
    with open_recorder(file, "/kv", "") as recorder:
        assert recorder.revision == 5
        assert recorder.last() == {"/kv/a": row}


def test_half_a_line_is_written_anew(tmp_path: Path) -> None:
    file = tmp_path / "rec.csv"
    one, two = (Row(5, "now", f"/kv/{key}", "put", '"a\\nb"\n,x', False) for key in "ab")
    with open_recorder(file, "/kv", "") as recorder:
        assert recorder.add([one, two]) == 2
    whole = file.read_bytes()
    for cut in range(len(whole) - 1, len(whole) - 25, -1):
        file.write_bytes(whole[:cut])
        with open_recorder(file, "/kv", "") as recorder:
            assert recorder.revision == 5
            assert recorder.add([one, two]) == 1
            assert recorder.add([one, two]) == 0
        assert file.read_bytes() == whole


def test_a_mistake(cli: Cli, tmp_path: Path) -> None:
    assert "says no format; it ends in .csv" in cli.fails(
        ConfigError, "record", "/kv", "-o", str(tmp_path / "x.txt")
    )
    cli.fails(PathError, "record", "kv", "-o", str(tmp_path / "x.csv"))
    with pytest.raises(LinkKVError):
        open_recorder(tmp_path / "none.txt", "/", "")
