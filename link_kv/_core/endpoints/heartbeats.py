"""Who has not been heard of for how long. Pure: what time it is, it is told."""

from __future__ import annotations

from typing import Literal

State = Literal["ok", "warning", "critical"]

WARNING, CRITICAL = 120.0, 300.0
"""Seconds of silence."""


class Heartbeats:
    """The services that were heard, and which of them are silent.

    Args:
        warning, critical: seconds of silence after which a service is in that state.
    """

    def __init__(self, warning: float = WARNING, critical: float = CRITICAL) -> None:
        self.warning = warning
        self.critical = critical
        self._last: dict[str, float] = {}
        self._states: dict[str, State] = {}

    def heard(self, name: str, now: float) -> None:
        """A service was heard, or is known from now on."""
        self._last[name] = now

    def changed(self, now: float) -> list[tuple[str, State, float]]:
        """The services whose state is another than when this was last asked, with the seconds of silence."""
        found: list[tuple[str, State, float]] = []
        for name, last in self._last.items():
            silent = now - last
            state: State = (
                "critical" if silent > self.critical else "warning" if silent > self.warning else "ok"
            )
            if state != self._states.get(name, "ok"):
                found.append((name, state, silent))
            self._states[name] = state
        return found

    def next_change(self, now: float) -> float | None:
        """Seconds until a state may change by silence alone; None when none will."""
        waits = [
            last + limit - now
            for name, last in self._last.items()
            for limit in (self.warning, self.critical)
            if last + limit >= now
        ]
        return min(waits, default=None)
