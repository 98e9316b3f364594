"""The names, kinds and defaults of msl-network 1.0.0, but for its port, and what is ours besides."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from link_kv import aio, links
from link_kv.links import Client, Link, LinkedClient, connect, filter_client_connect_kwargs

CONNECT = (
    "(*, name='Client', host='localhost', port=2379, timeout=10, username=None, password=None, "
    "password_manager=None, read_limit=None, disable_tls=False, cert_file=None, assert_hostname=True, "
    "auto_save=False, endpoints=None)"
)

METHODS = {
    Client: {
        "__init__": "(self, name)",
        "admin_request": "(self, attrib, *args, **kwargs)",
        "disconnect": "(self, timeout=None)",
        "identities": "(self, *, as_string=False, indent=2, timeout=None)",
        "identity": "(self)",
        "is_connected": "(self)",
        "link": "(self, service, *, timeout=None)",
        "spawn": "(self, name='Client')",
        "unlink": "(self, link, *, timeout=None)",
    },
    Link: {
        "__init__": "(self, client, service, identity)",
        "acquire_lock": "(self, shared=False, timeout=None)",
        "disconnect": "(self, timeout=None)",
        "notification_handler": "(self, *args, **kwargs)",
        "release_lock": "(self, timeout=None)",
        "shutdown_service": "(self, *args, **kwargs)",
        "unlink": "(self, timeout=None)",
    },
    LinkedClient: {
        "__init__": "(self, service_name, **kwargs)",
        "acquire_lock": "(self, shared=False, timeout=None)",
        "admin_request": "(self, attrib, *args, **kwargs)",
        "disconnect": "(self, timeout=None)",
        "identities": "(self, *, as_string=False, indent=2, timeout=None)",
        "identity": "(self)",
        "is_connected": "(self)",
        "notification_handler": "(self, *args, **kwargs)",
        "release_lock": "(self, timeout=None)",
        "service_error_handler": "(self)",
        "shutdown_service": "(self, *args, **kwargs)",
        "spawn": "(self, name='LinkedClient')",
        "unlink": "(self, timeout=None)",
    },
}

PROPERTIES = {
    Client: ["name", "port", "address_manager"],
    Link: [
        "service_address",
        "service_attributes",
        "service_language",
        "service_max_clients",
        "service_name",
        "service_os",
    ],
    LinkedClient: [
        "address_manager",
        "client",
        "link",
        "name",
        "port",
        "service_address",
        "service_attributes",
        "service_language",
        "service_max_clients",
        "service_name",
        "service_os",
    ],
}


def signature(function: Any) -> str:
    """Names, kinds and defaults."""
    found = inspect.signature(function)
    bare = [each.replace(annotation=inspect.Parameter.empty) for each in found.parameters.values()]
    return str(found.replace(parameters=bare, return_annotation=inspect.Signature.empty))


def test_connect() -> None:
    assert signature(connect) == CONNECT
    assert signature(filter_client_connect_kwargs) == "(**kwargs)"
    assert links.SHUTDOWN_MANAGER == "shutdown_manager"


@pytest.mark.parametrize(
    ("owner", "name"), [(owner, name) for owner, names in METHODS.items() for name in names]
)
def test_a_method(owner: type, name: str) -> None:
    assert signature(getattr(owner, name)) == METHODS[owner][name]


@pytest.mark.parametrize(
    ("owner", "name"), [(owner, name) for owner, names in PROPERTIES.items() for name in names]
)
def test_a_property(owner: type, name: str) -> None:
    assert isinstance(inspect.getattr_static(owner, name), property)


def test_only_what_connect_accepts_is_left() -> None:
    given = {"name": "a", "timeout": 3, "nonsense": 1, "cert_file": None}
    assert filter_client_connect_kwargs(**given) == {"name": "a", "timeout": 3, "cert_file": None}


@pytest.mark.parametrize("how", [connect, lambda **kwargs: LinkedClient("Echo", **kwargs)])
def test_unknown_keywords_raise(how: Any) -> None:
    with pytest.raises(TypeError, match="certfile"):
        how(certfile="x")


def test_a_keyword_without_meaning_says_so() -> None:
    with pytest.warns(UserWarning, match="password_manager has no meaning here"):
        connect(password_manager="secret").disconnect()


def test_the_twins() -> None:
    assert signature(aio.connect) == CONNECT
