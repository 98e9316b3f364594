"""The plan of a write: what is compared, what is done, and what is read instead when a compare fails.

A plan is a pure value. One plan is one etcd transaction and one revision, whatever its size. The recipes
and the reasons behind them are in ``docs/explanation/how-writes-stay-whole.md``.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from link_kv.errors import ListIndexError, NotATree
from link_kv.tree import EMPTY_DICT, LIST, Flat, Place, is_index

MAX_COMPARES = 96
"""More guards than this become one compare over a range: 128 is what one chain of transactions may hold."""

_INLINE_STEPS = 4
"""How many list places a write reads in the same round trip in which its guard failed."""


class Compare(NamedTuple):
    """``target(key) op value``; over [key, end) it holds when it does for every key there is."""

    key: bytes
    target: str
    """``version``, ``create`` or ``mod``."""
    op: str
    """``=``, ``<`` or ``>``."""
    value: int
    end: bytes = b""


class Put(NamedTuple):
    key: bytes
    value: bytes
    lease: int = 0


class Delete(NamedTuple):
    key: bytes
    end: bytes = b""
    previous: bool = False


class Get(NamedTuple):
    key: bytes
    end: bytes = b""
    limit: int = 0
    keys_only: bool = False
    revision: int = 0


class PutNew(NamedTuple):
    """A put that does nothing where the key exists already."""

    key: bytes
    value: bytes


class Refuse(NamedTuple):
    """Has the whole transaction refused, with `RevisionError`, where all of the compares hold.

    It has no answer, so it is the last of a plan's operations.
    """

    compares: tuple[Compare, ...]


Operation = Put | Delete | Get | PutNew | Refuse


class Plan(NamedTuple):
    """One transaction."""

    compares: tuple[Compare, ...] = ()
    operations: Sequence[Operation] = ()
    otherwise: Sequence[Operation] = ()
    guarded: bool = False
    """Whether a second arrival fails its compares, whatever others did meanwhile: so it may be sent again."""


def absent(key: bytes, end: bytes = b"") -> Compare:
    return Compare(key, "version", "=", 0, end)


def present(key: bytes, end: bytes = b"") -> Compare:
    return Compare(key, "version", ">", 0, end)


def unmoved(key: bytes, mod: int) -> Compare:
    return Compare(key, "mod", "=", mod)


def quiet(key: bytes, end: bytes, revision: int) -> Compare:
    """Nothing was put in [key, end) after ``revision``. Deletes do not show in a compare over a range."""
    return Compare(key, "mod", "<", revision + 1, end)


def reads(place: Place, *, keys_only: bool = False, limit: int = 0, revision: int = 0) -> tuple[Get, ...]:
    """What reads a leaf and its tree: one Get for the leaf, two for what is visible below."""
    below = tuple(Get(key, end, limit, keys_only, revision) for key, end in place.visible)
    return (Get(place.key, b"", 0, keys_only, revision), *below)


# The guard: no leaf above, no marker above


class Guard(NamedTuple):
    compares: tuple[Compare, ...]
    operations: tuple[Operation, ...] = ()
    """The markers of empty dicts that the write ends."""
    lists: tuple[Place, ...] = ()
    """The lists above, from the top down, where the state was read."""
    leases: tuple[tuple[bytes, int], ...] = ()
    """The markers of those that are under a lease, and their leases: what is written in them shares it."""


class _Step(NamedTuple):
    ancestor: Place
    indices: list[int]
    """The list places that the write goes through, should the ancestor be a list."""
    others: list[str]


def _steps(places: Iterable[Place]) -> list[_Step]:
    steps: dict[bytes, _Step] = {}
    walked: tuple[str, ...] | None = None
    parent: _Step | None = None
    for place in places:
        segments = place.segments
        if segments[:-1] != walked:  # neighbours share all their ancestors
            walked, parent, key = segments[:-1], None, place.prefix
            for depth, segment in enumerate(walked):
                if parent is not None:
                    _pass_through(parent, segment)
                key = key + b"/" + segment.encode()
                parent = steps.get(key)
                if parent is None:
                    above = walked[: depth + 1]
                    parent = steps[key] = _Step(
                        Place("/" + "/".join(above), key, place.prefix, above), [], []
                    )
        if parent is not None and (not parent.others or segments[-1][0] in "123456789"):
            _pass_through(parent, segments[-1])
    return list(steps.values())


def _pass_through(step: _Step, segment: str) -> None:
    if is_index(segment):
        index = int(segment)
        if not step.indices or step.indices[-1] != index:
            step.indices.append(index)
    elif not step.others:
        step.others.append(segment)


def optimistic(places: Sequence[Place]) -> Guard | None:
    """The guard for the usual case, in which nothing above is a leaf, a list or an empty dict.

    None where there are too many ancestors to compare each: then the state must be read first.
    """
    compares: list[Compare] = []
    for step in _steps(places):
        compares += (absent(step.ancestor.key), absent(step.ancestor.marker))
        if len(compares) > MAX_COMPARES:
            return None
    return Guard(tuple(compares))


def guard_reads(places: Sequence[Place], *, inline: bool = False) -> list[Get]:
    """What must be read to `resolve` the guard of ``places``.

    ``inline``, as the else-branch of a write, leaves out the items of lists when they are many.
    """
    steps = _steps(places)
    gets = [get for step in steps for get in (Get(step.ancestor.key), Get(step.ancestor.marker))]
    if inline and sum(len(step.indices) for step in steps) > _INLINE_STEPS:
        return gets
    for step in steps:
        for index in _with_predecessors(step.indices):
            gets += reads(step.ancestor.child(str(index)), keys_only=True, limit=1)
    return gets


def _with_predecessors(indices: Iterable[int]) -> list[int]:
    wanted = set(indices)
    return sorted(wanted | {index - 1 for index in wanted if index > 1})


def resolve(
    places: Sequence[Place],
    answers: Sequence[Sequence[Any]],
    revision: int,
    room: int = MAX_COMPARES,
) -> Guard | None:
    """The guard that fits what was found above ``places``.

    ``answers`` are the key-values for each of `guard_reads`, read at ``revision``. None when the items of a
    list are needed and were not read. Raises `NotATree` below a leaf, `ListIndexError` where a list has no
    such place.
    """
    steps = _steps(places)
    compares: list[Compare] = []
    operations: list[Operation] = []
    lists: list[Place] = []
    leases: list[tuple[bytes, int]] = []
    items = iter(answers[2 * len(steps) :])
    read_items = len(answers) > 2 * len(steps)
    for number, step in enumerate(steps):
        above = step.ancestor
        leaf, marker = answers[2 * number], answers[2 * number + 1]
        if leaf:
            raise NotATree(f"{above.path}: holds a value, so nothing can be written below it")
        compares.append(absent(above.key))
        found = {}
        if read_items:
            for index in _with_predecessors(step.indices):
                found[index] = (next(items), next(items), next(items))
        if not marker:
            compares.append(absent(above.marker))
            continue
        compares.append(unmoved(above.marker, marker[0].mod_revision))
        if marker[0].value == EMPTY_DICT:
            operations.append(Delete(above.marker))
        elif marker[0].value == LIST:
            lists.append(above)
            if marker[0].lease:
                leases.append((above.marker, marker[0].lease))
            if step.others:
                raise ListIndexError(
                    f"{above.path}: is a list, and {step.others[0]!r} is no index; its items are 1, 2, …"
                )
            if not read_items:
                return None
            compares += _list_guard(above, step.indices, found)
    if len(compares) > room:
        compares = _fence(steps, revision)
    return Guard(tuple(compares), tuple(operations), tuple(lists), tuple(leases))


def _list_guard(above: Place, indices: Sequence[int], found: dict[int, Any]) -> Iterator[Compare]:
    """Each item is there, or follows the last one, or one that was written before it."""
    written = {0}
    for index in dict.fromkeys(indices):
        written.add(index)
        if any(found[index]):
            yield _still_there(above.child(str(index)), found[index])
            continue
        if index - 1 not in written:
            if any(found[index - 1]):
                yield _still_there(above.child(str(index - 1)), found[index - 1])
            else:
                raise ListIndexError(f"{above.path}/{index}: the list is shorter; append at its end instead")
        item = above.child(str(index))
        yield absent(item.key)
        for start, end in item.visible:
            yield absent(start, end)


def _still_there(item: Place, found: Sequence[Sequence[Any]]) -> Compare:
    if found[0]:
        return present(item.key)
    return present(*item.visible[0 if found[1] else 1])


def _fence(steps: Sequence[_Step], revision: int) -> list[Compare]:
    """One compare for each top-level tree: nothing below was put since the guard was read.

    Puts are all that matters: markers are put when a list shrinks, and a leaf above that goes harms nobody.
    """
    tops = {step.ancestor.segments[0]: step.ancestor for step in steps}
    if len(tops) > MAX_COMPARES:
        prefix = steps[0].ancestor.prefix
        return [quiet(prefix + b"/", prefix + b"0", revision)]
    compares = []
    for segment, place in tops.items():
        key = place.prefix + b"/" + segment.encode()
        compares.append(quiet(key, key + b"0", revision))
    return compares


# Writing


def set_leaf(place: Place, stored: bytes, lease: int = 0) -> tuple[Operation, ...]:
    return (Put(place.key, stored, lease), Delete(place.marker, place.end))


def puts(flat: Flat, lease: int = 0) -> list[Operation]:
    return [Put(key, value, lease) for key, value in flat.pairs]


def replace(
    place: Place, flat: Flat, leaf: bool, found: Iterable[bytes], revision: int, lease: int = 0
) -> tuple[tuple[Compare, ...], list[Operation]]:
    """A tree over what was found at ``revision``: the new keys, and deletes of those that are gone.

    ``leaf`` tells whether the place itself held a value; ``found`` are the keys below. Deletes by others
    that this does not see are harmless: the keys are put again or are gone anyway.
    """
    operations = puts(flat, lease)
    compares = [quiet(place.marker, place.end, revision)]
    if leaf:
        operations.append(Delete(place.key))
    else:
        compares.append(absent(place.key))
    new = {key for key, _ in flat.pairs}
    nodes = set(flat.nodes)
    operations += [Delete(key) for key in found if key not in new and owner(key, place) not in nodes]
    return tuple(compares), operations


def touched(place: Place, flat: Flat, found: Iterable[bytes]) -> bytes | None:
    """The first of the keys found below a place that replacing it writes or deletes.

    Where that is compared as well, a second arrival fails: its revision never comes back. That nothing was
    put since is true again once others have deleted what was written.
    """
    nodes = set(flat.nodes)
    return next((key for key in found if owner(key, place) not in nodes), None)


def owner(key: bytes, place: Place) -> bytes | None:
    """The key of the tree whose housekeeping ``key`` is; None for a key of a value."""
    at = key.find(b"/.link/", len(place.key))
    return None if at < 0 else key[:at]


def gaps(place: Place, flat: Flat, lease: int = 0) -> list[Operation]:
    """A tree over whatever is there, unread: the new keys, and a delete of every gap between them."""
    operations = puts(flat, lease)
    operations.append(Delete(place.key))
    kept = [(key, key + b"\0") for key, _ in flat.pairs]
    kept += [(node + b"/.link/", node + b"/.link0") for node in flat.nodes]
    cursor = place.marker
    for start, end in sorted(kept):
        if cursor < start:
            operations.append(Delete(cursor, start))
        cursor = max(cursor, end)
    if cursor < place.end:
        operations.append(Delete(cursor, place.end))
    return operations


def gone(found: Iterable[bytes], kept: Iterable[bytes]) -> list[Operation]:
    """Deletes of the keys that were found and are not kept: one for all between two that are kept.

    ``found`` are all keys of one range, in which nothing may be put meanwhile.
    """
    kept = set(kept)
    deletes: list[Operation] = []
    for stays, run in itertools.groupby(sorted(kept.union(found)), kept.__contains__):
        if not stays:
            first, *others = run
            deletes.append(Delete(first, others[-1] + b"\0") if others else Delete(first))
    return deletes


def in_lists(operations: Sequence[Operation], guard: Guard) -> Sequence[Operation]:
    """The operations of a write under this guard, such that no item outlives the list that it is in."""
    if not guard.leases:
        return operations
    return [
        op._replace(lease=next((lease for marker, lease in guard.leases if op.key.startswith(marker)), 0))
        if type(op) is Put and not op.lease
        else op
        for op in operations
    ]


def create(place: Place, flat: Flat, lease: int = 0) -> tuple[tuple[Compare, ...], list[Operation]]:
    compares = (absent(place.key), *(absent(start, end) for start, end in place.visible))
    return compares, puts(flat, lease)


# Deleting


def delete(place: Place, *, previous: bool = False) -> tuple[Operation, ...]:
    """The leaf, the tree, and its housekeeping; the first three answers tell what was visible."""
    below = tuple(Delete(start, end, previous) for start, end in place.visible)
    return (Delete(place.key, b"", previous), *below, Delete(*place.housekeeping))


def housekeeping_alone(place: Place) -> Refuse:
    """Beside a delete: that nothing visible is there, and housekeeping is. It stays, as no tree of it goes.

    The deletes are not in an inner transaction instead: etcd may not ask there whether a role may do it.
    """
    visible = (absent(start, end) for start, end in place.visible)
    return Refuse((absent(place.key), *visible, present(*place.housekeeping)))


def no_list_above(place: Place) -> tuple[Compare, ...]:
    return tuple(absent(above.marker) for above in place.ancestors())


def markers_again(markers: Sequence[Any]) -> list[Operation]:
    """Rewrite the markers of lists, given as they were read: a delete inside a list shows only there."""
    return [Put(marker.key, LIST, marker.lease) for marker in markers]


def delete_in_item(
    place: Place, item: Place, markers: Sequence[Any], found: Sequence[Any], revision: int
) -> Plan:
    """Delete below a list's item. ``markers`` are the markers of the lists above, which are to be compared;
    ``found`` are the visible key-values of the item at ``revision``."""
    gone = [kv for kv in found if kv.key == place.key or place.marker <= kv.key < place.end]
    compares = (quiet(item.marker, item.end, revision), present(gone[0].key))
    operations = [*delete(place), *markers_again(markers)]
    if len(gone) == len(found):
        operations.append(Put(item.marker, EMPTY_DICT, gone[0].lease))
    return Plan(compares, operations, guarded=True)


def notes_left(notes: Mapping[bytes, Any], place: Place, *, item: bool) -> dict[bytes, Any]:
    """Housekeeping by key, once what is at a place was deleted. Where that was an ``item`` of a list, what
    belongs to those behind it moves up."""
    above, _, index = place.key.rpartition(b"/")
    left = {}
    for key, kv in notes.items():
        if key.startswith(place.marker):
            continue
        if item and key.startswith(above + b"/"):
            segment, _, rest = key[len(above) + 1 :].partition(b"/")
            if is_index(segment.decode(errors="replace")) and int(segment) > int(index):
                key = b"%s/%d/%s" % (above, int(segment) - 1, rest)
        left[key] = kv
    return left


def delete_item(
    above: Place, index: int, markers: Sequence[Any], found: Sequence[Any], revision: int
) -> Plan:
    """Delete an item of a list and move those behind it up.

    ``markers`` are those of the list and of each list above it, which are to be compared; ``found`` are all
    key-values below the list at ``revision``, housekeeping of its items included.
    """
    start = len(above.marker)
    old: set[bytes] = set()
    new: dict[bytes, Put] = {}
    for kv in found:
        segment, slash, rest = kv.key[start:].partition(b"/")
        try:
            number = int(segment) if is_index(segment.decode()) else 0
        except UnicodeDecodeError:
            continue
        if number < index:
            continue
        old.add(kv.key)
        if number > index:
            key = above.marker + str(number - 1).encode() + slash + rest
            new[key] = Put(key, kv.value, kv.lease)
    operations: list[Operation] = [*new.values()]
    operations += [Delete(key) for key in sorted(old - new.keys())]
    operations += markers_again(markers)
    return Plan((quiet(above.marker, above.end, revision),), operations, guarded=True)
