"""What lives, for as long as it does."""

from __future__ import annotations

import sys
import threading

from link_kv._core.living import Living


class Thing:
    pass


def test_it_has_what_lives_once_until_it_goes() -> None:
    living: Living[Thing] = Living()
    one, other = Thing(), Thing()
    living.add(one)
    living.add(other)
    living.add(one)
    assert list(living) == [one, other]
    del one
    assert list(living) == [other]
    living.discard(other)
    living.discard(other)
    assert list(living) == []


def test_nothing_is_run_when_one_goes() -> None:
    living: Living[Thing] = Living()
    one = Thing()
    living.add(one)
    run: list[str] = []
    sys.setprofile(lambda frame, event, what: run.append(frame.f_code.co_name) if event == "call" else None)
    try:
        del one
    finally:
        sys.setprofile(None)
    assert run == []


def test_what_is_gone_leaves_no_more_than_ever_lived_at_once() -> None:
    living: Living[Thing] = Living()
    for _ in range(10_000):
        living.add(Thing())
    assert len(living._references) < 100


def test_iterating_minds_no_thread_that_adds() -> None:
    living: Living[Thing] = Living()
    kept = [Thing() for _ in range(20_000)]
    adding = threading.Thread(target=lambda: [living.add(each) for each in kept])
    adding.start()
    while adding.is_alive():
        assert set(living) <= set(kept)
    adding.join()
    assert list(living) == kept
