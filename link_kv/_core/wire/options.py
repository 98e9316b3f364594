"""The options of a client: their names, and what their values may be.

Values come as Python objects from keywords and as text from everywhere else; one function takes both.
"""

from __future__ import annotations

import configparser
import contextlib
import ipaddress
import math
import os
import re
from collections.abc import Callable, Sequence
from typing import Any

DEFAULT_HOST = "localhost"
DEFAULT_PORT = 2379
DEFAULT_TIMEOUT = 5.0
LONGEST_TIMEOUT = 1e9
"""gRPC's clock counts nanoseconds in 64 bits: a deadline beyond its end is never met, nor a call sent."""

# The options that are files.
PATHS = ("ca_cert", "cert_cert", "cert_key")


HIDDEN = object()
"""In place of a value that no place may show."""


class Bad(Exception):
    """Why a value does not fit. The value stands apart, because not every place may show it."""

    def __init__(self, reason: str, value: object) -> None:
        super().__init__(reason)
        self.value = value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise Bad("must be a str", type(value).__name__)
    return value


def _sent(value: object) -> str:
    """Text that goes to etcd, which takes UTF-8."""
    text = _text(value)
    if re.search("[\ud800-\udfff]", text):
        raise Bad("has lone surrogates, and etcd takes UTF-8", HIDDEN)
    return text


def _prefix(value: object) -> str:
    text = _text(value).removesuffix("/")
    if text.endswith("/"):
        raise Bad("ends with more than one slash, and a segment cannot be empty; no prefix is '/'", value)
    return text if not text or text.startswith("/") else f"/{text}"


def _path(value: object) -> str:
    path = os.fspath(value) if isinstance(value, os.PathLike) else value
    return os.path.expanduser(_text(path))


def _boolean(value: object) -> bool:
    if isinstance(value, bool):
        return value
    known = configparser.RawConfigParser.BOOLEAN_STATES
    if not isinstance(value, str) or value.lower() not in known:
        raise Bad("must be yes or no, true or false, on or off, 1 or 0", value)
    return known[value.lower()]


def _protocol(value: object) -> bool:
    known = {"http": False, "https": True}
    if not isinstance(value, str) or value.lower() not in known:
        raise Bad("must be http or https", value)
    return known[value.lower()]


def _timeout(value: object) -> float:
    seconds = math.nan
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        with contextlib.suppress(ValueError, OverflowError):  # no number: refused below
            seconds = float(value)
    if not 0 < seconds < math.inf:
        raise Bad("must be a finite number of seconds above 0", value)
    if seconds > LONGEST_TIMEOUT:
        raise Bad(f"must be at most {LONGEST_TIMEOUT:.0f} seconds", value)
    return seconds


def _port(value: object) -> int:
    port = value
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,5}", value):
        port = int(value)
    if not isinstance(port, int) or isinstance(port, bool) or not 1 <= port <= 65535:
        raise Bad("a port is a number from 1 to 65535", value)
    return port


def _host(value: object) -> str:
    """A host as an endpoint has it: a name, an IPv4 address, or an IPv6 address in brackets."""
    if not isinstance(value, str):
        raise Bad("must be one host; several go into endpoints", value)
    bare = value[1:-1] if value[:1] == "[" and value[-1:] == "]" else value
    if ":" in bare:
        try:
            ipaddress.IPv6Address(bare)
        except ValueError:
            raise Bad("must be a host name or an IP address, without a port", value) from None
        return f"[{bare}]"
    if bare is not value or not re.fullmatch(r"[\w.-]+", value):
        raise Bad("must be a host name or an IP address", value)
    return value


def _endpoint(value: object) -> str:
    found = re.fullmatch(r"(\[[^\]]*\]|[^:\[\]]+)(?::(.*))?", _text(value))
    if not found:
        raise Bad("an endpoint is host:port, with an IPv6 address in brackets", value)
    host, port = found.groups()
    try:
        return f"{_host(host)}:{DEFAULT_PORT if port is None else _port(port)}"
    except Bad as bad:
        raise Bad(str(bad), value) from None


def _endpoints(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [part for part in re.split(r"[,\s]+", value) if part]
    if not isinstance(value, Sequence) or isinstance(value, (bytes, bytearray)):
        raise Bad("must be a list of host:port", value)
    # Twice the same endpoint would make a failed one be tried twice.
    endpoints = tuple(dict.fromkeys(_endpoint(part) for part in value))
    if not endpoints:
        raise Bad("must name at least one host:port", value)
    return endpoints


def _domain(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[\w-]+(\.[\w-]+)*\.?", value):
        raise Bad("must be a domain name", value)
    return value


def _cluster_id(value: object) -> int:
    number = value
    if isinstance(value, str):
        # etcd prints up to 16 hexadecimal digits; a decimal id as in its JSON has nearly always more than 16.
        if re.fullmatch(r"(0[xX])?[0-9a-fA-F]{1,16}", value):
            number = int(value, 16)
        elif re.fullmatch(r"[0-9]{17,20}", value):
            number = int(value)
    if not isinstance(number, int) or isinstance(number, bool) or not 0 < number < 2**64:
        raise Bad("must be a cluster id, as hexadecimal digits or as a decimal number", value)
    return number


def _certificate(value: object) -> tuple[str, str]:
    """``cert`` of link.etcd: one file with the certificate and its key, or the two files as a pair."""
    text = _text(value)
    if text.startswith("(") and text.endswith(")"):
        text = text[1:-1].rstrip(", ")
    parts = [part.strip().strip("'\"") for part in text.split(",")]
    if len(parts) > 2 or not all(parts):
        raise Bad("must be one file, or a certificate and its key with a comma between", value)
    return _path(parts[0]), _path(parts[-1])


def _whole(value: object) -> int:
    if not isinstance(value, str) or not re.fullmatch(r"[0-9]+", value):
        raise Bad("must be a number", value)
    return int(value)


Parser = Callable[[object], Any]

OPTIONS: dict[str, Parser] = {
    "host": _host,
    "port": _port,
    "endpoints": _endpoints,
    "srv_domain": _domain,
    "prefix": _prefix,
    "user": _sent,
    "password": _sent,
    "insecure_password": _boolean,
    "tls": _boolean,
    "ca_cert": _path,
    "cert_cert": _path,
    "cert_key": _path,
    "timeout": _timeout,
    "expected_cluster_id": _cluster_id,
}

# The names of link.etcd that stand for other names here. In files only.
RENAMED: dict[str, tuple[tuple[str, ...], Parser]] = {
    "read_timeout": (("timeout",), _timeout),
    "username": (("user",), _sent),
    "protocol": (("tls",), _protocol),
    "cert": (("cert_cert", "cert_key"), _certificate),
}

# Accepted in files, checked, and without effect.
WITHOUT_EFFECT: dict[str, tuple[Parser, str]] = {
    "version_prefix": (
        _text,
        "etcd v3 has no path in its address; a namespace for keys is the option prefix",
    ),
    "allow_redirect": (
        _boolean,
        "etcd v3 never redirects; each member passes requests on to the leader itself",
    ),
    "allow_reconnect": (_boolean, "a client always goes on to its other endpoints; list them in endpoints"),
    "use_proxies": (_boolean, "endpoints are used as they are listed, be they members or proxies"),
    "per_host_pool_size": (_whole, "etcd v3 carries all calls to an endpoint on one connection"),
}
