"""The asyncio twin of `link_kv.EtcdMiddleware`: the same verbs, awaited, from the same implementation."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Any, TypeVar

from link_kv._core import operations, stm
from link_kv._core.calls import Wire
from link_kv._core.config import Config
from link_kv._core.connection import Connection
from link_kv._core.exchange import Exchange, Namespace
from link_kv._core.keeper import Keeper, Work
from link_kv._core.leases import Lease, SessionBase
from link_kv._core.locks import Mutex
from link_kv._core.operations import Entry
from link_kv.tree import MISSING

__all__ = ["Entry", "EtcdMiddleware", "Lock", "Past", "Raw", "Session", "Transaction"]

T = TypeVar("T")


class _Reader:
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
        async for leaf in operations.scan(ex, ex.place("/"), self._revision):
            yield leaf.path

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
        return self._revision


class EtcdMiddleware(Connection, _Reader):
    """etcd as a dictionary, for asyncio. Options and errors are those of `link_kv.EtcdMiddleware`.

    ``async with EtcdMiddleware(...) as client:`` closes it. Cancelling a task leaves no half of a write: it
    happened whole, or not at all. To be used from one event loop at a time.
    """

    @staticmethod
    def _wire(config: Config) -> Wire:
        from link_kv._core.transport import AsyncWire

        return AsyncWire(config)

    async def close(self) -> None:
        """Close the connections; calls after this raise `Closed`. May be called twice."""
        await self._space.caller.close()

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

    def at(self, revision: int) -> Past:
        """The mapping as it was at a revision, read-only."""
        return Past(self._space, revision)


class _TaskRun:
    """A keeper at work as a task."""

    def __init__(self, work: Work) -> None:
        self._woken = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(work(self._pause), name="link-kv-sessions")

    def wake(self) -> None:
        self._woken.set()

    def end(self) -> None:
        self._task.cancel()

    async def join(self, seconds: float | None) -> None:
        await asyncio.wait([self._task], timeout=seconds)

    async def _pause(self, seconds: float) -> bool:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._woken.wait(), seconds)
        self._woken.clear()
        return False  # it is cancelled to end


def _new_lease(client: EtcdMiddleware, ttl: float, renew: bool = False) -> Lease[asyncio.Event]:
    def find_keeper() -> Keeper:
        keepers, loop = client._keepers, asyncio.get_running_loop()
        for other in [other for other in keepers if other.is_closed()]:
            del keepers[other]
        return keepers.setdefault(loop, Keeper(client._space.caller, _TaskRun))

    return Lease(client._space, ttl, renew, asyncio.Event(), find_keeper)


class Session(SessionBase[asyncio.Event]):
    """A lease, kept alive by a task. The twin of `link_kv.Session`, with the same options.

    ``async with Session(client) as session:`` gets the lease and ends it; or `open` and `close`. Its task
    belongs to the event loop in which it was opened.
    """

    def __init__(self, client: EtcdMiddleware, ttl: float = 10, *, renew: bool = False) -> None:
        super().__init__(_new_lease(client, ttl, renew))

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
        """Give the lock up. Raises `LockLost` when it was lost before; it is given up all the same."""
        await self._release()

    async def __aenter__(self) -> Lock:
        await self._acquire(None)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._leave(error)

    def _new_lease(self) -> Lease[asyncio.Event]:
        return _new_lease(self._client, self._ttl)


class Transaction:
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


class Raw:
    """etcd's own keys and values, as bytes. Keys are whole: the prefix is part of them."""

    def __init__(self, space: Namespace) -> None:
        self._space = space

    def _exchange(self) -> Exchange:
        return Exchange(self._space)

    async def get(self, key: bytes, default: bytes | None = None) -> bytes | None:
        found = await operations.raw_get(self._exchange(), key)
        return default if found is None else found

    async def put(self, key: bytes, value: bytes) -> int:
        return await operations.raw_put(self._exchange(), key, value)

    async def delete(self, key: bytes) -> bool:
        """Whether there was such a key."""
        return await operations.raw_delete(self._exchange(), key)

    async def items(self) -> AsyncIterator[tuple[bytes, bytes]]:
        """The keys below the client's prefix, housekeeping included, and their values."""
        async for page in operations.pages(self._exchange(), *operations.raw_range(self._space)):
            for kv in page.kvs:
                yield kv.key, kv.value

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for key, _ in self.items():
            yield key
