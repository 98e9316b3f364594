"""What the tests of real processes share: asking an etcd over HTTP, and waiting with a bound."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest


def read(endpoint: str, path: str, body: object = None, *, tls: bool = False, timeout: float = 10) -> bytes:
    """What an etcd's HTTP interface answers; POST when there is a body."""
    connection: http.client.HTTPConnection
    if tls:
        context = ssl._create_unverified_context()
        connection = http.client.HTTPSConnection(endpoint, timeout=timeout, context=context)
    else:
        connection = http.client.HTTPConnection(endpoint, timeout=timeout)
    try:
        connection.request(
            "GET" if body is None else "POST", path, None if body is None else json.dumps(body)
        )
        return connection.getresponse().read()
    finally:
        connection.close()


def ask(endpoint: str, path: str, body: object = None, *, tls: bool = False, timeout: float = 10) -> Any:
    """The same, as the JSON that it is."""
    return json.loads(read(endpoint, path, body, tls=tls, timeout=timeout))


def put(endpoint: str, key: str, value: str) -> None:
    """Write one key."""
    answer = ask(endpoint, "/v3/kv/put", {"key": _base64(key), "value": _base64(value)})
    assert "header" in answer, answer


def get(endpoint: str, key: str) -> str | None:
    """Read one key."""
    found = ask(endpoint, "/v3/kv/range", {"key": _base64(key)}).get("kvs")
    return base64.b64decode(found[0]["value"]).decode() if found else None


def identity(endpoint: str) -> tuple[str, str]:
    """The ids of the cluster and of the member that answers."""
    header = ask(endpoint, "/v3/maintenance/status", {})["header"]
    return header["cluster_id"], header["member_id"]


def until(condition: Callable[[], object], seconds: float = 20) -> None:
    """Wait until the condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.01)


def refuse_thread(monkeypatch: pytest.MonkeyPatch, name: str, why: BaseException | None = None) -> None:
    """Have the next thread of this name fail to start; by default as where no more are to be had."""
    start = threading.Thread.start

    def fails(thread: threading.Thread) -> None:
        if thread.name == name:
            monkeypatch.setattr(threading.Thread, "start", start)
            raise why or RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", fails)


def gone(pid: int) -> bool:
    """Whether a process has ended; nobody may have asked for its status yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def script(path: Path, *lines: str) -> Path:
    """A program in shell."""
    path.write_text("\n".join(("#!/bin/sh", *lines, "")))
    path.chmod(0o755)
    return path


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
