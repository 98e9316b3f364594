"""Fixtures for the tests of the driver."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from link_kv import EtcdMiddleware, local
from link_kv._core.items import home
from link_kv.driver import (
    EtcdConfDriver,
)


@pytest.fixture(autouse=True)
def own_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """`link_kv.home` as in a program that starts."""
    monkeypatch.setattr(home, "_home", None)


@pytest.fixture
def driver(etcd_client: EtcdMiddleware) -> EtcdConfDriver:
    return EtcdConfDriver(etcd_client)


@pytest.fixture
def reads(etcd_client: EtcdMiddleware, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The calls that the client makes from now on."""
    caller = etcd_client._space.caller
    assert "/nothing" not in etcd_client  # the layout has been looked up
    calls: list[str] = []
    call = caller.call

    def counted(method: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(method.name)
        return call(method, *args, **kwargs)

    monkeypatch.setattr(caller, "call", counted)
    return calls


@pytest.fixture
def own_etcd(tmp_path: Path) -> Iterator[Callable[[], local.LocalEtcd]]:
    """Starts an etcd of the test's own, again and again on the same data."""
    started: list[local.LocalEtcd] = []

    def start() -> local.LocalEtcd:
        started.append(local.start(tmp_path / "data"))
        return started[-1]

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file that must not come to be; importing the module ``link_kv_canary`` creates it."""
    file = tmp_path / "evaluated"
    source = f"import pathlib\npathlib.Path({str(file)!r}).touch()\nx = None\n"
    (tmp_path / "link_kv_canary.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    yield file
    sys.modules.pop("link_kv_canary", None)
