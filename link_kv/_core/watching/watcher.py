"""The hub of a client's watches: one connection, one stream, and who listens to what.

Three kinds of threads, however many subscriptions there are: one reads the stream, one asks what the state
machine wants to know, and the dispatcher's run callbacks. All are daemons. Only the last kind runs code of
users.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from link_kv._core.living import Living
from link_kv._core.watching.asker import EACH, Asker, read_past
from link_kv._core.watching.catchup import CatchUp
from link_kv._core.watching.consumer import Consumer
from link_kv._core.watching.dispatch import Dispatcher
from link_kv._core.watching.replica import Batch, Change, Replica, value_of
from link_kv._core.watching.watch_machine import (
    Action,
    Deliver,
    Live,
    Lost,
    Machine,
    Phase,
    Restart,
    Send,
    Stale,
    Watch,
)
from link_kv._core.wire.calls import STATUS, WATCH, Caller, Stream, Wire, run
from link_kv._core.wire.config import Config
from link_kv._core.wire.exchange import Namespace
from link_kv._core.wire.failures import CANCELLED, Meaning, WireFailure, describe, meaning
from link_kv.errors import AccessDenied, Closed, LinkKVError, Unavailable
from link_kv.tree import MISSING, Place

log = logging.getLogger("link_kv.live")

_BOOKMARKS_SINCE = (3, 5, 8)
"""Before, a progress notification can run ahead of events."""
_LONGEST_PAUSE = 0.5
"""Seconds between attempts to reach a server."""
_STEADY = 1.0
"""Seconds that a stream must have lived for its end to be no further failure in a row."""


_TELLING = 2.0
"""Seconds that closing waits at most for threads that call back."""


class Feed(Watch):
    """A followed range, and who listens to it."""

    def __init__(
        self, at: Place, replica: Replica | None = None, *, start: int = 0, shared: bool = False
    ) -> None:
        super().__init__(at, replica, start=start)
        self.shared = shared
        """Whether it is the one that all who listen from now on share."""
        self.replays = start > 0
        """Whether it is a past that was never open. It is live at once: who joins it takes nothing before."""
        self.returns = False
        """Whether its listener goes back to the shared one when it has caught up."""
        self.listeners: dict[Consumer, None] = {}
        self.mirrors = 0
        self.joining = 0
        """How many wait for it to become live."""
        self.live = False
        self.behind = 0
        """The revision up to which something may still have been missing when it was opened."""
        self.dropped = False
        self.error: LinkKVError | None = None
        self.compared = 0
        """The last revision at which etcd was found to have what the replica has."""

    @property
    def revision(self) -> int:
        """The revision that the replica is known to show."""
        return max(self.replica.revision, self.compared)

    @property
    def history(self) -> bool:
        return any(not consumer.latest for consumer in self.listeners)


class Hub:
    """All that one client watches, in one process. Thread-safe.

    A forked child makes a hub of its own, and leaves its parent's alone.
    """

    def __init__(self, config: Config, prefix: bytes, wire: Wire) -> None:
        self.pid = os.getpid()
        self.changed = threading.Condition()
        """The lock on everything here. Notified when a feed moves on, while somebody waits for that."""
        self.dispatcher = Dispatcher()
        self._space = Namespace(Caller(config, wire), prefix)
        self._machine = Machine()
        self._feeds: dict[bytes, Feed] = {}
        self._returning: dict[Feed, None] = {}
        self._overfull: dict[Feed, Consumer] = {}
        self._consumers: dict[Consumer, None] = {}
        self._stream: Stream | None = None
        self._reader: threading.Thread | None = None
        self._catch_up = CatchUp(self)
        self._asker = Asker(
            self._space, self._machine, self.changed, self._carry_out, self._poll, self._note, self._fail
        )
        self._wakeup = threading.Event()
        self._waiting = 0
        self._looks: dict[Callable[[], object], None] = {}
        self._closed = False
        """Whether nothing is followed any more."""
        self._let_go = False
        """Whether what it needed was let go as well."""
        self._starved = False
        self._token_expired = False
        self._trouble: LinkKVError | None = None
        atexit.unregister(_close_all)
        atexit.register(_close_all)
        _hubs.add(self)

    def place(self, path: str) -> Place:
        return self._space.place(path)

    # Listening

    def join(self, consumer: Consumer, at: Place, prime: bool) -> None:
        """Let a consumer listen to a place from now on, with its values first when ``prime``.

        Raises `AccessDenied`, or `Unavailable` when etcd cannot be reached in time.
        """
        with self.changed:
            feed = self._live_feed(at)
            consumer.begin(feed.replica.revision, _first(feed.replica) if prime else None)
            self._listen(consumer, feed)

    def join_past(self, consumer: Consumer, at: Place, revision: int) -> None:
        """Let a consumer listen to a place from a past revision on, that revision included.

        Raises `RevisionError` when it was compacted away, or is still to come.
        """
        feed = Feed(at, read_past(self._space, at, revision), start=revision)
        with self.changed:
            consumer.begin(revision - 1, None)
            self._listen(consumer, feed)
            try:
                self._add(feed)
                self._wait_live(feed)
            except BaseException:
                self.leave(consumer)
                raise

    def leave(self, consumer: Consumer) -> None:
        """A consumer listens no more."""
        with self.changed:
            self._consumers.pop(consumer, None)
            feed, consumer.feed = consumer.feed, None
            if feed is not None:
                feed.listeners.pop(consumer, None)
                self._drop_unneeded(feed)

    def resume(self, consumer: Consumer) -> None:
        """A consumer whose queue was full has drained it, and goes on from where it stopped."""
        with self.changed:
            feed = consumer.feed
            if feed is not None and not self._closed:
                self._listen(consumer, feed)
                try:
                    if not self._return(feed):
                        if feed.returns:
                            self._returning[feed] = None
                        self._add(feed)
                except Unavailable as error:
                    self.lose(consumer, feed.at.path, error)

    def mirror(self, at: Place) -> Feed:
        """A feed for a mirror, which ends with `unmirror`."""
        with self.changed:
            feed = self._live_feed(at)
            feed.mirrors += 1
            return feed

    def unmirror(self, feed: Feed) -> None:
        with self.changed:
            feed.mirrors -= 1
            self._drop_unneeded(feed)

    def mirrored(self) -> list[Feed]:
        """The feeds that mirrors read, as far as they are live."""
        if self.pid != os.getpid():
            return []
        with self.changed:
            return [feed for feed in self._feeds.values() if feed.mirrors and feed.live]

    @property
    def mirrors(self) -> int:
        """How many mirrors are open."""
        return sum(feed.mirrors for feed in list(self._feeds.values()))  # a loop may ask, without the lock

    def wait(self, condition: Callable[[], bool], timeout: float | None) -> bool:
        """Wait until a condition on feeds holds, which is evaluated under the lock."""
        with self.changed:
            self._waiting += 1
            try:
                return self.changed.wait_for(condition, timeout)
            finally:
                self._waiting -= 1

    @contextlib.contextmanager
    def looking(self, look: Callable[[], object]) -> Iterator[None]:
        """Have a function called under the lock: now, and whenever a feed moves on."""
        with self.changed:
            self._waiting += 1
            self._looks[look] = None
            look()
        try:
            yield
        finally:
            with self.changed:
                self._waiting -= 1
                del self._looks[look]

    def _moved(self) -> None:
        """Let who waits look again."""
        self.changed.notify_all()
        for look in list(self._looks):
            look()

    def ask_progress(self) -> bool:
        """Have etcd say how far the watches are; whether it can."""
        with self.changed:
            self._run(self._machine.ask_progress())
            return self._machine.bookmarks

    def close(self) -> None:
        """End everything; all who listen are told. May be called twice; does nothing in a forked child."""
        if self.pid != os.getpid():
            return
        with self.changed:
            if self._let_go:
                return
            self._let_go = True
            self._lose_all(Closed("the client was closed"))
            stream, threads = self._stream, (self._reader, self._asker.thread)
        if stream is not None:
            stream.cancel()
        self._asker.close()
        self._let_be_told()
        self.dispatcher.stop()
        run(self._space.caller.close())
        for thread in threads:
            if thread is not None and thread is not threading.current_thread():
                thread.join(2)

    def _let_be_told(self) -> None:
        """Wait until what was scheduled has been begun, so that who has nothing else to take hears it."""
        self.dispatcher.hurry()
        told = threading.Event()
        # No thread begins any more when the interpreter ends.
        if self.dispatcher.workers and self.dispatcher.schedule(told.set):
            told.wait(_TELLING)

    # Feeds

    def _live_feed(self, at: Place) -> Feed:
        """The shared feed of a place, once it is live. Called and left with the lock held."""
        feed = self._feeds.get(at.key)
        if feed is None:
            feed = Feed(at, shared=True)
            self._add(feed)
            self._feeds[at.key] = feed
        feed.joining += 1
        try:
            self._wait_live(feed)
        except BaseException:
            feed.joining -= 1
            self._drop_unneeded(feed)
            raise
        feed.joining -= 1
        return feed

    def _listen(self, consumer: Consumer, feed: Feed) -> None:
        self._consumers[consumer] = None
        consumer.feed = feed
        feed.listeners[consumer] = None

    def _add(self, feed: Feed) -> None:
        if self._closed:
            raise Closed("the client was closed")
        self._run(self._machine.add(feed))
        if self._reader is None:
            self._trouble = None
            reader = threading.Thread(target=self._read, name="link-kv-watch", daemon=True)
            try:
                reader.start()
            except RuntimeError as error:
                self._drop(feed)
                raise Unavailable(f"{feed.at.path}: is not watched: {error}") from None
            self._reader = reader

    def _wait_live(self, feed: Feed) -> None:
        timeout = self._space.caller.config.timeout

        def decided() -> bool:
            final = self._trouble is not None and not isinstance(self._trouble, Unavailable)
            return feed.live or feed.error is not None or final

        self.wait(decided, timeout)
        error = feed.error or self._trouble
        if not feed.live:
            if error is not None and not isinstance(error, Unavailable):
                raise type(error)(*error.args)
            raise Unavailable(f"{feed.at.path}: not watched within {timeout:.3g} s: {error or 'no answer'}")

    def _drop_unneeded(self, feed: Feed) -> None:
        if not (feed.listeners or feed.mirrors or feed.joining or feed.phase is Phase.ENDED):
            self._drop(feed)

    def _drop(self, feed: Feed) -> None:
        """Watch this no more; the stream ends with the last one."""
        if self._feeds.get(feed.at.key) is feed:
            del self._feeds[feed.at.key]
        self._returning.pop(feed, None)
        self._catch_up.drop(feed)
        self._run(self._machine.remove(feed))
        if self._machine.idle:
            self._wakeup.set()
            self._end_stream()

    def _end_stream(self) -> None:
        """End the stream. If there is something to watch by then, another is opened at once."""
        if self._stream is not None:
            self._stream.cancel()

    def _ask_later(self) -> None:
        """No thread could be started for a question. With the next stream, in a while, it is asked again."""
        self._note(logging.WARNING, "no thread could be started for what watches have to read; tried again")
        self._starved = True
        self._end_stream()

    def _lose(self, feed: Feed, error: LinkKVError) -> None:
        """A feed is over: who listens to it or waits for it is told."""
        feed.error = error
        feed.live = False
        listeners = list(feed.listeners)
        feed.listeners.clear()
        self._drop(feed)
        for consumer in listeners:
            consumer.tell("lost", error)
        self._moved()

    def lose(self, consumer: Consumer, path: str, error: Exception) -> None:
        """What came was too much for a consumer, which is over, it alone. With the lock held."""
        self._note(
            logging.ERROR, "%s: a change could not be taken, and no more is told", path, exc_info=error
        )
        self.leave(consumer)
        consumer.tell("lost", LinkKVError(f"{path}: a change could not be taken: {error!r}"))

    def _lose_all(self, error: LinkKVError) -> None:
        self._closed = True
        for watch in self._machine.watches:
            self._lose(watch, error)  # type: ignore[arg-type]
        for consumer in self._consumers:  # those that wait for their queue to drain have no feed there
            consumer.tell("lost", error)

    # Full queues

    def park(self, feed: Feed, consumer: Consumer) -> None:
        """Stop offering to a consumer whose queue is full; it will go on from this revision."""
        feed.listeners.pop(consumer, None)
        # A feed of its own, which has not caught up, is given up, and its replica taken over.
        replica = feed.replica.copy() if feed.shared else feed.replica
        self._drop_unneeded(feed)
        consumer.feed = parked = Feed(feed.at, replica)
        self._consumers[consumer] = None  # a listener of an item was none until now
        parked.continues(feed)
        parked.returns = feed.shared or feed.returns
        consumer.tell("stale")
        level = logging.WARNING if feed.shared else logging.DEBUG  # once, not for each part of the replay
        self._note(
            level,
            "%s: a consumer lags, its queue is full; what comes after revision %d will be replayed",
            feed.at.path,
            replica.revision,
        )

    def _return(self, feed: Feed) -> bool:
        """Let the listener of a feed go back to the shared one, when both stand at the same revision."""
        if not feed.returns:
            return False
        shared = self._feeds.get(feed.at.key)
        if shared is None:
            feed.shared, feed.returns = True, False
            self._feeds[feed.at.key] = feed
            if feed in self._returning:
                del self._returning[feed]
                self._let_catch_up(feed)
            else:
                self._add(feed)
            return True
        if not shared.live or shared.replica.revision != feed.replica.revision:
            return False
        for consumer in feed.listeners:
            self._listen(consumer, shared)
            consumer.tell("live", reconnected=feed.dropped)
        feed.listeners.clear()
        self._drop(feed)
        return True

    # What the state machine wants done; under the lock

    def _run(self, actions: Iterator[Action]) -> None:
        for action in actions:
            self._do(action)

    def _do(self, action: Any) -> None:
        """One action. Every watch here is a `Feed`."""
        kind = type(action)
        if kind is Deliver:
            self._deliver(action.watch, action.batch)
        elif kind is Send:
            if self._stream is not None:
                run(self._stream.send(action.request))
        elif kind is Live:
            action.watch.behind = action.behind
            if action.watch.replays:
                self._went_live(action.watch)
            else:
                self._let_catch_up(action.watch)
        elif kind is Stale:
            self._went_stale(action.watch)
        elif kind is Lost:
            if action.watch.listeners or action.watch.mirrors:  # else who asked for it is told
                self._note(logging.WARNING, "a watch has ended: %s", action.error)
            self._lose(action.watch, action.error)
        elif kind is Restart:
            self._note(logging.INFO, "the watch stream is opened again: %s", action.reason)
            self._end_stream()
        elif not self._asker.ask(action):
            self._ask_later()

    def _deliver(self, feed: Feed, batch: Batch) -> None:
        if batch.synthetic:
            self._note(
                logging.WARNING,
                "%s: history is missing; %d changes up to revision %d were inferred",
                feed.at.path,
                len(batch.changes),
                batch.revision,
            )
        now = time.monotonic()
        for consumer in list(feed.listeners):
            try:
                if consumer.offer(batch, now):
                    continue
            except Exception as error:  # noqa: BLE001 - logged there, and the others go on
                self.lose(consumer, feed.at.path, error)
                continue
            if feed.shared:
                self.park(feed, consumer)
            else:
                # It is being replayed: all of an answer, some 1,000 revisions, rather than a few at a time.
                self._overfull[feed] = consumer

    def _let_catch_up(self, feed: Feed) -> None:
        """A feed is live when it has got all that was missing."""
        if feed.revision >= feed.behind:
            if not feed.live:
                self._went_live(feed)
            return
        if feed.live:
            self._went_stale(feed)
        self._catch_up.add(feed, feed.behind)
        if not self._asker.poll():
            self._ask_later()

    def _went_live(self, feed: Feed) -> None:
        feed.live = True
        feed.replays = False
        for consumer in feed.listeners:
            consumer.tell("live", reconnected=feed.dropped)
        feed.dropped = False
        self._moved()

    def _went_stale(self, feed: Feed) -> None:
        feed.live = False
        feed.compared = 0  # of a history that may have ended
        self._catch_up.drop(feed)
        feed.dropped = feed.dropped or self._stream is None
        for consumer in feed.listeners:
            consumer.tell("stale")
        self._moved()

    def _carry_out(self, actions: Iterator[Action]) -> None:
        """Do what an answer leads to. Then who has caught up goes back, and who waits looks again."""
        for action in actions:
            self._do(action)
        while self._overfull:
            self.park(*self._overfull.popitem())
        self._note_arrivals()
        for feed in list(self._returning):
            if feed.phase is Phase.FOLLOWING:
                self._return(feed)
        if self._waiting:
            self._moved()

    def _note_arrivals(self) -> None:
        if self._catch_up:
            for feed in self._catch_up.arrived():
                self._went_live(feed)

    def _poll(self) -> bool:
        """See how far those are that catch up; whether there are any left."""
        self._catch_up.poll()
        with self.changed:
            self._note_arrivals()
            return bool(self._catch_up) and not self._closed

    def _note(
        self,
        level: int,
        message: str,
        *values: Any,
        exc_info: BaseException | None = None,
        logger: logging.Logger = log,
    ) -> None:
        """Log, in a thread that may run the handlers of users."""
        if logger.isEnabledFor(level):
            self.dispatcher.schedule(lambda: logger.log(level, message, *values, exc_info=exc_info))

    # The thread that reads

    def _read(self) -> None:
        failures = 0
        try:
            while self._wanted():
                since = time.monotonic()
                failures = self._follow(failures)
                if time.monotonic() - since > _STEADY:
                    failures = 1
                patience = max(1, len(self._space.caller.config.endpoints))
                if self._starved:
                    self._starved, failures = False, patience + 5  # the longest pause
                if failures > patience:
                    pause = min(_LONGEST_PAUSE, 0.02 * 2 ** min(failures - patience, 10))
                    self._wakeup.wait(random.uniform(0.5, 1) * pause)
        except BaseException as error:  # noqa: BLE001 - logged there
            with self.changed:
                self._reader = None
                self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """A thread has failed without which nothing here goes on."""
        with self.changed:
            name = threading.current_thread().name
            self._note(
                logging.ERROR, "the thread %s has failed: no change comes any more", name, exc_info=error
            )
            self._lose_all(LinkKVError(f"the thread {name} has failed, as the log says: {error!r}"))

    def _wanted(self) -> bool:
        with self.changed:
            self._wakeup.clear()
            if self._machine.idle or self._closed:
                self._reader = None
                return False
            return True

    def _follow(self, failures: int) -> int:
        """Open a stream and read it to its end; how many attempts have failed in a row now."""
        caller = self._space.caller
        endpoint, stream = "", None
        try:
            if self._token_expired:
                run(caller.renew_token())
                self._token_expired = False
            bookmarks = self._has_bookmarks()
            endpoint, stream = run(caller.open(WATCH))
            with self.changed:
                if self._machine.idle or self._closed:
                    return 0
                self._stream, self._trouble = stream, None
                self._run(self._machine.opened(bookmarks=bookmarks))
            if failures:
                self._note(logging.INFO, "watching again, through %s", endpoint)
            failures = 0
            while True:
                response = run(stream.receive())
                with self.changed:
                    self._carry_out(self._machine.received(response))
        except (WireFailure, LinkKVError) as error:
            self._failed(endpoint, error, failures)
        finally:
            if stream is not None:
                stream.cancel()
            with self.changed:
                self._stream = None
                self._run(self._machine.closed())
        return failures + 1

    def _has_bookmarks(self) -> bool:
        """Whether the server's progress notifications are to be relied on. Asking finds one that answers."""
        caller = self._space.caller
        # Who waits for a watch waits a little longer than this, so as to be told the reason.
        deadline = time.monotonic() + 0.9 * caller.config.timeout
        run(caller.token())
        try:
            status = run(caller.call(STATUS, b"", deadline=deadline, each=EACH))
        except AccessDenied:
            return True  # only newer ones tell their version to administrators alone
        return _version(status.version) >= _BOOKMARKS_SINCE

    def _failed(self, endpoint: str, error: WireFailure | LinkKVError, failures: int) -> None:
        if isinstance(error, WireFailure) and error.code == CANCELLED:
            return  # by us, or by a fork
        with self.changed:
            if self._closed or self._machine.idle:
                return
        if isinstance(error, WireFailure):
            self._space.caller.avoid(endpoint)
            self._token_expired = meaning(error) is Meaning.STALE_TOKEN
            error = Unavailable(describe(error, (endpoint,)))
        level = logging.DEBUG if failures else logging.WARNING
        self._note(level, "watching is interrupted, and tried again: %s", error)
        with self.changed:
            self._trouble = error
            self.changed.notify_all()


def _first(replica: Replica) -> Batch:
    """The values that are there, as changes, in the order of their writes."""
    changes = [
        Change(held.path, value_of(held), MISSING, held.revision, "put")
        for _, held in replica.leaves()
        if held.path is not None
    ]
    changes.sort(key=lambda change: change.revision)
    return Batch(replica.revision, changes, list(replica.hidden()))


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text)[:3])


_hubs: Living[Hub] = Living()


def _close_all() -> None:
    """End the streams before the interpreter takes their threads away."""
    for hub in _hubs:
        hub.close()
