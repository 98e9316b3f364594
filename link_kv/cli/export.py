"""``link-kv export``: a tree as a document."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ._connect import connected, path_argument, resolve_path
from ._documents import format_option, write
from ._show import harmless, progress, terminal
from .get import revision_option

if TYPE_CHECKING:
    from link_kv import EtcdMiddleware


@click.command("export")
@path_argument()
@format_option
@revision_option
@connected
def command(client: EtcdMiddleware, path: str, form: str | None, revision: int | None) -> None:
    """Write the tree at PATH as JSON, YAML or TOML, for import."""
    with progress("reading"):
        value = client.snapshot(resolve_path(path), revision=revision)
        text = write(value, form or "json")
    click.echo(harmless(text) if terminal() else text.encode(), nl=False)
