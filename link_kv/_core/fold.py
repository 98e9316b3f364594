"""Many assignments as few: what a dict would hold after taking them in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from link_kv.errors import ListIndexError, NotATree, PathError
from link_kv.tree import Place, decode_name, encode_name, is_index


class _Node:
    __slots__ = ("at", "below", "value")

    def __init__(self) -> None:
        self.at: Place | None = None
        self.value: Any = None
        self.below: dict[str, _Node] = {}


def fold(pairs: Iterable[tuple[str, Any]], place: Callable[[str], Place]) -> list[tuple[Place, Any]]:
    """Assignments to places none of which is above another, with the same effect as ``pairs`` in order.

    Raises `NotATree` for a write below a leaf written before, `ListIndexError` for one beyond a list's end.
    """
    root = _Node()
    for path, value in pairs:
        at = place(path)
        if not at.segments:
            raise PathError("/: the root cannot be assigned; name a path below it")
        node = root
        for depth, segment in enumerate(at.segments):
            if node.at is not None:
                node.value = _set(node.value, at, depth, value)
                break
            node = node.below.setdefault(segment, _Node())
        else:
            node.at, node.value, node.below = at, value, {}
    found: list[tuple[Place, Any]] = []
    _collect(root, found)
    return found


def _collect(node: _Node, found: list[tuple[Place, Any]]) -> None:
    if node.at is not None:
        found.append((node.at, node.value))
    for below in node.below.values():
        _collect(below, found)


def _set(container: Any, at: Place, depth: int, value: Any) -> Any:
    """``container``, which stands ``depth`` segments down the path, with the value at its path: a copy."""
    if depth == len(at.segments):
        return value
    segment = at.segments[depth]
    above = "/" + "/".join(at.segments[:depth])
    if isinstance(container, dict):
        name = decode_name(segment)
        if encode_name(name) != segment:
            raise PathError(f"{at.path}: {segment!r} is not how a dict key is written; assign it on its own")
        return {**container, name: _set(container.get(name, {}), at, depth + 1, value)}
    if isinstance(container, (list, tuple)):
        items = list(container)
        number = int(segment) if is_index(segment) else 0
        if not 1 <= number <= len(items) + 1:
            raise ListIndexError(
                f"{at.path}: the list {above} has {len(items)} items; the next is {len(items) + 1}"
            )
        if number > len(items):
            items.append({})
        items[number - 1] = _set(items[number - 1], at, depth + 1, value)
        return items
    raise NotATree(f"{above}: holds a value, so nothing can be written below it")
