"""The explicit verbs, and `setdefault` and `update`: all at one revision, or not at all."""

from __future__ import annotations

import time
from typing import Any

import pytest

from link_kv import EtcdMiddleware
from link_kv.errors import (
    ConfigError,
    Conflict,
    KeyExists,
    LinkKVError,
    ListIndexError,
    NotATree,
    NotFound,
    PathError,
    RevisionError,
    TooLarge,
)
from link_kv.middleware import Entry
from tests.leases import revoke
from tests.middleware.conftest import Stored
from tests.processes import until
from tests.values import same

# entry


def test_an_entry_of_a_leaf_is_what_etcd_knows_of_it(client: EtcdMiddleware) -> None:
    first = client.put("/a", "x")
    assert client.entry("/a") == Entry("x", first, first, 1, 0)
    second = client.put("/a", 5)
    assert client.entry("/a") == Entry(5, second, first, 2, 0)
    assert client.entry("/a")._fields == ("value", "revision", "created", "version", "lease")


def test_an_entry_of_a_tree_has_the_newest_revision_and_the_oldest_creation(client: EtcdMiddleware) -> None:
    first = client.put("/t/x", 1)
    client["/t/y"] = [1]
    third = client.put("/t/x", 2)
    assert client.entry("/t") == Entry({"x": 2, "y": [1]}, third, first, 0, 0)
    assert client.entry("/") == Entry({"t": {"x": 2, "y": [1]}}, third, first, 0, 0)
    assert client.entry("/t/y").version == 0


def test_an_entry_leaves_housekeeping_out(client: EtcdMiddleware, foreign: Any) -> None:
    revision = client.put("/t", {"x": {"y": 1}})
    foreign({"/t/.link/at/x": "1", "/t/x/.link/at/y": "1", "/.link/services/s": "1"})
    assert client.entry("/t") == Entry({"x": {"y": 1}}, revision, revision, 0, 0)
    assert client.entry("/").revision == revision


def test_an_entry_of_nothing_is_not_found(client: EtcdMiddleware) -> None:
    with pytest.raises(NotFound, match=r"^/a: "):
        client.entry("/a")
    assert client.entry("/").value == {}


def test_an_entry_tells_the_lease(client: EtcdMiddleware) -> None:
    client.put("/a", 1, ttl=600)
    assert client.entry("/a").lease > 0
    client["/a"] = 2
    assert client.entry("/a").lease == 0, "a plain write makes it persist"


# put


def test_put_tells_the_revision_of_its_write(client: EtcdMiddleware) -> None:
    for value in (1, {"x": 1}, [], {}, "text"):
        revision = client.put("/a", value)
        assert client.entry("/a").revision == revision
        assert same(client.at(revision)["/a"], value)


@pytest.mark.parametrize("old", [1, {}, [], "text"], ids=repr)
@pytest.mark.parametrize("new", [2, {}, [], {"x": [1]}, ["a"], None], ids=repr)
def test_put_at_a_revision_writes_only_while_the_leaf_is_at_it(
    client: EtcdMiddleware, old: Any, new: Any
) -> None:
    first = client.put("/a", old)
    second = client.put("/a", old)
    for wrong in (first, second - 1, second + 1, 10**9):
        with pytest.raises(Conflict, match=rf"^/a: .*{second}.*{wrong}|^/a: .*moved on.*{wrong}"):
            client.put("/a", new, revision=wrong)
    assert same(client["/a"], old)
    third = client.put("/a", new, revision=second)
    assert same(client["/a"], new)
    assert client.entry("/a").revision == third
    assert same(client.at(third - 1)["/a"], old)


def test_put_at_a_revision_conflicts_where_nothing_is(client: EtcdMiddleware) -> None:
    gone = client.put("/a", 1)
    del client["/a"]
    with pytest.raises(Conflict, match=r"^/a: nothing is there"):
        client.put("/a", 2, revision=gone)
    assert "/a" not in client


@pytest.mark.parametrize("tree", [{"x": 1}, ["a"], {"x": {}}, [[]], {"l": [1]}], ids=repr)
def test_put_at_a_revision_refuses_a_tree(client: EtcdMiddleware, tree: Any) -> None:
    revision = client.put("/a", tree)
    with pytest.raises(TooLarge, match=r"^/a: .*tree"):
        client.put("/a", 2, revision=revision)
    assert client["/a"] == tree


def test_put_at_revision_0_means_create(client: EtcdMiddleware) -> None:
    assert client.put("/a/b", {"x": 1}, revision=0)
    for path in ("/a", "/a/b", "/a/b/x"):
        with pytest.raises(Conflict, match=f"^{path}: "):
            client.put(path, 2, revision=0)
    with pytest.raises(NotATree):
        client.put("/a/b/x/y", 2, revision=0)
    assert client["/a"] == {"b": {"x": 1}}


def test_put_at_a_revision_inside_a_list_keeps_the_list(client: EtcdMiddleware) -> None:
    client["/l"] = ["a", "b"]
    revision = client.put("/l/2", "c")
    client.put("/l/2", {"x": 1}, revision=revision)
    assert client["/l"] == ["a", {"x": 1}]


@pytest.mark.parametrize("revision", [-1, 1.5, "1", b"1"])
def test_a_revision_is_a_whole_number(client: EtcdMiddleware, revision: Any) -> None:
    with pytest.raises(RevisionError, match=r"^/a: "):
        client.put("/a", 1, revision=revision)
    assert "/a" not in client


@pytest.mark.parametrize("ttl", [0, -1, "1", float("nan"), float("inf"), 10**12])
def test_a_time_to_live_is_a_positive_number_of_seconds(client: EtcdMiddleware, ttl: Any) -> None:
    with pytest.raises(ConfigError, match=r"^/a: ttl="):
        client.put("/a", 1, ttl=ttl)
    with pytest.raises(ConfigError, match=r"^/a: ttl="):
        client.create("/a", 1, ttl=ttl)
    assert "/a" not in client


def test_what_is_put_with_a_time_to_live_goes_by_itself(client: EtcdMiddleware, stored: Stored) -> None:
    begun = time.monotonic()
    client.put("/leaf", 1, ttl=1)
    client.put("/tree", {"x": {"y": 1}, "l": ["a", "b"], "e": {}}, ttl=0.5)
    until(lambda: not stored())
    assert time.monotonic() - begun > 0.5


def test_what_is_put_with_a_time_to_live_goes_with_its_lease(
    client: EtcdMiddleware, stored: Stored, etcd: Any
) -> None:
    client.put("/leaf", 1, ttl=600)
    client.put("/tree", {"x": {"y": 1}, "l": ["a", "b"], "e": {}}, ttl=600)
    client.create("/made", {"x": 1}, ttl=600)
    client.put("/at", 2, ttl=600, revision=client.put("/at", 1))
    client["/kept"] = {"x": 1}
    client.put("/kept/y", 2, ttl=600)
    client.put("/persists", 1, ttl=600)
    leases = {client.entry(path).lease for path in client} - {0}
    client["/persists"] = 2
    assert len(client) == 10
    assert len(leases) == 6, "one for each write"
    for lease in leases:
        revoke(etcd.endpoints[0], lease)
    assert client["/"] == {"kept": {"x": 1}, "persists": 2}
    assert stored() == {"/kept/x": "1", "/persists": "2"}


def test_a_put_with_a_time_to_live_that_is_refused_leaves_no_lease(client: EtcdMiddleware) -> None:
    other = client.etcd3
    before = set(_leases(other))
    client.update({"/leaf": 1, "/l": [1], "/t/x": 1})
    refused: list[Any] = [
        lambda: client.put("/leaf/x", 1, ttl=60),
        lambda: client.put("/l/1", 1, ttl=60),
        lambda: client.put("/leaf", 1, ttl=60, revision=1),
        lambda: client.put("/t", 1, ttl=60, revision=1),
        lambda: client.create("/t", 1, ttl=60),
        lambda: client.put("/big", "x" * 2_000_000, ttl=60),
        lambda: client.put("/bad", object(), ttl=60),
    ]
    for refuse in refused:
        with pytest.raises(LinkKVError):
            refuse()
    assert set(_leases(other)) <= before
    other.close()


def _leases(other: Any) -> list[int]:
    from link_kv._core.revived import messages

    answer = other.leasestub.LeaseLeases(messages().LeaseLeasesRequest(), timeout=10)
    return [lease.ID for lease in answer.leases]


# create, setdefault


@pytest.mark.parametrize("value", [1, None, {}, [], {"x": [1]}, ["a"]], ids=repr)
def test_create_writes_only_where_nothing_is(client: EtcdMiddleware, stored: Stored, value: Any) -> None:
    revision = client.create("/a/b", value)
    assert same(client["/a/b"], value)
    assert client.entry("/a/b").revision == revision
    before = stored()
    for path in ("/a", "/a/b", "a/b/"):
        with pytest.raises(KeyExists, match=r"^/a(/b)?: something is there") as caught:
            client.create(path, 5)
        assert isinstance(caught.value, Conflict)
    assert stored() == before


@pytest.mark.parametrize("value", [1, None, {}, [], {"x": [1]}, ["a"]], ids=repr)
def test_setdefault_writes_only_where_nothing_is_and_tells_what_is_there(
    client: EtcdMiddleware, value: Any
) -> None:
    assert same(client.setdefault("/a/b", value), value)
    assert same(client["/a/b"], value)
    revision = client.entry("/a/b").revision
    assert same(client.setdefault("/a/b", 5), value)
    assert same(client.setdefault("/a", 5), {"b": value})
    assert client.entry("/a/b").revision == revision


def test_setdefault_writes_none_when_nothing_is_given(client: EtcdMiddleware) -> None:
    assert client.setdefault("/a") is None
    assert client.get("/a", 5) is None
    assert "/a" in client


# update


def test_update_takes_what_a_dicts_update_takes(client: EtcdMiddleware) -> None:
    client.update({"/a": 1})
    client.update([("/b", 2), ["/c", [3]]])
    client.update(d={"x": 4}, e=5)
    client.update({"/f": 6}, g=7)
    client.update(client.at(client.put("/h", 8)))
    client.update(())
    client |= {"/i": 9}
    client |= [("/j", 10)]
    assert client["/"] == dict(zip("abcdefghij", (1, 2, [3], {"x": 4}, 5, 6, 7, 8, 9, 10), strict=True))
    assert isinstance(client, EtcdMiddleware)


@pytest.mark.parametrize("count", [1, 2, 16, 17, 60, 300])
@pytest.mark.parametrize("shape", ["leaves", "trees", "deep", "wide"])
def test_update_is_one_revision_whatever_it_writes(client: EtcdMiddleware, count: int, shape: str) -> None:
    make: dict[str, Any] = {
        "leaves": lambda number: (f"/t/{number}", number),
        "trees": lambda number: (f"/t/{number}", {"x": [number], "y": {}}),
        "deep": lambda number: (f"/t/a{number}/b/c/d/e", number),
        "wide": lambda number: (f"/t{number}/x", number),
    }
    old = {"t": {"0": {"old": 1}, "1": "old", "a1": {"b": {"c": {}}}, "old": [1]}, "t0": {"old": 1}}
    client.update({f"/{name}": value for name, value in old.items()})
    pairs = dict(make[shape](number) for number in range(count))
    client.update(pairs)
    [revision] = {client.entry(path).revision for path in pairs}
    for path, value in pairs.items():
        assert same(client[path], value)
    assert client.snapshot(revision=revision - 1) == old
    assert client["/t/old"] == [1]
    assert client["/t0/old"] == 1


@pytest.mark.parametrize("more", [0, 30])
def test_update_replaces_leaves_and_trees_as_assignments_would(
    client: EtcdMiddleware, stored: Stored, more: int
) -> None:
    client["/a"] = {"leaf": 1, "tree": {"x": {"y": 1}}, "list": ["a", "b"], "empty": {}}
    pairs = {f"/more/{number}": number for number in range(more)}
    pairs |= {"/a/leaf": {"new": [1]}, "/a/tree/x": 2, "/a/list": {}, "/a/empty/k": "v", "/a/new/l": []}
    client.update(pairs)
    assert client["/a"] == {
        "leaf": {"new": [1]},
        "tree": {"x": 2},
        "list": {},
        "empty": {"k": "v"},
        "new": {"l": []},
    }
    assert "/a/empty/" not in stored()


def test_update_folds_its_pairs_in_order(client: EtcdMiddleware) -> None:
    client["/a"] = {"old": 1}
    client.update(
        [
            ("/a/x", 1),
            ("/a", {"y": {"z": 2}}),
            ("/a/y/w", [3]),
            ("/a/y/w/2", 4),
            ("/a/y/w/1", {"deep": {}}),
            ("/a/y/w/1/deep/er", 5),
            ("/b", 6),
            ("/b", 7),
            ("/l", []),
            ("/l/1", "x"),
            ("/l/2", "y"),
        ]
    )
    assert client["/"] == {"a": {"y": {"z": 2, "w": [{"deep": {"er": 5}}, 4]}}, "b": 7, "l": ["x", "y"]}


@pytest.mark.parametrize(
    ("pairs", "error"),
    [
        ([("/a", 1), ("/a/b", 2)], NotATree),
        ([("/a", {"b": 1}), ("/a/b/c", 2)], NotATree),
        ([("/a", {"b": 1}), ("/leaf/c", 2)], NotATree),
        ([("/a", ["x"]), ("/a/3", 2)], ListIndexError),
        ([("/a", ["x"]), ("/a/x", 2)], ListIndexError),
        ([("/l/3", "c"), ("/l/5", "e")], ListIndexError),
        ([("/l/4", "d"), ("/l/3", "c")], ListIndexError),
        ([("/fine", 1), ("/.link/x", 2)], PathError),
        ([("/fine", 1), ("/", {})], PathError),
        ([*((f"/fine/{number}", 1) for number in range(50)), ("/leaf/c", 2)], NotATree),
        ([*((f"/fine/{number}", 1) for number in range(50)), ("/l/4", 2)], ListIndexError),
    ],
)
def test_an_update_that_fails_writes_nothing(
    client: EtcdMiddleware, stored: Stored, pairs: Any, error: type[Exception]
) -> None:
    client.update({"/leaf": 1, "/l": ["a", "b"]})
    before = stored()
    with pytest.raises(error):
        client.update(pairs)
    assert stored() == before


def test_update_writes_and_appends_in_lists(client: EtcdMiddleware) -> None:
    client["/l"] = ["a", {"x": 1}]
    client["/t"] = {"l": [[]]}
    client.update(
        [("/l/1", "A"), ("/l/2/y", 2), ("/l/3", "c"), ("/l/4/z", "d"), ("/t/l/1/1", "p"), ("/t/l/2", "q")]
    )
    assert client["/"] == {"l": ["A", {"x": 1, "y": 2}, "c", {"z": "d"}], "t": {"l": [["p"], "q"]}}
    client.update([(f"/l/{index}", index) for index in range(1, 31)])
    assert client["/l"] == list(range(1, 31))


@pytest.mark.parametrize("ancestors", [47, 48, 49, 100, 300])
def test_update_guards_more_ancestors_than_compares_fit(client: EtcdMiddleware, ancestors: int) -> None:
    pairs = {f"/t/{number}/x": number for number in range(ancestors)}
    client.update({"/t/0": {}, "/t/1": {"y": 1}})
    client.update(pairs)
    assert client["/t"] == {str(number): {"x": number} for number in range(ancestors)} | {
        "1": {"x": 1, "y": 1}
    }
    client["/t/7"] = "leaf"
    with pytest.raises(NotATree, match=r"^/t/7: "):
        client.update(pairs)


def test_update_takes_a_path_of_hundreds_of_levels(client: EtcdMiddleware) -> None:
    path = "/a" + "/b" * 300
    client.update({path: 1})
    assert client[path] == 1
    client.update([("/a", {}), (path, 2)])
    assert list(client.items()) == [(path, 2)]
    for pairs in ([(path * 5, 3)], [("/a", {}), (path * 5, 3)]):
        with pytest.raises(LinkKVError, match="/a/b"):
            client.update(pairs)
    assert list(client.items()) == [(path, 2)]


@pytest.mark.parametrize("small", [1, 30])
def test_an_update_holds_as_much_as_an_assignment(client: EtcdMiddleware, small: int) -> None:
    client.update({"/old": {"x": 1}, "/t": {f"old{number}": number for number in range(100)}})
    value = {f"k{number:09}": number % 10 for number in range(25_000)}
    pairs = {"/t": value, **{f"/small/{number}": number for number in range(small)}}
    client.update(pairs)
    assert client["/t"] == value
    assert client["/small"] == {str(number): number for number in range(small)}
    client.update(pairs)
    assert client["/old"] == {"x": 1}


# snapshot


def test_a_snapshot_is_the_nested_value(client: EtcdMiddleware) -> None:
    value = {"l": [1, {"x": []}], "e": {}, "m/s": None}
    revision = client.put("/a", value)
    client["/a/l"] = "changed"
    assert same(client.snapshot("/a", revision=revision), value)
    assert same(client.snapshot(revision=revision), {"a": value})
    assert client.snapshot("/a/l") == "changed"
    assert client.snapshot() == {"a": {**value, "l": "changed"}}
    with pytest.raises(NotFound, match=r"^/b: "):
        client.snapshot("/b")
    with pytest.raises(NotFound, match=r"^/b: "):
        client.snapshot("/b", revision=revision)
