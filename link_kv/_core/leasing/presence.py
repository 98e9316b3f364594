"""Being registered, for as long as a process lives: a lease, and what stands under it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from link_kv._core.leasing.keeper import PATIENCE
from link_kv._core.leasing.leases import LET_GO, Lease
from link_kv._core.wire.calls import run
from link_kv.errors import Closed, LinkKVError, Unavailable

log = logging.getLogger("link_kv.links")

_AGAIN = 0.5
"""Seconds after which registering again is tried once more."""


class Presence:
    """Keeps something registered. Registers at once, and anew whenever the lease is lost. Thread-safe.

    Args:
        what: it is, for messages.
        new_lease: makes a lease, still to be opened.
        register: writes the keys under a lease.
    """

    def __init__(
        self, what: str, new_lease: Callable[[], Lease[threading.Event]], register: Callable[[int], Any]
    ) -> None:
        self._what = what
        self._new_lease = new_lease
        self._register = register
        self._closed = threading.Event()
        self._lease = self._open(None)
        self._registered = True
        self._thread = threading.Thread(target=self._keep, name=f"link-kv-{what}", daemon=True)
        self._thread.start()

    def _open(self, seconds: float | None) -> Lease[threading.Event]:
        """A lease that was had within so many seconds, with what is registered under it."""
        lease = self._new_lease()
        run(lease.open(seconds))
        try:
            self._register(lease.id)
        except BaseException:
            run(lease.close(LET_GO))
            raise
        return lease

    @property
    def lease(self) -> int:
        return self._lease.id

    @property
    def alive(self) -> bool:
        """Whether what was registered certainly still is."""
        return self._registered and self._lease.alive

    def close(self, seconds: float | None = None) -> None:
        """End the lease, and with it every key, within so many seconds. May be called twice."""
        seconds = LET_GO if seconds is None else seconds
        self._closed.set()
        run(self._lease.close(seconds))
        if threading.current_thread() is not self._thread:
            self._thread.join(seconds)

    def _keep(self) -> None:
        while True:
            self._lease.lost.wait()
            if self._closed.is_set():
                return
            self._registered = False
            log.warning("%s: its lease was lost, registering again", self._what)
            while not self._again():
                if self._closed.wait(_AGAIN):
                    return

    def _again(self) -> bool:
        try:
            # A member that has just lost its leader keeps a request for as long as it may: ask again instead.
            lease = self._open(PATIENCE)
        except Closed:
            self._closed.set()
            return True
        except LinkKVError as error:
            if not isinstance(error, Unavailable):
                log.error("%s: cannot be registered again yet: %s", self._what, error)
            return False
        self._lease = lease
        self._registered = True
        if self._closed.is_set():
            run(lease.close(LET_GO))
        return True
