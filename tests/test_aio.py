"""What only asyncio can do to the client: cancelling at any await, several loops, many tasks."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from typing import Any

import pytest

from link_kv import EtcdMiddleware
from link_kv._core.leasing import keeper
from link_kv.aio import EtcdMiddleware as Client
from link_kv.aio import Lock, Session, Transaction
from link_kv.errors import Closed, LeaseLost, LockLost, Unavailable
from tests.contract.adapters import soon
from tests.leases import Program, aconnect, claims, delete, leases
from tests.wire.proxy import Proxy


@pytest.fixture
def endpoint(etcd: Any) -> str:
    found: str = etcd.endpoints[0]
    return found


@pytest.fixture
async def client(endpoint: str, etcd_prefix: str) -> AsyncIterator[Client]:
    async with aconnect(endpoint, etcd_prefix) as client:
        await client.get("/warm")
        yield client


class CancelAt:
    """Awaits an operation and cancels the task at its n-th await; once more at the next, when told so."""

    def __init__(self, operation: Coroutine[Any, Any, Any], at: int, *, twice: bool = False) -> None:
        self._operation = operation
        self._at = {at, at + 1} if twice else {at}
        self.awaits = 0

    def __await__(self) -> Generator[Any, Any, Any]:
        task = asyncio.current_task()
        assert task is not None
        sent: Any = None
        thrown: BaseException | None = None
        while True:
            try:
                future = self._operation.send(sent) if thrown is None else self._operation.throw(thrown)
            except StopIteration as done:
                return done.value
            if self.awaits in self._at:
                task.cancel()
            self.awaits += 1
            sent = thrown = None
            try:
                sent = yield future
            except BaseException as error:  # noqa: BLE001 - it goes into the operation
                thrown = error


async def cancelled(operation: Coroutine[Any, Any, Any], at: int, *, twice: bool = False) -> bool:
    """Run an operation in a task that is cancelled at its n-th await; whether it had so many."""
    step = CancelAt(operation, at, twice=twice)

    async def run() -> None:
        await step

    task = asyncio.ensure_future(run())
    await asyncio.wait([task])
    if task.cancelled():
        return True
    task.result()
    return step.awaits > at


def streams(client: Client) -> int:
    """The calls and streams that the client has open."""
    gc.collect()
    wire: Any = client._space.caller.wire
    return len(wire._calls) + sum(not stream._call.done() for stream in wire._streams)


async def nothing_left(client: Client, endpoint: str, before: set[int], claimed: int = 0) -> None:
    await soon(lambda: leases(endpoint) <= before, 5)
    await soon(lambda: streams(client) == 0, 5)
    await soon(lambda: asyncio.all_tasks() == {asyncio.current_task()}, 5)
    found = [key async for key in client.raw if b"/.link/locks/" in key]
    assert len(found) == claimed


# Cancelled at any await


@pytest.mark.parametrize("twice", [False, True], ids=["once", "twice"])
async def test_acquiring_a_free_lock_cancelled_at_any_await_leaves_nothing(
    client: Client, endpoint: str, twice: bool
) -> None:
    before = leases(endpoint)
    at = 0
    while True:
        lock = Lock(client, "name", ttl=3600)
        more = await cancelled(lock.acquire(), at, twice=twice)
        if lock.held:
            assert not more
            await lock.release()
        await nothing_left(client, endpoint, before)
        if not more:
            break
        at += 1
    assert at > 1


@pytest.mark.parametrize("twice", [False, True], ids=["once", "twice"])
async def test_waiting_for_a_lock_cancelled_at_any_await_leaves_nothing(
    client: Client, endpoint: str, etcd_client: EtcdMiddleware, twice: bool
) -> None:
    async with Lock(client, "name", ttl=3600):
        before = leases(endpoint)
        mine = claims(etcd_client)
        at = 0
        while await cancelled(Lock(client, "name", ttl=3600).acquire(0.3), at, twice=twice):
            await soon(lambda: claims(etcd_client) == mine, 5)
            await soon(lambda: leases(endpoint) <= before, 5)
            await soon(lambda: streams(client) == 0, 5)
            at += 1
        assert at > 2


@pytest.mark.parametrize("twice", [False, True], ids=["once", "twice"])
async def test_releasing_a_lock_cancelled_at_any_await_releases_it(
    client: Client, endpoint: str, twice: bool
) -> None:
    before = leases(endpoint)
    at = 0
    more = True
    while more:
        lock = Lock(client, "name", ttl=3600)
        await lock.acquire()
        more = await cancelled(lock.release(), at, twice=twice)
        assert not lock.held
        assert await lock.acquire(5), "the object can be used again"
        await lock.release()
        await nothing_left(client, endpoint, before)
        at += 1
    assert at > 1


async def test_a_lock_whose_key_was_deleted_is_told_at_the_end(client: Client, endpoint: str) -> None:
    lock = Lock(client, "name")

    async def block() -> None:
        async with lock:
            delete(endpoint, lock._acquired()._key)

    with pytest.raises(LockLost, match="gone"):
        await block()
    async with lock:
        await lock.client.put("/a", 1)


async def test_a_block_that_is_cancelled_releases(client: Client, endpoint: str) -> None:
    before = leases(endpoint)
    entered = asyncio.Event()

    async def work() -> None:
        async with Lock(client, "name", ttl=3600):
            entered.set()
            await asyncio.sleep(60)

    task = asyncio.ensure_future(work())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await nothing_left(client, endpoint, before)


async def test_wait_for_around_an_acquire(client: Client, endpoint: str) -> None:
    async with Lock(client, "name", ttl=3600):
        before = leases(endpoint)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(Lock(client, "name", ttl=3600).acquire(), 0.3)
        await soon(lambda: leases(endpoint) <= before, 5)


async def test_a_session_opened_or_closed_and_cancelled_at_any_await(client: Client, endpoint: str) -> None:
    before = leases(endpoint)
    at = 0
    more = True
    while more:
        session = Session(client, 3600)
        more = await cancelled(session.open(), at)
        if not more:
            assert session.alive
            await session.close()
        await nothing_left(client, endpoint, before)
        at += 1
    at = 0
    more = True
    while more:
        session = Session(client, 3600)
        await session.open()
        await session.put("/a", 1)
        more = await cancelled(session.close(), at)
        await nothing_left(client, endpoint, before)
        assert not await client.contains("/a")
        at += 1


async def test_a_lease_is_ended_though_the_time_for_that_has_passed(
    client: Client, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = leases(endpoint)
    session, remove = Session(client, 3600), keeper.Keeper.remove
    await session.open()

    async def slowly(self: keeper.Keeper, lease: keeper.Kept, seconds: float | None) -> None:
        await remove(self, lease, seconds)
        await asyncio.sleep(0.2)  # as if another task had held the loop

    monkeypatch.setattr(keeper.Keeper, "remove", slowly)
    assert await session._lease.close(0.1)
    assert leases(endpoint) <= before


WRITES: dict[str, Callable[[Client], Coroutine[Any, Any, Any]]] = {
    "put": lambda client: client.put("/a", {"x": 2, "y": 2}),
    "put for a while": lambda client: client.put("/a", {"x": 2, "y": 2}, ttl=3600),
    "update": lambda client: client.update({"/a/x": 2, "/a/y": 2}),
    "transaction": lambda client: client.transaction(double),
}


async def double(t: Transaction) -> None:
    for name in "xy":
        t[f"/a/{name}"] = await t[f"/a/{name}"] + 1


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
async def test_a_write_cancelled_at_any_await_happened_whole_or_not_at_all(
    client: Client, endpoint: str, write: Callable[[Client], Coroutine[Any, Any, Any]]
) -> None:
    at = 0
    more = True
    while more:
        await client.put("/a", {"x": 1, "y": 1})
        before = leases(endpoint)
        more = await cancelled(write(client), at)
        await soon(lambda: streams(client) == 0, 5)
        found = await client["/a"]
        assert found in ({"x": 1, "y": 1}, {"x": 2, "y": 2}), found
        kept = (await client.entry("/a/x")).lease
        assert leases(endpoint) - before <= {kept}
        at += 1
    assert at > 1


async def test_a_leased_write_that_fails_leaves_no_lease(client: Client, endpoint: str) -> None:
    before = leases(endpoint)
    await client.put("/a", 1)
    for write in (client.create("/a", 2, ttl=3600), client.put("/a/b", 2, ttl=3600)):
        with pytest.raises(Exception, match="/a"):
            await write
    await nothing_left(client, endpoint, before)


# Many tasks, several loops


async def test_many_sessions_are_kept_alive_by_one_task(client: Client, endpoint: str) -> None:
    before = leases(endpoint)
    sessions = [Session(client, 6) for _ in range(200)]
    await asyncio.gather(*(session.open() for session in sessions))
    assert sum(task.get_name() == "link-kv-sessions" for task in asyncio.all_tasks()) == 1
    for _ in range(2):
        deadlines = {session: session._lease.expires for session in sessions}
        await soon(lambda known=deadlines: all(each._lease.expires > end for each, end in known.items()))  # type: ignore[misc]
    assert all(session.alive for session in sessions)
    await asyncio.gather(*(session.close() for session in sessions))
    await nothing_left(client, endpoint, before)


async def test_tasks_that_compete_for_one_lock(client: Client, endpoint: str) -> None:
    before = leases(endpoint)
    inside: list[int] = []
    most: list[int] = []

    async def work(number: int) -> None:
        async with Lock(client, "name", ttl=60) as lock:
            inside.append(number)
            most.append(len(inside))
            await lock.client.put("/count", await lock.client.get("/count", 0) + 1)
            inside.remove(number)

    await asyncio.gather(*(work(number) for number in range(40)))
    assert max(most) == 1
    assert await client["/count"] == 40
    await nothing_left(client, endpoint, before)


async def test_closing_the_client_ends_what_waits(endpoint: str, etcd_prefix: str, client: Client) -> None:
    async with Lock(client, "name"):
        other = aconnect(endpoint, etcd_prefix)
        waiting = asyncio.ensure_future(Lock(other, "name").acquire())
        await soon(lambda: _claims(client, 2))
        await other.close()
        with pytest.raises(Closed):
            await asyncio.wait_for(waiting, 20)


async def _claims(client: Client, number: int) -> bool:
    return len([key async for key in client.raw if b"/.link/locks/" in key]) == number


def test_a_client_serves_one_loop_after_the_other(endpoint: str, etcd_prefix: str) -> None:
    client = aconnect(endpoint, etcd_prefix)
    left: list[Session] = []

    async def first() -> None:
        await client.put("/a", 1)
        async with Lock(client, "name") as lock:
            await lock.client.put("/a", 2)
        session = Session(client, 3600)
        await session.open()
        left.append(session)  # and its loop ends before it is closed

    async def second() -> None:
        (session,) = left
        assert not session.alive
        assert session.lost.is_set()
        with pytest.raises(LeaseLost):
            await session.put("/b", 1)
        assert await client["/a"] == 2
        async with Lock(client, "name") as lock:
            await lock.client.put("/a", 3)
        async with Session(client, 10) as mine:
            await mine.put("/c", 1)
            assert mine.alive
        lease = session.lease
        await session.close()
        assert lease not in leases(endpoint)
        await client.close()

    threads = threading.active_count()
    asyncio.run(first())
    asyncio.run(second())
    assert threading.active_count() <= threads + 1  # gRPC's own poller stays


async def test_breaking_off_an_iteration_leaves_nothing(client: Client, endpoint: str) -> None:
    await client.update({f"/{number}": number for number in range(50)})
    async for path in client:
        assert path == "/0"
        break
    gc.collect()
    await asyncio.sleep(0)
    await nothing_left(client, endpoint, leases(endpoint))


async def test_a_block_is_never_entered_without_the_lock(etcd_prefix: str) -> None:
    entered = False
    async with aconnect("127.0.0.1:1", etcd_prefix, timeout=0.5) as client:
        with pytest.raises(Unavailable):
            async with Lock(client, "name"):
                entered = True
    assert not entered


async def test_a_holder_that_is_cut_off_knows_at_its_deadline(
    endpoint: str, etcd_prefix: str, client: Client
) -> None:
    with Proxy(endpoint) as proxy:
        async with aconnect(proxy.endpoint, etcd_prefix, timeout=10.0) as cut_off:
            lock = Lock(cut_off, "name", ttl=5)
            await lock.acquire()
            fenced, lost = lock.client, lock.lost
            await asyncio.to_thread(proxy.hold)
            await asyncio.wait_for(lost.wait(), 20)
            with pytest.raises(LockLost):
                await fenced.put("/a", 1)
            async with Lock(client, "name"):
                pass
            await asyncio.to_thread(proxy.release)
            with pytest.raises(LockLost):
                await lock.release()


async def test_a_session_that_renews_survives_an_outage(
    endpoint: str, etcd_prefix: str, client: Client
) -> None:
    with Proxy(endpoint) as proxy:
        async with aconnect(proxy.endpoint, etcd_prefix, timeout=10.0) as cut_off:
            async with Session(cut_off, 5, renew=True) as session:
                await session.put("/a", 1)
                first = session.lease
                await asyncio.to_thread(proxy.close)
                await asyncio.wait_for(session.lost.wait(), 20)
                await asyncio.to_thread(proxy.reopen)
                await soon(lambda: session.alive)
                assert session.lease != first
                assert await client["/a"] == 1
            assert not await client.contains("/a")


def test_a_forked_child_has_no_part_in_it(endpoint: str, etcd_prefix: str) -> None:
    source = """
import asyncio
from link_kv.errors import LockLost
from tests.contract.adapters import soon
from tests.leases import aconnect
from link_kv.aio import Lock
async def main():
    async with aconnect(endpoint, prefix) as client:
        async with Lock(client, 'name', ttl=5) as lock:
            fenced = lock.client
            child = os.fork()
            if child == 0:
                said = [lock.held]
                try:
                    await fenced.put('/a', 1)
                except LockLost as error:
                    said.append('fork' in str(error))
                say(*said)
                os._exit(0)
            say(os.waitpid(child, 0)[1])
            lease = lock._acquired().lease
            for _ in range(2):
                expires = lease.expires
                await soon(lambda: lease.expires > expires)
            await fenced.put('/a', 2)
            say(lock.held, await client['/a'])
asyncio.run(main())
"""
    with Program(source, endpoint, etcd_prefix) as program:
        program.expect("False True")
        program.expect("0")
        program.expect("True 2")
        assert program.finish() == 0


async def test_what_would_have_to_be_awaited_is_refused_at_once(client: Client) -> None:
    """Python would ask for the items 0, 1, 2, … for ever: each is a coroutine, and none an IndexError."""
    await client.put("/t", {"l": [1]})
    tree = await client.tree("/t")
    for each in (client, tree, await tree["l"], client.raw, client.at(await client.put("/x", 1))):
        with pytest.raises(TypeError):
            "x" in each  # type: ignore[operator]  # noqa: B015
        with pytest.raises(TypeError):
            iter(each)  # type: ignore[call-overload]
