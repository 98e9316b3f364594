"""What the tests of locks share: threads that take a lock, and claims as etcd knows them."""

from __future__ import annotations

import threading

import pytest

from link_kv import EtcdMiddleware, Lock, local
from link_kv._core.leasing import locks
from link_kv._core.wire.calls import run
from link_kv._core.wire.exchange import Exchange
from link_kv.plan import Get
from tests.leases import claims
from tests.processes import ask, until

BOUND = 15.0
"""Seconds after which something that should happen at once did not happen."""


def be_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let asking for a lock, and giving it up, take longer than a second, as on a busy machine."""
    monkeypatch.setattr(locks, "_ASK", BOUND)
    monkeypatch.setattr(locks, "_BEYOND", BOUND)


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
