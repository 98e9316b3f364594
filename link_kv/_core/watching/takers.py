"""How changes are taken from a queue, written once for threads and for asyncio.

Subclasses say how one waits and how a callback is called: at once in a thread, awaited in a loop.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from abc import abstractmethod
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from link_kv._core.watching.consumer import Consumer, State
from link_kv._core.watching.replica import Batch, Change
from link_kv._core.wire.requests import LAST_REVISION
from link_kv.errors import Closed, ConfigError, RevisionError
from link_kv.tree import Place

if TYPE_CHECKING:
    from link_kv._core.watching.watcher import Hub

log = logging.getLogger("link_kv.live")

QUEUE = 10_000
"""How many changes may wait for who takes them."""
_SLICE = 0.02
"""Seconds after which a callback that has more to take lets others go first."""


class Callbacks(Consumer):
    """Changes that a callback takes."""

    def __init__(
        self,
        hub: Hub,
        at: Place,
        callback: Callable[[Any], object],
        *,
        policy: str = "all",
        max_hz: float | None = None,
        queue: int = QUEUE,
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

    @abstractmethod
    async def _call(self, callback: Callable[[Any], object], argument: Any, what: str) -> None:
        """Call it; what it raises goes to `_raised`."""

    def _raised(self, callback: Callable[[Any], object], what: str) -> None:
        self._callback_errors += 1
        with contextlib.suppress(Exception):  # of a log's handler; the next change must be told
            log.exception("%s: the callback %r raised", what, callback)

    async def _work(self) -> float | None:
        """Hand over what waits. When to be called again, None when nothing waits."""
        if time.monotonic() < self._not_before and self._state != "lost":  # the end waits for no rate
            return self._not_before
        rounds, start = len(self._queue), 0.0
        while (taken := self._take()) is not None:
            start = start or time.monotonic()  # not before taking, which may wait for others
            if isinstance(taken.item, Batch):
                await self._hand_over(taken.item)
            elif self._on_state is not None:
                await self._call(self._on_state, taken.item, f"{self.path}: on_state")
            rounds -= 1
            if self._pause:
                if rounds <= 0 and self._state != "lost":
                    self._not_before = start + self._pause
                    return self._not_before
            elif time.monotonic() - start > _SLICE:
                return start  # the others first
        return None

    async def _hand_over(self, batch: Batch) -> None:
        if self._whole:
            await self._call(self._callback, batch, self.path)
            self._delivered += len(batch.changes)
        else:
            for change in batch.changes:
                if self._closed:
                    return
                await self._call(self._callback, change, change.path)
                self._delivered += 1
        self._revision = batch.revision

    def __repr__(self) -> str:
        return f"<Subscription {self.path} {self.state} at revision {self.revision}>"


class Iteration(Consumer):
    """Changes that are taken one by one, from now or from a past revision on."""

    def __init__(self, hub: Hub, at: Place, revision: int | None) -> None:
        if revision is not None and not (isinstance(revision, int) and 1 <= revision <= LAST_REVISION):
            raise RevisionError(
                f"{at.path}: revision={revision!r}: a revision is a whole number from 1 to 2**63 - 1"
            )
        super().__init__(hub, QUEUE)
        self.path = at.path
        self._at = at
        self._from = revision
        self._batch: deque[Change] = deque()
        self._batch_revision = 0
        self._ended = False

    def _join(self) -> None:
        """Begin. Blocks its thread."""
        if self._from is None:
            self._hub.join(self, self._at, prime=False)
        else:
            self._hub.join_past(self, self._at, self._from)

    @abstractmethod
    async def _pause(self) -> None:
        """Wait until `_wake` is called."""

    async def _following(self) -> Change | None:
        """The next change, once it comes; None at the end. Raises what ended it, unless it was closed.

        Of what has ended, each call says so.
        """
        if self._hub.pid != os.getpid():
            raise Closed(f"{self.path}: belongs to the process that this one was forked from; watch it here")
        while not (self._closed or self._ended):
            if self._batch:
                change = self._batch.popleft()
                self._delivered += 1
                if not self._batch:
                    self._revision = self._batch_revision
                return change
            taken = self._take()
            if taken is None:
                if not self._closed:  # else `close` came just before, and wakes nobody who was awake
                    await self._pause()
            elif isinstance(taken.item, Batch):
                self._batch.extend(taken.item.changes)
                self._batch_revision = taken.item.revision
            else:
                self._ended = taken.item == "lost"
        if self._closed or self._error is None or isinstance(self._error, Closed):
            return None
        raise self._error.with_traceback(None)  # else it would grow with each time

    def __repr__(self) -> str:
        return f"<Changes of {self.path} {self.state} at revision {self.revision}>"
