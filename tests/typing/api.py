"""The public signatures as a user's type checker sees them. Never run: mypy reads it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, assert_type

from asr import (
    ASRError,
    Code,
    Diarization,
    Endpointing,
    EndUtterance,
    Final,
    Gap,
    Model,
    Partial,
    Phrase,
    RivaASRClient,
    Session,
    SpeechEnded,
    SpeechStarted,
    State,
    Status,
    SyncRivaASRClient,
    Transcript,
    Word,
    __version__,
    connect,
)
from asr.config import GatewayConfig
from asr.engine import Engine, Readiness
from asr.engines.gateway import GatewayEngine
from asr.events import Event
from asr.options import Options
from asr.settings import EngineSettings, load_settings

assert_type(__version__, str)


async def microphone() -> AsyncIterator[bytes | EndUtterance]:
    yield b""
    yield EndUtterance()


def recording() -> Iterator[bytes]:
    yield b""


def progress(done_ms: int, total_ms: int | None) -> None: ...


async def streams(client: RivaASRClient) -> None:
    async for event in client.stream_transcribe(microphone()):
        assert_type(event, Event)
        match event:
            case Partial():
                assert_type((event.text, event.stable_chars, event.start_ms), tuple[str, int, int])
            case Final():
                assert_type(event.words, tuple[Word, ...])
                assert_type(event.confidence, float | None)
            case SpeechStarted() | SpeechEnded():
                assert_type(event.audio_ms, int)
            case Gap():
                assert_type((event.start_ms, event.end_ms), tuple[int, int])
            case Status():
                assert_type((event.state, event.retry_after_ms), tuple[State, int | None])
    stream = client.stream_transcribe(
        microphone(),
        Options(),
        sample_rate_hz=8000,
        channels=2,
        encoding="mulaw",
        enable_partials=False,
        all_events=True,
        language="en-US",
        phrases=["a", Phrase("b", 0.5)],
        diarization=Diarization(2),
        endpointing=Endpointing(silence_ms=300),
    )
    await stream.aclose()
    client.stream_transcribe(microphone(), langauge="en")  # type: ignore[call-arg]
    client.stream_transcribe(microphone(), encoding="mp9")  # type: ignore[arg-type]
    client.stream_transcribe([b""])  # type: ignore[arg-type]


async def sessions() -> None:
    async with connect("wss://gateway:8443", token="t", ca_cert="ca.pem", language="en-US", phrases=["a"]) as session:
        assert_type(session, Session)
        await session.send(b"")
        await session.send(memoryview(b""))
        assert_type(await session.finalize(), int)
        await session.stop()
        async for event in session:
            assert_type(event, Event)
        assert_type(session.state, Literal["connected", "reconnecting", "closed"])
        assert_type(session.resumes, int)
        assert_type(session.summary, dict[str, Any] | None)
    connect("wss://gateway:8443", Options(), insecure=True, pace="file", resume_window_ms=0, connect_timeout_ms=500)
    connect("wss://gateway:8443", langauge="en")  # type: ignore[call-arg]
    connect("wss://gateway:8443", pace="slow")  # type: ignore[arg-type]


async def files(client: RivaASRClient) -> None:
    transcript = await client.transcribe_file(Path("a.wav"), on_progress=progress, diarization=True)
    assert_type(transcript, Transcript)
    assert_type(transcript.words, tuple[Word, ...])
    with open("a.wav", "rb") as file:  # noqa: PTH123  # what users write
        await client.transcribe_file(file, words=False)
    await client.transcribe_file("a.wav", word=False)  # type: ignore[call-arg]


async def questions(client: RivaASRClient) -> None:
    assert_type(await client.models(), Sequence[Model])
    assert_type(await client.health(), Readiness)
    assert_type(client.engine_name, str)


async def makings() -> None:
    RivaASRClient()
    RivaASRClient("riva:50051", ssl=True, token="t", ca_cert="ca.pem", metadata={"a": "b"})
    RivaASRClient("https://gateway:8443", insecure=True)
    RivaASRClient(GatewayConfig("https://gateway:8443"))
    RivaASRClient(settings=load_settings(EngineSettings, {"asr_engine": "mock"}))
    RivaASRClient(mock_mode=True)
    engine: Engine = GatewayEngine(GatewayConfig())
    RivaASRClient(engine=engine)
    RivaASRClient(engine="local")
    RivaASRClient(engine="pocketsphinx")  # type: ignore[arg-type]
    async with RivaASRClient() as client:
        assert_type(client, RivaASRClient)


def blocking() -> None:
    with SyncRivaASRClient(mock_mode=True) as client:
        assert_type(client, SyncRivaASRClient)
        for event in client.stream_transcribe(recording(), language="en"):
            assert_type(event, Event)
        assert_type(client.transcribe_file("a.wav", on_progress=progress), Transcript)
        assert_type(client.models(), Sequence[Model])
        assert_type(client.health(), Readiness)
        client.stream_transcribe(microphone())  # type: ignore[arg-type]
    try:
        client.close()
    except ASRError as error:
        assert_type(error.code, Code)
        assert_type((error.message, error.retryable, error.retry_after_ms), tuple[str, bool, int | None])
