"""A service's range as it is now, followed by a watch."""

from __future__ import annotations

from collections.abc import Callable

from link_kv._core.links.registry import State
from link_kv._core.watching.settle import wait_until
from link_kv._core.watching.watcher import Hub
from link_kv.tree import Place

_COMES = 0.1
"""Seconds in which a change is expected to come by itself, before etcd is asked whether there is more."""


class Following:
    """Keeps the state of a service's range current. Thread-safe."""

    def __init__(self, hub: Hub, at: Place, name: str) -> None:
        self._hub = hub
        self._at = at
        self._name = name
        self._feed = hub.mirror(at)
        self._closed = False
        self._state = self._read()

    @property
    def live(self) -> bool:
        """Whether nothing is missed at present."""
        return self._feed.live

    @property
    def state(self) -> State:
        """The state as last heard. Cheap while nothing changes."""
        state = self._state
        if state.revision != self._feed.replica.revision:
            state = self._state = self._read()
        return state

    def _read(self) -> State:
        with self._hub.changed:
            replica = self._feed.replica
            kvs = [(key, held.value, held.revision) for key, held in replica.all()]
            return State(self._at, self._name, kvs, replica.revision)

    @property
    def ended(self) -> bool:
        """Whether it follows no more, because it or its client was closed."""
        return self._closed or self._feed.error is not None

    def wait(self, condition: Callable[[State], bool], timeout: float | None) -> bool:
        """Wait until the state is such, ``timeout`` seconds at most; whether it is."""
        return self._hub.wait(lambda: self.ended or condition(self.state), timeout) and not self.ended

    def shows(self, revision: int, timeout: float) -> bool:
        """Wait until the state is that of a revision or later, ``timeout`` seconds at most; whether it is."""

        def over() -> bool:
            return self.ended or self._feed.revision >= revision

        if not self._hub.wait(over, min(_COMES, timeout)):
            wait_until(self._hub, self._feed, over, timeout)
        return not self.ended and self._feed.revision >= revision

    def stir(self) -> None:
        """Let all who wait look again, after something else has changed that they wait for."""
        with self._hub.changed:
            self._hub.changed.notify_all()

    def close(self) -> None:
        with self._hub.changed:
            if not self._closed:
                self._closed = True
                self._hub.unmirror(self._feed)
                self._hub.changed.notify_all()
