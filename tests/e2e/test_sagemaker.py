"""SageMaker's calls over real sockets: the command as SageMaker starts it, a stand-in NIM behind it."""

from __future__ import annotations

import asyncio
import base64
import io
import signal
import socket
import time
import wave
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from asr.engine import Readiness
from asr.mock.plan import MockPlan, load_plan
from server.faces.sagemaker_request import ATTRIBUTES_HEADER, MAX_HTTP_BYTES
from server.standin import Standin
from timing import in_time
from word_engine import WordEngine

from .command import Shell, wait_for
from .gateway import running

LIMIT_S = 30.0
TWICE = f"{ATTRIBUTES_HEADER}=/invocations/"


def plan(**keys: Any) -> MockPlan:
    return load_plan({"hears": "clock", "loop": False, "utterances": ["one two three", "four five"]} | keys)


def wav(n_bytes: int = 160_000) -> bytes:
    """A WAV file that is exactly so long."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(bytes(n_bytes - 44))
    return out.getvalue()


def form(audio: bytes, **fields: str) -> dict[str, Any]:
    return {"files": {"file": ("a.wav", audio, "audio/wav")}, "data": fields}


def text_of(answer: httpx2.Response) -> str:
    assert answer.status_code == 200, answer.text
    (prediction,) = answer.json()["predictions"]
    return " ".join(result["alternatives"][0]["transcript"] for result in prediction["results"])


def streams_of(nim: Standin) -> int:
    return sum(call.method in ("StreamingRecognize", "Recognize") for call in nim.riva.calls)


@asynccontextmanager
async def client_of(port: int) -> AsyncIterator[httpx2.AsyncClient]:
    url = f"http://127.0.0.1:{port}"
    async with httpx2.AsyncClient(base_url=url, trust_env=False, timeout=LIMIT_S) as client:
        yield client


@asynccontextmanager
async def gateway(nim: Standin | None, tmp_path: Path, **more: object) -> AsyncIterator[httpx2.AsyncClient]:
    """A gateway in this process, in front of a NIM, once that is known to be ready."""
    if nim is not None:
        more = {
            "nim_host": "127.0.0.1",
            "riva_grpc_port": nim.address.grpc_port,
            "nim_http_port": nim.address.http_port,
            **more,
        }
    async with running(None, tmp_path, **more) as addresses, client_of(addresses.port) as client:
        async with asyncio.timeout(LIMIT_S):
            while (await client.get("/ping")).status_code != 200:
                await asyncio.sleep(0.05)
        yield client


# --- routes


async def test_small_recordings_go_to_the_nims_http_api_and_large_or_forced_ones_to_its_grpc(tmp_path: Path) -> None:
    async with Standin(plan()) as nim, gateway(nim, tmp_path) as client:
        small = await client.post("/invocations", **form(wav(), language_code="en-US"))
        assert text_of(small) == "one two three four five"
        assert small.headers[ATTRIBUTES_HEADER] == "transport=http"
        assert small.json()["predictions"][0]["transport"] == "http"
        assert streams_of(nim) == 0

        for value in ("/invocations/grpc", TWICE + "grpc", "transport=grpc"):
            before = streams_of(nim)
            forced = await client.post("/invocations", **form(wav()), headers={ATTRIBUTES_HEADER: value})
            assert text_of(forced) == "one two three four five"
            assert forced.headers[ATTRIBUTES_HEADER] == "transport=grpc;engine=riva"
            assert streams_of(nim) == before + 1
        before = streams_of(nim)
        by_path = await client.post("/invocations/grpc", **form(wav()))
        assert by_path.headers[ATTRIBUTES_HEADER] == "transport=grpc;engine=riva"
        large = await client.post("/invocations", **form(wav(MAX_HTTP_BYTES + 2)))
        assert text_of(large) == "one two three four five"
        assert large.headers[ATTRIBUTES_HEADER] == "transport=grpc;engine=riva"
        assert streams_of(nim) == before + 2


async def test_speakers_are_told_apart_over_grpc_with_times_in_seconds(tmp_path: Path) -> None:
    two = [{"words": ["hello", "there"], "speaker": 0}, {"words": ["good", "day"], "speaker": 1}]
    async with Standin(plan(utterances=two)) as nim, gateway(nim, tmp_path) as client:
        fields = {"language_code": "en-US\r\n", "speaker_diarization": "true\r\n", "max_speakers": "4\r\n"}
        answer = await client.post("/invocations", **form(wav(), **fields))
        assert text_of(answer) == "hello there good day"
        results = answer.json()["predictions"][0]["results"]
        words = [word for result in results for word in result["alternatives"][0]["words"]]
        assert [word["word"] for word in words] == ["hello", "there", "good", "day"]
        assert words[0]["speaker_tag"] != words[2]["speaker_tag"]
        assert all(isinstance(word["speaker_tag"], int) for word in words)
        assert (words[0]["start_time"], words[0]["end_time"]) == (0.0, 0.28)


async def test_json_and_the_recording_itself_are_understood_too(tmp_path: Path) -> None:
    async with Standin(plan()) as nim, gateway(nim, tmp_path) as client:
        content = {"audio": base64.b64encode(wav()).decode(), "language": "en", "speaker_diarization": False}
        assert text_of(await client.post("/invocations", json=content)) == "one two three four five"
        for kind in ("audio/wav", "application/octet-stream", "audio/x-wav; rate=16000"):
            raw = await client.post("/invocations", content=wav(), headers={"Content-Type": kind})
            assert text_of(raw) == "one two three four five"
        odd = await client.post("/invocations", **form(wav(), punctuate="true"))
        assert "'punctuate'" in odd.json()["predictions"][0]["warnings"][0]
        attributes = {"Content-Type": "audio/wav", ATTRIBUTES_HEADER: "transport=grpc;language_code=xx-XX"}
        unknown = await client.post("/invocations", content=wav(), headers=attributes)
        assert unknown.status_code == 404
        assert "en-US" in unknown.json()["error"]


async def test_a_nim_that_refuses_the_models_name_is_asked_without_it(tmp_path: Path) -> None:
    async with Standin(plan(http={"bad_model": True})) as nim, gateway(nim, tmp_path) as client:
        answer = await client.post("/invocations/http", **form(wav(), model="mock-en-US-asr-offline"))
        assert text_of(answer) == "one two three four five"
        assert answer.headers[ATTRIBUTES_HEADER] == "transport=http"
        assert any("mock-en-US-asr-offline" in text for text in answer.json()["predictions"][0]["warnings"])


async def test_a_model_that_there_is_not_is_refused_on_every_route(tmp_path: Path) -> None:
    async with Standin(plan()) as nim, gateway(nim, tmp_path) as client:
        for path in ("/invocations", "/invocations/http", "/invocations/grpc"):
            answer = await client.post(path, **form(wav(), model="imagined"))
            assert answer.status_code == 404
            assert "mock-en-US-asr-streaming" in answer.json()["error"]


@pytest.mark.parametrize("shape", ["detail", "openai"])
async def test_what_the_nims_http_api_refuses_is_told_when_forced_and_mended_when_not(
    tmp_path: Path, shape: str
) -> None:
    http = {"max_file_bytes": 1000, "error_shape": shape}
    async with Standin(plan(http=http)) as nim, gateway(nim, tmp_path) as client:
        forced = await client.post("/invocations/http", **form(wav()))
        assert (forced.status_code, forced.json()["code"]) == (413, "too_large")
        assert "audio too long" in forced.json()["error"]
        turned = await client.post("/invocations", **form(wav()))
        assert text_of(turned) == "one two three four five"
        assert turned.headers[ATTRIBUTES_HEADER] == "transport=grpc;engine=riva;http=too_large"


async def test_without_the_nims_http_api_the_recognizer_is_asked_unless_http_is_forced(tmp_path: Path) -> None:
    async with Standin(plan()) as nim:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            nobody = taken.getsockname()[1]
        async with gateway(nim, tmp_path, nim_http_port=nobody) as client:
            turned = await client.post("/invocations", **form(wav()))
            assert text_of(turned) == "one two three four five"
            assert turned.headers[ATTRIBUTES_HEADER] == "transport=grpc;engine=riva;http=unavailable"
            forced = await client.post("/invocations/http", **form(wav()))
            assert (forced.status_code, forced.json()["code"]) == (503, "unavailable")
            assert str(nobody) not in forced.text


async def test_a_gateway_without_a_nim_serves_a_forced_http_route_itself_or_refuses_by_policy(tmp_path: Path) -> None:
    async with running(WordEngine(), tmp_path) as addresses, client_of(addresses.port) as client:
        answer = await client.post("/invocations/http", **form(wav()))
        assert answer.status_code == 200
        assert answer.headers[ATTRIBUTES_HEADER].endswith(";http=not-configured")
        assert "NIM_HOST" in answer.json()["predictions"][0]["warnings"][0]
        assert "NIM_HOST" in answer.headers["riva-gateway-note"]
    async with (
        running(WordEngine(), tmp_path, on_unsupported="refuse") as addresses,
        client_of(addresses.port) as client,
    ):
        answer = await client.post("/invocations/http", **form(wav()))
        assert (answer.status_code, answer.json()["code"]) == (400, "unsupported")


async def test_speakers_where_the_recognizer_knows_none_are_a_note_or_an_error_by_policy(tmp_path: Path) -> None:
    asked = form(wav(), speaker_diarization="true")
    async with running(WordEngine(), tmp_path) as addresses, client_of(addresses.port) as client:
        answer = await client.post("/invocations", **asked)
        assert answer.status_code == 200
        assert "diarization" in answer.json()["predictions"][0]["warnings"][0]
    async with (
        running(WordEngine(), tmp_path, on_unsupported="refuse") as addresses,
        client_of(addresses.port) as client,
    ):
        answer = await client.post("/invocations", **asked)
        assert (answer.status_code, answer.json()["param"]) == (400, "diarization")


# --- bounds and errors


async def test_25_mb_are_taken_and_26_are_not(tmp_path: Path) -> None:
    async with running(None, tmp_path, asr_engine="mock") as addresses, client_of(addresses.port) as client:
        most = 25 * 1024 * 1024
        taken = await client.post("/invocations", **form(wav(most)))
        assert taken.status_code == 200
        for body in (
            form(wav(most + 1)),
            {"content": wav(most + 1024), "headers": {"Content-Type": "audio/wav"}},
            {"content": b'{"audio": "' + b"A" * most + b'"}', "headers": {"Content-Type": "application/json"}},
        ):
            refused = await client.post("/invocations", **body)
            assert (refused.status_code, refused.json()["code"]) == (413, "too_large")
            assert "SAGEMAKER_MAX_BYTES" in refused.json()["error"]
        assert not list((tmp_path / "spool").iterdir())


@pytest.mark.parametrize("path", ["/invocations/http", "/invocations", "/invocations/grpc"])
async def test_what_is_not_done_when_the_gateway_ends_is_answered(path: str, tmp_path: Path) -> None:
    slow = plan(delay={"first_response_ms": 20_000})
    mute = await asyncio.start_server(lambda reader, writer: reader.read(), "127.0.0.1", 0)
    port = mute.sockets[0].getsockname()[1]
    async with mute, Standin(slow) as nim, AsyncExitStack() as stack:
        async with gateway(nim, tmp_path, drain_timeout_ms=2_000, nim_http_port=port) as client:
            own = await stack.enter_async_context(client_of(client.base_url.port or 0))
            asked = asyncio.create_task(own.post(path, **form(wav())))
            async with asyncio.timeout(LIMIT_S):
                while (await client.get("/health")).json()["active_streams"] == 0:
                    await asyncio.sleep(0.01)
        answer = await asked
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        assert "shutting down" in answer.json()["error"]


async def test_an_invocation_that_takes_too_long_says_so_in_time(tmp_path: Path) -> None:
    slow = plan(delay={"first_response_ms": 20_000})
    async with Standin(slow) as nim, gateway(nim, tmp_path, sagemaker_timeout_ms=700) as client:
        started = time.monotonic()
        answer = await client.post("/invocations/grpc", **form(wav()))
        in_time(time.monotonic() - started, 5)
        assert (answer.status_code, answer.json()["code"]) == (504, "timeout")
        assert "asynchronous" in answer.json()["error"]


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        ({"content": b"", "headers": {"Content-Type": "audio/wav"}}, 400, "bad_audio"),
        ({"content": b"hello", "headers": {"Content-Type": "text/plain"}}, 400, "bad_request"),
        ({"content": b"not a recording at all" * 9, "headers": {"Content-Type": "audio/wav"}}, 400, "bad_audio"),
        ({"content": b"{", "headers": {"Content-Type": "application/json"}}, 400, "bad_request"),
        ({"json": {"audio": "*"}}, 400, "bad_audio"),
        ({"json": {}}, 400, "bad_request"),
        ({"data": {"language_code": "en-US"}, "files": {"x": (None, "y")}}, 400, "bad_request"),
        (form(b""), 400, "bad_audio"),
        (form(wav(), speaker_diarization="perhaps"), 400, "bad_request"),
        (form(wav(), speaker_diarization="true", max_speakers="-4"), 400, "bad_request"),
        ({**form(wav()), "headers": {ATTRIBUTES_HEADER: "/invocations/smoke"}}, 400, "bad_request"),
        ({"content": b"--x\r\n", "headers": {"Content-Type": "multipart/form-data; boundary=x"}}, 400, "bad_request"),
        ({"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, 400, "bad_request"),
    ],
)
async def test_what_cannot_be_used_is_a_short_json_error(
    tmp_path: Path, request_: dict[str, Any], status: int, code: str
) -> None:
    async with running(WordEngine(), tmp_path) as addresses, client_of(addresses.port) as client:
        answer = await client.post("/invocations", **request_)
        assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
        assert set(answer.json()) <= {"error", "code", "param"}
        assert not list((tmp_path / "spool").glob("*"))


# --- ping


class Mute(WordEngine):
    """A recognizer that does not say whether it is ready."""

    async def ready(self) -> Readiness:
        await asyncio.Event().wait()
        raise AssertionError("never")


@pytest.mark.alone
async def test_ping_answers_at_once_whatever_the_recognizer_does(tmp_path: Path) -> None:
    async with running(Mute(), tmp_path) as addresses, client_of(addresses.port) as client:
        await client.get("/healthz")
        for _ in range(5):
            started = time.monotonic()
            assert (await client.get("/ping")).status_code == 503
            in_time(time.monotonic() - started, 0.25)


# --- the command, as SageMaker starts it


@contextmanager
def container(tmp_path: Path, nim: Standin | None, **more: str) -> Iterator[tuple[Any, int]]:
    """`serve` with what SageMaker and a NIM beside it set; its process and its port."""
    env = {"SAGEMAKER_BIND_TO_PORT": "0", "GRPC_PORT": "off", "NGC_API_KEY": "x", "NIM_TAGS_SELECTOR": "name=x", **more}
    if nim is not None:
        ports = {"RIVA_GRPC_PORT": str(nim.address.grpc_port), "NIM_HTTP_PORT": str(nim.address.http_port)}
        env = {"NIM_HOST": "127.0.0.1", **ports, **env}
    with Shell(tmp_path, {"LOG_LEVEL": "warning", **env}).start("serve") as process:
        yield process, int(wait_for(process, r"http://localhost:(\d+)")[1])


async def test_the_port_is_open_at_once_and_ping_follows_the_nim(tmp_path: Path) -> None:
    async with Standin(plan(server={"models": []})) as nim:
        with container(tmp_path, nim) as (_, port):
            async with client_of(port) as client:
                assert (await client.get("/ping")).status_code == 503
                early = await client.post("/invocations", **form(wav()))
                assert (early.status_code, early.json()["code"]) == (503, "unavailable")
                nim.riva.plan = nim.app.plan = plan()
                async with asyncio.timeout(LIMIT_S):
                    while (await client.get("/ping")).status_code != 200:
                        await asyncio.sleep(0.05)
                answer = await client.post("/invocations", **form(wav()))
                assert text_of(answer) == "one two three four five"
                assert answer.headers[ATTRIBUTES_HEADER] == "transport=http"


@pytest.mark.alone
async def test_connections_are_accepted_and_pings_answered_under_load(tmp_path: Path) -> None:
    with container(tmp_path, None, ASR_ENGINE="mock") as (_, port):
        async with client_of(port) as client:
            load = [asyncio.create_task(client.post("/invocations", **form(wav(6_000_000)))) for _ in range(8)]
            waits: list[float] = []
            while not all(task.done() for task in load):
                started = time.monotonic()
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                waits.append(time.monotonic() - started)
                writer.write(b"GET /ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                async with asyncio.timeout(LIMIT_S):
                    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
                writer.close()
                await writer.wait_closed()
                await asyncio.sleep(0.01)
            assert [(await task).status_code for task in load] == [200] * 8
            assert waits
            in_time(max(waits), 0.25)


async def test_sigterm_lets_an_invocation_finish(tmp_path: Path) -> None:
    async with Standin(plan(delay={"first_response_ms": 1_000})) as nim:
        with container(tmp_path, nim) as (process, port):
            async with client_of(port) as client:
                async with asyncio.timeout(LIMIT_S):
                    while (await client.get("/ping")).status_code != 200:
                        await asyncio.sleep(0.05)
                call = asyncio.create_task(client.post("/invocations/grpc", **form(wav())))
                async with asyncio.timeout(LIMIT_S):
                    while not streams_of(nim):
                        await asyncio.sleep(0.01)
                process.send_signal(signal.SIGTERM)
                assert text_of(await call) == "one two three four five"
            assert await asyncio.to_thread(process.wait, LIMIT_S) == 0
