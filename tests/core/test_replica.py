"""The replica of a range against the definition of what its leaves are, on any keys and any events."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from link_kv._core.watching.replica import Batch, Change, Event, Replica, value_of
from link_kv.codec import decode
from link_kv.tree import LIST, MISSING, LeafReader, build, place

AT = place("/a", b"/ns")
ROOT = place("/", b"/ns")


class KV(NamedTuple):
    key: bytes
    value: bytes


def leaves_of(state: dict[bytes, bytes], at: Any = AT) -> dict[str, Any]:
    """The leaves by what iteration over a client shows; a value wins over a marker of the same path."""
    found: dict[str, Any] = {}
    reader = LeafReader(at)
    inside = [KV(key, state[key]) for key in sorted(state) if key.startswith(at.marker)]
    for leaf in (*reader.feed(inside), *reader.finish()):
        if leaf.marker:
            found.setdefault(leaf.path, [] if leaf.stored == LIST else {})
        else:
            found[leaf.path] = decode(leaf.stored)
    if at.segments and at.key in state:
        found[at.path] = decode(state[at.key])
    return found


def shown(replica: Replica) -> dict[str | None, Any]:
    return {held.path: value_of(held) for _, held in replica.leaves()}


def put(state: dict[bytes, bytes], events: list[Event]) -> None:
    for key, value in events:
        if value is None:
            state.pop(key, None)
        else:
            state[key] = value


names = st.sampled_from([b"a", b"b", b"1", b"2", b".link", b"", b"..", b"a-b", b"\xff", b"%2F"])
keys = st.one_of(
    st.just(b"/ns/a"),
    st.just(b"/ns/a-b"),
    st.just(b"/ns/a/"),
    st.lists(names, min_size=1, max_size=3).map(lambda parts: b"/ns/a/" + b"/".join(parts)),
    st.lists(names, min_size=1, max_size=2).map(lambda parts: b"/ns/a/" + b"/".join(parts) + b"/"),
)
values = st.sampled_from([b"1", b"2", b"{}", b"[]", b"text", b"\xff\x00"])
revisions = st.lists(st.dictionaries(keys, st.none() | values, min_size=1, max_size=5), max_size=12)


@given(revisions, st.sampled_from([AT, ROOT]))
def test_each_revision_gives_the_difference_of_two_states(history: list[dict[bytes, Any]], at: Any) -> None:
    state: dict[bytes, bytes] = {}
    replica = Replica(at)
    replica.load(1, [])
    for revision, changed in enumerate(history, 2):
        events = [(key, value) for key, value in changed.items() if value is not None or key in state]
        before = leaves_of(state, at)
        put(state, events)
        after = leaves_of(state, at)
        batch = replica.apply(revision, events)
        assert (batch.revision, batch.synthetic) == (revision, False)
        written = {
            str(key[3:], "utf-8", "replace")
            for key, value in events
            if value is not None and key[-1:] != b"/"
        }
        expected = {}
        for path in before.keys() | after.keys():
            old, new = before.get(path, MISSING), after.get(path, MISSING)
            again = path in written and new is not MISSING and not isinstance(new, (dict, list))
            if again or old is MISSING or new is MISSING or type(old) is not type(new) or old != new:
                expected[path] = (new, old)
        assert {change.path: (change.value, change.previous) for change in batch.changes} == expected
        assert len(batch.changes) == len(expected)
        for change in batch.changes:
            assert change.kind == ("delete" if change.value is MISSING else "put")
            assert change.revision == revision
        assert shown(replica) == after
        assert replica.count == len(after)


@given(revisions, revisions)
def test_loading_gives_what_differs(before: list[dict[bytes, Any]], after: list[dict[bytes, Any]]) -> None:
    replica = Replica(AT)
    state: dict[bytes, tuple[bytes, int]] = {}

    def play(history: list[dict[bytes, Any]], revision: int) -> int:
        for changed in history:
            revision += 1
            for key, value in changed.items():
                if value is None:
                    state.pop(key, None)
                else:
                    state[key] = (value, revision)
        return revision

    known = play(before, 1)
    first = replica.load(known, [(key, value, mod) for key, (value, mod) in state.items()])
    assert first.changes == []
    old = leaves_of({key: value for key, (value, _) in state.items()})
    now = play(after, known)
    batch = replica.load(now, [(key, value, mod) for key, (value, mod) in state.items()])
    new = leaves_of({key: value for key, (value, _) in state.items()})
    assert shown(replica) == new
    assert replica.count == len(new)
    assert batch.synthetic
    assert batch.revision == replica.revision == now
    told = {change.path: change for change in batch.changes}
    assert len(told) == len(batch.changes)
    for path in old.keys() | new.keys():
        if path not in told:
            assert old.get(path, MISSING) == new.get(path, MISSING)
    for path, change in told.items():
        assert change.value == new.get(path, MISSING)
        assert change.previous == old.get(path, MISSING)
        assert change.synthetic
        assert known < change.revision <= now
    assert [change.revision for change in batch.changes] == sorted(
        change.revision for change in batch.changes
    )


def loaded(*pairs: tuple[bytes, bytes], at: Any = AT) -> Replica:
    replica = Replica(at)
    replica.load(10, [(key, value, 10) for key, value in pairs])
    return replica


def changes(batch: Batch) -> list[tuple[str, Any, Any]]:
    return [(change.path, change.value, change.previous) for change in batch.changes]


def test_a_put_shows_the_value_before() -> None:
    replica = loaded((b"/ns/a/x", b"1"))
    assert replica.apply(11, [(b"/ns/a/x", b"2")]) == Batch(11, [Change("/a/x", 2, 1, 11, "put", False)], [])


def test_writing_the_same_value_again_is_a_change() -> None:
    assert changes(loaded((b"/ns/a/x", b"1")).apply(11, [(b"/ns/a/x", b"1")])) == [("/a/x", 1, 1)]


def test_a_sibling_is_no_change() -> None:
    replica = loaded()
    assert replica.apply(11, [(b"/ns/a-b", b"1"), (b"/ns/a-b/c", b"1")]) == Batch(11, [], [])
    assert replica.revision == 11


def test_a_marker_counts_only_while_its_dict_is_empty() -> None:
    replica = loaded()
    assert changes(replica.apply(11, [(b"/ns/a/d/", b"{}")])) == [("/a/d", {}, MISSING)]
    assert changes(replica.apply(12, [(b"/ns/a/d/", b"{}")])) == []
    first = replica.apply(13, [(b"/ns/a/d/x", b"1"), (b"/ns/a/d/", None)])
    assert sorted(changes(first), key=str) == [("/a/d", MISSING, {}), ("/a/d/x", 1, MISSING)]


def test_a_list_is_a_leaf_when_its_last_item_goes() -> None:
    replica = loaded((b"/ns/a/l/", b"[]"), (b"/ns/a/l/1", b"1"))
    assert changes(replica.apply(11, [(b"/ns/a/l/", b"[]"), (b"/ns/a/l/2", b"2")])) == [
        ("/a/l/2", 2, MISSING)
    ]
    gone = replica.apply(12, [(b"/ns/a/l/", b"[]"), (b"/ns/a/l/1", None), (b"/ns/a/l/2", None)])
    assert set(map(str, changes(gone))) == {
        "('/a/l', [], MISSING)",
        "('/a/l/1', MISSING, 1)",
        "('/a/l/2', MISSING, 2)",
    }


def test_a_value_that_becomes_an_empty_dict_is_one_change() -> None:
    replica = loaded((b"/ns/a/x", b"5"))
    assert changes(replica.apply(11, [(b"/ns/a/x", None), (b"/ns/a/x/", b"{}")])) == [("/a/x", {}, 5)]
    assert changes(replica.apply(12, [(b"/ns/a/x/", None), (b"/ns/a/x", b"6")])) == [("/a/x", 6, {})]


def test_housekeeping_is_no_change_and_comes_in_the_same_batch() -> None:
    replica = loaded((b"/ns/a/x", b"1"), (b"/ns/a/.link/at/x", b"t1"))
    batch = replica.apply(11, [(b"/ns/a/x", b"2"), (b"/ns/a/.link/at/x", b"t2")])
    assert changes(batch) == [("/a/x", 2, 1)]
    assert batch.hidden == [(b"/ns/a/.link/at/x", b"t2")]
    assert replica.hidden() == [(b"/ns/a/.link/at/x", b"t2")]
    batch = replica.load(20, [(b"/ns/a/x", b"2", 11), (b"/ns/a/.link/at/y", b"t3", 15)])
    assert batch.changes == []
    assert batch.hidden == [(b"/ns/a/.link/at/y", b"t3"), (b"/ns/a/.link/at/x", None)]


def test_an_unknown_key_that_is_deleted_is_told() -> None:
    assert changes(loaded().apply(11, [(b"/ns/a/x", None)])) == [("/a/x", MISSING, MISSING)]


def test_a_wiped_server_gives_revisions_of_its_own() -> None:
    replica = loaded((b"/ns/a/x", b"1"), (b"/ns/a/y", b"1"))
    batch = replica.load(4, [(b"/ns/a/x", b"2", 3)])
    assert [(change.path, change.revision) for change in batch.changes] == [("/a/x", 4), ("/a/y", 4)]
    assert replica.revision == 4


def test_the_nested_value_is_what_a_read_gives() -> None:
    pairs = [(b"/ns/a/b/", b"[]"), (b"/ns/a/b/1", b"1"), (b"/ns/a/c", b"2"), (b"/ns/a/.link/x", b"3")]
    assert loaded(*pairs).tree() == build(pairs, AT) == {"b": [1], "c": 2}
    assert loaded((b"/ns/a", b"7"), *pairs).tree() == 7
    assert loaded().tree() is MISSING


def test_a_copy_goes_its_own_way() -> None:
    replica = loaded((b"/ns/a/x", b"1"))
    twin = replica.copy()
    replica.apply(11, [(b"/ns/a/y", b"1")])
    assert (twin.revision, twin.count, shown(twin)) == (10, 1, {"/a/x": 1})


@pytest.mark.parametrize(
    ("key", "covered"),
    [(b"/ns/a", True), (b"/ns/a/", True), (b"/ns/a/b", True), (b"/ns/a-b", False), (b"/ns/ab", False)],
)
def test_what_it_covers(key: bytes, covered: bool) -> None:
    assert loaded().covers(key) is covered
