"""Nonsense at every entrance: it is accepted, or refused with an error of link_kv's own, and in time."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

from tests.faults.fuzzers import FUZZERS
from tests.faults.run import Outcome, Run

_AT_ONCE = 3
_LEAST = 100
"""How many inputs each entrance must have got. The slowest gets some 150 in the 60 s of the short profile."""


def run(run: Run) -> list[Outcome]:
    outcome = Outcome("hostile input")
    seed = run.dice("fuzz").randrange(2**32)

    def one(name: str) -> dict[str, Any] | None:
        with closing(run.program("fuzzers", name, run.profile.fuzz, seed)) as program:
            line = program.line()
        return json.loads(line) if line else None

    told: list[str] = []
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for name, tallies in zip(FUZZERS, pool.map(one, FUZZERS), strict=True):
            if tallies is None:
                outcome.demand(
                    False, "a program ended", f"{name}, unexpectedly or since it hung: see the log"
                )
                continue
            for what, tally in tallies.items():
                told.append(f"{tally['accepted']} + {tally['refused']} {what}")
                outcome.need(tally["accepted"] + tally["refused"], _LEAST, f"inputs of {what}")
                for found in tally["found"]:
                    outcome.demand(False, what, found)
    outcome.figures = f"{run.profile.fuzz:.0f} s each; accepted + refused: {', '.join(told)}"
    return [outcome]
