"""``link-kv lock``: lockout."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ._connect import connected
from ._endpoints import endpoint_argument, endpoints, reply_option

if TYPE_CHECKING:
    from link_kv import EtcdMiddleware


@click.command("lock")
@endpoint_argument()
@click.option("--lockout-key", metavar="KEY", help="A key of your own, rather than a new one.")
@reply_option
@connected
def command(client: EtcdMiddleware, target: str, lockout_key: str | None, reply_timeout: float) -> None:
    """Let an endpoint, or all of a provider, accept changes only with a key, which is written.

    It ends with `unlock`, or when nobody has shown the key for an hour, unless the endpoint says otherwise.
    Keys in arguments show in ps.
    """
    with endpoints(client) as all_endpoints:
        click.echo(all_endpoints.lock(target, lockout_key or False, timeout=reply_timeout))
