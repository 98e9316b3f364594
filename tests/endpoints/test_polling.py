"""Endpoints that are looked at on schedule, and an instrument of one's own."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from link_kv import Closed, ConfigError, EtcdMiddleware, Refused, get
from link_kv.endpoints import Endpoints, KVStore, KVStoreKey

from ..processes import until
from .conftest import Heard, Serve


class Thermostat(KVStoreKey):
    """An instrument: what it is told is what it shows, after the setpoint was clipped."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.temperature = 20.0

    def on_get(self, *args: Any, **kwargs: Any) -> Any:
        return self.temperature

    def on_set(self, value: Any) -> Any:
        self.temperature = min(value, 30.0)

    def validate(self, value: Any) -> Any:
        if value < 0:
            raise ValueError(f"{value} is below freezing")
        return value


def test_an_instrument_may_have_private_names_as_it_likes(serve: Serve) -> None:
    class Port(KVStoreKey):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self._lock = self._item = self._start = self._turn = self._interval = self._store = 5
            self._value = 0

        def _read(self) -> Any:
            return self._value

        def _write(self, value: Any) -> None:
            self._value = value

        def on_get(self, *args: Any, **kwargs: Any) -> Any:
            return self._read()

        def on_set(self, value: Any) -> Any:
            self._write(value)

    kv = serve(Port(name="port", schedule_interval=10))
    kv.set("port", 7)
    kv.cmd("port", "lock")
    assert kv.get("port") == {"value_raw": 7}


def test_an_instrument_is_an_item(serve: Serve, etcd_client: EtcdMiddleware, endpoints: Endpoints) -> None:
    stat = Thermostat(name="stat", get_on_set=True)
    serve(stat)
    item = get("kv.stat", client=etcd_client)
    assert item.value is None  # nobody has looked yet
    assert item.get(refresh=True) == 20.0
    assert item.value == etcd_client["/kv/stat"] == 20.0
    item.set(25.0)
    assert stat.temperature == item.value == 25.0
    assert endpoints.set("stat", 100.0) == {"value_raw": 30.0}
    assert item.wait(30.0, 10)
    with pytest.raises(Refused, match=r"-1\.0 is below freezing"):
        item.set(-1.0)
    assert stat.temperature == 30.0


def test_a_positive_interval_polls_by_itself(
    serve: Serve, etcd_client: EtcdMiddleware, hear: Callable[..., Heard]
) -> None:
    stat = Thermostat(name="stat", schedule_interval=0.02, max_absolute_change=0.5)
    serve(stat)
    item = get("kv.stat", client=etcd_client)
    assert item.wait(20.0, 30)
    heard = hear("kv")
    stat.temperature = 20.3  # too little to tell
    stat.temperature = 21.0
    assert item.wait(21.0, 30)
    heard.until(lambda: any(alert.payload == {"value_raw": 21.0} for alert in heard))
    told = [alert.payload["value_raw"] for alert in heard]
    assert told in ([21.0], [20.0, 21.0])  # the first may have been on its way yet


def test_every_alert_is_told_in_order_and_every_value_written(
    serve: Serve, etcd_client: EtcdMiddleware, hear: Callable[..., Heard]
) -> None:
    class Counts(KVStoreKey):
        def on_get(self, *args: Any, **kwargs: Any) -> Any:
            return next(numbers)

    numbers = itertools.count()
    kv = serve(Counts(name="counts", schedule_interval=0))
    seen: list[int] = []
    with etcd_client.subscribe("/kv/counts", lambda change: seen.append(change.value)):
        heard = hear("kv")
        kv.config("counts", "schedule_interval", 0.01)
        kv.config("counts", "schedule_status", "on")
        heard.until(lambda: len(heard) >= 50)
        kv.config("counts", "schedule_status", "off")
        last = kv.endpoint("counts")._kv_latest
        assert last is not None
        until(lambda: last["value_raw"] in seen)
    # A look that had begun before it was off may still be told and written.
    for told in (list(seen), [alert.payload["value_raw"] for alert in list(heard)]):
        assert told == list(range(len(told)))


def test_a_set_comes_after_what_was_polled_before(serve: Serve, etcd_client: EtcdMiddleware) -> None:
    stat = Thermostat(name="stat", schedule_interval=0.002)
    kv = serve(stat)
    seen: list[float] = []
    with etcd_client.subscribe("/kv/stat", lambda change: seen.append(change.value)):
        for value in range(1, 20):
            kv.set("stat", float(value))
        until(lambda: 19.0 in seen)
    seen = seen[seen.index(1.0) :]
    assert seen == sorted(seen)


def test_the_status_of_a_schedule(serve: Serve) -> None:
    kv = serve(Thermostat(name="stat"), KVStoreKey(1, name="foo", log_interval=100))
    stat, foo = kv.endpoint("stat"), kv.endpoint("foo")
    assert kv.schedule_status == kv.logging_status == [("stat", False), ("foo", True)]
    with pytest.raises(Refused, match="schedule_interval is 0; set it, then start"):
        stat.schedule_status = "start"
    stat.schedule_interval = 100
    for word, on in (("start", True), ("stop", False), ("on", True), ("off", False), ("restart", True)):
        stat.schedule_status = word
        assert stat.schedule_status is stat.logging_status is on
    for flag in (False, True):  # as YAML reads off and on
        stat.logging_status = flag
        assert stat.schedule_status is flag
    with pytest.raises(ValueError, match="is start, on, stop, off or restart, not 'paused'"):
        stat.schedule_status = "paused"
    kv.schedule_status = "stop"
    assert kv.schedule_status == [("stat", False), ("foo", False)]
    kv.logging_status = "start"
    foo.log_interval = 0
    assert kv.schedule_status == [("stat", True), ("foo", False)]
    with pytest.raises(ValueError, match="0 or more"):
        stat.log_interval = -1


def test_once(serve: Serve, hear: Callable[..., Heard]) -> None:
    kv = serve(KVStoreKey(5, name="foo"))
    heard = hear("kv")
    kv.cmd("foo", "single_schedule", 0.01)
    heard.until(lambda: heard)
    assert heard[0].payload == {"value_raw": 5}
    kv.endpoint("foo").store_value("status_message")
    heard.until(lambda: len(heard) == 2)
    assert heard[1].routing_key == "status_message.foo"
    with pytest.raises(Closed, match="belongs to no provider"):
        KVStoreKey(name="loose").store_value("sensor_value")


def test_a_failing_calibration_is_told_with_each_alert(
    serve: Serve, hear: Callable[..., Heard], caplog: pytest.LogCaptureFixture
) -> None:
    serve(KVStoreKey("?", name="foo", calibration="2*{} + 1", schedule_interval=0.01))
    heard = hear("kv")
    heard.until(lambda: len(heard) > 3)
    assert "fails" in heard[0].payload["calibration_error"]
    assert heard[0].payload["value_raw"] == "?"
    assert caplog.text.count("calibration '2*{} + 1' of '?' fails") == 1


def test_heartbeats(serve: Serve, hear: Callable[..., Heard]) -> None:
    serve(name="alive", heartbeat_interval=0.05)
    heard = hear("alive")
    heard.until(lambda: len(heard) > 2)
    assert {alert.routing_key for alert in heard} == {"heartbeat.alive"}


def test_requests_of_one_endpoint_come_one_after_the_other(serve: Serve, endpoints: Endpoints) -> None:
    inside: list[int] = []
    crowded = threading.Event()

    class Alone(KVStoreKey):
        def on_get(self, *args: Any, **kwargs: Any) -> Any:
            inside.append(1)
            if len(inside) > 1:
                crowded.set()
            try:
                return sum(range(2000))
            finally:
                inside.pop()

    kv = serve(Alone(name="alone", schedule_interval=0.001))
    threads = [threading.Thread(target=lambda: [endpoints.get("alone") for _ in range(20)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kv.stop()
    assert not crowded.is_set()


def test_no_delay_ends_the_polling(serve: Serve, endpoints: Endpoints, hear: Callable[..., Heard]) -> None:
    kv = serve(KVStoreKey(5, name="foo"), KVStoreKey(5, name="bar", schedule_interval=0.01))
    for delay in (1e10, 10**400):
        assert kv._kv_request("cmd", "foo", {"values": ["single_schedule", delay]}, False, None)[0] == 304
    with pytest.raises(ConfigError, match="heartbeat_interval: is 31622400 at most"):
        KVStore(name="kv", heartbeat_interval=10**400)
    heard = hear("kv")
    heard.until(lambda: len(heard) > 2)


def test_a_schedule_that_is_started_twice_at_once_is_one(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    kv = serve(KVStoreKey(1, name="foo"))
    foo, scheduler = kv.endpoint("foo"), kv._kv_scheduler
    assert scheduler is not None
    foo.schedule_interval = 100
    inside, go, made = threading.Event(), threading.Event(), []
    every = scheduler.every

    def slowly(*args: Any) -> Any:
        inside.set()
        if not made:
            go.wait(1)  # the other one is on its way, and is to wait
        made.append(every(*args))
        return made[-1]

    monkeypatch.setattr(scheduler, "every", slowly)

    def start(each: Any) -> None:
        each.schedule_status = "start"

    one = threading.Thread(target=start, args=(foo,))
    one.start()
    assert inside.wait(30)
    start(kv)
    go.set()
    one.join()
    assert len(made) == 1
    foo.schedule_status = "stop"
    assert not made[0].on


def test_a_start_while_a_service_ends_does_not_keep_the_next_from_polling(serve: Serve) -> None:
    kv = serve(KVStoreKey(1, name="foo", schedule_interval=10))
    foo, scheduler = kv.endpoint("foo"), kv._kv_scheduler
    assert scheduler is not None
    foo.schedule_status = "stop"
    scheduler.close()
    with pytest.raises(Closed, match="its service is stopping"):
        foo.schedule_status = "start"
    kv.stop()
    kv.start_in_thread()
    assert foo._kv_ticket is not None
    assert foo._kv_ticket.on


def test_a_second_start_leaves_the_first_as_it_is(serve: Serve, endpoints: Endpoints) -> None:
    kv = serve(KVStoreKey(1, name="foo"))
    with pytest.raises(Closed, match="is running already"):
        kv.start_in_thread()
    with pytest.raises(TypeError):
        kv.start_in_thread(nothing=5)
    assert kv._kv_ready.is_set()
    assert endpoints.get("foo") == {"value_raw": 1}


def test_a_provider_may_be_started_again(serve: Serve) -> None:
    kv: KVStore = serve(KVStoreKey(1, name="foo", schedule_interval=10))
    kv.set("foo", 2)
    kv.stop()
    kv.stop()
    assert kv.get("foo") == {"value_raw": 2}  # what it was
    kv.start_in_thread()
    assert kv.get("foo") == {"value_raw": 2}
    assert kv.schedule_status == [("foo", True)]


def test_a_value_that_comes_back_while_another_waits_is_written(
    serve: Serve, etcd_client: EtcdMiddleware, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat = Thermostat(name="stat", max_absolute_change=0.5)
    kv = serve(stat)
    assert kv._kv_run is not None
    behind, go = kv._kv_run._behind, threading.Event()
    write = behind._write
    seen: list[float] = []

    def slowly(batch: Any) -> None:
        assert go.wait(30)
        write(batch)

    monkeypatch.setattr(behind, "_write", slowly)
    go.set()
    with etcd_client.subscribe("/kv/stat", lambda change: seen.append(change.value)):
        stat.scheduled_action()
        until(lambda: seen == [20.0])
        go.clear()
        for value in (25.0, 20.0, 20.2):
            stat.temperature = value
            stat.scheduled_action()
        go.set()
        until(lambda: seen == [20.0, 25.0, 20.0])


def test_asking_for_a_value_that_waits_waits_for_it(
    serve: Serve, endpoints: Endpoints, etcd_client: EtcdMiddleware, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat = Thermostat(name="stat")
    kv = serve(stat)
    assert kv._kv_run is not None
    behind, begun, go = kv._kv_run._behind, threading.Event(), threading.Event()
    write, flush = behind._write, behind.flush

    def slowly(batch: Any) -> None:
        assert go.wait(30)
        write(batch)

    def flushed(seconds: float) -> bool:
        begun.set()
        return flush(30)

    monkeypatch.setattr(behind, "_write", slowly)
    monkeypatch.setattr(behind, "flush", flushed)
    stat.scheduled_action()
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(endpoints.request, "get", "stat")
        assert begun.wait(30)
        go.set()
        reply = asked.result()
    assert reply.payload == {"value_raw": 20.0}
    assert reply.revision == etcd_client.entry("/kv/stat").revision
    assert behind.flush(30)
    assert reply.revision == etcd_client.entry("/kv/stat").revision  # it was written once


def test_a_value_that_was_lost_is_written_with_the_next_look(
    serve: Serve,
    etcd_client: EtcdMiddleware,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    stat = Thermostat(name="stat")
    kv = serve(stat)
    assert kv._kv_run is not None
    behind = kv._kv_run._behind
    refuse = [Refused("not now")]
    write = behind._write

    def once(batch: Any) -> None:
        if "stat" in batch and refuse:
            raise refuse.pop() if len(batch) == 1 else refuse[0]  # with others it is tried again, alone
        write(batch)

    monkeypatch.setattr(behind, "_write", once)
    stat.scheduled_action()
    assert behind.flush(30)
    assert "polled values are lost" in caplog.text
    stat.scheduled_action()
    assert behind.flush(30)
    assert etcd_client["/kv/stat"] == 20.0


def test_the_revision_of_a_set_is_that_of_its_write_though_the_watch_lags(
    serve: Serve, endpoints: Endpoints, etcd_client: EtcdMiddleware, monkeypatch: pytest.MonkeyPatch
) -> None:
    kv = serve(KVStoreKey(1, name="foo"))
    item = kv.endpoint("foo")._kv_item
    assert item is not None
    shown = item._now
    monkeypatch.setattr(type(item), "revision", property(lambda self: shown.revision))
    reply = endpoints.request("set", "foo", {"values": [2]})
    assert reply.revision == etcd_client.entry("/kv/foo").revision > shown.revision


def test_a_list_that_an_instrument_changes_in_place_is_written_each_time(
    serve: Serve, etcd_client: EtcdMiddleware, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Lists(KVStoreKey):
        def on_get(self, *args: Any, **kwargs: Any) -> Any:
            values.append(len(values))
            return values

    values: list[int] = []
    lists = Lists(name="lists")
    kv = serve(lists)
    assert kv._kv_run is not None
    behind, go = kv._kv_run._behind, threading.Event()
    write = behind._write

    def slowly(batch: Any) -> None:
        assert go.wait(30)
        write(batch)

    monkeypatch.setattr(behind, "_write", slowly)
    lists.scheduled_action()
    lists.scheduled_action()
    go.set()
    assert behind.flush(30)
    assert etcd_client["/kv/lists"] == [0, 1]
