"""A command with commands below it."""

from __future__ import annotations

from difflib import get_close_matches

import click


class Group(click.Group):
    """Shows its help when no command is named, and offers the nearest one for one that is not there."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # click's own way to do so is an error in some of its versions, and none in others.
        if not args and not ctx.resilient_parsing:
            click.echo(ctx.get_help())
            ctx.exit()
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, known = args[0], self.list_commands(ctx)
        if name not in known and not name.startswith("-") and not ctx.resilient_parsing:
            near = get_close_matches(name, known, 1)
            ctx.fail(f"No such command '{name}'." + (f" Did you mean '{near[0]}'?" if near else ""))
        return super().resolve_command(ctx, args)
