"""A client on a real etcd, beside a plain nested dict: after each step both hold the same."""

from __future__ import annotations

import copy
import itertools
import os
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from link_kv import EtcdMiddleware
from link_kv.errors import KeyExists, LinkKVError, ListIndexError, NotATree, NotFound
from link_kv.tree import encode_name
from tests.model.layout import faults
from tests.model.nested import Nested
from tests.values import as_stored, leaf_places, plain_leaves, same

LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"
EXAMPLES, STEPS = (900, 25_000) if LONG else (20, 400)
"""So many runs, of up to 50 steps each, and how many steps they make at least, all told."""

NAMES = ("a", "b", "1", "2", "x/y", "", ".link", "%2F", "a-")

values = st.recursive(
    plain_leaves,
    lambda below: (
        st.dictionaries(st.sampled_from(NAMES), below, max_size=3)
        | st.lists(below, max_size=4)
        | st.lists(below, max_size=2).map(tuple)
    ),
    max_leaves=6,
)

turns = st.lists(st.integers(0, 9), min_size=1, max_size=4)
"""A way down: each number picks one of the children there are, or a place where nothing is yet."""

_runs = itertools.count()


class Beside(RuleBasedStateMachine):
    """The client and the dict, driven together."""

    def __init__(self, endpoints: list[str], prefix: str, counter: list[int]) -> None:
        super().__init__()
        self.client = EtcdMiddleware(endpoints=endpoints, prefix=f"{prefix}/{next(_runs)}", timeout=60)
        self.model = Nested()
        self.counter = counter
        self.past: list[tuple[int, Any]] = []

    def teardown(self) -> None:
        self.client.close()

    def where(self, way: Sequence[int]) -> list[str]:
        """The segments of the way, as far as it goes."""
        node: Any = self.model.root
        segments: list[str] = []
        for turn in way:
            if isinstance(node, dict):
                children = [*sorted(node), *NAMES]
                name = children[turn % len(children)]
                segments.append(encode_name(name))
                node = node.get(name)
            elif isinstance(node, list):
                place = turn % (len(node) + 2) + 1
                segments.append("a" if turn == 9 else str(place))
                node = node[place - 1] if place <= len(node) else None
            else:
                segments.append("a")
                if node is not None:
                    break
        return segments

    def both(self, mine: Callable[[], Any], theirs: Callable[[], Any]) -> None:
        """Do a step on both sides: the same result, or the same error."""
        self.counter[0] += 1
        try:
            expected = theirs()
        except LinkKVError as error:
            with pytest.raises(LinkKVError) as caught:
                mine()
            expected = type(error)
            result = type(caught.value)
        else:
            result = mine()
        assert result is expected or same(as_stored(result), expected), (result, expected)

    @rule(way=turns, value=values)
    def assign(self, way: list[int], value: Any) -> None:
        where = self.where(way)
        self.both(
            lambda: self.client.__setitem__(path(where), value),
            lambda: self.model.assign(where, value),
        )

    @rule(way=turns, value=values)
    def put(self, way: list[int], value: Any) -> None:
        where = self.where(way)
        revisions: list[int] = []
        self.both(
            lambda: revisions.append(self.client.put(path(where), value)),
            lambda: self.model.assign(where, value),
        )
        self.past += [(revision, copy.deepcopy(self.model.root)) for revision in revisions]

    @rule(turn=st.integers(0, 50))
    def look_back(self, turn: int) -> None:
        if self.past:
            self.counter[0] += 1
            revision, expected = self.past[turn % len(self.past)]
            assert same(self.client.snapshot(revision=revision), expected)
            assert same(dict(self.client.at(revision).items()), leaves_of(expected))

    @rule(way=turns)
    def delete(self, way: list[int]) -> None:
        where = self.where(way)
        self.both(lambda: self.client.__delitem__(path(where)), lambda: (self.model.delete(where), None)[1])

    @rule(way=turns)
    def pop(self, way: list[int]) -> None:
        where = self.where(way)
        self.both(lambda: self.client.pop(path(where)), lambda: self.model.delete(where))

    @rule(way=turns, item=values)
    def append(self, way: list[int], item: Any) -> None:
        where = self.where(way)
        self.both(lambda: self.client.append(path(where), item), lambda: path(self.model.append(where, item)))

    @rule(way=turns, value=values)
    def create(self, way: list[int], value: Any) -> None:
        where = self.where(way)

        def theirs() -> None:
            if self.model.has(where):
                raise KeyExists(path(where))
            self.model.assign(where, value)

        self.both(lambda: (self.client.create(path(where), value), None)[1], theirs)

    @rule(way=turns, value=values)
    def setdefault(self, way: list[int], value: Any) -> None:
        where = self.where(way)

        def theirs() -> Any:
            if not self.model.has(where):
                self.model.assign(where, value)
            return self.model.get(where)

        self.both(lambda: self.client.setdefault(path(where), value), theirs)

    @rule(steps=st.lists(st.tuples(turns, values), max_size=4))
    def update(self, steps: list[tuple[list[int], Any]]) -> None:
        pairs = [(self.where(way), value) for way, value in steps]
        self.counter[0] += 1
        try:
            self.client.update([(path(where), value) for where, value in pairs])
        except (NotATree, ListIndexError):
            with pytest.raises((NotATree, ListIndexError)):
                self.model.update(pairs)
        else:
            # The client folds first: a pair that a later one overwrites is never looked at.
            self.model.update(folded(pairs))

    @rule(way=turns, value=values)
    def put_at_its_revision(self, way: list[int], value: Any) -> None:
        where = self.where(way)
        if self.model.has(where):
            found = self.model.get(where)
            if not found or not isinstance(found, (dict, list)):
                revision = self.client.entry(path(where)).revision
                self.both(
                    lambda: (self.client.put(path(where), value, revision=revision), None)[1],
                    lambda: self.model.assign(where, value),
                )

    @rule()
    def popitem(self) -> None:
        self.counter[0] += 1
        expected = leaves_of(self.model.root)
        if not expected:
            with pytest.raises(NotFound):
                self.client.popitem()
            return
        found, value = self.client.popitem()
        assert same(value, expected[found])
        self.model.delete(found[1:].split("/"))

    @rule(
        way=turns,
        turn=st.integers(-3, 4),
        value=values,
        what=st.sampled_from(["set", "del", "insert", "pop"]),
    )
    def edit_a_list(self, way: list[int], turn: int, value: Any, what: str) -> None:
        where = self.where(way)
        if not self.model.has(where) or not isinstance(self.model.get(where), list):
            return
        self.counter[0] += 1
        live, plain = self.client.tree(path(where)), self.model.get(where)
        outcomes = []
        for items in (live, plain):
            try:
                if what == "set":
                    items[turn] = value if items is live else as_stored(value)
                elif what == "insert":
                    items.insert(turn, value if items is live else as_stored(value))
                elif what == "del":
                    del items[turn]
                else:
                    outcomes.append(items.pop(turn))
            except IndexError:
                outcomes.append(IndexError)
        assert len(outcomes) < 2 or outcomes[0] is outcomes[1] or same(*outcomes)
        assert len(live) == len(plain)

    @rule(way=turns)
    def read(self, way: list[int]) -> None:
        where = self.where(way)
        self.both(lambda: self.client[path(where)], lambda: self.model.get(where))
        assert (path(where) in self.client) == self.model.has(where)
        expected = self.model.get(where) if self.model.has(where) else "default"
        assert same(self.client.get(path(where), "default"), expected)

    @rule()
    def iterate(self) -> None:
        self.counter[0] += 1
        expected = leaves_of(self.model.root)
        items = list(self.client.items())
        assert same(dict(items), expected)
        assert list(self.client) == [found for found, _ in items] == list(self.client.keys())
        assert len(self.client) == len(items) == len(expected)
        assert bool(self.client) == bool(expected)

    @rule(way=turns)
    def walk(self, way: list[int]) -> None:
        where = self.where(way)
        if self.model.has(where):
            self.counter[0] += 1
            found = self.model.get(where)
            if isinstance(found, (dict, list)):
                view = self.client.tree(path(where))
                assert len(view) == len(found)
                assert bool(view) == bool(found)
                assert view == found
                assert set(view) == set(found) if isinstance(found, dict) else list(view) == found
            else:
                with pytest.raises(NotATree):
                    self.client.tree(path(where))

    @invariant()
    def both_hold_the_same(self) -> None:
        assert same(self.client["/"], self.model.root)
        assert faults(self.client.raw.items(), self.client.prefix.encode()) == []


def path(where: Sequence[str]) -> str:
    return "/" + "/".join(where)


def folded(pairs: list[tuple[list[str], Any]]) -> list[tuple[list[str], Any]]:
    """The pairs that no later one overwrites."""
    return [
        (where, value)
        for number, (where, value) in enumerate(pairs)
        if not any(where[: len(later)] == later for later, _ in pairs[number + 1 :])
    ]


def leaves_of(value: Any) -> dict[str, Any]:
    if not value:
        return {}
    return {
        path([str(s) if isinstance(s, int) else encode_name(s) for s in where]): leaf
        for where, leaf in leaf_places(value)
    }


def test_a_client_holds_what_a_nested_dict_would(etcd: Any, etcd_prefix: str) -> None:
    steps = [0]
    run_state_machine_as_test(
        lambda: Beside(etcd.endpoints, etcd_prefix, steps),
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert steps[0] >= STEPS
