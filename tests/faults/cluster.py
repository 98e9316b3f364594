"""Three members of one cluster, in containers or as local processes, and what can be done to them."""

from __future__ import annotations

import contextlib
import ipaddress
import secrets
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from http.client import HTTPException
from typing import Any

import pytest

from link_kv import local
from tests.docker import engine
from tests.processes import ask, until

SAFE = (3, 5, 5)
"""Before it, a member that is killed loses what it has acknowledged, and one ends by itself when a read in a
transaction is broken off. Then only what is gentle is done to it."""

_WHOLE_SECONDS = 60.0
_ALONE_SECONDS = 15.0
"""Within so many it has noticed that it lost the others: an election begins after one or two."""
_AT_ONCE = 0.3


class Member(ABC):
    """One member, that can be killed, frozen, stopped and started."""

    def __init__(self, name: str, endpoint: str) -> None:
        self.name = name
        self.endpoint = endpoint
        self.ended = False
        """Whether it was ended by us."""

    def __repr__(self) -> str:
        return self.name

    @property
    @abstractmethod
    def running(self) -> bool: ...

    @abstractmethod
    def kill(self) -> None:
        """SIGKILL."""

    @abstractmethod
    def stop(self) -> None:
        """SIGTERM, and wait for its end; the data stay."""

    @abstractmethod
    def start(self) -> None:
        """Start it again. Does not wait until it serves: that may take a majority."""

    @abstractmethod
    def pause(self) -> None:
        """SIGSTOP."""

    @abstractmethod
    def resume(self) -> None:
        """SIGCONT."""

    @abstractmethod
    def log(self) -> str:
        """The end of what it logged."""

    def disconnect(self, *, everything: bool) -> None:
        raise NotImplementedError(f"{self} cannot be taken off its network")

    def connect(self) -> None:
        raise NotImplementedError(f"{self} cannot be taken off its network")

    def ask(self, path: str, body: object, timeout: float = 5) -> Any:
        """What its HTTP gateway answers. Raises `OSError`, `HTTPException` or `ValueError`."""
        return ask(self.endpoint, path, body, timeout=timeout)

    def does(self, path: str, body: object, timeout: float) -> bool:
        """Ask it for something; whether it did it."""
        with contextlib.suppress(OSError, HTTPException, ValueError):
            return "error" not in self.ask(path, body, timeout)
        return False

    def silent(self) -> bool:
        """Whether nothing answers where it is, not even what needs no other member."""
        with contextlib.suppress(OSError, HTTPException, ValueError):
            self.ask("/v3/maintenance/status", {}, _AT_ONCE)
            return False
        return True

    def alone(self) -> bool:
        """Whether it answers, and knows no leader."""
        status = self.status()
        return "header" in status and status.get("leader", "0") == "0"

    def healthy(self) -> bool:
        """Whether it answers a read that needs a majority."""
        with contextlib.suppress(OSError, HTTPException, ValueError):
            return "header" in self.ask("/v3/kv/range", {"key": "YQ=="}, 2)
        return False

    def status(self) -> Any:
        with contextlib.suppress(OSError, HTTPException, ValueError):
            return self.ask("/v3/maintenance/status", {}, 2)
        return {}


class Cluster(ABC):
    """Three members. A context manager that ends them."""

    kind: str
    version: tuple[int, ...]
    image = ""
    """The image of its containers, as a report names it."""

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = list(members)
        self.endpoints = [member.endpoint for member in members]
        self.crashes: list[str] = []
        """What members that ended by themselves logged last."""
        self.faults: Counter[str] = Counter()
        """How often each kind of fault was done, those that were tried in vain with 0."""
        self.tries: Counter[str] = Counter()
        self._off: list[Member] = []
        self._isolates = False

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __str__(self) -> str:
        version = ".".join(map(str, self.version))
        return f"etcd {version} in {len(self.members)} {self.kind}" + (self.image and f" of {self.image}")

    @abstractmethod
    def close(self) -> None: ...

    @property
    def partitions(self) -> bool:
        """Whether the members' network can be cut."""
        return False

    def cut(self, members: Sequence[Member], *, everything: bool = False) -> None:
        """Take members off the network on which they reach each other, or off that of clients as well."""
        for member in members:
            self._off.append(member)
            member.disconnect(everything=everything)
        if not everything and not self._isolates:
            # Else each cut would be counted, and nobody be cut off.
            try:
                until(lambda: all(member.alone() for member in members), _ALONE_SECONDS)
            except AssertionError:
                raise AssertionError(
                    f"the networks of this engine do not isolate: {members} still know a leader, "
                    f"{_ALONE_SECONDS:.0f} s after they were taken off that of the members"
                ) from None
            self._isolates = True

    def mend(self) -> None:
        """Everyone is on the network again."""
        while self._off:
            self._off.pop().connect()

    @property
    def safe(self) -> bool:
        """Whether its members survive SIGKILL without a loss."""
        return self.version >= SAFE

    def leader(self, seconds: float = 20) -> Member:
        """The member that leads."""
        found: list[Member] = []

        def told() -> bool:
            for member in self.members:
                status = member.status()
                if status.get("leader", "0") == status.get("header", {}).get("member_id"):
                    found[:] = [member]
                    return True
            return False

        until(told, seconds)
        return found[0]

    def follower(self) -> Member:
        leader = self.leader()
        return next(member for member in self.members if member is not leader)

    def whole(self) -> None:
        """Undo what was done to it, and wait until every member serves."""
        self.mend()
        for member in self.members:
            if member.running:
                member.resume()
                continue
            if not member.ended:
                lines = member.log().splitlines() or ["nothing"]
                why = next((line for line in lines if line.startswith("panic: ")), lines[-1])
                self.crashes.append(f"{member} ended by itself: {why}")
            member.start()
        try:
            until(lambda: all(member.healthy() for member in self.members), _WHOLE_SECONDS)
        except AssertionError:
            logs = "\n".join(
                f"{member}: {member.log()[-2000:]}" for member in self.members if not member.healthy()
            )
            raise AssertionError(f"the cluster did not become whole again\n{logs}") from None

    def revision(self) -> int:
        """The revision of now, at least."""
        return max(int(member.status().get("header", {}).get("revision", 0)) for member in self.members)


# Local processes


class _Process(Member):
    def __init__(self, etcd: local.LocalEtcd, name: str) -> None:
        super().__init__(name, etcd.endpoints[0])
        self._etcd = etcd

    @property
    def running(self) -> bool:
        return self._etcd.running

    def kill(self) -> None:
        self.ended = self.running
        self._etcd.kill()

    def stop(self) -> None:
        self.ended = self.running
        self._etcd._started().end()

    def start(self) -> None:
        self.ended = False
        self._etcd.restart(wait=False)

    def pause(self) -> None:
        self._etcd.pause()

    def resume(self) -> None:
        self._etcd.resume()

    def log(self) -> str:
        return "\n".join(self._etcd.log)


class Processes(Cluster):
    """Local processes. Their network is loopback, which cannot be cut between two of them."""

    kind = "processes"

    def __init__(self, number: int = 3) -> None:
        self._cluster = local.start_cluster(number)
        members = self._cluster.members
        self.version = tuple(map(int, members[0].version.split(".")))
        super().__init__([_Process(etcd, f"member-{n}") for n, etcd in enumerate(members, 1)])

    def close(self) -> None:
        for member in self.members:
            if member.running:
                member.resume()
        self._cluster.stop()


# Containers


class _Container(Member):
    def __init__(self, container: Any, name: str, port: int, networks: dict[str, tuple[Any, str]]) -> None:
        super().__init__(name, f"127.0.0.1:{port}")
        self._container = container
        self._networks = networks

    @property
    def running(self) -> bool:
        self._container.reload()
        return bool(self._container.status == "running")

    def kill(self) -> None:
        self.ended = self.running
        self._signal("SIGKILL")
        self._container.wait()

    def stop(self) -> None:
        self.ended = self.running
        self._container.stop(timeout=10)

    def start(self) -> None:
        self.ended = False
        self._container.start()

    def pause(self) -> None:
        self._signal("SIGSTOP")

    def resume(self) -> None:
        self._signal("SIGCONT")

    def _signal(self, signal: str) -> None:
        from docker.errors import APIError

        try:
            self._container.kill(signal=signal)
        except APIError:
            if self.running:
                raise

    def log(self) -> str:
        return str(self._container.logs(tail=200).decode(errors="replace"))

    def disconnect(self, *, everything: bool) -> None:
        for name, (network, _) in self._networks.items():
            if everything or name == "peers":
                network.disconnect(self._container)

    def connect(self) -> None:
        self._container.reload()
        attached = self._container.attrs["NetworkSettings"]["Networks"]
        for network, address in self._networks.values():
            if network.name not in attached:
                network.connect(self._container, ipv4_address=address)


class Containers(Cluster):
    """Containers on two networks of their own: one for the members alone, one on which clients reach them."""

    kind = "containers"

    def __init__(self) -> None:
        docker = engine.connect()
        image, self.image = engine.image(docker)
        self._name = f"link-kv-faults-{secrets.token_hex(4)}"
        self._stack = ExitStack()
        try:
            networks = {what: self._network(docker, what) for what in ("clients", "peers")}
            ports = local._free_ports(3)
            members = [
                self._member(docker, image, number, port, networks) for number, port in enumerate(ports)
            ]
            super().__init__(members)
            for member in members:
                member.start()
            until(lambda: all(member.healthy() for member in members), _WHOLE_SECONDS)
            self.version = tuple(map(int, members[0].status()["version"].split(".")))
        except BaseException:
            self.close()
            raise

    def _network(self, docker: Any, what: str) -> tuple[Any, list[str]]:
        """A network and the addresses of the members on it.

        Each member has always the same one: who comes back with another's has a cluster to sort out that no
        cable could have mixed up. Docker finds a free subnet, but lets choose only in one that it was told.
        """
        from docker.types import IPAMConfig, IPAMPool

        probe = docker.networks.create(f"{self._name}-probe", driver="bridge")
        probe.reload()
        subnet = probe.attrs["IPAM"]["Config"][0]["Subnet"]
        probe.remove()
        ipam = IPAMConfig(pool_configs=[IPAMPool(subnet=subnet)])
        network = docker.networks.create(f"{self._name}-{what}", driver="bridge", ipam=ipam)
        self._stack.callback(network.remove)
        first = ipaddress.ip_network(subnet).network_address
        return network, [str(first + 2 + number) for number in range(3)]

    def _member(
        self, docker: Any, image: Any, number: int, port: int, networks: dict[str, tuple[Any, list[str]]]
    ) -> _Container:
        name = f"member-{number + 1}"
        peers = {f"member-{n}": f"http://{address}:2380" for n, address in enumerate(networks["peers"][1], 1)}
        container = docker.containers.create(
            image.id,
            name=f"{self._name}-{name}",
            ports={"2379/tcp": ("127.0.0.1", port)},
            network=networks["clients"][0].name,
            # Not in the container's layers, where each write may go through a program that joins them.
            volumes=["/link_kv/data"],
            environment={
                "ETCD_NAME": name,
                "ETCD_DATA_DIR": "/link_kv/data",
                "ETCD_LISTEN_CLIENT_URLS": "http://0.0.0.0:2379",
                "ETCD_ADVERTISE_CLIENT_URLS": f"http://127.0.0.1:{port}",
                "ETCD_LISTEN_PEER_URLS": "http://0.0.0.0:2380",
                "ETCD_INITIAL_ADVERTISE_PEER_URLS": peers[name],
                "ETCD_INITIAL_CLUSTER": ",".join(f"{name}={url}" for name, url in peers.items()),
                "ETCD_INITIAL_CLUSTER_TOKEN": self._name,
                # Only a crash of the machine could show the difference.
                "ETCD_UNSAFE_NO_FSYNC": "true",
                # Of 100,000 large writes, which etcd 3.5 keeps in its log, a member would read for a minute.
                "ETCD_SNAPSHOT_COUNT": "2000",
            },
        )
        self._stack.callback(container.remove, force=True, v=True)
        own = {what: (network, addresses[number]) for what, (network, addresses) in networks.items()}
        member = _Container(container, name, port, own)
        own["clients"][0].disconnect(container)
        member.connect()
        return member

    @property
    def partitions(self) -> bool:
        return True

    def close(self) -> None:
        self._stack.close()


def start(where: str = "") -> Cluster:
    """A cluster in containers where an engine answers, else of processes; or as ``where`` says."""
    if not where:
        try:
            engine.connect()
        except pytest.UsageError as error:
            print(f"in processes, so nobody is cut off: {error}", flush=True)
            where = "processes"
    return Processes() if where == "processes" else Containers()
