"""Where programs remember what they have discovered."""

from __future__ import annotations

import json
import logging
import os
import stat
from pathlib import Path

import pytest

from link_kv import ConfigError, home
from link_kv._core.items import home as module
from link_kv._core.items.home import Remembered, remember, remembered


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "_home", None)
    monkeypatch.setenv("LINK_KV_HOME", str(tmp_path / "from environment"))


def test_the_environment_is_read_at_the_first_use_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert home() == str(tmp_path / "from environment")
    monkeypatch.setenv("LINK_KV_HOME", str(tmp_path / "later"))
    assert home() == str(tmp_path / "from environment")
    assert not (tmp_path / "later").exists()


def test_a_call_with_a_path_overrides(tmp_path: Path) -> None:
    home()
    assert home(str(tmp_path / "given")) == str(tmp_path / "given")
    assert home() == str(tmp_path / "given")
    assert home(tmp_path / "as a path") == str(tmp_path / "as a path")


def test_it_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    made = Path(home(str(tmp_path / "a" / "b")))
    assert made.is_dir()
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    made.rmdir()
    home()
    assert made.is_dir()


def test_the_default_is_in_the_users_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("LINK_KV_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert home() == str(tmp_path / ".link_kv")


def test_variables_are_replaced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LAB", "lab")
    assert home("~/$LAB/cache") == str(tmp_path / "lab" / "cache")


@pytest.mark.parametrize("path", ["relative", "./x", "", "$NOWHERE_AT_ALL/x"])
def test_a_path_that_is_not_absolute(path: str) -> None:
    with pytest.raises(ValueError, match="is not an absolute path") as caught:
        home(path)
    assert isinstance(caught.value, ConfigError)


def test_nor_may_the_environment_have_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINK_KV_HOME", "relative")
    with pytest.raises(ConfigError, match="LINK_KV_HOME: 'relative' is not an absolute path"):
        home()


def test_what_is_remembered_reads_back() -> None:
    stores = {"Oven": {"TEMP": {"units": "K"}, "x": {}}}
    remember("host:2379", "/lab", 2**63 + 1, stores)
    remember("host:2379", "", 5, {})
    [found] = remembered("/lab")
    assert found == Remembered("host:2379", "/lab", 2**63 + 1, found.seen, stores)
    assert len(remembered("")) == 1
    assert remembered("/other") == []


def test_files_are_replaced_whole_and_are_their_owners_alone() -> None:
    remember("[::1]:2379", "/a/b", 5, {"s": {}})
    remember("[::1]:2379", "/a/b", 6, {"t": {}})
    [file] = Path(home(), "stores").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert json.loads(file.read_text())["stores"] == {"t": {}}


def test_a_write_that_fails_leaves_the_file_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    remember("host:2379", "", 5, {"s": {}})

    def no_space(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space"):
        remember("host:2379", "", 5, {"t": {}})
    assert [list(each.stores) for each in remembered("")] == [["s"]]
    assert len(list(Path(home(), "stores").iterdir())) == 1


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "nonsense", '{"address": 1, "stores": {"s": 5}}', "[" * 100_000]
)
def test_a_damaged_file_is_passed_over(text: str, caplog: pytest.LogCaptureFixture) -> None:
    remember("host:2379", "", 5, {"s": {}})
    file = Path(home(), "stores", "damaged.json")
    file.write_text(text)
    with caplog.at_level(logging.WARNING, "link_kv.items"):
        assert [each.address for each in remembered("")] == ["host:2379"]
    assert str(file) in caplog.text
