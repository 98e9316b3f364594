"""``link-kv backup``: every key below the prefix, in one file."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ._connect import connected
from ._show import json_option, keys, progress

if TYPE_CHECKING:
    from link_kv import EtcdMiddleware


@click.command("backup")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@json_option
@connected
def command(client: EtcdMiddleware, file: Path, as_json: bool) -> None:
    """Copy every key below the prefix, of one revision and to the byte, to FILE.

    FILE is compressed, has a checksum, and is replaced only by a whole one. For a whole cluster with its
    users and leases, use etcdctl snapshot save.
    """
    from link_kv._core.operations.iterate import drive
    from link_kv._core.operations.raw_copy import Raw, copy_out, count
    from link_kv._core.wire.calls import run

    from . import _archive
    from ._documents import dumps

    ex = client._exchange()
    total, revision = run(count(ex))
    about: dict[str, Any] = {
        "prefix": client.prefix,
        "revision": revision,
        "made": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }
    with progress("copying", total) as advance:

        def pages() -> Iterator[list[Raw]]:
            for page in drive(copy_out(ex, revision)):
                yield page
                advance(len(page))

        _archive.write(file, about, pages())
    if as_json:
        click.echo(dumps({"file": str(file), "keys": total, "revision": revision}))
    else:
        click.echo(f"{keys(total)} at revision {revision} in {click.format_filename(file)}")
