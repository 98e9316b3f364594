"""A pytest plugin: a real etcd for your tests. It is there once link_kv is installed.

    def test_counts(etcd_client):
        etcd_client['/counter'] = 1
        assert etcd_client['/counter'] == 1

==============  =======  =================================================================================
fixture         scope    what it is
==============  =======  =================================================================================
`etcd`          session  the server; its ``endpoints`` are a list of ``host:port``
`etcd_prefix`   test     a prefix that no other test has; what lies below it is deleted afterwards
`etcd_client`   test     a `link_kv.EtcdMiddleware` on that server, below that prefix
==============  =======  =================================================================================

The server is started for the session and stopped after it (`link_kv.local.start`). Under pytest-xdist each
worker starts its own. With ``LINK_KV_TEST_ENDPOINTS=host:port,host:port`` in the environment, the tests
use that cluster, and nothing is started; user and certificates come from ``LINK_KV_USER`` and the like.

To stop, freeze or restart a server, start one of your own: the others need this one.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .local import LocalEtcd
    from .middleware import EtcdMiddleware

__all__ = ["ExistingEtcd", "etcd", "etcd_client", "etcd_prefix"]

# pytest loads this module in every run, of every project: so what costs is imported in the fixtures.


@dataclass(frozen=True)
class ExistingEtcd:
    """A cluster that somebody else runs, from ``LINK_KV_TEST_ENDPOINTS``."""

    endpoints: list[str]


@pytest.fixture(scope="session")
def etcd() -> Iterator[LocalEtcd | ExistingEtcd]:
    """A real etcd for the session: its own, or the one in ``LINK_KV_TEST_ENDPOINTS``."""
    named = os.environ.get("LINK_KV_TEST_ENDPOINTS", "")
    endpoints = [endpoint.strip() for endpoint in named.split(",") if endpoint.strip()]
    if endpoints:
        yield ExistingEtcd(endpoints)
        return
    from . import local

    with local.start() as server:
        yield server


@pytest.fixture
def etcd_prefix(etcd: LocalEtcd | ExistingEtcd) -> Iterator[str]:
    """A prefix for this test alone, such as ``/test-4f1c…``; what lies below it is deleted afterwards."""
    prefix = f"/test-{secrets.token_hex(8)}"
    yield prefix
    if isinstance(etcd, ExistingEtcd):  # our own server goes with all that it holds
        _delete(etcd, prefix)


@pytest.fixture
def etcd_client(etcd: LocalEtcd | ExistingEtcd, etcd_prefix: str) -> Iterator[EtcdMiddleware]:
    """A `link_kv.EtcdMiddleware` on `etcd`, below `etcd_prefix`; closed after the test."""
    with _client(etcd, etcd_prefix) as client:
        yield client


def _client(etcd: LocalEtcd | ExistingEtcd, prefix: str) -> EtcdMiddleware:
    from link_kv import EtcdMiddleware

    if isinstance(etcd, ExistingEtcd):
        return EtcdMiddleware(endpoints=etcd.endpoints, prefix=prefix)
    from link_kv._core.wire.config import Config

    # What the environment and the user's files say is about another etcd.
    client: EtcdMiddleware = EtcdMiddleware._of(Config(endpoints=tuple(etcd.endpoints), prefix=prefix))
    return client


def _delete(etcd: ExistingEtcd, prefix: str) -> None:
    """Delete every key below a prefix, whatever it is and however many there are."""
    from link_kv._core.operations import raw_range
    from link_kv._core.wire.calls import run
    from link_kv._core.wire.exchange import Exchange
    from link_kv.plan import Delete, Plan

    with _client(etcd, prefix) as client:
        everything = Delete(*raw_range(client._space))
        run(Exchange(client._space.bare()).commit(Plan((), [everything], guarded=True), prefix))
