"""``link-kv completion``: the script that lets a shell complete ``link-kv``."""

from __future__ import annotations

import click


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Write the script that lets SHELL complete commands, options and paths.

    Save it where the shell looks, such as ~/.local/share/bash-completion/completions/link-kv.
    """
    from click.shell_completion import get_completion_class

    from ._run import COMPLETE, link_kv

    completion = get_completion_class(shell)
    assert completion is not None
    click.echo(completion(link_kv, {}, "link-kv", COMPLETE).source())
