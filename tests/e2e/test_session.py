"""`asr.connect` over real sockets: against the model of a gateway, whose connections are cut, frozen and refused."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus

import pytest
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

import asr
from asr import ASRError, Code, Final, Gap, Partial, Session, State, Status
from asr.config import GatewayConfig
from asr.engine import BYTES_PER_MS, AudioInput, EndUtterance
from asr.engines.gateway import GatewayEngine
from asr.events import Event, Flushed
from asr.options import Options
from model_gateway import Connection, ModelGateway, sound

PATIENCE_S = 15.0
TALK = sound((1, 60), (2, 30), (0, 90), (3, 25), (0, 20), (4, 70), (0, 41), (5, 50), (0, 5), (6, 120), (0, 70)) * 5


class Far:
    """The model behind sockets, and what may be done to them."""

    def __init__(self) -> None:
        self.gateway = ModelGateway()
        self.server: Server | None = None
        self.port = 0
        self.paths: list[str] = []
        self.swallow_resumed = 0
        self.refusals: list[int] = []
        self.thawed = asyncio.Event()
        self.thawed.set()
        self.cut_at: list[int] = []
        self.received_bytes = 0
        self.closes: list[int | None] = []

    async def start(self) -> None:
        self.server = await serve(
            self._serve, "127.0.0.1", self.port, process_request=self._answer, close_timeout=1, ping_interval=None
        )
        self.port = next(iter(self.server.sockets)).getsockname()[1]

    async def stop(self) -> None:
        """Die: no close is said to anybody."""
        assert self.server is not None
        self.cut()
        self.server.close(close_connections=False)
        await self.server.wait_closed()

    def cut(self) -> None:
        assert self.server is not None
        for socket in self.server.connections:
            socket.transport.abort()

    def _answer(self, socket: ServerConnection, request: Request) -> Response | None:
        self.paths.append(request.path)
        if not self.refusals:
            return None
        response = socket.respond(HTTPStatus(self.refusals.pop()), "The recognizer is down.\n")
        response.headers["Retry-After"] = "1"
        return response

    async def _serve(self, socket: ServerConnection) -> None:
        near = Connection(self.gateway)
        try:
            async for message in socket:
                if not self.thawed.is_set():
                    await self.thawed.wait()
                    return
                near.receive(message)
                if isinstance(message, bytes):
                    self.received_bytes += len(message)
                while near.said:
                    text = near.said.popleft()
                    if '"resumed"' in text and self.swallow_resumed:
                        self.swallow_resumed -= 1
                        socket.transport.abort()
                        return
                    await socket.send(text)
                if near.close_code is not None:
                    await socket.close(near.close_code)
                if self.cut_at and self.received_bytes >= self.cut_at[0]:
                    self.cut_at.pop(0)
                    socket.transport.abort()
        except ConnectionClosed:
            pass
        finally:
            self.closes.append(socket.close_code)
            if near.session is not None and near.session.connection is near:
                near.session.connection = None


@asynccontextmanager
async def far() -> AsyncIterator[Far]:
    here = Far()
    await here.start()
    try:
        yield here
    finally:
        await here.stop()


@pytest.fixture(autouse=True)
async def nothing_is_left() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    async with asyncio.timeout(PATIENCE_S):
        while asyncio.all_tasks() - before - {asyncio.current_task()}:
            await asyncio.sleep(0.01)


def to(there: Far, **more: object) -> contextlib.AbstractAsyncContextManager[Session]:
    return asr.connect(f"ws://127.0.0.1:{there.port}", **more)  # type: ignore[arg-type]


async def talk(session: Session, there: Far, *, pause_s: float = 0.0, audio: bytes = TALK) -> list[Event]:
    async def speak() -> None:
        for at in range(0, len(audio), 1_111):
            await session.send(audio[at : at + 1_111])
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


async def uncut() -> list[tuple[object, ...]]:
    async with far() as there, to(there) as session:
        return said(await talk(session, there))


async def test_a_session_from_start_to_summary() -> None:
    async with far() as there, to(there) as session:
        states_seen = [session.state]
        assert session.ready["session_id"] == "s1"
        events = await talk(session, there)
        assert [*states_seen, session.state] == ["connected", "closed"]
        assert session.summary is not None
        assert session.summary["audio_ms"] == len(TALK) // BYTES_PER_MS
        assert session.resumes == 0
        assert {type(event) for event in events} <= {Partial, Final}
        assert len(said(events)) == 15
        with pytest.raises(ASRError) as caught:
            await session.send(b"more")
        assert caught.value.code is Code.BAD_REQUEST
    assert there.closes == [1000]


async def test_cuts_anywhere_change_no_word() -> None:
    async with far() as there, to(there) as session:
        there.cut_at = [5_000, 31_000, 60_000]
        there.swallow_resumed = 1
        events = await talk(session, there)
        assert session.resumes == 3
    assert said(events) == await uncut()
    assert states(events) == [State.FAILING_OVER, State.RECOVERED] * 3
    assert there.gateway.begun == 1
    assert there.paths[1:] == ["/v1/stream?session=s1"] * 4


async def test_a_fresh_process_takes_over() -> None:
    async with far() as there, to(there) as session:

        async def exchange() -> None:
            while there.received_bytes < 40_000:
                await asyncio.sleep(0.001)
            await there.stop()
            there.gateway.restart()
            await asyncio.sleep(0.3)  # nobody listens
            await there.start()

        exchanging = asyncio.create_task(exchange())
        events = await talk(session, there, pause_s=0.001)
        await exchanging
        assert session.resumes == 1
    assert said(events) == await uncut()
    assert there.gateway.begun == 2
    assert not [event for event in events if isinstance(event, Gap)]


async def test_a_link_that_says_nothing_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asr.session.session.SILENCE_TIMEOUT_MS", 300)
    async with far() as there, to(there) as session:
        await session.send(TALK[:50_000])
        there.thawed.clear()
        async with asyncio.timeout(PATIENCE_S):
            event = await anext(session)
            while not isinstance(event, Status):
                event = await anext(session)
            assert (event.state, session.state) == (State.FAILING_OVER, "reconnecting")
            there.thawed.set()
        events = await talk(session, there, audio=TALK[50_000:])
    assert State.RECOVERED in states(events)
    assert said(events)[-1] == (await uncut())[-1]


async def test_a_full_gateway_is_come_back_to_when_it_says() -> None:
    async with far() as there, to(there) as session:
        there.refusals = [429, 503]
        there.cut_at = [1]
        began = asyncio.get_running_loop().time()
        events = await talk(session, there)
        assert asyncio.get_running_loop().time() - began >= 2.0
    assert said(events) == await uncut()


async def test_the_first_connection_is_tried_once() -> None:
    async with far() as there:
        there.refusals = [503]
        with pytest.raises(ASRError) as caught:
            await to(there).__aenter__()
        assert (caught.value.code, caught.value.retry_after_ms) == (Code.OVERLOADED, 1000)
        assert caught.value.message == "The gateway refuses the stream: The recognizer is down."
        assert len(there.paths) == 1


async def test_a_gateway_that_does_not_come_back_is_a_failure_for_everybody() -> None:
    async with far() as there, to(there, resume_window_ms=600) as session:
        await session.send(TALK[:10_000])
        finalizing = asyncio.create_task(session.finalize())
        await finalizing
        await there.stop()
        finalizing = asyncio.create_task(session.finalize())
        filling = asyncio.create_task(session.send(bytes(4_000_000)))
        with pytest.raises(ASRError) as caught:
            async with asyncio.timeout(PATIENCE_S):
                [event async for event in session]
        got = caught.value
        assert got.code is Code.UNAVAILABLE
        assert "within 0.6 s" in got.message
        assert got.earlier
        for task in (finalizing, filling):
            with pytest.raises(ASRError) as caught:
                await task
            assert caught.value is got
        assert session.state == "closed"
        await there.start()


async def test_finalize_answers_also_over_a_cut() -> None:
    async with far() as there, to(there) as session:
        await session.send(TALK[:3_200])
        there.cut()
        async with asyncio.timeout(PATIENCE_S):
            assert await session.finalize() == 100
            assert session.resumes == 1
            assert await session.finalize() == 100


async def test_audio_is_taken_while_nobody_listens_until_the_ring_is_full() -> None:
    async with far() as there, to(there) as session:
        await there.stop()
        async with asyncio.timeout(PATIENCE_S):
            await session.send(bytes(1_000_000))
        sending = asyncio.create_task(session.send(bytes(1_000_000)))
        await asyncio.sleep(0.1)
        assert not sending.done()
        await there.start()
        await asyncio.wait_for(sending, PATIENCE_S)


async def test_leaving_while_it_is_away_leaves_nothing() -> None:
    async with far() as there:
        async with to(there) as session:
            await there.stop()
            assert isinstance(await asyncio.wait_for(anext(session), PATIENCE_S), Status)
        assert session.state == "closed"
        with pytest.raises(ASRError, match="closed"):
            await anext(session)
        await there.start()


async def test_cancelling_in_the_middle_leaves_nothing() -> None:
    async with far() as there:

        async def listen() -> None:
            async with to(there) as session:
                await session.send(TALK[:1_000])
                async for _ in session:
                    pass

        task = asyncio.create_task(listen())
        while not there.received_bytes:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert there.closes == [1000]


async def test_events_that_nobody_takes_hold_the_gateway_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asr.session.session.MAX_WAITING", 5)
    monkeypatch.setattr("asr.session.session.SILENCE_TIMEOUT_MS", 200)
    async with far() as there, to(there) as session:
        await session.send(TALK)
        with pytest.raises(ASRError) as caught:
            await asyncio.wait_for(session.finalize(), PATIENCE_S)
        assert caught.value.code is Code.SLOW_READER
        await session.stop()
        async with asyncio.timeout(PATIENCE_S):
            events = [event async for event in session]
    assert said(events) == await uncut()


async def test_sending_ends_where_nobody_takes_the_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asr.session.session.MAX_WAITING", 5)
    monkeypatch.setattr("asr.session.session.SILENCE_TIMEOUT_MS", 200)
    async with far() as there, to(there) as session:
        with pytest.raises(ASRError) as caught:
            await asyncio.wait_for(session.send(TALK * 1000), PATIENCE_S)
    assert caught.value.code is Code.SLOW_READER


async def test_a_token_does_not_travel_in_the_clear() -> None:
    with pytest.raises(ASRError, match="unencrypted"):
        await asr.connect("ws://gateway.example:8443", token="secret").__aenter__()


async def test_what_a_gateway_cannot_give_is_said_at_once() -> None:
    with pytest.raises(ASRError, match="max_alternatives"):
        await asr.connect("wss://gateway:8443", max_alternatives=3).__aenter__()


async def test_the_engine_of_another_gateway_survives_too() -> None:
    async def audio() -> AsyncIterator[AudioInput]:
        yield TALK[:50_000]
        yield EndUtterance()
        yield TALK[50_000:]

    async def run(cuts: list[int]) -> list[Event]:
        async with far() as there:
            there.cut_at = cuts
            engine = GatewayEngine(GatewayConfig(f"http://127.0.0.1:{there.port}"))
            async with asyncio.timeout(PATIENCE_S):
                events = [event async for event in engine.stream(audio(), Options())]
            await engine.aclose()
            return events

    torn = await run([100, 50_000, 80_000])
    assert said(torn) == said(await run([]))
    assert len([event for event in torn if isinstance(event, Flushed)]) == 1
    assert states(torn) == [State.FAILING_OVER, State.RECOVERED] * 3
