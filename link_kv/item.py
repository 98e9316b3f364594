"""One item of a store: `Item`, `Reading`, and `Registration`. `link_kv.get` gives items."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from link_kv._core.items import writes as itemwrites
from link_kv._core.items.numeric import is_array
from link_kv._core.items.operators import Operators, value_of
from link_kv._core.items.store_state import Cell, Moment, StoreState
from link_kv._core.items.writes import Seen, Stamp
from link_kv._core.operations import layer, read
from link_kv._core.watching.consumer import State as WatchState
from link_kv._core.watching.replica import Batch, Change
from link_kv._core.wire.calls import run
from link_kv._core.wire.exchange import Exchange
from link_kv.errors import Closed, ConfigError, LinkKVError, Refused
from link_kv.live import Subscription
from link_kv.tree import MISSING, Place

if TYPE_CHECKING:
    from link_kv._core.watching.watcher import Feed
    from link_kv.items import Store

State = Literal["unset", "live", "stale", "lost", "cached"]
"""How an item stands: without a value, up to date, to be updated later, never again, or not to be reached."""


@dataclass(frozen=True)
class Reading:
    """An item's value with all that belongs to it, of one moment."""

    value: Any
    """None when the item is unset."""
    formatted: str
    timestamp: float | None
    """Seconds since 1970: when it was written, or, where that is not known, when it was seen."""
    writer: str | None
    """Who wrote it, ``user@host:pid``; None when it was not written as an item."""
    revision: int
    """0 when the item is unset."""
    state: State


class Item(Operators, Cell):
    """A value that keeps itself current; `link_kv.get` gives it.

    In expressions it stands for its value. ``item += 1`` and its kin change the item atomically, however many
    do so; they may raise `OutcomeUnknown`. Assigning to `value`, `formatted` or `quantity` is `set`. Reading
    costs no call and never waits. What is read is not to be changed: a list is the item's own.

    Thread-safe. On a disconnect `state` is ``stale``, and what was last known stays; it catches up by itself.
    """

    __slots__ = ("store",)

    store: Store

    def __init__(self, store: Store, key: str, segment: str) -> None:
        self.store = store
        super().__init__(key, segment)

    def __setattr__(self, name: str, value: Any) -> None:
        # `value` is a plain slot, since a property would halve the speed of reading it.
        if name == "value":
            self.set(value)
        else:
            object.__setattr__(self, name, value)

    # What it is called

    @property
    def full_key(self) -> str:
        """``store.key``, in lower case."""
        return f"{self.store.name}.{self.key}"

    @property
    def path(self) -> str:
        """Where it is in etcd, as it is spelled there: its value is ``client[item.path]``."""
        return f"{self.store.path}/{self._segment}"

    @property
    def _at(self) -> Place:
        return self.store._at.child(self._segment)

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Let errors that the description raises name the item."""
        try:
            yield
        except (Refused, ConfigError) as error:
            raise type(error)(f"{self.full_key}: {error}") from None

    # Reading

    def get(self, refresh: bool = False, formatted: bool = False, quantity: bool = False) -> Any:
        """The value, None when the item is unset.

        Args:
            refresh: ask etcd, not the watch; where a service serves the item, ask that. Raises `Unavailable`
                and its like.
            formatted: as text, such as `formatted`.
            quantity: as a ``pint.Quantity``; with ``formatted``, in the formatted units.
        """
        with self._named():
            if not self.description.gettable:
                raise Refused("cannot be read, says its description")
            value = self._refresh() if refresh else self.value
            if quantity:
                return self.description.quantity(value, formatted=formatted)
            return self.description.formatted(value) if formatted else value

    def _refresh(self) -> Any:
        served = self.store._served(self._segment)
        return self._refresh_here() if served is None else self.store._endpoints._refresh(self, *served)

    def _refresh_here(self) -> Any:
        self.store._check_reachable()
        value = run(read(Exchange(self.store.client._space), self.path))
        return None if value is MISSING else value

    @property
    def formatted(self) -> str:
        """The value as text for people, ``''`` when the item is unset. What is assigned is such text."""
        text: str = self.get(formatted=True)
        return text

    @formatted.setter
    def formatted(self, text: str) -> None:
        self.set(text, formatted=True)

    @property
    def quantity(self) -> Any:
        """The value as a ``pint.Quantity``. What is assigned may have any units that fit."""
        return self.get(quantity=True)

    @quantity.setter
    def quantity(self, quantity: Any) -> None:
        self.set(quantity, quantity=True)

    @property
    def timestamp(self) -> float | None:
        """Seconds since 1970: when it was written, or seen where that is not known; None when unset."""
        return self._now.timestamp

    @property
    def writer(self) -> str | None:
        """Who wrote the value, ``user@host:pid``; None when it was not written as an item."""
        return self._now.writer

    @property
    def revision(self) -> int:
        """The revision of the value; 0 when unset."""
        return self._now.revision

    @property
    def state(self) -> State:
        """How far the value can be relied on.

        ``live``; ``unset``, with nothing there; ``stale`` while the connection is gone; ``lost`` when it will
        not change any more, as after its client was closed, or in a forked child: `link_kv.get` it again;
        ``cached`` when its cluster cannot be reached, and only its description is remembered.
        """
        return self._state_at(self._now)

    def _state_at(self, now: Moment) -> State:
        state = self.store.state
        return "unset" if state == "live" and not now.revision else state

    def reading(self) -> Reading:
        """Value, text, time, writer, revision and state, of one moment."""
        return self._reading_of(self._now)

    def _reading_of(self, now: Moment) -> Reading:
        with self._named():
            text = self.description.formatted(now.value)
        return Reading(now.value, text, now.timestamp, now.writer, now.revision, self._state_at(now))

    # Writing

    def set(
        self, value: Any, wait: bool = True, formatted: bool = False, quantity: bool = False
    ) -> Future[None] | None:
        """Write a value, with the time and who writes it, in one transaction.

        Args:
            wait: return when it is written, and the watch has told it or has lagged for 1 s. Without, return
                a `concurrent.futures.Future` at once; what is set so in one store is written in order.
            formatted: the value is text such as `formatted`.
            quantity: the value is a ``pint.Quantity``.

        Raises `Refused`, before anything is sent, when the description does not allow it; and what assigning
        to a path of the client raises. Where a service serves the item, it is the service that writes, and
        what it answers is raised: `AccessDenied` while there is a lockout.
        """
        served = self.store._served(self._segment)
        if formatted or quantity or served is None:
            stored = self._accept(value, formatted, quantity)
        else:
            stored = self._settable(value)  # its service may take what is no value of the item yet
        layer(stored, self._at)  # what cannot be stored is said here, whether it waits or not
        if not wait:
            return self.store._later(lambda: self._send(stored, served))
        self._send(stored, served)
        return None

    def _settable(self, value: Any) -> Any:
        with self._named():
            if not self.description.settable:
                raise Refused("is read-only, says its description")
        return value_of(value)

    def _accept(self, value: Any, formatted: bool, quantity: bool) -> Any:
        description = self.description
        self._settable(None)
        with self._named():
            if quantity:
                return description.from_quantity(value)
            if not formatted:
                return description.check(value_of(value))
            if not isinstance(value, str):
                raise Refused(f"{value!r} is not text, so it is no formatted value")
            return description.parse(value)

    def _send(self, value: Any, served: tuple[str, str] | None) -> None:
        """Write, or have the service write that serves the item."""
        if served is None:
            self._write(value)
        else:
            self.store._endpoints._write(self, value, *served)

    def _write(self, value: Any) -> int:
        store, first = self.store, not self._now.revision

        def write(stamp: Stamp) -> int:
            space = store.client._space
            return run(itemwrites.write(space, store._at, self._segment, value, stamp, first=first))

        return store._stamped(self.description.persist, write)

    def _change(self, change: Callable[[Any], Any]) -> None:
        store, now = self.store, self._now
        seen = None
        if now.revision and self._raw is None:
            seen = Seen(now.value, now.revision, {self._at.key: now.revision})

        def changed(value: Any) -> Any:
            return self._accept(change(None if value is MISSING else value), False, False)

        served = store._served(self._segment)
        if served is not None:
            store._endpoints._change(self, changed, *served)
            return

        def write(stamp: Stamp) -> None:
            space = store.client._space
            run(itemwrites.change(space, store._at, self._segment, changed, stamp, seen))

        store._stamped(self.description.persist, write)

    # Being told

    def register(
        self,
        callback: Callable[[Item, Any, float], object],
        prime: bool = False,
        *,
        on_state: Callable[[WatchState], object] | None = None,
    ) -> Registration:
        """Call ``callback(item, value, timestamp)`` for each change from now on, until the handle is closed.

        It is called in a thread of the client's, for one change after the other, in order. It may
        block, raise and write. When the item goes, the value is `link_kv.MISSING`. The value of a tree comes
        whole, once for each revision. With a deadband, smaller changes are left out. The callback is held.

        Args:
            prime: begin with the value as it is, where there is one.
            on_state: called as ``on_state(state)`` when the state has become ``live``, ``stale`` or ``lost``.
        """
        return Registration(self, callback, prime, on_state)

    def wait(self, value_or_predicate: Any, timeout: float | None = None) -> bool:
        """Wait until the item has a value, or a predicate holds for one; whether that was so.

        Every value is looked at in turn, the present one first, however short it lasts. ``timeout`` is in
        seconds. Raises what the predicate raises, and `Closed` when the item is ``lost``.
        """
        wanted = value_of(value_or_predicate)
        holds = wanted if callable(wanted) else lambda value: same(value, wanted)
        ended = threading.Event()
        outcome: list[BaseException | bool] = []
        turn = threading.RLock()

        def look(item: Item, value: Any, timestamp: float) -> None:
            with turn:
                if outcome:
                    return
                try:
                    met: BaseException | bool = bool(holds(None if value is MISSING else value))
                except BaseException as error:  # noqa: BLE001 - raised where it is waited
                    met = error
                if met is not False:
                    outcome.append(met)
                    ended.set()

        with ExitStack() as stack:
            with turn:  # what comes waits until the present value was looked at
                with self.store._hub().changed:
                    registration = stack.enter_context(_Wait(self, look, ended))
                    present = self.value
                look(self, present, 0.0)
            ended.wait(timeout)
            if not outcome and registration.state == "lost":
                raise Closed(f"{self.full_key}: is not followed any more, its client was closed")
        if outcome and isinstance(outcome[0], BaseException):
            raise outcome[0]
        return bool(outcome)

    def __str__(self) -> str:
        return self.formatted

    def __repr__(self) -> str:
        return f"<Item {self.full_key} = {self.value!r}, {self.state}>"


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal, arrays too."""
    if is_array(one) or is_array(other):
        import numpy

        return bool(numpy.array_equal(one, other))
    return bool(one == other)


class Registration(Subscription):
    """A callback for an item; `Item.register` makes it.

    It has the `state`, the `revision` and the `stats` of a `Subscription`, and a queue of its own: when that
    is full, what is missed is replayed from etcd. A context manager that closes it. Thread-safe.
    """

    def __init__(
        self,
        item: Item,
        callback: Callable[[Item, Any, float], object],
        prime: bool = False,
        on_state: Callable[[WatchState], object] | None = None,
    ) -> None:
        if not callable(callback):
            raise ConfigError(f"{item.full_key}: {callback!r} is no callback(item, value, timestamp)")
        self.item = item
        self._own: StoreState[Cell] | None = None
        """What it follows by itself, once its queue was full."""
        self._last: Any = MISSING
        self._tell_item: Callable[[Item, Any, Any], object] = callback
        super().__init__(item.store._hub(), item._at, self._tell, prime=prime, on_state=on_state)

    def _join(self, at: Place, prime: bool) -> None:
        item, store = self.item, self.item.store
        with self._hub.changed:
            now = item._now
            there = now.revision > 0
            self.begin(store.revision, self._batch(now, False) if prime and there else None)
            if there:
                self._last = now.value
            assert store._feed is not None
            self._state = store._feed.state
            item._listeners = (*item._listeners, self)

    def _batch(self, now: Moment, synthetic: bool) -> Batch:
        kind: Literal["put", "delete"] = "delete" if now.value is MISSING else "put"
        change = Change(self.item.path, now, MISSING, now.revision, kind, synthetic)
        return Batch(now.revision, [change], [], synthetic)

    def hand(self, now: Moment, synthetic: bool, arrived: float) -> bool:
        """Queue what the item has become; False when the queue is full now."""
        if self._passes_over(now.value):
            return True
        self._last = now.value
        return super().offer(self._batch(now, synthetic), arrived)

    def _passes_over(self, value: Any) -> bool:
        return self.item.description.within_deadband(value, self._last)

    def detach(self, feed: Feed) -> None:
        """Follow the store alone from here on: the queue is full, and the others go on."""
        self._leave_item()
        store = self.item.store
        # What there is to warn of, the store does.
        self._own = StoreState(store.name, store._at, self._make_cell, lambda _: None)
        self._own.load(feed.replica, time.time())
        self._hub.park(feed, self)

    def _make_cell(self, key: str, segment: str) -> Cell:
        cell = Cell(key, segment)
        if key == self.item.key:
            cell._listeners = (self,)
        return cell

    def offer(self, batch: Batch, now: float) -> bool:
        """Take what happened in the store, from a feed that is its own."""
        own, feed = self._own, self.feed
        assert own is not None
        assert feed is not None
        goes_on = True
        for told in own.apply(batch, feed.replica, time.time()):
            goes_on = self.hand(told.now, told.synthetic, now)
        return goes_on

    def _tell(self, change: Change) -> None:
        now: Moment = change.value
        self._tell_item(self.item, now.value, now.timestamp)

    def close(self) -> None:
        """Call back no more. What waits is dropped. May be called twice, and from inside the callback."""
        if self._hub.pid != os.getpid():
            return
        with self._hub.changed:
            self._leave_item()
            self.item.store._state.tidy(self.item)
        super().close()

    def _leave_item(self) -> None:
        self.item._listeners = tuple(each for each in self.item._listeners if each is not self)

    def __repr__(self) -> str:
        return f"<Registration of {self._tell_item!r} for {self.item.full_key}, {self.state}>"


class _Wait(Registration):
    """What waits for a value: it sees them all, and hears at once that no more will come."""

    def __init__(
        self, item: Item, callback: Callable[[Item, Any, float], object], ended: threading.Event
    ) -> None:
        self._ended = ended
        super().__init__(item, callback)

    def _passes_over(self, value: Any) -> bool:
        return False

    def tell(self, state: WatchState, error: LinkKVError | None = None, *, reconnected: bool = False) -> None:
        super().tell(state, error, reconnected=reconnected)
        if state == "lost":
            self._ended.set()  # the threads that call back have ended as well
