"""``link-kv service``: run services from a file or a module."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import click

from link_kv.errors import ConfigError

from ._linking import link_options, no_tls_option
from ._serving import log_to_stderr, ttl_option, verbose_option, where_options
from ._show import plain

if TYPE_CHECKING:
    from link_kv import Service, aio


@click.command("service")
@click.argument("where", metavar="FILE|MODULE[:CLASS]")
@click.option("--name", metavar="NAME", help="What it is found by; its own name by default.")
@where_options
@no_tls_option
@ttl_option
@verbose_option
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
    from link_kv import aio
    from link_kv.services import until_over

    log_to_stderr(verbose)
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
    given = {key: value for key, value in given.items() if value is not None}
    if isinstance(service, aio.Service):
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(_run(service, given))
        return
    with contextlib.suppress(KeyboardInterrupt), service:
        service.start_in_thread(**given)
        _tell(service)
        until_over(service)


async def _run(service: aio.Service, given: dict[str, Any]) -> None:
    from link_kv.services import until_over

    try:
        await service.start_in_thread(**given)
        _tell(service)
        await asyncio.to_thread(until_over, service)
    finally:
        await service.stop()


def _tell(service: Service) -> None:
    click.echo(f"{plain(service.name)} is running at {service.address}. Ctrl-C stops it.")


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
    if not all(part.isidentifier() for part in source.split(".")):
        raise ConfigError(f"{source!r}: is neither the name of a module nor a file that ends in .py")
    sys.path.insert(0, "")
    try:
        return importlib.import_module(source)
    except ModuleNotFoundError as error:
        raise ConfigError(f"{source}: {error}") from None
