"""An operation in the middle of another: both end as if one had come after the other, whichever they are."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import pytest

from link_kv import EtcdMiddleware
from link_kv.errors import KeyExists, LinkKVError, NotATree
from link_kv.middleware import TreeList
from tests.model.layout import faults
from tests.model.nested import Nested

START: dict[str, Any] = {
    "l": [{"x": 1, "y": 2}, ["p", "q"], {"only": 1}],
    "d": {"e": {}, "f": {"g": 1}, "n": [[{"m": 1}]]},
}


class Race(NamedTuple):
    """An operation on the client, and the same on the model."""

    mine: Callable[[EtcdMiddleware], Any]
    model: Callable[[Nested], Any]


def where(path: str) -> list[str]:
    return path[1:].split("/")


def assign(path: str, value: Any) -> Race:
    return Race(
        lambda client: client.__setitem__(path, value), lambda model: model.assign(where(path), value)
    )


def remove(path: str) -> Race:
    return Race(lambda client: client.pop(path), lambda model: model.delete(where(path)))


def delete(path: str) -> Race:
    def theirs(model: Nested) -> None:
        model.delete(where(path))

    return Race(lambda client: client.__delitem__(path), theirs)


def append(path: str, item: Any) -> Race:
    return Race(
        lambda client: client.append(path, item),
        lambda model: "/" + "/".join(model.append(where(path), item)),
    )


def create(path: str, value: Any) -> Race:
    def theirs(model: Nested) -> None:
        if model.has(where(path)):
            raise KeyExists(path)
        model.assign(where(path), value)

    def mine(client: EtcdMiddleware) -> None:
        client.create(path, value)

    return Race(mine, theirs)


def setdefault(path: str, value: Any) -> Race:
    def theirs(model: Nested) -> Any:
        if not model.has(where(path)):
            model.assign(where(path), value)
        return model.get(where(path))

    return Race(lambda client: client.setdefault(path, value), theirs)


def update(*pairs: tuple[str, Any]) -> Race:
    return Race(
        lambda client: client.update(pairs),
        lambda model: model.update([(where(path), value) for path, value in pairs]),
    )


def insert(path: str, value: Any) -> Race:
    def theirs(model: Nested) -> None:
        found = model.get(where(path))
        if not isinstance(found, list):
            raise NotATree(path)
        model.assign(where(path), [value, *found])

    return Race(lambda client: TreeList(client._space, path).insert(0, value), theirs)


def popitem() -> Race:
    return Race(lambda client: client.popitem(), lambda model: model.popitem())


IN_LISTS = {
    "delete /l/1/x": delete("/l/1/x"),
    "pop /l/1/y": remove("/l/1/y"),
    "set /l/1/z": assign("/l/1/z", 3),
    "tree at /l/1/y": assign("/l/1/y", {"a": {}, "b": []}),
    "leaf at /l/1": assign("/l/1", 5),
    "tree at /l/1": assign("/l/1", {"w": {}}),
    "empty /l/1": assign("/l/1", {}),
    "delete /l/1": delete("/l/1"),
    "pop /l/3": remove("/l/3"),
    "pop /l/3/only": remove("/l/3/only"),
    "set /l/3/more": assign("/l/3/more", {"m": 2}),
    "set /l/3": assign("/l/3", "C"),
    "set /l/4": assign("/l/4", "D"),
    "set /l/4/k": assign("/l/4/k", "D"),
    "append to /l": append("/l", {"z": 1}),
    "append to /l/2": append("/l/2", "r"),
    "pop /l/2/1": remove("/l/2/1"),
    "delete /l/2": delete("/l/2"),
    "replace /l": assign("/l", ["new", {"x": 5}]),
    "leaf at /l": assign("/l", None),
    "delete /l": delete("/l"),
    "create /l/4": create("/l/4", ["d"]),
    "setdefault /l/1/x": setdefault("/l/1/x", 9),
    "update in /l": update(("/l/1/x", 6), ("/l/3", [1]), ("/l/4", {})),
    "insert into /l/2": insert("/l/2", "o"),
    "take the first": popitem(),
}

IN_DICTS = {
    "set /d/e/k": assign("/d/e/k", 1),
    "empty /d/e": assign("/d/e", {}),
    "list at /d/e": assign("/d/e", []),
    "list at /d/f": assign("/d/f", [1]),
    "leaf at /d/e": assign("/d/e", 5),
    "pop /d/e": remove("/d/e"),
    "pop /d/f/g": remove("/d/f/g"),
    "delete /d/f": delete("/d/f"),
    "set /d/f/h": assign("/d/f/h", 2),
    "set /d/f/g/i": assign("/d/f/g/i", 2),
    "tree at /d/f": assign("/d/f", {"g": {"i": 3}}),
    "tree at /d": assign("/d", {"f": {"j": 4}}),
    "leaf at /d": assign("/d", 7),
    "delete /d": delete("/d"),
    "create /d/f/h": create("/d/f/h", {"x": 1}),
    "setdefault /d/e/k": setdefault("/d/e/k", [1]),
    "append to /d/e/l": append("/d/e/l", 1),
    "append to /d/f/l": append("/d/f/l", 1),
    "update in /d": update(("/d/e/k", 2), ("/d/f/g", {"x": 1}), ("/d/new/er", 3)),
    "pop /d/n/1/1/m": remove("/d/n/1/1/m"),
    "set /d/n/1/1/o": assign("/d/n/1/1/o", 2),
    "delete /d/n/1/1": delete("/d/n/1/1"),
    "append to /d/n/1": append("/d/n/1", 2),
    "delete /d/n/1": delete("/d/n/1"),
    "delete /d/n": delete("/d/n"),
    "insert into /d/n": insert("/d/n", {"o": 1}),
    "update much in /d": update(("/d/f", {"g": 5}), *((f"/d/e/{number}", number) for number in range(20))),
    "take the first": popitem(),
}


def outcome(operation: Callable[[Any], Any], of: Any) -> Any:
    try:
        return operation(of)
    except LinkKVError as error:
        return type(error).__name__


def serially(start: dict[str, Any], first: Race, second: Race) -> tuple[Any, Any, Any]:
    model = Nested()
    model.root = copy.deepcopy(start)
    one = copy.deepcopy(outcome(first.model, model))
    two = copy.deepcopy(outcome(second.model, model))
    return one, two, model.root


EVERY = [(tree, name) for tree, races in (("l", IN_LISTS), ("d", IN_DICTS)) for name in races]


class Interruption:
    """Does something once, before one of the requests of a client is sent."""

    def __init__(self, client: EtcdMiddleware, turn: int, action: Callable[[], Any]) -> None:
        self._call = client._space.caller.call
        self._left = turn
        self._action = action
        self.done: list[Any] = []

    async def call(self, *request: Any) -> Any:
        self._left -= 1
        if self._left == 0:
            self.done.append(self._action())
        return await self._call(*request)


@pytest.mark.parametrize(("tree", "name"), EVERY)
def test_an_operation_in_the_middle_of_another_is_before_or_after_it(
    etcd: Any, etcd_prefix: str, monkeypatch: pytest.MonkeyPatch, tree: str, name: str
) -> None:
    races, start = {"l": IN_LISTS, "d": IN_DICTS}[tree], {tree: START[tree]}
    first = races[name]
    with (
        EtcdMiddleware(endpoints=etcd.endpoints, prefix=etcd_prefix, timeout=60) as client,
        EtcdMiddleware(endpoints=etcd.endpoints, prefix=etcd_prefix, timeout=60) as other,
    ):
        for between, second in races.items():
            backwards = serially(start, second, first)
            allowed = [serially(start, first, second), (backwards[1], backwards[0], backwards[2])]
            for turn in itertools.count(1):
                client.clear()
                client[f"/{tree}"] = START[tree]
                interruption = Interruption(client, turn, partial(outcome, second.mine, other))
                with monkeypatch.context() as patch:
                    patch.setattr(client._space.caller, "call", interruption.call)
                    result = outcome(first.mine, client)
                if not interruption.done:
                    break  # it took fewer requests
                about = f"{between} before request {turn} of {name}"
                assert (result, *interruption.done, client["/"]) in allowed, about
                assert not faults(client.raw.items(), client.prefix.encode()), about
