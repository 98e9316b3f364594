"""The tutorial of the ancestor, and what can be configured."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

from link_kv import EtcdMiddleware
from link_kv.driver import (
    Configurable,
    EtcdConfDriver,
    Parameter,
    category,
)
from link_kv.errors import (
    ConfigError,
)

from .helpers import NOWHERE, PATH, declared


def test_the_session_of_the_tutorial(etcd_client: EtcdMiddleware) -> None:
    @Configurable(
        paths="myproject/myconfigurable.conf",
        conf=category("MYCONF", Parameter(name="myparam")),
        drivers=[EtcdConfDriver(etcd_client)],
    )
    class MyConfigurable:
        pass

    assert not list(etcd_client)  # declaring writes nothing
    etcd_client["/myproject/myconfigurable.conf/MYCONF/myparam"] = "etcd"
    assert MyConfigurable().myparam == "etcd"  # type: ignore[attr-defined]


def test_a_fresh_program_imports_b3j0f_after_the_driver(
    etcd: Any, etcd_prefix: str, etcd_client: EtcdMiddleware
) -> None:
    etcd_client["/p/x.conf/C/port"] = 9090
    script = """
from link_kv.driver import Configurable, EtcdConfDriver, Parameter, category
import b3j0f.conf
assert b3j0f.conf.Configurable is Configurable

@Configurable(
    paths='p/x.conf', conf=category('C', Parameter('port', ptype=int)), drivers=[EtcdConfDriver()]
)
class Server: ...

print(Server().port)
"""
    environment = {
        **os.environ,
        "LINK_KV_ENDPOINTS": ",".join(etcd.endpoints),
        "LINK_KV_PREFIX": etcd_prefix,
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("9090\n", "")


def test_constructing_needs_no_server() -> None:
    EtcdConfDriver()
    EtcdConfDriver(EtcdMiddleware(endpoints=[NOWHERE]))
    with pytest.raises(ConfigError, match="offline='never'"):
        EtcdConfDriver(offline="never")  # type: ignore[arg-type]


def test_an_instance_and_a_function_are_configured(
    etcd_client: EtcdMiddleware, driver: EtcdConfDriver
) -> None:
    etcd_client[f"/{PATH}/C/port"] = 9090
    configurable = Configurable(paths=PATH, conf=declared(Parameter("port", ptype=int)), drivers=[driver])

    class Server:
        port: int

    server = Server()
    configurable.applyconfiguration(targets=[server])
    assert server.port == 9090

    @configurable
    def port_of(name: str, *, suffix: str = "", port: int | None = None) -> str:
        return f"{name}:{port}{suffix}"

    @configurable
    def port_after(port: int | None = None) -> int | None:
        return port

    assert port_after() == 9090
    assert port_of("h", suffix="/", port=1) == "h:1/"


def test_the_driver_is_named_in_what_is_missing() -> None:
    script = "import sys; sys.modules['b3j0f'] = None; import link_kv.driver"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert "pip install 'link_kv[conf]'" in done.stderr
