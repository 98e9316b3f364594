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
from typing import TYPE_CHECKING, Any, overload

from link_kv._core import operations
from link_kv._core.calls import run
from link_kv._core.exchange import Exchange, Namespace
from link_kv._core.iterate import drive
from link_kv.errors import ListIndexError, NotATree, NotFound
from link_kv.tree import MISSING, decode_name, encode_name, segments_of

if TYPE_CHECKING:
    from link_kv.middleware import EtcdMiddleware


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
        return (leaf.path for leaf in drive(operations.scan(ex, ex.place("/"), self._revision)))

    def _pairs(self) -> Iterator[tuple[str, Any]]:
        ex = self._exchange()
        for leaf in drive(operations.scan(ex, ex.place("/"), self._revision)):
            yield leaf.path, operations.leaf_value(leaf)

    def __len__(self) -> int:
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
        return self._revision

    def __repr__(self) -> str:
        return f"<link_kv at revision {self._revision}>"


def view(client: EtcdMiddleware, path: str) -> Tree | TreeList:
    """The live view of what is at a path; a tree where nothing is yet."""
    kind, _ = run(operations.peek(client._exchange(), path))
    if kind is operations.Kind.LEAF:
        raise NotATree(f"{path}: holds a value, not a tree")
    return TreeList(client, path) if kind is operations.Kind.LIST else Tree(client, path)


def _child(client: EtcdMiddleware, path: str) -> Any:
    """A leaf's value, or the live view of a tree; `MISSING` when nothing is there."""
    kind, value = run(operations.peek(client._exchange(), path))
    if kind is operations.Kind.LIST:
        return TreeList(client, path)
    return Tree(client, path) if kind is operations.Kind.DICT else value


def _plain(value: Any) -> Any:
    return value.snapshot() if isinstance(value, (Tree, TreeList)) else value


class Tree(MutableMapping[str, Any]):
    """A tree of a client as a nested dict that writes through.

    Keys are the names of children; a child that is a tree or a list is a live view again, so
    ``tree['a']['b'] = 1`` reaches etcd. Nothing is cached: each access is a read. Compares by content.
    Thread-safe, as the client is; on disconnect it raises what the client raises.
    """

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, client: EtcdMiddleware, path: str) -> None:
        at = client._space.place(path)
        self._client = client
        self.path = at.path
        self._below = "" if not at.segments else at.path

    def _paths(self, name: object) -> list[str]:
        """Where a child may stand: as its name is written, and, made by other tools, as it is spelled."""
        if not isinstance(name, str):
            return []
        return [f"{self._below}/{segment}" for segment in segments_of(name, self.path)]

    def _path(self, name: str) -> str:
        """Where a child is, or will be."""
        paths = self._paths(name)
        for path in paths[1:]:
            if paths[0] not in self._client and path in self._client:
                return path
        return paths[0] if paths else f"{self._below}/{encode_name(name, self.path)}"

    def __getitem__(self, name: str) -> Any:
        for path in self._paths(name):
            value = _child(self._client, path)
            if value is not MISSING:
                return value
        raise NotFound(f"{self.path}: has no {name!r}")

    def __setitem__(self, name: str, value: Any) -> None:
        self._client[self._path(name)] = _plain(value)

    def __delitem__(self, name: str) -> None:
        try:
            del self._client[self._path(name)]
        except NotFound:
            raise NotFound(f"{self.path}: has no {name!r}") from None

    def __contains__(self, name: object) -> bool:
        return any(path in self._client for path in self._paths(name))

    def __iter__(self) -> Iterator[str]:
        segments = run(operations.children(self._client._exchange(), self.path))
        return iter(dict.fromkeys(map(decode_name, segments)))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __bool__(self) -> bool:
        ex = self._client._exchange()
        return run(operations.any_leaf(ex, ex.place(self.path), below=True))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mapping):
            return NotImplemented
        return bool(self.snapshot() == _plain(other))

    def __repr__(self) -> str:
        return f"<Tree {self.path} of {self._client!r}>"

    def snapshot(self) -> Any:
        """The whole tree as a plain nested value of one revision, ``{}`` where nothing is."""
        return self._client.get(self.path, {})

    _default = object()

    def pop(self, name: str, default: Any = _default) -> Any:
        """Remove a child and return its plain value, atomically."""
        try:
            return self._client.pop(self._path(name))
        except NotFound:
            if default is not self._default:
                return default
            raise NotFound(f"{self.path}: has no {name!r}") from None

    def popitem(self) -> tuple[str, Any]:
        """Remove the first child, atomically, and return its name and its plain value."""
        for name in self:
            try:
                return name, self.pop(name)
            except NotFound:
                continue  # others were faster
        raise NotFound(f"{self.path}: is empty")

    def setdefault(self, name: str, default: Any = None) -> Any:
        """The child, made from ``default`` when it is not there, atomically."""
        path = self._path(name)
        self._client.setdefault(path, _plain(default))
        return self[name]

    def update(self, other: Any = (), /, **names: Any) -> None:
        """Set several children in one transaction."""
        pairs = other.items() if isinstance(other, Mapping) else other
        merged = {self._path(name): _plain(value) for name, value in (*pairs, *names.items())}
        self._client.update(merged)

    def clear(self) -> None:
        """Remove all children, atomically; an empty dict stays."""
        if self._below:
            self._client[self.path] = {}
        else:
            self._client.clear()


class TreeList(MutableSequence[Any]):
    """A list of a client as a sequence that writes through, counted from 0.

    Changing it anywhere but at the end rewrites it in one transaction, guarded: two who change it at once
    both get what they asked for. Compares by content. Thread-safe, as the client is.
    """

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, client: EtcdMiddleware, path: str) -> None:
        self._client = client
        self.path = client._space.place(path).path

    def _edit(self, edit: Any) -> Any:
        try:
            return run(operations.edit_list(self._client._exchange(), self.path, edit))
        except IndexError as error:
            raise ListIndexError(f"{self.path}: {error}") from None

    def _index(self, index: int) -> int:
        """The place of an item in etcd, for an index that may count from the end."""
        if index >= 0:
            return index + 1
        place = len(self) + index + 1
        if place < 1:
            raise ListIndexError(f"{self.path}: list index {index} out of range")
        return place

    def __len__(self) -> int:
        return run(operations.length(self._client._exchange(), self.path))

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return self.snapshot()[index]
        value = _child(self._client, f"{self.path}/{self._index(index)}")
        if value is MISSING:
            raise ListIndexError(f"{self.path}: list index {index} out of range")
        return value

    def __setitem__(self, index: int | slice, value: Any) -> None:
        if isinstance(index, slice):
            values = [_plain(item) for item in value]
            self._edit(lambda items: items.__setitem__(index, values))
        else:
            self._edit(lambda items: items.__setitem__(index, _plain(value)))

    def __delitem__(self, index: int | slice) -> None:
        self._edit(lambda items: items.__delitem__(index))

    def insert(self, index: int, value: Any) -> None:
        self._edit(lambda items: items.insert(index, _plain(value)))

    def append(self, value: Any) -> None:
        self._client.append(self.path, _plain(value))

    def extend(self, values: Iterable[Any]) -> None:
        added = [_plain(value) for value in values]
        self._edit(lambda items: items.extend(added))

    def pop(self, index: int = -1) -> Any:
        return self._edit(lambda items: items.pop(index))

    def remove(self, value: Any) -> None:
        self._edit(lambda items: items.remove(_plain(value)))

    def reverse(self) -> None:
        self._edit(lambda items: items.reverse())

    def clear(self) -> None:
        self._edit(lambda items: items.clear())

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
        return bool(self.snapshot() == list(_plain(other)))

    def __repr__(self) -> str:
        return f"<TreeList {self.path} of {self._client!r}>"

    def snapshot(self) -> list[Any]:
        """The whole list as a plain value of one revision."""
        value = self._client[self.path]
        if not isinstance(value, list):
            raise NotATree(f"{self.path}: is not a list any more")
        return value


class Raw(MutableMapping[bytes, bytes]):
    """etcd's own keys and values, as bytes.

    Keys are whole: the prefix is part of them, and every key of the cluster can be named. Iterating, and
    counting, covers the client's prefix, housekeeping included, or the whole cluster where there is none.
    No guard protects the layout here. Thread-safe.
    """

    def __init__(self, space: Namespace) -> None:
        self._space = space.bare()
        self._range = operations.raw_range(space)

    def __getitem__(self, key: bytes) -> bytes:
        found = run(operations.raw_get(Exchange(self._space), key))
        if found is None:
            raise NotFound(f"{key!r}: no such key")
        return found

    def __setitem__(self, key: bytes, value: bytes) -> None:
        run(operations.raw_put(Exchange(self._space), key, value))

    def __delitem__(self, key: bytes) -> None:
        if not run(operations.raw_delete(Exchange(self._space), key)):
            raise NotFound(f"{key!r}: no such key")

    def _pairs(self) -> Iterator[tuple[bytes, bytes]]:
        for page in drive(operations.pages(Exchange(self._space), *self._range)):
            for kv in page.kvs:
                yield kv.key, kv.value

    def __iter__(self) -> Iterator[bytes]:
        return (key for key, _ in self._pairs())

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
