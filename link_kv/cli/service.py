"""``link-kv service``: run services from a file or a module."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import click

from link_kv.errors import ConfigError

from ._linking import link_options, no_tls_option
from ._show import plain

if TYPE_CHECKING:
    from link_kv import Service


@click.command("service")
@click.argument("where", metavar="FILE|MODULE[:CLASS]")
@click.option("--name", metavar="NAME", help="What it is found by; its own name by default.")
@click.option("--listen", metavar="HOST[:PORT]", help="Where; by default a free port for this machine alone.")
@click.option("--advertise", metavar="HOST:PORT", help="The address that clients are told.")
@click.option("--serve-cert", metavar="FILE", help="The certificate to serve with; by default --cert.")
@click.option("--serve-key", metavar="FILE", help="Its key.")
@no_tls_option
@click.option(
    "--ttl", type=float, default=10, show_default=True, help="Seconds until a dead one is forgotten."
)
@click.option("-v", "--verbose", is_flag=True, help="Log more, on standard error.")
@click.pass_context
def command(
    context: click.Context,
    where: str,
    name: str | None,
    listen: str | None,
    advertise: str | None,
    serve_cert: str | None,
    serve_key: str | None,
    no_tls: bool,
    ttl: float,
    verbose: bool,
) -> None:
    """Run a service until Ctrl-C: a class of a Python file, such as heartbeat.py:Heartbeat, or of a module.

    Without a CLASS it is the only subclass of Service in there. It is made without arguments.
    """
    from link_kv.services import until_over

    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING, format="%(asctime)s %(levelname)s %(message)s"
    )
    service = _made(where)
    if name is not None:
        service._name = name
    options = link_options(context, no_tls)
    service._settle = lambda connect: options  # type: ignore[method-assign]
    given: dict[str, Any] = {
        "listen": listen,
        "advertise": advertise,
        "cert_cert": serve_cert,
        "cert_key": serve_key,
        "ttl": ttl,
    }
    with contextlib.suppress(KeyboardInterrupt), service:
        service.start_in_thread(**{key: value for key, value in given.items() if value is not None})
        click.echo(f"{plain(service.name)} is running at {service.address}. Ctrl-C stops it.")
        until_over(service)


def _made(where: str) -> Service:
    from link_kv import Service

    head, colon, name = where.rpartition(":")
    source = head if colon else where
    module = _module(source)
    if colon:
        found = getattr(module, name, None)
        if not (isinstance(found, type) and issubclass(found, Service)):
            raise ConfigError(f"{source}: has no service called {name!r}")
        return found()
    classes = [
        each
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, Service) and each.__module__ == module.__name__
    ]
    if len(classes) != 1:
        names = ", ".join(sorted(each.__name__ for each in classes)) or "none"
        raise ConfigError(f"{source}: name the service, {source}:CLASS; there are: {names}")
    return classes[0]()


def _module(source: str) -> ModuleType:
    """Run a file, or import a module: from the working directory too, which who gives the command chose."""
    path = Path(source)
    if path.suffix == ".py":
        spec = importlib.util.spec_from_file_location(path.stem, path)
        if spec is None or spec.loader is None or not path.is_file():
            raise ConfigError(f"{source}: there is no such file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module
        spec.loader.exec_module(module)
        return module
    sys.path.insert(0, "")
    try:
        return importlib.import_module(source)
    except ModuleNotFoundError as error:
        raise ConfigError(f"{source}: {error}") from None
