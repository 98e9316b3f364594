"""What sessions and locks promise, on the blocking client and on the asyncio one."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from link_kv._core.leasing import keeper
from link_kv.errors import ConfigError, LeaseLost, LockLost, LockRefused, NotFound, PathError
from tests.contract.adapters import Kind, soon
from tests.leases import delete, leases, revoke


@pytest.fixture
def endpoint(etcd: Any) -> str:
    found: str = etcd.endpoints[0]
    return found


async def test_a_session_keeps_what_is_put_until_it_is_closed(kind: Kind, client: Any, endpoint: str) -> None:
    session = await kind.session(client, 6)  # a machine that stalls for less does not end it
    assert await session.put("/a", {"b": 1}) > 0
    await session.put("/c", 2)
    await session.delete("/c")
    with pytest.raises(NotFound):
        await session.delete("/c")
    lease = session.lease
    assert (await client.entry("/a/b")).lease == lease
    assert lease in leases(endpoint)
    end = keeper.now() + session.ttl + 0.5
    await soon(lambda: keeper.now() > end, 60)
    assert session.alive
    assert not session.lost.is_set()
    assert await client.item("/a") == {"b": 1}
    await session.close()
    await session.close()
    assert not await client.has("/a")
    assert lease not in leases(endpoint)
    assert session.lost.is_set()
    assert session.lease == 0
    assert "closed" in repr(session.target)
    with pytest.raises(LeaseLost):
        await session.put("/a", 1)
    with pytest.raises(LeaseLost):
        await session.check()


async def test_a_lost_session_and_one_that_renews(kind: Kind, client: Any, endpoint: str) -> None:
    lost, renewed = await kind.session(client, 6), await kind.session(client, 6, renew=True)
    await lost.put("/lost", 1)
    await renewed.put("/renewed", 1)
    first = renewed.lease
    revoke(endpoint, lost.lease)
    revoke(endpoint, first)
    await soon(lost.lost.is_set)
    await soon(lambda: renewed.alive and renewed.lease != first)
    assert not lost.alive
    assert not await client.has("/lost")
    assert await client.item("/renewed") == 1
    await lost.close()
    await renewed.close()
    assert await client.size() == 0


async def test_bad_options_are_refused(kind: Kind, client: Any) -> None:
    for ttl in (0, None, float("nan")):
        with pytest.raises(ConfigError, match="ttl="):
            await kind.session(client, ttl)
        with pytest.raises(ConfigError, match="ttl="):
            kind.lock(client, "name", ttl=ttl)
    with pytest.raises(PathError):
        kind.lock(client, "")
    with pytest.raises(ConfigError, match="timeout="):
        await kind.lock(client, "name").acquire(-1)


async def test_one_holds_a_lock_at_a_time(kind: Kind, client: Any, endpoint: str) -> None:
    lock, other = kind.lock(client, "a/b"), kind.lock(client, "a/b")
    before = leases(endpoint)
    assert await lock.acquire() is True
    assert lock.held
    assert "held" in repr(lock.target)
    assert await other.acquire(0) is False
    began = time.monotonic()
    assert await other.acquire(0.3) is False
    assert 0.3 <= time.monotonic() - began < 10
    waiting = asyncio.ensure_future(other.acquire(60))
    await soon(lambda: _claims(client, 2))
    with pytest.raises(LockRefused):
        await other.acquire(0)
    assert not waiting.done()
    token = lock.token
    await lock.release()
    assert await waiting is True
    assert other.token > token
    await other.release()
    with pytest.raises(LockRefused):
        await other.release()
    assert await client.raw.size() == 1  # the layout
    assert leases(endpoint) <= before


async def _claims(client: Any, number: int) -> bool:
    return sum(b"/.link/locks/" in key for key in await client.raw.paths()) == number


async def test_who_asked_first_gets_it_first_and_readers_share(kind: Kind, client: Any) -> None:
    order: list[str] = []

    async def take(name: str, shared: bool, let_go: asyncio.Event) -> None:
        async with kind.lock(client, "name", shared=shared):
            order.append(name)
            await let_go.wait()

    events = {name: asyncio.Event() for name in ("reader 1", "reader 2", "writer", "reader 3")}
    tasks = []
    for number, (name, let_go) in enumerate(events.items()):
        tasks.append(asyncio.ensure_future(take(name, "reader" in name, let_go)))
        await soon(lambda number=number: _claims(client, number + 1))
    await soon(lambda: len(order) == 2)
    assert set(order) == {"reader 1", "reader 2"}  # in whichever order they come to say so
    events["reader 2"].set()
    events["reader 1"].set()
    await soon(lambda: len(order) == 3)
    events["writer"].set()
    await soon(lambda: len(order) == 4)
    events["reader 3"].set()
    await asyncio.gather(*tasks)
    assert order[2:] == ["writer", "reader 3"]


async def test_writes_under_a_lock_are_fenced(kind: Kind, client: Any, endpoint: str) -> None:
    lock = kind.lock(client, "name", ttl=60)
    with pytest.raises(LockLost):
        _ = lock.client
    await lock.acquire()
    fenced = lock.client
    assert lock.client.target is fenced.target
    await fenced.assign("/a", 1)
    await fenced.create("/b", {})
    await fenced.create("/b/c", 2)

    async def step(t: Any) -> None:
        await t.assign("/a", await t.item("/a") + 1)

    await fenced.transact(step)
    assert await client.pairs() == [("/a", 2), ("/b/c", 2)]
    delete(endpoint, lock.target._acquired()._key)
    for write in (
        fenced.assign("/a", 3),
        fenced.put("/a", 3, ttl=60),
        fenced.delete("/a"),
        fenced.transact(step),
    ):
        with pytest.raises(LockLost, match="name"):
            await write
    with pytest.raises(LockLost):
        await fenced.raw.assign(client.prefix.encode() + b"/a", b"3")
    assert await fenced.item("/a") == 2
    with pytest.raises(LockLost, match="its key is gone"):
        await lock.release()
    with pytest.raises(LockLost, match="released"):
        await fenced.assign("/a", 3)
    assert await client.item("/a") == 2


async def test_a_lost_lock_is_told_at_the_end_of_its_block(kind: Kind, client: Any, endpoint: str) -> None:
    lock = kind.lock(client, "name", ttl=6)

    async def block(error: Exception | None) -> None:
        async with lock:
            lost = lock.lost
            revoke(endpoint, lock.target._acquired().lease.id)
            await soon(lost.is_set)
            assert not lock.held
            if error is not None:
                raise error

    with pytest.raises(LockLost):
        await block(None)
    with pytest.raises(ZeroDivisionError):
        await block(ZeroDivisionError())
    async with lock:
        assert lock.held


async def test_a_place_in_the_queue_that_is_lost_is_told(kind: Kind, client: Any, endpoint: str) -> None:
    async with kind.lock(client, "name") as holder:
        mine = holder.target._acquired()._key
        waiting = asyncio.ensure_future(kind.lock(client, "name", ttl=6).acquire(60))
        await soon(lambda: _claims(client, 2))
        (claim,) = {key for key in await client.raw.paths() if b"/.link/locks/" in key} - {mine}
        delete(endpoint, claim)
        with pytest.raises(LockLost, match="queue"):
            await waiting
