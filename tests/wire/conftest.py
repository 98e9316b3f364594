"""What the tests of the wire share: an etcd of their own to stop and freeze, a cluster, a proxy."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from link_kv import EtcdMiddleware, local
from link_kv._core.wire.config import Config
from tests.wire.proxy import Proxy

Connect = Callable[..., EtcdMiddleware]


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """The block takes no longer than this."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds


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
        client["/whole"] = True


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
        config = Config(**{"endpoints": endpoints, "prefix": etcd_prefix, **options})
        client: EtcdMiddleware = EtcdMiddleware._of(config)
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.close()
