"""The keys and values as etcd holds them. No guard protects the layout here."""

from __future__ import annotations

from link_kv._core.wire.exchange import Exchange, Namespace
from link_kv.errors import (
    EncodeError,
    NotFound,
    PathError,
)
from link_kv.plan import Delete, Get, Plan, Put


def _raw(key: object, what: str = "key") -> bytes:
    if not isinstance(key, bytes):
        raise EncodeError(f"{key!r}: a raw {what} is bytes, not {type(key).__name__}")
    if not key and what == "key":
        raise PathError("b'': etcd has no empty key")
    return key


def raw_range(space: Namespace) -> tuple[bytes, bytes]:
    """Every key below the prefix; all there are where there is no prefix."""
    prefix = space.prefix
    return (prefix + b"/", prefix + b"0") if prefix else (b"\0", b"\0")


async def raw_get(ex: Exchange, key: bytes) -> bytes | None:
    answer = await ex.range(Get(_raw(key)))
    return answer.kvs[0].value if answer.kvs else None


async def raw_item(ex: Exchange, key: bytes) -> bytes:
    found = await raw_get(ex, key)
    if found is None:
        raise NotFound(f"{key!r}: no such key")
    return found


async def raw_put(ex: Exchange, key: bytes, value: bytes) -> int:
    plan = Plan((), [Put(_raw(key), _raw(value, "value"))])
    return (await ex.commit(plan, repr(key))).revision


async def raw_delete(ex: Exchange, key: bytes) -> int:
    outcome = await ex.commit(Plan((), [Delete(_raw(key))]), repr(key))
    if not outcome.answers()[0].response_delete_range.deleted:
        raise NotFound(f"{key!r}: no such key")
    return outcome.revision


async def raw_count(ex: Exchange, start: bytes, end: bytes) -> int:
    return int((await ex.range(Get(start, end), count_only=True)).count)
