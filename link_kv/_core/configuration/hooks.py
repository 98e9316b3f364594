"""What is changed in b3j0f.conf's `Configurable`: it reads etcd once, applies fast, and misses nothing."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import Any

from b3j0f.conf import Configurable

from link_kv._core.configuration import apply as conf_apply
from link_kv._core.configuration.configurable import caught_up

in_force: ContextVar[bool] = ContextVar("link_kv_conf_in_force", default=False)
"""Whether the configuration that was read last will do."""
reader: ContextVar[Any] = ContextVar("link_kv_conf_reader")
"""The configurable that reads; not set where a driver is read by itself."""
_decorating: ContextVar[bool] = ContextVar("link_kv_conf_decorating", default=False)
_calling: ContextVar[bool] = ContextVar("link_kv_conf_calling", default=False)
"""Whether what was decorated is being called."""


class Targets(list[Any]):
    """The targets of a `Configurable`: what it was given or has decorated, and the instances of its classes.

    After a call b3j0f.conf appends whatever came of it, a function's result as well, and keeps that for
    ever; and it takes what is equal for the same. Here only instances are appended, equal ones too, and they
    go when the program lets go of them.
    """

    def __init__(self, targets: Iterable[Any] = ()) -> None:
        super().__init__(targets)
        self._made: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()

    def append(self, target: Any) -> None:
        if _decorating.get() or not _calling.get():
            super().append(target)
        elif any(isinstance(each, type) and isinstance(target, each) for each in super().__iter__()):
            try:
                self._made[id(target)] = target
            except TypeError:  # it cannot be referred to weakly
                super().append(target)

    def __iter__(self) -> Iterator[Any]:
        made = [ref() for ref in self._made.valuerefs()]
        return iter([*super().__iter__(), *(each for each in made if each is not None)])

    def __contains__(self, target: object) -> bool:
        if self._made.get(id(target), self) is target:
            return True
        return any(each is target for each in super().__iter__())


def install(driver: type[Any]) -> None:
    """Let b3j0f's `Configurable` read when it decorates and applies, and not when it instantiates and calls.

    It calls its `getconf` for all four: with arguments to apply, and without for the other three.
    """
    kept, read, decorate = Configurable.targets, Configurable.getconf, Configurable._bind_target
    intercept, apply = Configurable._interception, Configurable.applyconfiguration
    own: dict[str, Any] = {}

    def is_plain(configurable: Any) -> bool:
        """Whether it does nothing but read etcd, as data."""
        drivers = configurable.drivers
        return (
            len(drivers) == 1
            and type(drivers[0]) is driver
            and not drivers[0].expressions
            and not configurable.modules
            and all(getattr(type(configurable), name) is method for name, method in own.items())
        )

    @functools.wraps(read)
    def getconf(self: Any, *args: Any, **kwargs: Any) -> Any:
        token = in_force.set(not (args or kwargs or _decorating.get()))
        who = reader.set(self)
        try:
            return read(self, *args, **kwargs)
        finally:
            reader.reset(who)
            in_force.reset(token)

    @functools.wraps(decorate)
    def bind_target(self: Any, *args: Any, **kwargs: Any) -> Any:
        token = _decorating.set(True)
        try:
            return decorate(self, *args, **kwargs)
        finally:
            _decorating.reset(token)

    @functools.wraps(intercept)
    def interception(self: Any, joinpoint: Any) -> Any:
        token = _calling.set(True)
        try:
            with caught_up(self, joinpoint):
                return intercept(self, joinpoint)
        finally:
            _calling.reset(token)

    @functools.wraps(apply)
    def applyconfiguration(
        self: Any, conf: Any = None, *args: Any, logger: Any = None, targets: Any = None, **kwargs: Any
    ) -> Any:
        if conf is None and not args and not any(kwargs.values()) and is_plain(self):
            found = list(self.targets if targets is None else targets)
            if conf_apply.apply(self, self.drivers[0], found, logger or self.logger):
                return found
        return apply(self, conf, *args, logger=logger, targets=targets, **kwargs)

    def set_targets(self: Any, targets: Iterable[Any]) -> None:
        kept.__set__(self, Targets(targets))

    Configurable.targets = property(kept.__get__, set_targets)
    Configurable.getconf, Configurable._bind_target = getconf, bind_target
    Configurable._interception, Configurable.applyconfiguration = interception, applyconfiguration
    own.update({name: getattr(Configurable, name) for name in ("getconf", "configure", "_configure")})
