"""Long recordings in parts: nothing lost or doubled, the words of one pass, and every way out is clean."""

from __future__ import annotations

import asyncio
import struct
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterable
from pathlib import Path

import numpy as np
import pytest

import counting
import sound
import speech
from asr.audio import Stereo
from asr.channels import ChannelsEngine
from asr.config import LocalConfig
from asr.cutting import PartResult, transcribe_long
from asr.engine import AudioInput, Features
from asr.engines.local import LocalEngine
from asr.errors import ASRError, Code
from asr.events import Event, Final, FinalReason, Gap, GapCause
from asr.options import Diarization, Endpointing, Options
from asr.pauses import CutRules
from asr.transcript import Transcript
from counting import CountingEngine

RULES = CutRules(min_ms=600, target_ms=1_000, max_ms=2_500)
TALK_MS, PAUSE_MS = 800, 780


def numbers(rounds: int) -> list[int]:
    """A number for each millisecond: loud ones, each its own, and in the pauses such as nobody hears."""
    found: list[int] = []
    for _ in range(rounds):
        found += range(3_000 + len(found), 3_000 + len(found) + TALK_MS)
        found += (n % 15 for n in range(PAUSE_MS))
    return found


def pcm(found: list[int]) -> bytes:
    return b"".join(struct.pack("<h", number) * 16 for number in found)


def recording(folder: Path, data: bytes, *, channels: int = 1) -> Path:
    path = folder / "recording.wav"
    path.write_bytes(sound.wav(data, sound.fmt(channels=channels)))
    return path


class Shelf:
    """A store of parts."""

    def __init__(self) -> None:
        self.kept: dict[int, PartResult] = {}

    async def load(self, index: int) -> PartResult | None:
        stored = self.kept.get(index)
        return None if stored is None else PartResult.from_json(stored.to_json())

    async def save(self, index: int, result: PartResult) -> None:
        assert index not in self.kept
        self.kept[index] = result


def heard(transcript: Transcript) -> list[int]:
    return [int(word.text[1:]) for word in transcript.words]


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("parts", [1, 3, 16])
async def test_not_one_frame_is_lost_or_doubled(parts: int, tmp_path: Path) -> None:
    sent = numbers(12)
    engine = CountingEngine(utterance_frames=70, partials=False)
    told: list[tuple[int, int | None]] = []
    done = await transcribe_long(
        recording(tmp_path, pcm(sent)), engine, Options(), parts=parts, rules=RULES,
        on_progress=lambda now, total: told.append((now, total)),
    )  # fmt: skip
    assert engine.attempts >= 6
    assert heard(done) == sent
    assert [word.start_ms for word in done.words] == list(range(len(sent)))
    assert [final.utterance for final in done.finals] == list(range(len(done.finals)))
    assert [final.reason for final in done.finals].count(FinalReason.STOP) <= 1
    for final in done.finals:
        assert (final.start_ms, final.end_ms) == (final.words[0].start_ms, final.words[-1].end_ms)
    assert done.duration_ms == len(sent)
    assert told == sorted(told)
    assert told[-1] == (len(sent), len(sent))
    assert engine.open == 0
    assert left_in(tmp_path) == ["recording.wav"]


class Crowd(CountingEngine):
    """Holds each stream until `release`, and counts."""

    def __init__(self, release_at: int) -> None:
        super().__init__(utterance_frames=100, partials=False, progress=False)
        self.release = asyncio.Event()
        self.release_at = release_at
        self.most = 0

    async def stream(self, audio: AsyncIterable[AudioInput], options: Options) -> AsyncGenerator[Event]:
        async for event in super().stream(audio, options):
            self.most = max(self.most, self.open)
            if self.open >= self.release_at:
                self.release.set()
            await self.release.wait()
            yield event


async def test_so_many_parts_at_a_time_and_no_more(tmp_path: Path) -> None:
    engine = Crowd(release_at=3)
    sent = numbers(12)
    done = await transcribe_long(recording(tmp_path, pcm(sent)), engine, Options(), parts=3, rules=RULES)
    assert engine.most == 3
    assert heard(done) == sent


async def test_cancelling_closes_every_stream(tmp_path: Path) -> None:
    engine = Crowd(release_at=99)
    path = recording(tmp_path, pcm(numbers(12)))
    task = asyncio.create_task(transcribe_long(path, engine, Options(), parts=4, rules=RULES))
    async with asyncio.timeout(10):
        while engine.open < 4:
            await asyncio.sleep(0.01)
    async with asyncio.timeout(1):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert engine.open == 0
    assert left_in(tmp_path) == ["recording.wav"]


async def test_what_is_finished_is_not_done_again(tmp_path: Path) -> None:
    sent, shelf = numbers(12), Shelf()
    path = recording(tmp_path, pcm(sent))
    broken = CountingEngine([None, None, counting.Fault(5, counting.lost())], utterance_frames=70, partials=False)
    with pytest.raises(ASRError, match="connection broke"):
        await transcribe_long(path, broken, Options(), parts=1, rules=RULES, saved=shelf)
    assert sorted(shelf.kept) == [0, 1]
    assert broken.open == 0
    engine = CountingEngine(utterance_frames=70, partials=False)
    done = await transcribe_long(path, engine, Options(), parts=4, rules=RULES, saved=shelf)
    assert heard(done) == sent
    assert engine.attempts == len(shelf.kept) - 2
    again = CountingEngine()
    assert await transcribe_long(path, again, Options(), parts=4, rules=RULES, saved=shelf) == done
    assert again.attempts == 0


async def test_results_of_other_cuts_are_not_used(tmp_path: Path) -> None:
    sent, shelf = numbers(6), Shelf()
    path = recording(tmp_path, pcm(sent))
    await transcribe_long(path, CountingEngine(utterance_frames=70), Options(), rules=RULES, saved=shelf)
    other = Shelf()
    other.kept = {index: result for index, result in shelf.kept.items() if index}
    stale = shelf.kept[0]
    shelf.kept = {0: PartResult(stale.start_ms, stale.end_ms - 30, stale.transcript)}

    class Forgetful(Shelf):
        async def save(self, index: int, result: PartResult) -> None:
            self.kept[index] = result

    forgetful = Forgetful()
    forgetful.kept = shelf.kept
    engine = CountingEngine(utterance_frames=70)
    done = await transcribe_long(path, engine, Options(), rules=RULES, saved=forgetful)
    assert heard(done) == sent
    assert forgetful.kept[0] == stale


async def test_a_full_recognizer_is_waited_for(tmp_path: Path) -> None:
    full = counting.Fault(0, ASRError(Code.OVERLOADED, "Full.", retry_after_ms=20))
    engine = CountingEngine([full, None, full, full, None, full], utterance_frames=70, partials=False)
    sent = numbers(8)
    done = await transcribe_long(recording(tmp_path, pcm(sent)), engine, Options(), parts=2, rules=RULES)
    assert heard(done) == sent


class Gappy(CountingEngine):
    """Every stream loses its second tenth of a second, and has two readings."""

    async def stream(self, audio: AsyncIterable[AudioInput], options: Options) -> AsyncGenerator[Event]:
        async for event in super().stream(audio, options):
            if isinstance(event, Final) and event.start_ms == 100:
                yield Gap(event.start_ms, event.end_ms, GapCause.UPSTREAM_LOST)
            else:
                yield event


async def test_gaps_come_onto_the_one_clock(tmp_path: Path) -> None:
    sent = numbers(6)
    engine = Gappy(utterance_frames=100, partials=False)
    done = await transcribe_long(recording(tmp_path, pcm(sent)), engine, Options(), rules=RULES)
    assert len(done.gaps) == engine.attempts > 2
    assert [gap.end_ms - gap.start_ms for gap in done.gaps] == [100] * len(done.gaps)
    lost = {ms for gap in done.gaps for ms in range(gap.start_ms, gap.end_ms)}
    assert heard(done) == [number for ms, number in enumerate(sent) if ms not in lost]


class Speakers(CountingEngine):
    features = Features(diarization=True, endpointing=True)


@pytest.mark.parametrize(
    "options",
    [Options(diarization=Diarization()), Options(endpointing=Endpointing(manual=True))],
    ids=["who", "manual"],
)
async def test_what_parts_would_change_is_one_pass(options: Options, tmp_path: Path) -> None:
    engine, sent = Speakers(utterance_frames=100, partials=False), numbers(6)
    done = await transcribe_long(recording(tmp_path, pcm(sent)), engine, options, rules=RULES)
    assert engine.attempts == 1
    assert heard(done) == sent


async def test_a_longer_pause_that_ends_utterances_is_the_one_that_is_cut(tmp_path: Path) -> None:
    engine = Speakers(utterance_frames=100, partials=False)
    options = Options(endpointing=Endpointing(silence_ms=1_000))
    await transcribe_long(recording(tmp_path, pcm(numbers(6))), engine, options, rules=RULES)
    assert engine.attempts == 1


async def test_wishes_that_cannot_be_met_are_said_once(tmp_path: Path) -> None:
    engine = CountingEngine(utterance_frames=100, partials=False)
    path = recording(tmp_path, pcm(numbers(6)))
    done = await transcribe_long(path, engine, Options(profanity_filter=True), rules=RULES)
    assert [warning for warning in done.warnings if "profanity" in warning] == list(done.warnings)
    assert len(done.warnings) == 1
    assert (done.language, done.model) == ("en-US", "numbers")
    with pytest.raises(ASRError, match="numbers"):
        await transcribe_long(path, engine, Options(model="other"), rules=RULES)


async def test_what_is_too_long_is_refused_before_it_is_recognized(tmp_path: Path) -> None:
    engine = CountingEngine()
    with pytest.raises(ASRError) as refused:
        await transcribe_long(recording(tmp_path, pcm(numbers(6))), engine, Options(), max_audio_ms=5_000)
    assert refused.value.code is Code.TOO_LARGE
    assert engine.attempts == 0


async def test_what_is_no_audio_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "letter.wav"
    path.write_text("not audio" * 100)
    with pytest.raises(ASRError) as refused:
        await transcribe_long(path, CountingEngine(), Options())
    assert refused.value.code is Code.BAD_AUDIO
    assert "letter.wav" in refused.value.message


FULL = """
import asyncio, resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from asr.audio import Stereo
from asr.channels import ChannelsEngine
from asr.cutting import transcribe_long
from asr.errors import ASRError
from asr.options import Options
from counting import CountingEngine

resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    asyncio.run(transcribe_long(Path(sys.argv[1]), CountingEngine(), Options()))
except ASRError as error:
    print(error.code.value, error.message)
"""


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    path = recording(tmp_path, pcm(numbers(6)))
    command = [sys.executable, "-c", FULL, str(path), str(Path(__file__).parents[1])]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert said.stdout.startswith("storage_full The disk is full"), said.stderr
    assert left_in(tmp_path) == ["recording.wav"]


@pytest.mark.parametrize("stereo", ["split", "mix"])
async def test_channels_are_cut_where_all_of_them_pause(stereo: Stereo, tmp_path: Path) -> None:
    left = numbers(6)
    right = [number if number < 15 else number + 9_000 for number in left]
    pair = np.stack([np.frombuffer(pcm(left), "<i2"), np.frombuffer(pcm(right), "<i2")], axis=1).tobytes()
    path = recording(tmp_path, pair, channels=2)
    inner = CountingEngine(utterance_frames=100, partials=False)
    shelf = Shelf()
    done = await transcribe_long(path, ChannelsEngine(inner), Options(), rules=RULES, saved=shelf, stereo=stereo)
    assert len(shelf.kept) > 2
    said = {channel: [f for f in done.finals if f.channel == channel] for channel in (0, 1)}
    if stereo == "mix":
        assert not said[1]
        assert inner.attempts == len(shelf.kept)
        return
    assert inner.attempts == 2 * len(shelf.kept)
    assert [int(w.text[1:]) for f in said[0] for w in f.words] == left
    assert [int(w.text[1:]) for f in said[1] for w in f.words] == right
    assert sorted(f.utterance for f in done.finals) == list(range(len(done.finals)))
    assert done.duration_ms == len(left)


SEAMS_MS = (720, 900, 1_400, 2_500)
SEAM_RULES = CutRules(min_ms=2_000, target_ms=3_000, max_ms=9_000)


@pytest.mark.slow
async def test_the_words_of_one_pass_at_every_seam(tmp_path: Path) -> None:
    names = [name for name in speech.CLIPS if name not in ("story", "two_sentences")]
    data = b""
    for place, name in enumerate(names):
        data += speech.pcm(name) + speech.silence(SEAMS_MS[place % len(SEAMS_MS)])
    path = recording(tmp_path, data)
    engine = LocalEngine(LocalConfig(workers=2))
    shelf = Shelf()
    try:
        whole = await transcribe_long(path, engine, Options(), parts=1, rules=CutRules())
        cut = await transcribe_long(path, engine, Options(), parts=2, rules=SEAM_RULES, saved=shelf)
    finally:
        await engine.aclose()
    assert len(shelf.kept) == len(names)
    assert [word.text for word in cut.words] == [word.text for word in whole.words]
    assert [(final.text, final.utterance) for final in cut.finals] == [(f.text, f.utterance) for f in whole.finals]
    for mine, theirs in zip(cut.words, whole.words, strict=True):
        assert abs(mine.start_ms - theirs.start_ms) <= 30
        assert abs(mine.end_ms - theirs.end_ms) <= 30
    assert len(cut.words) > 60
