"""What is said on a stream of watches, and what the answers mean.

Pure: no threads, no clock, no I/O. A `Machine` is told what happened (the stream opened, an answer came, a
range was read) and yields what is to be done, one action at a time. Its host carries out each action before
it asks for the next, so at a `Deliver` the watch's replica stands exactly at that revision.

The rules, and where they come from, are in ``docs/decisions/0006-how-a-watch-loses-nothing.md``.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from link_kv._core.watching.replica import Batch, Event, Held, Replica
from link_kv._core.wire.requests import field, varint
from link_kv.errors import AccessDenied, LinkKVError, RevisionError
from link_kv.tree import Place

LONG_GAP = 20_000
"""Over more revisions than this, a watch that need not keep all history reads instead of replaying."""

_BROADCAST = -1
"""The watch id of an answer that is for all watches."""


class Phase(enum.Enum):
    """How far a watch is."""

    QUEUED = "waits for its request to be sent"
    CHECKING = "the host asks whether the cluster still has the history that it knows"
    CREATING = "its request was sent"
    ASKING = "was refused, and the host asks whether that is right"
    LOADING = "is open, and the range is being read"
    FOLLOWING = "every revision comes"
    ENDED = "closed or lost"


class Watch:
    """A range that is followed, over as many streams as it takes.

    Args:
        at: the place; its own key and all below it are watched.
        replica: what is known of it, to go on from; None to begin with reading it.
        start: the first revision wanted of a past that is replayed, when `replica` is of the one before.
    """

    def __init__(self, at: Place, replica: Replica | None = None, *, start: int = 0) -> None:
        self.at = at
        self.replica = Replica(at) if replica is None else replica
        self.phase = Phase.QUEUED
        self.turn = 0
        """Counts the attempts: an answer to a question of an earlier attempt is void."""
        self._past = start > 0
        self._start = start or self.replica.revision
        self._unread = not self._start
        self._id: int | None = None
        self._lineage: int | None = None
        self._cluster = self._new_cluster = 0
        self._refused = 0
        self._opened_at = self._asked_before = 0
        self._waiting: list[Sequence[Any]] = []
        self._parts: list[Any] = []

    @property
    def history(self) -> bool:
        """Whether every revision counts; else a long gap is read instead of replayed."""
        return True

    def continues(self, other: Watch) -> None:
        """It has taken over another's replica, and with it what is known of the history behind that."""
        self._lineage = other._lineage
        self._cluster = other._cluster

    @property
    def range(self) -> tuple[bytes, bytes]:
        """The keys that etcd is asked for: one range, so that a revision arrives whole, siblings included."""
        return (self.at.key if self.at.segments else self.at.marker), self.at.end


class Send(NamedTuple):
    """Send this on the stream."""

    request: bytes


class Deliver(NamedTuple):
    """A revision has been applied to the watch's replica."""

    watch: Watch
    batch: Batch


class Live(NamedTuple):
    """The watch is open, and follows."""

    watch: Watch
    behind: int = 0
    """The revision up to which something may still be missing, and will come; 0 when nothing is."""


class Stale(NamedTuple):
    """The watch no longer follows, and tries to."""

    watch: Watch


class Lost(NamedTuple):
    """The watch has ended."""

    watch: Watch
    error: LinkKVError


class Load(NamedTuple):
    """Read the range now, and tell `Machine.loaded`."""

    watch: Watch
    turn: int


class Check(NamedTuple):
    """Read at the revision of the watch's replica, and tell `Machine.checked` whether this was there.

    One key with its value and the revision of its write; or else nothing at all in the range.
    """

    watch: Watch
    turn: int
    known: tuple[bytes, Held] | None


class Ask(NamedTuple):
    """Ask by a call whether the range may be read, and tell `Machine.asked`."""

    watch: Watch
    turn: int
    reason: str


class Restart(NamedTuple):
    """End the stream and open another."""

    reason: str


Question = Load | Check | Ask
Action = Send | Deliver | Live | Stale | Lost | Question | Restart


class Machine:
    """The watches of one stream. Not thread-safe: the host has a lock."""

    def __init__(self) -> None:
        self._watches: dict[Watch, None] = {}
        self._queue: deque[Watch] = deque()
        self._creating: Watch | None = None
        """The watch that is being opened: one at a time, since a refusal has no id."""
        self._by_id: dict[int, Watch] = {}
        self._last_id = 0
        """Ids are chosen here, from 1 on. Without one, 3.5.1 refuses a watch under the id 0, and from then on
        sends no event any more to the watch that really has it."""
        self._open = False
        self.bookmarks = False
        """Whether the progress notifications of the server in use can be relied on."""
        self._asked = self._told = 0
        """How often this stream was asked how far all watches are, and has said so."""
        self._lineage = 0
        """Counts the histories that clusters turned out to have, for those who go on from an older one."""
        self._compared = False

    @property
    def idle(self) -> bool:
        """Whether there is nothing to watch."""
        return not self._watches

    @property
    def watches(self) -> list[Watch]:
        """All that are followed, or will be."""
        return list(self._watches)

    # What the host tells

    def add(self, watch: Watch) -> Iterator[Action]:
        """Follow a range."""
        self._watches[watch] = None
        self._queue.append(watch)
        yield from self._create_next()

    def remove(self, watch: Watch) -> Iterator[Action]:
        """Follow it no more."""
        self._watches.pop(watch, None)
        if watch.phase is Phase.CHECKING:
            self._creating = None
        watch.phase = Phase.ENDED
        watch.turn += 1
        yield from self._cancel(watch)
        yield from self._create_next()

    def opened(self, *, bookmarks: bool) -> Iterator[Action]:
        """A stream is open. ``bookmarks``: whether this server's progress notifications can be relied on."""
        self._open = True
        self._last_id = 0
        self._compared = False
        self._asked = self._told = 0
        self.bookmarks = bookmarks
        yield from self._create_next()

    def closed(self) -> Iterator[Action]:
        """The stream has ended. Every watch goes on, on the next one."""
        self._open = False
        self._creating = None
        self._by_id.clear()
        self._queue.clear()
        # First what tells one history from another: the newest revision of those that know any key.
        for watch in sorted(self._watches, key=lambda each: (each.replica.empty, -each.replica.revision)):
            watch._id = None
            yield from self._again(watch)

    def loaded(
        self, watch: Watch, turn: int, revision: int, pairs: Iterable[tuple[bytes, bytes, int]]
    ) -> Iterator[Action]:
        """The range was read, after `Load` asked for it: keys, values, revisions of their last writes."""
        if turn != watch.turn or watch.phase is not Phase.LOADING:
            return
        first = not watch.replica.revision
        watch._unread = False
        batch = watch.replica.load(revision, pairs)
        if not first:
            yield Deliver(watch, batch)
        yield from self._follow(watch)

    def checked(self, watch: Watch, turn: int, same: bool) -> Iterator[Action]:
        """What `Check` asked for was there, or history has been replaced: a wiped or a restored server.

        Where it was compacted away it counts as the same; the watch itself will be told of the compaction.
        """
        if turn != watch.turn or watch.phase is not Phase.CHECKING or not self._open:
            return
        if same:
            self._compared = True
            watch._lineage = self._lineage
        elif watch._past:
            error = RevisionError(f"{watch.at.path}: etcd's history before {watch._start} has been replaced")
            yield from self.failed(watch, turn, error)
            return
        else:
            if watch._lineage == self._lineage:
                self._lineage += 1
            watch._unread = True
            watch._start = 0
        yield self._create(watch)

    def asked(self, watch: Watch, turn: int, error: LinkKVError | None, reason: str = "") -> Iterator[Action]:
        """The range may be read, or the error says why not.

        Where it may, the stream's token had expired, which etcd tells in the same words as a denial.
        """
        if turn != watch.turn or watch.phase is not Phase.ASKING:
            return
        watch._refused += 1
        if error is None and watch._refused > 1:
            error = AccessDenied(f"{watch.at.path}: etcd refuses to watch it: {reason}")
        if error is not None:
            yield from self.failed(watch, turn, error)
        else:
            yield from self._again(watch)
            yield from self._restart("the login has expired")

    def failed(self, watch: Watch, turn: int, error: LinkKVError) -> Iterator[Action]:
        """A question was answered by an error that will not pass."""
        if turn != watch.turn or watch.phase is Phase.ENDED:
            return
        yield from self.remove(watch)
        yield Lost(watch, error)

    def ask_progress(self) -> Iterator[Action]:
        """Have the server say how far all watches are, where what it says can be relied on."""
        if self.bookmarks:
            self._asked += 1
            yield Send(PROGRESS_REQUEST)

    def received(self, response: Any) -> Iterator[Action]:
        """An answer came on the stream, a ``WatchResponse``."""
        events = response.events
        if events:
            watch = self._by_id.get(response.watch_id)
            if watch is None:
                return  # of a watch that was cancelled meanwhile
            if response.fragment:
                watch._parts += events
                return
            if watch._parts:
                events, watch._parts = [*watch._parts, *events], []
            if watch.phase is Phase.FOLLOWING:
                yield from self._apply(watch, events)
            else:
                watch._waiting.append(events)
        elif response.created:
            yield from self._created(response)
        elif response.canceled:
            yield from self._canceled(response)
        elif self.bookmarks:
            self._progress(response.watch_id, response.header.revision)

    # How a watch is opened

    def _create_next(self) -> Iterator[Action]:
        while self._open and self._creating is None and self._queue:
            watch = self._queue.popleft()
            if watch.phase is not Phase.QUEUED:
                continue
            self._creating = watch
            compared = self._compared and watch._lineage == self._lineage
            if compared or watch._unread or not watch.replica.revision:
                yield self._create(watch)
            else:
                watch.phase = Phase.CHECKING
                yield Check(watch, watch.turn, watch.replica.newest())

    def _create(self, watch: Watch) -> Action:
        watch.phase = Phase.CREATING
        watch._asked_before = self._asked
        self._last_id += 1
        return Send(create_request(*watch.range, watch._start, self._last_id))

    def _created(self, response: Any) -> Iterator[Action]:
        watch, self._creating = self._creating, None
        if watch is None:
            return
        if watch.phase is Phase.ENDED:
            if not response.canceled:
                yield Send(cancel_request(response.watch_id))
        elif response.canceled and response.compact_revision:
            yield from self._compacted(watch, response.compact_revision)
        elif response.canceled:
            watch.phase = Phase.ASKING
            yield Ask(watch, watch.turn, response.cancel_reason)
            return  # the others would be refused as well, if it is the token
        else:
            watch._id = response.watch_id
            self._by_id[response.watch_id] = watch
            watch._refused = 0
            yield from self._opened_watch(watch, response.header)
        yield from self._create_next()

    def _opened_watch(self, watch: Watch, header: Any) -> Iterator[Action]:
        watch._opened_at = header.revision
        other = watch._cluster not in (0, header.cluster_id)
        watch._new_cluster = header.cluster_id
        if watch._unread:
            watch.phase = Phase.LOADING
            yield Load(watch, watch.turn)
        elif other or (not watch.history and header.revision - watch.replica.revision > LONG_GAP):
            yield from self._read_again(watch)
        else:
            yield from self._follow(watch, header.revision)

    def _follow(self, watch: Watch, revision: int = 0) -> Iterator[Action]:
        watch.phase = Phase.FOLLOWING
        watch._cluster = watch._new_cluster
        watch._lineage = self._lineage
        yield Live(watch, revision if revision > watch.replica.revision else 0)
        waiting, watch._waiting = watch._waiting, []
        for events in waiting:
            yield from self._apply(watch, events)

    # How it goes on

    def _apply(self, watch: Watch, events: Sequence[Any]) -> Iterator[Action]:
        """Take over each revision, whole; what is known already comes again after a resumption."""
        replica = watch.replica
        for revision, group in _revisions(events):
            if revision > replica.revision and watch.phase is Phase.FOLLOWING:
                watch._past = False
                yield Deliver(watch, replica.apply(revision, group))

    def _progress(self, watch_id: int, revision: int) -> None:
        """All up to a revision has been sent to a watch, or to all.

        To all that were open when it was said: etcd sends that word and creations by two ways, and either may
        come first. An answer is to one of the requests, not all of which are answered, and the answers are in
        their order. So it is to a request after a creation when as many answers have come as were asked for
        before, and one more; or else it must be beyond the revision at which the watch was opened. Of a watch
        that is open and has not got all yet etcd says nothing, and nothing of all then.
        """
        watch = self._by_id.get(watch_id)
        watches = [] if watch is None else [watch]
        if watch_id == _BROADCAST:
            self._told += 1
            watches = [
                each
                for each in self._by_id.values()
                if revision > each._opened_at or self._told > each._asked_before
            ]
        for watch in watches:
            if watch.phase is Phase.FOLLOWING and not watch._parts and revision > watch.replica.revision:
                watch._past = False
                watch.replica.revision = revision

    def _canceled(self, response: Any) -> Iterator[Action]:
        watch = self._by_id.pop(response.watch_id, None)
        if watch is None:
            return  # our own cancel, confirmed
        watch._id = None
        if response.compact_revision:
            yield from self._compacted(watch, response.compact_revision)
        else:
            # The stream goes with it, so that the next attempt waits, and has a new token.
            yield from self._again(watch)
            yield from self._restart(f"etcd cancelled a watch: {response.cancel_reason or 'no reason given'}")

    def _compacted(self, watch: Watch, revision: int) -> Iterator[Action]:
        if watch._past:
            error = RevisionError(f"{watch.at.path}: history before revision {revision} was compacted away")
            yield from self.failed(watch, watch.turn, error)
        else:
            yield from self._read_again(watch)

    def _read_again(self, watch: Watch) -> Iterator[Action]:
        """Watch from now on, and read what has changed until then."""
        watch._unread = True
        yield from self._cancel(watch)
        yield from self._again(watch)
        yield from self._create_next()

    def _again(self, watch: Watch) -> Iterator[Action]:
        """Back to the queue.

        It asks for the last revision once more. Up to 3.5.15 a server that was compacted at exactly the first
        revision asked for leaves out deletes there; asked for one less, it says that it was compacted.
        """
        was, watch.phase = watch.phase, Phase.QUEUED
        watch.turn += 1
        watch._waiting, watch._parts = [], []
        if not watch._past:
            watch._start = 0 if watch._unread else watch.replica.revision
        self._queue.append(watch)
        if was is Phase.FOLLOWING:
            yield Stale(watch)

    def _restart(self, reason: str) -> Iterator[Action]:
        self._open = False
        yield Restart(reason)

    def _cancel(self, watch: Watch) -> Iterator[Action]:
        if watch._id is not None:
            del self._by_id[watch._id]
            yield Send(cancel_request(watch._id))
            watch._id = None


def _revisions(events: Sequence[Any]) -> list[tuple[int, list[Event]]]:
    """Events by their revisions, in order."""
    found: list[tuple[int, list[Event]]] = []
    last = 0
    for event in events:
        kv = event.kv
        revision = kv.mod_revision
        if revision != last:
            group: list[Event] = []
            found.append((revision, group))
            last = revision
        group.append((kv.key, None if event.type else kv.value))
    return found


PROGRESS_REQUEST = b"\x1a\0"
"""A WatchRequest that asks how far the watches of the stream are. etcd answers once all have caught up."""


def create_request(start: bytes, end: bytes, revision: int, watch_id: int) -> bytes:
    """A WatchRequest that opens a watch over [start, end), with progress notifications, in fragments."""
    create = field(b"\x0a", start) + field(b"\x12", end)
    if revision:
        create += b"\x18" + varint(revision)
    return field(b"\x0a", create + b"\x20\x01\x38" + varint(watch_id) + b"\x40\x01")


def cancel_request(watch_id: int) -> bytes:
    """A WatchRequest that ends a watch."""
    return field(b"\x12", b"\x08" + varint(watch_id))
