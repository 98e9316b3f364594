"""The laws of the layout, checked on the keys as etcd holds them."""

from __future__ import annotations

from collections.abc import Iterable


def faults(pairs: Iterable[tuple[bytes, bytes]], prefix: bytes) -> list[str]:
    """What breaks a law: a leaf with children, a list that is not 1 to n, a ``{}`` marker with children."""
    found: list[str] = []
    stored = {}
    children: dict[str, set[str]] = {}
    for key, value in pairs:
        path = key.decode().removeprefix(prefix.decode())
        if "/.link/" in path:
            continue
        stored[path] = value
        segments = path.split("/")
        for depth in range(1, len(segments)):
            if segments[depth]:
                children.setdefault("/".join(segments[:depth]), set()).add(segments[depth])
    for path, value in stored.items():
        tree = path.removesuffix("/")
        below = children.get(tree, set())
        if path[-1:] != "/":
            if below or f"{path}/" in stored:
                found.append(f"the leaf {path} has {sorted(below) or 'a marker'} below it")
        elif value == b"[]":
            if below != {str(index) for index in range(1, len(below) + 1)}:
                found.append(f"the list {tree} has the items {sorted(below)}")
        elif value != b"{}":
            found.append(f"the marker {path} holds {value!r}")
        elif below:
            found.append(f"the empty dict {tree} has {sorted(below)} in it")
        elif tree == "":
            found.append("the root has a marker")
    return found
