"""64 asyncio tasks that put, beside grpc.aio doing the same and writing the same transaction by hand."""

from __future__ import annotations

import asyncio

import grpc.aio

from benchmarks.bare import M, Stub, guarded_put
from benchmarks.measure import Row, in_turn_async
from link_kv.aio import EtcdMiddleware

TASKS = 64
EACH = 30
ROUNDS = 7


def run(endpoint: str) -> list[Row]:
    return asyncio.run(_run(endpoint))


async def _run(endpoint: str) -> list[Row]:
    bare = Stub(endpoint, grpc.aio)

    async def spread(one) -> None:  # type: ignore[no-untyped-def]
        async def worker(task: int) -> None:
            for number in range(EACH):
                await one(task, number)

        await asyncio.gather(*(worker(task) for task in range(TASKS)))

    async with EtcdMiddleware(endpoints=[endpoint], prefix="/bench-tasks") as client:

        async def ours(task: int, number: int) -> None:
            await client.put(f"/store/key{task}", number)

        async def plain(task: int, number: int) -> None:
            key = b"/bench-tasks/store/key%d" % task
            await bare.Put(M.PutRequest(key=key, value=b"%d" % number), timeout=5)

        async def by_hand(task: int, number: int) -> None:
            key = b"/bench-tasks/store/key%d" % task
            await bare.Txn(guarded_put(key, b"%d" % number, [b"/bench-tasks/store"]), timeout=5)

        rows = []
        for peer, theirs, reach in (("bare Puts", plain, 0.7), ("the same by hand", by_hand, 0.95)):
            mine, other = await in_turn_async(lambda: spread(ours), lambda t=theirs: spread(t), ROUNDS)
            count = TASKS * EACH
            rows.append(
                Row(
                    "64 tasks of puts",
                    count / mine,
                    count / other,
                    "/s",
                    peer,
                    other / mine,
                    reach,
                    at_least=True,
                )
            )
        await client.clear()
    await bare.channel.close()
    return rows
