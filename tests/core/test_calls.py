"""The rules of calls, over a wire that fails as it is told.

Real servers fail in these ways too (tests/wire), but not in every order, nor when asked to.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from link_kv._core.wire import calls
from link_kv._core.wire.calls import AUTHENTICATE, RANGE, STATUS, TXN, WATCH, Caller, Method, Repeat, run
from link_kv._core.wire.calls import _share as share
from link_kv._core.wire.config import Config
from link_kv._core.wire.failures import Meaning, WireFailure, meaning, refusal
from link_kv.errors import (
    AccessDenied,
    Closed,
    ConfigError,
    DeadlineExceeded,
    LeaseLost,
    LinkKVError,
    NoSpace,
    OutcomeUnknown,
    RevisionError,
    TooLarge,
    Unavailable,
)

REFUSED = WireFailure(
    14, "failed to connect to all addresses; last error: UNKNOWN: ipv4:1: Connection refused"
)
CUT = WireFailure(14, "Socket closed")
LATE = WireFailure(4, "Deadline Exceeded")
NO_LEADER = WireFailure(14, "etcdserver: no leader")
LATE_IN_SERVER = WireFailure(2, "context deadline exceeded")
BUSY = WireFailure(8, "etcdserver: too many requests")
STALE = WireFailure(16, "etcdserver: invalid auth token")
CHANGED = WireFailure(2, "auth: revision in header is old")
FULL = WireFailure(8, "etcdserver: mvcc: database space exceeded")
ANSWER = SimpleNamespace(succeeded=True, header=SimpleNamespace(cluster_id=7), token="new")
GUARD_FAILED = SimpleNamespace(succeeded=False, header=SimpleNamespace(cluster_id=7))


class Clock:
    """Time that passes when a wire sleeps, and when a script says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


clock = Clock()


@pytest.fixture(autouse=True)
def slow_machines_are_no_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "time", clock)


def too_late() -> WireFailure:
    """An answer that does not come before the deadline."""
    clock.now += 60
    return LATE


class Script:
    """A wire that answers and fails as it is told, and remembers what was sent. That takes no time."""

    def __init__(self, *outcomes: Any, forever: Any = None, greetings: Iterator[Any] | None = None) -> None:
        self.outcomes = list(outcomes)
        self.forever = forever
        self.greetings = greetings or itertools.repeat(ANSWER)
        self.sent: list[tuple[str, Method]] = []
        self.timeouts: list[float] = []
        self.tokens: list[str | None] = []
        self.slept = 0.0

    async def send(self, endpoint: str, method: Method, request: bytes, timeout: float, metadata: Any) -> Any:
        self.sent.append((endpoint, method))
        self.tokens.append(dict(metadata).get("token"))
        if method is AUTHENTICATE:
            return ANSWER
        if method is STATUS:
            outcome = next(self.greetings)
        else:
            self.timeouts.append(timeout)
            outcome = self.outcomes.pop(0) if self.outcomes else self.forever
        if callable(outcome):
            outcome = outcome()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def sleep(self, seconds: float) -> None:
        self.slept += seconds
        clock.now += seconds

    async def lookup(self, config: Config) -> tuple[str, ...]:
        return config.endpoints

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        yield

    async def close(self) -> None:
        pass

    def count(self, method: Method) -> int:
        return sum(sent is method for _, sent in self.sent)


def call(
    script: Script,
    repeat: Repeat = Repeat.READ,
    endpoints: int = 3,
    seconds: float = 5,
    each: float = math.inf,
    **options: Any,
) -> Any:
    """What a call over the script gives, when all that it was told has come to pass."""
    config = Config(endpoints=tuple(f"h{n}:1" for n in range(endpoints)), insecure_password=True, **options)
    caller = Caller(config, script)  # type: ignore[arg-type]
    method = RANGE if repeat is Repeat.READ else TXN
    try:
        return run(caller.call(method, b"x" * 10, repeat, clock.now + seconds, each))
    finally:
        assert not script.outcomes, "the call ended before the script"


# What is sent again


@pytest.mark.parametrize("failure", [REFUSED, CUT, LATE, LATE_IN_SERVER, NO_LEADER, BUSY])
def test_a_read_goes_to_another_endpoint(failure: WireFailure) -> None:
    script = Script(failure, failure, ANSWER)
    assert call(script) is ANSWER
    assert [endpoint for endpoint, _ in script.sent] == ["h0:1", "h1:1", "h2:1"]


@pytest.mark.parametrize("repeat", list(Repeat))
@pytest.mark.parametrize("failure", [REFUSED, NO_LEADER, BUSY])
def test_what_was_not_done_is_sent_again(failure: WireFailure, repeat: Repeat) -> None:
    assert call(Script(failure, failure, failure, failure, ANSWER), repeat) is ANSWER


@pytest.mark.parametrize(
    "failure", [CUT, LATE, LATE_IN_SERVER, WireFailure(13, "?"), WireFailure(2, "?"), WireFailure(1, "?")]
)
def test_a_write_in_doubt_is_not_sent_again(failure: WireFailure) -> None:
    script = Script(failure)
    with pytest.raises(OutcomeUnknown, match="may or may not have happened"):
        call(script, Repeat.ONCE)
    assert script.count(TXN) == 1


@pytest.mark.parametrize("failure", [CUT, LATE, LATE_IN_SERVER])
def test_a_guarded_write_in_doubt_is_sent_again(failure: WireFailure) -> None:
    assert call(Script(failure, ANSWER), Repeat.GUARDED) is ANSWER


def test_a_guard_that_fails_the_second_time_proves_nothing() -> None:
    with pytest.raises(OutcomeUnknown):
        call(Script(CUT, GUARD_FAILED), Repeat.GUARDED)
    assert call(Script(REFUSED, GUARD_FAILED), Repeat.GUARDED) is GUARD_FAILED


@pytest.mark.parametrize(
    "second", [FULL, STALE, CHANGED, WireFailure(7, "etcdserver: permission denied"), WireFailure(9, "?")]
)
def test_doubt_stays_whatever_comes_after_it(second: WireFailure) -> None:
    with pytest.raises(OutcomeUnknown):
        call(Script(CUT, second), Repeat.GUARDED, user="u", password="p")


def test_doubt_stays_until_the_deadline() -> None:
    with pytest.raises(OutcomeUnknown):
        call(Script(CUT, forever=REFUSED), Repeat.GUARDED)


# What is asked first


def test_a_write_goes_to_who_has_answered() -> None:
    """A question goes first where nobody has answered yet, and what then fails was never sent."""
    script = Script(ANSWER, greetings=iter([CUT, LATE, ANSWER]))
    assert call(script, Repeat.ONCE) is ANSWER
    assert script.sent == [("h0:1", STATUS), ("h1:1", STATUS), ("h2:1", STATUS), ("h2:1", TXN)]


@pytest.mark.parametrize("greeting", [STALE, WireFailure(7, "etcdserver: permission denied"), ANSWER])
def test_a_refused_question_is_an_answer(greeting: Any) -> None:
    script = Script(ANSWER, greetings=iter([greeting]))
    assert call(script, Repeat.ONCE, user="u", password="p") is ANSWER


@pytest.mark.parametrize(
    ("failure", "error"), [(CUT, Unavailable), (LATE, DeadlineExceeded), (LATE_IN_SERVER, DeadlineExceeded)]
)
def test_a_write_that_was_never_sent_is_not_in_doubt(failure: WireFailure, error: type[Unavailable]) -> None:
    script = Script(greetings=iter(lambda: failure, None))
    with pytest.raises(error) as caught:
        call(script, Repeat.ONCE)
    assert not isinstance(caught.value, OutcomeUnknown)
    assert script.count(TXN) == 0


def test_the_question_is_asked_once_in_a_while() -> None:
    script = Script(forever=ANSWER)
    caller = Caller(Config(endpoints=("h0:1",)), script)  # type: ignore[arg-type]
    for _ in range(5):
        run(caller.call(TXN, b"", Repeat.ONCE))
    assert script.count(STATUS) == 1
    clock.now += 60
    run(caller.call(TXN, b"", Repeat.ONCE))
    assert script.count(STATUS) == 2


def test_reads_ask_nothing_first() -> None:
    script = Script(ANSWER)
    call(script)
    assert script.count(STATUS) == 0


def test_after_a_failure_the_question_is_asked_again() -> None:
    script = Script(ANSWER, CUT, ANSWER)
    caller = Caller(Config(endpoints=("h0:1",)), script)  # type: ignore[arg-type]
    run(caller.call(TXN, b"", Repeat.ONCE))
    with pytest.raises(OutcomeUnknown):
        run(caller.call(TXN, b"", Repeat.ONCE))
    run(caller.call(TXN, b"", Repeat.ONCE))
    assert [method for _, method in script.sent] == [STATUS, TXN, TXN, STATUS, TXN]


# Time


def test_each_endpoint_gets_a_share_and_the_last_one_all_that_is_left() -> None:
    script = Script(LATE, LATE, ANSWER)
    call(script, seconds=6)
    assert script.timeouts == pytest.approx([1, 2.4, 6])
    assert [share(turn, 3) for turn in range(3)] == pytest.approx([1 / 6, 2 / 5, 1])
    assert share(0, 1) == 1


def test_what_is_answered_at_once_or_not_for_a_while_is_asked_of_each_endpoint_again_and_again() -> None:
    script = Script(*[LATE] * 7, ANSWER)
    call(script, seconds=60, each=0.5)
    assert script.timeouts == pytest.approx([0.5] * 3 + [1] * 3 + [2] * 2)


def test_of_a_single_endpoint_an_answer_is_awaited_for_all_the_time() -> None:
    script = Script(ANSWER)
    call(script, endpoints=1, seconds=6, each=0.5)
    assert script.timeouts == pytest.approx([6])


def test_a_write_that_is_sent_once_gets_all_the_time() -> None:
    script = Script(ANSWER)
    call(script, Repeat.ONCE, seconds=6)
    assert script.timeouts == pytest.approx([6])


@pytest.mark.parametrize("repeat", list(Repeat))
def test_a_deadline_that_has_passed(repeat: Repeat) -> None:
    script = Script()
    with pytest.raises(DeadlineExceeded):
        call(script, repeat, seconds=-1)
    assert not script.sent


def test_pauses_grow_and_are_bounded() -> None:
    script = Script(*[REFUSED] * 9, ANSWER)
    call(script, endpoints=1)
    assert 0.5 < script.slept < 9 * 0.25


@pytest.mark.parametrize(
    ("failure", "error"),
    [(REFUSED, Unavailable), (LATE, DeadlineExceeded), (LATE_IN_SERVER, DeadlineExceeded)],
)
def test_what_is_said_when_the_time_is_over(failure: WireFailure, error: type[Unavailable]) -> None:
    with pytest.raises(error, match="h0:1, h1:1, h2:1") as caught:
        call(Script(forever=failure))
    assert type(caught.value) is error


@pytest.mark.parametrize("repeat", list(Repeat))
def test_a_crumb_of_the_time_is_no_reason(repeat: Repeat) -> None:
    """The pause after a refusal ends just before the deadline: what is tried then cannot be answered."""
    script = Script(NO_LEADER, too_late)
    error = Unavailable if repeat is Repeat.READ else OutcomeUnknown
    with pytest.raises(error, match="no leader" if error is Unavailable else "Deadline Exceeded") as caught:
        call(script, repeat, endpoints=1, seconds=0.06)
    assert type(caught.value) is error
    assert script.timeouts[1] < 0.06


def test_a_question_that_gets_a_crumb_of_the_time_is_no_reason() -> None:
    script = Script(greetings=iter([NO_LEADER, too_late]))
    with pytest.raises(Unavailable, match="refused for now: no leader"):
        call(script, Repeat.ONCE, endpoints=1, seconds=0.06)


def test_who_refused_before_and_then_says_nothing_for_long_does_not_answer() -> None:
    for outcomes in ([too_late], [NO_LEADER, too_late]):
        with pytest.raises(DeadlineExceeded):
            call(Script(*outcomes), endpoints=1, seconds=2)
    with pytest.raises(DeadlineExceeded):
        call(Script(too_late), endpoints=1, seconds=0.06)


# Tokens


def test_a_stale_token_is_fetched_again_once() -> None:
    script = Script(STALE, ANSWER)
    assert call(script, Repeat.ONCE, user="u", password="p") is ANSWER
    assert script.count(AUTHENTICATE) == 2
    with pytest.raises(AccessDenied, match="invalid auth token"):
        call(Script(STALE, STALE), user="u", password="p")


def test_no_token_goes_with_a_login_or_before_it() -> None:
    script = Script(ANSWER)
    call(script, user="u", password="p")
    assert [(method, token) for (_, method), token in zip(script.sent, script.tokens, strict=True)] == [
        (AUTHENTICATE, None),
        (RANGE, "new"),
    ]


def test_roles_that_change_again_and_again_refuse_nothing() -> None:
    assert call(Script(*[CHANGED] * 6, ANSWER), Repeat.ONCE, user="u", password="p") is ANSWER


def test_roles_that_change_refuse_nothing_to_who_logs_in_by_a_certificate() -> None:
    script = Script(CHANGED, CHANGED, ANSWER)
    assert call(script, Repeat.ONCE) is ANSWER
    assert script.count(AUTHENTICATE) == 0


def test_without_a_login_a_token_is_not_fetched() -> None:
    with pytest.raises(AccessDenied):
        call(Script(STALE))


# The cluster


def test_another_cluster_is_sent_nothing() -> None:
    script = Script(ANSWER)  # to the watch that asks
    with pytest.raises(ConfigError, match="expected_cluster_id is 8: h0:1 belongs to 7"):
        call(script, user="u", password="p", expected_cluster_id=8)
    assert script.sent == [("h0:1", WATCH)]
    script = Script(ANSWER, ANSWER)
    call(script, Repeat.ONCE, user="u", password="p", expected_cluster_id=7)
    assert [method for _, method in script.sent] == [WATCH, AUTHENTICATE, TXN]


# What failures mean


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (REFUSED, Meaning.NEVER_SENT),
        (WireFailure(14, "empty address list: "), Meaning.NEVER_SENT),
        (WireFailure(14, "errors resolving nobody.invalid:2379: [...]"), Meaning.NEVER_SENT),
        (WireFailure(14, "DNS resolution failed for nobody.invalid:2379"), Meaning.NEVER_SENT),
        # Somebody else's words that only contain them prove nothing.
        (WireFailure(14, "upstream failed to connect to all addresses"), Meaning.UNKNOWN),
        (WireFailure(14, "etcdserver: rpc not supported for learner"), Meaning.NOT_APPLIED),
        (NO_LEADER, Meaning.NOT_APPLIED),
        (BUSY, Meaning.NOT_APPLIED),
        (WireFailure(14, "etcdserver: request timed out"), Meaning.UNKNOWN),
        (WireFailure(14, "etcdserver: leader changed"), Meaning.UNKNOWN),
        (WireFailure(14, "Stream removed (sendmsg: Broken pipe (32))"), Meaning.UNKNOWN),
        (WireFailure(14, "GOAWAY received"), Meaning.UNKNOWN),
        (WireFailure(14, ""), Meaning.UNKNOWN),
        (CUT, Meaning.UNKNOWN),
        (LATE, Meaning.UNKNOWN),
        (LATE_IN_SERVER, Meaning.UNKNOWN),
        (STALE, Meaning.STALE_TOKEN),
        (CHANGED, Meaning.STALE_TOKEN),
        (WireFailure(3, "etcdserver: revision of auth store is old"), Meaning.STALE_TOKEN),
        (FULL, Meaning.FINAL),
        (WireFailure(8, "grpc: received message larger than max (3 vs. 2)"), Meaning.FINAL),
        (WireFailure(12, "unknown service"), Meaning.FINAL),
    ],
)
def test_what_a_failure_means(failure: WireFailure, expected: Meaning) -> None:
    assert meaning(failure) is expected


@pytest.mark.parametrize(
    ("failure", "error", "words"),
    [
        (FULL, NoSpace, "etcd refuses writes, mvcc: database space exceeded"),
        (WireFailure(7, "etcdserver: permission denied"), AccessDenied, "the user's role does not reach"),
        (WireFailure(3, "etcdserver: user name is empty"), AccessDenied, "give user= and password="),
        (
            WireFailure(3, "etcdserver: authentication failed, invalid user ID or password"),
            AccessDenied,
            "etcd",
        ),
        (
            WireFailure(11, "etcdserver: mvcc: required revision has been compacted"),
            RevisionError,
            "compacted",
        ),
        (WireFailure(5, "etcdserver: requested lease not found"), LeaseLost, "lease not found"),
        (WireFailure(3, "etcdserver: request is too large"), TooLarge, "limit, by default 1572864"),
        (WireFailure(12, "Received http2 header with status: 404"), LinkKVError, "it may be no etcd"),
        (WireFailure(15, "etcdserver: corrupt cluster"), LinkKVError, r"\(status 15\): etcdserver: corrupt"),
        (STALE, AccessDenied, "invalid auth token"),
    ],
)
def test_what_is_raised(failure: WireFailure, error: type[LinkKVError], words: str) -> None:
    found = refusal(failure, 10)
    assert type(found) is error
    assert re.search(words, str(found))


# Closing


@pytest.mark.parametrize(
    ("repeat", "failure", "error"),
    [
        (Repeat.READ, CUT, Closed),
        (Repeat.ONCE, REFUSED, Closed),
        (Repeat.ONCE, CUT, OutcomeUnknown),
        (Repeat.GUARDED, CUT, OutcomeUnknown),
    ],
)
def test_a_call_that_closing_ends(repeat: Repeat, failure: WireFailure, error: type[LinkKVError]) -> None:
    def close_and_fail() -> WireFailure:
        caller.closed = True
        return failure

    script = Script(close_and_fail)
    caller = Caller(Config(endpoints=("h0:1",)), script)  # type: ignore[arg-type]
    with pytest.raises(error):
        run(caller.call(TXN, b"", repeat))


def test_an_operation_never_waits_on_a_blocking_wire() -> None:
    async def waits() -> None:
        await Never()

    with pytest.raises(RuntimeError, match="waited on a blocking wire"):
        run(waits())


class Never:
    def __await__(self) -> Iterator[None]:
        yield
