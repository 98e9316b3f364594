"""``link-kv watch``, in a pipe and on a terminal, through a restart of the server."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from link_kv import EtcdMiddleware, get, local
from tests.wire.proxy import Proxy

from .command import end, line, link_kv, on_terminal
from .conftest import Cli


@pytest.fixture
def watching(
    etcd: local.LocalEtcd, etcd_client: EtcdMiddleware, tmp_path: Path
) -> Iterator[list[subprocess.Popen[str]]]:
    """Those that are started here end with the test."""
    etcd_client["/oven"] = {"temp": 20, "door": "shut"}
    get("oven", client=etcd_client).describe("temp", type="numeric", format="%.1f C", units="degC")
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.communicate()


def watch(
    started: list[subprocess.Popen[str]], client: EtcdMiddleware, tmp_path: Path, *args: str
) -> subprocess.Popen[str]:
    where = {"LINK_KV_ENDPOINTS": client._config.endpoints[0], "LINK_KV_PREFIX": client.prefix}
    process = link_kv("watch", *args, temporary=tmp_path, **where)
    started.append(process)
    return process


def cells(process: subprocess.Popen[str]) -> list[str]:
    """The next line, without its time."""
    time, *rest = line(process).rstrip("\n").split("\t")
    assert re.fullmatch(r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d", time)
    return rest


def interrupted(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    os.killpg(process.pid, signal.SIGINT)
    return end(process)


def test_items_with_their_values_first(
    watching: list[subprocess.Popen[str]], etcd_client: EtcdMiddleware, tmp_path: Path
) -> None:
    process = watch(watching, etcd_client, tmp_path, "oven.*", "--formatted")
    assert sorted(cells(process) for _ in range(2)) == [
        ["=", "oven.door", "shut"],
        ["=", "oven.temp", "20.0 C"],
    ]
    etcd_client["/oven/temp"] = 21
    assert cells(process) == ["=", "oven.temp", "21.0 C"]
    etcd_client["/oven/door"] = "a\tb\n\x1b[31m"
    assert cells(process) == ["=", "oven.door", r"a\tb\n\x1b[31m"]
    del etcd_client["/oven/door"]
    assert cells(process) == ["-", "oven.door"]
    assert interrupted(process) == (0, "", "")


def test_a_path(watching: list[subprocess.Popen[str]], etcd_client: EtcdMiddleware, tmp_path: Path) -> None:
    process = watch(watching, etcd_client, tmp_path, "/oven", "oven.temp", "--json")
    first = json.loads(line(process))  # the item's value: by now the path is followed too
    assert (first["item"], first["value"], first["inferred"]) == ("oven.temp", 20, False)
    etcd_client["/oven/other"] = {"a": [], "b": b"x"}
    lines = [json.loads(line(process)) for _ in range(2)]
    assert [(each["path"], each["value"]) for each in lines] == [
        ("/oven/other/a", []),
        ("/oven/other/b", {"$bytes": "eA=="}),
    ]
    del etcd_client["/oven/other"]
    assert {json.loads(line(process))["path"] for _ in range(2)} == {"/oven/other/a", "/oven/other/b"}
    assert interrupted(process)[0] == 0


def test_through_a_restart(watching: list[subprocess.Popen[str]], tmp_path: Path) -> None:
    with local.start(tmp_path / "data") as server, EtcdMiddleware(endpoints=server.endpoints) as client:
        client["/oven"] = {"temp": 1, "door": 1}
        process = watch(watching, client, tmp_path, "oven")
        assert len([cells(process) for _ in range(2)]) == 2
        port = int(server.endpoints[0].rpartition(":")[2])
        server.stop()
        assert process.stderr is not None
        assert "changes do not come at the moment" in process.stderr.readline()
        with local.start(tmp_path / "data", port=port):
            client["/oven/temp"] = 2
            assert process.stderr.readline().endswith("changes come again\n")
            assert cells(process) == ["=", "oven.temp", "2"]
            assert interrupted(process) == (0, "", "")


def test_history_that_is_gone_is_told(watching: list[subprocess.Popen[str]], tmp_path: Path) -> None:
    with (
        local.start() as server,
        Proxy(server.endpoints[0]) as proxy,
        EtcdMiddleware(endpoints=[proxy.endpoint]) as reached,
        EtcdMiddleware(endpoints=server.endpoints) as client,
    ):
        client["/oven"] = {"temp": 1, "door": 1}
        process = watch(watching, reached, tmp_path, "oven")
        assert len([cells(process) for _ in range(2)]) == 2
        proxy.close()
        assert process.stderr is not None
        assert "changes do not come at the moment" in process.stderr.readline()
        client["/oven/temp"] = 2
        del client["/oven/door"]
        etcd3 = client.etcd3
        etcd3.compact(client.put("/oven/temp", 3))
        etcd3.close()
        proxy.reopen()
        assert {tuple(cells(process)) for _ in range(2)} == {("~", "oven.temp", "3"), ("~", "oven.door")}
        # etcd opens the watch again before it says that what it asks for was compacted.
        told = [process.stderr.readline()]
        while "history is gone" not in told[-1]:
            assert re.search("changes come again$|changes do not come at the moment", told[-1]), told
            told.append(process.stderr.readline())
        assert told[-1].endswith("changes come again; history is gone, ~ marks what was inferred\n")
        client["/oven/temp"] = 4
        assert cells(process) == ["=", "oven.temp", "4"]
        assert interrupted(process) == (0, "", "")


def test_on_a_terminal_there_are_colours(cli: Cli, etcd_client: EtcdMiddleware) -> None:
    etcd_client["/oven"] = {"temp": 20}
    status, text = on_terminal(*cli.options, "watch", "oven", talk=(("oven.temp", "\x03"),))
    assert status == 0
    assert re.search("\x1b\\[33m=\x1b\\[0m  \x1b\\[36moven.temp\x1b\\[0m  20", text), text


def test_a_mistake_is_one_line(
    watching: list[subprocess.Popen[str]], etcd_client: EtcdMiddleware, tmp_path: Path
) -> None:
    status, output, errors = end(watch(watching, etcd_client, tmp_path, "oven.nothing"))
    assert (status, output) == (1, "")
    assert errors.startswith("link-kv: oven.nothing: no such key")
    assert errors.count("\n") == 1
