"""``pytest --docker`` itself, in runs of its own."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ..processes import until
from .engine import build, connect, libraries

pytest_plugins = ("pytester",)

ROOT = Path(__file__).parent.parent.parent
CONFTEST = f"""
    import sys
    sys.path.append({str(ROOT)!r})
    pytest_plugins = ('tests.conftest',)
"""

needs_engine = pytest.mark.docker


def containers(output: str) -> str:
    """The containers that are left of a run."""
    found = re.search(r"etcd containers: (link-kv-tests-\w+)-", output)
    assert found, output
    return subprocess.run(
        ["docker", "container", "ls", "--all", "--quiet", "--filter", f"name={found[1]}"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout


@needs_engine
def test_each_worker_has_a_container_whose_image_is_built(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINK_KV_ETCD_IMAGE", "127.0.0.1:1/no-registry/etcd:v1")
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile("""
        import pathlib, pytest

        @pytest.mark.parametrize('n', range(8))
        def test_writes(etcd, etcd_client, worker_id, n):
            etcd_client['/a'] = n
            assert dict(etcd_client.items()) == {'/a': n}
            pathlib.Path(f'{worker_id}-{n}').write_text(etcd.endpoints[0])

        def test_without_etcd():
            raise AssertionError('not to be run')
    """)
    result = pytester.runpytest_subprocess("--docker", "-n", "2")
    result.assert_outcomes(passed=8)
    result.stdout.fnmatch_lines(
        [
            "etcd image: link-kv-etcd:*, built from */etcd, because "
            "127.0.0.1:1/no-registry/etcd:v1 cannot be pulled*"
        ]
    )
    seen = {(path.name.partition("-")[0], path.read_text()) for path in pytester.path.glob("gw*")}
    assert len(seen) == len({endpoint for _, endpoint in seen}) == 2
    assert not containers(result.stdout.str())


@needs_engine
def test_a_failure_leaves_no_container(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile("""
        def test_fails(etcd_client):
            etcd_client['/a'] = 1
            raise RuntimeError('a test that fails')
    """)
    result = pytester.runpytest_subprocess("--docker")
    result.assert_outcomes(failed=1)
    assert not containers(result.stdout.str())


@needs_engine
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_stopped_leaves_no_container(pytester: pytest.Pytester, how: signal.Signals) -> None:
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile("""
        import pathlib, signal

        def test_waits(etcd_client):
            etcd_client['/a'] = 1
            pathlib.Path('waiting').touch()
            signal.pause()
    """)
    command = [sys.executable, "-m", "pytest", "--docker"]
    with subprocess.Popen(command, cwd=pytester.path, stdout=subprocess.PIPE, text=True) as process:
        try:
            until((pytester.path / "waiting").exists, 120)
            process.send_signal(how)
            output, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == pytest.ExitCode.INTERRUPTED
    assert not containers(output)


def test_without_an_engine_it_fails_with_one_line(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("docker")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{pytester.path}/nothing.sock")
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile("def test_one(etcd_client): pass")
    result = pytester.runpytest_subprocess("--docker")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert not result.outlines
    [line] = filter(None, result.errlines)
    assert line.startswith(
        f"ERROR: --docker needs a Docker engine, and none answers at unix://{pytester.path}/nothing.sock"
    )


@needs_engine
def test_a_program_takes_its_libraries_along() -> None:
    program = Path(shutil.which("ls") or "").resolve()
    assert any("libc" in library.name for library in libraries(program))
    docker = connect()
    image = build(docker, program, "link-kv-tests-ls")
    try:
        told = docker.containers.run(image.id, ["/usr/local/bin/etcd", "-d", "/usr/local/bin"], remove=True)
        assert told == b"/usr/local/bin\n"
    finally:
        docker.images.remove(image.id, force=True)
