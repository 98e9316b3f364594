"""Threads that keep what they came to, and how many of them pay."""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from link_kv.errors import ConfigError

log = logging.getLogger("link_kv.clients")

T = TypeVar("T", bound=threading.Thread)


class SilentEvent(threading.Thread):
    """A thread that runs ``method(*args, **kwargs)``, and keeps its result or what it raised.

    Start it with ``start()``. Nothing that it raises is printed: look at `exception`.
    """

    def __init__(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self.method, self.args, self.kwargs = method, args, kwargs
        self._value: Any = None
        self._exception: BaseException | None = None
        self._lock = threading.Lock()
        self._over = False
        self._waiting: list[threading.Event] = []

    @property
    def exception(self) -> BaseException | bool:
        """What the method raised; False when nothing, or not yet."""
        return self._exception or False

    @property
    def value(self) -> Any:
        """What the method returned; None until then."""
        return self._value

    def run(self) -> None:
        try:
            self._value = self.method(*self.args, **self.kwargs)
        except BaseException as error:  # noqa: BLE001 - whoever started this looks at it
            log.debug("%s: %s raised %s", self.name, self.method, type(error).__name__)
            self._exception = error
        finally:
            with self._lock:
                self._over = True
                for waiting in self._waiting:
                    waiting.set()

    def tell(self, waiting: threading.Event) -> None:
        """Set an event when the method is through; at once when it is."""
        with self._lock:
            self._waiting.append(waiting)
            if self._over:
                waiting.set()

    def forget(self, waiting: threading.Event) -> None:
        """Set an event no more that `tell` was given."""
        with self._lock:
            self._waiting.remove(waiting)


class Measured:
    """How many threads may run at once: more while waits for them get shorter, fewer while they get longer.

    Adapts once for each measurement. For one thread at a time.
    """

    def __init__(self, limit: int) -> None:
        if not isinstance(limit, int) or isinstance(limit, bool) or limit <= 0:
            raise ConfigError(f"limit={limit!r}: how many threads may run at once is a whole number above 0")
        self.limit = limit
        self.old = 0.0
        self._new = 0.0
        self._measured = False
        self._seen: frozenset[threading.Thread] = frozenset()

    @property
    def new(self) -> float:
        """The seconds that the last wait took."""
        return self._new

    @new.setter
    def new(self, seconds: float) -> None:
        self._new, self._measured = seconds, True

    def watch(self, threads: Sequence[T], most: int) -> list[T]:
        """The threads that still run, after a wait for one of them where there are too many to start another.

        Waits too where all of them were here the last time: nobody can start any then.
        """
        self._adapt(most)
        running = [thread for thread in threads if not _is_over(thread)]
        began = time.monotonic()
        waited, stuck = False, self._seen.issuperset(threads)
        while running and (len(running) >= self.limit or stuck):
            _wait_for_one(running)
            waited, stuck = True, False
            running = [thread for thread in running if not _is_over(thread)]
        if waited:
            self.new = time.monotonic() - began
        self._seen = frozenset(running)
        return running

    def _adapt(self, most: int) -> None:
        if not self._measured:
            return
        self._measured = False
        if self.old and self.old >= self._new and self.limit < most:
            self.limit += 1
        elif self.old <= self._new and self.limit > 1:
            self.limit -= 1
        self.old = self._new


def _is_over(thread: threading.Thread) -> bool:
    if thread.ident is None:
        raise ConfigError(f"{thread.name}: was not started")
    return not thread.is_alive() or (isinstance(thread, SilentEvent) and thread._over)


def _wait_for_one(threads: Sequence[threading.Thread]) -> None:
    """Wait until one of the threads is through; of others than ours, until the first of them is."""
    events = [thread for thread in threads if isinstance(thread, SilentEvent)]
    if len(events) < len(threads):
        next(thread for thread in threads if thread not in events).join()
        return
    woken = threading.Event()
    for event in events:
        event.tell(woken)
    woken.wait()
    for event in events:
        event.forget(woken)


def run_all(
    method: Callable[..., Any],
    arguments: Iterable[Mapping[str, Any]],
    most: int,
    progress: Callable[[int], Iterator[Any]] | None = None,
) -> list[Any]:
    """``method(**kwargs)`` for each of the arguments, several at a time; the results in the same order.

    After an exception no more are started; the first is raised once those that run are through.
    """
    given = [dict(each) for each in arguments]
    steps = iter(()) if progress is None else progress(len(given))
    measured = Measured(1)
    events: list[SilentEvent] = []
    running: list[SilentEvent] = []
    failed: list[BaseException] = []

    def note(still: list[SilentEvent]) -> list[SilentEvent]:
        """Tell of those that are through by now."""
        for event in running:
            if event not in still:
                next(steps, None)
                if event._exception is not None:
                    failed.append(event._exception)
        return still

    try:
        next(steps, None)
        for kwargs in given:
            running = note(measured.watch(running, most))
            if failed:
                break
            event = SilentEvent(functools.partial(method, **kwargs))
            event.start()
            events.append(event)
            running.append(event)
        while running:
            _wait_for_one(running)
            running = note([event for event in running if not _is_over(event)])
    finally:
        for event in events:
            event.join()
        if isinstance(steps, Generator):
            steps.close()
    for error in failed[1:]:
        log.warning("a call beside the one that is reported raised %s: %s", type(error).__name__, error)
    if failed:
        raise failed[0]
    return [event.value for event in events]
