"""``link-kv del``: delete values and trees."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from link_kv.errors import NotFound

from ._connect import connected, path_argument, resolve_path
from ._show import can_ask, confirm, json_list, json_option, keys, progress

if TYPE_CHECKING:
    from link_kv import EtcdMiddleware


@click.command("del")
@path_argument("paths", metavar="PATH…", nargs=-1, required=True)
@click.option("-r", "--recursive", is_flag=True, help="Delete trees without asking.")
@json_option
@connected
def command(client: EtcdMiddleware, paths: tuple[str, ...], recursive: bool, as_json: bool) -> None:
    """Delete what is at each PATH. Tells the revision of each delete.

    Nothing is deleted when one of them is not there. A tree needs --recursive, or a yes on a terminal.
    """
    paths = tuple(map(resolve_path, paths))
    for path in paths:
        if path not in client:
            raise NotFound(f"{path}: nothing is there")
    if not recursive:
        _check(client, paths)
    revisions = []
    with progress("deleting"):
        for path in paths:
            revisions.append(client.delete(path))
    if as_json:
        json_list(
            {"path": path, "revision": revision} for path, revision in zip(paths, revisions, strict=True)
        )
        return
    for revision in revisions:
        click.echo(f"revision {revision}")


def _check(client: EtcdMiddleware, paths: tuple[str, ...]) -> None:
    """Ask, or refuse, where a path is a tree."""
    from link_kv._core.operations.walk import counts
    from link_kv._core.wire.calls import run

    numbers = run(counts(client._exchange(), paths))
    for path, number in zip(paths, numbers, strict=True):
        what = f"{path}: is a tree of {keys(number)}"
        if number and not can_ask():
            raise click.ClickException(f"{what}; --recursive deletes it")
        if number:
            confirm(f"{what}. Delete it?", "nothing was deleted")
