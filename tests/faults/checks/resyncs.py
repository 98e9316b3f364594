"""Mirrors and stores that missed what was compacted away: they read anew, and say exactly what differs."""

from __future__ import annotations

from contextlib import ExitStack, closing

from tests.faults.arena import Arena, examine
from tests.faults.mirrors import Followed
from tests.faults.records import Log, read_delivery
from tests.faults.run import Outcome, Run
from tests.faults.watchers import Watcher
from tests.faults.workload import Worker, connect
from tests.processes import until
from tests.wire.proxy import Proxy

PREFIX = "/resyncs"
_TREES = ("t0", "t1")


def run(run: Run) -> list[Outcome]:
    outcome = Outcome("resyncs")
    dice = run.dice("resyncs")
    resyncs = rounds = 0
    with ExitStack() as stack:
        arena = stack.enter_context(closing(Arena(run.cluster, PREFIX, run.directory / "resyncs")))
        log = stack.enter_context(closing(Log(arena.log(0))))
        link = stack.enter_context(Proxy(run.cluster.leader().endpoint))
        writer = stack.enter_context(connect(run.cluster.endpoints, PREFIX, timeout=30))
        client = stack.enter_context(connect([link.endpoint], PREFIX, timeout=30))
        worker = Worker("0", 10_000_000, f"{run.seed} resyncs", writer, log)
        last = {f"/{tree}": worker.put_tree(tree) for tree in _TREES}
        followed = stack.enter_context(closing(Followed(client, run.cluster, ["/", "/t1"])))
        followed.add_store("t0")
        watchers = [
            Watcher(client, Log(arena.directory / f"watcher-{number}.jsonl"), path, path, 10_000)
            for number, path in enumerate(("/", "/t0", "/t1"))
        ]
        for _ in range(-(-run.profile.resyncs // len(followed.all))):
            gaps = [watcher.gaps for watcher in watchers]
            link.close()
            until(lambda: all(each.state == "stale" for each in (*watchers, *followed.all)))
            for _ in range(dice.randint(2, 12)):
                worker.step()
            # So that each of them has missed something.
            last = {f"/{tree}": worker.put_tree(tree) for tree in _TREES}
            mark = arena.mark()
            arena.truth.extend(mark)
            arena.truth.compact(mark - dice.choice((0, 0, 1)))
            overtaken, before = followed.overtaken(), followed.compared
            outcome.demand(overtaken == followed.all, "not overtaken", f"only {overtaken} at {mark}")
            link.reopen()
            outcome.findings += followed.compare(mark)
            if overtaken == followed.all:
                resyncs += followed.compared - before
            for watcher, had in zip(watchers, gaps, strict=True):
                until(lambda watcher=watcher: watcher.state == "live")
                outcome.demand(watcher.gaps > had, "no gap", f"{watcher.path} at {mark}")
            rounds += 1
        end = arena.mark()
        arena.truth.extend(end)
        for watcher in watchers:
            watcher.finish(last.get(watcher.path, end))
    done, seen = examine(arena.directory, arena.truth.truth)
    outcome.findings += [*arena.truth.findings, *done.findings, *seen.findings]
    for path in sorted(arena.directory.glob("watcher-*.jsonl")):
        delivery = read_delivery(path)
        told = sum(each.synthetic for each in delivery.told)
        outcome.demand(told >= rounds, "no gap", f"{delivery.name} was told {told} in {rounds} rounds")
    outcome.figures = (
        f"{resyncs} comparisons of a mirror or store with a Range, after {rounds} compactions of what each "
        f"had missed, which were told to watchers as the difference; {seen.figures}"
    )
    outcome.need(resyncs, run.profile.resyncs, "resyncs")
    return [outcome]
