"""Programs that end, are ended and fork with everything open, or with all of it closed: they do end, and have
no traceback to show.

Each way is tried while nothing happens, while threads call, and while etcd cannot be reached. Then what is
left waits for it as long as the clients' timeouts are, one after the other.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from tests.faults.ending import SECONDS, STATES, WAYS
from tests.faults.run import Outcome, Run
from tests.leases import ROOT

_SIGNALS = {"SIGINT": signal.SIGINT, "SIGTERM": signal.SIGTERM, "exit at SIGTERM": signal.SIGTERM}
_STATUS = {"SIGINT": 130, "SIGTERM": -signal.SIGTERM}
_AT_ONCE = 4
_BOUND = 15.0
"""Seconds that it may take. While etcd is silent, what is left waits for a client's timeout of 5 s."""
_CLOSING = 40.0
"""The same where one thing after the other is closed, and waits."""
_WRONG = re.compile(r"Traceback|Exception in|Exception ignored|Fatal|Segmentation|never (retrieved|awaited)")


def run(run: Run) -> list[Outcome]:
    outcome = Outcome("endings")
    rounds = run.profile.endings
    combinations = [(way, state) for way in WAYS for state in STATES] * rounds

    def one(number: int) -> float:
        way, state = combinations[number]
        return _end(run, outcome, way, state, f"/endings/{number}")

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        took = list(pool.map(one, range(len(combinations))))
    longest = {
        state: max(seconds for seconds, (_, each) in zip(took, combinations, strict=True) if each == state)
        for state in STATES
    }
    outcome.figures = (
        f"{rounds} times {len(WAYS) * len(STATES)} combinations of {len(WAYS)} ways, {len(STATES)} states; "
        f"they took up to {', '.join(f'{seconds:.1f} s {state}' for state, seconds in longest.items())}"
    )
    return [outcome]


def _end(run: Run, outcome: Outcome, way: str, state: str, prefix: str) -> float:
    """End one program; how long that took."""
    endpoint = run.cluster.endpoints[0]
    with subprocess.Popen(
        [sys.executable, "-m", "tests.faults.ending", way, state, endpoint, prefix],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    ) as program:
        assert program.stdout is not None
        ready = program.stdout.readline()
        began = time.monotonic()
        if way in _SIGNALS:
            program.send_signal(_SIGNALS[way])
        try:
            said, errors = program.communicate(timeout=2 * SECONDS)
        except subprocess.TimeoutExpired:
            program.kill()
            said, errors = program.communicate()
    took = time.monotonic() - began
    name, status = f"{way}, {state}", program.returncode
    if ready != "ready\n":
        outcome.demand(False, "did not begin", f"{name}: {ready}{errors[-1000:]}")
    elif status in (-signal.SIGALRM, -signal.SIGKILL):
        outcome.demand(False, "hung", f"{name}: {errors[-3000:]}")
    else:
        outcome.demand(
            status == _STATUS.get(way, 0), "status", f"{name}: ended with {status}: {errors[-1000:]}"
        )
        outcome.demand(not said, "said something", f"{name}: {said[:1000]}")
        outcome.demand(not _WRONG.search(errors), "traceback", f"{name}: {errors[:3000]}")
        bound = _CLOSING if way == "close" else _BOUND
        outcome.demand(took <= bound, "ended late", f"{name}: after {took:.1f} s")
    return took
