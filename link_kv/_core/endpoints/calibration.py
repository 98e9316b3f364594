"""From raw values to calibrated ones, by an expression or by a table.

An expression comes from the local configuration file, and is evaluated by simpleeval. The raw value may come
from anywhere; so it is never made part of the expression's text: each ``{}`` becomes a name, and the name has
the value.
"""

from __future__ import annotations

import ast
import copy
import importlib
import math
import string
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from link_kv._core.items.numeric import is_number
from link_kv.errors import ConfigError, Refused

_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": abs,
    "bool": bool,
    "float": float,
    "int": int,
    "len": len,
    "max": max,
    "min": min,
    "round": round,
    "str": str,
}
_COSTLY = frozenset(("comb", "factorial", "perm"))
"""Functions of math whose results may take for ever."""


def register(name: str, function: Callable[..., Any]) -> None:
    """Let calibrations call a function. Raises `ConfigError` for a name that is none, or is taken."""
    if not isinstance(name, str) or not name.isidentifier():
        raise ConfigError(f"{name!r}: a function is called by a word in calibrations")
    if _FUNCTIONS.get(name, function) is not function or name == "math":
        raise ConfigError(f"{name}: calibrations have a function of this name already")
    if not callable(function):
        raise ConfigError(f"{name}: {function!r} is no function")
    _FUNCTIONS[name] = function


_FAILURES = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


class _Field(NamedTuple):
    """A place where the raw value stands."""

    name: str
    conversion: str | None
    spec: str


class Calibration:
    """Calibrates raw values. Thread-safe.

    Args:
        given: an expression in which ``{}`` stands for the raw value, such as ``'2*{}'`` and
            ``'times3({})'``; or a dict of calibrated values by raw ones.

    Raises `ConfigError` for an expression that is none, and where simpleeval is missing.
    """

    def __init__(self, given: str | Mapping[Any, Any]) -> None:
        self.given = given
        self._table: dict[str, Any] | None = None
        if isinstance(given, Mapping):
            self._table = table(given)
        elif isinstance(given, str):
            self._prepare(given)
        else:
            raise ConfigError(f"calibration={given!r}: is an expression such as '2*{{}}', or a dict")

    def _prepare(self, expression: str) -> None:
        try:
            simpleeval: Any = importlib.import_module("simpleeval")
        except ModuleNotFoundError as error:
            if error.name != "simpleeval":
                raise
            raise ConfigError("calibrations need simpleeval: pip install 'link_kv[endpoints]'") from None
        self._invalid: type[Exception] = simpleeval.InvalidExpression
        text, self._fields = _with_names(expression)
        try:
            self._tree: ast.expr = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise ConfigError(f"calibration={expression!r}: is no expression: {error}") from None
        self._quoted = any(_texts(self._tree, self._fields))
        allowed = {name for name in dir(math) if not name.startswith("_")} - _COSTLY
        self._names = {
            "math": simpleeval.ModuleWrapper(math, allowed_attrs=allowed),
            "inf": math.inf,
            "nan": math.nan,
            "True": True,
            "False": False,
            "None": None,
        }
        self._evaluator = simpleeval.SimpleEval
        self._check_names()

    def _check_names(self) -> None:
        """Raise `ConfigError` for a name that would be unknown at each evaluation."""
        known = {*_FUNCTIONS, *self._names, *(field.name for field in self._fields)}
        for node in ast.walk(self._tree):
            if isinstance(node, ast.Name) and node.id not in known:
                raise ConfigError(
                    f"calibration={self.given!r}: {node.id!r} is not known here; there are "
                    f"{', '.join(sorted(_FUNCTIONS))} and math"
                )

    def __call__(self, raw: Any) -> Any:
        """The calibrated value. Raises `Refused` when the calibration fails."""
        if self._table is not None:
            return lookup(self._table, raw, "calibration")
        names = dict(self._names)
        tree = self._tree
        texts: dict[str, str] = {}
        try:
            for field in self._fields:
                text = _formatted(raw, field)
                texts[field.name] = text
                plain = field.spec == "" and field.conversion is None
                names[field.name] = _number(raw) if plain else _number(text)
            if self._quoted:
                tree = _Filling(texts).visit(copy.deepcopy(tree))
            evaluator = self._evaluator(functions=_FUNCTIONS, names=names)
            return evaluator.eval(str(self.given), previously_parsed=tree)
        except (self._invalid, *_FAILURES) as error:
            raise Refused(f"calibration {self.given!r} of {raw!r} fails: {error}") from None


def _with_names(expression: str) -> tuple[str, list[_Field]]:
    """An expression with a name in place of each replacement field, and the fields."""
    text, fields = "", list[_Field]()
    try:
        for literal, name, spec, conversion in string.Formatter().parse(expression):
            text += literal
            if name is None:
                continue
            if name not in ("", "0") or "{" in (spec or "") or conversion not in _CONVERSIONS:
                raise ConfigError(f"calibration={expression!r}: the raw value is {{}}, and {{{name}}} is not")
            field = _Field(f"raw{len(fields)}_", conversion, spec or "")
            fields.append(field)
            text += field.name
    except ValueError as error:
        raise ConfigError(f"calibration={expression!r}: {error}") from None
    return text, fields


_CONVERSIONS: dict[str | None, Callable[[Any], Any]] = {
    "r": repr,
    "s": str,
    "a": ascii,
    None: lambda raw: raw,
}


def _formatted(raw: Any, field: _Field) -> str:
    value = _CONVERSIONS[field.conversion](raw)
    if isinstance(value, str) and field.spec and is_number(number := _number(value)):
        value = number
    return format(value, field.spec)


def _number(raw: Any) -> Any:
    """The number that a text stands for, as instruments answer in texts; else what was given."""
    if not isinstance(raw, str):
        return raw
    for kind in (int, float):
        try:
            return kind(raw)
        except ValueError:
            continue
    return raw


def _texts(tree: ast.AST, fields: list[_Field]) -> list[bool]:
    """Whether fields stand inside of quotes, for each text in an expression."""
    return [
        any(field.name in node.value for field in fields)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]


class _Filling(ast.NodeTransformer):
    """Puts the raw value into quoted texts."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self._filled = texts

    def visit_Constant(self, node: ast.Constant) -> ast.Constant:
        if not isinstance(node.value, str):
            return node
        # In one pass: what was put in is not looked at again.
        text, rest = "", node.value
        while rest:
            for name, filled in self._filled.items():
                if rest.startswith(name):
                    text, rest = text + filled, rest[len(name) :]
                    break
            else:
                text, rest = text + rest[0], rest[1:]
        return ast.copy_location(ast.Constant(text), node)


_WORDS = {True: ("on", "yes"), False: ("off", "no")}


def table(given: Mapping[Any, Any]) -> dict[str, Any]:
    """A dict from a configuration file, by the keys that `lookup` uses.

    In YAML, ``on`` without quotes is true: so what is given for true stands for the text as well.
    """
    found = {_key(raw): value for raw, value in given.items()}
    for raw, value in given.items():
        if isinstance(raw, bool):
            for word in _WORDS[raw]:
                found.setdefault(word, value)
    return found


def lookup(table: Mapping[str, Any], raw: Any, what: str) -> Any:
    """What a table has for a value. Raises `Refused`, naming ``what``."""
    try:
        return table[_key(raw)]
    except KeyError:
        raise Refused(f"{raw!r} is not in the {what}, which has {', '.join(table)}") from None


def _key(raw: Any) -> str:
    """How raw values are looked up: 1, 1.0 and '1' are one, and so are true and True."""
    if isinstance(raw, bool):
        return str(raw).lower()
    if is_number(raw):
        return str(int(raw)) if raw == raw and abs(raw) != math.inf and raw == int(raw) else str(raw)
    return str(raw)
