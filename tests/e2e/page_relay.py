"""The way between the page and its server, as a network would have it: it can be cut, go dead, and come back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

CHUNK_BYTES = 65_536


class Relay:
    """Passes bytes on between a port of its own and a server's."""

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self.port = 0
        self.dead = False
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}/"

    async def up(self) -> None:
        """Take connections, on the same port as before."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def down(self) -> None:
        """Refuse connections, and break those that are."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()

    def cut(self) -> None:
        """Break the connections that are, without a goodbye."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def close(self) -> None:
        self.down()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target_port)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, far_writer}
        there, back = (
            asyncio.ensure_future(self._pass(*ends)) for ends in ((reader, far_writer), (far_reader, writer))
        )
        try:
            await asyncio.wait([there, back], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in (writer, far_writer):
                self._writers.discard(end)
                end.close()
            for half in (there, back):
                half.cancel()
            await asyncio.gather(there, back, return_exceptions=True)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                if not self.dead:
                    writer.write(data)
                    await writer.drain()


@asynccontextmanager
async def relay(target_port: int) -> AsyncIterator[Relay]:
    """A relay that is up, until the block ends. While `dead` is set, it swallows what passes."""
    running = Relay(target_port)
    await running.up()
    try:
        yield running
    finally:
        await running.close()
