"""How changes are taken in an asyncio loop, while a thread reads them from etcd."""

from __future__ import annotations

import asyncio
import inspect
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Protocol, TypeVar

from link_kv._core.watching.consumer import State
from link_kv._core.watching.mirrors import BaseMirror
from link_kv._core.watching.replica import Change
from link_kv._core.watching.takers import Callbacks, Iteration
from link_kv._core.watching.watcher import Hub
from link_kv._core.wire.calls import Caller
from link_kv.errors import LinkKVError
from link_kv.tree import Place


class _Closes(Protocol):
    def close(self) -> None: ...


T = TypeVar("T", bound=_Closes)


def _soon(loop: asyncio.AbstractEventLoop, function: Callable[[], object]) -> None:
    """Have a function called in the loop, unless that has ended."""
    try:
        loop.call_soon_threadsafe(function)
    except RuntimeError:
        if not loop.is_closed():
            raise


async def _begin(make: Callable[[], T]) -> T:
    """Make what listens, which blocks, in a thread; what is cancelled meanwhile is closed."""
    making = asyncio.ensure_future(asyncio.to_thread(make))
    try:
        return await asyncio.shield(making)
    except asyncio.CancelledError:
        making.add_done_callback(_close_made)
        raise


def _close_made(making: asyncio.Future[T]) -> None:
    if not making.cancelled() and making.exception() is None:
        making.result().close()


class Subscription(Callbacks):
    """A callback that is called for each change, in the loop; `EtcdMiddleware.subscribe` makes it.

    What the callback returns is awaited, when it can be, before it is called for the next change. The twin of
    `link_kv.Subscription`. An async context manager that closes it.
    """

    async def _start(self, at: Place, prime: bool) -> None:
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._due = asyncio.Event()
        self._ending = False
        await _begin(lambda: self._joined(at, prime))

    def _joined(self, at: Place, prime: bool) -> Subscription:
        self._hub.join(self, at, prime)
        return self

    def _wake(self) -> None:
        _soon(self._loop, self._run)

    def _run(self) -> None:
        self._task = self._loop.create_task(self._work_on(), name="link-kv-callbacks")

    async def _work_on(self) -> None:
        while (again := await self._work()) is not None:
            self._due.clear()
            timer = self._loop.call_later(max(0.0, again - time.monotonic()), self._due.set)
            try:
                await self._due.wait()
            finally:
                timer.cancel()

    def tell(self, state: State, error: LinkKVError | None = None, *, reconnected: bool = False) -> None:
        super().tell(state, error, reconnected=reconnected)
        if state == "lost":  # the end waits for no rate
            _soon(self._loop, self._due.set)

    def close(self) -> None:
        """Take no more. See `link_kv.Subscription.close`; the task ends soon, whatever the rate."""
        super().close()
        if self._hub.pid == os.getpid():
            _soon(self._loop, self._due.set)

    async def _call(self, callback: Callable[[Any], object], argument: Any, what: str) -> None:
        try:
            result = callback(argument)
            if inspect.isawaitable(result):
                await (result if sys.version_info >= (3, 11) else self._apart(result))
        except asyncio.CancelledError:
            # Of something that the callback awaited; or of this task, as when the loop ends.
            if self._is_cancelled():
                raise
            self._raised(callback, what)
        except Exception:  # noqa: BLE001 - logged there
            self._raised(callback, what)

    def _is_cancelled(self) -> bool:
        """Whether the task that calls back has been cancelled."""
        if sys.version_info >= (3, 11):
            task = asyncio.current_task()
            return task is not None and task.cancelling() > 0
        return self._ending

    async def _apart(self, result: Awaitable[Any]) -> None:
        """Await in another task: up to 3.10 a task is not told whether it was cancelled itself."""
        other = asyncio.ensure_future(result)
        try:
            await asyncio.wait((other,))
        except asyncio.CancelledError:
            self._ending = True
            other.cancel()
            raise
        other.result()

    async def __aenter__(self) -> Subscription:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Changes(Iteration):
    """An asynchronous iterator over changes; `EtcdMiddleware.watch` makes it.

    It listens from when ``async with`` is entered, or from the first step of ``async for``. One task at a
    time iterates. Leaving ``async with`` closes it. The twin of `link_kv.live.Changes`.
    """

    def __init__(self, hub: Hub, at: Place, revision: int | None = None) -> None:
        super().__init__(hub, at, revision)
        self._came = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._joining: asyncio.Future[None] | None = None
        self._joined = False

    async def _open(self) -> None:
        if self._joined:
            return
        if self._joining is None:
            self._loop = asyncio.get_running_loop()
            self._joining = asyncio.ensure_future(asyncio.to_thread(self._join))
        try:
            # It goes on when the step is cancelled, and the next step waits for it.
            await asyncio.shield(self._joining)
        except Exception:
            self._joining = None  # the next step begins again
            raise
        self._joined = True

    def _join(self) -> None:
        super()._join()
        if self._closed:  # meanwhile
            self.close()

    def _wake(self) -> None:
        if self._loop is not None:
            _soon(self._loop, self._came.set)

    async def _pause(self) -> None:
        await self._came.wait()
        self._came.clear()

    def __aiter__(self) -> Changes:
        return self

    async def __anext__(self) -> Change:
        await self._open()
        change = await self._following()
        if change is None:
            raise StopAsyncIteration
        return change

    async def __aenter__(self) -> Changes:
        try:
            await self._open()
        except asyncio.CancelledError:
            self.close()  # nobody leaves what was not entered
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Mirror(BaseMirror):
    """A subtree that keeps itself current; `EtcdMiddleware.mirror` makes it.

    The twin of `link_kv.Mirror`: reading asks nobody and never waits, so nothing but `wait` is awaited. An
    async context manager that closes it.
    """

    @classmethod
    async def _open(cls, hub: Hub, caller: Caller, at: Place) -> Mirror:
        return await _begin(lambda: cls(hub, caller, at))

    @staticmethod
    async def _settle(hub: Hub, condition: Callable[[], bool], seconds: float) -> None:
        """It takes no thread: those of the loop are few, and may wait for this very write."""
        loop, met = asyncio.get_running_loop(), asyncio.Event()

        def look() -> None:
            if condition():
                _soon(loop, met.set)

        given_up = loop.call_later(seconds, met.set)
        try:
            with hub.looking(look):
                await met.wait()
        finally:
            given_up.cancel()

    async def wait(self, revision: int, timeout: float | None = None) -> bool:
        """Wait until it shows this revision or a later one. See `link_kv.Mirror.wait`."""
        given_up = threading.Event()
        # The threads of the loop are few, and this may take any time.
        own = ThreadPoolExecutor(1, "link-kv-mirror-wait")
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(own, self._wait, revision, timeout, given_up.is_set)
        finally:
            given_up.set()
            own.shutdown(wait=False)

    async def __aenter__(self) -> Mirror:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
