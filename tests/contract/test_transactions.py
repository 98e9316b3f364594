"""What transactions promise, on the blocking client and on the asyncio one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from link_kv.errors import EncodeError, NotATree, NotFound, PathError, TooLarge
from tests.contract.adapters import Kind


async def test_it_reads_and_writes_as_one(client: Any) -> None:
    await client.update({"/a": 1, "/l": ["x", "y"]})

    async def step(t: Any) -> Any:
        await t.assign("/b", {"c": await t.item("/a") + 1})
        await t.remove("/l/1")
        assert await t.item("/b/c") == 2
        assert await t.get("/none", 5) == 5
        assert await t.get("/l") == ["y"]
        assert await t.has("/l/1")
        assert not await t.has("/l/2")
        with pytest.raises(NotFound):
            await t.item("/none")
        with pytest.raises(NotFound):
            await t.remove("/none")
        await t.remove("/a")
        return await t.item("/")

    expected = {"b": {"c": 2}, "l": ["y"]}
    assert await client.transact(step) == expected
    assert await client.snapshot() == expected
    assert (await client.entry("/b/c")).revision == (await client.entry("/l")).revision


async def test_it_runs_again_when_what_it_read_has_moved(kind: Kind, client: Any) -> None:
    await client.assign("/a", 1)
    runs: list[Any] = []
    other = kind.client()

    async def step(t: Any) -> None:
        runs.append(await t.item("/a"))
        if len(runs) == 1:
            if kind.blocking:
                other.target["/a"] = 10
            else:
                await other.assign("/a", 10)
        await t.assign("/b", runs[-1])

    async with other:
        await client.transact(step)
    assert runs == [1, 10]
    assert await client.item("/b") == 10


async def test_a_function_that_raises_leaves_nothing(client: Any) -> None:
    async def step(t: Any) -> None:
        await t.assign("/a", 1)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await client.transact(step)
    assert await client.size() == 0


async def test_bad_input(client: Any) -> None:
    async def step(t: Any) -> None:
        with pytest.raises(PathError):
            await t.get("/a//b")
        with pytest.raises(PathError):
            await t.assign("/", {})
        with pytest.raises(PathError):
            await t.remove("/")
        with pytest.raises(EncodeError, match="/a"):
            await t.assign("/a", object())

    await client.transact(step)
    await client.assign("/a", 1)

    async def below_a_leaf(t: Any) -> None:
        await t.assign("/a/b", 1)

    with pytest.raises(NotATree):
        await client.transact(below_a_leaf)
    await client.update({f"/many/{number}": number for number in range(97)})

    async def too_much(t: Any) -> None:
        await t.item("/many")

    with pytest.raises(TooLarge):
        await client.transact(too_much)


async def test_those_that_compete_all_count(kind: Kind, client: Any) -> None:
    async def increment(t: Any) -> None:
        await t.assign("/count", await t.get("/count", 0) + 1)

    async def work() -> None:
        async with kind.client(timeout=30.0) as mine:
            for _ in range(10):
                await mine.transact(increment)

    await asyncio.gather(*(work() for _ in range(4)))
    assert await client.item("/count") == 40
