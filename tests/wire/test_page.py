"""docs/explanation/failures.md promises nothing that is not tested."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

TESTS = Path(__file__).parent.parent
PAGE = (TESTS.parent / "docs/explanation/failures.md").read_text(encoding="utf-8")


def test_the_tests_that_the_page_names_exist() -> None:
    named = re.findall(r"^(?:<!-- tests: )?([\w/]+)\.py::(\w+)", PAGE, re.MULTILINE)
    assert len(named) > 50
    for module, name in named:
        assert callable(getattr(importlib.import_module(f"tests.{module.replace('/', '.')}"), name))


def test_every_table_names_its_tests() -> None:
    for section in PAGE.split("\n## ")[1:]:
        assert "\n|" not in section or "<!-- tests: " in section, section.partition("\n")[0]
