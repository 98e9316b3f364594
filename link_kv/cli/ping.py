"""``link-kv ping``: whether an endpoint answers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from ._connect import connected
from ._endpoints import endpoint_argument, endpoints, reply_option
from ._show import plain

if TYPE_CHECKING:
    from link_kv import EtcdMiddleware


@click.command("ping")
@endpoint_argument()
@reply_option
@connected
def command(client: EtcdMiddleware, target: str, reply_timeout: float) -> None:
    """Say how long an endpoint, or a provider, takes to answer."""
    with endpoints(client) as all_endpoints:
        all_endpoints.ping(target, timeout=reply_timeout)  # once for linking
        begun = time.monotonic()
        all_endpoints.ping(target, timeout=reply_timeout)
        click.echo(f"{plain(target)} answers in {(time.monotonic() - begun) * 1000:.1f} ms")
