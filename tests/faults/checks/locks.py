"""Holders of a lock that are frozen for longer than it lives: the fence loses nothing, and its lack does."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from tests.faults.run import Outcome, Run
from tests.faults.workload import connect
from tests.proof.test_frozen_holders import count


def run(run: Run) -> list[Outcome]:
    outcome = Outcome("locks")
    pauses = run.profile.pauses
    endpoint = run.cluster.leader().endpoint

    def counted(kind: str) -> tuple[int, int, int]:
        notes = run.directory / f"locks-{kind}"
        notes.mkdir()
        prefix = f"/locks-{kind}"
        with connect([endpoint], prefix, timeout=30) as client:
            return count(client, endpoint, prefix, kind, pauses, notes)

    with run.stderr_in_log(), ThreadPoolExecutor(2) as pool:
        fenced, control = pool.map(counted, ("fenced", "plain"))
    (done, refused, counter), (plain, _, plain_counter) = fenced, control
    outcome.figures = (
        f"{pauses} pauses: fenced lost {done - counter} of {done} increments, {refused} refused; "
        f"the control, without the fence, lost {plain - plain_counter} of {plain}"
    )
    outcome.demand(counter == done, "lost increment", f"{done} were acknowledged, {counter} are there")
    # Each of the frozen had lost the lock when it went on, and must be told: by its write or by its release.
    outcome.demand(
        refused >= pauses, "not refused", f"{refused} were told of {pauses} that had lost the lock"
    )
    outcome.need(plain - plain_counter, pauses, "increments that the control lost")
    return [outcome]
