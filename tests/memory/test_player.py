"""One clip through a recognizer, in virtual time: the pace, the moments, and every way in which a stream can end."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator, AsyncIterable, Sequence
from pathlib import Path

import pytest

from asr.client import RivaASRClient
from asr.engine import AudioInput
from asr.errors import ASRError, Code
from asr.events import Event, Gap, GapCause, Partial
from asr.options import Options
from evaluation.clips import Clip
from evaluation.player import Patience, play
from evaluation.recording import Recording
from virtual_time import run
from word_engine import WordEngine

RATE_HZ = 16_000
QUICK = Patience(quiet_s=5.0, slowness=3.0, close_s=1.0)


def sound(ms: int, rate_hz: int = RATE_HZ) -> bytes:
    return b"\x01\x02" * (rate_hz * ms // 1_000)


async def played(
    engine: WordEngine,
    *,
    ms: int = 1_000,
    tail_ms: int = 300,
    realtime: bool = True,
    chunk_ms: int = 100,
    rate_hz: int = RATE_HZ,
    oversleep_s: Sequence[float] = (),
) -> Recording:
    too_long = iter(oversleep_s)

    async def sleep(seconds: float) -> None:
        await asyncio.sleep(seconds + next(too_long, 0.0))

    clip = Clip("a/1", "clean", "w1", Path("a.wav"), ms, rate_hz)
    async with RivaASRClient(engine=engine) as client:
        return await play(
            client,
            clip,
            sound(ms, rate_hz),
            chunk_ms=chunk_ms,
            tail_ms=tail_ms,
            realtime=realtime,
            options=Options(),
            patience=QUICK,
            sleep=sleep,
        )


class SlowEngine(WordEngine):
    """Takes 300 ms for each piece that it hears."""

    async def stream(self, audio: AsyncIterable[AudioInput], options: Options) -> AsyncGenerator[Event]:
        async def slowly() -> AsyncGenerator[AudioInput]:
            async for item in audio:
                await asyncio.sleep(0.3)
                yield item

        async for event in super().stream(slowly(), options):
            yield event


class ScriptedEngine(WordEngine):
    """Says one thing again and again, at a pace of its own."""

    def __init__(self, event: Event, *, every_s: float, times: int | None = None) -> None:
        super().__init__()
        self._event = event
        self._every_s = every_s
        self._times = times
        self.options: Options | None = None

    async def stream(self, audio: AsyncIterable[AudioInput], options: Options) -> AsyncGenerator[Event]:
        self.options = options
        async for _ in audio:
            pass
        said = 0
        while self._times is None or said < self._times:
            await asyncio.sleep(self._every_s)
            said += 1
            yield self._event


def test_chunks_go_out_when_their_last_sample_would_have_been_captured() -> None:
    engine = WordEngine()
    recording = run(played(engine))
    assert recording.sent_at_ms == pytest.approx([100 * (i + 1) for i in range(13)])
    assert engine.heard_bytes == sound(1_000) + bytes(RATE_HZ * 300 // 1_000 * 2)
    assert (recording.audio_ms, recording.chunk_ms, recording.realtime) == (1_300, 100, True)
    assert (recording.outcome, recording.detail, recording.gaps_ms) == ("ok", "", 0)
    assert recording.late_ms == pytest.approx(0)
    assert recording.ready_ms == pytest.approx(0)
    assert recording.total_ms == pytest.approx(1_200)  # from the first chunk, which is sent at 100


def test_what_is_heard_has_its_moment_and_its_words() -> None:
    recording = run(played(WordEngine()))
    told = [(round(one.at_ms), one.kind, one.utterance, one.text) for one in recording.heard]
    assert told == [
        (200, "partial", 0, "w1"),
        (400, "partial", 0, "w1 w2"),
        (600, "partial", 0, "w1 w2 w3"),
        (800, "partial", 0, "w1 w2 w3 w4"),
        (1_000, "final", 0, "w1 w2 w3 w4 w5"),
        (1_200, "partial", 1, "w6"),
        (1_300, "final", 1, "w6"),
    ]
    assert recording.heard[4].words[4] == ("w5", 800, 1_000)
    assert (recording.heard[4].start_ms, recording.heard[4].end_ms) == (0, 1_000)


def test_a_slow_recognizer_does_not_slow_the_pace() -> None:
    recording = run(played(SlowEngine()))
    assert recording.sent_at_ms == pytest.approx([100 * (i + 1) for i in range(13)])
    assert recording.late_ms == pytest.approx(0)
    assert recording.heard[0].at_ms == pytest.approx(100 + 2 * 300)  # the first word is two chunks
    assert recording.total_ms == pytest.approx(13 * 300)


def test_its_own_lateness_is_measured_and_does_not_add_up() -> None:
    recording = run(played(WordEngine(), oversleep_s=[0.01, 0.03, 0.03]))
    assert recording.late_ms == pytest.approx(30)
    assert recording.sent_at_ms[:6] == pytest.approx([110, 230, 330, 400, 500, 600])


def test_after_a_long_stop_it_catches_up_and_says_so() -> None:
    recording = run(played(WordEngine(), oversleep_s=[0.25]))
    assert recording.late_ms == pytest.approx(250)
    assert recording.sent_at_ms[:5] == pytest.approx([350, 350, 350, 400, 500])


def test_fast_clips_are_given_as_they_are_taken() -> None:
    engine = ScriptedEngine(Partial(0, 1, "x", 0, 10), every_s=0.5, times=1)
    recording = run(played(engine, realtime=False))
    assert engine.options is not None
    assert engine.options.recording
    assert recording.sent_at_ms == pytest.approx([0] * 13)
    assert not recording.realtime
    assert recording.total_ms == pytest.approx(500)


def test_at_the_pace_of_speech_it_is_no_recording() -> None:
    engine = ScriptedEngine(Partial(0, 1, "x", 0, 10), every_s=0.5, times=1)
    run(played(engine))
    assert engine.options is not None
    assert not engine.options.recording


@pytest.mark.parametrize("rate_hz", [8_000, 11_025, 22_050, 44_100])
def test_clips_are_streamed_at_their_own_rate(rate_hz: int) -> None:
    engine = WordEngine()
    recording = run(played(engine, rate_hz=rate_hz, chunk_ms=33))
    assert recording.audio_ms == 1_300
    assert len(recording.sent_at_ms) == 40  # 39 of 33 ms, and 13 ms
    assert recording.sent_at_ms[-1] == pytest.approx(1_300)
    assert len(engine.heard_bytes) == pytest.approx(RATE_HZ * 1.3 * 2, abs=200)
    assert [one.text for one in recording.heard][-1] == "w6"


def test_no_chunk_is_empty_where_chunks_are_no_whole_samples() -> None:
    recording = run(played(WordEngine(), rate_hz=11_025, chunk_ms=1))
    assert len(recording.sent_at_ms) == 1_300


def test_an_empty_clip_is_its_silence() -> None:
    recording = run(played(WordEngine(), ms=0, tail_ms=200))
    assert recording.outcome == "ok"
    assert len(recording.sent_at_ms) == 2
    assert run(played(WordEngine(), ms=0, tail_ms=0)).sent_at_ms == ()


def test_gaps_are_counted() -> None:
    engine = ScriptedEngine(Gap(0, 40, GapCause.UPSTREAM_LOST), every_s=0.1, times=3)
    assert run(played(engine)).gaps_ms == 120


# Ways to end.


def test_a_full_recognizer_refuses() -> None:
    engine = WordEngine("refuses")
    recording = run(played(engine))
    assert (recording.outcome, recording.retry_after_ms) == ("refused", 2_000)
    assert "full" in recording.detail
    assert (recording.sent_at_ms, recording.ready_ms, recording.total_ms) == ((), None, 0.0)


def test_a_recognizer_without_a_model_refuses() -> None:
    assert run(played(WordEngine("no-model"))).outcome == "refused"


def test_a_recognizer_that_goes_away_is_an_error_with_what_had_come() -> None:
    recording = run(played(WordEngine("unavailable@600")))
    assert recording.outcome == "error"
    assert recording.detail.startswith("unavailable: ")
    assert len(recording.heard) == 3
    # It goes away when it has taken audio and said nothing yet: no refusal either.
    assert run(played(WordEngine("unavailable@100"))).outcome == "error"


def test_a_defect_of_the_recognizer_is_an_error() -> None:
    assert run(played(WordEngine("bug@100"))).outcome == "error"


@pytest.mark.parametrize("realtime", [True, False])
def test_a_recognizer_that_falls_silent_is_a_timeout(realtime: bool) -> None:
    engine = WordEngine("hang@500")

    async def timed() -> tuple[Recording, float]:
        recording = await played(engine, realtime=realtime)
        return recording, asyncio.get_running_loop().time()

    recording, took_s = run(timed())
    assert recording.outcome == "timeout"
    assert "5 of 13 chunks" in recording.detail
    assert took_s == pytest.approx(QUICK.quiet_s + (1.3 if realtime else 0))
    assert len(recording.heard) == 2
    assert engine.open_streams == 0


def test_a_recognizer_that_never_asks_for_audio_is_a_timeout() -> None:
    class Deaf(WordEngine):
        async def stream(self, audio: AsyncIterable[AudioInput], options: Options) -> AsyncGenerator[Event]:
            await asyncio.Event().wait()
            yield Partial(0, 1, "x", 0, 10)

    recording = run(played(Deaf()))
    assert (recording.outcome, recording.ready_ms, recording.sent_at_ms) == ("timeout", None, ())


def test_a_recognizer_that_never_ends_is_a_timeout() -> None:
    async def timed() -> tuple[Recording, float]:
        recording = await played(ScriptedEngine(Partial(0, 1, "x", 0, 10), every_s=0.5))
        return recording, asyncio.get_running_loop().time()

    recording, took_s = run(timed())
    assert recording.outcome == "timeout"
    assert took_s == pytest.approx(QUICK.quiet_s + 3 * 1.3)


def test_a_stream_that_will_not_close_is_left() -> None:
    class Stubborn(WordEngine):
        async def stream(self, audio: AsyncIterable[AudioInput], options: Options) -> AsyncGenerator[Event]:
            try:
                async for _ in audio:
                    pass
                await asyncio.Event().wait()
                yield Partial(0, 1, "x", 0, 10)
            finally:
                await asyncio.sleep(3_600)

    async def timed() -> tuple[Recording, float]:
        recording = await played(Stubborn())
        return recording, asyncio.get_running_loop().time()

    recording, took_s = run(timed())
    assert recording.outcome == "timeout"
    assert took_s < 60


def test_cancelled_it_leaves_nothing_behind() -> None:
    engine = WordEngine()

    async def cut() -> None:
        task = asyncio.create_task(played(engine))
        await asyncio.sleep(0.55)
        assert engine.open_streams == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert engine.open_streams == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(cut())
    gc.collect()  # a generator left open would complain here


def test_a_recognizer_that_is_full_in_the_middle_has_not_refused() -> None:
    class Late(WordEngine):
        async def stream(self, audio: AsyncIterable[AudioInput], options: Options) -> AsyncGenerator[Event]:
            async for _ in audio:
                yield Partial(0, 1, "x", 0, 10)
                raise ASRError(Code.OVERLOADED, "The recognizer is full.")

    assert run(played(Late())).outcome == "error"


def test_what_a_refusal_tells_is_for_people() -> None:
    class Limited(WordEngine):
        async def stream(self, audio: AsyncIterable[AudioInput], options: Options) -> AsyncGenerator[Event]:
            async for _ in audio:
                raise ASRError(Code.RATE_LIMITED, "Your quota is used up.", retry_after_ms=700)
            yield Partial(0, 1, "x", 0, 10)

    recording = run(played(Limited()))
    assert (recording.outcome, recording.detail) == ("refused", "rate_limited: Your quota is used up.")
    assert recording.retry_after_ms == 700
