"""A configuration in etcd: ``/path/CATEGORY/param``, each parameter a text.

Categories have an order, which decides what overrides what, and etcd sorts keys. So the names are kept in
order, as a JSON list, at ``/path/.link/categories``. Those that it does not name come after, sorted.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from link_kv import plan as plans
from link_kv._core.configuration.text import from_stored, text_of, to_stored
from link_kv._core.wire.exchange import Exchange
from link_kv.errors import EncodeError, NotATree, PathError
from link_kv.plan import Delete, Get, Operation, Plan, Put
from link_kv.tree import EMPTY_DICT, LIST, MISSING, Place, build, decode_name, encode_name, nameable

Texts = Mapping[str, Mapping[str, "str | None"]]
"""What to write, by category and parameter; None deletes."""


class Stored(NamedTuple):
    """A configuration as it was read."""

    categories: dict[str, dict[str, str]]
    """Texts by category and parameter, the categories in their order."""
    problems: dict[str, str]
    """Paths where something is that is no part of a configuration, and what it is."""
    revision: int


class _Found(NamedTuple):
    """The keys of a configuration, by segments."""

    categories: dict[str, dict[str, list[tuple[bytes, bytes]]]]
    lists: set[str]
    """Categories that are lists."""
    leaves: list[str]
    """Values that stand where categories should be."""


def place_of(ex: Exchange, path: str) -> Place:
    at = ex.place(path)
    if not at.segments:
        raise PathError(f"{path!r}: a configuration has a path, such as 'myproject/my.conf'")
    return at


def order_key(at: Place) -> bytes:
    return at.marker + b".link/categories"


# Reading


async def read(ex: Exchange, path: str) -> Stored:
    """What is at a path, all of one revision; no categories when nothing is there."""
    at = place_of(ex, path)
    revision, (leaf, first, second, order) = await ex.read([*plans.reads(at), Get(order_key(at))])
    return make_out(at, revision, (*first, *second), order[0].value if order else None, bool(leaf))


def make_out(at: Place, revision: int, kvs: Iterable[Any], order: bytes | None, leaf: bool) -> Stored:
    """The configuration that keys make, given in the order of their bytes.

    ``order`` is what is stored of the order of categories; ``leaf`` tells whether a value is at the path.
    """
    found = _sort_out(kvs, at)
    problems = {at.child(segment).path: "a value, and no category" for segment in found.leaves}
    problems |= {at.child(segment).path: "a list, and no category" for segment in found.lists}
    if leaf:
        problems[at.path] = "a value, and no configuration"
    categories: dict[str, dict[str, str]] = {}
    for segment, parameters in found.categories.items():
        if segment in found.lists:
            continue
        texts = categories.setdefault(decode_name(segment), {})
        category = at.child(segment)
        for name, pairs in parameters.items():
            try:
                text = _text(pairs, category, name)
            except EncodeError as error:
                problems[f"{category.path}/{name}"] = str(error)
            else:
                if text is not None:
                    texts[decode_name(name)] = text
    names = in_order(categories, stored_order(order))
    return Stored({name: categories[name] for name in names}, problems, revision)


def _sort_out(kvs: Iterable[Any], at: Place) -> _Found:
    found = _Found({}, set(), [])
    for kv in kvs:
        try:
            relative = str(kv.key[len(at.marker) :], "utf-8")
        except UnicodeDecodeError:
            continue
        if not nameable(relative.removesuffix("/")):
            continue  # the marker of the configuration itself is one of them
        segment, slash, rest = relative.partition("/")
        if not slash:
            found.leaves.append(segment)
        elif rest:
            name = rest.partition("/")[0]
            found.categories.setdefault(segment, {}).setdefault(name, []).append((kv.key, kv.value))
        elif kv.value == LIST:
            found.lists.add(segment)
        elif kv.value == EMPTY_DICT:
            found.categories.setdefault(segment, {})
    return found


def _text(pairs: Sequence[tuple[bytes, bytes]], category: Place, name: str) -> str | None:
    """The text of a parameter's keys: a leaf, or a list or dict as a person would type it."""
    key, stored = pairs[0]
    if len(key) - len(category.marker) != len(name.encode()):
        at = category.child(name)
        value = build(pairs, at)
        return None if value is MISSING else text_of(value, None, at.path)
    text = from_stored(stored)
    if text is None:
        raise EncodeError(f"{category.path}/{name}: the stored bytes are no text")
    return text


def in_order(present: Iterable[str], stored: Iterable[str]) -> list[str]:
    """The categories that are there, those first whose order is stored."""
    remaining = dict.fromkeys(present)
    names = [name for name in stored if name in remaining]
    return list(dict.fromkeys([*names, *remaining]))


def stored_order(order: bytes | None) -> list[str]:
    """The categories in their stored order."""
    try:
        names = json.loads(order) if order else []
    except (ValueError, RecursionError):
        return []  # somebody else's: nothing is known of the order
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


# Writing


async def write(ex: Exchange, path: str, texts: Texts) -> int:
    """Merge texts into what is at a path, in one transaction; the revision, 0 when nothing had to change.

    Keys that `texts` does not name stay. A category that ends without parameters is there as ``{}``. Made
    anew when anything was written at the path meanwhile. Raises `NotATree` where a value is in the way, and
    `ListIndexError` where a list is.
    """
    at = place_of(ex, path)
    puts: dict[Place, bytes] = {}
    gone: dict[bytes, Place] = {}
    named: dict[Place, bool] = {}  # the categories, and whether something is put there
    for category, parameters in texts.items():
        tree = at.child(encode_name(category, at.path))
        named[tree] = False
        for name, text in parameters.items():
            parameter = tree.child(encode_name(name, tree.path))
            if text is None:
                gone[parameter.key] = parameter
            else:
                puts[parameter] = to_stored(text, parameter.path)
                named[tree] = True
    places = [*puts, *named]
    guards = plans.guard_reads(places)
    while True:
        revision, found = await ex.read([*guards, Get(at.marker, at.end)])
        guard = plans.resolve(places, found[: len(guards)], revision)
        assert guard is not None  # the items of lists were read
        stored = {kv.key: kv.value for kv in found[-1]}
        operations = _changes(puts, gone.values(), stored)
        for tree, filled in named.items():
            if tree.key in stored:
                raise NotATree(f"{tree.path}: holds a value, so it cannot be a category")
            if not (filled or stored.get(tree.marker) == EMPTY_DICT or _keeps_some(tree, gone, stored)):
                operations.append(Put(tree.marker, EMPTY_DICT))
        operations += _new_order(at, texts, found[-1])
        if not operations:
            return 0
        # It may be sent again if it moves a key that was there: that never comes back.
        written = {op.key for op in operations if isinstance(op, (Put, Delete))}
        moved = [plans.unmoved(kv.key, kv.mod_revision) for kv in found[-1] if kv.key in written][:1]
        compares = (*guard.compares, *moved, plans.quiet(at.marker, at.end, revision))
        plan = Plan(compares, [*operations, *guard.operations], guarded=bool(moved))
        outcome = await ex.commit(plan, at.path)
        if outcome.succeeded:
            return outcome.revision


def _changes(
    puts: Mapping[Place, bytes], gone: Iterable[Place], stored: Mapping[bytes, bytes]
) -> list[Operation]:
    keys = sorted(stored)

    def tree_at(place: Place) -> list[Operation]:
        below = bisect_left(keys, place.marker) < bisect_left(keys, place.end)
        return [Delete(place.marker, place.end)] if below else []

    operations: list[Operation] = []
    for place, text in puts.items():
        if stored.get(place.key) != text:
            operations.append(Put(place.key, text))
        operations += tree_at(place)
    for place in gone:
        if place.key in stored:
            operations.append(Delete(place.key))
        operations += tree_at(place)
    return operations


def _keeps_some(tree: Place, gone: Iterable[bytes], stored: Iterable[bytes]) -> bool:
    """Whether a category has parameters other than those that go."""
    names = {key[len(tree.marker) :].partition(b"/")[0] for key in stored if key.startswith(tree.marker)}
    return bool(names - {key[len(tree.marker) :] for key in gone} - {b"", b".link"})


def _new_order(at: Place, texts: Iterable[str], below: Sequence[Any]) -> list[Operation]:
    """New categories come last, as in a file. An order that the keys have anyway is not stored."""
    order = stored_order(next((kv.value for kv in below if kv.key == order_key(at)), None))
    present = [decode_name(segment) for segment in _sort_out(below, at).categories]
    names = list(dict.fromkeys([*in_order(present, order), *texts]))
    if names == (order or sorted(names, key=lambda name: encode_name(name).encode())):
        return []
    return [Put(order_key(at), json.dumps(names, ensure_ascii=False).encode())]
