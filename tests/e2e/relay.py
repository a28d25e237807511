"""A way to a server that can be blocked, as networks and machines are: nothing is refused, and nothing goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit, urlunsplit

_Both = tuple[asyncio.StreamWriter, asyncio.StreamWriter]


class Relay:
    """A TCP relay on a loopback port.

    Attributes:
        url: that of the server, by this way.
        open: cleared, bytes wait in both directions.
        cut_commit_of: bytes of a statement. The next COMMIT after it arrives, and its answer does not.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self._there = (parts.hostname, parts.port or 5432)
        self._parts = parts
        self._tasks: set[asyncio.Task[None]] = set()
        self.url = ""
        self.open = asyncio.Event()
        self.open.set()
        self.cut_commit_of = b""

    def at(self, port: int) -> None:
        name = self._parts.netloc.rpartition("@")[0]
        self.url = urlunsplit(self._parts._replace(netloc=f"{name}@127.0.0.1:{port}"))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(*self._there)
        both = (writer, there_writer)
        heard = asyncio.Event()
        heard.set()
        for task in (
            asyncio.create_task(self._up(reader, there_writer, heard, both)),
            asyncio.create_task(self._down(there_reader, writer, heard, both)),
        ):
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _up(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, heard: asyncio.Event, both: _Both
    ) -> None:
        found = False
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                await self.open.wait()
                found = found or (bool(self.cut_commit_of) and self.cut_commit_of in data)
                if found and b"COMMIT" in data:
                    heard.clear()
                writer.write(data)
                await writer.drain()
                if not heard.is_set():
                    self.cut_commit_of = b""
                    await asyncio.sleep(0.3)  # the server does it, and nobody hears of that
                    for each in both:
                        each.transport.abort()
                    return
        for each in both:
            each.close()

    async def _down(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, heard: asyncio.Event, both: _Both
    ) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                await self.open.wait()
                await heard.wait()
                writer.write(data)
                await writer.drain()
        for each in both:
            each.close()

    async def close(self) -> None:
        self.open.set()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def relay(url: str) -> AsyncIterator[Relay]:
    """A relay to the server of `url`."""
    there = Relay(url)
    server = await asyncio.start_server(there.serve, "127.0.0.1", 0)
    there.at(server.sockets[0].getsockname()[1])
    try:
        yield there
    finally:
        server.close()
        await there.close()
