"""What gRPC made, and what must not go once the interpreter ends.

When gRPC's objects go they take locks and wait for threads of gRPC's own. As the interpreter ends those
threads stop wherever they are, with locks that are never given back: what went then would wait for ever.
"""

from __future__ import annotations

import atexit
import ctypes
import weakref
from typing import Any

from link_kv._core.wire.forks import members

_MADE: weakref.WeakSet[Any] = weakref.WeakSet()

_KEPT: list[Any] = []
ctypes.pythonapi.Py_IncRef(ctypes.py_object(_KEPT))  # or it would go with this module, and all that is in it


def keep_at_the_end(made: Any) -> None:
    """Never let something go that is still there when the program ends."""
    _MADE.add(made)


def keep_for_good(made: Any) -> None:
    """Never let something go."""
    _KEPT.append(made)


atexit.register(lambda: keep_for_good(members(_MADE)))
