"""Plans as the bytes of etcd requests.

Requests are joined from bytes rather than built as messages: a transaction of 10,000 puts takes a fifth of
the time. Field numbers are those of etcd's ``rpc.proto``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from link_kv.errors import TooLarge
from link_kv.plan import (
    Compare,
    Delete,
    Get,
    Operation,
    Plan,
    Put,
    PutNew,
    Refuse,
    guard_reads,
    optimistic,
    reads,
)
from link_kv.tree import Place

MAX_TXN_OPS = 128
"""etcd's default for --max-txn-ops. A nested transaction may hold this many less those of its parents."""

LAST_REVISION = 2**63 - 1
"""A number beyond it is cut to its lower 64 bits on the wire, and means another revision or the newest."""

_TOGETHER = 16
"""How many compares that are insisted on share an inner transaction."""

_TARGET = {"version": (b"\x10\x00", b"\x20"), "create": (b"\x10\x01", b"\x28"), "mod": (b"\x10\x02", b"\x30")}
_RESULT = {"=": b"\x08\x00", ">": b"\x08\x01", "<": b"\x08\x02"}


def varint(number: int) -> bytes:
    if number < 0x80:
        return _SMALL[number]
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


_SMALL = [bytes((number,)) for number in range(0x80)]


def field(tag: bytes, data: bytes) -> bytes:
    """A length-delimited field: bytes, text or a message."""
    return tag + varint(len(data)) + data


def range_request(get: Get, *, count_only: bool = False, serializable: bool = False) -> bytes:
    key, end, limit, keys_only, revision = get
    assert revision >= 0  # else it would be sent as another
    out = field(b"\x0a", key)
    if end:
        out += field(b"\x12", end)
    if limit:
        out += b"\x18" + varint(limit)
    if revision:
        out += b"\x20" + varint(revision)
    if serializable:
        out += b"\x38\x01"
    if keys_only:
        out += b"\x40\x01"
    if count_only:
        out += b"\x48\x01"
    return out


def put_request(put: Put) -> bytes:
    key, value, lease = put
    size, length = len(key), len(value)
    out = b"".join(
        (
            b"\x0a",
            _SMALL[size] if size < 0x80 else varint(size),
            key,
            b"\x12",
            _SMALL[length] if length < 0x80 else varint(length),
            value,
        )
    )
    return out + b"\x18" + varint(lease) if lease else out


def delete_request(delete: Delete) -> bytes:
    key, end, previous = delete
    out = field(b"\x0a", key)
    if end:
        out += field(b"\x12", end)
    return out + b"\x18\x01" if previous else out


def compare(compare: Compare) -> bytes:
    key, target, op, value, end = compare
    kind, tag = _TARGET[target]
    out = _RESULT[op] + kind + field(b"\x1a", key) + tag + varint(value)
    return out + field(b"\x82\x04", end) if end else out


def operation(op: Operation) -> bytes:
    """A RequestOp."""
    if type(op) is Put:
        return field(b"\x12", put_request(op))
    if type(op) is Get:
        return field(b"\x0a", range_request(op))
    if type(op) is Delete:
        return field(b"\x1a", delete_request(op))
    if type(op) is Refuse:
        return field(
            b"\x22", txn_bytes([compare(each) for each in op.compares], (_never(op.compares[0].key),), ())
        )
    assert type(op) is PutNew
    guard = compare(Compare(op.key, "version", "=", 0))
    return field(b"\x22", txn_bytes((guard,), [field(b"\x12", put_request(Put(op.key, op.value)))], ()))


def txn_bytes(compares: Sequence[bytes], success: Sequence[bytes], failure: Sequence[bytes]) -> bytes:
    parts: list[bytes] = []
    for tag, messages in ((b"\x0a", compares), (b"\x12", success), (b"\x1a", failure)):
        for message in messages:
            parts += (tag, varint(len(message)), message)
    return b"".join(parts)


def txn_request(plan: Plan, extra: Sequence[Operation] = (), insist: Sequence[Compare] = ()) -> bytes:
    """A plan as one TxnRequest, its operations nested as deep as their number needs.

    Raises `TooLarge` when they cannot be nested so deep below that many compares. ``insist`` are compares of
    any number. When one fails, etcd refuses the whole request with the error of a read from the future.
    """
    compares = [compare(each) for each in plan.compares]
    success = [operation(op) for op in plan.operations]
    success += [operation(op) for op in extra]
    success += [_insist(insist[start : start + _TOGETHER]) for start in range(0, len(insist), _TOGETHER)]
    failure = [operation(op) for op in plan.otherwise]
    # A put that only creates is a transaction of its own, and needs a place left below; so do compares.
    limit = MAX_TXN_OPS - (_TOGETHER if insist else 1 if extra else 0)
    return txn_bytes(compares, *_fit(success, failure, len(compares), limit))


def _insist(compares: Sequence[Compare]) -> bytes:
    """A RequestOp that fails the transaction around it when a compare fails.

    etcd evaluates the compares of inner transactions before it does anything, and then looks whether what it
    is to read can be read: the revision here never can. The key is one that is compared, since etcd asks for
    the right to read it even where it is not read.
    """
    never = _never(compares[0].key)
    return field(b"\x22", txn_bytes([compare(each) for each in compares], (), (never,)))


def _never(key: bytes) -> bytes:
    """A RequestOp for which etcd refuses the whole request: a read from the future."""
    return operation(Get(key, revision=2**62))


@lru_cache(maxsize=4096)
def read_request(at: Place) -> bytes:
    """The request that reads a leaf and its tree, now: the same bytes each time."""
    return txn_request(Plan(operations=reads(at)))


@lru_cache(maxsize=4096)
def leaf_read_request(at: Place) -> bytes:
    return range_request(Get(at.key))


@lru_cache(maxsize=4096)
def _leaf_frame(at: Place) -> tuple[bytes, bytes] | None:
    """What stands before and behind the put in a request that assigns a leaf, where the usual guard fits."""
    guard = optimistic((at,))
    if guard is None:
        return None
    rest = Plan((), (Delete(at.marker, at.end),), guard_reads((at,), inline=True))
    return txn_request(Plan(guard.compares)), txn_request(rest)


def leaf_request(at: Place, stored: bytes) -> bytes | None:
    """The request that assigns a leaf under the usual guard; only the put differs from value to value."""
    frame = _leaf_frame(at)
    if frame is None:
        return None
    return frame[0] + field(b"\x12", operation(Put(at.key, stored))) + frame[1]


def _fit(
    success: list[bytes], failure: list[bytes], compares: int, limit: int
) -> tuple[list[bytes], list[bytes]]:
    """Both branches as at most ``limit`` RequestOps that do the same in the same order.

    etcd counts the longest of the three parts of a transaction, and grants what is left to those inside it.
    """
    count = max(len(success), len(failure))
    if count <= limit:
        return success, failure
    width = _width(count, compares, limit)
    inner = limit - max(compares, width)
    return _split(success, width, inner), _split(failure, width, inner)


def _split(operations: list[bytes], width: int, inner: int) -> list[bytes]:
    if len(operations) <= width:
        return operations
    size = -(-len(operations) // width)
    parts = (operations[start : start + size] for start in range(0, len(operations), size))
    return [field(b"\x22", txn_bytes((), _fit(part, [], 0, inner)[0], ())) for part in parts]


def _width(count: int, compares: int, limit: int) -> int:
    """How many parts the operations make at the top: as few as can be, so that the transactions are full."""
    for levels in range(2, 9):
        for width in range(2, limit):
            # The top may be as wide as it has compares, since etcd counts the longer of both.
            top = max(width, compares)
            full = limit - top - width * (levels - 2)
            if full < 1:
                break
            if top * width ** (levels - 2) * full >= count:
                return top
    raise TooLarge(f"{count} operations with {compares} compares do not fit one transaction")
