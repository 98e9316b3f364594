"""The threads that run callbacks."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator

import pytest

from link_kv._core.watching import dispatch
from link_kv._core.watching.dispatch import MAX_WORKERS, PATIENCE, Dispatcher
from tests.processes import refuse_thread, until


@pytest.fixture
def dispatcher() -> Iterator[Dispatcher]:
    it = Dispatcher()
    yield it
    it.stop()


def test_jobs_run_in_their_order_and_one_at_a_time(
    dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "PATIENCE", 60)  # a busy machine is no job that blocks
    ran: list[int] = []
    running = threading.Lock()
    together: list[int] = []
    done = threading.Event()

    def job(number: int) -> None:
        if not running.acquire(blocking=False):
            together.append(number)
            return
        ran.append(number)
        running.release()
        if number == 999:
            done.set()

    for number in range(1000):
        dispatcher.schedule(lambda number=number: job(number))  # type: ignore[misc]
    assert done.wait(10)
    assert not together
    assert ran == list(range(1000))


def test_it_starts_no_thread_before_there_is_a_job(dispatcher: Dispatcher) -> None:
    assert dispatcher.workers == 0


def test_a_job_that_raises_ends_no_thread(dispatcher: Dispatcher, caplog: pytest.LogCaptureFixture) -> None:
    ran = threading.Event()

    def fail() -> None:
        raise KeyboardInterrupt("of a job")

    dispatcher.schedule(fail)
    until(lambda: "KeyboardInterrupt: of a job" in caplog.text)
    dispatcher.schedule(ran.set)
    assert ran.wait(10)


def test_a_job_that_blocks_holds_up_nobody_for_long(dispatcher: Dispatcher) -> None:
    release, ran = threading.Event(), threading.Event()
    began = time.monotonic()
    dispatcher.schedule(lambda: release.wait(10) and None)
    dispatcher.schedule(ran.set)
    assert ran.wait(10)
    assert time.monotonic() - began >= PATIENCE / 2
    release.set()


def test_threads_are_bounded(dispatcher: Dispatcher) -> None:
    release = threading.Event()
    running = threading.Semaphore(0)
    more = MAX_WORKERS + 20

    def block() -> None:
        running.release()
        release.wait(20)

    for _ in range(more):
        dispatcher.schedule(block)
    for _ in range(MAX_WORKERS):
        assert running.acquire(timeout=20)
    assert not running.acquire(timeout=5 * PATIENCE)
    assert dispatcher.workers == MAX_WORKERS
    release.set()
    for _ in range(more - MAX_WORKERS):
        assert running.acquire(timeout=20)


def test_a_thread_that_could_not_start_is_started_with_the_next_job(
    dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = [threading.Event() for _ in range(4)]
    refuse_thread(monkeypatch, "link-kv-callbacks")
    assert not dispatcher.schedule(ran[0].set)
    assert dispatcher.workers == 0
    assert dispatcher.schedule(ran[1].set)
    assert ran[0].wait(10)
    assert ran[1].wait(10)
    # Those that there are may block.
    until(lambda: dispatcher.workers == 1, 10)
    started, release = threading.Event(), threading.Event()
    dispatcher.schedule(lambda: started.set() or (release.wait(20) and None))
    assert started.wait(10)
    refuse_thread(monkeypatch, "link-kv-callbacks")
    assert not dispatcher.schedule(ran[2].set)
    assert dispatcher.schedule(ran[3].set)
    assert ran[2].wait(10)
    assert ran[3].wait(10)
    release.set()


def test_a_job_can_ask_to_run_again_later(dispatcher: Dispatcher) -> None:
    times: list[float] = []
    done = threading.Event()

    def job() -> float | None:
        times.append(time.monotonic())
        if len(times) == 3:
            done.set()
            return None
        return times[-1] + 0.05

    dispatcher.schedule(job)
    assert done.wait(10)
    assert all(later - earlier >= 0.05 for earlier, later in itertools.pairwise(times))


def test_what_was_to_run_later_can_be_hurried(dispatcher: Dispatcher) -> None:
    ran, again = threading.Event(), threading.Event()

    def job() -> float | None:
        if ran.is_set():
            again.set()
            return None
        ran.set()
        return time.monotonic() + 1000

    dispatcher.schedule(job)
    assert ran.wait(10)
    until(lambda: dispatcher._later, 10)
    dispatcher.hurry()
    assert again.wait(10)


@pytest.mark.parametrize("later", [1000, 0])
def test_what_runs_when_it_is_hurried_goes_on_to_its_end(dispatcher: Dispatcher, later: float) -> None:
    runs, go, done = threading.Semaphore(0), threading.Event(), threading.Event()
    times = itertools.count(1)

    def job() -> float | None:
        runs.release()
        assert go.wait(10)
        if next(times) == 2 + (not later):
            done.set()
            return None
        return time.monotonic() + later

    dispatcher.schedule(job)
    assert runs.acquire(timeout=10)
    dispatcher.hurry()
    dispatcher.stop()
    go.set()
    assert done.wait(10)


def test_a_job_that_wants_to_run_later_does_not_spin_at_the_end(dispatcher: Dispatcher) -> None:
    ran: list[int] = []
    dispatcher.hurry()
    dispatcher.schedule(lambda: ran.append(1) or time.monotonic() + 1000)
    until(lambda: dispatcher._later)
    assert ran == [1]


def test_a_job_that_goes_on_lets_the_others_go_first(
    dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "PATIENCE", 60)  # a busy machine is no job that blocks
    order: list[str] = []
    done = threading.Event()
    started = threading.Event()

    def long() -> float | None:
        started.wait(10)
        order.append("long")
        return time.monotonic() if order.count("long") < 3 else done.set()

    dispatcher.schedule(long)
    dispatcher.schedule(lambda: order.append("other"))
    started.set()
    assert done.wait(10)
    assert order == ["long", "other", "long", "long"]


def test_after_a_stop_nothing_runs(dispatcher: Dispatcher) -> None:
    ran: list[int] = []
    dispatcher.stop()
    dispatcher.schedule(lambda: ran.append(1))
    assert dispatcher.workers == 0
    assert ran == []
