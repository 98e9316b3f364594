"""A configuration's keys as they are taken from a watch, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from link_kv._core.watching.replica import Held, Replica
from link_kv.tree import Place


class Tree(NamedTuple):
    """All keys of a configuration, as they are at one revision."""

    at: Place
    revision: int
    """The last one that is known to have changed something here."""
    seen: int
    """That, or the one at which it was read."""
    held: dict[bytes, Held]

    @property
    def content(self) -> dict[bytes, bytes]:
        """What matters: housekeeping other than the order of categories does not."""
        order = self.at.marker + b".link/categories"
        return {key: held.value for key, held in self.held.items() if held.path is not None or key == order}


class Invalid(Exception):
    """A configuration cannot be put in force."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        super().__init__(problems)
        self.problems = problems
        """By their paths in etcd."""


def tree_of(replica: Replica) -> Tree:
    """What a replica holds now. Called while it does not change."""
    held, revision = dict(replica.all()), replica.revision
    if held and not replica.events:
        # It was read, and that may be long after the last change. All who have the same in force should say
        # the
        # same, so they count by the newest key.
        revision = max(each.revision for each in held.values())
    return Tree(replica.at, revision, replica.revision, held)


def revision_of(trees: Sequence[Tree]) -> int:
    """The last revision that is known to have changed something in any."""
    return max(tree.revision for tree in trees)


def seen_of(trees: Sequence[Tree]) -> int:
    """The newest revision that has been looked at."""
    return max(tree.seen for tree in trees)


def stamp(trees: Sequence[Tree], path: str, reason: str) -> object:
    """What tells one bad value from the next at the same path: the revision of its write."""
    for tree in trees:
        held = tree.held.get(tree.at.prefix + path.encode())
        if held is not None:
            return held.revision
    return reason


def summary(problems: Mapping[str, str], trees: Sequence[Tree]) -> str:
    """Problems by their names in the configuration, for operators."""
    told = []
    for path, reason in problems.items():
        name = path
        for tree in trees:
            if path.startswith(tree.at.path + "/"):
                name = path[len(tree.at.path) + 1 :]
        told.append(reason if any(path == tree.at.path for tree in trees) else f"{name}: {reason}")
    return "; ".join(told)
