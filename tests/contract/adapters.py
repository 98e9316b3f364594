"""One face for the blocking API and the asyncio one, so that one suite runs on both.

Everything is awaited, under one name for each verb. What the blocking client does is done in a thread, so
that a test can do something else while it waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from link_kv import EtcdMiddleware, Lock, Session, aio
from link_kv._core.wire.calls import run
from link_kv._core.wire.config import Config
from link_kv.sessions import Transaction
from link_kv.views import Tree, TreeList

Step = Callable[[Any], Awaitable[Any]]


def bare(value: Any) -> Any:
    """What is inside the adapters."""
    if isinstance(value, dict):
        return {key: bare(each) for key, each in value.items()}
    return value.target if isinstance(value, (Blocking, Asyncio)) else value


class Blocking:
    """A blocking object: a client, a past, a tree, a list, raw keys, a session, a lock or a transaction."""

    def __init__(self, target: Any) -> None:
        self.target = target

    def __getattr__(self, name: str) -> Any:
        """A verb that has the same name on both sides, awaitable; what is no verb as it is."""
        found = getattr(self.target, name)
        if not callable(found):
            return Blocking(found) if isinstance(found, (EtcdMiddleware, Tree)) else found
        return lambda *args, **options: self._do(found, *args, **options)

    async def _do(self, act: Callable[..., Any], *args: Any, **options: Any) -> Any:
        args = tuple(map(bare, args))
        result = await asyncio.to_thread(act, *args, **options)
        return Blocking(result) if isinstance(result, (Tree, TreeList)) else result

    async def item(self, path: Any) -> Any:
        return await self._do(self.target.__getitem__, path)

    async def assign(self, path: Any, value: Any) -> None:
        await self._do(self.target.__setitem__, path, value)

    async def remove(self, path: Any) -> None:
        await self._do(self.target.__delitem__, path)

    async def discard(self, value: Any) -> None:
        """Remove an item of a list by its value."""
        await self._do(self.target.remove, value)

    async def has(self, path: Any) -> bool:
        return bool(await self._do(self.target.__contains__, path))

    async def size(self) -> int:
        return int(await self._do(self.target.__len__))

    async def paths(self) -> list[Any]:
        return list(await self._do(lambda: list(self.target)))

    async def pairs(self) -> list[tuple[Any, Any]]:
        return list(await self._do(lambda: list(self.target.items())))

    async def contents(self) -> list[Any]:
        return list(await self._do(lambda: list(self.target.values())))

    def past(self, revision: int) -> Blocking:
        return Blocking(self.target.at(revision))

    @property
    def raw(self) -> Blocking:
        return Blocking(self.target.raw)

    async def transact(self, step: Step) -> Any:
        """``step`` awaits a transaction whose awaitables finish at once."""
        return await self._do(lambda: self.target.transaction(lambda t: run(step(AtOnce(t)))))  # type: ignore[arg-type]

    async def __aenter__(self) -> Blocking:
        entered = await self._do(self.target.__enter__)
        return self if entered is self.target else Blocking(entered)

    async def __aexit__(self, *error: Any) -> None:
        await self._do(self.target.__exit__, *error)


class AtOnce:
    """A blocking transaction, whose function is a coroutine that never waits."""

    def __init__(self, t: Transaction) -> None:
        self._t = t

    async def item(self, path: str) -> Any:
        return self._t[path]

    async def get(self, path: str, default: Any = None) -> Any:
        return self._t.get(path, default)

    async def has(self, path: str) -> bool:
        return path in self._t

    async def assign(self, path: str, value: Any) -> None:
        self._t[path] = value

    async def remove(self, path: str) -> None:
        del self._t[path]


class Asyncio:
    """An object of `link_kv.aio`."""

    def __init__(self, target: Any) -> None:
        self.target = target

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.target, name)
        if not callable(found):
            return Asyncio(found) if isinstance(found, aio.EtcdMiddleware) else found

        async def do(*args: Any, **options: Any) -> Any:
            return self._wrap(await found(*map(bare, args), **options))

        return do

    @staticmethod
    def _wrap(result: Any) -> Any:
        return Asyncio(result) if isinstance(result, (aio.Tree, aio.TreeList)) else result

    async def item(self, path: Any) -> Any:
        return self._wrap(await self.target[path])

    async def assign(self, path: Any, value: Any) -> None:
        value = bare(value)
        if isinstance(self.target, aio.Transaction):
            self.target[path] = value
        else:
            await self.target.put(path, value)

    async def remove(self, path: Any) -> None:
        await self.target.delete(path)

    async def discard(self, value: Any) -> None:
        await self.target.remove(value)

    async def has(self, path: Any) -> bool:
        return bool(await self.target.contains(path))

    async def size(self) -> int:
        return int(await self.target.count())

    async def paths(self) -> list[Any]:
        return [self._wrap(path) async for path in self.target]

    async def pairs(self) -> list[tuple[Any, Any]]:
        return [pair async for pair in self.target.items()]

    async def contents(self) -> list[Any]:
        return [value async for value in self.target.values()]

    def past(self, revision: int) -> Asyncio:
        return Asyncio(self.target.at(revision))

    @property
    def raw(self) -> Asyncio:
        return Asyncio(self.target.raw)

    async def transact(self, step: Step) -> Any:
        return await self.target.transaction(lambda t: step(Asyncio(t)))

    async def __aenter__(self) -> Asyncio:
        entered = await self.target.__aenter__()
        return self if entered is self.target else Asyncio(entered)

    async def __aexit__(self, *error: Any) -> None:
        await self.target.__aexit__(*error)


class Kind:
    """Makes clients, sessions and locks of one kind."""

    def __init__(self, name: str, endpoints: Iterable[str], prefix: str) -> None:
        self.name = name
        self._config = {"endpoints": tuple(endpoints), "prefix": prefix}

    @property
    def blocking(self) -> bool:
        return self.name == "blocking"

    def client(self, **options: Any) -> Any:
        config = Config(**{**self._config, **options})
        if self.blocking:
            return Blocking(EtcdMiddleware._of(config))
        return Asyncio(aio.EtcdMiddleware._of(config))

    async def session(self, client: Any, ttl: float = 10, **options: Any) -> Any:
        if self.blocking:
            return Blocking(await asyncio.to_thread(Session, client.target, ttl, **options))
        session = aio.Session(client.target, ttl, **options)
        await session.open()
        return Asyncio(session)

    def lock(self, client: Any, name: str, **options: Any) -> Any:
        if self.blocking:
            return Blocking(Lock(client.target, name, **options))
        return Asyncio(aio.Lock(client.target, name, **options))


async def soon(condition: Callable[[], Any], seconds: float = 15) -> None:
    """Wait until the condition holds, and let others work meanwhile."""
    end = asyncio.get_running_loop().time() + seconds
    while True:
        held = condition()
        if isinstance(held, Awaitable):
            held = await held
        if held:
            return
        assert asyncio.get_running_loop().time() < end, f"not within {seconds} s"
        await asyncio.sleep(0.01)
