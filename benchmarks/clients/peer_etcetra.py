import asyncio
import sys

from _timing import waiting
from etcetra import EtcdClient, HostPortPair

host, _, port = sys.argv[1].rpartition(":")


async def main():
    async with EtcdClient(HostPortPair(host, int(port))).connect() as client:
        key = "/bench-peers/store/key"
        await waiting(lambda: client.put(key, "5"), lambda: client.get(key))


asyncio.run(main())
