"""A configuration against what running processes accept, which they publish as JSON Schema."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from link_kv._core.configuration.text import Array, from_stored, value_of
from link_kv._core.configuration.tree import Stored
from link_kv.codec import decode
from link_kv.errors import LinkKVError
from link_kv.tree import Place, encode_name

TEXTS = "x-link-kv-texts"
"""Marks the schema of a configuration of b3j0f.conf, whose values are texts that are read by their types."""

_DEEPEST = 50
_PTYPES = {"boolean": bool, "integer": int, "number": float, "string": str, "object": dict, "array": list}
_TYPES: dict[type, tuple[str, ...]] = {
    bool: ("boolean",),
    int: ("integer", "number"),
    float: ("number",),
    str: ("string",),
    type(None): ("null",),
}
_BOOLEANS = dict.fromkeys(("true", "yes", "on", "1", "t", "y"), True)
_BOOLEANS |= dict.fromkeys(("false", "no", "off", "0", "f", "n"), False)


def problems(schema: Mapping[str, Any], tree: Any) -> dict[str, str]:
    """What a schema does not accept in a tree of stored bytes, by paths relative to it."""
    try:
        from jsonschema import Draft202012Validator, SchemaError
        from referencing import Registry
        from referencing.exceptions import Unresolvable
    except ModuleNotFoundError as error:
        raise LinkKVError("checking needs jsonschema: pip install 'link_kv[cli]'") from error
    try:
        Draft202012Validator.check_schema(schema)
        # A registry of its own: by default references to elsewhere are fetched.
        validator = Draft202012Validator(schema, registry=Registry())
        found = list(validator.iter_errors(_fit(schema, schema, tree, 0)))
    except (SchemaError, Unresolvable, RecursionError) as error:
        raise LinkKVError(f"a process publishes what is no usable schema: {type(error).__name__}") from None
    told: dict[str, str] = {}
    for each in found:
        told.setdefault("/".join(_segments(each.absolute_path)), each.message)
    return told


def problems_of_texts(schema: Mapping[str, Any], at: Place, stored: Stored) -> dict[str, str]:
    """What a process of b3j0f.conf does not accept in a configuration, by paths relative to it.

    Texts are read as it reads them, which JSON Schema cannot tell: it takes 1.0 for an integer.
    """
    told = {path[len(at.path) + 1 :]: reason for path, reason in stored.problems.items()}
    for cname, texts in stored.categories.items():
        for name, text in texts.items():
            try:
                value_of(text, _ptype(_declared(schema, cname, name)))
            except ValueError as error:
                told[f"{encode_name(cname)}/{encode_name(name)}"] = str(error)
    return told


def _declared(schema: Mapping[str, Any], cname: str, name: str) -> Any:
    """The schema of a parameter in its category or, as b3j0f.conf has it, in any."""
    categories = schema.get("properties")
    others = list(categories.values()) if isinstance(categories, Mapping) else []
    for category in (_property([schema], cname), *reversed(others)):
        found = _property([category], name) if isinstance(category, Mapping) else {}
        if found:
            return found
    return {}


def _ptype(schema: Any) -> Any:
    kind = schema.get("type") if isinstance(schema, Mapping) else None
    if kind == "array" and "items" in schema:
        return Array(_ptype(schema["items"]) or object)
    return _PTYPES.get(kind) if isinstance(kind, str) else None


def _segments(steps: Any) -> Iterator[str]:
    for step in steps:
        yield str(step + 1) if isinstance(step, int) else encode_name(step)


def _fit(root: Mapping[str, Any], schema: Any, node: Any, depth: int) -> Any:
    """A tree as the values that a person meant, where the schema tells."""
    parts = list(_parts(root, schema, depth))
    if isinstance(node, bytes):
        return _leaf(root, parts, node, depth)
    if isinstance(node, list):
        items = _items(parts)
        return [_fit(root, items, child, depth + 1) for child in node]
    return {name: _fit(root, _property(parts, name), child, depth + 1) for name, child in node.items()}


def _parts(root: Mapping[str, Any], schema: Any, depth: int) -> Iterator[Mapping[str, Any]]:
    """A schema, and all that it refers to or combines."""
    if not isinstance(schema, Mapping) or depth > _DEEPEST:
        return
    yield schema
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference.startswith("#/$defs/"):
        definitions = root.get("$defs")
        if isinstance(definitions, Mapping):
            yield from _parts(root, definitions.get(reference.removeprefix("#/$defs/")), depth + 1)
    for word in ("anyOf", "oneOf", "allOf"):
        several = schema.get(word)
        for each in several if isinstance(several, list) else ():
            yield from _parts(root, each, depth + 1)


def _items(parts: list[Mapping[str, Any]]) -> Any:
    return next((part["items"] for part in parts if "items" in part), None)


def _property(parts: list[Mapping[str, Any]], name: str) -> Any:
    for word in ("properties", "additionalProperties"):
        for part in parts:
            found = part.get(word)
            if isinstance(found, Mapping) and (word != "properties" or name in found):
                return found[name] if word == "properties" else found
    return {}


def _leaf(root: Mapping[str, Any], parts: list[Mapping[str, Any]], stored: bytes, depth: int) -> Any:
    value, text = decode(stored), from_stored(stored)
    types: set[str] = set()
    allowed: list[Any] = []
    for part in parts:
        kind = part.get("type")
        types.update(kind if isinstance(kind, list) else [kind] if isinstance(kind, str) else [])
        allowed += part["enum"] if isinstance(part.get("enum"), list) else []
        allowed += [part["const"]] if "const" in part else []
    if text is None:
        return None  # bytes and arrays have no JSON form
    if allowed:
        return value if any(type(each) is type(value) and each == value for each in allowed) else text
    if not types or types.intersection(_TYPES.get(type(value), ())):
        return value
    if "boolean" in types and text.strip().lower() in _BOOLEANS:
        return _BOOLEANS[text.strip().lower()]
    if types & {"integer", "number"}:
        for kind in (int, float):
            try:
                return kind(text)
            except ValueError:
                continue
    if types & {"array", "object"}:
        if text.lstrip().startswith(("[", "{")):
            try:
                return json.loads(text)
            except (ValueError, RecursionError):
                return text
        if "array" in types:
            kinds = list(_parts(root, _items(parts), depth + 1))
            texts = [item.strip().encode() for item in text.split(",")] if text.strip() else []
            return [_leaf(root, kinds, item, depth + 1) for item in texts]
    return text
