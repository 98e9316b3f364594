"""Live configurations while a writer changes them, some values are bad, and etcd is killed.

``pytest -m slow`` runs it for a minute, with ten kills.
"""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest
from pydantic import create_model
from pydantic_settings import BaseSettings

from link_kv import Entry, EtcdMiddleware, NotFound, Unavailable, local
from link_kv._core.configuration.applied import acknowledgements
from link_kv._core.wire.calls import run
from link_kv.driver import Configurable, EtcdConfDriver, Parameter, category, watch
from link_kv.errors import LinkKVError
from link_kv.settings import follow
from tests.processes import until

PATH = "/proof/x.conf"
NAMES = [f"p{number}" for number in range(50)]

Fields: Any = create_model("Fields", __base__=BaseSettings, stamp=(int, 0), **dict.fromkeys(NAMES, (int, 0)))


class Reader:
    """Follows the configuration in one way, and keeps looking at what is in force."""

    def __init__(self, follow: Callable[[Callable[[LinkKVError], object]], Any]) -> None:
        self.errors: list[str] = []
        self.mixed: list[Any] = []
        self.looks = 0
        self.following = follow(lambda error: self.errors.extend(re.findall(r"/p\d+: ", str(error))))
        self._stop = threading.Event()

    def values(self) -> dict[str, int]:
        return dict(self.following.current)

    def look(self, states: dict[int, dict[str, int]]) -> None:
        while not self._stop.wait(0.001):
            values = self.values()
            self.looks += 1
            if values != states[values["stamp"]]:
                self.mixed.append(values)

    def close(self) -> None:
        self._stop.set()


class Writer:
    """Changes parameters at random, all of a change in one transaction; one in five is bad, then mended."""

    def __init__(self, client: EtcdMiddleware, seed: int) -> None:
        self._client = client
        self._dice = random.Random(seed)
        self._values = dict.fromkeys(NAMES, 0)
        self.states: dict[int, dict[str, int]] = {0: {**self._values, "stamp": 0}}
        self.bad = 0
        self.stamp = 0

    def step(self) -> tuple[int, bool]:
        """One change; its revision, and whether it is good."""
        self.stamp += 1
        changes: dict[str, Any] = {
            name: self._dice.randrange(1000) for name in self._dice.sample(NAMES, self._dice.randint(1, 50))
        }
        bad = self._dice.random() < 0.2
        if bad:
            self.bad += 1
            changes[self._dice.choice(list(changes))] = f"bad-{self.stamp}"
            return self._write(changes), False
        self._values |= changes
        self.states[self.stamp] = {**self._values, "stamp": self.stamp}
        return self._write({**self._values}), True

    def _write(self, changes: dict[str, Any]) -> int:
        changes = {f"{PATH}/C/{name}": value for name, value in {**changes, "stamp": self.stamp}.items()}
        while True:
            with suppress(Unavailable):
                self._client.update(changes)
            # Once more would be another revision, and what is bad in it would be told again.
            stamp = self._stamp()
            if stamp is not None and stamp.value == self.stamp:
                return stamp.revision

    def _stamp(self) -> Entry | None:
        """What etcd has, as soon as it answers."""
        while True:
            with suppress(Unavailable):
                try:
                    return self._client.entry(f"{PATH}/C/stamp")
                except NotFound:
                    return None


@contextmanager
def readers(endpoints: list[str]) -> Iterator[list[Reader]]:
    """Two of pydantic's and two of b3j0f's, each as in a process of its own."""

    def with_pydantic(client: EtcdMiddleware) -> Callable[..., Any]:
        return lambda report: follow(Fields, f"{PATH}/C", client=client, on_error=report)

    def with_b3j0f(client: EtcdMiddleware) -> Callable[..., Any]:
        parameters = [Parameter(name, ptype=int, value=0) for name in ("stamp", *NAMES)]
        configurable = Configurable(
            paths=PATH, conf=category("C", *parameters), drivers=[EtcdConfDriver(client)]
        )
        return lambda report: watch(configurable, on_error=report)

    with ExitStack() as stack:
        made = []
        for how in (with_pydantic, with_b3j0f, with_pydantic, with_b3j0f):
            client = stack.enter_context(EtcdMiddleware(endpoints=endpoints, timeout=5))
            made.append(Reader(how(client)))
            stack.callback(made[-1].close)
        yield made


@pytest.mark.parametrize(("seconds", "kills"), [(5, 2), pytest.param(60, 10, marks=pytest.mark.slow)])
def test_no_reader_ever_sees_two_revisions_mixed_or_a_bad_value(
    seconds: float, kills: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(local.start())
        client = stack.enter_context(EtcdMiddleware(endpoints=server.endpoints, timeout=5))
        followers = stack.enter_context(readers(server.endpoints))
        writer = Writer(client, seed=6)
        threads = [threading.Thread(target=each.look, args=(writer.states,)) for each in followers]
        for thread in threads:
            thread.start()

        def change() -> bool:
            """Change something, and wait for what is bad to be seen; whether it was good."""
            revision, good = writer.step()
            if not good:
                for each in followers:
                    assert not each.following.wait(revision, 60)
                    assert each.following.problems
            return good

        began = time.monotonic()
        killed = 0
        while time.monotonic() < began + seconds or killed < kills:
            if time.monotonic() > began + (killed + 0.5) * seconds / kills and killed < kills:
                killed += 1
                server.kill()
                threading.Thread(target=server.restart).start()
            change()
        while not change():
            pass  # the last one is good
        for each in followers:
            until(lambda each=each: each.values()["stamp"] == writer.stamp, 60)
            each.close()
        for thread in threads:
            thread.join()
        with capsys.disabled():
            looks = sum(each.looks for each in followers)
            print(f"\n{writer.stamp} changes, {writer.bad} of them bad, {killed} kills, {looks} looks")
        for each in followers:
            assert not each.mixed
            assert len(each.errors) == writer.bad, each.errors


def test_a_change_costs_etcd_one_write_for_each_process(etcd: Any, etcd_client: EtcdMiddleware) -> None:
    def told() -> list[Any]:
        return run(acknowledgements(etcd_client._exchange(), PATH))[1]

    with ExitStack() as stack:
        for _ in range(5):
            client = stack.enter_context(EtcdMiddleware(endpoints=etcd.endpoints, prefix=etcd_client.prefix))
            for _ in range(20):
                stack.enter_context(follow(Fields, PATH, client=client))
        until(lambda: len(told()) == 100)
        for value in (1, "bad"):
            revision = etcd_client.put(f"{PATH}/p1", value)
            until(lambda revision=revision: all(each.seen == revision for each in told()))
            assert {each.state for each in told()} == {"applied" if value == 1 else "rejected"}
            written = [entry for entry in etcd_client.raw if b"/.link/applied/" in entry]
            assert len(written) == 100
            assert run(acknowledgements(etcd_client._exchange(), PATH))[0] - revision <= 200
