"""The pages in docs/coming-from: each name that they give for another system's is there."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest

PAGES = Path(__file__).parent.parent / "docs/coming-from"


class Row(NamedTuple):
    page: str
    theirs: str
    here: str


def rows() -> Iterator[Row]:
    """What stands in the columns of the tables whose second column is `here`."""
    for page in sorted(PAGES.glob("*.md")):
        in_table = False
        for line in page.read_text(encoding="utf-8").splitlines():
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            if len(cells) < 2:
                in_table = False
            elif cells[1] == "here":
                in_table = True
            elif in_table and set(cells[0]) - set("-:"):
                yield Row(page.name, cells[0], cells[1])


ROWS = list(rows())
NAMES = sorted(
    {
        (row.page, name)
        for row in ROWS
        if not row.here.startswith("none: ")
        for name in re.findall(r"`([^`]+)`", row.here)
    }
)


def resolve(name: str) -> Any:
    """What a dotted name stands for, such as ``link_kv.clients.Client.get``."""
    found: Any = importlib.import_module("link_kv")
    path = "link_kv"
    for part in name.split(".")[1:]:
        path += f".{part}"
        if inspect.ismodule(found) and not hasattr(found, part):
            found = importlib.import_module(path)
        elif inspect.isclass(found) and not hasattr(found, part):
            # What each instance has: annotated, or set by the constructor.
            made = [vars(each).get("__annotations__", {}) for each in found.__mro__]
            makers = [
                each.__init__ for each in found.__mro__ if "__init__" in vars(each) and each is not object
            ]
            source = "".join(map(inspect.getsource, filter(inspect.isfunction, makers)))
            assert any(part in each for each in made) or f"self.{part} = " in source, f"{path}: is not there"
            return None
        else:
            found = getattr(found, part)
    return found


def command(words: list[str]) -> click.Command:
    """The command of ``link-kv`` that the words name."""
    from link_kv.cli._run import link_kv

    found: click.Command = link_kv
    for word in words:
        assert isinstance(found, click.Group), f"{found.name}: has no commands"
        below = found.get_command(click.Context(found), word)
        if below is None:
            raise AssertionError(f"link-kv {' '.join(words)}: no such command")
        found = below
        if not isinstance(found, click.Group):
            break
    return found


@pytest.mark.parametrize(("page", "name"), NAMES)
def test_what_is_named_is_there(page: str, name: str) -> None:
    if name.startswith("link-kv "):
        words = name.split()[1:]
        options = [word.partition("=")[0] for word in words if word.startswith("-")]
        given = command([word for word in words if word.islower() and not word.startswith("-")])
        assert {option for parameter in given.params for option in parameter.opts} >= set(options)
        return
    dotted, _, arguments = name.partition("(")
    assert re.fullmatch(r"link_kv(\.\w+)*", dotted), f"{page}: `{name}`: neither link_kv.… nor link-kv …"
    found = resolve(dotted)
    keywords = re.findall(r"(\w+)=", arguments)
    if keywords:
        parameters = inspect.signature(found).parameters
        more = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
        assert more or set(keywords) <= set(parameters), f"{page}: {name}"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.page}-{row.theirs}")
def test_each_row_gives_a_name_or_says_why_there_is_none(row: Row) -> None:
    assert row.theirs
    assert "`link" in row.here or re.match(r"none: \w+", row.here), row


def test_there_are_pages() -> None:
    assert "kamaki.md" in {row.page for row in ROWS}
