"""The cluster of etc/docker, as its first lines say how to start it."""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import link_kv
from link_kv.errors import Unavailable

from ..cli.command import call

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("compose")]  # one cluster for them

ETC = Path(__file__).parent.parent.parent / "etc" / "docker"
MEMBERS = ("etcd1", "etcd2", "etcd3")

Compose = Callable[..., str]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy, whose ports are free ones."""
    directory = tmp_path_factory.mktemp("compose") / "docker"
    shutil.copytree(ETC, directory, ignore=shutil.ignore_patterns("certificates"))
    file = directory / "compose.yaml"
    text = file.read_text()
    for port in (2379, 2381, 2383):
        assert f'"127.0.0.1:{port}:2379"' in text
        text = text.replace(f'"127.0.0.1:{port}:2379"', '"127.0.0.1::2379"')
    file.write_text(text)
    subprocess.run([directory / "certificates.sh"], check=True)
    return directory


@pytest.fixture(scope="module")
def compose(directory: Path) -> Iterator[Compose]:
    if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0:
        program = ["docker", "compose"]
    elif found := shutil.which("docker-compose"):
        program = [found]
    else:
        pytest.skip("there is no docker compose")
    project = f"link-kv-tests-{secrets.token_hex(4)}"

    def compose(*args: str) -> str:
        command = [*program, "--project-name", project, *args]
        done = subprocess.run(
            command, cwd=directory, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    try:
        compose("up", "-d")
        yield compose
    finally:
        compose("down", "--volumes")
        for kind in ("container", "network", "volume"):
            everything = ["--all"] if kind == "container" else []
            label = f"label=com.docker.compose.project={project}"
            left = subprocess.run(
                ["docker", kind, "ls", *everything, "--quiet", "--filter", label],
                capture_output=True,
                text=True,
                check=True,
            )
            assert not left.stdout, f"{kind}s are left behind"


@pytest.fixture(scope="module")
def endpoints(compose: Compose) -> list[str]:
    return [compose("port", member, "2379").strip() for member in MEMBERS]


def client(endpoints: list[str], directory: Path, name: str | None = "client") -> link_kv.EtcdMiddleware:
    certificates = directory / "certificates"
    own = (
        {"cert_cert": f"{certificates / name}.pem", "cert_key": f"{certificates / name}.key"} if name else {}
    )
    return link_kv.EtcdMiddleware(
        endpoints=endpoints, ca_cert=str(certificates / "ca.pem"), timeout=30, **own
    )


def test_three_members_hold_what_one_was_given(directory: Path, endpoints: list[str]) -> None:
    with client(endpoints, directory) as all_of_them:
        all_of_them["/lab"] = {"filters": ["red", "green"], "open": False}
    for endpoint in endpoints:
        with client([endpoint], directory) as one:
            assert one["/lab"] == {"filters": ["red", "green"], "open": False}


def test_link_kv_status_shows_them(directory: Path, endpoints: list[str]) -> None:
    certificates = directory / "certificates"
    with client(endpoints, directory) as ready:
        ready["/status"] = 1
    done = call(
        *("--endpoints", ",".join(endpoints)),
        *("--ca-cert", str(certificates / "ca.pem")),
        *("--cert", str(certificates / "client.pem"), "--key", str(certificates / "client.key")),
        *("status", "--json"),
    )
    assert done.returncode == 0, done.stderr
    members = json.loads(done.stdout)["members"]
    assert sorted(member["name"] for member in members) == [*MEMBERS]
    assert sorted(member["role"] for member in members) == ["follower", "follower", "leader"]


def test_nobody_gets_in_without_a_certificate(directory: Path, endpoints: list[str]) -> None:
    with client(endpoints, directory) as ready:
        ready["/door"] = 1
    certificates = directory / "certificates"
    with (
        link_kv.EtcdMiddleware(
            endpoints=endpoints, ca_cert=str(certificates / "ca.pem"), timeout=3
        ) as nobody,
        pytest.raises(Unavailable),
    ):
        nobody["/door"]


def test_it_goes_on_without_a_member(compose: Compose, directory: Path, endpoints: list[str]) -> None:
    with client(endpoints, directory) as user:
        user["/before"] = 1
        compose("stop", "etcd2")
        try:
            user["/meanwhile"] = 2
            assert user["/before"] == 1
        finally:
            compose("start", "etcd2")
