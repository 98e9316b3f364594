"""Mutants: a history in which something is wrong, or a library that does something wrong, and what finds it.

A check that cannot fail proves nothing. Those of a history are made of one that was recorded and is right.
Those of the library are behaviours that it has for a reason, taken away one at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import pytest

from link_kv import plan as plans
from link_kv._core.leasing.leases import Lease
from link_kv._core.watching import watch_machine
from link_kv._core.watching.replica import Replica
from link_kv._core.wire import calls, exchange, transport
from link_kv._core.wire.exchange import Namespace
from link_kv._core.wire.failures import UNAVAILABLE, Meaning, WireFailure, describe
from link_kv.errors import Unavailable
from tests.faults import scenarios
from tests.faults.checker import Finding, History, check, check_delivery, check_members
from tests.faults.records import Compactions, Delivery, Event, Op, Told, Truth
from tests.faults.scenarios import Scenario


@dataclass(frozen=True)
class Recording:
    """What the checker is given."""

    truth: Truth
    ops: list[Op]
    delivery: Delivery
    compactions: Compactions

    def findings(self) -> Iterator[Finding]:
        history = History(self.truth)
        yield from check(history, self.ops, self.compactions).findings
        yield from check_delivery(history, self.delivery, self.compactions)

    def op(self, wanted: Callable[[Op], Any]) -> Op:
        """One in the middle of those that are so."""
        found = [op for op in self.ops if wanted(op)]
        assert found, "the recording has none of these"
        return found[len(found) // 2]

    def revision(self, wanted: Callable[[int, list[Event]], Any]) -> int:
        """The place in the history of a revision that is so."""
        found = [index for index, (revision, events) in enumerate(self.truth) if wanted(revision, events)]
        assert found, "the recording has none of these"
        return found[len(found) // 2]

    def with_op(self, op: Op, **changed: Any) -> Recording:
        return replace(self, ops=[each._replace(**changed) if each is op else each for each in self.ops])

    def with_truth(self, truth: Truth) -> Recording:
        return replace(self, truth=truth)

    def with_told(self, told: list[Told]) -> Recording:
        return replace(self, delivery=self.delivery._replace(told=told))


class Spoiled(NamedTuple):
    """A mutant of a recording."""

    name: str
    spoil: Callable[[Recording], Recording]
    caught: str
    """The check that finds it."""


def _acknowledged(kind: str) -> Callable[[Op], bool]:
    return lambda op: op.ok and op.kind == kind


def _at(recording: Recording, op: Op) -> int:
    """The place in the history of the revision that an operation was told."""
    return recording.revision(lambda revision, events: revision == op.result)


def _lost(recording: Recording) -> Recording:
    at = _at(recording, recording.op(_acknowledged("put")))
    return recording.with_truth([*recording.truth[:at], *recording.truth[at + 1 :]])


def _lost_delete(recording: Recording) -> Recording:
    at = _at(recording, recording.op(_acknowledged("delete")))
    return recording.with_truth([*recording.truth[:at], *recording.truth[at + 1 :]])


def _twice(recording: Recording) -> Recording:
    at = _at(recording, recording.op(lambda op: op.ok and op.kind == "put" and op.args[0].startswith("k")))
    last = recording.truth[-1][0] + 1
    return recording.with_truth([*recording.truth, (last, recording.truth[at][1])])


def _ghost(recording: Recording) -> Recording:
    last = recording.truth[-1][0] + 1
    return recording.with_truth([*recording.truth, (last, [("/k0", "666")])])


def _reordered(recording: Recording) -> Recording:
    """Two writes change places, though one had ended before the other began."""
    puts = [op for op in recording.ops if op.ok and op.kind == "put" and op.args[0].startswith("k")]
    one, other = min(puts, key=lambda op: op.result), max(puts, key=lambda op: op.result)
    places = {one.result: other.result, other.result: one.result}
    truth = sorted((places.get(revision, revision), events) for revision, events in recording.truth)
    moved = recording.with_truth(truth).with_op(one, result=other.result)
    return moved.with_op(other, result=one.result)


def _split(recording: Recording) -> Recording:
    """What one transaction wrote is spread over two revisions."""
    at = recording.revision(
        lambda revision, events: len({key for key, value in events if value and key.startswith("/k")}) > 1
    )
    revision, events = recording.truth[at]
    # Room for one more: those behind it move on, in what was told as well.
    truth = [*recording.truth[:at], (revision, events[:1]), (revision + 1, events[1:])]
    truth += [(later + 1, rest) for later, rest in recording.truth[at + 1 :]]
    return recording.with_truth(truth)


def _stale_read(recording: Recording) -> Recording:
    history = History(recording.truth)
    op = recording.op(
        lambda op: (
            op.ok and op.kind == "read" and op.args[0].startswith("k") and _old(history, op) is not None
        )
    )
    return recording.with_op(op, result=_old(history, op))


def _old(history: History, op: Op) -> Any:
    """A value that had been replaced long before an operation could see it."""
    unit = history.units[op.args[0]]
    values = unit.values[1:]
    if op.result not in values:
        return None
    before = [value for value in values[: values.index(op.result)] if value is not None]
    return before[0] if len(before) > 8 else None


def _torn_read(recording: Recording) -> Recording:
    """A reader sees a part of one tree and a part of the one before."""
    op = recording.op(
        lambda op: op.ok and op.kind == "read" and isinstance(op.result, dict) and len(op.result) == 3
    )
    return recording.with_op(op, result={**op.result, "a": op.result["a"] - 1})


def _guard(recording: Recording) -> Recording:
    op = recording.op(lambda op: op.ok and op.kind == "cas" and op.args[2])
    return recording.with_op(op, args=[*op.args[:2], op.args[2] - 1])


def _created_over(recording: Recording) -> Recording:
    """A put over what was there is told as having made it."""
    history = History(recording.truth)
    op = recording.op(
        lambda op: op.ok and op.kind == "put" and history.units[op.args[0]].at(op.result - 1) is not None
    )
    return recording.with_op(op, kind="create")


def _wrongly_refused(recording: Recording) -> Recording:
    return recording.with_op(recording.op(_acknowledged("put")), outcome="not applied", result=None)


def _off_by_one(recording: Recording) -> Recording:
    op = recording.op(_acknowledged("put"))
    return recording.with_op(op, result=op.result + 1)


def _would_show(events: Sequence[Event]) -> Iterator[str]:
    """Keys whose deletion cannot be left out unseen: no markers, and nothing that a new leaf hides."""
    put = [key for key, value in events if value is not None]
    for key, value in events:
        if (
            value is None
            and not key.endswith("/")
            and not any(f"{key}/".startswith(f"{leaf}/") for leaf in put)
        ):
            yield key


def _leftover(recording: Recording) -> Recording:
    """Replacing a tree leaves a key of the old one."""
    trees = {op.result for op in recording.ops if op.ok and op.kind == "put" and op.args[0].startswith("t")}
    at = recording.revision(lambda revision, events: revision in trees and any(_would_show(events)))
    revision, events = recording.truth[at]
    kept = [(key, value) for key, value in events if value is not None]
    return recording.with_truth([*recording.truth[:at], (revision, kept), *recording.truth[at + 1 :]])


def _neighbour(recording: Recording) -> Recording:
    """A write touches what is none of its business."""
    at = _at(recording, recording.op(lambda op: op.ok and op.kind == "put" and op.args[0] != "k1"))
    revision, events = recording.truth[at]
    touched = [*events, ("/k1", None)]
    return recording.with_truth([*recording.truth[:at], (revision, touched), *recording.truth[at + 1 :]])


def _skewed(recording: Recording) -> Recording:
    """A transaction commits, though what it read has moved."""
    op = recording.op(lambda op: op.ok and op.kind == "txn" and all(op.result.values()))
    name = next(iter(op.result))
    return recording.with_op(op, result={**op.result, name: op.result[name] - 1})


def _future_read(recording: Recording) -> Recording:
    """A read ends before the write of what it saw begins."""
    by_value = {
        op.args[1]: op for op in recording.ops if op.ok and op.kind == "put" and isinstance(op.args[1], int)
    }
    op = recording.op(
        lambda op: op.ok and op.kind == "read" and isinstance(op.result, int) and op.result in by_value
    )
    began = by_value[op.result].began
    return recording.with_op(op, began=began - 0.002, ended=began - 0.001)


def _denied_existence(recording: Recording) -> Recording:
    history = History(recording.truth)

    def stands(op: Op) -> bool:
        """Whether what was read had been there for a while, and went never more."""
        values = history.units[op.args[0]].values if op.args[0] in history.units else []
        index = values.index(op.result) if op.result in values else 0
        return index > 8 and None not in values[index - 8 :]

    op = recording.op(lambda op: op.ok and op.kind == "read" and op.result and stands(op))
    return recording.with_op(op, kind="delete", outcome="NotFound", result=None)


_LONG_AGO = 60.0


def _deleted(recording: Recording) -> Op:
    """A leaf's delete by one who was told so."""
    return recording.op(lambda op: op.ok and op.kind == "delete" and op.args[0].startswith("k"))


def _denied_delete(recording: Recording) -> Recording:
    """A delete is told as not applied. Long before it, another one was in doubt."""
    op = _deleted(recording)
    denied = recording.with_op(op, outcome="not applied", result=None)
    return replace(denied, ops=[*denied.ops, _in_doubt(op)])


def _ghost_delete(recording: Recording) -> Recording:
    """Nobody deletes what is deleted, but for one who had given up long before."""
    op = _deleted(recording)
    others = [each for each in recording.ops if each is not op]
    return replace(recording, ops=[*others, _in_doubt(op)])


def _in_doubt(op: Op) -> Op:
    began = op.began - _LONG_AGO
    return Op("doubt.0", op.kind, op.args, began, began + 3, "unknown")


def _outcome(wanted: Callable[[Op], Any], outcome: str) -> Callable[[Recording], Recording]:
    """An operation ends otherwise than it can."""

    def spoil(recording: Recording) -> Recording:
        return recording.with_op(recording.op(wanted), outcome=outcome, result=None)

    return spoil


def _silent_delete(recording: Recording) -> Recording:
    """A delete succeeds, and does nothing and says nothing."""
    op = recording.op(lambda op: op.kind == "delete" and op.outcome == "NotFound")
    return recording.with_op(op, outcome="ok", result=None)


def _raw_items(recording: Recording) -> Recording:
    """The leaves that an iteration tells are a tree and something below one of its leaves."""
    op = recording.op(lambda op: op.ok and op.kind in ("items", "all"))
    return recording.with_op(op, result=[["/t0/b", 5], ["/t0/b/c", 6]])


def _besides(events: Callable[[str], list[Event]]) -> Callable[[Recording], Recording]:
    """A new tree has something in it that its value does not show."""

    def spoil(recording: Recording) -> Recording:
        op = recording.op(
            lambda op: op.ok and op.kind == "put" and isinstance(op.args[1], dict) and len(op.args[1]) == 3
        )
        at = _at(recording, op)
        revision, done = recording.truth[at]
        more = (revision, [*done, *events(f"/{op.args[0]}")])
        return recording.with_truth([*recording.truth[:at], more, *recording.truth[at + 1 :]])

    return spoil


def _told(change: Callable[[list[Told], int], list[Told]]) -> Callable[[Recording], Recording]:
    def spoil(recording: Recording) -> Recording:
        told = list(recording.delivery.told)
        return recording.with_told(change(told, len(told) // 2))

    return spoil


def _parts(told: list[Told], middle: int) -> list[Told]:
    at = next(index for index, each in enumerate(told) if len(each.changes) > 1)
    each = told[at]
    parts = [each._replace(changes=each.changes[:1]), each._replace(changes=each.changes[1:])]
    return [*told[:at], *parts, *told[at + 1 :]]


def _wrong_previous(told: list[Told], middle: int) -> list[Told]:
    each = told[middle]
    (path, value, previous), *others = each.changes
    return [
        *told[:middle],
        each._replace(changes=[(path, value, (previous or 0) + 1 if previous != {} else 1), *others]),
        *told[middle + 1 :],
    ]


def _same(changes: list[Any]) -> list[Any]:
    return changes


def gap(
    keep: Callable[[list[Any]], list[Any]] = _same, *, compacted: int = 0, back: int = 0
) -> Callable[[Recording], Recording]:
    """Some revisions are told as a difference, as when they were compacted away.

    Or as when they were not, where history went up to ``compacted`` revisions after the first one only.
    """

    def spoil(recording: Recording) -> Recording:
        told, history = recording.delivery.told, History(recording.truth)
        first, last = len(told) // 3, 2 * len(told) // 3
        start, end = told[first].revision, told[last].revision
        changes = [
            (path, value, history.leaf_at(path, start)[1])
            for path, value in history.difference(start, end).items()
        ]
        inferred = Told(start - back if back else end, keep(changes), True)
        spoiled = recording.with_told([*told[: first + 1], inferred, *told[last + 1 :]])
        return replace(spoiled, compactions=[(start + compacted, 0.0)])

    return spoil


def _another_before(changes: list[Any]) -> list[Any]:
    at = next(index for index, (_, _, before) in enumerate(changes) if isinstance(before, int))
    path, value, before = changes[at]
    return [*changes[:at], (path, value, before - 1), *changes[at + 1 :]]


SPOILED = [
    Spoiled("an acknowledged write is lost", _lost, "lost write"),
    Spoiled("an acknowledged delete is lost", _lost_delete, "lost write"),
    Spoiled("a write is applied twice", _twice, "applied twice"),
    Spoiled("a ghost writes", _ghost, "ghost write"),
    Spoiled("two writes are in the wrong order", _reordered, "real-time order"),
    Spoiled("a transaction is split over two revisions", _split, "wrong effect"),
    Spoiled("a read is stale", _stale_read, "stale read"),
    Spoiled("a read is torn", _torn_read, "wrong read"),
    Spoiled("a guard is not honoured", _guard, "wrong effect"),
    Spoiled("something is created that is there", _created_over, "wrong effect"),
    Spoiled("a write is reported as not applied", _wrongly_refused, "wrongly not applied"),
    Spoiled("a revision is off by one", _off_by_one, "wrong revision"),
    Spoiled("replacing a tree leaves a key", _leftover, "wrong effect"),
    Spoiled("a write touches a neighbour", _neighbour, "wrong effect"),
    Spoiled("a transaction commits on what has moved", _skewed, "wrong effect"),
    Spoiled("a read sees the future", _future_read, "real-time order"),
    Spoiled("what is there is denied", _denied_existence, "stale read"),
    Spoiled("a revision is not told", _told(lambda told, at: [*told[:at], *told[at + 1 :]]), "watch, once"),
    Spoiled("a revision is told twice", _told(lambda told, at: [*told[: at + 1], *told[at:]]), "watch, once"),
    Spoiled(
        "two revisions are told in the wrong order",
        _told(lambda told, at: [*told[:at], told[at + 1], told[at], *told[at + 2 :]]),
        "watch, order",
    ),
    Spoiled("a revision is told in two parts", _told(_parts), "watch, whole"),
    Spoiled(
        "a part of a revision is not told",
        _told(lambda told, at: [each._replace(changes=each.changes[:1]) for each in told]),
        "watch, whole",
    ),
    Spoiled("the value before is wrong", _told(_wrong_previous), "watch, whole"),
    Spoiled(
        "a revision is told that is none",
        _told(lambda told, at: [*told, told[at]._replace(revision=told[-1].revision + 1)]),
        "watch, ghost",
    ),
    Spoiled("the last revisions are not told", _told(lambda told, at: told[:-2]), "watch, once"),
    Spoiled("a difference lacks a change", gap(lambda changes: changes[1:], compacted=1), "watch, whole"),
    Spoiled(
        "a difference has a change too many",
        gap(lambda changes: [*changes, ("/k99", 5, None)], compacted=1),
        "watch, whole",
    ),
    Spoiled("a difference has a wrong value before", gap(_another_before, compacted=1), "watch, whole"),
    Spoiled("a difference is told of what was not compacted", gap(), "watch, needless gap"),
    Spoiled("a difference goes back", gap(back=2, compacted=1), "watch, order"),
    Spoiled("a delete is reported as not applied", _denied_delete, "wrongly not applied"),
    Spoiled("a delete comes long after its time", _ghost_delete, "ghost write"),
    Spoiled("a delete does and says nothing", _silent_delete, "wrong answer"),
    Spoiled("an error is untyped", _outcome(_acknowledged("put"), "untyped"), "untyped error"),
    Spoiled("a read is in doubt", _outcome(_acknowledged("read"), "unknown"), "unexpected refusal"),
    Spoiled("a read finds no tree", _outcome(_acknowledged("read"), "NotATree"), "unexpected refusal"),
    Spoiled(
        "a read's revision is gone", _outcome(_acknowledged("items"), "RevisionError"), "unexpected refusal"
    ),
    Spoiled("a transaction gives up", _outcome(_acknowledged("txn"), "Conflict"), "unexpected refusal"),
    Spoiled("an iteration tells no value", _raw_items, "wrong read"),
    Spoiled(
        "something stands below a leaf", _besides(lambda tree: [(f"{tree}/a/z", "666")]), "broken layout"
    ),
    Spoiled("a tree has the marker of none", _besides(lambda tree: [(f"{tree}/", "{}")]), "broken layout"),
]


def members_differ(truth: Truth) -> list[Finding]:
    """A member lacks the last part of a revision."""
    at = next(index for index, (_, events) in enumerate(truth) if len(events) > 1)
    revision, events = truth[at]
    other = [*truth[:at], (revision, events[:-1]), *truth[at + 1 :]]
    return list(check_members({"one": truth, "other": other}))


# The library


class Changed(NamedTuple):
    """A mutant of the library."""

    name: str
    change: Callable[[pytest.MonkeyPatch], None]
    scenario: Scenario
    caught: str


def _no_fragments(patch: pytest.MonkeyPatch) -> None:
    received = watch_machine.Machine.received

    def mutant(self: Any, response: Any) -> Any:
        response.fragment = False
        return received(self, response)

    patch.setattr(watch_machine.Machine, "received", mutant)


def _resume_later(patch: pytest.MonkeyPatch) -> None:
    request = watch_machine.create_request

    def mutant(start: bytes, end: bytes, revision: int, watch_id: int) -> bytes:
        return request(start, end, revision and revision + 2, watch_id)

    patch.setattr(watch_machine, "create_request", mutant)


def _retry_blindly(patch: pytest.MonkeyPatch) -> None:
    meaning = calls.meaning

    def mutant(failure: WireFailure) -> Meaning:
        return Meaning.NEVER_SENT if failure.code == UNAVAILABLE else meaning(failure)

    patch.setattr(calls, "meaning", mutant)


def _copy_zero(patch: pytest.MonkeyPatch) -> None:
    compacted = watch_machine.Machine._compacted

    def mutant(self: Any, watch: Any, revision: int) -> Any:
        watch.replica.revision = 0  # as the header of that answer says
        return compacted(self, watch, revision)

    patch.setattr(watch_machine.Machine, "_compacted", mutant)


def _watch_siblings(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Replica, "covers", lambda self, key: key.startswith(self.at.key))


def _delete_siblings(patch: pytest.MonkeyPatch) -> None:
    delete = plans.delete

    def mutant(place: Any, *, previous: bool = False) -> Any:
        every = plans.Delete(place.key, place.key[:-1] + bytes([place.key[-1] + 1]))
        return (*delete(place, previous=previous), every)

    patch.setattr(plans, "delete", mutant)


def _ignore_keepalives(patch: pytest.MonkeyPatch) -> None:
    prolong = Lease.prolong
    patch.setattr(Lease, "prolong", lambda self, sent, granted: prolong(self, sent, granted or self.ttl))


def _no_fence(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Namespace, "fenced", lambda self, fence: self)


def _leave_markers(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(plans, "markers_again", lambda markers: [])


def _match_by_id(patch: pytest.MonkeyPatch) -> None:
    created = watch_machine.Machine._created

    def mutant(self: Any, response: Any) -> Any:
        # A watch that is refused at once never got its id, and on some servers none or another's is told.
        if response.canceled and response.watch_id not in self._by_id:
            return iter(())
        return created(self, response)

    patch.setattr(watch_machine.Machine, "_created", mutant)


def _no_hasleader(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(calls, "_HAS_LEADER", ())


def _uncapped_backoff(patch: pytest.MonkeyPatch) -> None:
    options = [each for each in transport._OPTIONS if "connect_backoff" not in each[0]]
    patch.setattr(transport, "_OPTIONS", tuple(options))


def _no_guard(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("link_kv._core.wire.requests.optimistic", lambda places: plans.Guard(()))


def _no_compare(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(plans, "unmoved", lambda key, mod: plans.present(key))


def _keep_what_is_below(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(plans, "set_leaf", lambda place, stored, lease=0: (plans.Put(place.key, stored, lease),))
    patch.setattr(exchange, "leaf_request", lambda place, stored: None)  # the same, made beforehand


def _deny_doubts(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(calls, "doubt", lambda failure, endpoints: Unavailable(describe(failure, endpoints)))


def _infer_always(patch: pytest.MonkeyPatch) -> None:
    checked = watch_machine.Machine.checked
    patch.setattr(
        watch_machine.Machine, "checked", lambda self, watch, turn, same: checked(self, watch, turn, False)
    )


CHANGED = [
    Changed("a fragment is taken for the whole", _no_fragments, scenarios.large_revisions, "watch, whole"),
    Changed("a watch resumes one revision late", _resume_later, scenarios.broken_link, "watch, once"),
    Changed("a write is sent again blindly", _retry_blindly, scenarios.unanswered_write, "applied twice"),
    Changed(
        "revision 0 is copied from a header",
        _copy_zero,
        scenarios.compacted_meanwhile,
        "watch, once",
    ),
    Changed("/ab is watched by /a", _watch_siblings, scenarios.siblings, "watch, whole"),
    Changed("/ab is deleted with /a", _delete_siblings, scenarios.siblings, "wrong effect"),
    Changed(
        "a keepalive's answer is ignored",
        _ignore_keepalives,
        scenarios.revoked_lease,
        "lock, held without a lease",
    ),
    Changed("the fence is left out", _no_fence, scenarios.late_holder, "lost increment"),
    Changed("a list's marker is not rewritten", _leave_markers, scenarios.two_in_a_list, "wrong effect"),
    Changed("a watch is matched by its id alone", _match_by_id, scenarios.denied_watch, "watch, denied"),
    Changed("hasleader is left out", _no_hasleader, scenarios.lonely_member, "watch, silent"),
    Changed("the backoff is not capped", _uncapped_backoff, scenarios.outage, "found late"),
    Changed("the guard on what stands above is left out", _no_guard, scenarios.below_a_leaf, "wrong effect"),
    Changed("a revision is not compared", _no_compare, scenarios.moved_meanwhile, "wrong effect"),
    Changed(
        "a leaf leaves what is below it", _keep_what_is_below, scenarios.leaf_over_a_tree, "broken layout"
    ),
    Changed("what is in doubt is denied", _deny_doubts, scenarios.unanswered_delete, "wrongly not applied"),
    Changed("history is taken for gone", _infer_always, scenarios.broken_link, "watch, needless gap"),
]
