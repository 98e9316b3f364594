"""What a server refuses because it is full, or because a request is too large."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from link_kv import EtcdMiddleware, local
from link_kv._core.wire.calls import RANGE, run
from link_kv._core.wire.exchange import Exchange
from link_kv._core.wire.requests import range_request
from link_kv.errors import NoSpace, TooLarge
from link_kv.plan import Get, Plan, Put, absent
from tests.wire.conftest import Connect

DEFAULT_LIMIT = 1536 * 1024


# A full database


def fill(client: EtcdMiddleware) -> None:
    # etcd compares its size after it committed a batch, so that a fast disk takes far more than the quota.
    for number in range(1000):
        try:
            client[f"/fill/{number % 20}"] = "x" * 1_000_000
        except NoSpace:
            return
    raise AssertionError("there is space for all of it")


@pytest.fixture(scope="module")
def full() -> Iterator[local.LocalEtcd]:
    """A server whose space is used up, with something in it below ``/full``."""
    with local.start(args=["--quota-backend-bytes=4194304"]) as etcd:
        with EtcdMiddleware(endpoints=etcd.endpoints, prefix="/full", timeout=20) as client:
            client["/leaf"] = 1
            client["/tree"] = {"a": 1, "deep": {"b": [1, 2, 3]}}
            client["/list"] = ["x", "y"]
            for number in range(30):
                client[f"/gone/{number}"] = number
                client[f"/tree-of-gone/{number}/a"] = number
            fill(client)
        yield etcd


@pytest.fixture
def client(full: local.LocalEtcd, connect: Connect) -> EtcdMiddleware:
    return connect(*full.endpoints, prefix="/full")


@pytest.mark.parametrize(
    "write",
    [
        lambda client: client.__setitem__("/new", 1),
        lambda client: client.__setitem__("/leaf", 2),
        lambda client: client.__setitem__("/tree", {"c": 1}),
        lambda client: client.put("/new", 1, ttl=60),
        lambda client: client.put("/leaf", 1, revision=client.entry("/leaf").revision),
        lambda client: client.create("/new", 1),
        lambda client: client.append("/list", 1),
        lambda client: client.update({"/new": 1}),
        lambda client: client.setdefault("/new", 1),
        lambda client: client.raw.__setitem__(b"/full/new", b"1"),
    ],
)
def test_a_full_server_refuses_what_would_grow_it(
    client: EtcdMiddleware, write: Callable[[EtcdMiddleware], Any]
) -> None:
    before = client.snapshot("/tree"), client["/leaf"], client["/list"]
    with pytest.raises(NoSpace, match=r"etcd refuses writes.*space exceeded.*disarm") as caught:
        write(client)
    assert isinstance(caught.value, OSError)
    assert (client.snapshot("/tree"), client["/leaf"], client["/list"]) == before
    assert "/new" not in client


def test_a_full_server_can_be_read(client: EtcdMiddleware) -> None:
    assert client["/leaf"] == 1
    assert client["/tree"] == {"a": 1, "deep": {"b": [1, 2, 3]}}
    assert client["/list/1"] == "x"
    assert client.snapshot("/tree/deep") == {"b": [1, 2, 3]}
    assert client.snapshot()["leaf"] == 1
    assert client.get("/nothing") is None
    entry = client.entry("/tree")
    assert entry.value["a"] == 1
    assert client.at(entry.revision)["/tree"] == entry.value
    assert "/tree" in client
    assert "/leaf" in client
    assert "/nothing" not in client
    paths = list(client)
    assert "/tree/deep/b/3" in paths
    assert len(client) == len(paths)
    assert [path for path, _ in client.items()] == paths
    assert dict(client.items())["/tree/deep/b/3"] == 3
    assert client.raw[b"/full/leaf"] == b"1"
    assert client
    assert client.tree("/tree")["deep"]["b"][0] == 1


@pytest.mark.parametrize(
    "remove",
    [
        lambda client, path: client.__delitem__(path),
        lambda client, path: client.delete(path),
        lambda client, path: client.pop(path),
    ],
)
def test_a_full_server_can_be_emptied(
    client: EtcdMiddleware, remove: Callable[[EtcdMiddleware, str], Any]
) -> None:
    leaf = next(path for path in client if path.startswith("/gone/"))
    tree = next(path for path in client if path.startswith("/tree-of-gone/")).rpartition("/")[0]
    for path in (leaf, tree):
        remove(client, path)
        assert path not in client
        with pytest.raises(KeyError):
            remove(client, path)
    assert client["/tree"] == {"a": 1, "deep": {"b": [1, 2, 3]}}


def test_what_pop_gives_of_a_full_server(client: EtcdMiddleware) -> None:
    tree = next(path for path in client if path.startswith("/tree-of-gone/")).rpartition("/")[0]
    number = int(tree.rpartition("/")[2])
    assert client.pop(tree) == {"a": number}
    assert client.pop(tree, "nothing") == "nothing"
    path, value = client.popitem()
    assert path not in client
    assert value is not None


def test_the_items_of_a_list_need_space(client: EtcdMiddleware) -> None:
    """Those behind move up, which writes."""
    with pytest.raises(NoSpace):
        del client["/list/1"]
    assert client["/list"] == ["x", "y"]


def test_a_full_server_that_was_emptied_takes_writes_again(connect: Connect) -> None:
    """As the message says: delete, compact, defragment, disarm."""
    with local.start(args=["--quota-backend-bytes=4194304"]) as etcd:
        client = connect(*etcd.endpoints, timeout=20)
        fill(client)
        client.clear(force=True)
        assert list(client) == []
        maintenance = client.etcd3
        maintenance.compact(_revision(client), physical=True)
        maintenance.defragment()
        for alarm in maintenance.list_alarms():
            maintenance.disarm_alarm(alarm.member_id)
        maintenance.close()
        client["/a"] = 1


def _revision(client: EtcdMiddleware) -> int:
    answer = run(client._space.caller.call(RANGE, range_request(Get(b"a"))))
    return int(answer.header.revision)


# Requests that are too large


@pytest.mark.parametrize("size", [DEFAULT_LIMIT, DEFAULT_LIMIT + 400_000, 3 * 1024 * 1024, 8 * 1024 * 1024])
def test_a_value_that_is_too_large(etcd: Any, connect: Connect, size: int) -> None:
    client = connect(*etcd.endpoints, timeout=20)
    client["/a"] = "before"
    with pytest.raises(
        TooLarge, match=rf"^/a: the request has \d+ bytes, .* limit of {DEFAULT_LIMIT} "
    ) as caught:
        client["/a"] = "x" * size
    found = re.search(r"has (\d+) bytes", str(caught.value))
    assert found is not None
    assert size < int(found[1]) < size + 1000
    assert client["/a"] == "before"


def test_a_value_that_just_fits(etcd: Any, connect: Connect) -> None:
    client = connect(*etcd.endpoints, timeout=20)
    client["/a"] = value = "x" * (DEFAULT_LIMIT - 400)
    assert client["/a"] == value


def test_a_tree_that_is_too_large(etcd: Any, connect: Connect) -> None:
    client = connect(*etcd.endpoints, timeout=20)
    client["/t"] = {"a": 1}
    with pytest.raises(TooLarge, match=r"^/t: .*nothing was written"):
        client["/t"] = {str(number): "x" * 1000 for number in range(2000)}
    assert client["/t"] == {"a": 1}


@pytest.mark.parametrize("count", [1700, 3000])
@pytest.mark.parametrize(
    "replace",
    [
        lambda client: client.__setitem__("/t", {}),
        lambda client: client.__setitem__("/t", {"x": 1}),
        lambda client: client.put("/t", {}, ttl=600),
        lambda client: client.tree("/t").clear(),
        lambda client: client.update({"/t": {"x": 1}, "/u": {str(number): 1 for number in range(200)}}),
        lambda client: client.update({"/t": {"x": 1}, **{f"/u/{number}": 1 for number in range(200)}}),
    ],
)
def test_a_tree_whose_keys_are_too_many_for_one_request_is_replaced(
    etcd: Any, connect: Connect, count: int, replace: Callable[[EtcdMiddleware], Any]
) -> None:
    """By a delete of what is between the new keys."""
    client = connect(*etcd.endpoints, timeout=20)
    names = [f"{number:04}" + "x" * 1000 for number in range(count)]
    for start in range(0, count, 1000):
        client.update({f"/t/{name}": 1 for name in names[start : start + 1000]})
    client["/t-"] = client["/t0"] = "sibling"
    client.raw[client.prefix.encode() + b"/t/.link/items/y"] = b"kept"
    replace(client)
    assert client["/t"] in ({}, {"x": 1})
    assert (client["/t-"], client["/t0"]) == ("sibling", "sibling")
    assert client.raw[client.prefix.encode() + b"/t/.link/items/y"] == b"kept"


def test_more_operations_than_can_be_nested_below_many_compares(etcd: Any, connect: Connect) -> None:
    client = connect(*etcd.endpoints, timeout=20)
    at = client._space.place("/t")
    compares = tuple(absent(b"%s/%d" % (at.key, number)) for number in range(110))
    plan = Plan(compares, [Put(at.key, b"1")] * 60_000)
    with pytest.raises(TooLarge, match=r"^/t: \d+ operations with 110 compares .*nothing was written"):
        run(Exchange(client._space).commit(plan, "/t"))
    assert "/t" not in client


def test_the_limit_that_the_server_was_given(connect: Connect) -> None:
    with local.start(args=["--max-request-bytes=100000"]) as etcd:
        client = connect(*etcd.endpoints, timeout=20)
        client["/a"] = "x" * 90_000
        for size in (100_000, 500_000, 700_000):
            with pytest.raises(TooLarge, match="limit of 100000 "):
                client["/a"] = "x" * size
    with local.start(args=["--max-request-bytes=8000000"]) as etcd:
        client = connect(*etcd.endpoints, timeout=20)
        client["/a"] = "x" * 7_900_000
        assert len(client["/a"]) == 7_900_000
        with pytest.raises(TooLarge, match="limit of 8000000 "):
            client["/a"] = "x" * 8_100_000


def test_an_answer_may_be_of_any_size(etcd: Any, connect: Connect) -> None:
    client = connect(*etcd.endpoints, timeout=20)
    for number in range(8):
        client[f"/big/{number}"] = "x" * 1_000_000
    assert sum(map(len, client["/big"].values())) == 8_000_000
