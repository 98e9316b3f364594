"""``link-kv completion``: the scripts, and bash with one of them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from link_kv import EtcdMiddleware

from .conftest import Cli

CHECK = {"bash": ["bash", "-n"], "zsh": ["zsh", "-n"], "fish": ["fish", "--no-execute"]}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script(cli: Cli, shell: str, tmp_path: Path) -> None:
    script = cli("completion", shell)
    assert f"_LINK_KV_COMPLETE={shell}_complete" in script
    if shutil.which(shell):
        (tmp_path / "script").write_text(script)
        subprocess.run([*CHECK[shell], str(tmp_path / "script")], check=True, timeout=60)


@pytest.fixture
def bash(cli: Cli, tmp_path: Path) -> object:
    """What bash offers for a line that ends where the cursor is."""
    (tmp_path / "script").write_text(cli("completion", "bash"))
    program = tmp_path / "link-kv"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m link_kv.cli "$@"\n')
    program.chmod(0o755)

    def offered(*words: str) -> list[str]:
        script = (
            f'PATH="{tmp_path}:$PATH"; source "{tmp_path}/script"; COMP_WORDS=(link-kv "$@"); '
            'COMP_CWORD=$#; COMPREPLY=(); _link_kv_completion link-kv; printf "%s\\n" "${COMPREPLY[@]}"'
        )
        done = subprocess.run(
            ["bash", "-c", script, "bash", *words],
            capture_output=True,
            encoding="utf-8",
            check=True,
            timeout=60,
        )
        assert done.stderr == ""
        return done.stdout.split()

    return offered


def test_bash_offers_commands_options_and_paths(cli: Cli, etcd_client: EtcdMiddleware, bash: object) -> None:
    assert callable(bash)
    etcd_client.update({"/lab/camera": {"exposure": 1, "filters": ["x"]}, "/lab/dome": 1, "/other": 1})
    for name in ("$(touch x)", "a b", "a;b", "a\nb", "\x1b[31m", "*"):
        etcd_client[f"/hostile/{name}"] = 1
    assert bash("rest") == ["restore"]
    assert bash("ls", "--l") == ["--long", "--limit"]
    assert bash(*cli.options, "get", "/o") == ["/other"]
    assert bash(*cli.options, "get", "/lab/") == ["/lab/camera/", "/lab/dome"]
    # One that goes on is offered with what is below it, or the shell would end the word there.
    assert bash(*cli.options, "del", "/other", "/la") == ["/lab/", "/lab/camera/", "/lab/dome"]
    # Nothing that a shell would act on.
    assert bash(*cli.options, "get", "/hostile/") == []
    assert bash("--endpoints", "127.0.0.1:1", "get", "/o") == []
