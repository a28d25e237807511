"""The riva engine over real sockets: against the misbehaving stand-in, and against our own gRPC face."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from asr.config import RivaConfig
from asr.engine import AudioInput, EndUtterance, agree
from asr.engines.riva import RivaEngine
from asr.errors import ASRError, Code
from asr.events import Event, Final, FinalReason, Flushed, Partial, Progress
from asr.mock.plan import MockPlan, load_plan
from asr.mock.riva_server import MockRivaServer, ServerTls
from asr.options import Diarization, Options
from riva_tls import make_certificates
from timing import in_time

LIMIT_S = 15.0


def plan(**keys: Any) -> MockPlan:
    return load_plan({"hears": "clock", "loop": False, "utterances": ["one two three", "four five"]} | keys)


@asynccontextmanager
async def engine(server: MockRivaServer | int, **config: Any) -> AsyncIterator[RivaEngine]:
    port = server if isinstance(server, int) else server.port
    made = RivaEngine(RivaConfig(endpoint=f"localhost:{port}", **config))
    before = asyncio.all_tasks()
    try:
        yield made
    finally:
        await made.aclose()
        await asyncio.sleep(0)
        left = {t for t in asyncio.all_tasks() - before if "riva_call" in repr(t)}
        assert not left, left


async def chunks(ms: int, step_ms: int = 100, pause_s: float = 0.0) -> AsyncIterator[AudioInput]:
    for _ in range(0, ms, step_ms):
        yield b"\x00\x20" * (16 * step_ms)  # loud: a server may be silent while nobody speaks
        await asyncio.sleep(pause_s)


async def forever(step_ms: int = 100, pause_s: float = 0.005) -> AsyncIterator[AudioInput]:
    while True:
        yield b"\x00\x20" * (16 * step_ms)  # loud: a server may be silent while nobody speaks
        await asyncio.sleep(pause_s)


async def collect(riva: RivaEngine, audio: AsyncIterator[AudioInput], options: Options | None = None) -> list[Event]:
    async with asyncio.timeout(LIMIT_S):
        return [event async for event in riva.stream(audio, options or Options())]


async def collect_into(seen: list[Event], events: AsyncIterator[Event]) -> None:
    """So that what came before a failure can be looked at."""
    async with asyncio.timeout(LIMIT_S):
        async for event in events:
            seen.append(event)


def finals(events: list[Event]) -> list[Final]:
    return [event for event in events if isinstance(event, Final)]


async def test_partials_then_finals_and_the_tail_after_half_close() -> None:
    async with MockRivaServer(plan()) as server, engine(server) as riva:
        agreement = agree(Options(language="en-US", request_id="r-1"), await riva.models(), riva.features)
        # The second utterance has hardly ended when the audio does: its final is the answer to the half-close.
        events = await collect(riva, chunks(2700), agreement.options)
    assert [(f.text, f.reason) for f in finals(events)] == [
        ("one two three", FinalReason.ENDPOINT),
        ("four five", FinalReason.STOP),
    ]
    partials = [e for e in events if isinstance(e, Partial)]
    assert partials[0].text == "one"
    assert {p.utterance for p in partials} == {0, 1}
    assert [w.text for w in finals(events)[0].words] == ["one", "two", "three"]
    progress = [e.processed_ms for e in events if isinstance(e, Progress)]
    assert progress == sorted(progress)
    assert progress[-1] <= 2700


async def test_a_server_that_never_sends_a_final_loses_nothing() -> None:
    async with MockRivaServer(plan(shape={"never_final": True})) as server, engine(server) as riva:
        (final,) = finals(await collect(riva, chunks(2700)))
    assert final.reason is FinalReason.STOP
    assert final.text.endswith("five")


async def test_end_utterance_is_answered_once_and_the_stream_goes_on() -> None:
    async def audio() -> AsyncIterator[AudioInput]:
        yield EndUtterance()
        async for item in chunks(700):
            yield item
        yield EndUtterance()
        async for item in chunks(3000):
            yield item

    async with MockRivaServer(plan()) as server, engine(server, force_eou="on") as riva:
        assert riva.features.end_utterance
        events = await collect(riva, audio())
    flushed = [e for e in events if isinstance(e, Flushed)]
    assert [f.audio_ms for f in flushed] == [0, 700]
    first = finals(events)[0]
    assert first.reason is FinalReason.FINALIZE
    assert events.index(first) < events.index(flushed[1])


async def test_end_utterance_without_an_answer_is_given_up() -> None:
    async def audio() -> AsyncIterator[AudioInput]:
        yield bytes(6400)
        yield EndUtterance()
        await asyncio.sleep(0.5)

    deaf = plan(server={"force_eou": False})
    async with MockRivaServer(deaf) as server, engine(server, force_eou="on", finalize_timeout_ms=100) as riva:
        events = await collect(riva, audio(), Options(partials=False))
    assert [e.audio_ms for e in events if isinstance(e, Flushed)] == [200]


@pytest.mark.parametrize(
    ("setting", "model", "known"),
    [("auto", "", False), ("auto", "nemotron-asr-streaming", True), ("on", "", True), ("off", "nemotron", False)],
)
def test_force_eou_is_set_or_judged_by_the_model(setting: Any, model: str, known: bool) -> None:
    assert RivaEngine(RivaConfig(force_eou=setting, model=model)).features.end_utterance is known


async def test_chunks_may_split_a_sample_and_be_large() -> None:
    async def odd() -> AsyncIterator[AudioInput]:
        for size in (1, 3199, 0, 3201, 640_000):
            yield bytes(size)

    async with MockRivaServer(plan()) as server, engine(server) as riva:
        assert [f.text for f in finals(await collect(riva, odd()))] == ["one two three", "four five"]


@pytest.mark.parametrize(
    ("kind", "code", "retryable"),
    [
        ("unavailable", Code.UNAVAILABLE, True),
        ("internal", Code.UNAVAILABLE, True),
        ("exhausted", Code.OVERLOADED, True),
        ("deadline", Code.TIMEOUT, True),
        ("unauthenticated", Code.UNAVAILABLE, False),
        ("start_flag", Code.UNAVAILABLE, True),
        ("model", Code.NOT_FOUND, False),
        ("end", Code.UNAVAILABLE, True),
        ("hang", Code.TIMEOUT, True),
        ("stop_reading", Code.TIMEOUT, True),
    ],
)
async def test_faults_in_mid_stream(kind: str, code: Code, retryable: bool) -> None:
    events: list[Event] = []
    settings = {"first_response_timeout_ms": 400, "drain_timeout_ms": 400}
    faulty = plan(faults=[{"kind": kind, "at_ms": 600}])
    # Only a bounded stretch for "hang": it reads on, so the drain is what runs out.
    audio = chunks(2000) if kind == "hang" else forever(pause_s=0.0)
    async with MockRivaServer(faulty) as server, engine(server, **settings) as riva:
        await riva.models()
        with pytest.raises(ASRError) as caught:
            await collect_into(events, riva.stream(audio, Options()))
    assert (caught.value.code, caught.value.retryable) == (code, retryable)
    assert any(isinstance(e, Partial) for e in events)
    assert "127.0.0.1" not in caught.value.message
    assert "localhost" not in caught.value.message
    if kind == "model":
        assert "mock-en-US-asr-streaming" in caught.value.message


async def test_a_server_that_never_answers_ends_in_timeout_while_audio_flows() -> None:
    async with (
        MockRivaServer(plan(faults=[{"kind": "half_open"}])) as server,
        # Whether its headers come, which are an answer of a kind, is a matter of chance.
        engine(server, first_response_timeout_ms=300, stall_timeout_ms=300) as riva,
    ):
        begun = time.monotonic()
        with pytest.raises(ASRError) as caught:
            await collect(riva, forever())
        assert caught.value.code is Code.TIMEOUT
        assert 0.25 < time.monotonic() - begun < 10


async def test_a_slow_first_response_is_waited_for() -> None:
    slow = plan(delay={"first_response_ms": 600})
    async with MockRivaServer(slow) as server, engine(server, first_response_timeout_ms=5000) as riva:
        assert len(finals(await collect(riva, chunks(2700)))) == 2


async def test_nothing_listens_there() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        async with engine(held.getsockname()[1]) as riva:
            with pytest.raises(ASRError) as caught:
                await collect(riva, forever())
            assert caught.value.code is Code.UNAVAILABLE
            readiness = await riva.ready()
            assert not readiness.ready
            assert "cannot be reached" in readiness.detail


async def test_a_port_that_is_not_grpc_runs_out_of_time_to_connect() -> None:
    accepted: list[asyncio.StreamWriter] = []

    async def mute(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.append(writer)

    listener = await asyncio.start_server(mute, "127.0.0.1", 0)
    async with engine(listener.sockets[0].getsockname()[1], connect_timeout_ms=300, call_timeout_ms=3000) as riva:
        begun = time.monotonic()
        with pytest.raises(ASRError) as caught:
            await collect(riva, forever())
        assert caught.value.code in (Code.UNAVAILABLE, Code.TIMEOUT)
        in_time(time.monotonic() - begun, 5)
    for writer in accepted:
        writer.close()
    listener.close()
    await listener.wait_closed()


async def test_unary_calls_have_a_deadline() -> None:
    async with engine(0) as riva:
        assert not (await riva.ready()).ready
    async with asyncio.timeout(LIMIT_S):
        listener = await asyncio.start_server(lambda _r, w: None, "127.0.0.1", 0)
        async with engine(listener.sockets[0].getsockname()[1], call_timeout_ms=200) as riva:
            with pytest.raises(ASRError) as caught:
                await riva.models()
        assert caught.value.code is Code.TIMEOUT
        listener.close()


async def test_a_failure_of_the_audio_is_raised_as_it_is() -> None:
    class MicrophoneGone(Exception):
        pass

    async def breaking() -> AsyncIterator[AudioInput]:
        yield bytes(3200)
        raise MicrophoneGone("unplugged")

    async with MockRivaServer(plan()) as server, engine(server) as riva:
        with pytest.raises(MicrophoneGone, match="unplugged"):
            await collect(riva, breaking())


@pytest.mark.parametrize("fault", [[], [{"kind": "stop_reading"}]])
async def test_closing_ends_the_call_at_once(fault: list[Any]) -> None:
    # With `stop_reading` the writer is blocked by flow control by the time of the closing.
    async with MockRivaServer(plan(faults=fault)) as server, engine(server) as riva:
        events = riva.stream(forever(1000, 0.0), Options())
        waiting = asyncio.create_task(anext(events))
        await asyncio.sleep(0.3)
        begun = time.monotonic()
        if not waiting.done():
            waiting.cancel()
        await asyncio.wait({waiting})
        await events.aclose()
        in_time(time.monotonic() - begun, 1)


async def test_closing_the_engine_fails_open_streams() -> None:
    async with MockRivaServer(plan()) as server, engine(server) as riva:
        events = riva.stream(forever(), Options())
        await anext(events)
        await riva.aclose()
        with pytest.raises(ASRError) as caught:
            await collect_into([], events)
        assert caught.value.code is Code.UNAVAILABLE
        with pytest.raises(ASRError):
            await collect(riva, forever())


async def test_a_slow_caller_is_no_slow_server() -> None:
    timeouts = {"first_response_timeout_ms": 200, "drain_timeout_ms": 200}
    async with MockRivaServer(plan(loop=True)) as server, engine(server, **timeouts) as riva:
        seen = 0
        async with asyncio.timeout(LIMIT_S):
            async for _ in riva.stream(chunks(60_000), Options()):
                seen += 1
                if seen in (5, 10):
                    await asyncio.sleep(0.5)
        assert seen > 100


async def test_metadata_is_delivered_once() -> None:
    guarded = plan(server={"required_metadata": {"authorization": "Bearer k", "function-id": "f"}})
    metadata = (("Authorization", "Bearer k"), ("function-id", "f"))
    async with MockRivaServer(guarded) as server:
        async with engine(server, metadata=metadata) as riva:
            assert (await riva.ready()).ready
            assert len(finals(await collect(riva, chunks(2700)))) == 2
        assert {call.delivered("authorization") for call in server.calls} == {1}
        async with engine(server) as riva:
            with pytest.raises(ASRError) as caught:
                await collect(riva, chunks(500))
        assert "credentials" in caught.value.message
        assert "Bearer k" not in repr(RivaConfig(metadata=metadata))


async def test_tls_and_mutual_tls(tmp_path: Path) -> None:
    made = make_certificates(tmp_path)
    key, cert, ca = made.server_key.read_bytes(), made.server_cert.read_bytes(), made.ca.read_bytes()
    async with MockRivaServer(plan(), tls=ServerTls(key, cert)) as server:
        async with engine(server, root_cert=made.ca) as riva:
            assert len(finals(await collect(riva, chunks(2700)))) == 2
        for config in ({}, {"ssl": True}):
            async with engine(server, **config) as riva:
                assert not (await riva.ready()).ready
    async with MockRivaServer(plan(), tls=ServerTls(key, cert, client_ca=ca)) as server:
        client = {"client_cert": made.client_cert, "client_key": made.client_key}
        async with engine(server, root_cert=made.ca, **client) as riva:
            assert len(finals(await collect(riva, chunks(2700)))) == 2
        async with engine(server, root_cert=made.ca) as riva:
            assert not (await riva.ready()).ready


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"root_cert": Path("/nowhere/ca.pem")}, "does not exist"),
        ({"client_cert": Path("/nowhere/c.pem")}, "its key"),
    ],
)
def test_certificate_files_that_cannot_be_used(config: dict[str, Any], said: str) -> None:
    with pytest.raises(ASRError, match=said) as caught:
        RivaEngine(RivaConfig(**config))
    assert caught.value.code is Code.BAD_REQUEST


async def test_the_list_of_models_is_kept_for_a_while() -> None:
    now = [0.0]
    async with MockRivaServer(plan()) as server:
        riva = RivaEngine(RivaConfig(endpoint=f"localhost:{server.port}"), clock=lambda: now[0])
        assert [m.name for m in await riva.models()] == ["mock-en-US-asr-streaming", "mock-en-US-asr-offline"]
        await riva.models()
        assert len(server.calls) == 1
        now[0] = 6.0
        await riva.models()
        assert len(server.calls) == 2
        await riva.aclose()


async def test_a_server_without_models_is_not_ready() -> None:
    async with MockRivaServer(plan(server={"models": []})) as server, engine(server) as riva:
        readiness = await riva.ready()
    assert not readiness.ready
    assert "no model" in readiness.detail


async def test_a_model_that_cannot_stream_gets_the_whole_recording() -> None:
    async def audio() -> AsyncIterator[AudioInput]:
        async for item in chunks(3000):
            yield item
        yield EndUtterance()

    async with MockRivaServer(plan()) as server, engine(server) as riva:
        await riva.models()
        events = await collect(riva, audio(), Options(model="mock-en-US-asr-offline", language="en-US"))
        assert [f.text for f in finals(events)] == ["one two three", "four five"]
        assert events[-1] == Flushed(3000)
        assert server.calls[-1].method == "Recognize"


async def test_speakers() -> None:
    async with MockRivaServer(plan(shape={"speaker_base": 0})) as server, engine(server) as riva:
        events = await collect(riva, chunks(2700), Options(diarization=Diarization()))
    assert {w.speaker for f in finals(events) for w in f.words} == {"0"}
