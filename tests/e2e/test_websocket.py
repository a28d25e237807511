"""The running server on real sockets: the golden conversations, and what only a wire can show."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import time
from pathlib import Path

import numpy as np
import pytest
from websockets.exceptions import InvalidStatus

import sound
from playbook import Playbook, Player, all_playbooks, play
from timing import in_time
from word_engine import WordEngine

from .gateway import PATIENCE_S, connecting, running, session, trusting


@pytest.mark.parametrize("book", all_playbooks(), ids=lambda book: book.name)
async def test_golden_conversation_with_the_running_server(book: Playbook, tmp_path: Path) -> None:
    engine = WordEngine(book.fault)
    async with (
        running(engine, tmp_path, resume_window_ms=int(book.window)) as addresses,
        connecting(addresses) as connect,
    ):
        await play(book, Player(connect))
    assert engine.open_streams == 0


async def test_bytes_reach_the_engine_as_they_were_sent(tmp_path: Path) -> None:
    engine = WordEngine()
    sent = bytes(range(256)) * 400
    async with running(engine, tmp_path) as addresses, session(addresses) as client:
        await client.say('{"type":"start"}')
        for start in range(0, len(sent), 777):
            await client.say(sent[start : start + 777])
        await client.say('{"type":"stop"}')
        while not (await client.answer()).startswith("close"):
            pass
    assert engine.heard_bytes == sent


async def test_the_certificate_made_on_the_first_run_is_good_for_localhost(tmp_path: Path) -> None:
    async with running(WordEngine(), tmp_path, tls=True) as addresses:
        cert = next(tmp_path.rglob("*.crt"))
        async with session(addresses, ssl=trusting(cert)) as client:
            await client.say('{"type":"start"}')
            assert (await client.message())["type"] == "ready"
        with pytest.raises(ssl.SSLCertVerificationError):
            async with session(addresses, ssl=ssl.create_default_context()):
                pass


async def test_subprotocols(tmp_path: Path) -> None:
    async with running(WordEngine(), tmp_path) as addresses:
        for offered, chosen in [(["asr.v1"], "asr.v1"), (["asr.v1", "token.abc"], "asr.v1"), ([], None), (["x"], None)]:
            async with session(addresses, subprotocols=offered) as client:
                assert client.websocket.subprotocol == chosen
                assert "Sec-WebSocket-Extensions" not in client.websocket.response.headers  # type: ignore[union-attr]


async def test_an_unknown_path_is_a_404_that_names_those_there_are(tmp_path: Path) -> None:
    async with running(WordEngine(), tmp_path) as addresses:
        with pytest.raises(InvalidStatus) as refused:
            async with session(addresses, "/v1/nothing"):
                pass
    assert refused.value.response.status_code == 404
    assert b"/v1/stream" in (refused.value.response.body or b"")


async def test_beyond_the_connection_limit_clients_are_told_to_come_back(tmp_path: Path) -> None:
    async with running(WordEngine(), tmp_path, max_connections=1) as addresses, session(addresses):
        with pytest.raises(InvalidStatus) as refused:
            async with session(addresses):
                pass
    assert refused.value.response.status_code == 503
    assert refused.value.response.headers["Retry-After"]


async def test_a_frame_over_the_limit_is_refused_in_words_and_by_code(tmp_path: Path) -> None:
    async with running(WordEngine(), tmp_path, max_frame_bytes=10_000) as addresses:
        for frame in (bytes(10_001), bytes(5_000_000)):
            async with session(addresses) as client:
                await client.say('{"type":"start"}')
                assert (await client.message())["type"] == "ready"
                await client.say(frame)
                assert (await client.message())["code"] == "too_large"
                assert await client.answer() == "close 1009"


async def test_fragmented_messages_are_put_together_and_bounded(tmp_path: Path) -> None:
    engine = WordEngine()
    async with running(engine, tmp_path, max_frame_bytes=10_000) as addresses:
        async with session(addresses) as client:
            await client.say('{"type":"start"}')
            await client.message()
            await client.websocket.send([b"a" * 1000, b"b" * 1000, b"c" * 1001])
            await client.say('{"type":"stop"}')
            while not (await client.answer()).startswith("close"):
                pass
        assert engine.heard_bytes == b"a" * 1000 + b"b" * 1000 + b"c" * 1000
        async with session(addresses) as client:
            await client.say('{"type":"start"}')
            await client.message()
            await client.websocket.send([b"a" * 4000] * 4)
            assert (await client.message())["code"] == "too_large"


async def test_a_client_that_sends_faster_than_the_engine_hears_is_slowed_not_buffered(tmp_path: Path) -> None:
    engine = WordEngine("hang@200")
    async with running(engine, tmp_path, max_ahead_ms=1000) as addresses, session(addresses) as client:
        await client.say('{"type":"start"}')
        await client.message()
        sent = 0
        try:
            async with asyncio.timeout(1.0):
                while sent < 100_000_000:
                    await client.websocket.send(bytes(32_000))
                    sent += 32_000
        except TimeoutError:
            pass
        assert sent < 20_000_000, "the server took it all"
        client.websocket.transport.abort()


async def test_an_engine_failure_reaches_the_client_within_a_second(tmp_path: Path) -> None:
    async with running(WordEngine("unavailable@200"), tmp_path) as addresses, session(addresses) as client:
        await client.say('{"type":"start"}')
        await client.say(bytes(6400))
        started = time.monotonic()
        kinds = []
        while not (text := await client.answer()).startswith("close"):
            kinds.append(json.loads(text)["type"])
        assert kinds[-1] == "error"
        assert text == "close 4502"
        in_time(time.monotonic() - started, 1.0)


async def test_a_request_that_never_comes_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.listener.REQUEST_TIMEOUT_S", 0.3)
    loop = asyncio.get_running_loop()
    async with running(WordEngine(), tmp_path) as addresses:
        for said in (b"", b"GET / HT", b"POST /readyz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nabc"):
            reader, writer = await asyncio.open_connection("localhost", addresses.port)
            writer.write(said)
            started = loop.time()
            async with asyncio.timeout(PATIENCE_S):
                try:
                    while await reader.read(4096):
                        pass
                except ConnectionResetError:
                    pass
            in_time(loop.time() - started, 2.0)
            writer.close()


async def test_stopping_the_server_flushes_finals_and_closes_with_going_away(tmp_path: Path) -> None:
    async with running(WordEngine(), tmp_path) as addresses:
        client_context = session(addresses)
        client = await client_context.__aenter__()
        await client.say('{"type":"start"}')
        await client.say(bytes(32 * 600))
        kinds = [(await client.message())["type"] for _ in range(4)]
        assert kinds == ["ready", "partial", "partial", "partial"]
    answers = []
    while not (text := await client.answer()).startswith("close"):
        answers.append(json.loads(text)["type"])
    assert answers == ["status", "final", "summary"]
    assert text == "close 1001"
    await client_context.__aexit__(None, None, None)


async def test_a_port_in_use_is_said_plainly(tmp_path: Path) -> None:
    from asr.errors import ASRError

    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ASRError) as refused:
        async with running(WordEngine(), tmp_path, port=taken.getsockname()[1]):
            pass
    assert "PORT" in refused.value.message
    assert "in use" in refused.value.message


async def test_a_silent_client_that_answers_pings_stays_connected(tmp_path: Path) -> None:
    async with running(WordEngine(), tmp_path, idle_timeout_ms=1000) as addresses, session(addresses) as client:
        await client.say('{"type":"start"}')
        await client.message()
        await asyncio.sleep(2.5)
        await client.say('{"type":"stop"}')
        assert (await client.message())["type"] == "summary"


async def test_a_connection_between_requests_has_a_timer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.listener.REQUEST_TIMEOUT_S", 0.3)
    async with running(WordEngine(), tmp_path) as addresses:
        reader, writer = await asyncio.open_connection("localhost", addresses.port)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        await asyncio.sleep(0.1)
        writer.write(b"\r\n")
        async with asyncio.timeout(2.0):
            while await reader.read(4096):
                pass
        writer.close()


async def test_an_upgrade_on_the_heels_of_a_request_is_refused(tmp_path: Path) -> None:
    async with running(WordEngine(), tmp_path) as addresses:
        reader, writer = await asyncio.open_connection("localhost", addresses.port)
        writer.write(
            b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
            b"GET /v1/stream HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        async with asyncio.timeout(5.0):
            answer = await reader.read()
        assert b"101" not in answer
        assert b"400" in answer
        writer.close()


async def test_an_alias_and_the_policy_of_the_operator_hold_in_the_native_protocol(tmp_path: Path) -> None:
    settled = {"model_aliases": "mine=words-de", "on_unsupported": "refuse"}
    async with running(WordEngine(), tmp_path, **settled) as addresses:
        async with session(addresses, "/v1/stream") as talk:
            await talk.say('{"type": "start", "model": "mine", "language": "de"}')
            ready = await talk.message()
            assert ready["model"] == "words-de"
            assert "'words-de' answers in its place" in ready["warnings"][0]
        async with session(addresses, "/v1/stream") as talk:
            await talk.say('{"type": "start", "diarization": {}}')
            assert (await talk.message())["code"] == "unsupported"


@pytest.mark.alone
async def test_a_large_message_of_compressed_sound_lets_others_have_their_turn(tmp_path: Path) -> None:
    samples = np.frombuffer(sound.noise(16_000 * 120), "<i2") // 50
    recording = sound.encoded(samples, 16_000, "libopus", "ogg")
    assert len(recording) > 300_000
    worst_s, over = 0.0, False

    async def beat() -> None:
        nonlocal worst_s
        loop = asyncio.get_running_loop()
        while not over:
            before = loop.time()
            await asyncio.sleep(0.005)
            worst_s = max(worst_s, loop.time() - before - 0.005)

    engine = WordEngine()
    async with running(engine, tmp_path) as addresses, session(addresses) as client:
        await client.say('{"type":"start","audio":{"encoding":"ogg_opus"}}')
        assert (await client.message())["type"] == "ready"
        beating = asyncio.create_task(beat())
        await client.say(recording)
        await client.say('{"type":"stop"}')
        while (await client.message())["type"] != "summary":
            pass
        over = True
        await beating
    assert abs(len(engine.heard_bytes) / 32_000 - 120) < 0.1
    in_time(worst_s, 0.2)
