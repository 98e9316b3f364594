"""Canaries for secrets: a password, a token or a value that shows up anywhere."""

from __future__ import annotations

import json
from contextlib import closing

from tests.faults.run import Outcome, Run

_ENOUGH = {"reprs": 30, "errors": 40, "records": 20, "commands": 30, "secrets": 4}


def run(run: Run) -> list[Outcome]:
    outcome = Outcome("canary secrets")
    with closing(run.program("canary")) as program:
        line = program.line()
    outcome.demand(bool(line), "a program ended", "by something that it did not expect")
    told = json.loads(line or '{"found": []}')
    for found in told.pop("found"):
        outcome.demand(False, "a secret", found)
    for what, least in _ENOUGH.items():
        # No matter of time: with fewer, something is no longer looked at.
        outcome.demand(told.get(what, 0) >= least, "looked at too few", what)
    outcome.demand(
        "CANARY" not in (run.directory / "log").read_text(errors="replace"), "a secret", "on stderr"
    )
    outcome.figures = ", ".join(f"{number} {what}" for what, number in told.items())
    return [outcome]
