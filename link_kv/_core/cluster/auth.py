"""etcd's users and roles: who they are, what they may do, and whether etcd asks at all.

etcd answers all of this to its role ``root`` alone, or to everybody while its authentication is off.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

from link_kv._core.wire.calls import AUTHENTICATE, Method, Repeat
from link_kv._core.wire.exchange import Exchange
from link_kv._core.wire.failures import NoAuthentication
from link_kv._core.wire.requests import field
from link_kv.errors import AccessDenied, ConfigError, KeyExists, LinkKVError, NotFound
from link_kv.tree import RESERVED

ROOT = "root"
"""The name of the user without whom etcd enables no authentication, and of the role that may do all."""

Kind = Literal["read", "write", "readwrite"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""What a grant lets do, in the order of etcd's numbers for it."""


def _method(name: str) -> Method:
    return Method("Auth", name, message=name if name.startswith("Auth") else f"Auth{name}")


_USER_ADD, _USER_GET, _USER_LIST = _method("UserAdd"), _method("UserGet"), _method("UserList")
_USER_DELETE, _USER_PASSWORD = _method("UserDelete"), _method("UserChangePassword")
_USER_GRANT, _USER_REVOKE = _method("UserGrantRole"), _method("UserRevokeRole")
_ROLE_ADD, _ROLE_GET, _ROLE_LIST = _method("RoleAdd"), _method("RoleGet"), _method("RoleList")
_ROLE_DELETE = _method("RoleDelete")
_ROLE_GRANT, _ROLE_REVOKE = _method("RoleGrantPermission"), _method("RoleRevokePermission")
_ENABLE, _DISABLE = _method("AuthEnable"), _method("AuthDisable")


class Grant(NamedTuple):
    """What a role may do with one key, or with the keys of a range."""

    kind: Kind
    key: bytes
    end: bytes
    """Empty for the one key; ``\\0`` for all from it on."""


def grants(ex: Exchange, path: str, kind: Kind) -> tuple[Grant, ...]:
    """What a role needs for a path and all below it: the value's own key, and the tree's.

    The root, and ``/.link``, where locks, services and links have their keys, are trees alone.
    Raises `PathError`.
    """
    if path.strip("/") == RESERVED:
        start = ex.space.prefix + b"/.link"
        return (Grant(kind, start + b"/", start + b"0"),)
    at = ex.place(path)
    tree = Grant(kind, at.marker, at.end)
    return (Grant(kind, at.key, b""), tree) if at.segments else (tree,)


async def _ask(ex: Exchange, method: Method, request: bytes, what: str, repeat: Repeat = Repeat.ONCE) -> Any:
    """The answer to a call. ``what`` is the user or role it is about, for errors."""
    try:
        return await ex.space.caller.call(method, request, repeat, ex.deadline)
    except (KeyExists, NotFound, NoAuthentication) as error:
        raise type(error)(f"{what}: {error}") from None
    except AccessDenied as error:
        if "permission denied" not in str(error):
            raise
        user = ex.space.caller.config.user
        raise AccessDenied(f"{what}: needs etcd's role root, which {user or 'the caller'} has not") from None


def _text(tag: bytes, what: str, text: object) -> bytes:
    """A field of a request. Raises `ConfigError` for what is no name and no password."""
    if not isinstance(text, str) or not text:
        raise ConfigError(f"{what}: must be a str that is not empty")
    try:
        return field(tag, text.encode())
    except UnicodeEncodeError:
        raise ConfigError(f"{what}: has lone surrogates; etcd's names are UTF-8") from None


def _user(name: object) -> bytes:
    return _text(b"\x0a", "the name of a user", name)


def _role(name: object) -> bytes:
    return _text(b"\x0a", "the name of a role", name)


# Users


async def users(ex: Exchange) -> list[str]:
    """The names of all users."""
    return sorted((await _ask(ex, _USER_LIST, b"", "users", Repeat.READ)).users)


async def roles_of(ex: Exchange, name: str) -> list[str]:
    """The roles of a user. Raises `NotFound`."""
    return sorted((await _ask(ex, _USER_GET, _user(name), f"user {name}", Repeat.READ)).roles)


async def add_user(ex: Exchange, name: str, password: str | None) -> None:
    """Add a user, without a password one that logs in by a certificate alone. Raises `KeyExists`."""
    secret = field(b"\x1a", b"\x08\x01") if password is None else _text(b"\x12", "the password", password)
    await _ask(ex, _USER_ADD, _user(name) + secret, f"user {name}")


async def delete_user(ex: Exchange, name: str) -> None:
    """Raises `NotFound`."""
    await _ask(ex, _USER_DELETE, _user(name), f"user {name}")


async def set_password(ex: Exchange, name: str, password: str) -> None:
    """Give a user another password. Raises `NotFound`."""
    await _ask(ex, _USER_PASSWORD, _user(name) + _text(b"\x12", "the password", password), f"user {name}")


async def give_role(ex: Exchange, name: str, role: str) -> None:
    """Let a user have a role. Raises `NotFound` when there is no such user, or no such role."""
    request = _user(name) + _text(b"\x12", "the name of a role", role)
    await _ask(ex, _USER_GRANT, request, f"user {name}, role {role}")


async def take_role(ex: Exchange, name: str, role: str) -> None:
    """Raises `NotFound` when there is no such user, or when the user has not the role."""
    request = _user(name) + _text(b"\x12", "the name of a role", role)
    await _ask(ex, _USER_REVOKE, request, f"user {name}, role {role}")


async def is_password(ex: Exchange, name: str, password: str) -> bool:
    """Whether a user logs in with a password. Raises `NoAuthentication` while etcd asks for none."""
    request = _user(name) + _text(b"\x12", "the password", password)
    try:
        await _ask(ex, AUTHENTICATE, request, f"user {name}", Repeat.READ)
    except AccessDenied:
        return False
    return True


# Roles


async def roles(ex: Exchange) -> list[str]:
    """The names of all roles."""
    return sorted((await _ask(ex, _ROLE_LIST, b"", "roles", Repeat.READ)).roles)


async def grants_of(ex: Exchange, name: str) -> list[Grant]:
    """What a role may do. Raises `NotFound`."""
    answer = await _ask(ex, _ROLE_GET, _role(name), f"role {name}", Repeat.READ)
    return [Grant(KINDS[each.permType], each.key, each.range_end) for each in answer.perm]


async def add_role(ex: Exchange, name: str) -> None:
    """Raises `KeyExists`."""
    await _ask(ex, _ROLE_ADD, _role(name), f"role {name}")


async def delete_role(ex: Exchange, name: str) -> None:
    """Delete a role, also from the users who have it. Raises `NotFound`."""
    await _ask(ex, _ROLE_DELETE, _role(name), f"role {name}")


async def grant(ex: Exchange, name: str, what: Grant) -> None:
    """Let a role do something with a range, in place of what it may do with just this range now."""
    allowed = b"\x08" + bytes((KINDS.index(what.kind),)) + field(b"\x12", what.key)
    if what.end:
        allowed += field(b"\x1a", what.end)
    await _ask(ex, _ROLE_GRANT, _role(name) + field(b"\x12", allowed), f"role {name}")


async def revoke(ex: Exchange, name: str, what: Grant) -> None:
    """Take from a role what it may do with just this range. Raises `NotFound`."""
    request = _role(name) + field(b"\x12", what.key)
    if what.end:
        request += field(b"\x1a", what.end)
    await _ask(ex, _ROLE_REVOKE, request, f"role {name}")


# Whether etcd asks


async def is_enabled(ex: Exchange) -> bool:
    """Whether etcd asks who one is. Everybody may know."""
    try:
        # Answered by every version, in contrast to AuthStatus, and nobody has this name.
        await ex.space.caller.call(AUTHENTICATE, b"", Repeat.READ, ex.deadline)
    except NoAuthentication:
        return False
    except AccessDenied:
        return True
    return True


async def enable(ex: Exchange) -> None:
    """Let etcd ask. The user ``root`` must be there, and gets the role ``root`` when it is missing."""
    try:
        await _ask(ex, _ENABLE, b"", "authentication")
        return
    except LinkKVError as error:
        if "root user does not exist" in str(error):
            raise ConfigError(
                "authentication: add the user root first, who may do all: link-kv user add root"
            ) from None
        if "root user does not have root role" not in str(error):
            raise
    if ROOT not in await roles(ex):
        await add_role(ex, ROOT)
    await give_role(ex, ROOT, ROOT)
    await _ask(ex, _ENABLE, b"", "authentication")


async def disable(ex: Exchange) -> None:
    """Let etcd ask nobody: then everybody may do everything."""
    await _ask(ex, _DISABLE, b"", "authentication")
