"""``link-kv up``: an etcd on this machine, in the foreground."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import click

from link_kv import local
from link_kv._core.wire.failures import WireFailure
from link_kv.errors import LinkKVError, LocalEtcdError

DEFAULT_PORT = 2379  # where clients look when they are told nothing


@click.command("up")
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep the data in this directory. Without it they are removed at the end.",
)
@click.option(
    "--port",
    type=click.IntRange(1, 65_535),
    help=f"The port for clients, on 127.0.0.1. Without it {DEFAULT_PORT}, or a free one when that is taken.",
)
def command(data_dir: Path | None, port: int | None) -> None:
    """Run an etcd on this machine until Ctrl-C."""
    try:
        with _start(data_dir, port) as etcd:
            endpoint = etcd.endpoints[0]
            click.echo(f"etcd {etcd.version} is running at {endpoint}. Ctrl-C stops it.")
            click.echo(f"Its data are in {etcd.data_dir}" + (", until it stops." if etcd.temporary else "."))
            if endpoint != f"127.0.0.1:{DEFAULT_PORT}":
                click.echo(f"Programs find it with: export LINK_KV_ENDPOINTS={endpoint}")
            with _announced(etcd):
                etcd.wait()
            raise LocalEtcdError(f"etcd at {endpoint} ended {etcd.outcome()}")
    except KeyboardInterrupt:
        click.echo("\netcd has stopped.")


@contextlib.contextmanager
def _announced(etcd: local.LocalEtcd) -> Iterator[None]:
    """Let an administrator stop it, where that can be said to others."""
    from link_kv import EtcdMiddleware
    from link_kv._core.links import running
    from link_kv._core.wire.calls import run
    from link_kv._core.wire.config import Config

    with contextlib.ExitStack() as stack:
        try:
            with EtcdMiddleware._of(Config(endpoints=tuple(etcd.endpoints))) as client:
                cluster, member = run(running.ids(client._space.caller))
            stack.enter_context(running.announced(cluster, member))
        except (OSError, LinkKVError, WireFailure) as error:
            if not etcd.wait(1):  # else that it died is all that there is to say
                click.echo(f"link-kv: it cannot be stopped by an admin_request: {error}", err=True)
        yield


def _start(data_dir: Path | None, port: int | None) -> local.LocalEtcd:
    if port is None and local.is_free(DEFAULT_PORT):
        with contextlib.suppress(local.PortTaken):  # since then
            return local.start(data_dir, port=DEFAULT_PORT)
    return local.start(data_dir, port=port)
