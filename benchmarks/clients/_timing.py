"""What every script here measures: how many of one call happen in a second, one after the other."""

import json
import time

COUNT = 2000


def blocking(put, get):
    rates = {}
    for name, call in (("put", put), ("get", get)):
        for _ in range(COUNT // 10):
            call()
        start = time.perf_counter()
        for _ in range(COUNT):
            call()
        rates[name] = COUNT / (time.perf_counter() - start)
    print(json.dumps(rates))


async def waiting(put, get):
    rates = {}
    for name, call in (("put", put), ("get", get)):
        for _ in range(COUNT // 10):
            await call()
        start = time.perf_counter()
        for _ in range(COUNT):
            await call()
        rates[name] = COUNT / (time.perf_counter() - start)
    print(json.dumps(rates))
