"""Bad input: a typed error that names the path or the option, and nothing changes.

Tables of what people pass by mistake or on purpose. The last part is about bytes that other tools put into
etcd: they break nothing.
"""

from __future__ import annotations

import collections
import datetime
import decimal
import fractions
import math
import pickle
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from link_kv import EtcdMiddleware
from link_kv._core.wire.config import resolve
from link_kv.errors import (
    ConfigError,
    Conflict,
    EncodeError,
    KeyExists,
    LinkKVError,
    ListIndexError,
    NotATree,
    NotFound,
    PathError,
    RevisionError,
    TooLarge,
)

Client = EtcdMiddleware

TREE = {"leaf": 1, "tree": {"a": 1, "b": {"c": 2}}, "list": ["x", "y"], "empty": {}, "none": []}


@pytest.fixture(scope="module")
def module_client(etcd: Any) -> Iterator[Client]:
    with EtcdMiddleware(endpoints=etcd.endpoints, prefix="/bad-input") as client:
        client.clear()
        for name, value in TREE.items():
            client[f"/{name}"] = value
        yield client
        for key in list(client.raw):
            client.raw.pop(key, None)


@pytest.fixture
def client(module_client: Client) -> Iterator[Client]:
    """A client whose data the test must leave as they are."""
    before = dict(module_client.raw.items())
    yield module_client
    assert dict(module_client.raw.items()) == before


def fails(action: Callable[[], Any], error: type[LinkKVError], *words: str) -> None:
    with pytest.raises(error) as caught:
        action()
    assert isinstance(caught.value, LinkKVError)
    for word in words:
        assert word in str(caught.value), str(caught.value)


# Paths

BAD_PATHS: list[Any] = [
    "//",
    "//a",
    "/a//b",
    "a//",
    "/.",
    "/..",
    ".",
    "..",
    "/a/./b",
    "/a/../b",
    "../a",
    "/a/..",
    "/a/.",
    "./a",
    "/.link",
    ".link",
    "/.link/layout",
    "/tree/.link",
    "/tree/.link/items/a",
    "/.link/",
    "\ud800",
    "/a/\udfff/b",
    "/a\udc80",
]

# Each with a path of no str in the same place.
NOT_PATHS: list[Any] = [None, 0, 1.5, b"/a", ("a", "b"), ["a"], {"a": 1}, object(), True, Path("/a")]

PATH_VERBS: dict[str, Callable[[Client, Any], Any]] = {
    "client[path]": lambda client, path: client[path],
    "client[path] = v": lambda client, path: client.__setitem__(path, 1),
    "del client[path]": lambda client, path: client.__delitem__(path),
    "get": lambda client, path: client.get(path),
    "put": lambda client, path: client.put(path, {"a": 1}),
    "create": lambda client, path: client.create(path, 1),
    "delete": lambda client, path: client.delete(path),
    "pop": lambda client, path: client.pop(path, None),
    "append": lambda client, path: client.append(path, 1),
    "setdefault": lambda client, path: client.setdefault(path, 1),
    "entry": lambda client, path: client.entry(path),
    "snapshot": lambda client, path: client.snapshot(path),
    "tree": lambda client, path: client.tree(path),
    "update": lambda client, path: client.update([(path, 1)]),
    "at": lambda client, path: client.at(client.entry("/leaf").revision)[path],
}


@pytest.mark.parametrize("verb", PATH_VERBS)
@pytest.mark.parametrize("path", BAD_PATHS, ids=ascii)
def test_paths_that_can_name_nothing(client: Client, path: str, verb: str) -> None:
    fails(lambda: PATH_VERBS[verb](client, path), PathError, repr(path))


@pytest.mark.parametrize("verb", PATH_VERBS)
@pytest.mark.parametrize("path", NOT_PATHS, ids=lambda path: type(path).__name__)
def test_what_is_no_path(client: Client, path: Any, verb: str) -> None:
    fails(lambda: PATH_VERBS[verb](client, path), PathError, repr(path))


def test_contains_is_as_strict(client: Client) -> None:
    for path in BAD_PATHS:
        fails(lambda path=path: path in client, PathError, repr(path))  # type: ignore[misc]


@pytest.mark.parametrize(
    ("action", "error", "words"),
    [
        (lambda c: c["/nothing"], NotFound, "/nothing"),
        (lambda c: c["/leaf/below"], NotFound, "/leaf/below"),
        (lambda c: c["/list/3"], NotFound, "/list/3"),
        (lambda c: c["/list/0"], NotFound, "/list/0"),
        (lambda c: c.delete("/nothing"), NotFound, "/nothing"),
        (lambda c: c.pop("/nothing"), NotFound, "/nothing"),
        (lambda c: c.entry("/nothing"), NotFound, "/nothing"),
        (lambda c: c.snapshot("/nothing"), NotFound, "/nothing"),
        (lambda c: c.__setitem__("/leaf/below", 1), NotATree, "/leaf"),
        (lambda c: c.__setitem__("/leaf/b/c/d", 1), NotATree, "/leaf"),
        (lambda c: c.__setitem__("/leaf/b", {"c": 1}), NotATree, "/leaf"),
        (lambda c: c.create("/leaf/b", 1), NotATree, "/leaf"),
        (lambda c: c.append("/leaf", 1), NotATree, "/leaf"),
        (lambda c: c.append("/tree", 1), NotATree, "/tree"),
        (lambda c: c.append("/leaf/b", 1), NotATree, "/leaf"),
        (lambda c: c.setdefault("/leaf/b", 1), NotATree, "/leaf"),
        (lambda c: c.update({"/leaf/b": 1}), NotATree, "/leaf"),
        (lambda c: c.tree("/leaf"), NotATree, "/leaf"),
        (lambda c: c.__setitem__("/list/4", "z"), ListIndexError, "/list/4"),
        (lambda c: c.__setitem__("/list/100000", "z"), ListIndexError, "/list/100000"),
        (lambda c: c.__setitem__("/list/0", "z"), ListIndexError, "/list"),
        (lambda c: c.__setitem__("/list/01", "z"), ListIndexError, "/list"),
        (lambda c: c.__setitem__("/list/-1", "z"), ListIndexError, "/list"),
        (lambda c: c.__setitem__("/list/name", "z"), ListIndexError, "/list"),
        (lambda c: c.__setitem__("/list/name/deep", "z"), ListIndexError, "/list"),
        (lambda c: c.__setitem__("/list/4/a", "z"), ListIndexError, "/list/4"),
        (lambda c: c.create("/list/9", "z"), ListIndexError, "/list/9"),
        (lambda c: c.update({"/list/9": "z"}), ListIndexError, "/list/9"),
        (lambda c: c.__setitem__("/none/2", "z"), ListIndexError, "/none/2"),
        (lambda c: c.create("/leaf", 1), KeyExists, "/leaf"),
        (lambda c: c.create("/tree", 1), KeyExists, "/tree"),
        (lambda c: c.create("/tree", {}), KeyExists, "/tree"),
        (lambda c: c.create("/empty", 1), KeyExists, "/empty"),
        (lambda c: c.create("/none", []), KeyExists, "/none"),
        (lambda c: c.put("/leaf", 1, revision=0), KeyExists, "/leaf"),
        (lambda c: c.put("/leaf", 2, revision=1), Conflict, "/leaf"),
        (lambda c: c.put("/leaf", 2, revision=10**15), Conflict, "/leaf"),
        (lambda c: c.put("/nothing", 2, revision=1), Conflict, "/nothing"),
        (lambda c: c.put("/tree", 2, revision=1), TooLarge, "/tree"),
        (lambda c: c.put("/list", 2, revision=1), TooLarge, "/list"),
        (lambda c: c.__setitem__("/", {"a": 1}), PathError, "root"),
        (lambda c: c.__setitem__("", {"a": 1}), PathError, "root"),
        (lambda c: c.__delitem__("/"), PathError, "root"),
        (lambda c: c.put("/", 1), PathError, "root"),
        (lambda c: c.create("/", 1), PathError, "root"),
        (lambda c: c.pop("/"), PathError, "root"),
        (lambda c: c.append("/", 1), PathError, "root"),
        (lambda c: c.setdefault("/", 1), PathError, "root"),
        (lambda c: c.update({"/": {"a": 1}}), PathError, "root"),
    ],
)
def test_what_does_not_fit_what_is_there(
    client: Client, action: Callable[[Client], Any], error: type[LinkKVError], words: str
) -> None:
    fails(lambda: action(client), error, words)


# Numbers


@pytest.mark.parametrize("revision", [-1, 1.5, "1", b"1", math.nan, [], object, 2**63, 2**64, 2**70])
def test_revisions_that_are_none(client: Client, revision: Any) -> None:
    fails(lambda: client.put("/leaf", 2, revision=revision), RevisionError, "/leaf", "revision")
    fails(lambda: client.at(revision), RevisionError, "revision")
    fails(lambda: client.snapshot(revision=revision), RevisionError, "revision")
    fails(lambda: client.watch("/leaf", revision=revision), RevisionError, "/leaf", "revision")


@pytest.mark.parametrize("revision", [0, True, 2**62, 2**63 - 1])
def test_revisions_that_never_were(client: Client, revision: Any) -> None:
    fails(lambda: client.at(revision)["/leaf"], RevisionError, "revision")


@pytest.mark.parametrize("ttl", [0, -1, -0.5, math.nan, math.inf, -math.inf, "5", b"5", [], 10**12, object])
def test_times_to_live_that_are_none(client: Client, ttl: Any) -> None:
    fails(lambda: client.put("/new", 2, ttl=ttl), ConfigError, "/new", "ttl=")
    fails(lambda: client.create("/new", 2, ttl=ttl), ConfigError, "/new", "ttl=")


@pytest.mark.parametrize("path", ["/list/1", "/list/3", "/none/1"])
def test_a_list_takes_no_time_to_live(client: Client, path: str) -> None:
    fails(lambda: client.put(path, 1, ttl=60), ConfigError, path, "ttl=")


@pytest.mark.parametrize("other", [5, [1], [("/a",)], [("/a", 1, 2)], None])
def test_what_is_no_mapping(client: Client, other: Any) -> None:
    """As with dict.update, these are Python's own errors."""
    with pytest.raises((TypeError, ValueError)):
        client.update(other)


def test_everything_is_not_deleted_by_mistake(etcd: Any) -> None:
    with EtcdMiddleware(endpoints=etcd.endpoints) as whole:
        fails(whole.clear, PathError, "force=True")


# Values


def endless() -> list[Any]:
    inner: list[Any] = []
    inner.append(inner)
    return inner


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


BAD_VALUES: dict[str, Callable[[], Any]] = {
    "object": object,
    "set": lambda: {1, 2},
    "frozenset": frozenset,
    "complex": lambda: 1 + 2j,
    "Decimal": lambda: decimal.Decimal("1.5"),
    "Fraction": lambda: fractions.Fraction(1, 3),
    "datetime": lambda: datetime.datetime(2026, 1, 1),
    "date": lambda: datetime.date(2026, 1, 1),
    "timedelta": lambda: datetime.timedelta(1),
    "bytearray": lambda: bytearray(b"a"),
    "memoryview": lambda: memoryview(b"a"),
    "range": lambda: range(3),
    "generator": lambda: (n for n in range(3)),
    "iterator": lambda: iter([1]),
    "deque": lambda: collections.deque([1]),
    "mapping proxy": lambda: types.MappingProxyType({"a": 1}),
    "class": lambda: int,
    "function": lambda: deep,
    "module": lambda: math,
    "exception": lambda: ValueError("x"),
    "Ellipsis": lambda: ...,
    "NotImplemented": lambda: NotImplemented,
    "half of a surrogate pair": lambda: "a\ud800",
    "the other half": lambda: "\udfffa",
    "an integer too long to read": lambda: 10**5000,
    "array of objects": lambda: np.array([object()]),
    "masked array": lambda: np.ma.masked_array([1], [True]),
    "longdouble": lambda: np.longdouble("1.1"),
    "datetime64": lambda: np.datetime64("2026-01-01"),
    "path": lambda: Path("/a"),
}

VALUE_VERBS: dict[str, Callable[[Client, Any], Any]] = {
    "client[path] = v": lambda client, value: client.__setitem__("/new/path", value),
    "over a leaf": lambda client, value: client.__setitem__("/leaf", value),
    "over a tree": lambda client, value: client.put("/tree", value),
    "create": lambda client, value: client.create("/new/path", value),
    "append": lambda client, value: client.append("/list", value),
    "setdefault": lambda client, value: client.setdefault("/new/path", value),
    "update": lambda client, value: client.update({"/other": 1, "/new/path": value}),
    "guarded": lambda client, value: client.put("/leaf", value, revision=client.entry("/leaf").revision),
    "with a time to live": lambda client, value: client.put("/new/path", value, ttl=60),
}
WHERE = {"over a leaf": "/leaf", "guarded": "/leaf", "over a tree": "/tree", "append": "/list/3"}


@pytest.mark.parametrize("verb", VALUE_VERBS)
@pytest.mark.parametrize("value", BAD_VALUES)
def test_values_that_cannot_be_stored(client: Client, value: str, verb: str) -> None:
    where = WHERE.get(verb, "/new/path")
    fails(lambda: VALUE_VERBS[verb](client, BAD_VALUES[value]()), EncodeError, f"{where}: ")


@pytest.mark.parametrize("value", BAD_VALUES)
def test_values_in_a_tree_that_cannot_be_stored(client: Client, value: str) -> None:
    inside = {"fine": 1, "list": [1, {"deep": BAD_VALUES[value]()}]}
    fails(lambda: client.put("/tree", inside), EncodeError, "/tree/list/2/deep: ")


@pytest.mark.parametrize("name", [1, None, 1.5, b"a", True, ("a",), "\ud800", "a\udfff"], ids=ascii)
def test_names_that_cannot_be_keys(client: Client, name: Any) -> None:
    for value, where in (({name: 1}, "/new"), ({"a": {"fine": 1, name: {}}}, "/new/a")):
        fails(lambda value=value: client.put("/new", value), EncodeError, f"{where}: ", repr(name))  # type: ignore[misc]


@pytest.mark.parametrize("value", [endless(), {"a": endless()}, deep(100_000)], ids=["self", "inner", "deep"])
def test_values_without_an_end(client: Client, value: Any) -> None:
    fails(lambda: client.put("/new", value), EncodeError, "/new", "nested too deeply")


def test_raw_keys_and_values_are_bytes(client: Client) -> None:
    for key in ("a", 1, None, bytearray(b"a")):
        fails(lambda key=key: client.raw[key], EncodeError, repr(key))  # type: ignore[misc]
        fails(lambda key=key: client.raw.__setitem__(key, b""), EncodeError, repr(key))  # type: ignore[misc]
    fails(lambda: client.raw.__setitem__(b"/bad-input/x", "text"), EncodeError, "'text'")
    fails(lambda: client.raw.__setitem__(b"", b"1"), PathError, "empty key")


# Options


KEYWORDS: list[tuple[dict[str, Any], str]] = [
    ({"host": "a:1"}, "host"),
    ({"host": "a b"}, "host"),
    ({"host": "http://a"}, "host"),
    ({"host": "a,b"}, "host"),
    ({"host": "a/b"}, "host"),
    ({"host": "[::1"}, "host"),
    ({"host": "::g"}, "host"),
    ({"host": "a\n"}, "host"),
    ({"host": "a\0"}, "host"),
    ({"host": 5}, "host"),
    ({"host": ["a"]}, "host"),
    ({"port": 0}, "port"),
    ({"port": -1}, "port"),
    ({"port": 65536}, "port"),
    ({"port": "x"}, "port"),
    ({"port": "2379 "}, "port"),
    ({"port": 2379.0}, "port"),
    ({"port": True}, "port"),
    ({"port": "２３７９"}, "port"),
    ({"port": [2379]}, "port"),
    ({"endpoints": []}, "endpoints"),
    ({"endpoints": ","}, "endpoints"),
    ({"endpoints": ["a:x"]}, "endpoints"),
    ({"endpoints": ["a:1:2"]}, "endpoints"),
    ({"endpoints": ["a:0"]}, "endpoints"),
    ({"endpoints": ["http://a:1"]}, "endpoints"),
    ({"endpoints": [b"a:1"]}, "endpoints"),
    ({"endpoints": [("a", 1)]}, "endpoints"),
    ({"endpoints": 5}, "endpoints"),
    ({"endpoints": b"a:1"}, "endpoints"),
    ({"endpoints": ["::1:2379"]}, "endpoints"),
    ({"endpoints": ["a:1"], "host": "a"}, "endpoints"),
    ({"endpoints": ["a:1"], "port": 1}, "endpoints"),
    ({"endpoints": ["a:1"], "srv_domain": "a.org"}, "endpoints"),
    ({"srv_domain": "a b"}, "srv_domain"),
    ({"srv_domain": "a..b"}, "srv_domain"),
    ({"srv_domain": ".a"}, "srv_domain"),
    ({"srv_domain": "http://a"}, "srv_domain"),
    ({"srv_domain": 1}, "srv_domain"),
    ({"prefix": 1}, "prefix"),
    ({"prefix": b"/a"}, "prefix"),
    ({"prefix": "//"}, "prefix"),
    ({"prefix": "///"}, "prefix"),
    ({"prefix": "/a//"}, "prefix"),
    ({"user": "a"}, "user"),
    ({"password": "a"}, "password"),
    ({"user": 1, "password": "a"}, "user"),
    ({"user": "a", "password": 1}, "password"),
    ({"user": "a", "password": b"a"}, "password"),
    ({"timeout": 0}, "timeout"),
    ({"timeout": -1}, "timeout"),
    ({"timeout": math.nan}, "timeout"),
    ({"timeout": math.inf}, "timeout"),
    ({"timeout": "fast"}, "timeout"),
    ({"timeout": "5s"}, "timeout"),
    ({"timeout": True}, "timeout"),
    ({"timeout": [5]}, "timeout"),
    ({"timeout": 10**400}, "timeout"),
    ({"tls": "maybe"}, "tls"),
    ({"tls": 1}, "tls"),
    ({"tls": False, "ca_cert": "/a"}, "tls"),
    ({"insecure_password": "maybe"}, "insecure_password"),
    ({"insecure_password": 1}, "insecure_password"),
    ({"ca_cert": 5}, "ca_cert"),
    ({"ca_cert": b"/a"}, "ca_cert"),
    ({"cert_cert": "/a"}, "cert_cert"),
    ({"cert_key": "/a"}, "cert_key"),
    ({"cert_cert": 1, "cert_key": "/a"}, "cert_cert"),
    ({"expected_cluster_id": 0}, "expected_cluster_id"),
    ({"expected_cluster_id": -1}, "expected_cluster_id"),
    ({"expected_cluster_id": 2**64}, "expected_cluster_id"),
    ({"expected_cluster_id": "xyz"}, "expected_cluster_id"),
    ({"expected_cluster_id": "1" * 21}, "expected_cluster_id"),
    ({"expected_cluster_id": 1.5}, "expected_cluster_id"),
    ({"expected_cluster_id": True}, "expected_cluster_id"),
]

PREFIXES = ["/a//b", "/..", "/a/./b", "/.link", "a/.link/b", "/\ud800"]

URLS = [
    "",
    "etcd://h:1//",
    "etcd://h:1/a//",
    "x",
    "http://h:1",
    "etcd:/h",
    "etcd:h:1",
    "etcd3://h",
    "//h:1",
    "etcd://h:x",
    "etcd://h:0",
    "etcd://h:1:2",
    "etcd://h:99999",
    "etcd://h h",
    "etcd://[::1",
    "etcd://::1",
    "etcd://h,,:1",
    "etcd://h:1/p?nonsense=1",
    "etcd://h:1/p?timeout=x",
    "etcd://h:1/p?timeout=0",
    "etcd://h:1/p?timeout=1&timeout=2",
    "etcd://h:1/p?tls=yes",
    "etcd://h:1/p?prefix=/a",
    "etcd://h:1/p?ca_cert=/a",
    "etcd://h:1/p?expected_cluster_id=zz",
    "etcd://h:1/p#fragment",
    "etcd://h:1/%zz",
    "etcd://h:1/%ff",
    "etcd://h:1/%",
    "etcd://user@h:1",
    "etcd://:SECRET@h:1",
    "etcd://user:SECRET@h:x",
    "etcd://user:SEC/RET@h:1",
    "etcd://user:SEC?RET@h:1",
    "etcd://user:SEC%RET@h:1",
    "etcd://user:SECRET@h:1/p?nonsense=1",
    None,
    5,
    b"etcd://h:1",
]

FILES = {
    "no section": "host = a",
    "another section only": "[OTHER]\nhost = a",
    "section twice": "[ETCD]\nhost = a\n[ETCD]\nport = 1",
    "option twice": "[ETCD]\nhost = a\nhost = b",
    "unknown option": "[ETCD]\nhots = a",
    "no value": "[ETCD]\nhost",
    "garbage": "\x00\x01\x02",
    "half a line": "[ETCD",
    "bad port": "[ETCD]\nport = x",
    "bad timeout": "[ETCD]\ntimeout = soon",
    "bad bool": "[ETCD]\ntls = perhaps",
    "bad cluster": "[ETCD]\nexpected_cluster_id = ?",
    "host and endpoints": "[ETCD]\nhost = a\nendpoints = b:1",
    "two lines": "[ETCD]\nhost = a\n  b",
    "password alone": "[ETCD]\npassword = SECRET",
    "user alone": "[ETCD]\nuser = ann",
    "key alone": "[ETCD]\ncert_key = /k",
    "no tls with certificates": "[ETCD]\ntls = no\nca_cert = /c",
    "protocol": "[ETCD]\nprotocol = ftp",
    "an url": "[ETCD]\nhost = http://user:SECRET@h",
    "the old name and the new": "[ETCD]\nusername = a\nuser = b\npassword = p",
}


@pytest.mark.parametrize(("options", "name"), KEYWORDS, ids=lambda part: ascii(part)[:60])
def test_keywords(options: dict[str, Any], name: str) -> None:
    fails(lambda: resolve(**options, environ={}, directories=[]), ConfigError, name)


@pytest.mark.parametrize(
    ("options", "name"),
    [(options, name) for options, name in KEYWORDS if all(isinstance(v, str) for v in options.values())],
    ids=lambda part: ascii(part)[:60],
)
def test_environment(options: dict[str, str], name: str) -> None:
    environ = {f"LINK_KV_{option.upper()}": value for option, value in options.items()}
    fails(lambda: resolve(environ=environ, directories=[]), ConfigError, f"LINK_KV_{name.upper()}")


@pytest.mark.parametrize("prefix", PREFIXES, ids=ascii)
def test_prefixes(prefix: str) -> None:
    fails(lambda: EtcdMiddleware(endpoints=["h:1"], prefix=prefix), PathError, "a path cannot have")


@pytest.mark.parametrize("url", URLS, ids=ascii)
def test_urls(url: Any) -> None:
    with pytest.raises(ConfigError, match=r"URL|user|password|prefix|timeout|option") as caught:
        EtcdMiddleware.from_url(url)
    assert "SEC" not in str(caught.value)


@pytest.mark.parametrize("name", FILES)
def test_files(name: str, tmp_path: Path) -> None:
    file = tmp_path / "link/kv/middleware.conf"
    file.parent.mkdir(parents=True)
    file.write_text(FILES[name])
    with pytest.raises(ConfigError) as caught:
        resolve(environ={}, directories=[tmp_path])
    assert str(file) in str(caught.value)
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize("content", [b"\xff\xfe[ETCD]", b"[ETCD]\nhost = \xff", b"[ETCD]\n\xc3\x28 = 1"])
def test_files_that_are_no_text(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "link/kv/middleware.conf"
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    fails(lambda: resolve(environ={}, directories=[tmp_path]), ConfigError, str(file), "not UTF-8")


# Bytes that other tools put into etcd

HOSTILE_KEYS = [
    b"\n",
    b"a\nb",
    b"a\0b",
    b"\0",
    b"\xff",
    b"\xff\xfe/a",
    b"a/\xc3\x28",
    b"a\xed\xa0\x80",
    b"/",
    b"//",
    b"a//b",
    b"a//",
    b".",
    b"..",
    b"a/./b",
    b"a/../b",
    b"./",
    b"../",
    b".linked",
    b"x/.link",
    b".link/nonsense",
    b"tree/.link/nonsense",
    b"%",
    b"%2",
    b"%zz",
    b"%25",
    b"%2F",
    b"%2E",
    b" ",
    b"\t",
    b"\x1b[31m",
    "\u202e".encode(),
    "\U0001f600".encode(),
    b"x" * 4000,
    b"list/3",
    b"list/0",
    b"list/01",
    b"list/name",
    b"list/99999999999999999999",
    b"leaf/below",
    b"leaf/",
    b"empty/",
    b"tree/",
]

HOSTILE_VALUES = [
    b"",
    b"\0",
    b"\xff",
    b"\xff\xff",
    b"\xfe",
    b"\x80",
    b'"',
    b'"\\',
    b'"\\u',
    b'"\\ud800"',
    b"-",
    b"--1",
    b"+1",
    b"01",
    b"1e",
    b"1e999999",
    b"1" * 5000,
    b"-" + b"9" * 5000,
    b"0x10",
    b"1_000",
    b"NaN",
    b"Infinity",
    b"-Infinity",
    b"nan",
    b"tru",
    b"nulll",
    b"[" * 100_000,
    b"{" * 100_000,
    b"[]",
    b"{}",
    b'{"a": 1}',
    b"\x93NUMPY",
    b"\x93NUMPY\x01\x00\xff\xff",
    b"\x93NUMPY\x03\x00\xff\xff\xff\xff",
    b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
    b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (9**9,), }",
    b"\x93NUMPY\x01\x00\x20\x00__import__('os').system('false')",
    pickle.dumps(print),
    b"!!python/object/apply:os.system ['false']",
    b"\xef\xbb\xbf1",
    b"\xed\xa0\x80",
    b" 1 ",
    b"\n",
]


@pytest.fixture
def own(etcd: Any, etcd_prefix: str) -> Iterator[Client]:
    with EtcdMiddleware(endpoints=etcd.endpoints, prefix=etcd_prefix) as client:
        for name, value in TREE.items():
            client[f"/{name}"] = value
        yield client


def use_all(client: Client) -> None:
    """Read in every way that there is; the ways agree."""
    items = dict(client.items())
    assert list(items) == list(client) == list(client.keys())
    assert len(items) == len(client)
    for path, value in items.items():
        found = client[path]
        assert type(found) is type(value)
        assert path in client
        assert client.entry(path).revision > 0
    client.snapshot()
    revision = client.entry("/tree").revision
    client.at(revision).get("/leaf")
    tree = client.tree("/")
    assert set(tree) == set(client.snapshot())
    repr(tree)
    assert client["/tree/a"] == 1


@pytest.mark.parametrize("key", HOSTILE_KEYS, ids=lambda key: ascii(key[:20]))
def test_hostile_keys(own: Client, key: bytes) -> None:
    """Read around, counted or not, and gone with the tree that they are in."""
    whole = own.prefix.encode() + b"/" + key
    own.raw[whole] = b"1"
    assert own.raw[whole] == b"1"
    use_all(own)
    own["/leaf"] = 2
    own["/tree"] = {"a": 1, "new": [1]}
    own["/new/deep"] = {"x": 1}
    use_all(own)
    for name in list(own.tree("/")):
        own.tree("/").pop(name)
    assert own.snapshot() == {}
    assert not own
    own.clear()
    left = [name for name in own.raw if not name.startswith(own.prefix.encode() + b"/.link/")]
    assert left == []


@pytest.mark.parametrize("value", HOSTILE_VALUES, ids=lambda value: ascii(value[:20]))
def test_hostile_values(own: Client, value: bytes) -> None:
    """They read as some value, and as the same one when that is written back."""
    for name in (b"leaf", b"tree/b/c", b"list/1", b"new"):
        own.raw[own.prefix.encode() + b"/" + name] = value
    use_all(own)
    read = own["/new"]
    own["/copy"] = read
    assert repr(own["/copy"]) == repr(read)
    # Where a marker stands, such a value makes neither a list nor a dict of it.
    own.raw[own.prefix.encode() + b"/list/"] = value
    use_all(own)
    del own["/list"]
    del own["/tree"]
    assert "/list" not in own


@pytest.mark.parametrize("version", [b"2", b"0", b"", b"x", b"\xff", b"1 ", b"11"])
def test_layouts_of_another_version(etcd: Any, etcd_prefix: str, version: bytes) -> None:
    with EtcdMiddleware(endpoints=etcd.endpoints, prefix=etcd_prefix) as client:
        client["/a"] = 1
        client.raw[f"{etcd_prefix}/.link/layout".encode()] = version
        before = dict(client.raw.items())
    for use in (lambda c: c["/a"], lambda c: c.put("/a", 2), list, lambda c: c.clear()):
        with EtcdMiddleware(endpoints=etcd.endpoints, prefix=etcd_prefix) as client:
            fails(lambda use=use, client=client: use(client), ConfigError, "/.link/layout", "upgrade")  # type: ignore[misc]
    with EtcdMiddleware(endpoints=etcd.endpoints) as whole:
        assert {k: v for k, v in whole.raw.items() if k.startswith(etcd_prefix.encode() + b"/")} == before
