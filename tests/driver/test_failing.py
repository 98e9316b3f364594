"""What does not fit, or is not there."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from link_kv import EtcdMiddleware
from link_kv.driver import (
    Configurable,
    EtcdConfDriver,
    Parameter,
    applyconfiguration,
    category,
    configuration,
)
from link_kv.errors import (
    EncodeError,
    ListIndexError,
    NotATree,
    PathError,
    Unavailable,
)

from .helpers import NOWHERE, PATH, declared, values


@pytest.mark.parametrize("logger", [None, logging.getLogger("test")])
def test_setconf_raises_whatever_fails(
    etcd_client: EtcdMiddleware, driver: EtcdConfDriver, logger: logging.Logger | None
) -> None:
    conf = declared(Parameter("x", value=1))

    def refused(error: type[Exception], path: str = PATH, conf: Any = conf, match: str = "") -> None:
        with pytest.raises(error, match=match or path):
            driver.setconf(conf, path, logger=logger)

    etcd_client["/leaf"] = 1
    refused(NotATree, "leaf")
    etcd_client[f"/{PATH}/C"] = 1
    refused(NotATree)
    refused(NotATree, conf=configuration(category("C")))
    etcd_client[f"/{PATH}/C"] = ["x"]
    refused(ListIndexError)
    refused(PathError, "/", match="a configuration has a path")
    refused(PathError, "a//b")
    refused(EncodeError, conf=declared(Parameter("x", value=object())), match=f"/{PATH}/C/x: ")
    refused(driver.Error, conf=declared(Parameter("x", value="\ud800")))
    assert etcd_client[f"/{PATH}"] == {"C": ["x"]}
    with (
        EtcdMiddleware(endpoints=[NOWHERE], timeout=0.3) as client,
        pytest.raises(Unavailable),
    ):
        EtcdConfDriver(client, offline="cache").setconf(conf, PATH, logger=logger)


def test_one_bad_parameter_leaves_the_others_applied(
    etcd_client: EtcdMiddleware, driver: EtcdConfDriver, caplog: pytest.LogCaptureFixture
) -> None:
    etcd_client[f"/{PATH}/C"] = {"port": "eighty", "debug": "no", "ratio": 0.5, "blob": b"\x00"}

    @Configurable(
        paths=PATH,
        conf=category(
            "C",
            Parameter("port", ptype=int, value=8080),
            Parameter("debug", ptype=bool, value=True),
            Parameter("ratio", ptype=float),
        ),
        drivers=[driver],
    )
    class Server:
        port: int
        debug: bool
        ratio: float

    for _ in range(5):
        server = Server()
    assert (server.port, server.debug, server.ratio) == (8080, False, 0.5)
    problems = driver.problems(PATH)
    assert sorted(problems) == [f"/{PATH}/C/blob", f"/{PATH}/C/port"]
    assert "'eighty' is not of type int" in problems[f"/{PATH}/C/port"]
    for path in problems:
        assert [record.levelname for record in caplog.records if path in record.getMessage()] == ["ERROR"]

    etcd_client[f"/{PATH}/C/port"] = 9090
    applyconfiguration([server])
    assert server.port == 9090
    etcd_client[f"/{PATH}/C"] = {"port": "ninety", "debug": "yes"}
    applyconfiguration([server])
    assert (server.port, server.debug) == (9090, True)  # the last good one
    assert sorted(driver.problems(PATH)) == [f"/{PATH}/C/port"]


def test_who_reads_a_bad_value_does_not_make_it_good(
    etcd_client: EtcdMiddleware, driver: EtcdConfDriver
) -> None:
    conf = declared(Parameter("port", ptype=int, value=8080))

    @Configurable(paths=PATH, conf=conf, drivers=[driver])
    class Server:
        port: int

    class Other:
        port: str

    server, other = Server(), Other()
    of_text = Configurable(paths=PATH, conf=declared(Parameter("port", ptype=str)), drivers=[driver])
    etcd_client[f"/{PATH}/C/port"] = 9090
    applyconfiguration([server])
    assert driver.getconf(PATH, conf=conf.copy())["C"]["port"].value == 9090
    etcd_client[f"/{PATH}/C/port"] = "ninety"
    assert driver.getconf(PATH)["C"]["port"].value == "ninety"
    of_text.applyconfiguration(targets=[other])
    assert other.port == "ninety"
    applyconfiguration([server])
    assert server.port == 9090
    assert driver.getconf(PATH, conf=conf.copy())["C"]["port"].value == 9090


def test_what_is_no_configuration_is_reported(etcd_client: EtcdMiddleware, driver: EtcdConfDriver) -> None:
    etcd_client[f"/{PATH}"] = {"A": {"x": 1}, "leaf": 1, "list": [1], "nothing": []}
    assert values(driver.getconf(PATH)) == {"A": {"x": "1"}}
    assert driver.problems(PATH) == {
        f"/{PATH}/leaf": "a value, and no category",
        f"/{PATH}/list": "a list, and no category",
        f"/{PATH}/nothing": "a list, and no category",
    }
    etcd_client[f"/{PATH}"] = "[A]\nx = 1\n"
    assert driver.getconf(PATH) is None
    assert driver.problems(PATH) == {f"/{PATH}": "a value, and no configuration"}


def test_nothing_there_is_nothing_configured(driver: EtcdConfDriver) -> None:
    conf = declared(Parameter("x", value=1))
    assert driver.getconf(PATH) is None
    assert driver.getconf(PATH, conf=conf) is conf
    assert values(conf) == {"C": {"x": 1}}
    assert driver.pathresource(rscpath=PATH) is None
    assert driver.resource() == {}
    source = driver.source(PATH)
    assert source is not None
    assert not source.offline


def test_paths(driver: EtcdConfDriver) -> None:
    for path in (PATH, f"/{PATH}", f"/{PATH}/"):
        assert driver.rscpaths(path) == [f"/{PATH}"]
    assert driver.rscpaths(path="x.conf") == ["/x.conf"]
    for path in ("./x.conf", "../x.conf", "a/../x.conf"):
        assert driver.rscpaths(path) == []
        assert driver.getconf(path) is None
    for path in ("a//x.conf", "a/.link/x.conf"):
        with pytest.raises(PathError):
            driver.rscpaths(path)
    with pytest.raises(PathError):
        driver.getconf("/")


def test_foreign_parameters_can_be_left_out(etcd_client: EtcdMiddleware, driver: EtcdConfDriver) -> None:
    etcd_client[f"/{PATH}"] = {"C": {"x": 1, "y": 1}, "D": {"z": 1}}

    class Target: ...

    target = Target()
    configurable = Configurable(paths=PATH, conf=declared(Parameter("x")), drivers=[driver], foreigns=False)
    configurable.applyconfiguration(targets=[target])
    assert vars(target) == {"x": "1"}
