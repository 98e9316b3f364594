"""Writing behind the back of who has something to write, many values in one transaction.

A service that polls 300 values a second cannot wait for etcd each time. What is added is written in order,
and nothing is left out: a transaction has at most one value of each kind, so that each gets a revision of its
own. A write whose answer was lost is done again, so a value may come twice.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections import deque
from collections.abc import Callable, Hashable, Mapping
from typing import Any

from link_kv.errors import AccessDenied, Closed, LinkKVError, Unavailable

log = logging.getLogger("link_kv.endpoints")

_AGAIN = 0.5
"""Seconds after which writing is tried again."""
_GRACE = 2.0
"""Seconds that what is left has at the end."""
_AT_ONCE = 500
_WAITING = 10_000
"""How much may wait while etcd does not answer; beyond that the oldest is dropped, and counted."""


class Behind:
    """Writes what is added, in a thread of its own that starts with the first. Thread-safe.

    Args:
        name: what it is for, in messages.
        write: writes a value of each of several kinds at once. When it raises `Unavailable` it is called
            again, also when it may have written, an `OutcomeUnknown`; when it raises something else, with
            fewer, so that one bad value alone is lost.
        lose: told the kind and the value of each that is dropped or lost; it is not to wait.
    """

    def __init__(
        self,
        name: str,
        write: Callable[[Mapping[Hashable, Any]], object],
        lose: Callable[[Hashable, Any], object] = lambda kind, value: None,
    ) -> None:
        self.dropped = 0
        self._name = name
        self._write = write
        self._lose = lose
        self._changed = threading.Condition()
        self._queue: deque[tuple[Hashable, Any]] = deque()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._failing = False

    def add(self, kind: Hashable, value: Any) -> None:
        """Have a value written soon."""
        with self._changed:
            if self._closed:
                return
            if self._thread is None:
                thread = threading.Thread(target=self._run, name=f"link-kv-behind-{self._name}", daemon=True)
                thread.start()
                self._thread = thread
            if len(self._queue) >= _WAITING:
                self._lose(*self._queue.popleft())
                self.dropped += 1
            self._queue.append((kind, value))
            self._changed.notify_all()

    def flush(self, seconds: float) -> bool:
        """Wait until all is written, for some seconds at most; whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._queue, seconds)

    def close(self) -> None:
        """Write what is left, for 2 s at most. May be called twice."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(_GRACE)
        if left := len(self._queue):
            log.error("%s: %d values were not written any more", self._name, left)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closed)
                if not self._queue:
                    return
                batch: dict[Hashable, Any] = {}
                for kind, value in self._queue:
                    if kind in batch or len(batch) == _AT_ONCE:
                        break
                    batch[kind] = value
                dropped = self.dropped
            done = self._done(batch)
            with self._changed:
                # Those that were dropped meanwhile were the first.
                for _ in range(max(0, done - (self.dropped - dropped))):
                    self._queue.popleft()
                self._changed.notify_all()
            if done < len(batch):
                with self._changed:
                    if self._closed:
                        return
                    self._changed.wait_for(lambda: self._closed, _AGAIN)

    def _done(self, batch: Mapping[Hashable, Any]) -> int:
        """Write a batch; how many of it, from the first on, are dealt with."""
        try:
            self._write(batch)
        except Unavailable as error:
            if not self._failing:
                log.error("%s: polled values wait, since they cannot be written: %s", self._name, error)
            self._failing = True
            return 0
        except Exception as error:
            # Credentials and a closed client are nothing of one value.
            if len(batch) > 1 and not isinstance(error, (AccessDenied, Closed)):
                return self._in_halves(batch)
            for kind, value in batch.items():
                self._lose(kind, value)
            what = ", ".join(str(kind) for kind in itertools.islice(batch, 3))
            if len(batch) > 3:
                what += f" and {len(batch) - 3} more"
            if isinstance(error, LinkKVError):
                log.error(
                    "%s: polled values are lost, since they cannot be written: %s: %s",
                    self._name,
                    what,
                    error,
                )
            else:
                log.exception(
                    "%s: polled values are lost, since they cannot be written: %s", self._name, what
                )
        if self._failing:
            log.warning("%s: values are written again; %d were dropped so far", self._name, self.dropped)
        self._failing = False
        return len(batch)

    def _in_halves(self, batch: Mapping[Hashable, Any]) -> int:
        kinds, half = list(batch), len(batch) // 2
        done = self._done({kind: batch[kind] for kind in kinds[:half]})
        if done < half:
            return done
        return done + self._done({kind: batch[kind] for kind in kinds[half:]})
