"""A client's link to a service, over whichever connection it has at present."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from link_kv._core.links import registry
from link_kv._core.links.bounds import BOUNDS
from link_kv._core.links.config import LinkConfig, dialing
from link_kv._core.links.following import Following
from link_kv._core.links.messages import Buffer, Kind, encode
from link_kv._core.links.registry import LinkRecord, ServiceRecord
from link_kv._core.links.wire_link import Answer, Line, Notifications, TimedOut, Waiter, Waiting, tell
from link_kv._core.wire.calls import run
from link_kv._core.wire.exchange import Exchange, Namespace
from link_kv.errors import (
    AccessDenied,
    Closed,
    DeadlineExceeded,
    LeaseLost,
    LinkKVError,
    LockLost,
    NotFound,
    OutcomeUnknown,
    Unavailable,
)

log = logging.getLogger("link_kv.links")

_RETURN = 1.0
"""Seconds that a call which sets no timeout waits for a service that is gone to return."""
_GREET = 5.0
"""Seconds that a service has to answer to a new connection."""
_ASK = 5.0
"""Seconds that etcd has for a link that was lost."""
_UNLINK_AGAIN = 1.0
"""Seconds after which etcd, which did not answer, is told again that a link has ended."""
_PAUSES = (0.05, 0.1, 0.2, 0.5, 1.0)
"""Seconds between tries to connect."""

_numbers = itertools.count(1)


class Tether:
    """Thread-safe.

    Args:
        client: the id of the client.
        client_name: the name of the client.
        lease: gives the client's lease.
        notify: is called with the arguments and the keywords of each notification, in a thread of its own.
    """

    def __init__(
        self,
        space: Namespace,
        following: Following,
        options: LinkConfig,
        service: str,
        client: str,
        client_name: str,
        lease: Callable[[], int],
        notify: Callable[[Any, Any], object],
    ) -> None:
        self.service = service
        self.link = f"{client}-{next(_numbers)}"
        self.record: ServiceRecord
        """The service, as it was registered when the link was last connected."""
        self.tried: ServiceRecord | None = None
        """The service that was connected to, and did not answer."""
        self._space = space
        self._following = following
        self._options = options
        self._lease = lease
        self._pid = os.getpid()
        self._secret = secrets.token_hex(16)
        self._own = LinkRecord(client, client_name, registry.digest(self._secret))
        self._notifications = Notifications(service, notify)
        self._changed = threading.Condition()
        self._revision = 0
        """Of what this client wrote last."""
        self._line: Line | None = None
        self._refusal: LinkKVError | None = None
        """Why the link is not connected again, where that is final for now."""
        self._linking = threading.Lock()
        """Held by whoever writes the link's keys."""
        self._lost: LinkKVError | None = None
        """Why the link is not in the registry, since the lease that it had was lost."""
        self._connecting = False
        self._left = False
        self._closed = False
        self.locked = False
        """Whether this link has the service's lock."""
        self._lock_lost = False

    # Life

    def open(self, until: float) -> None:
        """Link. Raises `NotFound`, `LockRefused`, and `Unavailable`."""
        try:
            ex = self._exchange(until)
            state = run(registry.add_link(ex, self.service, self.link, self._own, self._lease()))
            self._revision = state.revision
            assert state.service is not None
            with self._changed:
                self._line = self._dial(state.service, until)
                self._watch(self._line)
        except BaseException as error:
            if self._revision or not isinstance(error, LinkKVError) or isinstance(error, OutcomeUnknown):
                self.unlink(_RETURN)  # it is there, or may be
            self.close()
            if isinstance(error, LeaseLost):
                raise Unavailable(
                    f"service {self.service}: this client is not registered at present, and tries to be again"
                ) from None
            raise

    def close(self) -> None:
        """Unlink. May be called twice; does nothing in a forked child."""
        if self._pid != os.getpid():
            return
        with self._changed:
            if self._closed:
                return
            self._closed = True
            line, self._line = self._line, None
            self._changed.notify_all()
        if line is not None:
            line.close()
        self._notifications.close()
        self._following.close()

    def unlink(self, timeout: float | None) -> None:
        """Take the link out of the registry, and close it."""
        if self._closed or self._pid != os.getpid():
            return
        self._left = True
        until = self._until(timeout)
        try:
            with self._writing(until):
                run(registry.remove_link(self._exchange(until), self.service, self.link))
        except Closed:
            log.debug("service %s: the link goes with its client", self.service)
        except Unavailable as error:
            log.warning("service %s: the link goes later, or with its lease: %s", self.service, error)
            threading.Thread(
                target=self._unlink_later, name=f"link-kv-unlink-{self.service}", daemon=True
            ).start()
        finally:
            self.close()

    def _unlink_later(self) -> None:
        """Unlink once etcd answers: a lock that the link holds would last as long as the client."""
        lease, pause = self._lease(), threading.Event()
        while self._lease() == lease:
            pause.wait(_UNLINK_AGAIN)
            try:
                run(registry.remove_link(Exchange(self._space), self.service, self.link))
                return
            except Unavailable:
                continue
            except LinkKVError as error:
                log.debug("service %s: is not unlinked: %s", self.service, error)  # as the client was closed
                return

    @contextlib.contextmanager
    def _writing(self, until: float) -> Iterator[None]:
        """Let nobody else write the link's keys meanwhile. Raises `DeadlineExceeded`."""
        if not self._linking.acquire(timeout=max(0.0, until - time.monotonic())):
            raise DeadlineExceeded(
                f"service {self.service}: etcd does not answer in time; nothing was written"
            )
        try:
            yield
        finally:
            self._linking.release()

    def register(self) -> None:
        """Link again, under another lease. When that is refused, `relink` is for later."""
        with self._linking:
            self._lock_lost = self._lock_lost or self.locked
            self.locked = False
            self._link_again()

    def relink(self) -> None:
        """Try what was refused before, once it may be done."""
        with self._linking:
            if self.returning:
                try:
                    self._link_again()
                except LinkKVError as error:
                    log.debug("service %s: not linked again yet: %s", self.service, error)

    def _link_again(self) -> None:
        if self._left or self._closed:
            return
        ex = self._exchange(time.monotonic() + _ASK)
        try:
            state = run(registry.add_link(ex, self.service, self.link, self._own, self._lease()))
        except (Unavailable, LeaseLost, Closed):
            raise
        except LinkKVError as error:
            before = self._lost
            with self._changed:
                self._lost = error
                self._changed.notify_all()
            self._following.stir()  # what it waits for may have come meanwhile
            if before is None:
                log.warning("a link was lost with its lease, and waits to be linked again: %s", error)
            return
        self._revision = state.revision
        if self._lost is None:
            return
        self.show(time.monotonic() + _RETURN)
        log.info("service %s: linked again", self.service)
        with self._changed:
            self._lost = None
            self._changed.notify_all()

    @property
    def returning(self) -> bool:
        """Whether the link was lost, and the service seems to take it again."""
        if self._lost is None or self._closed or not self._following.live:
            return False
        state = self._following.state
        return state.service is not None and state.refuses_link(self._own.client) is None

    @property
    def connected(self) -> bool:
        return self._usable() is not None

    def _usable(self) -> Line | None:
        """The connection, if calls can be made over it now."""
        line = self._line
        return line if line is not None and line.ended is None and self._lost is None else None

    @property
    def _refused(self) -> bool:
        """Whether the service is there and does not take the link that was lost."""
        return self._lost is not None and not isinstance(self._lost, NotFound)

    @property
    def closed(self) -> bool:
        return self._closed

    def _exchange(self, until: float) -> Exchange:
        ex = Exchange(self._space)
        ex.deadline = min(ex.deadline, until)
        return ex

    # Connecting

    def _dial(self, record: ServiceRecord, until: float) -> Line:
        """Connect, and wait until the service knows of the link."""
        tls = dialing(self._options, self.service, record)
        line = Line(
            self.service,
            record.address,
            record.token,
            self.link,
            self._secret,
            tls,
            self._options.read_limit,
            self._notifications.add,
        )
        try:
            self._sync(line, min(until, time.monotonic() + _GREET))
        except LinkKVError as error:
            # A token that is refused is that of the service before this one.
            why = line.ended or error
            self.tried = record
            line.close()
            raise Unavailable(self._told(why)) from None
        except BaseException:
            line.close()
            raise
        self.record = record
        return line

    def _sync(self, line: Line, until: float) -> None:
        """Let the service see what this client wrote last. Raises `Unavailable` when it does not in time."""
        while True:
            waiting = Waiting()
            number = line.send(Kind.SYNC, encode(self._revision, "revision"), waiting)
            if not waiting.wait(max(0.05, until - time.monotonic())):
                line.forget(number)
                raise Unavailable(f"service {self.service}: does not answer at {line.address}")
            if waiting.result():
                return
            if time.monotonic() >= until:
                raise Unavailable(f"service {self.service}: does not hear of its links from etcd in time")
            time.sleep(_PAUSES[0])  # one that has just lost its watch says so at once

    def show(self, until: float) -> None:
        """The same, as far as possible: a service that comes back reads the registry before it answers."""
        line = self._line
        if line is not None and line.ended is None:
            try:
                self._sync(line, until)
            except LinkKVError as error:
                log.debug("service %s: %s", self.service, error)

    def _watch(self, line: Line) -> None:
        """Connect again when this connection ends."""
        line.when_ended(self._again)

    def _again(self) -> None:
        with self._changed:
            if self._closed or self._connecting:
                return
            self._connecting = True
            self._refusal = None
        threading.Thread(target=self._reconnect, name=f"link-kv-relink-{self.service}", daemon=True).start()

    def _reconnect(self) -> None:
        line = None
        try:
            line = self._dial_until_connected()
        finally:
            with self._changed:
                self._connecting = False  # whatever was raised
                closed = self._closed
                if line is not None and not closed:
                    self._line = line
                    self._refusal = None
                    self._changed.notify_all()
        if line is not None:
            if closed:
                line.close()
            else:
                self._watch(line)

    def _dial_until_connected(self) -> Line | None:
        """A connection to the service as it is registered by then; None when the link was closed."""
        pauses = iter(_PAUSES)
        while not self._closed:
            if self._following.ended:
                break
            record = self._following.state.service
            if record is None:
                self._following.wait(lambda state: state.service is not None or self._closed, None)
                pauses = iter(_PAUSES)
                continue
            try:
                return self._dial(record, time.monotonic() + _GREET)
            except Exception as error:  # noqa: BLE001 - whatever it is, the service may be well again later
                if not isinstance(error, LinkKVError):
                    error = Unavailable(self._told(f"cannot be connected to: {error!r}"))
                with self._changed:
                    self._refusal = error
                log.debug("service %s: not connected again yet: %s", self.service, error)
                pause = next(pauses, _PAUSES[-1])
                self._following.wait(
                    lambda state, known=record: state.service != known or self._closed,  # type: ignore[misc]
                    pause,
                )
        return None

    def ready(self, until: float | None) -> Line:
        """The connection, once there is one. Raises why there is none."""
        with self._changed:
            left = _RETURN if until is None else max(0.0, until - time.monotonic())
            self._changed.wait_for(lambda: self._closed or self.connected or self._refused, left)
            if self._closed:
                raise Unavailable(f"service {self.service}: this client has unlinked")
            if self._refused:
                raise type(self._lost)(str(self._lost))  # type: ignore[misc]
            if (usable := self._usable()) is not None:
                return usable
            line = self._line
            error = self._refusal or (line.ended if line is not None else None) or self._lost
        if isinstance(error, AccessDenied):
            raise AccessDenied(str(error))
        gone = self._following.state.service is None
        raise Unavailable(self._told("is gone, and has not returned" if gone else error))

    def _told(self, why: object) -> str:
        """A message that names the service, once."""
        told = str(why)
        return told if told.startswith(f"service {self.service}: ") else f"service {self.service}: {told}"

    # Calling

    def call(
        self,
        kind: Kind,
        value: Any,
        what: str,
        timeout: float | None,
        before_error: Callable[[], object] | None = None,
    ) -> Any:
        """Send a call and wait for its answer.

        ``before_error`` is called before what the service answered instead of a result is raised.
        """
        if self._lock_lost or self._pid != os.getpid():
            self._complain()
        parts = encode(value, what)
        until = None if timeout is None else time.monotonic() + timeout
        waiting = Waiting()
        line, number = self._send(kind, parts, waiting, until)
        if not waiting.wait(None if until is None else until - time.monotonic()):
            line.forget(number)
            raise TimedOut(f"{what}: not answered within {timeout:g} s; it may still be carried out")
        if before_error is not None and waiting.error is not None:
            tell(before_error, waiting.error)
        return waiting.result()

    def _send(self, kind: Kind, parts: list[Buffer], waiter: Waiter, until: float | None) -> tuple[Line, int]:
        """Send over the connection that there is in time, and say which, and the number. Raises why not."""
        while True:
            line = self._usable() or self.ready(until)
            try:
                return line, line.send(kind, parts, waiter)
            except LinkKVError:
                continue  # it has just ended, and nothing was sent

    @property
    def outdated(self) -> bool:
        """Whether it is connected to what is the service no more: frozen, or cut off from etcd."""
        line, following = self._line, self._following
        if line is None or line.ended is not None or not following.live:
            return False
        record = following.state.service
        return record is None or record.token != line.token

    def let_go(self) -> None:
        """End the connection if it is outdated, so that whoever waits is told."""
        line = self._line
        if line is not None and self.outdated:
            line.fail(Unavailable(f"service {self.service}: is not registered any more"))

    def call_later(
        self, value: Any, what: str, timeout: float | None, before_error: Callable[[], object] | None
    ) -> Answer:
        """Send a call; the future of its answer."""
        if self._lock_lost or self._pid != os.getpid():
            self._complain()
        parts = encode(value, what)
        answer = Answer(before_error)
        until = None if timeout is None else time.monotonic() + timeout
        line, number = self._send(Kind.CALL, parts, answer, until)
        if timeout is not None:
            late = TimedOut(f"{what}: not answered within {timeout:g} s; it may still be carried out")
            BOUNDS.add(time.monotonic() + timeout, answer, lambda: line.give_up(number, late))
        return answer

    # Locks

    def lock(self, shared: bool, timeout: float | None) -> list[str]:
        """Acquire the lock; the names of the clients that are linked while it is there."""
        self._refuse_child()
        until = self._until(timeout)
        if self._lost is not None:
            self.ready(until)
        with self._writing(until):
            ex = self._exchange(until)
            state = run(registry.add_lock(ex, self.service, self.link, shared, self._lease()))
            self.locked, self._lock_lost = True, False
            self._revision = state.revision
        self.show(until)  # before anybody relies on it
        return state.linked()

    def unlock(self, timeout: float | None) -> list[str]:
        """Release the lock; the names of the clients that still hold one."""
        self._refuse_child()
        until = self._until(timeout)
        with self._writing(until):
            state = run(registry.remove_lock(self._exchange(until), self.service, self.link))
            self.locked = self._lock_lost = False
            self._revision = state.revision
        self.show(until)  # before anybody relies on it
        return state.holders()

    def _until(self, timeout: float | None) -> float:
        return time.monotonic() + (self._options.config.timeout if timeout is None else timeout)

    def _refuse_child(self) -> None:
        if self._pid != os.getpid():
            raise Unavailable(
                f"service {self.service}: the link is that of the process that this one was forked from; "
                "connect here"
            )

    def _complain(self) -> None:
        """Raise why nothing is called."""
        self._refuse_child()
        raise LockLost(
            f"service {self.service}: the lock was lost, since etcd did not hear of this client in time; "
            "acquire it again, or release it"
        )
