"""Nested values for the tests: strategies that make them, and how two of them are compared."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
from hypothesis import strategies as st

NASTY = (
    *(
        "",
        ".",
        "..",
        ".link",
        "/",
        "//",
        "a/",
        "/a",
        "a/b",
        ".link/",
        "%",
        "%%",
        "%2F",
        "%25",
        "%2E",
        "%2E%2E",
    ),
    *("%2Elink", "%252F", "%41", "%2f", "%2", "%2525", "a%", "...", ".hidden", "link", ".Link", ".link0"),
    *(
        "0",
        "1",
        "2",
        "3",
        "9",
        "10",
        "11",
        "01",
        "-1",
        "١",
        "\n",
        "\0",
        "\r\n",
        " ",
        "a b",
        "\x7f",
        "é",
        "e\u0301",
    ),
    *("\uffff", "🙂", "{}", "[]", "a", "b", "a-", "a!", "a0", "A"),
)
"""Dict keys that something in a path, a marker, a list or an order of bytes could trip over."""

SEGMENTS = (
    "a",
    "b",
    "1",
    "2",
    "3",
    "10",
    "01",
    ".link",
    "",
    ".",
    "..",
    ".x",
    "%41",
    "%2F",
    "%",
    "a-",
    "a0",
    "\0",
)
"""Segments of paths and keys, some of which no path may have."""

names = st.sampled_from(NASTY) | st.text(max_size=6)

_arrays = st.sampled_from(
    [
        np.array(1.5),
        np.zeros(0),
        np.arange(3, dtype=">i2"),
        np.asfortranarray([[1, 2], [3, 4]]),
        np.array(["é", ""]),
        np.array([True, False]),
        np.array([1 + 2j]),
    ]
)

leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=8)
    | st.sampled_from(["{}", "[]", "true", "1", '"', "NaN", " 1", "", 2**64 + 1, -(10**40), b"{}", -0.0])
    | _arrays
)
"""Every type that one key can hold."""

plain_leaves = (
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "x", "1", "{}", "[]", 0.5, b"\0"])
)
"""Leaves that compare with ``==``."""


def trees(inner: st.SearchStrategy[Any] = leaves, size: int = 5) -> st.SearchStrategy[Any]:
    """Nested dicts, lists and tuples, leaves among them."""
    return st.recursive(
        inner,
        lambda below: (
            st.dictionaries(names, below, max_size=size)
            | st.lists(below, max_size=size)
            | st.lists(below, max_size=3).map(tuple)
        ),
        max_leaves=20,
    )


def as_stored(value: Any) -> Any:
    """The value with lists for its tuples, as it reads back."""
    if isinstance(value, dict):
        return {name: as_stored(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_stored(item) for item in value]
    return value


def same(one: Any, two: Any) -> bool:
    """Equal, and of the same types all through; NaN is itself, and arrays keep their type and shape."""
    if type(one) is not type(two):
        return False
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[name], two[name]) for name in one)
    if isinstance(one, list):
        return len(one) == len(two) and all(map(same, one, two))
    if isinstance(one, np.ndarray):
        return one.dtype.str == two.dtype.str and one.shape == two.shape and one.tobytes() == two.tobytes()
    return repr(one) == repr(two)


def leaf_places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Where each leaf of a value stands, as dict keys and indices from 1; what is empty counts as a leaf."""
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from leaf_places(item, (*above, name))
    elif isinstance(value, (list, tuple)) and value:
        for index, item in enumerate(value, 1):
            yield from leaf_places(item, (*above, index))
    else:
        yield above, value


def kvs(pairs: Iterable[tuple[bytes, bytes]]) -> list[Any]:
    """Key-values as etcd's answers have them."""
    return [SimpleNamespace(key=key, value=stored) for key, stored in pairs]
