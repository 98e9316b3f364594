"""A TCP proxy between a client and an etcd, that can be cut, held and closed."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from types import TracebackType


class Proxy:
    """Passes bytes on in both directions, until told otherwise. A context manager.

    `hold` is a cable that was pulled: connections stay and nothing passes. `mute` lets requests pass and no
    answers. `cut` breaks the connections that there are. `close` and `reopen` are a port on which nobody
    listens for a while.
    """

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = host, int(port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._address = self._listener.getsockname()
        self.endpoint = f"127.0.0.1:{self._address[1]}"
        self.accepted = 0
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._servers: set[socket.socket] = set()
        self._commands: list[str] = []
        self._held = self._muted = False
        self._wake, self._woken = socket.socketpair()
        self._obeyed = threading.Condition()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tell("stop")
        self._thread.join(10)
        self._wake.close()

    def hold(self) -> None:
        """Pass nothing on from now on, and accept connections without serving them."""
        self._tell("hold")

    def mute(self) -> None:
        """Pass no answers on from now on."""
        self._tell("mute")

    def release(self) -> None:
        """Pass on again what arrives, and what has arrived meanwhile."""
        self._tell("release")

    def cut(self) -> None:
        """Break all connections. What was on its way is lost."""
        self._tell("cut")

    def close(self) -> None:
        """Listen no more, and break all connections."""
        self._tell("close")

    def reopen(self) -> None:
        """Listen again on the same port."""
        self._tell("reopen")

    def hang_up(self, times: int, seconds: float) -> bool:
        """While it is closed, take so many connections and hang up; whether so many came in this time."""
        end = time.monotonic() + seconds
        with socket.create_server(self._address) as listener:
            for _ in range(times):
                listener.settimeout(max(0.001, end - time.monotonic()))
                try:
                    listener.accept()[0].close()
                except TimeoutError:
                    return False
        return True

    @property
    def connections(self) -> int:
        return len(self._pairs) // 2

    def pending(self) -> bytes:
        """What clients have sent, and waits while nothing is passed on."""
        found = b""
        for client in set(self._pairs) - self._servers:
            with contextlib.suppress(OSError):  # nothing, or it was closed
                found += client.recv(2**20, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        return found

    def _tell(self, command: str) -> None:
        with self._obeyed:
            self._commands.append(command)
            self._wake.send(b"!")
            assert self._obeyed.wait_for(lambda: command not in self._commands, 10)

    def _run(self) -> None:
        while True:
            sources = [self._woken]
            if self._listener.fileno() >= 0:
                sources.append(self._listener)
            if not self._held:
                sources += (end for end in self._pairs if not self._muted or end not in self._servers)
            for source in select.select(sources, [], [])[0]:
                if source is self._woken:
                    self._woken.recv(64)
                    if not self._obey():
                        return
                    break  # what else was ready may be closed by now
                if source is self._listener:
                    self._accept()
                elif source in self._pairs:
                    self._pass_on(source)

    def _obey(self) -> bool:
        with self._obeyed:
            commands = self._commands[:]
            for command in commands:
                if command in ("hold", "mute", "release"):
                    self._held, self._muted = command == "hold", command == "mute"
                elif command == "reopen":
                    self._listener = socket.create_server(self._address)
                else:
                    for connection in list(self._pairs):
                        self._break(connection)
                    if command != "cut":
                        self._listener.close()
            del self._commands[: len(commands)]
            self._obeyed.notify_all()
            if "stop" in commands:
                self._woken.close()
            return "stop" not in commands

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        self.accepted += 1
        try:
            server = socket.create_connection(self._target, 10)
        except OSError:
            client.close()
            return
        self._pairs[client], self._pairs[server] = server, client
        self._servers.add(server)

    def _pass_on(self, source: socket.socket) -> None:
        try:
            data = source.recv(65536)
            if data:
                self._pairs[source].sendall(data)
        except OSError:
            data = b""
        if not data:
            self._break(source)

    def _break(self, connection: socket.socket) -> None:
        other = self._pairs.pop(connection, None)
        if other is None:
            return
        self._pairs.pop(other, None)
        self._servers -= {connection, other}
        for end in (connection, other):
            with contextlib.suppress(OSError):  # the other end may have been faster
                end.shutdown(socket.SHUT_RDWR)
            end.close()
