"""A service that counts, and tells all who are linked with it of each beat.

    python examples/heartbeat.py            # until Ctrl-C, or until a client calls `kill`

Where etcd is comes from the environment, as for every program: ``LINK_KV_ENDPOINTS=host:2379``.
"""

from __future__ import annotations

import argparse
import contextlib
import threading

from link_kv.services import Service


class Heartbeat(Service):
    """Emits 0, 1, 2, … to those who are linked with it, one number each ``period`` seconds."""

    def __init__(self, period: float = 1.0) -> None:
        super().__init__()
        self._period = period
        self._count = 0
        self._lock = threading.Lock()
        self._over = threading.Event()

    def reset(self) -> None:
        """Count from 0 again."""
        with self._lock:
            self._count = 0

    def kill(self) -> None:
        """Beat no more, and end the service."""
        self._over.set()
        self.stop()

    def beat(self) -> int:
        """The number that comes next."""
        return self._count

    def shutdown_handler(self) -> None:
        self._over.set()

    def _beat_on(self) -> None:
        while not self._over.wait(self._period):
            with self._lock:
                self.emit_notification(self._count)
                self._count += 1


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--period", type=float, default=1.0, help="seconds between two beats")
    heartbeat = Heartbeat(parser.parse_args().period)
    threading.Thread(target=heartbeat._beat_on, daemon=True).start()
    heartbeat.start()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
