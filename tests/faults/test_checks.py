"""What the checks of followers, trees and inputs are made of can fail as well."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from itertools import count

import numpy as np
import pytest

from link_kv import EtcdMiddleware
from link_kv.codec import encode
from link_kv.store import Store
from tests import processes
from tests.faults import fuzzers, mirrors
from tests.faults.cluster import Processes
from tests.faults.mirrors import Followed
from tests.faults.trees import Seen, mixed, stale
from tests.faults.workload import connect

_numbers = count(1)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Processes]:
    with Processes(1) as cluster:
        yield cluster


@pytest.fixture
def client(cluster: Processes) -> Iterator[EtcdMiddleware]:
    with connect(cluster.endpoints, f"/checks-{next(_numbers)}", timeout=30) as client:
        client["/t0"] = {"a": 1}
        yield client


@pytest.fixture
def followed(cluster: Processes, client: EtcdMiddleware) -> Iterator[Followed]:
    with closing(Followed(client, cluster, ["/"])) as followed:
        followed.add_store("t0")
        yield followed


def _found(followed: Followed, mark: int) -> set[str]:
    return {finding.check for finding in followed.compare(mark)}


def test_what_follows_is_counted(client: EtcdMiddleware, followed: Followed) -> None:
    client["/t0/a"] = 2
    assert not _found(followed, client.put("/end", 1))
    assert followed.compared == 2


def test_a_store_that_follows_no_more_is_found_though_it_is_right_about_its_own_revision(
    client: EtcdMiddleware, followed: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    (store,) = followed.stores
    shown, revision = store.snapshot(), store.revision
    monkeypatch.setattr(Store, "snapshot", lambda self: shown)
    monkeypatch.setattr(Store, "revision", revision)
    assert not _found(followed, client.put("/end", 1))
    client["/t0/a"] = 2
    mark = client.put("/end", 2)
    assert all(mirror.wait(mark, 30) for mirror in followed.mirrors)
    monkeypatch.setattr(mirrors, "_PATIENCE", 2.0)
    assert _found(followed, mark) == {"store, late"}


def test_a_store_that_is_not_there_is_not_passed_over(
    followed: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirrors, "_PATIENCE", 0.5)
    with pytest.raises(AssertionError):
        followed.add_store("t1")


@pytest.mark.parametrize(("key", "value"), [("/k0/below", "1"), ("/t0/", "{}")])
def test_what_values_do_not_show_is_found(
    cluster: Processes, client: EtcdMiddleware, followed: Followed, key: str, value: str
) -> None:
    client["/k0"] = 1
    processes.put(cluster.endpoints[0], f"{client.prefix}{key}", value)
    assert "layout" in _found(followed, client.put("/end", 1))


NEVER = float("inf")


@pytest.mark.parametrize(
    ("written", "seen", "wrong"),
    [
        ([(1, 2, 11), (3, 4, 21)], [(5, 6, 21)], 0),
        ([(1, 2, 11), (3, 4, 21)], [(5, 6, 11)], 1),  # after the newer was acknowledged
        ([(1, 2, 11), (3, 4, 21)], [(3.5, 6, 11)], 0),  # while it was written
        ([(1, 2, 11), (3, NEVER, 21)], [(4, 5, 21), (6, 7, 11)], 1),  # backwards
        ([(1, 2, 11), (3, NEVER, 21)], [(4, 6, 21), (5, 7, 11)], 0),  # at the same time
        ([(1, NEVER, 11), (3, 4, 21)], [(5, 6, 21), (7, 8, 11)], 0),  # the older came late
        ([(1, 3, 11), (2, 4, 22)], [(5, 6, 22), (7, 8, 11)], 0),  # two writers, in whichever order
        ([(1, 2, 11)], [(3, 4, 21)], 1),  # by nobody
    ],
)
def test_trees_that_had_been_replaced(written: list[Seen], seen: list[Seen], wrong: int) -> None:
    assert len(list(stale(written, seen))) == wrong


@pytest.mark.parametrize("tree", [None, {}, {"a": 1}, {"a": 1, "b": 2}])
def test_trees_of_parts(tree: object) -> None:
    assert mixed(tree, 2)
    assert not mixed({"a": 1, "b": 1}, 2)


@pytest.mark.parametrize(
    "spoil",
    [lambda array: array + 1, lambda array: array.astype(">i8"), lambda array: array[None]],
    ids=["value", "byte order", "shape"],
)
def test_an_array_that_changes_is_found(monkeypatch: pytest.MonkeyPatch, spoil: object) -> None:
    stored = encode(np.arange(3))
    fuzzers.check_stored(stored)
    fuzzers.check_stored(encode(np.array([np.nan])))
    monkeypatch.setattr(fuzzers, "encode", lambda value: encode(spoil(value)))  # type: ignore[operator]
    with pytest.raises(fuzzers.Wrong):
        fuzzers.check_stored(stored)
