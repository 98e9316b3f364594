"""Alerts: what endpoints tell, under routing keys, and the newest of each in etcd."""

from __future__ import annotations

import getpass
import json
import os
import socket
import sys
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from link_kv._core.wire.exchange import Exchange
from link_kv.plan import Get
from link_kv.tree import decode_name, encode_name

WHERE = b"/.link/alerts/"


class Alert(NamedTuple):
    """Something that an endpoint tells."""

    routing_key: str
    """What it is about: ``sensor_value.<name>``."""
    payload: dict[str, Any]
    timestamp: str
    """UTC, ``%Y-%m-%dT%H:%M:%S.%fZ``."""
    sender_info: dict[str, str]

    def plain(self) -> dict[str, Any]:
        """As it travels."""
        return self._asdict()


def sender(service: str, version: str) -> dict[str, str]:
    """Who sends, in this process."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a user without a name
        user = str(os.getuid())
    return {
        "exe": sys.argv[0] or sys.executable,
        "version": version,
        "hostname": socket.gethostname(),
        "username": user,
        "service_name": service,
    }


def read(given: Any) -> Alert | None:
    """An alert as it came, None for what is none."""
    if not isinstance(given, Mapping):
        return None
    found: list[Any] = [given.get(field) for field in Alert._fields]
    if all(isinstance(value, kind) for value, kind in zip(found, (str, dict, str, dict), strict=True)):
        return Alert(*found)
    return None


def matches(routing_key: str, pattern: str) -> bool:
    """Whether a routing key is of a pattern: ``*`` for anything, ``#`` too, as AMQP writes it."""
    return fnmatchcase(routing_key, pattern.replace("#", "*"))


def key_of(prefix: bytes, routing_key: str) -> bytes:
    """Where the newest alert of a routing key is."""
    return prefix + WHERE + encode_name(routing_key, "alert").encode()


def dump(alert: Alert) -> bytes:
    """As it is in etcd: JSON."""
    return json.dumps(alert.plain(), ensure_ascii=False, default=_plain).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, (bytes, bytearray)):
        return f"<{len(value)} bytes>"
    listed = getattr(value, "tolist", None)  # numpy's arrays and numbers
    return listed() if callable(listed) else str(value)


async def newest(ex: Exchange) -> dict[str, Alert]:
    """The newest alert of each routing key."""
    start = ex.space.prefix + WHERE
    _, (kvs,) = await ex.read([Get(start, start[:-1] + b"0")])
    found: dict[str, Alert] = {}
    for kv in kvs:
        try:
            alert = read(json.loads(kv.value))
        except (ValueError, RecursionError):
            continue  # not one of ours
        if alert is not None:
            found[decode_name(kv.key[len(start) :].decode(errors="replace"))] = alert
    return found
