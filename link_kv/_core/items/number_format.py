"""A number as text by a printf format, and the text as a number again.

``%.3f K`` writes one number, with what stands around it. ``%d:%02d:%04.1f`` writes it in sixtieths, as
degrees or hours with their minutes and seconds. Pure.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import NamedTuple

_SPEC = re.compile(
    r"%(?P<flags>[-+ 0#]*)(?P<width>[0-9]*)(?:\.(?P<precision>[0-9]+))?(?P<kind>[diuoxXeEfFgGsr])"
)
_PIECE = re.compile(rf"%%|{_SPEC.pattern}|%")
_INTEGER = re.compile(r"[+-]?[0-9]+")
_FLOAT = re.compile(
    r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|[+-]?(?:inf|infinity|nan)", re.IGNORECASE
)
_WHOLE = "diuoxX"
_BASES = {"o": 8, "x": 16, "X": 16}
_MAX_WIDTH = 1000


class Format(NamedTuple):
    """A printf format that was understood."""

    before: str
    specs: tuple[str, ...]
    """One conversion; or two or three, between which colons stand."""
    kind: str
    """The letter of the last conversion."""
    decimals: int
    """How many digits the last conversion shows behind its point, where it shows that many always."""
    after: str

    def write(self, number: float) -> str:
        """The text of a number. An infinity or NaN is written as it is."""
        if len(self.specs) > 1:
            text = self._write_sixtieths(number)
        elif self.kind in _WHOLE:
            # printf would cut off: -2.9999999996, from a conversion of units, is to show as -3.
            text = self.specs[0] % round(number) if math.isfinite(number) else str(number)
        else:
            text = self.specs[0] % number
        return self.before + text + self.after

    def write_text(self, value: str) -> str:
        """A text in its place; for a format whose conversion is ``%s``."""
        return self.before + self.specs[0] % value + self.after

    def _write_sixtieths(self, number: float) -> str:
        if not math.isfinite(number):
            return str(number)
        # Rounded first and split then, so that 59.96 carries over instead of being shown as 60.0.
        fraction = 10**self.decimals
        rest = round(abs(number) * 60 ** (len(self.specs) - 1) * fraction)
        negative = number < 0 and rest > 0
        rest, last = divmod(rest, 60 * fraction)
        fields: list[str] = [self.specs[-1] % (last / fraction if self.kind in "fF" else last)]
        for spec in self.specs[-2:0:-1]:
            rest, middle = divmod(rest, 60)
            fields.append(spec % middle)
        first = self.specs[0]
        if not negative:
            fields.append(first % rest)
        elif rest:
            fields.append(first % -rest)
        else:
            fields.append((first % -1).replace("1", "0"))  # an integer has no -0 of its own
        return ":".join(reversed(fields))

    def read(self, text: str) -> int | float:
        """The number that a text stands for, with or without what the format puts around it.

        A minus before the first of several fields counts for all of them. Raises `ValueError`.
        """
        text = text.strip()
        before, after = self.before.strip(), self.after.strip()
        if before and text.startswith(before):
            text = text[len(before) :].strip()
        if after and text.endswith(after):
            text = text[: -len(after)].strip()
        if len(self.specs) > 1 and ":" in text:
            return self._read_sixtieths(text)
        base = _BASES.get(self.kind)
        if base is not None:
            try:
                return int(text, base)
            except ValueError:
                raise ValueError(f"{text!r} is not a whole number in base {base}") from None
        return read_number(text)

    def _read_sixtieths(self, text: str) -> float:
        fields = text.split(":")
        if len(fields) > len(self.specs):
            raise ValueError(f"{text!r} has {len(fields)} fields, and the format has {len(self.specs)}")
        numbers = [read_number(field) for field in fields]
        sign = -1 if fields[0].strip().startswith("-") else 1  # -0 has no sign as an integer
        total = math.fsum(number / 60**power for power, number in enumerate([abs(numbers[0]), *numbers[1:]]))
        return sign * total


def read_number(text: str) -> int | float:
    """An integer where the text is one, else a float. Raises `ValueError`."""
    text = text.strip()
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    raise ValueError(f"{text!r} is not a number")


@lru_cache(maxsize=1024)
def compile_format(text: str) -> Format:
    """Understand a format. Raises `ValueError` saying what is wrong with it."""
    literals, specs = [""], []
    position = 0
    for piece in _PIECE.finditer(text):
        literals[-1] += text[position : piece.start()]
        position = piece.end()
        if piece[0] == "%%":
            literals[-1] += "%"
        elif piece["kind"] is None:
            raise ValueError(f"{text[piece.start() :]!r} is no printf conversion of a number")
        else:
            specs.append(piece)
            literals.append("")
    literals[-1] += text[position:]
    if not specs:
        raise ValueError("it has no conversion, such as %d or %.3f")
    if any(int(spec[part] or 0) > _MAX_WIDTH for spec in specs for part in ("width", "precision")):
        raise ValueError(f"a width or precision beyond {_MAX_WIDTH} is a mistake")
    last = specs[-1]
    kind = last["kind"]
    decimals = 0
    if len(specs) > 1:
        if len(specs) > 3 or any(literal != ":" for literal in literals[1:-1]):
            raise ValueError("one conversion, or two or three with a colon between, such as %d:%02d:%04.1f")
        if any(spec["kind"] not in "diu" for spec in specs[:-1]) or kind not in "diufF":
            raise ValueError("between colons only %d can stand, and at the end %d or %f")
        decimals = int(last["precision"] or 6) if kind in "fF" else 0
    return Format(literals[0], tuple(spec[0] for spec in specs), kind, decimals, literals[-1])
