"""What a client should hold, as a plain nested dict: the rules of the design in their plainest form."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from link_kv.errors import ListIndexError, NotATree, NotFound
from link_kv.tree import decode_name, encode_name, is_index
from tests.values import as_stored, leaf_places

Where = Sequence[str]
"""The segments of a path."""


class Nested:
    """A nested dict with the verbs of a client. Paths are given as segments."""

    def __init__(self) -> None:
        self.root: dict[str, Any] = {}

    def get(self, where: Where) -> Any:
        """The value; raises `NotFound`."""
        value: Any = self.root
        for segment in where:
            value = self._child(value, segment)
        return value

    def has(self, where: Where) -> bool:
        try:
            self.get(where)
        except NotFound:
            return False
        return True

    @staticmethod
    def _child(value: Any, segment: str) -> Any:
        if isinstance(value, dict) and decode_name(segment) in value:
            return value[decode_name(segment)]
        if isinstance(value, list) and is_index(segment) and int(segment) <= len(value):
            return value[int(segment) - 1]
        raise NotFound(segment)

    def assign(self, where: Where, value: Any) -> None:
        """Raises `NotATree` below a leaf, `ListIndexError` where a list has no such place."""
        changed = copy.deepcopy(self.root)
        node: Any = changed
        for depth, segment in enumerate(where):
            last = depth == len(where) - 1
            if isinstance(node, dict):
                name = decode_name(segment)
                if last:
                    node[name] = as_stored(value)
                else:
                    node = node.setdefault(name, {})
            elif isinstance(node, list):
                if not is_index(segment) or int(segment) > len(node) + 1:
                    raise ListIndexError(segment)
                if int(segment) == len(node) + 1:
                    node.append({})
                if last:
                    node[int(segment) - 1] = as_stored(value)
                else:
                    node = node[int(segment) - 1]
            else:
                raise NotATree(segment)
        self.root = changed

    def delete(self, where: Where) -> Any:
        """The value that was there; raises `NotFound`. What is emptied goes, inside a list it stays as {}."""
        value = self.get(where)
        above = list(where)
        while above:
            segment = above.pop()
            container = self.get(above)
            if isinstance(container, list):
                del container[int(segment) - 1]
                return value
            del container[decode_name(segment)]
            if container or not above or isinstance(self.get(above[:-1]), list):
                return value
        return value

    def append(self, where: Where, item: Any) -> list[str]:
        try:
            value = self.get(where)
        except NotFound:
            self.assign(where, [item])
            return [*where, "1"]
        if not isinstance(value, list):
            raise NotATree("/".join(where))
        value.append(as_stored(item))
        return [*where, str(len(value))]

    def update(self, pairs: Sequence[tuple[Where, Any]]) -> None:
        before = self.root
        try:
            for where, value in pairs:
                self.assign(where, value)
        except Exception:
            self.root = before
            raise

    def popitem(self) -> tuple[str, Any]:
        """The first leaf in the order of etcd's keys, where an empty dict or list is a marker."""
        if not self.root:
            raise NotFound("/")
        found = []
        for where, value in leaf_places(self.root):
            path = "".join(f"/{step if type(step) is int else encode_name(step)}" for step in where)
            found.append(((path + "/" * isinstance(value, (dict, list))).encode(), path, value))
        _, path, value = min(found, key=lambda each: each[0])
        self.delete(path[1:].split("/"))
        return path, value
