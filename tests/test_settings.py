"""Settings of pydantic that are read from etcd, once and live."""

from __future__ import annotations

import enum
import pickle
import queue
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import (
    AliasChoices,
    BaseModel,
    Field,
    FilePath,
    PrivateAttr,
    SecretStr,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from typing_extensions import TypedDict

from link_kv import EtcdMiddleware
from link_kv._core.configuration.applied import acknowledgements, schemas
from link_kv._core.wire.calls import run
from link_kv.errors import ConfigError, LinkKVError, PathError, Unavailable
from link_kv.settings import EtcdSettingsSource, follow
from tests.processes import until

PATH = "/myproject/server"
NOWHERE = "127.0.0.1:1"
"""A port that nothing listens on."""


class Database(BaseModel):
    host: str = "localhost"
    version: str = ""


class Server(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="LINK_KV_TEST_SERVER_")

    port: int = Field(8080, gt=0)
    hosts: list[str] = []
    db: Database = Database()
    low: int = 0
    high: int = 100

    @model_validator(mode="after")
    def _in_order(self) -> Server:
        if self.low > self.high:
            raise ValueError("low is above high")
        return self


class Colour(enum.Enum):
    RED = "1"
    BLUE = 2


class Limits(TypedDict, total=False):
    cpu: int


class Taking(BaseSettings):
    """What texts become."""

    text: str = ""
    maybe: str | None = "x"
    number: int | None = 1
    ratio: float = 0
    flag: bool = False
    exact: Decimal = Decimal(0)
    where: Path = Path()
    secret: SecretStr = SecretStr("")
    wait: timedelta = timedelta()
    kind: Literal[1, "2"] = 1
    colour: Colour = Colour.RED
    names: list[str] = []
    numbers: set[int] = set()
    pair: tuple[str, int] = ("", 0)
    limits: dict[str, str] = {}
    anything: Any = None
    db: Database = Database()
    several: list[Database] = []
    data: bytes = b""
    net: IPv4Network = IPv4Network("127.0.0.0/8")
    nets: list[IPv4Network] = []
    queued: deque[int] = deque()
    in_order: Sequence[int] = ()
    typed: Limits = {}


# Reading once


def test_a_source_reads_a_tree(etcd_client: EtcdMiddleware) -> None:
    class Once(Server):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return init_settings, env_settings, EtcdSettingsSource(settings_cls, PATH, client=etcd_client)

    assert Once().port == 8080
    etcd_client[PATH] = {"port": 9090, "db": {"version": 1.10}}
    assert Once().port == 9090
    assert Once(port=1).port == 1
    assert Once().db == Database(version="1.1")


def test_a_source_without_a_client_finds_etcd_in_the_environment(
    etcd: Any, etcd_client: EtcdMiddleware, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINK_KV_ENDPOINTS", ",".join(etcd.endpoints))
    monkeypatch.setenv("LINK_KV_PREFIX", etcd_client.prefix)
    etcd_client[PATH] = {"port": 9090}
    source = EtcdSettingsSource(Server, PATH)
    assert source() == {"port": 9090}
    assert source.get_field_value(Server.model_fields["port"], "port") == (9090, "port", False)


def test_silence_is_not_an_empty_configuration(etcd_client: EtcdMiddleware) -> None:
    with EtcdMiddleware(endpoints=[NOWHERE], timeout=0.2) as nowhere:
        with pytest.raises(Unavailable):
            EtcdSettingsSource(Server, PATH, client=nowhere)()
        with pytest.raises(Unavailable):
            follow(Server, PATH, client=nowhere)
    etcd_client[PATH] = 5
    with pytest.raises(PathError, match="a value, and no settings"):
        EtcdSettingsSource(Server, PATH, client=etcd_client)()
    with pytest.raises(ConfigError, match="a value, and no settings"):
        follow(Server, PATH, client=etcd_client)


@pytest.mark.parametrize(
    ("name", "stored", "value"),
    [
        ("text", b"1.10", "1.10"),
        ("text", b'"5"', "5"),
        ("text", b"true", "true"),
        ("maybe", b"null", None),
        ("maybe", b"7", "7"),
        ("number", b"007", 7),
        ("number", b"null", None),
        ("ratio", b"5", 5.0),
        ("ratio", b"NaN", pytest.approx(float("nan"), nan_ok=True)),
        ("flag", b"yes", True),
        ("flag", b"0", False),
        ("exact", b"1.10", Decimal("1.10")),
        ("where", b"5", Path("5")),
        ("secret", b"1234", SecretStr("1234")),
        ("wait", b"30", timedelta(seconds=30)),
        ("kind", b"1", 1),
        ("kind", b"2", "2"),
        ("colour", b"1", Colour.RED),
        ("colour", b"2", Colour.BLUE),
        ("names", b"a, 1.10", ["a", "1.10"]),
        ("names", b'["a", "b"]', ["a", "b"]),
        ("names", b"5", ["5"]),
        ("names", b"", []),
        ("numbers", b"1, 2", {1, 2}),
        ("pair", b"a, 2", ("a", 2)),
        ("limits", b'{"a": "1"}', {"a": "1"}),
        ("anything", b"1.10", 1.1),
        ("db", b'{"host": "h"}', Database(host="h")),
        ("data", b"\xff\x00A", b"\x00A"),
        ("net", b"10.0.0.0/8", IPv4Network("10.0.0.0/8")),
        ("nets", b"10.0.0.0/8, 10.1.0.0/16", [IPv4Network("10.0.0.0/8"), IPv4Network("10.1.0.0/16")]),
        ("queued", b"1, 2", deque([1, 2])),
        ("in_order", b"1, 2", [1, 2]),
        ("typed", b'{"cpu": 2}', {"cpu": 2}),
    ],
)
def test_what_a_person_typed_becomes_what_is_declared(
    etcd_client: EtcdMiddleware, name: str, stored: bytes, value: Any
) -> None:
    etcd_client.raw[f"{etcd_client.prefix}{PATH}/{name}".encode()] = stored
    with follow(Taking, PATH, client=etcd_client) as followed:
        assert getattr(followed.current, name) == value


def test_trees_become_nested_models(etcd_client: EtcdMiddleware) -> None:
    etcd_client[PATH] = {
        "names": ["x", 1],
        "limits": {"cpu": 2, "mem/max": "3"},
        "several": [{"version": 2}, {"host": "b"}],
    }
    with follow(Taking, PATH, client=etcd_client) as followed:
        now = followed.current
    assert now.names == ["x", "1"]
    assert now.limits == {"cpu": "2", "mem/max": "3"}
    assert now.several == [Database(version="2"), Database(host="b")]


def test_one_of_several_models(etcd_client: EtcdMiddleware) -> None:
    class Tcp(BaseModel):
        kind: Literal["tcp"]
        port: int
        options: list[int | Database] = []

    class Serial(BaseModel):
        kind: Literal["serial"]
        port: str

    class Linked(BaseSettings):
        link: Tcp | Serial = Field(Serial(kind="serial", port=""), discriminator="kind")
        any_of: Database | Tcp | int = 0

    port = f"{PATH}/link/port"
    with follow(Linked, PATH, client=etcd_client, settle=0) as followed:
        assert followed.wait(etcd_client.put(f"{PATH}/link", {"kind": "serial", "port": 1}), 10)
        assert followed.current.link == Serial(kind="serial", port="1")
        assert followed.wait(etcd_client.put(f"{PATH}/link", {"kind": "tcp", "port": 1}), 10)
        assert followed.current.link == Tcp(kind="tcp", port=1)
        assert not followed.wait(etcd_client.put(port, "ninety"), 10)
        assert list(followed.problems) == [port]
        assert not followed.wait(etcd_client.delete(port), 10)
        assert list(followed.problems) == [port]
        link = {"kind": "tcp", "port": 1, "options": [{"host": []}]}
        assert not followed.wait(etcd_client.put(f"{PATH}/link", link), 10)
        assert sorted(followed.problems) == [f"{PATH}/link/options/1", f"{PATH}/link/options/1/host"]
        assert followed.wait(etcd_client.delete(f"{PATH}/link"), 10)
        assert not followed.wait(etcd_client.put(f"{PATH}/any_of", {"host": []}), 10)
        names = ("", "/host", "/kind", "/port")
        assert sorted(followed.problems) == [f"{PATH}/any_of{name}" for name in names]


def test_fields_go_by_their_names_or_aliases(etcd_client: EtcdMiddleware) -> None:
    class Named(BaseSettings):
        model_config = SettingsConfigDict(populate_by_name=True)

        version: str = Field("", validation_alias="the-version")
        other: str = Field("", validation_alias=AliasChoices("o", "the-other"))

    etcd_client[PATH] = {"the-version": 1.10, "the-other": 2}
    with follow(Named, PATH, client=etcd_client) as followed:
        assert (followed.current.version, followed.current.other) == ("1.1", "2")
        assert followed.wait(etcd_client.put(PATH, {"version": 5}), 10)
        assert (followed.current.version, followed.current.other) == ("5", "")


# Following


def test_a_change_is_in_force_soon_and_called_back(etcd_client: EtcdMiddleware) -> None:
    changes: queue.Queue[Server] = queue.Queue()
    with follow(Server, PATH, client=etcd_client, on_change=changes.put) as followed:
        before = followed.current
        assert (before.port, followed.state) == (8080, "live")
        revision = etcd_client.put(PATH, {"port": 9090, "hosts": ["a"]})
        assert followed.wait(revision, 10)
        now = followed.current
        assert (now.port, now.hosts, followed.revision) == (9090, ["a"], revision)
        assert before.port == 8080
        assert changes.get(timeout=10) is now
        revision = etcd_client.delete(PATH)
        assert followed.wait(revision, 10)
        assert followed.current.port == 8080


def test_a_burst_arrives_as_one(etcd_client: EtcdMiddleware) -> None:
    changes: queue.Queue[Server] = queue.Queue()
    with follow(Server, PATH, client=etcd_client, on_change=changes.put, settle=5) as followed:
        for number in range(1, 6):
            revision = etcd_client.put(f"{PATH}/port", number)
        assert followed.current.port == 8080
        assert followed.wait(revision, 20)
        assert changes.get(timeout=10).port == 5
    assert changes.empty()


def test_a_bad_value_leaves_the_last_good_one_in_force_and_is_reported_once(
    etcd_client: EtcdMiddleware, caplog: pytest.LogCaptureFixture
) -> None:
    errors: queue.Queue[LinkKVError] = queue.Queue()
    with follow(Server, PATH, client=etcd_client, on_error=errors.put, settle=0) as followed:
        good = etcd_client.put(PATH, {"port": 9090, "low": 1})
        assert followed.wait(good, 10)
        bad = etcd_client.put(f"{PATH}/port", -1)
        assert not followed.wait(bad, 10)
        assert (followed.current.port, followed.revision) == (9090, good)
        assert followed.problems == {f"{PATH}/port": "Input should be greater than 0"}
        assert f"{PATH}/port: Input should be greater than 0" in str(errors.get(timeout=10))
        # Another parameter is good, but the whole is not.
        assert not followed.wait(etcd_client.put(f"{PATH}/low", 2), 10)
        assert followed.current.low == 1
        worse = etcd_client.put(f"{PATH}/high", "x")
        assert not followed.wait(worse, 10)
        assert len(followed.problems) == 2
        told = str(errors.get(timeout=10))
        assert "/high" in told
        assert "/port" not in told
        fixed = etcd_client.put(PATH, {"port": 1, "low": 3})
        assert followed.wait(fixed, 10)
        assert (followed.current.port, followed.current.low, followed.error) == (1, 3, None)
        assert not followed.wait(etcd_client.put(f"{PATH}/low", 200), 10)
        assert followed.problems == {PATH: "low is above high"}
        assert "low is above high" in str(errors.get(timeout=10))
    assert errors.empty()
    assert len([record for record in caplog.records if record.name == "link_kv.reload"]) == 3


def test_what_was_rejected_is_tried_again_when_it_is_written_again(
    etcd_client: EtcdMiddleware, tmp_path: Path
) -> None:
    """Whether a file is there is no matter of what is written."""

    class Reading(BaseSettings):
        file: FilePath | None = None

    file = tmp_path / "x"
    with follow(Reading, PATH, client=etcd_client, settle=0) as followed:
        assert not followed.wait(etcd_client.put(f"{PATH}/file", str(file)), 10)
        file.touch()
        assert followed.wait(etcd_client.put(f"{PATH}/file", str(file)), 10)
        assert (followed.current.file, followed.error) == (file, None)


def test_what_is_bad_at_the_start_is_an_error(etcd_client: EtcdMiddleware) -> None:
    etcd_client[PATH] = {"port": "ninety", "db": {"prot": 1}, "prt": 1}
    with pytest.raises(ConfigError) as caught:
        follow(Server, PATH, client=etcd_client)
    assert f"{PATH}/port: Input should be a valid integer" in str(caught.value)
    assert f"{PATH}/prt: Extra inputs are not permitted" in str(caught.value)


def test_a_validator_may_raise_what_it_likes(etcd_client: EtcdMiddleware) -> None:
    class Odd(BaseSettings):
        port: int = 1

        @field_validator("port")
        @classmethod
        def _check(cls, value: int) -> int:
            if value == 2:
                raise KeyError("odd")
            return value

    with follow(Odd, PATH, client=etcd_client) as followed:
        assert not followed.wait(etcd_client.put(f"{PATH}/port", 2), 10)
        assert followed.wait(etcd_client.put(f"{PATH}/port", 3), 10)
        assert followed.current.port == 3


def test_settings_in_force_cannot_be_changed(etcd_client: EtcdMiddleware) -> None:
    with follow(Server, PATH, client=etcd_client) as followed:
        now = followed.current
        with pytest.raises(TypeError, match=f"write to {PATH} in etcd"):
            now.port = 1
        with pytest.raises(TypeError, match="never changed"):
            del now.port
        assert isinstance(now, Server)
        again = pickle.loads(pickle.dumps(now))
        assert type(again) is Server
        assert again.port == 8080


def test_what_is_private_to_a_model_stays_its_own(etcd_client: EtcdMiddleware) -> None:
    class Counting(BaseSettings):
        port: int = 1
        _reads: int = PrivateAttr(0)

        def read(self) -> int:
            self._reads += 1
            return self._reads

    with follow(Counting, PATH, client=etcd_client) as followed:
        assert (followed.current.read(), followed.current.read()) == (1, 2)


def test_the_environment_goes_before_etcd(
    etcd_client: EtcdMiddleware, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINK_KV_TEST_SERVER_PORT", "7")
    etcd_client[PATH] = {"port": 9090, "low": 5}
    with follow(Server, PATH, client=etcd_client) as followed:
        assert (followed.current.port, followed.current.low) == (7, 5)
        until(lambda: bool(run(acknowledgements(etcd_client._exchange(), PATH))[1]))
        [told] = run(acknowledgements(etcd_client._exchange(), PATH))[1]
        assert told.elsewhere == {"port": "environment"}
        monkeypatch.setenv("LINK_KV_TEST_SERVER_PORT", "-7")
        assert not followed.wait(etcd_client.put(f"{PATH}/low", 6), 10)
        assert followed.problems == {f"{PATH}/port": "Input should be greater than 0 (from environment)"}


def test_what_is_from_the_environment_is_told_by_its_path(
    etcd_client: EtcdMiddleware, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Deep(BaseModel):
        sizes: list[int] = []
        db: Database = Database()

    class Nested(BaseSettings):
        model_config = SettingsConfigDict(env_prefix="LINK_KV_TEST_SERVER_", env_nested_delimiter="__")

        deep: Deep = Deep()
        host: str = ""

    monkeypatch.setenv("LINK_KV_TEST_SERVER_DEEP__SIZES", "[1]")
    monkeypatch.setenv("LINK_KV_TEST_SERVER_HOST", "x")
    etcd_client[PATH] = {"deep": {"sizes": [2, 3], "db": {"host": "h"}}}
    with follow(Nested, PATH, client=etcd_client, settle=0) as followed:
        assert followed.current.deep == Deep(sizes=[1], db=Database(host="h"))
        until(lambda: bool(run(acknowledgements(etcd_client._exchange(), PATH))[1]))
        [told] = run(acknowledgements(etcd_client._exchange(), PATH))[1]
        assert told.elsewhere == {"deep/sizes": "environment", "host": "environment"}
        assert not followed.wait(etcd_client.put(f"{PATH}/deep/db/host", []), 10)
        assert followed.problems == {f"{PATH}/deep/db/host": "Input should be a valid string"}
        monkeypatch.setenv("LINK_KV_TEST_SERVER_DEEP__SIZES", '["x"]')
        assert not followed.wait(etcd_client.delete(f"{PATH}/deep"), 10)
        assert list(followed.problems) == [f"{PATH}/deep/sizes"]
        assert "(from environment)" in followed.problems[f"{PATH}/deep/sizes"]


def test_all_who_have_the_same_in_force_say_the_same(etcd: Any, etcd_client: EtcdMiddleware) -> None:
    with (
        EtcdMiddleware(endpoints=etcd.endpoints, prefix=etcd_client.prefix) as other,
        follow(Server, PATH, client=etcd_client) as first,
    ):
        revision = etcd_client.put(PATH, {"port": 1, "low": 1})
        assert first.wait(revision, 10)
        etcd_client["/elsewhere"] = 1
        with follow(Server, PATH, client=other) as second:
            assert first.revision == second.revision == revision
            gone = etcd_client.delete(f"{PATH}/low")
            assert first.wait(gone, 10)
            assert second.wait(gone, 10)
            assert first.revision == second.revision == gone


def test_a_plain_model_is_followed(etcd_client: EtcdMiddleware) -> None:
    etcd_client[PATH] = {"version": 1.10}
    with follow(Database, PATH, client=etcd_client) as followed:
        assert followed.current.version == "1.1"


def test_a_callback_may_block_raise_and_close(etcd_client: EtcdMiddleware) -> None:
    seen: queue.Queue[int] = queue.Queue()
    go = threading.Event()

    def on_change(now: Server) -> None:
        seen.put(now.port)
        if now.port == 1:
            assert go.wait(10)
            raise ValueError("the callback's own")
        followed.close()

    followed = follow(Server, PATH, client=etcd_client, on_change=on_change, settle=0)
    assert followed.wait(etcd_client.put(f"{PATH}/port", 1), 10)
    assert seen.get(timeout=10) == 1
    assert followed.wait(etcd_client.put(f"{PATH}/port", 2), 10)  # while the callback blocks
    go.set()
    assert seen.get(timeout=10) == 2
    until(lambda: followed.state == "lost")
    assert followed.current.port == 2
    assert not followed.wait(etcd_client.put(f"{PATH}/port", 3), 10)


def test_options_that_do_not_fit(etcd_client: EtcdMiddleware) -> None:
    with pytest.raises(ConfigError, match="settle=-1"):
        follow(Server, PATH, client=etcd_client, settle=-1)
    with pytest.raises(ConfigError, match="on_change='x'"):
        follow(Server, PATH, client=etcd_client, on_change="x")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="model=5"):
        follow(5, PATH, client=etcd_client)  # type: ignore[type-var]
    with pytest.raises(PathError):
        follow(Server, "/a/.link/b", client=etcd_client)


# Who runs what


def test_a_process_says_what_it_has_in_force(etcd_client: EtcdMiddleware) -> None:
    def told() -> Any:
        found = run(acknowledgements(etcd_client._exchange(), PATH))[1]
        return found[0] if found else None

    followed = follow(Server, PATH, client=etcd_client)
    good = etcd_client.put(PATH, {"port": 9090})
    until(lambda: told() is not None and told().revision == good)
    assert (told().state, told().message, told().seen) == ("applied", "", good)
    bad = etcd_client.put(f"{PATH}/port", 0)
    until(lambda: told().seen == bad)
    assert (told().state, told().revision) == ("rejected", good)
    assert told().message == "port: Input should be greater than 0"
    [schema] = run(schemas(etcd_client._exchange(), PATH)).values()
    assert schema["properties"]["port"]["exclusiveMinimum"] == 0
    assert [path for path in etcd_client if ".link" in path] == []
    followed.close()
    followed.close()
    assert told() is None
    assert run(schemas(etcd_client._exchange(), PATH)) == {}


def test_defaults_are_not_told(etcd_client: EtcdMiddleware) -> None:
    class Login(BaseModel):
        password: str = "s3cret"
        token: str | None = "s3cret"

    class Secretive(BaseSettings):
        password: str = Field("s3cret", min_length=3)
        login: Login = Login()
        logins: list[Login] = [Login()]
        database: Database = Field(Database(host="s3cret"), description="where it is")

    def published() -> Any:
        return next(iter(run(schemas(etcd_client._exchange(), PATH)).values()), None)

    with follow(Secretive, PATH, client=etcd_client):
        until(lambda: published() is not None)
        assert published()["properties"]["password"]["minLength"] == 3
        assert published()["properties"]["database"]["description"] == "where it is"
        assert "required" not in published()
        assert b"s3cret" not in b"".join(etcd_client.raw.values())


def test_closing_the_client_takes_back_what_was_said(etcd: Any, etcd_client: EtcdMiddleware) -> None:
    other = EtcdMiddleware(endpoints=etcd.endpoints, prefix=etcd_client.prefix)
    followed = follow(Server, PATH, client=other)
    until(lambda: bool(run(acknowledgements(etcd_client._exchange(), PATH))[1]))
    other.close()
    assert run(acknowledgements(etcd_client._exchange(), PATH))[1] == []
    assert (followed.state, followed.current.port) == ("lost", 8080)


def test_the_extra_is_named_in_what_is_missing() -> None:
    script = "import sys; sys.modules['pydantic_settings'] = None; import link_kv.settings"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert "pip install 'link_kv[pydantic]'" in done.stderr
