"""Writers that make all kinds of changes, with values that never repeat."""

from __future__ import annotations

import contextlib
import itertools
import random
import threading
from collections.abc import Iterator, Sequence

from link_kv import EtcdMiddleware
from link_kv.errors import Conflict, ListIndexError, NotATree, NotFound, Unavailable

_unique = itertools.count(1)
_REFUSALS = (NotFound, NotATree, ListIndexError, Conflict, Unavailable)


def change(client: EtcdMiddleware, rng: random.Random) -> None:
    """One write to /t, which may be refused, or may or may not happen."""
    number, value = rng.randrange(8), next(_unique)
    roll = rng.random()
    with contextlib.suppress(*_REFUSALS):
        if roll < 0.5:
            client[f"/t/k{number}"] = value
        elif roll < 0.6:
            client[f"/t/d{number}"] = {"a": value, "b": {"c": value}}
        elif roll < 0.65:
            client[f"/t/d{number}"] = {}
        elif roll < 0.72:
            client.append(f"/t/l{number % 3}", value)
        elif roll < 0.77:
            client[f"/t/l{number % 3}"] = [next(_unique) for _ in range(rng.randrange(4))]
        elif roll < 0.82:
            del client[f"/t/l{number % 3}/1"]
        elif roll < 0.9:
            del client[f"/t/k{number}"]
        elif roll < 0.94:
            del client[f"/t/d{number}/b"]
        elif roll < 0.96:
            client["/t-beside"] = value
        else:
            client.update({f"/t/k{number}": value, f"/t/k{(number + 1) % 8}": value, f"/t/m/{number}": value})


@contextlib.contextmanager
def writing(endpoints: Sequence[str], prefix: str, number: int, seed: int = 0) -> Iterator[threading.Event]:
    """Two threads that make ``number`` changes; the event is set when they are through."""
    done = threading.Event()
    left = itertools.count()

    def write(rng: random.Random) -> None:
        with EtcdMiddleware(endpoints=endpoints, prefix=prefix) as client:
            while next(left) < number and not stopped.is_set():
                change(client, rng)

    stopped = threading.Event()
    threads = [threading.Thread(target=write, args=(random.Random(seed + each),)) for each in range(2)]

    def finish() -> None:
        for thread in threads:
            thread.join()
        done.set()

    for thread in threads:
        thread.start()
    last = threading.Thread(target=finish)
    last.start()
    try:
        yield done
    except BaseException:
        stopped.set()
        raise
    finally:
        last.join(120)
        assert done.is_set(), "the writers did not end"
