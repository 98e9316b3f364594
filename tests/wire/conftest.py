"""What the tests of the wire share: an etcd of their own to stop and freeze, a cluster, a proxy."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from link_kv import EtcdMiddleware, aio, local
from link_kv._core.wire.config import Config
from link_kv.errors import DeadlineExceeded, OutcomeUnknown, Unavailable
from tests.processes import until
from tests.wire.proxy import Proxy

Connect = Callable[..., EtcdMiddleware]


SLACK = 3.0
"""Seconds for which a busy machine may let a thread rest. What a bound rules out takes longer than both."""


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """The block takes no longer than this, but for what the machine lets it rest."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds + SLACK


def allow(client: EtcdMiddleware | aio.EtcdMiddleware, seconds: float) -> None:
    """From now on a call of this client may take so long."""
    object.__setattr__(client._config, "timeout", seconds)


def refused(action: Callable[[], object], match: str = "refused") -> None:
    """A call fails for this reason, at its deadline of a second or less, and is not in doubt.

    Where a thread rests until its deadline, no reason is found: it is asked again.
    """
    for _ in range(5):
        with within(1), pytest.raises(Unavailable) as caught:
            action()
        assert not isinstance(caught.value, OutcomeUnknown)
        if re.search(match, str(caught.value)):
            return
    raise AssertionError(f"{caught.value} is not {match}")


def unsent(error: DeadlineExceeded) -> bool:
    """Whether a thread rested until the deadline of its call, and had sent nothing by then."""
    return str(error).endswith(" within 0 s")


def in_doubt(write: Callable[[], object]) -> None:
    """The first write that is sent is in doubt, at its deadline of a second or less."""
    for _ in range(5):
        with within(1), pytest.raises((OutcomeUnknown, DeadlineExceeded)) as caught:
            write()
        if isinstance(caught.value, OutcomeUnknown):
            assert "may or may not have happened" in str(caught.value)
            return
        assert unsent(caught.value), caught.value
    raise AssertionError("none was sent")


@pytest.fixture
def server() -> Iterator[local.LocalEtcd]:
    """A server for this test alone: it may be stopped, frozen and restarted."""
    with local.start() as etcd:
        yield etcd


@pytest.fixture(scope="module")
def cluster_of_module() -> Iterator[local.LocalCluster]:
    with local.start_cluster() as cluster:
        yield cluster


@pytest.fixture
def cluster(cluster_of_module: local.LocalCluster) -> Iterator[local.LocalCluster]:
    """A cluster of three that is whole when the test begins."""
    yield cluster_of_module
    for member in cluster_of_module.members:
        if member.running:
            member.resume()
    for member in cluster_of_module.members:
        if not member.running:
            member.restart(wait=False)
    for member in cluster_of_module.members:
        member._wait_ready()
    with EtcdMiddleware(endpoints=cluster_of_module.endpoints, timeout=30) as client:

        def whole() -> bool:
            try:
                client["/whole"] = True
            except OutcomeUnknown:  # an election may be under way
                return False
            return True

        until(whole, 60)


@pytest.fixture
def proxy(etcd: Any) -> Iterator[Proxy]:
    """A way to the shared server that can be cut."""
    with Proxy(etcd.endpoints[0]) as proxy:
        yield proxy


@pytest.fixture(autouse=True)
def shared_server_survives(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that brings the shared server down must not look like the failure of those after it."""
    yield
    if "etcd" in request.fixturenames:
        etcd = request.getfixturevalue("etcd")
        assert not isinstance(etcd, local.LocalEtcd) or etcd.running, "\n".join([etcd.outcome(), *etcd.log])


@pytest.fixture
def connect(etcd_prefix: str) -> Iterator[Connect]:
    """Makes clients below the test's prefix; closes them after it. Nothing of the environment counts."""
    clients: list[EtcdMiddleware] = []

    def make(*endpoints: str, **options: Any) -> EtcdMiddleware:
        config = Config(**{"endpoints": endpoints, "prefix": etcd_prefix, "timeout": 20, **options})
        client: EtcdMiddleware = EtcdMiddleware._of(config)
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.close()
