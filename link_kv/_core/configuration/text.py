"""Configuration values as the text that a person would type, and such text as values of declared types.

Everything here is pure, and a text is data: none is evaluated, and no name in one is imported, as
b3j0f.conf's own `Array` does with an item that its type refuses. Nothing here needs b3j0f.conf.
"""

from __future__ import annotations

import configparser
import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from link_kv.codec import decode, encode
from link_kv.errors import EncodeError
from link_kv.tree import MISSING, Place, build

_COLLECTIONS = (list, tuple, set, frozenset)
_BOOLEANS = {**configparser.RawConfigParser.BOOLEAN_STATES, "": False}
_SPACE = " \t\n\r"
_AS_STORED = b"\xff"
"""The mark of bytes in etcd: a leaf behind it decodes to its own bytes."""


class Array(NamedTuple):
    """The type of a list whose items have a type."""

    item: Any


# In etcd


def from_stored(stored: bytes) -> str | None:
    """The text that a key's bytes stand for, whoever wrote them; None when they are no text.

    The bytes as they are, so that 1.10 stays 1.10. Only a quoted JSON string loses its quotes, which tell
    the text 8080 from the number.
    """
    value = decode(stored)
    if isinstance(value, str):
        return value
    try:
        return stored.decode().strip(_SPACE)
    except UnicodeDecodeError:
        return None


def to_stored(text: str, path: str) -> bytes:
    """A text as it is, and quoted only where it would read back as another."""
    try:
        bare = text.encode()
    except UnicodeEncodeError:
        raise EncodeError(f"{path}: a text with lone surrogates cannot be stored as UTF-8") from None
    return bare if from_stored(bare) == text else json.dumps(text, ensure_ascii=False).encode()


def stored_tree(at: Place, pairs: Iterable[tuple[bytes, bytes]]) -> Any:
    """The nested value of the keys below a place, its leaves the stored bytes; ``{}`` for nothing."""
    marked = ((key, value if key.endswith(b"/") else _AS_STORED + value) for key, value in pairs)
    found = build(marked, at)
    return {} if found is MISSING else found


# As values


def value_of(text: str, ptype: Any = None) -> Any:
    """The value of a text for a declared `ptype`. Raises `ValueError`, saying what the text is not."""
    if ptype is None or ptype is object:
        return text
    try:
        if isinstance(ptype, Array):
            return [_item(item, ptype.item) for item in _items(text)[0]]
        if isinstance(ptype, tuple):  # several types
            return text if str in ptype else value_of(text, ptype[0])
        if ptype is bool:
            return _boolean(text)
        if isinstance(ptype, type) and issubclass(ptype, _COLLECTIONS):
            items, typed = _items(text)
            return ptype(items if typed else [decode(item.encode()) for item in items])
        if isinstance(ptype, type) and issubclass(ptype, dict):
            return ptype(_object(text))
        return ptype(text)
    except Exception as error:
        # The type is the program's own, so anything may come of it.
        shown = text if len(text) <= 60 else f"{text[:60]}…"
        name = getattr(ptype, "__name__", None) or type(ptype).__name__
        raise ValueError(f"{shown!r} is not of type {name}: {error}") from error


def _boolean(text: str) -> bool:
    known = _BOOLEANS.get(text.strip().lower())
    if known is None:
        raise ValueError("yes or no, true or false, on or off, 1 or 0")
    return known


def _items(text: str) -> tuple[list[Any], bool]:
    """The items of ``a, b`` or ``["a", 1]``, and whether they have types, as in the latter."""
    if text.lstrip(_SPACE).startswith("["):
        try:
            items = json.loads(text)
        except (ValueError, RecursionError):
            pass  # no JSON: a list whose first item starts with a bracket
        else:
            return items, True
    return ([item.strip() for item in text.split(",")] if text.strip() else []), False


def _item(item: Any, ptype: Any) -> Any:
    if isinstance(item, str):
        return value_of(item, ptype)
    return item if isinstance(item, ptype) else value_of(_json(item), ptype)


def _object(text: str) -> dict[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError('a JSON object is written {"name": value}')
    return value


# Values as texts


def text_of(value: Any, ptype: Any, path: str) -> str:
    """The text that reads back as `value` where `ptype` is declared. Raises `EncodeError` naming the path."""
    if isinstance(value, str):
        return str.__str__(value)
    if value is None or isinstance(value, (bool, int, float)):
        return _json(value)
    try:
        if isinstance(value, _COLLECTIONS):
            return _list_text(value, ptype)
        if isinstance(value, dict):
            return _json(value)
    except (ValueError, TypeError, RecursionError) as error:
        raise EncodeError(f"{path}: cannot store this {type(value).__name__} as text: {error}") from error
    try:
        if ptype is not None and value_of(str(value), ptype) == value:
            return str(value)
    except ValueError:
        pass  # not that way: a number of numpy's has another, and the rest is refused
    text = from_stored(encode(value, path))
    if text is None:
        raise EncodeError(f"{path}: configuration is text, and a {type(value).__name__} is none")
    return text


def _list_text(items: Any, ptype: Any) -> str:
    """``a, b`` where that reads back as the same items, else JSON."""
    array = isinstance(ptype, Array)
    each = list(items)
    if array and ptype.item is not object:
        each = [text_of(item, ptype.item, "an item") for item in items]
    plain = ", ".join(item if isinstance(item, str) else _json(item) for item in each)
    same = value_of(plain, ptype) == list(items) if array else value_of(plain, type(items)) == items
    return plain if same else _json(each)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=_listed)


def _listed(value: Any) -> Any:
    if isinstance(value, _COLLECTIONS):
        return list(value)
    raise TypeError(f"a {type(value).__name__} has no JSON form")
