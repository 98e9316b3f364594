"""Finding stores without a client: on the configured cluster, on those that are remembered, and offline."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from link_kv import (
    ConfigError,
    EtcdMiddleware,
    LinkKVError,
    Store,
    Unavailable,
    discover,
    get,
    home,
    items,
    local,
)
from link_kv._core.items import finding
from link_kv._core.items import home as home_module

from .processes import until


@pytest.fixture(autouse=True)
def at_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A home of its own, and no other configuration; nothing listens on the default port of these tests."""
    monkeypatch.setattr(home_module, "_home", None)
    for name in [name for name in os.environ if name.startswith("LINK_KV_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("LINK_KV_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LINK_KV_ENDPOINTS", "127.0.0.1:1")
    monkeypatch.setenv("LINK_KV_TIMEOUT", "2")
    return tmp_path / "home"


@pytest.fixture(autouse=True)
def no_clients_stay(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    clients: dict[tuple[str | None, ...], EtcdMiddleware] = {}
    monkeypatch.setattr(items, "_clients", clients)
    yield
    for client in clients.values():
        client.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[local.LocalEtcd]:
    with local.start(tmp_path / "data") as server:
        with EtcdMiddleware(endpoints=server.endpoints) as client:
            client["/Oven"] = {"TEMP": 20, "Door": "shut"}
            client["/lamp"] = {"on": True}
            client["/value"] = 5
            get("oven", client=client).describe("TEMP", type="numeric", units="degC")
        yield server


@pytest.fixture
def other() -> Iterator[local.LocalEtcd]:
    with local.start() as server:
        with EtcdMiddleware(endpoints=server.endpoints) as client:
            client["/Pump"] = {"rate": 1}
            client["/OVEN"] = {"TEMP": 99}
        yield server


def port(server: local.LocalEtcd) -> int:
    return int(server.endpoints[0].rpartition(":")[2])


def use(monkeypatch: pytest.MonkeyPatch, server: local.LocalEtcd) -> None:
    monkeypatch.setenv("LINK_KV_ENDPOINTS", server.endpoints[0])


def test_the_configured_cluster_needs_no_client(
    server: local.LocalEtcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, server)
    item = get("oven.temp")
    assert item == 20
    assert get("OVEN", "Temp") is item
    item.set(21)
    with EtcdMiddleware(endpoints=server.endpoints) as client:
        assert get("oven.temp", client=client) is item
        assert client["/Oven/TEMP"] == 21
    assert item.state == "live"


def test_what_was_discovered_needs_no_client(server: local.LocalEtcd, at_home: Path) -> None:
    with pytest.raises(Unavailable):
        get("oven")
    assert discover(server.endpoints[0]) == ["Oven", "lamp"]
    item = get("oven.temp")
    assert item == 20
    assert item.state == "live"
    with pytest.raises(LinkKVError, match=r"no store 'nothing' on .*127.0.0.1:1 did not answer"):
        get("nothing")


def test_what_is_remembered_is_safe_to_keep(server: local.LocalEtcd, at_home: Path) -> None:
    discover(server.endpoints[0])
    [file] = (at_home / "stores").iterdir()
    content = json.loads(file.read_text())
    assert content["address"] == server.endpoints[0]
    assert content["stores"] == {
        "Oven": {"TEMP": {"type": "numeric", "units": "degC"}, "Door": {}},
        "lamp": {"on": {}},
    }
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert set(content) == {"address", "prefix", "cluster", "seen", "stores"}


def test_the_port_may_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINK_KV_TIMEOUT", "0.2")
    with pytest.raises(Unavailable, match="no cluster answers"):
        discover("127.0.0.9")  # where nobody's etcd listens
    assert [client._config.endpoints for client in items._clients.values()] == [
        ("127.0.0.1:1",),
        ("127.0.0.9:2379",),
    ]
    for wrong in ("", "host:port", "h:1:2"):
        with pytest.raises(ConfigError, match="an address is a host, or host:port"):
            discover(wrong)


def test_of_several_addresses_one_that_answers_is_enough(
    server: local.LocalEtcd, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert discover("127.0.0.1:1", server.endpoints[0]) == ["Oven", "lamp"]
    assert "127.0.0.1:1 was not discovered" in caplog.text


def test_without_an_address_all_that_is_known_is_asked(
    server: local.LocalEtcd, other: local.LocalEtcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    discover(other.endpoints[0])
    use(monkeypatch, server)
    assert discover() == ["OVEN", "Oven", "Pump", "lamp"]


def test_a_store_on_two_clusters_is_an_error_that_names_both(
    server: local.LocalEtcd, other: local.LocalEtcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, server)
    assert get("oven.temp") == 20
    discover(other.endpoints[0])
    assert get("pump.rate") == 1
    # The instance that there is stays; a program that begins now is told.
    items._default_client()._stores.clear()
    with pytest.raises(
        LinkKVError, match=rf"'oven': is on {server.endpoints[0]} and on {other.endpoints[0]}"
    ):
        get("oven.temp")
    with EtcdMiddleware(endpoints=other.endpoints) as client:
        assert get("oven.temp", client=client) == 99


def test_one_cluster_under_two_addresses_is_one(
    server: local.LocalEtcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINK_KV_ENDPOINTS", f"localhost:{port(server)}")
    discover(server.endpoints[0])
    item = get("oven.temp")
    with EtcdMiddleware(endpoints=server.endpoints) as client:
        assert get("oven.temp", client=client) is item


def test_two_clusters_with_one_id_are_two(tmp_path: Path) -> None:
    """etcd without options has the same id on every machine."""
    peer = "http://127.0.0.1:2380"
    servers = []
    for number in range(2):
        client_port, peer_port = local._free_ports(2)
        servers.append((client_port, _default_etcd(tmp_path / str(number), client_port, peer_port, peer)))
    try:
        found = []
        for number, (client_port, _) in enumerate(servers):
            client = EtcdMiddleware(endpoints=[f"127.0.0.1:{client_port}"], timeout=20)
            client["/s"] = {"a": number}  # as soon as it is there
            found.append(finding.find(client, "s"))
        one, two = found
        assert one is not None
        assert two is not None
        assert one.cluster == two.cluster
        assert one.revision == two.revision
        # Even what was written is the same but for the value: now one of them goes on.
        two.client["/s/a"] = 2
        again = finding.find(two.client, "s")
        assert again is not None
        assert not finding.same_cluster(one, again)
        first, second = get("s", client=one.client), get("s", client=again.client)
        assert first is not second
        assert (first["a"], second["a"]) == (0, 2)
        one.client.close()
        two.client.close()
    finally:
        for _, process in servers:
            process.kill()
            process.wait()


def _default_etcd(data: Path, client_port: int, peer_port: int, peer: str) -> subprocess.Popen[bytes]:
    url = f"http://127.0.0.1:{client_port}"
    return subprocess.Popen(
        [
            local._find(None),
            f"--data-dir={data}",
            f"--listen-client-urls={url}",
            f"--advertise-client-urls={url}",
            f"--listen-peer-urls=http://127.0.0.1:{peer_port}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def test_offline_descriptions_are_there_and_marked(server: local.LocalEtcd, tmp_path: Path) -> None:
    discover(server.endpoints[0])
    server.stop()
    start = time.monotonic()
    item = get("OVEN.temp")
    assert item.state == item.store.state == "cached"
    assert item.description.units == "degC"
    assert (item.value, item.timestamp, item.revision) == (None, None, 0)
    assert item.reading().state == "cached"
    assert dict(item.store.snapshot()).keys() == {"temp", "door"}
    assert item.path == "/Oven/TEMP"
    for act in (lambda: item.set(5), lambda: item.register(print), lambda: item.get(refresh=True)):
        with pytest.raises(Unavailable, match=r"oven: .* could not be reached"):
            act()
    assert time.monotonic() - start < 20

    def is_quick() -> bool:
        again = time.monotonic()
        assert get("oven.temp") is item
        return time.monotonic() - again < 1

    until(is_quick)  # it is not asked for again and again
    with pytest.raises(KeyError):
        get("oven.nothing")
    with local.start(tmp_path / "data", port=port(server)):
        item.store._again = 0.0
        until(lambda: get("oven.temp").state == "live")
        assert get("oven.temp") is item
        assert item == 20
        item.set(21)
        assert item == 21


def test_offline_with_a_client(server: local.LocalEtcd) -> None:
    discover(server.endpoints[0])
    server.stop()
    with EtcdMiddleware(endpoints=server.endpoints, timeout=0.5) as client:
        store: Store = get("oven", client=client)
        assert store.state == "cached"
        assert repr(store) == "<Store oven, 2 items, cached>"
        with pytest.raises(Unavailable):
            get("pump", client=client)


def test_a_cluster_that_does_not_answer_is_not_waited_for_long(
    server: local.LocalEtcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINK_KV_TIMEOUT", "60")
    discover(server.endpoints[0])
    start = time.monotonic()
    assert get("oven.temp") == 20
    assert time.monotonic() - start < 20


def test_a_fresh_home_knows_nothing_and_says_so(server: local.LocalEtcd, tmp_path: Path) -> None:
    """The very first call of a program."""
    program = """
from link_kv import LinkKVError, get
try:
    get("nothing")
except KeyError:
    raise
except LinkKVError as error:
    print(error)
"""
    environment = {**os.environ, "LINK_KV_HOME": f"{tmp_path}/new", "LINK_KV_ENDPOINTS": server.endpoints[0]}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
    assert "no store 'nothing'" in done.stdout


def test_home_is_where_it_is_kept(server: local.LocalEtcd, tmp_path: Path) -> None:
    home(str(tmp_path / "elsewhere"))
    discover(server.endpoints[0])
    assert len(list((tmp_path / "elsewhere" / "stores").iterdir())) == 1
