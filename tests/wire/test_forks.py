"""Processes that fork while they talk to etcd: the child works, and the parent notices nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from typing import Any

import pytest

from link_kv._core.wire.forks import Gate

# Forks happen in programs of their own: a child of pytest would be a second pytest.

BEGIN = """
import asyncio, logging, multiprocessing, os, signal, sys, threading, time
from link_kv import EtcdMiddleware, aio
from link_kv._core.wire.calls import WATCH, WireFailure, run
from link_kv._core.wire.requests import field
from link_kv.errors import OutcomeUnknown, Unavailable

logging.getLogger('link_kv').addHandler(logging.NullHandler())
ENDPOINT, PREFIX = sys.argv[1:]
client = EtcdMiddleware(endpoints=[ENDPOINT], prefix=PREFIX)
client['/parent'] = 0

def fork(work, leave=os._exit):
    # A child in which something hangs or crashes is seen by its status.
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        try:
            work()
        except BaseException as error:
            print('child:', repr(error), flush=True)
            os._exit(9)
        leave(0)
    return pid

def wait(pid):
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status == 0, f'the child ended with {status}'

def work():
    client['/child'] = os.getpid()
    assert client['/child'] == os.getpid()
    client.close()
"""


def program(etcd: Any, prefix: str, text: str) -> None:
    code = BEGIN + textwrap.dedent(text)
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code, etcd.endpoints[0], prefix],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), done.stdout + done.stderr


@pytest.mark.parametrize("leave", ["os._exit", "sys.exit"])
def test_a_child_works_and_its_end_disturbs_nobody(etcd: Any, etcd_prefix: str, leave: str) -> None:
    program(
        etcd,
        etcd_prefix,
        f"""
        for number in range(5):
            pid = fork(work, {leave})
            for _ in range(20):
                client['/parent'] = number
            wait(pid)
            assert client['/child'] == pid
            assert client['/parent'] == number
        """,
    )


def test_children_have_children(etcd: Any, etcd_prefix: str) -> None:
    program(
        etcd,
        etcd_prefix,
        """
        def grandparent():
            client['/a'] = 1
            wait(fork(work))
            assert client['/a'] == 1

        wait(fork(grandparent))
        assert client['/a'] == 1
        """,
    )


def test_threads_call_while_the_process_forks(etcd: Any, etcd_prefix: str) -> None:
    program(
        etcd,
        etcd_prefix,
        """
        done = threading.Event()
        counts = [0] * 4

        def count(number):
            while not done.is_set():
                while True:  # who is interrupted writes the same again
                    try:
                        client[f'/count/{number}'] = counts[number] + 1
                        break
                    except OutcomeUnknown:
                        pass
                counts[number] += 1

        threads = [threading.Thread(target=count, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(50):
            wait(fork(work))
        done.set()
        for thread in threads:
            thread.join()
        assert client['/count'] == {str(number): count for number, count in enumerate(counts)}
        assert min(counts) > 50
        """,
    )


def test_a_stream_is_open_while_the_process_forks(etcd: Any, etcd_prefix: str) -> None:
    """It ends, as in any other break, and is opened again."""
    program(
        etcd,
        etcd_prefix,
        """
        opened = threading.Semaphore(0)
        failures = []

        def follow():
            while len(failures) < 50:
                _, stream = run(client._space.caller.open(WATCH))
                run(stream.send(field(b'\\x0a', field(b'\\x0a', b'a'))))
                try:
                    run(stream.receive())
                    opened.release()
                    run(stream.receive())
                except WireFailure as failure:
                    failures.append(failure)

        thread = threading.Thread(target=follow)
        thread.start()
        for _ in range(50):
            assert opened.acquire(timeout=10)
            wait(fork(work))
            assert client['/parent'] == 0
        thread.join()
        """,
    )


def test_a_call_that_hangs_does_not_hold_up_a_fork(etcd: Any, etcd_prefix: str) -> None:
    """It is interrupted. A read goes on afterwards; a write would be in doubt."""
    program(
        etcd,
        etcd_prefix,
        """
        sys.path.insert(0, '.')
        from tests.wire.proxy import Proxy

        with Proxy(ENDPOINT) as proxy:
            behind = EtcdMiddleware(endpoints=[proxy.endpoint], prefix=PREFIX, timeout=30)
            assert behind['/parent'] == 0
            proxy.hold()
            found = []
            thread = threading.Thread(target=lambda: found.append(behind['/parent']))
            thread.start()
            time.sleep(0.2)
            began = time.monotonic()
            pid = fork(work)
            assert time.monotonic() - began < 4
            wait(pid)
            proxy.release()
            thread.join()
            assert found == [0]
            behind.close()
        """,
    )


def test_threads_that_fork_at_once_let_nobody_in_before_the_last_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "register_at_fork", lambda **hooks: None)
    gate, entered = Gate(), threading.Event()

    def enter() -> None:
        with gate:
            entered.set()

    gate._before()
    gate._before()
    thread = threading.Thread(target=enter, daemon=True)
    thread.start()
    gate._after_in_parent()
    assert not entered.wait(0.2)
    gate._after_in_parent()
    assert entered.wait(20)
    thread.join()


def test_a_fork_right_after_the_last_client_was_closed(etcd: Any, etcd_prefix: str) -> None:
    program(
        etcd,
        etcd_prefix,
        """
        client.close()
        for number in range(150):
            with EtcdMiddleware(endpoints=[ENDPOINT], prefix=PREFIX) as one:
                one['/parent'] = number

            def another():
                with EtcdMiddleware(endpoints=[ENDPOINT], prefix=PREFIX) as two:
                    assert two['/parent'] == number

            wait(fork(another))
        """,
    )


def test_a_pool_of_processes(etcd: Any, etcd_prefix: str) -> None:
    program(
        etcd,
        etcd_prefix,
        """
        context = multiprocessing.get_context('fork')

        def add(number):
            client[f'/n/{number}'] = os.getpid()
            return client['/parent']

        with context.Pool(4) as pool:
            assert pool.map(add, range(40)) == [0] * 40
        assert len(client.tree('/n')) == 40
        assert os.getpid() not in client['/n'].values()
        """,
    )


def test_a_session_of_asyncio_that_waits_for_nothing(etcd: Any, etcd_prefix: str) -> None:
    program(
        etcd,
        etcd_prefix,
        """
        async def main():
            async with aio.EtcdMiddleware(endpoints=[ENDPOINT], prefix=PREFIX) as waiting:
                for number in range(20):
                    assert await waiting['/parent'] == 0
                    wait(fork(work))

        asyncio.run(main())
        """,
    )


def test_a_fork_in_the_midst_of_asyncio_calls_leaves_the_parent_alone(etcd: Any, etcd_prefix: str) -> None:
    """gRPC may crash in the child, or it is told; work it does not."""
    program(
        etcd,
        etcd_prefix,
        """
        signal.signal(signal.SIGSEGV, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # gRPC says that it could not prepare

        def refused():
            try:
                client['/child'] = 1
            except Unavailable as error:
                assert 'spawn' in str(error), error
            else:
                raise AssertionError('it worked')

        async def main():
            async with aio.EtcdMiddleware(endpoints=[ENDPOINT], prefix=PREFIX) as waiting:
                _, stream = await waiting._space.caller.open(WATCH)
                await stream.send(field(b'\\x0a', field(b'\\x0a', b'a')))
                await stream.receive()
                for number in range(10):
                    _, status = os.waitpid(fork(refused), 0)
                    assert os.waitstatus_to_exitcode(status) in (0, -signal.SIGSEGV, -signal.SIGABRT), status
                    client['/parent'] = number
                    assert await waiting['/parent'] == number
                stream.cancel()

        asyncio.run(main())
        """,
    )


def test_a_thread_logs_in_while_the_process_forks(etcd: Any, etcd_prefix: str) -> None:
    """Its turn is its own: the child does not wait for a thread that is not there."""
    program(
        etcd,
        etcd_prefix,
        """
        sys.path.insert(0, '.')
        from tests.processes import until
        from tests.wire.proxy import Proxy

        with Proxy(ENDPOINT) as proxy:
            behind = EtcdMiddleware(
                endpoints=[proxy.endpoint], prefix=PREFIX, timeout=30, user='user', password='secret'
            )
            proxy.hold()
            found = []
            thread = threading.Thread(target=lambda: found.append(behind['/parent']))
            thread.start()
            until(lambda: behind._space.caller.wire.turn()._lock.locked())

            def log_in():
                signal.alarm(20)
                assert behind['/parent'] == 0

            pid = fork(log_in)
            proxy.release()
            wait(pid)
            thread.join()
            assert found == [0]
            behind.close()
        """,
    )


def test_a_stream_is_open_in_a_child_that_forks(etcd: Any, etcd_prefix: str) -> None:
    """With a client of its parent, whose own stream is none of its business."""
    program(
        etcd,
        etcd_prefix,
        """
        def follow(opened, failures):
            while len(failures) < 5:
                _, stream = run(client._space.caller.open(WATCH))
                run(stream.send(field(b'\\x0a', field(b'\\x0a', b'a'))))
                try:
                    run(stream.receive())
                    opened.release()
                    run(stream.receive())
                except WireFailure as failure:
                    failures.append(failure)

        def fork_with_a_stream(child):
            opened = threading.Semaphore(0)
            thread = threading.Thread(target=follow, args=(opened, []), daemon=True)
            thread.start()
            for _ in range(5):
                assert opened.acquire(timeout=10), 'the stream went on'
                wait(fork(child))
                assert client['/parent'] == 0
            thread.join()

        fork_with_a_stream(lambda: fork_with_a_stream(work))
        """,
    )
