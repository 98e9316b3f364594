"""Configuration readers, callbacks of items, services and links, while etcd is away and when it comes back.

Meanwhile each keeps the last good value and says that it is cut off. Calls over a link do not go through
etcd, and go on while the service's lease lives. One service has a lease that ends meanwhile; in some outages
the lease of its client does too. All are back within three seconds of the first answer that etcd gives, with
a value that was written at once or when all were there again, and until then with the last good one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress

from pydantic import BaseModel

import link_kv
from link_kv.driver import Configurable, EtcdConfDriver, Parameter, category, configuration, watch
from link_kv.errors import LinkKVError
from link_kv.links import connect as connect_to_services
from link_kv.settings import follow
from tests.faults.cluster import Cluster, Member
from tests.faults.programs import Process
from tests.faults.run import Outcome, Run
from tests.faults.stalls import Stalls
from tests.faults.workload import connect
from tests.live.inbox import Inbox
from tests.processes import until
from tests.services.echo import Echo
from tests.wire.proxy import Proxy

PREFIX = "/followers"
_BACK = 3.0
"""Seconds within which all are back."""
_TOLD = 20.0
"""Seconds within which the state is told. A frozen server is noticed after 12."""
_LASTING = 7
"""One of so many outages lasts until the client's lease has ended. With up to six ways, each has its turn."""
_WHOLE = 60.0
"""Seconds within which etcd answers at all, once nothing is done to it any more."""
_CONF = "faults/server.conf"


class Server(BaseModel):
    port: int = 0


def _write(writer: link_kv.EtcdMiddleware, value: int) -> None:
    writer.update({f"/{_CONF}/C/port": value, "/settings/port": value, "/store/value": value})


class Followers:
    """One of each kind, and what it shows."""

    def __init__(self, run: Run, links: list[Proxy], stack: ExitStack) -> None:
        endpoints = [link.endpoint for link in links]
        self.writer = stack.enter_context(connect(run.cluster.endpoints, PREFIX, timeout=30))
        self.writer[f"/{_CONF}/C"] = {"port": 1}
        self.writer["/settings"] = {"port": 1}
        self.writer["/store"] = {"value": 1}
        client = stack.enter_context(connect(endpoints, PREFIX, timeout=5))
        self.settings = stack.enter_context(follow(Server, "/settings", client=client))
        self.reload = stack.enter_context(watch(self._configurable(EtcdConfDriver(client)), settle=0))
        self.item = link_kv.get("store", "value", client=client)
        self.values, self.states = Inbox(), Inbox()
        handle = self.item.register(lambda item, value, at: self.values(value), on_state=self.states)
        stack.callback(handle.close)
        self.mirror = stack.enter_context(client.mirror("/store"))
        self._url = f"etcd://{','.join(endpoints)}{PREFIX}"
        steady = Echo("Steady")
        steady.start_in_thread(host=self._url, ttl=60)
        stack.callback(steady.stop)
        arguments = (",".join(endpoints), PREFIX, "2", "Fickle")
        fickle = Process(run.directory / "log", "tests.services.echo", *arguments)
        stack.callback(fickle.close)
        until(lambda: self.found("Fickle"))
        self.connection = stack.enter_context(connect_to_services(host=self._url, name="faults"))
        self.links = {name: self.connection.link(name) for name in ("Steady", "Fickle")}

    def _configurable(self, driver: EtcdConfDriver) -> object:
        conf = configuration(category("C", Parameter("port", ptype=int, value=0)))

        @Configurable(paths=_CONF, conf=conf, drivers=[driver])
        class Configured:
            port: int

        return Configured

    def spoil(self) -> None:
        """Write a configuration that does not fit."""
        self.writer[f"/{_CONF}/C/port"] = "ninety"
        self.writer["/settings/port"] = "ninety"
        until(lambda: self.reload.error is not None and self.settings.error is not None)

    def write(self, value: int) -> None:
        _write(self.writer, value)

    def shown(self) -> dict[str, int]:
        """The value that each shows."""
        return {
            "configurable": self.reload.current["port"],
            "settings": self.settings.current.port,
            "item": self.item.value,
            "mirror": self.mirror["value"],
        }

    @contextmanager
    def looked_at(self) -> Iterator[set[tuple[str, object]]]:
        """All that is shown meanwhile, be it for a moment."""
        seen: set[tuple[str, object]] = set()
        before = len(self.values.items)
        stop = threading.Event()

        def look() -> None:
            while not stop.wait(0.005):
                try:
                    seen.update(self.shown().items())
                except Exception as error:  # noqa: BLE001 - a value that is not there any more
                    seen.add(("one of them", repr(error)))

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        try:
            yield seen
        finally:
            stop.set()
            thread.join()
            seen.update(("callback", value) for value in self.values.items[before:])

    def told(self) -> dict[str, str]:
        """The state that each tells."""
        return {
            "configurable": self.reload.state,
            "settings": self.settings.state,
            "item": self.item.state,
            "mirror": self.mirror.state,
        }

    def call(self, service: str) -> bool:
        """Whether a service answers over a link that was there."""
        try:
            return bool(self.links[service].same(1, timeout=1) == 1)
        except LinkKVError:
            return False

    def found(self, service: str) -> bool:
        """Whether somebody who comes now finds a service."""
        try:
            # Who gives up after a second begins anew with a member that may not answer yet.
            with connect_to_services(host=self._url, timeout=_BACK) as newcomer:
                return bool(newcomer.link(service).same(1) == 1)
        except LinkKVError:
            return False


def run(run: Run) -> list[Outcome]:
    outcome = Outcome("followers")
    longest: dict[str, float] = {}
    with run.proxies() as links, ThreadPoolExecutor(1) as pool, ExitStack() as stack:
        followers = Followers(run, links, stack)
        outages = _outages(run, links)
        for number in range(run.profile.outages):
            name, begin, end = outages[number % len(outages)]
            good, value = 2 * number + 10, 2 * number + 11
            followers.write(good)
            until(lambda good=good: set(followers.shown().values()) == {good})
            followers.spoil()
            with followers.looked_at() as seen:
                begin()
                try:
                    _examine_outage(followers, outcome, name, good)
                    if number % _LASTING == 0:
                        until(lambda: not followers.connection.is_connected(), _TOLD)
                    # Once more: leases have ended meanwhile.
                    _keeps(followers, outcome, name, good)
                finally:
                    ending = pool.submit(end)
                began, member = _answers_since(run.cluster)
                # In each way of being away each of the two has its turn.
                at_once = (number + number // len(outages)) % 2 == 0
                with Stalls() as stalls:
                    back = _come_back(followers, began, member, value, at_once)
                ending.result()
            strange = sorted(f"{what} {each}" for what, each in seen if each not in (good, value))
            outcome.demand(
                not strange,
                "shown meanwhile",
                f"{strange}, neither {good} nor {value}, while and after {name}",
            )
            for what, took in back.items():
                longest[what] = max(longest.get(what, 0.0), took)
                stalls.demand(outcome, took, _BACK, "back late", f"{what}, {took:.1f} s after {name}")
            run.note(f"{name}: " + ", ".join(f"{what} {took:.2f} s" for what, took in longest.items()))
    told = ", ".join(f"{what} {took:.2f} s" for what, took in longest.items())
    outcome.figures = (
        f"{run.profile.outages} outages: the last good values were kept, the state was told, calls over the "
        f"link went on; back after {told} at most, since etcd's first answer"
    )
    return [outcome]


def _examine_outage(followers: Followers, outcome: Outcome, name: str, good: int) -> None:
    try:
        until(lambda: set(followers.told().values()) == {"stale"}, _TOLD)
    except AssertionError:
        outcome.demand(False, "state not told", f"{followers.told()} while {name}")
    _keeps(followers, outcome, name, good)
    outcome.demand(followers.call("Steady"), "call failed", f"while {name}")


def _keeps(followers: Followers, outcome: Outcome, name: str, good: int) -> None:
    shown, told = followers.shown(), followers.told()
    outcome.demand(
        set(shown.values()) == {good}, "last good value lost", f"{shown}, not {good}, while {name}"
    )
    outcome.demand(set(told.values()) == {"stale"}, "state not told", f"{told} while {name}")


def _answers_since(cluster: Cluster) -> tuple[float, Member]:
    """When etcd answered a read that takes a majority, from now on, and which member did.

    Not all members may be back by then.
    """
    answered: list[tuple[float, Member]] = []
    first = threading.Event()

    def ask(member: Member) -> None:
        while not first.wait(0.01):
            if member.healthy():
                answered.append((time.monotonic(), member))
                first.set()

    for member in cluster.members:
        threading.Thread(target=ask, args=[member], daemon=True).start()
    assert first.wait(_WHOLE), "no member answers"
    return answered[0]


def _come_back(
    followers: Followers, began: float, member: Member, value: int, at_once: bool
) -> dict[str, float]:
    """Etcd is back: after how many seconds each was, with a value that is written now.

    At once, so that all must catch up with it; or when all are live again, so that each has shown what it has
    before. It is written at the member that answered: another may be silent while it starts, and how long a
    writer gives that one is not what is measured here.
    """
    conditions: dict[str, Callable[[], bool]] = {
        what: lambda what=what: followers.shown()[what] == value and followers.told()[what] == "live"
        for what in followers.shown()
    }
    conditions["callback"] = lambda: value in followers.values.items
    conditions["link"] = lambda: followers.connection.is_connected() and followers.call("Steady")
    conditions["link with one that lost its lease"] = lambda: followers.call("Fickle")
    conditions["newcomer"] = lambda: followers.found("Fickle") and followers.found("Steady")

    def write() -> None:
        if not at_once:
            with suppress(AssertionError):  # the conditions tell
                until(lambda: set(followers.told().values()) == {"live"}, 5 * _BACK)
        with connect([member.endpoint], PREFIX, timeout=30) as writer:
            _write(writer, value)

    def took(holds: Callable[[], bool]) -> float:
        with suppress(AssertionError):
            until(holds, 10 * _BACK)
        return time.monotonic() - began

    # Each by itself, since a call that is not answered takes a while.
    with ThreadPoolExecutor(len(conditions) + 1) as pool:
        written = pool.submit(write)
        found = dict(zip(conditions, pool.map(took, conditions.values()), strict=True))
        written.result()
    return found


def _outages(run: Run, links: list[Proxy]) -> list[tuple[str, Callable[[], None], Callable[[], None]]]:
    """Ways in which nobody can work with etcd: their names, how they begin and how they end."""
    cluster, dice = run.cluster, run.dice("followers")

    def kill(member: Member) -> None:
        if cluster.safe:
            member.kill()
        else:
            member.stop()

    def each_link(action: Callable[[Proxy], None]) -> Callable[[], None]:
        def act() -> None:
            for link in links:
                action(link)

        return act

    def some(action: Callable[[Member], None], number: int) -> Callable[[], None]:
        def act() -> None:
            for member in dice.sample(cluster.members, number):
                action(member)

        return act

    found = [
        ("all links are closed", each_link(Proxy.close), each_link(Proxy.reopen)),
        ("a majority is down", some(kill, 2), cluster.whole),
        ("all members are down", some(kill, 3), cluster.whole),
    ]
    if cluster.safe:
        found.append(("a majority is frozen", some(lambda member: member.pause(), 2), cluster.whole))
        found.append(("all links are dead", each_link(Proxy.hold), each_link(Proxy.release)))
    if cluster.safe and cluster.partitions:
        found.append(("a majority is cut off", some(lambda member: cluster.cut([member]), 2), cluster.whole))
    return found
