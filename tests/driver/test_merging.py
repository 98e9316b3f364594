"""What `setconf` leaves as it is."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from link_kv import EtcdMiddleware
from link_kv.driver import (
    EtcdConfDriver,
    Parameter,
    category,
    configuration,
)

from .helpers import PATH, stored, values


def test_setconf_merges_in_one_transaction(
    etcd_client: EtcdMiddleware, driver: EtcdConfDriver, reads: list[str]
) -> None:
    etcd_client[f"/{PATH}"] = {
        "A": {"kept": 1, "changed": 1, "gone": 1, "list": ["x"], "same": 1},
        "B": {"gone": 1},
    }
    before = etcd_client.entry(f"/{PATH}").revision
    reads.clear()
    conf = configuration(
        category(
            "A",
            Parameter("changed", value=2),
            Parameter("gone"),
            Parameter("list", value=[1, 2], ptype=list),
            Parameter("same", value=1),
        ),
        category("B", Parameter("gone")),
        category("C", Parameter("new", value="x")),
    )
    driver.setconf(conf, PATH)
    assert reads == ["Txn", "Txn"]
    assert stored(etcd_client) == {
        "/A/kept": b"1",
        "/A/changed": b"2",
        "/A/list": b"1, 2",
        "/A/same": b"1",
        "/B/": b"{}",
        "/C/new": b"x",
    }
    written = {
        etcd_client.entry(f"/{PATH}/{leaf}").revision for leaf in ("A/changed", "A/list", "B", "C/new")
    }
    assert len(written) == 1
    assert etcd_client.entry(f"/{PATH}/A/same").revision == before
    driver.setconf(conf, PATH)
    assert etcd_client.entry(f"/{PATH}").revision == written.pop()  # nothing to write


def test_an_empty_category_is_there_and_goes_when_it_is_filled(
    etcd_client: EtcdMiddleware, driver: EtcdConfDriver
) -> None:
    driver.setconf(configuration(category("A"), category("B", Parameter("x"))), PATH)
    assert stored(etcd_client) == {"/A/": b"{}", "/B/": b"{}"}
    assert values(driver.getconf(PATH)) == {"A": {}, "B": {}}
    driver.setconf(configuration(category("A", Parameter("x", value=1))), PATH)
    assert stored(etcd_client) == {"/A/x": b"1", "/B/": b"{}"}
    etcd_client[f"/{PATH}"] = {}
    assert driver.getconf(PATH) is None
    driver.setconf(configuration(category("A")), PATH)
    assert stored(etcd_client) == {"/A/": b"{}"}


def test_the_order_of_categories_is_kept_and_out_of_sight(
    etcd_client: EtcdMiddleware, driver: EtcdConfDriver
) -> None:
    def written(*names: str) -> list[str]:
        driver.setconf(configuration(*(category(name, Parameter("x", value=name)) for name in names)), PATH)
        return list(driver.getconf(PATH))

    assert written("A", "B") == ["A", "B"]
    assert "/.link/categories" not in stored(etcd_client)  # the keys have that order
    assert written("z", "M", "B") == ["A", "B", "z", "M"]
    assert json.loads(stored(etcd_client)["/.link/categories"]) == ["A", "B", "z", "M"]
    assert driver.getconf(PATH).param("x").value == "M"  # the last one overrides
    assert sorted(etcd_client[f"/{PATH}"]) == ["A", "B", "M", "z"]
    assert [leaf for leaf in etcd_client if ".link" in leaf] == []
    del etcd_client[f"/{PATH}/B"]
    etcd_client[f"/{PATH}/0"] = {"x": 0}
    assert list(driver.getconf(PATH)) == ["A", "z", "M", "0"]
    assert written("B") == ["A", "z", "M", "0", "B"]
    etcd_client[f"/{PATH}"] = {"M": {"x": 1}, "z": {"x": 1}, "n": {"x": 1}}
    assert list(driver.getconf(PATH)) == ["z", "M", "n"]


@pytest.mark.parametrize("order", [b"", b"{}", b'{"a": 1}', b"[" * 100_000, b"[1, null, []]", b"\xff", b"A"])
def test_an_order_that_is_none_does_no_harm(
    etcd_client: EtcdMiddleware, driver: EtcdConfDriver, order: bytes
) -> None:
    etcd_client[f"/{PATH}"] = {"B": {"x": 1}, "A": {"x": 1}}
    etcd_client.raw[f"{etcd_client.prefix}/{PATH}/.link/categories".encode()] = order
    assert list(driver.getconf(PATH)) == ["A", "B"]
    driver.setconf(configuration(category("0", Parameter("x", value=1))), PATH)
    assert list(driver.getconf(PATH)) == ["A", "B", "0"]


def test_names_that_no_path_could_have(etcd_client: EtcdMiddleware, driver: EtcdConfDriver) -> None:
    conf = configuration(
        category("", Parameter("x", value="root")),
        category("a/b", Parameter("my-param", value="dash"), Parameter("m/s", value="slash")),
        category("50%", Parameter("x", value="percent")),
        category(":sub:deeper", Parameter("x", value="colon")),
        category(".link", Parameter("x", value="reserved")),
    )
    driver.setconf(conf, PATH)
    assert stored(etcd_client)["/a%2Fb/m%2Fs"] == b"slash"
    found = driver.getconf(PATH)
    names = {name: [getattr(key, "pattern", key) for key in parameters] for name, parameters in found.items()}
    assert names == {
        "": ["x"],
        "a/b": ["m/s", "my-param"],
        "50%": ["x"],
        ":sub:deeper": ["x"],
        ".link": ["x"],
    }
    template = configuration(category("a/b", Parameter("my-param", ptype=list)))
    found = driver.getconf(PATH, conf=template)
    assert next(each.value for each in template["a/b"].values()) == ["dash"]
    driver.setconf(found, PATH)
    assert stored(etcd_client)["/a%2Fb/my-param"] == b"dash"


def test_programs_that_write_at_once_lose_nothing(etcd: Any, etcd_client: EtcdMiddleware) -> None:
    names = [f"p{number}" for number in range(8)]
    start = threading.Barrier(len(names))
    errors: list[Exception] = []

    def work(name: str) -> None:
        with EtcdMiddleware(endpoints=etcd.endpoints, prefix=etcd_client.prefix) as client:
            driver = EtcdConfDriver(client)
            start.wait()
            try:
                for number in range(5):
                    parameters = [Parameter(name, value=number), Parameter("shared", value=name)]
                    driver.setconf(configuration(category(f"{name}-{number}", *parameters)), PATH)
            except Exception as error:  # noqa: BLE001 - to be seen by the test
                errors.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    found = EtcdConfDriver(etcd_client).getconf(PATH)
    for name in names:
        assert [each for each in found if each.startswith(name)] == [
            f"{name}-{number}" for number in range(5)
        ]
    assert all(len(parameters) == 2 for parameters in found.values())
