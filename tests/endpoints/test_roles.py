"""What the guide says of roles: that they keep others from writing past the service, and nothing else."""

from __future__ import annotations

import pytest

from link_kv import AccessDenied, get
from link_kv._core.cluster import auth
from link_kv._core.wire.calls import run
from link_kv.endpoints import Endpoints, KVStore, KVStoreKey

from ..logins import ANN, ROOT, client_of, server_with_logins


def test_who_may_not_write_the_store_sets_by_the_service() -> None:
    with server_with_logins() as etcd:
        with client_of(etcd, ROOT, prefix="/app") as root:
            ex = root._exchange()
            run(auth.add_role(ex, "operator"))
            for path, kind in (("/", "read"), ("/.link", "readwrite")):
                for each in auth.grants(ex, path, kind):  # type: ignore[arg-type]
                    run(auth.grant(ex, "operator", each))
            run(auth.give_role(ex, "ann", "operator"))
            kv = KVStore(name="kv", heartbeat_interval=0)
            kv.add_endpoint(KVStoreKey(1, name="foo"))
            kv._kv_where = root._config
            kv.start_in_thread()
        try:
            with client_of(etcd, ANN, prefix="/app") as ann, Endpoints(ann) as endpoints:
                assert endpoints.get("foo") == {"value_raw": 1}
                item = get("kv.foo", client=ann)
                item.set(2)
                assert item.value == 2
                with pytest.raises(AccessDenied):
                    ann["/kv/foo"] = 3
                key = endpoints.lock("foo")
                with pytest.raises(AccessDenied, match="is locked by"):
                    item.set(4)
                endpoints.unlock("foo", key)
        finally:
            kv.stop()
