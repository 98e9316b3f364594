"""Configurables read from etcd: a driver for b3j0f.conf, which this module makes importable and re-exports::

    from link_kv.driver import Configurable, EtcdConfDriver, Parameter, category

    @Configurable(
        paths='myproject/my.conf',
        conf=category('MYCONF', Parameter(name='port', ptype=int, value=8080)),
        drivers=[EtcdConfDriver()],
    )
    class Server: ...

Its parameter ``port`` lives at ``/myproject/my.conf/MYCONF/port``. `watch` lets it follow etcd while the
program runs. Needs the extra ``link_kv[conf]``.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from types import TracebackType
from typing import Any, Literal, NamedTuple

try:
    from b3j0f.conf import (
        BOOL,
        Array,
        Category,
        Configurable,
        Configuration,
        Parameter,
        applyconfiguration,
        category,
        configuration,
    )
    from b3j0f.conf.driver.base import ConfDriver
except ModuleNotFoundError as error:
    raise ImportError("link_kv.driver needs b3j0f.conf: pip install 'link_kv[conf]'") from error

from link_kv._core.configuration import hooks as conf_hooks
from link_kv._core.configuration import last_known
from link_kv._core.configuration import tree as conf_tree
from link_kv._core.configuration.applied import TTL
from link_kv._core.configuration.apply import Good
from link_kv._core.configuration.configurable import Reload, Trial, find, trying
from link_kv._core.configuration.parameters import declared_in, parameter, text_of_parameter
from link_kv._core.configuration.reload import SETTLE
from link_kv._core.configuration.tree import Stored
from link_kv._core.wire.calls import run
from link_kv.errors import ConfigError, LinkKVError, Unavailable
from link_kv.live import hub_of
from link_kv.middleware import EtcdMiddleware
from link_kv.sessions import Session
from link_kv.tree import encode_name, place

__all__ = [
    "BOOL",
    "Array",
    "Category",
    "Configurable",
    "Configuration",
    "EtcdConfDriver",
    "Parameter",
    "Reload",
    "Source",
    "applyconfiguration",
    "category",
    "configuration",
    "watch",
]

_log = logging.getLogger(__name__)


class Source(NamedTuple):
    """Where the configuration in force at a path came from."""

    path: str
    revision: int
    read_at: datetime
    """When it was read from etcd, in UTC."""
    offline: bool
    """Whether it is the last known one, because etcd did not answer."""


class _Read(NamedTuple):
    stored: Stored
    source: Source
    began: float


class EtcdConfDriver(ConfDriver):  # type: ignore[misc]
    """Reads and writes the configurations of b3j0f.conf in etcd.

    Args:
        client: the `EtcdMiddleware` to use; by default one is made at the first use, from the environment
            and the configuration files. Constructing a driver needs no server.
        expressions: whether ``=…``, ``%…%`` and ``@…`` in etcd are b3j0f's expressions. They run as Python
            code in this process, so whoever may write to etcd could take it over. By default they are text.
        offline: what to do when etcd does not answer: ``'raise'`` `Unavailable`, or ``'cache'``: use the
            last configuration that was read, from memory or from a file below `link_kv.home`
            (``~/.link_kv``). `source` tells which it was, and a warning is logged. That nothing is
            configured is only ever said by an etcd that answered.

    Values are bare text, one key a parameter, and get the type that the parameter declares: its `ptype`,
    else the type of its default. What does not fit its type, or is no text, is reported as an error on the
    log with its path, once; the parameter keeps its last good value, or the default, and all others are
    applied. `problems` has them too.

    etcd is read once for each application of a configuration: by a decoration, by `applyconfiguration`, and
    by a `getconf` of this driver. The instances of a decorated class, and the calls of a decorated function,
    take what was read last; as long as that is nothing, they look again.

    A client that the driver has made is its own: `close` closes it, and so does leaving the driver as a
    context manager. One that it was given is its giver's to close.

    Thread-safe. After a disconnect the next read connects again.
    """

    Error = LinkKVError
    """So that ``except driver.Error`` catches what this driver raises."""

    def __init__(
        self,
        client: EtcdMiddleware | None = None,
        *,
        expressions: bool = False,
        offline: Literal["raise", "cache"] = "raise",
    ) -> None:
        if offline not in ("raise", "cache"):
            raise ConfigError(f"offline={offline!r}: must be 'raise' or 'cache'")
        self.expressions = expressions
        self.offline = offline
        self._client = client
        self._own = client is None
        self._lock = threading.Lock()
        self._reads: dict[str, _Read] = {}
        # By the configurable that reads, since what is good for one may not be for the next; by the driver
        # itself for who calls its `getconf`.
        self._followed: weakref.WeakKeyDictionary[Any, dict[str, _Read]] = weakref.WeakKeyDictionary()
        """What is in force at the paths that are watched, whatever else is read there."""
        self._good: weakref.WeakKeyDictionary[Any, Good] = weakref.WeakKeyDictionary()
        """Texts that fitted last."""
        self._saved: dict[str, dict[str, dict[str, str]]] = {}
        """What is kept on disk."""
        self._problems: dict[str, dict[str, str]] = {}
        self._reported: dict[str, set[str]] = {}

    # What b3j0f calls

    def rscpaths(self, path: str) -> list[str]:
        """The one path in etcd; none for ``./x`` and ``../x``, which only a file system has."""
        if {".", ".."} & set(path.split("/")):
            return []
        return [place(path).path]

    def resource(self) -> dict[str, dict[str, str]]:
        """A configuration without categories."""
        return {}

    def pathresource(self, rscpath: str, logger: Any = None) -> dict[str, dict[str, str]] | None:
        """The texts by category and parameter, read now; None when nothing is there."""
        return self._read(place(rscpath).path, logger).stored.categories or None

    def getconf(self, path: str, conf: Any = None, logger: Any = None) -> Any:
        """Read a path into `conf`, which is returned, or into a new one; None when nothing is there.

        Raises `Unavailable` when etcd does not answer, or as `offline` says; `PathError`, `AccessDenied`.
        """
        for rscpath in self.rscpaths(path):
            found = self._getconf(rscpath, logger, conf)
            if conf is None:
                conf = found
            elif found is not None:
                conf.update(found, copy=False)
        return conf

    def setconf(self, conf: Any, rscpath: str, logger: Any = None) -> None:
        """Merge a configuration into what is at a path, in one transaction.

        Parameters that it does not name stay; one without a value is deleted. New categories come last.
        Raises a `LinkKVError` when it fails, with or without a logger: `EncodeError` for a value that no text
        stands for, `NotATree` where another value is in the way, `Unavailable`, `OutcomeUnknown`.
        """
        try:
            self._setconf(conf=conf, resource=self.resource(), rscpath=rscpath)
        except LinkKVError as error:
            if logger is not None:
                logger.error("%s: not written: %s", rscpath, error)
            raise

    def _cnames(self, resource: dict[str, dict[str, str]]) -> list[str]:
        return list(resource)

    def _params(self, resource: dict[str, dict[str, str]], cname: str) -> list[Any]:
        return [
            parameter(None, name, text, expressions=self.expressions)
            for name, text in resource[cname].items()
        ]

    def _getconf(self, rscpath: str, logger: Any = None, conf: Any = None) -> Any:
        trial = trying.get()
        if trial is not None and rscpath in trial.stored:
            return self._tried(rscpath, conf, trial)
        reader = conf_hooks.reader.get(self)
        read = None
        if conf_hooks.in_force.get():
            read = self._followed.get(reader, {}).get(rscpath) or self._reads.get(rscpath)
        if read is None or not read.stored.categories:
            read = self._read(rscpath, logger)
        if not read.stored.categories:
            self._report(rscpath, read.stored.problems, logger)
            return None
        problems = dict(read.stored.problems)
        result = self._configuration(conf, rscpath, read.stored, problems, self._good_of(reader))
        if self.expressions:
            _evaluate(conf, rscpath, result, problems)
        self._report(rscpath, problems, logger)
        return result

    def _configuration(
        self,
        conf: Any,
        path: str,
        stored: Stored,
        problems: dict[str, str],
        good: Good,
    ) -> Any:
        result = Configuration()
        for cname, texts in stored.categories.items():
            result[cname] = found = Category(name=cname)
            for name, text in texts.items():
                applied = self._parameter(conf, (path, cname, name), text, problems, good)
                if applied is not None:
                    found[applied.name] = applied
        return result

    def _tried(self, path: str, conf: Any, trial: Trial) -> Any:
        """What a configuration would come to; nothing of it is remembered."""
        stored = trial.stored[path]
        trial.problems.update(stored.problems)
        result = self._configuration(conf, path, stored, trial.problems, {})
        if self.expressions:
            _evaluate(conf, path, result, trial.problems)
        return result if stored.categories else None

    def _setconf(self, conf: Any, resource: object, rscpath: str) -> None:
        path = place(rscpath).path
        texts: dict[str, dict[str, str | None]] = {}
        for of_category in conf.values():
            texts[of_category.name] = {}
            for each in of_category.values():
                name = getattr(each.name, "pattern", each.name)
                where = _path(path, of_category.name, name)
                texts[of_category.name][name] = text_of_parameter(each, where, expressions=self.expressions)
        run(conf_tree.write(self._connected()._exchange(), path, texts))
        self._reads.pop(path, None)

    # Life

    def close(self) -> None:
        """Close the client that this driver has made, and with it what `watch` follows through it.

        Does nothing to a client that it was given. May be called twice; the next read makes another client.
        """
        with self._lock:
            client = self._client if self._own else None
            if self._own:
                self._client = None
        if client is not None:
            client.close()

    def __enter__(self) -> EtcdConfDriver:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # What is known

    def source(self, path: str) -> Source | None:
        """Where the configuration at a path came from when it was last read; None when it was not."""
        read = self._reads.get(place(path).path)
        return read and read.source

    def problems(self, path: str) -> dict[str, str]:
        """What could not be applied when the configuration was last taken: paths in etcd, and why."""
        return dict(self._problems.get(place(path).path, {}))

    # Reading

    def _connected(self) -> EtcdMiddleware:
        with self._lock:
            if self._client is None:
                self._client = EtcdMiddleware()
            return self._client

    def _read(self, path: str, logger: Any) -> _Read:
        client = self._connected()
        began = time.monotonic()
        try:
            stored = run(conf_tree.read(client._exchange(), path))
        except Unavailable as error:
            if self.offline != "cache":
                raise type(error)(f"{path}: {error}") from error
            read = self._last_known(path, error, began)
            (logger or _log).warning(
                "%s: %s; using revision %d of %s", path, error, read.source.revision, read.source.read_at
            )
        else:
            now = datetime.now(timezone.utc)
            read = _Read(stored, Source(path, stored.revision, now, False), began)
        with self._lock:
            before = self._reads.get(path)
            if before is None or before.began <= began:
                self._reads[path] = read
                if before is None or before.stored[:2] != read.stored[:2]:
                    self._reported.pop(path, None)
        if self.offline == "cache" and not read.source.offline:
            self._save(read, logger)
        return read

    def _good_of(self, reader: Any) -> Good:
        return self._good.setdefault(reader, {})

    def _take(self, configurable: Any, path: str, stored: Stored) -> None:
        """Let what a configurable makes from now on have what is in force for it."""
        now = datetime.now(timezone.utc)
        read = _Read(stored, Source(path, stored.revision, now, False), time.monotonic())
        with self._lock:
            self._reads[path] = self._followed.setdefault(configurable, {})[path] = read
            self._problems[path] = {}
            self._reported.pop(path, None)
        good = self._good_of(configurable)
        for cname, texts in stored.categories.items():
            for name, text in texts.items():
                good[path, cname, name] = text
        if self.offline == "cache":
            self._save(read, None)

    def _let_go(self, configurable: Any) -> None:
        self._followed.pop(configurable, None)

    def _last_known(self, path: str, error: Unavailable, began: float) -> _Read:
        before = self._reads.get(path)
        if before is not None:
            return before._replace(source=before.source._replace(offline=True), began=began)
        try:
            known = last_known.load(self._identity(path))
        except (OSError, ValueError) as unreadable:
            raise type(error)(
                f"{path}: {error}, and the last known one cannot be read: {unreadable}"
            ) from error
        if known is None:
            raise type(error)(f"{path}: {error}; none was read on this machine before") from error
        return _Read(known.stored, Source(path, known.stored.revision, known.read_at, True), began)

    def _save(self, read: _Read, logger: Any) -> None:
        path = read.source.path
        if self._saved.get(path) == read.stored.categories:
            return
        try:
            last_known.save(self._identity(path), read.stored)
            self._saved[path] = read.stored.categories
        except OSError as error:
            (logger or _log).warning("%s: cannot be kept for when etcd is down: %s", path, error)

    def _identity(self, path: str) -> str:
        config = self._connected()._config
        where = config.srv_domain or ",".join(sorted(config.endpoints))
        return f"{where}{config.prefix}{path}"

    # Applying

    def _parameter(
        self,
        conf: Any,
        key: tuple[str, str, str],
        text: str,
        problems: dict[str, str],
        good: Good,
    ) -> Any:
        """The parameter for a text, or for the last good one before it; None when there is neither."""
        _, cname, name = key
        declared = declared_in(conf, cname, name)
        try:
            found = parameter(declared, name, text, expressions=self.expressions)
        except ValueError as error:
            problems[_path(*key)] = str(error)
            if key not in good:
                return None
            try:
                found = parameter(declared, name, good[key], expressions=self.expressions)
            except ValueError:
                return None  # it was good for another type; what is in etcd has been reported
        else:
            if declared is not None:  # else any text fits, and the next `conf` may declare it
                good[key] = text
        if conf is not None and declared is None:
            found.local = False  # so that foreigns=False leaves it out
        return found

    def _report(self, path: str, problems: dict[str, str], logger: Any) -> None:
        self._problems[path] = problems
        reported = self._reported.setdefault(path, set())
        for where, reason in problems.items():
            message = f"{where}: {reason}"
            if message not in reported:
                reported.add(message)
                (logger or _log).error("%s", message)


def _path(path: str, cname: str, name: str) -> str:
    return f"{path}/{encode_name(cname)}/{encode_name(name)}"


def _evaluate(conf: Any, path: str, result: Any, problems: dict[str, str]) -> None:
    """Evaluate the expressions of what was read, and drop the parameters where that fails."""
    merged = Configuration() if conf is None else conf.copy()
    merged.update(result)
    for cname, found in result.items():
        OrderedDict.update(merged[cname], found)  # themselves: a default is not what others refer to
    for cname, found in result.items():
        for each in list(found.values()):
            try:
                each.resolve(conf=merged)
            except Parameter.Error:
                name = getattr(each.name, "pattern", each.name)
                problems[_path(path, cname, name)] = f"the expression fails: {each.error}"
                del found[each.name]


def watch(
    configurable: Any,
    *,
    on_change: Callable[[Mapping[str, Any]], object] | None = None,
    on_error: Callable[[LinkKVError], object] | None = None,
    settle: float = SETTLE,
) -> Reload:
    """Let what a `Configurable` has configured follow etcd, while the program runs.

    `link_kv.settings.follow` is the same for settings of pydantic.

    Args:
        configurable: the `Configurable`, or a class, function or instance that one has decorated. One of its
            drivers is an `EtcdConfDriver`.
        on_change: called as ``on_change(current)`` when a new configuration is in force, with the values by
            the names of parameters.
        on_error: called as ``on_error(error)``, a `ConfigError`, once for each bad value, and with what ended
            the following, such as `AccessDenied`.
        settle: seconds for which changes are gathered, from the first one on, before they are put in force as
            one.

    A configuration is put in force only as a whole: while one parameter does not fit, the last good one
    stays. Where there is none yet, as when a program starts on a bad one, the parameters that fit are
    applied, as without `watch`. The attributes of instances are set in one step; a parameter that is deleted
    goes back to its default. Read what belongs together from ``reload.current``, which is of one revision.
    Classes, what functions have returned, and what ``decosub=False`` leaves alone, are not changed; new
    instances and calls take what is in force.

    Callbacks run in a thread of the client's, one after the other; what they raise is logged. They may block,
    write and close.

    Raises `ConfigError` for what no single `EtcdConfDriver` reads; `Unavailable` when etcd does not answer,
    or with ``offline='cache'`` begins with the last known one and goes on once it does; `AccessDenied`.

    While it lives, ``link-kv config status PATH`` shows this process and its revision.
    """
    found = [
        each for each in find(configurable) if any(isinstance(one, EtcdConfDriver) for one in each.drivers)
    ]
    if len(found) != 1:
        raise ConfigError(
            f"configurable={configurable!r}: {len(found)} of its configurables have an EtcdConfDriver; pass "
            "the Configurable that is to be followed"
        )
    drivers = [each for each in found[0].drivers if isinstance(each, EtcdConfDriver)]
    if len(drivers) != 1:
        raise ConfigError(
            f"configurable={configurable!r}: has {len(drivers)} drivers of etcd; watch follows one"
        )
    [driver] = drivers
    paths = [rscpath for path in found[0].paths for rscpath in driver.rscpaths(path)]
    if not paths:
        raise ConfigError(f"configurable={configurable!r}: names no path in etcd")
    client = driver._connected()
    for path in paths:
        conf_tree.place_of(client._exchange(), path)
    reload = Reload(
        hub_of(client), found[0], driver, paths, on_change=on_change, on_error=on_error, settle=settle
    )
    reload._start(
        lambda: Session(client, TTL, renew=True)._lease, client._at_close, offline=driver.offline == "cache"
    )
    return reload


conf_hooks.install(EtcdConfDriver)
