"""What waits to be sent on a link, joined to as few messages as can be.

While one message is on its way, whatever else is to be sent gathers, and goes as the next message: that is
what makes many small calls cheap. A payload in pieces gives way to small frames: each message has one piece
at most.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from link_kv._core.links.messages import PIECE, Buffer, frame, pieces, size

_BATCH = 128 * 1024
"""Bytes of small frames that one message has, about."""


class _Large(NamedTuple):
    """A payload in pieces, of which the next is to be sent."""

    number: int
    pieces: Iterator[bytes]
    counted: int
    """Bytes that it has in what waits, until its last piece is sent."""


class Outbox:
    """Frames on their way out. Thread-safe; one thread takes.

    Args:
        limit: how many bytes may wait when more is `offer`ed.
    """

    def __init__(self, limit: int = 64 * 1024 * 1024) -> None:
        self._limit = limit
        self._frames: deque[bytes] = deque()
        self._waiting = 0
        self._large: deque[_Large] = deque()
        self._ready = threading.Condition(threading.Lock())
        self._asleep = False
        self._ended = False

    def put(self, kind: int, number: int, parts: list[Buffer]) -> None:
        """Send a frame; what was closed drops it."""
        if (len(parts) == 1 and len(parts[0]) <= PIECE) or size(parts) <= PIECE:
            self._add(frame(kind, number, parts))
        else:
            self._add_large(_Large(number, pieces(kind, number, parts), 0))

    def offer(self, kind: int, number: int, parts: list[Buffer], framed: bytes | None) -> bool:
        """The same, unless too much waits already. ``framed`` is the frame, of what fits one."""
        if self._waiting > self._limit:
            return False
        if framed is not None:
            self._add(framed)
        else:
            self._add_large(_Large(number, pieces(kind, number, parts), size(parts)))
        return True

    def _add_large(self, large: _Large) -> None:
        with self._ready:
            if not self._ended:
                self._large.append(large)
                self._waiting += large.counted
                if self._asleep:
                    self._ready.notify()

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
            self._waiting -= sum(each.counted for each in self._large if each.number == number)
            self._large = deque(each for each in self._large if each.number != number)

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
            large = self._large.popleft()
            piece = next(large.pieces, None)
            if piece is None:
                self._waiting -= large.counted
            else:
                batch.append(piece)
                self._large.append(large)
        return b"".join(batch)
