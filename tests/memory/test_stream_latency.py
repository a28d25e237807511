"""Streams whose every delay is known, in virtual time: what telemetry is told of them, and where the time went."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable

import pytest

import virtual_time
from asr.engine import AudioInput, EndUtterance
from asr.events import Event, Final, Gap, GapCause, Partial, State, Status, Word
from asr.options import Options
from memory_gateway import MemoryGateway, serving
from server.drive import DriveLimits
from server.faces.native_setup import NativeLimits
from server.sockets import MemorySocket
from server.telemetry.record import Outcome
from word_engine import WordEngine

CHUNK = bytes(3_200)  # 100 ms
PARTS = ("ingress", "queue", "upstream", "egress")


class TimedEngine(WordEngine):
    """Takes a chunk of audio every `take_s` at most, and says so long after a chunk what its plan has for its end.

    Args:
        plan: milliseconds of audio → what is said of it, and how many seconds later.
        take_s: between two chunks.
    """

    def __init__(self, plan: dict[int, tuple[float, Event]], *, take_s: float = 0.0) -> None:
        super().__init__()
        self.plan = plan
        self.take_s = take_s
        self.options: Options | None = None

    async def stream(self, audio: AsyncIterable[AudioInput], options: Options) -> AsyncGenerator[Event]:
        self.options = options
        taken_ms = 0
        async for item in audio:
            if isinstance(item, EndUtterance):
                continue
            taken_ms += len(item) // 32 // options.channels
            if taken_ms in self.plan:
                later_s, event = self.plan[taken_ms]
                await asyncio.sleep(later_s)
                yield event
            if self.take_s:
                await asyncio.sleep(self.take_s)


def partial(end_ms: int, words: int = 0) -> Partial:
    said = tuple(Word(f"w{n}", n * 200, (n + 1) * 200) for n in range(words))
    return Partial(0, end_ms, f"up to {end_ms}", 0, end_ms, words=said)


def final(start_ms: int, end_ms: int, utterance: int = 0) -> Final:
    return Final(utterance, 99, "one two", start_ms, end_ms)


async def speak(socket: MemorySocket, chunks: int, pace_s: float = 0.1) -> None:
    for _ in range(chunks):
        await asyncio.sleep(pace_s)
        socket.put(CHUNK)


def played(
    engine: TimedEngine,
    play: Callable[[MemorySocket, MemoryGateway], Awaitable[None]],
    *,
    limits: DriveLimits | None = None,
    window_ms: int = 0,
    start: dict[str, object] | None = None,
) -> MemoryGateway:
    """One native session from `start` to `stop`, with `play` in between."""

    async def session() -> MemoryGateway:
        async with serving(engine, NativeLimits(resume_window_ms=window_ms), limits) as gateway:
            await gateway.connect()
            socket = gateway.connections[0].socket
            socket.put(json.dumps({"type": "start"} | (start or {})))
            await asyncio.sleep(0)
            await play(socket, gateway)
            socket.put('{"type":"stop"}')
            await asyncio.sleep(5)
            return gateway

    return virtual_time.run(session())


def told(gateway: MemoryGateway, what: str) -> list[float]:
    return gateway.watch.latencies.get(what, [])


def parts_of_final(gateway: MemoryGateway) -> dict[str, float]:
    """The parts of the only final; they must come to the whole."""
    (whole,) = told(gateway, "final")
    parts = {part: told(gateway, part)[0] for part in PARTS}
    assert sum(parts.values()) == pytest.approx(whole)
    return parts


def test_known_delays_come_out_as_they_are():
    plan = {500: (0.03, partial(450)), 800: (0.02, partial(800)), 1000: (0.07, final(0, 1000))}

    async def play(socket: MemorySocket, gateway: MemoryGateway) -> None:
        await speak(socket, 12)

    gateway = played(TimedEngine(plan), play)
    assert told(gateway, "first_partial") == pytest.approx([0.03])
    assert told(gateway, "partial") == pytest.approx([0.03, 0.02])
    assert told(gateway, "final") == pytest.approx([0.07])
    assert parts_of_final(gateway) == pytest.approx({"ingress": 0, "queue": 0, "upstream": 0.07, "egress": 0})
    record = gateway.watch.record
    assert record is not None
    assert (record.outcome, record.code, record.close_code) == (Outcome.OK, "", 1000)
    assert (record.first_partial_ms, record.queue_wait_ms) == (30, 0)
    assert record.partial_latency_ms == pytest.approx(30, rel=0.02)
    assert record.final_latency_ms == pytest.approx(70, rel=0.02)
    assert (record.audio_ms, record.partials, record.finals, record.words) == (1200, 2, 1, 2)
    assert record.received_bytes == 12 * len(CHUNK) + len('{"type": "start"}') + len('{"type":"stop"}')
    assert record.sent_bytes == sum(map(len, gateway.connections[0].socket.sent))
    assert [what for what, _ in gateway.watch.happenings] == ["first_partial", "final"]


def test_the_first_word_counts_for_the_first_partial_and_the_last_for_the_partial():
    async def play(socket: MemorySocket, gateway: MemoryGateway) -> None:
        await speak(socket, 12)

    gateway = played(TimedEngine({1000: (0.05, partial(1000, words=4))}), play)  # they end at 200, 400, 600, 800 ms
    assert told(gateway, "first_partial") == pytest.approx([0.85])
    assert told(gateway, "partial") == pytest.approx([0.25])


def test_a_slow_recognizer_shows_up_in_upstream():
    async def play(socket: MemorySocket, gateway: MemoryGateway) -> None:
        await speak(socket, 10)

    parts = parts_of_final(played(TimedEngine({600: (1.5, final(0, 600))}), play))
    assert parts == pytest.approx({"ingress": 0, "queue": 0, "upstream": 1.5, "egress": 0})


def test_a_burst_shows_up_in_the_queue():
    async def play(socket: MemorySocket, gateway: MemoryGateway) -> None:
        await speak(socket, 5)
        await asyncio.sleep(2)  # a hiccup of the network, and then all at once
        await speak(socket, 20, pace_s=0)

    gateway = played(TimedEngine({2500: (0.0, final(500, 2500))}, take_s=0.05), play)
    assert parts_of_final(gateway) == pytest.approx({"ingress": 0, "queue": 0.95, "upstream": 0, "egress": 0})


def test_a_burst_that_finds_no_room_shows_up_in_ingress():
    async def play(socket: MemorySocket, gateway: MemoryGateway) -> None:
        await speak(socket, 5)
        await asyncio.sleep(2)
        await speak(socket, 20, pace_s=0)

    limits = DriveLimits(max_ahead_ms=200)
    gateway = played(TimedEngine({2500: (0.0, final(500, 2500))}, take_s=0.05), play, limits=limits)
    parts = parts_of_final(gateway)
    assert parts["ingress"] == pytest.approx(0.85, abs=0.051)
    assert parts["queue"] == pytest.approx(0.1, abs=0.051)
    assert parts["ingress"] + parts["queue"] == pytest.approx(0.95)


def test_a_client_that_does_not_read_shows_up_in_egress():
    async def play(socket: MemorySocket, gateway: MemoryGateway) -> None:
        await speak(socket, 3)
        socket.blocked = True
        await speak(socket, 7)
        await asyncio.sleep(1)
        socket.blocked = False
        await asyncio.sleep(0.1)

    plan = {400: (0.0, partial(400)), 500: (0.0, partial(500)), 600: (0.0, partial(600)), 800: (0.0, final(0, 800))}
    gateway = played(TimedEngine(plan), play)
    parts = parts_of_final(gateway)
    assert parts == pytest.approx({"ingress": 0, "queue": 0, "upstream": 0, "egress": 1.2})
    # The first of the partials fills the connection; the others are never sent, so none of them is late.
    record = gateway.watch.record
    assert record is not None
    assert (record.partials, record.left_out) == (3, 2)
    assert told(gateway, "partial") == [0.0]


def test_what_a_client_misses_while_it_is_away_has_no_latency():
    async def play(socket: MemorySocket, gateway: MemoryGateway) -> None:
        await speak(socket, 5)
        socket.hang_up()
        await asyncio.sleep(3)

    gateway = played(TimedEngine({500: (1.0, final(0, 500))}), play, window_ms=2_000)
    assert told(gateway, "final") == []
    record = gateway.watch.record
    assert record is not None
    assert (record.finals, record.outcome, record.close_code) == (1, Outcome.GONE, None)
    assert gateway.watch.lost_sessions == ["s1"]


def test_and_none_when_it_is_back_and_gets_it():
    async def session() -> MemoryGateway:
        engine = TimedEngine({500: (1.0, final(0, 500)), 600: (0.03, final(500, 600, 1))})
        async with serving(engine) as gateway:
            await gateway.connect()
            first = gateway.connections[0].socket
            first.put('{"type":"start"}')
            await speak(first, 5)
            first.hang_up()
            await asyncio.sleep(3)
            ready = json.loads(first.sent[0])
            again = (await gateway.connect(f"/v1/stream?session={ready['session_id']}")).socket
            shown = {"session_id": ready["session_id"], "resume_token": ready["resume_token"], "last_seq": 1}
            again.put(json.dumps({"type": "resume"} | shown))
            await asyncio.sleep(0.1)
            await speak(again, 1)
            again.put('{"type":"stop"}')
            await asyncio.sleep(5)
            assert [json.loads(text)["type"] for text in again.sent].count("final") == 2
            return gateway

    gateway = virtual_time.run(session())
    assert told(gateway, "final") == pytest.approx([0.03])
    assert [session for session, _ in gateway.watch.resumes] == ["s1"]
    record = gateway.watch.record
    assert record is not None
    assert record.resumes == 1


def test_a_file_that_is_pushed_through_has_no_latency_where_its_words_come_before_their_time():
    async def play(socket: MemorySocket, gateway: MemoryGateway) -> None:
        await speak(socket, 300, pace_s=0.001)  # half a minute in a third of a second

    plan = {1_000: (0.0, final(0, 1_000)), 29_000: (0.0, final(1_000, 29_000, 1))}
    gateway = played(TimedEngine(plan), play, limits=DriveLimits(max_ahead_ms=60_000))
    assert len(told(gateway, "final")) <= 1
    assert all(late < 0.2 for late in told(gateway, "final"))
    record = gateway.watch.record
    assert record is not None
    assert record.finals == 2


def test_two_channels_count_on_one_clock():
    async def play(socket: MemorySocket, gateway: MemoryGateway) -> None:
        for _ in range(10):
            await asyncio.sleep(0.1)
            socket.put(CHUNK * 2)

    start = {"audio": {"encoding": "pcm_s16le", "sample_rate_hz": 16_000, "channels": 2}, "stereo": "split"}
    engine = TimedEngine({600: (0.04, final(0, 600))})
    gateway = played(engine, play, start=start)
    assert engine.options is not None
    record = gateway.watch.record
    assert record is not None
    assert record.audio_ms == 1000
    assert told(gateway, "final") == pytest.approx([0.04])


def test_what_happens_upstream_is_told():
    plan: dict[int, tuple[float, Event]] = {
        100: (0.0, Status(State.FAILING_OVER, 100)),
        200: (0.0, Status(State.RECOVERED, 200, replayed_ms=150)),
        300: (0.0, Gap(20, 80, GapCause.BUFFER_OVERRUN)),
    }

    async def play(socket: MemorySocket, gateway: MemoryGateway) -> None:
        await speak(socket, 5)

    gateway = played(TimedEngine(plan), play)
    assert gateway.watch.happenings == [
        ("failover", {"audio_ms": 100, "state": "failing_over"}),
        ("recovered", {"audio_ms": 200, "replayed_ms": 150}),
        ("gap", {"start_ms": 20, "end_ms": 80, "cause": "buffer_overrun"}),
    ]
    record = gateway.watch.record
    assert record is not None
    assert (record.failovers, record.replayed_ms, record.gaps_ms) == (1, 150, 60)


def test_the_recognizer_is_told_the_trace_that_the_client_began():
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    engine = TimedEngine({})

    async def session() -> None:
        async with serving(engine) as gateway:
            socket = MemorySocket()
            socket.trace = (parent, "vendor=1")
            gateway.take(socket)
            socket.put('{"type":"start"}')
            socket.put(CHUNK)
            await asyncio.sleep(0.1)
            socket.put('{"type":"stop"}')
            await asyncio.sleep(1)
            record = gateway.watch.record
            assert record is not None
            assert engine.options is not None
            trace = record.start.trace
            assert (trace.trace_id, trace.state) == (parent[3:35], "vendor=1")
            assert engine.options.traceparent == trace.header() == parent, "no span is made here"

    virtual_time.run(session())


def test_a_stream_that_its_recognizer_fails_is_the_servers_fault():
    engine = WordEngine("unavailable@400")

    async def session() -> MemoryGateway:
        async with serving(engine) as gateway:
            await gateway.connect()
            socket = gateway.connections[0].socket
            socket.put('{"type":"start"}')
            await speak(socket, 6)
            await asyncio.sleep(1)
            return gateway

    gateway = virtual_time.run(session())
    record = gateway.watch.record
    assert record is not None
    assert (record.outcome, record.code) == (Outcome.SERVER, "unavailable")
    assert ("error", {"code": "unavailable"}) in gateway.watch.happenings
