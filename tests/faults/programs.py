"""The processes of a run: started, frozen, killed and replaced."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.leases import ROOT

_SECONDS = 60.0


class Process:
    """A module of ours, run in a process of its own. It says ``ready``, and works until its input ends.

    What it logs goes to a file, behind what is there.
    """

    def __init__(self, log: Path, module: str, *arguments: str) -> None:
        self._module = module
        with log.open("a") as file:
            self._popen = subprocess.Popen(
                [sys.executable, "-W", "ignore::DeprecationWarning", "-m", module, *arguments],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
            )

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def running(self) -> bool:
        return self._popen.poll() is None

    def line(self) -> str:
        """The next line that it says; empty when it has ended."""
        assert self._popen.stdout is not None
        return self._popen.stdout.readline().strip()

    def ready(self) -> None:
        said = self.line()
        assert said == "ready", f"{self._module} said {said!r}"

    def tell(self, line: str) -> None:
        assert self._popen.stdin is not None
        self._popen.stdin.write(line + "\n")
        self._popen.stdin.flush()

    def signal(self, number: int) -> None:
        self.must_run()
        self._popen.send_signal(number)
        if number == signal.SIGSTOP:
            os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
            self.must_run()

    def must_run(self) -> None:
        """What ends before it is told to has crashed, and nobody may take it for one that was killed."""
        assert self.running, f"{self._module} ended by itself, with {self._popen.returncode}: see the log"

    def kill(self) -> None:
        self._popen.kill()
        self._popen.communicate()

    def close(self) -> None:
        """Kill it, if it runs still."""
        if self.running:
            self.kill()

    def finish_input(self) -> None:
        """Let it come to an end, whose words are read elsewhere."""
        assert self._popen.stdin is not None
        self._popen.stdin.close()
        self._popen.wait(_SECONDS)

    def finish(self) -> None:
        """End its input, and wait for its end."""
        self._popen.communicate(timeout=_SECONDS)
        assert self._popen.returncode == 0, f"{self._module} ended with {self._popen.returncode}"


class Clients:
    """Several processes of clients; one that is killed is replaced by one with another number."""

    def __init__(self, number: int, start: Callable[[int], Process]) -> None:
        self._start = start
        self._next = 0
        self.others: list[Process] = []
        """What is frozen as well, and not killed: it must tell everything that it saw."""
        self.processes: list[Process] = []
        for _ in range(number):
            self._add()
        for process in self.processes:
            process.ready()

    def _add(self) -> None:
        self.processes.append(self._start(self._next))
        self._next += 1

    def pause(self, dice: random.Random) -> None:
        """Freeze one of them, or of the others that may be frozen."""
        dice.choice([*self.processes, *self.others]).signal(signal.SIGSTOP)

    def resume(self) -> None:
        for process in (*self.processes, *self.others):
            process.signal(signal.SIGCONT)

    def kill(self, dice: random.Random) -> None:
        victim = dice.choice(self.processes)
        victim.must_run()
        self.processes.remove(victim)
        victim.kill()
        self._add()
        self.processes[-1].ready()

    def finish(self) -> None:
        for process in self.processes:
            process.finish()

    def close(self) -> None:
        for process in self.processes:
            process.close()
