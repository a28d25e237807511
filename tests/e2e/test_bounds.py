"""What a client may hold up: a connection without a word, a body in drops, an answer that it never reads."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import time
from pathlib import Path

import psutil
import pytest
import requests

from timing import in_time
from word_engine import WordEngine

from .command import Shell, wait_for
from .gateway import running, session

LIMIT_S = 20.0


async def cut_off_after(reader: asyncio.StreamReader) -> float:
    begun = time.monotonic()
    async with asyncio.timeout(LIMIT_S):
        try:
            while await reader.read(65536):
                pass
        except ConnectionError:
            pass
    return time.monotonic() - begun


async def ask_and_never_read(client: socket.socket, asked: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(client, asked)
    while True:
        await asyncio.sleep(0.1)
        client.send(b"\r\n")


async def test_a_body_that_comes_in_drops_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.listener.REQUEST_TIMEOUT_S", 0.5)
    monkeypatch.setattr("server.listener.BODY_TIMEOUT_S", 1.0)
    async with running(WordEngine(), tmp_path) as addresses:
        reader, writer = await asyncio.open_connection("127.0.0.1", addresses.port)
        writer.write(b"POST /readyz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n")

        async def drip() -> None:
            while True:
                writer.write(b"x")
                await asyncio.sleep(0.1)

        dripping = asyncio.create_task(drip())
        cut_s = await cut_off_after(reader)
        dripping.cancel()
        writer.close()
        # Longer than a silent one, for it does come; but not for ever.
        assert 0.9 < cut_s < 5


@pytest.mark.parametrize("head", [b"X-A: " + b"a" * 1000 + b"\r\n", b"a" * 1000], ids=["lines", "line"])
async def test_a_head_without_an_end_is_cut_off(tmp_path: Path, head: bytes) -> None:
    async with running(WordEngine(), tmp_path) as addresses:
        _, writer = await asyncio.open_connection("127.0.0.1", addresses.port)
        writer.write(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nX-A: " + (b"\r\n" if head[:1] == b"X" else b""))
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 8_000_000:
                writer.write(head * 64)
                sent += len(head) * 64
                await writer.drain()
        assert sent < 8_000_000
        writer.close()


async def test_a_long_head_that_ends_is_read(tmp_path: Path) -> None:
    async with running(WordEngine(), tmp_path) as addresses:
        headers = {f"X-{n}": "a" * 1000 for n in range(50)}
        answer = await asyncio.to_thread(requests.get, addresses.url + "/healthz", headers=headers, timeout=10)
        assert answer.status_code == 200


async def test_a_body_that_goes_on_after_its_refusal_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.listener.LINGER_S", 0.5)
    async with running(WordEngine(), tmp_path, max_upload_bytes=1024) as addresses:
        reader, writer = await asyncio.open_connection("127.0.0.1", addresses.port)
        writer.write(b"POST /transcribe HTTP/1.1\r\nHost: localhost\r\nContent-Type: audio/wav\r\n")
        writer.write(b"Transfer-Encoding: chunked\r\n\r\n1000\r\n" + bytes(4096) + b"\r\n")
        assert b" 413 " in await reader.readline()
        begun = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while time.monotonic() - begun < LIMIT_S:
                writer.write(b"1000\r\n" + bytes(4096) + b"\r\n")
                await writer.drain()
                await asyncio.sleep(0.01)
        assert 0.4 < time.monotonic() - begun < 5
        writer.close()


async def test_an_answer_that_is_never_read_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.listener.WRITE_TIMEOUT_S", 0.6)
    async with running(WordEngine(), tmp_path) as addresses:
        one = len((await asyncio.to_thread(requests.get, addresses.url + "/schema/asr.v1.json", timeout=10)).content)
        count = 16_000_000 // one
        with socket.create_connection(("127.0.0.1", addresses.port)) as client:
            client.setblocking(False)
            asked = b"GET /schema/asr.v1.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * count
            async with asyncio.timeout(LIMIT_S):
                with pytest.raises(ConnectionError):
                    await ask_and_never_read(client, asked)


async def test_a_slow_reader_that_goes_on_reading_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.listener.WRITE_TIMEOUT_S", 0.6)
    async with running(WordEngine(), tmp_path) as addresses:
        one = len((await asyncio.to_thread(requests.get, addresses.url + "/schema/asr.v1.json", timeout=10)).content)
        count = 16_000_000 // one
        loop, begun = asyncio.get_running_loop(), time.monotonic()
        with socket.create_connection(("127.0.0.1", addresses.port)) as client:
            client.setblocking(False)
            await loop.sock_sendall(client, b"GET /schema/asr.v1.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * count)
            # More than the kernels hold stays unsent all the while.
            while time.monotonic() - begun < 2.5:
                client.send(b"\r\n")  # a reset shows at once, the end of what is on its way does not
                assert await loop.sock_recv(client, 32_768), "cut off while it read"
                await asyncio.sleep(0.02)


async def test_a_tls_handshake_that_stalls_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.listener.TLS_HANDSHAKE_TIMEOUT_S", 0.5)
    async with running(WordEngine(), tmp_path, tls=True) as addresses:
        for said in (b"", b"\x16\x03\x01\x02\x00\x01"):
            reader, writer = await asyncio.open_connection("127.0.0.1", addresses.port)
            writer.write(said)
            assert await cut_off_after(reader) < 3
            writer.close()


@pytest.mark.alone
async def test_silent_connections_are_let_go_and_slow_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.listener.REQUEST_TIMEOUT_S", 2.0)
    async with running(WordEngine(), tmp_path) as addresses:
        begun = time.monotonic()
        silent = []
        for number in range(300):
            reader, writer = await asyncio.open_connection("127.0.0.1", addresses.port)
            writer.write(
                (b"", b"GET /v1/str", b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n")[number % 3]
            )
            silent.append((reader, writer))
        waits = []
        async with session(addresses) as client:
            await client.say('{"type":"start"}')
            await client.message()
            for number in range(20):
                await client.say(bytes(32 * 200))
                said = time.monotonic()
                assert (await client.message())["type"] == ("final" if number % 5 == 4 else "partial")
                waits.append(time.monotonic() - said)
        in_time(sorted(waits)[10], 0.05)
        await asyncio.gather(*(cut_off_after(reader) for reader, _ in silent))
        in_time(time.monotonic() - begun, 2.0 + 5)
        for _, writer in silent:
            writer.close()


def test_without_free_descriptors_it_neither_spins_nor_dies(tmp_path: Path) -> None:
    shell = Shell(tmp_path, {"LOG_LEVEL": "critical"})
    with shell.start("serve", "--engine", "mock", "--no-tls", "--port", "0", "--grpc-port", "off") as gateway:
        port = int(wait_for(gateway, r"http://localhost:(\d+)")[1])
        url = f"http://127.0.0.1:{port}"
        requests.get(url + "/readyz", timeout=10)
        process = psutil.Process(gateway.pid)
        bound = process.num_fds() + 20
        resource.prlimit(gateway.pid, resource.RLIMIT_NOFILE, (bound, bound))
        held = [socket.create_connection(("127.0.0.1", port), timeout=5) for _ in range(100)]
        before, begun = process.cpu_times(), time.monotonic()
        while time.monotonic() - begun < 2:
            time.sleep(0.1)
        after = process.cpu_times()
        in_time((after.user + after.system) - (before.user + before.system), 0.8)
        for connection in held:
            connection.close()
        due = time.monotonic() + LIMIT_S
        while True:
            try:
                assert requests.get(url + "/healthz", timeout=5).status_code == 200
                break
            except requests.ConnectionError:
                assert time.monotonic() < due
                time.sleep(0.1)
