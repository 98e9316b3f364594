"""``link-kv set``: write a value."""

from __future__ import annotations

import os
import re
import shlex
import sys
from typing import TYPE_CHECKING, Any

import click

from link_kv.codec import decode
from link_kv.tree import MISSING

from ._connect import connected, path_argument, resolve_path
from ._endpoints import endpoints, find, item_of, lockout_option, name_of, served_at, show, value_in
from ._items import _GLOB, chosen, formatted_option, is_one, is_path, slashed, units_option
from ._show import progress

if TYPE_CHECKING:
    from link_kv import EtcdMiddleware
    from link_kv._core.endpoints.names import Found

_NEGATIVE = re.compile(r"-(?:(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?|Infinity)")


class _Set(click.Command):
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # A negative number is no option. The space before it is none of its value: decoding passes it over.
        return super().parse_args(ctx, [f" {arg}" if _NEGATIVE.fullmatch(arg) else arg for arg in args])


@click.command("set", cls=_Set)
@path_argument(metavar="PATH|ITEM")
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
@formatted_option
@units_option
@lockout_option
@connected
def command(
    client: EtcdMiddleware,
    path: str,
    value: str | None,
    as_json: bool,
    ttl: float | None,
    if_revision: int | None,
    formatted: bool,
    units: str | None,
    lockout_key: str | None,
) -> None:
    """Write a value: set PATH VALUE, or set PATH=VALUE. Tells the revision of the write.

    VALUE is what it looks like: 0.5 is a number, true a bool, null nothing, and all else text. A number in
    quotes of its own is text too: '"5"'. With --json it may be a whole tree. - reads it from standard input.

    In place of the path an item may stand, store.key. Then VALUE is what its type makes of it. Or an
    endpoint, whose service sets it: foo, provider.foo or node.provider.foo; and with a name more an attribute
    of it, such as foo.schedule_interval. What the endpoint answers is written too. A path whose item is
    served is set by its service as well, unless --ttl or --if-revision ask for a plain write.
    """
    from ._documents import dumps, read

    if value is None:
        path, equals, value = path.partition("=")
        if not equals:
            raise click.UsageError("Missing argument 'VALUE'.", click.get_current_context())
    data = sys.stdin.buffer.read() if value == "-" else os.fsencode(value)
    if not is_path(path):
        if ttl is not None or if_revision is not None:
            raise click.UsageError("--ttl and --if-revision are for a path.", click.get_current_context())
        new = read(data, "json", "VALUE") if as_json else MISSING
        found = find(client, path) if _GLOB.isdisjoint(path) else None
        if found is not None and not formatted and units is None:
            text = _text(data, value == "-")
            _set_endpoint(client, found, new, text, lockout_key, as_json)
            return
        if lockout_key is not None:
            raise click.UsageError("--lockout-key is for an endpoint.", click.get_current_context())
        if found is not None:
            path = name_of(found)
        typed = shlex.quote(value.strip() if _NEGATIVE.fullmatch(value[1:]) else value)
        text = _text(data, value == "-")
        path, revision = _set_item(client, path, new, text, formatted, units, typed)
    elif ttl is None and if_revision is None and (found := served_at(client, resolve_path(path))):
        if formatted or units is not None:
            raise click.UsageError("--formatted and --units are for items.", click.get_current_context())
        new = read(data, "json", "VALUE") if as_json else MISSING
        _set_endpoint(client, found, new, _text(data, value == "-"), lockout_key, as_json)
        return
    else:
        if lockout_key is not None:
            raise click.UsageError("--lockout-key is for an endpoint.", click.get_current_context())
        if formatted or units is not None:
            raise click.UsageError("--formatted and --units are for items.", click.get_current_context())
        path = resolve_path(path)
        new = read(data, "json", "VALUE") if as_json else _typed(data, value == "-")
        with progress("writing"):
            revision = client.put(path, new, revision=if_revision, ttl=ttl)
    click.echo(dumps({"path": path, "revision": revision}) if as_json else f"revision {revision}")


def _set_endpoint(
    client: EtcdMiddleware,
    found: Found,
    new: Any,
    text: str | bytes,
    lockout_key: str | None,
    as_json: bool,
) -> None:
    """Have an endpoint set, to a value or by a text; write what it answers."""
    from ._documents import dumps

    if new is MISSING:
        new = decode(text if isinstance(text, bytes) else text.encode(errors="surrogateescape"))
        if not found.specifier and item_of(client, found).description.type == "string":
            new = text
    request: dict[str, Any] = {"values": [new]}
    if found.specifier:
        request["specifier"] = found.specifier
    with endpoints(client) as all_endpoints, progress("writing"):
        reply = all_endpoints._ask(found.service, found.endpoint, "set", request, lockout_key or False)
    payload = reply.result()
    if as_json:
        click.echo(dumps({"path": found.path, "revision": reply.revision, "reply": payload}))
        return
    if not found.specifier:
        click.echo(f"revision {reply.revision}")
    show(value_in(payload))


def _set_item(
    client: EtcdMiddleware,
    name: str,
    new: Any,
    text: str | bytes,
    formatted: bool,
    units: str | None,
    typed: str,
) -> tuple[str, int]:
    """Set an item, to a value or by a text that its type is asked about; its path, and the revision."""
    if not is_one([name]):
        advice = slashed(name) if _GLOB.isdisjoint(name) else "a glob may match many"
        raise click.UsageError(
            f"{name!r}: one item, store.key, is set; {advice}.", click.get_current_context()
        )
    [item] = chosen(client, [name], typed)
    if new is MISSING:
        with item._named():
            if isinstance(text, bytes):
                new = decode(text)
            elif units is not None:
                new = item.description.from_units(text, units)
            elif not formatted:
                new = item.description.read(text)
    with progress("writing"):
        item.set(text if new is MISSING else new, formatted=new is MISSING)
    return item.path, item.revision


def _text(data: bytes, is_file: bool) -> str | bytes:
    """Text as it was typed, less what a file has at its end; bytes that are none."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return data
    if is_file:
        return text.removesuffix("\n")
    return text[1:] if _NEGATIVE.fullmatch(text[1:]) else text  # the space is ours


def _typed(data: bytes, is_file: bool) -> Any:
    """What a person types, or what stands in a file, as a value."""
    try:
        data.decode()
    except UnicodeDecodeError:
        value = decode(data)
        # An array in its file format. Other bytes are taken as they are: an image may begin with ff.
        return data if isinstance(value, bytes) else value
    return decode(data.removesuffix(b"\n") if is_file else data)
