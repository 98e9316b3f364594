"""The ``link-kv`` command. Each command is one module of this package; `_run` lists them."""

from __future__ import annotations

import sys


def main() -> None:
    """Run ``link-kv`` with the arguments of this process, and exit: 0, or with one line on stderr."""
    try:
        try:
            import click  # noqa: F401
        except ModuleNotFoundError as error:
            if error.name != "click":
                raise
            sys.exit("link-kv: the command line needs click: pip install 'link_kv[cli]'")
        from ._run import run

        status = run(sys.argv[1:])
    except KeyboardInterrupt:  # while that is imported; `run` sees to what comes later
        print("link-kv: interrupted", file=sys.stderr)
        status = 130
    sys.exit(status)
