"""Trees that other tools made: read as dicts, iterated, replaced and deleted whole."""

from __future__ import annotations

from typing import Any

import pytest

from link_kv import EtcdMiddleware
from link_kv.errors import NotATree
from tests.middleware.conftest import Stored

HIDDEN: dict[str | bytes, str] = {
    key: str(number)
    for number, key in enumerate(
        (
            *(
                b"/a/\xff",
                b"/a/b/\xfe\xff/c",
                "/a//",
                "/a//x",
                "/a/b//",
                "/a/b//c",
                "/a/b/c//d",
                "/a/.",
                "/a/../x",
            ),
            *("/a/b/./c", "/a/.link", "/a/b/.link", "/a/", "/a/b/", "/a/c/"),
        )
    )
}


def test_a_foreign_tree_reads_as_a_dict(client: EtcdMiddleware, foreign: Any) -> None:
    foreign({"/a/b/c": "5", "/a/b/d": "text", "/a/json": '{"a": 1}', "/a/list": "[1, 2]", "/a/none": "null"})
    assert client["/a"] == {"b": {"c": 5, "d": "text"}, "json": '{"a": 1}', "list": "[1, 2]", "none": None}
    assert client["/a/json"] == '{"a": 1}'
    assert "/a/b" in client


def test_bytes_that_are_no_text_read_as_bytes(client: EtcdMiddleware) -> None:
    client.raw[client.prefix.encode() + b"/a/b"] = b"\x80\x81"
    assert client["/a"] == {"b": b"\x80\x81"}


def test_a_segment_that_encodes_no_name_is_its_own_name(client: EtcdMiddleware, foreign: Any) -> None:
    foreign({"/a/%41": "1", "/a/%2f/x": "2"})
    assert client["/a"] == {"%41": 1, "%2f": {"x": 2}}
    assert client["/a/%41"] == 1
    assert client["/a/%2f/x"] == 2
    client["/a/%41"] = 3
    assert client["/a"] == {"%41": 3, "%2f": {"x": 2}}
    client["/a"] = client["/a"]
    assert client["/a"] == {"%41": 3, "%2f": {"x": 2}}
    assert set(client) == {"/a/%2541", "/a/%252f/x"}


def test_keys_that_no_path_can_name_are_invisible(client: EtcdMiddleware, foreign: Any) -> None:
    foreign(HIDDEN)
    assert client["/"] == {}
    assert client.get("/a") is None
    assert "/a" not in client
    assert "/a/b" not in client
    assert not client
    assert len(client) == 0
    assert list(client.items()) == []
    foreign({"/a/x": "1"})
    assert client["/"] == {"a": {"x": 1}}
    assert list(client) == ["/a/x"]
    assert list(client.tree("/a")) == ["x"]
    assert client.entry("/a").value == {"x": 1}


def test_more_invisible_keys_than_a_page_hide_nothing(client: EtcdMiddleware, foreign: Any) -> None:
    foreign({f"/a//{number:03}": "x" for number in range(50)})
    assert "/a" not in client
    assert not client
    foreign({"/a/z": "1"})
    assert "/a" in client
    assert client
    assert client.tree("/")
    assert client.tree("/a")


def test_keys_that_no_path_can_name_are_reached_raw(client: EtcdMiddleware, foreign: Any) -> None:
    foreign(HIDDEN)
    prefix = client.prefix.encode()
    for key, value in HIDDEN.items():
        assert client.raw[prefix + (key if isinstance(key, bytes) else key.encode())] == value.encode()
    assert len(client.raw) == len(HIDDEN)


@pytest.mark.parametrize("value", [5, {"x": 1}, {"b": {"c": {}}}, [1, 2], {}], ids=repr)
def test_keys_that_no_path_can_name_go_when_the_tree_around_them_is_replaced(
    client: EtcdMiddleware, stored: Stored, foreign: Any, value: Any
) -> None:
    foreign({**HIDDEN, "/a/b/c/real": "1", "/a-//": "stays"})
    client["/a"] = value
    after = stored()
    assert after.pop("/a-//") == "stays"
    client["/a"] = 0
    client["/a"] = value
    del client.raw[f"{client.prefix}/a-//".encode()]
    assert after == stored()


@pytest.mark.parametrize("remove", [EtcdMiddleware.delete, EtcdMiddleware.pop], ids=["delete", "pop"])
def test_keys_that_no_path_can_name_go_when_the_tree_around_them_is_deleted(
    client: EtcdMiddleware, stored: Stored, foreign: Any, remove: Any
) -> None:
    foreign({**HIDDEN, "/a/x": "1"})
    remove(client, "/a")
    assert stored() == {}


def test_where_a_leaf_is_also_a_tree_the_leaf_wins_and_both_iterate(
    client: EtcdMiddleware, foreign: Any
) -> None:
    foreign({"/a": "leaf", "/a/b": "below", "/t/a": "leaf", "/t/a/b/c": "below", "/t/x": "1"})
    assert client["/a"] == "leaf"
    assert client["/a/b"] == "below"
    assert client["/t"] == {"a": "leaf", "x": 1}
    assert client["/"] == {"a": "leaf", "t": {"a": "leaf", "x": 1}}
    found = [("/a", "leaf"), ("/a/b", "below"), ("/t/a", "leaf"), ("/t/a/b/c", "below"), ("/t/x", 1)]
    assert list(client.items()) == found
    assert len(client) == 5
    assert client.entry("/a").value == "leaf"
    with pytest.raises(NotATree):
        client["/a/c"] = 1
    assert client.pop("/t/a") == "leaf"
    assert client["/t"] == {"x": 1}
    client["/a"] = {"c": 1}
    assert client["/a"] == {"c": 1}


def test_popitem_takes_a_leaf_that_is_also_a_tree_by_itself(client: EtcdMiddleware, foreign: Any) -> None:
    foreign({"/a": "leaf", "/a/b": "below"})
    assert client.popitem() == ("/a", "leaf")
    assert client.popitem() == ("/a/b", "below")
    assert client["/"] == {}


def test_a_leaf_with_a_marker_beside_it_is_one_leaf(client: EtcdMiddleware, foreign: Any) -> None:
    foreign({"/a": "leaf", "/a/": "[]", "/a-": "1"})
    assert list(client.items()) == [("/a", "leaf"), ("/a-", 1)]
    assert len(client) == len(dict(client.items())) == 2


@pytest.mark.parametrize(
    ("pairs", "value"),
    [
        ({"/l/": "[]", "/l/1": "a", "/l/3": "c"}, {"1": "a", "3": "c"}),
        ({"/l/": "[]", "/l/2": "a"}, {"2": "a"}),
        ({"/l/": "[]", "/l/0": "a", "/l/1": "b"}, {"0": "a", "1": "b"}),
        ({"/l/": "[]", "/l/01": "a"}, {"01": "a"}),
        ({"/l/": "[]", "/l/1": "a", "/l/x": "b"}, {"1": "a", "x": "b"}),
        ({"/l/": "[]", "/l/1": "a", "/l//2": "b"}, ["a"]),
        ({"/l/": "{}", "/l/1": "a"}, {"1": "a"}),
    ],
    ids=repr,
)
def test_a_foreign_list_that_is_not_one_to_n_reads_as_a_dict(
    client: EtcdMiddleware, foreign: Any, pairs: Any, value: Any
) -> None:
    foreign(pairs)
    assert client["/l"] == value
    assert client["/"] == {"l": value}
    assert len(client.tree("/l")) == len(value)


def test_a_foreign_tree_of_thousands_of_levels_reads_and_goes(client: EtcdMiddleware, foreign: Any) -> None:
    foreign({"/deep" + "/d" * 3000: "1"})
    value, depth = client["/deep"], 0
    while isinstance(value, dict):
        value, depth = value["d"], depth + 1
    assert depth == 3000
    assert list(client) == ["/deep" + "/d" * 3000]
    client["/deep"] = 1
    assert client["/"] == {"deep": 1}
