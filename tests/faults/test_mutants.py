"""The checks can fail: every mutant is caught, each by the check that it is named with."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from unittest.mock import Mock

import pytest

from link_kv.errors import DeadlineExceeded, NotATree, OutcomeUnknown
from tests.faults.arena import Arena, examine
from tests.faults.checker import Finding, paired
from tests.faults.cluster import Processes
from tests.faults.mutants import CHANGED, SPOILED, Changed, Recording, Spoiled, gap, members_differ
from tests.faults.records import Log, Op, read_compactions, read_delivery, read_ops
from tests.faults.scenarios import SCENARIOS, Ground, Scenario
from tests.faults.watchers import Watcher
from tests.faults.workload import Worker, connect, mix, nested
from tests.leases import ROOT

STEPS = 150


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with Processes(1) as cluster:
        yield Ground(cluster, tmp_path_factory.mktemp("scenes"))


def _work(worker: Worker) -> None:
    for _ in range(STEPS):
        worker.step()


@pytest.fixture(scope="module")
def recording(ground: Ground) -> Recording:
    """What six clients did at the same time, and what a watcher was told."""
    prefix, directory = "/recording", ground.directory / "recording"
    with ExitStack() as stack:
        arena = stack.enter_context(closing(Arena(ground.cluster, prefix, directory)))
        watcher = Watcher(
            stack.enter_context(connect([ground.endpoint], prefix)),
            Log(directory / "watcher-0.jsonl"),
            "one",
            "/",
            10_000,
        )
        running = []
        pool = stack.enter_context(ThreadPoolExecutor(6))
        for number in range(1, 7):
            client = stack.enter_context(connect([ground.endpoint], prefix))
            log = stack.enter_context(closing(Log(arena.log(number))))
            worker = Worker(
                str(number), number * 10_000_000, str(number), client, log, mix(unleaf=1, items=2)
            )
            running.append(pool.submit(_work, worker))
        for each in running:
            each.result()
        end = arena.mark()
        arena.truth.extend(end)
        watcher.finish(end)
    ops = read_ops(sorted(directory.glob("worker-*.jsonl")))
    delivery = read_delivery(directory / "watcher-0.jsonl")
    compactions = read_compactions(directory / "compactions.jsonl")
    assert compactions == []
    return Recording(arena.truth.truth, ops, delivery, compactions)


def test_what_was_recorded_holds_together(recording: Recording) -> None:
    assert len(recording.ops) > 6 * STEPS
    assert list(recording.findings()) == []


def test_a_difference_over_what_was_compacted_is_right(recording: Recording) -> None:
    assert list(gap(compacted=1)(recording).findings()) == []


@pytest.mark.parametrize("mutant", SPOILED, ids=lambda mutant: mutant.name)
def test_a_history_in_which_something_is_wrong_is_caught(recording: Recording, mutant: Spoiled) -> None:
    found = list(mutant.spoil(recording).findings())
    assert mutant.caught in {finding.check for finding in found}, found[:5]


def test_members_that_differ_are_caught(recording: Recording) -> None:
    assert [finding.check for finding in members_differ(recording.truth)] == ["members"]


def test_as_many_revisions_as_can_be_are_explained() -> None:
    one, two, three = (Op(name, "delete", ["t0"], 0.0) for name in "123")
    found = paired({5: [one, two], 6: [one, three], 7: [one], 8: [one, two, three]})
    assert found == {5: two, 6: three, 7: one}


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_the_library_as_it_is_passes(ground: Ground, scenario: Scenario) -> None:
    assert scenario(ground) == []


@pytest.mark.parametrize("mutant", CHANGED, ids=lambda mutant: mutant.name)
def test_a_library_that_does_something_wrong_is_caught(
    ground: Ground, mutant: Changed, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutant.change(monkeypatch)
    found = mutant.scenario(ground)
    assert mutant.caught in {finding.check for finding in found}, found[:5]


# What writes a history down


def _told_by(action: Callable[[], object], directory: Path) -> Op:
    """What a worker writes down of an operation."""
    log = directory / "worker-0.jsonl"
    with closing(Log(log)) as open_log:
        Worker("0", 1, "seed", Mock(), open_log).do("append", ["l0", 1], action)
    (op,) = read_ops([log])
    return op


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (KeyError("k"), "untyped"),
        (NotATree("/l0"), "NotATree"),
        (OutcomeUnknown("?"), "unknown"),
        (DeadlineExceeded("late"), "not applied"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_whatever_is_raised_is_written_down(error: Exception, outcome: str, tmp_path: Path) -> None:
    op = _told_by(Mock(side_effect=error), tmp_path)
    assert (op.outcome, op.result) == (outcome, None)
    assert op.error == f"{type(error).__name__}: {error}"


def test_what_is_no_json_is_written_down(tmp_path: Path) -> None:
    assert _told_by(lambda: b"bytes", tmp_path).result == "b'bytes'"


def test_a_refusal_that_was_written_down_as_not_applied_keeps_its_name(tmp_path: Path) -> None:
    log = tmp_path / "worker-0.jsonl"
    with closing(Log(log)) as open_log:
        open_log.note(["0.0", "read", ["l0"], 1.0])
        open_log.note(["0.0", 2.0, "not applied", "ListIndexError: a gap", ""])
    (op,) = read_ops([log])
    assert (op.outcome, op.result) == ("ListIndexError", None)


@pytest.mark.parametrize(
    "pairs",
    [
        [("/t0/b", 5), ("/t0/b/c", 6)],
        [("/t0/b/c", 6), ("/t0/b", 5)],
        [("/t0", {}), ("/t0/b", 5)],
        [("/l0/1", 5), ("/l0/3", 6)],
        [("/k0", 5), ("/k0", 6)],
    ],
)
def test_leaves_that_are_no_value_stay_leaves(pairs: list[tuple[str, object]]) -> None:
    assert nested(pairs) == pairs


def test_leaves_make_up_a_value() -> None:
    pairs = [("/k0", 5), ("/l0/1", 6), ("/l0/2", 7), ("/l1", []), ("/t0", {}), ("/t1/b/c", 8), ("/t1/b/d", 9)]
    assert nested(pairs) == {"k0": 5, "l0": [6, 7], "l1": [], "t0": {}, "t1": {"b": {"c": 8, "d": 9}}}


def test_a_thread_that_fails_ends_its_program() -> None:
    code = (
        "import threading, time; from tests.faults.workload import end_with_threads; end_with_threads();"
        "threading.Thread(target=lambda: 1 / 0).start(); time.sleep(30)"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=25)
    assert ended.returncode == 3
    assert "ZeroDivisionError" in ended.stderr


def test_a_member_that_differs_is_found_again(recording: Recording, tmp_path: Path) -> None:
    with closing(Log(tmp_path / "truth.jsonl")) as log, closing(Log(tmp_path / "truth-m2.jsonl")) as other:
        for line in recording.truth:
            log.note(line)
        first, last = recording.truth[10][0], recording.truth[20][0]
        other.note({"after": first, "end": last})
        for line in recording.truth[11:20]:
            other.note(line)
    done, _ = examine(tmp_path)
    assert [finding for finding in done.findings if finding.check == "members"] == [
        Finding("members", "the first and m2 differ from revision the end on")
    ]
