"""What the tests of transactions share."""

from __future__ import annotations

from collections.abc import Callable


class Once:
    """Something that is done in the first run of a transaction, and not again."""

    def __init__(self, act: Callable[[], object]) -> None:
        self._act = act
        self.runs = 0

    def __call__(self) -> None:
        self.runs += 1
        if self.runs == 1:
            self._act()
