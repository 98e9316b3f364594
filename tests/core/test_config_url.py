"""What a URL says, and that no message shows its password."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from link_kv._core.wire.config import Config, from_url, resolve, url_options
from link_kv.errors import ConfigError

TEXT = st.text(min_size=1)


def url(text: str, **keywords: Any) -> Config:
    return from_url(text, **keywords, environ={}, directories=[])


def test_a_url_with_everything() -> None:
    assert url("etcd://user:pw@h1:2379,h2:2380/prefix?timeout=3") == Config(
        endpoints=("h1:2379", "h2:2380"), user="user", password="pw", prefix="/prefix", timeout=3.0
    )
    assert url("ETCDS://h1,[::1],[::2]:1/a/b/?ca_cert=/ca.pem&timeout=0.5&") == Config(
        endpoints=("h1:2379", "[::1]:2379", "[::2]:1"),
        prefix="/a/b",
        tls=True,
        ca_cert="/ca.pem",
        timeout=0.5,
    )


def test_a_url_decodes_its_parts() -> None:
    found = url("etcds://%40nn:p%2F%3A%40%25%3F%23%C3%A9+@h/a%20b/c%25?ca_cert=/x%26y%40.pem")
    assert (found.user, found.password) == ("@nn", "p/:@%?#é+")
    assert (found.prefix, found.ca_cert) == ("/a b/c%", "/x&y@.pem")
    assert url("etcd://ann:a:b@h").password == "a:b"


@given(user=TEXT, password=TEXT, prefix=TEXT)
def test_any_text_can_be_written_in_a_url(user: str, password: str, prefix: str) -> None:
    user, password, path = (quote(text, safe="") for text in (user, password, prefix))
    found = url_options(f"etcd://{user}:{password}@h/{path}")
    assert [quote(found[name], safe="") for name in ("user", "password")] == [user, password]
    assert found["prefix"] == f"/{prefix}"


def test_a_url_leaves_the_rest_to_the_layers_below() -> None:
    environ = {
        "LINK_KV_ENDPOINTS": "low:1",
        "LINK_KV_USER": "ann",
        "LINK_KV_PASSWORD": "secret",
        "LINK_KV_PREFIX": "/low",
        "LINK_KV_CA_CERT": "/ca.pem",
    }
    low = from_url("etcds://", environ=environ, directories=[])
    assert low == resolve(environ=environ, directories=[])
    assert from_url("etcds:///?timeout=", environ=environ, directories=[]) == low
    # etcd:// says no TLS; hosts and prefix of the URL win.
    found = from_url("etcd://h/p", environ=environ, directories=[])
    assert found == Config(endpoints=("h:2379",), prefix="/p", user="ann", password="secret")


def test_keywords_win_over_the_url() -> None:
    found = url("etcd://h?timeout=3", timeout=4, prefix="/x", user=None)
    assert found == Config(endpoints=("h:2379",), timeout=4.0, prefix="/x")
    with pytest.raises(ConfigError, match=r"^host \(keyword\) with endpoints \(keyword\)"):
        url("etcd://h", host="other")


def test_the_keywords_of_a_url() -> None:
    assert url_options("etcd://h/p?insecure_password=yes") == {
        "tls": False,
        "endpoints": ("h:2379",),
        "prefix": "/p",
        "insecure_password": True,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("http://h", "not understood; a URL is etcd://"),
        ("h:2379", "not understood"),
        ("etcd:/h", "not understood"),
        ("etcd://h#x", "not understood"),
        (None, "not understood"),
        ("etcd://h:0", "a port is a number from 1 to 65535"),
        ("etcd://h:x", "a port is a number from 1 to 65535"),
        ("etcd://::1", "an endpoint is host:port, with an IPv6 address in brackets"),
        ("etcd://,", "an endpoint is host:port"),
        ("etcd://a b", "must be a host name or an IP address"),
        ("etcd://h?timout=3", "there is no option 'timout' behind the ?; the nearest is 'timeout'"),
        ("etcd://h?user=ann", "there is no option 'user' behind the ?"),
        ("etcd://h?timeout=0", "timeout in the URL: must be a finite number of seconds above 0, not '0'"),
        ("etcd://h?timeout=1&timeout=2", "timeout in the URL are the same option"),
        ("etcd://h?ca_cert=/ca.pem", "ca_cert in the URL: certificates are for TLS; write etcds://"),
        ("etcd://h/%zz", "a % in the prefix is not followed by the code of a character"),
        ("etcd://h/%ff", "a % in the prefix is not followed by the code of a character"),
    ],
)
def test_a_url_that_does_not_fit(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        url(text)
    assert "URL" in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "etcd://ann:secret@h:0/",
        "etcd://ann:secret@h h",
        "etcd://ann:secret@[::1",
        "etcd://ann:secret@h?nothing=1",
        "etcd://ann:secret@h?timeout=x",
        "etcd://ann:secret@h#x",
        "http://ann:secret@h",
        "ann:secret@h",
        "etcd://ann:secret",
        "etcd://ann:sec/secret@h",
        "etcd://ann:12/secret@h",
        "etcd://ann:12?secret@h",
        "etcd://ann:12?secret=1@h",
        "etcd://ann:12#secret@h",
        "etcd://ann:secret%@h",
        "etcd://ann:secret%zz@h",
        "etcd://ann:secret%ff@h",
        "etcd://:secret@h",
    ],
)
def test_no_message_shows_the_password_of_a_url(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        url(text)
    error: BaseException | None = caught.value
    while error:
        assert "secret" not in str(error) + repr(error)
        error = error.__cause__ or error.__context__
