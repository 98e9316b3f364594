from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

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
def program(etcd: Any, etcd_prefix: str) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Run an `Echo` in a process of its own."""
    running: list[subprocess.Popen[bytes]] = []

    def start(*name: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.services.echo", ",".join(etcd.endpoints), etcd_prefix, *name]
        process = subprocess.Popen(command, cwd=ROOT)
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.wait()
