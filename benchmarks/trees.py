"""Trees of 10,000 leaves, flat updates, and appends to a long list."""

from __future__ import annotations

import statistics
import threading

import etcd3

from benchmarks.bare import M, Stub, puts
from benchmarks.measure import Row, clock, in_turn
from link_kv import EtcdMiddleware
from link_kv.tree import flatten, place

ROUNDS = 9
PREFIX = "/bench"


def sample() -> dict[str, dict[str, dict[str, object]]]:
    """10,000 leaves of the kinds that configurations and instruments hold."""
    return {
        f"rack{group:02d}": {
            f"s{sensor:02d}": {"value": group * sensor * 0.37, "unit": "kelvin", "on": True, "port": sensor}
            for sensor in range(25)
        }
        for group in range(100)
    }


def run(endpoint: str) -> list[Row]:
    bare = Stub(endpoint)
    client = EtcdMiddleware(endpoints=[endpoint], prefix=PREFIX, timeout=30)
    host, _, port = endpoint.rpartition(":")
    other = etcd3.client(host, int(port))
    rows = []
    tree = sample()
    pairs = flatten(tree, place("/big", PREFIX.encode())).pairs
    leaves = [(key, value) for key, value in pairs if not key.endswith(b"/")]
    assert len(leaves) == 10_000

    def loop_of_puts() -> None:
        for key, value in leaves:
            other.put(key, value)

    loop = statistics.median(clock(loop_of_puts) for _ in range(2))
    client["/big"] = 0
    ours = statistics.median(clock(lambda: client.put("/big", tree)) for _ in range(ROUNDS))
    rows.append(
        Row("write 10,000 leaves", ours * 1e3, loop * 1e3, "ms", "etcd3 puts", loop / ours, 30, at_least=True)
    )
    ours = statistics.median(clock(lambda: write_by_gaps(client, tree)) for _ in range(ROUNDS))
    rows.append(
        Row("… by gaps, unread", ours * 1e3, loop * 1e3, "ms", "etcd3 puts", loop / ours, 20, at_least=True)
    )
    everything = M.RangeRequest(key=b"/bench/big/", range_end=b"/bench/big0")
    assert len({kv.mod_revision for kv in bare.Range(everything).kvs}) == 1
    ours, theirs = in_turn(lambda: client["/big"], lambda: bare.Range(everything), 3 * ROUNDS, 3)
    rows.append(Row("read it back, nested", ours * 1e3, theirs * 1e3, "ms", "bare Range", ours / theirs, 2.8))
    rows += flat_update(client, bare)
    client["/list"] = list(range(10_000))
    ours = statistics.median(clock(lambda: client.append("/list", "item")) for _ in range(50))
    rows.append(Row("append to 10,000 items", ours * 1e3, 3.0, "ms", "3 ms", ours * 1e3 / 3.0, 1.0))
    client.clear()
    client.close()
    other.close()
    return rows


def write_by_gaps(client: EtcdMiddleware, tree: object) -> None:
    """What a write does that has lost its race twice."""
    from link_kv import plan as plans
    from link_kv._core.wire.calls import run as drive

    at = client._space.place("/big")
    guard = plans.optimistic([at])
    assert guard is not None
    operations = plans.gaps(at, flatten(tree, at))
    outcome = drive(client._exchange().commit(plans.Plan(guard.compares, operations), at.path))
    assert outcome.succeeded


def flat_update(client: EtcdMiddleware, bare: Stub) -> list[Row]:
    flat = {f"/flat/key{number:05d}": number for number in range(10_000)}
    items = [(PREFIX.encode() + path.encode(), str(number).encode()) for path, number in flat.items()]

    def transactions() -> None:
        for start in range(0, len(items), 128):
            bare.Txn(puts(items[start : start + 128]))

    ours, theirs = in_turn(lambda: client.update(flat), transactions, ROUNDS, 2)
    rows = [
        Row(
            "update 10,000 flat keys",
            ours * 1e3,
            theirs * 1e3,
            "ms",
            "transactions of 128 puts",
            theirs / ours,
            0.9,
            at_least=True,
        )
    ]
    stop = threading.Event()

    def contend() -> None:
        with EtcdMiddleware(endpoints=client._config.endpoints, prefix=PREFIX) as rival:
            number = 0
            while not stop.is_set():
                number += 1
                rival["/flat/rival"] = number

    thread = threading.Thread(target=contend)
    thread.start()
    try:
        ours, theirs = in_turn(lambda: client.update(flat), transactions, ROUNDS, 1)
    finally:
        stop.set()
        thread.join()
    rows.append(
        Row(
            "… under contention",
            ours * 1e3,
            theirs * 1e3,
            "ms",
            "the same",
            theirs / ours,
            0.65,
            at_least=True,
        )
    )
    return rows
