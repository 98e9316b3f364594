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

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from link_kv._core.consumer import Consumer, State, Stats
from link_kv._core.replica import Batch, Change, Held, value_of
from link_kv._core.settle import Settling
from link_kv._core.watcher import Feed, Hub
from link_kv.errors import Closed, ConfigError, NotFound, RevisionError
from link_kv.tree import MISSING, Place

if TYPE_CHECKING:
    from link_kv._core.connection import Connection

__all__ = ["Batch", "Change", "Changes", "Mirror", "State", "Stats", "Subscription"]

Policy = Literal["all", "latest"]

log = logging.getLogger(__name__)

_QUEUE = 10_000
_SLICE = 0.02
"""Seconds after which a callback that has more to take lets others go first."""


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


class Subscription(Consumer):
    """A callback that is called for each change; `link_kv.EtcdMiddleware.subscribe` makes it.

    A context manager that closes it. Thread-safe. It holds the callback until it is closed. In a forked child
    it is ``lost``: subscribe there anew.
    """

    def __init__(
        self,
        hub: Hub,
        at: Place,
        callback: Callable[[Any], object],
        *,
        policy: str = "all",
        prime: bool = False,
        max_hz: float | None = None,
        queue: int = _QUEUE,
        on_state: Callable[[State], object] | None = None,
        whole: bool = False,
    ) -> None:
        if policy not in ("all", "latest"):
            raise ConfigError(f"policy={policy!r}: it is 'all' or 'latest'")
        if max_hz is not None and not max_hz > 0:
            raise ConfigError(f"max_hz={max_hz!r}: a rate is a positive number of times a second")
        if not isinstance(queue, int) or queue < 1:
            raise ConfigError(f"queue={queue!r}: a queue holds at least 1 change")
        if not callable(callback):
            raise ConfigError(f"callback={callback!r}: a callback is called with a Change")
        super().__init__(hub, queue, latest=policy == "latest", hidden=whole)
        self.path = at.path
        self._callback = callback
        self._on_state = on_state
        self._whole = whole
        self._pause = 0.0 if max_hz is None else 1 / max_hz
        self._not_before = 0.0
        self._join(at, prime)

    def _join(self, at: Place, prime: bool) -> None:
        self._hub.join(self, at, prime)

    def _wake(self) -> None:
        self._hub.dispatcher.schedule(self._work)

    def _work(self) -> float | None:
        """Hand over what waits. When to be called again, None when nothing waits."""
        start = time.monotonic()
        if start < self._not_before:
            return self._not_before
        rounds = len(self._queue)
        while (taken := self._take()) is not None:
            if isinstance(taken.item, Batch):
                self._hand_over(taken.item)
            elif self._on_state is not None:
                self._call(self._on_state, taken.item, "on_state")
            rounds -= 1
            if self._pause:
                if rounds <= 0:
                    self._not_before = start + self._pause
                    return self._not_before
            elif time.monotonic() - start > _SLICE:
                return start  # the others first
        return None

    def _hand_over(self, batch: Batch) -> None:
        if self._whole:
            self._call(self._callback, batch, self.path)
            self._delivered += len(batch.changes)
        else:
            for change in batch.changes:
                if self._closed:
                    return
                self._call(self._callback, change, change.path)
                self._delivered += 1
        self._revision = batch.revision

    def _call(self, callback: Callable[[Any], object], argument: Any, what: str) -> None:
        try:
            callback(argument)
        except BaseException:
            self._callback_errors += 1
            log.exception("%s: the callback %r raised", what, callback)

    def __enter__(self) -> Subscription:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Subscription {self.path} {self.state} at revision {self.revision}>"


class Changes(Consumer):
    """An iterator over changes that waits for the next; `link_kv.EtcdMiddleware.watch` makes it.

    It ends when it is closed, by itself or with its client, from whatever thread. It raises what made it
    ``lost``, such as `AccessDenied`, after all that came before. A context manager that closes it. Changes
    that nobody takes wait in a queue, and beyond that in etcd. One thread at a time iterates.
    """

    def __init__(self, hub: Hub, at: Place, revision: int | None = None) -> None:
        if revision is not None and (not isinstance(revision, int) or revision < 1):
            raise RevisionError(f"{at.path}: revision={revision!r}: a revision is a whole number from 1 on")
        super().__init__(hub, _QUEUE)
        self.path = at.path
        self._came = threading.Event()
        self._batch: deque[Change] = deque()
        self._batch_revision = 0
        if revision is None:
            hub.join(self, at, prime=False)
        else:
            hub.join_past(self, at, revision)

    def _wake(self) -> None:
        self._came.set()

    def __iter__(self) -> Changes:
        return self

    def __next__(self) -> Change:
        while True:
            if self._closed:
                raise StopIteration
            if self._batch:
                change = self._batch.popleft()
                self._delivered += 1
                if not self._batch:
                    self._revision = self._batch_revision
                return change
            taken = self._take()
            if taken is None:
                self._came.wait()
                self._came.clear()
            elif isinstance(taken.item, Batch):
                self._batch.extend(taken.item.changes)
                self._batch_revision = taken.item.revision
            elif taken.item == "lost":
                if self._error is None or isinstance(self._error, Closed):
                    raise StopIteration
                raise self._error

    def __enter__(self) -> Changes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Changes of {self.path} {self.state} at revision {self.revision}>"


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
            self._caller.settling = self._caller.settling or Settling(self._hub)

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
        """The last revision that changed something here, or that it was read at."""
        return self._feed.replica.revision

    @property
    def state(self) -> State:
        """``live``; ``stale`` while the connection is gone; ``lost`` when it will not change any more."""
        if self._closed or self._feed.error is not None or self._hub.pid != os.getpid():
            return "lost"
        return "live" if self._feed.live else "stale"

    def wait(self, revision: int, timeout: float | None = None) -> bool:
        """Wait until it is at this revision or beyond, ``timeout`` seconds at most; whether it is.

        A revision that changed nothing here is only reached with the next that does.
        """
        feed = self._feed
        if self.state != "lost":
            self._hub.wait(
                lambda: feed.replica.revision >= revision or feed.error is not None or self._closed, timeout
            )
        return feed.replica.revision >= revision

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
