"""What an item's description accepts and shows."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from decimal import Decimal
from enum import IntEnum
from fractions import Fraction
from typing import Any

import numpy as np
import pint
import pytest
from hypothesis import given
from hypothesis import strategies as st

from link_kv._core.items.descriptions import PLAIN, TYPES, Description
from link_kv.errors import ConfigError, LinkKVError, Refused

ENUMERATED = Description(type="enumerated", enumerators={0: "Zero", 1: "One", 4: "Four"})
MASK = Description(type="mask", enumerators={"None": "none set", 0: "A", 1: "B", 2: "C"})
BOOLEAN = Description(type="boolean")
NO_YES = Description(type="boolean", enumerators={0: "No", 1: "Yes"})
ANGLE = Description(type="numeric", format="%2d:%2.2d:%04.1f", units={"": "radians", "formatted": "degrees"})
HOURS = Description(type="numeric", format="%2d:%2.2d:%04.1f", units={"": "radians", "formatted": "hours"})


# Descriptions


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"color": "red"}, "s.k: 'color' is no keyword; there are type, description, units, "),
        ({"type": "number"}, "s.k: type='number': type is one of boolean, bulk, "),
        ({"type": 3}, "s.k: type=3: type is text"),
        ({"description": None}, "s.k: description=None: description is text"),
        ({"units": 3}, "s.k: units=3: units is text, or "),
        ({"units": {"formatted": "m"}}, "s.k: units={'formatted': 'm'}: units is text, or "),
        ({"units": {"": 3}}, "s.k: units={'': 3}: units is text, or "),
        ({"format": "%q"}, "s.k: format='%q': .*conversion"),
        ({"type": "string", "format": "%d"}, "s.k: format='%d': format of a string has %s"),
        ({"settable": "false"}, "s.k: settable='false': settable is true or false"),
        ({"persist": 1}, "s.k: persist=1: persist is true or false"),
        ({"gettable": None}, "s.k: gettable=None: "),
        ({"range": 3}, "s.k: range=3: range is the lowest and the highest number"),
        ({"range": [1]}, r"s.k: range=\[1\]: range is the lowest and the highest number"),
        ({"range": [2, 1]}, "range has the lowest first"),
        ({"range": ["a", "b"]}, "range is the lowest and the highest number"),
        ({"range": [math.nan, 1]}, "range is the lowest and the highest number"),
        ({"type": "string", "range": [0, 1]}, "range is for numbers, and the type is string"),
        ({"precision": -1}, "precision=-1: precision is not negative"),
        ({"precision": 1.5}, "precision=1.5: precision is a whole number"),
        ({"precision": True}, "precision=True: precision is a whole number"),
        ({"deadband": "wide"}, "deadband='wide': deadband is a number"),
        ({"deadband": math.nan}, "deadband=nan: deadband is not negative"),
        ({"type": "enumerated"}, "enumerators: enumerated needs them"),
        ({"type": "mask"}, "enumerators: mask needs them"),
        ({"type": "enumerated", "enumerators": "ab"}, "enumerators='ab': enumerators is a dict"),
        ({"type": "enumerated", "enumerators": {"Off": 0}}, "has names that are text"),
        ({"type": "enumerated", "enumerators": {"Off": "On"}}, "has whole numbers as keys"),
        ({"type": "enumerated", "enumerators": {0: "On", 1: "ON"}}, "has no name or number twice"),
        ({"type": "enumerated", "enumerators": {0: "On", "0": "Off"}}, "has no name or number twice"),
        ({"type": "enumerated", "enumerators": {"None": "x"}}, "the key 'None' for a mask only"),
        ({"type": "boolean", "enumerators": {0: "No", 2: "Yes"}}, "a name for 0 and one for 1"),
        ({"type": "mask", "enumerators": {-1: "A"}}, "has bits as keys, counted from 0"),
        ({"type": "mask", "enumerators": {0: "A, B"}}, "has names without commas"),
        ({"type": "numeric", "initial": "warm"}, "initial='warm': .*is not a number"),
        ({"type": "numeric", "range": [0, 10], "initial": 11}, "initial=11: .*outside of its range"),
        ({"initial": {1, 2}}, "initial is what JSON can hold"),
    ],
)
def test_a_description_that_does_not_fit_names_item_and_keyword(
    keywords: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        Description.of("s.k", keywords)


@pytest.mark.parametrize(
    "keywords",
    [
        {},
        {"type": "numeric", "units": "K", "range": [0, 300], "precision": 0, "deadband": 0.5},
        {"type": "numeric", "range": [None, 0]},
        {"type": "boolean", "enumerators": {"0": "Off", "1": "On"}, "initial": True},
        {"type": "mask", "enumerators": {"None": "-", "0": "A", "3": "D"}, "settable": False},
        {"type": "enumerated", "enumerators": {"0": "a", "-1": "b"}, "persist": False},
        {"type": "numeric array", "enumerators": ["x", "y"], "initial": [1, 2.5]},
        {"description": "größer", "gettable": False},
        {"units": {"": "rad", "formatted": "deg"}},
    ],
)
def test_what_is_stored_reads_back(keywords: dict[str, Any]) -> None:
    description = Description.of("s.k", keywords)
    again = Description.load("s.k", description.dump())
    assert again == description
    assert set(again) == set(keywords)
    assert again.dump() == description.dump()


@pytest.mark.parametrize("stored", [b"", b"[]", b"5", b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_description(stored: bytes) -> None:
    with pytest.raises(ConfigError, match=r"s\.k: the stored description is no JSON object"):
        Description.load("s.k", stored)


def test_it_is_a_mapping_of_what_it_says() -> None:
    description = Description(type="numeric", units="K", settable=True)
    assert dict(description) == {"type": "numeric", "units": "K"}
    assert description == {"type": "numeric", "units": "K"}
    assert "settable" not in description
    assert len(PLAIN) == 0
    with pytest.raises(KeyError):
        description["range"]
    with pytest.raises(AttributeError):
        description.units = "m"  # type: ignore[misc]
    assert repr(description) == "Description(type='numeric', units='K')"


def test_enumerators_and_units_take_one_form() -> None:
    assert Description(type="enumerated", enumerators=["a", "b"]).enumerators == {0: "a", 1: "b"}
    assert Description(type="enumerated", enumerators={"0": "a"}).enumerators == {0: "a"}
    assert Description(type="mask", enumerators={None: "nothing", 0: "a"}).enumerators == {
        "None": "nothing",
        0: "a",
    }
    assert Description(units={"": "K", "formatted": "K"}).units == "K"
    assert Description(type="Numeric").type == "numeric"


# Values that are accepted, and those that are not


class Color(IntEnum):
    RED = 1


@pytest.mark.parametrize(
    ("description", "value", "stored"),
    [
        (Description(type="numeric"), 5, 5),
        (Description(type="numeric"), 5.5, 5.5),
        (Description(type="numeric"), True, 1),
        (Description(type="numeric"), " 12 ", 12),
        (Description(type="numeric"), "007", 7),
        (Description(type="numeric"), np.float32(0.5), 0.5),
        (Description(type="numeric"), np.int16(3), 3),
        (Description(type="numeric"), Decimal("1.5"), 1.5),
        (Description(type="numeric"), Fraction(1, 2), 0.5),
        (Description(type="numeric"), Color.RED, 1),
        (Description(type="numeric"), 10**30, 10**30),
        (Description(type="numeric", range=[0, 10]), 10, 10),
        (Description(type="numeric", range=[None, 10]), -1e99, -1e99),
        (Description(type="string"), "007", "007"),
        (BOOLEAN, False, False),
        (BOOLEAN, 1, True),
        (BOOLEAN, 0.0, False),
        (BOOLEAN, np.True_, True),
        (BOOLEAN, "tRUE", True),
        (BOOLEAN, "0", False),
        (NO_YES, "yES", True),
        (ENUMERATED, 4, 4),
        (ENUMERATED, "fOUR", 4),
        (ENUMERATED, "4", 4),
        (ENUMERATED, 1.0, 1),
        (MASK, 6, 6),
        (MASK, " b ,C", 6),
        (MASK, "", 0),
        (MASK, "None", 0),
        (MASK, "NONE SET", 0),
        (MASK, "3", 3),
        (Description(type="numeric array"), (1, 2.5, "3"), [1, 2.5, 3]),
        (Description(type="numeric array"), [[1], [2]], [[1], [2]]),
        (Description(type="numeric array"), "[1, 2]", [1, 2]),
        (Description(type="numeric array", format="%x", units={"": "m", "formatted": "km"}), "10", [10]),
        (Description(type="bulk"), bytearray(b"ab"), b"ab"),
        (PLAIN, None, None),
        (PLAIN, {"a": [1]}, {"a": [1]}),
        (Description(range=[0, 1]), "x", "x"),
        (Description(range=[0, 1]), ["x", 1, {"a": 5}], ["x", 1, {"a": 5}]),
        (Description(range=[0, 1]), np.int64(1), np.int64(1)),
        (Description(range=[0, 1]), np.str_("x"), np.str_("x")),
    ],
)
def test_accepted(description: Description, value: Any, stored: Any) -> None:
    found = description.check(value)
    assert found == stored
    assert type(found) is type(stored)


@pytest.mark.parametrize(
    ("description", "value", "message"),
    [
        (Description(type="numeric"), "warm", "'warm' is not a number"),
        (Description(type="numeric"), None, "None is not a number"),
        (Description(type="numeric"), [1], r"\[1\] is not a number"),
        (Description(type="numeric"), 1j, "1j is not one number"),
        (Description(type="numeric"), b"1", "is not one number"),
        (Description(type="numeric"), np.array([1, 2]), "is not one number"),
        (Description(type="numeric", range=[0, 10]), 999, "999 is outside of its range, 0 to 10"),
        (Description(type="numeric", range=[0, None]), -1, "outside of its range, at least 0"),
        (Description(type="numeric", range=[None, 0]), 1, "outside of its range, at most 0"),
        (Description(type="numeric", range=[0, 10]), math.nan, "nan is outside of its range"),
        (Description(range=[0, 10]), 11, "outside of its range"),
        (Description(range=[0, 10]), np.int64(99), "99 is outside of its range, 0 to 10"),
        (Description(range=[0, 10]), np.float32(99), r"99\.0 is outside of its range"),
        (Description(range=[0, 10]), np.float64("nan"), "outside of its range"),
        (Description(range=[0, 10]), np.array([1.0, 99.0]), r"99\.0 is outside of its range"),
        (Description(range=[0, 10]), [1, [99]], "99 is outside of its range"),
        (Description(type="string"), 7, "7 is not text"),
        (BOOLEAN, 2, r"2 is none of 0 \(False\), 1 \(True\)"),
        (BOOLEAN, "No", "'No' is none of"),
        (BOOLEAN, "Yes", "'Yes' is none of"),
        (NO_YES, "False", "'False' is none of"),
        (ENUMERATED, 234, r"234 is none of 0 \(Zero\), 1 \(One\), 4 \(Four\)"),
        (ENUMERATED, "invalid", "'invalid' is none of"),
        (ENUMERATED, "2", "'2' is none of"),
        (ENUMERATED, 0.5, "0.5 is none of"),
        (ENUMERATED, math.inf, "inf is none of"),
        (ENUMERATED, "Zero, One", "is none of"),
        (MASK, 234, "234 is none of"),
        (MASK, -1, "-1 is none of"),
        (MASK, "A, D", "'A, D' is none of"),
        (MASK, "invalid", "'invalid' is none of"),
        (Description(type="numeric array"), 5, "not a list or a numpy array"),
        (Description(type="numeric array"), [1, "x"], "'x' is not a number"),
        (Description(type="numeric array"), np.array(["a"]), "does not hold numbers"),
        (Description(type="numeric array", range=[0, 1]), [0, 2], "outside of its range"),
        (Description(type="bulk", range=[0, 1]), np.array([0.5, np.nan]), "outside of its range"),
        (Description(type="bulk"), "text", "neither a numpy array nor bytes"),
        (Description(type="bulk"), np.array([None]), "array of Python objects"),
        (Description(type="bulk"), [[1], [1, 2]], "no array can be made of it"),
    ],
)
def test_refused(description: Description, value: Any, message: str) -> None:
    with pytest.raises(Refused, match=message) as caught:
        description.check(value)
    assert isinstance(caught.value, LinkKVError)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("kind", ["bulk", "numeric array"])
def test_an_array_stays_what_it_is(kind: str) -> None:
    array = np.array([[1, 2], [3, 4]], dtype=">i2", order="F")
    assert Description(type=kind, range=[1, 4]).check(array) is array
    assert Description(type=kind).check(np.zeros((0, 3))).shape == (0, 3)


def test_a_list_becomes_an_array_where_one_is_asked_for() -> None:
    found = Description(type="bulk").check([1.5, 2.5])
    assert isinstance(found, np.ndarray)
    assert found.tolist() == [1.5, 2.5]


# As text


@pytest.mark.parametrize(
    ("description", "value", "text"),
    [
        (Description(type="numeric"), 1.5, "1.5"),
        (Description(type="numeric", precision=2), 1, "1.00"),
        (Description(type="numeric", precision=2, format="%.1f V"), 1, "1.0 V"),
        (Description(type="numeric"), None, ""),
        (Description(type="numeric"), "foreign", "foreign"),
        (Description(type="numeric", format="%d"), [1], "[1]"),
        (Description(type="numeric array", format="%.1f"), [1, [2]], "[1.0, [2.0]]"),
        (Description(type="numeric array", precision=0), np.array([1.0, 2.0]), "[1, 2]"),
        (BOOLEAN, True, "True"),
        (BOOLEAN, 0, "False"),
        (BOOLEAN, 7, "7"),
        (NO_YES, False, "No"),
        (ENUMERATED, 4, "Four"),
        (ENUMERATED, 3, "3"),
        (ENUMERATED, math.nan, "NaN"),
        (MASK, 0, "none set"),
        (MASK, 1, "A"),
        (MASK, 3, "A, B"),
        (MASK, 8, "8"),
        (Description(type="mask", enumerators=["A"]), 0, ""),
        (Description(type="string"), "007", "007"),
        (Description(type="string", format="<%5s>"), "ab", "<   ab>"),
        (Description(type="string"), 7, "7"),
        (Description(type="bulk"), b"ab", "b'ab'"),
        (PLAIN, True, "true"),
        (PLAIN, "123", '"123"'),
        (PLAIN, "text", "text"),
        (PLAIN, {"a": [1]}, "{'a': [1]}"),
        (Description(format="%03d"), 7, "007"),
    ],
)
def test_formatted(description: Description, value: Any, text: str) -> None:
    assert description.formatted(value) == text


@pytest.mark.parametrize(
    ("description", "text", "value"),
    [
        (Description(type="string"), "007", "007"),
        (Description(type="string"), " true ", " true "),
        (Description(type="numeric", format="%.1f V"), "1.5 V", 1.5),
        (Description(type="numeric array"), "(1, 2.5)", [1, 2.5]),
        (Description(type="numeric array"), "1 2", [1, 2]),
        (Description(type="numeric array"), "[]", []),
        (PLAIN, "007", "007"),  # no JSON number begins with zeros
        (PLAIN, "7", 7),
        (PLAIN, "true", True),
        (PLAIN, "text", "text"),
    ],
)
def test_parsed(description: Description, text: str, value: Any) -> None:
    found = description.parse(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("description", "text"),
    [
        (Description(type="numeric"), "1 2"),
        (Description(type="numeric", range=[0, 1]), "2"),
        (Description(type="numeric array"), "1, x"),
        (Description(type="bulk"), "[1, 2]"),
        (BOOLEAN, "maybe"),
        (ENUMERATED, ""),
    ],
)
def test_not_parsed(description: Description, text: str) -> None:
    with pytest.raises(Refused):
        description.parse(text)


NAMES = st.dictionaries(
    st.integers(0, 40), st.text("abcdefgh ", min_size=1).map(str.strip).filter(bool), min_size=1
).filter(lambda names: len(set(names.values())) == len(names))


@given(NAMES, st.data())
def test_a_name_reads_back_in_any_case(names: dict[int, str], data: st.DataObject) -> None:
    description = Description(type="enumerated", enumerators=names)
    value = data.draw(st.sampled_from(sorted(names)))
    text = description.formatted(value)
    for spelled in (text, text.upper(), text.title(), f" {text} "):
        assert description.parse(spelled) == value
        assert description.check(spelled) == value


@given(NAMES, st.data())
def test_a_mask_reads_back(names: dict[int, str], data: st.DataObject) -> None:
    description = Description(type="mask", enumerators=names)
    bits = data.draw(st.sets(st.sampled_from(sorted(names))))
    value = sum(1 << bit for bit in bits)
    assert description.check(value) == value
    assert description.parse(description.formatted(value)) == value


@given(st.integers() | st.floats(allow_nan=False))
def test_a_number_reads_back(number: float) -> None:
    description = Description(type="numeric")
    assert description.parse(description.formatted(number)) == number


@given(st.lists(st.integers() | st.floats(allow_nan=False)))
def test_numbers_read_back(numbers: list[float]) -> None:
    description = Description(type="numeric array")
    assert description.parse(description.formatted(numbers)) == numbers


@given(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text())
def test_without_a_type_a_scalar_reads_back(value: Any) -> None:
    if value is None:
        return  # nothing is shown as nothing
    found = PLAIN.parse(PLAIN.formatted(value))
    assert found == value
    assert type(found) is type(value)


@given(
    st.sampled_from(TYPES), st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
)
def test_whatever_something_else_wrote_can_be_shown(kind: str, value: Any) -> None:
    names = ["a", "b"] if kind in ("enumerated", "mask", "boolean") else None
    assert isinstance(Description(type=kind, enumerators=names).formatted(value), str)


# Units


def test_an_angle_is_sexagesimal_in_other_units() -> None:
    assert ANGLE.parse("1:2:3") == 0.018049613347708025
    assert ANGLE.formatted(0.018049613347708025) == " 1:02:03.0"
    assert ANGLE.formatted(7.21984533908321) == "413:40:00.0"
    assert ANGLE.formatted(-math.radians(3)) == "-3:00:00.0"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("-1:2:3", "-1:02:03.0"),
        ("1:-2:3", " 0:58:03.0"),
        ("1:-2:-3", " 0:57:57.0"),
        ("1:2:-3", " 1:01:57.0"),
    ],
)
@pytest.mark.parametrize("description", [ANGLE, HOURS])
def test_each_field_may_have_a_sign(description: Description, text: str, shown: str) -> None:
    assert description.formatted(description.parse(text)) == shown


def test_an_hour_of_angle_is_15_degrees() -> None:
    assert HOURS.parse("1:2:3") == pytest.approx(0.2707442002156204, rel=1e-15)
    assert HOURS.formatted(108.29768008624816) == "413:40:00.0"


def test_a_whole_number_survives_the_conversion() -> None:
    degrees = Description(type="numeric", format="%d", units={"": "radians", "formatted": "degrees"})
    for number in range(-720, 721):
        assert degrees.formatted(degrees.parse(str(number))) == str(number)


def test_temperatures_have_an_offset() -> None:
    description = Description(type="numeric", precision=1, units={"": "kelvin", "formatted": "degC"})
    assert description.formatted(293.15) == "20.0"
    assert description.parse("20") == pytest.approx(293.15)


def test_quantities() -> None:
    quantity = ANGLE.quantity(0.5)
    assert quantity == pint.Quantity(0.5, "radian")
    assert quantity.to("microradian").magnitude == pytest.approx(500_000)
    assert ANGLE.quantity(0.5, formatted=True).magnitude == pytest.approx(math.degrees(0.5))
    assert ANGLE.from_quantity(pint.Quantity(90, "degree")) == pytest.approx(math.pi / 2)
    assert ANGLE.from_quantity(pint.Quantity(0.25, "radian")) == 0.25
    arrays = Description(type="numeric array", units="m")
    assert arrays.quantity([1, 2]).to("cm").magnitude.tolist() == [100, 200]


def test_quantities_are_checked() -> None:
    description = Description(type="numeric", units="m", range=[0, 10])
    with pytest.raises(Refused, match="outside of its range"):
        description.from_quantity(pint.Quantity(1, "km"))
    with pytest.raises(Refused, match="cannot be converted to m"):
        description.from_quantity(pint.Quantity(1, "second"))
    with pytest.raises(Refused, match="5 is not a quantity"):
        description.from_quantity(5)
    with pytest.raises(Refused, match="it has no units"):
        PLAIN.quantity(5)
    with pytest.raises(Refused, match="True is not a number"):
        description.quantity(True)


def test_units_that_pint_does_not_know_are_kept_but_not_converted() -> None:
    description = Description(type="numeric", units="meaningless units")
    assert description.formatted(5) == "5"
    description.check_units()
    with pytest.raises(ConfigError, match="units='meaningless units': pint does not know them"):
        description.quantity(5)


@pytest.mark.parametrize("formatted", ["second", "meaningless units"])
def test_two_units_must_fit(formatted: str) -> None:
    description = Description(type="numeric", units={"": "m", "formatted": formatted})
    with pytest.raises(ConfigError, match=r"cannot be converted|pint does not know"):
        description.check_units()


def test_a_change_within_the_deadband() -> None:
    description = Description(type="numeric", deadband=0.5)
    assert description.within_deadband(1.4, 1)
    assert not description.within_deadband(1.5, 1)
    assert not description.within_deadband(1.4, None)
    assert not description.within_deadband(math.nan, 1)
    assert not PLAIN.within_deadband(1, 1)
    assert not description.within_deadband(10**400, 1.5)


def test_an_integer_beyond_all_floats_has_no_name() -> None:
    description = Description(type="enumerated", enumerators=["Off", "On"])
    with pytest.raises(Refused):
        description.check(10**400)
    assert description.formatted(10**400) == str(10**400)
    with pytest.raises(ConfigError, match="initial"):
        Description.load(
            "a.b", b'{"type": "enumerated", "enumerators": ["Off"], "initial": 1%s}' % (b"0" * 400)
        )


@pytest.mark.parametrize(("missing", "extra"), [("pint", "units"), ("numpy", "numpy")])
def test_without_an_optional_package_the_extra_is_named(missing: str, extra: str) -> None:
    program = f"""
import sys
sys.modules[{missing!r}] = None
from link_kv._core.items.descriptions import Description
from link_kv.errors import ConfigError
plain = Description(type="numeric", units="m")
assert plain.formatted(plain.check(5)) == "5"
try:
    plain.quantity(5) if {missing!r} == "pint" else Description(type="bulk").check([1])
except ConfigError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert f"pip install 'link_kv[{extra}]'" in done.stdout


def test_what_json_holds_is_plain() -> None:
    assert json.loads(MASK.dump()) == {
        "type": "mask",
        "enumerators": {"None": "none set", "0": "A", "1": "B", "2": "C"},
    }
