"""From the options of the command line to a client, and from an argument to a path."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from link_kv.errors import ConfigError, PathError

if TYPE_CHECKING:
    from link_kv import EtcdMiddleware
    from link_kv._core.wire.config import Config

_OPTIONS = {
    "endpoints": "--endpoints",
    "prefix": "--prefix",
    "user": "--user",
    "password": "--password-file",
    "ca_cert": "--ca-cert",
    "cert_cert": "--cert",
    "cert_key": "--key",
    "timeout": "--timeout",
}
"""The keywords of a client, as they are called here."""

_KEYWORD = re.compile(r"\b(\w+) \(keyword\)")


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say where etcd is; they stand before the name of a command."""
    for option in reversed(
        (
            click.option("--endpoints", metavar="HOST:PORT,…", help="The servers of one cluster."),
            click.option("--url", metavar="URL", help="All in one: etcd://user@h1:2379,h2:2379/prefix"),
            click.option("--prefix", metavar="PATH", help="What all paths lie below; / for nothing."),
            click.option("--user", metavar="NAME", help="A login of etcd's."),
            click.option(
                "--password-file",
                type=click.Path(exists=True, dir_okay=False, path_type=Path),
                help="Its first line is the password. Else LINK_KV_PASSWORD, or a prompt.",
            ),
            click.option("--ca-cert", metavar="FILE", help="Whom to trust, for TLS."),
            click.option("--cert", "cert_cert", metavar="FILE", help="The client's certificate."),
            click.option("--key", "cert_key", metavar="FILE", help="The key of the certificate."),
            click.option("--timeout", metavar="SECONDS", help="What one operation may take; 5 by default."),
        )
    ):
        command = option(command)
    return command


def connected(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command a client as its first argument, closed at the end."""

    @functools.wraps(function)
    def command(*args: Any, **options: Any) -> Any:
        with connect(click.get_current_context()) as client:
            return function(client, *args, **options)

    return command


def connect(context: click.Context) -> EtcdMiddleware:
    """A client for the options of the command line, and for the rest those of its environment."""
    from link_kv import EtcdMiddleware

    client: EtcdMiddleware = EtcdMiddleware._of(configure(context.find_root().params))
    return client


def configure(given: dict[str, Any]) -> Config:
    """The options of a client. Asks on a terminal for a password when nothing but that is missing."""
    from link_kv._core.wire.config import from_url, resolve, url_options

    url = given["url"]
    named = {name: given[name] for name in _OPTIONS if given.get(name) is not None}
    if url and "password" in url_options(url):
        raise ConfigError("--url: a password in it shows in ps; leave it out, it is asked for")
    if given["password_file"]:
        named["password"] = first_line(given["password_file"])

    def make(**more: Any) -> Config:
        try:
            return from_url(url, **named, **more) if url else resolve(**named, **more)
        except ConfigError as error:
            raise ConfigError(
                _KEYWORD.sub(lambda found: _OPTIONS.get(found[1], found[1]), str(error))
            ) from None

    try:
        return make()
    except ConfigError as error:
        if "password" in named:
            raise
        try:
            make(password="any")
        except ConfigError:
            raise error from None
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise ConfigError(f"{error}: set LINK_KV_PASSWORD, or give --password-file") from None
    return make(password=click.prompt("Password", hide_input=True, err=True))


def first_line(path: Path) -> str:
    """The password in a file. Raises `ConfigError` where there is none."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise ConfigError(f"--password-file: {path} is not UTF-8 text") from None
    if not lines or not lines[0]:
        raise ConfigError(f"--password-file: the first line of {path} is empty")
    return lines[0]


def resolve_path(argument: str) -> str:
    """The path that an argument names. Raises `PathError` for what names none."""
    if not argument.startswith("/"):
        raise PathError(f"{argument!r}: a path starts with a slash, such as /store/key")
    return argument


def path_argument(name: str = "path", **more: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """An argument for `resolve_path`, with completion from etcd."""
    return click.argument(name, shell_complete=_complete, **more)


# Shells put a completion into the line as it is, so what they would act on is not offered.
SPECIAL = frozenset(" \"#$&'()*;<>?[\\]^`{|}~!")
OFFERED = 200
PATIENCE = "1"  # seconds


def _complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """The paths that begin as typed. Silent when etcd cannot be asked: a shell is waiting."""
    from link_kv import EtcdMiddleware
    from link_kv.errors import LinkKVError

    given = {**context.find_root().params, "timeout": PATIENCE}
    try:
        with EtcdMiddleware._of(configure(given)) as client:
            if not incomplete.startswith("/") and parameter.name == "names":
                return _items(client, incomplete)
            paths = _children(client, incomplete)
            if len(paths) == 1 and paths[0].endswith("/"):
                # A shell ends a word that is the only one with a space. With those below it, it goes on.
                paths += _children(client, paths[0])
            return paths
    except LinkKVError:
        return []


def _children(client: EtcdMiddleware, start: str) -> list[str]:
    from link_kv._core.operations import Kind
    from link_kv._core.operations.iterate import drive
    from link_kv._core.operations.walk import walk

    parent = start[: start.rindex("/") + 1] if "/" in start else "/"
    found: list[str] = []
    for node in drive(walk(client._exchange(), parent, 1)):
        path = node.path if node.kind is Kind.LEAF else node.path + "/"
        if node.level and path.startswith(start) and path.isprintable() and SPECIAL.isdisjoint(path):
            found.append(path)
            if len(found) == OFFERED:
                break
    return found


def _items(client: EtcdMiddleware, start: str) -> list[str]:
    """The stores and items that begin as typed; with a dot, items."""
    from link_kv import get

    from ._items import store_names

    store, dot, _ = start.partition(".")
    if dot:
        names = [item.full_key for item in get(store, client=client).values()]
    else:
        names = [name.lower() for name in store_names(client)]
    found = [name for name in names if name.startswith(start.lower()) and name.isprintable()]
    return [name for name in found if SPECIAL.isdisjoint(name)][:OFFERED]
