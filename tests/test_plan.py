"""Plans as pure values: what is compared and what is done, row by row of the recipes, and their laws."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from link_kv.errors import ListIndexError, NotATree
from link_kv.plan import (
    MAX_COMPARES,
    Compare,
    Delete,
    Get,
    Guard,
    Put,
    absent,
    create,
    delete,
    delete_in_item,
    delete_item,
    gaps,
    gone,
    guard_reads,
    housekeeping_alone,
    no_list_above,
    notes_left,
    optimistic,
    owner,
    present,
    quiet,
    reads,
    replace,
    resolve,
    set_leaf,
    unmoved,
)
from link_kv.tree import Place, build, encode_name, flatten, place
from tests.values import NASTY, as_stored, plain_leaves, same, trees

P = b"/ns"


def at(path: str) -> Place:
    return place(path, P)


def kv(key: bytes, value: bytes = b"v", mod: int = 7, lease: int = 0) -> Any:
    return SimpleNamespace(key=key, value=value, mod_revision=mod, lease=lease)


class Server:
    """The keys of an etcd, as much of one as plans need to be tried on."""

    def __init__(self, keys: dict[bytes, bytes], revision: int = 10) -> None:
        self.keys = {key: kv(key, value) for key, value in keys.items()}
        self.revision = revision

    def get(self, get: Get | Delete | Compare) -> list[Any]:
        end = get.end or get.key + b"\0"
        return [self.keys[key] for key in sorted(self.keys) if get.key <= key < end]

    def answers(self, gets: list[Get]) -> list[list[Any]]:
        return [self.get(get)[: get.limit or None] for get in gets]

    def holds(self, compare: Compare) -> bool:
        found = self.get(compare)
        target = {"version": lambda kv: 1, "mod": lambda kv: kv.mod_revision}[compare.target]
        values = [target(each) for each in found] or [0]
        return all(
            {"=": v == compare.value, "<": v < compare.value, ">": v > compare.value}[compare.op]
            for v in values
        )

    def resolve(self, *paths: str) -> Guard:
        places = [at(path) for path in paths]
        guard = resolve(places, self.answers(guard_reads(places)), self.revision)
        assert guard is not None
        assert all(map(self.holds, guard.compares)), "the guard fits what was found"
        return guard


# Reading


def test_a_read_is_the_leaf_and_what_is_visible_on_either_side_of_the_housekeeping() -> None:
    assert reads(at("/a")) == (
        Get(b"/ns/a"),
        Get(b"/ns/a/", b"/ns/a/.link/"),
        Get(b"/ns/a/.link0", b"/ns/a0"),
    )
    for get in reads(at("/a"), revision=5, keys_only=True):
        assert (get.revision, get.keys_only) == (5, True)


def test_nothing_of_a_sibling_is_read() -> None:
    for sibling in (b"/ns/a-", b"/ns/a.", b"/ns/a0", b"/ns/ab", b"/ns/a-/x", b"/ns/a0/x", b"/ns/A/x"):
        assert not Server({sibling: b""}).answers(list(reads(at("/a"))))[0]
        assert not any(Server({sibling: b""}).answers(list(reads(at("/a")))))


# The guard


def test_the_usual_guard_compares_each_strict_ancestor_as_leaf_and_as_marker() -> None:
    assert optimistic([at("/a/b/c")]) == Guard(
        (absent(b"/ns/a"), absent(b"/ns/a/"), absent(b"/ns/a/b"), absent(b"/ns/a/b/"))
    )
    assert absent(b"k") == Compare(b"k", "version", "=", 0)


def test_nothing_is_above_a_first_level_path() -> None:
    assert optimistic([at("/a")]) == Guard(())
    assert guard_reads([at("/a")]) == []


def test_an_ancestor_shared_by_several_paths_is_compared_once() -> None:
    guard = optimistic([at("/a/b/c"), at("/a/b/d"), at("/a/e")])
    assert guard is not None
    assert len(guard.compares) == len(set(guard.compares)) == 4


def test_the_else_branch_reads_each_ancestor_and_its_marker() -> None:
    assert guard_reads([at("/a/b/c")]) == [
        *(Get(b"/ns/a"), Get(b"/ns/a/")),
        *(Get(b"/ns/a/b"), Get(b"/ns/a/b/")),
    ]


def test_below_a_number_the_else_branch_looks_for_the_item_and_the_one_before() -> None:
    gets = guard_reads([at("/l/3/x")])
    assert [get.key for get in gets[4:]] == [
        *(b"/ns/l/2", b"/ns/l/2/", b"/ns/l/2/.link0"),
        *(b"/ns/l/3", b"/ns/l/3/", b"/ns/l/3/.link0"),
    ]
    assert all(get.limit == 1 or not get.end for get in gets[4:])


def test_more_ancestors_than_fit_are_not_compared_one_by_one() -> None:
    deep = "/a" * (MAX_COMPARES // 2 + 1)
    assert optimistic([at(deep)]) is not None
    assert optimistic([at(deep + "/a")]) is None
    assert optimistic([at(f"/{number}/x") for number in range(MAX_COMPARES // 2 + 1)]) is None


def test_more_guards_than_fit_become_one_compare_over_their_tree() -> None:
    deep = "/a" + "/b" * 200
    assert Server({}).resolve(deep).compares == (quiet(b"/ns/a", b"/ns/a0", 10),)


def test_over_many_trees_the_one_compare_covers_the_whole_prefix() -> None:
    guard = Server({}).resolve(*(f"/t{number}/x" for number in range(MAX_COMPARES + 1)))
    assert guard.compares == (quiet(b"/ns/", b"/ns0", 10),)


def test_a_fence_still_refuses_a_leaf_above_and_still_ends_an_empty_dict() -> None:
    deep = "/a" + "/b" * 200
    with pytest.raises(NotATree, match=r"^/a/b/b: "):
        Server({b"/ns/a/b/b": b"1"}).resolve(deep)
    assert Server({b"/ns/a/b/": b"{}"}).resolve(deep).operations == (Delete(b"/ns/a/b/"),)


def test_a_leaf_above_is_refused_by_its_path() -> None:
    with pytest.raises(NotATree, match=r"^/a/b: holds a value"):
        Server({b"/ns/a/b": b"1"}).resolve("/a/b/c/d")


def test_an_empty_dict_above_ends_in_the_same_transaction() -> None:
    guard = Server({b"/ns/a/": b"{}"}).resolve("/a/b")
    assert guard.compares == (absent(b"/ns/a"), unmoved(b"/ns/a/", 7))
    assert guard.operations == (Delete(b"/ns/a/"),)


LIST_OF_TWO = {b"/ns/l/": b"[]", b"/ns/l/1": b"x", b"/ns/l/2/k": b"y"}


def test_an_item_that_is_there_may_be_written() -> None:
    guard = Server(LIST_OF_TWO).resolve("/l/1")
    assert guard.compares == (absent(b"/ns/l"), unmoved(b"/ns/l/", 7), present(b"/ns/l/1"))
    assert [above.path for above in guard.lists] == ["/l"]


def test_an_item_that_is_a_tree_is_there_when_a_key_below_it_is() -> None:
    assert present(b"/ns/l/2/.link0", b"/ns/l/20") in Server(LIST_OF_TWO).resolve("/l/2/j").compares
    empty = {b"/ns/l/": b"[]", b"/ns/l/1/": b"[]"}
    assert present(b"/ns/l/1/", b"/ns/l/1/.link/") in Server(empty).resolve("/l/1").compares


def test_the_place_behind_the_last_item_may_be_written() -> None:
    compares = Server(LIST_OF_TWO).resolve("/l/3").compares
    assert compares[2:] == (
        present(b"/ns/l/2/.link0", b"/ns/l/20"),
        absent(b"/ns/l/3"),
        absent(b"/ns/l/3/", b"/ns/l/3/.link/"),
        absent(b"/ns/l/3/.link0", b"/ns/l/30"),
    )


def test_the_first_place_of_an_empty_list_may_be_written() -> None:
    compares = Server({b"/ns/l/": b"[]"}).resolve("/l/1/x").compares
    assert compares[:3] == (absent(b"/ns/l"), unmoved(b"/ns/l/", 7), absent(b"/ns/l/1"))


@pytest.mark.parametrize(
    "path", ["/l/4", "/l/4/x", "/l/10", "/l/99999999999999999999", "/l/0", "/l/01", "/l/x"]
)
def test_a_place_that_a_list_does_not_have_is_refused_by_path(path: str) -> None:
    with pytest.raises(ListIndexError, match=r"^/l"):
        Server(LIST_OF_TWO).resolve(path)


def test_places_behind_each_other_may_be_written_in_their_order_only() -> None:
    assert Server(LIST_OF_TWO).resolve("/l/3", "/l/4/x", "/l/5").lists
    with pytest.raises(ListIndexError, match=r"^/l/4: "):
        Server(LIST_OF_TWO).resolve("/l/4", "/l/3")


def test_items_that_were_not_read_are_asked_for() -> None:
    places = [at(f"/l/{index}") for index in range(1, 9)]
    inline = guard_reads(places, inline=True)
    assert inline == [Get(b"/ns/l"), Get(b"/ns/l/")]
    assert resolve(places, Server(LIST_OF_TWO).answers(inline), 10) is None
    assert resolve(places, Server({}).answers(inline), 10) == optimistic(places)


def test_numbers_below_a_dict_are_names() -> None:
    assert Server({b"/ns/l/1": b"x"}).resolve("/l/7").compares == (absent(b"/ns/l"), absent(b"/ns/l/"))


# Writing


def test_a_leaf_is_put_and_all_below_it_deleted() -> None:
    assert set_leaf(at("/a"), b"5", 3) == (Put(b"/ns/a", b"5", 3), Delete(b"/ns/a/", b"/ns/a0"))


def test_a_replacement_puts_the_new_keys_and_deletes_those_that_are_gone() -> None:
    flat = flatten({"x": 1, "y": {"z": 2}}, at("/a"))
    compares, operations = replace(at("/a"), flat, False, [b"/ns/a/x", b"/ns/a/old", b"/ns/a/y/"], 10)
    assert compares == (quiet(b"/ns/a/", b"/ns/a0", 10), absent(b"/ns/a"))
    assert operations == [
        *(Put(b"/ns/a/x", b"1"), Put(b"/ns/a/y/z", b"2")),
        *(Delete(b"/ns/a/old"), Delete(b"/ns/a/y/")),
    ]


def test_a_replacement_of_a_leaf_deletes_it_whatever_it_has_become() -> None:
    compares, operations = replace(at("/a"), flatten({"x": 1}, at("/a")), True, [], 10)
    assert compares == (quiet(b"/ns/a/", b"/ns/a0", 10),)
    assert operations == [Put(b"/ns/a/x", b"1"), Delete(b"/ns/a")]


def test_quiet_is_a_range_in_which_nothing_was_put_since() -> None:
    assert quiet(b"a", b"b", 10) == Compare(b"a", "mod", "<", 11, b"b")


def test_a_creation_compares_the_leaf_and_both_halves_of_what_is_visible() -> None:
    compares, operations = create(at("/a"), flatten([1], at("/a")), 3)
    assert compares == (
        absent(b"/ns/a"),
        absent(b"/ns/a/", b"/ns/a/.link/"),
        absent(b"/ns/a/.link0", b"/ns/a0"),
    )
    assert operations == [Put(b"/ns/a/", b"[]", 3), Put(b"/ns/a/1", b"1", 3)]


names = st.sampled_from([*NASTY, "x", "y", "z"]) | st.text(max_size=3)
segments = names.map(encode_name)
old_keys = st.lists(
    st.tuples(
        st.lists(segments | st.sampled_from([".link", "", "1", "2"]), min_size=1, max_size=4),
        st.sampled_from([b"{}", b"[]", b"v", b"1"]),
    ),
    max_size=15,
).map(lambda pairs: {b"/ns/t/" + "/".join(where).encode(): stored for where, stored in pairs})
new_values = trees(plain_leaves).filter(lambda value: isinstance(value, (dict, list, tuple)))


def survivors(operations: Any, before: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """The keys after the operations; etcd refuses a put that a delete of the same transaction covers."""
    puts = {op.key: op.value for op in operations if isinstance(op, Put)}
    assert len(puts) == sum(isinstance(op, Put) for op in operations), "each key is put once"
    ranges = [(op.key, op.end or op.key + b"\0") for op in operations if isinstance(op, Delete)]
    for start, end in ranges:
        assert start < end
        assert not any(start <= key < end for key in puts), "no put inside a delete"
    left = {key: v for key, v in before.items() if not any(start <= key < end for start, end in ranges)}
    return {**left, **puts}


@given(new_values, old_keys, st.booleans())
def test_both_replacements_leave_the_new_value_and_the_housekeeping_that_still_has_its_tree(
    value: Any, old: dict[bytes, bytes], leaf: bool
) -> None:
    top = at("/t")
    others = {b"/ns/t-": b"1", b"/ns/t-/x": b"2", b"/ns/t0": b"3", b"/ns/s/t/x": b"4"}
    flat = flatten(value, top)
    before = {**old, **others, **({top.key: b"5"} if leaf else {})}
    expected = dict(flat.pairs) | others
    for key, stored in old.items():
        if owner(key, top) in flat.nodes:
            expected[key] = stored
    _, read_first = replace(top, flat, leaf, sorted(old), 10)
    assert survivors(read_first, before) == expected
    unread = gaps(top, flat)
    assert survivors(unread, before) == expected
    after = sorted(pair for pair in expected.items() if top.marker <= pair[0] < top.end)
    assert same(build(after, top), as_stored(value))


@given(new_values)
def test_gaps_never_overlap_each_other(value: Any) -> None:
    deletes = [op for op in gaps(at("/t"), flatten(value, at("/t"))) if isinstance(op, Delete) and op.end]
    assert all(one.end <= two.key for one, two in itertools.pairwise(deletes))


KEYS = st.sets(st.sampled_from([b"/ns/t/%d" % number for number in range(12)] + [b"/ns/t/1/x", b"/ns/t/1-"]))


@given(KEYS, KEYS)
def test_what_is_gone_is_deleted_at_once_between_what_is_kept(found: set[bytes], kept: set[bytes]) -> None:
    deletes = gone(found, kept)
    assert set(survivors([*deletes, *(Put(key, b"new") for key in kept)], dict.fromkeys(found, b""))) == kept
    assert len(deletes) <= len(kept) + 1
    for each in deletes:
        assert isinstance(each, Delete)
        assert not any(each.key <= key < (each.end or each.key + b"\0") for key in kept), "etcd refuses"


@pytest.mark.parametrize(
    ("path", "item", "left"),
    [
        ("/l/2", True, {b"1": 1, b"2/s": 3, b"9": 10, b"\xff": 0, b"01": 5}),
        ("/l/2", False, {b"1": 1, b"3/s": 3, b"10": 10, b"\xff": 0, b"01": 5}),
        ("/l/3/s", False, {b"1": 1, b"2": 2, b"10": 10, b"\xff": 0, b"01": 5}),
    ],
)
def test_housekeeping_of_what_is_deleted_goes_and_that_behind_it_moves_up(
    path: str, item: bool, left: dict[bytes, int]
) -> None:
    notes = {b"1": 1, b"2": 2, b"3/s": 3, b"10": 10, b"\xff": 0, b"01": 5}

    def below(trees: dict[bytes, int]) -> dict[bytes, int]:
        return {b"/ns/l/%s/.link/x" % tree: number for tree, number in trees.items()}

    assert notes_left(below(notes), at(path), item=item) == below(left)


@pytest.mark.parametrize(
    ("key", "tree"),
    [
        (b"/ns/t/.link/x", b"/ns/t"),
        (b"/ns/t/a/.link/x/y", b"/ns/t/a"),
        (b"/ns/t/.link/a/.link/b", b"/ns/t"),
        (b"/ns/t/x", None),
        (b"/ns/t/.link", None),
        (b"/ns/t/.linked/x", None),
        (b"/ns/t/a.link/x", None),
        (b"/ns/t/%2Elink/x", None),
    ],
)
def test_housekeeping_belongs_to_the_tree_that_it_is_in(key: bytes, tree: bytes | None) -> None:
    assert owner(key, at("/t")) == tree


# Deleting


def test_a_delete_takes_the_leaf_the_tree_and_its_housekeeping_unless_a_list_is_above() -> None:
    assert delete(at("/a/b"), previous=True) == (
        Delete(b"/ns/a/b", b"", True),
        Delete(b"/ns/a/b/", b"/ns/a/b/.link/", True),
        Delete(b"/ns/a/b/.link0", b"/ns/a/b0", True),
        Delete(b"/ns/a/b/.link/", b"/ns/a/b/.link0"),
    )
    assert housekeeping_alone(at("/a/b")).compares == (
        absent(b"/ns/a/b"),
        absent(b"/ns/a/b/", b"/ns/a/b/.link/"),
        absent(b"/ns/a/b/.link0", b"/ns/a/b0"),
        present(b"/ns/a/b/.link/", b"/ns/a/b/.link0"),
    )
    assert no_list_above(at("/a/b/c")) == (absent(b"/ns/a/"), absent(b"/ns/a/b/"))


def test_a_delete_below_an_item_rewrites_the_marker_of_each_list_above() -> None:
    found = [kv(b"/ns/l/1/m/2/a"), kv(b"/ns/l/1/m/2/b")]
    markers = [kv(b"/ns/l/", b"[]", lease=5), kv(b"/ns/l/1/m/", b"[]")]
    plan = delete_in_item(at("/l/1/m/2/a"), at("/l/1/m/2"), markers, found, 10)
    assert plan.compares == (quiet(b"/ns/l/1/m/2/", b"/ns/l/1/m/20", 10), present(b"/ns/l/1/m/2/a"))
    assert plan.operations == [
        *delete(at("/l/1/m/2/a")),
        *(Put(b"/ns/l/", b"[]", 5), Put(b"/ns/l/1/m/", b"[]")),
    ]
    assert plan.guarded


def test_a_delete_that_empties_an_item_leaves_an_empty_dict() -> None:
    found = [kv(b"/ns/l/1/a/x", lease=5), kv(b"/ns/l/1/a/y", lease=5)]
    plan = delete_in_item(at("/l/1/a"), at("/l/1"), [kv(b"/ns/l/", b"[]", lease=5)], found, 10)
    assert Put(b"/ns/l/1/", b"{}", 5) in plan.operations


def test_a_deleted_item_is_filled_by_those_behind_it() -> None:
    found = [
        *(kv(b"/ns/l/", b"[]"), kv(b"/ns/l/.link/items/x"), kv(b"/ns/l/1"), kv(b"/ns/l/10", b"ten")),
        *(
            kv(b"/ns/l/2/.link/at"),
            kv(b"/ns/l/2/x"),
            kv(b"/ns/l/3", b"three", lease=9),
            kv(b"/ns/l/4/", b"{}"),
        ),
        *(kv(b"/ns/l/5"), kv(b"/ns/l/6"), kv(b"/ns/l/7"), kv(b"/ns/l/8"), kv(b"/ns/l/9", b"nine")),
    ]
    plan = delete_item(at("/l"), 2, found[:1], found, 10)
    assert plan.compares == (quiet(b"/ns/l/", b"/ns/l0", 10),)
    assert plan.guarded
    after = survivors(plan.operations, {each.key: each.value for each in found})
    kept = {b"/ns/l/": b"[]", b"/ns/l/.link/items/x": b"v", b"/ns/l/1": b"v"}
    moved = {
        b"/2": b"three",
        b"/3/": b"{}",
        b"/4": b"v",
        b"/5": b"v",
        b"/6": b"v",
        b"/7": b"v",
        b"/8": b"nine",
    }
    assert after == kept | {b"/ns/l" + key: value for key, value in moved.items()} | {b"/ns/l/9": b"ten"}
    assert Put(b"/ns/l/2", b"three", 9) in plan.operations, "a lease goes with its value"


@given(st.lists(trees(plain_leaves, 3), min_size=1, max_size=12), st.integers(0, 11))
def test_a_list_without_an_item_is_what_python_makes_of_it(items: list[Any], index: int) -> None:
    index %= len(items)
    found = [kv(key, stored) for key, stored in sorted(flatten(items, at("/l")).pairs)]
    plan = delete_item(at("/l"), index + 1, found[:1], found, 10)
    after = survivors(plan.operations, {each.key: each.value for each in found})
    expected = as_stored(items)
    del expected[index]
    assert same(build(sorted(after.items()), at("/l")), expected)
    assert after == dict(flatten(expected, at("/l")).pairs)
