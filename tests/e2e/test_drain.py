"""SIGTERM: health says no first, every stream gets its last finals and a proper end, and then the process is gone."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import requests
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

import sound
from asr.riva_proto import asr as pb
from asr.riva_proto import asr_grpc, health, health_grpc
from timing import in_time
from word_engine import WordEngine

from .command import Shell, wait_for
from .gateway import running, session
from .test_admission import config, refused_by_grpc

LIMIT_S = 30.0
AUDIO = (b"\x00\x20\x00\xe0" * 8000)[:32_000]
"""A second of a loud tone: the mock takes it for speech, and nothing ends its utterance but the end."""


@dataclass(frozen=True)
class Gateway:
    process: subprocess.Popen[str]
    port: int
    grpc_port: int

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}"


@contextmanager
def gateway(tmp_path: Path, **more: str) -> Iterator[Gateway]:
    shell = Shell(tmp_path, {"LOG_LEVEL": "warning", **more})
    with shell.start("serve", "--engine", "mock", "--no-tls", "--port", "0", "--grpc-port", "0") as process:
        port = int(wait_for(process, r"http://localhost:(\d+)")[1])
        grpc_port = int(wait_for(process, r"gRPC: \S+:(\d+)")[1])
        yield Gateway(process, port, grpc_port)


@dataclass
class Ending:
    finals: int = 0
    code: int | str | None = None
    draining: dict[str, Any] | None = None


async def native(where: Gateway, started: asyncio.Semaphore) -> Ending:
    ending = Ending()
    async with connect(f"ws://localhost:{where.port}/v1/stream", proxy=None) as websocket:
        await websocket.send('{"type":"start"}')
        await websocket.send(AUDIO)
        async for text in websocket:
            message = json.loads(text)
            if message["type"] == "partial":
                started.release()
            elif message["type"] == "final":
                ending.finals += 1
            elif message["type"] == "status":
                ending.draining = message
    ending.code = websocket.close_code
    return ending


async def end_dialect(where: Gateway, started: asyncio.Semaphore) -> Ending:
    ending = Ending()
    async with connect(f"ws://localhost:{where.port}/ws", proxy=None) as websocket:
        await websocket.send(AUDIO)
        async for text in websocket:
            message = json.loads(text) if text != "END" else {"is_final": False}
            ending.finals += message["is_final"]
            started.release()
    ending.code = websocket.close_code
    return ending


async def riva(where: Gateway, started: asyncio.Semaphore) -> Ending:
    ending = Ending()
    async with grpc.aio.insecure_channel(f"localhost:{where.grpc_port}") as channel:
        call = asr_grpc.RivaSpeechRecognitionStub(channel).StreamingRecognize(timeout=LIMIT_S)
        first = config()
        first.streaming_config.interim_results = True
        await call.write(first)
        await call.write(pb.StreamingRecognizeRequest(audio_content=AUDIO))
        while (response := await call.read()) is not grpc.aio.EOF:  # type: ignore[attr-defined]
            started.release()
            ending.finals += sum(result.is_final for result in response.results)
        ending.code = (await call.code()).name
    return ending


async def gone(where: Gateway) -> int:
    return await asyncio.to_thread(where.process.wait, LIMIT_S)


async def test_fifty_streams_are_brought_home(tmp_path: Path) -> None:
    with gateway(tmp_path) as where:
        started = [asyncio.Semaphore(0) for _ in range(50)]
        kinds = [native, end_dialect, riva]
        streams = [asyncio.create_task(kinds[number % 3](where, started[number])) for number in range(50)]
        async with asyncio.timeout(LIMIT_S):
            for semaphore in started:
                await semaphore.acquire()
            begun = time.monotonic()
            where.process.send_signal(signal.SIGTERM)
            endings = await asyncio.gather(*streams)
            status = await gone(where)
        took_s = time.monotonic() - begun
        assert status == 0
        assert where.process.stderr is not None
        assert where.process.stderr.read() == ""
    assert [ending.finals for ending in endings] == [1] * 50
    for number, ending in enumerate(endings):
        assert ending.code == (1001, 1001, "OK")[number % 3]
    assert {ending.draining["deadline_ms"] for ending in endings[::3] if ending.draining} == {25_000}
    assert all(ending.draining and ending.draining["state"] == "draining" for ending in endings[::3])
    in_time(took_s, 10)


async def test_health_says_no_before_the_ports_close(tmp_path: Path) -> None:
    with gateway(tmp_path, DRAIN_DELAY_MS="3000") as where:
        async with (
            grpc.aio.insecure_channel(f"localhost:{where.grpc_port}") as channel,
            connect(f"ws://localhost:{where.port}/v1/stream", proxy=None) as websocket,
        ):
            await websocket.send('{"type":"start"}')
            assert json.loads(await websocket.recv())["type"] == "ready"
            watch = health_grpc.HealthStub(channel).Watch(health.HealthCheckRequest(), timeout=LIMIT_S)
            assert (await watch.read()).status == health.HealthCheckResponse.SERVING
            begun = time.monotonic()
            where.process.send_signal(signal.SIGTERM)
            assert (await watch.read()).status == health.HealthCheckResponse.NOT_SERVING
            for path in ("/readyz", "/v1/health/ready"):
                answer = await asyncio.to_thread(requests.get, where.url + path, timeout=10)
                assert answer.status_code == 503
                assert "going down" in answer.text
            assert (await asyncio.to_thread(requests.get, where.url + "/healthz", timeout=10)).status_code == 200
            with pytest.raises(InvalidStatus) as refused:
                await connect(f"ws://localhost:{where.port}/v1/stream", proxy=None)
            assert refused.value.response.status_code == 503
            assert refused.value.response.headers["Retry-After"]
            error = await refused_by_grpc(asr_grpc.RivaSpeechRecognitionStub(channel))
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert "grpc-retry-pushback-ms" in dict(error.trailing_metadata() or ())
            # The stream that was there goes on all the while.
            await websocket.send(AUDIO)
            while json.loads(await websocket.recv())["type"] != "partial":
                pass
            in_time(time.monotonic() - begun, 3)
            kinds = [json.loads(text)["type"] async for text in websocket]
            assert websocket.close_code == 1001
            assert [kind for kind in kinds if kind != "ack"][-2:] == ["final", "summary"]
        assert await gone(where) == 0
        with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", where.port)):
            pass


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_ends_it_at_once(number: signal.Signals, tmp_path: Path) -> None:
    with gateway(tmp_path, DRAIN_DELAY_MS="60000") as where:
        where.process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(until_going_down, where)
        begun = time.monotonic()
        where.process.send_signal(number)
        # By the signal itself: a shell calls that 143 or 130.
        assert await gone(where) == -number
        in_time(time.monotonic() - begun, 2)


def until_going_down(where: Gateway) -> None:
    due = time.monotonic() + LIMIT_S
    while requests.get(where.url + "/readyz", timeout=10).status_code != 503:
        assert time.monotonic() < due
        time.sleep(0.02)


async def test_a_stream_that_does_not_end_is_ended_when_the_time_is_over(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        async with running(WordEngine("hang@200"), tmp_path, drain_timeout_ms=300) as addresses:
            clients = [await stack.enter_async_context(session(addresses, path)) for path in ("/v1/stream", "/ws")]
            await clients[0].say('{"type":"start"}')
            for client in clients:
                await client.say(bytes(32 * 600))
            assert (await clients[0].message())["type"] == "ready"
            assert json.loads(await clients[1].answer())["text"] == "w1"
            begun = time.monotonic()
        in_time(time.monotonic() - begun, 3)
        for client in clients:
            while not (text := await client.answer()).startswith("close"):
                pass
            assert text == "close 1001"


async def test_calls_that_do_not_end_are_answered_when_the_time_is_over(tmp_path: Path) -> None:
    calls: list[tuple[str, dict[str, str]]] = [
        ("/v1/audio/transcriptions", {}),
        ("/v1/audio/transcriptions", {"stream": "true"}),
        ("/transcribe", {}),
        ("/invocations", {}),
    ]

    def call(url: str, fields: dict[str, str]) -> requests.Response:
        return requests.post(url, files={"file": ("a.wav", sound.wav(AUDIO))}, data=fields, timeout=LIMIT_S)

    engine = WordEngine("hang@1000")
    async with running(engine, tmp_path, drain_timeout_ms=2_000) as addresses:
        sent = [asyncio.create_task(asyncio.to_thread(call, addresses.url + path, form)) for path, form in calls]
        async with asyncio.timeout(LIMIT_S):
            while engine.open_streams < len(calls):
                await asyncio.sleep(0.01)
        begun = time.monotonic()
    in_time(time.monotonic() - begun, 4)
    for answer, (_, fields) in zip(await asyncio.gather(*sent), calls, strict=True):
        assert "shutting down" in answer.text
        if not fields:
            assert (answer.status_code, bool(answer.headers["Retry-After"])) == (503, True)
    assert list((tmp_path / "spool").glob("*.upload")) == []
