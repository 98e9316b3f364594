"""Numbers as text by a printf format, and back."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from link_kv._core.items.number_format import compile_format, read_number

SEXAGESIMAL = "%d:%02d:%04.1f"


@pytest.mark.parametrize(
    ("format", "number", "text"),
    [
        ("%d", 5, "5"),
        ("%d", -3, "-3"),
        ("%d", -2.9999999996, "-3"),  # not cut off
        ("%5d|", 42, "   42|"),
        ("%x", 255, "ff"),
        ("%#o", 8, "0o10"),
        ("%.3f", math.pi, "3.142"),
        ("%8.2e", 12345.678, "1.23e+04"),
        ("%s", 1.5, "1.5"),
        ("%.1f K", 293.15, "293.1 K"),
        ("%.0f %%", 50, "50 %"),
        ("T: %.1f", 1, "T: 1.0"),  # a colon alone makes no sixtieths
        ("%d", math.inf, "inf"),
        ("%d:%02d", math.nan, "nan"),
        ("%d:%02d", 1.5, "1:30"),
        (SEXAGESIMAL, 0, "0:00:00.0"),
        (SEXAGESIMAL, 59 + 59 / 60 + 59.96 / 3600, "60:00:00.0"),  # rounded before it is split
        (SEXAGESIMAL, 1 + 59.9999 / 3600, "1:01:00.0"),
        (SEXAGESIMAL, -3, "-3:00:00.0"),
        (SEXAGESIMAL, -0.5, "-0:30:00.0"),
        (SEXAGESIMAL, -0.001 / 3600, "0:00:00.0"),  # nothing that is seen is negative
        ("%2.2d:%02d:%02d", -0.5, "-00:30:00"),
        ("%+d:%02d", 2, "+2:00"),
        ("%+d:%02d", -0.5, "-0:30"),
        ("%4d:%02d h", -0.5, "  -0:30 h"),
    ],
)
def test_written(format: str, number: float, text: str) -> None:
    assert compile_format(format).write(number) == text


@pytest.mark.parametrize(
    ("format", "text", "number"),
    [
        ("%d", " 12 ", 12),
        ("%d", "12.5", 12.5),
        ("%.1f K", "293.1 K", 293.1),
        ("%.1f K", "293.1", 293.1),
        ("%x", "ff", 255),
        ("%#x", "0xff", 255),
        ("%o", "17", 15),
        (SEXAGESIMAL, "1:30:00", 1.5),
        (SEXAGESIMAL, "1:30", 1.5),
        (SEXAGESIMAL, "1.5", 1.5),
        (SEXAGESIMAL, "-1:30:00", -1.5),
        (SEXAGESIMAL, "-0:30:00", -0.5),
        (SEXAGESIMAL, "1:-30:0", 0.5),
    ],
)
def test_read(format: str, text: str, number: float) -> None:
    found = compile_format(format).read(text)
    assert found == pytest.approx(number)
    assert type(found) is type(number)


@pytest.mark.parametrize("text", ["", "x", "1:", "1:2:3:4", "1e", "0x10", "1_000", "١", "--1"])
def test_no_number(text: str) -> None:
    with pytest.raises(ValueError, match=r"number|fields"):
        compile_format(SEXAGESIMAL).read(text)


def test_no_number_in_its_base() -> None:
    with pytest.raises(ValueError, match="'fg' is not a whole number in base 16"):
        compile_format("%x").read("fg")


@pytest.mark.parametrize(
    "format",
    [
        "",
        "K",
        "%",
        "%q",
        "%d %d",
        "%d:%d:%d:%d",
        "%f:%d",
        "%d:%x",
        "%*d",
        "%(a)d",
        "%9999d",
        "%.9999f",
        "%d:%d %d",
    ],
)
def test_no_format(format: str) -> None:
    with pytest.raises(ValueError, match=r"conversion|colons|mistake"):
        compile_format(format)


@given(st.integers() | st.floats(allow_nan=False))
def test_a_number_reads_back(number: float) -> None:
    found = read_number(repr(number))
    assert found == number
    assert type(found) is type(number)


@given(st.floats(-1e9, 1e9), st.integers(0, 9))
def test_what_printf_writes_reads_back_as_near_as_it_was_written(number: float, decimals: int) -> None:
    format = compile_format(f"%.{decimals}f m")
    assert abs(format.read(format.write(number)) - number) <= 0.5000001 * 10**-decimals + abs(number) * 1e-15


@given(st.floats(-1e6, 1e6), st.integers(0, 3), st.sampled_from(["%d:%02d", "%3d:%2.2d", "%+d"]))
def test_sixtieths_read_back_as_near_as_they_were_written(number: float, decimals: int, first: str) -> None:
    last = f"%0{decimals + 3}.{decimals}f" if decimals else "%02d"
    format = compile_format(f"{first}:{last}")
    text = format.write(number)
    smallest = 60.0 ** -(len(format.specs) - 1) * 10**-decimals
    assert abs(format.read(text) - number) <= 0.5000001 * smallest + abs(number) * 1e-14
    # No field but the first ever shows 60, and writing again changes nothing.
    assert all(float(field) < 60 for field in text.split(":")[1:])
    assert format.write(format.read(text)) == text
