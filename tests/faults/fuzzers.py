"""Programs that hand nonsense to every entrance: ``python -m tests.faults.fuzzers NAME SECONDS SEED``.

Inputs are made by hypothesis: valid ones, of which pieces were cut out, put in and doubled. Each must be
accepted or refused with an error of link_kv's own, in time, and no thread may die of it. What is neither is
shrunk, and told in the last line, which is JSON.
"""

from __future__ import annotations

import contextlib
import faulthandler
import io
import json
import logging
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
from hypothesis import HealthCheck
from hypothesis import strategies as st

from link_kv import endpoints, local, tree
from link_kv._core.links import messages
from link_kv._core.links.messages import Frame, Kind, Oversize, Reader
from link_kv._core.wire.config import resolve, url_options
from link_kv.cli import _documents
from link_kv.codec import decode, encode
from link_kv.errors import LinkKVError

SECRET = "hunter2"
"""Is in what is fuzzed where a password goes, and must not be in a message."""
IN_PLACE = (f":{SECRET}@", f"&password={SECRET}", f"\npassword = {SECRET}\n")
"""Where it is the password still, whatever happened to the rest."""


@dataclass
class Tally:
    """What came of the inputs of one entrance."""

    accepted: int = 0
    refused: int = 0
    found: list[str] = field(default_factory=list)


class Wrong(Exception):
    """An input did what none may do."""


# Inputs


def spoiled(documents: list[Any], tokens: list[Any], anything: st.SearchStrategy[Any]) -> Any:
    """One of the documents, of which pieces are missing, or are twice, or are others."""
    empty = documents[0][:0]
    piece = st.sampled_from(tokens) | anything

    def apply(given: tuple[Any, list[tuple[int, int, Any]]]) -> Any:
        text, changes = given
        for place, length, put in changes:
            at = place % (len(text) + 1)
            text = text[:at] + (text[at : at + length] * 2 if put is None else put) + text[at + length :]
        return text

    change = st.tuples(st.integers(0, 999), st.integers(0, 12), st.none() | piece)
    changed = st.tuples(st.sampled_from(documents), st.lists(change, max_size=5)).map(apply)
    return changed | st.lists(piece, max_size=12).map(empty.join)


TEXT = st.text(max_size=6)

PATHS = ["/a/b/c", "a.b", "/", "", "/%2F", "/.link/x", "/a/1/"]
PATH_TOKENS = ["/", "//", ".", "..", "%", "%2F", "%25", "%zz", "%FF", "\0", " ", "\ud800", ".link", "é", "\n"]

URLS = [
    f"etcd://root:{SECRET}@h1:2379,[::1]:2379/prefix?timeout=3",
    "etcds://h?ca_cert=a&cert_cert=b&cert_key=c&expected_cluster_id=1f",
    f"etcd:///a%2Fb?user=u&password={SECRET}",
]
URL_TOKENS = [
    "/",
    "?",
    "#",
    "@",
    ":",
    "%",
    "%00",
    "%FF",
    "&",
    "=",
    "[",
    "]",
    ",",
    "etcd://",
    SECRET,
    "é",
    "\0",
]

FILES = [
    f"[ETCD]\nhost = h\nport = 2379\nusername = root\npassword = {SECRET}\n".encode(),
    b"[ETCD]\nendpoints = h1:1,\n    h2:2\nprefix = /a\ntimeout: 3\ncert = (a, b)\nprotocol = https\n",
    b"\xef\xbb\xbf[ETCD]\nsrv_domain=example.org\nexpected_cluster_id = 1f\nuse_proxies=yes\n",
]
FILE_TOKENS = [
    *(
        b"[",
        b"]",
        b"=",
        b":",
        b"\n",
        b"\r",
        b"\0",
        b"\xff",
        b"%(x)s",
        b"#",
        b";",
        b" ",
        b"[ETCD]\n",
        b"[DEFAULT]\n",
    ),
    *(b"host=", b"port=", b"password=", b"\nuser=", b"99999", b"-1", b"nan", b"1e999", b"\xe2\x80\xa8"),
]

YAMLS = [
    """
providers:
  - name: kv_example
    module: kv_store
    endpoints:
      - &foo {name: foo, module: kv_store_key, initial_value: 1, calibration: '2*x', units: m}
      - name: bar
        module: kv_store_key
        <<: *foo
        get_on_set: yes
        max_interval: 1.5
setup_calls:
  - target: foo
    method: set
    args: [1]
    kwargs: {a: b}
""",
    "node: n\nproviders: []\n",
]
YAML_TOKENS = [
    *(
        "- ",
        "-",
        ": ",
        ":",
        "\n",
        "  ",
        "[",
        "]",
        "{",
        "}",
        "&a ",
        "*a",
        "<<: ",
        "!!",
        "!",
        "|",
        ">",
        "'",
        '"',
        "#",
    ),
    *(
        "? ",
        "%",
        "---\n",
        "...",
        "\t",
        "!!int ",
        "!!float ",
        "!!bool ",
        "!!timestamp ",
        "!!binary ",
        "!!null ",
    ),
    *(
        "2001-02-30",
        "0x_",
        "0b_",
        "1:99",
        ".nan",
        "-.inf",
        "~",
        "yes",
        "1e9",
        "9" * 40,
        "!!python/name:os.system ",
    ),
    *(
        "name: ",
        "module: ",
        "providers:\n",
        "endpoints: ",
        ".a",
        "os.path",
        "..",
        "json.JSONDecoder",
        '"\\ud800"',
    ),
    *(
        "calibration: ",
        "initial_value: ",
        "range: ",
        "alias_of: ",
        "schedule_interval: ",
        "[*a, *a]",
        "\0",
        "\x85",
    ),
]

DOCUMENTS = {
    "json": [
        '{"a": [1, 2.5, null, {"$bytes": "AP8="}], "b": {"c": {"$npy": "AA=="}, "$$x": "é"}}',
        "[[], {}]",
    ],
    "yaml": [YAMLS[0], "a: !!binary AP8=\nb: &b {c: 2024-01-01}\nd: {<<: *b, c: ~}\n? e\n: |\n  text\n"],
    "toml": ["a = 1\n[b]\nc = 2024-01-01T00:00:00Z\nd = [1, 'x', {e = nan}]\n[[f]]\n", "'$bytes' = 'AP8='\n"],
}
DOCUMENT_TOKENS = [
    *YAML_TOKENS,
    '{"$bytes": ',
    '{"$npy": ',
    '{"$float": "x"}',
    "[" * 3000,
    "[[",
    "]]",
    " = ",
    "\\u",
    "1e999",
]


# Entrances: each takes an input; what is refused raises an error of link_kv


def check_path(path: str) -> None:
    segments = tree.split(path)
    if tree.place("/".join(("", *segments))).key != tree.place(path).key:
        raise Wrong(f"{path!r} and its segments {segments} are two places")
    names = [tree.decode_name(segment) for segment in segments]
    if any(segment not in tree.segments_of(name) for name, segment in zip(names, segments, strict=True)):
        raise Wrong(f"{path!r}: the names {names} are not those of {segments}")


def check_tree(value: Any) -> None:
    at = tree.place("/tree")
    back = tree.build(sorted(tree.flatten({"a": value}, at).pairs), at)
    if repr(_sorted(back)) != repr(_sorted({"a": value})):
        raise Wrong(f"{value!r} comes back as {back!r}")


def _sorted(value: Any) -> Any:
    if isinstance(value, list):
        return [_sorted(item) for item in value]
    return {name: _sorted(value[name]) for name in sorted(value)} if isinstance(value, dict) else value


def check_stored(data: bytes) -> None:
    value = decode(data)
    again = decode(encode(value))
    if type(value) is not type(again) or _exactly(value) != _exactly(again):
        raise Wrong(f"{data!r} reads as {value!r}, and what that is written as as {again!r}")


def _exactly(value: Any) -> object:
    """What values that are the same have in common; NaN is not equal to itself."""
    return (value.dtype, value.shape, value.tobytes()) if isinstance(value, np.ndarray) else repr(value)


def check_value(value: Any) -> None:
    encode(value, "/a")


def check_url(url: str) -> None:
    with _silent():
        url_options(url)


def check_file(directory: Path, data: bytes) -> None:
    (directory / "link/kv/middleware.conf").write_bytes(data)
    with _silent():
        resolve(environ={}, directories=[directory])


def check_endpoints(directory: Path, text: str) -> None:
    file = directory / "endpoints.yaml"
    file.write_bytes(text.encode(errors="surrogatepass"))
    before = list(sys.path)
    try:
        endpoints.load(file)
    finally:
        sys.path[:] = before


def check_document(form: str, data: bytes) -> None:
    _documents.read(data, form, "a document")


def check_frames(messages_: list[bytes], limit: int | None) -> None:
    reader = Reader(limit, 5)
    for message in messages_:
        for each in reader.feed(message):
            if not isinstance(each, (Frame, Oversize)):
                raise Wrong(f"{each!r} is neither")


def check_payload(payload: bytes) -> None:
    value = messages.decode(payload)
    if not isinstance(value, (dict, list, str, int, float, bytes, np.ndarray, type(None))):
        raise Wrong(f"{payload!r} becomes a {type(value).__name__}")


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


# What there is of each


LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT | st.binary(max_size=6)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
ODD = st.recursive(
    LEAVES
    | st.complex_numbers()
    | st.datetimes()
    | st.sampled_from([object(), int, ..., np.int8(3), np.array([object()])]),
    lambda inner: st.lists(inner, max_size=3) | st.sets(st.integers()) | st.tuples(inner),
)

STORED = [
    b"5",
    b"-1.5e3",
    b'"text"',
    b"null",
    b"true",
    b"\xffbytes",
    encode(np.arange(3)),
    b"NaN",
    b"2024-01-01",
]
STORED_TOKENS = [
    *(
        b"\xff",
        b"\x93NUMPY",
        b"\x01\x00",
        b"\x03\x00",
        b'"',
        b"-",
        b"e",
        b".",
        b"0",
        b"9" * 700,
        b"\\ud800",
        b" ",
    ),
    *(
        b"{'descr': '<i8', 'fortran_order': False, 'shape': (3,), }",
        b"'|O'",
        b"(-1,)",
        b"(10**9,)",
        b"(9999999999,)",
    ),
]

PAYLOADS = [
    b"".join(map(bytes, messages.encode(value, "a value")))
    for value in (["echo", [1], {}], [b"bytes", {"a": b"more"}], np.arange(3), [float("nan"), 2**70], "text")
]
PAYLOAD_TOKENS = [
    b"\0",
    b"\1",
    b"\2",
    b"\3",
    b"\xff" * 8,
    b"[",
    b"{",
    b'"',
    b"b",
    b"n",
    b"p",
    b"[" * 300,
    b"1e999",
    b":0}",
]

FRAMES = [
    messages.frame(Kind.CALL, 1, [PAYLOADS[0]]),
    messages.frame(Kind.ASK, 2, [PAYLOADS[4]]) * 2,
    b"".join(messages.pieces(Kind.CALL, 3, [bytes(messages.PIECE), PAYLOADS[0]]))[-4000:],
    messages.frame(Kind.BIG, 4, [messages._BIG.pack(Kind.CALL, 3)]) + messages.frame(Kind.PIECE, 4, [b"abc"]),
    messages.frame(Kind.SYNC, 5, [b"\x000"]) + messages.frame(Kind.DROP, 3, [b""]),
]
FRAME_TOKENS = [*PAYLOAD_TOKENS, *(bytes([kind]) + bytes(7) for kind in range(11)), *FRAMES]


def bytes_like(documents: list[bytes], tokens: list[bytes]) -> Any:
    return spoiled(documents, tokens, st.binary(max_size=6))


Entrance = tuple[Any, Callable[[Any], None]]


@contextlib.contextmanager
def texts() -> Iterator[dict[str, Entrance]]:
    yield {
        "path": (spoiled(PATHS, PATH_TOKENS, TEXT), check_path),
        "tree": (VALUES, check_tree),
        "URL": (spoiled(URLS, URL_TOKENS, TEXT), check_url),
    }


@contextlib.contextmanager
def codec() -> Iterator[dict[str, Entrance]]:
    yield {
        "stored": (bytes_like(STORED, STORED_TOKENS), check_stored),
        "value": (ODD, check_value),
    }


@contextlib.contextmanager
def files() -> Iterator[dict[str, Entrance]]:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "link/kv").mkdir(parents=True)
        yaml = spoiled(YAMLS, YAML_TOKENS, TEXT)
        yield {
            "configuration file": (bytes_like(FILES, FILE_TOKENS), lambda data: check_file(directory, data)),
            "endpoints": (yaml, lambda text: check_endpoints(directory, text)),
            **{
                f"{form} document": (
                    spoiled(documents, DOCUMENT_TOKENS, TEXT).map(
                        lambda text: text.encode(errors="surrogatepass")
                    ),
                    lambda data, form=form: check_document(form, data),
                )
                for form, documents in DOCUMENTS.items()
            },
        }


# The command line

COMMANDS = [
    *("get", "set", "del", "describe", "ls", "tree", "import", "export", "diff", "backup", "restore", "list"),
    *(
        "status",
        "cmd",
        "ping",
        "lock",
        "unlock",
        "call",
        "identities",
        "config",
        "certs",
        "completion",
        "discover",
    ),
    *("user", "role", "serve", "service", "record", "nonsense"),
]
ARGUMENTS = [
    *(
        "/a",
        "/a/b",
        "/",
        "a.b",
        "a.*",
        "",
        "-",
        "--",
        "=",
        "/a=5",
        "value",
        "5",
        "-1",
        "[1",
        '{"a": 1}',
        "{",
        "null",
    ),
    *(
        "file.json",
        "file.yaml",
        "file.toml",
        "file.ini",
        "missing.json",
        "dump",
        ".",
        "x" * 300,
        "\udcff",
        "é",
        "\x1b[2J",
    ),
    *(
        "--json",
        "-r",
        "-y",
        "-n",
        "--ttl",
        "--if-revision",
        "--revision",
        "--format",
        "yaml",
        "toml",
        "ini",
        "-f",
    ),
    *(
        "--formatted",
        "--timestamp",
        "--units",
        "-u",
        "m",
        "--dry-run",
        "--replace",
        "--help",
        "-h",
        "--nonsense",
        "99999999999999999999",
    ),
    *(
        "127.0.0.1:1",
        "log",
        "rollback",
        "explain",
        "check",
        "status",
        "add",
        "grant",
        "passwd",
        "list",
        "delete",
        "revoke",
        "root",
    ),
    *(
        "Echo",
        "echo",
        "--wait",
        "0.1",
        "--reply-timeout",
        "--days",
        "--host",
        "bash",
        "read",
        "readwrite",
        "endpoints.yaml",
    ),
]
BEFORE = [
    *(
        [],
        ["--timeout", "1"],
        ["--timeout", "x"],
        ["--prefix", "/p"],
        ["--prefix", "//"],
        ["--endpoints", "127.0.0.1:1"],
    ),
    *(
        ["--url", "etcd://127.0.0.1:1/x"],
        ["--url", "nonsense"],
        ["--user", "u", "--password-file", "dump"],
        ["--ca-cert", "dump"],
    ),
]
_SECONDS = 10
"""What a command has. It asks etcd a few times, each with a timeout of a second."""
_WAITING = ("record", "serve", "service")
"""What goes on until Ctrl-C, by design."""
_UNTIL_CTRL_C = 2


class CommandLine:
    """Runs commands in this process, in a directory of its own, against an etcd of its own."""

    def __init__(self, directory: Path, endpoint: str) -> None:
        os.environ.update(
            LINK_KV_ENDPOINTS=endpoint, LINK_KV_TIMEOUT="1", LINK_KV_HOME=str(directory / "home")
        )
        os.chdir(directory)
        for name, text in (
            ("file.json", '{"a": [1, {"$bytes": "AP8="}]}'),
            ("file.yaml", YAMLS[0]),
            ("file.toml", "a = 1\n[b]\nc = 2024-01-01\n"),
            ("file.ini", "[a]\nb = 1\n"),
            ("dump", "nonsense\n"),
            ("endpoints.yaml", "providers: 5\n"),
        ):
            Path(name).write_text(text)

    def __call__(self, given: tuple[list[str], str, list[str], bytes]) -> None:
        from link_kv.cli import _run

        before, command, arguments, stdin = given
        # Nothing is written elsewhere.
        if command in ("export", "backup", "certs", "record", "config"):
            arguments = [each.replace("/", "") for each in arguments]
        args = [*before, command, *arguments]
        output, errors = (io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace") for _ in range(2))
        streams = sys.stdin, sys.stdout, sys.stderr
        sys.stdin, sys.stdout, sys.stderr = io.TextIOWrapper(io.BytesIO(stdin), "utf-8"), output, errors
        waits = command in _WAITING or (command == "config" and "--wait" in arguments)
        interrupted = threading.Event()

        def interrupt(*_: object) -> None:
            interrupted.set()
            signal.raise_signal(signal.SIGINT)

        signal.signal(signal.SIGALRM, interrupt)
        signal.setitimer(signal.ITIMER_REAL, _UNTIL_CTRL_C if waits else _SECONDS)
        try:
            status = _run.run(args)
        except KeyboardInterrupt:
            status = 0  # it came before the command began, or after its end
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            for stream in (output, errors):
                stream.flush()
            sys.stdin, sys.stdout, sys.stderr = streams
        said = errors.buffer.getvalue().decode()  # type: ignore[attr-defined]
        lines = said.splitlines()
        if interrupted.is_set() and not waits:
            raise Wrong(f"{args}, {stdin!r}: hung for {_SECONDS} s: {said!r}")
        if "Traceback" in said or "link-kv: unexpected" in said:
            raise Wrong(f"{args}, {stdin!r}: {said}")
        if status and (not lines or not lines[-1].startswith("link-kv: ")):
            raise Wrong(f"{args}, {stdin!r}: ended with {status} and said {said!r}")
        if status:
            raise LinkKVError(said)


@contextlib.contextmanager
def commands() -> Iterator[dict[str, Entrance]]:
    os.setsid()  # there is no terminal to ask on
    arguments = st.lists(st.sampled_from(ARGUMENTS) | TEXT.filter(lambda text: "\0" not in text), max_size=5)
    line = st.tuples(
        st.sampled_from(BEFORE),
        st.sampled_from(COMMANDS),
        arguments,
        st.sampled_from([b"", b"y\n", b'{"a": 1}', b"\xff", b"a: &a [*a]"]),
    )
    with tempfile.TemporaryDirectory() as name, local.start() as etcd:
        yield {"command line": (line, CommandLine(Path(name), etcd.endpoints[0]))}


# Services


class Stranger:
    """Speaks with a service that runs, by frames that are none, over TCP that is none."""

    def __init__(self, endpoint: str, stack: ExitStack) -> None:
        from link_kv.links import connect
        from tests.services.echo import Echo

        url = f"etcd://{endpoint}/fuzz"
        service = Echo()
        service.start_in_thread(host=url)
        stack.callback(service.stop)
        self._link = stack.enter_context(connect(host=url, name="honest")).link("Echo")
        self.address = service.address

    def frames(self, messages_: list[bytes]) -> None:
        import grpc

        tether = self._link._tether
        known = {"token": tether.record.token, "link": tether.link, "secret": tether._secret}
        pairs = tuple((f"link-kv-{name}", value) for name, value in known.items())
        with grpc.insecure_channel(self.address) as channel:
            method = channel.stream_stream("/link_kv.Link/Talk")  # type: ignore[call-arg]
            try:
                for _ in method(iter(messages_), metadata=pairs, timeout=5):  # type: ignore[operator]
                    pass
            except grpc.RpcError as error:
                status = error.code()  # type: ignore[attr-defined]
                if status not in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.CANCELLED):
                    raise Wrong(f"{messages_!r} ended with {status}") from None
        self.goes_on(messages_)

    def raw(self, data: bytes) -> None:
        import socket

        host, _, port = self.address.rpartition(":")
        with socket.create_connection((host, int(port)), 10) as plain, contextlib.suppress(OSError):
            plain.sendall(data)
        self.goes_on(data)

    def goes_on(self, after: object) -> None:
        if self._link.same(1, timeout=20) != 1:
            raise Wrong(f"{after!r}: the service answers others with nonsense")


@contextlib.contextmanager
def services() -> Iterator[dict[str, Entrance]]:
    frames = bytes_like(FRAMES, FRAME_TOKENS)
    some = st.lists(frames, max_size=5)
    limits = st.none() | st.integers(1, 100)
    with local.start() as etcd, ExitStack() as stack:
        stranger = Stranger(etcd.endpoints[0], stack)
        preface = [
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]),
            b"GET / HTTP/1.0\r\n\r\n",
        ]
        yield {
            "payload": (bytes_like(PAYLOADS, PAYLOAD_TOKENS), check_payload),
            "frames": (st.tuples(some, limits), lambda given: check_frames(*given)),
            "stream of a service": (some, stranger.frames),
            "socket of a service": (bytes_like(preface, [b"\0", b"\xff\xff\xff", *FRAMES]), stranger.raw),
        }


FUZZERS = {"texts": texts, "codec": codec, "files": files, "commands": commands, "services": services}


# Running them


def _text(given: object) -> str:
    return given.decode(errors="replace") if isinstance(given, bytes) else str(given)


class _Errors(logging.Handler):
    """What is told of errors that nobody expected, by loggers and by threads that died of them."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(f"was logged: {self.format(record)}")

    def died(self, args: threading.ExceptHookArgs) -> None:
        told = "".join(traceback.format_exception(args.exc_type, args.exc_value, args.exc_traceback))
        self.records.append(f"a thread died: {told[-900:]}")


_LONGEST = 15
"""Seconds that one input may take, on however busy a machine."""


def fuzz(entrance: Entrance, seconds: float, seed: int, tally: Tally) -> None:
    """Hand inputs to an entrance for so long."""
    inputs, check = entrance
    until = time.monotonic() + seconds
    last: list[Any] = []

    def one(given: Any) -> None:
        if time.monotonic() > until:
            return
        last[:] = [given]
        began = time.monotonic()
        try:
            check(given)
        except LinkKVError as error:
            if SECRET in str(error) and any(each in _text(given) for each in IN_PLACE):
                raise Wrong(f"{given!r}: the message has the password: {error}") from None
            tally.refused += 1
        else:
            tally.accepted += 1
        if (took := time.monotonic() - began) > _LONGEST:
            raise Wrong(f"{given!r} took {took:.0f} s")

    while time.monotonic() < until and len(tally.found) < 3:
        batch = hypothesis.given(inputs)(one)
        batch = hypothesis.settings(
            max_examples=50,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=False,
        )(hypothesis.seed(seed)(batch))
        seed += 1
        try:
            batch()
        except Exception as error:  # noqa: BLE001 - that is what is looked for
            causes = getattr(error, "exceptions", (error,))  # several of what did not fail again
            told = "; ".join(f"{type(each).__name__}: {each}" for each in causes)
            tally.found.append(f"{told} <- {last[0]!r}"[:1000])


def main(name: str, seconds: str, seed: str) -> None:
    os.nice(10)  # others that run meanwhile measure times
    # What hangs for good is told where, and ends the program without its last line.
    faulthandler.dump_traceback_later(2 * float(seconds) + 60, exit=True)
    errors = _Errors()
    logging.getLogger().addHandler(errors)
    threading.excepthook = errors.died
    tallies: dict[str, Tally] = {}
    with FUZZERS[name]() as entrances:
        for what, entrance in entrances.items():
            tallies[what] = Tally()
            fuzz(entrance, float(seconds) / len(entrances), int(seed), tallies[what])
            tallies[what].found += [text[:1000] for text in errors.records[:3]]
            errors.records.clear()
    # With the entrances, what served them ended too.
    tallies[what].found += [text[:1000] for text in errors.records[:3]]
    print(json.dumps({what: asdict(tally) for what, tally in tallies.items()}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
