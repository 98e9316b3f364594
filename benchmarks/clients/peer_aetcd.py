import asyncio
import sys

import aetcd
from _timing import waiting

host, _, port = sys.argv[1].rpartition(":")


async def main():
    async with aetcd.Client(host=host, port=int(port), timeout=5) as client:
        key = b"/bench-peers/store/key"
        await waiting(lambda: client.put(key, b"5"), lambda: client.get(key))


asyncio.run(main())
