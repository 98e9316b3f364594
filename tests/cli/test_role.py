"""``link-kv role``: the grants are those that docs/how-to/roles.md publishes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from link_kv import AccessDenied, KeyExists, Lock, NotFound, PathError, local
from link_kv._core.cluster import auth
from link_kv._core.wire.calls import run

from ..logins import client_of
from .conftest import Cli

PAGE = Path(__file__).parents[2] / "docs/how-to/roles.md"


@pytest.fixture
def own() -> Iterator[Cli]:
    with local.start() as etcd:
        yield Cli(etcd, "/app")


def grants(cli: Cli, role: str) -> list[auth.Grant]:
    with client_of(cli.etcd) as client:
        return run(auth.grants_of(client._exchange(), role))


def published(role: str) -> list[auth.Grant]:
    """The grants that the page's lines for etcdctl make."""
    text = PAGE.read_text(encoding="utf-8")
    found = re.findall(rf"^etcdctl role grant-permission {role} (\w+) (--prefix=true )?(\S+)$", text, re.M)
    assert found
    return [
        auth.Grant(kind, key.encode(), key[:-1].encode() + b"0" if prefix else b"")
        for kind, prefix, key in found
    ]


@pytest.mark.parametrize(
    ("role", "path", "may"),
    [
        ("app-reader", "/", "read"),
        ("store-writer", "/store", "readwrite"),
        ("link-user", "/.link", "readwrite"),
    ],
)
def test_a_grant_is_what_the_page_publishes(own: Cli, role: str, path: str, may: str) -> None:
    own("role", "add", role)
    own("role", "grant", role, path, may)
    assert grants(own, role) == published(role)
    own("role", "revoke", role, path)
    assert grants(own, role) == []


def test_roles_come_and_go(own: Cli) -> None:
    assert own("role", "list") == ""
    assert own("role", "add", "writer") == "role writer is added\n"
    assert own("role", "list") == "writer\t-\t-\n"
    assert own("role", "grant", "writer", "/", "read") == "writer\tread\t/app/*\n"
    shown = "writer\twrite\t/app/store\nwriter\twrite\t/app/store/*\n"
    assert own("role", "grant", "writer", "/store/", "write") == shown
    assert own("role", "list") == "writer\tread\t/app/*\n" + shown
    assert json.loads(own("role", "list", "--json"))["writer"][1:] == [
        {"may": "write", "key": "/app/store", "end": ""},
        {"may": "write", "key": "/app/store/", "end": "/app/store0"},
    ]
    own("role", "grant", "writer", "/store", "readwrite")  # in place of what was granted
    assert own("role", "list").count("\n") == 3
    assert own("role", "revoke", "writer", "/store") == "role writer has no more grant for /store\n"
    assert own("role", "list") == "writer\tread\t/app/*\n"
    assert own("role", "delete", "writer") == "role writer is deleted\n"
    assert own("role", "list") == ""


def test_ranges_that_others_granted_are_shown(own: Cli) -> None:
    own("role", "add", "r")
    with client_of(own.etcd) as client:
        for key, end in ((b"/a", b"/c"), (b"/x", b"\0"), (b"\0", b"\0"), (b"k\n", b"")):
            run(auth.grant(client._exchange(), "r", auth.Grant("read", key, end)))
    assert own("role", "list") == "r\tread\t\\x00…\nr\tread\t/a…/c\nr\tread\t/x…\nr\tread\tk\\n\n"


def test_what_is_refused(own: Cli) -> None:
    own("role", "add", "r")
    assert own.fails(KeyExists, "role", "add", "r") == "role r: role name already exists"
    assert own.fails(NotFound, "role", "delete", "none") == "role none: role name not found"
    assert own.fails(NotFound, "role", "grant", "none", "/a", "read") == "role none: role name not found"
    assert "nothing is granted for just /a" in own.fails(NotFound, "role", "revoke", "r", "/a")
    assert "starts with a slash" in own.fails(PathError, "role", "grant", "r", "a", "read")
    assert "'.link'" in own.fails(PathError, "role", "grant", "r", "/a/.link", "read")
    assert grants(own, "r") == []


def test_the_page_in_these_commands(own: Cli, tmp_path: Path) -> None:
    """The same users may do the same, and no more, as those made by the page's lines for etcdctl."""
    file = tmp_path / "password"
    for name in ("root", "ann", "bob"):
        file.write_text(name)
        own("user", "add", name, "--password-file", str(file))
    for role, path, may in (
        ("all", "/", "read"),
        ("store", "/store", "readwrite"),
        ("locks", "/.link", "readwrite"),
    ):
        own("role", "add", role)
        own("role", "grant", role, path, may)
        own("user", "grant", "ann", role)
    own("user", "grant", "bob", "all")
    own("auth", "enable")
    with (
        client_of(own.etcd, ("ann", "ann"), "/app") as ann,
        client_of(own.etcd, ("bob", "bob"), "/app") as bob,
    ):
        ann["/store"] = {"a": [1, 2]}
        ann["/store"] = "a leaf"
        with Lock(ann, "name") as lock:
            lock.client["/store"] = {"b": 1}
        assert bob.snapshot() == {"store": {"b": 1}}
        for client, path in ((ann, "/other"), (ann, "/stores"), (bob, "/store/b")):
            with pytest.raises(AccessDenied, match="permission denied"):
                client[path] = 1
