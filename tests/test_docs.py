"""What the README and the pages show is run, page by page and from top to bottom, on a real etcd.

`EtcdMiddleware()` and `link-kv` find that etcd, and a fresh prefix, in the environment. Which blocks are run,
and how, is said in CONTRIBUTING.md.
"""

from __future__ import annotations

import contextlib
import doctest
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Hashable, Iterator
from pathlib import Path

import pytest
from sybil import Document, Example, Region, Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser, SkipParser

from link_kv import EtcdMiddleware, items
from link_kv._core.items import home
from link_kv.local import LocalEtcd

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("**/*.md")])
COMPARE = doctest.ELLIPSIS
SECONDS = 60
"""Within which each command ends."""


def run_command(command: str) -> tuple[int | None, str]:
    """Its status and what it says; where it hangs no status, and in what lines its programs stand then."""
    with subprocess.Popen(
        ["bash", "-uo", "pipefail", "-c", command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        env={**os.environ, "PYTHONFAULTHANDLER": "1"},
        start_new_session=True,
    ) as shell:
        try:
            said, _ = shell.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(shell.pid, signal.SIGABRT)
            return None, shell.communicate()[0]
    return shell.returncode, said


def run_session(example: Example) -> str | None:
    """Run each `$ command` of a console block, and compare what it prints with the lines below it."""
    before, *steps = re.split(r"^\$ ", example.parsed, flags=re.MULTILINE)
    if before or not steps:
        return "a console block starts with `$ ` and a command"
    for step in steps:
        command, _, expected = step.partition("\n")
        status, said = run_command(command)
        if status is None:
            return f"$ {command}\ndid not end within {SECONDS} s\n{said}"
        if not doctest.OutputChecker().check_output(expected, said, COMPARE):
            return f"$ {command}\n--- expected\n{expected}--- got (exit {status})\n{said}"
        if status and not expected:
            return f"$ {command}\nexit {status}, with nothing printed"
    return None


def files_to_save(document: Document) -> Iterator[Region]:
    """The blocks below `<!-- save: NAME -->`: the reader saves them under this name, and so does the test."""
    for found in re.finditer(
        r"<!-- save: (\S+) -->\n\n```\w+\n(.*?)^```$", document.text, re.DOTALL | re.MULTILINE
    ):
        yield Region(found.start(), found.end(), found.groups(), save)


def save(example: Example) -> None:
    name, text = example.parsed
    Path(name).write_text(text, encoding="utf-8")


def close_what_is_open(document: Document) -> None:
    """What a page that did not come to its end has not closed itself."""
    for value in reversed(list(document.namespace.values())):
        if not isinstance(value, type) and callable(close := getattr(value, "close", None)):
            with contextlib.suppress(Exception):
                close()


EXAMPLES = Sybil(
    [
        SkipParser(),
        files_to_save,
        PythonCodeBlockParser(doctest_optionflags=COMPARE),
        CodeBlockParser("console", run_session),
    ],
    path=str(ROOT),
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_examples_of(
    page: Path, etcd: LocalEtcd, etcd_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # for the files that examples make
    monkeypatch.setenv("LINK_KV_HOME", str(tmp_path))
    monkeypatch.setenv("LINK_KV_ENDPOINTS", ",".join(etcd.endpoints))
    monkeypatch.setenv("LINK_KV_PREFIX", etcd_prefix)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    clients: dict[Hashable, EtcdMiddleware] = {}
    monkeypatch.setattr(items, "_clients", clients)  # those that get() makes when it is given none
    monkeypatch.setattr(home, "_home", None)
    document = EXAMPLES.parse(page)
    try:
        for example in document:
            example.evaluate()
    except BaseException:
        close_what_is_open(document)
        raise
    finally:
        for client in clients.values():
            client.close()
        for name in [name for name in logging.root.manager.loggerDict if name.startswith("link_kv")]:
            logging.getLogger(name).setLevel(logging.NOTSET)  # what a page has set is not for other tests


def test_the_links_of_the_top_pages_lead_somewhere() -> None:
    """Sphinx checks the links between the pages in docs/; these stand outside."""
    for page in sorted(ROOT.glob("*.md")):
        for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
            assert "://" in target or (page.parent / target).exists(), f"{page.name}: {target}"
