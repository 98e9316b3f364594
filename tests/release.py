"""Build the release and try it as a user would: ``python tests/release.py dist``.

Wheel and sdist go to the directory that is named. For each Python from 3.10 to 3.13 that is found, on PATH or
below pyenv, each of both is installed into an environment of its own. There the package is imported, the demo
runs, and so does an empty project whose one test asks for `etcd_client`. Which Pythons were there is said at
the end. It needs the packages build and twine.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parent.parent
VERSIONS = ("3.10", "3.11", "3.12", "3.13")

TEST = """
def test_counts(etcd_client):
    etcd_client['/counter'] = 1
    assert etcd_client['/counter'] == 1
"""

IMPORT = "import link_kv, importlib.metadata as m; assert link_kv.__version__ == m.version('link_kv')"

IN_WHEEL = ("link_kv/py.typed", "entry_points.txt", "licenses/LICENSE", "share/doc/link_kv/middleware.conf")
IN_SDIST = ("LICENSE", "README.md", "pyproject.toml", "setup.py", "etc/link/kv/middleware.conf")


def main() -> None:
    target = Path(sys.argv[1]).absolute()
    shutil.rmtree(target, ignore_errors=True)
    # The wheel is built from the sdist, so nothing is missing there.
    run([sys.executable, "-m", "build", "--outdir", target, ROOT])
    [wheel], [sdist] = target.glob("*.whl"), target.glob("*.tar.gz")
    run([sys.executable, "-m", "twine", "check", "--strict", wheel, sdist])
    check_content(wheel, sdist)
    found = {version: python for version in VERSIONS if (python := find(version))}
    if not found:
        raise SystemExit(f"release: no Python of {', '.join(VERSIONS)} is here")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for line in pool.map(lambda version: attempt(version, found[version], wheel, sdist), found):
            print(line, flush=True)
    missing = [version for version in VERSIONS if version not in found]
    print(f"release: tried on Python {', '.join(found)}; not here: {', '.join(missing) or 'none'}")


def find(version: str) -> str | None:
    """A Python of this version that has venv: one on PATH, or one of pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    for python in (f"python{version}", *sorted(map(str, pyenv.glob(f"versions/{version}.*/bin/python")))):
        # A shim of pyenv may be on PATH and lead nowhere.
        if (
            shutil.which(python)
            and not subprocess.run(
                [python, "-c", "import ensurepip, venv"], capture_output=True, check=False
            ).returncode
        ):
            return python
    return None


def check_content(wheel: Path, sdist: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        names = packed.namelist()
    with tarfile.open(sdist) as packed:
        names_of_sdist = packed.getnames()
    for archive, expected, content in ((wheel, IN_WHEEL, names), (sdist, IN_SDIST, names_of_sdist)):
        for name in expected:
            if not any(each.endswith(f"/{name}") or each == name for each in content):
                raise SystemExit(f"release: {archive.name} lacks {name}")
    foreign = {name.partition("/")[0] for name in names if not name.startswith(("link_kv/", "link_kv-"))}
    if foreign:
        raise SystemExit(f"release: {wheel.name} has {', '.join(sorted(foreign))} beside link_kv")


def attempt(version: str, python: str, wheel: Path, sdist: Path) -> str:
    """Install wheel and sdist, one after the other, and try what they promise; what to say of it."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="link-kv-release-") as name:
        environment, project = Path(name, "venv"), Path(name, "project")
        programs = environment / "bin"
        project.mkdir()
        (project / "test_counts.py").write_text(TEST)
        run([python, "-m", "venv", environment])
        pip: list[str | Path] = [programs / "pip", "install", "-q"]
        for install in (
            [*pip, f"{wheel}[demo]", "pytest", "pytest-xdist"],
            [*pip, "--force-reinstall", "--no-deps", sdist],
        ):
            run(install)
            run([programs / "python", "-c", IMPORT], cwd=project)
            run([programs / "link-kv", "demo"], cwd=project)
            run([programs / "pytest", "-q", "-W", "error"], cwd=project)
        run([programs / "pytest", "-q", "-n", "2"], cwd=project)
    return f"Python {version}: wheel and sdist work ({time.monotonic() - start:.0f} s)"


def run(command: Sequence[str | Path], cwd: Path | None = None) -> None:
    """Run a command to its end; what it printed is shown when it fails."""
    # Neither what surrounds this run nor a file of the user's is for the package that is tried.
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("LINK_KV_", "PYTHONPATH"))
    }
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        print(done.stdout)
        raise SystemExit(f"release: exit {done.returncode} of {' '.join(map(str, command))}")


if __name__ == "__main__":
    main()
