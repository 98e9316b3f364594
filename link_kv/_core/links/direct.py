"""The second door to the wire: direct connections between a client and a service.

The first, `link_kv._core.wire.transport`, speaks etcd's API. Here both ends are ours: one stream of bytes
messages in each direction for each link, ``/link_kv.Link/Talk``. What the bytes mean is said in
`link_kv._core.links.messages`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import Any, NamedTuple, Protocol

import grpc

from link_kv._core.living import Living
from link_kv._core.wire.failures import WireFailure
from link_kv._core.wire.forks import GATE
from link_kv._core.wire.upkeep import abandon, keep_at_the_end, keep_for_good
from link_kv.errors import ConfigError, Unavailable

log = logging.getLogger("link_kv.services")

_SERVICE, _METHOD = "link_kv.Link", "Talk"

_COMMON = (
    ("grpc.max_send_message_length", -1),
    ("grpc.keepalive_time_ms", 8000),
    ("grpc.keepalive_timeout_ms", 3000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.enable_http_proxy", 0),
)
_DIALING = (
    *_COMMON,
    # Our messages are short. Whatever is longer does not come from a service.
    ("grpc.max_receive_message_length", 4 * 1024 * 1024),
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
)
_LISTENING = (
    *_COMMON,
    ("grpc.max_receive_message_length", 4 * 1024 * 1024),
    ("grpc.http2.min_ping_interval_without_data_ms", 4000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.so_reuseport", 0),
    ("grpc.max_metadata_size", 16 * 1024),
)
_LINKS = 2000
"""How many links one service can have at a time: each holds a thread."""


class Tls(NamedTuple):
    """Certificates in PEM form. Of a client: whom to trust, and its own; of a service: the same."""

    authority: bytes | None = None
    certificate: bytes | None = None
    key: bytes | None = None
    host: str | None = None
    """The name that the service's certificate is for, where it is not that of the address."""


class Talk(Protocol):
    """One link, on the side of the service."""

    def hear(self, messages: Iterable[bytes]) -> None:
        """Take what comes in, until the link ends."""

    def messages(self) -> Iterator[bytes]:
        """What goes out. When it ends, the link does."""


Accept = Callable[[dict[str, str], str], Talk]
"""Makes the link of a caller, from what it says of itself and its address. Raises `Refusal`."""


class Refusal(Exception):
    """A link that is not accepted, in words for the caller."""


# Listening


class _Threads(Executor):
    """A thread for each link. A pool's threads would be waited for when the interpreter ends."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()

        def work() -> None:
            try:
                done.set_result(fn(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001 - for whoever has the future
                done.set_exception(error)

        threading.Thread(target=work, name="link-kv-talk", daemon=True).start()
        return done


class Listener:
    """A service's end. Listens from when it is made until `close`."""

    def __init__(self, address: str, accept: Accept, tls: Tls | None) -> None:
        self._accept = accept
        self._server = grpc.server(
            _Threads(),  # type: ignore[arg-type] # an Executor is all it needs
            options=_LISTENING,
            maximum_concurrent_rpcs=_LINKS,
        )
        handler = grpc.stream_stream_rpc_method_handler(self._talk)
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(_SERVICE, {_METHOD: handler}),)
        )
        try:
            if tls is None:
                self.port = self._server.add_insecure_port(address)
            else:
                self.port = self._server.add_secure_port(address, _server_credentials(tls))
        except RuntimeError as error:
            raise ConfigError(f"listen: cannot listen at {address}: {error}") from None
        GATE.wires.add(self)
        self._server.start()

    def close(self, grace: float) -> None:
        """Take no new link, and end those there are after ``grace`` seconds."""
        self._server.stop(grace).wait()
        GATE.wires.discard(self)

    def _talk(self, requests: Any, context: Any) -> Iterator[bytes]:
        metadata = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
        try:
            talk = self._accept(metadata, context.peer())
        except Refusal as refusal:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, str(refusal))
        threading.Thread(
            target=talk.hear, args=(_until_it_ends(requests),), name="link-kv-hear", daemon=True
        ).start()
        return talk.messages()

    # Forks: a server has threads inside gRPC as long as it runs.

    def interrupt_streams(self) -> bool:
        return False

    def interrupt_calls(self) -> None:
        """Not possible."""

    def begin_anew(self) -> bool:
        return False  # it runs in the parent alone


def _until_it_ends(requests: Any) -> Iterator[bytes]:
    try:
        yield from requests
    except Exception as error:  # noqa: BLE001 - gRPC raises a bare Exception when the caller is gone
        log.debug("a link ended: %s", error)


def _server_credentials(tls: Tls) -> Any:
    if tls.key is None or tls.certificate is None:
        raise ConfigError("a service that speaks TLS needs a certificate and its key: cert_cert, cert_key")
    return grpc.ssl_server_credentials(
        [(tls.key, tls.certificate)],
        root_certificates=tls.authority,
        require_client_auth=tls.authority is not None,
    )


# Dialing


class Dialed:
    """A client's end: a connection of its own, with one stream. Iterating gives what comes in.

    Iteration raises `WireFailure` when the other side ends, and stops when it was ended here.
    """

    def __init__(
        self, address: str, metadata: dict[str, str], messages: Iterator[bytes], tls: Tls | None
    ) -> None:
        if GATE.unfit:
            raise Unavailable(GATE.unfit)
        with GATE:
            if tls is None:
                self._channel = grpc.insecure_channel(address, options=_DIALING)
            else:
                options: Any = _DIALING
                if tls.host is not None:
                    options = (*_DIALING, ("grpc.ssl_target_name_override", tls.host))
                credentials = grpc.ssl_channel_credentials(tls.authority, tls.key, tls.certificate)
                self._channel = grpc.secure_channel(address, credentials, options=options)
            keep_at_the_end(self._channel)
            stub = self._channel.stream_stream(f"/{_SERVICE}/{_METHOD}")  # type: ignore[call-arg]
            try:
                self._call: Any = stub(messages, metadata=tuple(metadata.items()))
            except BaseException:  # an interrupt, say
                abandon(self._channel)
                raise
            keep_at_the_end(self._call)
            self._ended = threading.Event()
            if not self._call.add_callback(self._ended.set):
                self._ended.set()
        self._closed = False
        _DIALED.add(self)
        GATE.wires.add(_DIALED_TOGETHER)

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._call
        except grpc.RpcError as error:
            error.__traceback__ = None  # it is the call itself, and would hold what holds it
            if not self._closed:
                raise WireFailure(error.code().value[0], error.details() or "") from None
        except ValueError:  # what gRPC says of a channel that another thread has closed
            if not self._closed:
                raise

    def close(self) -> None:
        """End it, from any thread. May be called twice."""
        self._closed = True
        try:
            self._call.cancel()
            self._channel.close()
        except BaseException:  # an interrupt, say
            abandon(self._channel, self._call)
            raise

    def interrupt(self) -> None:
        """Break it off, as if the other side were gone."""
        self._call.cancel()

    def wait_ended(self, seconds: float) -> bool:
        return self._ended.wait(seconds)


_DIALED: Living[Dialed] = Living()


class _Together:
    """All dialed connections, for the gate of forks."""

    def interrupt_streams(self) -> bool:
        dialed = list(_DIALED)
        for each in dialed:
            each.interrupt()
        return all(each.wait_ended(1.0) for each in dialed)

    def interrupt_calls(self) -> None:
        """There are only streams."""

    def begin_anew(self) -> bool:
        keep_for_good(list(_DIALED))  # gRPC must not take down here what is the parent's still
        _DIALED.clear()
        return True


_DIALED_TOGETHER = _Together()
