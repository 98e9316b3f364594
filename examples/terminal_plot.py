"""Plot an item live in the terminal: ``python examples/terminal_plot.py [ITEM]``.

It draws each value of ``lab.temperature`` as it comes, until Ctrl-C: a curve on a terminal, a line each in
a pipe. When the connection is gone the plot says so; when it is back, what was missed is drawn. Nothing is
asked for again and again.
"""

from __future__ import annotations

import argparse
import contextlib
import queue
import shutil
import sys
import time
from collections import deque
from collections.abc import Sequence

from link_kv import MISSING, EtcdMiddleware, Item, get

ROWS = 15
CLEAR = "\x1b[2J\x1b[H"


def curve(values: Sequence[float], width: int, rows: int = ROWS) -> str:
    """The newest values as a chart, a column each, with the scale on the left."""
    shown = list(values)[-max(1, width - 10) :]
    if not shown:
        return "no value yet"
    low, high = min(shown), max(shown)
    step = (high - low) / (rows - 1) or 1.0
    heights = [round((value - low) / step) for value in shown]
    lines = []
    for row in range(rows - 1, -1, -1):
        dots = "".join("●" if height == row else " " for height in heights)
        lines.append(f"{low + row * step:8.2f} ┤{dots}")
    return "\n".join(lines)


def bar(value: float, low: float, high: float, width: int = 40) -> str:
    """A value as a line of a length between its extremes."""
    return "█" * (1 + round((width - 1) * (value - low) / ((high - low) or 1)))


def plot(item: Item) -> None:
    """Draw what comes."""
    heard: queue.SimpleQueue[tuple[str, object, float]] = queue.SimpleQueue()
    item.register(
        lambda item, value, timestamp: heard.put(("value", value, timestamp)),
        prime=True,
        on_state=lambda state: heard.put(("state", state, time.time())),
    )
    values: deque[float] = deque(maxlen=1000)
    state = str(item.state)
    while True:
        kind, told, timestamp = heard.get()
        clock = time.strftime("%H:%M:%S", time.localtime(timestamp))
        if kind == "state":
            state = str(told)
        elif told is not MISSING and isinstance(told, (int, float)):
            values.append(told)
        if sys.stdout.isatty():
            title = f"{item.full_key} [{item.description.units or ''}]  {item.formatted}  {clock}  {state}"
            print(f"{CLEAR}{title}\n{curve(values, shutil.get_terminal_size().columns)}", flush=True)
        elif kind == "state":
            print(f"{clock} {state}", flush=True)
        elif values:
            print(f"{clock} {values[-1]:8.2f} {bar(values[-1], min(values), max(values))}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("item", nargs="?", default="lab.temperature")
    with EtcdMiddleware() as client:
        plot(get(parser.parse_args().item, client=client))


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
