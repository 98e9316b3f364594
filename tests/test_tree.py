"""Paths, names and keys; nested values as keys, and keys as nested values."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from link_kv.codec import decode, encode
from link_kv.errors import EncodeError, PathError
from link_kv.tree import (
    build,
    decode_name,
    encode_name,
    flatten,
    is_index,
    leaves,
    place,
    prefix_bytes,
    segments_of,
    split,
)
from tests.values import NASTY, SEGMENTS, as_stored, kvs, leaf_places, names, same, trees

# Paths


@pytest.mark.parametrize(
    ("path", "segments"),
    [
        ("/a/b", ("a", "b")),
        ("a/b", ("a", "b")),
        ("/a/b/", ("a", "b")),
        ("a/", ("a",)),
        ("a", ("a",)),
        ("/", ()),
        ("", ()),
        ("/.linked/.bashrc/...", (".linked", ".bashrc", "...")),
        ("/%2F/%/%41", ("%2F", "%", "%41")),
        ("/a b/\n/\0/é", ("a b", "\n", "\0", "é")),
    ],
)
def test_a_path_is_its_segments_verbatim(path: str, segments: tuple[str, ...]) -> None:
    assert split(path) == segments


@pytest.mark.parametrize(
    "path",
    [
        *(
            "//",
            "//a",
            "/a//",
            "/a//b",
            "a//b",
            "///",
            "/.",
            ".",
            "/..",
            "..",
            "/a/.",
            "/a/..",
            "/a/./b",
            "a/../b",
        ),
        *("/.link", ".link", "/.link/", "/a/.link", "/a/.link/b", "/.link/layout"),
    ],
)
def test_a_path_that_can_name_nothing_is_refused_by_name(path: str) -> None:
    with pytest.raises(PathError) as caught:
        split(path)
    assert repr(path) in str(caught.value)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("path", [None, 5, b"/a", ["a"], ("a",), {"a": 1}, 1.5])
def test_a_path_is_text(path: Any) -> None:
    with pytest.raises(PathError, match="a path is a str"):
        place(path)


def test_a_path_is_utf_8() -> None:
    with pytest.raises(PathError, match="lone surrogates"):
        split("/a\ud800")


def test_a_place_is_the_prefix_and_the_path() -> None:
    at = place("a/b/", b"/ns")
    assert at.path == "/a/b"
    assert at.key == b"/ns/a/b"
    assert at.marker == b"/ns/a/b/"
    assert at.end == b"/ns/a/b0"
    assert at.visible == ((b"/ns/a/b/", b"/ns/a/b/.link/"), (b"/ns/a/b/.link0", b"/ns/a/b0"))
    assert at.housekeeping == (b"/ns/a/b/.link/", b"/ns/a/b/.link0")
    assert at.child("c") == place("/a/b/c", b"/ns")
    assert [above.key for above in place("/a/b/c", b"/ns").ancestors()] == [b"/ns/a", b"/ns/a/b"]


def test_the_root_is_the_bare_prefix() -> None:
    at = place("/", b"/ns")
    assert (at.path, at.key, at.marker, at.end) == ("/", b"/ns", b"/ns/", b"/ns0")
    assert list(at.ancestors()) == []
    assert list(place("/a", b"/ns").ancestors()) == []
    assert place("").key == b""


@pytest.mark.parametrize(
    ("prefix", "stored"),
    [("", b""), ("/", b""), ("/a/b", b"/a/b"), ("a", b"/a"), ("/a/", b"/a"), ("/é", "/é".encode())],
)
def test_a_prefix_is_a_path(prefix: str, stored: bytes) -> None:
    assert prefix_bytes(prefix) == stored


@pytest.mark.parametrize("prefix", ["//", "/a//b", "/.link", "/.."])
def test_a_prefix_that_no_path_could_be_is_refused(prefix: str) -> None:
    with pytest.raises(PathError):
        prefix_bytes(prefix)


# Names


@pytest.mark.parametrize(
    ("name", "segment"),
    [
        ("a", "a"),
        ("", "%"),
        (".", "%2E"),
        ("..", "%2E%2E"),
        (".link", "%2Elink"),
        ("/", "%2F"),
        ("%", "%25"),
        ("a/b%", "a%2Fb%25"),
        ("%2F", "%252F"),
        ("...", "..."),
        (".links", ".links"),
        ("a.link", "a.link"),
        ("\n\0é", "\n\0é"),
    ],
)
def test_only_what_cannot_stand_in_a_path_is_encoded(name: str, segment: str) -> None:
    assert encode_name(name) == segment
    assert decode_name(segment) == name


@given(names)
def test_a_name_comes_back_from_its_segment(name: str) -> None:
    segment = encode_name(name)
    assert decode_name(segment) == name
    assert split(f"/{segment}") == (segment,)
    assert is_index(segment) == is_index(name)


@given(names, names)
def test_two_names_never_share_a_segment(one: str, two: str) -> None:
    assert (encode_name(one) == encode_name(two)) == (one == two)


@pytest.mark.parametrize(
    "segment", ["%41", "%2f", "%2", "%%", "%2E.", "a%", "%2Elinks", "%2Ehidden", "%25%2", "a%2Eb"]
)
def test_a_segment_that_encodes_no_name_is_its_own_name(segment: str) -> None:
    assert decode_name(segment) == segment
    assert encode_name(segment) != segment
    assert segments_of(segment) == (encode_name(segment), segment)


@given(names)
def test_a_segment_is_either_an_encoding_or_its_own_name(segment: str) -> None:
    name = decode_name(segment)
    assert encode_name(name) == segment or name == segment


@given(names)
def test_a_child_is_looked_for_wherever_its_name_reads_from(name: str) -> None:
    segments = segments_of(name)
    assert segments[0] == encode_name(name)
    for segment in segments:
        assert split(f"/{segment}") == (segment,)
        assert decode_name(segment) == name


@pytest.mark.parametrize("name", [1, None, 1.5, b"a", ("a",), True])
def test_a_dict_key_that_is_no_text_is_refused_with_the_path(name: Any) -> None:
    with pytest.raises(EncodeError, match=r"^/top/x: the dict key .* keys of a tree are str") as caught:
        flatten({"x": {name: 1}}, place("/top"))
    assert isinstance(caught.value, TypeError)


def test_a_dict_key_with_half_a_surrogate_pair_is_refused_with_the_path() -> None:
    with pytest.raises(EncodeError, match=r"^/top: the dict key .* surrogates"):
        flatten({"\ud800": 1}, place("/top"))


@pytest.mark.parametrize(
    ("segment", "index"),
    [
        ("1", True),
        ("10", True),
        ("0", False),
        ("01", False),
        ("", False),
        ("-1", False),
        ("1\n", False),
        ("١", False),
    ],
)
def test_an_index_is_digits_without_a_leading_nought(segment: str, index: bool) -> None:
    assert is_index(segment) is index


# A nested value as keys


@pytest.mark.parametrize(
    ("value", "pairs"),
    [
        (5, {b"/p/a": b"5"}),
        ({}, {b"/p/a/": b"{}"}),
        ([], {b"/p/a/": b"[]"}),
        ((), {b"/p/a/": b"[]"}),
        ({"x": 1, "y": {"z": "t"}}, {b"/p/a/x": b"1", b"/p/a/y/z": b"t"}),
        (["x", "y"], {b"/p/a/": b"[]", b"/p/a/1": b"x", b"/p/a/2": b"y"}),
        ({"1": "x", "2": "y"}, {b"/p/a/1": b"x", b"/p/a/2": b"y"}),
        ([{"k": 1}, [], {}], {b"/p/a/": b"[]", b"/p/a/1/k": b"1", b"/p/a/2/": b"[]", b"/p/a/3/": b"{}"}),
        ({"": 1, "/": 2, ".link": 3}, {b"/p/a/%": b"1", b"/p/a/%2F": b"2", b"/p/a/%2Elink": b"3"}),
    ],
)
def test_a_value_has_these_keys(value: Any, pairs: dict[bytes, bytes]) -> None:
    assert dict(flatten(value, place("/a", b"/p")).pairs) == pairs


def test_the_dicts_and_lists_of_a_value_are_its_nodes() -> None:
    flat = flatten({"x": [{"k": 1}, 2], "y": {}, "z": 3}, place("/a", b"/p"))
    assert sorted(flat.nodes) == [b"/p/a", b"/p/a/x", b"/p/a/x/1", b"/p/a/y"]


def test_a_value_that_contains_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append({"again": loop})
    with pytest.raises(EncodeError, match=r"^/a: .*contains itself"):
        flatten(loop, place("/a"))


@pytest.mark.parametrize(
    ("value", "where", "kind"),
    [
        (object(), "/a", "object"),
        ({"x": {"y": {1, 2}}}, "/a/x/y", "set"),
        (["fine", 1j], "/a/2", "complex"),
        ({"s/t": [[object]]}, "/a/s%2Ft/1/1", "type"),
    ],
)
def test_a_leaf_that_cannot_be_stored_is_refused_with_its_path_and_type(
    value: Any, where: str, kind: str
) -> None:
    with pytest.raises(EncodeError) as caught:
        flatten(value, place("/a"))
    assert str(caught.value).startswith(f"{where}: ")
    assert kind in str(caught.value)


# There and back


@given(trees(), st.sampled_from(["/t", "/%2F/%", "/1"]), st.sampled_from([b"", b"/ns"]))
def test_a_nested_value_comes_back(value: Any, path: str, prefix: bytes) -> None:
    at = place(path, prefix)
    pairs = flatten(value, at).pairs
    keys = [key for key, _ in pairs]
    assert len(set(keys)) == len(keys)
    assert all(key == at.key or at.marker <= key < at.end for key in keys)
    assert same(read(at, pairs), as_stored(value))


@given(st.dictionaries(names, trees(), min_size=1, max_size=5), st.sampled_from([b"", b"/ns"]))
def test_the_root_comes_back(value: dict[str, Any], prefix: bytes) -> None:
    at = place("/", prefix)
    pairs = [
        pair for name, item in value.items() for pair in flatten(item, at.child(encode_name(name))).pairs
    ]
    assert same(read(at, pairs), as_stored(value))


@given(trees())
def test_the_keys_come_back_from_the_value(value: Any) -> None:
    at = place("/t")
    pairs = flatten(value, at).pairs
    assert sorted(flatten(read(at, pairs), at).pairs) == sorted(pairs)


@given(trees())
def test_the_leaves_of_a_value_are_met_in_the_order_of_their_keys(value: Any) -> None:
    at = place("/t")
    pairs = sorted(flatten(value, at).pairs)
    below = [leaf for leaf in leaves(kvs(pairs), at) if leaf.path != at.path or leaf.marker]
    expected = {}
    for where, leaf in leaf_places(value):
        if where or isinstance(value, (dict, list, tuple)):
            expected["/".join(["/t", *(str(s) if type(s) is int else encode_name(s) for s in where)])] = leaf
    assert {leaf.path for leaf in below} == expected.keys()
    assert len(below) == len(expected)
    assert [leaf.kv.key for leaf in below] == sorted(leaf.kv.key for leaf in below)
    for leaf in below:
        assert leaf.marker == isinstance(expected[leaf.path], (dict, list, tuple))


def test_a_list_of_more_than_nine_items_keeps_its_order() -> None:
    at = place("/a")
    value = [f"item {number}" for number in range(1, 124)]
    assert read(at, flatten(value, at).pairs) == value


@given(st.lists(st.sampled_from([*SEGMENTS, "/"]) | st.text(max_size=3), max_size=6).map("/".join))
def test_a_path_is_refused_exactly_when_a_segment_can_name_nothing(path: str) -> None:
    segments = tuple(path.removeprefix("/").removesuffix("/").split("/"))
    if path.strip("/") and not {"", ".", "..", ".link"}.isdisjoint(segments):
        with pytest.raises(PathError):
            place(path)
    elif path in ("", "/"):
        assert place(path, b"/ns").key == b"/ns"
    elif path.strip("/"):
        at = place(path, b"/ns")
        assert at.segments == segments
        assert at.key == b"/ns" + at.path.encode()
        assert place(at.path, b"/ns") == at


@pytest.mark.parametrize("name", NASTY)
def test_a_nasty_name_is_stored_below_its_parent(name: str) -> None:
    [(key, stored)] = flatten({name: "v"}, place("/a")).pairs
    assert key == b"/a/" + encode_name(name).encode()
    assert stored == encode("v")
    assert build([(key, stored)], place("/a")) == {name: "v"}
    assert build([(key, stored)], place("/")) == {"a": {name: "v"}}


def read(at: Any, pairs: list[tuple[bytes, bytes]]) -> Any:
    """What a read finds: the leaf, else the tree of the keys below in their order."""
    for key, stored in pairs:
        if key == at.key and at.segments:
            return decode(stored)
    return build(sorted(pairs), at)
