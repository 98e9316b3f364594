"""How things are shown: tables on a terminal, plain lines in a pipe, JSON for programs.

What is read from etcd reaches neither a terminal nor a line of ours raw: it may hold newlines, or sequences
that a terminal obeys.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from link_kv._core.clients.progress import bar
from link_kv.codec import decode

if TYPE_CHECKING:
    from rich.console import Console

AT_A_TIME = 1000
"""How many lines a terminal gets unless told otherwise, and how many are written at once."""

_PREVIEW = 200
"""Characters of a value that a terminal shows."""

progress = bar
"""Show on a terminal that work which takes long goes on."""

_SHORT = {"\\": r"\\", "\n": r"\n", "\r": r"\r", "\t": r"\t"}


def terminal() -> bool:
    return sys.stdout.isatty()


def console() -> Console:
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False)


# Text


def plain(stored: bytes | str) -> str:
    r"""Text or bytes as printable characters of one line, different ones for what is different.

    The rest is escaped, as bash reads it in ``$'…'``: ``\n``, ``\x1b`` for a byte, ``\u202e`` for a character
    beyond ASCII, and ``\\`` for a backslash.
    """
    text = stored if isinstance(stored, str) else stored.decode(errors="surrogateescape")
    return text if text.isprintable() and "\\" not in text else "".join(map(_escaped, text))


def harmless(text: str) -> str:
    """Text as it is, but that no terminal takes any of it for a command. Lines stay lines."""
    return "".join(c if c.isprintable() or c == "\n" else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    if character in _SHORT:
        return _SHORT[character]
    if character.isprintable():
        return character
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def preview(stored: bytes) -> tuple[str, bool]:
    """A value for a terminal, and whether it is a description and not the value itself."""
    value = decode(stored)
    if isinstance(value, bytes):
        return f"{len(value):,} bytes", True
    if value is not None and not isinstance(value, (str, int, float)):
        return f"array of {value.dtype}, {' × '.join(map(str, value.shape)) or 'no dimension'}", True
    shown = plain(stored[: 4 * _PREVIEW])
    return (shown, False) if len(shown) <= _PREVIEW else (shown[:_PREVIEW] + "…", False)


def keys(count: int) -> str:
    return "1 key" if count == 1 else f"{count} keys"


# Output


def lines(texts: Iterable[str]) -> None:
    """Write lines, many at once."""
    rest = iter(texts)
    while batch := list(islice(rest, AT_A_TIME)):
        click.echo("\n".join(batch))


def json_list(items: Iterable[Any]) -> None:
    """Write one JSON array, an item a line, as the items come."""
    from ._documents import dumps

    rest = map(dumps, items)
    before = "[\n"
    while batch := list(islice(rest, AT_A_TIME)):
        click.echo(before + ",\n".join(batch), nl=False)
        before = ",\n"
    click.echo("[]" if before == "[\n" else "\n]")


json_option = click.option("--json", "as_json", is_flag=True, help="Write JSON, for programs.")


def confirm(question: str, otherwise: str) -> None:
    """Ask on the terminal; a no ends the command with ``otherwise``."""
    if not click.confirm(question, err=True):
        raise click.ClickException(otherwise)


def can_ask() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()
