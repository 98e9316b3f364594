"""What the replies of endpoints say about how a request went, as numbers with names, and what each raises."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from link_kv.errors import (
    AccessDenied,
    ConfigError,
    DeadlineExceeded,
    LinkKVError,
    NotFound,
    OutcomeUnknown,
    Refused,
    RemoteError,
    Unavailable,
)


class ReplyError(LinkKVError):
    """An endpoint answered that a request failed.

    `code` is the number and `name` what it is called; `payload` is what the reply carried besides.
    """

    code: int = 999
    name: str = "unhandled_exception"

    def __init__(self, message: str = "", payload: Any = None) -> None:
        super().__init__(message or self.name)
        self.payload = payload

    def __str__(self) -> str:
        return str(self.args[0])


class ReturnCode(NamedTuple):
    """How a request went."""

    code: int
    name: str
    description: str
    exception: type[ReplyError] | None
    """What it raises; None when the request succeeded."""


class ReturnCodes(Mapping[str, ReturnCode]):
    """All return codes by name. Thread-safe."""

    def __init__(self) -> None:
        self._by_name: dict[str, ReturnCode] = {}
        self._by_code: dict[int, ReturnCode] = {}

    def __getitem__(self, name: str) -> ReturnCode:
        return self._by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._by_name))

    def __len__(self) -> int:
        return len(self._by_name)

    def of(self, code: int) -> ReturnCode:
        """The return code of a number; one that is not known here is as unhandled as 999."""
        return self._by_code.get(code) or self._by_code[999]._replace(code=code)

    def add(
        self, code: int, name: str, description: str, *, base: type[BaseException] | None = None
    ) -> type[ReplyError]:
        """Add a return code, and give the exception that it raises. Raises `ConfigError`.

        Args:
            code: a number of your own, from 1000 on.
            name: what it is called, such as ``pump_error_dry``.
            description: what it means.
            base: an exception that its own one is to be as well.
        """
        if isinstance(code, bool) or not isinstance(code, int) or code < 1000:
            raise ConfigError(f"{code!r}: return codes of your own are whole numbers from 1000 on")
        if not isinstance(name, str) or not name.isidentifier():
            raise ConfigError(f"{name!r}: a return code's name is a word such as pump_error_dry")
        known = self._by_code.get(code) or self._by_name.get(name)
        if known is not None:
            raise ConfigError(f"{code} {name}: there is {known.code} {known.name} already")
        return self._add(code, name, description, *(() if base is None else (base,)))

    def _add(self, code: int, name: str, description: str, *others: type[BaseException]) -> type[ReplyError]:
        bases: tuple[type, ...] = (ReplyError, *others)
        words = "".join(word.capitalize() for word in name.split("_"))
        about = {"code": code, "name": name, "__doc__": f"{code}: {description}."}
        exception = type(words, bases, {**about, "__module__": "link_kv.endpoints"})
        added = ReturnCode(code, name, description, exception)
        self._by_code[code] = self._by_name[name] = added
        return exception


return_codes = ReturnCodes()
"""All return codes by name; ``return_codes.add`` adds your own."""

_SUCCESS = ReturnCode(0, "success", "the request was carried out", None)
return_codes._by_code[0] = return_codes._by_name["success"] = _SUCCESS

# What was not answered in time may be carried out all the same: those errors leave the outcome open.
_TABLE: tuple[tuple[Any, ...], ...] = (
    (1, "warning_no_action_taken", "nothing was to be done"),
    (100, "amqp_error", "messages do not get through, and it may have been carried out", OutcomeUnknown),
    (101, "amqp_error_broker_connection", "there is no connection", Unavailable),
    (102, "amqp_error_routingkey_notfound", "nothing is called so", NotFound),
    (200, "device_error", "the hardware failed", OSError),
    (201, "device_error_connection", "there is no connection to the hardware", ConnectionError),
    (202, "device_error_no_resp", "the hardware does not answer", TimeoutError),
    (300, "service_error", "the service failed"),
    (301, "service_error_no_encoding", "the message has no encoding", ValueError),
    (302, "service_error_decoding_fail", "the message cannot be read", ValueError),
    (303, "service_error_bad_payload", "the payload is not of the form that is needed", ValueError),
    (304, "service_error_invalid_value", "the value is not accepted", Refused),
    (305, "service_error_timeout", "it took too long", OutcomeUnknown, DeadlineExceeded),
    (306, "service_error_invalid_method", "the method is not supported", NotImplementedError),
    (307, "service_error_access_denied", "it is not allowed, or locked", AccessDenied),
    (308, "service_error_invalid_key", "the lockout key is none", AccessDenied),
    (309, "service_error_deprecated_feature", "this is not done any more"),
    (400, "client_error", "the client failed"),
    (401, "client_error_invalid_request", "the request is none", ValueError),
    (402, "client_error_handling_reply", "the reply cannot be used"),
    (403, "client_error_unable_to_send", "the request could not be sent", Unavailable),
    (404, "client_error_timeout", "no reply came in time", OutcomeUnknown, DeadlineExceeded),
    (999, "unhandled_exception", "anything else", RemoteError),
)
for _row in _TABLE:
    return_codes._add(*_row)


def error(name: str, message: str = "", payload: Any = None) -> ReplyError:
    """The exception of a return code by its name."""
    exception = return_codes[name].exception
    assert exception is not None
    return exception(message, payload)


_RAISED: tuple[tuple[type[BaseException], str], ...] = (
    (PermissionError, "service_error_access_denied"),
    (Refused, "service_error_invalid_value"),
    (NotImplementedError, "service_error_invalid_method"),
    (TimeoutError, "service_error_timeout"),
    (NotFound, "amqp_error_routingkey_notfound"),
    (OutcomeUnknown, "amqp_error"),
    (Unavailable, "amqp_error_broker_connection"),
    (ConnectionError, "device_error_connection"),
    (OSError, "device_error"),
    (ValueError, "service_error_invalid_value"),
    (TypeError, "service_error_bad_payload"),
    (LinkKVError, "service_error"),
)
"""The return codes of what the methods of endpoints raise."""


def code_of(raised: BaseException) -> ReturnCode:
    """The return code for what a method raised."""
    if isinstance(raised, ReplyError):
        return return_codes.of(raised.code)
    for kind, name in _RAISED:
        if isinstance(raised, kind):
            return return_codes[name]
    return return_codes["unhandled_exception"]
