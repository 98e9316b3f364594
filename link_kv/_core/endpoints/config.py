"""A configuration file of endpoints: YAML, where each mistake is told with its line and column.

Pure but for reading YAML: which modules there are, and which keywords they take, is asked.
"""

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from link_kv.errors import ConfigError

_DASH = re.compile(r"^[ \t]*-(?=[A-Za-z_])([^\s:#]+):(?=\s|$)", re.MULTILINE)


class Kind(NamedTuple):
    """What a keyword's value may be."""

    types: tuple[type, ...]
    what: str


TEXT = Kind((str,), "a text")
FLAG = Kind((bool,), "true or false")
NUMBER = Kind((int, float), "a number")
SECONDS = Kind((int, float), "a number of seconds")
TABLE = Kind((dict,), "a mapping")
LIST = Kind((list,), "a list")
ANY = Kind((object,), "anything")


class Position(NamedTuple):
    """Where in the file something stands, counted from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}, column {self.column}"


class Value(NamedTuple):
    """A value of the file, and where it stands."""

    value: Any
    at: Position
    key_at: Position | None = None
    """Where the key stands that it is given for."""

    @property
    def keyword_at(self) -> Position:
        return self.key_at or self.at


class Accepted(NamedTuple):
    """A class that a ``module:`` names, and the keywords that it takes besides ``name`` and ``module``."""

    kind: type
    keywords: Mapping[str, Kind]


@dataclass(frozen=True)
class Part:
    """An endpoint, or a provider with its endpoints, as the file has it."""

    kind: type
    name: str
    keywords: dict[str, Any]
    at: Position
    endpoints: list[Part] = field(default_factory=list)


class Call(NamedTuple):
    """One of ``setup_calls``."""

    target: str
    method: str
    args: list[Any]
    kwargs: dict[str, Any]
    at: Position


@dataclass(frozen=True)
class Configuration:
    """What a file says."""

    node: str | None
    providers: list[Part]
    setup_calls: list[Call]


Find = Callable[[str, bool], Accepted]
"""The class of a module's name; of a provider, or of an endpoint. Raises `ConfigError`."""


def read(text: str, name: str, find: Find) -> Configuration:
    """Read a file's text. Raises `ConfigError` naming the file, the line and the column."""
    top = _mapping(_load(text, name), "the file", text)
    _only(top, ("node", "nodename", "providers", "setup_calls"), "the file")
    node = top.get("node") or top.get("nodename")
    if "providers" not in top:
        raise ConfigError(f"{name}: has no providers; it starts with `providers:`, and `- name:` below it")
    reader = _Reader(find, text)
    providers = [reader.part(each, True) for each in _items(top["providers"], "providers", text)]
    calls = (
        [reader.call(each) for each in _items(top["setup_calls"], "setup_calls", text)]
        if ("setup_calls" in top)
        else []
    )
    return Configuration(None if node is None else _checked(node, TEXT, "node"), providers, calls)


class _Reader:
    def __init__(self, find: Find, text: str) -> None:
        self._find = find
        self._text = text
        self._names: dict[str, Position] = {}

    def part(self, given: Value, provider: bool) -> Part:
        what = "a provider" if provider else "an endpoint"
        found = _mapping(given, what, self._text)
        for needed in ("name", "module"):
            if needed not in found:
                raise ConfigError(f"{given.at}: {what} needs a {needed!r}")
        name = _checked(found["name"], TEXT, "name")
        module = _checked(found["module"], TEXT, "module")
        if not name or not name.isprintable():
            raise ConfigError(f"{found['name'].at}: name: {name!r} is no name")
        if (other := self._names.setdefault(name.lower(), found["name"].at)) is not found["name"].at:
            raise ConfigError(f"{found['name'].at}: the name {name!r} is at line {other.line} already")
        try:
            accepted = self._find(module, provider)
        except ConfigError as error:
            raise ConfigError(f"{found['module'].at}: module: {error}") from None
        known = ("name", "module", *(("endpoints",) if provider else ()), *accepted.keywords)
        _only(found, known, f"{what} of module {module}")
        keywords = {
            keyword: _checked(value, accepted.keywords[keyword], keyword)
            for keyword, value in found.items()
            if keyword in accepted.keywords
        }
        endpoints = found.get("endpoints") if provider else None
        below = (
            []
            if endpoints is None
            else [self.part(each, False) for each in _items(endpoints, "endpoints", self._text)]
        )
        return Part(accepted.kind, name, keywords, given.at, below)

    def call(self, given: Value) -> Call:
        found = _mapping(given, "a setup call", self._text)
        _only(found, ("target", "method", "args", "kwargs"), "a setup call")
        for needed in ("target", "method"):
            if needed not in found:
                raise ConfigError(f"{given.at}: a setup call needs a {needed!r}")
        args = plain(found["args"]) if "args" in found else []
        kwargs = _checked(found["kwargs"], TABLE, "kwargs") if "kwargs" in found else {}
        return Call(
            _checked(found["target"], TEXT, "target"),
            _checked(found["method"], TEXT, "method"),
            args if isinstance(args, list) else [args],
            kwargs,
            given.at,
        )


def _items(given: Value, what: str, text: str) -> list[Value]:
    if given.value is None:
        return []
    if not isinstance(given.value, list):
        raise _dash(text, given.at) or ConfigError(
            f"{given.at}: {what}: is a list, each of whose items starts with `- name:`"
        )
    return given.value


def _mapping(given: Value, what: str, text: str) -> dict[str, Value]:
    if not isinstance(given.value, dict):
        # A dash without a space after it makes one text of what should be a mapping.
        raise _dash(text, given.at) or ConfigError(f"{given.at}: {what} is a mapping, `name: …`")
    for key, value in given.value.items():
        if not isinstance(key, str):
            raise ConfigError(f"{value.keyword_at}: {key!r} is no keyword of {what}")
        if key.startswith("-"):
            raise _dash(text, value.keyword_at) or ConfigError(
                f"{value.keyword_at}: {key!r} is no keyword of {what}"
            )
    return given.value


def _only(found: Mapping[str, Value], known: Iterable[str], what: str) -> None:
    names = list(known)
    for keyword, value in found.items():
        if keyword not in names:
            near = difflib.get_close_matches(keyword, names, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(names)}"
            raise ConfigError(f"{value.keyword_at}: {keyword!r} is no keyword of {what}{hint}")


def _checked(given: Value, kind: Kind, keyword: str) -> Any:
    value = plain(given)
    fits = isinstance(value, kind.types) and not (
        isinstance(value, bool) and bool not in kind.types and object not in kind.types
    )
    if not fits:
        raise ConfigError(f"{given.at}: {keyword}: {value!r} is not {kind.what}")
    return value


def plain(given: Value) -> Any:
    """A value of the file without its positions."""
    value = given.value
    if isinstance(value, dict):
        return {key: plain(child) for key, child in value.items()}
    if isinstance(value, list):
        return [plain(child) for child in value]
    return value


# Reading YAML


def _load(text: str, name: str) -> Value:
    try:
        yaml: Any = importlib.import_module("yaml")
    except ModuleNotFoundError as error:
        if error.name != "yaml":
            raise
        raise ConfigError(
            "a configuration file of endpoints needs PyYAML: pip install 'link_kv[endpoints]'"
        ) from None
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            raise ConfigError(f"{name}: is empty; it starts with `providers:`")
        return _value(yaml, loader, node, name, (), _Nodes())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        if mark is None:
            raise ConfigError(f"{name}: is no YAML: {error}") from None
        at = Position(name, mark.line + 1, mark.column + 1)
        raise _dash(text, at) or ConfigError(f"{at}: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{name}: is no YAML: {' '.join(str(error).split())}") from None
    except OverflowError:
        raise ConfigError(f"{name}: is no YAML: an escaped character that does not exist") from None
    except RecursionError:
        raise ConfigError(f"{name}: is nested too deeply") from None


_PLAIN = ("tag:yaml.org,2002:seq", "tag:yaml.org,2002:map")
_MERGE = "tag:yaml.org,2002:merge"
_MOST_REPEATED = 10_000
"""Values that aliases may repeat. Without a bound, ten lines of aliases of aliases would fill the memory."""


class _Nodes:
    """The nodes that were read, to notice those that are read again."""

    def __init__(self) -> None:
        self._read: set[int] = set()
        self._left = _MOST_REPEATED

    def read(self, node: Any, at: Position) -> None:
        if id(node) in self._read:
            self._left -= 1
            if self._left < 0:
                raise ConfigError(f"{at}: aliases repeat more than {_MOST_REPEATED} values")
        self._read.add(id(node))


def _value(yaml: Any, loader: Any, node: Any, file: str, above: tuple[int, ...], nodes: _Nodes) -> Value:
    at = _position(node, file)
    if id(node) in above:
        raise ConfigError(f"{at}: contains itself")
    nodes.read(node, at)
    inside = (*above, id(node))
    if isinstance(node, yaml.ScalarNode):
        return Value(_scalar(yaml, loader, node, at), at)
    if node.tag not in _PLAIN:
        raise ConfigError(f"{at}: {node.tag}: what a tag asks for is not made here")
    if isinstance(node, yaml.SequenceNode):
        return Value([_value(yaml, loader, each, file, inside, nodes) for each in node.value], at)
    found: dict[Any, Value] = {}
    merged: dict[Any, Value] = {}
    for key_node, value_node in node.value:
        key_at = _position(key_node, file)
        if not isinstance(key_node, yaml.ScalarNode):
            raise ConfigError(f"{key_at}: keys are single words")
        value = _value(yaml, loader, value_node, file, inside, nodes)
        if key_node.tag == _MERGE:
            for key, each in _merged(value):
                merged.setdefault(key, each)
            continue
        key = _scalar(yaml, loader, key_node, key_at)
        if key in found:
            raise ConfigError(f"{key_at}: {key!r} is given twice")
        found[key] = value._replace(key_at=key_at)
    return Value({**merged, **found}, at)


def _position(node: Any, file: str) -> Position:
    return Position(file, node.start_mark.line + 1, node.start_mark.column + 1)


def _scalar(yaml: Any, loader: Any, node: Any, at: Position) -> Any:
    try:
        return loader.construct_object(node)
    except yaml.YAMLError:
        raise
    except Exception:  # noqa: BLE001 - PyYAML lets through whatever its conversions raise
        kind = node.tag.rpartition(":")[2]
        raise ConfigError(f"{at}: {node.value[:60]!r} is no {kind}; if it is a text, quote it") from None


def _merged(given: Value) -> Iterator[tuple[Any, Value]]:
    """What ``<<:`` stands for. What comes first counts, and what the mapping says itself counts more."""
    for each in given.value if isinstance(given.value, list) else [given]:
        if not isinstance(each.value, dict):
            raise ConfigError(f"{each.at}: << takes a mapping, or a list of mappings")
        yield from each.value.items()


def _dash(text: str, near: Position) -> ConfigError | None:
    """That a space is missing after a dash, where one is, at or above a mistake."""
    starts = list(_line_starts(text))
    for found in _DASH.finditer(text):
        line = sum(start <= found.start() for start in starts)
        if near.line - _REACH <= line <= near.line + _REACH:
            column = found.start() + len(found[0]) - len(found[0].lstrip()) - starts[line - 1] + 1
            return ConfigError(
                f"{Position(near.file, line, column)}: a space is missing after the dash: "
                f"`- {found[1]}:`, not `-{found[1]}:`"
            )
    return None


_REACH = 2
"""Lines between a dash without a space and the place where YAML stumbles over it."""


def _line_starts(text: str) -> Iterator[int]:
    yield 0
    for found in re.finditer("\n", text):
        yield found.end()
