"""Times the calls of a linked client, for msl-network and for link_kv alike.

``python calling.py WHICH KEYWORDS`` with the keywords of `connect` as JSON. Reads one word a line, and
answers each with a number: ``echo`` and ``notify`` with the median of seconds, ``asynchronous`` with calls
a second.
"""

from __future__ import annotations

import json
import statistics
import sys
import threading
import time
from typing import Any

COUNT = 1000
MANY = 5000


def echo(link: Any) -> float:
    times = []
    for number in range(COUNT):
        start = time.perf_counter()
        link.echo(number)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def asynchronous(link: Any) -> float:
    start = time.perf_counter()
    futures = [link.echo(number, asynchronous=True) for number in range(MANY)]
    for future in futures:
        future.result()
    return MANY / (time.perf_counter() - start)


def notify(link: Any) -> float:
    """From when a call that makes the service notify is sent, to the handler."""
    came = threading.Event()
    at = [0.0]

    def handler(number: int) -> None:
        at[0] = time.perf_counter()
        came.set()

    link.notification_handler = handler
    times = []
    for number in range(COUNT):
        came.clear()
        start = time.perf_counter()
        answer = link.notify(number, asynchronous=True)
        assert came.wait(10)
        times.append(at[0] - start)
        answer.result()
    return statistics.median(times)


def main() -> None:
    which, keywords = sys.argv[1], json.loads(sys.argv[2])
    if which == "msl":
        from msl.network import LinkedClient
    else:
        from link_kv.links import LinkedClient
    link = LinkedClient("Echo", **keywords)
    for _ in range(200):
        link.echo(0)
    print("ready", flush=True)
    for line in sys.stdin:
        print(globals()[line.strip()](link), flush=True)
    link.disconnect()


if __name__ == "__main__":
    main()
