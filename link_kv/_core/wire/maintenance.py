"""The etcd3 package's client, for maintenance: members, status, snapshots, defragmenting, alarms."""

from __future__ import annotations

from typing import Any

from link_kv._core.wire.calls import Caller
from link_kv.errors import ConfigError


async def etcd3_client(caller: Caller) -> Any:
    """An ``etcd3.Etcd3Client`` on the endpoint in use, with the token of ``caller``."""
    import etcd3  # type: ignore[import-untyped]

    config = caller.config
    if config.tls and config.ca_cert is None:
        raise ConfigError("ca_cert: the etcd3 client needs a CA file to use TLS")
    host, _, port = (await caller.endpoint()).rpartition(":")
    client = etcd3.client(
        host=host,
        port=int(port),
        ca_cert=config.ca_cert,
        cert_cert=config.cert_cert,
        cert_key=config.cert_key or config.cert_cert,
        timeout=config.timeout,
        grpc_options={"grpc.max_receive_message_length": -1, "grpc.use_local_subchannel_pool": 1}.items(),
    )
    # The token travels as metadata alone. As call credentials, which etcd3 would make of a login, grpcio
    # refuses it over plaintext.
    client.metadata = client.watcher._metadata = await caller.token() or None
    return client
