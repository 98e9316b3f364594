"""What a store holds at a revision: the values of its items, who wrote them when, and what is said of them.

Pure: a `StoreState` is told of each batch of a watch over the store, and says which items that changed. What
time it is it is told too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterable
from typing import Any, Generic, NamedTuple, TypeVar
from weakref import WeakValueDictionary

from link_kv._core.items.descriptions import PLAIN, Description
from link_kv._core.watching.replica import Batch, Change, Event, Held, Replica
from link_kv.codec import decode
from link_kv.errors import ConfigError, LinkKVError
from link_kv.tree import MISSING, Place, build, decode_name, is_index, nameable


class Moment(NamedTuple):
    """An item's value, and how it came to be."""

    value: Any
    """None when the item is unset; `MISSING` when a callback is told of that."""
    timestamp: float | None
    """Seconds since 1970: by the writer's clock, or when it was seen here. None when the item is unset."""
    writer: str | None
    """None when it was not written as an item."""
    revision: int
    """0 when the item is unset."""


UNSET = Moment(None, None, None, 0)


def description_key(store: Place, segment: str) -> bytes:
    """Where the description of an item is."""
    return store.marker + b".link/items/" + segment.encode()


def stamp_key(store: Place, segment: str) -> bytes:
    """Where the time and the writer of an item's value are."""
    return store.marker + b".link/at/" + segment.encode()


def write_stamp(timestamp: float, writer: str) -> bytes:
    return json.dumps({"time": timestamp, "writer": writer}, ensure_ascii=False).encode()


def read_stamp(stored: bytes) -> tuple[float, str | None] | None:
    """Time and writer; None for what is no stamp."""
    try:
        stamp = json.loads(stored)
        timestamp, writer = float(stamp["time"]), stamp.get("writer")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
        return None
    return timestamp, writer if isinstance(writer, str) else None


class Cell:
    """What a `StoreState` keeps of one item."""

    __slots__ = ("__weakref__", "_listeners", "_now", "_raw", "_segment", "description", "key", "value")

    key: str
    """The name, in lower case."""
    value: Any
    """The value as last heard, None when the item is unset. A slot, since nothing is read faster."""
    description: Description
    _segment: str
    _now: Moment
    _raw: dict[bytes, bytes] | None
    """The keys of a value that is a tree."""
    _listeners: tuple[Any, ...]
    """Who is told of changes; replaced, never changed."""

    def __init__(self, key: str, segment: str) -> None:
        self.key = key
        self._segment = segment
        self.description = PLAIN
        self._raw = None
        self._listeners = ()
        self._move_to(UNSET)

    def _move_to(self, now: Moment) -> None:
        _put_now(self, now)
        _put_value(self, now.value)

    @property
    def _known(self) -> bool:
        """Whether there is a value or a description."""
        return self._now.revision > 0 or self.description is not PLAIN


# Subclasses may have a __setattr__ of their own.
_put_value: Callable[[Cell, Any], None] = Cell.__dict__["value"].__set__
_put_now: Callable[[Cell, Moment], None] = Cell.__dict__["_now"].__set__

C = TypeVar("C", bound=Cell)


class Told(NamedTuple):
    """An item that changed, to what, and whether that was inferred."""

    cell: Any
    now: Moment
    synthetic: bool


class _Tree(NamedTuple):
    """What a replica has of an item: its own key, those below, and the newest revision among them."""

    leaf: Held | None
    below: dict[bytes, bytes]
    revision: int


class StoreState(Generic[C]):
    """The items of the store at a place.

    Args:
        name: what the store is called, for messages.
        make: makes the cell of an item from its key and its segment of the path.
        warn: told what there is to log; whoever calls here may have a lock.
    """

    def __init__(
        self, name: str, at: Place, make: Callable[[str, str], C], warn: Callable[[str], None]
    ) -> None:
        self.name = name
        self.at = at
        self._make = make
        self._warn = warn
        self._described = description_key(at, "")
        self._by_segment: dict[str, C] = {}
        self._by_key: dict[str, tuple[C, ...]] = {}
        """By names in lower case; several where they are stored in several spellings."""
        self._gone: WeakValueDictionary[str, C] = WeakValueDictionary()
        """Items that are no more, as long as somebody has them: when they come back it is they who do."""

    # Looking

    def find(self, key: str) -> C | None:
        """The item of a name in lower case, None for none. Raises `LinkKVError` for two spellings."""
        known = [cell for cell in self._by_key.get(key, ()) if cell._known]
        if len(known) > 1:
            paths = sorted(f"{self.at.path}/{cell._segment}" for cell in known)
            raise LinkKVError(
                f"{self.name}.{key}: is stored as {' and as '.join(paths)}; rename or delete one of them"
            )
        return known[0] if known else None

    def cells(self) -> list[C]:
        """All items, in the order of their names; those of a list by number."""
        known = [cell for cell in self._by_segment.values() if cell._known]
        return sorted(known, key=lambda cell: (int(cell.key) if is_index(cell.key) else 0, cell.key))

    def listened(self) -> list[C]:
        """All items that somebody listens to, those that are no more as well."""
        return [cell for cell in self._by_segment.values() if cell._listeners]

    # Following

    def load(self, replica: Replica, seen: float) -> None:
        """Take over all that is there, whatever was known before."""
        before = list(self._by_segment.values())
        for cell in before:
            cell.description = PLAIN
            self._put(cell, replica, MISSING, 0, seen)
        for key, held in replica.all():
            if key.startswith(self._described):
                self._describe(key, held.value)
        for segment, tree in self._trees(replica).items():
            cell = self._admit(segment)
            self._put(cell, replica, self._whole(cell, tree), tree.revision, seen)
        for cell in before:
            self.tidy(cell)

    def describe(self, segment: str, stored: bytes) -> None:
        """Take over the description of one item."""
        self._describe(self._described + segment.encode(), stored)

    def apply(self, batch: Batch, replica: Replica, seen: float) -> list[Told]:
        """Take over a batch, which the replica has already; what became of the items that are listened to."""
        for key, stored in batch.hidden:
            if key.startswith(self._described):
                self._describe(key, stored)
        touched = self._touched(batch)
        trees = self._trees(replica) if batch.synthetic else None
        for segment in self._remade(batch, replica, trees):
            touched.setdefault(segment, (None, batch.revision))
        events: dict[str, list[Event]] | None = None
        told: list[Told] = []
        # Those that go first: then an item that is stored in another spelling from now on stays the same.
        for segment, (only, revision) in sorted(touched.items(), key=_stays):
            cell = self._admit(segment)
            if trees is not None:
                value = self._whole(cell, trees.get(segment))
            elif only is not None and self._is_all(only, segment, replica):
                value, cell._raw = only.value, None
            else:
                events = self._events(replica) if events is None else events
                value = self._follow(cell, replica, events.get(segment, ()))
            self._put(cell, replica, value, revision, seen)
            if cell._listeners:
                now = Moment(MISSING, seen, None, revision) if value is MISSING else cell._now
                told.append(Told(cell, now, batch.synthetic))
            elif value is MISSING:
                self.tidy(cell)
        return told

    def _touched(self, batch: Batch) -> dict[str, tuple[Change | None, int]]:
        """The segments of the items that a batch changed, each with the revision, and with the change where
        that is a single one, of the item's own key."""
        skip = len(self.at.path) + 1
        touched: dict[str, tuple[Change | None, int]] = {}
        for change in batch.changes:
            segment, slash, _ = change.path[skip:].partition("/")
            if not segment:
                continue  # the store itself, which is empty now
            before = touched.get(segment)
            if before is None:
                touched[segment] = (None if slash else change, change.revision)
            else:
                touched[segment] = (None, max(before[1], change.revision))
        return touched

    def _remade(self, batch: Batch, replica: Replica, trees: dict[str, _Tree] | None) -> Iterable[str]:
        """The segments of items where a marker made a list of a dict, or back: that changes no leaf."""
        if trees is not None:
            cells = [(segment, cell._raw) for segment, cell in self._by_segment.items() if cell._raw]
            return [segment for segment, raw in cells if segment in trees and trees[segment].below != raw]
        if len(replica.events) > len(batch.changes) + len(batch.hidden):
            return self._events(replica)
        return ()

    def _is_all(self, change: Change, segment: str, replica: Replica) -> bool:
        """Whether the value of a change is all that there is to the item."""
        if change.value is MISSING:
            return not replica.below(self.at.child(segment).marker)
        return not isinstance(change.value, (dict, list))

    def _put(self, cell: C, replica: Replica, value: Any, revision: int, seen: float) -> None:
        """Let an item have a value from a revision on."""
        if value is MISSING:
            cell._raw = None
            cell._move_to(UNSET)
            return
        timestamp: float | None = seen
        writer = None
        stamp = replica.held(stamp_key(self.at, cell._segment))
        if stamp is not None and stamp.revision == revision:
            timestamp, writer = read_stamp(stamp.value) or (seen, None)
        cell._move_to(Moment(value, timestamp, writer, revision))

    # Values that are trees

    def _whole(self, cell: C, tree: _Tree | None) -> Any:
        """The value of an item from all its keys."""
        cell._raw = None
        if tree is None:
            return MISSING
        if tree.leaf is not None:
            return decode(tree.leaf.value)
        cell._raw = tree.below
        return self._build(cell)

    def _follow(self, cell: C, replica: Replica, events: Iterable[Event]) -> Any:
        """The value of an item from the keys that it had, and what became of them."""
        at = self.at.child(cell._segment)
        leaf = replica.held(at.key)
        if leaf is not None:
            return self._whole(cell, _Tree(leaf, {}, 0))
        raw = {} if cell._raw is None else cell._raw
        for key, stored in events:
            if stored is None:
                raw.pop(key, None)
            else:
                raw[key] = stored
        marked = replica.held(at.marker) is not None
        if len(raw) != replica.below(at.marker) + marked:
            # A value in the item's own key had hidden these.
            return self._whole(cell, self._trees(replica, (cell._segment,)).get(cell._segment))
        cell._raw = raw
        return self._build(cell)

    def _build(self, cell: C) -> Any:
        return build(sorted((cell._raw or {}).items()), self.at.child(cell._segment))

    def _events(self, replica: Replica) -> dict[str, list[Event]]:
        """What the last revision did below each item, by the item's segment."""
        found: dict[str, list[Event]] = {}
        for key, stored in replica.events:
            held = replica.held(key)
            segment, below = self._split(key)
            if below and (held is None or held.path is not None):
                found.setdefault(segment, []).append((key, stored))
        return found

    def _trees(self, replica: Replica, segments: Container[str] | None = None) -> dict[str, _Tree]:
        """What a replica has of some items, or of all, by their segments."""
        found: dict[str, _Tree] = {}
        nothing = _Tree(None, {}, 0)
        for key, held in replica.all():
            if held.path is None:
                continue
            segment, below = self._split(key)
            if not segment or (segments is not None and segment not in segments):
                continue
            leaf, keys, revision = found.get(segment, nothing)
            if not below:
                leaf = held
            elif keys:
                keys[key] = held.value
            else:
                keys = {key: held.value}
            found[segment] = _Tree(leaf, keys, max(revision, held.revision))
        return found

    def _split(self, key: bytes) -> tuple[str, bool]:
        """The segment of the item that a key is of, '' for none, and whether it is below the item's own."""
        if not key.startswith(self.at.marker):
            return "", False
        found, slash, _ = key[len(self.at.marker) :].partition(b"/")
        segment = found.decode(errors="replace")
        return (segment, bool(slash)) if nameable(segment) else ("", False)

    # Items that come and go

    def _describe(self, key: bytes, stored: bytes | None) -> None:
        try:
            segment = key[len(self._described) :].decode()
        except UnicodeDecodeError:
            return
        if not segment or "/" in segment or (stored is None and segment not in self._by_segment):
            return
        cell = self._admit(segment)
        if stored is None:
            cell.description = PLAIN
            self.tidy(cell)
            return
        try:
            cell.description = Description.load(f"{self.name}.{cell.key}", stored)
        except ConfigError as error:
            self._warn(f"the description of an item is of no use: {error}")
            cell.description = Description()

    def _admit(self, segment: str) -> C:
        """The item of a segment, which may be back, or new."""
        cell = self._by_segment.get(segment)
        if cell is not None:
            return cell
        key = decode_name(segment).lower()
        same = self._by_key.get(key, ())
        cell = next((each for each in same if not each._known), None)
        if cell is not None:
            del self._by_segment[cell._segment]
        else:
            cell = self._gone.pop(key, None)
            if cell is None:
                cell = self._make(key, segment)
            self._by_key[key] = (*same, cell)
        cell._segment = segment
        self._by_segment[segment] = cell
        return cell

    def tidy(self, cell: C) -> None:
        """Let go of an item that is no more and that nobody listens to."""
        if cell._known or cell._listeners or self._by_segment.get(cell._segment) is not cell:
            return
        del self._by_segment[cell._segment]
        rest = tuple(each for each in self._by_key[cell.key] if each is not cell)
        if rest:
            self._by_key[cell.key] = rest
        else:
            del self._by_key[cell.key]
        self._gone[cell.key] = cell


def _stays(touched: tuple[str, tuple[Change | None, int]]) -> bool:
    only = touched[1][0]
    return only is None or only.value is not MISSING
