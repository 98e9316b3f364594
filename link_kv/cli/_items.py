"""From arguments to stores and items, and how items are shown."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from datetime import datetime
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import click

from link_kv.codec import encode
from link_kv.errors import LinkKVError, NotFound, PathError
from link_kv.tree import MISSING, decode_name, encode_name

from ._show import plain, preview

if TYPE_CHECKING:
    from link_kv import EtcdMiddleware, Item, Store

_GLOB = frozenset("*?[")
_PYTHON = re.compile(
    r"\. A store is a tree: client\[|; get\('store\.key'\) names|\. get\(.*\)\.describe\(", re.DOTALL
)
"""Where an error begins to say what a program would do."""

formatted_option = click.option(
    "--formatted", is_flag=True, help="Of items the text for people, in its format and units."
)
units_option = click.option("-u", "--units", metavar="UNITS", help="Of items the number in these units.")


def is_path(argument: str) -> bool:
    """Whether an argument is a path; else it is a store, or an item of one."""
    return argument.startswith("/")


# Which stores and items


def store_named(client: EtcdMiddleware, name: str) -> Store:
    """A store; where `discover` has found it, unless the command line says where etcd is."""
    from link_kv.items import get_anywhere, get_here

    given = click.get_current_context().find_root().params
    return get_here(client, name) if given["endpoints"] or given["url"] else get_anywhere(client, name)


def slashed(argument: str) -> str:
    """What to do where a name was typed that may be meant as a path."""
    path = argument if "/" in argument else argument.replace(".", "/", 1)
    return f"a path starts with a slash: /{path}"


def _retold(error: LinkKVError, advice: str) -> LinkKVError:
    """An error with advice for the command line in place of that for a program, if it has any."""
    said, *python = _PYTHON.split(str(error), maxsplit=1)
    return type(error)(f"{said}; {advice}") if python else error


def stores(client: EtcdMiddleware, pattern: str, argument: str | None = None) -> list[Store]:
    """The stores of a name, or of a glob. ``argument`` is all that was typed, where that is more."""
    if _GLOB.isdisjoint(pattern):
        try:
            return [store_named(client, pattern)]
        except LinkKVError as error:
            raise _retold(error, slashed(argument or pattern)) from None
    known = store_names(client)
    matching = [name for name in known if fnmatchcase(name.lower(), pattern.lower())]
    if not matching:
        raise NotFound(f"{pattern}: no store is called so; there are {', '.join(known) or 'none'}")
    return [store_named(client, name) for name in matching]


def store_names(client: EtcdMiddleware) -> list[str]:
    """The names of all stores on the client's cluster."""
    from link_kv._core.items.writes import names
    from link_kv._core.wire.calls import run
    from link_kv._core.wire.exchange import Exchange

    found = run(names(Exchange(client._space), client._space.place("/")))
    return sorted(decode_name(segment) for segment, tree in found.trees.items() if tree)


def is_one(arguments: Iterable[str]) -> bool:
    """Whether arguments name one item, and could name no other."""
    [*names] = arguments
    return len(names) == 1 and "." in names[0] and _GLOB.isdisjoint(names[0])


def chosen(client: EtcdMiddleware, arguments: Iterable[str], value: str = "VALUE") -> list[Item]:
    """The items that arguments name: ``store.key``, ``store`` for all of it, and globs of both.

    ``value`` is how the one to be written was typed, for the error where there is no such item.
    """
    found: dict[int, Item] = {}
    for argument in arguments:
        name, dot, key = argument.partition(".")
        if is_path(argument) or not name:
            raise PathError(f"{argument!r}: items are named store.key, store, or by a glob such as store.*")
        items: list[Item] = []
        for store in stores(client, name, argument):
            if dot and _GLOB.isdisjoint(key):
                try:
                    items.append(store[key])
                except NotFound as error:
                    path = shlex.quote(f"{store.path}/{encode_name(key)}")
                    raise _retold(error, f"link-kv set {path} {value} makes one") from None
            else:
                items += [item for item in store.values() if not dot or fnmatchcase(item.key, key.lower())]
        if dot and not items:
            raise NotFound(f"{argument}: no item is called so")
        found.update((id(item), item) for item in items)
    return list(found.values())


# How they are shown


def text_of(item: Item, value: Any, formatted: bool, units: str | None) -> str:
    """A value of an item as one line."""
    if value is None or value is MISSING:
        return ""
    value = in_units(item, value, units)
    if formatted and units is None:
        return plain(item.description.formatted(value))
    if isinstance(value, (dict, list)):
        from ._documents import dumps

        return dumps(value)
    stored = encode(value)
    text, described = preview(stored)
    return f"<{text}>" if described else plain(stored)


def in_units(item: Item, value: Any, units: str | None) -> Any:
    if value is None or units is None:
        return value
    with item._named():
        return item.description.in_units(value, units)


def time_of(timestamp: float | None) -> str:
    """A time on this machine's clock, ``-`` for none."""
    if timestamp is None:
        return "-"
    return datetime.fromtimestamp(timestamp).astimezone().isoformat(" ", "milliseconds")
