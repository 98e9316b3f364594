"""Alerts of services that come at any moment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from link_kv import EtcdMiddleware
from link_kv.endpoints import Alerts, Endpoints, KVStoreKey

from ..processes import until

Serve = Callable[..., Any]


def test_a_service_that_comes_while_another_is_linked_is_heard_too(
    serve: Serve, etcd_client: EtcdMiddleware, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = Endpoints._link

    def slowly(self: Endpoints, service: str, timeout: float) -> Any:
        found = link(self, service, timeout)
        if service == "one":
            serve(KVStoreKey(1, name="bar"), name="two")
            until(lambda: len(alerts._feed.replica.all()) == 2)
        return found

    with Alerts(etcd_client) as alerts:
        monkeypatch.setattr(Endpoints, "_link", slowly)
        serve(KVStoreKey(1, name="foo"), name="one")
        until(lambda: alerts.services == ["one", "two"])
