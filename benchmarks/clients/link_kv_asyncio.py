import asyncio
import sys

from _timing import waiting

from link_kv.aio import EtcdMiddleware


async def main():
    async with EtcdMiddleware(endpoints=[sys.argv[1]], prefix="/bench-peers") as client:
        await waiting(lambda: client.put("/store/key", 5), lambda: client.get("/store/key"))


asyncio.run(main())
