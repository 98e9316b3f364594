"""A process that forks while it has links."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from .echo import Echo

ROOT = Path(__file__).parent.parent.parent

CODE = """
import os, sys
from link_kv import Unavailable, connect
client = connect(name='parent')
link = client.link('Echo')
link.acquire_lock()
got = []
link.notification_handler = got.append
for number in range(5):
    assert link.same(number, timeout=30) == number
    pid = os.fork()
    if not pid:
        for call in (link.echo, link.acquire_lock, link.release_lock, lambda: client.link('Echo')):
            try:
                call()
            except Unavailable as error:
                assert 'forked from' in str(error), error
            else:
                os._exit(1)
        assert not client.is_connected()
        link.unlink()
        client.disconnect()
        with connect(name='child') as mine:
            assert 'Echo' in mine.identities()['services']
        sys.exit(0)
    assert os.waitpid(pid, 0)[1] == 0
assert link.same('after', timeout=30) == 'after'
assert client.is_connected()
assert client.identities()['services']
with connect(name='other') as other:
    try:
        other.link('Echo')
    except RuntimeError:
        print('still locked')
"""


def test_links_through_forks(echo: Echo, program: Any) -> None:
    done = subprocess.run([sys.executable, "-c", CODE], cwd=ROOT, timeout=60, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "still locked\n"


SERVED = """
import os
from link_kv import EtcdMiddleware, Service, connect
client = EtcdMiddleware()
service = Service('Mute')
service.start_in_thread()
with connect() as other:
    other.link('Mute').unlink()
service.stop()
for number in range(5):
    client['/a'] = number
    pid = os.fork()
    if not pid:
        assert client['/a'] == number
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
print('fit')
"""


def test_a_service_that_has_stopped_is_in_nobodys_way(etcd: Any) -> None:
    command = [sys.executable, "-c", SERVED]
    done = subprocess.run(command, cwd=ROOT, timeout=60, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "fit\n"), done.stderr


FUTURES = """
import os
from link_kv import LinkedClient, RemoteError
def called(linked):
    done = []
    future = linked.boom(asynchronous=True)
    future.add_done_callback(done.append)
    assert isinstance(future.exception(20), RemoteError), future
    while not done:
        pass
parent = LinkedClient('Echo')
called(parent)
pid = os.fork()
if not pid:
    called(LinkedClient('Echo'))
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
called(parent)
print('called')
"""


def test_futures_in_a_child(echo: Echo) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FUTURES], cwd=ROOT, timeout=60, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "called\n"), done.stderr
