"""Values from etcd are data; expressions are turned on by the program."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic_settings import BaseSettings

from link_kv import EtcdMiddleware
from link_kv.driver import (
    Configurable,
    EtcdConfDriver,
    Parameter,
    applyconfiguration,
    category,
    configuration,
)
from link_kv.settings import follow
from tests.cli.conftest import Cli

from .helpers import PATH, PTYPES, attacks, declared, stored, values


def test_other_drivers_keep_their_expressions(
    etcd_client: EtcdMiddleware, driver: EtcdConfDriver, tmp_path: Path
) -> None:
    file = tmp_path / "my.json"
    file.write_text(json.dumps({"C": {"x": "=1+1", "z": "=2+2"}}))
    path = str(file)
    etcd_client[f"{path}/C"] = {"x": "=3+3", "y": "=4+4"}
    conf = declared(Parameter("x", ptype=int), Parameter("y"), Parameter("z", ptype=int))

    class Target: ...

    def applied(*drivers: Any) -> dict[str, Any]:
        target = Target()
        Configurable(paths=path, conf=conf, drivers=drivers).applyconfiguration(targets=[target])
        return vars(target)

    assert applied(*Configurable.DEFAULT_DRIVERS) == {"x": 2, "y": None, "z": 4}
    assert applied(driver, *Configurable.DEFAULT_DRIVERS) == {"x": 2, "y": "=4+4", "z": 4}
    assert applied(*Configurable.DEFAULT_DRIVERS, driver) == {"x": 2, "y": "=4+4", "z": 4}
    assert list(driver.problems(path)) == [f"{path}/C/x"]  # the text =3+3 is no int


def test_expressions_can_be_turned_on(etcd_client: EtcdMiddleware, caplog: pytest.LogCaptureFixture) -> None:
    driver = EtcdConfDriver(etcd_client, expressions=True)
    etcd_client[f"/{PATH}/C"] = {
        "a": "=1 + 1",
        "b": "=@a * 10",
        "c": "%'x' * 3%",
        "d": "@a",
        "plain": "text",
        "bad": "=1 / 0",
        "lost": "user@host",
    }
    template = declared(
        Parameter("a", ptype=int, value=7), Parameter("b", ptype=int), Parameter("bad", value="ok")
    )
    assert values(driver.getconf(PATH, conf=template))["C"] == {
        "a": 2,
        "b": 20,
        "c": "xxx",
        "d": "=1 + 1",
        "plain": "text",
        "bad": "ok",
    }
    assert sorted(driver.problems(PATH)) == [f"/{PATH}/C/bad", f"/{PATH}/C/lost"]
    driver.setconf(declared(Parameter("e", svalue="=2 * 2"), Parameter("f", value=5)), PATH)
    assert stored(etcd_client)["/C/e"] == b"=2 * 2"
    assert values(driver.getconf(PATH))["C"]["e"] == 4
    assert values(EtcdConfDriver(etcd_client).getconf(PATH))["C"]["e"] == "=2 * 2"


def test_attacks_would_be_noticed(etcd_client: EtcdMiddleware, marker: Path) -> None:
    noticed = 0
    for number, text in enumerate(attacks(marker)):
        path = f"attack-{number}"
        etcd_client[f"/{path}/C/x"] = text
        EtcdConfDriver(etcd_client, expressions=True).getconf(path)
        sys.modules.pop("link_kv_canary", None)
        if marker.exists():
            noticed += 1
            marker.unlink()
    assert noticed > 15


def test_nothing_in_etcd_is_evaluated(
    etcd_client: EtcdMiddleware, driver: EtcdConfDriver, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINK_KV_HOME", str(marker.parent / "home"))
    texts = attacks(marker)
    assert len(set(texts)) == 100
    client = etcd_client
    client[f"/{PATH}/texts"] = {f"p{number}": text for number, text in enumerate(texts)}
    client[f"/{PATH}/names"] = dict.fromkeys(texts, "name")
    client[f"/{PATH}/lists"] = {f"l{number}": [text, {"k": text}] for number, text in enumerate(texts)}
    client["/more.conf"] = {text: {"x": text} for text in texts}
    client["/subs.conf"] = {f":{name}": {"x": texts[0]} for name in (*texts[:20], "p2", "given")}
    client.raw[f"{client.prefix}/more.conf/.link/categories".encode()] = json.dumps(texts).encode()

    found = driver.getconf(PATH)
    assert [each.value for each in found["texts"].values()] == [
        texts[int(name[1:])] for name in found["texts"]
    ]
    assert list(driver.getconf("more.conf")) == texts
    for ptype in PTYPES:
        conf = configuration(
            category("texts", *(Parameter(f"p{number}", ptype=ptype) for number in range(100)))
        )
        read = driver.getconf(PATH, conf=conf)
        applied = {name: each.value for name, each in read["texts"].items()}
        if ptype in (None, str, object):
            assert applied == {f"p{number}": text for number, text in enumerate(texts)}
        read.resolve()
        EtcdConfDriver(client, offline="cache").getconf(PATH, conf=conf)
        driver.setconf(read, "copy.conf")
        driver.getconf("copy.conf", conf=read)

        class Target:
            def __init__(self, p0: Any = None) -> None:
                self.given = p0

        def function(p1: Any = None) -> Any:
            return p1

        paths = [PATH, "more.conf", "subs.conf"] if ptype is None else [PATH]
        configurable = Configurable(paths=paths, conf=conf, drivers=[driver])
        target = configurable(Target)()
        applyconfiguration([target])
        configurable(function)()
        if ptype is None:
            assert target.given == texts[0]
            assert target.p5 == texts[5]  # type: ignore[attr-defined]
            assert function() == texts[1]
    assert not marker.exists()


def test_names_of_python_itself_are_not_set(etcd_client: EtcdMiddleware, driver: EtcdConfDriver) -> None:
    etcd_client[f"/{PATH}"] = {"C": {"__class__": "x", "__init__": "x", "x": 1}, ":__init__": {"x": 1}}

    @Configurable(paths=PATH, conf=declared(Parameter("x", ptype=int)), drivers=[driver])
    class Target:
        x: int

    applyconfiguration([Target])
    assert Target().x == 1
    assert sorted(driver.problems(PATH)) == [f"/{PATH}/C/__class__", f"/{PATH}/C/__init__"]
    etcd_client[f"/{PATH}/C"] = {"a(": "no pattern", "x": 2}
    assert values(driver.getconf(PATH))["C"] == {"x": "2"}
    assert sorted(driver.problems(PATH)) == [f"/{PATH}/C/a("]


def test_nothing_in_etcd_is_evaluated_by_settings(etcd_client: EtcdMiddleware, marker: Path) -> None:
    texts = attacks(marker)

    class Settings(BaseSettings):
        text: str = ""
        anything: Any = None
        number: int = 0
        items: list[Any] = []
        table: dict[str, Any] = {}
        where: Path = Path()

    with follow(Settings, "/settings", client=etcd_client, settle=0) as followed:
        for text in texts:
            whole = {"text": text, "anything": text, "items": [text], "table": {text: text}, "where": text}
            assert followed.wait(etcd_client.put("/settings", whole), 10)
            assert followed.current.text == followed.current.anything == text
            assert followed.current.items == [text]
            assert not followed.wait(etcd_client.put("/settings", {**whole, "number": text}), 10)
            assert not followed.wait(etcd_client.put("/settings", {text: text}), 10)
    assert not marker.exists()


def test_nothing_in_etcd_or_a_file_is_evaluated_by_the_command_line(
    etcd: Any, etcd_client: EtcdMiddleware, marker: Path, tmp_path: Path
) -> None:
    cli = Cli(etcd, etcd_client.prefix)
    texts = attacks(marker)
    client = etcd_client
    client["/x.conf"] = {"C": {f"p{number}": text for number, text in enumerate(texts)}}
    client["/y.conf"] = {"C": dict.fromkeys(texts, "name")}
    revision = client.entry("/y.conf").revision
    schemas = [text.encode() for text in texts] + [b'{"const": "' + texts[0][:20].encode() + b'"}']
    for number, said in enumerate(schemas):
        for kind in ("applied", "schemas"):
            client.raw[f"{client.prefix}/.link/{kind}/x.conf/i{number}".encode()] = said
    for path in ("/x.conf", "/y.conf"):
        for form in ("json", "yaml", "toml"):
            file = tmp_path / f"x.{form}"
            file.write_bytes(cli.raw("config", "export", path, "-f", form))
            cli("config", "import", str(file), path)
            cli("config", "diff", path, f"file:{file}")
        cli.run("config", "export", path, "-f", "ini")
        cli("config", "log", path, "--since", str(revision))
        cli.run("config", "status", path)
        cli.run("config", "check", path, f"C/x={texts[0]}")
        cli("config", "explain", f"{path}/C/p0")
    cli("config", "rollback", "/x.conf", str(revision))
    for number, text in enumerate(texts):
        (tmp_path / "x.ini").write_text(f"[C]\nx = {' '.join(text.split())}\n")
        cli("config", "import", str(tmp_path / "x.ini"), f"/z{number}.conf")
    (tmp_path / "x.yaml").write_text(f"a: {texts[99]}\n")
    cli.run("config", "import", str(tmp_path / "x.yaml"), "/x.conf")
    assert not marker.exists()
