"""What is changed in b3j0f.conf's `Configurable`: it reads etcd once, applies fast, and misses nothing."""

from __future__ import annotations

import functools
from contextvars import ContextVar
from typing import Any

from b3j0f.conf import Configurable

from link_kv._core.configuration import apply as conf_apply
from link_kv._core.configuration.configurable import caught_up

in_force: ContextVar[bool] = ContextVar("link_kv_conf_in_force", default=False)
"""Whether the configuration that was read last will do."""
_decorating: ContextVar[bool] = ContextVar("link_kv_conf_decorating", default=False)


def install(driver: type[Any]) -> None:
    """Let b3j0f's `Configurable` read when it decorates and applies, and not when it instantiates and calls.

    It calls its `getconf` for all four: with arguments to apply, and without for the other three.
    """
    read, decorate = Configurable.getconf, Configurable._bind_target
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
        try:
            return read(self, *args, **kwargs)
        finally:
            in_force.reset(token)

    @functools.wraps(decorate)
    def bind_target(self: Any, *args: Any, **kwargs: Any) -> Any:
        token = _decorating.set(True)
        try:
            return decorate(self, *args, **kwargs)
        finally:
            _decorating.reset(token)

    @functools.wraps(intercept)
    def interception(self: Any, *args: Any, **kwargs: Any) -> Any:
        with caught_up(self):
            return intercept(self, *args, **kwargs)

    @functools.wraps(apply)
    def applyconfiguration(
        self: Any, conf: Any = None, *args: Any, logger: Any = None, targets: Any = None, **kwargs: Any
    ) -> Any:
        if conf is None and not args and not any(kwargs.values()) and is_plain(self):
            found = list(self.targets if targets is None else targets)
            if conf_apply.apply(self, self.drivers[0], found, logger or self.logger):
                return found
        return apply(self, conf, *args, logger=logger, targets=targets, **kwargs)

    Configurable.getconf, Configurable._bind_target = getconf, bind_target
    Configurable._interception, Configurable.applyconfiguration = interception, applyconfiguration
    own.update({name: getattr(Configurable, name) for name in ("getconf", "configure", "_configure")})
