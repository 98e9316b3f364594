"""Who is there: services, clients, links and locks, as leased keys in etcd.

======================================  ==========================  ======================================
key below ``<prefix>/.link/``           under the lease of          value, as JSON
======================================  ==========================  ======================================
``services/<name>``                     the service                 `ServiceRecord`
``services/<name>/links/<link>``        the client                  `LinkRecord`
``services/<name>/locks/<link>``        the client                  `LockRecord`
``clients/<client>``                    the client                  `ClientRecord`
======================================  ==========================  ======================================

A client decides by these keys whether it may link or lock, and writes its own only while nothing in the
service's range has changed since. The service decides by the same keys, with the same function, whether a
call is answered. So it does not matter whether a client behaves.

Who links first comes first, by etcd's create revisions: with ``max_clients`` of 2 it is the two clients
whose links are oldest that are served.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import platform
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from link_kv._core.wire.exchange import Exchange, Namespace
from link_kv.errors import (
    AccessDenied,
    Conflict,
    KeyExists,
    LeaseLost,
    LockRefused,
    NotFound,
    PathError,
)
from link_kv.plan import Delete, Get, Operation, Plan, Put, absent, present, quiet, unmoved
from link_kv.tree import Place, decode_name, encode_name

_SERVICES, _CLIENTS = "/.link/services", "/.link/clients"
_LINKS, _LOCKS = b"links/", b"locks/"
_RACES = 100
"""How often somebody else may change a service's range between reading and writing."""

LANGUAGE = f"Python {platform.python_version()}"
OS = f"{platform.system()} {platform.release()} {platform.machine()}"


class ServiceRecord(NamedTuple):
    """A service, as it says of itself."""

    address: str
    """``host:port``, where it listens."""
    token: str
    """What callers present."""
    attributes: dict[str, str]
    """Signatures of methods, and reprs of values, by name."""
    max_clients: int
    """0 for any number."""
    tls: str = ""
    """``''`` for plaintext, ``server`` for TLS, ``mutual`` where clients need a certificate too."""
    language: str = LANGUAGE
    os: str = OS
    machine: str = ""
    """Where its address can be tried, `here`; '' where that is not known."""
    created: int = 0
    """The revision of its registration."""

    def __repr__(self) -> str:
        return f"<ServiceRecord at {self.address}>"


class ClientRecord(NamedTuple):
    name: str
    host: str
    pid: int
    language: str = LANGUAGE
    os: str = OS


class LinkRecord(NamedTuple):
    client: str
    """The client's id."""
    name: str
    """The client's name."""
    proof: str
    """The digest of the secret by which the client shows that the link is its own."""
    created: int = 0


class LockRecord(NamedTuple):
    shared: bool
    clients: tuple[str, ...] = ()
    """The ids of those who were linked when it was acquired, and go on."""
    created: int = 0


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def service_place(space: Namespace, name: str) -> Place:
    """Where a service is registered. Raises `PathError` for what is no name."""
    if not isinstance(name, str) or not name:
        raise PathError(f"{name!r}: a service's name is a str that is not empty")
    segment = encode_name(name, "service")
    path = f"{_SERVICES}/{segment}"
    return Place(path, space.prefix + path.encode(), space.prefix, (".link", "services", segment))


def client_key(space: Namespace, client: str) -> bytes:
    return space.prefix + f"{_CLIENTS}/{client}".encode()


# The state of a service's range


class State:
    """A service's registration, its links and its locks, at one revision. Immutable.

    Args:
        at: the service's place.
        kvs: keys, values, and the revisions in which they were written. Keys of links are written once.
        revision: at which this is the state.
    """

    def __init__(self, at: Place, name: str, kvs: Iterable[tuple[bytes, bytes, int]], revision: int) -> None:
        self.name = name
        self.revision = revision
        self.service: ServiceRecord | None = None
        self.links: dict[str, LinkRecord] = {}
        self.locks: dict[str, LockRecord] = {}
        skip = len(at.marker)
        for key, value, written in kvs:
            if key == at.key:
                self.service = _service(value, written)
                continue
            kind, link = key[skip : skip + 6], key[skip + 6 :].decode(errors="replace")
            if kind == _LINKS:
                found = _load(value)
                texts = [found.get(field) for field in ("client", "name", "proof")]
                if all(isinstance(text, str) for text in texts):
                    self.links[link] = LinkRecord(*texts, written)  # type: ignore[arg-type,call-arg]
            elif kind == _LOCKS:
                found = _load(value)
                clients = found.get("clients")
                known = tuple(clients) if isinstance(clients, list) else ()
                self.locks[link] = LockRecord(found.get("shared") is True, known, written)
        self._first: dict[str, int] = {}
        """When each client linked first."""
        for record in self.links.values():
            first = self._first.get(record.client, record.created)
            self._first[record.client] = min(first, record.created)

    def held(self) -> dict[str, LockRecord]:
        """The locks whose links are there, in the order in which they came."""
        held = [(link, lock) for link, lock in self.locks.items() if link in self.links]
        return dict(sorted(held, key=lambda each: each[1].created))

    def holders(self) -> list[str]:
        """The names of the clients that hold locks, without repetition."""
        return self._names(self.held())

    def linked(self) -> list[str]:
        """The names of the clients that are linked, in the order in which they came."""
        return self._names(sorted(self.links, key=lambda link: self.links[link].created))

    def _names(self, links: Iterable[str]) -> list[str]:
        clients = {self.links[link].client: self.links[link].name for link in links}
        return list(clients.values())

    def refuses_link(self, client: str) -> str | None:
        """Why a client may not link, None when it may."""
        if client in self._first:
            return None
        if self.held():
            return f"service {self.name} is locked by {', '.join(self.holders())}"
        limit = self.service.max_clients if self.service else 0
        if 0 < limit <= len(self._first):
            linked = ", ".join(self.linked())
            return f"service {self.name} takes {limit} client{'s' * (limit > 1)} at a time: {linked}"
        return None

    def refuses_lock(self, link: str, shared: bool) -> str | None:
        """Why a link may not get the lock, None when it may."""
        client = self.links[link].client
        others = {each: lock for each, lock in self.held().items() if self.links[each].client != client}
        if any(not lock.shared for lock in others.values()) or (others and not shared):
            return f"service {self.name} is locked by {', '.join(self._names(others))}"
        if not shared and len(self._first) > 1:
            linked = ", ".join(self.linked())
            return f"service {self.name} is linked with {linked}: an exclusive lock needs to be alone"
        return None

    def refuses_call(self, link: str, proof: str) -> Exception | None:
        """Why a call over a link is not answered, None when it is."""
        record = self.links.get(link)
        if record is None or record.proof != proof:
            return AccessDenied(f"service {self.name}: this client is not linked; link first")
        limit = self.service.max_clients if self.service else 0
        first = self._first[record.client]
        if 0 < limit <= sum(each < first for each in self._first.values()):
            return LockRefused(f"service {self.name} takes {limit} clients at a time, and others came first")
        for each, lock in self.held().items():
            # Who was linked then may have linked anew since, in place of the link of that time.
            late = lock.created < first and record.client not in lock.clients
            if self.links[each].client != record.client and (not lock.shared or late):
                return LockRefused(f"service {self.name} is locked by {self.links[each].name}")
        return None


def _load(value: bytes) -> dict[str, Any]:
    """A record, ``{}`` for what is none: other programs may write here."""
    try:
        found = orjson.loads(value)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def _service(value: bytes, created: int) -> ServiceRecord | None:
    found = _load(value)
    attributes, limit = found.get("attributes"), found.get("max_clients")
    names = ("address", "token", "tls", "language", "os")
    texts = {name: text for name in (*names, "machine") if isinstance(text := found.get(name), str)}
    if not (isinstance(attributes, dict) and isinstance(limit, int) and texts.keys() >= set(names)):
        return None
    return ServiceRecord(attributes=attributes, max_clients=limit, created=created, **texts)


def _dump(record: Any, *hidden: str) -> bytes:
    return orjson.dumps({name: value for name, value in record._asdict().items() if name not in hidden})


# Reading


async def state_of(ex: Exchange, name: str) -> State:
    """A service's range now."""
    at = service_place(ex.space, name)
    read, found = await ex.read([Get(at.key), Get(at.marker, at.end)])
    return State(at, name, [(kv.key, kv.value, kv.mod_revision) for kvs in found for kv in kvs], read)


async def everybody(ex: Exchange) -> tuple[dict[str, ServiceRecord], dict[str, ClientRecord]]:
    """All services by name, and all clients by id, of one revision."""
    gets = []
    for where in (_SERVICES, _CLIENTS):
        start = ex.space.prefix + where.encode()
        gets.append(Get(start + b"/", start + b"0"))
    _, (services, clients) = await ex.read(gets)
    found: dict[str, ServiceRecord] = {}
    skip = len(gets[0].key)
    for kv in services:
        segment = kv.key[skip:]
        if b"/" not in segment:
            record = _service(kv.value, kv.mod_revision)
            if record is not None:
                found[decode_name(segment.decode(errors="replace"))] = record
    here: dict[str, ClientRecord] = {}
    skip = len(gets[1].key)
    for kv in clients:
        client = _load(kv.value)
        try:
            texts = [str(client[name]) for name in ("name", "host", "language", "os")]
            here[kv.key[skip:].decode(errors="replace")] = ClientRecord(
                texts[0], texts[1], int(client["pid"]), *texts[2:]
            )
        except (KeyError, ValueError, TypeError):
            continue  # not one of ours
    return found, here


# Writing


async def register_service(ex: Exchange, name: str, record: ServiceRecord, lease: int) -> int:
    """Register a service, and return the revision. Raises `KeyExists` while another has the name.

    One whose process has certainly ended, on this machine, is replaced without waiting for its lease. So is
    what was registered with the same token: etcd may have a lease still that was given up here.
    """
    at = service_place(ex.space, name)
    put = Put(at.key, _dump(record, "created"), lease)
    what = f"service {name}"
    for _ in range(_RACES):
        outcome = await ex.commit(Plan((absent(at.key),), (put,), (Get(at.key),), guarded=True), what)
        if outcome.succeeded:
            return outcome.revision
        kv = outcome.found()[0][0]
        if kv.lease == lease:
            return int(kv.mod_revision)
        other = _service(kv.value, kv.mod_revision)
        if other is not None and other.token == record.token:
            outcome = await ex.commit(Plan((unmoved(at.key, kv.mod_revision),), (put,), guarded=True), what)
            if outcome.succeeded:
                return outcome.revision
            continue
        if other is not None and not _has_ended(other):
            raise KeyExists(
                f"service {name}: is running at {other.address}; stop that one, or give this one another name"
            )
        gone = Plan((unmoved(at.key, kv.mod_revision),), (Delete(at.key),), guarded=True)
        await ex.commit(gone, what)
        ex.renew()
    raise Conflict(f"service {name}: others register under this name again and again")


@functools.lru_cache(maxsize=1)
def here() -> str:
    """Tells the network that loopback is in from others: of another boot, machine or container."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):  # elsewhere than on Linux
        parts += [Path("/proc/sys/kernel/random/boot_id").read_text(), os.readlink("/proc/self/ns/net")]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]


def _has_ended(record: ServiceRecord) -> bool:
    """Whether nothing listens any more where a service was. Of one in another network that cannot be told."""
    if record.machine != here():
        return False
    host, _, port = record.address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), 1).close()
    except ConnectionRefusedError:
        return True
    except (OSError, ValueError):
        return False
    return False


async def register_client(ex: Exchange, client: str, record: ClientRecord, lease: int) -> None:
    """Let `everybody` know of a client, for as long as its lease lives."""
    put = Put(client_key(ex.space, client), _dump(record), lease)
    await ex.commit(Plan((), (put,), guarded=True), f"client {record.name}")


async def add_link(ex: Exchange, name: str, link: str, record: LinkRecord, lease: int) -> State:
    """Link a client, or write its link anew under another lease, if the service's range allows that.

    Raises `NotFound` when there is no such service, and `LockRefused`.
    """

    def decide(state: State) -> Sequence[Operation]:
        if state.service is None:
            raise NotFound(f"service {name}: there is no such service")
        if why := state.refuses_link(record.client):
            raise LockRefused(why)
        # Where the link is there, it is under a lease that was given up here; a lock with it is lost.
        lock = _key(ex, name, _LOCKS, link)
        return (Put(_key(ex, name, _LINKS, link), _dump(record, "created"), lease), Delete(lock))

    return await _change(ex, name, decide)


async def remove_link(ex: Exchange, name: str, link: str) -> None:
    """Unlink, and release the lock that the link may hold."""
    keys = (_key(ex, name, _LOCKS, link), _key(ex, name, _LINKS, link))
    await ex.commit(Plan((), tuple(map(Delete, keys)), guarded=True), f"service {name}")


async def add_lock(ex: Exchange, name: str, link: str, shared: bool, lease: int) -> State:
    """Lock a service for a link. Raises `LockRefused`, and `LeaseLost` when the link is gone."""

    def decide(state: State) -> Sequence[Operation]:
        if link not in state.links:
            raise LeaseLost(f"service {name}: the link is gone")
        if why := state.refuses_lock(link, shared):
            raise LockRefused(why)
        record = {"shared": shared, "clients": sorted({each.client for each in state.links.values()})}
        return (Put(_key(ex, name, _LOCKS, link), orjson.dumps(record), lease),)

    return await _change(ex, name, decide)


async def remove_lock(ex: Exchange, name: str, link: str) -> State:
    """Release the lock that a link may hold; the state after that."""
    return await _change(ex, name, lambda _: (Delete(_key(ex, name, _LOCKS, link)),))


async def forget_client(ex: Exchange, client: str) -> None:
    """A client leaves, before its lease does."""
    await ex.commit(Plan((), (Delete(client_key(ex.space, client)),), guarded=True), "client")


def _key(ex: Exchange, name: str, kind: bytes, link: str) -> bytes:
    return service_place(ex.space, name).marker + kind + link.encode()


async def _change(ex: Exchange, name: str, decide: Callable[[State], Sequence[Operation]]) -> State:
    """Change a service's range as ``decide`` says of its state, while that state stands; the state after
    it.
    """
    at = service_place(ex.space, name)
    for _ in range(_RACES):
        state = await state_of(ex, name)
        operations = decide(state)
        compares = [quiet(at.marker, at.end, state.revision)]
        if state.service is not None:
            compares.append(present(at.key))
        everything = (Get(at.key), Get(at.marker, at.end))
        plan = Plan(tuple(compares), (*operations, *everything), (), guarded=True)
        outcome = await ex.commit(plan, f"service {name}")
        if outcome.succeeded:
            found = [a.response_range.kvs for a in outcome.answers()[len(operations) :]]
            kvs = [(kv.key, kv.value, kv.mod_revision) for kvs in found for kv in kvs]
            return State(at, name, kvs, outcome.revision)
        if time.monotonic() >= ex.deadline:
            break
    raise Conflict(f"service {name}: its links and locks change all the time")


def me(name: str) -> ClientRecord:
    return ClientRecord(name, socket.gethostname(), os.getpid())
