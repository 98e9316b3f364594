"""The keys and values as etcd holds them. No guard protects the layout here."""

from __future__ import annotations

from link_kv._core.wire.exchange import Exchange, Namespace
from link_kv.errors import (
    EncodeError,
    NotFound,
    PathError,
)
from link_kv.plan import Delete, Get, Plan, Put, absent, unmoved


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


async def raw_pop(ex: Exchange, key: bytes) -> bytes | None:
    """Delete a key; the value that it had, None when there was none."""
    outcome = await ex.commit(Plan((), [Delete(_raw(key), previous=True)]), repr(key))
    gone = outcome.answers()[0].response_delete_range.prev_kvs
    return gone[0].value if gone else None


async def raw_popitem(ex: Exchange, start: bytes, end: bytes) -> tuple[bytes, bytes]:
    """Delete the first key of a range; it, and the value that it had."""
    while kvs := (await ex.range(Get(start, end, 1))).kvs:
        first = kvs[0]
        plan = Plan((unmoved(first.key, first.mod_revision),), [Delete(first.key)], guarded=True)
        if (await ex.commit(plan, repr(first.key))).succeeded:
            return first.key, first.value
    raise NotFound("there is no key")


async def raw_setdefault(ex: Exchange, key: bytes, value: bytes) -> bytes:
    """The value of a key, written first when there is no such key."""
    plan = Plan((absent(_raw(key)),), [Put(key, _raw(value, "value"))], [Get(key)])
    outcome = await ex.commit(plan, repr(key))
    return value if outcome.succeeded else outcome.found()[0][0].value


async def raw_clear(ex: Exchange, force: bool) -> int:
    """Delete every key below the prefix; every one that there is where there is no prefix."""
    if not ex.space.prefix and not force:
        raise PathError("raw.clear() without a prefix would empty the whole etcd: say clear(force=True)")
    return (await ex.commit(Plan((), [Delete(*raw_range(ex.space))]), "/")).revision


async def raw_count(ex: Exchange, start: bytes, end: bytes) -> int:
    return int((await ex.range(Get(start, end), count_only=True)).count)
