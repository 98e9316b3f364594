"""A member that is frozen: whoever has a connection to it notices in time, though nothing was closed."""

from __future__ import annotations

import time
from contextlib import ExitStack

from tests.faults.cluster import Member
from tests.faults.run import Outcome, Run
from tests.faults.stalls import Stalls
from tests.faults.workload import connect
from tests.live.inbox import Inbox

PREFIX = "/frozen"
_BOUND = 12.0
_IDLE = 2.0
_OFTEN = 5
"""How many clients notice it at a time, each a moment later in its rhythm of keepalives."""


def run(run: Run) -> list[Outcome]:
    outcome = Outcome("frozen member")
    seconds: list[float] = []
    with Stalls() as stalls:
        for _ in range(-(-run.profile.freezes // _OFTEN)):
            seconds += _freeze(run.cluster.follower(), outcome)
            run.cluster.whole()
    outcome.figures = (
        f"noticed {len(seconds)} times by a watch, after {min(seconds):.1f} to {max(seconds):.1f} s"
    )
    stalls.demand(outcome, max(seconds), _BOUND, "noticed late", f"after {max(seconds):.1f} s")
    outcome.need(len(seconds), run.profile.freezes, "members frozen")
    return [outcome]


def _freeze(member: Member, outcome: Outcome) -> list[float]:
    """Freeze a member that clients watch through; after how many seconds each noticed."""
    noticed: list[float] = []
    with ExitStack() as stack:
        inboxes = []
        for number in range(_OFTEN):
            client = stack.enter_context(connect([member.endpoint], PREFIX, timeout=60))
            inbox = Inbox()

            def told(state: str, inbox: Inbox = inbox) -> None:
                inbox((state, time.monotonic()))

            client.subscribe("/a", lambda change: None, on_state=told)
            inboxes.append(inbox)
            client.put("/a", number)
        # Most connections are idle when it happens: no ping of gRPC's is under way that would tell earlier.
        time.sleep(_IDLE)
        member.pause()
        began = time.monotonic()
        earlier = [len(inbox.items) for inbox in inboxes]  # what came before has another reason
        try:
            for inbox, before in zip(inboxes, earlier, strict=True):
                inbox.until(lambda items, before=before: _stale(items[before:]), 2 * _BOUND)
                noticed.append(_stale(inbox.items[before:])[0] - began)
        except AssertionError:
            outcome.demand(False, "not noticed", f"within {2 * _BOUND:.0f} s")
            noticed.append(2 * _BOUND)
        finally:
            member.resume()
    return noticed


def _stale(told: list[tuple[str, float]]) -> list[float]:
    """When it was told that a watch is cut off."""
    return [at for state, at in told if state == "stale"]
