"""A process that replaces or reads a large tree, again and again.

``python -m tests.faults.trees KIND NUMBER SIZE TIMEOUT ENDPOINTS`` works until its input ends. Then it says
how often it did something, how often it was refused or in doubt, and what it saw that no writer had written.
"""

from __future__ import annotations

import json
import sys
import threading
from itertools import count

from link_kv.errors import Unavailable
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
    with connect(endpoints.split(","), PREFIX, timeout=float(timeout)) as client:
        print("ready", flush=True)
        for turn in count():
            if stop.is_set():
                break
            try:
                if kind == "writer":
                    client[path] = dict.fromkeys(keys, turn * 10 + int(number))
                elif trouble := mixed(client.get(path), size):
                    wrong.append(trouble)
                done += 1
            except Unavailable:
                failed += 1
            if kind == "reader" and turn % 10 == 0:
                print(done, flush=True)
    print(json.dumps({"done": done, "failed": failed, "wrong": wrong}), flush=True)


if __name__ == "__main__":
    main()
