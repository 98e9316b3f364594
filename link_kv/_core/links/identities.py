"""Who is there, as people and programs are told."""

from __future__ import annotations

from typing import Any

from link_kv._core.links.registry import ClientRecord, ServiceRecord
from link_kv._core.wire.config import Config


def address_of(config: Config) -> tuple[str, int]:
    """Where etcd is, as one host and port; of servers that DNS names, their domain and 0."""
    host, _, port = (config.endpoints or (f"{config.srv_domain}:0",))[0].rpartition(":")
    return host, int(port)


def describe(
    host: str, port: int, services: dict[str, ServiceRecord], clients: dict[str, ClientRecord]
) -> dict[str, Any]:
    """All of them, as JSON types. The tokens of services are left out."""
    return {
        "hostname": host,
        "port": port,
        "attributes": {},
        "language": "etcd",
        "os": "",
        "clients": {
            f"{each.name}[{each.host}:{number}]": {
                "name": each.name,
                "address": f"{each.host}:{number}",
                "language": each.language,
                "os": each.os,
            }
            for number, each in clients.items()
        },
        "services": {name: _service(each) for name, each in services.items()},
    }


def _service(record: ServiceRecord) -> dict[str, Any]:
    return {
        "attributes": record.attributes,
        "address": record.address,
        "language": record.language,
        "os": record.os,
        "max_clients": record.max_clients,
    }


def as_text(found: dict[str, Any], indent: int) -> str:
    """The same for people, indented by so many blanks."""
    space = " " * indent
    lines = [f"etcd[{found['hostname']}:{found['port']}]", f"Clients [{len(found['clients'])}]:"]
    for name, client in sorted(found["clients"].items()):
        lines += [
            space + name,
            f"{2 * space}language: {client['language']}",
            f"{2 * space}os: {client['os']}",
        ]
    lines.append(f"Services [{len(found['services'])}]:")
    for name, service in sorted(found["services"].items()):
        lines += [f"{space}{name}[{service['address']}]", f"{2 * space}attributes:"]
        for attribute, signature in sorted(service["attributes"].items()):
            shown = signature if signature.startswith("(") else f"() -> {signature}"
            lines.append(f"{3 * space}{attribute}{shown}")
        lines += [f"{2 * space}{key}: {service[key]}" for key in ("language", "max_clients", "os")]
    return "\n".join(lines)
