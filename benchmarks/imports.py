"""What importing costs, beside importing grpc."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys

from benchmarks.measure import Row

ROUNDS = 15
_TIMED = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"


def seconds(module: str) -> float:
    # An installed package is compiled. One in a checkout must be let keep what it compiled.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, "-c", _TIMED.format(module)],
        check=True,
        capture_output=True,
        text=True,
        env=environment,
    )
    return float(done.stdout)


def run(endpoint: str) -> list[Row]:
    seconds("link_kv")  # compiles it
    times = [(seconds("link_kv"), seconds("grpc")) for _ in range(ROUNDS)]
    ours = statistics.median(a for a, _ in times) * 1e3
    theirs = statistics.median(b for _, b in times) * 1e3
    return [Row("import link_kv", ours, theirs + 40, "ms", "import grpc + 40 ms", ours / (theirs + 40), 1.0)]
