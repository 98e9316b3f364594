"""Sessions on a real etcd: what keeps them alive, what ends them, and what a process learns of it."""

from __future__ import annotations

import itertools
import logging
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest

from link_kv import EtcdMiddleware, Session, local
from link_kv._core.leasing import keeper
from link_kv._core.leasing.leases import Lease
from link_kv._core.wire.calls import KEEP_ALIVE, run
from link_kv._core.wire.exchange import Exchange
from link_kv.errors import (
    AccessDenied,
    ConfigError,
    EncodeError,
    LeaseLost,
    NotATree,
    NotFound,
    OutcomeUnknown,
    PathError,
    Unavailable,
)
from tests.leases import Program, connect, kept_alive, leases, nothing_left, revoke
from tests.processes import identity, until
from tests.wire.proxy import Proxy


@pytest.fixture
def endpoint(etcd: Any) -> str:
    found: str = etcd.endpoints[0]
    return found


@pytest.fixture
def proxy(endpoint: str) -> Iterator[Proxy]:
    with Proxy(endpoint) as proxy:
        yield proxy


@pytest.fixture
def through(proxy: Proxy, etcd_prefix: str) -> Iterator[EtcdMiddleware]:
    """A client whose way to etcd can be cut."""
    with connect(proxy.endpoint, etcd_prefix, timeout=2.0) as client:
        yield client


def lose(session: Session, client: EtcdMiddleware, endpoint: str) -> threading.Event:
    """End a session's lease, and wait until the session knows; it is not renewed before the event is set."""
    go, regain = threading.Event(), session._lease.regain

    async def held() -> None:
        assert go.wait(60)
        await regain()

    session._lease.regain = held  # type: ignore[method-assign]
    revoke(endpoint, session.lease)
    session._lease.due = keeper.now()
    client._keepers[os.getpid()].look()
    assert session.lost.wait(20)
    return go


def renew(session: Session, go: threading.Event) -> None:
    """Let it be renewed, and wait for that."""
    go.set()
    until(lambda: not session.lost.is_set())


# Alive


def test_what_is_put_under_a_session_stays_while_it_is_kept_alive_and_goes_when_it_is_closed(
    etcd_client: EtcdMiddleware, endpoint: str
) -> None:
    with Session(etcd_client, 5) as session:
        session.put("/here/address", "host:1")
        session.put("/here/tags", {"a": {"b": 1}, "empty": {}})
        assert session.ttl >= 5
        kept_alive(session._lease, 3)  # beyond its first deadline
        assert session.alive
        assert not session.lost.is_set()
        assert etcd_client["/here"] == {"address": "host:1", "tags": {"a": {"b": 1}, "empty": {}}}
        assert etcd_client.entry("/here/address").lease == session.lease
        assert session.lease in leases(endpoint)
        lease = session.lease
    assert "/here" not in etcd_client
    assert lease not in leases(endpoint)
    assert not session.alive
    assert session.lost.is_set()
    assert session.lease == 0


def test_put_gives_the_revision_and_replaces(etcd_client: EtcdMiddleware) -> None:
    etcd_client["/a"] = {"old": 1}
    with Session(etcd_client) as session:
        assert session.put("/a", {"new": 2}) == etcd_client.entry("/a").revision
        assert etcd_client["/a"] == {"new": 2}
        assert session.delete("/a") > 0
        assert "/a" not in etcd_client
        with pytest.raises(NotFound, match="/a"):
            session.delete("/a")


def test_a_session_may_be_closed_twice_and_then_refuses(etcd_client: EtcdMiddleware) -> None:
    session = Session(etcd_client)
    session.close()
    session.close()
    with pytest.raises(LeaseLost, match="closed"):
        session.put("/a", 1)
    with pytest.raises(LeaseLost, match="closed"):
        session.check()
    assert "closed" in repr(session)
    assert "/a" not in etcd_client


def test_a_block_that_raises_ends_its_session(etcd_client: EtcdMiddleware) -> None:
    def fail() -> None:
        with Session(etcd_client) as session:
            session.put("/a", 1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert "/a" not in etcd_client


@pytest.mark.parametrize("ttl", [0, 0.5, -1, float("nan"), float("inf"), "10", None, True, 10**10])
def test_a_bad_ttl_is_refused(etcd_client: EtcdMiddleware, ttl: Any) -> None:
    with pytest.raises(ConfigError, match="ttl="):
        Session(etcd_client, ttl)


def test_bad_writes_under_a_session_change_nothing(etcd_client: EtcdMiddleware) -> None:
    etcd_client["/list"] = ["a"]
    etcd_client["/leaf"] = 1
    before = dict(etcd_client.raw)
    with Session(etcd_client) as session:
        for path, value, error in (
            ("/", {"a": 1}, PathError),
            ("/a//b", 1, PathError),
            ("/a", object(), EncodeError),
            ("/a", {1: 2}, EncodeError),
            ("/list/1", "b", ConfigError),
            ("/list/2", "b", ConfigError),
            ("/leaf/a", 1, NotATree),
        ):
            with pytest.raises(error):
                session.put(path, value)
        assert dict(etcd_client.raw) == before
        assert session.alive


def test_many_sessions_of_one_client_are_kept_alive_by_one_thread(
    etcd_client: EtcdMiddleware, endpoint: str
) -> None:
    Session(etcd_client).close()  # now it is connected
    with nothing_left(endpoint):
        before = threading.active_count()
        # Two sizes, for the short ones must not wait for the long.
        sessions = [Session(etcd_client, 3600 if number % 2 else 6) for number in range(400)]
        assert threading.active_count() <= before + 2  # and gRPC's own
        kept_alive(sessions[-2]._lease)
        assert all(session.alive for session in sessions)
        assert {session.lease for session in sessions} <= leases(endpoint)
        for session in sessions:
            session.close()


def test_a_hundred_sessions_one_after_the_other_leave_nothing(
    etcd_client: EtcdMiddleware, endpoint: str
) -> None:
    Session(etcd_client).close()
    with nothing_left(endpoint):
        for _ in range(100):
            Session(etcd_client).close()


# Lost


def test_a_lease_that_an_operator_ends_is_lost(etcd_client: EtcdMiddleware, endpoint: str) -> None:
    session = Session(etcd_client, 6)
    session.put("/a", 1)
    lose(session, etcd_client, endpoint)
    assert not session.alive
    with pytest.raises(LeaseLost, match="lost"):
        session.put("/b", 1)
    assert "/b" not in etcd_client
    session.close()


def test_a_write_that_finds_the_lease_gone_says_so_and_the_session_knows(
    etcd_client: EtcdMiddleware, endpoint: str
) -> None:
    with Session(etcd_client, 3600) as session:  # the next keepalive is 20 minutes away
        revoke(endpoint, session.lease)
        with pytest.raises(LeaseLost):
            session.put("/a", 1)
        assert session.lost.wait(20)
        assert not session.alive


def test_the_deadline_is_counted_from_the_last_keepalive_that_was_sent(
    proxy: Proxy, through: EtcdMiddleware, caplog: pytest.LogCaptureFixture
) -> None:
    with Session(through, 5) as session:
        lease = session._lease
        kept_alive(lease, 1)
        until(lambda: lease.expires - lease.due == pytest.approx(session.ttl * 2 / 3))
        late: list[float] = []
        known = lease.lose

        def losing() -> bool:
            late.append(keeper.now() - lease.expires)
            return known()

        lease.lose = losing  # type: ignore[method-assign]
        proxy.hold()
        assert session.lost.wait(session.ttl + 10)
        assert 0 <= late[0] < 4
        assert not session.alive
        proxy.release()
        # What etcd answers now comes too late, whether it has ended the lease or not.
        with pytest.raises(LeaseLost):
            session.put("/a", 1)
    assert "trying again" in caplog.text


def test_an_outage_shorter_than_the_ttl_is_no_loss(
    proxy: Proxy, through: EtcdMiddleware, caplog: pytest.LogCaptureFixture
) -> None:
    with Session(through, 10) as session:
        session.put("/a", 1)
        proxy.close()
        until(lambda: "trying again" in caplog.text)  # a keepalive was lost
        proxy.reopen()
        kept_alive(session._lease)
        assert session.alive
        assert through["/a"] == 1


def test_a_server_that_is_frozen_and_one_that_is_restarted(etcd_prefix: str) -> None:
    with local.start() as server, connect(server.endpoints[0], etcd_prefix) as client:
        with Session(client, 10) as session:
            session.put("/a", 1)
            server.pause()
            time.sleep(0.5)  # long enough that it counts; nothing is awaited
            server.resume()
            server.restart()
            assert client["/a"] == 1
            expires = session._lease.expires
            until(lambda: session._lease.expires > expires, 10)
            assert session.alive
        assert "/a" not in client


def test_closing_the_client_ends_what_keeps_its_sessions(
    endpoint: str, etcd_prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    client = connect(endpoint, etcd_prefix)
    session = Session(client, 5)
    client.close()
    assert session.lost.wait(20)
    assert not session.alive
    session.close()
    assert "client was closed" in caplog.text
    until(lambda: session.lease not in leases(endpoint))


def test_closing_while_etcd_does_not_answer_takes_no_longer_than_the_clients_timeout(
    proxy: Proxy, through: EtcdMiddleware, caplog: pytest.LogCaptureFixture
) -> None:
    session = Session(through, 10)
    proxy.hold()
    began = time.monotonic()
    session.close()
    assert time.monotonic() - began < 8
    assert "expires within" in caplog.text
    proxy.release()


def test_a_session_that_cannot_be_had_says_so_in_time(etcd_prefix: str) -> None:
    with connect("127.0.0.1:1", etcd_prefix, timeout=1.0) as client:
        began = time.monotonic()
        with pytest.raises(Unavailable):
            Session(client)
        assert time.monotonic() - began < 10


def test_a_grant_that_was_not_answered_is_not_kept_alive(
    proxy: Proxy, through: EtcdMiddleware, endpoint: str
) -> None:
    through["/warm"] = 1
    before = leases(endpoint)
    proxy.mute()
    with pytest.raises(OutcomeUnknown):
        Session(through, 7)
    assert leases(endpoint) - before
    proxy.release()
    until(lambda: leases(endpoint) <= before)


def test_a_grant_whose_answer_was_lost_is_a_session_all_the_same(
    proxy: Proxy, endpoint: str, etcd_prefix: str
) -> None:
    with connect(proxy.endpoint, etcd_prefix, timeout=10.0) as client:
        client["/warm"] = 1
        before = leases(endpoint)
        proxy.mute()
        made: list[Session] = []
        thread = threading.Thread(target=lambda: made.append(Session(client, 30)))
        thread.start()
        until(lambda: leases(endpoint) - before)
        proxy.cut()
        proxy.release()
        thread.join(10)
        (session,) = made
        assert {session.lease} == leases(endpoint) - before
        assert 25 <= session.ttl <= 30
        session.close()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), AccessDenied("not any more")])
def test_a_grant_that_is_broken_off_while_it_is_in_doubt_leaves_no_lease(
    proxy: Proxy, endpoint: str, etcd_prefix: str, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    async def keep_alive(ex: Exchange, lease: int) -> int:
        raise error

    with connect(proxy.endpoint, etcd_prefix, timeout=10.0) as client:
        client["/warm"] = 1
        before = leases(endpoint)
        monkeypatch.setattr(Exchange, "keep_alive", keep_alive)
        proxy.mute()
        raised: list[BaseException] = []

        def make() -> None:
            try:
                Session(client, 600)
            except BaseException as found:  # noqa: BLE001 - the interrupt is expected
                raised.append(found)

        thread = threading.Thread(target=make)
        thread.start()
        until(lambda: leases(endpoint) - before)
        proxy.cut()
        proxy.release()
        thread.join(10)
        assert raised == [error]
        assert leases(endpoint) <= before


def test_ctrl_c_at_any_line_of_opening_leaves_no_lease(etcd_client: EtcdMiddleware, endpoint: str) -> None:
    etcd_client.get("/warm")
    opening = {Lease.open.__code__, Lease._grant.__code__, Exchange.grant.__code__}
    known, before = leases(endpoint), sys.gettrace()
    for at in itertools.count():
        lines: set[int] = set()

        def step(frame: FrameType, event: str, _: Any, at: int = at, lines: Any = lines) -> Any:
            # A `with` is come to again at its end, where no signal is taken before the lock is given back.
            if event == "line" and frame.f_lineno not in lines:
                lines.add(frame.f_lineno)
                if len(lines) > at:
                    raise KeyboardInterrupt
            return step

        sys.settrace(lambda frame, event, _, step=step: step if frame.f_code in opening else None)
        try:
            Session(etcd_client, 3600).close()
        except KeyboardInterrupt:
            pass
        else:
            break
        finally:
            sys.settrace(before)
        until(lambda: leases(endpoint) <= known, 3)
    assert at > 10


def test_a_lease_is_ended_though_the_time_for_that_has_passed(
    etcd_client: EtcdMiddleware, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = leases(endpoint)
    session, remove = Session(etcd_client, 3600), keeper.Keeper.remove

    async def slowly(self: keeper.Keeper, lease: keeper.Kept, seconds: float | None) -> None:
        await remove(self, lease, seconds)
        time.sleep(0.2)  # as if the process had been stopped

    monkeypatch.setattr(keeper.Keeper, "remove", slowly)
    assert run(session._lease.close(0.1))
    assert leases(endpoint) <= known


# Renewed


def test_a_session_that_renews_writes_again_what_was_put(
    etcd_client: EtcdMiddleware, endpoint: str, caplog: pytest.LogCaptureFixture
) -> None:
    with Session(etcd_client, 6, renew=True) as session:
        session.put("/gone", 1)
        session.put("/changed", "old")
        session.put("/tree", {"a": {"b": 2}})
        session.put("/below", {"x": 1})
        session.put("/below/x", 2)
        session.put("/changed", "new")
        session.delete("/gone")
        first = session.lease
        go = lose(session, etcd_client, endpoint)
        assert "/changed" not in etcd_client
        renew(session, go)
        assert session.lease != first
        assert session.alive
        assert dict(etcd_client.items()) == {"/changed": "new", "/tree/a/b": 2, "/below/x": 2}
        assert etcd_client.entry("/changed").lease == session.lease
        kept_alive(session._lease)
        assert etcd_client["/changed"] == "new"
    assert len(etcd_client) == 0
    assert "got another lease" in caplog.text


def test_what_was_deleted_below_what_was_put_does_not_come_back(
    etcd_client: EtcdMiddleware, endpoint: str
) -> None:
    with Session(etcd_client, 6, renew=True) as session:
        session.put("/w", {"one": 1, "two": 2, "a/b": {"deep": {"x": 1}}, "empty": {}})
        session.put("/all", {"a": {"b": 1}})
        session.put("/list", ["a", "b", {"x": [{"y": 1}, 2]}])
        session.put("/over", {"a": {"b": 1, "c": 2}, "d": 3})
        session.put("/over/a", {"b": 5, "c": 6})
        etcd_client["/over/other"] = 7
        for path in ("/w/one", "/w/a%2Fb/deep/x", "/all/a/b", "/list/1", "/list/2/x/1/y", "/over/a/b"):
            session.delete(path)
        session.delete("/over/other")
        before = dict(etcd_client.items())
        assert etcd_client["/"] == {
            "w": {"two": 2, "empty": {}},
            "list": ["b", {"x": [{}, 2]}],
            "over": {"a": {"c": 6}, "d": 3},
        }
        go = lose(session, etcd_client, endpoint)
        assert len(etcd_client) == 0
        renew(session, go)
        assert dict(etcd_client.items()) == before
        session.delete("/list/2/x")
        session.delete("/list/2")
        session.delete("/list/1")
        assert etcd_client["/list"] == []
        renew(session, lose(session, etcd_client, endpoint))
        assert etcd_client["/list"] == []


def test_renewal_waits_for_etcd_and_does_not_spin(
    proxy: Proxy, through: EtcdMiddleware, etcd_client: EtcdMiddleware, caplog: pytest.LogCaptureFixture
) -> None:
    with Session(through, 5, renew=True) as session:
        session.put("/a", 1)
        proxy.close()
        assert session.lost.wait(20)
        until(lambda: "/a" not in etcd_client)
        began, said = time.process_time(), len(caplog.records)
        with pytest.raises(LeaseLost):
            session.put("/b", 1)
        time.sleep(2)  # how busy it is while it waits
        assert time.process_time() - began < 1
        assert len(caplog.records) - said < 10
        proxy.reopen()
        until(lambda: not session.lost.is_set())
        assert etcd_client["/a"] == 1
        session.put("/b", 1)
    assert len(etcd_client) == 0


def test_one_path_that_is_barred_does_not_keep_the_others_from_coming_back(
    etcd_client: EtcdMiddleware, endpoint: str, caplog: pytest.LogCaptureFixture
) -> None:
    with Session(etcd_client, 6, renew=True) as session:
        session.put("/a/b", 1)
        session.put("/c", 2)
        go = lose(session, etcd_client, endpoint)
        etcd_client["/a"] = "somebody else's"
        renew(session, go)
        assert etcd_client["/c"] == 2
        assert etcd_client["/a"] == "somebody else's"
        assert any(record.levelno == logging.ERROR and "/a/b" in record.message for record in caplog.records)


def test_without_renewal_a_lost_session_stays_lost(etcd_client: EtcdMiddleware, endpoint: str) -> None:
    before = threading.enumerate()
    session = Session(etcd_client, 6)
    session.put("/a", 1)
    begun = [thread for thread in threading.enumerate() if thread not in before]
    (keeper,) = [thread for thread in begun if thread.name == "link-kv-sessions"]
    lose(session, etcd_client, endpoint)
    until(lambda: not keeper.is_alive())
    assert "/a" not in etcd_client
    session.close()


# Other processes


def test_what_a_killed_process_held_goes(
    etcd_client: EtcdMiddleware, endpoint: str, etcd_prefix: str
) -> None:
    source = "from link_kv import Session\ns = Session(client, 5)\ns.put('/a', 1)\nsay(s.ttl)\nhear()"
    with Program(source, endpoint, etcd_prefix) as program:
        ttl = int(program.line())
        assert etcd_client["/a"] == 1
        program.signal(signal.SIGKILL)
        until(lambda: "/a" not in etcd_client, ttl + 10)


def test_a_process_that_was_frozen_too_long_learns_that_it_lost_before_it_writes(
    etcd_client: EtcdMiddleware, endpoint: str, etcd_prefix: str
) -> None:
    source = """
from link_kv import Session
from link_kv.errors import LeaseLost
session = Session(client, 5)
session.put('/a', 1)
say('ready')
hear()
say(session.alive)
try:
    session.put('/a', 2)
except LeaseLost:
    say('lost')
say(session.lost.wait(20))
"""
    with Program(source, endpoint, etcd_prefix) as program:
        program.expect("ready")
        program.freeze()
        until(lambda: "/a" not in etcd_client)
        program.tell("go on")
        program.thaw()
        program.expect("False")
        program.expect("lost")
        program.expect("True")
        assert "/a" not in etcd_client


def test_a_process_that_was_frozen_too_long_renews_when_told_to(
    etcd_client: EtcdMiddleware, endpoint: str, etcd_prefix: str
) -> None:
    source = """
from link_kv import Session
session = Session(client, 5, renew=True)
session.put('/a', 1)
say(session.lease)
hear()
"""
    with Program(source, endpoint, etcd_prefix) as program:
        lease = int(program.line())
        program.freeze()
        until(lambda: "/a" not in etcd_client)
        program.thaw()
        until(lambda: "/a" in etcd_client)
        assert etcd_client.entry("/a").lease not in (0, lease)


def test_a_forked_child_has_no_part_in_the_session(
    etcd_client: EtcdMiddleware, endpoint: str, etcd_prefix: str
) -> None:
    source = """
from link_kv import Session
from link_kv.errors import LeaseLost
from tests.leases import kept_alive
session = Session(client, 5)
session.put('/a', 1)
child = os.fork()
if child == 0:
    said = [session.alive, session.lost.is_set()]
    for act in (session.check, lambda: session.put('/b', 1), lambda: session.delete('/a')):
        try:
            act()
        except LeaseLost as error:
            said.append('fork' in str(error))
    session.close()
    session.close()
    said.append('/a' in client)
    mine = Session(client, 5)
    mine.put('/child', 1)
    say(*said, mine.alive)
    kept_alive(mine._lease)
    say('kept alive', mine.alive)
    hear()
    os._exit(0)
kept_alive(session._lease)
say('kept alive', session.alive)
hear()
say(session.alive)
os.waitpid(child, 0)
session.close()
say('/a' in client)
"""
    with Program(source, endpoint, etcd_prefix) as program:
        # Both are kept alive, each by its own process.
        said = sorted(program.line() for _ in range(3))
        assert said == ["False False True True True True True", "kept alive True", "kept alive True"]
        assert etcd_client["/a"] == 1
        assert etcd_client["/child"] == 1
        program.finish()


def test_a_session_of_a_dead_parent_is_not_kept_alive_by_its_child(
    etcd_client: EtcdMiddleware, endpoint: str, etcd_prefix: str
) -> None:
    source = """
from link_kv import Session
session = Session(client, 5)
session.put('/a', 1)
child = os.fork()
if child == 0:
    hear()
    os._exit(0)
say('ready')
hear()
"""
    with Program(source, endpoint, etcd_prefix) as program:
        program.expect("ready")
        program.signal(signal.SIGKILL)
        until(lambda: "/a" not in etcd_client)


def test_the_clock_goes_on_while_the_machine_sleeps() -> None:
    assert abs(keeper.now() - time.clock_gettime(time.CLOCK_BOOTTIME)) < 1


# What keeps them alive


@pytest.mark.parametrize("what", ["a login", "a greeting", "a new token"])
def test_the_patience_of_a_stream_is_for_all_that_precedes_it_too(
    proxy: Proxy, etcd_prefix: str, what: str
) -> None:
    """Other leases wait for it meanwhile."""
    options: dict[str, Any] = {"expected_cluster_id": int(identity(proxy.endpoint)[0])}
    if what != "a greeting":
        options = {"user": "user", "password": "secret"}
    client = connect(proxy.endpoint, etcd_prefix, timeout=3600.0, **options)
    caller = client._space.caller
    if what != "a login":
        client["/warm"] = 1  # etcd answers that it knows no logins
    failures: list[Unavailable] = []

    def try_it() -> None:
        try:
            if what == "a new token":
                run(caller.renew_token(0.5))
            else:
                run(caller.open(KEEP_ALIVE, 0.5))
        except Unavailable as failure:
            failures.append(failure)

    proxy.hold()
    thread = threading.Thread(target=try_it, daemon=True)
    thread.start()
    until(lambda: failures, 9)  # gRPC itself would notice after 11 s
    proxy.release()
    client.close()


class Losable:
    """A lease that is lost, and takes as long to come back as the others can wait."""

    def __init__(self, name: str, done: list[str], others: Session) -> None:
        self.id, self.ttl, self.due, self.expires = 0, 60, keeper.now(), math.inf
        self.alive = False
        self._name, self._done, self._others = name, done, others

    def prolong(self, sent: float, granted: int) -> None:
        raise AssertionError("it is not alive")

    def lose(self) -> bool:
        self._done.append(f"lose {self._name}")
        return True

    async def regain(self) -> None:
        due = self._others._lease.due
        self._done.append(f"regain {self._name}, others {'wait' if due <= keeper.now() else 'do not wait'}")
        self._others._lease.due = keeper.now()
        self.due = math.inf


def test_others_are_kept_alive_while_many_come_back(etcd_client: EtcdMiddleware) -> None:
    with Session(etcd_client, 60) as session:
        found = etcd_client._keepers[os.getpid()]
        done: list[str] = []
        leases = [Losable(name, done, session) for name in "abc"]
        with found._lock:
            found._leases.update(dict.fromkeys(leases))
        found.look()
        until(lambda: all(lease.due == math.inf for lease in leases))
        assert done[:3] == ["lose a", "lose b", "lose c"]
        assert [line for line in done if line.startswith("regain")] == [
            f"regain {name}, others do not wait" for name in "abc"
        ]
        assert session.alive
        for lease in leases:
            run(found.remove(lease, None))
