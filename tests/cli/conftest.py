"""``link-kv`` inside the tests' own process, on a prefix of its own."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from click.testing import CliRunner, Result

from link_kv.cli._run import link_kv
from link_kv.local import LocalEtcd


@dataclass(frozen=True)
class Cli:
    etcd: LocalEtcd
    prefix: str

    @property
    def options(self) -> list[str]:
        return ["--endpoints", ",".join(self.etcd.endpoints), "--prefix", self.prefix]

    def run(self, *args: str, stdin: bytes = b"") -> Result:
        """Run a command as in a pipe."""
        return CliRunner().invoke(link_kv, [*self.options, *args], input=stdin, standalone_mode=False)

    def raw(self, *args: str, stdin: bytes = b"") -> bytes:
        """What a command writes."""
        result = self.run(*args, stdin=stdin)
        if result.exception:
            raise result.exception
        return result.stdout_bytes

    def __call__(self, *args: str, stdin: bytes = b"") -> str:
        return self.raw(*args, stdin=stdin).decode()

    def fails(self, kind: type[BaseException], *args: str) -> str:
        """The message that a command fails with."""
        result = self.run(*args)
        assert isinstance(result.exception, kind), result
        assert result.stdout_bytes == b""
        if hasattr(result.exception, "format_message"):
            return str(result.exception.format_message())
        return str(result.exception)


@pytest.fixture
def cli(etcd: LocalEtcd, etcd_prefix: str) -> Cli:
    return Cli(etcd, etcd_prefix)
