"""Waiting for mirrors: a write for those over what it wrote, and a program for one to reach a revision."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from link_kv._core.watching.catchup import look
from link_kv.errors import Unavailable
from link_kv.plan import Delete, Operation, Put

if TYPE_CHECKING:
    from collections.abc import Sequence

    from link_kv._core.watching.replica import Replica
    from link_kv._core.watching.watcher import Feed, Hub

PATIENCE = 1.0
"""Seconds that a write waits at most."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 0.5
"""Seconds between the questions how far a mirror is; from the first to the longest they double."""


class Settling:
    """What the writes of a client do while it has mirrors open.

    Args:
        hub: what feeds the mirrors.
        wait: waits until a condition on its feeds holds, some seconds at most.
    """

    def __init__(self, hub: Hub, wait: Callable[[Hub, Callable[[], bool], float], Awaitable[None]]) -> None:
        self.hub = hub
        self._wait = wait

    def prepare(self, operations: Sequence[Operation]) -> Sequence[Operation]:
        """Let a delete of a range tell what it deleted, where a mirror is over a part of that range.

        A mirror sees no event when nothing of its own was deleted, and must not be waited for then.
        """
        replicas = [feed.replica for feed in self.hub.mirrored()]
        return [
            op._replace(previous=True)
            if type(op) is Delete and any(_in_part(replica, op) for replica in replicas)
            else op
            for op in operations
        ]

    async def settle(self, operations: Sequence[Operation], answers: Sequence[Any], revision: int) -> None:
        """Wait until the mirrors that an event reaches have it, as long as they are live."""
        feeds = [feed for feed in self.hub.mirrored() if _touched(feed.replica, operations, answers)]
        if any(feed.replica.revision < revision for feed in feeds):
            await self._wait(self.hub, lambda: _there(feeds, revision), PATIENCE)


def _there(feeds: list[Feed], revision: int) -> bool:
    return all(feed.replica.revision >= revision or not feed.live for feed in feeds)


def _in_part(replica: Replica, op: Delete) -> bool:
    at = replica.at
    if op.end == b"\0":  # all from there on
        return op.key < at.end
    overlaps = op.key < at.end and at.key < op.end
    return overlaps and not (replica.covers(op.key) and op.end <= at.end)


def _touched(replica: Replica, operations: Sequence[Operation], answers: Sequence[Any]) -> bool:
    for op, answer in zip(operations, answers, strict=False):
        if type(op) is Put:
            found = replica.covers(op.key)
        elif type(op) is Delete and op.previous:
            found = any(replica.covers(kv.key) for kv in answer.response_delete_range.prev_kvs)
        else:
            found = (
                type(op) is Delete and replica.covers(op.key) and bool(answer.response_delete_range.deleted)
            )
        if found:
            return True
    return False


def wait_until(hub: Hub, feed: Feed, over: Callable[[], bool], timeout: float | None) -> None:
    """Wait until it is over, and keep asking etcd how far the feed is, since perhaps nothing more comes."""
    until = math.inf if timeout is None else time.monotonic() + timeout
    pause = _FIRST_PAUSE
    while not over() and (left := until - time.monotonic()) > 0:
        if feed.live and not hub.ask_progress():
            # Before 3.5.8 the answer may come ahead of events that came first.
            with contextlib.suppress(Unavailable):  # the next turn asks again
                look(hub, feed, left)
        hub.wait(over, min(pause, left))
        pause = min(2 * pause, _LONGEST_PAUSE)
