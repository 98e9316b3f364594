"""``link-kv ls`` and ``tree``, and what hostile names and values become."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from link_kv import EtcdMiddleware
from link_kv.cli._show import plain
from link_kv.tree import encode_name

from .conftest import Cli

VALUE = {"exposure": 0.5, "filters": ["red", "green"], "name": "North dome", "notes": {}, "raw": b"\0\xff"}


@pytest.fixture
def lab(etcd_client: EtcdMiddleware) -> None:
    etcd_client["/lab/camera"] = VALUE
    etcd_client["/lab-2"] = 1


@pytest.mark.usefixtures("lab")
def test_ls(cli: Cli) -> None:
    assert cli("ls") == "lab-2\nlab/\n"
    assert cli("ls", "/lab/camera") == "exposure\nfilters/\nname\nnotes/\nraw\n"
    assert cli("ls", "/lab/camera", "--limit", "2") == "exposure\nfilters/\n"
    assert cli("ls", "/lab/camera/name") == "name\n"
    assert cli("ls", "/lab/camera/notes") == ""


@pytest.mark.usefixtures("lab")
def test_ls_long(cli: Cli, etcd_client: EtcdMiddleware) -> None:
    revision = etcd_client.entry("/lab-2").revision
    assert cli("ls", "--long") == f"leaf\t1\t{revision}\t-\tlab-2\ndict\t7\t-\t-\tlab/\n"
    assert json.loads(cli("ls", "--json")) == [
        {"path": "/lab-2", "kind": "leaf", "keys": 1, "revision": revision},
        {"path": "/lab", "kind": "dict", "keys": 7},
    ]
    assert json.loads(cli("ls", "/lab/camera/filters", "--json"))[1]["path"] == "/lab/camera/filters/2"
    assert cli("ls", "/lab/camera/notes", "--json") == "[]\n"


def test_the_items_of_a_list_come_by_number(cli: Cli, etcd_client: EtcdMiddleware) -> None:
    etcd_client["/list"] = list(range(11))
    assert cli("ls", "/list").split() == [str(number) for number in range(1, 12)]
    assert cli("ls", "/list", "--limit", "3").split() == ["1", "2", "3"]


@pytest.mark.usefixtures("lab")
def test_tree(cli: Cli, etcd_client: EtcdMiddleware) -> None:
    assert cli("tree", "/lab/camera") == (
        "/lab/camera/exposure\t0.5\n"
        "/lab/camera/filters/\t[]\n"
        "/lab/camera/filters/1\tred\n"
        "/lab/camera/filters/2\tgreen\n"
        "/lab/camera/name\tNorth dome\n"
        "/lab/camera/notes/\t{}\n"
        "/lab/camera/raw\t\\xff\\x00\\xff\n"
    )
    assert cli("tree", "--depth", "1") == "/lab-2\t1\n/lab/\n"
    assert cli("tree", "/lab-2") == "/lab-2\t1\n"
    assert cli("tree", "/lab/camera", "--depth", "1", "--limit", "2") == (
        "/lab/camera/exposure\t0.5\n/lab/camera/filters/\t[]\n"
    )
    revision = etcd_client.entry("/lab/camera").revision
    assert json.loads(cli("tree", "/lab/camera/filters", "--json")) == [
        {"path": "/lab/camera/filters", "kind": "list", "revision": revision},
        {"path": "/lab/camera/filters/1", "kind": "leaf", "value": "red", "revision": revision},
        {"path": "/lab/camera/filters/2", "kind": "leaf", "value": "green", "revision": revision},
    ]


def test_a_value_and_a_tree_of_one_name_are_both_shown(cli: Cli, etcd_client: EtcdMiddleware) -> None:
    prefix = etcd_client.prefix.encode()
    for key in (b"/a", b"/a/b", b"/a-"):
        etcd_client.raw[prefix + key] = b"1"
    assert cli("ls") == "a\na-\na/\n"
    assert cli("tree") == "/a\t1\n/a-\t1\n/a/b\t1\n"
    assert cli("ls", "/a") == "a\nb\n"


HOSTILE = {
    "escape\x1b[31m": "\x1b]0;title\x07",
    "newline\nlab-2": "one\ntwo",
    "tab\t": "a\tb",
    "nul\0": "\0",
    "right to left \u202e": "\u2066\u202e",
    "c1 \x9b31m": "\x85\u2028",
    "back\\slash": "\\n",
    "half\U000e0001": "\U000e0001",
    "[bold]rich[/bold]": "[red]:smile:",
    "bytes": b"\x1b\x9b\n\xff",
}


@pytest.mark.parametrize(
    "command",
    [
        "ls /h",
        "ls /h --long",
        "ls /h --json",
        "tree /h",
        "tree /h --json",
        "diff /none /h",
        "export /h",
        "get /h",
    ],
)
def test_what_others_stored_cannot_fake_a_line(cli: Cli, etcd_client: EtcdMiddleware, command: str) -> None:
    etcd_client["/h"] = HOSTILE
    etcd_client.raw[etcd_client.prefix.encode() + b"/h/foreign"] = b"\xfe\x1b[31m"
    result = cli.run(*command.split())
    for line in result.stdout.splitlines():
        assert line.replace("\t", "").isprintable()
    if "--json" in command or command.startswith(("export", "get")):
        json.loads(result.stdout)
    else:
        assert len(result.stdout.splitlines()) == len(HOSTILE) + 1


def test_json_is_exact(cli: Cli, etcd_client: EtcdMiddleware) -> None:
    etcd_client["/h"] = {name: value for name, value in HOSTILE.items() if isinstance(value, str)}
    assert json.loads(cli("get", "/h")) == etcd_client["/h"]
    names = {item["path"] for item in json.loads(cli("ls", "/h", "--json"))}
    assert names == {f"/h/{encode_name(name)}" for name in etcd_client["/h"]}


@given(st.one_of(st.text(), st.binary()), st.one_of(st.text(), st.binary()))
def test_different_text_is_shown_as_different_text(one: Any, other: Any) -> None:
    one, other = (each.encode() if isinstance(each, str) else each for each in (one, other))
    assert plain(one).isprintable()
    assert (plain(one) == plain(other)) == (one == other)


def test_bash_reads_what_is_escaped() -> None:
    names = [name for name in HOSTILE if "\0" not in name]
    script = "\n".join(f"printf '%s\\0' $'{plain(name)}'" for name in names)
    done = subprocess.run(["bash", "-c", script], capture_output=True, check=True, env={"LC_ALL": "C.UTF-8"})
    assert done.stdout.decode().split("\0")[:-1] == names
