"""Work that is done again and again."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from link_kv._core.endpoints.schedule import Scheduler

from ..processes import until


@pytest.fixture
def scheduler() -> Iterator[Scheduler]:
    made = Scheduler("test")
    yield made
    made.close()


def test_lateness_does_not_add_up(scheduler: Scheduler) -> None:
    begun: list[float] = []
    enough = threading.Event()

    def work() -> None:
        begun.append(time.monotonic())
        if len(begun) == 20:
            enough.set()

    ticket = scheduler.every(0.02, "work", work)
    assert enough.wait(30)
    ticket.cancel()
    due = ticket._due
    # However late each one came, the next one's time is a multiple of the interval from the first one's.
    turns = (due - begun[0]) / 0.02
    assert turns <= ticket.ticks + ticket.missed + 1


def test_what_is_not_done_yet_is_not_begun_again(scheduler: Scheduler) -> None:
    go, begun = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        assert go.wait(30)

    ticket = scheduler.every(0.005, "slow work", work)
    assert begun.wait(30)
    end = time.monotonic() + 30
    while not ticket.missed and time.monotonic() < end:
        time.sleep(0.005)
    assert ticket.ticks == 1
    assert ticket.missed
    go.set()


def test_others_go_on_meanwhile_and_after_an_error(
    scheduler: Scheduler, caplog: pytest.LogCaptureFixture
) -> None:
    go, times, done = threading.Event(), [], threading.Event()

    def fails() -> None:
        times.append(1)
        if len(times) == 3:
            done.set()
        raise ValueError("as expected")

    scheduler.every(0.01, "blocks", lambda: go.wait(30))
    scheduler.every(0.01, "fails", fails)
    assert done.wait(30)
    go.set()
    assert caplog.text.count("fails: raised") == 1


def test_what_works_again_is_told(scheduler: Scheduler, caplog: pytest.LogCaptureFixture) -> None:
    failures = iter([ValueError("a"), ValueError("a"), ValueError("b")])
    done = threading.Event()

    def work() -> None:
        if (failure := next(failures, None)) is not None:
            raise failure
        done.set()

    scheduler.every(0.01, "work", work)
    assert done.wait(30)
    scheduler.close()
    assert caplog.text.count("work: raised") == 2
    assert caplog.text.count("work: works again") == 1


def test_what_cannot_be_shown_ends_no_thread(scheduler: Scheduler) -> None:
    class Odd(Exception):
        def __repr__(self) -> str:
            raise ValueError("no text")

    times: list[int] = []
    done = threading.Event()

    def work() -> None:
        times.append(1)
        if len(times) == 3:
            done.set()
        raise Odd

    scheduler.every(0.01, "work", work)
    assert done.wait(30)


def test_once_and_cancelled(scheduler: Scheduler) -> None:
    happened: list[str] = []
    done = threading.Event()
    scheduler.once(0.0, "first", lambda: happened.append("once"))
    with scheduler._changed:  # nothing begins between the two
        scheduler.once(0.05, "never", lambda: happened.append("never")).cancel()
    scheduler.once(0.1, "last", done.set)
    assert done.wait(30)
    until(lambda: happened)
    assert happened == ["once"]


def test_after_its_end_nothing_begins() -> None:
    scheduler = Scheduler("test")
    scheduler.close()
    assert not scheduler.every(0.01, "work", lambda: None).on
    scheduler.close()
