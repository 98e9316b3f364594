"""What gRPC's objects need of us when a thread ends, or is interrupted, in the midst of them.

gRPC has threads of its own, and its calls and channels have locks that these share with ours. Nobody releases
a lock whose thread is gone, or has left through an exception between taking it and what should release it.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import threading
from typing import Any

from link_kv._core.living import Living

_MADE: Living[Any] = Living()

_KEPT: list[Any] = []
ctypes.pythonapi.Py_IncRef(ctypes.py_object(_KEPT))  # or it would go with this module, and all that is in it


def keep_at_the_end(made: Any) -> None:
    """Never let a call or a channel go that is still there when the program ends.

    Threads stop wherever they are then. What goes takes its lock, and would wait for it for ever.
    """
    _MADE.add(made)


def keep_for_good(made: Any) -> None:
    """Never let something go."""
    _KEPT.append(made)


def abandon(channel: Any, call: Any = None) -> None:
    """Never close a channel, nor let it go: this thread was interrupted as it opened a stream, or closed it.

    gRPC may know of a stream then that no thread follows, or of a closing that nobody ends, and would wait
    for it for ever.
    """
    keep_for_good(channel)
    release_locks(channel, call)


@atexit.register
def _keep_all() -> None:
    keep_for_good(list(_MADE))


def release_locks(channel: Any, call: Any = None) -> None:
    """Release the locks of a channel and a call that this thread holds, now that it is outside of them.

    An interrupt can come just when Python has taken a lock, or is about to release it.
    """
    held = gc.get_referents(*gc.get_referents(channel._channel)) if hasattr(channel, "_channel") else []
    if hasattr(call, "_state"):
        held.append(call._state.condition)
    for condition in held:
        if isinstance(condition, threading.Condition):
            with contextlib.suppress(RuntimeError):  # it is not held, or not any more
                while True:
                    condition.release()
