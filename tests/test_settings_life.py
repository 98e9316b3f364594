"""Processes that follow a configuration: how they end, fork, lose their connection, and what they may do."""

from __future__ import annotations

import base64
import os
import queue
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic_settings import BaseSettings

from link_kv import AccessDenied, EtcdMiddleware, local
from link_kv._core.cluster.auth import take_role
from link_kv._core.configuration.applied import acknowledgements, schemas
from link_kv._core.wire.calls import run
from link_kv.errors import LinkKVError
from link_kv.settings import follow
from tests.leases import Program, leases, nothing_left, revoke
from tests.processes import ask, until

PATH = "/myproject/server"

PROGRAM = """
from pydantic_settings import BaseSettings
from link_kv.settings import follow
class Server(BaseSettings):
    port: int = 8080
followed = follow(Server, '/myproject/server', client=client)
say('follows')
hear()
"""


class Server(BaseSettings):
    port: int = 8080


def told(client: EtcdMiddleware) -> list[Any]:
    return run(acknowledgements(client._exchange(), PATH))[1]


def test_a_program_that_ends_is_not_shown_any_more(
    etcd: Any, etcd_client: EtcdMiddleware, etcd_prefix: str
) -> None:
    with Program(PROGRAM, etcd.endpoints[0], etcd_prefix) as program:
        program.expect("follows")
        until(lambda: [each.pid for each in told(etcd_client)] == [program.pid])
        assert program.finish() == 0
        assert told(etcd_client) == []
        assert run(schemas(etcd_client._exchange(), PATH)) == {}


def test_a_program_that_is_killed_is_not_shown_for_long(
    etcd: Any, etcd_client: EtcdMiddleware, etcd_prefix: str
) -> None:
    with Program(PROGRAM, etcd.endpoints[0], etcd_prefix) as program:
        program.expect("follows")
        until(lambda: len(told(etcd_client)) == 1)
        program.signal(signal.SIGKILL)
        until(lambda: not told(etcd_client), 30)


def test_following_leaves_nothing_behind(etcd: Any, etcd_client: EtcdMiddleware) -> None:
    assert PATH not in etcd_client
    with (
        nothing_left(etcd.endpoints[0]),
        EtcdMiddleware(endpoints=etcd.endpoints, prefix=etcd_client.prefix) as client,
    ):
        followed = follow(Server, PATH, client=client)
        until(lambda: len(told(etcd_client)) == 1)
        followed.close()
        assert client._at_close == []
        with follow(Server, PATH, client=client):
            until(lambda: len(told(etcd_client)) == 1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_keeps_what_was_in_force_and_leaves_its_parent_alone(
    etcd_client: EtcdMiddleware,
) -> None:
    with follow(Server, PATH, client=etcd_client) as followed:
        assert followed.wait(etcd_client.put(f"{PATH}/port", 1), 10)
        until(lambda: len(told(etcd_client)) == 1)
        child = os.fork()
        if not child:
            right = followed.state == "lost" and followed.current.port == 1
            followed.close()
            os._exit(0 if right else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert followed.wait(etcd_client.put(f"{PATH}/port", 2), 10)
        assert len(told(etcd_client)) == 1


def test_a_lease_that_was_lost_is_replaced(etcd: Any, etcd_client: EtcdMiddleware) -> None:
    before = leases(etcd.endpoints[0])
    with follow(Server, PATH, client=etcd_client) as followed:
        until(lambda: len(told(etcd_client)) == 1)
        for lease in leases(etcd.endpoints[0]) - before:
            revoke(etcd.endpoints[0], lease)
        revision = etcd_client.put(f"{PATH}/port", 2)
        assert followed.wait(revision, 10)
        until(lambda: [each.seen for each in told(etcd_client)] == [revision])
        until(lambda: len(run(schemas(etcd_client._exchange(), PATH))) == 1)


# Restarts and roles


@pytest.fixture
def server() -> Iterator[local.LocalEtcd]:
    """An etcd of the test's own, to do with as it likes."""
    with local.start() as server:
        yield server


def test_it_goes_on_through_a_restart(server: local.LocalEtcd) -> None:
    with EtcdMiddleware(endpoints=server.endpoints, timeout=5) as client:
        client[f"{PATH}/port"] = 1
        with follow(Server, PATH, client=client) as followed:
            until(lambda: len(told(client)) == 1)
            server.kill()
            until(lambda: followed.state == "stale")
            assert followed.current.port == 1
            server.restart()
            revision = client.put(f"{PATH}/port", 2)
            assert followed.wait(revision, 30)
            assert followed.current.port == 2
            until(lambda: [each.seen for each in told(client)] == [revision], 30)
            until(lambda: followed.state == "live")


def permission(kind: str, start: str, end: str) -> dict[str, str]:
    return {
        "permType": kind,
        "key": base64.b64encode(start.encode()).decode(),
        "range_end": base64.b64encode(end.encode()).decode(),
    }


@pytest.fixture
def guarded(server: local.LocalEtcd) -> local.LocalEtcd:
    """An etcd with logins: ``app`` reads /app, ``told`` may also say what it has in force."""
    endpoint = server.endpoints[0]
    reading = permission("READ", "/app/", "/app0")
    telling = permission("READWRITE", "/app/.link", "/app/.link0")
    for path, body in (
        ("user/add", {"name": "root", "password": "root"}),
        ("role/add", {"name": "root"}),
        ("user/grant", {"user": "root", "role": "root"}),
        ("role/add", {"name": "read"}),
        ("role/grant", {"name": "read", "perm": reading}),
        ("role/add", {"name": "tell"}),
        ("role/grant", {"name": "tell", "perm": telling}),
        ("user/add", {"name": "app", "password": "s3cret"}),
        ("user/grant", {"user": "app", "role": "read"}),
        ("user/add", {"name": "told", "password": "s3cret"}),
        ("user/grant", {"user": "told", "role": "read"}),
        ("user/grant", {"user": "told", "role": "tell"}),
        ("enable", {}),
    ):
        answer = ask(endpoint, f"/v3/auth/{path}", body)
        assert "error" not in answer, answer
    return server


def connect(server: local.LocalEtcd, user: str, prefix: str = "/app") -> EtcdMiddleware:
    password = "root" if user == "root" else "s3cret"
    return EtcdMiddleware(endpoints=server.endpoints, prefix=prefix, user=user, password=password)


def test_a_role_that_may_only_read_follows_and_says_so_once(
    guarded: local.LocalEtcd, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        connect(guarded, "root") as root,
        connect(guarded, "app") as client,
        follow(Server, PATH, client=client) as followed,
    ):
        for port in (1, 2):
            assert followed.wait(root.put(f"{PATH}/port", port), 10)
            assert followed.current.port == port
        until(lambda: "could not be told, which is not tried again" in caplog.text)
        assert told(root) == []
        assert caplog.text.count("could not be told") == 1
        assert "s3cret" not in caplog.text
    with connect(guarded, "app", "/other") as client, pytest.raises(AccessDenied):
        follow(Server, PATH, client=client)


def test_who_may_not_read_any_more_is_told_and_shown(guarded: local.LocalEtcd) -> None:
    errors: queue.Queue[LinkKVError] = queue.Queue()
    with (
        connect(guarded, "root") as root,
        connect(guarded, "told") as client,
        follow(Server, PATH, client=client, on_error=errors.put) as followed,
    ):
        assert followed.wait(root.put(f"{PATH}/port", 1), 10)
        until(lambda: [each.state for each in told(root)] == ["applied"])
        run(take_role(root._exchange(), "told", "read"))
        guarded.restart()
        assert isinstance(errors.get(timeout=30), AccessDenied)
        assert (followed.state, followed.current.port) == ("lost", 1)
        assert isinstance(followed.error, AccessDenied)
        until(lambda: [each.state for each in told(root)] == ["rejected"], 30)
        assert told(root)[0].message.startswith("not followed any more: ")
    assert errors.empty()
