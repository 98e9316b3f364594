"""A small value, set and got, beside a bare Put and Range."""

from __future__ import annotations

from benchmarks.bare import M, Stub
from benchmarks.measure import Row, in_turn
from link_kv import EtcdMiddleware

ROUNDS = 3000


def run(endpoint: str) -> list[Row]:
    bare = Stub(endpoint)
    client = EtcdMiddleware(endpoints=[endpoint], prefix="/bench-small")
    key = b"/bench-small/store/KEY"
    put = M.PutRequest(key=key, value=b"5")
    ask = M.RangeRequest(key=key)

    def assign() -> None:
        client["/store/KEY"] = 5

    ours, theirs = in_turn(assign, lambda: bare.Put(put, timeout=5), ROUNDS, 300)
    rows = [Row("set a small value", ours * 1e6, theirs * 1e6, "µs", "bare Put", ours / theirs, 1.15)]
    ours, theirs = in_turn(lambda: client["/store/KEY"], lambda: bare.Range(ask, timeout=5), ROUNDS, 300)
    rows.append(Row("get a small value", ours * 1e6, theirs * 1e6, "µs", "bare Range", ours / theirs, 1.15))
    client.clear()
    client.close()
    return rows
