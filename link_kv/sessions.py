"""Sessions and locks: what several programs need to change one state.

A `Session` is a lease that is kept alive. A `Lock` is held under a session of its own, is fair, and fences
what is written under it. A `Transaction` reads and writes many paths as one
(`link_kv.EtcdMiddleware.transaction`).

Three things are called lock. This one, `Lock`, is for any program: it queues, and it is fenced. The lock of a
link to a service gates links, and refuses at once. An endpoint's lockout accepts changes only with a key.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from link_kv._core.leasing.keeper import Keeper, Work
from link_kv._core.leasing.leases import Lease, SessionBase
from link_kv._core.leasing.locks import Mutex
from link_kv._core.operations import stm
from link_kv._core.wire.calls import run

if TYPE_CHECKING:
    from link_kv.middleware import EtcdMiddleware

T = TypeVar("T")

__all__ = ["Lock", "Session", "Transaction"]


class _ThreadRun:
    """A keeper at work in a thread."""

    def __init__(self, work: Work) -> None:
        self._woken = threading.Event()
        self._over = False
        self._thread = threading.Thread(
            target=lambda: run(work(self._pause)), name="link-kv-sessions", daemon=True
        )
        self._thread.start()

    def wake(self) -> None:
        self._woken.set()

    def end(self) -> None:
        self._over = True
        self._woken.set()

    async def join(self, seconds: float | None) -> None:
        self._thread.join(seconds)

    async def _pause(self, seconds: float) -> bool:
        self._woken.wait(seconds)
        self._woken.clear()
        return self._over


def new_lease(client: EtcdMiddleware, ttl: float, renew: bool = False) -> Lease[threading.Event]:
    """A lease of a client, still to be opened."""

    def find_keeper() -> Keeper:
        return client._keepers.setdefault(os.getpid(), Keeper(client._space.caller, _ThreadRun))

    return Lease(client._space, ttl, renew, threading.Event(), find_keeper)


class Session(SessionBase[threading.Event]):
    """A lease, kept alive by a thread of this process, at a third of its time to live.

    Args:
        client: the client whose cluster grants it.
        ttl: seconds after which etcd ends it when nothing is heard of this process; etcd may grant more.
        renew: after a loss, get a new lease and write again what was `put` under the old one.

    Attributes:
        lease: the lease's id, another one after a renewal; 0 when closed.
        ttl: the seconds that etcd granted, often more than was asked for.
        alive: whether the lease is certainly still there; `check` raises `LeaseLost` when it is not.
        lost: a `threading.Event`, see below.

    What is `put` under the session goes with it: when it is closed, or when the process dies, is frozen for
    longer than the ttl, or is cut off. A context manager that closes it.

    `lost` is set as soon as this side must assume that the lease is gone: the deadline is counted
    from when the last keepalive was sent, on a clock that goes on while the machine is suspended. With
    ``renew`` it is cleared once there is a new lease; without, a lost session stays lost.

    A forked child has no part in it: there it is not `alive`, and closing it does nothing. Thread-safe.
    Raises what the client raises when the lease cannot be had. While etcd does not answer, the session
    stays alive until its deadline.
    """

    def __init__(self, client: EtcdMiddleware, ttl: float = 10, *, renew: bool = False) -> None:
        super().__init__(new_lease(client, ttl, renew))
        run(self._lease.open())

    def put(self, path: str, value: Any) -> int:
        """Write a value that goes with the session, and return the revision.

        Raises `LeaseLost` when the session is lost or closed, and `ConfigError` below a list, where expiry
        would leave a gap.
        """
        return run(self._lease.put(path, value))

    def delete(self, path: str) -> int:
        """Delete what was put under the session, and return the revision. Raises `NotFound`."""
        return run(self._lease.delete(path))

    def close(self) -> None:
        """End the lease, and every key under it. May be called twice; does nothing in a forked child.

        When etcd does not answer within the client's timeout, the lease ends by itself, at the latest after
        its ttl.
        """
        run(self._lease.close())

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Lock(Mutex["EtcdMiddleware", threading.Event]):
    """A lock that any program may ask for by name, fair and fenced.

    Args:
        client: where it is, in the client's prefix.
        name: what it is called; any str that is not empty.
        shared: hold it together with others that share it; those who do not share wait for all of them.
        ttl: seconds after which others get it when nothing is heard of this process.

    Attributes:
        held: whether the lock's lease is certainly still alive, in this process.
        token: a number that grows from holder to holder, and that none shares: etcd's create revision.
        client: a client whose writes happen only while the lock is held. It shares the connection of the
            one that the lock was made with.
        lost: a `threading.Event`, set when the lease must be taken as lost, and when the lock was released.

    ``with Lock(client, 'name') as lock:`` waits as long as it takes, and never enters without the lock.
    Who asked first gets it first: one who shares does not overtake one who does not.

    A process that was frozen for longer than the ttl has lost the lock without knowing. So write through
    `client`: its writes compare the `token` in their own transaction, and raise `LockLost` when the lock is
    gone. A lock made with that client has both fences. `token`, `client` and `lost` raise `LockLost` when the
    lock was not acquired. The block raises `LockLost` at its end, when the lock was lost in it.

    `held` and `lost` are about the lease. That somebody deleted the lock's key is noticed by the next write
    through `client`, by `release` and at the end of the block.

    An object is held once at a time, by one thread; threads that compete make one each. It may be acquired
    again after a release. A forked child does not hold what its parent holds, and may acquire for itself.
    """

    def acquire(self, timeout: float | None = None) -> bool:
        """Wait for the lock, for ``timeout`` seconds at most; whether it was got. 0 asks once.

        Asking itself may take a second, whatever ``timeout`` says, and at most the client's timeout; it
        raises `Unavailable` when etcd does not answer. Giving up may take 1.5 s more. In the queue, an
        etcd that does not answer is waited for. Raises `LockLost` when the place in the queue was lost,
        `LockRefused` when this very object is held already.
        """
        return run(self._acquire(timeout))

    def release(self) -> None:
        """Give the lock up.

        Raises `LockLost` when it was lost before, with its lease or as its key was deleted; it is given up
        all the same. Raises `LockRefused` when this object does not hold it. What is not known, as etcd does
        not answer, is not raised: the lock ends with its lease then.
        """
        run(self._release())

    def __enter__(self) -> Lock:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        run(self._leave(error))

    def _new_lease(self) -> Lease[threading.Event]:
        return new_lease(self._client, self._ttl)


class Transaction:
    """What a function given to `link_kv.EtcdMiddleware.transaction` reads and writes.

    Reads are of one revision, and show what the function itself has written. Nothing is written before the
    function returns. For one thread at a time.
    """

    def __init__(self, core: stm.Transaction) -> None:
        self._core = core

    def __getitem__(self, path: str) -> Any:
        return run(self._core.get(path))

    def get(self, path: str, default: Any = None) -> Any:
        """The value at a path, or ``default`` when nothing is there."""
        return run(self._core.read(path, default))

    def __contains__(self, path: str) -> bool:
        return run(self._core.contains(path))

    def __setitem__(self, path: str, value: Any) -> None:
        self._core.write(path, value)

    def __delitem__(self, path: str) -> None:
        run(self._core.delete(path))


def transact(client: EtcdMiddleware, function: Callable[[Transaction], T]) -> T:
    """See `link_kv.EtcdMiddleware.transaction`."""

    async def step(core: stm.Transaction) -> T:
        return function(Transaction(core))

    return run(stm.transact(client._space, step))
