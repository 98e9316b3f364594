"""Values that keep themselves current: callbacks, iterators and mirrors, all fed by one watch.

====================  ==================================================================================
`Subscription`        calls back for each change; ``client.subscribe(path, callback)``
`Changes`             is iterated over; ``for change in client.watch(path)``
`Mirror`              is a read-only mapping that follows a subtree; ``client.mirror(path)``
====================  ==================================================================================

All of a client's share one connection and one stream, and all that begin now at one path share one watch.
What is promised, and what policy ``latest`` gives up, is in ``docs/explanation/watching.md``. The logger is
``link_kv.live``.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from link_kv._core.watching.consumer import State, Stats
from link_kv._core.watching.mirrors import BaseMirror
from link_kv._core.watching.replica import Batch, Change
from link_kv._core.watching.takers import Callbacks, Iteration
from link_kv._core.watching.watcher import Hub
from link_kv._core.wire.calls import run
from link_kv.errors import Closed
from link_kv.tree import Place

if TYPE_CHECKING:
    from link_kv._core.wire.connection import Connection

__all__ = ["Batch", "Change", "Changes", "Mirror", "State", "Stats", "Subscription"]


def hub_of(client: Connection) -> Hub:
    """The hub of a client in this process; made when there is none yet. Raises `Closed`."""
    if client._space.caller.closed:
        raise Closed("the client was closed")
    pid = os.getpid()
    hub = client._hubs.get(pid)
    if hub is None:
        from link_kv._core.wire.transport import BlockingWire

        # Of two threads that make one, both take the first's; one that is not used has started nothing.
        new = Hub(client._config, client._space.prefix, BlockingWire(client._config))
        hub = client._hubs.setdefault(pid, new)
    return hub


class Subscription(Callbacks):
    """A callback that is called for each change; `link_kv.EtcdMiddleware.subscribe` makes it.

    A context manager that closes it. Thread-safe. It holds the callback until it is closed. In a forked child
    it is ``lost``: subscribe there anew.
    """

    def __init__(
        self, hub: Hub, at: Place, callback: Callable[[Any], object], *, prime: bool = False, **options: Any
    ) -> None:
        super().__init__(hub, at, callback, **options)
        self._join(at, prime)

    def _join(self, at: Place, prime: bool) -> None:
        self._hub.join(self, at, prime)

    def _wake(self) -> None:
        self._hub.dispatcher.schedule(self._run)

    def _run(self) -> float | None:
        return run(self._work())

    async def _call(self, callback: Callable[[Any], object], argument: Any, what: str) -> None:
        try:
            callback(argument)
        except BaseException:  # noqa: BLE001 - logged there, and a thread is not the callback's to end
            self._raised(callback, what)

    def __enter__(self) -> Subscription:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Changes(Iteration):
    """An iterator over changes that waits for the next; `link_kv.EtcdMiddleware.watch` makes it.

    It ends when it is closed, by itself or with its client, from whatever thread. It raises what made it
    ``lost``, such as `AccessDenied`, after all that came before. A context manager that closes it. Changes
    that nobody takes wait in a queue, and beyond that in etcd. One thread at a time iterates.
    """

    def __init__(self, hub: Hub, at: Place, revision: int | None = None) -> None:
        super().__init__(hub, at, revision)
        self._came = threading.Event()
        self._join()

    def _wake(self) -> None:
        self._came.set()

    async def _pause(self) -> None:
        self._came.wait()
        self._came.clear()

    def __iter__(self) -> Changes:
        return self

    def __next__(self) -> Change:
        change = run(self._following())
        if change is None:
            raise StopIteration
        return change

    def __enter__(self) -> Changes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Mirror(BaseMirror):
    """A subtree that keeps itself current; `link_kv.EtcdMiddleware.mirror` makes it.

    Keys are leaf paths relative to the subtree: ``mirror['a/b']``, and ``mirror['']`` for a value that stands
    at the path itself. Reading costs no call and never waits. A write of the same client returns once the
    mirrors over it show it, after 1 s at the latest. `items`, `values` and `snapshot` are of one revision
    each; a loop over keys that reads each one may see several.

    While `state` is ``stale`` it shows what was last known. A context manager that closes it; after that it
    stays as it is, ``lost``, as it does in a forked child. Compares by identity. Thread-safe.
    """

    def __init__(self, client: Connection, at: Place) -> None:
        super().__init__(hub_of(client), client._space.caller, at)

    def wait(self, revision: int, timeout: float | None = None) -> bool:
        """Wait until it shows this revision or a later one, ``timeout`` seconds at most; whether it does.

        The revision may be of a write elsewhere: etcd is asked how far the watch is. An etcd before 3.5.8
        cannot tell that; there the keys are read and compared, which costs as much as there are.
        """
        return self._wait(revision, timeout, lambda: False)

    def __enter__(self) -> Mirror:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
