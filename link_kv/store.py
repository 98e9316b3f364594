"""The items of a tree: `Store`. `link_kv.get` gives stores."""

from __future__ import annotations

import atexit
import functools
import getpass
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

from link_kv._core.endpoints.names import read_item, served_key
from link_kv._core.items import writes as itemwrites
from link_kv._core.items.descriptions import Description
from link_kv._core.items.finding import where
from link_kv._core.items.store_state import StoreState, write_stamp
from link_kv._core.items.writes import Stamp
from link_kv._core.leasing.leases import LET_GO
from link_kv._core.living import Living
from link_kv._core.watching.consumer import Consumer
from link_kv._core.watching.consumer import State as WatchState
from link_kv._core.watching.replica import Batch
from link_kv._core.watching.watcher import Hub
from link_kv._core.wire.calls import run
from link_kv._core.wire.exchange import Exchange, Fence
from link_kv.errors import Closed, LeaseLost, LinkKVError, LockLost, NotFound, PathError, Unavailable
from link_kv.item import Item, Reading, State
from link_kv.live import Mirror, hub_of
from link_kv.middleware import EtcdMiddleware
from link_kv.sessions import Session
from link_kv.tree import MISSING, Place, decode_name

if TYPE_CHECKING:
    from link_kv.remote import Endpoints

_SESSION = 10.0
"""Seconds after which values that do not persist go, when nothing is heard of the process that set them."""

_AGAIN = 5.0
"""Seconds until a cluster that could not be reached is tried again."""

log = logging.getLogger("link_kv.items")

T = TypeVar("T")

_sessions: Living[Session] = Living()


class Store(Mapping[str, Item]):
    """The items of a tree; `get` gives it.

    A mapping of items by their keys, in lower case. `in` and ``[]`` take keys in any case, and items; a key
    that somebody has just made is found. Values are set on the items: ``store['key'].value = 5``, or
    ``store['key'] += 1``. A loop is over the keys that were there when it began.

    One watch follows all items, and `snapshot` is of one revision. Thread-safe. On a disconnect `state` is
    ``stale``, and it catches up by itself.
    """

    def __init__(self, client: EtcdMiddleware, at: Place) -> None:
        self.client = client
        self.name = decode_name(at.segments[0]).lower()
        """In lower case."""
        self.path = at.path
        """As it is spelled in etcd."""
        self._at = at
        self._state: StoreState[Item] = StoreState(self.name, at, functools.partial(Item, self), self._warn)
        self._feed: _Feed | None = None
        self._again = 0.0
        self._lock = threading.Lock()
        """Held over a call to etcd by who opens the session."""
        self._session: Session | None = None
        self._setters: dict[int, ThreadPoolExecutor] = {}

    # As a mapping

    def __getitem__(self, key: str | Item) -> Item:
        item = self._find(key)
        if item is None:
            raise NotFound(
                f"{self.name}.{key}: no such key; the store {self.path} has {_some(self)}. "
                f"get({self.name!r}).describe({key!r}, …) makes one, or client['{self.path}/{key}'] = …"
            )
        return item

    def __contains__(self, key: object) -> bool:
        return isinstance(key, (str, Item)) and self._find(key) is not None

    def has_key(self, key: object) -> bool:
        """Whether there is an item of this name, in any case: ``key in store``."""
        return key in self

    def __iter__(self) -> Iterator[str]:
        return iter([item.key for item in self._items()])

    def __len__(self) -> int:
        return len(self._items())

    def __setitem__(self, key: str, item: Item) -> None:
        # Python assigns what `store[key] += 1` has changed already.
        if item is not self._find(key):
            raise TypeError(f"items are not replaced: set the value, {self.name}[{key!r}].value = …")

    def __delitem__(self, key: str) -> None:
        raise TypeError(f"items are deleted by their path: del client['{self.path}/{key}']")

    __eq__ = object.__eq__
    __ne__ = object.__ne__
    __hash__ = object.__hash__

    def _items(self) -> list[Item]:
        with self._still():
            return self._state.cells()

    def _find(self, key: str | Item) -> Item | None:
        if isinstance(key, Item):
            return key if key.store is self and key._known else None
        item = self._state.find(key.lower())
        if item is not None or self._feed is None:
            return item
        # It may be newer than what the watch has told.
        revision, segment = run(itemwrites.spelling(Exchange(self.client._space), self._at, key))
        if segment is None:
            return None
        feed, lower = self._feed, key.lower()

        def decided() -> bool:
            return self._state.find(lower) is not None or feed.state != "live"

        told = feed._mirror._wait(revision, feed.patience, decided)
        with self._still():
            item = self._state.find(lower)
        # When that revision was told and it is no item, it is housekeeping alone, or has gone meanwhile.
        if item is None and not told:
            raise Unavailable(
                f"{self.name}.{key}: is there, but the watch that would tell its value is {feed.state}"
            )
        return item

    # What it knows

    @property
    def catalog(self) -> dict[str, Description]:
        """The descriptions of all items, by key."""
        return {item.key: item.description for item in self._items()}

    def snapshot(self) -> dict[str, Reading]:
        """The readings of all items, by key, of one revision. Costs no call."""
        with self._still():
            moments = [(item, item._now) for item in self._state.cells()]
        return {item.key: item._reading_of(now) for item, now in moments}

    @property
    def revision(self) -> int:
        """The revision that the values are of; 0 while ``cached``."""
        return 0 if self._feed is None else self._feed.seen

    @property
    def state(self) -> State:
        """``live``; ``stale`` while the connection is gone; ``lost`` and ``cached`` as of `Item.state`."""
        return "cached" if self._feed is None else self._feed.state

    def _still(self) -> AbstractContextManager[Any]:
        """Nothing changes meanwhile. In a forked child nothing does, and the lock may be held for ever."""
        feed = self._feed
        return feed.hub.changed if feed is not None and feed.hub.pid == os.getpid() else nullcontext()

    def _warn(self, message: str) -> None:
        """Log, but not here, where the hub's lock may be held and a handler of users may do anything."""
        hub = hub_of(self.client) if self._feed is None else self._feed.hub
        hub._note(logging.WARNING, "%s", message, logger=log)

    # What it writes

    def describe(self, key: str, **description: Any) -> Item:
        """Say what an item is, whether it is there or not yet; the item.

        The keywords are those of `Description`, and replace what was said before. ``initial`` is written when
        the item has no value. Two programs that describe one name in two spellings get one item. Raises
        `ConfigError` naming the keyword that does not fit.
        """
        if not isinstance(key, str):
            raise PathError(f"{key!r}: a key is text")
        said = Description.of(f"{self.name}.{key}", description)
        said.check_units()
        initial = MISSING if said.initial is None else said.initial
        segment, _ = self._stamped(
            said.persist or initial is MISSING,
            lambda stamp: run(
                itemwrites.introduce(Exchange(self.client._space), self._at, key, initial, stamp, said.dump())
            ),
        )
        item = self._find(decode_name(segment))
        assert item is not None
        return item

    def _stamped(self, persist: bool, write: Callable[[Stamp], T]) -> T:
        """Write with the time and who writes, and under a lease what does not persist."""
        self._check_reachable()
        stamp = Stamp(write_stamp(time.time(), _writer(os.getpid())))
        if persist:
            return write(stamp)
        session = self._open_session()
        try:
            return write(stamp._replace(lease=session.lease))
        except LockLost:
            raise
        except LeaseLost:
            # Somebody has ended it, and we did not know yet.
            session.close()
            return write(stamp._replace(lease=self._open_session().lease))

    def _open_session(self) -> Session:
        with self._lock:
            if self._session is None or not self._session.alive:
                self._session = Session(self.client, _SESSION)
                self.client._at_close.append(functools.partial(_end, self._session))
                atexit.unregister(_end_sessions)
                atexit.register(_end_sessions)  # before what it needs is gone
                _sessions.add(self._session)
            return self._session

    def _served(self, segment: str) -> tuple[str, str] | None:
        """The service that serves an item, and what the endpoint is called there; None for none."""
        feed = self._feed
        held = None if feed is None else feed.replica.held(served_key(self._at, segment))
        return None if held is None else read_item(held.value)

    @property
    def _endpoints(self) -> Endpoints:
        from link_kv.remote import endpoints_of  # most stores are served by nobody

        return endpoints_of(self.client)

    def _later(self, write: Callable[[], None]) -> Future[None]:
        """Write in a thread, one after the other."""
        setter = self._setters.get(os.getpid())
        if setter is None:
            # Of two threads that make one, both take the first's; one that is not used has started nothing.
            new = ThreadPoolExecutor(1, f"link-kv-set-{self.name}")
            setter = self._setters.setdefault(os.getpid(), new)
        return setter.submit(write)

    def _hub(self) -> Hub:
        """The hub that its watch is in. Raises `Unavailable` or `Closed`."""
        self._check_reachable()
        assert self._feed is not None
        if self._feed.hub.pid != os.getpid():
            raise Closed(f"{self.name}: belongs to the process that this one was forked from; get() it here")
        if self._feed.state == "lost":
            raise Closed(f"{self.name}: is not followed any more; get() it again: {self._feed.error}")
        return self._feed.hub

    def _check_reachable(self) -> None:
        if self._feed is None:
            raise Unavailable(
                f"{self.name}: {where(self.client)} could not be reached, and only the descriptions are "
                "remembered; get() tries again"
            )

    # Its watch

    @property
    def _usable(self) -> bool:
        """Whether it is of this process, and of a client that is open."""
        if self.client._space.caller.closed:
            return False
        return self._feed is None or self._feed.state != "lost"

    @property
    def _fences(self) -> tuple[Fence, ...]:
        """The locks that its writes depend on."""
        return self.client._space.fences

    def _let_go(self) -> None:
        """Follow the tree no more, since nothing can be written."""
        feed = self._feed
        if feed is not None:
            with feed.hub.changed:
                feed.tell("lost", LockLost(f"{self.name}: was opened under a lock that is lost"))
            feed.close()

    @property
    def _there(self) -> bool:
        """Whether anything is in it."""
        return self._feed is not None and (self._feed.replica.count > 0 or len(self) > 0)

    def _attach(self) -> None:
        """Follow the tree. Raises as `EtcdMiddleware.subscribe` does."""
        feed = _Feed(self, hub_of(self.client))
        with feed.hub.changed:
            feed.join()
            self._state.load(feed.replica, time.time())
            self._feed = feed

    def _remember(self, items: Mapping[str, Any]) -> None:
        """Have only descriptions, as they are remembered, until `get` can attach it."""
        for segment, description in items.items():
            self._state.describe(segment, json.dumps(description).encode())
        self._again = time.monotonic() + _AGAIN

    def __repr__(self) -> str:
        return f"<Store {self.name}, {len(self)} items, {self.state}>"


class _Feed(Consumer):
    """What the watch tells a store. It has no queue: items are changed at once, in the thread that reads."""

    def __init__(self, store: Store, hub: Hub) -> None:
        super().__init__(hub, 1)
        self.hub = hub
        self.patience = store.client._config.timeout
        self.error: LinkKVError | None = None
        self._store = store

    def join(self) -> None:
        """Listen. Called and left with the hub's lock held."""
        # Like any mirror: writes of this client wait until the items show them.
        self._mirror = Mirror(self._store.client, self._store._at)
        try:
            self.hub.join(self, self._store._at, prime=False)
        except BaseException:
            self._mirror.close()
            raise
        assert self.feed is not None
        self.replica = self.feed.replica

    @property
    def seen(self) -> int:
        """The last revision that is known to have changed something here."""
        return self.replica.revision

    def offer(self, batch: Batch, now: float) -> bool:
        feed, full = self.feed, []
        assert feed is not None
        for told in self._store._state.apply(batch, self.replica, time.time()):
            for registration in told.cell._listeners:
                try:
                    if not registration.hand(told.now, told.synthetic, now):
                        full.append(registration)
                except Exception as error:  # noqa: BLE001 - logged there, and the others go on
                    registration._leave_item()
                    self.hub.lose(registration, registration.path, error)
        for registration in full:
            registration.detach(feed)
        return True

    def tell(self, state: WatchState, error: LinkKVError | None = None, *, reconnected: bool = False) -> None:
        self._state, self.error = state, error
        if state == "lost":
            self._mirror.close()
        for item in self._store._state.listened():
            for registration in item._listeners:
                registration.tell(state, error, reconnected=reconnected)

    def close(self) -> None:
        if self.hub.pid == os.getpid():
            self.hub.leave(self)
            self._state = "lost"
            self._mirror.close()

    def _wake(self) -> None:
        raise AssertionError("nothing is queued")


@functools.lru_cache(maxsize=4)
def _writer(pid: int) -> str:
    """Who this process is, as others are told."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a user without a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}:{pid}"


def _end_sessions() -> None:
    """What does not persist goes with the program, rather than some seconds later."""
    for session in _sessions:
        _end(session)


def _end(session: Session) -> None:
    run(session._lease.close(LET_GO))


def _some(store: Store) -> str:
    keys = list(store)
    return ", ".join(keys[:10]) + (f" and {len(keys) - 10} more" if len(keys) > 10 else "") or "none"
