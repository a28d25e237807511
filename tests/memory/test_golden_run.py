"""A whole run of a set: its order, its places, its failures and refusals; scripted engines in virtual time.

One run at the end is real: the embedded recognizer, two clips, the pace of speech.
"""

from __future__ import annotations

import asyncio
import json
import wave
from collections.abc import AsyncGenerator, AsyncIterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from asr.client import RivaASRClient
from asr.engine import AudioInput
from asr.errors import ASRError, Code
from asr.events import Event
from asr.options import Options
from evaluation.clips import Clip, ClipSet
from evaluation.golden import ATTEMPTS, MAX_PAUSE_MS, RunPlan, late_clips, result_of, run_set
from evaluation.recording import Heard, Recording
from evaluation.results import ClipResult, ErrorCounts, GoldenRun, RunInfo, Timings
from virtual_time import run
from word_engine import WordEngine

NOW = datetime(2026, 5, 4, 12, 30, tzinfo=UTC)
FIXTURES = Path(__file__).parents[1] / "fixtures"


@pytest.fixture
def make(tmp_path: Path) -> MakeClip:
    return MakeClip(tmp_path)


class MakeClip:
    """Clips of sound that `WordEngine` hears `w1 w2 …` in, a word every 200 ms."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, name: str, ms: int = 1_000) -> Clip:
        path = self._folder / f"{name}.wav"
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(16_000)
            file.writeframes(b"\x01\x02" * (16 * ms))
        text = " ".join(f"w{number}" for number in range(1, ms // 200 + 1))
        return Clip(f"test/{name}", "test", text, path, ms)


def a_set(*clips: Clip) -> ClipSet:
    return ClipSet("test", clips, "f1")


PLAN = RunPlan(tail_ms=100)


def golden(
    engine: WordEngine,
    clip_set: ClipSet,
    plan: RunPlan = PLAN,
    *,
    seen: list[tuple[str, int, int]] | None = None,
    slept: list[float] | None = None,
) -> GoldenRun:
    async def sleep(seconds: float) -> None:
        if slept is not None:
            slept.append(seconds)
        await asyncio.sleep(seconds)

    def on_clip(result: ClipResult, done: int, total: int) -> None:
        if seen is not None:
            seen.append((result.id, done, total))

    async def work() -> GoldenRun:
        async with RivaASRClient(engine=engine) as client:
            return await run_set(client, clip_set, plan, now=NOW, on_clip=on_clip, sleep=sleep)

    return run(work())


class Watched(WordEngine):
    """Notes which streams there were: how long, in what order, how many at a time, and which were recordings."""

    def __init__(self, *, full: int = 0, full_after: int = 0, retry_after_ms: int | None = 400) -> None:
        super().__init__()
        self.most = 0
        self.ended: list[tuple[int, bool]] = []
        self._full = range(full_after, full_after + full)
        self._retry_after_ms = retry_after_ms

    async def stream(self, audio: AsyncIterable[AudioInput], options: Options) -> AsyncGenerator[Event]:
        number = self.streams
        if number in self._full:
            self.streams += 1
            raise ASRError(Code.OVERLOADED, "The recognizer is full.", retry_after_ms=self._retry_after_ms)
        heard = 0

        async def counted() -> AsyncGenerator[AudioInput]:
            nonlocal heard
            async for item in audio:
                heard += len(item) if isinstance(item, bytes) else 0
                self.most = max(self.most, self.open_streams)
                yield item

        async for event in super().stream(counted(), options):
            yield event
        self.ended.append((heard // 32, options.recording))


def test_a_run_of_a_set(make: MakeClip) -> None:
    seen: list[tuple[str, int, int]] = []
    clips = (make("long", 2_000), make("short", 400), make("middle"))
    plan = replace(PLAN, language="de", target="the words", labels={"build": "7"})
    run_ = golden(WordEngine(), a_set(*clips), plan, seen=seen)
    assert [clip.id for clip in run_.clips] == ["test/long", "test/short", "test/middle"]
    assert [clip.hypothesis for clip in run_.clips] == [clip.text for clip in clips]
    assert sorted(seen, key=lambda one: one[1]) == seen
    assert {(done, total) for _, done, total in seen} == {(1, 3), (2, 3), (3, 3)}
    info = run_.info
    assert (info.target, info.engine, info.model) == ("the words", "words", "words-de")
    assert (info.set_name, info.set_fingerprint) == ("test", "f1")
    assert (info.chunk_ms, info.tail_ms, info.concurrency) == (100, 100, 2)
    assert info.started_at == "2026-05-04T12:30:00+00:00"
    assert info.normalizer
    assert info.version
    assert "cores" in info.machine
    assert dict(info.labels) == {"build": "7"}
    again = GoldenRun.from_json(json.loads(json.dumps(run_.to_json())))
    assert [clip.id for clip in again.clips] == [clip.id for clip in run_.clips]


def test_the_figures_of_a_clip(make: MakeClip) -> None:
    (result,) = golden(WordEngine(), a_set(make("one"))).clips
    assert result.words == ErrorCounts(hits=10)  # a letter and a number each, once they are normalized
    assert (result.partials, result.finals, result.realtime) == (4, 1, True)
    assert result.outcome == "ok"
    assert result.attempts == 1
    assert result.ready_ms == pytest.approx(0)
    # The set knows no places; the engine's own words say that each is heard at once.
    assert result.timings.first_partial_ms == pytest.approx(0)
    assert result.timings.final_ms == pytest.approx((0,))
    assert result.timings.partial_gap_ms == pytest.approx((200, 200, 200))


def test_an_empty_set(make: MakeClip) -> None:
    assert golden(WordEngine(), a_set()).clips == ()


def test_no_more_clips_at_a_time_than_asked_for(make: MakeClip) -> None:
    clips = a_set(*(make(f"c{number}") for number in range(6)))
    for concurrency in (1, 3):
        engine = Watched()
        golden(engine, clips, replace(PLAN, concurrency=concurrency))
        assert engine.most == concurrency


def test_clips_are_taken_in_the_order_of_the_set(make: MakeClip) -> None:
    seen: list[tuple[str, int, int]] = []
    clips = a_set(*(make(name) for name in "cab"))
    golden(WordEngine(), clips, replace(PLAN, concurrency=1), seen=seen)
    assert [id_ for id_, _, _ in seen] == ["test/c", "test/a", "test/b"]


def test_it_warms_with_the_shortest_clip(make: MakeClip) -> None:
    engine = Watched()
    golden(engine, a_set(make("a", 3_000), make("b", 600)), replace(PLAN, concurrency=1))
    assert engine.ended == [(600, False), (3_100, False), (700, False)]


def test_it_warms_every_place_with_a_second_at_most(make: MakeClip) -> None:
    engine = Watched()
    golden(engine, a_set(make("a", 3_000), make("b", 2_000)), replace(PLAN, concurrency=3))
    assert engine.ended[:3] == [(1_000, False)] * 3
    assert sorted(engine.ended[3:]) == [(2_100, False), (3_100, False)]


def test_long_clips_come_last_and_as_fast_as_they_are_taken(make: MakeClip) -> None:
    engine = Watched()
    clips = a_set(make("long", 61_000), make("a"), make("b"), make("edge", 60_000))
    results = {clip.id: clip for clip in golden(engine, clips, replace(PLAN, chunk_ms=1_000)).clips}
    assert engine.ended[-1] == (61_100, True)
    assert not results["test/long"].realtime
    assert results["test/long"].timings.final_ms == ()
    assert results["test/long"].timings.partial_words > 0
    assert results["test/edge"].realtime


def test_the_pace_may_be_asked_for(make: MakeClip) -> None:
    engine = Watched()
    golden(engine, a_set(make("a")), replace(PLAN, pace="fast"))
    assert engine.ended == [(1_000, True), (1_000, True), (1_100, True)]
    engine = Watched()
    golden(engine, a_set(make("a", 61_000)), replace(PLAN, pace="realtime", chunk_ms=1_000))
    assert engine.ended[-1] == (61_100, False)


def test_one_clip_that_cannot_be_read_costs_its_own_words(make: MakeClip) -> None:
    lost = replace(make("lost"), source=Path("nowhere.wav"))
    run_ = golden(WordEngine(), a_set(make("a"), lost, make("b")))
    assert [clip.outcome for clip in run_.clips] == ["ok", "error", "ok"]
    assert run_.clips[1].words == ErrorCounts(deletions=10)
    assert run_.clips[1].hypothesis == ""
    assert "nowhere.wav" in run_.clips[1].detail


def test_a_recognizer_that_dies_costs_the_words_of_the_clip(make: MakeClip) -> None:
    (result, short) = golden(WordEngine("unavailable@1000"), a_set(make("a", 2_000), make("b", 600))).clips
    assert (result.outcome, short.outcome) == ("error", "ok")
    assert result.words == ErrorCounts(deletions=21)  # the tenth is w, 1 and 0
    assert result.hypothesis == "w1 w2 w3 w4 w5"  # kept for people
    assert result.timings == Timings()
    assert short.words == ErrorCounts(hits=6)


def test_a_full_recognizer_is_asked_again_after_the_told_pause(make: MakeClip) -> None:
    slept: list[float] = []
    engine = Watched(full=2, full_after=1, retry_after_ms=400)
    (result,) = golden(engine, a_set(make("a")), replace(PLAN, concurrency=1), slept=slept).clips
    assert (result.outcome, result.attempts) == ("ok", 3)
    assert slept == [0.4, 0.4]


@pytest.mark.parametrize(("told_ms", "pause_s"), [(None, 1.0), (3_600_000, MAX_PAUSE_MS / 1_000)])
def test_a_recognizer_that_stays_full_is_given_up(make: MakeClip, told_ms: int | None, pause_s: float) -> None:
    slept: list[float] = []
    engine = Watched(full=100, retry_after_ms=told_ms)
    first, second = golden(engine, a_set(make("a"), make("b")), replace(PLAN, concurrency=1), slept=slept).clips
    assert (first.outcome, first.attempts) == ("refused", ATTEMPTS)
    assert first.words == ErrorCounts(deletions=10)
    assert second.attempts == ATTEMPTS
    assert slept == [pause_s] * 2 * (ATTEMPTS - 1)


def test_what_the_recognizer_does_not_have_is_said_before_anything_is_streamed(make: MakeClip) -> None:
    engine = WordEngine()
    with pytest.raises(ASRError) as caught:
        golden(engine, a_set(make("a")), replace(PLAN, language="fr-FR"))
    assert caught.value.code is Code.NOT_FOUND
    assert engine.streams == 0
    with pytest.raises(ASRError):
        golden(WordEngine("no-model"), a_set(make("a")))


def test_cancelled_it_leaves_nothing_behind(make: MakeClip) -> None:
    engine = WordEngine()

    async def cut() -> None:
        async with RivaASRClient(engine=engine) as client:
            clips = a_set(*(make(f"c{number}", 50_000) for number in range(4)))
            task = asyncio.create_task(run_set(client, clips, PLAN, now=NOW))
            while engine.streams < 3 or not engine.open_streams:  # two to warm; reading a clip takes time of its own
                assert not task.done()
                await asyncio.sleep(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert engine.open_streams == 0
            assert asyncio.all_tasks() == {asyncio.current_task()}

    run(cut())


def test_a_callback_that_fails_ends_the_run(make: MakeClip) -> None:
    engine = WordEngine()

    def broken(result: ClipResult, done: int, total: int) -> None:
        raise OSError("the terminal is gone")

    async def work() -> None:
        async with RivaASRClient(engine=engine) as client:
            with pytest.raises(OSError, match="terminal"):
                await run_set(client, a_set(make("a", 400), make("b", 4_000)), PLAN, now=NOW, on_clip=broken)
            assert engine.open_streams == 0
            assert asyncio.all_tasks() == {asyncio.current_task()}

    run(work())


def test_a_final_on_silence_is_counted() -> None:
    clip = Clip("silence/a", "silence", "", Path("a.wav"), 1_000)
    came = (Heard(300, "final", 0, "", 0, 200), Heard(900, "final", 1, "the", 200, 800))
    result = result_of(clip, Recording(100, (100.0,), came, True, 1_000))
    assert (result.finals, result.hypothesis) == (1, "the")
    assert result.words == ErrorCounts(insertions=1)


def test_a_joined_clip_tells_the_errors_of_its_parts() -> None:
    parts = tuple(
        Clip(f"clean/{name}", "clean", text, Path("a.wav"), 1_000)
        for name, text in (("boat", "the old boat"), ("blue", "was painted blue"))
    )
    clip = Clip("long/both", "long", "the old boat was painted blue", (parts[0], 400, parts[1]), 2_400)
    came = (Heard(300, "final", 0, "the old", 0, 200), Heard(900, "final", 1, "was painted blue", 200, 800))
    result = result_of(clip, Recording(100, (100.0,), came, False, 2_400))
    assert [(part.id, part.words) for part in result.parts] == [
        ("clean/boat", ErrorCounts(hits=2, deletions=1)),
        ("clean/blue", ErrorCounts(hits=3)),
    ]
    assert sum((part.chars for part in result.parts), ErrorCounts()) == result.chars
    assert result_of(clip, Recording(100, (100.0,), came, False, 2_400, outcome="timeout")).parts == ()
    assert result_of(parts[0], Recording(100, (100.0,), came, False, 1_000)).parts == ()


def test_a_run_says_how_busy_its_machine_was(make: MakeClip) -> None:
    info = golden(WordEngine(), a_set(make("one"))).info
    assert info.cores >= 1
    assert info.load_average is not None
    assert info.machine.endswith(f"; load average up to {info.load_average:.1f}")
    assert replace(info, load_average=info.cores * 2.0).busy
    assert not replace(info, load_average=info.cores * 1.0).busy


def test_clips_whose_own_sender_was_late_are_told() -> None:
    def clip(id_: str, late_ms: float, *, realtime: bool = True, timings: Timings) -> ClipResult:
        errors = ErrorCounts()
        return ClipResult(id_, "a", "", "", 1, errors, errors, timings, realtime=realtime, late_ms=late_ms)

    slow, quick = Timings(final_ms=(700.0,), first_partial_ms=500.0), Timings(word_partial_ms=(100.0, 30.0, 100.0))
    clips = (
        clip("fine", 100, timings=slow),
        clip("late", 130, timings=slow),
        clip("small", 19, timings=Timings(final_ms=(50.0,))),
        clip("quick", 25, timings=quick),
        clip("fast", 500, realtime=False, timings=slow),
        clip("nothing", 500, timings=Timings()),
    )
    info = RunInfo("t", "e", "m", "s", "f", 100, 100, 2, "n", "2026-05-04", "1 core", "1", {})
    assert [one.id for one in late_clips(GoldenRun(info, clips))] == ["late", "quick"]


@pytest.mark.alone
async def test_the_embedded_recognizer_at_the_pace_of_speech() -> None:
    clips = a_set(*(_fixture(name) for name in ("greeting", "brother")))
    async with RivaASRClient(engine="local") as client:
        run_ = await run_set(client, clips, RunPlan(), now=NOW)
    for clip in run_.clips:
        assert clip.outcome == "ok", clip.detail
        assert clip.words.errors <= 1
        assert clip.finals == 1
        assert clip.partials >= 3
        assert clip.timings.first_partial_ms is not None
        # Generous: they fall over when clocks are mixed up, not when the machine is slow.
        assert 0 < clip.timings.first_partial_ms < 3_000
        assert len(clip.timings.final_ms) == 1
        assert 100 < clip.timings.final_ms[0] < 4_000
        assert 0 <= clip.late_ms < 2_000


def _fixture(name: str) -> Clip:
    path = FIXTURES / f"{name}.wav"
    with wave.open(str(path)) as file:
        ms = file.getnframes() * 1_000 // file.getframerate()
        rate_hz = file.getframerate()
    return Clip(name, "clean", path.with_suffix(".txt").read_text(), path, ms, rate_hz)
