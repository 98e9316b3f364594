"""Assignments and deletions in order, as what they amount to: disjoint writes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from link_kv.errors import EncodeError, ListIndexError, NotATree, NotFound, PathError
from link_kv.tree import MISSING, Place, decode_name, encode_name, is_index


class _Node:
    __slots__ = ("at", "below", "value")

    def __init__(self) -> None:
        self.at: Place | None = None
        self.value: Any = None
        self.below: dict[str, _Node] = {}

    def step(self, segment: str) -> _Node:
        """The node below; made when it is new."""
        node = self.below.get(segment)
        if node is None:
            node = self.below[segment] = _Node()
        return node

    def write(self, at: Place, value: Any) -> None:
        """Write here: what was written below is gone."""
        self.at, self.value = at, value
        self.below.clear()

    def writes(self) -> Iterator[tuple[Place, Any]]:
        """What is written here or below, in the order in which it came."""
        pending = [self]
        while pending:
            node = pending.pop()
            if node.at is not None:
                yield node.at, node.value
            else:
                pending += reversed(node.below.values())


class Overlay:
    """Writes to places none of which is above another. A value of `MISSING` is a deletion."""

    def __init__(self) -> None:
        self._root = _Node()

    def assign(self, at: Place, value: Any) -> None:
        """Take one more assignment, as a dict would.

        Raises `NotATree` below a leaf assigned before, `ListIndexError` beyond the end of a list, and
        `EncodeError` in a value that this would nest too deeply.
        """
        if not at.segments:
            raise PathError("/: the root cannot be assigned; name a path below it")
        node = self._root
        for depth, segment in enumerate(at.segments):
            if node.at is not None:
                try:
                    node.value = _set(node.value, at, depth, value)
                except RecursionError:
                    raise EncodeError(f"{at.path}: the value around it is nested too deeply") from None
                return
            node = node.step(segment)
        node.write(at, value)

    def remove(self, at: Place) -> None:
        """Take one deletion, of something that is there and is in no list."""
        node = self._root
        for depth, segment in enumerate(at.segments):
            if node.at is not None:
                rest = take_from(node.value, at, depth)
                node.value = MISSING if _is_empty_dict(rest) else rest
                return
            node = node.step(segment)
        node.write(at, MISSING)

    def touches(self, at: Place) -> bool:
        """Whether something at, above or below a place was written."""
        node = self._root
        for segment in at.segments:
            if node.at is not None:
                return True
            if segment not in node.below:
                return False
            node = node.below[segment]
        return True

    def known(self, at: Place) -> tuple[bool, Any]:
        """Whether the value at a place follows from what was written alone, and that value."""
        node = self._root
        for depth, segment in enumerate(at.segments):
            if node.at is not None:
                return True, value_in(node.value, at.segments[depth:])
            if segment not in node.below:
                return False, MISSING
            node = node.below[segment]
        return (True, node.value) if node.at is not None else (False, MISSING)

    def over(self, value: Any, at: Place) -> Any:
        """The value at a place, given what lies under the writes; the value itself stays as it was."""
        node = self._root
        for segment in at.segments:
            if segment not in node.below:
                return value
            node = node.below[segment]
        depth = len(at.segments)
        for place, written in node.writes():
            if written is not MISSING:
                value = _set(value, place, depth, written)
                continue
            value = take_from(value, place, depth, missing_is_fine=True)
            if depth and _is_empty_dict(value):
                value = MISSING
        return value

    def writes(self) -> list[tuple[Place, Any]]:
        return list(self._root.writes())


def fold(pairs: Iterable[tuple[str, Any]], place: Callable[[str], Place]) -> list[tuple[Place, Any]]:
    """Assignments to places none of which is above another, with the same effect as ``pairs`` in order."""
    overlay = Overlay()
    for path, value in pairs:
        overlay.assign(place(path), value)
    return overlay.writes()


def copied(value: Any) -> Any:
    """A value whose dicts and lists are nobody else's. No recursion: there may be thousands of levels."""
    top = [value]
    pending: list[Any] = [top]
    while pending:
        node = pending.pop()
        for name, item in node.items() if isinstance(node, dict) else enumerate(node):
            if isinstance(item, (dict, list, tuple)):
                node[name] = dict(item) if isinstance(item, dict) else list(item)
                pending.append(node[name])
            else:
                node[name] = copy.deepcopy(item)
    return top[0]


def _is_empty_dict(value: Any) -> bool:
    return isinstance(value, dict) and not value


def _set(container: Any, at: Place, depth: int, value: Any) -> Any:
    """``container``, which stands ``depth`` segments down the path, with the value at its path: a copy."""
    if depth == len(at.segments):
        return value
    segment = at.segments[depth]
    above = "/" + "/".join(at.segments[:depth])
    if container is MISSING:
        container = {}
    if isinstance(container, dict):
        name = decode_name(segment)
        if encode_name(name) != segment:
            raise PathError(f"{at.path}: {segment!r} is not how a dict key is written; assign it on its own")
        return {**container, name: _set(container.get(name, MISSING), at, depth + 1, value)}
    if isinstance(container, (list, tuple)):
        items = list(container)
        number = int(segment) if is_index(segment) else 0
        if not 1 <= number <= len(items) + 1:
            raise ListIndexError(
                f"{at.path}: the list {above} has {len(items)} items; the next is {len(items) + 1}"
            )
        if number > len(items):
            items.append(MISSING)
        items[number - 1] = _set(items[number - 1], at, depth + 1, value)
        return items
    raise NotATree(f"{above}: holds a value, so nothing can be written below it")


def value_in(container: Any, segments: Iterable[str]) -> Any:
    """What stands in a nested value, `MISSING` where nothing does."""
    for segment in segments:
        if isinstance(container, dict):
            container = container.get(decode_name(segment), MISSING)
        elif isinstance(container, (list, tuple)) and is_index(segment) and int(segment) <= len(container):
            container = container[int(segment) - 1]
        else:
            return MISSING
    return container


def take_from(container: Any, at: Place, depth: int, *, missing_is_fine: bool = False) -> Any:
    """``container``, which stands ``depth`` segments down the path, without the path: a copy.

    A dict that loses its last key goes with it, but stays, empty, as the item of a list.
    """
    segment = at.segments[depth]
    last = depth + 1 == len(at.segments)
    found = value_in(container, (segment,))
    if found is MISSING:
        if missing_is_fine:
            return container
        raise NotFound(f"{at.path}: nothing is there")
    rest = MISSING if last else take_from(found, at, depth + 1, missing_is_fine=missing_is_fine)
    if isinstance(container, dict):
        name = decode_name(segment)
        if rest is MISSING or _is_empty_dict(rest):
            return {key: value for key, value in container.items() if key != name}
        return {**container, name: rest}
    items = list(container)
    if rest is MISSING:
        del items[int(segment) - 1]
    else:
        items[int(segment) - 1] = rest
    return items
