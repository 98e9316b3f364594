"""`Link`: what calls the methods of one service. Public in `link_kv.links`."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from link_kv._core.links.messages import Kind
from link_kv._core.links.tether import Tether
from link_kv.errors import Closed

if TYPE_CHECKING:
    from link_kv.links import Client


class Link:
    """A link with a service; `Client.link` makes it. A context manager that unlinks. Thread-safe.

    ``link.method(*args, **kwargs)`` calls the service's method; its properties and constants are called
    too. Two keywords are for the call itself: ``timeout``, the seconds to wait for the answer, and
    ``asynchronous=True``, which gives a `concurrent.futures.Future`. What the method raises arrives as
    `RemoteError`. When the connection breaks, calls under way raise `OutcomeUnknown` at once. The link
    finds the service again wherever it returns; a call waits for that as long as its timeout, or for a
    second.

    When the service notifies, `notification_handler` is called, in a thread of the link's own: it may
    raise, block, and call. Assign a function to it, or override it.

    After `unlink` the service's attributes are gone: AttributeError.
    """

    def __init__(self, client: Client, service: str, identity: dict[str, Any]) -> None:
        self._client = client
        self._service = service
        self._remotes: dict[str, _Remote] = {}
        self._before_error: Callable[[], object] | None = None
        self._tether: Tether = client._tie(
            service, identity.get("timeout"), self._notified, bool(identity.get("wait"))
        )

    def _notified(self, args: Any, kwargs: Any) -> None:
        self.notification_handler(*args, **kwargs)

    def notification_handler(self, *args: Any, **kwargs: Any) -> Any:
        """Is called with what the service emits. Does nothing, until another function is assigned to it."""

    # Remote attributes

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in ("_tether", "_remotes", "_client", "_service"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        remote = self._remotes.get(name)
        tether = self._tether
        if tether.closed:
            raise AttributeError(f"{name}: this client has unlinked from service {self._service}")
        if remote is None:
            if name not in tether.record.attributes and not tether.call(
                Kind.ASK, name, f"service {self._service}: {name}", None
            ):
                raise AttributeError(f"service {self._service} has no attribute {name!r}")
            remote = self._remotes[name] = _Remote(self, name)
        return remote

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._tether.record.attributes})

    # Locks

    def acquire_lock(self, shared: bool = False, timeout: float | None = None) -> list[str]:
        """Lock the service for the clients that are linked now; the names of these.

        Until the lock is released no other client may link. An exclusive lock is for a client that is
        linked alone; a shared one may be held by several. It never waits for others: raises `LockRefused`,
        a RuntimeError naming those in the way. Who holds the lock may acquire it again. It is released by
        `release_lock`, `unlink`, `Client.disconnect`, and within 10 s of the client's death.
        """
        return self._open().lock(bool(shared), timeout)

    def release_lock(self, timeout: float | None = None) -> list[str]:
        """Release the lock of this link; the names of the clients that still hold one.

        Raises `Closed` after `unlink`, and `Unavailable` when etcd does not answer: the lock goes with the
        client's lease then.
        """
        return self._open().unlock(timeout)

    def _open(self) -> Tether:
        if self._tether.closed:
            raise Closed(f"service {self._service}: this client has unlinked")
        return self._tether

    # Life

    def shutdown_service(self, *args: Any, **kwargs: Any) -> Any:
        """Ask the service to end; what its ``shutdown_service`` returns. Raises `RemoteError` when it has
        none.

        Takes the keywords ``timeout`` and ``asynchronous`` of every call.
        """
        return _Remote(self, "shutdown_service")(*args, **kwargs)

    def unlink(self, timeout: float | None = None) -> None:
        """Unlink. A lock of this link is released. May be called twice."""
        self._tether.unlink(timeout)
        self._client._links.pop(self._tether, None)
        self._remotes.clear()

    def disconnect(self, timeout: float | None = None) -> None:
        """The same as `unlink`."""
        self.unlink(timeout)

    @property
    def service_name(self) -> str:
        """The service that it is with."""
        return self._service

    @property
    def service_address(self) -> str:
        """Where the service is, ``host:port``."""
        return self._tether.record.address

    @property
    def service_attributes(self) -> dict[str, str]:
        """Signatures of its methods and reprs of its values, by name."""
        return dict(self._tether.record.attributes)

    @property
    def service_language(self) -> str:
        """What the service runs on, ``Python`` and its version."""
        return self._tether.record.language

    @property
    def service_os(self) -> str:
        """The system that the service runs on: its name, release and machine."""
        return self._tether.record.os

    @property
    def service_max_clients(self) -> int:
        """How many clients may be linked with it; 0 for any number."""
        return self._tether.record.max_clients

    def __repr__(self) -> str:
        state = "unlinked" if self._tether.closed else "linked" if self._tether.connected else "not connected"
        return f"<Link with {self._service!r} at {self.service_address}, {state}>"

    def __enter__(self) -> Link:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.unlink()


class _Remote:
    """A method, or a value, of a service."""

    __slots__ = ("__name__", "_link", "_what")

    def __init__(self, link: Link, name: str) -> None:
        self.__name__ = name
        self._link = link
        self._what = f"service {link._service}: {name}"

    def __call__(
        self, *args: Any, timeout: float | None = None, asynchronous: bool = False, **kwargs: Any
    ) -> Any:
        link = self._link
        tether = link._tether
        if tether.closed:
            raise AttributeError(f"{self._what}: this client has unlinked")
        value = (self.__name__, args, kwargs)
        if asynchronous:
            return tether.call_later(value, self._what, timeout, link._before_error)
        return tether.call(Kind.CALL, value, self._what, timeout, link._before_error)

    def __repr__(self) -> str:
        signature = self._link._tether.record.attributes.get(self.__name__, "(...)")
        return f"<{self._what}{signature if signature.startswith('(') else '()'}>"
