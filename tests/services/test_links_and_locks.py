"""Who may link, who may lock, and that the service goes by what etcd says."""

from __future__ import annotations

import contextlib
import threading
from typing import Any

import pytest

from link_kv import AccessDenied, EtcdMiddleware, LockRefused, NotFound
from link_kv._core.links import registry
from link_kv._core.links.messages import Kind, encode
from link_kv._core.links.registry import LinkRecord
from link_kv._core.links.wire_link import Line, Waiting
from link_kv._core.wire.calls import run
from link_kv._core.wire.exchange import Exchange
from link_kv.links import Client, LinkedClient
from link_kv.live import hub_of

from ..processes import until
from .echo import Echo


def test_an_exclusive_lock(echo: Echo, clients: Any) -> None:
    alice, bob = clients("alice"), clients("bob")
    link = alice.link("Echo")
    assert link.acquire_lock() == ["alice"]
    assert link.acquire_lock() == ["alice"]
    with pytest.raises(RuntimeError, match="service Echo is locked by alice") as caught:
        bob.link("Echo")
    assert isinstance(caught.value, LockRefused)
    again = alice.link("Echo")  # who is linked may link again
    assert again.echo() == [[], {}]
    assert link.release_lock() == []
    bob.link("Echo")
    with pytest.raises(LockRefused, match="linked with alice, bob"):
        link.acquire_lock()
    assert sorted(link.acquire_lock(shared=True)) == ["alice", "bob"]


def test_a_shared_lock(echo: Echo, clients: Any) -> None:
    alice, bob, carol = (clients(name) for name in ("alice", "bob", "carol"))
    a, b = alice.link("Echo"), bob.link("Echo")
    assert a.acquire_lock(shared=True) == ["alice", "bob"]
    with pytest.raises(LockRefused, match="locked by alice"):
        b.acquire_lock()
    assert b.acquire_lock(shared=True) == ["alice", "bob"]
    with pytest.raises(LockRefused, match="locked by alice, bob"):
        carol.link("Echo")
    assert a.echo() == b.echo() == [[], {}]
    assert a.release_lock() == ["bob"]
    with pytest.raises(LockRefused, match="locked by bob"):
        carol.link("Echo")
    assert b.release_lock() == []
    assert carol.link("Echo").echo() == [[], {}]


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("how", ["unlink", "disconnect"])
def test_a_lock_goes_with_its_link(echo: Echo, clients: Any, how: str) -> None:
    alice, bob = clients("alice"), clients("bob")
    link = alice.link("Echo")
    link.acquire_lock()
    (link.unlink if how == "unlink" else alice.disconnect)()
    assert bob.link("Echo").acquire_lock() == ["bob"]


def test_a_lock_by_another_of_the_same_client(echo: Echo, clients: Any) -> None:
    alice = clients("alice")
    one, two = alice.link("Echo"), alice.link("Echo")
    assert one.acquire_lock() == ["alice"]
    assert two.acquire_lock() == ["alice"]
    assert one.release_lock() == ["alice"]
    one.unlink()
    assert two.echo() == [[], {}]  # two links do not share a record
    assert two.release_lock() == []


def test_many_ask_for_the_lock_at_once(echo: Echo, clients: Any) -> None:
    links = [clients(f"client-{number}").link("Echo") for number in range(6)]
    for link in links[1:]:
        link.unlink()
    got: list[str] = []
    refused: list[str] = []

    def work(number: int) -> None:
        try:
            link = clients(f"other-{number}").link("Echo")
            link.acquire_lock()
            got.append(link._client.name)
        except LockRefused as error:
            refused.append(str(error))

    links[0].unlink()
    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(got) <= 1
    assert len(got) + len(refused) == 6


@pytest.mark.parametrize(("given", "shown"), [(None, 0), (0, 0), (-3, 0), (2, 2)])
def test_max_clients(serve: Any, clients: Any, given: int | None, shown: int) -> None:
    serve(Echo(max_clients=given))
    alice, bob, carol = (clients(name) for name in ("alice", "bob", "carol"))
    one = alice.link("Echo")
    assert one.service_max_clients == shown
    bob.link("Echo")
    if shown:
        with pytest.raises(LockRefused, match="takes 2 clients at a time: alice, bob"):
            carol.link("Echo")
        alice.link("Echo").unlink()  # again, and that frees nothing
        with pytest.raises(LockRefused):
            carol.link("Echo")
        one.unlink()
    assert carol.link("Echo").echo() == [[], {}]


def test_races_for_the_last_place(serve: Any, clients: Any) -> None:
    serve(Echo(max_clients=3))
    made = [clients(f"client-{number}") for number in range(8)]
    linked: list[Any] = []

    def work(client: Client) -> None:
        with contextlib.suppress(LockRefused):
            linked.append(client.link("Echo"))

    threads = [threading.Thread(target=work, args=(client,)) for client in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(linked) == 3
    assert all(link.echo() == [[], {}] for link in linked)


def test_nothing_is_left_of_a_link_that_was_refused(echo: Echo, client: Client, clients: Any) -> None:
    with pytest.raises(NotFound):
        client.link("Nobody")
    clients("other").link("Echo").acquire_lock()
    with pytest.raises(LockRefused):
        client.link("Echo")
    assert hub_of(client._etcd()).mirrors == 0


# Who does not behave


def forge(client: Client, etcd_client: EtcdMiddleware, service: str = "Echo") -> Any:
    """A link made past the rules: its key is written without looking whether that is allowed."""
    link = client.link(service)
    tether = link._tether
    run(registry.remove_link(Exchange(tether._space), service, tether.link))
    at = registry.service_place(etcd_client._space, service)
    return link, at.marker + b"links/" + tether.link.encode(), registry._dump(tether._own, "created")


def test_a_link_past_max_clients_is_not_served(serve: Any, clients: Any, etcd_client: EtcdMiddleware) -> None:
    echo = serve(Echo(max_clients=1))
    link, key, value = forge(clients("mallory"), etcd_client)
    honest = clients("alice").link("Echo")
    etcd_client.raw[key] = value
    until(lambda: len(echo._serving._following.state.links) == 2)
    with pytest.raises(LockRefused, match="takes 1 clients at a time"):
        link.echo()
    assert honest.echo() == [[], {}]
    honest.unlink()
    until(lambda: len(echo._serving._following.state.links) == 1)
    assert link.echo() == [[], {}]


def test_a_link_past_a_lock_is_not_served(echo: Echo, clients: Any, etcd_client: EtcdMiddleware) -> None:
    link, key, value = forge(clients("mallory"), etcd_client)
    honest = clients("alice").link("Echo")
    honest.acquire_lock()
    etcd_client.raw[key] = value
    until(lambda: len(echo._serving._following.state.links) == 2)  # type: ignore[union-attr]
    got: list[Any] = []
    link.notification_handler = lambda *args: got.append(args)
    with pytest.raises(LockRefused, match="locked by alice"):
        link.echo()
    echo.emit_notification("for those who may")
    assert honest.echo() == [[], {}]
    assert not got


def test_an_unlinked_client_is_not_served(echo: Echo, clients: Any, etcd_client: EtcdMiddleware) -> None:
    link, _, _ = forge(clients("mallory"), etcd_client)
    until(lambda: not echo._serving._following.state.links)  # type: ignore[union-attr]
    with pytest.raises(AccessDenied, match="not linked"):
        link.echo()


def test_nobody_can_speak_over_the_link_of_another(echo: Echo, clients: Any) -> None:
    """Even with all that etcd has of it."""
    honest = clients("alice").link("Echo")
    honest.acquire_lock()
    mallory = clients("mallory")
    state = run(registry.state_of(mallory._etcd()._exchange(), "Echo"))
    assert state.service is not None
    stolen = next(iter(state.links))
    record: LinkRecord = state.links[stolen]
    line = Line(
        "Echo",
        state.service.address,
        state.service.token,
        stolen,
        record.proof,
        None,
        None,
        lambda payload: None,
    )
    waiting = Waiting()
    line.send(Kind.CALL, encode(["echo", [], {}], "call"), waiting)
    assert waiting.wait(30)
    with pytest.raises(AccessDenied, match="not linked"):
        waiting.result()
    line.close()


def test_tokens_are_not_shown(echo: Echo, client: Client) -> None:
    link = client.link("Echo")
    record = link._tether.record
    assert record.token
    for shown in (repr(record), repr(link), str(client.identities()), client.identities(as_string=True)):
        assert record.token not in shown
        assert link._tether._secret not in shown


def test_identities(echo: Echo, clients: Any) -> None:
    alice = clients("alice")
    found = alice.identities()
    service = found["services"]["Echo"]
    assert service["attributes"]["echo"] == "(*args: 'Any', **kwargs: 'Any') -> 'list[Any]'"
    assert service["attributes"]["PI"] == "3.14159"
    assert not {name for name in service["attributes"] if name.startswith("_")}
    assert service["address"] == echo.address
    assert service["language"].startswith("Python ")
    assert service["max_clients"] == 0
    assert [each["name"] for each in found["clients"].values()] == ["alice"]
    assert set(found) == {"hostname", "port", "attributes", "language", "os", "clients", "services"}
    text = alice.identities(as_string=True, indent=1)
    assert f"\n Echo[{echo.address}]\n  attributes:\n   PI() -> 3.14159\n" in text
    assert alice.identity()["name"] == "alice"


def test_ignored_attributes_are_hidden_and_can_be_called(serve: Any, client: Client) -> None:
    serve(Echo(ignore_attributes=["echo"]))
    link = client.link("Echo")
    assert "echo" not in link.service_attributes
    assert link.echo(1) == [[1], {}]


def test_a_linked_client(echo: Echo) -> None:
    class Mine(LinkedClient):
        errors = 0
        got: list[Any]

        def service_error_handler(self) -> None:
            self.errors += 1

        def notification_handler(self, *args: Any, **kwargs: Any) -> None:
            self.got.append((args, kwargs))

    with Mine("Echo") as linked:
        linked.got = []
        assert linked.name == "Mine"
        assert linked.echo(1) == [[1], {}]
        assert linked.is_connected()
        echo.emit_notification(7, a=8)
        until(lambda: linked.got == [((7,), {"a": 8})])
        with pytest.raises(RuntimeError):
            linked.boom()
        assert linked.errors == 1
        with pytest.raises(RuntimeError):
            linked.boom(asynchronous=True).result(30)
        assert linked.errors == 2
        with pytest.raises(TimeoutError):
            linked.wait(timeout=0.01)
        assert linked.errors == 2
        linked.release()
        assigned: list[Any] = []
        linked.notification_handler = lambda *args, **kwargs: assigned.append(args)  # type: ignore[method-assign]
        echo.emit_notification(9)
        until(lambda: assigned == [(9,)])
        with linked.spawn() as other:
            assert type(other) is Mine
            assert other.name == "LinkedClient"
            assert sorted(linked.acquire_lock(shared=True)) == ["LinkedClient", "Mine"]
        assert linked.release_lock() == []
        assert linked.service_name == "Echo"
        assert linked.address_manager == linked.client.address_manager
        assert {"echo", "acquire_lock"} <= set(dir(linked))
        assert not hasattr(linked, "nonsense")
        assert linked.shutdown_service(1, a=2) == ["bye", [1], {"a": 2}]
        until(lambda: echo._serving.over.is_set())  # type: ignore[union-attr]
    assert not linked.is_connected()
    with pytest.raises(AttributeError):
        _ = linked.echo


@pytest.mark.usefixtures("unhurried")
def test_a_linked_client_waits_for_its_service(serve: Any) -> None:
    with pytest.raises(TimeoutError, match=r"service Echo: was not there within 0\.2 s"):
        LinkedClient("Echo", timeout=0.2)
    made: list[LinkedClient] = []
    thread = threading.Thread(target=lambda: made.append(LinkedClient("Echo", timeout=30)))
    thread.start()
    serve(Echo())
    thread.join(30)
    assert made[0].echo() == [[], {}]
    made[0].disconnect()


def test_under_a_shared_lock_a_link_may_be_replaced_by_another(
    echo: Echo, clients: Any, etcd_client: EtcdMiddleware
) -> None:
    alice, bob = clients("alice"), clients("bob")
    first = alice.link("Echo")
    assert bob.link("Echo").acquire_lock(shared=True) == ["alice", "bob"]
    second = alice.link("Echo")
    first.unlink()
    assert second.echo() == [[], {}]
    got: list[Any] = []
    second.notification_handler = lambda *args: got.append(args)
    echo.emit_notification("still told")
    until(lambda: got == [("still told",)])
    assert second.acquire_lock(shared=True) == ["bob", "alice"]
