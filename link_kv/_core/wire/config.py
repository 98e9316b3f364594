"""How a client finds its options: keywords, then the environment, then files, then the defaults.

Each of these is a *layer*. Most options are looked up one by one, in the most specific layer that gives them.
Three things are taken as a whole: the address, the choice for or against TLS, and a pair (a user and its
password, a certificate and its key). ``docs/reference/configuration.md`` has the rules as tables.

An empty text is an option left out, in every layer. Nothing is read at import, and nothing is kept: each call
of `resolve` reads the environment and the files. All functions here are thread-safe.
"""

from __future__ import annotations

import configparser
import difflib
import os
import re
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote_to_bytes

from link_kv._core.wire.options import (
    DEFAULT_HOST,
    DEFAULT_PORT,
    DEFAULT_TIMEOUT,
    HIDDEN,
    OPTIONS,
    PATHS,
    RENAMED,
    WITHOUT_EFFECT,
    Bad,
    Parser,
)
from link_kv.errors import ConfigError, DeadlineExceeded, Unavailable

if TYPE_CHECKING:
    import dns.resolver

_PACKAGE = Path(__file__).absolute().parents[2]

CONF_BASE_PATH = "link/kv"
CONF_DIR = "B3J0F_CONF_DIR"

# The settings of link.etcd are read from its own place too. Within a directory the new name wins.
_ANCESTOR_FILE = "link/etcd/middleware.conf"
_FILES = (_ANCESTOR_FILE, f"{CONF_BASE_PATH}/middleware.conf")
_SECTION = "ETCD"
_ADDRESS = ("endpoints", "srv_domain", "host", "port")


@dataclass(frozen=True)
class Config:
    """What a client needs to know, checked. Its repr leaves the password out.

    ``endpoints`` are ``host:port``, with IPv6 addresses in brackets. They are empty exactly when
    ``srv_domain`` is set, which `lookup_srv` turns into endpoints at the first connect. ``prefix`` is ``''``
    or starts with a slash; its segments are not checked here. Without ``tls`` there are no certificates.
    ``timeout`` is in seconds. With ``expected_cluster_id`` a cluster of another id is refused. A password
    goes to another machine without encryption only with ``insecure_password``.
    """

    endpoints: tuple[str, ...] = (f"{DEFAULT_HOST}:{DEFAULT_PORT}",)
    prefix: str = ""
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_cert: str | None = None
    cert_cert: str | None = None
    cert_key: str | None = None
    tls: bool = False
    timeout: float = DEFAULT_TIMEOUT
    expected_cluster_id: int | None = None
    srv_domain: str | None = None
    insecure_password: bool = False
    server_name: str | None = None
    """The host that the servers' certificate is for, where that is not the host that is connected to."""


class _Given(NamedTuple):
    value: Any
    where: str  # the option and where it was given, for messages


_Layer = dict[str, _Given]


def _put(layer: _Layer, names: Sequence[str], parse: Parser, value: object, where: str) -> None:
    try:
        parsed = parse(value)
    except Bad as bad:
        raise ConfigError(f"{where}: {bad}{_shown(bad.value)}") from None
    for name, part in zip(names, parsed if len(names) > 1 else (parsed,), strict=True):
        if name in layer:
            raise ConfigError(f"{layer[name].where} and {where} are the same option; keep one of them")
        layer[name] = _Given(part, where)


def _shown(value: object) -> str:
    """The value, for a message, unless it may hold a password: somebody put a URL where a host goes."""
    if value is HIDDEN:
        return ""
    text = repr(value)
    if "@" in text or "://" in text:
        return "; the value is not shown, it may hold a password"
    return f", not {text}"


def _named(option: str) -> str:
    """A name that is no option's, for a message; unless it may hold a password: ``?password:secret``."""
    return f"option {option!r}" if re.fullmatch(r"[A-Za-z_-]+", option) else "such option"


def _nearest(name: str, known: Iterable[str]) -> str:
    return difflib.get_close_matches(name, list(known), n=1, cutoff=0.0)[0]


# The layers


def conf_directories(environ: Mapping[str, str] = os.environ) -> list[str]:
    """Where configuration files are looked for; later directories win.

    The order of b3j0f.conf 0.3.22 on POSIX, but for three things. The working directory is not among them,
    nor is a relative path in another variable than ``$B3J0F_CONF_DIR``. ``$XDG_CONFIG_DIRS`` may name
    several. And as the XDG standard has it, ``$XDG_CONFIG_HOME`` wins over them.
    """
    home = environ.get("HOME") or os.path.expanduser("~")
    found = [
        os.path.join(_PACKAGE, "data"),
        "/etc",
        "/usr/local/etc",
        *(os.path.join(sys.prefix, name) for name in (".config", "config", "etc")),
        *reversed(environ.get("XDG_CONFIG_DIRS", "").split(os.pathsep)),
        environ.get("XDG_CONFIG_HOME", ""),
        *(os.path.join(home, name) for name in (".config", "config", "etc")),
    ]
    found = [directory for directory in found if os.path.isabs(directory)]
    if environ.get(CONF_DIR):
        found.append(os.path.abspath(environ[CONF_DIR]))
    # A directory named twice is read once, in its last place.
    return list(dict.fromkeys(reversed(found)))[::-1]


def _from_keywords(given: Mapping[str, object]) -> _Layer:
    layer: _Layer = {}
    for name, value in given.items():
        if value is not None and value != "":
            _put(layer, (name,), OPTIONS[name], value, f"{name} (keyword)")
    return _checked(layer)


def _from_environment(environ: Mapping[str, str]) -> _Layer:
    layer: _Layer = {}
    for name, parse in OPTIONS.items():
        variable = f"LINK_KV_{name.upper()}"
        if environ.get(variable):
            _put(layer, (name,), parse, environ[variable], variable)
    variables = [f"LINK_KV_{name.upper()}" for name in OPTIONS]
    for name in environ:
        # Other variables of ours are no options; but one that is nearly an option's is a mistake.
        if name.startswith("LINK_KV_") and name not in variables:
            for meant in difflib.get_close_matches(name, variables, n=1, cutoff=0.9):
                warnings.warn(f"{name} is no option, and is ignored; {meant} is one", stacklevel=2)
    return _checked(layer)


def _from_file(path: str, ancestor: bool) -> _Layer | None:
    """The layer of one file, None when there is no such file."""
    layer: _Layer = {}
    notices: list[str] = []
    section = _read(path)
    if section is None:
        return None
    for option, value in section.items():
        where = f"{option} in {path}"
        if not value:
            continue
        if "\n" in value and option != "endpoints":
            raise ConfigError(f"{where}: the value goes on over several lines; is the next line indented?")
        if option in WITHOUT_EFFECT:
            parse, reason = WITHOUT_EFFECT[option]
            _put({}, (option,), parse, value, where)
            notices.append(f"{option} does nothing: {reason}.")
            continue
        names, parse = RENAMED.get(option) or ((option,), OPTIONS[option])
        _put(layer, names, parse, value, where)
    for name in PATHS:
        if name in layer:  # a relative path in a file does not depend on where the program was started
            relative, where = layer[name]
            layer[name] = _Given(os.path.join(os.path.dirname(path), relative), where)
    if ancestor:
        notices.insert(0, f"these settings of link.etcd are used; better move them to {_FILES[-1]}.")
    if notices:
        # A warning, not a log record: Python shows one text once per process, and programs can filter it.
        warnings.warn(f"{path}: {' '.join(notices)}", stacklevel=2)
    return _checked(layer)


def _read(path: str) -> dict[str, str] | None:
    """The options of ``[ETCD]``, their names checked. Messages never quote a line: it may hold a password."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        if not os.path.lexists(path):
            return None  # no such file, or none that this user may know of
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}, line {line}: not UTF-8 text") from None
    # No line can be the header of the section '', so that [DEFAULT] has no magic.
    parser = configparser.RawConfigParser(default_section="")
    try:
        parser.read_string(text, source=path)
    except configparser.DuplicateOptionError as error:
        raise ConfigError(f"{path}, line {error.lineno}: {error.option} is given twice") from None
    except configparser.DuplicateSectionError as error:
        raise ConfigError(
            f"{path}, line {error.lineno}: the section [{error.section}] begins twice"
        ) from None
    except configparser.MissingSectionHeaderError as error:
        raise ConfigError(f"{path}, line {error.lineno}: options go below the line [{_SECTION}]") from None
    except configparser.ParsingError as error:
        raise ConfigError(
            f"{path}, line {error.errors[0][0]}: neither name = value nor a # comment"
        ) from None
    sections = parser.sections()
    if not sections:
        return {}
    if _SECTION not in sections:
        raise ConfigError(f"{path}: there is [{sections[0]}] and no [{_SECTION}]")
    options = dict(parser.items(_SECTION))
    known = [*OPTIONS, *RENAMED, *WITHOUT_EFFECT]
    for option in options:
        if option not in known:
            raise ConfigError(
                f"{path}: there is no {_named(option)}; the nearest is {_nearest(option, known)!r}"
            )
    return options


def _checked(layer: _Layer) -> _Layer:
    """The layer, when it does not contradict itself."""

    def apart(first: str, second: str, advice: str) -> None:
        if first in layer and second in layer:
            raise ConfigError(f"{layer[second].where} with {layer[first].where}: {advice}")

    apart("endpoints", "host", "give one of the two")
    apart("endpoints", "port", "write the port into the endpoints, host:port")
    apart("endpoints", "srv_domain", "give one of the two")
    if "tls" in layer and not layer["tls"].value:
        for name in PATHS:
            apart("tls", name, "certificates are for TLS, which this turns off")
    return layer


# From layers to options. Layers are ordered from the most specific.


def _pick(layers: Sequence[_Layer], name: str) -> _Given | None:
    return next((layer[name] for layer in layers if name in layer), None)


def _address(layers: Sequence[_Layer]) -> tuple[tuple[str, ...], str | None]:
    """The endpoints, or the domain that has them. A port alone waits for the host of a layer below."""
    port: _Given | None = None
    host = _Given(DEFAULT_HOST, "")
    for layer in layers:
        name = next((name for name in _ADDRESS if name in layer), None)
        if name in ("endpoints", "srv_domain"):
            if port:
                raise ConfigError(f"{port.where} goes with a host; {layer[name].where} has ports of its own")
            value = layer[name].value
            return (value, None) if name == "endpoints" else ((), value)
        if name:
            port = port or layer.get("port")
        if name == "host":
            host = layer["host"]
            break
    return (f"{host.value}:{port.value if port else DEFAULT_PORT}",), None


def _tls(layers: Sequence[_Layer]) -> bool:
    """As the most specific layer has it that says anything about TLS; certificates alone say yes."""
    for layer in layers:
        if "tls" in layer:
            return bool(layer["tls"].value)
        if any(name in layer for name in PATHS):
            return True
    return False


def _pair(layers: Sequence[_Layer], owner: str, owned: str) -> tuple[str | None, str | None]:
    """A user and the password, a certificate and the key.

    What a layer gives for its own user is not used for the user of a layer above it.
    """
    first = _pick(layers, owner)
    usable = [
        layer for layer in layers if not first or owner not in layer or layer[owner].value == first.value
    ]
    second = _pick(usable, owned)
    if first and not second:
        raise ConfigError(f"{first.where} needs {owned} too")
    if second and not first:
        raise ConfigError(f"{second.where} needs {owner} too")
    return (first.value, second.value) if first and second else (None, None)


def resolve(
    host: str | None = None,
    port: int | None = None,
    *,
    endpoints: str | Sequence[str] | None = None,
    srv_domain: str | None = None,
    prefix: str | None = None,
    user: str | None = None,
    password: str | None = None,
    ca_cert: str | os.PathLike[str] | None = None,
    cert_cert: str | os.PathLike[str] | None = None,
    cert_key: str | os.PathLike[str] | None = None,
    tls: bool | None = None,
    timeout: float | None = None,
    expected_cluster_id: int | str | None = None,
    insecure_password: bool | None = None,
    environ: Mapping[str, str] = os.environ,
    directories: Iterable[str | os.PathLike[str]] | None = None,
) -> Config:
    """The options of a client: these keywords, and for the rest the environment, the files and the defaults.

    ``timeout`` is in seconds. ``prefix='/'`` is no prefix, whatever the layers below say. ``directories``
    stand in for `conf_directories`. Raises `ConfigError`, naming the option and where it was given. Warns,
    once per file, of the settings of link.etcd, and why some do nothing here.
    """
    keywords = _from_keywords(
        {
            "host": host,
            "port": port,
            "endpoints": endpoints,
            "srv_domain": srv_domain,
            "prefix": prefix,
            "user": user,
            "password": password,
            "ca_cert": ca_cert,
            "cert_cert": cert_cert,
            "cert_key": cert_key,
            "tls": tls,
            "timeout": timeout,
            "expected_cluster_id": expected_cluster_id,
            "insecure_password": insecure_password,
        }
    )
    files: list[_Layer] = []
    for directory in conf_directories(environ) if directories is None else directories:
        for name in _FILES:
            layer = _from_file(os.path.join(directory, name), name == _ANCESTOR_FILE)
            if layer:
                files.append(layer)
    layers = [keywords, _from_environment(environ), *reversed(files)]

    def pick(name: str, default: Any = None) -> Any:
        given = _pick(layers, name)
        return given.value if given else default

    addresses, domain = _address(layers)
    login = _pair(layers, "user", "password")
    secure = _tls(layers)
    certificate = _pair(layers, "cert_cert", "cert_key") if secure else (None, None)
    return Config(
        endpoints=addresses,
        prefix=pick("prefix", ""),
        user=login[0],
        password=login[1],
        ca_cert=pick("ca_cert") if secure else None,
        cert_cert=certificate[0],
        cert_key=certificate[1],
        tls=secure,
        timeout=pick("timeout", DEFAULT_TIMEOUT),
        expected_cluster_id=pick("expected_cluster_id"),
        srv_domain=domain,
        insecure_password=pick("insecure_password", False),
    )


# URLs

_URL = re.compile(r"(etcds?)://([^/?#]*)([^?#]*)(?:\?([^#]*))?", re.IGNORECASE)
_URL_FORM = (
    "a URL is etcd://user:password@host:port,host:port/prefix?option=value, or etcds:// for TLS; "
    "in its parts / ? # @ : % are written %2F %3F %23 %40 %3A %25"
)
_URL_OPTIONS = (
    "timeout",
    "ca_cert",
    "cert_cert",
    "cert_key",
    "insecure_password",
    "expected_cluster_id",
    "srv_domain",
)


def _unquote(text: str, part: str) -> str:
    try:
        plain = None if re.search(r"%(?![0-9a-fA-F]{2})", text) else unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        plain = None
    if plain is None:
        raise ConfigError(f"URL: a % in the {part} is not followed by the code of a character; {_URL_FORM}")
    return plain


def url_options(url: str) -> dict[str, Any]:
    """The keywords of `resolve` that a URL stands for. Raises `ConfigError`, which never shows the URL."""
    found = _URL.fullmatch(url) if isinstance(url, str) else None
    if not found:
        raise ConfigError(f"URL: not understood; {_URL_FORM}")
    scheme, netloc, path, query = found.groups(default="")
    # An @ behind the hosts comes from a / or a ? in a password. Read on, and its first part would be a host.
    if "@" in path or "@" in query:
        raise ConfigError(f"URL: there is an @ behind the hosts; {_URL_FORM}")
    login, _, hosts = netloc.rpartition("@")
    user, _, password = login.partition(":")
    options: dict[str, Any] = {"tls": scheme.lower() == "etcds"}
    try:
        options["endpoints"] = OPTIONS["endpoints"](hosts.split(",")) if hosts else None
    except Bad as bad:
        raise ConfigError(f"URL: {bad}; {_URL_FORM}") from None
    options["user"] = _unquote(user, "user")
    options["password"] = _unquote(password, "password")
    if path != "/":
        options["prefix"] = _unquote(path, "prefix")
    layer: _Layer = {}
    for item in filter(None, query.split("&")):
        name, _, text = item.partition("=")
        if name not in _URL_OPTIONS:
            nearest = _nearest(name, _URL_OPTIONS)
            raise ConfigError(f"URL: there is no {_named(name)} behind the ?; the nearest is {nearest!r}")
        if text:
            _put(layer, (name,), OPTIONS[name], _unquote(text, name), f"{name} in the URL")
    for name in PATHS:
        if name in layer and not options["tls"]:
            raise ConfigError(f"{layer[name].where}: certificates are for TLS; write etcds://")
    options.update((name, given.value) for name, given in layer.items())
    return {name: value for name, value in options.items() if value is not None and value != ""}


def from_url(url: str, **keywords: Any) -> Config:
    """The options of a client from a URL: `resolve` with ``keywords``, and what else the URL says.

    ``etcd://user:pw@h1:2379,h2:2379/prefix?timeout=3``; ``etcds://`` is TLS and ``etcd://`` is none. What the
    URL leaves out, hosts included, comes from the layers below. Raises `ConfigError`, which never shows the
    URL.
    """
    given = {name: value for name, value in keywords.items() if value is not None and value != ""}
    return resolve(**{**url_options(url), **given})


# DNS


def lookup_srv(
    domain: str, tls: bool, timeout: float, resolver: dns.resolver.Resolver | None = None
) -> tuple[str, ...]:
    """The endpoints that DNS has for a domain, in the order in which to try them.

    Asks for ``_etcd-client-ssl._tcp.DOMAIN`` with TLS and for ``_etcd-client._tcp.DOMAIN`` without, as etcd's
    own clients do. Blocks for at most ``timeout`` seconds. Raises `ConfigError` when dnspython is missing or
    the domain has no such record, and `Unavailable` or `DeadlineExceeded` when no name server answers.
    """
    try:
        import dns.exception
        import dns.resolver
    except ImportError as error:
        raise ConfigError("srv_domain needs dnspython: pip install 'link_kv[srv]'") from error
    name = f"_etcd-client{'-ssl' if tls else ''}._tcp.{domain.rstrip('.')}"
    about = f"srv_domain {domain!r}: SRV record {name}"
    try:
        answer = (resolver or dns.resolver.Resolver()).resolve(f"{name}.", "SRV", lifetime=timeout)
    except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer) as error:
        raise ConfigError(f"{about} does not exist") from error
    except dns.exception.SyntaxError as error:
        raise ConfigError(f"{about} cannot exist: {error}") from error
    except dns.exception.Timeout as error:
        raise DeadlineExceeded(f"{about}: no name server answered within {timeout:g} s") from error
    except dns.exception.DNSException as error:
        raise Unavailable(f"{about}: {error}") from error
    # By priority, and at random by weight within one (RFC 2782).
    records: list[Any] = answer.rrset.processing_order() if answer.rrset else []
    hosts = [(record.target.to_text(omit_final_dot=True), record.port) for record in records]
    # The host '.' says that the domain does not offer the service.
    endpoints = tuple(dict.fromkeys(f"{host}:{port}" for host, port in hosts if host != "."))
    if not endpoints:
        raise ConfigError(f"{about} says that there is no etcd in this domain")
    return endpoints
