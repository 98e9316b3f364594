"""Whether what programs were told agrees with what etcd holds. Pure functions over a recorded history.

Every value is written once, so etcd's own history says at which revision a write took effect, and that is its
place in the one order of everything. What is left is to hold each operation against the states around its
place: which takes O(n log n), and no search.

=======================  ===================================================================================
finding                  what it means
=======================  ===================================================================================
lost write               it was acknowledged, and etcd does not have it
ghost write              etcd has a write that nobody made
applied twice            etcd has one write at two revisions
wrongly not applied      it was reported as not applied, and etcd has it
wrong effect             what it left is not what it should have left: a guard, a part, or a neighbour
wrong revision           the revision that it was told is not the one that it has
wrong answer             it was told something that no such operation tells
unexpected refusal       it was refused in a way that nothing in its kind calls for
untyped error            it raised what is no error of the library's
broken layout            what etcd holds is no value: below a leaf stands something, a list has a gap
wrong read               it was told a state that etcd never had
stale read               it was told a state that had been replaced before it began
real-time order          a write stands before something that had ended before it began
=======================  ===================================================================================
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from math import inf
from typing import Any, NamedTuple

from tests.faults.records import Compactions, Delivery, Op, Truth
from tests.model import layout

ABSENT = None
"""The value of what is not there. No value that is written is null."""

READS = ("read", "entry", "all", "items")
_TELL_REVISION = ("put", "cas", "create", "delete", "leaf", "unleaf", "unitem")

_REFUSALS = {
    "create": ("KeyExists",),
    "delete": ("NotFound",),
    "pop": ("NotFound",),
    "entry": ("NotFound",),
    "unleaf": ("NotFound",),
    "unitem": ("NotFound",),
    "leaf": ("NotATree",),
    "append": ("NotATree",),
}
"""What may be refused, and how. Each tells of the state, and `told_state` says what."""

_LATE = 15.0
"""Seconds after which a request that nobody waits for any more no longer takes effect.

It may lie in the buffers of a member that is frozen or cut off for 3 s, and TCP takes a few to send it again.
"""


class Finding(NamedTuple):
    check: str
    detail: str

    def __str__(self) -> str:
        return f"{self.check}: {self.detail}"


# What etcd holds, as nested values


def nest(keys: dict[str, str]) -> Any:
    """The value of a unit, by its keys: ``''`` its own, ``'/…'`` those below it."""
    if not keys:
        return ABSENT
    if "" in keys:
        return _decode(keys[""])
    parts: dict[str, dict[str, str]] = {}
    for key, stored in keys.items():
        name, slash, rest = key[1:].partition("/")
        if name:
            parts.setdefault(name, {})[slash + rest] = stored
    found = {name: nest(part) for name, part in parts.items()}
    if keys.get("/") == "[]":
        places = [str(number) for number in range(1, len(found) + 1)]
        if found.keys() == set(places):
            return [found[place] for place in places]
    return found


def broken(name: str, keys: Mapping[str, str]) -> list[str]:
    """What breaks the laws of the layout in a unit, by its keys. `nest` shows less than there is."""
    if keys.keys() <= {""}:
        return []
    return layout.faults(
        [(f"/{name}{below}".encode(), stored.encode()) for below, stored in keys.items()], b""
    )


def _decode(stored: str) -> Any:
    return int(stored) if stored.lstrip("-").isdigit() else stored


def leaves(value: Any, path: str) -> dict[str, Any]:
    """The leaves of a nested value; an empty dict or list is one."""
    if isinstance(value, dict) and value:
        parts: Iterable[tuple[Any, Any]] = value.items()
    elif isinstance(value, list) and value:
        parts = enumerate(value, 1)
    else:
        return {} if value is ABSENT else {path: value}
    found: dict[str, Any] = {}
    for name, part in parts:
        found.update(leaves(part, f"{path}/{name}"))
    return found


def numbers(value: Any) -> set[int]:
    """The numbers in a nested value."""
    return {leaf for leaf in leaves(value, "").values() if isinstance(leaf, int)}


def unit_of(key: str) -> str:
    """The top-level name that a key belongs to; empty for housekeeping."""
    name = key[1:].partition("/")[0]
    return "" if name == ".link" else name


class Unit:
    """The states of one top-level name: which revisions it was touched at, and what it was from then on."""

    def __init__(self) -> None:
        self.revisions = [0]
        self.values: list[Any] = [ABSENT]
        self.versions = [0]
        """How often its own key was put since it was made."""

    def index(self, revision: int) -> int:
        return bisect_right(self.revisions, revision) - 1

    def at(self, revision: int) -> Any:
        return self.values[self.index(revision)]

    def mod(self, revision: int) -> int:
        """The revision of the last write, 0 when nothing is there."""
        index = self.index(revision)
        return 0 if self.values[index] is ABSENT else self.revisions[index]


class History:
    """What etcd holds, worked out once."""

    def __init__(self, truth: Truth) -> None:
        self.units: dict[str, Unit] = {}
        self.touched: dict[int, list[str]] = {}
        """The units that each revision touched."""
        self.changes: dict[int, dict[str, tuple[Any, Any]]] = {}
        """What each revision did to leaves: value and previous value, by path."""
        self.entered: dict[int, list[int]] = {}
        """The revisions at which a value that was not there came."""
        self.went: dict[int, int] = {}
        """The revisions at which the values of whole names went without another coming."""
        self.findings: list[Finding] = []
        self._leaves: dict[str, list[tuple[int, Any]]] = {}
        self._broken: dict[str, list[str]] = {}
        keys: dict[str, dict[str, str]] = {}
        for revision, events in truth:
            touched: dict[str, set[str]] = {}
            put_values: set[int] = set()
            for key, stored in events:
                name = unit_of(key)
                if not name:
                    if not key.startswith("/.link/"):
                        self.findings.append(
                            Finding("broken layout", f"at revision {revision} {key!r} is written, of no name")
                        )
                    continue
                below = key[1 + len(name) :]
                held = keys.setdefault(name, {})
                puts = touched.setdefault(name, set())
                if stored is None:
                    held.pop(below, None)
                else:
                    held[below] = stored
                    puts.add(key)
                    if not name.startswith("l"):
                        put_values |= numbers(_decode(stored))
            for name, puts in touched.items():
                self._touch(revision, name, keys[name], puts, put_values)
            for value in put_values:
                self.entered.setdefault(value, []).append(revision)

    def _touch(
        self, revision: int, name: str, keys: dict[str, str], puts: set[str], put_values: set[int]
    ) -> None:
        faults, known = broken(name, keys), self._broken.get(name, ())
        if faults or known:  # each is told once, though it lasts
            self._broken[name] = faults
            self.findings += [
                Finding("broken layout", f"at revision {revision} {fault}")
                for fault in faults
                if fault not in known
            ]
        unit = self.units.setdefault(name, Unit())
        before, after = unit.values[-1], nest(keys)
        version = unit.versions[-1] + 1 if after is not ABSENT else 0
        unit.revisions.append(revision)
        unit.values.append(after)
        unit.versions.append(version)
        self.touched.setdefault(revision, []).append(name)
        if name.startswith("l"):  # in a list what stands behind moves up, and is put again
            put_values |= numbers(after) - numbers(before)
        if after is ABSENT and isinstance(before, int):
            self.went[before] = revision
        path = f"/{name}"
        old, new = leaves(before, path), leaves(after, path)
        changes = self.changes.setdefault(revision, {})
        for leaf, value in new.items():
            if leaf in puts or leaf not in old or not same(old[leaf], value):
                changes[leaf] = (value, old.get(leaf, ABSENT))
        changes.update((leaf, (ABSENT, value)) for leaf, value in old.items() if leaf not in new)
        for leaf in changes:
            if leaf == path or leaf.startswith(path + "/"):
                self._leaves.setdefault(leaf, []).append((revision, changes[leaf][0]))

    def leaf_at(self, path: str, revision: int) -> tuple[int, Any]:
        """The value of a leaf, and since when it has it."""
        states = self._leaves.get(path, [])
        index = bisect_right(states, revision, key=lambda state: state[0])
        return states[index - 1] if index else (0, ABSENT)

    def difference(self, start: int, end: int) -> dict[str, Any]:
        """The leaves that were written after one revision and stand at another, and those that went."""
        found = {}
        for path in self._leaves:
            (_, before), (since, after) = self.leaf_at(path, start), self.leaf_at(path, end)
            # An empty dict or list that went and came again has no value of its own, and is no difference.
            if since > start and not (same(before, after) and not isinstance(after, int)):
                found[path] = after
        return found

    def state(self, revision: int) -> dict[str, Any]:
        """All leaves at a revision."""
        found = {path: self.leaf_at(path, revision)[1] for path in self._leaves}
        return {path: value for path, value in found.items() if value is not ABSENT}


def same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other)


# What an operation does


class Refused(Exception):
    """The operation would not have happened on this state."""


def effect(op: Op, name: str, before: Any, mod: int) -> Any:
    """What a write makes of a unit."""
    kind, args = op.kind, op.args
    if kind == "put":
        return args[1]
    if kind == "cas":
        _need(mod == args[2], f"was at revision {mod}, not {args[2]}")
        return args[1]
    if kind in ("create", "setdefault"):
        _need(before is ABSENT, "was there")
        return args[1]
    if kind == "delete":
        _need(before is not ABSENT, "was not there")
        return ABSENT
    if kind == "pop":
        _need(before is not ABSENT, "was not there")
        _need(not op.ok or same(before, op.result), f"was {before}, told {op.result}")
        return ABSENT
    if kind == "leaf":
        return {**_dict(before), args[1]: args[2]}
    if kind == "unleaf":
        names = dict(_dict(before))
        _need(args[1] in names, "was not there")
        del names[args[1]]
        return names or ABSENT
    if kind == "append":
        items = [*_list(before), args[1]]
        _need(not op.ok or op.result == f"/{name}/{len(items)}", f"is item {len(items)}, told {op.result}")
        return items
    if kind == "unitem":
        items = list(_list(before))
        _need(args[1] <= len(items), "was not there")
        del items[args[1] - 1]
        return items
    if kind == "update":
        return args[0][name]
    assert kind == "txn", kind
    return args[1][name]


def _need(condition: bool, why: str) -> None:
    if not condition:
        raise Refused(why)


def _dict(value: Any) -> dict[str, Any]:
    _need(value is ABSENT or isinstance(value, dict), "was no dict")
    return value or {}


def _list(value: Any) -> list[Any]:
    _need(value is ABSENT or isinstance(value, list), "was no list")
    return value or []


def written(op: Op) -> list[str]:
    """The units that a write is to."""
    if op.kind in READS:
        return []
    if op.kind == "update":
        return list(op.args[0])
    if op.kind == "txn":
        return list(op.args[1])
    return [op.args[0]]


def brought(op: Op) -> set[int]:
    """The values that it brings, by which it is known in etcd's history."""
    if op.kind in ("put", "cas", "create", "setdefault", "append"):
        return numbers(op.args[1])
    if op.kind == "leaf":
        return numbers(op.args[2])
    if op.kind in ("update", "txn"):
        return numbers(op.args[0 if op.kind == "update" else 1])
    return set()


Predicate = Callable[[Any, int, int], bool]
"""Of a unit's value, revision and version."""


def told_state(op: Op) -> dict[str, Predicate] | None:
    """What an operation was told of the state: a condition on each unit. None when it was told nothing."""
    kind, args, result = op.kind, op.args, op.result
    if op.ok:
        if kind == "read":
            return {args[0]: lambda value, mod, version: same(value, result)}
        if kind == "entry":
            return {args[0]: lambda value, mod, version: [value, mod, version] == result}
        if kind == "setdefault" and not same(result, args[1]):
            return {args[0]: lambda value, mod, version: same(value, result)}
        if kind in ("all", "items"):
            if not isinstance(result, dict) or not result.keys() <= set(args[0]):
                return {args[0][0]: lambda value, mod, version: False}  # no state has this, or shows as this
            return {name: _equals(result.get(name, ABSENT)) for name in args[0]}
        return None
    if op.outcome == "NotFound":
        if kind == "unleaf":
            return {args[0]: lambda value, mod, version: not isinstance(value, dict) or args[1] not in value}
        if kind == "unitem":
            return {args[0]: lambda value, mod, version: not isinstance(value, list) or len(value) < args[1]}
        return {args[0]: lambda value, mod, version: value is ABSENT}
    if op.outcome == "KeyExists":
        return {args[0]: lambda value, mod, version: value is not ABSENT}
    if op.outcome == "Conflict" and kind == "cas":
        return {args[0]: lambda value, mod, version: (0 if value is ABSENT else mod) != args[2]}
    if op.outcome == "NotATree":
        tree = dict if kind == "leaf" else list
        return {args[0]: lambda value, mod, version: value is not ABSENT and not isinstance(value, tree)}
    return None


def _equals(wanted: Any) -> Predicate:
    return lambda value, mod, version: same(value, wanted)


def wrong_answer(op: Op) -> bool:
    """Whether it succeeded, and was told what no such operation tells, whatever the state."""
    kind, result = op.kind, op.result
    if not op.ok or kind in ("read", "all", "items"):
        return False
    if kind in _TELL_REVISION:
        return type(result) is not int
    if kind == "append":
        return not isinstance(result, str)
    if kind == "entry":
        return not isinstance(result, list) or len(result) != 3 or result[0] is ABSENT
    if kind == "txn":
        return not isinstance(result, dict) or result.keys() != set(op.args[0])
    return (result is ABSENT) != (kind == "update")  # what was there, or nothing at all


def unexpected(op: Op, compactions: Compactions | None) -> bool:
    """Whether nothing calls for such a refusal."""
    kind, outcome = op.kind, op.outcome
    if outcome in ("ok", "not applied", "untyped"):
        return False
    if outcome == "unknown":
        return kind in READS and op.ended is not None
    if kind == "cas":
        return outcome != ("Conflict" if op.args[2] else "KeyExists")
    if kind == "items" and outcome == "RevisionError":
        # It reads twice at one revision, before which history may be thrown away in between.
        assert op.ended is not None
        return compactions is not None and not any(op.began - _LATE < at < op.ended for _, at in compactions)
    return outcome not in _REFUSALS.get(kind, ())


# The check


class Result(NamedTuple):
    findings: list[Finding]
    counts: Counter[str]
    """How many operations had which outcome."""


def check(history: History, ops: Sequence[Op], compactions: Compactions | None = None) -> Result:
    """Hold all operations against etcd's history. Without ``compactions`` any of them may have been."""
    return _Check(history, ops, compactions).run()


class _Check:
    def __init__(self, history: History, ops: Sequence[Op], compactions: Compactions | None) -> None:
        self.history = history
        self.ops = ops
        self.compactions = compactions
        self.findings: list[Finding] = [*history.findings]
        self.place: dict[str, int] = {}
        """The revisions of writes, by the ids of their operations."""
        self.taken: dict[int, Op] = {}

    def find(self, check: str, op: Op | None, detail: str) -> None:
        told = op and (op.error or f"{op.outcome} {op.result}")
        who = f"{op.id} {op.kind} {op.args} ({told}): " if op else ""
        self.findings.append(Finding(check, who + detail))

    def run(self) -> Result:
        for op in self.ops:
            self._check_answer(op)
            self._locate(op)
        self._explain_rest()
        for revision, op in self.taken.items():
            self._check_effect(op, revision)
        self._check_order()
        counts = Counter(op.outcome for op in self.ops)
        return Result(self.findings, counts)

    def _check_answer(self, op: Op) -> None:
        if op.ok:
            if wrong_answer(op):
                self.find("wrong answer", op, "it tells no such thing")
        elif op.outcome == "untyped":
            self.find("untyped error", op, "it is none of the library's")
        elif unexpected(op, self.compactions):
            self.find("unexpected refusal", op, "nothing calls for it")

    # Where each write took effect

    def _locate(self, op: Op) -> None:
        values = brought(op)
        found = {revision for value in values for revision in self.history.entered.get(value, ())}
        twice = [value for value in values if len(self.history.entered.get(value, ())) > 1]
        told = op.result if op.ok and op.kind in _TELL_REVISION and type(op.result) is int else None
        if twice:
            self.find("applied twice", op, f"at revisions {sorted(found)}")
        elif len(found) > 1:
            self.find("wrong effect", op, f"is spread over revisions {sorted(found)}")
        if found:
            self._settle(op, min(found), told)
        elif told is not None:
            if self._touches(told, written(op)):
                self._settle(op, told, told)
            else:
                self.find("lost write", op, f"etcd has nothing of it at revision {told}")
        elif op.ok and op.kind == "pop":
            self._settle_pop(op)
        elif op.ok and values and not (op.kind == "setdefault" and not same(op.result, op.args[1])):
            self.find("lost write", op, "etcd has nothing of it")

    def _touches(self, revision: int, units: Iterable[str]) -> bool:
        return set(units) <= set(self.history.touched.get(revision, ()))

    def _settle(self, op: Op, revision: int, told: int | None) -> None:
        if told is not None and told != revision:
            self.find("wrong revision", op, f"is at revision {revision}")
        if not op.ok and not _doubtful(op):
            self.find("wrongly not applied", op, f"is at revision {revision}")
        if revision in self.taken:
            self.find("lost write", op, f"revision {revision} is that of {self.taken[revision].id}")
        self.place[op.id] = revision
        self.taken[revision] = op

    def _settle_pop(self, op: Op) -> None:
        """A pop is where the value that it returned went."""
        revision = self.history.went.get(op.result) if type(op.result) is int else None
        if revision is None:
            self.find("lost write", op, "etcd has nothing of it")
        else:
            self._settle(op, revision, None)

    def _explain_rest(self) -> None:
        """What brings no value of its own and was not acknowledged is known by what it did alone, and when.

        First by those that may have happened, as many as can be. What only those explain that were told that
        they had not happened, they did.
        """
        rest = [revision for revision in self.history.touched if revision not in self.taken]
        times = _Times((revision, op) for revision, op in self.taken.items())
        found = self._explained(rest, _doubtful, times)
        for revision, op in found.items():
            self._settle(op, revision, None)
        rest = [revision for revision in rest if revision not in found]
        denied = self._explained(rest, lambda op: op.outcome == "not applied", times)
        for revision in rest:
            if revision in denied:
                self.find("wrongly not applied", denied[revision], f"is at revision {revision}")
            else:
                names = self.history.touched[revision]
                self.find("ghost write", None, f"nobody wrote {names} at revision {revision}")

    def _explained(self, rest: list[int], may: Callable[[Op], bool], times: _Times) -> dict[int, Op]:
        """Those of these operations that can have made the revisions."""
        if not rest:
            return {}
        silent: dict[str, list[Op]] = {}
        for op in sorted(self.ops, key=lambda op: op.began):
            if op.id not in self.place and may(op) and len(written(op)) == 1 and not brought(op):
                silent.setdefault(written(op)[0], []).append(op)
        return paired({revision: self._candidates(revision, silent, times) for revision in rest})

    def _candidates(self, revision: int, silent: dict[str, list[Op]], times: _Times) -> list[Op]:
        """Those that can have made a revision, by what it did and by their times; in the order of these."""
        name, *others = self.history.touched[revision]
        ops = silent.get(name, ()) if not others else ()
        after, before = times.of(revision)
        began = bisect_right(ops, before, key=lambda op: op.began)
        return [
            op
            for op in ops[:began]
            if (op.began + _LATE if op.ended is None else op.ended) + _LATE > after
            and self._fits(op, name, revision)
        ]

    def _fits(self, op: Op, name: str, revision: int) -> bool:
        unit = self.history.units[name]
        try:
            wanted = effect(op, name, unit.at(revision - 1), unit.mod(revision - 1))
        except Refused:
            return False
        return same(wanted, unit.at(revision))

    def _check_effect(self, op: Op, revision: int) -> None:
        units = written(op)
        beside = set(self.history.touched[revision]) - set(units)
        if beside:
            self.find("wrong effect", op, f"touches {sorted(beside)} at revision {revision}")
        if op.kind == "txn":
            for name, value in op.result.items() if isinstance(op.result, dict) else ():
                was = self._unit(name).at(revision - 1)
                if not same(was, value):
                    self.find(
                        "wrong effect", op, f"read {value} of {name}, which was {was} before {revision}"
                    )
        for name in units:
            unit = self._unit(name)
            before, after = unit.at(revision - 1), unit.at(revision)
            try:
                wanted = effect(op, name, before, unit.mod(revision - 1))
            except Refused as why:
                self.find("wrong effect", op, f"at revision {revision} {name} {why}")
                continue
            if not same(wanted, after):
                self.find("wrong effect", op, f"made {before} of {name} to {after} at revision {revision}")

    def _unit(self, name: str) -> Unit:
        return self.history.units.get(name) or Unit()

    # Whether the one order agrees with time

    def _check_order(self) -> None:
        """Each operation as early as it can be: what began after it had ended stands behind it."""
        ended: list[tuple[float, int]] = []
        floor = 0
        for op in sorted(self.ops, key=lambda op: op.began):
            while ended and ended[0][0] < op.began:
                floor = max(floor, heapq.heappop(ended)[1])
            at = self.place.get(op.id)
            if at is not None:
                if at <= floor:
                    self.find(
                        "real-time order", op, f"is at revision {at}, and began after {floor} was known"
                    )
            elif (told := told_state(op)) is not None:
                at = self._first(told, floor)
                if at is None:
                    self._unexplained(op, told, floor)
            if at is not None and op.ended is not None and op.outcome not in ("unknown", "untyped"):
                heapq.heappush(ended, (op.ended, at))

    def _first(self, told: dict[str, Predicate], floor: int) -> int | None:
        """The first revision from ``floor`` on at which all of the conditions hold."""
        at = floor
        while True:
            moved = at
            for name, holds in told.items():
                unit = self._unit(name)
                for index in range(unit.index(moved), len(unit.values)):
                    if holds(unit.values[index], unit.revisions[index], unit.versions[index]):
                        moved = max(moved, unit.revisions[index])
                        break
                else:
                    return None
            if moved == at:
                return at
            at = moved

    def _unexplained(self, op: Op, told: dict[str, Predicate], floor: int) -> None:
        if self._first(told, 0) is None:
            self.find("wrong read", op, "etcd never had such a state")
        else:
            self.find("stale read", op, f"it began after revision {floor} was known")


def _doubtful(op: Op) -> bool:
    """Whether it may have happened or not, by what it was told."""
    return op.outcome in ("unknown", "untyped") or wrong_answer(op)


class _Times:
    """When revisions were made, as far as the times of those tell whose writes are known."""

    def __init__(self, placed: Iterable[tuple[int, Op]]) -> None:
        known = sorted(placed, key=lambda each: each[0])
        self._revisions = [revision for revision, _ in known]
        self._after = [-inf, *accumulate((op.began for _, op in known), max)]
        ends = (inf if op.ended is None or _doubtful(op) else op.ended for _, op in reversed(known))
        self._before = [inf, *accumulate(ends, min)][::-1]

    def of(self, revision: int) -> tuple[float, float]:
        """The time after which, and the time before which it was made."""
        index = bisect_left(self._revisions, revision)
        return self._after[index], self._before[index]


def paired(candidates: Mapping[int, Sequence[Op]]) -> dict[int, Op]:
    """One operation for each revision, and no other one for it; for as many revisions as can be."""
    held: dict[int, Op] = {}
    of: dict[str, int] = {}
    for revision in candidates:
        came: dict[str, int] = {}
        """The revisions that would take these operations."""
        queue = [revision]
        for each in queue:
            for op in candidates[each]:
                if op.id in came:
                    continue
                came[op.id] = each
                if op.id in of:
                    queue.append(of[op.id])  # which may be content with another
                    continue
                while op is not None:
                    taker = came[op.id]
                    left = held.get(taker)
                    held[taker], of[op.id] = op, taker
                    op = left
                queue.clear()
                break
    return held


# What watchers were told


def check_delivery(
    history: History, delivery: Delivery, compactions: Compactions | None = None
) -> Iterator[Finding]:
    """Every revision once, in order, whole; and a comparison is exactly the difference of two states.

    It takes the place of revisions only where the history of some of them was thrown away. Where nobody wrote
    down when that was, it may have been at any time.
    """
    top = delivery.path.rstrip("/")

    def within(changes: dict[str, Any]) -> dict[str, Any]:
        return {path: each for path, each in changes.items() if path == top or path.startswith(f"{top}/")}

    changed = {
        revision: within(history.changes[revision])
        for revision in sorted(history.changes)
        if delivery.start < revision <= delivery.end
    }
    wanted = [revision for revision, changes in changed.items() if changes]
    at, next_ = delivery.start, 0

    def find(check: str, detail: str) -> Finding:
        return Finding(f"watch, {check}", f"{delivery.name}: {detail}")

    for told in delivery.told:
        revision, changes = told.revision, {path: (value, before) for path, value, before in told.changes}
        if len(changes) != len(told.changes):
            yield find("whole", f"a path twice in revision {revision}")
        if told.synthetic:
            if revision < at:
                yield find("order", f"a gap up to revision {revision} came after {at}")
            # etcd goes on behind the last revision that a watch has, and that is this one or a later one.
            if compactions is not None and not any(at < gone <= revision for gone, _ in compactions):
                yield find("needless gap", f"from {at} to {revision}, of which nothing was compacted away")
            difference = within(history.difference(at, revision))
            if {path: value for path, (value, _) in changes.items()} != difference:
                yield find("whole", f"the gap from {at} to {revision} is not the difference of the states")
            for path, (_, before) in changes.items():
                if not same(before, was := history.leaf_at(path, at)[1]):
                    yield find("whole", f"the gap from {at} has {before} before at {path}, which was {was}")
            while next_ < len(wanted) and wanted[next_] <= revision:
                next_ += 1
        elif revision <= at:
            yield find("order" if revision < at else "once", f"revision {revision} came after {at}")
            continue
        elif revision not in changed:
            yield find("ghost", f"revision {revision} is not in etcd's history")
        else:
            if next_ < len(wanted) and wanted[next_] < revision:
                yield find("once", f"revision {wanted[next_]} did not come before {revision}")
            while next_ < len(wanted) and wanted[next_] <= revision:
                next_ += 1
            if changes != changed[revision]:
                yield find("whole", f"revision {revision} came as {changes}, is {changed[revision]}")
        at = max(at, revision)
    if next_ < len(wanted):
        yield find("once", f"{len(wanted) - next_} revisions did not come, first {wanted[next_]}")


def check_members(truths: dict[str, Truth]) -> Iterator[Finding]:
    """All members have the same history."""
    (first, one), *others = truths.items()
    for name, other in others:
        if one != other:
            at = next((a[0] for a, b in zip(one, other, strict=False) if a != b), "the end")
            yield Finding("members", f"{first} and {name} differ from revision {at} on")
