"""`/v1/realtime` on a running gateway: who gets in as what, sessions made beforehand, and the bytes that arrive."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import requests

import counting
import speech
from counting import CountingEngine
from e2e.gateway import Session, running, session
from server.serve import Addresses
from word_engine import WordEngine

PATH = "/v1/realtime?intent=transcription"
KEY = "key-1"
BEARER = {"Authorization": f"Bearer {KEY}"}
MINT = "/v1/realtime/transcription_sessions"
SECRETS = "/v1/realtime/client_secrets"


async def post(addresses: Addresses, path: str, body: Any = None, **headers: str) -> requests.Response:
    def ask() -> requests.Response:
        data = body if isinstance(body, str | bytes) else json.dumps({} if body is None else body)
        return requests.post(f"http://localhost:{addresses.port}{path}", data=data, headers=headers, timeout=10)

    return await asyncio.to_thread(ask)


async def update(client: Session, **fields: Any) -> dict[str, Any]:
    await client.say(json.dumps({"type": "transcription_session.update", "session": fields}))
    return await client.message()


async def append(client: Session, audio: bytes, **more: Any) -> None:
    encoded = base64.b64encode(audio).decode()
    await client.say(json.dumps({"type": "input_audio_buffer.append", "audio": encoded, **more}))


@pytest.fixture
async def open_gateway(tmp_path: Path) -> AsyncIterator[Addresses]:
    async with running(WordEngine(), tmp_path) as addresses:
        yield addresses


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[Addresses]:
    async with running(WordEngine(), tmp_path, realtime_auth_mint_api_key=KEY) as addresses:
        yield addresses


@pytest.mark.parametrize(
    ("headers", "path", "first"),
    [
        ({}, PATH, "conversation.created"),
        ({}, "/v1/realtime", "conversation.created"),
        (BEARER, PATH, "session.created"),
        (BEARER, "/v1/realtime?model=gpt-4o-transcribe", "session.created"),
        ({**BEARER, "OpenAI-Beta": "realtime=v1"}, PATH, "transcription_session.created"),
        (BEARER, f"{PATH}&dialect=nim", "conversation.created"),
        ({}, f"{PATH}&dialect=openai-beta", "transcription_session.created"),
    ],
)
async def test_dialects_are_told_apart_at_connect(
    open_gateway: Addresses, headers: dict[str, str], path: str, first: str
) -> None:
    async with session(open_gateway, path, additional_headers=headers) as client:
        assert (await client.message())["type"] == first


async def test_client_that_offers_realtime_gets_it_and_one_that_offers_nothing_gets_nothing(
    open_gateway: Addresses,
) -> None:
    offers = (
        ((), None, "conversation.created"),
        (("realtime",), "realtime", "conversation.created"),
        (("realtime", "realtime-token.abc"), "realtime", "conversation.created"),
        (("realtime", "openai-insecure-api-key.k"), "realtime", "session.created"),
        (("realtime", "openai-insecure-api-key.k", "openai-beta.realtime-v1"), "realtime", "transcription_session"),
    )
    for offered, chosen, first in offers:
        async with session(open_gateway, PATH, subprotocols=offered) as client:
            assert client.websocket.subprotocol == chosen
            assert (await client.message())["type"].startswith(first)


@pytest.mark.parametrize("query", ["intent=synthesis", "intent=transcription&dialect=klingon"])
async def test_what_is_not_served_is_told_and_closed(open_gateway: Addresses, query: str) -> None:
    async with session(open_gateway, f"/v1/realtime?{query}") as client:
        assert (await client.message())["error"]["type"] == "invalid_request_error"
        assert await client.hear() == "close 1008"


async def test_session_made_beforehand_is_what_the_connection_starts_from(open_gateway: Addresses) -> None:
    wanted = {"input_audio_transcription": {"language": "en-GB"}, "mine": 1}
    made = await post(open_gateway, MINT, wanted)
    assert made.status_code == 200
    body = made.json()
    assert body["id"].startswith("sess_")
    assert body["input_audio_transcription"] == {"language": "en-GB", "model": "", "prompt": ""}
    assert time.time() + 50 < body["client_secret"]["expires_at"] < time.time() + 70
    token = f"realtime-token.{body['client_secret']['value']}"
    async with session(open_gateway, PATH, subprotocols=("realtime", token)) as client:
        await client.message()
        answer = await update(client)
    assert answer["type"] == "transcription_session.updated"
    assert answer["session"]["input_audio_transcription"]["language"] == "en-GB"
    async with session(open_gateway, PATH, subprotocols=("realtime", token)) as client:
        await client.message()
        answer = await update(client, **body)  # as NVIDIA's client does: all of it
    agreed = {"language": "en-GB", "model": "words-en", "prompt": ""}
    assert answer["session"] == {**body, "input_audio_transcription": agreed}


async def test_beta_session_made_beforehand(open_gateway: Addresses) -> None:
    wanted = {"input_audio_format": "g711_ulaw", "turn_detection": None}
    body = (await post(open_gateway, MINT, wanted)).json()
    assert body["input_audio_format"] == "g711_ulaw"
    headers = {"Authorization": f"Bearer {body['client_secret']['value']}", "OpenAI-Beta": "realtime=v1"}
    async with session(open_gateway, PATH, additional_headers=headers) as client:
        created = await client.message()
    assert created["session"]["input_audio_format"] == "g711_ulaw"
    assert created["session"]["turn_detection"] is None


async def test_client_secret_works_as_a_bearer_key_and_holds_its_session(guarded: Addresses) -> None:
    wanted = {
        "expires_after": {"anchor": "created_at", "seconds": 30},
        "session": {"type": "transcription", "audio": {"input": {"format": {"type": "audio/pcmu"}}}},
    }
    made = await post(guarded, SECRETS, wanted, **BEARER)
    body = made.json()
    assert body["value"].startswith("ek_")
    assert time.time() + 20 < body["expires_at"] < time.time() + 40
    assert body["session"]["type"] == "transcription"
    for shown in (
        {"additional_headers": {"Authorization": f"Bearer {body['value']}"}},
        {"subprotocols": ("realtime", f"openai-insecure-api-key.{body['value']}")},
    ):
        async with session(guarded, "/v1/realtime", **shown) as client:
            created = await client.message()
        assert created["type"] == "session.created"
        assert created["session"]["audio"]["input"]["format"] == {"type": "audio/pcmu"}


async def test_with_a_key_nobody_comes_in_without_it(guarded: Addresses) -> None:
    for path in (MINT, SECRETS):
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"X-API-Key": "wrong"}):
            refused = await post(guarded, path, **headers)
            assert refused.status_code == 401
            assert refused.headers["WWW-Authenticate"].startswith("Bearer realm=")
            assert refused.json()["detail"] == refused.json()["error"]["message"]
        assert (await post(guarded, path, **{"X-API-Key": KEY})).status_code == 200
    for offered, headers in (
        ((), {}),
        (("realtime", "realtime-token.wrong"), {}),
        (("realtime", f"realtime-token.{KEY}"), {}),
        ((), {"Authorization": "Bearer wrong"}),
        (("realtime", "openai-insecure-api-key.wrong"), {}),
    ):
        async with session(guarded, PATH, subprotocols=offered, additional_headers=headers) as client:
            assert (await client.message())["error"]["type"] == "authentication_error"
            assert await client.hear() == "close 1008"
    for path, first in ((PATH, "session.created"), (f"{PATH}&dialect=nim", "conversation.created")):
        async with session(guarded, path, additional_headers=BEARER) as client:
            assert (await client.message())["type"] == first


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (MINT, "", 200),
        (SECRETS, "", 200),
        (MINT, "{", 400),
        (MINT, "[]", 400),
        (MINT, {"input_audio_format": "mp3"}, 400),
        (MINT, {"recognition_config": 3}, 400),
        (MINT, "x" * 300_000, 413),
        (SECRETS, {"session": {"type": "realtime"}}, 400),
        (SECRETS, {"session": 7}, 400),
        (SECRETS, {"session": []}, 400),
        (SECRETS, {"session": None, "expires_after": None}, 200),
        (SECRETS, {"expires_after": 7}, 400),
        (SECRETS, {"expires_after": {"seconds": -1}}, 400),
    ],
)
async def test_bodies_of_the_mint(open_gateway: Addresses, path: str, body: Any, status: int) -> None:
    answer = await post(open_gateway, path, body)
    assert answer.status_code == status, answer.text
    if status != 200:
        assert answer.json()["error"]["type"] == "invalid_request_error"


async def test_health_as_a_nim_answers(open_gateway: Addresses) -> None:
    answer = await asyncio.to_thread(
        requests.get, f"http://localhost:{open_gateway.port}/v1/realtime/health", timeout=10
    )
    assert answer.status_code == 200
    assert answer.json() == {"status": "healthy"}


@pytest.mark.parametrize("cut", [3200, 777, 1, 200_001])
async def test_pcm_arrives_bit_for_bit(tmp_path: Path, cut: int) -> None:
    engine = WordEngine()
    pcm = speech.pcm("greeting")[: 4_001 if cut == 1 else None]
    async with running(engine, tmp_path) as addresses, session(addresses, PATH) as client:
        await client.message()
        await update(client)
        for at in range(0, len(pcm), cut):
            await append(client, pcm[at : at + cut])
            await client.say('{"type":"input_audio_buffer.commit"}')
        await client.say('{"type":"input_audio_buffer.done"}')
        while not (await client.message()).get("is_last_result"):
            pass
    assert engine.heard_bytes == pcm[: len(pcm) // 2 * 2]


async def test_every_frame_is_a_word_once(tmp_path: Path) -> None:
    async with running(CountingEngine(utterance_frames=7), tmp_path) as addresses, session(addresses, PATH) as client:
        await client.message()
        await update(client)
        audio = counting.frames(1000)
        for at in range(0, len(audio), 5_001):
            await append(client, audio[at : at + 5_001])
        await client.say('{"type":"input_audio_buffer.done"}')
        heard: list[str] = []
        last = False
        while not last:
            event = await client.message()
            if event["type"].endswith("completed"):
                heard += event["transcript"].split()
                last = event["is_last_result"]
    assert heard == [counting.word(number) for number in range(1000)]


async def test_message_over_the_limit_is_told_and_closed(open_gateway: Addresses) -> None:
    async with session(open_gateway, PATH) as client:
        await client.message()
        await update(client)
        await client.say("x" * (16 * 1024 * 1024 + 1))
        assert (await client.message())["error"]["code"] == "too_large"
        assert await client.hear() == "close 1009"


async def test_large_append_is_taken(open_gateway: Addresses) -> None:
    async with session(open_gateway, PATH) as client:
        await client.message()
        await update(client)
        await append(client, bytes(32 * 30_000))
        await client.say('{"type":"input_audio_buffer.done"}')
        while not (event := await client.message()).get("is_last_result"):
            pass
        assert event["usage"] == {"type": "duration", "seconds": 30.0}


async def test_full_gateway_is_told_in_the_dialect_of_a_browser(tmp_path: Path) -> None:
    async with running(WordEngine(), tmp_path, max_streams=1) as addresses, session(addresses, PATH) as client:
        await client.message()
        page = {"Origin": f"http://localhost:{addresses.port}"}
        async with session(addresses, PATH, additional_headers=page) as second:
            message = await second.message()
            assert message["type"] == "error"
            assert await second.hear() in ("close 1013", "close 4429")


async def test_drain_brings_the_transcript_home(tmp_path: Path) -> None:
    async with running(WordEngine(), tmp_path) as addresses:
        client_context = session(addresses, PATH)
        client = await client_context.__aenter__()
        await client.message()
        await update(client)
        await append(client, bytes(32 * 600))
        assert (await client.message())["delta"] == "w1"
    kinds = []
    while not (text := await client.hear()).startswith("close"):
        kinds.append(json.loads(text)["type"].rpartition(".")[2])
    assert kinds[-1] == "completed"
    assert text == "close 1001"
    await client_context.__aexit__(None, None, None)


async def test_older_client_without_key_update_or_intent_gets_its_words_by_response_create(tmp_path: Path) -> None:
    engine = WordEngine()
    pcm = speech.pcm("greeting")[: 32 * 1_600]
    async with running(engine, tmp_path) as addresses, session(addresses, "/v1/realtime") as client:
        for at in range(0, len(pcm), 1_001):
            await append(client, pcm[at : at + 1_001])
        await client.say('{"type":"response.create"}')
        said = ""
        while (event := await client.message())["type"] != "response.completed":
            said += event["delta"] if event["type"] == "response.output_text.delta" else ""
    assert said == "w1 w2 w3 w4 w5 w6 w7 w8"
    assert event["response"]["output"][0]["content"][0]["text"] == said
    assert engine.heard_bytes == pcm


async def test_large_append_arrives_bit_for_bit(tmp_path: Path) -> None:
    engine = WordEngine()
    pcm = speech.pcm("story")[: 32 * 20_000] * 3
    async with running(engine, tmp_path) as addresses, session(addresses, PATH) as client:
        await client.message()
        await update(client)
        await append(client, pcm, runtime_config={"force_eou": "true"})
        await client.say('{"type":"input_audio_buffer.done"}')
        while not (event := await client.message()).get("is_last_result"):
            pass
    assert engine.heard_bytes == pcm
    assert event["usage"]["seconds"] == len(pcm) / 32_000


async def test_credential_of_odd_bytes_is_refused_as_any_other(guarded: Addresses) -> None:
    reader, writer = await asyncio.open_connection("localhost", guarded.port)
    writer.write(
        b"GET /v1/realtime HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        b"Authorization: Bearer k\xff\xfe\r\n\r\n"
    )
    async with asyncio.timeout(10):
        await reader.readuntil(b"\r\n\r\n")
        frame = await reader.readuntil(b"}}")
    assert b"authentication_error" in frame
    writer.close()
    await writer.wait_closed()
