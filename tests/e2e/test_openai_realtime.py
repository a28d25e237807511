"""OpenAI's realtime transcription on real sockets: the bytes, the dialects told apart, the ends."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asr.audio import AudioDecoder, AudioFormat, Encoding
from server.serve import Addresses
from word_engine import WordEngine

from .gateway import Session, running, session

KEY = {"Authorization": "Bearer sk-anything"}


@asynccontextmanager
async def realtime(addresses: Addresses, *, beta: bool = False, **heard: Any) -> AsyncIterator[Session]:
    """A client whose session is set, with the client committing where nothing else is said."""
    more = {"OpenAI-Beta": "realtime=v1"} if beta else {}
    path = "/v1/realtime?intent=transcription"
    async with session(addresses, path, additional_headers={**KEY, **more}) as client:
        created = (await client.message())["type"]
        assert created == ("transcription_session.created" if beta else "session.created")
        settings = heard if beta else {"type": "transcription", "audio": {"input": {"turn_detection": None, **heard}}}
        await tell(client, created.replace("created", "update"), session=settings)
        assert (await client.message())["type"] == created.replace("created", "updated")
        yield client


async def tell(client: Session, kind: str, **fields: Any) -> None:
    await client.say(json.dumps({"type": kind, **fields}))


async def append(client: Session, audio: bytes) -> None:
    await tell(client, "input_audio_buffer.append", audio=base64.b64encode(audio).decode())


async def until(client: Session, name: str) -> dict[str, Any]:
    while not (message := await client.message())["type"].endswith(name):
        assert message["type"] != "error", message
    return message


async def test_bytes_reach_the_engine_as_they_were_sent(tmp_path: Path) -> None:
    engine = WordEngine()
    sent = bytes(range(256)) * 300
    async with (
        running(engine, tmp_path) as addresses,
        realtime(addresses, format={"type": "audio/pcm", "rate": 16_000}) as client,
    ):
        for start in range(0, len(sent), 777):
            await append(client, sent[start : start + 777])
        await tell(client, "input_audio_buffer.commit")
        await until(client, "completed")
    assert engine.heard_bytes == sent


@pytest.mark.parametrize(
    ("name", "encoding", "rate_hz"),
    [
        ("pcm16", Encoding.PCM_S16LE, 24_000),
        ("g711_ulaw", Encoding.MULAW, 8_000),
        ("g711_alaw", Encoding.ALAW, 8_000),
    ],
)
async def test_other_formats_are_what_their_decoder_makes_of_them(
    name: str, encoding: Encoding, rate_hz: int, tmp_path: Path
) -> None:
    engine = WordEngine()
    sent = np.random.default_rng(1).integers(0, 256, 48_000, np.uint8).tobytes()
    async with (
        running(engine, tmp_path) as addresses,
        realtime(addresses, beta=True, input_audio_format=name, turn_detection=None) as client,
    ):
        for start in range(0, len(sent), 4_801):
            await append(client, sent[start : start + 4_801])
        await tell(client, "input_audio_buffer.commit")
        done = await until(client, "completed")
    decoder = AudioDecoder(AudioFormat(encoding, rate_hz))
    assert engine.heard_bytes == decoder.feed(sent) + decoder.finish()
    assert done["usage"]["seconds"] == pytest.approx(len(engine.heard_bytes) / 32_000, abs=0.002)


async def test_a_browsers_key_and_a_minted_one_are_openais_today(tmp_path: Path) -> None:
    async with running(WordEngine(), tmp_path) as addresses:
        offered = ["realtime", "openai-insecure-api-key.ek_123"]
        async with session(addresses, "/v1/realtime", subprotocols=offered) as client:
            assert (await client.message())["type"] == "session.created"
            assert client.websocket.subprotocol == "realtime"


async def test_what_model_names_in_the_address_counts_and_is_told(tmp_path: Path) -> None:
    async with running(WordEngine(), tmp_path) as addresses:
        async with session(addresses, "/v1/realtime?model=words-de", additional_headers=KEY) as client:
            created = await client.message()
        assert created["session"]["audio"]["input"]["transcription"] == {"model": "words-de"}
        async with session(addresses, "/v1/realtime?model=gpt-4o-transcribe", additional_headers=KEY) as client:
            assert "gpt-4o-transcribe" in (await client.message())["warnings"][0]
        async with session(addresses, "/v1/realtime?model=nonsense", additional_headers=KEY) as client:
            assert (await client.message())["type"] == "session.created"
            assert (await client.message())["error"]["code"] == "model_not_found"


async def test_a_drain_brings_the_transcript_home(tmp_path: Path) -> None:
    heard: list[str] = []
    async with asyncio.timeout(20):
        async with running(WordEngine(), tmp_path) as addresses:
            context = realtime(addresses, format={"type": "audio/pcm", "rate": 16_000})
            client = await context.__aenter__()
            await append(client, bytes(32 * 500))
            await until(client, "delta")

            async def listen() -> None:
                while not heard or not heard[-1].startswith("close"):
                    heard.append(await client.hear())

            listening = asyncio.create_task(listen())
        await listening
        await context.__aexit__(None, None, None)
    assert json.loads(heard[-2])["transcript"] == "w1 w2"
    assert heard[-1] == "close 1001"


async def test_a_message_over_the_limit_is_refused_in_words(tmp_path: Path) -> None:
    async with running(WordEngine(), tmp_path) as addresses, realtime(addresses) as client:
        await tell(client, "input_audio_buffer.append", audio="A" * (15 * 1024 * 1024 + 4))
        assert (await client.message())["error"]["code"] == "too_large"
        await client.say(" " * (17 * 1024 * 1024))
        assert (await client.message())["error"]["code"] == "too_large"
        assert await client.answer() == "close 1009"
