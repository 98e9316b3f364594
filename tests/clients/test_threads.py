"""Threads that keep what they came to; how many run at once; waiting."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from link_kv import ConfigError, DeadlineExceeded, LinkKVError, clients
from link_kv.clients import BaseClient, ClientError, SilentEvent, wait

# SilentEvent


class Step:
    """Threads that wait until they are told."""

    def __init__(self) -> None:
        self.may = [threading.Event() for _ in range(4)]

    def __call__(self, number: int, failing: bool = False) -> int:
        assert self.may[number].wait(10)
        if failing:
            raise ClientError("on purpose", 42)
        return number


def test_threads_end_in_any_order() -> None:
    step = Step()
    events = [SilentEvent(step, number) for number in range(4)]
    for event in events:
        event.start()
    for number in (2, 0, 3, 1):
        assert events[number].is_alive()
        step.may[number].set()
        events[number].join(10)
        assert not events[number].is_alive()


def test_a_value_is_there_once_the_thread_is_through() -> None:
    step = Step()
    events = [SilentEvent(step, number=number) for number in range(4)]
    for event in events:
        event.start()
        assert (event.value, event.exception) == (None, False)
    for number, event in enumerate(events):
        step.may[number].set()
        event.join(10)
        assert (event.value, event.exception) == (number, False)


def test_an_exception_is_kept_and_not_printed(capfd: pytest.CaptureFixture[str]) -> None:
    step = Step()
    for may in step.may:
        may.set()
    events = [SilentEvent(step, number, bool(number % 2)) for number in range(4)]
    for event in events:
        event.start()
    for number, event in enumerate(events):
        event.join(10)
        if number % 2:
            assert isinstance(event.exception, ClientError)
            assert (event.exception.status, event.value) == (42, None)
        else:
            assert event.exception is False
    assert capfd.readouterr().err == ""


class Own(SilentEvent):
    """A subclass, with its own constructor."""

    def __init__(self, number: int) -> None:
        super().__init__(self.work, number)

    def work(self, number: int) -> int:
        return number + 1


def test_a_subclass_does_not_recurse() -> None:
    class Deeper(Own):
        pass

    event = Deeper(1)
    event.start()
    event.join(10)
    assert event.value == 2


def test_even_an_exit_is_kept() -> None:
    event = SilentEvent(exit, 3)
    event.start()
    event.join(10)
    assert isinstance(event.exception, SystemExit)


# The limit


@pytest.fixture
def client(middleware: Any) -> BaseClient:
    return BaseClient("/lab", middleware)


@pytest.mark.parametrize("faulty", [-1, 0, 0.5, "a string", {}, True, None])
def test_a_limit_is_a_whole_number_above_0(client: BaseClient, faulty: Any) -> None:
    with pytest.raises(ConfigError, match="limit="):
        client._init_thread_limit(faulty)
    for name in ("_thread_limit", "_elapsed_old", "_elapsed_new"):
        assert not hasattr(client, name)


def test_a_limit_begins_anew(client: BaseClient) -> None:
    client._init_thread_limit(42)
    assert (client._thread_limit, client._elapsed_old, client._elapsed_new) == (42, 0.0, 0.0)


@pytest.mark.parametrize(
    ("most", "limit", "steps"),
    [
        (7, None, [(0.1, 1), (0.1, 2), (0.2, 1), (0.7, 1), (0.3, 2)]),
        (7, None, [(1.0 - i / 10.0, i + 1) for i in range(7)]),
        (1, None, [(1.7, 1)] * 10),
        (7, 5, [(1.0 + i / 10.0, 5 - i - 1) for i in range(4)] + [(2.0, 1), (1.9, 2), (2.0, 1), (2.0, 2)]),
        (
            7,
            None,
            [(1.0 - i / 10.0, i + 1) for i in range(7)]
            + [(0.1, 7), (0.2, 6), (0.4, 5), (0.3, 6), (0.2, 7), (0.1, 7)],
        ),
    ],
)
def test_the_limit_follows_the_waits(
    client: BaseClient, most: int, limit: int | None, steps: list[tuple[float, int]]
) -> None:
    client.MAX_THREADS = most
    if limit is None:
        client._init_thread_limit()
        client._watch_thread_limit([])
        assert client._thread_limit == 1
    else:
        client._init_thread_limit(limit)
    for seconds, expected in steps:
        client._elapsed_new = seconds
        client._watch_thread_limit([])
        assert client._thread_limit == expected
        assert client._elapsed_old == seconds


def test_the_limit_stays_where_nothing_new_was_measured(client: BaseClient) -> None:
    client.MAX_THREADS = 7
    client._init_thread_limit()
    for seconds in (0.2, 0.1):
        client._elapsed_new = seconds
        client._watch_thread_limit([])
    for _ in range(5):
        client._watch_thread_limit([])
    assert client._thread_limit == 2


def test_one_that_ends_makes_room_for_the_next(client: BaseClient) -> None:
    """A sliding window: a slow thread does not hold up those that could start beside it."""
    step = Step()
    client.MAX_THREADS = 2
    client._init_thread_limit(2)
    slow, quick = SilentEvent(step, 0), SilentEvent(step, 1)
    slow.start()
    assert client._watch_thread_limit([slow]) == [slow]
    quick.start()
    step.may[1].set()
    quick.join()  # it ends before anybody waits for it
    assert client._watch_thread_limit([slow, quick]) == [slow]
    step.may[0].set()
    assert client._watch_thread_limit([slow]) == []  # nothing new: it is waited for


def test_any_thread_can_be_watched(client: BaseClient) -> None:
    may = threading.Event()
    thread = threading.Thread(target=may.wait)
    thread.start()
    threading.Timer(0.05, may.set).start()
    assert client._watch_thread_limit([thread]) == []
    with pytest.raises(ConfigError, match="was not started"):
        client._watch_thread_limit([SilentEvent(print)])


# async_run


class Under(BaseClient):
    """Counts how many calls are under way at once."""

    MAX_THREADS = 4

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.now = self.most = 0
        self._count = threading.Lock()

    def work(self, number: int, seconds: float = 0.01) -> int:
        with self._count:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(seconds)  # the work
        with self._count:
            self.now -= 1
        return number


def test_results_come_in_the_order_of_the_arguments(middleware: Any) -> None:
    client = Under("/lab", middleware)
    given = [{"number": number, "seconds": 0.03 if number % 3 == 0 else 0.001} for number in range(40)]
    assert client.async_run(client.work, given) == list(range(40))
    assert 1 <= client.most <= 4
    assert client.async_run(client.work, []) == []


def test_more_than_one_runs_at_once(middleware: Any) -> None:
    """Ever shorter waits: the limit climbs, and two calls that wait for each other meet."""
    client = Under("/lab", middleware)
    assert client.async_run(client.work, [{"number": n, "seconds": 0.2 / (n + 1)} for n in range(12)])
    assert client.most >= 2


def test_requests_run_so_too(middleware: Any) -> None:
    client = Under("/lab", middleware)
    client.async_run(client.put, ({"path": f"k{n}", "data": n} for n in range(25)))
    answers = client.async_run(client.get, [{"path": f"k{n}"} for n in range(25)])
    assert [answer.content for answer in answers] == list(range(25))


def test_arguments_may_have_any_name(client: BaseClient) -> None:
    assert client.async_run(lambda method, self: (method, self), [{"method": 1, "self": 2}]) == [(1, 2)]


def test_the_first_exception_is_raised_and_no_more_are_started(
    middleware: Any, caplog: pytest.LogCaptureFixture
) -> None:
    client = Under("/lab", middleware)
    started: list[int] = []
    first: list[threading.Thread] = []
    begun = threading.Event()

    def work(number: int) -> None:
        started.append(number)
        if number == 3:
            first.append(threading.current_thread())
            begun.set()
        elif number > 3:  # begun before the first has failed, maybe, and fails after it
            assert begun.wait(10)
            first[0].join(10)
        if number >= 3:
            raise ClientError(f"number {number}")

    with pytest.raises(ClientError, match=r"^number 3$"):
        client.async_run(work, [{"number": number} for number in range(100)])
    assert len(started) < 15
    others = [message for message in caplog.messages if "beside the one" in message]
    assert len(others) == len(started) - 4  # those that failed beside it are not lost


def test_two_threads_may_run_so_at_once(middleware: Any) -> None:
    client = Under("/lab", middleware)
    results: list[Any] = []

    def use() -> None:
        results.append(client.async_run(client.work, [{"number": n, "seconds": 0.001} for n in range(20)]))

    threads = [threading.Thread(target=use) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [list(range(20))] * 3


def test_progress_is_told_at_the_start_and_for_each_call(client: BaseClient) -> None:
    seen: list[Any] = []

    def upload_cb(total: int) -> Iterator[None]:
        seen.append(total)
        try:
            for number in range(total + 1):
                seen.append(number)
                yield
        finally:
            seen.append("closed")

    client.async_run(str, [{"object": n} for n in range(3)], progress=upload_cb)
    assert seen == [3, 0, 1, 2, 3, "closed"]
    seen.clear()
    with pytest.raises(ClientError):
        client.async_run(lambda: client.get("none"), [{}] * 3, progress=upload_cb)
    assert (seen[:2], seen[-1]) == ([3, 0], "closed")


# wait


def test_wait_polls_until_it_may_stop() -> None:
    states = iter(["BUILD", "BUILD", "ACTIVE", "never asked"])
    seen: list[str] = []
    params = ("server", 1)
    found = wait(
        lambda *given: given == params and next(states), params, "ACTIVE".__eq__, 0.001, 10, seen.append
    )
    assert (found, seen) == ("ACTIVE", ["BUILD", "BUILD", "ACTIVE"])


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_wait_that_takes_too_long_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    clock = Clock()
    monkeypatch.setattr(clients, "time", clock)
    with pytest.raises(DeadlineExceeded, match=r"within 2\.5 s") as caught:
        wait(lambda: asked.append(clock.now), (), lambda result: False, delay=1, timeout=2.5)
    assert isinstance(caught.value, TimeoutError)
    assert asked == [100, 101, 102, 102.5]
    asked.clear()
    with pytest.raises(DeadlineExceeded):
        wait(lambda: asked.append(1), (), lambda result: False, timeout=0)
    assert len(asked) == 1


@pytest.mark.parametrize("options", [{"delay": -1}, {"timeout": float("nan")}, {"timeout": None}])
def test_wait_with_times_that_are_none(options: dict[str, Any]) -> None:
    with pytest.raises(LinkKVError, match="must be a finite number"):
        wait(print, (), bool, **options)


def test_threads_are_logged_by_name_only(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise ValueError("s3cret")

    with caplog.at_level(logging.DEBUG, "link_kv.clients"):
        event = SilentEvent(fail)
        event.start()
        event.join(10)
    assert "ValueError" in caplog.text
    assert "s3cret" not in caplog.text
