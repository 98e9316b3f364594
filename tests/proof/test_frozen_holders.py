"""A holder that is frozen for longer than its ttl, as by a suspended machine, does not undo what others did.

Processes increment a counter under one lock. Again and again the holder is stopped (SIGSTOP) between its read
and its write, until others have worked without it, and then let go on. With the lock's fence no increment is
lost. The control writes past the fence, and does lose some.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from link_kv import EtcdMiddleware
from link_kv._core.wire.calls import run
from link_kv._core.wire.exchange import Exchange
from link_kv.plan import Get
from tests.leases import Program
from tests.processes import until

WORKER = """
from link_kv import Lock
from link_kv.errors import LockLost
client = connect(endpoint, prefix, timeout=60)  # who is frozen for a while still writes
fenced = arguments[0] == 'fenced'
between = open(f'{arguments[1]}/{os.getpid()}', 'w')
def note(word):
    os.pwrite(between.fileno(), word, 0)
stop = threading.Event()
threading.Thread(target=lambda: (hear(), stop.set()), daemon=True).start()
done = refused = 0
say('ready')
while not stop.is_set():
    try:
        with Lock(client, 'counter', ttl=2) as lock:
            through = lock.client if fenced else client
            value = client['/counter']
            note(b'1%-12d' % value)  # what it read, before it writes
            time.sleep(0.03)
            through['/counter'] = value + 1
            note(b'0')
            done += 1
    except LockLost:
        refused += 1
say(done, refused)
"""


def holder(client: EtcdMiddleware) -> tuple[bytes, int] | None:
    """The claim that holds the lock, and the process that made it."""
    claims = [(key, value) for key, value in client.raw.items() if b"/.link/locks/counter/" in key]
    if not claims:
        return None
    key, value = min(claims, key=lambda claim: created(client, claim[0]))
    return key, json.loads(value)["pid"]


def created(client: EtcdMiddleware, key: bytes) -> int:
    found = run(Exchange(client._space).range(Get(key))).kvs
    return found[0].create_revision if found else 2**63


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def pause(client: EtcdMiddleware, notes: Path) -> None:
    """Stop the holder between its read and its write, until others have worked for a while without it."""
    frozen: list[int] = []

    def hit() -> bool:
        found = holder(client)
        if found is None:
            return False
        key, pid = found
        os.kill(pid, signal.SIGSTOP)
        until(lambda: state(pid) == "T")
        noted = (notes / str(pid)).read_text()
        if holder(client) != found or noted[:1] != "1" or at_the_end_of(client, key) != int(noted[1:]):
            os.kill(pid, signal.SIGCONT)
            return False
        frozen.append(pid)
        return True

    until(hit, 60)
    before = client["/counter"]
    until(lambda: client["/counter"] > before + 5)
    os.kill(frozen[0], signal.SIGCONT)


def at_the_end_of(client: EtcdMiddleware, claim: bytes) -> int | None:
    """Where the counter stood last while a claim was there. A request that its holder sent came before."""
    value = None
    while True:
        counter = client["/counter"]
        if claim not in client.raw:
            return value
        value = counter


def count(
    client: EtcdMiddleware, endpoint: str, prefix: str, kind: str, pauses: int, notes: Path
) -> tuple[int, int, int]:
    """The increments that were acknowledged, those that were refused, and where the counter stands."""
    client["/counter"] = 0
    workers = [Program(WORKER, endpoint, prefix, kind, str(notes)) for _ in range(3)]
    try:
        for worker in workers:
            worker.expect("ready")
        for _ in range(pauses):
            pause(client, notes)
        for worker in workers:
            worker.tell("stop")
        counts = [[int(number) for number in worker.line().split()] for worker in workers]
        for worker in workers:
            worker.finish()
    finally:
        for worker in workers:
            worker.__exit__()
    return sum(done for done, _ in counts), sum(refused for _, refused in counts), client["/counter"]


@pytest.mark.parametrize("pauses", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_no_increment_is_lost_under_the_fence_and_some_are_without_it(
    etcd_client: EtcdMiddleware,
    etcd: Any,
    etcd_prefix: str,
    pauses: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def counted(kind: str) -> tuple[int, int, int]:
        return count(etcd_client, etcd.endpoints[0], etcd_prefix, kind, pauses, tmp_path)

    done, refused, counter = counted("fenced")
    plain, _, plain_counter = counted("plain")
    with capsys.disabled():
        print(
            f"\n{pauses} pauses: fenced lost {done - counter} of {done} increments, {refused} refused; "
            f"unfenced lost {plain - plain_counter} of {plain}"
        )
    assert counter == done
    assert refused
    assert plain_counter < plain
