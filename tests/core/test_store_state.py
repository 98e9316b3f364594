"""What a store holds, told revision by revision."""

from __future__ import annotations

import gc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from link_kv._core.items.descriptions import PLAIN
from link_kv._core.items.store_state import UNSET, Cell, Moment, StoreState, Told, read_stamp, write_stamp
from link_kv._core.watching.replica import Event, Replica
from link_kv.codec import decode
from link_kv.errors import LinkKVError
from link_kv.tree import MISSING, build, place

AT = place("/Store")
STAMP = write_stamp(5.0, "me@here:1")


class World:
    """A store's state and the replica that it follows, at one revision after the other."""

    def __init__(self, *keys: tuple[str, bytes]) -> None:
        self.replica = Replica(AT)
        self.warnings: list[str] = []
        self.state: StoreState[Cell] = StoreState("store", AT, Cell, self.warnings.append)
        pairs = [(key.encode(), value, number) for number, (key, value) in enumerate(keys, 2)]
        self.revision = len(pairs) + 1
        self.replica.load(self.revision, pairs)
        self.state.load(self.replica, 100.0)

    def happens(self, *events: tuple[str, bytes | None], seen: float = 200.0) -> list[Told]:
        self.revision += 1
        raw: list[Event] = [(key.encode(), value) for key, value in events]
        return self.state.apply(self.replica.apply(self.revision, raw), self.replica, seen)

    def reads(self, *keys: tuple[str, bytes, int], seen: float = 300.0) -> list[Told]:
        """What was missed is found by reading all."""
        self.revision += 1
        batch = self.replica.load(self.revision, [(key.encode(), value, mod) for key, value, mod in keys])
        return self.state.apply(batch, self.replica, seen)

    def __getitem__(self, key: str) -> Cell:
        cell = self.state.find(key)
        assert cell is not None
        return cell

    def __contains__(self, key: str) -> bool:
        return self.state.find(key) is not None


def listened(cell: Cell) -> Cell:
    cell._listeners = (object(),)
    return cell


def test_what_is_there_at_first() -> None:
    world = World(
        ("/Store/A", b"1"),
        ("/Store/.link/at/A", STAMP),
        ("/Store/b/x", b"2"),
        ("/Store/c/", b"[]"),
        ("/Store/c/1", b"3"),
        ("/Store/d/", b"{}"),
        ("/Store/.link/items/e", b'{"type": "numeric"}'),
        ("/Store/.link/other", b"9"),
    )
    assert [(cell.key, cell.value) for cell in world.state.cells()] == [
        ("a", 1),
        ("b", {"x": 2}),
        ("c", [3]),
        ("d", {}),
        ("e", None),
    ]
    assert world["a"]._now == Moment(1, 100.0, None, 2)  # the stamp is of another revision
    assert world["e"]._now is UNSET
    assert world["e"].description.type == "numeric"
    assert world["a"].description is PLAIN


HUGE = b'{"time": 1%s}' % (b"0" * 400)


def test_a_stamp_counts_at_the_revision_of_the_value() -> None:
    world = World(("/Store/A", b"1"))
    world.happens(("/Store/A", b"2"), ("/Store/.link/at/A", STAMP))
    assert world["a"]._now == Moment(2, 5.0, "me@here:1", 3)
    world.happens(("/Store/A", b"3"), seen=201.5)
    assert world["a"]._now == Moment(3, 201.5, None, 4)
    world.happens(("/Store/.link/at/A", STAMP))
    assert world["a"]._now == Moment(3, 201.5, None, 4)


@pytest.mark.parametrize("stored", [b"", b"5", b"[]", b"{}", b'{"time": "x"}', b"\xff", b"[" * 10_000, HUGE])
def test_what_is_no_stamp(stored: bytes) -> None:
    assert read_stamp(stored) is None


def test_a_stamp_without_a_writer() -> None:
    assert read_stamp(b'{"time": 7, "writer": 5}') == (7.0, None)


def test_who_listens_is_told_once_for_each_revision_with_the_whole_value() -> None:
    world = World(("/Store/c/", b"[]"), ("/Store/c/1", b"1"), ("/Store/a", b"1"))
    cell = listened(world["c"])
    told = world.happens(("/Store/c/1", b"2"), ("/Store/c/2", b"3"), ("/Store/a", b"5"))
    assert told == [Told(cell, Moment([2, 3], 200.0, None, 5), False)]


def test_an_item_that_goes() -> None:
    world = World(("/Store/a", b"1"))
    cell = listened(world["a"])
    assert world.happens(("/Store/a", None)) == [Told(cell, Moment(MISSING, 200.0, None, 3), False)]
    assert cell._now is UNSET
    assert cell.value is None
    assert "a" not in world
    assert world.state.cells() == []
    # It comes back, and is the same.
    world.happens(("/Store/a", b"2"))
    assert world["a"] is cell


def test_an_item_that_somebody_holds_is_the_same_when_it_comes_back() -> None:
    world = World(("/Store/a", b"1"), ("/Store/b", b"1"))
    held = world["a"]
    world.happens(("/Store/a", None), ("/Store/b", None))
    gc.collect()
    assert list(world.state._gone) == ["a"]
    world.happens(("/Store/A", b"2"), ("/Store/b", b"2"))
    assert world["a"] is held
    assert held._segment == "A"
    assert held.value == 2


def test_an_item_renamed_at_once_is_the_same() -> None:
    world = World(("/Store/temp", b"1"))
    held = world["temp"]
    world.happens(("/Store/TEMP", b"2"), ("/Store/temp", None))
    assert world["temp"] is held
    assert held.value == 2


def test_two_spellings_are_an_error_that_names_both() -> None:
    world = World(("/Store/temp", b"1"))
    world.happens(("/Store/TEMP", b"2"))
    with pytest.raises(LinkKVError, match=r"store.temp: is stored as /Store/TEMP and as /Store/temp"):
        world.state.find("temp")
    world.happens(("/Store/temp", None))
    assert world["temp"].value == 2


def test_a_description_comes_changes_and_goes() -> None:
    world = World()
    world.happens(("/Store/.link/items/a", b'{"units": "K"}'))
    assert world["a"].description.units == "K"
    world.happens(("/Store/.link/items/a", b'{"units": "m"}'))
    assert world["a"].description.units == "m"
    world.happens(("/Store/a", b"1"), ("/Store/.link/items/a", None))
    assert world["a"].description is PLAIN
    world.happens(("/Store/.link/items/b", b"{}"))
    assert "b" in world
    world.happens(("/Store/.link/items/b", None))
    assert "b" not in world
    world.happens(("/Store/.link/items/never", None), ("/Store/.link/items/x/y", b"{}"))
    assert len(world.state.cells()) == 1


def test_a_description_that_is_none_is_warned_about() -> None:
    world = World(("/Store/a", b"1"), ("/Store/.link/items/a", b'{"colour": "red"}'))
    (warning,) = world.warnings
    assert "store.a: 'colour' is no keyword" in warning
    assert dict(world["a"].description) == {}


def test_a_value_over_a_tree_of_another_tool_hides_it() -> None:
    world = World(("/Store/a", b"1"), ("/Store/a/x", b"2"))
    assert world["a"].value == 1
    world.happens(("/Store/a/y", b"3"))
    assert world["a"].value == 1
    world.happens(("/Store/a", None))
    assert world["a"].value == {"x": 2, "y": 3}
    world.happens(("/Store/a", b"5"))
    assert world["a"].value == 5


def test_what_was_missed_is_found_once() -> None:
    world = World(("/Store/a", b"1"), ("/Store/b/x", b"1"), ("/Store/c", b"1"), ("/Store/d", b"1"))
    a, b, c = (listened(world[key]) for key in "abc")
    listened(world["d"])
    told = world.reads(
        ("/Store/a", b"2", 8),
        ("/Store/.link/at/a", STAMP, 8),
        ("/Store/b/x", b"1", 3),
        ("/Store/b/y", b"2", 7),
        ("/Store/d", b"1", 5),
    )
    assert sorted(told, key=lambda each: each.cell.key) == [
        Told(a, Moment(2, 5.0, "me@here:1", 8), True),
        Told(b, Moment({"x": 1, "y": 2}, 300.0, None, 7), True),
        Told(c, Moment(MISSING, 300.0, None, 6), True),
    ]


def test_keys_are_decoded_names_in_lower_case() -> None:
    world = World(("/Store/A%2FB", b"1"), ("/Store/%", b"2"), ("/Store/Ä", b"3"), ("/Store/a%zz", b"4"))
    assert {cell.key: cell._segment for cell in world.state.cells()} == {
        "a/b": "A%2FB",
        "": "%",
        "ä": "Ä",
        "a%zz": "a%zz",
    }


def test_items_of_a_list_are_in_their_order() -> None:
    world = World(("/Store/", b"[]"), *((f"/Store/{number}", b"0") for number in (10, 2, 1)))
    assert [cell.key for cell in world.state.cells()] == ["1", "2", "10"]


SEGMENTS = st.sampled_from(["a", "B", "1", ".link", "%2E"])
LEAVES = st.lists(SEGMENTS, min_size=1, max_size=4).map("/".join)
MARKERS = st.sampled_from(["", "a/", "a/1/", "B/"])
VALUES = st.sampled_from([b"1", b"2", b"[]", b"{}", b"x", b"\xff"])


def some_keys(gone: st.SearchStrategy[None], max_size: int) -> st.SearchStrategy[dict[str, bytes | None]]:
    leaves = st.dictionaries(LEAVES, VALUES | gone, max_size=max_size)
    markers = st.dictionaries(MARKERS, st.sampled_from([b"[]", b"{}"]) | gone, max_size=2)
    return st.tuples(leaves, markers).map(lambda both: {**both[0], **both[1]})


@settings(max_examples=300)
@given(
    some_keys(st.nothing(), 6),
    st.lists(st.tuples(st.booleans(), some_keys(st.none(), 5)), max_size=8),
)
def test_each_item_has_the_value_that_its_keys_make(
    first: dict[str, Any], steps: list[tuple[bool, dict[str, bytes | None]]]
) -> None:
    keys = {f"/Store/{key}": (value, 2) for key, value in first.items()}
    replica = Replica(AT)
    state: StoreState[Cell] = StoreState("store", AT, Cell, print)
    revision = 2
    replica.load(revision, [(key.encode(), *found) for key, found in keys.items()])
    state.load(replica, 0.0)
    check(state, keys)
    for read_all, step in steps:
        revision += 1
        events = {
            f"/Store/{key}": value
            for key, value in step.items()
            if value is not None or f"/Store/{key}" in keys
        }
        for key, value in events.items():
            if value is None:
                del keys[key]
            else:
                keys[key] = (value, revision)
        if not events:
            continue
        if read_all:
            batch = replica.load(revision, [(key.encode(), *found) for key, found in keys.items()])
        else:
            batch = replica.apply(revision, [(key.encode(), value) for key, value in events.items()])
        for cell in state.cells():
            cell._listeners = (object(),)
        before = {cell.key: cell.value for cell in state.cells()}
        told = state.apply(batch, replica, 1.0)
        check(state, keys)
        after: dict[str, Any] = {cell.key: cell.value for cell in state.cells()}
        # Whoever is different by now was told.
        changed = {key for key in before if before[key] != after.get(key, MISSING)}
        assert changed <= {each.cell.key for each in told}
        assert len({id(each.cell) for each in told}) == len(told)


def check(state: StoreState[Cell], keys: dict[str, tuple[bytes, int]]) -> None:
    """Compare with the values that the keys make, item by item."""
    wanted = {}
    for segment in ("a", "B", "1", "%2E"):
        at = AT.child(segment)
        leaf = keys.get(f"/Store/{segment}")
        below = sorted(
            (key.encode(), value) for key, (value, _) in keys.items() if key.startswith(f"/Store/{segment}/")
        )
        value = decode(leaf[0]) if leaf is not None else build(below, at)
        if value is not MISSING:
            wanted[{"%2E": "."}.get(segment, segment.lower())] = value
    assert {cell.key: cell.value for cell in state.cells()} == wanted


def test_housekeeping_that_other_tools_shaped_like_an_item_is_none() -> None:
    world = World(("/Store/a", b"1"), ("/Store/.link/.link", b"1"))
    world.happens(("/Store/.link", b"1"), ("/Store/.link/.link", None), ("/Store/", b"[]"))
    assert [cell.key for cell in world.state.cells()] == ["a"]
