"""The etcds that ``link-kv up`` runs on this machine: how an administrator finds and stops one.

Each has a file below ``up`` in the directory of `link_kv.home`, named by the ids of cluster and member, which
its process keeps locked. So it can be told from one of another machine, and from one that is gone.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from link_kv._core.items.home import home
from link_kv._core.wire.calls import WATCH, Caller
from link_kv._core.wire.exchange import Exchange
from link_kv._core.wire.requests import field
from link_kv.errors import AccessDenied, DeadlineExceeded, LocalEtcdError

_PAUSE = 0.05
"""Seconds between two looks at whether it has ended."""


async def ids(caller: Caller) -> tuple[int, int]:
    """The ids of the cluster and of the member that answers. A watch tells them to everybody."""
    any_watch = field(b"\x0a", field(b"\x0a", b"\0"))
    answer = await caller.wire.send(await caller.endpoint(), WATCH, any_watch, caller.config.timeout, ())
    return answer.header.cluster_id, answer.header.member_id


def _file(cluster: int, member: int) -> Path:
    return Path(home()) / "up" / f"{cluster:x}-{member:x}"


@contextlib.contextmanager
def announced(cluster: int, member: int) -> Iterator[None]:
    """Let `stop` find this process as long as the block lasts. Raises `OSError`."""
    file = _file(cluster, member)
    file.parent.mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
        try:
            yield
        finally:
            file.unlink()
    finally:
        os.close(descriptor)


async def stop(ex: Exchange, cluster: int, member: int) -> None:
    """Stop the ``link-kv up`` that runs a member, and wait for its end.

    Raises `LocalEtcdError` where none does on this machine, `DeadlineExceeded` when it takes too long.
    """
    try:
        descriptor = os.open(_file(cluster, member), os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        descriptor = -1
    try:
        if descriptor < 0 or _is_free(descriptor):
            raise LocalEtcdError(
                "this etcd is not run by link-kv up on this machine, for this user: stop it where it runs"
            )
        pid = int(os.read(descriptor, 32))
        try:
            os.kill(pid, signal.SIGTERM)
        except PermissionError:
            raise AccessDenied(f"link-kv up is process {pid}, of another user") from None
        while not _is_free(descriptor):
            if time.monotonic() >= ex.deadline:
                raise DeadlineExceeded(f"link-kv up, process {pid}, was told to stop and has not ended yet")
            await ex.space.caller.wire.sleep(_PAUSE)
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _is_free(descriptor: int) -> bool:
    """Whether nobody holds the lock any more."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
