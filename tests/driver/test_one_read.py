"""etcd is read once for each application."""

from __future__ import annotations

from link_kv import EtcdMiddleware
from link_kv.driver import (
    Configurable,
    EtcdConfDriver,
    Parameter,
    applyconfiguration,
)

from .helpers import PATH, declared


def test_instances_and_calls_read_nothing(
    etcd_client: EtcdMiddleware, driver: EtcdConfDriver, reads: list[str]
) -> None:
    etcd_client[f"/{PATH}/C/x"] = "one"
    reads.clear()
    configurable = Configurable(paths=PATH, conf=declared(Parameter("x")), drivers=[driver])

    @configurable
    class Target:
        x: str

    assert len(reads) == 1
    targets = [Target() for _ in range(20)]
    assert {target.x for target in targets} == {"one"}

    @configurable
    def function(x: str | None = None) -> str | None:
        return x

    assert len(reads) == 2
    assert [function() for _ in range(20)] == ["one"] * 20
    assert len(reads) == 2

    etcd_client[f"/{PATH}/C/x"] = "two"
    reads.clear()
    assert Target().x == "one"
    applyconfiguration(targets[:1])
    assert len(reads) == 1
    assert (targets[0].x, Target().x, function()) == ("two", "two", "two")
    assert driver.getconf(PATH)["C"]["x"].value == "two"
    assert len(reads) == 2

    driver.setconf(declared(Parameter("x", value="three")), PATH)
    assert Target().x == "three"
