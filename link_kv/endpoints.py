"""Endpoints: values with a policy, served from a configuration file.

    link-kv serve -c kv_store.yaml

A provider, `KVStore`, is a service, and its endpoints, `KVStoreKey`, are the items of a store of its name. So
``client['/kv_example/foo']``, ``get('kv_example.foo')``, a link to the service and the command line all see
one value. Requests go to endpoints by name; `Endpoints` sends them. The logger is ``link_kv.endpoints``.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
import threading
import time
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import link_kv
from link_kv._core.endpoints import alerts as alerting
from link_kv._core.endpoints import calibration
from link_kv._core.endpoints import config as endpoint_config
from link_kv._core.endpoints import names as endpoint_names
from link_kv._core.endpoints.addressable import LOCKOUT_TTL, Addressable, log, number
from link_kv._core.endpoints.alerts import Alert
from link_kv._core.endpoints.answers import ANSWERS, signatures
from link_kv._core.endpoints.config import ANY, FLAG, SECONDS, Accepted, Call, Kind, Part
from link_kv._core.endpoints.handed import Handed
from link_kv._core.endpoints.kv_store_key import KEYWORDS, KVStoreKey
from link_kv._core.endpoints.names import Found, Served
from link_kv._core.endpoints.replies import Properties, Reply, timestamp
from link_kv._core.endpoints.return_codes import ReplyError, return_codes
from link_kv._core.endpoints.schedule import LONGEST, Scheduler
from link_kv._core.links.config import LinkConfig
from link_kv._core.wire.config import Config
from link_kv.errors import AccessDenied, Closed, ConfigError, KeyExists, NotFound, Unavailable
from link_kv.item import Item
from link_kv.remote import Alerts, Endpoints
from link_kv.services import Request, Service
from link_kv.serving import Run

__all__ = [
    "Alert",
    "Alerts",
    "Endpoints",
    "Found",
    "KVStore",
    "KVStoreKey",
    "Properties",
    "Reply",
    "ReplyError",
    "Served",
    "kv_store",
    "kv_store_key",
    "load",
    "register_function",
    "return_codes",
    "times2",
    "times3",
]

PROVIDER_KEYWORDS: dict[str, Kind] = {
    "calibration": ANY,
    "get_on_set": FLAG,
    "heartbeat_interval": SECONDS,
    "lockout_ttl": SECONDS,
    "max_clients": Kind((int,), "a number of clients"),
}
HEARTBEAT = 60.0
"""Seconds between two heartbeats, unless told otherwise."""

_READY = 10.0
"""Seconds that a request waits while the service starts."""

_GRACE = 5.0
"""Seconds that polling and requests under way have to end, when the service stops."""


class KVStore(Addressable, Service):
    """A provider: a service whose endpoints are the items of the store of its name.

    Keyword Args:
        name: what it is found by, and what the store is called.
        calibration, get_on_set: for those of its endpoints that do not say otherwise.
        node: what the name of the provider may be preceded by in addresses.
        heartbeat_interval: seconds between two alerts ``heartbeat.<name>``; 60 by default, 0 for none.
        lockout_ttl: seconds that a lockout lasts unless its key is shown; an hour by default.
        max_clients: as of `link_kv.services.Service`.

    `add_endpoint`, then `start` or `start_in_thread` as any service. `get`, `set`, `cmd`, `config` and `ping`
    reach its own endpoints, and by name those of other services. A lockout of the provider is one of all its
    endpoints. Raises `ConfigError` naming the keyword. Thread-safe.
    """

    _kv_readable = Addressable._kv_readable | {"endpoint_names", "logging_status", "schedule_status"}
    _kv_writable = frozenset(("logging_status", "schedule_status"))
    _kv_callable = frozenset(("list_endpoints",))

    def __init__(self, **kwargs: Any) -> None:
        name, node = kwargs.pop("name", None), kwargs.pop("node", None)
        clients = kwargs.pop("max_clients", None)
        if not isinstance(name, str) or not name:
            raise ConfigError(f"name={name!r}: a provider has a name, a text")
        for keyword in kwargs:
            if keyword not in PROVIDER_KEYWORDS:
                known = ", ".join(("name", "node", "max_clients", *PROVIDER_KEYWORDS))
                raise ConfigError(f"{name}: {keyword!r} is no keyword; there are {known}")
        Service.__init__(self, name, max_clients=clients)
        self.node: str = node or ""
        ttl = number("lockout_ttl", kwargs.get("lockout_ttl", LOCKOUT_TTL)) or LOCKOUT_TTL
        self._kv_prepare(name, ttl)
        self._kv_defaults = {key: kwargs[key] for key in ("calibration", "get_on_set") if key in kwargs}
        self._kv_heartbeat = number(
            "heartbeat_interval", kwargs.get("heartbeat_interval", HEARTBEAT), LONGEST
        )
        self._kv_endpoints: dict[str, KVStoreKey] = {}
        self._kv_sender = alerting.sender(name, link_kv.__version__)
        self._kv_scheduler: Scheduler | None = None
        self._kv_run: Run | None = None
        self._kv_ready = threading.Event()
        self._kv_asked = threading.Condition()
        self._kv_answering = 0
        """How many requests that came over links are under way."""
        self._kv_ending = False
        self._kv_where: Config | None = None
        """Where etcd is, when that was not said to `start`."""
        self._kv_setup: list[Callable[[], object]] = []
        self._kv_remote: Endpoints | None = None

    # Its endpoints

    def add_endpoint(self, endpoint: KVStoreKey) -> None:
        """Take an endpoint, and send its alerts from now on. Raises `KeyExists` for a name that is taken."""
        if not isinstance(endpoint, KVStoreKey):
            raise ConfigError(f"{self.name}: {endpoint!r} is no KVStoreKey")
        lower = endpoint.name.lower()
        if lower in self._kv_endpoints:
            raise KeyExists(f"{self.name}: has an endpoint {endpoint.name} already")
        if endpoint.provider is not None:
            raise ConfigError(f"{endpoint.name}: belongs to {endpoint.provider.name} already")
        if self._kv_run is not None:
            raise Closed(f"{self.name}: endpoints are added before the start")
        for keyword, value in self._kv_defaults.items():
            if keyword not in endpoint._kv_given:
                setattr(endpoint, keyword, value)
        endpoint.provider = self
        endpoint.store_value = functools.partial(self._kv_send_alert, endpoint)  # type: ignore[method-assign]
        self._kv_endpoints[lower] = endpoint

    def endpoint(self, endpoint: str) -> KVStoreKey:
        """The endpoint of a name, in any case. Raises `NotFound`."""
        found = self._kv_endpoints.get(endpoint.lower())
        if found is None:
            known = ", ".join(self.endpoint_names) or "none"
            raise NotFound(f"{self.name}.{endpoint}: no such endpoint; there are {known}")
        return found

    @property
    def endpoints(self) -> dict[str, KVStoreKey]:
        """All endpoints by name."""
        return {endpoint.name: endpoint for endpoint in self._kv_endpoints.values()}

    @property
    def endpoint_names(self) -> list[str]:
        """The names of all endpoints."""
        return list(self.endpoints)

    def list_endpoints(self) -> list[str]:
        """The names of all endpoints."""
        return self.endpoint_names

    # Requests to its own endpoints, or to others

    def get(self, target: str, timeout: float | None = None, ignore_retcode: bool = False) -> Any:
        """See `Endpoints.get`; its own endpoints are asked at once."""
        return self._kv_request("get", target, {}, False, timeout).result(ignore_retcode)

    def set(
        self,
        target: str,
        value: Any,
        lockout_key: str | bool = False,
        timeout: float | None = None,
        ignore_retcode: bool = False,
    ) -> Any:
        """See `Endpoints.set`."""
        return self._kv_request("set", target, {"values": [value]}, lockout_key, timeout).result(
            ignore_retcode
        )

    def cmd(
        self,
        target: str,
        method_name: str,
        value: Any = (),
        payload: Mapping[str, Any] | None = None,
        lockout_key: str | bool = False,
        timeout: float | None = None,
        ignore_retcode: bool = False,
    ) -> Any:
        """See `Endpoints.cmd`."""
        values = list(value) if isinstance(value, (list, tuple)) else [value]
        request = {**(payload or {}), "values": [method_name, *values]}
        return self._kv_request("cmd", target, request, lockout_key, timeout).result(ignore_retcode)

    def config(
        self,
        target: str,
        attribute: str,
        value: Any = None,
        lockout_key: str | bool = False,
        timeout: float | None = None,
        ignore_retcode: bool = False,
    ) -> Any:
        """See `Endpoints.config`."""
        request = {"values": [attribute] if value is None else [attribute, value]}
        return self._kv_request("config", target, request, lockout_key, timeout).result(ignore_retcode)

    def send(self, to_send: Any) -> Any:
        """Pass one command, or a list of them, on to the hardware of this provider: to its `on_send`."""
        return self.on_send(*(to_send if isinstance(to_send, (list, tuple)) else [to_send]))

    def _kv_request(
        self,
        operation: str,
        target: str,
        request: Mapping[str, Any],
        lockout_key: str | bool,
        timeout: float | None,
    ) -> Reply:
        try:
            found = endpoint_names.resolve(target, self._kv_served())
        except NotFound:
            return self._kv_others().request(operation, target, request, lockout_key, timeout)
        if found.specifier:
            request = {**request, "specifier": found.specifier}
        who = Properties(lockout_key=str(lockout_key) if lockout_key else None)
        return self._kv_target(found.endpoint).handle_request(None, operation, who, request)

    def _kv_others(self) -> Endpoints:
        if self._kv_run is None:
            raise Closed(f"{self.name}: is not running, so it reaches its own endpoints only")
        if self._kv_remote is None:
            self._kv_remote = Endpoints(self._kv_run.client, self.name)
        return self._kv_remote

    def _kv_target(self, endpoint: str) -> Addressable:
        return self.endpoint(endpoint) if endpoint else self

    def _kv_served(self) -> list[Served]:
        paths = {} if self._kv_run is None else self._kv_run.paths()
        return [
            Served(each.name, self.name, self.node, paths.get(each.name, f"/{self.name}/{each.name}"))
            for each in self._kv_endpoints.values()
        ]

    # Itself

    def lock(self, *args: Any, **kwargs: Any) -> dict[str, str]:
        """Let all endpoints accept changes only with a key; see `KVStoreKey.lock`.

        Raises the error of code 307 while one of them is locked with another.
        """
        return self._kv_lock(*args, holder="this service", **kwargs)

    def _kv_lock(
        self, lockout_key: str | None = None, *args: Any, holder: str, **kwargs: Any
    ) -> dict[str, str]:
        for endpoint in self._kv_endpoints.values():
            endpoint._kv_lockout.check(lockout_key)
        return super()._kv_lock(lockout_key, *args, holder=holder, **kwargs)

    def _kv_admit(
        self, method: str, specifier: str, values: list[Any], keywords: Mapping[str, Any], who: Properties
    ) -> None:
        super()._kv_admit(method, specifier, values, keywords, who)
        attribute: Any = ""
        if method == "config" and len(values) > 1:
            attribute = values[0]
        elif method == "set":
            attribute = specifier or keywords.get("routing_key_specifier")
        of_all = isinstance(attribute, str) and attribute.replace("-", "_") in self._kv_writable
        for endpoint in self._kv_endpoints.values():
            # What goes on to the endpoints needs their keys too.
            if (of_all and endpoint.schedule_interval) or (
                method == "cmd"
                and specifier == "set_condition"
                and type(endpoint).set_condition is not Addressable.set_condition
            ):
                endpoint._kv_lockout.check(who.lockout_key)

    def set_condition(self, *args: Any, **kwargs: Any) -> Any:
        """Pass a condition on to each endpoint that has a `set_condition` of its own."""
        for endpoint in self._kv_endpoints.values():
            endpoint.set_condition(*args, **kwargs)

    def on_set(self, *args: Any, **kwargs: Any) -> Any:
        """Set an attribute, named by ``routing_key_specifier``; a provider has no value."""
        specifier = kwargs.pop("routing_key_specifier", "")
        if not specifier:
            raise self._kv_unsupported("set")
        return self.on_config(specifier, *args)

    @property
    def schedule_status(self) -> list[tuple[str, bool]]:
        """Which endpoints are looked at on schedule. Set it as that of an endpoint: it is set for all that
        have an interval.
        """
        return [(endpoint.name, endpoint.schedule_status) for endpoint in self._kv_endpoints.values()]

    @schedule_status.setter
    def schedule_status(self, status: str | bool) -> None:
        for endpoint in self._kv_endpoints.values():
            if endpoint.schedule_interval:
                endpoint.schedule_status = status

    @property
    def logging_status(self) -> list[tuple[str, bool]]:
        """Another name for `schedule_status`."""
        return self.schedule_status

    @logging_status.setter
    def logging_status(self, status: str | bool) -> None:
        self.schedule_status = status

    # As a service

    def _begin(self, kwargs: dict[str, Any]) -> Any:
        self._kv_ready.clear()
        try:
            serving = super()._begin(kwargs)
        except BaseException:
            if self._kv_run is not None:  # it runs already, and goes on
                self._kv_ready.set()
            raise
        self._kv_ending = False
        try:
            run = Run(self, serving._client, kwargs.get("ttl", 10))
            run.open()
            self._kv_run, self._kv_scheduler = run, Scheduler(self.name)
            self._kv_ready.set()
            self._kv_begin_schedules()
            for call in self._kv_setup:
                call()
        except BaseException:
            self.stop()
            raise
        return serving

    def _kv_begin_schedules(self) -> None:
        assert self._kv_scheduler is not None
        for endpoint in self._kv_endpoints.values():
            if endpoint.schedule_interval:
                endpoint.schedule_status = "start"
        if self._kv_heartbeat:
            self._kv_scheduler.every(self._kv_heartbeat, f"heartbeat of {self.name}", self._kv_beat)

    def _kv_beat(self) -> None:
        self._kv_send(Alert(f"heartbeat.{self.name}", {"id": self.name}, timestamp(), self._kv_sender))

    def stop(self) -> None:
        """See `link_kv.services.Service.stop`. Polling ends first, then requests; names and lockouts are left
        last.
        """
        if self.request is None:
            end = time.monotonic() + _GRACE
            with self._kv_asked:
                self._kv_ending = True
            scheduler = self._kv_scheduler
            if scheduler is not None:
                scheduler.close(_GRACE)
            for endpoint in self._kv_endpoints.values():
                endpoint._kv_stop()
            self._kv_drain(end)
            run, self._kv_run, self._kv_scheduler = self._kv_run, None, None
            self._kv_ready.set()  # requests that wait for the start are told
            if self._kv_remote is not None:
                self._kv_remote.close()
                self._kv_remote = None
            if run is not None:
                run.close()
        super().stop()

    def _kv_drain(self, end: float) -> None:
        """Wait for the requests under way: what they set is to be in etcd before they are answered."""
        with self._kv_asked:
            left = max(0.0, end - time.monotonic())
            if not self._kv_asked.wait_for(lambda: not self._kv_answering, left):
                log.error("%s: stops, though %d requests are under way", self.name, self._kv_answering)

    def _kv_check_served(self, channel: Any) -> None:
        if channel is not None and self._kv_run is None:
            raise Unavailable(f"service {self.name}: is not running")

    def answer_request(self, request: Request) -> Any:
        """Answer what comes over a link. What is not on the list of `describe_attributes` is denied."""
        answer = ANSWERS.get(request.attribute)
        if answer is None:
            raise AccessDenied(
                f"service {self.name}: {request.attribute!r} may not be called; what may is "
                f"{', '.join(ANSWERS)}"
            )
        self._kv_ready.wait(_READY)
        with self._kv_asked:
            if not self._kv_ready.is_set() or self._kv_ending or self._kv_run is None:
                raise Unavailable(f"service {self.name}: is not running")
            self._kv_answering += 1
        try:
            return answer(self, request.caller, *request.args, **request.kwargs)
        except AccessDenied as denied:
            raise AccessDenied(str(denied)) from None  # arrives as what it is
        finally:
            with self._kv_asked:
                self._kv_answering -= 1
                self._kv_asked.notify_all()

    def has_attribute(self, name: str) -> bool:
        return name in ANSWERS

    def describe_attributes(self) -> dict[str, str]:
        """The signatures of what links may call."""
        return signatures()

    def _settle(self, connect: dict[str, Any]) -> LinkConfig:
        if self._kv_where is None:
            return super()._settle(connect)
        return LinkConfig(self._kv_where, connect["disable_tls"], connect["read_limit"])

    # Telling

    def _kv_send_alert(self, endpoint: KVStoreKey, severity: str) -> None:
        values = endpoint._kv_latest
        if values is None:
            values = endpoint._kv_look()
        self._kv_send(Alert(f"{severity}.{endpoint.name}", values, timestamp(), self._kv_sender))

    def _kv_send(self, alert: Alert) -> None:
        self.emit_notification(alert.routing_key, alert.plain())
        if (run := self._kv_run) is not None:
            run.alerted(alert)

    def _kv_lost(self, held: Any) -> str:
        """Which of the locks of the one who asks is lost, '' for none."""
        run = self._kv_run
        return "" if run is None else run.lost(held)

    def _kv_settle_behind(self) -> None:
        if (run := self._kv_run) is not None:
            run.settle()

    def _kv_write_behind(self, item: Item, raw: Any) -> Handed | None:
        run = self._kv_run
        return None if run is None else run.write_behind(item, raw)


kv_store = KVStore
kv_store_key = KVStoreKey


# Calibration


def register_function(name: str, function: Callable[..., Any]) -> None:
    """Let calibrations call a function by a name. Raises `ConfigError` for a name that is taken."""
    calibration.register(name, function)


def times2(value: Any) -> Any:
    """Twice a value; for calibrations."""
    return 2 * value


def times3(value: Any) -> Any:
    """Three times a value; for calibrations."""
    return 3 * value


register_function("times2", times2)
register_function("times3", times3)


def __getattr__(name: str) -> Any:
    # The exceptions of return codes, such as ServiceErrorAccessDenied; those of your own too.
    for each in return_codes.values():
        if each.exception is not None and each.exception.__name__ == name:
            return each.exception
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


# Configuration files

MODULES: dict[str, type[Addressable]] = {
    "kv_store": KVStore,
    "KVStore": KVStore,
    "kv_store_key": KVStoreKey,
    "KVStoreKey": KVStoreKey,
}
"""What ``module:`` names without a dot."""


def load(file: str | PathLike[str], node: str | None = None) -> list[KVStore]:
    """The providers of a configuration file, ready to be started.

    ``module: package.module.Class`` is imported, also from the directory of the file. ``node`` wins over the
    one that the file names. Raises `ConfigError` naming file, line and column, and OSError when the file
    cannot be read. Connects to nothing.
    """
    path = Path(file)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8 text") from None
    found = endpoint_config.read(text, str(path), functools.partial(_find, path.parent.resolve()))
    providers = [_provider(part, node or found.node) for part in found.providers]
    for call in found.setup_calls:
        _add_setup(call, providers)
    return providers


def _provider(part: Part, node: str | None) -> KVStore:
    provider: KVStore = _made(part)
    provider.node = node or ""
    for each in part.endpoints:
        endpoint = _made(each)
        try:
            provider.add_endpoint(endpoint)
        except ConfigError as wrong:
            raise ConfigError(f"{each.at}: {wrong}") from None
    return provider


def _made(part: Part) -> Any:
    try:
        return part.kind(name=part.name, **part.keywords)
    except ConfigError as wrong:
        raise ConfigError(f"{part.at}: {wrong}") from None
    except Exception as raised:
        raise ConfigError(f"{part.at}: {part.kind.__name__} raised {raised!r}") from raised


def _find(directory: Path, module: str, provider: bool) -> Accepted:
    """The class of a module's name. Raises `ConfigError`."""
    base, keywords = (KVStore, PROVIDER_KEYWORDS) if provider else (KVStoreKey, KEYWORDS)
    kind: Any = MODULES.get(module)
    if kind is None and "." not in module:
        known = ", ".join(name for name, each in MODULES.items() if issubclass(each, base))
        raise ConfigError(f"{module!r} is none of {known}; a class of your own is named package.module.Class")
    if kind is None:
        place, _, name = module.rpartition(".")
        if str(directory) not in sys.path:
            sys.path.append(str(directory))
        try:
            kind = getattr(importlib.import_module(place), name)
        except (ImportError, AttributeError) as wrong:
            raise ConfigError(f"{module!r} cannot be imported: {wrong}") from None
        except Exception as raised:
            # No name of a module, or what the module itself does: that is the program's own.
            raise ConfigError(f"{module!r} cannot be imported: {raised!r}") from raised
    if not (isinstance(kind, type) and issubclass(kind, base)):
        raise ConfigError(f"{module!r} is no {base.__name__}")
    return Accepted(kind, {**keywords, **_own_keywords(kind, base)})


def _own_keywords(kind: type, base: type) -> dict[str, Kind]:
    """The parameters of the constructors between a class and the one that it is made from."""
    own: dict[str, Kind] = {}
    for each in kind.__mro__[: kind.__mro__.index(base)]:
        if "__init__" in vars(each):
            for name, parameter in inspect.signature(vars(each)["__init__"]).parameters.items():
                if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                    own[name] = ANY
    return {name: own[name] for name in own if name not in ("self", "name")}


def _add_setup(call: Call, providers: list[KVStore]) -> None:
    """Have a call made once its target is served. Raises `ConfigError`."""
    for provider in providers:
        if call.target.lower() == provider.name.lower():
            target: Addressable = provider
        elif call.target.lower() in provider._kv_endpoints:
            target = provider.endpoint(call.target)
        else:
            continue
        if call.method.startswith("_") or not hasattr(type(target), call.method):
            raise ConfigError(f"{call.at}: {call.target} has no method {call.method!r}")
        provider._kv_setup.append(functools.partial(_set_up, target, call))
        return
    raise ConfigError(f"{call.at}: {call.target!r} is nothing in this file")


def _set_up(target: Addressable, call: Call) -> None:
    try:
        if isinstance(getattr(type(target), call.method), property):
            setattr(target, call.method, *call.args)
        else:
            getattr(target, call.method)(*call.args, **call.kwargs)
    except Exception as raised:
        raise ConfigError(f"{call.at}: {call.target}.{call.method} raised {raised!r}") from raised
