"""The client of a NIM's HTTP API against a stand-in NIM, and against servers that behave badly."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from asr.errors import ASRError, Code
from asr.mock.plan import MockPlan, load_plan
from asr.nim_http import MAX_ANSWER_BYTES, NimHttp
from server.standin import Standin
from timing import in_time

from .command import sound

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def plan(**keys: Any) -> MockPlan:
    return load_plan({"hears": "clock", "loop": False, "utterances": ["one two three"]} | keys)


def client_of(nim: Standin, **more: Any) -> NimHttp:
    return NimHttp("127.0.0.1", nim.address.http_port, **more)


@asynccontextmanager
async def badly_behaved(handler: Handler) -> AsyncIterator[int]:
    """A server that answers each connection with `handler`; its port."""
    done: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        done.append(asyncio.current_task())  # type: ignore[arg-type]  # there is one
        try:
            await handler(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in done:
            task.cancel()
        await asyncio.gather(*done, return_exceptions=True)


async def failure(client: NimHttp, file: Path, **more: Any) -> ASRError:
    with pytest.raises(ASRError) as told:
        await client.transcribe(file, language="en-US", **more)
    return told.value


async def test_a_file_in_and_its_text_out(tmp_path: Path) -> None:
    async with Standin(plan()) as nim:
        heard = await client_of(nim).transcribe(sound(tmp_path / "a.wav", 3.0), filename="a.wav", language="en-US")
        assert (heard.text, heard.model) == ("one two three", "")


async def test_a_model_is_named_where_the_nim_takes_it_and_left_away_where_it_does_not(tmp_path: Path) -> None:
    file, model = sound(tmp_path / "a.wav", 3.0), "mock-en-US-asr-offline"
    async with Standin(plan()) as nim:
        assert (await client_of(nim).transcribe(file, language="en-US", model=model)).model == model
        nim.app.plan = plan(http={"bad_model": True})
        assert (await client_of(nim).transcribe(file, language="en-US", model=model)).model == ""
        with pytest.raises(ASRError) as told:
            await client_of(nim).transcribe(file, model=model)
        assert (told.value.code, told.value.param) == (Code.NOT_FOUND, "model")


@pytest.mark.parametrize("shape", ["detail", "openai"])
async def test_both_shapes_of_refusals(tmp_path: Path, shape: str) -> None:
    async with Standin(plan(http={"error_shape": shape, "max_file_bytes": 100})) as nim:
        assert (await failure(client_of(nim), sound(tmp_path / "a.wav"))).code is Code.TOO_LARGE
        with pytest.raises(ASRError, match="model or language") as told:
            await client_of(nim).transcribe(sound(tmp_path / "b.wav", 0.001))
        assert told.value.code is Code.BAD_REQUEST


@pytest.mark.parametrize("shape", ["object", "status", "ready"])
async def test_ready_in_three_shapes(tmp_path: Path, shape: str) -> None:
    async with Standin(plan(http={"not_ready_answers": 2, "ready_body": shape})) as nim:
        client = client_of(nim)
        assert (await failure(client, sound(tmp_path / "a.wav"))).code is Code.UNAVAILABLE
        states = [await client.ready() for _ in range(3)]
        assert [state.ready for state in states] == [False, False, True]
        assert states[0].detail


async def test_nobody_there(tmp_path: Path) -> None:
    async with Standin(plan()) as nim:
        port = nim.address.http_port
    client = NimHttp("127.0.0.1", port)
    error = await failure(client, sound(tmp_path / "a.wav"))
    assert error.code is Code.UNAVAILABLE
    assert "127.0.0.1" not in error.message
    assert not (await client.ready()).ready


async def test_an_answer_that_never_comes_is_not_waited_for(tmp_path: Path) -> None:
    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        while await reader.read(65_536):
            pass

    async with badly_behaved(silent) as port:
        started = time.monotonic()
        error = await failure(NimHttp("127.0.0.1", port, timeout_ms=300), sound(tmp_path / "a.wav"))
        assert error.code is Code.TIMEOUT
        assert not (await NimHttp("127.0.0.1", port).ready()).ready
        in_time(time.monotonic() - started, 5)


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b"", Code.UNAVAILABLE),
        (b"nonsense\r\n\r\n", Code.UNAVAILABLE),
        (b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"text": "on', Code.UNAVAILABLE),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", Code.INTERNAL),
        (b"HTTP/1.1 413 Request Entity Too Large\r\nContent-Length: 0\r\n\r\n", Code.TOO_LARGE),
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 6\r\n\r\n<html>", Code.UNAVAILABLE),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + bytes(MAX_ANSWER_BYTES + 1), Code.INTERNAL),
    ],
    ids=["hangs up", "no HTTP", "broken off", "no text", "413", "502", "endless"],
)
async def test_bad_answers_are_errors(tmp_path: Path, answer: bytes, code: Code) -> None:
    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
        while await reader.read(65_536):
            pass

    async with badly_behaved(answers) as port:
        assert (await failure(NimHttp("127.0.0.1", port), sound(tmp_path / "a.wav"))).code is code


@pytest.mark.parametrize(("status", "asked"), [(b"413 Too Large", 1), (b"503 Loading", 1), (b"400 bad model", 2)])
async def test_only_a_refused_model_is_asked_again(tmp_path: Path, status: bytes, asked: int) -> None:
    calls: list[bytes] = []

    async def refuses(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        calls.append(await reader.readuntil(b"\r\n\r\n"))
        said = status.partition(b" ")[2]
        writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: %d\r\n\r\n" % len(said) + said)
        while await reader.read(65_536):
            pass

    async with badly_behaved(refuses) as port:
        await failure(NimHttp("127.0.0.1", port), sound(tmp_path / "a.wav"), model="m")
    assert len(calls) == asked


async def test_a_proxy_of_the_environment_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    async with Standin(plan()) as nim:
        assert (await client_of(nim).transcribe(sound(tmp_path / "a.wav", 3.0), language="en-US")).text
