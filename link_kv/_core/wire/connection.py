"""What the blocking client and the asyncio client share: their options, and how they show themselves."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from link_kv._core.wire.calls import Caller, Wire
from link_kv._core.wire.config import Config, from_url, resolve
from link_kv._core.wire.exchange import Exchange, Fence, Namespace
from link_kv.tree import prefix_bytes

if TYPE_CHECKING:
    from link_kv._core.leasing.keeper import Keeper
    from link_kv._core.watching.watcher import Hub

C = TypeVar("C", bound="Connection")


class Connection(ABC):
    """A configured client that has not connected yet. Subclasses name their wire and add the verbs."""

    _config: Config
    _space: Namespace
    _hubs: dict[int, Hub]
    """What watches for this client, by process: a forked child has a hub of its own."""
    _keepers: dict[Any, Keeper]
    """What keeps its leases alive, by process or by event loop."""
    _stores: dict[str, Any]
    """The stores of items that were asked for through it, by name."""
    _endpoints: dict[int, Any]
    """The links to the services of served items, by process."""
    _at_close: list[Callable[[], object]]
    """What is to be done while it can still reach etcd."""

    def __init__(
        self,
        host: str | None = None,
        port: int | None = None,
        *,
        endpoints: str | Iterable[str] | None = None,
        prefix: str = "",
        user: str | None = None,
        password: str | None = None,
        ca_cert: str | os.PathLike[str] | None = None,
        cert_cert: str | os.PathLike[str] | None = None,
        cert_key: str | os.PathLike[str] | None = None,
        timeout: float | None = None,
        tls: bool | None = None,
        insecure_password: bool | None = None,
        expected_cluster_id: int | str | None = None,
        srv_domain: str | None = None,
    ) -> None:
        self._configure(
            resolve(
                host,
                port,
                endpoints=endpoints if endpoints is None or isinstance(endpoints, str) else list(endpoints),
                prefix=prefix or None,
                user=user,
                password=password,
                ca_cert=ca_cert,
                cert_cert=cert_cert,
                cert_key=cert_key,
                timeout=timeout,
                tls=tls,
                insecure_password=insecure_password,
                expected_cluster_id=expected_cluster_id,
                srv_domain=srv_domain,
            )
        )

    @classmethod
    def from_url(cls, url: str, **options: Any) -> Any:
        """A client from ``etcd://user:password@h1:2379,h2:2379/prefix?timeout=3``; ``etcds://`` is TLS.

        ``options`` are keywords of the constructor; they win over what the URL says. Raises `ConfigError`,
        which never shows the password.
        """
        return cls._of(from_url(url, **options))

    @classmethod
    def _of(cls, config: Config) -> Any:
        """A client with these options, whatever the environment and the files say."""
        client = cls.__new__(cls)
        client._configure(config)
        return client

    def _configure(self, config: Config) -> None:
        prefix = prefix_bytes(config.prefix)
        self._config = config
        self._space = Namespace(Caller(config, self._wire(config)), prefix)
        self._hubs = {}
        self._keepers = {}
        self._stores = {}
        self._endpoints = {}
        self._at_close = []

    @staticmethod
    @abstractmethod
    def _wire(config: Config) -> Wire:
        """The wire that the client's calls go over."""

    def _exchange(self) -> Exchange:
        return Exchange(self._space)

    def _fenced(self: C, fence: Fence) -> C:
        """A twin on the same connection whose writes compare ``fence`` too."""
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        twin._space = self._space.fenced(fence)
        twin._stores = {}  # a store writes through the client that it was opened with
        return twin

    @property
    def prefix(self) -> str:
        """The namespace, ``''`` or ``/a/b``."""
        return self._space.prefix.decode()

    def __repr__(self) -> str:
        config = self._config
        where = config.srv_domain or ",".join(config.endpoints)
        scheme = "etcds" if config.tls else "etcd"
        user = f"{config.user}@" if config.user else ""
        return f"<{type(self).__name__} {scheme}://{user}{where}{self.prefix}>"

    def __reduce__(self) -> Any:
        raise TypeError(
            f"an {type(self).__name__} is a connection and cannot be pickled: "
            "pass its options, and make one there"
        )
