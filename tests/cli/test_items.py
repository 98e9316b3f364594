"""``link-kv`` with items: get, set, describe, list, discover."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

from link_kv import EtcdMiddleware, LinkKVError, NotFound, PathError, Refused, Unavailable, get, local

from .command import call, on_terminal
from .conftest import Cli


@pytest.fixture(autouse=True)
def oven(etcd_client: EtcdMiddleware) -> None:
    etcd_client["/Oven"] = {"TEMP": 293.15, "Door": "shut", "tree": {"a": [1, True]}}
    etcd_client["/lamp"] = {"on": True}
    store = get("oven", client=etcd_client)
    store.describe(
        "TEMP", type="numeric", units={"": "kelvin", "formatted": "degC"}, format="%.1f C", range=[0, 600]
    )
    store.describe("Door", type="string")
    store.describe("mode", type="enumerated", enumerators=["off", "on"], description="what it does")
    store.describe("Serial", settable=False, initial="A1")


def test_one_item_is_its_value(cli: Cli) -> None:
    assert cli("get", "oven.temp") == "293.15\n"
    assert cli("get", "OVEN.Door") == "shut\n"
    assert cli("get", "oven.mode") == "\n"
    assert json.loads(cli("get", "oven.tree")) == {"a": [1, True]}
    assert cli("get", "oven.temp", "--formatted") == "20.0 C\n"
    assert float(cli("get", "oven.temp", "--units", "degF")) == pytest.approx(68)
    text, _, time = cli("get", "oven.serial", "--timestamp").strip().partition("\t")
    assert text == "A1"
    assert time.startswith("20")


def test_an_array_goes_into_a_pipe_as_a_file(cli: Cli, etcd_client: EtcdMiddleware, tmp_path: Path) -> None:
    etcd_client["/Oven/image"] = np.eye(3)
    file = tmp_path / "image.npy"
    file.write_bytes(cli.raw("get", "oven.image"))
    assert np.array_equal(np.load(file), np.eye(3))
    etcd_client["/Oven/image"] = 0
    assert cli("set", "oven.image", "-", stdin=file.read_bytes()).startswith("revision ")
    assert np.array_equal(etcd_client["/Oven/image"], np.eye(3))


def test_several_items_are_a_line_each(cli: Cli) -> None:
    assert cli("get", "oven", "lamp.on") == (
        "oven.door\tshut\noven.mode\t\noven.serial\tA1\noven.temp\t293.15\n"
        'oven.tree\t{"a": [1, true]}\nlamp.on\ttrue\n'
    )
    assert cli("get", "oven.?o*", "--formatted") == "oven.door\tshut\noven.mode\t\n"
    assert cli("get", "L*.*", "o*.TEMP") == "lamp.on\ttrue\noven.temp\t293.15\n"
    line = cli("get", "oven.temp*", "--timestamp").split("\t")
    assert line[:2] == ["oven.temp", "293.15"]
    assert len(line) == 3


def test_as_json(cli: Cli, etcd_client: EtcdMiddleware) -> None:
    etcd_client["/Oven/TEMP"] = 300
    found = json.loads(cli("get", "oven.temp", "--json"))
    assert found["timestamp"] > 1e9
    assert found == {
        "item": "oven.temp",
        "value": 300,
        "formatted": "26.9 C",
        "timestamp": found["timestamp"],
        "writer": None,
        "revision": etcd_client.entry("/Oven/TEMP").revision,
        "state": "live",
    }
    assert [each["item"] for each in json.loads(cli("get", "lamp", "--json"))] == ["lamp.on"]
    assert [each["value"] for each in json.loads(cli("get", "oven.s*", "--json"))] == ["A1"]


@pytest.mark.parametrize(
    ("args", "value"),
    [
        (["oven.door", "007"], "007"),
        (["oven.door=007"], "007"),
        (["oven.door", "-5"], "-5"),
        (["oven.door", " x "], " x "),
        (["oven.door", "-"], "from a pipe"),
        (["oven.door", '"quoted"'], '"quoted"'),
        (["oven.door", '"quoted"', "--json"], "quoted"),
        (["oven.temp", "300"], 300),
        (["oven.temp", "007"], 7),
        (["oven.temp", "20 C", "--formatted"], 293.15),
        (["oven.temp", "20", "-u", "degC"], 293.15),
        (["oven.mode", "ON"], 1),
        (["oven.mode", "on", "--formatted"], 1),
        (["oven.mode=0"], 0),
        (["lamp.on", "false"], False),
        (["lamp.on", "007"], "007"),
        (["lamp.on", "7"], 7),
        (["oven.tree", '{"b": [2]}', "--json"], {"b": [2]}),
    ],
)
def test_set_asks_the_type_before_it_reads_the_text(
    cli: Cli, etcd_client: EtcdMiddleware, args: list[str], value: Any
) -> None:
    assert cli("set", *args, stdin=b"from a pipe\n").startswith(("revision ", '{"path"'))
    store, _, key = args[0].partition("=")[0].partition(".")
    found = get(store, key, client=etcd_client).value
    assert found == pytest.approx(value) if isinstance(value, float) else found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("kind", "args", "message"),
    [
        (Refused, ["set", "oven.temp", "999"], "oven.temp: 999 is outside of its range, 0 to 600"),
        (Refused, ["set", "oven.temp", "warm"], "oven.temp: 'warm' is not a number"),
        (Refused, ["set", "oven.serial", "B2"], "oven.serial: is read-only"),
        (Refused, ["set", "oven.mode", "high"], r"oven.mode: 'high' is none of 0 \(off\), 1 \(on\)"),
        (NotFound, ["set", "oven.nothing", "1"], "oven.nothing: no such key"),
        (NotFound, ["get", "oven.nothing"], "oven.nothing: no such key"),
        (NotFound, ["get", "oven.x*"], r"oven.x\*: no item is called so"),
        (NotFound, ["get", "x*"], r"x\*: no store is called so; there are Oven, lamp"),
        (LinkKVError, ["get", "nothing"], "no store 'nothing' on "),
        (PathError, ["get", ".key"], "'.key': items are named store.key"),
        (PathError, ["describe", "/Oven/TEMP"], "'/Oven/TEMP': items are named store.key"),
        (click.UsageError, ["set", "oven", "1"], "'oven': one item, store.key, is set."),
        (click.UsageError, ["set", "oven.*", "1"], "one item, store.key, is set."),
        (click.UsageError, ["set", "oven.temp", "1", "--ttl", "5"], "are for a path"),
        (click.UsageError, ["set", "/a", "1", "--formatted"], "are for items"),
        (click.UsageError, ["get", "oven.temp", "--revision", "5"], "is for a path"),
        (click.UsageError, ["get", "/Oven", "--formatted"], "are for items"),
        (click.UsageError, ["get", "/Oven", "/lamp"], "one path at a time"),
        (Refused, ["get", "oven.door", "--units", "m"], "oven.door: it has no units"),
    ],
)
def test_a_mistake(cli: Cli, kind: type[BaseException], args: list[str], message: str) -> None:
    import re

    assert re.search(message, cli.fails(kind, *args))


def test_describe(cli: Cli) -> None:
    assert cli("describe", "oven.temp", "oven.m*") == (
        "oven.temp\ttype\tnumeric\n"
        'oven.temp\tunits\t{"": "kelvin", "formatted": "degC"}\n'
        "oven.temp\tformat\t%.1f C\n"
        "oven.temp\trange\t[0, 600]\n"
        "oven.mode\ttype\tenumerated\n"
        "oven.mode\tdescription\twhat it does\n"
        'oven.mode\tenumerators\t{"0": "off", "1": "on"}\n'
    )
    assert json.loads(cli("describe", "oven.door", "--json")) == {
        "item": "oven.door",
        "path": "/Oven/Door",
        "description": {"type": "string"},
    }
    assert len(json.loads(cli("describe", "oven", "--json"))) == 5


def test_list(cli: Cli) -> None:
    assert cli("list") == "Oven\nlamp\n"
    assert json.loads(cli("list", "--json")) == ["Oven", "lamp"]
    assert cli("list", "oven") == (
        "oven.door\tstring\trw\t-\t-\n"
        "oven.mode\tenumerated\trw\t-\twhat it does\n"
        "oven.serial\t-\tr-\t-\t-\n"
        "oven.temp\tnumeric\trw\tkelvin\t-\n"
        "oven.tree\t-\trw\t-\t-\n"
    )
    assert json.loads(cli("list", "lamp", "--json")) == [
        {"item": "lamp.on", "type": "-", "access": "rw", "units": "-", "description": "-"}
    ]


def test_hostile_names_and_values_stay_on_their_line(cli: Cli, etcd_client: EtcdMiddleware) -> None:
    etcd_client["/bad"] = {"a\nb\x1b[31m": "x\ty\n"}
    get("bad", client=etcd_client).describe("a\nb\x1b[31m", description="\x1b[2J")
    for args in (["get", "bad"], ["list", "bad"], ["describe", "bad"]):
        text = cli(*args)
        assert "\x1b" not in text
        assert text.count("\n") == 1


def test_on_a_terminal_there_are_tables(etcd: local.LocalEtcd, etcd_prefix: str) -> None:
    where = {"LINK_KV_ENDPOINTS": ",".join(etcd.endpoints), "LINK_KV_PREFIX": etcd_prefix}
    for args, words in (
        (["get", "oven", "--timestamp"], ["oven.temp", "293.15", "written"]),
        (["list", "oven"], ["Item", "kelvin", "what it does"]),
        (["describe", "oven.temp"], ["/Oven/TEMP", "range", "[0, 600]"]),
    ):
        status, text = on_terminal(*args, **where)
        assert status == 0, text
        for word in words:
            assert word in text


def test_what_is_discovered_is_found_by_name(tmp_path: Path, etcd_prefix: str) -> None:
    with local.start(tmp_path / "data") as server:
        with EtcdMiddleware(endpoints=server.endpoints) as client:
            client["/pump"] = {"rate": 1}
            get("pump", client=client).describe("rate", units="l/min")
        home = {
            "LINK_KV_HOME": str(tmp_path / "home"),
            "LINK_KV_ENDPOINTS": "127.0.0.1:1",
            "LINK_KV_TIMEOUT": "2",
        }
        home |= {name: "" for name in os.environ if name == "LINK_KV_PREFIX"}
        found = call("discover", server.endpoints[0], **home)
        assert (found.returncode, found.stdout) == (0, f"{server.endpoints[0]}\tpump\n"), found.stderr
        assert json.loads(call("discover", server.endpoints[0], "--json", **home).stdout) == {
            server.endpoints[0]: ["pump"]
        }
        assert call("get", "pump.rate", **home).stdout == "1\n"
        assert call("set", "pump.rate=2", **home).stdout.startswith("revision ")
    # Offline, descriptions are there and values are not.
    assert call("describe", "pump.rate", **home).stdout == "pump.rate\tunits\tl/min\n"
    failed = call("get", "pump.rate", **home)
    assert (failed.returncode, failed.stdout) == (1, "")
    assert "could not be reached, and only the descriptions are remembered" in failed.stderr
    assert failed.stderr.count("\n") == 1


def test_when_nothing_answers_discover_says_so(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no cluster answers" in cli.fails(Unavailable, "--timeout", "0.5", "discover", "127.0.0.1:1")


def test_completion_of_items(cli: Cli) -> None:
    from link_kv.cli import _connect
    from link_kv.cli._run import link_kv

    context = click.Context(link_kv)
    context.params = {
        **dict.fromkeys(("url", "user", "password_file", "ca_cert", "cert_cert", "cert_key", "timeout")),
        "endpoints": ",".join(cli.etcd.endpoints),
        "prefix": cli.prefix,
    }
    names = click.Argument(["names"])
    assert _connect._complete(context, names, "o") == ["oven"]
    assert _connect._complete(context, names, "oven.t") == ["oven.temp", "oven.tree"]
    assert _connect._complete(context, names, "/O") == [
        "/Oven/",
        "/Oven/Door",
        "/Oven/Serial",
        "/Oven/TEMP",
        "/Oven/tree/",
    ]
