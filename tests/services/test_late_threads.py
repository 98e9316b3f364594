"""What holds however late a thread of the service or of the client comes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from link_kv import EtcdMiddleware, Unavailable
from link_kv._core.links.tether import Tether
from link_kv._core.wire.calls import run
from link_kv._core.wire.exchange import Exchange
from link_kv.links import Client

from ..processes import until
from .echo import Echo

# What a client has written, the service sees before anybody relies on it


class Sync:
    """What a service is asked to wait for. It says that it has not seen that, as often as it is told to."""

    def __init__(self, echo: Echo, late: int) -> None:
        assert echo._serving is not None
        self.asked: list[int] = []
        self.late = late
        self._real: Callable[[int], bool] = echo._serving.host.sync
        echo._serving.host.sync = self

    def __call__(self, revision: int) -> bool:
        self.asked.append(revision)
        self.late -= 1
        return self.late < 0 and self._real(revision)


def test_a_link_waits_until_the_service_has_seen_it(echo: Echo, client: Client) -> None:
    sync = Sync(echo, late=2)
    client.link("Echo")
    assert len(sync.asked) == 3
    assert len(set(sync.asked)) == 1


def test_a_link_that_the_service_does_not_see_is_none(
    echo: Echo, client: Client, etcd_client: EtcdMiddleware
) -> None:
    Sync(echo, late=1000)
    with pytest.raises(Unavailable, match="service Echo: does not hear of its links from etcd in time"):
        client.link("Echo", timeout=0.3)
    assert echo._serving is not None
    until(lambda: not echo._serving._following.state.links)  # type: ignore[union-attr]


def test_a_lock_is_seen_before_it_is_said_to_be_held(echo: Echo, client: Client) -> None:
    link = client.link("Echo")
    sync = Sync(echo, late=1)
    link.acquire_lock()
    assert len(sync.asked) == 2
    sync.late = 1
    link.release_lock()
    assert len(sync.asked) == 4


def test_what_changes_nothing_of_the_service_is_seen_too(
    echo: Echo, client: Client, etcd_client: EtcdMiddleware
) -> None:
    """A revision that is of somebody else's write."""
    link = client.link("Echo")
    sync = Sync(echo, late=0)
    etcd_client["/other"] = 1
    link.release_lock()  # there is none
    assert len(sync.asked) == 1
    assert sync.asked[0] >= etcd_client.entry("/other").revision


def test_a_link_under_a_new_lease_is_seen_before_the_client_counts_as_registered(
    echo: Echo, client: Client, etcd_client: EtcdMiddleware
) -> None:
    link = client.link("Echo")
    assert client._presence is not None
    sync = Sync(echo, late=1)
    lease = client._presence.lease
    run(Exchange(etcd_client._space).revoke(lease))
    until(lambda: client._presence.lease != lease and client._presence.alive)  # type: ignore[union-attr]
    assert len(sync.asked) == 2
    assert link.echo() == [[], {}]


# A connection that ends at an unlucky moment


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_call_is_sent_over_the_next_connection_when_one_has_just_ended(
    echo: Echo, client: Client, monkeypatch: pytest.MonkeyPatch, asynchronous: bool
) -> None:
    link = client.link("Echo")
    dead = link._tether._line
    assert dead is not None
    dead.fail(Unavailable("service Echo: has ended"))
    usable = Tether._usable
    found = iter([dead])  # it ended between the look at it and the sending
    monkeypatch.setattr(Tether, "_usable", lambda tether: next(found, None) or usable(tether))
    answer = link.echo(1, timeout=30, asynchronous=asynchronous)
    assert (answer.result(30) if asynchronous else answer) == [[1], {}]


# The last answers


def before_each_message(link: Any, monkeypatch: pytest.MonkeyPatch, function: Callable[[], object]) -> None:
    """Have a link's client call a function before it reads a message."""
    reader = link._tether._line._reader
    feed = reader.feed

    def held(message: bytes) -> Any:
        function()
        return feed(message)

    monkeypatch.setattr(reader, "feed", held)


def begun(echo: Echo, link: Any, size: int) -> Any:
    """The future of a large answer that is under way, once the service is told to `release` it."""
    assert echo._serving is not None
    host = echo._serving.host
    future = link.zeros_once_released(size, asynchronous=True)
    until(lambda: host._busy == 1)
    return future


def test_the_last_answer_is_read_to_its_end(
    echo: Echo, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a client that needs some seconds for it, while the service ends in order."""
    link = client.link("Echo")
    future = begun(echo, link, 20_000_000)
    before_each_message(link, monkeypatch, lambda: time.sleep(0.04))
    echo.release()
    echo.stop()
    assert len(future.result(30)) == 20_000_000


def test_a_caller_that_does_not_read_is_waited_for_no_longer_than_said(
    echo: Echo, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = client.link("Echo")
    future = begun(echo, link, 100_000_000)
    go = threading.Event()
    before_each_message(link, monkeypatch, go.wait)
    echo.release()
    began = time.monotonic()
    echo.stop()
    assert time.monotonic() - began < 20
    go.set()
    with pytest.raises(Unavailable, match="may or may not"):
        future.result(30)
