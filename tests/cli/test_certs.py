"""``link-kv certs``: a real etcd and a client speak TLS by them."""

from __future__ import annotations

import datetime
import os
import re
import shlex
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from link_kv import AccessDenied, ConfigError, EtcdMiddleware, Unavailable, local
from link_kv._core.wire.config import Config
from link_kv.cli._run import link_kv

from .command import call


def certs(*args: object) -> Result:
    return CliRunner().invoke(link_kv, ["certs", *map(str, args)], standalone_mode=False)


def made(*args: object) -> str:
    result = certs(*args)
    if result.exception:
        raise result.exception
    return result.stdout


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


@contextmanager
def server(printed: str, *more: str) -> Iterator[str]:
    """An etcd with the flags that the command printed, and its endpoint by a name of the certificate."""
    flags = [flag for line in printed.splitlines() if line.startswith("  --") for flag in shlex.split(line)]
    assert len(flags) == 8
    with local.start(args=[*flags, *more]) as etcd:
        yield etcd.endpoints[0].replace("127.0.0.1", "localhost")


def settings(printed: str) -> dict[str, str]:
    found = re.findall(r"^  export LINK_KV_(\w+)=(.*)$", printed, re.MULTILINE)
    return {name.lower(): shlex.split(value)[0] for name, value in found}


def client(endpoint: str, **options: str) -> EtcdMiddleware:
    made: EtcdMiddleware = EtcdMiddleware._of(Config(endpoints=(endpoint,), timeout=5, tls=True, **options))
    return made


def test_etcd_and_a_client_use_them_as_printed(tmp_path: Path) -> None:
    directory = tmp_path / "my lab"
    printed = made(directory)
    given = settings(printed)
    assert set(given) == {"ca_cert", "cert_cert", "cert_key"}
    with server(printed) as endpoint:
        with client(endpoint, **given) as trusted:
            trusted["/a"] = 1
            assert trusted["/a"] == 1
        with client(endpoint, ca_cert=given["ca_cert"]) as anonymous, pytest.raises(Unavailable):
            anonymous["/a"]
        # And from a shell, by the lines as they stand.
        exports = "\n".join(line for line in printed.splitlines() if line.startswith("  export"))
        shell = f"{exports}\n{shlex.quote(sys.executable)} -m link_kv.cli --endpoints {endpoint} get /a"
        done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=60, check=False)
        assert (done.stdout, done.stderr) == ("1\n", "")


def test_peers_use_them(tmp_path: Path) -> None:
    """A member whose peers speak TLS starts, and its certificate is good for both sides."""
    printed = made(tmp_path)
    [port] = local._free_ports(1)
    peers = [
        f"--listen-peer-urls=https://127.0.0.1:{port}",
        f"--initial-advertise-peer-urls=https://127.0.0.1:{port}",
        f"--initial-cluster=one=https://127.0.0.1:{port}",
        "--name=one",
    ]
    with server(printed, *peers):
        context = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
        context.load_cert_chain(tmp_path / "peer.pem", tmp_path / "peer.key")
        with (
            socket.create_connection(("127.0.0.1", port), timeout=10) as raw,
            context.wrap_socket(raw, server_hostname="127.0.0.1") as secure,
        ):
            assert secure.version() in ("TLSv1.2", "TLSv1.3")


def test_a_client_logs_in_by_its_name(tmp_path: Path) -> None:
    printed = made(tmp_path, "--client", "root", "--client", "ann")
    with server(printed) as endpoint:
        options = ["--endpoints", endpoint, "--ca-cert", str(tmp_path / "ca.pem")]
        root = [*options, "--cert", str(tmp_path / "root.pem"), "--key", str(tmp_path / "root.key")]
        for command in (
            ["user", "add", "root", "--no-password"],
            ["user", "add", "ann", "--no-password"],
            ["auth", "enable"],
        ):
            assert call(*root, *command).returncode == 0
        assert call(*root, "set", "/a", "1").returncode == 0
        ann = settings(printed.replace("root.", "ann."))
        with client(endpoint, **ann) as denied, pytest.raises(AccessDenied, match="permission denied"):
            denied["/a"]


def test_what_they_are(tmp_path: Path) -> None:
    made(tmp_path, "--host", "etcd1.lab", "--host", "10.1.2.3", "--host", "[fe80::1]", "--days", "30")
    authority = certificate(tmp_path / "ca.pem")
    now = datetime.datetime.now(datetime.timezone.utc)
    for name in ("ca", "server", "peer", "client"):
        found = certificate(tmp_path / f"{name}.pem")
        found.verify_directly_issued_by(authority)
        assert (
            now + datetime.timedelta(days=29) < found.not_valid_after_utc < now + datetime.timedelta(days=31)
        )
        assert found.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is (name == "ca")
    for name in ("server", "peer"):
        extensions = certificate(tmp_path / f"{name}.pem").extensions
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.DNSName) == ["etcd1.lab", "localhost"]
        addresses = names.get_values_for_type(x509.IPAddress)
        assert list(map(str, addresses)) == ["10.1.2.3", "fe80::1", "127.0.0.1", "::1"]
        usages = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert set(usages) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    own = certificate(tmp_path / "client.pem")
    assert list(own.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [
        ExtendedKeyUsageOID.CLIENT_AUTH
    ]
    assert own.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "client"


def test_keys_are_for_their_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        made(tmp_path / "certs")
    finally:
        os.umask(before)
    keys = sorted((tmp_path / "certs").glob("*.key"))
    assert [key.name for key in keys] == ["ca.key", "client.key", "peer.key", "server.key"]
    assert {key.stat().st_mode & 0o777 for key in keys} == {0o600}


@pytest.mark.parametrize("there", ["ca.pem", "client.key"])
def test_nothing_is_overwritten(tmp_path: Path, there: str) -> None:
    (tmp_path / there).symlink_to("nowhere")
    result = certs(tmp_path)
    assert isinstance(result.exception, ConfigError)
    assert str(result.exception).startswith(f"{tmp_path / there}: is there already")
    assert os.listdir(tmp_path) == [there]


def test_twice_in_one_directory_is_refused(tmp_path: Path) -> None:
    made(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert isinstance(certs(tmp_path, "--client", "other").exception, ConfigError)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    "args",
    [
        ["--client", "ca"],
        ["--client", "server"],
        ["--client", "../x"],
        ["--client", ""],
        ["--client", "x" * 65],
        ["--host", ""],
        ["--host", "a..b"],
        ["--host", "two words"],
    ],
)
def test_names_that_do_not_fit(tmp_path: Path, args: list[str]) -> None:
    result = certs(tmp_path / "certs", *args)
    assert isinstance(result.exception, ConfigError), result
    assert str(result.exception).startswith(args[0])
    assert not (tmp_path / "certs").exists()


def test_a_disk_that_is_full_leaves_nothing(tmp_path: Path) -> None:
    directory = tmp_path / "certs"
    shell = f"ulimit -f 0; exec {shlex.quote(sys.executable)} -B -m link_kv.cli certs {directory}"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch("link-kv: .*File too large\n", done.stderr)
    assert list(directory.iterdir()) == []
