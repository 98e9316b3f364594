"""When a transaction runs again, and what many of them at once leave."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from link_kv import EtcdMiddleware, local
from link_kv._core.operations import stm
from link_kv.errors import (
    ConfigError,
    Conflict,
    LinkKVError,
    NotFound,
    OutcomeUnknown,
)
from link_kv.sessions import Transaction
from tests.leases import connect
from tests.model.layout import faults
from tests.once import Once
from tests.processes import ask, until
from tests.wire.proxy import Proxy

LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"


@pytest.fixture
def endpoint(etcd: Any) -> str:
    found: str = etcd.endpoints[0]
    return found


@pytest.fixture
def other(endpoint: str, etcd_prefix: str) -> Iterator[EtcdMiddleware]:
    """Somebody else, on the same paths."""
    with connect(endpoint, etcd_prefix) as client:
        yield client


# Running again


def test_it_runs_again_when_what_it_read_has_moved(
    etcd_client: EtcdMiddleware, other: EtcdMiddleware
) -> None:
    etcd_client["/a"] = 1
    once = Once(lambda: other.put("/a", 10))

    def work(t: Transaction) -> int:
        value: int = t["/a"]
        once()
        t["/b"] = value + 1
        return value

    assert etcd_client.transaction(work) == 10
    assert once.runs == 2
    assert etcd_client["/b"] == 11


MOVES: dict[str, tuple[Callable[[Transaction], object], Callable[[EtcdMiddleware], object]]] = {
    "a leaf is replaced": (lambda t: t["/a"], lambda c: c.put("/a", 5)),
    "a leaf is put again": (lambda t: t["/a"], lambda c: c.put("/a", 1)),
    "a leaf is deleted": (lambda t: t["/a"], lambda c: c.delete("/a")),
    "a leaf becomes a tree": (lambda t: t["/a"], lambda c: c.put("/a", {"x": 1})),
    "a leaf comes": (lambda t: t.get("/new"), lambda c: c.put("/new", 1)),
    "a tree comes": (lambda t: t.get("/new"), lambda c: c.put("/new/x/y", 1)),
    "an empty dict comes": (lambda t: t.get("/new"), lambda c: c.put("/new", {})),
    "a tree gets a leaf": (lambda t: t["/t"], lambda c: c.put("/t/z", 1)),
    "a tree gets a leaf deep down": (lambda t: t["/t"], lambda c: c.put("/t/z/deep", 1)),
    "a tree loses a leaf": (lambda t: t["/t"], lambda c: c.delete("/t/y")),
    "a tree is deleted": (lambda t: t["/t"], lambda c: c.delete("/t")),
    "a tree becomes a leaf": (lambda t: t["/t"], lambda c: c.put("/t", 1)),
    "a tree becomes empty": (lambda t: t["/t"], lambda c: c.put("/t", {})),
    "an empty dict gets a leaf": (lambda t: t["/e"], lambda c: c.put("/e/x", 1)),
    "an empty dict is deleted": (lambda t: t["/e"], lambda c: c.delete("/e")),
    "a list gets an item": (lambda t: t["/l"], lambda c: c.append("/l", "c")),
    "a list loses its first item": (lambda t: t["/l"], lambda c: c.delete("/l/1")),
    "a list loses its last item": (lambda t: t["/l"], lambda c: c.delete("/l/2")),
    "a list becomes a dict": (lambda t: t["/l"], lambda c: c.put("/l", {"1": "a", "2": "b"})),
    "an item moves up": (lambda t: t["/l/1"], lambda c: c.delete("/l/1")),
    "the root gets a leaf": (lambda t: t["/"], lambda c: c.put("/new", 1)),
    "a leaf that was looked for goes": (lambda t: "/a" in t, lambda c: c.delete("/a")),
    "a tree that was looked for goes": (lambda t: "/t" in t, lambda c: c.delete("/t")),
    "a leaf that was looked for comes": (lambda t: "/new" in t, lambda c: c.put("/new", 1)),
    "a tree that was looked for comes": (lambda t: "/new" in t, lambda c: c.put("/new/x", 1)),
    "what is to be deleted goes": (lambda t: t.__delitem__("/t"), lambda c: c.delete("/t/x")),
    "what is to be deleted is now in a list": (
        lambda t: t.__delitem__("/t/x"),
        lambda c: c.put("/t", [["n"], "x"]),
    ),
}


@pytest.mark.parametrize(("read", "move"), MOVES.values(), ids=MOVES)
def test_everything_that_could_have_changed_what_it_read_makes_it_run_again(
    etcd_client: EtcdMiddleware,
    other: EtcdMiddleware,
    read: Callable[[Transaction], object],
    move: Callable[[EtcdMiddleware], object],
) -> None:
    etcd_client.update({"/a": 1, "/t": {"x": 1, "y": 2}, "/e": {}, "/l": ["a", "b"]})
    once = Once(lambda: move(other))

    def work(t: Transaction) -> None:
        with contextlib.suppress(NotFound):
            read(t)
        once()
        t["/written"] = once.runs

    etcd_client.transaction(work)
    assert once.runs == 2
    assert etcd_client["/written"] == 2
    assert faults(etcd_client.raw.items(), etcd_client._space.prefix) == []


STAYS: dict[str, tuple[Callable[[Transaction], object], Callable[[EtcdMiddleware], object]]] = {
    "a neighbour of a leaf": (lambda t: t["/a"], lambda c: c.put("/b", 1)),
    "a tree whose name begins alike": (lambda t: t["/t"], lambda c: c.put("/t-1", 1)),
    "a sibling in a tree": (lambda t: t["/t/x"], lambda c: c.put("/t/y", 3)),
    "a neighbour of what was not there": (lambda t: t.get("/new"), lambda c: c.put("/newer", 1)),
    "a leaf that was only looked for": (lambda t: "/a" in t, lambda c: c.put("/a", 2)),
    "a tree that was only looked for": (lambda t: "/t" in t, lambda c: c.put("/t/z", 2)),
}


@pytest.mark.parametrize(("read", "move"), STAYS.values(), ids=STAYS)
def test_what_it_did_not_read_does_not_make_it_run_again(
    etcd_client: EtcdMiddleware,
    other: EtcdMiddleware,
    read: Callable[[Transaction], object],
    move: Callable[[EtcdMiddleware], object],
) -> None:
    etcd_client.update({"/a": 1, "/t": {"x": 1, "y": 2}})
    once = Once(lambda: move(other))

    def work(t: Transaction) -> None:
        read(t)
        once()
        t["/written"] = once.runs

    etcd_client.transaction(work)
    assert once.runs == 1


def test_all_it_reads_is_of_one_revision(etcd_client: EtcdMiddleware, other: EtcdMiddleware) -> None:
    etcd_client.update({"/a": 1, "/b": 1})
    seen: list[tuple[Any, ...]] = []
    once = Once(lambda: other.update({"/a": 2, "/b": 2, "/c": 2}))

    def work(t: Transaction) -> None:
        a = t["/a"]
        once()
        seen.append((a, t["/b"], "/c" in t, t["/"]))

    etcd_client.transaction(work)
    assert seen == [(1, 1, False, {"a": 1, "b": 1})]  # and nothing to write, so nothing to compare


def test_a_branch_that_was_taken_for_an_older_state_is_no_error(
    etcd_client: EtcdMiddleware, other: EtcdMiddleware
) -> None:
    """Writing below a leaf is an error, but not when the function did not know of the leaf."""
    once = Once(lambda: other.put("/a", 1))

    def work(t: Transaction) -> str:
        leaf = not isinstance(t.get("/a", {}), dict)
        once()
        if leaf:
            t["/leaf"] = True
            return "leaf"
        t["/a/b"] = 1
        return "tree"

    assert etcd_client.transaction(work) == "leaf"
    assert etcd_client.snapshot() == {"a": 1, "leaf": True}


def test_a_place_in_a_list_that_is_gone_meanwhile_is_no_error(
    etcd_client: EtcdMiddleware, other: EtcdMiddleware
) -> None:
    etcd_client["/l"] = ["a", "b", "c"]
    once = Once(lambda: other.put("/l", ["only"]))

    def work(t: Transaction) -> None:
        items = t["/l"]
        once()
        t[f"/l/{len(items)}"] = "last"

    etcd_client.transaction(work)
    assert etcd_client["/l"] == ["last"]


def test_it_gives_up_after_many_runs(etcd_client: EtcdMiddleware, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stm, "MAX_RUNS", 5)
    runs = itertools.count()

    def work(t: Transaction) -> None:
        t.get("/a")
        etcd_client["/a"] = next(runs)
        t["/b"] = 1

    with pytest.raises(Conflict, match="5 times"):
        etcd_client.transaction(work)
    assert next(runs) == 5


def test_it_runs_again_when_what_it_reads_was_compacted() -> None:
    # An etcd of its own: others count on the history of the shared one.
    with local.start() as server, connect(server.endpoints[0], "/p") as client:
        client.update({"/a": 1, "/b": 1})

        def compact() -> None:
            revision = client.put("/other", 1)
            ask(server.endpoints[0], "/v3/kv/compaction", {"revision": revision, "physical": True})

        once = Once(compact)

        def work(t: Transaction) -> None:
            t["/c"] = t["/a"]
            once()
            t["/c"] += t["/b"]

        client.transaction(work)
        assert once.runs == 2
        assert client["/c"] == 2


def test_a_revision_error_of_the_function_itself_is_raised(etcd_client: EtcdMiddleware) -> None:
    runs = itertools.count()

    def work(t: Transaction) -> None:
        next(runs)
        etcd_client.at(10**15)["/a"]

    with pytest.raises(LinkKVError):
        etcd_client.transaction(work)
    assert next(runs) == 1


def test_a_commit_whose_answer_was_lost_is_told(
    endpoint: str, etcd_prefix: str, etcd_client: EtcdMiddleware
) -> None:
    """What compares what it moves is sent again. When that fails, nobody knows which of both came first."""
    etcd_client["/a"] = 1
    with Proxy(endpoint) as proxy, connect(proxy.endpoint, etcd_prefix, timeout=3.0) as client:
        assert client["/a"] == 1

        def work(t: Transaction) -> None:
            t["/a"] += 1
            proxy.mute()

        with pytest.raises(OutcomeUnknown):
            client.transaction(work)
        until(lambda: etcd_client["/a"] == 2)
        proxy.release()


# Many at once


def race(works: list[Callable[[], None]]) -> None:
    """Run them at once, and raise what they raise."""
    errors: list[BaseException] = []

    def guarded(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised below
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    if errors:
        raise errors[0]


def test_money_is_neither_made_nor_lost(etcd_client: EtcdMiddleware, endpoint: str, etcd_prefix: str) -> None:
    etcd_client["/accounts"] = {str(number): 100 for number in range(5)}
    sums: list[int] = []

    def work(seed: int) -> None:
        dice = random.Random(seed)
        with connect(endpoint, etcd_prefix, timeout=30.0) as client:
            for _ in range(20):
                giver, taker = dice.sample(range(5), 2)

                def transfer(t: Transaction, giver: int = giver, taker: int = taker) -> None:
                    amount = t[f"/accounts/{giver}"] // 2
                    t[f"/accounts/{giver}"] -= amount
                    t[f"/accounts/{taker}"] += amount

                client.transaction(transfer)
                sums.append(sum(client["/accounts"].values()))
                sums.append(client.transaction(lambda t: sum(t[f"/accounts/{n}"] for n in range(5))))

    race([lambda seed=seed: work(seed) for seed in range(5)])  # type: ignore[misc]
    assert set(sums) == {500}


def test_two_that_read_each_others_place_do_not_both_write(
    etcd_client: EtcdMiddleware, endpoint: str, etcd_prefix: str
) -> None:
    """Write skew: each may leave as long as another stays, so one must stay."""

    def leave(name: str) -> None:
        with connect(endpoint, etcd_prefix, timeout=30.0) as client:

            def work(t: Transaction) -> None:
                if len(t["/on duty"]) > 1:
                    del t[f"/on duty/{name}"]

            client.transaction(work)

    for _ in range(5):
        etcd_client["/on duty"] = dict.fromkeys("abcd", True)
        race([lambda name=name: leave(name) for name in "abcd"])  # type: ignore[misc]
        assert len(etcd_client["/on duty"]) == 1


def test_a_room_is_not_overfull_by_those_that_see_nobody(
    etcd_client: EtcdMiddleware, endpoint: str, etcd_prefix: str
) -> None:
    """Phantoms: what is counted is what was not there."""
    entered: list[bool] = []

    def enter(name: str) -> None:
        with connect(endpoint, etcd_prefix, timeout=30.0) as client:

            def work(t: Transaction) -> bool:
                if len(t.get("/room", {})) >= 3:
                    return False
                t[f"/room/{name}"] = True
                return True

            entered.append(client.transaction(work))

    race([lambda name=name: enter(name) for name in "abcdefgh"])  # type: ignore[misc]
    assert sorted(entered) == [False] * 5 + [True] * 3
    assert len(etcd_client["/room"]) == 3


def test_lists_that_many_change_stay_whole(
    etcd_client: EtcdMiddleware, endpoint: str, etcd_prefix: str
) -> None:
    etcd_client["/l"] = [["start"]]

    def work(name: str) -> None:
        with connect(endpoint, etcd_prefix, timeout=30.0) as client:
            for number in range(5):

                def add(t: Transaction, number: int = number) -> None:
                    t[f"/l/{len(t['/l']) + 1}"] = [name, number]

                client.transaction(add)
                if number == 2:
                    client.transaction(lambda t: t.__delitem__("/l/1"))

    race([lambda name=name: work(name) for name in "abcd"])  # type: ignore[misc]
    assert len(etcd_client["/l"]) == 1 + 4 * 5 - 4
    assert faults(etcd_client.raw.items(), etcd_client._space.prefix) == []


def test_a_session_cannot_be_tricked_into_a_list_by_a_transaction(etcd_client: EtcdMiddleware) -> None:
    etcd_client.transaction(lambda t: t.__setitem__("/l", ["a"]))
    with pytest.raises(ConfigError, match="gap"):
        etcd_client.put("/l/1", "b", ttl=60)
