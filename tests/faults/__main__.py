"""``python -m tests.faults``: see ``--help``."""

from __future__ import annotations

import argparse
import logging
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.faults import cluster as clusters
from tests.faults.checks import history, resyncs
from tests.faults.profiles import PROFILES
from tests.faults.report import show
from tests.faults.run import Outcome, Run

CHECKS = {"history": history.run, "resyncs": resyncs.run}


def main() -> int:
    parser = argparse.ArgumentParser("tests.faults", description=__doc__)
    parser.add_argument("--profile", choices=PROFILES, default="short")
    parser.add_argument("--seed", type=int, help="which faults come when; one of chance by default")
    parser.add_argument("--only", nargs="+", choices=CHECKS, metavar="CHECK", help=", ".join(CHECKS))
    parser.add_argument("--seconds", type=float, help="how long the history is made")
    parser.add_argument("--where", choices=("containers", "processes"), default="")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep what was recorded, passed or not")
    parser.add_argument("--verbose", action="store_true", help="tell each fault")
    args = parser.parse_args()
    profile = PROFILES[args.profile]
    seed = random.SystemRandom().randrange(2**32) if args.seed is None else args.seed
    directory = args.keep or Path(tempfile.mkdtemp(prefix="link-kv-faults-"))
    directory.mkdir(parents=True, exist_ok=True)
    # What the clients log of the faults is for whoever looks into a failure.
    logging.basicConfig(filename=directory / "log", level=logging.INFO)
    # As Ctrl-C: what is stopped in an orderly way removes its containers.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    outcomes: list[Outcome] = []
    with clusters.start(args.where) as cluster:
        run = Run(profile, seed, cluster, directory, args.seconds or 0.0, args.verbose)
        version = ".".join(map(str, cluster.version))
        run.say(f"profile {profile.name}, seed {seed}, etcd {version} in three {cluster.kind}")
        for name in args.only or CHECKS:
            began = time.monotonic()
            made = CHECKS[name](run)
            made[0].seconds = time.monotonic() - began
            for outcome in made:
                run.say(show(outcome))
            outcomes += made
    failed = [outcome for outcome in outcomes if outcome.findings]
    void = [outcome for outcome in outcomes if outcome.void]
    if failed or args.keep:
        print(f"what was recorded is in {directory}")
    else:
        shutil.rmtree(directory)
    verdict = "FAILED" if failed else "void" if void else "passed"
    print(f"{verdict}: seed {seed}, {time.monotonic() - run.began:.0f} s")
    return 1 if failed else 2 if void else 0


if __name__ == "__main__":
    sys.exit(main())
