"""While etcd is down."""

from __future__ import annotations

import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from link_kv import EtcdMiddleware, home, local
from link_kv.driver import (
    Configurable,
    EtcdConfDriver,
    Parameter,
    category,
    configuration,
)
from link_kv.errors import (
    Unavailable,
)

from .helpers import NOWHERE, PATH, declared, values


def test_no_answer_is_never_nothing_configured(caplog: pytest.LogCaptureFixture) -> None:
    with EtcdMiddleware(endpoints=[NOWHERE], timeout=0.3) as client:
        driver = EtcdConfDriver(client)
        with pytest.raises(Unavailable, match=f"/{PATH}: "):
            driver.getconf(PATH)
        with pytest.raises(Unavailable, match=f"/{PATH}: "):

            @Configurable(paths=PATH, conf=declared(Parameter("x")), drivers=[driver])
            class Target: ...


def test_the_last_known_configuration_is_where_a_program_says(
    etcd_client: EtcdMiddleware, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINK_KV_HOME", str(tmp_path / "environment"))
    home(tmp_path / "given")
    driver = EtcdConfDriver(etcd_client, offline="cache")
    driver.setconf(configuration(category("A", Parameter("x", value="1"))), PATH)
    driver.getconf(PATH)
    assert len(list((tmp_path / "given" / "conf").iterdir())) == 1
    assert not (tmp_path / "environment").exists()


def test_the_last_known_configuration_is_read_from_disk(
    own_etcd: Callable[[], local.LocalEtcd],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("LINK_KV_HOME", str(home))
    server = own_etcd()
    options: dict[str, Any] = {"endpoints": server.endpoints, "prefix": "/p", "timeout": 10}
    conf = configuration(category("z", Parameter("x", value="=1")), category("A", Parameter("y", value="2")))
    with EtcdMiddleware(**options) as client:
        EtcdConfDriver(client).setconf(conf, PATH)
        EtcdConfDriver(client).getconf(PATH)
        assert not home.exists()  # only who asked for a cache has one
        EtcdConfDriver(client, offline="cache").getconf(PATH)
        revision = client.entry(PATH).revision
    (file,) = (home / "conf").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE((home / "conf").stat().st_mode) == 0o700
    server.stop()

    options["timeout"] = 0.3
    with EtcdMiddleware(**options) as client:
        driver = EtcdConfDriver(client, offline="cache")
        found = driver.getconf(PATH)
        assert list(found) == ["z", "A"]
        assert values(found) == {"z": {"x": "=1"}, "A": {"y": "2"}}
        source = driver.source(PATH)
        assert source is not None
        assert (source.offline, source.revision) == (True, revision)
        assert any(
            f"/{PATH}" in record.getMessage() for record in caplog.records if record.levelname == "WARNING"
        )
        with pytest.raises(Unavailable, match="none was read on this machine"):
            driver.getconf("other.conf")
        with pytest.raises(Unavailable):
            EtcdConfDriver(client).getconf(PATH)
    other = {**options, "prefix": "/other"}
    with EtcdMiddleware(**other) as client, pytest.raises(Unavailable):
        EtcdConfDriver(client, offline="cache").getconf(PATH)
    file.write_text("{damaged")
    with EtcdMiddleware(**options) as client, pytest.raises(Unavailable, match=str(file)):
        EtcdConfDriver(client, offline="cache").getconf(PATH)


def test_a_running_program_keeps_what_it_read(
    own_etcd: Callable[[], local.LocalEtcd], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINK_KV_HOME", str(tmp_path / "home"))
    server = own_etcd()
    with EtcdMiddleware(endpoints=server.endpoints, timeout=10) as client:
        client[f"/{PATH}/C/x"] = "one"
        driver = EtcdConfDriver(client, offline="cache")
        conf = driver.getconf(PATH)
        server.stop()
        caller = client._space.caller
        caller.config = replace(caller.config, timeout=1)  # nobody answers any more
        assert values(driver.getconf(PATH)) == values(conf) == {"C": {"x": "one"}}
        source = driver.source(PATH)
        assert source is not None
        assert source.offline


def test_a_home_that_cannot_be_written_is_no_obstacle(
    etcd_client: EtcdMiddleware,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LINK_KV_HOME", str(tmp_path / "file"))
    etcd_client[f"/{PATH}/C/x"] = 1
    assert values(EtcdConfDriver(etcd_client, offline="cache").getconf(PATH)) == {"C": {"x": "1"}}
    assert "cannot be kept" in caplog.text
