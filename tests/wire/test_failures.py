"""What a caller sees when servers fail: the rows of docs/explanation/failures.md, each with a bound."""

# Before the trouble begins each test reads its value once. From then on the client asks for it by a plain
# Range. An etcd below 3.5.5 panics when a transaction that only reads is broken off.

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from link_kv import EtcdMiddleware, local
from link_kv._core.wire.calls import STATUS, WATCH, WireFailure, run
from link_kv._core.wire.requests import field
from link_kv.errors import DeadlineExceeded, LinkKVError, OutcomeUnknown, Unavailable
from tests.processes import until
from tests.wire.conftest import SLACK, Connect, allow, in_doubt, refused, within
from tests.wire.proxy import Proxy
from tests.wire.streams import asked, caller, watch


def in_use(client: EtcdMiddleware) -> str:
    return run(caller(client).endpoint())


def leader(cluster: local.LocalCluster) -> local.LocalEtcd:
    """The member that leads, once all say the same."""
    found: list[local.LocalEtcd] = []

    def agreed() -> bool:
        statuses = []
        for member in cluster.members:
            with EtcdMiddleware(endpoints=member.endpoints, timeout=30) as client:
                statuses.append(_status(client))
        leaders = {status.leader for status in statuses}
        found[:] = [
            member
            for member, status in zip(cluster.members, statuses, strict=True)
            if status.header.member_id == status.leader
        ]
        return len(leaders) == 1 and len(found) == 1

    until(agreed)
    return found[0]


def _status(client: EtcdMiddleware) -> Any:
    return run(caller(client).call(STATUS, b""))


# One server


def test_a_server_that_is_stopped(server: local.LocalEtcd, connect: Connect) -> None:
    client = connect(*server.endpoints, timeout=20)
    client["/a"] = 1
    assert client["/a"] == 1
    server.kill()
    allow(client, 0.5)
    for action in (lambda: client["/a"], lambda: client.put("/a", 2), lambda: client.pop("/a")):
        refused(action, "no etcd answers at .*refused")
    allow(client, 20)
    server.restart()
    assert client["/a"] == 1


def test_a_call_may_take_longer_than_grpc_can_count(etcd: Any, connect: Connect) -> None:
    client = connect(*etcd.endpoints, timeout=1e300)
    client["/a"] = 1
    assert client["/a"] == 1
    _, stream = run(caller(client).open(WATCH, timeout=1e300))
    run(stream.send(field(b"\x0a", field(b"\x0a", b"a"))))
    assert run(stream.receive()).created
    stream.cancel()


def test_a_server_that_never_was(connect: Connect) -> None:
    client = connect("127.0.0.1:1", timeout=0.3)
    refused(lambda: client.put("/a", 1), r"no etcd answers at 127\.0\.0\.1:1: .*refused")


def test_a_name_that_is_unknown(connect: Connect) -> None:
    client = connect("nobody.invalid:2379", timeout=1)  # a resolver takes its time as well
    refused(lambda: client.put("/a", 1), r"no etcd answers at nobody\.invalid:2379")


def test_a_server_that_restarts_costs_a_call_no_more_than_the_restart(
    server: local.LocalEtcd, connect: Connect
) -> None:
    client = connect(*server.endpoints, timeout=20)
    client["/a"] = 1
    assert client["/a"] == 1
    server.kill()
    restarted: list[float] = []
    thread = threading.Thread(target=lambda: (server.restart(), restarted.append(time.monotonic())))
    thread.start()
    assert client["/a"] == 1
    answered = time.monotonic()
    thread.join()
    assert answered - restarted[0] < 2 + SLACK
    client["/a"] = 2
    assert client["/a"] == 2


def test_a_frozen_server_and_a_read(server: local.LocalEtcd, connect: Connect) -> None:
    client = connect(*server.endpoints, timeout=20)
    client["/a"] = 1
    assert client["/a"] == 1
    server.pause()
    allow(client, 0.5)
    with within(1), pytest.raises(DeadlineExceeded, match=r"no answer from etcd at .* within 0(\.\d+)? s"):
        client["/a"]
    server.resume()
    allow(client, 20)
    assert client["/a"] == 1


def test_a_frozen_server_and_a_write(server: local.LocalEtcd, connect: Connect) -> None:
    """The first write may have arrived. Those after it are not sent before the server answers."""
    client = connect(*server.endpoints, timeout=20)
    client["/a"] = 1
    assert client["/a"] == 1
    server.pause()
    allow(client, 0.5)
    in_doubt(lambda: client.put("/a", 2))
    for _ in range(3):
        with within(1), pytest.raises(DeadlineExceeded):
            client["/a"] = 3
    server.resume()
    allow(client, 20)
    assert client["/a"] in (1, 2)


def test_a_frozen_server_is_noticed_on_an_idle_connection(server: local.LocalEtcd, connect: Connect) -> None:
    client = connect(*server.endpoints, timeout=60)
    client["/a"] = 1
    assert client["/a"] == 1
    server.pause()
    with within(12), pytest.raises(OutcomeUnknown):
        client["/a"] = 2


def test_a_frozen_server_is_noticed_on_a_stream(server: local.LocalEtcd, connect: Connect) -> None:
    client = connect(*server.endpoints)
    stream = watch(client)
    client["/a"] = 1
    assert run(stream.receive()).events
    server.pause()
    with within(12), pytest.raises(WireFailure):
        run(stream.receive())


# A connection that is cut


def test_a_connection_that_is_cut_is_made_again(proxy: Proxy, connect: Connect) -> None:
    client = connect(proxy.endpoint, timeout=20)
    client["/a"] = 1
    assert client["/a"] == 1
    for _ in range(20):
        proxy.cut()
        with within(2):
            assert client["/a"] == 1
    assert proxy.accepted >= 20


def test_a_write_whose_connection_is_cut(proxy: Proxy, connect: Connect) -> None:
    client = connect(proxy.endpoint, timeout=20)
    client["/a"] = 1
    assert client["/a"] == 1
    proxy.hold()
    failure: list[LinkKVError] = []

    def write() -> None:
        try:
            client["/a"] = 2
        except LinkKVError as error:
            failure.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    until(lambda: b"/a" in proxy.pending())
    assert thread.is_alive()
    proxy.cut()
    thread.join(20)
    assert isinstance(failure[0], OutcomeUnknown)
    proxy.release()
    assert client["/a"] == 1


def test_a_link_that_is_cut_off_and_comes_back(proxy: Proxy, connect: Connect) -> None:
    client = connect(proxy.endpoint, timeout=20)
    client["/a"] = 1
    assert client["/a"] == 1
    allow(client, 0.5)

    def answers() -> bool:
        try:
            return bool(client["/a"] == 1)
        except Unavailable:
            return False

    proxy.close()
    for action in (lambda: client["/a"], lambda: client.put("/a", 2)):
        refused(action)
    proxy.reopen()
    until(answers, 2 + SLACK)
    proxy.hold()
    with within(1), pytest.raises(DeadlineExceeded):
        client["/a"]
    proxy.release()
    until(answers, 2 + SLACK)


def test_an_outage_costs_no_more_than_a_second_after_it(proxy: Proxy, connect: Connect) -> None:
    """gRPC would wait longer from try to try, up to two minutes."""
    client = connect(proxy.endpoint, timeout=60)
    client["/a"] = 1
    assert client["/a"] == 1
    often: list[bool] = []
    reopened: list[float] = []
    proxy.close()

    def outage() -> None:
        often.append(proxy.hang_up(11, 8 + SLACK))  # the last of them would come after 14 s
        proxy.reopen()
        reopened.append(time.monotonic())

    thread = threading.Thread(target=outage, daemon=True)
    thread.start()
    assert client["/a"] == 1
    answered = time.monotonic()
    thread.join()
    assert often == [True]
    assert answered - reopened[0] < 1.5 + SLACK


def test_a_slow_link_can_connect(etcd: Any, connect: Connect) -> None:
    """gRPC's option for the least time between two tries is also the most time that one may take."""
    with Proxy(etcd.endpoints[0]) as slow:
        slow.hold()
        client = connect(slow.endpoint, timeout=20)
        # Later than the next try would be, and sooner than this one is given up.
        threading.Timer(1.5, slow.release).start()
        with within(3.5):
            client["/a"] = 1
        assert slow.accepted == 1


# Three members


@pytest.mark.parametrize("which", ["leader", "follower"])
def test_a_frozen_member_among_three_costs_a_read_a_fraction_of_its_deadline(
    cluster: local.LocalCluster, connect: Connect, which: str
) -> None:
    frozen = leader(cluster)
    if which == "follower":
        frozen = next(member for member in cluster.members if member is not frozen)
    others = [endpoint for endpoint in cluster.endpoints if endpoint not in frozen.endpoints]
    client = connect(*frozen.endpoints, *others, timeout=18)
    client["/a"] = 1
    assert client["/a"] == 1
    frozen.pause()
    with within(6):  # a sixth, and the election
        assert client["/a"] == 1
    endpoints = asked(client)
    with within(2):
        assert client["/a"] == 1
        client["/a"] = 2
    assert set(endpoints) <= set(others)
    assert in_use(client) not in frozen.endpoints


def test_a_frozen_member_costs_a_new_client_no_write(cluster: local.LocalCluster, connect: Connect) -> None:
    leads = leader(cluster)
    frozen = next(member for member in cluster.members if member is not leads)
    others = (endpoint for endpoint in cluster.endpoints if endpoint not in frozen.endpoints)
    client = connect(*frozen.endpoints, *others, timeout=12)
    frozen.pause()
    with within(4):
        client["/a"] = 1


def test_a_killed_leader_costs_an_election(cluster: local.LocalCluster, connect: Connect) -> None:
    """Writes that are not sent while there is no leader are not in doubt."""
    client = connect(*cluster.endpoints, timeout=20)
    client["/a"] = 0
    first = leader(cluster)
    first.kill()
    doubtful = done = 0
    with within(10):
        for number in range(1, 50):
            try:
                client["/a"] = number
                done = number
            except OutcomeUnknown:
                doubtful += 1
    assert doubtful <= 3  # one for each election; a busy machine may need more than one
    assert done <= client["/a"] <= 49


def test_a_member_that_is_cut_off_from_its_cluster(cluster: local.LocalCluster, connect: Connect) -> None:
    """It refuses at once, and the next one is asked."""
    lonely = cluster.members[0]
    client = connect(*lonely.endpoints, timeout=20)
    client["/a"] = 1
    assert client["/a"] == 1
    for member in cluster.members[1:]:
        member.pause()
    allow(client, 1)

    def no_leader() -> bool:
        try:
            client["/a"] = 2
        except Unavailable as error:
            return "no leader" in str(error) and not isinstance(error, OutcomeUnknown)
        return False

    until(no_leader)
    allow(client, 2)
    with within(2.5), pytest.raises(Unavailable, match="refused for now: no leader"):
        client["/a"]


def test_a_member_goes_and_the_next_takes_over(
    cluster: local.LocalCluster, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    leads = leader(cluster)
    first = next(member for member in cluster.members if member is not leads)
    gone, following = first.endpoints[0], next(e for e in cluster.endpoints if e not in first.endpoints)
    client = connect(gone, following, timeout=20)
    client["/a"] = 1
    assert client["/a"] == 1
    first.kill()
    with caplog.at_level(logging.INFO, "link_kv.wire"), within(5):
        assert client["/a"] == 1
    assert any(
        f"etcd at {gone} does not answer, going on with {following}" in line for line in caplog.messages
    )
    assert f"etcd at {following} answers" in caplog.messages


def test_all_members_are_tried_before_a_read_fails(cluster: local.LocalCluster, connect: Connect) -> None:
    client = connect(*cluster.endpoints, timeout=20)
    client["/a"] = 1
    assert client["/a"] == 1
    for member in cluster.members:
        member.pause()
    allow(client, 2)
    with within(2.5), pytest.raises(DeadlineExceeded):
        client["/a"]


# Many at once


def test_threads_go_on_while_the_connection_breaks(proxy: Proxy, connect: Connect) -> None:
    client = connect(proxy.endpoint, timeout=20)
    client["/n"] = 0
    assert client["/n"] == 0
    errors: list[BaseException] = []

    def read(stop: Callable[[], bool]) -> None:
        try:
            while not stop():
                assert client["/n"] == 0
        except BaseException as error:  # noqa: BLE001 - any of them fails the test
            errors.append(error)

    stop = threading.Event()
    threads = [threading.Thread(target=read, args=(stop.is_set,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        proxy.cut()
        stop.wait(0.05)
    stop.set()
    for thread in threads:
        thread.join(20)
    assert not errors


def test_what_is_no_etcd(connect: Connect) -> None:
    """A web server, and one that hangs up."""
    with (
        HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as web,
        socket.create_server(("127.0.0.1", 0)) as mute,
    ):
        thread = threading.Thread(target=web.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        hanging_up = threading.Thread(target=lambda: mute.accept()[0].close(), daemon=True)
        hanging_up.start()
        for listener in (web.server_address, mute.getsockname()):
            client = connect(f"127.0.0.1:{listener[1]}", timeout=0.5)
            with within(1), pytest.raises((Unavailable, LinkKVError)) as caught:
                client["/a"] = 1
            assert not isinstance(caught.value, OutcomeUnknown)
        web.shutdown()
        thread.join()
        socket.create_connection(mute.getsockname(), 10).close()  # a client that rested may not have come
        hanging_up.join(20)
        assert not hanging_up.is_alive()
