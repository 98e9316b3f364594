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
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from types import TracebackType
from typing import TYPE_CHECKING, Any

from link_kv._core.calls import run
from link_kv._core.consumer import State, Stats
from link_kv._core.replica import Batch, Change, Held, value_of
from link_kv._core.settle import Settling, wait_until
from link_kv._core.takers import Callbacks, Iteration
from link_kv._core.watcher import Feed, Hub
from link_kv.errors import Closed, NotFound
from link_kv.tree import MISSING, Place

if TYPE_CHECKING:
    from link_kv._core.connection import Connection

__all__ = ["Batch", "Change", "Changes", "Mirror", "State", "Stats", "Subscription"]


def hub_of(client: Connection) -> Hub:
    """The hub of a client in this process; made when there is none yet. Raises `Closed`."""
    if client._space.caller.closed:
        raise Closed("the client was closed")
    pid = os.getpid()
    hub = client._hubs.get(pid)
    if hub is None:
        from link_kv._core.transport import BlockingWire

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


class Mirror(Mapping[str, Any]):
    """A subtree that keeps itself current; `link_kv.EtcdMiddleware.mirror` makes it.

    Keys are leaf paths relative to the subtree: ``mirror['a/b']``, and ``mirror['']`` for a value that stands
    at the path itself. Reading costs no call and never waits. A write of the same client returns once the
    mirrors over it show it, after 1 s at the latest. `items`, `values` and `snapshot` are of one revision
    each; a loop over keys that reads each one may see several.

    While `state` is ``stale`` it shows what was last known. A context manager that closes it; after that it
    stays as it is, ``lost``, as it does in a forked child. Compares by identity. Thread-safe.
    """

    def __init__(self, client: Connection, at: Place) -> None:
        self.path = at.path
        self._caller = client._space.caller
        self._hub = hub_of(client)
        self._key = at.key
        self._feed: Feed = self._hub.mirror(at)
        self._skip = len(at.key) + 1
        self._closed = False
        with self._hub.changed:
            settling = self._caller.settling
            if not isinstance(settling, Settling) or settling.hub is not self._hub:  # as in a forked child
                self._caller.settling = Settling(self._hub, client._blocking)

    def __getitem__(self, key: str) -> Any:
        held = self._leaf(key)
        if held is None:
            raise NotFound(f"{self.path}: no leaf {key!r} in the mirror")
        return value_of(held)

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a leaf, or ``default``."""
        held = self._leaf(key)
        return default if held is None else value_of(held)

    def _leaf(self, key: object) -> Held | None:
        if not isinstance(key, str):
            return None
        try:
            return self._feed.replica.leaf(self._key + b"/" + key.encode() if key else self._key)
        except UnicodeEncodeError:
            return None

    def __contains__(self, key: object) -> bool:
        return self._leaf(key) is not None

    def __len__(self) -> int:
        return self._feed.replica.count

    def __iter__(self) -> Iterator[str]:
        return iter([key for key, _ in self._leaves()])

    def items(self) -> Any:
        """Keys and values, of one revision."""
        return {key: value_of(held) for key, held in self._leaves()}.items()

    def values(self) -> Any:
        """Values, of one revision."""
        return {key: value_of(held) for key, held in self._leaves()}.values()

    def _leaves(self) -> list[tuple[str, Held]]:
        with self._lock():
            leaves = self._feed.replica.leaves()
        return [(str(base[self._skip :], "utf-8"), held) for base, held in leaves]

    def _lock(self) -> Any:
        # A forked child may have got it in a locked state, and nothing changes there any more.
        return self._hub.changed if self._hub.pid == os.getpid() else nullcontext()

    __eq__ = object.__eq__
    __ne__ = object.__ne__
    __hash__ = object.__hash__

    def snapshot(self) -> Any:
        """The nested value, of one revision, as ``client.snapshot(path)`` reads it; ``{}`` for nothing."""
        with self._lock():
            value = self._feed.replica.tree()
        return {} if value is MISSING else value

    @property
    def revision(self) -> int:
        """The last revision that it is known to show: of a change here, or that etcd says it has reached."""
        return self._feed.revision

    @property
    def state(self) -> State:
        """``live``; ``stale`` while the connection is gone; ``lost`` when it will not change any more."""
        if self._closed or self._feed.error is not None or self._hub.pid != os.getpid():
            return "lost"
        return "live" if self._feed.live else "stale"

    def wait(self, revision: int, timeout: float | None = None) -> bool:
        """Wait until it shows this revision or a later one, ``timeout`` seconds at most; whether it does.

        The revision may be of a write elsewhere: etcd is asked how far the watch is. An etcd before 3.5.8
        cannot tell that; there the keys are read and compared, which costs as much as there are.
        """
        feed = self._feed
        if self.state != "lost":
            wait_until(
                self._hub,
                feed,
                lambda: feed.revision >= revision or feed.error is not None or self._closed,
                timeout,
            )
        return feed.revision >= revision

    def close(self) -> None:
        """Follow no more; what was read stays. May be called twice."""
        if self._hub.pid != os.getpid():
            return
        with self._hub.changed:
            if not self._closed:
                self._closed = True
                self._hub.unmirror(self._feed)
                self._hub.changed.notify_all()
                if not self._hub.mirrors:
                    self._caller.settling = None

    def __enter__(self) -> Mirror:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Mirror {self.path} {self.state} at revision {self.revision}>"
