"""Locks on a real etcd: who gets them, in which order, and what a write under a lost one does."""

from __future__ import annotations

import itertools
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from link_kv import EtcdMiddleware, Lock, Session, local
from link_kv._core.calls import run
from link_kv._core.exchange import Exchange
from link_kv.errors import (
    Closed,
    ConfigError,
    Conflict,
    EncodeError,
    KeyExists,
    LeaseLost,
    LockLost,
    LockRefused,
    NotFound,
    PathError,
    Unavailable,
)
from link_kv.plan import Get
from tests.leases import Program, claims, connect, delete, leases, nothing_left, revoke
from tests.processes import ask, until
from tests.wire.proxy import Proxy


def lease_of(client: EtcdMiddleware, key: bytes) -> int:
    """The lease that a key is under."""
    lease: int = run(Exchange(client._space).range(Get(key))).kvs[0].lease
    return lease


def leader_of(cluster: local.LocalCluster) -> local.LocalEtcd:
    """The member that leads."""
    for member in cluster.members:
        status = ask(member.endpoints[0], "/v3/maintenance/status", {})
        if status["leader"] == status["header"]["member_id"]:
            return member
    raise AssertionError("no leader")


BOUND = 15.0
"""Seconds after which something that should happen at once did not happen."""


@pytest.fixture
def endpoint(etcd: Any) -> str:
    found: str = etcd.endpoints[0]
    return found


@pytest.fixture
def proxy(endpoint: str) -> Iterator[Proxy]:
    with Proxy(endpoint) as proxy:
        yield proxy


class Taker:
    """A thread that acquires a lock, holds it until it is told, and releases it."""

    def __init__(self, lock: Lock, timeout: float | None = BOUND) -> None:
        self.lock = lock
        self.got: bool | None = None
        self.error: Exception | None = None
        self.done = threading.Event()
        self._let_go = threading.Event()
        self._timeout = timeout
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.got = self.lock.acquire(self._timeout)
        except Exception as error:  # noqa: BLE001 - the test looks at it
            self.error = error
        self.done.set()
        if self.got:
            self._let_go.wait(BOUND)
            self.lock.release()

    def waits(self, client: EtcdMiddleware, behind: int) -> Taker:
        """Wait until it stands in the queue behind so many others."""
        until(lambda: len(claims(client)) > behind or self.done.is_set())
        assert not self.done.is_set()
        return self

    def holds(self) -> Taker:
        assert self.done.wait(BOUND)
        assert self.got, self.error
        return self

    def let_go(self) -> None:
        self._let_go.set()
        self._thread.join(BOUND)
        assert not self._thread.is_alive()


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
        with nothing_left(endpoint):
            began = time.monotonic()
            assert other.acquire(timeout) is False
            assert timeout <= time.monotonic() - began < timeout + 0.5
            assert claims(etcd_client) == before


def test_a_wait_that_is_longer_than_the_ttl(etcd_client: EtcdMiddleware) -> None:
    first = Taker(Lock(etcd_client, "name")).holds()
    second = Taker(Lock(etcd_client, "name", ttl=2)).waits(etcd_client, 1)
    assert not second.done.wait(4)
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
    second = Taker(Lock(etcd_client, "name"), timeout=1.5).waits(etcd_client, 1)
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
    writer = Taker(Lock(etcd_client, "name"), timeout=1).waits(etcd_client, 1)
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
    lock.release()
    with pytest.raises(LockLost, match="released; nothing was written"):
        write(client)
    assert dict(etcd_client.raw) == before
    if write is not WRITES["session"]:
        assert leases(endpoint) <= known


def test_reading_through_a_lost_lock_goes_on(etcd_client: EtcdMiddleware, endpoint: str) -> None:
    with Lock(etcd_client, "name", ttl=60) as lock:
        etcd_client["/a"] = 1
        client = lock.client
        delete(endpoint, lock._acquired()._key)
        assert client["/a"] == 1
        assert dict(client.items()) == {"/a": 1}
        assert client.transaction(lambda t: t["/a"]) == 1


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
    with Lock(etcd_client, "outer", ttl=60) as outer, Lock(outer.client, "inner", ttl=60) as inner:
        inner.client["/a"] = 1
        inner.client.transaction(lambda t: t.__setitem__("/a", t["/a"] + 1))
        delete(endpoint, outer._acquired()._key)
        with pytest.raises(LockLost, match="outer"):
            inner.client["/a"] = 3
        with pytest.raises(LockLost, match="outer"):
            Lock(outer.client, "third").acquire()
        assert etcd_client["/a"] == 2


def test_those_that_share_have_fences_of_their_own(etcd_client: EtcdMiddleware, endpoint: str) -> None:
    with (
        Lock(etcd_client, "name", shared=True, ttl=60) as one,
        Lock(etcd_client, "name", shared=True, ttl=60) as two,
    ):
        assert one.token < two.token
        delete(endpoint, one._acquired()._key)
        two.client["/a"] = 2
        with pytest.raises(LockLost):
            one.client["/a"] = 1
        assert etcd_client["/a"] == 2


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
    with connect(proxy.endpoint, etcd_prefix, timeout=1.0) as client:
        lock = Lock(client, "name", ttl=2)
        lock.acquire()
        token, fenced = lock.token, lock.client
        proxy.hold()
        assert lock.lost.wait(5)
        assert not lock.held
        began = time.monotonic()
        with pytest.raises(LockLost, match="lost"):
            fenced["/a"] = 1
        assert time.monotonic() - began < 0.5  # without asking etcd
        with Lock(etcd_client, "name") as other:
            assert other.token > token
        proxy.cut()
        proxy.release()
        with pytest.raises(LockLost):
            lock.release()
        assert "/a" not in etcd_client


def test_a_place_in_the_queue_that_is_lost_is_told(etcd_client: EtcdMiddleware, endpoint: str) -> None:
    with Lock(etcd_client, "name") as lock:
        taker = Taker(Lock(etcd_client, "name", ttl=2)).waits(etcd_client, 1)
        (waiting,) = set(claims(etcd_client)) - {lock._acquired()._key}
        revoke(endpoint, lease_of(etcd_client, waiting))
        assert taker.done.wait(BOUND)
        assert isinstance(taker.error, LockLost)
        assert "queue" in str(taker.error)


def test_a_place_in_the_queue_that_is_deleted_is_told(etcd_client: EtcdMiddleware, endpoint: str) -> None:
    with Lock(etcd_client, "name") as lock:
        taker = Taker(Lock(etcd_client, "name", ttl=2)).waits(etcd_client, 1)
        (waiting,) = set(claims(etcd_client)) - {lock._acquired()._key}
        delete(endpoint, waiting)
        assert taker.done.wait(BOUND)
        assert isinstance(taker.error, LockLost)


# Failures of etcd


def test_closing_the_client_ends_the_waiting(
    etcd_client: EtcdMiddleware, endpoint: str, etcd_prefix: str
) -> None:
    with Lock(etcd_client, "name"):
        client = connect(endpoint, etcd_prefix)
        taker = Taker(Lock(client, "name", ttl=60)).waits(etcd_client, 1)
        client.close()
        assert taker.done.wait(5)
        assert isinstance(taker.error, Closed)


def test_waiting_goes_on_while_etcd_is_restarted(etcd_prefix: str) -> None:
    with local.start() as server, connect(server.endpoints[0], etcd_prefix) as client:
        first = Taker(Lock(client, "name", ttl=30)).holds()
        second = Taker(Lock(client, "name", ttl=30), timeout=60).waits(client, 1)
        server.restart()
        assert not second.done.is_set()
        first.lock.client["/a"] = 1  # the lock has outlived the restart
        first.let_go()
        second.holds().let_go()
        assert second.error is None


def test_waiting_goes_on_while_the_leader_changes(etcd_prefix: str) -> None:
    with local.start_cluster() as cluster:
        client = EtcdMiddleware(endpoints=cluster.endpoints, prefix=etcd_prefix, timeout=10)
        with client:
            first = Taker(Lock(client, "name", ttl=30)).holds()
            second = Taker(Lock(client, "name", ttl=30), timeout=60).waits(client, 1)
            leader_of(cluster).kill()
            assert not second.done.wait(2)
            first.lock.client["/a"] = 1
            first.let_go()
            second.holds().let_go()


def test_waiting_for_a_while_ends_in_time_though_etcd_does_not_answer(
    etcd_client: EtcdMiddleware, proxy: Proxy, etcd_prefix: str
) -> None:
    with connect(proxy.endpoint, etcd_prefix, timeout=5.0) as client, Lock(etcd_client, "name"):
        began = time.monotonic()
        taker = Taker(Lock(client, "name", ttl=60), timeout=2).waits(etcd_client, 1)
        proxy.hold()
        assert taker.done.wait(BOUND)
        assert 2 <= time.monotonic() - began < 4.5  # and a second for letting go
        assert taker.got is False
        proxy.release()


def test_a_place_in_the_queue_whose_answer_was_lost_is_taken_all_the_same(
    etcd_client: EtcdMiddleware, proxy: Proxy, endpoint: str, etcd_prefix: str
) -> None:
    with connect(proxy.endpoint, etcd_prefix, timeout=2.0) as client:
        client["/warm"] = 1
        lock = Lock(client, "name", ttl=30)
        muted = threading.Event()
        new_lease = lock._new_lease

        def muting_once_it_is_open() -> Any:
            lease = new_lease()
            open_lease = lease.open

            async def opened() -> None:
                await open_lease()
                proxy.mute()
                muted.set()

            lease.open = opened  # type: ignore[method-assign]
            return lease

        lock._new_lease = muting_once_it_is_open  # type: ignore[method-assign]
        taker = Taker(lock, timeout=20)
        assert muted.wait(BOUND)
        until(lambda: claims(etcd_client))
        proxy.cut()
        proxy.release()
        taker.holds()
        assert len(claims(etcd_client)) == 1
        lock.client["/a"] = 1
        taker.let_go()
        assert claims(etcd_client) == []


# Other processes


def test_a_lock_of_a_killed_process_is_free_after_its_ttl(
    etcd_client: EtcdMiddleware, endpoint: str, etcd_prefix: str
) -> None:
    source = (
        "from link_kv import Lock\nlock = Lock(client, 'name', ttl=2)\nlock.acquire()\nsay('held')\nhear()"
    )
    with Program(source, endpoint, etcd_prefix) as program:
        program.expect("held")
        assert not Lock(etcd_client, "name").acquire(0)
        program.signal(signal.SIGKILL)
        assert Lock(etcd_client, "name").acquire(10)


def test_ctrl_c_ends_the_waiting_and_leaves_nothing(
    etcd_client: EtcdMiddleware, endpoint: str, etcd_prefix: str
) -> None:
    source = """
from link_kv import Lock
try:
    say('waits')
    Lock(client, 'name', ttl=60).acquire()
except KeyboardInterrupt:
    say('interrupted', any(thread.name == 'link-kv-sessions' for thread in threading.enumerate()))
"""
    with Lock(etcd_client, "name", ttl=60) as lock:
        mine, known = claims(etcd_client), leases(endpoint)
        with Program(source, endpoint, etcd_prefix) as program:
            program.expect("waits")
            until(lambda: len(claims(etcd_client)) == 2)
            program.signal(signal.SIGINT)
            program.expect("interrupted False")
            assert claims(etcd_client) == mine
            assert leases(endpoint) == known
            assert program.finish() == 0
        assert lock.held


@pytest.mark.parametrize("after", [0.0, 0.001, 0.002, 0.004])
def test_ctrl_c_at_any_moment_of_acquiring(
    etcd_client: EtcdMiddleware, endpoint: str, etcd_prefix: str, after: float
) -> None:
    source = """
import signal
from link_kv import Lock
client.get('/warm')
lock = Lock(client, 'name', ttl=3600)
signal.setitimer(signal.ITIMER_REAL, 0.0005 + float(arguments[0]))
signal.signal(signal.SIGALRM, signal.default_int_handler)
try:
    lock.acquire()
    time.sleep(5)
except KeyboardInterrupt:
    pass
if lock.held:
    lock.release()
say('done')
"""
    known = leases(endpoint)
    with Program(source, endpoint, etcd_prefix, str(after)) as program:
        program.expect("done")
        assert claims(etcd_client) == []
        until(lambda: leases(endpoint) <= known, 3)


def test_a_forked_child_does_not_hold_what_its_parent_holds(
    etcd_client: EtcdMiddleware, endpoint: str, etcd_prefix: str
) -> None:
    source = """
from link_kv import Lock
from link_kv.errors import LockLost
lock = Lock(client, 'name', ttl=2)
other = Lock(client, 'other', ttl=2)
lock.acquire()
fenced = lock.client
fenced['/parent'] = 1
child = os.fork()
if child == 0:
    said = [lock.held]
    write = lambda: lock.client.put('/child', 1)
    for act in (lambda: fenced.put('/child', 1), write, lock.release, lock.release):
        try:
            act()
        except LockLost as error:
            said.append('fork' in str(error))
    said += [fenced['/parent'], lock.acquire(0), other.acquire(0), other.held]
    other.client['/child'] = 2
    other.release()
    say(*said)
    os._exit(0)
os.waitpid(child, 0)
say(lock.held)
time.sleep(3)
fenced['/parent'] = 2
lock.release()
say('released')
"""
    with Program(source, endpoint, etcd_prefix) as program:
        program.expect("False True True True True 1 False True True")
        program.expect("True")
        program.expect("released")
        assert dict(etcd_client.items()) == {"/parent": 2, "/child": 2}
        assert claims(etcd_client) == []


def test_tokens_of_all_locks_are_told_apart(etcd_client: EtcdMiddleware) -> None:
    with Lock(etcd_client, "a") as a, Lock(etcd_client, "b") as b:
        assert len({a.token, b.token}) == 2
        assert all(isinstance(lock.token, int) and lock.token > 0 for lock in (a, b))


def test_errors_of_a_lost_lock_are_those_of_a_lost_lease() -> None:
    assert issubclass(LockLost, LeaseLost)
    for one, other in itertools.permutations((LockLost, LockRefused), 2):
        assert not issubclass(one, other)
