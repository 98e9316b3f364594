"""Trees of keys that other tools made, and any keys at all: read and iterated by the definition."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from link_kv.codec import decode
from link_kv.tree import MISSING, LeafReader, build, decode_name, leaves, place
from tests.values import SEGMENTS, kvs, same


def foreign(*keys: str | bytes | tuple[str, str]) -> list[tuple[bytes, bytes]]:
    """Keys below /a, with values of their own unless they are given."""
    pairs = []
    for key in keys:
        key, value = key if isinstance(key, tuple) else (key, "v")
        pairs.append((b"/a" + (key if isinstance(key, bytes) else key.encode()), value.encode()))
    return pairs


@pytest.mark.parametrize(
    ("pairs", "value"),
    [
        (foreign("/b/c", "/b/d/e"), {"b": {"c": "v", "d": {"e": "v"}}}),
        # Both /a/b and /a/b/c: the leaf wins.
        (foreign("/b", "/b/c"), {"b": "v"}),
        (foreign("/b", ("/b/", "[]"), "/b/1"), {"b": "v"}),
        (foreign(("/", "[]"), "/1", "/1/x"), ["v"]),
        # What no path can name is not there.
        (foreign(b"/\xff", "/b"), {"b": "v"}),
        (foreign(b"/b/\xff\xfe", "/c"), {"c": "v"}),
        (foreign("//", "//x", "/b//", "/b//c", "/b/c//", "/c"), {"c": "v"}),
        (foreign("/.", "/..", "/./x", "/b/../c", "/b/.", "/c"), {"c": "v"}),
        (
            foreign("/.link", "/.link/", "/.link/x", "/b/.link/x", "/b/.link", "/c/.link/d/e", "/d"),
            {"d": "v"},
        ),
        (foreign(("/.link/", "{}"), ("/b/.link/", "[]"), ("//", "{}"), ("/b//", "[]")), MISSING),
        (foreign(b"/\xff/1"), MISSING),
        # Markers hold {} or [] and nothing else.
        (foreign(("/", "junk")), MISSING),
        (foreign(("/", "")), MISSING),
        (foreign(("/", "{ }"), "/b"), {"b": "v"}),
        (foreign(("/", "[1]"), "/1"), {"1": "v"}),
        (foreign(("/b/", "dir"), ("/b/c/", "null")), MISSING),
        (foreign(("/", "{}"), "/b"), {"b": "v"}),
        (foreign(("/", "{}"), ("/b/", "{}")), {"b": {}}),
        # A list is exactly 1 to n.
        (foreign(("/", "[]"), "/1", "/2"), ["v", "v"]),
        (foreign(("/", "[]"), "/2"), {"2": "v"}),
        (foreign(("/", "[]"), "/0", "/1"), {"0": "v", "1": "v"}),
        (foreign(("/", "[]"), "/1", "/3"), {"1": "v", "3": "v"}),
        (foreign(("/", "[]"), "/01", "/1"), {"01": "v", "1": "v"}),
        (foreign(("/", "[]"), "/1", "/b"), {"1": "v", "b": "v"}),
        (foreign(("/", "[]"), ("/1/", "[]"), "/1/2", "/2"), [{"2": "v"}, "v"]),
        (foreign(("/", "[]"), "/1", "//2", "/.link/x", "/2/.link/x", b"/2/\xff"), ["v"]),
        (foreign("/1", "/2"), {"1": "v", "2": "v"}),
        # Hidden names are names.
        (
            foreign("/.bashrc", "/b/.config/x", "/..."),
            {".bashrc": "v", "b": {".config": {"x": "v"}}, "...": "v"},
        ),
        # What encodes no name is its own name.
        (foreign("/%41", "/%2f/x", "/%"), {"%41": "v", "%2f": {"x": "v"}, "": "v"}),
        # A key that holds JSON is a leaf.
        (foreign(("/b", '{"c": 1}'), ("/c", "[1]")), {"b": '{"c": 1}', "c": "[1]"}),
        ([], MISSING),
    ],
)
def test_a_foreign_tree_reads_as(pairs: list[tuple[bytes, bytes]], value: Any) -> None:
    assert build(sorted(pairs), place("/a")) == value


def test_the_root_has_no_marker() -> None:
    assert build([(b"/", b"[]"), (b"/1", b"x")], place("/")) == {"1": "x"}
    assert build([(b"/p/", b"{}")], place("/", b"/p")) is MISSING
    assert list(leaves(kvs([(b"/p/", b"{}")]), place("/", b"/p"))) == []


def test_a_tree_of_thousands_of_levels_reads() -> None:
    value = build([(b"/a" + b"/x" * 5000, b"1"), (b"/a" + b"/x" * 4000 + b"/y", b"2")], place("/a"))
    depth = 0
    while isinstance(value, dict):
        if depth == 4000:
            assert value["y"] == 2
        value, depth = value["x"], depth + 1
    assert (value, depth) == (1, 5000)


foreign_keys = st.lists(st.sampled_from(SEGMENTS), min_size=1, max_size=5).map("/".join)
foreign_pairs = st.dictionaries(
    foreign_keys.map(str.encode)
    | st.binary(max_size=3)
    | st.builds(bytes.join, st.just(b"/"), st.lists(st.binary(max_size=2))),
    st.sampled_from([b"{}", b"[]", b"[]", b"", b"5", b"text", b"\xff"]),
    max_size=12,
)


def plain_build(entries: dict[tuple[str, ...], bytes]) -> Any:
    """The value of visible keys, given as segments, a marker with an empty last one. By the definition."""
    if () in entries:
        return decode(entries[()])
    if not entries:
        return MISSING
    below: dict[str, dict[tuple[str, ...], bytes]] = {}
    for (first, *rest), stored in entries.items():
        if first:
            below.setdefault(first, {})[tuple(rest)] = stored
    value = {decode_name(first): plain_build(rest) for first, rest in below.items()}
    if entries.get(("",)) == b"[]" and set(value) == {str(number) for number in range(1, len(value) + 1)}:
        return [value[str(number)] for number in range(1, len(value) + 1)]
    return value


def visible_entries(pairs: dict[bytes, bytes], root: bool) -> dict[tuple[str, ...], bytes]:
    entries = {}
    for key, stored in pairs.items():
        try:
            segments = tuple(key.decode().split("/"))
        except UnicodeDecodeError:
            continue
        marker = segments[-1] == ""
        if any(segment in ("", ".", "..", ".link") for segment in (segments[:-1] if marker else segments)):
            continue
        if marker and (stored not in (b"{}", b"[]") or (root and segments == ("",))):
            continue
        entries[segments] = stored
    return entries


@given(foreign_pairs, st.sampled_from(["/", "/t", "/t/u"]))
@example({b"": b"[]", b"1": b"x", b"1/": b"[]"}, "/t")
def test_any_keys_read_by_the_definition(below: dict[bytes, bytes], path: str) -> None:
    at = place(path, b"/ns")
    pairs = sorted((at.marker + key, stored) for key, stored in below.items())
    assert same(build(pairs, at), plain_build(visible_entries(below, not at.segments)))


@given(foreign_pairs, st.sampled_from(["/", "/t"]))
def test_any_keys_iterate_by_the_definition(below: dict[bytes, bytes], path: str) -> None:
    at = place(path, b"/ns")
    entries = visible_entries(below, not at.segments)
    expected = []
    for segments in entries:
        named = segments[:-1]
        # A marker counts when nothing else is below it, and no leaf beside it.
        if segments[-1] or not any(
            other == named or (other != segments and other[: len(named)] == named) for other in entries
        ):
            expected.append("/".join(segments))
    found = list(leaves(kvs(sorted((at.marker + key, stored) for key, stored in below.items())), at))
    assert [leaf.kv.key for leaf in found] == sorted(at.marker + key.encode() for key in expected)
    assert [leaf.path for leaf in found] == [leaf.kv.key[3:].decode().removesuffix("/") for leaf in found]
    assert len({leaf.path for leaf in found}) == len(found)


def test_a_path_that_is_leaf_and_empty_list_is_one_leaf() -> None:
    pairs = [(b"/a", b"1"), (b"/a-", b"2"), (b"/a/", b"[]"), (b"/a0/", b"{}")]
    found = [(leaf.path, leaf.marker) for leaf in leaves(kvs(pairs), place("/"))]
    assert found == [("/a", False), ("/a-", False), ("/a0", True)]


def test_an_empty_list_is_a_leaf_beside_keys_that_no_path_can_name() -> None:
    pairs = [(b"/a/", b"[]"), (b"/a//", b"[]"), (b"/a//x", b"1"), (b"/a/b/", b"junk"), (b"/a/\xff", b"1")]
    assert [leaf.path for leaf in leaves(kvs(pairs), place("/"))] == ["/a"]
    assert build(pairs, place("/")) == {"a": []}


@given(foreign_pairs, st.lists(st.integers(0, 12), max_size=5), st.sampled_from(["/", "/t"]))
def test_leaves_do_not_depend_on_the_pages_they_come_in(
    below: dict[bytes, bytes], cuts: list[int], path: str
) -> None:
    at = place(path, b"/ns")
    keys = kvs(sorted((at.marker + key, stored) for key, stored in below.items()))
    reader, paged = LeafReader(at), []
    bounds = [0, *sorted(cuts), len(keys)]
    for start, end in itertools.pairwise(bounds):
        paged += list(reader.feed(keys[start:end]))
    paged += list(reader.finish())
    assert paged == list(leaves(keys, at))
