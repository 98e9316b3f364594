"""Writes over links that break in every way: none happens twice, none that was reported as not done was."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing

from tests.faults.arena import Arena, examine
from tests.faults.records import Log, keep
from tests.faults.run import Outcome, Run
from tests.faults.workload import Worker, connect, mix
from tests.wire.proxy import Proxy
from tests.wire.test_chaos import disturb

PREFIX = "/failed"
_CLIENTS = 12
_TIMEOUT = 1.5
# What is sent once is what comes to be in doubt. What is guarded is sent again, and is to be right then.
_MIX = mix(put=30, assign=10, delete=6, entry=2, read=2, all=0, items=0)
_REFUSED = 0.1
"""How many writes must have been reported as not applied, for each that must be in doubt."""
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
            in_doubt = sum(worker.in_doubt for worker in workers)
            refused = sum(worker.refused for worker in workers)
            reached = min(in_doubt, refused / _REFUSED) >= 1.2 * run.profile.unknown
            return reached or time.monotonic() > longest

        with ThreadPoolExecutor(_CLIENTS) as pool:
            running = [pool.submit(worker.run, stop) for worker in workers]
            try:
                disturb(link, enough, run.seed)
            finally:
                stop.set()
            for each in running:
                each.result()  # raises what none of them should
        arena.truth.extend(arena.mark())
    done, _ = examine(arena.directory, arena.truth.truth)
    outcome.findings += [*arena.truth.findings, *done.findings]
    keep(arena.directory / "findings", outcome.findings)
    refused = done.numbers["refused"]
    outcome.figures = f"{done.figures}, {refused} writes reported as not applied"
    outcome.need(done.numbers["in doubt"], run.profile.unknown, "writes with unknown outcome")
    outcome.need(refused, _REFUSED * run.profile.unknown, "writes reported as not applied")
    return [outcome]
