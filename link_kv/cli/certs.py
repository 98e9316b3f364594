"""``link-kv certs``: an authority and certificates for a lab."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import os
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from link_kv.errors import ConfigError

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

_LOCAL = ("localhost", "127.0.0.1", "::1")
"""What each server is called by programs on its own machine."""


@click.command("certs")
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
@click.option("--host", "hosts", multiple=True, metavar="NAME|ADDRESS", help="Where clients reach a server.")
@click.option(
    "--client", "clients", multiple=True, metavar="NAME", help="A client; client when none is named."
)
@click.option("--days", type=click.IntRange(1, 36_500), default=3650, show_default=True)
def command(directory: Path, hosts: Sequence[str], clients: Sequence[str], days: int) -> None:
    """Make an authority for a lab in DIRECTORY, and certificates for its servers, their peers and clients.

    The names of all servers go into one certificate: repeat --host. localhost is in it without asking. A
    client's NAME is whom it logs in as where no user is given. Nothing is overwritten.
    """
    clients = tuple(dict.fromkeys(clients)) or ("client",)
    for name in clients:
        if name in ("ca", "server", "peer") or name.startswith(".") or not name.isprintable() or "/" in name:
            raise ConfigError(f"--client {name!r}: is no name for a file of a client's certificate")
    files = _make(tuple(dict.fromkeys((*hosts, *_LOCAL))), clients, days)
    _write(directory, files)
    _explain(directory, clients)


def _make(hosts: Sequence[str], clients: Sequence[str], days: int) -> dict[str, bytes]:
    """The contents of all files, by name."""
    try:
        from cryptography import x509
        from cryptography.x509.oid import ExtendedKeyUsageOID as Usage
    except ModuleNotFoundError as error:
        if error.name != "cryptography":
            raise
        raise ConfigError("certificates are made by cryptography: pip install 'link_kv[tls]'") from None

    names = x509.SubjectAlternativeName(list(map(_alternative, hosts)))
    authority = _Authority(days)
    files = {"ca.pem": authority.certificate, "ca.key": authority.key}
    # A server is a client too: of its peers, and of itself.
    both = [Usage.SERVER_AUTH, Usage.CLIENT_AUTH]
    for name in ("server", "peer"):
        files[f"{name}.pem"], files[f"{name}.key"] = authority.issue(name, both, names)
    for name in clients:
        files[f"{name}.pem"], files[f"{name}.key"] = authority.issue(name, [Usage.CLIENT_AUTH])
    return files


def _alternative(host: str) -> x509.GeneralName:
    from cryptography import x509

    with contextlib.suppress(ValueError):
        return x509.IPAddress(ipaddress.ip_address(host.strip("[]")))
    with contextlib.suppress(UnicodeError):
        if re.fullmatch(r"(\*\.)?[\w.-]+", host):
            return x509.DNSName(host.encode("idna").decode())
    raise ConfigError(f"--host {host!r}: is no host name and no address")


class _Authority:
    """An authority, and what it signs."""

    def __init__(self, days: int) -> None:
        from cryptography import x509

        self._begin = datetime.datetime.now(datetime.timezone.utc)
        self._end = self._begin + datetime.timedelta(days=days)
        self._key = _new_key()
        # The number tells authorities apart that a machine trusts beside each other.
        self._name = _name(f"link_kv lab authority {x509.random_serial_number() >> 128:08x}")
        certificate = (
            self._builder(self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_may(signing=True), critical=True)
        )
        self.certificate = self._sign(certificate)
        self.key = _pem(self._key)

    def issue(
        self,
        name: str,
        usages: Iterable[x509.ObjectIdentifier],
        names: x509.SubjectAlternativeName | None = None,
    ) -> tuple[bytes, bytes]:
        """A certificate and its key."""
        from cryptography import x509

        key = _new_key()
        certificate = (
            self._builder(_name(name), key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_may(signing=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        )
        if names is not None:
            certificate = certificate.add_extension(names, critical=False)
        return self._sign(certificate), _pem(key)

    def _builder(self, subject: x509.Name, key: EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        from cryptography import x509

        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            # Clocks of a lab differ.
            .not_valid_before(self._begin - datetime.timedelta(hours=1))
            .not_valid_after(self._end)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(authority, critical=False)
        )

    def _sign(self, certificate: x509.CertificateBuilder) -> bytes:
        from cryptography.hazmat.primitives import hashes, serialization

        return certificate.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _name(text: str) -> x509.Name:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    try:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
    except ValueError as error:
        raise ConfigError(f"--client {text!r}: {error}") from None


def _may(*, signing: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signing,
        crl_sign=signing,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _new_key() -> EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())


def _pem(key: EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write(directory: Path, files: dict[str, bytes]) -> None:
    """Write all files, or none. Keys are for their owner alone from the first byte on."""
    directory.mkdir(parents=True, exist_ok=True)
    for name in files:
        if os.path.lexists(directory / name):
            raise ConfigError(
                f"{directory / name}: is there already; name another directory, or move it away"
            )
    written: list[Path] = []
    try:
        for name, content in files.items():
            path = directory / name
            mode = 0o600 if name.endswith(".key") else 0o644
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            written.append(path)
            with open(descriptor, "wb") as file:
                file.write(content)
    except BaseException:
        for path in written:
            path.unlink()
        raise


def _explain(directory: Path, clients: Sequence[str]) -> None:
    def path(name: str) -> str:
        return shlex.quote(str(directory / name))

    certificates = ", ".join(f"{name}.pem" for name in ("ca", "server", "peer", *clients))
    click.echo(
        f"Made in {directory}: {certificates}, and their keys. Keep the keys secret, ca.key above all."
    )
    click.echo("\netcd on each server takes:")
    for option, name in (
        ("cert-file", "server.pem"),
        ("key-file", "server.key"),
        ("trusted-ca-file", "ca.pem"),
        ("peer-cert-file", "peer.pem"),
        ("peer-key-file", "peer.key"),
        ("peer-trusted-ca-file", "ca.pem"),
    ):
        click.echo(f"  --{option}={path(name)}")
    click.echo("  --client-cert-auth --peer-client-cert-auth")
    click.echo("and link_kv on each client:")
    click.echo(f"  export LINK_KV_CA_CERT={path('ca.pem')}")
    click.echo(f"  export LINK_KV_CERT_CERT={path(f'{clients[0]}.pem')}")
    click.echo(f"  export LINK_KV_CERT_KEY={path(f'{clients[0]}.key')}")
