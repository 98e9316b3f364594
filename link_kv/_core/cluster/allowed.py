"""What an administrator may ask of the cluster by name: the allow-list of ``admin_request``."""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Awaitable, Callable
from typing import Any

from link_kv._core.cluster import auth
from link_kv._core.cluster.health import alarms, health, members
from link_kv._core.links import running
from link_kv._core.wire.connection import Connection
from link_kv._core.wire.exchange import Exchange
from link_kv.errors import AccessDenied, ConfigError, LinkKVError, NotFound
from link_kv.plan import Get
from link_kv.tree import decode_name

Request = Callable[..., Awaitable[Any]]


async def answer(
    client: Connection, attribute: str, *args: Any, timeout: float | None = None, **kwargs: Any
) -> Any:
    """The answer to one of `REQUESTS`, as JSON types, for who has etcd's role ``root``.

    Raises `AccessDenied` for what is not on the list, and for everybody else; while etcd's authentication
    is off, everybody has that role. Raises `ConfigError` for arguments that do not fit. ``timeout`` is in
    seconds; None gives the client's.
    """
    request = REQUESTS.get(attribute)
    if request is None:
        raise AccessDenied(f"{attribute}: is not what can be asked, which is {', '.join(sorted(REQUESTS))}")
    ex = client._exchange()
    if timeout is not None:
        if not 0 < timeout < math.inf:
            raise ConfigError(f"timeout={timeout!r}: must be a finite number of seconds above 0")
        ex.deadline = time.monotonic() + timeout
    try:
        inspect.signature(request).bind(ex, *args, **kwargs)
    except TypeError as error:
        raise ConfigError(f"{attribute}: {error}") from None
    try:
        await auth.users(ex)  # etcd lists them to root alone
    except AccessDenied as error:
        raise AccessDenied(f"{attribute}: {str(error).removeprefix('users: ')}") from None
    return await request(ex, *args, **kwargs)


# Users and roles


async def _users(ex: Exchange) -> list[tuple[str, bool]]:
    return [(name, await _is_admin(ex, name)) for name in await auth.users(ex)]


async def _user(ex: Exchange, username: str) -> dict[str, Any]:
    return {"name": username, "roles": await auth.roles_of(ex, username)}


async def _is_registered(ex: Exchange, username: str) -> bool:
    return username in await auth.users(ex)


async def _is_admin(ex: Exchange, username: str) -> bool:
    try:
        return auth.ROOT in await auth.roles_of(ex, username)
    except NotFound:
        return False


async def _is_password_valid(ex: Exchange, username: str, password: str) -> bool:
    return await auth.is_password(ex, username, password)


async def _role(ex: Exchange, name: str) -> dict[str, Any]:
    found = await auth.grants_of(ex, name)
    grants = [{"kind": each.kind, "key": _shown(each.key), "end": _shown(each.end)} for each in found]
    return {"name": name, "grants": grants}


def _shown(key: bytes) -> str:
    return key.decode(errors="backslashreplace")


async def _enabled(ex: Exchange) -> dict[str, Any]:
    return {"enabled": await auth.is_enabled(ex)}


# The cluster


async def _status(ex: Exchange) -> dict[str, Any]:
    found = await health(ex)
    told = {"cluster": f"{found.cluster:x}", "member": f"{found.member:x}", "revision": found.revision}
    if found.details:
        told |= {"version": found.details.version, "db_size": found.details.size}
        told["leader"] = f"{found.details.leader:x}"
        told["errors"] = list(found.details.errors)
    return told


async def _members(ex: Exchange) -> list[dict[str, Any]]:
    return [
        {"id": f"{each.id:x}", "name": each.name, "urls": list(each.urls), "learner": each.learner}
        for each in await members(ex.space.caller, ex.deadline)
    ]


async def _alarms(ex: Exchange) -> list[dict[str, Any]]:
    return [
        {"member": f"{member:x}", "alarm": kind}
        for member, kind in await alarms(ex.space.caller, ex.deadline)
    ]


async def _services(ex: Exchange) -> list[str]:
    start = ex.space.prefix + b"/.link/services/"
    names: dict[str, None] = {}
    for kv in (await ex.range(Get(start, start[:-1] + b"0", keys_only=True))).kvs:
        segment = kv.key[len(start) :].partition(b"/")[0].decode(errors="backslashreplace")
        names.setdefault(decode_name(segment))
    return list(names)


async def _shutdown(ex: Exchange) -> None:
    found = await health(ex)
    try:
        await running.stop(ex, found.cluster, found.member)
    except LinkKVError as error:
        raise type(error)(f"{SHUTDOWN}: {error}") from None


SHUTDOWN = "shutdown_manager"
"""Stops the etcd, if ``link-kv up`` runs it on this machine."""

REQUESTS: dict[str, Request] = {
    # By the names of msl-network's manager.
    "users_table.usernames": auth.users,
    "users_table.users": _users,
    "users_table.is_user_registered": _is_registered,
    "users_table.is_admin": _is_admin,
    "users_table.is_password_valid": _is_password_valid,
    # By etcd's own.
    "users.list": auth.users,
    "users.get": _user,
    "roles.list": auth.roles,
    "roles.get": _role,
    "auth.status": _enabled,
    "members.list": _members,
    "alarms.list": _alarms,
    "status": _status,
    "services.list": _services,
    SHUTDOWN: _shutdown,
}
