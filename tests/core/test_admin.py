"""What an administrator may ask of the cluster by name, and that nobody else may."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from link_kv import AccessDenied, ConfigError, EtcdMiddleware, LocalEtcdError, NotFound, aio, local
from link_kv._core.cluster.allowed import REQUESTS, answer
from link_kv._core.items import home
from link_kv._core.wire.calls import run
from link_kv._core.wire.config import Config
from link_kv.links import SHUTDOWN_MANAGER

from ..cli.command import end, line, link_kv
from ..logins import ANN, ROOT, client_of, server_with_logins
from ..processes import until


@pytest.fixture(scope="module")
def locked() -> Iterator[local.LocalEtcd]:
    with server_with_logins() as etcd:
        yield etcd


@pytest.fixture
def root(locked: local.LocalEtcd) -> Iterator[EtcdMiddleware]:
    with client_of(locked, ROOT, "/app") as client:
        yield client


def ask(client: EtcdMiddleware, attribute: str, *args: Any, **kwargs: Any) -> Any:
    return run(answer(client, attribute, *args, **kwargs))


# By the names of msl-network


def test_users_by_the_names_of_msl_network(root: EtcdMiddleware) -> None:
    assert ask(root, "users_table.usernames") == ["ann", "root"]
    assert ask(root, "users_table.is_user_registered", "N.Bohr") is False
    assert ask(root, "users_table.is_user_registered", "ann") is True
    assert ask(root, "users_table.users") == [("ann", False), ("root", True)]
    assert ask(root, "users_table.is_admin", "root") is True
    assert ask(root, "users_table.is_admin", username="ann") is False
    assert ask(root, "users_table.is_admin", "N.Bohr") is False
    assert ask(root, "users_table.is_password_valid", *ANN) is True
    assert ask(root, "users_table.is_password_valid", "ann", "wrong") is False


# By etcd's own


def test_users_and_roles(root: EtcdMiddleware) -> None:
    assert ask(root, "users.list") == ["ann", "root"]
    assert ask(root, "users.get", "ann") == {"name": "ann", "roles": ["store-writer"]}
    assert ask(root, "roles.list") == ["root", "store-writer"]
    assert ask(root, "roles.get", "store-writer") == {
        "name": "store-writer",
        "grants": [
            {"kind": "read", "key": "/app/", "end": "/app0"},
            {"kind": "readwrite", "key": "/app/store", "end": ""},
            {"kind": "readwrite", "key": "/app/store/", "end": "/app/store0"},
        ],
    }
    assert ask(root, "auth.status") == {"enabled": True}
    with pytest.raises(NotFound, match=r"^user nobody: user name not found"):
        ask(root, "users.get", "nobody")
    with pytest.raises(NotFound, match=r"^role none: role name not found"):
        ask(root, "roles.get", "none")


def test_the_cluster(root: EtcdMiddleware, locked: local.LocalEtcd) -> None:
    told = ask(root, "status")
    assert told["version"] == locked.version
    assert told["leader"] == told["member"]
    assert told["revision"] > 0
    [member] = ask(root, "members.list")
    assert member["id"] == told["member"]
    assert member["urls"] == [f"http://{locked.endpoints[0]}"]
    assert ask(root, "alarms.list") == []


def test_registered_services(root: EtcdMiddleware) -> None:
    assert ask(root, "services.list") == []
    root.raw[b"/app/.link/services/Heartbeat"] = b"{}"
    root.raw[b"/app/.link/services/Heartbeat/links/1"] = b"{}"
    root.raw[b"/app/.link/services/a%2Fb"] = b"{}"
    assert ask(root, "services.list") == ["Heartbeat", "a/b"]


async def test_the_same_for_asyncio(locked: local.LocalEtcd) -> None:
    options = {"endpoints": tuple(locked.endpoints), "prefix": "/app"}
    async with aio.EtcdMiddleware._of(Config(**options, user=ROOT[0], password=ROOT[1])) as client:
        assert await answer(client, "users_table.usernames") == ["ann", "root"]
    async with aio.EtcdMiddleware._of(Config(**options, user=ANN[0], password=ANN[1])) as client:
        with pytest.raises(AccessDenied, match="role root"):
            await answer(client, "users_table.usernames")


# What is refused


@pytest.mark.parametrize("attribute", sorted(REQUESTS))
def test_without_the_role_root_everything_is_refused(locked: local.LocalEtcd, attribute: str) -> None:
    names = {"users.get", "roles.get", "users_table.is_admin", "users_table.is_user_registered"}
    args = ["ann", "x"][: 2 if attribute.endswith("password_valid") else attribute in names]
    denied = rf"^{attribute}: needs etcd's role root, which ann has not$"
    with client_of(locked, ANN, "/app") as ann, pytest.raises(AccessDenied, match=denied):
        ask(ann, attribute, *args)
    with client_of(locked, prefix="/app") as nobody, pytest.raises(AccessDenied, match="give user="):
        ask(nobody, attribute, *args)


@pytest.mark.parametrize(
    "attribute",
    ["shutdown", "users_table", "users.list.__class__", "__class__", "users.add", "", "a.b.c"],
)
def test_what_is_not_on_the_list_is_refused(root: EtcdMiddleware, attribute: str) -> None:
    with pytest.raises(AccessDenied, match=r"is not what can be asked, which is .*users_table.usernames"):
        ask(root, attribute)


@pytest.mark.parametrize(
    ("args", "kwargs", "words"),
    [
        (["users.list", "more"], {}, "^users.list: too many positional arguments"),
        (["users.get"], {}, "^users.get: missing a required argument"),
        (["status"], {"fast": True}, "^status: got an unexpected keyword argument 'fast'"),
        (["status"], {"timeout": 0}, "^timeout=0: must be"),
        (["users.get", 5], {}, "^the name of a user: must be a str"),
    ],
)
def test_arguments_that_do_not_fit(
    root: EtcdMiddleware, args: list[Any], kwargs: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        ask(root, *args, **kwargs)


def test_where_etcd_asks_nobody_everybody_has_the_role_root() -> None:
    with local.start() as etcd, client_of(etcd) as client:
        assert ask(client, "users_table.usernames") == []
        assert ask(client, "auth.status") == {"enabled": False}


# Shutting down


def test_an_etcd_that_link_kv_up_runs_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(home, "_home", str(tmp_path / "home"))
    with link_kv("up", temporary=tmp_path, LINK_KV_HOME=str(tmp_path / "home")) as process:
        endpoint = line(process).split(" at ")[1].split(". ")[0]
        assert "Its data are in" in line(process)
        with EtcdMiddleware._of(Config(endpoints=(endpoint,), timeout=20)) as client:
            # It lets itself be found a little after it has said where it is.
            until(lambda: list((tmp_path / "home/up").glob("*")))
            assert ask(client, SHUTDOWN_MANAGER) is None
        status, output, errors = end(process)
    assert (status, errors) == (0, "")
    assert output.endswith("\netcd has stopped.\n")
    assert list((tmp_path / "home/up").iterdir()) == []


def test_any_other_etcd_is_not(root: EtcdMiddleware, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(home, "_home", str(tmp_path))
    words = r"^shutdown_manager: this etcd is not run by link-kv up on this machine, for this user"
    with pytest.raises(LocalEtcdError, match=words):
        ask(root, SHUTDOWN_MANAGER)
    told = ask(root, "status")
    (tmp_path / "up").mkdir()
    (tmp_path / "up" / f"{told['cluster']}-{told['member']}").write_text("1")  # of one that was killed
    with pytest.raises(LocalEtcdError, match=words):
        ask(root, SHUTDOWN_MANAGER)
    assert ask(root, "users.list")
