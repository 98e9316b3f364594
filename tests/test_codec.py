"""Values and their stored form: the table, the traps, and the laws that hold for every value."""

from __future__ import annotations

import bisect
import datetime
import decimal
import enum
import io
import json
import logging
import math
import pickle
import struct
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from link_kv import codec
from link_kv.codec import decode, encode
from link_kv.errors import EncodeError, LinkKVError

SPACE = " \t\n\r"


def same(one: Any, two: Any) -> bool:
    """Equal, of one type, and not to be told apart: NaN is NaN, -0.0 is not 0.0, arrays keep their layout."""
    if type(one) is not type(two):
        return False
    if isinstance(one, np.ndarray):
        if one.dtype.names and one.dtype == two.dtype:  # padding between the fields is not kept
            return all(same(one[name], two[name]) for name in one.dtype.names)
        return (
            one.dtype == two.dtype
            and one.dtype.str == two.dtype.str  # the byte order
            and one.shape == two.shape
            and one.tobytes() == two.tobytes()
        )
    if isinstance(one, float) and one == one:
        return struct.pack("d", one) == struct.pack("d", two)
    return bool(one == two) or (one != one and two != two)


def reference(data: bytes) -> Any:
    """The rule of reading in its plainest form, arrays aside."""
    if data.startswith(b"\xff"):
        return data[1:]
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return data
    if text.strip(SPACE).startswith(("{", "[")):
        return text
    try:
        value = json.loads(text)
    except ValueError:
        return text
    if isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
        return text
    return value


def npy(array: np.ndarray[Any, Any], *, pickled: bool = False) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=pickled)
    return file.getvalue()


def npy_with_header(header: str, body: bytes = b"") -> bytes:
    text = header.encode("latin-1") + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body


# --- the table ---


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        ("hello", b"hello"),
        ("", b""),
        ("größer ≥ 3 mm", "größer ≥ 3 mm".encode()),
        ("123", b'"123"'),
        ("true", b'"true"'),
        ('"', b'"'),
        ('"a"', rb'"\"a\""'),
        (0, b"0"),
        (-7, b"-7"),
        (2**64 + 1, b"18446744073709551617"),
        (1.0, b"1.0"),
        (-0.0, b"-0.0"),
        (0.1, b"0.1"),
        (1e16, b"1e+16"),
        (1e-05, b"1e-05"),
        (float("nan"), b"NaN"),
        (float("inf"), b"Infinity"),
        (float("-inf"), b"-Infinity"),
        (True, b"true"),
        (False, b"false"),
        (None, b"null"),
        (b"", b"\xff"),
        (b"text", b"\xfftext"),
        (b"\x00\xff\x93NUMPY", b"\xff\x00\xff\x93NUMPY"),
        (b"\xff", b"\xff\xff"),
    ],
)
def test_each_kind_has_its_stored_form(value: Any, stored: bytes) -> None:
    assert encode(value) == stored
    assert same(decode(stored), value)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype="<i4").reshape(2, 3),
        np.arange(6, dtype=">f8").reshape(2, 3),
        np.asfortranarray(np.arange(24.0).reshape(2, 3, 4)),
        np.arange(24.0).reshape(4, 6)[::2, ::-3],
        np.array(2.5),
        np.zeros((0, 3)),
        np.array([True, False]),
        np.array([1 + 2j, complex("nan")]),
        np.array(["a", "größe", ""]),
        np.array([b"\xff\x01", b""]),
        np.array(["2024-01-01", "NaT"], dtype="M8[ns]"),
        np.array([(1, 2.5), (3, 4.5)], dtype=[("x", "<i4"), ("y", "<f8")]),
        np.array([(1, [2.5, 3.5])], dtype=[("größe", "<i4"), ("€", ">f8", (2,))]),
        np.zeros(2, np.dtype([("a", "i1"), ("b", "f8")], align=True)),
        np.frombuffer(b"12345678", dtype="V4"),
        np.array([np.float16(0.1), np.float16("inf")]),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_arrays_come_back_as_they_were(array: np.ndarray[Any, Any]) -> None:
    stored = encode(array)
    assert stored.startswith(b"\x93NUMPY")
    back = decode(stored)
    assert same(back, array)
    assert isinstance(back, np.ndarray)
    if array.flags.forc:
        assert back.flags.f_contiguous == array.flags.f_contiguous
        assert back.flags.c_contiguous == array.flags.c_contiguous
    assert back.flags.writeable
    assert back.flags.owndata or back.base.flags.owndata


def test_an_array_is_what_numpy_saves() -> None:
    array = np.linspace(0, 1, 11)
    assert encode(array) == npy(array)
    assert same(np.load(io.BytesIO(encode(array)), allow_pickle=False), array)


@pytest.mark.parametrize(
    ("foreign", "value"),
    [
        (b'{"a": 1}', '{"a": 1}'),
        (b"[1]", "[1]"),
        (b" [1]", " [1]"),
        (b"{}", "{}"),
        (b"5\n", 5),
        (b" 5 ", 5),
        (b"\t-1.5e3\r\n", -1500.0),
        (b"true\n", True),
        (b" null", None),
        (b"NaN\n", float("nan")),
        (b" -Infinity ", float("-inf")),
        (b'"a b"\n', "a b"),
        (b'"\\u00fc\\n\\ud83d\\ude00"', "ü\n😀"),
        (b'"\xc3\xbc"', "ü"),
        (b"-0", 0),
        (b"1E5", 100000.0),
        (b"1e400", float("inf")),
        (b"-1e400", float("-inf")),
        (b"1e-400", 0.0),
        (b"18446744073709551615", 2**64 - 1),
        (b"18446744073709551616", 2**64),
        (b"-9223372036854775809", -(2**63) - 1),
        (b"9223372036854775808.0", 2.0**63),
        (b"\xfe\x01", b"\xfe\x01"),
        (b"1\xff", b"1\xff"),
        (b'"\xff"', b'"\xff"'),
        (b" \xff", b" \xff"),
        (b"t\xff", b"t\xff"),
        (b"\xed\xa0\x80", b"\xed\xa0\x80"),
    ],
)
def test_what_other_tools_wrote(foreign: bytes, value: Any) -> None:
    assert same(decode(foreign), value)


# --- the traps ---

# fmt: off
TEXT_THAT_STAYS_BARE = [
    "{", "[", "{}", "[]", '{"a": 1}', "[1]", " [1]", "True", "None", "nan", "NAN", "inf", "infinity", "-nan",
    "-inf", "-", "--", "--1", "+1", "01", "-01", "1.", ".5", "1e", "1e+", "1_000", "1,5", "1 000", "0x1f",
    "10.0.0.1", "2024-01-01T00:00:00", "1-2", "1e5e5", "1.5.2", "-Infinit", "Infinit", "truely", "nulls", "t",
    "f", "n", "N", "I", "/a/b", "''", "'1'", "\x00", "1\x00", "\ufeff1", "\xa01", "١٢", "a\x7f", "1\x0c",
    "\x0b1", "true\x0b", " ", "\n", " \t\r\n", "  a", "a  ", "- 1", "1 1", "null null", '"', '"a', '"a"b',
    '"\\x"', '"\\ud800"', '"\x01"', '"a" "b"',
]
TEXT_THAT_IS_QUOTED = [
    "0", "-0", "1", "-1", "1.0", "1e5", "1E+05", "1e400", "-0.0", "123456789012345678901234567890",
    "true", "false", "null", "NaN", "Infinity", "-Infinity", '""', '"a"', '"\\u0041"',
    " 1", "1\n", "\ttrue", "null ", ' "a"', "\r\nNaN",
]
# fmt: on


@pytest.mark.parametrize("text", TEXT_THAT_STAYS_BARE)
def test_text_that_stays_bare(text: str) -> None:
    assert encode(text) == text.encode()
    assert decode(encode(text)) == text


@pytest.mark.parametrize("text", TEXT_THAT_IS_QUOTED)
def test_text_that_is_quoted(text: str) -> None:
    assert encode(text) == json.dumps(text, ensure_ascii=False).encode()
    assert decode(encode(text)) == text


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 100_000,
        b"{" * 100_000,
        b" " * 1000 + b"[" * 100_000,
        b'{"a":' * 50_000,
        b"-[" * 1000,
        b'"[[[[',
    ],
    ids=lambda data: repr(data[:4]),
)
def test_deep_json_is_text(data: bytes) -> None:
    assert decode(data) == data.decode()


@pytest.fixture
def digit_limit() -> Iterator[int]:
    """Python's usual limit of digits, put back at the end."""
    if not hasattr(sys, "set_int_max_str_digits"):
        pytest.skip("this Python reads integers of any length")
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(4300)
    yield 4300
    sys.set_int_max_str_digits(before)


@pytest.mark.parametrize("sign", [1, -1])
def test_integers_are_exact_up_to_the_limit(digit_limit: int, sign: int) -> None:
    longest = sign * (10**digit_limit - 1)
    assert same(decode(encode(longest)), longest)
    with pytest.raises(EncodeError, match=r"^/big: .* int: it has more digits"):
        encode(longest + sign, "/big")


@pytest.mark.parametrize("text", ["9" * 5000, "-" + "9" * 5000, " " + "9" * 5000 + "\n"])
def test_a_longer_integer_is_text(digit_limit: int, text: str) -> None:
    assert decode(text.encode()) == text
    stored = encode(text)
    assert decode(stored) == text
    # A process that reads longer integers gets the text too.
    sys.set_int_max_str_digits(0)
    assert decode(stored) == text
    assert decode(text.encode()) == int(text)


def test_bool_is_no_int() -> None:
    assert decode(encode(True)) is True
    assert decode(encode(1)) == 1
    assert type(decode(encode(1))) is int


class Level(enum.IntEnum):
    LOW = 1


class Mode(str, enum.Enum):
    FAST = "fast"
    DIGIT = "1"


class Odd(str):
    def __str__(self) -> str:
        return "other"

    def encode(self, *args: Any) -> bytes:  # type: ignore[override]
        return b"other"

    def __getitem__(self, index: Any) -> str:
        return "x"


class Count(int):
    def __str__(self) -> str:
        return "many"

    __repr__ = __str__

    def __int__(self) -> int:
        return -1

    __index__ = __int__


class Size(float):
    def __repr__(self) -> str:
        return "big"

    def __float__(self) -> float:
        return -1.0


class Blob(bytes):
    pass


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Level.LOW, 1),
        (Mode.FAST, "fast"),
        (Mode.DIGIT, "1"),
        (Odd("1"), "1"),
        (Count(5), 5),
        (Size(2.5), 2.5),
        (Size("nan"), float("nan")),
        (Blob(b"ab"), b"ab"),
        (np.float64(1.5), 1.5),
        (np.float64("inf"), float("inf")),
        (np.arange(4.0).mean(), 1.5),
        (np.float32(0.1), float(np.float32(0.1))),
        (np.float16(0.5), 0.5),
        (np.int8(-3), -3),
        (np.uint64(2**64 - 1), 2**64 - 1),
        (np.arange(3).sum(), 3),
        (np.bool_(True), True),
        (np.str_("12"), "12"),
        (np.bytes_(b"ab"), b"ab"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_subclasses_and_numpy_scalars_become_the_plain_value(value: Any, plain: Any) -> None:
    assert encode(value) == encode(plain)
    assert same(decode(encode(value)), plain)


# --- what cannot be stored ---


class Thing:
    pass


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ({1}, "set"),
        (frozenset(), "frozenset"),
        (object(), "object"),
        (Thing(), f"{__name__}.Thing"),
        (Thing, "type"),
        (1j, "complex"),
        (decimal.Decimal(1), "decimal.Decimal"),
        (datetime.datetime(2024, 1, 1), "datetime.datetime"),
        (bytearray(b"a"), "bytearray"),
        (memoryview(b"a"), "memoryview"),
        (range(3), "range"),
        ({}, "dict"),
        ([], "list"),
        ((), "tuple"),
        ("a\ud800", "str"),
        ("\udfff", "str"),
        ("1\ud800", "str"),
        (np.complex128(1), "numpy.complex128"),
        (np.longdouble(1), "numpy."),
        (np.datetime64("2024-01-01"), "numpy.datetime64"),
        (np.timedelta64(1, "s"), "numpy.timedelta64"),
        (np.zeros(1, [("a", "i4")])[0], "numpy.void"),
        (np.array([{}, None]), "numpy.ndarray: its dtype object"),
        (np.zeros(1, [("a", "i4"), ("b", "O")]), "numpy.ndarray: its dtype"),
        (np.ma.masked_array([1, 2], mask=[True, False]), "MaskedArray"),
        (np.zeros(1, [("a", "i4")]).view(np.recarray), "recarray"),
        (np.zeros(1, {"names": ["a", "b"], "formats": ["i4", "i4"], "offsets": [0, 2]}), "not keep its"),
        (np.zeros(1, [(f"a long field's name {i}", "i4") for i in range(600)]), "store its fields apart"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isascii() else type(value).__name__,
)
def test_what_cannot_be_stored_names_its_path_and_type(value: Any, named: str) -> None:
    with pytest.raises(EncodeError) as caught:
        encode(value, "/a/b")
    assert str(caught.value).startswith("/a/b: cannot store this ")
    assert named in str(caught.value)
    assert isinstance(caught.value, (LinkKVError, TypeError))
    with pytest.raises(EncodeError, match=r"^value: "):
        encode(value)


def test_the_widest_dtype_that_is_stored_is_read() -> None:
    def wide(fields: int) -> np.ndarray[Any, Any]:
        return np.ones((1,) * 20, [(f"{i}", "<f8") for i in range(fields)])

    def refused(fields: int) -> bool:
        try:
            encode(wide(fields))
        except EncodeError:
            return True
        return False

    most = bisect.bisect_left(range(2000), True, key=refused) - 1
    assert 400 < most < 800
    assert same(decode(encode(wide(most))), wide(most))


# --- damaged and hostile bytes ---

GOOD_NPY = npy(np.arange(3.0))
DAMAGED_NPY = [
    *(GOOD_NPY[:length] for length in (1, 6, 7, 8, 9, 10, 60, 127, 128, 151)),
    GOOD_NPY + b"x",
    GOOD_NPY + GOOD_NPY,
    b"\x93numpy" + GOOD_NPY[6:],
    b"\x93NUMPY\x09\x00" + GOOD_NPY[8:],
    b"\x93NUMPY\x03\x00\x02\x00\x00\x00\xff\xff",
    npy_with_header("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000000000,)}"),
    npy_with_header("{'descr': '<f8', 'fortran_order': False, 'shape': (4611686018427387904, 4)}"),
    npy_with_header("{'descr': '<f8', 'fortran_order': False, 'shape': (0, 99999999999999999999)}"),
    npy_with_header("{'descr': '<f8', 'fortran_order': False, 'shape': (-1,)}"),
    npy_with_header("{'descr': (), 'fortran_order': False, 'shape': ()}"),
    npy_with_header("{'descr': ',', 'fortran_order': False, 'shape': ()}"),
    npy_with_header("{'descr': 'O', 'fortran_order': False, 'shape': ()}", bytes(8)),
    npy_with_header("{[]: 1}"),
    npy_with_header("{" * 900),
    npy_with_header("-" * 9000 + "1"),
    npy_with_header("'" * 3),
    npy_with_header("9" * 9000),
    npy_with_header(" " * 20_000 + "{'descr': '<f8', 'fortran_order': False, 'shape': ()}", bytes(8)),
]


@pytest.mark.parametrize("data", DAMAGED_NPY)
def test_a_damaged_array_is_read_as_bytes(data: bytes) -> None:
    assert same(decode(data), data)
    assert same(decode(encode(decode(data))), data)


class Payload:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def test_a_pickled_array_runs_nothing(tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    stored = npy(np.array([Payload(trace)], dtype=object), pickled=True)

    assert same(decode(stored), stored)
    assert not trace.exists()

    np.load(io.BytesIO(stored), allow_pickle=True)
    assert trace.exists(), "the payload was dead, and the test above proved nothing"


def test_stored_values_are_inert(tmp_path: Path) -> None:
    """The interpreter itself watches: reading hostile bytes runs, imports, opens and unpickles nothing."""
    trace = tmp_path / "ran"
    call = f"__import__('pathlib').Path({str(trace)!r}).touch()"
    hostile = [
        call.encode(),
        b"!!python/object/apply:os.system ['true']",
        b'{"py/object": "os.system"}',
        b"cos\nsystem\n(S'true'\ntR.",
        pickle.dumps(Payload(trace)),
        b"\xff" + pickle.dumps(Payload(trace)),
        npy(np.array([Payload(trace)], dtype=object), pickled=True),
        npy_with_header(call),
        npy_with_header(f"{{'descr': {call}, 'fortran_order': False, 'shape': ()}}"),
        npy_with_header(f"{{'descr': {call!r}, 'fortran_order': False, 'shape': ()}}"),
        npy_with_header("{'descr': 'os.system', 'fortran_order': False, 'shape': ()}"),
        npy_with_header(f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({call},)}}"),
        *DAMAGED_NPY,
    ]
    corpus = tmp_path / "corpus"
    corpus.write_bytes(b"".join(struct.pack("<I", len(data)) + data for data in hostile))
    program = textwrap.dedent(
        """
        import struct, sys, warnings
        from link_kv.codec import decode, encode

        warnings.simplefilter("ignore")
        data = open(sys.argv[1], "rb").read()
        hostile, at = [], 0
        while at < len(data):
            (length,) = struct.unpack_from("<I", data, at)
            hostile.append(data[at + 4 : at + 4 + length])
            at += 4 + length
        # numpy, and what it imports late to read a header, are loaded by a harmless value.
        import tokenize
        import numpy
        decode(encode(numpy.arange(3)))
        decode(hostile[-1])

        seen = []
        def hook(event, args):
            if event.split(".")[0] in "exec import open os pickle subprocess socket ctypes".split():
                seen.append((event, args))
        sys.addaudithook(hook)
        values = [decode(item) for item in hostile]
        found = list(seen)
        exec("pass")
        assert len(seen) > len(found), "the hook hears nothing"
        assert all(type(value) in (str, bytes) for value in values), values
        print(len(values), found)
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(corpus)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""
    assert done.stdout == f"{len(hostile)} []\n"
    assert not trace.exists()


def test_without_numpy_arrays_are_bytes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stored = encode(np.arange(3))
    monkeypatch.setitem(sys.modules, "numpy", None)
    monkeypatch.setitem(sys.modules, "numpy.lib", None)
    codec._npy_format.cache_clear()
    try:
        with caplog.at_level(logging.WARNING, logger="link_kv"):
            assert same(decode(stored), stored)
            assert same(decode(stored), stored)
        assert [record.name for record in caplog.records] == ["link_kv.codec"], "said once"
        assert "link_kv[numpy]" in caplog.text
        assert decode(encode(5)) == 5
        with pytest.raises(EncodeError, match="set"):
            encode({1})
    finally:
        codec._npy_format.cache_clear()


def test_importing_the_codec_does_not_import_numpy() -> None:
    program = "import sys; from link_kv.codec import *; decode(b'\\x93'); sys.exit('numpy' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], timeout=60, check=True)


# --- the laws ---

JSON_LIKE = st.text(alphabet='0123456789.+-eE "\\u{}[]:,tfnNIrualsiy \t\n\r\x0b_d8', max_size=12)
NUMBER_LIKE = st.from_regex(r"[ \n]?-?[0-9]{0,25}(\.[0-9]{0,25})?([eE][-+]?[0-9]{0,3})?[ \n]?\Z")
SCALARS_AS_TEXT = st.one_of(
    st.floats().map(json.dumps),
    st.integers().map(str),
    st.text().map(json.dumps),
    st.sampled_from(TEXT_THAT_STAYS_BARE + TEXT_THAT_IS_QUOTED),
)
TEXTS = st.one_of(st.text(), JSON_LIKE, NUMBER_LIKE, SCALARS_AS_TEXT)
LEAVES = st.one_of(
    TEXTS,
    st.integers(),
    st.integers(min_value=-(2**70), max_value=2**70),
    st.integers(min_value=0, max_value=400).map(lambda digits: 10**digits + 1),
    st.floats(),
    st.booleans(),
    st.none(),
    st.binary(),
)
DTYPES = [
    np.dtype(form)
    for form in (
        *("i1", "<u2", ">i4", "<i8", ">f2", "<f4", ">f8", "g", "<c8", ">c16", "S3", "<U2", ">U1", "V5"),
        *("<M8[ns]", ">m8[3D]", "<M8"),
        [("a", "<i2"), ("b", ">f8", (2,)), ("c", "S1")],
        [("größe", "u1"), ("€", [("x", "<f4"), ("y", "V2")])],
    )
]


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray[Any, Any]:
    """Arrays of any bytes, in C order, in Fortran order, or a view with gaps."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(0, 3), max_size=3).map(tuple))
    size = math.prod(shape) * dtype.itemsize
    array = np.frombuffer(draw(st.binary(min_size=size, max_size=size)), dtype).reshape(shape)
    layout = draw(st.sampled_from("CFV"))
    if layout == "V":
        return array[..., ::-2] if array.ndim else array
    return array.copy("F" if layout == "F" else "C")


STORED = st.one_of(
    st.binary(),
    TEXTS.map(str.encode),
    st.tuples(TEXTS.map(str.encode), st.binary(max_size=2)).map(b"".join),
    st.tuples(st.sampled_from([b"\xff", b" ", b"\n", b'"', b"-", b"1", b"t"]), st.binary()).map(b"".join),
)


@given(LEAVES)
def test_a_value_comes_back(value: Any) -> None:
    assert same(decode(encode(value)), value)


@given(st.one_of(st.floats(), st.integers(), st.booleans(), st.none()))
def test_numbers_are_written_as_json_writes_them(value: Any) -> None:
    assert encode(value) == json.dumps(value).encode()


@given(TEXTS)
def test_text_is_bare_unless_it_would_read_as_something_else(text: str) -> None:
    bare = text.encode()
    quoted = json.dumps(text, ensure_ascii=False).encode()
    assert encode(text) == (bare if reference(bare) == text else quoted)


@given(STORED)
def test_any_bytes_are_read_by_the_rule_and_can_be_written_again(data: bytes) -> None:
    value = decode(data)
    assert same(value, reference(data))
    assert same(decode(encode(value)), value)


@given(arrays())
def test_an_array_comes_back(array: np.ndarray[Any, Any]) -> None:
    back = decode(encode(array))
    assert same(back, array)
    assert isinstance(back, np.ndarray)
    if array.flags.forc:
        assert back.flags.f_contiguous == array.flags.f_contiguous
        assert back.flags.c_contiguous == array.flags.c_contiguous


@given(
    st.sampled_from([GOOD_NPY, npy(np.zeros((2, 2), [("a", "<i2"), ("b", "S3")])), *DAMAGED_NPY[-14:-4]]),
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 3), st.binary(max_size=3)), max_size=4),
)
def test_any_damage_to_an_array_is_survived(data: bytes, cuts: list[tuple[int, int, bytes]]) -> None:
    for at, drop, insert in cuts:
        data = data[:at] + insert + data[at + drop :]
    value = decode(data)
    assert same(decode(encode(value)), value)
