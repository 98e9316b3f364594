"""Where a store is: on which of several clusters, and under which spelling."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from link_kv._core.items.store_state import description_key
from link_kv._core.items.writes import names, spelled
from link_kv._core.wire.calls import run
from link_kv._core.wire.connection import Connection
from link_kv._core.wire.exchange import Exchange
from link_kv.errors import LinkKVError, RevisionError, Unavailable
from link_kv.plan import Get
from link_kv.tree import Place

PATIENCE = 1.0
"""Seconds that clusters which do not answer are waited for, once a store was found on another."""

_SAMPLE = 8
_FAR = 100_000

K = TypeVar("K", bound=Connection)


@dataclass(frozen=True)
class Found(Generic[K]):
    """A store that is there."""

    client: K
    cluster: int
    revision: int
    at: Place


def root_of(client: Connection) -> Place:
    return client._space.place("/")


def where(client: Connection) -> str:
    """The cluster of a client, for messages."""
    config = client._config
    return ",".join(config.endpoints) or str(config.srv_domain)


def find(client: K, name: str) -> Found[K] | None:
    """A store by its name in any case; None for none.

    Raises `LinkKVError` for two spellings, and for a value of that name.
    """
    root = root_of(client)
    found = run(names(Exchange(client._space), root))
    segment = spelled({each: True for each, tree in found.trees.items() if tree}, name, "")
    if segment is not None:
        return Found(client, found.cluster, found.revision, root.child(segment))
    segment = spelled(found.trees, name, "")
    if segment is not None:
        raise LinkKVError(
            f"/{segment} on {where(client)}: holds a value, so it is no store; get('store.key') names an item"
        )
    return None


def find_everywhere(clients: Sequence[K], name: str) -> tuple[list[Found[K]], list[tuple[K, Unavailable]]]:
    """Where a store of this name is, and which clusters did not answer. All are asked at once.

    Raises what `find` raises, but for `Unavailable`.
    """
    with_threads = ThreadPoolExecutor(len(clients), thread_name_prefix="link-kv-find")
    futures = [with_threads.submit(find, client, name) for client in clients]
    with_threads.shutdown(wait=False)
    done = wait(futures, PATIENCE).done
    if not any(future.exception() is None and future.result() is not None for future in done):
        wait(futures)
    found: list[Found[K]] = []
    silent: list[tuple[K, Unavailable]] = []
    for client, future in zip(clients, futures, strict=True):
        error = future.exception() if future.done() else Unavailable(f"no answer within {PATIENCE} s")
        if isinstance(error, Unavailable):
            silent.append((client, error))
        elif (result := future.result()) is not None:
            found.append(result)
    return found, silent


def distinct(found: Sequence[Found[K]]) -> list[Found[K]]:
    """One for each cluster."""
    kept: list[Found[K]] = []
    for each in found:
        if not any(same_cluster(each, other) for other in kept):
            kept.append(each)
    return kept


def same_cluster(one: Found[Any], other: Found[Any]) -> bool:
    """Whether two clients see one cluster.

    The id that etcd gives is the same on all machines where it was started without options. So what the store
    holds is compared as well, at one revision; and each must know the revisions that the other has had.
    """
    if one.cluster != other.cluster or one.at != other.at or abs(one.revision - other.revision) > _FAR:
        return False
    revision = min(one.revision, other.revision)
    try:
        samples = [_sample(each, revision) for each in (one, other, one)]
    except RevisionError:
        return False
    in_order = samples[0].now <= samples[1].now <= samples[2].now
    return in_order and samples[0].held == samples[1].held


class _Sample(NamedTuple):
    now: int
    """The newest revision."""
    held: list[tuple[bytes, bytes, int, int]]


def _sample(found: Found[Any], revision: int) -> _Sample:
    get = Get(found.at.marker, found.at.end, _SAMPLE, revision=revision)
    answer = run(Exchange(found.client._space).range(get))
    held = [(kv.key, kv.value, kv.create_revision, kv.mod_revision) for kv in answer.kvs]
    return _Sample(answer.header.revision, held)


def read_catalogs(client: Connection) -> tuple[int, dict[str, dict[str, Any]]]:
    """The cluster's id, and of each store the items, by segment, with their stored descriptions."""
    return run(_read_catalogs(Exchange(client._space), root_of(client)))


async def _read_catalogs(ex: Exchange, root: Place) -> tuple[int, dict[str, dict[str, Any]]]:
    found = await names(ex, root)
    catalogs: dict[str, dict[str, Any]] = {}
    for segment in (segment for segment, tree in found.trees.items() if tree):
        store = root.child(segment)
        items: dict[str, Any] = {name: {} for name in (await names(ex, store)).trees}
        ex.renew()
        start = description_key(store, "")
        for kv in (await ex.range(Get(start, start[:-1] + b"0"))).kvs:
            try:
                description = json.loads(kv.value)
                name = kv.key[len(start) :].decode()
            except (ValueError, RecursionError):
                continue
            if isinstance(description, dict):
                items[name] = description
        catalogs[segment] = items
    return found.cluster, catalogs
