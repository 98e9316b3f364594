"""Everything that a dictionary can do, from several processes, through every fault.

Meanwhile watchers are told of it all, and mirrors and stores follow it: three outcomes of one run.
"""

from __future__ import annotations

import time

from tests.faults.arena import Arena, examine
from tests.faults.mirrors import Followed
from tests.faults.programs import Clients, Process
from tests.faults.records import keep
from tests.faults.run import Outcome, Run
from tests.faults.schedule import Faults
from tests.faults.workload import CLIENTS, PREFIX, connect, rotated

PROCESSES = 3
_KEPT = 1000
"""How many revisions a compaction leaves, so that not every watcher that lags must read anew."""
_LONGEST = 2.0
"""How much longer than planned it may go on, for the figures that it must reach."""


def run(run: Run) -> list[Outcome]:
    profile, cluster = run.profile, run.cluster
    seconds = run.seconds or profile.seconds
    arena = Arena(cluster, PREFIX, run.directory / "history")
    mirrors = Outcome("mirrors, stores")
    with run.proxies() as proxies:
        links = [proxy.endpoint for proxy in proxies]
        both = ",".join(cluster.endpoints), ",".join(links)

        def start(number: int) -> Process:
            return run.program("workload", number, run.seed, arena.log(number), run.timeout, *both)

        watchers = run.program("watchers", arena.directory, *both, arena.start)
        client = connect(rotated(links, 1))
        followed = Followed(client, cluster, ["/", "/t1"])
        clients = Clients(PROCESSES, start)
        try:
            watchers.ready()
            clients.others.append(watchers)

            def compact() -> bool:
                arena.truth.extend(arena.mark())
                if arena.truth.read - arena.start <= 2 * _KEPT:
                    return False
                return arena.truth.compact(arena.truth.read - _KEPT)

            def compare(name: str) -> None:
                if not followed.stores:
                    followed.add_store("t0")
                mirrors.findings += followed.compare(arena.mark())

            def enough() -> bool:
                made = max(profile.operations, profile.made)
                return sum(faults.done.values()) >= profile.faults and arena.noted() >= made

            faults = Faults(
                cluster,
                proxies,
                f"{run.seed} history",
                compact=compact,
                clients=clients,
                note=run.note,
                pause=profile.pause,
            )
            began = time.monotonic()
            faults.run(seconds, _LONGEST * seconds, enough, compare)
            took = time.monotonic() - began
            clients.finish()
            end = arena.mark()
            watchers.tell(str(end))
            arena.truth.extend(end)
            assert watchers.line() == "done", "the watchers have not been told everything: see the log"
            watchers.finish()
        finally:
            clients.close()
            watchers.close()
            followed.close()
            client.close()
            arena.close()
    made = sum(faults.done.values())
    history, watch = examine(arena.directory, arena.truth.truth)
    history.findings += arena.truth.findings
    keep(arena.directory / "findings", [*history.findings, *watch.findings, *mirrors.findings])
    rate = history.numbers.get("ok", 0) / took
    history.figures = (
        f"{PROCESSES} x {CLIENTS} clients, {took:.0f} s, {rate:.0f} ok/s, {made} faults, {history.figures}"
    )
    history.need(rate, profile.rate, "operations that succeeded a second")
    history.need(history.numbers["operations"], profile.operations, "operations")
    history.need(made, profile.faults, "faults")
    watch.need(watch.numbers["events"], profile.events, "events for each watcher")
    mirrors.need(followed.compared, len(followed.all) * made, "comparisons")
    mirrors.figures = f"equal a Range in {followed.compared} comparisons after {made} faults"
    run.say("faults:", ", ".join(f"{number} {name}" for name, number in sorted(faults.done.items())))
    return [history, watch, mirrors]
