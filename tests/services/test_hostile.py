"""What comes in from somebody who knows the token, or does not, and means no good."""

from __future__ import annotations

import contextlib
import queue
import socket
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from link_kv import LinkKVError
from link_kv._core.links import messages
from link_kv._core.links.messages import PIECE, BadMessage, Frame, Kind, Oversize, Reader, encode, frame
from link_kv._core.links.outbox import Outbox
from link_kv.links import Client

from ..processes import until
from .echo import Echo


class Caller:
    """A stream of somebody who sends what he likes, as a linked client."""

    def __init__(self, address: str, **metadata: str) -> None:
        self._channel = grpc.insecure_channel(address)
        self._out: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        method = self._channel.stream_stream("/link_kv.Link/Talk")  # type: ignore[call-arg]
        pairs = tuple((f"link-kv-{name}", value) for name, value in metadata.items())
        self._call: Any = method(iter(self._out.get, None), metadata=pairs)

    def send(self, data: bytes) -> None:
        self._out.put(data)

    def receive(self) -> list[Frame]:
        return list(messages.frames(next(self._call)))

    def ended(self) -> Any:
        """How it ended: gRPC's status, None when the service just closed it."""
        try:
            for _ in self._call:
                pass
        except grpc.RpcError as error:
            return error.code()  # type: ignore[attr-defined]
        return None

    def close(self) -> None:
        self._out.put(None)
        self._call.cancel()
        self._channel.close()


@pytest.fixture
def hostile(echo: Echo, client: Client) -> Iterator[Any]:
    """Makes streams with the token, link and secret of an honest client, or others."""
    link = client.link("Echo")
    tether = link._tether
    known = {"token": tether.record.token, "link": tether.link, "secret": tether._secret}
    made: list[Caller] = []

    def make(**other: str) -> Caller:
        caller = Caller(echo.address, **{**known, **other})
        made.append(caller)
        return caller

    yield make
    for caller in made:
        caller.close()
    assert link.echo("still there") == [["still there"], {}]


def call(*parts: Any) -> bytes:
    return frame(Kind.CALL, 1, encode(list(parts), "call"))


@pytest.mark.parametrize("token", ["", "nonsense", "0" * 32])
def test_without_the_token_nothing_is_answered(hostile: Any, token: str) -> None:
    caller = hostile(token=token)
    caller.send(call("echo", [], {}))
    assert caller.ended() is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize("other", [{"link": "x"}, {"secret": "x"}, {"link": "", "secret": ""}])
def test_without_a_link_calls_are_refused(hostile: Any, echo: Echo, other: dict[str, str]) -> None:
    caller = hostile(**other)
    caller.send(call("echo", [], {}))
    (answer,) = caller.receive()
    assert answer.kind == Kind.ERROR
    assert b"not linked" in answer.payload
    echo.emit_notification("secret")
    caller.send(frame(Kind.SYNC, 2, encode(0, "")))
    (answer,) = caller.receive()
    assert (answer.kind, answer.number) == (Kind.RESULT, 2)  # and no notification before it


@pytest.mark.parametrize(
    "data",
    [
        b"\0",
        b"nonsense that is longer than a head",
        frame(99, 1, [b""]),
        frame(Kind.RESULT, 1, [b""]),
        frame(Kind.NOTIFY, 1, [b""]),
        frame(Kind.PIECE, 1, [b"x"]),
        frame(Kind.BIG, 1, [b"x"]),
        frame(Kind.BIG, 1, [struct.pack("<BQ", Kind.BIG, 10)]),
        frame(Kind.BIG, 1, [struct.pack("<BQ", Kind.CALL, 3)]) + frame(Kind.PIECE, 1, [b"four"]),
        frame(Kind.BIG, 1, [struct.pack("<BQ", Kind.CALL, 3)]) * 2,
        call("echo", [], {})[:-1],
    ],
)
def test_what_is_no_frame_ends_the_link(hostile: Any, data: bytes) -> None:
    caller = hostile()
    caller.send(data)
    assert caller.ended() in (None, grpc.StatusCode.OK)


def test_too_many_payloads_in_pieces(hostile: Any) -> None:
    caller = hostile()
    announcements = [
        frame(Kind.BIG, number, [struct.pack("<BQ", Kind.CALL, 1 << 40)]) for number in range(1001)
    ]
    caller.send(b"".join(announcements))
    assert caller.ended() is None


def test_payloads_that_are_given_up_leave_nothing(hostile: Any) -> None:
    caller = hostile()
    for number in range(2, 1503):
        big = frame(Kind.BIG, number, [struct.pack("<BQ", Kind.CALL, 10)])
        caller.send(big + frame(Kind.PIECE, number, [b"x"]) + frame(Kind.DROP, number, [b""]))
    caller.send(call("echo", [1], {}))
    (answer,) = caller.receive()
    assert messages.decode(answer.payload) == [[1], {}]


def test_a_message_that_is_too_long(hostile: Any) -> None:
    caller = hostile()
    caller.send(bytes(10_000_000))
    assert caller.ended() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\0",
        b"\0{",
        b"\0" + b"[" * 100_000,
        b"\x01" + b"[" * 100_000,
        b"\x01[1e400000]",
        b"\x09[]",
        b"\x02",
        b"\x02" + bytes(12),
        messages._TABLE.pack(2, 3, b"mark1234") + b"[1]" + b"b" + b"\xff" * 8,
        messages._TABLE.pack(2, 16, b"mark1234") + b'[{"mark1234":9}]',
        messages._TABLE.pack(2, 18, b"mark1234") + b'[{"mark1234":null}]',
        messages._TABLE.pack(2, 2, b"\xff" * 8) + b"[]",
        messages._TABLE.pack(2, 2, b"mark1234") + b"[]" + b"p" + struct.pack("<Q", 1) + b".",
        *(
            encode(value, "")[0]
            for value in (1, [], ["echo"], [1, [], {}], ["echo", {}, {}], ["echo", [], []], {"echo": 1}, None)
        ),
    ],
)
def test_a_call_that_is_none_is_an_error_and_the_link_goes_on(hostile: Any, payload: bytes) -> None:
    caller = hostile()
    caller.send(frame(Kind.CALL, 7, [payload]))
    (answer,) = caller.receive()
    assert (answer.kind, answer.number) == (Kind.ERROR, 7)
    caller.send(call("echo", [1], {}))
    (answer,) = caller.receive()
    assert messages.decode(answer.payload) == [[1], {}]


@pytest.mark.parametrize(
    "attribute",
    ["__class__", "__init__", "_secret", "_serving", "stop", "emit_notification", "__dict__", "name"],
)
def test_what_is_not_public_is_not_reached(hostile: Any, attribute: str) -> None:
    caller = hostile()
    caller.send(call(attribute, [], {}))
    (answer,) = caller.receive()
    assert answer.kind == Kind.ERROR
    assert b'"refused":"access"' in answer.payload


def test_arguments_cannot_reach_python(hostile: Any) -> None:
    caller = hostile()
    caller.send(call("echo", [], {"self": 1}))
    (answer,) = caller.receive()
    assert answer.kind == Kind.ERROR


def test_who_floods_waits(hostile: Any, echo: Echo, client: Client) -> None:
    """The stream of one who sends more than is answered is not read on, and others are answered."""
    caller = hostile()
    many = b"".join(frame(Kind.CALL, number, encode(["wait", [], {}], "")) for number in range(2000))
    for _ in range(8):
        caller.send(many)
    serving = echo._serving
    assert serving is not None
    try:
        until(lambda: any(each._queued == 10_000 for each in serving.host._open))
        link = client.link("Echo")
        assert link.echo(timeout=20) == [[], {}]
        link.unlink()
    finally:
        echo.release()


def test_who_floods_with_revisions_to_come_takes_few_threads(hostile: Any, echo: Echo) -> None:
    caller = hostile(link="nobody's")
    serving = echo._serving
    assert serving is not None
    seen = threading.Semaphore(0)
    free = threading.Event()

    def sync(revision: int) -> bool:
        seen.release()
        return free.wait(60)

    serving.host.sync = sync
    caller.send(b"".join(frame(Kind.SYNC, number, encode(1 << 60, "")) for number in range(500)))
    try:
        until(lambda: any(each._queued == 500 for each in serving.host._open))
        assert serving.host._busy <= 10
    finally:
        free.set()
    for _ in range(500):
        assert seen.acquire(timeout=20)


def test_who_has_many_calls_under_way_may_still_lock(echo: Echo, client: Client) -> None:
    """The service answers what a lock waits for, though it takes no more calls of the link meanwhile."""
    link = client.link("Echo")
    waiting = [link.wait(asynchronous=True) for _ in range(300)]
    serving = echo._serving
    assert serving is not None
    until(lambda: any(each._queued == 300 for each in serving.host._open))
    line = link._tether._line
    assert line is not None
    link._tether._sync(line, time.monotonic() + 20)
    assert not hasattr(link, "nonsense")
    assert link.acquire_lock() == ["Client"]
    assert not any(each.done() for each in waiting)
    echo.release()
    assert {each.result(20) for each in waiting} == {"released"}


def test_a_socket_that_speaks_no_grpc(echo: Echo, client: Client) -> None:
    link = client.link("Echo")
    host, _, port = echo.address.rpartition(":")
    for data in (
        b"GET / HTTP/1.0\r\n\r\n",
        b"\0" * 1000,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 100,
    ):
        with socket.create_connection((host, int(port)), 10) as plain:
            plain.sendall(data)
    assert link.echo() == [[], {}]


# A service that means no good


class Liar:
    """Listens where a service would, and answers with what it is told."""

    def __init__(self, *answers: bytes) -> None:
        from link_kv._core.links.direct import Listener

        self._answers = answers
        self.heard: list[bytes] = []
        self.listener = Listener("127.0.0.1:0", lambda metadata, address: self, None)

    def hear(self, incoming: Any) -> None:
        for message in incoming:
            self.heard.append(message)

    def messages(self) -> Iterator[bytes]:
        until(lambda: self.heard)
        yield frame(Kind.RESULT, 1, encode(True, ""))
        until(lambda: len(self.heard) > 1)
        yield from self._answers
        threading.Event().wait(5)


@pytest.mark.parametrize(
    "answer",
    [
        b"nonsense",
        frame(Kind.CALL, 2, [b""]),
        frame(Kind.RESULT, 2, [b"\0{"]),
        frame(Kind.RESULT, 2, [b""]),
        frame(Kind.ERROR, 2, [b"\0[]"]),
        frame(Kind.ERROR, 2, [b"nonsense"]),
        frame(Kind.ERROR, 2, [b'\0{"refused":[],"message":1}']),
        frame(Kind.BIG, 2, [struct.pack("<BQ", Kind.RESULT, 1 << 60)]) + frame(Kind.PIECE, 2, [b"x"]) + b"\0",
    ],
)
def test_a_service_that_lies_is_an_error(client: Client, etcd_client: Any, answer: bytes) -> None:
    from link_kv._core.links import registry
    from link_kv._core.links.registry import ServiceRecord
    from link_kv._core.wire.calls import run

    liar = Liar(answer)
    record = ServiceRecord(f"127.0.0.1:{liar.listener.port}", "token", {"echo": "()"}, 0)
    assert client._presence is not None
    run(registry.register_service(etcd_client._exchange(), "Liar", record, client._presence.lease))
    link = client.link("Liar")
    with pytest.raises(LinkKVError):
        link.echo(timeout=20)
    link.unlink()
    liar.listener.close(0)


# The pieces


@given(st.lists(st.binary(max_size=40), max_size=20), st.data())
def test_whatever_comes_in_is_a_frame_or_bad(parts: list[bytes], data: st.DataObject) -> None:
    reader = Reader(data.draw(st.one_of(st.none(), st.integers(1, 100))), 5)
    framed = [
        frame(data.draw(st.sampled_from([*Kind, 0, 77])), data.draw(st.integers(0, 3)), [part])
        for part in parts
    ]
    try:
        for message in [*framed, *parts]:
            for each in reader.feed(message):
                assert isinstance(each, (Frame, Oversize))
    except BadMessage:
        pass


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
)


@given(JSON)
def test_every_value_comes_back(value: Any) -> None:
    payload = b"".join(encode(value, "value"))
    back = messages.decode(payload)
    assert back == value
    assert repr(back) == repr(value)


@given(st.binary())
def test_whatever_is_no_payload_is_bad(data: bytes) -> None:
    with contextlib.suppress(BadMessage):
        messages.decode(data)


@given(st.lists(st.integers(0, 3 * PIECE), min_size=1, max_size=4))
def test_what_goes_into_an_outbox_comes_out_of_a_reader(sizes: list[int]) -> None:
    outbox, reader = Outbox(), Reader(None)
    for number, size in enumerate(sizes):
        outbox.put(Kind.CALL, number, [bytes(size)])
    outbox.end()
    got = {each.number: len(each.payload) for message in outbox for each in reader.feed(message)}  # type: ignore[union-attr]
    assert got == dict(enumerate(sizes))


@pytest.mark.parametrize("length", [PIECE, 10 * PIECE])
def test_what_is_offered_is_refused_while_too_much_waits(length: int) -> None:
    outbox, limit = Outbox(limit=25 * PIECE), 25 * PIECE
    parts: list[Any] = [bytes(length)]
    framed = messages.frame(Kind.NOTIFY, 1, parts) if length <= PIECE else None

    def offer_all() -> int:
        taken = 0
        while outbox.offer(Kind.NOTIFY, 1, parts, framed):
            taken += length
        return taken

    assert limit - length <= offer_all() <= limit + length
    outbox.drop(1)
    while outbox._frames or outbox._large:
        outbox._take()
    assert limit - length <= offer_all() <= limit + length


def test_small_frames_pass_between_the_pieces_of_large_ones() -> None:
    outbox = Outbox()
    outbox.put(Kind.CALL, 1, [bytes(10 * PIECE)])
    next(outbox)
    outbox.put(Kind.CALL, 2, [b"small"])
    assert any(each.number == 2 for each in messages.frames(next(outbox)))
    outbox.drop(1)
    outbox.end()
    assert list(outbox) == []


@given(st.lists(st.sampled_from([1, PIECE, PIECE + 1, 3 * PIECE]), max_size=12))
def test_what_is_offered_comes_in_its_order(sizes: list[int]) -> None:
    outbox, reader = Outbox(), Reader(None)
    for number, size in enumerate(sizes):
        parts: list[Any] = [bytes(size)]
        framed = messages.frame(Kind.NOTIFY, number, parts) if size <= PIECE else None
        assert outbox.offer(Kind.NOTIFY, number, parts, framed)
        outbox.put(Kind.RESULT, 100 + number, [b"between"])
    outbox.end()
    got = [each.number for message in outbox for each in reader.feed(message)]
    assert [number for number in got if number < 100] == list(range(len(sizes)))
    assert sorted(got) == [*range(len(sizes)), *range(100, 100 + len(sizes))]
