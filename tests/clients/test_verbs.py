"""The seven verbs, the statuses that they answer with, and what is refused before it is sent."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest

from link_kv import (
    AccessDenied,
    Closed,
    ConfigError,
    Conflict,
    EtcdMiddleware,
    KeyExists,
    LinkKVError,
    Lock,
    NotFound,
    Unavailable,
)
from link_kv._core.wire.config import Config
from link_kv.clients import BaseClient, Client, ClientError, Response

from ..logins import ANN, ROOT, client_of, server_with_logins


def failed(call: Callable[[], Any]) -> ClientError:
    with pytest.raises(ClientError) as caught:
        call()
    return caught.value


def test_the_name_in_this_module_is_the_base_class() -> None:
    import link_kv

    assert Client is BaseClient
    assert getattr(link_kv, "Client", None) is not BaseClient


# Statuses


def test_each_verb_answers_with_its_status(client: BaseClient, middleware: EtcdMiddleware) -> None:
    assert client.put("a/b", 1).status == 201
    assert client.put("a/b", 2).status == 200
    assert client.get("a/b").status == 200
    assert client.head("a").status == 200
    assert client.post("list", "x").status == 201
    assert client.copy("a", "c").status == 201
    assert client.move("c", "d").status == 201
    assert middleware["/lab"] == {"a": {"b": 2}, "list": ["x"], "d": {"b": 2}}
    assert client.delete("a").status == 204
    assert middleware["/lab"] == {"list": ["x"], "d": {"b": 2}}


@pytest.mark.parametrize(
    "call",
    [
        lambda client, **more: client.get("none", **more),
        lambda client, **more: client.head("none", **more),
        lambda client, **more: client.delete("none", **more),
        lambda client, **more: client.copy("none", "a", **more),
        lambda client, **more: client.move("none", "a", **more),
    ],
)
def test_what_is_not_there(client: BaseClient, call: Callable[..., Response]) -> None:
    error = failed(lambda: call(client))
    assert error.status == 404
    assert str(error) == "404 Not Found: /lab/none: nothing is there"
    assert error.details == ["NotFound: /lab/none: nothing is there"]
    assert isinstance(error.__cause__, NotFound)
    assert isinstance(error, LinkKVError)
    for success in (404, (200, 404), {404}):
        answer = call(client, success=success)
        assert (answer.status, answer.content) == (404, None)
        assert isinstance(answer.error, NotFound)
        assert answer.text == "/lab/none: nothing is there"
        assert failed(lambda answer=answer: answer.json).status == 404


def test_a_status_that_was_not_expected(client: BaseClient) -> None:
    error = failed(lambda: client.put("a", 1, success=200))
    assert (error.status, str(error)) == (201, "201 Created: /lab/a")
    assert client.get("a").content == 1  # it was written all the same
    assert client.put("a", 2, success=[200]).status.phrase == "OK"


@pytest.mark.parametrize(
    ("call", "cause"),
    [
        (lambda client: client.put("a", 2, revision=1), Conflict),
        (lambda client: client.put("a", 2, revision=0), KeyExists),
        (lambda client: client.put("a", 2, headers={"If-None-Match": "*"}), KeyExists),
        (lambda client: client.put("a", 2, headers={"If-Match": '"1"'}), Conflict),
        (lambda client: client.put("a", 2, params={"revision": 1}), Conflict),
        (lambda client: client.put("a/below", 2), LinkKVError),
        (lambda client: client.copy("b", "a", revision=0), KeyExists),
        (lambda client: client.move("b", "a", revision=1), Conflict),
    ],
)
def test_a_guard_that_fails_is_409(
    client: BaseClient, call: Callable[[BaseClient], Response], cause: type[LinkKVError]
) -> None:
    client.put("a", 1)
    client.put("b", 3)
    error = failed(lambda: call(client))
    assert error.status == 409
    assert isinstance(error.__cause__, cause)
    assert (client.get("a").content, client.get("b").content) == (1, 3)


def test_a_guard_that_holds(client: BaseClient) -> None:
    revision = client.put("a", 1, revision=0).headers["revision"]
    assert client.put("a", 2, revision=revision).status == 200
    now = client.head("a").headers["revision"]
    client.put("b", 5)
    assert client.move("b", "a", headers={"If-Match": now}).status == 201
    assert client.get("a").content == 5


def test_a_lock_that_is_lost_is_409(middleware: EtcdMiddleware) -> None:
    lock = Lock(middleware, "clients")
    lock.acquire()
    held = BaseClient("/lab", lock.client)
    assert held.put("a", 1).status == 201
    lock.release()
    assert failed(lambda: held.put("a", 2)).status == 409


def test_denied_is_403_and_a_token_stands_for_a_login() -> None:
    with (
        server_with_logins() as etcd,
        client_of(etcd, ANN, "/app") as ann,
        client_of(etcd, ROOT, "/app") as root,
    ):
        mine = BaseClient("/store", ann)
        mine.put("a", 1)
        mine.put("b", {"c": [1, 2]})
        mine.copy("b", "d/e")
        mine.move("b", "f")
        assert mine.get("").content == {"a": 1, "d": {"e": {"c": [1, 2]}}, "f": {"c": [1, 2]}}
        assert failed(lambda: mine.copy("a", "../other")).status == 400
        other = BaseClient("/other", ann)
        error = failed(lambda: other.put("a", 1))
        assert error.status == 403
        assert isinstance(error.__cause__, AccessDenied)
        from link_kv._core.wire.calls import run

        [(_, token)] = run(root._space.caller.token())
        with client_of(etcd, None, "/app") as nobody:
            assert failed(lambda: BaseClient("/other", nobody).put("a", 1)).status == 403
            assert BaseClient("/other", nobody, token=token).put("a", 1).status == 201
            assert failed(lambda: BaseClient("/other", nobody, token="made-up").put("a", 1)).status == 403


def test_no_answer_is_503() -> None:
    nowhere: EtcdMiddleware = EtcdMiddleware._of(Config(endpoints=("127.0.0.1:1",), timeout=0.3))
    client = BaseClient("/lab", nowhere)
    error = failed(lambda: client.get("a"))
    assert error.status == 503
    assert isinstance(error.__cause__, Unavailable)
    assert client.put("a", 1, success=503).status == 503
    nowhere.close()
    error = failed(lambda: client.get("a"))
    assert (error.status, type(error.__cause__)) == (503, Closed)


def test_a_token_does_not_travel_where_others_can_read_it() -> None:
    away: EtcdMiddleware = EtcdMiddleware._of(Config(endpoints=("192.0.2.1:2379",), timeout=0.3))
    error = failed(lambda: BaseClient("/lab", away, token="t").get("a"))
    assert "unencrypted" in str(error)
    away.close()


# What is answered


def test_a_value_in_all_its_forms(client: BaseClient) -> None:
    for path, value, text in (
        ("dict", {"a": [1, "x"]}, '{"a": [1, "x"]}'),
        ("text", "some text", "some text"),
        ("number", 1.5, "1.5"),
        ("none", None, "null"),
        ("empty", {}, "{}"),
    ):
        client.put(path, json=value)
        answer = client.get(path)
        assert (answer.content, answer.json, answer.text) == (value, value, text)
        assert answer.status_code == 200
    client.put("bytes", b"\xff\x00")
    answer = client.get("bytes")
    assert answer.content == b"\xff\x00"
    assert "is not JSON" in str(failed(lambda: answer.json))


def test_what_is_known_beside_the_value(client: BaseClient, middleware: EtcdMiddleware) -> None:
    for value in (1, {"a": 1, "b": [2]}, {}, [], {"a": {}}):
        client.put("x", 0)
        client.put("x", value)
        entry = middleware.entry("/lab/x")
        known = {
            "revision": entry.revision,
            "created": entry.created,
            "version": entry.version,
            "lease": entry.lease,
        }
        assert client.get("x").headers == known
        head = client.head("x")
        assert (head.headers, head.content, head.text) == (known, None, "")
    assert client.head("").status == client.get("").status == 200
    assert client.put("x", 1).headers["revision"] == middleware.entry("/lab/x").revision
    assert client.delete("x").headers["revision"] > 0


def test_post_tells_where_the_item_is(client: BaseClient) -> None:
    assert client.post("queue", "a").headers["location"] == "queue/1"
    where = client.post("queue", "b").headers["location"]
    assert client.get(where).content == "b"
    assert client.copy("queue", "other/queue").headers["location"] == "other/queue"


def test_the_past(client: BaseClient) -> None:
    before = client.put("a", 1).headers["revision"]
    client.put("a", 2)
    assert client.get("a", revision=before).content == 1
    assert failed(lambda: client.get("a", revision=10**9)).status == 410


def test_a_value_that_goes_after_a_time(client: BaseClient) -> None:
    client.put("a", 1, ttl=60)
    assert client.get("a").headers["lease"] != 0


def test_new_or_replaced_is_told_exactly_while_others_write(client: BaseClient) -> None:
    """Between two deletes one put makes it new, whatever their order in time."""
    statuses: list[int] = []

    def write() -> None:
        for _ in range(30):
            statuses.append(client.put("a", 1).status_code)

    threads = [threading.Thread(target=write) for _ in range(3)]
    for thread in threads:
        thread.start()
    deleted = sum(client.delete("a", success=None).status == 204 for _ in range(60))
    for thread in threads:
        thread.join()
    left = client.head("a", success=None).status == 200
    assert statuses.count(201) == deleted + left


# Roots


@pytest.mark.parametrize("root", ["/", "/lab", "lab", "/lab/", "/deep/er"])
def test_paths_are_relative_to_the_root(middleware: EtcdMiddleware, root: str) -> None:
    client = BaseClient(root, middleware)
    for path in ("a", "/a", "a/"):
        client.put(path, 1)
    assert middleware[f"{client.root}/a"] == 1 if client.root != "/" else middleware["/a"] == 1
    assert client.get("").content == {"a": 1}


def test_a_client_that_makes_its_own_middleware(
    middleware: EtcdMiddleware, etcd: Any, etcd_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINK_KV_ENDPOINTS", ",".join(etcd.endpoints))
    monkeypatch.setenv("LINK_KV_PREFIX", etcd_prefix)
    with BaseClient("/lab") as own:
        own.put("a", 1)
    assert failed(lambda: own.get("a")).status == 503
    with BaseClient("/lab", middleware):
        pass
    assert middleware["/lab/a"] == 1  # what was given is not closed


@pytest.mark.parametrize(
    ("args", "options", "words"),
    [
        (["/lab", "t0ken"], {}, "a token is given as token="),
        (["/lab"], {"token": ""}, "^token: must be"),
        (["/lab"], {"token": "a\nb"}, "^token: must be"),
        (["/lab"], {"pool_size": 0}, "^pool_size=0"),
        (["/lab"], {"pool_size": True}, "^pool_size=True"),
        (["/lab//x"], {}, "empty segment"),
        (["/.."], {}, "segment"),
    ],
)
def test_what_makes_no_client(args: list[Any], options: dict[str, Any], words: str) -> None:
    with pytest.raises(LinkKVError, match=words):
        BaseClient(*args, **options)


# Refused before it is sent


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda client: client.request("PATCH", "a"), "'PATCH': is none of GET"),
        (lambda client: client.request(5, "a"), "5: is none of"),
        (lambda client: client.get("../x"), "segment '..'"),
        (lambda client: client.get("a//b"), "empty segment"),
        (lambda client: client.get(None), "None: a path is a str"),
        (lambda client: client.put("a"), "PUT needs data="),
        (lambda client: client.get("a", data=1), "GET takes no data"),
        (lambda client: client.copy("a"), "COPY needs destination="),
        (lambda client: client.move("a", "../b"), "segment '..'"),
        (lambda client: client.get("a", ttl=5), "GET knows no ttl"),
        (lambda client: client.put("a", 1, ttll=5), "PUT knows no ttll"),
        (lambda client: client.put("a", 1, headers={"If-Match": "x"}), "must be a revision"),
        (lambda client: client.put("a", 1, headers={"If-None-Match": "5"}), "only \\* is known"),
        (lambda client: client.get("a", timeout=0), "timeout=0: must be"),
        (lambda client: client.put("a", object()), "object"),
        (lambda client: client.put("", 1, ttl=-1), "ttl=-1"),
        (lambda client: client.copy("a", "a/b"), "one is in the other"),
        (lambda client: client.move("a", "a"), "one is in the other"),
    ],
)
def test_a_request_that_makes_no_sense_is_400(
    client: BaseClient, call: Callable[[BaseClient], Response], words: str
) -> None:
    client.put("a", "before")
    with pytest.raises(ClientError, match=words) as caught:
        call(client)
    assert caught.value.status == 400
    assert client.get("").content == {"a": "before"}


def test_success_that_is_no_status(client: BaseClient) -> None:
    with pytest.raises(ClientError, match="success="):
        client.put("a", 1, success="200")
    assert client.get("a", success=None).status == 404


# Lazy responses


class Counting(BaseClient):
    performed = 0

    def _perform(self, request: Any) -> Any:
        self.performed += 1
        return super()._perform(request)


def test_a_lazy_response_is_performed_once(middleware: EtcdMiddleware) -> None:
    client = Counting("/lab", middleware)
    middleware["/lab/a"] = {"k": "v"}
    answer = client.get("a", success=None)
    assert (client.performed, answer.performed, "not performed" in repr(answer)) == (0, False, True)
    middleware["/lab/a"] = {"k": "v2"}  # it was not read yet
    assert answer.content == answer.json == {"k": "v2"}
    assert answer.text == '{"k": "v2"}'
    assert (answer.status, answer.status_code, answer.status.phrase) == (200, 200, "OK")
    assert answer.headers["revision"] > 0
    middleware["/lab/a"] = 5
    assert answer.content == {"k": "v2"}
    assert client.performed == 1


def test_threads_that_look_at_once_perform_it_once(middleware: EtcdMiddleware) -> None:
    client = Counting("/lab", middleware)
    middleware["/lab/a"] = 1
    answer = client.get("a", success=None)
    start = threading.Barrier(8)
    seen: list[Any] = []

    def look() -> None:
        start.wait()
        seen.append(answer.content)

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (seen, client.performed) == ([1] * 8, 1)


def test_a_write_is_never_lazy(middleware: EtcdMiddleware) -> None:
    client = Counting("/lab", middleware)
    client.put("a", 1, success=None)
    client.post("list", 1, success=None)
    client.copy("a", "b", success=None)
    client.move("b", "c", success=None)
    client.delete("a", success=None)
    assert client.performed == 5
    assert middleware["/lab"] == {"list": [1], "c": 1}
    assert client.delete("a", success=None).status == 404


# Headers and parameters


def test_headers_and_parameters_of_a_thread_are_its_own(client: BaseClient) -> None:
    """One client, many threads: what one sets for its next request reaches no other's."""
    wrong: list[object] = []
    start = threading.Barrier(6)

    def use(number: int) -> None:
        start.wait()
        for turn in range(20):
            client.set_header("X-Number", number)
            client.set_param("ttl", 60 + number)
            made = client.put(f"{number}/{turn}", number).request
            if (made.headers, made.params) != ({"X-Number": number}, {"ttl": 60 + number}):
                wrong.append(made)
            if client.get(f"{number}/{turn}", headers={"X-Mine": turn}).request.headers != {"X-Mine": turn}:
                wrong.append(turn)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("value", ["v41u3", None, 42])
@pytest.mark.parametrize("iff", [True, False, None, 1, ""])
def test_a_header_or_parameter_is_set_if(client: BaseClient, value: Any, iff: Any) -> None:
    client.put("a", 1)
    client.set_header("n4m3", value, iff=iff)
    assert client.get("a").request.headers == ({"n4m3": value} if value is not None and iff else {})
    assert client.get("a").request.headers == {}  # the next one only
    client.set_param("timeout", 5, iff=iff)
    assert client.get("a").request.params == ({"timeout": 5} if iff else {})


def test_nothing_that_is_given_is_changed(client: BaseClient) -> None:
    headers, params = {"If-None-Match": "*"}, {"ttl": 60}
    client.put("a", 1, headers=headers, params=params)
    assert (headers, params) == ({"If-None-Match": "*"}, {"ttl": 60})


# How many at once


def test_no_more_requests_are_under_way_than_the_pool_has(middleware: EtcdMiddleware) -> None:
    client = BaseClient("/lab", middleware, pool_size=2)
    pool = client._pool()
    pool.acquire()
    pool.acquire()
    done = threading.Event()
    thread = threading.Thread(target=lambda: (client.put("a", 1), done.set()))
    thread.start()
    assert not done.wait(0.2)
    pool.release()
    assert done.wait(10)
    thread.join()
    pool.release()


# Logging


def of_clients(caplog: pytest.LogCaptureFixture) -> list[tuple[str, int, str]]:
    """What clients have logged: others may log at any time, such as threads of tests before this one."""
    return [each for each in caplog.record_tuples if each[0].startswith("link_kv.clients")]


def logged(client: BaseClient, caplog: pytest.LogCaptureFixture) -> str:
    caplog.clear()
    with caplog.at_level(logging.DEBUG, "link_kv.clients"):
        client.put("a", "s3cret value", headers={"X-Mine": "s3cret header"})
        client.get("a")
        client.get("none", success=404)
    names, messages = zip(*((name, message) for name, _, message in of_clients(caplog)), strict=True)
    assert {name.rpartition(".")[2] for name in names} == {"send", "recv"}
    return "\n".join(messages)


def test_sends_and_receives_are_logged_without_values(
    client: BaseClient, middleware: EtcdMiddleware, caplog: pytest.LogCaptureFixture
) -> None:
    text = logged(client, caplog)
    for words in ("PUT /lab/a", "201 Created to PUT /lab/a", "data size: 12", "X-Mine: ...", "404 Not Found"):
        assert words in text
    assert "s3cret" not in text
    assert "s3cret" not in repr(client.put("a", "s3cret").request)


class Telling(BaseClient):
    LOG_DATA = LOG_PID = True


def test_values_are_logged_when_asked_and_the_token_is_not(
    middleware: EtcdMiddleware, caplog: pytest.LogCaptureFixture
) -> None:
    text = logged(Telling("/lab", middleware), caplog)
    assert "data: 's3cret value'" in text
    assert "X-Mine: 's3cret header'" in text
    assert "MainThread]" in text
    client = Telling("/lab", middleware, token="t0k3n")
    assert "t0k3n" not in repr(client)
    caplog.clear()
    with caplog.at_level(logging.DEBUG, "link_kv.clients"):
        client.put("a", "the t0k3n itself\nand a line", success=None)
        text = "\n".join(caplog.messages)
        assert "t0k3n" not in text
        assert "'the ... itself\\nand a line'" in text
        client.LOG_TOKEN = True
        client.put("a", 1, success=None)
        assert "token: t0k3n" in caplog.text


def test_nothing_is_measured_when_nobody_listens(
    client: BaseClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "link_kv.clients"):
        client.put("a", 1)
    assert of_clients(caplog) == []


def test_a_middleware_of_another_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match="must be an EtcdMiddleware"):
        BaseClient("/lab", object())  # type: ignore[arg-type]
