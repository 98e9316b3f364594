"""Live views: a tree as a nested dict, a list as a sequence, both writing through."""

from __future__ import annotations

from collections.abc import MutableMapping, MutableSequence
from typing import Any

import pytest

from link_kv import EtcdMiddleware
from link_kv._core import operations
from link_kv.errors import EncodeError, ListIndexError, NotATree, NotFound
from link_kv.middleware import Tree, TreeList
from tests.middleware.conftest import Stored
from tests.values import NASTY, same

VALUE = {"x": 1, "sub": {"y": {"z": 2}, "e": {}}, "list": ["a", {"k": 1}, ["b"]], "m/s": 3, "": 4}


@pytest.fixture
def tree(client: EtcdMiddleware) -> Any:
    client["/t"] = VALUE
    return client.tree("/t")


# Trees


def test_a_tree_is_a_mutable_mapping_of_child_names(tree: Any) -> None:
    assert isinstance(tree, MutableMapping)
    assert isinstance(tree, Tree)
    assert set(tree) == set(VALUE)
    assert len(tree) == 5
    assert tree["x"] == 1
    assert tree["m/s"] == 3
    assert tree[""] == 4
    assert tree == VALUE
    assert tree["sub"] == VALUE["sub"]
    assert tree["list"] == VALUE["list"]
    assert tree.get("x") == 1
    assert tree.get("never") is None
    assert "x" in tree
    assert "never" not in tree
    assert same(tree.snapshot(), VALUE)
    assert {name: value for name, value in tree.items() if name in ("x", "m/s", "")} == {
        "x": 1,
        "m/s": 3,
        "": 4,
    }


def test_children_that_go_while_they_are_gone_through_are_passed_over(
    client: EtcdMiddleware, tree: Any
) -> None:
    items, values = iter(tree.items()), iter(tree.values())
    first = next(items)
    assert next(values) == first[1]
    del client["/t/x"], client["/t/sub"]
    left = [first, *items]
    assert dict(left) == dict(tree.items()) | dict([first])
    assert [first[1], *values] == [value for _, value in left]
    assert 3 in tree.values()
    assert ("m/s", 3) in tree.items()
    assert ("x", 1) not in tree.items()


def test_nested_writes_go_through(client: EtcdMiddleware, tree: Any) -> None:
    tree["sub"]["y"]["z"] = 5
    tree["sub"]["new"] = {"a": [1]}
    tree["sub"]["new"]["a"].append(2)
    tree["list"][1]["k"] = 6
    tree["list"][2][0] = "B"
    tree["a/b"] = {"%": None}
    assert client["/t"] == {
        "x": 1,
        "sub": {"y": {"z": 5}, "e": {}, "new": {"a": [1, 2]}},
        "list": ["a", {"k": 6}, ["B"]],
        "m/s": 3,
        "": 4,
        "a/b": {"%": None},
    }
    assert client["/t/a%2Fb/%25"] is None


def test_a_view_is_live(client: EtcdMiddleware, tree: Any) -> None:
    sub = tree["sub"]
    client["/t/sub"] = {"other": 1}
    assert sub == {"other": 1}
    assert list(sub) == ["other"]
    del client["/t"]
    assert sub == {}
    assert not tree
    sub["again"] = 1
    assert client["/t"] == {"sub": {"again": 1}}


def test_the_root_is_a_tree_too(client: EtcdMiddleware, tree: Any) -> None:
    root = client.tree()
    assert root == {"t": VALUE}
    assert list(root) == ["t"]
    root["u"] = [1]
    assert client["/u"] == [1]
    del root["t"]
    assert root == client.tree("/") == {"u": [1]}
    root.clear()
    assert client["/"] == {}
    assert root == {}
    assert not root


def test_a_tree_where_nothing_is_yet_is_empty_and_writes_through(client: EtcdMiddleware) -> None:
    tree = client.tree("/new/tree")
    assert tree == {}
    assert not tree
    assert list(tree) == []
    assert "/new" not in client, "looking makes nothing"
    tree["a"] = 1
    assert client["/new/tree"] == {"a": 1}


@pytest.mark.parametrize("value", [1, None, "text", b""], ids=repr)
def test_a_leaf_has_no_view(client: EtcdMiddleware, value: Any) -> None:
    client["/a"] = value
    with pytest.raises(NotATree, match=r"^/a: "):
        client.tree("/a")


@pytest.mark.parametrize("name", [name for name in NASTY if "\0" not in name] + ["\0"], ids=repr)
def test_any_name_is_a_child(client: EtcdMiddleware, name: str) -> None:
    tree = client.tree("/t")
    tree[name] = {"x": 1}
    assert list(tree) == [name]
    assert name in tree
    assert tree[name]["x"] == 1
    assert tree.pop(name) == {"x": 1}
    assert name not in tree
    tree.update({name: [1]})
    assert client["/t"] == {name: [1]}
    del tree[name]
    assert tree == {}


def test_a_foreign_segment_is_found_by_its_own_name(client: EtcdMiddleware, foreign: Any) -> None:
    foreign({"/t/%41": "1", "/t/%42/x": "2"})
    tree = client.tree("/t")
    assert set(tree) == {"%41", "%42"}
    assert tree["%41"] == 1
    assert tree["%42"] == {"x": 2}
    assert "%41" in tree
    tree["%41"] = 3
    tree["%42"]["y"] = 4
    assert tree.pop("%42") == {"x": 2, "y": 4}
    assert client["/t"] == {"%41": 3}
    del tree["%41"]
    assert "/t" not in client


def test_what_a_tree_does_not_have_is_a_key_error_that_names_both(tree: Any) -> None:
    for use in (
        lambda: tree["no"],
        lambda: tree.__delitem__("no"),
        lambda: tree.pop("no"),
        lambda: tree["sub"]["no"],
    ):
        with pytest.raises(NotFound, match=r"^/t(/sub)?: .*'no'"):
            use()
    assert tree.pop("no", "default") == "default"
    assert 5 not in tree
    with pytest.raises(KeyError):
        tree[5]
    with pytest.raises(EncodeError):
        tree[5] = 1


def test_a_tree_pops_and_sets_defaults_and_updates_as_a_dict(client: EtcdMiddleware, tree: Any) -> None:
    assert tree.pop("sub") == {"y": {"z": 2}, "e": {}}
    assert tree.setdefault("x", 5) == 1
    assert tree.setdefault("made", {"a": 1}) == {"a": 1}
    tree.update({"x": 2, "m/s": {"n": 1}}, y=3)
    tree.update([("z", [])])
    tree.update(client.tree("/t")["made"])
    assert client["/t"] == {
        "x": 2,
        "list": VALUE["list"],
        "m/s": {"n": 1},
        "": 4,
        "made": {"a": 1},
        "y": 3,
        "z": [],
        "a": 1,
    }


def test_an_update_of_a_tree_is_one_revision(client: EtcdMiddleware, tree: Any, states: Any) -> None:
    revision = client.entry("/t").revision
    tree.update({"x": 2, "m/s": 3, "list": [], "new": {"y": 1}})
    assert len(states("/t", revision)) == 2


def test_popitem_takes_a_child_whole(client: EtcdMiddleware, tree: Any) -> None:
    taken = {}
    while tree:
        name, value = tree.popitem()
        taken[name] = value
    assert same(taken, VALUE)
    with pytest.raises(NotFound, match=r"^/t: "):
        tree.popitem()


def test_clearing_a_tree_leaves_it_empty(client: EtcdMiddleware, tree: Any, stored: Stored) -> None:
    tree.clear()
    assert tree == {}
    assert client.get("/t", {}) == {}
    assert not tree
    tree["x"] = 1
    assert stored() == {"/t/x": "1"}


def test_a_view_can_be_assigned_and_is_copied(client: EtcdMiddleware, tree: Any) -> None:
    tree["copy"] = tree["sub"]
    tree["copies"] = tree["list"]
    tree["list"][0] = tree["sub"]["y"]
    tree["sub"]["y"]["z"] = "changed"
    assert client["/t/copy"] == {"y": {"z": 2}, "e": {}}
    assert client["/t/copies"] == VALUE["list"]
    assert client["/t/list/1"] == {"z": 2}


def test_views_compare_by_content_and_have_no_hash(client: EtcdMiddleware, tree: Any) -> None:
    assert tree == client.tree("/t")
    assert tree != {**VALUE, "x": 2}
    assert tree != 5
    assert tree["list"] == client.tree("/t/list")
    assert tree["list"] != ["a"]
    for view in (tree, tree["list"]):
        with pytest.raises(TypeError):
            hash(view)


def test_a_view_tells_where_it_is(tree: Any) -> None:
    assert "/t/sub" in repr(tree["sub"])
    assert "/t/list" in repr(tree["list"])
    assert tree["sub"].path == "/t/sub"


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("value", [5, None, {"y": 1}, {}, [1, {"z": 2}], []], ids=repr)
def test_setdefault_tells_what_it_found_or_wrote_though_others_delete_it_at_once(
    client: EtcdMiddleware, tree: Any, monkeypatch: pytest.MonkeyPatch, there: bool, value: Any
) -> None:
    setdefault = operations.setdefault

    async def then_gone(ex: Any, path: str, default: Any) -> Any:
        found = await setdefault(ex, path, default)
        del client[path]
        return found

    if there:
        tree["new"] = value
    assert tree.setdefault("new", 0 if there else value) == value
    if not there:
        del tree["new"]
    monkeypatch.setattr(operations, "setdefault", then_gone)
    found = tree.setdefault("new", 0 if there else value)
    assert "new" not in tree
    if isinstance(value, dict):
        assert isinstance(found, Tree)
    elif isinstance(value, list):
        assert isinstance(found, TreeList)
    else:
        assert same(found, value)


# Lists


@pytest.fixture
def items(client: EtcdMiddleware) -> Any:
    client["/l"] = ["a", {"k": 1}, ["b"], None]
    return client.tree("/l")


def test_a_list_is_a_mutable_sequence_from_zero(items: Any) -> None:
    assert isinstance(items, MutableSequence)
    assert isinstance(items, TreeList)
    assert len(items) == 4
    assert items[0] == items[-4] == "a"
    assert items[1] == {"k": 1}
    assert items[-2] == ["b"]
    assert items[3] is None
    assert items == ["a", {"k": 1}, ["b"], None]
    assert list(items) == ["a", {"k": 1}, ["b"], None]
    assert items[1:3] == [{"k": 1}, ["b"]]
    assert items[::-1] == [None, ["b"], {"k": 1}, "a"]
    assert "a" in items
    assert "b" not in items
    assert items.index("a") == 0
    assert items.count("a") == 1
    assert list(reversed(items)) == [None, ["b"], {"k": 1}, "a"]
    assert items.snapshot() == ["a", {"k": 1}, ["b"], None]


EDITS: dict[str, Any] = {
    "set": lambda items: items.__setitem__(0, {"new": [1]}),
    "set from the end": lambda items: items.__setitem__(-1, "z"),
    "set a slice": lambda items: items.__setitem__(slice(1, 3), ["p", "q", "r"]),
    "delete": lambda items: items.__delitem__(1),
    "delete from the end": lambda items: items.__delitem__(-1),
    "delete a slice": lambda items: items.__delitem__(slice(0, 3, 2)),
    "insert": lambda items: items.insert(1, {"i": []}),
    "insert at 0": lambda items: items.insert(0, "first"),
    "insert beyond": lambda items: items.insert(99, "last"),
    "insert from the end": lambda items: items.insert(-1, "x"),
    "append": lambda items: items.append(["x"]),
    "extend": lambda items: items.extend(["x", {"y": 1}]),
    "extend by itself": lambda items: items.extend(items),
    "+=": lambda items: items.__iadd__(("x", "y")),
    "pop": lambda items: items.pop(),
    "pop first": lambda items: items.pop(0),
    "pop a tree": lambda items: items.pop(1),
    "remove": lambda items: items.remove("a"),
    "reverse": lambda items: items.reverse(),
    "clear": lambda items: items.clear(),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=list(EDITS))
def test_a_list_is_edited_as_pythons_own_in_one_revision(
    client: EtcdMiddleware, items: Any, states: Any, edit: Any
) -> None:
    plain = ["a", {"k": 1}, ["b"], None]
    before = client.entry("/l").revision
    answer = edit(items)
    expected = edit(plain)
    if expected is not plain:
        assert same(answer, expected)
    assert same(client["/l"], plain)
    assert len(states("/l", before)) == 2


@pytest.mark.parametrize(
    ("edit", "moved"),
    [
        (lambda items: items.extend(["x"]), ["/l/5"]),
        (lambda items: items.pop(), []),
        (lambda items: items.insert(4, "x"), ["/l/5"]),
        (lambda items: items.__setitem__(0, "x"), ["/l/1"]),
        (lambda items: items.__setitem__(0, "a"), []),
        (lambda items: items.__setitem__(1, {"k": 1, "new": 2}), ["/l/2/new"]),
        (lambda items: items.__delitem__(2), ["/l/3"]),
    ],
)
@pytest.mark.parametrize("ttl", [None, 60])
def test_what_stays_in_a_list_is_not_written_again(
    client: EtcdMiddleware, meta: Any, edit: Any, moved: list[str], ttl: float | None
) -> None:
    before = client.put("/l", ["a", {"k": 1}, ["b"], None], ttl=ttl)
    edit(client.tree("/l"))
    assert meta("/l/").mod_revision > before, "who compares the marker notices"
    assert [path for path in client if meta(path).mod_revision > before] == moved
    assert {meta(path).lease_id for path in client} == {meta("/l/").lease_id}


def test_a_list_beyond_what_one_request_carries_is_changed_at_its_end_and_cleared(
    client: EtcdMiddleware,
) -> None:
    client["/l"] = []
    for number in range(18):
        client.append("/l", str(number % 10) * 100_000)
    items = client.tree("/l")
    items.extend(["x", "end"])
    assert items.pop() == "end"
    items.insert(len(items), "y")
    items[0] = "z"
    assert len(items) == 20
    assert items[0] == "z"
    assert items[-2:] == ["x", "y"]
    items.clear()
    assert items == []


def test_a_list_of_tens_of_thousands_of_long_keys_is_cleared(client: EtcdMiddleware) -> None:
    client["/l"] = []
    for _ in range(3):
        client.append("/l", {"k" * 60 + str(number): 1 for number in range(9000)})
    items = client.tree("/l")
    items.clear()
    assert items == []


@pytest.mark.parametrize(
    "use",
    [
        lambda items: items[4],
        lambda items: items[-5],
        lambda items: items.__setitem__(4, 1),
        lambda items: items.__setitem__(-5, 1),
        lambda items: items.__delitem__(4),
        lambda items: items.pop(9),
    ],
)
def test_an_index_out_of_range_is_an_index_error_that_names_the_list(items: Any, use: Any) -> None:
    with pytest.raises(IndexError) as caught:
        use(items)
    assert isinstance(caught.value, ListIndexError)
    assert str(caught.value).startswith("/l: ")
    assert items == ["a", {"k": 1}, ["b"], None]


def test_what_a_list_does_not_have_cannot_be_removed(items: Any) -> None:
    with pytest.raises(ValueError, match="not in list"):
        items.remove("never")
    with pytest.raises(ValueError, match="never"):
        items.index("never")


def test_a_list_view_of_what_is_a_list_no_more_refuses(client: EtcdMiddleware, items: Any) -> None:
    client["/l"] = {"x": 1}
    for use in (
        lambda: items.snapshot(),
        lambda: list(items),
        lambda: items.append(1),
        lambda: items.pop(),
        lambda: len(items),
    ):
        with pytest.raises(NotATree, match=r"^/l: "):
            use()
    del client["/l"]
    for use in (
        lambda: items.snapshot(),
        lambda: items.pop(),
        lambda: len(items),
        lambda: items.insert(0, 1),
    ):
        with pytest.raises(NotFound, match=r"^/l: "):
            use()


def test_editing_a_list_keeps_its_housekeeping(
    client: EtcdMiddleware, items: Any, stored: Stored, foreign: Any
) -> None:
    foreign({"/l/.link/items/x": "kept"})
    items.insert(0, "first")
    items.reverse()
    assert stored()["/l/.link/items/x"] == "kept"


def test_an_empty_list_is_a_list(client: EtcdMiddleware) -> None:
    client["/l"] = []
    items = client.tree("/l")
    assert isinstance(items, MutableSequence)
    assert not items
    assert len(items) == 0
    items.append(1)
    assert client["/l"] == [1]
