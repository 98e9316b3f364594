"""Values and the bytes they are stored as: text that people and other tools can read.

===================  =============================================================================
``str``              the text itself; JSON-quoted only when the bare text would read as something else
``int float``        JSON, as Python's `json` writes it (``NaN``, ``Infinity``, ``-Infinity`` too)
``bool None``        ``true``, ``false``, ``null``
``bytes``            the byte 0xff, then the bytes
numpy array          the ``.npy`` form: dtype, byte order, shape and C or Fortran order are kept
===================  =============================================================================

Reading tries a JSON scalar, then UTF-8 text, then bytes. Containers are no scalars: a ``{"a": 1}`` that
another tool wrote is text. No UTF-8 text starts with 0xff, or with the 0x93 of ``.npy``, so the forms
cannot be taken for each other.

Both functions are pure and thread-safe. A stored value is inert: nothing that was read is evaluated,
unpickled, or names what is imported.
"""

from __future__ import annotations

import functools
import io
import json
import logging
import math
import re
import sys
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias

import orjson

from link_kv.errors import EncodeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Leaf", "Value", "decode", "encode"]

Leaf: TypeAlias = "str | int | float | bool | bytes | NDArray[Any] | None"
"""What one key can hold."""

Value: TypeAlias = "Leaf | dict[str, Value] | list[Value]"
"""What a path can hold: a leaf, or a tree of them."""

_log = logging.getLogger(__name__)

_SPACE = " \t\n\r"
_SCALAR_START = frozenset('"-0123456789tfnNI' + _SPACE)
_CONSTANTS = {
    b"true": True,
    b"false": False,
    b"null": None,
    b"NaN": float("nan"),
    b"Infinity": float("inf"),
}
# What is left of a JSON number without its digits, such as "-." of "-1.5"; and "-Infinity".
_NUMBER_SHAPES = frozenset(
    f"{minus}{point}{exponent}".encode()
    for minus in ("", "-")
    for point in ("", ".")
    for exponent in ("", "e", "E", "e+", "E+", "e-", "E-")
) | {b"-Infinity"}
_DIGITS_AND_SPACE = ("0123456789" + _SPACE).encode()
_INTEGER = re.compile(rb"[ \t\n\r]*-?[1-9][0-9]*[ \t\n\r]*")
# The lowest limit that sys.set_int_max_str_digits accepts.
_LOWEST_DIGIT_LIMIT = 640
# Between these, what orjson reads as a float was written as one: it rounds only longer integers.
_FLOAT_MIN, _FLOAT_MAX = -(2.0**63), 2.0**63
_BYTES_MARK = b"\xff"
_NPY_MAGIC = b"\x93NUMPY"
# numpy refuses, for safety, to parse a header of more than 10,000 characters, padding included.
_NPY_MAX_HEADER = 9_800


# --- reading ---


def decode(data: bytes) -> Leaf:
    """The value that these bytes stand for; never raises, whatever they are.

    Bytes that are neither a scalar, text nor an array are handed back as they are. So is a damaged
    ``.npy``, one that holds pickled objects, and, with a logged warning, every array where numpy is not
    installed: one unreadable leaf must not hide the tree around it. Written back from there, it would
    be stored as ``bytes``; install ``link_kv[numpy]`` where arrays are copied.

    An integer longer than Python reads (``sys.set_int_max_str_digits``), and a quoted text with half of
    a surrogate pair (``"\\ud800"``), are text.
    """
    if not data:
        return ""
    try:
        return _READERS[data[0]](data)
    except UnicodeDecodeError:
        return data


def _read_by_rule(data: bytes) -> Leaf:
    """Scalar or text by the definition. All other readers are shortcuts that give the same."""
    text = data.decode()
    if text.lstrip(_SPACE)[:1] not in _SCALAR_START:
        # Containers above all: json raises RecursionError on a deep one.
        return text
    try:
        value: Leaf = json.loads(text)
        if isinstance(value, str):
            value.encode()  # a surrogate without its pair could not be written again
    except ValueError:
        return text
    return value


def _read_number(data: bytes) -> Leaf:
    # Dates, addresses and versions start like numbers. Telling them by their punctuation is ten times
    # cheaper than the exception that a parser raises.
    if not data.isdigit() and data.translate(None, _DIGITS_AND_SPACE) not in _NUMBER_SHAPES:
        return data.decode()
    try:
        number: int | float = orjson.loads(data)
    except ValueError:
        return _read_by_rule(data)
    if type(number) is int or _FLOAT_MIN < number < _FLOAT_MAX:
        return number
    return _read_by_rule(data)


def _read_quoted(data: bytes) -> Leaf:
    try:
        text: str = orjson.loads(data)
    except ValueError:
        return _read_by_rule(data)
    return text


def _read_constant(data: bytes) -> Leaf:
    value = _CONSTANTS.get(data.rstrip(b" \t\n\r"), data)
    return data.decode() if value is data else value


def _read_marked_bytes(data: bytes) -> Leaf:
    return data[1:]


def _read_array(data: bytes) -> Leaf:
    if not data.startswith(_NPY_MAGIC):
        return data
    npy = _npy_format()
    if npy is None:
        return data
    file = io.BytesIO(data)
    try:
        array: NDArray[Any] = npy.read_array(file, allow_pickle=False)
    except Exception:  # noqa: BLE001 - numpy documents no set; damaged headers raise a dozen different ones
        return data
    return array if file.tell() == len(data) else data


@functools.cache
def _npy_format() -> ModuleType | None:
    try:
        from numpy.lib import format as npy
    except ImportError:
        _log.warning("numpy is not installed: arrays are read as bytes; pip install 'link_kv[numpy]'")
        return None
    return npy


def _readers() -> tuple[Callable[[bytes], Leaf], ...]:
    by_first_byte: list[Callable[[bytes], Leaf]] = [bytes.decode] * 256
    for characters, reader in (
        (b"-0123456789", _read_number),
        (b"tfnNI", _read_constant),
        (b'"', _read_quoted),
        (b" \t\n\r", _read_by_rule),
        (_BYTES_MARK, _read_marked_bytes),
        (_NPY_MAGIC[:1], _read_array),
    ):
        for character in characters:
            by_first_byte[character] = reader
    return tuple(by_first_byte)


_READERS = _readers()


# --- writing ---

# Not orjson.dumps: it allocates a kilobyte for each result, and that takes 2 µs when many are kept.
_quote = json.JSONEncoder(ensure_ascii=False).encode


def encode(value: object, path: str = "") -> bytes:
    """The bytes that `decode` reads as this value again, with the same type.

    Subclasses of ``str``, ``int``, ``float`` and ``bytes`` (an ``IntEnum``, a ``numpy.float64``) and
    numpy's booleans, integers and floats are stored as the plain value, and come back as that.

    Raises `EncodeError`, naming `path` and the type, for all else: dicts, lists and tuples (trees, not
    leaves), text with half of a surrogate pair, integers longer than Python reads, arrays of objects,
    and subclasses of arrays, whose masks or units ``.npy`` would lose.
    """
    return _WRITERS.get(type(value), _write_other)(value, path)


def _write_str(value: str, path: str) -> bytes:
    try:
        data = value.encode()
    except UnicodeEncodeError as error:
        raise _refusal(value, path, f"it has half of a surrogate pair at {error.start}") from None
    if value[:1] not in _SCALAR_START:
        return data
    if decode(data) != value:
        return _quote(value).encode()
    if len(data) > _LOWEST_DIGIT_LIMIT and _INTEGER.fullmatch(data):
        # Too long for an integer in this process, but perhaps not in the one that reads it.
        return _quote(value).encode()
    return data


def _write_int(value: int, path: str) -> bytes:
    try:
        return b"%d" % value
    except ValueError:
        why = "it has more digits than Python reads (sys.set_int_max_str_digits); store its hex() as text"
        raise _refusal(value, path, why) from None


def _write_float(value: float, path: str) -> bytes:
    return repr(value).encode() if math.isfinite(value) else json.dumps(value).encode()


def _write_bool(value: bool, path: str) -> bytes:
    return b"true" if value else b"false"


def _write_none(value: None, path: str) -> bytes:
    return b"null"


def _write_bytes(value: bytes, path: str) -> bytes:
    return b"".join((_BYTES_MARK, value))


_WRITERS: dict[type, Callable[[Any, str], bytes]] = {
    str: _write_str,
    int: _write_int,
    float: _write_float,
    bool: _write_bool,
    type(None): _write_none,
    bytes: _write_bytes,
}


def _write_other(value: object, path: str) -> bytes:
    # The base class's own conversions: a subclass may have replaced its methods, as enums do.
    if isinstance(value, str):
        return _write_str(str.__str__(value), path)
    if isinstance(value, int):
        return _write_int(int.__int__(value), path)
    if isinstance(value, float):
        return _write_float(float.__float__(value), path)
    if isinstance(value, bytes):
        return _write_bytes(value, path)
    if isinstance(value, (dict, list, tuple)):
        raise _refusal(value, path, "it is a tree, not a leaf")
    if sys.modules.get("numpy") is not None:  # else nobody can hold anything of numpy
        import numpy as np

        if type(value) is np.ndarray:
            return _write_array(value, path)
        if isinstance(value, np.ndarray):
            raise _refusal(value, path, "store numpy.asarray() of it if the plain numbers are enough")
        if isinstance(value, np.generic) and value.dtype.kind in "biuf":
            number = value.item()
            if type(number) in _WRITERS:  # a longdouble stays what it is
                return encode(number, path)
    advice = "store a dict, a list, text, a number, a bool, None, bytes or a numpy array made from it"
    raise _refusal(value, path, advice)


def _write_array(array: NDArray[Any], path: str) -> bytes:
    from numpy.lib import format as npy

    if array.dtype.hasobject:
        raise _refusal(array, path, f"its dtype {array.dtype} holds Python objects")
    try:
        header = npy.header_data_from_array_1_0(array)
        kept = npy.descr_to_dtype(header["descr"]) == array.dtype
    except ValueError:
        kept = False
    if not kept:
        raise _refusal(array, path, f"the .npy form does not keep its dtype {array.dtype}")
    text = repr(header)
    if len(text) > _NPY_MAX_HEADER:
        raise _refusal(array, path, f"its dtype takes {len(text)} characters; store its fields apart")
    # The version is chosen here because numpy warns when it chooses 3.0, the one for names beyond ASCII.
    file = io.BytesIO()
    npy.write_array(file, array, version=(1, 0) if text.isascii() else (3, 0), allow_pickle=False)
    return file.getvalue()


def _refusal(value: object, path: str, why: str) -> EncodeError:
    kind = type(value)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return EncodeError(f"{path or 'value'}: cannot store this {name}: {why}")
