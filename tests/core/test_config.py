"""How a client finds its options. The tables of docs/reference/configuration.md are run row by row."""

from __future__ import annotations

import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

import link_kv
from link_kv._core.wire import config
from link_kv._core.wire.config import Config, conf_directories, resolve
from link_kv._core.wire.options import OPTIONS, RENAMED, WITHOUT_EFFECT, Bad
from link_kv.errors import ConfigError

ROOT = Path(__file__).parent.parent.parent
SAMPLE = ROOT / "etc/link/kv/middleware.conf"
PAGE = (ROOT / "docs/reference/configuration.md").read_text(encoding="utf-8")

# As link.etcd 0.4 documents it: all its settings, with their defaults.
SEED = """\
[ETCD]
host = localhost
port = 4001
# srv_domain is not defined
version_prefix = /v2
read_timeout = 60
allow_redirect = True
protocol = http
# cert is not defined
# ca_cert is not defined
# username is not defined
# password is not defined
allow_reconnect = False
use_proxies = False
# expected_cluster_id is not defined
per_host_pool_size = 10
"""


def write(directory: Path, text: str, name: str = "link/kv/middleware.conf") -> Path:
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def from_file(directory: Path, text: str, **keywords: Any) -> Config:
    write(directory, f"[ETCD]\n{text}\n")
    return resolve(**keywords, environ={}, directories=[directory])


def alone(*args: Any, **keywords: Any) -> Config:
    return resolve(*args, **keywords, environ={}, directories=[])


def table(*header: str) -> list[list[str]]:
    """The rows of a table of the page, found by the start of its header."""
    lines = iter(PAGE.splitlines())
    for line in lines:
        if cells(line)[: len(header)] == list(header):
            next(lines)
            break
    rows: list[list[str]] = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append(cells(line))
    assert rows, header
    return rows


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().removeprefix("|").removesuffix("|").split("|")]


def code(cell: str) -> list[str]:
    return re.findall(r"`([^`]*)`", cell)


# The page


@pytest.mark.parametrize("result", ["address", "TLS", "login"])
def test_the_tables_of_layers(result: str, tmp_path: Path) -> None:
    for keyword, environment, file, expected in table("keyword", "environment", "file", result):
        write(tmp_path, "\n".join(["[ETCD]", *code(file)]))
        environ = {
            f"LINK_KV_{n.upper()}": v for n, _, v in (item.partition("=") for item in code(environment))
        }
        keywords: dict[str, Any] = dict(item.split("=") for item in code(keyword))
        row = f"{keyword} | {environment} | {file}"
        try:
            found = resolve(**keywords, environ=environ, directories=[tmp_path])
        except ConfigError:
            assert expected == "error", row
            continue
        shown = {
            "TLS": "yes" if found.tls else "no",
            "login": f"`{found.user}:{found.password}`",
            "address": f"DNS: `{found.srv_domain}`" if found.srv_domain else f"`{','.join(found.endpoints)}`",
        }
        assert shown[result] == expected, row


def test_the_table_of_options_is_complete(tmp_path: Path) -> None:
    rows = table("keyword, file", "environment", "default")
    assert [code(row[0]) for row in rows] == [[name] for name in OPTIONS]
    for name, environment, default, _ in rows:
        assert code(environment) == [f"LINK_KV_{code(name)[0].upper()}"]
        if default:
            assert from_file(tmp_path, f"{code(name)[0]} = {code(default)[0]}") == Config(), name


def test_the_table_of_the_ancestor_is_complete() -> None:
    named = [name for row in table("setting", "here") for name in code(row[0])]
    assert sorted(named) == sorted(re.findall(r"^(?:# )?(\w+) (?:=|is not defined)", SEED, re.MULTILINE))
    assert len(named) == 15
    assert set(named) == {*RENAMED, *WITHOUT_EFFECT} | (set(named) & set(OPTIONS))


def test_the_page_lists_what_a_url_may_ask() -> None:
    (sentence,) = re.findall(r"Behind the\s+`\?` may stand (.*?)\.\s", PAGE, re.DOTALL)
    assert sorted(code(sentence)) == sorted(config._URL_OPTIONS)


# The sample


def test_the_sample_shows_every_option_with_its_default(tmp_path: Path) -> None:
    text = SAMPLE.read_text(encoding="utf-8")
    shown = re.sub(r"^#(?=\w+ =)", "", text, flags=re.MULTILINE)
    assert sorted(re.findall(r"^(\w+) =", shown, re.MULTILINE)) == sorted(OPTIONS)
    for content in (text, shown):
        write(tmp_path, content)
        assert resolve(environ={}, directories=[tmp_path]) == Config()


# Layers


FITTING = {
    "host": "h",
    "port": "1",
    "endpoints": "a:1, b",
    "srv_domain": "example.org",
    "prefix": "a/b/",
    "user": "u",
    "password": "p",
    "ca_cert": "/ca.pem",
    "cert_cert": "/cert.pem",
    "cert_key": "/key.pem",
    "tls": "Yes",
    "timeout": "0.5",
    "expected_cluster_id": "cdf818194e3a8c32",
    "insecure_password": "on",
}
TOGETHER = {
    "user": "password",
    "password": "user",
    "cert_cert": "cert_key",
    "cert_key": "cert_cert",
}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_in_every_layer(name: str, tmp_path: Path) -> None:
    names = {name, TOGETHER.get(name, name)}
    given = {each: FITTING[each] for each in names}
    keyword = alone(**given)
    assert keyword != Config()
    environ = {f"LINK_KV_{each.upper()}": value for each, value in given.items()}
    assert resolve(environ=environ, directories=[]) == keyword
    assert from_file(tmp_path, "\n".join(f"{each} = {value}" for each, value in given.items())) == keyword
    # An empty text is no value.
    assert alone(**dict.fromkeys(names, "")) == Config()
    assert resolve(environ=dict.fromkeys(environ, ""), directories=[]) == Config()
    assert from_file(tmp_path, "\n".join(f"{each} =" for each in names)) == Config()


UNFITTING = [
    *(("port", value) for value in ("0", "65536", "-1", "2379.0", "1_0", "x")),
    *(("timeout", value) for value in ("0", "-1", "nan", "inf", "5s")),
    *(("host", value) for value in ("h:1", "a,b", "a b", "[h]", "1::2::3", "h/x")),
    *(("endpoints", value) for value in (",", "h:", "h:0", ":1", "::1", "::1:2379", "[::1]2379", "[x]:1")),
    *(("tls", value) for value in ("maybe", "2", "https")),
    ("insecure_password", "y"),
    *(("expected_cluster_id", value) for value in ("0", "xyz", "18446744073709551616", "-1")),
    *(("srv_domain", value) for value in ("a b", "a..b", ".", "h:1")),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), UNFITTING)
def test_a_value_that_does_not_fit_is_named_with_its_place(name: str, value: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"^{name} \(keyword\): ") as caught:
        alone(**{name: value})
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    with pytest.raises(ConfigError, match=f"^LINK_KV_{name.upper()}: "):
        resolve(environ={f"LINK_KV_{name.upper()}": value}, directories=[])
    with pytest.raises(ConfigError, match=f"^{name} in {re.escape(str(tmp_path))}/link/kv/middleware.conf: "):
        from_file(tmp_path, f"{name} = {value}")


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"port": True}, "port (keyword): a port is a number from 1 to 65535, not True"),
        ({"timeout": True}, "timeout (keyword): must be a finite number of seconds above 0, not True"),
        ({"timeout": 10**400}, "timeout (keyword): must be a finite number of seconds above 0"),
        ({"timeout": 1e10}, "timeout (keyword): must be at most 1000000000 seconds, not 10000000000.0"),
        ({"tls": 1}, "tls (keyword): must be yes or no, true or false, on or off, 1 or 0, not 1"),
        ({"host": ["a", "b"]}, "host (keyword): must be one host; several go into endpoints"),
        ({"endpoints": []}, "endpoints (keyword): must name at least one host:port"),
        ({"endpoints": ["a", None]}, "endpoints (keyword): must be a str, not 'NoneType'"),
        ({"endpoints": b"a"}, "endpoints (keyword): must be a list of host:port"),
        ({"password": b"secret"}, "password (keyword): must be a str, not 'bytes'"),
        ({"host": "a", "endpoints": ["b"]}, "host (keyword) with endpoints (keyword): give one of the two"),
        ({"port": 1, "endpoints": ["b"]}, "port (keyword) with endpoints (keyword): write the port into"),
        ({"user": "ann"}, "user (keyword) needs password too"),
        ({"password": "secret"}, "password (keyword) needs user too"),
        ({"cert_cert": "c"}, "cert_cert (keyword) needs cert_key too"),
        ({"cert_key": "c"}, "cert_key (keyword) needs cert_cert too"),
        ({"tls": False, "ca_cert": "c"}, "ca_cert (keyword) with tls (keyword): certificates are for TLS"),
    ],
)
def test_keywords_that_do_not_fit(keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match="^" + re.escape(message)) as caught:
        alone(**keywords)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["user", "password"])
def test_text_that_is_no_utf_8_is_refused_and_not_shown(name: str) -> None:
    """A variable with such bytes reaches Python as lone surrogates."""
    value = "secret\udcff"
    others = {"user": "ann", "password": "pw"} | {name: value}
    for given in (
        lambda: alone(**others),
        lambda: resolve(
            environ={f"LINK_KV_{key.upper()}": text for key, text in others.items()}, directories=[]
        ),
    ):
        with pytest.raises(ConfigError, match=f"(?i)^(LINK_KV_)?{name}.*: has lone surrogates") as caught:
            given()
        assert "secret" not in str(caught.value)
        cause = caught.value.__context__
        assert isinstance(cause, Bad)
        assert (cause.args[0], cause.__context__) == ("has lone surrogates, and etcd takes UTF-8", None)


def test_a_port_above_endpoints_names_both(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^port \(keyword\) goes with a host; endpoints in /.* has ports"):
        from_file(tmp_path, "endpoints = a,b", port=1)


@pytest.mark.parametrize(
    ("host", "endpoint"),
    [("::1", "[::1]:7"), ("[fe80::1%eth0]", "[fe80::1%eth0]:7"), ("10.0.0.1", "10.0.0.1:7")],
)  # fmt: skip
def test_hosts(host: str, endpoint: str) -> None:
    assert alone(host, 7).endpoints == (endpoint,)


def test_endpoints() -> None:
    listed = alone(endpoints=["a:1", "[::1]", "b", "a:1"])
    assert listed.endpoints == ("a:1", "[::1]:2379", "b:2379")
    assert alone(endpoints="a:1,\n[::1] b") == listed


def test_prefixes(tmp_path: Path) -> None:
    assert [alone(prefix=text).prefix for text in ("a", "/a/b/", "/", "")] == ["/a", "/a/b", "", ""]
    assert from_file(tmp_path, "prefix = /low", prefix="").prefix == "/low"
    assert from_file(tmp_path, "prefix = /low", prefix="/").prefix == ""


def test_cluster_ids() -> None:
    ids = ("cdf818194e3a8c32", "0xCDF818194E3A8C32", "14841639068965178418", 14841639068965178418)
    assert {alone(expected_cluster_id=each).expected_cluster_id for each in ids} == {0xCDF818194E3A8C32}
    assert alone(expected_cluster_id="1000000000000000").expected_cluster_id == 0x1000000000000000


def test_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    assert alone(ca_cert="~/ca.pem").ca_cert == "/home/ann/ca.pem"
    assert alone(ca_cert=Path("ca.pem")).ca_cert == "ca.pem"
    assert from_file(tmp_path, "ca_cert = ~/ca.pem").ca_cert == "/home/ann/ca.pem"
    assert from_file(tmp_path, "ca_cert = ca.pem").ca_cert == str(tmp_path / "link/kv/ca.pem")


def test_tls_off_leaves_no_certificate(tmp_path: Path) -> None:
    found = from_file(tmp_path, "ca_cert = /ca\ncert_cert = /c\ncert_key = /k", tls=False)
    assert found == Config()


def test_the_key_of_another_certificate_is_not_used(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^cert_cert \(keyword\) needs cert_key too"):
        from_file(tmp_path, "cert_cert = /c\ncert_key = /k", cert_cert="/other")


def test_the_repr_hides_the_password() -> None:
    found = alone(user="ann", password="secret")
    assert found.password == "secret"
    assert "ann" in repr(found)
    assert "secret" not in f"{found!r} {found}"


@pytest.mark.parametrize("name", ["host", "endpoints", "srv_domain", "port", "timeout"])
def test_a_url_in_the_wrong_place_is_not_shown(name: str) -> None:
    for value in ("ann:secret@h:2379", "etcd://ann:secret"):
        with pytest.raises(ConfigError, match=name) as caught:
            alone(**{name: value})
        assert "secret" not in str(caught.value)


# Directories and files


def test_directories_in_the_order_of_b3j0f_conf() -> None:
    environ = {
        "HOME": "/home/ann",
        "XDG_CONFIG_HOME": "/xdg/home",
        "XDG_CONFIG_DIRS": "/xdg/first:/xdg/last",
        "B3J0F_CONF_DIR": "/conf",
    }
    assert conf_directories(environ) == [
        str(Path(link_kv.__file__).parent / "data"),
        "/etc",
        "/usr/local/etc",
        *(f"{sys.prefix}/{name}" for name in (".config", "config", "etc")),
        "/xdg/last",
        "/xdg/first",
        "/xdg/home",
        "/home/ann/.config",
        "/home/ann/config",
        "/home/ann/etc",
        "/conf",
    ]
    # A directory named twice counts in its last place.
    assert conf_directories(environ | {"B3J0F_CONF_DIR": "/etc"})[-1] == "/etc"
    assert conf_directories(environ | {"B3J0F_CONF_DIR": "/etc"}).count("/etc") == 1


def test_the_working_directory_is_never_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "[ETCD]\nhost = elsewhere\n", "link/etcd/middleware.conf")
    for directory in (".", ".config", "config", "etc"):
        write(tmp_path / directory, "[ETCD]\nhost = elsewhere\n")
    variables = ("HOME", "XDG_CONFIG_HOME", "XDG_CONFIG_DIRS")
    for value in ("", ".", "config"):
        environ = dict.fromkeys(variables, value) | {"B3J0F_CONF_DIR": ""}
        assert "elsewhere:2379" not in resolve(environ=environ).endpoints
        assert all(Path(directory).is_absolute() for directory in conf_directories(environ))
    assert resolve(environ={"B3J0F_CONF_DIR": "config"}).endpoints == ("elsewhere:2379",)


def test_later_directories_win(tmp_path: Path) -> None:
    write(tmp_path / "1", "[ETCD]\nhost = a\nport = 1\ntimeout = 1\nprefix = /one\n")
    write(tmp_path / "2", "[ETCD]\nport = 2\ntimeout = 2\n")
    write(tmp_path / "3", "[ETCD]\ntimeout = 3\n")
    found = resolve(environ={}, directories=[tmp_path / name for name in "1234"])
    assert found == Config(endpoints=("a:2",), timeout=3.0, prefix="/one")
    environ = {"HOME": str(tmp_path / "home"), "B3J0F_CONF_DIR": str(tmp_path / "1")}
    write(tmp_path / "home/.config", "[ETCD]\ntimeout = 9\ninsecure_password = yes\n")
    assert resolve(environ=environ).timeout == 1
    assert resolve(environ=environ).insecure_password is True


def test_files_are_read_when_a_client_is_made_and_not_before(tmp_path: Path) -> None:
    path = write(tmp_path, "broken")
    environ = {"B3J0F_CONF_DIR": str(tmp_path)}
    program = """if True:
        from link_kv._core.wire.config import ConfigError, resolve
        try:
            resolve()
        except ConfigError as error:
            print(error)
        """
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environ,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=True,
    )
    assert done.stdout.startswith(f"{path}, line 1: ")
    path.write_text("[ETCD]\nport = 1\n")
    assert resolve(environ=environ).endpoints == ("localhost:1",)
    path.write_text("[ETCD]\nport = 2\n")
    assert resolve(environ=environ).endpoints == ("localhost:2",)


def test_values_are_taken_as_they_stand(tmp_path: Path) -> None:
    password = "50%(user)s of %% # \"no\" ; $HOME =py:1 'é'"
    assert from_file(tmp_path, f"USER = ann\nPassword : {password}").password == password
    path = write(tmp_path, "")
    path.write_bytes(b"\xef\xbb\xbf[ETCD]\r\nhost = a\r\n\r\n[OTHER]\r\nanything = goes\r\n")
    assert resolve(environ={}, directories=[tmp_path]).endpoints == ("a:2379",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("password = secret\n", ", line 1: options go below the line [ETCD]"),
        ("[ETCD]\nhost = a\nsecret\n", ", line 3: neither name = value nor a # comment"),
        ("[ETCD]\npassword = x\nport = 1\nPassword = secret\n", ", line 4: password is given twice"),
        ("[ETCD]\n[OTHER]\n[ETCD]\n", ", line 3: the section [ETCD] begins twice"),
        ("[etcd]\nhost = a\n", ": there is [etcd] and no [ETCD]"),
        ("[DEFAULT]\nhost = a\n", ": there is [DEFAULT] and no [ETCD]"),
        ("[ETCD]\nusrname = secret\n", ": there is no option 'usrname'; the nearest is 'username'"),
        ("[ETCD]\nEndpoint = a\n", ": there is no option 'endpoint'; the nearest is 'endpoints'"),
        ("[ETCD]\nuser = a\nusername = b\n", " are the same option; keep one of them"),
        ("[ETCD]\ncert = a\ncert_key = b\n", " are the same option; keep one of them"),
    ],
)
def test_a_file_that_does_not_fit(content: str, message: str, tmp_path: Path) -> None:
    path = write(tmp_path, content)
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        resolve(environ={}, directories=[tmp_path])
    assert str(path) in str(caught.value)
    assert "secret" not in str(caught.value)
    assert caught.value.__context__ is None or caught.value.__suppress_context__


def test_a_value_over_two_lines(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"^password in /.*: the value goes on over several lines"
    ) as caught:
        from_file(tmp_path, "password = secret\n  user = ann")
    assert "secret" not in str(caught.value)
    assert from_file(tmp_path, "endpoints = a,\n  b").endpoints == ("a:2379", "b:2379")


def test_a_file_that_is_not_utf8(tmp_path: Path) -> None:
    path = write(tmp_path, "")
    path.write_bytes(b"[ETCD]\n# ok\npassword = secret\xff\n")
    with pytest.raises(ConfigError, match=re.escape(f"{path}, line 3: not UTF-8 text")) as caught:
        resolve(environ={}, directories=[tmp_path])
    assert caught.value.__suppress_context__


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "link/kv/middleware.conf"
    path.mkdir(parents=True)
    with pytest.raises(ConfigError, match=re.escape(f"{path} cannot be read: Is a directory")):
        resolve(environ={}, directories=[tmp_path])
    path.rmdir()
    path.symlink_to("gone")
    with pytest.raises(ConfigError, match=re.escape(f"{path} cannot be read: No such file")):
        resolve(environ={}, directories=[tmp_path])
    assert resolve(environ={}, directories=[tmp_path / "none", path / "below"]) == Config()


# The settings of link.etcd


def test_the_documented_file_of_the_ancestor(tmp_path: Path) -> None:
    path = write(tmp_path, SEED, "link/etcd/middleware.conf")
    with pytest.warns(UserWarning, match="link/etcd/middleware.conf: ") as caught:
        found = resolve(environ={}, directories=[tmp_path])
    assert found == Config(endpoints=("localhost:4001",), timeout=60.0)
    (notice,) = [str(warning.message) for warning in caught]
    assert notice.startswith(f"{path}: these settings of link.etcd are used; ")
    for name, (_, reason) in WITHOUT_EFFECT.items():
        assert f"{name} does nothing: {reason}." in notice
    # The same in the file of link_kv is no surprise, but for what has no effect.
    path.rename(write(tmp_path, ""))
    with pytest.warns(UserWarning, match="middleware.conf: version_prefix does nothing: ") as caught:
        assert resolve(environ={}, directories=[tmp_path]) == found
    assert len(caught) == 1
    assert "link.etcd" not in str(caught[0].message)


def test_what_means_something_keeps_its_meaning(tmp_path: Path) -> None:
    text = (
        "host = h\nread_timeout = 7\nprotocol = https\ncert = /combined.pem\nca_cert = /ca.pem\n"
        "username = ann\npassword = secret\nexpected_cluster_id = cdf818194e3a8c32"
    )
    expected = Config(
        endpoints=("h:2379",),
        timeout=7.0,
        tls=True,
        cert_cert="/combined.pem",
        cert_key="/combined.pem",
        ca_cert="/ca.pem",
        user="ann",
        password="secret",
        expected_cluster_id=0xCDF818194E3A8C32,
    )
    assert from_file(tmp_path / "new", text) == expected
    write(tmp_path / "old", f"[ETCD]\n{text}\n", "link/etcd/middleware.conf")
    with pytest.warns(UserWarning, match="these settings of link.etcd are used"):
        assert resolve(environ={}, directories=[tmp_path / "old"]) == expected
    found = from_file(tmp_path / "srv", "srv_domain = example.org\nhost = localhost\nport = 4001")
    assert (found.srv_domain, found.endpoints) == ("example.org", ())


@pytest.mark.parametrize("pair", ["/c.pem, /k.pem", "('/c.pem', '/k.pem')", '("/c.pem","/k.pem",)'])
def test_a_certificate_as_a_pair(pair: str, tmp_path: Path) -> None:
    found = from_file(tmp_path, f"cert = {pair}")
    assert (found.cert_cert, found.cert_key, found.tls) == ("/c.pem", "/k.pem", True)


def test_what_does_nothing_is_checked_all_the_same(tmp_path: Path) -> None:
    values = {
        "allow_redirect": "Flase",
        "use_proxies": "2",
        "allow_reconnect": "nope",
        "per_host_pool_size": "ten",
        "protocol": "ftp",
        "cert": "a,b,c",
    }
    for name, value in values.items():
        with pytest.raises(ConfigError, match=f"^{name} in {re.escape(str(tmp_path))}.*: must be "):
            from_file(tmp_path, f"{name} = {value}")


def test_false_means_false() -> None:
    for name in ("allow_redirect", "allow_reconnect", "use_proxies"):
        parse = WITHOUT_EFFECT[name][0]
        assert [parse(text) for text in ("False", "no", "OFF", "0")] == [False] * 4
        assert [parse(text) for text in ("True", "yes", "ON", "1")] == [True] * 4


def test_the_new_name_wins_within_a_directory_and_the_later_directory_over_all(tmp_path: Path) -> None:
    write(tmp_path / "1", "[ETCD]\ntimeout = 1\n", "link/etcd/middleware.conf")
    write(tmp_path / "1", "[ETCD]\ntimeout = 2\n")
    write(tmp_path / "2", "[ETCD]\ntimeout = 3\n", "link/etcd/middleware.conf")
    with pytest.warns(UserWarning, match="link/etcd"):
        assert resolve(environ={}, directories=[tmp_path / "1"]).timeout == 2
    with pytest.warns(UserWarning, match="link/etcd"):
        assert resolve(environ={}, directories=[tmp_path / "1", tmp_path / "2"]).timeout == 3


def test_the_notice_comes_once_for_each_file(tmp_path: Path) -> None:
    for name in "12":
        write(tmp_path / name, "[ETCD]\nuse_proxies = no\n")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            resolve(environ={}, directories=[tmp_path / "1", tmp_path / "2"])
    assert len(caught) == 2


def test_a_variable_that_is_nearly_one_of_ours_is_told() -> None:
    with pytest.warns(UserWarning, match="LINK_KV_ENDPOINT is no option.*LINK_KV_ENDPOINTS is one"):
        resolve(environ={"LINK_KV_ENDPOINT": "elsewhere:1"}, directories=[])
    resolve(
        environ={"LINK_KV_HOME": "/x", "LINK_KV_TEST_ENDPOINTS": "h:1"}, directories=[]
    )  # warnings are errors
