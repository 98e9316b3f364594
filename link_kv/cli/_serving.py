"""Options that the commands which serve have in common, and what they say on standard error."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import click

F = TypeVar("F", bound=Callable[..., None])

_WHERE = (
    click.option(
        "--listen", metavar="HOST[:PORT]", help="Where; by default a free port for this machine alone."
    ),
    click.option("--advertise", metavar="HOST:PORT", help="The address that clients are told."),
    click.option("--serve-cert", metavar="FILE", help="The certificate to serve with; by default --cert."),
    click.option("--serve-key", metavar="FILE", help="Its key."),
)

ttl_option = click.option(
    "--ttl", type=float, default=10, show_default=True, help="Seconds until a dead one is forgotten."
)
verbose_option = click.option("-v", "--verbose", is_flag=True, help="Log more, on standard error.")


def where_options(function: F) -> F:
    """Where to listen, what to tell clients, and the certificate to serve with."""
    for option in reversed(_WHERE):
        function = option(function)
    return function


def log_to_stderr(verbose: bool) -> None:
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING, format="%(asctime)s %(levelname)s %(message)s"
    )
