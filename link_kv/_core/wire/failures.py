"""What a call that failed means: for its request, and for who asked.

The signatures are those of gRPC 1.60 to 1.85 and of etcd 3.4 to 3.5, as seen on the wire.
"""

from __future__ import annotations

import enum
import re

from link_kv._core.wire.options import DEFAULT_HOST, DEFAULT_PORT
from link_kv.errors import (
    AccessDenied,
    KeyExists,
    LeaseLost,
    LinkKVError,
    NoSpace,
    NotFound,
    OutcomeUnknown,
    RevisionError,
    TooLarge,
)

DEFAULT_REQUEST_LIMIT = 1536 * 1024
"""etcd's default for --max-request-bytes."""
GRPC_OVERHEAD = 512 * 1024
"""By how much a message may be longer than that before etcd's gRPC refuses it, naming its own limit."""


class WireFailure(Exception):
    """A call that failed, with gRPC's status code and the server's words."""

    def __init__(self, code: int, details: str) -> None:
        super().__init__(code, details)
        self.code = code
        self.details = details


class Meaning(enum.Enum):
    """What a failed call means for a request."""

    NEVER_SENT = "never sent"
    NOT_APPLIED = "refused by a server that cannot now"
    UNKNOWN = "sent, and no answer"
    STALE_TOKEN = "token expired"
    FINAL = "refused"


# gRPC status codes.
CANCELLED, UNKNOWN, INVALID_ARGUMENT, DEADLINE_EXCEEDED, NOT_FOUND = 1, 2, 3, 4, 5
PERMISSION_DENIED, RESOURCE_EXHAUSTED, FAILED_PRECONDITION, OUT_OF_RANGE = 7, 8, 9, 11
UNIMPLEMENTED, INTERNAL, UNAVAILABLE, UNAUTHENTICATED = 12, 13, 14, 16

_NO_CONNECTION = (
    "failed to connect to all addresses",
    "empty address list",
    "errors resolving ",
    "DNS resolution failed",
)
"""How gRPC's words begin when a call found no connection to go over."""

_TLS_WORDS = (
    ("CERTIFICATE_VERIFY_FAILED", "ca_cert does not vouch for the server's certificate"),
    ("Hostname Verification", "the server's certificate is not for this host name"),
    ("is not in peer certificate", "the server's certificate is not for this host name"),
    (
        "SSLV3_ALERT_BAD_CERTIFICATE",
        "the server wants a client certificate that it trusts: cert_cert, cert_key",
    ),
    ("CERTIFICATE_REQUIRED", "the server wants a client certificate: cert_cert, cert_key"),
    ("Unwrap failed", "perhaps the server wants a client certificate that it trusts: cert_cert, cert_key"),
    ("Socket closed", "perhaps one side speaks TLS and the other does not"),
)
"""What words of gRPC's about a connection come from."""


def meaning(failure: WireFailure) -> Meaning:
    """Read a failure, from the signatures that etcd and gRPC give (``docs/explanation/failures.md``)."""
    code, details = failure.code, failure.details
    if code == UNAUTHENTICATED or roles_changed(failure):
        return Meaning.STALE_TOKEN
    if code == UNAVAILABLE:
        if details.startswith(_NO_CONNECTION):
            return Meaning.NEVER_SENT
        if details in ("etcdserver: no leader", "etcdserver: rpc not supported for learner"):
            return Meaning.NOT_APPLIED
        return Meaning.UNKNOWN
    if code in (DEADLINE_EXCEEDED, INTERNAL, UNKNOWN, CANCELLED):
        return Meaning.UNKNOWN
    if code == RESOURCE_EXHAUSTED and "too many requests" in details:
        return Meaning.NOT_APPLIED
    return Meaning.FINAL


def out_of_time(failure: WireFailure) -> bool:
    """Whether an answer did not come in time. A server that stood still says so of what waited in it."""
    return failure.code == DEADLINE_EXCEEDED or failure.details == "context deadline exceeded"


def roles_changed(failure: WireFailure) -> bool:
    """Whether etcd refused a request because users or roles changed while it was under way."""
    return failure.details.endswith(("revision of auth store is old", "revision in header is old"))


def asks_for_login(failure: WireFailure) -> bool:
    """Whether a new token mends it: the old one expired, or logins were turned on since."""
    return meaning(failure) is Meaning.STALE_TOKEN or "user name is empty" in failure.details


class NoAuthentication(LinkKVError):
    """The cluster knows no logins."""


def refusal(failure: WireFailure, size: int = 0, limit: int | None = None) -> LinkKVError:
    """A failure that no repetition mends, as our error. ``limit`` is what a request of ``size`` was over."""
    code, details = failure.code, failure.details
    words = details.removeprefix("etcdserver: ")
    if is_too_large(failure):
        limits = f"limit of {limit}" if limit else f"limit, by default {DEFAULT_REQUEST_LIMIT}"
        return TooLarge(f"the request has {size} bytes, over the server's {limits} (--max-request-bytes)")
    if code == RESOURCE_EXHAUSTED and "space exceeded" in details:
        return NoSpace(f"etcd refuses writes, {words}: delete or compact, defragment, then disarm the alarm")
    if code == PERMISSION_DENIED:
        return AccessDenied(f"etcd: {words}: the user's role does not reach the key")
    if "authentication failed" in details or "user name is empty" in details:
        return AccessDenied(f"etcd: {words}: give user= and password=")
    if meaning(failure) is Meaning.STALE_TOKEN:
        return AccessDenied(f"etcd: {words}")
    if code == FAILED_PRECONDITION and "authentication is not enabled" in details:
        return NoAuthentication(words)
    if code == FAILED_PRECONDITION and "already exists" in details:
        return KeyExists(words)
    if code == FAILED_PRECONDITION and re.search("(user|role) name not found|is not granted to the", details):
        return NotFound(words)
    if code == OUT_OF_RANGE:
        return RevisionError(f"etcd: {words}")
    if code == NOT_FOUND and "lease" in details:
        return LeaseLost(f"etcd: {words}")
    if code == UNIMPLEMENTED:
        return LinkKVError(f"what answers does not know this request, it may be no etcd: {details}")
    return LinkKVError(f"etcd refused the request (status {code}): {details}")


def is_too_large(failure: WireFailure) -> bool:
    code, details = failure.code, failure.details
    return (code == INVALID_ARGUMENT and "request is too large" in details) or grpc_limit(failure) is not None


def grpc_limit(failure: WireFailure) -> int | None:
    """The longest message that a server's gRPC takes, from its refusal of one that was longer."""
    found = re.search(r"larger than max \(\d+ vs\. (\d+)\)", failure.details)
    return int(found[1]) if found and failure.code == RESOURCE_EXHAUSTED else None


_NOBODY_SAID = "start one with `link-kv up`, or say where yours is: endpoints=, LINK_KV_ENDPOINTS"


def describe(failure: WireFailure, endpoints: tuple[str, ...]) -> str:
    where = ", ".join(endpoints)
    words = failure.details.rsplit("; last error: ", 1)[-1] or f"status {failure.code}"
    what = meaning(failure)
    if what is Meaning.NEVER_SENT:
        hints = [f"{hint}: " for sign, hint in _TLS_WORDS if sign in words]
        advice = f" ({_NOBODY_SAID})" if endpoints == (f"{DEFAULT_HOST}:{DEFAULT_PORT}",) else ""
        return f"no etcd answers at {where}: {''.join(hints)}{words}{advice}"
    if what is Meaning.NOT_APPLIED:
        return f"etcd at {where} refused for now: {words.removeprefix('etcdserver: ')}"
    return f"etcd at {where} did not answer: {words}"


def doubt(failure: WireFailure, endpoints: tuple[str, ...]) -> OutcomeUnknown:
    return OutcomeUnknown(f"the write may or may not have happened: {describe(failure, endpoints)}")
