"""The raw keys: bytes as etcd has them, all of them."""

from __future__ import annotations

from typing import Any

import pytest

from link_kv import EtcdMiddleware, local
from link_kv._core.operations import PAGE
from link_kv.errors import EncodeError, NotFound, PathError


@pytest.fixture
def key(client: EtcdMiddleware) -> Any:
    """A whole key, from what follows the prefix."""
    return lambda rest: client.prefix.encode() + rest


def test_raw_shows_keys_and_values_as_etcd_has_them(client: EtcdMiddleware, key: Any) -> None:
    client["/a"] = {"x": 5, "l": ["y"], "b": b"\0"}
    assert dict(client.raw) == {
        key(b"/.link/layout"): b"1",
        key(b"/a/b"): b"\xff\0",
        key(b"/a/l/"): b"[]",
        key(b"/a/l/1"): b"y",
        key(b"/a/x"): b"5",
    }
    assert list(client.raw) == sorted(client.raw)
    assert list(client.raw.items()) == [(each, client.raw[each]) for each in client.raw]
    assert list(client.raw.values()) == [value for _, value in client.raw.items()]
    assert len(client.raw) == 5


def test_raw_writes_and_deletes_any_key(client: EtcdMiddleware, key: Any) -> None:
    for rest in (b"/a", b"/a/", b"//", b"/\xff\0", b"/.link/x", b"/a/../b"):
        client.raw[key(rest)] = b"value"
        assert client.raw[key(rest)] == client.raw.get(key(rest)) == b"value"
        assert key(rest) in client.raw
        del client.raw[key(rest)]
        assert key(rest) not in client.raw
    assert len(client.raw) == 0
    client.raw.update({key(b"/x"): b"1", key(b"/y"): b""})
    assert client.raw.pop(key(b"/x")) == b"1"
    assert client.raw.setdefault(key(b"/y"), b"2") == b""
    assert client.raw.popitem() == (key(b"/y"), b"")


@pytest.mark.parametrize("meanwhile", [None, b"other"], ids=repr)
def test_what_others_do_meanwhile_is_neither_lost_nor_returned(
    etcd: Any, client: EtcdMiddleware, key: Any, monkeypatch: pytest.MonkeyPatch, meanwhile: bytes | None
) -> None:
    """Between any two requests of one operation."""
    call = client._space.caller.call
    one = key(b"/x")

    async def after_others(method: Any, request: bytes, *more: Any) -> Any:
        answer = await call(method, request, *more)
        if others:
            others.pop()()
        return answer

    def change() -> None:
        if meanwhile is None:
            other.raw.pop(one, None)
        else:
            other.raw[one] = meanwhile

    with EtcdMiddleware(endpoints=etcd.endpoints, prefix=client.prefix) as other:
        other.raw[one] = b"first"
        others = [change]
        monkeypatch.setattr(client._space.caller, "call", after_others)
        assert client.raw.pop(one, b"none") == b"first"
        assert other.raw.get(one) == meanwhile
        other.raw[one] = b"first"
        others = [change]
        assert client.raw.setdefault(one, b"mine") == b"first"
        assert other.raw.get(one) == meanwhile
        other.raw[one] = b"first"
        others = [change]
        if meanwhile is None:
            with pytest.raises(NotFound):
                client.raw.popitem()
        else:
            assert client.raw.popitem() == (one, meanwhile)
        assert len(other.raw) == 0


def test_clearing_the_raw_keys_is_one_delete_of_what_is_below_the_prefix(
    client: EtcdMiddleware, key: Any
) -> None:
    beyond = key(b"0/beyond")
    client.raw[beyond] = client.raw[key(b"//x")] = b"1"
    revision = client.put("/a", {"x": 1, "y": {}})
    client.raw.clear()
    assert len(client.raw) == 0
    assert client.raw.pop(beyond) == b"1"
    assert client.put("/a", 1) == revision + 3


def test_clearing_the_whole_etcd_needs_force() -> None:
    with local.start() as server, EtcdMiddleware(endpoints=server.endpoints) as client:
        client["/a"] = 1
        client.raw[b"\0"] = b"1"
        with pytest.raises(PathError, match="force=True"):
            client.raw.clear()
        assert client["/a"] == 1
        client.raw.clear(force=True)
        assert list(client.raw) == []


def test_raw_reaches_beyond_the_prefix_and_iterates_within_it(client: EtcdMiddleware, key: Any) -> None:
    beyond = key(b"0/beyond")
    client.raw[beyond] = b"1"
    client.raw[key(b"/within")] = b"2"
    assert client.raw[beyond] == b"1"
    assert list(client.raw) == [key(b"/within")]
    del client.raw[beyond]


def test_raw_without_a_prefix_is_the_whole_cluster(etcd: Any, client: EtcdMiddleware, key: Any) -> None:
    with EtcdMiddleware(endpoints=etcd.endpoints) as everything:
        everything.raw[b"no slash " + key(b"")] = b"1"
        everything.raw[key(b"/x")] = b"2"
        found = set(everything.raw)
        assert {b"no slash " + key(b""), key(b"/x")} <= found
        assert everything.raw[key(b"/x")] == client.raw[key(b"/x")] == b"2"
        assert "no slash" not in str(list(everything)), "what has no slash is no path"
        del everything.raw[b"no slash " + key(b"")]


def test_a_raw_key_that_is_not_there_is_a_key_error(client: EtcdMiddleware, key: Any) -> None:
    for use in (
        lambda: client.raw[key(b"/a")],
        lambda: client.raw.__delitem__(key(b"/a")),
        lambda: client.raw.pop(key(b"/a")),
    ):
        with pytest.raises(NotFound, match="/a"):
            use()
    assert client.raw.get(key(b"/a")) is None


@pytest.mark.parametrize("bad", ["/a", None, 5, bytearray(b"/a")], ids=repr)
def test_raw_keys_and_values_are_bytes(client: EtcdMiddleware, key: Any, bad: Any) -> None:
    uses: list[Any] = [
        lambda: client.raw[bad],
        lambda: client.raw.get(bad),
        lambda: client.raw.__setitem__(bad, b""),
        lambda: client.raw.__setitem__(key(b"/a"), bad),
        lambda: client.raw.__delitem__(bad),
        lambda: client.raw.pop(bad, None),
        lambda: client.raw.setdefault(bad, b""),
        lambda: client.raw.setdefault(key(b"/a"), bad),
    ]
    for use in uses:
        with pytest.raises(EncodeError, match="bytes"):
            use()
    assert bad not in client.raw


def test_etcd_has_no_empty_key(client: EtcdMiddleware) -> None:
    for use in (
        lambda: client.raw[b""],
        lambda: client.raw.__setitem__(b"", b"x"),
        lambda: client.raw.__delitem__(b""),
    ):
        with pytest.raises(PathError, match="empty key"):
            use()


def test_raw_pages_are_of_one_revision(client: EtcdMiddleware, key: Any) -> None:
    client["/a"] = {f"{number:05}": 0 for number in range(PAGE + 100)}
    items = iter(client.raw.items())
    next(items)
    client["/a"] = {"x": 1}
    assert {value for _, value in items} == {b"0"}
    assert len(client.raw) == 2


def test_raw_compares_by_identity(client: EtcdMiddleware) -> None:
    raw = client.raw
    assert raw == raw
    assert raw != dict(raw)
    assert len({raw, client.raw}) == 2
