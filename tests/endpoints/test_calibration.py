"""Calibration: from raw values to calibrated ones, and never more than that."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from link_kv import ConfigError, Refused
from link_kv._core.endpoints import calibration
from link_kv._core.endpoints.calibration import Calibration


@pytest.fixture(autouse=True)
def functions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "_FUNCTIONS", dict(calibration._FUNCTIONS))
    calibration.register("double", lambda value: 2 * value)


@pytest.mark.parametrize(
    ("expression", "raw", "value"),
    [
        ("2*{}", 0.75, 1.5),
        ("1.*{}", 4, 4.0),
        ("{}*3", 1.79, 5.37),
        ("double({})", 3, 6),
        ("math.sqrt({})", 16, 4.0),
        ("math.pi * {}**2", 2, 4 * math.pi),
        ("{} + {}", 2, 4),
        ("{0} - 1", 2, 1),
        ("{:.1f}", 1.2345, 1.2),
        ("max({}, 0)", -5, 0),
        ("'hot' if {} > 30 else 'cold'", 31, "hot"),
        ("2*{}", "0.75", 1.5),
        ("2*{}", "+1.2e1\n", 24.0),
        ("2*{}", "7", 14),
        ("'{}' == 'on'", "on", True),
        ("'state: {}'", 'it\'s "open"', 'state: it\'s "open"'),
        ("{} == 'a'", "a", True),
        ("{}", True, True),
        ("2*{}", math.inf, math.inf),
    ],
)
def test_an_expression(expression: str, raw: Any, value: Any) -> None:
    found = Calibration(expression)(raw)
    assert found == pytest.approx(value) if isinstance(value, float) else found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "raw",
    [
        "__import__('os').system('true')",
        "9**9**9",
        "1) or double(21",
        "raw1_",
        "'; boom",
        "{}",
        "{0.__class__}",
    ],
)
def test_a_raw_value_is_never_part_of_the_expression(raw: str) -> None:
    assert Calibration("{}")(raw) == raw
    assert Calibration("'{}'")(raw) == raw
    assert Calibration("'{}|{}'")(raw) == f"{raw}|{raw}"
    with pytest.raises(Refused, match="fails"):
        Calibration("{} / 2")(raw)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("2*{", "is no expression|expected '}'|Single"),
        ("2*", "is no expression"),
        ("twice({})", "'twice' is not known here; there are .*double.* and math"),
        ("x = {}", "is no expression"),
        ("{}; 1", "is no expression"),
        ("{name}", "the raw value is {}, and {name} is not"),
        ("{0.real}", "is not"),
        ("{:{}}", "is not"),
        ("import os", "is no expression"),
    ],
)
def test_what_is_no_expression_stops_the_start(expression: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Calibration(expression)


@pytest.mark.parametrize(
    ("expression", "raw"),
    [
        ("1/{}", 0),
        ("math.sqrt({})", -1),
        ("2*{}", None),
        ("{} + 'a'", 1),
        ("{}.__class__", 1),
        ("math.factorial({})", 10**9),
        ("math.log({}, 0)", 5),
        ("{}**{}", 10**7),
        ("'a'*{}", 10**9),
        ("{}[5]", "abc"),
    ],
)
def test_one_that_fails_says_so(expression: str, raw: Any) -> None:
    with pytest.raises(Refused, match=r"calibration .* fails"):
        Calibration(expression)(raw)


RAW = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.binary(max_size=9),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
)


@pytest.mark.parametrize(
    "expression",
    [
        "2*{}",
        "{}**{}",
        "{}*{}",
        "math.sqrt({})",
        "int({}) << 9",
        "'{}'*9",
        "{:.3e}",
        "{!r:>9}",
        "{}[0]",
        "-{}",
    ],
)
@given(raw=RAW)
def test_whatever_the_raw_value_is_it_is_calibrated_or_refused(expression: str, raw: Any) -> None:
    with contextlib.suppress(Refused):
        Calibration(expression)(raw)


def test_a_table() -> None:
    table = Calibration({"CLOSE": "on", 1: "one", 2.5: "more", False: "no!"})
    assert [table(raw) for raw in ("CLOSE", 1, 1.0, "1", 2.5, False, "off")] == [
        *("on", "one", "one", "one", "more", "no!", "no!")
    ]
    with pytest.raises(Refused, match=r"'OPEN' is not in the calibration, which has CLOSE, 1, 2\.5"):
        table("OPEN")
    assert Calibration({"on": 1, True: 2})("on") == 1


def test_functions_are_registered_once() -> None:
    calibration.register("double", calibration._FUNCTIONS["double"])
    with pytest.raises(ConfigError, match="a function of this name already"):
        calibration.register("double", abs)
    with pytest.raises(ConfigError, match="called by a word"):
        calibration.register("no word", abs)
    with pytest.raises(ConfigError, match="is no function"):
        calibration.register("five", 5)  # type: ignore[arg-type]
