"""Items: reading one, a store of 10,000, and many written at once. The peers are what Python itself takes."""

from __future__ import annotations

import gc
import threading
import time
import timeit
import tracemalloc
from typing import Any

from benchmarks.measure import Row
from link_kv import EtcdMiddleware, Item, get

ITEMS = 10_000
READS = 2_000_000


def run(endpoint: str) -> list[Row]:
    with EtcdMiddleware(endpoints=[endpoint], prefix="/bench-items") as client:
        client["/store"] = {f"key{number:05}": number * 1.5 for number in range(ITEMS)}
        client["/other"] = {"a": 1}
    rows = [_primed(endpoint), _memory(endpoint)]
    with EtcdMiddleware(endpoints=[endpoint], prefix="/bench-items") as client:
        rows += [_read(client), _written_at_once(client)]
        del client["/store"], client["/other"]
    return rows


class _Count:
    """A callback that says when it was called often enough."""

    def __init__(self, number: int) -> None:
        self._left = number
        self.done = threading.Event()

    def __call__(self, item: Item, value: Any, timestamp: float) -> None:
        self._left -= 1
        if not self._left:
            self.done.set()


def _subscribe(client: EtcdMiddleware) -> list[Any]:
    count = _Count(ITEMS)
    handles = [item.register(count, prime=True) for item in get("store", client=client).values()]
    assert count.done.wait(60)
    return handles


def _primed(endpoint: str) -> Row:
    with EtcdMiddleware(endpoints=[endpoint], prefix="/bench-items") as client:
        get("other", client=client)  # the connection is there
        start = time.perf_counter()
        _subscribe(client)
        took = time.perf_counter() - start
    return Row("10,000 items, primed", took, 1.0, "s", "a second", took, 1.0)


def _memory(endpoint: str) -> Row:
    with EtcdMiddleware(endpoints=[endpoint], prefix="/bench-items") as client:
        get("other", client=client)
        gc.collect()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        handles = _subscribe(client)
        gc.collect()
        each = (tracemalloc.get_traced_memory()[0] - before) / len(handles)
        tracemalloc.stop()
    return Row("memory of an item", each / 1024, 2.0, "KiB", "2 KiB", each / 2048, 1.0)


def _read(client: EtcdMiddleware) -> Row:
    item = get("store.key00000", client=client)

    def read() -> None:
        for _ in range(READS):
            item.value  # noqa: B018

    rate = READS / min(timeit.repeat(read, number=1, repeat=5)) / 1e6
    return Row("item.value", rate, 10.0, "M/s", "10 million a second", rate / 10, 1.0, True)


def _written_at_once(client: EtcdMiddleware) -> Row:
    store = get("store", client=client)
    keys = list(store)[:100]
    times = []
    for number in range(30):
        count = _Count(len(keys))
        handles = [store[key].register(count) for key in keys]
        start = time.perf_counter()
        client.update({f"/store/{key}": number for key in keys})
        assert count.done.wait(20)
        times.append(time.perf_counter() - start)
        assert len({store[key].revision for key in keys}) == 1
        for handle in handles:
            handle.close()
    plain = []
    for number in range(30):
        start = time.perf_counter()
        client.update({f"/plain/{key}": number for key in keys})
        plain.append(time.perf_counter() - start)
    del client["/plain"]
    median, peer = sorted(times)[15] * 1e3, sorted(plain)[15] * 1e3
    return Row(
        "100 items, 100 callbacks", median, peer, "ms", "an update that nobody hears", median / peer, 10.0
    )
