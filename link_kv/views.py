"""Views of a client: a live tree or list, the past, and the raw keys."""

from __future__ import annotations

import sys
from collections.abc import (
    ItemsView,
    Iterable,
    Iterator,
    Mapping,
    MutableMapping,
    MutableSequence,
    ValuesView,
)
from typing import Any, overload

from link_kv._core import operations
from link_kv._core.operations import Kind, trees
from link_kv._core.operations.iterate import drive
from link_kv._core.wire.calls import run
from link_kv._core.wire.exchange import Exchange, Namespace
from link_kv.errors import NotFound
from link_kv.tree import MISSING


class LeafItems(ItemsView[str, Any]):
    """Paths and values of leaves, read together in pages of one revision."""

    _mapping: LeafMapping

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return self._mapping._pairs()


class LeafValues(ValuesView[Any]):
    """Values of leaves, read in pages of one revision."""

    _mapping: LeafMapping

    def __iter__(self) -> Iterator[Any]:
        return (value for _, value in self._mapping._pairs())

    def __contains__(self, value: object) -> bool:
        return any(found is value or found == value for found in self)


class LeafMapping(Mapping[str, Any]):
    """Reading by path and iterating over leaf paths, now or at a revision."""

    _space: Namespace
    _revision: int = 0

    def _exchange(self) -> Exchange:
        return Exchange(self._space)

    def __getitem__(self, path: str) -> Any:
        return run(operations.get(self._exchange(), path, self._revision))

    def get(self, path: str, default: Any = None) -> Any:
        """The value at a path, or ``default`` when nothing is there."""
        value = run(operations.read(self._exchange(), path, self._revision))
        return default if value is MISSING else value

    def __contains__(self, path: object) -> bool:
        return run(operations.contains(self._exchange(), path, self._revision))  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[str]:
        ex = self._exchange()
        return drive(operations.leaf_paths(ex, ex.place("/"), self._revision))

    def _pairs(self) -> Iterator[tuple[str, Any]]:
        ex = self._exchange()
        for leaf in drive(operations.scan(ex, ex.place("/"), self._revision)):
            yield leaf.path, operations.leaf_value(leaf)

    def __len__(self) -> int:
        """The number of leaves. Reads all keys."""
        return sum(1 for _ in self)

    def __bool__(self) -> bool:
        ex = self._exchange()
        return run(operations.any_leaf(ex, ex.place("/"), self._revision))

    def items(self) -> LeafItems:
        """Paths and values of all leaves, all of one revision: ``dict(client.items())`` is a snapshot."""
        return LeafItems(self)

    def values(self) -> LeafValues:
        """Values of all leaves, all of one revision."""
        return LeafValues(self)

    # A view over a server equals only itself; to compare contents, compare dict(view.items()).
    __eq__ = object.__eq__
    __ne__ = object.__ne__
    __hash__ = object.__hash__


class Past(LeafMapping):
    """The mapping as it was at a revision, read-only.

    Every read raises `RevisionError` once the revision has been compacted away. Thread-safe.
    """

    def __init__(self, space: Namespace, revision: int) -> None:
        self._space = space
        self._revision = operations.past_revision(revision)

    @property
    def revision(self) -> int:
        """The revision that it shows."""
        return self._revision

    def __repr__(self) -> str:
        return f"<link_kv at revision {self._revision}>"


def view(space: Namespace, path: str) -> Tree | TreeList:
    """The live view of what is at a path; a tree where nothing is yet."""
    return _view(space, run(trees.tree_at(space, path)))  # type: ignore[no-any-return]


def _view(space: Namespace, found: trees.Found) -> Any:
    """A leaf's value, or the live view of a tree or list."""
    if found.kind is Kind.LEAF:
        return found.value
    return (TreeList if found.kind is Kind.LIST else Tree)(space, found.path)


def _children(tree: Tree) -> Iterator[tuple[str, Any]]:
    """The children there were, but for those that others have deleted since."""
    for name in tree:
        try:
            child = tree[name]
        except NotFound:
            continue
        yield name, child


class _Children(ItemsView[str, Any]):
    _mapping: Tree

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return _children(self._mapping)


class _ChildValues(ValuesView[Any]):
    _mapping: Tree

    def __iter__(self) -> Iterator[Any]:
        return (value for _, value in _children(self._mapping))

    def __contains__(self, value: object) -> bool:
        return any(found is value or found == value for found in self)


class Tree(trees.View, MutableMapping[str, Any]):
    """A tree of a client as a nested dict that writes through.

    Keys are the names of children; a child that is a tree or a list is a live view again, so
    ``tree['a']['b'] = 1`` reaches etcd. Nothing is cached: each access is a read. Compares by content.
    Thread-safe, as the client is; on disconnect it raises what the client raises.
    """

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, space: Namespace, path: str) -> None:
        self._space = space
        self._core: trees.Branch = trees.Branch(space, path)

    def __getitem__(self, name: str) -> Any:
        return _view(self._space, run(self._core.child(name)))

    def __setitem__(self, name: str, value: Any) -> None:
        run(self._core.put(name, value))

    def __delitem__(self, name: str) -> None:
        run(self._core.delete(name))

    def __contains__(self, name: object) -> bool:
        return run(self._core.contains(name))

    def __iter__(self) -> Iterator[str]:
        return iter(run(self._core.names()))

    def __len__(self) -> int:
        return len(run(self._core.names()))

    def __bool__(self) -> bool:
        return run(self._core.any())

    def items(self) -> ItemsView[str, Any]:
        return _Children(self)

    def values(self) -> ValuesView[Any]:
        return _ChildValues(self)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mapping):
            return NotImplemented
        return bool(self.snapshot() == run(trees.plain(other)))

    def snapshot(self) -> Any:
        """The whole tree as a plain nested value of one revision, ``{}`` where nothing is."""
        return run(self._core.snapshot())

    def pop(self, name: str, default: Any = MISSING) -> Any:
        """Remove a child and return its plain value, atomically."""
        return run(self._core.pop(name, default))

    def popitem(self) -> tuple[str, Any]:
        """Remove the first child, atomically, and return its name and its plain value."""
        return run(self._core.popitem())

    def setdefault(self, name: str, default: Any = None) -> Any:
        """The child, made from ``default`` when it is not there, atomically."""
        return _view(self._space, run(self._core.setdefault(name, default)))

    def update(self, other: Any = (), /, **names: Any) -> None:
        """Set several children in one transaction."""
        run(self._core.update(other, names))

    def clear(self) -> None:
        """Remove all children, atomically; an empty dict stays."""
        run(self._core.clear())


class TreeList(trees.View, MutableSequence[Any]):
    """A list of a client as a sequence that writes through, counted from 0.

    A change other than an append reads all of it, and writes what differs in one transaction, guarded: two
    who change it at once both get what they asked for. Where one comes or goes, all behind it are written.
    Compares by content. Thread-safe, as the client is; on disconnect it raises what the client raises.
    """

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, space: Namespace, path: str) -> None:
        self._space = space
        self._core: trees.Row = trees.Row(space, path)

    def __len__(self) -> int:
        return run(self._core.length())

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return self.snapshot()[index]
        return _view(self._space, run(self._core.item(index)))

    def __setitem__(self, index: int | slice, value: Any) -> None:
        run(self._core.put(index, value))

    def __delitem__(self, index: int | slice) -> None:
        run(self._core.delete(index))

    def insert(self, index: int, value: Any) -> None:
        run(self._core.insert(index, value))

    def append(self, value: Any) -> None:
        run(self._core.append(value))

    def extend(self, values: Iterable[Any]) -> None:
        run(self._core.extend(values))

    def pop(self, index: int = -1) -> Any:
        return run(self._core.pop(index))

    def remove(self, value: Any) -> None:
        run(self._core.remove(value))

    def reverse(self) -> None:
        run(self._core.reverse())

    def clear(self) -> None:
        run(self._core.clear())

    def __iter__(self) -> Iterator[Any]:
        return iter(self.snapshot())

    def __reversed__(self) -> Iterator[Any]:
        return iter(self.snapshot()[::-1])

    def index(self, value: Any, start: int = 0, stop: int = sys.maxsize) -> int:
        """The index of the first item that is equal, all of one revision. Raises `ValueError`."""
        return self.snapshot().index(value, start, stop)

    def __iadd__(self, values: Iterable[Any]) -> TreeList:
        self.extend(values)
        return self

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, (TreeList, list, tuple)):
            return NotImplemented
        return bool(self.snapshot() == list(run(trees.plain(other))))

    def snapshot(self) -> list[Any]:
        """The whole list as a plain value of one revision."""
        return run(self._core.snapshot())


class Raw(MutableMapping[bytes, bytes]):
    """etcd's own keys and values, as bytes.

    Keys are whole: the prefix is part of them, and every key of the cluster can be named. Iterating, and
    counting, covers the client's prefix, housekeeping included, or the whole cluster where there is none.
    No guard protects the layout here. Thread-safe, as the client is; on disconnect it raises what the client
    raises.
    """

    def __init__(self, space: Namespace) -> None:
        self._space = space.bare()
        self._range = operations.raw_range(space)

    def __getitem__(self, key: bytes) -> bytes:
        return run(operations.raw_item(Exchange(self._space), key))

    def __setitem__(self, key: bytes, value: bytes) -> None:
        run(operations.raw_put(Exchange(self._space), key, value))

    def __delitem__(self, key: bytes) -> None:
        run(operations.raw_delete(Exchange(self._space), key))

    def pop(self, key: bytes, default: Any = MISSING) -> Any:
        """Delete a key and return the value that it had, atomically; ``default`` when there is none."""
        value = run(operations.raw_pop(Exchange(self._space), key))
        if value is None and default is MISSING:
            raise NotFound(f"{key!r}: no such key")
        return default if value is None else value

    def popitem(self) -> tuple[bytes, bytes]:
        """Delete the first key and return it and its value, atomically; `NotFound` when there is none."""
        return run(operations.raw_popitem(Exchange(self._space), *self._range))

    def setdefault(self, key: bytes, default: bytes) -> bytes:
        """The value of a key, written first when there is no such key; atomic."""
        return run(operations.raw_setdefault(Exchange(self._space), key, default))

    def clear(self, *, force: bool = False) -> None:
        """Delete every key below the prefix, housekeeping of living programs included, in one transaction.

        Without a prefix that would be the whole etcd: then ``force=True`` is needed.
        """
        run(operations.raw_clear(Exchange(self._space), force))

    def _pairs(self) -> Iterator[tuple[bytes, bytes]]:
        for page in drive(operations.pages(Exchange(self._space), *self._range)):
            for kv in page.kvs:
                yield kv.key, kv.value

    def __iter__(self) -> Iterator[bytes]:
        for page in drive(operations.pages(Exchange(self._space), *self._range, keys_only=True)):
            for kv in page.kvs:
                yield kv.key

    def __len__(self) -> int:
        return run(operations.raw_count(Exchange(self._space), *self._range))

    def __contains__(self, key: object) -> bool:
        return isinstance(key, bytes) and run(operations.raw_get(Exchange(self._space), key)) is not None

    def items(self) -> ItemsView[bytes, bytes]:
        return _RawItems(self)

    def values(self) -> ValuesView[bytes]:
        return _RawValues(self)

    __eq__ = object.__eq__
    __ne__ = object.__ne__
    __hash__ = object.__hash__


class _RawItems(ItemsView[bytes, bytes]):
    _mapping: Raw

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        return self._mapping._pairs()


class _RawValues(ValuesView[bytes]):
    _mapping: Raw

    def __iter__(self) -> Iterator[bytes]:
        return (value for _, value in self._mapping._pairs())
