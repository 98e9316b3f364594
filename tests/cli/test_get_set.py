"""``link-kv get``, ``set`` and ``del``."""

from __future__ import annotations

import io
import json
import math
import re
from typing import Any

import click
import numpy as np
import pytest

from link_kv import Conflict, EtcdMiddleware, KeyExists, NotFound, PathError
from link_kv.cli._documents import DocumentError

from .conftest import Cli


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        ("5", 5),
        ("-5", -5),
        ("-0.5", -0.5),
        ("-1e5", -1e5),
        ("-Infinity", -math.inf),
        ("1.0", 1.0),
        ("true", True),
        ("null", None),
        ("red", "red"),
        ("", ""),
        ('"5"', "5"),
        ('"true"', "true"),
        ("'5'", "'5'"),
        ('{"a": 1}', '{"a": 1}'),
        ("  spaced ", "  spaced "),
        ("2024-01-01", "2024-01-01"),
        ("é\n", "é\n"),
        ("a=b", "a=b"),
        ("-", "from a pipe"),
    ],
)
def test_what_is_typed_is_what_it_looks_like(
    cli: Cli, etcd_client: EtcdMiddleware, typed: str, value: Any
) -> None:
    assert cli("set", "/a", typed, stdin=b"from a pipe\n").startswith("revision ")
    assert etcd_client["/a"] == value
    assert type(etcd_client["/a"]) is type(value)


def test_one_argument_is_split_at_its_first_equals_sign(cli: Cli, etcd_client: EtcdMiddleware) -> None:
    cli("set", "/a=b=c")
    assert etcd_client["/a"] == "b=c"
    cli("set", "/a=", "1")  # two arguments are taken as they are
    assert etcd_client["/a="] == 1
    assert cli.fails(click.UsageError, "set", "/a") == "Missing argument 'VALUE'."


def test_what_get_writes_set_reads(cli: Cli, etcd_client: EtcdMiddleware) -> None:
    array = io.BytesIO()
    np.save(array, np.arange(6).reshape(2, 3))
    for stdin in (b"5", b'"5"', b"two\nlines\n", b"\x1b[31mred\n", b"\xff\xd8 no text\n", array.getvalue()):
        cli("set", "/a", "-", stdin=stdin)
        once = cli.raw("get", "/a")
        assert once.removesuffix(b"\n") == stdin.removesuffix(b"\n")
        cli("set", "/b", "-", stdin=once)
        assert np.array_equal(etcd_client["/a"], etcd_client["/b"])
        assert type(etcd_client["/a"]) is type(etcd_client["/b"])
    assert isinstance(etcd_client["/a"], np.ndarray)


def test_a_tree_is_json(cli: Cli, etcd_client: EtcdMiddleware) -> None:
    value = {"a": [1, {"b": None}], "c": "é", "d": {}}
    assert json.loads(cli("set", "--json", "/t", json.dumps(value)))["path"] == "/t"
    assert etcd_client["/t"] == value
    assert json.loads(cli("get", "/t")) == value
    assert cli("get", "/t", "--json") == '{"a": [1, {"b": null}], "c": "é", "d": {}}\n'
    assert cli("get", "/t/a/2/b", "--json") == "null\n"
    cli("set", "--json", "/t", "-", stdin=b'{"e": -1}')
    assert etcd_client["/t"] == {"e": -1}
    assert cli.fails(DocumentError, "set", "--json", "/t", "{") == (
        "VALUE, line 1, column 2: Expecting property name enclosed in double quotes"
    )


def test_the_past(cli: Cli) -> None:
    before = cli("set", "/a", "1").split()[1]
    after = cli("set", "/a", "2", "--if-revision", before).split()[1]
    assert (cli("get", "/a"), cli("get", "/a", "--revision", before)) == ("2\n", "1\n")
    assert cli.fails(Conflict, "set", "/a", "3", "--if-revision", before) == (
        f"/a: is at revision {after}, not {before}"
    )
    assert "something is there" in cli.fails(KeyExists, "set", "/a", "3", "--if-revision", "0")
    assert cli("set", "/new", "3", "--if-revision", "0")


def test_a_time_to_live(cli: Cli, etcd_client: EtcdMiddleware) -> None:
    cli("set", "/a", "1", "--ttl", "60")
    lease = etcd_client.entry("/a").lease
    assert lease
    assert cli("ls", "--long", "/a").split("\t")[3] == f"{lease:x}"


@pytest.mark.parametrize("command", [("get",), ("del",), ("ls",), ("tree",), ("export",)])
def test_nothing_is_there(cli: Cli, command: tuple[str, ...]) -> None:
    assert cli.fails(NotFound, *command, "/none") == "/none: nothing is there"


@pytest.mark.parametrize("command", ["del", "ls", "tree", "export"])
def test_a_path_starts_with_a_slash(cli: Cli, command: str) -> None:
    assert "a path starts with a slash" in cli.fails(PathError, command, "store.key")


@pytest.mark.parametrize(
    ("args", "advice"),
    [
        (["get", "oven/temperature"], "a path starts with a slash: /oven/temperature"),
        (["get", "nope"], "a path starts with a slash: /nope"),
        (["watch", "nope.x"], "a path starts with a slash: /nope/x"),
        (["get", "a"], "holds a value, so it is no store; a path starts with a slash: /a"),
        (["set", "a", "b"], "a path starts with a slash: /a."),
        (["set", "a/b=c"], "a path starts with a slash: /a/b."),
        (["set", "s*.x", "1"], "a glob may match many."),
        (
            ["set", "store.b", "6"],
            "store.b: no such key; the store /store has a; link-kv set /store/b 6 makes one",
        ),
        (["set", "STORE.b", "-6"], "link-kv set /store/b -6 makes one"),
        (["set", "store.b", "two words"], "link-kv set /store/b 'two words' makes one"),
        (["get", "store.b"], "link-kv set /store/b VALUE makes one"),
    ],
)
def test_errors_advise_what_to_type(
    cli: Cli, etcd_client: EtcdMiddleware, args: list[str], advice: str
) -> None:
    etcd_client.update({"/a": 1, "/store": {"a": 1}})
    before = etcd_client.snapshot("/")
    said = cli.fails(Exception, *args)
    assert said.endswith(advice)
    assert not re.search(r"client\[|get\(|discover\(", said)
    assert etcd_client.snapshot("/") == before


def test_delete(cli: Cli, etcd_client: EtcdMiddleware) -> None:
    etcd_client.update({"/a": 1, "/b": 2, "/c": {"d": 3, "e": 4}, "/f": 5})
    # All is looked at before anything is deleted.
    assert cli.fails(NotFound, "del", "/a", "/none") == "/none: nothing is there"
    assert (
        cli.fails(click.ClickException, "del", "/a", "/c")
        == "/c: is a tree of 2 keys; --recursive deletes it"
    )
    assert etcd_client["/a"] == 1
    assert [line.split()[0] for line in cli("del", "/a", "/b").splitlines()] == ["revision", "revision"]
    [deleted] = json.loads(cli("del", "-r", "/c", "--json"))
    assert deleted["path"] == "/c"
    assert dict(etcd_client.items()) == {"/f": 5}
