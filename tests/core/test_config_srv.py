"""A domain whose SRV records name the endpoints, asked of a small DNS server on the loopback."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import dns.message
import dns.rcode
import dns.resolver
import dns.rrset
import pytest

from link_kv._core.wire.config import lookup_srv
from link_kv.errors import ConfigError, DeadlineExceeded, Unavailable


@contextmanager
def name_server(answer: Callable[[dns.message.QueryMessage], dns.message.Message | None]) -> Iterator[Any]:
    """A resolver whose only name server is here, on a UDP socket of the loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))

        def serve() -> None:
            while (packet := server.recvfrom(4096))[0] != b"stop":
                query = dns.message.from_wire(packet[0])
                assert isinstance(query, dns.message.QueryMessage)
                response = answer(query)
                if response:
                    server.sendto(response.to_wire(), packet[1])

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        resolver = dns.resolver.Resolver(configure=False)
        resolver.nameservers = ["127.0.0.1"]
        resolver.port = server.getsockname()[1]
        try:
            yield resolver
        finally:
            server.sendto(b"stop", server.getsockname())
            thread.join(10)
            assert not thread.is_alive()


def answers(*records: str) -> Callable[[dns.message.QueryMessage], dns.message.Message]:
    def answer(query: dns.message.QueryMessage) -> dns.message.Message:
        response = dns.message.make_response(query)
        if records:
            name = query.question[0].name
            response.answer.append(dns.rrset.from_text(name, 60, "IN", "SRV", *records))
        return response

    return answer


def refuses(code: dns.rcode.Rcode) -> Callable[[dns.message.QueryMessage], dns.message.Message]:
    def answer(query: dns.message.QueryMessage) -> dns.message.Message:
        response = dns.message.make_response(query)
        response.set_rcode(code)
        return response

    return answer


def test_srv_records_become_endpoints_by_priority() -> None:
    asked: list[str] = []

    def answer(query: dns.message.QueryMessage) -> dns.message.Message:
        asked.append(query.question[0].to_text())
        records = ("20 0 2381 c.example.org.", "5 1 2379 a.example.org.", "10 1 2380 b.example.org.")
        return answers(*records)(query)

    expected = ("a.example.org:2379", "b.example.org:2380", "c.example.org:2381")
    with name_server(answer) as resolver:
        assert lookup_srv("example.org", False, 5, resolver) == expected
        assert lookup_srv("example.org.", True, 5, resolver) == expected
    assert asked == ["_etcd-client._tcp.example.org. IN SRV", "_etcd-client-ssl._tcp.example.org. IN SRV"]


@pytest.mark.parametrize(
    ("answer", "seconds", "error", "message"),
    [
        (refuses(dns.rcode.NXDOMAIN), 20, ConfigError, "does not exist"),
        (answers(), 20, ConfigError, "does not exist"),
        (answers("0 0 0 ."), 20, ConfigError, "says that there is no etcd in this domain"),
        (refuses(dns.rcode.SERVFAIL), 20, Unavailable, "SERVFAIL"),
        (lambda query: None, 0.3, DeadlineExceeded, "no name server answered within 0.3 s"),
    ],
)
def test_a_look_up_that_fails(answer: Any, seconds: float, error: type[Exception], message: str) -> None:
    with name_server(answer) as resolver, pytest.raises(error, match=message) as caught:
        lookup_srv("example.org", True, seconds, resolver)
    assert type(caught.value) is error
    assert "srv_domain 'example.org': SRV record _etcd-client-ssl._tcp.example.org" in str(caught.value)


def test_a_domain_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match="cannot exist: A DNS label is > 63 octets long"):
        lookup_srv("x" * 64 + ".org", False, 5, dns.resolver.Resolver(configure=False))


def test_without_dnspython_the_error_names_the_extra() -> None:
    program = """if True:
        import sys
        sys.modules["dns"] = None
        from link_kv._core.wire.config import ConfigError, lookup_srv
        try:
            lookup_srv("example.org", False, 1)
        except ConfigError as error:
            print(error)
        """
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, encoding="utf-8", timeout=60, check=True
    )
    assert done.stdout == "srv_domain needs dnspython: pip install 'link_kv[srv]'\n"
