"""Requests to endpoints, whichever services answer for them: `Endpoints`.

    endpoints = Endpoints(client)
    endpoints.get('foo')                      # {'value_raw': 1.75, 'value_cal': 5.25}
    endpoints.set('node.kv.foo', 1.79)

Endpoints are what `link_kv.endpoints` serves. The values themselves are items, which `link_kv.get` gives.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from link_kv._core.endpoints import alerts, replies
from link_kv._core.endpoints import names as endpoint_names
from link_kv._core.endpoints.alerts import Alert
from link_kv._core.endpoints.names import Found, Served
from link_kv._core.endpoints.replies import TIMEOUT, Reply
from link_kv._core.endpoints.return_codes import error, return_codes
from link_kv._core.links.config import LinkConfig
from link_kv._core.links.wire_link import TimedOut
from link_kv._core.wire.calls import run
from link_kv.errors import (
    AccessDenied,
    Closed,
    Conflict,
    DeadlineExceeded,
    LinkKVError,
    LockLost,
    LockRefused,
    NotFound,
    Unavailable,
)
from link_kv.links import Client, Link
from link_kv.live import hub_of
from link_kv.middleware import EtcdMiddleware
from link_kv.tree import MISSING, Place

if TYPE_CHECKING:
    from link_kv.item import Item

__all__ = ["Alerts", "Endpoints"]

log = logging.getLogger("link_kv.endpoints")

_TRIES = 1000
"""How often an item may move while it is to be changed."""
_AGAIN = 1.0
"""Seconds after which a service that refused a link is asked again."""
_PATIENCE = 1.0
"""Seconds that a set waits at most for the item to show what the service wrote."""


class Endpoints:
    """Sends requests to endpoints by their names, over links that it keeps.

    Args:
        client: where etcd is, and what all names lie below.
        name: what services are told of who asks.
        disable_tls: speak plaintext with services on other machines too, where they do.

    An endpoint is addressed as ``foo``, ``provider.foo`` or ``node.provider.foo``, or by the path of its
    item. Behind it an attribute or a method may stand, ``foo.schedule_interval``. Requests take:

    - ``timeout``: seconds for the answer; 10 by default.
    - ``lockout_key``, where the request may change something: the key that `lock` gave; False for none.
    - ``ignore_retcode``, where they return the payload: return it though the return code says that the
      request failed, rather than raise its exception, a `ReplyError`.

    Raises `NotFound` for an address that is none, and what links raise: `Unavailable` when the service cannot
    be reached, `OutcomeUnknown` when the answer is lost. An answer that does not come within ``timeout`` is
    the error of code 404, which is an `OutcomeUnknown` and a `DeadlineExceeded`: the endpoint may still carry
    the request out. A `get` raises the same, though it changes nothing. Thread-safe. A context manager that
    closes the links. A service that is gone is found again when it is back.
    """

    def __init__(self, client: EtcdMiddleware, name: str = "Endpoints", *, disable_tls: bool = False) -> None:
        self._client = client
        self._disable_tls = disable_tls
        self._name = name
        self._lock = threading.Lock()
        self._connection: Client | None = None
        self._links: dict[str, Link] = {}
        self._turns: dict[str, threading.Lock] = {}
        """Held while linking with a service: one that does not answer keeps no others waiting."""
        self._notify: Callable[..., object] | None = None
        self._closed = False

    # Requests

    def get(
        self, target: str, *values: Any, timeout: float | None = None, ignore_retcode: bool = False
    ) -> Any:
        """The value: ``{'value_raw': …}``, and ``value_cal`` where there is a calibration; asked afresh."""
        return self.request("get", target, {"values": values}, False, timeout).result(ignore_retcode)

    def set(
        self,
        target: str,
        value: Any,
        lockout_key: str | bool = False,
        timeout: float | None = None,
        ignore_retcode: bool = False,
    ) -> Any:
        """Set the value; what the endpoint has to say to that."""
        request = {"values": [value]}
        return self.request("set", target, request, lockout_key, timeout).result(ignore_retcode)

    def cmd(
        self,
        target: str,
        method_name: str,
        value: Any = (),
        payload: Mapping[str, Any] | None = None,
        lockout_key: str | bool = False,
        timeout: float | None = None,
        ignore_retcode: bool = False,
    ) -> Any:
        """Call a method that may be called from elsewhere, with positional arguments and keywords."""
        values = list(value) if isinstance(value, (list, tuple)) else [value]
        request = {**(payload or {}), "values": [method_name, *values]}
        return self.request("cmd", target, request, lockout_key, timeout).result(ignore_retcode)

    def config(
        self,
        target: str,
        attribute: str,
        value: Any = None,
        lockout_key: str | bool = False,
        timeout: float | None = None,
        ignore_retcode: bool = False,
    ) -> Any:
        """Read an attribute, or with a value set it."""
        values = [attribute] if value is None else [attribute, value]
        request = {"values": values}
        return self.request("config", target, request, lockout_key, timeout).result(ignore_retcode)

    def send(
        self,
        target: str,
        *commands: Any,
        lockout_key: str | bool = False,
        timeout: float | None = None,
        ignore_retcode: bool = False,
    ) -> Any:
        """Have commands passed on to the hardware."""
        request = {"values": commands}
        return self.request("send", target, request, lockout_key, timeout).result(ignore_retcode)

    def ping(self, target: str, timeout: float | None = None) -> None:
        """Raise unless the endpoint answers."""
        self.cmd(target, "ping", timeout=timeout)

    def lock(
        self,
        target: str,
        lockout_key: str | bool = False,
        timeout: float | None = None,
    ) -> str:
        """Let an endpoint accept changes only with a key: the one given, or a new one; the key."""
        values = [lockout_key] if lockout_key else []
        found = self.cmd(target, "lock", values, None, lockout_key, timeout)
        return str(found["key"])

    def unlock(
        self,
        target: str,
        lockout_key: str | bool = False,
        force: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Let an endpoint accept changes from everybody. Needs the key, or ``force=True``."""
        payload = {"force": True} if force else None
        self.cmd(target, "unlock", (), payload, lockout_key, timeout)

    def broadcast(
        self,
        method_name: str,
        value: Any = (),
        payload: Mapping[str, Any] | None = None,
        lockout_key: str | bool = False,
        timeout: float | None = None,
    ) -> dict[str, Reply]:
        """Call a method of all providers, such as ``ping``, ``lock`` with a key, ``unlock`` or
        ``set_condition``; the replies by provider.

        One that fails does not keep the others from being called: its reply says why.
        """
        values = list(value) if isinstance(value, (list, tuple)) else [value]
        request = {**(payload or {}), "values": [method_name, *values]}
        found: dict[str, Reply] = {}
        for service in sorted({served.service for served in self.served()}):
            try:
                found[service] = self._ask(service, "", "cmd", request, lockout_key, timeout)
            except LinkKVError as raised:
                found[service] = replies.failed(raised)
        return found

    def request(
        self,
        operation: str,
        target: str,
        payload: Mapping[str, Any] | None = None,
        lockout_key: str | bool = False,
        timeout: float | None = None,
    ) -> Reply:
        """Send a request, and return the reply, whatever its return code."""
        found = self.find(target)
        request = dict(payload or {})
        if found.specifier:
            request["specifier"] = found.specifier
        return self._ask(found.service, found.endpoint, operation, request, lockout_key, timeout)

    def _ask(
        self,
        service: str,
        endpoint: str,
        operation: str,
        request: Mapping[str, Any],
        lockout_key: str | bool = False,
        timeout: float | None = None,
    ) -> Reply:
        about = {"message_id": str(uuid.uuid4())}
        if lockout_key:
            about["lockout_key"] = str(lockout_key)
        seconds = TIMEOUT if timeout is None else timeout
        link = self._link(service, seconds)
        try:
            answer = link.handle_request(operation, endpoint, dict(request), about, timeout=seconds)
        except TimedOut as late:
            raise error("client_error_timeout", str(late)) from None
        except AttributeError:
            # Unlinked by another thread meanwhile, or a service that has no endpoints.
            raise NotFound(f"{endpoint}: the service {service} has no endpoints") from None
        return replies.read(answer)

    # Who there is

    def served(self) -> list[Served]:
        """All endpoints that are served now."""
        return run(endpoint_names.everything(self._client._exchange()))

    def find(self, target: str) -> Found:
        """What an address names. Raises `NotFound`, and `LinkKVError` when it names two things."""
        return endpoint_names.resolve(target, self.served())

    # Links

    def listen(self, handler: Callable[..., object], services: Iterable[str]) -> None:
        """Have a handler called with what these services notify: the name, and what came."""
        self._notify = handler
        for service in services:
            self._hear(self._link(service, TIMEOUT))

    def _link(self, service: str, timeout: float) -> Link:
        with self._lock:
            link = self._known(service)
            if link is not None:
                return link
            if self._connection is None:
                connection = Client(self._name)
                connection._open(LinkConfig(self._client._config, self._disable_tls))
                self._connection = connection
            connection = self._connection
            turn = self._turns.setdefault(service, threading.Lock())
        if not turn.acquire(timeout=timeout):
            raise DeadlineExceeded(f"service {service}: there was no link within {timeout:g} s")
        try:
            with self._lock:
                link = self._known(service)
            if link is not None:
                return link
            link = connection.link(service, timeout=timeout)
            self._hear(link)
            with self._lock:
                self._known(service)
                self._links[service] = link
            return link
        finally:
            turn.release()

    def _hear(self, link: Link) -> None:
        handler, service = self._notify, link.service_name
        if handler is not None:
            link.notification_handler = lambda *args, **kwargs: handler(service, *args, **kwargs)  # type: ignore[method-assign]

    def _known(self, service: str) -> Link | None:
        if self._closed:
            raise Closed("the links to endpoints were closed")
        return self._links.get(service)

    def forget(self, service: str) -> None:
        """Unlink from a service."""
        with self._lock:
            link = self._links.pop(service, None)
        if link is not None:
            with contextlib.suppress(LinkKVError):  # its link goes with the lease of this client
                link.unlink(1.0)

    def close(self) -> None:
        """Unlink from all services. May be called twice."""
        with self._lock:
            self._closed = True
            connection, self._connection = self._connection, None
            self._links.clear()
        if connection is not None:
            connection.disconnect()

    def __enter__(self) -> Endpoints:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # For items that are served

    def _refresh(self, item: Item, service: str, endpoint: str) -> Any:
        """The value of an item, asked afresh by its service."""
        reply = self._ask(service, endpoint, "get", {})
        if "value_raw" not in reply.payload:
            reply.result()
        self._seen(item, reply)
        return reply.payload.get("value_raw")

    def _write(self, item: Item, value: Any, service: str, endpoint: str) -> None:
        """Have an item's value set by its service; return once the item shows it, or `_PATIENCE` is over."""
        reply = self._ask(service, endpoint, "set", {"values": [value], **_held(item)})
        _check_lock(item, reply)
        reply.result()
        self._seen(item, reply)

    def _change(self, item: Item, change: Callable[[Any], Any], service: str, endpoint: str) -> None:
        """Have an item's value replaced by its service, by what a function makes of it; atomically."""
        moved = return_codes["warning_no_action_taken"].code
        for _ in range(_TRIES):
            try:
                entry = self._client.entry(item.path)
                value, revision = entry.value, entry.revision
            except NotFound:
                value, revision = MISSING, 0
            request = {"values": [change(value)], "if_revision": revision, **_held(item)}
            reply = self._ask(service, endpoint, "set", request)
            _check_lock(item, reply)
            if reply.return_code != moved:
                reply.result()
                self._seen(item, reply)
                return
        raise Conflict(f"{item.path}: it moved {_TRIES} times while it was to be changed")

    def _seen(self, item: Item, reply: Reply) -> None:
        feed = item.store._feed
        if feed is not None and reply.revision:
            feed.hub.wait(lambda: item.revision >= reply.revision or feed.state != "live", _PATIENCE)


def _held(item: Item) -> dict[str, Any]:
    """What a service is to compare before it sets an item that was got under locks. Raises `LockLost` when
    one is known to be lost.
    """
    space = item.store.client._space
    if why := space.lost:
        raise LockLost(f"{item.path}: {why}; nothing was set")
    fences = space.fences
    return {"if_held": [[fence.key, fence.created, fence.name] for fence in fences]} if fences else {}


def _check_lock(item: Item, reply: Reply) -> None:
    if "lost" in reply.payload:
        raise LockLost(f"{item.path}: {reply.return_message}")


class Alerts:
    """The alerts of all endpoints, as their services notify; an iterator that waits for the next.

    Args:
        client: where etcd is.
        patterns: routing keys; ``*`` and ``#`` stand for anything.
        on_service: called as ``on_service(name, state)`` when a service is ``heard``, is ``gone``, or is
            ``refused``, as when it is locked or takes no more clients; it is tried again then.

    Services are followed: those that come later are heard too. What a service tells while nobody is linked is
    not told again; the newest of each routing key is in etcd, at ``/.link/alerts``. A context manager that
    closes it. One thread iterates; `close` may be called from any.
    """

    def __init__(
        self,
        client: EtcdMiddleware,
        patterns: Iterable[str] = ("*",),
        on_service: Callable[[str, str], object] = lambda name, state: None,
    ) -> None:
        self._patterns = tuple(patterns)
        self._on_service = on_service
        self._queue: queue.SimpleQueue[Alert | Exception | None] = queue.SimpleQueue()
        self._endpoints = Endpoints(client, "Alerts")
        self._endpoints._notify = self._hear
        self._closed = threading.Event()
        self._hub = hub_of(client)
        path = "/.link/endpoints"
        at = Place(path, client._space.prefix + path.encode(), client._space.prefix, (".link", "endpoints"))
        self._feed = self._hub.mirror(at)
        self._heard: dict[str, str] = {}
        self._seen = 0
        """The revision that was looked at last."""
        self._thread = threading.Thread(target=self._follow, name="link-kv-alerts", daemon=True)
        self._look()
        self._thread.start()

    @property
    def services(self) -> list[str]:
        """The services that are heard now."""
        return sorted(name for name, state in self._heard.items() if state == "heard")

    def _look(self) -> None:
        """Link with services that have come, and forget those that have gone."""
        with self._hub.changed:
            self._seen = self._feed.replica.revision
            kvs = self._feed.replica.all()
        there = {served.service for _, held in kvs if (served := endpoint_names.read(held.value)) is not None}
        for name in sorted(there):
            if self._heard.get(name) != "heard":
                self._tell(name, self._link(name))
        for name in [name for name, state in self._heard.items() if state != "gone" and name not in there]:
            self._endpoints.forget(name)
            self._tell(name, "gone")

    def _link(self, name: str) -> str:
        try:
            self._endpoints._link(name, TIMEOUT)
        except (LockRefused, AccessDenied):
            return "refused"
        except (NotFound, Unavailable):
            return "gone"  # it is ending, or not there yet
        return "heard"

    def _tell(self, name: str, state: str) -> None:
        if self._heard.get(name) != state:
            self._heard[name] = state
            try:
                self._on_service(name, state)
            except Exception:
                log.exception("what is called when a service is heard, or gone, raised for %s", name)

    def _follow(self) -> None:
        try:
            while not self._closed.is_set():
                patient = None if all(state == "heard" for state in self._heard.values()) else _AGAIN
                self._hub.wait(
                    lambda: (
                        self._closed.is_set()
                        or self._feed.replica.revision != self._seen
                        or self._feed.error is not None
                    ),
                    patient,
                )
                if self._feed.error is not None:
                    raise self._feed.error
                if not self._closed.is_set():
                    self._look()
        except Exception as raised:  # noqa: BLE001 - it is raised where the alerts are taken
            if not self._closed.is_set():
                self._queue.put(raised)

    def _hear(self, service: str, *args: Any, **kwargs: Any) -> None:
        alert = alerts.read(args[1]) if len(args) == 2 else None
        if alert is not None and any(alerts.matches(alert.routing_key, each) for each in self._patterns):
            self._queue.put(alert)

    def next(self, timeout: float | None = None) -> Alert | None:
        """The next alert; None when none has come within ``timeout`` seconds, or it was closed.

        Raises what ended the following, such as `AccessDenied`. While etcd or a service is away none come
        from there.
        """
        try:
            found = self._queue.get(timeout=timeout)
        except queue.Empty:
            return None
        if found is None or isinstance(found, Exception):
            self._queue.put(found)  # for who asks again
        if isinstance(found, Exception):
            raise found
        return found

    def __iter__(self) -> Alerts:
        return self

    def __next__(self) -> Alert:
        found = self.next()
        if found is None:
            raise StopIteration
        return found

    def close(self) -> None:
        """Listen no more. May be called twice."""
        if self._closed.is_set():
            return
        with self._hub.changed:
            self._closed.set()
            self._hub.unmirror(self._feed)
            self._hub.changed.notify_all()
        self._queue.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join()
        self._endpoints.close()

    def __enter__(self) -> Alerts:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


# One for each connection


def endpoints_of(client: EtcdMiddleware) -> Endpoints:
    """The links that a client's items share, also with those of its locks; closed with the client."""
    pid = os.getpid()
    found: Endpoints | None = client._endpoints.get(pid)
    if found is None:
        # Of two threads that make one, both take the first's; one that is not used has started nothing.
        new = Endpoints(client, "Item")
        found = client._endpoints.setdefault(pid, new)
        if found is new:
            client._at_close.append(found.close)
    return found
