"""The ``link-kv`` command. Each command is one module of this package; `_run` lists them."""

from __future__ import annotations

import sys


def main() -> None:
    """Run ``link-kv`` with the arguments of this process, and exit: 0, or 1 with one line on stderr."""
    try:
        import click  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "click":
            raise
        sys.exit("link-kv: the command line needs click: pip install 'link_kv[cli]'")
    from ._run import run

    sys.exit(run(sys.argv[1:]))
