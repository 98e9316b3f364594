"""The directory for what programs remember, and the clusters that are remembered there, with their stores.

There is one file for each address and prefix, below ``stores`` in that directory. It holds what `discover`
has read: names and descriptions, no value, no password.
"""

from __future__ import annotations

import json
import logging
import os
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from link_kv._core.files import replace
from link_kv.errors import ConfigError

log = logging.getLogger("link_kv.items")

VARIABLE = "LINK_KV_HOME"
DEFAULT = "~/.link_kv"

_home: str | None = None


def home(default: str | os.PathLike[str] | None = None) -> str:
    """The directory where programs keep what they remember; made when it is not there.

    Below it are ``stores``, what was discovered; ``certificates``, what was trusted at first sight; ``conf``,
    the last known configurations; and ``up``, which etcd `link-kv up` runs here.

    It is the one that was last given here; else, from the first use on, that in the environment variable
    ``LINK_KV_HOME``; else ``~/.link_kv``. A ``~`` and ``$VARIABLE`` in it are replaced. Raises `ConfigError`,
    a `ValueError`, for a path that is not absolute. Thread-safe.
    """
    global _home
    if default is not None:
        _home = _checked(os.fspath(default), "home()")
    elif _home is None:
        given = os.environ.get(VARIABLE)
        _home = _checked(given, VARIABLE) if given else _checked(DEFAULT, "the default")
    os.makedirs(_home, mode=0o700, exist_ok=True)
    return _home


def _checked(path: str, where: str) -> str:
    if not isinstance(path, str):
        raise ConfigError(f"{where}: {path!r}: a directory is named by text")
    full = os.path.expandvars(os.path.expanduser(path))
    if not os.path.isabs(full):
        raise ConfigError(f"{where}: {path!r} is not an absolute path")
    return os.path.normpath(full)


class Remembered(NamedTuple):
    """A cluster as it was discovered."""

    address: str
    prefix: str
    cluster: int
    seen: str
    """When, in ISO format."""
    stores: dict[str, dict[str, Any]]
    """Descriptions by the segments of the stores and of their items; ``{}`` for an item without one."""


def remember(address: str, prefix: str, cluster: int, stores: dict[str, dict[str, Any]]) -> None:
    """Replace what is remembered of an address. Raises `OSError`."""
    text = json.dumps(
        {
            "address": address,
            "prefix": prefix,
            "cluster": f"{cluster:x}",
            "seen": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "stores": stores,
        },
        indent=1,
    )
    replace(_directory() / f"{quote(address + prefix, safe='')}.json", text)


def remembered(prefix: str) -> list[Remembered]:
    """What is remembered for a prefix, by address. A damaged file is passed over, with a warning."""
    found = []
    for file in sorted(_directory().glob("*.json")):
        try:
            each = _load(file)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            log.warning("%s: cannot be read, and is passed over; delete it: %r", file, error)
            continue
        if each.prefix == prefix:
            found.append(each)
    return found


def _load(file: Path) -> Remembered:
    content = json.loads(file.read_text(encoding="utf-8"))
    stores = {
        str(store): {str(key): dict(description) for key, description in items.items()}
        for store, items in content["stores"].items()
    }
    address, prefix, seen = (str(content[key]) for key in ("address", "prefix", "seen"))
    return Remembered(address, prefix, int(content["cluster"], 16), seen, stores)


def _directory() -> Path:
    return Path(home()) / "stores"
