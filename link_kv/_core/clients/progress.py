"""Bars on a terminal for work that takes long."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from link_kv.errors import ConfigError

_LONG = 0.5
"""Seconds of work that a terminal is told nothing of."""


@contextlib.contextmanager
def bar(label: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Show on a terminal, on standard error, that work which takes long goes on; silent elsewhere.

    Call what it gives with the steps made, from any thread. Raises `ConfigError` where rich is missing.
    """
    if not sys.stderr.isatty():
        yield lambda steps: None
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "rich":
            raise
        raise ConfigError("progress is shown by rich: pip install 'link_kv[cli]'") from None

    columns: list[Any] = [SpinnerColumn(), TextColumn("{task.description}", markup=False)]
    if total is not None:
        columns += [BarColumn(), MofNCompleteColumn()]
    shown = Progress(*columns, console=Console(stderr=True), transient=True)
    task = shown.add_task(label, total=total)
    timer = threading.Timer(_LONG, shown.start)
    timer.daemon = True
    timer.start()
    try:
        yield lambda steps: shown.advance(task, steps)
    finally:
        timer.cancel()
        timer.join()
        if shown.live.is_started:
            shown.stop()


def stepwise(label: str) -> Callable[[int], Iterator[None]]:
    """A bar as a callback: called with the number of steps it gives a generator, advanced at the start and at
    each step."""

    def start(total: int) -> Iterator[None]:
        with bar(label, total) as advance:
            yield
            for _ in range(total):
                advance(1)
                yield

    return start
