"""What etcd holds, what a subscription should have delivered for it, and whether it did.

The history is recorded by a bare watch that shares only the transport with the library. What each revision
changes is worked out from whole states, by the reader that iteration uses, not by the code under test.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from link_kv import Change
from link_kv._core.wire.calls import WATCH, Caller, WireFailure, run
from link_kv._core.wire.config import resolve
from link_kv._core.wire.requests import field, varint
from link_kv._core.wire.transport import BlockingWire
from link_kv.codec import decode
from link_kv.live import Batch
from link_kv.tree import LIST, MISSING, LeafReader, place, prefix_bytes
from tests.processes import ask


class KV(NamedTuple):
    key: bytes
    value: bytes


class Recorder:
    """Watches [prefix/, prefix0) from a revision on, through everything that etcd survives."""

    def __init__(self, endpoints: Sequence[str], prefix: str, start: int = 1, **options: Any) -> None:
        config = resolve(endpoints=list(endpoints), **options)
        self._caller = Caller(config, BlockingWire(config))
        self.prefix = prefix_bytes(prefix)
        self.events: dict[int, dict[bytes, bytes | None]] = {}
        self._next = start
        self._stop = False
        self._stream: Any = None
        self.changed = threading.Condition()
        self._thread = threading.Thread(target=self._record, daemon=True)
        self._thread.start()

    def _record(self) -> None:
        while not self._stop:
            try:
                _, stream = run(self._caller.open(WATCH))
                self._stream = stream
                create = field(b"\x0a", self.prefix + b"/") + field(b"\x12", self.prefix + b"0")
                create += b"\x18" + varint(self._next)
                run(stream.send(field(b"\x0a", create)))
                while True:
                    response = run(stream.receive())
                    assert not response.compact_revision, "the recorder itself was compacted away"
                    with self.changed:
                        for event in response.events:
                            kv = event.kv
                            if kv.mod_revision >= self._next:
                                at = self.events.setdefault(kv.mod_revision, {})
                                at[kv.key] = None if event.type else kv.value
                        if response.events:
                            self._next = response.events[-1].kv.mod_revision + 1
                        self.changed.notify_all()
            except WireFailure:
                time.sleep(0.02)

    def wait(self, revision: int, timeout: float = 30) -> None:
        """Wait until this revision was seen."""
        with self.changed:
            assert self.changed.wait_for(lambda: self._next > revision, timeout), f"no revision {revision}"

    def close(self) -> None:
        self._stop = True
        if self._stream is not None:
            self._stream.cancel()
        run(self._caller.close())
        self._thread.join(10)

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class History:
    """What a subscription to a path should deliver of recorded events."""

    def __init__(self, recorder: Recorder, path: str) -> None:
        self.at = place(path, recorder.prefix)
        state: dict[bytes, bytes] = {}
        leaves: dict[str, Any] = {}
        self.states: dict[int, dict[str, Any]] = {0: leaves}
        self.changes: dict[int, list[Change]] = {}
        for revision, events in sorted(recorder.events.items()):
            put = set()
            for key, value in events.items():
                if not (key == self.at.key or key.startswith(self.at.marker)):
                    continue
                if value is None:
                    state.pop(key, None)
                else:
                    state[key] = value
                    put.add(str(key[len(recorder.prefix) :], "utf-8"))
            before, leaves = leaves, self._leaves(state)
            found = []
            for path_, value in leaves.items():
                if path_ in put or path_ not in before or not _same(before[path_], value):
                    previous = before.get(path_, MISSING)
                    found.append(Change(path_, value, previous, revision, "put"))
            found += [
                Change(path_, MISSING, value, revision, "delete")
                for path_, value in before.items()
                if path_ not in leaves
            ]
            if found:
                self.changes[revision] = found
            self.states[revision] = leaves

    def _leaves(self, state: dict[bytes, bytes]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if self.at.segments and self.at.key in state:
            found[self.at.path] = decode(state[self.at.key])
        reader = LeafReader(self.at)
        kvs = [KV(key, state[key]) for key in sorted(state) if key != self.at.key]
        for leaf in (*reader.feed(kvs), *reader.finish()):
            if leaf.marker:
                found.setdefault(leaf.path, [] if leaf.stored == LIST else {})
            else:
                found[leaf.path] = decode(leaf.stored)
        return found

    def state_at(self, revision: int) -> dict[str, Any]:
        return self.states[max(known for known in self.states if known <= revision)]

    def check(self, batches: Iterable[Batch], start: int, end: int) -> int:
        """Every revision in (start, end] was delivered once, in order, whole; how many were.

        A synthetic batch stands for the revisions that it makes up for, and must be exactly the difference of
        two states.
        """
        wanted = sorted(revision for revision in self.changes if start < revision <= end)
        at = start
        matched = 0
        for batch in batches:
            revision = batch.revision
            assert all(change.synthetic == batch.synthetic for change in batch.changes)
            if batch.synthetic:
                told = {change.path: change.value for change in batch.changes}
                assert len(told) == len(batch.changes), f"a path twice in the gap up to {revision}"
                difference = _difference(self.state_at(at), self.state_at(revision))
                assert told == difference, f"the gap from {at} to {revision} is not the difference"
                wanted = [known for known in wanted if known > revision]
            else:
                assert wanted, f"revision {revision} was delivered, and is not in the history"
                assert revision == wanted[0], f"revision {revision} came, {wanted[0]} was next"
                assert _sorted(batch.changes) == _sorted(self.changes[revision]), f"{revision} is not whole"
                wanted.pop(0)
                matched += 1
            at = revision
        assert not wanted, f"{len(wanted)} revisions did not come, first {wanted[0]}"
        return matched


def batches(changes: Iterable[Change]) -> list[Batch]:
    """Changes as they came one by one, by their revisions."""
    groups = groupby(changes, lambda change: (change.revision, change.synthetic))
    return [Batch(revision, list(group), [], synthetic) for (revision, synthetic), group in groups]


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other)


def _sorted(changes: Iterable[Change]) -> list[Change]:
    return sorted(changes, key=lambda change: change.path)


def _difference(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """With unique values, the leaves that were written between two states, and those that went."""
    found = {path: value for path, value in after.items() if path not in before or before[path] != value}
    found.update((path, MISSING) for path in before if path not in after)
    return found


def compact(endpoint: str, revision: int) -> bool:
    """Compact the history before a revision; whether etcd did."""
    return "header" in ask(endpoint, "/v3/kv/compaction", {"revision": revision})
