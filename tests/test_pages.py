"""That pages which list everything of something do."""

from __future__ import annotations

import re
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


def test_the_names_at_the_top_are_the_public_ones() -> None:
    assert [name for name in dir(link_kv) if not name.startswith("__")] == sorted(link_kv.__all__)
    for name in link_kv.__all__:
        assert getattr(link_kv, name) is not None
