"""The service's side of its links: who may call, and what is answered."""

from __future__ import annotations

import functools
import hmac
import itertools
import logging
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from link_kv._core.links.direct import Refusal
from link_kv._core.links.messages import (
    PIECE,
    BadMessage,
    Buffer,
    Frame,
    Kind,
    Oversize,
    Reader,
    decode,
    encode,
    frame,
    size,
)
from link_kv._core.links.outbox import Outbox
from link_kv._core.links.workers import Workers
from link_kv.errors import (
    AccessDenied,
    EncodeError,
    LinkKVError,
    LockRefused,
    TooLarge,
    Unavailable,
)

log = logging.getLogger("link_kv.services")

REFUSALS: dict[str, type[LinkKVError]] = {
    "access": AccessDenied,
    "lock": LockRefused,
    "encode": EncodeError,
    "size": TooLarge,
    "unavailable": Unavailable,
}
"""The errors that reach a caller as what they are, and not as a `RemoteError`, by what they are called on
the wire.
"""

_QUEUED = 10_000
"""Calls of one link that may wait; then its stream is not read on until there are fewer."""

_THREADS = 1000
"""Calls that one service answers at the same time."""

_AT_ONCE = 250
"""Those of one link among them."""

_ASIDE = 10
"""Questions of one link, SYNC and ASK, that are answered at the same time. They are counted apart from its
calls, so that they do not wait for calls which wait for them.
"""

_NOTIFICATIONS = 1 << 62
"""Their numbers begin here, apart from those of calls."""

TOKEN, LINK, SECRET = "link-kv-token", "link-kv-link", "link-kv-secret"
"""What a caller says of itself when it opens its stream."""


@dataclass(frozen=True)
class Caller:
    """Who calls."""

    client: str
    """The id of the client."""
    name: str
    """The name that the client gave itself."""
    address: str
    """Where it calls from, as gRPC names it."""
    link: str
    """The id of the link."""


@dataclass(frozen=True)
class Request:
    """One call of a linked client."""

    attribute: str
    args: list[Any] = field(repr=False)
    kwargs: dict[str, Any] = field(repr=False)
    caller: Caller


class Host:
    """What all links of a service share.

    Args:
        name: the service's.
        token: what a caller must present.
        check: who a link belongs to, or raises why its calls are not answered.
        answer: answers a request; what it raises goes to the caller.
        ask: whether there is an attribute.
        sync: waits, not for long, until ``check`` goes by a revision; whether it does.
        read_limit: how many bytes one request may have.
    """

    def __init__(
        self,
        name: str,
        token: str,
        check: Callable[[str, str], tuple[str, str]],
        answer: Callable[[Request], Any],
        ask: Callable[[str], bool],
        sync: Callable[[int], bool],
        read_limit: int | None,
    ) -> None:
        self.name = name
        self.check = check
        self.answer = answer
        self.ask = ask
        self.sync = sync
        self.read_limit = read_limit
        self.workers = Workers(f"link-kv-service-{name}", _THREADS)
        self._token = token
        self._notifications = itertools.count()
        self._lock = threading.Lock()
        self._open: dict[Conversation, None] = {}
        self._closed = False
        self._idle = threading.Condition(self._lock)
        self._busy = 0

    def accept(self, metadata: dict[str, str], address: str) -> Conversation:
        """A link that wants to talk. Raises `Refusal`."""
        given = metadata.get(TOKEN, "")
        if not hmac.compare_digest(given.encode(), self._token.encode()):
            raise Refusal(f"service {self.name}: the token is not that of this service")
        conversation = Conversation(self, metadata.get(LINK, ""), metadata.get(SECRET, ""), address)
        with self._lock:
            if self._closed:
                raise Refusal(f"service {self.name}: is ending")
            self._open[conversation] = None
        return conversation

    def leave(self, conversation: Conversation) -> None:
        with self._lock:
            self._open.pop(conversation, None)

    def notify(self, args: Any, kwargs: Any) -> None:
        """Send a notification to all who are linked. Raises `EncodeError`."""
        parts = encode([args, kwargs], f"service {self.name}: the notification")
        with self._lock:
            listening = list(self._open)
        number = _NOTIFICATIONS + next(self._notifications)
        framed = frame(Kind.NOTIFY, number, parts) if size(parts) <= PIECE else None
        for each in listening:
            each.notify(number, parts, framed)

    def begin(self) -> bool:
        """Whether a request is answered, and counts as under way until it is `done`."""
        with self._lock:
            self._busy += not self._closed
            return not self._closed

    def done(self) -> None:
        with self._lock:
            self._busy -= 1
            if not self._busy:
                self._idle.notify_all()

    def close(self, seconds: float) -> None:
        """Answer what is under way, for some seconds at most, and refuse what comes; then end all links."""
        with self._lock:
            self._closed = True
            self._idle.wait_for(lambda: not self._busy, seconds)
            conversations = list(self._open)
        for each in conversations:
            each.outbox.end()


class _Lane:
    """Requests of one link of which so many are answered at the same time."""

    __slots__ = ("later", "most", "running")

    def __init__(self, most: int) -> None:
        self.most = most
        self.running = 0
        self.later: deque[Frame] = deque()
        """Those over that number."""


class Conversation:
    """One link's stream, as `link_kv._core.links.direct.Talk`."""

    def __init__(self, host: Host, link: str, secret: str, address: str) -> None:
        self.outbox = Outbox()
        self._host = host
        self._link = link
        self._secret = secret
        self._address = address
        self._reader = Reader(host.read_limit)
        self._room = threading.Condition(threading.Lock())
        self._queued = 0
        self._calls = _Lane(_AT_ONCE)
        self._aside = _Lane(_ASIDE)
        self._over = False

    def messages(self) -> Iterator[bytes]:
        try:
            yield from self.outbox
        finally:
            self._end()

    def _end(self) -> None:
        self._host.leave(self)
        with self._room:
            self._over = True
            self._calls.later.clear()
            self._aside.later.clear()
            self._room.notify_all()

    def hear(self, messages: Iterable[bytes]) -> None:
        """Take what comes in, until the link ends."""
        try:
            for message in messages:
                for each in self._reader.feed(message):
                    self._take(each)
        except BadMessage as error:
            log.warning("service %s: a link from %s ends: %s", self._host.name, self._address, error)
        finally:
            self._end()
            self.outbox.discard()

    def _take(self, each: Any) -> None:
        if isinstance(each, Oversize):
            self.outbox.put(Kind.DROP, each.number, [b""])
            self._fail(each.number, each.error)
        elif each.kind in (Kind.CALL, Kind.ASK, Kind.SYNC):
            lane = self._calls if each.kind == Kind.CALL else self._aside
            with self._room:
                while self._queued >= _QUEUED and not self._over:
                    self._room.wait()
                self._queued += 1
                if lane.running >= lane.most:
                    lane.later.append(each)
                    return
                lane.running += 1
            self._begin(each, lane)
        elif each.kind == Kind.DROP:
            self._reader.forget(each.number)
            self.outbox.drop(each.number)
        else:
            raise BadMessage(f"a frame of kind {each.kind}, from a client")

    def _begin(self, each: Frame, lane: _Lane) -> None:
        """Have a request answered. Of a service that is ending it is refused, with those that wait behind."""
        following: Frame | None = each
        while following is not None and not self._host.begin():
            ending = f"service {self._host.name}: is ending; the call was not carried out"
            self._fail(following.number, Unavailable(ending))
            following = self._after(lane)
        if following is not None:
            self._host.workers.add(functools.partial(self._work, following, lane))

    def _after(self, lane: _Lane) -> Frame | None:
        """One request is done with: the one that has its turn, if one waits."""
        with self._room:
            self._queued -= 1
            following = lane.later.popleft() if lane.later else None
            if following is None:
                lane.running -= 1
            self._room.notify()
        return following

    def _work(self, each: Frame, lane: _Lane) -> None:
        host = self._host
        try:
            result = self._result(each.kind, decode(each.payload))
            self.outbox.put(Kind.RESULT, each.number, encode(result, f"service {host.name}: the result"))
        except BaseException as error:  # noqa: BLE001 - whatever a method raises is its caller's to see
            self._fail(each.number, error)
        finally:
            following = self._after(lane)
            if following is not None:
                self._begin(following, lane)
            host.done()  # last: once nothing is under way, a service that ends sends no more

    def _result(self, kind: int, value: Any) -> Any:
        host = self._host
        if kind == Kind.SYNC:
            return isinstance(value, int) and host.sync(value)
        client, name = host.check(self._link, self._secret)
        if kind == Kind.ASK:
            return isinstance(value, str) and host.ask(value)
        return host.answer(_request(value, Caller(client, name, self._address, self._link)))

    def _fail(self, number: int, error: BaseException) -> None:
        for name, kind in REFUSALS.items():
            if type(error) is kind and not _from_a_method(error):
                told = {"refused": name, "message": _said(error)}
                break
        else:
            lines = traceback.format_exception(type(error), error, _below_us(error))
            told = {"type": type(error).__name__, "message": _said(error), "traceback": "".join(lines)}
        text = {key: value.encode(errors="replace").decode() for key, value in told.items()}
        self.outbox.put(Kind.ERROR, number, [b"\0" + orjson.dumps(text)])

    def notify(self, number: int, parts: list[Buffer], framed: bytes | None) -> None:
        try:
            self._host.check(self._link, self._secret)
        except LinkKVError:
            return  # its link is gone, though its stream is not yet
        if not self.outbox.offer(Kind.NOTIFY, number, parts, framed):
            log.warning(
                "service %s: a link from %s ends: it does not take its notifications",
                self._host.name,
                self._address,
            )
            self.outbox.discard()


def _request(value: Any, caller: Caller) -> Request:
    if isinstance(value, list) and len(value) == 3:
        attribute, args, kwargs = value
        if isinstance(attribute, str) and isinstance(args, list) and isinstance(kwargs, dict):
            return Request(attribute, args, kwargs, caller)
    raise BadMessage("a call is a list of an attribute, arguments and keywords")


def _said(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException:  # noqa: BLE001 - it is the method's, and its caller waits
        return f"(what this {type(error).__name__} says cannot be had)"


def _below_us(error: BaseException) -> Any:
    """The traceback from the service's own code on."""
    at = error.__traceback__
    while at is not None and (at.tb_frame.f_globals.get("__name__", "").startswith("link_kv.")):
        at = at.tb_next
    return at or error.__traceback__


def _from_a_method(error: BaseException) -> bool:
    at = error.__traceback__
    while at is not None:
        if not at.tb_frame.f_globals.get("__name__", "").startswith("link_kv."):
            return True
        at = at.tb_next
    return False
