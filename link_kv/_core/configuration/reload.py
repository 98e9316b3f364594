"""What follows a configuration in etcd, and keeps the last good one in force.

A change marks the configuration as due; when the settle time has passed, the tree as it is by then is
validated as a whole, swapped in once, and told. Three kinds of threads take part: the one that reads the wire
marks, a worker of the hub's dispatcher validates and swaps, and another worker calls back, so that a callback
that blocks holds up nothing but the next callback. Readers take no lock: what is in force is one attribute.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from link_kv._core.configuration.applied import Acknowledger
from link_kv._core.configuration.reload_tree import (
    Invalid,
    Tree,
    revision_of,
    seen_of,
    stamp,
    summary,
    tree_of,
)
from link_kv._core.living import Living
from link_kv._core.watching.consumer import Consumer, State
from link_kv._core.watching.replica import Batch
from link_kv._core.wire.calls import run
from link_kv._core.wire.exchange import Exchange
from link_kv.errors import Closed, ConfigError, LinkKVError, Unavailable
from link_kv.plan import Get
from link_kv.tree import Place

if TYPE_CHECKING:
    from link_kv._core.leasing.leases import Lease
    from link_kv._core.watching.watcher import Hub

log = logging.getLogger("link_kv.reload")

R = TypeVar("R")
T = TypeVar("T")
F = TypeVar("F", bound="Following[Any]")

_Content = list[dict[bytes, bytes]]

SETTLE = 0.05
"""Seconds for which changes are gathered, from the first one on."""
_AGAIN = 1.0
"""Seconds after which an etcd that was down at the beginning is tried again."""


class _Now(NamedTuple):
    current: Any
    revision: int
    seen: int
    """The newest revision at which it was what is to be in force."""


class _Listener(Consumer):
    """What the watch of one path tells. It has no queue: the state is taken when it is due."""

    def __init__(self, following: Following[Any], hub: Hub, at: Place) -> None:
        super().__init__(hub, 1, hidden=True)
        self._following = following
        self.at = at

    def offer(self, batch: Batch, now: float) -> bool:
        if batch.changes or batch.hidden or batch.synthetic:
            self._following._note(now)
        return True

    def tell(self, state: State, error: LinkKVError | None = None, *, reconnected: bool = False) -> None:
        self._state = state
        if state == "lost" and error is not None:
            self._following._lose(error)

    def take(self) -> Tree:
        """What is there now. Called with the hub's lock held."""
        assert self.feed is not None
        return tree_of(self.feed.replica)

    def _wake(self) -> None:
        raise AssertionError("nothing is queued")


class Following(ABC, Generic[T]):
    """A configuration that follows etcd. Subclasses say how it is made of keys and put in force.

    `current` is what is in force: one object, never changed, only replaced as a whole. Reading it takes no
    lock. A new configuration is validated as a whole first; one that does not validate is reported, once, and
    leaves the last good one in force, as does an etcd that is down. What came meanwhile is caught up with.
    """

    _now: _Now

    def __init__(
        self,
        hub: Hub,
        paths: Sequence[str],
        *,
        settle: float,
        on_change: Callable[[T], object] | None,
        on_error: Callable[[LinkKVError], object] | None,
    ) -> None:
        if isinstance(settle, bool) or not isinstance(settle, (int, float)) or not 0 <= settle <= 3600:
            raise ConfigError(f"settle={settle!r}: a number of seconds, from 0 to an hour")
        for name, callback in (("on_change", on_change), ("on_error", on_error)):
            if callback is not None and not callable(callback):
                raise ConfigError(f"{name}={callback!r}: is to be called, and cannot be")
        self._hub = hub
        self._settle = settle
        self._on_change = on_change
        self._on_error = on_error
        self._listeners = [_Listener(self, hub, hub.place(path)) for path in paths]
        self._changed = threading.Condition()
        """Notified when a configuration was put in force or rejected."""
        self._seen = 0
        self._error: LinkKVError | None = None
        self._problems: Mapping[str, str] = MappingProxyType({})
        self._reported: set[tuple[str, object]] = set()
        self._content: _Content | None = None
        self._revisions = [0] * len(self._listeners)
        self._acknowledger: Acknowledger | None = None
        self._at_close: list[Callable[[], object]] = []
        self._closed = self._lost = False
        # These under the hub's lock:
        self._due = 0.0
        self._dirty = self._scheduled = True  # nothing is to be scheduled before `_begin` is done
        self._told: deque[tuple[Callable[[Any], object], Any]] = deque()
        self._telling = False

    # For subclasses

    @abstractmethod
    def _build(self, trees: list[Tree]) -> T:
        """The configuration that keys make, not in force yet. Raises `Invalid`."""

    def _put_in_force(self, trees: list[Tree], current: T) -> None:
        """Do what else belongs to swapping, before `current` is the new one. What it raises rejects that."""

    def _restore(self) -> None:
        """Do it once more for what is in force, whatever the program has put in its place."""

    def _elsewhere(self) -> dict[str, str]:
        """What in the last one that was built is not from etcd, and where it is from."""
        return {}

    def _fallback(self, trees: list[Tree], why: Invalid) -> T:
        """What is in force until a first one validates. Raises `ConfigError` where that is nothing."""
        reasons = "; ".join(f"{path}: {reason}" for path, reason in why.problems.items())
        raise ConfigError(reasons) from (why.__cause__ or why)

    def _offline(self) -> T:
        """What is in force until etcd can be reached. Asked only when that may be something."""
        raise NotImplementedError

    def _begin(
        self,
        open_lease: Callable[[], Lease[Any]],
        schema: dict[str, Any] | None,
        at_close: list[Any],
        *,
        offline: bool = False,
    ) -> None:
        """Put in force what is there, and follow it. ``at_close`` is what the client does when it is closed.

        With ``offline`` an etcd that is down is waited for later. Raises `ConfigError` when what is there
        does not validate, and what watching raises.
        """
        trees: list[Tree] | None = None
        problems: Mapping[str, str] = {}
        try:
            try:
                trees = self._join()
            except Unavailable:
                if not offline:
                    raise
                self._now = _Now(self._offline(), 0, 0)
            else:
                problems = self._first(trees)
        except BaseException:
            self._leave()
            raise
        self._acknowledger = Acknowledger(self._hub._space, self._hub.dispatcher, open_lease, schema)
        self._at_close = at_close
        at_close.append(self.close)
        atexit.unregister(_close_all)
        atexit.register(_close_all)  # before what it needs is gone
        _following.add(self)
        if trees is None:
            self._hub.dispatcher.schedule(self._join_later)
            return
        if problems:
            self._reject(trees, problems)
        else:
            self._acknowledge(trees, "applied", "")
        self._look_again()

    def _first(self, trees: list[Tree]) -> Mapping[str, str]:
        """Put in force what is there at the beginning, or what there is instead; then why."""
        try:
            current = self._checked(trees)
        except Invalid as invalid:
            self._now = _Now(self._fallback(trees, invalid), 0, 0)
            return invalid.problems
        self._put_in_force(trees, current)
        self._swap(current, trees)
        return {}

    def _join(self) -> list[Tree]:
        """Listen to all paths; what is there. Raises what watching raises."""
        for listener in self._listeners:
            if listener.feed is None:
                self._hub.join(listener, listener.at, prime=False)
        with self._hub.changed:
            self._dirty = False
            return [listener.take() for listener in self._listeners]

    def _join_later(self) -> float | None:
        """Listen once etcd is there."""
        if self._closed:
            return None
        try:
            # Asked first, since each attempt to watch is logged.
            run(Exchange(self._hub._space).range(Get(self._listeners[0].at.key)))
            trees = self._join()
        except Unavailable:
            return time.monotonic() + _AGAIN
        except LinkKVError as error:
            with self._hub.changed:
                self._lose(error)
            return None
        if self._closed:  # meanwhile
            self._leave()
            return None
        self._deal_with(trees)
        self._look_again()
        return None

    def _look_again(self) -> None:
        """From now on changes are looked at; and at once, when there are any."""
        with self._hub.changed:
            self._scheduled = self._dirty
            if self._dirty:
                self._hub.dispatcher.schedule(self._work)

    def _checked(self, trees: list[Tree]) -> T:
        """What `_build` makes. Raises `Invalid`."""
        return self._guarded(trees, lambda: self._build(trees))

    def _guarded(self, trees: list[Tree], action: Callable[[], R]) -> R:
        """Do what may run the program's own code. Raises `Invalid`, whatever that raises."""
        try:
            return action()
        except Invalid:
            raise
        except BaseException as error:  # a thread is not theirs to end
            raise Invalid({trees[0].at.path: f"{type(error).__name__}: {error}"}) from error

    # What is in force

    @property
    def current(self) -> T:
        """The configuration in force, never changed, only replaced as a whole. Takes no lock."""
        current: T = self._now.current
        return current

    @property
    def revision(self) -> int:
        """The revision that is in force: the last one that changed something in this configuration."""
        return self._now.revision

    @property
    def error(self) -> LinkKVError | None:
        """Why the newest configuration is not the one in force; None while it is."""
        return self._error

    @property
    def problems(self) -> Mapping[str, str]:
        """What did not validate in the newest configuration: paths in etcd, and why."""
        return self._problems

    @property
    def state(self) -> State:
        """``live``; ``stale`` while etcd is not reached; ``lost`` when no more changes are heard of."""
        states = {listener.state for listener in self._listeners}
        if self._closed or self._lost or "lost" in states:
            return "lost"
        return "stale" if "stale" in states else "live"

    def wait(self, revision: int, timeout: float | None = None) -> bool:
        """Wait until this revision, or one after it, is in force; whether it is.

        Ends with False after ``timeout`` seconds, when a configuration of that revision or a later one was
        rejected, and when it is ``lost``. A revision that changed nothing here is only reached with the next
        one that does.
        """

        def decided() -> bool:
            return self._seen >= revision or self._closed or self.state == "lost"

        with self._changed:
            self._changed.wait_for(decided, timeout)
        return self._now.seen >= revision

    # Following

    def _note(self, now: float) -> None:
        """Something has changed. Called in the thread that reads, with the hub's lock held."""
        if self._dirty or self._closed:
            return
        self._dirty = True
        self._due = now + self._settle
        if not self._scheduled:
            self._scheduled = True
            self._hub.dispatcher.schedule(self._work)

    def _work(self) -> float | None:
        """Look at what has changed, once it is due. A worker runs it, one at a time."""
        if time.monotonic() < self._due:
            return self._due
        with self._hub.changed:
            self._dirty = False
            over = self._closed or self._lost
            trees = [] if over else [listener.take() for listener in self._listeners]
        if trees:
            self._deal_with(trees)
        with self._hub.changed:
            self._scheduled = self._dirty
            return self._due if self._dirty else None

    def _deal_with(self, trees: list[Tree]) -> None:
        try:
            self._consider(trees)
        except BaseException:  # of an attribute of the program's; the next change must be heard
            log.exception("%s: revision %d was not dealt with", trees[0].at.path, revision_of(trees))

    def _consider(self, trees: list[Tree]) -> None:
        content = [tree.content for tree in trees]
        problems: Mapping[str, str] = {}
        if content == self._content:
            current = self._now.current  # written again as it was, or as it was before a bad one
        else:
            try:
                current = self._checked(trees)
            except Invalid as invalid:
                problems = invalid.problems
        if problems:
            self._reject(trees, problems)
            return
        changed = content != self._content
        if changed:
            try:
                self._guarded(trees, lambda: self._put_in_force(trees, current))
            except Invalid as invalid:
                self._reject(trees, invalid.problems)
                return
        else:
            self._restore()
        self._swap(current, trees)
        self._acknowledge(trees, "applied", "")
        if changed and self._on_change is not None:
            self._call_later(self._on_change, current)

    def _swap(self, current: T, trees: list[Tree]) -> None:
        self._content = [tree.content for tree in trees]
        self._revisions = [tree.revision for tree in trees]
        self._error, self._problems = None, MappingProxyType({})
        self._reported = set()
        self._now = _Now(current, revision_of(trees), seen_of(trees))
        self._look_no_more(trees)

    def _reject(self, trees: list[Tree], problems: Mapping[str, str]) -> None:
        stamps = {path: (path, stamp(trees, path, reason)) for path, reason in problems.items()}
        new = {path: problems[path] for path, stamp in stamps.items() if stamp not in self._reported}
        self._reported = set(stamps.values())
        self._problems = MappingProxyType(dict(problems))
        self._error = ConfigError(self._message(problems, trees))
        self._look_no_more(trees)
        self._acknowledge(trees, "rejected", summary(problems, trees))
        if new:
            error = ConfigError(self._message(new, trees))
            log.error("%s", error)
            if self._on_error is not None:
                self._call_later(self._on_error, error)

    def _look_no_more(self, trees: list[Tree]) -> None:
        """A revision has been dealt with: who waits for it goes on."""
        with self._changed:
            self._seen = seen_of(trees)
            self._changed.notify_all()

    def _message(self, problems: Mapping[str, str], trees: list[Tree]) -> str:
        reasons = "; ".join(f"{path}: {reason}" for path, reason in problems.items())
        kept = self.revision or "what the program declares"
        return f"revision {revision_of(trees)} is rejected, {kept} stays in force: {reasons}"

    def _acknowledge(self, trees: list[Tree], state: str, message: str) -> None:
        assert self._acknowledger is not None
        elsewhere = self._elsewhere()
        for tree, revision in zip(trees, self._revisions, strict=True):
            said: dict[str, Any] = {
                "state": state,
                "revision": revision,
                "seen": tree.seen,
                "message": message,
            }
            if elsewhere:
                said["elsewhere"] = elsewhere
            self._acknowledger.tell(tree.at, **said)

    # Calling back

    def _call_later(self, callback: Callable[[Any], object], argument: Any) -> None:
        with self._changed:
            self._told.append((callback, argument))
            if self._telling:
                return
            self._telling = True
        self._hub.dispatcher.schedule(self._call)

    def _call(self) -> None:
        while True:
            with self._changed:
                if not self._told or self._closed:
                    self._told.clear()
                    self._telling = False
                    return
                callback, argument = self._told.popleft()
            try:
                callback(argument)
            except BaseException:  # logged, and a thread is not the callback's to end
                log.exception("%s: the callback %r raised", self._listeners[0].at.path, callback)

    def _lose(self, error: LinkKVError) -> None:
        """No change will be heard of any more. Called with the hub's lock held."""
        if self._closed or self._lost:
            return
        self._lost = True
        if not isinstance(error, Closed):
            self._error = error
            path = self._listeners[0].at.path
            self._hub._note(logging.ERROR, "%s is not followed any more: %s", path, error)
            if self._on_error is not None:
                self._call_later(self._on_error, error)
            if self._acknowledger is not None:
                said = {"state": "rejected", "seen": self._seen, "message": f"not followed any more: {error}"}
                for listener, revision in zip(self._listeners, self._revisions, strict=True):
                    self._acknowledger.tell(listener.at, revision=revision, **said)
        with self._changed:
            self._changed.notify_all()

    # Its end

    def close(self) -> None:
        """Follow no more; what is in force stays so. May be called twice, and from inside a callback.

        What this process has in force is not shown to operators any more. Does nothing in a forked child.
        """
        if self._hub.pid != os.getpid():
            return
        self._closed = True
        with self._changed:
            self._changed.notify_all()
        self._leave()
        _following.discard(self)
        with contextlib.suppress(ValueError):  # the client is being closed
            self._at_close.remove(self.close)
        if self._acknowledger is not None:
            self._acknowledger.close()

    def _leave(self) -> None:
        for listener in self._listeners:
            self._hub.leave(listener)

    def __enter__(self: F) -> F:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        paths = ", ".join(listener.at.path for listener in self._listeners)
        return f"<{type(self).__name__} {paths} {self.state} at revision {self.revision}>"


_following: Living[Following[Any]] = Living()


def _close_all() -> None:
    """What a process has in force is taken back when it ends, rather than some seconds later."""
    for following in _following:
        following.close()
