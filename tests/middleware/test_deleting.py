"""Deleting: leaves and whole trees, what goes with them, and what stays."""

from __future__ import annotations

from typing import Any

import pytest

from link_kv import EtcdMiddleware
from link_kv.errors import LinkKVError, NotFound, PathError
from tests.middleware.conftest import Stored
from tests.values import same

DELETES: dict[str, Any] = {
    "delitem": lambda client, path: client.__delitem__(path),
    "delete": lambda client, path: client.delete(path),
    "pop": lambda client, path: client.pop(path),
}
every_delete = pytest.mark.parametrize("remove", DELETES.values(), ids=list(DELETES))


@every_delete
@pytest.mark.parametrize(
    "value", [1, None, {}, [], {"x": {"y": 1}, "z": [1, [2]]}, ["p", {"q": 1}]], ids=repr
)
@pytest.mark.parametrize("path", ["/a", "/up/a"])
def test_a_delete_takes_the_whole_value_at_once(
    client: EtcdMiddleware, stored: Stored, states: Any, remove: Any, value: Any, path: str
) -> None:
    client.update({"/ab": 1, "/a-/x": 2, "/a0": 3, "/up/ab": 4})
    before = stored()
    written = client.put(path, value)
    remove(client, path)
    assert stored() == before
    assert path not in client
    assert states(path, written) == ([None] if value is None else [value, None])


@every_delete
@pytest.mark.parametrize(
    "path", ["/a", "/a/b", "/t/none", "/t/x/y", "/l/4", "/l/0", "/l/x", "/l/2/1", "/e/x", "/ab"]
)
def test_deleting_what_is_not_there_is_a_key_error_that_names_the_path(
    client: EtcdMiddleware, stored: Stored, remove: Any, path: str
) -> None:
    client.update({"/t/x": 1, "/l": [1, 2, 3], "/e": {}, "/abc": 1})
    before = stored()
    with pytest.raises(KeyError) as caught:
        remove(client, path)
    assert isinstance(caught.value, NotFound)
    assert str(caught.value).startswith(f"{path}: ")
    assert stored() == before


@every_delete
def test_what_was_deleted_is_not_there_to_delete_again(client: EtcdMiddleware, remove: Any) -> None:
    client["/a"] = {"x": 1}
    remove(client, "/a")
    with pytest.raises(NotFound, match=r"^/a: "):
        remove(client, "/a")


@every_delete
def test_a_sibling_survives(client: EtcdMiddleware, remove: Any) -> None:
    client["/a"] = {"x": 1}
    for sibling in ("/ab", "/a-", "/a.", "/a0", "/a%2F", "/a /x", "/aa/x", "/A/x"):
        client[sibling] = "stays"
    remove(client, "/a")
    assert set(client.values()) == {"stays"}
    assert len(client) == 8


@every_delete
def test_a_dict_that_loses_its_last_key_is_gone_and_so_is_what_held_only_it(
    client: EtcdMiddleware, stored: Stored, remove: Any
) -> None:
    client["/a/b/c"] = {"d": 1}
    client["/x"] = {"y": {"z": 1}, "stays": 1}
    remove(client, "/a/b/c/d")
    assert "/a" not in client
    remove(client, "/x/y/z")
    assert stored() == {"/x/stays": "1"}
    client["/x/y"] = {}
    remove(client, "/x/y")
    assert stored() == {"/x/stays": "1"}


def test_pop_returns_what_was_there(client: EtcdMiddleware) -> None:
    value = {"x": [1, {"y": ()}], "z": None}
    client["/a"] = value
    assert same(client.pop("/a/x/2"), {"y": []})
    assert same(client.pop("/a"), {"x": [1], "z": None})
    assert client.pop("/a", None) is None
    assert client.pop("/a", "default") == "default"
    assert client.pop("/a", default=5) == 5
    with pytest.raises(NotFound):
        client.pop("/a")


def test_delete_tells_the_revision(client: EtcdMiddleware) -> None:
    client["/a"] = {"x": 1}
    revision = client.delete("/a/x")
    assert client.at(revision - 1)["/a"] == {"x": 1}
    assert "/a" not in client.at(revision)
    client["/l"] = [1, 2, {"x": 1, "y": 2}]
    for path, left in (
        ("/l/3/x", [1, 2, {"y": 2}]),
        ("/l/1", [2, {"y": 2}]),
        ("/l/2/y", [2, {}]),
        ("/l/2", [2]),
    ):
        before = client["/l"]
        revision = client.delete(path)
        assert client.at(revision)["/l"] == left
        assert client.at(revision - 1)["/l"] == before


def test_the_root_is_cleared_and_not_deleted(client: EtcdMiddleware, stored: Stored) -> None:
    client.update({"/a": 1, "/b/c": [1], "/d": {}})
    with pytest.raises(PathError, match=r"^/: the root"):
        del client["/"]
    client.clear()
    assert client["/"] == {}
    assert stored() == {}
    client.clear()
    assert not client


def test_clear_is_one_revision(client: EtcdMiddleware, states: Any) -> None:
    client["/a"] = {"x": {str(number): number for number in range(1000)}}
    revision = client.put("/b", 1)
    client.clear()
    first, cleared, *rest = states("/", revision)
    assert len(first["a"]["x"]) == 1000
    assert cleared == {}
    assert rest == [{"end of the states": True}]


def test_without_a_prefix_everything_is_not_cleared_by_mistake(etcd: Any, client: EtcdMiddleware) -> None:
    client["/a"] = 1
    with EtcdMiddleware(endpoints=etcd.endpoints) as everything:
        for refused in (
            everything.clear,
            lambda: everything.clear(force=False),
            lambda: everything.__delitem__("/"),
            lambda: everything.delete("/"),
            lambda: everything.pop("/"),
        ):
            with pytest.raises(LinkKVError) as caught:
                refused()
            assert isinstance(caught.value, PathError)
        assert "force=True" in str(_refusal(everything))
    assert client["/a"] == 1


def _refusal(client: EtcdMiddleware) -> PathError:
    with pytest.raises(PathError) as caught:
        client.clear()
    return caught.value


def test_without_a_prefix_everything_is_cleared_by_force() -> None:
    from link_kv import local

    with local.start() as server, EtcdMiddleware(endpoints=server.endpoints) as client:
        client.update({"/a": 1, "/b": [1, 2]})
        client.raw[b"/.link/services/x"] = b"1"
        client.raw[b"not/ours"] = b"1"
        client.clear(force=True)
        assert client["/"] == {}
        assert dict(client.raw) == {b"/.link/layout": b"1", b"/.link/services/x": b"1", b"not/ours": b"1"}
