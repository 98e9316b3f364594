"""When a value that is looked at again and again is worth telling. Pure: what time it is, it is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from link_kv._core.items.numeric import is_array, is_number


class Due:
    """Whether an alert is due, by what was told last.

    A threshold that is 0 is none; without any, every value is due.

    Args:
        max_interval: seconds after which a value is told though it has not moved.
        max_fractional_change: told when it moved by more than this part of its size, |Δ| over the mean size
            of the two.
        max_absolute_change: told when it moved by more than this.
        check_field: which value is looked at, ``value_raw`` or ``value_cal``; the other one where that is
            missing.
    """

    def __init__(
        self,
        max_interval: float = 0,
        max_fractional_change: float = 0,
        max_absolute_change: float = 0,
        check_field: str = "value_cal",
    ) -> None:
        self.max_interval = max_interval
        self.max_fractional_change = max_fractional_change
        self.max_absolute_change = max_absolute_change
        self.check_field = check_field
        self._last: tuple[Any, float] | None = None

    def told(self, values: Mapping[str, Any], now: float) -> None:
        """Values were told at a time, in seconds."""
        self._last = (self._looked_at(values), now)

    def is_due(self, values: Mapping[str, Any], now: float) -> bool:
        """Whether these values are to be told now."""
        if self._last is None:
            return True
        last, when = self._last
        value = self._looked_at(values)
        if not (self.max_interval or self.max_fractional_change or self.max_absolute_change):
            return True
        if self.max_interval and now - when > self.max_interval:
            return True
        if is_number(value) and is_number(last):
            return self._moved(value, last)
        return not same(value, last)

    def _moved(self, value: float, last: float) -> bool:
        if value != value or last != last:
            return (value != value) != (last != last)  # to or from "not a number"
        if value == last:
            return False
        change = abs(value - last)
        if self.max_absolute_change and change > self.max_absolute_change:
            return True
        if not self.max_fractional_change:
            return False
        if not last:
            return True
        # Infinite sizes would make the quotient no number.
        mean = abs(value) / 2 + abs(last) / 2
        return change == float("inf") or change / mean > self.max_fractional_change

    def _looked_at(self, values: Mapping[str, Any]) -> Any:
        other = "value_raw" if self.check_field == "value_cal" else "value_cal"
        return values.get(self.check_field, values.get(other))


def same(one: Any, other: Any) -> bool:
    if is_array(one) or is_array(other):
        import numpy

        return bool(numpy.array_equal(one, other))
    return bool(one == other)
