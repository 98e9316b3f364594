"""``link-kv unlock``: the end of a lockout."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ._connect import connected
from ._endpoints import endpoint_argument, endpoints, lockout_option, reply_option

if TYPE_CHECKING:
    from link_kv import EtcdMiddleware


@click.command("unlock")
@endpoint_argument()
@lockout_option
@click.option("--force", is_flag=True, help="Without the key.")
@reply_option
@connected
def command(
    client: EtcdMiddleware, target: str, lockout_key: str | None, force: bool, reply_timeout: float
) -> None:
    """Let an endpoint, or all of a provider, accept changes from everybody again."""
    with endpoints(client) as all_endpoints:
        all_endpoints.unlock(target, lockout_key or False, force, timeout=reply_timeout)
