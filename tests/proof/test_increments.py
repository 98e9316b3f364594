"""Processes that increment one counter in transactions lose none of their increments."""

from __future__ import annotations

import time
from typing import Any

import pytest

from link_kv import EtcdMiddleware
from tests.leases import Program

WORKER = """
times = int(arguments[0])
runs = 0
def increment(t):
    global runs
    runs += 1
    t['/counter'] = t['/counter'] + 1
say('ready')
hear()
for _ in range(times):
    client.transaction(increment)
say(runs)
"""


@pytest.mark.parametrize(("processes", "times"), [(4, 100), pytest.param(8, 1000, marks=pytest.mark.slow)])
def test_increments_add_up(
    etcd_client: EtcdMiddleware,
    etcd: Any,
    etcd_prefix: str,
    processes: int,
    times: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    etcd_client["/counter"] = 0
    workers = [Program(WORKER, etcd.endpoints[0], etcd_prefix, str(times)) for _ in range(processes)]
    try:
        for worker in workers:
            worker.expect("ready")
        began = time.monotonic()
        for worker in workers:
            worker.tell("go")
        runs = sum(int(worker.line()) for worker in workers)
        took = time.monotonic() - began
        for worker in workers:
            worker.finish()
    finally:
        for worker in workers:
            worker.__exit__()
    with capsys.disabled():
        print(
            f"\n{processes} processes with {times} increments each add up to {etcd_client['/counter']}, "
            f"in {took:.1f} s and {runs} runs"
        )
    assert etcd_client["/counter"] == processes * times
