"""The golden conversations with the real driver over an in-memory wire, and every way out of a driver."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import aclosing
from typing import Any

import pytest

from asr.engine import AudioInput, Features
from asr.events import Event
from asr.options import Options
from memory_gateway import PATIENCE_S, MemoryConnection, MemoryGateway, serving
from playbook import Playbook, Player, all_playbooks, play
from server.drive import PIECE_BYTES, DriveLimits
from server.faces.native_setup import NativeLimits
from server.sockets import MemorySocket, Oversized
from word_engine import WordEngine


async def opened(gateway: MemoryGateway, path: str = "/v1/stream") -> tuple[Player, MemorySocket]:
    """A client that is connected, and its socket."""
    player = Player(gateway.connect)
    await player.open(path)
    return player, gateway.connections[-1].socket


@pytest.mark.parametrize("book", all_playbooks(), ids=lambda book: book.name)
async def test_golden_conversation_in_memory(book: Playbook) -> None:
    async with serving(WordEngine(book.fault), NativeLimits(resume_window_ms=int(book.window))) as gateway:
        await play(book, Player(gateway.connect))


async def test_a_client_that_leaves_ends_the_engine_stream_at_once() -> None:
    engine = WordEngine()
    async with serving(engine) as gateway:
        client, socket = await opened(gateway)
        await client.say('{"type":"start"}')
        await client.say(bytes(32_000))
        await client.answer()
        assert engine.open_streams == 1
        await asyncio.sleep(0.01)
        socket.hang_up(1000)
        await asyncio.sleep(0.01)
        assert engine.open_streams == 0
        assert len(gateway.sessions) == 0
    record = gateway.watch.record
    assert record is not None
    assert record.close_code is None
    assert record.audio_ms == 1000


async def test_an_engine_that_hangs_does_not_keep_a_client_that_cancels() -> None:
    async with serving(WordEngine("hang@200")) as gateway:
        client, _ = await opened(gateway)
        await client.say('{"type":"start"}')
        await client.say(bytes(6400))
        assert (await client.message())["type"] == "ready"
        assert (await client.message())["type"] == "partial"
        await client.say('{"type":"cancel"}')
        assert (await client.message())["type"] == "summary"
        assert await client.answer() == "close 1000"


async def test_audio_ahead_of_the_engine_is_bounded() -> None:
    async with serving(WordEngine("hang@200"), None, DriveLimits(max_ahead_ms=1000)) as gateway:
        client, socket = await opened(gateway)
        await client.say('{"type":"start"}')
        for _ in range(100):
            await client.say(bytes(3200))
        await client.answer()
        await asyncio.sleep(0.1)
        left = len(socket._inbox)
        assert left >= 80, "the reader went on although the engine takes nothing"
    assert gateway.watch.record is not None
    assert gateway.watch.record.audio_ms <= 1500


async def test_a_defect_in_the_engine_is_an_apology_not_a_hang() -> None:
    async with serving(WordEngine("bug@200")) as gateway:
        client, _ = await opened(gateway)
        await client.say('{"type":"start"}')
        await client.say(bytes(6400))
        answers = [await client.message() for _ in range(4)]
        assert [a["type"] for a in answers] == ["ready", "partial", "gap", "error"]
        assert answers[3]["code"] == "internal"
        assert "defect" not in answers[3]["message"]
        assert await client.answer() == "close 1011"
    assert gateway.watch.record is not None
    assert gateway.watch.record.code == "internal"


async def test_an_oversized_message_is_refused_with_its_reason() -> None:
    async with serving(WordEngine()) as gateway:
        client, socket = await opened(gateway)
        await client.say('{"type":"start"}')
        assert (await client.message())["type"] == "ready"
        socket.put(Oversized(1024))
        error = await client.message()
        assert error["code"] == "too_large"
        assert "1024" in error["message"]
        assert await client.answer() == "close 1009"
    assert gateway.watch.record is not None
    assert gateway.watch.record.code == "too_large"


class SilentSocket(MemorySocket):
    """A client that answers no ping."""

    def __init__(self) -> None:
        super().__init__()
        self._since = asyncio.get_running_loop().time()

    @property
    def last_heard(self) -> float:
        return self._since


async def ending(connection: MemoryConnection) -> list[dict[str, Any] | str]:
    """Everything that a connection is sent, to its close."""
    heard: list[dict[str, Any] | str] = []
    while not (text := await connection.hear()).startswith("close"):
        heard.append(json.loads(text))
    return [*heard, text]


async def test_a_silent_connection_is_warned_and_then_closed() -> None:
    async with serving(WordEngine(), None, DriveLimits(idle_ms=300)) as gateway:
        connection = gateway.take(SilentSocket())
        await connection.say('{"type":"start","resume_window_ms":0}')
        *said, close = await ending(connection)
        assert [message["type"] for message in said] == ["ready", "warning", "error"]  # type: ignore[index]
        assert close == "close 4408"
        assert said[-1]["action"] == "restart"  # type: ignore[index]


class Stuck(WordEngine):
    """Takes no audio after 200 ms, and cannot cut in mid-stream."""

    def __init__(self) -> None:
        super().__init__("hang@200")

    @property
    def features(self) -> Features:
        return Features(end_utterance=False)


async def test_audio_ahead_is_bounded_over_all_takes() -> None:
    async with serving(Stuck(), None, DriveLimits(max_ahead_ms=1000)) as gateway:
        client, _ = await opened(gateway)
        await client.say('{"type":"start"}')
        for number in range(50):
            await client.say(bytes(32 * 900))
            await client.say(json.dumps({"type": "finalize", "id": str(number)}))
        await client.answer()
        await asyncio.sleep(0.1)
    assert gateway.watch.record is not None
    assert gateway.watch.record.audio_ms <= 3_000


async def test_a_client_that_vanishes_while_its_audio_waits_is_noticed() -> None:
    async with serving(WordEngine("hang@200"), None, DriveLimits(max_ahead_ms=500)) as gateway:
        client, socket = await opened(gateway)
        await client.say('{"type":"start"}')
        for _ in range(20):
            await client.say(bytes(3200))
        await client.answer()
        await asyncio.sleep(0.05)
        assert len(socket._inbox) > 5
        socket.hang_up()
        async with asyncio.timeout(PATIENCE_S):
            while not gateway.watch.lost_sessions:
                await asyncio.sleep(0.01)


class Waits(WordEngine):
    """Hears nothing until it may."""

    def __init__(self) -> None:
        super().__init__()
        self.may = asyncio.Event()

    async def stream(self, audio: AsyncIterable[AudioInput], options: Options) -> AsyncGenerator[Event]:
        await self.may.wait()
        async with aclosing(super().stream(audio, options)) as events:
            async for event in events:
                yield event


async def test_behind_a_large_message_that_was_not_heard_to_its_end_nothing_is_heard() -> None:
    engine = Waits()
    async with serving(engine, None, DriveLimits(max_ahead_ms=500)) as gateway:
        client, socket = await opened(gateway)
        await client.say('{"type":"start"}')
        await client.say(b"\x01\x00" * 60_000)  # waits in its midst for room
        await client.say(b"\x02\x00" * 1_000)
        await client.answer()
        await asyncio.sleep(0.05)
        engine.may.set()  # there is room, just when the client vanishes
        socket.hang_up()
        async with asyncio.timeout(PATIENCE_S):
            while not gateway.watch.lost_sessions:
                await asyncio.sleep(0.01)
        (session,) = gateway.sessions._sessions.values()
        assert session.driver.watch.audio_ms * 32 % PIECE_BYTES == 0 < session.driver.watch.audio_ms < 3_000


async def test_a_drain_asks_every_session_at_once_and_the_newcomers_too() -> None:
    async with serving(WordEngine()) as gateway:
        speaking, _ = await opened(gateway)
        await speaking.say('{"type":"start"}')
        await speaking.message()
        newcomer, _ = await opened(gateway)
        await asyncio.sleep(0)
        gateway.sessions.drain(1500)
        status = await speaking.message()
        assert (status["state"], status["deadline_ms"]) == ("draining", 1500)
        assert (await speaking.message())["type"] == "summary"
        assert await speaking.answer() == "close 1001"
        assert (await newcomer.message())["code"] == "unavailable"
        assert await newcomer.answer() == "close 4502"


async def test_the_start_timeout_counts_from_the_connection() -> None:
    async with serving(WordEngine(), NativeLimits(start_timeout_ms=100)) as gateway:
        client, _ = await opened(gateway)
        async with asyncio.timeout(1.0):
            assert (await client.message())["code"] == "idle_timeout"
            assert await client.answer() == "close 4408"


async def test_a_take_that_is_dropped_before_its_turn_opens_no_stream() -> None:
    engine = WordEngine()
    async with serving(engine) as gateway:
        client, _ = await opened(gateway, "/v1/realtime")
        for _ in range(20):
            await client.say('{"type":"transcription_session.update","session":{}}')
        await client.say('{"type":"input_audio_buffer.done"}')
        while "is_last_result" not in await client.answer():
            pass
    assert engine.streams <= 2
