"""A configurable that follows etcd while the program runs."""

from __future__ import annotations

import gc
import queue
import random
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from link_kv import EtcdMiddleware, local
from link_kv._core.configuration.applied import acknowledgements, schemas
from link_kv._core.configuration.schema import TEXTS
from link_kv._core.wire.calls import run
from link_kv.driver import (
    BOOL,
    Array,
    Configurable,
    EtcdConfDriver,
    Parameter,
    Reload,
    applyconfiguration,
    category,
    configuration,
    watch,
)
from link_kv.errors import ConfigError, LinkKVError, PathError, Unavailable
from tests.processes import until

from .helpers import NOWHERE, PATH, attacks, declared


@pytest.fixture
def server(driver: EtcdConfDriver) -> Any:
    """A class with three parameters."""

    @Configurable(
        paths=PATH,
        conf=declared(
            Parameter("port", ptype=int, value=8080),
            Parameter("debug", value=False),
            Parameter("hosts", ptype=Array(str)),
        ),
        drivers=[driver],
    )
    class Server:
        port: int
        debug: bool
        hosts: list[str]

    return Server


@pytest.fixture
def followed(server: Any) -> Iterator[Reload]:
    with watch(server, settle=0) as reload:
        yield reload


def test_a_change_reaches_what_is_there_and_what_is_made_later(
    etcd_client: EtcdMiddleware, server: Any
) -> None:
    changes: queue.Queue[Any] = queue.Queue()
    before = server()
    with watch(server, on_change=changes.put) as reload:
        assert reload.state == "live"
        revision = etcd_client.put(f"/{PATH}/C", {"port": "9090", "debug": "yes", "hosts": "a, b"})
        assert reload.wait(revision, 10)
        now = {"port": 9090, "debug": True, "hosts": ["a", "b"]}
        assert vars(before) == vars(server()) == dict(reload.current) == now
        assert changes.get(timeout=10) is reload.current
        assert reload.revision == revision
        with pytest.raises(TypeError):
            reload.current["port"] = 1  # type: ignore[index]
        assert reload.wait(etcd_client.delete(f"/{PATH}"), 10)
        assert (before.port, before.debug, before.hosts) == (8080, False, None)
    assert not reload.wait(etcd_client.put(f"/{PATH}/C/port", 1), 10)
    assert before.port == 8080


def test_a_bad_value_leaves_all_of_the_last_good_configuration_in_force(
    etcd_client: EtcdMiddleware, server: Any
) -> None:
    errors: queue.Queue[LinkKVError] = queue.Queue()
    instance = server()
    with watch(server, on_error=errors.put, settle=0) as reload:
        good = etcd_client.put(f"/{PATH}/C", {"port": 1, "debug": True})
        assert reload.wait(good, 10)
        bad = etcd_client.put(f"/{PATH}/C", {"port": "ninety", "debug": False})
        assert not reload.wait(bad, 10)
        assert (instance.port, instance.debug, reload.revision) == (1, True, good)
        assert (server().port, server().debug) == (1, True)
        assert list(reload.problems) == [f"/{PATH}/C/port"]
        told = str(errors.get(timeout=10))
        assert f"revision {bad} is rejected, {good} stays in force: /{PATH}/C/port: 'ninety'" in told
        assert reload.wait(etcd_client.put(f"/{PATH}/C/port", 2), 10)
        assert (instance.port, instance.debug, reload.error) == (2, False, None)
    assert errors.empty()


def test_what_is_in_force_for_one_class_is_not_for_another(
    etcd_client: EtcdMiddleware, driver: EtcdConfDriver
) -> None:
    """Both have their sections in one file, and only one of them knows what is bad in it."""

    @Configurable(paths=PATH, conf=declared(Parameter("name")), drivers=[driver])
    class One: ...

    @Configurable(
        paths=PATH,
        conf=declared(Parameter("port", ptype=int, value=8080), Parameter("debug", value=False)),
        drivers=[driver],
    )
    class Other:
        port: int
        debug: bool

    with watch(Other, settle=0) as other:
        with watch(One, settle=0) as one:
            good = etcd_client.put(f"/{PATH}/C", {"port": 9090, "debug": False})
            assert one.wait(good, 10)
            assert other.wait(good, 10)
            bad = etcd_client.put(f"/{PATH}/C", {"port": "ninety", "debug": True})
            assert one.wait(bad, 10)
            assert not other.wait(bad, 10)
            assert (Other().port, Other().debug) == (9090, False)
        driver.getconf(PATH)
        assert (Other().port, Other().debug) == (9090, False)


def test_a_program_that_starts_on_a_bad_value_has_the_others(
    etcd_client: EtcdMiddleware, server: Any
) -> None:
    errors: queue.Queue[LinkKVError] = queue.Queue()
    etcd_client[f"/{PATH}/C"] = {"port": "ninety", "debug": True}
    with watch(server, on_error=errors.put, settle=0) as reload:
        assert (reload.current["port"], reload.current["debug"], reload.revision) == (8080, True, 0)
        assert "what the program declares stays in force" in str(errors.get(timeout=10))
        revision = etcd_client.put(f"/{PATH}/C/port", 1)
        assert reload.wait(revision, 10)
        assert (server().port, reload.revision) == (1, revision)


def test_everything_of_a_revision_arrives_in_one_step(etcd_client: EtcdMiddleware, server: Any) -> None:
    instance = server()
    stop = threading.Event()
    mixed: list[Any] = []

    def read() -> None:
        while not stop.is_set():
            own = dict(vars(instance))
            now = reload.current
            for seen in (own, now):
                if seen["hosts"] is not None and seen["hosts"] != [str(seen["port"])]:
                    mixed.append(seen)

    with watch(server, settle=0) as reload:
        reader = threading.Thread(target=read)
        reader.start()
        try:
            for number in range(100):
                revision = etcd_client.put(f"/{PATH}/C", {"port": number, "hosts": [str(number)]})
                assert reload.wait(revision, 10)
        finally:
            stop.set()
            reader.join()
    assert not mixed


def test_instances_made_while_a_change_arrives_do_not_miss_it(
    etcd_client: EtcdMiddleware, driver: EtcdConfDriver
) -> None:
    entered, go = threading.Event(), threading.Event()

    @Configurable(paths=PATH, conf=declared(Parameter("port", ptype=int, value=1)), drivers=[driver])
    class Slow:
        port: int

        def __init__(self) -> None:
            entered.set()
            assert go.wait(10)

    made: list[Slow] = []
    with watch(Slow, settle=0) as reload:
        maker = threading.Thread(target=lambda: made.append(Slow()))
        maker.start()
        assert entered.wait(10)
        assert reload.wait(etcd_client.put(f"/{PATH}/C/port", 2), 10)
        go.set()
        maker.join()
        assert made[0].port == 2


def test_making_an_instance_does_not_wait_for_the_setters_of_others(
    etcd_client: EtcdMiddleware, driver: EtcdConfDriver
) -> None:
    lock, setting = threading.RLock(), threading.Event()

    @Configurable(paths=PATH, conf=declared(Parameter("port", ptype=int, value=1)), drivers=[driver])
    class Server:
        _port = 0

        def __init__(self, late: bool = False) -> None:
            if late:
                etcd_client[f"/{PATH}/C/port"] = 2
                assert setting.wait(10)

        @property
        def port(self) -> int:
            return self._port

        @port.setter
        def port(self, value: int) -> None:
            if value == 2:
                setting.set()
            with lock:
                self._port = value

    first = Server()
    made: list[Any] = []

    def make() -> None:
        with lock:
            made.append(Server(late=True))

    with watch(Server, settle=0):
        maker = threading.Thread(target=make, daemon=True)
        maker.start()
        maker.join(10)
        assert not maker.is_alive()
        assert made[0].port == 2
        until(lambda: first.port == 2)


def test_what_a_program_does_to_a_list_does_not_stay(
    etcd_client: EtcdMiddleware, server: Any, followed: Reload
) -> None:
    instance = server()
    assert followed.wait(etcd_client.put(f"/{PATH}/C", {"hosts": "a", "port": 1}), 10)
    instance.hosts.append("b")
    assert followed.wait(etcd_client.put(f"/{PATH}/C/port", 2), 10)
    assert (instance.port, instance.hosts) == (2, ["a"])


def test_functions_take_what_is_in_force(etcd_client: EtcdMiddleware, driver: EtcdConfDriver) -> None:
    configurable = Configurable(paths=PATH, conf=declared(Parameter("port", ptype=int)), drivers=[driver])

    @configurable
    def port_of(port: int | None = None) -> int | None:
        return port

    with watch(port_of, settle=0) as reload:
        assert reload.wait(etcd_client.put(f"/{PATH}/C/port", 2), 10)
        assert port_of() == 2
        assert not reload.wait(etcd_client.put(f"/{PATH}/C/port", "x"), 10)
        assert port_of() == 2


def test_results_of_functions_are_no_instances(
    etcd_client: EtcdMiddleware, driver: EtcdConfDriver, caplog: pytest.LogCaptureFixture
) -> None:
    class Connection: ...

    configurable = Configurable(paths=PATH, conf=declared(Parameter("port", ptype=int)), drivers=[driver])
    made: list[Any] = [1, None, Connection()]

    @configurable
    def connect(port: int | None = None) -> Any:
        return made[port or 0]

    with watch(connect, settle=0) as reload:
        for number in range(3):
            assert reload.wait(etcd_client.put(f"/{PATH}/C/port", number), 10)
            assert connect() is made[number]
        assert reload.wait(etcd_client.put(f"/{PATH}/C/port", 5), 10)
    assert vars(made[2]) == {}
    assert len(list(configurable.targets)) == 1
    assert "could not be set" not in caplog.text


def test_instances_that_are_equal_are_followed_for_as_long_as_they_live(
    etcd_client: EtcdMiddleware, driver: EtcdConfDriver
) -> None:
    configurable = Configurable(paths=PATH, conf=declared(Parameter("port", ptype=int)), drivers=[driver])

    @configurable
    class Server:
        port: int

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Server)

        def __hash__(self) -> int:
            return 0

    @configurable
    class Slotted:
        """Nothing refers weakly to one."""

        __slots__ = ("port",)

    class Plain: ...

    one, other = Server(), Server()
    others: list[Any] = [Slotted(), Plain()]
    configurable.targets.append(others[1])
    with watch(configurable, settle=0) as reload:
        assert reload.wait(etcd_client.put(f"/{PATH}/C/port", 2), 10)
        assert [each.port for each in (one, other, *others)] == [2] * 4
    kept = len(list(configurable.targets))
    gone = weakref.ref(other)
    del other
    gc.collect()
    assert gone() is None
    assert len(list(configurable.targets)) == kept - 1
    assert one in configurable.targets


def test_properties_slots_and_setters_of_the_program(
    etcd_client: EtcdMiddleware, driver: EtcdConfDriver, caplog: pytest.LogCaptureFixture
) -> None:
    conf = declared(Parameter("port", ptype=int, value=1), Parameter("name", value="x"), Parameter("fixed"))

    class Mixed:
        @property
        def port(self) -> int:
            return self._port

        @port.setter
        def port(self, value: int) -> None:
            self._port = value * 10

        @property
        def fixed(self) -> None:
            return None

    class Slotted:
        __slots__ = ("__weakref__", "_port", "name")
        port = Mixed.port

    class Setting:
        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, f"<{value}>")

    targets: list[Any] = [Mixed(), Slotted(), Setting()]
    configurable = Configurable(paths=PATH, conf=conf, drivers=[driver], targets=targets)
    with watch(configurable, settle=0) as reload:
        assert reload.wait(etcd_client.put(f"/{PATH}/C", {"port": 2, "name": "n"}), 10)
    mixed, slotted, setting = targets
    assert (mixed.port, mixed.name, slotted.port, slotted.name) == (20, "n", 20, "n")
    assert (setting.port, setting.name) == ("<2>", "<n>")
    assert "fixed of a Mixed could not be set" in caplog.text


def test_several_paths_and_the_order_of_categories(
    etcd_client: EtcdMiddleware, driver: EtcdConfDriver
) -> None:
    configurable = Configurable(
        paths=("a.conf", "b.conf"), conf=configuration(category("Z"), category("A")), drivers=[driver]
    )
    with watch(configurable, settle=0) as reload:
        assert reload.wait(etcd_client.put("/a.conf", {"A": {"x": "a"}, "Z": {"x": "z", "y": "a"}}), 10)
        assert dict(reload.current) == {"x": "a", "y": "a"}  # the declared order: A is last
        assert reload.wait(etcd_client.put("/b.conf/A/x", "b"), 10)
        assert dict(reload.current) == {"x": "b", "y": "a"}
        driver.setconf(configuration(category("new", Parameter("x", value="n"))), "b.conf")
        until(lambda: reload.current["x"] == "n")
        until(lambda: len(run(acknowledgements(etcd_client._exchange(), "/b.conf"))[1]) == 1)
        until(lambda: len(run(acknowledgements(etcd_client._exchange(), "/a.conf"))[1]) == 1)


def test_foreign_parameters_can_be_left_out(etcd_client: EtcdMiddleware, driver: EtcdConfDriver) -> None:
    class Target:
        pass

    target = Target()
    configurable = Configurable(
        paths=PATH, conf=declared(Parameter("x")), drivers=[driver], foreigns=False, targets=[target]
    )
    with watch(configurable, settle=0) as reload:
        assert reload.wait(etcd_client.put(f"/{PATH}", {"C": {"x": 1, "y": 2}, "D": {"z": 3}}), 10)
    assert vars(target) == {"x": "1"}


def test_other_drivers_and_expressions_of_the_program_count(
    etcd_client: EtcdMiddleware, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = EtcdConfDriver(etcd_client, expressions=True)
    file = tmp_path / "x.conf"
    file.write_text("[C]\nown = file\n")

    class Target:
        pass

    target = Target()
    configurable = Configurable(
        paths=str(file),
        conf=declared(Parameter("x", ptype=int, value=1), Parameter("own")),
        drivers=[driver, *Configurable.DEFAULT_DRIVERS],
        targets=[target],
    )
    with watch(configurable, settle=0) as reload:
        assert reload.wait(etcd_client.put(f"{file}/C", {"x": "=2 * 3", "own": "etcd"}), 10)
        assert vars(target) == dict(reload.current) == {"x": 6, "own": "file"}
        until(lambda: bool(run(acknowledgements(etcd_client._exchange(), str(file)))[1]))
        until(
            lambda: (
                run(acknowledgements(etcd_client._exchange(), str(file)))[1][0].elsewhere
                == {"C/own": "another driver"}
            )
        )
        assert not reload.wait(etcd_client.put(f"{file}/C/x", "=1 / 0"), 10)
        assert list(reload.problems) == [f"{file}/C/x"]
        assert vars(target)["x"] == 6


def test_sub_configurables_are_configured(etcd_client: EtcdMiddleware, driver: EtcdConfDriver) -> None:
    class Part:
        size = 0

    class Target:
        pass

    target: Any = Target()
    target.part = Part()
    conf = configuration(category("C", Parameter("part")), category(":part", Parameter("size", ptype=int)))
    configurable = Configurable(paths=PATH, conf=conf, drivers=[driver], targets=[target])
    with watch(configurable, settle=0) as reload:
        assert reload.wait(etcd_client.put(f"/{PATH}/:part/size", 5), 10)
        assert target.part.size == 5


def test_it_comes_to_what_applying_comes_to(etcd_client: EtcdMiddleware) -> None:
    dice = random.Random(6)
    ptypes = [None, int, bool, BOOL, float, str, list, Array(int), dict]
    texts = ["1", "0", "x", "true", "1.5", "a, b", "[1, 2]", "", "null", '{"a": 1}', "=1+1", "1, 2"]
    names = ["a", "b", "c", "my-name", "x.y"]

    def conf(categories: str, **choices: list[Any]) -> Any:
        return configuration(
            *(
                category(
                    cname,
                    *(
                        Parameter(name, **{what: dice.choice(of) for what, of in choices.items()})
                        for name in dice.sample(names, 3)
                    ),
                )
                for cname in dice.sample(categories, 2)
            )
        )

    class Target:
        pass

    class Own(Configurable):  # type: ignore[misc]
        """Goes b3j0f.conf's own way, since it might change it."""

        def configure(self, *args: Any, **kwargs: Any) -> Any:
            return super().configure(*args, **kwargs)

    for _ in range(60):
        target, twin, other = Target(), Target(), Target()
        driver = EtcdConfDriver(etcd_client)
        declares = conf("ABC", ptype=ptypes)
        configurable = Configurable(paths=PATH, conf=declares, drivers=[driver], targets=[target])
        driver.setconf(conf("ABCD", value=texts), PATH)
        with watch(configurable, settle=0) as reload:
            configurable.applyconfiguration(targets=[twin])
            problems = driver.problems(PATH)
            own = EtcdConfDriver(etcd_client)
            Own(paths=PATH, conf=declares, drivers=[own]).applyconfiguration(targets=[other])
            assert (vars(twin), problems) == (vars(other), own.problems(PATH))
            assert {name: reload.current[name] for name in vars(twin)} == vars(twin)
            if not reload.problems:
                assert vars(target) == vars(twin)
        del etcd_client[f"/{PATH}"]


def test_nothing_in_etcd_is_evaluated(
    etcd_client: EtcdMiddleware, driver: EtcdConfDriver, marker: Path
) -> None:
    texts = attacks(marker)
    conf = declared(*(Parameter(f"p{number}", ptype=str) for number in range(50)))
    target = type("Target", (), {})()
    configurable = Configurable(paths=PATH, conf=conf, drivers=[driver], targets=[target])
    with watch(configurable, settle=0) as reload:
        revision = etcd_client.put(f"/{PATH}/C", {f"p{number}": text for number, text in enumerate(texts)})
        assert reload.wait(revision, 10)
        assert [reload.current[f"p{number}"] for number in range(100)] == texts
        assert target.p3 == texts[3]
        for name in ("__class__", "__init__"):
            revision = etcd_client.put(f"/{PATH}/C/{name}", "x")
            assert not reload.wait(revision, 10)
        etcd_client[f"/{PATH}/names"] = dict.fromkeys(texts, "name")
        etcd_client[f"/{PATH}"] = {text: {"x": text} for text in texts}
        until(lambda: reload.problems == {} or bool(reload.error))
    assert not marker.exists()


# Who runs what


def test_a_process_says_what_it_has_in_force_and_accepts(
    etcd_client: EtcdMiddleware, followed: Reload
) -> None:
    revision = etcd_client.put(f"/{PATH}/C/port", 1)
    assert followed.wait(revision, 10)

    def told() -> list[Any]:
        return run(acknowledgements(etcd_client._exchange(), PATH))[1]

    until(lambda: [each.revision for each in told()] == [revision])
    [schema] = run(schemas(etcd_client._exchange(), PATH)).values()
    assert schema[TEXTS]
    assert schema["properties"]["C"]["properties"] == {
        "port": {"type": "integer"},
        "debug": {"type": "boolean"},
        "hosts": {"type": "array", "items": {"type": "string"}},
    }


# Life


def test_what_cannot_be_watched(etcd_client: EtcdMiddleware, driver: EtcdConfDriver) -> None:
    with pytest.raises(ConfigError, match="0 of its configurables"):
        watch(object())
    with pytest.raises(ConfigError, match="2 drivers of etcd"):
        watch(Configurable(paths=PATH, drivers=[driver, EtcdConfDriver(etcd_client)]))
    with pytest.raises(ConfigError, match="names no path"):
        watch(Configurable(paths=(), drivers=[driver]))
    with pytest.raises(PathError, match="a configuration has a path"):
        watch(Configurable(paths="/", drivers=[driver], autoconf=False))


def test_a_driver_closes_the_client_that_it_has_made(
    etcd: Any, etcd_client: EtcdMiddleware, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINK_KV_ENDPOINTS", ",".join(etcd.endpoints))
    monkeypatch.setenv("LINK_KV_PREFIX", etcd_client.prefix)
    etcd_client[f"/{PATH}/C/x"] = 1
    with EtcdConfDriver() as driver:
        configurable = Configurable(paths=PATH, conf=declared(Parameter("x")), drivers=[driver])
        reload = watch(configurable)
        assert reload.current["x"] == "1"
    assert reload.state == "lost"
    driver.close()
    assert driver.getconf(PATH)["C"]["x"].value == "1"  # with another client
    driver.close()
    given = EtcdConfDriver(etcd_client)
    given.close()
    assert given.getconf(PATH)["C"]["x"].value == "1"


def test_a_program_may_start_while_etcd_is_down(
    own_etcd: Callable[[], local.LocalEtcd], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINK_KV_HOME", str(tmp_path / "home"))
    server = own_etcd()
    with EtcdMiddleware(endpoints=server.endpoints, timeout=10) as client:
        client[f"/{PATH}/C/x"] = 1
        EtcdConfDriver(client, offline="cache").getconf(PATH)
    server.stop()
    with EtcdMiddleware(endpoints=server.endpoints, timeout=1) as client:
        with pytest.raises(Unavailable):
            watch(Configurable(paths=PATH, drivers=[EtcdConfDriver(client)], autoconf=False))
        driver = EtcdConfDriver(client, offline="cache")
        configurable = Configurable(paths=PATH, conf=declared(Parameter("x", ptype=int)), drivers=[driver])
        with watch(configurable) as reload:
            assert (reload.current["x"], reload.revision, reload.state) == (1, 0, "stale")
            server.restart()
            assert reload.wait(1, 30)
            assert reload.state == "live"
            with EtcdMiddleware(endpoints=server.endpoints, timeout=10) as patient:
                assert reload.wait(patient.put(f"/{PATH}/C/x", 2), 10)
            assert reload.current["x"] == 2


def test_applying_by_hand_still_works(etcd_client: EtcdMiddleware, server: Any, followed: Reload) -> None:
    instance = server()
    assert not followed.wait(etcd_client.put(f"/{PATH}/C", {"port": "x", "debug": True}), 10)
    applyconfiguration([instance])
    assert (instance.port, instance.debug) == (8080, True)


def test_what_was_applied_by_hand_goes_when_the_configuration_is_mended(
    etcd_client: EtcdMiddleware, server: Any, followed: Reload
) -> None:
    """It may have had values of a revision that never came into force."""
    good = {"port": 9090, "hosts": "a"}
    assert followed.wait(etcd_client.put(f"/{PATH}/C", good), 10)
    instance = server()
    assert not followed.wait(etcd_client.put(f"/{PATH}/C", {"port": "ninety", "hosts": "b"}), 10)
    applyconfiguration([instance])
    assert instance.hosts == ["b"]
    assert (server().port, server().hosts) == (9090, ["a"])
    assert followed.wait(etcd_client.put(f"/{PATH}/C", good), 10)
    assert vars(instance) == vars(server()) == dict(followed.current)


def test_what_the_program_cannot_apply_is_rejected(
    etcd_client: EtcdMiddleware, driver: EtcdConfDriver
) -> None:
    errors: queue.Queue[LinkKVError] = queue.Queue()

    class Target:
        port: int

    class Superstitious(Configurable):  # type: ignore[misc]
        def configure(self, *args: Any, **kwargs: Any) -> Any:
            if kwargs["conf"]["C"]["port"].value == 13:
                raise RuntimeError("not that one")
            return super().configure(*args, **kwargs)

    target = Target()
    conf = declared(Parameter("port", ptype=int, value=1))
    configurable = Superstitious(paths=PATH, conf=conf, drivers=[driver], targets=[target])
    with watch(configurable, on_error=errors.put, settle=0) as reload:
        good = etcd_client.put(f"/{PATH}/C/port", 2)
        assert reload.wait(good, 10)
        assert not reload.wait(etcd_client.put(f"/{PATH}/C/port", 13), 10)
        assert f"{good} stays in force: /{PATH}: RuntimeError: not that one" in str(errors.get(timeout=10))
        assert (target.port, reload.current["port"], reload.revision) == (2, 2, good)
        assert reload.wait(etcd_client.put(f"/{PATH}/C/port", 14), 10)
        assert (target.port, reload.error) == (14, None)


def test_nowhere(tmp_path: Path) -> None:
    with EtcdMiddleware(endpoints=[NOWHERE], timeout=0.2) as client, pytest.raises(Unavailable):
        watch(Configurable(paths=PATH, drivers=[EtcdConfDriver(client)], autoconf=False))
