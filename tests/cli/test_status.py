"""``link-kv status``."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from typing import Any

import click
import pytest

from link_kv import Unavailable, local
from link_kv.local import LocalEtcd

from ..processes import ask
from .command import call
from .conftest import Cli


@pytest.fixture
def own() -> Iterator[LocalEtcd]:
    with local.start() as etcd:
        yield etcd


def status(*endpoints: str, code: int = 0, timeout: int = 20, **environment: str) -> tuple[Any, str]:
    """What it tells a program, and its line on standard error."""
    given = ["--timeout", str(timeout), "--endpoints", ",".join(endpoints), "status", "--json"]
    done = call(*given, **environment)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout or "null"), done.stderr


def test_a_line_for_each_thing(own: LocalEtcd) -> None:
    cluster, member = Cli(own, "/")("status").splitlines()
    assert re.fullmatch(r"cluster\t[0-9a-f]+\trevision [0-9]+", cluster)
    [endpoint] = own.endpoints
    assert re.fullmatch(rf"member\t\S+\t{endpoint}\tleader\t3\.\d+\.\d+\t\d+\t\d+\t\d+\.\d", member)


def test_a_cluster_that_loses_a_member() -> None:
    with local.start_cluster(3) as cluster:
        told, errors = status(*cluster.endpoints)
        assert errors == ""
        assert sorted(member["role"] for member in told["members"]) == ["follower", "follower", "leader"]
        assert len({member["name"] for member in told["members"]}) == 3
        assert all(member["db_size"] > 0 and member["latency"] > 0 for member in told["members"])
        assert told["alarms"] == []
        # One endpoint is enough: the others are asked where they say that clients reach them.
        alone, _ = status(cluster.endpoints[0])
        assert {m["endpoint"]: m["name"] for m in alone["members"]} == {
            m["endpoint"]: m["name"] for m in told["members"]
        }
        # A leader that goes may leave the others without one for a moment.
        roles = {member["endpoint"]: member["role"] for member in told["members"]}
        [gone] = [m for m in cluster.members if roles[m.endpoints[0]] == "follower"][:1]
        gone.kill()
        for endpoints in (cluster.endpoints, [e for e in cluster.endpoints if e != gone.endpoints[0]]):
            told, errors = status(*endpoints, code=1, timeout=4)
            lost = {member["endpoint"]: member for member in told["members"]}[gone.endpoints[0]]
            assert lost["role"] == "unreachable"
            assert lost["name"]
            assert "version" not in lost
            assert re.fullmatch(
                rf"link-kv: {lost['name']}: no (etcd answers|answer from etcd) at {gone.endpoints[0]}\b.*\n",
                errors,
            )
            assert len(told["members"]) == 3


def test_an_alarm(own: LocalEtcd) -> None:
    [endpoint] = own.endpoints
    member = ask(endpoint, "/v3/maintenance/status", {})["header"]["member_id"]
    ask(endpoint, "/v3/maintenance/alarm", {"memberID": member, "alarm": "NOSPACE", "action": "ACTIVATE"})
    told, errors = status(endpoint, code=1)
    [alarm] = told["alarms"]
    assert alarm == {"member": told["members"][0]["name"], "alarm": "NOSPACE"}
    # etcd says it again in the member's own status.
    assert errors.startswith("link-kv: ")
    assert errors.endswith(f"{alarm['member']}: alarm NOSPACE\n")
    result = Cli(own, "/").run("status")
    assert isinstance(result.exception, click.ClickException)
    assert result.stdout.splitlines()[-1] == f"alarm\t{alarm['member']}\tNOSPACE"
    # What is there can still be seen.
    Cli(own, "/")("ls", "--long")


def test_a_user_with_few_rights(own: LocalEtcd) -> None:
    [endpoint] = own.endpoints
    key, end = (base64.b64encode(text).decode() for text in (b"/app/", b"/app0"))
    for path, body in (
        ("user/add", {"name": "root", "password": "root"}),
        ("role/add", {"name": "root"}),
        ("user/grant", {"user": "root", "role": "root"}),
        ("user/add", {"name": "app", "password": "s3cret"}),
        ("role/add", {"name": "app"}),
        ("user/grant", {"user": "app", "role": "app"}),
        ("role/grant", {"name": "app", "perm": {"permType": "READWRITE", "key": key, "range_end": end}}),
        ("enable", {}),
    ):
        assert "error" not in ask(endpoint, f"/v3/auth/{path}", body)
    told, errors = status(endpoint, LINK_KV_USER="app", LINK_KV_PASSWORD="s3cret", LINK_KV_PREFIX="/app")
    assert errors == ""
    [member] = told["members"]
    # etcd 3.5.30 tells the rest to root alone.
    assert member["role"] in ("leader", "answers")
    assert ("version" in member) == (member["role"] == "leader")
    assert member["revision"] > 0
    given = ["--endpoints", endpoint, "--prefix", "/app", "--user", "app"]
    assert call(*given, "set", "/a", "1", LINK_KV_PASSWORD="s3cret").returncode == 0
    assert call(*given, "tree", LINK_KV_PASSWORD="s3cret").stdout == "/a\t1\n"
    assert call(*given, "ls", "-l", LINK_KV_PASSWORD="s3cret").returncode == 0
    denied = call("--endpoints", endpoint, "--user", "app", "ls", LINK_KV_PASSWORD="s3cret")
    assert (denied.returncode, denied.stdout) == (1, "")
    assert re.fullmatch("link-kv: .*permission denied.*\n", denied.stderr)


def test_nobody_answers(cli: Cli) -> None:
    result = Cli.run(cli, "--endpoints", "127.0.0.1:1", "--timeout", "1", "status")
    assert isinstance(result.exception, Unavailable)
    assert "no etcd answers at 127.0.0.1:1" in str(result.exception)
