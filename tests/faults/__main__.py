"""A cluster of three with faults, and whether what programs were told agrees with what etcd holds.

Exits with 0 when every check passed and 1 when one failed. When one had too little to tell, with 75 if that
is because etcd failed by itself or the machine was too slow, and with 69 if it will be so again: this etcd
must not be killed, a fault took no effect at all, or there was none of what a check needs.
"""

from __future__ import annotations

import argparse
import logging
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.faults import cluster as clusters
from tests.faults.arena import examine
from tests.faults.checker import Finding
from tests.faults.checks import (
    canaries,
    endings,
    failed,
    followers,
    frozen,
    fuzz,
    history,
    leaks,
    locks,
    resyncs,
    trees,
)
from tests.faults.profiles import PROFILES
from tests.faults.report import FAILED, LACKING, PASSED, VOID, show, verdict
from tests.faults.run import Outcome, Run

Check = Callable[[Run], list[Outcome]]

OUTAGES: dict[str, Check] = {"followers": followers.run}
QUIET: dict[str, Check] = {"endings": endings.run, "leaks": leaks.run, "canaries": canaries.run}
"""What does nothing to the cluster, and works in programs of its own."""
GROUPS: tuple[dict[str, Check], ...] = (
    {"history": history.run},
    {"resyncs": resyncs.run},
    {"trees": trees.run},
    OUTAGES,
    # These leave two of the members alone.
    {"failed": failed.run, "locks": locks.run, "frozen": frozen.run},
    QUIET,
)
ASIDE: dict[str, Check] = {"fuzz": fuzz.run}
"""What does not even use the cluster. Begins with the outages, where all wait most of the time."""
CHECKS = [name for group in (*GROUPS, ASIDE) for name in group]


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m tests.faults", description=__doc__)
    parser.add_argument("--profile", choices=PROFILES, default="short")
    parser.add_argument("--seed", type=int, help="which faults come when; one of chance by default")
    parser.add_argument("--only", nargs="+", choices=CHECKS, metavar="CHECK", help=", ".join(CHECKS))
    parser.add_argument("--seconds", type=float, default=0.0, help="how long the history is made")
    parser.add_argument("--where", choices=("containers", "processes"), default="")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep what was recorded, passed or not")
    parser.add_argument("--replay", type=Path, metavar="DIR", help="check again what was recorded there")
    parser.add_argument("--verbose", action="store_true", help="tell each fault")
    return parser.parse_args()


def replay(directory: Path) -> int:
    """Check again what a run has recorded."""
    outcomes: list[Outcome] = []
    for truth in sorted(directory.rglob("truth.jsonl")):
        print(f"{truth.parent}:")
        for outcome in examine(truth.parent):
            print("  ", show(outcome))
            outcomes.append(outcome)
    if not outcomes:
        raise SystemExit(f"--replay: nothing was recorded in {directory}")
    return verdict(outcomes)


def main() -> int:
    args = options()
    if args.replay:
        return replay(args.replay)
    seed = random.SystemRandom().randrange(2**32) if args.seed is None else args.seed
    directory = args.keep or Path(tempfile.mkdtemp(prefix="link-kv-faults-"))
    directory.mkdir(parents=True, exist_ok=True)
    # What the clients log of the faults is for whoever looks into a failure.
    logging.basicConfig(filename=directory / "log", level=logging.INFO)
    # As Ctrl-C: what is stopped in an orderly way removes its containers.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    profile, outcomes = PROFILES[args.profile], []
    began = time.monotonic()
    with clusters.start(args.where) as cluster:
        run = Run(profile, seed, cluster, directory, args.seconds, args.verbose)
        run.say(f"profile {profile.name}, seed {seed}, {cluster}")
        if not cluster.safe:
            run.say("below etcd 3.5.5 no member is killed or cut off: the server itself fails then")
        asked = args.only or CHECKS
        aside: Callable[[], list[Outcome]] = list
        for group in GROUPS:
            if group is OUTAGES:
                aside = begin(run, chosen(ASIDE, asked))
            outcomes += together(run, chosen(group, asked))
        outcomes += aside()
        if not {*QUIET, *ASIDE} >= set(asked):
            outcomes.append(done(run))
    code = verdict(outcomes)
    for outcome in outcomes:
        if outcome.verdict != "passed":
            print(f"{outcome.verdict}: {outcome.name}: {next(iter(outcome.findings), outcome.void)}")
    # After an etcd that failed by itself somebody will want to know whether something else did too.
    if code != PASSED or args.keep:
        print(f"what was recorded is in {directory}: --replay {directory}")
    else:
        shutil.rmtree(directory)
    word = {PASSED: "passed", FAILED: "FAILED", VOID: "void", LACKING: "void, as it will be again"}[code]
    print(f"{word}: profile {profile.name}, seed {seed}, {time.monotonic() - began:.0f} s")
    return code


def chosen(checks: Mapping[str, Check], asked: list[str]) -> dict[str, Check]:
    return {name: check for name, check in checks.items() if name in asked}


def begin(run: Run, checks: Mapping[str, Check]) -> Callable[[], list[Outcome]]:
    """Begin checks, each in a thread; what waits for what came of them."""
    came: dict[str, list[Outcome]] = {name: [] for name in checks}
    # Daemons: what is interrupted does not wait for them before it removes the cluster.
    threads = [
        threading.Thread(
            target=lambda name=name, check=check: came[name].extend(made(run, name, check)), daemon=True
        )
        for name, check in checks.items()
    ]
    for thread in threads:
        thread.start()

    def finish() -> list[Outcome]:
        for thread in threads:
            thread.join()
        return [outcome for name in checks for outcome in came[name] or [broken(name, "there is no outcome")]]

    return finish


def together(run: Run, checks: Mapping[str, Check]) -> list[Outcome]:
    """Run checks at the same time, on a cluster that is whole before and after."""
    if not checks:
        return []
    run.cluster.whole()
    outcomes = begin(run, checks)()
    run.cluster.whole()
    if run.cluster.crashes:
        # An etcd that fails by itself leaves nothing that passes. What was found stays: the library may be to
        # blame for it all the same.
        for crash in run.cluster.crashes:
            run.say("void: ", crash)
        outcomes = [
            Outcome(each.name, each.figures, each.findings, void="etcd failed by itself") for each in outcomes
        ]
        run.cluster.crashes.clear()
    return outcomes


def made(run: Run, name: str, check: Check) -> list[Outcome]:
    """Make one check, and say what came of it."""
    try:
        outcomes = check(run) or [broken(name, "there is no outcome")]
    except BaseException as error:  # what ends a thread quietly too, such as pytest's skip
        logging.exception("a check was broken off")
        outcomes = [broken(name, f"{type(error).__name__}: {error}")]
    for outcome in outcomes:
        run.say(show(outcome))
    return outcomes


def broken(name: str, why: str) -> Outcome:
    return Outcome(name, "broken off; the log says where", [Finding("broken off", why)])


def done(run: Run) -> Outcome:
    """Whether there were faults at all."""
    faults = run.cluster.faults
    told = ", ".join(f"{number} {name}" for name, number in sorted(faults.items()))
    outcome = Outcome("faults", told or "none that is drawn")
    if not run.cluster.safe:
        outcome.void, outcome.lasting = "only what is gentle was done to this etcd", True
    for name, number in faults.items():
        if not number:
            outcome.void = outcome.void or f"{name} took no effect, in {run.cluster.tries[name]} tries"
            # Where there was time for one try only, it may have come too early, as before there is history.
            outcome.lasting = outcome.lasting or run.cluster.tries[name] > 1
    run.say(show(outcome))
    return outcome


if __name__ == "__main__":
    sys.exit(main())
