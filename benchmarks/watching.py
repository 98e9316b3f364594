"""From a put to the callback, beside a bare stub's watch, whose own thread calls the callback.

Run as a program, this is the writers.
"""

from __future__ import annotations

import queue
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import grpc

from benchmarks.bare import M, Stub
from benchmarks.measure import Row
from link_kv import Change, EtcdMiddleware

PUTS = 2000
EVENTS = 16_000
WRITERS = 16
RATE = 5000
SECONDS = 5
PREFIX = "/bench-watching"


def run(endpoint: str) -> list[Row]:
    with EtcdMiddleware(endpoints=[endpoint], prefix=PREFIX) as client:
        rows = [*_one_by_one(client, endpoint), _many(client, endpoint), _lag(client)]
        client.clear()
    return rows


class _Clock:
    """A callback that keeps the time of its last call, and counts."""

    def __init__(self) -> None:
        self.at = 0.0
        self.left = 0
        self.called = threading.Event()

    def expect(self, number: int) -> None:
        self.left = number
        self.called.clear()

    def __call__(self, event: object) -> None:
        self.at = time.perf_counter()
        self.left -= 1
        if not self.left:
            self.called.set()


@contextmanager
def bare_watch(endpoint: str, prefix: bytes, callback: Callable[[object], None]) -> Iterator[None]:
    """Call back for each event, in the thread that reads the stream of the bare stub."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(endpoint, options=options) as channel:
        watch = channel.stream_stream(
            "/etcdserverpb.Watch/Watch",
            request_serializer=M.WatchRequest.SerializeToString,
            response_deserializer=M.WatchResponse.FromString,
        )
        create = M.WatchCreateRequest(key=prefix + b"/", range_end=prefix + b"0")
        requests: queue.SimpleQueue[object] = queue.SimpleQueue()
        requests.put(M.WatchRequest(create_request=create))
        call = watch(iter(requests.get, None))
        assert next(call).created

        def read() -> None:
            try:
                for response in call:
                    for event in response.events:
                        callback(event)
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.CANCELLED:  # type: ignore[attr-defined]
                    raise

        thread = threading.Thread(target=read)
        thread.start()
        yield
        call.cancel()
        requests.put(None)
        thread.join()


def _one_by_one(client: EtcdMiddleware, endpoint: str) -> list[Row]:
    bare, ours, theirs = Stub(endpoint), _Clock(), _Clock()
    key = f"{PREFIX}/one/x".encode()
    puts: dict[str, Callable[[int], object]] = {
        "bare Put": lambda number: bare.Put(M.PutRequest(key=key, value=b"%d" % number)),  # type: ignore[attr-defined]
        "client.put": lambda number: client.put("/one/x", number),
    }
    rows = []
    for how, put in puts.items():
        # One at a time: two watches in one process would wait for each other's thread.
        times: dict[str, list[float]] = {}
        for _ in range(4):
            with client.subscribe("/one", ours):
                times.setdefault("ours", []).extend(_timed(put, ours))
            with bare_watch(endpoint, f"{PREFIX}/one".encode(), theirs):
                times.setdefault("theirs", []).extend(_timed(put, theirs))
        mine, other = (statistics.median(times[who]) * 1e3 for who in ("ours", "theirs"))
        rows.append(Row(f"{how} to callback", mine, other, "ms", "a bare watch", mine / other, 1.35))
    bare.channel.close()
    return rows


def _timed(put: Callable[[int], object], clock: _Clock) -> list[float]:
    times = []
    for number in range(PUTS // 4):
        clock.expect(1)
        start = time.perf_counter()
        put(number)
        assert clock.called.wait(10)
        times.append(clock.at - start)
    return times


def _many(client: EtcdMiddleware, endpoint: str) -> Row:
    rates: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _ in range(3):
        clock = _Clock()
        with client.subscribe("/many", clock):
            rates["ours"].append(_rate(endpoint, clock))
        clock = _Clock()
        with bare_watch(endpoint, f"{PREFIX}/many".encode(), clock):
            rates["theirs"].append(_rate(endpoint, clock))
    mine, other = (statistics.median(rates[who]) for who in ("ours", "theirs"))
    return Row(f"{WRITERS} writers, callbacks", mine, other, "/s", "a bare watch", mine / other, 0.7, True)


def _rate(endpoint: str, clock: _Clock) -> float:
    """Events a second through to a callback, while two other processes write as fast as they can."""
    clock.expect(EVENTS)
    command = [sys.executable, "-m", "benchmarks.watching", endpoint, f"{PREFIX}/many"]
    writers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(2)]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
    start = time.perf_counter()
    for writer in writers:
        writer.communicate(b"go\n")
    assert clock.called.wait(60)
    return EVENTS / (clock.at - start)


def _lag(client: EtcdMiddleware) -> Row:
    """The longest wait in the queue at 5,000 changes a second, twenty to a revision."""
    longest, done = [0.0], threading.Event()
    last = RATE * SECONDS // 20 - 1

    def callback(change: Change) -> None:
        longest[0] = max(longest[0], subscription.stats.lag)
        if change.value == last:
            done.set()

    with (
        EtcdMiddleware(endpoints=client._config.endpoints, prefix=PREFIX) as writer,
        client.subscribe("/lag", callback) as subscription,
    ):
        start = time.perf_counter()
        for number in range(last + 1):
            writer.update({f"/lag/{key}": number for key in range(20)})
            time.sleep(max(0.0, start + (number + 1) * 20 / RATE - time.perf_counter()))
        assert done.wait(60)
    lag = longest[0] * 1e3
    return Row(f"lag at {RATE:,} changes/s", lag, 50, "ms", "50 ms", lag / 50, 1.0)


def write(endpoint: str, prefix: str) -> None:
    """Half of the writers, each with a connection of its own, once a line comes in."""

    def put(number: int, stub: Stub) -> None:
        for count in range(EVENTS // WRITERS):
            key = f"{prefix}/{number}/{count % 50}".encode()
            stub.Put(M.PutRequest(key=key, value=b"%d" % count))  # type: ignore[attr-defined]

    threads = [threading.Thread(target=put, args=(number, Stub(endpoint))) for number in range(WRITERS // 2)]
    print("ready", flush=True)
    sys.stdin.readline()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    write(*sys.argv[1:])
