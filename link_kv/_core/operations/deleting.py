"""Deleting: leaves, trees, and items out of the middle of lists."""

from __future__ import annotations

from typing import Any

from link_kv import plan as plans
from link_kv._core.operations import full
from link_kv._core.operations.reading import is_proper_list, leaf_value, missing, scan, value_found
from link_kv._core.operations.writing import not_root
from link_kv._core.wire.exchange import Exchange
from link_kv.errors import (
    NoSpace,
    NotFound,
    PathError,
    RevisionError,
)
from link_kv.plan import Delete, Get, Plan
from link_kv.tree import (
    LIST,
    MISSING,
    Leaf,
    Place,
    is_index,
)


async def delete(ex: Exchange, path: str) -> int:
    """Delete a leaf or a tree; the revision of the delete."""
    at = ex.place(path)
    not_root(at, "deleted")
    revision, _ = await _remove(ex, at, previous=False)
    return revision


async def pop(ex: Exchange, path: str, default: Any = MISSING) -> Any:
    """Delete a leaf or a tree; the value that it had, or ``default`` when nothing is there."""
    at = ex.place(path)
    not_root(at, "popped")
    try:
        _, value = await _remove(ex, at, previous=True)
    except NotFound:
        if default is MISSING:
            raise
        return default
    return value


async def _remove(ex: Exchange, at: Place, *, previous: bool) -> tuple[int, Any]:
    plan = Plan(
        plans.no_list_above(at),
        [*plans.delete(at, previous=previous), plans.housekeeping_alone(at)],
        [Get(above.marker) for above in at.ancestors()],
    )
    if len(plan.compares) <= plans.MAX_COMPARES:
        try:
            outcome = await ex.commit(plan, at.path)
        except NoSpace as refused:
            return await full.remove(ex, at, refused)
        except RevisionError:
            raise missing(at.path) from None  # but for its housekeeping
        if outcome.succeeded:
            answers = [answer.response_delete_range for answer in outcome.answers()[:3]]
            if not any(answer.deleted for answer in answers):
                raise missing(at.path)
            value = value_found(at, [answer.prev_kvs for answer in answers]) if previous else MISSING
            if previous and value is MISSING:
                raise missing(at.path)
            return outcome.revision, value
    while True:
        try:
            done = await _remove_below_list(ex, at)
        except RevisionError:
            continue  # what it read was compacted meanwhile, or only its housekeeping is left
        if done is not None:
            return done


async def _remove_below_list(ex: Exchange, at: Place) -> tuple[int, Any] | None:
    """Delete where lists may stand above; None when others were faster."""
    ancestors = list(at.ancestors())
    revision, found = await ex.read([*(Get(above.marker) for above in ancestors), *plans.reads(at)])
    value = value_found(at, found[len(ancestors) :])
    if value is MISSING:
        raise missing(at.path)
    lists: list[Place] = []
    markers: list[Any] = []
    compares: list[plans.Compare] = []
    for above, marker in zip(ancestors, found, strict=False):
        if not marker:
            compares.append(plans.absent(above.marker))
            continue
        compares.append(plans.unmoved(above.marker, marker[0].mod_revision))
        if marker[0].value == LIST and is_index(at.segments[len(above.segments)]):
            lists.append(above)
            markers += marker
    if len(compares) > plans.MAX_COMPARES:
        # Whatever is put shows over the range; and without a put, a list only goes together with those in it.
        top = ancestors[0]
        compares = [plans.quiet(top.key, top.end, revision)]
        compares += [plans.unmoved(marker.key, marker.mod_revision) for marker in markers[-1:]]
    reread = True
    plan = Plan((), (*plans.delete(at, previous=True), plans.housekeeping_alone(at)))
    if lists:
        above = lists[-1]
        index = int(at.segments[len(above.segments)])
        if len(at.segments) > len(above.segments) + 1:
            item = above.child(str(index))
            _, found = await ex.read(plans.reads(item, keys_only=True, revision=revision))
            visible = [kv for kvs in found for kv in kvs if plans.owner(kv.key, item) is None]
            plan = plans.delete_in_item(at, item, markers, visible, revision)
            reread = False
        else:
            _, found = await ex.read([Get(above.marker, above.end, revision=revision)])
            if is_proper_list(above, found[0]):
                plan = plans.delete_item(above, index, markers, found[0], revision)
                reread = False
            else:
                *deletes, refuse = plan.operations
                plan = Plan((), (*deletes, *plans.markers_again(markers), refuse))
    outcome = await ex.commit(plan._replace(compares=(*plan.compares, *compares)), at.path)
    if not outcome.succeeded:
        return None
    if reread:
        value = value_found(at, [answer.response_delete_range.prev_kvs for answer in outcome.answers()[:3]])
        if value is MISSING:
            raise missing(at.path)
    return outcome.revision, value


async def clear(ex: Exchange, force: bool) -> None:
    at = ex.place("/")
    if not at.prefix and not force:
        raise PathError("clear() without a prefix would empty the whole etcd: say clear(force=True)")
    deletes = [Delete(start, end) for start, end in at.visible]
    try:
        await ex.commit(Plan((), deletes), "/")
    except NoSpace as refused:
        await full.delete_each(ex, deletes, refused)


async def popitem(ex: Exchange) -> tuple[str, Any]:
    root = ex.place("/")
    while True:
        leaf = await _first(ex, root)
        if leaf is None:
            raise NotFound("/: nothing is there")
        at = ex.place(leaf.path)
        if await _in_list(ex, at):
            try:
                return leaf.path, await pop(ex, leaf.path)
            except NotFound:
                continue
        compares = (plans.unmoved(leaf.kv.key, leaf.kv.mod_revision), *plans.no_list_above(at))
        plan = Plan(compares[: plans.MAX_COMPARES], [Delete(leaf.kv.key)], guarded=True)
        try:
            if (await ex.commit(plan, leaf.path)).succeeded:
                return leaf.path, leaf_value(leaf)
        except NoSpace as refused:
            _, value = await full.remove(ex, at, refused)
            return leaf.path, value


async def _first(ex: Exchange, at: Place) -> Leaf | None:
    async for leaf in scan(ex, at, first=8):
        return leaf
    return None


async def _in_list(ex: Exchange, at: Place) -> bool:
    above = list(at.ancestors())
    if not above:
        return False
    _, found = await ex.read([Get(place.marker) for place in above])
    return any(kv.value == LIST for kvs in found for kv in kvs)
