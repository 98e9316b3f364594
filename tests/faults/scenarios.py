"""Short scenes in which one behaviour of the library decides, each with the findings that it leads to.

With the library as it is there are none. A mutant of that behaviour is found by one of them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from link_kv import EtcdMiddleware, Lock, local
from link_kv import plan as plans
from link_kv._core.cluster import auth
from link_kv._core.wire.calls import run
from link_kv._core.wire.config import Config
from link_kv.errors import AccessDenied, LinkKVError, LockLost, Unavailable
from tests.faults.arena import Arena
from tests.faults.checker import Finding, History, check, check_delivery
from tests.faults.cluster import Processes
from tests.faults.mirrors import Followed
from tests.faults.records import Log, read_compactions, read_delivery, read_ops
from tests.faults.watchers import Reader, Watcher
from tests.faults.workload import Worker, connect
from tests.leases import revoke
from tests.live.inbox import Inbox
from tests.logins import ROOT, server_with_logins
from tests.processes import until
from tests.wire.proxy import Proxy

_BOUND = 60.0
"""Seconds within which what is to happen does, on however busy a machine."""
_SILENT = 12.0
_TRIES, _AWAY, _SOON = 6, 9.0, 5.0
"""How often a server that is away is tried in how many seconds, and how soon it is found again. Without a cap
the last of these tries comes after 12 s at least; with it, after two."""
BOB = ("bob", "BOBS-PASSWORD")
_numbers = count(1)


class Ground:
    """A server of one's own, and a directory."""

    def __init__(self, cluster: Processes, directory: Path) -> None:
        self.cluster = cluster
        self.directory = directory

    @property
    def endpoint(self) -> str:
        return self.cluster.endpoints[0]


Scenario = Callable[[Ground], list[Finding]]


class Scene:
    """A part of etcd of its own, with workers and watchers whose word is checked at the end."""

    def __init__(self, ground: Ground) -> None:
        number = next(_numbers)
        self.stack = ExitStack()
        self.prefix = f"/scene-{number}"
        self.ground = ground
        self.arena = self._open(closing(Arena(ground.cluster, self.prefix, ground.directory / str(number))))
        self.link = self._open(Proxy(ground.endpoint))
        self.direct = self.client()
        self._watchers: list[Watcher | Reader] = []
        self._workers = count(1)

    def _open(self, context: Any) -> Any:
        return self.stack.enter_context(context)

    def client(self, *, linked: bool = False, timeout: float = 30) -> EtcdMiddleware:
        """A client, over the link that can be cut or not."""
        endpoint = self.link.endpoint if linked else self.ground.endpoint
        client: EtcdMiddleware = self._open(connect([endpoint], self.prefix, timeout))
        return client

    def worker(self, client: EtcdMiddleware | None = None) -> Worker:
        number = next(self._workers)
        log = self._open(closing(Log(self.arena.log(number))))
        return Worker(str(number), number * 10_000_000, str(number), client or self.direct, log)

    def watch(self, path: str = "/", client: EtcdMiddleware | None = None) -> Watcher:
        log = Log(self.arena.directory / f"watcher-{len(self._watchers)}.jsonl")
        watcher = Watcher(client or self.client(linked=True), log, path, path, 10_000)
        self._watchers.append(watcher)
        return watcher

    def read(self, start: int) -> None:
        """Iterate over the changes since a revision."""
        log = Log(self.arena.directory / f"watcher-{len(self._watchers)}.jsonl")
        self._watchers.append(Reader(self.client(linked=True), log, "iterator", start))

    def findings(self, last: Mapping[str, int] | None = None) -> list[Finding]:
        """Everything was said: what does not hold together. ``last`` are the last revisions of paths."""
        last = last or {}
        end = self.arena.mark()
        self.arena.truth.extend(end)
        found: list[Finding] = list(self.arena.truth.findings)
        for watcher in self._watchers:
            watcher.finish(last.get(watcher.path, end), _BOUND)
        self.stack.close()
        ops = read_ops(sorted(self.arena.directory.glob("worker-*.jsonl")))
        history = History(self.arena.truth.truth)
        compactions = read_compactions(self.arena.directory / "compactions.jsonl")
        found += check(history, ops, compactions).findings
        for path in sorted(self.arena.directory.glob("watcher-*.jsonl")):
            found += check_delivery(history, read_delivery(path), compactions)
        return found


@contextmanager
def first_time(of: Any, name: str, action: Callable[[], object]) -> Iterator[None]:
    """Do something just before a function is called for the first time."""
    original, turns = getattr(of, name), count()

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if not next(turns):
            action()
        return original(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(of, name, wrapped)
        yield


# The scenes


def large_revisions(ground: Ground) -> list[Finding]:
    """What is replayed is more than goes into one answer, so that revisions come in fragments."""
    scene = Scene(ground)
    worker = scene.worker()
    for turn in range(6):
        tree = {f"{number:0200}": 10_000 * (turn + 1) + number for number in range(2500)}
        worker.do("put", ["t0", tree], lambda tree=tree: scene.direct.put("/t0", tree))
    scene.read(scene.arena.start)
    return scene.findings()


def broken_link(ground: Ground) -> list[Finding]:
    """A connection breaks; what happened meanwhile comes afterwards."""
    scene = Scene(ground)
    worker = scene.worker()
    watcher = scene.watch()
    for _ in range(3):
        worker.put_tree("t0")
        scene.link.close()
        until(lambda: watcher.state == "stale")
        for _ in range(5):
            worker.put_tree("t1")
        scene.link.reopen()
        until(lambda: watcher.state == "live")
    return scene.findings()


def compacted_meanwhile(ground: Ground) -> list[Finding]:
    """A connection breaks, and what happened meanwhile is compacted away."""
    scene = Scene(ground)
    worker = scene.worker()
    worker.put_tree("t0")
    worker.put_tree("t1")
    watcher = scene.watch()
    scene.link.close()
    until(lambda: watcher.state == "stale")
    worker.put_tree("t0")
    worker.do("delete", ["t1"], lambda: scene.direct.delete("/t1"))
    mark = scene.arena.mark()
    scene.arena.truth.extend(mark)
    scene.arena.truth.compact(mark)
    scene.link.reopen()
    until(lambda: watcher.state == "live")
    worker.put_tree("t1")
    return scene.findings()


def unanswered_write(ground: Ground) -> list[Finding]:
    """A write arrives, and its answer does not."""
    scene = Scene(ground)
    client = scene.client(linked=True)
    worker = scene.worker(client)
    worker.do("put", ["k0", 105], lambda: client.put("/k0", 105))
    assert client["/k0"] == 105
    _without_an_answer(
        scene,
        lambda: worker.do("put", ["k0", 106], lambda: client.put("/k0", 106)),
        lambda: scene.direct["/k0"] == 106,
    )
    return scene.findings()


def unanswered_delete(ground: Ground) -> list[Finding]:
    """A delete arrives, and its answer does not."""
    scene = Scene(ground)
    client = scene.client(linked=True)
    worker = scene.worker(client)
    worker.do("put", ["k0", 105], lambda: client.put("/k0", 105))
    _without_an_answer(
        scene,
        lambda: worker.do("delete", ["k0"], lambda: client.delete("/k0")),
        lambda: "/k0" not in scene.direct,
    )
    return scene.findings()


def _without_an_answer(scene: Scene, write: Callable[[], object], arrived: Callable[[], bool]) -> None:
    """Write over a link that carries no answers, and is cut when the write has arrived."""
    scene.link.mute()
    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    until(arrived)
    scene.link.cut()
    scene.link.release()
    thread.join(_BOUND)


def leaf_over_a_tree(ground: Ground) -> list[Finding]:
    """A leaf takes the place of a tree, all of it."""
    scene = Scene(ground)
    worker = scene.worker()
    tree = {"a": 105, "b": {"c": 106, "d": 107}}
    worker.do("put", ["t0", tree], lambda: scene.direct.put("/t0", tree))
    worker.do("leaf", ["t0", "b", 108], lambda: scene.direct.put("/t0/b", 108))
    return scene.findings()


def siblings(ground: Ground) -> list[Finding]:
    """What only begins like a path is none of its business."""
    scene = Scene(ground)
    worker = scene.worker()
    for tree in ("t1", "t1b", "t1-b"):
        worker.put_tree(tree)
    client = scene.client(linked=True)
    scene.watch("/t1", client)
    with closing(Followed(client, ground.cluster, ["/t1"])) as followed:
        for tree in ("t1b", "t1-b", "t1"):
            worker.put_tree(tree)
        found = list(followed.compare(worker.put_tree("t1")))
    worker.do("delete", ["t1"], lambda: scene.direct.delete("/t1"))
    return found + scene.findings({"/t1": worker.put_tree("t1")})


def revoked_lease(ground: Ground) -> list[Finding]:
    """Somebody ends the lease of a lock: its holder learns it with the next keepalive."""
    scene = Scene(ground)
    lock = Lock(scene.direct, "one", ttl=2)
    lock.acquire()
    assert lock._claim is not None
    revoke(ground.endpoint, lock._claim.lease.id)
    told = lock.lost.wait(2 * lock._claim.lease.ttl)
    found = [] if told and not lock.held else [Finding("lock, held without a lease", "for twice its time")]
    with suppress(LockLost):
        lock.release()
    return found + scene.findings()


def late_holder(ground: Ground) -> list[Finding]:
    """A holder does not know yet that another has the lock, and writes."""
    scene = Scene(ground)
    scene.direct.put("/counter", 0)
    one, other = Lock(scene.direct, "counter", ttl=60), Lock(scene.client(), "counter", ttl=60)
    one.acquire()
    read = one.client["/counter"]
    assert one._claim is not None
    revoke(ground.endpoint, one._claim.lease.id)
    with other:
        other.client["/counter"] = other.client["/counter"] + 1
        with suppress(LockLost):
            one.client["/counter"] = read + 1
        now = scene.direct["/counter"]
        overwritten = scene.direct.entry("/counter").version != 2
    with suppress(LockLost):
        one.release()
    del scene.direct["/counter"]
    scene.stack.close()
    return [Finding("lost increment", f"the counter was overwritten, and is {now}")] if overwritten else []


def two_in_a_list(ground: Ground) -> list[Finding]:
    """While an item is deleted and those behind it move up, another deletes the last one."""
    scene = Scene(ground)
    one, other = scene.worker(), scene.worker(scene.client())
    items = [101, 102, 103, 104]
    one.do("put", ["l0", items], lambda: scene.direct.put("/l0", items))

    def last() -> None:
        other.do("unitem", ["l0", 4], lambda: scene.direct.delete("/l0/4"))

    with first_time(plans, "delete_item", last):
        # The last one's delete comes through the same function, and finds nobody before it.
        one.do("unitem", ["l0", 1], lambda: scene.direct.delete("/l0/1"))
    return scene.findings()


def below_a_leaf(ground: Ground) -> list[Finding]:
    """A leaf has nothing below it."""
    scene = Scene(ground)
    worker = scene.worker()
    worker.do("put", ["k0", 105], lambda: scene.direct.put("/k0", 105))
    worker.do("leaf", ["k0", "a", 107], lambda: scene.direct.put("/k0/a", 107))
    return scene.findings()


def moved_meanwhile(ground: Ground) -> list[Finding]:
    """A leaf that has moved is not overwritten by who compares its revision."""
    scene = Scene(ground)
    worker = scene.worker()
    worker.do("put", ["k0", 105], lambda: scene.direct.put("/k0", 105))
    old = scene.direct.entry("/k0").revision
    worker.do("put", ["k0", 106], lambda: scene.direct.put("/k0", 106))
    worker.do("cas", ["k0", 108, old], lambda: scene.direct.put("/k0", 108, revision=old))
    return scene.findings()


def denied_watch(ground: Ground) -> list[Finding]:
    """A watch is denied: who asked for it is told so, and the others go on."""
    found = []
    with (
        server_with_logins() as etcd,
        _logged_in(etcd, ROOT) as root,
        _logged_in(etcd, BOB) as bob,
    ):
        ex = root._exchange()
        run(auth.add_user(ex, *BOB))
        run(auth.add_role(ex, "store-reader"))
        for start, end in ((b"/app/.link/", b"/app/.link0"), (b"/app/store", b"/app/store0")):
            run(auth.grant(ex, "store-reader", auth.Grant("read", start, end)))
        run(auth.give_role(ex, BOB[0], "store-reader"))
        inbox = Inbox()
        bob.subscribe("/store", inbox)
        try:
            bob.subscribe("/other", print)
            found.append(Finding("watch, denied", "and nobody was told"))
        except AccessDenied:
            pass
        except LinkKVError as error:
            found.append(Finding("watch, denied", f"and told as {error}"))
        revision = root.put("/store/x", 1)
        try:
            inbox.wait_revision(revision, _BOUND)
        except AssertionError:
            found.append(Finding("watch, once", f"revision {revision} did not come after another's denial"))
    return found


def _logged_in(etcd: local.LocalEtcd, login: tuple[str, str]) -> EtcdMiddleware:
    user, password = login
    config = Config(
        endpoints=tuple(etcd.endpoints), user=user, password=password, prefix="/app", timeout=_SILENT
    )
    client: EtcdMiddleware = EtcdMiddleware._of(config)
    return client


def lonely_member(ground: Ground) -> list[Finding]:
    """A member loses the others, and keeps its connections: who watches through it is told."""
    with Processes(3) as cluster:
        member = cluster.follower()
        with connect([member.endpoint], "/lonely") as client:
            states = Inbox()
            client.subscribe("/a", print, on_state=states)
            for other in cluster.members:
                if other is not member:
                    other.pause()
            try:
                states.until(lambda items: "stale" in items, _SILENT)
            except AssertionError:
                return [Finding("watch, silent", f"for {_SILENT:.0f} s on a member without a leader")]
            finally:
                cluster.whole()
    return []


def outage(ground: Ground) -> list[Finding]:
    """A server is away for a while, and found soon when it is back."""
    with (
        Proxy(ground.endpoint) as link,
        connect([link.endpoint], "/outage", timeout=30) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        client["/a"] = 1
        assert client["/a"] == 1
        object.__setattr__(client._config, "timeout", 0.5)
        link.close()
        tried = pool.submit(link.hang_up, _TRIES, _AWAY)
        while not tried.done():  # somebody asks all the time
            with suppress(Unavailable):
                client["/a"]
        link.reopen()
        back = time.monotonic()

        def answers() -> bool:
            try:
                return bool(client["/a"] == 1)
            except Unavailable:
                return False

        until(answers, 60)
        took = time.monotonic() - back
    late = took > _SOON or not tried.result()
    return [Finding("found late", f"{took:.1f} s after it was back")] if late else []


SCENARIOS: list[Scenario] = [
    large_revisions,
    broken_link,
    compacted_meanwhile,
    unanswered_write,
    unanswered_delete,
    leaf_over_a_tree,
    siblings,
    revoked_lease,
    late_holder,
    two_in_a_list,
    below_a_leaf,
    moved_meanwhile,
    denied_watch,
    lonely_member,
    outage,
]
