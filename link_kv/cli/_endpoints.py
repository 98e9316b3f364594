"""From arguments to endpoints, and how their replies are shown."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from link_kv.codec import decode
from link_kv.errors import ConfigError, LinkKVError, NotFound, Unavailable

from ._connect import OFFERED, PATIENCE, SPECIAL, configure
from ._items import store_named
from ._show import plain

if TYPE_CHECKING:
    from link_kv import EtcdMiddleware, Item
    from link_kv._core.endpoints.names import Found
    from link_kv.remote import Endpoints

lockout_option = click.option(
    "--lockout-key", metavar="KEY", help="What `lock` has shown, where the endpoint is locked."
)
reply_option = click.option(
    "--reply-timeout", type=float, default=10.0, show_default=True, metavar="SECONDS", help="For the answer."
)


def endpoint_argument() -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.argument("target", metavar="ENDPOINT", shell_complete=_complete)


def _complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """The endpoints and providers that begin as typed. Silent when etcd cannot be asked: a shell is
    waiting.
    """
    from link_kv import EtcdMiddleware
    from link_kv._core.endpoints import names as endpoint_names
    from link_kv._core.wire.calls import run

    try:
        with EtcdMiddleware._of(configure({**context.find_root().params, "timeout": PATIENCE})) as client:
            served = run(endpoint_names.everything(client._exchange()))
    except LinkKVError:
        return []
    names = {name for each in served for name in (each.name, each.service, f"{each.service}.{each.name}")}
    found = [name for name in sorted(names) if name.lower().startswith(incomplete.lower())]
    return [name for name in found if name.isprintable() and SPECIAL.isdisjoint(name)][:OFFERED]


def endpoints(client: EtcdMiddleware) -> Endpoints:
    """Sends requests, under a name that tells who asks."""
    from link_kv.remote import Endpoints
    from link_kv.store import _writer

    return Endpoints(client, f"link-kv {_writer(os.getpid())}")


def find(client: EtcdMiddleware, argument: str) -> Found | None:
    """The endpoint, or the attribute of one, that an argument names; None when it names an item or a store.

    Raises `LinkKVError` for what could be two things.
    """
    from link_kv._core.endpoints import names as endpoint_names
    from link_kv._core.wire.calls import run

    try:
        found = endpoint_names.resolve(argument, run(endpoint_names.everything(client._exchange())))
    except (NotFound, Unavailable):
        return None  # an item may be on another etcd, which is remembered
    if not found.endpoint and not found.specifier:
        return None  # a provider is a store
    path = _item(client, argument)
    if path is not None and (path != found.path or found.specifier):
        named = f"{found.endpoint or found.service}{'.' if found.specifier else ''}{found.specifier}"
        raise LinkKVError(
            f"{argument}: is {path} and the endpoint {named} of {found.service}; say which by its path, "
            f"or by {found.service}.{named}"
        )
    return found


def _item(client: EtcdMiddleware, argument: str) -> str | None:
    """The path of the store or item that an argument names, None for none."""
    name, dot, key = argument.partition(".")
    try:
        store = store_named(client, name)
        return store[key].path if dot else store.path
    except ConfigError:
        raise
    except LinkKVError:
        return None  # it is no store, or has no such item


def served_at(client: EtcdMiddleware, path: str) -> Found | None:
    """The endpoint whose item is at a path, None for none."""
    from link_kv._core.endpoints.names import Found, read_item, served_key
    from link_kv._core.wire.calls import run
    from link_kv.plan import Get

    at = client._space.place(path)
    if len(at.segments) != 2:
        return None  # items are the children of stores
    store = client._space.place(f"/{at.segments[0]}")
    _, (kvs,) = run(client._exchange().read([Get(served_key(store, at.segments[1]))]))
    served = read_item(kvs[0].value) if kvs else None
    return None if served is None else Found(*served, "", at.path)


def name_of(found: Found) -> str:
    """How the item of an endpoint is named as one."""
    store, _, key = found.path.removeprefix("/").partition("/")
    return f"{store}.{key}"


def item_of(client: EtcdMiddleware, found: Found) -> Item:
    """The item that an endpoint is."""
    from link_kv.items import get_here
    from link_kv.tree import decode_name

    store, _, key = found.path.removeprefix("/").partition("/")
    item: Item = get_here(client, decode_name(store))[decode_name(key)]
    return item


def value_in(payload: dict[str, Any], calibrated: bool = False) -> Any:
    """What a reply is about: its value, or all of it where it has none."""
    if calibrated:
        if "value_cal" not in payload:
            raise LinkKVError("the endpoint has no calibration")
        return payload["value_cal"]
    if "value_raw" in payload:
        return payload["value_raw"]
    if set(payload) == {"values"} and isinstance(payload["values"], list) and len(payload["values"]) == 1:
        return payload["values"][0]
    return payload


def show(value: Any) -> None:
    """Write a value of a reply as one line; nothing for an empty one."""
    from ._documents import dumps

    if isinstance(value, str):
        click.echo(plain(value))
    elif value != {}:
        click.echo(dumps(value))


def typed(text: str) -> Any:
    """What a person types as a value."""
    return decode(text.encode(errors="surrogateescape"))
