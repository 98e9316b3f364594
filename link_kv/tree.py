"""Paths, names and keys; a nested value as flat keys, and flat keys as a nested value.

Everything here is pure: no server, no clock, no state. The layout that these functions keep is described
in ``docs/reference/keys-and-values.md``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from link_kv.codec import decode, encode
from link_kv.errors import EncodeError, PathError

EMPTY_DICT = b"{}"
LIST = b"[]"
RESERVED = ".link"

# No list is longer. Python refuses to read a number of more than 4,300 digits.
_INDEX = re.compile(r"[1-9][0-9]{0,17}\Z")
_ESCAPED = {"": "%", ".": "%2E", "..": "%2E%2E", RESERVED: "%2Elink"}
_UNESCAPED = {segment: name for name, segment in _ESCAPED.items()}
_UNNAMEABLE = frozenset(("", ".", "..", RESERVED))


# Paths


def split(path: str) -> tuple[str, ...]:
    """The segments of a path; none for the root. Raises `PathError` for a path that can name nothing."""
    if type(path) is not str and not isinstance(path, str):
        raise PathError(f"{path!r}: a path is a str such as '/store/key', not {type(path).__name__}")
    bare = path[1:] if path[:1] == "/" else path
    if not bare:
        return ()
    if bare[-1] == "/":
        bare = bare[:-1]
    segments = tuple(bare.split("/"))
    if not _UNNAMEABLE.isdisjoint(segments):
        segment = next(segment for segment in segments if segment in _UNNAMEABLE)
        what = "an empty segment" if not segment else f"the segment {segment!r}"
        raise PathError(f"{path!r}: a path cannot have {what}")
    if not bare.isascii():
        try:
            bare.encode()
        except UnicodeEncodeError:
            raise PathError(f"{path!r}: a path cannot have lone surrogates; etcd keys are UTF-8") from None
    return segments


def encode_name(name: object, path: str = "") -> str:
    """The segment that stands for a dict key. Raises `EncodeError` when the key is not a str."""
    if not isinstance(name, str):
        raise EncodeError(
            f"{path or '/'}: the dict key {name!r} is of type {type(name).__name__}; keys of a tree are str"
        )
    escaped = _ESCAPED.get(name)
    if escaped is not None:
        return escaped
    if not name.isascii():
        try:
            name.encode()
        except UnicodeEncodeError:
            raise EncodeError(
                f"{path or '/'}: the dict key {name!r} has lone surrogates; etcd keys are UTF-8"
            ) from None
    if "%" in name or "/" in name:
        return name.replace("%", "%25").replace("/", "%2F")
    return name


def decode_name(segment: str) -> str:
    """The dict key that a segment stands for; a segment that encodes no name is its own name."""
    if "%" not in segment:
        return segment
    name = _UNESCAPED.get(segment)
    if name is None:
        name = segment.replace("%2F", "/").replace("%25", "%")
    return name if encode_name(name) == segment else segment


def segments_of(name: str, path: str = "") -> tuple[str, ...]:
    """The segments where a child called ``name`` may stand: its encoding and, by other tools, itself."""
    segment = encode_name(name, path)
    if segment == name or name in _UNNAMEABLE or "/" in name or decode_name(name) != name:
        return (segment,)
    return (segment, name)


def is_index(segment: str) -> bool:
    return _INDEX.match(segment) is not None


class Place(NamedTuple):
    """Where a path lies in etcd."""

    path: str
    """As the client names it: ``/a/b``; ``/`` for the root."""
    key: bytes
    """The etcd key of the leaf; for the root the bare prefix, which is no key of ours."""
    prefix: bytes
    segments: tuple[str, ...]

    @property
    def marker(self) -> bytes:
        return self.key + b"/"

    @property
    def end(self) -> bytes:
        """The end of everything below: keys in [marker, end) are this tree's."""
        return self.key + b"0"

    @property
    def visible(self) -> tuple[tuple[bytes, bytes], tuple[bytes, bytes]]:
        """The two ranges of the tree's own keys, on either side of its housekeeping."""
        return ((self.key + b"/", self.key + b"/.link/"), (self.key + b"/.link0", self.key + b"0"))

    @property
    def housekeeping(self) -> tuple[bytes, bytes]:
        return (self.key + b"/.link/", self.key + b"/.link0")

    def ancestors(self) -> Iterator[Place]:
        """The strict ancestors inside the prefix, without the root, from the top down."""
        for depth in range(1, len(self.segments)):
            yield self._of(self.segments[:depth])

    def child(self, segment: str) -> Place:
        return self._of((*self.segments, segment))

    def _of(self, segments: tuple[str, ...]) -> Place:
        path = "/" + "/".join(segments)
        return Place(path, self.prefix + path.encode(), self.prefix, segments)


def place(path: str, prefix: bytes = b"") -> Place:
    """The place of a path in the namespace ``prefix``."""
    if not isinstance(path, str):
        split(path)  # refuses it; the cache would trip over what has no hash
    return _place(path, prefix)


@lru_cache(maxsize=4096)
def _place(path: str, prefix: bytes) -> Place:
    segments = split(path)
    if not segments:
        return Place("/", prefix, prefix, ())
    normal = "/" + "/".join(segments)
    return Place(normal, prefix + normal.encode(), prefix, segments)


def placer(prefix: bytes) -> Callable[[str], Place]:
    """`place` for many paths in turn: it is quick where a path has the same parent as the one before."""
    head: str | None = None
    parent: Place

    def of(path: str) -> Place:
        nonlocal head, parent
        if type(path) is str:
            above, _, name = path.rpartition("/")
            if above == head and name.isascii() and name not in _UNNAMEABLE:
                full = f"{parent.path}/{name}"
                return Place(full, parent.key + b"/" + name.encode(), prefix, (*parent.segments, name))
            at = place(path, prefix)
            if name and len(at.segments) > 1:
                head, parent = above, at._of(at.segments[:-1])
            return at
        return place(path, prefix)

    return of


def prefix_bytes(prefix: str) -> bytes:
    """A namespace as the bytes that stand before every key: ``''`` or ``/a/b``."""
    segments = split(prefix)
    return ("/" + "/".join(segments)).encode() if segments else b""


# A nested value as keys


class Flat(NamedTuple):
    """A nested value as etcd holds it."""

    pairs: list[tuple[bytes, bytes]]
    """Keys and values: the leaves, and the markers of lists and of empty dicts."""
    nodes: list[bytes]
    """The keys of the dicts and lists, whose housekeeping stays when the value replaces an older one."""


def flatten(value: Any, at: Place) -> Flat:
    """The keys of a value at a place. Raises `EncodeError` naming the path of what cannot be stored."""
    flat = Flat([], [])
    try:
        _flatten(value, at.path, at.prefix, flat)
    except RecursionError:
        raise EncodeError(f"{at.path}: the value is nested too deeply, or contains itself") from None
    return flat


def _flatten(value: Any, path: str, prefix: bytes, flat: Flat) -> None:
    key = prefix + path.encode()
    children: Iterable[tuple[Any, Any]]
    if isinstance(value, dict):
        flat.nodes.append(key)
        if not value:
            flat.pairs.append((key + b"/", EMPTY_DICT))
        children = value.items()
    elif isinstance(value, (list, tuple)):
        flat.nodes.append(key)
        flat.pairs.append((key + b"/", LIST))
        children = ((str(index), item) for index, item in enumerate(value, 1))
    else:
        flat.pairs.append((key, encode(value, path)))
        return
    below = path + "/"
    pairs = flat.pairs
    for name, item in children:
        where = below + (name if type(name) is str and name.isalnum() else encode_name(name, path))
        if isinstance(item, (dict, list, tuple)):
            _flatten(item, where, prefix, flat)
            continue
        pairs.append((prefix + where.encode(), encode(item, where)))


# Keys as a nested value


class Missing:
    """What a tree reads as when nothing visible is there."""

    def __repr__(self) -> str:
        return "MISSING"

    def __bool__(self) -> bool:
        return False


MISSING = Missing()


def nameable(relative: str) -> bool:
    """Whether a key below a tree, given relative to it, can be named by a path."""
    return not any(segment in _UNNAMEABLE for segment in relative.split("/"))


def build(pairs: Iterable[tuple[bytes, bytes]], at: Place) -> Any:
    """The nested value that the keys below ``at`` stand for, `MISSING` when there is none.

    ``pairs`` are the keys in [marker, end) in the order of their bytes. Keys that no path can name, and
    housekeeping, are passed over. A leaf wins over a tree of the same name.
    """
    start = len(at.key) + 1
    root: dict[str, Any] = {}
    nodes: dict[str, dict[str, Any]] = {"": root}
    lists: list[str] = []
    seen = False
    last, here = "", root
    for key, stored in pairs:
        try:
            relative = str(key[start:], "utf-8")
        except UnicodeDecodeError:
            continue
        parent, slash, name = relative.rpartition("/")
        if "//" in relative or "/." in relative or relative[:1] in (".", "/"):
            # The rare look-alikes: hidden names such as .bashrc are fine, .link and empty segments are not.
            visible = parent if not name else relative
            if (slash and not parent) or not nameable(visible):
                continue
        if not name and (stored not in (EMPTY_DICT, LIST) or not (parent or at.segments)):
            continue  # no marker of ours; and the root has none
        if parent != last:
            last = parent
            found = nodes.get(parent)
            here = _node(nodes, parent) if found is None else found
        if name:
            seen = True
            if "%" in name:
                name = decode_name(name)
            here[name] = decode(stored)
        else:
            seen = True
            if stored == LIST:
                lists.append(parent)
    if not seen:
        return MISSING
    # A parent's marker sorts before its children's: backwards, inner lists come first.
    result: Any = root
    for relative in reversed(lists):
        node = nodes[relative]
        try:
            items = [node[str(index)] for index in range(1, len(node) + 1)]
        except KeyError:
            continue
        if not relative:
            result = items
            continue
        parent, _, name = relative.rpartition("/")
        name = decode_name(name)
        if nodes[parent].get(name) is node:
            nodes[parent][name] = items
    return result


def _node(nodes: dict[str, dict[str, Any]], relative: str) -> dict[str, Any]:
    """A new dict for a tree at ``relative``, hung into its parent, which is made when it is new too."""
    made = node = nodes[relative] = {}
    known = False
    while not known:  # no recursion: other tools may have made thousands of levels
        relative, _, name = relative.rpartition("/")
        known = relative in nodes
        above = nodes.setdefault(relative, {})
        # Where a leaf has the name already, the tree stays off the value: the leaf wins.
        above.setdefault(decode_name(name), node)
        node = above
    return made


class Leaf(NamedTuple):
    """One leaf of a tree, as iteration meets it."""

    path: str
    stored: bytes
    """The stored bytes; of an empty dict or list its marker, ``{}`` or ``[]``."""
    marker: bool
    kv: Any
    """The key-value as it was read."""


class LeafReader:
    """Picks the visible leaves out of key-values below a place, fed in the order of their key bytes.

    An empty dict or list counts as a leaf; the marker of a list that has items does not. So a marker waits
    until the next visible key tells whether something stands below it.
    """

    def __init__(self, at: Place) -> None:
        self._at = at
        self._pending: Leaf | None = None
        self._above: list[str] = []
        """The last leaf, and those that its path begins with: a marker of their own would come yet."""

    def feed(self, kvs: Iterable[Any]) -> Iterator[Leaf]:
        at, start, skip = self._at, len(self._at.prefix), len(self._at.key) + 1
        for kv in kvs:
            key: bytes = kv.key
            try:
                path = str(key[start:], "utf-8")
                relative = str(key[skip:], "utf-8")
            except UnicodeDecodeError:
                continue
            is_marker = key[-1:] == b"/"
            named = relative[:-1] if is_marker else relative
            if not nameable(named) if named else relative or not at.segments:
                continue
            if is_marker and kv.value not in (EMPTY_DICT, LIST):
                continue
            pending, self._pending = self._pending, None
            if pending is not None and not path.startswith(pending.path + "/"):
                yield pending
            above = self._above
            while above and not path.startswith(above[-1]):
                above.pop()
            if not is_marker:
                above.append(path)
                yield Leaf(path, kv.value, False, kv)
            elif path[:-1] not in above:
                self._pending = Leaf(path[:-1], kv.value, True, kv)

    def finish(self) -> Iterator[Leaf]:
        if self._pending is not None:
            yield self._pending


def leaves(kvs: Iterable[Any], at: Place) -> Iterator[Leaf]:
    """The visible leaves among all the key-values below a place."""
    reader = LeafReader(at)
    yield from reader.feed(kvs)
    yield from reader.finish()
