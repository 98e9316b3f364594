"""That pages which list everything of something do."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import link_kv
from link_kv._core.cluster.allowed import REQUESTS
from link_kv.live import Stats

ROOT = Path(__file__).parent.parent


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def test_every_method_of_etcd3_has_a_counterpart() -> None:
    import etcd3

    text = page("coming-from/etcd3.md")
    names = [name for name in dir(etcd3.Etcd3Client) if not name.startswith("_")]
    errors = [name for name, value in vars(etcd3.exceptions).items() if isinstance(value, type)]
    errors.remove("Etcd3Exception")  # the root of the others
    assert not [name for name in (*names, *errors) if f"`{name}`" not in text]


def test_every_logger_is_listed() -> None:
    used = set()
    for file in (ROOT / "link_kv").rglob("*.py"):
        module = ".".join(file.relative_to(ROOT).with_suffix("").parts)
        for argument in re.findall(r"log = logging.getLogger\((.*?)\)", file.read_text(encoding="utf-8")):
            used.add(module if argument == "__name__" else argument.strip("\"'"))
    listed = re.findall(r"^\| `(link_kv\.[\w.]+)`", page("reference/logging.md"), re.MULTILINE)
    assert sorted(listed) == sorted(used)


@pytest.mark.parametrize("name", Stats.__dataclass_fields__)
def test_every_counter_is_listed(name: str) -> None:
    assert f"\n| `{name}` | " in page("reference/logging.md")


def test_every_request_of_administrators_is_listed() -> None:
    listed = re.findall(r"^\| `([\w.]+)` \|", page("reference/admin-requests.md"), re.MULTILINE)
    assert sorted(listed) == sorted(REQUESTS)


def test_every_name_of_the_package_is_listed() -> None:
    """But for errors, which have a module of their own."""
    text = page("reference/api.md")
    names = [name for name in link_kv.__all__ if not hasattr(link_kv.errors, name)]
    assert not [name for name in names if f"`{name}`" not in text]


def test_every_call_of_the_mapping_is_listed() -> None:
    text = page("reference/mapping.md")
    names = [name for name in dir(link_kv.EtcdMiddleware) if not name.startswith("_")]
    for name in ("close", "from_url", "prefix"):  # of connections, not of what is in etcd
        names.remove(name)
    assert not [name for name in names if not re.search(rf"`{name}\b", text)]


def _public() -> Iterator[tuple[str, object]]:
    """All that is public by `__all__`, and the methods and properties of classes."""
    for found in pkgutil.iter_modules(link_kv.__path__, "link_kv."):
        module = importlib.import_module(found.name)
        for name in getattr(module, "__all__", ()):
            value = getattr(module, name)
            if inspect.isclass(value) or inspect.isroutine(value):
                yield f"{found.name}.{name}", value
            if inspect.isclass(value):
                for owner in value.__mro__:
                    if owner.__module__.startswith("link_kv"):
                        for member, each in vars(owner).items():
                            if not member.startswith("_") and (
                                inspect.isroutine(each) or isinstance(each, property)
                            ):
                                yield f"{found.name}.{name}.{member}", getattr(value, member)


def test_every_public_name_has_a_docstring() -> None:
    assert not [name for name, value in _public() if not inspect.getdoc(value)]


def test_every_extra_is_listed() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    section = text.partition("[project.optional-dependencies]\n")[2].partition("\n[")[0]
    extras = re.findall(r"^(\w+) = ", section, re.MULTILINE)
    listed = re.findall(r"^\| `(\w+)` \|", page("reference/extras.md"), re.MULTILINE)
    assert listed == extras


def test_the_names_at_the_top_are_the_public_ones() -> None:
    assert [name for name in dir(link_kv) if not name.startswith("__")] == sorted(link_kv.__all__)
    for name in link_kv.__all__:
        assert getattr(link_kv, name) is not None
