"""``link-kv cmd``: call a method of an endpoint."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from ._connect import connected
from ._endpoints import endpoint_argument, endpoints, lockout_option, reply_option, show, typed, value_in
from ._show import json_option

if TYPE_CHECKING:
    from link_kv import EtcdMiddleware

_KEYWORD = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)


@click.command("cmd", context_settings={"ignore_unknown_options": True})
@endpoint_argument()
@click.argument("method")
@click.argument("args", nargs=-1, metavar="[VALUE|NAME=VALUE]…")
@lockout_option
@reply_option
@json_option
@connected
def command(
    client: EtcdMiddleware,
    target: str,
    method: str,
    args: Sequence[str],
    lockout_key: str | None,
    reply_timeout: float,
    as_json: bool,
) -> None:
    """Call a method that an endpoint lets others call, and write what it returns.

    METHOD may also be ping, lock, unlock, is_locked, set_condition, scheduled_action or single_schedule.
    Values are read as `set` reads them.
    """
    values: list[Any] = []
    keywords: dict[str, Any] = {}
    for arg in args:
        found = _KEYWORD.fullmatch(arg)
        if found:
            keywords[found[1]] = typed(found[2])
        else:
            values.append(typed(arg))
    with endpoints(client) as all_endpoints:
        payload = all_endpoints.cmd(
            target, method, values, keywords, lockout_key or False, timeout=reply_timeout
        )
    show(payload if as_json else value_in(payload))
