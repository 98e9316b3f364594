"""A process of clients that do everything a dictionary can do, and write down what they were told.

``python -m tests.faults.workload NUMBER SEED FILE TIMEOUT ENDPOINTS PROXIES`` works until its input ends.
"""

from __future__ import annotations

import itertools
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from link_kv import EtcdMiddleware
from link_kv._core.wire.config import Config
from link_kv.errors import LinkKVError, OutcomeUnknown, Unavailable
from link_kv.sessions import Transaction
from tests.faults.checker import READS
from tests.faults.records import Log

PREFIX = "/faults"
CLIENTS = 8
PROXIED = 2
"""How many clients of each process have a link that faults are made on."""

LEAVES = [f"k{number}" for number in range(10)]
TREES = [f"t{number}" for number in range(4)]
LISTS = [f"l{number}" for number in range(2)]
ACCOUNTS = [f"x{number}" for number in range(6)]
UNITS = [*LEAVES, *TREES, *LISTS, *ACCOUNTS]
NAMES = "abc"
_LONGEST_LIST = 12

Action = Callable[[], Any]


def connect(endpoints: list[str], prefix: str = PREFIX, timeout: float = 3.0) -> EtcdMiddleware:
    """A client, whatever the environment says."""
    config = Config(endpoints=tuple(endpoints), prefix=prefix, timeout=timeout)
    client: EtcdMiddleware = EtcdMiddleware._of(config)
    return client


class Worker:
    """One client: it draws operations, runs them, and notes what came of each."""

    def __init__(
        self,
        name: str,
        first: int,
        seed: str,
        client: EtcdMiddleware,
        log: Log,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        weights = mix() if weights is None else weights
        self.in_doubt = 0
        """How many writes may have happened or not."""
        self.refused = 0
        """How many have certainly not happened."""
        self._kinds, self._weights = list(weights), list(weights.values())
        self._name = name
        self._client = client
        self._log = log
        self._dice = random.Random(seed)
        self._numbers = itertools.count(first)
        self._ids = itertools.count()
        self._known: dict[str, int] = {}
        """The revisions that leaves were last seen at."""

    def run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            if not self.step():
                stop.wait(0.02)  # no etcd answers

    def step(self) -> bool:
        """One operation; whether etcd answered."""
        return self.do(*self.draw())

    def do(self, kind: str, args: list[Any], action: Action) -> bool:
        name = f"{self._name}.{next(self._ids)}"
        self._log.note([name, kind, args, time.monotonic()])
        outcome, result, told = "ok", None, ""
        try:
            result = action()
        except Exception as error:  # noqa: BLE001 - the checker knows which of them may come of what
            told = f"{type(error).__name__}: {error}"
            if isinstance(error, OutcomeUnknown):
                outcome = "unknown"
                self.in_doubt += kind not in READS
            elif isinstance(error, Unavailable):
                outcome = "not applied"
                self.refused += kind not in READS
            elif isinstance(error, LinkKVError):
                outcome = type(error).__name__
            else:
                outcome = "untyped"
        self._log.note([name, time.monotonic(), outcome, told, result])
        return outcome not in ("unknown", "not applied", "untyped")

    def put_tree(self, tree: str) -> int:
        """Replace a tree by a new one; the revision."""
        new = {name: next(self._numbers) for name in self._dice.sample(NAMES, 2)}
        revisions: list[int] = []

        def put() -> int:
            revisions.append(self._client.put(f"/{tree}", new))
            return revisions[-1]

        assert self.do("put", [tree, new], put), f"{tree} was not written"
        return revisions[-1]

    def draw(self) -> tuple[str, list[Any], Action]:
        """What to do next: its kind, what describes it, and the call."""
        dice, client = self._dice, self._client
        kind = dice.choices(self._kinds, self._weights)[0]
        leaf, tree, items = dice.choice(LEAVES), dice.choice(TREES), dice.choice(LISTS)
        below, value = dice.choice(NAMES), next(self._numbers)
        if kind == "put":
            return kind, [leaf, value], lambda: client.put(f"/{leaf}", value)
        if kind == "assign":
            return "update", [{leaf: value}], lambda: client.__setitem__(f"/{leaf}", value)
        if kind == "cas":
            known = self._known.get(leaf, 0)
            return kind, [leaf, value, known], lambda: client.put(f"/{leaf}", value, revision=known)
        if kind == "create":
            return kind, [leaf, value], lambda: client.create(f"/{leaf}", value)
        if kind == "setdefault":
            return kind, [leaf, value], lambda: client.setdefault(f"/{leaf}", value)
        if kind in ("delete", "deltree", "dellist"):
            name = {"delete": leaf, "deltree": tree, "dellist": items}[kind]
            return "delete", [name], lambda: client.delete(f"/{name}")
        if kind == "pop":
            return kind, [leaf], lambda: client.pop(f"/{leaf}")
        if kind == "entry":
            return kind, [leaf], lambda: self._entry(leaf)
        if kind == "read":
            unit = dice.choice(UNITS)
            return kind, [unit], lambda: client.get(f"/{unit}")
        if kind == "tree":
            new = self._tree(value)
            return "put", [tree, new], lambda: client.put(f"/{tree}", new)
        if kind == "leaf":
            return kind, [tree, below, value], lambda: client.put(f"/{tree}/{below}", value)
        if kind == "unleaf":
            return kind, [tree, below], lambda: client.delete(f"/{tree}/{below}")
        if kind == "append":
            if dice.random() < 1 / _LONGEST_LIST:
                new_items = [value, *(next(self._numbers) for _ in range(dice.randrange(3)))]
                return "put", [items, new_items], lambda: client.put(f"/{items}", new_items)
            return kind, [items, value], lambda: client.append(f"/{items}", value)
        if kind == "unitem":
            index = dice.randint(1, 3)
            return kind, [items, index], lambda: client.delete(f"/{items}/{index}")
        if kind == "update":
            new = {name: next(self._numbers) for name in dice.sample(LEAVES, 3)}
            return kind, [new], lambda: client.update({f"/{name}": each for name, each in new.items()})
        if kind == "txn":
            return self._transaction()
        if kind == "all":
            return kind, [UNITS], self._all
        assert kind == "items", kind
        return kind, [UNITS], self._items

    def _entry(self, leaf: str) -> list[Any]:
        self._known.pop(leaf, None)
        found = self._client.entry(f"/{leaf}")
        self._known[leaf] = found.revision
        return [found.value, found.revision, found.version]

    def _tree(self, value: int) -> dict[str, Any]:
        roll = self._dice.random()
        if roll < 0.05:
            return {}
        if roll < 0.5:
            return {"a": value, "b": {"c": next(self._numbers), "d": next(self._numbers)}}
        return {name: next(self._numbers) for name in NAMES}

    def _transaction(self) -> tuple[str, list[Any], Action]:
        reads = self._dice.sample(ACCOUNTS, 2)
        new: dict[str, Any] = {name: next(self._numbers) for name in (reads[0], self._dice.choice(ACCOUNTS))}
        if self._dice.random() < 0.1:
            new[reads[1]] = None  # None of it: gone

        def transfer(t: Transaction) -> dict[str, Any]:
            found = {name: t.get(f"/{name}") for name in reads}
            for name, value in new.items():
                if value is not None:
                    t[f"/{name}"] = value
                elif found[name] is not None:
                    del t[f"/{name}"]
            return found

        return "txn", [reads, new], lambda: self._client.transaction(transfer)

    def _all(self) -> Any:
        return _ours(self._client.snapshot("/"))

    def _items(self) -> Any:
        return _ours(nested(self._client.items()))


def _ours(found: Any) -> Any:
    """What was read, but for the marks of whoever checks."""
    return {name: value for name, value in found.items() if name != "end"} if type(found) is dict else found


def nested(pairs: Iterable[tuple[str, Any]]) -> Any:
    """The value that leaves make up. Of leaves that make up none the pairs, which equal no state."""
    pairs = list(pairs)
    found: dict[str, Any] = {}
    leaves: set[str] = set()
    for path, value in pairs:
        *above, last = path[1:].split("/")
        at = found
        for depth, name in enumerate(above):
            if "/".join(above[: depth + 1]) in leaves:
                return pairs
            at = at.setdefault(name, {})
        if last in at:
            return pairs
        at[last] = value
        leaves.add(path[1:])
    for name in LISTS:  # which come item by item
        items = found.get(name)
        if isinstance(items, dict) and name not in leaves:
            places = [str(number) for number in range(1, len(items) + 1)]
            if set(items) != set(places):
                return pairs
            found[name] = [items[place] for place in places]
    return found


_MIX = {
    "put": 12,
    "assign": 6,
    "cas": 12,
    "create": 4,
    "setdefault": 3,
    "delete": 4,
    "deltree": 0.5,
    "dellist": 0.3,
    "pop": 3,
    "entry": 14,
    "read": 22,
    "tree": 5,
    "leaf": 7,
    "unleaf": 3,
    "append": 5,
    "unitem": 3,
    "update": 3,
    "txn": 6,
    "all": 1,
    "items": 0.5,
}


def mix(**weights: float) -> dict[str, float]:
    """How often each kind of operation comes, with some of them more or less often than usual."""
    return {**_MIX, **weights}


def rotated(endpoints: list[str], by: int) -> list[str]:
    """The same, beginning with another: so that not all clients ask the same member."""
    by %= len(endpoints)
    return [*endpoints[by:], *endpoints[:by]]


def end_with_threads() -> None:
    """Let a thread that fails end its program: else what it was to do is missing, and nobody is told."""

    def end(failed: threading.ExceptHookArgs) -> None:
        threading.__excepthook__(failed)
        os._exit(3)

    threading.excepthook = end


def main() -> None:
    end_with_threads()
    number, seed, file, timeout, direct, proxies = sys.argv[1:]
    log = Log(Path(file))
    stop = threading.Event()
    threads = []
    for each in range(CLIENTS):
        endpoints = (proxies if each < PROXIED else direct).split(",")
        client = connect(rotated(endpoints, int(number) + each), timeout=float(timeout))
        first = (int(number) * CLIENTS + each + 1) * 10_000_000
        worker = Worker(f"{number}.{each}", first, f"{seed} {number} {each}", client, log)
        threads.append(threading.Thread(target=worker.run, args=(stop,)))
    for thread in threads:
        thread.start()
    print("ready", flush=True)
    sys.stdin.read()
    stop.set()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
