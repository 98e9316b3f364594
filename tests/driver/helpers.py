"""What the tests of the driver share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from link_kv import EtcdMiddleware
from link_kv.driver import (
    BOOL,
    Array,
    category,
    configuration,
)

PATH = "myproject/my.conf"
NOWHERE = "127.0.0.1:1"
"""A port that nothing listens on."""


def values(conf: Any) -> dict[str, dict[Any, Any]]:
    return {name: {key: each.value for key, each in found.items()} for name, found in conf.items()}


def stored(client: EtcdMiddleware) -> dict[str, bytes]:
    """All keys below the path of the tests, by their paths."""
    start = f"{client.prefix}/{PATH}".encode()
    return {
        key[len(start) :].decode(): value for key, value in client.raw.items() if key.startswith(start + b"/")
    }


def declared(*parameters: Any) -> Any:
    return configuration(category("C", *parameters))


def attacks(marker: Path) -> list[str]:
    """A hundred texts that create the file `marker` wherever one is evaluated, or its name is imported."""
    codes = [
        f"__import__('pathlib').Path({str(marker)!r}).touch()",
        f"__import__('os').system('touch {marker}')",
        f"open({str(marker)!r}, 'w')",
        f'eval("open({str(marker)!r}, chr(119))")',
        f"[c for c in ().__class__.__base__.__subclasses__() if c.__name__ == '_wrap_close'][0]"
        f".__init__.__globals__['system']('touch {marker}')",
        f"(lambda: exec('import os; os.system(\"touch {marker}\")'))()",
        f"os.system('touch {marker}')",
        f"pathlib.Path({str(marker)!r}).touch()",
        "link_kv_canary.x",
        "link_kv_canary",
        "getattr(link_kv_canary, 'x')",
    ]
    shapes = ["={}", "=py:{}", "=python:{}", "%{}%", "%py:{}%", "a%{}%b", "@{}", "{}", "{},{}"]
    texts = [shape.format(code, code) for code in codes for shape in shapes]
    return [*texts, "!!python/object/apply:link_kv_canary.x []", "cos\nsystem\n(S'touch'\ntR."][:100]


PTYPES = [
    None,
    str,
    object,
    int,
    float,
    bool,
    BOOL,
    list,
    dict,
    Array(),
    Array(int),
    Array(object),
    Array(type),
]
