"""``link-kv demo``: a nested value in, the same value out, on a real etcd of its own."""

from __future__ import annotations

from pprint import pformat
from typing import TYPE_CHECKING

import click

from link_kv import local
from link_kv.errors import LinkKVError

if TYPE_CHECKING:
    from link_kv import EtcdMiddleware

TREE = {  # in the order in which etcd gives it back
    "enabled": True,
    "filters": ["red", "green"],
    "limits": {"high": 10, "low": -0.5},
    "name": "Lab 3",
    "notes": {},
}


@click.command("demo")
def command() -> None:
    """Show what link_kv does, on an etcd that comes and goes with it."""
    from link_kv import EtcdMiddleware
    from link_kv._core.wire.config import Config

    with local.start() as etcd:
        click.echo(f"etcd {etcd.version} is running at {etcd.endpoints[0]}, for this demo alone.")
        _code(f"client = EtcdMiddleware(endpoints={etcd.endpoints!r})")
        # What the environment and the user's files say is about another etcd.
        with EtcdMiddleware._of(Config(endpoints=tuple(etcd.endpoints))) as client:
            _show(client)
    click.echo("\netcd has stopped, and nothing is left behind.")


def _show(client: EtcdMiddleware) -> None:
    _title("Write a nested value: one transaction.")
    _code("client['/store'] = ", TREE)
    client["/store"] = TREE

    _title("These are the keys, as etcd holds them.")
    _keys(client)

    _title("Read it back.")
    _code("client['/store']")
    back = client["/store"]
    _value(back)
    if back != TREE:
        raise LinkKVError("what came back from /store is not what was written")

    _title("Change a leaf.")
    _code("client['/store/limits/high'] = 12")
    client["/store/limits/high"] = 12
    _code("client['/store/limits']")
    _value(client["/store/limits"])
    _keys(client, b"/store/limits/")

    _title("Delete it, and then the whole tree.")
    _code("del client['/store/limits/high']")
    del client["/store/limits/high"]
    _code("client['/store/limits']")
    _value(client["/store/limits"])
    _code("del client['/store']")
    del client["/store"]
    _code("'/store' in client")
    _value("/store" in client)


def _title(text: str) -> None:
    click.secho(f"\n# {text}", fg="green")


def _code(text: str, value: object = None) -> None:
    """Show a statement; a value at its end may take several lines."""
    if value is not None:
        text += _pretty(value).replace("\n", "\n" + " " * len(text))
    click.secho(">>> " + text.replace("\n", "\n... "), bold=True)


def _value(value: object) -> None:
    click.echo(_pretty(value))


def _pretty(value: object) -> str:
    return pformat(value, width=60, sort_dicts=False)


def _keys(client: EtcdMiddleware, start: bytes = b"/store") -> None:
    rows = [(_text(key), _text(value)) for key, value in client.raw.items() if key.startswith(start)]
    width = max(len(key) for key, _ in rows)
    for key, value in rows:
        click.echo(f"    {key:{width}}   {value}")


def _text(stored: bytes) -> str:
    return stored.decode(errors="backslashreplace")
