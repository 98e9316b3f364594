"""Subscriptions, iterators and mirrors on a real etcd."""

from __future__ import annotations

import itertools
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from link_kv import (
    Change,
    Closed,
    ConfigError,
    EtcdMiddleware,
    LinkKVError,
    NotFound,
    PathError,
    RevisionError,
    Unavailable,
)
from link_kv._core.watching import asker
from link_kv._core.watching.watch_machine import Phase
from link_kv.live import Batch, Subscription, hub_of
from link_kv.tree import MISSING, place
from tests.live.inbox import Inbox
from tests.processes import refuse_thread, until


@pytest.fixture
def other(etcd: Any, etcd_prefix: str) -> Iterator[EtcdMiddleware]:
    """Another client below the same prefix."""
    with EtcdMiddleware(endpoints=etcd.endpoints, prefix=etcd_prefix) as client:
        yield client


# Subscriptions


def test_a_callback_gets_each_change(etcd_client: EtcdMiddleware, other: EtcdMiddleware) -> None:
    inbox = Inbox()
    with etcd_client.subscribe("/a", inbox) as subscription:
        assert subscription.state == "live"
        first = other.put("/a/x", 1)
        second = other.put("/a/x", "two")
        third = other.delete("/a/x")
        assert inbox.wait(3) == [
            Change("/a/x", 1, MISSING, first, "put", False),
            Change("/a/x", "two", 1, second, "put", False),
            Change("/a/x", MISSING, "two", third, "delete", False),
        ]
        until(lambda: subscription.revision == third)
        stats = subscription.stats
        assert (stats.delivered, stats.coalesced, stats.gaps, stats.reconnects) == (3, 0, 0, 0)
        assert stats.callback_errors == 0
        until(lambda: subscription.stats.lag == 0.0)


def test_a_tree_arrives_whole(etcd_client: EtcdMiddleware, other: EtcdMiddleware) -> None:
    inbox = Inbox()
    etcd_client.subscribe("/a", inbox)
    revision = other.put("/a", {"x": 1, "l": ["i", {"k": 2}], "e": {}, "n": []})
    inbox.wait(5)
    assert {(change.path, str(change.value)) for change in inbox.items} == {
        ("/a/x", "1"),
        ("/a/l/1", "i"),
        ("/a/l/2/k", "2"),
        ("/a/e", "{}"),
        ("/a/n", "[]"),
    }
    assert {change.revision for change in inbox.items} == {revision}


def test_the_path_itself_and_siblings(etcd_client: EtcdMiddleware, other: EtcdMiddleware) -> None:
    inbox = Inbox()
    etcd_client.subscribe("a/", inbox)
    other["/a-b"] = 1
    other["/ab/c"] = 1
    other["/a"] = 5
    other["/a"] = {}
    other["/a"] = {"x": 1}
    changes = inbox.wait(4)
    assert [(change.path, change.value, change.previous) for change in changes[:2]] == [
        ("/a", 5, MISSING),
        ("/a", {}, 5),
    ]
    assert {(change.path, str(change.value)) for change in changes[2:]} == {("/a", "MISSING"), ("/a/x", "1")}


def test_everything_below_the_prefix(etcd: Any, etcd_client: EtcdMiddleware, other: EtcdMiddleware) -> None:
    inbox = Inbox()
    etcd_client.subscribe("/", inbox)
    with EtcdMiddleware(endpoints=etcd.endpoints) as outside:
        outside.raw[etcd_client.prefix.encode() + b"-beside/x"] = b"0"
    other["/a/x"] = 1
    other.raw[other.prefix.encode() + b"/.link/services/x"] = b"0"
    other["/b"] = 2
    inbox.wait(2)
    assert inbox.values() == [("/a/x", 1), ("/b", 2)]


def test_prime_begins_with_what_is_there(etcd_client: EtcdMiddleware, other: EtcdMiddleware) -> None:
    first = other.put("/a/b", 1)
    second = other.put("/a/a", 2)
    third = other.put("/a/e", {})
    for _ in range(2):  # the second joins a watch that is open
        inbox = Inbox()
        etcd_client.subscribe("/a", inbox, prime=True)
        assert inbox.wait(3) == [
            Change("/a/b", 1, MISSING, first, "put", False),
            Change("/a/a", 2, MISSING, second, "put", False),
            Change("/a/e", {}, MISSING, third, "put", False),
        ]


def test_an_identical_value_is_a_change(etcd_client: EtcdMiddleware, other: EtcdMiddleware) -> None:
    inbox = Inbox()
    etcd_client.subscribe("/a", inbox)
    other["/a"] = 1
    other["/a"] = 1
    assert [change.previous for change in inbox.wait(2)] == [MISSING, 1]


def test_what_expires_is_told(etcd_client: EtcdMiddleware, other: EtcdMiddleware) -> None:
    inbox = Inbox()
    etcd_client.subscribe("/a", inbox)
    other.put("/a/x", 1, ttl=4)
    gone = inbox.wait(2)[1]
    assert (gone.kind, gone.path, gone.value, gone.previous) == ("delete", "/a/x", MISSING, 1)


def test_after_closing_nothing_comes(etcd_client: EtcdMiddleware, other: EtcdMiddleware) -> None:
    closed, open_ = Inbox(), Inbox()
    subscription = etcd_client.subscribe("/a", closed)
    etcd_client.subscribe("/a", open_)
    other["/a"] = 1
    closed.wait(1)
    subscription.close()
    subscription.close()
    assert subscription.state == "lost"
    other["/a"] = 2
    open_.wait(2)
    assert len(closed.items) == 1


def test_the_last_one_that_closes_ends_the_watch(etcd_client: EtcdMiddleware) -> None:
    one = etcd_client.subscribe("/a", Inbox())
    two = etcd_client.subscribe("/a", Inbox())
    hub = hub_of(etcd_client)
    one.close()
    assert watch_threads()
    two.close()
    until(lambda: hub._reader is None)
    inbox = Inbox()
    etcd_client.subscribe("/a", inbox)
    etcd_client["/a"] = 1
    inbox.wait(1)


def watch_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "link-kv-watch"]


def test_closing_the_client_ends_all(etcd: Any, etcd_prefix: str) -> None:
    client = EtcdMiddleware(endpoints=etcd.endpoints, prefix=etcd_prefix)
    states = Inbox()
    subscription = client.subscribe("/a", Inbox(), on_state=states)
    mirror = client.mirror("/a")
    changes = client.watch("/a")
    before = threading.active_count()
    client.close()
    client.close()
    assert states.wait(1) == ["lost"]
    assert (subscription.state, mirror.state, changes.state) == ("lost", "lost", "lost")
    assert list(changes) == []
    until(lambda: threading.active_count() < before)
    for attempt in (
        lambda: client.subscribe("/a", print),
        lambda: client.mirror("/a"),
        lambda: client.watch(),
    ):
        with pytest.raises(Closed):
            attempt()


@pytest.mark.parametrize("policy", ["all", "latest"])
def test_the_end_is_told_whatever_the_rate(etcd: Any, etcd_prefix: str, policy: Any) -> None:
    client = EtcdMiddleware(endpoints=etcd.endpoints, prefix=etcd_prefix)
    states, heard = Inbox(), Inbox()
    subscription = client.subscribe("/a", heard, policy=policy, max_hz=0.01, on_state=states)
    client["/a"] = 1
    heard.wait(1)
    client["/a"] = 2
    until(lambda: subscription._queue.size and hub_of(client).dispatcher._later)
    client.close()
    assert states.wait(1) == ["lost"]
    assert [change.value for change in heard.wait(2)] == [1, 2]


def test_a_callback_may_close_the_client(etcd: Any, etcd_prefix: str) -> None:
    client = EtcdMiddleware(endpoints=etcd.endpoints, prefix=etcd_prefix)
    states, closed = Inbox(), threading.Event()

    def close(change: Change) -> None:
        client.close()
        closed.set()

    client.subscribe("/a", close)
    client.subscribe("/b", print, on_state=states)
    client["/a"] = 1
    assert closed.wait(20)
    assert states.wait(1) == ["lost"]


@pytest.mark.parametrize(
    "options", [{"policy": "some"}, {"max_hz": 0}, {"max_hz": -1}, {"queue": 0}, {"queue": 1.5}]
)
def test_options_that_do_not_fit(etcd_client: EtcdMiddleware, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        etcd_client.subscribe("/a", print, **options)
    with pytest.raises(ConfigError, match="callback"):
        etcd_client.subscribe("/a", None)  # type: ignore[arg-type]
    with pytest.raises(PathError):
        etcd_client.subscribe("/a//b", print)


# What a callback may do


def test_a_callback_may_raise(
    etcd_client: EtcdMiddleware, other: EtcdMiddleware, caplog: pytest.LogCaptureFixture
) -> None:
    inbox = Inbox()

    def raising(change: Change) -> None:
        inbox(change)
        raise ValueError(f"cannot take {change.value}")

    subscription = etcd_client.subscribe("/a", raising)
    with caplog.at_level(logging.ERROR, "link_kv.live"):
        other["/a/x"] = 1
        other["/a/y"] = 2
        inbox.wait(2)
        until(lambda: subscription.stats.delivered == 2)
    assert subscription.stats.callback_errors == 2
    logged = [record for record in caplog.records if record.name == "link_kv.live"]
    assert ["/a/x" in record.getMessage() for record in logged] == [True, False]
    assert logged[0].exc_info
    assert "cannot take 1" in str(logged[0].exc_info[1])


def test_a_log_that_raises_ends_nothing(etcd_client: EtcdMiddleware, other: EtcdMiddleware) -> None:
    inbox = Inbox()

    def raising(change: Change) -> None:
        inbox(change)
        raise ValueError("no")

    def fails(record: logging.LogRecord) -> bool:
        raise ZeroDivisionError

    subscription = etcd_client.subscribe("/a", raising)
    log = logging.getLogger("link_kv.live")
    log.addFilter(fails)
    try:
        other["/a"] = 1
        other["/a"] = 2
        assert [change.value for change in inbox.wait(2)] == [1, 2]
        until(lambda: subscription.stats.delivered == 2)
    finally:
        log.removeFilter(fails)
    assert (subscription.state, subscription.stats.callback_errors) == ("live", 2)


def test_a_callback_may_subscribe_write_and_close(etcd_client: EtcdMiddleware) -> None:
    inner, outer = Inbox(), Inbox()
    subscriptions: list[Subscription] = []

    def callback(change: Change) -> None:
        outer(change)
        subscriptions.append(etcd_client.subscribe("/b", inner))
        etcd_client["/b"] = change.value + 1
        assert etcd_client["/a"] == change.value
        subscriptions[0].close()

    subscriptions.append(etcd_client.subscribe("/a", callback))
    etcd_client["/a"] = 1
    assert [change.value for change in inner.wait(1)] == [2]
    until(lambda: subscriptions[0].state == "lost")
    etcd_client["/a"] = 5
    etcd_client["/b"] = 7
    inner.wait(2)
    assert len(outer.items) == 1


def test_a_callback_that_blocks_holds_up_only_itself(
    etcd_client: EtcdMiddleware, other: EtcdMiddleware
) -> None:
    release, blocked, quick = threading.Event(), Inbox(), Inbox()

    def slow(change: Change) -> None:
        release.wait(20)
        blocked(change)

    slow_one = etcd_client.subscribe("/a", slow)
    etcd_client.subscribe("/a", quick)
    for number in range(20):
        other["/a"] = number
    assert [change.value for change in quick.wait(20)] == list(range(20))
    assert blocked.items == []
    assert slow_one.stats.lag > 0
    release.set()
    assert [change.value for change in blocked.wait(20)] == list(range(20))


def test_threads_stay_few_however_many_callbacks_block(
    etcd_client: EtcdMiddleware, other: EtcdMiddleware
) -> None:
    release, inbox = threading.Event(), Inbox()

    def slow(change: Change) -> None:
        release.wait(20)
        inbox(change)

    before = threading.active_count()
    for _ in range(60):
        etcd_client.subscribe("/a", slow)
    other["/a"] = 1
    until(lambda: hub_of(etcd_client).dispatcher.workers == 33)
    assert threading.active_count() - before <= 33 + 5
    release.set()
    inbox.wait(60)


# Policies


def test_latest_keeps_the_newest_and_counts_the_rest(
    etcd_client: EtcdMiddleware, other: EtcdMiddleware
) -> None:
    started, release, inbox = threading.Event(), threading.Event(), Inbox()

    def slow(change: Change) -> None:
        inbox(change)
        started.set()
        release.wait(20)

    every = Inbox()
    subscription = etcd_client.subscribe("/a", slow, policy="latest")
    etcd_client.subscribe("/a", every)
    other["/a/x"] = 0
    assert started.wait(20)
    for number in range(1, 10):
        other["/a/x"] = number
    other["/a/y"] = "y"
    every.wait(11)
    release.set()
    changes = inbox.wait(3)
    assert [(change.path, change.value, change.previous) for change in changes] == [
        ("/a/x", 0, MISSING),
        ("/a/x", 9, 0),
        ("/a/y", "y", MISSING),
    ]
    until(lambda: subscription.stats.delivered == 3)
    assert subscription.stats.coalesced == 8


def test_max_hz_bounds_the_rate(etcd_client: EtcdMiddleware, other: EtcdMiddleware) -> None:
    times: list[float] = []
    inbox, every = Inbox(), Inbox()

    def callback(change: Change) -> None:
        times.append(time.monotonic())
        inbox(change)

    etcd_client.subscribe("/a", callback, policy="latest", max_hz=10)
    etcd_client.subscribe("/a", every, max_hz=20)
    for number in range(50):
        other["/a"] = number
    inbox.until(lambda items: items and items[-1].value == 49)
    assert all(later - earlier > 0.09 for earlier, later in itertools.pairwise(times))
    assert len(times) < 50
    assert [change.value for change in every.wait(50)] == list(range(50))


def test_taking_is_no_part_of_the_interval_of_max_hz(
    etcd_client: EtcdMiddleware, other: EtcdMiddleware, monkeypatch: pytest.MonkeyPatch
) -> None:
    times: list[float] = []
    subscription = etcd_client.subscribe("/a", lambda change: times.append(time.monotonic()), max_hz=5)
    take, slow, go = subscription._take, [0.15], threading.Event()

    def slowly() -> Any:
        assert go.wait(20)
        if slow:
            time.sleep(slow.pop())
        return take()

    monkeypatch.setattr(subscription, "_take", slowly)
    other["/a"] = 1
    until(lambda: subscription._queue.size == 1)
    go.set()
    until(lambda: times)
    other["/a"] = 2
    until(lambda: len(times) == 2)
    assert times[1] - times[0] > 0.19


def test_a_full_queue_is_replayed(
    etcd_client: EtcdMiddleware, other: EtcdMiddleware, caplog: pytest.LogCaptureFixture
) -> None:
    release, inbox, quick, states = threading.Event(), Inbox(), Inbox(), Inbox()

    def slow(change: Change) -> None:
        release.wait(20)
        inbox(change)

    with caplog.at_level(logging.WARNING, "link_kv.live"):
        subscription = etcd_client.subscribe("/a", slow, queue=10, on_state=states)
        etcd_client.subscribe("/a", quick)
        for number in range(100):
            other[f"/a/{number % 7}"] = number
        quick.wait(100)
        assert subscription.state == "stale"
        assert subscription.revision < quick.items[0].revision
        release.set()
        changes = inbox.wait(100)
    assert [change.value for change in changes] == list(range(100))
    assert [change.previous for change in changes[7:]] == list(range(93))
    assert changes == quick.items
    until(lambda: subscription.state == "live")
    states.until(lambda items: items and items[-1] == "live")
    assert states.items[:2] == ["stale", "live"]
    assert subscription.stats.gaps == 0
    until(lambda: any("queue is full" in record.getMessage() for record in list(caplog.records)))
    other["/a/x"] = "last"
    assert inbox.wait(101)[-1].value == "last"
    until(lambda: len(hub_of(etcd_client)._machine.watches) == 1)


def test_a_replay_is_stale_until_it_has_caught_up(etcd_client: EtcdMiddleware, other: EtcdMiddleware) -> None:
    release, inbox, quick, told = threading.Event(), Inbox(), Inbox(), Inbox()

    def slow(change: Change) -> None:
        release.wait(20)
        inbox(change)

    subscription = etcd_client.subscribe(
        "/a", slow, queue=10, on_state=lambda state: told((state, len(inbox.items)))
    )
    etcd_client.subscribe("/a", quick)  # it keeps the watch that both share
    for number in range(100):
        other["/a"] = number
    quick.wait(100)
    assert subscription.state == "stale"
    release.set()
    inbox.wait(100)
    told.until(lambda items: items and items[-1][0] == "live")
    assert [delivered for state, delivered in told.items if state == "live"] == [100]


def test_a_full_queue_of_the_only_one(etcd_client: EtcdMiddleware, other: EtcdMiddleware) -> None:
    inbox, started, release = Inbox(), threading.Event(), threading.Event()

    def slow(change: Change) -> None:
        started.set()
        release.wait(20)
        inbox(change)

    subscription = etcd_client.subscribe("/a", slow, queue=3)
    for number in range(50):
        other["/a"] = number
    until(lambda: subscription.state == "stale")
    release.set()
    assert [change.value for change in inbox.wait(50)] == list(range(50))


def test_who_joins_what_catches_up_waits_for_it(
    etcd_client: EtcdMiddleware, other: EtcdMiddleware, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = etcd_client.mirror("/a")
    hub, feed = hub_of(etcd_client), first._feed
    arrived, go_on = hub._catch_up.arrived, threading.Event()
    monkeypatch.setattr(hub._catch_up, "arrived", lambda: arrived() if go_on.is_set() else [])
    other["/b"] = 1  # etcd is further than the watch knows
    assert hub._stream is not None
    hub._stream.cancel()
    until(lambda: feed.phase is Phase.FOLLOWING and hub._catch_up)
    states: list[str] = []

    def join() -> None:
        with etcd_client.mirror("/a") as mirror, etcd_client.subscribe("/a", print) as subscription:
            states.extend((mirror.state, subscription.state))

    joins = threading.Thread(target=join)
    joins.start()
    until(lambda: feed.joining or states)
    assert first.state == "stale"
    go_on.set()
    joins.join(20)
    assert states == ["live", "live"]


def test_who_joins_what_is_replayed_waits_until_it_is_there(
    etcd_client: EtcdMiddleware, other: EtcdMiddleware
) -> None:
    """A queue was full, its listener is replayed what it missed, and the shared watch has gone meanwhile."""
    hub = hub_of(etcd_client)
    first = other.put("/a", 0)
    other["/a"] = 1
    changes = etcd_client.watch("/a", revision=first)
    assert [next(changes).value for _ in range(2)] == [0, 1]  # it is open before etcd sends the past
    feed = changes.feed
    assert feed is not None
    with hub.changed:
        # As after a queue was full. Nothing is read meanwhile.
        feed.returns, feed.behind = True, feed.revision + 1
        hub._returning[feed] = None
        assert hub._return(feed)
        assert (feed.shared, feed.live, changes.state) == (True, False, "stale")
    other["/a"] = 2
    with etcd_client.mirror("/a") as mirror:
        assert mirror[""] == 2
        assert changes.state == "live"


# Iterating


def test_watch_iterates(etcd_client: EtcdMiddleware, other: EtcdMiddleware) -> None:
    with etcd_client.watch("/a") as changes:
        first = other.put("/a/x", 1)
        second = other.put("/a/y", 2)
        assert next(changes) == Change("/a/x", 1, MISSING, first, "put", False)
        assert next(changes) == Change("/a/y", 2, MISSING, second, "put", False)
        assert changes.revision == second
        until(lambda: changes.state == "live")
    assert list(changes) == []


def test_the_end_of_an_iteration_is_told_each_time(etcd: Any, etcd_prefix: str) -> None:
    client = EtcdMiddleware(endpoints=etcd.endpoints, prefix=etcd_prefix)
    changes = client.watch("/a")
    client["/a"] = 1
    until(lambda: changes.stats.lag > 0)
    client.close()
    ended = Inbox()
    threading.Thread(target=lambda: [ended(next(changes, None)) for _ in range(4)], daemon=True).start()
    first, *others = ended.wait(4)
    assert (first.value, others) == (1, [None] * 3)


def test_closing_from_elsewhere_ends_the_iteration(etcd_client: EtcdMiddleware) -> None:
    changes = etcd_client.watch("/a")
    seen: list[Change] = []
    thread = threading.Thread(target=lambda: seen.extend(changes))
    thread.start()
    etcd_client["/a"] = 1
    until(lambda: seen)
    changes.close()
    thread.join(20)
    assert not thread.is_alive()


def test_closing_just_before_an_iteration_waits_ends_it(
    etcd_client: EtcdMiddleware, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = etcd_client.watch("/a")
    etcd_client["/a"] = 1
    next(changes)  # from now on it is awake
    changes._came.clear()  # as when it had waited for that
    take = changes._take
    monkeypatch.setattr(changes, "_take", lambda: (changes.close(), take())[1])
    ended = Inbox()
    threading.Thread(target=lambda: ended(next(changes, None)), daemon=True).start()
    assert ended.wait(1) == [None]


def test_the_past_is_replayed_from_a_revision_on(etcd_client: EtcdMiddleware, other: EtcdMiddleware) -> None:
    other["/a/x"] = 1
    revision = other.put("/a/x", 2)
    other["/b"] = 0
    other["/a/y"] = 3
    del other["/a/x"]
    with etcd_client.watch("/a", revision=revision) as changes:
        assert [tuple(next(changes))[:3] for _ in range(3)] == [
            ("/a/x", 2, 1),
            ("/a/y", 3, MISSING),
            ("/a/x", MISSING, 2),
        ]
        other["/a/z"] = 4
        assert next(changes).value == 4
    with etcd_client.watch("/a", revision=1) as changes:
        assert [next(changes).value for _ in range(2)] == [1, 2]


def test_a_past_that_is_none(etcd_client: EtcdMiddleware) -> None:
    now = etcd_client.put("/a", 1)
    for revision in (0, -1, 1.5):
        with pytest.raises(RevisionError):
            etcd_client.watch("/a", revision=revision)  # type: ignore[arg-type]
    with pytest.raises(RevisionError):
        etcd_client.watch("/a", revision=now + 10_000)


def test_an_iteration_that_lags_loses_nothing(
    etcd_client: EtcdMiddleware, other: EtcdMiddleware, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("link_kv._core.watching.takers.QUEUE", 5)
    with etcd_client.watch("/a") as changes:
        for number in range(40):
            other["/a"] = number
        assert [next(changes).value for _ in range(40)] == list(range(40))


# Mirrors


def test_a_mirror_reads_as_the_client_does(etcd_client: EtcdMiddleware) -> None:
    etcd_client["/a"] = {"x": 1, "l": [1, {"k": 2}], "e": {}, "n": [], "t": "text"}
    etcd_client["/a-b"] = 0
    with etcd_client.mirror("/a") as mirror:
        expected = {key[3:]: value for key, value in etcd_client.items() if key.startswith("/a/")}
        assert dict(mirror.items()) == expected
        assert dict(mirror) == expected
        assert list(mirror) == list(expected)
        assert list(mirror.values()) == list(expected.values())
        assert len(mirror) == len(expected)
        assert mirror["l/2/k"] == 2
        assert mirror.get("none", "default") == "default"
        assert "x" in mirror
        for missing in ("l", "none", "x/", "e/", "", "\ud800", 5):
            assert missing not in mirror
            with pytest.raises(NotFound):
                mirror[missing]  # type: ignore[index]
        assert mirror.snapshot() == etcd_client["/a"]
        assert mirror.state == "live"
        with pytest.raises(TypeError):
            mirror["x"] = 1  # type: ignore[index]


def test_a_mirror_of_a_value(etcd_client: EtcdMiddleware) -> None:
    etcd_client["/a"] = 5
    mirror = etcd_client.mirror("/a")
    assert dict(mirror.items()) == {"": 5}
    assert mirror.snapshot() == 5
    del etcd_client["/a"]
    assert dict(mirror.items()) == {}
    assert mirror.snapshot() == {}


def test_a_mirror_of_everything(etcd_client: EtcdMiddleware) -> None:
    mirror = etcd_client.mirror()
    assert mirror.snapshot() == {}
    etcd_client["/a"] = {"x": 1}
    assert dict(mirror.items()) == {"a/x": 1}
    assert mirror.snapshot() == {"a": {"x": 1}}


def test_a_program_reads_its_own_writes(etcd_client: EtcdMiddleware) -> None:
    mirror = etcd_client.mirror("/a")
    deep = etcd_client.mirror("/a/d")
    for number in range(100):
        revision = etcd_client.put("/a/x", number)
        assert mirror["x"] == number
        assert mirror.revision == revision
    etcd_client["/a"] = {"d": {"k": 1, "l": [1, 2, 3]}}
    assert deep.snapshot() == {"k": 1, "l": [1, 2, 3]}
    etcd_client.append("/a/d/l", 4)
    assert deep["l/4"] == 4
    del etcd_client["/a/d/l/1"]
    assert deep.snapshot()["l"] == [2, 3, 4]
    etcd_client.update({"/a/d/k": 2, "/b": 1})
    assert deep["k"] == 2
    etcd_client["/a"] = 5
    assert (mirror.snapshot(), deep.snapshot()) == (5, {})
    etcd_client.transaction(lambda t: t.__setitem__("/a", {"d": {"z": 1}}))
    assert deep["z"] == 1
    assert etcd_client.pop("/a/d/z") == 1
    assert deep.snapshot() == {}
    etcd_client.raw[etcd_client.prefix.encode() + b"/a/d/raw"] = b"7"
    assert deep["raw"] == 7


def test_a_write_does_not_wait_for_a_mirror_that_it_does_not_touch(etcd_client: EtcdMiddleware) -> None:
    deep = etcd_client.mirror("/a/d")
    etcd_client["/a/x"] = 0
    before = deep.revision
    began = time.monotonic()
    for number in range(10):
        etcd_client["/a"] = {"x": number}  # deletes what is in the mirror, where nothing is
        etcd_client["/b"] = number
        etcd_client.setdefault("/a/x", 1)
    assert time.monotonic() - began < 5
    assert deep.revision == before


def test_a_mirror_can_be_waited_for(etcd_client: EtcdMiddleware, other: EtcdMiddleware) -> None:
    mirror = etcd_client.mirror("/a")
    assert mirror.wait(mirror.revision, 0)
    assert not mirror.wait(10**15, 0.01)
    revision = other.put("/a", 1)
    assert mirror.wait(revision, 20)
    assert mirror[""] == 1
    waited = Inbox()
    thread = threading.Thread(target=lambda: waited(mirror.wait(10**15)))
    thread.start()
    mirror.close()
    mirror.close()
    assert waited.wait(1) == [False]
    thread.join()
    assert mirror.state == "lost"
    assert mirror[""] == 1


def test_a_mirror_is_waited_for_until_a_revision_that_changed_nothing_in_it(
    etcd_client: EtcdMiddleware, other: EtcdMiddleware
) -> None:
    mirror = etcd_client.mirror("/a")
    heard = Inbox()
    etcd_client.subscribe("/a", heard)
    for number in range(5):
        written = other.put("/a/x", number)
        other.put("/a/passing", number)
        other.delete("/a/passing")
        elsewhere = other.put("/a-", number)
        assert mirror.wait(elsewhere, 20)
        assert mirror.revision >= elsewhere > written
        assert mirror.snapshot() == {"x": number}
    # What comes by the watch comes all the same.
    assert [change.value for change in heard.wait(15)] == [
        value for number in range(5) for value in (number, number, MISSING)
    ]


def test_a_closed_mirror_stays_as_it_is(etcd_client: EtcdMiddleware) -> None:
    etcd_client["/a/x"] = 1
    one, two = etcd_client.mirror("/a"), etcd_client.mirror("/a")
    revision = one.revision
    one.close()
    etcd_client["/a"] = {"x": 2, "y": 3}
    assert two.snapshot() == {"x": 2, "y": 3}
    assert (one.snapshot(), dict(one), one.revision) == ({"x": 1}, {"x": 1}, revision)
    assert (one.state, len(one), one.wait(10**15, 20)) == ("lost", 1, False)


def test_writes_wait_for_no_mirror_once_all_are_closed(etcd_client: EtcdMiddleware) -> None:
    one, two = etcd_client.mirror("/a"), etcd_client.mirror("/a")
    one.close()
    assert etcd_client._space.caller.settling is not None
    two.close()
    assert etcd_client._space.caller.settling is None


# Many


def test_a_thousand_subscriptions_to_a_thousand_paths(
    etcd_client: EtcdMiddleware, other: EtcdMiddleware
) -> None:
    inbox = Inbox()
    before = threading.active_count()
    subscriptions = [etcd_client.subscribe(f"/s/{number}", inbox) for number in range(1000)]
    assert threading.active_count() - before <= 6
    assert all(subscription.state == "live" for subscription in subscriptions)
    other["/s"] = {str(number): number for number in range(1000)}
    changes = inbox.wait(1000, 60)
    assert sorted(change.value for change in changes) == list(range(1000))
    assert len({change.revision for change in changes}) == 1
    assert threading.active_count() - before <= 8


def test_ten_thousand_subscriptions_to_one_path(etcd_client: EtcdMiddleware, other: EtcdMiddleware) -> None:
    inbox = Inbox()
    before = threading.active_count()
    for _ in range(10_000):
        etcd_client.subscribe("/a", inbox)
    assert len(hub_of(etcd_client)._machine.watches) == 1
    other["/a"] = 1
    assert {change.value for change in inbox.wait(10_000, 60)} == {1}
    assert threading.active_count() - before <= 8


# The seam for items


def test_a_whole_revision_with_its_housekeeping(etcd_client: EtcdMiddleware) -> None:
    inbox = Inbox()
    at = place("/store", etcd_client.prefix.encode())
    etcd_client.raw[at.key + b"/.link/at/OLD"] = b"0"
    subscription = Subscription(hub_of(etcd_client), at, inbox, whole=True, prime=True)
    (first,) = inbox.wait(1)
    assert first.changes == []
    assert first.hidden == [(at.key + b"/.link/at/OLD", b"0")]
    etcd_client["/store/KEY"] = [1, 2]
    etcd_client.raw[at.key + b"/.link/at/KEY"] = b"now"
    one, two = inbox.wait(3)[1:]
    assert isinstance(one, Batch)
    assert [(change.path, change.value) for change in one.changes] == [
        ("/store/KEY/1", 1),
        ("/store/KEY/2", 2),
    ]
    assert two.hidden == [(at.key + b"/.link/at/KEY", b"now")]
    subscription.close()


# Processes


def test_a_thread_that_fails_is_told_of(
    etcd_client: EtcdMiddleware, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    states = Inbox()
    etcd_client.subscribe("/a", print, on_state=states)

    def fails(*given: Any) -> None:
        raise ZeroDivisionError("odd")

    monkeypatch.setattr(asker, "read_range", fails)
    with pytest.raises(LinkKVError, match=r"link-kv-watch-reads has failed.*odd"):
        etcd_client.mirror("/b")
    assert states.wait(1) == ["lost"]
    until(lambda: "link-kv-watch-reads has failed" in caplog.text)
    assert "ZeroDivisionError" in caplog.text
    until(lambda: "link-kv-watch-reads" not in [thread.name for thread in threading.enumerate()])


def test_a_hub_that_has_failed_lets_all_go_when_its_client_is_closed(
    etcd: Any, etcd_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*given: Any) -> None:
        raise ZeroDivisionError("odd")

    monkeypatch.setattr(asker, "read_range", fails)
    with EtcdMiddleware(endpoints=etcd.endpoints, prefix=etcd_prefix) as client:
        hub = hub_of(client)
        with pytest.raises(LinkKVError, match="odd"):
            client.mirror("/b")
    assert hub._space.caller.closed
    until(lambda: hub.dispatcher.workers == 0)


def test_a_thread_that_calls_back_and_could_not_start_is_started_later(
    etcd_client: EtcdMiddleware, other: EtcdMiddleware, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = Inbox(), Inbox()
    subscription = etcd_client.subscribe("/a", one)
    etcd_client.subscribe("/b", two)
    refuse_thread(monkeypatch, "link-kv-callbacks")
    other["/a"] = 1
    until(lambda: hub_of(etcd_client).dispatcher._ready)
    assert one.items == []
    other["/b"] = 2
    other["/b"] = 3
    assert [change.value for change in two.wait(2)] == [2, 3]
    assert [change.value for change in one.wait(1)] == [1]
    assert subscription.state == "live"


def test_a_thread_that_reads_and_could_not_start_is_started_with_the_next_watch(
    etcd: Any, etcd_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = Inbox()
    with EtcdMiddleware(endpoints=etcd.endpoints, prefix=etcd_prefix) as client:
        first = client.put("/a", 0)
        for attempt in (
            lambda: client.subscribe("/a", inbox),
            lambda: client.watch("/a", revision=first),
            lambda: client.mirror("/a"),
        ):
            refuse_thread(monkeypatch, "link-kv-watch")
            with pytest.raises(Unavailable, match="can't start new thread"):
                attempt()
        subscription = client.subscribe("/a", inbox)
        client["/a"] = 1
        assert inbox.wait(1)[0].value == 1
        until(lambda: hub_of(client)._asker.thread is None)  # it has nothing to ask
        refuse_thread(monkeypatch, "link-kv-watch-reads")
        with client.mirror("/b") as mirror:
            client["/b"] = 2
            assert mirror[""] == 2
        until(lambda: subscription.state == "live")


def test_a_replay_that_cannot_begin_is_told_of(
    etcd_client: EtcdMiddleware, other: EtcdMiddleware, monkeypatch: pytest.MonkeyPatch
) -> None:
    states, release = Inbox(), threading.Event()
    etcd_client.subscribe("/a", lambda change: release.wait(20), queue=3, on_state=states)
    for number in range(10):
        other["/a"] = number
    until(lambda: hub_of(etcd_client)._reader is None)  # nothing is left to watch
    refuse_thread(monkeypatch, "link-kv-watch")
    release.set()
    assert states.wait(2) == ["stale", "lost"]
    inbox = Inbox()
    etcd_client.subscribe("/a", inbox)
    other["/a"] = 10
    assert inbox.wait(1)[0].value == 10


def test_a_forked_child_does_not_share_the_stream(etcd_client: EtcdMiddleware) -> None:
    inbox = Inbox()
    subscription = etcd_client.subscribe("/a", inbox)
    mirror = etcd_client.mirror("/a")
    changes = etcd_client.watch("/a")
    etcd_client["/a"] = 1
    inbox.wait(1)
    pid = os.fork()
    if not pid:
        status = 1
        try:
            signal.alarm(60)
            assert (subscription.state, mirror.state, changes.state) == ("lost", "lost", "lost")
            with pytest.raises(Closed, match="forked"):
                next(changes)
            assert mirror.snapshot() == 1
            assert dict(mirror.items()) == {"": 1}
            subscription.close()
            mirror.close()
            assert not mirror.wait(10**15, 5)
            own = Inbox()
            with etcd_client.subscribe("/a", own), etcd_client.mirror("/a") as here:
                etcd_client["/a"] = 2
                assert here[""] == 2
                assert own.wait(1, 10)[0].value == 2
            etcd_client.close()
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert [change.value for change in inbox.wait(2)] == [1, 2]
    etcd_client["/a"] = 3
    assert [change.value for change in inbox.wait(3)] == [1, 2, 3]
    until(lambda: subscription.state == mirror.state == changes.state == "live")
    assert next(changes).value == 1


@pytest.mark.parametrize("closing", ["", "client.close()"])
def test_the_interpreter_ends_quietly_with_everything_open(etcd: Any, etcd_prefix: str, closing: str) -> None:
    script = f"""
        import threading, time
        from link_kv import EtcdMiddleware
        client = EtcdMiddleware(endpoints={etcd.endpoints!r}, prefix={etcd_prefix!r})
        came = threading.Event()
        subscriptions = [client.subscribe('/a', lambda change: came.set()) for _ in range(10)]
        blocked = client.subscribe('/a', lambda change: time.sleep(1000))
        mirror, changes = client.mirror('/a'), client.watch('/b')
        threading.Thread(target=list, args=(changes,), daemon=True).start()
        client['/a'] = 1
        assert came.wait(20)
        {closing}
        print('done')
    """
    began = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "done\n", "")
    assert time.monotonic() - began < 30


def test_nothing_answers() -> None:
    with EtcdMiddleware(endpoints=["127.0.0.1:1"], timeout=0.5) as client:
        began = time.monotonic()
        for attempt in (lambda: client.subscribe("/a", print), client.mirror, client.watch):
            with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1"):
                attempt()
        assert time.monotonic() - began < 10
        until(lambda: not watch_threads())
