"""The queues between the reading thread and a callback."""

from __future__ import annotations

from link_kv._core.watching.consumer import AllQueue, LatestQueue
from link_kv._core.watching.replica import Batch, Change
from link_kv.tree import MISSING


def batch(revision: int, *changes: tuple[str, object, object], synthetic: bool = False) -> Batch:
    return Batch(
        revision,
        [
            Change(path, value, previous, revision, "delete" if value is MISSING else "put", synthetic)
            for path, value, previous in changes
        ],
        [],
        synthetic,
    )


def test_all_keeps_every_batch_in_order() -> None:
    queue = AllQueue()
    queue.put(batch(1, ("/a", 1, MISSING), ("/b", 1, MISSING)), 10.0)
    queue.tell("stale", 11.0)
    queue.put(batch(2, ("/a", 2, 1)), 12.0)
    assert (queue.size, len(queue), queue.oldest()) == (3, 3, 10.0)
    taken = [queue.take() for _ in range(3)]
    assert [each and each.item for each in taken] == [
        batch(1, ("/a", 1, MISSING), ("/b", 1, MISSING)),
        "stale",
        batch(2, ("/a", 2, 1)),
    ]
    assert queue.take() is None
    assert (queue.size, queue.oldest(), queue.coalesced) == (0, None, 0)


def test_latest_keeps_the_newest_and_what_was_before_all_it_stands_for() -> None:
    queue = LatestQueue()
    queue.put(batch(1, ("/a", 1, 0), ("/b", 5, MISSING)), 10.0)
    queue.put(batch(2, ("/a", 2, 1)), 11.0)
    queue.put(batch(3, ("/a", MISSING, 2)), 12.0)
    assert (queue.size, queue.coalesced, queue.oldest()) == (2, 2, 10.0)
    taken = queue.take()
    assert taken is not None
    assert taken.arrived == 10.0
    assert taken.item == Batch(
        3,
        [
            Change("/b", 5, MISSING, 1, "put"),
            Change("/a", MISSING, 0, 3, "delete"),
        ],
        [],
    )
    assert queue.take() is None
    queue.put(batch(4, ("/a", 4, MISSING)), 13.0)
    taken = queue.take()
    assert taken is not None
    assert taken.item == batch(4, ("/a", 4, MISSING))


def test_latest_tells_of_an_inferred_change_that_it_has_replaced() -> None:
    queue = LatestQueue()
    queue.put(batch(5, ("/a", 1, 0), synthetic=True), 10.0)
    queue.put(batch(6, ("/a", 2, 1)), 11.0)
    taken = queue.take()
    assert taken is not None
    assert taken.item == Batch(6, [Change("/a", 2, 0, 6, "put", True)], [], True)


def test_latest_tells_the_state_first() -> None:
    queue = LatestQueue()
    queue.put(batch(1, ("/a", 1, 0)), 10.0)
    queue.tell("stale", 11.0)
    assert len(queue) == 2
    taken = queue.take()
    assert taken is not None
    assert taken.item == "stale"


def test_a_batch_without_changes_still_moves_the_revision() -> None:
    queue = LatestQueue()
    queue.put(batch(7, synthetic=True), 10.0)
    taken = queue.take()
    assert taken is not None
    assert taken.item == batch(7, synthetic=True)
