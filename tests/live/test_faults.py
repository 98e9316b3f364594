"""What is delivered while servers and connections fail, against the history that etcd holds.

The figures in ``docs/explanation/watching.md`` are from ``pytest -m slow tests/live``.
"""

from __future__ import annotations

import http.client
import json
import random
import shutil
import threading
import time
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from link_kv import AccessDenied, EtcdMiddleware, OutcomeUnknown, RevisionError, local
from link_kv._core.watching import settle
from link_kv._core.wire.calls import RANGE, run
from link_kv._core.wire.failures import UNAUTHENTICATED, WireFailure
from link_kv.live import Subscription, hub_of
from link_kv.plan import Delete
from link_kv.tree import MISSING
from tests.live.bridge import Bridge
from tests.live.history import History, Recorder, batches, compact
from tests.live.inbox import Inbox
from tests.live.workload import writing
from tests.processes import ask, until
from tests.wire.conftest import SLACK
from tests.wire.proxy import Proxy

PREFIX = "/ns"
sizes = pytest.mark.parametrize("writes", [800, pytest.param(25_000, marks=pytest.mark.slow)])


@pytest.fixture
def server() -> Iterator[local.LocalEtcd]:
    """A server of the test's own, to do with as it likes."""
    with local.start() as etcd:
        yield etcd


def connect(*endpoints: str, **options: Any) -> EtcdMiddleware:
    return EtcdMiddleware(endpoints=list(endpoints), prefix=PREFIX, timeout=10, **options)


class Watched:
    """Four subscriptions and a mirror, to be checked. ``whole``: as items are fed, in batches."""

    def __init__(self, client: EtcdMiddleware, whole: bool) -> None:
        self.inboxes = [Inbox() for _ in range(4)]
        self.latest = Inbox()
        self.whole = whole
        self.subscriptions = [
            Subscription(hub_of(client), client._space.place(path), inbox, queue=queue, whole=whole)
            for path, inbox, queue in zip(
                ("/t", "/t", "/t/k3", "/"), self.inboxes, (10_000, 100, 10_000, 10_000), strict=True
            )
        ]
        self.newest = client.subscribe("/t", self.latest, policy="latest")
        self.mirror = client.mirror("/t")
        self.starts = [subscription.revision for subscription in self.subscriptions]
        self.first = dict(self.mirror.items())
        self.matched: list[int] = []

    @property
    def gaps(self) -> int:
        return sum(subscription.stats.gaps for subscription in self.subscriptions)

    def check(self, recorder: Recorder, end: int) -> list[int]:
        """Check all up to a revision that changes all they watch; how many revisions each got."""
        recorder.wait(end)
        for subscription in (*self.subscriptions, self.newest):
            until(lambda subscription=subscription: subscription.revision >= end, 120)
        matched = []
        for subscription, inbox, start in zip(self.subscriptions, self.inboxes, self.starts, strict=True):
            came = inbox.items if self.whole else batches(inbox.items)
            came = [batch for batch in came if batch.changes or batch.synthetic]  # not for housekeeping alone
            matched.append(History(recorder, subscription.path).check(came, start, end))
            assert subscription.stats.gaps == sum(batch.synthetic for batch in came)
            until(lambda subscription=subscription: subscription.state == "live")
            assert subscription.stats.callback_errors == 0
        state = History(recorder, "/t").state_at(end)
        view = {f"/t/{key}": value for key, value in self.first.items()}
        for change_ in self.latest.items:
            view.pop(change_.path, None)
            if change_.kind == "put":
                view[change_.path] = change_.value
        assert view == state
        assert self.mirror.wait(end, 20)
        assert {f"/t/{key}": value for key, value in self.mirror.items()} == state
        assert len(self.mirror) == len(state)
        return matched


def finish(client: EtcdMiddleware) -> int:
    """A revision that changes everything that is watched."""
    client.update({"/t/end": -1, "/t/k3": -2})
    return client.entry("/t/k3").revision


# The checker's runs


def skip_when_it_panicked(server: local.LocalEtcd) -> None:
    """An etcd below 3.5.5 does, now and then, when a transaction that only reads is broken off."""
    if not server.running and tuple(map(int, server.version.split("."))) < (3, 5, 5):
        pytest.skip(f"etcd {server.version} itself failed: it ended {server.outcome()}")


def run_with(server: local.LocalEtcd, disturb: Any, writes: int, *, whole: bool = False) -> Watched:
    endpoint = server.endpoints[0]
    with (
        Recorder([endpoint], PREFIX) as recorder,
        Bridge(endpoint) as bridge,
        connect(bridge.endpoint) as client,
        connect(endpoint) as writer,
    ):
        watched = Watched(client, whole)
        with writing([endpoint], PREFIX, writes) as done:
            disturb(bridge, done, recorder)
        bridge.mend()
        skip_when_it_panicked(server)
        watched.matched = watched.check(recorder, finish(writer))
        return watched


@sizes
def test_without_faults(server: local.LocalEtcd, writes: int) -> None:
    watched = run_with(server, lambda bridge, done, recorder: done.wait(300), writes)
    assert watched.matched[0] > writes / 2
    assert watched.gaps == 0


@sizes
def test_a_server_that_restarts(server: local.LocalEtcd, writes: int) -> None:
    rng = random.Random(1)

    def disturb(bridge: Bridge, done: threading.Event, recorder: Recorder) -> None:
        for _ in range(3 if writes < 1000 else 30):
            done.wait(rng.uniform(0.1, 0.4))
            server.restart()

    assert run_with(server, disturb, writes).gaps == 0


@sizes
def test_a_server_that_stands_still(server: local.LocalEtcd, writes: int) -> None:
    rng = random.Random(2)

    def disturb(bridge: Bridge, done: threading.Event, recorder: Recorder) -> None:
        while not done.wait(rng.uniform(0.1, 0.3)):
            server.pause()
            done.wait(rng.uniform(0.1, 0.3))
            server.resume()

    assert run_with(server, disturb, writes).gaps == 0


@sizes
def test_a_connection_that_breaks(server: local.LocalEtcd, writes: int) -> None:
    rng = random.Random(3)

    def disturb(bridge: Bridge, done: threading.Event, recorder: Recorder) -> None:
        while not done.wait(rng.uniform(0.05, 0.5)):
            skip_when_it_panicked(server)
            bridge.cut()
            done.wait(rng.uniform(0.0, 0.3))
            bridge.mend()

    assert run_with(server, disturb, writes).gaps == 0


@sizes
def test_compaction_every_200_ms_while_disconnected(server: local.LocalEtcd, writes: int) -> None:
    """History that is gone is made up for by exactly what differs, and that is marked and counted."""
    endpoint = server.endpoints[0]

    def disturb(bridge: Bridge, done: threading.Event, recorder: Recorder) -> None:
        while not done.is_set():
            skip_when_it_panicked(server)
            bridge.cut()
            for _ in range(3):
                done.wait(0.2)
                header = ask(endpoint, "/v3/kv/range", {"key": "YQ=="})["header"]
                recorder.wait(int(header["revision"]) - 1)
                try_compact(endpoint, int(header["revision"]))
            bridge.mend()
            done.wait(1.5)
        # Once more, however long it took to open the watches again before.
        bridge.cut()
        with connect(endpoint) as other:
            other.update({"/t/end": -3, "/t/k3": -4})
            revision = other.entry("/t/k3").revision
        recorder.wait(revision)
        try_compact(endpoint, revision)
        bridge.mend()

    assert run_with(server, disturb, writes, whole=True).gaps >= 4


def try_compact(endpoint: str, revision: int) -> None:
    answer = ask(endpoint, "/v3/kv/compaction", {"revision": revision})
    assert "header" in answer or "compacted" in answer["error"]


@sizes
def test_a_cluster_that_loses_a_member(writes: int) -> None:
    with local.start_cluster(3) as cluster:
        first = cluster.members[0]
        others = [endpoint for endpoint in cluster.endpoints if endpoint not in first.endpoints]
        with Recorder(others, PREFIX) as recorder, connect(*cluster.endpoints) as client:
            watched = Watched(client, whole=False)
            with writing(others, PREFIX, writes) as done:
                for _ in range(2):
                    done.wait(0.3)
                    first.kill()
                    done.wait(0.3)
                    first.restart()
            watched.check(recorder, finish(client))


# One fault at a time, and none


def test_one_connection_one_stream_and_one_watch_for_each_path(server: local.LocalEtcd) -> None:
    [endpoint] = server.endpoints

    def counted() -> tuple[float, float]:
        """How many streams and watches etcd has, by its own account."""
        with urllib.request.urlopen(f"http://{endpoint}/metrics") as page:
            lines = dict(line.rsplit(" ", 1) for line in page.read().decode().splitlines() if line[0] != "#")
        names = ("watch_stream_total", "watcher_total")
        return tuple(float(lines[f"etcd_debugging_mvcc_{name}"]) for name in names)  # type: ignore[return-value]

    with Proxy(endpoint) as proxy, connect(proxy.endpoint) as client:
        client["/a"] = 1
        assert proxy.connections == 1
        subscriptions = [client.subscribe(f"/{number % 10}", Inbox()) for number in range(100)]
        mirrors = [client.mirror(f"/{number}") for number in range(5)]
        assert proxy.connections == 2  # calls have another
        assert counted() == (1, 10)
        for each in (*subscriptions[:90], *mirrors):
            each.close()
        assert counted() == (1, 10)
        for subscription in subscriptions[90:]:
            subscription.close()
        until(lambda: counted() == (0, 0))


def test_the_state_is_told(server: local.LocalEtcd) -> None:
    states, inbox = Inbox(), Inbox()
    with connect(*server.endpoints) as client:
        subscription = client.subscribe("/a", inbox, on_state=states)
        mirror = client.mirror("/a")
        server.kill()
        states.until(lambda items: items == ["stale"])
        assert (subscription.state, mirror.state) == ("stale", "stale")
        server.restart()
        states.until(lambda items: items == ["stale", "live"])
        until(lambda: mirror.state == "live")
        assert subscription.stats.reconnects == 1
        assert subscription.stats.gaps == 0
        client["/a"] = 1
        inbox.wait(1)


def test_members_that_say_nothing_do_not_keep_a_watch_from_being_opened_again(
    server: local.LocalEtcd,
) -> None:
    """As while they start. Of a timeout of a minute each would have the 5 s after which connecting ends."""
    [endpoint] = server.endpoints
    states = Inbox()
    with ExitStack() as stack:
        good, *silent = (stack.enter_context(Proxy(endpoint)) for _ in range(3))
        endpoints = [proxy.endpoint for proxy in (good, *silent)]
        client = stack.enter_context(EtcdMiddleware(endpoints=endpoints, prefix=PREFIX, timeout=60))
        client.subscribe("/a", Inbox(), on_state=states)
        for proxy in silent:
            proxy.hold()
        good.cut()
        states.until(lambda items: items == ["stale", "live"], 8)


def test_a_frozen_server_is_noticed(server: local.LocalEtcd) -> None:
    with connect(*server.endpoints) as client:
        inbox = Inbox()
        subscription = client.subscribe("/a", inbox)
        server.pause()
        began = time.monotonic()
        until(lambda: subscription.state == "stale", 20)
        assert time.monotonic() - began < 11 + SLACK
        server.resume()
        until(lambda: subscription.state == "live")
        client["/a"] = 1
        inbox.wait(1)


def test_a_member_that_lost_its_cluster_is_noticed() -> None:
    """It answers and keeps its streams open, but hears of no change any more."""
    with local.start_cluster(3) as cluster:
        lonely = cluster.members[0]
        with connect(*lonely.endpoints) as client, connect(*cluster.endpoints) as writer:
            inbox, states = Inbox(), Inbox()
            client.subscribe("/a", inbox, on_state=states)
            for member in cluster.members[1:]:
                member.pause()
            assert states.wait(1, 20) == ["stale"]
            for member in cluster.members[1:]:
                member.resume()
            until(lambda: states.items[-1] == "live", 20)

            def written() -> bool:
                try:
                    writer["/a"] = 1
                except OutcomeUnknown:  # an election may be under way
                    return False
                return True

            until(written)
            assert inbox.wait(1)[0].value == 1


@pytest.mark.parametrize("compacted", [False, True])
def test_live_is_told_when_what_was_missed_has_come(server: local.LocalEtcd, compacted: bool) -> None:
    [endpoint] = server.endpoints
    with Bridge(endpoint) as bridge, connect(bridge.endpoint) as client, connect(endpoint) as other:
        heard, quiet = Inbox(), Inbox()
        client.subscribe("/a", heard, on_state=heard)
        nothing = client.subscribe("/quiet", quiet, on_state=quiet)
        mirror = client.mirror("/a")
        for number in range(5):
            bridge.cut()
            until(lambda: {mirror.state, nothing.state} == {"stale"})
            written = other.put("/a", number)
            other["/b"] = number
            if compacted:
                compact(endpoint, written)
            bridge.mend()
            until(lambda: mirror.state == "live")
            assert mirror[""] == number
            told = heard.until(lambda items: len(items) >= 3 and items[-1] == "live")
            assert (told[0], told[1].value, told[1].synthetic, told[2:]) == (
                "stale",
                number,
                compacted,
                ["live"],
            )
            heard.items.clear()
            until(lambda: nothing.state == "live")
        if not compacted:  # else it may be known to be complete before etcd says that it was compacted
            assert quiet.wait(10) == ["stale", "live"] * 5


def test_an_iteration_from_the_past_is_live_again_when_what_it_missed_has_come(
    server: local.LocalEtcd,
) -> None:
    [endpoint] = server.endpoints
    with Bridge(endpoint) as bridge, connect(bridge.endpoint) as client, connect(endpoint) as other:
        changes = client.watch("/a", revision=other.put("/a", -1))
        assert next(changes).value == -1
        feed = changes.feed
        assert feed is not None
        for number in range(5):
            bridge.cut()
            until(lambda: changes.state == "stale")
            written = other.put("/a", number)
            bridge.mend()
            until(lambda: changes.state == "live")
            assert feed.revision >= written
            assert next(changes).value == number
        assert changes.stats.reconnects == 5


def test_a_mirror_shows_that_everything_was_cleared(
    server: local.LocalEtcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settle, "PATIENCE", 60)
    with EtcdMiddleware(endpoints=server.endpoints) as client:
        client["/a"] = {"x": 1}
        with client.mirror("/a") as mirror:
            assert client._space.caller.settling is not None
            [prepared] = client._space.caller.settling.prepare([Delete(b"\0", b"\0")])
            assert prepared.previous
            client.raw.clear(force=True)
            assert dict(mirror) == {}


def test_a_mirror_is_waited_for_while_etcd_cannot_be_reached(server: local.LocalEtcd) -> None:
    [endpoint] = server.endpoints
    with Bridge(endpoint) as bridge, connect(bridge.endpoint) as client, connect(endpoint) as other:
        mirror = client.mirror("/a")
        server.pause()
        assert not mirror.wait(10**15, 0.2)
        server.resume()
        bridge.cut()
        until(lambda: mirror.state == "stale")
        revision = other.put("/b", 1)
        assert not mirror.wait(revision, 0.2)
        bridge.mend()
        assert mirror.wait(revision, 20)
        until(lambda: mirror.state == "live")


def test_a_delete_at_exactly_the_compacted_revision(server: local.LocalEtcd) -> None:
    """Up to 3.5.15 a watch from that revision on leaves the delete out."""
    endpoint = server.endpoints[0]
    with Bridge(endpoint) as bridge, connect(bridge.endpoint) as client, connect(endpoint) as writer:
        writer["/a"] = {"x": 1, "y": 2}
        inbox = Inbox()
        subscription = client.subscribe("/a", inbox)
        last = writer.put("/a/y", 3)
        inbox.wait(1)
        bridge.cut()
        gone = writer.delete("/a/x")
        assert gone == last + 1
        compact(endpoint, gone)
        bridge.mend()
        change_ = inbox.wait(2)[1]
        assert (change_.path, change_.kind, change_.previous, change_.synthetic) == (
            "/a/x",
            "delete",
            1,
            True,
        )
        until(lambda: subscription.stats.gaps == 1)


def test_a_queue_that_was_full_when_history_was_compacted(server: local.LocalEtcd) -> None:
    release, inbox = threading.Event(), Inbox()

    def slow(change_: Any) -> None:
        release.wait(30)
        inbox(change_)

    with connect(*server.endpoints) as client:
        subscription = client.subscribe("/a", slow, queue=5)
        for number in range(20):
            client[f"/a/{number % 4}"] = number
        del client["/a/0"]
        until(lambda: subscription.state == "stale")
        compact(server.endpoints[0], client.put("/a/1", "last"))
        release.set()
        changes = inbox.until(lambda items: items and items[-1].path == "/a/0" and items[-1].synthetic)
    real = [change_.value for change_ in changes if not change_.synthetic]
    assert real == list(range(len(real)))
    made_up = {change_.path: change_ for change_ in changes if change_.synthetic}
    assert (made_up["/a/0"].value, made_up["/a/0"].kind) == (MISSING, "delete")
    assert {path: change_.value for path, change_ in made_up.items() if path != "/a/0"} == {
        "/a/1": "last",
        "/a/2": 18,
        "/a/3": 19,
    }
    assert subscription.stats.gaps == 1


def test_a_past_that_was_compacted(server: local.LocalEtcd) -> None:
    with connect(*server.endpoints) as client:
        first = client.put("/a", 1)
        second = client.put("/a", 2)
        third = client.put("/a", 3)
        compact(server.endpoints[0], second)
        with pytest.raises(RevisionError):
            client.watch("/a", revision=first)
        with client.watch("/a", revision=second) as changes:
            change_ = next(changes)
            assert (change_.value, change_.previous, change_.revision) == (2, MISSING, second)
            assert next(changes).previous == 2
        with client.watch("/a", revision=third) as changes:
            assert next(changes).previous == 2


@pytest.mark.parametrize("more", [0, 40], ids=["behind", "ahead"])
def test_a_wiped_server(server: local.LocalEtcd, more: int) -> None:
    """It comes back with the same ids, and with fewer revisions, or with more by the time we are back."""
    endpoint = server.endpoints[0]
    with Bridge(endpoint) as bridge, connect(bridge.endpoint) as client:
        client["/a"] = {str(number): number for number in range(5)}
        for number in range(20):
            client["/a/0"] = number
        inbox, empty = Inbox(), Inbox()
        subscription = client.subscribe("/a", inbox)
        client.subscribe("/empty", empty)
        mirror = client.mirror("/a")
        bridge.cut()
        server.stop()
        server.restart()
        with connect(endpoint) as writer:
            writer["/a"] = {"1": 1, "new": "n"}
            writer["/empty/x"] = 1
            for number in range(more):
                writer["/b"] = number
            bridge.mend()
            changes = inbox.until(lambda items: len(items) >= 5)
            assert all(change_.synthetic for change_ in changes)
            told = {change_.path: change_.value for change_ in changes}
            assert told.pop("/a/1", 1) == 1
            assert told == {"/a/0": MISSING, "/a/2": MISSING, "/a/3": MISSING, "/a/4": MISSING, "/a/new": "n"}
            assert empty.wait(1)[0].value == 1
            until(lambda: subscription.state == "live")
            assert subscription.stats.gaps == 1
            revision = writer.put("/a/new", "m")
            assert inbox.wait_revision(revision)[-1] == ("/a/new", "m", "n", revision, "put", False)
            until(lambda: subscription.revision == revision)
            assert mirror.snapshot() == {"1": 1, "new": "m"}


def test_a_restored_backup(tmp_path: Path) -> None:
    data, backup = tmp_path / "data", tmp_path / "backup"
    with local.start(data) as server, connect(*server.endpoints) as client:
        client["/a"] = {"x": 1, "y": 1}
        server.stop()
        shutil.copytree(data, backup)
        server.restart()
        inbox = Inbox()
        subscription = client.subscribe("/a", inbox)
        client["/a/x"] = 2
        client["/a/z"] = 3
        inbox.wait(2)
        server.stop()
        shutil.rmtree(data)
        shutil.copytree(backup, data)
        server.restart()
        changes = inbox.wait(4)[2:]
        assert {(change_.path, change_.value, change_.synthetic) for change_ in changes} == {
            ("/a/x", 1, True),
            ("/a/z", MISSING, True),
        }
        revision = client.put("/a/y", 5)
        inbox.wait_revision(revision)
        assert subscription.stats.gaps == 1


# Logins


def auth(endpoint: str, path: str, token: str = "", **body: Any) -> Any:
    """A call of etcd's for users and roles."""
    connection = http.client.HTTPConnection(endpoint, timeout=10)
    try:
        headers = {"Authorization": token} if token else {}
        connection.request("POST", f"/v3/auth/{path}", json.dumps(body), headers)
        answer = json.loads(connection.getresponse().read())
    finally:
        connection.close()
    assert "error" not in answer, answer
    return answer


def base64(text: str) -> str:
    return b64encode(text.encode()).decode()


@pytest.fixture
def guarded(request: pytest.FixtureRequest) -> Iterator[local.LocalEtcd]:
    """A server with logins. With ``forgetful`` tokens expire one second after their last use.

    ``reader`` reads /ns, ``narrow`` only /ns/a and the housekeeping that is not a tree's own.
    """
    with local.start(args=getattr(request, "param", [])) as etcd:
        with connect(*etcd.endpoints) as client:
            client["/a"] = {"x": 0}
        endpoint = etcd.endpoints[0]
        roles = {"root": [], "reader": ["/ns/ /ns0"], "narrow": ["/ns/.link/ /ns/.link0", "/ns/a /ns/a0"]}
        for name, ranges in roles.items():
            auth(endpoint, "user/add", name=name, password="pw")
            if ranges:
                auth(endpoint, "role/add", name=name)
            for key, end in (text.split() for text in ranges):
                perm = {"permType": "READ", "key": base64(key), "range_end": base64(end)}
                auth(endpoint, "role/grant", name=name, perm=perm)
            auth(endpoint, "user/grant", user=name, role=name)
        auth(endpoint, "enable")
        yield etcd


forgetful = pytest.mark.parametrize("guarded", [["--auth-token-ttl=1"]], indirect=True, ids=["forgetful"])


def expire(client: EtcdMiddleware) -> None:
    """Wait until the hub's token has expired."""
    caller = hub_of(client)._space.caller
    token = run(caller.token())

    def expired() -> bool:
        time.sleep(1.2)  # each time that it is asked prolongs it
        try:
            run(caller.wire.send(caller.config.endpoints[0], RANGE, b"\x0a\x04/ns/", 5, token))
        except WireFailure as failure:
            return failure.code == UNAUTHENTICATED
        return False

    until(expired)


@forgetful
def test_an_expired_token_is_fetched_again(guarded: local.LocalEtcd) -> None:
    login = {"user": "reader", "password": "pw"}
    with (
        connect(*guarded.endpoints, **login) as client,
        connect(*guarded.endpoints, user="root", password="pw") as root,
    ):
        one, two = Inbox(), Inbox()
        first = client.subscribe("/a", one)
        expire(client)
        second = client.subscribe("/b", two)
        root["/a/x"] = 1
        root["/b"] = 2
        assert one.wait(1)[0].value == 1
        assert two.wait(1)[0].value == 2
        assert (first.state, second.state) == ("live", "live")
        assert first.stats.gaps == 0


def test_a_denial_is_told_and_disturbs_nobody(guarded: local.LocalEtcd) -> None:
    with (
        connect(*guarded.endpoints, user="narrow", password="pw") as client,
        connect(*guarded.endpoints, user="root", password="pw") as root,
    ):
        inbox = Inbox()
        subscription = client.subscribe("/a", inbox)
        with pytest.raises(AccessDenied, match=r"^/secret: .* reads from /ns/secret to /ns/secret0"):
            client.subscribe("/secret", print)
        with pytest.raises(AccessDenied):
            client.mirror()
        with pytest.raises(AccessDenied):
            client.watch("/b")
        within = Inbox()
        client.subscribe("/a/x", within)
        root["/a/x"] = 1
        assert inbox.wait(1)[0].value == within.wait(1)[0].value == 1
        assert subscription.stats.reconnects == 0
        with pytest.raises(AccessDenied):
            EtcdMiddleware(endpoints=guarded.endpoints, user="narrow", password="pw").subscribe(
                "/ns/a", print
            )


def test_a_role_that_is_taken_away_loses_the_watch_at_the_next_connection(guarded: local.LocalEtcd) -> None:
    endpoint = guarded.endpoints[0]
    with Bridge(endpoint) as bridge, connect(bridge.endpoint, user="reader", password="pw") as client:
        states = Inbox()
        subscription = client.subscribe("/a", Inbox(), on_state=states)
        changes = client.watch("/a")
        root = auth(endpoint, "authenticate", name="root", password="pw")["token"]
        auth(endpoint, "user/revoke", root, name="reader", role="reader")
        bridge.cut()
        bridge.mend()
        states.until(lambda items: items[-1:] == ["lost"])
        assert subscription.state == "lost"
        told: list[AccessDenied] = []

        def ask_again() -> None:
            for _ in range(3):
                with pytest.raises(AccessDenied) as caught:
                    next(changes)
                told.append(caught.value)

        threading.Thread(target=ask_again, daemon=True).start()
        until(lambda: len(told) == 3)
