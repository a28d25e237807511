"""One call to a Riva that stalls, is slow, never ends an utterance, or answers with nonsense: over real sockets."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import grpc
import grpc.aio
import pytest

from asr.config import RivaConfig
from asr.engine import AudioInput, EndUtterance
from asr.engines.riva import RivaEngine
from asr.engines.riva_call import IDLE_SILENCE_MS, RivaCall
from asr.errors import ASRError, Code
from asr.events import Event, Final, FinalReason, Flushed, Partial, Progress, State, Status
from asr.mock.plan import load_plan
from asr.mock.riva_server import MockRivaServer
from asr.options import Options
from asr.riva_proto import asr as pb
from timing import in_time

LIMIT_S = 15.0
SERVICE = "nvidia.riva.asr.RivaSpeechRecognition"
LOUD = random.Random(3).randbytes(32_000)
QUIET = bytes(32_000)
EOF: Any = grpc.aio.EOF  # type: ignore[attr-defined]  # the stubs lack it

Behaviour = Callable[[Any], Awaitable[None]]


@asynccontextmanager
async def serving(behave: Behaviour, **options: int) -> AsyncIterator[int]:
    """A server whose `StreamingRecognize` is `behave(context)`; what it writes goes out as the bytes it is."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0), *((f"grpc.{k}", v) for k, v in options.items())])

    async def handle(_requests: Any, context: Any) -> None:
        await behave(context)

    handler = grpc.stream_stream_rpc_method_handler(
        handle, request_deserializer=pb.StreamingRecognizeRequest.FromString
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"StreamingRecognize": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(0)


@asynccontextmanager
async def calling(port: int) -> AsyncIterator[Callable[..., RivaCall]]:
    """Makes calls whose responses stay bytes."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        method: Any = channel.stream_stream(f"/{SERVICE}/StreamingRecognize")

        def call(audio: AsyncIterator[AudioInput], options: Options | None = None, **config: Any) -> RivaCall:
            return RivaCall(method, audio, options or Options(), RivaConfig(**config), force_eou=True)

        yield call


def response(text: str = "", at_ms: int = 0, *, final: bool = False, words: Any = ()) -> bytes:
    message = pb.StreamingRecognizeResponse()
    result = message.results.add(is_final=final, audio_processed=at_ms / 1000, channel_tag=1)
    alternative = result.alternatives.add(transcript=text)
    for word, start_ms, end_ms in words:
        alternative.words.add(word=word, start_time=start_ms, end_time=end_ms)
    return bytes(message.SerializeToString())


async def talk(sound: bytes, ms: int, step_ms: int = 20) -> AsyncIterator[AudioInput]:
    """Audio at the pace at which it is spoken."""
    begun = time.monotonic()
    for at in range(0, ms, step_ms):
        offset = at * 32 % (len(sound) - step_ms * 32 + 1) & ~1
        yield sound[offset : offset + step_ms * 32]
        await asyncio.sleep(max(0.0, begun + (at + step_ms) / 1000 - time.monotonic()))


async def joined(*parts: AsyncIterator[AudioInput]) -> AsyncIterator[AudioInput]:
    for part in parts:
        async for item in part:
            yield item


async def idle(seconds: float) -> AsyncIterator[AudioInput]:
    await asyncio.sleep(seconds)
    return
    yield


async def collect(call: RivaCall, into: list[Event] | None = None) -> list[Event]:
    seen = [] if into is None else into
    async with asyncio.timeout(LIMIT_S):
        async for event in call.events():
            seen.append(event)
    return seen


async def swallow(context: Any) -> int:
    """Read to the end, and say nothing. Returns the bytes of audio."""
    heard = 0
    while (request := await context.read()) is not EOF:
        heard += len(request.audio_content)
    return heard


def statuses(events: list[Event]) -> list[Status]:
    return [event for event in events if isinstance(event, Status)]


# --- silence of the server


async def answers_then_swallows(context: Any) -> None:
    await context.read()
    await context.read()
    await context.write(response("one", 20))
    await swallow(context)


async def test_speech_without_an_answer_is_a_stall() -> None:
    events: list[Event] = []
    async with serving(answers_then_swallows) as port, calling(port) as call:
        begun = time.monotonic()
        with pytest.raises(ASRError) as caught:
            await collect(call(talk(LOUD, 10_000), stall_timeout_ms=1000, degraded_after_ms=400), events)
        took = time.monotonic() - begun
    assert caught.value.code is Code.TIMEOUT
    assert caught.value.retryable
    assert "1 s of speech" in caught.value.message
    assert 0.9 < took < 2.0
    (status,) = statuses(events)
    assert status.state is State.DEGRADED
    assert 300 <= status.audio_ms <= 1000
    assert "slow" in status.detail


async def test_silence_without_an_answer_is_none() -> None:
    async with serving(answers_then_swallows) as port, calling(port) as call:
        events = await collect(call(talk(QUIET, 2500), stall_timeout_ms=500, degraded_after_ms=200))
    assert not statuses(events)


async def test_speech_after_a_long_silence_has_all_of_its_time() -> None:
    # 1.2 s of silence are over the limit of 0.8 s, and so is what follows them: but not the speech alone.
    async with serving(answers_then_swallows) as port, calling(port) as call:
        audio = joined(talk(QUIET, 1200), talk(LOUD, 500))
        assert not statuses(await collect(call(audio, stall_timeout_ms=800, degraded_after_ms=800)))


async def test_a_caller_that_pauses_is_no_stall() -> None:
    async with serving(answers_then_swallows) as port, calling(port) as call:
        audio = joined(talk(LOUD, 300), idle(1.5), talk(QUIET, 100))
        await collect(call(audio, stall_timeout_ms=600, degraded_after_ms=0, idle_silence_ms=0))


async def test_every_silence_is_told_once_and_an_answer_ends_it() -> None:
    async def hesitates(context: Any) -> None:
        await context.read()
        for at_ms in (700, 1400):
            heard = 0
            while heard < 700 * 32 and (request := await context.read()) is not EOF:
                heard += len(request.audio_content)
            await context.write(response(f"at {at_ms}", at_ms))
        await swallow(context)

    async with serving(hesitates) as port, calling(port) as call:
        events = await collect(call(talk(LOUD, 1500), stall_timeout_ms=5000, degraded_after_ms=200))
    kinds = ["status" if isinstance(e, Status) else "partial" for e in events if isinstance(e, Status | Partial)]
    assert kinds == ["status", "partial", "status", "partial"]
    assert "not answered yet" in statuses(events)[0].detail
    assert "slow" in statuses(events)[1].detail


async def test_a_call_that_waits_for_another_to_end_is_told() -> None:
    # Over its limit of streams a server leaves a call waiting without a word.
    async with serving(answers_then_swallows, max_concurrent_streams=1) as port, calling(port) as call:
        first = asyncio.create_task(collect(call(talk(LOUD, 1200))))
        await asyncio.sleep(0.2)
        events: list[Event] = []
        with pytest.raises(ASRError) as caught:
            await collect(call(talk(LOUD, 5000), degraded_after_ms=200, first_response_timeout_ms=600), events)
        await first
    assert caught.value.code is Code.TIMEOUT
    assert [status.state for status in events if isinstance(status, Status)] == [State.DEGRADED]


async def test_what_is_only_written_is_not_taken_for_heard() -> None:
    async with serving(answers_then_swallows) as port, calling(port) as call:
        events = await collect(call(talk(LOUD, 800)))
    assert [e.processed_ms for e in events if isinstance(e, Progress)] == [20]


# --- silence of the caller


async def test_an_idle_call_is_kept_alive_and_times_stay_the_callers() -> None:
    heard: list[int] = []

    async def counts(context: Any) -> None:
        await context.read()
        while (request := await context.read()) is not EOF:
            if not request.audio_content:
                assert dict(request.runtime_config) == {"force_eou": "true"}
                continue
            heard.append(len(request.audio_content))
            await context.write(response(f"heard {len(heard)}", sum(heard) // 32))
        total = sum(heard) // 32
        words = [("a", 0, 199), ("b", total - 100, total)]
        await context.write(response("a b", total, final=True, words=words))

    async def audio() -> AsyncIterator[AudioInput]:
        yield LOUD[:6399]  # ends within a sample
        await asyncio.sleep(0.65)
        yield LOUD[6399:6400]
        yield EndUtterance()
        yield LOUD[:3200]

    async with serving(counts) as port, calling(port) as call:
        events = await collect(call(audio(), idle_silence_ms=200, finalize_timeout_ms=5000))
    assert (heard[0], heard[-2:]) == (6398, [2, 3200])
    assert set(heard[1:-2]) == {IDLE_SILENCE_MS * 32}
    assert 2 <= len(heard[1:-2]) <= 3
    (final,) = [e for e in events if isinstance(e, Final)]
    assert [(w.start_ms, w.end_ms) for w in final.words] == [(0, 199), (200, 300)]
    assert [e.audio_ms for e in events if isinstance(e, Flushed)] == [200]
    progress = [e.processed_ms for e in events if isinstance(e, Progress)]
    assert progress == sorted(set(progress))
    assert progress[-1] == 300


async def test_an_idle_call_outlives_the_servers_patience() -> None:
    impatient = load_plan({"hears": "clock", "utterances": ["one two three"], "server": {"idle_limit_ms": 400}})
    async with MockRivaServer(impatient) as server, grpc.aio.insecure_channel(f"localhost:{server.port}") as channel:
        method: Any = channel.stream_stream(f"/{SERVICE}/StreamingRecognize")

        def call(idle_silence_ms: int) -> RivaCall:
            audio = joined(talk(LOUD, 100), idle(0.8), talk(LOUD, 400))
            return RivaCall(method, audio, Options(), RivaConfig(idle_silence_ms=idle_silence_ms), force_eou=False)

        assert any(isinstance(e, Final) for e in await collect(call(150)))
        with pytest.raises(ASRError, match="without audio"):
            await collect(call(0))


async def test_silence_is_no_collision_when_the_caller_comes_back_during_it() -> None:
    # Nobody reads for a while: the writes of either kind are blocked by flow control.
    async def deaf_for_a_while(context: Any) -> None:
        await context.read()
        await context.write(response("", 1))
        await asyncio.sleep(0.6)
        heard = await swallow(context)
        await context.write(response(str(heard), 1, final=True))

    async def audio() -> AsyncIterator[AudioInput]:
        for _ in range(40):
            yield LOUD[:3200]
            await asyncio.sleep(0.012)
        yield bytes(200_000)

    async with serving(deaf_for_a_while) as port, calling(port) as call:
        events = await collect(call(audio(), idle_silence_ms=4))
    (final,) = [e for e in events if isinstance(e, Final)]
    extra = int(final.text) - 40 * 3200 - 200_000
    assert extra > 0
    assert extra % (IDLE_SILENCE_MS * 32) == 0


class SlowWrites:
    """The side of a gRPC call that takes messages: one at a time, each for a while."""

    def __init__(self) -> None:
        self._cython_call = self
        self._busy = False
        self._ended = asyncio.Event()
        self.sizes: list[int] = []

    async def send_serialized_message(self, data: bytes) -> None:
        assert not self._busy, "two writes at a time"
        self._busy = True
        await asyncio.sleep(0.02)
        self._busy = False
        request = pb.StreamingRecognizeRequest.FromString(data)
        self.sizes.append(len(request.audio_content))

    async def done_writing(self) -> None:
        assert not self._busy, "the end before the last write"
        self._ended.set()

    async def read(self) -> Any:
        await self._ended.wait()
        return EOF

    async def wait_for_connection(self) -> None: ...

    async def initial_metadata(self) -> None: ...

    def done(self) -> bool:
        return False

    def cancel(self) -> None: ...


async def test_there_is_one_write_at_a_time() -> None:
    async def audio() -> AsyncIterator[AudioInput]:
        for pause in range(12):
            yield LOUD[:640]
            # Some of these end in the middle of an inserted silence.
            await asyncio.sleep(0.02 + 0.003 * pause)
        yield EndUtterance()
        await asyncio.sleep(0.015)

    call = SlowWrites()
    await collect(RivaCall(lambda: call, audio(), Options(), RivaConfig(idle_silence_ms=24), force_eou=True))
    assert call.sizes.count(640) == 12
    assert call.sizes.count(IDLE_SILENCE_MS * 32) > 3


async def test_nothing_is_sent_into_a_call_that_has_no_audio_left() -> None:
    after_end: list[int] = []

    async def slow_end(context: Any) -> None:
        await swallow(context)
        await asyncio.sleep(0.5)
        after_end.append(1)

    async with serving(slow_end) as port, calling(port) as call:
        await collect(call(talk(QUIET, 100), idle_silence_ms=50))
    assert after_end


async def test_closing_during_the_silence_leaves_nothing_behind() -> None:
    async with serving(answers_then_swallows) as port, calling(port) as call:
        before = asyncio.all_tasks()
        events = call(joined(talk(LOUD, 40), idle(30)), idle_silence_ms=10).events()
        await anext(events)
        await asyncio.sleep(0.1)
        await events.aclose()
        assert not {task for task in asyncio.all_tasks() - before if "riva_call" in repr(task)}


# --- utterances that the server never ends


async def test_a_server_that_never_ends_an_utterance() -> None:
    plan = load_plan(
        {
            "hears": "clock",
            "loop": False,
            "utterances": [{"words": "one two", "pause_ms": 4000}, {"words": "three four", "pause_ms": 9000}],
            "shape": {"never_final": True, "repeat_partials": True},
        }
    )
    async with MockRivaServer(plan) as server:
        engine = RivaEngine(RivaConfig(endpoint=f"localhost:{server.port}", quiet_final_ms=2000))
        events = [e async for e in engine.stream(talk(LOUD, 0), Options())]
        assert not events

        async def fast() -> AsyncIterator[AudioInput]:
            for _ in range(100):
                yield LOUD[:3200]
                await asyncio.sleep(0)

        async with asyncio.timeout(LIMIT_S):
            events = [e async for e in engine.stream(fast(), Options())]
        await engine.aclose()
    finals = [e for e in events if isinstance(e, Final)]
    assert [(f.text, f.reason) for f in finals] == [
        ("one two", FinalReason.UPSTREAM_SILENT),
        ("three four", FinalReason.UPSTREAM_SILENT),
    ]
    assert [f.utterance for f in finals] == [0, 1]
    assert finals[0].end_ms < 1000
    assert 4500 < finals[1].end_ms < 6000


async def test_a_server_that_speaks_only_when_something_changes() -> None:
    async def terse(context: Any) -> None:
        await context.read()
        await context.read()
        await context.write(response("so it goes"))
        await swallow(context)
        await context.write(response("so it goes on", final=True))

    async with serving(terse) as port, calling(port) as call:
        events = await collect(call(talk(QUIET, 1500), quiet_final_ms=500))
    finals = [(e.text, e.reason) for e in events if isinstance(e, Final)]
    assert finals == [("so it goes", FinalReason.UPSTREAM_SILENT), ("on", FinalReason.STOP)]


async def test_a_stuck_server_is_not_taken_for_a_quiet_one() -> None:
    events: list[Event] = []
    async with serving(answers_then_swallows) as port, calling(port) as call:
        with pytest.raises(ASRError):
            await collect(call(talk(LOUD, 5000), quiet_final_ms=400, stall_timeout_ms=1000), events)
    assert not [e for e in events if isinstance(e, Final)]


# --- nonsense


@pytest.mark.parametrize("as_bytes", [True, False])
async def test_bytes_that_are_no_response_fail_at_once(as_bytes: bool) -> None:
    async def garbage(context: Any) -> None:
        await context.read()
        await context.write(response("fine", 20))
        await context.write(b"\xff\xfe not a message")
        await swallow(context)

    events: list[Event] = []
    async with serving(garbage) as port, grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        read = None if as_bytes else pb.StreamingRecognizeResponse.FromString
        method: Any = channel.stream_stream(f"/{SERVICE}/StreamingRecognize", None, read)
        begun = time.monotonic()
        with pytest.raises(ASRError) as caught:
            await collect(RivaCall(method, talk(LOUD, 5000), Options(), RivaConfig(), force_eou=False), events)
        in_time(time.monotonic() - begun, 1)
    assert (caught.value.code, caught.value.retryable) == (Code.INTERNAL, True)
    assert "not a Riva response" in caught.value.message
    assert [e.text for e in events if isinstance(e, Partial)] == ["fine"]


async def test_a_server_that_breaks_every_rule_of_order() -> None:
    async def disorderly(context: Any) -> None:
        await context.read()
        yes = response("yes ", 600, final=True, words=[("yes", 100, 400)])
        for sent in (
            pb.StreamingRecognizeResponse().SerializeToString(),
            response("yes", 400),
            yes,
            yes,
            response("yes", 300),
            response("no ", 500, final=True, words=[("no", -40, 9_999_999)]),
            response("last", -1000, final=True),
        ):
            await context.write(sent)
        await swallow(context)

    async with serving(disorderly) as port, calling(port) as call:
        events = await collect(call(talk(LOUD, 800, 400)))
    finals = [e for e in events if isinstance(e, Final)]
    assert [(f.utterance, f.text) for f in finals] == [(0, "yes"), (1, "no"), (2, "last")]
    assert [f.start_ms for f in finals] == sorted(f.start_ms for f in finals)
    assert all(a.end_ms <= b.start_ms for a, b in pairwise(finals))
