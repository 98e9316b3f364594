"""Assigning: what is replaced, atomically, and what is refused before anything is written."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

import pytest

from link_kv import EtcdMiddleware
from link_kv.errors import EncodeError, LinkKVError, ListIndexError, NotATree, PathError, TooLarge
from link_kv.tree import flatten, place
from tests.middleware.conftest import Stored
from tests.values import same

SHAPES: list[Any] = [
    *(5, None, "text", {}, [], {"x": 1}, ["p"], ["p", "q", "r"], {"x": {"y": 1}, "z": [1]}),
    *({"x": {"y": {"z": 1}}}, [{"x": 1}, ["q"]], {"1": "p", "2": "q"}, [[], {}, [[]]], {"x": {}, "y": []}),
]


def keys_of(value: Any, path: str) -> dict[str, str]:
    if isinstance(value, (dict, list)):
        return {key.decode(): stored.decode() for key, stored in flatten(value, place(path)).pairs}
    return {path: {None: "null"}.get(value, str(value))}


@pytest.mark.parametrize("new", SHAPES, ids=repr)
@pytest.mark.parametrize("path", ["/t", "/up/t", "/l/2"])
def test_assigning_replaces_whatever_was_there(
    client: EtcdMiddleware, stored: Stored, path: str, new: Any
) -> None:
    client["/l"] = [1, 2, 3]
    client["/t-"] = client["/t0"] = client["/up/t-"] = client["/l/3"] = "sibling"
    others = {key: value for key, value in stored().items() if key != path}
    for old in SHAPES:
        client[path] = old
        before = client.entry(path).revision
        revision = client.put(path, new)
        assert same(client[path], new), old
        assert stored() == others | keys_of(new, path), old
        assert same(client.snapshot(path, revision=revision - 1), old)
        assert client.entry(path).revision == revision > before


def test_a_write_of_ten_thousand_leaves_is_one_revision(client: EtcdMiddleware) -> None:
    one = {f"group{number % 100}": {} for number in range(10_000)}
    for number in range(10_000):
        one[f"group{number % 100}"][f"leaf{number}"] = number
    two = {"numbers": list(range(5_000)), "names": {f"{number}": str(number) for number in range(5_000)}}
    first = client.put("/t", one)
    assert (client.entry("/t").revision, client.entry("/t").created) == (first, first)
    second = client.put("/t", two)
    assert (client.entry("/t").revision, client.entry("/t").created) == (second, second)
    assert same(client["/t"], two)
    assert client.snapshot("/t", revision=second - 1) == one
    client.update({"/u": one, "/t": one})
    written = client.entry("/t").revision
    assert client.entry("/u") == (one, written, written, 0, 0)
    assert client.snapshot("/t", revision=written - 1) == two
    gone = client.delete("/t")
    assert "/t" not in client
    assert client.snapshot("/t", revision=gone - 1) == one


def test_thirty_thousand_leaves_are_one_write(etcd: Any, etcd_prefix: str) -> None:
    value = {f"k{number:09}": number % 10 for number in range(30_000)}
    with EtcdMiddleware(endpoints=etcd.endpoints, prefix=etcd_prefix, timeout=60) as client:
        client["/t"] = value
        assert client["/t"] == value
        value["key"] = "one more"
        client["/t"] = value
        assert client["/t"] == value
        assert client.pop("/t") == value


def big(size: int) -> dict[str, str]:
    return {f"k{number}": "x" * 10_000 for number in range(size // 10_000 + 1)}


@pytest.mark.parametrize("size", [1_600_000, 3_000_000])
@pytest.mark.parametrize("value", [lambda size: "x" * size, big], ids=["leaf", "tree"])
@pytest.mark.parametrize(
    "write",
    [
        lambda client, value: client.__setitem__("/old/t", value),
        lambda client, value: client.put("/old/t", value),
        lambda client, value: client.put("/old/t", value, revision=client.entry("/old/t").revision),
        lambda client, value: client.put("/old/t", value, ttl=60),
        lambda client, value: client.update({"/old/t": value, "/new": 1}),
        lambda client, value: client.create("/old/new", value),
        lambda client, value: client.setdefault("/old/new", value),
        lambda client, value: client.append("/old/list", value),
    ],
    ids=["setitem", "put", "put-at", "put-ttl", "update", "create", "setdefault", "append"],
)
def test_what_one_request_cannot_carry_is_refused_before_anything_is_written(
    client: EtcdMiddleware, stored: Stored, write: Any, value: Callable[[int], Any], size: int
) -> None:
    client["/old"] = {"t": "old", "list": [1]}
    before, entry = stored(), client.entry("/old")
    with pytest.raises(TooLarge, match=r"^/old/\S+: ") as caught:
        write(client, value(size))
    message = str(caught.value)
    assert isinstance(caught.value, ValueError)
    sizes = [int(number) for number in message.replace(",", "").split() if number.isdigit()]
    assert any(size <= number < size * 1.2 for number in sizes), message
    assert any(1_500_000 < number < 2_200_000 for number in sizes), message
    assert stored() == before
    assert client.entry("/old") == entry
    client["/old/t"] = "new"
    assert client["/old/t"] == "new"


def test_the_largest_value_that_fits_is_written(client: EtcdMiddleware) -> None:
    client["/t"] = "x" * 1_500_000
    assert client["/t"] == "x" * 1_500_000


def test_more_than_a_client_of_grpc_receives_by_default_is_read(client: EtcdMiddleware) -> None:
    for number in range(6):
        client[f"/t/k{number}"] = "x" * 1_000_000
    assert sum(map(len, client["/t"].values())) == 6_000_000
    assert len(client) == 6


WRITES = {
    "setitem": lambda client, path: client.__setitem__(path, 2),
    "setitem-tree": lambda client, path: client.__setitem__(path, {"x": [2]}),
    "put": lambda client, path: client.put(path, 2),
    "put-0": lambda client, path: client.put(path, 2, revision=0),
    "put-ttl": lambda client, path: client.put(path, 2, ttl=60),
    "create": lambda client, path: client.create(path, {"x": 2}),
    "setdefault": lambda client, path: client.setdefault(path, 2),
    "append": lambda client, path: client.append(path, 2),
    "update": lambda client, path: client.update({"/fine": 1, path: 2}),
    "update-many": lambda client, path: client.update({**{f"/fine/{n}": n for n in range(100)}, path: 2}),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=list(WRITES))
@pytest.mark.parametrize("path", ["/a/b", "/a/b/c/d", "/t/a/1", "/l/1/b"])
def test_nothing_can_be_written_below_a_leaf(
    client: EtcdMiddleware, stored: Stored, write: Any, path: str
) -> None:
    client.update({"/a": 1, "/t/a": None, "/l": ["x"]})
    leaf = {"/a": "/a", "/t": "/t/a", "/l": "/l/1"}[path[:2]]
    before = stored()
    with pytest.raises(NotATree, match=f"^{leaf}: ") as caught:
        write(client, path)
    assert isinstance(caught.value, PathError)
    assert isinstance(caught.value, TypeError)
    assert stored() == before


@pytest.mark.parametrize("write", WRITES.values(), ids=list(WRITES))
@pytest.mark.parametrize("path", ["/l/4", "/l/9/x", "/l/0", "/l/01", "/l/x", "/t/l/3", "/l/2/4", "/l/2/3/x"])
def test_a_list_is_written_without_gaps(
    client: EtcdMiddleware, stored: Stored, write: Any, path: str
) -> None:
    client.update({"/l": [1, ["x"]], "/t/l": ["x"]})
    before = stored()
    with pytest.raises(ListIndexError, match=f"^{path[:2]}") as caught:
        write(client, path)
    assert isinstance(caught.value, IndexError)
    assert stored() == before


@pytest.mark.parametrize("write", WRITES.values(), ids=list(WRITES))
def test_the_first_key_written_below_an_empty_dict_ends_its_marker(
    client: EtcdMiddleware, stored: Stored, write: Any
) -> None:
    client["/e"] = {"f": {}}
    assert stored() == {"/e/f/": "{}"}
    write(client, "/e/f/g")
    assert "/e/f/" not in stored()
    assert set(client["/e/f"]) == {"g"}
    revision = client.entry("/e/f").revision
    assert client.snapshot("/e", revision=revision - 1) == {"f": {}}


def test_a_dict_has_a_key_of_its_own_only_while_it_is_empty(client: EtcdMiddleware, stored: Stored) -> None:
    client["/e"] = {}
    assert stored() == {"/e/": "{}"}
    client["/e/x"] = 1
    assert stored() == {"/e/x": "1"}
    del client["/e/x"]
    assert stored() == {}
    assert "/e" not in client
    client["/e/x"] = {}
    assert stored() == {"/e/x/": "{}"}
    client["/e/x/y/z"] = {}
    assert stored() == {"/e/x/y/z/": "{}"}
    client["/e"] = {}
    assert stored() == {"/e/": "{}"}
    client["/e"] = 1
    assert stored() == {"/e": "1"}


@pytest.mark.parametrize(
    "refused",
    [
        lambda client: client.__setitem__("/", {"a": 1}),
        lambda client: client.__setitem__("", 1),
        lambda client: client.__delitem__("/"),
        lambda client: client.delete("/"),
        lambda client: client.pop("/"),
        lambda client: client.pop("/", None),
        lambda client: client.put("/", {}),
        lambda client: client.put("/", 1, revision=0),
        lambda client: client.create("/", {}),
        lambda client: client.setdefault("/", {}),
        lambda client: client.append("/", 1),
        lambda client: client.update({"/a": 1, "/": 2}),
    ],
)
def test_the_root_is_neither_assigned_nor_deleted(
    client: EtcdMiddleware, stored: Stored, refused: Any
) -> None:
    client["/kept"] = 1
    with pytest.raises(PathError, match=r"^/: the root"):
        refused(client)
    assert stored() == {"/kept": "1"}


@pytest.mark.parametrize(
    ("value", "where", "kind"),
    [
        (object(), "/a/t", "object"),
        ({1, 2}, "/a/t", "set"),
        (1j, "/a/t", "complex"),
        (datetime.date(2024, 1, 1), "/a/t", "date"),
        ({"x": {"y": [0, print]}}, "/a/t/x/y/2", "builtin_function"),
        ({"m/s": ["fine", bytearray(b"x")]}, "/a/t/m%2Fs/2", "bytearray"),
        ({1: "x"}, "/a/t", "int"),
        ({"x": {None: "x"}}, "/a/t/x", "NoneType"),
        ([{b"k": 1}], "/a/t/1", "bytes"),
        ({("a", "b"): 1}, "/a/t", "tuple"),
        ("\ud800", "/a/t", "str"),
        ({"\udfff": 1}, "/a/t", "surrogates"),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("write", ["setitem", "put", "create", "setdefault", "update"])
def test_what_cannot_be_stored_is_refused_by_path_and_type(
    client: EtcdMiddleware, stored: Stored, write: str, value: Any, where: str, kind: str
) -> None:
    writes: dict[str, Any] = {
        "setitem": lambda: client.__setitem__("/a/t", value),
        "put": lambda: client.put("/a/t", value),
        "create": lambda: client.create("/a/t", value),
        "setdefault": lambda: client.setdefault("/a/t", value),
        "update": lambda: client.update({"/a/s": 1, "/a/t": value}),
    }
    with pytest.raises(EncodeError) as caught:
        writes[write]()
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, LinkKVError)
    assert str(caught.value).startswith(f"{where}: ")
    assert kind in str(caught.value)
    assert stored() == {}


def test_a_value_that_contains_itself_is_refused(client: EtcdMiddleware) -> None:
    loop: dict[str, Any] = {}
    loop["again"] = loop
    with pytest.raises(EncodeError, match=r"^/a: .*contains itself"):
        client["/a"] = loop


def test_a_view_is_no_value(client: EtcdMiddleware) -> None:
    client["/a"] = {"x": 1}
    with pytest.raises(EncodeError, match=r"^/b: "):
        client["/b"] = client.tree("/a")


def test_trees_are_copied_between_clients(client: EtcdMiddleware, etcd: Any) -> None:
    value = {"list": [1, {"x": []}], "empty": {}, "m/s": None}
    client["/a"] = value
    with EtcdMiddleware(endpoints=etcd.endpoints, prefix=f"{client.prefix}/other") as other:
        other["/k"] = client["/a"]
        assert same(other["/"], {"k": value})
        other.update(client.items())
        assert other["/a/list/2/x"] == []


def test_two_assignments_under_one_parent_both_stay(client: EtcdMiddleware) -> None:
    client["/collection"] = {"subcollection": ["item1", "item2"]}
    client["/collection/other"] = 5
    client["/collection/subcollection2"] = {"x": 1}
    assert client["/collection"] == {
        "subcollection": ["item1", "item2"],
        "other": 5,
        "subcollection2": {"x": 1},
    }
