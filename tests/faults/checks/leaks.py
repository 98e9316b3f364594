"""Clients, watches and services that come and go by the thousand: nothing of them stays."""

from __future__ import annotations

import json
from contextlib import ExitStack

from tests.faults.leaking import USES
from tests.faults.run import Outcome, Run

_MOST = 5 * 2**20


def run(run: Run) -> list[Outcome]:
    outcome = Outcome("leaks")
    times = {name: run.profile.services if name == "services" else run.profile.connects for name in USES}
    endpoint = run.cluster.endpoints[-1]
    told = []
    with ExitStack() as stack:
        programs = {name: run.program("leaking", name, number, endpoint) for name, number in times.items()}
        for program in programs.values():
            stack.callback(program.close)
        for name, program in programs.items():
            line = program.line()
            if not line:
                outcome.demand(False, "a program ended", f"{name}, by something that it did not expect")
                continue
            grown = json.loads(line)
            told.append(f"{times[name]} {name}: {grown['bytes'] / 2**20:+.1f} MiB")
            for what in ("threads", "descriptors"):
                outcome.demand(grown[what] <= 0, name, f"{grown[what]} {what} more after {times[name]}")
            outcome.demand(grown["bytes"] < _MOST, name, f"{grown['bytes']} bytes more after {times[name]}")
    outcome.figures = f"no thread and no descriptor stayed; {', '.join(told)}"
    return [outcome]
