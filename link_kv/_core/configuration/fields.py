"""Trees from etcd as what pydantic's fields take, by their declared types.

In etcd a value is text, and whoever stored it should not have to know that ``1.10`` reads as a number.
So a field that holds text gets the text, one that holds a number the number, and a list also ``a, b``.
"""

from __future__ import annotations

import copy
import enum
import json
import types
from collections import deque
from collections.abc import Iterable, Mapping
from datetime import date, time, timedelta
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import AliasChoices, BaseModel

from link_kv._core.configuration.applied import source_of
from link_kv._core.configuration.text import from_stored
from link_kv.codec import decode
from link_kv.tree import Place, decode_name, encode_name

_ANYTHING = (Any, object)
_SEQUENCES = (list, tuple, set, frozenset, deque)
_TIMES = (date, time, timedelta)
"""Numbers of seconds are among what these take, and texts of such numbers are not."""


# Fields


def fit_model(models: Iterable[type[BaseModel]], tree: Mapping[str, Any]) -> dict[str, Any]:
    """A tree as the input of a model, or of one of several."""
    declared: dict[str, list[Any]] = {}
    for model in models:
        for name, field in model.model_fields.items():
            for alias in (name, *aliases(field)):
                declared.setdefault(alias, []).append(field.annotation)
    return {name: _fit(declared.get(name, [Any]), node) for name, node in tree.items()}


def aliases(field: Any) -> list[str]:
    """The other names that a field is given by."""
    found = [field.validation_alias, field.alias]
    if isinstance(field.validation_alias, AliasChoices):
        found += field.validation_alias.choices
    return [alias for alias in found if isinstance(alias, str)]


def fit(annotation: Any, node: Any) -> Any:
    """A part of a tree as the input of a field."""
    return _fit([annotation], node)


def _fit(annotations: Iterable[Any], node: Any) -> Any:
    """A part of a tree as the input of a field that several models may have, each with its type."""
    several = [list(_arms(annotation)) for annotation in annotations]
    if isinstance(node, bytes):
        # Pydantic reads numbers from text, but no text from numbers.
        return _leaf(next((arms for arms in several if str in arms), several[0]), node)
    arms = [arm for each in several for arm in each]
    if isinstance(node, list):
        items = _item_types(arms, len(node))
        return [fit(kind, item) for kind, item in zip(items, node, strict=True)]
    if models := [arm for arm in arms if _is_class(arm) and issubclass(arm, BaseModel)]:
        return fit_model(models, node)
    values = next((get_args(arm)[1] for arm in arms if _is_mapping(arm) and len(get_args(arm)) == 2), Any)
    return {name: fit(values, child) for name, child in node.items()}


def _arms(annotation: Any) -> Iterable[Any]:
    """The types that an annotation allows."""
    if isinstance(annotation, TypeVar) or annotation is None:
        yield Any if annotation is not None else type(None)
        return
    if hasattr(annotation, "__value__"):  # type X = …
        annotation = annotation.__value__
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _arms(get_args(annotation)[0])
    elif origin in (Union, types.UnionType):
        for arm in get_args(annotation):
            yield from _arms(arm)
    else:
        yield getattr(annotation, "__supertype__", annotation)  # of a NewType


def _is_class(arm: Any) -> bool:
    return isinstance(arm, type) and get_origin(arm) is None  # list[str] is a type on Python 3.10


def _kind(arm: Any) -> Any:
    return get_origin(arm) or arm


def _is_mapping(arm: Any) -> bool:
    kind = _kind(arm)
    return isinstance(kind, type) and issubclass(kind, Mapping)


def _is_sequence(arm: Any) -> bool:
    kind = _kind(arm)
    if not isinstance(kind, type) or issubclass(kind, (str, bytes)) or _is_mapping(arm):
        return False
    # An address range can be iterated over too, and is no list.
    return issubclass(kind, _SEQUENCES) or (
        issubclass(kind, Iterable) and (kind.__module__ == "collections.abc" or bool(get_args(arm)))
    )


def _item_types(arms: list[Any], count: int) -> list[Any]:
    args = next((get_args(arm) for arm in arms if _is_sequence(arm) and get_args(arm)), (Any,))
    if len(args) == count and Ellipsis not in args:
        return list(args)
    return [args[0]] * count


def _leaf(arms: list[Any], stored: bytes) -> Any:
    value, text = decode(stored), from_stored(stored)
    if text is None or any(arm in _ANYTHING or _takes(arm, value) for arm in arms):
        return value
    is_model = any(_is_class(arm) and issubclass(arm, BaseModel) for arm in arms)
    sequence = any(map(_is_sequence, arms))
    if (is_model or sequence or any(map(_is_mapping, arms))) and str not in arms:
        if text.lstrip().startswith(("[", "{")):
            try:
                return json.loads(text)
            except (ValueError, RecursionError):
                return text  # for pydantic to refuse
        if sequence:
            items = [item.strip().encode() for item in text.split(",")] if text.strip() else []
            return [fit(kind, item) for kind, item in zip(_item_types(arms, len(items)), items, strict=True)]
    return text


def _takes(arm: Any, value: Any) -> bool:
    """Whether a value is one of a type already, so that its text is not needed."""
    if get_origin(arm) is Literal:
        return any(type(value) is type(each) and value == each for each in get_args(arm))
    if not _is_class(arm):
        return False
    if issubclass(arm, enum.Enum):
        return any(type(value) is type(each.value) and value == each.value for each in arm)
    if type(value) in (bool, int, float):
        return type(value) is arm or (type(value) is int and arm is float) or issubclass(arm, _TIMES)
    try:
        return isinstance(value, arm)
    except TypeError:  # a TypedDict, or a protocol
        return False


# Errors


def problems_of(
    errors: Iterable[Mapping[str, Any]], at: Place, tree: Any, elsewhere: Mapping[str, str]
) -> dict[str, str]:
    """What pydantic says, by paths in etcd."""
    problems: dict[str, str] = {}
    tree = _grown(tree, elsewhere)
    for error in errors:
        missing = error["type"] == "missing"
        below = "/".join(_segments(error["loc"], tree, missing))
        path = f"{at.path}/{below}" if below else at.path
        reason = str(error["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
        if source := source_of(elsewhere, below):
            reason += f" (from {source})"
        problems[path] = f"{problems[path]}; {reason}" if path in problems else reason
    return problems


def _grown(tree: Any, paths: Iterable[str]) -> Any:
    """A tree with what sources before etcd have given, as far as its names go."""
    tree = copy.deepcopy(tree)
    for path in paths:
        node = tree
        for name in map(decode_name, path.split("/")):
            if not isinstance(node.get(name), dict):
                node[name] = {}
            node = node[name]
    return tree


def _segments(loc: tuple[int | str, ...], node: Any, missing: bool) -> Iterable[str]:
    """The segments of a location, as far as it is one in the tree; without the arms of unions in it.

    ``missing`` tells that its last step is of what is not in the tree.
    """
    for depth, step in enumerate(loc):
        if isinstance(node, dict):
            if depth and step not in node and not (missing and depth == len(loc) - 1):
                continue
            node = node.get(step)
        elif isinstance(node, list):
            if not isinstance(step, int):
                continue
            node = node[step] if step < len(node) else None
        else:
            return
        yield str(step + 1) if isinstance(step, int) else encode_name(step)
