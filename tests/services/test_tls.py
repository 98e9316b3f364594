"""Certificates of services and of etcd: whom a client trusts, and what it refuses to say in the open."""

from __future__ import annotations

import datetime
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from link_kv import AccessDenied, ConfigError, Unavailable, local
from link_kv._core.links.config import LinkConfig, dialing
from link_kv._core.links.registry import ServiceRecord
from link_kv._core.links.trust import look
from link_kv.links import connect

from ..processes import until
from ..wire import certificates
from ..wire.certificates import Authority
from .echo import Echo


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from link_kv._core.items import home

    monkeypatch.setattr(home, "_home", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def secure(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An etcd that speaks TLS, and its certificate and key, which a service may use too."""
    certificate, key = authority.issue("server")
    with local.start(args=[f"--cert-file={certificate}", f"--key-file={key}"]) as server:
        monkeypatch.delenv("LINK_KV_ENDPOINTS")
        yield server.endpoints[0], str(certificate), str(key)


def test_a_service_with_a_certificate(secure: Any, authority: Authority, serve: Any) -> None:
    endpoint, certificate, key = secure
    options = {"endpoints": endpoint, "cert_file": str(authority.path)}
    serve(Echo(), **options, cert_cert=certificate, cert_key=key)
    with connect(**options) as client:
        link = client.link("Echo")
        assert link._tether.record.tls == "server"
        assert link.echo(1) == [[1], {}]


def test_certificates_on_both_sides(
    secure: Any, authority: Authority, serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint, certificate, key = secure
    for name, value in {"CA_CERT": authority.path, "CERT_CERT": certificate, "CERT_KEY": key}.items():
        monkeypatch.setenv(f"LINK_KV_{name}", str(value))
    echo = serve(Echo(), endpoints=endpoint)
    with connect(endpoints=endpoint) as client:
        link = client.link("Echo")
        assert link._tether.record.tls == "mutual"
        assert link.echo(1) == [[1], {}]
    monkeypatch.delenv("LINK_KV_CERT_CERT")
    monkeypatch.delenv("LINK_KV_CERT_KEY")
    with (
        connect(endpoints=endpoint) as client,
        pytest.raises(Unavailable, match="wants a certificate of its clients"),
    ):
        client.link("Echo")
    assert not echo._serving._following.state.links


def test_a_service_of_another_authority_is_refused(
    secure: Any, authority: Authority, serve: Any, tmp_path: Path
) -> None:
    endpoint, _, _ = secure
    options = {"endpoints": endpoint, "cert_file": str(authority.path)}
    (tmp_path / "other").mkdir()
    certificate, key = Authority(tmp_path / "other", "other CA").issue("server")
    serve(Echo(), **options, cert_cert=str(certificate), cert_key=str(key))
    with connect(**options) as client, pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
        client.link("Echo")


def test_auto_save_trusts_on_first_use_and_refuses_a_change(
    secure: Any, authority: Authority, serve: Any, home: Path, tmp_path: Path
) -> None:
    endpoint, certificate, key = secure
    with pytest.raises(AccessDenied, match=r"nobody vouches for.*cert_file=.*auto_save=True"):
        connect(host=f"etcds://{endpoint}")
    options = {"endpoints": endpoint, "auto_save": True}
    echo = serve(Echo(), **options, cert_cert=certificate, cert_key=key)
    with connect(**options) as client:
        assert client.link("Echo").echo(1) == [[1], {}]
    kept = sorted(file.name for file in (home / "certificates").iterdir())
    assert len(kept) == 2
    with connect(host=f"etcds://{endpoint}") as client:  # trusted by now
        assert client.link("Echo").echo(1) == [[1], {}]
        echo.stop()
        (tmp_path / "other").mkdir()
        other, other_key = Authority(tmp_path / "other", "other CA").issue("server")
        serve(echo, **options, cert_cert=str(other), cert_key=str(other_key))
        with pytest.raises(AccessDenied, match="service Echo: shows another certificate than before"):
            client.link("Echo")


@pytest.fixture
def expired(secure: Any, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """A certificate that is not valid any more, and its key."""
    monkeypatch.setattr(certificates, "_builder", _expired)
    certificate, key = authority.issue("expired")
    return str(certificate), str(key)


def _expired(*names: Any) -> Any:
    then = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=2)
    builder = _BUILDER(*names)
    builder._not_valid_before, builder._not_valid_after = then, then + datetime.timedelta(days=1)
    return builder


_BUILDER = certificates._builder


def test_a_certificate_that_has_expired_is_refused(secure: Any, serve: Any, expired: tuple[str, str]) -> None:
    endpoint, _, _ = secure
    options = {"endpoints": endpoint, "auto_save": True}
    serve(Echo(), **options, cert_cert=expired[0], cert_key=expired[1])
    with connect(**options) as client, pytest.raises(AccessDenied, match="has expired"):
        client.link("Echo")


def test_a_link_returns_after_its_service_had_a_bad_certificate(
    secure: Any, serve: Any, expired: tuple[str, str], home: Path
) -> None:
    endpoint, certificate, key = secure
    options = {"endpoints": endpoint, "auto_save": True}
    echo = serve(Echo(), **options, cert_cert=certificate, cert_key=key)
    with connect(**options) as client:
        link = client.link("Echo")
        assert link.echo(1) == [[1], {}]
        echo.stop()
        serve(echo, **options, cert_cert=expired[0], cert_key=expired[1])
        until(lambda: isinstance(link._tether._refusal, AccessDenied))
        with pytest.raises(AccessDenied, match="has expired"):
            link.echo()
        echo.stop()
        serve(echo, **options, cert_cert=certificate, cert_key=key)
        assert link.echo(2, timeout=30) == [[2], {}]


def test_files_that_cannot_be_used_are_named(secure: Any, home: Path, tmp_path: Path) -> None:
    endpoint, _, _ = secure
    with pytest.raises(ConfigError, match=r"cert_cert, cert_key: .*none\.pem"):
        look(endpoint, 10, (str(tmp_path / "none.pem"), str(tmp_path / "none.key")), True)
    (home / "certificates").parent.mkdir(exist_ok=True)
    (home / "certificates").write_text("no directory")
    with pytest.raises(ConfigError, match=r"certificates"):
        connect(endpoints=endpoint, auto_save=True)
    (home / "certificates").unlink()
    connect(endpoints=endpoint, auto_save=True).disconnect()
    (file,) = (home / "certificates").iterdir()
    file.write_bytes(b"\xff")
    with pytest.raises(AccessDenied, match=rf"another.*delete {file}"):
        connect(endpoints=endpoint, auto_save=True)


def test_an_address_that_is_none_shows_no_certificate() -> None:
    for address in ("localhost", "a..b:1", "localhost:x"):
        with pytest.raises(Unavailable, match="shows no certificate"):
            look(address, 10, None, True)


def test_etcd_with_another_certificate_than_before_is_refused(secure: Any, home: Path) -> None:
    endpoint, _, _ = secure
    connect(endpoints=endpoint, auto_save=True).disconnect()
    (file,) = (home / "certificates").iterdir()
    file.write_text(file.read_text().replace("M", "N"))
    with pytest.raises(AccessDenied, match=rf"etcd at {endpoint}: shows another.*delete {file}"):
        connect(endpoints=endpoint, auto_save=True)


def test_a_certificate_for_another_host(
    authority: Authority, serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = authority.issue("elsewhere", hosts=("elsewhere.example",))
    with local.start(args=[f"--cert-file={certificate}", f"--key-file={key}"]) as server:
        monkeypatch.delenv("LINK_KV_ENDPOINTS")
        options: dict[str, Any] = {"endpoints": server.endpoints, "cert_file": str(authority.path)}

        def refused() -> str:
            with pytest.raises(Unavailable) as caught:
                connect(**options, timeout=2)
            return str(caught.value)

        until(lambda: "not for this host name" in refused())  # else there was no answer within the 2 s
        options["assert_hostname"] = False
        serve(Echo(), **options, cert_cert=str(certificate), cert_key=str(key))
        with connect(**options) as client:
            assert client.link("Echo").echo(1) == [[1], {}]


# In the open


@pytest.mark.parametrize("how", [{"host": "192.0.2.1"}, {"endpoints": ["127.0.0.1:1", "192.0.2.1:2379"]}])
def test_etcd_elsewhere_needs_tls(monkeypatch: pytest.MonkeyPatch, how: Any) -> None:
    monkeypatch.delenv("LINK_KV_ENDPOINTS")
    with pytest.raises(ConnectionError, match=r"192\.0\.2\.1:2379.*cert_file=.*disable_tls=True"):
        connect(**how)
    with pytest.raises(ConnectionError, match=r"192\.0\.2\.1:2379.*cert_file=.*disable_tls=True"):
        Echo().start(**how)


def test_a_service_listens_on_loopback_unless_told_otherwise(serve: Any) -> None:
    echo = serve(Echo())
    assert echo.address.startswith("127.0.0.1:")
    for listen in ("0.0.0.0", "0.0.0.0:0", "[::]:0", "::"):
        with pytest.raises(ConnectionError, match=r"cert_cert, cert_key.*disable_tls=True"):
            Echo("other").start(listen=listen)
    with pytest.raises(ConfigError, match=r"listen='127\.0\.0\.1:x': 'x' is no port"):
        Echo("other").start(listen="127.0.0.1:x")


def test_a_service_for_others_in_a_trusted_network(serve: Any, clients: Any) -> None:
    echo = serve(Echo(), listen="0.0.0.0", advertise=None, disable_tls=True)
    port = echo.address.rpartition(":")[2]
    echo.stop()
    serve(echo, listen=f"0.0.0.0:{port}", advertise=f"127.0.0.1:{port}", disable_tls=True)
    assert clients().link("Echo").echo() == [[], {}]


def test_a_service_in_the_open_is_not_called() -> None:
    from link_kv._core.wire.config import Config

    record = ServiceRecord("192.0.2.1:1", "token", {}, 0)
    with pytest.raises(ConnectionError, match=r"service S: at 192\.0\.2\.1:1 .*disable_tls=True"):
        dialing(LinkConfig(Config()), "S", record)
    assert dialing(LinkConfig(Config(), disable_tls=True), "S", record) is None


# Asking a person


def test_a_person_is_asked_whether_to_trust(secure: Any, tmp_path: Path) -> None:
    endpoint, _, _ = secure
    code = f"""
from link_kv import connect
with connect(host='etcds://{endpoint}') as client:
    print('connected', client.is_connected())
"""
    shown = _at_a_terminal(code, b"y\n", tmp_path)
    assert "shows a certificate that nobody vouches for" in shown
    assert "connected True" in shown
    assert "[y/N]" not in _at_a_terminal(code, b"", tmp_path)


def test_a_login_is_asked_for(tmp_path: Path) -> None:
    from link_kv import EtcdMiddleware

    with local.start() as server:
        with EtcdMiddleware(endpoints=server.endpoints) as client:
            _enable_logins(client)
        endpoint = server.endpoints[0]
        with pytest.raises(AccessDenied, match="username= and password="):
            connect(endpoints=endpoint)
        with pytest.raises(AccessDenied, match="password="):
            connect(endpoints=endpoint, username="root")
        code = f"""
from link_kv import connect
with connect(endpoints='{endpoint}') as client:
    print('connected', client.admin_request('users_table.usernames'))
"""
        shown = _at_a_terminal(code, b"root\nsecret\n", tmp_path)
        assert "connected ['root']" in shown
        assert "secret" not in shown
        with connect(endpoints=endpoint, username="root", password="secret") as client:
            assert client.admin_request("users_table.is_user_registered", "N.Bohr") is False
            with pytest.raises(AccessDenied, match="is not what can be asked"):
                client.admin_request("users_table.drop")


def _enable_logins(client: Any) -> None:
    etcd3 = client.etcd3
    from link_kv._core.cluster import auth
    from link_kv._core.wire.calls import run

    etcd3.close()
    ex = client._exchange()
    run(auth.add_user(ex, "root", "secret"))
    run(auth.give_role(ex, "root", "root"))
    run(auth.enable(ex))


def _at_a_terminal(code: str, typed: bytes, home: Path) -> str:
    """What a program writes on a terminal, when this is typed there."""
    ours, theirs = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name != "LINK_KV_ENDPOINTS"}
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**environment, "LINK_KV_HOME": str(home / "person")},
        start_new_session=True,
    )
    os.close(theirs)
    shown = b""
    try:
        for line in typed.splitlines(keepends=True):
            asked = b""
            while not asked.endswith((b"[y/N] ", b"name: ", b"root: ")):
                asked += os.read(ours, 1000)
            os.write(ours, line)
            shown += asked
        while True:
            try:
                more = os.read(ours, 1000)
            except OSError:  # what Linux says at the end
                break
            if not more:
                break
            shown += more
        assert process.wait(60) == 0, shown.decode()
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    return shown.decode()
