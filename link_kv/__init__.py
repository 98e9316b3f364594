"""etcd as a live Python dictionary.

Importing this starts nothing and connects to nothing. It makes ``import etcd3`` work on today's protobuf, and
``import b3j0f.conf`` on today's Python.
"""

from typing import TYPE_CHECKING as _TYPE_CHECKING

from link_kv._core import b3j0f_revived as _b3j0f_revived
from link_kv._core import revived as _revived
from link_kv.errors import (
    AccessDenied,
    Closed,
    ConfigError,
    Conflict,
    DeadlineExceeded,
    EncodeError,
    KeyExists,
    LeaseLost,
    LinkKVError,
    ListIndexError,
    LocalEtcdError,
    LockLost,
    LockRefused,
    NoSpace,
    NotATree,
    NotFound,
    OutcomeUnknown,
    PathError,
    Refused,
    RemoteError,
    RevisionError,
    TooLarge,
    Unavailable,
)
from link_kv.live import Change, Mirror, Subscription
from link_kv.middleware import Entry, EtcdMiddleware
from link_kv.sessions import Lock, Session
from link_kv.tree import MISSING

if _TYPE_CHECKING:
    from link_kv.items import Item, Reading, Store, discover, get, home

__version__ = "0.1.0"

__all__ = [
    "MISSING",
    "AccessDenied",
    "Change",
    "Closed",
    "ConfigError",
    "Conflict",
    "DeadlineExceeded",
    "EncodeError",
    "Entry",
    "EtcdMiddleware",
    "Item",
    "KeyExists",
    "LeaseLost",
    "LinkKVError",
    "ListIndexError",
    "LocalEtcdError",
    "Lock",
    "LockLost",
    "LockRefused",
    "Mirror",
    "NoSpace",
    "NotATree",
    "NotFound",
    "OutcomeUnknown",
    "PathError",
    "Reading",
    "Refused",
    "RemoteError",
    "RevisionError",
    "Session",
    "Store",
    "Subscription",
    "TooLarge",
    "Unavailable",
    "discover",
    "get",
    "home",
]

_revived.install()
_b3j0f_revived.install()


def __getattr__(name: str) -> object:
    # Items are imported when they are asked for: most programs need but the dictionary.
    if name in ("Item", "Reading", "Store", "discover", "get", "home"):
        from link_kv import items

        return getattr(items, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
