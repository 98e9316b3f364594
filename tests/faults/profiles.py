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
    rate: float = 100.0
    """Below so many operations a second that succeed, it tells nothing."""
    events: int = 20_000
    """How many events each watcher must have had."""
    resyncs: int = 50
    """How often what follows must read anew."""


SHORT = Profile("short", seconds=75, operations=40_000, faults=20, events=20_000)
LONG = Profile("long", seconds=1200, operations=1_000_000, faults=500, events=1_000_000, resyncs=2000)

PROFILES = {profile.name: profile for profile in (SHORT, LONG)}
