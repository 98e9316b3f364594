"""``link-kv diff``: two trees, files or moments side by side."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

from link_kv.tree import MISSING

from ._connect import connected, path_argument
from ._differences import differences, flat, show
from ._documents import load
from ._show import json_option, progress

if TYPE_CHECKING:
    from link_kv import EtcdMiddleware

_AT_REVISION = re.compile(r"(/.*)@([0-9]+)", re.DOTALL)


@click.command("diff")
@path_argument("one", metavar="A")
@path_argument("other", metavar="B")
@json_option
@connected
def command(client: EtcdMiddleware, one: str, other: str, as_json: bool) -> int:
    """Show what must change for A to become B: - what goes, + what comes.

    Each is a path in etcd, with a slash before it; PATH@REVISION, the past; or a file: FILE, or file:FILE
    where its name begins with a slash; - is standard input. Where nothing is, the whole other side differs.

    Exits with 0 when they are the same, with 1 when they differ, and with 2 on failure.
    """
    with progress("reading"):
        found = differences(flat(_side(client, one)), flat(_side(client, other)))
    show(found, as_json)
    return 1 if found else 0


def _side(client: EtcdMiddleware, argument: str) -> Any:
    if not argument.startswith("/"):
        return load(argument.removeprefix("file:"))
    past = _AT_REVISION.fullmatch(argument)
    return client.at(int(past[2])).get(past[1], MISSING) if past else client.get(argument, MISSING)
