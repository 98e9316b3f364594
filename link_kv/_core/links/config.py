"""The options of `connect` and of `Service.start`, and what of them concerns direct connections."""

from __future__ import annotations

import contextlib
import difflib
import ipaddress
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from link_kv._core.links.direct import Tls
from link_kv._core.links.registry import ServiceRecord
from link_kv._core.links.trust import Shown, as_pair, ask_for_login, look, trust
from link_kv._core.wire.config import Config, from_url, resolve
from link_kv.errors import AccessDenied, ConfigError, Unavailable

DEFAULT_HOST, DEFAULT_PORT = "localhost", 2379


@dataclass(frozen=True)
class LinkConfig:
    """How to reach etcd, and how to speak with a service, or as one."""

    config: Config
    disable_tls: bool = False
    read_limit: int | None = None
    assert_hostname: bool = True
    auto_save: bool = False
    pinned: bool = False
    """Whether etcd's certificate was trusted for itself, so that nobody vouches for those of services."""
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
    assert_hostname: bool,
    auto_save: bool,
    endpoints: str | Iterable[str] | None,
) -> LinkConfig:
    """The options as given, completed by the environment, the files, and where needed by a person.

    ``localhost`` and 2379 are the same as nothing: they leave the address to the environment. Raises
    `ConfigError`, `AccessDenied` for a certificate that is not trusted, and `Unavailable` where TLS is
    missing.
    """
    if password_manager is not None:
        warnings.warn(
            "password_manager has no meaning here: etcd knows users, username= and password=", stacklevel=4
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
    elif auto_save:
        given["tls"] = True
    if endpoints is not None and not isinstance(endpoints, str):
        endpoints = list(endpoints)
    if (host, port) != (DEFAULT_HOST, DEFAULT_PORT):
        if endpoints is not None:
            raise ConfigError("endpoints with host or port: give one of the two")
        given |= {"host": host, "port": port}
    config = _resolved(given, endpoints)
    options = LinkConfig(config, bool(disable_tls), read_limit, bool(assert_hostname), bool(auto_save))
    return options if disable_tls else secured(options)


def _resolved(given: dict[str, Any], endpoints: str | list[str] | None) -> Config:
    where = given.get("host", endpoints)
    try:
        if isinstance(where, str) and "://" in where:
            return from_url(
                where,
                **{
                    name: value
                    for name, value in given.items()
                    if value is not None and name not in ("host", "port")
                },
            )
        return resolve(endpoints=endpoints, **given)
    except ConfigError as error:
        user = given["user"]
        if user and given["password"] is None and "password" in str(error):
            login = ask_for_login(user)
            if login is None:
                raise AccessDenied(f"username={user!r} needs password= too") from None
            return _resolved({**given, "password": login[1]}, endpoints)
        words = re.sub(r"\b(user|ca_cert) \(keyword\)", lambda found: _CALLED[found[1]], str(error))
        raise ConfigError(words) from None


_CALLED = {"user": "username", "ca_cert": "cert_file"}
"""What options are called here."""


def secured(options: LinkConfig) -> LinkConfig:
    """The same, once it is certain that nobody listens, and whom to trust."""
    config = options.config
    if not config.tls:
        for endpoint in config.endpoints or (config.srv_domain or "",):
            if not is_loopback(endpoint):
                raise Unavailable(
                    f"etcd at {endpoint}: others can listen to what is said without TLS: name its authority "
                    "with cert_file=, or say disable_tls=True where the network is trusted"
                )
        return options
    if not config.endpoints or (config.ca_cert is not None and options.assert_hostname):
        return options
    endpoint, shown = _look_at_one(options)
    if not options.assert_hostname and shown.names:
        config = replace(config, server_name=shown.names[0])
    if config.ca_cert is None and not shown.vouched:
        file = trust(endpoint, f"etcd at {endpoint}", shown, options.auto_save)
        return replace(options, config=replace(config, ca_cert=str(file)), pinned=True)
    return replace(options, config=config)


def _look_at_one(options: LinkConfig) -> tuple[str, Shown]:
    """The certificate of an etcd that can be reached, and which that is."""
    config = options.config
    pair = as_pair(config.cert_cert, config.cert_key)
    for endpoint in config.endpoints[:-1]:
        with contextlib.suppress(Unavailable):
            return endpoint, look(endpoint, config.timeout, pair, options.assert_hostname)
    endpoint = config.endpoints[-1]
    return endpoint, look(endpoint, config.timeout, pair, options.assert_hostname)


def logged_in(options: LinkConfig, begin: Callable[[LinkConfig], None]) -> None:
    """Begin; if etcd asks for a login that was not given, ask on the terminal and begin with that.

    Raises `AccessDenied` where nobody can be asked.
    """
    try:
        begin(options)
    except AccessDenied as error:
        if options.config.user is not None or "user name is empty" not in str(error):
            raise
        login = ask_for_login(None)
        if login is None:
            raise AccessDenied("etcd asks for a login: give username= and password=") from None
        begin(replace(options, config=replace(options.config, user=login[0], password=login[1])))


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
    """The certificates to call a service with, None for plaintext.

    Raises `Unavailable` where that is not safe, and `AccessDenied` for a certificate that is not trusted.
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
    pair = as_pair(config.cert_cert, config.cert_key)
    if record.tls == "mutual" and pair is None:
        raise Unavailable(f"service {name}: wants a certificate of its clients: cert_cert, cert_key")
    authority = None if options.pinned else config.ca_cert
    host = None
    if authority is None or not options.assert_hostname:
        shown = look(record.address, config.timeout, pair, options.assert_hostname)
        if not options.assert_hostname and shown.names:
            host = shown.names[0]
        if authority is None and not shown.vouched:
            authority = str(trust(f"service {name}", f"service {name}", shown, options.auto_save))
    certificate, key = pair or (None, None)
    return Tls(_read(authority, "cert_file"), _read(certificate, "cert_cert"), _read(key, "cert_key"), host)


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
