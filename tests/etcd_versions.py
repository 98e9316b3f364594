"""Fetch other releases of etcd from Debian, so that the suite can run against each of them.

    python tests/etcd_versions.py DIRECTORY            # bookworm (3.4.23) and forky (3.5.30)
    python tests/etcd_versions.py DIRECTORY sid        # the suites you name
    LINK_KV_ETCD=DIRECTORY/3.4.23/etcd pytest

It needs a Debian machine with apt and dpkg, and neither root nor an installation: apt works on lists of
its own, made from the machine's sources with the suite's name replaced, and the packages are unpacked,
never installed. Each line that it prints is the path of one server.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SUITES = ("bookworm", "forky")
PACKAGES = ("etcd-server", "etcd-client")


def codename() -> str:
    """The machine's own suite, as its sources name it."""
    found = re.search(r"^VERSION_CODENAME=\"?(\w+)", Path("/etc/os-release").read_text(), re.MULTILINE)
    if found is None:
        raise SystemExit("etcd_versions: /etc/os-release names no VERSION_CODENAME; is this Debian?")
    return found[1]


def sources(own: str, suite: str) -> str:
    """One-line sources for `suite`, from those of the machine that carry its own suite `own`."""
    files = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*.list"))]
    lines = []
    for file in filter(Path.is_file, files):
        lines += re.findall(rf"^deb (?:\[.*?\] )?\S+ {own} .*$", file.read_text(), re.MULTILINE)
    for file in sorted(Path("/etc/apt/sources.list.d").glob("*.sources")):
        for stanza in re.split(r"\n\s*\n", file.read_text()):
            field = dict(re.findall(r"^([A-Za-z-]+):[ \t]*(.+)$", stanza, re.MULTILINE))
            if own in field.get("Suites", "").split() and field.get("Enabled", "yes") != "no":
                key = field.get("Signed-By")
                option = f"[signed-by={key}] " if key else ""
                lines += [f"deb {option}{uri} {own} {field['Components']}" for uri in field["URIs"].split()]
    if not lines:
        raise SystemExit(f"etcd_versions: no source of this machine has the suite {own}")
    return "".join(re.sub(rf" {own} ", f" {suite} ", line) + "\n" for line in lines)


def fetch(directory: Path, suite: str) -> Path:
    """Bring `suite`'s etcd into `directory`/<version>/ and return the path of its server."""
    with tempfile.TemporaryDirectory(prefix="etcd-versions-") as name:
        work = Path(name)
        (work / "lists" / "partial").mkdir(parents=True)
        (work / "archives" / "partial").mkdir(parents=True)
        (work / "sources.list").write_text(sources(codename(), suite))
        options = [
            f"Dir::Etc::sourcelist={work / 'sources.list'}",
            "Dir::Etc::sourceparts=-",
            f"Dir::State::Lists={work / 'lists'}",
            f"Dir::Cache={work}",
            "Dir::Cache::pkgcache=",
            "Dir::Cache::srcpkgcache=",
            # The directory is private, so apt's own user could not read it.
            "APT::Sandbox::User=root",
            "APT::Update::Error-Mode=any",
        ]
        apt = ["apt-get", "-q", *(word for option in options for word in ("-o", option))]
        for command in ([*apt, "update"], [*apt, "download", *PACKAGES]):
            subprocess.run(command, cwd=work, check=True, stdout=sys.stderr)
        for package in work.glob("*.deb"):
            subprocess.run(["dpkg", "-x", package, work / "unpacked"], check=True)
        programs = work / "unpacked" / "usr" / "bin"
        answer = subprocess.run([programs / "etcd", "--version"], check=True, capture_output=True, text=True)
        version = answer.stdout.split()[2]
        target = directory / version
        target.mkdir(parents=True, exist_ok=True)
        for program in programs.iterdir():
            shutil.copy2(program, target / program.name)
    return target / "etcd"


def main() -> None:
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    for suite in sys.argv[2:] or SUITES:
        print(fetch(Path(sys.argv[1]), suite), flush=True)


if __name__ == "__main__":
    main()
