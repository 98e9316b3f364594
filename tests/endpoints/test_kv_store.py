"""A served key-value store: one value, whichever way it is reached."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from link_kv import (
    AccessDenied,
    EtcdMiddleware,
    KeyExists,
    Lock,
    LockLost,
    NotFound,
    Refused,
    RemoteError,
    get,
)
from link_kv.endpoints import Alerts, Endpoints, KVStore, KVStoreKey, ReplyError, times2, times3
from link_kv.links import connect

from ..leases import delete, leases
from ..processes import until
from .conftest import Heard, Serve

SEED = """
    providers:
      - name: kv_example
        module: kv_store
        endpoints:
          - name: foo
            module: kv_store_key
          - name: bar
            module: kv_store_key
            initial_value: 1.75
            calibration: times3({})
          - name: baz
            module: kv_store_key
            initial_value: 4.0
"""


def test_one_value_whichever_way(
    serve_file: Callable[..., Any], etcd_client: EtcdMiddleware, endpoints: Endpoints
) -> None:
    [kv] = serve_file(SEED, node="somenode")
    with connect(name="tester") as client:
        link = client.link("kv_example")
        assert link.get("bar") == kv.get("bar") == {"value_raw": 1.75, "value_cal": 5.25}
        assert link.list_endpoints() == ["foo", "bar", "baz"]
        link.set("foo", 5)
        item = get("kv_example.foo", client=etcd_client)
        for value in (etcd_client["/kv_example/foo"], item.value, item.get(refresh=True)):
            assert value == 5
        item.set(6)
        assert link.get("foo") == endpoints.get("foo") == {"value_raw": 6}
        etcd_client["/kv_example/foo"] = 7
        for address in ("foo", "FOO", "kv_example.foo", "somenode.kv_example.foo", "/kv_example/foo"):
            assert endpoints.get(address) == kv.get(address) == {"value_raw": 7}
        kv.set("foo", 8)
        item.wait(8, 10)
        assert item.value == 8


def test_it_is_the_service_that_writes(serve: Serve, etcd_client: EtcdMiddleware) -> None:
    serve(KVStoreKey(1, name="foo", set_value_map={"on": 1, "off": 0}, set_value_lowercase=True))
    item = get("kv.foo", client=etcd_client)
    item.value = "OFF"
    assert item.value == 0
    with pytest.raises(Refused, match="'open' is not in the set_value_map of foo, which has on, off"):
        item.set("open")
    future = item.set("on", wait=False)
    assert future is not None
    future.result(10)
    assert item.value == 1


def test_in_place_operators_lose_nothing(serve: Serve, etcd_client: EtcdMiddleware) -> None:
    import threading

    serve(KVStoreKey(0, name="foo"))
    item = get("kv.foo", client=etcd_client)

    def add() -> None:
        nonlocal item
        for _ in range(10):
            item += 1

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert item.get(refresh=True) == 40


def test_when_the_service_has_ended_items_are_plain_again(serve: Serve, etcd_client: EtcdMiddleware) -> None:
    kv = serve(KVStoreKey(1, name="foo"))
    item = get("kv.foo", client=etcd_client)
    item.set(2)
    kv.stop()
    until(lambda: item.store._served("foo") is None)
    item.set(3)
    assert item.get(refresh=True) == etcd_client["/kv/foo"] == 3
    again = serve(KVStoreKey(1, name="foo"))
    assert again.get("foo") == {"value_raw": 3}  # the initial value overwrites nothing


def test_an_endpoint_without_value_is_unset(serve: Serve, etcd_client: EtcdMiddleware) -> None:
    kv = serve(KVStoreKey(name="foo", calibration="2*{}"))
    item = get("kv.foo", client=etcd_client)
    assert (item.value, item.state) == (None, "unset")
    assert kv.get("foo") == {"value_raw": None}
    kv.set("foo", 2)
    assert kv.get("foo") == {"value_raw": 2, "value_cal": 4}


def test_names_are_one_endpoints(serve: Serve, etcd_client: EtcdMiddleware) -> None:
    serve(KVStoreKey(name="foo"))
    with pytest.raises(KeyExists, match="endpoint FOO: service kv has one of this name, at /kv/foo"):
        serve(KVStoreKey(name="bar"), KVStoreKey(name="FOO"), name="other")
    with pytest.raises(KeyExists, match="service kv: is running"):
        serve(KVStoreKey(name="other"))
    # Nothing of the one that was refused is left.
    serve(KVStoreKey(name="bar"), name="third")
    kv = KVStore(name="x")
    kv.add_endpoint(KVStoreKey(name="foo"))
    with pytest.raises(KeyExists, match="has an endpoint foo already"):
        kv.add_endpoint(KVStoreKey(name="foo"))


def test_what_an_address_names(serve: Serve, endpoints: Endpoints) -> None:
    serve(KVStoreKey(1, name="foo"), KVStoreKey(2, name="a.b"), KVStoreKey(3, name="twin"), node="lab")
    serve(KVStoreKey(4, name="kv.foo"), name="other")
    assert endpoints.get("a.b") == {"value_raw": 2}
    assert endpoints.get("lab.kv.a.b.is-locked") == {"values": [False]}
    assert endpoints.get("foo.max_interval") == {"values": [0]}
    with pytest.raises(NotFound, match=r"no endpoint is called so; there are a.b, foo, kv.foo, twin"):
        endpoints.get("nothing")
    with pytest.raises(Exception, match=r"is the endpoint foo of kv and the endpoint kv.foo of other"):
        endpoints.get("kv.foo")
    assert endpoints.get("/kv/foo") == {"value_raw": 1}
    assert endpoints.cmd("lab.kv", "list_endpoints") == {"values": [["foo", "a.b", "twin"]]}


def test_a_provider_reaches_others_by_name(serve: Serve) -> None:
    one = serve(KVStoreKey(1, name="foo"), name="one")
    serve(KVStoreKey(2, name="bar"), name="two")
    assert one.get("bar") == {"value_raw": 2}
    one.set("two.bar", 5)
    assert one.get("bar", ignore_retcode=True) == {"value_raw": 5}
    assert one.cmd("bar", "ping") == {}
    assert one.config("bar", "max_interval", 9) == {}
    assert one.config("bar", "max_interval") == {"values": [9]}


def test_lists_and_names(serve: Serve) -> None:
    kv = serve(KVStoreKey(name="foo"), KVStoreKey(name="bar"))
    assert kv.list_endpoints() == kv.endpoint_names == list(kv.endpoints) == ["foo", "bar"]
    assert kv.endpoint("Foo") is kv.endpoints["foo"]
    with pytest.raises(NotFound, match=r"kv\.nothing: no such endpoint; there are foo, bar"):
        kv.endpoint("nothing")


def test_get_on_set_and_log_on_set(serve: Serve, hear: Callable[..., Heard], endpoints: Endpoints) -> None:
    serve(
        KVStoreKey(1, name="foo", get_on_set=True, log_on_set=True, calibration="times2({})"),
        KVStoreKey(1, name="bar"),
    )
    heard = hear("kv")
    assert endpoints.set("foo", 2) == {"value_raw": 2, "value_cal": 4}
    assert endpoints.set("bar", 2) == {}
    assert endpoints.request("set", "bar", {"values": [3]}).return_message == "operation completed silently"
    heard.until(lambda: heard)
    [alert] = heard
    assert alert.routing_key == "sensor_value.foo"
    assert alert.payload == {"value_raw": 2, "value_cal": 4}
    assert set(alert.sender_info) == {"exe", "version", "hostname", "username", "service_name"}
    assert time.strptime(alert.timestamp, "%Y-%m-%dT%H:%M:%S.%fZ").tm_year >= 2024


def test_etcd_keeps_the_newest_alert_and_writes_it_on_change(
    serve: Serve, etcd_client: EtcdMiddleware
) -> None:
    import json

    kv = serve(KVStoreKey(1, name="foo", log_on_set=True))
    key = f"{etcd_client.prefix}/.link/alerts/sensor_value.foo".encode()
    for value in (2, 2, 3):
        kv.set("foo", value)
    until(lambda: json.loads(etcd_client.raw.get(key) or b"{}").get("payload") == {"value_raw": 3})
    written = etcd_client.raw[key]
    kv.set("foo", 3)
    assert kv._kv_run is not None
    kv._kv_run.settle()
    assert etcd_client.raw[key] == written


def test_lockout(serve: Serve, endpoints: Endpoints, etcd_client: EtcdMiddleware) -> None:
    kv = serve(KVStoreKey(1, name="foo"), KVStoreKey(1, name="bar"))
    key = endpoints.lock("foo")
    assert kv.endpoint("foo").lockout_key == key
    assert endpoints.get("foo.is_locked") == {"values": [True]}
    for change in (
        lambda: endpoints.set("foo", 2),
        lambda: endpoints.set("foo", 2, lockout_key="wrong"),
        lambda: endpoints.config("foo", "max_interval", 3),
        lambda: endpoints.cmd("foo", "scheduled_action"),
        lambda: endpoints.send("foo", "x"),
        lambda: endpoints.lock("foo"),
        lambda: endpoints.unlock("foo"),
        lambda: kv.set("foo", 2),
        lambda: get("kv.foo", client=etcd_client).set(2),
    ):
        with pytest.raises(AccessDenied, match="foo: is locked by ") as raised:
            change()
        assert isinstance(raised.value, ReplyError)
        assert raised.value.code == 307
    assert endpoints.get("foo") == {"value_raw": 1}
    assert endpoints.cmd("foo", "ping") == {}
    assert endpoints.config("foo", "max_interval") == {"values": [0]}
    endpoints.set("foo", 2, lockout_key=key)
    endpoints.set("bar", 2)
    endpoints.unlock("foo", key)
    endpoints.set("foo", 3)
    assert endpoints.lock("foo", "my own") == "my own"
    endpoints.unlock("foo", force=True)
    endpoints.set("foo", 4)


def test_a_lockout_that_was_opened_leaves_no_lease(serve: Serve, endpoints: Endpoints, etcd: Any) -> None:
    serve(KVStoreKey(1, name="foo"))
    endpoints.get("foo")
    before = leases(etcd.endpoints[0])
    endpoints.unlock("foo", endpoints.lock("foo"))
    assert leases(etcd.endpoints[0]) <= before  # those of others may have expired


def test_a_lockout_of_a_provider_covers_its_endpoints(serve: Serve, endpoints: Endpoints) -> None:
    kv = serve(KVStoreKey(1, name="foo"), KVStoreKey(1, name="bar"))
    foo = endpoints.lock("foo")
    with pytest.raises(AccessDenied, match="foo: is locked"):
        endpoints.lock("kv")
    endpoints.unlock("foo", foo)
    key = endpoints.lock("kv")
    with pytest.raises(AccessDenied, match="kv: is locked"):
        endpoints.set("bar", 2)
    assert kv.endpoint("bar").is_locked
    endpoints.set("bar", 2, lockout_key=key)
    endpoints.unlock("kv", key)
    endpoints.set("bar", 3)


def test_a_lockout_ends_with_its_lease(serve: Serve, endpoints: Endpoints) -> None:
    kv = serve(KVStoreKey(1, name="foo", lockout_ttl=4))
    endpoints.lock("foo")
    assert kv.endpoint("foo").is_locked
    until(lambda: not kv.endpoint("foo").is_locked, 30)
    endpoints.set("foo", 2)


def test_a_lockout_survives_a_restart_and_its_key_is_in_no_key(
    serve: Serve, endpoints: Endpoints, etcd_client: EtcdMiddleware
) -> None:
    kv = serve(KVStoreKey(1, name="foo"))
    key = endpoints.lock("foo")
    assert not [value for value in etcd_client.raw.values() if key.encode() in value]
    kv.stop()
    kv = serve(KVStoreKey(1, name="foo"))
    assert kv.endpoint("foo").is_locked
    assert kv.endpoint("foo").lockout_key is None  # nobody here knows it
    with Endpoints(etcd_client) as others:
        with pytest.raises(AccessDenied):
            others.set("foo", 2)
        others.set("foo", 2, lockout_key=key)


def test_writes_past_the_service_are_reported(
    serve: Serve, etcd_client: EtcdMiddleware, hear: Callable[..., Heard]
) -> None:
    kv = serve(KVStoreKey(1, name="foo", type="numeric", range=[0, 10]))
    heard = hear("kv")
    etcd_client["/kv/foo"] = 5  # as good as any
    etcd_client["/kv/foo"] = 50
    heard.until(lambda: len(heard) == 1)
    kv.endpoint("foo").lock()
    etcd_client["/kv/foo"] = 6
    heard.until(lambda: len(heard) == 2)
    first, second = heard
    assert (first.routing_key, first.payload["value_raw"]) == ("warning.foo", 50)
    assert "50 is outside of its range, 0 to 10" in first.payload["reason"]
    assert "it is locked" in second.payload["reason"]
    # What the service itself writes is no such thing.
    kv.endpoint("foo").unlock()
    kv.set("foo", 7)
    etcd_client["/kv/foo"] = -1
    heard.until(lambda: len(heard) == 3)


def test_links_call_what_is_listed(serve: Serve) -> None:
    serve(KVStoreKey(1, name="foo"))
    with connect() as client:
        link = client.link("kv")
        for name in ("lockout_key", "endpoint", "stop", "_run", "add_endpoint", "lock"):
            with pytest.raises((AttributeError, AccessDenied)):
                getattr(link, name)()
        assert sorted(link.service_attributes) == [
            *("cmd", "config", "get", "handle_request", "list_endpoints", "set")
        ]
        with pytest.raises(RemoteError, match="cmd takes a method's name"):
            link.cmd("foo", 5)
        assert link.get("foo", ignore_retcode=True) == {"value_raw": 1}


def test_times() -> None:
    assert (times2(3), times3(3)) == (6, 9)


def test_setup_calls_and_nodes(serve_file: Callable[..., Any]) -> None:
    kv, other = serve_file(
        """
        nodename: from_file
        providers:
          - name: one
            module: KVStore
            get_on_set: yes
            heartbeat_interval: 0
            endpoints:
              - {name: peaches, module: KVStoreKey, initial_value: 1, schedule_interval: 100}
              - {name: plums, module: KVStoreKey, get_on_set: no}
          - name: two
            module: kv_store
        setup_calls:
          - target: peaches
            method: on_set
            args: 3.1
          - target: one
            method: on_set
            args: off
            kwargs: {routing_key_specifier: logging_status}
          - {target: plums, method: max_interval, args: 5}
        """
    )
    assert kv.get("from_file.one.peaches") == {"value_raw": 3.1}
    assert kv.logging_status == [("peaches", False), ("plums", False)]
    assert kv.endpoint("plums").max_interval == 5
    assert kv.set("peaches", 2) == {"value_raw": 2}
    assert kv.set("plums", 2) == {}
    assert other.endpoint_names == []


def test_more_endpoints_than_one_transaction_has_compares(serve: Serve, endpoints: Endpoints) -> None:
    serve(*(KVStoreKey(number, name=f"e{number}") for number in range(200)), name="many")
    assert endpoints.get("e199") == {"value_raw": 199}
    with pytest.raises(KeyExists, match=r"endpoint e7: service many has one of this name"):
        serve(KVStoreKey(1, name="e7"), name="other")


def test_who_listens_hears_also_what_was_linked_before(serve: Serve, endpoints: Endpoints) -> None:
    kv = serve(KVStoreKey(1, name="foo", log_on_set=True))
    assert endpoints.get("foo") == {"value_raw": 1}
    heard: list[tuple[Any, ...]] = []
    endpoints.listen(lambda *told: heard.append(told), ["kv"])
    kv.set("foo", 2)
    until(lambda: [told[:2] for told in heard] == [("kv", "sensor_value.foo")])


@pytest.mark.parametrize("known", [True, False], ids=["and it is known here", "and only etcd knows"])
def test_under_a_lock_that_is_lost_nothing_is_set(
    serve: Serve, etcd_client: EtcdMiddleware, etcd: Any, known: bool
) -> None:
    serve(KVStoreKey(1, name="a"), name="dome")
    lock = Lock(etcd_client, "dome", ttl=60)
    lock.acquire()
    item = get("dome.a", client=lock.client)
    item.set(2)
    item += 1
    assert item.value == 3
    if known:
        lock.release()
    else:
        delete(etcd.endpoints[0], lock._acquired()._key)
    with pytest.raises(LockLost, match=r"/dome/a: lock dome: .*nothing was set"):
        item.set(4)
    with pytest.raises(LockLost, match=r"/dome/a: lock dome: .*nothing was set"):
        item += 1
    assert etcd_client["/dome/a"] == 3
    get("dome.a", client=etcd_client).set(5)


def test_locks_share_the_links_of_their_client(serve: Serve, etcd_client: EtcdMiddleware) -> None:
    serve(KVStoreKey(1, name="a"), name="dome")
    for number in range(3):
        with Lock(etcd_client, "dome") as lock:
            get("dome.a", client=lock.client).set(number)
    with connect(name="other") as client:
        names = [each["name"] for each in client.identities()["clients"].values()]
    assert sorted(names) == ["Item", "other"]


@pytest.mark.parametrize("held", [7, [7], [["/a", 1, "x"]], [[b"/a", 1]], [[b"/a", 1, "x"]]])
def test_what_is_no_lock_is_not_held(serve: Serve, endpoints: Endpoints, held: Any) -> None:
    serve(KVStoreKey(1, name="a"), name="dome")
    reply = endpoints.request("set", "a", {"values": [2], "if_held": held})
    assert reply.return_code != 0
    assert endpoints.get("a") == {"value_raw": 1}


def test_the_end_of_alerts_is_told_each_time(etcd_client: EtcdMiddleware) -> None:
    alerts = Alerts(etcd_client)
    alerts.close()
    for _ in range(3):
        assert alerts.next(timeout=20) is None
    assert list(alerts) == []
