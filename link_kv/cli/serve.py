"""``link-kv serve``: endpoints from a configuration file."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

import click

from ._connect import configure
from ._serving import log_to_stderr, ttl_option, verbose_option, where_options
from ._show import plain

_SWITCH = 0.0005
"""Seconds for which one thread may keep the others waiting."""


@click.command("serve")
@click.option(
    "-c",
    "--config",
    "file",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The configuration file, YAML.",
)
@click.option("--node", metavar="NAME", help="What addresses may begin with: NAME.provider.endpoint")
@where_options
@click.option("--no-tls", is_flag=True, help="Let others than this machine connect without TLS.")
@ttl_option
@verbose_option
@click.pass_context
def command(
    context: click.Context,
    file: Path,
    node: str | None,
    listen: str | None,
    advertise: str | None,
    serve_cert: str | None,
    serve_key: str | None,
    no_tls: bool,
    ttl: float,
    verbose: bool,
) -> None:
    """Serve the endpoints of a configuration file, until Ctrl-C.

    A provider is a service, and its endpoints are the items of a store of its name. Says a line for each
    provider once it is served. A mistake in the file stops the start, with its line and column.
    """
    from link_kv.endpoints import load
    from link_kv.services import until_over

    log_to_stderr(verbose)
    # Ticks come on time though another thread is busy: by default that one may go on for 5 ms.
    sys.setswitchinterval(_SWITCH)
    providers = load(file, node)
    where = configure(context.find_root().params)
    options: dict[str, Any] = {
        "listen": listen,
        "advertise": advertise,
        "cert_cert": serve_cert,
        "cert_key": serve_key,
        "disable_tls": no_tls or None,
        "ttl": ttl,
    }
    given = {name: value for name, value in options.items() if value is not None}
    with contextlib.suppress(KeyboardInterrupt), contextlib.ExitStack() as stack:
        for provider in providers:
            provider._kv_where = where
            stack.callback(provider.stop)
            provider.start_in_thread(**given)
            names = ", ".join(plain(name) for name in provider.endpoint_names) or "nothing"
            click.echo(f"{plain(provider.name)} serves {names} at {provider.address}")
        for provider in providers:
            until_over(provider)
