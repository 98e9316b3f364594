"""Feeds whose watch is open again after a disconnect, and that have not got yet what they missed.

etcd opens a watch before it sends what was missed, up to a tenth of a second later. Until then a feed is not
live. That it has all is known when it has got as far as etcd was when the watch was opened: by a change, or
by etcd's word, or because etcd has just the keys that it has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from link_kv._core.watching.asker import read_range
from link_kv._core.watching.watch_machine import Phase
from link_kv.errors import LinkKVError

if TYPE_CHECKING:
    from link_kv._core.watching.watcher import Feed, Hub

_LOOK_EVERY = 8
"""Of so many questions how far etcd is, one is asked by looking: another watch may keep it from answering."""


def look(hub: Hub, feed: Feed, seconds: float) -> None:
    """Read the keys of a feed, and if they are those that it has, take note that it is not behind."""
    revision, pairs = read_range(hub._space, feed.at, keys_only=True, seconds=seconds)
    mods = {key: mod for key, _, mod in pairs if feed.replica.covers(key)}
    with hub.changed:
        follows = feed.phase is Phase.FOLLOWING
        if follows and mods == {key: held.revision for key, held in feed.replica.all()}:
            feed.compared = revision


class CatchUp:
    """The feeds of a hub that catch up. All but `poll` with the hub's lock held."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._behind: dict[Feed, int] = {}
        self._turn = 0

    def __bool__(self) -> bool:
        return bool(self._behind)

    def add(self, feed: Feed, revision: int) -> None:
        """A feed has to get as far as a revision."""
        self._behind[feed] = revision

    def drop(self, feed: Feed) -> None:
        self._behind.pop(feed, None)

    def arrived(self) -> list[Feed]:
        """Those that have got all since this was asked last."""
        there = [feed for feed, revision in self._behind.items() if feed.revision >= revision]
        for feed in there:
            del self._behind[feed]
        return there

    def poll(self) -> None:
        """Find out how far they are. Blocks."""
        with self._hub.changed:
            behind = list(self._behind)
            self._turn += 1
        if self._hub.ask_progress() and self._turn % _LOOK_EVERY:
            return
        for feed in behind:
            try:
                look(self._hub, feed, self._hub._space.caller.config.timeout)
            except LinkKVError:
                return  # the stream goes as well, or they are asked about again
