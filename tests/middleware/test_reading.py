"""Reading: paths, values of every type, trees, and what is not there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from link_kv import EtcdMiddleware
from link_kv.errors import LinkKVError, ListIndexError, NotFound, PathError, TooLarge
from tests.middleware.conftest import Stored
from tests.values import same

VALUES = [
    *("text", "", "123", "true", "null", '"', '{"a": 1}', "[1]", "NaN", " padded ", "é🙂\0\n"),
    *(0, 5, -1, 2**64 + 1, -(10**50), 1.5, -0.0, 1e300, float("inf"), float("-inf"), float("nan")),
    *(True, False, None, b"", b"bytes", b"\xff\x00", b"\x93NUMPY"),
    *(np.arange(4, dtype=">f4"), np.array(["é"]), np.zeros((2, 0))),
    *({}, [], {"x": {}}, {"x": []}, [[]], [{}], {"": ""}, [None, "", {}, [], False, 0]),
    {"d": {"e": [1, {"f": ["g", ["h"]]}, None], "i": 5}, "j": True, "%": {"/": {".": {"..": {".link": 1}}}}},
    [f"item {number}" for number in range(1, 101)],
    {str(number): number for number in range(1, 12)},
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:40])
def test_a_value_reads_back_equal_and_of_the_same_type(client: EtcdMiddleware, value: Any) -> None:
    client["/a/b"] = value
    assert same(client["/a/b"], value)
    assert same(client["/a"], {"b": value})
    assert same(client.get("/a/b"), value)
    assert "/a/b" in client


@pytest.mark.parametrize(
    ("value", "reads"), [((), []), ((1, (2,)), [1, [2]]), ({"t": ("x",)}, {"t": ["x"]}), ([("a",)], [["a"]])]
)
def test_a_tuple_reads_back_as_a_list(client: EtcdMiddleware, value: Any, reads: Any) -> None:
    client["/a"] = value
    assert same(client["/a"], reads)


def test_what_looks_alike_stays_apart(client: EtcdMiddleware) -> None:
    client["/a"] = {"d": {}, "l": [], "n": None, "s": "", "5": 5, "t": True, "one": {"1": "x"}, "list": ["x"]}
    found = client["/a"]
    assert same(
        found, {"d": {}, "l": [], "n": None, "s": "", "5": 5, "t": True, "one": {"1": "x"}, "list": ["x"]}
    )


def test_every_part_of_a_tree_can_be_read_by_its_path(client: EtcdMiddleware) -> None:
    client["/c"] = {"s": ["x", {"k": [True]}], "m/s": 3}
    assert client["/c/s"] == ["x", {"k": [True]}]
    assert client["/c/s/1"] == "x"
    assert client["/c/s/2"] == {"k": [True]}
    assert client["/c/s/2/k/1"] is True
    assert client["/c/m%2Fs"] == 3
    assert client["/"] == {"c": {"s": ["x", {"k": [True]}], "m/s": 3}}


def test_one_path_has_several_spellings(client: EtcdMiddleware) -> None:
    client["a/b"] = 1
    assert client["/a/b"] == client["a/b"] == client["/a/b/"] == client["a/b/"] == 1
    assert client["/"] == client[""] == {"a": {"b": 1}}


def test_names_are_verbatim(client: EtcdMiddleware) -> None:
    for path in (
        "/A",
        "/a",
        "/a b",
        "/%41",
        "/a%",
        "/é",
        "/e\u0301",
        "/a\n",
        "/a\0",
        "/.hidden",
        "/...",
        "/a.link",
    ):
        client[path] = path
    assert {path: value for path, value in client.items() if path != value} == {}
    assert len(client) == 12


@pytest.mark.parametrize("path", ["/a", "/a/b", "/never/was", "/1", "/%2F"])
def test_what_is_not_there_is_a_key_error_that_names_the_path(client: EtcdMiddleware, path: str) -> None:
    with pytest.raises(KeyError) as caught:
        client[path]
    assert isinstance(caught.value, NotFound)
    assert isinstance(caught.value, LinkKVError)
    assert str(caught.value).startswith(f"{path}: ")
    assert client.get(path) is None
    assert client.get(path, "default") == "default"
    assert path not in client


@pytest.mark.parametrize(
    "path", ["/a/leaf/below", "/a/list/3", "/a/list/0", "/a/list/x", "/a/dict/z", "/a/empty/1"]
)
def test_what_a_tree_does_not_have_is_not_there(client: EtcdMiddleware, path: str) -> None:
    client["/a"] = {"leaf": 1, "list": ["x", "y"], "dict": {"k": 1}, "empty": []}
    with pytest.raises(NotFound, match=f"^{path}: "):
        client[path]
    assert path not in client


def test_a_stored_none_is_not_the_default(client: EtcdMiddleware) -> None:
    client["/a"] = None
    assert client.get("/a", "default") is None
    assert "/a" in client


@pytest.mark.parametrize(
    "sibling", ["/ab", "/a-", "/a.", "/a0", "/A", "/a\0", "/a%2F", "/a-/x", "/a0/x", "/b/a"]
)
def test_a_tree_holds_nothing_of_its_siblings(client: EtcdMiddleware, sibling: str) -> None:
    client[sibling] = 1
    assert "/a" not in client
    client["/a/x"] = 2
    assert client["/a"] == {"x": 2}
    del client["/a"]
    assert client[sibling] == 1


def test_the_root_reads_as_a_dict_always(client: EtcdMiddleware) -> None:
    assert client["/"] == {}
    assert client[""] == {}
    assert client.get("/", "default") == {}
    assert client.snapshot() == {}
    assert "/" in client
    client["/1"] = "x"
    assert client["/"] == {"1": "x"}


BAD = [
    "//",
    "/a//b",
    "/a//",
    "/.",
    "/a/..",
    "/a/./b",
    "/.link",
    "/.link/layout",
    "/a/.link/x",
    "a/.link",
    "/\ud800",
]


@pytest.mark.parametrize("path", [*BAD, None, 5, b"/a", ["a"], {}], ids=repr)
@pytest.mark.parametrize(
    "use",
    [
        lambda client, path: client[path],
        lambda client, path: client.get(path),
        lambda client, path: path in client,
        lambda client, path: client.__setitem__(path, 1),
        lambda client, path: client.__delitem__(path),
        lambda client, path: client.pop(path, None),
        lambda client, path: client.setdefault(path, 1),
        lambda client, path: client.update([("/fine", 1), (path, 1)]),
        lambda client, path: client.entry(path),
        lambda client, path: client.put(path, 1),
        lambda client, path: client.put(path, 1, revision=1),
        lambda client, path: client.create(path, 1),
        lambda client, path: client.delete(path),
        lambda client, path: client.append(path, 1),
        lambda client, path: client.snapshot(path),
        lambda client, path: client.snapshot(path, revision=1),
        lambda client, path: client.at(1)[path],
        lambda client, path: client.tree(path),
    ],
    ids=(
        *(
            "getitem",
            "get",
            "in",
            "setitem",
            "delitem",
            "pop",
            "setdefault",
            "update",
            "entry",
            "put",
            "put-at",
        ),
        *("create", "delete", "append", "snapshot", "snapshot-at", "at", "tree"),
    ),
)
def test_every_verb_refuses_a_path_that_names_nothing(client: EtcdMiddleware, use: Any, path: Any) -> None:
    with pytest.raises(PathError) as caught:
        use(client, path)
    assert repr(path) in str(caught.value)
    assert dict(client.items()) == {}


@pytest.mark.parametrize("depth", [1, 40, 47, 48, 49, 60, 100, 500])
def test_a_path_may_be_long(client: EtcdMiddleware, depth: int) -> None:
    path = "/a" + "/b" * depth
    client[path] = depth
    assert client[path] == depth
    assert list(client.items()) == [(path, depth)]
    client[path] = {"c": depth}
    assert client[path + "/c"] == depth
    assert client.append(path + "/l", "x") == path + "/l/1"
    assert client.create(path + "/m", "y")
    with pytest.raises(LinkKVError, match=path):
        client.create(path + "/m", "z")
    assert client.pop(path + "/c") == depth
    del client[path + "/l"], client[path + "/m"]
    assert client["/"] == {}


def test_a_name_of_thousands_of_digits_is_a_name(client: EtcdMiddleware, foreign: Any) -> None:
    name = "9" * 5000
    client[f"/a/{name}"] = 1
    client.update({f"/b/{name}": 0})
    client["/l"] = ["x"]
    assert client["/a"] == client.tree("/a") == {name: 1}
    with pytest.raises(ListIndexError, match=r"^/l"):
        client[f"/l/{name}"] = 1
    with pytest.raises(ListIndexError, match=r"^/m"):
        client.update([("/m", []), (f"/m/{name}", 1), (f"/l/{name}", 1)])
    with pytest.raises(NotFound, match=r"^/l/9"):
        del client[f"/l/{name}"]
    foreign({f"/l/{name}": "1"})
    assert client["/l"] == {"1": "x", name: 1}
    assert client.pop(f"/l/{name}") == 1
    del client[f"/a/{name}"], client["/l/1"]
    assert client["/"] == {"b": {name: 0}, "l": []}


def test_a_path_too_long_to_be_guarded_can_still_be_read_and_deleted(
    client: EtcdMiddleware, foreign: Any
) -> None:
    path = "/a" + "/b" * 1500
    with pytest.raises(TooLarge, match=r"^/a/b"):
        client[path] = 1
    foreign({path: "1", "/a/c": "2"})
    assert client[path] == 1
    del client[path]
    assert client["/"] == {"a": {"c": 2}}


def test_the_leaf_at_a_path_is_one_key(client: EtcdMiddleware, stored: Stored) -> None:
    client["/c"] = {"s": ["x", "y"], "n": 5}
    assert stored() == {"/c/n": "5", "/c/s/": "[]", "/c/s/1": "x", "/c/s/2": "y"}


def test_a_client_with_a_prefix_and_one_without_see_the_same_keys(etcd: Any, etcd_prefix: str) -> None:
    with (
        EtcdMiddleware(endpoints=etcd.endpoints, prefix=etcd_prefix) as inner,
        EtcdMiddleware(endpoints=etcd.endpoints) as outer,
    ):
        inner["/a/b"] = [1]
        assert outer[f"{etcd_prefix}/a/b"] == [1]
        outer[f"{etcd_prefix}/a/c"] = 2
        assert inner["/"] == {"a": {"b": [1], "c": 2}}
        assert outer.prefix == ""
        assert inner.prefix == etcd_prefix
        del outer[etcd_prefix]
        assert inner["/"] == {}


def test_a_prefix_shows_nothing_of_another(etcd: Any, etcd_prefix: str) -> None:
    with (
        EtcdMiddleware(endpoints=etcd.endpoints, prefix=f"{etcd_prefix}/a") as one,
        EtcdMiddleware(endpoints=etcd.endpoints, prefix=f"{etcd_prefix.lstrip('/')}/ab/") as two,
    ):
        one["/x"] = 1
        two["/y"] = 2
        assert one["/"] == {"x": 1}
        assert two["/"] == {"y": 2}
        assert two.prefix == f"{etcd_prefix}/ab"
        one.clear()
        assert list(one) == []
        assert list(two) == ["/y"]


@pytest.mark.parametrize("prefix", ["/a//b", "/a/.link", "/.."])
def test_a_prefix_that_names_nothing_is_refused(prefix: str) -> None:
    with pytest.raises(PathError):
        EtcdMiddleware(prefix=prefix)
