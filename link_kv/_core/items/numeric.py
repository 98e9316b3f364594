"""What counts as a number, and arrays of numbers, whoever's they are. Pure; numpy is imported when needed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from link_kv._core.items.number_format import read_number
from link_kv.errors import ConfigError, Refused


def is_number(value: Any) -> bool:
    """Whether it is a plain number; a bool is none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def number_of(value: Any) -> int | float:
    """The plain number of a number of any kind, or of its text. Raises `Refused`."""
    kind = type(value)
    if kind is int or kind is float:
        return value  # type: ignore[no-any-return]
    if isinstance(value, str):
        try:
            return read_number(value)
        except ValueError as error:
            raise Refused(str(error)) from None
    convert: Callable[[Any], int | float]
    if is_array(value) or isinstance(value, (complex, bytes, bytearray)):
        raise Refused(f"{value!r} is not one number")
    if hasattr(kind, "__index__"):
        convert = int
    elif hasattr(kind, "__float__") or isinstance(value, Decimal):
        convert = float
    else:
        raise Refused(f"{value!r} is not a number")
    try:
        return convert(value)
    except (TypeError, ValueError) as error:
        raise Refused(f"{value!r} is not a number: {error}") from None


def is_array(value: Any) -> bool:
    """Whether it is a numpy array."""
    numpy = sys.modules.get("numpy")  # where it was not imported, nobody can hold anything of it
    return numpy is not None and isinstance(value, numpy.ndarray)


def is_numpy(value: Any) -> bool:
    """Whether it is a numpy array, or one of the things that such arrays are of."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, (numpy.ndarray, numpy.generic))


def array_of(value: Any) -> Any:
    """A numpy array of a list or a number. Raises `Refused`, and `ConfigError` without numpy."""
    try:
        import numpy
    except ModuleNotFoundError as error:
        if error.name != "numpy":
            raise
        raise ConfigError("arrays are numpy's: pip install 'link_kv[numpy]'") from None
    try:
        array = numpy.asarray(value)
    except ValueError as error:
        raise Refused(f"no array can be made of it: {error}") from None
    if array.dtype.hasobject:
        raise Refused("an array of Python objects cannot be stored")
    return array


def split_numbers(text: str) -> list[str]:
    """The texts of the numbers of a list, such as ``[1, 2]`` or ``1 2``."""
    bare = text.strip()
    if bare[:1] + bare[-1:] in ("[]", "()"):
        bare = bare[1:-1]
    return bare.replace(",", " ").split()
