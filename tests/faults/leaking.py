"""A program that uses things many times: ``python -m tests.faults.leaking WHAT TIMES ENDPOINT``.

It says, as JSON, by how many threads, descriptors and bytes it has grown.
"""

from __future__ import annotations

import contextlib
import gc
import json
import sys
import threading
from collections.abc import Callable

from link_kv import EtcdMiddleware
from tests.processes import until
from tests.services.echo import Echo
from tests.wire.test_lifetime import descriptors, resident

_WARM = 100
"""How many uses come before the count: caches fill, pools of threads grow."""


def connects(endpoint: str) -> Callable[[], None]:
    def use() -> None:
        with EtcdMiddleware(endpoints=[endpoint], prefix="/leaks") as client:
            client.get("/a")

    return use


def watches(endpoint: str) -> Callable[[], None]:
    client = EtcdMiddleware(endpoints=[endpoint], prefix="/leaks")
    client["/a"] = 0
    number = 0

    def use() -> None:
        nonlocal number
        number += 1
        told = threading.Event()
        with client.subscribe("/a", lambda change: told.set()):
            client["/a"] = number
            assert told.wait(20)

    return use


def services(endpoint: str) -> Callable[[], None]:
    def use() -> None:
        with Echo() as service:
            service.start_in_thread(host=f"etcd://{endpoint}/leaks")

    return use


USES = {"connects": connects, "watches": watches, "services": services}


def main(what: str, times: str, endpoint: str) -> None:
    use = USES[what](endpoint)
    for _ in range(_WARM):
        use()
    gc.collect()
    before = descriptors(), threading.active_count(), resident()
    for _ in range(int(times)):
        use()
    gc.collect()
    with contextlib.suppress(AssertionError):  # the figures tell it
        until(lambda: descriptors() <= before[0] and threading.active_count() <= before[1], 10)
    found = {
        "threads": threading.active_count() - before[1],
        "descriptors": descriptors() - before[0],
        "bytes": resident() - before[2],
    }
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
