"""What waits to be sent on a link, joined to as few messages as can be.

While one message is on its way, whatever else is to be sent gathers, and goes as the next message: that is
what makes many small calls cheap. A payload in pieces gives way to small frames: each message has one piece
at most.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator

from link_kv._core.links.messages import PIECE, Buffer, frame, pieces, size

_BATCH = 128 * 1024
"""Bytes of small frames that one message has, about."""


class Outbox:
    """Frames on their way out. Thread-safe; one thread takes.

    Args:
        limit: how many bytes of `offer`ed frames may wait.
    """

    def __init__(self, limit: int = 64 * 1024 * 1024) -> None:
        self._limit = limit
        self._frames: deque[bytes] = deque()
        self._waiting = 0
        self._large: deque[tuple[int, Iterator[bytes]]] = deque()
        self._ready = threading.Condition(threading.Lock())
        self._asleep = False
        self._ended = False

    def put(self, kind: int, number: int, parts: list[Buffer]) -> None:
        """Send a frame; what was closed drops it."""
        if (len(parts) == 1 and len(parts[0]) <= PIECE) or size(parts) <= PIECE:
            self._add(frame(kind, number, parts))
            return
        with self._ready:
            if not self._ended:
                self._large.append((number, pieces(kind, number, parts)))
                if self._asleep:
                    self._ready.notify()

    def offer(self, framed: bytes) -> bool:
        """Send a frame that was made before, unless too much waits already."""
        if self._waiting > self._limit:
            return False
        self._add(framed)
        return True

    def _add(self, framed: bytes) -> None:
        with self._ready:
            if not self._ended:
                self._frames.append(framed)
                self._waiting += len(framed)
                if self._asleep:
                    self._ready.notify()

    def drop(self, number: int) -> None:
        """Send no more pieces of a payload."""
        with self._ready:
            self._large = deque(each for each in self._large if each[0] != number)

    def end(self) -> None:
        """No more is to come; what waits is still taken."""
        with self._ready:
            self._ended = True
            self._ready.notify()

    def discard(self) -> None:
        """End, and drop what waits."""
        with self._ready:
            self._ended = True
            self._frames.clear()
            self._large.clear()
            self._waiting = 0
            self._ready.notify()

    def __iter__(self) -> Outbox:
        return self

    def __next__(self) -> bytes:
        """The next message; waits for something to send."""
        with self._ready:
            while True:
                while not (self._frames or self._large):
                    if self._ended:
                        raise StopIteration
                    self._asleep = True
                    self._ready.wait()
                    self._asleep = False
                if message := self._take():
                    return message

    def _take(self) -> bytes:
        if len(self._frames) == 1 and not self._large:
            self._waiting = 0
            return self._frames.popleft()
        batch: list[bytes] = []
        length = 0
        while self._frames and length < _BATCH:
            batch.append(self._frames.popleft())
            length += len(batch[-1])
        self._waiting -= length
        if self._large:
            number, rest = self._large.popleft()
            piece = next(rest, None)
            if piece is not None:
                batch.append(piece)
                self._large.append((number, rest))
        return b"".join(batch)
