"""Sessions over real connections that break: reset, half closed, taken over, read too slowly."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterable
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from asr.engine import AudioInput
from asr.events import Event, Final, Partial
from asr.options import Options
from playbook import Player, SeqCheck
from word_engine import WordEngine

from .gateway import PATIENCE_S, Session, connecting, running, session

AUDIO = bytes(range(256)) * 32 * 25  # 6.4 s
CHUNK = 3_300


class Talker:
    """A client that keeps its audio and sends again what did not arrive, whatever happens to its connection."""

    def __init__(self, player: Player) -> None:
        self.player = player
        self.sent = 0
        self.finals: list[str] = []

    async def talk(self, chunks: int) -> None:
        for _ in range(chunks):
            await self.player.say(AUDIO[self.sent : self.sent + CHUNK])
            self.sent = min(self.sent + CHUNK, len(AUDIO))
            await asyncio.sleep(0)

    async def come_back(self) -> None:
        await self.player.resume()
        while (message := await self.player.message())["type"] != "resumed":
            pass
        self.sent = message["from_bytes"]

    async def finish(self) -> dict[str, Any]:
        while self.sent < len(AUDIO):
            await self.talk(1)
        await self.player.say('{"type":"stop"}')
        while (message := await self.player.message())["type"] != "summary":
            if message["type"] == "final":
                self.finals.append(message["text"])
        assert await self.player.answer() == "close 1000"
        return message


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_resets_in_the_middle_of_a_stream_lose_nothing(tmp_path: Path, tls: bool) -> None:
    engine = WordEngine()
    async with running(engine, tmp_path, tls=tls) as addresses:
        more = {}
        if tls:
            more["ssl"] = ssl.create_default_context(cafile=str(next(tmp_path.rglob("*.crt"))))
        async with connecting(addresses, **more) as connecting_:
            player = Player(connecting_)
            await player.open("/v1/stream")
            await player.say('{"type":"start","words":false}')
            await player.message()
            talker = Talker(player)
            for _ in range(8):
                await talker.talk(5)
                await player.cut()
                await talker.come_back()
            summary = await talker.finish()
    assert engine.heard_bytes == AUDIO, "what the recognizer heard is not what was said"
    assert summary["resumes"] == 8
    assert summary["audio_ms"] == len(AUDIO) // 32
    assert summary["utterances"] == 7


async def test_a_place_lives_as_long_as_its_session(tmp_path: Path) -> None:
    engine = WordEngine()
    async with (
        running(engine, tmp_path, max_streams=1, resume_window_ms=500) as addresses,
        connecting(addresses) as connecting_,
    ):
        player = Player(connecting_)
        await player.open("/v1/stream")
        await player.say('{"type":"start"}')
        await player.message()
        await player.cut()
        with pytest.raises(InvalidStatus):
            async with session(addresses):
                pass
        await player.resume()
        assert (await player.message())["type"] == "resumed"
        await player.say('{"type":"keepalive"}')
        await player.cut()
        async with asyncio.timeout(PATIENCE_S):
            while engine.open_streams:
                await asyncio.sleep(0.05)
        async with session(addresses) as other:
            await other.say('{"type":"start"}')
            assert (await other.message())["type"] == "ready"


async def test_the_end_dialect_frees_its_place_with_its_connection(tmp_path: Path) -> None:
    engine = WordEngine()
    async with running(engine, tmp_path, max_streams=1) as addresses:
        for _ in range(3):
            async with session(addresses, "/ws") as client:
                await client.say(bytes(32 * 200))
                assert (await client.message())["text"] == "w1"
                await client.cut()
            async with asyncio.timeout(PATIENCE_S):
                while engine.open_streams:
                    await asyncio.sleep(0.01)


class Burst(WordEngine):
    """Says far more than the buffers of two sockets hold, all at once, and then waits for the audio to end."""

    UTTERANCES, REVISIONS = 40, 60

    def __init__(self) -> None:
        super().__init__()
        self.done = asyncio.Event()

    async def stream(self, audio: AsyncIterable[AudioInput], options: Options) -> AsyncGenerator[Event]:
        text = "x" * 10_000
        for number in range(self.UTTERANCES):
            for revision in range(1, self.REVISIONS):
                yield Partial(number, revision, text, 0, 1)
                await asyncio.sleep(0)
            yield Final(number, self.REVISIONS, text, 0, 1)
        self.done.set()
        async for _ in audio:
            pass


async def test_a_reader_that_stops_reading_gets_every_final_when_it_reads_again(tmp_path: Path) -> None:
    engine = Burst()
    async with running(engine, tmp_path) as addresses:
        narrow = socket.socket()
        narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        narrow.setblocking(False)
        await asyncio.get_running_loop().sock_connect(narrow, ("127.0.0.1", addresses.port))
        url = f"ws://localhost:{addresses.port}/v1/stream"
        async with connect(url, sock=narrow, max_queue=1, close_timeout=2, proxy=None) as websocket:
            client = Session(websocket)
            await client.say('{"type":"start"}')
            async with asyncio.timeout(PATIENCE_S):
                await engine.done.wait()
            said, check = [], SeqCheck()
            while said.count("final") < Burst.UTTERANCES:
                said.append(check(await client.hear())["type"])
            await client.say('{"type":"stop"}')
            while not (await client.answer()).startswith("close"):
                pass
    assert said.count("partial") < Burst.UTTERANCES * Burst.REVISIONS / 2, "nothing was left out"


async def test_sessions_that_wait_end_when_the_server_goes_down(tmp_path: Path) -> None:
    engine = WordEngine()
    async with running(engine, tmp_path) as addresses, session(addresses) as client:
        await client.say('{"type":"start"}')
        await client.message()
        await client.cut()
        await asyncio.sleep(0.05)
        assert engine.open_streams == 1
    assert engine.open_streams == 0
