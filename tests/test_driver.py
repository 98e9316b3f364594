"""Configurables read from etcd."""

from __future__ import annotations

import json
import logging
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from link_kv import EtcdMiddleware, local
from link_kv.driver import (
    BOOL,
    Array,
    Configurable,
    EtcdConfDriver,
    Parameter,
    applyconfiguration,
    category,
    configuration,
)
from link_kv.errors import (
    ConfigError,
    EncodeError,
    ListIndexError,
    NotATree,
    PathError,
    Unavailable,
)

PATH = "myproject/my.conf"
NOWHERE = "127.0.0.1:1"
"""A port that nothing listens on."""


@pytest.fixture
def driver(etcd_client: EtcdMiddleware) -> EtcdConfDriver:
    return EtcdConfDriver(etcd_client)


@pytest.fixture
def reads(etcd_client: EtcdMiddleware, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The calls that the client makes from now on."""
    caller = etcd_client._space.caller
    assert "/nothing" not in etcd_client  # the layout has been looked up
    calls: list[str] = []
    call = caller.call

    def counted(method: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(method.name)
        return call(method, *args, **kwargs)

    monkeypatch.setattr(caller, "call", counted)
    return calls


def values(conf: Any) -> dict[str, dict[Any, Any]]:
    return {name: {key: each.value for key, each in found.items()} for name, found in conf.items()}


def stored(client: EtcdMiddleware) -> dict[str, bytes]:
    """All keys below the path of the tests, by their paths."""
    start = f"{client.prefix}/{PATH}".encode()
    return {
        key[len(start) :].decode(): value for key, value in client.raw.items() if key.startswith(start + b"/")
    }


def declared(*parameters: Any) -> Any:
    return configuration(category("C", *parameters))


# The tutorial of the ancestor


def test_the_session_of_the_tutorial(etcd_client: EtcdMiddleware) -> None:
    @Configurable(
        paths="myproject/myconfigurable.conf",
        conf=category("MYCONF", Parameter(name="myparam")),
        drivers=[EtcdConfDriver(etcd_client)],
    )
    class MyConfigurable:
        pass

    assert not list(etcd_client)  # declaring writes nothing
    etcd_client["/myproject/myconfigurable.conf/MYCONF/myparam"] = "etcd"
    assert MyConfigurable().myparam == "etcd"  # type: ignore[attr-defined]


def test_a_fresh_program_imports_b3j0f_after_the_driver(
    etcd: Any, etcd_prefix: str, etcd_client: EtcdMiddleware
) -> None:
    etcd_client["/p/x.conf/C/port"] = 9090
    script = """
from link_kv.driver import Configurable, EtcdConfDriver, Parameter, category
import b3j0f.conf
assert b3j0f.conf.Configurable is Configurable

@Configurable(
    paths='p/x.conf', conf=category('C', Parameter('port', ptype=int)), drivers=[EtcdConfDriver()]
)
class Server: ...

print(Server().port)
"""
    environment = {
        **os.environ,
        "LINK_KV_ENDPOINTS": ",".join(etcd.endpoints),
        "LINK_KV_PREFIX": etcd_prefix,
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("9090\n", "")


def test_constructing_needs_no_server() -> None:
    EtcdConfDriver()
    EtcdConfDriver(EtcdMiddleware(endpoints=[NOWHERE]))
    with pytest.raises(ConfigError, match="offline='never'"):
        EtcdConfDriver(offline="never")  # type: ignore[arg-type]


def test_an_instance_and_a_function_are_configured(
    etcd_client: EtcdMiddleware, driver: EtcdConfDriver
) -> None:
    etcd_client[f"/{PATH}/C/port"] = 9090
    configurable = Configurable(paths=PATH, conf=declared(Parameter("port", ptype=int)), drivers=[driver])

    class Server:
        port: int

    server = Server()
    configurable.applyconfiguration(targets=[server])
    assert server.port == 9090

    @configurable
    def port_of(name: str, *, suffix: str = "", port: int | None = None) -> str:
        return f"{name}:{port}{suffix}"

    @configurable
    def port_after(port: int | None = None) -> int | None:
        return port

    assert port_after() == 9090
    assert port_of("h", suffix="/", port=1) == "h:1/"


# What is stored


def test_it_stores_bare_text_and_reads_it_back(etcd_client: EtcdMiddleware, driver: EtcdConfDriver) -> None:
    conf = declared(
        Parameter("port", value=8080, ptype=int),
        Parameter("debug", value=True, ptype=bool),
        Parameter("quiet", value=False, ptype=BOOL),
        Parameter("ratio", value=1.5, ptype=float),
        Parameter("hosts", value=["a", "b"], ptype=list),
        Parameter("sizes", value=[1, 2], ptype=Array(int)),
        Parameter("code", value="007"),
        Parameter("digits", value="8080", ptype=str),
        Parameter("mail", value="user@host"),
        Parameter("share", value="50% of 60%"),
        Parameter("formula", value="=1+1"),
        Parameter("empty", value=""),
        Parameter("extra", value={"a": [1]}, ptype=dict),
    )
    expected = values(conf)
    driver.setconf(conf, PATH)
    assert stored(etcd_client) == {
        "/C/port": b"8080",
        "/C/debug": b"true",
        "/C/quiet": b"false",
        "/C/ratio": b"1.5",
        "/C/hosts": b"a, b",
        "/C/sizes": b"1, 2",
        "/C/code": b"007",
        "/C/digits": b"8080",
        "/C/mail": b"user@host",
        "/C/share": b"50% of 60%",
        "/C/formula": b"=1+1",
        "/C/empty": b"",
        "/C/extra": b'{"a": [1]}',
    }
    template = declared(*(Parameter(each.name, ptype=each.ptype) for each in conf["C"].values()))
    assert values(driver.getconf(PATH, conf=template)) == expected
    assert driver.problems(PATH) == {}


def test_a_default_gives_its_type(etcd_client: EtcdMiddleware, driver: EtcdConfDriver) -> None:
    etcd_client[f"/{PATH}/C"] = {"port": "9090", "debug": "no", "hosts": "a, b", "name": 5}
    template = declared(
        Parameter("port", value=8080),
        Parameter("debug", value=True),
        Parameter("hosts", value=["x"]),
        Parameter("name", value="x"),
    )
    assert values(driver.getconf(PATH, conf=template))["C"] == {
        "port": 9090,
        "debug": False,
        "hosts": ["a", "b"],
        "name": "5",
    }


def test_what_the_mapping_wrote_reads_as_a_person_would_type_it(
    etcd_client: EtcdMiddleware, driver: EtcdConfDriver
) -> None:
    etcd_client[f"/{PATH}/C"] = {
        "a": 8080,
        "b": "8080",
        "c": True,
        "d": None,
        "e": ["x", 1],
        "f": {"y": {"z": [1.5]}},
        "g": [],
        "h": "text",
    }
    etcd_client.raw[f"{etcd_client.prefix}/{PATH}/C/i".encode()] = b"1.10"
    found = driver.getconf(PATH)["C"]
    assert {name: each.svalue for name, each in found.items()} == {
        "a": "8080",
        "b": "8080",
        "c": "true",
        "d": "null",
        "e": "x, 1",
        "f": '{"y": {"z": [1.5]}}',
        "g": "",
        "h": "text",
        "i": "1.10",
    }
    assert all(type(each.value) is str for each in found.values())


def test_a_new_value_is_stored_and_an_untouched_one_keeps_its_spelling(
    etcd_client: EtcdMiddleware, driver: EtcdConfDriver
) -> None:
    etcd_client.raw[f"{etcd_client.prefix}/{PATH}/C/version".encode()] = b"1.10"
    etcd_client.raw[f"{etcd_client.prefix}/{PATH}/C/limit".encode()] = b"1e3"
    conf = driver.getconf(
        PATH, conf=declared(Parameter("version", ptype=float), Parameter("limit", ptype=float))
    )
    conf["C"]["limit"].value = 5.0
    driver.setconf(conf, PATH)
    assert stored(etcd_client) == {"/C/version": b"1.10", "/C/limit": b"5.0"}


def test_what_b3j0f_has_serialized_is_stored_bare(
    etcd_client: EtcdMiddleware, driver: EtcdConfDriver
) -> None:
    conf = declared(
        Parameter("a", svalue="=py:8080"),
        Parameter("b", svalue="=py:['x', 'y']"),
        Parameter("c", svalue="=py:None"),
        Parameter("d", svalue="=py:f(x)"),
        Parameter("e", value=[1], ptype=list),
    )
    assert conf["C"]["e"].svalue == "=py:[1]"
    driver.setconf(conf, PATH)
    assert stored(etcd_client) == {"/C/a": b"8080", "/C/b": b"x, y", "/C/d": b"=py:f(x)", "/C/e": b"1"}


def test_serializers_and_parsers_of_the_program_are_used(
    etcd_client: EtcdMiddleware, driver: EtcdConfDriver
) -> None:
    def parser(svalue: str, **_: Any) -> int:
        return int(svalue, 16)

    driver.setconf(declared(Parameter("mask", value=255, parser=parser, serializer=hex)), PATH)
    assert stored(etcd_client) == {"/C/mask": b"0xff"}
    template = declared(Parameter("mask", parser=parser, serializer=hex))
    conf = driver.getconf(PATH, conf=template)
    assert values(conf) == {"C": {"mask": 255}}
    conf = driver.getconf(PATH, conf=conf)
    driver.setconf(conf, PATH)
    assert stored(etcd_client) == {"/C/mask": b"0xff"}
    etcd_client[f"/{PATH}/C/mask"] = "no number"
    assert values(driver.getconf(PATH, conf=template)) == {"C": {"mask": 255}}
    assert list(driver.problems(PATH)) == [f"/{PATH}/C/mask"]


# Merging


def test_setconf_merges_in_one_transaction(
    etcd_client: EtcdMiddleware, driver: EtcdConfDriver, reads: list[str]
) -> None:
    etcd_client[f"/{PATH}"] = {
        "A": {"kept": 1, "changed": 1, "gone": 1, "list": ["x"], "same": 1},
        "B": {"gone": 1},
    }
    before = etcd_client.entry(f"/{PATH}").revision
    reads.clear()
    conf = configuration(
        category(
            "A",
            Parameter("changed", value=2),
            Parameter("gone"),
            Parameter("list", value=[1, 2], ptype=list),
            Parameter("same", value=1),
        ),
        category("B", Parameter("gone")),
        category("C", Parameter("new", value="x")),
    )
    driver.setconf(conf, PATH)
    assert reads == ["Txn", "Txn"]
    assert stored(etcd_client) == {
        "/A/kept": b"1",
        "/A/changed": b"2",
        "/A/list": b"1, 2",
        "/A/same": b"1",
        "/B/": b"{}",
        "/C/new": b"x",
    }
    written = {
        etcd_client.entry(f"/{PATH}/{leaf}").revision for leaf in ("A/changed", "A/list", "B", "C/new")
    }
    assert len(written) == 1
    assert etcd_client.entry(f"/{PATH}/A/same").revision == before
    driver.setconf(conf, PATH)
    assert etcd_client.entry(f"/{PATH}").revision == written.pop()  # nothing to write


def test_an_empty_category_is_there_and_goes_when_it_is_filled(
    etcd_client: EtcdMiddleware, driver: EtcdConfDriver
) -> None:
    driver.setconf(configuration(category("A"), category("B", Parameter("x"))), PATH)
    assert stored(etcd_client) == {"/A/": b"{}", "/B/": b"{}"}
    assert values(driver.getconf(PATH)) == {"A": {}, "B": {}}
    driver.setconf(configuration(category("A", Parameter("x", value=1))), PATH)
    assert stored(etcd_client) == {"/A/x": b"1", "/B/": b"{}"}
    etcd_client[f"/{PATH}"] = {}
    assert driver.getconf(PATH) is None
    driver.setconf(configuration(category("A")), PATH)
    assert stored(etcd_client) == {"/A/": b"{}"}


def test_the_order_of_categories_is_kept_and_out_of_sight(
    etcd_client: EtcdMiddleware, driver: EtcdConfDriver
) -> None:
    def written(*names: str) -> list[str]:
        driver.setconf(configuration(*(category(name, Parameter("x", value=name)) for name in names)), PATH)
        return list(driver.getconf(PATH))

    assert written("A", "B") == ["A", "B"]
    assert "/.link/categories" not in stored(etcd_client)  # the keys have that order
    assert written("z", "M", "B") == ["A", "B", "z", "M"]
    assert json.loads(stored(etcd_client)["/.link/categories"]) == ["A", "B", "z", "M"]
    assert driver.getconf(PATH).param("x").value == "M"  # the last one overrides
    assert sorted(etcd_client[f"/{PATH}"]) == ["A", "B", "M", "z"]
    assert [leaf for leaf in etcd_client if ".link" in leaf] == []
    del etcd_client[f"/{PATH}/B"]
    etcd_client[f"/{PATH}/0"] = {"x": 0}
    assert list(driver.getconf(PATH)) == ["A", "z", "M", "0"]
    assert written("B") == ["A", "z", "M", "0", "B"]
    etcd_client[f"/{PATH}"] = {"M": {"x": 1}, "z": {"x": 1}, "n": {"x": 1}}
    assert list(driver.getconf(PATH)) == ["z", "M", "n"]


@pytest.mark.parametrize("order", [b"", b"{}", b'{"a": 1}', b"[" * 100_000, b"[1, null, []]", b"\xff", b"A"])
def test_an_order_that_is_none_does_no_harm(
    etcd_client: EtcdMiddleware, driver: EtcdConfDriver, order: bytes
) -> None:
    etcd_client[f"/{PATH}"] = {"B": {"x": 1}, "A": {"x": 1}}
    etcd_client.raw[f"{etcd_client.prefix}/{PATH}/.link/categories".encode()] = order
    assert list(driver.getconf(PATH)) == ["A", "B"]
    driver.setconf(configuration(category("0", Parameter("x", value=1))), PATH)
    assert list(driver.getconf(PATH)) == ["A", "B", "0"]


def test_names_that_no_path_could_have(etcd_client: EtcdMiddleware, driver: EtcdConfDriver) -> None:
    conf = configuration(
        category("", Parameter("x", value="root")),
        category("a/b", Parameter("my-param", value="dash"), Parameter("m/s", value="slash")),
        category("50%", Parameter("x", value="percent")),
        category(":sub:deeper", Parameter("x", value="colon")),
        category(".link", Parameter("x", value="reserved")),
    )
    driver.setconf(conf, PATH)
    assert stored(etcd_client)["/a%2Fb/m%2Fs"] == b"slash"
    found = driver.getconf(PATH)
    names = {name: [getattr(key, "pattern", key) for key in parameters] for name, parameters in found.items()}
    assert names == {
        "": ["x"],
        "a/b": ["m/s", "my-param"],
        "50%": ["x"],
        ":sub:deeper": ["x"],
        ".link": ["x"],
    }
    template = configuration(category("a/b", Parameter("my-param", ptype=list)))
    found = driver.getconf(PATH, conf=template)
    assert next(each.value for each in template["a/b"].values()) == ["dash"]
    driver.setconf(found, PATH)
    assert stored(etcd_client)["/a%2Fb/my-param"] == b"dash"


def test_programs_that_write_at_once_lose_nothing(etcd: Any, etcd_client: EtcdMiddleware) -> None:
    names = [f"p{number}" for number in range(8)]
    start = threading.Barrier(len(names))
    errors: list[Exception] = []

    def work(name: str) -> None:
        with EtcdMiddleware(endpoints=etcd.endpoints, prefix=etcd_client.prefix) as client:
            driver = EtcdConfDriver(client)
            start.wait()
            try:
                for number in range(5):
                    parameters = [Parameter(name, value=number), Parameter("shared", value=name)]
                    driver.setconf(configuration(category(f"{name}-{number}", *parameters)), PATH)
            except Exception as error:  # noqa: BLE001 - to be seen by the test
                errors.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    found = EtcdConfDriver(etcd_client).getconf(PATH)
    for name in names:
        assert [each for each in found if each.startswith(name)] == [
            f"{name}-{number}" for number in range(5)
        ]
    assert all(len(parameters) == 2 for parameters in found.values())


# Failing


@pytest.mark.parametrize("logger", [None, logging.getLogger("test")])
def test_setconf_raises_whatever_fails(
    etcd_client: EtcdMiddleware, driver: EtcdConfDriver, logger: logging.Logger | None
) -> None:
    conf = declared(Parameter("x", value=1))

    def refused(error: type[Exception], path: str = PATH, conf: Any = conf, match: str = "") -> None:
        with pytest.raises(error, match=match or path):
            driver.setconf(conf, path, logger=logger)

    etcd_client["/leaf"] = 1
    refused(NotATree, "leaf")
    etcd_client[f"/{PATH}/C"] = 1
    refused(NotATree)
    refused(NotATree, conf=configuration(category("C")))
    etcd_client[f"/{PATH}/C"] = ["x"]
    refused(ListIndexError)
    refused(PathError, "/", match="a configuration has a path")
    refused(PathError, "a//b")
    refused(EncodeError, conf=declared(Parameter("x", value=object())), match=f"/{PATH}/C/x: ")
    refused(driver.Error, conf=declared(Parameter("x", value="\ud800")))
    assert etcd_client[f"/{PATH}"] == {"C": ["x"]}
    with (
        EtcdMiddleware(endpoints=[NOWHERE], timeout=0.3) as client,
        pytest.raises(Unavailable),
    ):
        EtcdConfDriver(client, offline="cache").setconf(conf, PATH, logger=logger)


def test_one_bad_parameter_leaves_the_others_applied(
    etcd_client: EtcdMiddleware, driver: EtcdConfDriver, caplog: pytest.LogCaptureFixture
) -> None:
    etcd_client[f"/{PATH}/C"] = {"port": "eighty", "debug": "no", "ratio": 0.5, "blob": b"\x00"}

    @Configurable(
        paths=PATH,
        conf=category(
            "C",
            Parameter("port", ptype=int, value=8080),
            Parameter("debug", ptype=bool, value=True),
            Parameter("ratio", ptype=float),
        ),
        drivers=[driver],
    )
    class Server:
        port: int
        debug: bool
        ratio: float

    for _ in range(5):
        server = Server()
    assert (server.port, server.debug, server.ratio) == (8080, False, 0.5)
    problems = driver.problems(PATH)
    assert sorted(problems) == [f"/{PATH}/C/blob", f"/{PATH}/C/port"]
    assert "'eighty' is not of type int" in problems[f"/{PATH}/C/port"]
    for path in problems:
        assert [record.levelname for record in caplog.records if path in record.getMessage()] == ["ERROR"]

    etcd_client[f"/{PATH}/C/port"] = 9090
    applyconfiguration([server])
    assert server.port == 9090
    etcd_client[f"/{PATH}/C"] = {"port": "ninety", "debug": "yes"}
    applyconfiguration([server])
    assert (server.port, server.debug) == (9090, True)  # the last good one
    assert sorted(driver.problems(PATH)) == [f"/{PATH}/C/port"]


def test_what_is_no_configuration_is_reported(etcd_client: EtcdMiddleware, driver: EtcdConfDriver) -> None:
    etcd_client[f"/{PATH}"] = {"A": {"x": 1}, "leaf": 1, "list": [1], "nothing": []}
    assert values(driver.getconf(PATH)) == {"A": {"x": "1"}}
    assert driver.problems(PATH) == {
        f"/{PATH}/leaf": "a value, and no category",
        f"/{PATH}/list": "a list, and no category",
        f"/{PATH}/nothing": "a list, and no category",
    }
    etcd_client[f"/{PATH}"] = "[A]\nx = 1\n"
    assert driver.getconf(PATH) is None
    assert driver.problems(PATH) == {f"/{PATH}": "a value, and no configuration"}


def test_nothing_there_is_nothing_configured(driver: EtcdConfDriver) -> None:
    conf = declared(Parameter("x", value=1))
    assert driver.getconf(PATH) is None
    assert driver.getconf(PATH, conf=conf) is conf
    assert values(conf) == {"C": {"x": 1}}
    assert driver.pathresource(rscpath=PATH) is None
    assert driver.resource() == {}
    source = driver.source(PATH)
    assert source is not None
    assert not source.offline


def test_paths(driver: EtcdConfDriver) -> None:
    for path in (PATH, f"/{PATH}", f"/{PATH}/"):
        assert driver.rscpaths(path) == [f"/{PATH}"]
    assert driver.rscpaths(path="x.conf") == ["/x.conf"]
    for path in ("./x.conf", "../x.conf", "a/../x.conf"):
        assert driver.rscpaths(path) == []
        assert driver.getconf(path) is None
    for path in ("a//x.conf", "a/.link/x.conf"):
        with pytest.raises(PathError):
            driver.rscpaths(path)
    with pytest.raises(PathError):
        driver.getconf("/")


def test_foreign_parameters_can_be_left_out(etcd_client: EtcdMiddleware, driver: EtcdConfDriver) -> None:
    etcd_client[f"/{PATH}"] = {"C": {"x": 1, "y": 1}, "D": {"z": 1}}

    class Target: ...

    target = Target()
    configurable = Configurable(paths=PATH, conf=declared(Parameter("x")), drivers=[driver], foreigns=False)
    configurable.applyconfiguration(targets=[target])
    assert vars(target) == {"x": "1"}


# One read


def test_instances_and_calls_read_nothing(
    etcd_client: EtcdMiddleware, driver: EtcdConfDriver, reads: list[str]
) -> None:
    etcd_client[f"/{PATH}/C/x"] = "one"
    reads.clear()
    configurable = Configurable(paths=PATH, conf=declared(Parameter("x")), drivers=[driver])

    @configurable
    class Target:
        x: str

    assert len(reads) == 1
    targets = [Target() for _ in range(20)]
    assert {target.x for target in targets} == {"one"}

    @configurable
    def function(x: str | None = None) -> str | None:
        return x

    assert len(reads) == 2
    assert [function() for _ in range(20)] == ["one"] * 20
    assert len(reads) == 2

    etcd_client[f"/{PATH}/C/x"] = "two"
    reads.clear()
    assert Target().x == "one"
    applyconfiguration(targets[:1])
    assert len(reads) == 1
    assert (targets[0].x, Target().x, function()) == ("two", "two", "two")
    assert driver.getconf(PATH)["C"]["x"].value == "two"
    assert len(reads) == 2

    driver.setconf(declared(Parameter("x", value="three")), PATH)
    assert Target().x == "three"


# Offline


def test_no_answer_is_never_nothing_configured(caplog: pytest.LogCaptureFixture) -> None:
    with EtcdMiddleware(endpoints=[NOWHERE], timeout=0.3) as client:
        driver = EtcdConfDriver(client)
        with pytest.raises(Unavailable, match=f"/{PATH}: "):
            driver.getconf(PATH)
        with pytest.raises(Unavailable, match=f"/{PATH}: "):

            @Configurable(paths=PATH, conf=declared(Parameter("x")), drivers=[driver])
            class Target: ...


@pytest.fixture
def own_etcd(tmp_path: Path) -> Iterator[Callable[[], local.LocalEtcd]]:
    """Starts an etcd of the test's own, again and again on the same data."""
    started: list[local.LocalEtcd] = []

    def start() -> local.LocalEtcd:
        started.append(local.start(tmp_path / "data"))
        return started[-1]

    yield start
    for server in started:
        server.stop()


def test_the_last_known_configuration_is_read_from_disk(
    own_etcd: Callable[[], local.LocalEtcd],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("LINK_KV_HOME", str(home))
    server = own_etcd()
    options: dict[str, Any] = {"endpoints": server.endpoints, "prefix": "/p", "timeout": 2}
    conf = configuration(category("z", Parameter("x", value="=1")), category("A", Parameter("y", value="2")))
    with EtcdMiddleware(**options) as client:
        EtcdConfDriver(client).setconf(conf, PATH)
        EtcdConfDriver(client).getconf(PATH)
        assert not home.exists()  # only who asked for a cache has one
        EtcdConfDriver(client, offline="cache").getconf(PATH)
        revision = client.entry(PATH).revision
    (file,) = (home / "conf").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE((home / "conf").stat().st_mode) == 0o700
    server.stop()

    options["timeout"] = 0.3
    with EtcdMiddleware(**options) as client:
        driver = EtcdConfDriver(client, offline="cache")
        found = driver.getconf(PATH)
        assert list(found) == ["z", "A"]
        assert values(found) == {"z": {"x": "=1"}, "A": {"y": "2"}}
        source = driver.source(PATH)
        assert source is not None
        assert (source.offline, source.revision) == (True, revision)
        assert any(
            f"/{PATH}" in record.getMessage() for record in caplog.records if record.levelname == "WARNING"
        )
        with pytest.raises(Unavailable, match="none was read on this machine"):
            driver.getconf("other.conf")
        with pytest.raises(Unavailable):
            EtcdConfDriver(client).getconf(PATH)
    other = {**options, "prefix": "/other"}
    with EtcdMiddleware(**other) as client, pytest.raises(Unavailable):
        EtcdConfDriver(client, offline="cache").getconf(PATH)
    file.write_text("{damaged")
    with EtcdMiddleware(**options) as client, pytest.raises(Unavailable, match=str(file)):
        EtcdConfDriver(client, offline="cache").getconf(PATH)


def test_a_running_program_keeps_what_it_read(
    own_etcd: Callable[[], local.LocalEtcd], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINK_KV_HOME", str(tmp_path / "home"))
    server = own_etcd()
    with EtcdMiddleware(endpoints=server.endpoints, timeout=1) as client:
        client[f"/{PATH}/C/x"] = "one"
        driver = EtcdConfDriver(client, offline="cache")
        conf = driver.getconf(PATH)
        server.stop()
        assert values(driver.getconf(PATH)) == values(conf) == {"C": {"x": "one"}}
        source = driver.source(PATH)
        assert source is not None
        assert source.offline


def test_a_home_that_cannot_be_written_is_no_obstacle(
    etcd_client: EtcdMiddleware,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LINK_KV_HOME", str(tmp_path / "file"))
    etcd_client[f"/{PATH}/C/x"] = 1
    assert values(EtcdConfDriver(etcd_client, offline="cache").getconf(PATH)) == {"C": {"x": "1"}}
    assert "cannot be kept" in caplog.text


# Data and code


def test_other_drivers_keep_their_expressions(
    etcd_client: EtcdMiddleware, driver: EtcdConfDriver, tmp_path: Path
) -> None:
    file = tmp_path / "my.json"
    file.write_text(json.dumps({"C": {"x": "=1+1", "z": "=2+2"}}))
    path = str(file)
    etcd_client[f"{path}/C"] = {"x": "=3+3", "y": "=4+4"}
    conf = declared(Parameter("x", ptype=int), Parameter("y"), Parameter("z", ptype=int))

    class Target: ...

    def applied(*drivers: Any) -> dict[str, Any]:
        target = Target()
        Configurable(paths=path, conf=conf, drivers=drivers).applyconfiguration(targets=[target])
        return vars(target)

    assert applied(*Configurable.DEFAULT_DRIVERS) == {"x": 2, "y": None, "z": 4}
    assert applied(driver, *Configurable.DEFAULT_DRIVERS) == {"x": 2, "y": "=4+4", "z": 4}
    assert applied(*Configurable.DEFAULT_DRIVERS, driver) == {"x": 2, "y": "=4+4", "z": 4}
    assert list(driver.problems(path)) == [f"{path}/C/x"]  # the text =3+3 is no int


def test_expressions_can_be_turned_on(etcd_client: EtcdMiddleware, caplog: pytest.LogCaptureFixture) -> None:
    driver = EtcdConfDriver(etcd_client, expressions=True)
    etcd_client[f"/{PATH}/C"] = {
        "a": "=1 + 1",
        "b": "=@a * 10",
        "c": "%'x' * 3%",
        "d": "@a",
        "plain": "text",
        "bad": "=1 / 0",
        "lost": "user@host",
    }
    template = declared(
        Parameter("a", ptype=int, value=7), Parameter("b", ptype=int), Parameter("bad", value="ok")
    )
    assert values(driver.getconf(PATH, conf=template))["C"] == {
        "a": 2,
        "b": 20,
        "c": "xxx",
        "d": "=1 + 1",
        "plain": "text",
        "bad": "ok",
    }
    assert sorted(driver.problems(PATH)) == [f"/{PATH}/C/bad", f"/{PATH}/C/lost"]
    driver.setconf(declared(Parameter("e", svalue="=2 * 2"), Parameter("f", value=5)), PATH)
    assert stored(etcd_client)["/C/e"] == b"=2 * 2"
    assert values(driver.getconf(PATH))["C"]["e"] == 4
    assert values(EtcdConfDriver(etcd_client).getconf(PATH))["C"]["e"] == "=2 * 2"


def attacks(marker: Path) -> list[str]:
    """A hundred texts that create the file `marker` wherever one is evaluated, or its name is imported."""
    codes = [
        f"__import__('pathlib').Path({str(marker)!r}).touch()",
        f"__import__('os').system('touch {marker}')",
        f"open({str(marker)!r}, 'w')",
        f'eval("open({str(marker)!r}, chr(119))")',
        f"[c for c in ().__class__.__base__.__subclasses__() if c.__name__ == '_wrap_close'][0]"
        f".__init__.__globals__['system']('touch {marker}')",
        f"(lambda: exec('import os; os.system(\"touch {marker}\")'))()",
        f"os.system('touch {marker}')",
        f"pathlib.Path({str(marker)!r}).touch()",
        "link_kv_canary.x",
        "link_kv_canary",
        "getattr(link_kv_canary, 'x')",
    ]
    shapes = ["={}", "=py:{}", "=python:{}", "%{}%", "%py:{}%", "a%{}%b", "@{}", "{}", "{},{}"]
    texts = [shape.format(code, code) for code in codes for shape in shapes]
    return [*texts, "!!python/object/apply:link_kv_canary.x []", "cos\nsystem\n(S'touch'\ntR."][:100]


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file that must not come to be; importing the module ``link_kv_canary`` creates it."""
    file = tmp_path / "evaluated"
    source = f"import pathlib\npathlib.Path({str(file)!r}).touch()\nx = None\n"
    (tmp_path / "link_kv_canary.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    yield file
    sys.modules.pop("link_kv_canary", None)


PTYPES = [
    None,
    str,
    object,
    int,
    float,
    bool,
    BOOL,
    list,
    dict,
    Array(),
    Array(int),
    Array(object),
    Array(type),
]


def test_attacks_would_be_noticed(etcd_client: EtcdMiddleware, marker: Path) -> None:
    noticed = 0
    for number, text in enumerate(attacks(marker)):
        path = f"attack-{number}"
        etcd_client[f"/{path}/C/x"] = text
        EtcdConfDriver(etcd_client, expressions=True).getconf(path)
        sys.modules.pop("link_kv_canary", None)
        if marker.exists():
            noticed += 1
            marker.unlink()
    assert noticed > 15


def test_nothing_in_etcd_is_evaluated(
    etcd_client: EtcdMiddleware, driver: EtcdConfDriver, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINK_KV_HOME", str(marker.parent / "home"))
    texts = attacks(marker)
    assert len(set(texts)) == 100
    client = etcd_client
    client[f"/{PATH}/texts"] = {f"p{number}": text for number, text in enumerate(texts)}
    client[f"/{PATH}/names"] = dict.fromkeys(texts, "name")
    client[f"/{PATH}/lists"] = {f"l{number}": [text, {"k": text}] for number, text in enumerate(texts)}
    client["/more.conf"] = {text: {"x": text} for text in texts}
    client["/subs.conf"] = {f":{name}": {"x": texts[0]} for name in (*texts[:20], "p2", "given")}
    client.raw[f"{client.prefix}/more.conf/.link/categories".encode()] = json.dumps(texts).encode()

    found = driver.getconf(PATH)
    assert [each.value for each in found["texts"].values()] == [
        texts[int(name[1:])] for name in found["texts"]
    ]
    assert list(driver.getconf("more.conf")) == texts
    for ptype in PTYPES:
        conf = configuration(
            category("texts", *(Parameter(f"p{number}", ptype=ptype) for number in range(100)))
        )
        read = driver.getconf(PATH, conf=conf)
        applied = {name: each.value for name, each in read["texts"].items()}
        if ptype in (None, str, object):
            assert applied == {f"p{number}": text for number, text in enumerate(texts)}
        read.resolve()
        EtcdConfDriver(client, offline="cache").getconf(PATH, conf=conf)
        driver.setconf(read, "copy.conf")
        driver.getconf("copy.conf", conf=read)

        class Target:
            def __init__(self, p0: Any = None) -> None:
                self.given = p0

        def function(p1: Any = None) -> Any:
            return p1

        paths = [PATH, "more.conf", "subs.conf"] if ptype is None else [PATH]
        configurable = Configurable(paths=paths, conf=conf, drivers=[driver])
        target = configurable(Target)()
        applyconfiguration([target])
        configurable(function)()
        if ptype is None:
            assert target.given == texts[0]
            assert target.p5 == texts[5]  # type: ignore[attr-defined]
            assert function() == texts[1]
    assert not marker.exists()


def test_names_of_python_itself_are_not_set(etcd_client: EtcdMiddleware, driver: EtcdConfDriver) -> None:
    etcd_client[f"/{PATH}"] = {"C": {"__class__": "x", "__init__": "x", "x": 1}, ":__init__": {"x": 1}}

    @Configurable(paths=PATH, conf=declared(Parameter("x", ptype=int)), drivers=[driver])
    class Target:
        x: int

    applyconfiguration([Target])
    assert Target().x == 1
    assert sorted(driver.problems(PATH)) == [f"/{PATH}/C/__class__", f"/{PATH}/C/__init__"]
    etcd_client[f"/{PATH}/C"] = {"a(": "no pattern", "x": 2}
    assert values(driver.getconf(PATH))["C"] == {"x": "2"}
    assert sorted(driver.problems(PATH)) == [f"/{PATH}/C/a("]


def test_the_driver_is_named_in_what_is_missing() -> None:
    script = "import sys; sys.modules['b3j0f'] = None; import link_kv.driver"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert "pip install 'link_kv[conf]'" in done.stderr
