"""Plans as bytes: what etcd reads in them, and how thousands of operations fit a server that takes 128."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from google.protobuf.unknown_fields import UnknownFieldSet
from hypothesis import example, given
from hypothesis import strategies as st

from link_kv._core.revived import messages
from link_kv._core.wire.requests import (
    MAX_TXN_OPS,
    compare,
    leaf_read_request,
    leaf_request,
    range_request,
    read_request,
    txn_request,
)
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
from link_kv.tree import place
from tests.values import NASTY

keys = (
    st.sampled_from([b"", b"k", b"/a/b", b"\0", b"\xff" * 3, b"x" * 127, b"x" * 128, b"x" * 20_000])
    | st.binary()
)
numbers = st.sampled_from([0, 1, 127, 128, 16_383, 16_384, 2**31, 2**63 - 1]) | st.integers(0, 2**63 - 1)
compares = st.builds(
    Compare, keys, st.sampled_from(["version", "create", "mod"]), st.sampled_from("=<>"), numbers, keys
)
puts = st.builds(Put, keys, keys, numbers)
deletes = st.builds(Delete, keys, keys, st.booleans())
gets = st.builds(Get, keys, keys, numbers, st.booleans(), numbers)
operations = puts | deletes | gets


def parsed(request: bytes) -> Any:
    return messages().TxnRequest.FromString(request)


def known(message: Any) -> bool:
    """Whether the message, and each one in it, has no field that etcd would not know."""
    inner = (
        each
        for field, value in message.ListFields()
        if field.type == field.TYPE_MESSAGE
        for each in (value if isinstance(value, Iterable) else [value])
    )
    return not len(UnknownFieldSet(message)) and all(map(known, inner))


def read_range(message: Any) -> Get:
    assert not message.count_only
    assert not message.serializable
    return Get(message.key, message.range_end, message.limit, message.keys_only, message.revision)


def read_compare(message: Any) -> Compare:
    kind = messages().Compare
    target = {kind.VERSION: "version", kind.CREATE: "create", kind.MOD: "mod"}[message.target]
    op = {kind.EQUAL: "=", kind.LESS: "<", kind.GREATER: ">"}[message.result]
    union = message.WhichOneof("target_union")
    assert union == {"version": "version", "create": "create_revision", "mod": "mod_revision"}[target]
    return Compare(message.key, target, op, getattr(message, union), message.range_end)


def read_operation(message: Any) -> Operation:
    kind = message.WhichOneof("request")
    if kind == "request_put":
        put = message.request_put
        return Put(put.key, put.value, put.lease)
    if kind == "request_delete_range":
        delete = message.request_delete_range
        return Delete(delete.key, delete.range_end, delete.prev_kv)
    assert kind == "request_range"
    return read_range(message.request_range)


def flat(messages: Any) -> Iterator[Any]:
    for message in messages:
        if message.HasField("request_txn") and not message.request_txn.compare:
            assert not message.request_txn.failure
            yield from flat(message.request_txn.success)
        else:
            yield message


def fits(txn: Any, limit: int = MAX_TXN_OPS) -> None:
    """etcd's own check: the longest of the three parts counts, and what is left is for those inside."""
    longest = max(len(txn.compare), len(txn.success), len(txn.failure))
    assert longest <= limit
    for operation in (*txn.success, *txn.failure):
        if operation.HasField("request_txn"):
            fits(operation.request_txn, limit - longest)


@given(gets)
def test_a_range_reads_back(get: Get) -> None:
    assert read_range(messages().RangeRequest.FromString(range_request(get))) == get


def test_no_revision_is_sent_as_another() -> None:
    for revision in (-1, -200):
        with pytest.raises(AssertionError):
            range_request(Get(b"k", revision=revision))


def test_a_range_may_count_only_and_be_serializable() -> None:
    message = messages().RangeRequest.FromString(range_request(Get(b"k"), count_only=True, serializable=True))
    assert (message.key, message.count_only, message.serializable) == (b"k", True, True)


@given(compares)
def test_a_compare_reads_back(one: Compare) -> None:
    assert read_compare(messages().Compare.FromString(compare(one))) == one


@given(
    st.lists(compares, max_size=5).map(tuple),
    st.lists(operations, max_size=8),
    st.lists(operations, max_size=8),
)
def test_a_plan_reads_back(
    guards: tuple[Compare, ...], success: list[Operation], failure: list[Operation]
) -> None:
    txn = parsed(txn_request(Plan(guards, success, failure)))
    assert known(txn)
    assert tuple(map(read_compare, txn.compare)) == guards
    assert list(map(read_operation, txn.success)) == success
    assert list(map(read_operation, txn.failure)) == failure


def test_a_put_that_only_creates_is_a_transaction_of_its_own() -> None:
    txn = parsed(txn_request(Plan((), [Put(b"a", b"1")]), [PutNew(b"k", b"v")]))
    inner = txn.success[1].request_txn
    assert read_compare(inner.compare[0]) == Compare(b"k", "version", "=", 0)
    assert read_operation(inner.success[0]) == Put(b"k", b"v")
    assert not inner.failure


def test_a_refusal_is_an_inner_transaction_that_reads_from_the_future_where_its_compares_hold() -> None:
    refuse = Refuse((Compare(b"k", "version", "=", 0), Compare(b"l", "version", ">", 0, b"m")))
    inner = parsed(txn_request(Plan((), [Put(b"a", b"1"), refuse]))).success[1].request_txn
    assert tuple(map(read_compare, inner.compare)) == refuse.compares
    assert [read_operation(each) for each in inner.success] == [Get(b"k", revision=2**62)]
    assert not inner.failure


def numbered(count: int) -> list[Operation]:
    return [Put(b"k%d" % number, b"v") for number in range(count)]


@given(st.integers(0, 4000), st.integers(0, 100), st.integers(0, 700), st.booleans())
@example(128, 0, 0, False)
@example(129, 0, 128, False)
@example(128, 0, 0, True)
@example(127, 100, 0, True)
@example(4096, 0, 0, False)
@example(4097, 1, 4097, True)
@example(3007, 97, 0, False)
@example(3008, 97, 3008, False)
def test_any_number_of_operations_obeys_etcds_rule_in_order(
    count: int, guards: int, otherwise: int, layout: bool
) -> None:
    plan = Plan(
        tuple(Compare(b"c%d" % number, "version", "=", 0) for number in range(guards)),
        numbered(count),
        [Get(b"g%d" % number) for number in range(otherwise)],
    )
    txn = parsed(txn_request(plan, [PutNew(b"layout", b"1")] if layout else []))
    fits(txn)
    success = list(flat(txn.success))
    if layout:
        assert success.pop().request_txn.compare[0].key == b"layout"
    assert [operation.request_put.key for operation in success] == [put.key for put in plan.operations]
    assert [operation.request_range.key for operation in flat(txn.failure)] == [
        get.key for get in plan.otherwise
    ]
    assert len(txn.compare) == guards


@pytest.mark.parametrize("count", [5_000, 10_000, 20_000, 32_000, 40_000])
@pytest.mark.parametrize("guards", [0, 3, 100])
def test_tens_of_thousands_of_operations_fit_one_transaction(count: int, guards: int) -> None:
    compares = tuple(Compare(b"c%d" % number, "version", "=", 0) for number in range(guards))
    txn = parsed(txn_request(Plan(compares, numbered(count)), [PutNew(b"layout", b"1")]))
    fits(txn)
    found = [
        operation.request_put.key for operation in flat(txn.success) if operation.HasField("request_put")
    ]
    assert found == [b"k%d" % number for number in range(count)]


paths = st.lists(
    st.sampled_from([name for name in NASTY if name and "/" not in name and name not in (".", "..", ".link")])
    | st.sampled_from(["\x12\x06\x12\x04\n\x00\x12\x00", "\x12\x04\n\x00\x12\x00", "1", "2", "a"]),
    min_size=1,
    max_size=5,
).map("/".join)


@given(paths, st.binary(max_size=200), st.sampled_from([b"", b"/ns"]))
def test_the_prepared_requests_are_those_of_their_plans(path: str, stored: bytes, prefix: bytes) -> None:
    at = place(path, prefix)
    guard = optimistic([at])
    assert guard is not None
    plan = Plan(
        guard.compares,
        (Put(at.key, stored), Delete(at.marker, at.end)),
        guard_reads([at], inline=True),
    )
    assert leaf_request(at, stored) == txn_request(plan)
    assert read_request(at) == txn_request(Plan(operations=reads(at)))
    assert leaf_read_request(at) == range_request(Get(at.key))


def test_no_request_is_prepared_where_the_usual_guard_does_not_fit() -> None:
    assert leaf_request(place("/a" * 200), b"1") is None
