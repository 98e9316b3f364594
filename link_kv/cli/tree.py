"""``link-kv tree``: everything below a path."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from ._connect import connected, path_argument, resolve_path
from ._show import AT_A_TIME, console, json_list, json_option, keys, lines, plain, preview, terminal
from .ls import limit_option, place_in_list

if TYPE_CHECKING:
    from rich.tree import Tree

    from link_kv import EtcdMiddleware
    from link_kv._core.operations.walk import Node


@click.command("tree")
@path_argument(default="/")
@click.option("--depth", type=click.IntRange(min=1), metavar="N", help="Enter no more than N levels.")
@limit_option
@json_option
@connected
def command(client: EtcdMiddleware, path: str, depth: int | None, limit: int | None, as_json: bool) -> None:
    """Show everything below PATH.

    Into a pipe goes one key a line, with a tab and its value as etcd holds it; a tree that --depth leaves
    closed has none.
    """
    from link_kv._core.operations.iterate import drive
    from link_kv._core.operations.walk import walk

    nodes = drive(walk(client._exchange(), resolve_path(path), depth or 0, values=True))
    if terminal() and not as_json:
        _draw(client, nodes, depth, AT_A_TIME if limit is None else limit)
        return
    shown = islice((node for node in nodes if _is_shown(node, depth)), limit or None)
    if as_json:
        json_list(map(_as_json, shown))
    else:
        lines(map(_line, shown))


def _is_shown(node: Node, depth: int | None) -> bool:
    """Whether a node is a key, or a tree that is left closed."""
    return node.kv is not None or (node.level == depth)


def _line(node: Node) -> str:
    path = plain(node.path) if node.kind.value == "leaf" else plain(node.path.rstrip("/")) + "/"
    return path if node.kv is None else f"{path}\t{plain(node.kv.value)}"


def _as_json(node: Node) -> dict[str, Any]:
    from link_kv.codec import decode

    item: dict[str, Any] = {"path": node.path, "kind": node.kind.value}
    if node.kind.value == "leaf":
        item["value"] = decode(node.kv.value)
    if node.kv is not None:
        item["revision"] = node.kv.mod_revision
    return item


def _draw(client: EtcdMiddleware, nodes: Iterator[Node], depth: int | None, limit: int) -> None:
    page = list(islice(nodes, limit or None))
    console().print(_drawing(client, page, depth))
    if limit and next(nodes, None) is not None:
        console().print(
            f"… and more: --limit shows how many lines you want, now {limit:,}; --depth enters fewer levels",
            style="dim",
        )


def _drawing(client: EtcdMiddleware, nodes: list[Node], depth: int | None) -> Tree:
    from rich.tree import Tree

    from link_kv._core.operations import Kind

    inside = _inside(client, nodes, depth)
    top = Tree(_label(nodes[0], plain(nodes[0].path), inside), guide_style="dim")
    branches, segments = {nodes[0].path: top}, {}
    for node in nodes[1:]:
        parent, _, name = node.path.rpartition("/")
        # Where a value and a tree have one name, the tree comes later, and what is below it after that.
        branch = branches[node.path] = branches.get(parent or "/", top).add(_label(node, plain(name), inside))
        segments[id(branch)] = name
    for node in nodes:
        if node.kind is Kind.LIST:
            branches[node.path].children.sort(key=lambda child: place_in_list(segments[id(child)]))
    return top


def _inside(client: EtcdMiddleware, nodes: list[Node], depth: int | None) -> dict[str, int]:
    """How many keys are in each tree of which nothing is drawn."""
    from link_kv._core.operations import Kind
    from link_kv._core.operations.walk import counts
    from link_kv._core.wire.calls import run

    drawn = {node.path.rpartition("/")[0] or "/" for node in nodes if node.level}
    others = [node for node in nodes if node.kind is not Kind.LEAF and node.path not in drawn]
    numbers = run(counts(client._exchange(), [node.path for node in others]))
    # A marker is a key of the tree, and nothing that is in it.
    return {node.path: n - (node.kv is not None) for node, n in zip(others, numbers, strict=True)}


def _label(node: Node, name: str, inside: dict[str, int]) -> Any:
    from rich.text import Text

    label = Text(no_wrap=True, overflow="ellipsis")
    if node.kind.value == "leaf":
        text, described = preview(node.kv.value)
        return label.append(name).append(" = ", "dim").append(text, "dim italic" if described else "green")
    label.append(name, "bold blue")
    if node.kind.value == "list":
        label.append(" list", "dim")
    if (count := inside.get(node.path)) is not None:
        label.append(f" … {keys(count)}" if count else " empty", "dim")
    return label
