"""One budget of streams over every face: who is refused, how it is said, and that it costs next to nothing."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import requests
from google.rpc import error_details_pb2, status_pb2
from websockets.exceptions import InvalidStatus

from asr.errors import ASRError, Code
from asr.riva_proto import asr as pb
from asr.riva_proto import asr_grpc
from timing import in_time
from word_engine import WordEngine

from .command import Shell, wait_for
from .gateway import running, session

LIMIT_S = 20.0
ORIGIN = {"Origin": "https://page.example"}


@asynccontextmanager
async def riva(addresses: Any) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(f"localhost:{addresses.grpc_port}") as channel:
        yield asr_grpc.RivaSpeechRecognitionStub(channel)


def config() -> Any:
    chosen = pb.RecognitionConfig(encoding=1, sample_rate_hertz=16_000)
    return pb.StreamingRecognizeRequest(streaming_config=pb.StreamingRecognitionConfig(config=chosen))


async def refused_by_grpc(stub: Any, metadata: tuple[tuple[str, str], ...] = ()) -> grpc.aio.AioRpcError:
    call = stub.StreamingRecognize(timeout=LIMIT_S, metadata=metadata)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await read_out(call)
    return caught.value


async def read_out(call: Any) -> None:
    while await call.read() is not grpc.aio.EOF:  # type: ignore[attr-defined]
        pass


async def refused_by_http(addresses: Any, path: str = "/v1/stream", **more: Any) -> tuple[int, str, str]:
    with pytest.raises(InvalidStatus) as caught:
        async with session(addresses, path, **more):
            pass
    response = caught.value.response
    return response.status_code, response.headers["Retry-After"], (response.body or b"").decode()


async def until_in_use(addresses: Any, count: int) -> dict[str, Any]:
    async with asyncio.timeout(LIMIT_S):
        while True:
            body = (await asyncio.to_thread(requests.get, addresses.url + "/readyz", timeout=10)).json()
            if body["streams"]["in_use"] == count:
                return body  # type: ignore[no-any-return]
            await asyncio.sleep(0.02)


async def test_one_budget_over_all_faces(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        addresses = await stack.enter_async_context(running(WordEngine(), tmp_path, max_streams=3))
        stub = await stack.enter_async_context(riva(addresses))
        call = stub.StreamingRecognize(timeout=LIMIT_S)
        await call.write(config())
        await call.initial_metadata()
        end = await stack.enter_async_context(session(addresses, "/ws"))
        async with session(addresses) as native:
            await native.say('{"type":"start"}')
            assert (await native.message())["type"] == "ready"
            body = await until_in_use(addresses, 3)
            assert body["streams"] == {"in_use": 3, "limit": 3}
            assert body["draining"] is False
            for path in ("/v1/stream", "/ws"):
                status, retry_after_s, text = await refused_by_http(addresses, path)
                assert status == 503
                assert 2 <= int(retry_after_s) <= 6
                assert "All 3 streams" in text
            error = await refused_by_grpc(stub)
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            with pytest.raises(grpc.aio.AioRpcError, match="All 3 streams"):
                await stub.Recognize(pb.RecognizeRequest(audio=bytes(3200)), timeout=LIMIT_S)
            await native.say('{"type":"stop"}')
            while not (await native.answer()).startswith("close"):
                pass
        await until_in_use(addresses, 2)
        async with session(addresses) as native:
            await native.say('{"type":"start"}')
            assert (await native.message())["type"] == "ready"
        await call.done_writing()
        await read_out(call)
        await end.say("END")
        assert await end.answer() == "END"
        await until_in_use(addresses, 0)


async def test_a_browser_is_told_in_the_words_of_its_dialect(tmp_path: Path) -> None:
    settings = {"max_streams": 1, "allowed_origins": ORIGIN["Origin"]}
    async with running(WordEngine(), tmp_path, **settings) as addresses, session(addresses):
        async with session(addresses, additional_headers=ORIGIN) as page:
            message = await page.message()
            assert (message["type"], message["seq"], message["code"]) == ("error", 1, "overloaded")
            assert message["action"] == "wait"
            assert 2000 <= message["retry_after_ms"] < 6000
            assert await page.answer() == "close 4503"
        async with session(addresses, "/ws", additional_headers=ORIGIN) as page:
            assert json.loads(await page.answer())["error"]["code"] == "overloaded"
            assert await page.answer() == "close 1013"


async def test_the_reserve_is_kept_for_other_callers(tmp_path: Path) -> None:
    greedy, small = {"Authorization": "Bearer greedy"}, {"x-api-key": "small"}
    limits = {"max_streams": 4, "fair_share_reserve_percent": 25, "allowed_origins": ORIGIN["Origin"]}
    async with AsyncExitStack() as stack:
        addresses = await stack.enter_async_context(running(WordEngine(), tmp_path, **limits))
        for headers in (small, greedy, greedy):
            await stack.enter_async_context(session(addresses, additional_headers=headers))
        status, retry_after_s, text = await refused_by_http(addresses, additional_headers=greedy)
        assert status == 429
        assert int(retry_after_s) >= 5
        assert "your share" in text
        async with session(addresses, subprotocols=["asr.v1", "token.greedy"], additional_headers=ORIGIN) as page:
            assert (await page.message())["code"] == "rate_limited"
            assert await page.answer() == "close 4429"
        stub = await stack.enter_async_context(riva(addresses))
        error = await refused_by_grpc(stub, (("authorization", "Bearer greedy"),))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        metadata = dict(error.trailing_metadata() or ())
        wait_ms = int(metadata["grpc-retry-pushback-ms"])
        assert 5000 <= wait_ms < 15_000
        assert int(metadata["retry-after"]) == -(-wait_ms // 1000)
        assert metadata["riva-gateway-code"] == "rate_limited"
        said = status_pb2.Status.FromString(metadata["grpc-status-details-bin"])
        assert (said.code, said.message) == (grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], error.details())
        info = error_details_pb2.RetryInfo()
        assert said.details[0].Unpack(info)
        assert info.retry_delay.ToMilliseconds() == wait_ms
        await stack.enter_async_context(session(addresses, additional_headers={"x-api-key": "new"}))


async def test_what_the_engine_cannot_take_is_refused_at_the_door(tmp_path: Path) -> None:
    engine = WordEngine()
    async with running(engine, tmp_path) as addresses, riva(addresses) as stub:
        engine.refuses = ASRError(Code.UNAVAILABLE, "The recognizer is down.", retry_after_ms=60_000)
        status, retry_after_s, text = await refused_by_http(addresses)
        assert (status, text) == (503, "The recognizer is down.\n")
        assert int(retry_after_s) >= 30
        error = await refused_by_grpc(stub)
        assert (error.code(), error.details()) == (grpc.StatusCode.UNAVAILABLE, "The recognizer is down.")
        engine.refuses = None
        async with session(addresses) as client:
            await client.say('{"type":"start"}')
            assert (await client.message())["type"] == "ready"
    assert engine.streams == 1


@pytest.mark.alone
async def test_a_flood_is_refused_quickly(tmp_path: Path) -> None:
    # Of 300 who come within a fifth of a second, nearly all are refused within 50 ms, and the stream that runs goes on.
    shell = Shell(tmp_path, {"MAX_STREAMS": "1", "LOG_LEVEL": "warning"})
    with shell.start("serve", "--engine", "mock", "--no-tls", "--port", "0", "--grpc-port", "off") as gateway:
        port = int(wait_for(gateway, r"http://localhost:(\d+)")[1])
        loop = asyncio.get_running_loop()

        async def knock(after_s: float) -> tuple[float, bytes, asyncio.StreamWriter]:
            await asyncio.sleep(after_s)
            begun = loop.time()
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            key = base64.b64encode(os.urandom(16)).decode()
            writer.write(
                f"GET /v1/stream HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
            )
            answer = await reader.readline()
            return loop.time() - begun, answer, writer

        _, answer, first = await knock(0)
        assert b"101" in answer
        p99_s = []
        for _ in range(3):  # the machine may be busy with something else for a moment
            async with asyncio.timeout(LIMIT_S):
                found = await asyncio.gather(*(knock(number * 0.2 / 300) for number in range(300)))
            assert {answer for _, answer, _ in found} == {b"HTTP/1.1 503 Service Unavailable\r\n"}
            p99_s.append(sorted(time_s for time_s, _, _ in found)[297])
            for _, _, writer in found:
                writer.close()
        in_time(min(p99_s), 0.05)
        first.close()
