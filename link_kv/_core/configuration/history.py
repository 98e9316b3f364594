"""What has been done to a configuration, as far back as etcd remembers.

A watch from the past tells each revision whole. It does not tell when it has reached the present. So what has
come is compared with what is there: all that happened up to now comes in answers that are handled as one, so
when both are equal after an answer, nothing is missing.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from link_kv._core.configuration.changes import read_stamp, written_key
from link_kv._core.configuration.tree import order_key
from link_kv._core.operations import past_revision
from link_kv._core.watching.asker import read_range
from link_kv._core.watching.consumer import Consumer, State
from link_kv._core.watching.replica import Batch, Change
from link_kv._core.wire.calls import run
from link_kv._core.wire.exchange import Exchange
from link_kv.codec import decode
from link_kv.errors import LinkKVError, RevisionError
from link_kv.plan import Get
from link_kv.tree import MISSING, Place

if TYPE_CHECKING:
    from link_kv._core.watching.watcher import Hub

_FIRST_ANSWER = 0.5
"""Seconds that a first answer may take to come, when nothing tells whether there is one."""


class Write(NamedTuple):
    """What one revision did to a configuration."""

    revision: int
    changes: list[Change]
    """One of them is of the order of categories, where that was written."""
    time: float | None
    """When, in seconds since 1970, where the writer has said so."""
    writer: str | None


class History(NamedTuple):
    writes: list[Write]
    """In their order."""
    compacted: int
    """The revision before which nothing is remembered; 0 where that is not what it ends at."""


async def remembered_since(ex: Exchange, at: Place, newest: int) -> int:
    """The oldest revision that can still be read; 1 when nothing was compacted.

    Asked of keys that are read anyway: of others a role may not reach them.
    """
    low, high = 1, newest
    while low < high:
        middle = (low + high) // 2
        try:
            await ex.range(Get(at.marker, at.end, limit=1, keys_only=True, revision=middle))
        except RevisionError:
            low = middle + 1
        else:
            high = middle
    return low


def history(hub: Hub, at: Place, since: int | None = None) -> History:
    """What has been done at and below a place since a revision, that one included; or as far back as it goes.

    Raises `RevisionError`, and what watching raises.
    """
    if since is not None:
        past_revision(since)
    space = hub._space
    newest, pairs = read_range(space, at)
    start = since
    if start is None:
        oldest = run(remembered_since(Exchange(space), at, newest))
        start = oldest if oldest == 1 else oldest + 1
    compacted = start if since is None and start > 1 else 0
    if start > newest:
        return History([], compacted)
    expected = {key: revision for key, _, revision in pairs}
    recorder = _Recorder(hub)
    hub.join_past(recorder, at, start)
    try:
        recorder.wait(expected, newest)
    finally:
        hub.leave(recorder)
    if recorder.error is not None:
        raise recorder.error
    writes = []
    order = _order_before(Exchange(space), at, start)
    for batch in recorder.batches:
        if batch.revision <= newest:
            write = _write(at, batch, order)
            order = next((each.value for each in write.changes if each.path == _order_path(at)), order)
            writes.append(write)
    return History([write for write in writes if write.changes], compacted)


def _order_path(at: Place) -> str:
    return order_key(at)[len(at.prefix) :].decode()


def _order_before(ex: Exchange, at: Place, revision: int) -> Any:
    """What was stored of the order of categories before a revision; an ellipsis where that is forgotten."""
    if revision == 1:
        return MISSING
    try:
        found = run(ex.range(Get(order_key(at), revision=revision - 1))).kvs
    except RevisionError:
        return "…"
    return decode(found[0].value) if found else MISSING


class _Recorder(Consumer):
    """Keeps what it is told."""

    def __init__(self, hub: Hub) -> None:
        super().__init__(hub, 1, hidden=True)
        self.batches: list[Batch] = []
        self.error: LinkKVError | None = None
        self._began = threading.Event()

    def offer(self, batch: Batch, now: float) -> bool:
        self.batches.append(batch)
        return True

    def tell(self, state: State, error: LinkKVError | None = None, *, reconnected: bool = False) -> None:
        self._state = state
        self.error = error

    def wait(self, expected: dict[bytes, int], newest: int) -> None:
        """Wait until all up to a revision has come, when these keys were there."""
        feed = self.feed
        assert feed is not None
        replica = feed.replica

        def there() -> bool:
            if self.error is not None or replica.revision > newest:
                return True
            return {key: held.revision for key, held in replica.all()} == expected

        def came() -> bool:
            return self.error is not None or bool(self.batches)

        patience = self._hub._space.caller.config.timeout
        if self._hub.wait(there, 0):
            # As before the first revision: either nothing has happened, or the same was written and undone.
            self._hub.wait(came, _FIRST_ANSWER)
        if not self._hub.wait(there, patience):
            raise LinkKVError(f"{replica.at.path}: its history did not come within {patience:.3g} s")

    def _wake(self) -> None:
        raise AssertionError("nothing is queued")


def _write(at: Place, batch: Batch, order: Any) -> Write:
    hidden = dict(batch.hidden)
    changes = batch.changes
    if order_key(at) in hidden:
        stored = hidden[order_key(at)]
        now = MISSING if stored is None else decode(stored)
        kind: Literal["put", "delete"] = "delete" if stored is None else "put"
        changes = [*changes, Change(_order_path(at), now, order, batch.revision, kind)]
    said = hidden.get(written_key(at))
    stamp = None if said is None else read_stamp(said)
    return Write(batch.revision, changes, *(stamp or (None, None)))
