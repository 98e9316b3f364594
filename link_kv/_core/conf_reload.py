"""A `Configurable` of b3j0f.conf that follows etcd."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from b3j0f.conf import Configurable, Parameter

from link_kv._core.conf_apply import Applier, Values, assign, has_parts, instances, schema_of
from link_kv._core.conf_tree import Stored, make_out, order_key
from link_kv._core.leases import Lease
from link_kv._core.reload import Following
from link_kv._core.reload_tree import Invalid, Tree

if TYPE_CHECKING:
    from link_kv._core.watcher import Hub


class Trial(NamedTuple):
    """Configurations, by their paths, that are to be validated before they are put in force."""

    stored: dict[str, Stored]
    problems: dict[str, str]
    """What was found, by paths in etcd."""


trying: ContextVar[Trial | None] = ContextVar("link_kv_conf_trying", default=None)
"""What a driver reads instead of etcd."""


class Driver(Protocol):
    """What follows of an `EtcdConfDriver`."""

    expressions: bool

    def _read(self, path: str, logger: Any) -> Any:
        """What is in etcd, or what is known of it."""

    def _take(self, path: str, stored: Stored) -> None:
        """Let what is made from now on have this configuration."""


class Reload(Following[Mapping[str, Any]]):
    """A configurable that follows etcd; `link_kv.driver.watch` makes it.

    Attributes:
        current: the values in force by the names of parameters, never changed, only replaced as a whole. Keep
            it in a variable for what belongs together; reading it takes no lock.
        revision: the revision in force: the last one that changed something in the configuration; 0 while the
            first one is still to come that validates.
        error: why the newest configuration is not in force, None while it is.
        problems: what did not validate in it: paths in etcd, and why.
        state: ``live``; ``stale`` while etcd is not reached; ``lost`` when it is not followed any more.

    A context manager that closes it. It goes on until it, or the driver's client, is closed. Thread-safe.
    While etcd is down the last good configuration stays in force, and what came meanwhile is caught up with.
    In a forked child it is ``lost``: watch there anew.
    """

    def __init__(
        self, hub: Hub, configurable: Any, driver: Driver, paths: Sequence[str], **options: Any
    ) -> None:
        super().__init__(hub, paths, **options)
        self._configurable = configurable
        self._driver = driver
        self._paths = [listener.at.path for listener in self._listeners]
        self._applier = Applier(configurable.conf)
        self._applying = threading.Lock()
        """Held by who sets attributes of instances. Those who read them take no lock."""
        self._conf: Any = None
        """What b3j0f.conf made of the configuration, where it has to."""
        self._stored: dict[str, Stored] = {}
        """What was built last, by paths."""
        self._foreign: frozenset[str] = frozenset()
        self._other: dict[str, str] = {}
        """Parameters whose value another driver has given."""
        self._swaps = 0

    def start(self, open_lease: Callable[[], Lease[Any]], at_close: list[Any], *, offline: bool) -> None:
        """Put in force what is there, and follow it."""
        reloads[self._configurable] = self
        self._begin(open_lease, schema_of(self._configurable.conf), at_close, offline=offline)

    # Building

    def _build(self, trees: list[Tree]) -> Mapping[str, Any]:
        self._stored = {tree.at.path: _stored(tree) for tree in trees}
        values, problems = self._values(self._stored)
        if problems:
            raise Invalid(problems)
        self._foreign = values.foreign
        return MappingProxyType(values.named)

    def _fallback(self, trees: list[Tree] | None) -> Mapping[str, Any]:
        if trees is None:
            stored = {path: self._driver._read(path, None).stored for path in self._paths}
        else:
            stored = {tree.at.path: _stored(tree) for tree in trees}
        return MappingProxyType(self._values(stored)[0].named)

    def _values(self, stored: dict[str, Stored]) -> tuple[Values, dict[str, str]]:
        configurable = self._configurable
        names = [name for each in stored.values() for name in each.categories]
        if (
            has_parts(configurable.conf, names)
            or self._driver.expressions
            or tuple(configurable.drivers) != (self._driver,)
        ):
            return self._values_by_b3j0f(stored)
        self._conf, self._other = None, {}
        return self._applier.read(stored)

    def _values_by_b3j0f(self, stored: dict[str, Stored]) -> tuple[Values, dict[str, str]]:
        configurable = self._configurable
        trial = Trial(stored, {})
        token = trying.set(trial)
        try:
            self._conf = conf = configurable.getconf()
        finally:
            trying.reset(token)
        try:
            conf.resolve(
                configurable=configurable,
                scope=configurable.scope,
                safe=configurable.safe,
                besteffort=configurable.besteffort,
            )
        except Parameter.Error as error:
            trial.problems.setdefault(self._paths[0], str(error))
        named: dict[str, Any] = {}
        foreign = set()
        self._other = {}
        for cname, found in conf.items():
            for key, each in found.items():
                name = getattr(key, "pattern", key)
                named[name] = None if each.error else each.value
                texts = [
                    one.categories[cname].get(name) for one in stored.values() if cname in one.categories
                ]
                if any(text is not None for text in texts) and each.svalue not in texts:
                    self._other[name] = "another driver"
                if not each.local:
                    foreign.add(name)
        return Values(named, frozenset(foreign)), trial.problems

    def _elsewhere(self) -> dict[str, str]:
        return self._other

    # Putting in force

    def _put_in_force(self, trees: list[Tree], current: Mapping[str, Any]) -> None:
        for path, stored in self._stored.items():
            self._driver._take(path, stored)
        self._swaps += 1
        self.apply(current)

    def apply(self, current: Mapping[str, Any]) -> None:
        """Set the attributes of all instances that the configurable knows."""
        with self._applying:
            targets = instances(self._configurable.targets)
            if self._conf is not None:
                self._configurable.configure(conf=self._conf, targets=targets)
                return
            if not self._configurable.foreigns:
                current = {name: value for name, value in current.items() if name not in self._foreign}
            for target in targets:
                assign(target, current)

    def close(self) -> None:
        super().close()
        if reloads.get(self._configurable) is self:
            del reloads[self._configurable]


reloads: weakref.WeakKeyDictionary[Any, Reload] = weakref.WeakKeyDictionary()
"""What follows etcd, by its configurable."""


@contextmanager
def caught_up(configurable: Any) -> Iterator[None]:
    """Let an instance that is made in here not miss what is put in force meanwhile."""
    reload = reloads.get(configurable)
    swaps = 0 if reload is None else reload._swaps
    yield
    if reload is not None and reload._swaps != swaps:
        reload.apply(reload.current)


def _stored(tree: Tree) -> Stored:
    at = tree.at
    order = tree.held.get(order_key(at))
    kvs = [_Pair(key, held.value) for key, held in sorted(tree.held.items()) if key.startswith(at.marker)]
    return make_out(at, tree.revision, kvs, order and order.value, at.key in tree.held)


class _Pair(NamedTuple):
    key: bytes
    value: bytes


def find(target: Any) -> list[Any]:
    """The configurables of a decorated class, function or instance; a configurable itself."""
    return [target] if isinstance(target, Configurable) else list(Configurable.get_annotations(target))
