"""What kamaki's clients got wrong and nothing else here shows: times, repetition, TLS, bars."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from link_kv import ConfigError, EtcdMiddleware, OutcomeUnknown, Unavailable, local
from link_kv._core.wire.config import Config
from link_kv.clients import BaseClient, ClientError, progress_bar

from ..cli.command import on_terminal
from ..wire.certificates import Authority
from ..wire.proxy import Proxy


@pytest.fixture
def proxy(etcd: Any) -> Iterator[Proxy]:
    with Proxy(etcd.endpoints[0]) as proxy:
        yield proxy


def test_every_request_has_an_end(proxy: Proxy, etcd_prefix: str) -> None:
    """A server that is silent is waited for as long as was said, and no longer."""
    config = Config(endpoints=(proxy.endpoint,), prefix=etcd_prefix, timeout=60)
    with EtcdMiddleware._of(config) as middleware:
        client = BaseClient("/lab", middleware)
        client.put("a", 1)
        proxy.mute()
        with pytest.raises(ClientError, match=r"^503 Service Unavailable: .* within 0\.(3|2\d+) s") as caught:
            client.get("a", timeout=0.3)
        assert caught.value.status == 503
        assert client.get("a", timeout=0.3, success=None).status == 503
        proxy.release()


def test_a_post_whose_answer_is_lost_is_not_sent_twice(proxy: Proxy, etcd_prefix: str, etcd: Any) -> None:
    config = Config(endpoints=(proxy.endpoint,), prefix=etcd_prefix, timeout=3)
    with EtcdMiddleware._of(config) as middleware:
        client = BaseClient("/lab", middleware)
        client.post("queue", "first")
        proxy.mute()
        with pytest.raises(ClientError) as caught:
            client.post("queue", "second", timeout=0.5)
        assert caught.value.status == 503
        assert isinstance(caught.value.__cause__, Unavailable)
        proxy.release()
    with EtcdMiddleware(endpoints=etcd.endpoints, prefix=etcd_prefix) as fresh:
        items = fresh["/lab/queue"]
        if isinstance(caught.value.__cause__, OutcomeUnknown):
            assert items in (["first"], ["first", "second"])
        else:
            assert items == ["first"]  # exactly Unavailable: it has not happened


def test_certificates_are_a_clients_own(tmp_path: Path) -> None:
    """Two authorities in one process: whom one client trusts, another does not."""
    authorities = [Authority(tmp_path, name) for name in ("one CA", "another CA")]
    certificates = [each.issue(f"server{number}") for number, each in enumerate(authorities)]
    servers = [local.start(args=[f"--cert-file={cert}", f"--key-file={key}"]) for cert, key in certificates]
    try:
        for number, server in enumerate(servers):
            for trusted, authority in enumerate(authorities):
                config = Config(
                    endpoints=tuple(server.endpoints),
                    tls=True,
                    ca_cert=str(authority.path),
                    timeout=10 if trusted == number else 2,
                )
                with EtcdMiddleware._of(config) as middleware:
                    status = BaseClient("/lab", middleware).put("a", 1, success=None).status
                assert (status == 503) is (trusted != number)
    finally:
        for server in servers:
            server.stop()


# Bars

_SLOWLY = """
import threading
import rich.progress
from link_kv import EtcdMiddleware
from link_kv._core.clients import progress
from link_kv.clients import BaseClient, progress_bar

shown = threading.Event()

class Telling(rich.progress.Progress):
    def start(self):
        super().start()
        shown.set()

rich.progress.Progress = Telling
client = BaseClient('/lab', EtcdMiddleware())
long, progress._LONG = progress._LONG, 3600  # more than it may take to do nothing
client.async_run(str, [], progress=progress_bar('nothing'))
progress._LONG = long

def work(n):
    assert shown.wait(60)
    return n

print(client.async_run(work, [{'n': n} for n in range(4)], progress=progress_bar('storing')))
"""


def test_a_terminal_shows_a_bar() -> None:
    status, shown = on_terminal(command=[sys.executable, "-c", _SLOWLY])
    assert status == 0
    assert "storing" in shown
    assert "/4" in shown
    assert "nothing" not in shown
    assert "[0, 1, 2, 3]" in shown


def test_elsewhere_nothing_is_shown(middleware: EtcdMiddleware, capfd: pytest.CaptureFixture[str]) -> None:
    client = BaseClient("/lab", middleware)
    assert client.async_run(str, [{"object": 1}], progress=progress_bar("storing")) == ["1"]
    assert capfd.readouterr() == ("", "")


def test_a_bar_without_rich_names_the_extra(
    middleware: EtcdMiddleware, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rich", None)
    for name in ("rich.console", "rich.progress"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with pytest.raises(ConfigError, match=r"link_kv\[cli\]"):
        BaseClient("/lab", middleware).async_run(str, [{"object": 1}], progress=progress_bar("storing"))
