"""``link-kv backup`` and ``restore``."""

from __future__ import annotations

import gzip
import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from link_kv import ConfigError, EtcdMiddleware, KeyExists, local
from link_kv._core.operations import raw_copy
from link_kv._core.operations.iterate import drive
from link_kv._core.operations.raw_copy import Raw, copy_out
from link_kv.cli import _archive
from link_kv.cli._archive import ArchiveError

from .conftest import Cli

VALUE = {"text": "é", "number": 1.5, "bytes": b"\0\xff", "list": [1, {}], "array": np.arange(3), "": None}


def keys(client: EtcdMiddleware) -> dict[bytes, bytes]:
    """All there is, relative to the prefix."""
    skip = len(client.prefix)
    return {key[skip:]: value for key, value in client.raw.items()}


@pytest.fixture
def filled(etcd_client: EtcdMiddleware) -> EtcdMiddleware:
    etcd_client["/lab"] = VALUE
    prefix = etcd_client.prefix.encode()
    for key in (b"/lab/.link/items/number", b"/lab/\xff\xfe", b"/lab//x", b"/a", b"/a/b"):
        etcd_client.raw[prefix + key] = b"\xfe" + key
    return etcd_client


@pytest.fixture
def other(cli: Cli) -> Cli:
    """Another place on the same etcd."""
    return Cli(cli.etcd, f"{cli.prefix}-other")


@pytest.fixture
def other_client(other: Cli) -> Iterator[EtcdMiddleware]:
    with EtcdMiddleware(endpoints=other.etcd.endpoints, prefix=other.prefix) as client:
        yield client
        client.clear()


def test_every_key_there_and_back(
    cli: Cli, filled: EtcdMiddleware, other: Cli, other_client: EtcdMiddleware, tmp_path: Path
) -> None:
    file = tmp_path / "lab.backup"
    expected = keys(filled)
    revision = filled.entry("/lab/text").revision
    done = json.loads(cli("backup", str(file), "--json"))
    assert done["keys"] == len(expected)
    assert done["revision"] >= revision
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [file]
    assert re.fullmatch(rf"{len(expected)} keys restored at revision \d+\n", other("restore", str(file)))
    assert keys(other_client) == expected
    # One transaction: one revision.
    assert len({other_client.entry(path).revision for path in other_client if path.startswith("/lab")}) == 1


def test_the_file_can_be_read_without_us(cli: Cli, filled: EtcdMiddleware, tmp_path: Path) -> None:
    cli("backup", str(tmp_path / "b"))
    lines = gzip.decompress((tmp_path / "b").read_bytes()).splitlines()
    first, *items, last = map(json.loads, lines)
    assert (first["format"], first["version"], first["prefix"]) == ("link_kv backup", 1, cli.prefix)
    assert ["/lab/number", "1.5"] in items
    assert ["/lab/bytes", {"base64": "/wD/"}] in items
    assert last["keys"] == len(items)


def test_it_is_of_one_revision(filled: EtcdMiddleware, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw_copy, "_FIRST_PAGE", 1)
    monkeypatch.setattr(raw_copy, "_LARGEST_PAGE", 2)
    expected = keys(filled)
    pages = drive(copy_out(filled._exchange(), filled.put("/lab/text", "é")))
    got = next(pages)
    filled["/lab"] = 1
    got += [raw for page in pages for raw in page]
    assert {raw.key: raw.value for raw in got} == expected


def test_a_prefix_that_has_keys_is_refused_or_replaced(
    cli: Cli, filled: EtcdMiddleware, tmp_path: Path
) -> None:
    file, expected = tmp_path / "b", keys(filled)
    cli("backup", str(file))
    filled.update({"/lab/text": "changed", "/new": {"x": 1}})
    changed = keys(filled)
    message = cli.fails(KeyExists, "restore", str(file))
    assert message == f"{cli.prefix}: {len(changed) - 1} keys are there already; --replace deletes them"
    assert keys(filled) == changed
    cli("restore", str(file), "--replace")
    assert keys(filled) == expected
    cli("restore", str(file), "--replace")
    assert keys(filled) == expected


def test_neighbours_are_left_alone(
    cli: Cli, filled: EtcdMiddleware, other: Cli, other_client: EtcdMiddleware, tmp_path: Path
) -> None:
    other_client["/x"] = 1
    cli("backup", str(tmp_path / "b"))
    cli("restore", str(tmp_path / "b"), "--replace")
    assert other_client["/x"] == 1


def test_leases_are_dropped_and_living_keys_left_out(
    cli: Cli, filled: EtcdMiddleware, other: Cli, other_client: EtcdMiddleware, tmp_path: Path
) -> None:
    file = tmp_path / "b"
    filled.put("/lab/soon", 1, ttl=600)
    for client in (filled, other_client):
        client.put("/lease", 0, ttl=600)
    with filled.etcd3 as etcd3:
        lease = filled.entry("/lease").lease
        etcd3.put(f"{cli.prefix}/.link/locks/a/1", "held", lease)
        etcd3.put(f"{other.prefix}/.link/locks/b/1", "held", other_client.entry("/lease").lease)
    cli("backup", str(file))
    result = other.run("restore", str(file), "--replace")
    assert result.stderr == "2 keys had a lease, and stay now\n"
    assert other_client.entry("/lab/soon").lease == 0
    restored = keys(other_client)
    assert restored.pop(b"/.link/locks/b/1") == b"held"  # a living program's, there
    expected = keys(filled)
    assert expected.pop(b"/.link/locks/a/1") == b"held"  # and this one's is not there
    assert restored == expected


@pytest.mark.parametrize("tried", [True, False], ids=["refused by the server", "not even tried"])
def test_what_does_not_fit_one_transaction(
    cli: Cli,
    etcd_client: EtcdMiddleware,
    other: Cli,
    other_client: EtcdMiddleware,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tried: bool,
) -> None:
    if not tried:
        monkeypatch.setattr("link_kv.cli.restore._ONE_TRANSACTION", 1000)
    for number in range(6):
        etcd_client[f"/{number}"] = {"a": os.urandom(400_000), "b": os.urandom(400_000)}
    cli("backup", str(tmp_path / "b"))
    other_client.update({"/0/a": 1, "/9": 1})
    for number in range(10):
        other_client[f"/8/{number}"] = number
    result = other.run("restore", str(tmp_path / "b"), "--replace")
    assert result.stderr == (
        "too large for one transaction: written in several, and others see a part until all is done\n"
    )
    assert result.stdout.startswith("13 keys restored at revision ")
    assert keys(other_client) == keys(etcd_client)
    other_client["/9"] = 1
    assert "are there already" in other.fails(KeyExists, "restore", str(tmp_path / "b"))


def test_a_damaged_file_changes_nothing(cli: Cli, filled: EtcdMiddleware, tmp_path: Path) -> None:
    file = tmp_path / "b"
    cli("backup", str(file))
    good, before = file.read_bytes(), keys(filled)
    filled["/after"] = 1
    before = keys(filled)
    damaged = [good[:length] for length in (0, 1, 10, len(good) // 2, len(good) - 9, len(good) - 1)]
    damaged += [b"no backup\n", gzip.compress(b"{}\n"), gzip.compress(b"[]\n"), gzip.compress(b"x\n")]
    damaged.append(good[:20] + bytes((good[20] ^ 1,)) + good[21:])
    for data in damaged:
        file.write_bytes(data)
        message = cli.fails(ArchiveError, "restore", str(file), "--replace")
        assert message.startswith(f"{file}: ")
    assert keys(filled) == before


def test_each_bit_counts(cli: Cli, filled: EtcdMiddleware, tmp_path: Path) -> None:
    file = tmp_path / "b"
    cli("backup", str(file))
    good, whole = file.read_bytes(), list(_archive.raws(file))
    noticed = 0
    for bit in range(8 * len(good)):
        data = bytearray(good)
        data[bit // 8] ^= 1 << bit % 8
        file.write_bytes(data)
        try:
            assert list(_archive.raws(file)) == whole
        except ArchiveError:
            noticed += 1
    # Nothing depends on a few: gzip's time and system, and what fills up its last byte.
    assert noticed > 8 * (len(good) - 10)


def test_a_file_that_was_made_up(cli: Cli, filled: EtcdMiddleware, tmp_path: Path) -> None:
    file = tmp_path / "b"
    _archive.write(file, {"version": 2}, [])
    assert "has version 2, and this link_kv reads 1" in cli.fails(ArchiveError, "restore", str(file))
    _archive.write(file, {}, [[Raw(b"/.link/layout", b"2")]])
    assert "upgrade link_kv" in cli.fails(ConfigError, "restore", str(file), "--replace")
    _archive.write(file, {}, [[Raw(b"foreign", b"2")]])
    assert "needs --prefix /" in cli.fails(ConfigError, "restore", str(file), "--replace")
    for line in (b'["a"]', b"[1, 2]", b'["a", {"base64": "?"}]', b'["a", "b", 1, 2]', b"5"):
        file.write_bytes(gzip.compress(b'{"format":"link_kv backup","version":1}\n' + line + b"\n"))
        assert "is damaged" in cli.fails(ArchiveError, "restore", str(file), "--replace")


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    file = tmp_path / "b"
    _archive.write(file, {}, [[Raw(b"/a", b"1")]])
    good = file.read_bytes()

    def broken() -> Iterator[list[Raw]]:
        yield [Raw(b"/b", b"2")]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _archive.write(file, {}, broken())
    assert file.read_bytes() == good
    assert list(tmp_path.iterdir()) == [file]
    link = tmp_path / "link"
    link.symlink_to(file)
    _archive.write(link, {}, [])
    assert link.is_symlink()
    assert list(_archive.raws(file)) == []


def test_a_whole_etcd(tmp_path: Path) -> None:
    file = tmp_path / "b"
    with local.start() as one, local.start() as two:
        with EtcdMiddleware(endpoints=one.endpoints) as client:
            client["/a"] = {"b": 1}
            client.raw[b"\0"] = b"\0"
            client.raw[b"\xff\xff"] = b"\xff"
            client.raw[b"no slash"] = b"1"
            expected = dict(client.raw.items())
        Cli(one, "/")("backup", str(file))
        Cli(two, "/")("restore", str(file))
        with EtcdMiddleware(endpoints=two.endpoints) as client:
            assert dict(client.raw.items()) == expected
            client["/c"] = 1
            Cli(two, "/")("restore", str(file), "--replace")
            assert dict(client.raw.items()) == expected
