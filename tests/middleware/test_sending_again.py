"""What may be sent again: a second arrival of a write changes nothing, and a read never writes."""

from __future__ import annotations

from typing import Any

import pytest

from link_kv import EtcdMiddleware
from link_kv._core.operations.raw_copy import Raw, copy_in
from link_kv._core.revived import messages
from link_kv._core.wire.calls import TXN, Repeat, run

USES: dict[str, Any] = {
    "leaf": lambda client: client.put("/a", 2),
    "leaf in a list": lambda client: client.put("/l/2", 2),
    "tree": lambda client: client.put("/t", {"x": {"new": 1}, "z": []}),
    "empty dict": lambda client: client.put("/t", {}),
    "tree over nothing": lambda client: client.put("/new", ["a"]),
    "tree over a leaf": lambda client: client.put("/a", {"x": 1}),
    "tree in a list": lambda client: client.put("/l/2", {"y": 1}),
    "large tree": lambda client: client.put("/t", {str(number): number for number in range(500)}),
    "put at": lambda client: client.put("/a", 2, revision=client.entry("/a").revision),
    "tree at": lambda client: client.put("/a", {"x": 2}, revision=client.entry("/a").revision),
    "empty at": lambda client: client.put("/e", {"x": 2}, revision=client.entry("/e").revision),
    "ttl": lambda client: client.put("/a", {"x": 1}, ttl=60),
    "create": lambda client: client.create("/new", {"x": 1}),
    "setdefault": lambda client: client.setdefault("/new", []),
    "setdefault there": lambda client: client.setdefault("/t", []),
    "update": lambda client: client.update({"/a": 2, "/t": {"x": 1}, "/new/x": 3}),
    "large update": lambda client: client.update({f"/t/{number}": number for number in range(100)}),
    "append": lambda client: client.append("/l", "d"),
    "append to nothing": lambda client: client.append("/new", "d"),
    "delete": lambda client: client.delete("/t"),
    "delete item": lambda client: client.delete("/l/1"),
    "delete last item": lambda client: client.delete("/l/3"),
    "delete in item": lambda client: client.delete("/l/2/x"),
    "pop": lambda client: client.pop("/t/x"),
    "pop item": lambda client: client.pop("/l/2"),
    "popitem": lambda client: client.popitem(),
    "popitem of a list": lambda client: [client.pop("/a"), client.pop("/e"), client.popitem()],
    "clear": lambda client: client.clear(),
    "list view": lambda client: client.tree("/l").insert(0, "z"),
    "tree view": lambda client: client.tree("/t").clear(),
    "transaction": lambda client: client.transaction(lambda t: t.__setitem__("/a", t["/a"] + 1)),
    "transaction over nothing": lambda client: client.transaction(
        lambda t: t.__setitem__("/new", {"x": t.get("/new", 0)})
    ),
    "transaction that deletes": lambda client: client.transaction(
        lambda t: t.__delitem__("/t") if "/t" in t and "/new" not in t else None
    ),
    "raw": lambda client: [client.raw.update({client.prefix.encode() + b"/r": b"1"}), client.raw.popitem()],
    "restore": lambda client: run(copy_in(client._exchange(), [Raw(b"/a", b"2")], replace=True)),
    "restore over nothing": lambda client: [
        client.raw.clear(),
        run(copy_in(client._exchange(), [Raw(b"/a", b"2")], replace=False)),
        client.raw.clear(),
        run(copy_in(client._exchange(), [Raw(b"/a", b"2")], replace=True)),
    ],
    "read": lambda client: [
        client["/"],
        client["/t"],
        client.entry("/l"),
        list(client),
        client.tree("/l"),
        len(client),
    ],
}


@pytest.mark.parametrize("meanwhile", ["nothing", "all is deleted", "all is put back"])
@pytest.mark.parametrize("use", USES.values(), ids=list(USES))
def test_a_request_that_may_be_sent_again_changes_nothing_the_second_time(
    etcd: Any, client: EtcdMiddleware, monkeypatch: pytest.MonkeyPatch, use: Any, meanwhile: str
) -> None:
    """Whatever others do between its two arrivals."""
    other = EtcdMiddleware(endpoints=etcd.endpoints, prefix=client.prefix, timeout=60)
    raw = other.raw
    client.update({"/a": 1, "/e": {}, "/l": ["a", {"x": 1}, "c"], "/t": {"x": {"y": [1]}, "z": 2}})
    call = client._space.caller.call
    sent = []

    async def send_again(before: dict[bytes, bytes] | None, request: bytes, *more: Any) -> None:
        changed = before is not None and meanwhile != "nothing"
        after = dict(raw.items())
        if changed:
            other.clear()
        if changed and meanwhile == "all is put back":
            raw.update(before or {})
        again = await call(TXN, request, Repeat.GUARDED, *more)
        assert not again.succeeded
        if changed:
            other.clear()
            raw.update(after)

    async def twice(method: Any, request: bytes, repeat: Any, *more: Any) -> Any:
        before = dict(raw.items()) if repeat is Repeat.GUARDED else {}
        answer = await call(method, request, repeat, *more)
        if method == TXN:
            sent.append(repeat)
            if repeat is Repeat.READ:
                assert not writes(messages().TxnRequest.FromString(request))
            elif repeat is Repeat.GUARDED:
                await send_again(before if answer.succeeded else None, request, *more)
        return answer

    monkeypatch.setattr(client._space.caller, "call", twice)
    with other:
        use(client)
    assert sent


def writes(txn: Any) -> bool:
    return any(
        operation.HasField("request_put")
        or operation.HasField("request_delete_range")
        or (operation.HasField("request_txn") and writes(operation.request_txn))
        for operation in (*txn.success, *txn.failure)
    )
