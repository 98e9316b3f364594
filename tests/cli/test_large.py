"""`ls` and `tree` on many keys: what they ask of etcd is bounded, and so is what they write."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from link_kv import EtcdMiddleware
from link_kv._core.operations import walk
from link_kv._core.operations.raw_copy import Raw, copy_in_parts
from link_kv._core.wire.calls import Metadata, Method, run
from link_kv._core.wire.transport import BlockingWire

from .command import on_terminal
from .conftest import Cli


class Asked:
    """The calls that were made, and the keys that came back."""

    def __init__(self) -> None:
        self.calls = self.keys = 0


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    counted, send = Asked(), BlockingWire.send

    async def counting(
        wire: BlockingWire, endpoint: str, method: Method, request: bytes, timeout: float, metadata: Metadata
    ) -> object:
        answer = await send(wire, endpoint, method, request, timeout, metadata)
        counted.calls += 1
        if method.name == "Range":
            counted.keys += len(answer.kvs)
        elif method.name == "Txn":
            counted.keys += sum(len(each.response_range.kvs) for each in answer.responses)
        return answer

    monkeypatch.setattr(BlockingWire, "send", counting)
    return counted


@pytest.fixture
def patient(cli: Cli) -> Iterator[EtcdMiddleware]:
    """A client that can wait, on a machine that may be busy."""
    with EtcdMiddleware(endpoints=cli.etcd.endpoints, prefix=cli.prefix, timeout=60) as client:
        yield client


@pytest.mark.parametrize(
    "total", [pytest.param(10_000, id="10,000"), pytest.param(100_000, id="100,000", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("share", [1, 10, 10_000], ids=["flat", "deep", "wide"])
def test_many_keys(
    cli: Cli, patient: EtcdMiddleware, asked: Asked, monkeypatch: pytest.MonkeyPatch, total: int, share: int
) -> None:
    trees = min(share, total // 10)
    size = total // trees
    monkeypatch.setattr(walk, "PAGE", total // 10)
    names = (f"/t{tree:05}/k{number:06}".encode() for tree in range(trees) for number in range(size))
    raws = (Raw(name, b"value") for name in names)
    run(copy_in_parts(patient._exchange(), raws, replace=False, report=lambda written: None))

    def lines(*args: str) -> list[str]:
        asked.calls = asked.keys = 0
        return cli("--timeout", "60", *args).splitlines()

    # A page of keys, without their values, holds many trees, or ends in one of which the rest is passed over.
    pages = min(trees, 10)
    beside = 3  # the layout's version, and what is at the path itself

    assert len(lines("ls")) == trees
    assert asked.calls <= pages + beside
    assert asked.keys <= pages * walk.PAGE + beside

    assert len(lines("ls", "/t00000", "--limit", "5")) == 5
    assert asked.calls <= 1 + beside
    assert asked.keys <= walk.PAGE + beside

    assert {line.split("\t")[1] for line in lines("ls", "--long")} == {str(size)}
    assert asked.calls <= pages + beside + trees / 50

    assert len(lines("tree", "--depth", "1")) == trees
    assert asked.calls <= pages + beside
    assert asked.keys <= pages * walk.PAGE + beside

    # The keys in pages, and the values in batches.
    assert len(lines("tree")) == total
    assert asked.calls <= 100
    assert asked.keys <= 2 * total + beside

    status, text = on_terminal(*cli.options, "tree")
    assert status == 0
    assert text.count("\n") == 1001
    assert "--limit" in text
    status, text = on_terminal(*cli.options, "ls")
    assert status == 0
    assert text.count("\n") == min(trees + 1, 1002)
