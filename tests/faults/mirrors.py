"""Mirrors and stores, held against a Range at their own revision."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.client import HTTPException
from typing import Any

import link_kv
from link_kv import EtcdMiddleware
from link_kv.errors import NotFound
from link_kv.live import Mirror
from link_kv.store import Store
from tests.faults.checker import Finding, leaves, nest, unit_of
from tests.faults.cluster import Cluster
from tests.processes import until

_PATIENCE = 30.0


def range_at(cluster: Cluster, prefix: str, revision: int) -> dict[str, Any] | None:
    """The values below a prefix at a revision, by top-level name; asked of whichever member answers, not
    through the library. None when the revision was compacted away."""
    body = {"key": _base64(f"{prefix}/"), "range_end": _base64(f"{prefix}0"), "revision": revision}
    for member in cluster.members:
        try:
            answer = member.ask("/v3/kv/range", body, 10)
        except (OSError, HTTPException, ValueError):
            continue
        if "compacted" in answer.get("error", ""):
            return None
        if "header" in answer:
            break
    else:
        raise AssertionError(f"no member answers a Range at revision {revision}")
    units: dict[str, dict[str, str]] = {}
    for kv in answer.get("kvs", ()):
        key = base64.b64decode(kv["key"]).decode()[len(prefix) :]
        if name := unit_of(key):
            units.setdefault(name, {})[key[1 + len(name) :]] = base64.b64decode(kv.get("value", "")).decode()
    return {name: nest(keys) for name, keys in units.items()}


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
        """Follow the items of a tree, if it is there."""
        with contextlib.suppress(NotFound):
            self.stores.append(link_kv.get(name, client=self._client))

    def close(self) -> None:
        self._stack.close()

    def compare(self, revision: int) -> Iterator[Finding]:
        """Let all come to a revision, and hold each against a Range at the revision that it shows."""
        for mirror in self.mirrors:
            if not mirror.wait(revision, _PATIENCE):
                yield Finding("mirror, late", f"{mirror!r} did not come to {revision}")
                continue
            yield from self._compare(f"mirror of {mirror.path}", mirror, lambda mirror=mirror: _shown(mirror))
        for store in self.stores:
            try:
                until(lambda store=store: store.state == "live", _PATIENCE)
            except AssertionError:
                yield Finding("store, late", f"{store.name} is {store.state}")
                continue
            yield from self._compare(f"store {store.name}", store, lambda store=store: _held(store))

    def _compare(
        self, what: str, of: Mirror | Store, show: Callable[[], dict[str, Any]]
    ) -> Iterator[Finding]:
        for _ in range(1000):
            before = of.revision
            shown = show()
            if of.revision != before:
                continue  # it moved on meanwhile
            found = range_at(self._cluster, self._prefix, before)
            if found is None:
                continue
            self.compared += 1
            name = of.path[1:]
            wanted: dict[str, Any] = {}
            for unit in [name] if name else found:
                wanted.update(leaves(found.get(unit), f"/{unit}"))
            if isinstance(of, Store):
                wanted.pop(of.path, None)  # an empty one has no items
            if shown != wanted:
                yield Finding(f"{what.split()[0]}, wrong", f"{what} at {before}: {shown}, etcd has {wanted}")
            return
        yield Finding(f"{what.split()[0]}, restless", f"{what} was never at one revision")


def _shown(mirror: Mirror) -> dict[str, Any]:
    top = mirror.path.removesuffix("/")
    return {f"{top}/{key}" if key else top: value for key, value in mirror.items()}


def _held(store: Store) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, reading in store.snapshot().items():
        if reading.revision:
            found.update(leaves(reading.value, f"{store.path}/{key}"))
    return found
