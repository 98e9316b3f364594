"""The one module that knows gRPC: channels, calls, and their failures.

A `BlockingWire` and an `AsyncWire` offer the same door, `link_kv._core.wire.calls.Wire`. Channels are made at
the first call to an endpoint, again in a process that was forked, and again when a certificate changes.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import os
import queue
import ssl
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from typing import Any, TypeVar

import grpc

from link_kv._core.living import Living
from link_kv._core.revived import messages
from link_kv._core.wire.calls import Metadata, Method, Stream
from link_kv._core.wire.config import Config, lookup_srv
from link_kv._core.wire.failures import CANCELLED, UNAVAILABLE, WireFailure
from link_kv._core.wire.forks import GATE as _GATE
from link_kv._core.wire.options import LONGEST_TIMEOUT
from link_kv._core.wire.upkeep import abandon, keep_at_the_end, keep_for_good, release_locks
from link_kv.errors import Closed, ConfigError, Unavailable

T = TypeVar("T")

log = logging.getLogger("link_kv.wire")

_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # A frozen server or a dead NAT entry is noticed within 12 s only by these three together. etcd refuses
    # pings that come more often than every 5 s, and pings while nothing is asked.
    ("grpc.keepalive_time_ms", 8000),
    ("grpc.keepalive_timeout_ms", 3000),
    ("grpc.http2.ping_timeout_ms", 3000),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.http2.max_pings_without_data", 0),
    # After an outage the default backoff costs seconds.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # In spite of its name, how long one attempt to connect may take: four round trips, over a slow link too.
    ("grpc.min_reconnect_backoff_ms", 5000),
    # A name that leads elsewhere now is looked up again, after a second and not after thirty.
    ("grpc.dns_min_time_between_resolutions_ms", 1000),
    # Retries are decided in one place, and it is not this one.
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
    # Two clients of one process do not share a connection.
    ("grpc.use_local_subchannel_pool", 1),
)

_LINGER = 1.0
"""Seconds in which gRPC reports the end of a stream that was cancelled."""


@functools.cache
def _anchor() -> grpc.Channel:
    """A channel that is never used: gRPC stays up while this process lives.

    With the last channel it would end, in a thread of its own, and a child forked meanwhile would hang.
    """
    return grpc.insecure_channel("localhost:0")


def _read(path: str, option: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise ConfigError(f"{option}: cannot read {path}: {error.strerror}") from None


def _credentials(config: Config) -> grpc.ChannelCredentials:
    """The TLS files, read and tried: gRPC would take any, and then fail to connect."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ca = key = cert = None
    if config.ca_cert:
        ca = _read(config.ca_cert, "ca_cert")
        try:
            context.load_verify_locations(cadata=ca.decode("ascii", "ignore"))
        except (ssl.SSLError, ValueError) as error:
            raise ConfigError(f"ca_cert: {config.ca_cert} holds no PEM certificate: {error}") from None
    if config.cert_cert:
        # One file may hold both.
        key_path = config.cert_key or config.cert_cert
        cert, key = _read(config.cert_cert, "cert_cert"), _read(key_path, "cert_key")
        try:
            context.load_cert_chain(config.cert_cert, key_path, password=lambda: "")
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"cert_cert, cert_key: {config.cert_cert} and {key_path} are no PEM certificate and its key "
                f"without a password: {error}"
            ) from None
    return grpc.ssl_channel_credentials(ca, key, cert)


def _stamp(config: Config) -> tuple[tuple[int, int, int], ...]:
    """What changes when a certificate file does."""
    stamps = []
    for path in (config.ca_cert, config.cert_cert, config.cert_key):
        if path:
            try:
                status = os.stat(path)
            except OSError:
                continue
            stamps.append((status.st_mtime_ns, status.st_ino, status.st_size))
    return tuple(stamps)


class _Channel:
    """A channel to one endpoint, and a stub for each method that was called."""

    __slots__ = ("__weakref__", "grpc", "stubs")

    def __init__(self, channel: Any) -> None:
        self.grpc = channel
        keep_at_the_end(channel)
        self.stubs: dict[Method, Any] = {}

    def stub(self, method: Method) -> Any:
        stub = self.stubs.get(method)
        if stub is None:
            kind = self.grpc.stream_stream if method.streams else self.grpc.unary_unary
            answer = getattr(messages(), f"{method.message or method.name}Response")
            stub = self.stubs[method] = kind(
                f"/etcdserverpb.{method.service}/{method.name}", response_deserializer=answer.FromString
            )
        return stub


class _Turn:
    """A lock of threads that code written for asyncio can hold."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    async def __aenter__(self) -> None:
        self._lock.acquire()

    async def __aexit__(self, *error: object) -> None:
        self._lock.release()


class _Channels:
    """The channels of one wire, one for each endpoint. Thread-safe."""

    def __init__(self, config: Config, module: Any) -> None:
        self._config = config
        self._module = module
        self._credentials: grpc.ChannelCredentials | None = None
        self._stamp: tuple[tuple[int, int, int], ...] = ()
        self.closed = False
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._channels: dict[str, _Channel] = {}
        self._open: Living[_Channel] = Living()
        """Those of `_channels`, and older ones that a call or a stream still uses."""
        self.turn = _Turn()

    def begin_anew(self) -> None:
        """Leave to a parent process what is its own: gRPC must not take it down here."""
        keep_for_good((self._channels, list(self._open), self._lock))
        self._begin()

    def of(self, endpoint: str) -> _Channel:
        if self._config.tls and _stamp(self._config) != self._stamp:
            self._renew()
        channel = self._channels.get(endpoint)
        return self._connect(endpoint) if channel is None else channel

    def _connect(self, endpoint: str) -> _Channel:
        if _GATE.unfit:
            raise Unavailable(_GATE.unfit)
        with self._lock:
            if self.closed:
                raise Closed("the client was closed")
            channel = self._channels.get(endpoint)
            if channel is None:
                _anchor()
                if self._config.tls:
                    self._credentials = self._credentials or _credentials(self._config)
                    options: Any = _OPTIONS
                    if self._config.server_name is not None:
                        options = (*_OPTIONS, ("grpc.ssl_target_name_override", self._config.server_name))
                    made = self._module.secure_channel(endpoint, self._credentials, options=options)
                else:
                    made = self._module.insecure_channel(endpoint, options=_OPTIONS)
                channel = self._channels[endpoint] = _Channel(made)
                self._open.add(channel)
            return channel

    def _renew(self) -> None:
        """Take the certificate files as they are now, unless somebody is just writing them."""
        with self._lock:
            stamp = _stamp(self._config)
            if stamp == self._stamp:
                return
            try:
                credentials = _credentials(self._config)
            except ConfigError as error:
                if not self._channels:
                    raise
                log.warning("the certificates changed and cannot be used, going on with the old: %s", error)
                return
            if self._stamp:
                log.info("the certificates changed: connecting with the new ones")
            self._credentials, self._stamp, self._channels = credentials, stamp, {}

    def forget(self) -> bool:
        """Make new channels from now on; calls under way keep the old ones until they are done."""
        with self._lock:
            known, self._channels = bool(self._channels), {}
            return known

    def abandon(self, channel: _Channel) -> None:
        """Use a channel no more, and leave it as it is: opening a stream was interrupted."""
        with self._lock:
            self._channels = {where: each for where, each in self._channels.items() if each is not channel}
            self._open.discard(channel)
        abandon(channel.grpc)

    def take(self) -> list[Any]:
        """Hand over the channels, to be closed."""
        with self._lock:
            channels = [channel.grpc for channel in self._open]
            self._channels, self._open = {}, Living()
            return channels

    def close(self) -> None:
        """Close the channels of a blocking wire."""
        channels = self.take()
        try:
            for channel in channels:
                channel.close()
        except BaseException:  # an interrupt, say
            for channel in channels:
                abandon(channel)
            raise


def _lookup(config: Config) -> tuple[str, ...]:
    if config.srv_domain is None:
        return config.endpoints
    return lookup_srv(config.srv_domain, config.tls, config.timeout)


def _bounded(timeout: float | None) -> float | None:
    """A timeout that gRPC can count. One of a single call may be any number."""
    return None if timeout is None else min(timeout, LONGEST_TIMEOUT)


def _failure(error: Any) -> WireFailure:
    error.__traceback__ = None  # a stream's call raises itself, and would hold the stream that holds it
    return WireFailure(error.code().value[0], error.details() or "")


def _ended() -> WireFailure:
    return WireFailure(UNAVAILABLE, "the server ended the stream")


class _Door(ABC):
    """What both wires do alike."""

    @abstractmethod
    async def open(
        self, endpoint: str, method: Method, metadata: Metadata, timeout: float | None = None
    ) -> Stream: ...

    async def _first(
        self, endpoint: str, method: Method, request: bytes, timeout: float, metadata: Metadata
    ) -> Any:
        stream = await self.open(endpoint, method, metadata, timeout)
        try:
            await stream.send(request)
            return await stream.receive()
        finally:
            stream.cancel()


# Blocking


class _BlockingStream:
    def __init__(self, channel: _Channel, method: Method, metadata: Metadata, timeout: float | None) -> None:
        self._channel = channel  # kept, so that closing the wire ends the stream
        self._requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        requests = iter(self._requests.get, None)
        self._call = channel.stub(method)(requests, metadata=metadata, timeout=_bounded(timeout))
        keep_at_the_end(self._call)
        self.ended = threading.Event()
        if not self._call.add_callback(self.ended.set):
            self.ended.set()

    async def send(self, request: bytes) -> None:
        self._requests.put(request)

    async def receive(self) -> Any:
        try:
            return next(self._call)
        except grpc.RpcError as error:
            self._send_no_more()
            raise _failure(error) from None
        except StopIteration:
            self._send_no_more()
            raise _ended() from None
        except BaseException:  # an interrupt, say
            release_locks(self._channel.grpc, self._call)
            raise

    def cancel(self) -> None:
        try:
            self._call.cancel()
        except BaseException:  # an interrupt, say
            release_locks(self._channel.grpc, self._call)
            raise
        self._send_no_more()

    def _send_no_more(self) -> None:
        """Let gRPC's sending thread end."""
        self._requests.put(None)

    def __del__(self) -> None:
        if hasattr(self, "_call") and not sys.is_finalizing():
            self.cancel()


class BlockingWire(_Door):
    """Calls that block their thread. Thread-safe."""

    def __init__(self, config: Config) -> None:
        self._channels = _Channels(config, grpc)
        self._streams: Living[_BlockingStream] = Living()
        _GATE.wires.add(self)

    async def send(
        self, endpoint: str, method: Method, request: bytes, timeout: float, metadata: Metadata
    ) -> Any:
        if method.streams:
            return await self._first(endpoint, method, request, timeout, metadata)
        with _GATE:
            answer = self._answer(endpoint, method, request, timeout, metadata)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _answer(
        self, endpoint: str, method: Method, request: bytes, timeout: float, metadata: Metadata
    ) -> Any:
        """The answer or the failure. What gRPC made for it is gone by then: to take it down is a call too."""
        # Held until the answer is there, so that closing the wire ends the call.
        channel = self._channels.of(endpoint)
        try:
            answer = channel.stub(method)(request, timeout=_bounded(timeout), metadata=metadata)
        except grpc.RpcError as error:
            return _failure(error)
        except ValueError:
            # What gRPC says of a channel that another thread has closed.
            if self._channels.closed:
                return Closed("the client was closed")
            raise
        except BaseException:  # an interrupt, say
            release_locks(channel.grpc)
            raise
        if answer is None:  # seen when another thread closes the channel
            return WireFailure(CANCELLED, "the call was broken off")
        return answer

    async def open(
        self, endpoint: str, method: Method, metadata: Metadata, timeout: float | None = None
    ) -> _BlockingStream:
        try:
            with _GATE:
                channel = self._channels.of(endpoint)
                try:
                    stream = _BlockingStream(channel, method, metadata, timeout)
                except ValueError:
                    raise
                except BaseException:  # an interrupt, say
                    self._channels.abandon(channel)
                    raise
                self._streams.add(stream)
                return stream
        except ValueError:
            if self._channels.closed:
                raise Closed("the client was closed") from None
            raise

    def interrupt_streams(self) -> bool:
        streams = list(self._streams)
        for stream in streams:
            stream.cancel()
        return all(stream.ended.wait(_LINGER) for stream in streams)

    def interrupt_calls(self) -> None:
        self._channels.close()

    def begin_anew(self) -> bool:
        self._channels.begin_anew()
        self._streams = Living()
        return True

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    async def finish(self, operation: Coroutine[Any, Any, T]) -> T:
        return await operation

    async def lookup(self, config: Config) -> tuple[str, ...]:
        return _lookup(config)

    def turn(self) -> _Turn:
        return self._channels.turn

    async def close(self) -> None:
        self._channels.closed = True
        self._channels.close()


# asyncio


def _cancelled_by_us(ended: bool) -> bool:
    """Whether a CancelledError is only gRPC's word for a call that we ended."""
    if not ended:
        return False
    task = asyncio.current_task()
    return sys.version_info < (3, 11) or task is None or not task.cancelling()


class _AsyncStream:
    def __init__(self, channel: _Channel, method: Method, metadata: Metadata, timeout: float | None) -> None:
        self._channel = channel
        self._call = channel.stub(method)(metadata=metadata, timeout=_bounded(timeout))
        self._cancelled = False

    @property
    def active(self) -> bool:
        return not self._call.done()

    async def send(self, request: bytes) -> None:
        try:
            await self._call.write(request)
        except (grpc.RpcError, asyncio.InvalidStateError):
            return  # `receive` tells
        except asyncio.CancelledError:
            if not _cancelled_by_us(self._cancelled):
                raise

    async def receive(self) -> Any:
        try:
            answer = await self._call.read()
        except grpc.RpcError as error:
            raise _failure(error) from None
        except asyncio.CancelledError:
            if not _cancelled_by_us(self._cancelled):
                raise
            raise WireFailure(CANCELLED, "the stream was cancelled") from None
        if answer is grpc.aio.EOF:  # type: ignore[attr-defined]
            raise _ended()
        return answer

    def cancel(self) -> None:
        self._cancelled = True
        self._call.cancel()


class AsyncWire(_Door):
    """Calls that wait in the running asyncio loop."""

    def __init__(self, config: Config) -> None:
        import grpc.aio

        self._channels = _Channels(config, grpc.aio)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._unfinished: set[asyncio.Task[Any]] = set()
        _GATE.wires.add(self)

    def _bind(self) -> None:
        """Begin anew in another loop: what gRPC makes belongs to the loop that it was made in."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._channels.forget()
            self._calls: set[Any] = set()
            self._streams: Living[_AsyncStream] = Living()
            self._turn = asyncio.Lock()
            self._loop = loop  # last: a fork in another thread looks at the others then

    async def send(
        self, endpoint: str, method: Method, request: bytes, timeout: float, metadata: Metadata
    ) -> Any:
        if method.streams:
            return await self._first(endpoint, method, request, timeout, metadata)
        self._bind()
        with _GATE:
            channel = self._channels.of(endpoint)
            call = channel.stub(method)(request, timeout=_bounded(timeout), metadata=metadata)
            self._calls.add(call)
        try:
            return await call
        except grpc.RpcError as error:
            raise _failure(error) from None
        except asyncio.CancelledError:
            if not _cancelled_by_us(self._channels.closed):
                raise
            raise WireFailure(CANCELLED, "the client was closed") from None
        finally:
            self._calls.discard(call)

    async def open(
        self, endpoint: str, method: Method, metadata: Metadata, timeout: float | None = None
    ) -> _AsyncStream:
        self._bind()
        with _GATE:
            stream = _AsyncStream(self._channels.of(endpoint), method, metadata, timeout)
            self._streams.add(stream)
            return stream

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def finish(self, operation: Coroutine[Any, Any, T]) -> T:
        task = asyncio.ensure_future(operation)
        self._unfinished.add(task)  # the loop itself holds tasks weakly
        task.add_done_callback(self._unfinished.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait([task])  # a second cancelling ends the waiting, not the operation
            raise

    async def lookup(self, config: Config) -> tuple[str, ...]:
        if config.srv_domain is None:
            return config.endpoints
        return await asyncio.to_thread(_lookup, config)

    def turn(self) -> asyncio.Lock:
        self._bind()
        return self._turn

    def interrupt_streams(self) -> bool:
        """With the last channel of asyncio goes its thread inside gRPC, unless a call holds one."""
        if self._loop is not None and (self._calls or any(stream.active for stream in self._streams)):
            return False
        if self._channels.forget():
            gc.collect()  # in grpcio 1.83 a channel is part of a cycle
        return True

    def interrupt_calls(self) -> None:
        """Not possible from outside the loop, nor in the midst of it."""

    def begin_anew(self) -> bool:
        self._channels.begin_anew()
        self._loop = None  # calls and streams are the parent's
        return True

    async def close(self) -> None:
        self._channels.closed = True
        channels = self._channels.take()
        if self._loop is not asyncio.get_running_loop():
            return  # their loop is gone, and gRPC takes them down with the last reference
        # By us before gRPC does it, so that who waits learns that it was not he who was cancelled.
        for waiting in (*self._calls, *self._streams):
            waiting.cancel()
        for channel in channels:
            await channel.close()
