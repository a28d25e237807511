"""`asr.connect` and a real gateway, with a wire between them that is cut, pulled, or leads to a fresh process."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import pytest

import asr
from asr import Final, Gap, RivaASRClient, Session, State, Status
from asr.events import Event
from server.certificates import local_certificate
from word_engine import WordEngine

from .gateway import running

PATIENCE_S = 30.0
AUDIO = bytes(range(1, 251)) * 1_024  # eight seconds: the recognizer hears forty words in it
PIECE = 3_200


class Wire:
    """A TCP relay whose far end may change, and that may be cut, or pulled out for a while."""

    def __init__(self) -> None:
        self.port = 0
        self.to_port = 0
        self.carried_bytes = 0
        self.cut_at: list[int] = []
        self._plugged = asyncio.Event()
        self._plugged.set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.to_port)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, far_writer}
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._copy(reader, far_writer, counts=True))
                both.create_task(self._copy(far_reader, writer))
        except* OSError:
            pass
        finally:
            for end in (writer, far_writer):
                self._writers.discard(end)
                end.transport.abort()

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    def pull(self) -> None:
        self._plugged.clear()

    def plug(self) -> None:
        self._plugged.set()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, counts: bool = False) -> None:
        while data := await reader.read(2_048):
            await self._plugged.wait()
            writer.write(data)
            await writer.drain()
            if counts:
                self.carried_bytes += len(data)
                if self.cut_at and self.carried_bytes >= self.cut_at[0]:
                    self.cut_at.pop(0)
                    self.cut()
        writer.close()


@asynccontextmanager
async def wire(to_port: int) -> AsyncIterator[Wire]:
    here = Wire()
    here.to_port = to_port
    server = await asyncio.start_server(here.serve, "127.0.0.1", 0)
    here.port = server.sockets[0].getsockname()[1]
    try:
        yield here
    finally:
        here.plug()
        here.cut()
        server.close()
        await server.wait_closed()


async def talk(session: Session, pause_s: float = 0.0) -> list[Event]:
    async def speak() -> None:
        for at in range(0, len(AUDIO), PIECE):
            await session.send(AUDIO[at : at + PIECE])
            await asyncio.sleep(pause_s)
        await session.stop()

    async with asyncio.timeout(PATIENCE_S):
        speaking = asyncio.create_task(speak())
        try:
            return [event async for event in session]
        finally:
            speaking.cancel()
            await asyncio.wait([speaking])


def said(events: list[Event]) -> list[tuple[object, ...]]:
    return [(f.utterance, f.text, f.start_ms, f.end_ms, f.words) for f in events if isinstance(f, Final)]


def states(events: list[Event]) -> list[State]:
    return [event.state for event in events if isinstance(event, Status)]


async def uncut(tmp_path: Path) -> list[tuple[object, ...]]:
    async with (
        running(WordEngine(), tmp_path / "uncut") as addresses,
        asr.connect(f"ws://127.0.0.1:{addresses.port}") as session,
    ):
        return said(await talk(session))


@pytest.mark.parametrize("cut_at", [[700], [2_000, 130_000], [255_000]])
async def test_a_cut_anywhere_changes_no_word(tmp_path: Path, cut_at: list[int]) -> None:
    async with (
        running(WordEngine(), tmp_path) as addresses,
        wire(addresses.port) as between,
        asr.connect(f"ws://127.0.0.1:{between.port}") as session,
    ):
        between.cut_at = list(cut_at)
        events = await talk(session, 0.002)
        assert session.resumes == len(cut_at)
        assert session.summary is not None
        assert session.summary["resumes"] == len(cut_at)
    assert states(events) == [State.FAILING_OVER, State.RECOVERED] * len(cut_at)
    assert said(events) == await uncut(tmp_path)


async def test_a_cut_under_tls(tmp_path: Path) -> None:
    async with (
        running(WordEngine(), tmp_path, tls=True) as addresses,
        wire(addresses.port) as between,
        asr.connect(
            f"wss://localhost:{between.port}", ca_cert=local_certificate(tmp_path).cert, token="secret"
        ) as session,
    ):
        between.cut_at = [100_000]
        events = await talk(session, 0.002)
        assert session.resumes == 1
    assert said(events) == await uncut(tmp_path)


async def test_a_cable_that_is_pulled_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asr.session.session.SILENCE_TIMEOUT_MS", 1_500)
    async with (
        running(WordEngine(), tmp_path) as addresses,
        wire(addresses.port) as between,
        asr.connect(f"ws://127.0.0.1:{between.port}", connect_timeout_ms=1_000) as session,
    ):
        talking = asyncio.create_task(talk(session, 0.04))
        while between.carried_bytes < 60_000:
            await asyncio.sleep(0.01)
        between.pull()
        async with asyncio.timeout(PATIENCE_S):
            while session.state == "connected":
                await asyncio.sleep(0.01)
        await asyncio.sleep(1)
        between.plug()
        events = await talking
        assert session.resumes >= 1
    assert said(events) == await uncut(tmp_path)
    assert not [event for event in events if isinstance(event, Gap)]


async def test_a_fresh_gateway_takes_over(tmp_path: Path) -> None:
    """Its recognizer numbers its words anew; each second is five of them, none missing and none twice."""
    async with (
        running(WordEngine(), tmp_path / "next") as later,
        running(WordEngine(), tmp_path / "first") as first,
        wire(first.port) as between,
        asr.connect(f"ws://127.0.0.1:{between.port}") as session,
    ):
        talking = asyncio.create_task(talk(session, 0.02))
        while between.carried_bytes < 100_000:
            await asyncio.sleep(0.01)
        between.to_port = later.port
        between.cut()
        events = await talking
        assert session.resumes == 1
    finals = [event for event in events if isinstance(event, Final)]
    assert [(f.utterance, f.start_ms, f.end_ms) for f in finals] == [(n, n * 1000, n * 1000 + 1000) for n in range(8)]
    assert all(len(final.words) == 5 for final in finals)
    assert states(events) == [State.FAILING_OVER, State.RECOVERED]


async def test_a_gateway_that_goes_down_in_order_hands_over(tmp_path: Path) -> None:
    async with running(WordEngine(), tmp_path / "next") as later, wire(0) as between:
        async with running(WordEngine(), tmp_path / "first") as first:
            between.to_port = first.port
            opening = asr.connect(f"ws://127.0.0.1:{between.port}")
            session = await opening.__aenter__()
            talking = asyncio.create_task(talk(session, 0.02))
            while between.carried_bytes < 100_000:
                await asyncio.sleep(0.01)
            between.to_port = later.port
        events = await talking
        await opening.__aexit__(None, None, None)
    words = [(word.start_ms, word.end_ms) for event in events if isinstance(event, Final) for word in event.words]
    assert sum(end - start for start, end in words) > 7_500
    assert all(before[1] <= after[0] for before, after in pairwise(words))
    assert session.resumes == 1


async def test_a_client_of_a_far_gateway_survives_too(tmp_path: Path) -> None:
    async def audio() -> AsyncIterator[bytes]:
        for at in range(0, len(AUDIO), PIECE):
            yield AUDIO[at : at + PIECE]
            await asyncio.sleep(0.002)

    async with (
        running(WordEngine(), tmp_path) as addresses,
        wire(addresses.port) as between,
        RivaASRClient(f"http://127.0.0.1:{between.port}") as client,
    ):
        between.cut_at = [100_000]
        async with asyncio.timeout(PATIENCE_S):
            events = [event async for event in client.stream_transcribe(audio())]
    assert said(events) == await uncut(tmp_path)
    assert states(events) == [State.FAILING_OVER, State.RECOVERED]


async def test_the_example_of_the_guide_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    guide = (Path(__file__).resolve().parents[2] / "docs" / "library.md").read_text("utf-8")
    (example,) = re.findall(r"^```python session\n(.*?)^```", guide, re.M | re.S)

    async def microphone() -> AsyncIterator[bytes]:
        yield AUDIO[:64_000]

    async with running(WordEngine(), tmp_path) as addresses:
        code = example.replace("wss://gateway:8443", f"ws://127.0.0.1:{addresses.port}")
        space = {"__name__": "example", "microphone": microphone}
        await asyncio.to_thread(exec, compile(code, "docs/library.md", "exec"), space)
    assert "w1 w2 w3 w4 w5" in capsys.readouterr().out.splitlines()
