"""Users of etcd, and what their roles let them do with services."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from link_kv import AccessDenied, EtcdMiddleware, local
from link_kv._core.cluster import auth
from link_kv._core.cluster.auth import Grant
from link_kv._core.wire.calls import run
from link_kv.links import connect

from .echo import Echo


@pytest.fixture
def guarded(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """An etcd with the users root; caller, as the how-to page has it; and reader, who may only read."""
    monkeypatch.delenv("LINK_KV_PREFIX")
    with local.start() as server:
        with EtcdMiddleware(endpoints=server.endpoints) as client:
            ex = client._exchange()
            for name in ("caller", "reader"):
                run(auth.add_role(ex, name))
                run(auth.grant(ex, name, Grant("read", b"\0", b"\0")))
                run(auth.add_user(ex, name, name))
                run(auth.give_role(ex, name, name))
            for start in (b"/.link/clients/", b"/.link/services/"):
                run(auth.grant(ex, "caller", Grant("readwrite", start, start[:-1] + b"0")))
            run(auth.add_user(ex, "root", "root"))
            run(auth.give_role(ex, "root", "root"))
            run(auth.enable(ex))
        yield {"endpoints": server.endpoints}


def test_a_role_for_callers(guarded: dict[str, Any], serve: Any) -> None:
    serve(Echo(), **guarded, username="root", password="root")
    with connect(**guarded, username="caller", password="caller") as client:
        link = client.link("Echo")
        assert link.echo(1) == [[1], {}]
        assert link.acquire_lock() == ["Client"]
        assert link.release_lock() == []
        assert list(client.identities()["services"]) == ["Echo"]
        with pytest.raises(AccessDenied, match=r"users_table\.usernames"):
            client.admin_request("users_table.usernames")
    with connect(**guarded, username="root", password="root") as root:
        assert sorted(root.admin_request("users_table.usernames")) == ["caller", "reader", "root"]


def test_who_may_only_read_cannot_link(guarded: dict[str, Any]) -> None:
    with pytest.raises(AccessDenied, match="client Client"):
        connect(**guarded, username="reader", password="reader")
    with pytest.raises(AccessDenied):
        connect(**guarded, username="caller", password="wrong")
