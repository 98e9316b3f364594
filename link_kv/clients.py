"""Clients of your own: a class over a tree, with verbs that answer with a status, and threads that behave.

`Client` here is `BaseClient`, for subclassing. ``link_kv.Client``, which ``link_kv.connect`` gives, is
another class: a program that calls services.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any, TypeVar

from link_kv._core.clients.answers import Answer, ClientError, Request, Response, bad_request, failure
from link_kv._core.clients.fanout import Measured, SilentEvent, run_all
from link_kv._core.clients.progress import stepwise as progress_bar
from link_kv._core.clients.verbs import PARAMS, SUCCESS, VERBS
from link_kv._core.operations import layer
from link_kv._core.wire.calls import Caller, Metadata, run
from link_kv._core.wire.exchange import Exchange, Namespace
from link_kv.errors import (
    ConfigError,
    DeadlineExceeded,
    LinkKVError,
    PathError,
)
from link_kv.middleware import EtcdMiddleware
from link_kv.tree import MISSING, split

__all__ = [
    "BaseClient",
    "Client",
    "ClientError",
    "Request",
    "Response",
    "SilentEvent",
    "progress_bar",
    "wait",
]

C = TypeVar("C", bound="BaseClient")
T = TypeVar("T", bound=threading.Thread)

sendlog = logging.getLogger("link_kv.clients.send")
recvlog = logging.getLogger("link_kv.clients.recv")

_USUAL: Any = object()
"""Stands for the statuses that a verb expects when nothing is said."""


class BaseClient:
    """A client for a tree, to be subclassed: semantic methods over seven verbs.

    Args:
        root: the path that the verbs' paths lie below.
        client: the `link_kv.EtcdMiddleware` it goes through; without one it makes its own, from the
            environment and the files, which `close` closes.
        token: a token of etcd's, sent in place of a login of the client's.
        pool_size: how many requests of this client are under way at once; others wait for their turn.

    Each verb returns a `Response`, and raises `ClientError` for a status that is not in ``success``: a
    number, or several. A failed guard is 409, denied 403, no answer 503. Each is one transaction. A read with
    ``success=None`` is lazy: performed when its response is looked at. A write is always performed at once;
    ``success=None`` then means any status. Repetition and deadlines are the middleware's: nothing is sent
    again that may have happened, and an `OutcomeUnknown` is the cause of its 503.

    Thread-safe. Not to be confused with ``link_kv.Client``, which `link_kv.links.connect` gives.

    Attributes:
        MAX_THREADS: how many threads `async_run` and `_watch_thread_limit` go up to.
        LOG_DATA: log values; they are ``...`` otherwise.
        LOG_TOKEN: log the token.
        LOG_PID: log the process and thread.
    """

    MAX_THREADS = 1
    LOG_DATA = False
    LOG_TOKEN = False
    LOG_PID = False

    def __init__(
        self,
        root: str,
        client: EtcdMiddleware | None = None,
        *,
        token: str | None = None,
        pool_size: int = 8,
    ) -> None:
        if client is not None and not isinstance(client, EtcdMiddleware):
            raise ConfigError("client: must be an EtcdMiddleware; a token is given as token=")
        if token is not None and not (
            isinstance(token, str) and token and token.isascii() and token.isprintable()
        ):
            raise ConfigError("token: must be a str of printable ASCII characters")
        if not isinstance(pool_size, int) or isinstance(pool_size, bool) or pool_size <= 0:
            raise ConfigError(f"pool_size={pool_size!r}: must be a whole number above 0")
        self.root = "/" + "/".join(split(root))
        self.token = token
        self.pool_size = pool_size
        self._owns = client is None
        self.client = client = EtcdMiddleware() if client is None else client
        self._space = client._space if token is None else _with_token(client, token)
        self._pools: dict[int, threading.BoundedSemaphore] = {}
        self._pending = threading.local()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.root} of {self.client!r}>"

    def close(self) -> None:
        """Close the middleware, if it is this client's own. May be called twice."""
        if self._owns:
            self.client.close()

    def __enter__(self: C) -> C:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Verbs

    def get(self, path: str, **options: Any) -> Response:
        """The value at a path: 200, or 404. Options as of `request`."""
        return self.request("GET", path, **options)

    def head(self, path: str, **options: Any) -> Response:
        """What is known of a path, without its value: 200, or 404."""
        return self.request("HEAD", path, **options)

    def put(self, path: str, data: Any = MISSING, **options: Any) -> Response:
        """Write a value over what is at a path: 201 when nothing was there, 200 when it was replaced."""
        return self.request("PUT", path, data=data, **options)

    def post(self, path: str, data: Any = MISSING, **options: Any) -> Response:
        """Append a value to the list at a path, made when nothing is there: 201."""
        return self.request("POST", path, data=data, **options)

    def delete(self, path: str, **options: Any) -> Response:
        """Delete a leaf or a tree: 204, or 404."""
        return self.request("DELETE", path, **options)

    def copy(self, path: str, destination: str | None = None, **options: Any) -> Response:
        """Write a leaf or a whole tree over what is at ``destination``, atomically: 201, or 404."""
        return self.request("COPY", path, destination=destination, **options)

    def move(self, path: str, destination: str | None = None, **options: Any) -> Response:
        """The same, and delete it at ``path`` in the same transaction: 201, or 404."""
        return self.request("MOVE", path, destination=destination, **options)

    def request(
        self,
        method: str,
        path: str,
        *,
        success: int | Collection[int] | None = _USUAL,
        data: Any = MISSING,
        json: Any = MISSING,
        headers: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> Response:
        """What all verbs come to, for a subclass to override.

        Args:
            method: GET, HEAD, PUT, POST, DELETE, COPY or MOVE.
            path: below the root; ``''`` is the root itself.
            success: the statuses that raise nothing; None for any.
            data, json: the value to write; both mean the same.
            headers: ``If-Match`` (a revision), ``If-None-Match`` (``*``) and ``Destination`` are the
                parameters ``revision``, ``revision=0`` and ``destination``. Others are on
                `Response.request`, for your subclass.
            params: ``revision`` (of GET, as it was then; else a guard: where the leaf that is written over
                must be, 0 when nothing may be there), ``ttl`` in seconds, ``destination``, and ``timeout``,
                what the request may take in seconds. Each may also be given as a keyword.

        Raises `ClientError`: with status 400 for a request that makes no sense, which is not sent.
        """
        made = self._made(
            method, path, data if json is MISSING else json, headers, {**(params or {}), **more}
        )
        expected = SUCCESS[made.method] if success is _USUAL else success
        if isinstance(expected, int):
            expected = (expected,)
        if expected is not None and not all(isinstance(each, int) for each in expected):
            raise bad_request(f"success={success!r}: must be a status, several, or None")
        response = Response(made, self._perform)
        if expected is not None:
            response.expect(expected)
        elif made.method not in ("GET", "HEAD"):
            response.perform()
        return response

    def set_header(self, name: str, value: Any, iff: Any = True) -> None:
        """Give the next request of this thread a header, if there is a value, and ``iff`` is true."""
        if value is not None and iff:
            self._next()[0][name] = value

    def set_param(self, name: str, value: Any = None, iff: Any = True) -> None:
        """Give the next request of this thread a parameter, if ``iff`` is true."""
        if iff:
            self._next()[1][name] = value

    def _next(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The headers and parameters that wait for the next request of this thread."""
        if not hasattr(self._pending, "both"):
            self._pending.both = ({}, {})
        both: tuple[dict[str, Any], dict[str, Any]] = self._pending.both
        return both

    def _made(
        self, method: str, path: str, data: Any, headers: Mapping[str, Any] | None, given: Mapping[str, Any]
    ) -> Request:
        """A request, checked. Takes what waited for it."""
        waiting = self._next()
        del self._pending.both
        verb = method.upper() if isinstance(method, str) else ""
        if verb not in VERBS:
            raise bad_request(f"{method!r}: is none of {', '.join(VERBS)}")
        headers = {**waiting[0], **(headers or {})}
        params = {name: value for name, value in {**waiting[1], **given}.items() if value is not None}
        for name, value in headers.items():
            params.update(_meant(name, value))
        if unknown := params.keys() - PARAMS[verb]:
            raise bad_request(f"{verb} knows no {', '.join(sorted(map(str, unknown)))}")
        if (data is MISSING) is (verb in ("PUT", "POST")):
            raise bad_request(f"{verb} needs data=" if data is MISSING else f"{verb} takes no data")
        if "destination" in PARAMS[verb]:
            if "destination" not in params:
                raise bad_request(f"{verb} needs destination=")
            params["destination"] = self._below(params["destination"])
        timeout = params.get("timeout", 1)
        if not isinstance(timeout, (int, float)) or not 0 < timeout < math.inf:
            raise bad_request(f"timeout={timeout!r}: must be a finite number of seconds above 0")
        return Request(verb, self._below(path), data, headers, params)

    def _below(self, path: str) -> str:
        """A path of a verb, as the middleware has it."""
        try:
            return "/" + "/".join((*split(self.root), *split(path)))
        except PathError as error:
            raise bad_request("", error) from error

    def _perform(self, request: Request) -> Answer:
        with self._pool():
            self._log_request(request)
            self._space.caller.settling = self.client._space.caller.settling
            ex = Exchange(self._space)
            if "timeout" in request.params:
                ex.deadline = time.monotonic() + request.params["timeout"]
            try:
                answer = run(VERBS[request.method](ex, request))
            except LinkKVError as error:
                answer = failure(error)
            if "location" in answer.headers:
                below = "/".join(split(answer.headers["location"])[len(split(self.root)) :])
                answer = replace(answer, headers={**answer.headers, "location": below})
            self._log_answer(request, answer)
            return answer

    def _pool(self) -> threading.BoundedSemaphore:
        """Turns for requests. A forked child has its own: whoever held one of its parent's is not there."""
        return self._pools.setdefault(os.getpid(), threading.BoundedSemaphore(self.pool_size))

    # Logging

    def _log_request(self, request: Request) -> None:
        if not sendlog.isEnabledFor(logging.DEBUG):
            return
        shown = {name: value for name, value in request.params.items() if name != "destination"}
        target = f" to {request.params['destination']}" if "destination" in request.params else ""
        sendlog.debug("%s %s%s %s%s", request.method, request.path, target, shown or "", self._who())
        for name, value in request.headers.items():
            sendlog.debug("  %s: %s%s", name, self._shown(value), self._who())
        if self.token is not None:
            sendlog.debug("  token: %s%s", self.token if self.LOG_TOKEN else "...", self._who())
        self._log_value(sendlog, request, request.data)

    def _log_answer(self, request: Request, answer: Answer) -> None:
        if not recvlog.isEnabledFor(logging.DEBUG):
            return
        status = f"{answer.status.value} {answer.status.phrase}"
        recvlog.debug("%s to %s %s%s", status, request.method, request.path, self._who())
        for name, value in answer.headers.items():
            recvlog.debug("  %s: %s%s", name, value, self._who())
        if answer.error is not None:
            recvlog.debug("  %s: %s%s", type(answer.error).__name__, answer.error, self._who())
        self._log_value(recvlog, request, answer.content)

    def _log_value(self, log: logging.Logger, request: Request, value: Any) -> None:
        try:
            size = 0 if value is MISSING else _size(self._space, request.path, value)
        except LinkKVError:  # it cannot be stored; the answer says so
            size = 0
        log.debug("  data size: %d%s", size, self._who())
        if value is not MISSING:
            log.debug("  data: %s%s", self._shown(value), self._who())

    def _shown(self, value: Any) -> str:
        if not self.LOG_DATA:
            return "..."
        text = ascii(value)
        return text if self.token is None or self.LOG_TOKEN else text.replace(self.token, "...")

    def _who(self) -> str:
        return f" [{os.getpid()} {threading.current_thread().name}]" if self.LOG_PID else ""

    # Several at a time

    def async_run(
        self,
        method: Callable[..., Any],
        kwarg_list: Iterable[Mapping[str, Any]],
        *,
        progress: Callable[[int], Iterator[Any]] | None = None,
    ) -> list[Any]:
        """``method(**kwargs)`` for each of ``kwarg_list``, in up to `MAX_THREADS` threads.

        The results come in the order of ``kwarg_list``. As soon as one call is through the next is started,
        and how many run at once follows from how long that takes. After an exception no more are started,
        those that run are waited for, and the first exception is raised; the others are logged.

        ``progress`` is called with the number of calls, and gives a generator that is advanced once at the
        start and once for each call that is through: `progress_bar`, for one.
        """
        return run_all(method, kwarg_list, self.MAX_THREADS, progress)

    def _init_thread_limit(self, limit: int = 1) -> None:
        """Begin with so many threads. Raises `ConfigError` for what is no whole number above 0."""
        self._measured = Measured(limit)

    def _watch_thread_limit(self, threadlist: Iterable[T]) -> list[T]:
        """Wait until another thread may be started, and return those that still run.

        How many may run at once goes up to `MAX_THREADS` while the waits get shorter, and down while they get
        longer. Where no thread is new since the last call, one is waited for all the same. For one thread at
        a time; `async_run` counts for itself.
        """
        if not hasattr(self, "_measured"):
            self._init_thread_limit()
        return self._measured.watch(list(threadlist), self.MAX_THREADS)

    @property
    def _thread_limit(self) -> int:
        return self._measured.limit

    @property
    def _elapsed_old(self) -> float:
        return self._measured.old

    @property
    def _elapsed_new(self) -> float:
        return self._measured.new

    @_elapsed_new.setter
    def _elapsed_new(self, seconds: float) -> None:
        self._measured.new = seconds


Client = BaseClient


def wait(
    poll: Callable[..., Any],
    poll_params: Iterable[Any],
    stop: Callable[[Any], Any],
    delay: float = 1,
    timeout: float = 100,
    wait_cb: Callable[[Any], Any] | None = None,
) -> Any:
    """Call ``poll(*poll_params)`` every ``delay`` seconds until ``stop`` of its result is true; that result.

    ``wait_cb`` is called with each result. Raises `DeadlineExceeded`, a `TimeoutError`, after ``timeout``
    seconds. Where a change in etcd is waited for, `EtcdMiddleware.watch` waits without asking.
    """
    for name, seconds in (("delay", delay), ("timeout", timeout)):
        if not isinstance(seconds, (int, float)) or not 0 <= seconds < math.inf:
            raise ConfigError(f"{name}={seconds!r}: must be a finite number of seconds, 0 or more")
    params = tuple(poll_params)
    until = time.monotonic() + timeout
    while True:
        result = poll(*params)
        if wait_cb is not None:
            wait_cb(result)
        if stop(result):
            return result
        if (left := until - time.monotonic()) <= 0:
            raise DeadlineExceeded(f"what is waited for did not come within {timeout:g} s")
        time.sleep(min(delay, left))


def _meant(name: str, value: Any) -> dict[str, Any]:
    """The parameter that a header stands for."""
    kind = name.lower() if isinstance(name, str) else ""
    if kind == "destination":
        return {"destination": value}
    if kind == "if-none-match":
        if value != "*":
            raise bad_request(f"{name}: {value!r}: only * is known, which is that nothing may be there")
        return {"revision": 0}
    if kind == "if-match":
        try:
            return {"revision": int(str(value).strip('"'))}
        except ValueError:
            raise bad_request(f"{name}: {value!r}: must be a revision") from None
    return {}


def _size(space: Namespace, path: str, value: Any) -> int:
    """The bytes of a value as it is stored."""
    stored, flat = layer(value, space.place(path))
    return sum(len(each) for _, each in flat.pairs) if stored is None else len(stored)


class _TokenCaller(Caller):
    """Sends the calls of another with a token that somebody else fetched."""

    def __init__(self, caller: Caller, token: str) -> None:
        super().__init__(replace(caller.config, user=None, password=None), caller.wire)
        self._token = token
        self._metadata = None  # where it may go is looked at before the first call

    async def _authenticate(self, until: float) -> Metadata:
        return (("hasleader", "true"), ("token", self._token))


def _with_token(client: EtcdMiddleware, token: str) -> Namespace:
    space = client._space
    return Namespace(_TokenCaller(space.caller, token), space.prefix, space.fences)
