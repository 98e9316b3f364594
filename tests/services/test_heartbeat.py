"""The session of msl-network's documentation, on ``examples/heartbeat.py``, two programs and an etcd."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ..processes import until

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "heartbeat.py"


def test_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    # Not by capfd: what another thread prints while that reads, it may cut off.
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)

    def printed() -> list[str]:
        return out.getvalue().split("\n")[:-1]  # the last may be half a line

    with subprocess.Popen([sys.executable, str(EXAMPLE), "--period", "0.02"], env={**os.environ}) as process:
        try:
            _session(printed)
            assert process.wait(30) == 0
        finally:
            process.kill()
    numbers = [int(line.split("(")[1].split(",")[0]) for line in printed()]
    again = numbers.index(0, 1)
    assert numbers[:again] == list(range(numbers[0], numbers[0] + again))
    assert numbers[again:] == list(range(len(numbers) - again))


def _session(printed: object) -> None:
    import types

    from link_kv import LinkedClient, connect

    LinkedClient("Heartbeat", timeout=30).disconnect()  # until it is there

    cxn = connect()
    heartbeat = cxn.link("Heartbeat")

    def print_notification(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        print(f"The {self.service_name} Service emitted", args, kwargs)

    heartbeat.notification_handler = types.MethodType(print_notification, heartbeat)
    until(lambda: len(printed()) > 5)  # type: ignore[operator]
    heartbeat.reset()
    until(lambda: "The Heartbeat Service emitted (3,) {}" in printed()[5:])  # type: ignore[operator]
    heartbeat.kill()
    cxn.disconnect()
