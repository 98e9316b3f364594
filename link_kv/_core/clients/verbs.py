"""The verbs of clients of one's own, each once: what they do, take, and answer with."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any

from link_kv._core import operations
from link_kv._core.clients.answers import Answer, Request
from link_kv._core.operations.transfer import transfer
from link_kv._core.wire.exchange import Exchange
from link_kv.errors import LinkKVError
from link_kv.plan import Get, reads
from link_kv.tree import leaves


async def _get(ex: Exchange, request: Request) -> Answer:
    revision = request.params.get("revision")
    if revision is not None:
        value = await operations.get(ex, request.path, operations.past_revision(revision))
        return Answer(HTTPStatus.OK, {"revision": revision}, value)
    value, *known = await operations.entry(ex, request.path)
    return Answer(HTTPStatus.OK, dict(zip(_KNOWN, known, strict=True)), value)


_KNOWN = ("revision", "created", "version", "lease")


async def _head(ex: Exchange, request: Request) -> Answer:
    at = ex.place(request.path)
    gets = reads(at, keys_only=True) if at.segments else [Get(*each, keys_only=True) for each in at.visible]
    _, found = await ex.read(gets)
    kvs = [kv for part in found for kv in part]
    if at.segments and found[0]:
        [kv] = found[0]
        known = (kv.mod_revision, kv.create_revision, kv.version, kv.lease)
        return Answer(HTTPStatus.OK, dict(zip(_KNOWN, known, strict=True)))
    if any(True for _ in leaves(kvs, at)):
        known = (max(kv.mod_revision for kv in kvs), min(kv.create_revision for kv in kvs), 0, 0)
        return Answer(HTTPStatus.OK, dict(zip(_KNOWN, known, strict=True)))
    # What markers stand for is in their values. Only empty dicts and lists have nothing else.
    _, *known_of_markers = await operations.entry(ex, request.path)
    return Answer(HTTPStatus.OK, dict(zip(_KNOWN, known_of_markers, strict=True)))


async def _put(ex: Exchange, request: Request) -> Answer:
    guard, ttl = request.params.get("revision"), request.params.get("ttl")
    revision = await operations.put(ex, request.path, request.data, guard, ttl)
    new = guard == 0
    if guard is None:
        # As it was just before tells what the write itself found, whoever writes meanwhile.
        with contextlib.suppress(LinkKVError):  # it is written, whether that can be asked or not
            new = not await operations.contains(ex, request.path, revision - 1)
    return Answer(HTTPStatus.CREATED if new else HTTPStatus.OK, {"revision": revision})


async def _post(ex: Exchange, request: Request) -> Answer:
    return Answer(HTTPStatus.CREATED, {"location": await operations.append(ex, request.path, request.data)})


async def _delete(ex: Exchange, request: Request) -> Answer:
    return Answer(HTTPStatus.NO_CONTENT, {"revision": await operations.delete(ex, request.path)})


async def _copy(ex: Exchange, request: Request) -> Answer:
    target, guard = request.params["destination"], request.params.get("revision")
    move = request.method == "MOVE"
    revision, location = await transfer(ex, request.path, target, move=move, revision=guard)
    return Answer(HTTPStatus.CREATED, {"location": location} | ({"revision": revision} if revision else {}))


VERBS: dict[str, Callable[[Exchange, Request], Coroutine[Any, Any, Answer]]] = {
    "GET": _get,
    "HEAD": _head,
    "PUT": _put,
    "POST": _post,
    "DELETE": _delete,
    "COPY": _copy,
    "MOVE": _copy,
}
PARAMS = {
    "GET": {"revision", "timeout"},
    "HEAD": {"timeout"},
    "PUT": {"revision", "ttl", "timeout"},
    "POST": {"timeout"},
    "DELETE": {"timeout"},
    "COPY": {"destination", "revision", "timeout"},
    "MOVE": {"destination", "revision", "timeout"},
}
SUCCESS = {
    "GET": (200,),
    "HEAD": (200,),
    "PUT": (200, 201),
    "POST": (201,),
    "DELETE": (204,),
    "COPY": (201,),
    "MOVE": (201,),
}
