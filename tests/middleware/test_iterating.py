"""Iterating and counting: leaf paths in the order of their keys, in pages of one revision."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from link_kv import EtcdMiddleware
from link_kv._core.operations import PAGE, reading
from link_kv._core.operations.iterate import drive
from link_kv._core.revived import messages
from link_kv._core.wire.calls import RANGE
from link_kv.errors import NotFound, RevisionError
from tests.core.test_walk import TREES

VALUE = {
    "b": {"x": 1, "list": ["p", {"q": 2}], "empty": {}, "none": []},
    "b-": 3,
    "b!": 4,
    "b0": 5,
    "a": 6,
    "B": 7,
    "é": 8,
    "m/s": 9,
    "": 10,
    "ten": [[str(number)] for number in range(1, 11)],
}


@pytest.fixture
def filled(client: EtcdMiddleware) -> EtcdMiddleware:
    client.update(
        {f"/{'%' if not name else name.replace('/', '%2F')}": value for name, value in VALUE.items()}
    )
    return client


def test_leaf_paths_come_in_the_order_of_their_key_bytes(filled: EtcdMiddleware) -> None:
    assert list(filled) == [
        *(
            "/%",
            "/B",
            "/a",
            "/b!",
            "/b-",
            "/b/empty",
            "/b/list/1",
            "/b/list/2/q",
            "/b/none",
            "/b/x",
            "/b0",
            "/m%2Fs",
        ),
        *("/ten/1/1", "/ten/10/1", "/ten/2/1", "/ten/3/1", "/ten/4/1", "/ten/5/1", "/ten/6/1", "/ten/7/1"),
        *("/ten/8/1", "/ten/9/1", "/é"),
    ]


def test_keys_items_and_values_agree(filled: EtcdMiddleware) -> None:
    paths = list(filled)
    assert list(filled.keys()) == paths
    assert [path for path, _ in filled.items()] == paths
    assert list(filled.values()) == [value for _, value in filled.items()]
    assert [filled[path] for path in paths] == list(filled.values())
    assert len(filled) == len(filled.keys()) == len(filled.items()) == len(filled.values()) == len(paths)
    assert all(path in filled for path in paths)
    assert dict(filled) == dict(filled.items())
    assert set(filled.keys()) == set(paths)


def test_an_empty_dict_or_list_counts_as_a_leaf(client: EtcdMiddleware) -> None:
    client.update({"/a": {}, "/b": [], "/c": [[], {}]})
    assert list(client.items()) == [("/a", {}), ("/b", []), ("/c/1", []), ("/c/2", {})]
    assert len(client) == 4
    assert bool(client)
    client["/a/x"] = 1
    client.append("/b", 2)
    assert list(client) == ["/a/x", "/b/1", "/c/1", "/c/2"]


def test_an_empty_client_has_nothing_to_iterate(client: EtcdMiddleware) -> None:
    assert list(client) == list(client.items()) == list(client.values()) == list(client.keys()) == []
    assert len(client) == 0
    assert not client
    client["/a"] = None
    assert client
    assert len(client) == 1


@pytest.mark.parametrize(
    "value", [{}, {"/a": 1}, {"/a/b": {}}, {f"/{number}": number for number in range(99)}], ids=len
)
def test_whether_there_is_anything_takes_one_range_with_a_limit(
    client: EtcdMiddleware, monkeypatch: pytest.MonkeyPatch, value: dict[str, Any]
) -> None:
    client.update(value)
    assert client["/"] is not None
    call = client._space.caller.call
    sent: list[Any] = []

    async def listen(method: Any, request: bytes, *more: Any) -> Any:
        sent.append((method, messages().RangeRequest.FromString(request).limit))
        return await call(method, request, *more)

    monkeypatch.setattr(client._space.caller, "call", listen)
    assert bool(client) == bool(value)
    assert sent == [(RANGE, 8)]


@pytest.fixture
def answers(client: EtcdMiddleware, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What etcd answers."""
    call = client._space.caller.call
    found: list[Any] = []

    async def listen(*request: Any) -> Any:
        found.append(await call(*request))
        return found[-1]

    monkeypatch.setattr(client._space.caller, "call", listen)
    return found


@pytest.mark.parametrize(
    ("value", "trips"),
    [
        ({"x": 1}, 1),
        ({"x": {"y": {"z": [1, [2, 3]]}}, "v": "w"}, 1),
        ({str(number): number for number in range(100)}, 2),
        ({str(number): [number] for number in range(500)}, 3),
        ({"x": {}}, 2),
        ({str(number): [[], {}] for number in range(5)}, 2),
    ],
    ids=range(6),
)
def test_paths_are_read_without_values_and_at_once(
    client: EtcdMiddleware, answers: list[Any], value: Any, trips: int
) -> None:
    client["/t"] = value | {"long": "x" * 200_000}
    tree = client.tree("/t")
    uses: list[Any] = [lambda: len(client), lambda: list(iter(client)), lambda: len(tree), lambda: set(tree)]
    for use in uses:
        answers.clear()
        assert use()
        assert len(answers) == trips
        assert sum(answer.ByteSize() for answer in answers) < 200_000


@pytest.mark.parametrize(
    ("limit", "size", "taken", "expected"),
    [
        (64, 0, 0.001, 512),
        (512, 512 * 10, 0.001, PAGE),
        (64, 64_000_000, 0.001, 4),
        (8, 80_000_000, 0.001, 1),
        (64, 0, 2.5, 32),
        (64, 0, 1.25, 64),
        (8, 0, 60, 1),
        (8, 0, 0.0, 64),
    ],
)
def test_the_next_page_is_as_large_as_size_and_time_allow(
    limit: int, size: int, taken: float, expected: int
) -> None:
    assert reading.next_limit(limit, size, taken, 5) == expected


def test_values_are_read_in_pages_of_some_size(
    client: EtcdMiddleware, answers: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_PAGE_BYTES", 25_000)
    client["/t"] = value = {f"{number:03}": "x" * 2500 for number in range(300)}
    for items in (client.items(), client.raw.items()):
        answers.clear()
        assert len(list(items)) in (300, 301)  # with the layout's version
        assert len(answers) < 30
        assert sum(answer.ByteSize() > 30_000 for answer in answers) == 1, "the first"
    assert dict(client.items()) == {f"/t/{name}": text for name, text in value.items()}


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TREES, st.sampled_from([1, 2, 3, PAGE]), st.sampled_from(["/", "/t"]))
def test_paths_are_those_that_values_are_read_of(
    client: EtcdMiddleware, tree: dict[bytes, bytes], page: int, path: str
) -> None:
    """On keys that we and other tools may have made, on pages that end anywhere."""
    at = client._space.place("/t")
    client.raw.clear()
    for key, stored in tree.items():
        client.raw[at.key + key] = stored
    ex, start = client._exchange(), client._space.place(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "PAGE", page)
        patch.setattr(reading, "_FIRST_KEYS", page)
        paths = list(drive(reading.leaf_paths(ex, start)))
        assert list(client.raw) == sorted(at.key + key for key in tree)
    assert paths == [leaf.path for leaf in drive(reading.scan(ex, start))]


def test_housekeeping_of_any_amount_is_nothing(client: EtcdMiddleware) -> None:
    for number in range(30):
        client.raw[f"{client.prefix}/.link/services/{number}".encode()] = b"x"
        client.raw[f"{client.prefix}/a/.link/{number}".encode()] = b"x"
    assert not client
    client["/z"] = 1
    assert client


def test_items_and_values_can_be_asked_for_their_members(filled: EtcdMiddleware) -> None:
    assert ("/a", 6) in filled.items()
    assert ("/a", 7) not in filled.items()
    assert ("/never", 6) not in filled.items()
    assert 8 in filled.values()
    assert "no" not in filled.values()
    assert "/a" in filled.keys()  # noqa: SIM118
    assert filled.keys() & {"/a", "/b0", "/never"} == {"/a", "/b0"}


def test_what_is_iterated_can_be_deleted_meanwhile(client: EtcdMiddleware) -> None:
    client.update({f"/t{number}": {"x": number, "y": [number]} for number in range(20)})
    for path in client:
        client.pop(path)
    assert client["/"] == {f"t{number}": {"y": []} for number in range(20)}


def test_an_iteration_can_be_left(client: EtcdMiddleware) -> None:
    client["/a"] = list(range(PAGE + 10))
    assert next(iter(client)) == "/a/1"
    for path, value in client.items():
        assert (path, value) == ("/a/1", 0)
        break
    iterator = iter(client.values())
    assert next(iterator) == 0
    del iterator
    assert len(client) == PAGE + 10


def begun(iterator: Iterator[Any]) -> tuple[Any, Iterator[Any]]:
    return next(iterator), iterator


@pytest.mark.parametrize(
    "over", [iter, lambda client: iter(client.items()), lambda client: iter(client.values())]
)
def test_pages_are_pinned_to_the_revision_of_the_first(client: EtcdMiddleware, over: Any) -> None:
    value = {f"{number:05}": number for number in range(2 * PAGE + 500)}
    client["/a"] = value
    before = list(over(client))
    first, rest = begun(over(client))
    client["/a"] = {"zzz": "new"}
    client["/a/09999"] = "newer"
    client["/b"] = 1
    assert [first, *rest] == before
    assert list(client.items()) == [("/a/09999", "newer"), ("/a/zzz", "new"), ("/b", 1)]


def test_dict_of_items_is_one_revision(client: EtcdMiddleware) -> None:
    client["/a"] = {f"{number:05}": 0 for number in range(PAGE + 100)}
    revision = client.entry("/a").revision
    _, rest = begun(iter(client.items()))
    client["/a"] = {f"{number:05}": 1 for number in range(PAGE + 100)}
    assert set(dict(rest).values()) == {0}
    assert set(dict(client.at(revision).items()).values()) == {0}
    assert set(dict(client.items()).values()) == {1}


def compact(client: EtcdMiddleware, revision: int) -> None:
    other = client.etcd3
    try:
        other.compact(revision)
    finally:
        other.close()


def test_an_iteration_whose_revision_is_compacted_meanwhile_ends_with_an_error(
    own_client: EtcdMiddleware,
) -> None:
    client = own_client
    client["/a"] = {f"{number:05}": number for number in range(PAGE + 100)}
    iterators = [
        iter(client),
        iter(client.items()),
        iter(client.values()),
        iter(client.at(client.put("/b", 1))),
    ]
    for iterator in iterators:
        next(iterator)
    compact(client, client.put("/b", 2))
    for iterator in iterators:
        with pytest.raises(RevisionError, match="compacted"):
            list(iterator)
    assert len(client) == PAGE + 101


def test_the_past_ends_with_an_error_once_compacted(own_client: EtcdMiddleware) -> None:
    client = own_client
    first = client.put("/a", {"x": [1]})
    second = client.put("/a", {"x": [2]})
    past = client.at(first)
    assert past["/a"] == {"x": [1]}
    compact(client, second)
    uses: list[Any] = [
        lambda: past["/a"],
        lambda: past["/"],
        lambda: past.get("/a"),
        lambda: "/a" in past,
        lambda: list(past),
        lambda: list(past.items()),
        lambda: len(past),
        lambda: bool(past),
        lambda: client.snapshot("/a", revision=first),
        lambda: client.snapshot(revision=first),
    ]
    for use in uses:
        with pytest.raises(RevisionError, match="compacted"):
            use()
    assert client.at(second)["/a"] == {"x": [2]}


@pytest.fixture
def own_client() -> Iterator[EtcdMiddleware]:
    """A client on an etcd of its own, whose history may be compacted."""
    from link_kv import local

    with local.start() as server, EtcdMiddleware(endpoints=server.endpoints, prefix="/p") as client:
        yield client


def test_popitem_takes_the_first_leaf_until_nothing_is_left(filled: EtcdMiddleware) -> None:
    taken = []
    while filled:
        expected = next(iter(filled.items()))
        assert filled.popitem() == expected
        assert len(taken) < 100
        taken.append(expected)
    assert [path for path, _ in taken][:6] == ["/%", "/B", "/a", "/b!", "/b-", "/b/empty"]
    assert filled["/"] == {}
    with pytest.raises(NotFound, match="nothing is there") as caught:
        filled.popitem()
    assert isinstance(caught.value, KeyError)


def test_popitem_keeps_lists_whole(client: EtcdMiddleware) -> None:
    client["/l"] = ["a", {"x": 1, "y": 2}, "c"]
    left = []
    while client:
        path, value = client.popitem()
        left.append((path, value, client.get("/l")))
    assert left == [
        ("/l/1", "a", [{"x": 1, "y": 2}, "c"]),
        ("/l/1/x", 1, [{"y": 2}, "c"]),
        ("/l/1/y", 2, [{}, "c"]),
        ("/l/1", {}, ["c"]),
        ("/l/1", "c", []),
        ("/l", [], None),
    ]


def test_a_large_client_iterates_in_order(client: EtcdMiddleware) -> None:
    expected = {f"/t{number % 7}/{number:05}": number for number in range(3 * PAGE)}
    client.update(expected)
    assert list(client.items()) == sorted(expected.items())
    assert len(client) == 3 * PAGE
