"""What the mapping promises, on the blocking client and on the asyncio one."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from link_kv import EtcdMiddleware, aio
from link_kv.errors import (
    Closed,
    ConfigError,
    Conflict,
    EncodeError,
    KeyExists,
    ListIndexError,
    NotATree,
    NotFound,
    PathError,
    RevisionError,
    TooLarge,
)
from tests.contract.adapters import Kind, soon
from tests.leases import revoke

DOCUMENT = {"name": "cam", "size": {"x": 1, "y": 2.5}, "tags": ["a", "b"], "empty": {}, "none": None}


async def test_what_is_assigned_is_read_as_a_leaf_and_as_a_tree(client: Any) -> None:
    await client.assign("/a", DOCUMENT)
    assert await client.item("/a") == DOCUMENT
    assert await client.item("a/size/x/") == 1
    assert await client.get("/a/tags") == ["a", "b"]
    assert await client.get("/nothing") is None
    assert await client.get("/nothing", 7) == 7
    with pytest.raises(NotFound, match="/nothing"):
        await client.item("/nothing")


async def test_put_tells_the_revision_and_compares_it(client: Any) -> None:
    first = await client.put("/a", 1)
    second = await client.put("/a", 2, revision=first)
    assert second > first
    with pytest.raises(Conflict, match="/a"):
        await client.put("/a", 3, revision=first)
    with pytest.raises(KeyExists):
        await client.put("/a", 3, revision=0)
    assert await client.put("/b", {"x": 1}, revision=0) > second
    with pytest.raises(TooLarge):
        await client.put("/b", 1, revision=second)
    assert await client.item("/a") == 2


async def test_put_for_a_while(client: Any, etcd: Any) -> None:
    await client.put("/a", {"b": 1}, ttl=600)
    lease = (await client.entry("/a/b")).lease
    assert lease
    revoke(etcd.endpoints[0], lease)
    await soon(lambda: _gone(client, "/a"))
    await client.put("/a", {"b": 1}, ttl=1)
    await soon(lambda: _gone(client, "/a"))
    with pytest.raises(ConfigError, match="ttl"):
        await client.put("/a", 1, ttl=0)


async def _gone(client: Any, path: str) -> bool:
    return not await client.has(path)


async def test_create_and_setdefault(client: Any) -> None:
    assert await client.create("/a", [1]) > 0
    with pytest.raises(KeyExists, match="/a"):
        await client.create("/a", 2)
    assert await client.setdefault("/a", 3) == [1]
    assert await client.setdefault("/b", {"c": 3}) == {"c": 3}
    assert await client.item("/b/c") == 3


async def test_delete_and_pop(client: Any) -> None:
    await client.assign("/a", {"b": 1, "c": {"d": 2}})
    await client.assign("/ab", 1)
    assert await client.pop("/a/c") == {"d": 2}
    await client.remove("/a/b")
    assert not await client.has("/a")
    assert await client.has("/ab")
    assert await client.delete("/ab") > 0
    for act in (client.delete, client.remove, client.pop, client.item, client.entry, client.snapshot):
        with pytest.raises(NotFound):
            await act("/ab")
    assert await client.pop("/ab", None) is None
    assert await client.pop("/ab", 5) == 5


async def test_popitem(client: Any) -> None:
    await client.update({"/b": 1, "/a": {"x": []}})
    assert await client.popitem() == ("/a/x", [])
    assert await client.popitem() == ("/b", 1)
    with pytest.raises(NotFound):
        await client.popitem()


async def test_update_is_one_revision(client: Any) -> None:
    await client.update({"/a": 1}, b={"c": 2})
    await client.update([("/b/d", 3), ("/e", 4)])
    assert await client.snapshot() == {"a": 1, "b": {"c": 2, "d": 3}, "e": 4}
    assert (await client.entry("/b/d")).revision == (await client.entry("/e")).revision
    with pytest.raises(NotATree):
        await client.update({"/f": 1, "/a/x": 2})
    assert not await client.has("/f")


async def test_iteration_in_the_order_of_keys(client: Any) -> None:
    await client.update({"/b": 2, "/a": {"y": [1], "x": {}}, "/a-": 3})
    paths = ["/a-", "/a/x", "/a/y/1", "/b"]
    assert await client.paths() == paths
    assert await client.pairs() == list(zip(paths, [3, {}, 1, 2], strict=True))
    assert await client.contents() == [3, {}, 1, 2]
    assert await client.size() == 4


async def test_clear(client: Any, kind: Kind) -> None:
    await client.update({"/a": 1, "/b": {"c": 2}})
    await client.clear()
    assert await client.size() == 0
    async with kind.client(prefix="") as everything:
        with pytest.raises(PathError, match="force"):
            await everything.clear()


async def test_entry(client: Any) -> None:
    first = await client.put("/a/b", 1)
    second = await client.put("/a/c", 2)
    entry = await client.entry("/a")
    assert (entry.value, entry.revision, entry.created, entry.version, entry.lease) == (
        {"b": 1, "c": 2},
        second,
        first,
        0,
        0,
    )
    entry = await client.entry("/a/c")
    assert (entry.value, entry.revision, entry.created, entry.version) == (2, second, second, 1)


async def test_lists(client: Any) -> None:
    assert await client.append("/l", "a") == "/l/1"
    assert await client.append("/l", {"x": 1}) == "/l/2"
    await client.assign("/l/3", "c")
    with pytest.raises(ListIndexError):
        await client.assign("/l/5", "e")
    await client.remove("/l/1")
    assert await client.item("/l") == [{"x": 1}, "c"]
    with pytest.raises(NotATree):
        await client.append("/l/2", "x")


async def test_the_past(client: Any) -> None:
    revision = await client.put("/a", {"b": 1})
    await client.assign("/a/b", 2)
    past = client.past(revision)
    assert past.revision == revision
    assert await past.item("/a") == {"b": 1}
    assert await past.get("/c", 0) == 0
    assert await past.has("/a/b")
    assert await past.paths() == ["/a/b"]
    assert await past.pairs() == [("/a/b", 1)]
    assert await past.contents() == [1]
    assert await past.size() == 1
    assert await client.snapshot("/a", revision=revision) == {"b": 1}
    assert await client.snapshot("/a") == {"b": 2}
    with pytest.raises(RevisionError):
        await client.snapshot("/a", revision=revision + 10**9)
    with pytest.raises(RevisionError):
        client.past(0)


async def test_raw_keys(client: Any) -> None:
    key = client.prefix.encode() + b"/raw\xff"
    await client.raw.assign(key, b"\x00\xff")
    assert await client.raw.item(key) == b"\x00\xff"
    assert await client.raw.get(key) == b"\x00\xff"
    assert await client.raw.get(b"nothing") is None
    assert await client.raw.paths() == [key]
    assert await client.raw.pairs() == [(key, b"\x00\xff")]
    assert await client.raw.size() == 1
    assert await client.raw.has(key)
    assert await client.raw.contents() == [b"\x00\xff"]
    await client.raw.remove(key)
    assert not await client.raw.has(key)
    for act in (client.raw.item, client.raw.remove):
        with pytest.raises(NotFound):
            await act(key)
    with pytest.raises(EncodeError):
        await client.raw.assign("text", b"")


async def test_bad_input(client: Any) -> None:
    for path in ("/a//b", "/a/../b", "/.link", "//", 1, None, b"/a", "\ud800"):
        for act in (client.item, client.get, client.has, client.delete):
            with pytest.raises(PathError):
                await act(path)
        for write in (client.assign, client.put, client.create, client.append, client.setdefault):
            with pytest.raises(PathError):
                await write(path, 1)
    for value in (object(), {1: 2}, {"a": {"b": set()}}):
        with pytest.raises(EncodeError, match="/x"):
            await client.assign("/x", value)
    for path in ("/", ""):
        with pytest.raises(PathError):
            await client.assign(path, {})
        with pytest.raises(PathError):
            await client.delete(path)
    await client.assign("/a", 1)
    with pytest.raises(NotATree, match="/a"):
        await client.assign("/a/b", 2)
    assert await client.pairs() == [("/a", 1)]
    await client.assign("/l", ["x"])
    endless = "/l/" + "9" * 5000  # more digits than Python reads
    for write in (client.assign, client.append, client.put):
        with pytest.raises(ListIndexError, match="/l"):
            await write(endless, 1)
    assert await client.get(endless) is None


async def test_it_names_itself_and_not_its_password(kind: Kind) -> None:
    client = kind.client(user="me", password="secret")
    async with client:
        shown = repr(client.target)
        assert "me@" in shown
        assert client.prefix in shown
        assert "secret" not in shown


async def test_it_is_made_from_a_url(kind: Kind, etcd: Any, etcd_prefix: str) -> None:
    made = EtcdMiddleware if kind.blocking else aio.EtcdMiddleware
    client = made.from_url(f"etcd://{etcd.endpoints[0]}{etcd_prefix}?timeout=3")
    wrapped = kind.client()
    wrapped.target, unused = client, wrapped.target
    async with wrapped:
        await wrapped.assign("/a", 1)
        assert await wrapped.item("/a") == 1
    wrapped.target = unused
    await wrapped.close()


async def test_a_closed_client_refuses_and_may_be_closed_again(kind: Kind) -> None:
    client = kind.client()
    await client.assign("/a", 1)
    await client.close()
    await client.close()
    for act in (client.item("/a"), client.assign("/a", 2), client.paths(), client.tree("/a")):
        with pytest.raises(Closed):
            await act


def test_both_have_the_same_verbs_with_the_same_parameters() -> None:
    """What asyncio cannot spell, it calls by a name."""
    instead = {"__contains__": "contains", "__len__": "count", "__setitem__": "put", "__delitem__": "delete"}
    for name, found in inspect.getmembers(EtcdMiddleware):
        public = not name.startswith("_") or name in instead
        if not public:
            continue
        twin = getattr(aio.EtcdMiddleware, instead.get(name, name))
        if name not in instead and inspect.isfunction(found):
            mine, theirs = inspect.signature(found), inspect.signature(twin)
            assert [*mine.parameters] == [*theirs.parameters], name
            for one, other in zip(mine.parameters.values(), theirs.parameters.values(), strict=True):
                assert (one.default, one.kind) == (other.default, other.kind), (name, one)
