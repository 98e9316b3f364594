"""What an item says of itself, and what follows from it: which values it accepts, and how they are written.

A `Description` is pure data, JSON in etcd. Units need pint, and arrays numpy; both are imported when needed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from link_kv._core.items import units as pint_units
from link_kv._core.items.names import BOOLEAN, Names, check_names, read_names
from link_kv._core.items.names import TYPES as NAMED
from link_kv._core.items.number_format import Format, compile_format, read_number
from link_kv._core.items.numeric import array_of, is_array, is_number, is_numpy, number_of, split_numbers
from link_kv.codec import decode, encode
from link_kv.errors import ConfigError, EncodeError, Refused

TYPES = ("boolean", "bulk", "enumerated", "mask", "numeric", "numeric array", "string")
_HAVE_RANGE = ("numeric", "numeric array", "bulk", None)

_DEFAULTS: dict[str, Any] = {
    "type": None,
    "description": "",
    "units": None,
    "format": None,
    "enumerators": None,
    "range": None,
    "settable": True,
    "gettable": True,
    "initial": None,
    "persist": True,
    "precision": None,
    "deadband": None,
}
_TEXT: tuple[type, ...] = (str,)
_BOOL: tuple[type, ...] = (bool,)
_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "type": (_TEXT, "text"),
    "description": (_TEXT, "text"),
    "units": ((str, Mapping), "text, or {'': …, 'formatted': …}"),
    "format": (_TEXT, "text"),
    "enumerators": ((Mapping, list, tuple), "a dict of names by number, or a list of names"),
    "range": ((list, tuple), "the lowest and the highest number; None for an open end"),
    "settable": (_BOOL, "true or false"),
    "gettable": (_BOOL, "true or false"),
    "persist": (_BOOL, "true or false"),
    "precision": ((int,), "a whole number of digits"),
    "deadband": ((int, float), "a number"),
}


@dataclass(frozen=True, eq=False, repr=False)
class Description(Mapping[str, Any]):
    """What an item says of itself. Also a mapping, of the keywords that say something.

    Args:
        type: ``boolean``, ``bulk`` (a numpy array, or bytes), ``enumerated``, ``mask``, ``numeric``,
            ``numeric array`` or ``string``. Without one, any value is accepted.
        description: what it is, for people.
        units: of the value; or ``{'': …, 'formatted': …}`` when the formatted value has others.
        format: printf, such as ``%.3f``; ``%d:%02d:%04.1f`` is sexagesimal.
        enumerators: names by number, or a list of names; of a mask the names of the bits, and under
            ``'None'`` that of no bit.
        range: the lowest and the highest number accepted; None for an open end.
        settable: whether `link_kv.Item.set` may write it.
        gettable: False for an item without a value worth reading.
        initial: the value it has from the start. Never written over another.
        persist: False for a value that goes with the program that set it.
        precision: how many digits are shown behind the point when there is no format.
        deadband: callbacks are not called for a change of a number that is smaller.

    Frozen. Raises `ConfigError`, naming the keyword, for what does not fit.
    """

    type: str | None = None
    description: str = ""
    units: str | Mapping[str, str] | None = None
    format: str | None = None
    enumerators: Mapping[Any, str] | Sequence[str] | None = None
    range: Sequence[float | None] | None = None
    settable: bool = True
    gettable: bool = True
    initial: Any = None
    persist: bool = True
    precision: int | None = None
    deadband: float | None = None

    @classmethod
    def of(cls, name: str, keywords: Mapping[str, Any]) -> Description:
        """The description of the item ``name``. Raises `ConfigError` naming it and the keyword."""
        for keyword in keywords:
            if keyword not in _DEFAULTS:
                raise ConfigError(f"{name}: {keyword!r} is no keyword; there are {', '.join(_DEFAULTS)}")
        try:
            return cls(**keywords)
        except ConfigError as error:
            raise ConfigError(f"{name}: {error}") from None

    @classmethod
    def load(cls, name: str, stored: bytes) -> Description:
        """The description as it is stored. Raises `ConfigError` as `of` does."""
        try:
            keywords = json.loads(stored)
        except (ValueError, RecursionError):
            keywords = None
        if not isinstance(keywords, dict):
            raise ConfigError(f"{name}: the stored description is no JSON object: {stored[:100]!r}")
        return cls.of(name, keywords)

    def dump(self) -> bytes:
        """As it is stored: a JSON object."""
        return json.dumps(self.plain(), ensure_ascii=False).encode()

    def plain(self) -> dict[str, Any]:
        """What it says, as JSON has it: lists, and text as keys."""
        said = dict(self)
        if self.range is not None:
            said["range"] = list(self.range)
        if isinstance(self.enumerators, Mapping):
            said["enumerators"] = {str(number): name for number, name in self.enumerators.items()}
        return said

    # As a mapping

    def __getitem__(self, keyword: str) -> Any:
        if keyword not in _DEFAULTS or (value := getattr(self, keyword)) == _DEFAULTS[keyword]:
            raise KeyError(keyword)
        return value

    def __iter__(self) -> Iterator[str]:
        return (keyword for keyword in _DEFAULTS if keyword in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"Description({', '.join(f'{keyword}={value!r}' for keyword, value in self.items())})"

    # Whether it fits together

    def __post_init__(self) -> None:
        for keyword, (kinds, what) in _KINDS.items():
            value = getattr(self, keyword)
            if value is None and _DEFAULTS[keyword] is None:
                continue
            if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
                raise _bad(keyword, value, f"is {what}")
        self._put("type", self._checked_type())
        self._put("units", _checked_units(self.units))
        self._put("enumerators", self._checked_enumerators())
        self._put("range", self._checked_range())
        self._check_format()
        for keyword in ("precision", "deadband"):
            value = getattr(self, keyword)
            if value is not None and not value >= 0:
                raise _bad(keyword, value, "is not negative")
        if self.initial is not None:
            self._put("initial", self._checked_initial())

    def _put(self, keyword: str, value: Any) -> None:
        object.__setattr__(self, keyword, value)

    def _checked_type(self) -> str | None:
        if self.type is None or self.type.lower() in TYPES:
            return self.type and self.type.lower()
        raise _bad("type", self.type, f"is one of {', '.join(TYPES)}")

    def _checked_enumerators(self) -> Mapping[int | str, str] | None:
        if self.enumerators is None:
            if self.type in ("enumerated", "mask"):
                raise ConfigError(f"enumerators: {self.type} needs them, such as {{0: 'Off', 1: 'On'}}")
            return None
        try:
            names = read_names(self.enumerators)
            if self.type in NAMED:
                check_names(self.type, names)
        except ValueError as error:
            raise _bad("enumerators", self.enumerators, str(error)) from None
        return names

    def _checked_range(self) -> tuple[float | None, float | None] | None:
        if self.range is None:
            return None
        ends = tuple(self.range)
        if len(ends) != 2 or any(end is not None and (not is_number(end) or end != end) for end in ends):
            raise _bad("range", self.range, f"is {_KINDS['range'][1]}")
        low, high = ends
        if low is not None and high is not None and low > high:
            raise _bad("range", self.range, "has the lowest first")
        if self.type not in _HAVE_RANGE:
            raise _bad("range", self.range, f"is for numbers, and the type is {self.type}")
        return low, high

    def _check_format(self) -> None:
        if self.format is None:
            return
        try:
            compiled = compile_format(self.format)
        except ValueError as error:
            raise _bad("format", self.format, str(error)) from None
        if self.type == "string" and (len(compiled.specs) > 1 or compiled.kind not in "sr"):
            raise _bad("format", self.format, "of a string has %s")

    def _checked_initial(self) -> Any:
        try:
            value = self.check(self.initial)
            json.dumps(value)
        except Refused as error:
            raise _bad("initial", self.initial, str(error)) from None
        except (TypeError, ValueError, RecursionError):
            raise _bad("initial", self.initial, "is what JSON can hold; others are written by set") from None
        return value

    def check_units(self) -> None:
        """Raise `ConfigError` unless pint can convert between the units, where there are two."""
        if isinstance(self.units, Mapping):
            pint_units.convert(1.0, self._units(False), self._units(True))

    # Values

    def check(self, value: Any) -> Any:
        """The value to store. Raises `Refused` when the item does not accept it.

        A boolean, an enumerated item and a mask take their names as well. Numbers may be numpy's, or text in
        the item's own units.
        """
        kind = self.type
        if kind is None:
            return value if self.range is None else self._within(value)
        if kind == "numeric":
            return self._in_range(number_of(value))
        if kind == "string":
            if not isinstance(value, str):
                raise Refused(f"{value!r} is not text")
            return value
        if kind in NAMED:
            return self._names.check(value)
        if kind == "numeric array":
            return self._numbers(value)
        if isinstance(value, (bytes, bytearray, memoryview)):
            return bytes(value)
        if not (is_array(value) or isinstance(value, (list, tuple)) or is_number(value)):
            raise Refused(f"{value!r} is neither a numpy array nor bytes")
        return self._array(array_of(value))

    def _within(self, value: Any) -> Any:
        """A value of any type, whose numbers are in the range."""
        if is_number(value):
            self._in_range(value)
        elif is_numpy(value):
            self._array(value)
        elif isinstance(value, (list, tuple)):
            for each in value:
                self._within(each)
        return value

    def _in_range(self, number: Any) -> Any:
        if self.range is not None:
            low, high = self.range
            # NaN is outside of any range.
            if number != number or (low is not None and number < low) or (high is not None and number > high):
                raise Refused(f"{number!r} is outside of its range, {_show_range(low, high)}")
        return number

    def _numbers(self, value: Any) -> Any:
        if is_array(value):
            if value.dtype.kind not in "biuf":
                raise Refused(f"an array of {value.dtype} does not hold numbers")
            return self._array(value)
        if isinstance(value, str):
            value = split_numbers(value)
        if not isinstance(value, (list, tuple)):
            raise Refused(f"{value!r} is not a list or a numpy array of numbers")
        return [
            self._numbers(each) if isinstance(each, (list, tuple)) else self._in_range(number_of(each))
            for each in value
        ]

    def _array(self, array: Any) -> Any:
        if self.range is not None and array.size and array.dtype.kind in "biuf":
            self._in_range(array.min().item())  # NaN, where there is one
            self._in_range(array.max().item())
        return array

    def within_deadband(self, value: Any, before: Any) -> bool:
        """Whether the change from ``before`` is too small to tell."""
        band = self.deadband
        try:
            return bool(band and is_number(value) and is_number(before) and abs(value - before) < band)
        except OverflowError:  # an integer beyond all floats is far from any
            return False

    # Text

    def formatted(self, value: Any) -> str:
        """The value as text for people: its name, or its number by `format` and in the formatted units.

        What does not fit the type, since something else wrote it, is shown as it is. Of no value, ``''``.
        Raises `ConfigError` where units must be converted and pint is missing or does not know them.
        """
        if value is None:
            return ""
        kind, text = self.type, None
        if kind in NAMED:
            text = self._names.write(value)
        elif kind == "numeric" and is_number(value):
            text = self._write_number(value)
        elif kind is None and self._format is not None and is_number(value):
            text = self._format.write(value)
        elif kind == "numeric array" and (is_array(value) or isinstance(value, list)):
            text = self._write_numbers(value.tolist() if is_array(value) else value)
        elif kind == "string" and isinstance(value, str):
            text = value if self._format is None else self._format.write_text(value)
        return _as_it_is(value) if text is None else text

    def parse(self, text: str) -> Any:
        """The value that a formatted text stands for. Raises `Refused` when it stands for none.

        Names may be written in upper or lower case.
        """
        kind = self.type
        if kind == "string":
            return text
        if kind in NAMED:
            return self._names.parse(text)
        if kind == "numeric":
            return self.check(self._read_number(text))
        if kind == "numeric array":
            return self.check([self._read_number(each) for each in split_numbers(text)])
        if kind is None:
            return self.read(text)
        raise Refused(f"a value of type {kind} cannot be written as text")

    def read(self, text: str) -> Any:
        """The value that a text stands for in the item's own units. Raises `Refused`.

        Without a type, text is read as the command line reads it for a path: as a JSON scalar, where it can
        be.
        """
        return self.check(text if self.type is not None else decode(text.encode(errors="surrogateescape")))

    def quantity(self, value: Any, *, formatted: bool = False) -> Any:
        """The value as a ``pint.Quantity``. Raises `Refused` where there are no units, or no number."""
        units = self._units(formatted)
        return pint_units.quantity(self.in_units(value, units), units)

    def in_units(self, value: Any, units: str) -> Any:
        """The value as a number of other units. Raises `ConfigError` if these do not fit, and `Refused`."""
        own = self._units(False)
        if not (is_number(value) or is_array(value) or isinstance(value, list)):
            raise Refused(f"{value!r} is not a number, so it has no units")
        return pint_units.convert(value, own, units)

    def from_quantity(self, given: Any) -> Any:
        """The value of a ``pint.Quantity``. Raises `Refused` when the units do not fit."""
        return self.check(pint_units.to_units(given, self._units(False)))

    def from_units(self, number: Any, units: str) -> Any:
        """The value of a number of other units. Raises as `in_units` does."""
        return self.check(pint_units.convert(number_of(number), units, self._units(False)))

    def _units(self, formatted: bool) -> str:
        units = self.units
        if units is None:
            raise Refused("it has no units")
        if isinstance(units, str):
            return units
        return units["formatted" if formatted else ""]

    @cached_property
    def _names(self) -> Names:
        assert self.type is not None
        return Names(self.type, BOOLEAN if self.enumerators is None else self.enumerators)  # type: ignore[arg-type]

    @cached_property
    def _format(self) -> Format | None:
        return None if self.format is None else compile_format(self.format)

    def _write_number(self, number: float) -> str:
        if isinstance(self.units, Mapping):
            number = pint_units.convert(number, self._units(False), self._units(True))
        if self._format is not None:
            return self._format.write(number)
        if self.precision is not None:
            return f"{number:.{self.precision}f}"
        return _as_it_is(number)

    def _read_number(self, text: str) -> float:
        try:
            number = read_number(text) if self._format is None else self._format.read(text)
        except ValueError as error:
            raise Refused(str(error)) from None
        if isinstance(self.units, Mapping):
            number = pint_units.convert(number, self._units(True), self._units(False))
        return number

    def _write_numbers(self, values: Sequence[Any]) -> str:
        texts = []
        for each in values:
            if isinstance(each, list):
                texts.append(self._write_numbers(each))
            else:
                texts.append(self._write_number(each) if is_number(each) else _as_it_is(each))
        return f"[{', '.join(texts)}]"


def _bad(keyword: str, value: Any, rule: str) -> ConfigError:
    return ConfigError(f"{keyword}={value!r}: {keyword} {rule}")


def _checked_units(given: str | Mapping[str, str] | None) -> str | dict[str, str] | None:
    if not isinstance(given, Mapping):
        return given
    known = set(given) <= {"", "formatted"} and "" in given
    if not known or not all(isinstance(each, str) for each in given.values()):
        raise _bad("units", given, f"is {_KINDS['units'][1]}")
    formatted = given.get("formatted", given[""])
    return given[""] if formatted == given[""] else {"": given[""], "formatted": formatted}


def _as_it_is(value: Any) -> str:
    try:
        return encode(value).decode()
    except (EncodeError, UnicodeDecodeError):  # a tree, bytes, an array
        return str(value)


def _show_range(low: float | None, high: float | None) -> str:
    if low is None:
        return f"at most {high!r}"
    if high is None:
        return f"at least {low!r}"
    return f"{low!r} to {high!r}"


PLAIN = Description()
"""The description of an item that has none."""
