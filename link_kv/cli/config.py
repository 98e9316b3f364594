"""``link-kv config``: configurations, and the processes that follow them."""

from __future__ import annotations

import importlib

import click

from ._group import Group

# Each command's module in this package; imported when it is asked for.
COMMANDS = {
    "status": "_config_status",
    "check": "_config_status",
    "import": "_config_files",
    "export": "_config_files",
    "diff": "_config_files",
    "log": "_config_history",
    "rollback": "_config_history",
    "explain": "_config_history",
}


class _Commands(Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"{__package__}.{COMMANDS[cmd_name]}")
        command: click.Command = getattr(module, f"{cmd_name}_command")
        return command


@click.group("config", cls=_Commands)
@click.pass_context
def command(context: click.Context) -> None:
    """Configurations: who runs which revision, files, and history.

    A configuration is a tree that programs read by b3j0f.conf or pydantic: PATH/CATEGORY/param, or
    PATH/field.
    """
    # `config diff` exits like `diff`: 1 says that something differs.
    context.ensure_object(dict)["command"] = context.invoked_subcommand
