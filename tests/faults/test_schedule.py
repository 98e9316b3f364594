"""The faults themselves: a seed settles them, and only what took effect counts."""

from __future__ import annotations

import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.faults import schedule
from tests.faults.cluster import Cluster, Member
from tests.faults.programs import Clients, Process
from tests.faults.schedule import Faults


class Clock:
    """Time that passes only where it is waited for, and at a pace of its own."""

    def __init__(self, pace: float) -> None:
        self._pace = pace
        self._now = 0.0

    def monotonic(self) -> float:
        return self._now

    def wait(self, seconds: float) -> None:
        self._now += seconds * self._pace


class FakeMember(Member):
    """Notes what is done to it, and does at once what it is told."""

    def __init__(self, name: str, notes: list[str]) -> None:
        super().__init__(name, name)
        self._notes = notes
        self.on = True
        self.answer: dict[str, Any] = {}
        self.attached = True

    def _note(self, what: str, on: bool) -> None:
        self._notes.append(f"{self} {what}")
        self.on = on

    @property
    def running(self) -> bool:
        return self.on

    def kill(self) -> None:
        self.ended = True
        self._note("killed", False)

    def stop(self) -> None:
        self.ended = True
        self._note("stopped", False)

    def start(self) -> None:
        self.on = True

    def pause(self) -> None:
        self._note("paused", False)

    resume = start

    def log(self) -> str:
        return ""

    def disconnect(self, *, everything: bool) -> None:
        self.attached = False
        self._note(f"cut off, {everything=}", not everything)

    def connect(self) -> None:
        self.attached = self.on = True

    def ask(self, path: str, body: object, timeout: float = 5) -> Any:
        if not self.on:
            raise OSError
        if path == "/v3/kv/range":
            return {"header": {}}
        if path == "/v3/maintenance/status":
            leader = self.name if self.attached else "0"
            return {"header": {"member_id": self.name}, "leader": leader}
        self._notes.append(f"{self} {path}")
        return self.answer


class FakeCluster(Cluster):
    kind = "fakes"
    version = (3, 5, 30)

    def __init__(self, notes: list[str]) -> None:
        super().__init__([FakeMember(f"{number}", notes) for number in (1, 2, 3)])

    @property
    def partitions(self) -> bool:
        return True

    def close(self) -> None: ...


class FakeClients:
    def __init__(self, notes: list[str]) -> None:
        self._notes = notes

    def pause(self, dice: Any) -> None:
        self._notes.append(f"client {dice.randrange(1000)} paused")

    def kill(self, dice: Any) -> None:
        self._notes.append(f"client {dice.randrange(1000)} killed")

    def resume(self) -> None: ...


class FakeProxy:
    connections = 1

    def __getattr__(self, name: str) -> Any:
        return lambda: None


def faults(monkeypatch: pytest.MonkeyPatch, notes: list[str], pace: float = 1, **options: Any) -> Faults:
    clock = Clock(pace)
    monkeypatch.setattr(schedule, "time", clock)
    options.setdefault("clients", FakeClients(notes))
    made = Faults(FakeCluster(notes), [FakeProxy()], "seed", note=notes.append, **options)  # type: ignore[list-item]
    monkeypatch.setattr(made, "_wait", clock.wait)
    return made


def test_a_seed_settles_the_faults_however_long_they_take(monkeypatch: pytest.MonkeyPatch) -> None:
    told = []
    for pace in (1.0, 7.0):
        notes: list[str] = []
        made = faults(monkeypatch, notes, pace, compact=lambda: True)
        made.run(0, 1e9, lambda made=made: sum(made.done.values()) >= 60)
        assert set(made.done) == set(made.kinds())
        # How long each took is what differs.
        told.append([line.partition(", ")[0] if line.endswith(" s") else line for line in notes])
    assert told[0] == told[1]


def test_what_took_no_effect_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    made = faults(monkeypatch, [], compact=lambda: False)
    for member in made.cluster.members:
        member.answer = {"error": "etcdserver: no"}  # type: ignore[attr-defined]
        monkeypatch.setattr(member, "pause", lambda: None)
    made.run(0, 300, lambda: sum(made.done.values()) >= 10)
    vain = {"compacted", "defragmented", "leader moved", "leader paused", "majority paused", "one paused"}
    assert {name for name, number in made.done.items() if not number} == vain
    assert made.cluster.faults == made.done


def test_a_fault_in_vain_is_tried_again_though_there_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    effects = iter([False, False, True])
    made = faults(monkeypatch, [], compact=lambda: next(effects))
    made.run(0, 1e9, lambda: set(made.done) == set(made.kinds()))
    assert made.done["compacted"] == 1
    assert 2 in made.done.values()


def test_networks_that_do_not_isolate_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.faults.cluster._ALONE_SECONDS", 0.05)
    cluster = FakeCluster([])
    monkeypatch.setattr(
        FakeMember, "attached", property(lambda self: True, lambda self, on: None), raising=False
    )
    with pytest.raises(AssertionError, match=r"do not isolate: \[1\]"):
        cluster.cut(cluster.members[:1])


def test_a_client_that_crashed_is_not_taken_for_one_that_was_killed(tmp_path: Path) -> None:
    clients = Clients.__new__(Clients)
    program = Process(tmp_path / "log", "this")
    assert program.line() == "The Zen of Python, by Tim Peters"
    program._popen.wait()
    clients.processes, clients.others = [program], []
    first = SimpleNamespace(choice=lambda found: found[0])
    for what in (clients.kill, clients.pause):
        with pytest.raises(AssertionError, match="this ended by itself, with 0"):
            what(first)  # type: ignore[arg-type]
    with pytest.raises(AssertionError, match="ended by itself"):
        program.signal(signal.SIGCONT)
    program._popen.communicate()
