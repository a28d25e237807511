"""The WebSocket protocol on a transport that only remembers: what must not pile up."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from websockets.frames import Frame, Opcode

from server.websocket import Route, WebSocket, WebSocketDoor

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
        self.closed = True


@pytest.fixture
async def socket() -> asyncio.Transport:
    return Transport()


async def listen(websocket: WebSocket) -> None:
    while await websocket.receive() is not None:
        pass


def opened(transport: Transport) -> WebSocket:
    door = WebSocketDoor({"/echo": Route(listen)}, max_connections=2, idle_ms=30_000)
    websocket = door.protocol_factory(None, None, None)
    websocket.connection_made(transport)
    websocket.data_received(HANDSHAKE)
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
    websocket = WebSocketDoor({"/echo": Route(listen)}, max_connections=2, idle_ms=30_000).protocol_factory(0, 0, 0)
    websocket.connection_made(socket)
    websocket.data_received(request_)
    assert b"".join(socket.written).startswith(b"HTTP/1.1 4")
    assert socket.closed
