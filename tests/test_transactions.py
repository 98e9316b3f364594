"""Transactions on a real etcd: what a function reads, what is written, and what is refused."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from link_kv import EtcdMiddleware, Session
from link_kv._core.wire.calls import run
from link_kv.errors import (
    Closed,
    EncodeError,
    ListIndexError,
    NotATree,
    NotFound,
    PathError,
    TooLarge,
)
from link_kv.plan import Get, Plan, Put
from link_kv.sessions import Transaction
from tests.leases import connect
from tests.logins import ANN, ROOT, client_of, server_with_logins
from tests.model.layout import faults
from tests.once import Once

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


# Reading and writing


def test_what_the_function_returns_is_returned_and_what_it_writes_is_one_revision(
    etcd_client: EtcdMiddleware,
) -> None:
    etcd_client["/a"] = 1
    etcd_client["/tree"] = {"x": 1, "y": 2}

    def move(t: Transaction) -> int:
        t["/b"] = t["/a"] + 1
        t["/tree"] = {"z": 3}
        t["/list"] = ["a"]
        del t["/a"]
        return t["/b"] * 10

    assert etcd_client.transaction(move) == 20
    assert etcd_client.snapshot() == {"b": 2, "tree": {"z": 3}, "list": ["a"]}
    revision = etcd_client.entry("/b").revision
    assert etcd_client.entry("/tree/z").revision == etcd_client.entry("/list").revision == revision
    assert etcd_client.at(revision - 1)["/a"] == 1


def test_it_reads_what_it_wrote_itself_above_and_below(etcd_client: EtcdMiddleware) -> None:
    etcd_client["/a"] = {"b": {"c": 1}, "l": ["x", "y"]}
    seen: dict[str, Any] = {}

    def work(t: Transaction) -> None:
        t["/a/b/d"] = 2
        seen["above"] = t["/a"]
        t["/a/l/3"] = {"z": 1}
        seen["list"] = t["/a/l"]
        seen["item"] = t["/a/l/3/z"]
        del t["/a/l/1"]
        seen["moved"] = t["/a/l/1"], t.get("/a/l/3"), t["/a/l"]
        t["/a/b"] = 5
        seen["leaf"] = t["/a/b"], t.get("/a/b/c"), "/a/b/d" in t
        del t["/a/b"]
        seen["gone"] = "/a/b" in t, t["/a"]
        del t["/a"]
        seen["all"] = "/a" in t, t["/"], t.get("/a/l", "nothing")

    etcd_client.transaction(work)
    assert seen == {
        "above": {"b": {"c": 1, "d": 2}, "l": ["x", "y"]},
        "list": ["x", "y", {"z": 1}],
        "item": 1,
        "moved": ("y", None, ["y", {"z": 1}]),
        "leaf": (5, None, False),
        "gone": (False, {"l": ["y", {"z": 1}]}),
        "all": (False, {}, "nothing"),
    }
    assert len(etcd_client) == 0


def test_what_is_not_there_raises_and_a_default_is_given(etcd_client: EtcdMiddleware) -> None:
    def work(t: Transaction) -> None:
        assert t.get("/a") is None
        assert t.get("/a", 7) == 7
        assert "/a" not in t
        assert "/" in t
        assert t["/"] == {}
        with pytest.raises(NotFound, match="/a"):
            t["a"]
        with pytest.raises(NotFound, match="/a/b"):
            del t["/a/b"]
        t["/a"] = 1
        del t["/a"]
        with pytest.raises(NotFound):
            del t["/a"]

    etcd_client.transaction(work)


def test_values_are_copies(etcd_client: EtcdMiddleware) -> None:
    etcd_client["/a"] = {"b": [1]}
    mine = {"c": [2]}

    def work(t: Transaction) -> None:
        t["/a"]["b"].append("lost")
        t["/m"] = mine
        mine["c"].append("lost")
        t["/m"]["c"].append("lost")
        assert t["/a"] == {"b": [1]}
        assert t["/m"] == {"c": [2]}

    etcd_client.transaction(work)
    assert etcd_client.snapshot() == {"a": {"b": [1]}, "m": {"c": [2]}}


def test_a_function_that_raises_leaves_nothing(etcd_client: EtcdMiddleware) -> None:
    etcd_client["/a"] = 1
    before = dict(etcd_client.raw)

    def fail(t: Transaction) -> None:
        t["/a"] = 2
        t["/b"] = 2
        del t["/a"]
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        etcd_client.transaction(fail)
    assert dict(etcd_client.raw) == before


def test_what_is_done_to_a_transaction_that_is_over_is_refused(etcd_client: EtcdMiddleware) -> None:
    kept: list[Transaction] = []
    etcd_client.transaction(kept.append)

    def fail(t: Transaction) -> None:
        kept.append(t)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        etcd_client.transaction(fail)
    for t in kept:
        with pytest.raises(Closed, match="over"):
            t["/a"]
        with pytest.raises(Closed, match="over"):
            t["/a"] = 1
        with pytest.raises(Closed, match="over"):
            del t["/a"]
        with pytest.raises(Closed, match="over"):
            t.__contains__("/a")
    assert len(etcd_client) == 0


def test_bad_paths_and_values_are_told_where_they_are_given(etcd_client: EtcdMiddleware) -> None:
    told: list[str] = []

    def work(t: Transaction) -> None:
        for act, error in (
            (lambda: t["/a//b"], PathError),
            (lambda: t.__setitem__("/", {}), PathError),
            (lambda: t.__delitem__("/"), PathError),
            (lambda: t.__setitem__("/.link/a", 1), PathError),
            (lambda: t.__setitem__("/a", object()), EncodeError),
            (lambda: t.__setitem__("/a", {"b": {1: 2}}), EncodeError),
            (lambda: t.get(1), PathError),
        ):
            with pytest.raises(error) as caught:
                act()
            told.append(str(caught.value))

    etcd_client.transaction(work)
    assert any("/a/b" in words for words in told)
    assert len(etcd_client) == 0


def test_the_layout_is_written_with_the_first_write(etcd_client: EtcdMiddleware) -> None:
    etcd_client.transaction(lambda t: t.get("/a"))
    assert len(etcd_client.raw) == 0
    etcd_client.transaction(lambda t: t.__setitem__("/a", 1))
    assert etcd_client.raw[etcd_client.prefix.encode() + b"/.link/layout"] == b"1"


def test_a_transaction_in_a_transaction_is_one_of_its_own(etcd_client: EtcdMiddleware) -> None:
    etcd_client["/a"] = 1

    def work(t: Transaction) -> None:
        assert t["/a"] == 1
        etcd_client.transaction(lambda inner: inner.__setitem__("/b", inner["/a"] + 1))
        t["/c"] = 3

    etcd_client.transaction(work)
    assert etcd_client.snapshot() == {"a": 1, "b": 2, "c": 3}


def test_the_root_is_read_by_who_may_read_no_more_than_that_and_by_who_has_no_prefix() -> None:
    with (
        server_with_logins() as server,
        client_of(server, ROOT) as root,
        client_of(server, ANN, "/app") as ann,
    ):
        root["/app/store"] = {"x": [1]}
        assert ann.transaction(lambda t: t["/"]) == {"store": {"x": [1]}}
        assert root.transaction(lambda t: t["/"]) == {"app": {"store": {"x": [1]}}}

        def work(t: Transaction) -> None:
            t["/store/seen"] = t["/"]

        ann.transaction(work)
        assert ann["/store"] == {"x": [1], "seen": {"store": {"x": [1]}}}


def test_housekeeping_is_not_read_and_goes_with_what_is_deleted(etcd_client: EtcdMiddleware) -> None:
    etcd_client["/s"] = {"a": {"b": 1}}
    key = etcd_client.prefix.encode() + b"/s/.link/items/a"
    nested = etcd_client.prefix.encode() + b"/s/a/.link/items/b"
    etcd_client.raw[key] = etcd_client.raw[nested] = b"[]"

    def work(t: Transaction) -> Any:
        t["/seen"] = t["/s"]
        return t["/s"]

    assert etcd_client.transaction(work) == {"a": {"b": 1}}
    etcd_client.transaction(lambda t: t.__setitem__("/s/a", {"c": 1}))
    assert {key, nested} <= set(etcd_client.raw)
    etcd_client.transaction(lambda t: t.__delitem__("/s"))
    assert not {key, nested} & set(etcd_client.raw)


def test_keys_that_no_path_can_name_are_not_seen(etcd_client: EtcdMiddleware) -> None:
    prefix = etcd_client.prefix.encode()
    for number in range(20):
        etcd_client.raw[prefix + b"/a//%d" % number] = b"1"

    def work(t: Transaction) -> tuple[bool, Any]:
        t["/b"] = 1
        return "/a" in t, t.get("/a")

    assert etcd_client.transaction(work) == (False, None)


# The guards of writes


def test_writing_ends_an_empty_dict_above(etcd_client: EtcdMiddleware) -> None:
    etcd_client["/a"] = {"b": {}}
    etcd_client.transaction(lambda t: t.__setitem__("/a/b/c/d", 1))
    assert etcd_client.snapshot() == {"a": {"b": {"c": {"d": 1}}}}
    assert faults(etcd_client.raw.items(), etcd_client._space.prefix) == []


@pytest.mark.parametrize(
    ("before", "writes", "gone"),
    [
        ({"e": {}}, {"/e/x": 1}, ["/e/x"]),
        ({"e": {}}, {"/e/x/y": 1, "/e/z": 2}, ["/e/x/y", "/e/z"]),
        ({"e": {}}, {"/e/x/y": 1}, ["/e/x"]),
        ({"e": {}}, {"/e/1/1": {}}, ["/e/1"]),
        ({"e": {}}, {"/e/x": {"y": 1}}, ["/e/x/y"]),
        ({"e": {"d": {}}}, {"/e/d/x": 1}, ["/e/d/x"]),
        ({"e": {"d": {}, "stays": 1}}, {"/e/d/x": 1}, ["/e/d/x"]),
        ({"e": {"d": {}, "stays": {}}}, {"/e/d/x": 1}, ["/e/d/x"]),
        ({"l": [{}]}, {"/l/1/x": 1}, ["/l/1/x"]),
    ],
    ids=repr,
)
@pytest.mark.parametrize("after", [None, "/e", "/e/d", "/e/new"])
def test_an_empty_dict_that_was_written_to_goes_with_what_was_written(
    etcd_client: EtcdMiddleware, before: Any, writes: Any, gone: list[str], after: str | None
) -> None:
    """As it does outside of transactions."""

    def work(t: Any) -> None:
        for path, value in writes.items():
            t[path] = value
        for path in gone:
            del t[path]
        if after:
            t[after] = {}

    etcd_client.update({f"/{name}": value for name, value in before.items()})
    work(etcd_client)
    expected, stored = etcd_client.snapshot(), dict(etcd_client.raw)
    etcd_client.clear()
    etcd_client.update({f"/{name}": value for name, value in before.items()})
    seen: list[Any] = []

    def watched(t: Transaction) -> None:
        work(t)
        seen.append(t["/"])
        assert {name: t.get(f"/{name}") for name in t["/"]} == expected
        assert ("/e" in t) == ("e" in expected)

    etcd_client.transaction(watched)
    assert seen[-1] == expected == etcd_client.snapshot()
    assert dict(etcd_client.raw) == stored


@pytest.mark.parametrize("read", [False, True])
def test_writing_below_a_leaf_writes_nothing(etcd_client: EtcdMiddleware, read: bool) -> None:
    etcd_client["/a"] = 1

    def work(t: Transaction) -> None:
        if read:
            assert t["/a"] == 1
        t["/other"] = 1
        t["/a/b"] = 2

    with pytest.raises(NotATree, match="/a"):
        etcd_client.transaction(work)
    assert etcd_client.snapshot() == {"a": 1}


@pytest.mark.parametrize("read", [False, True])
def test_writing_beyond_a_list_writes_nothing(etcd_client: EtcdMiddleware, read: bool) -> None:
    etcd_client["/l"] = ["x"]

    def work(t: Transaction) -> None:
        if read:
            assert t["/l"] == ["x"]
        t["/other"] = 1
        t["/l/3"] = "z"

    with pytest.raises(ListIndexError, match="/l"):
        etcd_client.transaction(work)
    assert etcd_client.snapshot() == {"l": ["x"]}


def test_writing_into_lists(etcd_client: EtcdMiddleware) -> None:
    etcd_client["/l"] = ["x", {"a": 1}]

    def work(t: Transaction) -> None:
        t["/l/1"] = "X"
        t["/l/2/b"] = 2
        t["/l/3"] = "y"
        t["/l/4"] = ["deep"]

    etcd_client.transaction(work)
    assert etcd_client["/l"] == ["X", {"a": 1, "b": 2}, "y", ["deep"]]
    assert faults(etcd_client.raw.items(), etcd_client._space.prefix) == []


def test_deleting_in_lists(etcd_client: EtcdMiddleware) -> None:
    etcd_client["/l"] = ["a", {"x": 1}, [1, 2, 3], "d"]

    def work(t: Transaction) -> None:
        del t["/l/1"]
        del t["/l/1/x"]  # what is emptied stays, as the item of a list
        del t["/l/2/2"]

    etcd_client.transaction(work)
    assert etcd_client["/l"] == [{}, [1, 3], "d"]
    assert faults(etcd_client.raw.items(), etcd_client._space.prefix) == []


MOVES: dict[str, Callable[[Any], None]] = {
    "first": lambda t: t.__delitem__("/l/1"),
    "last": lambda t: t.__delitem__("/l/5"),
    "two": lambda t: [t.__delitem__("/l/2"), t.__delitem__("/l/3")],
    "the same twice": lambda t: [t.__delitem__("/l/2"), t.__delitem__("/l/2")],
    "all": lambda t: [t.__delitem__("/l/1") for _ in range(5)],
    "in an item": lambda t: t.__delitem__("/l/3/in/1"),
    "an item and in one": lambda t: [t.__delitem__("/l/3/in/2"), t.__delitem__("/l/1")],
    "the last key of an item": lambda t: t.__delitem__("/l/2/s"),
    "what one holds": lambda t: [t.__delitem__("/l/1/x"), t.__delitem__("/l/2")],
    "and written after": lambda t: [t.__delitem__("/l/2"), t.__setitem__("/l/1/new", 1)],
    "and written over": lambda t: [t.__delitem__("/l/2"), t.__setitem__("/l/1", 5)],
    "and appended": lambda t: [t.__delitem__("/l/2"), t.__setitem__("/l/5", {"x": 1})],
    "written before": lambda t: [t.__setitem__("/l/6", {"x": 1}), t.__delitem__("/l/2")],
    "read before": lambda t: [t["/l"], t["/l/2"], t.__delitem__("/l/2")],
}


@pytest.mark.parametrize("change", MOVES.values(), ids=list(MOVES))
@pytest.mark.parametrize("notes", [["1", "2", "2/s", "3", "3/in/1", "3/in/2", "5", "5/s"], ["1"], ["3/in/1"]])
@pytest.mark.parametrize("path", ["/l", "/up/1"])
def test_the_housekeeping_of_items_moves_up_as_outside_of_transactions(
    etcd_client: EtcdMiddleware, change: Callable[[Any], None], path: str, notes: list[str]
) -> None:
    raw = etcd_client.raw
    prefix = etcd_client.prefix.encode()
    found = []

    def below(t: Any) -> Any:
        class Below:
            def __getitem__(self, where: str) -> Any:
                return t[path + where[2:]]

            def __setitem__(self, where: str, value: Any) -> None:
                t[path + where[2:]] = value

            def __delitem__(self, where: str) -> None:
                del t[path + where[2:]]

        return Below()

    for act in (
        lambda: change(below(etcd_client)),
        lambda: etcd_client.transaction(lambda t: change(below(t))),
    ):
        etcd_client.clear()
        etcd_client["/up"] = ["a", "b"]
        etcd_client[path] = [
            {"x": 1},
            {"s": {"y": 1}},
            {"in": [{"z": 1}, {"z": 2}]},
            "leaf",
            {"s": {"y": 2}},
        ]
        for note in notes:
            raw[prefix + f"{path}/{note}/.link/items/x".encode()] = note.encode()
        raw[prefix + f"{path}/.link/items/x".encode()] = b"of the list"
        act()
        found.append(dict(raw))
    assert found[0] == found[1]


def test_housekeeping_that_moves_up_keeps_its_lease_and_who_deletes_it_meanwhile_is_heard(
    etcd_client: EtcdMiddleware, other: EtcdMiddleware
) -> None:
    etcd_client["/l"] = ["a", {"x": 1}, {"x": 2}, {"x": 3}]
    with Session(etcd_client) as session:
        session.put("/note", 1)
        lease = session.lease
        key = etcd_client.prefix.encode() + b"/l/%d/.link/at/x"
        ex = etcd_client._exchange()
        run(ex.commit(Plan((), [Put(key % 2, b"1", lease), Put(key % 3, b"2"), Put(key % 4, b"3")]), "/l"))
        once = Once(lambda: other.raw.pop(key % 3))

        def work(t: Transaction) -> None:
            del t["/l/1"]
            once()

        etcd_client.transaction(work)
        assert once.runs == 2
        _, found = run(etcd_client._exchange().read([Get(key % place) for place in (1, 2, 3, 4)]))
        assert [[(kv.value, kv.lease) for kv in kvs] for kvs in found] == [
            [(b"1", lease)],
            [],
            [(b"3", 0)],
            [],
        ]


def test_an_item_that_was_written_and_emptied_stays(etcd_client: EtcdMiddleware) -> None:
    etcd_client["/l"] = ["a", "b"]

    def work(t: Transaction) -> None:
        t["/l/1"] = {"x": 1}
        del t["/l/1/x"]

    etcd_client.transaction(work)
    assert etcd_client["/l"] == [{}, "b"]
    assert faults(etcd_client.raw.items(), etcd_client._space.prefix) == []


# Limits


def spread(count: int) -> dict[str, Any]:
    return {f"/many/{number}": number for number in range(count)}


SHAPES: dict[str, tuple[Callable[[int], dict[str, Any]], Callable[[Transaction, int], object]]] = {
    "one by one": (spread, lambda t, count: [t[f"/many/{number}"] for number in range(count)]),
    "a tree": (spread, lambda t, count: t["/many"]),
    "the root": (spread, lambda t, count: t["/"]),
    "looked for": (spread, lambda t, count: [f"/many/{number}" in t for number in range(count)]),
    "a list": (lambda count: {"/l": list(range(count))}, lambda t, count: t["/l"]),
    "lists": (lambda count: {"/l": [[number] for number in range(count)]}, lambda t, count: t["/l"]),
    "empty ones": (lambda count: {f"/d/{number}": {} for number in range(count)}, lambda t, count: t["/d"]),
    "far apart": (
        lambda count: {f"/{number}/a/b/c": number for number in range(count)},
        lambda t, count: [t[f"/{number}"] for number in range(count)],
    ),
}


@pytest.mark.parametrize(("fill", "read"), SHAPES.values(), ids=SHAPES)
def test_it_reads_96_leaves_in_any_shape_and_not_one_more(
    etcd_client: EtcdMiddleware,
    other: EtcdMiddleware,
    fill: Callable[[int], dict[str, Any]],
    read: Callable[[Transaction, int], object],
) -> None:
    etcd_client.update(fill(96))
    last = list(etcd_client)[-1]
    once = Once(lambda: other.delete(last))

    def work(t: Transaction) -> None:
        with contextlib.suppress(NotFound):
            read(t, 96)
            read(t, 96)  # what was read before does not count again
        once()
        for number in range(30):
            t[f"/w/{number}/x"] = number

    etcd_client.transaction(work)
    assert once.runs == 2  # a delete among so many was seen
    assert len(etcd_client["/w"]) == 30

    etcd_client.clear()
    etcd_client.update(fill(97))
    with pytest.raises(TooLarge, match="96 leaves"):
        etcd_client.transaction(lambda t: read(t, 97))


def test_any_number_of_places_where_nothing_is_may_be_read(
    etcd_client: EtcdMiddleware, other: EtcdMiddleware
) -> None:
    once = Once(lambda: other.put("/none/150", 1))

    def work(t: Transaction) -> int:
        found = sum(t.get(f"/none/{number}", 0) for number in range(200))
        once()
        t["/sum"] = found
        return found

    assert etcd_client.transaction(work) == 1
    assert once.runs == 2


def test_a_large_tree_can_be_looked_for_written_and_deleted(endpoint: str, etcd_prefix: str) -> None:
    client = connect(endpoint, etcd_prefix, timeout=60.0)

    def work(t: Transaction) -> None:
        assert "/big" not in t
        t["/big"] = {f"{number:05}": number for number in range(8000)}

    client.transaction(work)
    assert len(client) == 8000

    def replace(t: Transaction) -> None:
        assert "/big" in t
        assert t["/big/00007"] == 7
        del t["/big"]
        t["/small"] = 1

    client.transaction(replace)
    assert client.snapshot() == {"small": 1}
    client.close()


def test_much_is_read_and_much_is_written(etcd_client: EtcdMiddleware) -> None:
    etcd_client.update(spread(96))

    def work(t: Transaction) -> None:
        values = t["/many"]
        for place in range(100):
            t[f"/out/{place}"] = {f"{number}": values["5"] for number in range(50)}

    etcd_client.transaction(work)
    assert len(etcd_client["/out"]) == 100


def test_more_than_a_request_can_carry_is_refused_before_anything_is_written(
    etcd_client: EtcdMiddleware,
) -> None:
    def work(t: Transaction) -> None:
        t["/a"] = 1
        t["/b"] = "x" * 2_000_000

    with pytest.raises(TooLarge, match="/a"):
        etcd_client.transaction(work)
    assert len(etcd_client) == 0


def test_trees_may_be_as_deep_as_outside_of_transactions(etcd_client: EtcdMiddleware) -> None:
    value: Any = 1
    for _ in range(600):
        value = {"d": value}
    etcd_client["/deep"] = value
    etcd_client.raw[etcd_client.prefix.encode() + b"/deeper" + b"/d" * 3000] = b"1"

    def work(t: Transaction) -> None:
        t["/written"] = t["/deep"]
        deeper, depth = t["/deeper"], 0
        while isinstance(deeper, dict):
            deeper, depth = deeper["d"], depth + 1
        assert depth == 3000
        with pytest.raises(EncodeError, match="too deeply"):
            t["/new"] = t["/deeper"]

    etcd_client.transaction(work)
    assert "/written" + "/d" * 600 in etcd_client


def test_deep_paths(etcd_client: EtcdMiddleware, other: EtcdMiddleware) -> None:
    deep = "/d" * 150
    etcd_client[deep] = 1
    once = Once(lambda: other.put(deep, 5))

    def work(t: Transaction) -> None:
        value = t[deep]
        once()
        t[deep + "x"] = value + 1
        del t[deep]

    etcd_client.transaction(work)
    assert once.runs == 2
    assert dict(etcd_client.items()) == {deep + "x": 6}
    with pytest.raises(NotATree):
        etcd_client.transaction(lambda t: t.__setitem__(deep + "x/y", 1))
