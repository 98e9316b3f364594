"""Certificates that nobody vouches for: shown, remembered at first sight, and compared ever after."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import ssl
import sys
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from link_kv._core.files import replace
from link_kv._core.items.home import home
from link_kv.errors import AccessDenied, ConfigError, Unavailable


class Shown(NamedTuple):
    """What a server shows of itself."""

    pem: str
    names: tuple[str, ...]
    """The hosts that the certificate is for."""
    vouched: bool
    """Whether an authority of the system's vouches for it."""

    @property
    def fingerprint(self) -> str:
        digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(self.pem)).hexdigest().upper()
        return ":".join(digest[start : start + 2] for start in range(0, 64, 2))


def look(address: str, timeout: float, pair: tuple[str, str] | None, assert_hostname: bool) -> Shown:
    """The certificate that a server shows. Nothing is sent to it but a handshake.

    ``pair`` are the files of our own certificate and its key, for a server that wants one. Raises
    `Unavailable`, `AccessDenied` for a certificate that is not valid, and `ConfigError` for our own.
    """
    blind = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    blind.check_hostname = False
    blind.verify_mode = ssl.CERT_NONE
    der = _handshake(blind, address, timeout, pair)[0]
    pem = ssl.DER_cert_to_PEM_cert(der)
    pinned = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    pinned.check_hostname = False
    pinned.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        pinned.load_verify_locations(cadata=pem)
        names = _handshake(pinned, address, timeout, pair)[1]
    except ssl.SSLCertVerificationError as error:
        raise AccessDenied(
            f"{address}: shows a certificate that is not valid: {error.verify_message}"
        ) from None
    except ssl.SSLError as error:
        raise AccessDenied(f"{address}: shows a certificate that cannot be read: {error}") from None
    usual = ssl.create_default_context()
    usual.check_hostname = assert_hostname
    try:
        _handshake(usual, address, timeout, pair)
        vouched = True
    except ssl.SSLCertVerificationError:
        vouched = False
    return Shown(pem, names, vouched)


def _handshake(
    context: ssl.SSLContext, address: str, timeout: float, pair: tuple[str, str] | None
) -> tuple[bytes, tuple[str, ...]]:
    if pair is not None:
        try:
            context.load_cert_chain(*pair)
        except OSError as error:
            raise ConfigError(f"cert_cert, cert_key: {' and '.join(pair)} cannot be used: {error}") from None
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    context.set_alpn_protocols(["h2"])
    try:
        # Not by `wrap_socket`: that leaves the socket open when the other side resets it right away.
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        wrapped = context.wrap_bio(incoming, outgoing, server_hostname=host)
        with socket.create_connection((host, int(port)), timeout) as plain:
            while True:
                try:
                    wrapped.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    plain.sendall(outgoing.read())
                    incoming.write(_some(plain))
            plain.sendall(outgoing.read())
        der = wrapped.getpeercert(True)
        found = wrapped.getpeercert() or {}
    except ssl.SSLCertVerificationError:
        raise
    except (OSError, ValueError) as error:  # ValueError: of what is no address
        raise Unavailable(f"{address}: shows no certificate, it may not speak TLS: {error}") from None
    assert der is not None
    return der, tuple(str(each[1]) for each in found.get("subjectAltName", ()))


def _some(plain: socket.socket) -> bytes:
    data = plain.recv(65536)
    if not data:
        raise OSError("the connection was closed")
    return data


def remembered(name: str) -> Path:
    """Where the certificate of a server is kept that was trusted at first sight. Raises `OSError`."""
    directory = Path(home()) / "certificates"
    directory.mkdir(mode=0o700, exist_ok=True)
    return directory / f"{quote(name, safe='')}.pem"


def trust(name: str, what: str, shown: Shown, auto_save: bool) -> Path:
    """The file with a server's certificate, once it is trusted.

    With ``auto_save`` the first one is trusted; else a person on the terminal is asked. Raises `AccessDenied`
    for one that is not the one of before, and where nobody can be asked, and `ConfigError` where nothing can
    be kept.
    """
    try:
        return _trust(name, what, shown, auto_save)
    except AccessDenied:
        raise
    except OSError as error:
        raise ConfigError(f"{what}: its certificate cannot be remembered: {error}") from None


def _trust(name: str, what: str, shown: Shown, auto_save: bool) -> Path:
    file = remembered(name)
    with contextlib.suppress(FileNotFoundError):
        known = file.read_text(encoding="ascii", errors="replace")
        if known == shown.pem:
            return file
        raise AccessDenied(
            f"{what}: shows another certificate than before, {shown.fingerprint}. If it was replaced on "
            f"purpose, delete {file}; else somebody stands between"
        )
    if not auto_save and not _asked(
        f"{what} shows a certificate that nobody vouches for.\n"
        f"It is for {', '.join(shown.names) or 'no host'}, its SHA-256 is {shown.fingerprint}.\n"
        "Trust it from now on? [y/N] "
    ):
        raise AccessDenied(
            f"{what}: shows a certificate that nobody vouches for: name its authority with cert_file=, "
            "or trust it at first sight with auto_save=True"
        )
    replace(file, shown.pem)
    return file


def terminal() -> bool:
    """Whether there is somebody to ask."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


def _asked(question: str) -> bool:
    if not terminal():
        return False
    sys.stderr.write(question)
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def ask_for_login(username: str | None) -> tuple[str, str] | None:
    """A login from the terminal; None where there is none."""
    if not terminal():
        return None
    import getpass

    if not username:
        sys.stderr.write("etcd asks who you are. User name: ")
        sys.stderr.flush()
        username = sys.stdin.readline().strip()
    return username, getpass.getpass(f"Password of {username}: ", stream=sys.stderr)


def as_pair(certificate: str | None, key: str | None) -> tuple[str, str] | None:
    return (certificate, key or certificate) if certificate else None
