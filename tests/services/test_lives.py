"""What happens when a service or a client dies, returns, or is cut off."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from link_kv import (
    Closed,
    DeadlineExceeded,
    KeyExists,
    LockLost,
    LockRefused,
    OutcomeUnknown,
    RemoteError,
    Unavailable,
    local,
)
from link_kv._core.leasing.presence import Presence
from link_kv._core.links import registry
from link_kv._core.wire.calls import run
from link_kv._core.wire.exchange import Exchange
from link_kv.links import Client, LinkedClient, connect
from link_kv.plan import Get
from link_kv.services import Service, run_services

from ..processes import refuse_thread, until
from ..wire.proxy import Proxy
from .echo import Echo

ROOT = Path(__file__).parent.parent.parent


def linked(name: str = "Echo", **options: Any) -> LinkedClient:
    return LinkedClient(name, timeout=30, **options)


def test_a_service_that_is_killed_fails_its_callers_at_once(program: Any) -> None:
    process = program()
    with linked() as link:
        waiting = [link.wait(asynchronous=True) for _ in range(3)]
        blocked: list[BaseException] = []

        def block() -> None:
            try:
                link.wait()
            except Unavailable as error:
                blocked.append(error)

        thread = threading.Thread(target=block)
        thread.start()
        until(lambda: len(link.link._tether._line._waiting) == 4)
        assert link.echo() == [[], {}]
        process.kill()
        killed = time.monotonic()
        for future in waiting:
            with pytest.raises(OutcomeUnknown, match="may or may not have been carried out"):
                future.result(10)
        thread.join(10)
        assert time.monotonic() - killed < 5
        assert isinstance(blocked[0], OutcomeUnknown)
        with pytest.raises(Unavailable, match="service Echo"):
            link.echo()
        assert link.is_connected()


def test_a_link_finds_its_service_again_elsewhere(program: Any) -> None:
    process = program()
    with linked() as link:
        before, pid = link.service_address, link.pid()
        got: list[Any] = []
        link.notification_handler = lambda *args: got.append(args)  # type: ignore[method-assign]
        link.acquire_lock()
        process.kill()
        until(lambda: not link.link._tether.connected)
        program()  # takes the name over without waiting for the lease: nothing listens there any more
        assert link.pid(timeout=30) != pid
        assert link.service_address != before
        link.notify("again")
        until(lambda: got == [("again",)])
        with connect() as other, pytest.raises(LockRefused):
            other.link("Echo")


def test_notifications_go_on_without_a_call(program: Any) -> None:
    process = program()
    with linked() as link, linked() as caller:
        got: list[Any] = []
        link.notification_handler = lambda *args: got.append(args)  # type: ignore[method-assign]
        process.kill()
        until(lambda: not caller.link._tether.connected)
        process.wait()
        program()
        caller.notify(1, timeout=30)

        def told() -> bool:
            caller.notify(1)
            return bool(got)

        until(told)


@pytest.mark.usefixtures("patient")
def test_a_service_that_is_stopped_answers_what_it_has_begun(serve: Any, client: Client) -> None:
    echo = serve(Echo())
    link = client.link("Echo")
    future = link.sleep(0.3, asynchronous=True)
    assert link.echo() == [[], {}]
    echo.stop()
    assert future.result(10) is None
    assert client.identities()["services"] == {}
    tether = link._tether
    until(lambda: not tether.connected and tether._following.state.service is None)
    with pytest.raises(Unavailable, match="service Echo: is gone"):
        link.echo()
    echo.stop()
    serve(echo)
    assert link.echo(timeout=30) == [[], {}]


def test_a_service_that_is_stopping_takes_no_calls(serve: Any, client: Client) -> None:
    """Those that it takes no more were not carried out, and their callers know that."""
    echo = serve(Echo())
    link = client.link("Echo")
    begun, calls = 250, 2_250
    waiting = [link.wait(asynchronous=True) for _ in range(calls)]
    [conversation] = echo._serving.host._open
    until(lambda: echo._serving.host._busy == begun and conversation._queued == calls)
    stopping = threading.Thread(target=echo.stop)
    stopping.start()
    until(lambda: echo._serving.host._closed)
    echo.release()
    for future in waiting[:begun]:
        assert future.result(10) == "released"
    for future in waiting[begun:]:
        with pytest.raises(Unavailable, match="service Echo: is ending") as refused:
            future.result(10)
        assert not isinstance(refused.value, OutcomeUnknown)
    stopping.join(20)


def test_a_call_while_a_service_is_stopping_is_refused(serve: Any, client: Client) -> None:
    echo = serve(Echo())
    link = client.link("Echo")
    waiting = link.wait(asynchronous=True)
    until(lambda: echo._serving.host._busy == 1)
    stopping = threading.Thread(target=echo.stop)
    stopping.start()
    until(lambda: echo._serving.host._closed)
    with pytest.raises(Unavailable, match="service Echo: is ending") as refused:
        link.echo()
    assert not isinstance(refused.value, OutcomeUnknown)
    echo.release()
    assert waiting.result(10) == "released"
    stopping.join(20)


def test_a_duplicate_name_is_refused_while_its_owner_lives(echo: Echo, serve: Any, client: Client) -> None:
    with pytest.raises(KeyExists, match=f"service Echo: is running at {echo.address}"):
        serve(Echo())
    with pytest.raises(Closed, match="is running already"):
        echo.start()
    assert client.link("Echo").echo() == [[], {}]
    echo.stop()
    serve(Echo())


def test_a_service_of_another_machine_keeps_its_name(serve: Any, etcd_client: Any, program: Any) -> None:
    """What refuses connections here may listen there: at 127.0.0.1, or behind a firewall."""
    process = program()
    with linked() as link:
        assert link.pid() == process.pid
    key = etcd_client._space.prefix + b"/.link/services/Echo"
    record = json.loads(etcd_client.raw[key])
    process.kill()
    process.wait()
    etcd_client.raw[key] = json.dumps({**record, "machine": "another"}).encode()
    with pytest.raises(KeyExists, match=f"is running at {record['address']}"):
        serve(Echo())
    etcd_client.raw[key] = json.dumps(record).encode()
    serve(Echo())


def test_a_client_that_is_killed_is_gone_within_its_ttl(echo: Echo, client: Client) -> None:
    code = """
from link_kv.links import connect
link = connect(name='doomed').link('Echo')
link.acquire_lock()
link.wait()
"""
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT) as process:
        until(lambda: echo._serving._following.state.locks)  # type: ignore[union-attr]
        with pytest.raises(LockRefused, match="locked by doomed"):
            client.link("Echo")
        process.kill()
    until(lambda: not echo._serving._following.state.links, 30)  # type: ignore[union-attr]
    assert client.link("Echo").acquire_lock() == ["Client"]
    echo.release()


def test_a_frozen_service_is_given_up(program: Any, etcd_client: Any) -> None:
    """Its lease ends; callers that wait do not have to wait for its connection to."""
    process = program(ttl=600)
    with linked() as link:
        assert link.echo() == [[], {}]
        os.kill(process.pid, signal.SIGSTOP)
        line = link.link._tether._line
        later = link.echo(asynchronous=True)

        def end() -> None:
            """What etcd does some time after it has heard the last of the service."""
            until(lambda: len(line._waiting) == 2)
            _revoke(etcd_client, _lease(etcd_client, "Echo"))

        ending = threading.Thread(target=end)
        ending.start()
        with pytest.raises(OutcomeUnknown, match="is not registered any more"):
            link.echo()
        with pytest.raises(OutcomeUnknown, match="is not registered any more"):
            later.result(10)
        ending.join()
        os.kill(process.pid, signal.SIGCONT)


def test_a_service_whose_lease_is_lost_registers_again(serve: Any, client: Client, etcd_client: Any) -> None:
    echo = serve(Echo())
    link = client.link("Echo")
    lease = echo._serving._presence.lease
    _revoke(etcd_client, lease)
    until(lambda: echo._serving._presence.lease != lease and echo._serving._presence.alive)
    assert link.echo(timeout=30) == [[], {}]
    assert list(client.identities()["services"]) == ["Echo"]


def test_a_client_whose_lease_is_lost_links_again_but_its_lock_is_gone(
    echo: Echo, client: Client, etcd_client: Any
) -> None:
    link = client.link("Echo")
    link.acquire_lock()
    assert client._presence is not None
    lease = client._presence.lease
    _revoke(etcd_client, lease)
    until(lambda: client._presence.lease != lease and client._presence.alive)  # type: ignore[union-attr]
    assert len(client.identities()["clients"]) == 1
    with pytest.raises(LockLost, match="acquire it again, or release it"):
        link.echo()
    with connect(name="other") as other:
        other.link("Echo").unlink()
    assert link.acquire_lock() == ["Client"]
    assert link.echo() == [[], {}]


def test_a_service_that_gave_its_lease_up_registers_again_over_what_etcd_still_has(
    serve: Any, client: Client, etcd_client: Any
) -> None:
    """No lease ends while etcd has no leader, and a new leader gives each its whole time again."""
    echo = serve(Echo(), ttl=600)
    link = client.link("Echo")
    lease = echo._serving._presence.lease
    echo._serving._presence._lease.lose()
    until(lambda: echo._serving._presence.lease != lease and echo._serving._presence.alive)
    assert link.echo(timeout=30) == [[], {}]
    _revoke(etcd_client, lease)
    assert list(client.identities()["services"]) == ["Echo"]
    assert link.echo(timeout=30) == [[], {}]


def test_a_client_that_gave_its_lease_up_keeps_its_links_when_etcd_ends_it(
    echo: Echo, client: Client, etcd_client: Any
) -> None:
    link = client.link("Echo")
    link.acquire_lock()
    presence = client._presence
    assert presence is not None
    lease = presence.lease
    presence._lease.lose()
    until(lambda: presence.lease != lease and presence.alive)
    with connect(name="other") as other:
        other.link("Echo").unlink()  # the lock, of which the client was told that it is lost, bars nobody
    _revoke(etcd_client, lease)
    link.acquire_lock()
    assert link.echo() == [[], {}]


def test_a_link_that_was_lost_with_its_lease_is_back_when_its_service_is(
    serve: Any, client: Client, etcd: Any, etcd_prefix: str, etcd_client: Any
) -> None:
    """After an outage that neither lease lived through, the client may be back before the service."""
    with Proxy(etcd.endpoints[0]) as way:
        echo = serve(Echo(), host=f"etcd://{way.endpoint}{etcd_prefix}", ttl=1)
        link = client.link("Echo")
        way.hold()
        until(lambda: client.identities()["services"] == {})
        _register_again(client, etcd_client)
        with pytest.raises(Unavailable, match="service Echo: is gone, and has not returned"):
            link.echo()
        way.release()
        assert link.echo(timeout=30) == [[], {}]
        assert link.acquire_lock() == ["Client"]
        echo.stop()


def test_a_link_that_was_lost_with_its_lease_and_unlinked_does_not_return(
    serve: Any, client: Client, etcd: Any, etcd_prefix: str, etcd_client: Any
) -> None:
    with Proxy(etcd.endpoints[0]) as way, connect(name="other") as other:
        echo = serve(Echo(), host=f"etcd://{way.endpoint}{etcd_prefix}", ttl=1)
        link = client.link("Echo")
        way.hold()
        until(lambda: client.identities()["services"] == {})
        _register_again(client, etcd_client)
        link.unlink()
        way.release()
        until(lambda: "Echo" in client.identities()["services"])
        assert other.link("Echo").acquire_lock() == ["other"]
        echo.stop()


def test_a_link_that_was_lost_to_another_s_lock_is_back_when_that_is_released(
    echo: Echo, etcd: Any, etcd_prefix: str, etcd_client: Any
) -> None:
    with (
        Proxy(etcd.endpoints[0]) as way,
        connect(name="cut off", host=f"etcd://{way.endpoint}{etcd_prefix}") as client,
        connect(name="other") as other,
    ):
        link = client.link("Echo")
        link.acquire_lock()
        presence = client._presence
        assert presence is not None
        lease = presence.lease
        way.hold()
        _revoke(etcd_client, lease)
        theirs = other.link("Echo")
        assert theirs.acquire_lock() == ["other"]
        way.release()
        until(lambda: presence.lease != lease and presence.alive)
        with pytest.raises(LockLost, match="acquire it again, or release it"):
            link.echo()
        assert link.release_lock() == ["other"]
        for call in (link.echo, link.acquire_lock):
            with pytest.raises(LockRefused, match="service Echo is locked by other"):
                call()
        theirs.release_lock()
        until(lambda: link._tether.connected)
        assert link.echo() == [[], {}]
        assert set(echo._serving._following.state.linked()) == {"other", "cut off"}  # type: ignore[union-attr]


def _register_again(client: Client, etcd_client: Any) -> None:
    """Take a client's lease away, and wait until it has another."""
    presence = client._presence
    assert presence is not None
    lease = presence.lease
    _revoke(etcd_client, lease)
    until(lambda: presence.lease != lease and presence.alive)


def _lease(client: Any, service: str) -> int:
    """The lease that a service is registered under."""
    key = registry.service_place(client._space, service).key
    _, [[found]] = run(Exchange(client._space).read([Get(key)]))
    return int(found.lease)


def _revoke(client: Any, lease: int) -> None:
    run(Exchange(client._space).revoke(lease))


def test_calls_go_on_while_etcd_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with local.start(tmp_path / "data") as server:
        monkeypatch.setenv("LINK_KV_ENDPOINTS", server.endpoints[0])
        port = int(server.endpoints[0].rpartition(":")[2])
        echo = Echo()
        echo.start_in_thread(ttl=600)
        try:
            with connect() as client:
                presence = client._presence
                assert presence is not None
                link = client.link("Echo")
                server.stop()
                assert link.echo(1) == [[1], {}]
                with local.start(tmp_path / "data", port=port):
                    until(lambda: "Echo" in client.identities()["services"], 30)
                    until(lambda: presence.alive)  # it may have ended meanwhile, and the link with it
                    assert echo._serving._presence.alive
                    assert link.echo(2, timeout=30) == [[2], {}]
        finally:
            with local.start(tmp_path / "data", port=port):
                echo.stop()


def test_the_end_does_not_wait_for_an_etcd_that_is_silent(etcd: Any, etcd_prefix: str) -> None:
    with Proxy(etcd.endpoints[0]) as way:
        where = {"host": f"etcd://{way.endpoint}{etcd_prefix}", "timeout": 3600}
        echo = Echo()
        echo.start_in_thread(**where)
        with connect(**where) as client:
            assert client.link("Echo").same(1) == 1
            way.hold()
        echo.stop()


@pytest.mark.usefixtures("patient")
def test_shutdown_service(serve: Any, client: Client) -> None:
    told: list[str] = []

    class Mine(Echo):
        def shutdown_handler(self) -> None:
            told.append("over")

    serve(Mine("Mine"))
    link = client.link("Mine")
    assert link.shutdown_service(1, a=2) == ["bye", [1], {"a": 2}]
    until(lambda: told == ["over"])
    assert client.identities()["services"] == {}
    client.disconnect()
    client.disconnect()


def test_a_program_does_not_end_before_its_shutdown_handler(client: Client, tmp_path: Path) -> None:
    """A client ends the service, so that the handler runs in another thread than the program's."""
    code = """
import pathlib, sys, time
from tests.services.echo import Echo

class Mine(Echo):
    def shutdown_handler(self):
        self.stop()
        time.sleep(1)
        pathlib.Path(sys.argv[1]).write_text('over')

Mine('Mine').start()
"""
    told = tmp_path / "told"
    with subprocess.Popen([sys.executable, "-c", code, str(told)], cwd=ROOT) as process:
        until(lambda: "Mine" in client.identities()["services"])
        client.link("Mine").shutdown_service()
        assert process.wait(30) == 0
    assert told.read_text() == "over"


def test_a_service_that_cannot_be_shut_down(serve: Any, client: Client) -> None:
    class Stubborn(Service):
        def here(self) -> bool:
            return True

    serve(Stubborn())
    link = client.link("Stubborn")
    with pytest.raises(RemoteError, match="defines no shutdown_service"):
        link.shutdown_service()
    assert link.here()


@pytest.mark.parametrize("call", ["echo", "shutdown_service"])
def test_a_call_may_come_as_soon_as_a_service_is_registered(
    client: Client, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Before the service knows that itself, that is."""
    from link_kv import services

    found: list[Any] = []

    def registered_and_called(*args: Any) -> Presence:
        presence = Presence(*args)
        found.append(getattr(client.link("Echo"), call)(timeout=30))
        return presence

    monkeypatch.setattr(services, "Presence", registered_and_called)
    echo = Echo()
    with echo:
        echo.start_in_thread()
        if call == "echo":
            assert found == [[[], {}]]
        else:
            assert found == [["bye", [], {}]]
            until(lambda: echo._serving.over.is_set())  # type: ignore[union-attr]


def test_start_blocks_until_it_is_stopped(client: Client) -> None:
    echo = Echo()
    thread = threading.Thread(target=echo.start)
    thread.start()
    until(lambda: "Echo" in client.identities()["services"])
    assert thread.is_alive()
    client.link("Echo").shutdown_service()
    thread.join(30)
    assert not thread.is_alive()


def test_run_services(client: Client) -> None:
    services = [Echo(name) for name in ("one", "two")]
    thread = threading.Thread(target=run_services, args=services)
    thread.start()
    until(lambda: set(client.identities()["services"]) == {"one", "two"})
    client.link("one").shutdown_service()
    until(lambda: set(client.identities()["services"]) == {"two"})
    assert thread.is_alive()
    client.link("two").shutdown_service()
    thread.join(30)
    assert not thread.is_alive()


@pytest.mark.usefixtures("patient")
def test_run_services_stops_all_when_one_does_not_start(client: Client) -> None:
    with pytest.raises(KeyExists):
        run_services(Echo("same"), Echo("same"))
    assert client.identities()["services"] == {}


def test_a_program_that_ends_leaves_nothing(client: Client, echo: Echo) -> None:
    code = """
from link_kv._core.leasing import presence
from link_kv.links import connect
from tests.services.echo import Echo
presence.LET_GO = 30.0
Echo('short').start_in_thread()
link = connect(name='short').link('short')
connect(name='shorter').link('Echo').acquire_lock()
assert link.echo() == [[], {}]
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found = client.identities()
    assert set(found["services"]) == {"Echo"}
    assert [each["name"] for each in found["clients"].values()] == ["Client"]
    assert client.link("Echo").acquire_lock() == ["Client"]


@pytest.mark.usefixtures("echo")
def test_a_client_whose_thread_did_not_start_links_again_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    with connect() as client:
        refuse_thread(monkeypatch, "link-kv-Client", KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            client.link("Echo")
        with connect() as other:
            refuse_thread(monkeypatch, "link-kv-Client")
            with pytest.raises(RuntimeError, match="can't start new thread"):
                other.link("Echo")
        assert client.link("Echo").same(1) == 1


def test_nothing_is_left_of_what_has_ended(serve: Any) -> None:
    def threads() -> set[str]:
        return {thread.name for thread in threading.enumerate() if thread.name.startswith("link-kv")}

    before = threads()
    echo = serve(Echo())
    for unlink in (True, False, True):
        with connect() as client:
            link = client.link("Echo")
            link.notification_handler = lambda *args: None
            link.notify(link.same(1))
            if unlink:
                link.unlink()
    echo.stop()
    until(lambda: threads() - {"link-kv-service-Echo"} <= before, 20)


@pytest.mark.usefixtures("unhurried")
def test_a_linked_client_waits_past_a_service_that_is_dead(program: Any, client: Client) -> None:
    process = program(ttl=600)
    until(lambda: "Echo" in client.identities()["services"])
    process.kill()
    process.wait()
    assert "Echo" in client.identities()["services"]  # for as long as its lease lives
    with pytest.raises(DeadlineExceeded, match=r"service Echo: .*; and no other came within 0\.7 s"):
        LinkedClient("Echo", timeout=0.7)
    with ThreadPoolExecutor(1) as pool:
        linking = pool.submit(linked)
        program()
        with linking.result(40) as link:
            assert link.echo() == [[], {}]


def test_an_unlink_that_etcd_does_not_hear_is_told_again(
    echo: Echo, clients: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob = clients("alice"), clients("bob")
    link = alice.link("Echo")
    link.acquire_lock()
    remove, failed = registry.remove_link, threading.Event()

    async def silent(*args: Any) -> None:
        if not failed.is_set():
            failed.set()
            raise Unavailable("no answer")
        await remove(*args)

    monkeypatch.setattr(registry, "remove_link", silent)
    link.unlink()
    assert failed.is_set()

    def free() -> bool:
        try:
            return bool(bob.link("Echo").echo())
        except LockRefused:
            return False

    until(free)
    assert alice.is_connected()
