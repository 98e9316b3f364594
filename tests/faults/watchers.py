"""A process of watchers that write down what they are told.

``python -m tests.faults.watchers DIRECTORY ENDPOINTS PROXIES START`` begins after a revision. It reads one
line, the revision up to which all of them are to have been told everything, and ends when they have.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from link_kv import Change, EtcdMiddleware
from link_kv.live import Batch, Subscription, hub_of
from link_kv.tree import MISSING
from tests.faults.records import Log
from tests.faults.workload import connect, end_with_threads, rotated
from tests.processes import until

PATIENCE = 60.0
"""Seconds in which all must have come, once nothing disturbs any more."""


class Watcher:
    """Subscribes to a path, and writes down each revision as it comes."""

    def __init__(self, client: EtcdMiddleware, log: Log, name: str, path: str, queue: int) -> None:
        self.path = path
        self._log = log
        self._subscription = Subscription(
            hub_of(client), client._space.place(path), self._take, queue=queue, whole=True
        )
        log.note({"name": name, "path": path, "start": self._subscription.revision})

    @property
    def state(self) -> str:
        return self._subscription.state

    @property
    def gaps(self) -> int:
        """How often history was missing."""
        return self._subscription.stats.gaps

    def _take(self, batch: Batch) -> None:
        if batch.changes or batch.synthetic:  # not for housekeeping alone
            self._log.note(line(batch.revision, batch.synthetic, batch.changes))

    def finish(self, end: int, patience: float = PATIENCE) -> None:
        with contextlib.suppress(AssertionError):  # the checker finds what did not come
            until(lambda: self._subscription.revision >= end, patience)
        self._subscription.close()
        self._log.note({"end": end})


class Reader:
    """Iterates over the changes one by one, and writes them down by revisions."""

    def __init__(self, client: EtcdMiddleware, log: Log, name: str, start: int) -> None:
        self.path = "/"
        self._log = log
        self._changes = client.watch("/", revision=start + 1)
        self._seen = 0
        self._came = threading.Condition()
        log.note({"name": name, "path": "/", "start": start})
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        waiting: list[Change] = []
        revision = 0

        def write() -> None:
            if waiting:
                self._log.note(line(revision, waiting[0].synthetic, waiting))
                waiting.clear()

        for change in self._changes:
            # Changes that were inferred have the revisions of their writes, and not that of the state.
            of = self._changes._batch_revision if change.synthetic else change.revision
            if waiting and (of, change.synthetic) != (revision, waiting[0].synthetic):
                write()
            revision = of
            waiting.append(change)
            if change.path == "/end":  # what is marked comes alone in its revision
                write()
                with self._came:
                    self._seen = change.revision
                    self._came.notify_all()
        write()

    def finish(self, end: int, patience: float = PATIENCE) -> None:
        with self._came:
            self._came.wait_for(lambda: self._seen >= end, patience)  # the checker finds what did not come
        self._changes.close()
        self._thread.join()
        self._log.note({"end": end})


def line(revision: int, synthetic: bool, changes: list[Change]) -> list[Any]:
    return [
        revision,
        int(synthetic),
        [[change.path, _plain(change.value), _plain(change.previous)] for change in changes],
    ]


def _plain(value: Any) -> Any:
    return None if value is MISSING else value


def main() -> None:
    end_with_threads()
    directory, direct, proxied, start = sys.argv[1:]
    endpoints, proxies = direct.split(","), proxied.split(",")
    makers: dict[str, Callable[[Log, str], Watcher | Reader]] = {
        "direct": lambda log, name: Watcher(connect(endpoints), log, name, "/", 10_000),
        "proxied": lambda log, name: Watcher(connect(rotated(proxies, 1)), log, name, "/", 10_000),
        "small queue": lambda log, name: Watcher(connect(rotated(proxies, 2)), log, name, "/", 100),
        "iterator": lambda log, name: Reader(connect(rotated(endpoints, 2)), log, name, int(start)),
    }
    watchers = [
        make(Log(Path(directory, f"watcher-{number}.jsonl")), name)
        for number, (name, make) in enumerate(makers.items())
    ]
    print("ready", flush=True)
    end = sys.stdin.readline().strip()
    for watcher in watchers:
        watcher.finish(int(end))
    print("done", flush=True)


if __name__ == "__main__":
    main()
