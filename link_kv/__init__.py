"""etcd as a live Python dictionary.

Importing this starts nothing and connects to nothing. It makes ``import etcd3`` work on today's protobuf, and
``import b3j0f.conf`` on today's Python.
"""

from typing import TYPE_CHECKING as _TYPE_CHECKING

from link_kv._core import revived as _revived
from link_kv._core.configuration import b3j0f_revived as _b3j0f_revived
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
    from link_kv.links import Client, Link, LinkedClient, connect
    from link_kv.services import Service, run_services

__version__ = "0.1.0"

__all__ = [
    "MISSING",
    "AccessDenied",
    "Change",
    "Client",
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
    "Link",
    "LinkKVError",
    "LinkedClient",
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
    "Service",
    "Session",
    "Store",
    "Subscription",
    "TooLarge",
    "Unavailable",
    "connect",
    "discover",
    "get",
    "home",
    "run_services",
]

_revived.install()
_b3j0f_revived.install()


_LATER = {
    "Client": "links",
    "Item": "items",
    "Link": "links",
    "LinkedClient": "links",
    "Reading": "items",
    "Service": "services",
    "Store": "items",
    "connect": "links",
    "discover": "items",
    "get": "items",
    "home": "items",
    "run_services": "services",
}
"""What is imported when it is asked for, from where: most programs need but the dictionary."""


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
