"""``link-kv record``: changes into a file."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from link_kv.errors import LinkKVError, RevisionError
from link_kv.tree import MISSING

from ._connect import connected, path_argument, resolve_path
from ._items import time_of
from ._show import plain

if TYPE_CHECKING:
    from link_kv import Change, EtcdMiddleware
    from link_kv._core.endpoints.recording import Recorder, Row
    from link_kv.live import Changes

_AT_ONCE = 10_000
"""Changes that one write to disk takes."""


@click.command("record")
@path_argument()
@click.option(
    "-o",
    "--output",
    "file",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Ends in .sqlite, .sqlite3, .db or .csv.",
)
@connected
def command(client: EtcdMiddleware, path: str, file: Path) -> None:
    """Write each change at or below a path into a file, until Ctrl-C; what is there now comes first.

    Started again it goes on where the file ends, without gap or repetition, as long as etcd remembers. Where
    history was compacted away meanwhile it says so, and what has changed is inferred, and marked.
    """
    from link_kv._core.endpoints.recording import open_recorder

    path = client._space.place(resolve_path(path)).path
    try:
        with open_recorder(file, path, client.prefix) as recorder:
            if recorder.revision:
                _say(f"{file} goes on after revision {recorder.revision}")
            for rows in _batches(client, path, recorder):
                recorder.add(rows)
    except KeyboardInterrupt:
        pass  # that is how it ends


def _say(text: str) -> None:
    click.echo(f"link-kv: {time_of(time.time())} {plain(text)}", err=True)


def _batches(client: EtcdMiddleware, path: str, recorder: Recorder) -> Iterator[list[Row]]:
    revision = recorder.revision
    changes = None
    if revision:
        try:
            changes = client.watch(path, revision=revision)
        except RevisionError as error:
            if revision > _now(client):
                raise LinkKVError(
                    f"the file is at revision {revision}, and etcd is not that far: it is another etcd, or "
                    "was restored; begin another file"
                ) from None
            _say(f"history after revision {revision} was compacted away: {error}; what changed is inferred")
    if changes is None:
        revision, rows = _differences(client, path, recorder)
        yield rows
        changes = client.watch(path, revision=revision)
    gap = False
    for batch in _gathered(changes):
        for change in batch:
            if change.synthetic and not gap:
                _say(
                    f"history before revision {change.revision} was compacted away; what changed is inferred"
                )
            gap = change.synthetic
        yield [_row(change) for change in batch if change.revision >= revision]


def _gathered(changes: Changes) -> Iterator[list[Change]]:
    """Changes as they come, all at once that have come meanwhile: one write to disk for all of these."""
    waiting: queue.Queue[Change | LinkKVError | None] = queue.Queue()

    def take() -> None:
        try:
            for change in changes:
                waiting.put(change)
        except LinkKVError as error:
            waiting.put(error)
        waiting.put(None)

    taker = threading.Thread(target=take, name="link-kv-record", daemon=True)
    taker.start()
    try:
        while True:
            batch: list[Change] = []
            found = waiting.get()
            while found is not None and not isinstance(found, LinkKVError):
                batch.append(found)
                if len(batch) == _AT_ONCE or waiting.empty():
                    break
                found = waiting.get()
            if batch:
                yield batch
            if isinstance(found, LinkKVError):
                raise found
            if found is None:
                return
    finally:
        changes.close()
        taker.join()


def _now(client: EtcdMiddleware) -> int:
    with client.mirror("/.no-such-tree") as mirror:
        return mirror.revision


def _differences(client: EtcdMiddleware, path: str, recorder: Recorder) -> tuple[int, list[Row]]:
    """What is there now and not in the file, and what is in the file and not there; the revision."""
    from link_kv._core.endpoints.recording import Row, as_json
    from link_kv._core.endpoints.replies import timestamp
    from link_kv._core.watching.replica import value_of

    known, now = recorder.last(), timestamp()
    inferred = recorder.revision > 0
    with client.mirror(path) as mirror, mirror._lock():
        replica = mirror._feed.replica
        revision = replica.revision
        leaves = [(held.path, held) for _, held in replica.leaves()]
    rows = [
        Row(held.revision, now, at, "put", as_json(value_of(held)), inferred)
        for at, held in leaves
        if at is not None and held.revision > recorder.revision
    ]
    there = {at for at, _ in leaves}
    rows += (
        Row(revision, now, at, "delete", "", True)
        for at, row in known.items()
        if row.kind == "put" and at not in there
    )
    rows.sort(key=lambda row: row.revision)
    return revision, rows


def _row(change: Change) -> Row:
    from link_kv._core.endpoints.recording import Row, as_json
    from link_kv._core.endpoints.replies import timestamp

    value = "" if change.value is MISSING else as_json(change.value)
    return Row(change.revision, timestamp(), change.path, change.kind, value, change.synthetic)
