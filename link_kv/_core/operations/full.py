"""Deleting from a full etcd before 3.5.2, which refuses every transaction.

It takes a plain delete of one key or one range. What is read before it can only shrink meanwhile, because a
full server refuses all that puts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from link_kv import plan as plans
from link_kv._core.operations.reading import missing, value_found
from link_kv._core.wire.calls import DELETE_RANGE, Repeat
from link_kv._core.wire.exchange import Exchange
from link_kv._core.wire.requests import delete_request
from link_kv.errors import NoSpace
from link_kv.plan import Delete, Get
from link_kv.tree import LIST, MISSING, Place, is_index


async def remove(ex: Exchange, at: Place, refused: NoSpace) -> tuple[int, Any]:
    """Delete a leaf or a tree; the revision and the value that was there.

    Raises ``refused`` below a list, whose markers would have to be written, and for a write under a lock.
    """
    ancestors = list(at.ancestors())
    gets = [Get(above.marker) for above in ancestors]
    _, found = await ex.read([*gets, *plans.reads(at), Get(*at.housekeeping, 1, keys_only=True)])
    for above, marker in zip(ancestors, found, strict=False):
        if marker and marker[0].value == LIST and is_index(at.segments[len(above.segments)]):
            raise refused
    leaf, *below = found[len(ancestors) :]
    value = value_found(at, [leaf, *below[:2]])
    if value is MISSING:
        raise missing(at.path)
    deletes = [Delete(at.key)] if leaf else []
    deletes += [Delete(at.marker, at.end)] if any(below) else []
    return await delete_each(ex, deletes, refused), value


async def delete_each(ex: Exchange, deletes: Sequence[Delete], refused: NoSpace) -> int:
    """Delete one after another; the revision of the last."""
    if ex.space.fences:
        raise refused
    revision = 0
    for delete in deletes:
        answer = await ex.space.caller.call(DELETE_RANGE, delete_request(delete), Repeat.ONCE, ex.deadline)
        revision = answer.header.revision
    return revision
