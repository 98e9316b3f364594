"""Nonsense at every entrance: it is accepted, or refused with an error of link_kv's own."""

from __future__ import annotations

import json
from contextlib import ExitStack

from tests.faults.fuzzers import FUZZERS
from tests.faults.run import Outcome, Run


def run(run: Run) -> list[Outcome]:
    outcome = Outcome("hostile input")
    told: list[str] = []
    with ExitStack() as stack:
        seed = run.dice("fuzz").randrange(2**32)
        programs = {name: run.program("fuzzers", name, run.profile.fuzz, seed) for name in FUZZERS}
        for program in programs.values():
            stack.callback(program.close)
        for name, program in programs.items():
            line = program.line()
            outcome.demand(bool(line), "a program ended", f"{name}, by something that it did not expect")
            for what, tally in json.loads(line or "{}").items():
                told.append(f"{tally['accepted']} + {tally['refused']} {what}")
                outcome.need(tally["accepted"] + tally["refused"], 1, f"inputs of {what}")
                for found in tally["found"]:
                    outcome.demand(False, what, found)
    outcome.figures = f"{run.profile.fuzz:.0f} s each; accepted + refused: {', '.join(told)}"
    return [outcome]
