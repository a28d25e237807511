"""The stand-in NIM's HTTP API over a real socket, and its start and stop."""

from __future__ import annotations

import asyncio
import io
import socket
import wave
from typing import Any

import grpc.aio
import pytest
import requests

from asr.mock.plan import MockPlan, load_plan
from asr.riva_proto import health, health_grpc
from server.standin import Standin, StandinAddress, serve_standin

LIMIT_S = 10.0


def plan(**keys: Any) -> MockPlan:
    return load_plan({"hears": "clock", "loop": False, "utterances": ["one two three", "four five"]} | keys)


def wav(ms: int) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(bytes(32 * ms))
    return out.getvalue()


async def get(standin: Standin, path: str) -> requests.Response:
    url = f"http://127.0.0.1:{standin.address.http_port}{path}"
    return await asyncio.to_thread(requests.get, url, timeout=LIMIT_S)


async def post(standin: Standin, data: dict[str, str], file: bytes | None = None) -> requests.Response:
    url = f"http://127.0.0.1:{standin.address.http_port}/v1/audio/transcriptions"
    files = {name: (None, value) for name, value in data.items()}
    if file is not None:
        files["file"] = ("a.wav", file)  # type: ignore[assignment]  # requests takes both shapes
    return await asyncio.to_thread(requests.post, url, files=files or {"x": (None, "")}, timeout=LIMIT_S)


@pytest.mark.parametrize(
    ("shape", "body"),
    [
        ("object", {"object": "health.response", "message": "ready", "status": "ready"}),
        ("status", {"status": "ready"}),
        ("ready", {"ready": True}),
    ],
)
async def test_ready_after_a_while_in_three_shapes(shape: str, body: dict[str, Any]) -> None:
    async with Standin(plan(http={"not_ready_answers": 2, "ready_body": shape})) as standin:
        assert (await post(standin, {"language": "en-US"}, wav(100))).status_code == 503
        assert [(await get(standin, "/v1/health/ready")).status_code for _ in range(3)] == [503, 503, 200]
        assert (await get(standin, "/v1/health/ready")).json() == body
        assert (await post(standin, {"language": "en-US"}, wav(1000))).status_code == 200


async def test_the_other_routes() -> None:
    async with Standin(plan()) as standin:
        for path in ("/v1/health/live", "/v1/metadata", "/v1/version", "/v1/realtime/health", "/v1/metrics"):
            assert (await get(standin, path)).status_code == 200, path
        models = (await get(standin, "/v1/models")).json()
        assert [m["id"] for m in models["data"]] == ["mock-en-US-asr-streaming", "mock-en-US-asr-offline"]
    async with Standin(plan(http={"models_route": False})) as standin:
        assert (await get(standin, "/v1/models")).status_code == 404


async def test_a_file_becomes_text() -> None:
    async with Standin(plan()) as standin:
        answer = await post(standin, {"language": "en-US"}, wav(5000))
        assert answer.json()["text"] == "one two three four five"
        assert answer.json()["usage"]["type"] == "duration"
        plain = await post(standin, {"model": "mock-en-US-asr-offline", "response_format": "text"}, wav(5000))
        assert plain.text == "one two three four five"
        assert plain.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize(
    ("keys", "data", "said"),
    [
        ({}, {}, "Bad Request, need model or language"),
        ({}, {"model": "nope", "language": "en-US"}, "bad model"),
        ({"bad_model": True}, {"model": "mock-en-US-asr-offline"}, "bad model"),
        ({"max_file_bytes": 1000}, {"language": "en-US"}, "audio too long"),
        ({"max_file_bytes": 100}, {"language": "en-US"}, "audio too long"),
    ],
)
async def test_refusals_in_both_shapes(keys: dict[str, Any], data: dict[str, str], said: str) -> None:
    async with Standin(plan(http=keys)) as standin:
        answer = await post(standin, data, wav(5000))
        assert (answer.status_code, answer.json()) == (400, {"detail": said})
        standin.app.plan = plan(http=keys | {"error_shape": "openai"})
        answer = await post(standin, data, wav(5000))
        assert answer.json() == {"error": {"message": said, "type": "BadRequestError", "code": 400}}


async def test_a_missing_file_bad_audio_and_a_broken_recognizer() -> None:
    async with Standin(plan(faults=[{"kind": "unavailable", "at_ms": 500}])) as standin:
        answer = await post(standin, {"language": "en-US"})
        assert answer.json()["error"]["message"] == "file: Field required"
        assert (await post(standin, {"language": "en-US"}, b"fLaC" + bytes(99))).status_code == 400
        assert (await post(standin, {"language": "en-US"}, wav(2000))).status_code == 503


async def test_serve_standin_tells_its_ports_and_stops_when_told() -> None:
    stop = asyncio.Event()
    told: asyncio.Future[StandinAddress] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(serve_standin(plan(), stop=stop, started=told.set_result, grace_s=0.1))
    async with asyncio.timeout(LIMIT_S):
        address = await told
        async with grpc.aio.insecure_channel(f"{address.host}:{address.grpc_port}") as channel:
            answer = await health_grpc.HealthStub(channel).Check(health.HealthCheckRequest())
            assert answer.status == health.HealthCheckResponse.SERVING
        stop.set()
        await serving
    with socket.socket() as probe:
        assert probe.connect_ex((address.host, address.http_port)) != 0


async def test_stopping_does_not_wait_for_open_sockets_for_long() -> None:
    stop = asyncio.Event()
    told: asyncio.Future[StandinAddress] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(serve_standin(plan(), stop=stop, started=told.set_result, grace_s=0.1))
    address = await told
    reader, writer = await asyncio.open_connection(address.host, address.http_port)
    writer.write(b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf")
    await writer.drain()
    await asyncio.sleep(0.05)
    stop.set()
    async with asyncio.timeout(5):
        await serving
    writer.close()
    assert reader is not None


async def test_a_taken_port_is_an_error() -> None:
    async with Standin(plan()) as standin:
        address = standin.address
        for ports in ({"http_port": address.http_port}, {"grpc_port": address.grpc_port}):
            with pytest.raises(OSError, match=r"in use|cannot listen"):
                await Standin(plan(), **ports).start()
