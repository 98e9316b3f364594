"""``link-kv config log``, ``rollback`` and ``explain``: what has been done, undone, and why it is so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from link_kv.codec import encode
from link_kv.errors import NotFound, PathError
from link_kv.tree import Place

from ._config_files import apply, dry_run_option, place_of, relative, yes_option
from ._connect import connected, path_argument, resolve_path
from ._items import time_of
from ._show import console, json_list, json_option, lines, plain, preview, progress, terminal

if TYPE_CHECKING:
    from link_kv import EtcdMiddleware
    from link_kv._core.configuration.applied import Acknowledgement
    from link_kv._core.configuration.history import History, Write
    from link_kv.live import Change


@click.command("log")
@path_argument()
@click.option("--since", type=int, metavar="R", help="From this revision on.")
@json_option
@connected
def log_command(client: EtcdMiddleware, path: str, since: int | None, as_json: bool) -> None:
    """Show what each revision has done to the configuration at PATH, the newest first.

    It reaches as far back as etcd's compaction, and says so.
    """
    from link_kv._core.configuration.history import history
    from link_kv.live import hub_of

    at = place_of(client, path)
    with progress("reading"):
        found = history(hub_of(client), at, since)
    if as_json:
        json_list(map(_as_json, reversed(found.writes)))
    elif terminal():
        _paint(at, found)
    else:
        lines(_plain(at, found))


def _plain(at: Place, found: History) -> Iterator[str]:
    for write in reversed(found.writes):
        head = f"{write.revision}\t{time_of(write.time)}\t{plain(write.writer or '-')}"
        for sign, name, text in _sides(at, write):
            yield f"{head}\t{sign}\t{plain(name)}\t{plain(text)}"
    if found.compacted:
        yield f"{found.compacted}\t-\t-\t…\twhat was before is compacted\t"


def _sides(at: Place, write: Write) -> Iterator[tuple[str, str, bytes]]:
    from link_kv.tree import MISSING

    for change in sorted(write.changes, key=lambda change: change.path):
        for sign, value in (("-", change.previous), ("+", change.value)):
            if value is not MISSING:
                yield sign, change.path[len(at.path) + 1 :], _stored(value)


def _stored(value: Any) -> bytes:
    # By their types: an array compares item by item.
    return b"{}" if type(value) is dict else b"[]" if type(value) is list else encode(value)


def _paint(at: Place, found: History) -> None:
    from rich.text import Text

    out = console()
    for write in reversed(found.writes):
        by = f"  {write.writer}" if write.writer else ""
        out.print(Text(plain(f"revision {write.revision}  {time_of(write.time)}{by}"), "bold yellow"))
        for sign, name, stored in _sides(at, write):
            style = "red" if sign == "-" else "green"
            out.print(Text(f"  {sign} {plain(name)} = {preview(stored)[0]}", style), no_wrap=True)
    if found.compacted:
        out.print(f"What was before revision {found.compacted} is compacted.", style="dim")


def _as_json(write: Write) -> dict[str, Any]:
    from link_kv.tree import MISSING

    def item(change: Change) -> dict[str, Any]:
        sides = {"old": change.previous, "new": change.value}
        return {"path": change.path, **{name: each for name, each in sides.items() if each is not MISSING}}

    told: dict[str, Any] = {"revision": write.revision}
    if write.time is not None:
        told |= {"time": write.time, "writer": write.writer}
    return {**told, "changes": [item(change) for change in write.changes]}


# rollback


@click.command("rollback")
@path_argument()
@click.argument("revision", type=int)
@dry_run_option
@yes_option
@connected
def rollback_command(client: EtcdMiddleware, path: str, revision: int, dry_run: bool, yes: bool) -> None:
    """Let the configuration at PATH be as it was at REVISION, in one new revision.

    First shows what changes: - what goes, + what comes. On a terminal it then asks.
    """
    from link_kv._core.configuration.changes import keys
    from link_kv._core.operations import past_revision
    from link_kv._core.wire.calls import run

    path = resolve_path(path)
    past_revision(revision)
    with progress("reading"):
        then = run(keys(client._exchange(), path, revision))
        now = run(keys(client._exchange(), path))
    if not then.pairs:
        raise NotFound(f"{then.at.path}: nothing was there at revision {revision}; del deletes it")
    apply(client, now, relative(then), then.order, dry_run=dry_run, yes=yes)


# explain


@click.command("explain")
@path_argument(metavar="PATH/KEY")
@json_option
@connected
def explain_command(client: EtcdMiddleware, path: str, as_json: bool) -> None:
    """Show where a parameter's value comes from, and which processes have it in force.

    Time and writer are known of what link-kv config has written, and of items.
    """
    from link_kv._core.configuration.changes import stamp_of
    from link_kv._core.wire.calls import run
    from link_kv.plan import Get

    place = client._space.place(resolve_path(path))
    if len(place.segments) < 2:
        raise PathError(
            f"{place.path}: name a parameter of a configuration, such as /myproject/my.conf/MYCONF/port"
        )
    at, followers = _configuration_of(client, place)
    _, [leaf] = run(client._exchange().read([Get(place.key)]))
    if not leaf:
        _check_parameter(client, place)
    told: dict[str, Any] = {"path": place.path}
    if leaf:
        told |= {"value": leaf[0].value, "revision": leaf[0].mod_revision}
        stamp = run(stamp_of(client._exchange(), place, leaf[0].mod_revision))
        if stamp is not None:
            told |= {"time": stamp[0], "writer": stamp[1]}
    name = "/".join(place.segments[0 if at is None else len(at.segments) :])
    rows = [(each, _source(each, name, leaf)) for each in followers]
    if as_json:
        _explain_json(told, at, rows)
    else:
        _explain(told, at, rows)


def _configuration_of(client: EtcdMiddleware, place: Place) -> tuple[Place | None, list[Acknowledgement]]:
    """The nearest tree above that processes follow, and they."""
    from link_kv._core.configuration.applied import acknowledgements
    from link_kv._core.wire.calls import run

    for above in reversed(list(place.ancestors())):
        _, found = run(acknowledgements(client._exchange(), above.path))
        if found:
            return above, found
    return None, []


def _check_parameter(client: EtcdMiddleware, place: Place) -> None:
    """Raises `PathError` for a tree, and for what processes follow: their parameters are below it."""
    from link_kv._core.configuration.applied import acknowledgements
    from link_kv._core.configuration.changes import keys
    from link_kv._core.wire.calls import run

    below = sorted(relative(run(keys(client._exchange(), place.path))))
    _, followers = run(acknowledgements(client._exchange(), place.path))
    if below or followers:
        name = next((name for name in below if not name.endswith("/")), "/NAME")
        raise PathError(
            f"{place.path}: is a configuration or a part of one; name a parameter, such as {place.path}{name}"
        )


def _source(each: Acknowledgement, name: str, leaf: Any) -> str:
    """Where a process has the value of a parameter from, given by its path in the configuration."""
    from link_kv._core.configuration.applied import source_of

    if source := source_of(each.elsewhere, name):
        return source
    if not leaf:
        return "default"
    return "etcd" if each.revision >= leaf[0].mod_revision else "an older revision of etcd"


def _explain(told: dict[str, Any], at: Place | None, rows: list[tuple[Acknowledgement, str]]) -> None:
    stored = told.get("value")
    shown: list[tuple[str, str]] = [("path", told["path"])]
    if stored is None:
        shown.append(("value", "not in etcd: the program's default, or its environment"))
    else:
        shown += [("value", plain(stored)), ("revision", str(told["revision"]))]
        shown += [("time", time_of(told.get("time"))), ("writer", told.get("writer") or "-")]
    shown.append(("followed", at.path if at is not None else "by no running process"))
    lines(f"{name}\t{plain(text) if name != 'value' else text}" for name, text in shown)
    for each, source in rows:
        where = f"{each.program}@{each.host}:{each.pid}"
        lines(["\t".join(("process", plain(where), each.state, str(each.revision), plain(source)))])


def _explain_json(told: dict[str, Any], at: Place | None, rows: list[tuple[Acknowledgement, str]]) -> None:
    from link_kv.codec import decode

    from ._documents import dumps

    if "value" in told:
        told["value"] = decode(told["value"])
    if at is not None:
        told["configuration"] = at.path
    told["processes"] = [
        {"host": each.host, "pid": each.pid, "program": each.program, "state": each.state}
        | {"revision": each.revision, "source": source}
        for each, source in rows
    ]
    click.echo(dumps(told, 2))
