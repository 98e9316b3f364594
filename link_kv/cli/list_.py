"""``link-kv list``: stores, and the items of stores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from ._connect import connected, path_argument
from ._items import chosen, store_names
from ._show import console, json_list, json_option, lines, plain, terminal

if TYPE_CHECKING:
    from link_kv import EtcdMiddleware, Item


@click.command("list")
@path_argument("names", nargs=-1, metavar="STORE…")
@json_option
@connected
def command(client: EtcdMiddleware, names: Sequence[str], as_json: bool) -> None:
    """List the stores; or the items of some, with their type, whether they are read and written, and units.

    A line has these, with tabs between; - for what is not said.
    """
    if not names:
        found = store_names(client)
        if as_json:
            json_list(found)
        else:
            lines(plain(name) for name in found)
        return
    items = chosen(client, names)
    if as_json:
        json_list(
            {"item": item.full_key, **dict(zip(_COLUMNS[1:], _cells(item)[1:], strict=True))}
            for item in items
        )
    elif terminal():
        _table(items)
    else:
        lines("\t".join(_cells(item)) for item in items)


_COLUMNS = ("item", "type", "access", "units", "description")


def _cells(item: Item) -> tuple[str, ...]:
    said = item.description
    access = ("r" if said.gettable else "-") + ("w" if said.settable else "-")
    units = said.units if isinstance(said.units, str) else (said.units or {}).get("")
    return (
        plain(item.full_key),
        said.type or "-",
        access,
        plain(units or "-"),
        plain(said.description or "-"),
    )


def _table(items: Sequence[Item]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="dim", pad_edge=False)
    for column in _COLUMNS:
        table.add_column(column.capitalize())
    for item in items:
        name, *rest = _cells(item)
        table.add_row(Text(name, "cyan"), *map(Text, rest))
    console().print(table)
