"""What a write under a lock does, while it is held and when it is lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from link_kv import EtcdMiddleware, Lock, Session
from link_kv.errors import (
    Conflict,
    KeyExists,
    LockLost,
    NotFound,
)
from tests.leases import claims, connect, delete, leases, revoke
from tests.locking import BOUND, Taker, lease_of
from tests.wire.proxy import Proxy


@pytest.fixture
def endpoint(etcd: Any) -> str:
    found: str = etcd.endpoints[0]
    return found


@pytest.fixture
def proxy(endpoint: str) -> Iterator[Proxy]:
    with Proxy(endpoint) as proxy:
        yield proxy


# Fencing

WRITES: dict[str, Callable[[EtcdMiddleware], object]] = {
    "assign": lambda client: client.__setitem__("/leaf", 2),
    "assign a tree": lambda client: client.__setitem__("/tree", {"a": {"c": 3}}),
    "assign below an empty dict": lambda client: client.__setitem__("/empty/a", 1),
    "del": lambda client: client.__delitem__("/leaf"),
    "put": lambda client: client.put("/leaf", 2),
    "put at a revision": lambda client: client.put("/leaf", 2, revision=client.entry("/leaf").revision),
    "put for a while": lambda client: client.put("/leaf", 2, ttl=60),
    "create": lambda client: client.create("/new", 1),
    "create below an empty dict": lambda client: client.create("/empty/a", 1),
    "setdefault": lambda client: client.setdefault("/new", 1),
    "setdefault below an empty dict": lambda client: client.setdefault("/empty/a", 1),
    "delete": lambda client: client.delete("/tree"),
    "delete an item": lambda client: client.delete("/list/1"),
    "delete in an item": lambda client: client.delete("/list/3/x"),
    "pop": lambda client: client.pop("/tree"),
    "pop an item": lambda client: client.pop("/list/2"),
    "popitem": lambda client: client.popitem(),
    "update": lambda client: client.update({"/leaf": 2, "/tree/a": 5}),
    "update much": lambda client: client.update({f"/many/{number}": number for number in range(40)}),
    "update with |=": lambda client: client.__ior__({"/leaf": 2}),
    "clear": lambda client: client.clear(),
    "append": lambda client: client.append("/list", "z"),
    "append to nothing": lambda client: client.append("/new", "z"),
    "tree": lambda client: client.tree("/tree").update(a=1),
    "list edit": lambda client: client.tree("/list").insert(0, "z"),
    "list item": lambda client: client.tree("/list").__setitem__(0, "z"),
    "transaction": lambda client: client.transaction(lambda t: t.__setitem__("/leaf", t["/leaf"] + 1)),
    "blind transaction": lambda client: client.transaction(lambda t: t.__setitem__("/empty/a", 1)),
    "raw": lambda client: client.raw.__setitem__(b"/raw", b"1"),
    "raw delete": lambda client: client.raw.__delitem__(client.prefix.encode() + b"/leaf"),
    "session": lambda client: Session(client).put("/leaf", 2),
}


def fill(client: EtcdMiddleware) -> None:
    client["/leaf"] = 1
    client["/tree"] = {"a": {"b": 1}, "c": 2}
    client["/list"] = ["a", "b", {"x": 1}]
    client["/empty"] = {}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_every_kind_of_write_happens_under_a_lock_that_is_held(
    etcd_client: EtcdMiddleware, write: Callable[[EtcdMiddleware], object]
) -> None:
    """Exactly as it does without a lock."""
    fill(etcd_client)
    write(etcd_client)
    expected = dict(etcd_client.items())
    etcd_client.clear()
    etcd_client.raw.pop(b"/raw", None)
    fill(etcd_client)
    with Lock(etcd_client, "name") as lock:
        write(lock.client)
        assert dict(etcd_client.items()) == expected
    etcd_client.raw.pop(b"/raw", None)


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_no_kind_of_write_happens_under_a_lock_that_is_lost(
    etcd_client: EtcdMiddleware, endpoint: str, write: Callable[[EtcdMiddleware], object]
) -> None:
    """Neither when only etcd knows that it is lost, nor when this side does."""
    fill(etcd_client)
    lock = Lock(etcd_client, "name", ttl=60)
    lock.acquire()
    client = lock.client
    delete(endpoint, lock._acquired()._key)
    before, known = dict(etcd_client.raw), leases(endpoint)
    with pytest.raises(LockLost, match=r"lock name: .*nothing was written"):
        write(client)
    assert dict(etcd_client.raw) == before
    with pytest.raises(LockLost, match="its key is gone"):
        lock.release()
    with pytest.raises(LockLost, match="released; nothing was written"):
        write(client)
    assert dict(etcd_client.raw) == before
    if write is not WRITES["session"]:
        assert leases(endpoint) <= known


def test_reading_through_a_lost_lock_goes_on(etcd_client: EtcdMiddleware, endpoint: str) -> None:
    lock = Lock(etcd_client, "name", ttl=60)
    lock.acquire()
    etcd_client["/a"] = 1
    client = lock.client
    delete(endpoint, lock._acquired()._key)
    assert client["/a"] == 1
    assert dict(client.items()) == {"/a": 1}
    assert client.transaction(lambda t: t["/a"]) == 1
    with pytest.raises(LockLost):
        lock.release()


def test_conflicts_of_a_write_itself_are_told_from_a_lost_lock(etcd_client: EtcdMiddleware) -> None:
    with Lock(etcd_client, "name") as lock:
        lock.client["/a"] = 1
        with pytest.raises(KeyExists):
            lock.client.create("/a", 2)
        with pytest.raises(Conflict):
            lock.client.put("/a", 2, revision=1)
        with pytest.raises(NotFound):
            del lock.client["/b"]
        assert etcd_client["/a"] == 1


def test_the_client_of_a_lock_is_one_object_while_it_is_held(etcd_client: EtcdMiddleware) -> None:
    lock = Lock(etcd_client, "name")
    with lock:
        first = lock.client
        assert lock.client is first
        assert first.prefix == etcd_client.prefix
    with lock:
        assert lock.client is not first
        lock.client["/a"] = 1
        with pytest.raises(LockLost):
            first["/a"] = 2


def test_a_lock_made_under_a_lock_has_both_fences(etcd_client: EtcdMiddleware, endpoint: str) -> None:
    outer = Lock(etcd_client, "outer", ttl=60)
    outer.acquire()
    with Lock(outer.client, "inner", ttl=60) as inner:
        inner.client["/a"] = 1
        inner.client.transaction(lambda t: t.__setitem__("/a", t["/a"] + 1))
        delete(endpoint, outer._acquired()._key)
        with pytest.raises(LockLost, match="outer"):
            inner.client["/a"] = 3
        with pytest.raises(LockLost, match="outer"):
            Lock(outer.client, "third").acquire()
        assert etcd_client["/a"] == 2
    with pytest.raises(LockLost, match="outer"):
        outer.release()


def test_those_that_share_have_fences_of_their_own(etcd_client: EtcdMiddleware, endpoint: str) -> None:
    one = Lock(etcd_client, "name", shared=True, ttl=60)
    one.acquire()
    with Lock(etcd_client, "name", shared=True, ttl=60) as two:
        assert one.token < two.token
        delete(endpoint, one._acquired()._key)
        two.client["/a"] = 2
        with pytest.raises(LockLost):
            one.client["/a"] = 1
        assert etcd_client["/a"] == 2
    with pytest.raises(LockLost):
        one.release()


# Lost


def test_a_lock_that_is_lost_in_its_block_is_told_at_the_end(
    etcd_client: EtcdMiddleware, endpoint: str
) -> None:
    lock = Lock(etcd_client, "name", ttl=60)

    def block() -> None:
        with lock:
            revoke(endpoint, lock._acquired().lease.id)
            with Lock(etcd_client, "name"):
                pass

    with pytest.raises(LockLost, match=r"name.*lost before it was released"):
        block()
    assert not lock.held
    with lock:  # and it can be acquired again
        lock.client["/a"] = 1


def test_a_lock_whose_key_was_deleted_is_told_at_the_end(etcd_client: EtcdMiddleware, endpoint: str) -> None:
    lock = Lock(etcd_client, "name", ttl=60)
    lock.acquire()
    delete(endpoint, lock._acquired()._key)
    lease = lock._acquired().lease.id
    with pytest.raises(LockLost, match=r"name: was lost .*: its key is gone"):
        lock.release()
    assert not lock.held
    assert lease not in leases(endpoint)

    def block() -> None:
        with lock:
            delete(endpoint, lock._acquired()._key)

    with pytest.raises(LockLost, match="gone"):
        block()
    with lock:  # and it can be acquired again
        lock.client["/a"] = 1


def test_what_the_block_raises_goes_before_that(etcd_client: EtcdMiddleware, endpoint: str) -> None:
    def block() -> None:
        with Lock(etcd_client, "name", ttl=60) as lock:
            revoke(endpoint, lock._acquired().lease.id)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        block()


def test_a_holder_that_is_cut_off_knows_at_its_deadline(
    etcd_client: EtcdMiddleware, proxy: Proxy, etcd_prefix: str
) -> None:
    with connect(proxy.endpoint, etcd_prefix, timeout=20.0) as client:
        lock = Lock(client, "name", ttl=5)
        lock.acquire()
        token, fenced = lock.token, lock.client
        proxy.hold()
        assert lock.lost.wait(BOUND)
        assert not lock.held
        began = time.monotonic()
        with pytest.raises(LockLost, match="lost"):
            fenced["/a"] = 1
        assert time.monotonic() - began < 10  # without asking etcd
        with Lock(etcd_client, "name") as other:
            assert other.token > token
        proxy.cut()
        proxy.release()
        with pytest.raises(LockLost):
            lock.release()
        assert "/a" not in etcd_client


def test_a_place_in_the_queue_that_is_lost_is_told(etcd_client: EtcdMiddleware, endpoint: str) -> None:
    with Lock(etcd_client, "name") as lock:
        taker = Taker(Lock(etcd_client, "name", ttl=5)).waits(etcd_client, 1)
        (waiting,) = set(claims(etcd_client)) - {lock._acquired()._key}
        revoke(endpoint, lease_of(etcd_client, waiting))
        assert taker.done.wait(BOUND)
        assert isinstance(taker.error, LockLost)
        assert "queue" in str(taker.error)


def test_a_place_in_the_queue_that_is_deleted_is_told(etcd_client: EtcdMiddleware, endpoint: str) -> None:
    with Lock(etcd_client, "name") as lock:
        taker = Taker(Lock(etcd_client, "name", ttl=5)).waits(etcd_client, 1)
        (waiting,) = set(claims(etcd_client)) - {lock._acquired()._key}
        delete(endpoint, waiting)
        assert taker.done.wait(BOUND)
        assert isinstance(taker.error, LockLost)
