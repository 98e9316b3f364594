"""A keeper of leases at work in asyncio."""

from __future__ import annotations

import asyncio

from link_kv._core.leasing.keeper import Keeper, Work
from link_kv._core.leasing.leases import Lease
from link_kv._core.wire.connection import Connection


class TaskRun:
    """A keeper at work as a task."""

    def __init__(self, work: Work) -> None:
        self._woken = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(work(self._pause), name="link-kv-sessions")

    def wake(self) -> None:
        self._woken.set()

    def end(self) -> None:
        if not self._loop.is_closed():
            self._task.cancel()

    async def join(self, seconds: float | None) -> None:
        if self._loop is asyncio.get_running_loop():
            await asyncio.wait([self._task], timeout=seconds)

    async def _pause(self, seconds: float) -> bool:
        # Not asyncio.wait_for: before Python 3.12 it loses a cancellation that comes right after `wake`.
        timer = self._loop.call_later(seconds, self._woken.set)
        try:
            await self._woken.wait()
        finally:
            timer.cancel()
        self._woken.clear()
        return False  # it is cancelled to end


def new_lease(client: Connection, ttl: float, renew: bool = False) -> Lease[asyncio.Event]:
    def find_keeper() -> Keeper:
        keepers, loop = client._keepers, asyncio.get_running_loop()
        for other in [other for other in keepers if other.is_closed()]:
            del keepers[other]
        return keepers.setdefault(loop, Keeper(client._space.caller, TaskRun))

    return Lease(client._space, ttl, renew, asyncio.Event(), find_keeper)
