"""Calls that tell the truth: deadlines, failover, tokens, and what a failure means.

The rules are written once, over a `Wire`. A wire's awaitables finish at once (the blocking client) or wait
(asyncio); `run` drives a coroutine over a blocking wire to its end.
"""

from __future__ import annotations

import enum
import random
import re
import time
from collections.abc import Coroutine
from typing import Any, NamedTuple, Protocol, TypeVar

from link_kv._core.config import Config
from link_kv._core.requests import field
from link_kv.errors import (
    AccessDenied,
    Closed,
    ConfigError,
    DeadlineExceeded,
    LeaseLost,
    LinkKVError,
    NoSpace,
    OutcomeUnknown,
    RevisionError,
    TooLarge,
    Unavailable,
)

T = TypeVar("T")

DEFAULT_REQUEST_LIMIT = 1536 * 1024
"""etcd's default for --max-request-bytes."""


def run(operation: Coroutine[Any, Any, T]) -> T:
    """The result of an operation over a blocking wire."""
    try:
        operation.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    operation.close()
    raise RuntimeError("an operation waited on a blocking wire")


class Method(NamedTuple):
    """A call of etcd's API, by service and name; the answer's message is ``<name>Response``."""

    service: str
    name: str
    streams: bool = False


RANGE = Method("KV", "Range")
TXN = Method("KV", "Txn")
LEASE_GRANT = Method("Lease", "LeaseGrant")
LEASE_REVOKE = Method("Lease", "LeaseRevoke")
AUTHENTICATE = Method("Auth", "Authenticate")
STATUS = Method("Maintenance", "Status")
WATCH = Method("Watch", "Watch", True)
KEEP_ALIVE = Method("Lease", "LeaseKeepAlive", True)


class Repeat(enum.Enum):
    """What may be sent again when its answer did not come."""

    READ = "read"
    """Anything that changes nothing."""
    GUARDED = "guarded"
    """A write whose second arrival fails its compares."""
    ONCE = "once"
    """Any other write: again only when it was never sent."""


class WireFailure(Exception):
    """A call that failed, with gRPC's status code and the server's words."""

    def __init__(self, code: int, details: str) -> None:
        super().__init__(code, details)
        self.code = code
        self.details = details


class Stream(Protocol):
    """A stream of requests and answers to one endpoint."""

    async def send(self, request: bytes) -> None:
        """Queue a request. Does not wait for its answer; a stream that has ended drops it."""

    async def receive(self) -> Any:
        """The next answer. Raises `WireFailure` when the stream has ended, by whichever side."""

    def cancel(self) -> None:
        """End the stream, from any thread: `receive` then raises. May be called twice."""


class Wire(Protocol):
    """The door to the servers. Implementations: `link_kv._core.transport`."""

    async def send(
        self,
        endpoint: str,
        method: Method,
        request: bytes,
        timeout: float,
        metadata: tuple[tuple[str, str], ...] | None,
    ) -> Any:
        """One call to one endpoint; of a stream, its first answer. Raises `WireFailure`."""

    async def open(
        self,
        endpoint: str,
        method: Method,
        metadata: tuple[tuple[str, str], ...],
        timeout: float | None = None,
    ) -> Stream:
        """Start a stream to one endpoint. A dead one shows as a `WireFailure` in `Stream.receive`."""

    async def sleep(self, seconds: float) -> None: ...

    async def lookup(self, config: Config) -> tuple[str, ...]:
        """The endpoints that a configuration names."""

    async def close(self) -> None: ...


class Meaning(enum.Enum):
    """What a failed call means for a request."""

    NEVER_SENT = "never sent"
    NOT_APPLIED = "refused by a server that is busy"
    UNKNOWN = "sent, and no answer"
    STALE_TOKEN = "token expired"
    FINAL = "refused"


# gRPC status codes.
CANCELLED, UNKNOWN, INVALID_ARGUMENT, DEADLINE_EXCEEDED, NOT_FOUND = 1, 2, 3, 4, 5
PERMISSION_DENIED, RESOURCE_EXHAUSTED, FAILED_PRECONDITION, OUT_OF_RANGE = 7, 8, 9, 11
INTERNAL, UNAVAILABLE, UNAUTHENTICATED = 13, 14, 16


def meaning(failure: WireFailure) -> Meaning:
    """Read a failure, from the signatures that etcd and gRPC give (``docs/explanation/failures.md``)."""
    code, details = failure.code, failure.details
    if code == UNAUTHENTICATED or "revision of auth store is old" in details:
        return Meaning.STALE_TOKEN
    if code == UNAVAILABLE:
        return Meaning.NEVER_SENT if "failed to connect to all addresses" in details else Meaning.UNKNOWN
    if code in (DEADLINE_EXCEEDED, INTERNAL, UNKNOWN, CANCELLED):
        return Meaning.UNKNOWN
    if code == RESOURCE_EXHAUSTED and "too many requests" in details:
        return Meaning.NOT_APPLIED
    return Meaning.FINAL


def refusal(failure: WireFailure, size: int, request_limit: int | None) -> LinkKVError:
    """A failure that no repetition mends, as our error."""
    code, details = failure.code, failure.details
    words = details.removeprefix("etcdserver: ")
    if code == RESOURCE_EXHAUSTED and "larger than max" in details:
        reported = re.search(r"\(\d+ vs\. (\d+)\)", details)
        return too_large(size, int(reported.group(1)) if reported else request_limit, "reported")
    if code == INVALID_ARGUMENT and "request is too large" in details:
        return too_large(size, request_limit, "default" if request_limit is None else "configured")
    if code == RESOURCE_EXHAUSTED and "space exceeded" in details:
        return NoSpace(f"etcd refuses writes, {words}: delete or compact, defragment, then disarm the alarm")
    if code == PERMISSION_DENIED:
        return AccessDenied(f"etcd: {words}: the user's role does not reach the key")
    if code == INVALID_ARGUMENT and ("authentication failed" in details or "user name is empty" in details):
        return AccessDenied(f"etcd: {words}: give user= and password=")
    if code == OUT_OF_RANGE:
        return RevisionError(f"etcd: {words}")
    if code == NOT_FOUND and "lease" in details:
        return LeaseLost(f"etcd: {words}")
    return LinkKVError(f"etcd refused the request (status {code}): {details}")


def too_large(size: int, limit: int | None, origin: str) -> TooLarge:
    shown = DEFAULT_REQUEST_LIMIT if limit is None else limit
    return TooLarge(
        f"the request has {size} bytes, over the server's {origin} limit of {shown} (--max-request-bytes)"
    )


class Caller:
    """Sends calls to a cluster over a wire, by the rules of this module. Thread-safe."""

    def __init__(self, config: Config, wire: Wire) -> None:
        self.config = config
        self.wire = wire
        self.closed = False
        self._endpoints: tuple[str, ...] = ()
        self._current = 0
        self._metadata: tuple[tuple[str, str], ...] | None = None
        self._verified: set[str] = set()

    async def close(self) -> None:
        self.closed = True
        await self.wire.close()

    async def endpoints(self) -> tuple[str, ...]:
        """The endpoints, looked up where a DNS domain was configured."""
        if not self._endpoints:
            self._endpoints = await self.wire.lookup(self.config)
        return self._endpoints

    async def endpoint(self) -> str:
        """The endpoint that calls go to at present."""
        endpoints = await self.endpoints()
        return endpoints[self._current % len(endpoints)]

    async def metadata(self) -> tuple[tuple[str, str], ...] | None:
        """What every call carries: the token of a login."""
        if self._metadata is None and self.config.user is not None:
            await self._authenticate(time.monotonic() + self.config.timeout)
        return self._metadata

    async def open(self, method: Method, timeout: float | None = None) -> tuple[str, Stream]:
        """Start a stream to the endpoint in use, ended after ``timeout`` seconds, and which that is.

        The stream ends when its server loses the leader: without ``hasleader`` a member that is cut off
        keeps a watch open in silence.
        """
        endpoint = await self.endpoint()
        if self.closed:
            raise Closed("the client was closed")
        token = await self.metadata() or ()
        return endpoint, await self.wire.open(endpoint, method, (*token, ("hasleader", "true")), timeout)

    def avoid(self, endpoint: str) -> None:
        """Go on with another endpoint, if this is still the one in use."""
        endpoints = self._endpoints
        if endpoints and endpoints[self._current % len(endpoints)] == endpoint:
            self._current = (self._current + 1) % len(endpoints)

    async def renew_token(self) -> None:
        """Fetch a new token, for a stream whose old one was refused."""
        if self.config.user is not None:
            await self._authenticate(time.monotonic() + self.config.timeout)

    async def call(
        self,
        method: Method,
        request: bytes,
        repeat: Repeat = Repeat.READ,
        deadline: float | None = None,
    ) -> Any:
        """The answer to a call. ``deadline`` is a `time.monotonic` time; None gives the configured timeout.

        Raises `Unavailable` when nothing was done, `OutcomeUnknown` when a write may have been.
        """
        now = time.monotonic()
        until = now + self.config.timeout if deadline is None else deadline
        endpoints = self._endpoints or await self.endpoints()
        if self.closed:
            raise Closed("the client was closed")
        if self._metadata is None and self.config.user is not None:
            await self._authenticate(until)
        doubtful: WireFailure | None = None
        last: WireFailure | None = None
        renewed = False
        tries = 0
        while True:
            number = self._current
            endpoint = endpoints[number % len(endpoints)]
            left = until - time.monotonic()
            if left <= 0:
                break
            share = left
            if repeat is Repeat.READ and len(endpoints) > 1:
                share = left / max(1, len(endpoints) - tries)
            try:
                if self.config.expected_cluster_id is not None and endpoint not in self._verified:
                    await self._verify(endpoint, share)
                answer = await self.wire.send(endpoint, method, request, share, self._metadata)
            except WireFailure as failure:
                if self.closed:
                    raise Closed("the client was closed") from None
                last = failure
                what = meaning(failure)
            else:
                if doubtful is not None and not getattr(answer, "succeeded", True):
                    # The first arrival may be what made the guard of the second fail.
                    raise OutcomeUnknown(self._describe(doubtful, endpoints))
                return answer
            if what is Meaning.FINAL:
                if doubtful is not None:
                    raise OutcomeUnknown(self._describe(doubtful, endpoints))
                raise refusal(last, len(request), None)
            if what is Meaning.STALE_TOKEN:
                if renewed or self.config.user is None:
                    raise AccessDenied(f"etcd: {last.details}")
                renewed = True
                await self._authenticate(until)
                continue
            if self._current == number:
                self._current = (number + 1) % len(endpoints)
            if what is Meaning.UNKNOWN:
                if repeat is Repeat.ONCE:
                    raise OutcomeUnknown(self._describe(last, endpoints))
                if repeat is Repeat.GUARDED:
                    doubtful = last
            tries += 1
            if tries >= len(endpoints):
                pause = random.uniform(0.5, 1.0) * min(0.25, 0.025 * 2 ** (tries - len(endpoints)))
                await self.wire.sleep(min(pause, max(0.0, until - time.monotonic())))
        if doubtful is not None:
            raise OutcomeUnknown(self._describe(doubtful, endpoints))
        if last is not None and last.code != DEADLINE_EXCEEDED:
            raise Unavailable(self._describe(last, endpoints))
        raise DeadlineExceeded(f"no answer from etcd at {', '.join(endpoints)} within {until - now:.3g} s")

    def _describe(self, failure: WireFailure, endpoints: tuple[str, ...]) -> str:
        words = failure.details.rsplit("; last error: ", 1)[-1] or f"status {failure.code}"
        where = ", ".join(endpoints)
        if meaning(failure) is Meaning.NEVER_SENT:
            return f"no etcd answers at {where}: {words}"
        return f"etcd at {where} did not answer: {words}"

    async def _verify(self, endpoint: str, timeout: float) -> None:
        """Make sure, before anything else is sent there, that an endpoint belongs to the expected cluster."""
        answer = await self.wire.send(endpoint, STATUS, b"", timeout, self._metadata)
        found, expected = answer.header.cluster_id, self.config.expected_cluster_id
        if found != expected:
            raise ConfigError(f"expected_cluster_id is {expected:x}, but {endpoint} answers for {found:x}")
        self._verified.add(endpoint)

    async def _authenticate(self, until: float) -> None:
        """Fetch a token, from whichever endpoint answers."""
        user, password = self.config.user or "", self.config.password or ""
        request = field(b"\x0a", user.encode()) + field(b"\x12", password.encode())
        endpoints = await self.endpoints()
        failure: WireFailure | None = None
        tries = 0
        while (left := until - time.monotonic()) > 0:
            endpoint = endpoints[(self._current + tries) % len(endpoints)]
            share = left / max(1, len(endpoints) - tries)
            try:
                answer = await self.wire.send(endpoint, AUTHENTICATE, request, share, None)
            except WireFailure as failed:
                failure = failed
                if failed.code == FAILED_PRECONDITION:
                    # Authentication is not enabled: no token is needed.
                    self._metadata = ()
                    return
                if meaning(failed) is Meaning.FINAL:
                    raise refusal(failed, len(request), None) from None
                tries += 1
                if tries >= len(endpoints):
                    await self.wire.sleep(min(0.05, max(0.0, until - time.monotonic())))
            else:
                self._metadata = (("token", answer.token),)
                return
        raise Unavailable(
            self._describe(failure, endpoints) if failure else f"no etcd answers at {', '.join(endpoints)}"
        )
