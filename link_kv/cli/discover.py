"""``link-kv discover``: ask clusters for their stores, and remember them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from ._connect import connected
from ._show import console, json_option, lines, plain, terminal

if TYPE_CHECKING:
    from link_kv import EtcdMiddleware


@click.command("discover")
@click.argument("addresses", nargs=-1, metavar="HOST[:PORT]…")
@json_option
@connected
def command(client: EtcdMiddleware, addresses: Sequence[str], as_json: bool) -> None:
    """Ask the etcd at an address for its stores, and remember it: from then on they are found by name.

    Without an address, ask the one that is configured and all that are remembered. A line has the address and
    the name of a store, with a tab between.
    """
    from link_kv.items import discover_as

    from ._documents import dumps

    found = discover_as(client, addresses)
    if as_json:
        click.echo(dumps(found))
    elif terminal():
        from rich.text import Text

        for address, names in found.items():
            console().print(
                Text.assemble((plain(address), "bold"), f"  {', '.join(map(plain, names)) or 'no stores'}")
            )
    else:
        lines(f"{address}\t{plain(name)}" for address, names in found.items() for name in names)
