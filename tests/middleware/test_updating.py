"""Updates of many leaves under one parent, which take a shorter way than others to the same end."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from link_kv import EtcdMiddleware
from link_kv._core.wire.exchange import Exchange
from link_kv.errors import EncodeError, ListIndexError, NotATree, PathError, TooLarge
from tests.middleware.conftest import Stored
from tests.once import Once

MANY = {f"k{number:03}": number for number in range(100)}


def below(parent: str, values: dict[str, Any]) -> dict[str, Any]:
    return {f"{parent}/{name}": value for name, value in values.items()}


@pytest.mark.parametrize(
    "before",
    [
        {},
        {"other": 1, "l": [1, 2]},
        {"k001": {"deep": {"er": 1}, "l": ["x"]}, "k002": 2, "k003": [], "k004": {"e": {}}, "kept": {"x": 1}},
        {"k00": {"x": 1}, "k0011": {"x": 1}, "k001-": 1, "k099": {"last": 1}, "k0999": 1},
    ],
)
def test_many_leaves_take_the_place_of_what_was_there(
    client: EtcdMiddleware, stored: Stored, before: dict[str, Any]
) -> None:
    client["/t"] = before
    revision = client.put("/mark", 1)
    client.update(below("/t", MANY))
    assert client["/t"] == {**before, **MANY}
    assert {client.entry(f"/t/{name}").revision for name in MANY} == {revision + 1}
    found = stored()
    client["/t"] = {**before, **MANY}
    assert stored() == found


def test_names_of_all_kinds(client: EtcdMiddleware) -> None:
    odd = ["a b", "%", "%2F", "%2Elink", "é", "..x", ".hidden", "012", "-1", "x" * 500, "\n", "k\0", "K"]
    for number, name in enumerate(odd):
        client.update({**below("/t", MANY), f"/t/{name}": number})
        assert client[f"/t/{name}"] == number
    client.update({**below("t", MANY), "t/rest": "bare"})
    assert client["/t/rest"] == "bare"
    client.update([*below("/t", MANY).items(), ("/t/k005", "again")])
    assert client["/t/k005"] == "again"


def test_the_housekeeping_of_the_parent_stays_and_that_of_the_leaves_goes(
    client: EtcdMiddleware, foreign: Callable[[dict[str, str]], None], stored: Stored
) -> None:
    client["/t/k001"] = {"x": 1}
    foreign({"/t/.link/items/k001": "mine", "/t/k001/.link/items/x": "its"})
    client.update(below("/t", MANY))
    assert [key for key in stored() if ".link" in key] == ["/t/.link/items/k001"]


@pytest.mark.parametrize(
    ("there", "values", "error"),
    [
        (1, MANY, NotATree),
        ([1, 2], MANY, ListIndexError),
        ({"x": 1}, {**MANY, "odd": object()}, EncodeError),
        ({"x": 1}, {**MANY, "..": 1}, PathError),
        ({"x": 1}, {**MANY, ".link": 1}, PathError),
        ({"x": 1}, {**MANY, "x\ud800": 1}, PathError),
        ({"x": 1}, {**MANY, "huge": "x" * 2_000_000}, TooLarge),
    ],
)
def test_what_cannot_be_written_changes_nothing(
    client: EtcdMiddleware, there: Any, values: dict[str, Any], error: type[Exception]
) -> None:
    client["/t"] = copy.deepcopy(there)
    with pytest.raises(error, match="/t"):
        client.update(below("/t", values))
    assert client["/t"] == there


def test_the_items_of_a_list_are_written_as_such(client: EtcdMiddleware) -> None:
    client["/l"] = list(range(100))
    client.update({f"/l/{number}": str(number) for number in range(1, 102)})
    assert client["/l"] == [str(number) for number in range(1, 102)]


@pytest.mark.parametrize(
    "meanwhile",
    [
        lambda client: client.put("/t/k001", {"below": 1}),
        lambda client: client.put("/t/k050", "theirs"),
        lambda client: client.put("/t/unrelated", 1),
        lambda client: client.delete("/t/k050"),
        lambda client: client.delete("/t"),
        lambda client: client.put("/t/kept", {"more": {"x": 1}}),
    ],
)
@pytest.mark.parametrize("always", [False, True])
def test_others_write_between_its_read_and_its_write(
    client: EtcdMiddleware,
    etcd: Any,
    monkeypatch: pytest.MonkeyPatch,
    meanwhile: Callable[[EtcdMiddleware], Any],
    always: bool,
) -> None:
    client["/t"] = {"k000": {"deep": 1}, "k001": 1, "k050": 2}
    commit = Exchange.commit
    with EtcdMiddleware(endpoints=etcd.endpoints, prefix=client.prefix) as rival:

        def interfere() -> None:
            monkeypatch.setattr(Exchange, "commit", commit)
            rival["/t/k050"] = "there"  # so that each of the writes has something to do
            meanwhile(rival)
            if always:
                monkeypatch.setattr(Exchange, "commit", after)

        once = Once(interfere)

        async def after(ex: Exchange, plan: Any, path: str) -> Any:
            if ex.space.caller is client._space.caller:
                interfere() if always else once()
            return await commit(ex, plan, path)

        monkeypatch.setattr(Exchange, "commit", after)
        revision = client.entry("/t").revision
        client.update(below("/t", MANY))
        found = client["/t"]
        assert {name: found[name] for name in MANY} == MANY
        assert client.entry("/t/k001").revision > revision


def test_what_is_there_dwarfs_what_is_written(client: EtcdMiddleware) -> None:
    client["/t"] = {"k000": {str(number): number for number in range(3000)}, "z": 1}
    client.update(below("/t", MANY))
    assert client["/t"] == {**MANY, "z": 1}
