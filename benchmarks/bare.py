"""etcd through gRPC's stubs and nothing else: the floor that every client stands on."""

from __future__ import annotations

from typing import Any

import grpc

from link_kv._core.revived import messages

M = messages()
_OPTIONS = [("grpc.max_receive_message_length", -1)]


class Stub:
    """The calls of etcd's KV service, by name: ``Put Range Txn``."""

    def __init__(self, endpoint: str, module: Any = grpc) -> None:
        self.channel = module.insecure_channel(endpoint, options=_OPTIONS)
        for name in ("Put", "Range", "Txn"):
            method = self.channel.unary_unary(
                f"/etcdserverpb.KV/{name}",
                request_serializer=getattr(M, f"{name}Request").SerializeToString,
                response_deserializer=getattr(M, f"{name}Response").FromString,
            )
            setattr(self, name, method)


def puts(items: list[tuple[bytes, bytes]]) -> Any:
    """One transaction of puts."""
    operations = [M.RequestOp(request_put=M.PutRequest(key=key, value=value)) for key, value in items]
    return M.TxnRequest(success=operations)


def guarded_put(key: bytes, value: bytes, ancestors: list[bytes]) -> Any:
    """The transaction that link_kv sends for a small value, written by hand with messages."""
    compares, reads = [], []
    for ancestor in ancestors:
        for guard in (ancestor, ancestor + b"/"):
            compares.append(M.Compare(key=guard, version=0))
            reads.append(M.RequestOp(request_range=M.RangeRequest(key=guard)))
    return M.TxnRequest(
        compare=compares,
        success=[
            M.RequestOp(request_put=M.PutRequest(key=key, value=value)),
            M.RequestOp(request_delete_range=M.DeleteRangeRequest(key=key + b"/", range_end=key + b"0")),
        ],
        failure=reads,
    )
