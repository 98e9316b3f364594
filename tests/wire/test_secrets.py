"""Passwords, tokens and values appear in no repr, no log line and no error, whatever fails."""

from __future__ import annotations

import asyncio
import logging
import pickle
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from link_kv import EtcdMiddleware, aio, local
from link_kv._core.wire.calls import run
from link_kv._core.wire.config import Config, resolve
from tests.wire.certificates import Authority
from tests.wire.proxy import Proxy
from tests.wire.streams import caller, watch
from tests.wire.test_logins import etcdctl

PASSWORD = "CANARY-password"
WRONG = "CANARY-wrong"
VALUE = "CANARY-value"


@pytest.fixture(scope="module")
def locked() -> Iterator[local.LocalEtcd]:
    with local.start() as etcd:
        etcdctl(etcd, f"user add root:{PASSWORD}")
        etcdctl(etcd, "user grant-role root root")
        etcdctl(etcd, "auth enable")
        yield etcd


class Witness:
    """All that a program could show of what happened."""

    def __init__(self, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
        self._caplog = caplog
        self._capfd = capfd
        self._seen: list[str] = []
        self.secrets = {"CANARY"}
        self.failures = 0

    def see(self, *things: Any) -> None:
        for thing in things:
            self._seen += [repr(thing), str(thing)]

    def fail(self, action: Callable[[], Any]) -> None:
        try:
            action()
        except Exception as error:  # noqa: BLE001 - all kinds are looked at
            self.failures += 1
            self.see(error, error.__cause__)
            self._seen.append("".join(traceback.format_exception(error)))
            return
        raise AssertionError("it did not fail")

    def check(self) -> None:
        captured = self._capfd.readouterr()
        records = [
            f"{record.getMessage()} {record.args} {record.exc_info}" for record in self._caplog.records
        ]
        # Source lines of this file are in tracebacks; they name the constants and do not hold them.
        everything = "\n".join([*self._seen, *records, self._caplog.text, captured.out, captured.err])
        for secret in self.secrets:
            assert secret not in everything, everything[max(0, everything.index(secret) - 500) :][:1000]


@pytest.fixture
def witness(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Witness]:
    caplog.set_level(logging.DEBUG)
    witness = Witness(caplog, capfd)
    yield witness
    witness.check()


def login(**options: Any) -> dict[str, Any]:
    return {"user": "root", "password": PASSWORD, "timeout": 0.5, **options}


def client_of(*endpoints: str, **options: Any) -> EtcdMiddleware:
    client: EtcdMiddleware = EtcdMiddleware._of(Config(**login(endpoints=endpoints, **options)))
    return client


def test_what_a_client_shows(witness: Witness, locked: local.LocalEtcd) -> None:
    with client_of(*locked.endpoints, timeout=5) as client:
        client["/a"] = VALUE
        assert caller(client)._metadata is not None
        witness.secrets |= {dict(run(caller(client).token()))["token"]}
        witness.see(client, client._config, client._space, caller(client), caller(client).wire, vars(Config))
        witness.see(client.tree("/"), client.raw, client.at(1), client.etcd3, watch(client))
        witness.fail(lambda: pickle.dumps(client))
        witness.fail(lambda: client["/nothing"])
        witness.fail(lambda: client.put("/a/b", VALUE))
        witness.fail(lambda: client.create("/a", VALUE))
        witness.fail(lambda: client.put("/b", object()))
    assert witness.failures == 5


def test_servers_that_fail(witness: Witness, locked: local.LocalEtcd) -> None:
    with Proxy(locked.endpoints[0]) as proxy, client_of(proxy.endpoint, timeout=5) as client:
        client["/a"] = VALUE
        assert client["/a"] == VALUE
        witness.secrets |= {dict(run(caller(client).token()))["token"]}
        object.__setattr__(client._config, "timeout", 0.3)
        proxy.hold()
        witness.fail(lambda: client.put("/a", VALUE))
        witness.fail(lambda: client.put("/a", VALUE))
        witness.fail(lambda: client["/a"])
        proxy.cut()
        proxy.close()
        witness.fail(lambda: client["/a"])
        witness.fail(lambda: client.put("/a", VALUE))
        client.close()
        witness.fail(lambda: client["/a"])


def test_requests_that_are_refused(witness: Witness, locked: local.LocalEtcd) -> None:
    with client_of(*locked.endpoints, timeout=5) as client:
        witness.fail(lambda: client.put("/a", VALUE * 300_000))
        witness.fail(lambda: client.put("/a", VALUE, revision=10**9))
        witness.fail(lambda: client.at(10**12)["/a"])
        witness.fail(lambda: client.put("/a", VALUE, ttl=-1))


def test_logins_that_fail(witness: Witness, locked: local.LocalEtcd, etcd: Any) -> None:
    options: list[tuple[str, dict[str, Any]]] = [
        (locked.endpoints[0], {"password": WRONG, "timeout": 5}),
        (locked.endpoints[0], {"user": "nobody", "timeout": 5}),
        (locked.endpoints[0], {"expected_cluster_id": 1, "timeout": 5}),
        ("127.0.0.1:1", {}),
        ("nobody.invalid:1", {"insecure_password": True}),
        ("192.0.2.1:2379", {}),
        ("localhost:1", {"tls": True}),
        (locked.endpoints[0], {"tls": True}),
    ]
    for endpoint, more in options:
        with client_of(endpoint, **more) as client:
            witness.see(client)
            witness.fail(lambda client=client: client["/a"])  # type: ignore[misc]
            witness.fail(lambda client=client: client.put("/a", VALUE))  # type: ignore[misc]


def test_tls_that_fails(witness: Witness, locked: local.LocalEtcd, tmp_path: Path) -> None:
    other = Authority(tmp_path)
    key_with_password = tmp_path / "key.pem"
    key_with_password.write_text(f"-----BEGIN PRIVATE KEY-----\n{VALUE}\n-----END PRIVATE KEY-----\n")
    certificate, _ = other.issue("client")
    for more in (
        {"ca_cert": str(other.path)},
        {"ca_cert": str(other.path), "cert_cert": str(certificate), "cert_key": str(key_with_password)},
        {"ca_cert": str(key_with_password)},
    ):
        with client_of(*locked.endpoints, tls=True, **more) as client:
            witness.fail(lambda client=client: client["/a"])  # type: ignore[misc]


def test_options_that_are_refused(witness: Witness, tmp_path: Path) -> None:
    file = tmp_path / "link/kv/middleware.conf"
    file.parent.mkdir(parents=True)
    wrong: list[Callable[[], Any]] = [
        lambda: EtcdMiddleware.from_url(f"etcd://root:{PASSWORD}@h:x"),
        lambda: EtcdMiddleware.from_url(f"etcd://root:{PASSWORD}/x@h:1"),
        lambda: EtcdMiddleware.from_url(f"etcd://root:{PASSWORD}@h:1/p?nonsense=1"),
        lambda: EtcdMiddleware.from_url(f"etcd://h?user=root&password:{PASSWORD}1"),
        lambda: EtcdMiddleware.from_url(f"http://root:{PASSWORD}@h:1"),
        lambda: EtcdMiddleware(host=f"http://root:{PASSWORD}@h:1"),
        lambda: EtcdMiddleware(endpoints=f"root:{PASSWORD}@h:1"),
        lambda: EtcdMiddleware(password=PASSWORD),
        lambda: EtcdMiddleware(user="root", password=PASSWORD, timeout=-1),
        lambda: resolve(environ={"LINK_KV_PASSWORD": PASSWORD}, directories=[]),
        lambda: resolve(environ={"LINK_KV_ENDPOINTS": f"etcd://root:{PASSWORD}@h"}, directories=[]),
    ]
    for action in wrong:
        witness.fail(action)
    for text in (
        f"password = {PASSWORD}",
        f"passwort = {PASSWORD}",
        f"password:{PASSWORD}1=",
        f"password{PASSWORD}1 = x",
        f"password = {PASSWORD}\nuser = a\n[ETCD",
        f"user = a\npassword = {PASSWORD}\n  {PASSWORD}",
        f"user = a\npassword: {PASSWORD}\n{PASSWORD}",
        f"host = http://root:{PASSWORD}@h",
    ):
        file.write_text(f"[ETCD]\n{text}\n")
        witness.fail(lambda: resolve(environ={}, directories=[tmp_path]))


def test_asyncio(witness: Witness, locked: local.LocalEtcd) -> None:
    async def main(endpoint: str, proxy: Proxy | None = None, **more: Any) -> None:
        client: aio.EtcdMiddleware = aio.EtcdMiddleware._of(Config(**login(endpoints=(endpoint,), **more)))
        witness.see(client)
        if proxy is not None:
            await client.put("/a", VALUE)
            witness.secrets |= {dict(await caller(client).token())["token"]}  # type: ignore[arg-type]
            object.__setattr__(client._config, "timeout", 0.3)
            proxy.hold()
        try:
            await client.put("/a", VALUE)
        finally:
            await client.close()

    with Proxy(locked.endpoints[0]) as proxy:
        witness.fail(lambda: asyncio.run(main(proxy.endpoint, proxy, timeout=5)))
    witness.fail(lambda: asyncio.run(main("127.0.0.1:1")))
    witness.fail(lambda: asyncio.run(main(locked.endpoints[0], password=WRONG, timeout=5)))
