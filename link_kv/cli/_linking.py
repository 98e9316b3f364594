"""From the options of the command line to a client of services."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ._connect import configure

if TYPE_CHECKING:
    from link_kv import Client
    from link_kv._core.links.config import LinkConfig

no_tls_option = click.option("--no-tls", is_flag=True, help="Without TLS also beyond this machine.")


def link_options(context: click.Context, no_tls: bool) -> LinkConfig:
    """How to speak with services, and as one."""
    from link_kv._core.links.config import LinkConfig, secured

    options = LinkConfig(configure(context.find_root().params), disable_tls=no_tls)
    return options if no_tls else secured(options)


def connect(context: click.Context, no_tls: bool) -> Client:
    """A client of services, called ``link-kv``."""
    from link_kv import Client

    client = Client("link-kv")
    client._open(link_options(context, no_tls))
    return client
