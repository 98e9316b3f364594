"""Which faults come when: drawn by a seed, each undone before the next."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.client import HTTPException
from typing import Any

from tests.faults.cluster import Cluster, Member
from tests.wire.proxy import Proxy

Fault = Callable[[], None]


class Faults:
    """The faults of one run.

    Args:
        compact: compacts history as far as it is known; called with the cluster whole.
        clients: the processes that can be frozen and killed, if any.
        note: is told of each fault, in a line.
        pause: the shortest and the longest time between two faults, in seconds.
    """

    def __init__(
        self,
        cluster: Cluster,
        proxies: list[Proxy],
        seed: str,
        *,
        compact: Callable[[], None] | None = None,
        clients: Any = None,
        note: Callable[[str], None] = lambda line: None,
        pause: tuple[float, float] = (0.2, 0.8),
    ) -> None:
        self._between = pause
        self.cluster = cluster
        self.proxies = proxies
        self.dice = random.Random(seed)
        self.done: Counter[str] = Counter()
        self._compact = compact
        self._clients = clients
        self._note = note
        self._stop = threading.Event()
        self._deck: list[str] = []

    def kinds(self) -> dict[str, Fault]:
        """The faults that can be made on this cluster, by name."""
        found: dict[str, Fault] = {
            "leader moved": self._move_leader,
            "defragmented": self._defragment,
        }
        if self.proxies:
            found["links slow"] = self._slow
        if self.cluster.safe:
            found["one restarted"] = lambda: self._restart(self._any())
            found["one paused"] = lambda: self._pause([self._any()])
            found["leader paused"] = lambda: self._pause([self.cluster.leader()])
            found["majority paused"] = lambda: self._pause(self._majority())
            found["one killed"] = lambda: self._kill([self._any()])
            found["leader killed"] = lambda: self._kill([self.cluster.leader()])
            found["majority killed"] = lambda: self._kill(self._majority())
        if self.cluster.safe and self.proxies:
            found["links cut"] = self._cut_links
        if self.cluster.safe and self.cluster.partitions:
            found["one cut off"] = lambda: self._cut_off([self._any()])
            found["leader cut off"] = lambda: self._cut_off([self.cluster.leader()])
            found["majority cut off"] = lambda: self._cut_off(self._majority())
        if self._compact is not None:
            found["compacted"] = self._compact
        if self._clients is not None:
            found["clients paused"] = self._pause_clients
        if self._clients is not None and self.cluster.safe:
            found["clients killed"] = self._kill_clients
        return found

    def run(
        self,
        seconds: float,
        longest: float,
        enough: Callable[[], bool],
        after: Callable[[str], None] = lambda name: None,
    ) -> None:
        """Make faults, each of them about equally often; ``after`` is called after each.

        For so many seconds, and then until there is enough, or for as long as may be.
        """
        kinds = self.kinds()
        start = time.monotonic()
        while (gone := time.monotonic() - start) < seconds or (gone < longest and not enough()):
            self._wait(self.dice.uniform(*self._between))
            if not self._deck:
                self._deck = sorted(kinds)
                self.dice.shuffle(self._deck)
            name = self._deck.pop()
            began = time.monotonic()
            self.make(name, kinds[name])
            self._note(f"{name}, {time.monotonic() - began:.1f} s")
            after(name)

    def make(self, name: str, fault: Fault) -> None:
        """Make one fault, and wait until the cluster is whole again."""
        fault()
        self.cluster.whole()
        self.done[name] += 1

    def _wait(self, seconds: float) -> None:
        self._stop.wait(seconds)

    def _any(self) -> Member:
        return self.dice.choice(self.cluster.members)

    def _majority(self) -> list[Member]:
        return self.dice.sample(self.cluster.members, 2)

    def _kill(self, members: list[Member]) -> None:
        for member in members:
            member.kill()
        self._wait(self.dice.uniform(0, 1))

    def _pause(self, members: list[Member]) -> None:
        for member in members:
            member.pause()
        self._wait(self.dice.uniform(0.2, 3))

    def _restart(self, member: Member) -> None:
        member.stop()

    def _cut_off(self, members: list[Member]) -> None:
        self.cluster.cut(members, everything=self.dice.random() < 0.3)
        self._wait(self.dice.uniform(0.5, 3))

    def _move_leader(self) -> None:
        leader, follower = self.cluster.leader(), self.cluster.follower()
        target = follower.status()["header"]["member_id"]
        try:
            leader.ask("/v3/maintenance/transfer-leadership", {"targetID": target}, 10)
        except (OSError, HTTPException, ValueError):
            return  # it may have lost the lead by then, and that is as good

    def _defragment(self) -> None:
        try:
            self._any().ask("/v3/maintenance/defragment", {}, 30)
        except (OSError, HTTPException, ValueError):
            return

    def _slow(self) -> None:
        """Links that stand still for a moment again and again."""
        end = time.monotonic() + self.dice.uniform(1, 3)
        while time.monotonic() < end:
            for proxy in self.proxies:
                proxy.hold()
            self._wait(self.dice.uniform(0.02, 0.2))
            for proxy in self.proxies:
                proxy.release()
            self._wait(self.dice.uniform(0, 0.05))

    def _cut_links(self) -> None:
        """Links that break in every way that there is."""
        for _ in range(self.dice.randint(3, 8)):
            way = self.dice.choice(["cut", "mute and cut", "hold and cut", "close"])
            for proxy in self.proxies:
                if way == "close":
                    proxy.close()
                elif way != "cut":
                    (proxy.mute if way == "mute and cut" else proxy.hold)()
            self._wait(self.dice.uniform(0.01, 0.15))
            for proxy in self.proxies:
                if way == "close":
                    proxy.reopen()
                else:
                    proxy.cut()
                    proxy.release()
            self._wait(self.dice.uniform(0, 0.1))

    def _pause_clients(self) -> None:
        self._clients.pause(self.dice)
        self._wait(self.dice.uniform(0.5, 3))
        self._clients.resume()

    def _kill_clients(self) -> None:
        self._clients.kill(self.dice)
