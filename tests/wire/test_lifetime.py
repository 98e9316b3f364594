"""Clients begin and end: closing under way, closing many, never closing, and the end of the program."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import textwrap
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from link_kv import EtcdMiddleware, aio, local
from link_kv._core.links.direct import Dialed
from link_kv._core.wire.calls import WATCH, WireFailure, run
from link_kv.errors import Closed, LinkKVError, OutcomeUnknown
from tests.processes import until
from tests.wire.conftest import Connect, within
from tests.wire.proxy import Proxy
from tests.wire.streams import caller, create, watch


def in_thread(action: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """Run an action in a thread; what it returns or raises ends up in the list."""
    found: list[Any] = []

    def work() -> None:
        try:
            found.append(action())
        except LinkKVError as error:
            found.append(error)
        except WireFailure as error:
            found.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    return thread, found


# Closing


def test_a_closed_client_does_nothing(etcd: Any, connect: Connect) -> None:
    client = connect(*etcd.endpoints)
    client["/a"] = 1
    client.close()
    client.close()
    uses: list[Callable[[], Any]] = [
        lambda: client["/a"],
        lambda: client.put("/a", 1),
        lambda: client.pop("/a"),
        lambda: list(client),
        lambda: "/a" in client,
        lambda: client.snapshot(),
        lambda: client.raw[b"a"],
        lambda: run(caller(client).open(WATCH)),
    ]
    for use in uses:
        with pytest.raises(Closed, match="the client was closed"):
            use()


def test_a_client_that_was_never_used_can_be_closed() -> None:
    EtcdMiddleware(endpoints=["127.0.0.1:1"]).close()


def test_closing_ends_calls_that_are_under_way(proxy: Proxy, connect: Connect) -> None:
    """A read learns that the client was closed; a write that was sent may have arrived."""
    client = connect(proxy.endpoint, timeout=30)
    client["/a"] = 1
    assert client["/a"] == 1
    stream = watch(client)
    proxy.hold()
    received = in_thread(lambda: run(stream.receive()))
    read = in_thread(lambda: client["/a"])
    until(lambda: b"/a" in proxy.pending())
    written = in_thread(lambda: client.put("/a", "written"))
    until(lambda: b"written" in proxy.pending())
    assert all(thread.is_alive() for thread, _ in (read, written, received))
    with within(2):
        client.close()
        for thread, _ in (read, written, received):
            thread.join()
    assert [type(found[0]) for _, found in (read, written, received)] == [Closed, OutcomeUnknown, WireFailure]


def test_closing_ends_the_tries_to_connect(server: local.LocalEtcd, connect: Connect) -> None:
    client = connect(*server.endpoints, timeout=30)
    client["/a"] = 1
    server.kill()
    read = in_thread(lambda: client["/a"])
    until(lambda: not caller(client)._answered)  # or the write would be given to a connection that breaks
    written = in_thread(lambda: client.put("/a", 2))
    for thread, _ in (read, written):
        thread.join(0.2)
        assert thread.is_alive()
    with within(2):
        client.close()
        for thread, _ in (read, written):
            thread.join()
    assert [type(found[0]) for _, found in (read, written)] == [Closed, Closed]


def test_closing_while_threads_call(etcd: Any, connect: Connect) -> None:
    for _ in range(20):
        client = connect(*etcd.endpoints)
        client["/a"] = 1

        def work(client: EtcdMiddleware = client) -> None:
            while True:
                client["/a"] = 1

        threads = [in_thread(work) for _ in range(4)]
        client["/a"] = 2
        client.close()
        for thread, found in threads:
            thread.join(20)
            assert isinstance(found[0], (Closed, OutcomeUnknown))


# Nothing is left


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def left_behind(use: Callable[[], None], times: int) -> int:
    """Use clients this often; the bytes that are left. Of threads and descriptors, none may be."""
    for _ in range(100):
        use()
    gc.collect()
    before = descriptors(), threading.active_count(), resident()
    for _ in range(times):
        use()
    gc.collect()
    nothing_more(*before[:2])
    return resident() - before[2]


def nothing_more(files: int, threads: int) -> None:
    """Wait until there are no more than before. What was about to end then may have ended since."""
    until(lambda: descriptors() <= files and threading.active_count() <= threads)


def use_blocking(endpoints: list[str]) -> None:
    with EtcdMiddleware(endpoints=endpoints, prefix="/many") as client:
        client.get("/a")


def use_stream(endpoints: list[str]) -> None:
    with EtcdMiddleware(endpoints=endpoints, prefix="/many") as client:
        watch(client)


def use_unclosed(endpoints: list[str]) -> None:
    EtcdMiddleware(endpoints=endpoints, prefix="/many").get("/a")


@pytest.mark.parametrize("use", [use_blocking, use_stream, use_unclosed])
@pytest.mark.parametrize(
    "times", [300, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(900)])]
)
def test_clients_leave_nothing_behind(etcd: Any, use: Callable[[list[str]], None], times: int) -> None:
    assert left_behind(lambda: use(etcd.endpoints), times) < 5 * 2**20


@pytest.mark.parametrize(
    "times", [300, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(900)])]
)
def test_clients_of_asyncio_leave_nothing_behind(etcd: Any, times: int) -> None:
    async def use() -> None:
        async with aio.EtcdMiddleware(endpoints=etcd.endpoints, prefix="/many") as client:
            await client.get("/a")
            _, stream = await client._space.caller.open(WATCH)
            await stream.send(create(client))
            assert (await stream.receive()).created

    async def many(number: int) -> None:
        for _ in range(number):
            await use()

    asyncio.run(many(100))
    gc.collect()
    before = descriptors(), threading.active_count(), resident()
    asyncio.run(many(times))
    gc.collect()
    nothing_more(*before[:2])
    assert resident() - before[2] < 5 * 2**20


def test_what_has_ended_does_not_wait_for_the_garbage_collector(etcd: Any, connect: Connect) -> None:
    client = connect(*etcd.endpoints)

    def stream() -> weakref.ref[Any]:
        each = watch(client)
        each.cancel()
        with pytest.raises(WireFailure):
            run(each.receive())
        return weakref.ref(each)

    def dialed() -> weakref.ref[Any]:
        each = Dialed("127.0.0.1:1", {}, iter(()), None)
        with pytest.raises(WireFailure):
            list(each)
        return weakref.ref(each)

    gc.disable()
    try:
        assert stream()() is None
        assert dialed()() is None
    finally:
        gc.enable()


# The end of the program


BEGIN = """
import asyncio, gc, logging, sys, threading, time, warnings
from link_kv import EtcdMiddleware, aio
from link_kv._core.wire.calls import WATCH, run
from link_kv._core.wire.requests import field
ENDPOINT, PREFIX = sys.argv[1:]
CREATE = field(b'\\x0a', field(b'\\x0a', b'a'))
"""


def program(endpoint: str, prefix: str, text: str, act: Callable[[], object] | None = None) -> None:
    """A program that ends in time, with nothing to say. When it says that it is ready, something is done."""
    command = [sys.executable, "-W", "error", "-c", BEGIN + textwrap.dedent(text), endpoint, prefix]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as begun:
        try:
            if act is not None:
                assert begun.stdout is not None
                assert begun.stdout.readline() == "ready\n", begun.communicate()
                act()
            said, complained = begun.communicate("\n" if act is not None else None, timeout=30)
        finally:
            begun.kill()
    assert (begun.returncode, said, complained) == (0, "", ""), said + complained


def test_a_program_that_closes_nothing(etcd: Any, etcd_prefix: str) -> None:
    program(
        etcd.endpoints[0],
        etcd_prefix,
        """
        client = EtcdMiddleware(endpoints=[ENDPOINT], prefix=PREFIX)
        client['/a'] = 1
        _, stream = run(client._space.caller.open(WATCH))
        run(stream.send(CREATE))
        run(stream.receive())
        """,
    )


def test_clients_that_are_dropped(etcd: Any, etcd_prefix: str) -> None:
    program(
        etcd.endpoints[0],
        etcd_prefix,
        """
        for _ in range(5):
            client = EtcdMiddleware(endpoints=[ENDPOINT], prefix=PREFIX)
            client['/a'] = 1
            _, stream = run(client._space.caller.open(WATCH))
            run(stream.send(CREATE))
            run(stream.receive())
            del client, stream
            gc.collect()
        time.sleep(0.1)
        """,
    )


def test_a_program_ends_though_threads_of_grpc_do_within_its_locks(etcd: Any, etcd_prefix: str) -> None:
    """They stop wherever they are once the interpreter ends. Here another thread stands for them."""
    program(
        etcd.endpoints[0],
        etcd_prefix,
        """
        from link_kv._core.links.direct import Dialed

        client = EtcdMiddleware(endpoints=[ENDPOINT], prefix=PREFIX)
        streams = [run(client._space.caller.open(WATCH))[1] for _ in range(2)]
        run(streams[0].send(CREATE))
        run(streams[0].receive())
        streams[1].cancel()
        dialed = Dialed('127.0.0.1:1', {}, iter(()), None)
        circle = [client, streams, dialed]
        circle.append(circle)

        def end_within_locks():
            for each in (*streams, dialed):
                each._call._state.condition.acquire()

        ended = threading.Thread(target=end_within_locks)
        ended.start()
        ended.join()
        del client, streams, dialed, circle
        """,
    )


@pytest.mark.parametrize("answered", [True, False])
def test_a_program_ends_while_its_threads_call(proxy: Proxy, etcd_prefix: str, answered: bool) -> None:
    program(
        proxy.endpoint,
        etcd_prefix,
        """
        client = EtcdMiddleware(endpoints=[ENDPOINT], prefix=PREFIX, timeout=60)
        client['/a'] = 1
        client['/a']  # an etcd below 3.5.5 panics when the first of these is broken off
        _, stream = run(client._space.caller.open(WATCH))
        run(stream.send(CREATE))
        run(stream.receive())

        def read():
            while True:
                client['/a']

        def follow():
            run(stream.receive())

        for work in (read, read, follow):
            threading.Thread(target=work, daemon=True).start()
        print('ready', flush=True)
        input()
        time.sleep(0.3)
        """,
        lambda: None if answered else proxy.hold(),
    )


def test_asyncio_programs_that_close_nothing(etcd: Any, etcd_prefix: str) -> None:
    program(
        etcd.endpoints[0],
        etcd_prefix,
        """
        async def main():
            client = aio.EtcdMiddleware(endpoints=[ENDPOINT], prefix=PREFIX)
            await client.put('/a', 1)
            await client.get('/a')  # an etcd below 3.5.5 panics when the first of these is broken off
            _, stream = await client._space.caller.open(WATCH)
            await stream.send(CREATE)
            await stream.receive()
            asyncio.ensure_future(stream.receive())
            asyncio.ensure_future(client.get('/a'))
            await asyncio.sleep(0)

        for _ in range(3):
            asyncio.run(main())
            gc.collect()
        """,
    )


def test_asyncio_programs_that_end_with_everything_open(etcd: Any, etcd_prefix: str) -> None:
    program(
        etcd.endpoints[0],
        etcd_prefix,
        """
        logging.getLogger('link_kv').addHandler(logging.NullHandler())

        async def main(number):
            client = aio.EtcdMiddleware(endpoints=[ENDPOINT], prefix=PREFIX)
            lock, session = aio.Lock(client, f'lock {number}'), aio.Session(client)
            await client.mirror('/a')
            assert await lock.acquire(10)
            await session.open()
            asyncio.ensure_future(anext(aiter(client.watch('/a'))))
            await asyncio.sleep(0)

        for number in range(3):
            asyncio.run(main(number))
        """,
    )


def test_one_client_in_loop_after_loop(etcd: Any, etcd_prefix: str) -> None:
    program(
        etcd.endpoints[0],
        etcd_prefix,
        """
        # A stream was left open in a loop that is closed: gRPC may report its end to the next loop.
        logging.getLogger('asyncio').addFilter(lambda said: 'PollerCompletionQueue' not in said.getMessage())
        client = aio.EtcdMiddleware(endpoints=[ENDPOINT], prefix=PREFIX)

        async def main(number):
            await client.put('/a', number)
            _, stream = await client._space.caller.open(WATCH)
            await stream.send(CREATE)
            await stream.receive()
            assert await client['/a'] == number

        for number in range(3):
            asyncio.run(main(number))
        asyncio.run(client.close())
        """,
    )


def said_by(text: str, *given: str) -> str:
    """What a program prints that ends in time, and well."""
    command = [sys.executable, "-c", text, *given]
    done = subprocess.run(command, timeout=30, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


INTERRUPTED = """
import sys
import grpc._channel
from link_kv import EtcdMiddleware
from link_kv._core.links.direct import Dialed
from link_kv._core.wire.calls import WATCH, run

def interrupt(state):
    raise KeyboardInterrupt

client = EtcdMiddleware(endpoints=sys.argv[1])
client.get('/a')
follow, grpc._channel._run_channel_spin_thread = grpc._channel._run_channel_spin_thread, interrupt
try:
    if 'dial' in sys.argv:
        Dialed(sys.argv[1], {}, iter(()), None)
    run(client._space.caller.open(WATCH))
except KeyboardInterrupt:
    pass
grpc._channel._run_channel_spin_thread = follow
if 'close' in sys.argv:
    client.get('/a')
    client.close()
print('ends')
"""


@pytest.mark.parametrize("how", ["close", "leave", "dial"])
def test_an_interrupt_while_a_stream_is_opened_keeps_no_program_from_ending(etcd: Any, how: str) -> None:
    assert said_by(INTERRUPTED, etcd.endpoints[0], how) == "ends\n"


LEFT_LOCKED = """
import gc, sys, threading
from link_kv import EtcdMiddleware
from link_kv._core.wire.calls import WATCH, run

class Interrupted(threading.Condition):
    def __enter__(self):
        taken = super().__enter__()
        if threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt
        return taken

client = EtcdMiddleware(endpoints=sys.argv[1])
client.get('/a')
stream = run(client._space.caller.open(WATCH))[1]
(channel,) = client._space.caller.wire._channels._open
if sys.argv[2] == 'stream':
    condition = stream._call._state.condition
else:
    within = gc.get_referents(*gc.get_referents(channel.grpc._channel))
    (condition,) = [each for each in within if isinstance(each, threading.Condition)]
condition.__class__ = Interrupted
try:
    if sys.argv[2] == 'call':
        client.get('/a')
    elif sys.argv[2] == 'open':
        run(client._space.caller.open(WATCH))
    elif sys.argv[2] == 'stream':
        stream.cancel()
    else:
        client.close()
except KeyboardInterrupt:
    print('interrupted', flush=True)
condition.__class__ = threading.Condition

def go_on():
    if sys.argv[2] != 'close':
        client.get('/a')
        run(client._space.caller.open(WATCH))
    stream.cancel()
    assert stream.ended.wait(10)
    client.close()
    print('goes on', flush=True)

going_on = threading.Thread(target=go_on, daemon=True)
going_on.start()
going_on.join(10)
"""


@pytest.mark.parametrize("where", ["call", "open", "stream", "close"])
def test_an_interrupt_within_a_lock_of_grpc_keeps_no_other_thread(etcd: Any, where: str) -> None:
    """It can come just when Python has taken the lock, before the block that releases it has begun."""
    assert said_by(LEFT_LOCKED, etcd.endpoints[0], where) == "interrupted\ngoes on\n"
