"""Running ``link-kv`` as a process."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def link_kv(*args: str, temporary: Path, **environment: str) -> subprocess.Popen[str]:
    """Start ``link-kv`` with a directory of its own for temporary files, in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "link_kv.cli", *args],
        env={**os.environ, "TMPDIR": str(temporary), "LINK_KV_HOME": f"{temporary}.home", **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def call(*args: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``link-kv`` to its end, in a pipe."""
    return subprocess.run(
        [sys.executable, "-m", "link_kv.cli", *args],
        env={**os.environ, **environment},
        input=stdin,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )


_ON_A_TERMINAL = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"


def on_terminal(
    *args: str, talk: Sequence[tuple[str, str]] = (), command: Sequence[str] = (), **environment: str
) -> tuple[int, str]:
    """Run ``link-kv`` to its end on a terminal: its status, and all that the terminal got.

    ``talk`` is what to wait for and what to type then. ``command`` is run instead of ``link-kv``.
    """
    command = command or [sys.executable, "-m", "link_kv.cli", *args]
    size = {"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40", "LC_ALL": "C.UTF-8"}
    with subprocess.Popen(
        [sys.executable, "-c", _ON_A_TERMINAL, *command],
        env={**os.environ, **size, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        got, answered, waiting = b"", 0, list(talk)
        while True:
            ready, _, _ = select.select([process.stdout], [], [], 60)
            assert ready, got
            chunk = os.read(process.stdout.fileno(), 65536)
            if not chunk:
                break
            got += chunk
            if waiting and waiting[0][0].encode() in got[answered:]:
                answered = len(got)
                process.stdin.write(waiting.pop(0)[1].encode() + b"\n")
                process.stdin.flush()
        assert not waiting, got
        process.stdin.close()
        return process.wait(60), got.decode()


def line(process: subprocess.Popen[str]) -> str:
    """The next line of its output."""
    assert process.stdout is not None
    return process.stdout.readline()


def end(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Wait for its end: the status, and what is left of its output and errors."""
    output, errors = process.communicate(timeout=60)
    return process.returncode, output, errors


def etcds_below(temporary: Path) -> list[int]:
    """The processes that were started with data below this directory."""
    found = []
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if f"--data-dir={temporary}/".encode() in command.read_bytes():
                found.append(int(command.parent.name))
        except (FileNotFoundError, ProcessLookupError):  # it has just ended
            continue
    return found
