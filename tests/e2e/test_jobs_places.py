"""Jobs take the places that live streams leave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from asr.engine import AudioInput
from asr.errors import ASRError, Code
from asr.events import Final
from asr.options import Options
from server.admission import Admission
from server.jobs.places import PRINCIPAL, PatientEngine
from server.telemetry.hub import Telemetry
from word_engine import WordEngine

SECOND = b"\1\0" * 16_000


def admission(max_streams: int) -> Admission:
    return Admission(max_streams, random=lambda: 0.5, clock=lambda: 0.0)


async def audio(more: asyncio.Event | None = None) -> AsyncGenerator[AudioInput]:
    yield SECOND
    if more is not None:
        await more.wait()


async def heard(engine: PatientEngine) -> int:
    async with aclosing(engine.stream(audio(), Options())) as events:
        return len([event async for event in events if isinstance(event, Final)])


async def test_a_stream_has_a_place_for_as_long_as_it_lasts() -> None:
    places, more = admission(4), asyncio.Event()
    engine = PatientEngine(WordEngine(), places, Telemetry(), patience_ms=1000)
    async with aclosing(engine.stream(audio(more), Options())) as events:
        assert places.in_use == 0
        await anext(events)
        assert places.in_use_by == {PRINCIPAL: 1}
    assert places.in_use == 0


async def test_it_waits_while_live_streams_need_the_rest() -> None:
    places = admission(10)
    live = [places.admit(f"caller {n}") for n in range(9)]
    waiting = asyncio.create_task(heard(PatientEngine(WordEngine(), places, Telemetry(), patience_ms=10_000)))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    assert places.in_use == 9  # the last place is for a live stream
    live.pop().release()
    async with asyncio.timeout(5):
        assert await waiting == 1


async def test_and_longer_than_it_waits_for_a_recognizer_that_refuses() -> None:
    places = admission(2)
    held = [places.admit("caller") for _ in range(2)]
    waiting = asyncio.create_task(heard(PatientEngine(WordEngine(), places, Telemetry(), patience_ms=50)))
    await asyncio.sleep(0.7)
    assert not waiting.done()
    for place in held:
        place.release()
    async with asyncio.timeout(5):
        assert await waiting == 1


class FullEngine(WordEngine):
    """Takes no stream."""

    def refusal(self) -> ASRError | None:
        return ASRError(Code.OVERLOADED, "The recognizer is full.")


async def test_for_a_recognizer_that_refuses_it_waits_a_while() -> None:
    engine = FullEngine()
    places = Admission(4, random=lambda: 0.5, clock=lambda: 0.0, engine_refusal=engine.refusal)
    with pytest.raises(ASRError, match="The recognizer is full") as caught:
        await heard(PatientEngine(engine, places, Telemetry(), patience_ms=50))
    assert (caught.value.code, caught.value.retryable) == (Code.OVERLOADED, True)
    assert places.in_use == 0


async def test_a_gateway_with_one_place_does_jobs_too() -> None:
    assert await heard(PatientEngine(WordEngine(), admission(1), Telemetry(), patience_ms=50)) == 1
