"""Transactions beside a plain nested dict: the same reads, the same result."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from link_kv import EtcdMiddleware
from link_kv.errors import (
    ListIndexError,
    NotATree,
    NotFound,
)
from link_kv.sessions import Transaction
from link_kv.tree import encode_name
from tests.leases import connect
from tests.model.layout import faults
from tests.model.nested import Nested
from tests.values import as_stored, plain_leaves, same

LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"


@pytest.fixture
def endpoint(etcd: Any) -> str:
    found: str = etcd.endpoints[0]
    return found


@pytest.fixture
def other(endpoint: str, etcd_prefix: str) -> Iterator[EtcdMiddleware]:
    """Somebody else, on the same paths."""
    with connect(endpoint, etcd_prefix) as client:
        yield client


# Beside a dict

NAMES = ("a", "b", "1", "2", "x/y", ".link")
values = st.recursive(
    plain_leaves,
    lambda below: st.dictionaries(st.sampled_from(NAMES), below, max_size=3) | st.lists(below, max_size=3),
    max_leaves=5,
)
ways = st.lists(st.integers(0, 9), min_size=1, max_size=4)
steps = st.lists(
    st.tuples(st.sampled_from(("read", "read", "has", "assign", "assign", "delete")), ways, values),
    max_size=12,
)
_runs = itertools.count()


def where(root: Any, way: list[int]) -> list[str]:
    """The segments of a way down: each number picks a child, or a place where nothing is yet."""
    node, segments = root, []
    for turn in way:
        if isinstance(node, dict):
            name = [*sorted(node), *NAMES][turn % (len(node) + len(NAMES))]
            segments.append(encode_name(name))
            node = node.get(name)
        elif isinstance(node, list):
            place = turn % (len(node) + 2) + 1
            segments.append(str(place))
            node = node[place - 1] if place <= len(node) else None
        else:
            segments.append("a")
            if node is not None:
                break
    return segments


@settings(max_examples=2000 if LONG else 100, suppress_health_check=list(HealthCheck))
@given(start=st.dictionaries(st.sampled_from(NAMES), values, max_size=3), steps=steps)
def test_a_transaction_does_what_a_dict_does(etcd: Any, start: dict[str, Any], steps: list[Any]) -> None:
    with connect(etcd.endpoints[0], f"/beside-a-dict/{next(_runs)}") as client:
        model = Nested()
        for name, value in start.items():
            client["/" + encode_name(name)] = value
            model.assign([encode_name(name)], value)
        before = client.snapshot()

        def work(t: Transaction) -> None:
            for act, way, value in steps:
                at = where(model.root, way)
                path = "/" + "/".join(at)
                if act == "read":
                    expected = model.get(at) if model.has(at) else None
                    assert same(as_stored(t.get(path)), expected), path
                elif act == "has":
                    assert (path in t) is model.has(at), path
                elif act == "delete":
                    if model.has(at):
                        del t[path]
                        model.delete(at)
                    else:
                        with pytest.raises(NotFound):
                            del t[path]
                else:
                    # An error may come here, or at the commit: so this is the last step.
                    t[path] = value
                    model.assign(at, value)

        try:
            client.transaction(work)
        except (NotATree, ListIndexError):
            assert same(client.snapshot(), before)
        else:
            assert same(client.snapshot(), model.root)
        assert faults(client.raw.items(), client._space.prefix) == []
