from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from link_kv import links
from link_kv._core.leasing import presence
from link_kv._core.links.tether import Tether
from link_kv.links import Client, connect
from link_kv.services import Service

from .echo import Echo

ROOT = Path(__file__).parent.parent.parent

Start = Callable[..., Any]


@pytest.fixture(autouse=True)
def configured(environment_of_programs: None) -> None:
    """Programs find the test's etcd."""


@pytest.fixture
def serve() -> Iterator[Start]:
    """Start a service in this process, stopped after the test."""
    with ExitStack() as stack:

        def start(service: Service, **options: Any) -> Service:
            service.start_in_thread(**options)
            stack.callback(service.stop)
            return service

        yield start


@pytest.fixture
def echo(serve: Start) -> Echo:
    """A running `Echo`."""
    service = serve(Echo())
    assert isinstance(service, Echo)
    return service


@pytest.fixture
def client() -> Iterator[Client]:
    with connect() as client:
        yield client


@pytest.fixture
def clients() -> Iterator[Start]:
    """Makes clients, which are disconnected after the test."""
    with ExitStack() as stack:

        def make(name: str = "Client", **options: Any) -> Client:
            return stack.enter_context(connect(name=name, **options))

        yield make


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who leaves the registry waits until etcd has heard it, be that late."""
    monkeypatch.setattr(presence, "LET_GO", 30.0)


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """The timeout of a `LinkedClient` is for its service alone: etcd may answer later."""
    connected, opened = links.connect, Tether.open

    def connect(*, timeout: float = 10, **options: Any) -> Client:
        client = connected(**options)
        assert client._options is not None
        config = replace(client._options.config, timeout=timeout)
        client._options = replace(client._options, config=config)
        return client

    monkeypatch.setattr(links, "connect", connect)
    monkeypatch.setattr(Tether, "open", lambda tether, until: opened(tether, until + 30))


@pytest.fixture
def program(etcd: Any, etcd_prefix: str) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Run an `Echo` in a process of its own."""
    running: list[subprocess.Popen[bytes]] = []

    def start(*name: str, ttl: float = 10) -> subprocess.Popen[bytes]:
        arguments = [",".join(etcd.endpoints), etcd_prefix, str(ttl), *name]
        command = [sys.executable, "-m", "tests.services.echo", *arguments]
        process = subprocess.Popen(command, cwd=ROOT)
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.wait()
