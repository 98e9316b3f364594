"""``link-kv config import``, ``export`` and ``diff``: configurations as files."""

from __future__ import annotations

import configparser
import io
import re
import sys
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from link_kv.codec import decode, encode
from link_kv.errors import LinkKVError
from link_kv.tree import EMPTY_DICT, Place, build, encode_name

from ._connect import connected, path_argument, resolve_path
from ._differences import Difference, differences, flat, show
from ._documents import FORMATS, DocumentError, form_of, read, write
from ._show import can_ask, confirm, harmless, json_option, plain, progress, terminal

if TYPE_CHECKING:
    from link_kv import EtcdMiddleware
    from link_kv._core.configuration.changes import Keys

_INI = ("ini", "conf", "cfg")
_ORDER = "/.link/categories"
_AT_REVISION = re.compile(r"(/.*)@([0-9]+)", re.DOTALL)

_format_option = click.option(
    "-f",
    "--format",
    "form",
    type=click.Choice(["ini", *FORMATS]),
    help="By default what the file is named; ini for .ini, .conf and .cfg.",
)
dry_run_option = click.option(
    "-n", "--dry-run", is_flag=True, help="Show what would change, and change nothing."
)
yes_option = click.option("-y", "--yes", is_flag=True, help="Do not ask.")


class Configuration(NamedTuple):
    """A configuration, wherever it is from."""

    pairs: dict[str, bytes]
    """What etcd holds, by paths relative to the configuration."""
    order: bytes | None
    """What etcd holds of the order of its categories."""
    has_order: bool = True
    """Whether it says that: a file without categories does not."""


# Commands


@click.command("import")
@click.argument("file", type=click.Path())
@path_argument()
@_format_option
@dry_run_option
@yes_option
@connected
def import_command(
    client: EtcdMiddleware, file: str, path: str, form: str | None, dry_run: bool, yes: bool
) -> None:
    """Let the configuration at PATH be what FILE says; - is standard input.

    Writes only what changed, in one revision, and first shows it: - what goes, + what comes. On a terminal it
    then asks. What the file does not name is deleted.
    """
    from link_kv._core.configuration.changes import keys
    from link_kv._core.wire.calls import run

    new = load(file, form)
    with progress("reading"):
        old = run(keys(client._exchange(), resolve_path(path)))
    order = new.order if new.has_order else old.order
    apply(client, old, new.pairs, order, dry_run=dry_run, yes=yes)


@click.command("export")
@path_argument()
@click.option("-f", "--format", "form", type=click.Choice(["ini", *FORMATS]), help="By default json.")
@click.option("--revision", type=int, metavar="R", help="As it was at this revision.")
@connected
def export_command(client: EtcdMiddleware, path: str, form: str | None, revision: int | None) -> None:
    """Write the configuration at PATH as INI, JSON, YAML or TOML, for import; categories in their order."""
    from link_kv._core.configuration.changes import keys
    from link_kv._core.wire.calls import run
    from link_kv.errors import NotFound

    with progress("reading"):
        found = run(keys(client._exchange(), resolve_path(path), revision))
    if not found.pairs:
        raise NotFound(f"{found.at.path}: nothing is there")
    text = _write_ini(found) if form == "ini" else write(_value(found), form or "json")
    click.echo(harmless(text) if terminal() else text.encode(), nl=False)


@click.command("diff")
@path_argument("one", metavar="A")
@path_argument("other", metavar="B")
@json_option
@connected
def diff_command(client: EtcdMiddleware, one: str, other: str, as_json: bool) -> int:
    """Show what must change for A to become B: - what goes, + what comes.

    Each is a path in etcd, with a slash before it; PATH@REVISION, the past; or a file: FILE, or file:FILE
    where its name begins with a slash; - is standard input.

    Exits with 0 when they are the same, with 1 when they differ, and with 2 on failure.
    """
    with progress("reading"):
        sides = _side(client, one), _side(client, other)
        have_order = all(side.has_order for side in sides)
        found = differences(*(_told(side.pairs, side.order if have_order else None) for side in sides))
    show(found, as_json)
    return 1 if found else 0


def apply(
    client: EtcdMiddleware,
    old: Keys,
    new: dict[str, bytes],
    order: bytes | None,
    *,
    dry_run: bool,
    yes: bool,
) -> None:
    """Let a configuration be another one: show what changes, ask, and write that."""
    from link_kv._core.configuration.changes import replace
    from link_kv._core.wire.calls import run

    at = old.at
    sides = _told(relative(old), old.order), _told(new, order)
    found = differences(*({at.path + name: stored for name, stored in side.items()} for side in sides))
    show(found)
    if dry_run:
        return
    if not found:
        click.echo("nothing changes")
        return
    asked = not yes and can_ask()
    if asked:
        confirm(f"{_counted(found)}. Write to {plain(at.path)}?", "nothing was changed")
    pairs = {at.key + name.encode(errors="surrogateescape"): stored for name, stored in new.items()}
    with progress("writing"):
        revision = run(replace(client._exchange(), at.path, pairs, order, old if asked else None))
    click.echo(f"revision {revision}" if revision else "nothing changes")


def _counted(found: list[Difference]) -> str:
    added = sum(each.old is None for each in found)
    deleted = sum(each.new is None for each in found)
    return f"{added} added, {len(found) - added - deleted} changed, {deleted} deleted"


# From etcd


def relative(found: Keys) -> dict[str, bytes]:
    """The keys of a configuration by their paths relative to it."""
    skip = len(found.at.key)
    return {key[skip:].decode(errors="surrogateescape"): value for key, value in found.pairs.items()}


def _told(pairs: dict[str, bytes], order: bytes | None) -> dict[str, bytes]:
    """What is compared of a configuration: the order of its categories decides what is in force too."""
    return pairs if order is None else {**pairs, _ORDER: order}


def _side(client: EtcdMiddleware, argument: str) -> Configuration:
    from link_kv._core.configuration.changes import keys
    from link_kv._core.wire.calls import run

    if not argument.startswith("/"):
        return load(argument.removeprefix("file:"), None)
    past = _AT_REVISION.fullmatch(argument)
    path, revision = (past[1], int(past[2])) if past else (argument, None)
    found = run(keys(client._exchange(), path, revision))
    return Configuration(relative(found), found.order)


def _value(found: Keys) -> Any:
    from link_kv._core.configuration.tree import in_order, stored_order

    at = found.at
    if at.key in found.pairs:
        raise LinkKVError(f"{at.path}: a value, and no configuration; get writes it")
    value = build([(key, _as_text(key, stored)) for key, stored in sorted(found.pairs.items())], at)
    if not isinstance(value, dict):
        return value
    return {name: value[name] for name in in_order(value, stored_order(found.order))}


def _as_text(key: bytes, stored: bytes) -> bytes:
    """What is stored; as text where it is a number written otherwise than here, such as 1.10."""
    from link_kv._core.configuration.text import from_stored

    if key.endswith(b"/") or encode(decode(stored)) == stored:
        return stored
    text = from_stored(stored)
    return stored if text is None else encode(text)


# Files


def load(name: str, form: str | None) -> Configuration:
    """The configuration in a file; ``-`` is standard input. Raises `DocumentError` and `OSError`."""
    data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    shown = "standard input" if name == "-" else name
    if form is None:
        form = "ini" if name.rpartition(".")[2].lower() in _INI else form_of(name)
    if form == "ini":
        return _read_ini(data, shown)
    value = read(data, form, shown)
    if not isinstance(value, dict):
        raise DocumentError(f"{shown}: a configuration has names, and this is a {type(value).__name__}")
    are_categories = all(isinstance(each, dict) for each in value.values())
    return Configuration(flat(value), _order_of(value) if are_categories else None, are_categories)


def _order_of(names: Collection[str]) -> bytes | None:
    from link_kv._core.configuration.changes import ordered

    return ordered(list(names), [encode_name(name).encode() for name in names])


def _parser() -> configparser.RawConfigParser:
    # No section is special, names keep their case, and a % is a %.
    parser = configparser.RawConfigParser(default_section="\0", interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    return parser


def _read_ini(data: bytes, name: str) -> Configuration:
    from link_kv._core.configuration.text import to_stored

    parser = _parser()
    try:
        parser.read_string(data.decode("utf-8-sig"), name)
    except UnicodeDecodeError:
        raise DocumentError(f"{name}: not UTF-8 text") from None
    except configparser.Error as error:
        raise DocumentError(" ".join(str(error).split())) from None
    pairs: dict[str, bytes] = {}
    for section in parser.sections():
        category = f"/{encode_name(section)}"
        if not parser[section]:
            pairs[f"{category}/"] = EMPTY_DICT
        for option, text in parser[section].items():
            path = f"{category}/{encode_name(option)}"
            pairs[path] = to_stored(text, path)
    return Configuration(pairs, _order_of(parser.sections()))


def _write_ini(found: Keys) -> str:
    from link_kv._core.configuration.tree import make_out

    at = found.at
    kvs = [Pair(key, value) for key, value in sorted(found.pairs.items()) if key != at.key]
    stored = make_out(at, found.revision, kvs, found.order, at.key in found.pairs)
    for path, problem in stored.problems.items():
        raise DocumentError(f"{path}: {problem}; INI holds categories of texts, use json or yaml")
    parser = _parser()
    text = io.StringIO()
    try:
        parser.read_dict(stored.categories)
        parser.write(text)
        again = _parser()
        again.read_string(text.getvalue())
    except (configparser.Error, ValueError) as error:
        raise DocumentError(f"{at.path}: INI cannot hold it, use json or yaml: {error}") from None
    for category, texts in stored.categories.items():
        for name, value in texts.items():
            if not again.has_section(category) or again[category].get(name) != value:
                where = f"{at.path}/{encode_name(category)}/{encode_name(name)}"
                raise DocumentError(f"{where}: INI cannot hold it, use json or yaml")
    return text.getvalue()


class Pair(NamedTuple):
    key: bytes
    value: bytes


def place_of(client: EtcdMiddleware, path: str) -> Place:
    """Where a configuration is. Raises `PathError`."""
    from link_kv._core.configuration.tree import place_of

    return place_of(client._exchange(), resolve_path(path))
