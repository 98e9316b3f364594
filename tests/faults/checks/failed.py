"""Writes over links that break in every way: none happens twice, none that was reported as not done was."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack, closing

from tests.faults.arena import Arena, examine
from tests.faults.records import Log
from tests.faults.run import Outcome, Run
from tests.faults.workload import Worker, connect, mix
from tests.wire.proxy import Proxy
from tests.wire.test_chaos import disturb

PREFIX = "/failed"
_CLIENTS = 12
_TIMEOUT = 1.5
# What is sent once is what comes to be in doubt. What is guarded is sent again, and is to be right then.
_MIX = mix(put=30, assign=10, delete=6, entry=2, read=2, all=0, items=0)
_WRITES = {"put": 30.0, "assign": 10.0, "delete": 6.0}
"""For an etcd that ends when what reads in a transaction is broken off."""


def run(run: Run) -> list[Outcome]:
    outcome = Outcome("failed writes")
    longest = time.monotonic() + run.profile.longest_failing
    stop = threading.Event()
    with ExitStack() as stack:
        arena = stack.enter_context(closing(Arena(run.cluster, PREFIX, run.directory / "failed")))
        link = stack.enter_context(Proxy(run.cluster.endpoints[0]))
        workers: list[Worker] = []
        weights = _MIX if run.cluster.safe else _WRITES
        for number in range(_CLIENTS):
            client = stack.enter_context(connect([link.endpoint], PREFIX, _TIMEOUT))
            log = stack.enter_context(closing(Log(arena.log(number))))
            seed, first = f"{run.seed} failed {number}", (number + 1) * 10_000_000
            workers.append(Worker(str(number), first, seed, client, log, weights))

        def enough() -> bool:
            unknown = sum(worker.outcomes["unknown"] for worker in workers)
            return unknown >= 1.2 * run.profile.unknown or time.monotonic() > longest

        threads = [threading.Thread(target=worker.run, args=(stop,)) for worker in workers]
        for thread in threads:
            thread.start()
        try:
            disturb(link, enough, run.seed)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        arena.truth.extend(arena.mark())
    done, _ = examine(arena.directory, arena.truth.truth)
    outcome.findings += [*arena.truth.findings, *done.findings]
    outcome.figures = done.figures
    outcome.need(done.numbers.get("unknown", 0), run.profile.unknown, "writes with unknown outcome")
    return [outcome]
