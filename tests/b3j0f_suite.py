"""b3j0f.conf's own test suite under link_kv's revival: ``python tests/b3j0f_suite.py SDIST``.

SDIST is the archive, or the folder in which ``pip download --no-binary :all: b3j0f.conf==0.3.22`` left it.
The suite's files are called ``test/core.py`` and the like, so no runner finds them by itself.
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
import unittest
import zipfile
from pathlib import Path

import link_kv  # noqa: F401 - makes the import of b3j0f.conf work

EXPECTED = 166


def run(archive: Path) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(folder)
        (root,) = Path(folder).iterdir()
        # The package b3j0f joins its parts along sys.path: its siblings are the installed ones.
        sys.path.insert(0, str(root))
        os.chdir(folder)  # its loggers write where they are
        suite = unittest.TestSuite()
        for file in sorted(root.glob("b3j0f/**/test/*.py")):
            name = ".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
            module = importlib.import_module(name)
            suite.addTests(unittest.defaultTestLoader.loadTestsFromModule(module))
        result = unittest.TextTestRunner().run(suite)
        passed = result.testsRun - len(result.failures) - len(result.errors) - len(result.skipped)
    print(f"{passed} of {EXPECTED} tests of {archive.name} pass on Python {sys.version.split()[0]}")
    return passed == EXPECTED


if __name__ == "__main__":
    given = Path(sys.argv[1]).resolve()
    (archive,) = given.glob("b3j0f.conf-*.zip") if given.is_dir() else [given]
    sys.exit(not run(archive))
