"""What a client of one's own asks, and what it is answered: statuses as in HTTP."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from link_kv.codec import encode
from link_kv.errors import (
    AccessDenied,
    Closed,
    ConfigError,
    Conflict,
    EncodeError,
    LeaseLost,
    LinkKVError,
    ListIndexError,
    NoSpace,
    NotATree,
    NotFound,
    PathError,
    RevisionError,
    TooLarge,
    Unavailable,
)
from link_kv.tree import MISSING

_STATUS: tuple[tuple[type[LinkKVError], HTTPStatus], ...] = (
    (NotFound, HTTPStatus.NOT_FOUND),
    (AccessDenied, HTTPStatus.FORBIDDEN),
    (NotATree, HTTPStatus.CONFLICT),
    (Conflict, HTTPStatus.CONFLICT),
    (LeaseLost, HTTPStatus.CONFLICT),
    (RevisionError, HTTPStatus.GONE),
    (TooLarge, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (NoSpace, HTTPStatus.INSUFFICIENT_STORAGE),
    (Unavailable, HTTPStatus.SERVICE_UNAVAILABLE),
    (Closed, HTTPStatus.SERVICE_UNAVAILABLE),
    *((kind, HTTPStatus.BAD_REQUEST) for kind in (PathError, EncodeError, ListIndexError, ConfigError)),
)


def failure(error: LinkKVError) -> Answer:
    """What a request that failed is answered."""
    for kind, status in _STATUS:
        if isinstance(error, kind):
            return Answer(status, error=error)
    return Answer(HTTPStatus.INTERNAL_SERVER_ERROR, error=error)


class ClientError(LinkKVError):
    """What a client's method raises.

    Attributes:
        message: what happened. An error as services write it, ``404 {"Name": {"message": …}}``, is unpacked.
        status: a number as in HTTP; 0 when there is none.
        details: what else is known; an empty list when nothing is.

    When a request failed, ``__cause__`` is the error of link_kv that says why.
    """

    def __init__(self, message: str, status: int = 0, details: Any = None) -> None:
        self.message, found_status, more = _unpacked(str(message))
        self.status = found_status or (status if isinstance(status, int) else 0)
        self.details = details or []
        if more:
            self.details = [*(self.details if isinstance(self.details, list) else [self.details]), more]
        super().__init__(self.message)

    def __reduce__(self) -> Any:
        return type(self), (self.message, self.status, self.details)


ClientError.__module__ = "link_kv.clients"  # where it is known


def _unpacked(message: str) -> tuple[str, int, Any]:
    """The message, status and details of an error that a service wrote as JSON; else the text, 0, None."""
    before, brace, rest = message.partition("{")
    try:
        (name, told), *others = json.loads(brace + rest).items() if brace else [("", None), ()]
    except ValueError:
        return message, 0, None
    if others or not isinstance(told, dict):
        return message, 0, None
    text = " ".join(filter(None, (before.strip(), name)))
    if "message" in told:
        text += f" ({told['message']})"
    code = told.get("code")
    return text, code if isinstance(code, int) else 0, told.get("details")


@dataclass(frozen=True)
class Request:
    """What a client asks for. Its repr shows no value."""

    method: str
    """In capitals."""
    path: str
    """From the root of the middleware."""
    data: Any = field(default=MISSING, repr=False)
    headers: Mapping[str, Any] = field(default_factory=dict, repr=False)
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    status: HTTPStatus
    headers: Mapping[str, Any] = field(default_factory=dict)
    content: Any = MISSING
    error: LinkKVError | None = None


class Response:
    """The answer to a request.

    A lazy one is performed when something of it is looked at, and once, whichever threads look.
    """

    def __init__(self, request: Request, perform: Callable[[Request], Answer]) -> None:
        self.request = request
        self._perform = perform
        self._answer: Answer | None = None
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        told = self._answer.status.value if self._answer else "not performed"
        return f"<Response {told} to {self.request.method} {self.request.path}>"

    def _answered(self) -> Answer:
        with self._lock:
            if self._answer is None:
                self._answer = self._perform(self.request)
            return self._answer

    @property
    def performed(self) -> bool:
        """Whether the request was made. Looking does not make it."""
        return self._answer is not None

    @property
    def status(self) -> HTTPStatus:
        """A number with a ``phrase``, such as 404, ``Not Found``."""
        return self._answered().status

    @property
    def status_code(self) -> int:
        """The number alone."""
        return self._answered().status.value

    @property
    def headers(self) -> Mapping[str, Any]:
        """What is known beside the value: ``revision``, ``created``, ``version``, ``lease``, ``location``."""
        return self._answered().headers

    @property
    def content(self) -> Any:
        """The value; None where the answer has none."""
        content = self._answered().content
        return None if content is MISSING else content

    @property
    def json(self) -> Any:
        """The value. Raises `ClientError` when JSON has no such value, and when the request failed."""
        self.check()
        try:
            json.dumps(self.content)
        except (TypeError, ValueError) as error:
            raise ClientError(f"{self.request.path}: is not JSON: {error}", self.status_code) from None
        return self.content

    @property
    def text(self) -> str:
        """The value as it is stored, of a tree as JSON; of a request that failed, why."""
        answer = self._answered()
        if answer.error is not None:
            return str(answer.error)
        if answer.content is MISSING:
            return ""
        if isinstance(answer.content, (dict, list)):
            return json.dumps(self.json)
        return encode(answer.content).decode(errors="backslashreplace")

    @property
    def error(self) -> LinkKVError | None:
        """Why the request failed; None when it did not."""
        return self._answered().error

    def perform(self) -> None:
        """Make the request, unless it was made."""
        self._answered()

    def check(self) -> None:
        """Raise `ClientError` if the request failed, from the error that says why."""
        if (error := self.error) is not None:
            raise _client_error(self.status, error) from error

    def expect(self, success: Collection[int]) -> None:
        """Raise `ClientError` if the status is another."""
        if self.status not in success:
            self.check()
            raise ClientError(
                f"{self.status.value} {self.status.phrase}: {self.request.path}", self.status.value
            )


def _client_error(status: HTTPStatus, error: LinkKVError) -> ClientError:
    return ClientError(
        f"{status.value} {status.phrase}: {error}", status.value, [f"{type(error).__name__}: {error}"]
    )


def bad_request(reason: str, cause: LinkKVError | None = None) -> ClientError:
    """For a request that is not sent."""
    made = _client_error(HTTPStatus.BAD_REQUEST, cause or ConfigError(reason))
    made.__cause__ = cause
    return made
