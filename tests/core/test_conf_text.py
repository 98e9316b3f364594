"""Configuration values as text, and text as values of declared types."""

from __future__ import annotations

import enum
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from b3j0f.conf import BOOL, Array, PType
from hypothesis import given
from hypothesis import strategies as st

from link_kv._core.configuration import text as conf_text
from link_kv._core.configuration.parameters import plain
from link_kv._core.configuration.text import from_stored, to_stored
from link_kv.codec import encode
from link_kv.errors import EncodeError


def value_of(text: str, ptype: Any = None) -> Any:
    """For the types of b3j0f.conf, as the driver reads."""
    return conf_text.value_of(text, plain(ptype))


def text_of(value: Any, ptype: Any, path: str) -> str:
    return conf_text.text_of(value, plain(ptype), path)


TEXTS = st.text() | st.sampled_from(
    [
        "8080",
        "true",
        "null",
        "007",
        "1.10",
        "1e3",
        " 5 ",
        '"',
        '"a"',
        '"a',
        "[1]",
        "{}",
        "=1",
        "NaN",
        "\n",
        "",
    ]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


@given(TEXTS)
def test_every_text_comes_back(text: str) -> None:
    assert from_stored(to_stored(text, "/p")) == text


@given(TEXTS)
def test_a_text_is_stored_bare_unless_it_is_a_quoted_one(text: str) -> None:
    if text == text.strip() and not text.startswith('"'):
        assert to_stored(text, "/p") == text.encode()


@given(SCALARS)
def test_what_the_mapping_stores_is_the_text_that_a_person_would_type(value: Any) -> None:
    expected = value if isinstance(value, str) else encode(value).decode()
    assert from_stored(encode(value)) == expected


def test_numbers_keep_their_spelling() -> None:
    assert from_stored(b"1.10") == "1.10"
    assert from_stored(b"1e3\n") == "1e3"


@pytest.mark.parametrize("stored", [encode(b"bytes"), encode(np.zeros(3)), b"\x80\x81"])
def test_bytes_are_no_text(stored: bytes) -> None:
    assert from_stored(stored) is None


def test_a_text_that_is_no_unicode_is_refused() -> None:
    with pytest.raises(EncodeError, match="/p/C/x: "):
        to_stored("\ud800", "/p/C/x")


@pytest.mark.parametrize("ptype", [bool, BOOL, PType(bool)])
@pytest.mark.parametrize(
    ("text", "value"),
    [(text, True) for text in ("true", "True", "1", "yes", "on", "TRUE", " yes ")]
    + [(text, False) for text in ("false", "False", "0", "no", "off", "")],
)
def test_bool(ptype: Any, text: str, value: bool) -> None:
    assert value_of(text, ptype) is value


@pytest.mark.parametrize(
    ("text", "ptype", "value"),
    [
        ("8080", None, "8080"),
        ("8080", object, "8080"),
        ("8080", str, "8080"),
        ("8080", (str,), "8080"),
        ("8080", int, 8080),
        ("8080", PType(int), 8080),
        ("1e3", float, 1000.0),
        ("a, b", list, ["a", "b"]),
        ("a,1,true", list, ["a", 1, True]),
        ('["1", 2]', list, ["1", 2]),
        ("[a", list, ["[a"]),
        ("", list, []),
        ("a, b", tuple, ("a", "b")),
        ("1, 2", set, {1, 2}),
        ("1, 2", Array(int), [1, 2]),
        ("[1, 2]", Array(int), [1, 2]),
        ("1, 2", Array(str), ["1", "2"]),
        ("1, 2", Array(), ["1", "2"]),
        ("yes, 0", Array(bool), [True, False]),
        ("", Array(int), []),
        ('{"a": [1]}', dict, {"a": [1]}),
        ("1.10", Decimal, Decimal("1.10")),
        ("/etc", Path, Path("/etc")),
        ("red", Colour, Colour.RED),
    ],
)
def test_types(text: str, ptype: Any, value: Any) -> None:
    found = value_of(text, ptype)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "ptype", "name"),
    [
        ("x", int, "int"),
        ("", int, "int"),
        ("1.5", int, "int"),
        ("maybe", bool, "bool"),
        ("maybe", BOOL, "bool"),
        ("1, x", Array(int), "Array"),
        ("[1]", dict, "dict"),
        ("[" * 100_000, dict, "dict"),
        ("{", dict, "dict"),
        ("blue", Colour, "Colour"),
        ("9" * 5000, int, "int"),
    ],
)
def test_a_text_that_does_not_fit(text: str, ptype: Any, name: str) -> None:
    with pytest.raises(ValueError, match=f"is not of type {name}: ") as caught:
        value_of(text, ptype)
    assert len(str(caught.value)) < 300


@given(
    st.lists(st.text() | st.integers() | st.booleans() | st.none() | st.floats(allow_nan=False))
    | st.lists(st.lists(st.text()))
)
def test_every_list_comes_back(items: list[Any]) -> None:
    found = value_of(text_of(items, list, "/p"), list)
    assert found == items
    assert [type(item) for item in found] == [type(item) for item in items]


@given(st.lists(TEXTS))
def test_every_list_of_texts_comes_back(items: list[str]) -> None:
    assert value_of(text_of(items, Array(str), "/p"), Array(str)) == items


@given(st.lists(st.integers()))
def test_every_list_of_numbers_comes_back(items: list[int]) -> None:
    text = text_of(items, Array(int), "/p")
    assert text == ", ".join(map(str, items))
    assert value_of(text, Array(int)) == items


@given(st.dictionaries(st.text(), SCALARS))
def test_every_dict_comes_back(value: dict[str, Any]) -> None:
    assert value_of(text_of(value, dict, "/p"), dict) == value


@pytest.mark.parametrize(
    ("value", "ptype", "text"),
    [
        ("007", str, "007"),
        (8080, int, "8080"),
        (True, bool, "true"),
        (1.5, float, "1.5"),
        (["a", "b"], list, "a, b"),
        (["a, b"], list, '["a, b"]'),
        (["1"], list, '["1"]'),
        ([Path("/a")], Array(Path), "/a"),
        (("a",), tuple, "a"),
        ({"a": (1,)}, dict, '{"a": [1]}'),
        (Path("/etc"), Path, "/etc"),
        (uuid.UUID(int=1), uuid.UUID, str(uuid.UUID(int=1))),
        (Level.LOW, Level, "1"),
        (np.int64(5), None, "5"),
        (np.int64(5), int, "5"),
    ],
)
def test_values_as_a_person_would_type_them(value: Any, ptype: Any, text: str) -> None:
    assert text_of(value, ptype, "/p") == text


@pytest.mark.parametrize("value", [b"bytes", object(), [object()], np.zeros(2), Path("/etc"), {"a": b""}])
def test_values_that_no_text_stands_for(value: Any) -> None:
    with pytest.raises(EncodeError, match="/p/C/x: "):
        text_of(value, None, "/p/C/x")
