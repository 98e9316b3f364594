"""TLS, with an authority made for the test."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from link_kv import EtcdMiddleware, local
from link_kv._core.wire.calls import WireFailure, run
from link_kv.errors import ConfigError
from tests.wire.certificates import Authority
from tests.wire.conftest import Connect, within
from tests.wire.conftest import refused as is_refused
from tests.wire.proxy import Proxy
from tests.wire.streams import watch


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def secure(authority: Authority) -> Iterator[local.LocalEtcd]:
    certificate, key = authority.issue("server")
    with local.start(args=[f"--cert-file={certificate}", f"--key-file={key}"]) as etcd:
        yield etcd


@pytest.fixture(scope="module")
def mutual(authority: Authority) -> Iterator[local.LocalEtcd]:
    """A server that wants a client's certificate."""
    certificate, key = authority.issue("mutual")
    options = [f"--cert-file={certificate}", f"--key-file={key}"]
    options += ["--client-cert-auth", f"--trusted-ca-file={authority.path}"]
    with local.start(args=options) as etcd:
        yield etcd


def secured(authority: Authority, **options: Any) -> dict[str, Any]:
    return {"tls": True, "ca_cert": str(authority.path), **options}


def refused(client: EtcdMiddleware, match: str) -> None:
    """A write finds no connection, in the time that it has, and is not in doubt."""
    is_refused(lambda: client.put("/a", 1), match)


def test_tls(secure: local.LocalEtcd, authority: Authority, connect: Connect) -> None:
    client = connect(*secure.endpoints, **secured(authority))
    client["/a"] = 1
    assert client["/a"] == 1


def test_the_options_of_a_program(secure: local.LocalEtcd, authority: Authority) -> None:
    with EtcdMiddleware(endpoints=secure.endpoints, ca_cert=authority.path, prefix="/keywords") as client:
        client["/a"] = 1
    url = f"etcds://{secure.endpoints[0]}/keywords?ca_cert={authority.path}"
    with EtcdMiddleware.from_url(url) as client:
        assert client["/a"] == 1


def test_a_name_instead_of_an_address(
    secure: local.LocalEtcd, authority: Authority, connect: Connect
) -> None:
    port = secure.endpoints[0].rpartition(":")[2]
    client = connect(f"localhost:{port}", **secured(authority))
    client["/a"] = 1


def test_mutual_tls(mutual: local.LocalEtcd, authority: Authority, connect: Connect) -> None:
    certificate, key = authority.issue("client")
    files = {"cert_cert": str(certificate), "cert_key": str(key)}
    connect(*mutual.endpoints, **secured(authority, **files))["/a"] = 1


def test_certificate_and_key_in_one_file(
    mutual: local.LocalEtcd, authority: Authority, connect: Connect, tmp_path: Path
) -> None:
    certificate, key = authority.issue("both")
    both = tmp_path / "both.pem"
    both.write_bytes(certificate.read_bytes() + key.read_bytes())
    for files in ({"cert_cert": str(both)}, {"cert_cert": str(both), "cert_key": str(both)}):
        connect(*mutual.endpoints, **secured(authority, **files))["/a"] = 1


def test_an_authority_that_is_not_the_servers(
    secure: local.LocalEtcd, connect: Connect, tmp_path: Path
) -> None:
    other = Authority(tmp_path, "other CA")
    client = connect(*secure.endpoints, timeout=1, **secured(other))
    refused(client, "ca_cert does not vouch for the server's certificate")


def test_no_authority_at_all(secure: local.LocalEtcd, connect: Connect) -> None:
    """gRPC's own list of authorities does not have the test's."""
    refused(connect(*secure.endpoints, timeout=1, tls=True), "ca_cert does not vouch")


def test_another_hosts_certificate(authority: Authority, connect: Connect) -> None:
    certificate, key = authority.issue("elsewhere", hosts=("etcd.example.org",))
    with local.start(args=[f"--cert-file={certificate}", f"--key-file={key}"]) as etcd:
        client = connect(*etcd.endpoints, timeout=1, **secured(authority))
        refused(client, "the server's certificate is not for this host name")


def test_no_certificate_where_one_is_wanted(
    mutual: local.LocalEtcd, authority: Authority, connect: Connect
) -> None:
    client = connect(*mutual.endpoints, timeout=1, **secured(authority))
    refused(client, r"the server wants a client certificate.*cert_cert, cert_key")


def test_a_certificate_that_the_server_does_not_trust(
    mutual: local.LocalEtcd, authority: Authority, connect: Connect, tmp_path: Path
) -> None:
    certificate, key = Authority(tmp_path, "other CA").issue("stranger")
    files = {"cert_cert": str(certificate), "cert_key": str(key)}
    client = connect(*mutual.endpoints, timeout=1, **secured(authority, **files))
    refused(client, "the server wants a client certificate that it trusts")


def test_plaintext_to_a_server_that_speaks_tls(secure: local.LocalEtcd, connect: Connect) -> None:
    refused(connect(*secure.endpoints, timeout=1), "perhaps one side speaks TLS")


def test_tls_to_a_server_that_speaks_none(etcd: Any, authority: Authority, connect: Connect) -> None:
    refused(connect(*etcd.endpoints, timeout=1, **secured(authority)), "perhaps one side speaks TLS")


# Files that hold no certificates


@pytest.mark.parametrize(
    ("option", "content", "words"),
    [
        ("ca_cert", None, r"ca_cert: cannot read .*ca_cert\.pem: No such file or directory"),
        ("ca_cert", b"", "holds no PEM certificate"),
        ("ca_cert", b"garbage", "holds no PEM certificate"),
        ("ca_cert", b"\xff\xfe\x00", "holds no PEM certificate"),
        ("ca_cert", b"-----BEGIN CERTIFICATE-----\nQUJD\n-----END CERTIFICATE-----\n", "holds no PEM"),
        ("cert_cert", None, r"cert_cert: cannot read .*cert_cert\.pem: No such file"),
        ("cert_cert", b"garbage", "are no PEM certificate and its key"),
        ("cert_key", None, r"cert_key: cannot read .*cert_key\.pem: No such file"),
        ("cert_key", b"", "are no PEM certificate and its key"),
        ("cert_key", b"garbage", "are no PEM certificate and its key"),
    ],
)
def test_files_that_are_no_certificates(
    secure: local.LocalEtcd,
    authority: Authority,
    connect: Connect,
    tmp_path: Path,
    option: str,
    content: bytes | None,
    words: str,
) -> None:
    certificate, key = authority.issue("fine")
    options = secured(authority, cert_cert=str(certificate), cert_key=str(key))
    file = tmp_path / f"{option}.pem"
    if content is not None:
        file.write_bytes(content)
    client = connect(*secure.endpoints, **{**options, option: str(file)})
    with within(1), pytest.raises(ConfigError, match=words) as caught:
        client["/a"] = 1
    assert option in str(caught.value)
    assert str(file) in str(caught.value)


def test_a_key_of_another_certificate(
    secure: local.LocalEtcd, authority: Authority, connect: Connect
) -> None:
    certificate, _ = authority.issue("one")
    _, key = authority.issue("two")
    client = connect(*secure.endpoints, **secured(authority, cert_cert=str(certificate), cert_key=str(key)))
    with pytest.raises(ConfigError, match="cert_cert, cert_key"):
        client["/a"] = 1


# Certificates that change on disk


class Files:
    """The files of a client, replaced while it runs."""

    def __init__(self, directory: Path, authority: Authority) -> None:
        self.ca, self.cert, self.key = (directory / name for name in ("ca.pem", "client.pem", "client.key"))
        shutil.copy(authority.path, self.ca)
        self.issue(authority)

    def issue(self, authority: Authority) -> None:
        certificate, key = authority.issue("renewed")
        shutil.copy(certificate, self.cert)
        shutil.copy(key, self.key)

    @property
    def options(self) -> dict[str, Any]:
        return {"tls": True, "ca_cert": str(self.ca), "cert_cert": str(self.cert), "cert_key": str(self.key)}


@pytest.fixture
def files(tmp_path: Path, authority: Authority) -> Files:
    return Files(tmp_path, authority)


def test_a_renewed_certificate_is_used_by_the_next_call(
    mutual: local.LocalEtcd,
    authority: Authority,
    connect: Connect,
    files: Files,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with Proxy(mutual.endpoints[0]) as proxy:
        client = connect(proxy.endpoint, **files.options)
        client["/a"] = 1
        client["/a"] = 2
        assert proxy.accepted == 1
        files.issue(authority)
        with caplog.at_level(logging.INFO, "link_kv.wire"):
            client["/a"] = 3
        assert proxy.accepted == 2
    assert "the certificates changed: connecting with the new ones" in caplog.messages


def test_a_stream_outlives_a_renewal_and_ends_with_its_client(
    mutual: local.LocalEtcd, authority: Authority, connect: Connect, files: Files
) -> None:
    client = connect(*mutual.endpoints, **files.options)
    stream = watch(client)
    files.issue(authority)
    client["/a"] = 1
    assert run(stream.receive()).events
    threading.Timer(0.1, client.close).start()
    with within(2), pytest.raises(WireFailure):
        run(stream.receive())


def test_files_that_do_not_fit_while_they_are_written(
    mutual: local.LocalEtcd,
    authority: Authority,
    connect: Connect,
    files: Files,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The connection that there is goes on until they do."""
    client = connect(*mutual.endpoints, **files.options)
    client["/a"] = 1
    certificate, key = authority.issue("next")
    shutil.copy(certificate, files.cert)  # the key is still the old one
    client["/a"] = 2
    assert any("going on with the old" in line for line in caplog.messages)
    files.key.unlink()
    client["/a"] = 3
    files.ca.write_text("")
    client["/a"] = 4
    shutil.copy(authority.path, files.ca)
    shutil.copy(key, files.key)
    client["/a"] = 5
    assert client["/a"] == 5


def test_another_authority_takes_over(tmp_path: Path, connect: Connect) -> None:
    """Server and client move on to a new authority, the server first; the client needs no restart."""
    old, new = Authority(tmp_path, "old CA"), Authority(tmp_path, "new CA")
    server_files = [tmp_path / name for name in ("the-server.pem", "the-server.key")]
    ca = tmp_path / "ca.pem"
    shutil.copy(old.path, ca)

    def issue(authority: Authority) -> None:
        for source, target in zip(authority.issue("server"), server_files, strict=True):
            shutil.copy(source, target)

    issue(old)
    with local.start(args=[f"--cert-file={server_files[0]}", f"--key-file={server_files[1]}"]) as etcd:
        client = connect(*etcd.endpoints, tls=True, ca_cert=str(ca), timeout=1)
        client["/a"] = 1
        issue(new)
        etcd.restart()
        refused(client, "ca_cert does not vouch")
        shutil.copy(new.path, ca)
        client["/a"] = 2
