"""Publish a temperature: ``python examples/thermometer.py [--period SECONDS]``.

It writes ``lab.temperature``, in the etcd that the environment names, until Ctrl-C. `terminal_plot.py` shows
it, on this machine or another. Restart etcd meanwhile: this program says what may be lost, and goes on.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import math
import time

from link_kv import EtcdMiddleware, Item, Unavailable, get


def thermometer(client: EtcdMiddleware) -> Item:
    """The item, described. The store is made when it is not there."""
    if "/lab" not in client:
        client["/lab"] = {}
    item: Item = get("lab", client=client).describe(
        "temperature",
        type="numeric",
        description="as measured in the corner of the lab",
        units="degC",
        format="%.2f",
        range=[-50, 150],
    )
    return item


def measure(number: int) -> float:
    """Nobody has a thermometer at hand when trying an example."""
    return round(20 + 5 * math.sin(number / 8) + 0.3 * math.sin(number * 1.7), 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--period", type=float, default=0.5, metavar="SECONDS")
    period = parser.parse_args().period
    with EtcdMiddleware() as client:
        item = thermometer(client)
        for number in itertools.count():
            value = measure(number)
            try:
                item.set(value)
            except Unavailable as error:  # OutcomeUnknown too: it may have been written
                print(f"{value:6.2f} may be lost: {error}", flush=True)
            else:
                print(f"{value:6.2f} written", flush=True)
            time.sleep(period)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
