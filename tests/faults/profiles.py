"""How much of everything: the figures that each profile must reach."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Profile:
    name: str
    seconds: float
    """How long the history is made."""
    operations: int
    """How many operations it must have, and how many faults."""
    faults: int
    made: int = 0
    """How many it goes on for, if more: a watcher that a compaction overtakes is told fewer events."""
    pause: tuple[float, float] = (0.2, 0.8)
    """The shortest and the longest time between two of these, in seconds."""
    rate: float = 100.0
    """Below so many operations a second that succeed, it tells nothing."""
    events: int = 20_000
    """How many events each watcher must have had."""
    resyncs: int = 50
    """How often what follows must read anew."""
    pauses: int = 10
    """How often a holder of the lock is frozen."""
    unknown: int = 100
    """How many writes must have an unknown outcome, and how long that is tried."""
    longest_failing: float = 60
    freezes: int = 5
    """How often a frozen member must be noticed."""
    tree_reads: int = 5000
    """How often a tree of 1,000 keys is read, and how long that is tried."""
    longest_reading: float = 90
    big_tree: int = 0
    """How many keys one tree more has."""
    outages: int = 6
    """How often all that follows etcd is cut off from it."""
    fuzz: float = 60
    """Seconds that each of five programs has for handing in nonsense, three at a time."""
    connects: int = 1000
    """How many clients come and go, and as many watches."""
    services: int = 100
    """How many services are started and stopped."""
    endings: int = 1
    """How often a program ends in each of the ways."""


SHORT = Profile("short", seconds=75, operations=40_000, faults=20, events=20_000)
LONG = Profile(
    "long",
    seconds=1500,
    operations=1_000_000,
    made=1_260_000,
    faults=500,
    pause=(0.5, 2.5),
    events=1_000_000,
    resyncs=2000,
    pauses=200,
    unknown=5000,
    longest_failing=600,
    freezes=50,
    tree_reads=200_000,
    longest_reading=2000,
    big_tree=32_000,
    outages=60,
    fuzz=180,
    connects=10_000,
    services=1000,
    endings=5,
)

PROFILES = {profile.name: profile for profile in (SHORT, LONG)}
