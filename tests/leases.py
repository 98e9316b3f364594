"""What the tests of sessions, locks and transactions share: leases as etcd knows them, programs, leaks."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from link_kv import EtcdMiddleware, aio
from link_kv._core.leasing.leases import Lease
from link_kv._core.wire.config import Config
from tests.processes import ask, until

ROOT = Path(__file__).parent.parent


def options(endpoint: str, prefix: str, **others: Any) -> Config:
    """The options of a client, whatever the environment says."""
    return Config(endpoints=(endpoint,), prefix=prefix, **others)


def connect(endpoint: str, prefix: str, **others: Any) -> EtcdMiddleware:
    client: EtcdMiddleware = EtcdMiddleware._of(options(endpoint, prefix, **others))
    return client


def aconnect(endpoint: str, prefix: str, **others: Any) -> aio.EtcdMiddleware:
    client: aio.EtcdMiddleware = aio.EtcdMiddleware._of(options(endpoint, prefix, **others))
    return client


def leases(endpoint: str) -> set[int]:
    """The leases that there are on the cluster."""
    found = ask(endpoint, "/v3/lease/leases", {}).get("leases", [])
    return {int(lease["ID"]) for lease in found}


def revoke(endpoint: str, lease: int) -> None:
    """End a lease, as an operator would."""
    ask(endpoint, "/v3/lease/revoke", {"ID": lease})


def delete(endpoint: str, key: bytes) -> None:
    """Delete a key, as an operator would."""
    ask(endpoint, "/v3/kv/deleterange", {"key": base64.b64encode(key).decode()})


def claims(client: EtcdMiddleware) -> list[bytes]:
    """The keys of all locks below the prefix of a client, whoever holds or awaits them."""
    return [key for key in client.raw if b"/.link/locks/" in key]


def kept_alive(lease: Lease[Any], times: int = 2) -> None:
    """Wait until a lease was kept alive so many times more, or is lost."""
    for _ in range(times):
        expires = lease.expires
        until(lambda expires=expires: lease.expires > expires or not lease.alive, lease.ttl + 20)  # type: ignore[misc]


@contextmanager
def nothing_left(endpoint: str) -> Iterator[None]:
    """The block leaves no lease, no thread and no descriptor behind; what ends by itself is waited for."""
    before = leases(endpoint), threading.active_count(), len(os.listdir("/proc/self/fd"))
    yield
    until(lambda: leases(endpoint) <= before[0], 8)  # sooner than by themselves
    until(lambda: threading.active_count() <= before[1])
    until(lambda: len(os.listdir("/proc/self/fd")) <= before[2])


class Program:
    """A Python program in a process of its own, with ``endpoint`` and ``prefix`` as its arguments.

    It tells what it does in lines of its output, which `expect` waits for.
    """

    def __init__(self, source: str, endpoint: str, prefix: str, *arguments: str) -> None:
        start = (
            "import os, sys, threading, time\n"
            "from tests.leases import connect\n"
            "endpoint, prefix, *arguments = sys.argv[1:]\n"
            "client = connect(endpoint, prefix)\n"
            "def say(*words): print(*words, flush=True)\n"
            "def hear(): return sys.stdin.readline().strip()\n"
        )
        self.popen = subprocess.Popen(
            [
                sys.executable,
                "-W",
                "ignore::DeprecationWarning",
                "-c",
                start + source,
                endpoint,
                prefix,
                *arguments,
            ],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def pid(self) -> int:
        return self.popen.pid

    def line(self) -> str:
        """The next line that it says; empty when it has ended."""
        assert self.popen.stdout is not None
        return self.popen.stdout.readline().strip()

    def expect(self, line: str) -> None:
        said = self.line()
        assert said == line, said

    def tell(self, line: str) -> None:
        assert self.popen.stdin is not None
        self.popen.stdin.write(line + "\n")
        self.popen.stdin.flush()

    def signal(self, number: int) -> None:
        self.popen.send_signal(number)

    def freeze(self) -> None:
        """Stop it where it is, as a suspended machine would."""
        self.popen.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def thaw(self) -> None:
        self.popen.send_signal(signal.SIGCONT)

    def finish(self) -> int:
        """Let it read to the end of its input, and wait for its end."""
        self.popen.communicate(timeout=20)
        return self.popen.returncode

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *error: object) -> None:
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.communicate()
