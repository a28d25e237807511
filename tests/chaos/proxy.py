"""A TCP proxy that breaks connections on purpose, in any of the ways in which networks do."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Self

Way = Literal["up", "down"]
"""`up`: from the one who connected towards the target."""
_PIECE = 65_536


@dataclass(slots=True)
class Toxic:
    """What happens to the bytes; may be changed at any time, and holds for all connections.

    Attributes:
        latency_s: each piece arrives that much later, either way.
        up_bytes_per_s, down_bytes_per_s: bandwidth of all connections together; 0 for any.
        blackhole: the ways on which bytes vanish; the connection stays, and so does everything new.
        corrupt: the ways on which one byte in each piece of more than 64 bytes is changed.
        accept_hang: connections are accepted and nothing more.
        cut_after_bytes: a connection is reset when so many bytes went up; -1 for never.
    """

    latency_s: float = 0.0
    up_bytes_per_s: int = 0
    down_bytes_per_s: int = 0
    blackhole: frozenset[Way] = frozenset()
    corrupt: frozenset[Way] = frozenset()
    accept_hang: bool = False
    cut_after_bytes: int = -1


@dataclass(slots=True, eq=False)
class _Link:
    client: asyncio.StreamWriter
    target: asyncio.StreamWriter | None = None
    went_up: int = 0
    tasks: set[asyncio.Task[None]] = field(default_factory=set)


class Proxy:
    """Listens on a port of its own and passes bytes on to the target.

    Attributes:
        port: where it listens.
        toxic: what is wrong with it; exchange or change it at will.
        accepted: connections so far.
    """

    def __init__(self, target_port: int, toxic: Toxic | None = None) -> None:
        self.target_port = target_port
        self.toxic = toxic or Toxic()
        self.port = 0
        self.accepted = 0
        self._server: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._budget: dict[Way, float] = {"up": 0.0, "down": 0.0}

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def open(self) -> int:
        """Connections at present."""
        return len(self._links)

    async def up(self) -> None:
        """Listen; on the same port as before."""
        if self._server is None:
            self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    async def down(self) -> None:
        """Refuse connections and reset those that are open."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        self.reset()
        await asyncio.sleep(0)

    def reset(self) -> None:
        """TCP RST on every connection, to both sides."""
        for link in list(self._links):
            _reset(link.client)
            if link.target is not None:
                _reset(link.target)
            self._drop(link)

    def finish(self) -> None:
        """TCP FIN on every connection, to both sides."""
        for link in list(self._links):
            for writer in (link.client, link.target):
                if writer is not None:
                    writer.close()
            self._drop(link)

    async def __aenter__(self) -> Self:
        await self.up()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tasks = [task for link in self._links for task in link.tasks]
        await self.down()
        if tasks:
            await asyncio.wait(tasks, timeout=2)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        link = _Link(writer)
        me = asyncio.current_task()
        assert me is not None
        link.tasks.add(me)
        self._links.add(link)
        try:
            if self.toxic.accept_hang:
                await asyncio.Event().wait()
            try:
                target_reader, link.target = await asyncio.open_connection("127.0.0.1", self.target_port)
            except OSError:
                _reset(writer)
                return
            pumps = {
                asyncio.create_task(self._pump(link, "up", reader, link.target)),
                asyncio.create_task(self._pump(link, "down", target_reader, writer)),
            }
            link.tasks |= pumps
            await asyncio.wait(pumps)
        except asyncio.CancelledError:
            pass
        finally:
            for side in (writer, link.target):
                if side is not None:
                    side.close()
            self._links.discard(link)

    async def _pump(self, link: _Link, way: Way, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, OSError):
            while data := await reader.read(_PIECE):
                toxic = self.toxic
                if way in toxic.blackhole:
                    continue
                await self._pace(way, len(data))
                if toxic.latency_s:
                    await asyncio.sleep(toxic.latency_s)
                if way in toxic.corrupt and len(data) > 64:
                    broken = bytearray(data)
                    broken[len(broken) // 2] ^= 0x08
                    data = bytes(broken)
                if way == "up" and toxic.cut_after_bytes >= 0:
                    data = data[: max(toxic.cut_after_bytes - link.went_up, 0)]
                link.went_up += len(data) if way == "up" else 0
                writer.write(data)
                await writer.drain()
                if way == "up" and 0 <= toxic.cut_after_bytes <= link.went_up:
                    _reset(link.client)
                    _reset(writer)
                    self._drop(link)
                    return
            # One side is done: so is the other, unless nothing passes at all.
            if not self.toxic.blackhole:
                writer.close()

    async def _pace(self, way: Way, size: int) -> None:
        rate = self.toxic.up_bytes_per_s if way == "up" else self.toxic.down_bytes_per_s
        if rate:
            now = asyncio.get_running_loop().time()
            free_at = max(self._budget[way], now)
            self._budget[way] = free_at + size / rate
            await asyncio.sleep(free_at - now)

    def _drop(self, link: _Link) -> None:
        self._links.discard(link)
        for task in link.tasks:
            if task is not asyncio.current_task():
                task.cancel()


def _reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
