"""A client of each kind, on the etcd of the session."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.contract.adapters import Kind


@pytest.fixture(params=["blocking", "asyncio"])
def kind(request: pytest.FixtureRequest, etcd: Any, etcd_prefix: str) -> Kind:
    return Kind(request.param, etcd.endpoints, etcd_prefix)


@pytest.fixture
async def client(kind: Kind) -> AsyncIterator[Any]:
    client = kind.client()
    async with client:
        yield client
