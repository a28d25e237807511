"""The mock engine behind the boundary: deterministic events, real mapping, faults that end and never hang."""

from __future__ import annotations

import asyncio
import json
import math
import random
from collections.abc import AsyncIterator, Sequence
from typing import Any

import numpy as np
import pytest

from asr.engine import AudioInput, EndUtterance, agree
from asr.engines.mock import MockEngine
from asr.errors import ASRError, Code
from asr.events import Event, Final, FinalReason, Flushed, Partial
from asr.mock.plan import MockPlan, load_plan
from asr.options import Diarization, Endpointing, Options
from asr.wire import encode


def tone(ms: int) -> bytes:
    t = np.arange(16 * ms) / 16_000
    return (8000 * np.sin(2 * math.pi * 440 * t)).astype("<i2").tobytes()


def silence(ms: int) -> bytes:
    return bytes(32 * ms)


def plan(**keys: Any) -> MockPlan:
    return load_plan({"hears": "clock", "loop": False, "utterances": ["one two three", "four five"]} | keys)


async def hear(engine: MockEngine, items: Sequence[AudioInput], options: Options = Options()) -> list[Event]:  # noqa: B008
    agreed = agree(options, await engine.models(), engine.features).options

    async def audio() -> AsyncIterator[AudioInput]:
        for item in items:
            yield item

    return [event async for event in engine.stream(audio(), agreed)]


def finals(events: list[Event]) -> list[tuple[str, FinalReason]]:
    return [(e.text, e.reason) for e in events if isinstance(e, Final)]


def dump(events: list[Event]) -> bytes:
    return "\n".join(json.dumps(encode(e)) for e in events).encode()


async def test_partials_then_finals() -> None:
    events = await hear(MockEngine(plan()), [silence(5000)])
    assert [e.text for e in events if isinstance(e, Partial)] == [
        "one",
        "one two",
        "one two three",
        "four",
        "four five",
    ]
    assert finals(events) == [("one two three", FinalReason.ENDPOINT), ("four five", FinalReason.ENDPOINT)]
    first = next(e for e in events if isinstance(e, Final))
    assert [(w.text, w.start_ms, w.end_ms) for w in first.words][:2] == [("one", 0, 280), ("two", 280, 560)]
    assert first.confidence_raw == -0.35
    assert first.language == "en-US"


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"hears": "speech", "loop": True},
        {"shape": {"partials": "split", "hold_final": True, "eager_eou_ms": 200, "partial_words": True}},
        {"shape": {"partials": "rewrite", "final_space": "leading"}},
        {"shape": {"never_final": True, "partials": "shrink"}},
        {"utterances": ["", {"words": "x y", "final": "no_alternatives"}, {"words": "z", "final": "empty"}]},
    ],
)
async def test_the_same_audio_gives_the_same_bytes_in_any_chunking(keys: dict[str, Any]) -> None:
    pcm = tone(1100) + silence(800) + tone(900) + silence(1200) + tone(50)
    options = Options(diarization=Diarization())
    chance = random.Random(7)
    expected = None
    for size in (len(pcm), 1, 640, 3200, 0):
        pieces = []
        at = 0
        while at < len(pcm):
            step = size or chance.randint(1, 9000)
            pieces.append(pcm[at : at + step])
            at += step
        if size == 1:
            pieces = [bytes([b]) for b in pcm[:20_000]] + [pcm[20_000:]]
        got = dump(await hear(MockEngine(plan(**keys)), pieces, options))
        expected = expected or got
        assert got == expected
    assert expected


async def test_silence_and_an_empty_stream_say_nothing() -> None:
    engine = MockEngine()
    assert finals(await hear(engine, [silence(5000)])) == []
    assert await hear(engine, []) == []


async def test_end_utterance_gives_a_final_and_flushed() -> None:
    items: list[AudioInput] = [silence(650), EndUtterance(), EndUtterance(), silence(700)]
    events = await hear(MockEngine(plan()), items)
    assert finals(events) == [("one two", FinalReason.FINALIZE), ("four five", FinalReason.STOP)]
    kinds = [type(e) for e in events]
    assert kinds.count(Flushed) == 2
    assert [e.audio_ms for e in events if isinstance(e, Flushed)] == [650, 650]
    assert kinds.index(Flushed) > kinds.index(Final)


async def test_an_end_utterance_on_silence_is_answered() -> None:
    events = await hear(MockEngine(), [silence(1000), EndUtterance(), silence(20)])
    assert [e for e in events if not isinstance(e, Flushed)] == []
    assert events == [Flushed(1000)]


async def test_manual_endpointing_ends_nothing_by_itself() -> None:
    options = Options(endpointing=Endpointing(manual=True))
    events = await hear(MockEngine(plan()), [silence(4000), EndUtterance()], options)
    assert finals(events) == [("one two three four five", FinalReason.FINALIZE)]


async def test_what_was_never_final_becomes_so_at_the_end() -> None:
    events = await hear(MockEngine(plan(shape={"never_final": True})), [silence(5000)])
    assert finals(events) == [("one two three four five", FinalReason.STOP)]


@pytest.mark.parametrize(
    ("kind", "code", "retryable"),
    [
        ("unavailable", Code.UNAVAILABLE, True),
        ("internal", Code.UNAVAILABLE, True),
        ("exhausted", Code.OVERLOADED, True),
        ("deadline", Code.TIMEOUT, True),
        ("start_flag", Code.UNAVAILABLE, True),
        ("model", Code.NOT_FOUND, False),
        ("unauthenticated", Code.UNAVAILABLE, False),
        ("end", Code.UNAVAILABLE, True),
        ("hang", Code.TIMEOUT, True),
        ("half_open", Code.TIMEOUT, True),
        ("stop_reading", Code.TIMEOUT, True),
    ],
)
async def test_faults_are_raised_as_the_riva_engine_would(kind: str, code: Code, retryable: bool) -> None:
    at_ms = 0 if kind == "half_open" else 700
    engine = MockEngine(plan(faults=[{"kind": kind, "at_ms": at_ms, "streams": [1]}], delay={"hang_ms": 30}))
    with pytest.raises(ASRError) as caught:
        await hear(engine, [silence(100)] * 30)
    assert (caught.value.code, caught.value.retryable) == (code, retryable)
    assert finals(await hear(engine, [silence(5000)]))


async def test_a_hang_can_be_left() -> None:
    engine = MockEngine(plan(faults=[{"kind": "hang", "at_ms": 320}]))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await hear(engine, [silence(1000)])


async def test_delays_pass_by_the_sleep_that_was_given() -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    engine = MockEngine(plan(delay={"first_response_ms": 2000, "response_ms": 10}), sleep=sleep)
    events = await hear(engine, [silence(5000)])
    assert slept[0] == 2.01
    assert set(slept[1:]) == {0.01}
    assert len(slept) == 7
    assert dump(events) == dump(await hear(MockEngine(plan()), [silence(5000)]))


async def test_models_and_readiness_are_the_plans() -> None:
    rows = [{"name": "m", "language_code": "en-US,es-US"}, {"name": "m", "type": "offline", "language_code": "de-DE"}]
    (model,) = await MockEngine(plan(server={"models": rows})).models()
    assert model.languages == ("multi", "en-US", "es-US", "de-DE")
    assert model.streaming
    assert model.offline
    assert (await MockEngine().ready()).ready
    assert not (await MockEngine(plan(server={"models": []})).ready()).ready
    assert not (await MockEngine(plan(server={"serving": False})).ready()).ready


async def test_a_closed_engine_fails_its_streams() -> None:
    engine = MockEngine(plan())
    await engine.aclose()
    assert not (await engine.ready()).ready
    with pytest.raises(ASRError) as caught:
        await hear(engine, [silence(100)])
    assert caught.value.code is Code.UNAVAILABLE


@pytest.mark.parametrize("faults", [[], [{"kind": "hang", "at_ms": 0}]])
async def test_closing_the_engine_ends_a_stream_that_waits_at_once(faults: list[dict[str, Any]]) -> None:
    waits = asyncio.Event()
    let_go = asyncio.Event()

    async def silent() -> AsyncIterator[AudioInput]:
        try:
            yield silence(100)
            waits.set()
            await asyncio.Event().wait()
        finally:
            let_go.set()

    async def listen() -> None:
        async for _ in engine.stream(silent(), Options()):
            pass

    engine = MockEngine(plan(faults=faults, delay={"hang_ms": 60_000}))
    task = asyncio.create_task(listen())
    async with asyncio.timeout(5):
        await waits.wait()
        await engine.aclose()
        await engine.aclose()
        with pytest.raises(ASRError) as caught:
            await task
    assert caught.value.code is Code.UNAVAILABLE
    assert let_go.is_set()
    async with asyncio.timeout(5):
        with pytest.raises(ASRError, match="shutting down"):
            await anext(engine.stream(silent(), Options()))


async def test_what_the_audio_raises_is_what_the_caller_sees() -> None:
    async def late() -> AsyncIterator[AudioInput]:
        yield silence(100)
        raise TimeoutError("the microphone is late")

    async def cancelled() -> AsyncIterator[AudioInput]:
        task = asyncio.create_task(asyncio.Event().wait())
        yield silence(100)
        task.cancel()
        await task

    with pytest.raises(TimeoutError, match="late"):
        await anext(MockEngine(plan(utterances=[])).stream(late(), Options()))
    with pytest.raises(ASRError, match="cancelled in mid-stream") as caught:
        await anext(MockEngine(plan(utterances=[])).stream(cancelled(), Options()))
    assert caught.value.code is Code.INTERNAL


async def test_closing_the_iterator_ends_the_stream_at_once() -> None:
    async def endless() -> AsyncIterator[AudioInput]:
        while True:
            yield silence(100)
            await asyncio.sleep(0)

    stream = MockEngine(plan()).stream(endless(), Options())
    assert isinstance(await anext(stream), Partial)
    await stream.aclose()
