"""The list of commands, and what all of them share: signals, and errors as one line."""

from __future__ import annotations

import importlib
import math
import signal
import sys
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

import click

from link_kv.errors import LinkKVError

# Each command's module in this package, in the order of the help text. The module's `command` is the command;
# it is imported when it is asked for, so that one command's dependencies do not slow or break another.
COMMANDS = {
    "demo": "demo",
    "up": "up",
}

_INTERRUPTED = 130  # what shells report for a command that Ctrl-C ended
_ONE_INTERRUPT_SECONDS = 1.0


class _Commands(click.Group):
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
@click.version_option(package_name="link_kv", message="%(prog)s %(version)s")
@click.pass_context
def link_kv(context: click.Context) -> None:
    """etcd as a live Python dictionary, on the command line."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def run(args: Sequence[str]) -> int:
    """Run one command and return its exit status. Errors are one line on stderr, status 1.

    SIGTERM and the terminal's end interrupt a command as Ctrl-C does, so that it cleans up. Under
    ``python -X dev`` an unexpected error shows its traceback.
    """
    interrupt = _interrupter()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Shells start background commands with SIGINT ignored; those must be stoppable. nohup means it.
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, interrupt)
    try:
        status: Any = link_kv.main(list(args), prog_name="link-kv", standalone_mode=False)
    except click.Abort:
        return _complain("interrupted", _INTERRUPTED)
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else "link-kv"
        return _complain(f"{error.format_message()} Try '{path} --help'.")
    except click.ClickException as error:
        return _complain(error.format_message())
    except (LinkKVError, OSError) as error:
        return _complain(str(error))
    except Exception as error:
        if sys.flags.dev_mode:
            raise
        return _complain(f"unexpected {type(error).__name__}: {error}")
    return status if isinstance(status, int) else 0


def _interrupter() -> Callable[[int, FrameType | None], None]:
    """A signal handler that raises KeyboardInterrupt, once for signals that come close together.

    Programs that run others often pass one Ctrl-C on as two, and the second would hit the cleaning up.
    """
    last = -math.inf

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last > _ONE_INTERRUPT_SECONDS:
            last = now
            raise KeyboardInterrupt

    return interrupt


def _complain(message: str, status: int = 1) -> int:
    # The first line says it; the others, such as a server's log, are for programs.
    lines = message.strip().splitlines() or ["unknown error"]
    click.echo(f"link-kv: {lines[0]}", err=True)
    return status
