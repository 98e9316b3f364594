"""`EtcdMiddleware`: etcd as a mutable mapping over leaf paths."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Any, Literal, TypeVar

from link_kv._core import operations
from link_kv._core.operations import Entry
from link_kv._core.wire.calls import Wire, run
from link_kv._core.wire.config import Config
from link_kv._core.wire.connection import Connection
from link_kv.live import Change, Changes, Mirror, State, Subscription, hub_of
from link_kv.sessions import Transaction, transact
from link_kv.tree import MISSING
from link_kv.views import LeafMapping, Past, Raw, Tree, TreeList, view

__all__ = ["Entry", "EtcdMiddleware", "Past", "Raw", "Tree", "TreeList"]

T = TypeVar("T")


class EtcdMiddleware(Connection, LeafMapping, MutableMapping[str, Any]):
    """etcd as a dictionary: ``client['/store/KEY'] = value`` writes a nested value as a tree of keys.

    Args:
        host, port: one server; ``localhost`` and 2379 when nothing is said anywhere.
        endpoints: several servers of one cluster, ``['h1:2379', 'h2:2379']``; not together with ``host``.
        prefix: the namespace: every path lies below it.
        user, password: a login of etcd's. Over plaintext it is sent to loopback only, unless
            ``insecure_password=True``.
        ca_cert, cert_cert, cert_key: files that TLS uses; naming one asks for TLS.
        timeout: seconds that one operation may take, failover and repetition included; 5 by default.
        tls: True for TLS that trusts the public authorities that grpcio brings along, not the system's.
        expected_cluster_id: refuse any other cluster, before anything is sent to it.
        srv_domain: find the servers through DNS (extra ``link_kv[srv]``).

    What is left out comes from the environment, then from ``link/kv/middleware.conf``, then from the
    defaults (``docs/reference/configuration.md``). Constructing connects to nothing.

    Every operation is atomic: one transaction, one revision. It is sent again after a failure only when
    that is safe; `OutcomeUnknown` tells of a write that may or may not have happened, `Unavailable` of one
    that did not happen. After a disconnect the next operation connects again.

    Thread-safe, and usable after ``fork``. Compares by identity.
    """

    @staticmethod
    def _wire(config: Config) -> Wire:
        from link_kv._core.wire.transport import BlockingWire

        return BlockingWire(config)

    # Life

    def close(self) -> None:
        """Close the connections; calls after this raise `Closed`. May be called twice."""
        with ExitStack() as stack:  # it goes on to the end, and raises then
            stack.callback(self._disconnect)
            with suppress(IndexError):  # all are taken, perhaps by another thread
                while True:
                    stack.callback(self._at_close.pop(0))

    def _disconnect(self) -> None:
        run(self._space.caller.close())
        for hub in list(self._hubs.values()):
            hub.close()

    def __enter__(self) -> EtcdMiddleware:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def raw(self) -> Raw:
        """The keys and values as etcd holds them, in bytes."""
        return Raw(self._space)

    @property
    def etcd3(self) -> Any:
        """An ``etcd3.Etcd3Client`` on the same cluster: members, status, snapshot, defragment, alarms.

        It has a connection of its own, which its user closes. It follows none of this class's rules on
        deadlines, repetition and tokens.
        """
        from link_kv._core.wire.maintenance import etcd3_client

        return run(etcd3_client(self._space.caller))

    # The mapping

    def __setitem__(self, path: str, value: Any) -> None:
        run(operations.put(self._exchange(), path, value))

    def __delitem__(self, path: str) -> None:
        run(operations.delete(self._exchange(), path))

    def pop(self, path: str, default: Any = MISSING) -> Any:
        """Delete a leaf or tree and return the value it had, atomically; ``default`` when there is none.

        Raises `NotFound` when there is none and no default was given.
        """
        return run(operations.pop(self._exchange(), path, default))

    def popitem(self) -> tuple[str, Any]:
        """Delete the first leaf and return its path and value; `NotFound` when there is none."""
        return run(operations.popitem(self._exchange()))

    def setdefault(self, path: str, default: Any = None) -> Any:
        """The value at a path, written there first when nothing is; atomic."""
        return run(operations.setdefault(self._exchange(), path, default))

    def update(self, other: Any = (), /, **names: Any) -> None:
        """Assign several paths in one transaction, with the effect of assigning them in order.

        Raises what assigning raises, and `TooLarge`; then nothing is written.
        """
        run(operations.update(self._exchange(), operations.pairs(other, names)))

    def __ior__(self, other: Any) -> EtcdMiddleware:
        self.update(other)
        return self

    def clear(self, *, force: bool = False) -> None:
        """Delete everything below the prefix, except what link_kv's own services and locks keep there.

        Without a prefix that would be the whole etcd: then it raises `PathError` unless ``force=True``.
        """
        run(operations.clear(self._exchange(), force))

    # Explicit verbs

    def entry(self, path: str) -> Entry:
        """A value with its revision, the revision it was created at, its version and its lease.

        Of a tree: the newest revision, the oldest created, version and lease 0. Raises `NotFound`.
        """
        return run(operations.entry(self._exchange(), path))

    def put(self, path: str, value: Any, *, revision: int | None = None, ttl: float | None = None) -> int:
        """Assign a path, and return the revision of the write.

        Args:
            revision: write only if the leaf there is still at this revision; 0 means that nothing may be
                there. Raises `Conflict` when it has moved, `TooLarge` for a tree.
            ttl: seconds after which what was written goes; etcd may keep it a little longer. Below a list it
                raises `ConfigError`. In a list that has one, what is written later goes with it.
        """
        return run(operations.put(self._exchange(), path, value, revision, ttl))

    def create(self, path: str, value: Any, *, ttl: float | None = None) -> int:
        """Write where nothing is, and return the revision. Raises `KeyExists`."""
        return run(operations.create(self._exchange(), path, value, ttl))

    def delete(self, path: str) -> int:
        """Delete a leaf or a tree, and return the revision. Raises `NotFound`."""
        return run(operations.delete(self._exchange(), path))

    def append(self, path: str, item: Any) -> str:
        """Add an item at the end of a list and return its path; where nothing is, the list is made.

        Raises `NotATree` where no list is, `ListIndexError` where other tools left one with a gap.
        """
        return run(operations.append(self._exchange(), path, item))

    def snapshot(self, path: str = "/", *, revision: int | None = None) -> Any:
        """The nested value at a path, all of one revision, now or in the past.

        Raises `NotFound`, and `RevisionError` for a revision compacted away or still to come.
        """
        if revision is None:
            return self[path]
        return Past(self._space, revision)[path]

    def at(self, revision: int) -> Past:
        """The mapping as it was at a revision, read-only, until that is compacted away.

        Raises `RevisionError` for what can be no revision; so does each read of it once the revision is
        compacted away, or while it is still to come.
        """
        return Past(self._space, revision)

    def transaction(self, function: Callable[[Transaction], T]) -> T:
        """Run ``function(t)``, which reads and writes ``t[path]``, as one transaction; its result.

        All reads are of one revision, and the writes happen together, only if what was read still stands.
        Else the function runs again, so it should do nothing else that lasts. Raises `TooLarge` when it reads
        more than 96 leaves, `Conflict` when it lost a thousand races, `OutcomeUnknown` when it was sent and
        not answered; it is not run again then. What the function raises ends it, and nothing is written.
        """
        return transact(self, function)

    # Live

    def subscribe(
        self,
        path: str,
        callback: Callable[[Change], object],
        *,
        policy: Literal["all", "latest"] = "all",
        prime: bool = False,
        max_hz: float | None = None,
        queue: int = 10_000,
        on_state: Callable[[State], object] | None = None,
    ) -> Subscription:
        """Call ``callback(change)`` for each `Change` of a leaf at or below a path, from now on.

        Callbacks run in a thread of the client's, one after the other for each subscription, in the order of
        revisions. A callback may block, raise, subscribe, write and close. What it raises is logged and
        counted.

        Args:
            policy: ``'all'`` for every change; ``'latest'`` for the newest of each path, when several wait.
            prime: begin with what is there, as changes of kind ``put`` whose ``previous`` is `MISSING`.
            max_hz: call back for what has gathered this many times a second at most.
            queue: how many changes may wait. When it is full the subscription is ``stale``: what it misses is
                replayed from etcd, and it is ``live`` again when the callback's queue has all of it.
            on_state: called as ``on_state(state)`` when the state has become another, in order with changes.

        Returns once nothing can be missed any more. Raises `AccessDenied`, and `Unavailable` when etcd does
        not answer within the client's timeout. On a disconnect later the subscription is ``stale``, connects
        again, and delivers what happened meanwhile.
        """
        return Subscription(
            hub_of(self),
            self._space.place(path),
            callback,
            policy=policy,
            prime=prime,
            max_hz=max_hz,
            queue=queue,
            on_state=on_state,
        )

    def watch(self, path: str = "/", *, revision: int | None = None) -> Changes:
        """Iterate over the changes of the leaves at or below a path, waiting for each, until it is closed.

        From now on; or from a past ``revision`` on, that one included: then all since is replayed first.
        ``with client.watch('/a') as changes:`` closes it. Raises `RevisionError` for a revision compacted
        away or still to come, `AccessDenied`, and `Unavailable` as `subscribe` does.
        """
        return Changes(hub_of(self), self._space.place(path), revision)

    def mirror(self, path: str = "/") -> Mirror:
        """A read-only copy of a subtree in memory that follows every change. Raises as `subscribe` does."""
        return Mirror(self, self._space.place(path))

    def tree(self, path: str = "/") -> Tree | TreeList:
        """The tree or list at a path as a live nested dict or list, which writes through.

        Where nothing is yet it is a tree. Raises `NotATree` where a value is.
        """
        return view(self._space, path)
