"""``link-kv watch``: changes, as they happen."""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from link_kv.codec import encode
from link_kv.errors import LinkKVError
from link_kv.tree import MISSING

from ._connect import connected, path_argument, resolve_path
from ._items import chosen, formatted_option, in_units, is_path, text_of, time_of, units_option
from ._show import json_option, plain, preview, terminal

if TYPE_CHECKING:
    from link_kv import Change, EtcdMiddleware, Item, Subscription

_AHEAD = 1000
"""How many lines may wait for a terminal that does not take them; beyond that, changes wait in etcd."""


class _Line(NamedTuple):
    """A change, ready to be shown."""

    timestamp: float
    name: str
    text: str | None
    """None when it is gone."""
    inferred: bool
    about: dict[str, Any]


class _Turn(NamedTuple):
    """That something is followed, or is not."""

    watch: int
    state: str


_Queue = queue.Queue[_Line | _Turn]


@click.command("watch")
@path_argument("names", nargs=-1, required=True, metavar="PATH|ITEM…")
@formatted_option
@units_option
@json_option
@connected
def command(
    client: EtcdMiddleware, names: Sequence[str], formatted: bool, units: str | None, as_json: bool
) -> None:
    """Show what changes at or below paths, or in items, until Ctrl-C. Of items the present values come first.

    A line has the time, a sign, the name and the value, with tabs between. The sign is = for a value, - when
    it is gone, and ~ when that was inferred because history was missing. Standard error tells when changes do
    not come, and when they do again.
    """
    # What the log would say of the connection is said here, once.
    logging.getLogger("link_kv").addHandler(logging.NullHandler())
    heard: _Queue = queue.Queue(_AHEAD)
    watches: list[Subscription] = []
    try:
        for name in names:
            if is_path(name):
                watches.append(_watch_path(client, resolve_path(name), heard, len(watches)))
                continue
            for item in chosen(client, [name]):
                watches.append(_watch_item(item, formatted, units, heard, len(watches)))
        _follow(watches, heard, as_json)
    except KeyboardInterrupt:
        pass  # that is how it ends
    finally:
        for watch in watches:
            watch.close()


def _follow(watches: Sequence[Subscription], heard: _Queue, as_json: bool) -> None:
    stale: set[int] = set()
    gaps = 0
    while True:
        told = heard.get()
        if isinstance(told, _Line):
            _show(told, as_json)
        elif told.state == "lost":
            raise watches[told.watch]._error or LinkKVError("nothing is followed any more")
        elif told.state == "stale":
            if not stale:
                _say("changes do not come at the moment; what is missed is shown later")
            stale.add(told.watch)
        else:
            stale.discard(told.watch)
            missing = sum(watch.stats.gaps for watch in watches) - gaps
            if not stale:
                gaps += missing
                _say(
                    "changes come again" + ("; history is gone, ~ marks what was inferred" if missing else "")
                )


def _say(text: str) -> None:
    click.echo(f"link-kv: {time_of(time.time())} {text}", err=True)


def _watch_path(client: EtcdMiddleware, path: str, heard: _Queue, number: int) -> Subscription:
    def hear(change: Change) -> None:
        about: dict[str, Any] = {"path": change.path, "revision": change.revision}
        text = None
        if change.value is not MISSING:
            about["value"] = value = change.value
            text = str(value) if isinstance(value, (dict, list)) else preview(encode(value))[0]
        heard.put(_Line(time.time(), change.path, text, change.synthetic, about))

    return client.subscribe(path, hear, on_state=_turns(heard, number))


def _watch_item(item: Item, formatted: bool, units: str | None, heard: _Queue, number: int) -> Subscription:
    from link_kv.items import Registration

    class Watching(Registration):
        def _tell(self, change: Change) -> None:
            now = change.value
            about = {"item": item.full_key, "revision": now.revision, "timestamp": now.timestamp}
            text = None
            if now.value is not MISSING:
                text = text_of(item, now.value, formatted, units)
                about |= {"value": in_units(item, now.value, units), "writer": now.writer}
            heard.put(_Line(now.timestamp, item.full_key, text, change.synthetic, about))

    return Watching(item, print, prime=True, on_state=_turns(heard, number))


def _turns(heard: _Queue, number: int) -> Callable[[str], None]:
    return lambda state: heard.put(_Turn(number, state))


def _show(line: _Line, as_json: bool) -> None:
    if as_json:
        from ._documents import dumps

        click.echo(dumps({**line.about, "inferred": line.inferred}))
        return
    sign = "~" if line.inferred else "=" if line.text is not None else "-"
    cells = [time_of(line.timestamp), sign, plain(line.name)]
    if line.text is not None:
        cells.append(line.text)
    if terminal():
        colours = ("bright_black", "yellow", "cyan", None)
        cells = [click.style(cell, fg=colour) for cell, colour in zip(cells, colours, strict=False)]
        click.echo("  ".join(cells))
    else:
        click.echo("\t".join(cells))
