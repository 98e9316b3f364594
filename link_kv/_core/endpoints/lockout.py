"""Lockout: an endpoint that accepts changes only with a key, for as long as a lease lasts.

The key is known to who locked, and to the process that serves. etcd has its digest, at
``<prefix>/.link/lockouts/<name>``, under a lease: so that a service that is started again goes on with it,
that others see who locked, and that nothing stays locked for ever.
"""

from __future__ import annotations

import hashlib
import hmac
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from typing import NamedTuple

import orjson

from link_kv._core.endpoints.return_codes import error
from link_kv._core.wire.exchange import Exchange, new_lease_id
from link_kv.plan import Delete, Get, Plan, Put
from link_kv.tree import encode_name

WHERE = b"/.link/lockouts/"


class Held(NamedTuple):
    """A lockout, as etcd knows it."""

    digest: str
    holder: str
    seconds: float
    """How long it lasts from now on."""


def digest_of(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


class Lockout:
    """Whether something is locked, and with what key it opens. Thread-safe.

    Args:
        name: what is locked, for messages.
        ttl: seconds after which it opens by itself, unless somebody shows the key.
        write: tells etcd of a digest, who holds it, and for how many seconds; the seconds that it granted.
        remove: tells etcd that it is open.
    """

    def __init__(
        self,
        name: str,
        ttl: float,
        write: Callable[[str, str, float], float] | None = None,
        remove: Callable[[], object] | None = None,
    ) -> None:
        self.name = name
        self.ttl = ttl
        self.holder = ""
        """Who locked, while it is locked."""
        self._write = write
        self._remove = remove
        self._turn = threading.RLock()
        self._key: str | None = None
        self._digest: str | None = None
        self._expires = 0.0
        self._renewed = 0.0

    def bind(
        self,
        write: Callable[[str, str, float], float] | None,
        remove: Callable[[], object] | None,
        known: Held | None,
    ) -> None:
        """Keep it in etcd from now on, and take over what is known there. With None, in memory alone."""
        with self._turn:
            self._write, self._remove = write, remove
            if known is not None and not self.locked:
                now = time.monotonic()
                self._key, self._digest, self.holder = None, known.digest, known.holder
                self._expires, self._renewed = now + known.seconds, now

    @property
    def locked(self) -> bool:
        return self._digest is not None and time.monotonic() < self._expires

    @property
    def key(self) -> str | None:
        """The key, where it is locked, and was locked in this process."""
        return self._key if self.locked else None

    def opens(self, key: str | None) -> bool:
        """Whether a request with this key passes."""
        digest = self._digest
        if not self.locked or digest is None:
            return True
        return key is not None and hmac.compare_digest(digest_of(key), digest)

    def check(self, key: str | None) -> None:
        """Raise the error of code 307 unless a request with this key passes. A right key prolongs the
        lock.
        """
        if not self.opens(key):
            raise error(
                "service_error_access_denied",
                f"{self.name}: is locked by {self.holder}; it opens with the lockout key, or after "
                f"{max(0.0, self._expires - time.monotonic()):.0f} s",
            )
        with self._turn:
            # Now and then is enough, and spares etcd a write for each request.
            if self.locked and time.monotonic() - self._renewed > self.ttl / 4:
                self._hold()

    def lock(self, key: str | None = None, holder: str = "") -> str:
        """Lock, with a key or a new one, which is returned. Raises the error of code 307 when it is locked
        with another.
        """
        with self._turn:
            if key is not None and (not isinstance(key, str) or not key):
                raise error(
                    "service_error_invalid_key", f"{self.name}: a lockout key is a text, such as a UUID"
                )
            if self.locked and (key is None or not self.opens(key)):
                raise error("service_error_access_denied", f"{self.name}: is locked by {self.holder} already")
            before = self._key, self._digest, self.holder
            self._key = key or str(uuid.uuid4())
            self._digest, self.holder = digest_of(self._key), holder
            try:
                self._hold()
            except BaseException:
                # Who locks again must not open it by that.
                self._key, self._digest, self.holder = before
                raise
            return self._key

    def _hold(self) -> None:
        assert self._digest is not None
        now = time.monotonic()
        granted = self.ttl if self._write is None else self._write(self._digest, self.holder, self.ttl)
        self._expires, self._renewed = now + granted, now

    def unlock(self) -> None:
        """Open, for everybody."""
        with self._turn:
            if self._digest is not None and self._remove is not None:
                self._remove()
            self._forget()

    def _forget(self) -> None:
        self._key = self._digest = None
        self.holder = ""


# In etcd


def _key_of(ex: Exchange, name: str) -> bytes:
    return ex.space.prefix + WHERE + encode_name(name, "lockout").encode()


async def write(ex: Exchange, name: str, digest: str, holder: str, ttl: float) -> float:
    """Write a lockout under a new lease; the seconds that etcd granted."""
    lease = new_lease_id()
    record = orjson.dumps({"digest": digest, "holder": holder})
    granted = await ex.grant(lease, ttl)
    try:
        await ex.commit(Plan((), (Put(_key_of(ex, name), record, lease),), guarded=True), name)
    except BaseException:
        await ex.abandon(lease)
        raise
    return granted


async def remove(ex: Exchange, name: str) -> None:
    outcome = await ex.commit(Plan((), (Delete(_key_of(ex, name), previous=True),), guarded=True), name)
    for kv in outcome.answers()[0].response_delete_range.prev_kvs:
        await ex.abandon(kv.lease)  # it may last for hours


async def known(ex: Exchange, names: Iterable[str]) -> dict[str, Held]:
    """The lockouts of some names, prolonged."""
    wanted = list(names)
    _, found = await ex.read([Get(_key_of(ex, name)) for name in wanted])
    held: dict[str, Held] = {}
    for name, kvs in zip(wanted, found, strict=True):
        for kv in kvs:
            try:
                record = orjson.loads(kv.value)
                digest, holder = str(record["digest"]), str(record["holder"])
            except (ValueError, KeyError, TypeError):
                continue  # not one of ours
            ex.renew()
            if seconds := await ex.keep_alive(kv.lease):
                held[name] = Held(digest, holder, seconds)
    return held
