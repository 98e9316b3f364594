"""The reserved segment: what is kept below it, when it goes, and the version of the layout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from link_kv import EtcdMiddleware
from link_kv._core.wire.exchange import Exchange
from link_kv.errors import ConfigError, KeyExists, NotFound
from tests.middleware.conftest import Stored

NOTES = {
    "/.link/services/s": "prefix",
    "/t/.link/items/x": "tree",
    "/t/.link/at/x": "tree",
    "/t/sub/.link/items/y": "sub",
    "/t/sub/l/.link/items/1": "list",
    "/u/.link/items/z": "sibling",
}


@pytest.fixture
def noted(client: EtcdMiddleware, foreign: Any) -> EtcdMiddleware:
    """A tree with housekeeping at every level."""
    client.update({"/t": {"x": 1, "sub": {"y": 2, "l": ["a", "b"]}}, "/u/z": 3})
    foreign(NOTES)
    return client


def notes(stored: Stored) -> set[str]:
    return {key for key in stored() if "/.link/" in key}


def test_housekeeping_shows_in_no_value_iteration_or_count(noted: EtcdMiddleware) -> None:
    value = {"t": {"x": 1, "sub": {"y": 2, "l": ["a", "b"]}}, "u": {"z": 3}}
    assert noted["/"] == noted.snapshot() == value
    assert noted["/t"] == value["t"]
    assert noted["/t/sub/l"] == ["a", "b"]
    assert list(noted) == ["/t/sub/l/1", "/t/sub/l/2", "/t/sub/y", "/t/x", "/u/z"]
    assert len(noted) == len(noted.keys()) == len(noted.items()) == len(noted.values()) == 5
    assert list(noted.tree("/t")) == ["sub", "x"]
    assert len(noted.tree("/t/sub/l")) == 2
    assert noted.entry("/t").value == value["t"]


def test_a_tree_of_housekeeping_alone_is_not_there(client: EtcdMiddleware, foreign: Any) -> None:
    foreign({"/t/.link/items/x": "1", "/.link/services/s": "1"})
    assert "/t" not in client
    assert client["/"] == {}
    assert not client
    assert len(client) == 0
    assert list(client) == []
    assert client.get("/t") is None
    assert client.create("/t", {"x": 1})
    with pytest.raises(KeyExists):
        client.create("/t", {"x": 1})


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ({"x": 2, "sub": {"new": 1, "l": [1]}}, ["/t", "/t/sub", "/t/sub/l"]),
        ({"sub": {"l": {}}}, ["/t", "/t/sub", "/t/sub/l"]),
        ({"sub": {"y": 1}}, ["/t", "/t/sub"]),
        ({"sub": 5, "x": 1}, ["/t"]),
        ({"sub": []}, ["/t", "/t/sub"]),
        ({}, ["/t"]),
        ([], ["/t"]),
        (["a"], ["/t"]),
        ({"other": {"l": [1]}}, ["/t"]),
        (5, []),
        (None, []),
    ],
    ids=repr,
)
@pytest.mark.parametrize(
    "write",
    [
        lambda client, value: client.__setitem__("/t", value),
        lambda client, value: client.put("/t", value, ttl=60),
        lambda client, value: client.update({"/t": value}),
        lambda client, value: client.update({**{f"/more/{number}": 1 for number in range(50)}, "/t": value}),
    ],
    ids=["setitem", "put", "update", "update-many"],
)
def test_replacing_a_tree_keeps_housekeeping_for_what_the_new_value_still_has(
    noted: EtcdMiddleware, stored: Stored, write: Any, value: Any, kept: list[str]
) -> None:
    write(noted, value)
    assert noted["/t"] == value
    assert notes(stored) == {key for key in NOTES if key.partition("/.link/")[0] in ["", "/u", *kept]}


@pytest.mark.parametrize(
    ("path", "gone"),
    [
        ("/t", ["/t", "/t/sub", "/t/sub/l"]),
        ("/t/sub", ["/t/sub", "/t/sub/l"]),
        ("/t/sub/l", ["/t/sub/l"]),
        ("/t/x", []),
        ("/t/sub/l/1", []),
    ],
)
@pytest.mark.parametrize("remove", [EtcdMiddleware.delete, EtcdMiddleware.pop], ids=["delete", "pop"])
def test_deleting_a_tree_deletes_its_housekeeping(
    noted: EtcdMiddleware, stored: Stored, remove: Any, path: str, gone: list[str]
) -> None:
    remove(noted, path)
    assert notes(stored) == {key for key in NOTES if key.partition("/.link/")[0] not in gone}


@pytest.mark.parametrize(
    "remove",
    [EtcdMiddleware.delete, EtcdMiddleware.pop, lambda client, path: client.tree("/").pop(path[1:])],
    ids=["delete", "pop", "view"],
)
def test_deleting_what_nobody_sees_leaves_the_housekeeping(
    client: EtcdMiddleware, stored: Stored, foreign: Any, remove: Any
) -> None:
    client["/oven/t"] = 1
    foreign({"/oven/.link/items/t": "units", "/oven/.link/at/t": "1"})
    del client["/oven/t"]
    before = stored()
    assert len(before) == 2
    with pytest.raises(NotFound):
        remove(client, "/oven")
    assert client.pop("/oven", "nothing") == "nothing"
    assert stored() == before


def test_what_goes_while_its_delete_looks_for_lists_above_keeps_the_housekeeping(
    client: EtcdMiddleware, stored: Stored, foreign: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list above whose items are not one to n is a dict: what is deleted in it is not looked for first."""
    client["/l/x/y"] = 1
    foreign({"/l/": "[]", "/l/x/.link/items/y": "units"})
    commit = Exchange.commit
    raced: list[int] = []

    async def race(self: Exchange, *arguments: Any) -> Any:
        raced.append(1)
        if len(raced) == 2:
            del client.raw[f"{client.prefix}/l/x/y".encode()]
        return await commit(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Exchange, "commit", race)
        with pytest.raises(NotFound):
            del client["/l/x"]
    assert len(raced) == 3
    assert stored() == {"/l/": "[]", "/l/x/.link/items/y": "units"}


def test_clear_keeps_what_is_no_trees_own(noted: EtcdMiddleware, stored: Stored) -> None:
    noted.clear()
    assert stored() == {"/.link/services/s": "prefix"}


def test_the_housekeeping_of_an_item_moves_up_with_it(
    client: EtcdMiddleware, stored: Stored, foreign: Any
) -> None:
    client["/l"] = ["a", {"x": 1}, {"x": 2}]
    foreign({"/l/2/.link/items/x": "of 1", "/l/3/.link/items/x": "of 2", "/l/.link/items/k": "of the list"})
    del client["/l/2"]
    assert {key: stored()[key] for key in notes(stored)} == {
        "/l/2/.link/items/x": "of 2",
        "/l/.link/items/k": "of the list",
    }


EDITS: dict[str, tuple[Callable[[Any], object], dict[str, str]]] = {
    "delete": (lambda items: items.__delitem__(1), {"1": "1", "2": "3", "2/s": "3s", "3": "4"}),
    "delete a slice": (lambda items: items.__delitem__(slice(0, 3, 2)), {"1": "2", "1/s": "2s", "2": "4"}),
    "pop": (lambda items: items.pop(), {"1": "1", "2": "2", "2/s": "2s", "3": "3", "3/s": "3s"}),
    "remove": (
        lambda items: items.remove({"x": 1}),
        {"1": "2", "1/s": "2s", "2": "3", "2/s": "3s", "3": "4"},
    ),
    "insert": (
        lambda items: items.insert(0, {"s": {"z": 1}}),
        {"2": "1", "3": "2", "3/s": "2s", "4": "3", "4/s": "3s", "5": "4"},
    ),
    "insert a leaf": (
        lambda items: items.insert(2, 5),
        {"1": "1", "2": "2", "2/s": "2s", "4": "3", "4/s": "3s", "5": "4"},
    ),
    "reverse": (
        lambda items: items.reverse(),
        {"1": "4", "2": "3", "2/s": "3s", "3": "2", "3/s": "2s", "4": "1"},
    ),
    "set": (
        lambda items: items.__setitem__(1, {"new": 1}),
        {"1": "1", "2": "2", "3": "3", "3/s": "3s", "4": "4"},
    ),
    "set a leaf": (lambda items: items.__setitem__(1, 5), {"1": "1", "3": "3", "3/s": "3s", "4": "4"}),
    "set a slice": (
        lambda items: items.__setitem__(slice(0, 2), [{"x": {}}]),
        {"1": "1", "2": "3", "2/s": "3s", "3": "4"},
    ),
    "extend": (
        lambda items: items.extend([{"x": 1}]),
        {"1": "1", "2": "2", "2/s": "2s", "3": "3", "3/s": "3s", "4": "4"},
    ),
    "clear": (lambda items: items.clear(), {}),
}


@pytest.mark.parametrize(("edit", "expected"), EDITS.values(), ids=list(EDITS))
@pytest.mark.parametrize("path", ["/l", "/up/2"])
def test_the_housekeeping_of_items_goes_where_they_go_in_a_view(
    client: EtcdMiddleware, stored: Stored, foreign: Any, edit: Any, expected: dict[str, str], path: str
) -> None:
    client["/up"] = ["a", "b"]
    client[path] = [{"x": 1}, {"s": {"y": 1}}, {"s": {"y": 2}}, {"x": 4}]
    notes = {"1": "1", "2": "2", "2/s": "2s", "3": "3", "3/s": "3s", "4": "4"}
    foreign({f"{path}/{item}/.link/items/x": text for item, text in notes.items()})
    own = {"/up/.link/items/k": "above", f"{path}/.link/items/k": "of the list"}
    foreign(own)
    edit(client.tree(path))
    found = {key: text for key, text in stored().items() if "/.link/" in key}
    assert found == own | {f"{path}/{item}/.link/items/x": text for item, text in expected.items()}


def test_writing_a_leaf_leaves_the_housekeeping_of_its_tree(noted: EtcdMiddleware, stored: Stored) -> None:
    noted["/t/x"] = 5
    noted["/t/sub/l/1"] = 6
    noted.append("/t/sub/l", 7)
    del noted["/t/sub/y"]
    assert notes(stored) == set(NOTES)


# The version of the layout


def layout(client: EtcdMiddleware) -> bytes | None:
    return client.raw.get(f"{client.prefix}/.link/layout".encode())


@pytest.mark.parametrize(
    "write",
    [
        lambda client: client.put("/a", 1),
        lambda client: client.put("/a", {"x": [1]}),
        lambda client: client.create("/a", 1),
        lambda client: client.append("/a", 1),
        lambda client: client.update({"/a": 1, "/b": 2}),
        lambda client: client.setdefault("/a", 1),
        lambda client: client.put("/a", {str(number): number for number in range(500)}),
    ],
    ids=["leaf", "tree", "create", "append", "update", "setdefault", "large"],
)
def test_the_first_write_notes_the_layouts_version_in_the_same_revision(
    client: EtcdMiddleware, meta: Any, write: Any
) -> None:
    assert client.get("/a") is None
    assert layout(client) is None, "reading writes nothing"
    write(client)
    assert layout(client) == b"1"
    assert meta("/.link/layout").mod_revision == client.entry("/a").revision
    client["/a"] = 2
    assert meta("/.link/layout").version == 1


def test_the_layouts_version_is_noted_once_by_however_many_clients(
    etcd: Any, client: EtcdMiddleware, meta: Any
) -> None:
    others = [EtcdMiddleware(endpoints=etcd.endpoints, prefix=client.prefix) for _ in range(3)]
    for other in others:
        assert "/a" not in other
    for number, other in enumerate(others):
        other[f"/a{number}"] = number
        other.close()
    assert meta("/.link/layout").version == 1


@pytest.mark.parametrize("version", ["2", "10", "1.1", "", "next"])
def test_a_newer_layout_is_refused(
    etcd: Any, client: EtcdMiddleware, foreign: Any, stored: Stored, version: str
) -> None:
    client["/a"] = {"x": [1]}
    foreign({"/.link/layout": version})
    before = stored()
    uses: list[Any] = [
        lambda new: new["/a"],
        lambda new: new["/"],
        lambda new: "/a" in new,
        lambda new: list(new),
        lambda new: len(new),
        lambda new: bool(new),
        lambda new: new.entry("/a"),
        lambda new: new.at(1)["/a"],
        lambda new: new.__setitem__("/a", 1),
        lambda new: new.__setitem__("/a", {"y": 1}),
        lambda new: new.__delitem__("/a"),
        lambda new: new.pop("/a/x"),
        lambda new: new.popitem(),
        lambda new: new.update({"/a": 1}),
        lambda new: new.append("/a/x", 2),
        lambda new: new.clear(),
    ]
    for use in uses:
        with (
            EtcdMiddleware(endpoints=etcd.endpoints, prefix=client.prefix) as new,
            pytest.raises(ConfigError, match=rf"^{client.prefix}/\.link/layout: .*version"),
        ):
            use(new)
    assert stored() == before


def test_what_is_raw_needs_no_layout(etcd: Any, client: EtcdMiddleware) -> None:
    key = f"{client.prefix}/.link/layout".encode()
    client.raw[key] = b"2"
    with EtcdMiddleware(endpoints=etcd.endpoints, prefix=client.prefix) as other:
        assert other.raw[key] == b"2"
        assert dict(other.raw) == {key: b"2"}
        del other.raw[key]
        other["/a"] = 1
    with EtcdMiddleware(endpoints=etcd.endpoints, prefix=f"{client.prefix}/other") as fresh:
        del client.raw[key]
        fresh.raw[b"%s/other/x" % client.prefix.encode()] = b"1"
        assert f"{client.prefix}/other/.link/layout".encode() not in fresh.raw
