"""``link-kv demo``: the first thing that a new user sees."""

from __future__ import annotations

import ast
import os
import re
import signal
import sys
from pathlib import Path

import pytest

from link_kv.cli.demo import TREE

from ..processes import gone, script
from .command import end, etcds_below, line, link_kv

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")

KEYS = """\
    /store/enabled       true
    /store/filters/      []
    /store/filters/1     red
    /store/filters/2     green
    /store/limits/high   10
    /store/limits/low    -0.5
    /store/name          Lab 3
    /store/notes/        {}
"""


def test_it_shows_a_value_going_in_and_coming_out(tmp_path: Path) -> None:
    with link_kv("demo", temporary=tmp_path) as process:
        status, output, errors = end(process)
    assert (status, errors) == (0, "")
    assert KEYS in output
    # What it shows is what Python would show.
    shown = output.split("\n>>> client['/store']\n")[1].split("\n\n")[0]
    assert ast.literal_eval(shown) == TREE
    for step in (
        ">>> client['/store/limits/high'] = 12\n>>> client['/store/limits']\n{'high': 12, 'low': -0.5}\n",
        ">>> del client['/store/limits/high']\n>>> client['/store/limits']\n{'low': -0.5}\n",
        ">>> del client['/store']\n>>> '/store' in client\nFalse\n",
    ):
        assert step in output
    assert output.endswith("\netcd has stopped, and nothing is left behind.\n")
    assert etcds_below(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_it_runs_whatever_the_environment_says_of_another_etcd(tmp_path: Path) -> None:
    elsewhere = {
        "LINK_KV_ENDPOINTS": "127.0.0.1:1",
        "LINK_KV_PREFIX": "/mine",
        "LINK_KV_USER": "me",
        "LINK_KV_PASSWORD": "secret",
        "LINK_KV_TLS": "yes",
        "LINK_KV_EXPECTED_CLUSTER_ID": "1",
    }
    with link_kv("demo", temporary=tmp_path, **elsewhere) as process:
        status, output, errors = end(process)
    assert (status, errors) == (0, "")
    assert KEYS in output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_leaves_nothing(number: signal.Signals, tmp_path: Path) -> None:
    with link_kv("demo", temporary=tmp_path) as process:
        line(process)  # the server is up, and the demo is on its way
        pids = etcds_below(tmp_path)
        os.killpg(process.pid, number)
        status, _, errors = end(process)
    assert (status, errors) in ((130, "\nlink-kv: interrupted\n"), (0, ""))  # 0: it was done already
    assert all(map(gone, pids))
    assert etcds_below(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_it_leaves_nothing_when_nobody_reads(tmp_path: Path) -> None:
    with link_kv("demo", temporary=tmp_path) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        errors = process.stderr.read()
        process.wait(60)
    assert "Traceback" not in errors
    assert etcds_below(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_a_failure_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    dead = script(
        tmp_path / "dead",
        '[ "$1" = --version ] && exec echo "etcd Version: 3.5.30"',
        "echo no space left on this machine",
        "exit 1",
    )
    with link_kv("demo", temporary=temporary, LINK_KV_ETCD=str(dead)) as process:
        status, output, errors = end(process)
    assert (status, output) == (1, "")
    assert re.fullmatch(r"link-kv: etcd at \S+ ended .*: no space left on this machine\n", errors)
    assert list(temporary.iterdir()) == []
