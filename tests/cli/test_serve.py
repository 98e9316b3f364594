"""``link-kv serve`` and what speaks with it: get, set, cmd, ping, lock, unlock, monitor."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import click
import pytest

from link_kv import AccessDenied, EtcdMiddleware, LinkKVError, NotFound, Refused, get
from link_kv._core.endpoints.heartbeats import Heartbeats

from .command import end, line, link_kv
from .conftest import Cli

PRICES = """
    # A key-value store as dripline's tutorial has it.
    providers:
      - name: my_price_list
        module: kv_store
        endpoints:
          - name: peaches
            module: kv_store_key
            initial_value: 0.75
          - name: chips
            module: kv_store_key
            initial_value: 1.75
          - name: waffles
            module: kv_store_key
            initial_value: 4.00
"""

Serving = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def serving(cli: Cli, tmp_path: Path) -> Iterator[Serving]:
    """Run ``link-kv serve`` on a text, until it serves."""
    running: list[subprocess.Popen[str]] = []

    def start(text: str = PRICES, *options: str, name: str = "kv.yaml") -> subprocess.Popen[str]:
        file = tmp_path / name
        file.write_text(dedent(text).lstrip("\n"))
        process = link_kv(
            *cli.options, "serve", "-c", str(file), *options, temporary=tmp_path, PYTHONUNBUFFERED="1"
        )
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate()


def test_the_transcript_of_the_tutorial(cli: Cli, serving: Serving) -> None:
    process = serving(PRICES, "--node", "my_store")
    assert re.fullmatch(r"my_price_list serves peaches, chips, waffles at 127\.0\.0\.1:\d+\n", line(process))
    assert cli("get", "peaches") == "0.75\n"
    assert cli("get", "waffles") == "4.0\n"
    assert cli("get", "chips") == "1.75\n"
    assert cli("set", "chips", "1.79").startswith("revision ")
    for name in ("chips", "CHIPS", "my_price_list.chips", "my_store.my_price_list.chips"):
        assert cli("get", name) == "1.79\n"
    assert cli("get", "/my_price_list/chips") == "1.79\n"
    assert cli("get", "my_price_list") == (
        "my_price_list.chips\t1.79\nmy_price_list.peaches\t0.75\nmy_price_list.waffles\t4.0\n"
    )
    process.send_signal(signal.SIGINT)
    status, output, errors = end(process)
    assert (status, output, errors) == (0, "", "")
    # It was started again: what was set stays, whatever the initial value is.
    line(serving())
    assert cli("get", "chips") == "1.79\n"


KEY_VALUE_STORE = """
    providers:
      - name: my_store
        module: kv_store
        endpoints:
          - name: peaches
            module: KVStoreKey
            calibration: '2*{}'
            initial_value: 0.75
            log_interval: 10
            get_on_set: True
            log_on_set: True
          - name: chips
            module: KVStoreKey
            calibration: 'times3({})'
            initial_value: 1.75
          - name: waffles
            module: KVStoreKey
            calibration: '1.*{}'
            initial_value: 4.00
"""


def test_the_key_value_store_of_dripline_5(cli: Cli, serving: Serving) -> None:
    line(serving(KEY_VALUE_STORE))
    assert json.loads(cli("get", "peaches", "--json")) == {"value_raw": 0.75, "value_cal": 1.5}
    assert cli("get", "chips", "--calibrated") == "5.25\n"
    assert cli("get", "waffles", "--calibrated") == "4.0\n"
    assert cli("set", "peaches", "1").splitlines()[1:] == ["1"]  # get_on_set
    assert json.loads(cli("set", "peaches", "0.8", "--json"))["reply"] == {"value_raw": 0.8, "value_cal": 1.6}
    assert cli("set", "chips=2").splitlines()[1:] == []
    assert cli("get", "my_store.chips", "--json") == '{"value_raw": 2, "value_cal": 6}\n'
    assert cli("get", "peaches.log_interval") == "10\n"
    assert cli("set", "peaches.log-interval", "20") == ""
    assert cli("get", "my_store.peaches.log_interval") == "20\n"
    assert json.loads(cli("get", "my_store.logging_status")) == [
        ["peaches", True],
        ["chips", False],
        ["waffles", False],
    ]
    assert cli("cmd", "my_store", "list_endpoints") == '["peaches", "chips", "waffles"]\n'
    assert cli("cmd", "peaches", "single_schedule", "0.01") == ""
    assert cli("cmd", "peaches", "is_locked", "--json") == '{"values": [false]}\n'
    for name in ("peaches", "my_store"):
        assert re.fullmatch(rf"{name} answers in \d+\.\d ms\n", cli("ping", name))


def test_lockout(cli: Cli, serving: Serving) -> None:
    line(serving())
    key = cli("lock", "chips").strip()
    assert re.fullmatch(r"[0-9a-f-]{36}", key)
    assert "chips: is locked by link-kv " in cli.fails(AccessDenied, "set", "chips", "3")
    cli.fails(AccessDenied, "unlock", "chips")
    assert "no attribute that may be read" in cli.fails(AccessDenied, "get", "chips.lockout_key")
    assert cli("get", "chips") == "1.75\n"
    assert cli("set", "chips", "3", "--lockout-key", key).startswith("revision ")
    assert cli("unlock", "chips", "--lockout-key", key) == ""
    cli("set", "chips", "4")
    assert cli("lock", "my_price_list", "--lockout-key", "mine") == "mine\n"
    cli.fails(AccessDenied, "set", "my_price_list.peaches", "4")
    assert cli("unlock", "my_price_list", "--force") == ""
    cli("set", "peaches", "4")


def test_items_and_endpoints_are_told_apart(cli: Cli, serving: Serving, etcd_client: EtcdMiddleware) -> None:
    line(serving())
    etcd_client["/peaches"] = {"a": 1}
    message = cli.fails(LinkKVError, "get", "peaches")
    assert message == (
        "peaches: is /peaches and the endpoint peaches of my_price_list; say which by its path, or by "
        "my_price_list.peaches"
    )
    assert "is /peaches/a and the endpoint peaches.a of" in cli.fails(LinkKVError, "get", "peaches.a")
    assert cli("get", "/peaches/a") == "1\n"
    assert cli("get", "my_price_list.peaches") == "0.75\n"
    # A path is asked for what is there, and set by the service.
    assert cli("set", "/my_price_list/chips", "1.8").startswith("revision ")
    key = cli("lock", "/my_price_list/chips").strip()
    cli.fails(AccessDenied, "set", "/my_price_list/chips", "2")
    assert json.loads(cli("set", "/my_price_list/chips", "2", "--json", "--lockout-key", key))["reply"] == {}
    assert cli("set", "/my_price_list/chips", "1.75", "--ttl", "1000").startswith("revision ")
    assert cli("get", "/my_price_list/chips") == "1.75\n"
    cli("unlock", "/my_price_list/chips", "--lockout-key", key)
    # As an item, in its words.
    get("my_price_list", client=etcd_client).describe("chips", type="numeric", format="%.2f $")
    assert cli("get", "chips", "--formatted") == "1.75 $\n"
    assert cli("set", "chips", "1.79 $", "--formatted").startswith("revision ")
    assert "'much' is not a number" in cli.fails(Refused, "set", "chips", "much")
    assert cli("get", "chips") == "1.79\n"


@pytest.mark.parametrize(
    ("kind", "args", "message"),
    [
        (
            NotFound,
            ["ping", "nothing"],
            "nothing: no endpoint is called so; there are chips, peaches, waffles",
        ),
        (LinkKVError, ["get", "nothing"], "no store 'nothing'"),
        (AccessDenied, ["cmd", "chips", "on_set", "5"], "'on_set' is no method that may be called"),
        (Refused, ["set", "chips.schedule_status", "on"], "schedule_interval is 0"),
        (LinkKVError, ["get", "chips", "--calibrated"], "has no calibration"),
        (click.UsageError, ["get", "my_price_list", "--calibrated"], "is for one endpoint"),
        (click.UsageError, ["get", "/my_price_list/chips", "--calibrated"], "are for items"),
        (click.UsageError, ["set", "/x", "1", "--lockout-key", "k"], "is for an endpoint"),
    ],
)
def test_a_mistake(
    cli: Cli, serving: Serving, kind: type[BaseException], args: list[str], message: str
) -> None:
    line(serving())
    assert message in cli.fails(kind, *args)


def test_a_mistake_in_the_file_is_one_line(cli: Cli, serving: Serving, tmp_path: Path) -> None:
    file = tmp_path / "kv.yaml"
    for old, new, message in (
        ("- name: chips", "-name: chips", "line 9, column 7: a space is missing after the dash"),
        ("initial_value: 1.75", "inital_value: 1.75", "line 11, column 9: 'inital_value' is no keyword"),
        ("initial_value: 1.75", "max_interval: long", "line 11, column 23: max_interval: 'long' is not"),
        ("initial_value: 1.75", "calibration: '2*'", "line 9, column 9: chips: calibration='2*'"),
        ("module: kv_store\n", "module: os.path\n", "line 4, column 13: module: 'os.path'"),
        ("module: kv_store\n", "module: no.such.Thing\n", "'no.such.Thing' cannot be imported"),
    ):
        status, output, errors = end(serving(PRICES.replace(old, new)))
        assert (status, output) == (1, "")
        assert errors.startswith(f"link-kv: {file}, {message}") or message in errors, errors
        assert errors.count("\n") == 1
    cli.fails(click.UsageError, "serve", "-c", str(tmp_path / "none.yaml"))


def test_a_name_that_is_taken_is_refused_at_the_start(cli: Cli, serving: Serving) -> None:
    line(serving())
    other = PRICES.replace("my_price_list", "other").replace("peaches", "plums")
    status, output, errors = end(serving(other, name="other.yaml"))
    assert (status, output) == (1, "")
    assert "endpoint chips: service my_price_list has one of this name, at /my_price_list/chips" in errors
    status, _, errors = end(serving(PRICES, name="again.yaml"))
    assert status == 1
    assert "service my_price_list: is running at 127.0.0.1:" in errors
    assert errors.count("\n") == 1


def test_one_that_was_killed_is_replaced_at_once(cli: Cli, serving: Serving) -> None:
    process = serving()
    line(process)
    process.kill()
    process.wait()
    assert line(serving()).startswith("my_price_list serves")
    assert cli("get", "chips") == "1.75\n"


def test_completion(cli: Cli, serving: Serving) -> None:
    from link_kv.cli import _endpoints
    from link_kv.cli._run import link_kv as group

    line(serving())
    context = click.Context(group)
    unsaid = ("url", "user", "password_file", "ca_cert", "cert_cert", "cert_key", "timeout")
    where = {"endpoints": ",".join(cli.etcd.endpoints), "prefix": cli.prefix}
    context.params = {**dict.fromkeys(unsaid), **where}
    target = click.Argument(["target"])
    assert _endpoints._complete(context, target, "") == [
        *("chips", "my_price_list", "my_price_list.chips", "my_price_list.peaches"),
        *("my_price_list.waffles", "peaches", "waffles"),
    ]
    assert _endpoints._complete(context, target, "PEA") == ["peaches"]
    context.params["endpoints"] = "127.0.0.1:1"
    assert _endpoints._complete(context, target, "") == []


def test_off_loopback_it_takes_a_certificate_or_a_word(cli: Cli, serving: Serving) -> None:
    status, output, errors = end(serving(PRICES, "--listen", "0.0.0.0"))
    assert (status, output) == (1, "")
    assert "others can listen to what is said without TLS" in errors
    process = serving(PRICES, "--listen", "0.0.0.0", "--advertise", "localhost:1", "--no-tls")
    assert line(process) == "my_price_list serves peaches, chips, waffles at localhost:1\n"


def test_modules_of_your_own(cli: Cli, serving: Serving, tmp_path: Path) -> None:
    (tmp_path / "instruments.py").write_text(
        dedent(
            """
            from link_kv.endpoints import KVStoreKey

            class Thermostat(KVStoreKey):
                def __init__(self, port=0, **kwargs):
                    super().__init__(**kwargs)
                    self.port = port

                def on_get(self):
                    return self.port * 10
            """
        )
    )
    line(
        serving(
            """
            providers:
              - name: lab
                module: kv_store
                endpoints:
                  - {name: stat, module: instruments.Thermostat, port: 3, schedule_interval: 0.05}
            """
        )
    )
    assert cli("get", "stat") == "30\n"
    assert cli("get", "/lab/stat") == "30\n"


def test_monitor(cli: Cli, serving: Serving, tmp_path: Path) -> None:
    def monitor(*options: str) -> subprocess.Popen[str]:
        process = link_kv(*cli.options, "monitor", *options, temporary=tmp_path, PYTHONUNBUFFERED="1")
        assert process.stderr is not None
        return process

    server = serving(KEY_VALUE_STORE)
    line(server)
    processes = [monitor("-k", "sensor_value.*", "--json"), monitor("-k", "other.*"), monitor()]
    try:
        for process in processes:
            assert process.stderr is not None
            assert process.stderr.readline().endswith(" my_store is heard\n")
        cli("set", "peaches", "3")
        alert = json.loads(line(processes[0]))
        while alert["payload"]["value_raw"] != 3:  # the first look may come in between
            alert = json.loads(line(processes[0]))
        assert alert["routing_key"] == "sensor_value.peaches"
        assert alert["payload"] == {"value_raw": 3, "value_cal": 6}
        cells = line(processes[2]).split("\t")
        assert cells[1] == "sensor_value.peaches"
        # Services that go and come are followed.
        server.send_signal(signal.SIGTERM)
        server.wait(30)
        assert processes[0].stderr is not None
        assert processes[0].stderr.readline().endswith(" my_store is gone\n")
        line(serving(KEY_VALUE_STORE))
        assert processes[0].stderr.readline().endswith(" my_store is heard\n")
        cli("set", "peaches", "4")
        while json.loads(line(processes[0]))["payload"]["value_raw"] != 4:
            pass
        processes[1].send_signal(signal.SIGINT)
        assert end(processes[1])[:2] == (0, "")
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def test_heartbeats_that_stop_are_told(cli: Cli, serving: Serving, tmp_path: Path) -> None:
    text = PRICES.replace("module: kv_store\n", "module: kv_store\n        heartbeat_interval: 0.1\n")
    server = serving(text)
    line(server)
    process = link_kv(
        *[*cli.options, "monitor", "--heartbeats", "--warning", "1", "--critical", "2"],
        temporary=tmp_path,
        PYTHONUNBUFFERED="1",
    )
    try:
        assert process.stderr is not None
        process.stderr.readline()
        os.kill(server.pid, signal.SIGSTOP)
        _read_until(process, "critical")  # on a busy machine it may have been in other states before
        os.kill(server.pid, signal.SIGCONT)
        _read_until(process, "ok")
    finally:
        process.kill()
        process.communicate()


def _read_until(process: subprocess.Popen[str], state: str) -> None:
    """Read of a service until it is in this state."""
    told = ""
    while told != state:
        told, name = line(process).split("\t")[1:3]
        assert name == "my_price_list"


def test_silence() -> None:
    heartbeats = Heartbeats()
    heartbeats.heard("a", 0)
    heartbeats.heard("b", 100)
    assert heartbeats.changed(120) == []
    assert heartbeats.changed(121) == [("a", "warning", 121)]
    assert heartbeats.changed(122) == []
    assert heartbeats.next_change(122) == 98
    assert heartbeats.changed(301) == [("a", "critical", 301), ("b", "warning", 201)]
    heartbeats.heard("a", 302)
    assert heartbeats.changed(302) == [("a", "ok", 0)]
