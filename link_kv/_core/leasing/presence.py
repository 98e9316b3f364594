"""Being registered, for as long as a process lives: a lease, and what stands under it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, Protocol

from link_kv._core.leasing.keeper import PATIENCE
from link_kv.errors import Closed, LinkKVError, Unavailable

log = logging.getLogger("link_kv.links")

_AGAIN = 0.5
"""Seconds after which registering again is tried once more."""


class Session(Protocol):
    """A lease that is kept alive, `link_kv.Session`."""

    @property
    def lease(self) -> int: ...
    @property
    def alive(self) -> bool: ...
    @property
    def lost(self) -> threading.Event: ...
    def close(self) -> None: ...


class Presence:
    """Keeps something registered. Registers at once, and anew whenever the lease is lost. Thread-safe.

    Args:
        what: it is, for messages.
        new_session: gets a lease, within the seconds that it is given, or the client's timeout for None.
        register: writes the keys under a lease.
    """

    def __init__(
        self, what: str, new_session: Callable[[float | None], Session], register: Callable[[int], Any]
    ) -> None:
        self._what = what
        self._new_session = new_session
        self._register = register
        self._closed = threading.Event()
        self._session = new_session(None)
        try:
            register(self._session.lease)
        except BaseException:
            self._session.close()
            raise
        self._registered = True
        self._thread = threading.Thread(target=self._keep, name=f"link-kv-{what}", daemon=True)
        self._thread.start()

    @property
    def lease(self) -> int:
        return self._session.lease

    @property
    def alive(self) -> bool:
        """Whether what was registered certainly still is."""
        return self._registered and self._session.alive

    def close(self) -> None:
        """End the lease, and with it every key. May be called twice."""
        self._closed.set()
        self._session.close()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _keep(self) -> None:
        while True:
            self._session.lost.wait()
            if self._closed.is_set():
                return
            self._registered = False
            log.warning("%s: its lease was lost, registering again", self._what)
            while not self._again():
                if self._closed.wait(_AGAIN):
                    return

    def _again(self) -> bool:
        session = None
        try:
            # A member that has just lost its leader keeps a request for as long as it may: ask again instead.
            session = self._new_session(PATIENCE)
            self._register(session.lease)
        except Closed:
            self._closed.set()
            return True
        except LinkKVError as error:
            if not isinstance(error, Unavailable):
                log.error("%s: cannot be registered again yet: %s", self._what, error)
            if session is not None:
                session.close()
            return False
        self._session = session
        self._registered = True
        if self._closed.is_set():
            session.close()
        return True
