"""Values as JSON, YAML and TOML, and back."""

from __future__ import annotations

import json
import math
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from link_kv.cli import _documents
from link_kv.cli._documents import DocumentError, dumps, form_of, read, write
from link_kv.errors import LinkKVError

NAMES = st.one_of(
    st.text(), st.sampled_from(["$bytes", "$npy", "$float", "$$bytes", "$", "<<", "=", "1", "null"])
)
LEAVES = st.one_of(
    st.text(),
    st.integers(),
    st.floats(allow_nan=False),
    st.booleans(),
    st.none(),
    st.binary(),
    st.just(math.inf),
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3)
)
NO_NULLS = st.recursive(
    LEAVES.filter(lambda value: value is not None),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
)


def same(one: Any, other: Any) -> bool:
    """Equal with the same types: 1, 1.0 and True stay apart."""
    if isinstance(one, dict):
        return (
            isinstance(other, dict)
            and one.keys() == other.keys()
            and all(same(one[k], other[k]) for k in one)
        )
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and bool(one == other)


@given(VALUES)
def test_json_is_exact_and_printable(value: Any) -> None:
    text = write(value, "json")
    assert all(line.isprintable() for line in text.split("\n"))
    json.loads(text, parse_constant=pytest.fail)  # as the standard has it, without NaN
    assert same(read(text.encode(), "json", "f"), value)
    assert same(read(dumps(value).encode(), "json", "f"), value)


@given(VALUES)
def test_yaml_is_exact(value: Any) -> None:
    assert same(read(write(value, "yaml").encode(), "yaml", "f"), value)


@given(st.dictionaries(NAMES, NO_NULLS, max_size=3))
def test_toml_is_exact(value: Any) -> None:
    assert same(read(write(value, "toml").encode(), "toml", "f"), value)


@pytest.mark.parametrize("form", ["json", "yaml", "toml"])
def test_arrays_and_floats_without_a_number(form: str) -> None:
    array = np.asfortranarray(np.arange(6, dtype=">i2").reshape(2, 3))
    back = read(write({"a": array, "nan": math.nan, "inf": -math.inf}, form).encode(), form, "f")
    assert np.array_equal(back["a"], array)
    assert (back["a"].dtype, back["a"].flags.f_contiguous) == (array.dtype, True)
    assert math.isnan(back["nan"])
    assert back["inf"] == -math.inf


def test_what_others_write_is_read() -> None:
    assert math.isnan(read(b"[NaN]", "json", "f")[0])  # as Python writes it
    assert read(b"\xef\xbb\xbf{}", "json", "f") == {}
    assert read(b"a: !!binary AP8=\nd: 2024-01-01\n", "yaml", "f") == {"a": b"\0\xff", "d": "2024-01-01"}
    assert read(b"base: &b {a: 1}\nother: {<<: *b, a: 2}", "yaml", "f")["other"] == {"a": 2}
    assert read(b"d = 2024-01-01\nt = 10:00:00", "toml", "f") == {"d": "2024-01-01", "t": "10:00:00"}


@pytest.mark.parametrize(
    ("text", "form", "message"),
    [
        (b"{\n1}", "json", "f, line 2, column 1: Expecting property name enclosed in double quotes"),
        (b'{"a": 1, "a": 2}', "json", "f: an object has the key 'a' twice"),
        (b"\n\xff", "json", "f, line 2: not UTF-8 text"),
        (b"[" * 100_000, "json", "f: is nested too deeply"),
        (b"1" * 5000, "json", "f: Exceeds the limit (4300 digits) for integer string conversion"),
        (b'{"a": {"$bytes": "x"}}', "json", "f: /a: $bytes holds text in base64"),
        (b'{"a": {"$bytes": 1}}', "json", "f: /a: $bytes holds text in base64"),
        (b'{"$float": "1"}', "json", "f: /: $float is one of NaN, Infinity, -Infinity"),
        (
            b'[{"$npy": "AAAA"}]',
            "json",
            "f: /1: $npy holds an .npy array, which numpy reads (link_kv[numpy])",
        ),
        (b"a: [", "yaml", "f, line "),
        (b"a: 1\na: 2", "yaml", "f, line 2: the key 'a' is there twice"),
        (b"!!python/object:os.system {}", "yaml", "f, line 1, column 1: could not determine a constructor"),
        (b"a: \x00", "yaml", "f: "),
        (b"&a [*a]", "yaml", "f: is nested too deeply"),
        (
            b"a: 2001-02-30",
            "yaml",
            "f, line 1, column 4: '2001-02-30' is no timestamp; if it is a text, quote",
        ),
        (b"a: !!timestamp x", "yaml", "f, line 1, column 4: 'x' is no timestamp"),
        (b"a: !!bool [x]", "yaml", "f, line 1, column 4: "),
        (b"a: 0x_", "yaml", "f, line 1, column 4: '0x_' is no int"),
        (b"a: " + b"9" * 5000, "yaml", "f, line 1, column 4: "),
        (b"a = " + b"9" * 5000, "toml", "f: "),
        (b"a =", "toml", "f: "),
        (b"a = 1\na = 2", "toml", "f: "),
    ],
)
def test_a_mistake_is_named(text: bytes, form: str, message: str) -> None:
    with pytest.raises(DocumentError) as caught:
        read(text, form, "f")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("repeat", ["[*a{0}, *a{0}, *a{0}]", "{{b: *a{0}, c: *a{0}}}"])
def test_aliases_of_aliases_do_not_fill_the_memory(repeat: str) -> None:
    lines = [f"a{number}: &a{number} {repeat.format(number - 1)}" for number in range(1, 60)]
    with pytest.raises(DocumentError, match="f: aliases make more than 1000000 values of it"):
        read("\n".join(["a0: &a0 {x: 1}", *lines]).encode(), "yaml", "f")


def test_merges_of_merges_do_not_fill_the_memory() -> None:
    lines = [f"a{number}: &a{number} {{<<: [*a{number - 1}, *a{number - 1}]}}" for number in range(1, 60)]
    assert read("\n".join(["a0: &a0 {x: 1}", *lines]).encode(), "yaml", "f")["a59"] == {"x": 1}
    nested = "{x: 1}"
    for number in range(60):
        nested = f"{{<<: [&a{number} {nested}, *a{number}]}}"
    assert read(nested.encode(), "yaml", "f") == {"x": 1}


def test_what_a_format_cannot_hold() -> None:
    with pytest.raises(DocumentError, match=r"^/a/2/b: TOML has no null"):
        write({"a": [1, {"b": None}]}, "toml")
    with pytest.raises(DocumentError, match="TOML holds a dict"):
        write([1], "toml")
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    for form in ("json", "yaml"):
        with pytest.raises(DocumentError, match="nested too deeply"):
            write(deep, form)


def test_the_format_of_a_file() -> None:
    assert [form_of(name) for name in ("a.YAML", "a.yml", "a.toml", "a.json", "-", "yaml")] == [
        *("yaml", "yaml", "toml", "json", "json", "yaml")
    ]


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("yaml", "tomli_w", "tomllib", "tomli"):
        monkeypatch.setitem(sys.modules, module, None)
    for form in ("yaml", "toml"):
        with pytest.raises(LinkKVError, match=rf"pip install 'link_kv\[{form}\]'"):
            write({}, form)
        with pytest.raises(LinkKVError, match=rf"pip install 'link_kv\[{form}\]'"):
            _documents.read(b"", form, "f")
