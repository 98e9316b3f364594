"""``link-kv describe``: what items say of themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from ._connect import connected, path_argument
from ._items import chosen, is_one
from ._show import console, json_list, json_option, lines, plain, terminal

if TYPE_CHECKING:
    from link_kv import EtcdMiddleware, Item


@click.command("describe")
@path_argument("names", nargs=-1, required=True, metavar="ITEM…")
@json_option
@connected
def command(client: EtcdMiddleware, names: Sequence[str], as_json: bool) -> None:
    """Show the descriptions of items: store.key, a store, or a glob. Works offline after `discover`.

    A line has the item, the keyword and what it says, with tabs between.
    """
    from ._documents import dumps

    items = chosen(client, names)
    if as_json:
        objects = [
            {"item": item.full_key, "path": item.path, "description": item.description.plain()}
            for item in items
        ]
        if is_one(names):
            click.echo(dumps(objects[0]))
        else:
            json_list(objects)
    elif terminal():
        for item in items:
            _show(item)
    else:
        lines(
            f"{plain(item.full_key)}\t{keyword}\t{_text(value)}"
            for item in items
            for keyword, value in item.description.plain().items()
        )


def _text(value: Any) -> str:
    from ._documents import dumps

    return plain(value) if isinstance(value, str) else dumps(value)


def _show(item: Item) -> None:
    from rich.table import Table
    from rich.text import Text

    state = "" if item.state == "live" else f"  {item.state}"
    console().print(
        Text.assemble((plain(item.full_key), "bold cyan"), f"  {plain(item.path)}", (state, "yellow"))
    )
    table = Table(box=None, show_header=False, padding=(0, 1))
    for keyword, value in item.description.plain().items():
        table.add_row(Text(f"  {keyword}", "dim"), Text(_text(value)))
    if len(item.description):
        console().print(table)
