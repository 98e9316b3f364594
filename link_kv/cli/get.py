"""``link-kv get``: a value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from link_kv.codec import encode

from ._connect import connected, path_argument, resolve_path
from ._show import harmless, json_option, preview, progress, terminal

if TYPE_CHECKING:
    from link_kv import EtcdMiddleware

revision_option = click.option(
    "--revision", type=int, metavar="R", help="As it was at this revision, while etcd remembers it."
)


@click.command("get")
@path_argument()
@revision_option
@json_option
@connected
def command(client: EtcdMiddleware, path: str, revision: int | None, as_json: bool) -> None:
    """Write the value at PATH; of a tree, as JSON.

    Into a pipe text goes with a newline at its end, bytes exactly as they are, and an array as an .npy file.
    """
    from ._documents import dumps

    with progress("reading"):
        value = client.snapshot(resolve_path(path), revision=revision)
    if as_json or isinstance(value, (dict, list)):
        click.echo(dumps(value, None if as_json else 2))
    else:
        _write(value)


def _write(value: Any) -> None:
    stored = encode(value)
    if terminal():
        text, described = preview(stored)
        click.echo(f"<{text}>" if described else harmless(stored.decode()))
    elif value is None or isinstance(value, (str, int, float)):
        click.echo(stored)  # as bytes: click takes colours out of text
    else:
        click.echo(value if isinstance(value, bytes) else stored, nl=False)
