"""Files that are replaced as a whole."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path


def replace(file: Path, text: str) -> None:
    """Write a file so that others see all of it, or the one before. Only its owner can read it.

    Raises `OSError`.
    """
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=".new-")  # mode 0600
    try:
        with open(descriptor, "w", encoding="utf-8") as new:
            new.write(text)
            new.flush()
            os.fsync(descriptor)
        os.replace(name, file)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise
