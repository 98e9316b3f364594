"""Locks while etcd fails, the network is cut, and processes die, stop and fork."""

from __future__ import annotations

import itertools
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from link_kv import EtcdMiddleware, Lock, local
from link_kv.errors import (
    Closed,
    LeaseLost,
    LockLost,
    LockRefused,
    Unavailable,
)
from tests.leases import Program, claims, connect, leases
from tests.locking import BOUND, Taker, be_patient, leader_of
from tests.processes import until
from tests.wire.proxy import Proxy


@pytest.fixture
def endpoint(etcd: Any) -> str:
    found: str = etcd.endpoints[0]
    return found


@pytest.fixture
def proxy(endpoint: str) -> Iterator[Proxy]:
    with Proxy(endpoint) as proxy:
        yield proxy


# Failures of etcd


def test_closing_the_client_ends_the_waiting(
    etcd_client: EtcdMiddleware, endpoint: str, etcd_prefix: str
) -> None:
    with Lock(etcd_client, "name"):
        client = connect(endpoint, etcd_prefix)
        taker = Taker(Lock(client, "name", ttl=60)).waits(etcd_client, 1)
        client.close()
        assert taker.done.wait(BOUND)
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
    with connect(proxy.endpoint, etcd_prefix, timeout=20.0) as client, Lock(etcd_client, "name"):
        began = time.monotonic()
        taker = Taker(Lock(client, "name", ttl=60), timeout=4).waits(etcd_client, 1)
        proxy.hold()
        assert taker.done.wait(BOUND)
        assert 4 <= time.monotonic() - began < 10  # and a second for letting go
        assert taker.got is False
        proxy.release()


@pytest.mark.parametrize("timeout", [0.0, 1.5])
def test_asking_an_etcd_that_does_not_answer_ends_in_time(
    proxy: Proxy, etcd_prefix: str, timeout: float
) -> None:
    with connect(proxy.endpoint, etcd_prefix, timeout=30.0) as client:
        client["/warm"] = 1
        proxy.hold()
        began = time.monotonic()
        with pytest.raises(Unavailable):
            Lock(client, "name", ttl=60).acquire(timeout)
        assert time.monotonic() - began < max(1.0, timeout) + 10  # two seconds for letting go
        proxy.release()


def test_a_place_in_the_queue_whose_answer_was_lost_is_taken_all_the_same(
    etcd_client: EtcdMiddleware, proxy: Proxy, endpoint: str, etcd_prefix: str
) -> None:
    with connect(proxy.endpoint, etcd_prefix, timeout=20.0) as client:
        client["/warm"] = 1
        lock = Lock(client, "name", ttl=30)
        muted = threading.Event()
        new_lease = lock._new_lease

        def muting_once_it_is_open() -> Any:
            lease = new_lease()
            open_lease = lease.open

            async def opened(seconds: float | None) -> None:
                await open_lease(seconds)
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
    etcd_client: EtcdMiddleware, endpoint: str, etcd_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    be_patient(monkeypatch)
    source = (
        "from link_kv import Lock\nlock = Lock(client, 'name', ttl=5)\nlock.acquire()\nsay('held')\nhear()"
    )
    with Program(source, endpoint, etcd_prefix) as program:
        program.expect("held")
        assert not Lock(etcd_client, "name").acquire(0)
        program.signal(signal.SIGKILL)
        assert Lock(etcd_client, "name").acquire(20)


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
            assert leases(endpoint) <= known  # those of others may have expired
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
signal.signal(signal.SIGALRM, signal.default_int_handler)
try:
    signal.setitimer(signal.ITIMER_REAL, 0.0005 + float(arguments[0]))
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
        until(lambda: leases(endpoint) <= known)


def test_a_forked_child_does_not_hold_what_its_parent_holds(
    etcd_client: EtcdMiddleware, endpoint: str, etcd_prefix: str
) -> None:
    source = """
from link_kv import Lock
from link_kv.errors import LockLost
from link_kv._core.leasing import locks
from tests.leases import kept_alive
locks._ASK = 20
lock = Lock(client, 'name', ttl=5)
other = Lock(client, 'other', ttl=5)
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
kept_alive(lock._acquired().lease)
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
