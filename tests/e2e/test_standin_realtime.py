"""The stand-in's realtime WebSocket: NVIDIA's own client end to end, and what closes a socket."""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import io
import json
import wave
from collections.abc import AsyncIterator
from typing import Any

import pytest
import websockets
from riva.client.realtime import RealtimeClientASR

from asr.mock.plan import MockPlan, load_plan
from server.standin import Standin

LIMIT_S = 10.0
ENDPOINTING = (
    "start_history",
    "start_threshold",
    "stop_history",
    "stop_history_eou",
    "stop_threshold",
    "stop_threshold_eou",
)
LONG = "a b c d e f g h i j k l m n o p q"


def plan(**keys: Any) -> MockPlan:
    return load_plan({"hears": "clock", "loop": False, "utterances": ["one two three", "four five"]} | keys)


def chunks(ms: int, rate_hz: int = 8000) -> list[bytes]:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(bytes(rate_hz * ms // 1000 * 2))
    data = out.getvalue()
    return [data[at : at + 3200] for at in range(0, len(data), 3200)]


def arguments(standin: Standin, **changes: Any) -> argparse.Namespace:
    values: dict[str, Any] = {
        "server": f"127.0.0.1:{standin.address.http_port}",
        "endpoint": "/v1/realtime",
        "query_params": "intent=transcription",
        "use_ssl": False,
        "ssl_root_cert": None,
        "ssl_client_cert": None,
        "ssl_client_key": None,
        "mint_api_key": None,
        "language_code": "en-US",
        "word_time_offsets": True,
        **dict.fromkeys(ENDPOINTING, -1),
    }
    return argparse.Namespace(**values | changes)


def nvidias(standin: Standin, force_eou: list[bool] | None = None, **changes: Any) -> RealtimeClientASR:
    """NVIDIA's client after a whole file; it asks for the session with a blocking call, hence its own loop."""

    async def talk() -> RealtimeClientASR:
        client = RealtimeClientASR(arguments(standin, **changes))
        async with asyncio.timeout(LIMIT_S):
            await client.connect()
            await asyncio.gather(
                client.send_audio_chunks(chunks(5000), force_eou_chunks=force_eou), client.receive_responses()
            )
            await client.disconnect()
        return client

    return asyncio.run(talk())


@pytest.mark.parametrize(
    ("realtime", "heard"),
    [
        ({}, "one two three four five"),
        ({"deltas": "incremental", "duplicate_completed": True}, "one two three four five"),
        ({"last_completed": "tail"}, ""),
        ({"failed_utterance": 1}, "one two three four five"),
    ],
)
async def test_nvidias_client_transcribes_a_file(realtime: dict[str, Any], heard: str) -> None:
    async with Standin(plan(realtime=realtime)) as standin:
        client = await asyncio.to_thread(nvidias, standin)
        assert client.final_transcript == heard
        assert client.is_config_updated


async def test_nvidias_client_with_a_key_and_without(capsys: pytest.CaptureFixture[str]) -> None:
    async with Standin(plan(realtime={"mint_api_key": "k1"})) as standin:
        client = await asyncio.to_thread(nvidias, standin, mint_api_key="k1")
        assert client.final_transcript == "one two three four five"
        assert client.websocket.subprotocol == "realtime"
        with pytest.raises(Exception, match="Session authentication failed"):
            await asyncio.to_thread(nvidias, standin)
    assert "two" in capsys.readouterr().out


async def test_nvidias_client_forces_the_end_of_an_utterance() -> None:
    flags = [False, False, True]
    async with Standin(plan(realtime={"last_completed": "tail"}, utterances=[LONG])) as s:
        client = await asyncio.to_thread(nvidias, s, flags)
        assert client.final_transcript == ""
        s.app.plan = plan(utterances=[LONG, "z"])
        client = await asyncio.to_thread(nvidias, s, flags)
        assert client.final_transcript == "a b z"


async def test_nvidias_client_is_told_of_errors(caplog: pytest.LogCaptureFixture) -> None:
    async with Standin(plan(faults=[{"kind": "internal", "at_ms": 1000}])) as standin:
        client = await asyncio.to_thread(nvidias, standin)
        assert client.final_transcript == ""
    assert "RST_STREAM" in caplog.text


def url(standin: Standin, query: str = "?intent=transcription") -> str:
    return f"ws://127.0.0.1:{standin.address.http_port}/v1/realtime{query}"


@pytest.mark.parametrize("query", ["", "?intent=conversation"])
async def test_without_intent_the_socket_closes(query: str) -> None:
    async with Standin(plan()) as standin, websockets.connect(url(standin, query)) as socket:
        with pytest.raises(websockets.ConnectionClosed) as caught:
            await asyncio.wait_for(socket.recv(), LIMIT_S)
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 1008


async def test_a_wrong_secret_closes_the_socket() -> None:
    protocols = [websockets.Subprotocol("realtime"), websockets.Subprotocol("realtime-token.guess")]
    async with (
        Standin(plan(realtime={"mint_api_key": "k1"})) as standin,
        websockets.connect(url(standin), subprotocols=protocols) as socket,
    ):
        with pytest.raises(websockets.ConnectionClosed) as caught:
            await asyncio.wait_for(socket.recv(), LIMIT_S)
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 1008


async def read_to_close(socket: Any) -> tuple[list[dict[str, Any]], int]:
    async with asyncio.timeout(LIMIT_S):
        events = [json.loads(message) async for message in _messages(socket)]
    return events, socket.close_code


async def _messages(socket: Any) -> AsyncIterator[str]:
    with contextlib.suppress(websockets.ConnectionClosed):
        while True:
            yield await socket.recv()


async def test_an_idle_socket_is_closed() -> None:
    async with Standin(plan(realtime={"idle_close_ms": 50})) as standin, websockets.connect(url(standin)) as socket:
        events, code = await read_to_close(socket)
    assert [e["type"] for e in events] == ["conversation.created"]
    assert code == 1000


async def test_a_fault_closes_the_socket_after_its_error() -> None:
    keys: dict[str, Any] = {"faults": [{"kind": "unavailable", "at_ms": 320}], "delay": {"first_response_ms": 20}}
    async with Standin(plan(**keys)) as standin, websockets.connect(url(standin)) as socket:
        await socket.send(json.dumps({"type": "transcription_session.update", "session": {}}))
        audio = base64.b64encode(bytes(32 * 400)).decode()
        await socket.send(json.dumps({"type": "input_audio_buffer.append", "audio": audio}))
        events, code = await read_to_close(socket)
    assert [e["type"].rsplit(".", 1)[-1] for e in events] == ["created", "updated", "delta", "error"]
    assert code == 1011


@pytest.mark.parametrize("kind", ["hang", "stop_reading"])
async def test_a_socket_that_hangs_is_closed_in_the_end(kind: str) -> None:
    keys: dict[str, Any] = {"faults": [{"kind": kind, "at_ms": 320}], "delay": {"hang_ms": 50}}
    async with Standin(plan(**keys)) as standin, websockets.connect(url(standin)) as socket:
        await socket.send(json.dumps({"type": "transcription_session.update", "session": {}}))
        audio = base64.b64encode(bytes(32 * 400)).decode()
        for _ in range(3):
            await socket.send(json.dumps({"type": "input_audio_buffer.append", "audio": audio}))
        events, code = await read_to_close(socket)
    assert [e["type"].rsplit(".", 1)[-1] for e in events] == ["created", "updated", "delta"]
    assert code == 1011


async def test_stopping_closes_open_sockets() -> None:
    standin = Standin(plan())
    await standin.start()
    async with websockets.connect(url(standin)) as socket:
        await socket.recv()
        async with asyncio.timeout(5):
            await standin.stop()
            await read_to_close(socket)
