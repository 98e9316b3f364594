"""The one module that knows gRPC: channels, calls, and their failures.

A `BlockingWire` and an `AsyncWire` offer the same door (`link_kv._core.calls.Wire`). Channels are made at
the first call to an endpoint, again in a process that was forked, and again when a certificate changes.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
import time
from typing import Any

import grpc

from link_kv._core.calls import UNAVAILABLE, Method, WireFailure
from link_kv._core.config import Config, lookup_srv
from link_kv._core.revived import messages
from link_kv.errors import Closed, ConfigError

_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # A frozen server or a dead NAT entry is noticed within 12 s only by these three together; etcd refuses
    # pings more often than every 5 s.
    ("grpc.keepalive_time_ms", 8000),
    ("grpc.keepalive_timeout_ms", 3000),
    ("grpc.http2.ping_timeout_ms", 3000),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.http2.max_pings_without_data", 0),
    # After an outage the default backoff costs seconds.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # Retries are decided in one place, and it is not this one.
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
    # Two clients of one process do not share a connection.
    ("grpc.use_local_subchannel_pool", 1),
)


def _read(path: str, option: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise ConfigError(f"{option}: cannot read {path}: {error.strerror}") from None


def _certificates(config: Config) -> tuple[bytes | None, bytes | None, bytes | None]:
    """The CA, the key and the certificate; a combined file holds key and certificate."""
    ca = _read(config.ca_cert, "ca_cert") if config.ca_cert else None
    cert = _read(config.cert_cert, "cert_cert") if config.cert_cert else None
    key = _read(config.cert_key, "cert_key") if config.cert_key else cert
    return ca, key, cert


def _stamp(config: Config) -> tuple[tuple[int, int], ...]:
    """What changes when a certificate file does."""
    stamps = []
    for path in (config.ca_cert, config.cert_cert, config.cert_key):
        if path:
            try:
                status = os.stat(path)
            except OSError:
                continue
            stamps.append((status.st_mtime_ns, status.st_ino))
    return tuple(stamps)


class _Channels:
    """The channels of one wire, one for each endpoint."""

    def __init__(self, config: Config, module: Any) -> None:
        self._config = config
        self._module = module
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._channels: dict[str, Any] = {}
        self._stubs: dict[tuple[str, Method], Any] = {}
        self._stamp: tuple[tuple[int, int], ...] = ()
        self.closed = False

    def stub(self, endpoint: str, method: Method) -> Any:
        if self._pid != os.getpid():
            self._forked()
        if self._config.tls and _stamp(self._config) != self._stamp:
            self.forget()
        found = self._stubs.get((endpoint, method))
        return found if found is not None else self._make(endpoint, method)

    def _make(self, endpoint: str, method: Method) -> Any:
        answer = getattr(messages(), method.name + "Response")
        with self._lock:
            if self.closed:
                raise Closed("the client was closed")
            channel = self._channels.get(endpoint)
            if channel is None:
                channel = self._channels[endpoint] = self._connect(endpoint)
            kind = channel.stream_stream if method.streams else channel.unary_unary
            stub = kind(
                f"/etcdserverpb.{method.service}/{method.name}",
                response_deserializer=answer.FromString,
            )
            self._stubs[endpoint, method] = stub
            return stub

    def _connect(self, endpoint: str) -> Any:
        if not self._config.tls:
            return self._module.insecure_channel(endpoint, options=_OPTIONS)
        self._stamp = _stamp(self._config)
        credentials = grpc.ssl_channel_credentials(*_certificates(self._config))
        return self._module.secure_channel(endpoint, credentials, options=_OPTIONS)

    def _forked(self) -> None:
        # The parent's channels are of no use here, and closing them would disturb the parent's connection.
        self.forget()
        self._pid = os.getpid()

    def forget(self) -> None:
        """Make new channels from now on; calls under way keep the old ones until they are done."""
        with self._lock:
            self._channels, self._stubs = {}, {}

    def take(self) -> list[Any]:
        """Hand over the channels, to be closed."""
        with self._lock:
            self.closed = True
            channels, self._channels, self._stubs = list(self._channels.values()), {}, {}
            return channels if self._pid == os.getpid() else []


class _BlockingStream:
    def __init__(self, stub: Any, metadata: tuple[tuple[str, str], ...], timeout: float | None) -> None:
        self._requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._call = stub(iter(self._requests.get, None), metadata=metadata, timeout=timeout)

    async def send(self, request: bytes) -> None:
        self._requests.put(request)

    async def receive(self) -> Any:
        try:
            return next(self._call)
        except grpc.RpcError as error:
            raise _failure(error) from None
        except StopIteration:
            raise WireFailure(UNAVAILABLE, "the server ended the stream") from None
        finally:
            if not self._call.is_active():
                self._requests.put(None)  # lets grpc's sending thread end

    def cancel(self) -> None:
        self._call.cancel()
        self._requests.put(None)


class _AsyncStream:
    def __init__(self, stub: Any, metadata: tuple[tuple[str, str], ...], timeout: float | None) -> None:
        self._call = stub(metadata=metadata, timeout=timeout)

    async def send(self, request: bytes) -> None:
        try:
            await self._call.write(request)
        except (grpc.RpcError, asyncio.InvalidStateError):
            return  # `receive` tells

    async def receive(self) -> Any:
        try:
            answer = await self._call.read()
        except grpc.RpcError as error:
            raise _failure(error) from None
        if answer is grpc.aio.EOF:  # type: ignore[attr-defined]
            raise WireFailure(UNAVAILABLE, "the server ended the stream")
        return answer

    def cancel(self) -> None:
        self._call.cancel()


class BlockingWire:
    """Calls that block their thread. Thread-safe."""

    def __init__(self, config: Config) -> None:
        self._channels = _Channels(config, grpc)

    async def send(
        self,
        endpoint: str,
        method: Method,
        request: bytes,
        timeout: float,
        metadata: tuple[tuple[str, str], ...] | None,
    ) -> Any:
        stub = self._channels.stub(endpoint, method)
        try:
            if not method.streams:
                return stub(request, timeout=timeout, metadata=metadata)
            call = stub(iter((request,)), timeout=timeout, metadata=metadata)
            answer = next(call)
            call.cancel()
            return answer
        except grpc.RpcError as error:
            raise _failure(error) from None
        except StopIteration:
            raise WireFailure(UNAVAILABLE, "the server ended the stream") from None
        except ValueError as error:
            # grpc's word for a channel that another thread has closed.
            raise Closed(f"the client was closed: {error}") from None

    async def open(
        self,
        endpoint: str,
        method: Method,
        metadata: tuple[tuple[str, str], ...],
        timeout: float | None = None,
    ) -> _BlockingStream:
        return _BlockingStream(self._channels.stub(endpoint, method), metadata, timeout)

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    async def lookup(self, config: Config) -> tuple[str, ...]:
        return _lookup(config)

    async def close(self) -> None:
        for channel in self._channels.take():
            channel.close()


class AsyncWire:
    """Calls that wait in the running asyncio loop."""

    def __init__(self, config: Config) -> None:
        import grpc.aio

        self._channels = _Channels(config, grpc.aio)
        self._loop: asyncio.AbstractEventLoop | None = None

    def _stub(self, endpoint: str, method: Method) -> Any:
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            # A channel belongs to the loop that it was made in.
            self._channels.forget()
            self._loop = loop
        return self._channels.stub(endpoint, method)

    async def send(
        self,
        endpoint: str,
        method: Method,
        request: bytes,
        timeout: float,
        metadata: tuple[tuple[str, str], ...] | None,
    ) -> Any:
        stub = self._stub(endpoint, method)
        try:
            if not method.streams:
                return await stub(request, timeout=timeout, metadata=metadata)
            call = stub(iter((request,)), timeout=timeout, metadata=metadata)
            answer = await call.read()
            call.cancel()
            if answer is grpc.aio.EOF:  # type: ignore[attr-defined]
                raise WireFailure(UNAVAILABLE, "the server ended the stream")
            return answer
        except grpc.RpcError as error:
            raise _failure(error) from None

    async def open(
        self,
        endpoint: str,
        method: Method,
        metadata: tuple[tuple[str, str], ...],
        timeout: float | None = None,
    ) -> _AsyncStream:
        return _AsyncStream(self._stub(endpoint, method), metadata, timeout)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def lookup(self, config: Config) -> tuple[str, ...]:
        if config.srv_domain is None:
            return config.endpoints
        return await asyncio.to_thread(_lookup, config)

    async def close(self) -> None:
        for channel in self._channels.take():
            await channel.close()


def _lookup(config: Config) -> tuple[str, ...]:
    if config.srv_domain is None:
        return config.endpoints
    return lookup_srv(config.srv_domain, config.tls, config.timeout)


def _failure(error: Any) -> WireFailure:
    return WireFailure(error.code().value[0], error.details() or "")
