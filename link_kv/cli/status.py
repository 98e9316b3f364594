"""``link-kv status``: how the cluster is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import click

from link_kv.errors import AccessDenied, LinkKVError

from ._connect import connected
from ._show import console, json_option, lines, plain, terminal

if TYPE_CHECKING:
    from link_kv import EtcdMiddleware
    from link_kv._core.cluster.health import Health, Member
    from link_kv._core.wire.config import Config


T = TypeVar("T")

_ANSWERS = "answers"
"""The role of a member that is there, and tells this user no more."""


class _Asked(NamedTuple):
    endpoint: str
    health: Health | None
    error: LinkKVError | None


class _Line(NamedTuple):
    """A member, as it is shown."""

    name: str
    endpoint: str
    role: str
    health: Health | None
    error: str


@click.command("status")
@json_option
@connected
def command(client: EtcdMiddleware, as_json: bool) -> None:
    """Show the members, the leader, versions, database sizes and alarms of the cluster.

    Exits with 1 when something is wrong. What the user's role may not see is left out.
    """
    from link_kv._core.cluster.health import alarms, members
    from link_kv._core.wire.calls import run

    caller = client._space.caller
    asked = _ask(client._config, run(caller.endpoints()))
    first = next((each.health for each in asked if each.health), None)
    if first is None:
        raise asked[0].error or LinkKVError("no endpoint answers")
    known = _allowed(lambda: run(members(caller))) or []
    raised = _allowed(lambda: run(alarms(caller)))
    asked += _ask_others(client._config, asked, known)
    shown = [_line(each, known) for each in asked]
    names = {member.id: member.name for member in known}
    named = [(names.get(number) or f"{number:x}", kind) for number, kind in raised or []]
    if as_json:
        _as_json(first, shown, None if raised is None else named)
    elif terminal():
        _table(first, shown, named)
    else:
        lines(_plain(first, shown, named))
    if wrong := list(_troubles(shown, named)):
        raise click.ClickException("; ".join(wrong))


def _allowed(ask: Callable[[], T]) -> T | None:
    """What etcd answers, None when the user's role may not ask."""
    try:
        return ask()
    except AccessDenied:
        return None


def _ask(config: Config, endpoints: Sequence[str]) -> list[_Asked]:
    """Ask each endpoint for itself, all at once: one that is dead takes its whole timeout."""
    with ThreadPoolExecutor(max(1, len(endpoints))) as pool:
        return list(pool.map(lambda endpoint: _ask_one(config, endpoint), endpoints))


def _ask_one(config: Config, endpoint: str) -> _Asked:
    from link_kv import EtcdMiddleware
    from link_kv._core.cluster.health import health
    from link_kv._core.wire.calls import run

    try:
        with EtcdMiddleware._of(replace(config, endpoints=(endpoint,), srv_domain=None)) as client:
            return _Asked(endpoint, run(health(client._exchange())), None)
    except LinkKVError as error:
        return _Asked(endpoint, None, error)


def _ask_others(config: Config, asked: Sequence[_Asked], members: Sequence[Member]) -> list[_Asked]:
    """Ask the members that were not reached yet where they say that clients reach them.

    Without a login: nobody here chose these addresses, and etcd tells its status to everybody.
    """
    reached = {each.health.member for each in asked if each.health}
    tried = {each.endpoint for each in asked}
    found = []
    for member in members:
        addresses = [urlsplit(url) for url in member.urls]
        if member.id not in reached and addresses and tried.isdisjoint(each.netloc for each in addresses):
            tls = addresses[0].scheme == "https"
            bare = replace(config, user=None, password=None, tls=tls)
            found += _ask(bare, [addresses[0].netloc])
    return found


def _line(asked: _Asked, members: Sequence[Member]) -> _Line:
    health = asked.health
    member = next((each for each in members if _is(each, asked)), None)
    name = member.name if member else ""
    if isinstance(asked.error, AccessDenied):
        return _Line(name, asked.endpoint, _ANSWERS, None, "")  # and that is all it says
    if health is None:
        return _Line(name, asked.endpoint, "unreachable", None, str(asked.error))
    name = name or f"{health.member:x}"
    details = health.details
    if details is None:
        return _Line(name, asked.endpoint, _ANSWERS, health, "")
    role = "leader" if details.leader == health.member else "follower" if details.leader else "no leader"
    if member and member.learner:
        role = "learner"
    return _Line(name, asked.endpoint, role, health, "; ".join(details.errors))


def _is(member: Member, asked: _Asked) -> bool:
    if asked.health:
        return member.id == asked.health.member
    return asked.endpoint in (urlsplit(url).netloc for url in member.urls)


def _troubles(shown: Sequence[_Line], alarms: Sequence[tuple[str, str]]) -> Iterator[str]:
    for line in shown:
        if line.error:
            yield f"{line.name or line.endpoint}: {line.error}"
        elif line.role == "no leader":
            yield f"{line.name}: has no leader"
    for name, kind in alarms:
        yield f"{name}: alarm {kind}"


# Showing


def _plain(first: Health, shown: Sequence[_Line], alarms: Sequence[tuple[str, str]]) -> Iterator[str]:
    yield f"cluster\t{first.cluster:x}\trevision {first.revision}"
    for line in shown:
        told = ["member", plain(line.name) or "-", plain(line.endpoint), line.role]
        health = line.health
        details = health and health.details
        told += [details.version, str(details.size)] if details else ["-", "-"]
        told += [str(health.revision), f"{1000 * health.latency:.1f}"] if health else ["-", "-"]
        yield "\t".join(told)
    for name, kind in alarms:
        yield f"alarm\t{plain(name)}\t{kind}"


def _as_json(first: Health, shown: Sequence[_Line], alarms: Sequence[tuple[str, str]] | None) -> None:
    from ._documents import dumps

    members = []
    for line in shown:
        item: dict[str, Any] = {"name": line.name, "endpoint": line.endpoint, "role": line.role}
        if line.health:
            item |= {"revision": line.health.revision, "latency": line.health.latency}
        if line.health and line.health.details:
            item |= {"version": line.health.details.version, "db_size": line.health.details.size}
        if line.error:
            item["error"] = line.error
        members.append(item)
    answer: dict[str, Any] = {"cluster": f"{first.cluster:x}", "revision": first.revision, "members": members}
    if alarms is not None:
        answer["alarms"] = [{"member": name, "alarm": kind} for name, kind in alarms]
    click.echo(dumps(answer, 2))


def _table(first: Health, shown: Sequence[_Line], alarms: Sequence[tuple[str, str]]) -> None:
    from rich.filesize import decimal
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="dim", pad_edge=False)
    for title in ("Member", "Endpoint", "Role", "Version"):
        table.add_column(title, overflow="fold")
    for title in ("Database", "Revision", "Latency"):
        table.add_column(title, justify="right")
    for line in shown:
        style = {"leader": "bold green", "follower": "green", "learner": "yellow"}.get(
            line.role, "" if line.role == _ANSWERS else "bold red"
        )
        cells: list[Any] = [Text(plain(line.name) or "-"), Text(plain(line.endpoint)), Text(line.role, style)]
        health = line.health
        details = health and health.details
        cells += [details.version, decimal(details.size)] if details else ["-", "-"]
        cells += [str(health.revision), f"{1000 * health.latency:.1f} ms"] if health else ["-", "-"]
        table.add_row(*cells)
    out = console()
    out.print(Text(f"Cluster {first.cluster:x} at revision {first.revision}"))
    out.print(table)
    for name, kind in alarms:
        out.print(Text(f"Alarm {kind} on {plain(name)}", "bold red"))
