"""What waits to be sent on a link, joined to as few messages as can be.

While one message is on its way, whatever else is to be sent gathers, and goes as the next message: that is
what makes many small calls cheap. A payload in pieces gives way to small frames: each message has one piece
at most. What is offered keeps its order all the same: it waits until what was offered before is whole.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple, cast

from link_kv._core.links.messages import PIECE, Buffer, frame, pieces, size

_BATCH = 128 * 1024
"""Bytes of small frames that one message has, about."""


class _Large(NamedTuple):
    """A payload in pieces, of which the next is to be sent."""

    number: int
    pieces: Iterator[bytes]
    counted: int
    """Bytes that it has in what waits, until its last piece is sent; 0 for what was not offered."""


class _Offered(NamedTuple):
    """What may not overtake what was offered before it."""

    what: bytes | _Large


class Outbox:
    """Frames on their way out. Thread-safe; one thread takes.

    Args:
        limit: how many bytes may wait when more is `offer`ed.
    """

    def __init__(self, limit: int = 64 * 1024 * 1024) -> None:
        self._limit = limit
        self._frames: deque[bytes | _Offered] = deque()
        self._waiting = 0
        self._large: deque[_Large] = deque()
        self._held: deque[_Offered] = deque()
        """Had their turn while something offered before was in pieces."""
        self._ready = threading.Condition(threading.Lock())
        self._asleep = False
        self._ended = False

    def put(self, kind: int, number: int, parts: list[Buffer]) -> None:
        """Send a frame; what was closed drops it."""
        if (len(parts) == 1 and len(parts[0]) <= PIECE) or size(parts) <= PIECE:
            framed = frame(kind, number, parts)
            self._add(framed, len(framed))
        else:
            self._add(_Large(number, pieces(kind, number, parts), 0), 0)

    def offer(self, kind: int, number: int, parts: list[Buffer], framed: bytes | None) -> bool:
        """The same, in the order in which it is offered, unless too much waits already. ``framed`` is the
        frame, of what fits one.
        """
        if self._waiting > self._limit:
            return False
        if framed is not None:
            self._add(_Offered(framed), len(framed))
        else:
            large = _Large(number, pieces(kind, number, parts), size(parts))
            self._add(_Offered(large), large.counted)
        return True

    def _add(self, what: bytes | _Large | _Offered, length: int) -> None:
        with self._ready:
            if not self._ended:
                if isinstance(what, _Large):
                    self._large.append(what)
                else:
                    self._frames.append(what)
                self._waiting += length
                if self._asleep:
                    self._ready.notify()

    def drop(self, number: int) -> None:
        """Send no more pieces of a payload."""
        with self._ready:
            dropped = [each for each in self._large if each.number == number]
            self._large = deque(each for each in self._large if each.number != number)
            for each in dropped:
                self._done(each)

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
            self._held.clear()
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
        if len(self._frames) == 1 and not self._large and isinstance(self._frames[0], bytes):
            self._waiting = 0
            return cast("bytes", self._frames.popleft())
        batch: list[bytes] = []
        length = 0
        while self._frames and length < _BATCH:
            each = self._frames.popleft()
            if isinstance(each, _Offered):
                if any(large.counted for large in self._large):
                    self._held.append(each)
                    continue
                if isinstance(each.what, _Large):
                    self._large.append(each.what)
                    continue
                each = each.what
            batch.append(each)
            length += len(each)
        self._waiting -= length
        if self._large:
            large = self._large.popleft()
            piece = next(large.pieces, None)
            if piece is None:
                self._done(large)
            else:
                batch.append(piece)
                self._large.append(large)
        return b"".join(batch)

    def _done(self, large: _Large) -> None:
        """It is whole, or goes no further: what waited for it has its turn."""
        self._waiting -= large.counted
        if large.counted:
            self._frames.extendleft(reversed(self._held))
            self._held.clear()
