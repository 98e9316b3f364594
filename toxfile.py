"""A plugin that tox finds by its name: plain `tox` includes `docker` wherever a Docker engine answers."""

from __future__ import annotations

import http.client
import os
import socket
from urllib.parse import urlsplit

from tox.config.sets import ConfigSet
from tox.plugin import impl
from tox.session.state import State

_SECONDS = 5.0


@impl
def tox_add_core_config(core_conf: ConfigSet, state: State) -> None:
    if engine_answers():
        # tox reads its settings once and keeps what it read: this is the list itself.
        core_conf["env_list"].envs.append("docker")


def engine_answers() -> bool:
    """Whether a Docker engine is where the `docker` package will look for it."""
    address = urlsplit(os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock")
    connection = http.client.HTTPConnection("docker", timeout=_SECONDS)
    try:
        if address.scheme == "unix":
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.settimeout(_SECONDS)
            connection.sock.connect(address.path)
            connection.request("GET", "/_ping")
            return connection.getresponse().status == 200
        # Over TCP it may speak TLS: then somebody who has certificates must ask.
        with socket.create_connection((address.hostname, address.port or 2375), timeout=_SECONDS):
            return True
    except (OSError, http.client.HTTPException, ValueError):
        return False
    finally:
        connection.close()
