"""The golden conversations with the real driver over an in-memory wire, and every way out of a driver."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from asr.engine import Features
from playbook import Playbook, SeqCheck, all_playbooks, play
from server.build import Conversations
from server.conversation import Conversation
from server.drive import DriveLimits, Driver, Tally
from server.faces.end import EndConversation
from server.faces.native import NativeConversation, NativeLimits, NativeSetup
from server.sockets import MemorySocket, Oversized
from word_engine import WordEngine

PATIENCE_S = 5.0


class Watch:
    """An observer that keeps what it was told."""

    def __init__(self) -> None:
        self.tally: Tally | None = None

    def opened(self, face: str, peer: str) -> None:
        pass

    def closed(self, face: str, peer: str, tally: Tally, duration_s: float) -> None:
        self.tally = tally


class MemoryStage:
    """Plays a conversation against a driver; answers are read in order, acks left out."""

    def __init__(self, socket: MemorySocket) -> None:
        self.socket = socket
        self._read = 0
        self._check = SeqCheck()

    async def say(self, message: str | bytes) -> None:
        self.socket.put(message)

    async def answer(self) -> str:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                while self._read < len(self.socket.sent):
                    text = self.socket.sent[self._read]
                    self._read += 1
                    if not text.startswith("{") or self._check(text).get("type") != "ack":
                        return text
                if self.socket.closed is not None:
                    return f"close {self.socket.closed[0]}"
                await self.socket.changed()


def native(engine: WordEngine) -> NativeConversation:
    return NativeConversation(NativeSetup("test", NativeLimits()), "s1")


def core_for(book: Playbook, engine: WordEngine) -> Conversation:
    if book.path == "/ws":
        return EndConversation(start_timeout_ms=10_000, max_session_ms=3_600_000, unix_time=time.time)
    return native(engine)


@asynccontextmanager
async def driving(
    core: Conversation, engine: WordEngine, *, limits: DriveLimits | None = None
) -> AsyncIterator[tuple[MemorySocket, Driver, Watch]]:
    """A driver at work; on the way out it must be over within a bound and have left nothing behind."""
    before = asyncio.all_tasks()
    socket, watch = MemorySocket(), Watch()
    driver = Driver("test", socket, core, engine, limits=limits or DriveLimits(), observer=watch)
    task = asyncio.create_task(driver.run())
    try:
        yield socket, driver, watch
    finally:
        if socket.closed is None:
            socket.hang_up()
        async with asyncio.timeout(PATIENCE_S):
            await task
        assert engine.open_streams == 0
        assert watch.tally is not None
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == before


@pytest.mark.parametrize("book", all_playbooks(), ids=lambda book: book.name)
async def test_golden_conversation_in_memory(book: Playbook) -> None:
    engine = WordEngine(book.fault)
    async with driving(core_for(book, engine), engine) as (socket, _, _):
        await play(book, MemoryStage(socket))


async def test_a_client_that_vanishes_ends_the_engine_stream_at_once() -> None:
    engine = WordEngine()
    async with driving(native(engine), engine) as (socket, _, watch):
        socket.put('{"type":"start"}')
        socket.put(bytes(32_000))
        stage = MemoryStage(socket)
        await stage.answer()
        assert engine.open_streams == 1
    assert watch.tally is not None
    assert watch.tally.close_code is None
    assert watch.tally.audio_ms == 1000


async def test_an_engine_that_hangs_does_not_keep_a_client_that_cancels() -> None:
    engine = WordEngine("hang@200")
    async with driving(native(engine), engine) as (socket, _, _):
        stage = MemoryStage(socket)
        socket.put('{"type":"start"}')
        socket.put(bytes(6400))
        assert json.loads(await stage.answer())["type"] == "ready"
        assert json.loads(await stage.answer())["type"] == "partial"
        socket.put('{"type":"cancel"}')
        assert json.loads(await stage.answer())["type"] == "summary"
        assert await stage.answer() == "close 1000"


async def test_audio_ahead_of_the_engine_is_bounded() -> None:
    engine = WordEngine("hang@200")
    async with driving(native(engine), engine, limits=DriveLimits(max_ahead_ms=1000)) as (socket, _, watch):
        socket.put('{"type":"start"}')
        for _ in range(100):
            socket.put(bytes(3200))
        await MemoryStage(socket).answer()
        await asyncio.sleep(0.1)
        left = len(socket._inbox)
        assert left >= 80, "the reader went on although the engine takes nothing"
    assert watch.tally is not None
    assert watch.tally.audio_ms <= 1500


async def test_a_defect_in_the_engine_is_an_apology_not_a_hang() -> None:
    engine = WordEngine("bug@200")
    async with driving(native(engine), engine) as (socket, _, watch):
        stage = MemoryStage(socket)
        socket.put('{"type":"start"}')
        socket.put(bytes(6400))
        answers = [json.loads(await stage.answer()) for _ in range(3)]
        assert [a["type"] for a in answers] == ["ready", "partial", "error"]
        assert answers[2]["code"] == "internal"
        assert "defect" not in answers[2]["message"]
        assert await stage.answer() == "close 1011"
    assert watch.tally is not None
    assert watch.tally.error == "internal"


async def test_an_oversized_message_is_refused_with_its_reason() -> None:
    engine = WordEngine()
    async with driving(native(engine), engine) as (socket, _, watch):
        stage = MemoryStage(socket)
        socket.put('{"type":"start"}')
        assert json.loads(await stage.answer())["type"] == "ready"
        socket.put(Oversized(1024))
        error = json.loads(await stage.answer())
        assert error["code"] == "too_large"
        assert "1024" in error["message"]
        assert await stage.answer() == "close 1009"
    assert watch.tally is not None
    assert watch.tally.error == "too_large"


async def test_a_reader_that_does_not_read_is_let_go() -> None:
    engine = WordEngine()
    async with driving(native(engine), engine) as (socket, _, _):
        socket.blocked = True
        socket.put('{"type":"start"}')
        async with asyncio.timeout(PATIENCE_S):
            while socket.closed is None:
                await socket.changed()
        assert socket.closed[0] == 4499


class SilentSocket(MemorySocket):
    """A client that answers no ping."""

    def __init__(self) -> None:
        super().__init__()
        self._since = asyncio.get_running_loop().time()

    @property
    def last_heard(self) -> float:
        return self._since


async def test_a_silent_connection_is_warned_and_then_closed() -> None:
    engine, socket = WordEngine(), SilentSocket()
    driver = Driver("test", socket, native(engine), engine, limits=DriveLimits(idle_ms=300), observer=Watch())
    socket.put('{"type":"start"}')
    async with asyncio.timeout(PATIENCE_S):
        await driver.run()
    kinds = [json.loads(text)["type"] for text in socket.sent]
    assert kinds == ["ready", "warning", "error"]
    assert socket.closed is not None
    assert socket.closed[0] == 4408


class Stuck(WordEngine):
    """Takes no audio after 200 ms, and cannot cut in mid-stream."""

    def __init__(self) -> None:
        super().__init__("hang@200")

    @property
    def features(self) -> Features:
        return Features(end_utterance=False)


async def test_audio_ahead_is_bounded_over_all_takes() -> None:
    engine = Stuck()
    async with driving(native(engine), engine, limits=DriveLimits(max_ahead_ms=1000)) as (socket, _, watch):
        socket.put('{"type":"start"}')
        for number in range(50):
            socket.put(bytes(32 * 900))
            socket.put(json.dumps({"type": "finalize", "id": str(number)}))
        await MemoryStage(socket).answer()
        await asyncio.sleep(0.1)
    assert watch.tally is not None
    assert watch.tally.audio_ms <= 3_000


async def test_a_client_that_vanishes_while_its_audio_waits_is_noticed() -> None:
    engine = WordEngine("hang@200")
    async with driving(native(engine), engine, limits=DriveLimits(max_ahead_ms=500)) as (socket, _, _):
        socket.put('{"type":"start"}')
        for _ in range(20):
            socket.put(bytes(3200))
        await MemoryStage(socket).answer()
        await asyncio.sleep(0.05)
        assert len(socket._inbox) > 5


async def test_one_slow_client_does_not_hold_up_the_drain_of_others() -> None:
    drained = asyncio.Event()

    class Slow:
        async def drain(self) -> None:
            await asyncio.sleep(3600)

    class Quick:
        async def drain(self) -> None:
            drained.set()

    conversations = Conversations.__new__(Conversations)
    conversations._running = {Slow(), Quick(), Slow()}  # type: ignore[arg-type]
    draining = asyncio.create_task(conversations.drain())
    async with asyncio.timeout(PATIENCE_S):
        await drained.wait()
    draining.cancel()
