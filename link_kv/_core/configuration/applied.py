"""Who runs what: each process that follows a configuration says which revision it has in force.

``<prefix>/.link/applied/<path>/<instance>`` holds that, and ``<prefix>/.link/schemas/<path>/<instance>`` what
the process accepts, both as JSON and under a lease. They lie outside the range that the processes watch:
inside it, each acknowledgement would be told to all the others.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from link_kv._core.leasing.leases import LET_GO
from link_kv._core.wire.calls import run
from link_kv.errors import Closed, LeaseLost, LinkKVError, NoSpace, Unavailable
from link_kv.plan import Get
from link_kv.tree import Place, decode_name, encode_name

if TYPE_CHECKING:
    from link_kv._core.leasing.leases import Lease
    from link_kv._core.watching.dispatch import Dispatcher
    from link_kv._core.wire.exchange import Exchange, Namespace

log = logging.getLogger("link_kv.reload")

TTL = 10.0
"""Seconds after which a process that died or was cut off is not shown any more."""
_AGAIN = 1.0
"""Seconds after which an acknowledgement that could not be written is tried again."""
_LONGEST_MESSAGE = 2000

APPLIED, SCHEMAS = "applied", "schemas"


def _directory(space: Namespace, kind: str, at: Place) -> Place:
    return _below(space, (".link", kind, *at.segments))


def _below(space: Namespace, segments: tuple[str, ...]) -> Place:
    path = "/" + "/".join(segments)
    return Place(path, space.prefix + path.encode(), space.prefix, segments)


class Acknowledgement(NamedTuple):
    """What a process says of a configuration."""

    instance: str
    host: str
    pid: int
    program: str
    state: str
    """``applied``, or ``rejected``: then the revision in force is an older one."""
    revision: int
    """In force; 0 for none."""
    seen: int
    """The newest revision that it has looked at."""
    message: str
    """Why it was rejected."""
    time: float
    """When it said so, in seconds since 1970."""
    elsewhere: dict[str, str]
    """Parameters whose value in force is not from etcd, by their paths in it, and where it is from."""


# Telling


class Acknowledger:
    """Tells etcd what this process has in force at some paths. Thread-safe.

    It writes in a thread of the dispatcher's, never in its caller's, and until it has succeeded; what is
    overtaken meanwhile is not written.
    """

    def __init__(
        self,
        space: Namespace,
        dispatcher: Dispatcher,
        open_lease: Callable[[], Lease[Any]],
        schema: dict[str, Any] | None,
    ) -> None:
        host = socket.gethostname()
        self._space = space
        self._dispatcher = dispatcher
        self._open_lease = open_lease
        self._lease: Lease[Any] | None = None
        self._instance = f"{host}-{os.getpid()}-{secrets.token_hex(3)}"
        self._who = {"host": host, "pid": os.getpid(), "program": _program()}
        self._schema = None if schema is None else json.dumps(schema, ensure_ascii=False)
        self._published: set[Place] = set()
        self._turn = threading.Lock()
        """Held by who writes."""
        self._lock = threading.Lock()
        self._waiting: dict[Place, dict[str, Any]] = {}
        self._scheduled = False
        self._closed = False
        self._failing = False

    def tell(self, at: Place, **said: Any) -> None:
        """Have it written that a configuration is in force or was rejected."""
        said["message"] = said["message"][:_LONGEST_MESSAGE]
        with self._lock:
            self._waiting[at] = {**self._who, **said, "time": time.time()}
            if self._scheduled or self._closed:
                return
            self._scheduled = True
        self._dispatcher.schedule(self._work)

    def close(self) -> None:
        """Take back what was said. May be called twice; does nothing in a forked child."""
        if os.getpid() != self._who["pid"]:
            return
        self._closed = True
        if self._turn.acquire(timeout=LET_GO):  # else who writes sees to it
            try:
                self._end()
            finally:
                self._turn.release()

    def _end(self) -> None:
        """Take back what was said. For who has the turn."""
        lease, self._lease = self._lease, None
        if lease is not None:
            run(lease.close(LET_GO))

    def _work(self) -> float | None:
        with self._turn:
            try:
                while not self._closed and (said := self._next()) is not None:
                    self._write(*said)
                self._failing = False
            except (Unavailable, LeaseLost, NoSpace) as error:
                self._warn("is tried again", error)
                return time.monotonic() + _AGAIN
            except Closed:
                self._closed = True
            except LinkKVError as error:  # such as a role that may not write there
                self._warn("is not tried again", error)
                self._closed = True
            if self._closed:  # nobody shall take what was said before for what is
                self._end()
        return None

    def _next(self) -> tuple[Place, dict[str, Any]] | None:
        with self._lock:
            said = next(iter(self._waiting.items()), None)
            self._scheduled = said is not None
            return said

    def _write(self, at: Place, said: dict[str, Any]) -> None:
        if self._lease is None:
            self._lease = self._open_lease()
        if self._schema is not None and at not in self._published:
            run(self._lease.put_at(self._place(SCHEMAS, at), self._schema))
            self._published.add(at)
        run(self._lease.put_at(self._place(APPLIED, at), json.dumps(said, ensure_ascii=False)))
        with self._lock:
            if self._waiting.get(at) is said:
                del self._waiting[at]

    def _place(self, kind: str, at: Place) -> Place:
        return _directory(self._space, kind, at).child(encode_name(self._instance))

    def _warn(self, what: str, error: LinkKVError) -> None:
        level = logging.DEBUG if self._failing else logging.WARNING
        self._failing = True
        log.log(level, "what this process has in force could not be told, which %s: %s", what, error)


def _program() -> str:
    """How this process was started, without its arguments, which may be secret."""
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return str(spec.name).removesuffix(".__main__")
    return os.path.basename(sys.argv[0] if sys.argv else "") or "python"


# Asking


def source_of(elsewhere: Mapping[str, str], path: str) -> str | None:
    """Where a parameter is from, given what is not from etcd; None when it is. What holds it counts too."""
    while path not in elsewhere and "/" in path:
        path = path.rpartition("/")[0]
    return elsewhere.get(path)


async def acknowledgements(ex: Exchange, path: str) -> tuple[int, list[Acknowledgement]]:
    """What all live processes say of a configuration, and the revision that this is of."""
    revision, stored = await _read(ex, APPLIED, path)
    return revision, parse(stored)


def parse(stored: Iterable[tuple[str, Any]]) -> list[Acknowledgement]:
    """Acknowledgements by instance, as they are stored; what is none is passed over."""
    found = []
    for instance, text in stored:
        with contextlib.suppress(ValueError, TypeError, AttributeError, KeyError, RecursionError):
            found.append(_acknowledgement(instance, json.loads(text)))
    return found


async def schemas(ex: Exchange, path: str) -> dict[str, dict[str, Any]]:
    """What live processes accept, as JSON Schema, by instance."""
    found = {}
    for instance, text in (await _read(ex, SCHEMAS, path))[1]:
        with contextlib.suppress(ValueError, RecursionError):
            schema = json.loads(text)
            if isinstance(schema, dict):
                found[instance] = schema
    return found


def directory(space: Namespace, path: str) -> Place:
    """Where the acknowledgements for a path are."""
    return _directory(space, APPLIED, space.place(path))


async def _read(ex: Exchange, kind: str, path: str) -> tuple[int, list[tuple[str, bytes]]]:
    at = _directory(ex.space, kind, ex.place(path))
    answer = await ex.range(Get(at.marker, at.end))
    return answer.header.revision, list(_children(at, answer.kvs))


def _children(at: Place, kvs: Any) -> Iterator[tuple[str, bytes]]:
    """Names and values directly below a place; deeper ones belong to other paths."""
    for kv in kvs:
        name = kv.key[len(at.marker) :]
        if name and b"/" not in name:
            yield decode_name(name.decode(errors="replace")), kv.value


def _acknowledgement(instance: str, said: dict[str, Any]) -> Acknowledgement:
    elsewhere = said.get("elsewhere") or {}
    return Acknowledgement(
        instance,
        str(said["host"]),
        int(said["pid"]),
        str(said["program"]),
        "rejected" if said["state"] == "rejected" else "applied",
        int(said["revision"]),
        int(said["seen"]),
        str(said["message"]),
        float(said["time"]),
        {str(name): str(source) for name, source in elsewhere.items()},
    )
