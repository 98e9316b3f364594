"""Locks on a real etcd: who gets them, and in which order."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

import pytest

from link_kv import EtcdMiddleware, Lock
from link_kv.errors import (
    ConfigError,
    EncodeError,
    LockLost,
    LockRefused,
    PathError,
    Unavailable,
)
from tests.leases import claims, connect, kept_alive, nothing_left
from tests.locking import BOUND, Taker, be_patient
from tests.processes import until


@pytest.fixture
def endpoint(etcd: Any) -> str:
    found: str = etcd.endpoints[0]
    return found


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    be_patient(monkeypatch)


# Acquiring and releasing


def test_one_holds_it_at_a_time(etcd_client: EtcdMiddleware) -> None:
    with Lock(etcd_client, "name") as lock:
        assert lock.held
        other = Lock(etcd_client, "name")
        assert not other.acquire(0)
        assert not other.acquire(0.2)
        assert not other.held
        assert claims(etcd_client) == [lock._acquired()._key]
    assert not lock.held
    assert other.acquire(0)
    other.release()
    assert claims(etcd_client) == []


def test_the_key_of_a_lock_can_be_read_by_people(etcd_client: EtcdMiddleware) -> None:
    with Lock(etcd_client, "a b"), Lock(etcd_client, "shared one", shared=True):
        prefix = etcd_client.prefix.encode() + b"/.link/locks/"
        exclusive, shared = sorted(claims(etcd_client))
        assert exclusive.startswith(prefix + b"a b/exclusive-")
        assert shared.startswith(prefix + b"shared one/shared-")
        assert b'"pid": ' in etcd_client.raw[shared]
    assert len(etcd_client) == 0  # locks are no values


@pytest.mark.parametrize("timeout", [0.0, 0.3, 1.2])
def test_a_timeout_is_kept_exactly_and_leaves_nothing(
    etcd_client: EtcdMiddleware, endpoint: str, timeout: float
) -> None:
    with Lock(etcd_client, "name", ttl=60):
        before = claims(etcd_client)
        other = Lock(etcd_client, "name", ttl=60)

        def is_in_time() -> bool:
            began = time.monotonic()
            assert other.acquire(timeout) is False
            took = time.monotonic() - began
            assert took >= timeout
            assert claims(etcd_client) == before
            return took < timeout + 0.5

        with nothing_left(endpoint):
            until(is_in_time)  # unless this process had to rest


def test_a_wait_that_is_longer_than_the_ttl(etcd_client: EtcdMiddleware) -> None:
    first = Taker(Lock(etcd_client, "name")).holds()
    second = Taker(Lock(etcd_client, "name", ttl=5)).waits(etcd_client, 1)
    (lease,) = (each for each in etcd_client._keepers[os.getpid()]._leases if each.ttl == 5)
    kept_alive(lease, 3)
    assert not second.done.is_set()
    first.let_go()
    second.holds().let_go()


@pytest.mark.parametrize("timeout", [-1, float("nan"), "1"])
def test_a_bad_timeout_is_refused(etcd_client: EtcdMiddleware, timeout: Any) -> None:
    with pytest.raises(ConfigError, match="timeout="):
        Lock(etcd_client, "name").acquire(timeout)


def test_an_endless_timeout(etcd_client: EtcdMiddleware) -> None:
    lock = Lock(etcd_client, "name")
    assert lock.acquire(float("inf"))
    lock.release()


@pytest.mark.parametrize("ttl", [0, float("nan"), "10", None])
def test_a_bad_ttl_is_refused(etcd_client: EtcdMiddleware, ttl: Any) -> None:
    with pytest.raises(ConfigError, match="ttl="):
        Lock(etcd_client, "name", ttl=ttl)


@pytest.mark.parametrize("name", ["", None, 1, b"name"])
def test_a_bad_name_is_refused(etcd_client: EtcdMiddleware, name: Any) -> None:
    with pytest.raises(PathError, match="name"):
        Lock(etcd_client, name)


def test_a_name_that_is_no_text_is_refused(etcd_client: EtcdMiddleware) -> None:
    with pytest.raises(EncodeError, match="surrogates"):
        Lock(etcd_client, "\ud800")


def test_names_are_any_text_and_each_is_a_lock_of_its_own(etcd_client: EtcdMiddleware) -> None:
    names = [
        "a",
        "a/b",
        "/a",
        "a/",
        ".",
        "..",
        ".link",
        "%",
        "%2F",
        "a%2Fb",
        "ü",
        "日本",
        "a b",
        "a\n",
        "\0",
        "A",
        "//",
    ]
    locks = [Lock(etcd_client, name) for name in names]
    for lock in locks:
        assert lock.acquire(0), lock
    assert len(claims(etcd_client)) == len(names)
    for name in names:
        assert not Lock(etcd_client, name).acquire(0), name
    for lock in locks:
        lock.release()
    assert claims(etcd_client) == []


def test_two_prefixes_are_two_locks(etcd_client: EtcdMiddleware, endpoint: str, etcd_prefix: str) -> None:
    with connect(endpoint, etcd_prefix + "/below") as other, Lock(etcd_client, "name"):
        assert Lock(other, "name").acquire(0) is True


def test_a_lock_is_used_again_and_its_token_grows(etcd_client: EtcdMiddleware) -> None:
    lock = Lock(etcd_client, "name")
    tokens = []
    for _ in range(3):
        with lock as same:
            assert same is lock
            tokens.append(lock.token)
        with Lock(etcd_client, "name") as other:
            tokens.append(other.token)
    assert tokens == sorted(set(tokens))


def test_an_object_that_is_held_or_waits_is_not_acquired_once_more(etcd_client: EtcdMiddleware) -> None:
    lock = Lock(etcd_client, "name")
    with lock, pytest.raises(LockRefused, match=r"lock name: .*another Lock"):
        lock.acquire()
    with Lock(etcd_client, "name"):
        taker = Taker(lock, timeout=BOUND).waits(etcd_client, 1)
        with pytest.raises(LockRefused):
            lock.acquire(0)
        assert not taker.done.is_set()
    taker.holds().let_go()


def test_what_is_not_held_cannot_be_released_or_used(etcd_client: EtcdMiddleware) -> None:
    lock = Lock(etcd_client, "name")
    with pytest.raises(LockRefused, match="not held"):
        lock.release()
    for use in (lambda: lock.token, lambda: lock.client, lambda: lock.lost):
        with pytest.raises(LockLost, match="not held"):
            use()
    with lock:
        pass
    with pytest.raises(LockRefused):
        lock.release()
    assert "not held" in repr(lock)


def test_a_block_is_never_entered_without_the_lock(etcd_prefix: str) -> None:
    entered = False
    with connect("127.0.0.1:1", etcd_prefix, timeout=0.5) as client:
        with pytest.raises(Unavailable), Lock(client, "name"):
            entered = True
        with pytest.raises(Unavailable):
            Lock(client, "name").acquire(0.1)
    assert not entered


def test_a_block_that_raises_releases(etcd_client: EtcdMiddleware) -> None:
    with pytest.raises(ZeroDivisionError), Lock(etcd_client, "name"):
        raise ZeroDivisionError
    assert Lock(etcd_client, "name").acquire(0)


def test_foreign_keys_among_the_claims_bar_nobody(etcd_client: EtcdMiddleware) -> None:
    directory = etcd_client.prefix.encode() + b"/.link/locks/name/"
    for key in (b"", b"notes", b"exclusive-", b"exclusive-zz", b"shared-0123456789abcdef0", b"\xff"):
        etcd_client.raw[directory + key] = b"\xff"
    with Lock(etcd_client, "name"):
        assert not Lock(etcd_client, "name").acquire(0)


# Order


def test_who_asked_first_gets_it_first(etcd_client: EtcdMiddleware) -> None:
    takers = []
    for number in range(6):
        takers.append(Taker(Lock(etcd_client, "name")))
        until(lambda number=number: len(claims(etcd_client)) == number + 1)  # type: ignore[misc]
    tokens = []
    for number, taker in enumerate(takers):
        taker.holds()
        tokens.append(taker.lock.token)
        assert not any(later.done.is_set() for later in takers[number + 1 :])
        taker.let_go()
    assert tokens == sorted(tokens)


def test_one_who_gives_up_lets_the_next_wait_for_the_one_before(etcd_client: EtcdMiddleware) -> None:
    first = Taker(Lock(etcd_client, "name")).holds()
    second = Taker(Lock(etcd_client, "name"), timeout=5).waits(etcd_client, 1)
    third = Taker(Lock(etcd_client, "name")).waits(etcd_client, 2)
    assert second.done.wait(BOUND)
    assert second.got is False
    assert not third.done.wait(0.5)
    first.let_go()
    third.holds().let_go()


def test_those_that_share_hold_it_together(etcd_client: EtcdMiddleware) -> None:
    readers = [Taker(Lock(etcd_client, "name", shared=True)).holds() for _ in range(3)]
    assert not Lock(etcd_client, "name").acquire(0)
    writer = Taker(Lock(etcd_client, "name")).waits(etcd_client, 3)
    for reader in readers:
        assert not writer.done.is_set()
        reader.let_go()
    writer.holds()
    assert not Lock(etcd_client, "name", shared=True).acquire(0)
    writer.let_go()


def test_one_that_shares_does_not_overtake_one_that_does_not(etcd_client: EtcdMiddleware) -> None:
    first = Taker(Lock(etcd_client, "name", shared=True)).holds()
    writer = Taker(Lock(etcd_client, "name")).waits(etcd_client, 1)
    late = [Taker(Lock(etcd_client, "name", shared=True)) for _ in range(2)]
    until(lambda: len(claims(etcd_client)) == 4)
    assert not Lock(etcd_client, "name", shared=True).acquire(0)
    assert not any(reader.done.is_set() for reader in late)
    first.let_go()
    writer.holds()
    assert not any(reader.done.is_set() for reader in late)
    writer.let_go()
    for reader in late:
        reader.holds()
    for reader in late:
        reader.let_go()


def test_a_writer_that_gives_up_lets_the_readers_behind_it_in(etcd_client: EtcdMiddleware) -> None:
    first = Taker(Lock(etcd_client, "name", shared=True)).holds()
    writer = Taker(Lock(etcd_client, "name"), timeout=5).waits(etcd_client, 1)
    reader = Taker(Lock(etcd_client, "name", shared=True)).waits(etcd_client, 2)
    assert writer.done.wait(BOUND)
    reader.holds().let_go()
    first.let_go()


def test_thirty_threads_that_compete(etcd_client: EtcdMiddleware, endpoint: str) -> None:
    with Lock(etcd_client, "name"):
        pass
    inside: list[int] = []
    most: list[int] = []

    def work(number: int) -> None:
        for _ in range(3):
            with Lock(etcd_client, "name", ttl=30) as lock:
                inside.append(number)
                most.append(len(inside))
                lock.client["/count"] = lock.client.get("/count", 0) + 1
                inside.remove(number)

    with nothing_left(endpoint):
        threads = [threading.Thread(target=work, args=(number,)) for number in range(30)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert max(most) == 1
    assert etcd_client["/count"] == 90
    assert claims(etcd_client) == []


def test_a_thousand_locks_held_at_once(etcd_client: EtcdMiddleware, endpoint: str) -> None:
    with Lock(etcd_client, "name"):
        pass
    with nothing_left(endpoint):
        locks = [Lock(etcd_client, f"name {number}") for number in range(1000)]
        for lock in locks:
            assert lock.acquire(0)
        assert len(claims(etcd_client)) == 1000
        assert len({lock.token for lock in locks}) == 1000
        for lock in locks:
            lock.release()
