"""Asynchronous iteration over a blocking wire."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any, TypeVar

from link_kv._core.wire.calls import run

T = TypeVar("T")


def drive(items: AsyncIterator[T]) -> Iterator[T]:
    """What an operation yields, over a blocking wire."""
    following = items.__anext__
    while True:
        try:
            item: Any = run(following())  # type: ignore[arg-type]
        except StopAsyncIteration:
            return
        yield item
