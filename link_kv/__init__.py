"""etcd as a live Python dictionary.

Importing this starts nothing and connects to nothing. It makes ``import etcd3`` work on today's protobuf, and
``import b3j0f.conf`` on today's Python.
"""

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
    RemoteError,
    RevisionError,
    TooLarge,
    Unavailable,
)
from link_kv.live import Change, Mirror, Subscription
from link_kv.middleware import Entry, EtcdMiddleware
from link_kv.sessions import Lock, Session

__version__ = "0.1.0"

__all__ = [
    "AccessDenied",
    "Change",
    "Closed",
    "ConfigError",
    "Conflict",
    "DeadlineExceeded",
    "EncodeError",
    "Entry",
    "EtcdMiddleware",
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
    "RemoteError",
    "RevisionError",
    "Session",
    "Subscription",
    "TooLarge",
    "Unavailable",
]

_revived.install()
_b3j0f_revived.install()
