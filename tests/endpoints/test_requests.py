"""The entrance of an endpoint: what passes, what is refused and with which code; mostly without a server."""

from __future__ import annotations

from typing import Any

import pytest

from link_kv import AccessDenied, ConfigError, Refused, Unavailable
from link_kv.endpoints import KVStore, KVStoreKey, Properties, ReplyError, return_codes


def ask(endpoint: Any, method: str, key: str | None = None, **request: Any) -> Any:
    return endpoint.handle_request(None, method, Properties("1", key), request)


@pytest.fixture
def foo() -> KVStoreKey:
    return KVStoreKey(5, name="foo", calibration="2*{}")


class Overridden(KVStoreKey):
    """Says yes to everything, as far as that is its to say."""

    public_attributes = ("gain",)
    public_methods = ("zero",)
    gain = 1.0
    secret = "s"

    def on_get(self, *args: Any, **kwargs: Any) -> Any:
        return [list(args), kwargs] if args or kwargs else 7

    def on_set(self, value: Any) -> Any:
        return f"set to {value}"

    def on_cmd(self, *args: Any, **kwargs: Any) -> Any:
        return super().on_cmd(*args, **kwargs) if args[0] == "zero" else [list(args), kwargs]

    def on_send(self, *commands: Any) -> Any:
        return list(commands)

    def validate(self, value: Any) -> Any:
        if value == "bad":
            raise ValueError("bad is not good")
        return value

    def zero(self, offset: float = 0.0) -> float:
        return offset


def test_get(foo: KVStoreKey) -> None:
    reply = ask(foo, "get")
    assert (reply.return_code, reply.payload) == (0, {"value_raw": 5, "value_cal": 10})
    assert ask(Overridden(name="x"), "get", values=[1], a=2).payload == {"value_raw": [[1], {"a": 2}]}


def test_set(foo: KVStoreKey) -> None:
    reply = ask(foo, "set", values=[6])
    assert (reply.payload, reply.return_message) == ({}, "operation completed silently")
    assert foo.on_get() == 6
    reply = ask(Overridden(name="x"), "set", values=[1])
    assert reply.payload == {"values": ["set to 1"]}


@pytest.mark.parametrize("specifier", ["max_interval", "max-interval"])
def test_specifiers_are_attributes_and_methods(foo: KVStoreKey, specifier: str) -> None:
    assert ask(foo, "set", specifier=specifier, values=[8]).return_code == 0
    assert ask(foo, "get", specifier=specifier).payload == {"values": [8]}
    assert ask(foo, "config", specifier=specifier, values=[9]).return_code == 0
    assert ask(foo, "config", values=[specifier]).payload == {"values": [9]}
    assert ask(foo, "cmd", specifier="is-locked").payload == {"values": [False]}


@pytest.mark.parametrize(
    ("method", "request_", "code"),
    [
        ("get", {"specifier": "lockout_key"}, 307),
        ("get", {"specifier": "lockout-key"}, 307),
        ("get", {"specifier": "provider"}, 307),
        ("get", {"specifier": "__class__"}, 307),
        ("get", {"specifier": "secret"}, 307),
        ("get", {"specifier": "_item"}, 307),
        ("set", {"specifier": "name", "values": ["x"]}, 307),
        ("set", {"specifier": "calibration", "values": ["1"]}, 307),
        ("config", {"values": ["lockout_key"]}, 307),
        ("config", {"values": ["provider", 5]}, 307),
        ("cmd", {"values": ["on_set", 5]}, 307),
        ("cmd", {"values": ["_store", 5]}, 307),
        ("cmd", {"values": ["store_value", "x"]}, 307),
        ("cmd", {"specifier": "handle_request"}, 307),
        ("send", {"values": ["*IDN?"]}, 306),
        ("run", {}, 306),
        ("fly", {}, 306),
        ("set", {"values": []}, 303),
        ("set", {"values": [1, 2]}, 303),
        ("set", {"values": [1], "really": True}, 303),
        ("set", {"values": 1}, 303),
        ("cmd", {}, 303),
        ("cmd", {"values": [5]}, 303),
        ("cmd", {"values": ["single_schedule"]}, 303),
        ("config", {"values": []}, 303),
        ("get", {"specifier": 5}, 303),
        ("set", {"specifier": "max_interval", "values": [-1]}, 304),
        ("set", {"specifier": "schedule_interval", "values": [-1]}, 304),
        ("set", {"specifier": "schedule_interval", "values": [1e-9]}, 304),
        ("set", {"specifier": "schedule_interval", "values": [1e9]}, 304),
        ("set", {"specifier": "schedule_interval", "values": [10**400]}, 304),
        ("set", {"specifier": "max_interval", "values": [10**400]}, 304),
        ("set", {"specifier": "schedule_status", "values": ["sideways"]}, 304),
        ("set", {"specifier": "schedule_status", "values": ["start"]}, 304),
        ("set", {"specifier": "check_field", "values": ["value"]}, 304),
        ("set", {"specifier": "log_on_set", "values": ["yes"]}, 304),
    ],
)
def test_what_is_refused_has_a_code(
    foo: KVStoreKey, method: str, request_: dict[str, Any], code: int
) -> None:
    reply = ask(foo, method, **request_)
    assert reply.return_code == code, reply
    assert reply.return_message
    assert reply.payload == {}


def test_an_endpoint_of_your_own_says_what_may_be_reached() -> None:
    own = Overridden(name="own")
    assert ask(own, "set", specifier="gain", values=[2.5]).return_code == 0
    assert own.gain == 2.5
    assert ask(own, "cmd", values=["zero", 3]).payload == {"values": [3]}
    assert ask(own, "cmd", specifier="zero", offset=4).payload == {"values": [4]}
    assert ask(own, "cmd", values=["anything", 1], b=2).payload == {"values": [[["anything", 1], {"b": 2}]]}
    assert ask(own, "send", values=["a", "b"]).payload == {"values": [["a", "b"]]}
    reply = ask(own, "set", values=["bad"])
    assert (reply.return_code, reply.return_message) == (304, "bad is not good")


@pytest.mark.parametrize("method", ["set", "cmd", "config", "send"])
def test_the_lockout_is_checked_before_what_is_overridden(method: str) -> None:
    own = Overridden(name="own")
    key = own.lock()["key"]
    for wrong in (None, "wrong", ""):
        assert ask(own, method, wrong, values=["gain", 1][: 1 if method == "set" else 2]).return_code == 307
    assert own.gain == 1.0
    assert ask(own, method, key, values=["gain", 1][: 1 if method == "set" else 2]).return_code == 0
    assert ask(own, "get").return_code == 0
    assert ask(own, "cmd", values=["ping", "whatever"]).payload == {}
    assert ask(own, "cmd", values=["unlock"], force=False).return_code == 307
    assert ask(own, "cmd", values=["unlock"], force=True).return_code == 0
    assert not own.is_locked


def test_no_form_of_a_request_goes_round_the_lockout() -> None:
    own = Overridden(name="own")
    own.lock()
    for method, request in (
        ("config", {"specifier": "gain", "values": [5]}),
        ("config", {"specifier": "max-interval", "values": [5]}),
        ("config", {"values": ["gain", 5]}),
        ("set", {"specifier": "gain", "values": [5]}),
        ("cmd", {"specifier": "zero", "values": ["ping"]}),
        ("cmd", {"values": ["zero", "ping"]}),
        ("cmd", {"specifier": "set-condition", "values": [1]}),
        ("cmd", {"specifier": "unlock", "force": 1}),
        ("cmd", {"values": ["unlock", True]}),
        ("cmd", {"values": ["lock", "another"]}),
    ):
        assert ask(own, method, **request).return_code == 307, (method, request)
    assert own.gain == 1.0
    assert own.max_interval == 0
    assert own.is_locked


class Alarmed(KVStoreKey):
    def set_condition(self, *args: Any, **kwargs: Any) -> Any:
        self.told = args


def test_a_request_to_the_provider_does_not_go_round_the_lockout_of_an_endpoint() -> None:
    kv = KVStore(name="kv")
    foo = Alarmed(name="foo", schedule_interval=1)
    kv.add_endpoint(foo)
    kv.add_endpoint(KVStoreKey(name="bar"))
    key = foo.lock()["key"]
    for method, request in (
        ("set", {"specifier": "schedule_status", "values": ["off"]}),
        ("set", {"specifier": "logging-status", "values": ["off"]}),
        ("set", {"routing_key_specifier": "schedule-status", "values": ["off"]}),
        ("config", {"values": ["schedule-status", "off"]}),
        ("config", {"specifier": "logging_status", "values": ["off"]}),
        ("cmd", {"specifier": "set-condition", "values": [12]}),
        ("cmd", {"values": ["set_condition", 12]}),
    ):
        assert ask(kv, method, **request).return_code == 307, (method, request)
        assert ask(kv, method, key, **request).return_code == 0, (method, request)
    assert foo.told == (12,)
    # What does not reach it needs no key.
    assert ask(kv, "cmd", values=["list_endpoints"]).return_code == 0
    assert ask(kv, "config", values=["schedule_status"]).return_code == 0
    foo.unlock()
    kv.endpoint("bar").lock()
    assert ask(kv, "set", specifier="schedule_status", values=["off"]).return_code == 0
    assert ask(kv, "cmd", values=["set_condition", 12]).return_code == 0


def test_locking(foo: KVStoreKey) -> None:
    assert foo.lockout_key is None
    key = ask(foo, "cmd", values=["lock"]).payload["key"]
    assert foo.lockout_key == key
    assert len(key) == 36
    assert ask(foo, "cmd", values=["lock"]).return_code == 307
    with pytest.raises(AccessDenied, match="is locked by this service already"):
        foo.lock()
    with pytest.raises(AccessDenied, match="a lockout key is a text"):
        foo.lock(5)  # type: ignore[arg-type]
    assert foo.lock(key) == {"key": key}
    assert key not in repr(Properties("1", key))
    foo.unlock()
    assert foo.lockout_key is None


def test_a_lock_that_fails_leaves_it_as_it_was(foo: KVStoreKey) -> None:
    def fails(digest: str, holder: str, ttl: float) -> float:
        raise Unavailable("etcd is away")

    lockout = foo._kv_lockout
    lockout.bind(fails, None, None)
    assert ask(foo, "cmd", values=["lock"]).return_code == 101
    assert not foo.is_locked
    lockout.bind(None, None, None)
    key = foo.lock("my own")["key"]
    lockout.bind(fails, None, None)
    assert ask(foo, "cmd", key, values=["lock", key]).return_code == 101
    assert (foo.is_locked, foo.lockout_key, lockout.holder) == (True, "my own", "this service")
    assert ask(foo, "set", values=[6]).return_code == 307


def test_a_calibration_that_fails_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    foo = KVStoreKey(0, name="foo", calibration="1/{}")
    reply = ask(foo, "get")
    assert (reply.return_code, reply.payload) == (304, {"value_raw": 0})
    assert "division by zero" in reply.return_message
    assert "division by zero" in caplog.text
    with pytest.raises(Refused) as raised:
        reply.result()
    assert raised.value.payload == {"value_raw": 0}  # type: ignore[attr-defined]
    assert reply.result(ignore_retcode=True) == {"value_raw": 0}
    ask(foo, "set", values=[2])
    assert ask(foo, "get").payload == {"value_raw": 2, "value_cal": 0.5}


def test_what_a_method_raises_is_the_reply(caplog: pytest.LogCaptureFixture) -> None:
    class Breaks(KVStoreKey):
        def on_get(self, *args: Any, **kwargs: Any) -> Any:
            raise KeyError("no such channel")

    reply = ask(Breaks(name="x"), "get")
    assert (reply.return_code, reply.return_message) == (999, "KeyError: 'no such channel'")
    assert "Traceback" in caplog.text
    with pytest.raises(ReplyError) as raised:
        reply.result()
    assert raised.value.name == "unhandled_exception"
    assert return_codes["unhandled_exception"].exception is type(raised.value)


def test_values_are_never_made_texts_or_rounded() -> None:
    foo = KVStoreKey(name="foo")
    for value in (1.79, 2, True, None, [1, {"a": None}], b"\xff", 2**70):
        ask(foo, "set", values=[value])
        found = ask(foo, "get").payload["value_raw"]
        assert (found, type(found)) == (value, type(value))


def test_calls_share_no_arguments() -> None:
    kv = KVStore(name="kv")
    own = Overridden(name="own")
    kv.add_endpoint(own)
    assert kv.cmd("own", "echo", [1], {"a": 1}) == {"values": [[["echo", 1], {"a": 1}]]}
    assert kv.cmd("own", "echo") == {"values": [[["echo"], {}]]}


def test_extraction() -> None:
    class Answers(KVStoreKey):
        def on_get(self, *args: Any, **kwargs: Any) -> Any:
            return "TEMP=21.5 C\r\n"

    foo = Answers(name="foo", extract_raw_regex=r"TEMP=(?P<value_raw>[\d.]+)", calibration="{} + 273.15")
    assert ask(foo, "get").payload == {"value_raw": "21.5", "value_cal": 294.65}
    bar = Answers(name="bar", extract_raw_regex=r"HUM=(?P<value_raw>\d+)")
    assert ask(bar, "get").return_code == 200


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({}, "name=None: an endpoint has a name"),
        ({"name": "x", "inital_value": 1}, "x: 'inital_value' is no keyword; there are initial_value, "),
        ({"name": "x", "schedule_interval": -1}, "x: schedule_interval=-1: is a number, 0 or more"),
        ({"name": "x", "max_interval": True}, "x: max_interval=True: is a number"),
        ({"name": "x", "log_interval": 1, "schedule_interval": 1}, "give one of the two"),
        ({"name": "x", "calibration": "2*"}, "x: calibration='2\\*': is no expression"),
        ({"name": "x", "calibration": 5}, "calibration=5: is an expression such as"),
        ({"name": "x", "get_on_set": "on"}, "get_on_set='on': is true or false"),
        ({"name": "x", "extract_raw_regex": "("}, "extract_raw_regex"),
        ({"name": "x", "extract_raw_regex": "a"}, "names no group"),
        ({"name": "x", "initial_value": "a", "type": "numeric"}, "initial_value='a': 'a' is not a number"),
        ({"name": "x", "range": [2, 1]}, "x: x?.*range"),
        ({"name": "x", "alert_routing_key": ""}, "is a text such as sensor_value"),
    ],
)
def test_a_keyword_that_does_not_fit(keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        KVStoreKey(**keywords)


def test_a_provider_has_no_value() -> None:
    kv = KVStore(name="kv")
    kv.add_endpoint(KVStoreKey(name="foo"))
    assert ask(kv, "get").return_code == 306
    assert ask(kv, "set", values=[1]).return_code == 306
    assert ask(kv, "send", values=["x"]).return_code == 306
    with pytest.raises(NotImplementedError, match="method not supported: send"):
        kv.send("x")
    assert ask(kv, "get", specifier="logging_status").payload == {"values": [[("foo", False)]]}
    assert ask(kv, "get", specifier="endpoints").return_code == 307
    with pytest.raises(ConfigError, match="'colour' is no keyword"):
        KVStore(name="kv", colour="red")


def test_conditions_reach_each_endpoint() -> None:
    told: list[Any] = []

    class Alarmed(KVStoreKey):
        def set_condition(self, *args: Any, **kwargs: Any) -> Any:
            told.append((self.name, args))

    kv = KVStore(name="kv")
    kv.add_endpoint(Alarmed(name="a"))
    kv.add_endpoint(KVStoreKey(name="b"))
    kv.add_endpoint(Alarmed(name="c"))
    assert ask(kv, "cmd", values=["set_condition", 12]).return_code == 0
    assert told == [("a", (12,)), ("c", (12,))]
