"""The asyncio twin of `link_kv.EtcdMiddleware`: the same verbs, awaited, from the same implementation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from importlib import import_module
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from link_kv._core import operations
from link_kv._core.leasing.aio_keeper import new_lease
from link_kv._core.leasing.leases import Lease, SessionBase
from link_kv._core.leasing.locks import Mutex
from link_kv._core.operations import Entry, Kind, stm, trees
from link_kv._core.watching.aio_takers import Changes, Mirror, Subscription
from link_kv._core.wire.calls import Wire
from link_kv._core.wire.config import Config
from link_kv._core.wire.connection import Connection
from link_kv._core.wire.exchange import Exchange, Namespace
from link_kv.live import Change, State, hub_of
from link_kv.tree import MISSING

if TYPE_CHECKING:
    from link_kv.aio_links import Client, Link, LinkedClient, Service, connect

__all__ = [
    "Change",
    "Changes",
    "Client",
    "Entry",
    "EtcdMiddleware",
    "Link",
    "LinkedClient",
    "Lock",
    "Mirror",
    "Past",
    "Raw",
    "Service",
    "Session",
    "Subscription",
    "Transaction",
    "Tree",
    "TreeList",
    "connect",
]

T = TypeVar("T")


def __getattr__(name: str) -> object:
    # Services are imported when they are asked for.
    if name not in ("Client", "Link", "LinkedClient", "Service", "connect"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("link_kv.aio_links"), name)


class _Awaited:
    """What is awaited, and can neither be asked with ``in`` nor iterated without ``async``."""

    # Else Python asks for the items 0, 1, 2, … and never ends, since a coroutine is no IndexError.
    __contains__ = None
    __iter__ = None


class _Reader(_Awaited):
    """Reading by path and iterating over leaf paths, now or at a revision."""

    _space: Namespace
    _revision: int = 0

    def _exchange(self) -> Exchange:
        return Exchange(self._space)

    async def __getitem__(self, path: str) -> Any:
        """``await client[path]``: the value at a path. Raises `NotFound`."""
        return await operations.get(self._exchange(), path, self._revision)

    async def get(self, path: str, default: Any = None) -> Any:
        """The value at a path, or ``default`` when nothing is there."""
        value = await operations.read(self._exchange(), path, self._revision)
        return default if value is MISSING else value

    async def contains(self, path: str) -> bool:
        """Whether a leaf or a tree is at a path."""
        return await operations.contains(self._exchange(), path, self._revision)

    async def count(self) -> int:
        """The number of leaves, as ``len`` of the blocking client."""
        number = 0
        async for _ in self:
            number += 1
        return number

    async def __aiter__(self) -> AsyncIterator[str]:
        ex = self._exchange()
        async for path in operations.leaf_paths(ex, ex.place("/"), self._revision):
            yield path

    def keys(self) -> AsyncIterator[str]:
        """The paths of all leaves, of one revision."""
        return self.__aiter__()

    async def items(self) -> AsyncIterator[tuple[str, Any]]:
        """Paths and values of all leaves, of one revision."""
        ex = self._exchange()
        async for leaf in operations.scan(ex, ex.place("/"), self._revision):
            yield leaf.path, operations.leaf_value(leaf)

    async def values(self) -> AsyncIterator[Any]:
        """Values of all leaves, of one revision."""
        async for _, value in self.items():
            yield value


class Past(_Reader):
    """The mapping as it was at a revision, read-only, until that is compacted away."""

    def __init__(self, space: Namespace, revision: int) -> None:
        self._space = space
        self._revision = operations.past_revision(revision)

    @property
    def revision(self) -> int:
        """The revision that it shows."""
        return self._revision


class EtcdMiddleware(Connection, _Reader):
    """etcd as a dictionary, for asyncio. Options and errors are those of `link_kv.EtcdMiddleware`.

    ``async with EtcdMiddleware(...) as client:`` closes it. Cancelling a task leaves no half of a write: it
    happened whole, or not at all. To be used from one event loop at a time.
    """

    @staticmethod
    def _wire(config: Config) -> Wire:
        from link_kv._core.wire.transport import AsyncWire

        return AsyncWire(config)

    async def close(self) -> None:
        """Close the connections; calls after this raise `Closed`. May be called twice."""
        await self._space.caller.close()
        for hub in list(self._hubs.values()):
            await asyncio.to_thread(hub.close)

    async def __aenter__(self) -> EtcdMiddleware:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def raw(self) -> Raw:
        """The keys and values as etcd holds them, in bytes."""
        return Raw(self._space)

    async def etcd3(self) -> Any:
        """An ``etcd3.Etcd3Client`` on the same cluster. It blocks. See `link_kv.EtcdMiddleware.etcd3`."""
        from link_kv._core.wire.maintenance import etcd3_client

        return await etcd3_client(self._space.caller)

    async def put(
        self, path: str, value: Any, *, revision: int | None = None, ttl: float | None = None
    ) -> int:
        """Assign a path, and return the revision. See `link_kv.EtcdMiddleware.put`."""
        return await operations.put(self._exchange(), path, value, revision, ttl)

    async def create(self, path: str, value: Any, *, ttl: float | None = None) -> int:
        """Write where nothing is, and return the revision. Raises `KeyExists`."""
        return await operations.create(self._exchange(), path, value, ttl)

    async def delete(self, path: str) -> int:
        """Delete a leaf or a tree, and return the revision. Raises `NotFound`."""
        return await operations.delete(self._exchange(), path)

    async def pop(self, path: str, default: Any = MISSING) -> Any:
        """Delete a leaf or tree and return the value it had, atomically; ``default`` when there is none."""
        return await operations.pop(self._exchange(), path, default)

    async def popitem(self) -> tuple[str, Any]:
        """Delete the first leaf and return its path and value; `NotFound` when there is none."""
        return await operations.popitem(self._exchange())

    async def setdefault(self, path: str, default: Any = None) -> Any:
        """The value at a path, written there first when nothing is; atomic."""
        return await operations.setdefault(self._exchange(), path, default)

    async def update(self, other: Any = (), /, **names: Any) -> None:
        """Assign several paths in one transaction, with the effect of assigning them in order."""
        await operations.update(self._exchange(), operations.pairs(other, names))

    async def clear(self, *, force: bool = False) -> None:
        """Delete everything below the prefix. See `link_kv.EtcdMiddleware.clear`."""
        await operations.clear(self._exchange(), force)

    async def entry(self, path: str) -> Entry:
        """A value with its revisions, version and lease. Raises `NotFound`."""
        return await operations.entry(self._exchange(), path)

    async def append(self, path: str, item: Any) -> str:
        """Add an item at the end of a list and return its path; where nothing is, the list is made."""
        return await operations.append(self._exchange(), path, item)

    async def snapshot(self, path: str = "/", *, revision: int | None = None) -> Any:
        """The nested value at a path, all of one revision, now or in the past. Raises `NotFound`."""
        number = 0 if revision is None else operations.past_revision(revision)
        return await operations.get(self._exchange(), path, number)

    async def transaction(self, function: Callable[[Transaction], Awaitable[T]]) -> T:
        """Run ``await function(t)`` as one transaction. See `link_kv.EtcdMiddleware.transaction`."""
        return await stm.transact(self._space, lambda core: function(Transaction(core)))

    async def subscribe(
        self,
        path: str,
        callback: Callable[[Change], object],
        *,
        policy: Literal["all", "latest"] = "all",
        prime: bool = False,
        max_hz: float | None = None,
        queue: int = 10_000,
        on_state: Callable[[State], object] | None = None,
    ) -> Subscription:
        """Call ``callback(change)``, in this loop, for each `Change` at or below a path, from now on.

        What the callback returns is awaited when it can be. See `link_kv.EtcdMiddleware.subscribe`.
        """
        at = self._space.place(path)
        options: dict[str, Any] = {"policy": policy, "max_hz": max_hz, "queue": queue, "on_state": on_state}
        subscription = Subscription(hub_of(self), at, callback, **options)
        await subscription._start(at, prime)
        return subscription

    def watch(self, path: str = "/", *, revision: int | None = None) -> Changes:
        """Iterate over the changes at or below a path with ``async for``, until it is closed.

        ``async with client.watch('/a') as changes:`` listens from there on, and closes it. See
        `link_kv.EtcdMiddleware.watch`.
        """
        return Changes(hub_of(self), self._space.place(path), revision)

    async def mirror(self, path: str = "/") -> Mirror:
        """A read-only copy of a subtree in memory that follows every change.

        Reading it never waits. See `link_kv.EtcdMiddleware.mirror`.
        """
        return await Mirror._open(hub_of(self), self._space.caller, self._space.place(path))

    def at(self, revision: int) -> Past:
        """The mapping as it was at a revision, read-only."""
        return Past(self._space, revision)

    async def tree(self, path: str = "/") -> Tree | TreeList:
        """The tree or list at a path as a live view, which writes through. Raises `NotATree`."""
        return _view(self._space, await trees.tree_at(self._space, path))  # type: ignore[no-any-return]


class Session(SessionBase[asyncio.Event]):
    """A lease, kept alive by a task. The twin of `link_kv.Session`, with the same options.

    ``async with Session(client) as session:`` gets the lease and ends it; or `open` and `close`. Its task
    belongs to the event loop in which it was opened.
    """

    def __init__(self, client: EtcdMiddleware, ttl: float = 10, *, renew: bool = False) -> None:
        super().__init__(new_lease(client, ttl, renew))

    async def open(self) -> None:
        """Get the lease, and keep it alive from now on. Does nothing when it is open."""
        await self._lease.open()

    async def put(self, path: str, value: Any) -> int:
        """Write a value that goes with the session. See `link_kv.Session.put`."""
        return await self._lease.put(path, value)

    async def delete(self, path: str) -> int:
        """Delete what was put under the session, and return the revision. Raises `NotFound`."""
        return await self._lease.delete(path)

    async def close(self) -> None:
        """End the lease, and every key under it. May be called twice. See `link_kv.Session.close`."""
        await self._lease.close()

    async def __aenter__(self) -> Session:
        await self._lease.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._lease.close()


class Lock(Mutex["EtcdMiddleware", asyncio.Event]):
    """A lock that any program may ask for by name, fair and fenced. The twin of `link_kv.Lock`.

    ``async with Lock(client, 'name') as lock:`` waits as long as it takes, and never enters without the lock.
    Cancelling a task that waits takes it out of the queue.
    """

    async def acquire(self, timeout: float | None = None) -> bool:
        """Wait for the lock, for ``timeout`` seconds at most. See `link_kv.Lock.acquire`."""
        return await self._acquire(timeout)

    async def release(self) -> None:
        """Give the lock up. See `link_kv.Lock.release`."""
        await self._release()

    async def __aenter__(self) -> Lock:
        await self._acquire(None)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._leave(error)

    def _new_lease(self) -> Lease[asyncio.Event]:
        return new_lease(self._client, self._ttl)


class Transaction(_Awaited):
    """What a function given to `EtcdMiddleware.transaction` reads and writes.

    Reads are awaited, of one revision, and show what the function itself has written. Nothing is written
    before the function returns. For one task at a time.
    """

    def __init__(self, core: stm.Transaction) -> None:
        self._core = core

    async def __getitem__(self, path: str) -> Any:
        """``await t[path]``. Raises `NotFound`."""
        return await self._core.get(path)

    async def get(self, path: str, default: Any = None) -> Any:
        """The value at a path, or ``default`` when nothing is there."""
        return await self._core.read(path, default)

    async def contains(self, path: str) -> bool:
        """Whether a leaf or a tree is at a path."""
        return await self._core.contains(path)

    def __setitem__(self, path: str, value: Any) -> None:
        self._core.write(path, value)

    async def delete(self, path: str) -> None:
        """Delete a leaf or a tree. Raises `NotFound`."""
        await self._core.delete(path)


def _view(space: Namespace, found: trees.Found) -> Any:
    """A leaf's value, or the live view of a tree or list."""
    if found.kind is Kind.LEAF:
        return found.value
    return (TreeList if found.kind is Kind.LIST else Tree)(space, found.path)


class Tree(trees.View, _Awaited):
    """A tree of a client as a live view, by the names of its children. The twin of `link_kv.views.Tree`.

    A child that is a tree or a list is a view again. Nothing is cached: each access is a read.
    """

    _core: trees.Branch

    def __init__(self, space: Namespace, path: str) -> None:
        self._space = space
        self._core = trees.Branch(space, path)

    async def __getitem__(self, name: str) -> Any:
        """``await tree[name]``: a child, as a value or a view. Raises `NotFound`."""
        return _view(self._space, await self._core.child(name))

    async def get(self, name: str, default: Any = None) -> Any:
        """A child, as a value or a view, or ``default`` when it is not there."""
        found = await self._core.find(name)
        return default if found is None else _view(self._space, found)

    async def put(self, name: str, value: Any) -> int:
        """Set a child, and return the revision."""
        return await self._core.put(name, value)

    async def delete(self, name: str) -> int:
        """Delete a child, and return the revision. Raises `NotFound`."""
        return await self._core.delete(name)

    async def contains(self, name: object) -> bool:
        """Whether there is such a child."""
        return await self._core.contains(name)

    async def __aiter__(self) -> AsyncIterator[str]:
        for name in await self._core.names():
            yield name

    async def count(self) -> int:
        """The number of children."""
        return len(await self._core.names())

    async def pop(self, name: str, default: Any = MISSING) -> Any:
        """Remove a child and return its plain value, atomically."""
        return await self._core.pop(name, default)

    async def popitem(self) -> tuple[str, Any]:
        """Remove the first child, atomically, and return its name and its plain value."""
        return await self._core.popitem()

    async def setdefault(self, name: str, default: Any = None) -> Any:
        """The child, made from ``default`` when it is not there, atomically."""
        return _view(self._space, await self._core.setdefault(name, default))

    async def update(self, other: Any = (), /, **names: Any) -> None:
        """Set several children in one transaction."""
        await self._core.update(other, names)

    async def clear(self) -> None:
        """Remove all children, atomically; an empty dict stays."""
        await self._core.clear()

    async def snapshot(self) -> Any:
        """The whole tree as a plain nested value of one revision, ``{}`` where nothing is."""
        return await self._core.snapshot()


class TreeList(trees.View, _Awaited):
    """A list of a client as a live view, counted from 0. The twin of `link_kv.views.TreeList`."""

    _core: trees.Row

    def __init__(self, space: Namespace, path: str) -> None:
        self._space = space
        self._core = trees.Row(space, path)

    async def __getitem__(self, index: int | slice) -> Any:
        """``await items[0]``: an item, as a value or a view; ``await items[1:]``: plain values."""
        if isinstance(index, slice):
            return (await self._core.snapshot())[index]
        return _view(self._space, await self._core.item(index))

    async def __aiter__(self) -> AsyncIterator[Any]:
        for value in await self._core.snapshot():
            yield value

    async def count(self) -> int:
        """The number of items."""
        return await self._core.length()

    async def put(self, index: int | slice, value: Any) -> None:
        """Replace an item, or the items of a slice."""
        await self._core.put(index, value)

    async def delete(self, index: int | slice) -> None:
        """Delete an item, or the items of a slice; those behind it move up."""
        await self._core.delete(index)

    async def insert(self, index: int, value: Any) -> None:
        """Insert an item before an index."""
        await self._core.insert(index, value)

    async def append(self, value: Any) -> None:
        """Add an item at the end."""
        await self._core.append(value)

    async def extend(self, values: Iterable[Any]) -> None:
        """Add items at the end."""
        await self._core.extend(values)

    async def pop(self, index: int = -1) -> Any:
        """Remove an item and return it."""
        return await self._core.pop(index)

    async def remove(self, value: Any) -> None:
        """Remove the first item that is equal. Raises `ValueError`."""
        await self._core.remove(value)

    async def reverse(self) -> None:
        """Turn the order round."""
        await self._core.reverse()

    async def clear(self) -> None:
        """Remove all items."""
        await self._core.clear()

    async def snapshot(self) -> list[Any]:
        """The whole list as a plain value of one revision."""
        return await self._core.snapshot()


class Raw(_Awaited):
    """etcd's own keys and values, as bytes. The twin of `link_kv.views.Raw`.

    Keys are whole: the prefix is part of them. Iterating, and counting, covers the client's prefix,
    housekeeping included, or the whole cluster where there is none. No guard protects the layout here.
    """

    def __init__(self, space: Namespace) -> None:
        self._space = space.bare()
        self._range = operations.raw_range(space)

    def _exchange(self) -> Exchange:
        return Exchange(self._space)

    async def __getitem__(self, key: bytes) -> bytes:
        """``await raw[key]``. Raises `NotFound`."""
        return await operations.raw_item(self._exchange(), key)

    async def get(self, key: bytes, default: bytes | None = None) -> bytes | None:
        """The value of a key, or ``default`` when there is no such key."""
        found = await operations.raw_get(self._exchange(), key)
        return default if found is None else found

    async def put(self, key: bytes, value: bytes) -> int:
        """Write a key, and return the revision."""
        return await operations.raw_put(self._exchange(), key, value)

    async def delete(self, key: bytes) -> int:
        """Delete a key, and return the revision. Raises `NotFound`."""
        return await operations.raw_delete(self._exchange(), key)

    async def contains(self, key: bytes) -> bool:
        """Whether there is such a key."""
        return await operations.raw_get(self._exchange(), key) is not None

    async def count(self) -> int:
        """The number of keys."""
        return await operations.raw_count(self._exchange(), *self._range)

    async def items(self) -> AsyncIterator[tuple[bytes, bytes]]:
        """Keys and values, of one revision."""
        async for page in operations.pages(self._exchange(), *self._range):
            for kv in page.kvs:
                yield kv.key, kv.value

    async def values(self) -> AsyncIterator[bytes]:
        """Values, of one revision."""
        async for _, value in self.items():
            yield value

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for page in operations.pages(self._exchange(), *self._range, keys_only=True):
            for kv in page.kvs:
                yield kv.key
