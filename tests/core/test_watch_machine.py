"""The watch machine without a server: on answers as etcd gives them, and against a small etcd in memory."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

from link_kv._core.revived import messages
from link_kv._core.watching.replica import Held, Replica
from link_kv._core.watching.watch_machine import (
    LONG_GAP,
    Ask,
    Check,
    Deliver,
    Live,
    Load,
    Lost,
    Machine,
    Phase,
    Restart,
    Send,
    Stale,
    Watch,
)
from link_kv.errors import AccessDenied, RevisionError
from link_kv.tree import MISSING, place

CLUSTER = 0xC1
PERMISSION_DENIED = "etcdserver: permission denied"


class Newest(Watch):
    """A watch that does not keep all history."""

    @property
    def history(self) -> bool:
        return False


class Host:
    """Does what a machine asks for, except that the test answers its questions."""

    def __init__(self) -> None:
        self.machine = Machine()
        self.done: list[Any] = []
        self.sent: list[Any] = []

    def run(self, actions: Iterator[Any]) -> list[Any]:
        """Carry out; the actions that the machine wanted, other than sending."""
        news = []
        for action in actions:
            if isinstance(action, Send):
                self.sent.append(messages().WatchRequest.FromString(action.request))
            else:
                if isinstance(action, Deliver):
                    assert action.watch.replica.revision == action.batch.revision
                news.append(action)
        self.done += news
        return news

    def open(self, *, bookmarks: bool = False) -> list[Any]:
        self.sent.clear()
        return self.run(self.machine.opened(bookmarks=bookmarks))

    def add(self, watch: Watch) -> list[Any]:
        return self.run(self.machine.add(watch))

    def answer(self, **fields: Any) -> list[Any]:
        return self.run(self.machine.received(answer(**fields)))

    def load(self, watch: Watch, revision: int, *pairs: tuple[bytes, bytes, int]) -> list[Any]:
        return self.run(self.machine.loaded(watch, watch.turn, revision, pairs))

    def created(self) -> list[tuple[bytes, int]]:
        """The watches asked for: start of the range and first revision."""
        return [
            (request.create_request.key, request.create_request.start_revision)
            for request in self.sent
            if request.HasField("create_request")
        ]

    def cancelled(self) -> list[int]:
        return [
            request.cancel_request.watch_id for request in self.sent if request.HasField("cancel_request")
        ]


def answer(
    watch_id: int = 0, revision: int = 0, events: Any = (), *, cluster: int = CLUSTER, **fields: Any
) -> Any:
    m = messages()
    return m.WatchResponse(
        header=m.ResponseHeader(revision=revision, cluster_id=cluster),
        watch_id=watch_id,
        events=[
            m.Event(
                type=m.Event.DELETE if value is None else m.Event.PUT,
                kv=m.KeyValue(key=key, mod_revision=mod, value=value or b""),
            )
            for mod, key, value in events
        ],
        **fields,
    )


def delivered(actions: list[Any]) -> list[tuple[int, list[tuple[str, Any]], bool]]:
    return [
        (
            action.batch.revision,
            [(change.path, change.value) for change in action.batch.changes],
            action.batch.synthetic,
        )
        for action in actions
        if isinstance(action, Deliver)
    ]


def kinds(actions: list[Any]) -> list[type]:
    return [type(action) for action in actions]


def following(path: str = "/a", revision: int = 10, kind: type[Watch] = Watch) -> tuple[Host, Watch]:
    """A watch that follows from a revision on, in which /a/x is 1."""
    host, watch = Host(), kind(place(path))
    host.add(watch)
    host.open()
    host.answer(revision=revision, created=True)
    key = path.encode() + b"/x"
    assert kinds(host.load(watch, revision, (key, b"1", revision))) == [Live]
    host.sent.clear()
    return host, watch


def reconnect(host: Host, *, same: bool = True, bookmarks: bool = False) -> None:
    """Another stream, to a cluster with the same history or another."""
    host.run(host.machine.closed())
    actions = host.open(bookmarks=bookmarks)
    if actions:
        (check,) = actions
        assert host.created() == []
        assert host.run(host.machine.checked(check.watch, check.turn, same)) == []


def reopen(host: Host, revision: int, *, same: bool = True, **fields: Any) -> list[Any]:
    reconnect(host, same=same)
    return host.answer(revision=revision, created=True, **fields)


# Beginning


def test_it_watches_first_and_reads_then() -> None:
    host, watch = Host(), Watch(place("/a"))
    assert host.add(watch) == []
    assert host.sent == []
    assert host.open() == []
    request = host.sent[0].create_request
    assert (request.key, request.range_end, request.start_revision) == (b"/a", b"/a0", 0)
    assert request.fragment
    assert request.progress_notify
    assert request.watch_id == 1
    assert host.answer(revision=10, created=True) == [Load(watch, watch.turn)]
    # What comes before the range was read is kept, and dropped where the reading has it already.
    events = [(11, b"/a/x", b"1"), (12, b"/a/x", b"2")]
    assert host.answer(revision=12, events=events) == []
    assert host.answer(revision=13, events=[(13, b"/a/y", b"3")]) == []
    actions = host.load(watch, 12, (b"/a/x", b"2", 12))
    assert kinds(actions) == [Live, Deliver]
    assert delivered(actions) == [(13, [("/a/y", 3)], False)]


def test_the_root_of_a_namespace_is_watched_within_it() -> None:
    host = Host()
    host.add(Watch(place("/", b"/ns")))
    host.open()
    request = host.sent[0].create_request
    assert (request.key, request.range_end) == (b"/ns/", b"/ns0")


def test_one_watch_is_asked_for_at_a_time() -> None:
    host = Host()
    watches = [Watch(place(path)) for path in ("/a", "/b", "/c")]
    for watch in watches:
        host.add(watch)
    host.open()
    assert host.created() == [(b"/a", 0)]
    host.answer(watch_id=7, revision=5, created=True)
    assert host.created() == [(b"/a", 0), (b"/b", 0)]
    host.answer(watch_id=3, revision=5, created=True)
    host.answer(watch_id=4, revision=5, created=True)
    for watch in watches:
        host.load(watch, 5)
    actions = host.answer(watch_id=3, revision=6, events=[(6, b"/b/x", b"1")])
    assert [action.watch for action in actions] == [watches[1]]


def test_a_closed_watch_is_cancelled_and_its_late_events_are_dropped() -> None:
    host, watch = following()
    assert host.run(host.machine.remove(watch)) == []
    assert host.cancelled() == [0]
    assert host.answer(revision=11, events=[(11, b"/a/x", b"2")]) == []
    assert host.answer(revision=11, canceled=True) == []
    assert host.machine.idle


def test_a_watch_closed_while_it_is_opened_is_cancelled_when_it_has_an_id() -> None:
    host, watch, other = Host(), Watch(place("/a")), Watch(place("/b"))
    host.add(watch)
    host.add(other)
    host.open()
    host.run(host.machine.remove(watch))
    assert host.cancelled() == []
    assert host.answer(watch_id=5, revision=9, created=True) == []
    assert host.cancelled() == [5]
    assert host.answer(watch_id=6, revision=9, created=True) == [Load(other, other.turn)]


# Events


def test_each_revision_is_delivered_whole_and_alone() -> None:
    host, watch = following()
    events = [(11, b"/a/x", b"2"), (11, b"/a/y", b"3"), (12, b"/a-b", b"0"), (13, b"/a/x", None)]
    assert delivered(host.answer(revision=13, events=events)) == [
        (11, [("/a/x", 2), ("/a/y", 3)], False),
        (12, [], False),
        (13, [("/a/x", MISSING)], False),
    ]
    assert watch.replica.revision == 13


def test_fragments_are_joined() -> None:
    host, watch = following()
    assert host.answer(revision=12, events=[(11, b"/a/x", b"2"), (12, b"/a/x", b"3")], fragment=True) == []
    assert watch.replica.revision == 10
    assert host.answer(revision=12, events=[(12, b"/a/y", b"4")], fragment=True) == []
    actions = host.answer(revision=12, events=[(12, b"/a/z", b"5")])
    assert delivered(actions) == [
        (11, [("/a/x", 2)], False),
        (12, [("/a/x", 3), ("/a/y", 4), ("/a/z", 5)], False),
    ]


def test_a_revision_whose_last_fragment_is_missing_comes_again() -> None:
    host, _ = following()
    host.answer(revision=11, events=[(11, b"/a/x", b"2")], fragment=True)
    assert kinds(reopen(host, 11)) == [Live]
    assert host.created() == [(b"/a", 10)]
    whole = [(10, b"/a/x", b"1"), (11, b"/a/x", b"2"), (11, b"/a/y", b"3")]
    assert delivered(host.answer(revision=11, events=whole)) == [(11, [("/a/x", 2), ("/a/y", 3)], False)]


def test_fragments_of_two_watches_do_not_mix() -> None:
    host, one = following("/a")
    two = Watch(place("/b"))
    host.add(two)
    host.answer(watch_id=1, revision=10, created=True)
    host.load(two, 10)
    host.answer(watch_id=0, revision=11, events=[(11, b"/a/x", b"2")], fragment=True)
    assert delivered(host.answer(watch_id=1, revision=11, events=[(11, b"/b/x", b"3")])) == [
        (11, [("/b/x", 3)], False)
    ]
    assert delivered(host.answer(watch_id=0, revision=11, events=[(11, b"/a/y", b"4")])) == [
        (11, [("/a/x", 2), ("/a/y", 4)], False)
    ]
    assert one.replica.revision == 11


def test_a_watch_that_is_closed_between_two_revisions_gets_no_more() -> None:
    host, watch = following()
    actions = host.machine.received(answer(revision=12, events=[(11, b"/a/x", b"2"), (12, b"/a/x", b"3")]))
    assert isinstance(next(actions), Deliver)
    host.run(host.machine.remove(watch))
    assert list(actions) == []
    assert watch.replica.revision == 11


# The stream ends


def test_it_resumes_at_its_last_revision_and_drops_what_it_knows() -> None:
    host, watch = following()
    host.answer(revision=11, events=[(11, b"/a/x", b"2")])
    assert host.run(host.machine.closed()) == [Stale(watch)]
    assert kinds(host.open()) == [Check]
    assert host.created() == []
    assert host.run(host.machine.checked(watch, watch.turn, True)) == []
    assert host.created() == [(b"/a", 11)]
    assert host.answer(revision=12, created=True) == [Live(watch, behind=12)]
    actions = host.answer(revision=12, events=[(11, b"/a/x", b"2"), (12, b"/a/x", b"3")])
    assert delivered(actions) == [(12, [("/a/x", 3)], False)]


def test_a_reading_that_the_stream_did_not_outlive_is_void() -> None:
    host, watch = Host(), Watch(place("/a"))
    host.add(watch)
    host.open()
    (load,) = host.answer(revision=10, created=True)
    host.run(host.machine.closed())
    host.open()
    assert host.run(host.machine.loaded(watch, load.turn, 10, [])) == []
    assert host.answer(revision=12, created=True) == [Load(watch, watch.turn)]
    assert kinds(host.load(watch, 12)) == [Live]


def test_what_was_queued_and_what_was_opened_is_opened_again() -> None:
    host, watch = following("/a")
    other = Watch(place("/b"))
    host.add(other)  # its answer never comes
    reconnect(host)
    host.answer(watch_id=0, revision=10, created=True)
    assert host.created() == [(b"/a", 10), (b"/b", 0)]
    assert host.answer(watch_id=1, revision=10, created=True) == [Load(other, other.turn)]
    assert watch.phase is Phase.FOLLOWING


# Compaction


def test_compacted_history_is_made_up_for_by_reading() -> None:
    host, watch = following()
    assert reopen(host, 90) == [Live(watch, behind=90)]
    # As recorded: no revision in the header, and no reason.
    assert host.answer(watch_id=0, revision=0, canceled=True, compact_revision=80) == [Stale(watch)]
    assert host.created() == [(b"/a", 10), (b"/a", 0)]
    assert host.answer(watch_id=1, revision=90, created=True) == [Load(watch, watch.turn)]
    assert host.answer(watch_id=1, revision=92, events=[(91, b"/a/z", b"4"), (92, b"/a/z", b"5")]) == []
    actions = host.load(watch, 91, (b"/a/y", b"3", 85), (b"/a/z", b"4", 91))
    assert kinds(actions) == [Deliver, Live, Deliver]
    assert delivered(actions) == [
        (91, [("/a/y", 3), ("/a/z", 4), ("/a/x", MISSING)], True),
        (92, [("/a/z", 5)], False),
    ]
    assert [change.revision for change in actions[0].batch.changes] == [85, 91, 91]


def test_a_gap_is_told_even_when_nothing_differs() -> None:
    host, watch = following()
    host.answer(canceled=True, compact_revision=80)
    host.answer(watch_id=1, revision=90, created=True)
    assert delivered(host.load(watch, 90, (b"/a/x", b"1", 10))) == [(90, [], True)]


def test_the_reading_after_a_compaction_is_not_forgotten_over_another_disconnect() -> None:
    host, watch = following()
    host.answer(canceled=True, compact_revision=80)
    host.answer(watch_id=1, revision=90, created=True)
    assert reopen(host, 95) == [Load(watch, watch.turn)]
    assert host.created() == [(b"/a", 0)]


def test_a_past_that_was_compacted_is_an_error() -> None:
    host = Host()
    replica = Replica(place("/a"))
    replica.load(4, [])
    watch = Watch(place("/a"), replica, start=5)
    host.add(watch)
    reconnect(host)
    assert host.created() == [(b"/a", 5)]
    assert host.answer(revision=90, created=True) == [Live(watch, behind=90)]
    (lost,) = host.answer(canceled=True, compact_revision=80)
    assert isinstance(lost.error, RevisionError)
    assert "80" in str(lost.error)
    assert host.machine.idle


def test_a_past_is_replayed_from_its_first_revision() -> None:
    host = Host()
    replica = Replica(place("/a"))
    replica.load(4, [(b"/a/x", b"1", 2)])
    watch = Watch(place("/a"), replica, start=5)
    host.add(watch)
    reconnect(host)
    host.answer(revision=6, created=True)
    actions = host.answer(revision=6, events=[(5, b"/a/x", b"2"), (6, b"/a/x", b"3")])
    assert [action.batch.changes[0].previous for action in actions] == [1, 2]
    # From then on it is a watch like any other.
    assert host.answer(canceled=True, compact_revision=80) == [Stale(watch)]


def test_a_past_in_which_nothing_happened_is_over_with_the_word_on_progress() -> None:
    host = Host()
    replica = Replica(place("/a"))
    replica.load(4, [])
    watch = Watch(place("/a"), replica, start=5)
    host.add(watch)
    reconnect(host, bookmarks=True)
    host.answer(revision=9, created=True)
    host.answer(revision=9)
    reopen(host, 90)
    assert host.created() == [(b"/a", 9)]
    assert host.answer(canceled=True, compact_revision=80) == [Stale(watch)]


@pytest.mark.parametrize("kind", [Watch, Newest])
def test_a_long_gap_is_read_unless_all_history_counts(kind: type[Watch]) -> None:
    host, watch = following(kind=kind)
    actions = reopen(host, 10 + LONG_GAP + 1)
    if kind is Watch:
        assert actions == [Live(watch, behind=11 + LONG_GAP)]
    else:
        assert actions == []
        assert host.cancelled() == [0]
        assert host.created() == [(b"/a", 10), (b"/a", 0)]
        assert host.answer(watch_id=1, revision=50_000, created=True) == [Load(watch, watch.turn)]
    host, watch = following(kind=kind)
    assert reopen(host, 10 + LONG_GAP) == [Live(watch, behind=10 + LONG_GAP)]


# Another history


@pytest.mark.parametrize("revision", [1, 3, 60])
def test_a_wiped_server_is_noticed_however_far_it_has_come_since(revision: int) -> None:
    host, watch = following(revision=52)
    host.run(host.machine.closed())
    (check,) = host.open()
    assert check == Check(watch, watch.turn, (b"/a/x", Held(b"1", 52, "/a/x", False)))
    assert host.run(host.machine.checked(watch, watch.turn, False)) == []
    assert host.created() == [(b"/a", 0)]
    assert host.answer(revision=revision, created=True) == [Load(watch, watch.turn)]
    actions = host.load(watch, revision, (b"/a/y", b"2", revision))
    assert kinds(actions) == [Deliver, Live]
    assert delivered(actions) == [(revision, [("/a/y", 2), ("/a/x", MISSING)], True)]
    more = [(revision + 1, b"/a/y", b"3")]
    assert delivered(host.answer(revision=revision + 1, events=more)) == [
        (revision + 1, [("/a/y", 3)], False)
    ]


def test_a_member_that_is_behind_is_no_wiped_server() -> None:
    host, _ = following(revision=52)
    assert kinds(reopen(host, 50)) == [Live]
    # Up to 3.5.21 a watch from a revision to come sent older events.
    actions = host.answer(revision=53, events=[(51, b"/a/x", b"0"), (53, b"/a/x", b"2")])
    assert delivered(actions) == [(53, [("/a/x", 2)], False)]


def test_a_wiped_server_is_not_forgotten_over_another_disconnect() -> None:
    host, watch = following(revision=52)
    assert kinds(reopen(host, 1, same=False)) == [Load]
    # There is nothing to compare any more: it has to be read.
    assert reopen(host, 60) == [Load(watch, watch.turn)]


def test_one_comparison_is_enough_for_all_that_were_followed_together() -> None:
    host, watch = following("/a", 10)
    empty, other = Watch(place("/empty")), Watch(place("/b"))
    for number, each in enumerate((empty, other), 1):
        host.add(each)
        host.answer(watch_id=number, revision=20, created=True)
    host.load(empty, 20)
    host.load(other, 20, (b"/b/x", b"1", 15))
    host.run(host.machine.closed())
    (check,) = host.open()
    assert check.watch is other
    host.run(host.machine.checked(other, other.turn, True))
    for number in range(3):
        assert kinds(host.answer(watch_id=number, revision=20, created=True)) == [Live]
    assert sorted(host.created()) == [(b"/a", 10), (b"/b", 15 + 5), (b"/empty", 20)]
    # Another history: each has to be read.
    host.run(host.machine.closed())
    asked = host.open()
    for number in range(3):
        (check,) = asked
        assert host.run(host.machine.checked(check.watch, check.turn, False)) == []
        actions = host.answer(watch_id=number, revision=30, created=True)
        assert actions[0] == Load(check.watch, check.watch.turn)
        asked = actions[1:]
    assert asked == []
    assert watch.phase is Phase.LOADING


def test_nothing_is_there_to_compare() -> None:
    host, watch = Host(), Watch(place("/a"))
    host.add(watch)
    host.open()
    host.answer(revision=10, created=True)
    host.load(watch, 10)
    host.run(host.machine.closed())
    assert host.open() == [Check(watch, watch.turn, None)]


def test_who_comes_back_with_a_replica_of_an_older_history_is_compared() -> None:
    host, watch = following(revision=10)
    parked = Watch(watch.at, watch.replica.copy())
    parked.continues(watch)
    assert kinds(reopen(host, 20, same=False)) == [Load]
    host.load(watch, 20, (b"/a/x", b"1", 20))
    assert kinds(reopen(host, 20)) == [Live]
    assert host.add(parked) == [Check(parked, parked.turn, parked.replica.newest())]
    later = Watch(watch.at, watch.replica.copy())
    later.continues(watch)
    host.run(host.machine.checked(parked, parked.turn, False))
    host.answer(watch_id=1, revision=20, created=True)
    assert host.add(later) == []
    assert host.created() == [(b"/a", 20), (b"/a", 0), (b"/a", 20)]


def test_a_watch_closed_while_it_is_compared_lets_the_others_go_on() -> None:
    host, watch = following()
    other = Watch(place("/b"))
    host.run(host.machine.closed())
    host.add(other)
    (check,) = host.open()
    assert check.watch is watch
    host.run(host.machine.remove(watch))
    assert host.created() == [(b"/b", 0)]
    assert host.run(host.machine.checked(watch, check.turn, True)) == []


def test_another_cluster_is_read() -> None:
    host, watch = following()
    # It holds the very same key.
    assert reopen(host, 60, cluster=0xC2) == []
    assert host.cancelled() == [0]
    assert reopen(host, 60, cluster=0xC2) == [Load(watch, watch.turn)]
    host.load(watch, 60)
    assert reopen(host, 61, cluster=0xC2) == [Live(watch, behind=61)]


# Refusals


@pytest.mark.parametrize("watch_id", [0, -1])
def test_a_refusal_is_matched_by_order_not_by_its_id(watch_id: int) -> None:
    """3.5.1 can answer with the id of another watch, other versions with -1."""
    host, watch = following()
    denied, after = Watch(place("/secret")), Watch(place("/b"))
    host.add(denied)
    host.add(after)
    actions = host.answer(
        watch_id=watch_id, revision=10, created=True, canceled=True, cancel_reason=PERMISSION_DENIED
    )
    assert actions == [Ask(denied, denied.turn, PERMISSION_DENIED)]
    # Nothing is asked for before it is known whether all would be refused.
    assert host.created() == [(b"/secret", 0)]
    assert delivered(host.answer(revision=11, events=[(11, b"/a/x", b"2")])) == [(11, [("/a/x", 2)], False)]
    error = AccessDenied("no")
    assert host.run(host.machine.asked(denied, denied.turn, error)) == [Lost(denied, error)]
    assert host.created() == [(b"/secret", 0), (b"/b", 0)]
    assert host.answer(watch_id=1, revision=11, created=True) == [Load(after, after.turn)]
    assert watch.phase is Phase.FOLLOWING


def test_an_expired_token_is_not_a_denial() -> None:
    host, watch = following()
    late = Watch(place("/b"))
    host.add(late)
    host.answer(watch_id=-1, created=True, canceled=True, cancel_reason=PERMISSION_DENIED)
    actions = host.run(host.machine.asked(late, late.turn, None, PERMISSION_DENIED))
    assert kinds(actions) == [Restart]
    # Nothing more is asked for with the old token.
    host.add(Watch(place("/c")))
    assert host.created() == [(b"/b", 0)]
    reconnect(host)
    assert host.answer(watch_id=0, revision=10, created=True) == [Live(watch)]
    assert host.answer(watch_id=1, revision=10, created=True) == [Load(late, late.turn)]


def test_who_is_refused_with_a_new_token_too_is_denied() -> None:
    host, watch = Host(), Watch(place("/a"))
    host.add(watch)
    host.open()
    host.answer(watch_id=-1, created=True, canceled=True, cancel_reason=PERMISSION_DENIED)
    host.run(host.machine.asked(watch, watch.turn, None, PERMISSION_DENIED))
    host.run(host.machine.closed())
    host.open()
    host.answer(watch_id=-1, created=True, canceled=True, cancel_reason=PERMISSION_DENIED)
    (lost,) = host.run(host.machine.asked(watch, watch.turn, None, PERMISSION_DENIED))
    assert isinstance(lost.error, AccessDenied)
    assert "/a" in str(lost.error)


def test_closing_a_refused_watch_lets_the_others_go_on() -> None:
    host, denied, other = Host(), Watch(place("/a")), Watch(place("/b"))
    host.add(denied)
    host.add(other)
    host.open()
    (ask,) = host.answer(watch_id=-1, created=True, canceled=True, cancel_reason=PERMISSION_DENIED)
    host.run(host.machine.remove(denied))
    assert host.created() == [(b"/a", 0), (b"/b", 0)]
    assert host.run(host.machine.asked(denied, ask.turn, None)) == []


def test_a_cancel_without_a_compaction_takes_another_stream() -> None:
    host, watch = following()
    actions = host.answer(revision=10, canceled=True, cancel_reason="mvcc: something")
    assert kinds(actions) == [Stale, Restart]
    assert "mvcc: something" in actions[1].reason
    assert reopen(host, 10) == [Live(watch)]


# Bookmarks


@pytest.mark.parametrize("watch_id", [0, -1])
def test_progress_is_believed_only_where_it_is_right(watch_id: int) -> None:
    host, watch = following()
    assert host.answer(watch_id=watch_id, revision=99) == []
    assert watch.replica.revision == 10
    reconnect(host, bookmarks=True)
    host.answer(revision=99, created=True)
    assert host.answer(watch_id=watch_id, revision=99) == []
    assert watch.replica.revision == 99
    reconnect(host)
    assert host.created() == [(b"/a", 99)]


def test_progress_is_asked_for_only_where_it_is_right() -> None:
    host, _ = following()
    assert list(host.machine.ask_progress()) == []
    reconnect(host, bookmarks=True)
    [send] = host.machine.ask_progress()
    assert messages().WatchRequest.FromString(send.request).HasField("progress_request")


def test_progress_between_fragments_is_not_taken() -> None:
    host, watch = following()
    reconnect(host, bookmarks=True)
    host.answer(revision=10, created=True)
    host.answer(revision=11, events=[(11, b"/a/x", b"2")], fragment=True)
    host.answer(watch_id=-1, revision=11)
    assert watch.replica.revision == 10


def behind_another(*, asked: int) -> tuple[Host, Watch, Watch]:
    """A watch that follows, and one from an older revision on, opened after etcd was asked how far it is."""
    host, other = following()
    reconnect(host, bookmarks=True)
    host.answer(watch_id=1, revision=20, created=True)
    host.answer(watch_id=1, revision=20, events=[(20, b"/a/x", b"2")])
    late = Watch(other.at, other.replica.copy(), start=12)
    late.replica.revision = 11
    late.continues(other)
    for _ in range(asked):
        host.run(host.machine.ask_progress())
    host.add(late)
    return host, other, late


def test_progress_from_before_a_watch_was_opened_says_nothing_of_it() -> None:
    host, other, late = behind_another(asked=2)
    # etcd sends a creation and the word on progress by two ways, in any order.
    assert host.answer(watch_id=2, revision=20, created=True) == [Live(late, behind=20)]
    for _ in range(2):
        host.answer(watch_id=-1, revision=20)
        assert late.replica.revision == 11
    events = [(12, b"/a/x", b"0"), (20, b"/a/x", b"2")]
    assert delivered(host.answer(watch_id=2, revision=20, events=events)) == [
        (12, [("/a/x", 0)], False),
        (20, [("/a/x", 2)], False),
    ]
    assert other.replica.revision == 20


@pytest.mark.parametrize("asked", [0, 1])
def test_progress_from_after_a_watch_was_opened_is_believed(asked: int) -> None:
    host, _, late = behind_another(asked=asked)
    host.answer(watch_id=2, revision=20, created=True)
    for _ in range(asked):
        host.answer(watch_id=-1, revision=20)
    host.run(host.machine.ask_progress())
    host.answer(watch_id=-1, revision=20)
    assert late.replica.revision == 20


def test_progress_beyond_the_opening_of_a_watch_is_believed() -> None:
    host, _, late = behind_another(asked=5)
    host.answer(watch_id=2, revision=20, created=True)
    host.answer(watch_id=-1, revision=21)
    assert late.replica.revision == 21


# Against a small etcd in memory


class Etcd:
    """As much of etcd as a watch sees: history, compaction, fragments, members that lag, wipes, progress.

    As since 3.5.8 a stream sends from two queues, in any order: what it was told, and what has happened.
    """

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.wipe()

    def wipe(self) -> None:
        self.events: list[tuple[int, bytes, bytes | None]] = []
        self.state: dict[bytes, tuple[bytes, int]] = {}
        self.revision = 1
        self.states = {1: self.state.copy()}
        self.compacted = 0
        self.drop_stream()

    def drop_stream(self) -> None:
        self.ranges: dict[int, tuple[bytes, bytes]] = {}
        self.unsynced: dict[int, int] = {}
        self.told: list[Any] = []
        self.happened: list[Any] = []
        self.announced: set[int] = set()
        self.early: dict[int, list[Any]] = {}
        self.said = 1
        self.outbox: list[Any] = []

    @property
    def idle(self) -> bool:
        return not (self.told or self.happened or self.outbox or self.unsynced)

    def stream(self) -> None:
        """Send from one of the queues. What happened to a watch waits until its creation was sent."""
        queues = [queue for queue in (self.told, self.happened) if queue]
        if not queues:
            return
        queue = self.rng.choice(queues)
        response = queue.pop(0)
        watch_id = response.watch_id
        if response.created:
            self.announced.add(watch_id)
            self.outbox += [response, *self.early.pop(watch_id, [])]
        elif queue is self.told or watch_id == -1 or watch_id in self.announced:
            self.outbox.append(response)
        else:
            self.early.setdefault(watch_id, []).append(response)

    def write(self) -> dict[bytes, bytes | None]:
        self.revision += 1
        changed: dict[bytes, bytes | None] = {}
        for _ in range(self.rng.choice((1, 1, 1, 3))):
            key = self.rng.choice((b"/a/x", b"/a/y", b"/a/d/1", b"/a-b", b"/b/x", b"/a"))
            gone = key in self.state and self.rng.random() < 0.3
            changed[key] = None if gone else b"%d" % self.rng.randrange(10**6)
        for key, value in changed.items():
            if value is None:
                del self.state[key]
            else:
                self.state[key] = (value, self.revision)
            self.events.append((self.revision, key, value))
        self.states[self.revision] = self.state.copy()
        for watch_id in self.ranges:
            if watch_id not in self.unsynced:
                self.send(watch_id, self.revision)
        return changed

    def compact(self) -> None:
        """As 3.5.1 does it: deletes at the compacted revision itself go too."""
        self.compacted = self.revision
        self.events = [event for event in self.events if event[0] == self.compacted and event[2] is not None]

    def request(self, request: Any) -> None:
        if request.HasField("cancel_request"):
            self.ranges.pop(request.cancel_request.watch_id, None)
            self.unsynced.pop(request.cancel_request.watch_id, None)
            self.told.append(answer(request.cancel_request.watch_id, self.revision, canceled=True))
            return
        if request.HasField("progress_request"):
            if self.ranges and not self.unsynced:
                self.happened.append(answer(-1, self.revision))
                self.said = self.revision
            return
        create = request.create_request
        assert create.watch_id not in self.ranges
        self.ranges[create.watch_id] = (create.key, create.range_end)
        seen = self.revision
        if create.start_revision:
            self.unsynced[create.watch_id] = create.start_revision
            seen = max(self.said, seen - self.rng.choice((0, 0, 0, 2)))
        self.told.append(answer(create.watch_id, seen, created=True))

    def had(self, check: Check) -> bool:
        at, revision = check.watch.at, check.watch.replica.revision
        if revision > self.revision:
            return False
        if revision < self.compacted:
            return True
        state = self.states[revision]
        if check.known is None:
            return not any(key.startswith(at.marker) for key in state)
        key, held = check.known
        return state.get(key) == (held.value, held.revision)

    def sync(self) -> None:
        """Replay what those that began in the past have not had."""
        for watch_id, start in self.unsynced.items():
            if start < self.compacted:
                del self.ranges[watch_id]
                cancelled = answer(watch_id, 0, canceled=True, compact_revision=self.compacted)
                self.happened.append(cancelled)
            else:
                self.send(watch_id, start)
        self.unsynced.clear()

    def send(self, watch_id: int, start: int) -> None:
        key, end = self.ranges[watch_id]
        events = [event for event in self.events if event[0] >= start and key <= event[1] < end]
        while events:
            size = self.rng.randrange(1, len(events) + 1)
            part, events = events[:size], events[size:]
            self.happened.append(answer(watch_id, self.revision, part, fragment=bool(events)))


class Follower:
    """A host with one watch on /a, and a view that takes over what is delivered.

    Another watch is beside it, so that etcd says how far it is while this one is left and opened again.
    """

    def __init__(self, etcd: Etcd, *, bookmarks: bool) -> None:
        self.etcd = etcd
        self.bookmarks = bookmarks
        self.host = Host()
        self.watch = Watch(place("/a"))
        self.parked = False
        self.questions: list[Any] = []
        self.due: dict[int, int] = {}  # revisions that are to come, and how many changes they have
        self.view: dict[str, Any] = {}
        self.began = False
        self.gaps = 0
        self.host.add(Watch(place("/")))
        self.host.add(self.watch)
        self.connect()

    def connect(self) -> None:
        self.etcd.drop_stream()
        self.questions.clear()
        self.take(self.host.run(self.host.machine.closed()))
        self.take(self.host.open(bookmarks=self.bookmarks))

    def park(self) -> None:
        """Go on later, from here."""
        if self.watch.phase is Phase.FOLLOWING:
            self.parked = True
            left, self.watch = self.watch, Watch(self.watch.at, self.watch.replica.copy())
            self.watch.continues(left)
            self.take(self.host.run(self.host.machine.remove(left)))

    def resume(self) -> None:
        if self.parked:
            self.parked = False
            self.take(self.host.add(self.watch))

    def ask_progress(self) -> None:
        self.take(self.host.run(self.host.machine.ask_progress()))

    def write(self) -> None:
        changed = self.etcd.write()
        covered = self.watch.replica.covers
        if own := [key for key in changed if covered(key)]:
            self.due[self.etcd.revision] = len(own)

    def wipe(self) -> None:
        self.resume()  # else what it knows is not compared first
        self.etcd.wipe()
        self.due.clear()
        self.connect()

    def take(self, actions: list[Any]) -> None:
        for action in actions:
            if isinstance(action, (Load, Check)):
                self.questions.append(action)
            elif isinstance(action, (Live, Deliver)) and action.watch is not self.watch:
                continue
            elif isinstance(action, Live) and not self.began:
                self.began = True
                self.view = {held.path or "": int(held.value) for _, held in self.watch.replica.leaves()}
                self.forget(self.watch.replica.revision)
            elif isinstance(action, Deliver):
                batch = action.batch
                self.gaps += batch.synthetic
                if batch.changes and not batch.synthetic:
                    assert batch.revision == min(self.due)
                    assert len(batch.changes) == self.due[batch.revision]
                self.forget(batch.revision)
                for change in batch.changes:
                    assert change.previous == self.view.pop(change.path, MISSING)
                    if change.kind == "put":
                        self.view[change.path] = change.value

    def forget(self, revision: int) -> None:
        self.due = {known: number for known, number in self.due.items() if known > revision}

    def send(self) -> None:
        for request in self.host.sent:
            self.etcd.request(request)
        self.host.sent.clear()

    def receive(self) -> None:
        if self.etcd.outbox:
            self.take(self.host.run(self.host.machine.received(self.etcd.outbox.pop(0))))

    def ask(self) -> None:
        if not self.questions:
            return
        question = self.questions.pop(0)
        machine, watch, revision = self.host.machine, question.watch, self.etcd.revision
        if isinstance(question, Check):
            actions = machine.checked(watch, question.turn, self.etcd.had(question))
        else:
            pairs = [(key, value, mod) for key, (value, mod) in self.etcd.state.items()]
            actions = machine.loaded(watch, question.turn, revision, pairs)
        self.take(self.host.run(actions))

    def settle(self) -> None:
        self.resume()
        while self.host.sent or self.questions or not self.etcd.idle:
            self.send()
            self.etcd.sync()
            self.etcd.stream()
            self.receive()
            self.ask()


@pytest.mark.parametrize("seed", range(100))
def test_whatever_happens_nothing_is_lost_and_nothing_comes_twice(seed: int) -> None:
    rng = random.Random(seed)
    etcd = Etcd(rng)
    follower = Follower(etcd, bookmarks=seed % 2 > 0)
    weights = {
        follower.write: 35,
        follower.send: 30,
        etcd.stream: 60,
        follower.receive: 60,
        follower.ask: 20,
        etcd.sync: 30,
        etcd.compact: 3,
        follower.connect: 4,
        follower.park: 6,
        follower.resume: 12,
        follower.ask_progress: 15,
        follower.wipe: 0.5,
    }
    for step in rng.choices(list(weights), list(weights.values()), k=400):
        step()
    follower.settle()
    assert follower.watch.phase is Phase.FOLLOWING
    assert follower.due == {}
    covered = follower.watch.replica.covers
    assert follower.view == {
        str(key, "utf-8"): int(value) for key, (value, _) in etcd.state.items() if covered(key)
    }
