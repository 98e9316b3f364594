"""A callback that remembers, and can be waited for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from link_kv import Change


class Inbox:
    """Call it with changes or states; wait until what came fulfils a condition."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self._came = threading.Condition()

    def __call__(self, item: Any) -> None:
        with self._came:
            self.items.append(item)
            self._came.notify_all()

    def until(self, condition: Callable[[list[Any]], object], timeout: float = 20) -> list[Any]:
        with self._came:
            assert self._came.wait_for(lambda: condition(self.items), timeout), f"only {self.items[-5:]}"
            return list(self.items)

    def wait(self, number: int, timeout: float = 20) -> list[Any]:
        return self.until(lambda items: len(items) >= number, timeout)

    def wait_revision(self, revision: int, timeout: float = 20) -> list[Change]:
        return self.until(lambda items: items and items[-1].revision >= revision, timeout)

    def values(self) -> list[tuple[str, Any]]:
        return [(change.path, change.value) for change in self.items]
