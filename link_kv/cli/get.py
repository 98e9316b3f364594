"""``link-kv get``: a value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from link_kv.codec import encode

from ._connect import connected, path_argument, resolve_path
from ._endpoints import endpoints, find, name_of, value_in
from ._items import _GLOB, chosen, formatted_option, in_units, is_one, is_path, text_of, time_of, units_option
from ._show import console, harmless, json_list, json_option, lines, plain, preview, progress, terminal

if TYPE_CHECKING:
    from link_kv import EtcdMiddleware, Item, Reading
    from link_kv._core.endpoints.names import Found

revision_option = click.option(
    "--revision", type=int, metavar="R", help="As it was at this revision, while etcd remembers it."
)


@click.command("get")
@path_argument("names", nargs=-1, metavar="PATH|ITEM…")
@revision_option
@formatted_option
@click.option("--timestamp", is_flag=True, help="Of items also when they were written.")
@units_option
@click.option("--calibrated", is_flag=True, help="Of an endpoint the calibrated value.")
@json_option
@connected
def command(
    client: EtcdMiddleware,
    names: Sequence[str],
    revision: int | None,
    calibrated: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Write the value at a path; of a tree, as JSON. Or those of items: store.key, a store, or a glob.

    Or that of an endpoint, which its service is asked for: foo, provider.foo or node.provider.foo; and with a
    name more an attribute of it, such as foo.schedule_interval.

    Into a pipe text goes with a newline at its end, bytes exactly as they are, and an array as an .npy file.
    Several items are a line each, with a tab behind the name.
    """
    if not names:
        raise click.UsageError("Missing argument 'PATH'.", click.get_current_context())
    if not is_path(names[0]):
        if revision is not None:
            raise click.UsageError("--revision is for a path, not for items.", click.get_current_context())
        if len(names) == 1 and _GLOB.isdisjoint(names[0]) and (found := find(client, names[0])):
            names = _asked(client, found, calibrated, as_json, any(options.values()))
            if not names:
                return
        elif calibrated:
            raise click.UsageError("--calibrated is for one endpoint.", click.get_current_context())
        _items(client, names, as_json, **options)
        return
    if len(names) > 1 or calibrated or any(options.values()):
        what = (
            "one path at a time"
            if len(names) > 1
            else "--calibrated, --formatted, --timestamp and --units are for items"
        )
        raise click.UsageError(f"{what}.", click.get_current_context())
    from ._documents import dumps

    with progress("reading"):
        value = client.snapshot(resolve_path(names[0]), revision=revision)
    if as_json or isinstance(value, (dict, list)):
        click.echo(dumps(value, None if as_json else 2))
    else:
        _write(value)


def _asked(client: EtcdMiddleware, found: Found, calibrated: bool, as_json: bool, as_item: bool) -> list[str]:
    """Ask an endpoint and write what it answers; or the name of its item, which shows it now."""
    request = {"specifier": found.specifier} if found.specifier else {}
    with endpoints(client) as all_endpoints:
        reply = all_endpoints._ask(found.service, found.endpoint, "get", request)
    payload = reply.result()
    if as_item and not found.specifier and not calibrated:
        return [name_of(found)]
    value = payload if as_json else value_in(payload, calibrated)
    if as_json or isinstance(value, (dict, list)):
        from ._documents import dumps

        click.echo(dumps(value))
    else:
        _write("" if value is None else value)
    return []


def _write(value: Any) -> None:
    stored = encode(value)
    if terminal():
        text, described = preview(stored)
        click.echo(f"<{text}>" if described else harmless(stored.decode()))
    elif value is None or isinstance(value, (str, int, float)):
        click.echo(stored)  # as bytes: click takes colours out of text
    else:
        click.echo(value if isinstance(value, bytes) else stored, nl=False)


def _items(
    client: EtcdMiddleware,
    names: Sequence[str],
    as_json: bool,
    formatted: bool,
    timestamp: bool,
    units: str | None,
) -> None:
    from ._documents import dumps

    readings = _readings(chosen(client, names))
    if as_json:
        objects = [_as_json(item, reading, units) for item, reading in readings]
        if is_one(names):
            click.echo(dumps(objects[0]))
        else:
            json_list(objects)
        return
    if is_one(names) and not (formatted or timestamp or units):
        value = readings[0][1].value
        if isinstance(value, (dict, list)):
            click.echo(dumps(value, 2))
        else:
            _write("" if value is None else value)
        return
    rows = [
        (item.full_key, text_of(item, reading.value, formatted, units), time_of(reading.timestamp))
        for item, reading in readings
    ]
    if terminal() and not is_one(names):
        _table(rows, timestamp)
        return
    skip = 1 if is_one(names) else 0
    lines("\t".join((plain(name), text, time)[skip : 3 if timestamp else 2]) for name, text, time in rows)


def _readings(items: Sequence[Item]) -> list[tuple[Item, Reading]]:
    """The readings of items, those of one store at one revision. Raises `Unavailable`."""
    snapshots = {}
    for item in items:
        if item.store not in snapshots:
            item.store._check_reachable()
            snapshots[item.store] = item.store.snapshot()
    return [(item, snapshots[item.store].get(item.key) or item.reading()) for item in items]


def _as_json(item: Item, reading: Reading, units: str | None) -> dict[str, Any]:
    return {
        "item": item.full_key,
        "value": in_units(item, reading.value, units),
        "formatted": reading.formatted,
        "timestamp": reading.timestamp,
        "writer": reading.writer,
        "revision": reading.revision,
        "state": reading.state,
    }


def _table(rows: Sequence[tuple[str, str, str]], timestamp: bool) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold")
    for column in ("item", "value", "written")[: 3 if timestamp else 2]:
        table.add_column(column)
    for name, text, time in rows:
        cells = (Text(plain(name), "cyan"), Text(text), Text(time, "dim"))
        table.add_row(*cells[: 3 if timestamp else 2])
    console().print(table)
