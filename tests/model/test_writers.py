"""Writers at the same keys at once: what they leave, and what anybody could have seen meanwhile."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from link_kv import EtcdMiddleware
from link_kv._core.revived import messages
from link_kv.errors import Conflict, KeyExists, ListIndexError, NotATree, NotFound
from tests.model.layout import faults

WRITERS = 8
ROUNDS = 1000 if os.environ.get("HYPOTHESIS_PROFILE") == "long" else 60

Clients = Callable[[], EtcdMiddleware]


@pytest.fixture
def clients(etcd: Any, etcd_prefix: str) -> Iterator[Clients]:
    """Makes clients with one prefix; under load an operation may have to try often, so they are patient."""
    made: list[EtcdMiddleware] = []

    def make() -> EtcdMiddleware:
        made.append(EtcdMiddleware(endpoints=etcd.endpoints, prefix=etcd_prefix, timeout=60))
        return made[-1]

    yield make
    for client in made:
        client.close()


def at_once(*works: Callable[[], Any]) -> list[Any]:
    """What the works return, all begun together, each in its thread."""
    start = threading.Barrier(len(works))

    def begin(work: Callable[[], Any]) -> Any:
        start.wait(30)
        return work()

    with ThreadPoolExecutor(len(works)) as pool:
        return [future.result(120) for future in [pool.submit(begin, work) for work in works]]


class History:
    """The keys below a client's prefix at every revision, read by another library."""

    def __init__(self, client: EtcdMiddleware) -> None:
        self._client = client
        self._etcd3 = client.etcd3
        self.first = self.now()

    def now(self) -> int:
        return int(self._range(0).header.revision)

    def _range(self, revision: int) -> Any:
        prefix = self._client.prefix.encode()
        request = messages().RangeRequest(key=prefix + b"/", range_end=prefix + b"0", revision=revision)
        return self._etcd3.kvstub.Range(request, timeout=30, metadata=self._etcd3.metadata)

    def __iter__(self) -> Iterator[tuple[int, dict[bytes, bytes]]]:
        """Each revision from the first on that changed something below the prefix."""
        before = None
        for revision in range(self.first, self.now() + 1):
            keys = {kv.key: (kv.value, kv.mod_revision) for kv in self._range(revision).kvs}
            if keys != before:
                before = keys
                yield revision, {key: value for key, (value, _) in keys.items()}

    def close(self) -> None:
        self._etcd3.close()


@pytest.fixture
def history(clients: Clients) -> Iterator[History]:
    client = clients()
    client["/begun"] = True
    kept = History(client)
    yield kept
    kept.close()


PATHS = (
    *(
        "/a",
        "/a/b",
        "/a/b/c",
        "/a/b/c/d",
        "/a/x",
        "/l",
        "/l/1",
        "/l/2",
        "/l/3",
        "/l/1/k",
        "/l/1/k/m",
        "/l/2/1",
    ),
    *("/l/1/n", "/l/2/2", "/l/3/k/1", "/a/b/1", "/m/l", "/m/l/1", "/m/l/2", "/m/l/1/1", "/m/l/1/2", "/m"),
)
LISTS = ("/l", "/m/l", "/l/1", "/l/2", "/a/b", "/m/l/1", "/l/3/k")
VALUES: tuple[Any, ...] = (
    *(
        1,
        "text",
        None,
        {},
        [],
        {"b": 2},
        {"b": {"c": 3, "x": []}},
        {"k": {"m": 1}, "n": 2},
        {"b": {}},
        [[], {}],
    ),
    *(
        ["x", {"k": 1, "n": 2}, ["p", "q"]],
        [{"k": {"m": 1}}, ["r"]],
        [1, 2, 3],
        {"l": [["s", "t"], {"k": 1}]},
    ),
)


def random_writes(client: EtcdMiddleware, seed: int) -> int:
    """Do all kinds of writes; how many there were that wrote."""
    dice = random.Random(seed)
    done = 0
    for _ in range(ROUNDS):
        path, value = dice.choice(PATHS), dice.choice(VALUES)
        what = dice.randrange(14)
        try:
            if what < 3:
                client[path] = value
            elif what == 3:
                client[path] = dice.random()
            elif what < 6:
                del client[path]
            elif what == 6:
                client.pop(path)
            elif what < 9:
                client.append(dice.choice(LISTS), value)
            elif what == 9:
                del client[f"{dice.choice(LISTS)}/{dice.randint(1, 3)}"]
            elif what == 10:
                client.update({path: value, dice.choice(PATHS): dice.choice(VALUES)})
            elif what == 11:
                client.create(path, value)
            elif what == 12:
                found = client.tree(dice.choice(LISTS))
                if isinstance(found, dict):
                    continue
                found.insert(0, value) if hasattr(found, "insert") else found.update({"b": value})
            else:
                client.popitem()
        except (NotFound, NotATree, ListIndexError, KeyExists, Conflict):
            continue
        done += 1
    return done


def test_no_revision_ever_breaks_a_law(clients: Clients, history: History) -> None:
    works = [clients() for _ in range(WRITERS)]
    seed = random.randrange(10**6)
    done = at_once(*(partial(random_writes, client, seed + n) for n, client in enumerate(works)))
    assert sum(done) > WRITERS * ROUNDS / 4
    revisions = 0
    for revision, keys in history:
        revisions += 1
        broken = faults(keys.items(), works[0].prefix.encode())
        assert not broken, (seed, revision, broken, keys)
    assert revisions == sum(done) + 1, "each write is one revision, whatever it writes"


def tagged(writer: int, number: int) -> Any:
    """A tree that tells who wrote it, in every leaf; its shape differs from writer to writer and in time."""
    tag = f"{writer}.{number}"
    size = 1 + (writer * 7 + number * 3) % 20
    return {
        "tag": tag,
        **{f"k{place}": {"v": tag} for place in range(writer, writer + size)},
        "list": [tag] * (1 + number % 5),
        f"only-{writer}": [{"v": tag}] if number % 2 else tag,
    }


def test_writers_racing_over_a_tree_never_leave_a_mixture(clients: Clients, history: History) -> None:
    whole = [tagged(writer, number) for writer in range(4) for number in range(25)]
    finished = threading.Event()

    def write(client: EtcdMiddleware, writer: int) -> None:
        for number in range(25):
            client["/t"] = tagged(writer, number)

    def read(client: EtcdMiddleware) -> int:
        seen = 0
        while not finished.is_set() or not seen:
            found = client.get("/t", None)
            assert found is None or found in whole, found
            if found is not None:
                items = {path: value for path, value in client.items() if path.startswith("/t/k")}
                assert len(set(items.values())) == 1
                seen += 1
        return seen

    def write_all() -> None:
        try:
            at_once(*(partial(write, clients(), writer) for writer in range(4)))
        finally:
            finished.set()

    at_once(write_all, partial(read, clients()), partial(read, clients()))
    reader = clients()
    states = [reader.at(revision).get("/t") for revision, _ in history]
    assert len(states) == 101
    assert all(state in whole for state in states[1:])
    assert all(state in states for state in whole)


def test_one_writer_may_put_a_leaf_where_another_puts_trees(clients: Clients, history: History) -> None:
    def trees(client: EtcdMiddleware) -> None:
        for number in range(30):
            client["/t"] = tagged(0, number)

    def leaves(client: EtcdMiddleware) -> None:
        for number in range(30):
            client["/t"] = number

    def below(client: EtcdMiddleware) -> None:
        for number in range(30):
            try:
                client["/t/k0/v"] = number
            except NotATree:
                continue

    reader = clients()
    at_once(partial(trees, clients()), partial(leaves, clients()), partial(below, clients()))
    for revision, keys in history:
        assert not faults(keys.items(), reader.prefix.encode())
        found = reader.at(revision).get("/t", 0)
        if isinstance(found, dict) and "tag" in found:
            tags = {
                found["tag"],
                *found["list"],
                *(found[f"k{n}"]["v"] for n in range(1, 20) if f"k{n}" in found),
            }
            assert len(tags) == 1, found


def test_appends_at_once_all_arrive_once_and_in_each_writers_order(clients: Clients) -> None:
    def work(client: EtcdMiddleware, writer: int) -> list[str]:
        return [client.append("/l", [writer, number]) for number in range(15)]

    paths = at_once(*(partial(work, clients(), writer) for writer in range(WRITERS)))
    reader = clients()
    items = reader["/l"]
    assert sorted(items) == [[writer, number] for writer in range(WRITERS) for number in range(15)]
    for writer, places in enumerate(paths):
        for number, place in enumerate(places):
            assert reader[place] == [writer, number]
        assert places == sorted(places, key=lambda place: int(place.rpartition("/")[2]))


def test_items_taken_from_a_list_at_once_are_taken_once(clients: Clients) -> None:
    clients()["/l"] = list(range(60))

    def work(client: EtcdMiddleware) -> list[int]:
        taken = []
        while True:
            try:
                taken.append(client.pop("/l/1"))
            except NotFound:
                return taken

    taken = at_once(*(partial(work, clients()) for _ in range(4)))
    assert sorted(item for items in taken for item in items) == list(range(60))
    assert all(items == sorted(items) for items in taken)
    assert clients()["/l"] == []


def test_a_queue_loses_nothing_while_it_is_filled_and_emptied(clients: Clients) -> None:
    def fill(client: EtcdMiddleware, writer: int) -> None:
        for number in range(20):
            client.append("/q", {"writer": writer, "number": number})

    def empty(client: EtcdMiddleware) -> list[Any]:
        taken: list[Any] = []
        while len(taken) < 30:
            try:
                taken.append(client.pop("/q/1"))
            except NotFound:
                continue
        return taken

    works = [partial(fill, clients(), writer) for writer in range(3)] + [
        partial(empty, clients()) for _ in range(2)
    ]
    taken = [item for items in at_once(*works) if items for item in items]
    assert sorted((item["writer"], item["number"]) for item in taken) == [
        (writer, number) for writer in range(3) for number in range(20)
    ]


def test_edits_of_a_list_view_at_once_all_count(clients: Clients) -> None:
    clients()["/l"] = [0]

    def work(client: EtcdMiddleware, writer: int) -> None:
        items = client.tree("/l")
        for number in range(10):
            items.insert(0, f"{writer}.{number}")
            items.pop()
            items.insert(len(items), f"{writer}.{number}")

    at_once(*(partial(work, clients(), writer) for writer in range(4)))
    assert len(clients()["/l"]) == 41


def test_a_counter_kept_by_compare_loses_no_step(clients: Clients) -> None:
    clients()["/n"] = 0

    def work(client: EtcdMiddleware) -> int:
        refused = 0
        for _ in range(20):
            while True:
                entry = client.entry("/n")
                try:
                    client.put("/n", entry.value + 1, revision=entry.revision)
                    break
                except Conflict:
                    refused += 1
        return refused

    at_once(*(partial(work, clients()) for _ in range(4)))
    assert clients()["/n"] == 80


def test_of_creators_at_once_one_wins(clients: Clients) -> None:
    def create(client: EtcdMiddleware, path: str, writer: int) -> bool:
        try:
            client.create(path, {"by": [writer]})
        except KeyExists:
            return False
        return True

    makers = [clients() for _ in range(WRITERS)]
    for number in range(10):
        path = f"/c/{number}"
        won = at_once(*(partial(create, client, path, writer) for writer, client in enumerate(makers)))
        assert sum(won) == 1
        assert makers[0][path] == {"by": [won.index(True)]}


def test_setdefault_at_once_agrees(clients: Clients) -> None:
    makers = [clients() for _ in range(WRITERS)]
    for number in range(10):
        found = at_once(
            *(partial(client.setdefault, f"/s/{number}", [writer]) for writer, client in enumerate(makers))
        )
        assert len({item for [item] in found}) == 1
        assert makers[0][f"/s/{number}"] == found[0]


def test_leaves_taken_by_popitem_at_once_are_taken_once(clients: Clients) -> None:
    clients()["/p"] = {"a": {str(number): number for number in range(30)}, "l": [100, 101, 102]}

    def work(client: EtcdMiddleware) -> list[Any]:
        taken = []
        while True:
            try:
                taken.append(client.popitem()[1])
            except NotFound:
                return taken

    taken = [item for items in at_once(*(partial(work, clients()) for _ in range(4))) for item in items]
    assert sorted(item for item in taken if item != []) == [*range(30), 100, 101, 102]
    assert taken.count([]) == 1
    assert clients()["/"] == {}


def test_updates_at_once_are_whole(clients: Clients, history: History) -> None:
    def work(client: EtcdMiddleware, writer: int) -> None:
        for number in range(15):
            tag = writer * 100 + number
            client.update({"/u/x/v": tag, "/u/y": {"v": tag, f"w{writer}": [tag]}, "/v": tag})

    at_once(*(partial(work, clients(), writer) for writer in range(4)))
    reader = clients()
    for revision, _ in history:
        state = reader.at(revision)
        if "/v" in state:
            tag = state["/v"]
            assert state["/u"] == {"x": {"v": tag}, "y": {"v": tag, f"w{tag // 100}": [tag]}}
