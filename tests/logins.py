"""A server whose etcd asks who one is, with the users and roles of docs/how-to/roles.md."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from link_kv import EtcdMiddleware, local
from link_kv._core.cluster import auth
from link_kv._core.wire.calls import run
from link_kv._core.wire.config import Config

ROOT, ANN = ("root", "ROOT-PASSWORD"), ("ann", "ANNS-PASSWORD")


def client_of(
    etcd: local.LocalEtcd, login: tuple[str, str] | None = None, prefix: str = ""
) -> EtcdMiddleware:
    """A client of a server. Nothing of the environment counts."""
    user, password = login or (None, None)
    client: EtcdMiddleware = EtcdMiddleware._of(
        Config(endpoints=tuple(etcd.endpoints), user=user, password=password, prefix=prefix)
    )
    return client


@contextmanager
def server_with_logins() -> Iterator[local.LocalEtcd]:
    """``ann`` reads all of ``/app`` and writes ``/app/store``; ``root`` may do all."""
    with local.start() as etcd:
        with client_of(etcd, prefix="/app") as client:
            ex = client._exchange()
            run(auth.add_user(ex, *ROOT))
            run(auth.add_user(ex, *ANN))
            run(auth.add_role(ex, "store-writer"))
            for path, kind in (("/", "read"), ("/store", "readwrite")):
                for each in auth.grants(ex, path, kind):  # type: ignore[arg-type]
                    run(auth.grant(ex, "store-writer", each))
            run(auth.give_role(ex, "ann", "store-writer"))
            run(auth.enable(ex))
        yield etcd
