"""Subscriptions, iterators and mirrors in an asyncio loop."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from link_kv import EtcdMiddleware as Blocking
from link_kv import RevisionError, Unavailable
from link_kv._core.watching import aio_takers, settle
from link_kv._core.watching.watcher import Feed, Hub
from link_kv.aio import Change, EtcdMiddleware
from link_kv.live import hub_of
from link_kv.tree import MISSING, Place
from tests.processes import until

SOON = 20


@pytest.fixture
async def client(etcd: Any, etcd_prefix: str) -> AsyncIterator[EtcdMiddleware]:
    async with EtcdMiddleware(endpoints=etcd.endpoints, prefix=etcd_prefix) as it:
        yield it


async def take(changes: Any, number: int) -> list[Change]:
    async def some() -> list[Change]:
        return [await changes.__anext__() for _ in range(number)]

    return await asyncio.wait_for(some(), SOON)


async def test_watch_iterates(client: EtcdMiddleware, etcd_client: Blocking) -> None:
    async with client.watch("/a") as changes:
        first = etcd_client.put("/a/x", 1)
        second = await client.put("/a/x", 2)
        assert await take(changes, 2) == [
            Change("/a/x", 1, MISSING, first, "put"),
            Change("/a/x", 2, 1, second, "put"),
        ]
        assert changes.revision == second
    assert [change async for change in changes] == []
    async with client.watch("/a", revision=first) as changes:
        assert [change.value for change in await take(changes, 2)] == [1, 2]


async def test_async_for_begins_by_itself(client: EtcdMiddleware) -> None:
    revision = await client.put("/a", 1)
    await client.put("/a", 2)
    seen = []
    async for change in client.watch("/a", revision=revision):
        seen.append(change.value)
        if len(seen) == 2:
            break
    assert seen == [1, 2]
    with pytest.raises(RevisionError):
        async for _ in client.watch("/a", revision=revision + 10_000):
            pass


async def test_closing_the_client_ends_an_iteration(etcd: Any, etcd_prefix: str) -> None:
    client = EtcdMiddleware(endpoints=etcd.endpoints, prefix=etcd_prefix)
    async with client.watch("/a") as changes:
        waiting = asyncio.create_task(take(changes, 1))
        await asyncio.sleep(0)
        await client.close()
        with pytest.raises(StopAsyncIteration):
            await waiting
        for _ in range(2):  # each further step ends too
            with pytest.raises(StopAsyncIteration):
                await take(changes, 1)
        assert changes.state == "lost"


@pytest.mark.parametrize("waits", [False, True])
async def test_a_callback_runs_in_the_loop(client: EtcdMiddleware, waits: bool) -> None:
    here, came = threading.get_ident(), asyncio.Queue[Change]()

    def callback(change: Change) -> Any:
        assert threading.get_ident() == here
        came.put_nowait(change)
        return asyncio.sleep(0.001) if waits else None

    async with await client.subscribe("/a", callback) as subscription:
        for number in range(30):
            await client.put("/a", number)
        values = [(await asyncio.wait_for(came.get(), SOON)).value for _ in range(30)]
        assert values == list(range(30))
        while subscription.stats.delivered < 30:
            await asyncio.sleep(0.001)
        assert subscription.state == "live"
    assert subscription.state == "lost"


async def test_a_callback_may_raise_subscribe_and_write(
    client: EtcdMiddleware, caplog: pytest.LogCaptureFixture
) -> None:
    inner = asyncio.Queue[Any]()

    async def callback(change: Change) -> None:
        await client.subscribe("/b", lambda change: inner.put_nowait(change.value))
        await client.put("/b", change.value + 1)
        raise ValueError("no more")

    subscription = await client.subscribe("/a", callback)
    with caplog.at_level(logging.ERROR, "link_kv.live"):
        await client.put("/a", 1)
        assert await asyncio.wait_for(inner.get(), SOON) == 2
        while subscription.stats.callback_errors == 0:
            await asyncio.sleep(0.001)
    assert "no more" in caplog.text


@pytest.mark.parametrize("apart", [False, True])
async def test_a_callback_may_await_what_is_cancelled(
    client: EtcdMiddleware, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, apart: bool
) -> None:
    if apart:  # as up to Python 3.10
        monkeypatch.setattr(aio_takers, "sys", SimpleNamespace(version_info=(3, 10)))
    seen: asyncio.Queue[Any] = asyncio.Queue()

    async def callback(change: Change) -> None:
        seen.put_nowait(change.value)
        if change.value == 1:
            cancelled = asyncio.get_running_loop().create_future()
            cancelled.cancel()
            await cancelled
        if change.value == 3:
            await asyncio.sleep(SOON)

    subscription = await client.subscribe("/a", callback)
    for value in (1, 2, 3):
        await client.put("/a", value)
    assert [await asyncio.wait_for(seen.get(), SOON) for _ in range(3)] == [1, 2, 3]
    assert (subscription.stats.callback_errors, "CancelledError" in caplog.text) == (1, True)
    # Its own task ends when it is cancelled, as at the end of the loop.
    task = subscription._task
    assert task is not None
    task.cancel()
    await asyncio.wait((task,), timeout=SOON)
    assert task.cancelled()


async def test_options_are_those_of_the_blocking_client(client: EtcdMiddleware) -> None:
    heard = asyncio.Queue[Any]()
    await client.put("/a", 0)
    await client.subscribe("/a", heard.put_nowait, policy="latest", max_hz=2, prime=True, queue=10)
    for number in range(1, 50):
        await client.put("/a", number)
    values = [(await asyncio.wait_for(heard.get(), SOON)).value]
    while values[-1] != 49:
        values.append((await asyncio.wait_for(heard.get(), SOON)).value)
    assert values == sorted(values)
    assert len(values) < 50


async def test_the_end_is_told_whatever_the_rate(etcd: Any, etcd_prefix: str) -> None:
    client = EtcdMiddleware(endpoints=etcd.endpoints, prefix=etcd_prefix)
    heard, states = asyncio.Queue[Any](), asyncio.Queue[str]()
    await client.subscribe("/a", heard.put_nowait, max_hz=0.01, on_state=states.put_nowait)
    await client.put("/a", 1)
    assert (await asyncio.wait_for(heard.get(), SOON)).value == 1
    await client.close()
    assert await asyncio.wait_for(states.get(), SOON) == "lost"


async def test_closing_ends_the_task_whatever_the_rate(client: EtcdMiddleware) -> None:
    heard = asyncio.Queue[Any]()
    subscription = await client.subscribe("/a", heard.put_nowait, max_hz=0.01)
    await client.put("/a", 1)
    await asyncio.wait_for(heard.get(), SOON)
    task = subscription._task
    assert task is not None
    assert not task.done()
    subscription.close()
    await asyncio.wait_for(task, SOON)


async def test_a_program_reads_its_own_writes(client: EtcdMiddleware) -> None:
    mirror = await client.mirror("/a")
    for number in range(50):
        await client.put("/a/x", number)
        assert mirror["x"] == number
    await client.put("/a", {"y": [1, 2]})
    assert mirror.snapshot() == {"y": [1, 2]}
    mirror.close()


async def test_a_mirror_is_waited_for_and_the_loop_goes_on(
    client: EtcdMiddleware, etcd_client: Blocking
) -> None:
    async with await client.mirror("/a") as mirror:
        revision = await asyncio.to_thread(etcd_client.put, "/b", 1)
        assert await mirror.wait(revision, SOON)
        assert not await mirror.wait(10**15, 0.01)
        waits = asyncio.create_task(mirror.wait(10**15))
        await asyncio.sleep(0)
        waits.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waits
    assert mirror.state == "lost"


async def test_waiting_for_a_mirror_takes_no_thread_of_the_loop(client: EtcdMiddleware) -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    async with await client.mirror("/a") as mirror:
        waits = [asyncio.create_task(mirror.wait(10**15)) for _ in range(3)]
        await asyncio.sleep(0)
        async with await asyncio.wait_for(client.mirror("/b"), SOON) as other:
            await asyncio.wait_for(client.put("/b", 1), SOON)
            assert other[""] == 1
    assert await asyncio.wait_for(asyncio.gather(*waits), SOON) == [False] * 3


async def test_a_write_takes_no_thread_of_the_loop(
    client: EtcdMiddleware, etcd_client: Blocking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settle, "PATIENCE", 10 * SOON)
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))
    busy, go = threading.Event(), threading.Event()
    async with await client.mirror("/a") as mirror:
        hub = hub_of(client)
        hold_up(hub, go)
        try:
            await asyncio.to_thread(etcd_client.put, "/a/x", 0)  # for this it waits already
            await asyncio.to_thread(until, lambda: mirror.get("x") == 0)
            blocks = loop.run_in_executor(None, busy.wait, 10 * SOON)
            writes = asyncio.create_task(client.put("/a/x", 1))

            async def waiting() -> None:
                while not hub._waiting:
                    await asyncio.sleep(0.001)

            await asyncio.wait_for(waiting(), SOON)
            assert not writes.done()
            go.set()
            await asyncio.wait_for(writes, SOON)
            assert mirror["x"] == 1
        finally:
            go.set()
            busy.set()
        await blocks


async def test_a_write_waits_for_a_mirror_for_some_time_only(
    client: EtcdMiddleware, etcd_client: Blocking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settle, "PATIENCE", 0.05)
    go = threading.Event()
    async with await client.mirror("/a") as mirror:
        hold_up(hub_of(client), go)
        try:
            await asyncio.to_thread(etcd_client.put, "/a/x", 0)
            await asyncio.to_thread(until, lambda: mirror.get("x") == 0)
            await asyncio.wait_for(client.put("/a/x", 1), SOON)
            assert mirror["x"] == 0
        finally:
            go.set()
        await asyncio.to_thread(until, lambda: mirror["x"] == 1)
        assert not hub_of(client)._looks


def hold_up(hub: Hub, go: threading.Event) -> None:
    """Hold up a write of 1 that comes on the stream, and what comes after it."""
    stream = hub._stream
    assert stream is not None
    receive = stream.receive

    async def held_up() -> Any:
        answer = await receive()
        if any(event.kv.value == b"1" for event in answer.events):
            assert go.wait(2 * SOON)
        return answer

    stream.receive = held_up  # type: ignore[method-assign]


async def test_an_iteration_that_could_not_begin_begins_again(
    client: EtcdMiddleware, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = hub_of(client)
    join = hub.join

    def fails(*given: Any, **named: Any) -> None:
        monkeypatch.setattr(hub, "join", join)
        raise Unavailable("not yet")

    monkeypatch.setattr(hub, "join", fails)
    changes = client.watch("/a")
    with pytest.raises(Unavailable):
        await changes.__anext__()
    async with changes:
        await client.put("/a", 1)
        assert [change.value for change in await take(changes, 1)] == [1]


async def test_an_iteration_that_is_closed_while_it_begins_leaves_nothing(
    client: EtcdMiddleware, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = hub_of(client)
    join, begun, go = hub.join, threading.Event(), threading.Event()

    def held_up(*given: Any, **named: Any) -> None:
        begun.set()
        assert go.wait(SOON)
        join(*given, **named)

    monkeypatch.setattr(hub, "join", held_up)
    changes = client.watch("/a")
    begins = asyncio.create_task(take(changes, 1))
    assert await asyncio.to_thread(begun.wait, SOON)
    changes.close()
    go.set()
    with pytest.raises(StopAsyncIteration):
        await begins
    assert changes.state == "lost"
    assert not hub._machine.watches


async def test_closing_just_before_an_iteration_waits_ends_it(
    client: EtcdMiddleware, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with client.watch("/a") as changes:
        await client.put("/a", 1)
        await take(changes, 1)  # from now on it is awake
        changes._came.clear()  # as when it had waited for that
        take_one = changes._take
        monkeypatch.setattr(changes, "_take", lambda: (changes.close(), take_one())[1])
        with pytest.raises(StopAsyncIteration):
            await asyncio.wait_for(changes.__anext__(), SOON)


@pytest.mark.parametrize("fails", [False, True])
async def test_a_first_step_that_is_cancelled_costs_nothing(
    client: EtcdMiddleware, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    hub = hub_of(client)
    join, begun, go, over = hub.join, threading.Event(), threading.Event(), threading.Event()

    def held_up(*given: Any, **named: Any) -> None:
        monkeypatch.setattr(hub, "join", join)
        begun.set()
        assert go.wait(SOON)
        try:
            if fails:
                raise Unavailable("not yet")
            join(*given, **named)
        finally:
            over.set()

    monkeypatch.setattr(hub, "join", held_up)
    changes = client.watch("/a")
    first = asyncio.create_task(take(changes, 1))
    assert await asyncio.to_thread(begun.wait, SOON)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    go.set()
    assert await asyncio.to_thread(over.wait, SOON)
    if fails:
        with pytest.raises(Unavailable, match="not yet"):
            await take(changes, 1)
    second = asyncio.create_task(take(changes, 1))
    while changes.state != "live":
        assert not second.done()
        await asyncio.sleep(0.001)
    await client.put("/a", 1)
    assert [change.value for change in await second] == [1]
    changes.close()
    assert not hub._machine.watches


async def test_what_was_not_entered_is_closed(
    client: EtcdMiddleware, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = hub_of(client)
    join, begun, go, over = hub.join, threading.Event(), threading.Event(), threading.Event()

    def held_up(*given: Any, **named: Any) -> None:
        begun.set()
        assert go.wait(SOON)
        join(*given, **named)
        over.set()

    monkeypatch.setattr(hub, "join", held_up)
    changes = client.watch("/a")
    enters = asyncio.create_task(changes.__aenter__())
    assert await asyncio.to_thread(begun.wait, SOON)
    enters.cancel()
    with pytest.raises(asyncio.CancelledError):
        await enters
    go.set()
    assert await asyncio.to_thread(over.wait, SOON)
    await asyncio.to_thread(until, lambda: not hub._machine.watches)
    assert changes.state == "lost"


async def test_a_mirror_that_is_cancelled_while_it_begins_is_closed(
    client: EtcdMiddleware, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = hub_of(client)
    begin, begun, go = hub.mirror, threading.Event(), threading.Event()

    def held_up(at: Place) -> Feed:
        feed = begin(at)
        begun.set()
        assert go.wait(SOON)
        return feed

    monkeypatch.setattr(hub, "mirror", held_up)
    begins = asyncio.create_task(client.mirror("/a"))
    assert await asyncio.to_thread(begun.wait, SOON)
    begins.cancel()
    with pytest.raises(asyncio.CancelledError):
        await begins
    assert hub.mirrors == 1
    go.set()
    await asyncio.to_thread(until, lambda: hub.mirrors == 0)
    assert not hub._machine.watches


async def test_mirrors_are_counted_while_what_is_followed_changes(client: EtcdMiddleware) -> None:
    hub = hub_of(client)

    class Last:
        @property
        def mirrors(self) -> int:
            hub._feeds.pop(b"/b", None)
            return 1

    hub._feeds.update({b"/a": Last(), b"/b": Last()})  # type: ignore[dict-item]
    assert hub.mirrors == 2
    hub._feeds.clear()


async def test_maintenance_is_that_of_the_blocking_client(client: EtcdMiddleware) -> None:
    etcd3 = await client.etcd3()
    assert await asyncio.to_thread(lambda: etcd3.status().version)
    await asyncio.to_thread(etcd3.close)


async def test_being_cancelled_while_it_begins_leaves_nothing() -> None:
    before = set(threading.enumerate())
    client = EtcdMiddleware(endpoints=["127.0.0.1:1"], timeout=0.5)
    begins = asyncio.create_task(client.subscribe("/a", print))
    await asyncio.sleep(0.05)
    begins.cancel()
    with pytest.raises(asyncio.CancelledError):
        await begins
    with pytest.raises(Unavailable):
        await client.mirror()
    await client.close()
    await asyncio.to_thread(
        until,
        lambda: "link-kv-watch" not in [each.name for each in threading.enumerate() if each not in before],
    )


def test_a_loop_that_ended_is_no_trouble(etcd: Any, etcd_prefix: str, etcd_client: Blocking) -> None:
    async def listen() -> EtcdMiddleware:
        client = EtcdMiddleware(endpoints=etcd.endpoints, prefix=etcd_prefix)
        await client.subscribe("/a", print)
        return client

    client = asyncio.run(listen())
    mirror = etcd_client.mirror("/a")
    etcd_client["/a"] = 1
    assert mirror[""] == 1
    asyncio.run(client.close())
