"""Services beside msl-network 1.0.0: three processes each (registry, service, client), measured in turn."""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.measure import Row, clock
from benchmarks.peers import environment
from link_kv import EtcdMiddleware, local
from link_kv._core.links import registry
from link_kv._core.links.registry import ServiceRecord
from link_kv._core.wire.calls import run as finish
from link_kv.links import connect
from link_kv.plan import Plan, Put

HERE = Path(__file__).parent
ROUNDS = 5
PREFIX = "/bench-services"
REGISTERED = 1000

# What is measured, by how much of msl-network's is to be reached, plain and with TLS.
WHAT = (("echo", 0.85, 0.9, False), ("asynchronous", 2.0, 1.7, True), ("notify", 0.85, 0.9, False))
NAMES = {"echo": "echo, sequential", "asynchronous": "echo, asynchronous", "notify": "notification"}


def run(endpoint: str) -> list[Row]:
    rows = _beside(endpoint, False) + _beside(endpoint, True)
    rows.append(_identities(endpoint))
    return rows


class Client:
    """A process that measures when it is told to."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert self._line() == "ready"

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def measure(self, what: str) -> float:
        assert self._process.stdin is not None
        self._process.stdin.write(what + "\n")
        self._process.stdin.flush()
        return float(self._line())


def _beside(endpoint: str, tls: bool) -> list[Row]:
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ours = stack.enter_context(_ours(endpoint, tls, directory))
        theirs = stack.enter_context(_theirs(tls, directory))
        times: dict[tuple[str, int], list[float]] = {}
        for _ in range(ROUNDS):
            for what, *_ in WHAT:
                for number, client in enumerate((ours, theirs)):
                    times.setdefault((what, number), []).append(client.measure(what))
    rows = []
    for what, reach, reach_tls, rate in WHAT:
        mine, other = (statistics.median(times[what, number]) for number in (0, 1))
        factor, unit = (1.0, "/s") if rate else (1e3, "ms")
        name = {"echo": "echo, sequential", "asynchronous": "echo, asynchronous", "notify": "notification"}[
            what
        ]
        rows.append(
            Row(
                name + (", TLS" if tls else ""),
                mine * factor,
                other * factor,
                unit,
                "msl-network",
                mine / other,
                reach_tls if tls else reach,
                rate,
            )
        )
    return rows


@contextmanager
def _processes() -> Iterator[Any]:
    running: list[subprocess.Popen[str]] = []

    def start(*command: Any, talks: bool = False, **environ: str) -> subprocess.Popen[str]:
        # Who is not listened to has no pipe, which its log would fill.
        process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.PIPE if talks else subprocess.DEVNULL,
            stdout=subprocess.PIPE if talks else subprocess.DEVNULL,
            stderr=None if talks else subprocess.DEVNULL,
            text=True,
            cwd=HERE.parent,
            env={**environ, "PATH": os.environ["PATH"]},
        )
        running.append(process)
        return process

    try:
        yield start
    finally:
        for process in reversed(running):
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()


@contextmanager
def _ours(endpoint: str, tls: bool, directory: Path) -> Iterator[Client]:
    environ = {"PYTHONPATH": str(HERE.parent), "LINK_KV_PREFIX": PREFIX, "HOME": str(directory)}
    serving: dict[str, Any] = {"endpoints": endpoint}
    calling: dict[str, Any] = {"endpoints": endpoint}
    with _processes() as start, ExitStack() as stack:
        if tls:
            certs = directory / "certs"
            command = [sys.executable, "-m", "link_kv.cli", "certs", certs]
            subprocess.run(command, check=True, capture_output=True)
            pair = [f"--cert-file={certs / 'server.pem'}", f"--key-file={certs / 'server.key'}"]
            server = stack.enter_context(local.start(args=pair))
            serving = {"endpoints": server.endpoints, "cert_file": str(certs / "ca.pem")}
            calling = dict(serving)
            serving |= {"cert_cert": str(certs / "server.pem"), "cert_key": str(certs / "server.key")}
        start(sys.executable, HERE / "clients" / "serving.py", "ours", json.dumps(serving), **environ)
        script = HERE / "clients" / "calling.py"
        yield Client(start(sys.executable, script, "ours", json.dumps(calling), talks=True, **environ))


@contextmanager
def _theirs(tls: bool, directory: Path) -> Iterator[Client]:
    python = environment("msl-network")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environ = {"HOME": str(directory), "USERPROFILE": str(directory)}
    keywords: dict[str, Any] = {"host": "localhost", "port": port, "timeout": 30}
    keywords |= {"auto_save": True, "assert_hostname": False} if tls else {"disable_tls": True}
    flags = [] if tls else ["--disable-tls"]
    with _processes() as start:
        start(python.parent / "msl-network", "start", "-p", port, *flags, **environ)
        _until_it_listens(port)
        start(python, HERE / "clients" / "serving.py", "msl", json.dumps(keywords), **environ)
        script = HERE / "clients" / "calling.py"
        yield Client(start(python, script, "msl", json.dumps(keywords), talks=True, **environ))


def _until_it_listens(port: int) -> None:
    end = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            assert time.monotonic() < end, "msl-network did not start"
            time.sleep(0.1)


def _identities(endpoint: str) -> Row:
    with EtcdMiddleware(endpoints=[endpoint], prefix=PREFIX) as client:
        record = ServiceRecord("127.0.0.1:1", "token", {f"method_{n}": "(a, b=1)" for n in range(10)}, 0)
        value = registry._dump(record, "created")
        puts = [
            Put(registry.service_place(client._space, f"service-{number}").key, value)
            for number in range(REGISTERED)
        ]
        finish(client._exchange().commit(Plan((), puts, guarded=True), "services"))
        os.environ["LINK_KV_PREFIX"] = PREFIX
        with connect(endpoints=endpoint) as cxn:
            assert len(cxn.identities()["services"]) == REGISTERED
            mine = statistics.median(clock(cxn.identities) for _ in range(21)) * 1e3
        del os.environ["LINK_KV_PREFIX"]
        client.clear(force=True)
    return Row(f"{REGISTERED:,} services: identities()", mine, 20, "ms", "20 ms", mine / 20, 1.0)
