"""Stores of items: values with a name, a description, and callbacks.

    temperature = get('oven.temperature')
    temperature.register(lambda item, value, timestamp: print(value))
    temperature.set(21.5)

A store is a tree, and an item its direct child: ``client['/oven/temperature']`` and
``get('oven.temperature')`` are one value. Names are found in any case. The logger is ``link_kv.items``.

==============  =======================================================================================
`get`           a `Store`, or an `Item` of one; always the same instance
`discover`      asks a cluster for its stores, and remembers it
`home`          the directory where that is remembered
`Reading`       an item's value with all that belongs to it, of one moment
`Description`   what an item says of itself: type, units, range and more
==============  =======================================================================================
"""

from __future__ import annotations

import dataclasses
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

from link_kv._core.items import finding
from link_kv._core.items.descriptions import Description
from link_kv._core.items.finding import Found, where
from link_kv._core.items.home import home, remember, remembered
from link_kv._core.items.writes import spelled
from link_kv._core.wire.options import OPTIONS, Bad
from link_kv.errors import ConfigError, LinkKVError, PathError, Unavailable
from link_kv.item import Item, Reading, Registration, State
from link_kv.middleware import EtcdMiddleware
from link_kv.store import Store
from link_kv.tree import decode_name

__all__ = ["Description", "Item", "Reading", "Registration", "State", "Store", "discover", "get", "home"]

log = logging.getLogger(__name__)

_VARIABLES = (
    *(f"LINK_KV_{option.upper()}" for option in OPTIONS),
    *("B3J0F_CONF_DIR", "HOME", "XDG_CONFIG_DIRS", "XDG_CONFIG_HOME"),
)
"""The environment that decides where the default client connects to."""


def get(store: str, key: str | None = None, *, client: EtcdMiddleware | None = None) -> Any:
    """A `Store`; or an `Item`, by ``get('store.key')`` or ``get('store', 'key')``. Always the same instance.

    Names are found in any case. One argument is split at its first dot; names with dots take two. Without a
    client the store is looked for on the cluster that the configuration names, and on those that `discover`
    remembers.

    A store is a tree that is there: ``client['/store'] = {}`` makes one. Raises `LinkKVError` for an unknown
    store, and for one that is on two clusters or stored in two spellings, naming both; `NotFound`, a
    `KeyError`, for an unknown key; `Unavailable` when no cluster answers, and the store is not remembered.

    Thread-safe. A closed client's instances are dropped, and in a forked child they are others. Under a lock,
    by ``client=lock.client``, they are others too: their writes raise `LockLost` when the lock is lost, and
    they are followed no more soon after.
    """
    if not isinstance(store, str):
        raise PathError(f"{store!r}: a store's name is text, such as 'store' or 'store.key'")
    name, dot, rest = store.partition(".") if key is None else (store, "", "")
    if not name:
        raise PathError(f"{store!r}: a store's name is not empty")
    found = get_here(client, name) if client is not None else get_anywhere(_default_client(), name)
    if dot:
        key = rest
    return found if key is None else found[key]


def discover(*addresses: str) -> list[str]:
    """Ask clusters for their stores, and remember them; the names of the stores.

    Args:
        addresses: ``host`` or ``host:port``. Without any, the cluster that the configuration names and all
            that are remembered are asked.

    From then on `get` finds these stores without a client; and their descriptions while their cluster cannot
    be reached. What is remembered is below `home`, and holds neither values nor passwords. Raises
    `Unavailable` when none of the clusters answers.
    """
    return sorted({name for names in discover_as(_default_client(), addresses).values() for name in names})


def discover_as(default: EtcdMiddleware, addresses: Sequence[str]) -> dict[str, list[str]]:
    """The same with the options of a client: the names of the stores by where they are."""
    clients = [_client_at(default, address) for address in addresses]
    if not addresses:
        clients = [default, *_remembered_clients(default)]
    names: dict[str, list[str]] = {}
    silent: list[Unavailable] = []
    for client in clients:
        try:
            cluster, catalogs = finding.read_catalogs(client)
        except Unavailable as error:
            silent.append(error)
            log.warning("%s was not discovered: %s", where(client), error)
            continue
        for endpoint in client._config.endpoints:
            remember(endpoint, client.prefix, cluster, catalogs)
        names[where(client)] = sorted(decode_name(segment) for segment in catalogs)
    if len(silent) == len(clients):
        raise Unavailable(f"no cluster answers: {'; '.join(str(error) for error in silent)}")
    return names


# Which store it is

_registry_lock = threading.Lock()
_Key = tuple[int, bytes, str]
"""Cluster, prefix and name of a store. Several have the same, where two clusters give the same id."""
_registry: weakref.WeakKeyDictionary[Store, _Key] = weakref.WeakKeyDictionary()
"""All stores. The clients that were asked for them hold them, and the watch does while it follows them."""
_turns: weakref.WeakValueDictionary[_Key, threading.Lock] = weakref.WeakValueDictionary()
_clients: dict[Hashable, EtcdMiddleware] = {}
"""Those that were made here, by what they were made from."""


def get_here(client: EtcdMiddleware, name: str) -> Store:
    """A store on the cluster of a client. Raises as `get` does."""
    lower = name.lower()
    known: Store | None = client._stores.get(lower)
    if known is not None and known._usable and (known._there or time.monotonic() < known._again):
        return known
    try:
        found = finding.find(client, name)
    except Unavailable as error:
        store = _get_cached([client], lower)
        if store is None:
            raise error
    else:
        if found is None:
            raise _unknown(name, [client])
        store = _open(found)
    client._stores[lower] = store
    return store


def get_anywhere(default: EtcdMiddleware, name: str) -> Store:
    """A store on the cluster of a client, or on one that is remembered. Raises as `get` does."""
    lower = name.lower()
    known: Store | None = default._stores.get(lower)
    if known is not None and known._usable and (known._there or time.monotonic() < known._again):
        return known
    clients = [default, *_remembered_clients(default)]
    everywhere, silent = finding.find_everywhere(clients, name)
    for client, error in silent:
        log.info("%s was not asked for the store %s: %s", where(client), name, error)
    found = finding.distinct(everywhere)
    if len(found) > 1:
        places = " and on ".join(where(each.client) for each in found)
        raise LinkKVError(f"store {name!r}: is on {places}; say which by get({name!r}, client=…)")
    store = _open(found[0]) if found else _get_cached([client for client, _ in silent], lower)
    if store is None:
        if silent and len(silent) == len(clients):
            raise silent[0][1]
        raise _unknown(name, clients, silent)
    default._stores[lower] = store
    return store


def _open(found: Found[EtcdMiddleware]) -> Store:
    """The store that was found: the instance that is there already, or a new one."""
    key = (found.cluster, found.at.prefix, decode_name(found.at.segments[0]).lower())
    with _turn(key):
        stores = _known(key, found.client)
        store = next((each for each in stores if each._at == found.at and _same(found, each)), None)
        if store is None:
            store = Store(found.client, found.at)
        if store._feed is None:
            store.client = found.client
            store._attach()
        _register(store, key)
    return store


def _register(store: Store, key: _Key) -> None:
    with _registry_lock:
        _registry[store] = key


def _known(key: _Key, client: EtcdMiddleware) -> list[Store]:
    """The stores that are there already. Those of locks that were lost are let go: each has a watch."""
    with _registry_lock:
        found = [store for store, its in _registry.items() if its == key]
    stores = []
    for each in found:
        if each._usable:
            if each.client._space.lost and each._fences != client._space.fences:
                each._let_go()
            else:
                stores.append(each)
    return stores


def _same(found: Found[EtcdMiddleware], store: Store) -> bool:
    """Whether a store is of the cluster on which one was found, and writes under the same locks."""
    if store._fences != found.client._space.fences:
        return False
    if store.client is found.client or store.client._config.endpoints == found.client._config.endpoints:
        return True
    try:
        return finding.same_cluster(found, dataclasses.replace(found, client=store.client))
    except Unavailable:
        return False


def _get_cached(clients: Iterable[EtcdMiddleware], lower: str) -> Store | None:
    """The store as it is remembered of a cluster that does not answer."""
    known: dict[int, tuple[EtcdMiddleware, str, dict[str, Any]]] = {}
    for client in clients:
        for each in remembered(client.prefix):
            segment = spelled(dict.fromkeys(each.stores, True), lower, "")
            if segment is not None and each.address in client._config.endpoints:
                known[each.cluster] = (client, segment, each.stores[segment])
    if len(known) > 1:
        places = " and of ".join(where(client) for client, _, _ in known.values())
        raise LinkKVError(f"store {lower!r}: is remembered of {places}, and none of them answers")
    for cluster, (client, segment, items) in known.items():
        at = finding.root_of(client).child(segment)
        key = (cluster, at.prefix, lower)
        with _turn(key):
            stores = _known(key, client)
            fences = client._space.fences
            store = next((each for each in stores if each._at == at and each._fences == fences), None)
            if store is None:
                store = Store(client, at)
            if store._feed is None:
                store._remember(items)
            _register(store, key)
        return store
    return None


def _turn(key: _Key) -> threading.Lock:
    """Held by who opens a store."""
    with _registry_lock:
        turn = _turns.get(key)
        if turn is None:
            turn = _turns[key] = threading.Lock()
        return turn


def _renew_locks() -> None:
    """In a forked child: those of the parent may be held for ever, a turn over calls to etcd."""
    global _registry_lock
    _registry_lock = threading.Lock()
    _turns.clear()
    for store in list(_registry):
        store._lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_locks)


def _unknown(
    name: str, clients: Iterable[EtcdMiddleware], silent: Sequence[tuple[EtcdMiddleware, Unavailable]] = ()
) -> LinkKVError:
    places = " and ".join(where(client) for client in clients)
    unasked = "".join(f"; {where(client)} did not answer" for client, _ in silent)
    return LinkKVError(
        f"no store {name!r} on {places}{unasked}. A store is a tree: client['/{name}'] = {{}} makes one, and "
        "discover('host') looks on another cluster"
    )


# The clients that nobody had to name


def _default_client() -> EtcdMiddleware:
    """The client for what the environment says now."""
    return _client(tuple(map(os.environ.get, _VARIABLES)), EtcdMiddleware)


def _client_at(default: EtcdMiddleware, address: str) -> EtcdMiddleware:
    """A client that differs from another by its address."""
    try:
        endpoints = OPTIONS["endpoints"](address)
    except Bad as bad:
        raise ConfigError(f"{address!r}: {bad}; an address is a host, or host:port") from None
    config = dataclasses.replace(
        default._config, endpoints=endpoints, srv_domain=None, expected_cluster_id=None
    )
    return _client(config, lambda: EtcdMiddleware._of(config))


def _remembered_clients(default: EtcdMiddleware) -> list[EtcdMiddleware]:
    addresses = [each.address for each in remembered(default.prefix)]
    return [_client_at(default, each) for each in addresses if each not in default._config.endpoints]


def _client(key: Hashable, make: Callable[[], EtcdMiddleware]) -> EtcdMiddleware:
    """One client for each key."""
    client = _clients.get(key)
    if client is None or client._space.caller.closed:
        # Of two threads that make one, both take the first's; one that is not used has connected to nothing.
        new = make()
        with _registry_lock:
            client = _clients.get(key)
            if client is None or client._space.caller.closed:
                client = _clients[key] = new
    return client
