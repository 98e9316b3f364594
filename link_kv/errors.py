"""What can go wrong, as one tree of exceptions.

Every error that a public call raises about what it was asked to do is a `LinkKVError`, and also the builtin
that a Python programmer would catch for it. Mistakes in Python itself, such as a keyword that does not exist,
raise Python's own TypeError, AttributeError or ValueError::

    LinkKVError
    ├── PathError (ValueError)            a path that names nothing: empty segment, ``..``, ``.link``
    │   └── NotATree (TypeError)          writing below a leaf
    ├── ListIndexError (IndexError)       writing to a list beyond its end
    ├── EncodeError (TypeError)           a value or a dict key that cannot be stored
    ├── Refused (ValueError)              a value that an item's description does not accept
    ├── TooLarge (ValueError)             more than one request can carry
    ├── ConfigError (ValueError)          an option that does not fit
    ├── NotFound (KeyError)               nothing is there
    ├── Conflict                          a guard failed: the key has moved
    │   ├── KeyExists                     create found something
    │   └── LockRefused (RuntimeError)    a lock cannot be had, or was not held
    ├── RevisionError (ValueError)        a revision compacted away or still to come
    ├── Unavailable (ConnectionError)     no server answered; nothing was written
    │   ├── DeadlineExceeded (TimeoutError)
    │   └── OutcomeUnknown                a write that may or may not have happened
    ├── NoSpace (OSError)                 the server's database is full
    ├── AccessDenied (PermissionError)    wrong credentials, or a role that does not reach the key
    ├── LeaseLost                         a session's lease is gone
    │   └── LockLost                      and with it the lock
    ├── RemoteError (RuntimeError)        a service's method raised
    ├── LocalEtcdError                    the local etcd did not start
    │   └── PortTaken                     `link_kv.local`: another program has its port
    ├── ReplyError                        `link_kv.endpoints`: an endpoint says that a request failed
    ├── ClientError                       `link_kv.clients`: what a client of your own was answered
    └── Closed (RuntimeError)             the client was closed

Nothing of grpc or etcd3 leaks out of a public call.
"""


class LinkKVError(Exception):
    """The root of all errors of link_kv."""


class PathError(LinkKVError, ValueError):
    """A path that can name nothing."""


class NotATree(PathError, TypeError):
    """A leaf stands where the operation needs a tree."""


class ListIndexError(LinkKVError, IndexError):
    """A list has no such place: items are counted from 1 and written without gaps."""


class EncodeError(LinkKVError, TypeError):
    """A value, or a dict key, that cannot be stored."""


class Refused(LinkKVError, ValueError):
    """A value that an item does not accept: its type, its range, or as it is read-only. It was not set.

    An item raises it before anything is sent, an endpoint because its service refused (code 304).
    """


class TooLarge(LinkKVError, ValueError):
    """More than one request can carry; nothing was written.

    Where the result of a call to a service is too large, the call was carried out.
    """


class ConfigError(LinkKVError, ValueError):
    """An option that does not fit, by its name and where it came from."""


class NotFound(LinkKVError, KeyError):
    """Nothing is at this path."""

    def __str__(self) -> str:
        # KeyError would show the repr of its argument.
        return Exception.__str__(self)


class Conflict(LinkKVError):
    """A guard failed: what the write relied on has changed. Nothing was written."""


class KeyExists(Conflict):
    """Something is already at this path."""


class LockRefused(Conflict, RuntimeError):
    """A lock cannot be had: others hold it, whom the message names, or this very object does already.

    Also raised when a service takes no more clients, and by the release of a lock that is not held.
    """


class RevisionError(LinkKVError, ValueError):
    """A revision that was compacted away, or that is still to come."""


class Unavailable(LinkKVError, ConnectionError):
    """No server answered. A write that raises exactly this has not happened."""


class DeadlineExceeded(Unavailable, TimeoutError):
    """The deadline passed. A write that raises this has not happened.

    What is an `OutcomeUnknown` as well is a call to a service that was not answered in time.
    """


class OutcomeUnknown(Unavailable):
    """A write was sent and its answer never came: it may or may not have happened."""


class NoSpace(LinkKVError, OSError):
    """The server's database is full; reads and deletes still work.

    The one write that filled it may have happened: etcd applies that, and then says this. All later ones have
    not.
    """


class AccessDenied(LinkKVError, PermissionError):
    """Credentials were refused, or the role does not reach the key."""


class LeaseLost(LinkKVError):
    """The session's lease is gone, and every key under it."""


class LockLost(LeaseLost):
    """The lock is not held any more, or never was. A write under it that raises this did not happen."""


class RemoteError(LinkKVError, RuntimeError):
    """A service's method raised; the message carries the remote traceback."""


class LocalEtcdError(LinkKVError):
    """The local etcd did not start, or died; the message ends with its log. Or there was none to stop."""


class Closed(LinkKVError, RuntimeError):
    """The client was closed."""
