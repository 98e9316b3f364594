"""The asyncio twins of `link_kv.links` and `link_kv.services`; public in `link_kv.aio`.

What goes over the wire, and the threads that carry it, are the same. A call costs the loop no thread: its
answer comes in by ``call_soon_threadsafe``. What asks etcd runs in a thread of asyncio's pool.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Future
from types import TracebackType
from typing import Any, TypeVar

from link_kv import links, services
from link_kv._core.links.wire_link import TimedOut
from link_kv._core.links.wire_server import Request
from link_kv.errors import LinkKVError

T = TypeVar("T")

__all__ = ["Client", "Link", "LinkedClient", "Service", "connect"]

log = logging.getLogger("link_kv.links")


async def _made(make: Callable[[], T], undo: Callable[[T], object]) -> T:
    """What is made in a thread. When the task is cancelled meanwhile, it is undone before that goes on."""
    making = asyncio.ensure_future(asyncio.to_thread(make))
    try:
        return await asyncio.shield(making)
    except asyncio.CancelledError:
        undoing = asyncio.ensure_future(_undo(making, undo))
        _undoings.add(undoing)  # the loop itself holds tasks weakly
        undoing.add_done_callback(_undoings.discard)
        await asyncio.wait([undoing])  # a second cancelling ends the waiting, and not the undoing
        raise


_undoings: set[asyncio.Future[None]] = set()


async def _undo(making: asyncio.Future[T], undo: Callable[[T], object]) -> None:
    try:
        made = await making
    except Exception:  # noqa: BLE001 - nothing was made
        return
    try:
        await asyncio.to_thread(undo, made)
    except LinkKVError as error:
        log.warning("what a cancelled task had begun goes with its lease, and not now: %s", error)


async def connect(
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
    """Connect to the etcd that knows of the services. The twin of `link_kv.connect`."""
    given = {
        "name": name,
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
    return Client(await _made(lambda: links.connect(**given), links.Client.disconnect))  # type: ignore[arg-type]


class Client:
    """A program that is connected; `connect` makes it. The twin of `link_kv.Client`.

    ``async with await connect() as client:`` disconnects at the end. For one event loop.
    """

    def __init__(self, client: links.Client) -> None:
        self._inner = client

    async def link(self, service: str, *, timeout: float | None = None) -> Link:
        """Link with a service. See `link_kv.Client.link`."""
        link = Link()
        await link._open(self._inner, service, {"timeout": timeout})
        return link

    async def unlink(self, link: Link, *, timeout: float | None = None) -> None:
        """Unlink; see `Link.unlink`."""
        await link.unlink(timeout)

    async def identities(
        self, *, as_string: bool = False, indent: int = 2, timeout: float | None = None
    ) -> Any:
        """All who are connected. See `link_kv.Client.identities`."""
        return await asyncio.to_thread(
            self._inner.identities, as_string=as_string, indent=indent, timeout=timeout
        )

    def identity(self) -> dict[str, Any]:
        """What others see of this client."""
        return self._inner.identity()

    async def admin_request(self, attrib: str, *args: Any, **kwargs: Any) -> Any:
        """See `link_kv.Client.admin_request`."""
        return await asyncio.to_thread(self._inner.admin_request, attrib, *args, **kwargs)

    async def disconnect(self, timeout: float | None = None) -> None:
        """Unlink from every service, and leave. May be called twice."""
        await asyncio.to_thread(self._inner.disconnect, timeout)

    def is_connected(self) -> bool:
        """Whether etcd certainly still knows this client."""
        return self._inner.is_connected()

    async def spawn(self, name: str = "Client") -> Client:
        """Another client, connected the same way."""
        return Client(await _made(lambda: self._inner.spawn(name), links.Client.disconnect))

    @property
    def name(self) -> str:
        """What others see this client as."""
        return self._inner.name

    @property
    def port(self) -> int:
        """The port of etcd."""
        return self._inner.port

    @property
    def address_manager(self) -> str:
        """The address of etcd, ``host:port``."""
        return self._inner.address_manager

    def __repr__(self) -> str:
        return repr(self._inner)

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.disconnect()


class Link:
    """A link with a service; `Client.link` makes it. The twin of `link_kv.Link`.

    ``await link.method(*args, **kwargs)``, with ``timeout=`` in seconds. Cancelling who waits is harmless.
    Names that the service hides are called with ``await link.call_attribute(name, ...)``, since looking one
    up asks nobody here. `notification_handler` is called in the loop, and awaited where it can be.
    """

    _inner: links.Link
    _loop: asyncio.AbstractEventLoop

    async def _open(self, client: links.Client, service: str, identity: dict[str, Any]) -> None:
        self._loop = asyncio.get_running_loop()
        self._inner = await _made(lambda: links.Link(client, service, identity), links.Link.unlink)
        self._inner.notification_handler = self._told  # type: ignore[method-assign]

    def _told(self, *args: Any, **kwargs: Any) -> None:
        # In the thread that tells, which waits: so notifications stay in order.
        asyncio.run_coroutine_threadsafe(self._handle(args, kwargs), self._loop).result()

    async def _handle(self, args: Any, kwargs: Any) -> None:
        result = self.notification_handler(*args, **kwargs)
        if inspect.isawaitable(result):
            await result

    def notification_handler(self, *args: Any, **kwargs: Any) -> Any:
        """Is called with what the service emits. Does nothing, until another function is assigned to it."""

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        if name.startswith("_") or name not in self._inner.service_attributes:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        tether = self._inner._tether
        if tether.closed:
            raise AttributeError(f"{name}: this client has unlinked from service {tether.service}")

        async def remote(*args: Any, timeout: float | None = None, **kwargs: Any) -> Any:
            return await self.call_attribute(name, *args, timeout=timeout, **kwargs)

        remote.__name__ = remote.__qualname__ = name
        return remote

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._inner.service_attributes})

    async def call_attribute(
        self, attribute: str, *args: Any, timeout: float | None = None, **kwargs: Any
    ) -> Any:
        """Call an attribute of the service by its name."""
        tether = self._inner._tether
        what = f"service {tether.service}: {attribute}"
        value = (attribute, args, kwargs)
        before_error = self._inner._before_error
        began = time.monotonic()
        if not tether.connected:
            await asyncio.to_thread(tether.ready, None if timeout is None else began + timeout)
        answer = tether.call_later(value, what, None, before_error)
        left = None if timeout is None else began + timeout - time.monotonic()
        try:
            return await asyncio.wait_for(_awaitable(answer), left)
        except asyncio.TimeoutError:
            answer.cancel()
            raise TimedOut(
                f"{what}: not answered within {timeout:g} s; it may still be carried out"
            ) from None

    async def acquire_lock(self, shared: bool = False, timeout: float | None = None) -> list[str]:
        """Lock the service. See `link_kv.Link.acquire_lock`."""
        link, had = self._inner, self._inner._tether.locked
        return await _made(lambda: link.acquire_lock(shared, timeout), lambda _: had or link.release_lock())

    async def release_lock(self, timeout: float | None = None) -> list[str]:
        """Release the lock of this link. See `link_kv.Link.release_lock`."""
        return await asyncio.to_thread(self._inner.release_lock, timeout)

    async def shutdown_service(self, *args: Any, **kwargs: Any) -> Any:
        """Ask the service to end. See `link_kv.Link.shutdown_service`."""
        return await self.call_attribute("shutdown_service", *args, **kwargs)

    async def unlink(self, timeout: float | None = None) -> None:
        """Unlink. A lock of this link is released. May be called twice."""
        await asyncio.to_thread(self._inner.unlink, timeout)

    @property
    def service_name(self) -> str:
        """See `link_kv.Link.service_name`."""
        return self._inner.service_name

    @property
    def service_address(self) -> str:
        """Where the service is, ``host:port``."""
        return self._inner.service_address

    @property
    def service_attributes(self) -> dict[str, str]:
        """Signatures of its methods and reprs of its values, by name."""
        return self._inner.service_attributes

    @property
    def service_language(self) -> str:
        """See `link_kv.Link.service_language`."""
        return self._inner.service_language

    @property
    def service_os(self) -> str:
        """See `link_kv.Link.service_os`."""
        return self._inner.service_os

    @property
    def service_max_clients(self) -> int:
        """How many clients may be linked with it; 0 for any number."""
        return self._inner.service_max_clients

    def __repr__(self) -> str:
        return repr(self._inner)

    async def __aenter__(self) -> Any:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.unlink()


def _awaitable(answer: Future[Any]) -> asyncio.Future[Any]:
    """The same as a future of the running loop. Not by `asyncio.wrap_future`, for which our futures take a
    thread.
    """
    loop = asyncio.get_running_loop()
    waiting: asyncio.Future[Any] = loop.create_future()

    def hand_over() -> None:
        if waiting.done() or answer.cancelled():
            return
        error = answer.exception()
        if error is not None:
            waiting.set_exception(error)
        else:
            waiting.set_result(answer.result())

    def done(_: object) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(hand_over)

    Future.add_done_callback(answer, done)
    return waiting


class LinkedClient(Link):
    """A client with a link to one service, as one object. The twin of `link_kv.LinkedClient`.

    ``async with LinkedClient('Echo') as echo:`` connects, waits for the service, and disconnects at the end;
    or ``await echo.open()`` and ``await echo.disconnect()``.
    """

    def __init__(self, service_name: str, **kwargs: Any) -> None:
        kwargs.setdefault("name", type(self).__name__)
        self._service_name = service_name
        self._kwargs = kwargs
        self._client: Client | None = None

    async def open(self) -> None:
        """Connect, and link once the service is there. Does nothing when it is open; after `disconnect` it
        opens anew.
        """
        if self._client is not None and not self._client._inner._over.is_set():
            return
        client = await connect(**self._kwargs)
        try:
            await self._open(client._inner, self._service_name, {"wait": True})
        except BaseException:
            await client.disconnect()
            raise
        self._inner._before_error = lambda: self.service_error_handler()
        self._client = client

    def service_error_handler(self) -> None:
        """See `link_kv.LinkedClient.service_error_handler`. Called in another thread than the loop's."""

    async def disconnect(self, timeout: float | None = None) -> None:
        """Unlink, and leave. May be called twice."""
        if self._client is not None:
            await self._client.disconnect(timeout)

    @property
    def client(self) -> Client:
        """The client that it is connected as. Raises RuntimeError before it is open."""
        if self._client is None:
            raise RuntimeError("open it first")
        return self._client

    async def spawn(self, name: str = "LinkedClient") -> Any:
        """Another one of the same class, with the same service and the same keywords."""
        other = type(self)(self._service_name, **{**self._kwargs, "name": name})
        await other.open()
        return other

    async def __aenter__(self) -> Any:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.disconnect()


class Service(services.Service):
    """A program whose methods others can call, which may be ``async def``: those run in the loop.

    ``await service.start()`` runs until it is stopped; ``async with service:`` runs it meanwhile. Plain
    methods run in threads, as those of `link_kv.Service` do, whose twin this is.
    """

    _loop: asyncio.AbstractEventLoop

    async def start(self, **kwargs: Any) -> None:  # type: ignore[override]
        """Register, and answer calls until the service is stopped. See `link_kv.Service.start`."""
        self._loop = asyncio.get_running_loop()
        serving = await _made(lambda: self._begin(kwargs), lambda _: self._halt())
        over, loop = asyncio.Event(), self._loop
        serving.when_over = lambda: loop.call_soon_threadsafe(over.set)
        try:
            if not serving.over.is_set():
                await over.wait()
        finally:
            await self.stop()

    async def start_in_thread(self, **kwargs: Any) -> None:  # type: ignore[override]
        """Register, and answer calls from now on, until `stop`."""
        self._loop = asyncio.get_running_loop()
        await _made(lambda: self._begin(kwargs), lambda _: self._halt())

    async def stop(self) -> None:  # type: ignore[override]
        """Answer the calls under way, and leave the registry. May be called twice."""
        if services.current_request() is not None:
            self._halt()
        else:
            await asyncio.to_thread(self._halt)

    def _end(self) -> None:
        self._halt()

    def _answer(self, request: Request) -> Any:
        result = super()._answer(request)
        if not inspect.isawaitable(result):
            return result

        async def carry() -> Any:
            with services.answering(request):
                return await result

        return asyncio.run_coroutine_threadsafe(carry(), self._loop).result()

    async def __aenter__(self) -> Any:
        await self.start_in_thread()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()
