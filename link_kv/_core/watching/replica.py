"""The keys of a watched range as they are at a revision, and what the next revision changes in them.

Pure: no server, no clock, no threads. A change is one per leaf, and a leaf is what iteration over a client
shows: a value, or an empty dict or list. So most of this is about markers, which count only while nothing
stands below them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

from link_kv.codec import decode
from link_kv.tree import EMPTY_DICT, LIST, MISSING, Place, build, nameable

_SLASH = ord("/")


class Change(NamedTuple):
    """What one revision did to one leaf."""

    path: str
    """As the client names it, ``/a/b``."""
    value: Any
    """The new value, ``{}`` or ``[]`` for a dict or list that is empty now; `MISSING` after a delete."""
    previous: Any
    """The value before; `MISSING` when there was none, or when it is not known."""
    revision: int
    """Of the write. Of a synthetic delete, which may have happened at any time: when it was noticed."""
    kind: Literal["put", "delete"]
    synthetic: bool = False
    """Whether it was inferred by comparing, because the history between was gone or was not asked for."""


Event = tuple[bytes, bytes | None]
"""A key and its new value, None when it was deleted."""


class Batch(NamedTuple):
    """All that one revision did in a watched range; or, when synthetic, all that a comparison has found."""

    revision: int
    changes: list[Change]
    hidden: list[Event]
    """What it did to housekeeping, whose keys no `Change` shows."""
    synthetic: bool = False


class Held(NamedTuple):
    """A key's value, as it was read or came."""

    value: bytes
    revision: int
    path: str | None
    """The path of the leaf, of a marker that of its dict or list; None for what never shows."""
    marker: bool


def value_of(held: Held) -> Any:
    """The Python value of a leaf."""
    if held.marker:
        return [] if held.value == LIST else {}
    return decode(held.value)


class Replica:
    """The keys of a place and below it, at one revision; 0 before anything was loaded."""

    def __init__(self, at: Place) -> None:
        self.at = at
        self.revision = 0
        self.count = 0
        """How many leaves there are."""
        self.events: list[Event] = []
        """What the last revision did to all keys, markers included; nothing after a reading."""
        self._kvs: dict[bytes, Held] = {}
        # For each dict or list, by its marker's key, how many keys stand below it.
        self._below: dict[bytes, int] = {}

    def copy(self) -> Replica:
        twin = Replica(self.at)
        twin.revision, twin.count = self.revision, self.count
        twin._kvs, twin._below = self._kvs.copy(), self._below.copy()
        return twin

    def covers(self, key: bytes) -> bool:
        """Whether a key is the place's own or below it, rather than a sibling's such as ``/a-b``."""
        return key.startswith(self.at.marker) or (key == self.at.key and bool(self.at.segments))

    # Reading

    def held(self, key: bytes) -> Held | None:
        """What a key holds, whether it shows or not."""
        return self._kvs.get(key)

    def below(self, marker: bytes) -> int:
        """How many keys that show stand below a dict or list, given by the key of its marker."""
        return self._below.get(marker, 0)

    def all(self) -> list[tuple[bytes, Held]]:
        """All keys, in no order."""
        return list(self._kvs.items())

    def leaf(self, base: bytes) -> Held | None:
        """The leaf at a key without a slash at its end: its value, or else the marker of an empty one."""
        held = self._kvs.get(base)
        if held is not None:
            return None if held.path is None or held.marker else held
        marker = base + b"/"
        held = self._kvs.get(marker)
        if held is None or held.path is None or marker in self._below:
            return None
        return held

    def leaves(self) -> list[tuple[bytes, Held]]:
        """All leaves by their keys without a slash at the end, in the order of the keys."""
        found = []
        for key in sorted(self._kvs):
            held = self._kvs[key]
            if held.path is None:
                continue
            if not held.marker:
                found.append((key, held))
            elif self.leaf(key[:-1]) is held:
                found.append((key[:-1], held))
        return found

    @property
    def empty(self) -> bool:
        return not self._kvs

    def newest(self) -> tuple[bytes, Held] | None:
        """The key that was written last, of those that are there."""
        return max(self._kvs.items(), key=lambda item: item[1].revision, default=None)

    def hidden(self) -> list[tuple[bytes, bytes]]:
        """Housekeeping, and what else never shows: keys and values."""
        return [(key, held.value) for key, held in self._kvs.items() if held.path is None]

    def tree(self) -> Any:
        """The nested value, `MISSING` when nothing is there."""
        own = self._kvs.get(self.at.key) if self.at.segments else None
        if own is not None:
            return value_of(own)
        pairs = [(key, held.value) for key, held in sorted(self._kvs.items()) if held.path is not None]
        return build(pairs, self.at)

    # Changing

    def load(self, revision: int, pairs: Iterable[tuple[bytes, bytes, int]]) -> Batch:
        """Take the keys as they were read at a revision: keys, values, revisions of their last writes.

        The batch is what differs from before. Each put has the revision of its write; what is older than what
        was known before, as in a server that was wiped, has the revision of the reading.
        """
        before, known = self._kvs, self.revision
        old = dict(self.leaves()) if known else {}
        # Made apart, since mirrors read without a lock.
        kvs: dict[bytes, Held] = {}
        below: dict[bytes, int] = {}
        for key, value, mod in pairs:
            if self.covers(key):
                kvs[key] = held = self._held(key, value, mod)
                if held.path is not None:
                    for marker in self._above(key):
                        below[marker] = below.get(marker, 0) + 1
        self._below, self._kvs, self.revision, self.events = below, kvs, revision, []
        new = dict(self.leaves())
        self.count = len(new)
        if not known:
            return Batch(revision, [], [], True)
        changes = []
        for base, held in new.items():
            was = old.get(base)
            if was is not None and held == (was._replace(revision=held.revision) if held.marker else was):
                continue
            mod = held.revision if held.revision > known else revision
            changes.append(_change(mod, held, was, True))
        changes += (_change(revision, None, was, True) for base, was in old.items() if base not in new)
        changes.sort(key=lambda change: change.revision)
        hidden: list[Event] = [
            (key, held.value)
            for key, held in self._kvs.items()
            if held.path is None and before.get(key) != held
        ]
        hidden += ((key, None) for key, was in before.items() if was.path is None and key not in self._kvs)
        return Batch(revision, changes, hidden, True)

    def apply(self, revision: int, events: Sequence[Event]) -> Batch:
        """Take over what a revision did, all of it; the batch is what it did to leaves."""
        kvs = self._kvs
        changes: list[Change] = []
        hidden: list[Event] = []
        new: dict[bytes, Held] = {}
        for event in events:
            key, value = event
            was = kvs.get(key)
            if was is None or value is None or was.marker:
                return self._restructure(revision, events)
            new[key] = Held(value, revision, was.path, False)
            if was.path is None:
                hidden.append(event)
            else:
                changes.append(Change(was.path, decode(value), decode(was.value), revision, "put"))
        kvs.update(new)
        self.revision = revision
        self.events = list(events)
        return Batch(revision, changes, hidden)

    def _restructure(self, revision: int, events: Sequence[Event]) -> Batch:
        """Take over a revision in which keys appear or go, or markers change."""
        kvs = self._kvs
        before: dict[bytes, Held | None] = {}
        hidden: list[Event] = []
        news: list[tuple[bytes, Held | None, Held | None]] = []
        written: set[bytes] = set()
        unknown: dict[bytes, str] = {}

        def note(base: bytes) -> None:
            if base not in before:
                before[base] = self.leaf(base)

        for key, value in events:
            was = kvs.get(key)
            if was is None and not self.covers(key):
                continue
            now = None if value is None else self._held(key, value, revision)
            news.append((key, was, now))
            if was is None and now is None and (path := self._path(key)) is not None and key[-1] != _SLASH:
                unknown[key] = path
                note(key)
            elif not _shows(was) and not _shows(now):
                hidden.append((key, value))
            else:
                note(key.removesuffix(b"/"))
                if now is not None and not now.marker:
                    written.add(key)
                if _shows(was) != _shows(now):
                    for marker in self._above(key):
                        if marker in kvs:
                            note(marker[:-1])
        for key, was, now in news:
            if now is not None:
                kvs[key] = now
            elif was is not None:
                del kvs[key]
            if _shows(was) != _shows(now):
                self._add_below(key, 1 if _shows(now) else -1)
        changes = []
        for base, was in before.items():
            now = self.leaf(base)
            self.count += (now is not None) - (was is not None)
            if now is None and was is None:
                if base in unknown:
                    changes.append(Change(unknown[base], MISSING, MISSING, revision, "delete"))
            elif (
                now is None
                or was is None
                or base in written
                or (now.marker, now.value) != (was.marker, was.value)
            ):
                changes.append(_change(revision, now, was, False))
        self.revision = revision
        self.events = [event for event in events if self.covers(event[0])]
        return Batch(revision, changes, hidden)

    # Keys

    def _held(self, key: bytes, value: bytes, revision: int) -> Held:
        marker = key[-1] == _SLASH
        foreign = marker and value not in (EMPTY_DICT, LIST)
        return Held(value, revision, None if foreign else self._path(key), marker)

    def _path(self, key: bytes) -> str | None:
        """The path that a covered key stands for, None when it never shows."""
        at = self.at
        try:
            path = str(key[len(at.prefix) :], "utf-8")
        except UnicodeDecodeError:
            return None
        if key == at.key:
            return at.path
        below = path[len(at.path) + 1 :] if at.segments else path[1:]
        marker = key[-1] == _SLASH
        name = below[:-1] if marker else below
        if not nameable(name) if name else below or not at.segments:
            return None
        return path[:-1] if marker else path

    def _above(self, key: bytes) -> Iterator[bytes]:
        """The keys that the markers of the dicts and lists around a key have, inside the range."""
        last = len(key) - 1
        slash = key.find(b"/", len(self.at.key))
        while 0 <= slash < last:
            yield key[: slash + 1]
            slash = key.find(b"/", slash + 1)

    def _add_below(self, key: bytes, number: int) -> None:
        below = self._below
        for marker in self._above(key):
            count = below.get(marker, 0) + number
            if count:
                below[marker] = count
            else:
                del below[marker]


def _shows(held: Held | None) -> bool:
    return held is not None and held.path is not None


def _change(revision: int, now: Held | None, was: Held | None, synthetic: bool) -> Change:
    previous = MISSING if was is None else value_of(was)
    if now is not None and now.path is not None:
        return Change(now.path, value_of(now), previous, revision, "put", synthetic)
    assert was is not None
    assert was.path is not None
    return Change(was.path, MISSING, previous, revision, "delete", synthetic)
