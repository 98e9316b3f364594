"""Stores and items on a real etcd."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from link_kv import (
    MISSING,
    Closed,
    ConfigError,
    Conflict,
    EncodeError,
    EtcdMiddleware,
    Item,
    LinkKVError,
    Lock,
    LockLost,
    NotFound,
    PathError,
    Reading,
    Refused,
    Session,
    Store,
    TooLarge,
    Unavailable,
    get,
    local,
)
from link_kv import items as items_module
from link_kv._core.items import home as home_module
from link_kv._core.items import writes as itemwrites
from link_kv._core.items.writes import Stamp
from link_kv._core.wire.calls import run
from link_kv._core.wire.exchange import Exchange
from link_kv.items import Description
from link_kv.testing import ExistingEtcd

from .leases import delete
from .processes import until
from .wire.proxy import Proxy

Etcd = local.LocalEtcd | ExistingEtcd


@pytest.fixture
def other(etcd: Etcd, etcd_prefix: str) -> Iterator[EtcdMiddleware]:
    """Another client, as of another program."""
    with EtcdMiddleware(endpoints=etcd.endpoints, prefix=etcd_prefix) as client:
        yield client


@pytest.fixture
def store(etcd_client: EtcdMiddleware) -> Store:
    etcd_client["/Oven"] = {"TEMP": 20, "Door": "shut"}
    found: Store = get("oven", client=etcd_client)
    return found


class Heard:
    """A callback that keeps what it hears."""

    def __init__(self) -> None:
        self.calls: list[tuple[Item, Any, float]] = []
        self._came = threading.Condition()

    def __call__(self, item: Item, value: Any, timestamp: float) -> None:
        with self._came:
            self.calls.append((item, value, timestamp))
            self._came.notify_all()

    @property
    def values(self) -> list[Any]:
        return [value for _, value, _ in self.calls]

    def wait(self, number: int) -> list[Any]:
        with self._came:
            assert self._came.wait_for(lambda: len(self.calls) >= number, 20), self.values
        return self.values


def raw(client: EtcdMiddleware, path: str) -> bytes:
    return client.raw[f"{client.prefix}{path}".encode()]


def keys(client: EtcdMiddleware, start: str) -> list[str]:
    skip = len(client.prefix)
    found = (key.decode()[skip:] for key in client.raw)
    return [key for key in found if key.startswith(start)]


# Finding


def test_it_is_always_the_same_instance(store: Store, etcd_client: EtcdMiddleware) -> None:
    item = store["temp"]
    for found in (
        get("oven.temp", client=etcd_client),
        get("OVEN.Temp", client=etcd_client),
        get("Oven", "TEMP", client=etcd_client),
        store["TEMP"],
        store.get("tEMP"),
        store[item],
        dict(store)["temp"],
    ):
        assert found is item
    assert (item.key, item.full_key, item.path) == ("temp", "oven.temp", "/Oven/TEMP")
    assert (store.name, store.path) == ("oven", "/Oven")
    assert item.store is store
    assert get("oven", client=etcd_client) is store


def test_whoever_asks(store: Store, other: EtcdMiddleware) -> None:
    assert get("oven", client=other) is store
    with EtcdMiddleware(endpoints=other._config.endpoints, prefix=other.prefix + "/deeper") as deeper:
        deeper["/Oven"] = {"TEMP": 1}
        found = get("oven", client=deeper)
        assert found is not store
        assert found["temp"] == 1


def test_however_many_ask_at_once(etcd_client: EtcdMiddleware) -> None:
    etcd_client["/crowd"] = {"a": 1}
    ready = threading.Barrier(8)

    def ask(_: int) -> Item:
        ready.wait(20)
        found: Item = get("crowd.a", client=etcd_client)
        return found

    with ThreadPoolExecutor(8) as pool:
        assert len({id(item) for item in pool.map(ask, range(8))}) == 1


def test_a_closed_clients_instances_are_dropped(etcd: Etcd, etcd_client: EtcdMiddleware) -> None:
    etcd_client["/s"] = {"a": 1}
    with EtcdMiddleware(endpoints=etcd.endpoints, prefix=etcd_client.prefix) as first:
        old = get("s.a", client=first)
    assert old.state == "lost"
    assert old.value == 1
    with pytest.raises(Closed):
        old.set(2)
    with pytest.raises(Closed):
        old.register(print)
    new = get("s.a", client=etcd_client)
    assert new is not old
    assert new.state == "live"


def test_stores_of_closed_clients_are_let_go(etcd: Etcd, etcd_client: EtcdMiddleware) -> None:
    etcd_client["/s"] = {"a": 1}
    client = EtcdMiddleware(endpoints=etcd.endpoints, prefix=etcd_client.prefix)
    item = get("s.a", client=client)
    key = items_module._registry[item.store]
    store = weakref.ref(item.store)
    gc.collect()
    assert get("s.a", client=client) is item
    client.close()
    del client, item
    until(lambda: (gc.collect(), store() is None)[1])
    assert key not in items_module._registry.values()
    assert key not in items_module._turns
    assert get("s.a", client=etcd_client).state == "live"


@pytest.mark.parametrize("first", ["plain", "fenced"])
def test_under_a_lock_they_are_others(etcd_client: EtcdMiddleware, etcd: Etcd, first: str) -> None:
    """Whoever asks first: what is written under a lock is fenced, and what is not is not."""
    etcd_client["/dome"] = {"a": 1}
    lock = Lock(etcd_client, "dome", ttl=60)
    lock.acquire()
    if first == "plain":
        plain = get("dome.a", client=etcd_client)
    fenced, client = get("dome.a", client=lock.client), lock.client
    if first == "fenced":
        plain = get("dome.a", client=etcd_client)
    assert fenced is not plain
    assert get("dome.a", client=client) is fenced
    fenced.set(2)
    until(lambda: plain.value == 2)

    delete(etcd.endpoints[0], lock._acquired()._key)  # only etcd knows that it is lost
    before = dict(etcd_client.raw)
    for write in (fenced.set, get("dome.a", client=client).set):
        with pytest.raises(LockLost, match="nothing was written"):
            write(3)
    assert dict(etcd_client.raw) == before
    plain.set(4)

    with pytest.raises(LockLost, match="its key is gone"):
        lock.release()
    with pytest.raises(LockLost, match="released; nothing was written"):
        fenced.set(5)
    with pytest.raises(LockLost, match="released; nothing was written"):
        get("dome.a", client=client).set(5)
    plain.set(6)
    assert etcd_client["/dome/a"] == plain.value == 6


def test_those_of_locks_that_were_lost_are_not_followed_for_ever(etcd_client: EtcdMiddleware) -> None:
    etcd_client["/dome"] = {"a": 0}
    hub = get("dome", client=etcd_client)._feed.hub
    stores = []
    for number in range(4):
        with Lock(etcd_client, "dome") as lock:
            stores.append(get("dome", client=lock.client))
            stores[-1]["a"].set(number)
            assert stores[-1].state == "live"
    assert [store.state for store in stores] == ["lost", "lost", "lost", "live"]
    assert len(hub._consumers) == 2
    with pytest.raises(LockLost):
        stores[0]["a"].set(9)


def test_names_with_dots_take_two_arguments(etcd_client: EtcdMiddleware) -> None:
    etcd_client["/a.b"] = {"c.d": 1, "c/d": 2, "": 3}
    etcd_client["/a"] = {"b.c": 4}
    assert get("a.b", "c.d", client=etcd_client) == 1
    assert get("a.b", "C/D", client=etcd_client) == 2
    assert get("a.b", "", client=etcd_client) == 3
    assert get("a.b.c", client=etcd_client) == 4


@pytest.mark.parametrize("name", [None, 5, "", ".key", b"store"])
def test_what_is_no_name(etcd_client: EtcdMiddleware, name: Any) -> None:
    with pytest.raises(PathError, match="name"):
        get(name, client=etcd_client)


def test_an_unknown_store_says_what_to_do(etcd_client: EtcdMiddleware) -> None:
    with pytest.raises(
        LinkKVError, match=r"no store 'nothing' on .*client\['/nothing'\] = {}.*discover"
    ) as caught:
        get("nothing.key", client=etcd_client)
    assert not isinstance(caught.value, KeyError)


def test_a_value_is_no_store(etcd_client: EtcdMiddleware) -> None:
    etcd_client["/Value"] = 5
    with pytest.raises(LinkKVError, match=r"/Value on .* holds a value, so it is no store"):
        get("value", client=etcd_client)


def test_an_unknown_key(store: Store) -> None:
    with pytest.raises(NotFound, match=r"oven\.nothing: no such key; .* has door, temp") as caught:
        store["nothing"]
    assert isinstance(caught.value, KeyError)
    assert store.get("nothing") is None
    assert 5 not in store


def test_a_key_that_was_just_made_is_found(store: Store, other: EtcdMiddleware) -> None:
    for number in range(20):
        other[f"/Oven/New{number}"] = number
        assert store[f"new{number}"] == number
    other[f"/Oven/{'x' * 5}"] = {"deep": {"tree": 1}}
    assert store["XXXXX"].value == {"deep": {"tree": 1}}


def test_what_has_housekeeping_alone_is_no_item(etcd: Etcd, etcd_client: EtcdMiddleware) -> None:
    etcd_client["/s"] = {"a": 1, "k": {"x": 0}}
    store = get("s", client=etcd_client)
    with EtcdMiddleware(endpoints=etcd.endpoints, prefix=etcd_client.prefix + "/s") as inner:
        get("k.x", client=inner).set(1)
        del inner["/k/x"]
    assert keys(etcd_client, "/s/k/") == ["/s/k/.link/at/x"]
    until(lambda: len(store) == 1)
    etcd_client["/elsewhere"] = 1  # etcd is further than the watch knows
    assert "k" not in store
    assert store.get("k") is None
    with pytest.raises(NotFound, match=r"s\.k: no such key"):
        get("s.k", client=etcd_client)


def test_a_key_that_goes_while_it_is_looked_for_is_not_found(
    store: Store, other: EtcdMiddleware, monkeypatch: pytest.MonkeyPatch
) -> None:
    spelling = itemwrites.spelling

    async def and_then_it_goes(*given: Any) -> tuple[int, str | None]:
        other["/Oven/brief"] = 1
        found = await spelling(*given)
        gone = other.delete("/Oven/brief")
        until(lambda: store.revision >= gone)
        return found

    monkeypatch.setattr(itemwrites, "spelling", and_then_it_goes)
    assert "brief" not in store


def test_two_spellings_of_a_key_raise_an_error_that_names_both(store: Store, other: EtcdMiddleware) -> None:
    other["/Oven/temp"] = 5
    with pytest.raises(LinkKVError, match=r"oven\.temp: is stored as /Oven/TEMP and as /Oven/temp"):
        until(lambda: store["temp"] is None)
    del other["/Oven/temp"]
    until(lambda: len(store) == 2)
    assert store["temp"] == 20


def test_two_spellings_of_a_store_raise_an_error_that_names_both(etcd_client: EtcdMiddleware) -> None:
    etcd_client["/Lamp"] = {"a": 1}
    etcd_client["/LAMP"] = {"a": 1}
    with pytest.raises(LinkKVError, match="/LAMP and as /Lamp"):
        get("lamp", client=etcd_client)


def test_a_store_that_goes_and_comes_back(store: Store, etcd_client: EtcdMiddleware) -> None:
    item = store["temp"]
    del etcd_client["/Oven"]
    assert item.state == "unset"
    assert len(store) == 0
    with pytest.raises(LinkKVError, match="no store"):
        get("oven", client=etcd_client)
    etcd_client["/Oven"] = {"TEMP": 1}
    assert get("oven", client=etcd_client) is store
    assert get("oven.temp", client=etcd_client) is item
    assert item == 1


def test_a_store_renamed_is_another(store: Store, etcd_client: EtcdMiddleware) -> None:
    del etcd_client["/Oven"]
    etcd_client["/OVEN"] = {"TEMP": 1}
    found = get("oven", client=etcd_client)
    assert found is not store
    assert found.path == "/OVEN"


def test_a_list_is_a_store_too(etcd_client: EtcdMiddleware) -> None:
    etcd_client["/row"] = [f"item {number}" for number in range(1, 12)]
    row = get("row", client=etcd_client)
    assert list(row) == [str(number) for number in range(1, 12)]
    assert row["11"] == "item 11"
    row["2"].set("new")
    assert etcd_client["/row"][1] == "new"


def test_a_store_among_very_many_keys(etcd_client: EtcdMiddleware) -> None:
    etcd_client["/big"] = {f"{number:05}": {"x": 1} for number in range(12_000)}
    etcd_client["/zz"] = {"a": 1}
    assert get("ZZ.A", client=etcd_client) == 1


# Reading


def test_a_plain_write_is_the_same_value(store: Store, etcd_client: EtcdMiddleware) -> None:
    item = store["temp"]
    before = time.time()
    etcd_client["/Oven/TEMP"] = 21
    assert item == 21
    assert item.get() == 21
    assert item.writer is None
    assert before <= item.timestamp <= time.time()
    assert item.revision == etcd_client.entry("/Oven/TEMP").revision
    assert item.reading() == Reading(21, "21", item.timestamp, None, item.revision, "live")
    with pytest.raises(AttributeError):
        item.reading().value = 5  # type: ignore[misc]


def test_time_and_writer_travel_with_the_value(
    store: Store, etcd_client: EtcdMiddleware, other: EtcdMiddleware
) -> None:
    item = store["temp"]
    before = time.time()
    item.set(22)
    assert before <= item.timestamp <= time.time()
    assert item.writer.endswith(f":{os.getpid()}")
    assert "@" in item.writer
    answer = etcd_client.raw
    assert json.loads(answer[f"{etcd_client.prefix}/Oven/.link/at/TEMP".encode()])["writer"] == item.writer
    with etcd_client.watch("/Oven", revision=item.revision) as changes:
        assert next(changes).value == 22
    assert etcd_client["/Oven"] == {"TEMP": 22, "Door": "shut"}
    assert len(etcd_client) == 2
    # They are of that revision only.
    other["/Oven/TEMP"] = 22
    until(lambda: item.revision == other.entry("/Oven/TEMP").revision)
    assert item.writer is None


def test_what_another_program_wrote_has_its_time_and_writer(
    store: Store, etcd: Etcd, etcd_prefix: str
) -> None:
    program = f"""
from link_kv import EtcdMiddleware, get
with EtcdMiddleware(endpoints={etcd.endpoints!r}, prefix={etcd_prefix!r}) as client:
    item = get('oven.temp', client=client)
    item.set(77)
    print(item.timestamp, item.writer)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    timestamp, writer = done.stdout.split()
    item = store["temp"]
    assert item.wait(77, 20)
    assert (item.timestamp, item.writer) == (float(timestamp), writer)


def test_a_refresh_asks_etcd(store: Store, etcd_client: EtcdMiddleware) -> None:
    assert store["temp"].get(refresh=True) == 20
    del etcd_client["/Oven/Door"]
    door = store._state.find("door")
    assert door is None
    assert store["temp"].get(refresh=True, formatted=True) == "20"


def test_a_snapshot_is_of_one_revision(
    store: Store, etcd_client: EtcdMiddleware, other: EtcdMiddleware
) -> None:
    names = [f"n{number}" for number in range(20)]
    etcd_client.update({f"/Oven/{name}": 0 for name in names})
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            other.update({f"/Oven/{name}": number for name in names})

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        try:
            for _ in range(500):
                snapshot = store.snapshot()
                assert len({(snapshot[name].value, snapshot[name].revision) for name in names}) == 1
            assert store["n1"].wait(lambda value: value > 5, 20)
        finally:
            stop.set()
        writing.result(20)
    assert set(snapshot) == {*names, "temp", "door"}
    assert snapshot["door"].value == "shut"


def test_an_item_that_is_a_tree(etcd_client: EtcdMiddleware) -> None:
    etcd_client["/s"] = {"config": {"a": {"b": 1}, "list": [1, 2]}}
    item = get("s.config", client=etcd_client)
    assert item.value == {"a": {"b": 1}, "list": [1, 2]}
    heard = Heard()
    item.register(heard)
    etcd_client["/s/config/a/b"] = 2
    etcd_client.append("/s/config/list", 3)
    etcd_client.update({"/s/config/a/c": 3, "/s/config/x": 4})
    del etcd_client["/s/config/list/1"]
    del etcd_client["/s/config/a"]
    item.set([1.5, 2.5])
    etcd_client["/s/config"] = 5
    del etcd_client["/s/config"]
    assert heard.wait(8) == [
        {"a": {"b": 2}, "list": [1, 2]},
        {"a": {"b": 2}, "list": [1, 2, 3]},
        {"a": {"b": 2, "c": 3}, "list": [1, 2, 3], "x": 4},
        {"a": {"b": 2, "c": 3}, "list": [2, 3], "x": 4},
        {"list": [2, 3], "x": 4},
        [1.5, 2.5],
        5,
        MISSING,
    ]


def test_catalog(store: Store) -> None:
    store.describe("TEMP", type="numeric", units="degC")
    assert store.catalog == {"temp": {"type": "numeric", "units": "degC"}, "door": {}}
    assert isinstance(store.catalog["door"], Description)
    assert store["temp"].description.units == "degC"
    assert store["temp"].description["type"] == "numeric"


# Being told


def test_a_callback_hears_every_change_in_order(store: Store, other: EtcdMiddleware) -> None:
    heard = Heard()
    store["temp"].register(heard)

    def write(start: int) -> None:
        for number in range(start, start + 100):
            other["/Oven/TEMP"] = number

    with ThreadPoolExecutor(3) as pool:
        for written in [pool.submit(write, start) for start in (1000, 2000, 3000)]:
            written.result(60)
    values = heard.wait(300)
    assert len(values) == 300
    for start in (1000, 2000, 3000):
        assert [value for value in values if start <= value < start + 1000] == list(range(start, start + 100))
    assert heard.calls[0][0] is store["temp"]


def test_a_hundred_items_written_at_once_are_one_revision_and_a_hundred_calls(
    store: Store, etcd_client: EtcdMiddleware
) -> None:
    etcd_client.update({f"/Oven/n{number}": 0 for number in range(100)})
    heard = Heard()
    items = [store[f"n{number}"] for number in range(100)]
    for item in items:
        item.register(heard)
    etcd_client.update({f"/Oven/n{number}": number + 1 for number in range(100)})
    assert sorted(heard.wait(100)) == list(range(1, 101))
    assert len({item.revision for item in items}) == 1
    assert Counter(item.key for item, _, _ in heard.calls) == Counter(item.key for item in items)


def test_prime_begins_with_the_value(store: Store) -> None:
    heard, unset = Heard(), Heard()
    item = store["temp"]
    item.register(heard, prime=True)
    store.describe("new").register(unset, prime=True)
    item.set(21)
    store["new"].set(5)
    assert heard.wait(2) == [20, 21]
    assert unset.wait(1) == [5]


def test_a_callback_is_held_until_its_handle_is_closed(store: Store) -> None:
    item = store["temp"]
    heard = Heard()
    handle = item.register(lambda *call: heard(*call))
    gc.collect()
    item.set(21)
    assert heard.wait(1) == [21]
    handle.close()
    handle.close()
    with item.register(heard) as other:
        item.set(22)
        assert heard.wait(2) == [21, 22]
    assert (handle.state, other.state) == ("lost", "lost")
    item.set(23)
    assert item._listeners == ()
    assert heard.values == [21, 22]


def test_callbacks_have_handles_of_their_own(store: Store) -> None:
    item = store["temp"]
    heard = Heard()
    one, other = item.register(heard), item.register(heard)
    item.set(21)
    heard.wait(2)
    one.close()
    item.set(22)
    assert heard.wait(3) == [21, 21, 22]
    until(lambda: other.stats.delivered == 2 and other.revision == item.revision)


def test_an_equal_value_is_told_too(store: Store) -> None:
    heard = Heard()
    store["temp"].register(heard)
    store["temp"].set(20)
    store["temp"].set(20)
    assert heard.wait(2) == [20, 20]


def test_a_callback_may_raise_block_write_and_close(store: Store) -> None:
    temp, door = store["temp"], store["door"]
    heard, blocked = Heard(), threading.Event()
    go_on = threading.Event()

    def block(item: Item, value: Any, timestamp: float) -> None:
        blocked.set()
        assert go_on.wait(20)

    def fail(item: Item, value: Any, timestamp: float) -> None:
        raise RuntimeError("meant")

    def write(item: Item, value: Any, timestamp: float) -> None:
        store["door"].set(f"seen {value}")
        writing.close()

    temp.register(block)
    failing = temp.register(fail)
    writing = temp.register(write)
    temp.register(heard)
    door.register(heard)
    temp.set(21)
    assert blocked.wait(20)
    temp.set(22)
    assert sorted(map(str, heard.wait(3))) == ["21", "22", "seen 21"]
    until(lambda: failing.stats.callback_errors == 2)
    go_on.set()


def test_what_is_no_callback(store: Store) -> None:
    with pytest.raises(ConfigError, match=r"oven\.temp: 5 is no callback\(item, value, timestamp\)"):
        store["temp"].register(5)  # type: ignore[arg-type]


def test_a_deadband_leaves_out_what_is_small(store: Store) -> None:
    item = store.describe("TEMP", type="numeric", deadband=0.5)
    heard = Heard()
    item.register(heard, prime=True)
    for value in (20.4, 20.6, 20.9, 20.1, 21.2):
        item.set(value)
    assert item == 21.2
    assert heard.wait(4) == [20, 20.6, 20.1, 21.2]
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(item.wait, 21.3, 20)
        until(lambda: len(item._listeners) == 2)
        item.set(21.3)
        assert waiting.result(20)


def test_a_deadband_counts_from_what_was_there(store: Store) -> None:
    item = store.describe("TEMP", type="numeric", deadband=0.5)
    heard = Heard()
    item.register(heard)
    for value in (20.1, 20.6):
        item.set(value)
    assert heard.wait(1) == [20.6]


def test_an_odd_number_ends_nothing(store: Store, other: EtcdMiddleware) -> None:
    item = store.describe("TEMP", type="numeric", deadband=0.5)
    heard = Heard()
    item.register(heard, prime=True)
    huge = b"1" + b"0" * 400
    base = other.prefix.encode() + b"/Oven/"
    other.raw[base + b"TEMP"] = huge
    other.raw[base + b"TEMP"] = b"1.5"
    other.raw[base + b".link/at/TEMP"] = b'{"time": %s}' % huge
    other.raw[base + b".link/items/TEMP"] = (
        b'{"type": "enumerated", "enumerators": ["Off", "On"], "initial": %s}' % huge
    )
    other["/Oven/TEMP"] = 1
    assert heard.wait(4) == [20, 10**400, 1.5, 1]
    assert item.state == "live"


def test_a_change_that_cannot_be_taken_ends_its_listener_alone(
    store: Store, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    item, heard, other, states = store["temp"], Heard(), Heard(), Heard()
    handle = item.register(heard, on_state=lambda state: states(item, state, 0.0))
    item.register(other)

    def fails(*given: Any) -> bool:
        raise ZeroDivisionError

    monkeypatch.setattr(handle, "_passes_over", fails)
    item.set(1)
    assert other.wait(1) == [1]
    assert states.wait(1) == ["lost"]
    assert handle.state == "lost"
    item.set(2)
    assert other.wait(2) == [1, 2]
    until(lambda: "a change could not be taken" in caplog.text)
    # When the store itself cannot take it, the rest of the client goes on.
    with store.client.mirror("/Oven") as mirror:
        monkeypatch.setattr(store._state, "apply", fails)
        store.client["/Oven/TEMP"] = 3
        until(lambda: store.state == "lost")
        assert mirror["TEMP"] == 3
        assert get("oven.temp", client=store.client) == 3
        assert mirror.state == "live"


def test_handlers_of_logs_are_not_run_by_the_thread_that_reads(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    store.client.raw[store.client.prefix.encode() + b"/Oven/.link/items/TEMP"] = b"5"
    until(lambda: "of no use" in caplog.text)
    assert {record.threadName for record in caplog.records} == {"link-kv-callbacks"}


def test_a_full_queue_loses_nothing_and_holds_nobody_up(store: Store, etcd_client: EtcdMiddleware) -> None:
    temp = store["temp"]
    heard, door = Heard(), Heard()
    entered, go_on = threading.Event(), threading.Event()
    states: list[str] = []

    def slow(item: Item, value: Any, timestamp: float) -> None:
        entered.set()
        assert go_on.wait(20)
        heard(item, value, timestamp)

    handle = temp.register(slow, on_state=states.append)
    handle._limit = 5
    store["door"].register(door)
    for number in range(30):
        temp.set(number)
        store["door"].set(number)
    assert entered.wait(20)
    assert door.wait(30) == list(range(30))
    assert temp.state == "live"
    until(lambda: handle.state == "stale")
    go_on.set()
    assert heard.wait(30) == list(range(30))
    until(lambda: handle.state == "live")
    assert handle.stats.gaps == 0
    # It goes on like the others, with time and writer.
    temp.set(99)
    assert heard.wait(31)[-1] == 99
    assert heard.calls[-1][2] == temp.timestamp
    etcd_client["/Oven/TEMP"] = 100
    del etcd_client["/Oven/TEMP"]
    assert heard.wait(33)[-2:] == [100, MISSING]
    handle.close()
    assert (states[0], states[-1]) == ("stale", "live")


def test_waiting_for_a_value(store: Store, other: EtcdMiddleware) -> None:
    item = store["temp"]
    assert item.wait(20, 0)
    assert item.wait(20)
    assert not item.wait(21, 0.01)
    assert not item.wait(lambda value: value > 20, 0.01)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(item.wait, lambda value: value == 5, 20)
        until(lambda: item._listeners)
        # However short it lasts.
        other.put("/Oven/TEMP", 5)
        other.put("/Oven/TEMP", 6)
        assert waiting.result(20)
    assert item._listeners == ()
    with pytest.raises(ZeroDivisionError):
        item.wait(lambda value: 1 / 0, 20)
    assert store.describe("new").wait(None, 20)
    assert item.wait(store["temp"], 20)


def test_waiting_ends_with_the_client(etcd: Etcd, store: Store) -> None:
    with EtcdMiddleware(endpoints=etcd.endpoints, prefix=store.client.prefix + "/x") as client:
        client["/s"] = {"a": 1}
        item = get("s.a", client=client)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(item.wait, 5)
            until(lambda: item._listeners)
            client.close()
            with pytest.raises(Closed, match=r"s\.a: is not followed any more"):
                waiting.result(20)


# Writing


def test_a_listener_whose_queue_is_full_is_told_of_the_end(etcd: Etcd, store: Store) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def slow(item: Item, value: Any, timestamp: float) -> None:
        entered.set()
        go_on.wait(20)

    with EtcdMiddleware(endpoints=etcd.endpoints, prefix=store.client.prefix + "/x") as client:
        client["/s"] = {"a": 0}
        item = get("s.a", client=client)
        handle = item.register(slow)
        handle._limit = 1
        item.set(1)
        assert entered.wait(20)
        item.set(2)
        until(lambda: handle.state == "stale")
    assert handle.state == "lost"
    go_on.set()


def test_a_set_that_is_not_waited_for(store: Store) -> None:
    heard = Heard()
    item = store["temp"]
    item.register(heard)
    futures = [item.set(number, wait=False) for number in range(20)]
    assert all(future is not None and future.result(20) is None for future in futures)
    assert heard.wait(20) == list(range(20))
    with pytest.raises(EncodeError):
        item.set(object(), wait=False)


def test_a_set_that_is_not_waited_for_does_not_wait_for_a_lease(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def held_up(*given: Any) -> Session:
        entered.set()
        assert go_on.wait(20)
        return Session(*given)

    monkeypatch.setattr("link_kv.store.Session", held_up)
    operator = store.describe("operator", type="string", persist=False)
    with ThreadPoolExecutor(1) as pool:
        try:
            first = operator.set("Ada", wait=False)
            assert entered.wait(20)
            second = pool.submit(store["temp"].set, 5, wait=False).result(10)
        finally:
            go_on.set()
    assert first is not None
    assert second is not None
    first.result(20)
    second.result(20)
    assert (store["operator"], store["temp"]) == ("Ada", 5)


@pytest.mark.parametrize("wait", [True, False])
def test_what_does_not_fit_is_refused_before_anything_is_sent(store: Store, wait: bool) -> None:
    item = store.describe("TEMP", type="numeric", range=[0, 100])
    revision = item.revision
    for act in (
        lambda: item.set(999, wait=wait),
        lambda: item.set("warm", wait=wait),
        lambda: item.set(5, wait=wait, formatted=True),
        lambda: item.set("five", wait=wait, formatted=True),
        lambda: item.set(5, wait=wait, quantity=True),
        lambda: item.__imul__(1000),
    ):
        with pytest.raises(Refused, match=r"oven\.temp: "):
            act()
    with pytest.raises(EncodeError, match="/Oven/Door"):
        store["door"].set({1: 2}, wait=wait)
    assert item.get(refresh=True) == 20
    assert item.revision == revision == store.client.entry("/Oven/TEMP").revision


def test_the_type_comes_before_the_text(store: Store) -> None:
    door = store.describe("Door", type="string")
    door.formatted = "007"
    assert door.value == "007"
    assert raw(store.client, "/Oven/Door") == b"007"


def test_changes_in_place_are_atomic(etcd: Etcd, store: Store) -> None:
    clients = [EtcdMiddleware(endpoints=etcd.endpoints, prefix=store.client.prefix) for _ in range(3)]
    item, number = store["temp"], 15

    def plain(client: EtcdMiddleware) -> None:
        for _ in range(number):
            client.transaction(lambda t: t.__setitem__("/Oven/TEMP", t["/Oven/TEMP"] + 1))

    def change() -> None:
        mine = store["temp"]
        for _ in range(number):
            mine += 1

    with ThreadPoolExecutor(6) as pool:
        acts: list[Callable[[], None]] = [change] * 3 + [lambda c=each: plain(c) for each in clients]  # type: ignore[misc]
        for done in [pool.submit(act) for act in acts]:
            done.result(60)
    assert item.get(refresh=True) == 20 + 6 * number
    for each in clients:
        each.close()


def test_an_item_of_a_store_changes_in_place(store: Store) -> None:
    store["temp"] += 1
    store["TEMP"] *= 2
    assert store["temp"] == 42
    store["door"] += "!"
    assert store["door"] == "shut!"


def test_trees_change_in_place_too(etcd_client: EtcdMiddleware) -> None:
    etcd_client["/s"] = {"list": [1], "dict": {"a": 1}, "large": {f"{n:03}": n for n in range(200)}}
    store = get("s", client=etcd_client)
    store["list"] += [2]
    store["dict"] |= {"b": 2}
    assert etcd_client["/s/list"] == store["list"].value == [1, 2]
    assert etcd_client["/s/dict"] == {"a": 1, "b": 2}
    with pytest.raises(TooLarge, match="has 200 keys, and 96 can be compared"):
        store["large"] |= {"b": 2}


def test_a_deletion_meanwhile_is_noticed_in_place(store: Store, other: EtcdMiddleware) -> None:
    """A compare over a range would not see it."""
    other["/Oven/set"] = {"a": 1, "b": 2}
    item = store["set"]
    seen: list[Any] = []

    def change(value: Any) -> Any:
        seen.append(value)
        if len(seen) == 1:
            del other["/Oven/set/a"]
        return {**value, "c": 3}

    item._change(change)
    assert seen == [{"a": 1, "b": 2}, {"b": 2}]
    assert item.value == {"b": 2, "c": 3}


def test_an_item_without_a_value_changes_in_place(store: Store) -> None:
    item = store.describe("counter", type="numeric")
    with pytest.raises(TypeError):
        item += 1
    item = store["counter"]
    item._change(lambda value: 1 if value is None else value + 1)
    item._change(lambda value: 1 if value is None else value + 1)
    assert item == 2


def test_an_item_takes_the_value_of_another(store: Store) -> None:
    store["door"].set(store["temp"])
    assert store["door"].value == 20


# Describing


def test_what_is_described_is_there_without_a_value(store: Store, etcd_client: EtcdMiddleware) -> None:
    item = store.describe("Fan", type="boolean", description="cools")
    assert (item.value, item.state, item.revision, item.timestamp, item.writer) == (
        None,
        "unset",
        0,
        None,
        None,
    )
    assert item.formatted == ""
    assert "fan" in store
    assert item.path == "/Oven/Fan"
    assert "/Oven/Fan" not in etcd_client
    assert json.loads(raw(etcd_client, "/Oven/.link/items/Fan")) == {
        "type": "boolean",
        "description": "cools",
    }
    item.value = True
    assert etcd_client["/Oven/Fan"] is True
    assert item.state == "live"
    del etcd_client["/Oven/Fan"]
    assert item.state == "unset"
    assert store["fan"] is item


def test_a_store_of_descriptions_alone_is_found(etcd: Etcd, etcd_client: EtcdMiddleware) -> None:
    etcd_client["/s"] = {}
    item = get("s", client=etcd_client).describe("a", initial=1)
    del etcd_client["/s/a"]
    assert "/s" not in etcd_client
    with EtcdMiddleware(endpoints=etcd.endpoints, prefix=etcd_client.prefix) as other:
        assert get("s.a", client=other) is item


def test_initial_never_overwrites(store: Store, etcd_client: EtcdMiddleware) -> None:
    item = store.describe("fan", type="numeric", initial=5)
    assert item == 5
    assert item.writer is not None
    item.set(6)
    store.describe("fan", type="numeric", initial=5, units="rpm")
    assert item == 6
    assert item.description.units == "rpm"
    etcd_client["/Oven/tree"] = {"a": 1}
    assert store.describe("tree", initial=[1, 2]).value == {"a": 1}
    assert store.describe("list", initial=[1, 2]).value == [1, 2]


def test_a_description_of_what_is_there_changes_nothing_else(store: Store) -> None:
    revision = store["temp"].revision
    store.describe("temp", type="numeric")
    assert store["temp"].revision == revision
    assert keys(store.client, "/Oven/.link/items/") == ["/Oven/.link/items/TEMP"]


def test_a_persisted_value_of_an_item_that_cannot_be_set_starts_again(store: Store) -> None:
    for _ in range(2):
        item = store.describe("serial", type="string", initial="A1", settable=False)
        assert item == "A1"
    with pytest.raises(Refused, match="read-only"):
        item += "x"


def test_an_item_that_cannot_be_read(store: Store) -> None:
    item = store.describe("command", type="string", gettable=False)
    item.set("go")
    with pytest.raises(Refused, match=r"oven\.command: cannot be read"):
        item.get()


@pytest.mark.parametrize(
    "keywords", [{"colour": "red"}, {"type": "number"}, {"range": [2, 1], "type": "numeric"}]
)
def test_a_description_that_does_not_fit_is_refused(store: Store, keywords: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"oven\.fan: .*{next(iter(keywords))}"):
        store.describe("fan", **keywords)
    assert "fan" not in store


def test_units_that_do_not_fit_are_refused(store: Store) -> None:
    with pytest.raises(ConfigError, match="cannot be converted"):
        store.describe("fan", units={"": "m", "formatted": "s"})


@pytest.mark.parametrize("key", ["a/b", "", ".link", "%", "ä ö", "x.y"])
def test_any_name_can_be_described(store: Store, etcd_client: EtcdMiddleware, key: str) -> None:
    item = store.describe(key, initial=1)
    assert item.key == key.lower()
    assert etcd_client["/Oven"][key] == 1
    assert store[key.upper()] is item


def test_what_is_no_key(store: Store) -> None:
    with pytest.raises(PathError, match="5: a key is text"):
        store.describe(5)  # type: ignore[arg-type]


def test_one_name_described_in_two_spellings_at_once_is_one_item(etcd: Etcd, store: Store) -> None:
    clients = [EtcdMiddleware(endpoints=etcd.endpoints, prefix=store.client.prefix) for _ in range(4)]
    for round in range(5):
        ready = threading.Barrier(4)

        def describe(client: EtcdMiddleware, name: str, ready: threading.Barrier = ready) -> str:
            stamp = Stamp(b"{}")
            ready.wait(20)
            segment, _ = run(itemwrites.introduce(Exchange(client._space), store._at, name, 1, stamp, b"{}"))
            return segment

        names = [f"Fan{round}", f"FAN{round}", f"fan{round}", f"fAN{round}"]
        with ThreadPoolExecutor(4) as pool:
            assert len(set(pool.map(describe, clients, names))) == 1
        assert store[f"fan{round}"] == 1
    assert len(keys(store.client, "/Oven/.link/items/")) == 5
    for each in clients:
        each.close()


def test_a_first_write_goes_to_the_spelling_that_is_there_by_then(
    store: Store, other: EtcdMiddleware
) -> None:
    item = store["temp"]
    del other["/Oven/TEMP"]
    assert item.wait(None, 20)
    other["/Oven/temp"] = 5
    item.set(6)
    assert keys(other, "/Oven/temp") == ["/Oven/temp"]
    assert keys(other, "/Oven/TEMP") == []
    assert item == 6
    assert item.path == "/Oven/temp"


def test_a_name_in_a_store_that_never_rests_is_not_waited_for_for_ever(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(itemwrites, "_MAX_TRIES", 3)

    async def moving(ex: Exchange, at: Any, name: str) -> tuple[int, None]:
        return 1, None  # as if all that is there had appeared since

    monkeypatch.setattr(itemwrites, "spelling", moving)
    with pytest.raises(Conflict, match="no moment was free"):
        store.describe("new")


# What goes with the program


def test_a_value_that_does_not_persist_goes_with_the_client(etcd: Etcd, store: Store) -> None:
    store.describe("operator", type="string", persist=False)
    heard = Heard()
    store["operator"].register(heard)
    with EtcdMiddleware(endpoints=etcd.endpoints, prefix=store.client.prefix) as other:
        mine = Store(other, other._space.place("/Oven"))
        mine._attach()
        mine["operator"].set("Ada")
        assert store["operator"].wait("Ada", 20)
        assert keys(store.client, "/Oven/.link/at/operator") != []
        entry = store.client.entry("/Oven/operator")
        assert entry.lease != 0
    assert heard.wait(2) == ["Ada", MISSING]
    assert store["operator"].state == "unset"
    assert keys(store.client, "/Oven/.link/at/operator") == []


def test_a_plain_write_makes_it_persist(store: Store, other: EtcdMiddleware) -> None:
    item = store.describe("operator", type="string", persist=False)
    item.set("Ada")
    other["/Oven/operator"] = "Grace"
    assert item.wait("Grace", 20)
    assert store._session is not None
    store._session.close()
    assert item.get(refresh=True) == "Grace"
    # The next one that is set goes again, under another lease.
    item.set("Joan")
    assert store.client.entry("/Oven/operator").lease == store._session.lease


def test_a_session_that_somebody_ended_is_replaced(store: Store, other: EtcdMiddleware) -> None:
    item = store.describe("operator", persist=False, initial="Ada")
    heard = Heard()
    item.register(heard)
    other.etcd3.revoke_lease(store.client.entry("/Oven/operator").lease)
    assert heard.wait(1) == [MISSING]
    item.set("Grace")
    assert heard.wait(2) == [MISSING, "Grace"]


def test_in_a_list_all_values_persist(etcd_client: EtcdMiddleware) -> None:
    etcd_client["/row"] = [1, 2]
    item = get("row", client=etcd_client).describe("1", persist=False)
    with pytest.raises(ConfigError, match="persist=False is refused in the list /row"):
        item.set(5)


# Disconnects


@pytest.fixture
def server(tmp_path: Path) -> Iterator[local.LocalEtcd]:
    with local.start(tmp_path / "data") as server:
        yield server


@pytest.fixture
def at_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A home of its own, and no other configuration."""
    monkeypatch.setattr(home_module, "_home", None)
    monkeypatch.setenv("LINK_KV_HOME", str(tmp_path / "home"))
    for name in [name for name in os.environ if name.startswith("LINK_KV_") and name != "LINK_KV_HOME"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path / "home"


def again(server: local.LocalEtcd, data: Path) -> local.LocalEtcd:
    return local.start(data, port=int(server.endpoints[0].rpartition(":")[2]))


def test_staleness_is_told_and_nothing_is_lost(server: local.LocalEtcd, tmp_path: Path) -> None:
    with EtcdMiddleware(endpoints=server.endpoints) as client:
        client["/s"] = {"a": 1, "tree": {"x": 1}}
        item = get("s.a", client=client)
        heard, states = Heard(), Heard()
        handle = item.register(heard, on_state=lambda state: states(item, state, 0))
        server.stop()
        assert states.wait(1) == ["stale"]
        assert (item.state, item.store.state, item.value) == ("stale", "stale", 1)
        assert item.reading().state == "stale"
        with again(server, tmp_path / "data") as server:
            with EtcdMiddleware(endpoints=server.endpoints) as other:
                for number in (2, 3):
                    other["/s/a"] = number
                other["/s/tree/y"] = 2
            assert heard.wait(2) == [2, 3]
            assert states.wait(2) == ["stale", "live"]
            assert item.state == "live"
            assert item.store["tree"].wait({"x": 1, "y": 2}, 20)
            assert handle.stats.reconnects == 1
            assert handle.stats.gaps == 0


def test_history_that_is_gone_is_made_up_for(server: local.LocalEtcd) -> None:
    with (
        Proxy(server.endpoints[0]) as proxy,
        EtcdMiddleware(endpoints=[proxy.endpoint]) as client,
        EtcdMiddleware(endpoints=server.endpoints) as other,
    ):
        client["/s"] = {"a": 1, "b": 1, "tree": {"x": 1}}
        store = get("s", client=client)
        heard = [Heard(), Heard(), Heard()]
        handles = [store[key].register(each) for key, each in zip(("a", "b", "tree"), heard, strict=True)]
        proxy.close()  # the watch comes back only after the compaction
        until(lambda: store.state == "stale")
        other["/s/a"] = 2
        other["/s/a"] = 3
        del other["/s/b"]
        last = other.put("/s/tree/y", 2)
        etcd3 = other.etcd3
        etcd3.compact(last)
        etcd3.close()
        proxy.reopen()
        assert store["tree"].wait({"x": 1, "y": 2}, 20)
        assert [each.wait(1) for each in heard] == [[3], [MISSING], [{"x": 1, "y": 2}]]
        assert store["a"] == 3
        assert "b" not in store
        until(lambda: store.state == "live")
        assert [handle.stats.gaps for handle in handles] == [1, 1, 1]
        until(lambda: [handle.state for handle in handles] == ["live"] * 3)  # the one that is gone as well
        proxy.close()
        until(lambda: [handle.state for handle in handles] == ["stale"] * 3)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_that_is_forked_while_a_store_is_opened_gets_it_and_writes(
    store: Store, etcd_client: EtcdMiddleware
) -> None:
    key = items_module._registry[store]
    item = store.describe("child", persist=False, initial=1)
    with items_module._turn(key), items_module._registry_lock, store._lock:
        child = os.fork()
        if not child:
            status = 1
            try:
                signal.alarm(60)
                assert get("oven.temp", client=etcd_client) == 20
                item.set(2)
                status = 0
            finally:
                os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert item.wait(2, 20)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_that_is_forked_while_changes_come_waits_for_no_lock(
    store: Store, other: EtcdMiddleware
) -> None:
    handle, feed = store["temp"].register(print), store._feed
    assert feed is not None
    held, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        with feed.hub.changed, handle._lock:
            held.set()
            assert go_on.wait(60)

    with ThreadPoolExecutor(1) as pool:
        holding = pool.submit(hold)
        assert held.wait(20)
        other["/Oven/fresh"] = 1
        child = os.fork()
        if not child:
            status = 1
            try:
                signal.alarm(60)
                with pytest.raises(Unavailable, match="watch that would tell its value is lost"):
                    store["fresh"]
                assert handle.stats.delivered == 0
                status = 0
            finally:
                os._exit(status)
        go_on.set()
        holding.result(20)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_has_instances_of_its_own(store: Store, etcd_client: EtcdMiddleware) -> None:
    item = store["temp"]
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            found = [item.state, item.value, len(store), list(store.snapshot())]
            with pytest.raises(Closed, match="forked"):
                item.register(print)
            own = get("oven.temp", client=etcd_client)
            found += [own is item, own.state]
            own.set(99)
            found.append(own.value)
            os.write(writer, json.dumps(found).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        found = json.loads(answer.read() or "null")
    os.waitpid(child, 0)
    assert found == ["lost", 20, 2, ["door", "temp"], False, "live", 99]
    assert item.wait(99, 20)
