"""``pytest --docker``: the tests of the shared etcd, on one in a container.

One container serves the run, or one each worker of xdist, as it is with local servers: some tests look at
what a whole cluster has. Its image is the one that LINK_KV_ETCD_IMAGE names, by default `IMAGE`. Where that
cannot be pulled, an image is built from the local etcd that `link_kv.local` would start. The head of the
report names the image.
"""

from __future__ import annotations

import io
import os
import re
import secrets
import signal
import subprocess
import sys
import tarfile
import time
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest

from link_kv import local
from link_kv.errors import LocalEtcdError

from ..processes import ask

IMAGE = "quay.io/coreos/etcd:v3.5.30"
WORKERS_ENDPOINT = "link_kv_etcd"
"""The key of ``workerinput`` under which a worker of xdist is told its endpoint."""
_CLIENTS = "2379/tcp"
_READY_SECONDS = 60.0

# All that the server needs to know: so the image may start it in its own way.
_ENVIRONMENT = {
    "ETCD_NAME": "docker",
    "ETCD_DATA_DIR": "/link_kv/data",
    "ETCD_LISTEN_CLIENT_URLS": "http://0.0.0.0:2379",
    "ETCD_ADVERTISE_CLIENT_URLS": "http://127.0.0.1:2379",
    "ETCD_UNSAFE_NO_FSYNC": "true",
}


class DockerEtcd:
    """A plugin for the process that runs pytest: it starts the containers, and removes them."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._docker = connect()
        self._image, self._named = image(self._docker)
        self._run = f"link-kv-tests-{secrets.token_hex(4)}"
        os.environ["LINK_KV_ETCD_IMAGE"] = self._image.id  # for the tests of the compose file
        # As Ctrl-C: what pytest stops in an orderly way removes its containers.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        if config.getoption("dist", "no") == "no":
            use(self._start())

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """A worker of xdist is about to start."""
        node.workerinput[WORKERS_ENDPOINT] = self._start()

    def pytest_report_header(self) -> list[str]:
        return [f"etcd image: {self._named}", f"etcd containers: {self._run}-..., removed at the end"]

    def _start(self) -> str:
        """Start a container; its endpoint once it serves."""
        container = self._docker.containers.create(
            self._image.id,
            name=f"{self._run}-{secrets.token_hex(4)}",
            environment=_ENVIRONMENT,
            ports={_CLIENTS: ("127.0.0.1", None)},
            tmpfs={"/link_kv": ""},
        )
        self._config.add_cleanup(lambda: container.remove(force=True, v=True))
        container.start()
        container.reload()
        # Without ports it has ended already.
        published = container.ports.get(_CLIENTS) or [{"HostPort": "0"}]
        endpoint = f"127.0.0.1:{published[0]['HostPort']}"
        _wait_ready(container, endpoint)
        return endpoint


def use(endpoint: str) -> None:
    """Have the tests of this process, and what they start, use an etcd."""
    os.environ["LINK_KV_TEST_ENDPOINTS"] = endpoint


def connect() -> Any:
    import docker

    try:
        client = docker.from_env()
        client.ping()
    except docker.errors.DockerException as error:
        where = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
        raise pytest.UsageError(
            f"--docker needs a Docker engine, and none answers at {where} ({_in_one_line(error)}):"
            " start it, or say in DOCKER_HOST where it is"
        ) from error
    return client


def image(docker: Any) -> tuple[Any, str]:
    """The image of containers, of the named etcd or else built; and how the report names it."""
    name = os.environ.get("LINK_KV_ETCD_IMAGE") or IMAGE
    from docker.errors import DockerException, ImageNotFound
    from requests.exceptions import RequestException

    try:
        return docker.images.get(name), name
    except ImageNotFound:
        pass
    try:
        # A name without a tag would pull all of them.
        return docker.images.pull(name, tag=None if _has_tag(name) else "latest"), name
    except (DockerException, RequestException) as error:
        why = f"{name} cannot be pulled ({_in_one_line(error)})"
    if sys.platform != "linux":
        raise pytest.UsageError(f"--docker: {why}, and from a local etcd an image can be built on Linux only")
    try:
        with local.start() as server:
            # The program itself: what is found on PATH may be a script that becomes it.
            binary = Path(os.readlink(f"/proc/{server.pid}/exe"))
    except LocalEtcdError as error:
        raise pytest.UsageError(
            f"--docker: {why}, and there is no local etcd to build one from: {error}"
        ) from error
    tag = f"link-kv-etcd:{server.version}"
    return build(docker, binary, tag), f"{tag}, built from {binary}, because {why}"


def _has_tag(name: str) -> bool:
    return ":" in name.rpartition("/")[2] or "@" in name


def _in_one_line(error: Exception) -> str:
    return " ".join(str(getattr(error, "explanation", None) or error).split())


def build(docker: Any, binary: Path, tag: str) -> Any:
    """Build an image of a program of this machine and the libraries that it needs, and nothing else."""
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as archive:

        def add(name: str, content: bytes, mode: int) -> None:
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), mode
            archive.addfile(info, io.BytesIO(content))

        program = "/usr/local/bin/etcd"
        dockerfile = f'FROM scratch\nCOPY root/ /\nEXPOSE 2379 2380\nCMD ["{program}"]\n'
        add("Dockerfile", dockerfile.encode(), 0o644)
        add(f"root{program}", binary.read_bytes(), 0o755)
        for library in libraries(binary):
            add(f"root{library}", library.read_bytes(), 0o755)
    context.seek(0)
    image, _ = docker.images.build(fileobj=context, custom_context=True, tag=tag, rm=True, forcerm=True)
    return image


def libraries(binary: Path) -> list[Path]:
    """The shared libraries and the loader of a program, where it looks for them; none when it is static."""
    told = subprocess.run(["ldd", binary], capture_output=True, text=True, check=False)
    return [Path(name) for name in re.findall(r"(/\S+) \(0x", told.stdout)]


def _wait_ready(container: Any, endpoint: str) -> None:
    """Wait until the server has a leader."""
    end = time.monotonic() + _READY_SECONDS
    while True:
        try:
            if ask(endpoint, "/health")["health"] == "true":
                return
        except (OSError, HTTPException, ValueError):
            pass  # not yet
        container.reload()
        if container.status != "running" or time.monotonic() > end:
            log = container.logs(tail=20).decode(errors="replace")
            raise pytest.UsageError(
                f"--docker: the container of {container.image} is {container.status}, and no etcd answers at"
                f" {endpoint}; its log ends with\n{log}"
            )
        time.sleep(0.05)
