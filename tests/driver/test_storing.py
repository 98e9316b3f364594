"""What is stored for a value, and what is read of it."""

from __future__ import annotations

from typing import Any

from link_kv import EtcdMiddleware
from link_kv.driver import (
    BOOL,
    Array,
    EtcdConfDriver,
    Parameter,
)

from .helpers import PATH, declared, stored, values


def test_it_stores_bare_text_and_reads_it_back(etcd_client: EtcdMiddleware, driver: EtcdConfDriver) -> None:
    conf = declared(
        Parameter("port", value=8080, ptype=int),
        Parameter("debug", value=True, ptype=bool),
        Parameter("quiet", value=False, ptype=BOOL),
        Parameter("ratio", value=1.5, ptype=float),
        Parameter("hosts", value=["a", "b"], ptype=list),
        Parameter("sizes", value=[1, 2], ptype=Array(int)),
        Parameter("code", value="007"),
        Parameter("digits", value="8080", ptype=str),
        Parameter("mail", value="user@host"),
        Parameter("share", value="50% of 60%"),
        Parameter("formula", value="=1+1"),
        Parameter("empty", value=""),
        Parameter("extra", value={"a": [1]}, ptype=dict),
    )
    expected = values(conf)
    driver.setconf(conf, PATH)
    assert stored(etcd_client) == {
        "/C/port": b"8080",
        "/C/debug": b"true",
        "/C/quiet": b"false",
        "/C/ratio": b"1.5",
        "/C/hosts": b"a, b",
        "/C/sizes": b"1, 2",
        "/C/code": b"007",
        "/C/digits": b"8080",
        "/C/mail": b"user@host",
        "/C/share": b"50% of 60%",
        "/C/formula": b"=1+1",
        "/C/empty": b"",
        "/C/extra": b'{"a": [1]}',
    }
    template = declared(*(Parameter(each.name, ptype=each.ptype) for each in conf["C"].values()))
    assert values(driver.getconf(PATH, conf=template)) == expected
    assert driver.problems(PATH) == {}


def test_a_default_gives_its_type(etcd_client: EtcdMiddleware, driver: EtcdConfDriver) -> None:
    etcd_client[f"/{PATH}/C"] = {"port": "9090", "debug": "no", "hosts": "a, b", "name": 5}
    template = declared(
        Parameter("port", value=8080),
        Parameter("debug", value=True),
        Parameter("hosts", value=["x"]),
        Parameter("name", value="x"),
    )
    assert values(driver.getconf(PATH, conf=template))["C"] == {
        "port": 9090,
        "debug": False,
        "hosts": ["a", "b"],
        "name": "5",
    }


def test_what_the_mapping_wrote_reads_as_a_person_would_type_it(
    etcd_client: EtcdMiddleware, driver: EtcdConfDriver
) -> None:
    etcd_client[f"/{PATH}/C"] = {
        "a": 8080,
        "b": "8080",
        "c": True,
        "d": None,
        "e": ["x", 1],
        "f": {"y": {"z": [1.5]}},
        "g": [],
        "h": "text",
    }
    etcd_client.raw[f"{etcd_client.prefix}/{PATH}/C/i".encode()] = b"1.10"
    found = driver.getconf(PATH)["C"]
    assert {name: each.svalue for name, each in found.items()} == {
        "a": "8080",
        "b": "8080",
        "c": "true",
        "d": "null",
        "e": "x, 1",
        "f": '{"y": {"z": [1.5]}}',
        "g": "",
        "h": "text",
        "i": "1.10",
    }
    assert all(type(each.value) is str for each in found.values())


def test_a_new_value_is_stored_and_an_untouched_one_keeps_its_spelling(
    etcd_client: EtcdMiddleware, driver: EtcdConfDriver
) -> None:
    etcd_client.raw[f"{etcd_client.prefix}/{PATH}/C/version".encode()] = b"1.10"
    etcd_client.raw[f"{etcd_client.prefix}/{PATH}/C/limit".encode()] = b"1e3"
    conf = driver.getconf(
        PATH, conf=declared(Parameter("version", ptype=float), Parameter("limit", ptype=float))
    )
    conf["C"]["limit"].value = 5.0
    driver.setconf(conf, PATH)
    assert stored(etcd_client) == {"/C/version": b"1.10", "/C/limit": b"5.0"}


def test_what_b3j0f_has_serialized_is_stored_bare(
    etcd_client: EtcdMiddleware, driver: EtcdConfDriver
) -> None:
    conf = declared(
        Parameter("a", svalue="=py:8080"),
        Parameter("b", svalue="=py:['x', 'y']"),
        Parameter("c", svalue="=py:None"),
        Parameter("d", svalue="=py:f(x)"),
        Parameter("e", value=[1], ptype=list),
    )
    assert conf["C"]["e"].svalue == "=py:[1]"
    driver.setconf(conf, PATH)
    assert stored(etcd_client) == {"/C/a": b"8080", "/C/b": b"x, y", "/C/d": b"=py:f(x)", "/C/e": b"1"}


def test_serializers_and_parsers_of_the_program_are_used(
    etcd_client: EtcdMiddleware, driver: EtcdConfDriver
) -> None:
    def parser(svalue: str, **_: Any) -> int:
        return int(svalue, 16)

    driver.setconf(declared(Parameter("mask", value=255, parser=parser, serializer=hex)), PATH)
    assert stored(etcd_client) == {"/C/mask": b"0xff"}
    template = declared(Parameter("mask", parser=parser, serializer=hex))
    conf = driver.getconf(PATH, conf=template)
    assert values(conf) == {"C": {"mask": 255}}
    conf = driver.getconf(PATH, conf=conf)
    driver.setconf(conf, PATH)
    assert stored(etcd_client) == {"/C/mask": b"0xff"}
    etcd_client[f"/{PATH}/C/mask"] = "no number"
    assert values(driver.getconf(PATH, conf=template)) == {"C": {"mask": 255}}
    assert list(driver.problems(PATH)) == [f"/{PATH}/C/mask"]
