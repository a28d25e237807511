"""SageMaker's two-way stream over real sockets: whatever dialect its client speaks, as SageMaker delivers it."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from server.faces.sagemaker_stream import PATH, PATH_HEADER, QUERY_HEADER
from timing import in_time
from word_engine import WordEngine

from .gateway import Session, running, session

SECOND = b"\x01\x02" * 16_000


async def say(talk: Session, content: dict[str, Any], *, binary: bool = True) -> None:
    """JSON as SageMaker delivers it: in a binary frame, unless the client said that it is text."""
    text = json.dumps(content)
    await talk.say(text.encode() if binary else text)


async def until_closed(talk: Session) -> list[dict[str, Any]]:
    """Every message to the end, then what the close frame said as `{"close": code}`."""
    told: list[dict[str, Any]] = []
    while not (text := await talk.answer()).startswith("close"):
        told.append(json.loads(text))
    return [*told, {"close": int(text.split()[1])}]


# --- native


@pytest.mark.parametrize("binary", [True, False])
async def test_the_native_protocol_with_its_json_in_binary_or_text(tmp_path: Path, *, binary: bool) -> None:
    engine = WordEngine()
    async with running(engine, tmp_path) as addresses, session(addresses, PATH) as talk:
        await say(talk, {"type": "start", "language": "en-US"}, binary=binary)
        assert (await talk.message())["type"] == "ready"
        await talk.say(SECOND)
        await say(talk, {"type": "stop"}, binary=binary)
        told = await until_closed(talk)
        finals = [message["text"] for message in told if message.get("type") == "final"]
        assert finals == ["w1 w2 w3 w4 w5"]
        assert told[-1] == {"close": 1000}
        assert engine.heard_bytes == SECOND


async def test_a_message_in_fragments_is_one_message(tmp_path: Path) -> None:
    engine = WordEngine()
    async with running(engine, tmp_path) as addresses, session(addresses, PATH) as talk:
        start = b'{"type": "start"}'
        await talk.websocket.send([start[:5], start[5:9], start[9:]])
        assert (await talk.message())["type"] == "ready"
        await talk.websocket.send([SECOND[:1001], SECOND[1001:]])
        await say(talk, {"type": "stop"})
        await until_closed(talk)
        assert engine.heard_bytes == SECOND


async def test_pings_are_answered(tmp_path: Path) -> None:
    async with running(WordEngine(), tmp_path) as addresses, session(addresses, PATH) as talk:
        async with asyncio.timeout(5):
            await (await talk.websocket.ping(b"alive"))


async def test_the_limit_of_a_connection_is_told_and_the_session_resumed_on_the_next(tmp_path: Path) -> None:
    engine = WordEngine()
    limit = {"sagemaker_max_session_ms": 1_000}
    async with running(engine, tmp_path, **limit) as addresses:
        async with session(addresses, PATH) as talk:
            await say(talk, {"type": "start"})
            ready = await talk.message()
            await talk.say(SECOND)
            told = await until_closed(talk)
            error = told[-2]
            assert (error["type"], error["action"]) == ("error", "resume")
            assert told[-1] == {"close": 4502}
            last_seq = max(message.get("seq", 0) for message in told)
        again = {"session": ready["session_id"]}
        async with session(addresses, f"{PATH}?session={again['session']}") as talk:
            resume = {"type": "resume", "session_id": ready["session_id"], "resume_token": ready["resume_token"]}
            await say(talk, {**resume, "last_seq": last_seq})
            assert (await talk.message())["type"] == "resumed"
            await say(talk, {"type": "stop"})
            assert (await until_closed(talk))[-1] == {"close": 1000}
    assert engine.heard_bytes == SECOND
    assert engine.streams == 1


async def test_a_session_that_cannot_be_resumed_is_brought_to_its_end_at_the_limit(tmp_path: Path) -> None:
    more = {"sagemaker_max_session_ms": 1_000, "resume_window_ms": 0}
    async with running(WordEngine(), tmp_path, **more) as addresses, session(addresses, PATH) as talk:
        await say(talk, {"type": "start"})
        await talk.message()
        await talk.say(SECOND[:19_200])
        told = await until_closed(talk)
        assert [message["text"] for message in told if message.get("type") == "final"] == ["w1 w2 w3"]
        assert told[-1] == {"close": 1001}


# --- plain


@pytest.mark.parametrize("headers", [True, False])
async def test_plain_audio_with_options_in_the_query_or_in_headers(tmp_path: Path, *, headers: bool) -> None:
    query = "model=nova-3&language=en&encoding=linear16&sample_rate=16000&channels=1&interim_results=true"
    where = (PATH, {PATH_HEADER: "v1/listen", QUERY_HEADER: query}) if headers else (f"{PATH}/v1/listen?{query}", {})
    engine = WordEngine()
    async with (
        running(engine, tmp_path) as addresses,
        session(addresses, where[0], additional_headers=where[1]) as talk,
    ):
        await talk.say(SECOND)
        await say(talk, {"type": "KeepAlive"}, binary=False)
        await talk.say(SECOND[:6_400])
        await say(talk, {"type": "Finalize"}, binary=False)
        await say(talk, {"type": "CloseStream"}, binary=False)
        told = await until_closed(talk)
        results = [message for message in told if message.get("type") == "Results"]
        finals = [message for message in results if message["is_final"]]
        assert [one["channel"]["alternatives"][0]["transcript"] for one in finals] == ["w1 w2 w3 w4 w5", "w6"]
        assert [one["from_finalize"] for one in finals] == [False, True]
        assert len(results) > len(finals)
        assert "nova-3" in told[0]["message"]
        assert told[-2:] == [{"type": "Metadata", "duration": 1.2, "channels": 1}, {"close": 1000}]
        assert engine.heard_bytes == SECOND + SECOND[:6_400]


async def test_plain_audio_without_a_word_before(tmp_path: Path) -> None:
    async with running(WordEngine("no-cut"), tmp_path) as addresses, session(addresses, PATH) as talk:
        await talk.say(SECOND[:12_800])
        await say(talk, {"type": "Finalize"})
        await talk.say(SECOND[:12_800])
        await say(talk, {"type": "CloseStream"})
        told = [message for message in await until_closed(talk) if message.get("is_final")]
        assert [(one["text"], one["from_finalize"], one["start"]) for one in told] == [
            ("w1 w2", True, 0.0),
            ("w1 w2", False, 0.4),
        ]


async def test_an_error_reaches_the_client_as_sagemaker_knows_it(tmp_path: Path) -> None:
    async with running(WordEngine("unavailable@400"), tmp_path) as addresses, session(addresses, PATH) as talk:
        await talk.say(SECOND)
        told = await until_closed(talk)
        assert told[-2]["ModelStreamError"]["ErrorCode"] == "unavailable"
        assert told[-1] == {"close": 4502}
        assert talk.websocket.close_reason == "unavailable"


async def test_the_limit_of_a_plain_stream_is_announced(tmp_path: Path) -> None:
    more = {"sagemaker_max_session_ms": 1_000}
    async with running(WordEngine(), tmp_path, **more) as addresses, session(addresses, PATH) as talk:
        await talk.say(SECOND[:19_200])
        told = await until_closed(talk)
        warnings = [message["message"] for message in told if message.get("code") == "session_limit"]
        assert len(warnings) == 2
        assert [message["text"] for message in told if message.get("is_final")] == ["w1 w2 w3"]
        assert told[-1] == {"close": 1001}


# --- realtime


async def test_realtime_events_of_a_nim_in_binary_frames(tmp_path: Path) -> None:
    async with running(WordEngine(), tmp_path) as addresses, session(addresses, PATH) as talk:
        await say(talk, {"type": "transcription_session.update", "session": {"input_audio_format": "pcm16"}})
        for start in range(0, len(SECOND), 3_200):
            audio = base64.b64encode(SECOND[start : start + 3_200]).decode()
            await say(talk, {"type": "input_audio_buffer.append", "audio": audio})
            await say(talk, {"type": "input_audio_buffer.commit"})
        await say(talk, {"type": "session.end"})
        told: list[dict[str, Any]] = []
        while not (told and told[-1].get("is_last_result")):
            told.append(await talk.message())
        kinds = [message["type"] for message in told]
        assert kinds[0] == "conversation.created"
        assert "transcription_session.updated" in kinds
        texts = [message["transcript"] for message in told if message["type"].endswith(".completed")]
        assert "w1 w2 w3 w4 w5" in texts
        assert "error" not in kinds


async def test_a_client_that_waits_for_the_first_event_names_the_path(tmp_path: Path) -> None:
    async with (
        running(WordEngine(), tmp_path) as addresses,
        session(addresses, PATH, additional_headers={PATH_HEADER: "v1/realtime"}) as talk,
    ):
        assert (await talk.message())["type"] == "conversation.created"


async def test_the_limit_of_a_realtime_session_comes_after_its_last_results(tmp_path: Path) -> None:
    more = {"sagemaker_max_session_ms": 1_000}
    async with running(WordEngine(), tmp_path, **more) as addresses, session(addresses, PATH) as talk:
        await say(talk, {"type": "transcription_session.update", "session": {"input_audio_format": "pcm16"}})
        audio = base64.b64encode(SECOND[:19_200]).decode()
        await say(talk, {"type": "input_audio_buffer.append", "audio": audio})
        await say(talk, {"type": "input_audio_buffer.commit"})
        told = await until_closed(talk)
        assert "w1 w2 w3" in [message.get("transcript") for message in told]
        assert "close" in told[-1]


# --- the door


async def test_a_client_that_never_says_anything_is_let_go(tmp_path: Path) -> None:
    async with running(WordEngine(), tmp_path, start_timeout_ms=200) as addresses, session(addresses, PATH) as talk:
        assert [*(await until_closed(talk))][-1] == {"close": 4408}


async def test_a_drain_does_not_wait_for_a_first_message(tmp_path: Path) -> None:
    async with AsyncExitStack() as clients:
        async with running(WordEngine(), tmp_path) as addresses:
            talk = await clients.enter_async_context(session(addresses, PATH))
            started = time.monotonic()
        in_time(time.monotonic() - started, 5)
        assert (await until_closed(talk))[-1] == {"close": 4502}


async def test_only_a_return_to_a_session_is_let_into_a_full_house(tmp_path: Path) -> None:
    async with running(WordEngine(), tmp_path, max_streams=1) as addresses, session(addresses, PATH) as talk:
        await say(talk, {"type": "start"})
        ready = await talk.message()
        named = f"session={ready['session_id']}"
        for below in ("", "/v1/listen", f"/v1/listen?{named}", f"/v1/realtime?{named}", "?session=another"):
            with pytest.raises(InvalidStatus) as refused:
                async with session(addresses, PATH + below):
                    raise AssertionError(below)
            assert refused.value.response.status_code == 503
        resume = {"type": "resume", "session_id": ready["session_id"], "resume_token": ready["resume_token"]}
        async with session(addresses, PATH, additional_headers={QUERY_HEADER: named}) as again:
            await say(again, {**resume, "last_seq": ready["seq"]})
            assert (await again.message())["type"] == "resumed"


@pytest.mark.parametrize("below", ["/", "/v1/stream", "/anything/at/all?language=en-US"])
async def test_everything_below_the_path_is_answered(tmp_path: Path, below: str) -> None:
    async with running(WordEngine(), tmp_path) as addresses, session(addresses, PATH + below) as talk:
        await say(talk, {"type": "start"})
        assert (await talk.message())["type"] == "ready"
