"""``link-kv up``, and what all commands share."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from link_kv import local

from ..processes import ask, get, gone, put, script, until
from .command import end, etcds_below, line, link_kv

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")


@pytest.fixture
def port() -> int:
    [port] = local._free_ports(1)
    return port


def endpoint_of(process: subprocess.Popen[str]) -> str:
    """Wait until it is up."""
    found = re.search(r"127\.0\.0\.1:\d+", line(process))
    assert found is not None
    return found[0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_it_cleanly(number: signal.Signals, tmp_path: Path, port: int) -> None:
    with link_kv("up", "--port", str(port), temporary=tmp_path) as process:
        endpoint = endpoint_of(process)
        assert endpoint == f"127.0.0.1:{port}"
        assert str(tmp_path) in line(process)
        assert line(process).endswith(f"export LINK_KV_ENDPOINTS={endpoint}\n")
        assert ask(endpoint, "/health")["health"] == "true"
        [pid] = etcds_below(tmp_path)
        os.killpg(process.pid, number)  # as a terminal sends it
        assert end(process) == (0, "\netcd has stopped.\n", "")
    assert gone(pid)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_that_comes_twice_is_one(tmp_path: Path, port: int) -> None:
    with link_kv("up", "--port", str(port), temporary=tmp_path) as process:
        endpoint_of(process)
        began = time.monotonic()
        # Until the interpreter is gone, but for less than the second in which interrupts count as one.
        while process.poll() is None and time.monotonic() - began < 0.8:
            os.killpg(process.pid, signal.SIGINT)
        status, _, errors = end(process)
    assert (status, errors) == (0, "")
    assert list(tmp_path.iterdir()) == []


def test_without_a_port_it_takes_one(tmp_path: Path) -> None:
    with link_kv("up", temporary=tmp_path) as process:
        assert ask(endpoint_of(process), "/health")["health"] == "true"
        process.terminate()
        assert end(process)[0] == 0


def test_two_run_side_by_side(tmp_path: Path) -> None:
    with link_kv("up", temporary=tmp_path) as one, link_kv("up", temporary=tmp_path) as other:
        assert endpoint_of(one) != endpoint_of(other)
        for process in (one, other):
            process.terminate()
            assert end(process)[0] == 0
    assert list(tmp_path.iterdir()) == []


def test_a_data_directory_is_kept(tmp_path: Path, port: int) -> None:
    data = tmp_path / "data"
    for value in (None, "1"):
        with link_kv("up", "--data-dir", str(data), "--port", str(port), temporary=tmp_path) as process:
            endpoint = endpoint_of(process)
            assert line(process) == f"Its data are in {data}.\n"
            assert get(endpoint, "/a") == value
            put(endpoint, "/a", "1")
            process.terminate()
            status, _, errors = end(process)
            assert status == 0
            # An old server is warned about, in one line.
            assert errors == "" or re.fullmatch(r"etcd 3\..* below 3\.5\.5.*\n", errors)
    assert list(tmp_path.iterdir()) == [data]


def test_a_port_that_is_taken_is_one_line(tmp_path: Path, port: int) -> None:
    with (
        local.start(port=port) as etcd,
        link_kv("up", "--port", str(port), temporary=tmp_path) as process,
    ):
        status, output, errors = end(process)
        assert ask(etcd.endpoints[0], "/health")["health"] == "true"
    assert (status, output) == (1, "")
    assert re.fullmatch(rf"link-kv: etcd at 127\.0\.0\.1:{port} .*address already in use.*\n", errors)
    assert list(tmp_path.iterdir()) == []


def test_an_etcd_that_dies_is_one_line(tmp_path: Path, port: int) -> None:
    with link_kv("up", "--port", str(port), temporary=tmp_path) as process:
        endpoint = endpoint_of(process)
        [pid] = etcds_below(tmp_path)
        os.kill(pid, signal.SIGKILL)
        status, _, errors = end(process)
    assert status == 1
    assert re.fullmatch(f"link-kv: etcd at {endpoint} ended by SIGKILL.*\n", errors)
    assert list(tmp_path.iterdir()) == []


def test_killed_itself_it_leaves_no_etcd_behind(tmp_path: Path, port: int) -> None:
    with link_kv("up", "--port", str(port), temporary=tmp_path) as process:
        endpoint_of(process)
        [pid] = etcds_below(tmp_path)
        process.kill()
        end(process)
    until(lambda: gone(pid))


def test_interrupted_before_it_is_up_it_leaves_nothing(tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    mute = script(
        tmp_path / "mute",
        '[ "$1" = --version ] && exec echo "etcd Version: 3.5.30"',
        f"echo $$ > {tmp_path}/writing && mv {tmp_path}/writing {tmp_path}/pid",
        "exec sleep 1000",
    )
    with link_kv("up", temporary=temporary, LINK_KV_ETCD=str(mute)) as process:
        until((tmp_path / "pid").exists)
        os.killpg(process.pid, signal.SIGINT)
        assert end(process) == (0, "\netcd has stopped.\n", "")
    assert gone(int((tmp_path / "pid").read_text()))
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["brew"], "No such command 'brew'. Try 'link-kv --help'."),
        (["up", "--port", "tea"], "Invalid value for '--port': .* Try 'link-kv up --help'."),
        (["up", "--data-dir", __file__], "Invalid value for '--data-dir': .* is a file. Try .*"),
        (["up", "--data-dir", str(Path(__file__).parent)], ".* holds files that are not etcd's: .*"),
    ],
)
def test_a_mistake_is_one_line(args: list[str], message: str, tmp_path: Path) -> None:
    with link_kv(*args, temporary=tmp_path) as process:
        status, output, errors = end(process)
    assert (status, output) == (1, "")
    assert re.fullmatch(f"link-kv: {message}\n", errors)


def test_a_server_that_is_missing_is_one_line(tmp_path: Path) -> None:
    with link_kv("up", temporary=tmp_path, LINK_KV_ETCD=f"{tmp_path}/nowhere") as process:
        assert end(process) == (
            1,
            "",
            f"link-kv: the environment variable LINK_KV_ETCD names '{tmp_path}/nowhere', which is no program"
            " that can run\n",
        )


def test_alone_it_lists_its_commands(tmp_path: Path) -> None:
    with link_kv(temporary=tmp_path) as process:
        status, output, errors = end(process)
    assert (status, errors) == (0, "")
    assert re.search(r"(?m)^  up +Run an etcd", output)
    assert re.search(r"(?m)^  demo +Show what", output)


def test_without_click_it_names_the_extra() -> None:
    text = "import sys; sys.modules['click'] = None; from link_kv.cli import main; main()"
    answer = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True)
    assert (answer.returncode, answer.stdout) == (1, "")
    assert answer.stderr == "link-kv: the command line needs click: pip install 'link_kv[cli]'\n"
