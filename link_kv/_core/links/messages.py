"""What travels on a link: values as bytes, frames of values, and many frames in one message.

A value is JSON with attachments. JSON types travel as JSON, written by orjson; ``bytes`` and numpy arrays
travel beside it, as they are; an object with a ``to_json`` method travels as what that returns. Nothing
that comes in is evaluated, imported or unpickled.

A payload begins with a byte of flags::

    0 or EXACT                      the rest is JSON
    ATTACHED, or both               the length of the JSON, its mark, the JSON; then for each attachment a
    kind, a
                                    length, and its bytes. In the JSON, {mark: n} stands for attachment n

``EXACT`` says that the JSON is Python's own: it has NaN, Infinity, or integers of more than 64 bits, which
orjson writes as null or not at all, and reads as something else.

A frame is a kind, a number and a length, then so many bytes of payload. A payload over `PIECE` is announced
by a ``BIG`` frame, and follows in ``PIECE`` frames, between which others fit. Everything here is pure, but
for numpy arrays, which need numpy.
"""

from __future__ import annotations

import json
import math
import secrets
import struct
import sys
from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import Any, NamedTuple

import orjson

from link_kv import codec
from link_kv.errors import EncodeError, LinkKVError, TooLarge

PIECE = 256 * 1024
"""Bytes of a payload that travel at once."""

_OPTIONS = (
    orjson.OPT_PASSTHROUGH_SUBCLASS | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME
)
_EXACT, _ATTACHED = 1, 2
_PLAIN_HEAD, _EXACT_HEAD = b"\0", b"\1"
_TABLE = struct.Struct("<BI8s")
_ATTACHMENT = struct.Struct("<cQ")
_BYTES, _ARRAY = b"b", b"n"
_DEEPEST = 200
_EASY = (str, int, float, bool, type(None))

Buffer = bytes | memoryview


class BadMessage(LinkKVError):
    """What came in is not of this protocol."""


# Values


class _Attachments:
    """Takes what JSON has no form for, as orjson meets it."""

    __slots__ = ("found", "mark")

    def __init__(self) -> None:
        self.found: list[tuple[bytes, Buffer]] = []
        self.mark = ""

    def __call__(self, value: Any) -> Any:
        """What stands in the JSON for a value that is no JSON type. Raises TypeError for one that cannot be
        sent.
        """
        to_json = getattr(value, "to_json", None)
        if callable(to_json):
            return to_json()
        if isinstance(value, (bytes, bytearray, memoryview)):
            return self._attach(_BYTES, value if isinstance(value, bytes) else bytes(value))
        numpy = sys.modules.get("numpy")  # whoever has a value of its has imported it
        if numpy is not None:
            if isinstance(value, numpy.ndarray):
                return self._attach(_ARRAY, codec.encode(value))
            if isinstance(value, numpy.generic):
                return value.item()
        kinds: tuple[type[Any], ...] = (str, bool, int, float, dict)
        for kind in kinds:
            if isinstance(value, kind):
                return kind(value)
        if isinstance(value, (list, tuple)):
            return list(value)
        raise TypeError(f"a {type(value).__name__} cannot be sent")

    def _attach(self, kind: bytes, data: Buffer) -> dict[str, int]:
        self.mark = self.mark or secrets.token_hex(4)
        self.found.append((kind, data))
        return {self.mark: len(self.found) - 1}


def encode(value: Any, what: str) -> list[Buffer]:
    """A value as the parts of a payload. Raises `EncodeError`, beginning with ``what``."""
    attachments = _Attachments()
    try:
        text = orjson.dumps(value, attachments, _OPTIONS)
        head = _PLAIN_HEAD
        if b"null" in text and value is not None:
            # None; or else NaN and the infinities, which orjson writes alike.
            again = _Attachments()
            plain = _Plain(again)
            simple = plain.of(value)
            if plain.odd:
                text, head, attachments = json.dumps(simple).encode(), _EXACT_HEAD, again
    except orjson.JSONEncodeError as error:
        attachments = _Attachments()
        try:
            text, head = json.dumps(_Plain(attachments).of(value)).encode(), _EXACT_HEAD
        except (TypeError, ValueError, RecursionError) as refusal:
            raise _refused(what, refusal if isinstance(refusal, TypeError) else error) from None
    except (TypeError, ValueError, RecursionError) as error:
        raise _refused(what, error) from None
    if not attachments.found:
        return [head + text]
    flags = head[0] | _ATTACHED
    parts: list[Buffer] = [_TABLE.pack(flags, len(text), attachments.mark.encode()), text]
    for kind, data in attachments.found:
        parts += (_ATTACHMENT.pack(kind, len(data)), data)
    return parts


def _refused(what: str, error: Exception) -> EncodeError:
    return EncodeError(
        f"{what}: {error}; what can be sent are JSON types with keys that are str, bytes, numpy arrays, and "
        "objects with a to_json method"
    )


class _Plain:
    """Turns a value into what Python's json writes as it is."""

    def __init__(self, attachments: _Attachments) -> None:
        self._attachments = attachments
        self.odd = False
        """Whether there was a number that orjson does not write."""

    def of(self, value: Any, depth: int = 0) -> Any:
        kind = type(value)
        if kind is float:
            self.odd = self.odd or not math.isfinite(value)
            return value
        if kind is int:
            self.odd = self.odd or not -(2**63) <= value < 2**64
            return value
        if kind is str:
            try:
                value.encode()
            except UnicodeEncodeError:
                raise TypeError("a text with lone surrogates cannot be sent") from None
            return value
        if kind in _EASY:
            return value
        if depth > _DEEPEST:
            raise TypeError(f"a value nested more than {_DEEPEST} deep cannot be sent")
        if kind is list or kind is tuple:
            return [self.of(item, depth + 1) for item in value]
        if kind is dict:
            for key in value:
                if not isinstance(key, str):
                    raise TypeError(f"a dict with the key {key!r} cannot be sent")
            return {str(key): self.of(item, depth + 1) for key, item in value.items()}
        return self.of(self._attachments(value), depth + 1)


def decode(payload: Buffer) -> Any:
    """The value of a payload. Raises `BadMessage`."""
    try:
        flags = payload[0]
        if flags == 0:
            return orjson.loads(memoryview(payload)[1:])
        if flags == _EXACT:
            return json.loads(bytes(memoryview(payload)[1:]))
        if flags & ~_EXACT != _ATTACHED:
            raise BadMessage(f"a value with flags {flags}")
        view = memoryview(payload)
        _, length, mark = _TABLE.unpack_from(view)
        at = _TABLE.size + length
        text = view[_TABLE.size : at]
        found: list[Any] = []
        while at < len(view):
            kind, length = _ATTACHMENT.unpack_from(view, at)
            at += _ATTACHMENT.size
            if at + length > len(view):
                raise BadMessage("an attachment is cut off")
            found.append(_detach(kind, view[at : at + length]))
            at += length
        value = json.loads(bytes(text)) if flags & _EXACT else orjson.loads(text)
        return _attach_again(value, mark.decode("ascii"), found)
    except (ValueError, IndexError, struct.error, RecursionError, TypeError) as error:
        raise BadMessage(f"a value that cannot be read: {error}") from None


def _detach(kind: bytes, data: memoryview) -> Any:
    if kind == _BYTES:
        return bytes(data)
    if kind == _ARRAY:
        return codec.decode(bytes(data))
    raise BadMessage(f"an attachment of the kind {kind!r}")


def _attach_again(value: Any, mark: str, found: list[Any]) -> Any:
    if type(value) is list:
        return [_attach_again(item, mark, found) for item in value]
    if type(value) is dict:
        if len(value) == 1 and mark in value:
            return found[value[mark]]
        return {key: _attach_again(item, mark, found) for key, item in value.items()}
    return value


# Frames


class Kind(IntEnum):
    """What a frame carries."""

    CALL = 1
    """To the service: ``[attribute, arguments, keywords]``. Answered by RESULT or ERROR with the same
    number.
    """
    ASK = 2
    """To the service: the name of an attribute. Answered by RESULT, whether there is one."""
    RESULT = 3
    ERROR = 4
    """``{"type", "message", "traceback"}`` of what a method raised; or ``{"refused", "message"}``."""
    NOTIFY = 5
    """To the client: ``[arguments, keywords]``."""
    BIG = 6
    """Announces a payload in pieces: its kind, and its length."""
    PIECE = 7
    SYNC = 8
    """To the service: a revision. Answered by RESULT, once the service has seen it."""
    DROP = 9
    """The rest of the pieces with this number is not wanted."""


_HEAD = struct.Struct("<BQI")
_BIG = struct.Struct("<BQ")
_KINDS = frozenset(int(kind) for kind in Kind)


class Frame(NamedTuple):
    kind: int
    number: int
    payload: Buffer


def frame(kind: int, number: int, parts: list[Buffer]) -> bytes:
    """One small frame."""
    payload = parts[0] if len(parts) == 1 else b"".join(parts)
    return _HEAD.pack(kind, number, len(payload)) + payload


def size(parts: list[Buffer]) -> int:
    return sum(map(len, parts))


def pieces(kind: int, number: int, parts: list[Buffer]) -> Iterator[bytes]:
    """The frames of a payload over `PIECE`, made as they are asked for."""
    yield _HEAD.pack(Kind.BIG, number, _BIG.size) + _BIG.pack(kind, size(parts))
    for part in parts:
        view = memoryview(part)
        for start in range(0, len(view), PIECE):
            piece = view[start : start + PIECE]
            yield b"".join((_HEAD.pack(Kind.PIECE, number, len(piece)), piece))


def frames(message: bytes) -> Iterator[Frame]:
    """The frames of a message. Raises `BadMessage`."""
    at, end = 0, len(message)
    while at < end:
        if end - at < _HEAD.size:
            raise BadMessage("a message ends within a frame")
        kind, number, length = _HEAD.unpack_from(message, at)
        at += _HEAD.size
        if kind not in _KINDS or at + length > end:
            raise BadMessage(f"a frame of kind {kind} and {length} bytes")
        yield Frame(kind, number, message[at : at + length])
        at += length


class _Gathering:
    __slots__ = ("kind", "left", "parts")

    def __init__(self, kind: int, left: int) -> None:
        self.kind = kind
        self.left = left
        self.parts: list[Buffer] = []


class Oversize(NamedTuple):
    """A payload that was not taken."""

    kind: int
    number: int
    error: TooLarge


class Reader:
    """Puts pieces together. Not thread-safe.

    Args:
        limit: how many bytes one payload may have; None for any number.
        at_once: how many payloads may be coming in pieces at the same time.
        wanted: whether somebody waits for a payload of this kind and number that begins to come.
    """

    def __init__(
        self,
        limit: int | None,
        at_once: int = 1000,
        wanted: Callable[[int, int], bool] = lambda kind, number: True,
    ) -> None:
        self.limit = limit
        self._at_once = at_once
        self._wanted = wanted
        self._gathering: dict[int, _Gathering] = {}
        self._dropped: dict[int, int] = {}
        """Payloads that are not wanted, and how many bytes of them may still come."""

    def feed(self, message: bytes) -> Iterator[Frame | Oversize]:
        """The whole frames that a message completes. Raises `BadMessage`."""
        for each in frames(message):
            kind, number, payload = each
            if kind == Kind.PIECE:
                done = self._add(number, payload)
                if done is not None:
                    yield done
            elif kind == Kind.BIG:
                if len(payload) != _BIG.size:
                    raise BadMessage("a bad announcement")
                what, length = _BIG.unpack(payload)
                if what not in _KINDS or what in (Kind.BIG, Kind.PIECE, Kind.DROP) or not length:
                    raise BadMessage(f"the announcement of a kind {what}")
                if not self._wanted(what, number):
                    self._ignore(number, length)
                    continue
                if number in self._gathering or len(self._gathering) >= self._at_once:
                    raise BadMessage("too many payloads in pieces")
                if self.limit is not None and length > self.limit:
                    self._ignore(number, length)
                    yield Oversize(what, number, self._over(length))
                else:
                    self._gathering[number] = _Gathering(what, length)
            elif self.limit is not None and len(payload) > self.limit:
                yield Oversize(kind, number, self._over(len(payload)))
            else:
                yield each

    def forget(self, number: int) -> None:
        """Nobody waits for this payload any more."""
        gathering = self._gathering.pop(number, None)
        if gathering is not None:
            self._ignore(number, gathering.left)

    def _ignore(self, number: int, left: int) -> None:
        while len(self._dropped) >= self._at_once:
            del self._dropped[next(iter(self._dropped))]
        self._dropped[number] = left

    def _over(self, length: int) -> TooLarge:
        return TooLarge(f"{length} bytes are over the read_limit of {self.limit} bytes")

    def _add(self, number: int, payload: Buffer) -> Frame | None:
        gathering = self._gathering.get(number)
        if gathering is None:
            if number in self._dropped:
                # Sent before the other side heard that it is not wanted.
                self._dropped[number] -= len(payload)
                if self._dropped[number] <= 0:
                    del self._dropped[number]
                return None
            raise BadMessage("a piece of nothing")
        gathering.left -= len(payload)
        gathering.parts.append(payload)
        if gathering.left > 0:
            return None
        if gathering.left < 0:
            raise BadMessage("more pieces than announced")
        del self._gathering[number]
        return Frame(gathering.kind, number, b"".join(gathering.parts))
