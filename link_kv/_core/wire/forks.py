"""Forks of a process that talks to etcd.

gRPC makes a child fit for use only when no thread is inside it at the moment of the fork. Otherwise parent
and child share one epoll, and each is woken for, reads from and closes the other's sockets. (grpcio 1.85: of
300 children of a parent with an open stream 6 crashed, and sometimes the parent's connection went with one.)
So before a fork no call begins, those under way may end, and streams are interrupted. In the parent they go
on as after any other break. Calls and streams of asyncio cannot be interrupted from within its loop.
"""

from __future__ import annotations

import logging
import os
import threading
from typing import Protocol

from link_kv._core.living import Living

log = logging.getLogger("link_kv.wire")

_PATIENCE = 1.0
"""Seconds that a fork waits for calls under way, before it interrupts them too."""

_UNFIT = "gRPC may crash in the child; start it another way, as by multiprocessing.get_context('spawn')"


class Interruptible(Protocol):
    """What has threads inside gRPC."""

    def interrupt_streams(self) -> bool:
        """Get threads that wait for streams out of gRPC; False where that cannot be."""

    def interrupt_calls(self) -> None:
        """Get those out too that wait for calls."""

    def begin_anew(self) -> bool:
        """Have no part in what the parent has, in a child; whether it is of use there."""


class Gate:
    """Where threads enter gRPC and leave it. Closed while the process forks."""

    def __init__(self) -> None:
        self.unfit = ""
        """Why this process, a child, must not use gRPC."""
        self.wires: Living[Interruptible] = Living()
        self._begin()
        self._calm = True
        os.register_at_fork(
            before=self._before, after_in_parent=self._after_in_parent, after_in_child=self._after_in_child
        )

    def _begin(self) -> None:
        self._lock = threading.Lock()
        """Taken by itself, not as that of `_left`: an interrupt can come just when a condition has taken its
        lock, which would then stay taken.
        """
        self._left = threading.Condition(self._lock)
        self._inside: set[int] = set()
        """The threads that are inside. One that an interrupt kept from saying that it left does so later."""
        self._forks = 0
        """How many threads are about to fork: each has closed the gate, and the last one opens it."""

    def __enter__(self) -> None:
        with self._lock:
            while self._forks:
                self._left.wait()
            self._inside.add(threading.get_ident())

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside.discard(threading.get_ident())
            if self._forks:
                self._left.notify_all()

    def _before(self) -> None:
        with self._lock:
            if not self._forks:
                self._calm = True
            self._forks += 1
        wires = list(self.wires)
        for wire in wires:
            wire.interrupt_streams()
        if not self._empty(_PATIENCE):
            for wire in wires:
                wire.interrupt_calls()
        empty = self._empty(_PATIENCE)
        # Who was inside at first may have opened a stream since.
        calm = [wire.interrupt_streams() for wire in wires]
        if not (empty and all(calm)):
            self._calm = False
            log.warning("forking while calls to etcd are under way that cannot be interrupted: %s", _UNFIT)

    def _empty(self, seconds: float) -> bool:
        itself = {threading.get_ident()}
        with self._lock:
            return self._left.wait_for(lambda: self._inside <= itself, seconds)

    def _after_in_parent(self) -> None:
        with self._lock:
            self._forks = max(0, self._forks - 1)  # an interrupt may have come before it was counted
            self._left.notify_all()

    def _after_in_child(self) -> None:
        # The threads that held or awaited the old lock are not here.
        self._begin()
        if not self._calm:
            self.unfit = f"this process was forked from one with calls under way: {_UNFIT}"
        # Now, while there is one thread: locks that the parent's threads held are never given back here.
        inherited, self.wires = self.wires, Living()
        for wire in inherited:
            if wire.begin_anew():
                self.wires.add(wire)


GATE = Gate()
"""The one of this process."""
