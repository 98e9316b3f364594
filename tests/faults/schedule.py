"""Which faults come when: drawn by a seed, each undone before the next."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from tests.faults.cluster import Cluster, Member
from tests.wire.proxy import Proxy

Fault = Callable[[random.Random], bool]
"""Does it, with dice of its own, and tells whether it took effect."""


class Faults:
    """The faults of one run.

    Args:
        compact: compacts history as far as it is known, and tells whether it did; called with the cluster
            whole.
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
        compact: Callable[[], bool] | None = None,
        clients: Any = None,
        note: Callable[[str], None] = lambda line: None,
        pause: tuple[float, float] = (0.2, 0.8),
    ) -> None:
        self._between = pause
        self.cluster = cluster
        self.proxies = proxies
        self.done: Counter[str] = Counter()
        """How often each kind took effect; 0 for what was tried in vain."""
        self._seed = seed
        self._compact = compact
        self._clients = clients
        self._note = note
        self._stop = threading.Event()

    def kinds(self) -> dict[str, Fault]:
        """The faults that can be made on this cluster, by name."""
        found: dict[str, Fault] = {
            "leader moved": self._move_leader,
            "defragmented": self._defragment,
        }
        if self.proxies:
            found["links slow"] = self._slow
        if self.cluster.safe:
            found["one restarted"] = lambda dice: self._restart(self._any(dice))
            found["one paused"] = lambda dice: self._pause(dice, [self._any(dice)])
            found["leader paused"] = lambda dice: self._pause(dice, [self.cluster.leader()])
            found["majority paused"] = lambda dice: self._pause(dice, self._majority(dice))
            found["one killed"] = lambda dice: self._kill(dice, [self._any(dice)])
            found["leader killed"] = lambda dice: self._kill(dice, [self.cluster.leader()])
            found["majority killed"] = lambda dice: self._kill(dice, self._majority(dice))
        if self.cluster.safe and self.proxies:
            found["links cut"] = self._cut_links
        if self.cluster.safe and self.cluster.partitions:
            found["one cut off"] = lambda dice: self._cut_off(dice, [self._any(dice)])
            found["leader cut off"] = lambda dice: self._cut_off(dice, [self.cluster.leader()])
            found["majority cut off"] = lambda dice: self._cut_off(dice, self._majority(dice))
        if (compact := self._compact) is not None:
            found["compacted"] = lambda dice: compact()
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

        For so many seconds, and then until there is enough and each kind that was tried took effect once, or
        for as long as may be.
        """
        kinds = self.kinds()
        # What is drawn depends on the seed alone, and not on how long a fault before it took.
        order = random.Random(f"{self._seed} order")
        deck: list[str] = []
        start = time.monotonic()

        def complete() -> bool:
            return enough() and all(self.cluster.faults[name] for name in self.done)

        for number in itertools.count():
            gone = time.monotonic() - start
            if gone >= seconds and (gone >= longest or complete()):
                return
            dice = random.Random(f"{self._seed} {number}")
            self._wait(dice.uniform(*self._between))
            if not deck:
                deck = sorted(kinds)
                order.shuffle(deck)
            name = deck.pop()
            began = time.monotonic()
            effect = "" if self.make(name, kinds[name], dice) else ", without effect"
            self._note(f"{name}, {time.monotonic() - began:.1f} s{effect}")
            after(name)

    def make(self, name: str, fault: Fault, dice: random.Random) -> bool:
        """Make one fault, and wait until the cluster is whole again; whether it took effect."""
        took_effect = fault(dice)
        self.cluster.whole()
        self.done[name] += took_effect
        self.cluster.faults[name] += took_effect
        self.cluster.tries[name] += 1
        return took_effect

    def _wait(self, seconds: float) -> None:
        self._stop.wait(seconds)

    def _any(self, dice: random.Random) -> Member:
        return dice.choice(self.cluster.members)

    def _majority(self, dice: random.Random) -> list[Member]:
        return dice.sample(self.cluster.members, 2)

    def _kill(self, dice: random.Random, members: list[Member]) -> bool:
        for member in members:
            member.kill()
        self._wait(dice.uniform(0, 1))
        return all(member.silent() for member in members)

    def _pause(self, dice: random.Random, members: list[Member]) -> bool:
        for member in members:
            member.pause()
        self._wait(dice.uniform(0.2, 3))
        return all(member.silent() for member in members)

    def _restart(self, member: Member) -> bool:
        member.stop()
        return member.silent()

    def _cut_off(self, dice: random.Random, members: list[Member]) -> bool:
        everything = dice.random() < 0.3
        self.cluster.cut(members, everything=everything)
        self._wait(dice.uniform(0.5, 3))
        return all(member.silent() for member in members) if everything else True

    def _move_leader(self, dice: random.Random) -> bool:
        leader, follower = self.cluster.leader(), self.cluster.follower()
        target = follower.status().get("header", {}).get("member_id", "0")
        # It may have lost the lead by then. That is as good, but not this fault.
        return leader.does("/v3/maintenance/transfer-leadership", {"targetID": target}, 10)

    def _defragment(self, dice: random.Random) -> bool:
        return self._any(dice).does("/v3/maintenance/defragment", {}, 30)

    def _slow(self, dice: random.Random) -> bool:
        """Links that stand still for a moment again and again."""
        used = False
        end = time.monotonic() + dice.uniform(1, 3)
        while time.monotonic() < end:
            used = used or self._used()
            for proxy in self.proxies:
                proxy.hold()
            self._wait(dice.uniform(0.02, 0.2))
            for proxy in self.proxies:
                proxy.release()
            self._wait(dice.uniform(0, 0.05))
        return used

    def _cut_links(self, dice: random.Random) -> bool:
        """Links that break in every way that there is."""
        used = False
        for _ in range(dice.randint(3, 8)):
            used = used or self._used()
            way = dice.choice(["cut", "mute and cut", "hold and cut", "close"])
            for proxy in self.proxies:
                if way == "close":
                    proxy.close()
                elif way != "cut":
                    (proxy.mute if way == "mute and cut" else proxy.hold)()
            self._wait(dice.uniform(0.01, 0.15))
            for proxy in self.proxies:
                if way == "close":
                    proxy.reopen()
                else:
                    proxy.cut()
                    proxy.release()
            self._wait(dice.uniform(0, 0.1))
        return used

    def _used(self) -> bool:
        """Whether anybody is connected over a link."""
        return any(proxy.connections for proxy in self.proxies)

    def _pause_clients(self, dice: random.Random) -> bool:
        self._clients.pause(dice)
        self._wait(dice.uniform(0.5, 3))
        self._clients.resume()
        return True

    def _kill_clients(self, dice: random.Random) -> bool:
        self._clients.kill(dice)
        return True
