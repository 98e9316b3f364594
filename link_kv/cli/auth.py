"""``link-kv auth``: whether etcd asks who one is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from link_kv._core.cluster import auth
from link_kv._core.wire.calls import run

from ._connect import connected
from ._group import Group
from ._show import json_option

if TYPE_CHECKING:
    from link_kv import EtcdMiddleware


@click.group("auth", cls=Group)
def command() -> None:
    """Turn etcd's authentication on and off. While it is off, everybody may do everything."""


@command.command("enable")
@connected
def enable(client: EtcdMiddleware) -> None:
    """Turn it on. The user root must be there, and has the role root from then on."""
    run(auth.enable(client._exchange()))
    click.echo("authentication is on")


@command.command("disable")
@connected
def disable(client: EtcdMiddleware) -> None:
    """Turn it off. Users and roles stay."""
    run(auth.disable(client._exchange()))
    click.echo("authentication is off")


@command.command("status")
@json_option
@connected
def status(client: EtcdMiddleware, as_json: bool) -> None:
    """Say whether it is on. Needs no login."""
    on = run(auth.is_enabled(client._exchange()))
    if as_json:
        from ._documents import dumps

        click.echo(dumps({"enabled": on}))
        return
    click.echo(f"authentication is {'on' if on else 'off'}")
