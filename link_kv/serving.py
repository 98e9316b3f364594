"""A provider's side of etcd, while it runs: items, names, lockouts, and what is written behind its back.

Private to `link_kv.endpoints`; it stands here since it needs stores.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any

from link_kv._core.endpoints import alerts, lockout
from link_kv._core.endpoints import names as endpoint_names
from link_kv._core.endpoints.addressable import Addressable, log
from link_kv._core.endpoints.alerts import Alert
from link_kv._core.endpoints.due import same
from link_kv._core.endpoints.handed import Handed
from link_kv._core.endpoints.lockout import Held
from link_kv._core.endpoints.names import Served
from link_kv._core.endpoints.replies import timestamp
from link_kv._core.items import writes as itemwrites
from link_kv._core.items.descriptions import PLAIN, Description
from link_kv._core.items.store_state import Moment, write_stamp
from link_kv._core.items.writes import Stamp
from link_kv._core.leasing import locks
from link_kv._core.leasing.presence import Presence
from link_kv._core.operations import layer
from link_kv._core.operations.behind import Behind
from link_kv._core.watching.replica import Change
from link_kv._core.wire.calls import run
from link_kv._core.wire.exchange import Exchange
from link_kv.errors import ConfigError, KeyExists, NotATree, Refused
from link_kv.item import Item, Registration
from link_kv.middleware import EtcdMiddleware
from link_kv.plan import Operation, Plan, Put
from link_kv.sessions import new_lease
from link_kv.store import Store, _writer
from link_kv.tree import MISSING, Place, encode_name

if TYPE_CHECKING:
    from link_kv._core.endpoints.kv_store_key import KVStoreKey
    from link_kv.endpoints import KVStore

_FLUSH = 2.0
"""Seconds that a write waits for what was polled before it."""


class Run:
    """One run of a provider, from its registration to its end."""

    def __init__(self, provider: KVStore, client: EtcdMiddleware, ttl: float) -> None:
        self.client = client
        self._provider = provider
        self._ttl = ttl
        self._store: Store | None = None
        self._presence: Presence | None = None
        self._watching: list[Registration] = []
        self._behind = Behind(f"provider {provider.name}", self._write, self._lose)
        self._told: dict[str, dict[str, Any]] = {}
        """What the newest alert of each routing key carries."""
        self._telling = threading.Lock()

    def open(self) -> None:
        """Make the store and its items, and claim the names. Raises `KeyExists`, `ConfigError`, and what
        the client raises.
        """
        provider = self._provider
        self._store = store = Store(self.client, self._place())
        store._attach()
        endpoints = list(provider.endpoints.values())
        for endpoint in endpoints:
            endpoint._kv_item, endpoint._kv_handed = self._introduce(store, endpoint), None
        self._presence = Presence(
            f"the endpoints of {provider.name}", lambda: new_lease(self.client, self._ttl), self._claim
        )
        for each in (provider, *endpoints):
            self._bind(each)
        for endpoint in endpoints:
            assert endpoint._kv_item is not None
            self._watching.append(_Watching(self, endpoint, endpoint._kv_item))
        log.info("%s: serves %s", provider.name, ", ".join(provider.endpoint_names) or "nothing")

    def _place(self) -> Place:
        """Where the store is, as it is spelled already; made when it is not there."""
        name, root = self._provider.name, self.client._space.place("/")
        found = run(itemwrites.names(self.client._exchange(), root))
        segment = itemwrites.spelled(found.trees, name, "") or encode_name(name, "store")
        at = self.client._space.place(f"/{segment}")
        if found.trees.get(segment) is False:
            raise NotATree(f"{at.path}: holds a value, so it is no store for the provider {name}")
        if segment not in found.trees:
            with contextlib.suppress(KeyExists):  # somebody else was quicker
                self.client.create(at.path, {})
        return at

    def _introduce(self, store: Store, endpoint: KVStoreKey) -> Item:
        """The item of an endpoint, described, and with its initial value where it has none."""
        known = store._find(endpoint.name)
        said: Description | None = None
        before: Mapping[str, Any] = {} if known is None else known.description
        if known is None or known.description is PLAIN or endpoint.description:
            try:
                said = Description.of(endpoint.name, {**before, **endpoint.description})
            except ConfigError as wrong:
                raise ConfigError(
                    f"{store.path}/{endpoint.name}: with the description there: {wrong}"
                ) from None
            if known is not None and known.description is not PLAIN and dict(said) == dict(before):
                said = None
        initial = MISSING if endpoint.initial_value is None else endpoint.initial_value
        if said is not None or initial is not MISSING:
            stored = None if said is None else said.dump()
            store._stamped(
                True,
                lambda stamp: run(
                    itemwrites.introduce(
                        Exchange(self.client._space), store._at, endpoint.name, initial, stamp, stored
                    )
                ),
            )
        item = store._find(endpoint.name)
        assert item is not None
        return item

    def _claim(self, lease: int) -> None:
        run(endpoint_names.claim(self.client._exchange(), self._names(), lease))

    def _names(self) -> list[tuple[Served, Place, str]]:
        provider, store = self._provider, self._store
        assert store is not None
        paths = self.paths()
        return [
            (
                Served(endpoint.name, provider.name, provider.node, paths[endpoint.name]),
                store._at,
                endpoint._kv_item._segment,
            )
            for endpoint in provider.endpoints.values()
            if endpoint._kv_item is not None
        ]

    def paths(self) -> dict[str, str]:
        """The paths of the items, by the names of the endpoints."""
        endpoints = self._provider.endpoints.values()
        return {
            endpoint.name: endpoint._kv_item.path for endpoint in endpoints if endpoint._kv_item is not None
        }

    def _bind(self, each: Addressable) -> None:
        """Keep a lockout in etcd, and go on with the one that is there."""
        name = each._kv_lockout.name
        known: dict[str, Held] = run(lockout.known(self.client._exchange(), [name]))
        each._kv_lockout.bind(
            lambda digest, holder, ttl: run(
                lockout.write(self.client._exchange(), name, digest, holder, ttl)
            ),
            lambda: run(lockout.remove(self.client._exchange(), name)),
            known.get(name),
        )

    def lost(self, held: Any) -> str:
        """The name of a lock that is not held any more, of some with their keys and tokens; '' for none."""
        return run(locks.lost(self.client._exchange(), held))

    def close(self) -> None:
        """Write what is left, and give the names up."""
        for watching in self._watching:
            watching.close()
        self._behind.close()
        if self._presence is not None:
            self._presence.close()
        for endpoint in self._provider.endpoints.values():
            item, endpoint._kv_item = endpoint._kv_item, None
            if item is not None:
                endpoint._kv_kept = item.value
        for each in (self._provider, *self._provider.endpoints.values()):
            each._kv_lockout.bind(None, None, None)

    # Written behind

    def write_behind(self, item: Item, raw: Any) -> Handed:
        """Have an item show a polled value soon."""
        stamp = Stamp(write_stamp(time.time(), _writer(os.getpid())))
        handed = Handed(item, raw)
        self._behind.add(item._segment, (layer(raw, item._at), stamp, handed))
        return handed

    def settle(self) -> None:
        """Wait until what was polled is written, so that it does not come after what is written now."""
        self._behind.flush(_FLUSH)

    def alerted(self, alert: Alert) -> None:
        """Have etcd keep an alert as the newest of its routing key, if it says something new."""
        with self._telling:
            told = self._told.get(alert.routing_key)
            if told is not None and _alike(told, alert.payload):
                return
            self._told[alert.routing_key] = alert.payload
        self._behind.add(("alert", alert.routing_key), alert)

    def _write(self, batch: Mapping[Hashable, Any]) -> None:
        store = self._store
        assert store is not None
        items: list[tuple[str, Any, Stamp]] = []
        polled: list[Handed] = []
        besides: list[Operation] = []
        for kind, value in batch.items():
            if isinstance(kind, str):
                lay, stamp, handed = value
                items.append((kind, lay, stamp))
                polled.append(handed)
            else:
                assert isinstance(kind, tuple)
                besides.append(Put(alerts.key_of(self.client._space.prefix, kind[1]), alerts.dump(value)))
        ex = self.client._exchange()
        if items:
            revision = run(itemwrites.put_all(ex, store._at, items, besides))
            for handed in polled:
                handed.revision = revision
        else:
            run(ex.commit(Plan((), besides, guarded=True), f"alerts of {self._provider.name}"))

    def _lose(self, kind: Hashable, value: Any) -> None:
        """A value is not written: the item does not wait for it any more."""
        if isinstance(kind, str):
            value[2].revision = 0

    # Written past the service

    def written(self, endpoint: KVStoreKey, now: Moment) -> None:
        """See whether somebody has written a value that the service would have refused."""
        if now.writer == _writer(os.getpid()):
            return
        reasons = []
        if endpoint.is_locked:
            reasons.append("it is locked")
        if now.value is not MISSING and endpoint._kv_item is not None:
            try:
                endpoint._kv_item.description.check(now.value)
            except Refused as refused:
                reasons.append(str(refused))
        if reasons:
            reason = f"written past the service, though {'; '.join(reasons)}"
            log.warning("%s: %s", endpoint.name, reason)
            payload = {"reason": reason, "writer": now.writer}
            if now.value is not MISSING:
                payload["value_raw"] = now.value
            provider = self._provider
            provider._kv_send(Alert(f"warning.{endpoint.name}", payload, timestamp(), provider._kv_sender))


def _alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two payloads say the same."""
    try:
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    except ValueError:  # arrays inside of lists
        return False


class _Watching(Registration):
    """Sees each change of an endpoint's item."""

    def __init__(self, run: Run, endpoint: KVStoreKey, item: Item) -> None:
        self._run_ = run
        self._endpoint = endpoint
        super().__init__(item, print)

    def _passes_over(self, value: Any) -> bool:
        return False

    def _tell(self, change: Change) -> None:
        self._run_.written(self._endpoint, change.value)
