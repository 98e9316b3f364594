"""``link-kv config``: who runs which revision, files, and history."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from pydantic import BaseModel, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from link_kv import EtcdMiddleware, NotFound, PathError, RevisionError, local
from link_kv._core.configuration.applied import acknowledgements
from link_kv._core.configuration.changes import keys, replace
from link_kv._core.configuration.history import history
from link_kv._core.wire.calls import run
from link_kv.cli._documents import DocumentError
from link_kv.cli._show import plain
from link_kv.codec import encode
from link_kv.driver import Array, Configurable, EtcdConfDriver, Parameter, category, configuration, watch
from link_kv.errors import Conflict, LinkKVError, NotATree
from link_kv.live import hub_of
from link_kv.settings import Followed, follow
from tests.live.history import compact
from tests.logins import ANN, client_of, server_with_logins
from tests.processes import until

from .command import call, on_terminal
from .conftest import Cli

PATH = "/myproject/server"


class Server(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="LINK_KV_TEST_SERVER_")

    port: int = Field(8080, gt=0)
    name: str = ""
    hosts: list[str] = []


@pytest.fixture
def followed(etcd_client: EtcdMiddleware) -> Iterator[Followed[Server]]:
    with follow(Server, PATH, client=etcd_client, settle=0) as followed:
        until(lambda: len(told(etcd_client)) == 1)
        yield followed


def told(client: EtcdMiddleware) -> list[Any]:
    return run(acknowledgements(client._exchange(), PATH))[1]


# status


def test_status(cli: Cli, etcd_client: EtcdMiddleware, followed: Followed[Server]) -> None:
    good = etcd_client.put(f"{PATH}/port", 1)
    result = cli.run("config", "status", PATH, "--wait", str(good))
    assert result.return_value == 0
    first, row = result.stdout.splitlines()
    assert first == "1 applied"
    state, _, pid, program, revision, seen, message = row.split("\t")
    assert (state, pid, revision, seen, message) == ("applied", str(os.getpid()), str(good), str(good), "-")
    assert program
    bad = etcd_client.put(f"{PATH}/port", 0)
    result = cli.run("config", "status", PATH, "--wait", str(bad))
    assert result.return_value == 1
    assert result.stdout.splitlines()[0] == "0 applied, 1 rejected: port: Input should be greater than 0"
    assert result.stdout.splitlines()[1].split("\t")[4:6] == [str(good), str(bad)]
    [shown] = json.loads(cli.run("config", "status", PATH, "--json").stdout)
    assert (shown["state"], shown["pid"], shown["revision"]) == ("rejected", os.getpid(), good)


def test_a_revision_that_changed_nothing_here_is_not_waited_for(
    cli: Cli, etcd_client: EtcdMiddleware, followed: Followed[Server]
) -> None:
    elsewhere = etcd_client.put("/elsewhere", 1)
    assert cli("config", "status", PATH, "--wait", str(elsewhere)).startswith("1 applied\n")
    assert "still to come" in cli.fails(RevisionError, "config", "status", PATH, "--wait", "99999999")


def test_waiting_ends_when_the_last_has_answered(
    cli: Cli, etcd_client: EtcdMiddleware, followed: Followed[Server]
) -> None:
    with follow(Server, PATH, client=etcd_client, settle=0.7):
        until(lambda: len(told(etcd_client)) == 2)
        revision = etcd_client.delete(PATH) if PATH in etcd_client else etcd_client.put(f"{PATH}/port", 5)
        assert cli("config", "status", PATH, "--wait", str(revision)).startswith("2 applied\n")
        assert {each.seen for each in told(etcd_client)} == {revision}
        revision = etcd_client.delete(PATH)
        assert cli("config", "status", PATH, "--wait", str(revision)).startswith("2 applied\n")
        assert {each.seen for each in told(etcd_client)} == {revision}
    with follow(Server, PATH, client=etcd_client, settle=60):
        until(lambda: len(told(etcd_client)) == 2)
        revision = etcd_client.put(f"{PATH}/port", 6)
        until(lambda: [each.seen for each in told(etcd_client)].count(revision) == 1)
        result = cli.run("config", "status", PATH, "--wait", str(revision), "--at-most", "0.5")
        assert isinstance(result.exception, click.ClickException)
        assert result.exception.message == "1 of 2 have not answered within 0.5 s"


def test_how_long_to_wait_is_a_number_of_seconds(cli: Cli) -> None:
    for none in ("inf", "nan", "-1", "1e300"):
        said = cli.fails(click.UsageError, "config", "status", PATH, "--wait", "1", "--at-most", none)
        assert "is no number of seconds" in said
    assert cli("config", "status", PATH, "--wait", "1", "--at-most", "1e9") == "no process follows it\n"


def test_nobody_follows(cli: Cli) -> None:
    assert cli("config", "status", PATH) == "no process follows it\n"
    assert cli("config", "status", PATH, "--wait", "1") == "no process follows it\n"
    assert "a path starts with a slash" in cli.fails(PathError, "config", "status", "x")


def test_what_others_wrote_there_is_passed_over(
    cli: Cli, etcd_client: EtcdMiddleware, followed: Followed[Server]
) -> None:
    directory = f"{etcd_client.prefix}/.link/applied{PATH}"
    for number, value in enumerate((b"", b"[]", b"5", b'{"host": 1}', b"\xff", b"[" * 5000)):
        etcd_client.raw[f"{directory}/x{number}".encode()] = value
    etcd_client.raw[f"{directory}/deeper/x".encode()] = b"{}"
    assert cli("config", "status", PATH).splitlines()[0] == "1 applied"


# check


def test_check(cli: Cli, etcd_client: EtcdMiddleware, followed: Followed[Server]) -> None:
    etcd_client[PATH] = {"name": 5, "port": 1}
    assert cli("config", "check", PATH) == "1 process accepts it\n"
    for change in ("port=2", "name=7", "hosts=a, b", 'hosts=["a"]', "hosts/=[]"):
        assert cli("config", "check", PATH, change) == "1 process accepts it\n", change
    for change, reason in (
        ("port=0", "port: 0 is less than or equal to the minimum of 0"),
        ("port=ninety", "port: 'ninety' is not of type 'integer'"),
        ("prt=1", "Additional properties are not allowed ('prt' was unexpected)"),
    ):
        result = cli.run("config", "check", PATH, change)
        assert result.return_value == 1, change
        assert reason in result.stdout
        assert "(1 process: " in result.stdout
    assert etcd_client[PATH] == {"name": 5, "port": 1}
    assert "name: holds a value" in cli.fails(NotATree, "config", "check", PATH, "name/x=1")
    assert "a change is KEY=VALUE" in cli.fails(LinkKVError, "config", "check", PATH, "port")


def test_check_reads_texts_as_the_processes_do(cli: Cli, etcd_client: EtcdMiddleware) -> None:
    def hexadecimal(svalue: str, **others: Any) -> int:
        return int(svalue, 16)

    declared = category(
        "C",
        Parameter("debug", value=False),
        Parameter("port", ptype=int, value=1),
        Parameter("ratio", ptype=float),
        Parameter("ports", ptype=Array(int)),
        Parameter("names", ptype=Array()),
        Parameter("limits", ptype=dict),
        Parameter("id", ptype=int, parser=hexadecimal),
        Parameter("text"),
    )
    configurable = Configurable(paths=PATH, conf=declared, drivers=[EtcdConfDriver(etcd_client)])
    changes = {
        "C/debug": ("y", "", "yes", "2"),
        "C/port": ("1.0", "1e3", "007", " 7", "1_0", "x", "-3"),
        "C/ratio": ("1e3", "nan", "1,5"),
        "C/ports": ("1, 2", "[1, 2]", '["1", 2.5]', "1, x", ""),
        "C/names": ("a, 1", "[1"),
        "C/limits": ('{"a": 1}', "[]", "a"),
        "C/id": ("ff", "f"),
        "C/text": ("1.0", "x"),
        "D/port": ("x", "1"),
        "D/other": ("x", "1"),
        "C": ("x",),
    }
    with watch(configurable, settle=0) as reload:
        until(lambda: len(told(etcd_client)) == 1)
        for name, texts in changes.items():
            for text in texts:
                result = cli.run("config", "check", PATH, f"{name}={text}")
                revision = int(cli("set", f"{PATH}/{name}", text).split()[-1])
                assert result.return_value == (not reload.wait(revision, 10)), (name, text)
                if result.return_value:
                    assert result.stdout.startswith(f"{name}: ")
            assert reload.wait(etcd_client.delete(f"{PATH}/{name}"), 10)


def test_check_needs_somebody_who_says_what_it_accepts(cli: Cli, etcd_client: EtcdMiddleware) -> None:
    assert "no running process says" in cli.fails(LinkKVError, "config", "check", PATH, "port=1")
    for schema in (b'{"type": 5}', b'{"$ref": "http://127.0.0.1:1/x"}', b'{"$ref": "#/$defs/x"}'):
        key = f"{etcd_client.prefix}/.link/schemas{PATH}/x".encode()
        etcd_client.raw[key] = schema
        assert "no usable schema" in cli.fails(LinkKVError, "config", "check", PATH, "port=1")


# Files


@pytest.mark.parametrize("form", ["ini", "json", "yaml", "toml"])
def test_there_and_back(cli: Cli, etcd_client: EtcdMiddleware, tmp_path: Path, form: str) -> None:
    EtcdConfDriver(etcd_client).setconf(
        configuration(
            category("z", Parameter("port", value=8080), Parameter("code", value="007")),
            category("Empty"),
            category("a/b", Parameter("share", value="50% = half"), Parameter("list", value=["x", "y"])),
        ),
        PATH,
    )
    before = dict(etcd_client.raw)
    file = tmp_path / f"x.{form}"
    file.write_bytes(cli.raw("config", "export", PATH, "-f", form))
    assert cli("config", "import", str(file), PATH) == "nothing changes\n"
    assert cli.run("config", "diff", PATH, f"file:{file}").return_value == 0
    del etcd_client[PATH]
    assert cli("config", "import", str(file), PATH).splitlines()[-1].startswith("revision ")
    after = {key: value for key, value in etcd_client.raw.items() if b"/.link/written" not in key}
    assert after == before
    assert list(EtcdConfDriver(etcd_client).getconf(PATH)) == ["z", "Empty", "a/b"]


@pytest.mark.parametrize("form", ["ini", "json", "yaml", "toml"])
def test_texts_like_numbers_there_and_back(
    cli: Cli, etcd_client: EtcdMiddleware, tmp_path: Path, form: str
) -> None:
    driver = EtcdConfDriver(etcd_client)
    texts = {"version": "1.10", "code": "1e5", "zero": "-0", "plain": "1.5", "text": "x"}
    driver.setconf(
        configuration(category("C", *(Parameter(name, value=text) for name, text in texts.items()))), PATH
    )
    etcd_client.raw[f"{etcd_client.prefix}{PATH}/C/data".encode()] = b"\xfe"
    raw = cli.raw("config", "export", PATH, "-f", "json")
    assert json.loads(raw)["C"] == {**texts, "plain": 1.5, "data": {"$bytes": "/g=="}}
    del etcd_client[f"{PATH}/C/data"]
    file = tmp_path / f"x.{form}"
    file.write_bytes(cli.raw("config", "export", PATH, "-f", form))
    cli("config", "import", str(file), PATH)
    assert {each.name: each.value for each in driver.getconf(PATH)["C"].values()} == texts


def test_ini_is_text(cli: Cli, etcd_client: EtcdMiddleware, tmp_path: Path) -> None:
    file = tmp_path / "x.conf"
    file.write_text(
        '[DEFAULT]\nx = 1\n[C]\nPort = 8080\ntext = "8080"\nnone = null\n; comment\nlong = a\n  b\n'
    )
    cli("config", "import", str(file), PATH)
    assert etcd_client[PATH] == {
        "C": {"Port": 8080, "text": '"8080"', "none": None, "long": "a\nb"},
        "DEFAULT": {"x": 1},
    }
    assert cli("config", "export", PATH, "-f", "ini").startswith("[DEFAULT]\nx = 1\n\n[C]\n")


def test_an_import_writes_only_what_changed_in_one_revision(
    cli: Cli, etcd_client: EtcdMiddleware, tmp_path: Path
) -> None:
    etcd_client[PATH] = {"C": {"same": 1, "new": 1, "gone": 1}, "list": ["x", "y"]}
    kept = etcd_client.entry(f"{PATH}/C/same").revision
    file = tmp_path / "x.json"
    file.write_text(json.dumps({"C": {"same": 1, "new": 2}, "list": ["x", "y", "z"]}))
    shown = f"-\t{PATH}/C/gone\t1\n-\t{PATH}/C/new\t1\n+\t{PATH}/C/new\t2\n+\t{PATH}/list/3\tz\n"
    assert cli("config", "import", str(file), PATH, "--dry-run") == shown
    assert etcd_client.entry(PATH).revision == kept
    done = cli("config", "import", str(file), PATH)
    assert done.startswith(shown + "revision ")
    revision = int(done.split()[-1])
    assert etcd_client[PATH] == {"C": {"same": 1, "new": 2}, "list": ["x", "y", "z"]}
    assert etcd_client.entry(f"{PATH}/C/same").revision == kept
    assert (
        etcd_client.entry(f"{PATH}/C/new").revision == etcd_client.entry(f"{PATH}/list").revision == revision
    )
    etcd_client[f"{PATH}/list/4"] = "w"  # the marker was written with the list
    file.write_text(json.dumps({"C": {}}))
    cli("config", "import", str(file), PATH)
    assert etcd_client[PATH] == {"C": {}}


def test_imports_and_others_writes_race(
    cli: Cli, etcd: Any, etcd_client: EtcdMiddleware, tmp_path: Path
) -> None:
    wanted = {"C": {f"p{number}": number for number in range(20)}}
    file = tmp_path / "x.json"
    file.write_text(json.dumps(wanted))
    stop = threading.Event()

    def disturb() -> None:
        with EtcdMiddleware(endpoints=etcd.endpoints, prefix=etcd_client.prefix) as other:
            while not stop.is_set():
                other.pop(f"{PATH}/C/p3", None)
                other[f"{PATH}/C/p4"] = "x"

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        for _ in range(10):
            cli("config", "import", str(file), PATH)
    finally:
        stop.set()
        thread.join()
    cli("config", "import", str(file), PATH)
    assert etcd_client[PATH] == wanted


def test_what_is_no_configuration(cli: Cli, etcd_client: EtcdMiddleware, tmp_path: Path) -> None:
    file = tmp_path / "x.ini"
    for text in ("x = 1\n", "[C]\n[C]\n", "[C]\nx\n", "[C]\nx=1\nx=2\n"):
        file.write_text(text)
        assert "\n" not in cli.fails(DocumentError, "config", "import", str(file), PATH)
    (tmp_path / "x.json").write_text("[1]")
    assert "this is a list" in cli.fails(DocumentError, "config", "import", str(tmp_path / "x.json"), PATH)
    file.write_text("[C]\nx=1\n")
    etcd_client["/leaf"] = 5
    with pytest.raises(NotATree):
        cli("config", "import", str(file), "/leaf/x")
    assert "has a path" in cli.fails(PathError, "config", "import", str(file), "/")
    assert "nothing is there" in cli.fails(NotFound, "config", "export", PATH)
    etcd_client[PATH] = {"C": {"a": "x\n[D]"}, "x": 1}
    assert "a value, and no category" in cli.fails(DocumentError, "config", "export", PATH, "-f", "ini")
    etcd_client[PATH] = {"C": {"#a": "x"}}
    assert "INI cannot hold it" in cli.fails(DocumentError, "config", "export", PATH, "-f", "ini")
    assert etcd_client["/leaf"] == 5


def test_diff_of_moments_and_files(cli: Cli, etcd_client: EtcdMiddleware, tmp_path: Path) -> None:
    before = etcd_client.put(PATH, {"C": {"port": 1}})
    etcd_client[f"{PATH}/C/port"] = 2
    file = tmp_path / "x.ini"
    file.write_text("[C]\nport = 2\n")
    differs = "-\t/C/port\t1\n+\t/C/port\t2\n"
    for one, other, shown in ((f"{PATH}@{before}", PATH, differs), (PATH, f"file:{file}", "")):
        result = cli.run("config", "diff", one, other)
        assert (result.stdout, result.return_value) == (shown, 1 if shown else 0)
    done = call(*cli.options, "config", "diff", PATH, "none.ini")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


def test_the_order_of_categories_is_part_of_a_configuration(
    cli: Cli, etcd_client: EtcdMiddleware, tmp_path: Path
) -> None:
    """Of parameters of one name the last category's counts."""
    driver = EtcdConfDriver(etcd_client)
    driver.setconf(configuration(*(category(name, Parameter("x", value=name)) for name in "AB")), PATH)
    file = tmp_path / "x.ini"
    file.write_text("[B]\nx = B\n[A]\nx = A\n")
    order = '.link/categories\t["B", "A"]\n'
    assert cli("config", "import", str(file), PATH, "--dry-run") == f"+\t{PATH}/{order}"
    result = cli.run("config", "diff", PATH, f"file:{file}")
    assert (result.stdout, result.return_value) == (f"+\t/{order}", 1)
    with watch(Configurable(paths=PATH, drivers=[driver]), settle=0.7) as reload:
        until(lambda: len(told(etcd_client)) == 1)
        before = told(etcd_client)[0].seen
        done = cli("config", "import", str(file), PATH)
        assert done.startswith(f"+\t{PATH}/{order}revision ")
        revision = int(done.split()[-1])
        assert cli("config", "status", PATH, "--wait", str(revision)).startswith("1 applied\n")
        assert [each.seen for each in told(etcd_client)] == [revision]
        assert reload.current["x"] == "A"
    assert cli("config", "import", str(file), PATH) == "nothing changes\n"
    without = tmp_path / "x.json"
    without.write_text('{"x": 1}')
    assert ".link" not in cli.run("config", "diff", PATH, f"file:{without}").stdout
    assert cli("config", "rollback", PATH, str(before)).startswith(f"-\t{PATH}/{order}revision ")
    rows = [line.split("\t") for line in cli("config", "log", PATH, "--since", str(revision)).splitlines()]
    assert [row[3:] for row in rows] == [[sign, *order.strip().split("\t")] for sign in "-+"]
    assert int(rows[1][0]) == revision
    assert rows[0][2].endswith(f":{os.getpid()}")


# History


def test_log_and_rollback(cli: Cli, etcd_client: EtcdMiddleware, tmp_path: Path) -> None:
    first = etcd_client.put(PATH, {"C": {"port": 1, "list": ["x"]}})
    etcd_client["/elsewhere"] = 1
    second = etcd_client.put(f"{PATH}/C/port", 2)
    gone = etcd_client.delete(f"{PATH}/C/list")
    file = tmp_path / "x.ini"
    file.write_text("[C]\nport = 3\n[D]\nx = y\n")
    imported = int(cli("config", "import", str(file), PATH).split()[-1])
    rows = [line.split("\t") for line in cli("config", "log", PATH, "--since", str(first)).splitlines()]
    changes = [(int(row[0]), *row[3:]) for row in rows if row[3] in "+-"]
    assert changes == [
        (imported, "-", "C/port", "2"),
        (imported, "+", "C/port", "3"),
        (imported, "+", "D/x", "y"),
        (gone, "-", "C/list/1", "x"),
        (second, "-", "C/port", "1"),
        (second, "+", "C/port", "2"),
        (first, "+", "C/list/1", "x"),
        (first, "+", "C/port", "1"),
    ]
    assert re.fullmatch(r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}[-+]\d\d:\d\d", rows[0][1])  # as in `watch`
    assert rows[0][2].endswith(f":{os.getpid()}")
    assert rows[-1][1:3] == ["-", "-"]
    done = json.loads(cli("config", "log", PATH, "--json", "--since", str(imported)))
    assert [each["revision"] for each in done] == [imported]
    assert done[0]["writer"] == rows[0][2]

    shown = (
        f"+\t{PATH}/C/list/\t[]\n+\t{PATH}/C/list/1\tx\n"
        f"-\t{PATH}/C/port\t3\n+\t{PATH}/C/port\t1\n-\t{PATH}/D/x\ty\n"
    )
    assert cli("config", "rollback", PATH, str(first), "--dry-run") == shown
    assert cli("config", "rollback", PATH, str(first)).startswith(shown + "revision ")
    assert etcd_client[PATH] == {"C": {"port": 1, "list": ["x"]}}
    assert cli("config", "rollback", PATH, str(first)) == "nothing changes\n"
    assert f"{PATH}: " in cli.fails(RevisionError, "config", "rollback", PATH, "99999999")
    for none in ("0", str(2**64)):
        assert "whole number from 1" in cli.fails(RevisionError, "config", "rollback", PATH, none)
    for none in ("0", "-1", "-200", str(2**64)):
        for command in (("export", PATH, f"--revision={none}"), ("log", PATH, f"--since={none}")):
            assert "whole number from 1" in cli.fails(RevisionError, "config", *command)
    assert "whole number from 1" in cli.fails(RevisionError, "config", "diff", f"{PATH}@0", PATH)


def test_a_log_of_arrays_and_of_what_is_empty(cli: Cli, etcd_client: EtcdMiddleware) -> None:
    array = np.arange(3)
    revision = etcd_client.put(PATH, {"array": array, "dict": {}, "list": []})
    rows = [
        line.split("\t")[-2:] for line in cli("config", "log", PATH, "--since", str(revision)).splitlines()
    ]
    assert rows == [["array", plain(encode(array))], ["dict", "{}"], ["list", "[]"]]


def test_a_log_without_anything(cli: Cli, etcd_client: EtcdMiddleware) -> None:
    revision = etcd_client.put("/elsewhere", 1)
    assert cli("config", "log", PATH, "--since", str(revision)) == ""
    etcd_client[PATH] = {"x": 1}
    revision = etcd_client.put("/elsewhere", 2)
    assert cli("config", "log", PATH, "--since", str(revision)) == ""


def test_history_reaches_as_far_back_as_the_compaction_and_says_so() -> None:
    with local.start() as server, EtcdMiddleware(endpoints=server.endpoints, prefix="/p") as client:
        cli = Cli(server, "/p")
        first = client.put(PATH, {"x": 1})
        assert len(cli("config", "log", PATH).splitlines()) == 1
        for number in range(2, 6):
            revision = client.put(f"{PATH}/x", number)
        compact(server.endpoints[0], revision - 2)
        lines = cli("config", "log", PATH).splitlines()
        assert [line.split("\t")[-1] for line in lines[:-1]] == ["4", "5", "3", "4"]
        assert lines[-1].startswith(f"{revision - 1}\t-\t-\t…\twhat was before is compacted")
        assert "compacted" in cli.fails(RevisionError, "config", "rollback", PATH, str(first))
        assert "compacted" in cli.fails(RevisionError, "config", "log", PATH, "--since", str(first))
        client.raw[f"/p{PATH}/.link/categories".encode()] = b'["x"]'
        compact(server.endpoints[0], revision + 1)
        lines = cli("config", "log", PATH, "--since", str(revision + 1)).splitlines()
        assert [line.split("\t")[3:] for line in lines] == [
            ["-", ".link/categories", "…"],
            ["+", ".link/categories", '["x"]'],
        ]


def test_who_reads_a_prefix_sees_its_log() -> None:
    with server_with_logins() as etcd, client_of(etcd, ANN, "/app") as client:
        client["/store"] = {"x": 1}
        client["/store/x"] = 2
        found = history(hub_of(client), client._space.place("/store"))
        assert [len(write.changes) for write in found.writes] == [1, 1]


def test_explain(
    cli: Cli,
    etcd_client: EtcdMiddleware,
    followed: Followed[Server],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "x.json"
    file.write_text('{"port": 1}')
    revision = int(cli("config", "import", str(file), PATH).split()[-1])
    assert followed.wait(revision, 10)
    cli("config", "status", PATH, "--wait", str(revision))
    shown = json.loads(cli("config", "explain", f"{PATH}/port", "--json"))
    assert (shown["value"], shown["revision"], shown["configuration"]) == (1, revision, PATH)
    assert shown["writer"].endswith(f":{os.getpid()}")
    assert [each["source"] for each in shown["processes"]] == ["etcd"]
    shown = json.loads(cli("config", "explain", f"{PATH}/name", "--json"))
    assert [each["source"] for each in shown["processes"]] == ["default"]
    monkeypatch.setenv("LINK_KV_TEST_SERVER_PORT", "7")
    with follow(Server, PATH, client=etcd_client):
        until(lambda: len(told(etcd_client)) == 2)
        lines = cli("config", "explain", f"{PATH}/port").splitlines()
        assert sorted(line.split("\t")[-1] for line in lines if line.startswith("process\t")) == [
            "environment",
            "etcd",
        ]
        assert lines[1:3] == ["value\t1", f"revision\t{revision}"]
    monkeypatch.delenv("LINK_KV_TEST_SERVER_PORT")
    bad = etcd_client.put(f"{PATH}/port", 0)
    cli.run("config", "status", PATH, "--wait", str(bad))
    assert "an older revision of etcd" in cli("config", "explain", f"{PATH}/port")
    assert "writer\t-" in cli("config", "explain", f"{PATH}/port")
    assert "by no running process" in cli("config", "explain", "/elsewhere/x")
    assert "name a parameter" in cli.fails(PathError, "config", "explain", "/x")


def test_explain_knows_what_of_a_field_is_from_elsewhere(
    cli: Cli, etcd_client: EtcdMiddleware, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Database(BaseModel):
        host: str = ""
        port: int = 0
        name: list[str] = []

    class Nested(BaseSettings):
        model_config = SettingsConfigDict(env_prefix="LINK_KV_TEST_SERVER_", env_nested_delimiter="__")

        db: Database = Database()
        host: str = ""

    monkeypatch.setenv("LINK_KV_TEST_SERVER_DB__PORT", "5")
    monkeypatch.setenv("LINK_KV_TEST_SERVER_DB__NAME", "[]")
    monkeypatch.setenv("LINK_KV_TEST_SERVER_HOST", "x")
    etcd_client[PATH] = {"db": {"host": "h", "port": 1, "name": ["n"]}}
    with follow(Nested, PATH, client=etcd_client):
        until(lambda: len(told(etcd_client)) == 1)
        for name, source in (
            ("db/host", "etcd"),
            ("db/port", "environment"),
            ("db/name/1", "environment"),
            ("db/other", "default"),
            ("host", "environment"),
        ):
            [line] = cli("config", "explain", f"{PATH}/{name}").splitlines()[-1:]
            assert line.split("\t")[-1] == source, name


def test_explain_is_of_parameters(cli: Cli, etcd_client: EtcdMiddleware, followed: Followed[Server]) -> None:
    said = "is a configuration or a part of one; name a parameter, such as"
    assert cli.fails(PathError, "config", "explain", PATH) == f"{PATH}: {said} {PATH}/NAME"
    etcd_client[PATH] = {"port": 1}
    assert cli.fails(PathError, "config", "explain", PATH) == f"{PATH}: {said} {PATH}/port"
    etcd_client["/other/x"] = {"C": {"b": 1}}
    assert cli.fails(PathError, "config", "explain", "/other/x") == f"/other/x: {said} /other/x/C/b"


def test_on_a_terminal(cli: Cli, etcd_client: EtcdMiddleware, followed: Followed[Server]) -> None:
    bad = etcd_client.put(PATH, {"port": 0, "name": "x\x1b[31m"})
    status, shown = on_terminal(*cli.options, "config", "status", PATH, "--wait", str(bad))
    assert status == 1
    assert "0 applied, 1 rejected: port: Input should be greater than 0" in shown
    assert str(os.getpid()) in shown
    status, shown = on_terminal(*cli.options, "config", "log", PATH, "--since", str(bad))
    assert status == 0
    assert f"revision {bad}" in shown
    assert r"+ name = x\x1b[31m" in shown
    status, shown = on_terminal(*cli.options, "config", "rollback", PATH, str(bad), talk=())
    assert "nothing changes" in shown


def test_an_import_asks_on_a_terminal(cli: Cli, etcd_client: EtcdMiddleware, tmp_path: Path) -> None:
    file = tmp_path / "x.ini"
    file.write_text("[C]\nport = 1\n")
    for answer, status in (("n", 1), ("y", 0)):
        found, shown = on_terminal(
            *cli.options, "config", "import", str(file), PATH, talk=[("Write to", answer)]
        )
        assert found == status
        assert f"1 added, 0 changed, 0 deleted. Write to {PATH}?" in shown
        assert (PATH in etcd_client) is (answer == "y")


def test_operating_needs_neither_b3j0f_nor_pydantic(
    cli: Cli, etcd_client: EtcdMiddleware, followed: Followed[Server]
) -> None:
    etcd_client["/x.conf"] = {"C": {"a": 1, "list": ["x", 2]}}
    script = (
        "import sys; sys.modules['b3j0f'] = sys.modules['pydantic'] = None\n"
        "from link_kv.cli._run import run; sys.exit(run(sys.argv[1:]))"
    )
    for args, expected in (
        (("export", "/x.conf", "-f", "ini"), "[C]\na = 1\nlist = x, 2\n\n"),
        (("status", PATH), "1 applied\n"),
        (("check", PATH, "port=1"), "1 process accepts it\n"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", script, *cli.options, "config", *args],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.stderr == ""
        assert done.stdout.startswith(expected)


def test_what_others_changed_after_it_was_shown_is_not_overwritten(etcd_client: EtcdMiddleware) -> None:
    etcd_client[PATH] = {"port": 1}
    shown = run(keys(etcd_client._exchange(), PATH))
    port = f"{PATH}/port".encode()
    key = next(key for key in shown.pairs if key.endswith(port))
    etcd_client[f"{PATH}/name"] = "theirs"
    with pytest.raises(Conflict, match="changed by others meanwhile; nothing was written"):
        run(replace(etcd_client._exchange(), PATH, {key: b"2"}, None, shown))
    assert etcd_client[PATH] == {"port": 1, "name": "theirs"}
