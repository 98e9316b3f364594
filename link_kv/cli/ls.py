"""``link-kv ls``: what stands directly below a path."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from link_kv.tree import is_index

from ._connect import connected, path_argument, resolve_path
from ._show import AT_A_TIME, console, json_list, json_option, lines, plain, terminal

if TYPE_CHECKING:
    from rich.table import Table

    from link_kv import EtcdMiddleware
    from link_kv._core.operations.walk import Node

limit_option = click.option(
    "--limit",
    type=click.IntRange(min=0),
    metavar="N",
    help=f"Stop after N; 0 for never. By default {AT_A_TIME} on a terminal, and never elsewhere.",
)


class _Row(NamedTuple):
    name: str
    path: str
    kind: str
    keys: int
    revision: int | None
    lease: int


@click.command("ls")
@path_argument(default="/")
@click.option("-l", "--long", "long", is_flag=True, help="Kind, number of keys, revision and lease too.")
@limit_option
@json_option
@connected
def command(client: EtcdMiddleware, path: str, long: bool, limit: int | None, as_json: bool) -> None:
    """List what stands directly below PATH; a value itself. Trees end in a slash."""
    nodes = _nodes(client, resolve_path(path))
    if terminal() and not as_json:
        limit = AT_A_TIME if limit is None else limit
        more = _table(client, nodes, long, limit)
        if more:
            console().print(f"… and more: --limit shows how many you want, now {limit:,}", style="dim")
        return
    nodes = islice(nodes, limit or None)
    if as_json:
        json_list(_rows_as_json(_rows(client, nodes)))
    elif long:
        lines(
            f"{row.kind}\t{row.keys}\t{row.revision or '-'}\t{_hex(row.lease)}\t{plain(row.name)}"
            for row in _rows(client, nodes)
        )
    else:
        lines(plain(_name(node)) for node in nodes)


def _nodes(client: EtcdMiddleware, path: str) -> Iterator[Node]:
    """The children of a tree, those of a list by number; or the value that is there itself."""
    from link_kv._core.operations import Kind
    from link_kv._core.operations.iterate import drive
    from link_kv._core.operations.walk import walk

    nodes = drive(walk(client._exchange(), path, 1))
    first = next(nodes)
    if first.kind is Kind.LEAF:
        yield first
        first = next(nodes, first)
    if first.kind is not Kind.LIST:
        yield from nodes
        return
    yield from sorted(nodes, key=lambda node: place_in_list(node.path.rpartition("/")[2]))


def place_in_list(segment: str) -> tuple[float, str]:
    """The order of a list's items: by number, and after them what is no number."""
    return (int(segment) if is_index(segment) else math.inf, segment)


def _name(node: Node) -> str:
    name = node.path.rpartition("/")[2]
    return name if node.kind.value == "leaf" else name + "/"


def _rows(client: EtcdMiddleware, nodes: Iterable[Node]) -> Iterator[_Row]:
    """What is to be told of each, counted for many at once."""
    from link_kv._core.operations import Kind
    from link_kv._core.operations.walk import counts
    from link_kv._core.wire.calls import run

    rest = iter(nodes)
    while page := list(islice(rest, AT_A_TIME)):
        trees = [node.path for node in page if node.kind is not Kind.LEAF]
        keys = dict(zip(trees, run(counts(client._exchange(), trees)), strict=True))
        for node in page:
            kv: Any = node.kv if node.kind is Kind.LEAF else None
            yield _Row(
                _name(node),
                node.path,
                node.kind.value,
                keys[node.path] if kv is None else 1,
                kv and kv.mod_revision,
                kv.lease if kv else 0,
            )


def _rows_as_json(rows: Iterable[_Row]) -> Iterator[dict[str, Any]]:
    for row in rows:
        item = {"path": row.path, "kind": row.kind, "keys": row.keys}
        if row.revision:
            item["revision"] = row.revision
        if row.lease:
            item["lease"] = _hex(row.lease)
        yield item


def _hex(lease: int) -> str:
    """A lease's id as etcdctl has it."""
    return f"{lease:x}" if lease else "-"


def _table(client: EtcdMiddleware, nodes: Iterator[Node], long: bool, limit: int) -> bool:
    """Write tables of up to a thousand rows; whether there are more than the limit."""
    from rich.text import Text

    left = limit or math.inf
    first = True
    while left and (page := list(islice(nodes, int(min(left, AT_A_TIME))))):
        table = _empty_table(long, header=first)
        for row in _rows(client, page):
            style = "bold blue" if row.name.endswith("/") else ""
            cells: list[Any] = [Text(plain(row.name), style), row.kind, f"{row.keys:,}"]
            if long:
                cells += [str(row.revision or "-"), _hex(row.lease)]
            table.add_row(*cells)
        console().print(table)
        first = False
        left -= len(page)
    return next(nodes, None) is not None


def _empty_table(long: bool, header: bool) -> Table:
    from rich.table import Table

    table = Table(box=None, show_header=header, header_style="dim", pad_edge=False)
    table.add_column("Name", overflow="fold")
    table.add_column("Kind", min_width=5)
    table.add_column("Keys", justify="right", min_width=7)
    if long:
        table.add_column("Revision", justify="right", min_width=9)
        table.add_column("Lease", justify="right")
    return table
