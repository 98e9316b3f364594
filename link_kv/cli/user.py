"""``link-kv user``: etcd's users."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from link_kv._core.cluster import auth
from link_kv._core.wire.calls import run
from link_kv.errors import ConfigError

from ._connect import connected, first_line
from ._group import Group
from ._show import json_option, lines, plain

if TYPE_CHECKING:
    from link_kv import EtcdMiddleware

name_argument = click.argument("name")
role_argument = click.argument("role")

password_option = click.option(
    "--password-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Its first line is the user's password. Else it is asked for on a terminal.",
)


@click.group("user", cls=Group)
def command() -> None:
    """Add, change and delete etcd's users.

    Who runs this needs etcd's role root, as soon as authentication is on.
    """


@command.command("list")
@json_option
@connected
def list_users(client: EtcdMiddleware, as_json: bool) -> None:
    """List the users, and the roles that each has."""
    ex = client._exchange()
    found = {name: run(auth.roles_of(ex, name)) for name in run(auth.users(ex))}
    if as_json:
        from ._documents import dumps

        click.echo(dumps(found))
        return
    lines(f"{plain(name)}\t{','.join(map(plain, roles)) or '-'}" for name, roles in found.items())


@command.command("add")
@name_argument
@password_option
@click.option("--no-password", is_flag=True, help="The user logs in by a certificate with this name alone.")
@connected
def add(client: EtcdMiddleware, name: str, password_file: Path | None, no_password: bool) -> None:
    """Add the user NAME."""
    if no_password and password_file:
        raise click.UsageError("--no-password and --password-file exclude each other.")
    password = None if no_password else new_password(name, password_file)
    run(auth.add_user(client._exchange(), name, password))
    click.echo(f"user {plain(name)} is added")


@command.command("delete")
@name_argument
@connected
def delete(client: EtcdMiddleware, name: str) -> None:
    """Delete the user NAME."""
    run(auth.delete_user(client._exchange(), name))
    click.echo(f"user {plain(name)} is deleted")


@command.command("passwd")
@name_argument
@password_option
@connected
def passwd(client: EtcdMiddleware, name: str, password_file: Path | None) -> None:
    """Give the user NAME another password."""
    run(auth.set_password(client._exchange(), name, new_password(name, password_file)))
    click.echo(f"user {plain(name)} has another password")


@command.command("grant")
@name_argument
@role_argument
@connected
def grant(client: EtcdMiddleware, name: str, role: str) -> None:
    """Give the user NAME a ROLE."""
    run(auth.give_role(client._exchange(), name, role))
    click.echo(f"user {plain(name)} has the role {plain(role)}")


@command.command("revoke")
@name_argument
@role_argument
@connected
def revoke(client: EtcdMiddleware, name: str, role: str) -> None:
    """Take a ROLE from the user NAME."""
    run(auth.take_role(client._exchange(), name, role))
    click.echo(f"user {plain(name)} has the role {plain(role)} no more")


def new_password(name: str, file: Path | None) -> str:
    """A password for somebody, from a file or typed twice; never from the command line, which ps shows."""
    if file is not None:
        return first_line(file)
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise ConfigError(f"user {name}: no terminal to ask for the password; give --password-file")
    password: str = click.prompt(
        f"Password for {plain(name)}", hide_input=True, confirmation_prompt=True, err=True
    )
    return password
