"""Clients of one's own on the shared etcd, below a prefix of the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from link_kv import EtcdMiddleware
from link_kv.clients import BaseClient


@pytest.fixture
def middleware(etcd: Any, etcd_prefix: str) -> Iterator[EtcdMiddleware]:
    with EtcdMiddleware(endpoints=etcd.endpoints, prefix=etcd_prefix) as client:
        yield client


@pytest.fixture
def client(middleware: EtcdMiddleware) -> BaseClient:
    return BaseClient("/lab", middleware)
