"""Requests to endpoints, whichever services answer for them: `Endpoints`.

    endpoints = Endpoints(client)
    endpoints.get('foo')                      # {'value_raw': 1.75, 'value_cal': 5.25}
    endpoints.set('node.kv.foo', 1.79)

Endpoints are what `link_kv.endpoints` serves. The values themselves are items, which `link_kv.get` gives.
"""

from __future__ import annotations

import os
import threading
import uuid
import weakref
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from link_kv._core import endpoint_names, replies
from link_kv._core.calls import run
from link_kv._core.endpoint_names import Found, Served
from link_kv._core.link_config import LinkConfig
from link_kv._core.replies import TIMEOUT, Reply
from link_kv._core.return_codes import error, return_codes
from link_kv.errors import Closed, Conflict, DeadlineExceeded, NotFound
from link_kv.links import Client, Link
from link_kv.middleware import EtcdMiddleware
from link_kv.tree import MISSING

if TYPE_CHECKING:
    from link_kv.item import Item

__all__ = ["Endpoints"]

_TRIES = 1000
"""How often an item may move while it is to be changed."""


class Endpoints:
    """Sends requests to endpoints by their names, over links that it keeps.

    Args:
        client: where etcd is, and what all names lie below.
        name: what services are told of who asks.

    An endpoint is addressed as ``foo``, ``provider.foo`` or ``node.provider.foo``, or by the path of its
    item. Behind it an attribute or a method may stand, ``foo.schedule_interval``. Every call takes:

    - ``lockout_key``: the key that `lock` gave; False for none.
    - ``timeout``: seconds for the answer; 10 by default.
    - ``ignore_retcode``: return the payload though the return code says that the request failed, rather than
      raise its exception, a `ReplyError`.

    Raises `NotFound` for an address that is none, and what links raise: `Unavailable` when the service does
    not answer, `OutcomeUnknown` when the answer is lost. Thread-safe. A context manager that closes the
    links. A service that is gone is found again when it is back.
    """

    def __init__(self, client: EtcdMiddleware, name: str = "Endpoints") -> None:
        self._client = client
        self._name = name
        self._lock = threading.Lock()
        self._connection: Client | None = None
        self._links: dict[str, Link] = {}
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
        except DeadlineExceeded as late:
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
            self._link(service, TIMEOUT)

    def _link(self, service: str, timeout: float) -> Link:
        with self._lock:
            if self._closed:
                raise Closed("the links to endpoints were closed")
            link = self._links.get(service)
            if link is not None:
                return link
            if self._connection is None:
                connection = Client(self._name)
                connection._open(LinkConfig(self._client._config))
                self._connection = connection
            link = self._connection.link(service, timeout=timeout)
            if self._notify is not None:
                handler = self._notify
                link.notification_handler = lambda *args, **kwargs: handler(service, *args, **kwargs)  # type: ignore[method-assign]
            self._links[service] = link
            return link

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

    def refresh(self, item: Item, service: str, endpoint: str) -> Any:
        """The value of an item, asked afresh by its service."""
        reply = self._ask(service, endpoint, "get", {})
        if "value_raw" not in reply.payload:
            reply.result()
        self._seen(item, reply)
        return reply.payload.get("value_raw")

    def write(self, item: Item, value: Any, service: str, endpoint: str) -> None:
        """Have an item's value set by its service; return once the item shows it."""
        reply = self._ask(service, endpoint, "set", {"values": [value]})
        reply.result()
        self._seen(item, reply)

    def change(self, item: Item, change: Callable[[Any], Any], service: str, endpoint: str) -> None:
        """Have an item's value replaced by its service, by what a function makes of it; atomically."""
        moved = return_codes["warning_no_action_taken"].code
        for _ in range(_TRIES):
            try:
                entry = self._client.entry(item.path)
                value, revision = entry.value, entry.revision
            except NotFound:
                value, revision = MISSING, 0
            reply = self._ask(service, endpoint, "set", {"values": [change(value)], "if_revision": revision})
            if reply.return_code != moved:
                reply.result()
                self._seen(item, reply)
                return
        raise Conflict(f"{item.path}: it moved {_TRIES} times while it was to be changed")

    def _seen(self, item: Item, reply: Reply) -> None:
        feed = item.store._feed
        if feed is not None and reply.revision:
            feed.hub.wait(lambda: item.revision >= reply.revision or feed.state != "live", 1.0)


# One for each client

_turn = threading.Lock()
_of: weakref.WeakKeyDictionary[EtcdMiddleware, dict[int, Endpoints]] = weakref.WeakKeyDictionary()


def endpoints_of(client: EtcdMiddleware) -> Endpoints:
    """The links that a client's items share; closed with the client."""
    with _turn:
        by_process = _of.setdefault(client, {})
        found = by_process.get(os.getpid())
        if found is None:
            found = by_process[os.getpid()] = Endpoints(client, "Item")
            client._at_close.append(found.close)
        return found
