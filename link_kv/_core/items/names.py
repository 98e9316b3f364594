"""Names for numbers: what a boolean, an enumerated item or a mask can be, and how it is written. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from link_kv._core.items.number_format import read_number
from link_kv._core.items.numeric import number_of
from link_kv.errors import Refused

TYPES = ("boolean", "enumerated", "mask")
NOTHING_SET = "None"
"""The key of the name that a mask has when no bit is set."""

BOOLEAN: Mapping[int | str, str] = {0: "False", 1: "True"}
_MAX_BITS = 1024


def read_names(given: Mapping[Any, Any] | Sequence[Any]) -> dict[int | str, str]:
    """Names by number, whose keys may be text as in JSON; or a list of names. Raises `ValueError`."""
    names: dict[int | str, str] = {}
    for key, name in given.items() if isinstance(given, Mapping) else enumerate(given):
        if not isinstance(name, str):
            raise ValueError(f"has names that are text, not {name!r}")
        if key is None or (isinstance(key, str) and key.lower() == "none"):
            names[NOTHING_SET] = name
            continue
        try:
            names[int(key)] = name
        except (TypeError, ValueError):
            raise ValueError(f"has whole numbers as keys and names as values, not {key!r}") from None
    if len({name.strip().lower() for name in names.values()}) < len(given):
        raise ValueError("has no name or number twice; upper and lower case are the same")
    return names


def check_names(kind: str | None, names: Mapping[int | str, str]) -> None:
    """Raise `ValueError` unless these can be the names of an item of this type."""
    if kind == "boolean" and set(names) != {0, 1}:
        raise ValueError("of a boolean has a name for 0 and one for 1")
    if kind != "mask":
        if NOTHING_SET in names:
            raise ValueError(f"has the key {NOTHING_SET!r} for a mask only")
        return
    if any(isinstance(bit, int) and not 0 <= bit < _MAX_BITS for bit in names):
        raise ValueError("of a mask has bits as keys, counted from 0")
    if any("," in name for name in names.values()):
        raise ValueError("of a mask has names without commas")


def _finite(number: float) -> bool:
    return isinstance(number, int) or math.isfinite(number)  # which an integer can be too large for


class Names:
    """The values of an item of a type in `TYPES`."""

    def __init__(self, kind: str, names: Mapping[int | str, str]) -> None:
        self._kind = kind
        self._names = names
        self._mask = kind == "mask"
        self._values: dict[str, int] = {}
        self._bits = 0
        for number, name in names.items():
            value = 0 if number == NOTHING_SET else 1 << int(number) if self._mask else int(number)
            self._values[name.strip().lower()] = value
            self._bits |= value
        if self._mask:
            self._values.setdefault("", 0)
            self._values.setdefault("none", 0)

    def check(self, value: Any) -> int:
        """The number to store; a bool for a boolean. Raises `Refused`."""
        if isinstance(value, str):
            return self.parse(value)
        number = number_of(value)
        whole = math.floor(number) if _finite(number) else -1
        if number != whole or not self._known(whole):
            raise Refused(f"{value!r} is none of {self._choices}")
        return bool(whole) if self._kind == "boolean" else whole

    def parse(self, text: str) -> int:
        """The number that a name stands for, in upper or lower case; of a mask, several with commas between.

        The number itself is accepted as well. Raises `Refused`.
        """
        bare = text.strip().lower()
        names = [bare] if bare in self._values else [name.strip() for name in bare.split(",")]
        if all(name in self._values for name in names) and (self._mask or len(names) == 1):
            value = 0
            for name in names:
                value |= self._values[name]
            return bool(value) if self._kind == "boolean" else value
        try:
            return self.check(read_number(bare))
        except ValueError:
            raise Refused(f"{text!r} is none of {self._choices}") from None

    def write(self, value: Any) -> str | None:
        """The name of a value, None when it has none."""
        if not isinstance(value, (int, float)) or not _finite(value) or value != math.floor(value):
            return None
        number = math.floor(value)
        if not self._known(number):
            return None
        if not self._mask:
            return self._names[number]
        if not number:
            return self._names.get(NOTHING_SET, "")
        set_bits = (
            name for bit, name in self._names.items() if bit != NOTHING_SET and number >> int(bit) & 1
        )
        return ", ".join(set_bits)

    def _known(self, number: int) -> bool:
        return number >= 0 and not number & ~self._bits if self._mask else number in self._names

    @property
    def _choices(self) -> str:
        return ", ".join(f"{number} ({name})" for number, name in self._names.items())
