"""A service for tests, as a program: ``python -m tests.services.echo ENDPOINT PREFIX TTL [NAME]``."""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import Any

from link_kv.services import Service


class Echo(Service):
    """Says back what it is told, and what else tests need."""

    PI = 3.14159

    def __init__(self, name: str | None = None, **options: Any) -> None:
        super().__init__(name, **options)
        self._released = threading.Event()

    @property
    def pid(self) -> int:
        return os.getpid()

    def echo(self, *args: Any, **kwargs: Any) -> list[Any]:
        return [list(args), kwargs]

    def same(self, value: Any) -> Any:
        return value

    def boom(self, why: str = "no reason") -> None:
        raise ValueError(why)

    def notify(self, *args: Any, **kwargs: Any) -> None:
        self.emit_notification(*args, **kwargs)

    def zeros(self, size: int) -> bytes:
        return bytes(size)

    def wait(self) -> str:
        """Block until `release` is called."""
        assert self._released.wait(60)
        return "released"

    def zeros_once_released(self, size: int) -> bytes:
        self.wait()
        return bytes(size)

    def release(self) -> None:
        self._released.set()

    def caller(self) -> list[str]:
        assert self.request is not None
        return [self.request.caller.client, self.request.caller.name, self.request.attribute]

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def unsendable(self) -> object:
        return object()

    def _secret(self) -> str:
        return "secret"

    def shutdown_service(self, *args: Any, **kwargs: Any) -> list[Any]:
        return ["bye", list(args), kwargs]


if __name__ == "__main__":
    endpoint, prefix, ttl, *name = sys.argv[1:]
    os.environ["LINK_KV_PREFIX"] = prefix
    Echo(*name).start(endpoints=endpoint, ttl=float(ttl))
