"""Audio of several channels through one stream: taken apart, heard each on its own, told as one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from contextlib import aclosing

import numpy as np
import pytest

from asr.channels import MAX_LAG_MS, ChannelsEngine, split
from asr.engine import BYTES_PER_MS, AudioInput, EndUtterance, Features, Model, Readiness
from asr.errors import ASRError, Code
from asr.events import Event, Final, Flushed, Partial, Progress
from asr.options import Options
from sound import noise
from speech import script
from word_engine import WordEngine, WordScript

TWO = Options(model="words-en", language="en-US", channels=2)


class Ears:
    """Hears words as `WordEngine` does; keeps what each stream heard. The stream `slow` waits for `free`."""

    name = "ears"
    features = Features()

    def __init__(self, *, slow: int = -1, fails: int = -1, deaf: int = -1) -> None:
        self.heard: list[bytes] = []
        self.options: list[Options] = []
        self.slow, self.fails, self.deaf = slow, fails, deaf
        self.free = asyncio.Event()
        self.open_streams = 0
        self.closed = False

    async def models(self) -> tuple[Model, ...]:
        return ()

    async def ready(self) -> Readiness:
        return Readiness(True)

    def refusal(self) -> ASRError | None:
        return None

    async def aclose(self) -> None:
        self.closed = True

    async def stream(self, audio: AsyncIterable[AudioInput], options: Options) -> AsyncGenerator[Event]:
        number = len(self.heard)
        self.heard.append(b"")
        self.options.append(options)
        self.open_streams += 1
        words = WordScript()
        try:
            if number == self.deaf:
                return
            async for item in audio:
                if number == self.slow:
                    await self.free.wait()
                if isinstance(item, EndUtterance):
                    events = words.cut()
                else:
                    self.heard[number] += item
                    events = words.feed(item)
                for event in events:
                    yield event
                if number == self.fails and len(self.heard[number]) > 20_000:
                    raise ASRError(Code.UNAVAILABLE, "This one went away.")
            for event in words.end():
                yield event
        finally:
            self.open_streams -= 1


def woven(*channels: bytes) -> bytes:
    return np.stack([np.frombuffer(pcm, "<i2") for pcm in channels], axis=1).tobytes()


async def listen(
    engine: ChannelsEngine,
    *items: AudioInput,
    options: Options = TWO,
    audio: AsyncIterator[AudioInput] | None = None,
    seen: list[Event] | None = None,
) -> list[Event]:
    seen = [] if seen is None else seen
    given = audio if audio is not None else script(*items)
    async with asyncio.timeout(10), aclosing(engine.stream(given, options)) as events:
        async for event in events:
            seen.append(event)
    return seen


def tasks() -> set[str]:
    return {task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("channels")}


def test_interleaved_samples_are_taken_apart() -> None:
    left, right, third = noise(100, 1), noise(100, 2), noise(100, 3)
    assert split(woven(left, right, third), 3) == [left, right, third]


@pytest.mark.parametrize("size", [1, 3, 3200, 10**6])
async def test_each_channel_hears_its_own_samples_however_they_are_cut(size: int) -> None:
    left, right = noise(8_000, 1), noise(8_000, 2)
    audio = woven(left, right)[: -3 if size == 3 else None]
    if size == 1:
        audio, left, right = audio[:400], left[:200], right[:200]
    inner = Ears()
    await listen(ChannelsEngine(inner), *(audio[at : at + size] for at in range(0, len(audio), size)))
    lost = 2 if size == 3 else 0
    assert inner.heard == [left[: len(left) - lost], right[: len(right) - lost]]
    assert [(options.channels, options.model) for options in inner.options] == [(1, "words-en")] * 2


async def test_the_words_of_each_channel_are_those_it_has_alone() -> None:
    pcm = [noise(16_000 * seconds, seconds) for seconds in (7, 7, 7)]
    options = Options(model="words-en", language="en-US", channels=3)
    events = await listen(ChannelsEngine(WordEngine()), woven(*pcm), options=options)
    for channel, own in enumerate(pcm):
        alone = [event async for event in WordEngine().stream(script(own), Options())]
        told = [event for event in events if isinstance(event, Partial | Final) and event.channel == channel]
        assert [event.text for event in told] == [e.text for e in alone if isinstance(e, Partial | Final)]
        assert [(e.start_ms, e.end_ms) for e in told] == [
            (e.start_ms, e.end_ms) for e in alone if isinstance(e, Partial | Final)
        ]
    finals = [event for event in events if isinstance(event, Final)]
    assert len({event.utterance for event in finals}) == len(finals) == 21
    assert [event.end_ms for event in finals] == sorted(event.end_ms for event in finals)
    progress = [event.processed_ms for event in events if isinstance(event, Progress)]
    assert progress == sorted(set(progress))
    assert tasks() == set()


async def test_one_flushed_for_each_end_of_utterance() -> None:
    half = woven(noise(8_000, 1), noise(8_000, 2))
    events = await listen(ChannelsEngine(WordEngine()), half, EndUtterance(), EndUtterance(), half, EndUtterance())
    assert [event.audio_ms for event in events if isinstance(event, Flushed)] == [500, 500, 1_000]
    first = next(n for n, event in enumerate(events) if isinstance(event, Flushed))
    assert sum(isinstance(event, Final) and event.end_ms <= 500 for event in events[:first]) == 2


async def test_one_channel_goes_by_untouched() -> None:
    inner = Ears()
    engine = ChannelsEngine(inner)
    stream = engine.stream(script(noise(3_200)), Options(channels=1))
    assert stream.ag_code.co_name == "stream"  # type: ignore[attr-defined]
    assert [event async for event in stream] == [event async for event in inner.stream(script(noise(3_200)), Options())]
    assert (engine.name, engine.features, await engine.models()) == ("ears", Features(), ())
    assert (await engine.ready()).ready
    assert engine.refusal() is None
    await engine.aclose()
    assert inner.closed


async def test_a_failure_of_one_fails_all_after_what_was_recognized() -> None:
    inner = Ears(fails=1)
    seen: list[Event] = []
    with pytest.raises(ASRError, match="This one went away"):
        await listen(ChannelsEngine(inner), audio=endless(), seen=seen)
    assert inner.open_streams == 0
    assert tasks() == set()
    assert {event.channel for event in seen if isinstance(event, Partial)} == {0, 1}


async def test_broken_audio_is_told_as_it_is() -> None:
    async def breaks() -> AsyncIterator[AudioInput]:
        yield bytes(3_200)
        raise ASRError(Code.BAD_AUDIO, "The header is damaged.")

    with pytest.raises(ASRError, match="damaged"):
        await listen(ChannelsEngine(Ears()), audio=breaks())
    assert tasks() == set()


async def endless() -> AsyncIterator[AudioInput]:
    while True:
        yield bytes(6_400)
        await asyncio.sleep(0)


async def test_leaving_in_the_middle_lets_go_of_everything() -> None:
    inner = Ears()
    async with asyncio.timeout(10):
        async with aclosing(ChannelsEngine(inner).stream(endless(), TWO)) as events:
            await anext(events)
        assert inner.open_streams == 0
        assert tasks() == set()


async def test_a_slow_channel_holds_the_others_back_within_a_bound() -> None:
    inner = Ears(slow=1)
    given = 0

    async def audio() -> AsyncIterator[AudioInput]:
        nonlocal given
        for _ in range(100):
            given += 200
            yield bytes(2 * 200 * BYTES_PER_MS)

    async with asyncio.timeout(10), aclosing(ChannelsEngine(inner).stream(audio(), TWO)) as events:
        seen = []
        reading = asyncio.ensure_future(anext(events))
        while given < MAX_LAG_MS:
            if reading.done():
                seen.append(reading.result())
                reading = asyncio.ensure_future(anext(events))
            await asyncio.sleep(0)
        for _ in range(50):
            await asyncio.sleep(0)
        assert given <= MAX_LAG_MS + 600
        inner.free.set()
        seen.append(await reading)
        async for event in events:
            seen.append(event)
    assert [len(heard) // BYTES_PER_MS for heard in inner.heard] == [20_000, 20_000]
    assert sum(isinstance(event, Final) for event in seen) == 40


async def test_a_flood_of_ends_is_bounded_too() -> None:
    inner = Ears(slow=1)
    given = 0

    async def audio() -> AsyncIterator[AudioInput]:
        nonlocal given
        while True:
            given += 1
            yield EndUtterance()

    async with asyncio.timeout(10), aclosing(ChannelsEngine(inner).stream(audio(), TWO)) as events:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(events), 0.05)
        assert given < 2_000


async def test_a_recognizer_that_ends_early_stops_nobody() -> None:
    inner = Ears(deaf=1)
    items: list[AudioInput] = [woven(noise(16_000, 1), noise(16_000, 2)), EndUtterance()]
    events = await listen(ChannelsEngine(inner), *items * 5)
    assert sum(isinstance(event, Final) for event in events) == 5
    assert sum(isinstance(event, Flushed) for event in events) == 5
