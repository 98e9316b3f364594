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

from link_kv._core.configuration.apply import Applier, Values, assign, has_parts, instances, schema_of
from link_kv._core.configuration.reload import Following
from link_kv._core.configuration.reload_tree import Invalid, Tree
from link_kv._core.configuration.tree import Stored, make_out, order_key
from link_kv._core.leasing.leases import Lease
from link_kv.tree import encode_name

if TYPE_CHECKING:
    from link_kv._core.watching.watcher import Hub


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

    def _take(self, configurable: Any, path: str, stored: Stored) -> None:
        """Let what a configurable makes from now on have this configuration."""

    def _let_go(self, configurable: Any) -> None:
        """Let what it makes from now on have what is read."""


class _Made(NamedTuple):
    """What a configuration comes to."""

    stored: dict[str, Stored]
    values: Values
    problems: dict[str, str]
    other: dict[str, str]
    """Parameters, by their paths, whose value another driver has given."""
    conf: Any
    """What b3j0f.conf made of it, where only that can be applied."""


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
        """Held by who sets attributes of all instances. Those who read them take no lock."""
        self._made: _Made | None = None
        """What was built last, and is in force when it has been swapped in."""
        self._in_force: _Made | None = None
        self._swaps = 0

    def _start(self, open_lease: Callable[[], Lease[Any]], at_close: list[Any], *, offline: bool) -> None:
        """Put in force what is there, and follow it."""
        reloads[self._configurable] = self
        try:
            self._begin(open_lease, schema_of(self._configurable.conf), at_close, offline=offline)
        except BaseException:
            del reloads[self._configurable]
            raise

    # Building

    def _build(self, trees: list[Tree]) -> Mapping[str, Any]:
        made = self._make({tree.at.path: _stored(tree) for tree in trees})
        if made.problems:
            raise Invalid(made.problems)
        self._made = made
        return MappingProxyType(made.values.named)

    def _fallback(self, trees: list[Tree], why: Invalid) -> Mapping[str, Any]:
        return self._named({tree.at.path: _stored(tree) for tree in trees})

    def _offline(self) -> Mapping[str, Any]:
        return self._named({path: self._driver._read(path, None).stored for path in self._paths})

    def _named(self, stored: dict[str, Stored]) -> Mapping[str, Any]:
        return MappingProxyType(self._make(stored).values.named)

    def _make(self, stored: dict[str, Stored]) -> _Made:
        configurable = self._configurable
        parts = has_parts(configurable.conf, [name for each in stored.values() for name in each.categories])
        own = type(configurable).configure is not Configurable.configure
        if parts or own or self._driver.expressions or tuple(configurable.drivers) != (self._driver,):
            made = self._make_by_b3j0f(stored)
            return made if parts or own else made._replace(conf=None)
        values, problems = self._applier.read(stored)
        return _Made(stored, values, problems, {}, None)

    def _make_by_b3j0f(self, stored: dict[str, Stored]) -> _Made:
        configurable = self._configurable
        trial = Trial(stored, {})
        token = trying.set(trial)
        try:
            conf = configurable.getconf()
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
        other = {}
        for cname, found in conf.items():
            for key, each in found.items():
                name = getattr(key, "pattern", key)
                named[name] = None if each.error else each.value
                texts = {one.categories.get(cname, {}).get(name) for one in stored.values()} - {None}
                if texts and each.svalue not in texts:
                    other[f"{encode_name(cname)}/{encode_name(name)}"] = "another driver"
                if not each.local:
                    foreign.add(name)
        return _Made(stored, Values(named, frozenset(foreign)), trial.problems, other, conf)

    def _elsewhere(self) -> dict[str, str]:
        return {} if self._in_force is None else self._in_force.other

    # Putting in force

    def _put_in_force(self, trees: list[Tree], current: Mapping[str, Any]) -> None:
        before, self._in_force = self._in_force, self._made
        try:
            self._restore()
        except BaseException:
            self._in_force = before
            self._restore()
            raise

    def _restore(self) -> None:
        if self._in_force is not None:
            for path, stored in self._in_force.stored.items():
                self._driver._take(self._configurable, path, stored)
        self._swaps += 1
        self.apply()

    def apply(self) -> None:
        """Set the attributes of all instances that the configurable knows to what is in force."""
        with self._applying:
            self._set(instances(self._configurable.targets))

    def catch_up(self, targets: list[Any], swaps: int) -> None:
        """Set the attributes of new instances, when there were swaps since that number of them.

        It does not wait for `apply` in another thread, whose setters may wait for what the maker of these
        holds. When that sets them as well, whoever comes last sets what is in force.
        """
        while swaps != self._swaps:
            swaps = self._swaps
            self._set(targets)

    def _set(self, targets: list[Any]) -> None:
        made = self._in_force
        if made is None:
            return
        if made.conf is not None:
            self._configurable.configure(conf=made.conf, targets=targets)
            return
        for target in targets:
            assign(target, made.values.named if self._configurable.foreigns else made.values.declared)

    def close(self) -> None:
        super().close()
        if reloads.get(self._configurable) is self:
            self._driver._let_go(self._configurable)
            del reloads[self._configurable]


reloads: weakref.WeakKeyDictionary[Any, Reload] = weakref.WeakKeyDictionary()
"""What follows etcd, by its configurable."""


@contextmanager
def caught_up(configurable: Any, joinpoint: Any) -> Iterator[None]:
    """Let an instance that is made in here not miss what is put in force meanwhile."""
    reload = reloads.get(configurable)
    swaps = 0 if reload is None else reload._swaps
    yield
    if reload is not None and reload._swaps != swaps:
        first = [*joinpoint.args[:1], joinpoint.kwargs.get("self")]  # of a constructor, the instance
        reload.catch_up(instances(each for each in first if each in configurable.targets), swaps)


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
