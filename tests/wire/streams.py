"""What tests of streams share."""

from __future__ import annotations

from typing import Any

from link_kv import EtcdMiddleware
from link_kv._core.wire.calls import WATCH, Caller, run
from link_kv._core.wire.requests import field


def caller(client: EtcdMiddleware) -> Caller:
    return client._space.caller


def watch(client: EtcdMiddleware) -> Any:
    """A stream that watches the client's whole prefix, once the server has confirmed it."""
    _, stream = run(caller(client).open(WATCH))
    run(stream.send(create(client)))
    assert run(stream.receive()).created
    return stream


def asked(client: Any) -> list[str]:
    """The endpoints that a client's calls go to from now on."""
    wire, endpoints = client._space.caller.wire, []
    send = wire.send

    async def noting(endpoint: str, *more: Any) -> Any:
        endpoints.append(endpoint)
        return await send(endpoint, *more)

    wire.send = noting
    return endpoints


def create(client: EtcdMiddleware) -> bytes:
    key = client._space.prefix + b"/"
    return field(b"\x0a", field(b"\x0a", key) + field(b"\x12", key[:-1] + b"0"))
