"""The options before the command, passwords, and how failures are told."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from link_kv import EtcdMiddleware, local
from link_kv.cli._run import _message, link_kv
from link_kv.local import LocalEtcd

from ..processes import ask
from .command import call, on_terminal
from .conftest import Cli


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """What a command that failed said."""
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("link-kv: ")
    assert done.stderr.count("\n") == 1
    assert done.stderr.rstrip("\n").isprintable()
    return done.stderr.removeprefix("link-kv: ").rstrip("\n")


def commands_of(group: click.Group, above: str = "") -> Iterator[tuple[str, click.Command]]:
    """All commands by what one types, those of groups too."""
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands_of(command, f"{name} ")
        else:
            yield f"{above}{name}", command


def test_the_reference_names_every_command_and_option() -> None:
    page = (Path(__file__).parents[2] / "docs/reference/command-line.md").read_text(encoding="utf-8")
    missing = []
    for name, command in commands_of(link_kv):
        *group, last = name.split()
        if not re.search(rf"`{''.join(f'{each} ' for each in group)}[^`]*\b{last}\b", page):
            missing.append(name)
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                missing += [
                    f"{name} {option}" for option in parameter.opts if not re.search(rf"[` ]{option}\b", page)
                ]
    assert missing == []


def test_options_win_over_the_environment(cli: Cli, etcd_client: EtcdMiddleware) -> None:
    etcd_client["/a"] = 1
    [endpoint, *_] = cli.etcd.endpoints
    elsewhere = {"LINK_KV_ENDPOINTS": "127.0.0.1:1", "LINK_KV_PREFIX": "/elsewhere", "LINK_KV_TIMEOUT": "1"}
    assert call(*cli.options, "get", "/a", **elsewhere).stdout == "1\n"
    url = f"etcd://{endpoint}{cli.prefix}"
    assert call("--url", url, "get", "/a", **elsewhere).stdout == "1\n"
    assert call("--url", "etcd://127.0.0.1:1/x", *cli.options, "get", "/a", **elsewhere).stdout == "1\n"
    assert call("--prefix", "/", "get", f"{cli.prefix}/a", LINK_KV_ENDPOINTS=endpoint).stdout == "1\n"
    assert "127.0.0.1:1" in one_line(call("get", "/a", **elsewhere))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["get", "/none"], "/none: nothing is there"),
        (["ls", "none"], "'none': a path starts with a slash, such as /store/key"),
        (["get", "/a//b"], "'/a//b': a path cannot have an empty segment"),
        (["get"], "Missing argument 'PATH'. Try 'link-kv get --help'."),
        (
            ["get", "/a", "--endpoints", "x"],
            "--endpoints stands before the command: link-kv --endpoints … get",
        ),
        (["get", "/a", "--endpoint", "x"], r"No such option.*--endpoint.* Try 'link-kv get --help'\."),
        (["del"], "Missing argument 'PATH…'. Try 'link-kv del --help'."),
        (["set", "/a", "b", "c"], r"Got unexpected extra argument \(c\)\. Try 'link-kv set --help'\."),
        (["gett"], "No such command 'gett'. Did you mean 'get'? Try 'link-kv --help'."),
        (["zzz"], "No such command 'zzz'. Try 'link-kv --help'."),
        (["config", "lgo"], "No such command 'lgo'. Did you mean 'log'? Try 'link-kv config --help'."),
        (["user", "ad"], "No such command 'ad'. Did you mean 'add'? Try 'link-kv user --help'."),
        (["get", "/a", "--colour"], r"No such option.*--colour.* Try 'link-kv get --help'\."),
        (["set", "/a", "1", "--ttl", "-1"], "/a: ttl=-1.0: a time to live is a positive number of seconds"),
        (["import", "/none.json", "/a"], "/none.json: No such file or directory"),
        (["import", __file__, "/a"], rf"{re.escape(__file__)}, line 1, column \d+: Extra data"),
        (["backup", "/none/b"], ".*: No such file or directory"),
        (
            ["restore", __file__],
            rf"{re.escape(__file__)}: is no backup, or a damaged one: Not a gzipped file .*",
        ),
        (["--timeout", "soon", "ls"], "--timeout: must be a finite number of seconds above 0, not 'soon'"),
        (["--ca-cert", "/none.pem", "ls"], "ca_cert: cannot read /none.pem: No such file or directory"),
        (["--url", "http://h", "ls"], "URL: not understood; .*"),
        (
            ["--url", "etcd://me:secret@h", "ls"],
            "--url: a password in it shows in ps; leave it out, it is asked for",
        ),
        (
            ["--password-file", "/none", "ls"],
            "Invalid value for '--password-file': File '/none' does not exist. .*",
        ),
        (["ls", "/none", "--limit", "-1"], "Invalid value for '--limit': .*"),
        (["completion", "csh"], "Invalid value for '{bash\\|zsh\\|fish}': 'csh' is not one of .*"),
    ],
)
def test_a_failure_says_what_is_wrong(cli: Cli, args: list[str], message: str) -> None:
    result = cli.run(*args)
    assert isinstance(result.exception, Exception)
    assert result.stdout_bytes == b""
    said = _message(result.exception)
    assert said == message or re.fullmatch(message, said)


@pytest.mark.parametrize("group", [[], ["config"], ["user"], ["role"], ["auth"]])
def test_a_group_alone_shows_its_help(group: list[str]) -> None:
    done = call(*group)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == call(*group, "--help").stdout
    assert done.stdout.startswith(f"Usage: {' '.join(['link-kv', *group])} [OPTIONS] ")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["get", "/no\nne\x1b[31m"], r"/no\nne\x1b[31m: nothing is there"),
        (["get"], "Missing argument 'PATH'. Try 'link-kv get --help'."),
        (["backup", "/none/b"], "/none/"),
    ],
)
def test_a_failure_is_one_line(cli: Cli, args: list[str], message: str) -> None:
    assert one_line(call(*cli.options, *args)).startswith(message)


def test_bytes_that_are_no_text_are_no_path(cli: Cli) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "link_kv.cli", *cli.options, "get", b"/\xff"], capture_output=True, check=False
    )
    assert (done.returncode, done.stderr.count(b"\n")) == (1, 1)
    assert b"a path cannot have lone surrogates" in done.stderr


def test_an_unexpected_error_is_one_line_and_a_traceback_for_developers(cli: Cli) -> None:
    code = (
        "import sys; from link_kv.cli import _run, get; "
        "get.resolve_path = None; sys.exit(_run.run(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, *cli.options, "get", "/a"]
    done = subprocess.run(command, capture_output=True, check=False, encoding="utf-8")
    assert one_line(done) == "unexpected TypeError: 'NoneType' object is not callable"
    command.insert(1, "-Xdev")
    assert "Traceback" in subprocess.run(command, capture_output=True, check=False, encoding="utf-8").stderr


def test_an_interrupt_while_it_is_imported_is_one_line() -> None:
    code = """if True:
        import signal, sys
        from link_kv.cli import main

        class Interrupting:
            @staticmethod
            def find_spec(name, *where):
                if name == "link_kv.cli._run":
                    signal.raise_signal(signal.SIGINT)

        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.meta_path.insert(0, Interrupting)
        main()
    """
    done = subprocess.run([sys.executable, "-c", code, "ls"], capture_output=True, check=False, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "link-kv: interrupted\n")


@pytest.mark.parametrize(
    "come",
    [
        # As a module that makes dataclasses runs one. `python -m` would take it for one that nobody caught.
        pytest.param("exec('signal.raise_signal(signal.SIGTERM); None')", id="within a string that is run"),
        # Where an exception is told, and goes no further.
        pytest.param("weakref.finalize(set(), signal.raise_signal, signal.SIGTERM)", id="at a finalizer"),
        # As one that comes just before the main thread begins to wait, which wakes nobody.
        pytest.param(
            "Timer(0.2, lambda: signal.pthread_kill(get_ident(), signal.SIGTERM)).start()",
            id="while nothing wakes the main thread",
        ),
    ],
)
def test_an_interrupt_that_comes_at_an_unlucky_moment_is_one(come: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(f"""if True:
        import signal, sys, weakref
        from threading import Event, Timer, get_ident
        from link_kv.cli import _run, get

        def resolve_path(name):
            {come}
            Event().wait()

        get.resolve_path = resolve_path
        sys.exit(_run.run(sys.argv[1:]))
    """)
    command = [sys.executable, "-m", "program", "get", "/a"]
    done = subprocess.run(command, capture_output=True, check=False, text=True, cwd=tmp_path, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "\nlink-kv: interrupted\n")


def test_nobody_reads(cli: Cli, etcd_client: EtcdMiddleware) -> None:
    etcd_client["/a"] = {f"{number}": "x" * 100 for number in range(5000)}
    script = f'"$0" -m link_kv.cli {" ".join(cli.options)} tree | head -1'
    done = subprocess.run(
        ["bash", "-c", script, sys.executable], capture_output=True, check=True, encoding="utf-8"
    )
    assert done.stdout.startswith("/a/0\t")
    assert done.stderr == ""


def test_a_warning_is_one_line(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "link/kv").mkdir(parents=True)
    (tmp_path / "link/kv/middleware.conf").write_text("[ETCD]\nuse_proxies = yes\n")
    done = call(*cli.options, "ls", B3J0F_CONF_DIR=str(tmp_path))
    assert done.returncode == 0
    assert re.fullmatch(r"link-kv: .*use_proxies does nothing.*\n", done.stderr)


def test_output_that_cannot_be_written_in_this_encoding(cli: Cli, etcd_client: EtcdMiddleware) -> None:
    etcd_client["/→"] = 1
    assert call(*cli.options, "ls", PYTHONIOENCODING="latin-1").stdout == "\\u2192\n"


# Passwords


@pytest.fixture(scope="module")
def guarded() -> Iterator[LocalEtcd]:
    """An etcd that asks who one is."""
    with local.start() as etcd:
        for path, body in (
            ("user/add", {"name": "root", "password": "s3cret"}),
            ("role/add", {"name": "root"}),
            ("user/grant", {"user": "root", "role": "root"}),
            ("enable", {}),
        ):
            assert "error" not in ask(etcd.endpoints[0], f"/v3/auth/{path}", body)
        yield etcd


def test_where_a_password_comes_from(guarded: LocalEtcd, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("s3cret\nand a remark\n")
    given = ["--endpoints", guarded.endpoints[0], "--user", "root"]
    login = f"etcd://root@{guarded.endpoints[0]}"
    assert call(*given, "ls", LINK_KV_PASSWORD="s3cret").returncode == 0
    assert call(*given, "--password-file", str(file), "ls", LINK_KV_PASSWORD="wr0ng").returncode == 0
    assert call("--url", login, "--password-file", str(file), "ls").returncode == 0
    message = one_line(call(*given, "ls"))
    assert message == "--user needs password too: set LINK_KV_PASSWORD, or give --password-file"
    assert "wr0ng" not in (told := one_line(call(*given, "ls", LINK_KV_PASSWORD="wr0ng")))
    assert "authentication failed" in told
    assert told.endswith(": give --user and --password-file")
    file.write_text("\ns3cret\n")
    assert one_line(call(*given, "--password-file", str(file), "ls")) == (
        f"--password-file: the first line of {file} is empty"
    )


@pytest.mark.parametrize("how", ["option", "url", "environment"])
def test_a_terminal_is_asked_for_the_password_and_does_not_show_it(guarded: LocalEtcd, how: str) -> None:
    [endpoint] = guarded.endpoints
    options = {
        "option": ["--endpoints", endpoint, "--user", "root"],
        "url": ["--url", f"etcd://root@{endpoint}"],
    }
    environment = {"LINK_KV_ENDPOINTS": endpoint, "LINK_KV_USER": "root"} if how == "environment" else {}
    talk = (("Password: ", "s3cret"),)
    status, text = on_terminal(*options.get(how, []), "set", "/a", "1", talk=talk, **environment)
    assert status == 0
    assert "revision " in text
    assert "s3cret" not in text


def test_nothing_is_asked_where_something_else_is_wrong() -> None:
    status, text = on_terminal("--user", "root", "--timeout", "soon", "ls")
    assert status == 1
    assert "Password" not in text
    status, text = on_terminal("ls", LINK_KV_ENDPOINTS="127.0.0.1:1", LINK_KV_TIMEOUT="0.5")
    assert (status, "Password" in text) == (1, False)
