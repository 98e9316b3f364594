"""Every key below a prefix, out and in again, byte for byte: what a backup is made of."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any, NamedTuple

from link_kv import plan as plans
from link_kv._core.operations import raw_range
from link_kv._core.wire.exchange import Exchange
from link_kv.errors import Conflict, KeyExists
from link_kv.plan import Compare, Delete, Get, Operation, Plan, Put
from link_kv.tree import RESERVED

_PAGE_BYTES = 1 << 20
_FIRST_PAGE, _LARGEST_PAGE = 64, 10_000

_STAGE_BYTES = 1 << 20
"""Of keys and values in one of several transactions. By default etcd takes requests of 1.5 MiB."""
_AT_ONCE = 5000
"""Keys written or deleted in one of several transactions: etcd serves nobody else meanwhile."""

_LOST = 3
"""How often a replacement may lose the race between its read and its write."""

_HOUSEKEEPING = f"/{RESERVED}/".encode()


class Raw(NamedTuple):
    key: bytes
    """Relative to the prefix: with its slash where there is a prefix."""
    value: bytes
    lease: int = 0


async def count(ex: Exchange) -> tuple[int, int]:
    """How many keys are below the prefix, and the revision of that."""
    answer = await ex.range(Get(*raw_range(ex.space)), count_only=True)
    return int(answer.count), int(answer.header.revision)


async def copy_out(ex: Exchange, revision: int) -> AsyncIterator[list[Raw]]:
    """Every key below the prefix at a revision, in order, some at a time.

    Raises `RevisionError` when the revision was compacted away meanwhile.
    """
    start, end = raw_range(ex.space)
    skip, limit = len(ex.space.prefix), _FIRST_PAGE
    while True:
        ex.renew()  # what is done between pages takes no time from the next
        page = await ex.range(Get(start, end, limit, revision=revision))
        raws = [Raw(kv.key[skip:], kv.value, kv.lease) for kv in page.kvs]
        yield raws
        if not page.more:
            return
        start = page.kvs[-1].key + b"\0"
        size = sum(len(raw.value) for raw in raws)
        if size > 2 * _PAGE_BYTES:
            limit = max(1, limit // 2)
        elif 2 * size < _PAGE_BYTES:
            limit = min(_LARGEST_PAGE, limit * 2)


def is_living(raw_key: bytes, lease: int) -> bool:
    """Whether a key is a living program's own: a lock that it holds, a registration."""
    return bool(lease) and _HOUSEKEEPING in raw_key


async def copy_in(ex: Exchange, raws: Sequence[Raw], *, replace: bool) -> int:
    """Write these keys, sorted, below the prefix, in one transaction; its revision. Leases are dropped.

    What was there before goes, but for what living programs hold. Without ``replace`` nothing may be there:
    raises `KeyExists`. Raises `TooLarge`, before anything is written, when it does not fit one transaction.
    """
    await _begin(ex)
    puts = _puts(ex, raws)
    for _ in range(_LOST):
        compares, deletes, guarded = await _ground(ex, {put.key for put in puts}, replace)
        outcome = await ex.commit(Plan(compares, [*puts, *deletes], guarded=guarded), "/")
        if outcome.succeeded:
            return outcome.revision
    raise Conflict("others write below the prefix; stop them, or try again")


async def copy_in_parts(
    ex: Exchange, raws: Iterable[Raw], *, replace: bool, report: Callable[[int], None]
) -> int:
    """The same in several transactions, which others see one by one; the revision of the last.

    ``report`` is told how many keys each has written. What was there before and is not written goes last.
    """
    await _begin(ex)
    if not replace:
        await _ground(ex, set(), replace)
    revision, found = await _keys(ex) if replace else (0, {})
    before = set(found)
    for part in _parts(raws):
        ex.renew()
        puts = _puts(ex, part)
        # Without a guard it may still be sent again: it does the same.
        revision = (await ex.commit(Plan((), puts, guarded=True), "/")).revision
        before.difference_update(put.key for put in puts)
        report(len(part))
    gone = sorted(before)
    for start in range(0, len(gone), _AT_ONCE):
        ex.renew()
        deletes = [Delete(key) for key in gone[start : start + _AT_ONCE]]
        revision = (await ex.commit(Plan((), deletes, guarded=True), "/")).revision
    return revision


async def _begin(ex: Exchange) -> None:
    await count(ex)  # the first call looks at the layout that is there
    # What is copied says itself which layout it has, and one transaction may not put a key twice.
    ex.space.new_layout = ()


def _puts(ex: Exchange, raws: Iterable[Raw]) -> list[Put]:
    return [Put(ex.space.prefix + raw.key, raw.value) for raw in raws]


def _parts(raws: Iterable[Raw]) -> Iterable[list[Raw]]:
    part: list[Raw] = []
    size = 0
    for raw in raws:
        length = len(raw.key) + len(raw.value) + 16
        if part and (size + length > _STAGE_BYTES or len(part) == _AT_ONCE):
            yield part
            part, size = [], 0
        part.append(raw)
        size += length
    if part:
        yield part


async def _ground(
    ex: Exchange, kept: set[bytes], replace: bool
) -> tuple[tuple[Compare, ...], list[Operation], bool]:
    """What must hold, and what must be deleted, so that nothing but the ``kept`` keys is left.

    And whether a second arrival fails: it does where a key that is written or deleted is compared. That
    nothing was put is true again once others have deleted all of it.
    """
    ex.renew()
    start, end = raw_range(ex.space)
    deletes: list[Operation] = []
    if replace:
        revision, found = await _keys(ex)
        first = [plans.unmoved(*item) for item in itertools.islice(found.items(), 1)]
        deletes += [Delete(key) for key in sorted(found.keys() - kept)]
        return (plans.quiet(start, end, revision), *first), deletes, bool(first)
    layout = ex.space.prefix + b"/.link/layout"
    total = int((await ex.range(Get(start, end), count_only=True)).count)
    there = (await ex.range(Get(layout))).kvs
    if total > len(there):
        where = ex.space.prefix.decode() or "the whole etcd"
        raise KeyExists(f"{where}: {total - len(there)} keys are there already")
    first = [plans.unmoved(kv.key, kv.mod_revision) for kv in there if kv.key in kept]
    return (plans.absent(start, layout), plans.absent(layout + b"\0", end), *first), deletes, bool(first)


async def _keys(ex: Exchange) -> tuple[int, dict[bytes, int]]:
    """The keys below the prefix that are no living program's own, with their revisions, and that of all."""
    start, end = raw_range(ex.space)
    revision = 0
    found: dict[bytes, int] = {}
    while True:
        ex.renew()
        page: Any = await ex.range(Get(start, end, _LARGEST_PAGE, keys_only=True, revision=revision))
        revision = revision or page.header.revision
        found.update((kv.key, kv.mod_revision) for kv in page.kvs if not is_living(kv.key, kv.lease))
        if not page.more:
            return revision, found
        start = page.kvs[-1].key + b"\0"
