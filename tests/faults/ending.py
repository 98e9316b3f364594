"""A program that ends with everything open: ``python -m tests.faults.ending WAY STATE ENDPOINT PREFIX``.

It says ``ready`` once a client, a watch, a mirror, an item, a session, a lock, a service, a link, and all of
asyncio's are open, and nothing else unless something is wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

import link_kv
from link_kv import EtcdMiddleware, Lock, Session, aio
from link_kv.errors import LinkKVError
from link_kv.links import connect
from tests.services.echo import Echo
from tests.wire.proxy import Proxy

SECONDS = 60
"""Whatever hangs for so long is ended, and where it hung is told."""


class Everything:
    """One of each that is open. Nothing of it is ever closed, but by `close`."""

    def __init__(self, endpoint: str, prefix: str) -> None:
        url = f"etcd://{endpoint}{prefix}?timeout=5"
        self.client = client = EtcdMiddleware.from_url(url)
        client["/store"] = {"value": 1}
        self.watch = client.watch("/store")
        self.subscription = client.subscribe("/store", lambda change: None)
        self.mirror = client.mirror("/store")
        self.item = link_kv.get("store", "value", client=client)
        self.registration = self.item.register(lambda item, value, at: None)
        self.session = Session(client)
        self.session.put("/session", 1)
        self.lock = Lock(client, "lock")
        assert self.lock.acquire(10)
        self.service = Echo()
        self.service.start_in_thread(host=url)
        self.links = connect(host=url)
        self.link = self.links.link("Echo")
        self.link.notification_handler = lambda *args: None  # type: ignore[method-assign]
        assert self.link.same(1) == 1

    def work(self) -> None:
        """What threads do meanwhile."""
        with contextlib.suppress(LinkKVError, AttributeError):  # what is used here ends meanwhile
            while True:
                self.client["/store/value"] = 2
                self.link.same(2)

    def close(self) -> None:
        for close in (
            self.link.unlink,
            self.links.disconnect,
            self.service.stop,
            self.lock.release,
            self.session.close,
            self.mirror.close,
            self.subscription.close,
            self.watch.close,
            self.client.close,
        ):
            with contextlib.suppress(LinkKVError):  # etcd may be cut off
                close()

    def still_works(self) -> None:
        self.client["/still"] = 3
        assert self.client["/still"] == 3
        assert self.link.same(3) == 3


async def open_in_asyncio(endpoint: str, prefix: str) -> list[Any]:
    client = aio.EtcdMiddleware.from_url(f"etcd://{endpoint}{prefix}?timeout=5")
    await client.put("/aio/value", 1)
    mirror = await client.mirror("/aio")
    lock, session = aio.Lock(client, "aio"), aio.Session(client)
    assert await lock.acquire(10)
    await session.open()
    changes = client.watch("/aio")
    waiting = asyncio.ensure_future(anext(aiter(changes)))
    await asyncio.sleep(0)
    return [client, mirror, lock, session, changes, waiting]


def fork(leave: Callable[[], object]) -> None:
    pid = os.fork()
    if pid == 0:
        signal.alarm(SECONDS)
        leave()
        os._exit(9)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status:
        print(f"the child ended with {status}", flush=True)


def main(way: str, state: str, endpoint: str, prefix: str) -> None:
    sys.setswitchinterval(0.0005)  # ten times as often as by default: what is rare comes sooner
    faulthandler.register(signal.SIGALRM, chain=True)
    signal.alarm(SECONDS)
    proxy = Proxy(endpoint).__enter__() if state == "cut off" else None
    everything = Everything(proxy.endpoint if proxy else endpoint, prefix)
    if way == "asyncio":
        asyncio.run(in_asyncio(everything, state, proxy, endpoint, prefix))
        return
    # What a shell starts in the background ignores it, and so does all that comes of that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        if way == "exit at SIGTERM":  # before anybody is told that it may come
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        begin(everything, state, proxy)
        WAYS[way](everything, state)
    except KeyboardInterrupt:
        sys.exit(130)


async def in_asyncio(everything: Everything, state: str, proxy: Proxy | None, *at: str) -> None:
    kept = await open_in_asyncio(*at)
    begin(everything, state, proxy)
    del kept


def begin(everything: Everything, state: str, proxy: Proxy | None) -> None:
    """Bring about the state in which the program ends."""
    if state == "busy":
        for _ in range(3):
            threading.Thread(target=everything.work, daemon=True).start()
    if proxy:
        proxy.hold()
    print("ready", flush=True)


def close(everything: Everything, state: str) -> None:
    everything.close()


def leave_by_exit(everything: Everything, state: str) -> None:
    sys.exit(0)


def end(everything: Everything, state: str) -> None:
    pass


def wait(everything: Everything, state: str) -> None:
    # With a bound: Python itself may miss a signal that comes just before a wait without one.
    while not threading.Event().wait(0.5):
        pass


def fork_and_exit(everything: Everything, state: str) -> None:
    fork(lambda: sys.exit(0))
    if state != "cut off":
        everything.still_works()


def fork_and_leave(everything: Everything, state: str) -> None:
    fork(lambda: os._exit(0))
    if state != "cut off":
        everything.still_works()


WAYS: dict[str, Callable[[Everything, str], None]] = {
    "end": end,
    "close": close,
    "exit": leave_by_exit,
    "SIGINT": wait,
    "SIGTERM": wait,
    "exit at SIGTERM": wait,
    "fork, child exits": fork_and_exit,
    "fork, child leaves": fork_and_leave,
    "asyncio": end,
}
STATES = ("quiet", "busy", "cut off")

if __name__ == "__main__":
    main(*sys.argv[1:])
