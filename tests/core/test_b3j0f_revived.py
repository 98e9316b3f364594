"""`import b3j0f.conf`, and what its repaired modules do. Its own suite is run by ``tox -e b3j0f``."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from link_kv._core.configuration import b3j0f_revived, b3j0f_stand_ins

b3j0f_revived.install()

SCRIPT_HEAD = """
import collections, inspect, opcode, sys, warnings

def state():
    return (
        dict(vars(collections)), dict(vars(inspect)), dict(vars(opcode)), list(warnings.filters),
        sys.modules.get("parser"), sys.modules["opcode"],
    )

before = state()
"""


def run_python(script: str, *path: Path) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter in which a warning is an error."""
    code = f"import sys; sys.path[:0] = {[str(entry) for entry in path]!r}\n{SCRIPT_HEAD}{script}"
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": ""},
    )


def succeeds(script: str, *path: Path) -> None:
    done = run_python(script, *path)
    assert done.returncode == 0, done.stderr


def package(root: Path, **sources: str) -> Path:
    """Modules of a package b3j0f, by their names with __ for the dots."""
    for name, source in sources.items():
        file = root.joinpath("b3j0f", *name.split("__")) / "__init__.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source)
    (root / "b3j0f" / "__init__.py").touch()
    return root


def test_the_import_works_and_leaves_the_standard_library_as_it_was() -> None:
    succeeds("""
import link_kv._core.configuration.b3j0f_revived
link_kv._core.configuration.b3j0f_revived.install()
import b3j0f.conf
from b3j0f.annotation import Asynchronous, Wait
assert Asynchronous.__module__ == Wait.__module__ == "b3j0f.annotation.async"
assert state() == before
assert not hasattr(collections, "Iterable")
assert "parser" not in sys.modules
""")


def test_the_standard_library_is_untouched_all_through_the_import() -> None:
    succeeds("""
import link_kv._core.configuration.b3j0f_revived
link_kv._core.configuration.b3j0f_revived.install()

class Spy:
    def find_spec(self, name, path, target=None):
        if name.startswith("b3j0f"):
            assert state() == before, name

sys.meta_path.insert(0, Spy())
import b3j0f.conf
""")


def test_an_import_that_fails_half_way_can_be_tried_again() -> None:
    succeeds("""
import link_kv._core.configuration.b3j0f_revived
link_kv._core.configuration.b3j0f_revived.install()

class Block:
    def find_spec(self, name, path, target=None):
        if name == "b3j0f.conf.driver.file.xml":
            raise ImportError("not now")

block = Block()
sys.meta_path.insert(0, block)
try:
    import b3j0f.conf
except ImportError as error:
    assert "not now" in str(error)
else:
    raise AssertionError
assert state() == before
sys.meta_path.remove(block)
import b3j0f.conf
assert state() == before
""")


def test_threads_may_import_at_once() -> None:
    succeeds("""
import threading
import link_kv._core.configuration.b3j0f_revived
start, errors = threading.Barrier(8), []

def work():
    start.wait()
    try:
        link_kv._core.configuration.b3j0f_revived.install()
        import b3j0f.conf
        assert b3j0f.conf.Configurable
    except BaseException as error:
        errors.append(error)

threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert not errors, errors
assert sys.meta_path.count(link_kv._core.configuration.b3j0f_revived._Finder) == 1
""")


def test_no_bytecode_is_left_of_a_repaired_module(tmp_path: Path) -> None:
    """Others would load it, who do not have link_kv."""
    package(tmp_path, utils="", utils__iterable="from collections import Iterable\n")
    script = """
import link_kv._core.configuration.b3j0f_revived
link_kv._core.configuration.b3j0f_revived.install()
import b3j0f.utils.iterable
assert b3j0f.utils.iterable.Iterable is collections.abc.Iterable
"""
    succeeds(script, tmp_path)
    assert (tmp_path / "b3j0f" / "utils" / "__pycache__").exists()
    assert not (tmp_path / "b3j0f" / "utils" / "iterable" / "__pycache__").exists()


def test_steps_aside_for_a_release_that_works(tmp_path: Path) -> None:
    package(
        tmp_path,
        annotation="from collections.abc import Iterable\n",
        conf="import b3j0f.annotation\n",
        conf__configurable="",
        conf__configurable__core="from inspect import isclass\n",
    )
    succeeds(
        """
import link_kv._core.configuration.b3j0f_revived
link_kv._core.configuration.b3j0f_revived.install()
import b3j0f.conf.configurable.core
from importlib.machinery import SourceFileLoader
for name, module in list(sys.modules.items()):
    if name.startswith("b3j0f"):
        assert type(module.__spec__.loader) is SourceFileLoader, name
""",
        tmp_path,
    )


def test_the_package_may_be_missing() -> None:
    done = run_python("""
sys.modules["b3j0f"] = None
import link_kv._core.configuration.b3j0f_revived
link_kv._core.configuration.b3j0f_revived.install()
import b3j0f.conf
""")
    assert done.returncode == 1
    assert "ModuleNotFoundError" in done.stderr


def test_replacements_keep_the_numbers_of_lines() -> None:
    for name, repairs in b3j0f_revived._REPAIRS.items():
        for old, new in repairs:
            assert old.count("\n") == new.count("\n"), name


# The repaired parts at work


def weave(function: Any) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Intercept a function; what each call handed to the interception."""
    from b3j0f.aop import weave

    seen: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def advice(joinpoint: Any) -> Any:
        seen.append((tuple(joinpoint.args), dict(joinpoint.kwargs)))
        return joinpoint.proceed()

    weave(function, advices=advice)
    return seen


def test_every_kind_of_argument_arrives() -> None:
    free = object()

    def function(a: int, /, b: int, c: int = 3, *rest: int, d: int, e: int = 5, **others: int) -> Any:
        return free, a, b, c, rest, d, e, others

    seen = weave(function)
    assert function(1, 2, d=4) == (free, 1, 2, 3, (), 4, 5, {})
    assert seen.pop() == ((1,), {"b": 2, "c": 3, "d": 4, "e": 5})
    assert function(1, b=2, d=4, z=9) == (free, 1, 2, 3, (), 4, 5, {"z": 9})
    assert function(1, 2, 6, 7, 8, d=4) == (free, 1, 2, 6, (7, 8), 4, 5, {})
    with pytest.raises(TypeError):
        function(1)


def test_an_intercepted_function_looks_like_itself() -> None:
    class Class:
        def method(self, number: int = 1) -> int:
            """Doubles."""
            return 2 * number

    weave(Class.method)
    assert Class().method(number=4) == 8
    assert Class.method.__doc__ == "Doubles."
    assert Class.method.__annotations__ == {"number": "int", "return": "int"}
    assert Class.method.__qualname__.endswith("Class.method")


def test_calls_from_many_threads_keep_their_arguments() -> None:
    def function(number: int) -> int:
        return number

    weave(function)
    wrong: list[tuple[int, int]] = []
    start = threading.Barrier(8)

    def work(offset: int) -> None:
        start.wait()
        for number in range(offset, offset + 500):
            if function(number) != number:
                wrong.append((offset, number))

    threads = [threading.Thread(target=work, args=(1000 * count,)) for count in range(8)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not wrong


def test_annotated_arguments_are_no_obstacle() -> None:
    def function(a: int, *, b: str = "") -> None: ...

    assert b3j0f_stand_ins.getargspec(function) == (["a"], None, None, None)
