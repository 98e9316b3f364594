"""``python -m benchmarks [NAME…|all] [--save FILE] [--compare FILE] [--endpoint HOST:PORT]``."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Iterable
from pathlib import Path

from benchmarks.measure import Row
from link_kv import local

NAMES = {
    "small": "set and get of a small value",
    "trees": "trees of 10,000 leaves, flat updates, appends",
    "tasks": "asyncio: 64 tasks of puts",
    "watching": "from a put to the callback, many writers, the lag of a callback",
    "items": "reading an item, a store of 10,000, a hundred written at once",
    "configuration": "a write in force, 1,000 parameters applied, what 100 processes acknowledge",
    "endpoints": "thirty endpoints at 10 Hz: jitter, memory, alerts heard and recorded",
    "services": "calls and notifications beside msl-network, plain and with TLS; a thousand services listed",
    "imports": "import link_kv",
    "peers": "put and get beside other clients, each in an environment of its own",
}


def table(rows: Iterable[Row], before: dict[str, float]) -> None:
    print(f"{'what':28} {'link_kv':>10} {'peer':>10} {'unit':4}  {'ratio':>7}  {'reach':>7}       beside")
    for row in rows:
        sign = "≥" if row.at_least else "≤"
        then = before.get(row.what + "/" + row.peer)
        drift = f"  was {then:.2f}" if then is not None else ""
        verdict = "met" if row.met else "SHORT"
        print(
            f"{row.what:28} {row.ours:10.1f} {row.theirs:10.1f} {row.unit:4}  {row.ratio:7.2f}  "
            f"{sign} {row.reach:5.2f} {verdict:5} {row.peer}{drift}"
        )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="which to run; 'all' for all")
    parser.add_argument("--save", type=Path, help="keep the ratios in a file")
    parser.add_argument("--compare", type=Path, help="show the ratios of a kept run beside these")
    parser.add_argument("--endpoint", help="an etcd that runs; by default one is started")
    options = parser.parse_args()
    if not options.names:
        for name, what in NAMES.items():
            print(f"{name:10} {what}")
        return 0
    names = list(NAMES) if "all" in options.names else options.names
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        parser.error(f"no such benchmark: {', '.join(unknown)}")
    before = json.loads(options.compare.read_text()) if options.compare else {}
    rows: list[Row] = []
    for name in names:
        module = importlib.import_module(f"benchmarks.{name}")
        if options.endpoint:
            found = module.run(options.endpoint)
        else:
            with local.start() as server:
                found = module.run(server.endpoints[0])
        table(found, before)
        rows += found
    if options.save:
        kept = {row.what + "/" + row.peer: row.ratio for row in rows}
        options.save.write_text(json.dumps(kept, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
