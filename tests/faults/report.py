"""What a run says of itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from tests.faults.run import Outcome

_SHOWN = 10

PASSED, FAILED = 0, 1
LACKING = 69
"""EX_UNAVAILABLE: void, and it will be again where it was run. Something is missing that it needs."""
VOID = 75
"""EX_TEMPFAIL: void, because etcd failed by itself, or the machine was too slow for a figure.

Neither is a status that Python, its argument parser or tox end with by themselves.
"""


def show(outcome: Outcome) -> str:
    """One check: its verdict and its figures, and the first of what it found."""
    lines = [f"{outcome.verdict:6}  {outcome.name}: {outcome.figures}"]
    if outcome.void:
        lines.append(f"void: {outcome.void}")
    if outcome.findings:
        kinds = Counter(finding.check for finding in outcome.findings)
        lines.append(", ".join(f"{number} {kind}" for kind, number in kinds.most_common()))
        lines += [f"  {finding}" for finding in outcome.findings[:_SHOWN]]
    return "\n          ".join(lines)


def verdict(outcomes: Iterable[Outcome]) -> int:
    """The status that the program ends with."""
    outcomes = list(outcomes)
    if not outcomes or any(outcome.verdict == "FAILED" for outcome in outcomes):
        return FAILED
    void = [outcome for outcome in outcomes if outcome.verdict == "void"]
    if any(outcome.lasting for outcome in void):
        return LACKING
    return VOID if void else PASSED
