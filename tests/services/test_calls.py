"""Calling a service: what arrives, what comes back, and what is refused."""

from __future__ import annotations

import math
import threading
import types
from typing import Any

import numpy as np
import pytest

from link_kv import (
    AccessDenied,
    DeadlineExceeded,
    EncodeError,
    NotFound,
    OutcomeUnknown,
    RemoteError,
    TooLarge,
)
from link_kv._core.links import registry, wire_link
from link_kv._core.links.bounds import BOUNDS
from link_kv._core.wire.calls import run
from link_kv._core.wire.exchange import Exchange
from link_kv.links import Client, Link, connect

from ..processes import until
from .echo import Echo


def test_a_method_is_called(echo: Echo, client: Client) -> None:
    link = client.link("Echo")
    assert link.echo(1, "a", None, x=[True, 2.5]) == [[1, "a", None], {"x": [True, 2.5]}]


def test_properties_and_constants_are_called_too(echo: Echo, client: Client) -> None:
    link = client.link("Echo")
    assert link.PI() == Echo.PI
    assert link.pid() == echo.pid
    with pytest.raises(RemoteError, match="takes no arguments"):
        link.PI(1)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        -1,
        2**64 + 1,
        -(2**70),
        1.5,
        math.inf,
        "ü\x00",
        "",
        b"",
        b"\xff\x00",
        [],
        {},
        {"a": [1, {"b": None}]},
        [b"a", {"b": b"c"}, 2**80],
        {"k": [math.inf, b"x"]},
    ],
    ids=repr,
)
def test_a_value_comes_back_as_it_was(echo: Echo, client: Client, value: Any) -> None:
    back = client.link("Echo").same(value)
    assert back == value
    assert type(back) is type(value)


def test_nan_comes_back(echo: Echo, client: Client) -> None:
    link = client.link("Echo")
    assert math.isnan(link.same(math.nan))
    back = link.same([None, {"x": math.nan}])
    assert back[0] is None
    assert math.isnan(back[1]["x"])


def test_arrays_come_back(echo: Echo, client: Client) -> None:
    array = np.arange(12, dtype="<i2").reshape(3, 4)
    back = client.link("Echo").same({"a": array, "b": np.float64(2.5)})
    assert back["b"] == 2.5
    assert back["a"].dtype == array.dtype
    np.testing.assert_array_equal(back["a"], array)


def test_objects_with_to_json_are_sent_as_what_it_returns(echo: Echo, client: Client) -> None:
    class Point:
        def to_json(self) -> dict[str, Any]:
            return {"x": 1, "y": [None, b"2"]}

    assert client.link("Echo").same([Point()]) == [{"x": 1, "y": [None, b"2"]}]


@pytest.mark.parametrize("value", [object(), {1: 2}, {"a": {1}}, "\ud800", 1j])
def test_what_cannot_be_sent_is_refused_before_it_is(echo: Echo, client: Client, value: Any) -> None:
    with pytest.raises(EncodeError, match="service Echo: same: "):
        client.link("Echo").same(value)


def test_a_value_that_contains_itself_is_refused(echo: Echo, client: Client) -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(EncodeError):
        client.link("Echo").same(value)


def test_a_result_that_cannot_be_sent_is_an_error(echo: Echo, client: Client) -> None:
    with pytest.raises(EncodeError, match="the result"):
        client.link("Echo").unsendable()


def test_the_remote_traceback_arrives(echo: Echo, client: Client) -> None:
    with pytest.raises(RemoteError, match="ValueError: too cold") as caught:
        client.link("Echo").boom("too cold")
    assert "in boom\n    raise ValueError(why)" in str(caught.value)
    assert isinstance(caught.value, RuntimeError)


def test_private_names_are_refused(echo: Echo, client: Client) -> None:
    link = client.link("Echo")
    with pytest.raises(PermissionError, match="_secret is private"):
        link._secret()


@pytest.mark.parametrize("name", ["emit_notification", "start", "stop", "answer_request", "shutdown_handler"])
def test_what_service_itself_has_cannot_be_called(echo: Echo, client: Client, name: str) -> None:
    link = client.link("Echo")
    assert not hasattr(link, name)


def test_only_what_is_there_is_there(echo: Echo, client: Client) -> None:
    link = client.link("Echo")
    assert not hasattr(link, "nonsense")
    assert not hasattr(link, "_repr_html_")
    assert hasattr(link, "echo")
    assert {"echo", "PI", "unlink"} <= set(dir(link))
    with pytest.raises(AttributeError, match="service Echo has no attribute 'nonsense'"):
        link.nonsense()


def test_an_unknown_service(client: Client) -> None:
    with pytest.raises(NotFound, match="service Nobody"):
        client.link("Nobody")


def test_requests_run_concurrently(echo: Echo, client: Client) -> None:
    link = client.link("Echo")
    waiting = [link.wait(asynchronous=True) for _ in range(40)]
    assert link.echo(1) == [[1], {}]
    link.release()
    assert [each.result(30) for each in waiting] == ["released"] * 40


def test_a_timeout(echo: Echo, client: Client) -> None:
    link = client.link("Echo")
    with pytest.raises(TimeoutError, match=r"wait: not answered within 0\.1 s") as caught:
        link.wait(timeout=0.1)
    assert isinstance(caught.value, DeadlineExceeded)
    assert isinstance(caught.value, OutcomeUnknown)
    late = link.wait(timeout=0.1, asynchronous=True)
    with pytest.raises(DeadlineExceeded):
        late.result(30)
    link.release()
    assert link.echo() == [[], {}]


def test_asynchronous_calls(echo: Echo, client: Client) -> None:
    link = client.link("Echo")
    futures = [link.same(number, asynchronous=True) for number in range(1000)]
    assert [future.result(30) for future in futures] == list(range(1000))
    with pytest.raises(RemoteError, match="boom"):
        link.boom("boom", asynchronous=True).result(30)


def test_cancelling_is_harmless(echo: Echo, client: Client) -> None:
    link = client.link("Echo")
    future = link.wait(asynchronous=True)
    assert future.cancel()
    link.release()
    assert link.echo(2) == [[2], {}]


def test_a_callback_of_a_future_may_call(echo: Echo, client: Client) -> None:
    link = client.link("Echo")
    results: list[Any] = []
    future = link.wait(asynchronous=True)
    future.add_done_callback(lambda _: results.append(link.same("from within")))
    link.release()
    until(lambda: results == ["from within"])


def test_a_callback_that_is_added_while_the_answer_is_read_may_call(
    echo: Echo, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, go, real = threading.Event(), threading.Event(), wire_link.decode

    def slow(payload: Any) -> Any:
        if threading.current_thread().name == "link-kv-link-Echo" and not go.is_set():
            reading.set()
            assert go.wait(30)
        return real(payload)

    link = client.link("Echo")
    assert link.same(0) == 0
    monkeypatch.setattr(wire_link, "decode", slow)
    future = link.same(1, asynchronous=True)
    assert reading.wait(30)
    got: list[Any] = []
    future.add_done_callback(lambda _: got.append(link.same("from within", timeout=20)))
    go.set()
    until(lambda: got == ["from within"])


def test_callbacks_of_a_future_come_in_their_order(echo: Echo, client: Client) -> None:
    link = client.link("Echo")
    future = link.wait(asynchronous=True)
    got: list[int] = []
    for number in range(10):
        future.add_done_callback(lambda _, number=number: got.append(number))
    link.release()
    until(lambda: len(got) == 10)
    assert got == list(range(10))


def test_a_bound_that_was_kept_leaves_no_thread_and_no_future(echo: Echo, client: Client) -> None:
    link = client.link("Echo")
    late = link.wait(asynchronous=True, timeout=0.2)
    futures = [link.same(number, asynchronous=True, timeout=600) for number in range(50)]
    assert [future.result(30) for future in futures] == list(range(50))
    with pytest.raises(DeadlineExceeded, match="wait: not answered"):
        late.result(30)
    link.release()
    until(lambda: not BOUNDS._heap)
    until(lambda: "link-kv-bounds" not in [thread.name for thread in threading.enumerate()])


def test_the_caller_is_known(echo: Echo, clients: Any) -> None:
    alice, bob = clients("alice").link("Echo"), clients("bob").link("Echo")
    assert alice.caller()[1:] == ["alice", "caller"]
    assert bob.caller()[1:] == ["bob", "caller"]
    assert alice.caller()[0] != bob.caller()[0]
    assert echo.request is None


def test_a_large_result_stops_nobody(echo: Echo, clients: Any) -> None:
    large, small = clients().link("Echo"), clients().link("Echo")
    for _ in range(5):
        coming = large.zeros(100_000_000, asynchronous=True)
        answered = 0
        while not coming.done():
            assert large.same(answered) == answered
            assert small.same(answered) == answered
            answered += 1
        assert coming.result(60) == bytes(100_000_000)
        if answered > 2:
            break  # else all of it may have come while this thread did nothing
    assert answered > 2


def test_a_large_argument(echo: Echo, client: Client) -> None:
    assert client.link("Echo").same([bytes(3_000_000), 1])[0] == bytes(3_000_000)


class Beginning(dict[int, Any]):
    """What a reader gathers. It waits, when the first piece is announced, until it may go on."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.go = threading.Event(), threading.Event()

    def __setitem__(self, number: int, gathering: Any) -> None:
        super().__setitem__(number, gathering)
        self.begun.set()
        assert self.go.wait(30)


def test_a_large_result_that_is_given_up_leaves_nothing(echo: Echo, client: Client) -> None:
    link = client.link("Echo")
    line = link._tether._line
    assert line is not None
    for _ in range(3):
        line._reader._gathering = beginning = Beginning()
        future = link.zeros(200_000_000, asynchronous=True)
        assert beginning.begun.wait(20)
        line.give_up(max(line._waiting), DeadlineExceeded("too long"))
        beginning.go.set()
        with pytest.raises(DeadlineExceeded):
            future.result(20)
        assert link.echo() == [[], {}]
        assert line._reader._gathering == {}


def test_a_large_result_of_a_call_that_was_given_up_before_is_not_kept(echo: Echo, client: Client) -> None:
    link = client.link("Echo")
    line = link._tether._line
    assert line is not None
    with pytest.raises(DeadlineExceeded):
        link.zeros_once_released(1_000_000, timeout=0.01)
    assert link.echo() == [[], {}]  # the service has heard by now that it is given up
    ignored: list[int] = []
    ignore = line._reader._ignore

    def seen(number: int, left: int) -> None:
        ignore(number, left)
        ignored.append(number)

    line._reader._ignore = seen  # type: ignore[method-assign]
    echo.release()
    until(lambda: ignored)
    assert line._reader._gathering == {}
    assert link.echo() == [[], {}]


def test_over_the_read_limit_the_caller_gets_an_error(echo: Echo, clients: Any) -> None:
    link = clients(read_limit=1000).link("Echo")
    for size in (2000, 2_000_000):
        with pytest.raises(TooLarge, match="over the read_limit of 1000 bytes"):
            link.zeros(size)
    assert link.zeros(500) == bytes(500)


def test_over_the_services_read_limit_the_caller_gets_an_error(serve: Any, client: Client) -> None:
    serve(Echo(), read_limit=1000)
    link = client.link("Echo")
    for size in (2000, 2_000_000):
        with pytest.raises(TooLarge, match="over the read_limit of 1000 bytes"):
            link.same(bytes(size))
    assert link.same("fits") == "fits"


def test_a_notification(echo: Echo, clients: Any) -> None:
    linked, other = clients().link("Echo"), clients().link("Echo")
    got: list[Any] = []

    def handler(self: Link, *args: Any, **kwargs: Any) -> None:
        got.append((self.service_name, args, kwargs))

    linked.notification_handler = types.MethodType(handler, linked)
    for number in range(100):
        echo.emit_notification(number, x=[number])
    until(lambda: len(got) == 100)
    assert got == [("Echo", (number,), {"x": [number]}) for number in range(100)]
    other.unlink()
    linked.notify(b"from a call")
    until(lambda: got[-1] == ("Echo", (b"from a call",), {}))


def test_a_large_notification(echo: Echo, client: Client) -> None:
    link = client.link("Echo")
    got: list[int] = []
    link.notification_handler = lambda data: got.append(len(data))
    sizes = [10_000_000, 300_000, 1, 300_000, 1]
    for size in sizes:
        echo.emit_notification(bytes(size))
    until(lambda: len(got) == len(sizes))
    assert got == sizes


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_handler_may_raise_block_and_call(
    echo: Echo, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    link = client.link("Echo")
    got: list[Any] = []
    free = threading.Event()

    def handler(what: str) -> None:
        if what == "raise":
            raise ValueError("in a handler")
        if what == "block":
            assert free.wait(30)
        got.append(link.same(what))

    link.notification_handler = handler
    for what in ("raise", "call", "block", "last"):
        echo.emit_notification(what)
    until(lambda: got == ["call"])
    assert link.same("goes on") == "goes on"
    free.set()
    until(lambda: got == ["call", "block", "last"])
    assert "in a handler" in caplog.text


def test_many_threads_call_at_once(echo: Echo, client: Client) -> None:
    link = client.link("Echo")
    wrong: list[Any] = []

    def work(number: int) -> None:
        for count in range(200):
            value = [number, count]
            if link.same(value) != value:
                wrong.append(value)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong


def test_an_unlinked_link_has_no_attributes(echo: Echo, client: Client) -> None:
    link = client.link("Echo")
    call = link.echo
    link.unlink()
    link.unlink()
    assert link.service_name == "Echo"
    with pytest.raises(AttributeError, match="unlinked"):
        _ = link.echo
    with pytest.raises(AttributeError, match="unlinked"):
        call()


def test_links_that_were_made_by_hand_are_refused(echo: Echo, client: Client) -> None:
    link = client.link("Echo")
    tether = link._tether
    run(registry.remove_link(Exchange(tether._space), "Echo", tether.link))
    until(lambda: not echo._serving._following.state.links)  # type: ignore[union-attr]
    with pytest.raises(AccessDenied, match="not linked"):
        link.echo()


def test_what_is_said_of_etcd(client: Client, etcd: Any) -> None:
    assert client.address_manager == etcd.endpoints[0]
    assert client.port == int(etcd.endpoints[0].rpartition(":")[2])
    assert client.name == "Client"
    assert client.is_connected()
    with connect(name="other") as other:
        assert {each["name"] for each in other.identities()["clients"].values()} == {"Client", "other"}
    assert not other.is_connected()
    other.disconnect()
