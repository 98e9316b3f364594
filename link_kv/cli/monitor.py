"""``link-kv monitor``: alerts, as they are sent."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from ._connect import connected
from ._items import time_of
from ._show import json_option, plain, terminal

if TYPE_CHECKING:
    from link_kv import EtcdMiddleware
    from link_kv._core.endpoints.alerts import Alert
    from link_kv.remote import Alerts

_PREFIX = "heartbeat."


@click.command("monitor")
@click.option(
    "-k",
    "--key",
    "patterns",
    multiple=True,
    metavar="PATTERN",
    help="Routing keys, such as 'sensor_value.*'; several times for several. By default all but heartbeats.",
)
@click.option("--heartbeats", is_flag=True, help="Tell instead which services have fallen silent.")
@click.option("--warning", type=float, default=120, show_default=True, help="Seconds of silence.")
@click.option("--critical", type=float, default=300, show_default=True, help="Seconds of silence.")
@json_option
@connected
def command(
    client: EtcdMiddleware,
    patterns: Sequence[str],
    heartbeats: bool,
    warning: float,
    critical: float,
    as_json: bool,
) -> None:
    """Show the alerts of all endpoints, until Ctrl-C.

    A line has the time, the routing key, and what the alert carries as JSON, with tabs between. Standard
    error tells which services are heard, and which are gone.
    """
    from link_kv.remote import Alerts

    def tell(name: str, state: str) -> None:
        click.echo(f"link-kv: {time_of(time.time())} {plain(name)} is {state}", err=True)

    wanted = (f"{_PREFIX}*",) if heartbeats else tuple(patterns) or ("*",)
    try:
        with Alerts(client, wanted, tell) as alerts:
            if heartbeats:
                _watch_heartbeats(alerts, warning, critical, as_json)
                return
            for alert in alerts:
                if patterns or not alert.routing_key.startswith(_PREFIX):
                    _show(alert, as_json)
    except KeyboardInterrupt:
        pass  # that is how it ends


def _show(alert: Alert, as_json: bool) -> None:
    from ._documents import dumps

    if as_json:
        click.echo(dumps(alert.plain()))
        return
    cells = [alert.timestamp, plain(alert.routing_key), dumps(alert.payload)]
    if terminal():
        cells[:2] = [click.style(cells[0], fg="bright_black"), click.style(cells[1], fg="cyan")]
        click.echo("  ".join(cells))
    else:
        click.echo("\t".join(cells))


def _watch_heartbeats(alerts: Alerts, warning: float, critical: float, as_json: bool) -> None:
    from link_kv._core.endpoints.heartbeats import Heartbeats

    from ._documents import dumps

    heartbeats = Heartbeats(warning, critical)
    for name in alerts.services:
        heartbeats.heard(name, time.monotonic())
    while True:
        now = time.monotonic()
        for name, state, silent in heartbeats.changed(now):
            if as_json:
                click.echo(dumps({"service": name, "state": state, "silent": round(silent, 1)}))
            else:
                click.echo(
                    "\t".join((time_of(time.time()), state, plain(name), f"silent for {silent:.0f} s"))
                )
        wait = heartbeats.next_change(now)
        alert = alerts.next(None if wait is None else wait + 0.01)
        if alert is not None:
            heartbeats.heard(alert.routing_key.removeprefix(_PREFIX), time.monotonic())
