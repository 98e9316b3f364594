"""When an alert is due."""

from __future__ import annotations

import math
from typing import Any

import pytest

from link_kv._core.endpoints.due import Due


def due(last: Any, value: Any, after: float = 1, **thresholds: Any) -> bool:
    policy = Due(**thresholds)
    policy.told({"value_raw": last}, 100.0)
    return policy.is_due({"value_raw": value}, 100.0 + after)


def test_the_first_is_always_due() -> None:
    assert Due(max_interval=1000).is_due({"value_raw": 1}, 0.0)


def test_without_thresholds_each_is_due() -> None:
    assert due(1, 1)


def test_time() -> None:
    assert not due(1, 1, 10, max_interval=10)
    assert due(1, 1, 10.1, max_interval=10)
    # A day is more than its remainder: `timedelta.seconds` starts again at midnight.
    assert due(1, 1, 86_400 + 5, max_interval=10)


@pytest.mark.parametrize(
    ("last", "value", "is_due"),
    [
        (100, 109, False),
        (100, 112, True),
        (112, 100, True),
        (-100, -112, True),
        (-1, 1, True),
        (0, 1e-9, True),
        (0, 0, False),
        (1e-9, 0, True),
        (1, math.inf, True),
        (math.inf, math.inf, False),
        (math.nan, math.nan, False),
        (1, math.nan, True),
        (1.7e308, -1.7e308, True),
        ("a", "a", False),
        ("a", "b", True),
        ([1], [1], False),
        (1, "1", True),
    ],
)
def test_a_part_of_the_size(last: Any, value: Any, is_due: bool) -> None:
    assert due(last, value, max_fractional_change=0.1) is is_due


def test_an_absolute_change() -> None:
    assert not due(1, 2, max_absolute_change=1)
    assert due(1, 2.1, max_absolute_change=1)
    # 0 is no threshold, and does not hide the fractional one.
    assert due(1, 2, max_absolute_change=0, max_fractional_change=0.1)
    assert not due(1, 1.01, max_absolute_change=0, max_fractional_change=0.1)


def test_which_field_is_looked_at() -> None:
    policy = Due(max_fractional_change=0.1)
    policy.told({"value_raw": 1, "value_cal": 10}, 0)
    assert not policy.is_due({"value_raw": 2, "value_cal": 10}, 1)
    policy.check_field = "value_raw"
    policy.told({"value_raw": 1, "value_cal": 10}, 0)
    assert policy.is_due({"value_raw": 2, "value_cal": 10}, 1)
