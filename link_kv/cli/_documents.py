"""Nested values as JSON, YAML and TOML, and back.

All three lack some of the values that etcd holds here. These become an object with one key, which says what
it is: ``{"$bytes": "…"}`` and ``{"$npy": "…"}`` (an array in the .npy format) in base64, and in JSON also
``{"$float": "NaN"}``. A dict that looks like one of them gets one more ``$``.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import datetime
import importlib
import json
import math
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from link_kv.codec import decode, encode
from link_kv.errors import LinkKVError

FORMATS = ("json", "yaml", "toml")

format_option = click.option(
    "-f", "--format", "form", type=click.Choice(FORMATS), help="By default what the file is named, else json."
)

_TAG = re.compile(r"\$+(bytes|npy|float)")
_FLOATS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class DocumentError(LinkKVError, ValueError):
    """A document that cannot be read, or a value that its format cannot hold."""


def form_of(name: str) -> str:
    """The format of a file, by its name."""
    ending = name.rpartition(".")[2].lower()
    return {"yaml": "yaml", "yml": "yaml", "toml": "toml"}.get(ending, "json")


# Writing


def dumps(value: Any, indent: int | None = None) -> str:
    """A value as JSON in printable characters. Raises `DocumentError` when it is nested too deeply."""
    try:
        text = json.dumps(_tagged(value, True), ensure_ascii=False, allow_nan=False, indent=indent)
    except RecursionError:
        raise DocumentError("the value is nested too deeply for JSON") from None
    # JSON itself escapes only what is below a space. The newlines are those of the indent.
    return re.sub(r"[^\n -~]", lambda found: found[0] if found[0].isprintable() else _ascii(found[0]), text)


def _ascii(character: str) -> str:
    return json.dumps(character)[1:-1]


def write(value: Any, form: str) -> str:
    """A value as a document, with a newline at its end. Raises `DocumentError`."""
    if form == "json":
        return dumps(value, indent=2) + "\n"
    try:
        plain = _tagged(value, False)
        return _write_yaml(plain) if form == "yaml" else _write_toml(plain)
    except RecursionError:
        raise DocumentError(f"the value is nested too deeply for {form.upper()}") from None


def _write_yaml(value: Any) -> str:
    yaml = _yaml()
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    text: str = yaml.dump(value, Dumper=dumper, sort_keys=False, allow_unicode=True)
    return text.removesuffix("...\n")  # PyYAML ends a document that is a scalar with it


def _write_toml(value: Any) -> str:
    try:
        import tomli_w
    except ModuleNotFoundError as error:
        raise LinkKVError("TOML needs tomli-w: pip install 'link_kv[toml]'") from error
    if not isinstance(value, dict):
        raise DocumentError("TOML holds a dict, and this is none; use json or yaml")
    if (null := _find_none(value, "")) is not None:
        raise DocumentError(f"{null}: TOML has no null; use json or yaml")
    return tomli_w.dumps(value)


def _find_none(value: Any, path: str) -> str | None:
    if value is None:
        return path
    children: Iterable[tuple[object, Any]] = ()
    if isinstance(value, (dict, list)):
        children = value.items() if isinstance(value, dict) else enumerate(value, 1)
    for name, child in children:
        found = _find_none(child, f"{path}/{name}")
        if found is not None:
            return found
    return None


def _tagged(value: Any, is_json: bool) -> Any:
    """A value in what JSON, or YAML and TOML, can hold."""
    if isinstance(value, dict):
        tagged = {name: _tagged(child, is_json) for name, child in value.items()}
        if len(tagged) == 1:
            [(name, child)] = tagged.items()
            if _TAG.fullmatch(name):
                return {f"${name}": child}
        return tagged
    if isinstance(value, list):
        return [_tagged(child, is_json) for child in value]
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode()}
    if isinstance(value, float):
        return value if math.isfinite(value) or not is_json else {"$float": encode(value).decode()}
    if value is None or isinstance(value, (str, int)):
        return value
    return {"$npy": base64.b64encode(encode(value)).decode()}


# Reading


def load(name: str, form: str | None = None) -> Any:
    """The value in a file; ``-`` is standard input. Raises `DocumentError` and `OSError`."""
    if name == "-":
        return read(sys.stdin.buffer.read(), form or "json", "standard input")
    return read(Path(name).read_bytes(), form or form_of(name), name)


def read(data: bytes, form: str, name: str) -> Any:
    """The value of a document. ``name`` is for errors. Raises `DocumentError`."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DocumentError(f"{name}, line {line}: not UTF-8 text") from None
    reader = {"json": _read_json, "yaml": _read_yaml, "toml": _read_toml}[form]
    try:
        return _untagged(reader(text, name), name, "")
    except RecursionError:
        raise DocumentError(f"{name}: is nested too deeply") from None


def _read_json(text: str, name: str) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [key for key, _ in pairs]
            twice = next(key for key in names if names.count(key) > 1)
            raise DocumentError(f"{name}: an object has the key {twice!r} twice")
        return found

    try:
        return json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise DocumentError(f"{name}, line {error.lineno}, column {error.colno}: {error.msg}") from None
    except DocumentError:
        raise
    except ValueError as error:  # an integer longer than Python reads
        raise DocumentError(f"{name}: {error}") from None


def _read_yaml(text: str, name: str) -> Any:
    yaml = _yaml()

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen: set[str] = set()
            for key, _ in node.value:
                if key.tag == "tag:yaml.org,2002:str":
                    if key.value in seen:
                        line = key.start_mark.line + 1
                        raise DocumentError(f"{name}, line {line}: the key {key.value!r} is there twice")
                    seen.add(key.value)
            return super().construct_mapping(node, deep)

        def flatten_mapping(self, node: Any) -> None:
            merges = any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value)
            super().flatten_mapping(node)
            if merges:  # the last of each key counts, and merges of merges would double the others
                node.value = list(
                    {(key.tag, str(key.value)): (key, value) for key, value in node.value}.values()
                )

        def construct_object(self, node: Any, deep: bool = False) -> Any:
            try:
                return super().construct_object(node, deep)
            except (yaml.YAMLError, DocumentError, RecursionError):
                raise
            except Exception:  # noqa: BLE001 - PyYAML lets through whatever its conversions raise
                mark, kind = node.start_mark, node.tag.rpartition(":")[2]
                what = repr(node.value[:60]) if isinstance(node.value, str) else "this"
                raise DocumentError(
                    f"{name}, line {mark.line + 1}, column {mark.column + 1}: {what} is no {kind}; "
                    "if it is a text, quote it"
                ) from None

    try:
        value = yaml.load(text, Loader=Loader)
        if _size(value, {}) > _MOST:
            raise DocumentError(f"{name}: aliases make more than {_MOST} values of it")
        return value
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise DocumentError(f"{name}{where}: {error.problem}") from None
    except yaml.YAMLError as error:
        raise DocumentError(f"{name}: {' '.join(str(error).split())}") from None


_MOST = 1_000_000
"""Values of one document. Without a bound, ten lines of aliases of aliases would fill the memory."""


def _size(value: Any, known: dict[int, int]) -> int:
    """How many values there are, those as often that stand in several places."""
    if not isinstance(value, (dict, list)):
        return 1
    if id(value) not in known:
        known[id(value)] = 0  # of one that contains itself; that is noticed later
        children = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_size(child, known) for child in children)
    return known[id(value)]


def _yaml() -> Any:
    try:
        import yaml  # type: ignore[import-untyped]
    except ModuleNotFoundError as error:
        raise LinkKVError("YAML needs PyYAML: pip install 'link_kv[yaml]'") from error
    return yaml


def _read_toml(text: str, name: str) -> Any:
    tomllib = _toml()
    try:
        return tomllib.loads(text)
    except ValueError as error:  # no TOML, or an integer longer than Python reads
        raise DocumentError(f"{name}: {error}") from None


def _toml() -> Any:
    for module in ("tomllib", "tomli"):  # the first since Python 3.11
        with contextlib.suppress(ModuleNotFoundError):
            return importlib.import_module(module)
    raise LinkKVError("TOML needs tomli: pip install 'link_kv[toml]'")


def _untagged(value: Any, name: str, path: str) -> Any:
    if isinstance(value, dict):
        if len(value) == 1:
            [(key, child)] = value.items()
            if isinstance(key, str) and _TAG.fullmatch(key):
                if key.startswith("$$"):
                    return {key[1:]: _untagged(child, name, f"{path}/{key}")}
                return _meant(key, child, f"{name}: {path or '/'}")
        return {key: _untagged(child, name, f"{path}/{key}") for key, child in value.items()}
    if isinstance(value, list):
        return [_untagged(child, name, f"{path}/{index}") for index, child in enumerate(value, 1)]
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()  # etcd holds no dates; this is how people write them
    return value


def _meant(tag: str, content: Any, where: str) -> Any:
    """What an object with one of our keys stands for."""
    if tag == "$float":
        if isinstance(content, str) and content in _FLOATS:
            return _FLOATS[content]
        raise DocumentError(f"{where}: $float is one of {', '.join(_FLOATS)}")
    try:
        data = base64.b64decode(content, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise DocumentError(f"{where}: {tag} holds text in base64") from None
    if tag == "$bytes":
        return data
    array = decode(data)
    if array is None or isinstance(array, (bytes, str, int, float)):
        raise DocumentError(f"{where}: $npy holds an .npy array, which numpy reads (link_kv[numpy])")
    return array
