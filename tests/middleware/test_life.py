"""A client's life: made without connecting, shared by threads, closed; and what it does not give away."""

from __future__ import annotations

import copy
import logging
import pickle
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from link_kv import EtcdMiddleware, local
from link_kv.errors import (
    AccessDenied,
    Closed,
    ConfigError,
    LinkKVError,
    NoSpace,
    OutcomeUnknown,
    Unavailable,
)
from tests.processes import _base64, ask


def test_a_client_is_a_mutable_mapping(client: EtcdMiddleware) -> None:
    assert isinstance(client, MutableMapping)


def test_constructing_never_connects() -> None:
    begun = time.monotonic()
    client = EtcdMiddleware(endpoints=["192.0.2.1:2379"], prefix="/a", timeout=20)
    assert time.monotonic() - begun < 10, "nobody is there, and that takes all of the timeout to learn"
    assert "192.0.2.1:2379/a" in repr(client)
    assert client.prefix == "/a"
    client.close()


def test_where_no_server_is_nothing_was_written(tmp_path: Any) -> None:
    with EtcdMiddleware(endpoints=["127.0.0.1:1"], timeout=0.5) as client:
        for use in (
            lambda: client["/a"],
            lambda: client.put("/a", 1),
            lambda: list(client),
            lambda: "/a" in client,
        ):
            with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1") as caught:
                use()
            assert isinstance(caught.value, ConnectionError)
            assert not isinstance(caught.value, OutcomeUnknown)


def test_host_and_endpoints_are_not_given_together() -> None:
    with pytest.raises(ConfigError, match="host"):
        EtcdMiddleware("localhost", endpoints=["localhost:2379"])


def test_a_client_is_a_context_manager_and_may_be_closed_twice(etcd: Any, etcd_prefix: str) -> None:
    with EtcdMiddleware(endpoints=etcd.endpoints, prefix=etcd_prefix) as client:
        client["/a"] = 1
        assert client.__enter__() is client
    client.close()
    client.close()
    never = EtcdMiddleware(endpoints=etcd.endpoints)
    never.close()
    never.close()


def test_after_close_every_verb_says_so(etcd: Any, etcd_prefix: str) -> None:
    client = EtcdMiddleware(endpoints=etcd.endpoints, prefix=etcd_prefix)
    client["/a"] = {"x": [1]}
    begun, past, tree, items = iter(client), client.at(1), client.tree("/a"), client.tree("/a/x")
    client.close()
    uses: list[Any] = [
        *(lambda: client["/a"], lambda: client.get("/a"), lambda: "/a" in client, lambda: list(client)),
        *(
            lambda: len(client),
            lambda: bool(client),
            lambda: list(client.items()),
            lambda: client.entry("/a"),
        ),
        *(
            lambda: client.__setitem__("/a", 1),
            lambda: client.__delitem__("/a"),
            lambda: client.pop("/a", None),
        ),
        *(lambda: client.put("/a", {}), lambda: client.put("/a", 1, ttl=5), lambda: client.create("/a", 1)),
        *(lambda: client.update({"/a": 1}), lambda: client.append("/a/x", 1), lambda: client.popitem()),
        *(lambda: client.clear(), lambda: client.setdefault("/a", 1), lambda: client.delete("/a")),
        *(lambda: client.snapshot(), lambda: client.tree("/a"), lambda: past["/a"], lambda: tree["x"]),
        *(lambda: items[0], lambda: items.append(1), lambda: list(begun), lambda: client.raw[b"/a"]),
        lambda: client.raw.__setitem__(b"/a", b""),
    ]
    for use in uses:
        with pytest.raises(Closed) as caught:
            use()
        assert isinstance(caught.value, RuntimeError)
        assert isinstance(caught.value, LinkKVError)


def test_a_client_compares_by_identity(etcd: Any, client: EtcdMiddleware) -> None:
    with EtcdMiddleware(endpoints=etcd.endpoints, prefix=client.prefix) as twin:
        assert client == client
        assert client != twin
        assert client != dict(client.items())
        assert len({client, twin, client}) == 2
        assert hash(client) == hash(client)


def test_a_client_is_no_value_to_pickle_or_copy(client: EtcdMiddleware) -> None:
    for use in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="pickled"):
            use(client)
    with pytest.raises(TypeError, match="pickled"):
        pickle.dumps(client.tree("/"))


def test_neither_repr_nor_log_nor_error_shows_the_password(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    url = "etcd://user:s3cr%2Fet@127.0.0.1:1/prefix?timeout=0.3"
    shown = []
    for client in (
        EtcdMiddleware.from_url(url),
        EtcdMiddleware(endpoints=["127.0.0.1:1"], user="user", password="s3cr/et", timeout=0.3),
    ):
        shown += [repr(client), str(client), repr(client.tree), repr(client.raw), repr(client.at(1))]
        with pytest.raises(Unavailable) as caught:
            client["/a"]
        shown += [str(caught.value), repr(caught.value)]
        client.close()
    text = " ".join([*shown, caplog.text])
    assert "user@127.0.0.1:1/prefix" in text
    assert "s3cr" not in text


def test_threads_share_a_client(client: EtcdMiddleware) -> None:
    start = threading.Barrier(8)

    def work(number: int) -> Any:
        start.wait(20)
        for turn in range(10):
            client[f"/t{number}"] = {"turn": turn, "list": [turn] * 3}
            assert client[f"/t{number}"]["turn"] == turn
            client.append("/l", number)
        return list(client.items())

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert sorted(client["/l"]) == sorted(list(range(8)) * 10)
    assert all(client[f"/t{number}/turn"] == 9 for number in range(8))


def test_a_client_works_on_both_sides_of_a_fork(etcd: Any, client: EtcdMiddleware) -> None:
    script = """
        import os, sys
        from link_kv import EtcdMiddleware

        client = EtcdMiddleware(endpoints=[sys.argv[1]], prefix=sys.argv[2])
        client['/before'] = 1
        child = os.fork()
        client['/child' if child == 0 else '/parent'] = client['/before']
        if child == 0:
            client.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        client['/after'] = sorted(client)
        """
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), etcd.endpoints[0], client.prefix],
        check=True,
        timeout=60,
        capture_output=True,
    )
    assert client["/"] == {"before": 1, "child": 1, "parent": 1, "after": ["/before", "/child", "/parent"]}


def test_closing_goes_on_to_the_end_whatever_raises(client: EtcdMiddleware) -> None:
    client["/a"] = 1
    done = []

    def fails() -> None:
        raise OSError("no more")

    client._at_close += [lambda: done.append(client["/a"]), fails, lambda: done.append(client["/a"])]
    with pytest.raises(OSError, match="no more"):
        client.close()
    assert done == [1, 1]
    with pytest.raises(Closed):
        client["/a"]
    client.close()


def test_several_threads_close_at_once(client: EtcdMiddleware) -> None:
    class Late(list[Any]):
        """What another thread takes between a look and a pop."""

        def __bool__(self) -> bool:
            return True

    client._at_close = Late()
    client.close()
    with pytest.raises(Closed):
        client["/a"]


def test_etcd3_is_a_client_of_that_package_on_the_same_cluster(client: EtcdMiddleware) -> None:
    import etcd3

    client["/a"] = "x"
    other = client.etcd3
    try:
        assert isinstance(other, etcd3.Etcd3Client)
        assert other.get(f"{client.prefix}/a")[0] == b"x"
        assert other.status().version.startswith("3.")
        assert len(list(other.members)) >= 1
        assert list(other.list_alarms()) == []
    finally:
        other.close()


# Servers that refuse


@pytest.fixture
def server() -> Iterator[Any]:
    """An etcd for this test alone."""
    with local.start() as running:
        yield running


def test_a_full_server_still_reads(server: Any) -> None:
    with EtcdMiddleware(endpoints=server.endpoints, prefix="/p") as client:
        value = {"x": 1, "l": ["a", {"k": 2}]}
        revision = client.put("/a", value)
        member = int(ask(server.endpoints[0], "/v3/maintenance/status", {})["header"]["member_id"])
        alarm = {"action": "ACTIVATE", "memberID": member, "alarm": "NOSPACE"}
        assert ask(server.endpoints[0], "/v3/maintenance/alarm", alarm)["alarms"]
        for write in (
            lambda: client.put("/a", 1),
            lambda: client.put("/b", {"x": 1}),
            lambda: client.put("/b", 1, ttl=5),
            lambda: client.update({"/b": 1}),
            lambda: client.append("/a/l", 1),
            lambda: client.create("/b", 1),
        ):
            with pytest.raises(NoSpace) as caught:
                write()
            assert isinstance(caught.value, OSError)
        assert client["/a"] == client.snapshot("/a", revision=revision) == value
        assert client["/"] == {"a": value}
        assert client.entry("/a").revision == revision
        assert len(client) == 3
        assert client
        assert "/a/l" in client
        assert client.tree("/a") == value
        alarm["action"] = "DEACTIVATE"
        ask(server.endpoints[0], "/v3/maintenance/alarm", alarm)
        client["/a"] = 2
        assert client["/"] == {"a": 2}


@pytest.fixture
def guarded(server: Any) -> Any:
    """An etcd with a user who may read below /app and write below /app/store."""
    endpoint = server.endpoints[0]
    for path, body in (
        ("user/add", {"name": "root", "password": "root"}),
        ("role/add", {"name": "root"}),
        ("user/grant", {"user": "root", "role": "root"}),
        ("user/add", {"name": "app", "password": "s3cret"}),
        ("role/add", {"name": "app"}),
        ("user/grant", {"user": "app", "role": "app"}),
        ("role/grant", {"name": "app", "perm": permission("READ", "/app/", "/app0")}),
        ("role/grant", {"name": "app", "perm": permission("READWRITE", "/app/store", "/app/store0")}),
        ("enable", {}),
    ):
        answer = ask(endpoint, f"/v3/auth/{path}", body)
        assert "error" not in answer, answer
    return server


def permission(kind: str, start: str, end: str) -> dict[str, str]:
    return {"permType": kind, "key": _base64(start), "range_end": _base64(end)}


def test_a_role_reads_the_whole_prefix_and_writes_its_part(guarded: Any) -> None:
    with EtcdMiddleware(endpoints=guarded.endpoints, prefix="/app", user="app", password="s3cret") as client:
        revision = client.put("/store/x", 1)
        assert client.put("/store", {"y": {"z": [1, 2]}}) == revision + 1
        client.update({"/store/y/z/1": "one", "/store/w": {}})
        client.append("/store/y/z", 3)
        del client["/store/y/z/2"]
        assert client.pop("/store/w") == {}
        assert client["/"] == {"store": {"y": {"z": ["one", 3]}}}
        assert list(client) == ["/store/y/z/1", "/store/y/z/2"]
        for write in (
            lambda: client.put("/other/x", 1),
            lambda: client.put("/other", {"x": 1}),
            lambda: client.update({"/store/x": 1, "/other": 2}),
            lambda: client.delete("/other/x"),
            lambda: client.create("/other", 1),
        ):
            with pytest.raises(AccessDenied, match=r"^/(other|store)\S*: ") as caught:
                write()
            assert isinstance(caught.value, PermissionError)
        assert client["/"] == {"store": {"y": {"z": ["one", 3]}}}


def test_who_may_not_come_in_is_told_without_the_password(guarded: Any) -> None:
    for login in ({"user": "app", "password": "wr0ng"}, {"user": "nobody", "password": "wr0ng"}, {}):
        with (
            EtcdMiddleware(endpoints=guarded.endpoints, prefix="/app", **login) as client,
            pytest.raises(AccessDenied) as caught,
        ):
            client["/store"]
        assert "wr0ng" not in str(caught.value)
    with (
        EtcdMiddleware(
            endpoints=guarded.endpoints, prefix="/elsewhere", user="app", password="s3cret"
        ) as client,
        pytest.raises(AccessDenied),
    ):
        client["/store"]
