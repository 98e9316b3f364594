"""Clients of services: find them, call them, lock them, be told by them.

    >>> from link_kv.links import connect
    >>> cxn = connect()                         # etcd at localhost:2379, or where LINK_KV_ENDPOINTS points
    >>> heartbeat = cxn.link('Heartbeat')
    >>> heartbeat.reset()

`Client` is what `connect` gives. (`link_kv.clients.Client` is another: the base class for clients of your
own.) A `Link` calls the methods of one service. A `LinkedClient` is both at once.
"""

from __future__ import annotations

import atexit
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any

from link_kv._core.leasing.leases import LET_GO
from link_kv._core.leasing.presence import Presence
from link_kv._core.links import registry
from link_kv._core.links.config import LinkConfig, logged_in, settle
from link_kv._core.links.following import Following
from link_kv._core.links.identities import address_of, as_text, describe
from link_kv._core.links.link import Link
from link_kv._core.links.tether import Tether
from link_kv._core.living import Living
from link_kv._core.watching.watcher import Hub
from link_kv._core.wire.calls import run
from link_kv.errors import Closed, ConfigError, DeadlineExceeded, Unavailable
from link_kv.live import hub_of
from link_kv.middleware import EtcdMiddleware
from link_kv.sessions import new_lease

__all__ = ["SHUTDOWN_MANAGER", "Client", "Link", "LinkedClient", "connect", "filter_client_connect_kwargs"]

log = logging.getLogger("link_kv.links")

SHUTDOWN_MANAGER = "shutdown_manager"
"""For `Client.admin_request`: stop an etcd that ``link-kv up`` runs."""

_TTL = 10
"""Seconds after which a client that is not heard of is gone, and its links and locks."""
_AGAIN = 0.5
"""Seconds after which a service that is registered and does not answer is tried again by who waits."""
_LAST_ANSWERS = 2.0
"""Seconds that a service which left the registry has for what it still sends."""
_SHOWN = 1.0
"""Seconds that the services have to see that a client has linked again, after its lease was lost."""


def connect(
    *,
    name: str = "Client",
    host: str = "localhost",
    port: int = 2379,
    timeout: float = 10,
    username: str | None = None,
    password: str | None = None,
    password_manager: str | None = None,
    read_limit: int | None = None,
    disable_tls: bool = False,
    cert_file: str | None = None,
    assert_hostname: bool = True,
    auto_save: bool = False,
    endpoints: str | Iterable[str] | None = None,
) -> Client:
    """Connect to the etcd that knows of the services.

    Args:
        name: what the client is called in `Client.identities`, and in messages about locks.
        host, port: etcd's address. Left as they are, the environment and the configuration files say
            it. A URL may stand for the host: ``etcds://h1:2379/prefix``.
        timeout: seconds that etcd has for each answer, and a service for each connection.
        username, password: a login of etcd's.
        password_manager: has no meaning here, and says so in a warning.
        read_limit: bytes that one answer of a service may have; None for any number.
        disable_tls: speak plaintext, also to other machines.
        cert_file: the certificate of the authority to trust, in PEM form; asks for TLS.
        assert_hostname: whether the certificate must be for the host that is connected to.
        auto_save: trust the certificate that etcd shows at the first time, and no other from then on.
        endpoints: several servers of one cluster, instead of host and port.

    The client is registered under a lease, so that others see it, until it disconnects or dies. Raises
    `Unavailable` (a ConnectionError) when etcd cannot be reached, `AccessDenied`, `ConfigError`, and
    TypeError for a keyword that is not known. Thread-safe.
    """
    client = Client(name)
    client._connect(
        {
            "host": host,
            "port": port,
            "timeout": timeout,
            "username": username,
            "password": password,
            "password_manager": password_manager,
            "read_limit": read_limit,
            "disable_tls": disable_tls,
            "cert_file": cert_file,
            "assert_hostname": assert_hostname,
            "auto_save": auto_save,
            "endpoints": endpoints,
        }
    )
    return client


def filter_client_connect_kwargs(**kwargs: Any) -> dict[str, Any]:
    """Those of the keywords that `connect` accepts."""
    return {name: value for name, value in kwargs.items() if name in _KEYWORDS}


_KEYWORDS = frozenset(connect.__kwdefaults__ or ())


class Client:
    """A program that is connected; `connect` makes it. A context manager that disconnects. Thread-safe.

    While etcd cannot be reached, links go on as they are, for as long as the service is registered. When
    the client's lease is lost meanwhile, the client registers and links again; its locks are gone, and
    calls over a link that had one raise `LockLost` until the lock is acquired again or released. A link
    that is refused then, because the service is not back yet or another client has locked it, is made once
    it can be: until then its calls raise `Unavailable` or `LockRefused`.
    """

    def __init__(self, name: str) -> None:
        if not isinstance(name, str):
            raise ConfigError(f"name={name!r}: a client's name is a str")
        self._name = name
        self._id = secrets.token_hex(8)
        self._pid = os.getpid()
        self._options: LinkConfig | None = None
        self._given: dict[str, Any] = {}
        self._client: EtcdMiddleware | None = None
        self._presence: Presence | None = None
        self._lease = 0
        self._links: dict[Tether, None] = {}
        self._tying = threading.Lock()
        """Guards the two, so that no link stays under a lease that was given up."""
        self._watching = threading.Lock()
        self._watcher: threading.Thread | None = None
        self._over = threading.Event()

    def _connect(self, given: dict[str, Any]) -> None:
        self._given = given
        logged_in(settle(**given), self._open)

    def _open(self, options: LinkConfig) -> None:
        self._options = options
        client: EtcdMiddleware = EtcdMiddleware._of(options.config)
        self._client = client
        atexit.unregister(_disconnect_all)
        atexit.register(_disconnect_all)  # before what it needs is gone
        _connected.add(self)
        try:
            self._presence = Presence(f"client {self._name}", lambda: new_lease(client, _TTL), self._register)
        except BaseException:
            client.close()
            raise

    def _register(self, lease: int) -> None:
        client = self._etcd()
        record = registry.me(self._name)
        run(registry.register_client(client._exchange(), self._id, record, lease))
        with self._tying:
            self._lease = lease
            tethers = list(self._links)
        for tether in tethers:
            tether.register()
        until = time.monotonic() + _SHOWN
        for tether in tethers:
            tether.show(until)

    def _etcd(self) -> EtcdMiddleware:
        if self._client is None or self._client._space.caller.closed:
            raise Closed(f"client {self._name}: is not connected")
        if self._pid != os.getpid():
            raise Unavailable(
                f"client {self._name}: is that of the process that this one was forked from; connect here"
            )
        return self._client

    # Links

    def link(self, service: str, *, timeout: float | None = None) -> Link:
        """Link with a service.

        Raises `NotFound` when there is no such service, `LockRefused` when it is locked or has as many
        clients as it takes, and `Unavailable`. A client that is linked already may link again, always.
        ``timeout`` is in seconds; None gives that of `connect`.
        """
        return Link(self, service, {"timeout": timeout, "wait": False})

    def unlink(self, link: Link, *, timeout: float | None = None) -> None:
        """Unlink; see `Link.unlink`."""
        link.unlink(timeout)

    def _tie(
        self, service: str, timeout: float | None, notify: Callable[[Any, Any], object], wait: bool = False
    ) -> Tether:
        client = self._etcd()
        assert self._options is not None
        seconds = self._options.config.timeout if timeout is None else timeout
        until = time.monotonic() + seconds
        failed: Tether | None = None
        why: Unavailable | None = None
        while True:
            following = Following(hub_of(client), registry.service_place(client._space, service), service)
            if failed is not None:
                # One that was killed is registered until its lease ends: the next one is waited for.
                known = failed.tried
                following.wait(lambda state, known=known: state.service != known, min(_AGAIN, _left(until)))  # type: ignore[misc]
            if wait and not following.wait(lambda state: state.service is not None, _left(until)):
                following.close()
                raise DeadlineExceeded(f"service {service}: was not there within {seconds:g} s")
            tether = Tether(
                client._space,
                following,
                self._options,
                service,
                self._id,
                self._name,
                lambda: self._lease,
                notify,
            )
            lease = self._lease
            try:
                tether.open(until)
                break
            except Unavailable as error:
                if tether.tried is not None:
                    failed, why = tether, error
                if not wait or why is None:
                    raise
                if not _left(until):
                    raise DeadlineExceeded(f"{why}; and no other came within {seconds:g} s") from None
        with self._tying:
            self._links[tether] = None
        if self._over.is_set():  # disconnected by another thread, which has not seen this link
            tether.close()
            raise Closed(f"client {self._name}: was disconnected meanwhile")
        if self._lease != lease:
            try:
                tether.register()
                tether.show(time.monotonic() + _SHOWN)
            except BaseException:
                self._links.pop(tether, None)
                tether.unlink(_LAST_ANSWERS)
                raise
        with self._watching:
            if self._watcher is None:
                watcher = threading.Thread(
                    target=self._watch, args=(hub_of(client),), name=f"link-kv-{self._name}", daemon=True
                )
                watcher.start()
                self._watcher = watcher
        return tether

    def _watch(self, hub: Hub) -> None:
        """Link again what was refused that, and tell those who wait for a service that it is registered no
        more.
        """

        def stirring() -> bool:
            return self._over.is_set() or any(
                tether.outdated or tether.returning for tether in list(self._links)
            )

        outdated: dict[Tether, float] = {}
        """Since when they are."""
        while not self._over.is_set():
            hub.wait(stirring, None)
            links = list(self._links)
            for tether in links:
                tether.relink()
            now = time.monotonic()
            outdated = {tether: outdated.get(tether, now) for tether in links if tether.outdated}
            for tether, since in outdated.items():
                if now - since >= _LAST_ANSWERS:
                    tether.let_go()
            self._over.wait(_AGAIN)

    # What there is

    def identities(self, *, as_string: bool = False, indent: int = 2, timeout: float | None = None) -> Any:
        """All who are connected, as a dict, or as text for people with ``as_string``.

        ``{'hostname', 'port', 'attributes', 'language', 'os', 'clients': {…}, 'services': {name:
        {'attributes', 'address', 'language', 'os', 'max_clients'}}}``; the first five are etcd's. One read,
        of one revision. Raises `Closed` after `disconnect`, `Unavailable` when etcd does not answer.
        """
        client = self._etcd()
        ex = client._exchange()
        if timeout is not None:
            ex.deadline = min(ex.deadline, _deadline(timeout))
        services, clients = run(registry.everybody(ex))
        found = describe(*self._etcd_address(), services, clients)
        return as_text(found, indent) if as_string else found

    def identity(self) -> dict[str, Any]:
        """What others see of this client."""
        record = registry.me(self._name)
        return {
            "type": "client",
            "name": self._name,
            "address": f"{record.host}:{self._id}",
            "language": record.language,
            "os": record.os,
        }

    def admin_request(self, attrib: str, *args: Any, **kwargs: Any) -> Any:
        """Ask the cluster what only an administrator may ask, such as ``'users_table.usernames'``.

        `SHUTDOWN_MANAGER` stops an etcd that ``link-kv up`` runs on this machine, and raises `LocalEtcdError`
        for any other.

        Raises `AccessDenied` for what is not on the list, which the message shows, and for those without
        etcd's role ``root``. Takes a keyword ``timeout``, in seconds.
        """
        from link_kv._core.cluster import allowed as admin

        return run(admin.answer(self._etcd(), attrib, *args, **kwargs))

    # Life

    def disconnect(self, timeout: float | None = None) -> None:
        """Unlink from every service, and leave. May be called twice.

        Raises nothing when etcd does not answer in time, 2 s for None: the client is gone when its lease
        ends.
        """
        presence, client = self._presence, self._client
        if client is None or presence is None or client._space.caller.closed or self._pid != os.getpid():
            return
        self._over.set()
        for tether in list(self._links):
            tether.close()
        if self._watcher is not None:
            hub = hub_of(client)
            with hub.changed:
                hub.changed.notify_all()
            self._watcher.join(LET_GO)
        self._links.clear()
        presence.close(timeout)  # with its lease go the keys of the client, of its links and of its locks
        client.close()

    def is_connected(self) -> bool:
        """Whether etcd certainly still knows this client."""
        presence, client = self._presence, self._client
        if client is None or presence is None or client._space.caller.closed:
            return False
        return presence.alive

    def spawn(self, name: str = "Client") -> Client:
        """Another client, connected the same way."""
        return connect(**{**self._given, "name": name})

    @property
    def name(self) -> str:
        """What others see this client as."""
        return self._name

    @property
    def port(self) -> int:
        """The port of etcd."""
        return self._etcd_address()[1]

    @property
    def address_manager(self) -> str:
        """The address of etcd, ``host:port``."""
        return "{}:{}".format(*self._etcd_address())

    def _etcd_address(self) -> tuple[str, int]:
        if self._options is None:
            raise Closed(f"client {self._name}: is not connected")
        return address_of(self._options.config)

    def __repr__(self) -> str:
        state = "connected to " + self.address_manager if self.is_connected() else "not connected"
        return f"<Client {self._name!r} {state}>"

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.disconnect()


_connected: Living[Client] = Living()


def _disconnect_all() -> None:
    """At the end of the interpreter: leave, rather than expire."""
    for client in _connected:
        client.disconnect()


def _deadline(timeout: float) -> float:
    return time.monotonic() + timeout


def _left(until: float) -> float:
    return max(0.0, until - time.monotonic())


class LinkedClient:
    """A client with a link to one service, as one object: the service's methods, and those of both.

    Args:
        service_name: the service; it is waited for, as long as the ``timeout`` of `connect` says.
        kwargs: those of `connect`; the name is that of the class unless told otherwise.

    To be subclassed, or used as it is. Override `notification_handler` and `service_error_handler`, or assign
    functions to them. A context manager that disconnects. Raises what `connect` and `Client.link` raise,
    and `DeadlineExceeded` (a TimeoutError) when the service did not come in time. Thread-safe.
    """

    def __init__(self, service_name: str, **kwargs: Any) -> None:
        kwargs.setdefault("name", type(self).__name__)
        self._service_name = service_name
        self._kwargs = kwargs
        self._client = connect(**kwargs)
        try:
            self._link = Link(self._client, service_name, {"wait": True})
        except BaseException:
            self._client.disconnect()
            raise
        # Looked up when they are called, so that it does not matter whether they are assigned or overridden.
        self._link.notification_handler = lambda *args, **kwargs: self.notification_handler(*args, **kwargs)  # type: ignore[method-assign]
        self._link._before_error = lambda: self.service_error_handler()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in ("_link", "_client"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self._link, name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._link.service_attributes})

    def notification_handler(self, *args: Any, **kwargs: Any) -> Any:
        """See `Link.notification_handler`."""

    def service_error_handler(self) -> None:
        """Is called right before a call raises what the service answered instead of a result.

        Of an asynchronous call: before its future has the error. For cleaning up; what it raises itself is
        logged. It is not called when the service cannot be reached.
        """

    # What the link does

    def acquire_lock(self, shared: bool = False, timeout: float | None = None) -> list[str]:
        """See `Link.acquire_lock`."""
        return self._link.acquire_lock(shared, timeout)

    def release_lock(self, timeout: float | None = None) -> list[str]:
        """See `Link.release_lock`."""
        return self._link.release_lock(timeout)

    def shutdown_service(self, *args: Any, **kwargs: Any) -> Any:
        """See `Link.shutdown_service`."""
        return self._link.shutdown_service(*args, **kwargs)

    def unlink(self, timeout: float | None = None) -> None:
        """See `Link.unlink`. The client stays connected."""
        self._link.unlink(timeout)

    @property
    def service_name(self) -> str:
        """See `Link.service_name`."""
        return self._link.service_name

    @property
    def service_address(self) -> str:
        """See `Link.service_address`."""
        return self._link.service_address

    @property
    def service_attributes(self) -> dict[str, str]:
        """See `Link.service_attributes`."""
        return self._link.service_attributes

    @property
    def service_language(self) -> str:
        """See `Link.service_language`."""
        return self._link.service_language

    @property
    def service_os(self) -> str:
        """See `Link.service_os`."""
        return self._link.service_os

    @property
    def service_max_clients(self) -> int:
        """See `Link.service_max_clients`."""
        return self._link.service_max_clients

    # What the client does

    def admin_request(self, attrib: str, *args: Any, **kwargs: Any) -> Any:
        """See `Client.admin_request`."""
        return self._client.admin_request(attrib, *args, **kwargs)

    def identities(self, *, as_string: bool = False, indent: int = 2, timeout: float | None = None) -> Any:
        """See `Client.identities`."""
        return self._client.identities(as_string=as_string, indent=indent, timeout=timeout)

    def identity(self) -> dict[str, Any]:
        """See `Client.identity`."""
        return self._client.identity()

    def disconnect(self, timeout: float | None = None) -> None:
        """See `Client.disconnect`."""
        self._client.disconnect(timeout)

    def is_connected(self) -> bool:
        """See `Client.is_connected`."""
        return self._client.is_connected()

    def spawn(self, name: str = "LinkedClient") -> Any:
        """Another one of the same class, with the same service and the same keywords."""
        return type(self)(self._service_name, **{**self._kwargs, "name": name})

    @property
    def client(self) -> Client:
        """The client that it is connected as."""
        return self._client

    @property
    def link(self) -> Link:
        """Its link."""
        return self._link

    @property
    def name(self) -> str:
        """The name of the client."""
        return self._client.name

    @property
    def port(self) -> int:
        """The port of etcd."""
        return self._client.port

    @property
    def address_manager(self) -> str:
        """The address of etcd, ``host:port``."""
        return self._client.address_manager

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} {self._link!r}>"

    def __enter__(self) -> Any:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.disconnect()
