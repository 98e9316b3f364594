"""``link-kv user``, ``link-kv auth``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from link_kv import AccessDenied, ConfigError, KeyExists, NotFound, local
from link_kv.local import LocalEtcd

from ..logins import ANN, ROOT, client_of, server_with_logins
from .command import call, on_terminal
from .conftest import Cli


@pytest.fixture
def own() -> Iterator[Cli]:
    """The command line on a server of a test's own, which asks nobody."""
    with local.start() as etcd:
        yield Cli(etcd, "/app")


@pytest.fixture(scope="module")
def locked() -> Iterator[LocalEtcd]:
    with server_with_logins() as etcd:
        yield etcd


def secret(tmp_path: Path, password: str) -> list[str]:
    file = tmp_path / "password"
    file.write_text(password + "\n")
    return ["--password-file", str(file)]


def test_users_come_change_and_go(own: Cli, tmp_path: Path) -> None:
    assert own("user", "list") == ""
    assert own("user", "add", "ann", *secret(tmp_path, "one")) == "user ann is added\n"
    own("user", "add", "bob", "--no-password")
    own("role", "add", "reader")
    assert own("user", "grant", "ann", "reader") == "user ann has the role reader\n"
    assert own("user", "list") == "ann\treader\nbob\t-\n"
    assert json.loads(own("user", "list", "--json")) == {"ann": ["reader"], "bob": []}
    assert own("user", "revoke", "ann", "reader") == "user ann has the role reader no more\n"
    assert own("user", "delete", "bob") == "user bob is deleted\n"
    assert own("user", "list") == "ann\t-\n"


def test_a_password_is_changed(own: Cli, tmp_path: Path) -> None:
    for name in ("root", "ann"):
        own("user", "add", name, *secret(tmp_path, "before"))
    own("user", "passwd", "ann", *secret(tmp_path, "after"))
    assert own("auth", "status") == "authentication is off\n"
    assert own("auth", "enable") == "authentication is on\n"
    assert own("auth", "status") == "authentication is on\n"
    with client_of(own.etcd, ("ann", "after")) as client, pytest.raises(AccessDenied, match="permission"):
        client["/a"]
    with (
        client_of(own.etcd, ("ann", "before")) as client,
        pytest.raises(AccessDenied, match="authentication"),
    ):
        client["/a"]
    as_root = Cli(own.etcd, "/app")
    login = ["--user", "root", *secret(tmp_path, "before")]
    assert as_root(*login, "user", "list") == "ann\t-\nroot\troot\n"
    assert json.loads(as_root(*login, "auth", "status", "--json")) == {"enabled": True}
    assert as_root(*login, "auth", "disable") == "authentication is off\n"
    assert own("user", "list") == "ann\t-\nroot\troot\n"


def test_authentication_without_the_user_root(own: Cli) -> None:
    assert "add the user root first" in own.fails(ConfigError, "auth", "enable")
    assert own("auth", "status") == "authentication is off\n"


def test_a_password_is_typed_twice_and_not_shown(own: Cli) -> None:
    talk = [("Password for ann:", "s3cret"), ("Repeat for confirmation:", "s3cret")]
    status, shown = on_terminal(*own.options, "user", "add", "ann", talk=talk)
    assert (status, shown.count("s3cret")) == (0, 0)
    assert "user ann is added" in shown


def test_a_password_is_never_on_the_command_line(own: Cli) -> None:
    assert "No such option" in call(*own.options, "user", "add", "ann", "--password", "x").stderr
    done = call(*own.options, "user", "add", "ann")
    assert done.returncode == 1
    assert done.stderr == "link-kv: user ann: no terminal to ask for the password; give --password-file\n"
    assert own("user", "list") == ""


def test_what_is_refused(own: Cli, tmp_path: Path) -> None:
    own("user", "add", "ann", "--no-password")
    assert own.fails(KeyExists, "user", "add", "ann", "--no-password") == "user ann: user name already exists"
    assert own.fails(NotFound, "user", "delete", "bob") == "user bob: user name not found"
    assert (
        own.fails(NotFound, "user", "passwd", "bob", *secret(tmp_path, "x"))
        == "user bob: user name not found"
    )
    assert own.fails(NotFound, "user", "grant", "ann", "none") == "user ann, role none: role name not found"
    assert "not granted" in own.fails(NotFound, "user", "revoke", "ann", "none")
    assert "must be a str that is not empty" in own.fails(ConfigError, "user", "add", "", "--no-password")


def test_without_the_role_root(locked: LocalEtcd, tmp_path: Path) -> None:
    cli = Cli(locked, "/app")
    login = ["--user", ANN[0], *secret(tmp_path, ANN[1])]
    assert (
        cli.fails(AccessDenied, *login, "user", "list") == "users: needs etcd's role root, which ann has not"
    )
    assert "role root, which ann has not" in cli.fails(AccessDenied, *login, "user", "delete", "root")
    assert "role root, which ann has not" in cli.fails(AccessDenied, *login, "role", "add", "mine")
    assert "role root, which ann has not" in cli.fails(AccessDenied, *login, "auth", "disable")
    assert "give user=" in cli.fails(AccessDenied, "user", "list")
    root = ["--user", ROOT[0], *secret(tmp_path, ROOT[1])]
    assert cli(*root, "user", "list") == "ann\tstore-writer\nroot\troot\n"


def test_a_name_that_is_no_line(own: Cli) -> None:
    own("user", "add", "a\nb\x1b", "--no-password")
    assert own("user", "list") == "a\\nb\\x1b\t-\n"
