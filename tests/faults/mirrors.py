"""Mirrors and stores, held against a Range at their own revision."""

from __future__ import annotations

import base64
import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.client import HTTPException
from typing import Any

import link_kv
from link_kv import EtcdMiddleware
from link_kv.errors import LinkKVError
from link_kv.live import Mirror
from link_kv.store import Store
from tests.faults.checker import Finding, leaves, nest, unit_of
from tests.faults.cluster import Cluster
from tests.model import layout
from tests.processes import until

_PATIENCE = 30.0


def range_at(cluster: Cluster, prefix: str, revision: int) -> dict[bytes, bytes] | None:
    """The keys below a prefix at a revision; asked of whichever member answers, not through the library.
    None when the revision was compacted away."""
    body = {"key": _base64(f"{prefix}/"), "range_end": _base64(f"{prefix}0"), "revision": revision}
    end = time.monotonic() + _PATIENCE
    for member in itertools.cycle(cluster.members):
        try:
            answer = member.ask("/v3/kv/range", body, 10)
        except (OSError, HTTPException, ValueError) as error:
            answer = {"message": repr(error)}
        if "compacted" in answer.get("message", ""):  # only older ones call it error too
            return None
        if "header" in answer:
            break
        assert time.monotonic() < end, f"no member answers a Range at revision {revision}: {answer}"
        time.sleep(0.05)
    return {
        base64.b64decode(kv["key"]): base64.b64decode(kv.get("value", "")) for kv in answer.get("kvs", ())
    }


def values_of(keys: dict[bytes, bytes], prefix: str) -> dict[str, Any]:
    """The values that keys stand for, by top-level name."""
    units: dict[str, dict[str, str]] = {}
    for each, value in keys.items():
        key = each.decode()[len(prefix) :]
        if name := unit_of(key):
            units.setdefault(name, {})[key[1 + len(name) :]] = value.decode()
    return {name: nest(below) for name, below in units.items()}


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


class Followed:
    """Mirrors and stores on a client, and whether they show what etcd has."""

    def __init__(self, client: EtcdMiddleware, cluster: Cluster, mirrors: list[str]) -> None:
        self._client = client
        self._cluster = cluster
        self._prefix = client.prefix
        self._stack = ExitStack()
        self.mirrors = [self._stack.enter_context(client.mirror(path)) for path in mirrors]
        self.stores: list[Store] = []
        self.compared = 0

    def add_store(self, name: str) -> None:
        """Follow the items of a tree. Who writes may be about to make it."""
        found: list[Store] = []

        def there() -> bool:
            try:
                found.append(link_kv.get(name, client=self._client))
            except LinkKVError:  # of no type of its own
                return False
            return True

        until(there, _PATIENCE)  # without it, it would be compared with nothing
        self.stores += found

    @property
    def all(self) -> list[Mirror | Store]:
        return [*self.mirrors, *self.stores]

    def overtaken(self) -> list[Mirror | Store]:
        """Those whose next revision was compacted away: no watch can tell them what they have missed."""
        return [each for each in self.all if range_at(self._cluster, self._prefix, each.revision + 1) is None]

    def close(self) -> None:
        self._stack.close()

    def compare(self, mark: int) -> Iterator[Finding]:
        """Let all come to a revision, and hold each against a Range at the revision that it shows.

        Each is counted, or something is found.
        """
        # What a leaf or a list hides, as what is below a leaf, makes no difference to values.
        keys = range_at(self._cluster, self._prefix, mark)
        assert keys is not None, f"{mark} was compacted away"
        for trouble in layout.faults(keys.items(), self._prefix.encode()):
            yield Finding("layout", f"at {mark}: {trouble}")
        for mirror in self.mirrors:
            if not mirror.wait(mark, _PATIENCE):
                yield Finding("mirror, late", f"{mirror!r} did not come to {mark}")
                continue
            what = f"mirror of {mirror.path}"
            yield from self._compare(what, mirror, lambda mirror=mirror: _shown(mirror), mark)
        for store in self.stores:
            try:
                until(lambda store=store: store.state == "live", _PATIENCE)
            except AssertionError:
                yield Finding("store, late", f"{store.name} is {store.state}")
                continue
            yield from self._compare(f"store {store.name}", store, lambda store=store: _held(store), mark)

    def _compare(
        self, what: str, of: Mirror | Store, show: Callable[[], dict[str, Any]], mark: int
    ) -> Iterator[Finding]:
        kind = what.split()[0]
        found = Finding(f"{kind}, restless", f"{what} was never at one revision")
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end:
            before = of.revision
            shown = show()
            if of.revision != before:
                continue  # it moved on meanwhile
            wanted = self._wanted(of, before)
            if wanted is not None and shown != wanted:
                yield Finding(f"{kind}, wrong", f"{what} at {before}: {shown}, etcd has {wanted}")
                return
            if before < mark:
                # A store tells the revision of its last change, which may be long ago; and one that has
                # stopped to follow is right about its own revision for ever.
                wanted = self._wanted(of, mark)
            if shown == wanted:
                self.compared += 1
                return
            found = Finding(f"{kind}, late", f"{what} at {before}: {shown}, etcd has {wanted} at {mark}")
            time.sleep(0.05)
        yield found

    def _wanted(self, of: Mirror | Store, revision: int) -> dict[str, Any] | None:
        """What it should show at a revision; None when that was compacted away."""
        keys = range_at(self._cluster, self._prefix, revision)
        if keys is None:
            return None
        values = values_of(keys, self._prefix)
        name = of.path[1:]
        wanted: dict[str, Any] = {}
        for unit in [name] if name else values:
            wanted.update(leaves(values.get(unit), f"/{unit}"))
        if isinstance(of, Store):
            wanted.pop(of.path, None)  # an empty one has no items
        return wanted


def _shown(mirror: Mirror) -> dict[str, Any]:
    top = mirror.path.removesuffix("/")
    return {f"{top}/{key}" if key else top: value for key, value in mirror.items()}


def _held(store: Store) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, reading in store.snapshot().items():
        if reading.revision:
            found.update(leaves(reading.value, f"{store.path}/{key}"))
    return found
