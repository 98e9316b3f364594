"""Copying and moving whole trees: one revision read, one transaction written, nothing lost on the way."""

from __future__ import annotations

import random
import threading
from typing import Any

import pytest

from link_kv import (
    ConfigError,
    EtcdMiddleware,
    KeyExists,
    NotATree,
    NotFound,
    PathError,
    Session,
    TooLarge,
    get,
)
from link_kv._core.operations.transfer import transfer
from link_kv._core.wire.calls import run
from link_kv.clients import BaseClient, ClientError
from link_kv.plan import Get

TREE = {"a": 1, "b": {"c": [1, {"d": 2}], "e": {}, "f": []}, "bytes": b"\xff", "none": None}


def copy(client: EtcdMiddleware, source: str, target: str, **more: Any) -> int:
    revision, location = run(transfer(client._exchange(), source, target, move=False, **more))
    assert location == target
    return revision


def move(client: EtcdMiddleware, source: str, target: str, **more: Any) -> int:
    return run(transfer(client._exchange(), source, target, move=True, **more))[0]


@pytest.mark.parametrize("value", [1, "text", None, {}, [], [1, 2], TREE])
@pytest.mark.parametrize("over", ["nothing", 5, {}, {"a": {"x": 1}, "z": [1]}, [1, 2, 3]])
def test_what_is_there_is_replaced(middleware: EtcdMiddleware, value: Any, over: Any) -> None:
    middleware["/from"] = value
    if over != "nothing":
        middleware["/to"] = over
    revision = copy(middleware, "/from", "/to")
    assert middleware.snapshot() == {"from": value, "to": value}
    assert middleware.entry("/to").revision == revision
    revision = move(middleware, "/to", "/deep/er")
    assert middleware.snapshot() == {"from": value, "deep": {"er": value}}
    assert middleware.entry("/deep/er").revision == revision
    assert middleware.raw.get(f"{middleware.prefix}/to/".encode()) is None


def test_ten_thousand_leaves_in_one_revision(etcd: Any, etcd_prefix: str) -> None:
    tree = {f"k{number}": number for number in range(10_000)}
    with EtcdMiddleware(endpoints=etcd.endpoints, prefix=etcd_prefix, timeout=30) as client:
        client["/from"] = tree
        revision = move(client, "/from", "/to")
        assert client["/to"] == tree
        assert "/from" not in client
        assert client.at(revision - 1)["/from"] == tree
        assert client.entry("/to").created == client.entry("/to").revision == revision


def test_what_is_replaced_may_be_larger_than_a_request(etcd: Any, etcd_prefix: str) -> None:
    with EtcdMiddleware(endpoints=etcd.endpoints, prefix=etcd_prefix, timeout=30) as client:
        for part in range(3):
            client[f"/to/{part}"] = {"k" * 60 + str(number): 1 for number in range(9000)}
        client.update({"/to-": 1, "/to.x": 2, "/from": {"1": {"new": 1}}})
        copy(client, "/from", "/to")
        assert client.snapshot() == {"to-": 1, "to.x": 2, "from": {"1": {"new": 1}}, "to": {"1": {"new": 1}}}
        client["/leaf"] = 1
        copy(client, "/from", "/leaf")
        copy(client, "/to-", "/to")
        assert client["/to"] == 1


def test_over_the_servers_limit_nothing_is_written(middleware: EtcdMiddleware) -> None:
    middleware["/from/a"] = "x" * 800_000
    middleware["/from/b"] = "x" * 800_000
    with pytest.raises(TooLarge, match=r"^/to: .*nothing was written"):
        move(middleware, "/from", "/to")
    assert list(middleware) == ["/from/a", "/from/b"]


def test_what_is_beside_stays(middleware: EtcdMiddleware) -> None:
    middleware["/a"] = {"x": 1}
    middleware["/a-"] = 2
    middleware["/ab"] = 3
    middleware["/to-"] = 4
    move(middleware, "/a", "/to")
    assert middleware.snapshot() == {"to": {"x": 1}, "a-": 2, "ab": 3, "to-": 4}


def test_a_store_takes_its_descriptions_along(middleware: EtcdMiddleware) -> None:
    middleware["/old/temp"] = 20.5
    get("old", client=middleware).describe("temp", type="numeric", units="K")
    move(middleware, "/old", "/new")
    after = get("new.temp", client=middleware)
    assert after.get(refresh=True) == 20.5
    assert after.description.units == "K"


def test_leases_move_and_are_not_copied(middleware: EtcdMiddleware) -> None:
    with Session(middleware) as session:
        session.put("/from", {"a": 1})
        copy(middleware, "/from", "/copied")
        move(middleware, "/from", "/moved")
        assert middleware.entry("/moved/a").lease == session.lease
        assert middleware.entry("/copied/a").lease == 0
        middleware["/list"] = [1]
        with pytest.raises(ConfigError, match="in a list, where what is under a lease"):
            move(middleware, "/moved", "/list/1")
    assert middleware.snapshot() == {"copied": {"a": 1}, "list": [1]}


# Lists


def test_into_and_out_of_lists(middleware: EtcdMiddleware) -> None:
    middleware["/l"] = ["a", {"b": 1}, ["c"]]
    copy(middleware, "/l/2", "/l/4")
    copy(middleware, "/l/3", "/x")
    move(middleware, "/l/1", "/y")
    assert middleware.snapshot() == {"l": [{"b": 1}, ["c"], {"b": 1}], "x": ["c"], "y": "a"}
    move(middleware, "/l/1/b", "/z")
    assert middleware.snapshot() == {"l": [{}, ["c"], {"b": 1}], "x": ["c"], "y": "a", "z": 1}
    with pytest.raises(KeyExists):
        move(middleware, "/l/1", "/z", revision=0)
    with pytest.raises(TooLarge):
        move(middleware, "/l/1", "/z", revision=middleware.entry("/z").revision)
    with pytest.raises(IndexError):
        copy(middleware, "/x", "/l/9")


@pytest.mark.parametrize(
    ("source", "target", "location"),
    [
        ("/l/1", "/l/5", "/l/4"),
        ("/l/1", "/l/2", "/l/1"),
        ("/l/4", "/l/2", "/l/2"),
        ("/l/4", "/l/5", "/l/4"),
        ("/l/1", "/l/3/x", "/l/2/x"),
        ("/l/4", "/l/3/x", "/l/3/x"),
        ("/l/1", "/l/4/3", "/l/3/3"),
        ("/l/4/1", "/l/4/3", "/l/4/2"),
        ("/l/4/1", "/l/5", "/l/5"),
        ("/l/3/10", "/l/3/20", "/l/3/20"),
        ("/l/3/10", "/l/4/2", "/l/4/2"),
        ("/l/1", "/elsewhere", "/elsewhere"),
        ("/l/1", "/k/2/x", "/k/2/x"),
        ("/k/2", "/k/3", "/k/3"),
    ],
)
def test_a_move_tells_where_it_lies_then(
    middleware: EtcdMiddleware, source: str, target: str, location: str
) -> None:
    middleware["/l"] = ["a", "b", {"10": "ten"}, ["p", "q"]]
    middleware["/k/2"] = {"y": 1}
    value = middleware[source]
    answer = BaseClient("/", middleware).move(source[1:], target[1:])
    assert answer.headers["location"] == location[1:]
    assert middleware[location] == value


@pytest.mark.parametrize("value", ["v", {"k": [1]}])
@pytest.mark.parametrize("target", ["/l/1", "/l/3", "/l/2/x", "/l/2/new/x"])
@pytest.mark.parametrize("do", [copy, move], ids=["copy", "move"])
def test_what_is_put_into_a_list_that_is_to_expire_goes_with_it(
    middleware: EtcdMiddleware, do: Any, target: str, value: Any
) -> None:
    middleware.put("/l", ["a", {"x": 1}], ttl=60)
    lease = middleware.entry("/l/1").lease
    middleware["/from"] = value
    do(middleware, "/from", target)
    assert middleware[target] == value
    ex = middleware._exchange()
    at = ex.place("/l")
    _, [found] = run(ex.read([Get(at.marker, at.end)]))
    assert {kv.key: kv.lease for kv in found} == {kv.key: lease for kv in found}


# What is refused


@pytest.mark.parametrize(
    ("source", "target", "error"),
    [
        ("/none", "/to", NotFound),
        ("/a", "/leaf/below", NotATree),
        ("/a", "/a", PathError),
        ("/a", "/a/b", PathError),
        ("/a/b", "/a", PathError),
        ("/", "/to", PathError),
        ("/a", "/", PathError),
        ("/a", "/.link/x", PathError),
    ],
)
def test_what_is_refused_changes_nothing(
    middleware: EtcdMiddleware, source: str, target: str, error: type[Exception]
) -> None:
    middleware["/a"] = {"b": 1}
    middleware["/leaf"] = 2
    before = list(middleware.raw.items())
    for do in (copy, move):
        with pytest.raises(error):
            do(middleware, source, target)
    assert list(middleware.raw.items()) == before


def test_a_guard_on_what_is_written_over(middleware: EtcdMiddleware) -> None:
    middleware["/a"] = {"b": 1}
    middleware["/tree"] = {"x": 1}
    with pytest.raises(TooLarge):
        copy(middleware, "/a", "/tree", revision=middleware.entry("/tree").revision)
    with pytest.raises(KeyExists):
        copy(middleware, "/a", "/tree", revision=0)
    copy(middleware, "/a", "/new", revision=0)
    assert middleware["/new"] == {"b": 1}


# Races


def test_nothing_is_lost_or_doubled_while_trees_move_about(middleware: EtcdMiddleware) -> None:
    """Two move a tree to and fro, two change and delete leaves of it wherever it is.

    A leaf that was deleted is nowhere, and one that was written last is where the tree is: deletes too are
    noticed, in trees of any size.
    """
    names = [f"k{number}" for number in range(150)]
    middleware["/one"] = dict.fromkeys(names, 0)
    deleted: set[str] = set()
    written: dict[str, int] = {}
    failures: list[BaseException] = []
    left = threading.Event()

    def moving(seed: int) -> None:
        client = BaseClient("/", middleware)
        while not left.is_set():
            for source, target in (("one", "two"), ("two", "one")):
                try:
                    client.move(source, target)
                except ClientError as error:
                    if error.status != 404:
                        raise

    def changing(seed: int) -> None:
        mine = names[seed::2]
        choice = random.Random(seed)
        for number, name in enumerate(choice.sample(mine, 30)):
            while True:
                where = choice.choice(("/one", "/two"))

                def step(t: Any, where: str = where, name: str = name, number: int = number) -> bool:
                    if f"{where}/{name}" not in t:
                        return False
                    if number % 2:
                        del t[f"{where}/{name}"]
                    else:
                        t[f"{where}/{name}"] = number + 1
                    return True

                if middleware.transaction(step):
                    break
            if number % 2:
                deleted.add(name)
            else:
                written[name] = number + 1

    def guarded(work: Any, seed: int) -> None:
        try:
            work(seed)
        except BaseException as error:  # noqa: BLE001 - any of them fails the test
            failures.append(error)

    changers = [threading.Thread(target=guarded, args=(changing, seed)) for seed in range(2)]
    movers = [threading.Thread(target=guarded, args=(moving, seed)) for seed in range(2)]
    for thread in (*changers, *movers):
        thread.start()
    for thread in changers:
        thread.join()
    left.set()
    for thread in movers:
        thread.join()
    assert failures == []
    trees = middleware.snapshot()
    assert len(trees) == 1
    [tree] = trees.values()
    assert tree == {name: written.get(name, 0) for name in names if name not in deleted}
