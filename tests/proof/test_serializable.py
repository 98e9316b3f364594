"""Transactions that run at once have the effect of running one after the other, in the order of their
revisions.

Threads run random transactions on one small tree of dicts and lists. Each writes down, in the same
transaction, what it read and what it did. Afterwards all are done again on a plain nested dict, in the
order of the revisions in which they were committed: each must read there what it has read, and in the
end both must hold the same.
"""

from __future__ import annotations

import json
import random
import threading
import time
from typing import Any

import pytest

from link_kv import EtcdMiddleware
from link_kv.sessions import Transaction
from tests.leases import connect
from tests.model.layout import faults
from tests.model.nested import Nested

NAMES = "abc"


def place(dice: random.Random, node: Any, depth: int = 0) -> list[str]:
    """A place in a tree where something can be written, or stands."""
    if isinstance(node, list):
        segment = str(dice.randint(1, len(node) + 1))
        below = node[int(segment) - 1] if int(segment) <= len(node) else None
    else:
        segment = dice.choice(NAMES)
        below = node.get(segment)
    if depth < 3 and isinstance(below, (dict, list)) and dice.random() < 0.7:
        return [segment, *place(dice, below, depth + 1)]
    return [segment]


def value(dice: random.Random, depth: int = 0) -> Any:
    kind = dice.random()
    if depth > 1 or kind < 0.5:
        return dice.randint(0, 99)
    if kind < 0.75:
        return [value(dice, depth + 1) for _ in range(dice.randint(0, 3))]
    return {name: value(dice, depth + 1) for name in dice.sample(NAMES, dice.randint(0, 3))}


def step(dice: random.Random, t: Transaction, done: list[Any]) -> None:
    """Do something, and write it down."""
    known = t.get("/d", {}) if dice.random() < 0.5 else {}
    at = place(dice, known)
    path = "/d/" + "/".join(at)
    kind = dice.choice(("get", "has", "assign", "assign", "delete"))
    if known:
        done.append(("get", [], known))
    if kind == "get":
        done.append(("get", at, t.get(path)))
    elif kind == "has":
        done.append(("has", at, path in t))
    elif kind == "delete":
        there = path in t
        done.append(("has", at, there))
        if there:
            del t[path]
            done.append(("delete", at, None))
    else:
        # Only where it is no error: what stands above is looked at first.
        for depth in range(1, len(at)):
            above = t.get("/d/" + "/".join(at[:depth]))
            done.append(("get", at[:depth], above))
            fits = isinstance(above, list) and at[depth].isdigit() and int(at[depth]) <= len(above) + 1
            if not (fits or isinstance(above, dict) or (above is None and not at[depth].isdigit())):
                return
        new = value(dice)
        t[path] = new
        done.append(("assign", at, new))


def work(client: EtcdMiddleware, seed: int, times: int, runs: list[int]) -> None:
    for number in range(times):

        def transaction(t: Transaction, number: int = number) -> None:
            runs.append(seed)
            dice = random.Random(f"{seed} {number} {len(runs)}")
            done: list[Any] = []
            for _ in range(dice.randint(1, 4)):
                step(dice, t, done)
                time.sleep(0)  # let the others run between two reads
            t[f"/log/{seed}/{number}"] = json.dumps(done)

        client.transaction(transaction)


@pytest.mark.parametrize(("threads", "times"), [(5, 30), pytest.param(8, 500, marks=pytest.mark.slow)])
def test_transactions_are_serializable(
    etcd_client: EtcdMiddleware,
    etcd: Any,
    etcd_prefix: str,
    threads: int,
    times: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    runs: list[int] = []
    clients = [connect(etcd.endpoints[0], etcd_prefix, timeout=60.0) for _ in range(threads)]
    workers = [
        threading.Thread(target=work, args=(client, seed, times, runs)) for seed, client in enumerate(clients)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(1200)
    for client in clients:
        client.close()
    log = []
    for seed in range(threads):
        for number in range(times):
            entry = etcd_client.entry(f"/log/{seed}/{number}")
            log.append((entry.revision, json.loads(entry.value)))
    assert len({revision for revision, _ in log}) == threads * times
    model = Nested()
    steps = 0
    for revision, done in sorted(log):
        for kind, at, expected in done:
            steps += 1
            where = ["d", *at]
            if kind == "get":
                found = model.get(where) if model.has(where) else None
                assert found == expected, (revision, where)
            elif kind == "has":
                assert model.has(where) is expected, (revision, where)
            elif kind == "delete":
                model.delete(where)
            else:
                model.assign(where, expected)
    with capsys.disabled():
        print(
            f"\n{threads * times} transactions in {len(runs)} runs, {steps} steps: all as one after the other"
        )
    assert etcd_client.get("/d", None) == (model.get(["d"]) if model.has(["d"]) else None)
    assert faults(etcd_client.raw.items(), etcd_client._space.prefix) == []
    assert len(runs) > threads * times  # they did meet
