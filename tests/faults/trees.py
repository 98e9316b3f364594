"""A process that replaces or reads a large tree, again and again.

``python -m tests.faults.trees KIND NUMBER SIZE TIMEOUT ENDPOINTS`` works until its input ends. Then it says
how often it did something, how often it was refused or in doubt, what it saw that no writer had written, and
when it wrote or saw which tree.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import accumulate, count

from link_kv.errors import OutcomeUnknown, Unavailable
from tests.faults.workload import connect

PREFIX = "/trees"


def names(size: int) -> list[str]:
    """Short enough that a key of the largest tree has 30 bytes at most: ``/trees/32000/k00000``."""
    return [f"k{number:05}" for number in range(size)]


def mixed(tree: object, size: int) -> str:
    """What is wrong with a tree that was read; empty when it is one that a writer wrote."""
    if not isinstance(tree, dict) or len(tree) != size:
        return f"{len(tree) if isinstance(tree, dict) else tree} keys of {size}"
    values = set(tree.values())
    return "" if len(values) == 1 else f"parts of {len(values)} writes: {sorted(values)[:5]}"


Seen = tuple[float, float, int]
"""When something began and when it had ended, and the number of the tree that it wrote or saw."""


def stale(written: Iterable[Seen], seen: Iterable[Seen]) -> Iterator[str]:
    """What was read after another tree had taken its place, as somebody knew before that read began.

    Of a write whose outcome is not known nobody can say by when it was there; it may come late. It is known
    by who has seen it.
    """
    writes = {tree: (began, ended) for began, ended, tree in written}
    seen = list(seen)
    never = float("inf")
    # Who knew by when that a tree was there, and when its write began: the latest of these.
    known = sorted((ended, writes[tree][0]) for _, ended, tree in seen if tree in writes)
    known = sorted([*known, *((ended, began) for began, ended in writes.values() if ended != never)])
    times = [ended for ended, _ in known]
    latest = list(accumulate((began for _, began in known), max))
    for began, _, tree in seen:
        before = bisect_left(times, began)
        if tree not in writes:
            yield f"{tree}, which nobody wrote"
        elif before and writes[tree][1] < latest[before - 1]:
            yield f"{tree}, {latest[before - 1] - writes[tree][1]:.3f} s after which another was begun"


def main() -> None:
    kind, number, text, timeout, endpoints = sys.argv[1:]
    size = int(text)
    keys, path = names(size), f"/{size}"
    stop = threading.Event()

    def listen() -> None:
        sys.stdin.read()
        stop.set()

    threading.Thread(target=listen, daemon=True).start()
    done = failed = 0
    wrong: list[str] = []
    times: list[Seen] = []
    with connect(endpoints.split(","), PREFIX, timeout=float(timeout)) as client:
        print("ready", flush=True)
        for turn in count():
            if stop.is_set():
                break
            began = time.monotonic()
            try:
                if kind == "writer":
                    new = turn * 10 + int(number)
                    times.append((began, float("inf"), new))
                    client[path] = dict.fromkeys(keys, new)
                    times[-1] = (began, time.monotonic(), new)
                else:
                    tree = client.get(path)
                    ended = time.monotonic()
                    if trouble := mixed(tree, size):
                        wrong.append(trouble)
                    else:
                        times.append((began, ended, tree[keys[0]]))
                done += 1
            except OutcomeUnknown:
                failed += 1
            except Unavailable:
                failed += 1
                if kind == "writer":
                    times.pop()  # so says the error
            if kind == "reader" and turn % 10 == 0:
                print(done, flush=True)
    print(json.dumps({"done": done, "failed": failed, "wrong": wrong, "times": times}), flush=True)


if __name__ == "__main__":
    main()
