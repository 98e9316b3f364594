"""Requests to endpoints and the replies to them, as they travel."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any, NamedTuple

from link_kv._core.endpoints.return_codes import ReplyError, code_of, error, return_codes

SILENT = "operation completed silently"
"""What a reply says when a method has returned nothing."""

OPERATIONS = ("get", "set", "cmd", "config", "send", "run")
TIMEOUT = 10.0
"""Seconds that a reply may take, unless told otherwise."""


class Properties(NamedTuple):
    """What a request says of itself."""

    message_id: str = ""
    lockout_key: str | None = None

    def __repr__(self) -> str:
        return f"Properties(message_id={self.message_id!r}, lockout_key={'…' if self.lockout_key else None})"


class Reply(NamedTuple):
    """What an endpoint answers."""

    return_code: int
    return_message: str
    payload: dict[str, Any]
    timestamp: str
    revision: int = 0
    """Of the value in etcd, where the request was about one."""

    def result(self, ignore_retcode: bool = False) -> dict[str, Any]:
        """The payload. Raises the exception of the return code, unless that is to be ignored."""
        exception = return_codes.of(self.return_code).exception
        if exception is not None and not ignore_retcode:
            raised = exception(self.return_message, self.payload)
            raised.code = self.return_code
            raise raised
        return self.payload


def timestamp(seconds: float | None = None) -> str:
    """A time as alerts and replies have it, in UTC."""
    moment = datetime.fromtimestamp(time.time() if seconds is None else seconds, timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def replied(result: Any, revision: int = 0) -> Reply:
    """The reply that a method's result makes."""
    if result is None:
        return Reply(0, SILENT, {}, timestamp(), revision)
    payload = dict(result) if isinstance(result, Mapping) else {"values": [result]}
    return Reply(0, "", payload, timestamp(), revision)


def failed(raised: BaseException) -> Reply:
    """The reply that says what a method raised."""
    code = code_of(raised)
    text = str(raised)
    if code.code == 999 and not isinstance(raised, ReplyError):
        text = f"{type(raised).__name__}: {text}"
    payload = raised.payload if isinstance(raised, ReplyError) else None
    number = raised.code if isinstance(raised, ReplyError) else code.code
    return Reply(number, text or code.name, payload if isinstance(payload, dict) else {}, timestamp())


def read(given: Any) -> Reply:
    """A reply as it came over a link. Raises the error of code 402 for what is none."""
    if isinstance(given, Mapping):
        found: list[Any] = [given.get(field) for field in Reply._fields]
        if all(isinstance(value, kind) for value, kind in zip(found, _KINDS, strict=True)):
            return Reply(*found)
    raise error("client_error_handling_reply", f"{given!r} is no reply of an endpoint")


_KINDS = (int, str, dict, str, int)
