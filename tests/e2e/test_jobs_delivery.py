"""One request of a webhook, against receivers that are odd."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
from pathlib import Path

import pytest

from server.certificates import localhost_certificate
from server.jobs.delivery import Delivery, deliver, public_trust
from server.tls.policy import server_ssl_context
from timing import in_time

from .jobs_driver import Receiver, receiver

TRUST = ssl.create_default_context()


def delivery(url: str, *, private: bool = True, timeout_ms: int = 2000) -> Delivery:
    return Delivery(url, {"Content-Type": "application/json"}, b'{"a":1}', timeout_ms, private)


@pytest.mark.parametrize("status", [200, 201, 204, 299])
async def test_any_2xx_takes_it(status: int) -> None:
    async with receiver() as hook:
        hook.answers = [status]
        assert await deliver(delivery(hook.url), TRUST) == ""
        assert hook.requests[0][1] == b'{"a":1}'


@pytest.mark.parametrize("status", [301, 307, 400, 404, 410, 429, 500, 503])
async def test_anything_else_does_not_and_nothing_is_followed(status: int) -> None:
    async with receiver() as hook:
        hook.answers = [status]
        assert await deliver(delivery(hook.url), TRUST) == f"answered {status}"
        assert len(hook.requests) == 1


@pytest.mark.parametrize("drip", [b"", b"H", b"HTTP/1.1 200 OK\r\nX: "])
async def test_a_receiver_that_never_ends_its_answer_is_left(drip: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                writer.write(drip)
                await writer.drain()
                await asyncio.sleep(0.05)
                drip_more = b"x" if drip.endswith(b": ") else b""
                writer.write(drip_more)
        except ConnectionError:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        begun = time.monotonic()
        trouble = await deliver(delivery(f"http://127.0.0.1:{port}/", timeout_ms=500), TRUST)
        assert trouble in ("no answer within 500 ms", "RemoteProtocolError")
        in_time(time.monotonic() - begun, 2)


async def test_a_body_without_an_end_does_no_harm() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            while True:
                writer.write(b"x" * 65536)
                await writer.drain()
        except ConnectionError:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        assert await deliver(delivery(f"http://127.0.0.1:{port}/"), TRUST) == ""


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "0.0.0.0", "[::ffff:127.0.0.1]", "127.1"])
async def test_no_spelling_of_this_machine_gets_through(host: str) -> None:
    async with receiver() as hook:
        port = hook.url.split(":")[2].split("/")[0]
        trouble = await deliver(delivery(f"http://{host}:{port}/", private=False), TRUST)
        assert "JOBS_WEBHOOK_PRIVATE" in trouble
        assert hook.requests == []


@pytest.mark.alone
async def test_a_name_server_that_never_answers_keeps_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = threading.Event()

    def look(*_: object, **__: object) -> list[object]:
        answer.wait(10)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", look)
    lost = [asyncio.create_task(deliver(delivery("http://example.com/", timeout_ms=300), TRUST)) for _ in range(40)]
    await asyncio.sleep(0.05)
    begun = time.monotonic()
    await asyncio.to_thread(int)  # the threads that uploads are written by are free
    in_time(time.monotonic() - begun, 0.2)
    assert set(await asyncio.gather(*lost)) == {"no answer within 300 ms"}
    answer.set()


async def test_what_cannot_be_reached_is_said_without_addresses() -> None:
    for url in ("http://127.0.0.1:9/secret", "http://no-such-host.invalid/secret"):
        trouble = await deliver(delivery(url), TRUST)
        assert trouble
        assert "secret" not in trouble
        assert "127.0.0.1" not in trouble


async def test_tls_is_checked_against_the_name_and_not_the_number(tmp_path: Path) -> None:
    cert, key = localhost_certificate(tmp_path)
    hook = Receiver()
    server = await asyncio.start_server(hook.serve, "127.0.0.1", 0, ssl=server_ssl_context(cert, key))
    trust = ssl.create_default_context(cafile=str(cert))
    async with server:
        port = server.sockets[0].getsockname()[1]
        assert await deliver(delivery(f"https://localhost:{port}/x"), trust) == ""
        assert hook.requests[0][0]["host"] == f"localhost:{port}"
        assert await deliver(delivery(f"https://localhost:{port}/x"), public_trust()) == "ConnectError"
        assert len(hook.requests) == 1
