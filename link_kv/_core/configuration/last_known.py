"""The last known configuration on disk, for programs that must start while etcd is down.

One file for each cluster, prefix and path, in ``conf`` below `link_kv.home`. Files are replaced whole, and
only their owner can read them. What is in them is data, as it was in etcd.
"""

from __future__ import annotations

import hashlib
import json
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

from link_kv._core.configuration.tree import Stored
from link_kv._core.files import replace
from link_kv._core.items.home import home
from link_kv.errors import ConfigError


class LastKnown(NamedTuple):
    stored: Stored
    read_at: datetime


def file_of(source: str) -> Path:
    """The file for a configuration, whose cluster, prefix and path `source` names. Raises `OSError`."""
    try:
        directory = Path(home())
    except ConfigError as error:
        raise FileNotFoundError(str(error)) from error
    return directory / "conf" / f"{hashlib.sha256(source.encode()).hexdigest()}.json"


def save(source: str, stored: Stored) -> None:
    """Replace the file atomically. Raises `OSError`."""
    text = json.dumps(
        {
            "source": source,
            "revision": stored.revision,
            "read_at": datetime.now(timezone.utc).isoformat(),
            "categories": list(stored.categories.items()),
        },
        indent=1,
    )
    replace(file_of(source), text)


def load(source: str) -> LastKnown | None:
    """What was saved last, None when nothing was. Raises `OSError`, and `ValueError` for a damaged file."""
    file = file_of(source)
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    try:
        content = json.loads(text)
        categories = {
            str(name): {str(key): str(value) for key, value in texts.items()}
            for name, texts in content["categories"]
        }
        stored = Stored(categories, {}, int(content["revision"]))
        return LastKnown(stored, datetime.fromisoformat(content["read_at"]))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{file}: damaged: {error!r}; delete it") from error
