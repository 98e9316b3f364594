"""b3j0f.conf 0.3.22 on Python 3.10 to 3.13.

The package was last released in 2016, and `import b3j0f.conf` has failed since Python 3.7: it uses a keyword
as a module's name, names that the standard library has dropped, and bytecode of Python 3.5. A few lines
of eight of its modules are at fault. `install` puts a finder on `sys.meta_path` that knows these modules by
name and compiles them with those lines replaced. All else in b3j0f loads as it always did.

Nothing is lent to the standard library and taken back again, so no other thread can ever see it changed,
and an import that fails half way leaves nothing to restore. A module whose source has none of the lines,
such as one of a repaired release, is left to the ordinary import system.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import CodeType, ModuleType

_OURS = "from link_kv._core.configuration.b3j0f_stand_ins import"

# Each replacement keeps the number of lines, so that tracebacks point at the right ones.
_REPAIRS: dict[str, tuple[tuple[str, str], ...]] = {
    "b3j0f.utils.iterable": (("from collections import Iterable", "from collections.abc import Iterable"),),
    "b3j0f.utils.property": (("from collections import Hashable", "from collections.abc import Hashable"),),
    # It rewrites its functions' bytecode at import, as an optimisation.
    "b3j0f.utils.runtime": (
        (
            "from opcode import opmap, HAVE_ARGUMENT, EXTENDED_ARG",
            f"{_OURS} opmap, HAVE_ARGUMENT, EXTENDED_ARG",
        ),
    ),
    "b3j0f.aop.joinpoint.core": (
        ("    getargspec, isroutine, getmro\n)\n\n", f"    isroutine, getmro\n)\n{_OURS} getargspec\n"),
        # The second binding of a name in a class body is the one that counts.
        (
            "        return self._interception\n\n    def get_advices(",
            f"        return self._interception\n    {_OURS} apply_pointcut\n    def get_advices(",
        ),
    ),
    # `async` has been a keyword since 3.7; the module keeps its name.
    "b3j0f.annotation": (
        (
            "from .async import (\n"
            "    Synchronized, SynchronizedClass, Asynchronous, TimeOut, Wait, Observable\n"
            ")\n",
            "import importlib as _importlib; _async = _importlib.import_module('b3j0f.annotation.async')\n"
            "Synchronized, Asynchronous, Wait = _async.Synchronized, _async.Asynchronous, _async.Wait\n"
            "SynchronizedClass, TimeOut = _async.SynchronizedClass, _async.TimeOut; "
            "Observable = _async.Observable\n",
        ),
    ),
    "b3j0f.conf.parser.core": (
        # It has invalid escapes, which warn since 3.12.
        ('"""Parameter parser module.', 'r"""Parameter parser module.'),
        ("from collections import Iterable", "from collections.abc import Iterable"),
        ("from parser import ParserError", f"{_OURS} ParserError"),
    ),
    "b3j0f.conf.model.param": (
        ("from collections import Iterable", "from collections.abc import Iterable"),
        ("from parser import ParserError", f"{_OURS} ParserError"),
    ),
    "b3j0f.conf.configurable.core": (
        (
            "from inspect import getargspec, isclass, isroutine, isfunction, ismethod\n\n",
            f"from inspect import isclass, isroutine, isfunction, ismethod\n{_OURS} getargspec\n",
        ),
    ),
    # A test of the package's own suite.
    "b3j0f.conf.model.test.param": (("from parser import ParserError", f"{_OURS} ParserError"),),
}


class _Repaired(SourceFileLoader):
    """Loads a module from its source with some lines replaced, and leaves no bytecode of it behind."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        source = self.get_data(path)
        for old, new in _REPAIRS[fullname]:
            source = source.replace(old.encode(), new.encode())
        return self.source_to_code(source, path)


class _Finder:
    """Finds the modules that need repair; the ordinary import system finds all others."""

    @staticmethod
    def find_spec(
        fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in _REPAIRS:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or type(spec.loader) is not SourceFileLoader:
            return spec
        source = spec.loader.get_data(spec.loader.path)
        if any(old.encode() in source for old, _ in _REPAIRS[fullname]):
            spec.loader = _Repaired(fullname, spec.loader.path)
        return spec


def install() -> None:
    """Let `import b3j0f.conf` work from now on.

    Takes microseconds and imports nothing. Calling it again does nothing. Thread-safe.
    """
    if _Finder not in sys.meta_path:
        sys.meta_path.insert(0, _Finder)
