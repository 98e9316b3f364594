"""asyncio on the wire: cancelling at any await, closing under way, deadlines, failover."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from link_kv import aio, local
from link_kv._core.wire.calls import KEEP_ALIVE, TXN, WATCH, Method, Repeat, WireFailure
from link_kv._core.wire.config import Config
from link_kv._core.wire.requests import field, varint
from link_kv.errors import Closed, DeadlineExceeded, OutcomeUnknown, Unavailable
from tests.processes import read, until
from tests.wire.conftest import allow, unsent, within
from tests.wire.proxy import Proxy
from tests.wire.streams import asked

Client = aio.EtcdMiddleware
Connect = Callable[..., Client]


@pytest.fixture
async def connect(etcd_prefix: str) -> AsyncIterator[Connect]:
    clients: list[Client] = []

    def make(*endpoints: str, **options: Any) -> Client:
        client: Client = Client._of(Config(**{"endpoints": endpoints, "prefix": etcd_prefix, **options}))
        clients.append(client)
        return client

    yield make
    for client in clients:
        await client.close()


def create(client: Client) -> bytes:
    key = client._space.prefix + b"/"
    return field(b"\x0a", field(b"\x0a", key) + field(b"\x12", key[:-1] + b"0"))


async def watch(client: Client) -> Any:
    _, stream = await client._space.caller.open(WATCH)
    await stream.send(create(client))
    assert (await stream.receive()).created
    return stream


# Failures, as with the blocking client


async def test_a_call_may_take_longer_than_grpc_can_count(etcd: Any, connect: Connect) -> None:
    client = connect(*etcd.endpoints, timeout=1e300)
    await asyncio.wait_for(client.put("/a", 1), 30)
    assert await asyncio.wait_for(client.get("/a"), 30) == 1
    (await asyncio.wait_for(watch(client), 30)).cancel()


async def test_a_stopped_server(server: local.LocalEtcd, connect: Connect) -> None:
    client = connect(*server.endpoints, timeout=20)
    await client.put("/a", 1)
    assert await client.get("/a") == 1
    server.kill()
    allow(client, 0.5)

    async def refused(action: Awaitable[Any]) -> bool:
        with within(1), pytest.raises(Unavailable) as caught:
            await action
        assert not isinstance(caught.value, OutcomeUnknown)
        return "refused" in str(caught.value)

    for action in (lambda: client.get("/a"), lambda: client.put("/a", 2)):
        # A loop that rests until the deadline finds no reason.
        assert any([await refused(action()) or await refused(action())])


async def test_a_frozen_server(server: local.LocalEtcd, connect: Connect) -> None:
    client = connect(*server.endpoints, timeout=20)
    await client.put("/a", 1)
    assert await client.get("/a") == 1
    server.pause()
    allow(client, 0.5)
    with within(1), pytest.raises((OutcomeUnknown, DeadlineExceeded)) as caught:
        await client.put("/a", 2)
    if isinstance(caught.value, DeadlineExceeded) and unsent(caught.value):
        with within(1), pytest.raises((OutcomeUnknown, DeadlineExceeded)) as caught:
            await client.put("/a", 2)
    assert isinstance(caught.value, OutcomeUnknown)
    with within(1), pytest.raises(DeadlineExceeded):
        await client.put("/a", 3)
    with within(1), pytest.raises(DeadlineExceeded):
        await client.get("/a")
    server.resume()
    allow(client, 20)
    assert await client.get("/a") in (1, 2)


async def test_a_frozen_server_is_noticed(server: local.LocalEtcd, connect: Connect) -> None:
    client = connect(*server.endpoints, timeout=60)
    await client.put("/a", 1)
    stream = await watch(client)
    server.pause()
    with within(12):
        received, written = await asyncio.gather(
            stream.receive(), client.put("/a", 2), return_exceptions=True
        )
    assert isinstance(received, WireFailure)
    assert isinstance(written, OutcomeUnknown)


async def test_the_next_endpoint_takes_over(
    etcd: Any, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    with Proxy(etcd.endpoints[0]) as first:
        client = connect(first.endpoint, *etcd.endpoints, timeout=9)
        await client.put("/a", 1)
        assert await client.get("/a") == 1
        first.hold()
        with within(4), caplog.at_level(logging.INFO, "link_kv.wire"):
            assert await client.get("/a") == 1
        endpoints = asked(client)
        with within(1):
            assert await client.get("/a") == 1
        assert set(endpoints) <= set(etcd.endpoints)
    assert any("going on with" in line for line in caplog.messages)


async def test_a_connection_that_is_cut(proxy: Proxy, connect: Connect) -> None:
    client = connect(proxy.endpoint, timeout=20)
    await client.put("/a", 1)
    assert await client.get("/a") == 1
    for _ in range(10):
        proxy.cut()
        with within(2):
            assert await client.get("/a") == 1


async def test_many_tasks_go_on_while_the_connection_breaks(proxy: Proxy, connect: Connect) -> None:
    client = connect(proxy.endpoint, timeout=20)
    await client.put("/n", 0)
    assert await client.get("/n") == 0
    end = time.monotonic() + 2

    async def read() -> None:
        while time.monotonic() < end:
            assert await client.get("/n") == 0

    async def disturb() -> None:
        while time.monotonic() < end:
            await asyncio.to_thread(proxy.cut)
            await asyncio.sleep(0.1)

    await asyncio.gather(disturb(), *(read() for _ in range(50)))


# Closing


async def test_closing_ends_calls_that_are_under_way(proxy: Proxy, connect: Connect) -> None:
    """Who waits is told that the client was closed, not that his task was cancelled."""
    client = connect(proxy.endpoint, timeout=30)
    await client.put("/a", 1)
    stream = await watch(client)
    proxy.hold()
    tasks = []
    for one, sent in (
        (client.get("/a"), b"/a"),
        (client.put("/a", "written"), b"written"),
        (stream.receive(), b""),
    ):
        tasks.append(asyncio.ensure_future(one))
        await asyncio.to_thread(until, lambda sent=sent: sent in proxy.pending())
    assert not any(task.done() for task in tasks)
    with within(2):
        await client.close()
        found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(one) for one in found] == [Closed, OutcomeUnknown, WireFailure]
    await client.close()
    with pytest.raises(Closed):
        await client.get("/a")


async def test_a_cancelled_stream_says_so(etcd: Any, connect: Connect) -> None:
    stream = await watch(connect(*etcd.endpoints))
    task = asyncio.ensure_future(stream.receive())
    await asyncio.sleep(0)
    stream.cancel()
    stream.cancel()
    with pytest.raises(WireFailure):
        await task
    with pytest.raises(WireFailure):
        await stream.receive()
    await stream.send(create(connect(*etcd.endpoints)))  # dropped


# Cancelling


async def cancelled_in_time(
    begin: Callable[[], Awaitable[Any]], check: Callable[[], Awaitable[None]], moments: int = 60
) -> None:
    """Run an operation again and again, and cancel it a little later each time, until it gets through."""
    began = time.perf_counter()
    await begin()
    longest = 1.5 * (time.perf_counter() - began)
    await check()
    for moment in range(moments):
        task = asyncio.ensure_future(begin())
        await asyncio.wait([task], timeout=longest * moment / moments)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await check()


async def test_a_cancelled_write_happened_whole_or_not_at_all(etcd: Any, connect: Connect) -> None:
    client = connect(*etcd.endpoints)
    turn = 0

    async def write() -> None:
        nonlocal turn
        turn += 1
        await client.update({f"/t/{name}": turn for name in "abc"})

    async def whole() -> None:
        assert len(set((await client.get("/t")).values())) == 1

    await cancelled_in_time(write, whole)


async def leases(client: Client) -> set[int]:
    """Those that the server knows."""
    answer = await client._space.caller.call(Method("Lease", "LeaseLeases"), b"")
    return {lease.ID for lease in answer.leases}


async def test_a_cancelled_write_with_a_time_to_live_leaves_no_lease(
    server: local.LocalEtcd, connect: Connect
) -> None:
    """Either the value is there, or no lease is."""
    client = connect(*server.endpoints)
    await client.put("/other", 1)
    number = 0

    async def write() -> None:
        nonlocal number
        number += 1
        await client.put(f"/a/{number}", number, ttl=600)

    async def none_left() -> None:
        end = time.monotonic() + 5
        while True:
            there = await client.get("/a", {})
            found = await leases(client)
            if len(found) == len(there):
                return
            assert time.monotonic() < end, (found, there)
            await asyncio.sleep(0.02)

    await cancelled_in_time(write, none_left)


@pytest.mark.parametrize("slow", ["request", "answer"])
def test_a_loop_that_ends_in_the_midst_of_a_write_with_a_time_to_live(
    server: local.LocalEtcd, slow: str
) -> None:
    """It cancels what is shielded from cancelling too. Either the value is there, or no lease is."""

    async def leave() -> None:
        client = Client(endpoints=server.endpoints)
        await client.put("/a", "before")
        wire = client._space.caller.wire
        send, begun = wire.send, asyncio.Event()

        async def slowly(endpoint: str, method: Method, *more: Any) -> Any:
            answer = await send(endpoint, method, *more) if slow == "answer" or method is not TXN else None
            if method is TXN:
                begun.set()
                await asyncio.sleep(60)
            return answer

        wire.send = slowly  # type: ignore[method-assign]
        kept.append(asyncio.ensure_future(client.put("/a", "after", ttl=600)))
        await begun.wait()

    async def look() -> None:
        async with Client(endpoints=server.endpoints) as client:
            found = await client.get("/a"), len(await leases(client))
            assert found == (("before", 0) if slow == "request" else ("after", 1))

    kept: list[Any] = []
    asyncio.run(leave())
    asyncio.run(look())


async def test_cancelling_leaves_no_stream(server: local.LocalEtcd, connect: Connect) -> None:
    """etcd counts the watchers that it has."""
    client = connect(*server.endpoints)
    await client.put("/a", 1)

    async def follow() -> None:
        _, stream = await client._space.caller.open(WATCH)
        try:
            await stream.send(create(client))
            while True:
                await stream.receive()
        finally:
            stream.cancel()

    for moment in range(20):
        task = asyncio.ensure_future(follow())
        await asyncio.wait([task], timeout=moment * 0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def call() -> None:
        await client._space.caller.call(WATCH, create(client))

    for moment in range(20):
        task = asyncio.ensure_future(call())
        await asyncio.wait([task], timeout=moment * 0.0002)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    def watchers() -> int:
        text = read(server.endpoints[0], "/metrics").decode()
        lines = [line for line in text.splitlines() if line.startswith("etcd_debugging_mvcc_watcher_total ")]
        return int(float(lines[0].split()[1]))

    end = time.monotonic() + 10
    while await asyncio.to_thread(watchers):
        assert time.monotonic() < end
        await asyncio.sleep(0.05)


async def test_a_task_that_is_cancelled_while_its_client_closes_is_cancelled(
    proxy: Proxy, connect: Connect
) -> None:
    client = connect(proxy.endpoint, timeout=30)
    await client.put("/a", 1)
    assert await client.get("/a") == 1
    proxy.hold()
    task = asyncio.ensure_future(client.get("/a"))
    await asyncio.wait([task], timeout=0.1)
    task.cancel()
    await client.close()
    with pytest.raises((asyncio.CancelledError, Closed)):
        await task


async def test_a_deadline_of_ones_own(proxy: Proxy, connect: Connect) -> None:
    client = connect(proxy.endpoint, timeout=30)
    await client.put("/a", 1)
    assert await client.get("/a") == 1
    proxy.hold()
    for action in (lambda: client.get("/a"), lambda: client.put("/a", 1)):
        with within(1), pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(action(), 0.2)


async def test_calls_that_are_streams_have_one_answer(etcd: Any, connect: Connect) -> None:
    client = connect(*etcd.endpoints)
    answer = await client._space.caller.call(KEEP_ALIVE, b"\x08" + varint(12345), Repeat.READ)
    assert answer.TTL == 0
