"""Large trees, replaced and read at the same time while members fail.

No reader sees parts of two of them, nor one that another had replaced before.
"""

from __future__ import annotations

import json
import threading
import time
from contextlib import suppress

from link_kv.errors import LinkKVError
from tests.faults.programs import Process
from tests.faults.run import Outcome, Run
from tests.faults.schedule import Faults
from tests.faults.trees import PREFIX, names, stale
from tests.faults.workload import connect, rotated

SIZE = 1000
_WRITERS, _READERS = 2, 4
_COMPACTED_EVERY = 5.0
"""Seconds."""
_BIG_READS = 20
_FAULTS = 3
"""How many faults there must be."""
_KEPT = 100
"""How many revisions a compaction leaves: many more than pass while a tree is read."""


class _Reading:
    """A reader, and how far it is."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.done = 0
        self.last = ""
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        while line := self.process.line():
            self.last = line
            if line.isdigit():
                self.done = int(line)

    def finish(self) -> None:
        self.process.finish_input()
        self._thread.join(60)


def run(run: Run) -> list[Outcome]:
    outcome = Outcome("trees")
    figures = [_read(run, outcome, SIZE, run.profile.tree_reads)]
    if run.profile.big_tree:
        figures.append(_read(run, outcome, run.profile.big_tree, _BIG_READS))
    outcome.figures = "; ".join(figures)
    return [outcome]


def _read(run: Run, outcome: Outcome, size: int, wanted: int) -> str:
    endpoints = run.cluster.endpoints
    timeout = max(run.timeout, size / 1000)
    with connect(endpoints, PREFIX, timeout=30) as client:
        client[f"/{size}"] = dict.fromkeys(names(size), 0)

    def compact(kept: int = _KEPT) -> bool:
        with connect(endpoints, PREFIX, timeout=30) as client:
            revision = client.put("/compacted", time.time())
        return run.cluster.members[0].does("/v3/kv/compaction", {"revision": max(1, revision - kept)}, 60)

    over = threading.Event()

    def keep_small() -> None:
        """Thousands of trees would fill the database: as a fault alone it comes too rarely."""
        while not over.wait(_COMPACTED_EVERY):
            with suppress(LinkKVError):  # the next one will do
                compact(3 * _KEPT)  # so that the fault has an effect

    faults = Faults(run.cluster, [], f"{run.seed} trees {size}", compact=compact, note=run.note, pause=(2, 4))
    began = time.monotonic()
    processes: list[Process] = []
    compacting = threading.Thread(target=keep_small, daemon=True)
    compacting.start()

    def start(kind: str, number: int) -> _Reading:
        there = ",".join(rotated(endpoints, number))
        processes.append(run.program("trees", kind, number + 1, size, timeout, there))
        processes[-1].ready()
        return _Reading(processes[-1])

    try:
        writers = [start("writer", number) for number in range(_WRITERS)]
        readers = [start("reader", number) for number in range(_READERS)]

        def enough() -> bool:
            made = sum(faults.done.values())
            return made >= _FAULTS and sum(reader.done for reader in readers) >= wanted

        faults.run(0, run.profile.longest_reading, enough)
        for each in (*writers, *readers):
            each.finish()
    finally:
        over.set()
        compacting.join()
        for process in processes:
            process.close()
    told = [json.loads(each.last) for each in (*writers, *readers)]
    writes = sum(each["done"] for each in told[:_WRITERS])
    reads = sum(each["done"] for each in told[_WRITERS:])
    failed = sum(each["failed"] for each in told)
    for trouble in (trouble for each in told for trouble in each["wrong"]):
        outcome.demand(False, "mixed tree", trouble)
    first = (0.0, began, 0)
    written, seen = (
        [tuple(at) for each in some for at in each["times"]] for some in (told[:_WRITERS], told[_WRITERS:])
    )
    for trouble in stale([first, *written], seen):
        outcome.demand(False, "stale tree", trouble)
    outcome.need(reads, wanted, f"reads of {size} keys")
    outcome.need(writes, 2, f"writes of {size} keys")
    outcome.need(sum(faults.done.values()), _FAULTS, f"faults while {size} keys were read")
    return (
        f"{reads} reads of {size} keys by {_READERS} readers while {_WRITERS} writers replaced them {writes} "
        f"times, {failed} failed, {sum(faults.done.values())} faults, {time.monotonic() - began:.0f} s"
    )
