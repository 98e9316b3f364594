"""Processes that take one lock, shared and exclusive, never hold it in ways that exclude each other.

Each holder writes, through the fenced client, when it begins and when it ends. etcd puts these writes in one
order: so each hold is an interval of revisions, and intervals that exclude each other must not overlap. What
conflicts must also come in the order in which it was asked for, which is that of the tokens.
"""

from __future__ import annotations

import time
from itertools import combinations
from typing import Any, NamedTuple

import pytest

from link_kv import EtcdMiddleware
from tests.leases import Program

PROCESSES = 6

WORKER = """
import random
from link_kv import Lock
me, times = int(arguments[0]), int(arguments[1])
dice = random.Random(me)
say('ready')
hear()
for number in range(times):
    shared = dice.random() < 0.7
    with Lock(client, 'name', shared=shared, ttl=30) as lock:
        begin = lock.client.put(f'/at/{me}', number)
        if dice.random() < 0.1:
            time.sleep(0.002)
        end = lock.client.put(f'/at/{me}', number)
        say(int(shared), lock.token, begin, end)
say('done')
"""


class Hold(NamedTuple):
    shared: bool
    token: int
    begin: int
    end: int


def overlaps(holds: list[Hold]) -> list[tuple[Hold, Hold]]:
    """Pairs that exclude each other and overlap. Sorted by their begin, few are ever open at once."""
    found = []
    open_holds: list[Hold] = []
    for hold in sorted(holds, key=lambda hold: hold.begin):
        open_holds = [other for other in open_holds if other.end >= hold.begin]
        found += [(other, hold) for other in open_holds if not (hold.shared and other.shared)]
        open_holds.append(hold)
    return found


def overtaken(holds: list[Hold]) -> list[tuple[Hold, Hold]]:
    """Pairs that exclude each other, of which the one that asked later began first."""
    found = []
    for one, other in combinations(sorted(holds), 2):
        if not (one.shared and other.shared) and (one.token < other.token) != (one.begin < other.begin):
            found.append((one, other))
    return found


@pytest.mark.parametrize("total", [120, pytest.param(2000, marks=pytest.mark.slow)])
def test_holds_that_exclude_each_other_do_not_overlap(
    etcd_client: EtcdMiddleware, etcd: Any, etcd_prefix: str, total: int, capsys: pytest.CaptureFixture[str]
) -> None:
    endpoint, times = etcd.endpoints[0], -(-total // PROCESSES)
    workers = [Program(WORKER, endpoint, etcd_prefix, str(number), str(times)) for number in range(PROCESSES)]
    holds: list[Hold] = []
    try:
        for worker in workers:
            worker.expect("ready")
        began = time.monotonic()
        for worker in workers:
            worker.tell("go")
        for worker in workers:
            while (line := worker.line()) != "done":
                shared, token, begin, end = map(int, line.split())
                holds.append(Hold(bool(shared), token, begin, end))
        took = time.monotonic() - began
        for worker in workers:
            worker.finish()
    finally:
        for worker in workers:
            worker.__exit__()
    together = sum(
        one.begin < other.end and other.begin < one.end
        for one, other in zip(sorted(holds)[:-1], sorted(holds)[1:], strict=True)
        if one.shared and other.shared
    )
    with capsys.disabled():
        print(
            f"\n{len(holds)} acquisitions by {PROCESSES} processes in {took:.1f} s, "
            f"{sum(hold.shared for hold in holds)} of them shared: {len(overlaps(holds))} overlaps, "
            f"{len(overtaken(holds))} overtaken; {together} neighbours shared it"
        )
    assert len(holds) == times * PROCESSES
    assert overlaps(holds) == []
    assert overtaken(holds) == []
    assert together  # the shared ones did meet
    assert len({hold.token for hold in holds}) == len(holds)


def test_the_check_itself_finds_what_it_looks_for() -> None:
    one, two = Hold(False, 1, 10, 20), Hold(True, 2, 15, 25)
    assert overlaps([one, two]) == [(one, two)]
    assert overlaps([one, Hold(True, 2, 21, 25)]) == []
    assert overlaps([Hold(True, 1, 10, 20), two]) == []
    assert overtaken([Hold(False, 2, 10, 11), Hold(False, 1, 20, 21)])
