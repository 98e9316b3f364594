"""The checks can fail: every mutant is caught, each by the check that it is named with."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

from tests.faults.arena import Arena
from tests.faults.cluster import Processes
from tests.faults.mutants import CHANGED, SPOILED, Changed, Recording, Spoiled, members_differ
from tests.faults.records import Log, read_delivery, read_ops
from tests.faults.scenarios import SCENARIOS, Ground, Scenario
from tests.faults.watchers import Watcher
from tests.faults.workload import Worker, connect, mix

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
        threads = []
        for number in range(1, 7):
            client = stack.enter_context(connect([ground.endpoint], prefix))
            log = stack.enter_context(closing(Log(arena.log(number))))
            worker = Worker(str(number), number * 10_000_000, str(number), client, log, mix(unleaf=1))
            threads.append(
                threading.Thread(target=lambda worker=worker: [worker.step() for _ in range(STEPS)])
            )
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        end = arena.mark()
        arena.truth.extend(end)
        watcher.finish(end)
    ops = read_ops(sorted(directory.glob("worker-*.jsonl")))
    return Recording(arena.truth.truth, ops, read_delivery(directory / "watcher-0.jsonl"))


def test_what_was_recorded_holds_together(recording: Recording) -> None:
    assert len(recording.ops) > 6 * STEPS
    assert list(recording.findings()) == []


@pytest.mark.parametrize("mutant", SPOILED, ids=lambda mutant: mutant.name)
def test_a_history_in_which_something_is_wrong_is_caught(recording: Recording, mutant: Spoiled) -> None:
    found = list(mutant.spoil(recording).findings())
    assert mutant.caught in {finding.check for finding in found}, found[:5]


def test_members_that_differ_are_caught(recording: Recording) -> None:
    assert [finding.check for finding in members_differ(recording.truth)] == ["members"]


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
