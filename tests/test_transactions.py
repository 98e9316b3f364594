"""Transactions on a real etcd: what a function reads, what is written, and when it runs again."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from link_kv import EtcdMiddleware
from link_kv._core import stm
from link_kv.errors import (
    ConfigError,
    Conflict,
    EncodeError,
    LinkKVError,
    ListIndexError,
    NotATree,
    NotFound,
    OutcomeUnknown,
    PathError,
    TooLarge,
)
from link_kv.sessions import Transaction
from link_kv.tree import encode_name
from tests.leases import connect
from tests.model.layout import faults
from tests.model.nested import Nested
from tests.processes import ask, until
from tests.values import as_stored, plain_leaves, same
from tests.wire.proxy import Proxy

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


class Once:
    """Something that is done in the first run of a transaction, and not again."""

    def __init__(self, act: Callable[[], object]) -> None:
        self._act = act
        self.runs = 0

    def __call__(self) -> None:
        self.runs += 1
        if self.runs == 1:
            self._act()


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
            (lambda: t.get(1), PathError),  # type: ignore[call-overload]
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


def test_an_item_that_was_written_and_emptied_stays(etcd_client: EtcdMiddleware) -> None:
    etcd_client["/l"] = ["a", "b"]

    def work(t: Transaction) -> None:
        t["/l/1"] = {"x": 1}
        del t["/l/1/x"]

    etcd_client.transaction(work)
    assert etcd_client["/l"] == [{}, "b"]
    assert faults(etcd_client.raw.items(), etcd_client._space.prefix) == []


# Running again


def test_it_runs_again_when_what_it_read_has_moved(
    etcd_client: EtcdMiddleware, other: EtcdMiddleware
) -> None:
    etcd_client["/a"] = 1
    once = Once(lambda: other.put("/a", 10))

    def work(t: Transaction) -> int:
        value: int = t["/a"]
        once()
        t["/b"] = value + 1
        return value

    assert etcd_client.transaction(work) == 10
    assert once.runs == 2
    assert etcd_client["/b"] == 11


MOVES: dict[str, tuple[Callable[[Transaction], object], Callable[[EtcdMiddleware], object]]] = {
    "a leaf is replaced": (lambda t: t["/a"], lambda c: c.put("/a", 5)),
    "a leaf is put again": (lambda t: t["/a"], lambda c: c.put("/a", 1)),
    "a leaf is deleted": (lambda t: t["/a"], lambda c: c.delete("/a")),
    "a leaf becomes a tree": (lambda t: t["/a"], lambda c: c.put("/a", {"x": 1})),
    "a leaf comes": (lambda t: t.get("/new"), lambda c: c.put("/new", 1)),
    "a tree comes": (lambda t: t.get("/new"), lambda c: c.put("/new/x/y", 1)),
    "an empty dict comes": (lambda t: t.get("/new"), lambda c: c.put("/new", {})),
    "a tree gets a leaf": (lambda t: t["/t"], lambda c: c.put("/t/z", 1)),
    "a tree gets a leaf deep down": (lambda t: t["/t"], lambda c: c.put("/t/z/deep", 1)),
    "a tree loses a leaf": (lambda t: t["/t"], lambda c: c.delete("/t/y")),
    "a tree is deleted": (lambda t: t["/t"], lambda c: c.delete("/t")),
    "a tree becomes a leaf": (lambda t: t["/t"], lambda c: c.put("/t", 1)),
    "a tree becomes empty": (lambda t: t["/t"], lambda c: c.put("/t", {})),
    "an empty dict gets a leaf": (lambda t: t["/e"], lambda c: c.put("/e/x", 1)),
    "an empty dict is deleted": (lambda t: t["/e"], lambda c: c.delete("/e")),
    "a list gets an item": (lambda t: t["/l"], lambda c: c.append("/l", "c")),
    "a list loses its first item": (lambda t: t["/l"], lambda c: c.delete("/l/1")),
    "a list loses its last item": (lambda t: t["/l"], lambda c: c.delete("/l/2")),
    "a list becomes a dict": (lambda t: t["/l"], lambda c: c.put("/l", {"1": "a", "2": "b"})),
    "an item moves up": (lambda t: t["/l/1"], lambda c: c.delete("/l/1")),
    "the root gets a leaf": (lambda t: t["/"], lambda c: c.put("/new", 1)),
    "a leaf that was looked for goes": (lambda t: "/a" in t, lambda c: c.delete("/a")),
    "a tree that was looked for goes": (lambda t: "/t" in t, lambda c: c.delete("/t")),
    "a leaf that was looked for comes": (lambda t: "/new" in t, lambda c: c.put("/new", 1)),
    "a tree that was looked for comes": (lambda t: "/new" in t, lambda c: c.put("/new/x", 1)),
    "what is to be deleted goes": (lambda t: t.__delitem__("/t"), lambda c: c.delete("/t/x")),
    "what is to be deleted is now in a list": (
        lambda t: t.__delitem__("/t/x"),
        lambda c: c.put("/t", [["n"], "x"]),
    ),
}


@pytest.mark.parametrize(("read", "move"), MOVES.values(), ids=MOVES)
def test_everything_that_could_have_changed_what_it_read_makes_it_run_again(
    etcd_client: EtcdMiddleware,
    other: EtcdMiddleware,
    read: Callable[[Transaction], object],
    move: Callable[[EtcdMiddleware], object],
) -> None:
    etcd_client.update({"/a": 1, "/t": {"x": 1, "y": 2}, "/e": {}, "/l": ["a", "b"]})
    once = Once(lambda: move(other))

    def work(t: Transaction) -> None:
        with contextlib.suppress(NotFound):
            read(t)
        once()
        t["/written"] = once.runs

    etcd_client.transaction(work)
    assert once.runs == 2
    assert etcd_client["/written"] == 2
    assert faults(etcd_client.raw.items(), etcd_client._space.prefix) == []


STAYS: dict[str, tuple[Callable[[Transaction], object], Callable[[EtcdMiddleware], object]]] = {
    "a neighbour of a leaf": (lambda t: t["/a"], lambda c: c.put("/b", 1)),
    "a tree whose name begins alike": (lambda t: t["/t"], lambda c: c.put("/t-1", 1)),
    "a sibling in a tree": (lambda t: t["/t/x"], lambda c: c.put("/t/y", 3)),
    "a neighbour of what was not there": (lambda t: t.get("/new"), lambda c: c.put("/newer", 1)),
    "a leaf that was only looked for": (lambda t: "/a" in t, lambda c: c.put("/a", 2)),
    "a tree that was only looked for": (lambda t: "/t" in t, lambda c: c.put("/t/z", 2)),
}


@pytest.mark.parametrize(("read", "move"), STAYS.values(), ids=STAYS)
def test_what_it_did_not_read_does_not_make_it_run_again(
    etcd_client: EtcdMiddleware,
    other: EtcdMiddleware,
    read: Callable[[Transaction], object],
    move: Callable[[EtcdMiddleware], object],
) -> None:
    etcd_client.update({"/a": 1, "/t": {"x": 1, "y": 2}})
    once = Once(lambda: move(other))

    def work(t: Transaction) -> None:
        read(t)
        once()
        t["/written"] = once.runs

    etcd_client.transaction(work)
    assert once.runs == 1


def test_all_it_reads_is_of_one_revision(etcd_client: EtcdMiddleware, other: EtcdMiddleware) -> None:
    etcd_client.update({"/a": 1, "/b": 1})
    seen: list[tuple[Any, ...]] = []
    once = Once(lambda: other.update({"/a": 2, "/b": 2, "/c": 2}))

    def work(t: Transaction) -> None:
        a = t["/a"]
        once()
        seen.append((a, t["/b"], "/c" in t, t["/"]))

    etcd_client.transaction(work)
    assert seen == [(1, 1, False, {"a": 1, "b": 1})]  # and nothing to write, so nothing to compare


def test_a_branch_that_was_taken_for_an_older_state_is_no_error(
    etcd_client: EtcdMiddleware, other: EtcdMiddleware
) -> None:
    """Writing below a leaf is an error, but not when the function did not know of the leaf."""
    once = Once(lambda: other.put("/a", 1))

    def work(t: Transaction) -> str:
        leaf = not isinstance(t.get("/a", {}), dict)
        once()
        if leaf:
            t["/leaf"] = True
            return "leaf"
        t["/a/b"] = 1
        return "tree"

    assert etcd_client.transaction(work) == "leaf"
    assert etcd_client.snapshot() == {"a": 1, "leaf": True}


def test_a_place_in_a_list_that_is_gone_meanwhile_is_no_error(
    etcd_client: EtcdMiddleware, other: EtcdMiddleware
) -> None:
    etcd_client["/l"] = ["a", "b", "c"]
    once = Once(lambda: other.put("/l", ["only"]))

    def work(t: Transaction) -> None:
        items = t["/l"]
        once()
        t[f"/l/{len(items)}"] = "last"

    etcd_client.transaction(work)
    assert etcd_client["/l"] == ["last"]


def test_it_gives_up_after_many_runs(etcd_client: EtcdMiddleware, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stm, "MAX_RUNS", 5)
    runs = itertools.count()

    def work(t: Transaction) -> None:
        t.get("/a")
        etcd_client["/a"] = next(runs)
        t["/b"] = 1

    with pytest.raises(Conflict, match="5 times"):
        etcd_client.transaction(work)
    assert next(runs) == 5


def test_it_runs_again_when_what_it_reads_was_compacted(etcd_client: EtcdMiddleware, endpoint: str) -> None:
    etcd_client.update({"/a": 1, "/b": 1})

    def compact() -> None:
        revision = etcd_client.put("/other", 1)
        ask(endpoint, "/v3/kv/compaction", {"revision": revision, "physical": True})

    once = Once(compact)

    def work(t: Transaction) -> None:
        t["/c"] = t["/a"]
        once()
        t["/c"] += t["/b"]

    etcd_client.transaction(work)
    assert once.runs == 2
    assert etcd_client["/c"] == 2


def test_a_revision_error_of_the_function_itself_is_raised(etcd_client: EtcdMiddleware) -> None:
    runs = itertools.count()

    def work(t: Transaction) -> None:
        next(runs)
        etcd_client.at(10**15)["/a"]

    with pytest.raises(LinkKVError):
        etcd_client.transaction(work)
    assert next(runs) == 1


def test_a_commit_whose_answer_was_lost_is_told(
    endpoint: str, etcd_prefix: str, etcd_client: EtcdMiddleware
) -> None:
    """What compares what it moves is sent again. When that fails, nobody knows which of both came first."""
    etcd_client["/a"] = 1
    with Proxy(endpoint) as proxy, connect(proxy.endpoint, etcd_prefix, timeout=1.0) as client:

        def work(t: Transaction) -> None:
            t["/a"] += 1
            proxy.mute()

        with pytest.raises(OutcomeUnknown):
            client.transaction(work)
        until(lambda: etcd_client["/a"] == 2)
        proxy.release()


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


def test_a_large_tree_can_be_looked_for_written_and_deleted(etcd_client: EtcdMiddleware) -> None:
    def work(t: Transaction) -> None:
        assert "/big" not in t
        t["/big"] = {f"{number:05}": number for number in range(8000)}

    etcd_client.transaction(work)
    assert len(etcd_client) == 8000

    def replace(t: Transaction) -> None:
        assert "/big" in t
        assert t["/big/00007"] == 7
        del t["/big"]
        t["/small"] = 1

    etcd_client.transaction(replace)
    assert etcd_client.snapshot() == {"small": 1}


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


# Many at once


def race(works: list[Callable[[], None]]) -> None:
    """Run them at once, and raise what they raise."""
    errors: list[BaseException] = []

    def guarded(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised below
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    if errors:
        raise errors[0]


def test_money_is_neither_made_nor_lost(etcd_client: EtcdMiddleware, endpoint: str, etcd_prefix: str) -> None:
    etcd_client["/accounts"] = {str(number): 100 for number in range(5)}
    sums: list[int] = []

    def work(seed: int) -> None:
        dice = random.Random(seed)
        with connect(endpoint, etcd_prefix, timeout=30.0) as client:
            for _ in range(20):
                giver, taker = dice.sample(range(5), 2)

                def transfer(t: Transaction, giver: int = giver, taker: int = taker) -> None:
                    amount = t[f"/accounts/{giver}"] // 2
                    t[f"/accounts/{giver}"] -= amount
                    t[f"/accounts/{taker}"] += amount

                client.transaction(transfer)
                sums.append(sum(client["/accounts"].values()))
                sums.append(client.transaction(lambda t: sum(t[f"/accounts/{n}"] for n in range(5))))

    race([lambda seed=seed: work(seed) for seed in range(5)])  # type: ignore[misc]
    assert set(sums) == {500}


def test_two_that_read_each_others_place_do_not_both_write(
    etcd_client: EtcdMiddleware, endpoint: str, etcd_prefix: str
) -> None:
    """Write skew: each may leave as long as another stays, so one must stay."""

    def leave(name: str) -> None:
        with connect(endpoint, etcd_prefix, timeout=30.0) as client:

            def work(t: Transaction) -> None:
                if len(t["/on duty"]) > 1:
                    del t[f"/on duty/{name}"]

            client.transaction(work)

    for _ in range(5):
        etcd_client["/on duty"] = dict.fromkeys("abcd", True)
        race([lambda name=name: leave(name) for name in "abcd"])  # type: ignore[misc]
        assert len(etcd_client["/on duty"]) == 1


def test_a_room_is_not_overfull_by_those_that_see_nobody(
    etcd_client: EtcdMiddleware, endpoint: str, etcd_prefix: str
) -> None:
    """Phantoms: what is counted is what was not there."""
    entered: list[bool] = []

    def enter(name: str) -> None:
        with connect(endpoint, etcd_prefix, timeout=30.0) as client:

            def work(t: Transaction) -> bool:
                if len(t.get("/room", {})) >= 3:
                    return False
                t[f"/room/{name}"] = True
                return True

            entered.append(client.transaction(work))

    race([lambda name=name: enter(name) for name in "abcdefgh"])  # type: ignore[misc]
    assert sorted(entered) == [False] * 5 + [True] * 3
    assert len(etcd_client["/room"]) == 3


def test_lists_that_many_change_stay_whole(
    etcd_client: EtcdMiddleware, endpoint: str, etcd_prefix: str
) -> None:
    etcd_client["/l"] = [["start"]]

    def work(name: str) -> None:
        with connect(endpoint, etcd_prefix, timeout=30.0) as client:
            for number in range(5):

                def add(t: Transaction, number: int = number) -> None:
                    t[f"/l/{len(t['/l']) + 1}"] = [name, number]

                client.transaction(add)
                if number == 2:
                    client.transaction(lambda t: t.__delitem__("/l/1"))

    race([lambda name=name: work(name) for name in "abcd"])  # type: ignore[misc]
    assert len(etcd_client["/l"]) == 1 + 4 * 5 - 4
    assert faults(etcd_client.raw.items(), etcd_client._space.prefix) == []


def test_a_session_cannot_be_tricked_into_a_list_by_a_transaction(etcd_client: EtcdMiddleware) -> None:
    etcd_client.transaction(lambda t: t.__setitem__("/l", ["a"]))
    with pytest.raises(ConfigError, match="gap"):
        etcd_client.put("/l/1", "b", ttl=60)
