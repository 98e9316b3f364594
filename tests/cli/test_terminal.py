"""What a terminal gets: tables, trees, colours, questions, and nothing that it would obey."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from link_kv import EtcdMiddleware

from .command import on_terminal
from .conftest import Cli
from .test_look import HOSTILE

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
# On a busy machine anything may take long enough to show that it goes on.
_PROGRESS = re.compile(r"\x1b\[\?25l.*?\x1b\[1A\x1b\[2K", re.DOTALL)


def seen(cli: Cli, *args: str, status: int = 0, talk: tuple[tuple[str, str], ...] = (), **more: str) -> str:
    """What is on the terminal in the end, without its colours."""
    got, text = on_terminal(*cli.options, *args, talk=talk, **more)
    assert got == status, text
    return _COLOURS.sub("", _PROGRESS.sub("", text)).replace("\r\n", "\n")


def rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


@pytest.fixture(autouse=True)
def lab(etcd_client: EtcdMiddleware) -> None:
    etcd_client["/lab"] = {"a": 0.5, "list": list(range(11)), "raw": b"\0\xff", "none": {}, "sub": {"x": "é"}}


def test_ls_is_a_table(cli: Cli, etcd_client: EtcdMiddleware) -> None:
    revision = str(etcd_client.entry("/lab/a").revision)
    assert rows(seen(cli, "ls", "/lab", "-l")) == [
        ["Name", "Kind", "Keys", "Revision", "Lease"],
        ["a", "leaf", "1", revision, "-"],
        ["list/", "list", "12", "-", "-"],
        ["none/", "dict", "1", "-", "-"],
        ["raw", "leaf", "1", revision, "-"],
        ["sub/", "dict", "1", "-", "-"],
    ]
    text = seen(cli, "ls", "/lab", "--limit", "2")
    assert rows(text)[1:3] == [["a", "leaf", "1"], ["list/", "list", "12"]]
    assert text.splitlines()[-1] == "… and more: --limit shows how many you want, now 2"


def test_tree_is_drawn(cli: Cli) -> None:
    assert seen(cli, "tree", "/lab") == (
        "/lab\n├── a = 0.5\n├── list list\n"
        + "".join(f"│   ├── {number} = {number - 1}\n" for number in range(1, 11))
        + "│   └── 11 = 10\n├── none empty\n├── raw = 2 bytes\n└── sub\n    └── x = é\n"
    )
    assert seen(cli, "tree", "/lab", "--depth", "1") == (
        "/lab\n├── a = 0.5\n├── list list … 11 keys\n├── none empty\n├── raw = 2 bytes\n└── sub … 1 key\n"
    )
    assert "… and more: --limit shows how many lines you want, now 3;" in seen(cli, "tree", "--limit", "3")


def test_get_describes_bytes(cli: Cli, etcd_client: EtcdMiddleware) -> None:
    assert seen(cli, "get", "/lab/raw") == "<2 bytes>\n"
    etcd_client["/text"] = "two\nlines\\ \x1b[31m"
    assert seen(cli, "get", "/text") == "two\nlines\\ \\x1b[31m\n"


def test_status_is_a_table(cli: Cli) -> None:
    text = seen(cli, "status")
    assert re.match(r"Cluster [0-9a-f]+ at revision \d+\n", text)
    assert rows(text)[1] == ["Member", "Endpoint", "Role", "Version", "Database", "Revision", "Latency"]
    assert rows(text)[2][2] in ("leader", "follower")


@pytest.mark.parametrize(
    "command", ["ls /h -l", "tree /h", "get /h", "export /h", "diff /none /h", "get /h/none"]
)
def test_a_terminal_is_never_told_what_to_do(cli: Cli, etcd_client: EtcdMiddleware, command: str) -> None:
    etcd_client["/h"] = HOSTILE
    prefix = etcd_client.prefix.encode()
    etcd_client.raw[prefix + b"/h/foreign"] = b"\xfe\x1b[31m"
    args = command.replace("none", "no\x1b[31m\nne").split(" ")
    _, text = on_terminal(*cli.options, *args)
    # What is left without the colours of ours has no control characters: the hostile escapes are plain text.
    for line in _PROGRESS.sub("", text).replace("\r\n", "\n").split("\n"):
        colours = set(_COLOURS.findall(line))
        assert "\x1b[31m" not in colours or command.startswith("diff")
        assert _COLOURS.sub("", line).isprintable()
    if "none" not in command:
        assert "[bold]rich" in text


def test_without_colours(cli: Cli) -> None:
    _, text = on_terminal(*cli.options, "ls", "/lab", NO_COLOR="1", TERM="dumb")
    assert "\x1b" not in text


def test_deleting_a_tree_asks(cli: Cli, etcd_client: EtcdMiddleware) -> None:
    question = "/lab/list: is a tree of 12 keys. Delete it? [y/N]: "
    text = seen(cli, "del", "/lab/list", status=1, talk=((question, "n"),))
    assert text.endswith("link-kv: nothing was deleted\n")
    assert "/lab/list" in etcd_client
    assert "revision " in seen(cli, "del", "/lab/list", talk=((question, "y"),))
    assert "/lab/list" not in etcd_client
    assert "Delete" not in seen(cli, "del", "-r", "/lab/sub")
    assert "Delete" not in seen(cli, "del", "/lab/a")


def test_importing_asks(cli: Cli, etcd_client: EtcdMiddleware, tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text('{"a": 1, "b": 2}')
    file = str(tmp_path / "t.json")
    before = etcd_client["/lab"]
    question = "1 added, 1 changed, 15 deleted. Write to /lab? [y/N]: "
    text = seen(cli, "import", file, "/lab", status=1, talk=((question, ""),))
    assert text.startswith("- /lab/a = 0.5\n+ /lab/a = 1\n+ /lab/b = 2\n")
    assert text.endswith("link-kv: nothing was changed\n")
    assert etcd_client["/lab"] == before
    seen(cli, "import", file, "/lab", talk=((question, "y"),))
    assert etcd_client["/lab"] == {"a": 1, "b": 2}
    assert "[y/N]" not in seen(cli, "import", file, "/other", "--yes")


_ALL_IS_LONG = """
import threading
from link_kv._core.clients import progress
from link_kv.cli import main

class Now(threading.Timer):
    def start(self):
        super().start()
        self.join()

threading.Timer = Now
progress._LONG = 0.0
main()
"""
"""``link-kv``, which shows that work goes on before it begins."""


def test_long_work_shows_that_it_goes_on(cli: Cli, etcd_client: EtcdMiddleware, tmp_path: Path) -> None:
    etcd_client["/big"] = {str(number): os.urandom(60_000) for number in range(20)}
    command = [sys.executable, "-c", _ALL_IS_LONG, *cli.options]
    status, text = on_terminal(command=[*command, "backup", str(tmp_path / "b")])
    assert status == 0
    assert "copying" in text
    assert text.replace("\r\n", "\n").endswith(f"in {tmp_path}/b\n")
    status, text = on_terminal(command=[*command, "export", "/big"])
    assert "reading" in text
