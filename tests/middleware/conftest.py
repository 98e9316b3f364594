"""What the tests of the mapping share: the client, and what etcd holds below its prefix."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from link_kv import EtcdMiddleware
from tests.values import same

Stored = Callable[[], dict[str, str]]


@pytest.fixture
def client(etcd: Any, etcd_prefix: str) -> Iterator[EtcdMiddleware]:
    """A client with a prefix of its own, patient with a busy machine."""
    with EtcdMiddleware(endpoints=etcd.endpoints, prefix=etcd_prefix, timeout=60) as made:
        yield made


@pytest.fixture
def stored(client: EtcdMiddleware) -> Stored:
    """Tells the keys and values as etcd holds them, without the prefix and the layout's version."""

    def tell() -> dict[str, str]:
        start = len(client.prefix)
        found = {
            key.decode()[start:]: value.decode(errors="backslashreplace") for key, value in client.raw.items()
        }
        found.pop("/.link/layout", None)
        return found

    return tell


@pytest.fixture
def foreign(client: EtcdMiddleware) -> Callable[[dict[str | bytes, str]], None]:
    """Writes keys below the prefix as other tools would."""

    def write(pairs: dict[str | bytes, str]) -> None:
        for key, value in pairs.items():
            client.raw[client.prefix.encode() + (key if isinstance(key, bytes) else key.encode())] = (
                value.encode()
            )

    return write


@pytest.fixture
def meta(client: EtcdMiddleware) -> Iterator[Callable[[str], Any]]:
    """What etcd tells of a key, by another library: ``mod_revision``, ``lease_id`` and the like."""
    other = client.etcd3
    yield lambda key: other.get(client.prefix + key)[1]
    other.close()


@pytest.fixture
def states(client: EtcdMiddleware) -> Callable[[str, int], list[Any]]:
    """Tells the values that a path has had from a revision on, each once; `None` where nothing was."""

    def tell(path: str, first: int) -> list[Any]:
        found: list[Any] = []
        for revision in range(first, client.put("/end of the states", True) + 1):
            value = client.at(revision).get(path)
            if not found or not same(found[-1], value):
                found.append(value)
        return found

    return tell
