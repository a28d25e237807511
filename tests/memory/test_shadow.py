"""Two recognizers hear the same at the same moments, and what befalls the one does not bend the other."""

from __future__ import annotations

import asyncio
import random
import time
import wave
from collections.abc import AsyncGenerator, AsyncIterable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from asr.client import RivaASRClient
from asr.engine import AudioInput
from asr.errors import ASRError, Code
from asr.events import Event
from asr.options import Options
from evaluation.clips import Clip, ClipSet
from evaluation.golden import RunPlan
from evaluation.player import Patience
from evaluation.results import ClipResult, GoldenRun
from evaluation.shadow import run_shadow
from timing import in_time
from word_engine import WordEngine

CHUNK_MS = 50
CLIP_MS = 400
TAIL_MS = 100
CHUNKS = (CLIP_MS + TAIL_MS) // CHUNK_MS
NEAR_S = 0.04
"""Two tasks of one loop on a machine with other work."""
NOW = datetime(2026, 1, 2, tzinfo=UTC)


class Noting(WordEngine):
    """Notes what it was given, and when."""

    def __init__(self, fault: str = "", *, slow_s: float = 0.0, connect_s: float = 0.0) -> None:
        super().__init__(fault)
        self.notes: list[list[tuple[float, bytes]]] = []
        self._slow_s = slow_s
        self._connect_s = connect_s

    async def stream(self, audio: AsyncIterable[AudioInput], options: Options) -> AsyncGenerator[Event]:
        notes: list[tuple[float, bytes]] = []
        self.notes.append(notes)
        await asyncio.sleep(self._connect_s)

        async def noted() -> AsyncGenerator[AudioInput]:
            async for item in audio:
                assert isinstance(item, bytes)
                notes.append((time.monotonic(), item))
                yield item
                await asyncio.sleep(self._slow_s)

        async for event in super().stream(noted(), options):
            yield event

    @property
    def measured(self) -> list[list[tuple[float, bytes]]]:
        """Without the stream that warms."""
        return self.notes[1:]


class Away(Noting):
    """Fails before it asks for any audio, but for the stream that warms it."""

    def __init__(self, after_s: float) -> None:
        super().__init__()
        self._after_s = after_s

    async def stream(self, audio: AsyncIterable[AudioInput], options: Options) -> AsyncGenerator[Event]:
        if self.streams >= 1:
            await asyncio.sleep(self._after_s)
            raise ASRError(Code.UNAVAILABLE, "The recognizer went away.")
        async for event in super().stream(audio, options):
            yield event


@pytest.fixture
def clips(tmp_path: Path) -> ClipSet:
    return ClipSet("two", tuple(clip(tmp_path, number) for number in range(2)), "0123456789ab")


@pytest.fixture
def one_clip(clips: ClipSet) -> ClipSet:
    return ClipSet("one", clips.clips[:1], "ba9876543210")


def clip(folder: Path, number: int) -> Clip:
    path = folder / f"{number}.wav"
    with wave.open(str(path), "wb") as out:
        out.setparams((1, 2, 16_000, 0, "NONE", ""))
        out.writeframes(random.Random(number).randbytes(32 * CLIP_MS))
    return Clip(f"clean/{number}", "clean", "w1 w2", path, CLIP_MS)


async def shadowed(
    a: WordEngine, b: WordEngine, clips: ClipSet, *, patience: Patience | None = None, start_s: float = 10.0
) -> tuple[GoldenRun, GoldenRun]:
    async with RivaASRClient(engine=a) as one, RivaASRClient(engine=b) as other:
        plan = RunPlan(chunk_ms=CHUNK_MS, tail_ms=TAIL_MS, concurrency=1, target="now")
        return await run_shadow(
            one,
            other,
            clips,
            plan,
            now=NOW,
            candidate="next",
            patience=patience or Patience(),
            start_s=start_s,
        )


def paced(notes: list[tuple[float, bytes]]) -> bool:
    """Whether the chunks came at the pace of speech."""
    start = notes[0][0]
    return all(abs(at - start - index * CHUNK_MS / 1000) < NEAR_S for index, (at, _) in enumerate(notes))


async def test_both_are_given_the_same_at_the_same_moments(clips: ClipSet) -> None:
    # One needs a while to connect, so that a stream that did not wait for the other would be far ahead of it.
    a, b = Noting(), Noting(connect_s=0.2)
    seen: list[tuple[str, int, int]] = []

    def on_clip(result: ClipResult, number: int, total: int) -> None:
        seen.append((result.id, number, total))

    async with RivaASRClient(engine=a) as one, RivaASRClient(engine=b) as other:
        plan = RunPlan(chunk_ms=CHUNK_MS, tail_ms=TAIL_MS, concurrency=1, target="now", labels={"build": "7"})
        first, second = await run_shadow(one, other, clips, plan, now=NOW, candidate="next", on_clip=on_clip)
    assert len(a.measured) == len(b.measured) == 2
    for ours, theirs in zip(a.measured, b.measured, strict=True):
        assert [chunk for _, chunk in ours] == [chunk for _, chunk in theirs]
        assert len(ours) == CHUNKS
        assert all(abs(x - y) < NEAR_S for (x, _), (y, _) in zip(ours, theirs, strict=True))
        assert paced(ours)
    assert seen == [("clean/0", 1, 2), ("clean/1", 2, 2)]
    for run, target in ((first, "now"), (second, "next")):
        assert (run.info.target, run.info.engine, run.info.model) == (target, "words", "words-en")
        assert run.info.set_fingerprint == clips.fingerprint
        assert run.info.labels == {"build": "7"}
        assert run.info.started_at == "2026-01-02T00:00:00+00:00"
        assert [clip.outcome for clip in run.clips] == ["ok", "ok"]
        assert all(clip.hypothesis == "w1 w2" for clip in run.clips)
        assert all(clip.words.errors == 0 for clip in run.clips)
        assert all(clip.realtime for clip in run.clips)
    # The wait for the slow one is not told of the quick one.
    ready = [[clip.ready_ms or 0.0 for clip in run.clips] for run in (first, second)]
    assert max(ready[0]) < 150 <= min(ready[1])


async def test_one_that_is_slow_does_not_hold_up_the_other(one_clip: ClipSet) -> None:
    a, b = Noting(), Noting(slow_s=0.1)
    first, second = await shadowed(a, b, one_clip)
    assert all(paced(notes) for notes in a.measured)
    assert not any(paced(notes) for notes in b.measured)
    assert [clip.outcome for run in (first, second) for clip in run.clips] == ["ok"] * 2
    assert all(clip.elapsed_ms < CLIP_MS + TAIL_MS + 1000 * NEAR_S * 2 for clip in first.clips)
    assert all(clip.elapsed_ms > 900 for clip in second.clips)


async def test_one_that_hangs_costs_its_own_words_alone(one_clip: ClipSet) -> None:
    a, b = Noting(), Noting("hang@100")
    first, second = await shadowed(a, b, one_clip, patience=Patience(quiet_s=0.7, close_s=0.3))
    assert all(paced(notes) for notes in a.measured)
    assert [clip.outcome for clip in first.clips] == ["ok"]
    assert [clip.outcome for clip in second.clips] == ["timeout"]
    assert all(clip.words.hits == 0 < clip.words.deletions for clip in second.clips)
    assert a.open_streams == b.open_streams == 0


async def test_one_that_fails_before_the_start_is_not_waited_for(one_clip: ClipSet) -> None:
    a, b = Noting(), Away(after_s=0.1)
    begun = time.monotonic()
    first, second = await shadowed(a, b, one_clip, start_s=20.0)
    in_time(time.monotonic() - begun, 10.0)
    assert all(paced(notes) for notes in a.measured)
    assert [clip.outcome for clip in first.clips] == ["ok"]
    assert [clip.outcome for clip in second.clips] == ["refused"]
    assert second.clips[0].detail == "unavailable: The recognizer went away."


async def test_one_that_is_never_ready_is_waited_for_only_so_long(one_clip: ClipSet) -> None:
    a, b = Noting(), Away(after_s=30.0)
    first, second = await shadowed(a, b, one_clip, patience=Patience(quiet_s=0.8, close_s=0.3), start_s=0.1)
    assert all(paced(notes) for notes in a.measured)
    assert [clip.outcome for clip in first.clips] == ["ok"]
    assert [clip.outcome for clip in second.clips] == ["timeout"]


async def test_a_clip_that_cannot_be_read_fails_on_both_sides_and_the_rest_goes_on(clips: ClipSet) -> None:
    path = clips.clips[0].source
    assert isinstance(path, Path)
    path.unlink()
    first, second = await shadowed(Noting(), Noting(), clips)
    for run in (first, second):
        assert [clip.outcome for clip in run.clips] == ["error", "ok"]
        assert run.clips[0].detail.startswith("Not streamed: ")


async def test_a_model_that_one_of_them_has_not_is_said_before_anything_is_streamed(one_clip: ClipSet) -> None:
    a, b = Noting(), Noting("no-model")
    with pytest.raises(ASRError) as caught:
        await shadowed(a, b, one_clip)
    assert caught.value.code is Code.UNAVAILABLE
    assert a.streams == 0


async def test_cancelled_it_leaves_no_stream_and_no_task(one_clip: ClipSet) -> None:
    before = asyncio.all_tasks()
    a, b = Noting(), Noting()
    run = asyncio.create_task(shadowed(a, b, one_clip))
    async with asyncio.timeout(10):
        while not (a.measured and b.measured and a.measured[0] and b.measured[0]):
            await asyncio.sleep(0.01)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert a.open_streams == b.open_streams == 0
    assert asyncio.all_tasks() == before
