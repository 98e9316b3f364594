"""A walk beside its definition, on keys that we and other tools may have made."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from link_kv import EtcdMiddleware, NotFound
from link_kv._core.operations import Kind
from link_kv._core.operations import walk as walking
from link_kv._core.operations.iterate import drive
from link_kv._core.operations.walk import Node, counts, walk
from link_kv._core.wire.calls import run
from link_kv.tree import EMPTY_DICT, LIST, Place, nameable

Shown = tuple[str, int, Kind, bytes | None]

SEGMENTS = st.sampled_from(["a", "b", "a-", "é", "1", "2", "10", ".x", ".link", "", ".."])
PATHS = st.lists(SEGMENTS, max_size=4).map(lambda segments: "".join(f"/{segment}" for segment in segments))
KEYS = st.one_of(
    PATHS.map(str.encode),
    PATHS.map(lambda path: f"{path}/".encode()),
    PATHS.map(lambda path: path.encode() + b"/\xff"),
)
TREES = st.dictionaries(KEYS, st.sampled_from([EMPTY_DICT, LIST, b"x"]), max_size=12)
numbers = itertools.count()


def defined(keys: dict[bytes, bytes], at: Place, depth: int) -> list[Shown]:
    """What a walk meets: the values, and each tree that has something visible in it."""
    found: dict[bytes, Shown] = {}
    for key, stored in sorted(keys.items()):
        if key == at.key:
            found[key] = (at.path, 0, Kind.LEAF, stored)
        if not key.startswith(at.marker):
            continue
        try:
            relative = key[len(at.marker) :].decode()
        except UnicodeDecodeError:
            continue
        *trees, leaf = relative.split("/")
        if leaf:
            if not nameable(relative):
                continue
        elif (trees and not nameable("/".join(trees))) or stored not in (EMPTY_DICT, LIST):
            continue
        for level in range(len(trees) + 1):
            path = "/".join((at.path, *trees[:level]))
            found.setdefault(path.encode() + b"/", (path, level, Kind.DICT, None))
        if not leaf:
            path = "/".join((at.path, *trees))
            kind = Kind.LIST if stored == LIST else Kind.DICT
            found[path.encode() + b"/"] = (path, len(trees), kind, stored)
        else:
            found[key] = (f"{at.path}/{relative}", len(trees) + 1, Kind.LEAF, stored)
    # The prefix is the same for all, so it does not change the order.
    ordered = sorted(found.items(), key=lambda item: item[0].removeprefix(at.prefix))
    return [shown for _, shown in ordered if not depth or shown[1] <= depth]


def shown(nodes: Iterator[Node]) -> list[Shown]:
    return [(n.path, n.level, n.kind, None if n.kv is None else n.kv.value) for n in nodes]


@pytest.fixture(autouse=True, params=[1, 2, walking.PAGE])
def page(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walking, "PAGE", request.param)
    monkeypatch.setattr(walking, "_FIRST_BATCH", min(3, request.param))


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TREES, st.integers(0, 3))
def test_it_meets_what_is_visible(etcd_client: EtcdMiddleware, tree: dict[bytes, bytes], depth: int) -> None:
    at = etcd_client._space.place(f"/t{next(numbers)}")
    keys = {at.key + key: stored for key, stored in tree.items()}
    for key, stored in keys.items():
        etcd_client.raw[key] = stored
    expected = defined(keys, at, depth)
    nodes = walk(etcd_client._exchange(), at.path, depth, values=True)
    if not expected:
        with pytest.raises(NotFound):
            shown(drive(nodes))
        return
    assert shown(drive(nodes)) == expected
    # Without values the same is met, with the values of markers alone.
    bare = shown(drive(walk(etcd_client._exchange(), at.path, depth)))
    assert [each[:3] for each in bare] == [each[:3] for each in expected]


def test_the_root_is_there_even_when_empty(etcd_client: EtcdMiddleware) -> None:
    assert shown(drive(walk(etcd_client._exchange(), "/"))) == [("/", 0, Kind.DICT, None)]
    etcd_client["/a"] = [1]
    assert shown(drive(walk(etcd_client._exchange(), "/", 1))) == [
        ("/", 0, Kind.DICT, None),
        ("/a", 1, Kind.LIST, b"[]"),
    ]


def test_it_is_of_one_revision(etcd_client: EtcdMiddleware) -> None:
    etcd_client["/a"] = {"b": {"c": 1}, "d": 2, "e": 3}
    nodes = drive(walk(etcd_client._exchange(), "/a"))
    met = [next(nodes).path, next(nodes).path]
    del etcd_client["/a/d"]
    etcd_client["/a/f"] = 4
    met += [node.path for node in nodes]
    assert met == ["/a", "/a/b", "/a/b/c", "/a/d", "/a/e"]


def test_the_past(etcd_client: EtcdMiddleware) -> None:
    revision = etcd_client.put("/a", {"b": 1})
    del etcd_client["/a"]
    past = walk(etcd_client._exchange(), "/a", values=True, revision=revision)
    assert shown(drive(past)) == [("/a", 0, Kind.DICT, None), ("/a/b", 1, Kind.LEAF, b"1")]


def test_counts_leave_out_housekeeping_and_neighbours(etcd_client: EtcdMiddleware) -> None:
    etcd_client.update({"/a/b": 1, "/a/c": [1, 2], "/a-": 1, "/a0": 1, "/e": {}, "/v": 1})
    etcd_client.raw[f"{etcd_client.prefix}/a/.link/items/b".encode()] = b"1"
    paths = ["/a", "/e", "/v", "/none"] * 50
    assert run(counts(etcd_client._exchange(), paths)) == [4, 1, 0, 0] * 50
