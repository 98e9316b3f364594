"""What all tests share."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings

# HYPOTHESIS_PROFILE=long runs each property on 100,000 examples. No deadline: a busy machine is no failure.
# CI takes the same examples each time, so that a change that passes there passes again.
settings.register_profile("default", deadline=None, derandomize="CI" in os.environ)
settings.register_profile("long", deadline=None, max_examples=100_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--docker",
        action="store_true",
        help="run the tests of the shared etcd, on one in a container; LINK_KV_ETCD_IMAGE names its image",
    )


def pytest_configure(config: pytest.Config) -> None:
    # In the background, or below nohup, programs are born deaf to these: tests start programs and stop them.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if config.getoption("docker"):
        from .docker.engine import WORKERS_ENDPOINT, DockerEtcd, use

        if hasattr(config, "workerinput"):  # a worker of xdist
            use(config.workerinput[WORKERS_ENDPOINT])
        else:
            config.pluginmanager.register(DockerEtcd(config))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With ``--docker`` what uses the shared etcd, or asks for an engine; without, what does not."""
    docker = config.getoption("docker")
    kept, left_out = [], []
    for item in items:
        of_docker = item.get_closest_marker("docker") is not None
        shared = "etcd" in getattr(item, "fixturenames", ())
        (kept if (of_docker or shared if docker else not of_docker) else left_out).append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept


@pytest.fixture(scope="session", autouse=True)
def writes_wait_for_what_they_change() -> Iterator[None]:
    """A write returns when the mirrors and items of its client show it, however busy the machine is."""
    from link_kv import remote
    from link_kv._core.watching import settle

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settle, "PATIENCE", 20.0)
        patch.setattr(remote, "_PATIENCE", 20.0)
        yield


@pytest.fixture
def environment_of_programs(etcd: Any, etcd_prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What programs read from their environment: the test's etcd and prefix, and nothing else of ours."""
    for name in list(os.environ):
        if name.startswith("LINK_KV_") and not name.startswith(("LINK_KV_TEST", "LINK_KV_ETCD")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("LINK_KV_ENDPOINTS", ",".join(etcd.endpoints))
    monkeypatch.setenv("LINK_KV_PREFIX", etcd_prefix)
