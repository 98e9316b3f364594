"""A program with secrets: ``python -m tests.faults.canary``. It says, as JSON, what it saw and what it found.

Passwords, tokens and values are canaries. Each of them must be in no log record at any level, no repr, no
error and its traceback, and nothing that the command line says. What shows a value on purpose is not looked
at: an item, a change, and ``link-kv get``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import pickle
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr

from link_kv import EtcdMiddleware, Lock, Session, aio, local
from link_kv._core.wire.calls import run
from link_kv.driver import Configurable, EtcdConfDriver, Parameter, category, configuration, watch
from link_kv.links import connect
from link_kv.settings import follow
from tests.processes import until
from tests.services.echo import Echo
from tests.wire.proxy import Proxy
from tests.wire.streams import caller
from tests.wire.test_logins import etcdctl

PASSWORD = "CANARY-password"
WRONG = "CANARY-wrong"
VALUE = "CANARY-value"


class Witness(logging.Handler):
    """All that a program could show of what happens."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.secrets = {"CANARY"}
        self.counts = {"reprs": 0, "errors": 0, "records": 0, "commands": 0}
        self._seen: list[tuple[str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.counts["records"] += 1
        self._seen.append((f"record of {record.name}", f"{self.format(record)} {record.args}"))

    def see(self, *things: Any) -> None:
        for thing in things:
            self.counts["reprs"] += 1
            self._seen.append((f"repr of a {type(thing).__name__}", f"{thing!r} {thing}"))

    def fails(self, action: Callable[[], Any]) -> None:
        try:
            action()
        except Exception as error:  # noqa: BLE001 - all kinds are looked at
            self.error(error)
            return
        raise AssertionError("it did not fail")

    def error(self, error: BaseException) -> None:
        self.counts["errors"] += 1
        self._seen.append((type(error).__name__, "".join(traceback.format_exception(error)) + repr(error)))

    def command(self, *args: str, stdin: str = "", **environment: str) -> None:
        self.counts["commands"] += 1
        done = subprocess.run(
            [sys.executable, "-m", "link_kv.cli", *args],
            env={**os.environ, **environment},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self._seen.append((f"link-kv {args}", done.stdout + done.stderr))

    def found(self) -> Iterator[str]:
        for where, text in self._seen:
            for secret in self.secrets:
                if secret in text:
                    at = text.index(secret)
                    yield f"{where}: {text[max(0, at - 200) : at + 100]}"
                    break


class Settings(BaseModel):
    port: int = 0
    password: SecretStr = SecretStr("")


def use_client(witness: Witness, client: EtcdMiddleware) -> None:
    client["/a"] = VALUE
    client["/tree"] = {"password": VALUE, "list": [VALUE]}
    witness.secrets |= {dict(run(caller(client).token()))["token"]}
    session, lock = Session(client), Lock(client, "lock")
    with session, lock, client.mirror("/tree") as mirror, client.subscribe("/", lambda change: None) as told:
        session.put("/session", VALUE)
        witness.see(client, client._config, client._space, caller(client), client.tree("/tree"), client.raw)
        witness.see(mirror, told, session, lock, lock.client, client.watch("/"), client.at(1), client.etcd3)
        witness.fails(lambda: client["/a/b"])
        witness.fails(lambda: client.put("/a/b", VALUE))
        witness.fails(lambda: client.create("/a", VALUE))
        witness.fails(lambda: client.put("/a", VALUE, revision=1))
        witness.fails(lambda: client.put("/a", VALUE * 200_000))
        witness.fails(lambda: client.put("/a", {"b": [VALUE, object()]}))
        witness.fails(lambda: client.put("/a", [VALUE, {1: VALUE}]))
        witness.fails(lambda: client.put("/a", VALUE, ttl=-1))
        witness.fails(lambda: session.put("/tree/list/2", VALUE))
        witness.fails(lambda: client.transaction(lambda view: view[f"/nothing/{view['/a'][:0]}"]))
        witness.fails(lambda: pickle.dumps(client))


def use_configuration(witness: Witness, client: EtcdMiddleware) -> None:
    client["/settings"] = {"port": 1, "password": VALUE}
    client["/canary.conf/C"] = {"port": 1, "password": VALUE}
    driver = EtcdConfDriver(client)
    conf = configuration(category("C", Parameter("port", ptype=int, value=0), Parameter("password")))

    @Configurable(paths="canary.conf", conf=conf, drivers=[driver])
    class Configured:
        port: int

    with follow(Settings, "/settings", client=client) as settings, watch(Configured(), settle=0) as reload:
        witness.see(settings, settings.current, reload, driver)
        client.update({"/settings/port": "ninety", "/canary.conf/C/port": "ninety"})
        until(lambda: settings.error is not None and reload.error is not None)
        witness.error(settings.error or ValueError())
        witness.error(reload.error or ValueError())


def use_services(witness: Witness, url: str) -> None:
    service = Echo()
    with service:
        service.start_in_thread(host=url)
        with connect(host=url) as cxn:
            link = cxn.link("Echo")
            assert link.same(VALUE) == VALUE
            tether = link._tether
            witness.secrets |= {tether.record.token, tether._secret}
            witness.see(
                service, cxn, link, tether, tether.record, link.same, cxn.identity(), cxn.identities()
            )
            witness.see(cxn.identities(as_string=True), link.service_attributes)
            witness.fails(lambda: link.boom())
            witness.fails(lambda: link.same(VALUE, VALUE))
            witness.fails(lambda: link.same(object()))
            witness.fails(lambda: link.sleep(VALUE))
            witness.fails(lambda: link.sleep(1, timeout=0.01))
            witness.fails(lambda: link._secret())
            link.acquire_lock()
            with connect(host=url, name="second") as second:
                witness.fails(lambda: second.link("Echo"))
            witness.fails(lambda: cxn.admin_request("users_table.is_password_valid", "root", PASSWORD, 5))
        witness.fails(lambda: link.same(VALUE))


def use_asyncio(witness: Witness, url: str) -> None:
    async def main() -> None:
        async with aio.EtcdMiddleware.from_url(url) as client:
            await client.put("/aio", VALUE)
            witness.see(client, await client.mirror("/aio"))
            for action in (
                client.create("/aio", VALUE),
                client.put("/aio/b", VALUE),
                client.put("/x", {1: VALUE}),
            ):
                with contextlib.suppress(AssertionError):
                    try:
                        await action
                    except Exception as error:  # noqa: BLE001
                        witness.error(error)

    asyncio.run(main())


def fail_to_connect(witness: Witness, proxy: Proxy, endpoint: str) -> None:
    client = EtcdMiddleware.from_url(f"etcd://root:{PASSWORD}@{proxy.endpoint}/c?timeout=2")
    assert client.get("/a") is None
    proxy.hold()
    witness.fails(lambda: client.put("/a", VALUE))
    witness.fails(lambda: client["/a"])
    client.close()
    witness.fails(lambda: client.put("/a", VALUE))
    for url in (
        f"etcd://root:{WRONG}@{endpoint}?timeout=2",
        f"etcd://{WRONG}:{WRONG}@{endpoint}?timeout=2".replace(f"{WRONG}:", "nobody:"),
        f"etcd://root:{PASSWORD}@127.0.0.1:1?timeout=0.5",
        f"etcds://root:{PASSWORD}@{endpoint}?timeout=0.5",
        f"etcd://root:{PASSWORD}@h:x",
        f"etcd://root:{PASSWORD}@h?user:{PASSWORD}1",
        f"http://root:{PASSWORD}@h",
    ):
        witness.fails(lambda url=url: EtcdMiddleware.from_url(url).put("/a", VALUE))
        witness.fails(lambda url=url: connect(host=url, timeout=1))
        witness.command("--url", url, "set", "/a", VALUE)


def use_commands(witness: Witness, endpoint: str) -> None:
    url = f"etcd://root:{PASSWORD}@{endpoint}/cli"
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "file.yaml"
        file.write_text(f"a: {VALUE}\nb: [2001-02-30]\n")
        secret = Path(name) / "password"
        secret.write_text(f"{WRONG}\n")
        for args in (
            ["set", "/a", VALUE],
            ["set", "/a/b", VALUE],
            ["set", "/a", VALUE, "--if-revision", "1"],
            ["set", "--json", "/a", f'"{VALUE}'],
            ["import", "-y", str(file), "/b"],
            ["del", "/nothing"],
            ["ls", "/"],
            ["status"],
            ["identities"],
            ["call", "Nobody", "echo", VALUE],
            ["user", "list"],
            ["backup", str(Path(name) / "dump")],
        ):
            witness.command("--url", url, *args)
            witness.command("--endpoints", endpoint, "--user", "root", *args, LINK_KV_PASSWORD=WRONG)
        witness.command("--endpoints", endpoint, "--user", "root", "--password-file", str(secret), "status")
        witness.command("--url", url, "user", "add", "someone", stdin=f"{WRONG}\n{WRONG}\n")
        witness.command("--url", url, "user", "passwd", "nobody", stdin=f"{WRONG}\n{WRONG}\n")


def main() -> None:
    for name in [name for name in os.environ if name.startswith("LINK_KV_") and name != "LINK_KV_ETCD"]:
        del os.environ[name]
    witness = Witness()
    logging.getLogger().addHandler(witness)
    logging.getLogger().setLevel(logging.DEBUG)
    with local.start() as etcd, tempfile.TemporaryDirectory() as home:
        os.environ["LINK_KV_HOME"] = home
        etcdctl(etcd, f"user add root:{PASSWORD}")
        etcdctl(etcd, "user grant-role root root")
        etcdctl(etcd, "auth enable")
        endpoint = etcd.endpoints[0]
        url = f"etcd://root:{PASSWORD}@{endpoint}/canary"
        with EtcdMiddleware.from_url(url) as client:
            use_client(witness, client)
            use_configuration(witness, client)
        use_services(witness, url)
        use_asyncio(witness, url)
        with Proxy(endpoint) as proxy:
            fail_to_connect(witness, proxy, endpoint)
        use_commands(witness, endpoint)
    print(
        json.dumps({**witness.counts, "secrets": len(witness.secrets), "found": list(witness.found())}),
        flush=True,
    )


if __name__ == "__main__":
    main()
