"""What the mapping does, each operation once, for the blocking client and for asyncio.

An operation is an ``async def`` over an `Exchange`. How the plans are made is in `link_kv.plan`.
"""

from link_kv._core.operations.deleting import (
    clear,
    delete,
    pop,
    popitem,
)
from link_kv._core.operations.lists import (
    append,
    edit_list,
    length,
)
from link_kv._core.operations.raw import (
    raw_count,
    raw_delete,
    raw_get,
    raw_item,
    raw_put,
    raw_range,
)
from link_kv._core.operations.reading import (
    PAGE,
    Entry,
    Kind,
    any_leaf,
    children,
    contains,
    entry,
    get,
    leaf_value,
    missing,
    pages,
    past_revision,
    peek,
    read,
    scan,
    value_found,
)
from link_kv._core.operations.updating import (
    pairs,
    update,
)
from link_kv._core.operations.writing import (
    LOST_BEFORE_GAPS,
    Layer,
    create,
    create_or_find,
    guarded,
    layer,
    not_root,
    put,
    setdefault,
    unread,
    write,
)

__all__ = [
    "LOST_BEFORE_GAPS",
    "PAGE",
    "Entry",
    "Kind",
    "Layer",
    "any_leaf",
    "append",
    "children",
    "clear",
    "contains",
    "create",
    "create_or_find",
    "delete",
    "edit_list",
    "entry",
    "get",
    "guarded",
    "layer",
    "leaf_value",
    "length",
    "missing",
    "not_root",
    "pages",
    "pairs",
    "past_revision",
    "peek",
    "pop",
    "popitem",
    "put",
    "raw_count",
    "raw_delete",
    "raw_get",
    "raw_item",
    "raw_put",
    "raw_range",
    "read",
    "scan",
    "setdefault",
    "unread",
    "update",
    "value_found",
    "write",
]
