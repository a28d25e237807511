"""WebSocket clients that may break every rule: bytes on a socket, without a library that would keep them from it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import socket
import ssl
import struct
from typing import Any, Self

import orjson

TEXT, BINARY, CLOSE, PING, PONG, CONTINUATION = 0x1, 0x2, 0x8, 0x9, 0xA, 0x0
LOST = 1006
_MASK = b"\x00\x00\x00\x00"


def frame_of(
    opcode: int, payload: bytes = b"", *, fin: bool = True, reserved: int = 0, masked: bool = True, length: int = -1
) -> bytes:
    """One frame as a client sends it; `length` is what it claims to carry, by default the truth."""
    size = len(payload) if length < 0 else length
    bit = 0x80 if masked else 0
    first = (0x80 if fin else 0) | reserved << 4 | opcode
    if size < 126:
        head = bytes([first, bit | size])
    elif size < 65_536:
        head = struct.pack("!BBH", first, bit | 126, size)
    else:
        head = struct.pack("!BBQ", first, bit | 127, size)
    return head + (_MASK if masked else b"") + payload


def handshake(path: str, *, extensions: str = "", origin: str = "") -> bytes:
    """A client's request for a WebSocket."""
    lines = [
        f"GET {path} HTTP/1.1", "Host: 127.0.0.1", "Upgrade: websocket", "Connection: Upgrade",
        f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}", "Sec-WebSocket-Version: 13",
    ]  # fmt: skip
    lines += [f"Sec-WebSocket-Extensions: {extensions}"] if extensions else []
    lines += [f"Origin: {origin}"] if origin else []
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


class Raw:
    """A WebSocket whose frames are made by hand, as an async context manager.

    Attributes:
        head: the server's answer to the handshake.
        messages: the JSON messages that were read, with their time.
        close_code: of the server's close frame; 1006 where the connection ended without one; 0 while it stands.
        answers_pings: pongs are sent while reading.
    """

    def __init__(
        self,
        port: int,
        *,
        path: str = "/v1/stream",
        extensions: str = "",
        receive_buffer: int = 0,
        answers_pings: bool = True,
    ) -> None:
        self.head = ""
        self.messages: list[tuple[float, dict[str, Any]]] = []
        self.close_code = 0
        self.answers_pings = answers_pings
        self._port = port
        self._request = handshake(path, extensions=extensions)
        self._receive_buffer = receive_buffer
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def __aenter__(self) -> Self:
        sock = socket.socket()
        sock.setblocking(False)
        if self._receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
        try:
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self._port))
        except BaseException:
            sock.close()
            raise
        # With a small buffer the reader itself must not read ahead either.
        limit = 2_048 if self._receive_buffer else 2**16
        self._reader, self._writer = await asyncio.open_connection(sock=sock, limit=limit)
        self._writer.write(self._request)
        self.head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.transport.abort()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    @property
    def status(self) -> int:
        """The HTTP status of the handshake."""
        return int(self.head.split()[1])

    async def send(self, data: bytes) -> None:
        """Bytes, as they are. Waits while the server does not read; does nothing where the connection has ended."""
        if self._writer.transport.is_closing():
            return
        with contextlib.suppress(ConnectionError):
            self._writer.write(data)
            await self._writer.drain()

    async def say(self, message: dict[str, Any]) -> None:
        """A JSON message."""
        await self.send(frame_of(TEXT, orjson.dumps(message)))

    async def read(self, patience_s: float, until: str = "") -> int:
        """Read until the connection ends, or a message of a type has come. Returns the close code, 0 for none.

        Raises:
            TimeoutError: neither happened in time.
        """
        async with asyncio.timeout(patience_s):
            while not self.close_code:
                try:
                    opcode, payload = await self._frame()
                except (asyncio.IncompleteReadError, ConnectionError):
                    self.close_code = LOST
                    break
                if opcode == TEXT:
                    message = orjson.loads(payload)
                    self.messages.append((asyncio.get_running_loop().time(), message))
                    if message["type"] == until:
                        return 0
                elif opcode == PING and self.answers_pings:
                    await self.send(frame_of(PONG, payload))
                elif opcode == CLOSE:
                    self.close_code = int.from_bytes(payload[:2], "big") if len(payload) >= 2 else 1005
                    await self.send(frame_of(CLOSE, payload[:2]))
        return self.close_code

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The messages of a type."""
        return [message for _, message in self.messages if message["type"] == kind]

    async def _frame(self) -> tuple[int, bytes]:
        first, size = await self._reader.readexactly(2)
        if size == 126:
            size = int.from_bytes(await self._reader.readexactly(2), "big")
        elif size == 127:
            size = int.from_bytes(await self._reader.readexactly(8), "big")
        return first & 0x0F, await self._reader.readexactly(size)


async def closed_after(port: int, said: bytes, patience_s: float, *, tls: ssl.SSLContext | None = None) -> float:
    """Connect, say that, and wait in silence: the seconds until the server ends the connection.

    With `tls` a whole handshake is made first. Raises `TimeoutError` when it does not end in time.
    """
    clock = asyncio.get_running_loop().time
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
    begun = clock()
    try:
        writer.write(said)
        async with asyncio.timeout(patience_s):
            with contextlib.suppress(ConnectionError):
                while await reader.read(65_536):
                    pass
        return clock() - begun
    finally:
        writer.transport.abort()
