"""What a watch has to read besides its stream: the range to begin with, the past, and whether it still is."""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Iterator

from link_kv._core.watching.replica import Replica
from link_kv._core.watching.watch_machine import Action, Ask, Check, Load, Machine, Question
from link_kv._core.wire.calls import run
from link_kv._core.wire.exchange import Exchange, Namespace
from link_kv.errors import AccessDenied, LinkKVError, RevisionError, Unavailable
from link_kv.plan import Get
from link_kv.tree import Place

_IDLE = 1.0
"""Seconds after which the thread ends when nothing is asked."""
_AGAIN = 0.05
EACH = 0.5
"""Seconds that each of several endpoints has at first for what a watch asks when it is opened again."""

Pairs = list[tuple[bytes, bytes, int]]


def read_range(
    space: Namespace, at: Place, revision: int = 0, *, keys_only: bool = False, seconds: float = math.inf
) -> tuple[int, Pairs]:
    """The keys of a place and below it, now or at a revision, and at which that is; within some seconds."""
    gets = [Get(at.marker, at.end, keys_only=keys_only, revision=revision)]
    if at.segments:
        gets.append(Get(at.key, keys_only=keys_only, revision=revision))
    ex = Exchange(space)
    ex.deadline = min(ex.deadline, time.monotonic() + seconds)
    read, found = run(ex.read(gets))
    return read, [(kv.key, kv.value, kv.mod_revision) for kvs in found for kv in kvs]


def read_past(space: Namespace, at: Place, revision: int) -> Replica:
    """What was there just before a revision. Raises `RevisionError` when that is gone, or still to come."""
    replica = Replica(at)
    if revision == 1:
        return replica
    try:
        _, pairs = read_range(space, at, revision - 1)
    except RevisionError:
        # At the compacted revision itself what it wrote can be replayed; what was there before is gone.
        _, pairs = read_range(space, at, revision)
        pairs = [pair for pair in pairs if pair[2] < revision]
    replica.load(revision - 1, pairs)
    return replica


class Asker:
    """Answers a machine's questions, in a thread of its own while there are any. A daemon.

    Args:
        space: where to ask.
        lock: the lock on the machine.
        carry_out: does what the machine wants then, with the lock held.
        poll: finds out how far watches are that catch up; whether it is to be called again.
        note: logs, and runs no handler of users here.
        fail: told of what has ended the thread.
    """

    def __init__(
        self,
        space: Namespace,
        machine: Machine,
        lock: threading.Condition,
        carry_out: Callable[[Iterator[Action]], None],
        poll: Callable[[], bool],
        note: Callable[..., None],
        fail: Callable[[BaseException], None],
    ) -> None:
        self._space = space
        self._machine = machine
        self._lock = lock
        self._carry_out = carry_out
        self._poll = poll
        self._note = note
        self._fail = fail
        self._polling = False
        self._questions: queue.SimpleQueue[Question | Callable[[], None] | None] = queue.SimpleQueue()
        self.thread: threading.Thread | None = None

    def ask(self, question: Question | Callable[[], None]) -> bool:
        """Have a question answered; False when no thread could be started for it. With the lock held."""
        if self.thread is None:
            thread = threading.Thread(target=self._run, name="link-kv-watch-reads", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                return False
            self.thread = thread
        self._questions.put(question)
        return True

    def poll(self) -> bool:
        """Find out again and again how far watches are, until they have caught up.

        False when no thread could be started for it. With the lock held.
        """
        self._polling = self._polling or self.ask(self._poll_once)
        return self._polling

    def _poll_once(self) -> None:
        more = self._poll()
        if more and self._questions.empty():
            time.sleep(_AGAIN)
        with self._lock:
            self._polling = False
            if more:
                self.poll()

    def close(self) -> None:
        """Answer no more."""
        self._questions.put(None)

    def _run(self) -> None:
        try:
            self._answer_all()
        except BaseException as error:  # noqa: BLE001 - logged there
            with self._lock:
                self.thread = None
            self._fail(error)

    def _answer_all(self) -> None:
        while True:
            try:
                question = self._questions.get(timeout=_IDLE)
            except queue.Empty:
                with self._lock:
                    if self._questions.empty():
                        self.thread = None
                        return
                continue
            if question is None:
                return
            if not isinstance(question, (Load, Check, Ask)):
                question()
            elif question.watch.turn == question.turn:
                self._answer(question)

    def _answer(self, question: Question) -> None:
        watch, turn = question.watch, question.turn
        actions: Iterator[Action]
        try:
            if isinstance(question, Load):
                revision, pairs = read_range(self._space, watch.at)
                actions = self._machine.loaded(watch, turn, revision, pairs)
            elif isinstance(question, Check):
                actions = self._machine.checked(watch, turn, self._still_there(question))
            else:
                run(Exchange(self._space).range(Get(*watch.range, limit=1, keys_only=True)))
                actions = self._machine.asked(watch, turn, None, question.reason)
        except Unavailable as error:
            # The stream will be gone as well, and the question void; or else it is asked once more.
            message = "%s: what a watch has to read could not be read yet: %s"
            self._note(logging.WARNING, message, watch.at.path, error)
            time.sleep(_AGAIN)
            self._questions.put(question)
            return
        except LinkKVError as error:
            refusal = type(error)(f"{watch.at.path}: {error}")
            if isinstance(error, AccessDenied):  # it names the path itself
                start, end = (str(key, "utf-8") for key in watch.range)
                refusal = AccessDenied(f"{error}: watching needs a role that reads from {start} to {end}")
            if isinstance(question, Ask):
                actions = self._machine.asked(watch, turn, refusal)
            else:
                actions = self._machine.failed(watch, turn, refusal)
        with self._lock:
            self._carry_out(actions)

    def _still_there(self, check: Check) -> bool:
        """Whether the cluster has the history behind a replica, as far as it has not been compacted."""
        at, revision = check.watch.at, check.watch.replica.revision
        key, held = check.known or (b"", None)
        get = Get(key, revision=revision) if held else Get(at.marker, at.end, limit=1, revision=revision)
        try:
            found = run(Exchange(self._space, each=EACH).range(get)).kvs
        except RevisionError:
            now = run(Exchange(self._space, each=EACH).range(Get(at.key or at.marker))).header.revision
            return bool(now >= revision)
        if held is None:
            return not found
        return bool(found and found[0].mod_revision == held.revision and found[0].value == held.value)
