"""Streams that lose their recognizer, without a network: nothing lost, nothing twice, on one clock."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace

import pytest

from asr.channels import ChannelsEngine
from asr.config import ResilienceConfig
from asr.engine import BYTES_PER_MS, AudioInput, EndUtterance, Engine, Model, counts_of, endpoints_of
from asr.errors import ASRError, Code
from asr.events import Event, Final, FinalReason, Flushed, Gap, GapCause, Partial, Progress, State, Status
from asr.options import Options
from asr.pipe import Ahead, AudioPipe
from asr.resilience.pool import Health
from asr.resilience.resilient import ResilientEngine
from asr.resilience.retry import RetryBudget
from asr.resilience.tape import ReplayMemory, Tape
from counting import FRAME_BYTES, CountingEngine, Fault, check_whole, cut_anywhere, frames, lost

QUICK = ResilienceConfig(
    failover_timeout_ms=400, start_timeout_ms=60, retry_base_ms=1, retry_cap_ms=2, breaker_open_ms=20
)
OPTIONS = Options(model="numbers", language="en-US")
SEED = int(os.environ.get("CHAOS_SEED", "20"))
KILLS = int(os.environ.get("CHAOS_KILLS", "1000"))


def piped(items: Sequence[AudioInput], *, end: bool = True) -> AudioPipe:
    pipe = AudioPipe(Ahead(10**9))
    for item in items:
        pipe.put(item)
    if end:
        pipe.end()
    return pipe


async def listen(
    engine: Engine, audio: AudioPipe | AsyncIterator[AudioInput], seen: list[Event] | None = None
) -> list[Event]:
    seen = [] if seen is None else seen
    async with aclosing(engine.stream(audio, OPTIONS)) as events:
        async for event in events:
            seen.append(event)
    return seen


def states(events: Sequence[Event]) -> list[State]:
    return [event.state for event in events if isinstance(event, Status)]


async def test_without_a_fault_it_only_passes_on() -> None:
    inner = CountingEngine()
    engine = ResilientEngine([inner], QUICK)
    events = await listen(engine, piped([frames(12)]))
    plain = [event async for event in CountingEngine().stream(piped([frames(12)]), OPTIONS)]
    assert events == plain
    assert (inner.attempts, engine.memory.used_bytes) == (1, 0)
    assert (engine.figures.streams, engine.figures.attempts, engine.figures.replayed_ms) == (1, 1, 0)
    await engine.aclose()
    assert inner.closed


@pytest.mark.parametrize("after", range(13))
async def test_a_recognizer_that_dies_at_any_frame(after: int) -> None:
    inner = CountingEngine([Fault(after, lost())])
    engine = ResilientEngine([inner], QUICK)
    events = await listen(engine, piped([frames(12)]))
    check_whole(events, 12)
    assert inner.attempts == 2
    told = states(events)
    assert told == ([State.FAILING_OVER, State.RECOVERED] if after else [])
    assert engine.figures.failovers == (1 if after else 0)
    await engine.aclose()


async def test_another_endpoint_takes_over_at_once() -> None:
    first, second = CountingEngine([Fault(7, lost())] * 9), CountingEngine()
    engine = ResilientEngine([first, second], QUICK)
    events = await listen(engine, piped([frames(1, n) for n in range(20)]))
    check_whole(events, 20)
    assert (first.attempts, second.attempts) == (1, 1)
    assert second.heard[0] == list(range(5, 20))
    assert engine.figures.replayed_ms == 2
    (recovered,) = [event for event in events if isinstance(event, Status) and event.state is State.RECOVERED]
    assert recovered.replayed_ms == 2, "whoever listens is told, too"
    await engine.aclose()


async def test_wrappers_tell_what_each_endpoint_and_the_engine_have_been_through() -> None:
    first, second = CountingEngine([Fault(7, lost())] * 9), CountingEngine()
    engine = ChannelsEngine(ResilientEngine([first, second], QUICK))
    await listen(engine, piped([frames(1, n) for n in range(20)]))
    told = {one["name"]: (one["attempts"], one["errors"]) for one in endpoints_of(engine)}
    assert told == {"1": (1, {"unavailable": 1}), "2": (1, {})}
    counts = counts_of(engine)
    assert (counts["streams"], counts["attempts"], counts["retries"], counts["failovers"]) == (1, 2, 1, 1)
    assert counts_of(CountingEngine()) == {}
    await engine.aclose()


async def test_partials_never_go_back_and_revisions_only_grow() -> None:
    engine = ResilientEngine([CountingEngine([Fault(4, lost())]), CountingEngine()], QUICK)
    events = await listen(engine, piped([frames(5)]))
    told = [(p.revision, len(p.text.split())) for p in events if isinstance(p, Partial)]
    assert told == sorted(told)
    assert [event.processed_ms for event in events if isinstance(event, Progress)] == [1, 2, 3, 4, 5]
    await engine.aclose()


@pytest.mark.parametrize("partials", [True, False])
async def test_random_faults_and_chunks_leave_nothing_uncovered(partials: bool) -> None:
    """The property that the product promises; `CHAOS_KILLS` and `CHAOS_SEED` set the size and the dice."""
    kills = run = 0
    while kills < KILLS // 2:
        seed = SEED * 100_000 + run
        dice = random.Random(seed)
        count = dice.randrange(1, 120)
        chunks = cut_anywhere(frames(count), dice)
        members = []
        for _ in range(dice.choice((1, 2, 3))):
            faults = [Fault(dice.randrange(0, 25), lost()) for _ in range(dice.randrange(0, 8))]
            members.append(
                CountingEngine(
                    faults,
                    utterance_frames=lambda dice=dice: dice.randrange(1, 30),  # type: ignore[misc]
                    partials=partials,
                    progress=dice.random() < 0.8,
                )
            )
        config = ResilienceConfig(
            failover_timeout_ms=2_000,
            start_timeout_ms=2_000,
            retry_base_ms=0,
            retry_cap_ms=1,
            breaker_open_ms=1,
            breaker_failures=1_000,
            replay_max_ms=dice.choice((60_000, 10, 4)),
        )
        engine = ResilientEngine(members, config, chance=dice.random)
        engine.budget = RetryBudget(100, floor=1_000)
        events = await listen(engine, piped(chunks))
        try:
            check_whole(events, count)
            assert all(member.open == 0 for member in members)
            assert engine.memory.used_bytes == 0
        except AssertionError as error:
            raise AssertionError(f"seed {seed}") from error
        kills += sum(min(member.attempts, len(member.faults)) for member in members)
        run += 1
        await engine.aclose()


async def test_a_memory_that_is_too_small_gives_an_explicit_gap() -> None:
    config = ResilienceConfig(replay_max_ms=4, retry_base_ms=1, retry_cap_ms=2)
    inner = CountingEngine([Fault(10, lost())], utterance_frames=100, partials=False)
    engine = ResilientEngine([inner], config)
    events = await listen(engine, piped([frames(1, n) for n in range(12)]))
    assert [event for event in events if isinstance(event, Gap)] == [Gap(0, 6, GapCause.BUFFER_OVERRUN)]
    check_whole(events, 12)
    assert engine.figures.gaps_ms == 6
    await engine.aclose()


async def test_when_no_recognizer_comes_back_the_guess_is_kept_and_the_rest_is_a_gap() -> None:
    inner = CountingEngine([Fault(7, lost("First."))] + [Fault(0, lost("Later."))] * 500)
    engine = ResilientEngine([inner], QUICK)
    seen: list[Event] = []
    pipe = piped([frames(1, n) for n in range(9)])
    with pytest.raises(ASRError) as caught:
        await listen(engine, pipe, seen)
    assert caught.value.code is Code.UNAVAILABLE
    assert caught.value.earlier[0].message == "First."
    finals = [event for event in seen if isinstance(event, Final)]
    assert [final.reason for final in finals] == [FinalReason.ENDPOINT, FinalReason.FAILOVER]
    check_whole(seen, 7)
    assert engine.figures.given_up == 1
    await engine.aclose()


async def test_the_callers_own_fault_is_not_tried_again() -> None:
    inner = CountingEngine([Fault(3, ASRError(Code.BAD_AUDIO, "Not mono."))])
    engine = ResilientEngine([inner], QUICK)
    with pytest.raises(ASRError, match="Not mono"):
        await listen(engine, piped([frames(9)]))
    assert inner.attempts == 1
    assert engine.pool.endpoints[0].breaker.state == "closed"
    await engine.aclose()


async def test_what_the_callers_audio_raises_comes_through() -> None:
    async def microphone() -> AsyncIterator[AudioInput]:
        yield frames(3)
        raise ValueError("unplugged")

    inner = CountingEngine()
    engine = ResilientEngine([inner], QUICK)
    with pytest.raises(ValueError, match="unplugged"):
        await listen(engine, microphone())
    assert inner.attempts == 1
    await engine.aclose()


async def test_a_generator_of_audio_survives_the_loss_of_its_reader() -> None:
    async def microphone() -> AsyncIterator[AudioInput]:
        for n in range(40):
            await asyncio.sleep(0.0005)
            yield frames(1, n)

    engine = ResilientEngine([CountingEngine([Fault(n, lost()) for n in (3, 9, 1, 14)])], QUICK)
    check_whole(await listen(engine, microphone()), 40)
    await engine.aclose()


async def test_an_end_of_utterance_is_answered_once_whatever_fails() -> None:
    items: list[AudioInput] = []
    for n in range(10):
        items += [frames(2, 2 * n), EndUtterance()]
    for after in range(21):
        inner = CountingEngine([Fault(after, lost()), Fault(after // 2, lost())], utterance_frames=3)
        engine = ResilientEngine([inner], QUICK)
        events = await listen(engine, piped(items))
        check_whole(events, 20)
        assert sum(isinstance(event, Flushed) for event in events) == 10, after
        await engine.aclose()


async def test_a_start_that_cannot_succeed_is_refused_at_once() -> None:
    inner = CountingEngine([Fault(0, lost())] * 10_000)
    engine = ResilientEngine([inner], ResilienceConfig())
    loop = asyncio.get_running_loop()
    slow = 0.0
    for _ in range(200):
        began = loop.time()
        with pytest.raises(ASRError) as caught:
            await listen(engine, piped([frames(1)]))
        slow = max(slow, loop.time() - began)
        assert caught.value.code is Code.UNAVAILABLE
    assert slow < 1.2
    assert inner.attempts <= 200 * 1.1, "an outage is not multiplied"
    refused = engine.refusal()
    assert refused is not None
    assert refused.retry_after_ms
    await engine.aclose()


async def test_an_endpoint_without_models_is_starting_and_not_used() -> None:
    models: list[Model] = []
    inner = CountingEngine(list_models=lambda: models)
    engine = ResilientEngine([inner], ResilienceConfig())
    assert list(await engine.models()) == []
    state = await engine.ready()
    assert not state.ready
    assert "starting" in state.detail
    with pytest.raises(ASRError) as caught:
        await listen(engine, piped([frames(1)]))
    assert caught.value.code is Code.UNAVAILABLE
    assert inner.attempts == 0
    models.append(Model("numbers", ("en-US",)))
    engine.pool.look_now()
    await engine.pool.change(3)
    assert (await engine.ready()).ready
    check_whole(await listen(engine, piped([frames(3)])), 3)
    await engine.aclose()


@pytest.mark.parametrize("was_up", [False, True])
async def test_only_an_endpoint_that_comes_back_takes_its_streams_one_by_one(was_up: bool) -> None:
    models = [Model("numbers", ("en-US",))]
    served = list(models) if was_up else []
    engine = ResilientEngine([CountingEngine(list_models=lambda: served)], ResilienceConfig())
    (endpoint,) = engine.pool.endpoints

    async def seen(health: Health) -> None:
        async with asyncio.timeout(5):
            while endpoint.health is not health:
                engine.pool.look_now()
                await asyncio.sleep(0.01)

    await engine.models()
    if was_up:
        await seen(Health.UP)
        served.clear()
    await seen(Health.LOADING)
    served += models
    await seen(Health.UP)
    leases = []
    with suppress(ASRError):
        for _ in range(20):
            leases.append(engine.pool.lease("numbers"))
    assert len(leases) == (1 if was_up else 20)
    assert endpoint.recoveries == 1
    for lease in leases:
        lease.release()
    await engine.aclose()


async def test_streams_that_wait_for_an_endpoint_s_first_time_come_one_by_one() -> None:
    models: list[Model] = []
    engine = ResilientEngine([CountingEngine(list_models=lambda: models)], ResilienceConfig())
    assert list(await engine.models()) == []
    waiting = asyncio.create_task(engine.pool.change(5))
    await asyncio.sleep(0)
    models.append(Model("numbers", ("en-US",)))
    engine.pool.look_now()
    await waiting
    engine.pool.lease("numbers").release()
    with pytest.raises(ASRError) as caught:
        engine.pool.lease("numbers")
    assert caught.value.code is Code.OVERLOADED
    await engine.aclose()


async def test_streams_go_to_the_endpoint_that_has_the_fewest() -> None:
    members = [CountingEngine(), CountingEngine(), CountingEngine()]
    engine = ResilientEngine(members, QUICK)
    pipes = [piped([frames(1)], end=False) for _ in range(9)]
    tasks = [asyncio.create_task(listen(engine, pipe)) for pipe in pipes]
    while sum(member.open for member in members) < 9:
        await asyncio.sleep(0.001)
    assert [member.open for member in members] == [3, 3, 3]
    for pipe in pipes:
        pipe.end()
    await asyncio.gather(*tasks)
    await engine.aclose()


async def test_a_full_endpoint_refuses_as_overloaded() -> None:
    engine = ResilientEngine([CountingEngine()], ResilienceConfig(max_streams=2))
    pipes = [piped([frames(1)], end=False) for _ in range(2)]
    tasks = [asyncio.create_task(listen(engine, pipe)) for pipe in pipes]
    await asyncio.sleep(0.01)
    refused = engine.refusal()
    assert refused is not None
    assert refused.code is Code.OVERLOADED
    with pytest.raises(ASRError) as caught:
        await listen(engine, piped([frames(1)]))
    assert caught.value.code is Code.OVERLOADED
    for pipe in pipes:
        pipe.end()
    await asyncio.gather(*tasks)
    assert engine.refusal() is None
    await engine.aclose()


async def test_an_old_stream_is_renewed_at_a_pause() -> None:
    inner = CountingEngine()
    engine = ResilientEngine([inner], ResilienceConfig(max_stream_ms=1))
    pipe = piped([], end=False)

    async def speak() -> None:
        for n in range(40):
            await asyncio.sleep(0.001)
            pipe.put(frames(1, n))
        pipe.end()

    speaker = asyncio.create_task(speak())
    events = await listen(engine, pipe)
    await speaker
    check_whole(events, 40)
    assert states(events) == []
    assert engine.figures.rotations == inner.attempts - 1 > 0
    assert engine.figures.retries == 0
    await engine.aclose()


async def test_a_caller_who_leaves_leaves_nothing_behind() -> None:
    inner = CountingEngine()
    engine = ResilientEngine([inner], QUICK)
    before = asyncio.all_tasks()
    stream = engine.stream(piped([frames(5)], end=False), OPTIONS)
    await anext(stream)
    await stream.aclose()
    assert (inner.open, engine.memory.used_bytes, engine.pool.endpoints[0].streams) == (0, 0, 0)
    await engine.aclose()
    assert asyncio.all_tasks() == before


async def test_a_long_silence_does_not_fill_the_memory() -> None:
    class Quiet(CountingEngine):
        async def _speak(self, audio, fault, heard):  # type: ignore[no-untyped-def]
            done = 0
            async for item in audio:
                done += len(item)
                yield Progress(done // 32)

    engine = ResilientEngine([Quiet()], QUICK)
    kept = 0
    async with aclosing(engine.stream(piped([bytes(10 * FRAME_BYTES)] * 3_000), OPTIONS)) as events:
        async for _ in events:
            kept = max(kept, engine.memory.used_bytes)
    assert kept < 5_000 * 32
    await engine.aclose()


async def test_words_that_kill_every_recognizer_are_not_tried_without_end() -> None:
    inner = CountingEngine([Fault(7, lost())] * 10_000, utterance_frames=100)
    config = ResilienceConfig(failover_timeout_ms=400, retry_base_ms=20, retry_cap_ms=100)
    engine = ResilientEngine([inner, inner], config)
    seen: list[Event] = []
    with pytest.raises(ASRError):
        await listen(engine, piped([frames(1, n) for n in range(9)]), seen)
    assert inner.attempts < 60
    assert len(states(seen)) < 60
    check_whole(seen, 7)
    await engine.aclose()


async def test_a_defect_of_an_engine_is_survived_too() -> None:
    class Defective(CountingEngine):
        async def _fail(self, fault: Fault) -> None:
            raise ValueError("a bug")

    engine = ResilientEngine([Defective([Fault(4, lost())]), CountingEngine()], QUICK)
    check_whole(await listen(engine, piped([frames(1, n) for n in range(9)])), 9)
    assert engine.pool.endpoints[0].streams == 0
    await engine.aclose()


async def test_a_failure_is_not_its_own_cause() -> None:
    fault = ASRError(Code.BAD_AUDIO, "Not mono.")
    engine = ResilientEngine([CountingEngine([Fault(3, fault)])], QUICK)
    with pytest.raises(ASRError) as caught:
        await listen(engine, piped([frames(9)]))
    assert caught.value is fault
    assert fault.__cause__ is None
    await engine.aclose()


async def test_a_caller_who_leaves_between_two_attempts_gives_its_place_back() -> None:
    config = ResilienceConfig(replay_max_ms=4, retry_base_ms=1, retry_cap_ms=2)
    inner = CountingEngine([Fault(10, lost())], utterance_frames=100, partials=False)
    engine = ResilientEngine([inner], config)
    async with aclosing(engine.stream(piped([frames(1, n) for n in range(12)]), OPTIONS)) as events:
        async for event in events:
            if isinstance(event, Gap):
                break
    assert engine.pool.endpoints[0].streams == 0
    await engine.aclose()


async def test_partials_that_nobody_wants_are_kept_back() -> None:
    engine = ResilientEngine([CountingEngine()], QUICK)
    options = Options(model="numbers", language="en-US", partials=False)
    events = [event async for event in engine.stream(piped([frames(12)]), options)]
    assert not any(isinstance(event, Partial) for event in events)
    check_whole(events, 12)
    await engine.aclose()


async def test_many_streams_that_die_together_are_one_failure_and_all_go_on() -> None:
    first = CountingEngine([Fault(7, lost())] * 40)
    engine = ResilientEngine([first], QUICK)
    done = await asyncio.gather(*(listen(engine, piped([frames(1, n) for n in range(20)])) for _ in range(40)))
    for events in done:
        check_whole(events, 20)
    assert engine.pool.endpoints[0].breaker.state == "closed"
    await engine.aclose()


async def test_the_last_endpoint_is_asked_although_it_was_sent_away() -> None:
    first, second = CountingEngine(), CountingEngine()
    engine = ResilientEngine([first, second], QUICK)
    await engine.models()
    engine.pool.endpoints[0].ejected_until = engine.clock() + 99
    engine.pool.endpoints[1].health = Health.DOWN
    assert engine.refusal() is None
    check_whole(await listen(engine, piped([frames(5)])), 5)
    await engine.aclose()


async def test_a_push_back_is_heeded() -> None:
    full = ASRError(Code.OVERLOADED, "Full.", retry_after_ms=150)
    inner = CountingEngine([Fault(3, lost()), Fault(0, full)])
    engine = ResilientEngine([inner], QUICK)
    began = engine.clock()
    check_whole(await listen(engine, piped([frames(1, n) for n in range(9)])), 9)
    assert engine.clock() - began >= 0.15
    await engine.aclose()


async def test_the_common_memory_takes_from_those_who_have_the_most() -> None:
    memory = ReplayMemory(100)
    big, small = Tape(10**6, memory), Tape(10**6, memory)
    for _ in range(9):
        big.put(bytes(10))
    for _ in range(4):
        small.put(bytes(10))
    assert (big.kept_bytes, small.kept_bytes) == (90, 40)
    big.put(bytes(10))
    assert big.kept_bytes <= 60
    assert small.kept_bytes == 40


class _Lagging(CountingEngine):
    """Takes two seconds of audio before it says anything, and goes at the pace of speech from then on."""

    def __init__(self, clock: list[float]) -> None:
        super().__init__()
        self.clock = clock

    async def stream(self, audio: AsyncIterable[AudioInput], options: Options) -> AsyncGenerator[Event]:
        heard_ms = 0
        async for item in audio:
            assert isinstance(item, bytes)
            heard_ms += len(item) // BYTES_PER_MS
            self.clock[0] += len(item) / BYTES_PER_MS / 1000
            if heard_ms > 2_000:
                yield Progress(heard_ms - 2_000)


async def limit_found(options: Options) -> object:
    clock = [0.0]
    engine = ResilientEngine([_Lagging(clock)], QUICK, clock=lambda: clock[0])
    async with aclosing(engine.stream(piped([bytes(100 * BYTES_PER_MS)] * 100), options)) as events:
        async for _ in events:
            pass
    (endpoint,) = engine.endpoints()
    await engine.aclose()
    return endpoint["limit"]


async def test_results_that_lag_behind_a_speaker_lower_the_limit() -> None:
    assert await limit_found(OPTIONS) == 1


async def test_results_that_lag_behind_a_recording_say_nothing() -> None:
    assert await limit_found(replace(OPTIONS, recording=True)) is None


async def test_the_first_second_of_a_file_is_not_taken_for_speech() -> None:
    clock = [1_000.0]
    engine = ResilientEngine([_Lagging([0.0])], QUICK, clock=lambda: clock[0])
    async with aclosing(engine.stream(piped([bytes(100 * BYTES_PER_MS)] * 100), OPTIONS)) as events:
        async for _ in events:
            clock[0] += 0.012  # pushed in at eight times its pace
    clock[0] += 2.0  # the window is over
    (endpoint,) = engine.endpoints()
    await engine.aclose()
    assert endpoint["limit"] is None
