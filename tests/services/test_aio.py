"""The asyncio twins: the same calls, awaited."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from link_kv import DeadlineExceeded, LockRefused, NotFound, RemoteError, Unavailable, aio
from link_kv._core.links import registry

from .echo import Echo


class Async(aio.Service):
    def __init__(self) -> None:
        super().__init__("Async")
        self._free = asyncio.Event()

    async def wait(self) -> str:
        await self._free.wait()
        return "free"

    async def free(self) -> None:
        self._free.set()

    async def caller(self) -> list[str]:
        await asyncio.sleep(0)
        assert self.request is not None
        return [self.request.caller.name, self.request.attribute]

    async def boom(self) -> None:
        raise ValueError("in a coroutine")

    def plain(self, value: Any) -> Any:
        return value

    async def tell(self, value: Any) -> None:
        self.emit_notification(value)

    async def shutdown_service(self) -> str:
        return "bye"


async def test_calls(echo: Echo) -> None:
    async with await aio.connect() as client:
        link = await client.link("Echo")
        assert await link.echo(1, a=b"2") == [[1], {"a": b"2"}]
        assert await link.PI() == Echo.PI
        assert not hasattr(link, "nonsense")
        assert {"echo", "unlink"} <= set(dir(link))
        results = await asyncio.gather(*(link.same(number) for number in range(500)))
        assert results == list(range(500))
        with pytest.raises(RemoteError, match="ValueError: why"):
            await link.boom("why")
        with pytest.raises(DeadlineExceeded, match="wait: not answered"):
            await link.wait(timeout=0.05)
        waiting = asyncio.create_task(link.wait())
        await asyncio.sleep(0)
        waiting.cancel()
        await link.release()
        assert await link.same("after a cancelled call") == "after a cancelled call"
        with pytest.raises(NotFound):
            await client.link("Nobody")
        assert set((await client.identities())["services"]) == {"Echo"}
        assert client.is_connected()
        await client.unlink(link)
        with pytest.raises(AttributeError):
            _ = link.echo
    assert not client.is_connected()
    await client.disconnect()


async def test_locks_and_spawned_clients(echo: Echo) -> None:
    async with await aio.connect(name="alice") as alice, await alice.spawn("bob") as bob:
        async with await alice.link("Echo") as link:
            assert await link.acquire_lock() == ["alice"]
            with pytest.raises(LockRefused, match="locked by alice"):
                await bob.link("Echo")
            assert await link.release_lock() == []
        assert await (await bob.link("Echo")).acquire_lock(shared=True) == ["bob"]


async def test_notifications_reach_the_loop(echo: Echo) -> None:
    async with await aio.connect() as client:
        link = await client.link("Echo")
        got: asyncio.Queue[Any] = asyncio.Queue()

        async def handler(value: Any) -> None:
            await got.put((value, await link.same("from within")))

        link.notification_handler = handler  # type: ignore[method-assign]
        for number in range(10):
            await link.notify(number)
        told = [await asyncio.wait_for(got.get(), 20) for _ in range(10)]
        assert told == [(number, "from within") for number in range(10)]


@pytest.mark.usefixtures("unhurried")
async def test_a_linked_client(echo: Echo) -> None:
    class Mine(aio.LinkedClient):
        errors = 0

        def service_error_handler(self) -> None:
            self.errors += 1

    async with Mine("Echo") as linked:
        assert await linked.echo() == [[], {}]
        with pytest.raises(RemoteError):
            await linked.boom()
        assert linked.errors == 1
        other = await linked.spawn()
        assert type(other) is Mine
        await other.disconnect()
        assert await linked.shutdown_service(1) == ["bye", [1], {}]
    with pytest.raises(TimeoutError):
        await aio.LinkedClient("Nobody", timeout=0.1).open()


async def test_a_service_of_coroutines() -> None:
    service = Async()
    running = asyncio.create_task(service.start())
    async with aio.LinkedClient("Async", timeout=20) as linked:
        waiting = [asyncio.create_task(linked.wait()) for _ in range(100)]
        assert await linked.plain([1]) == [1]
        await linked.free()
        assert await asyncio.gather(*waiting) == ["free"] * 100
        assert await linked.caller() == ["LinkedClient", "caller"]
        with pytest.raises(RemoteError, match="in a coroutine"):
            await linked.boom()
        got: asyncio.Queue[Any] = asyncio.Queue()
        linked.notification_handler = got.put  # type: ignore[method-assign]
        await linked.tell(7)
        assert await asyncio.wait_for(got.get(), 20) == 7
        assert await linked.shutdown_service() == "bye"
        await asyncio.wait_for(running, 20)
        with pytest.raises(Unavailable):
            await linked.plain(1)


@pytest.mark.usefixtures("patient")
async def test_a_service_meanwhile() -> None:
    async with Async(), aio.LinkedClient("Async") as linked:
        assert await linked.plain(1) == 1
    async with await aio.connect() as client:
        assert (await client.identities())["services"] == {}


class Held:
    """Something that waits, in whatever thread it is called, until it may go on."""

    def __init__(self, what: Any) -> None:
        self.begun, self.go = threading.Event(), threading.Event()
        self._what = what

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.begun.set()
        assert self.go.wait(30)
        return self._what(*args, **kwargs)

    async def cancel(self, task: asyncio.Task[Any]) -> None:
        """Cancel what waits here."""
        assert await asyncio.to_thread(self.begun.wait, 30)
        task.cancel()
        await asyncio.sleep(0)
        self.go.set()
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.mark.usefixtures("patient")
async def test_a_start_that_is_cancelled_leaves_no_service(monkeypatch: pytest.MonkeyPatch) -> None:
    service = Async()
    held = Held(service.describe_attributes)
    monkeypatch.setattr(service, "describe_attributes", held)
    await held.cancel(asyncio.create_task(service.start()))
    async with await aio.connect() as client:
        assert (await client.identities())["services"] == {}
    assert service._serving is not None
    assert service._serving.over.is_set()


@pytest.mark.usefixtures("patient")
async def test_a_connect_that_is_cancelled_leaves_no_client(monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(registry.register_client)
    with monkeypatch.context() as patch:
        patch.setattr(registry, "register_client", held)
        await held.cancel(asyncio.create_task(aio.connect(name="cancelled")))
    async with await aio.connect(name="other") as client:
        assert [each["name"] for each in (await client.identities())["clients"].values()] == ["other"]


async def test_a_link_and_a_lock_that_are_cancelled_leave_none(
    echo: Echo, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with await aio.connect(name="alice") as alice, await alice.spawn("bob") as bob:
        link = await alice.link("Echo")
        held = Held(registry.add_link)
        with monkeypatch.context() as patch:
            patch.setattr(registry, "add_link", held)
            await held.cancel(asyncio.create_task(bob.link("Echo")))
        held = Held(registry.add_lock)
        with monkeypatch.context() as patch:
            patch.setattr(registry, "add_lock", held)
            await held.cancel(asyncio.create_task(link.acquire_lock()))  # alone again, so it is granted
        other = await bob.link("Echo")
        assert await other.echo() == [[], {}]
        await other.unlink()
        assert await link.acquire_lock() == ["alice"]
        held = Held(registry.add_lock)
        with monkeypatch.context() as patch:
            patch.setattr(registry, "add_lock", held)
            await held.cancel(asyncio.create_task(link.acquire_lock()))  # what it had before it keeps
        with pytest.raises(LockRefused):
            await bob.link("Echo")


@pytest.mark.usefixtures("patient")
async def test_a_linked_client_that_is_cancelled_leaves_none(
    echo: Echo, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(registry.add_link)
    linked = aio.LinkedClient("Echo")
    with monkeypatch.context() as patch:
        patch.setattr(registry, "add_link", held)
        await held.cancel(asyncio.create_task(linked.open()))
    async with await aio.connect(name="other") as client:
        assert [each["name"] for each in (await client.identities())["clients"].values()] == ["other"]
    async with linked:
        assert await linked.echo() == [[], {}]
    async with linked:  # opened anew
        assert await linked.echo() == [[], {}]
