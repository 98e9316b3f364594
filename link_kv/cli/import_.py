"""``link-kv import``: a tree from a document."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from link_kv.errors import PathError
from link_kv.tree import MISSING

from ._connect import connected, path_argument, resolve_path
from ._differences import differences, flat, show
from ._documents import format_option, load
from ._show import can_ask, confirm, plain, progress

if TYPE_CHECKING:
    from link_kv import EtcdMiddleware


@click.command("import")
@click.argument("file", type=click.Path())
@path_argument()
@format_option
@click.option("-n", "--dry-run", is_flag=True, help="Show what would change, and change nothing.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@connected
def command(client: EtcdMiddleware, file: str, path: str, form: str | None, dry_run: bool, yes: bool) -> None:
    """Replace the tree at PATH by what is in FILE, in one transaction; - is standard input.

    First shows what changes: - what goes, + what comes. On a terminal it then asks.
    """
    path = client._space.place(resolve_path(path)).path
    if path == "/":
        raise PathError("/: the root cannot be replaced; name a path below it, or use restore")
    value = load(file, form)
    new = flat(value, path)
    with progress("reading"):
        old = client.get(path, MISSING)
        found = differences(flat(old, path), new)
    show(found)
    if dry_run:
        return
    if not found:
        click.echo("nothing changes")
        return
    if not yes and can_ask():
        added = sum(each.old is None for each in found)
        deleted = sum(each.new is None for each in found)
        changed = len(found) - added - deleted
        question = f"{added} added, {changed} changed, {deleted} deleted. Write to {plain(path)}?"
        confirm(question, "nothing was changed")
    with progress("writing"):
        revision = client.put(path, value)
    click.echo(f"revision {revision}")
