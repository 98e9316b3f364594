"""Texts from etcd as parameters of b3j0f.conf, and parameters as texts."""

from __future__ import annotations

import ast
import re
from typing import Any

from b3j0f.conf import BOOL, Parameter, PType
from b3j0f.conf import Array as ArrayType
from b3j0f.conf.model.param import parse, serialize

from link_kv._core.configuration.text import Array, text_of, value_of

_INFERRED = (bool, int, float, list, tuple, dict, set, frozenset)
_PYTHONS_OWN = re.compile(r"__.*__", re.DOTALL)
_SIMPLE = re.compile(Parameter.PARAM_NAME_REGEX)
_EXPRESSION = re.compile(r"=|.*[%@]", re.DOTALL)


class Literal:
    """A parser that reads one text as data, whatever it says.

    It goes with the parameter wherever b3j0f copies that, so the text is never handed to a parser that
    evaluates it. A text from elsewhere, of a file that overrides etcd, is read by the declared parser.
    """

    __slots__ = ("declared", "text")

    def __init__(self, text: str, declared: Any) -> None:
        self.text = text
        self.declared = declared

    def __call__(self, svalue: str, ptype: Any = None, **others: Any) -> Any:
        if svalue == self.text and self.declared is parse:
            return value_of(svalue, plain(ptype))
        return self.declared(svalue=svalue, ptype=ptype, **others)


def plain(ptype: Any) -> Any:
    """A declared type in the words of `conf_text`: what is inside a `PType`, such as bool in `BOOL`."""
    while type(ptype) in (PType, type(BOOL)):
        ptype = ptype.ptype
    if type(ptype) is tuple:
        return tuple(map(plain, ptype))
    return Array(plain(ptype.ptype)) if isinstance(ptype, ArrayType) else ptype


def declared_type(declared: Any) -> Any:
    """The type of a parameter, plain: the declared one, else that of the default; None for text."""
    default = type(declared._value)
    return plain(default if declared.ptype is None and default in _INFERRED else declared.ptype)


def read_by_type(declared: Any) -> bool:
    """Whether a parameter is read by its type, rather than by a parser of the program's own."""
    return _own_parser(declared) is parse


def declared_in(conf: Any, cname: str, name: str) -> Any:
    """The parameter that a configuration declares for a name, in the category or, as b3j0f has it, in any."""
    key = key_of(name)
    if conf is None or not any(key in category for category in conf.values()):
        return None
    return conf[cname][key] if key in conf.get(cname, ()) else conf.param(pname=key)


def parameter(declared: Any, name: str, text: str, *, expressions: bool) -> Any:
    """A parameter with the value of a text, or, with `expressions`, with a text still to be evaluated.

    Raises `ValueError` when the text or the name does not fit.
    """
    if declared is None:
        if _PYTHONS_OWN.fullmatch(name):
            raise ValueError("names of this form are Python's own, and are set only when they are declared")
        try:
            declared = Parameter(name=name)
        except (re.error, OverflowError, RecursionError) as error:
            # b3j0f takes a name that is no identifier for a pattern.
            raise ValueError(f"{name!r} cannot be the name of a parameter: {error}") from error
    if expressions:
        # Without a scope of its own b3j0f cannot evaluate it for another that refers to it.
        scope = {} if declared.scope is None else declared.scope
        return declared.copy(svalue=text, value=None, scope=scope, parser=_own_parser(declared), error=None)
    value = read(declared, text)
    # A text whose value is None must not be left for others to read again.
    kept = None if value is None else text
    return declared.copy(svalue=kept, value=value, parser=Literal(text, _own_parser(declared)), error=None)


def text_of_parameter(parameter: Any, path: str, *, expressions: bool) -> str | None:
    """What to store for a parameter; None when it has no value. Raises `EncodeError` naming the path."""
    # Not the properties value and svalue: they evaluate.
    value, text = parameter._value, parameter._svalue
    if text is not None and text.startswith("=py:"):
        # How b3j0f writes a value that is no str.
        try:
            literal = ast.literal_eval(text[4:])
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            pass  # an expression
        else:
            value, text = literal if value is None else value, None
    if value is None:
        return None if text is None else str(text)
    if text is not None and ((expressions and _EXPRESSION.match(text)) or _reads_as(parameter, text, value)):
        return str(text)
    if parameter.serializer is not serialize:
        return str(parameter.serializer(value))
    return text_of(value, plain(parameter.ptype), path)


def key_of(name: str) -> Any:
    """The key of a parameter in its category: its name, or the pattern that b3j0f made of it."""
    if _SIMPLE.fullmatch(name):
        return name
    try:
        return Parameter(name=name).name
    except (re.error, OverflowError, RecursionError):
        return name


def _own_parser(declared: Any) -> Any:
    parser = declared.parser
    while isinstance(parser, Literal):
        parser = parser.declared
    return parser


def read(declared: Any, text: str) -> Any:
    """The value of a text for a declared parameter. Raises `ValueError`."""
    parser, ptype = _own_parser(declared), declared.ptype
    if read_by_type(declared):
        return value_of(text, declared_type(declared))
    try:
        # A parser of the program's own, and so is what it does.
        return parser(
            svalue=text,
            conf=None,
            configurable=declared.configurable,
            ptype=ptype,
            scope=declared.scope,
            safe=declared.safe,
            besteffort=declared.besteffort,
        )
    except Exception as error:
        raise ValueError(f"the parser of the parameter refuses it: {error}") from error


def _reads_as(declared: Any, text: str, value: Any) -> bool:
    try:
        return bool(read(declared, text) == value)
    except ValueError:
        return False
