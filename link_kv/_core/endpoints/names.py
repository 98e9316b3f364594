"""Which endpoint is where: names as leased keys, each with the service that answers for it.

=========================================  ===============================================================
key                                        value, as JSON
=========================================  ===============================================================
``<prefix>/.link/endpoints/<name>``        `Served`
``<store>/.link/served/<item>``            the service and the name of the endpoint that the item is
=========================================  ===============================================================

Both go with the lease of the service. A name is one endpoint's, whatever its upper and lower case.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import orjson

from link_kv._core.links import registry
from link_kv._core.wire.exchange import Exchange
from link_kv.errors import Conflict, KeyExists, LinkKVError, NotFound
from link_kv.plan import Compare, Delete, Get, Operation, Plan, Put, absent, unmoved
from link_kv.tree import Place, encode_name

WHERE = b"/.link/endpoints/"
_RACES = 100


class Served(NamedTuple):
    """An endpoint, as its service says of it."""

    name: str
    service: str
    node: str
    """'' for none."""
    path: str
    """Of its item."""


class Found(NamedTuple):
    """What an address names."""

    service: str
    endpoint: str
    """'' for the provider itself."""
    specifier: str
    """The attribute or method behind the name; '' for none."""
    path: str
    """Of its item."""


def _key(ex: Exchange, name: str) -> bytes:
    return ex.space.prefix + WHERE + encode_name(name.lower(), "endpoint").encode()


def served_key(store: Place, segment: str) -> bytes:
    """Where an item says which service answers for it."""
    return store.marker + b".link/served/" + segment.encode()


def read(value: bytes) -> Served | None:
    """An endpoint as it is stored, None for what is none."""
    try:
        found = orjson.loads(value)
        served = Served(*(found[field] for field in Served._fields))
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
    return served if all(isinstance(text, str) for text in served) else None


def read_item(value: bytes) -> tuple[str, str] | None:
    """The service and the endpoint of an item, as they are stored beside it."""
    served = read(value)
    return None if served is None else (served.service, served.name)


# Claiming


async def claim(ex: Exchange, served: Sequence[tuple[Served, Place, str]], lease: int) -> None:
    """Take names, all or none, for a service that is registered. Raises `KeyExists` naming who has one.

    Each with the store and the segment of its item. Names of a service that is gone are taken over.
    """
    if not served:
        return
    keys = [_key(ex, each.name) for each, _, _ in served]
    for _ in range(_RACES):
        ex.renew()
        _, found = await ex.read([Get(key) for key in keys])
        there, _ = await registry.everybody(ex)
        compares: list[Compare] = []
        operations: list[Operation] = []
        for (each, store, segment), key, kvs in zip(served, keys, found, strict=True):
            compares.append(unmoved(key, kvs[0].mod_revision) if kvs else absent(key))
            other = read(kvs[0].value) if kvs else None
            taken = other is not None and kvs[0].lease != lease and other.service != each.service
            if taken and other is not None and other.service in there:
                raise KeyExists(
                    f"endpoint {each.name}: service {other.service} has one of this name, at {other.path}; "
                    "call one of them otherwise"
                )
            value = orjson.dumps(each._asdict())
            operations += (Put(key, value, lease), Put(served_key(store, segment), value, lease))
        with contextlib.suppress(Conflict):
            await ex.commit(Plan((), operations), f"endpoints of {served[0][0].service}", insist=compares)
            return
    raise Conflict(f"endpoints of {served[0][0].service}: others claim these names again and again")


async def release(ex: Exchange, served: Iterable[tuple[Served, Place, str]]) -> None:
    """Give names up, before the lease ends."""
    keys = [
        key for each, store, segment in served for key in (_key(ex, each.name), served_key(store, segment))
    ]
    if keys:
        await ex.commit(Plan((), [Delete(key) for key in keys], guarded=True), "endpoints")


# Looking


async def everything(ex: Exchange) -> list[Served]:
    """All endpoints there are."""
    start = ex.space.prefix + WHERE
    _, (kvs,) = await ex.read([Get(start, start[:-1] + b"0")])
    return [served for kv in kvs if (served := read(kv.value)) is not None]


def resolve(address: str, served: Iterable[Served], providers: Mapping[str, str] | None = None) -> Found:
    """What an address names: an endpoint, ``foo``, ``provider.foo``, ``node.provider.foo`` or the path of its
    item; or a provider. What comes behind another dot is the specifier.

    Of what fits, what leaves the shortest specifier. Raises `NotFound`, and `LinkKVError` when it names two
    things.
    """
    every = list(served)
    fitting: dict[tuple[str, str], tuple[int, Found]] = {}
    for each in every:
        provider = Found(each.service, "", "", each.path.rpartition("/")[0])
        endpoint = Found(each.service, each.name, "", each.path)
        node = f"{each.node}." if each.node else ""
        for found, names in (
            (
                endpoint,
                (each.name, f"{each.service}.{each.name}", f"{node}{each.service}.{each.name}", each.path),
            ),
            (provider, (each.service, f"{node}{each.service}", provider.path)),
        ):
            length = max((_fit(address, name) for name in names), default=-1)
            if length >= 0:
                key = (found.service, found.endpoint)
                specifier = address[length + 1 :]
                fitting[key] = (length, found._replace(specifier=specifier))
    if not fitting:
        known = ", ".join(sorted(each.name for each in every)[:20]) or "none"
        raise NotFound(f"{address}: no endpoint is called so; there are {known}")
    longest = max(length for length, _ in fitting.values())
    best = [found for length, found in fitting.values() if length == longest]
    if len(best) > 1:
        places = " and ".join(
            f"the endpoint {found.endpoint} of {found.service}"
            if found.endpoint
            else f"the provider {found.service}"
            for found in best
        )
        raise LinkKVError(f"{address}: is {places}; say which by its path")
    return best[0]


def _fit(address: str, name: str) -> int:
    """How much of an address a name is, -1 when it is no part of it at its start."""
    if address.lower() == name.lower() or address.lower().startswith(f"{name.lower()}."):
        return len(name)
    return -1
