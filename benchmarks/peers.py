"""Other clients, each in an environment of its own below ``.benchmarks/``, made at the first run."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from pathlib import Path

from benchmarks.measure import Row

HERE = Path(__file__).parent
ENVIRONMENTS = HERE.parent / ".benchmarks"

PEERS = {
    "etcd3": ["etcd3==0.12.0", "protobuf<3.21", "grpcio"],
    "aetcd": ["aetcd"],
    "etcetra": ["etcetra", "setuptools<81"],
    "etcd3gw": ["etcd3gw"],
}

SERVICES = {"msl-network": ["msl-network==1.0.0"]}
"""Peers of `benchmarks.services`, which hold no values."""


def environment(name: str) -> Path:
    """The Python of a peer's environment."""
    home = ENVIRONMENTS / name
    python = home / "bin" / "python"
    done = home / "installed.txt"
    packages = (PEERS | SERVICES)[name]
    wanted = "\n".join(packages)
    if not done.exists() or done.read_text() != wanted:
        print(f"installing {' '.join(packages)}", file=sys.stderr)
        venv.create(home, clear=True, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *packages], check=True)
        done.write_text(wanted)
    return python


def measure(python: Path | str, script: str, endpoint: str) -> dict[str, float]:
    """Puts and gets a second, as the script of a peer prints them."""
    done = subprocess.run(
        [python, HERE / "clients" / f"{script}.py", endpoint],
        check=True,
        capture_output=True,
        text=True,
        cwd=HERE.parent,
        env={"PYTHONPATH": str(HERE.parent), "PATH": ""},
    )
    return dict(json.loads(done.stdout))


def run(endpoint: str) -> list[Row]:
    rows = []
    for name in PEERS:
        python = environment(name)
        kind = "link_kv_asyncio" if name in ("aetcd", "etcetra") else "link_kv_blocking"
        ours, theirs = measure(sys.executable, kind, endpoint), measure(python, f"peer_{name}", endpoint)
        for what in ("put", "get"):
            ratio = ours[what] / theirs[what]
            rows.append(
                Row(f"{what}s in a row", ours[what], theirs[what], "/s", name, ratio, 0.85, at_least=True)
            )
    return rows
