"""Services: programs whose methods other programs call.

Subclass `Service`, and `start` it. Its public methods, properties and constants can then be called by every
program that links with it (`link_kv.links.connect`), wherever on the network that is. etcd knows where it
is and who is linked; calls go to it directly.
"""

from __future__ import annotations

import atexit
import contextlib
import contextvars
import inspect
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any

from link_kv._core.leasing.presence import Presence
from link_kv._core.links import registry
from link_kv._core.links.config import (
    LinkConfig,
    check_keywords,
    listening,
    logged_in,
    settle,
    with_certificate,
)
from link_kv._core.links.direct import Listener
from link_kv._core.links.following import Following
from link_kv._core.links.registry import ServiceRecord, State
from link_kv._core.links.wire_server import Caller, Host, Request
from link_kv._core.living import Living
from link_kv._core.wire.calls import run
from link_kv.errors import AccessDenied, Closed, ConfigError, Unavailable
from link_kv.live import hub_of
from link_kv.middleware import EtcdMiddleware
from link_kv.sessions import new_lease

__all__ = ["Caller", "Request", "Service", "run_services"]

log = logging.getLogger("link_kv.services")

LISTEN = "127.0.0.1:0"

_GRACE = 5.0
"""Seconds that calls under way have to end, when a service stops."""
_CATCH_UP = 1.0
"""Seconds that a service waits for its watch to show what a client has written."""

_CONNECT: dict[str, Any] = {
    "host": "localhost",
    "port": 2379,
    "timeout": 10,
    "username": None,
    "password": None,
    "password_manager": None,
    "read_limit": None,
    "disable_tls": False,
    "cert_file": None,
    "assert_hostname": True,
    "auto_save": False,
    "endpoints": None,
}
_SERVE: dict[str, Any] = {"listen": LISTEN, "advertise": None, "cert_cert": None, "cert_key": None, "ttl": 10}

_request: contextvars.ContextVar[Request | None] = contextvars.ContextVar("link_kv.request", default=None)


def current_request() -> Request | None:
    """What is being answered in this thread or task; None outside of a call."""
    return _request.get()


@contextlib.contextmanager
def answering(request: Request) -> Iterator[None]:
    """Let `current_request` tell of a request meanwhile."""
    token = _request.set(request)
    try:
        yield
    finally:
        _request.reset(token)


class Service:
    """A program whose public methods, properties and constants others can call.

    Args:
        name: what it is found by; the name of the class when None.
        max_clients: how many clients may be linked at a time; None, 0 or less for any number.
        ignore_attributes: names that are not shown to clients; they can be called all the same.

    What begins with an underscore cannot be called, nor can what this class itself has. Methods are called by
    several threads, as many as there are calls at the same time. Arguments and results are JSON types,
    ``bytes``, numpy arrays, and objects with a ``to_json`` method; a tuple arrives as a list. What a method
    raises reaches its caller, traceback and all, as `link_kv.RemoteError`.

    A subclass may define ``shutdown_service(*args, **kwargs)``: then clients can end the service; what it
    returns is their answer.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        max_clients: int | None = None,
        ignore_attributes: Iterable[str] = (),
    ) -> None:
        if isinstance(ignore_attributes, str):
            raise ConfigError("ignore_attributes: give a list of names")
        if name is not None and (not isinstance(name, str) or not name):
            raise ConfigError(f"name={name!r}: a service's name is a str that is not empty")
        if max_clients is not None and (isinstance(max_clients, bool) or not isinstance(max_clients, int)):
            raise ConfigError(f"max_clients={max_clients!r}: a number of clients, or None for any number")
        self._name = type(self).__name__ if name is None else name
        self._max_clients = max(0, max_clients or 0)
        self._ignored = frozenset(ignore_attributes)
        self._serving: _Serving | None = None
        self._starting = threading.Lock()

    # Life

    def start(self, **kwargs: Any) -> None:
        """Register, and answer calls until the service is stopped. Blocks.

        Takes the keywords of `link_kv.links.connect`, where a ``name`` does nothing, and these:

        Args:
            listen: where to listen for clients, ``'host'`` or ``'host:port'``; ``'127.0.0.1:0'``, a free
                port for this machine alone, by default. Off loopback the service needs a certificate, or
                ``disable_tls=True``.
            advertise: the address that clients are told; what it listens at by default.
            cert_cert, cert_key: files with the certificate to serve with and its key, in PEM form. By default
                those of the settings; then, where these have a ``ca_cert`` too, clients need a certificate.
            ttl: seconds after which etcd forgets the service, when nothing is heard of this process.

        Ends at Ctrl-C, which it raises; at `stop`; and when a client calls `shutdown_service`. Raises
        `KeyExists` while another service has the name, `Unavailable` (a ConnectionError) when etcd does not
        answer, `AccessDenied`, `ConfigError`, and TypeError for a keyword that is not known.
        """
        self._begin(kwargs)
        try:
            until_over(self)
        finally:
            self.stop()

    def start_in_thread(self, **kwargs: Any) -> None:
        """The same, but it returns once the service is registered. End it with `stop`, or at the end of a
        ``with``.

        With the end of the program it ends too.
        """
        self._begin(kwargs)

    def stop(self) -> None:
        """Take no more calls, answer those under way, for 5 s at most, and leave the registry. May be
        called twice.

        Thread-safe. When a method of the service itself calls this, the stopping happens behind its back,
        and its answer is sent first.
        """
        self._halt()

    def _end(self) -> None:
        """Stop, from within."""
        self.stop()

    def _end_once_started(self) -> None:
        with (
            self._starting
        ):  # a call may come before whoever starts the service is told that it is registered
            pass
        self._end()

    def _halt(self) -> None:
        if _request.get() is not None:
            threading.Thread(target=self._end_once_started, name="link-kv-stop", daemon=True).start()
            return
        serving = self._serving
        if serving is None or serving.pid != os.getpid():
            return
        serving.close()
        with serving.telling:
            if not serving.told:
                serving.told = True
                try:
                    self.shutdown_handler()
                except Exception:
                    log.exception("service %s: its shutdown_handler raised", self._name)

    def shutdown_handler(self) -> None:
        """Is called once the service has ended, for subclasses to override."""

    def __enter__(self) -> Service:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _begin(self, kwargs: dict[str, Any]) -> _Serving:
        check_keywords(kwargs, (*_CONNECT, *_SERVE, "name"), f"{type(self).__name__}.start")
        connect = {**_CONNECT, **{name: value for name, value in kwargs.items() if name in _CONNECT}}
        serve = {**_SERVE, **{name: value for name, value in kwargs.items() if name in _SERVE}}
        options = with_certificate(self._settle(connect), serve["cert_cert"], serve["cert_key"])
        with self._starting:
            if self._serving is not None and not self._serving.over.is_set():
                raise Closed(f"service {self._name}: is running already")
            atexit.unregister(_stop_all)
            atexit.register(_stop_all)  # before what it needs is gone
            _running.add(self)

            def begin(options: LinkConfig) -> None:
                self._serving = _Serving(self, options, serve["listen"], serve["advertise"], serve["ttl"])

            logged_in(options, begin)
            assert self._serving is not None
            return self._serving

    def _settle(self, connect: dict[str, Any]) -> LinkConfig:
        return settle(**connect)

    # Telling

    def emit_notification(self, *args: Any, **kwargs: Any) -> None:
        """Call the ``notification_handler`` of every link there is. From any thread; does not wait for them.

        Raises `EncodeError`. Before the service is started and after it has ended, nobody is linked. A
        client that does not take its notifications is unlinked when 64 MiB wait for it.
        """
        serving = self._serving
        if serving is not None:
            serving.host.notify(args, kwargs)

    # What it is

    @property
    def name(self) -> str:
        """What the service is found by."""
        return self._name

    @property
    def max_clients(self) -> int:
        """How many clients may be linked at a time; 0 for any number."""
        return self._max_clients

    @property
    def address(self) -> str:
        """``host:port``, where clients find it. Raises `Closed` while it is not running."""
        serving = self._serving
        if serving is None or serving.over.is_set():
            raise Closed(f"service {self._name}: is not running")
        return serving.record.address

    @property
    def request(self) -> Request | None:
        """What is being answered in this thread, and who asked; None outside of a call."""
        return current_request()

    def __repr__(self) -> str:
        serving = self._serving
        where = "not running" if serving is None or serving.over.is_set() else f"at {serving.record.address}"
        return f"<{type(self).__name__} service {self._name!r} {where}>"

    # Answering: what subclasses override whose attributes are not Python's

    def answer_request(self, request: Request) -> Any:
        """Answer a call. The one entrance for all of them, after links and locks were checked.

        Override it to answer for attributes that are no attributes of this object, together with
        `has_attribute` and `describe_attributes`. Raises `AccessDenied` for private names.
        """
        name = request.attribute
        if name == "shutdown_service":
            found = getattr(self, name, None)
            if not callable(found):
                raise AttributeError(
                    f"{type(self).__name__} defines no shutdown_service, so clients cannot end it"
                )
            try:
                return found(*request.args, **request.kwargs)
            finally:
                self._end()
        _refuse_private(self._name, name)
        found = getattr(self, name)
        if callable(found):
            return found(*request.args, **request.kwargs)
        if request.args or request.kwargs:
            raise TypeError(f"{name} is a value, and takes no arguments")
        return found

    def has_attribute(self, name: str) -> bool:
        """Whether a client that has this name may be told that there is such a thing."""
        return (name not in _OWN and hasattr(type(self), name)) or name in vars(self)

    def describe_attributes(self) -> dict[str, str]:
        """What the registry tells: signatures of methods and reprs of values, by name. Read once, at the
        start.
        """
        found: dict[str, str] = {}
        for name in dir(self):
            if name.startswith("_") or name in _OWN or name in self._ignored:
                continue
            static = inspect.getattr_static(self, name)
            try:
                value = getattr(self, name)
                found[name] = str(inspect.signature(value)) if callable(value) else repr(value)
            except Exception as error:  # noqa: BLE001 - a property may need what is not there yet
                if not isinstance(static, property):
                    log.debug("service %s: %s has no signature: %s", self._name, name, error)
                found[name] = "(...)" if callable(static) else "..."
        return found

    def _answer(self, request: Request) -> Any:
        with answering(request):
            return self.answer_request(request)


_running: Living[Service] = Living()


def _stop_all() -> None:
    """At the end of the interpreter: leave the registry, rather than expire there."""
    for service in _running:
        service._end()


_OWN = frozenset(dir(Service)) | {"shutdown_service"}


def _refuse_private(service: str, name: str) -> None:
    if name.startswith("_") or name in _OWN:
        raise AccessDenied(f"service {service}: {name} is private")


class _Serving:
    """One run of a service."""

    def __init__(
        self, service: Service, options: LinkConfig, listen: str, advertise: str | None, ttl: float
    ) -> None:
        self.over = threading.Event()
        self.pid = os.getpid()
        self.told = False
        self.telling = threading.RLock()
        """Held while the handler runs: who else stops the service, and may end the program then, waits for
        it. The handler itself may stop the service too.
        """
        self._presence: Presence | None = None
        """None while it is being registered."""
        self.when_over: Callable[[], object] = bool
        """Is called once it is over."""
        self._name = service.name
        self._closing = threading.Lock()
        bind = _with_port(listen)
        tls = listening(options, bind)
        self._client: EtcdMiddleware = EtcdMiddleware._of(options.config)
        try:
            at = registry.service_place(self._client._space, self._name)
            token = secrets.token_hex(16)
            self.host = Host(
                self._name,
                token,
                self._check,
                service._answer,
                service.has_attribute,
                self._sync,
                options.read_limit,
            )
            self._following = Following(hub_of(self._client), at, self._name)
            self._listener = Listener(bind, self.host.accept, tls)
            try:
                self.record = ServiceRecord(
                    advertise or f"{_host(bind)}:{self._listener.port}",
                    token,
                    service.describe_attributes(),
                    service.max_clients,
                    "" if tls is None else "server" if tls.authority is None else "mutual",
                    machine=registry.here(),
                )
                self._presence = Presence(
                    f"service {self._name}", lambda: new_lease(self._client, ttl), self._register
                )
                self._sync(self._registered)
            except BaseException:
                self._listener.close(0)
                raise
        except BaseException:
            self._client.close()
            raise

    def _register(self, lease: int) -> None:
        ex = self._client._exchange()
        self._registered = run(registry.register_service(ex, self._name, self.record, lease))

    def _sync(self, revision: int) -> bool:
        return self._following.shows(revision, _CATCH_UP)

    def _check(self, link: str, secret: str) -> tuple[str, str]:
        if self._presence is not None and not self._presence.alive:
            raise Unavailable(
                f"service {self._name}: is not registered at present, since etcd did not hear of it"
            )
        state: State = self._following.state
        refusal = state.refuses_call(link, registry.digest(secret))
        if refusal is not None:
            raise refusal
        record = state.links[link]
        return record.client, record.name

    def close(self) -> None:
        with self._closing:
            if self.over.is_set():
                return
            until = time.monotonic() + _GRACE
            self.host.close(_GRACE)
            # Before the registration goes: clients soon leave a service that is not registered.
            self._listener.close(max(1.0, until - time.monotonic()))
            assert self._presence is not None
            self._presence.close()
            self._following.close()
            self._client.close()
            self.over.set()
            self.when_over()


def _with_port(listen: str) -> str:
    """``host:port``, with brackets around an IPv6 address."""
    if not isinstance(listen, str) or not listen:
        raise ConfigError(f"listen={listen!r}: an address is 'host' or 'host:port'")
    if listen.count(":") > 1 and not listen.startswith("["):
        listen = f"[{listen}]"
    host, colon, port = listen.rpartition(":")
    if not colon or listen.endswith("]"):
        return f"{listen}:0"
    if not port.isdigit() or int(port) > 65_535:
        raise ConfigError(f"listen={listen!r}: {port!r} is no port")
    return f"{host}:{port}"


def _host(bind: str) -> str:
    """The host that clients are told of."""
    host = bind.rpartition(":")[0]
    return socket.getfqdn() if host in ("0.0.0.0", "[::]", "") else host


def until_over(service: Service) -> None:
    """Wait until a service that was started has stopped."""
    serving = service._serving
    # A signal that comes just before a wait without a bound would be handled only after it.
    while serving is not None and not serving.over.wait(1):
        pass


def run_services(*services: Service, **kwargs: Any) -> None:
    """Start several services in this process, with the same keywords as `Service.start`; blocks until all
    have stopped.

    At Ctrl-C all are stopped. Raises what starting one of them raises; then those that run are stopped.
    """
    try:
        for service in services:
            service.start_in_thread(**kwargs)
        for service in services:
            until_over(service)
    finally:
        for service in services:
            service.stop()
