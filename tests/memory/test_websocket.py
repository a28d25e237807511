"""The WebSocket protocol on a transport that only remembers: what must not pile up."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from websockets.frames import Frame, Opcode

from memory_gateway import OnePlace
from server.access.rules import OPEN
from server.admission import Admission
from server.sockets import SocketClosed
from server.websocket import Route, WebSocket, WebSocketDoor

RULES = {"/echo": OPEN}
HANDSHAKE = (
    b"GET /echo HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class Transport(asyncio.Transport):
    """Remembers what was written."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.closed = False
        self.aborted = False

    def write(self, data: object) -> None:
        self.written.append(bytes(data))  # type: ignore[call-overload]

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def can_write_eof(self) -> bool:
        return False

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True


@pytest.fixture
async def socket() -> asyncio.Transport:
    return Transport()


async def listen(websocket: WebSocket) -> None:
    while await websocket.receive() is not None:
        pass


def connect(transport: Transport, door: WebSocketDoor, request: bytes = HANDSHAKE) -> WebSocket:
    websocket = door.protocol_factory(None, None, None)
    websocket.connection_made(transport)
    websocket.data_received(request)
    return websocket


def opened(transport: Transport) -> WebSocket:
    door = WebSocketDoor(
        {"/echo": Route(listen, "test")},
        admission=Admission(2, random=lambda: 0.5, clock=time.monotonic),
        max_connections=2,
        idle_ms=30_000,
        rules=RULES,
    )
    websocket = connect(transport, door)
    assert transport.written[0].startswith(b"HTTP/1.1 101")
    transport.written.clear()
    return websocket


def frames(opcode: Opcode, count: int, data: bytes = b"", *, fin: bool = True) -> Iterator[bytes]:
    for _ in range(count):
        yield Frame(opcode, data, fin).serialize(mask=True)


async def test_pongs_do_not_pile_up_for_a_client_that_does_not_read(socket: Transport) -> None:
    websocket = opened(socket)
    websocket.data_received(b"".join(frames(Opcode.PING, 3, b"x")))
    assert len(b"".join(socket.written)) == 3 * 3
    websocket.pause_writing()
    socket.written.clear()
    websocket.data_received(b"".join(frames(Opcode.PING, 1000, b"x")))
    assert socket.written == []
    websocket.resume_writing()
    websocket.data_received(b"".join(frames(Opcode.PING, 1, b"y")))
    assert b"".join(socket.written).endswith(b"y")
    websocket.connection_lost(None)


async def test_empty_fragments_are_not_kept(socket: Transport) -> None:
    websocket = opened(socket)
    websocket.data_received(b"".join(frames(Opcode.BINARY, 1, b"a", fin=False)))
    websocket.data_received(b"".join(frames(Opcode.CONT, 5000, fin=False)))
    assert len(websocket._fragments) == 1
    websocket.connection_lost(None)


async def test_fragments_take_the_memory_of_their_bytes(socket: Transport) -> None:
    heard: list[object] = []

    async def keep(websocket: WebSocket) -> None:
        heard.append(await websocket.receive())

    websocket = connect(
        socket,
        WebSocketDoor(
            {"/echo": Route(keep, "test")},
            admission=Admission(2, random=lambda: 0.5, clock=time.monotonic),
            max_connections=2,
            idle_ms=30_000,
            rules=RULES,
        ),
    )
    websocket.data_received(b"".join(frames(Opcode.BINARY, 1, b"a", fin=False)))
    websocket.data_received(b"".join(frames(Opcode.CONT, 20_000, b"b", fin=False)))
    assert sys.getsizeof(websocket._fragments) < 50_000
    websocket.data_received(b"".join(frames(Opcode.CONT, 1, b"c")))
    websocket.connection_lost(None)
    assert websocket.task is not None
    await websocket.task
    assert heard == [b"a" + b"b" * 20_000 + b"c"]


@pytest.mark.parametrize(
    "request_",
    [
        HANDSHAKE.replace(b"GET /echo", b"GET //[echo"),
        HANDSHAKE.replace(b"Host: here", b"Host: here" + b"\r\nX-A: b" * 200),
        HANDSHAKE.replace(b"Host: here", b"Host: here\r\nX-A: " + b"b" * 10_000),
        HANDSHAKE.replace(b"GET /echo", b"POST /echo"),
        HANDSHAKE.replace(b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", b""),
    ],
    ids=["odd path", "many headers", "long header", "post", "no key"],
)
async def test_a_bad_handshake_gets_an_answer(request_: bytes, socket: Transport) -> None:
    websocket = WebSocketDoor(
        {"/echo": Route(listen, "test")},
        admission=Admission(2, random=lambda: 0.5, clock=time.monotonic),
        max_connections=2,
        idle_ms=30_000,
        rules=RULES,
    ).protocol_factory(0, 0, 0)
    websocket.connection_made(socket)
    websocket.data_received(request_)
    assert b"".join(socket.written).startswith(b"HTTP/1.1 4")
    assert socket.closed


def door_with(admission: Admission, **route: Any) -> WebSocketDoor:
    routes = {"/echo": Route(**{"handler": listen, "face": "test"} | route)}
    return WebSocketDoor(routes, admission=admission, max_connections=3, idle_ms=30_000, rules=RULES)


def full() -> Admission:
    admission = Admission(1, random=lambda: 0.5, clock=time.monotonic)
    admission.admit("somebody")
    return admission


BROWSER = HANDSHAKE.replace(b"Host: here", b"Host: here\r\nOrigin: https://here")


async def test_without_a_place_the_handshake_is_refused_in_http(socket: Transport) -> None:
    door = door_with(full())
    connect(socket, door)
    head, _, body = b"".join(socket.written).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert b"\r\nRetry-After: 4" in head
    assert body == b"All 1 streams of this gateway are in use. Try again in a moment.\n"
    assert socket.closed
    assert not door.connections


@pytest.mark.parametrize(
    ("route", "text", "code"),
    [
        ({}, b'{"type": "error", "seq": 1, "code": "overloaded", ', 4503),
        ({"refusal_text": lambda error: f"no: {error.code}", "close_code": lambda _: 1013}, b"no: overloaded", 1013),
    ],
    ids=["native", "a dialect of its own"],
)
async def test_a_browser_is_refused_in_words(route: dict[str, Any], text: bytes, code: int, socket: Transport) -> None:
    door = door_with(full(), **route)
    websocket = connect(socket, door, BROWSER)
    assert socket.written[0].startswith(b"HTTP/1.1 101")
    await asyncio.sleep(0)
    said = b"".join(socket.written[1:])
    assert text in said
    assert code.to_bytes(2, "big") + b"overloaded" in said
    websocket.data_received(b"".join(frames(Opcode.CLOSE, 1, code.to_bytes(2, "big"))))
    assert socket.closed
    websocket.connection_lost(None)
    assert websocket.task is not None
    await websocket.task
    assert not door.connections


async def test_a_browser_is_refused_in_http_where_there_are_too_many_sockets(socket: Transport) -> None:
    door = door_with(full())
    door.max_connections = 0
    connect(socket, door, BROWSER)
    assert socket.written[0].startswith(b"HTTP/1.1 503")


async def test_who_returns_needs_no_place_of_its_own(socket: Transport) -> None:
    asked = []

    turn = OnePlace()

    def exempt(query: Mapping[str, str], principal: str) -> OnePlace | None:
        asked.append((dict(query), principal))
        return turn if query.get("session") == "s1" else None

    admission = full()
    request = HANDSHAKE.replace(b"/echo", b"/echo?session=s1").replace(b"Host: here", b"Host: here\r\nX-Api-Key: k")
    websocket = connect(socket, door_with(admission, exempt=exempt), request)
    assert socket.written[0].startswith(b"HTTP/1.1 101")
    assert asked == [({"session": "s1"}, websocket.principal)]
    assert websocket.principal.startswith("key ")
    assert admission.in_use == 1
    assert turn.released == 0
    websocket.connection_lost(None)
    assert websocket.task is not None
    await websocket.task
    assert turn.released == 1
    assert admission.in_use == 1


async def test_a_refused_handshake_does_not_keep_its_turn(socket: Transport) -> None:
    turn = OnePlace()
    request = HANDSHAKE.replace(b"Version: 13", b"Version: 9")
    websocket = connect(socket, door_with(full(), exempt=lambda query, principal: turn), request)
    assert not socket.written[0].startswith(b"HTTP/1.1 101")
    assert turn.released == 1
    websocket.connection_lost(None)


async def test_a_place_lasts_as_long_as_the_connection(socket: Transport) -> None:
    admission = Admission(2, random=lambda: 0.5, clock=time.monotonic)
    websocket = connect(socket, door_with(admission))
    assert admission.in_use_by == {"address unknown": 1}
    websocket.connection_lost(None)
    assert websocket.task is not None
    await websocket.task
    assert admission.in_use == 0


async def test_a_place_that_was_kept_outlives_the_connection(socket: Transport) -> None:
    admission = Admission(2, random=lambda: 0.5, clock=time.monotonic)
    websocket = connect(socket, door_with(admission))
    place = websocket.keep_place()
    websocket.connection_lost(None)
    assert websocket.task is not None
    await websocket.task
    assert admission.in_use == 1
    assert place is not None
    place.release()
    assert admission.in_use == 0


async def test_a_bad_handshake_takes_no_place(socket: Transport) -> None:
    admission = Admission(2, random=lambda: 0.5, clock=time.monotonic)
    connect(socket, door_with(admission), HANDSHAKE.replace(b"Version: 13", b"Version: 12"))
    assert admission.in_use == 0


async def test_sending_never_waits(socket: Transport) -> None:
    websocket = opened(socket)
    assert websocket.send_now("a")
    await websocket.writable()
    websocket.pause_writing()
    assert not websocket.send_now("b")
    waiting = asyncio.create_task(websocket.writable())
    await asyncio.sleep(0)
    assert not waiting.done()
    websocket.resume_writing()
    await waiting
    assert len(socket.written) == 2
    websocket.pause_writing()
    waiting = asyncio.create_task(websocket.writable())
    await asyncio.sleep(0)
    websocket.connection_lost(None)
    await waiting
    with pytest.raises(SocketClosed):
        websocket.send_now("c")


@pytest.mark.parametrize(
    ("data", "code"), [((1001).to_bytes(2, "big"), 1001), (b"", 1005), (None, None)], ids=["1001", "bare", "lost"]
)
async def test_how_the_client_left(data: bytes | None, code: int | None, socket: Transport) -> None:
    websocket = opened(socket)
    assert websocket.close_received is None
    if data is not None:
        websocket.data_received(b"".join(frames(Opcode.CLOSE, 1, data)))
    websocket.connection_lost(None)
    assert websocket.close_received == code


async def test_going_away_says_so_and_waits_for_nobody(socket: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.websocket.CLOSE_TIMEOUT_S", 0.01)
    websocket = opened(socket)
    websocket.go_away(1001)
    assert (1001).to_bytes(2, "big") in socket.written[-1]
    assert socket.closed
    assert not socket.aborted
    await asyncio.sleep(0.05)  # what was written could not be sent
    assert socket.aborted
    websocket.connection_lost(None)
