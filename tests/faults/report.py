"""What a run says of itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from tests.faults.run import Outcome

_SHOWN = 10


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
    verdicts = {outcome.verdict for outcome in outcomes}
    return 1 if "FAILED" in verdicts else 2 if "void" in verdicts else 0
