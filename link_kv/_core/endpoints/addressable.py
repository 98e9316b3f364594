"""What endpoints and providers have in common: one entrance for requests, and a lockout before it."""

from __future__ import annotations

import inspect
import logging
import sys
import threading
from collections.abc import Iterable, Mapping
from typing import Any

from link_kv._core.endpoints.lockout import Lockout
from link_kv._core.endpoints.replies import OPERATIONS, Properties, Reply, failed, replied
from link_kv._core.endpoints.return_codes import ReplyError, error
from link_kv.errors import ConfigError, LinkKVError

log = logging.getLogger("link_kv.endpoints")

LOCKOUT_TTL = 3600.0
"""Seconds after which a lockout ends, when nobody shows its key meanwhile."""


class Addressable:
    """What requests can be sent to.

    Class attributes for subclasses to extend: `public_attributes` may be read and set from elsewhere, and
    `public_methods` called, besides what all have. Nothing else can be reached.
    """

    public_attributes: tuple[str, ...] = ()
    public_methods: tuple[str, ...] = ()

    _kv_readable: frozenset[str] = frozenset(("name", "is_locked"))
    _kv_writable: frozenset[str] = frozenset()
    _kv_callable: frozenset[str] = frozenset()

    def _kv_prepare(self, name: str, lockout_ttl: float) -> None:
        self._kv_address = name
        self._kv_lockout = Lockout(name, lockout_ttl)
        self._kv_turn = threading.RLock()
        """Held while a request is answered: one at a time."""

    # The entrance

    def handle_request(
        self, channel: Any, method: str, properties: Properties | None, request: Mapping[str, Any]
    ) -> Reply:
        """Answer a request: the one entrance for all that comes from elsewhere. Never raises.

        Args:
            channel: the peer, a `link_kv.services.Caller`; None for this process.
            method: ``get``, ``set``, ``cmd``, ``config``, ``send`` or ``run``.
            properties: the message's id and the caller's lockout key; None for neither.
            request: the payload: ``specifier``, an attribute or a method (``-`` for ``_``), ``''`` for none;
                ``values``, positional arguments; and keywords.

        The lockout is checked first, so that no ``on_…`` that a subclass overrides goes round it. Requests
        of one endpoint are answered one after the other.
        """
        with self._kv_turn:
            try:
                self._kv_check_served(channel)  # it may have stopped while this waited for its turn
                specifier, values, keywords = _parts(method, request)
                properties = properties or Properties()
                self._kv_admit(method, specifier, values, keywords, properties)
                return self._kv_perform(channel, method, specifier, values, keywords)
            except Exception as raised:  # whatever it is, its place is the reply
                if not isinstance(raised, (LinkKVError, ValueError)):
                    log.exception("%s: %s raised", self._kv_address, method)
                return failed(raised)

    def _kv_check_served(self, channel: Any) -> None:
        """Raise `Unavailable` for what came from elsewhere, when nothing is served any more."""

    def _kv_lockouts(self) -> Iterable[Lockout]:
        """What must be open for a request to pass."""
        return (self._kv_lockout,)

    def _kv_admit(
        self, method: str, specifier: str, values: list[Any], keywords: Mapping[str, Any], who: Properties
    ) -> None:
        """Raise the error of code 307 unless the lockouts let the request pass."""
        if method not in OPERATIONS:
            raise error("service_error_invalid_method", f"{self._kv_address}: {method!r} is no operation")
        if method == "get" or (method == "config" and len(values) == 1):
            return
        if method == "cmd" and (
            specifier in ("ping", "is_locked") or (specifier == "unlock" and keywords.get("force") is True)
        ):
            return
        for lockout in self._kv_lockouts():
            lockout.check(who.lockout_key)

    def _kv_perform(
        self, channel: Any, method: str, specifier: str, values: list[Any], keywords: dict[str, Any]
    ) -> Reply:
        if method == "get":
            return replied(self._kv_attribute(specifier)) if specifier else self._kv_get(values, keywords)
        if method == "set":
            if specifier:
                return replied(self.on_config(specifier, *_one(self._kv_address, values)))
            return self._kv_set(values, keywords)
        if method == "config":
            if not 1 <= len(values) <= 2:
                raise error(
                    "service_error_bad_payload", f"{self._kv_address}: config takes a name, and a value"
                )
            return replied(self.on_config(*values))
        if method == "cmd":
            if not specifier:
                raise error("service_error_bad_payload", f"{self._kv_address}: cmd takes a method's name")
            return replied(self._kv_command(channel, specifier, values, keywords))
        if method == "send":
            return replied(self.on_send(*values))
        raise self._kv_unsupported(method)

    def _kv_command(self, channel: Any, name: str, values: list[Any], keywords: dict[str, Any]) -> Any:
        if name == "lock":
            return self._kv_lock(*values, holder=_holder(channel), **keywords)
        if name == "unlock":
            return self.unlock(*values, **keywords)
        if name == "ping":
            return self.ping(*values, **keywords)
        if name == "is_locked":
            return self.is_locked
        if name == "set_condition":
            return self.set_condition(*values, **keywords)
        return self.on_cmd(name, *values, **keywords)

    def _kv_get(self, values: list[Any], keywords: dict[str, Any]) -> Reply:
        raise self._kv_unsupported("get")

    def _kv_set(self, values: list[Any], keywords: dict[str, Any]) -> Reply:
        return replied(self.on_set(*values, **keywords))

    def _kv_unsupported(self, method: str) -> ReplyError:
        return error("service_error_invalid_method", f"{self._kv_address}: method not supported: {method}")

    # What may be reached

    def _kv_attribute(self, name: str) -> Any:
        """An attribute, if it may be read from elsewhere."""
        if name not in self._kv_readable and name not in self.public_attributes:
            raise error(
                "service_error_access_denied",
                f"{self._kv_address}: {name!r} is no attribute that may be read",
            )
        return getattr(self, name)

    def on_cmd(self, *args: Any, **kwargs: Any) -> Any:
        """Call a method by its name, the first argument. Override it to answer for more.

        Raises the error of code 307 for what is not among the methods that may be called from elsewhere.
        """
        name, *values = args
        if name not in self._kv_callable and name not in self.public_methods:
            raise error(
                "service_error_access_denied", f"{self._kv_address}: {name!r} is no method that may be called"
            )
        method = getattr(self, name)
        try:
            inspect.signature(method).bind(*values, **kwargs)
        except TypeError as wrong:
            raise error("service_error_bad_payload", f"{self._kv_address}: {name}: {wrong}") from None
        return method(*values, **kwargs)

    def on_config(self, attribute: str, value: Any = None) -> Any:
        """Read an attribute, or with a value set it. Override it to answer for more.

        Raises the error of code 307 for what is not among the attributes that may be reached from elsewhere.
        """
        if not isinstance(attribute, str):
            raise error("service_error_bad_payload", f"{self._kv_address}: {attribute!r} is no attribute")
        attribute = attribute.replace("-", "_")
        if value is None:
            return self._kv_attribute(attribute)
        if attribute not in self._kv_writable and attribute not in self.public_attributes:
            raise error(
                "service_error_access_denied",
                f"{self._kv_address}: {attribute!r} is no attribute that may be set",
            )
        setattr(self, attribute, value)
        return None

    def on_set(self, *args: Any, **kwargs: Any) -> Any:
        """Set the value. Not supported, unless overridden."""
        raise self._kv_unsupported("set")

    def on_send(self, *commands: Any) -> Any:
        """Pass commands on to hardware. Not supported, unless overridden."""
        raise self._kv_unsupported("send")

    def ping(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing, whatever the arguments: that an answer comes is the answer."""

    def set_condition(self, *args: Any, **kwargs: Any) -> Any:
        """Is called when a condition of the whole is declared, such as an alarm. Does nothing, unless
        overridden.
        """

    # Lockout

    @property
    def is_locked(self) -> bool:
        """Whether changes need a lockout key."""
        return any(lockout.locked for lockout in self._kv_lockouts())

    @property
    def lockout_key(self) -> str | None:
        """The key that opens it, None when it is open. In the serving process only."""
        return next((lockout.key for lockout in self._kv_lockouts() if lockout.locked), None)

    def _kv_lock(
        self, lockout_key: str | None = None, *args: Any, holder: str, **kwargs: Any
    ) -> dict[str, str]:
        return {"key": self._kv_lockout.lock(lockout_key, holder)}

    def unlock(self, *args: Any, **kwargs: Any) -> None:
        """Accept changes from everybody again.

        In this process no key is asked for. From elsewhere it needs the key, or ``force=True``.
        """
        self._kv_lockout.unlock()


def _parts(method: str, request: Mapping[str, Any]) -> tuple[str, list[Any], dict[str, Any]]:
    """Specifier, positional arguments and keywords of a payload, in the one form that the rest looks at.

    A method's name may come as the specifier or as the first argument: here it is the specifier. An attribute
    to configure may too: here it is the first argument.
    """
    if not isinstance(request, Mapping):
        raise error("service_error_bad_payload", f"{request!r} is no payload: it is a mapping")
    keywords = dict(request)
    specifier = keywords.pop("specifier", "")
    values = keywords.pop("values", [])
    if not isinstance(specifier, str) or not isinstance(values, (list, tuple)):
        raise error("service_error_bad_payload", "specifier is a text, and values is a list")
    if not all(isinstance(keyword, str) for keyword in keywords):
        raise error("service_error_bad_payload", "keywords are texts")
    specifier, values = specifier.replace("-", "_"), list(values)
    if method == "config" and specifier:
        return "", [specifier, *values], keywords
    if method == "cmd" and not specifier and values and isinstance(values[0], str):
        return values[0].replace("-", "_"), values[1:], keywords
    return specifier, values, keywords


def _one(address: str, values: list[Any]) -> list[Any]:
    if len(values) != 1:
        raise error("service_error_bad_payload", f"{address}: set takes one value, not {len(values)}")
    return values


def _holder(channel: Any) -> str:
    name = getattr(channel, "name", None)
    return "this service" if name is None else f"{name} at {getattr(channel, 'address', '?')}"


def number(keyword: str, value: Any, most: float = sys.float_info.max) -> float:
    """A threshold or a time: 0 or more. Raises `ConfigError` naming the keyword."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value < float("inf"):
        raise ConfigError(f"{keyword}={value!r}: is a number, 0 or more")
    if value > most:  # whole numbers have no bound of their own
        raise ConfigError(f"{keyword}: is {most:.15g} at most")
    return float(value) if isinstance(value, float) else value
