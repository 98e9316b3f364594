"""The list of commands, and what all of them share: signals, and errors as one line."""

from __future__ import annotations

import importlib
import io
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import click

from link_kv.errors import LinkKVError, LocalEtcdError

from ._connect import options
from ._group import Group
from ._interrupts import Interrupts
from ._show import harmless

# Each command's module in this package, in the order of the help text. The module's `command` is the command;
# it is imported when it is asked for, so that one command's dependencies do not slow or break another.
COMMANDS = {
    "demo": "demo",
    "up": "up",
    "status": "status",
    "get": "get",
    "set": "set",
    "del": "delete",
    "watch": "watch",
    "describe": "describe",
    "serve": "serve",
    "cmd": "cmd",
    "ping": "ping",
    "lock": "lock",
    "unlock": "unlock",
    "monitor": "monitor",
    "record": "record",
    "service": "service",
    "call": "call",
    "identities": "identities",
    "list": "list_",
    "discover": "discover",
    "ls": "ls",
    "tree": "tree",
    "import": "import_",
    "export": "export",
    "diff": "diff",
    "config": "config",
    "backup": "backup",
    "restore": "restore",
    "user": "user",
    "role": "role",
    "auth": "auth",
    "certs": "certs",
    "completion": "completion",
}

COMPLETE = "_LINK_KV_COMPLETE"
"""The variable in which a shell asks for completions."""

# What a command exits with on failure, where that is not 1: `diff` says by 1 that something differs.
_FAILURE = {"diff": 2}

_INTERRUPTED = 130  # what shells report for a command that Ctrl-C ended


class _Commands(Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"{__package__}.{COMMANDS[cmd_name]}")
        command: click.Command = module.command
        return command


@click.group(
    cls=_Commands, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]}
)
@options
@click.version_option(package_name="link_kv", message="%(prog)s %(version)s")
@click.pass_context
def link_kv(context: click.Context, /, **options: Any) -> None:
    """etcd as a live Python dictionary, on the command line.

    The options here say where etcd is and stand before the command. What they leave out comes from the
    environment (LINK_KV_ENDPOINTS, LINK_KV_PREFIX, …) and from link/kv/middleware.conf.
    """
    context.ensure_object(dict)["command"] = context.invoked_subcommand
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def run(args: Sequence[str]) -> int:
    """Run one command and return its exit status. Errors are one line on stderr, status 1.

    SIGTERM and the terminal's end interrupt a command as Ctrl-C does, so that it cleans up. Under
    ``python -X dev`` an unexpected error shows its traceback.
    """
    interrupts = Interrupts()
    try:
        return _command(args)
    finally:
        interrupts.ignore()


def _command(args: Sequence[str]) -> int:
    warnings.showwarning = _warn
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    invoked: dict[str, str] = {}
    try:
        status: Any = link_kv.main(list(args), prog_name="link-kv", standalone_mode=False, obj=invoked)
    except click.Abort:
        return _complain("interrupted", _INTERRUPTED)
    except Exception as error:
        if sys.flags.dev_mode and not isinstance(error, (click.ClickException, LinkKVError, OSError)):
            raise
        return _complain(_message(error), _FAILURE.get(invoked.get("command", ""), 1))
    return status if isinstance(status, int) else 0


def _message(error: Exception) -> str:
    """An error as one line."""
    if isinstance(error, click.UsageError):
        path = error.ctx.command_path if error.ctx else "link-kv"
        if isinstance(error, click.NoSuchOption) and error.ctx and _is_global(name := error.option_name):
            return f"{name} stands before the command: link-kv {name} … {error.ctx.info_name}"
        said = error.format_message()
        text = f"{said}{'' if said.endswith(('.', '?', '!')) else '.'} Try '{path} --help'."
    elif isinstance(error, click.ClickException):
        text = error.format_message()
    elif isinstance(error, LocalEtcdError):
        text = str(error).strip().partition("\n")[0]  # the other lines, a server's log, are for programs
    elif isinstance(error, LinkKVError):
        text = str(error).replace("give user= and password=", "give --user and --password-file")
    elif isinstance(error, OSError):
        text = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    else:
        text = f"unexpected {type(error).__name__}: {error}"
    return text.strip() or "unknown error"


def _is_global(option: str) -> bool:
    return any(option in parameter.opts for parameter in link_kv.params)


def _warn(message: Warning | str, *where: object, **more: object) -> None:
    _complain(str(message))


def _complain(message: str, status: int = 1) -> int:
    line = harmless(message).replace("\n", "\\n")
    click.echo(f"link-kv: {line}", err=True)
    return status
