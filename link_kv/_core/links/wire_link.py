"""The client's side of one stream to a service: calls on their way, and what comes back."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, InvalidStateError
from typing import Any

import orjson

from link_kv._core.links.direct import Dialed, Tls
from link_kv._core.links.messages import BadMessage, Buffer, Kind, Oversize, Reader, decode
from link_kv._core.links.outbox import Outbox
from link_kv._core.links.wire_server import LINK, REFUSALS, SECRET, TOKEN
from link_kv._core.links.workers import Workers
from link_kv._core.wire.failures import PERMISSION_DENIED, WireFailure
from link_kv.errors import (
    AccessDenied,
    DeadlineExceeded,
    LinkKVError,
    OutcomeUnknown,
    RemoteError,
    Unavailable,
)

log = logging.getLogger("link_kv.links")

Waiter = Callable[[Any, "LinkKVError | None"], None]
"""Is told the payload of an answer, or why there is none; by the thread that reads, so it must be quick."""

helpers = Workers("link-kv-link", 32)
"""Run what users hang onto futures."""
os.register_at_fork(after_in_child=helpers.begin_anew)


class TimedOut(OutcomeUnknown, DeadlineExceeded):
    """A call was not answered in time, and may still be carried out."""


class Line:
    """One stream. Thread-safe. When it has ended, all that wait are told, and it stays ended.

    Args:
        service: its name, for messages.
        on_notify: is called with the payload of each notification, by the thread that reads.
    """

    def __init__(
        self,
        service: str,
        address: str,
        token: str,
        link: str,
        secret: str,
        tls: Tls | None,
        read_limit: int | None,
        on_notify: Callable[[Buffer], None],
    ) -> None:
        self.service = service
        self.address = address
        self.token = token
        self._when_ended: Callable[[], object] | None = None
        self.ended: LinkKVError | None = None
        self._outbox = Outbox()
        self._reader = Reader(read_limit, wanted=self._wants)
        self._unwanted: deque[int] = deque()
        """Answers that were given up, of which the thread that reads may have pieces."""
        self._numbers = itertools.count(1)
        self._waiting: dict[int, Waiter] = {}
        self._lock = threading.Lock()
        self._on_notify = on_notify
        metadata = {TOKEN: token, LINK: link, SECRET: secret}
        self._dialed = Dialed(address, metadata, self._outbox, tls)
        self._thread = threading.Thread(target=self._read, name=f"link-kv-link-{service}", daemon=True)
        self._thread.start()

    def send(self, kind: Kind, parts: list[Buffer], waiter: Waiter) -> int:
        """Send a call, and return its number. Raises `Unavailable` when nothing was sent."""
        number = next(self._numbers)
        self._waiting[number] = waiter
        if self.ended is not None and self._waiting.pop(number, None) is not None:
            raise self.ended
        self._outbox.put(kind, number, parts)
        return number

    def forget(self, number: int) -> None:
        """Nobody waits for this answer any more."""
        if self._waiting.pop(number, None) is not None:
            self._drop(number)

    def give_up(self, number: int, error: LinkKVError) -> None:
        """Tell who waits for an answer that it does not come."""
        waiter = self._waiting.pop(number, None)
        if waiter is not None:
            self._drop(number)
            waiter(None, error)

    def _drop(self, number: int) -> None:
        self._unwanted.append(number)
        self._outbox.drop(number)
        self._outbox.put(Kind.DROP, number, [b""])

    def _wants(self, kind: int, number: int) -> bool:
        return kind == Kind.NOTIFY or number in self._waiting

    def when_ended(self, function: Callable[[], object]) -> None:
        """Call a function once it has ended by itself; at once when it has."""
        with self._lock:
            self._when_ended = function
            ended = self.ended is not None
        if ended:
            function()

    def close(self) -> None:
        """End it. Whoever waits is told."""
        self._end(Unavailable(f"service {self.service}: this client has unlinked"))
        self._dialed.close()

    def fail(self, error: LinkKVError) -> None:
        """End it for a reason that was learned elsewhere."""
        self._end(error)
        self._dialed.close()

    def _read(self) -> None:
        error: LinkKVError = Unavailable(f"service {self.service}: nobody reads its answers any more")
        try:
            for message in self._dialed:
                while self._unwanted:
                    self._reader.forget(self._unwanted.popleft())
                for each in self._reader.feed(message):
                    self._take(each)
            error = Unavailable(f"service {self.service}: has ended")
        except WireFailure as failure:
            if failure.code == PERMISSION_DENIED:
                error = AccessDenied(failure.details)
            else:
                words = failure.details or f"status {failure.code}"
                error = Unavailable(f"service {self.service}: no connection to {self.address}: {words}")
        except BadMessage as bad:
            log.warning("service %s: the link ends: %s", self.service, bad)
            error = Unavailable(f"service {self.service}: sent what cannot be read: {bad}")
        finally:  # whatever was raised: somebody may wait without a bound
            self._end(error)
            self._dialed.close()

    def _take(self, each: Any) -> None:
        if each.kind == Kind.NOTIFY:
            if isinstance(each, Oversize):
                log.warning("service %s: a notification was dropped: %s", self.service, each.error)
            else:
                self._on_notify(each.payload)
            return
        if each.kind == Kind.DROP:
            self._outbox.drop(each.number)
            return
        if each.kind not in (Kind.RESULT, Kind.ERROR):
            raise BadMessage(f"a frame of kind {each.kind}, from a service")
        waiter = self._waiting.pop(each.number, None)
        if isinstance(each, Oversize):
            self._outbox.put(Kind.DROP, each.number, [b""])
            if waiter is not None:
                waiter(None, type(each.error)(f"service {self.service}: the result: {each.error}"))
        elif waiter is not None:
            waiter(
                each.payload, remote_error(self.service, each.payload) if each.kind == Kind.ERROR else None
            )

    def _end(self, error: LinkKVError) -> None:
        with self._lock:
            if self.ended is not None:
                return
            self.ended = error
            when_ended = self._when_ended
        self._outbox.discard()
        while self._waiting:
            try:
                _, waiter = self._waiting.popitem()
            except KeyError:  # another thread took the last
                break
            if isinstance(error, AccessDenied):
                waiter(None, error)
            else:
                waiter(None, OutcomeUnknown(f"{error}; the call may or may not have been carried out"))
        if when_ended is not None:
            when_ended()


def remote_error(service: str, payload: Buffer) -> LinkKVError:
    """What an ERROR frame tells."""
    try:
        told = orjson.loads(memoryview(payload)[1:])
        message = str(told["message"])
        refused = REFUSALS.get(told.get("refused"))
        if refused is not None:
            return refused(message)
        return RemoteError(f"service {service}: {told['type']}: {message}\n\n{told['traceback']}".rstrip())
    except (ValueError, KeyError, TypeError, AttributeError):
        return RemoteError(f"service {service}: failed, and what it says of that cannot be read")


def tell(handler: Callable[[], object], error: LinkKVError) -> None:
    """Call a handler of errors that came from a service, and not of those in reaching it."""
    if isinstance(error, Unavailable):
        return
    try:
        handler()
    except Exception:
        log.exception("the handler of a service's errors raised")


# Waiting


class Waiting:
    """Lets one thread wait for one answer."""

    __slots__ = ("_answered", "_payload", "error")

    def __init__(self) -> None:
        self._answered = threading.Lock()
        self._answered.acquire()
        self.error: LinkKVError | None = None
        self._payload: Any = None

    def __call__(self, payload: Any, error: LinkKVError | None) -> None:
        self._payload, self.error = payload, error
        self._answered.release()

    def wait(self, timeout: float | None) -> bool:
        """Whether the answer came in time."""
        if timeout is None:
            return self._answered.acquire()
        return self._answered.acquire(timeout=max(0.0, min(timeout, threading.TIMEOUT_MAX)))

    def result(self) -> Any:
        if self.error is not None:
            raise self.error
        return decode(self._payload)


_hanging = threading.Lock()
"""Held while something is hung onto a future, or taken from it."""


class Answer(Future[Any]):
    """The future of an asynchronous call. Cancelling it only means that nobody waits any more.

    Callbacks that users add run in a thread of their own, one after the other, so that they may block, and
    call: the thread that reads answers must never run one.
    """

    def __init__(self, before_error: Callable[[], object] | None) -> None:
        super().__init__()
        self._before_error = before_error
        self._hung: list[Callable[[Future[Any]], object]] | None = []
        """Callbacks; None once they were handed over."""

    def add_done_callback(self, fn: Callable[[Future[Any]], object]) -> None:
        with _hanging:
            hung, first = self._hung, not self._hung
            if hung is not None:
                hung.append(fn)
        if hung is None:
            super().add_done_callback(fn)  # it is done: called at once, in this thread
        elif first:
            super().add_done_callback(self._hand_over)

    def _hand_over(self, _: object) -> None:
        with _hanging:
            hung, self._hung = self._hung, None
        helpers.add(lambda: self._call(hung or ()))

    def _call(self, hung: Iterable[Callable[[Future[Any]], object]]) -> None:
        for each in hung:
            try:
                each(self)
            except Exception:
                log.exception("what was to be called with an answer raised")

    def __call__(self, payload: Any, error: LinkKVError | None) -> None:
        if error is not None and self._before_error is not None:
            with contextlib.suppress(RuntimeError):  # no thread can be started: better here than never
                helpers.add(lambda: self._resolve(payload, error))
                return
        self._resolve(payload, error)

    def _resolve(self, payload: Any, error: LinkKVError | None) -> None:
        try:
            value = None if error is not None else decode(payload)
        except BadMessage as bad:
            error = bad
        if error is not None and self._before_error is not None:
            tell(self._before_error, error)
        try:
            if error is not None:
                self.set_exception(error)
            else:
                self.set_result(value)
        except InvalidStateError:
            log.debug("an answer came for a call that was cancelled")


class Notifications:
    """Calls a handler for each notification, in order, in a thread of its own, started at the first.

    When more than ``most`` wait, the oldest are dropped, and counted.
    """

    def __init__(self, name: str, handle: Callable[[Any, Any], object], most: int = 10_000) -> None:
        self.dropped = 0
        self._name = name
        self._handle = handle
        self._most = most
        self._waiting: deque[Buffer] = deque()
        self._came = threading.Condition(threading.Lock())
        self._thread: threading.Thread | None = None
        self._over = False

    def add(self, payload: Buffer) -> None:
        with self._came:
            if self._over:
                return
            if len(self._waiting) >= self._most:
                if not self.dropped:
                    log.warning("service %s: notifications come faster than they are handled", self._name)
                self._waiting.popleft()
                self.dropped += 1
            self._waiting.append(payload)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._work, name=f"link-kv-notifications-{self._name}", daemon=True
                )
                self._thread.start()
            else:
                self._came.notify()

    def close(self) -> None:
        with self._came:
            self._over = True
            self._waiting.clear()
            self._came.notify()

    def _work(self) -> None:
        while True:
            with self._came:
                while not self._waiting:
                    if self._over:
                        return
                    self._came.wait()
                payload = self._waiting.popleft()
            try:
                args, kwargs = decode(payload)
                self._handle(args, kwargs)
            except BaseException:
                log.exception("service %s: the handler of notifications raised", self._name)
