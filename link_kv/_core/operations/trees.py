"""What the live views of trees and lists do, each operation once, for the blocking client and for asyncio."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

from link_kv._core import operations
from link_kv._core.operations import Kind
from link_kv._core.wire.exchange import Exchange, Namespace
from link_kv.errors import ListIndexError, NotATree, NotFound
from link_kv.tree import MISSING, decode_name, encode_name, segments_of

T = TypeVar("T")


class Found(NamedTuple):
    """What stands at a path: a leaf with its value, a dict, or a list."""

    path: str
    kind: Kind
    value: Any


class View:
    """What all views have: where they are. Compared by content, so they have no hash."""

    __hash__ = None  # type: ignore[assignment]
    _core: Branch | Row

    @property
    def path(self) -> str:
        """The path of the tree or list, as the client names it."""
        return self._core.path

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path}>"


async def plain(value: Any) -> Any:
    """A value that can be stored: a view as what it shows."""
    return await value._core.snapshot() if isinstance(value, View) else value


async def find(space: Namespace, path: str) -> Found:
    kind, value = await operations.peek(Exchange(space), path)
    return Found(path, kind, value)


async def tree_at(space: Namespace, path: str) -> Found:
    """The tree or list at a path; a tree where nothing is yet. Raises `NotATree`."""
    found = await find(space, path)
    if found.kind is Kind.LEAF:
        raise NotATree(f"{path}: holds a value, not a tree")
    return found


class _At:
    def __init__(self, space: Namespace, path: str) -> None:
        self._space = space
        self._place = space.place(path)
        self.path = self._place.path

    def _exchange(self) -> Exchange:
        return Exchange(self._space)


class Branch(_At):
    """A tree, by the names of its children."""

    def _paths(self, name: object) -> list[str]:
        """Where a child may stand: as its name is written, and, made by other tools, as it is spelled."""
        if not isinstance(name, str):
            return []
        below = self.path if self._place.segments else ""
        return [f"{below}/{segment}" for segment in segments_of(name, self.path)]

    async def _where(self, name: str) -> str:
        """Where a child is, or will be. Raises `EncodeError` for what can be no name."""
        encode_name(name, self.path)
        first, *others = self._paths(name)
        for path in others:
            if not await self._is(first) and await self._is(path):
                return path
        return first

    async def _is(self, path: str) -> bool:
        return await operations.contains(self._exchange(), path)

    def _missing(self, name: object) -> NotFound:
        return NotFound(f"{self.path}: has no {name!r}")

    async def find(self, name: object) -> Found | None:
        for path in self._paths(name):
            found = await find(self._space, path)
            if found.kind is not Kind.NOTHING:
                return found
        return None

    async def child(self, name: object) -> Found:
        found = await self.find(name)
        if found is None:
            raise self._missing(name)
        return found

    async def contains(self, name: object) -> bool:
        for path in self._paths(name):
            if await self._is(path):
                return True
        return False

    async def names(self) -> list[str]:
        segments = await operations.children(self._exchange(), self.path)
        return list(dict.fromkeys(map(decode_name, segments)))

    async def any(self) -> bool:
        return await operations.any_leaf(self._exchange(), self._place, below=True)

    async def snapshot(self) -> Any:
        value = await operations.read(self._exchange(), self.path)
        return {} if value is MISSING else value

    async def put(self, name: str, value: Any) -> int:
        return await operations.put(self._exchange(), await self._where(name), await plain(value))

    async def delete(self, name: str) -> int:
        try:
            return await operations.delete(self._exchange(), await self._where(name))
        except NotFound:
            raise self._missing(name) from None

    async def pop(self, name: str, default: Any = MISSING) -> Any:
        try:
            return await operations.pop(self._exchange(), await self._where(name), default)
        except NotFound:
            raise self._missing(name) from None

    async def popitem(self) -> tuple[str, Any]:
        for name in await self.names():
            try:
                return name, await self.pop(name)
            except NotFound:
                continue  # others were faster
        raise NotFound(f"{self.path}: is empty")

    async def setdefault(self, name: str, default: Any) -> Found:
        path = await self._where(name)
        # Not read anew: others may have deleted it by now.
        value = await operations.setdefault(self._exchange(), path, await plain(default))
        if isinstance(value, dict):
            return Found(path, Kind.DICT, MISSING)
        if isinstance(value, (list, tuple)):
            return Found(path, Kind.LIST, MISSING)
        return Found(path, Kind.LEAF, value)

    async def update(self, other: Any, names: Mapping[str, Any]) -> None:
        if isinstance(other, View):
            other = await plain(other)
        pairs = operations.pairs(other, names)
        merged = [(await self._where(name), await plain(value)) for name, value in pairs]
        await operations.update(self._exchange(), merged)

    async def clear(self) -> None:
        if self._place.segments:
            await operations.put(self._exchange(), self.path, {})
        else:
            await operations.clear(self._exchange(), False)


class Row(_At):
    """A list, counted from 0 as in Python."""

    async def length(self) -> int:
        return await operations.length(self._exchange(), self.path)

    async def snapshot(self) -> list[Any]:
        value = await operations.get(self._exchange(), self.path)
        if not isinstance(value, list):
            raise NotATree(f"{self.path}: is not a list any more")
        return value

    async def item(self, index: int) -> Found:
        place = index + 1 if index >= 0 else await self.length() + index + 1
        if place >= 1:
            found = await find(self._space, f"{self.path}/{place}")
            if found.kind is not Kind.NOTHING:
                return found
        raise ListIndexError(f"{self.path}: list index {index} out of range")

    async def edit(self, change: Callable[[list[Any]], T]) -> T:
        try:
            return await operations.edit_list(self._exchange(), self.path, change)
        except IndexError as error:
            raise ListIndexError(f"{self.path}: {error}") from None

    async def put(self, index: int | slice, value: Any) -> None:
        stored = [await plain(each) for each in value] if isinstance(index, slice) else await plain(value)
        await self.edit(lambda items: items.__setitem__(index, stored))

    async def delete(self, index: int | slice) -> None:
        await self.edit(lambda items: items.__delitem__(index))

    async def insert(self, index: int, value: Any) -> None:
        stored = await plain(value)
        await self.edit(lambda items: items.insert(index, stored))

    async def append(self, value: Any) -> None:
        await operations.append(self._exchange(), self.path, await plain(value))

    async def extend(self, values: Iterable[Any]) -> None:
        if isinstance(values, View):
            values = await plain(values)
        added = [await plain(value) for value in values]
        await self.edit(lambda items: items.extend(added))

    async def pop(self, index: int) -> Any:
        return await self.edit(lambda items: items.pop(index))

    async def remove(self, value: Any) -> None:
        stored = await plain(value)
        await self.edit(lambda items: items.remove(stored))

    async def reverse(self) -> None:
        await self.edit(lambda items: items.reverse())

    async def clear(self) -> None:
        await self.edit(lambda items: items.clear())
