"""Calls that tell the truth: deadlines, failover, tokens, and what a failure means.

The rules are written once, over a `Wire`. A wire's awaitables finish at once (the blocking client) or wait
(asyncio); `run` drives a coroutine over a blocking wire to its end. Why the rules are what they are is in
``docs/decisions/``, and what a caller sees of each failure in ``docs/explanation/failures.md``.
"""

from __future__ import annotations

import enum
import ipaddress
import logging
import math
import random
import time
from collections.abc import Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from link_kv._core.wire.config import Config
from link_kv._core.wire.failures import (
    CANCELLED,
    GRPC_OVERHEAD,
    NoAuthentication,
    asks_for_login,
    describe,
    doubt,
    grpc_limit,
    is_too_large,
    out_of_time,
    refusal,
    roles_changed,
)
from link_kv._core.wire.failures import DEADLINE_EXCEEDED as DEADLINE_EXCEEDED
from link_kv._core.wire.failures import UNAVAILABLE as UNAVAILABLE
from link_kv._core.wire.failures import Meaning as Meaning
from link_kv._core.wire.failures import WireFailure as WireFailure
from link_kv._core.wire.failures import meaning as meaning
from link_kv._core.wire.requests import field
from link_kv.errors import Closed, ConfigError, DeadlineExceeded, Unavailable

T = TypeVar("T")

Metadata = tuple[tuple[str, str], ...]

log = logging.getLogger("link_kv.wire")

_FRESH = 10.0
"""Seconds for which an endpoint that answered is trusted with a write that must not be sent twice."""
_FRESH_CLUSTER = 0.1
"""The same where the cluster must be a certain one: no other starts in its place in less."""

_LONGEST_PAUSE = 0.25
"""Seconds between two rounds of tries, once there were some. A try with less time than that, the crumb that
a pause left over, proves nothing by its end: what an endpoint said before it stands."""

_HAS_LEADER: Metadata = (("hasleader", "true"),)
"""What every call carries: a member that is cut off from the others then refuses it at once."""

_ANY_WATCH = field(b"\x0a", field(b"\x0a", b"\0"))
"""A watch on the key ``\\0``. etcd answers it with the cluster's id, even where it denies it."""


def run(operation: Coroutine[Any, Any, T]) -> T:
    """The result of an operation over a blocking wire."""
    try:
        operation.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    operation.close()
    raise RuntimeError("an operation waited on a blocking wire")


@dataclass(frozen=True, eq=False)
class Method:
    """A call of etcd's API, by service and name; the answer's message is ``<message or name>Response``.

    Compared by identity, which makes looking one up as cheap as can be.
    """

    service: str
    name: str
    streams: bool = False
    message: str = ""


RANGE = Method("KV", "Range")
TXN = Method("KV", "Txn")
DELETE_RANGE = Method("KV", "DeleteRange")
LEASE_GRANT = Method("Lease", "LeaseGrant")
LEASE_REVOKE = Method("Lease", "LeaseRevoke")
TIME_TO_LIVE = Method("Lease", "LeaseTimeToLive")
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


class Stream(Protocol):
    """A stream of requests and answers to one endpoint."""

    async def send(self, request: bytes) -> None:
        """Queue a request. Does not wait for its answer; a stream that has ended drops it."""

    async def receive(self) -> Any:
        """The next answer. Raises `WireFailure` when the stream has ended, by whichever side."""

    def cancel(self) -> None:
        """End the stream, from any thread: `receive` then raises. May be called twice."""


class Wire(Protocol):
    """The door to the servers. Implementations: `link_kv._core.wire.transport`."""

    async def send(
        self, endpoint: str, method: Method, request: bytes, timeout: float, metadata: Metadata
    ) -> Any:
        """One call to one endpoint; of a stream, its first answer.

        Raises `WireFailure`, and `Closed` when the wire was closed before anything was sent.
        """

    async def open(
        self, endpoint: str, method: Method, metadata: Metadata, timeout: float | None = None
    ) -> Stream:
        """Start a stream to one endpoint. A dead one shows as a `WireFailure` in `Stream.receive`."""

    async def sleep(self, seconds: float) -> None: ...

    async def finish(self, operation: Coroutine[Any, Any, T]) -> T:
        """The result of an operation that goes on to its end even when the one who waits is cancelled."""

    async def lookup(self, config: Config) -> tuple[str, ...]:
        """The endpoints that a configuration names."""

    def turn(self) -> AbstractAsyncContextManager[Any]:
        """Held by one thread or task at a time, none of which holds it beyond its own deadline."""

    async def close(self) -> None: ...


class Settling(Protocol):
    """Lets a write wait until mirrors show it. Implementation: `link_kv._core.watching.settle`."""

    def prepare(self, operations: Sequence[Any]) -> Sequence[Any]:
        """The operations of a write, such that their answers tell what they touched."""

    async def settle(self, operations: Sequence[Any], answers: Sequence[Any], revision: int) -> None:
        """Wait, not for long, until the mirrors over what was touched are at a revision."""


# Calling


class Caller:
    """Sends calls to a cluster over a wire, by the rules of this module. Thread-safe."""

    def __init__(self, config: Config, wire: Wire) -> None:
        self.config = config
        self.wire = wire
        self.closed = False
        self.settling: Settling | None = None
        """What a write waits for before it returns, while mirrors are open."""
        self._endpoints: tuple[str, ...] = ()
        self._current = 0
        self._metadata: Metadata | None = _HAS_LEADER if config.user is None else None
        self._fresh = _FRESH if config.expected_cluster_id is None else _FRESH_CLUSTER
        self._answered: dict[str, float] = {}
        """When each endpoint was last asked something that it then answered."""

    async def close(self) -> None:
        self.closed = True
        await self.wire.close()

    def __reduce__(self) -> Any:
        raise TypeError("what holds a connection cannot be pickled: pass its options, and make one there")

    async def endpoints(self) -> tuple[str, ...]:
        """The endpoints, looked up where a DNS domain was configured."""
        if not self._endpoints:
            self._endpoints = await self.wire.lookup(self.config)
        return self._endpoints

    async def endpoint(self, timeout: float | None = None) -> str:
        """The endpoint that calls go to at present, made sure to be of the expected cluster."""
        endpoint = (await self.endpoints())[self._current]
        if self.config.expected_cluster_id is not None:
            try:
                await self._greet(endpoint, self._patience(timeout), _HAS_LEADER)
            except WireFailure as failure:
                self.avoid(endpoint)
                raise Unavailable(describe(failure, (endpoint,))) from None
        return endpoint

    async def token(self) -> Metadata:
        """The token of the login, as metadata; empty without a login."""
        metadata = await self._login() if self._metadata is None else self._metadata
        return tuple(pair for pair in metadata if pair not in _HAS_LEADER)

    async def open(self, method: Method, timeout: float | None = None) -> tuple[str, Stream]:
        """Start a stream to the endpoint in use, ended after ``timeout`` seconds, and which that is.

        They begin now, with the login and the greeting that may have to precede it.
        The stream ends when its server loses the leader: without ``hasleader`` a member that is cut off
        keeps a watch open in silence.
        """
        if self.closed:
            raise Closed("the client was closed")
        began = time.monotonic()
        metadata = self._metadata
        if metadata is None:
            metadata = await self._login(began + self._patience(timeout))
        left = None if timeout is None else max(0.0, began + timeout - time.monotonic())
        endpoint = await self.endpoint(left)
        left = None if timeout is None else max(0.0, began + timeout - time.monotonic())
        return endpoint, await self.wire.open(endpoint, method, metadata, left)

    def _patience(self, timeout: float | None) -> float:
        return self.config.timeout if timeout is None else min(timeout, self.config.timeout)

    def avoid(self, endpoint: str) -> None:
        """Go on with another endpoint, if this is still the one in use."""
        endpoints = self._endpoints
        if endpoints and endpoints[self._current] == endpoint:
            self._move_on(self._current, endpoints, "a stream ended")

    async def renew_token(self, timeout: float | None = None) -> None:
        """Fetch a new token, for a stream whose old one was refused."""
        if self.config.user is not None:
            await self._login(time.monotonic() + self._patience(timeout), stale=self._metadata)

    async def call(
        self,
        method: Method,
        request: bytes,
        repeat: Repeat = Repeat.READ,
        deadline: float | None = None,
        each: float = math.inf,
    ) -> Any:
        """The answer to a call. ``deadline`` is a `time.monotonic` time; None gives the configured timeout.

        Of several endpoints each has ``each`` seconds at most, and twice as many with each round: for what an
        endpoint answers at once or, while it starts or is cut off, not for a while.

        Raises `Unavailable` when nothing was done, `OutcomeUnknown` when a write may have been.
        """
        until = time.monotonic() + self.config.timeout if deadline is None else deadline
        if self._metadata is None:
            await self._login(until)
        return await self._send(method, request, repeat, until, each)

    async def _send(
        self,
        method: Method,
        request: bytes,
        repeat: Repeat,
        until: float,
        each: float = math.inf,
        *,
        login: bool = True,
    ) -> Any:
        """The loop of `call`. Without ``login`` no token is sent or fetched, because one is being fetched."""
        endpoints = self._endpoints or await self.endpoints()
        if self.closed:
            raise Closed("the client was closed")
        count = len(endpoints)
        began = now = time.monotonic()
        doubtful: WireFailure | None = None
        last: WireFailure | None = None
        renewed = not login
        tries = 0
        while (left := until - now) > 0:
            number = self._current
            endpoint = endpoints[number]
            metadata = (self._metadata or _HAS_LEADER) if login else _HAS_LEADER
            share = left
            if count > 1:
                share = min(left * _share(tries % count, count), each * 2.0 ** min(tries // count, 9))
            crumb = (left if repeat is Repeat.ONCE else share) < _LONGEST_PAUSE
            sent = False
            try:
                if now - self._answered.get(endpoint, -math.inf) > self._fresh and (
                    repeat is not Repeat.READ or self.config.expected_cluster_id is not None
                ):
                    await self._greet(endpoint, share, metadata)
                    left = until - time.monotonic()
                sent = True
                answer = await self.wire.send(
                    endpoint, method, request, left if repeat is Repeat.ONCE else min(share, left), metadata
                )
            except WireFailure as failure:
                failed = failure
                what = meaning(failure) if sent else Meaning.NEVER_SENT
                if roles_changed(failure) and (renewed or metadata is _HAS_LEADER):
                    what = Meaning.NOT_APPLIED  # they changed again, and the token is good or a certificate's
            except (Closed, ConfigError) as error:
                # Closed meanwhile, or another cluster: this time nothing was sent.
                if doubtful is not None:
                    raise doubt(doubtful, endpoints) from error
                raise
            else:
                self._note_answer(endpoint, now)
                if doubtful is not None and not getattr(answer, "succeeded", True):
                    # The first arrival may be what made the guard of the second fail.
                    raise doubt(doubtful, endpoints)
                return answer
            if last is None or not (crumb and out_of_time(failed)):
                last = failed
            refused = what in (Meaning.FINAL, Meaning.STALE_TOKEN)
            if refused:
                self._note_answer(endpoint, now)
            elif failed.code != CANCELLED:  # by us, before a fork
                self._move_on(number, endpoints, failed.details)
            if what is Meaning.UNKNOWN and repeat is not Repeat.READ:
                doubtful = failed
            if doubtful is not None and (refused or self.closed or repeat is Repeat.ONCE):
                raise doubt(doubtful, endpoints)
            if self.closed:
                raise Closed("the client was closed")
            if refused:
                if renewed or self.config.user is None or not asks_for_login(failed):
                    limit = await self._request_limit(failed, endpoint, request, until)
                    raise refusal(failed, len(request), limit)
                renewed = True
                await self._login(until, stale=metadata)
            else:
                tries += 1
                if tries % count == 0:
                    pause = random.uniform(0.5, 1.0) * min(_LONGEST_PAUSE, 0.05 * (tries // count))
                    await self.wire.sleep(max(0.0, min(pause, until - time.monotonic())))
            now = time.monotonic()
        if doubtful is not None:
            raise doubt(doubtful, endpoints)
        if last is not None and not out_of_time(last):
            raise Unavailable(describe(last, endpoints))
        seconds = max(0.0, until - began)
        raise DeadlineExceeded(f"no answer from etcd at {', '.join(endpoints)} within {seconds:.3g} s")

    def _note_answer(self, endpoint: str, asked: float) -> None:
        if endpoint not in self._answered:
            log.info("etcd at %s answers", endpoint)
        self._answered[endpoint] = asked

    def _move_on(self, number: int, endpoints: tuple[str, ...], why: str) -> None:
        """Go on with the next endpoint, unless somebody else has done so."""
        known = self._answered.pop(endpoints[number], None) is not None
        if self._current == number:
            self._current = (number + 1) % len(endpoints)
        if known and not self.closed:
            following = f", going on with {endpoints[self._current]}" if len(endpoints) > 1 else ""
            log.warning("etcd at %s does not answer%s: %s", endpoints[number], following, why)

    async def _greet(self, endpoint: str, timeout: float, metadata: Metadata) -> None:
        """Ask an endpoint something harmless before it is given what cannot be taken back.

        What then fails was never sent. Raises `ConfigError` when it belongs to another cluster than expected.
        """
        asked = time.monotonic()
        expected = self.config.expected_cluster_id
        if expected is None:
            try:
                await self.wire.send(endpoint, STATUS, b"", timeout, metadata)
            except WireFailure as failure:
                if meaning(failure) not in (Meaning.FINAL, Meaning.STALE_TOKEN):
                    raise
        else:
            # No token goes to a cluster that is not known yet.
            answer = await self.wire.send(endpoint, WATCH, _ANY_WATCH, timeout, ())
            found = answer.header.cluster_id
            if found != expected:
                raise ConfigError(f"expected_cluster_id is {expected:x}: {endpoint} belongs to {found:x}")
        self._note_answer(endpoint, asked)

    async def _request_limit(
        self, failure: WireFailure, endpoint: str, request: bytes, until: float
    ) -> int | None:
        """The server's limit for requests, where a request was over it.

        etcd does not name it, but its gRPC names its own to a message that is over both: so send one, made of
        a field that no server knows.
        """
        if not is_too_large(failure):
            return None
        named = grpc_limit(failure)
        if named is None:
            longer = field(b"\xfa\x7f", bytes(len(request) + GRPC_OVERHEAD))
            try:
                await self.wire.send(endpoint, STATUS, longer, until - time.monotonic(), _HAS_LEADER)
            except WireFailure as refused:
                named = grpc_limit(refused)
        return named - GRPC_OVERHEAD if named else None

    # Logging in

    async def _login(self, until: float | None = None, stale: Metadata | None = None) -> Metadata:
        """Fetch a token, unless another thread or task has replaced the ``stale`` one meanwhile."""
        if until is None:
            until = time.monotonic() + self.config.timeout
        self._refuse_plaintext(await self.endpoints())
        async with self.wire.turn():
            if self._metadata is None or self._metadata is stale:
                self._metadata = await self._authenticate(until)
            return self._metadata

    async def _authenticate(self, until: float) -> Metadata:
        user, password = self.config.user or "", self.config.password or ""
        request = field(b"\x0a", user.encode()) + field(b"\x12", password.encode())
        try:
            answer = await self._send(AUTHENTICATE, request, Repeat.READ, until, login=False)
        except NoAuthentication:
            log.info("etcd knows no logins: user and password are not used")
            return _HAS_LEADER
        log.info("logged in to etcd as %s", user)
        return (*_HAS_LEADER, ("token", answer.token))

    def _refuse_plaintext(self, endpoints: tuple[str, ...]) -> None:
        """Raise rather than send a password where others can read it."""
        if self.config.tls or self.config.insecure_password:
            return
        for endpoint in endpoints:
            if not _is_loopback(endpoint.rpartition(":")[0]):
                raise ConfigError(
                    f"password: it would go to {endpoint} unencrypted; use TLS (ca_cert=, tls=True or an "
                    "etcds:// URL), or say insecure_password=True where the network is trusted"
                )


def _share(turn: int, count: int) -> float:
    """How much of the time that is left the next of ``count`` endpoints may take.

    The first the least, so that one that is frozen costs little; the last all that is left, for a server that
    is slow. Of three: 1/6, 2/6 and 3/6.
    """
    return 2 * (turn + 1) / (count * (count + 1) - turn * (turn + 1))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
