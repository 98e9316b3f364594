"""What live views of trees and lists promise, on the blocking client and on the asyncio one."""

from __future__ import annotations

from typing import Any

import pytest

from link_kv.errors import EncodeError, ListIndexError, NotATree, NotFound


async def test_a_tree_by_the_names_of_its_children(client: Any) -> None:
    await client.assign("/a", {"b": {"x/y": 1}, "c": 2})
    tree = await client.tree("/a")
    assert tree.path == "/a"
    assert "/a" in repr(tree.target)
    assert await tree.item("c") == 2
    assert await (await tree.item("b")).item("x/y") == 1
    assert await (await tree.get("b")).snapshot() == {"x/y": 1}
    assert await tree.get("nothing") is None
    assert await tree.get("nothing", 5) == 5
    assert await tree.paths() == ["b", "c"]
    assert await tree.size() == 2
    assert await tree.has("b")
    assert not await tree.has("x/y")
    assert not await tree.has(1)
    assert await tree.snapshot() == {"b": {"x/y": 1}, "c": 2}
    with pytest.raises(NotFound, match="'nothing'"):
        await tree.item("nothing")
    with pytest.raises(EncodeError):
        await tree.assign(1, 2)


async def test_writing_through_a_tree(client: Any) -> None:
    tree = await client.tree("/a")
    assert await tree.snapshot() == {}
    await tree.assign("b", {"c": 1})
    await (await tree.item("b")).assign("d/e", 2)
    assert await client.item("/a") == {"b": {"c": 1, "d/e": 2}}
    await tree.update({"f": 3}, g=[4])
    assert await tree.pop("f") == 3
    assert await tree.pop("f", None) is None
    assert await tree.setdefault("f", 5) == 5
    assert await tree.setdefault("f", 6) == 5
    await tree.remove("f")
    for act in (tree.remove, tree.pop):
        with pytest.raises(NotFound, match="'f'"):
            await act("f")
    assert await tree.popitem() == ("b", {"c": 1, "d/e": 2})
    await tree.clear()
    assert await client.item("/a") == {}
    with pytest.raises(NotFound):
        await tree.popitem()


async def test_a_view_can_be_assigned(client: Any) -> None:
    await client.assign("/a", {"b": {"c": [1, 2]}})
    tree = await client.tree("/a")
    await tree.assign("copy", await tree.item("b"))
    await (await client.tree("/")).update({"all": await client.tree("/a/b")})
    assert await client.snapshot() == {"a": {"b": {"c": [1, 2]}, "copy": {"c": [1, 2]}}, "all": {"c": [1, 2]}}


async def test_the_root_as_a_tree(client: Any) -> None:
    root = await client.tree()
    await root.assign("a", 1)
    assert await root.paths() == ["a"]
    assert await root.snapshot() == {"a": 1}
    await root.clear()
    assert await client.size() == 0


async def test_a_list_is_counted_from_0(client: Any) -> None:
    await client.assign("/l", ["a", {"x": 1}, "c"])
    items = await client.tree("/l")
    assert await items.size() == 3
    assert await items.item(0) == "a"
    assert await items.item(-1) == "c"
    assert await (await items.item(1)).item("x") == 1
    assert await items.item(slice(1, None)) == [{"x": 1}, "c"]
    assert await items.paths() == ["a", {"x": 1}, "c"]
    assert await items.snapshot() == ["a", {"x": 1}, "c"]
    for index in (3, -4):
        with pytest.raises(ListIndexError, match="/l"):
            await items.item(index)


async def test_changing_a_list(client: Any) -> None:
    await client.assign("/l", ["b"])
    items = await client.tree("/l")
    await items.append("d")
    await items.insert(0, "a")
    await items.insert(2, "c")
    assert await client.item("/l") == ["a", "b", "c", "d"]
    await items.assign(-1, "D")
    await items.assign(slice(0, 2), ["A", "B"])
    await items.extend([["e"], {"f": 1}])
    assert await items.pop() == {"f": 1}
    assert await items.pop(0) == "A"
    await items.remove(0)  # by its index
    await items.reverse()
    assert await client.item("/l") == [["e"], "D", "c"]
    await items.discard("D")
    with pytest.raises(ValueError, match="not in list"):
        await items.discard("D")
    await items.clear()
    assert await client.item("/l") == []
    with pytest.raises(ListIndexError):
        await items.pop()


async def test_what_is_no_tree_has_no_view(client: Any) -> None:
    await client.assign("/a", 1)
    with pytest.raises(NotATree, match="/a"):
        await client.tree("/a")
    await client.assign("/l", ["a"])
    items = await client.tree("/l")
    await client.assign("/l", {"x": 1})
    with pytest.raises(NotATree, match="/l"):
        await items.snapshot()
