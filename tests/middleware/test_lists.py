"""Lists: exactly 1 to n whatever is written and deleted in them, and how they are told from dicts."""

from __future__ import annotations

from typing import Any

import pytest

from link_kv import EtcdMiddleware, get, local
from link_kv.errors import ConfigError, ListIndexError, NotATree, NotFound
from tests.leases import revoke
from tests.middleware.conftest import Stored
from tests.values import same


def test_a_list_is_a_marker_and_items_from_one(client: EtcdMiddleware, stored: Stored) -> None:
    client["/c"] = {"s": ["x", "y"]}
    assert stored() == {"/c/s/": "[]", "/c/s/1": "x", "/c/s/2": "y"}
    client["/c"] = {"1": "x", "2": "y"}
    assert stored() == {"/c/1": "x", "/c/2": "y"}
    assert client["/c"] == {"1": "x", "2": "y"}


def test_a_long_list_keeps_its_order(client: EtcdMiddleware) -> None:
    value = [f"item {number}" for number in range(1, 1235)]
    client["/l"] = value
    assert client["/l"] == value
    assert client["/l/1234"] == "item 1234"
    assert client.append("/l", "last") == "/l/1235"
    del client["/l/5"]
    assert client["/l"] == value[:4] + value[5:] + ["last"]


def test_items_are_read_and_replaced_by_index(client: EtcdMiddleware) -> None:
    client["/l"] = ["a", "b", "c"]
    client["/l/2"] = {"x": [1]}
    client["/l/3"] = []
    client["/l/2/x/1"] = "deep"
    assert client["/l"] == ["a", {"x": ["deep"]}, []]
    client["/l/2"] = "b"
    client["/l/3"] = ()
    assert client["/l"] == ["a", "b", []]


def test_the_place_behind_the_last_appends(client: EtcdMiddleware) -> None:
    client["/l"] = []
    client["/l/1"] = "a"
    client["/l/2/x"] = "b"
    client["/l/3/1/y"] = "c"
    client.create("/l/4", [])
    client.setdefault("/l/4/1", "d")
    assert client["/l"] == ["a", {"x": "b"}, {"1": {"y": "c"}}, ["d"]]
    with pytest.raises(ListIndexError, match=r"^/l/6: "):
        client["/l/6"] = 1


def test_assigning_a_list_replaces_and_append_adds(client: EtcdMiddleware) -> None:
    client["/l"] = ["a", "b", "c"]
    client["/l"] = ["d"]
    assert client["/l"] == ["d"]
    assert client.append("/l", "e") == "/l/2"
    assert client["/l"] == ["d", "e"]


@pytest.mark.parametrize("length", [0, 1, 2, 9, 10, 15, 16, 17, 99, 128, 1000])
def test_append_finds_the_end(client: EtcdMiddleware, length: int) -> None:
    client["/l"] = list(range(length))
    assert client.append("/l", {"x": [length]}) == f"/l/{length + 1}"
    assert client.append("/l/", []) == f"/l/{length + 2}"
    assert client["/l"] == [*range(length), {"x": [length]}, []]
    assert client.append(f"/l/{length + 2}", 1) == f"/l/{length + 2}/1"


def test_append_makes_the_list_where_nothing_is(client: EtcdMiddleware, stored: Stored) -> None:
    assert client.append("/a/b/l", "x") == "/a/b/l/1"
    assert stored() == {"/a/b/l/": "[]", "/a/b/l/1": "x"}
    client["/e"] = {}
    assert client.append("/e/l", ["y"]) == "/e/l/1"
    assert client["/e"] == {"l": [["y"]]}
    client["/m"] = [1]
    assert client.append("/m/2", 2) == "/m/2/1"
    assert client["/m"] == [1, [2]]
    with pytest.raises(ListIndexError):
        client.append("/m/4", 2)


@pytest.mark.parametrize("value", [1, None, "", {}, {"x": 1}, {"1": "x"}], ids=repr)
def test_append_refuses_what_is_no_list(client: EtcdMiddleware, value: Any) -> None:
    client["/a"] = value
    with pytest.raises(NotATree, match=r"^/a: .*not a list"):
        client.append("/a", 1)
    assert client["/a"] == value


DELETES: dict[str, Any] = {
    "delitem": lambda client, path: client.__delitem__(path),
    "delete": lambda client, path: client.delete(path),
    "pop": lambda client, path: client.pop(path),
}
every_delete = pytest.mark.parametrize("remove", DELETES.values(), ids=list(DELETES))


@every_delete
@pytest.mark.parametrize("index", [1, 2, 5, 10, 12])
def test_deleting_an_item_moves_the_rest_up(
    client: EtcdMiddleware, stored: Stored, remove: Any, index: int
) -> None:
    value: list[Any] = [
        "a",
        {"x": 1, "y": [1]},
        [],
        {},
        ["p", ["q"]],
        None,
        7,
        "8",
        9.5,
        True,
        {"z": {}},
        b"x",
    ]
    client["/t/l"] = value
    client["/t/other"] = 1
    remove(client, f"/t/l/{index}")
    del value[index - 1]
    assert same(client["/t"], {"l": value, "other": 1})
    fresh = stored()
    client["/t/l"] = value
    assert stored() == fresh, "nothing is left of the old places"


@every_delete
def test_the_path_of_a_deleted_item_may_still_exist(client: EtcdMiddleware, remove: Any) -> None:
    client["/l"] = ["a", "b"]
    remove(client, "/l/1")
    assert client["/l/1"] == "b"
    remove(client, "/l/1")
    assert client["/l"] == []
    with pytest.raises(NotFound, match=r"^/l/1: "):
        remove(client, "/l/1")
    assert client["/l"] == []


@every_delete
def test_a_list_in_a_list_stays_when_it_is_emptied(
    client: EtcdMiddleware, stored: Stored, remove: Any
) -> None:
    client["/l"] = [["a"], "b"]
    remove(client, "/l/1/1")
    assert client["/l"] == [[], "b"]
    assert stored() == {"/l/": "[]", "/l/1/": "[]", "/l/2": "b"}


@every_delete
def test_an_item_that_loses_its_last_key_becomes_an_empty_dict(
    client: EtcdMiddleware, stored: Stored, remove: Any
) -> None:
    client["/l"] = [{"x": 1}, {"x": {"y": {"z": 1}}}, {"x": {}, "w": 1}]
    remove(client, "/l/1/x")
    remove(client, "/l/2/x/y/z")
    assert client["/l"] == [{}, {}, {"x": {}, "w": 1}]
    remove(client, "/l/3/w")
    remove(client, "/l/3/x")
    assert client["/l"] == [{}, {}, {}]
    assert stored() == {"/l/": "[]", "/l/1/": "{}", "/l/2/": "{}", "/l/3/": "{}"}
    client["/l/1/x/y"] = 1
    assert stored() == {"/l/": "[]", "/l/1/x/y": "1", "/l/2/": "{}", "/l/3/": "{}"}


@every_delete
def test_a_dict_inside_an_item_goes_when_it_is_emptied(client: EtcdMiddleware, remove: Any) -> None:
    client["/l"] = [{"x": {"y": 1}, "z": 2}, {"l": [{"p": {"q": 1}}]}]
    remove(client, "/l/1/x/y")
    remove(client, "/l/2/l/1/p/q")
    assert client["/l"] == [{"z": 2}, {"l": [{}]}]
    remove(client, "/l/2/l/1")
    assert client["/l"] == [{"z": 2}, {"l": []}]
    remove(client, "/l/2/l")
    assert client["/l"] == [{"z": 2}, {}]


@every_delete
def test_every_delete_in_a_list_rewrites_the_marker_of_each_list_above(
    client: EtcdMiddleware, meta: Any, remove: Any
) -> None:
    client["/l"] = [{"m": ["a", [{"x": 1, "y": 2}, "b", "c"]], "n": {"o": 1}}]
    for path, markers in (
        ("/l/1/n/o", ["/l/"]),
        ("/l/1/m/2/1/x", ["/l/", "/l/1/m/", "/l/1/m/2/"]),
        ("/l/1/m/2/2", ["/l/", "/l/1/m/", "/l/1/m/2/"]),
        ("/l/1/m/1", ["/l/", "/l/1/m/"]),
    ):
        before = {meta(marker).mod_revision for marker in markers}
        remove(client, path)
        after = {meta(marker).mod_revision for marker in markers}
        assert len(after) == 1, "all in one transaction"
        assert after.isdisjoint(before)


@pytest.mark.parametrize("remove", [DELETES["delitem"], DELETES["pop"]], ids=["delitem", "pop"])
@pytest.mark.parametrize("depth", [30, 95, 96, 97, 130, 200])
def test_lists_may_be_nested_as_deep_as_one_likes(client: EtcdMiddleware, remove: Any, depth: int) -> None:
    value: list[Any] = ["x", "y"]
    for _ in range(depth):
        value = ["first", value]
    client["/l"] = value
    inner = "/l" + "/2" * depth
    remove(client, f"{inner}/1")
    assert client[inner] == ["y"]
    remove(client, f"{inner}/1")
    assert client[inner] == []
    assert client.append(inner, {"k": {"j": 1}}) == f"{inner}/1"
    remove(client, f"{inner}/1/k/j")
    assert client[inner] == [{}]
    client[f"{inner}/2"] = "z"
    assert client.popitem() == ("/l/1", "first")
    client["/l"] = "gone"
    assert dict(client.items()) == {"/l": "gone"}


def test_a_list_that_is_to_expire_still_is_after_deletes_in_it(client: EtcdMiddleware, meta: Any) -> None:
    client.put("/l", ["a", {"x": 1, "y": 2}, ["b", "c"], "d"], ttl=600)
    lease = client.entry("/l/1").lease
    assert lease
    del client["/l/1"], client["/l/1/x"], client["/l/1/y"], client["/l/2/2"], client["/l/2/1"]
    assert client["/l"] == [{}, [], "d"]
    assert {meta(key).lease_id for key in ("/l/", "/l/1/", "/l/2/", "/l/3")} == {lease}


WRITES: dict[str, Any] = {
    "append": lambda client: client.append("/l", "z"),
    "append a tree": lambda client: client.append("/l", {"z": [1]}),
    "append further in": lambda client: client.append("/l/3", "z"),
    "append where all is one key": lambda client: client.append("/l/3", {"z": 1}),
    "the next place": lambda client: client.put("/l/4", "z"),
    "another item": lambda client: client.put("/l/1", "z"),
    "a tree": lambda client: client.put("/l/1", {"z": []}),
    "a new key": lambda client: client.put("/l/2/z", 1),
    "at a revision": lambda client: client.put("/l/1", "z", revision=client.entry("/l/1").revision),
    "a tree at a revision": lambda client: client.put(
        "/l/3/1", {"z": 1}, revision=client.entry("/l/3/1").revision
    ),
    "create": lambda client: client.create("/l/2/z", 1),
    "setdefault": lambda client: client.setdefault("/l/4", {"z": 1}),
    "update": lambda client: client.update({"/l/1": "z", "/l/2/z": 2, "/other": 1}),
    "large update": lambda client: client.update({f"/l/2/{number}": number for number in range(100)}),
    "as a list": lambda client: client.tree("/l").insert(0, {"z": 1}),
    "as a list further in": lambda client: client.tree("/l/3").extend(["y", "z"]),
    "transaction": lambda client: client.transaction(lambda t: t.__setitem__("/l/1", [t["/l/1"]])),
    "delete in a transaction": lambda client: client.transaction(lambda t: t.__delitem__("/l/1")),
    "delete": lambda client: client.delete("/l/3/1"),
    "item": lambda client: get("l", client=client).describe("4", initial={"z": 1}),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=list(WRITES))
def test_what_is_written_in_a_list_that_is_to_expire_goes_with_it(client: EtcdMiddleware, write: Any) -> None:
    client.put("/l", ["a", {"x": 1}, ["b"]], ttl=600)
    lease = client.entry("/l/1").lease
    before = client["/l"]
    write(client)
    assert client["/l"] != before
    other = client.etcd3
    found = list(other.get_prefix(f"{client.prefix}/l/"))
    other.close()
    assert {meta.lease_id for _, meta in found if b"/.link/" not in meta.key} == {lease}
    client["/l"] = ["stays"]
    assert client.entry("/l/1").lease == 0


def test_after_its_list_expired_an_item_begins_a_list_that_stays(client: EtcdMiddleware, etcd: Any) -> None:
    client.put("/l", ["a"], ttl=600)
    client.append("/l", "b")
    with client.watch("/l") as changes:
        revoke(etcd.endpoints[0], client.entry("/l/1").lease)
        gone = next(changes), next(changes)
        assert {(change.path, change.kind) for change in gone} == {("/l/1", "delete"), ("/l/2", "delete")}
    assert client.append("/l", "c") == "/l/1"
    assert client.entry("/l/1").lease == 0


@pytest.mark.parametrize("path", ["/l/1", "/l/2/x"])
def test_deleting_goes_on_when_what_it_read_is_compacted(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    with local.start() as server, EtcdMiddleware(endpoints=server.endpoints) as client:
        client["/l"] = ["a", {"x": 1, "y": 2}]
        other = client.etcd3
        call, reads = client._space.caller.call, 0

        async def compacting(*request: Any) -> Any:
            nonlocal reads
            reads += 1
            if reads == 3:  # the list is read at the revision of what stands above it
                other.compact(client.put("/p", 1))
            return await call(*request)

        monkeypatch.setattr(client._space.caller, "call", compacting)
        del client[path]
        assert client["/l"] == ([{"x": 1, "y": 2}] if path == "/l/1" else ["a", {"y": 2}])
        assert reads > 4
        other.close()


@pytest.mark.parametrize("path", ["/l/1", "/l/3", "/l/2/k", "/l/2/new", "/t/l/1/x"])
@pytest.mark.parametrize("value", [1, {}, {"x": [1]}, ["x"]], ids=repr)
def test_nothing_below_a_list_expires(client: EtcdMiddleware, stored: Stored, path: str, value: Any) -> None:
    client.update({"/l": ["a", {"k": 1}], "/t/l": [{"x": {}}]})
    before = stored()
    writes: list[Any] = [
        lambda: client.put(path, value, ttl=60),
        lambda: client.put(
            path, value, ttl=60, revision=client.entry(path).revision if path in client else 0
        ),
        lambda: client.create(path, value, ttl=60) if path not in client else client.put(path, value, ttl=60),
    ]
    for write in writes:
        with pytest.raises(ConfigError, match=rf"^{path}: ttl= is refused below .*list"):
            write()
    assert stored() == before
    assert client.put("/t/n", [1, 2], ttl=60)


@pytest.mark.parametrize(
    "items",
    [{"/l/1": "a", "/l/3": "c"}, {"/l/2": "b"}, {"/l/1/x": "a", "/l/3": "c"}, {"/l/1": "a", "/l/x": "d"}],
    ids=str,
)
def test_a_foreign_list_with_a_gap_is_not_appended_to(
    client: EtcdMiddleware, foreign: Any, stored: Stored, items: dict[str, str]
) -> None:
    foreign({"/l/": "[]", **items})
    before = stored()
    with pytest.raises(ListIndexError, match=r"^/l: its marker says list, but item [12] is missing"):
        client.append("/l", "new")
    assert stored() == before
    client["/l"] = list(client["/l"].values())
    assert client.append("/l", "new") == f"/l/{len(items) + 1}"


def test_a_foreign_list_with_a_gap_is_a_dict_and_deletes_as_one(client: EtcdMiddleware, foreign: Any) -> None:
    foreign({"/l/": "[]", "/l/1": "a", "/l/3": "c", "/l/x": "d"})
    assert client["/l"] == {"1": "a", "3": "c", "x": "d"}
    assert client.pop("/l/1") == "a"
    assert client["/l"] == {"3": "c", "x": "d"}
    del client["/l/x"]
    client["/l/3"] = "C"
    del client["/l/3"]
    assert client["/l"] == []
