"""Running ``link-kv`` as a process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def link_kv(*args: str, temporary: Path, **environment: str) -> subprocess.Popen[str]:
    """Start ``link-kv`` with a directory of its own for temporary files, in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "link_kv.cli", *args],
        env={**os.environ, "TMPDIR": str(temporary), **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


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
