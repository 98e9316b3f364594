"""Reading: values, entries, and the leaves of a tree."""

from __future__ import annotations

import enum
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple

from link_kv import plan as plans
from link_kv._core.wire.exchange import Exchange
from link_kv._core.wire.requests import LAST_REVISION
from link_kv.codec import decode
from link_kv.errors import (
    NotFound,
    RevisionError,
)
from link_kv.plan import Get
from link_kv.tree import (
    LIST,
    MISSING,
    Leaf,
    LeafReader,
    Place,
    build,
    leaves,
)

PAGE = 2000
"""Keys read at once while iterating, at most."""

_FIRST_PAGE, _FIRST_KEYS = 64, 16
_PAGE_BYTES = 4 << 20
"""Values are read in pages of about this size."""


class Entry(NamedTuple):
    """A value and what etcd knows of it. Of a tree: the newest revision, the oldest created."""

    value: Any
    revision: int
    created: int
    version: int
    lease: int


def missing(path: str) -> NotFound:
    return NotFound(f"{path}: nothing is there")


async def read(ex: Exchange, path: str, revision: int = 0) -> Any:
    """The value at a path, `MISSING` when nothing is there. The root reads as a dict."""
    at = ex.place(path)
    if not at.segments:
        _, found = await ex.read([Get(key, end, revision=revision) for key, end in at.visible])
        value = build([(kv.key, kv.value) for kvs in found for kv in kvs], at)
        return {} if value is MISSING else value
    if not revision:
        return value_found(at, await ex.look(at))
    return value_found(at, (await ex.read(plans.reads(at, revision=revision)))[1])


def value_found(at: Place, found: Sequence[Sequence[Any]]) -> Any:
    """The value of what `plans.reads` found."""
    if found[0]:
        return decode(found[0][0].value)
    return build([(kv.key, kv.value) for kvs in found[1:] for kv in kvs], at)


async def get(ex: Exchange, path: str, revision: int = 0) -> Any:
    value = await read(ex, path, revision)
    if value is MISSING:
        raise missing(ex.place(path).path)
    return value


async def contains(ex: Exchange, path: str, revision: int = 0) -> bool:
    at = ex.place(path)
    if not at.segments:
        return True
    _, found = await ex.read(plans.reads(at, limit=8, revision=revision))
    if found[0] or any(True for _ in leaves([kv for kvs in found[1:] for kv in kvs], at)):
        return True
    if all(len(kvs) < 8 for kvs in found[1:]):
        return False
    # Nothing but invisible keys so far: look on.
    async for _ in leaf_paths(ex, at, revision):
        return True
    return False


async def entry(ex: Exchange, path: str) -> Entry:
    at = ex.place(path)
    if at.segments:
        _, found = await ex.read(plans.reads(at))
    else:
        _, below = await ex.read([Get(key, end) for key, end in at.visible])
        found = [[], *below]
    if found[0]:
        kv = found[0][0]
        return Entry(decode(kv.value), kv.mod_revision, kv.create_revision, kv.version, kv.lease)
    kvs = [kv for part in found[1:] for kv in part]
    value = build([(kv.key, kv.value) for kv in kvs], at)
    if value is MISSING:
        if at.segments:
            raise missing(at.path)
        return Entry({}, 0, 0, 0, 0)
    own = [kv for kv in kvs if plans.owner(kv.key, at) is None]
    newest = max(kv.mod_revision for kv in own)
    return Entry(value, newest, min(kv.create_revision for kv in own), 0, 0)


async def pages(
    ex: Exchange,
    start: bytes,
    end: bytes,
    revision: int = 0,
    first: int = _FIRST_PAGE,
    *,
    keys_only: bool = False,
) -> AsyncIterator[Any]:
    """The answers that hold the keys in [start, end), in order, pinned to one revision.

    ``first`` is how many keys the first answer holds.
    """
    limit = first
    while True:
        ex.renew()  # what is done between pages takes no time from the next
        began = time.monotonic()
        page = await ex.range(Get(start, end, limit, keys_only, revision))
        limit = _next_limit(ex, limit, page, began)
        revision = revision or page.header.revision
        yield page
        if not page.more:
            return
        start = page.kvs[-1].key + b"\0"


def _next_limit(ex: Exchange, limit: int, page: Any, began: float) -> int:
    taken = time.monotonic() - began
    size = sum(len(kv.value) for kv in page.kvs)
    return next_limit(limit, size, taken, ex.space.caller.config.timeout)


def next_limit(limit: int, size: int, taken: float, timeout: float) -> int:
    """How many keys to read after a page of ``limit``, so that it comes well within a timeout.

    By its time as well as its size: etcd reads the values of keys too that are asked for alone.
    """
    by_time = limit * timeout / 4 / max(1e-6, taken)
    by_size = limit * _PAGE_BYTES / max(1, size)
    return max(1, int(min(PAGE, 8 * limit, by_time, by_size)))


async def scan(ex: Exchange, at: Place, revision: int = 0, first: int = _FIRST_PAGE) -> AsyncIterator[Leaf]:
    """The leaves of a tree, the leaf at the place itself first."""
    if at.segments:
        answer = await ex.range(Get(at.key, revision=revision))
        revision = revision or answer.header.revision
        for kv in answer.kvs:
            yield Leaf(at.path, kv.value, False, kv)
    reader = LeafReader(at)
    for start, end in at.visible:
        async for page in pages(ex, start, end, revision, first):
            revision = revision or page.header.revision
            for leaf in reader.feed(page.kvs):
                yield leaf
    for leaf in reader.finish():
        yield leaf


async def leaf_paths(ex: Exchange, at: Place, revision: int = 0) -> AsyncIterator[str]:
    """The paths of what `scan` yields, without the values of leaves."""
    ex.renew()
    began = time.monotonic()
    gets = plans.reads(at, keys_only=True, limit=_FIRST_KEYS, revision=revision)
    read, answers = await ex.ask(gets if at.segments else gets[1:])
    revision = revision or read
    if at.segments and answers[0].kvs:
        yield at.path
    limit = _next_limit(ex, _FIRST_KEYS, answers[-1], began)
    reader = LeafReader(at)
    for (_, end), page in zip(at.visible, answers[-2:], strict=True):
        for leaf in reader.feed(await _with_markers(ex, at, page.kvs, revision)):
            yield leaf.path
        if page.more:
            start = page.kvs[-1].key + b"\0"
            async for following in pages(ex, start, end, revision, limit, keys_only=True):
                for leaf in reader.feed(await _with_markers(ex, at, following.kvs, revision)):
                    yield leaf.path
    for leaf in reader.finish():
        yield leaf.path


class _Read(NamedTuple):
    key: bytes
    value: bytes


async def _with_markers(ex: Exchange, at: Place, kvs: Sequence[Any], revision: int) -> list[_Read]:
    """A page of keys; the markers with their values, where it depends on those what the leaves are."""
    keys = [kv.key for kv in kvs]
    asked = [
        (number, key)
        for number, key in enumerate(keys)
        if key[-1:] == b"/" and not _leaf_below(keys, number, len(at.key))
    ]
    found = await values_of(ex, asked, revision)
    return [_Read(key, found[key].value if key in found else LIST) for key in keys]


def _leaf_below(keys: Sequence[bytes], number: int, skip: int) -> bool:
    """Whether the page has a leaf below a marker, which then is no leaf, whatever its value."""
    marker = keys[number]
    for following in range(number + 1, len(keys)):
        key = keys[following]
        if not key.startswith(marker):
            return False
        if key[-1:] != b"/" and b"//" not in key[skip:] and b"/." not in key[skip:] and key.isascii():
            return True  # and certainly visible
    return False


async def values_of(ex: Exchange, keys: Sequence[tuple[int, bytes]], revision: int) -> dict[bytes, Any]:
    """The key-values of keys, given with their numbers on a page.

    Neighbours are read as one range: ten times as fast as one by one.
    """
    if not keys:
        return {}
    runs: list[list[tuple[int, bytes]]] = []
    for number, key in keys:
        if runs and number == runs[-1][-1][0] + 1:
            runs[-1].append((number, key))
        else:
            runs.append([(number, key)])
    ex.renew()
    gets = [Get(run[0][1], run[-1][1] + b"\0", revision=revision) for run in runs]
    _, found = await ex.read(gets)
    return {kv.key: kv for kvs in found for kv in kvs}


def leaf_value(leaf: Leaf) -> Any:
    if leaf.marker:
        return [] if leaf.stored == LIST else {}
    return decode(leaf.stored)


async def any_leaf(ex: Exchange, at: Place, revision: int = 0, *, below: bool = False) -> bool:
    """Whether anything visible is in a tree; ``below`` leaves out its own marker."""
    # One Range over all, housekeeping included, of which there is hardly ever more.
    page = await ex.range(Get(at.marker, at.end, 8, revision=revision))
    hidden_from, hidden_to = at.housekeeping
    kvs = [kv for kv in page.kvs if not hidden_from <= kv.key < hidden_to]
    if any(not below or leaf.path != at.path for leaf in leaves(kvs, at)):
        return True
    if not page.more:
        return False
    async for path in leaf_paths(ex, at, revision):
        if not below or path != at.path:
            return True
    return False


def is_proper_list(at: Place, kvs: Sequence[Any]) -> bool:
    return isinstance(build([(kv.key, kv.value) for kv in kvs], at), list)


class Kind(enum.Enum):
    LEAF = "leaf"
    DICT = "dict"
    LIST = "list"
    NOTHING = "nothing"


async def peek(ex: Exchange, path: str) -> tuple[Kind, Any]:
    """What stands at a path, and its value if it is a leaf."""
    at = ex.place(path)
    if not at.segments:
        return Kind.DICT, MISSING
    _, found = await ex.read(plans.reads(at, limit=8))
    leaf, *below = found
    if leaf:
        return Kind.LEAF, decode(leaf[0].value)
    if below[0] and below[0][0].key == at.marker and below[0][0].value == LIST:
        _, found = await ex.read([Get(at.marker, at.end)])
        return (Kind.LIST if is_proper_list(at, found[0]) else Kind.DICT), MISSING
    if any(True for _ in leaves([kv for kvs in below for kv in kvs], at)):
        return Kind.DICT, MISSING
    if all(len(kvs) < 8 for kvs in below):
        return Kind.NOTHING, MISSING
    return (Kind.DICT if await contains(ex, path) else Kind.NOTHING), MISSING


async def children(ex: Exchange, path: str) -> list[str]:
    """The segments that stand directly below a path, in the order of their bytes."""
    at = ex.place(path)
    seen: dict[str, None] = {}
    depth = len(at.segments)
    async for path in leaf_paths(ex, at):
        if path != at.path:
            seen.setdefault(path.split("/", depth + 2)[depth + 1])
    return list(seen)


def past_revision(revision: object) -> int:
    if not isinstance(revision, int) or isinstance(revision, bool) or not 1 <= revision <= LAST_REVISION:
        raise RevisionError(f"revision {revision!r}: a revision is a whole number from 1 to 2**63 - 1")
    return revision
