"""The queue between the thread that reads the wire and whoever takes the changes."""

from __future__ import annotations

import os
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from link_kv._core.watching.replica import Batch, Change
from link_kv.errors import LinkKVError

if TYPE_CHECKING:
    from link_kv._core.watching.watcher import Feed, Hub

State = Literal["live", "stale", "lost"]
"""Whether all changes up to now were told, or changes will come later, or none will come any more."""


@dataclass(frozen=True)
class Stats:
    """What became of the changes of one subscription, so far."""

    delivered: int
    """Changes handed over."""
    coalesced: int
    """Changes that policy ``latest`` replaced by a newer one of the same path."""
    gaps: int
    """How often history was missing, so that the changes had to be inferred."""
    reconnects: int
    """How often the connection was lost and found again."""
    callback_errors: int
    """How often the callback raised."""
    lag: float
    """Seconds for which the oldest change that is not delivered yet has been waiting here; 0.0 for none."""


class Taken(NamedTuple):
    """What the taker does next: a batch, or that the state is another."""

    arrived: float
    item: Batch | State


class Queue(Protocol):
    """What waits for the taker."""

    coalesced: int

    @property
    def size(self) -> int:
        """How many changes wait."""

    def __len__(self) -> int:
        """How often `take` has something."""

    def put(self, batch: Batch, now: float) -> None: ...
    def tell(self, state: State, now: float) -> None: ...
    def take(self) -> Taken | None: ...
    def oldest(self) -> float | None: ...
    def clear(self) -> None: ...


class AllQueue:
    """Every batch, in order."""

    __slots__ = ("_items", "coalesced", "size")

    def __init__(self) -> None:
        self.size = self.coalesced = 0
        # Most queues are empty, and an empty deque takes 600 bytes.
        self._items: deque[Taken] | None = None

    def __len__(self) -> int:
        return 0 if self._items is None else len(self._items)

    def put(self, batch: Batch, now: float) -> None:
        self._append(Taken(now, batch))
        self.size += len(batch.changes)

    def tell(self, state: State, now: float) -> None:
        self._append(Taken(now, state))

    def _append(self, taken: Taken) -> None:
        if self._items is None:
            self._items = deque((taken,))
        else:
            self._items.append(taken)

    def take(self) -> Taken | None:
        items = self._items
        if items is None:
            return None
        taken = items.popleft()
        if not items:
            self._items = None
        if isinstance(taken.item, Batch):
            self.size -= len(taken.item.changes)
        return taken

    def oldest(self) -> float | None:
        return None if self._items is None else self._items[0].arrived

    def clear(self) -> None:
        self._items = None
        self.size = 0


class LatestQueue:
    """The newest change of each path, with the value before the oldest that it stands for."""

    def __init__(self) -> None:
        self.coalesced = 0
        self._states: deque[Taken] = deque()
        self._changes: dict[str, Change] = {}
        self._since: float | None = None
        self._revision = 0
        self._synthetic = False

    @property
    def size(self) -> int:
        return len(self._changes)

    def __len__(self) -> int:
        return len(self._states) + (self._since is not None)

    def put(self, batch: Batch, now: float) -> None:
        if self._since is None:
            self._since = now
        self._revision = batch.revision
        self._synthetic = self._synthetic or batch.synthetic
        changes = self._changes
        for change in batch.changes:
            waiting = changes.pop(change.path, None)
            if waiting is not None:
                self.coalesced += 1
                change = change._replace(
                    previous=waiting.previous, synthetic=waiting.synthetic or change.synthetic
                )
            changes[change.path] = change

    def tell(self, state: State, now: float) -> None:
        self._states.append(Taken(now, state))

    def take(self) -> Taken | None:
        if self._states:
            return self._states.popleft()
        if self._since is None:
            return None
        taken = Taken(self._since, Batch(self._revision, list(self._changes.values()), [], self._synthetic))
        self.clear()
        return taken

    def oldest(self) -> float | None:
        return self._states[0].arrived if self._states else self._since

    def clear(self) -> None:
        self._changes = {}
        self._since = None
        self._synthetic = False


class Consumer(ABC):
    """One who takes the changes of a range, from a bounded queue of his own.

    The reading thread calls `offer` and `tell`, under the hub's lock; the taker calls `_take`. The lock here
    is the inner one: who holds it never asks for the hub's.
    """

    def __init__(self, hub: Hub, limit: int, *, latest: bool = False, hidden: bool = False) -> None:
        self._hub = hub
        self._limit = limit
        self._hidden = hidden
        self._lock = threading.Lock()
        self._queue: Queue = LatestQueue() if latest else AllQueue()
        self._awake = False
        self._closed = False
        self._full = False
        self._state: State = "stale"
        self._revision = 0
        self._error: LinkKVError | None = None
        self._delivered = self._gaps = self._reconnects = self._callback_errors = 0
        self._handing_over: float | None = None
        self.latest = latest
        self.feed: Feed | None = None
        """What it listens to, or will when its queue has drained. The hub's."""

    @abstractmethod
    def _wake(self) -> None:
        """Have what waits taken. Called once until `_take` has found nothing."""

    @property
    def state(self) -> State:
        """``live``; ``stale`` while changes may be missing; ``lost`` when none will come any more."""
        return "lost" if self._hub.pid != os.getpid() else self._state

    @property
    def revision(self) -> int:
        """The last revision of which all changes were delivered; at first the one it began at."""
        return self._revision

    @property
    def stats(self) -> Stats:
        """What became of the changes so far."""
        # A forked child may have got the lock in a locked state, and nothing changes there any more.
        lock: AbstractContextManager[Any] = self._lock if self._hub.pid == os.getpid() else nullcontext()
        with lock:
            since = self._handing_over if self._handing_over is not None else self._queue.oldest()
            return Stats(
                self._delivered,
                self._queue.coalesced,
                self._gaps,
                self._reconnects,
                self._callback_errors,
                0.0 if since is None else time.monotonic() - since,
            )

    def close(self) -> None:
        """Take no more. What waits is dropped; what is being handed over is not waited for.

        May be called twice, and from inside a callback. Does nothing in a forked child.
        """
        if self._hub.pid != os.getpid():
            return
        # First of all, so that who joins in another thread meanwhile sees it.
        with self._lock:
            self._closed = True
            self._full = False
            self._state = "lost"
            self._queue.clear()
            wake = self._must_wake()
        self._hub.leave(self)
        if wake:
            self._wake()

    # For the hub

    def begin(self, revision: int, first: Batch | None) -> None:
        """It listens from this revision on; ``first`` holds the values to start with."""
        with self._lock:
            self._revision = revision
            self._state = "live"
            if first is not None:
                self._queue.put(first, time.monotonic())
            wake = first is not None and self._must_wake()
        if wake:
            self._wake()

    def offer(self, batch: Batch, now: float) -> bool:
        """Queue a revision, whole. False when the queue is full now: then offer no more."""
        if not batch.changes and not batch.synthetic and not (self._hidden and batch.hidden):
            return True
        with self._lock:
            if self._closed:
                return True
            self._gaps += batch.synthetic
            self._queue.put(batch, now)
            self._full = self._queue.size >= self._limit
            full, wake = self._full, self._must_wake()
        if wake:
            self._wake()
        return not full

    def tell(self, state: State, error: LinkKVError | None = None, *, reconnected: bool = False) -> None:
        """The state is another."""
        with self._lock:
            self._reconnects += reconnected
            if self._closed or state == self._state:
                return
            self._state = state
            self._error = error
            self._queue.tell(state, time.monotonic())
            wake = self._must_wake()
        if wake:
            self._wake()

    def _must_wake(self) -> bool:
        wake, self._awake = not self._awake, True
        return wake

    # For the taker

    def _take(self) -> Taken | None:
        """What is next; None when nothing is, and `_wake` will be called for what comes."""
        while True:
            with self._lock:
                self._handing_over = None
                taken = self._queue.take()
                if taken is not None:
                    self._handing_over = taken.arrived
                    return taken
                if not self._full:
                    self._awake = False
                    return None
                self._full = False
            self._hub.resume(self)
