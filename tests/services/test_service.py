"""A service by itself: its name, its options, and how it answers."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from link_kv import AccessDenied, Closed, ConfigError, EncodeError, PathError, RemoteError, Service
from link_kv._core.links.workers import Workers
from link_kv.links import Client
from link_kv.services import Request

from ..processes import until
from .echo import Echo


@pytest.mark.parametrize("name", ["a/b", "ü ñ", "100%", "links", ".link", "..", "a" * 1000, "new\nline"])
def test_any_text_is_a_name(serve: Any, client: Client, name: str) -> None:
    service = serve(Echo(name))
    assert service.name == name
    assert list(client.identities()["services"]) == [name]
    link = client.link(name)
    assert link.echo(1) == [[1], {}]
    assert link.acquire_lock() == ["Client"]


@pytest.mark.parametrize("name", ["", 3, b"x"])
def test_what_is_no_name(name: Any, client: Client) -> None:
    with pytest.raises(ConfigError, match="name="):
        Echo(name)
    with pytest.raises(PathError):
        client.link(name)


@pytest.mark.parametrize(
    "options", [{"max_clients": "2"}, {"max_clients": True}, {"ignore_attributes": "echo"}]
)
def test_options_that_do_not_fit(options: Any) -> None:
    with pytest.raises(ConfigError):
        Echo(**options)


@pytest.mark.parametrize(
    "keywords", [{"read_limit": 0}, {"read_limit": "1"}, {"ttl": 0}, {"listen": ""}, {"cert_key": "x"}]
)
def test_keywords_of_start_that_do_not_fit(keywords: Any) -> None:
    with pytest.raises(ConfigError):
        Echo().start(**keywords)


def test_a_keyword_of_start_that_is_not_known() -> None:
    with pytest.raises(TypeError, match="did you mean 'listen'"):
        Echo().start(lsten="127.0.0.1")


def test_before_and_after(serve: Any) -> None:
    echo = Echo()
    assert "not running" in repr(echo)
    with pytest.raises(Closed, match="is not running"):
        _ = echo.address
    echo.emit_notification("to nobody")
    echo.stop()
    serve(echo)
    assert echo.address in repr(echo)
    with pytest.raises(EncodeError, match="the notification"):
        echo.emit_notification(object())


def test_a_property_that_raises_hides_nothing_else(serve: Any, client: Client) -> None:
    class Broken(Service):
        @property
        def bad(self) -> int:
            raise ValueError("not yet")

        def good(self) -> int:
            return 1

    serve(Broken())
    link = client.link("Broken")
    assert link.service_attributes == {"bad": "...", "good": "() -> 'int'"}
    assert link.good() == 1
    with pytest.raises(RemoteError, match="ValueError: not yet"):
        link.bad()


def test_attributes_that_are_no_attributes(serve: Any, client: Client) -> None:
    """One entrance for all requests, for services whose names are data."""

    class Table(Service):
        def __init__(self, values: dict[str, Any]) -> None:
            super().__init__()
            self._values = values

        def answer_request(self, request: Request) -> Any:
            if request.attribute not in self._values:
                raise AccessDenied(f"{request.attribute} is not in the table of {request.caller.name}")
            return self._values[request.attribute], request.args, request.kwargs

        def has_attribute(self, name: str) -> bool:
            return name in self._values

        def describe_attributes(self) -> dict[str, str]:
            return {name: repr(value) for name, value in self._values.items()}

    serve(Table({"pi": 3.14}))
    link = client.link("Table")
    assert link.service_attributes == {"pi": "3.14"}
    assert link.pi(1, a=2) == [3.14, [1], {"a": 2}]
    assert not hasattr(link, "answer_request")


def test_an_error_that_a_method_raises_is_remote_whatever_its_kind(serve: Any, client: Client) -> None:
    class Denying(Service):
        def deny(self) -> None:
            raise AccessDenied("of my own")

        def leave(self) -> None:
            raise SystemExit(3)

    serve(Denying())
    link = client.link("Denying")
    with pytest.raises(RemoteError, match="AccessDenied: of my own"):
        link.deny()
    with pytest.raises(RemoteError, match="SystemExit: 3"):
        link.leave()
    with pytest.raises(RemoteError, match="SystemExit"):
        link.leave(asynchronous=True).result(20)


def test_an_error_that_cannot_tell_of_itself_is_an_error(serve: Any, client: Client) -> None:
    class Mute(ValueError):
        def __str__(self) -> str:
            raise SystemExit("no words")

    class Silent(Service):
        def fail(self) -> None:
            raise Mute

        def good(self) -> int:
            return 1

    serve(Silent())
    link = client.link("Silent")
    for _ in range(5):  # more than there are threads at first
        with pytest.raises(RemoteError, match=r"Mute: .*\n\n(.*\n)*.*in fail"):
            link.fail(timeout=20)
    assert link.good(timeout=20) == 1


def test_a_job_that_raises_ends_no_worker(caplog: pytest.LogCaptureFixture) -> None:
    workers = Workers("test", 2)
    done = threading.Event()

    def fail() -> None:
        raise SystemExit("of a job")

    for _ in range(5):
        workers.add(fail)
    workers.add(done.set)
    assert done.wait(20)
    until(lambda: len(workers._idle) == workers._threads)
    assert caplog.text.count("SystemExit: of a job") == 5


def test_a_thread_that_cannot_be_started_keeps_no_job_from_being_done(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    start, allowed = threading.Thread.start, [True]

    def limited(thread: threading.Thread) -> None:
        if thread.name == "limited" and not allowed[0]:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    workers, go, began = Workers("limited", 100), threading.Event(), threading.Semaphore(0)

    def block() -> None:
        began.release()
        assert go.wait(30)

    allowed[0] = False
    with pytest.raises(RuntimeError, match="limited: no thread can be started"):
        workers.add(block)
    allowed[0] = True
    workers.add(block)
    assert began.acquire(timeout=30)
    allowed[0] = False
    done = threading.Semaphore(0)
    for _ in range(20):
        workers.add(done.release)
    go.set()
    for _ in range(20):
        assert done.acquire(timeout=30)
    allowed[0] = True
    workers.add(done.release)
    assert done.acquire(timeout=30)
    assert caplog.text.count("goes on with the threads that it has") == 1
