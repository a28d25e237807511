"""The embedded recognizer on real sound, in its real processes."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence

import psutil
import pytest

import speech
from asr.config import LocalConfig
from asr.engine import AudioInput, EndUtterance, agree
from asr.engines.local import LocalEngine
from asr.engines.local_process import WorkerProcess
from asr.engines.local_wire import Tuning
from asr.errors import ASRError, Code
from asr.events import Event, Final, FinalReason, Flushed, Partial, Progress, SpeechEnded, SpeechStarted
from asr.options import Endpointing, Options
from timing import in_time

PLAIN = Options()


@pytest.fixture
async def engine() -> AsyncIterator[LocalEngine]:
    """An engine with one worker."""
    local = LocalEngine(LocalConfig(workers=1))
    yield local
    await local.aclose()


async def hear(engine: LocalEngine, audio: AsyncIterator[AudioInput], options: Options = PLAIN) -> list[Event]:
    return [event async for event in engine.stream(audio, options)]


async def drain(events: AsyncIterator[Event]) -> None:
    async for _ in events:
        pass


def finals(events: Sequence[Event]) -> list[Final]:
    return [event for event in events if isinstance(event, Final)]


def text(events: Sequence[Event]) -> str:
    return " ".join(final.text for final in finals(events))


def children() -> list[psutil.Process]:
    """Our recognizer processes."""
    mine = psutil.Process().children(recursive=True)
    return [child for child in mine if "asr.engines.local_worker" in " ".join(child.cmdline())]


def check_order(events: Sequence[Event], total_ms: int) -> None:
    """What holds for every stream that ended well."""
    clock, floor, utterance = 0, 0, 0
    for event in events:
        match event:
            case Progress():
                assert 0 <= event.processed_ms - clock <= 210
                clock = event.processed_ms
            case Final():
                assert event.utterance == utterance
                assert floor <= event.start_ms <= event.end_ms <= total_ms
                edges = [edge for word in event.words for edge in (word.start_ms, word.end_ms)]
                assert edges == sorted(edges)
                assert event.words[0].start_ms == event.start_ms
                assert " ".join(word.text for word in event.words) == event.text
                assert all(word.confidence is not None and 0 <= word.confidence <= 1 for word in event.words)
                assert event.confidence is not None
                assert 0 <= event.confidence <= 1
                floor, utterance = event.end_ms, utterance + 1
            case Partial():
                assert event.utterance == utterance
                assert event.text
            case _:
                pass
    assert clock == total_ms


@pytest.mark.parametrize("name", speech.CLIPS)
async def test_each_clip_is_understood_as_well_as_we_say(engine, name):
    clip = speech.clip(name)
    events = await hear(engine, speech.chunks(clip.pcm))
    check_order(events, clip.duration_ms)
    assert speech.wer(clip.text, text(events)) <= clip.max_wer
    first_partial = next(i for i, event in enumerate(events) if isinstance(event, Partial))
    heard_by_then = max((e.processed_ms for e in events[:first_partial] if isinstance(e, Progress)), default=0)
    assert heard_by_then < clip.duration_ms / 2
    assert finals(events)[-1].reason is FinalReason.STOP


@pytest.mark.parametrize("name", ["silence", "noise"])
async def test_nothing_is_heard_where_nobody_speaks(engine, name):
    audio = speech.pcm(name)
    events = await hear(engine, speech.chunks(audio))
    assert {type(event) for event in events} == {Progress}
    assert events[-1] == Progress(len(audio) // 32)


async def test_the_same_audio_gives_the_same_events_however_it_is_chunked(engine):
    audio = speech.pcm("two_sentences")
    events = [await hear(engine, speech.chunks(audio, size)) for size in (640, 3200, 1777, len(audio))]
    assert events[0] == events[1] == events[2] == events[3]
    kinds = [type(e) for e in events[0] if isinstance(e, Final | SpeechStarted | SpeechEnded)]
    assert kinds == [SpeechStarted, SpeechEnded, Final] * 2
    assert [final.reason for final in finals(events[0])] == [FinalReason.ENDPOINT, FinalReason.STOP]


@pytest.mark.parametrize(("before", "pause_ms"), [("names", 1000), ("brother", 1013), ("digits", 1487)])
async def test_words_do_not_depend_on_what_was_said_before(engine, before, pause_ms):
    one = speech.pcm("doctor") + speech.silence(900)
    [alone] = finals(await hear(engine, speech.chunks(one)))
    [_, after] = finals(await hear(engine, speech.chunks(speech.pcm(before) + speech.silence(pause_ms) + one)))
    assert after.text == alone.text
    shift = after.words[0].start_ms - alone.words[0].start_ms
    assert [w.start_ms - shift for w in after.words] == pytest.approx([w.start_ms for w in alone.words], abs=1)


async def test_a_cut_answers_at_once_and_always(engine):
    half = len(speech.pcm("brother")) // 3 | 1
    audio = speech.pcm("brother")
    events = await hear(
        engine, speech.script(EndUtterance(), audio[:half], EndUtterance(), EndUtterance(), audio[half:])
    )
    flushed = [event.audio_ms for event in events if isinstance(event, Flushed)]
    assert flushed == [0, half // 32, half // 32]
    first, second = finals(events)
    assert (first.reason, second.reason) == (FinalReason.FINALIZE, FinalReason.STOP)
    assert events.index(first) < events.index(Flushed(half // 32))
    assert second.start_ms >= first.end_ms
    assert [e for e in events if isinstance(e, Progress)][-1] == Progress(len(audio) // 32)


async def test_a_long_utterance_is_cut_and_goes_on():
    engine = LocalEngine(LocalConfig(workers=1, max_utterance_ms=3000))
    try:
        clip = speech.clip("meeting")
        events = await hear(engine, speech.chunks(clip.pcm))
        assert [f.reason for f in finals(events)] == [FinalReason.MAX_LENGTH, FinalReason.STOP]
        assert speech.wer(clip.text, text(events)) <= 0.35
    finally:
        await engine.aclose()


async def test_options_are_honoured(engine):
    agreed = agree(
        Options(language="en", partials=False, words=False, endpointing=Endpointing(silence_ms=3000)),
        await engine.models(),
        engine.features,
    )
    assert agreed.warnings == ()
    events = await hear(engine, speech.chunks(speech.pcm("two_sentences")), agreed.options)
    [only] = finals(events)
    assert only.words == ()
    assert not [event for event in events if isinstance(event, Partial)]
    manual = Options(endpointing=Endpointing(manual=True))
    events = await hear(engine, speech.chunks(speech.pcm("two_sentences")), manual)
    assert len(finals(events)) == 1


@pytest.mark.alone
async def test_the_loop_is_not_blocked_and_both_workers_work():
    engine = LocalEngine(LocalConfig(workers=2))
    try:
        lags: list[float] = []

        async def tick() -> None:
            while True:
                before = time.perf_counter()
                await asyncio.sleep(0.005)
                lags.append(time.perf_counter() - before - 0.005)

        ticker = asyncio.create_task(tick())
        mine = time.process_time()
        audio = speech.pcm("groceries")
        both = await asyncio.gather(*(hear(engine, speech.chunks(audio)) for _ in range(2)))
        mine = time.process_time() - mine
        ticker.cancel()
        assert both[0] == both[1]
        workers = [sum(child.cpu_times()[:2]) for child in children()]
        assert len(workers) == 2
        assert min(workers) > 0.3 * max(workers) > 0
        # On a busy machine the system may take the core away; what counts is that decoding is not ours.
        in_time(sorted(lags)[int(len(lags) * 0.95)], 0.05)
        assert mine < 0.3 * sum(workers)
    finally:
        await engine.aclose()


async def test_a_killed_worker_fails_its_stream_and_the_next_one_works(engine):
    async def endless() -> AsyncIterator[AudioInput]:
        yield speech.pcm("greeting")
        await asyncio.Event().wait()

    events = engine.stream(endless(), PLAIN)
    async for event in events:
        if isinstance(event, Partial):
            break
    [child] = children()
    child.send_signal(signal.SIGKILL)
    with pytest.raises(ASRError) as failure:
        await asyncio.wait_for(drain(events), 2)
    assert failure.value.code is Code.UNAVAILABLE
    assert failure.value.retryable
    assert text(await hear(engine, speech.chunks(speech.pcm("greeting"))))


async def test_too_many_streams_are_refused_and_abandoned_ones_make_room():
    engine = LocalEngine(LocalConfig(workers=1, max_streams=1))
    try:
        first = engine.stream(speech.chunks(speech.pcm("greeting")), PLAIN)
        await anext(first)
        second = engine.stream(speech.chunks(speech.pcm("greeting")), PLAIN)
        with pytest.raises(ASRError) as refused:
            await anext(second)
        assert refused.value.code is Code.OVERLOADED
        await first.aclose()
        assert text(await hear(engine, speech.chunks(speech.pcm("greeting"))))
    finally:
        await engine.aclose()


async def test_an_abandoned_stream_frees_its_worker():
    engine = LocalEngine(LocalConfig(workers=2))
    try:
        for _ in range(2):
            events = engine.stream(speech.chunks(speech.pcm("greeting")), PLAIN)
            await anext(events)
            await events.aclose()
        assert len(children()) == 1
    finally:
        await engine.aclose()


async def test_audio_is_pulled_no_faster_than_results_are_read(engine):
    pulled_ms = 0

    async def greedy() -> AsyncIterator[AudioInput]:
        nonlocal pulled_ms
        for _ in range(300):
            pulled_ms += 100
            yield speech.silence(100)

    events = engine.stream(greedy(), PLAIN)
    async for event in events:
        assert isinstance(event, Progress)
        assert pulled_ms - event.processed_ms <= 1400
    assert pulled_ms == 30_000


async def test_what_the_audio_raises_is_what_the_caller_sees(engine):
    async def broken() -> AsyncIterator[AudioInput]:
        yield speech.silence(100)
        raise ASRError(Code.BAD_AUDIO, "torn")

    with pytest.raises(ASRError, match="torn"):
        await hear(engine, broken())


async def test_audio_that_is_cancelled_from_inside_is_a_failure(engine):
    async def cancelled() -> AsyncIterator[AudioInput]:
        task = asyncio.create_task(asyncio.Event().wait())
        yield speech.silence(100)
        task.cancel()
        await task

    with pytest.raises(ASRError, match="cancelled in mid-stream") as failure:
        await asyncio.wait_for(hear(engine, cancelled()), 10)
    assert failure.value.code is Code.INTERNAL


async def test_what_was_heard_before_a_failure_is_handed_out_and_no_more_audio_is_taken():
    worker = await WorkerProcess.start()
    lane = worker.open(Tuning.of(LocalConfig(), PLAIN))
    final = Final(utterance=0, revision=1, text="heard", start_ms=0, end_ms=10)
    lane.hear([final])
    assert await lane.room(100)
    await worker.aclose()
    assert not await lane.room(200)
    assert await lane.next() == final
    with pytest.raises(ASRError, match="ended unexpectedly"):
        await lane.next()


async def test_closing_leaves_no_process_and_breaks_open_streams():
    engine = LocalEngine(LocalConfig(workers=1))
    assert (await engine.ready()).ready
    events = engine.stream(speech.chunks(speech.pcm("story")), PLAIN)
    await anext(events)
    [child] = children()
    await engine.aclose()
    assert children() == []
    assert not psutil.pid_exists(child.pid)
    with pytest.raises(ASRError) as failure:
        await drain(events)
    assert failure.value.code is Code.UNAVAILABLE
    assert not (await engine.ready()).ready


async def test_a_worker_ends_when_its_parent_is_gone():
    ours, theirs = os.pipe()
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "asr.engines.local_worker", stdin=ours, stdout=asyncio.subprocess.PIPE
    )
    os.close(ours)
    assert worker.stdout is not None
    await worker.stdout.readexactly(9)
    worker.send_signal(signal.SIGINT)
    os.close(theirs)
    async with asyncio.timeout(5):
        assert await worker.wait() == 0
