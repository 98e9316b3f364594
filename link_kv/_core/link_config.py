"""The options of `connect` and of `Service.start`, and what of them concerns direct connections."""

from __future__ import annotations

import difflib
import ipaddress
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from link_kv._core.config import Config, from_url, resolve
from link_kv._core.direct import Tls
from link_kv._core.registry import ServiceRecord
from link_kv.errors import ConfigError, Unavailable

DEFAULT_HOST, DEFAULT_PORT = "localhost", 2379


@dataclass(frozen=True)
class LinkConfig:
    """How to reach etcd, and how to speak with a service, or as one."""

    config: Config
    disable_tls: bool = False
    read_limit: int | None = None
    serving: tuple[str, str] | None = None
    """A certificate and its key for serving alone, where they are not those of the settings."""


def settle(
    *,
    host: str,
    port: int,
    timeout: float,
    username: str | None,
    password: str | None,
    password_manager: str | None,
    read_limit: int | None,
    disable_tls: bool,
    cert_file: str | None,
    endpoints: str | Iterable[str] | None,
) -> LinkConfig:
    """The options as given, completed by the environment and the files. Raises `ConfigError`.

    ``localhost`` and 2379 are the same as nothing: they leave the address to the environment.
    """
    if password_manager is not None:
        warnings.warn(
            "password_manager has no meaning here: etcd knows users, username= and password=", stacklevel=3
        )
    if read_limit is not None and (
        isinstance(read_limit, bool) or not isinstance(read_limit, int) or read_limit < 1
    ):
        raise ConfigError(f"read_limit={read_limit!r}: a number of bytes, at least 1, or None for no limit")
    given: dict[str, Any] = {"user": username, "password": password, "timeout": timeout}
    if disable_tls:
        # Who says so knows the network: the password goes the same way as everything else.
        given |= {"tls": False, "insecure_password": True if password is not None else None}
    elif cert_file is not None:
        given["ca_cert"] = cert_file
    url = host if "://" in host else endpoints if isinstance(endpoints, str) and "://" in endpoints else None
    if url is not None:
        if url is host and endpoints is not None:
            raise ConfigError("host (keyword) with endpoints (keyword): give one of the two")
        config = from_url(url, **{name: value for name, value in given.items() if value is not None})
    else:
        if (host, port) != (DEFAULT_HOST, DEFAULT_PORT):
            given |= {"host": host, "port": port}
        config = resolve(
            endpoints=endpoints if endpoints is None or isinstance(endpoints, str) else list(endpoints),
            **given,
        )
    return LinkConfig(config, disable_tls, read_limit)


def check_keywords(given: Mapping[str, Any], known: Iterable[str], what: str) -> None:
    """Raise TypeError for a keyword that is not known, naming the nearest that is."""
    names = list(known)
    for name in given:
        if name not in names:
            nearest = difflib.get_close_matches(name, names, n=1)
            hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
            raise TypeError(f"{what}() got an unexpected keyword argument {name!r}{hint}")


def is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]") or address
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _read(path: str | None, option: str) -> bytes | None:
    if path is None:
        return None
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise ConfigError(f"{option}: cannot read {path}: {error.strerror}") from None


def dialing(options: LinkConfig, name: str, record: ServiceRecord) -> Tls | None:
    """The certificates to call a service with, None for plaintext. Raises `Unavailable` where neither is
    safe.
    """
    config = options.config
    if not record.tls:
        if is_loopback(record.address) or options.disable_tls:
            return None
        raise Unavailable(
            f"service {name}: at {record.address} it speaks without TLS, where others can listen: start it "
            "with a certificate (cert_cert, cert_key), or connect with disable_tls=True where the network is "
            "trusted"
        )
    if record.tls == "mutual" and config.cert_cert is None:
        raise Unavailable(f"service {name}: wants a certificate of its clients: cert_cert, cert_key")
    return Tls(
        _read(config.ca_cert, "ca_cert"),
        _read(config.cert_cert, "cert_cert"),
        _read(config.cert_key or config.cert_cert, "cert_key"),
    )


def listening(options: LinkConfig, address: str) -> Tls | None:
    """The certificates to serve with, None for plaintext. Raises `Unavailable` where that is not safe.

    With those of the settings, an authority among them, clients need a certificate too, as etcd's do.
    """
    config = options.config
    pair = options.serving
    if pair is None and config.cert_cert is not None:
        pair = config.cert_cert, config.cert_key or config.cert_cert
    if pair is None or options.disable_tls:
        if is_loopback(address) or options.disable_tls:
            return None
        raise Unavailable(
            f"listen: at {address} others can listen to what is said without TLS: give the service a "
            "certificate (cert_cert, cert_key), or say disable_tls=True where the network is trusted"
        )
    authority = None if options.serving else _read(config.ca_cert, "ca_cert")
    return Tls(authority, _read(pair[0], "cert_cert"), _read(pair[1], "cert_key"))


def with_certificate(options: LinkConfig, cert_cert: str | None, cert_key: str | None) -> LinkConfig:
    """The same with a certificate for serving, where one is given."""
    if cert_cert is None and cert_key is None:
        return options
    if cert_cert is None:
        raise ConfigError("cert_key (keyword) needs cert_cert too")
    return replace(options, serving=(cert_cert, cert_key or cert_cert))
