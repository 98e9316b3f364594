"""``link-kv set``: write a value."""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING, Any

import click

from link_kv.codec import decode

from ._connect import connected, path_argument, resolve_path
from ._show import progress

if TYPE_CHECKING:
    from link_kv import EtcdMiddleware

_NEGATIVE = re.compile(r"-(?:(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?|Infinity)")


class _Set(click.Command):
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # A negative number is no option. The space before it is none of its value: decoding passes it over.
        return super().parse_args(ctx, [f" {arg}" if _NEGATIVE.fullmatch(arg) else arg for arg in args])


@click.command("set", cls=_Set)
@path_argument()
@click.argument("value", required=False)
@click.option("--json", "as_json", is_flag=True, help="VALUE is JSON, and so is what is written.")
@click.option(
    "--ttl", type=float, metavar="SECONDS", help="How long it stays; etcd may keep it a little longer."
)
@click.option(
    "--if-revision",
    type=int,
    metavar="R",
    help="Only if the value is still at this revision; 0: if nothing is.",
)
@connected
def command(
    client: EtcdMiddleware,
    path: str,
    value: str | None,
    as_json: bool,
    ttl: float | None,
    if_revision: int | None,
) -> None:
    """Write a value: set PATH VALUE, or set PATH=VALUE. Tells the revision of the write.

    VALUE is what it looks like: 0.5 is a number, true a bool, null nothing, and all else text. A number in
    quotes of its own is text too: '"5"'. With --json it may be a whole tree. - reads it from standard input.
    """
    from ._documents import dumps, read

    if value is None:
        path, equals, value = path.partition("=")
        if not equals:
            raise click.UsageError("Missing argument 'VALUE'.", click.get_current_context())
    path = resolve_path(path)
    data = sys.stdin.buffer.read() if value == "-" else os.fsencode(value)
    new = read(data, "json", "VALUE") if as_json else _typed(data, value == "-")
    with progress("writing"):
        revision = client.put(path, new, revision=if_revision, ttl=ttl)
    click.echo(dumps({"path": path, "revision": revision}) if as_json else f"revision {revision}")


def _typed(data: bytes, is_file: bool) -> Any:
    """What a person types, or what stands in a file, as a value."""
    try:
        data.decode()
    except UnicodeDecodeError:
        value = decode(data)
        # An array in its file format. Other bytes are taken as they are: an image may begin with ff.
        return data if isinstance(value, bytes) else value
    return decode(data.removesuffix(b"\n") if is_file else data)
