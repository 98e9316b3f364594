"""How a cluster is: its members, its alarms, and what a member says of itself."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from link_kv._core.wire.calls import STATUS, Caller, Method
from link_kv._core.wire.exchange import Exchange
from link_kv.errors import AccessDenied
from link_kv.plan import Get

_MEMBERS = Method("Cluster", "MemberList")
_ALARMS = Method("Maintenance", "Alarm")

_ALARM_NAMES = {1: "NOSPACE", 2: "CORRUPT"}


class Details(NamedTuple):
    leader: int
    """The id of the member that leads, 0 when there is none."""
    version: str
    size: int
    """Bytes of the database file."""
    errors: tuple[str, ...]


class Health(NamedTuple):
    """What one member says of itself."""

    cluster: int
    member: int
    revision: int
    latency: float
    """Seconds until it answered, on a connection that stood already."""
    details: Details | None
    """None when they are not for this user: etcd 3.5.30 tells them to root alone."""


class Member(NamedTuple):
    id: int
    name: str
    """Empty while it has not joined yet."""
    urls: tuple[str, ...]
    """Where it says that clients reach it."""
    learner: bool


async def health(ex: Exchange) -> Health:
    """Raises `AccessDenied` for a user who may not read the prefix either."""
    try:
        await ex.space.caller.call(STATUS, b"", deadline=ex.deadline)
        asked = time.monotonic()
        answer: Any = await ex.space.caller.call(STATUS, b"", deadline=ex.deadline)
        details = Details(answer.leader, answer.version, answer.dbSize, tuple(answer.errors))
    except AccessDenied:
        # Each answer has a header. This one comes over a connection that stands by now.
        details, asked = None, time.monotonic()
        answer = await ex.range(Get(ex.space.prefix + b"/.link/layout"), count_only=True)
    latency = time.monotonic() - asked
    header = answer.header
    return Health(header.cluster_id, header.member_id, header.revision, latency, details)


async def members(caller: Caller, deadline: float | None = None) -> list[Member]:
    answer = await caller.call(_MEMBERS, b"", deadline=deadline)
    return [Member(each.ID, each.name, tuple(each.clientURLs), each.isLearner) for each in answer.members]


async def alarms(caller: Caller, deadline: float | None = None) -> list[tuple[int, str]]:
    """The alarms that are raised: the member's id, and ``NOSPACE`` or ``CORRUPT``."""
    answer = await caller.call(_ALARMS, b"", deadline=deadline)
    return [(each.memberID, _ALARM_NAMES.get(each.alarm, str(each.alarm))) for each in answer.alarms]
