"""``link-kv identities``: which services and clients there are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from ._connect import connected
from ._show import harmless, json_option, lines, plain, terminal

if TYPE_CHECKING:
    from link_kv import EtcdMiddleware


@click.command("identities")
@json_option
@connected
def command(client: EtcdMiddleware, as_json: bool) -> None:
    """List the services, with what can be called, and the clients that are connected.

    In a pipe a line has what it is, its name, its address, and its language, with tabs between.
    """
    from link_kv._core.links import registry
    from link_kv._core.links.identities import address_of, as_text, describe
    from link_kv._core.wire.calls import run

    from ._documents import dumps

    services, clients = run(registry.everybody(client._exchange()))
    found = describe(*address_of(client._config), services, clients)
    if as_json:
        click.echo(dumps(found))
    elif terminal():
        click.echo(harmless(as_text(found, 2)))
    else:
        lines(_rows(found))


def _rows(found: dict[str, Any]) -> Iterator[str]:
    for name, service in sorted(found["services"].items()):
        yield "\t".join(map(plain, ("service", name, service["address"], service["language"])))
    for each in sorted(found["clients"].values(), key=lambda each: (each["name"], each["address"])):
        yield "\t".join(map(plain, ("client", each["name"], each["address"], each["language"])))
