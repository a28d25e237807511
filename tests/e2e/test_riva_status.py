"""gRPC's own words for what servers do, as the table of statuses expects them: against small raw servers."""

from __future__ import annotations

import asyncio
import datetime
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import RequestReceived

from asr.config import RivaConfig
from asr.engine import AudioInput
from asr.engines.riva import RivaEngine
from asr.errors import Action, ASRError, Code
from asr.mock.riva_server import MockRivaServer, ServerTls
from asr.options import Options
from riva_tls import make_certificates
from timing import in_time

HEADERS = [(":status", "200"), ("content-type", "application/grpc")]


async def failure(endpoint: str, **config: Any) -> ASRError:
    """How the question for models fails there; soon, in any case."""
    riva = RivaEngine(RivaConfig(endpoint=endpoint, **({"call_timeout_ms": 5_000} | config)))
    begun = time.monotonic()
    with pytest.raises(ASRError) as caught:
        await riva.models()
    await riva.aclose()
    in_time(time.monotonic() - begun, 4)
    assert "127.0.0" not in caught.value.message
    assert "localhost" not in caught.value.message
    return caught.value


@asynccontextmanager
async def server_that(
    talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any],
) -> AsyncIterator[str]:
    tasks: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await talk(reader, writer)
        finally:
            writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    finally:
        listener.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def http2_that(answer: Callable[[H2Connection, int], Any]) -> AsyncIterator[str]:
    """A server that answers each request's headers as `answer` does, and then ends the connection."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = H2Connection(H2Configuration(client_side=False))
        connection.initiate_connection()
        answered = False
        while not answered and (data := await reader.read(65536)):
            for event in connection.receive_data(data):
                if isinstance(event, RequestReceived):
                    answer(connection, event.stream_id)
                    answered = True
            writer.write(connection.data_to_send())
            await writer.drain()
        await reader.read()

    async with server_that(talk) as endpoint:
        yield endpoint


async def test_a_closed_port() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        error = await failure(f"127.0.0.1:{held.getsockname()[1]}")
    assert (error.code, error.retryable) == (Code.UNAVAILABLE, True)
    assert "cannot be reached" in error.message


@pytest.mark.parametrize(
    "text", [b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n", b"<html>503</html>\n", b"SSH-2.0-OpenSSH_9\r\n"]
)
async def test_a_port_that_speaks_something_else(text: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(text)
        await writer.drain()
        await reader.read()

    async with server_that(talk) as endpoint:
        error = await failure(endpoint)
    assert (error.code, error.retryable) == (Code.UNAVAILABLE, True)
    assert "speaks no gRPC" in error.message


async def test_a_port_that_accepts_and_is_silent() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    async with server_that(talk) as endpoint:
        error = await failure(endpoint, connect_timeout_ms=500)
    assert (error.code, error.retryable) == (Code.UNAVAILABLE, True)
    assert "cannot be reached" in error.message


@pytest.mark.parametrize("reset", range(14))
async def test_a_stream_that_is_reset(reset: int) -> None:
    async with http2_that(lambda connection, stream: connection.reset_stream(stream, reset)) as endpoint:
        error = await failure(endpoint)
    expected = {11: (Code.OVERLOADED, True), 12: (Code.UNAVAILABLE, False)}
    assert (error.code, error.retryable) == expected.get(reset, (Code.UNAVAILABLE, True))
    if reset not in expected:
        assert "dropped the stream" in error.message


@pytest.mark.parametrize(
    ("status", "code", "retryable", "words"),
    [
        (401, Code.UNAVAILABLE, False, "credentials"),
        (403, Code.UNAVAILABLE, False, "credentials"),
        (404, Code.UNAVAILABLE, False, "no Riva"),
        (429, Code.OVERLOADED, True, "limits its callers"),
        (500, Code.UNAVAILABLE, True, "A proxy answers"),
        (502, Code.UNAVAILABLE, True, "A proxy answers"),
        (503, Code.UNAVAILABLE, True, "A proxy answers"),
        (504, Code.UNAVAILABLE, True, "A proxy answers"),
    ],
)
async def test_a_page_of_a_proxy(status: int, code: Code, retryable: bool, words: str) -> None:
    def answer(connection: H2Connection, stream: int) -> None:
        connection.send_headers(stream, [(":status", str(status)), ("content-type", "text/html")])
        connection.send_data(stream, b"<html>riva-7.internal is down</html>", end_stream=True)

    async with http2_that(answer) as endpoint:
        error = await failure(endpoint)
    assert (error.code, error.retryable) == (code, retryable)
    assert words in error.message


async def test_an_answer_without_trailers() -> None:
    def answer(connection: H2Connection, stream: int) -> None:
        connection.send_headers(stream, HEADERS)
        connection.end_stream(stream)

    async with http2_that(answer) as endpoint:
        error = await failure(endpoint)
    assert (error.code, error.retryable) == (Code.UNAVAILABLE, True)


async def test_an_answer_that_claims_four_gigabytes() -> None:
    def answer(connection: H2Connection, stream: int) -> None:
        connection.send_headers(stream, HEADERS)
        connection.send_data(stream, b"\0\xff\xff\xff\xff")

    async with http2_that(answer) as endpoint:
        error = await failure(endpoint)
    assert (error.code, error.retryable) == (Code.INTERNAL, True)


@pytest.mark.parametrize(
    ("number", "text", "words"),
    [(0, None, "when it restarts"), (0, b"max_age", "when it restarts"), (11, b"too_many_pings", "keepalive pings")],
)
async def test_a_connection_that_is_ended_politely(number: int, text: bytes | None, words: str) -> None:
    def answer(connection: H2Connection, stream: int) -> None:
        connection.close_connection(number, text, last_stream_id=0)

    async with http2_that(answer) as endpoint:
        error = await failure(endpoint)
    assert (error.code, error.retryable) == (Code.UNAVAILABLE, True)
    assert words in error.message


async def test_a_pause_that_a_server_asks_for() -> None:
    def answer(connection: H2Connection, stream: int) -> None:
        trailers = [("grpc-status", "8"), ("grpc-message", "full"), ("grpc-retry-pushback-ms", "1234")]
        connection.send_headers(stream, HEADERS + trailers, end_stream=True)

    async def audio() -> AsyncIterator[AudioInput]:
        yield bytes(3200)

    async with http2_that(answer) as endpoint:
        errors = [await failure(endpoint)]
    async with http2_that(answer) as endpoint:
        riva = RivaEngine(RivaConfig(endpoint=endpoint))
        with pytest.raises(ASRError) as caught:
            await anext(riva.stream(audio(), Options()))
        await riva.aclose()
    for error in (*errors, caught.value):
        assert (error.code, error.retry_after_ms) == (Code.OVERLOADED, 1234)


# --- TLS


def self_signed(from_days: int, to_days: int) -> tuple[bytes, bytes]:
    """A key and a certificate of localhost that is good between these days from now."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + datetime.timedelta(days=from_days))
        .not_valid_after(now + datetime.timedelta(days=to_days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return private, certificate.public_bytes(pem)


def is_the_operators(error: ASRError, words: str) -> None:
    assert (error.code, error.retryable, error.action) == (Code.UNAVAILABLE, False, Action.NONE)
    assert words in error.message
    assert "The operator must correct" in error.message


@pytest.mark.parametrize(("days", "words"), [((-9, -2), "has expired"), ((2, 9), "not valid yet")])
async def test_a_certificate_out_of_its_time(days: tuple[int, int], words: str, tmp_path: Path) -> None:
    key, certificate = self_signed(*days)
    (tmp_path / "ca.pem").write_bytes(certificate)
    async with MockRivaServer(tls=ServerTls(key, certificate)) as server:
        is_the_operators(await failure(f"localhost:{server.port}", root_cert=tmp_path / "ca.pem"), words)


async def test_a_certificate_of_somebody_else(tmp_path: Path) -> None:
    made = make_certificates(tmp_path)
    (tmp_path / "other").mkdir()
    other = make_certificates(tmp_path / "other")
    tls = ServerTls(made.server_key.read_bytes(), made.server_cert.read_bytes())
    async with MockRivaServer(tls=tls, host="127.0.0.2") as server:
        wrong_name = await failure(f"127.0.0.2:{server.port}", root_cert=made.ca)
        is_the_operators(wrong_name, "for another name")
        for trusted in ({"ssl": True}, {"root_cert": other.ca}):
            is_the_operators(await failure(f"127.0.0.2:{server.port}", **trusted), "does not trust")


async def test_only_one_side_speaks_tls(tmp_path: Path) -> None:
    made = make_certificates(tmp_path)
    tls = ServerTls(made.server_key.read_bytes(), made.server_cert.read_bytes())
    async with MockRivaServer() as server:
        is_the_operators(await failure(f"localhost:{server.port}", root_cert=made.ca), "do not agree on TLS")
    async with MockRivaServer(tls=tls) as server:
        # It only closes the connection: nothing tells it from one that restarts.
        assert "cannot be reached" in (await failure(f"localhost:{server.port}")).message
