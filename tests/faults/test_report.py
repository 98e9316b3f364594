"""What a run comes to: nothing that was found is lost, and nothing passes that told nothing."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.faults.__main__ import done, together
from tests.faults.checker import Finding
from tests.faults.report import FAILED, LACKING, PASSED, VOID, verdict
from tests.faults.run import Outcome, Run

FOUND = Outcome("found", findings=[Finding("lost write", "all of it")])


def run(*crashes: str, safe: bool = True, **faults: int) -> Any:
    cluster = SimpleNamespace(whole=lambda: None, crashes=list(crashes), safe=safe, faults=faults, tries={})
    return Run(None, 1, cluster, Path())  # type: ignore[arg-type]


def short(figure: float) -> Outcome:
    outcome = Outcome("short")
    outcome.need(figure, 100, "operations")
    return outcome


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        ([], FAILED),
        ([Outcome("fine")], PASSED),
        ([Outcome("fine"), short(99)], VOID),
        ([short(99), short(0)], LACKING),
        ([short(0), FOUND], FAILED),
        ([Outcome("found", findings=FOUND.findings, void="etcd failed by itself")], FAILED),
    ],
)
def test_the_status(outcomes: list[Outcome], code: int) -> None:
    assert verdict(outcomes) == code


def test_no_status_of_ours_is_one_of_python_or_tox() -> None:
    assert not {VOID, LACKING} & {0, 1, 2, 130}


def test_an_etcd_that_failed_by_itself_hides_nothing_that_was_found() -> None:
    checks = {
        "found": lambda run: [FOUND],
        "fine": lambda run: [Outcome("fine")],
        "none": lambda run: [short(0)],
    }
    outcomes = together(run("a panic"), checks)
    assert [outcome.verdict for outcome in outcomes] == ["FAILED", "void", "void"]
    assert verdict(outcomes) == FAILED
    assert verdict(outcomes[1:]) == VOID


@pytest.mark.parametrize("error", [ValueError, SystemExit, pytest.skip.Exception])
def test_a_check_that_is_broken_off_failed(error: type[BaseException]) -> None:
    def check(run: Run) -> list[Outcome]:
        raise error("by itself")

    (outcome,) = together(run(), {"check": check})
    assert (outcome.name, outcome.verdict) == ("check", "FAILED")
    assert "by itself" in outcome.findings[0].detail


def test_a_check_without_an_outcome_failed() -> None:
    (outcome,) = together(run(), {"check": lambda run: []})
    assert (outcome.name, outcome.verdict) == ("check", "FAILED")


def test_faults_must_have_been_done() -> None:
    assert done(run(compacted=1)).verdict == "passed"
    for tries, code in (1, VOID), (2, LACKING):
        vain = run(compacted=0, moved=1)
        vain.cluster.tries["compacted"] = tries
        assert verdict([done(vain)]) == code
    assert verdict([done(run(compacted=1, safe=False))]) == LACKING
