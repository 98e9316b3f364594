"""``link-kv import``, ``export`` and ``diff``."""

from __future__ import annotations

import json
import math
import subprocess
from pathlib import Path

import numpy as np
import pytest

from link_kv import EncodeError, EtcdMiddleware, PathError

from .command import call
from .conftest import Cli

VALUE = {"a": 1, "b": ["x", {"y": None}], "c": {}, "d": b"\0\xff", "e": "1", "f": math.inf}


@pytest.mark.parametrize("form", ["json", "yaml"])
def test_there_and_back(cli: Cli, etcd_client: EtcdMiddleware, tmp_path: Path, form: str) -> None:
    etcd_client["/t"] = {**VALUE, "array": np.arange(3)}
    before = {key: value for key, value in etcd_client.raw.items() if b"/t/" in key}
    file = tmp_path / f"t.{form}"
    file.write_bytes(cli.raw("export", "/t", "-f", form))
    assert cli("import", str(file), "/t") == "nothing changes\n"
    del etcd_client["/t"]
    assert cli("import", str(file), "/t").splitlines()[-1].startswith("revision ")
    assert {key: value for key, value in etcd_client.raw.items() if b"/t/" in key} == before


def test_an_import_shows_what_changes_and_is_one_transaction(
    cli: Cli, etcd_client: EtcdMiddleware, tmp_path: Path
) -> None:
    etcd_client["/t"] = {"a": 1, "b": ["x"], "c": "same"}
    file = tmp_path / "t.json"
    file.write_text(json.dumps({"a": 1.0, "b": {}, "c": "same", "d/e": True}))
    shown = "-\t/t/a\t1\n+\t/t/a\t1.0\n-\t/t/b/\t[]\n+\t/t/b/\t{}\n-\t/t/b/1\tx\n+\t/t/d%2Fe\ttrue\n"
    assert cli("import", str(file), "/t", "--dry-run") == shown
    assert etcd_client["/t"] == {"a": 1, "b": ["x"], "c": "same"}
    assert cli("import", str(file), "/t").startswith(shown + "revision ")
    assert etcd_client["/t"] == {"a": 1.0, "b": {}, "c": "same", "d/e": True}
    entry = etcd_client.entry("/t")
    assert cli("tree", "/t", "--json").count(f'"revision": {entry.revision}') == 4


def test_an_import_from_standard_input(cli: Cli, etcd_client: EtcdMiddleware) -> None:
    cli("import", "-", "/t", "-f", "yaml", stdin=b"a: [1, yes]\n")
    assert etcd_client["/t"] == {"a": [1, True]}
    cli("import", "-", "/t/a", stdin=b"5")
    assert etcd_client["/t"] == {"a": 5}


def test_what_cannot_be_imported(cli: Cli, etcd_client: EtcdMiddleware, tmp_path: Path) -> None:
    etcd_client["/t"] = 1
    file = tmp_path / "t.yaml"
    file.write_text("1: a")
    assert "/t: the dict key 1 is of type int" in cli.fails(EncodeError, "import", str(file), "/t")
    assert "the root cannot be replaced" in cli.fails(PathError, "import", str(file), "/")
    assert etcd_client["/t"] == 1


def test_the_root_is_exported(cli: Cli, etcd_client: EtcdMiddleware) -> None:
    etcd_client["/t"] = VALUE
    assert json.loads(cli("export", "/"))["t"]["b"] == ["x", {"y": None}]


def test_an_old_tree_is_exported(cli: Cli, etcd_client: EtcdMiddleware) -> None:
    revision = etcd_client.put("/t", {"a": 1})
    etcd_client["/t"] = {"a": 2}
    assert cli("export", "/t", "--revision", str(revision)) == '{\n  "a": 1\n}\n'
    assert cli("export", "/t", "-f", "toml") == "a = 2\n"


# diff


@pytest.fixture
def moments(etcd_client: EtcdMiddleware, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.chdir(tmp_path)
    revision = etcd_client.put("/t", {"a": 1, "b": [1, 2]})
    etcd_client["/t"] = {"a": True, "b": [1], "c": "x"}
    Path("t.json").write_text('{"a": true, "b": [1], "c": "x"}')
    Path("t.toml").write_text('a = true\nb = [1]\nc = "y"')
    return revision


def test_diff(cli: Cli, moments: int, tmp_path: Path) -> None:
    differs = "-\t/a\t1\n+\t/a\ttrue\n-\t/b/2\t2\n+\t/c\tx\n"
    for one, other, shown in (
        (f"/t@{moments}", "/t", differs),
        (f"/t@{moments}", "t.json", differs),
        ("/t", "t.json", ""),
        ("t.json", f"file:{tmp_path}/t.json", ""),
        ("/t", "t.toml", "-\t/c\tx\n+\t/c\ty\n"),
        ("/t/a", "/t/c", "-\t/\ttrue\n+\t/\tx\n"),
        ("/t/a/", "/none", "-\t/\ttrue\n"),
        ("/none", "/nothing", ""),
    ):
        result = cli.run("diff", one, other)
        assert (result.stdout, result.return_value) == (shown, 1 if shown else 0)


def test_a_path_that_ends_like_a_revision(cli: Cli, etcd_client: EtcdMiddleware) -> None:
    etcd_client["/t@1"] = 5
    assert cli("diff", "/t@1/", "/none") == "-\t/\t5\n"


@pytest.mark.usefixtures("moments")
def test_diff_as_json(cli: Cli, etcd_client: EtcdMiddleware) -> None:
    etcd_client["/u"] = {"a": 1, "b": {}, "c": "x"}
    assert json.loads(cli("diff", "/t", "/u", "--json")) == [
        {"path": "/a", "old": True, "new": 1},
        {"path": "/b/", "old": [], "new": {}},
        {"path": "/b/1", "old": 1},
    ]
    assert cli("diff", "/t", "/t", "--json") == "[]\n"


@pytest.mark.usefixtures("moments")
def test_the_status_of_diff(cli: Cli) -> None:
    def diff(*args: str) -> subprocess.CompletedProcess[str]:
        return call(*cli.options, "diff", *args, stdin='{"a": 1}')

    assert diff("/t", "t.json").returncode == 0
    assert diff("/t", "-").returncode == 1
    for args in (["/t", "none.json"], ["/t"], ["/t", "/t@99999999"], ["/t", "t.json", "--colour"]):
        done = diff(*args)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
        assert done.stderr.startswith("link-kv: ")
