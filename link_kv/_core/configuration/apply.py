"""Texts from etcd applied to what a `Configurable` has configured, without b3j0f.conf's own way of doing it.

That copies every parameter five times: 90 ms for a thousand. Here a text is read by the declared type, and
instances get all values in one step. What only b3j0f.conf itself can do, sub-configurables among it, is left
to it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from types import FunctionType
from typing import Any, NamedTuple, Protocol

from b3j0f.conf import Parameter

from link_kv._core.configuration.parameters import (
    declared_in,
    declared_type,
    key_of,
    parameter,
    read,
    read_by_type,
)
from link_kv._core.configuration.schema import TEXTS
from link_kv._core.configuration.text import Array
from link_kv._core.configuration.tree import Stored
from link_kv.tree import encode_name

log = logging.getLogger("link_kv.reload")

_CONSTANT = (str, int, float, bytes, type(None))
_SUB = ":"
"""What the names of categories for sub-configurables begin with."""
_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", dict: "object"}
_TYPES |= dict.fromkeys((list, tuple, set, frozenset), "array")


Good = dict[tuple[str, str, str], str]
"""Texts that fitted, by path, category and name."""


class Values(NamedTuple):
    """What a configuration comes to."""

    named: dict[str, Any]
    """Values by the names of parameters: of categories that have the same name, the last one's."""
    foreign: frozenset[str]
    """Names that the program does not declare."""

    @property
    def declared(self) -> dict[str, Any]:
        return {name: value for name, value in self.named.items() if name not in self.foreign}


class _Known:
    """A parameter at one place in a configuration, and what was last read of it."""

    __slots__ = ("declared", "key", "problem", "text", "value")

    def __init__(self, declared: Any, name: str) -> None:
        self.declared = declared
        self.key = key_of(name)
        self.problem: str | None = None
        if declared is None:
            try:
                parameter(None, name, "", expressions=False)
            except ValueError as error:
                self.problem = str(error)
        self.text: str | None = None
        self.value: Any = None

    def take(self, text: str) -> None:
        """Read another text. Raises `ValueError`, and then keeps the one before."""
        if self.problem is not None:
            raise ValueError(self.problem)
        self.value = text if self.declared is None else read(self.declared, text)
        self.text = text

    def fits(self, text: str | None) -> bool:
        """Whether a text could be read; then that is the value."""
        try:
            if text is not None:
                self.take(text)
        except ValueError:
            return False  # it was good for another type
        return text is not None


def _default(declared: Any) -> Any:
    """What a parameter is worth when etcd has none."""
    try:
        return declared.value
    except Parameter.Error as error:
        log.error("%s: what the program declares fails: %s", declared.name, error)
        return None


class Applier:
    """Reads texts as what a configuration declares. One thread at a time."""

    def __init__(self, conf: Any) -> None:
        self._conf = conf
        self._defaults = {
            name: {key: _default(each) for key, each in found.items()} for name, found in conf.items()
        }
        self._known: dict[tuple[str, str, str], _Known] = {}

    def read(
        self, configurations: Mapping[str, Stored], good: Good | None = None
    ) -> tuple[Values, dict[str, str]]:
        """The values of configurations, later ones over earlier ones, and problems by their paths.

        What does not fit is left out, or stands as in ``good``, the texts that fitted last.
        """
        problems: dict[str, str] = {}
        merged: dict[str, dict[Any, Any]] = {name: {**found} for name, found in self._defaults.items()}
        foreign: set[str] = set()
        for path, stored in configurations.items():
            problems |= stored.problems
            for cname, texts in stored.categories.items():
                values = merged.setdefault(cname, {})
                for name, text in texts.items():
                    known = self._known.get((path, cname, name))
                    if known is None:
                        known = _Known(declared_in(self._conf, cname, name), name)
                        self._known[path, cname, name] = known
                    # What can be changed is read anew, as somebody may have changed it.
                    if known.text != text or not isinstance(known.value, _CONSTANT):
                        try:
                            known.take(text)
                        except ValueError as error:
                            problems[f"{path}/{encode_name(cname)}/{encode_name(name)}"] = str(error)
                            if good is None or not known.fits(good.get((path, cname, name))):
                                continue
                        else:
                            if good is not None:
                                good[path, cname, name] = text
                    if known.value is not None:
                        values[known.key] = known.value
                    if known.declared is None:
                        foreign.add(name)
        named: dict[str, Any] = {}
        for values in merged.values():
            for key, value in values.items():
                named[getattr(key, "pattern", key)] = value
        return Values(named, frozenset(foreign)), problems


def has_parts(conf: Any, stored: Iterable[str]) -> bool:
    """Whether there are sub-configurables, which only b3j0f.conf itself applies."""
    return any(name.startswith(_SUB) for name in (*conf, *stored))


def apply(configurable: Any, driver: Driver, targets: list[Any], logger: Any) -> bool:
    """What `Configurable.applyconfiguration` does; False where only that can, and nothing was done."""
    paths = [rscpath for path in configurable.paths for rscpath in driver.rscpaths(path)]
    stored = {path: driver._read(path, logger).stored for path in paths}
    if has_parts(configurable.conf, [name for each in stored.values() for name in each.categories]):
        return False
    values, problems = Applier(configurable.conf).read(stored, driver._good_of(configurable))
    for path in paths:
        own = {name: why for name, why in problems.items() if name == path or name.startswith(f"{path}/")}
        driver._report(path, own, logger)
    for target in targets:
        assign(target, values.named if configurable.foreigns else values.declared)
    return True


class Driver(Protocol):
    """What applying needs of an `EtcdConfDriver`."""

    def rscpaths(self, path: str) -> list[str]: ...
    def _good_of(self, reader: Any) -> Good: ...
    def _read(self, path: str, logger: Any) -> Any: ...
    def _report(self, path: str, problems: dict[str, str], logger: Any) -> None: ...


# Instances


def instances(targets: Any) -> list[Any]:
    """Those of a configurable's targets that hold values: classes and functions take theirs when called."""
    return [each for each in targets if not isinstance(each, (type, FunctionType))]


def assign(target: Any, values: Mapping[str, Any]) -> None:
    """Set attributes of an object, all in one step where its class does nothing of its own with them."""
    cls = type(target)
    plain = {name: value for name, value in values.items() if name.isidentifier()}
    own = getattr(target, "__dict__", None)
    if own is not None and getattr(cls, "__setattr__", None) is object.__setattr__:
        members = [item for base in cls.__mro__ for item in vars(base).items()]
        special = {name for name, each in members if hasattr(each, "__set__")}
        at_once = {name: value for name, value in plain.items() if name not in special}
        own.update(at_once)  # atomic: names are str, so no code of anybody's runs meanwhile
        plain = {name: value for name, value in plain.items() if name in special}
    for name, value in plain.items():
        try:
            setattr(target, name, value)
        except Exception:  # a property of the program's own
            log.exception("%s of a %s could not be set", name, cls.__name__)


# What is accepted


def schema_of(conf: Any) -> dict[str, Any]:
    """What a configuration declares, as JSON Schema. Without defaults: all who read etcd read it."""
    categories = {}
    for cname, found in conf.items():
        properties = {}
        for key, each in found.items():
            name = getattr(key, "pattern", key)
            properties[name] = _type_of(declared_type(each)) if read_by_type(each) else {}
        categories[cname] = {"type": "object", "properties": properties}
    return {"type": "object", TEXTS: True, "properties": categories}


def _type_of(ptype: Any) -> dict[str, Any]:
    if isinstance(ptype, Array):
        return {"type": "array", "items": _type_of(ptype.item)}
    for base in getattr(ptype, "__mro__", ()):
        if base in _TYPES:
            return {"type": _TYPES[base]}
    return {}
