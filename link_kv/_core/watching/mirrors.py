"""A subtree in memory, the same for threads and for an asyncio loop but for how one waits for it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from typing import Any

from link_kv._core.watching.consumer import State
from link_kv._core.watching.replica import Held, value_of
from link_kv._core.watching.settle import Settling, wait_until
from link_kv._core.watching.watch_machine import Phase
from link_kv._core.watching.watcher import Feed, Hub
from link_kv._core.wire.calls import Caller
from link_kv.errors import NotFound
from link_kv.tree import MISSING, Place


class BaseMirror(Mapping[str, Any]):
    """What mirrors are, whoever waits for them. Making one blocks. Thread-safe."""

    def __init__(self, hub: Hub, caller: Caller, at: Place) -> None:
        self.path = at.path
        self._caller = caller
        self._hub = hub
        self._key = at.key
        self._feed: Feed = hub.mirror(at)
        self._skip = len(at.key) + 1
        self._closed = False
        with hub.changed:
            settling = caller.settling
            if not isinstance(settling, Settling) or settling.hub is not hub:  # as in a forked child
                caller.settling = Settling(hub, self._settle)

    @staticmethod
    async def _settle(hub: Hub, condition: Callable[[], bool], seconds: float) -> None:
        """How a write of the client waits for its mirrors: it blocks its thread."""
        hub.wait(condition, seconds)

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

    def _wait(self, revision: int, timeout: float | None, given_up: Callable[[], bool]) -> bool:
        feed = self._feed

        def over() -> bool:
            return feed.revision >= revision or feed.error is not None or self._closed or given_up()

        if self.state != "lost":
            wait_until(self._hub, feed, over, timeout)
        return feed.revision >= revision

    def close(self) -> None:
        """Follow no more; what was read stays. May be called twice."""
        if self._hub.pid != os.getpid():
            return
        with self._hub.changed:
            if not self._closed:
                self._closed = True
                feed = self._feed
                self._hub.unmirror(feed)
                if feed.phase is not Phase.ENDED:  # others go on following it
                    self._feed = Feed(feed.at, feed.replica.copy())
                    self._feed.compared = feed.compared
                self._hub.changed.notify_all()
                if not self._hub.mirrors:
                    self._caller.settling = None

    def __repr__(self) -> str:
        return f"<Mirror {self.path} {self.state} at revision {self.revision}>"
