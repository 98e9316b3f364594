"""``link-kv call``: call a method of a service."""

from __future__ import annotations

import os
import re
from typing import Any

import click

from link_kv.codec import decode
from link_kv.errors import NotFound

from ._linking import connect, no_tls_option
from ._show import harmless, json_option, plain

_KEYWORD = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)


@click.command("call", context_settings={"ignore_unknown_options": True})
@click.argument("service")
@click.argument("attribute")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.option("--wait", type=float, metavar="SECONDS", help="How long to wait for the answer.")
@json_option
@no_tls_option
@click.pass_context
def command(
    context: click.Context,
    service: str,
    attribute: str,
    arguments: tuple[str, ...],
    wait: float | None,
    as_json: bool,
    no_tls: bool,
) -> None:
    """Call ATTRIBUTE of SERVICE, and write what it answers.

    An argument is what it looks like: 0.5 is a number, true a bool, null nothing, [1, 2] a list, and all else
    text. NAME=VALUE is passed by its name. Text is written as it is, all else as JSON; with --json text too.
    """
    from ._documents import dumps

    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for argument in arguments:
        keyword = _KEYWORD.fullmatch(argument)
        if keyword:
            kwargs[keyword[1]] = _value(keyword[2])
        else:
            args.append(_value(argument))
    with connect(context, no_tls) as client:
        link = client.link(service)
        try:
            # Not what links have themselves, but for the one of these that is the service's.
            own = attribute == "shutdown_service"
            remote = link.shutdown_service if own else link.__getattr__(attribute)
        except AttributeError as error:
            raise NotFound(str(error)) from None
        answer = remote(*args, **kwargs, timeout=wait)
    if isinstance(answer, str) and not as_json:
        click.echo(harmless(answer))
    elif isinstance(answer, bytes):
        click.echo(plain(answer))
    else:
        click.echo(dumps(answer))


def _value(text: str) -> Any:
    """What an argument stands for: a JSON list or dict too, which a stored value is not."""
    if text[:1] in ("[", "{"):
        import orjson

        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise click.BadParameter(f"{text!r} is no JSON: {error}") from None
    return decode(os.fsencode(text))
