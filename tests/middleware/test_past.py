"""The past: a read-only mapping at a revision."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

import pytest

from link_kv import EtcdMiddleware
from link_kv.errors import NotFound, RevisionError
from tests.values import same


def test_the_past_is_what_was(client: EtcdMiddleware) -> None:
    history = []
    for value in (1, {"x": [1, 2]}, {"x": [2]}, [], {}, {"l": [{"k": 1}]}, "text"):
        history.append((client.put("/a", value), value))
    gone = client.delete("/a")
    client["/b"] = 1
    for revision, value in history:
        past = client.at(revision)
        assert same(past["/a"], value)
        assert same(past["/"], {"a": value})
        assert same(past.get("/a"), value)
        assert "/a" in past
        assert "/b" not in past
        assert past.revision == revision
        assert same(client.snapshot(revision=revision), {"a": value})
    assert "/a" not in client.at(gone)
    with pytest.raises(NotFound, match=r"^/a: "):
        client.at(gone)["/a"]


def test_the_past_is_a_whole_read_only_mapping(client: EtcdMiddleware) -> None:
    client.update({"/a": {"x": 1, "l": ["p", "q"]}, "/e": {}})
    past = client.at(client.put("/b", 2))
    client.clear()
    items = [("/a/l/1", "p"), ("/a/l/2", "q"), ("/a/x", 1), ("/b", 2), ("/e", {})]
    assert list(past.items()) == items
    assert list(past) == list(past.keys()) == [path for path, _ in items]
    assert list(past.values()) == [value for _, value in items]
    assert len(past) == 5
    assert past
    assert past["/a/l"] == ["p", "q"]
    assert past["a/l/2/"] == "q"
    assert past.get("/never", "default") == "default"
    assert isinstance(past, Mapping)
    assert not isinstance(past, MutableMapping)
    assert not hasattr(past, "__setitem__")
    assert past == past
    assert past != client.at(past.revision)
    assert len({past, client.at(past.revision)}) == 2
    assert str(past.revision) in repr(past)


def test_before_the_first_write_nothing_was(client: EtcdMiddleware) -> None:
    first = client.put("/a", 1)
    past = client.at(first - 1)
    assert past["/"] == {}
    assert list(past) == []
    assert len(past) == 0
    assert not past


@pytest.mark.parametrize(
    "use", [lambda past: past["/a"], list, len, bool, lambda past: "/a" in past], ids=range(5)
)
def test_a_revision_that_is_still_to_come_is_refused(client: EtcdMiddleware, use: Any) -> None:
    client["/a"] = 1
    with pytest.raises(RevisionError, match="future") as caught:
        use(client.at(10**12))
    assert isinstance(caught.value, ValueError)
    with pytest.raises(RevisionError, match="future"):
        client.snapshot("/a", revision=10**12)


@pytest.mark.parametrize("revision", [0, -1, 1.0, "1", None, True], ids=repr)
def test_a_revision_is_a_whole_number_from_one_on(client: EtcdMiddleware, revision: Any) -> None:
    with pytest.raises(RevisionError, match=r"whole number"):
        client.at(revision)


def test_a_past_tree_of_ten_thousand_leaves_is_read_whole(client: EtcdMiddleware) -> None:
    value = {f"{number:05}": [number] for number in range(5_000)}
    revision = client.put("/a", value)
    client["/a"] = 1
    assert client.at(revision)["/a"] == value
    assert len(client.at(revision)) == 5_000
