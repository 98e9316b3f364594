"""``link-kv restore``: what `backup` wrote, back in etcd."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from link_kv.errors import ConfigError, KeyExists, TooLarge

from ._connect import connected
from ._show import json_option, keys, progress

if TYPE_CHECKING:
    from link_kv import EtcdMiddleware
    from link_kv._core.operations.raw_copy import Raw

_ONE_TRANSACTION = 16 << 20
"""Up to this many bytes a single transaction is tried; the server says whether it is too large."""


class _Content(NamedTuple):
    keys: int
    size: int
    leased: int
    """Keys that had a lease."""


@click.command("restore")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--replace", is_flag=True, help="Delete what is below the prefix and not in FILE.")
@json_option
@connected
def command(client: EtcdMiddleware, file: Path, replace: bool, as_json: bool) -> None:
    """Write what backup copied to FILE below the prefix, which may be another one.

    All of it is checked first. One transaction writes it when it fits, else several.
    """
    from ._documents import dumps

    content = _check(file, client.prefix)
    try:
        revision = _restore(client, file, content, replace)
    except KeyExists as error:
        raise KeyExists(f"{error}; --replace deletes them") from None
    if content.leased:
        click.echo(f"{keys(content.leased)} had a lease, and stay now", err=True)
    if as_json:
        click.echo(dumps({"file": str(file), "keys": content.keys, "revision": revision}))
    else:
        click.echo(f"{keys(content.keys)} restored at revision {revision}")


def _check(file: Path, prefix: str) -> _Content:
    """Read all of a file, and refuse what cannot be restored."""
    from link_kv._core.wire.exchange import LAYOUT

    from . import _archive

    count = size = leased = 0
    refused = ""  # told at the end: a damaged file may look like anything
    with progress("checking") as advance:
        for raw in _archive.raws(file):
            advance(1)
            if _is_left_out(raw):
                continue
            if prefix and not raw.key.startswith(b"/"):
                refused = f"has the key {raw.key!r}, which needs --prefix /"
            if raw.key == b"/.link/layout" and raw.value != LAYOUT:
                refused = f"has layout {raw.value!r}, and this link_kv knows {LAYOUT!r}: upgrade link_kv"
            count += 1
            leased += raw.lease != 0
            size += len(raw.key) + len(raw.value)
    if refused:
        raise ConfigError(f"{file}: {refused}")
    return _Content(count, size, leased)


def _is_left_out(raw: Raw) -> bool:
    from link_kv._core.operations.raw_copy import is_living

    return is_living(raw.key, raw.lease)


def _kept(file: Path) -> Iterator[Raw]:
    from . import _archive

    return (raw for raw in _archive.raws(file) if not _is_left_out(raw))


def _restore(client: EtcdMiddleware, file: Path, content: _Content, replace: bool) -> int:
    from link_kv._core.operations.raw_copy import copy_in, copy_in_parts
    from link_kv._core.wire.calls import run

    ex = client._exchange()
    if content.size <= _ONE_TRANSACTION:
        with progress("writing"):
            try:
                return run(copy_in(ex, list(_kept(file)), replace=replace))
            except TooLarge:
                pass  # in parts, then
    click.echo(
        "too large for one transaction: written in several, and others see a part until all is done", err=True
    )
    with progress("writing", content.keys) as advance:
        return run(copy_in_parts(ex, _kept(file), replace=replace, report=advance))
