"""What is there for as long as somebody else holds it."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Living(Generic[T]):
    """Objects while they live, each once. Thread-safe; iterating gives those that are there when it begins.

    Nothing is run when one of them goes, as a `weakref.WeakSet` does: an interrupt that came just then would
    be lost in that. What is left of those that are gone is as much as ever lived at the same time, about.
    """

    def __init__(self) -> None:
        self._references: dict[int, weakref.ref[T]] = {}

    def add(self, one: T) -> None:
        self._references[id(one)] = weakref.ref(one)

    def discard(self, one: T) -> None:
        self._references.pop(id(one), None)

    def clear(self) -> None:
        self._references.clear()

    def __iter__(self) -> Iterator[T]:
        found = [reference() for reference in list(self._references.values())]
        return iter([one for one in found if one is not None])
