"""``link-kv config status`` and ``check``: the processes that follow a configuration."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from link_kv.codec import decode, encode
from link_kv.errors import LinkKVError, NotATree, PathError, RevisionError
from link_kv.tree import EMPTY_DICT

from ._config_files import Pair, place_of
from ._connect import connected, path_argument
from ._show import console, json_option, lines, plain, terminal

if TYPE_CHECKING:
    from link_kv import EtcdMiddleware
    from link_kv._core.configuration.applied import Acknowledgement


@click.command("status")
@path_argument()
@click.option("--wait", type=int, metavar="REV", help="First wait until all have answered to this revision.")
@click.option("--at-most", type=float, default=60, metavar="SECONDS", help="How long to wait; 60 by default.")
@json_option
@connected
def status_command(client: EtcdMiddleware, path: str, wait: int | None, at_most: float, as_json: bool) -> int:
    """Show which processes follow the configuration at PATH, and which revision each has in force.

    Exits with 1 when any has rejected the newest one, or has not answered in time.
    """
    from link_kv._core.configuration.applied import acknowledgements
    from link_kv._core.wire.calls import run

    if not 0 <= at_most <= threading.TIMEOUT_MAX:  # nan is neither
        raise click.UsageError(
            f"--at-most: {at_most:g} is no number of seconds.", click.get_current_context()
        )
    at = place_of(client, path)
    silent = None if wait is None else _wait(client, at.path, wait, at_most)
    _, found = run(acknowledgements(client._exchange(), at.path))
    found.sort(key=lambda each: (each.state != "rejected", each.host, each.pid, each.instance))
    if as_json:
        from ._documents import dumps

        click.echo(dumps([each._asdict() for each in found], 2))
    elif terminal():
        _table(found)
    else:
        lines(_plain(found))
    if silent:
        raise click.ClickException(f"{silent} of {len(found)} have not answered within {at_most:g} s")
    return 1 if any(each.state == "rejected" for each in found) else 0


def _wait(client: EtcdMiddleware, path: str, revision: int, seconds: float) -> int:
    """Wait until all have looked at what a revision, or one before it, has changed; how many have not."""
    from link_kv._core.configuration.applied import directory, parse
    from link_kv._core.configuration.changes import keys
    from link_kv._core.configuration.history import history
    from link_kv._core.wire.calls import run
    from link_kv.live import Mirror, hub_of

    now = run(keys(client._exchange(), path))
    if revision > now.revision:
        raise RevisionError(f"--wait: revision {revision} is still to come; etcd is at {now.revision}")
    with Mirror(client, directory(client._space, path)) as mirror:
        first = parse(mirror.items())
        if not first:
            return 0
        try:
            done = history(hub_of(client), now.at, min(each.seen for each in first) + 1).writes
            touched = [write.revision for write in done if write.revision <= revision]
        except RevisionError:  # compacted: the last one that is known to have changed something
            touched = [min(revision, now.newest)]

        def silent() -> int:
            newest = max(touched, default=0)
            return sum(each.seen < newest for each in parse(mirror.items()))

        hub_of(client).wait(lambda: not silent(), seconds)
        return silent()


def _summary(found: Sequence[Acknowledgement]) -> str:
    if not found:
        return "no process follows it"
    rejected = [each for each in found if each.state == "rejected"]
    summary = f"{len(found) - len(rejected)} applied"
    if rejected:
        reasons = dict.fromkeys(each.message for each in rejected)
        summary += f", {len(rejected)} rejected: {' | '.join(reasons)}"
    return summary


def _plain(found: Sequence[Acknowledgement]) -> Iterator[str]:
    yield plain(_summary(found))
    for each in found:
        told = (each.state, each.host, each.pid, each.program, each.revision, each.seen, each.message or "-")
        yield "\t".join(plain(str(cell)) for cell in told)


def _table(found: Sequence[Acknowledgement]) -> None:
    from rich.table import Table
    from rich.text import Text

    out = console()
    out.print(Text(plain(_summary(found)), "bold red" if "rejected" in _summary(found) else "bold green"))
    if not found:
        return
    table = Table(box=None, header_style="dim", pad_edge=False)
    for title in ("State", "Host", "Pid", "Program", "Revision", "Since", "Message"):
        table.add_column(title, overflow="fold", justify="right" if title in ("Pid", "Revision") else "left")
    for each in found:
        style = "bold red" if each.state == "rejected" else "green"
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(each.time))
        cells = (each.host, str(each.pid), each.program, str(each.revision), since, each.message)
        table.add_row(Text(each.state, style), *(Text(plain(cell)) for cell in cells))
    out.print(table)


# check


@click.command("check")
@path_argument()
@click.argument("changes", nargs=-1, metavar="KEY=VALUE…")
@connected
def check_command(client: EtcdMiddleware, path: str, changes: Sequence[str]) -> int:
    """Try a change of the configuration at PATH against what its running processes accept; writes nothing.

    KEY is relative to PATH, CATEGORY/param or field, and VALUE as of `set`. Without a change it tries what is
    there. What only the program's own code checks, is not tried. Exits with 1 when a process would reject it.
    """
    from link_kv._core.configuration.applied import acknowledgements, schemas
    from link_kv._core.configuration.changes import keys
    from link_kv._core.configuration.schema import TEXTS, problems, problems_of_texts
    from link_kv._core.configuration.text import stored_tree
    from link_kv._core.configuration.tree import make_out
    from link_kv._core.wire.calls import run

    at = place_of(client, path)
    published = run(schemas(client._exchange(), at.path))
    if not published:
        raise LinkKVError(f"{at.path}: no running process says what it accepts")
    pairs = run(keys(client._exchange(), at.path)).pairs
    for change in changes:
        name, equals, text = change.partition("=")
        if not equals:
            raise LinkKVError(f"{change!r}: a change is KEY=VALUE")
        place = client._space.place(f"{at.path}/{name.removeprefix('/')}")
        if place.path == at.path:
            raise PathError(f"{change!r}: names no key")
        for above in place.ancestors():
            if above.key in pairs:
                raise NotATree(f"{above.path}: holds a value, so nothing can be written below it")
        empty = {above.marker for above in place.ancestors() if pairs.get(above.marker) == EMPTY_DICT}
        pairs = {
            key: value
            for key, value in pairs.items()
            if not key.startswith(place.marker) and key not in empty
        }
        pairs[place.key] = encode(decode(text.encode(errors="surrogateescape")))
    tree = stored_tree(at, sorted(pairs.items()))
    kvs = [Pair(key, stored) for key, stored in sorted(pairs.items()) if key != at.key]
    texts = make_out(at, 0, kvs, None, at.key in pairs)
    programs = {each.instance: each.program for each in run(acknowledgements(client._exchange(), at.path))[1]}
    groups: dict[str, list[str]] = {}
    for instance, schema in published.items():
        groups.setdefault(json.dumps(schema, sort_keys=True), []).append(instance)
    refused: dict[str, list[str]] = {}
    for text, instances in groups.items():
        schema = json.loads(text)
        found = problems_of_texts(schema, at, texts) if schema.get(TEXTS) else problems(schema, tree)
        for where, reason in found.items():
            refused.setdefault(f"{where or at.path}: {reason}", []).extend(instances)
    for line, instances in refused.items():
        told = sorted({programs.get(instance, instance) for instance in instances})
        count = "1 process" if len(instances) == 1 else f"{len(instances)} processes"
        click.echo(plain(f"{line} ({count}: {', '.join(told)})"))
    if refused:
        return 1
    count = "1 process accepts" if len(published) == 1 else f"{len(published)} processes accept"
    click.echo(f"{count} it")
    return 0
