"""``link-kv role``: etcd's roles, and what they may do below which paths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from link_kv._core.cluster import auth
from link_kv._core.wire.calls import run
from link_kv.errors import NotFound

from ._connect import connected, path_argument, resolve_path
from ._group import Group
from ._show import json_option, lines, plain

if TYPE_CHECKING:
    from link_kv import EtcdMiddleware
    from link_kv._core.cluster.auth import Grant, Kind

name_argument = click.argument("name")


@click.group("role", cls=Group)
def command() -> None:
    """Add, change and delete etcd's roles.

    Who runs this needs etcd's role root, as soon as authentication is on.
    """


@command.command("list")
@json_option
@connected
def list_roles(client: EtcdMiddleware, as_json: bool) -> None:
    """List the roles, and what each may do with which keys."""
    ex = client._exchange()
    found = {name: run(auth.grants_of(ex, name)) for name in run(auth.roles(ex))}
    if as_json:
        from ._documents import dumps

        click.echo(
            dumps(
                {
                    name: [
                        {"may": each.kind, "key": plain(each.key), "end": plain(each.end)} for each in grants
                    ]
                    for name, grants in found.items()
                }
            )
        )
        return
    lines(line for name, grants in found.items() for line in _lines(name, grants))


def _lines(name: str, grants: Sequence[Grant]) -> Iterator[str]:
    for each in grants:
        yield f"{plain(name)}\t{each.kind}\t{_keys(each)}"
    if not grants:
        yield f"{plain(name)}\t-\t-"


def _keys(grant: Grant) -> str:
    """The keys of a grant: one, those that begin so, or those from one to before another."""
    key = plain(grant.key)
    if not grant.end:
        return key
    if grant.end == b"\0":
        return f"{key}…"
    if grant.key and grant.key[-1] < 0xFF and grant.end == grant.key[:-1] + bytes((grant.key[-1] + 1,)):
        return f"{key}*"
    return f"{key}…{plain(grant.end)}"


@command.command("add")
@name_argument
@connected
def add(client: EtcdMiddleware, name: str) -> None:
    """Add the role NAME, which may do nothing yet."""
    run(auth.add_role(client._exchange(), name))
    click.echo(f"role {plain(name)} is added")


@command.command("delete")
@name_argument
@connected
def delete(client: EtcdMiddleware, name: str) -> None:
    """Delete the role NAME, also from the users who have it."""
    run(auth.delete_role(client._exchange(), name))
    click.echo(f"role {plain(name)} is deleted")


@command.command("grant")
@name_argument
@path_argument()
@click.argument("may", metavar="read|write|readwrite", type=click.Choice(["read", "write", "readwrite"]))
@connected
def grant(client: EtcdMiddleware, name: str, path: str, may: Kind) -> None:
    """Let the role NAME read or write what is at PATH and below it.

    A role has to read the whole prefix, `/`, to write any of it. `/.link` is where locks, services and
    links have their keys.
    """
    ex = client._exchange()
    made = auth.grants(ex, resolve_path(path), may)
    for each in made:
        run(auth.grant(ex, name, each))
    lines(f"{plain(name)}\t{each.kind}\t{_keys(each)}" for each in made)


@command.command("revoke")
@name_argument
@path_argument()
@connected
def revoke(client: EtcdMiddleware, name: str, path: str) -> None:
    """Take from the role NAME what was granted for PATH, whichever it was."""
    ex = client._exchange()
    wanted = {(each.key, each.end) for each in auth.grants(ex, resolve_path(path), "read")}
    found = [each for each in run(auth.grants_of(ex, name)) if (each.key, each.end) in wanted]
    if not found:
        raise NotFound(f"role {name}: nothing is granted for just {path}")
    for each in found:
        run(auth.revoke(ex, name, each))
    click.echo(f"role {plain(name)} has no more grant for {plain(path)}")
