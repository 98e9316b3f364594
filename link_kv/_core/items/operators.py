"""An item among Python's operators: it stands for its value.

``item + 1`` is ``item.value + 1``, whatever the type of the value makes of that. ``item += 1`` changes the
item, atomically: see `Operators._change`.
"""

from __future__ import annotations

import operator
from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

T = TypeVar("T", bound="Operators")

FALSE_WORDS = frozenset(("", "false", "f", "no", "n", "off", "disable"))
"""Texts that count as false, in upper or lower case."""


class Operators:
    """What has a value, and stands for it in expressions. Compares by its value, and hashes by identity."""

    __slots__ = ()

    __array_ufunc__ = None  # so that an array leaves `array * item` to the item

    value: Any

    @abstractmethod
    def _change(self, change: Callable[[Any], Any]) -> None:
        """Replace the value by what ``change`` makes of it, unless it is another by then: then again."""

    # What it is

    def __bool__(self) -> bool:
        value = self.value
        if isinstance(value, str):
            return value.lower() not in FALSE_WORDS
        return bool(value)

    def __float__(self) -> float:
        return float(self.value)

    def __int__(self) -> int:
        return int(self.value)

    def __index__(self) -> int:
        return operator.index(self.value)

    def __getitem__(self, key: Any) -> Any:
        return self.value[key]

    def __len__(self) -> int:
        return len(self.value)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.value)

    def __contains__(self, element: object) -> bool:
        return element in self.value

    __hash__ = object.__hash__

    # Comparing

    def __eq__(self, other: object) -> Any:
        return self.value == value_of(other)

    def __ne__(self, other: object) -> Any:
        return self.value != value_of(other)

    def __lt__(self, other: Any) -> Any:
        return self.value < value_of(other)

    def __le__(self, other: Any) -> Any:
        return self.value <= value_of(other)

    def __gt__(self, other: Any) -> Any:
        return self.value > value_of(other)

    def __ge__(self, other: Any) -> Any:
        return self.value >= value_of(other)

    # Reckoning

    def __neg__(self) -> Any:
        return -self.value

    def __pos__(self) -> Any:
        return +self.value

    def __invert__(self) -> Any:
        return ~self.value

    def __abs__(self) -> Any:
        return abs(self.value)

    def __round__(self, digits: int | None = None) -> Any:
        return round(self.value, digits)

    def __divmod__(self, other: Any) -> Any:
        return divmod(self.value, value_of(other))

    def __rdivmod__(self, other: Any) -> Any:
        return divmod(other, self.value)

    def __add__(self, other: Any) -> Any:
        return self.value + value_of(other)

    def __radd__(self, other: Any) -> Any:
        return other + self.value

    def __sub__(self, other: Any) -> Any:
        return self.value - value_of(other)

    def __rsub__(self, other: Any) -> Any:
        return other - self.value

    def __mul__(self, other: Any) -> Any:
        return self.value * value_of(other)

    def __rmul__(self, other: Any) -> Any:
        return other * self.value

    def __truediv__(self, other: Any) -> Any:
        return self.value / value_of(other)

    def __rtruediv__(self, other: Any) -> Any:
        return other / self.value

    def __floordiv__(self, other: Any) -> Any:
        return self.value // value_of(other)

    def __rfloordiv__(self, other: Any) -> Any:
        return other // self.value

    def __mod__(self, other: Any) -> Any:
        return self.value % value_of(other)

    def __rmod__(self, other: Any) -> Any:
        return other % self.value

    def __pow__(self, other: Any) -> Any:
        return self.value ** value_of(other)

    def __rpow__(self, other: Any) -> Any:
        return other**self.value

    def __and__(self, other: Any) -> Any:
        return self.value & value_of(other)

    def __rand__(self, other: Any) -> Any:
        return other & self.value

    def __or__(self, other: Any) -> Any:
        return self.value | value_of(other)

    def __ror__(self, other: Any) -> Any:
        return other | self.value

    def __xor__(self, other: Any) -> Any:
        return self.value ^ value_of(other)

    def __rxor__(self, other: Any) -> Any:
        return other ^ self.value

    def __lshift__(self, other: Any) -> Any:
        return self.value << value_of(other)

    def __rlshift__(self, other: Any) -> Any:
        return other << self.value

    def __rshift__(self, other: Any) -> Any:
        return self.value >> value_of(other)

    def __rrshift__(self, other: Any) -> Any:
        return other >> self.value

    # Changing

    def __iadd__(self: T, other: Any) -> T:
        self._change(lambda value: value + value_of(other))
        return self

    def __isub__(self: T, other: Any) -> T:
        self._change(lambda value: value - value_of(other))
        return self

    def __imul__(self: T, other: Any) -> T:
        self._change(lambda value: value * value_of(other))
        return self

    def __itruediv__(self: T, other: Any) -> T:
        self._change(lambda value: value / value_of(other))
        return self

    def __ifloordiv__(self: T, other: Any) -> T:
        self._change(lambda value: value // value_of(other))
        return self

    def __imod__(self: T, other: Any) -> T:
        self._change(lambda value: value % value_of(other))
        return self

    def __ipow__(self: T, other: Any) -> T:
        self._change(lambda value: value ** value_of(other))
        return self

    def __iand__(self: T, other: Any) -> T:
        self._change(lambda value: value & value_of(other))
        return self

    def __ior__(self: T, other: Any) -> T:
        self._change(lambda value: value | value_of(other))
        return self

    def __ixor__(self: T, other: Any) -> T:
        self._change(lambda value: value ^ value_of(other))
        return self

    def __ilshift__(self: T, other: Any) -> T:
        self._change(lambda value: value << value_of(other))
        return self

    def __irshift__(self: T, other: Any) -> T:
        self._change(lambda value: value >> value_of(other))
        return self


def value_of(other: Any) -> Any:
    """The value of an item; all else is its own."""
    return other.value if isinstance(other, Operators) else other
