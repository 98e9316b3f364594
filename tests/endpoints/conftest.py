from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from link_kv import EtcdMiddleware, serving
from link_kv._core.endpoints.alerts import Alert, read
from link_kv.endpoints import Endpoints, KVStore, KVStoreKey, load

Serve = Callable[..., KVStore]


@pytest.fixture(autouse=True)
def configured(environment_of_programs: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs find the test's etcd. What is set comes after what was polled, however busy the machine is."""
    monkeypatch.setattr(serving, "_FLUSH", 20.0)


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start a provider with some endpoints, stopped after the test."""
    with ExitStack() as stack:

        def start(*endpoints: KVStoreKey, name: str = "kv", **keywords: Any) -> KVStore:
            provider = KVStore(name=name, **{"heartbeat_interval": 0, **keywords})
            for endpoint in endpoints:
                provider.add_endpoint(endpoint)
            provider.start_in_thread()
            stack.callback(provider.stop)
            return provider

        yield start


@pytest.fixture
def serve_file(tmp_path: Path) -> Iterator[Callable[..., list[KVStore]]]:
    """Start what a configuration file says, stopped after the test."""
    with ExitStack() as stack:

        def start(text: str, **options: Any) -> list[KVStore]:
            file = tmp_path / "kv.yaml"
            file.write_text(dedent(text).lstrip("\n"))
            providers = load(file, **options)
            for provider in providers:
                provider.start_in_thread()
                stack.callback(provider.stop)
            return providers

        yield start


@pytest.fixture
def endpoints(etcd_client: EtcdMiddleware) -> Iterator[Endpoints]:
    with Endpoints(etcd_client) as made:
        yield made


class Heard(list[Alert]):
    """The alerts of a provider, as links hear them."""

    def __init__(self, client: EtcdMiddleware, *services: str) -> None:
        super().__init__()
        self._came = threading.Condition()
        self.endpoints = Endpoints(client, "monitor")
        self.endpoints.listen(self._hear, services)

    def _hear(self, service: str, routing_key: str, told: Any) -> None:
        alert = read(told)
        assert alert is not None
        assert alert.routing_key == routing_key
        with self._came:
            self.append(alert)
            self._came.notify_all()

    def until(self, condition: Callable[[], object], seconds: float = 30) -> None:
        with self._came:
            assert self._came.wait_for(condition, seconds), list(self)


@pytest.fixture
def hear(etcd_client: EtcdMiddleware) -> Iterator[Callable[..., Heard]]:
    with ExitStack() as stack:

        def listen(*services: str) -> Heard:
            heard = Heard(etcd_client, *services)
            stack.callback(heard.endpoints.close)
            return heard

        yield listen
