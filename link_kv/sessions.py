"""Sessions, locks and transactions: what several programs need to change one state.

A `Session` is a lease that is kept alive. A `Lock` is held under a session of its own, is fair, and fences
what is written under it. A transaction reads and writes many paths as one.

Three things are called lock. This one, `Lock`, is for any program: it queues, and it is fenced. The lock of a
link to a service gates links, and refuses at once. An endpoint's lockout accepts changes only with a key.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from link_kv._core import locks, stm
from link_kv._core.calls import run
from link_kv._core.leases import Lease
from link_kv._core.operations import layer, missing
from link_kv.errors import LockLost, LockRefused
from link_kv.tree import MISSING

if TYPE_CHECKING:
    from link_kv.middleware import EtcdMiddleware

T = TypeVar("T")

__all__ = ["Lock", "Session", "Transaction"]


class Session:
    """A lease, kept alive by one thread of this process, at a third of its time to live.

    Args:
        client: the client whose cluster grants it.
        ttl: seconds after which etcd ends it when nothing is heard of this process; etcd may grant more.
        renew: after a loss, get a new lease and write again what was `put` under the old one.

    What is `put` under the session goes with it: when it is closed, or when the process dies, is frozen for
    longer than the ttl, or is cut off. `lost` is set as soon as this side must assume that the lease is gone:
    its deadline is counted from when the last keepalive was sent, on a clock that goes on while the machine
    is suspended. A forked child has no part in it. Thread-safe. Raises what the client raises when the lease
    cannot be had.
    """

    def __init__(self, client: EtcdMiddleware, ttl: float = 10, *, renew: bool = False) -> None:
        self._client = client
        self._lease = Lease(client._space, ttl)
        self._renew = renew
        self._stop = threading.Event()
        self.lost = threading.Event()
        """Set when the lease must be taken as lost; cleared when it was renewed."""
        run(self._lease.grant())
        self._thread = threading.Thread(target=self._keep, name="link-kv-session", daemon=True)
        self._thread.start()

    @property
    def lease(self) -> int:
        """The lease's id, another one after a renewal; 0 when closed."""
        return self._lease.id

    @property
    def ttl(self) -> int:
        """The seconds that etcd granted."""
        return self._lease.ttl

    @property
    def alive(self) -> bool:
        """Whether the lease is certainly still there, and this process is its own."""
        return self._lease.alive

    def check(self) -> None:
        """Raise `LeaseLost` unless the lease is certainly still there."""
        self._lease.check()

    def put(self, path: str, value: Any) -> int:
        """Write a value that goes with the session, and return the revision.

        Raises `LeaseLost` when the session is gone. Refused below a list, where expiry would leave a gap.
        """
        at = self._client._space.place(path)
        return run(self._lease.put(at, layer(value, at)))

    def delete(self, path: str) -> int:
        """Delete what was put under the session, and return the revision. Raises `NotFound`."""
        self._lease.unregister(self._client._space.place(path))
        return self._client.delete(path)

    def close(self) -> None:
        """End the lease, and every key under it. May be called twice; does nothing in a forked child."""
        self._stop.set()
        run(self._lease.revoke())
        self.lost.set()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "alive" if self.alive else "lost"
        return f"<Session {self._lease.id:x} {state}, ttl {self._lease.ttl} s>"

    def _keep(self) -> None:
        async def pause(seconds: float) -> bool:
            return self._stop.wait(seconds)

        run(self._lease.keep(pause, self._renew, self.lost))


class Lock:
    """A lock that any program may ask for by name, fair and fenced.

    Args:
        client: where it is, in the client's prefix.
        name: what it is called; any str that is not empty.
        shared: hold it together with others that share it; those who do not share wait for all of them.
        ttl: seconds after which others get it when nothing is heard of this process.

    ``with Lock(client, 'name') as lock:`` waits as long as it takes, and never enters without the lock.
    Who asked first gets it first. A process that was frozen for longer than the ttl has lost the lock without
    knowing: so write through `client`, whose writes happen only while the lock is held, and raise `LockLost`
    else. May be acquired again after a release; belongs to one thread at a time.
    """

    def __init__(self, client: EtcdMiddleware, name: str, *, shared: bool = False, ttl: float = 10) -> None:
        locks.directory(client._space, name)
        self._client = client
        self.name = name
        self.shared = shared
        self._ttl = ttl
        self._session: Session | None = None
        self._claim: locks.Claim | None = None

    def acquire(self, timeout: float | None = None) -> bool:
        """Wait for the lock, for ``timeout`` seconds at most; whether it was got. 0 asks once.

        Raises `LockLost` when the place in the queue was lost while waiting.
        """
        if self._claim is not None:
            raise LockRefused(f"lock {self.name}: is held by this very object")
        deadline = None if timeout is None else time.monotonic() + timeout
        session = Session(self._client, self._ttl)
        got = False
        try:
            claim = locks.Claim(self._client._space, self.name, self.shared, session._lease)
            run(claim.enter())
            got = run(claim.wait(deadline))
        finally:
            if not got:
                session.close()
        if got:
            self._session, self._claim = session, claim
        return got

    def release(self) -> None:
        """Give the lock up. Raises `LockLost` when it was lost before; it is given up all the same."""
        session, claim = self._session, self._claim
        if session is None or claim is None:
            raise LockRefused(f"lock {self.name}: is not held")
        self._session = self._claim = None
        held = session.alive
        session.close()
        if not held:
            raise LockLost(f"lock {self.name}: was lost before it was released")

    def __enter__(self) -> Lock:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.release()
        except LockLost:
            if error is None:
                raise

    def _held(self) -> locks.Claim:
        if self._claim is None:
            raise LockLost(f"lock {self.name}: is not held")
        return self._claim

    @property
    def held(self) -> bool:
        """Whether the lock is certainly still held."""
        return self._session is not None and self._session.alive

    @property
    def token(self) -> int:
        """A number that grows from holder to holder, and that none shares: etcd's create revision."""
        return self._held().token

    @property
    def lost(self) -> threading.Event:
        """Set when the lock must be taken as lost."""
        self._held()
        assert self._session is not None
        return self._session.lost

    @property
    def client(self) -> EtcdMiddleware:
        """A client whose every write compares the token, and raises `LockLost` when the lock is gone.

        It shares the connection of the client that the lock was made with, and is closed with it.
        """
        return self._client._fenced(self._held().fence())

    def __repr__(self) -> str:
        return f"<Lock {self.name!r} {'held' if self.held else 'not held'}>"


class Transaction:
    """What a function given to `EtcdMiddleware.transaction` reads and writes.

    Reads are of one revision, and show what the function itself has written. Nothing is written before the
    function returns.
    """

    def __init__(self, core: stm.Transaction) -> None:
        self._core = core

    def __getitem__(self, path: str) -> Any:
        value = run(self._core.read(path))
        if value is MISSING:
            raise missing(path)
        return value

    def get(self, path: str, default: Any = None) -> Any:
        value = run(self._core.read(path))
        return default if value is MISSING else value

    def __contains__(self, path: str) -> bool:
        return run(self._core.contains(path))

    def __setitem__(self, path: str, value: Any) -> None:
        self._core.write(path, value)

    def __delitem__(self, path: str) -> None:
        run(self._core.delete(path))


def transact(client: EtcdMiddleware, function: Callable[[Transaction], T]) -> T:
    """See `EtcdMiddleware.transaction`."""

    async def step(core: stm.Transaction) -> T:
        return function(Transaction(core))

    return run(stm.transact(client._space, step))
