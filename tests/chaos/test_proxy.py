"""The proxy breaks what it is told to break, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from chaos.proxy import Proxy, Toxic


@asynccontextmanager
async def echo() -> AsyncIterator[int]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@asynccontextmanager
async def through(
    toxic: Toxic | None = None,
) -> AsyncIterator[tuple[Proxy, asyncio.StreamReader, asyncio.StreamWriter]]:
    async with echo() as port, Proxy(port, toxic) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        try:
            yield proxy, reader, writer
        finally:
            writer.close()


async def said(reader: asyncio.StreamReader, timeout_s: float = 5.0) -> bytes:
    async with asyncio.timeout(timeout_s):
        return await reader.read(65_536)


async def test_bytes_pass_and_connections_end() -> None:
    async with through() as (proxy, reader, writer):
        writer.write(b"hello")
        assert await said(reader) == b"hello"
        proxy.finish()
        assert await said(reader) == b""
        assert proxy.open == 0


async def test_reset_down_and_up() -> None:
    async with through() as (proxy, reader, writer):
        writer.write(b"hello")
        await said(reader)
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            await said(reader)
        await proxy.down()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", proxy.port)
        await proxy.up()
        again, writing = await asyncio.open_connection("127.0.0.1", proxy.port)
        writing.write(b"hello")
        assert await said(again) == b"hello"
        assert proxy.accepted == 2
        writing.close()


@pytest.mark.parametrize("toxic", [Toxic(blackhole=frozenset({"up"})), Toxic(blackhole=frozenset({"down"})),
                                   Toxic(accept_hang=True)])  # fmt: skip
async def test_nothing_comes_and_the_connection_stays(toxic: Toxic) -> None:
    async with through(toxic) as (proxy, reader, writer):
        writer.write(b"hello")
        with pytest.raises(TimeoutError):
            await said(reader, 0.2)
        assert proxy.open == 1


async def test_cut_corrupt_slow_and_late() -> None:
    async with through(Toxic(cut_after_bytes=3)) as (_, reader, writer):
        writer.write(b"hello")
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(100)
    async with through(Toxic(corrupt=frozenset({"up"}))) as (_, reader, writer):
        writer.write(bytes(100))
        got = await said(reader)
        assert (len(got), sum(byte != 0 for byte in got)) == (100, 1)
    loop = asyncio.get_running_loop()
    for toxic in (Toxic(latency_s=0.1), Toxic(up_bytes_per_s=100)):
        async with through(toxic) as (_, reader, writer):
            begun = loop.time()
            for _ in range(2):
                writer.write(b"0123456789")
                assert await said(reader) == b"0123456789"
            assert loop.time() - begun >= 0.09
