"""``link-kv service``, ``call`` and ``identities``."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from link_kv import AccessDenied, ConfigError, NotFound, RemoteError
from link_kv._core.links.config import LinkConfig
from link_kv._core.wire.config import Config

from ..processes import until
from ..services.echo import Echo
from .command import link_kv
from .conftest import Cli

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "heartbeat.py"


@pytest.fixture
def echo(cli: Cli) -> Iterator[Echo]:
    service = Echo()
    config = Config(endpoints=tuple(cli.etcd.endpoints), prefix=cli.prefix)
    service._settle = lambda connect: LinkConfig(config)  # type: ignore[method-assign]
    with service:
        service.start_in_thread()
        yield service


def test_call(cli: Cli, echo: Echo) -> None:
    shown = cli("call", "Echo", "echo", "0.5", "true", "text", "[1, null]", "x={}", "y=a=b", "--", "-3")
    assert json.loads(shown) == [[0.5, True, "text", [1, None], -3], {"x": {}, "y": "a=b"}]
    assert cli("call", "Echo", "same", "as it is") == "as it is\n"
    assert cli("call", "Echo", "same", "text", "--json") == '"text"\n'
    assert cli("call", "Echo", "PI") == "3.14159\n"
    assert cli("call", "Echo", "zeros", "3") == "\\x00\\x00\\x00\n"
    assert cli("call", "Echo", "release", "--wait", "10") == "null\n"


def test_calls_that_fail(cli: Cli, echo: Echo) -> None:
    assert "ValueError: why" in cli.fails(RemoteError, "call", "Echo", "boom", "why")
    assert "there is no such service" in cli.fails(NotFound, "call", "Nobody", "echo")
    assert "private" in cli.fails(AccessDenied, "call", "Echo", "_secret")
    assert "no attribute 'nonsense'" in cli.fails(NotFound, "call", "Echo", "nonsense")


class Named(Echo):
    """Has names of links, and not that of one of their methods."""

    def unlink(self) -> str:
        return "the service's own"


def test_names_that_links_have_are_those_of_the_service(cli: Cli) -> None:
    service = Named("Named")
    config = Config(endpoints=tuple(cli.etcd.endpoints), prefix=cli.prefix)
    service._settle = lambda connect: LinkConfig(config)  # type: ignore[method-assign]
    service.start_in_thread()
    with service:
        assert cli("call", "Named", "unlink") == "the service's own\n"
        for name in ("disconnect", "acquire_lock", "service_name"):
            assert f"no attribute '{name}'" in cli.fails(NotFound, "call", "Named", name)
        assert json.loads(cli("call", "Named", "shutdown_service", "1")) == ["bye", [1], {}]


def test_identities(cli: Cli, echo: Echo) -> None:
    name, address, *_ = cli("identities").split("\t")[1:]
    assert (name, address) == ("Echo", echo.address)
    found: Any = json.loads(cli("identities", "--json"))
    assert found["services"]["Echo"]["address"] == echo.address


def test_service(cli: Cli, tmp_path: Path) -> None:
    process = link_kv(*cli.options, "service", str(EXAMPLE), "--name", "Mine", temporary=tmp_path)
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("Mine is running at 127.0.0.1:")
        assert cli("call", "Mine", "reset") == "null\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        until(lambda: cli("identities") == "")
    finally:
        process.kill()
        process.communicate()


def test_a_service_with_coroutines(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "coroutines.py"
    file.write_text(
        "import asyncio\n"
        "from link_kv import aio\n"
        "class Slow(aio.Service):\n"
        "    async def twice(self, value):\n"
        "        await asyncio.sleep(0)\n"
        "        return 2 * value\n"
        "    async def shutdown_service(self):\n"
        "        return 'bye'\n"
    )
    for end in ("interrupt", "shutdown_service"):
        process = link_kv(*cli.options, "service", str(file), temporary=tmp_path)
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("Slow is running at 127.0.0.1:")
            assert cli("call", "Slow", "twice", "4") == "8\n"
            if end == "interrupt":
                process.send_signal(signal.SIGINT)
            else:
                assert cli("call", "Slow", end) == "bye\n"
            assert process.wait(30) == 0
            until(lambda: cli("identities") == "")
        finally:
            process.kill()
            _, errors = process.communicate()
        assert "never awaited" not in errors
        assert "Traceback" not in errors


def test_services_that_cannot_be_run(cli: Cli, tmp_path: Path) -> None:
    assert "no such file" in cli.fails(ConfigError, "service", str(tmp_path / "none.py"))
    file = tmp_path / "two_services.py"
    file.write_text(
        "from link_kv import Service\nclass A(Service): pass\nclass B(Service): pass\nclass C: pass\n"
    )
    assert "there are: A, B" in cli.fails(ConfigError, "service", str(file))
    assert "no service called 'C'" in cli.fails(ConfigError, "service", f"{file}:C")
    assert "no_such_module" in cli.fails(ConfigError, "service", "no_such_module")
    for name in ("", ":X", ".", ".a", "..x", "a..b", "a-b"):
        assert "neither the name of a module nor a file" in cli.fails(ConfigError, "service", name)
