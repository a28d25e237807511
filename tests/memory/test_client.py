"""The client: whom it speaks to, what it gives, and how it ends. No socket, no real recognizer."""

from __future__ import annotations

import asyncio
import io
import logging
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import asr
import speech
from asr.choice import Credentials, choose
from asr.config import GatewayConfig, LocalConfig, MockConfig, ResilientConfig, RivaConfig
from asr.engine import AudioInput, EndUtterance
from asr.errors import ASRError, Code
from asr.events import Event, Final, Flushed, Partial, Progress
from asr.options import Options
from asr.settings import EngineSettings
from word_engine import WordEngine

RivaASRClient = asr.RivaASRClient


def pcm(ms: int) -> bytes:
    return bytes(32 * ms)


def texts(events: list[Any]) -> list[str]:
    return [event.text for event in events if isinstance(event, Final)]


# --- whom they speak to


def chosen(endpoint: Any = None, engine: Any = None, mock_mode: bool = False, **credentials: Any) -> Any:
    settings = credentials.pop("settings", None)
    return choose(endpoint, engine, mock_mode, settings, Credentials(**credentials))


@pytest.mark.parametrize(
    ("endpoint", "config"),
    [
        ("riva:50051", ResilientConfig((RivaConfig(endpoint="riva:50051"),))),
        ("grpc://riva:50051", ResilientConfig((RivaConfig(endpoint="riva:50051"),))),
        ("grpcs://riva:443", ResilientConfig((RivaConfig(endpoint="riva:443", ssl=True),))),
        (RivaConfig(), RivaConfig()),
        ("https://gateway:8443", GatewayConfig("https://gateway:8443")),
        ("wss://gateway", GatewayConfig("wss://gateway")),
        ("http://localhost:1", GatewayConfig("http://localhost:1")),
        (LocalConfig(workers=1), LocalConfig(workers=1)),
    ],
)
def test_an_endpoint_says_what_is_there(endpoint: Any, config: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIVA_API_KEY", "meant-for-another-server")
    monkeypatch.setenv("RIVA_SSL", "on")
    assert chosen(endpoint) == config


def test_without_one_the_environment_says_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("DATABASE_URL=somebody's own\nASR_ENGINE=mock\n")
    assert chosen() == ResilientConfig((LocalConfig(),))
    assert chosen(engine="mock") == MockConfig()
    assert chosen(mock_mode=True) == MockConfig()
    monkeypatch.setenv("RIVA_ENDPOINTS", "riva:1,riva:2")
    assert chosen() == ResilientConfig((RivaConfig(endpoint="riva:1"), RivaConfig(endpoint="riva:2")))
    assert chosen(engine="local") == ResilientConfig((LocalConfig(),))
    assert chosen(settings=EngineSettings(asr_engine="mock")) == MockConfig()
    two = EngineSettings(local_workers=2)
    assert chosen(engine="local", settings=two) == ResilientConfig((LocalConfig(workers=2),))
    monkeypatch.setenv("ASR_ENGIN", "mock")
    with pytest.raises(ASRError, match="Did you mean ASR_ENGINE"):
        RivaASRClient()


def test_credentials_go_with_their_endpoint(tmp_path: Path) -> None:
    cert = tmp_path / "cert.pem"
    cert.touch()
    (riva,) = chosen("riva:1", ssl=True, token="t", metadata={"Function-Id": "f"}).members
    assert riva == RivaConfig(
        endpoint="riva:1", ssl=True, metadata=(("function-id", "f"), ("authorization", "Bearer t"))
    )
    assert chosen("riva:1", ca_cert=str(cert), token="t").members[0].root_cert == cert
    assert chosen("https://g", token="t", ca_cert=cert, insecure=True) == GatewayConfig("https://g", "t", cert, True)
    assert chosen("localhost:1", token="t").members[0].metadata == (("authorization", "Bearer t"),)


@pytest.mark.parametrize(
    ("arguments", "param"),
    [
        ({"endpoint": "riva:1", "mock_mode": True}, "mock_mode"),
        ({"endpoint": "riva:1", "engine": "riva"}, "engine"),
        ({"engine": "local", "mock_mode": True}, "mock_mode"),
        ({"engine": "local", "token": "t"}, "token"),
        ({"ca_cert": "x"}, "ca_cert"),
        ({"endpoint": "riva:1", "ca_cert": "/none.pem"}, "ca_cert"),
        ({"endpoint": "https://g", "metadata": {"a": "b"}}, "metadata"),
        ({"endpoint": "https://g", "ssl": True}, "ssl"),
        ({"endpoint": "riva:1", "insecure": True}, "insecure"),
        ({"endpoint": "riva"}, "endpoint"),
        ({"endpoint": "ftp://riva"}, "endpoint"),
        ({"endpoint": "riva.example:1", "token": "canary-7f3a"}, "token"),
        ({"engine": "rvia"}, "ASR_ENGINE"),
    ],
)
def test_what_does_not_fit_is_refused_at_once(arguments: dict[str, Any], param: str) -> None:
    with pytest.raises(ASRError) as caught:
        RivaASRClient(**arguments)
    assert (caught.value.code, caught.value.param) == (Code.BAD_REQUEST, param)
    assert "canary" not in str(caught.value)


def test_credentials_are_never_printed() -> None:
    assert "canary" not in repr(Credentials(token="canary", metadata={"a": "canary"}))
    assert "canary" not in repr(chosen("https://g", token="canary"))
    assert "canary" not in repr(chosen("localhost:1", token="canary"))


# --- streams


async def test_a_stream_gives_partials_and_finals() -> None:
    engine = WordEngine()
    async with RivaASRClient(engine=engine) as client:
        events = [event async for event in client.stream_transcribe(speech.chunks(pcm(1400), 333))]
    assert {type(event) for event in events} == {Partial, Final}
    assert texts(events) == ["w1 w2 w3 w4 w5", "w6 w7"]
    assert (engine.heard_bytes, engine.open_streams) == (pcm(1400), 0)


async def test_all_events_on_request_and_an_utterance_ended_by_the_caller() -> None:
    client = RivaASRClient(engine=WordEngine())
    audio = speech.script(pcm(500), EndUtterance(), pcm(300))
    events = [event async for event in client.stream_transcribe(audio, all_events=True)]
    assert texts(events) == ["w1 w2", "w3 w4"]
    assert [event for event in events if isinstance(event, Flushed)] == [Flushed(500)]
    assert [event for event in events if isinstance(event, Progress)]


@pytest.mark.parametrize(
    ("shape", "audio"),
    [
        ({"sample_rate_hz": 8000}, bytes(16 * 1000)),
        ({"channels": 2}, bytes(64 * 1000)),
        ({"encoding": "pcm_f32le"}, bytes(64 * 1000)),
        ({"encoding": "mulaw", "sample_rate_hz": 8000}, b"\xff" * 8000),
        ({"encoding": "wav"}, speech.path("greeting.wav").read_bytes()[: 44 + 32 * 1000]),
        ({"encoding": "auto", "sample_rate_hz": None}, speech.path("greeting.wav").read_bytes()[: 44 + 32 * 1000]),
    ],
)
async def test_every_shape_of_audio_reaches_the_engine_as_one(shape: dict[str, Any], audio: bytes) -> None:
    engine = WordEngine()
    async with RivaASRClient(engine=engine) as client:
        events = [event async for event in client.stream_transcribe(speech.chunks(audio, 777), **shape)]
    assert texts(events) == ["w1 w2 w3 w4 w5"]
    assert abs(len(engine.heard_bytes) - 32_000) <= 64


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ({"language": "fr"}, Code.NOT_FOUND, "en-US"),
        ({"model": "whisper"}, Code.NOT_FOUND, "words-de, words-en"),
        ({"punctuate": True, "fail_on_unsupported": True}, Code.UNSUPPORTED, "punctuation"),
        ({"encoding": "midi"}, Code.BAD_REQUEST, "pcm_s16le"),
        ({"sample_rate_hz": 1}, Code.BAD_REQUEST, "4000"),
        ({"encoding": "flac"}, Code.BAD_AUDIO, r"\."),
    ],
)
async def test_bad_requests_are_answered(arguments: dict[str, Any], code: Code, words: str) -> None:
    client = RivaASRClient(engine=WordEngine())
    with pytest.raises(ASRError, match=words) as caught:
        async for _ in client.stream_transcribe(speech.chunks(pcm(100)), **arguments):
            pass
    assert caught.value.code is code


async def test_bad_arguments_fail_at_the_call() -> None:
    client = RivaASRClient(engine=WordEngine())
    with pytest.raises(ASRError, match="SyncRivaASRClient"):
        client.stream_transcribe([pcm(100)])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="no keyword 'langauge'"):
        client.stream_transcribe(speech.chunks(b""), langauge="de")  # type: ignore[call-arg]
    with pytest.raises(ASRError, match="a str, not bytes"):
        async for _ in client.stream_transcribe(speech.script("text")):  # type: ignore[arg-type]
            pass


async def test_left_out_wishes_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "asr"):
        async for _ in RivaASRClient(engine=WordEngine()).stream_transcribe(speech.chunks(pcm(10)), punctuate=True):
            pass
    assert "punctuation" in caplog.text


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("refuses", Code.OVERLOADED),
        ("unavailable@300", Code.UNAVAILABLE),
        ("no-model", Code.UNAVAILABLE),
        ("bug@300", Code.INTERNAL),
    ],
)
async def test_failures_of_the_engine_are_asr_errors(fault: str, code: Code) -> None:
    engine = WordEngine(fault)
    with pytest.raises(ASRError) as caught:
        async for _ in RivaASRClient(engine=engine).stream_transcribe(speech.chunks(pcm(1000))):
            pass
    assert (caught.value.code, engine.open_streams) == (code, 0)


async def test_what_the_callers_audio_raises_comes_through() -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield pcm(300)
        raise LookupError("the microphone is gone")

    engine = WordEngine()
    with pytest.raises(LookupError, match="microphone"):
        async for _ in RivaASRClient(engine=engine).stream_transcribe(broken()):
            pass
    assert engine.open_streams == 0


async def test_also_when_the_engine_takes_it_for_a_failure_of_its_own() -> None:
    class Wrapping(WordEngine):
        async def stream(self, audio: AsyncIterable[AudioInput], options: Options) -> AsyncGenerator[Event]:
            try:
                async for _ in audio:
                    yield Progress(0)
            except Exception as error:
                raise ASRError(Code.UNAVAILABLE, "The recognizer broke.") from error

    async def broken() -> AsyncIterator[bytes]:
        yield pcm(300)
        raise LookupError("the microphone is gone")

    with pytest.raises(LookupError, match="microphone"):
        async for _ in RivaASRClient(engine=Wrapping()).stream_transcribe(broken()):
            pass


async def test_leaving_early_closes_the_engine_and_the_audio() -> None:
    closed = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        try:
            while True:
                yield pcm(100)
                await asyncio.sleep(0)
        finally:
            closed.set()

    engine = WordEngine()
    events = RivaASRClient(engine=engine).stream_transcribe(endless())
    async for event in events:
        if isinstance(event, Final):
            break
    assert engine.open_streams == 1
    await events.aclose()
    assert closed.is_set()
    assert engine.open_streams == 0


async def test_closing_the_client_closes_streams_that_were_left_half_read() -> None:
    engine = WordEngine()
    async with RivaASRClient(engine=engine) as client:
        events = client.stream_transcribe(speech.chunks(pcm(1000)))
        await anext(events)
        assert engine.open_streams == 1
    assert engine.open_streams == 0
    assert [event async for event in events] == []


async def test_an_engine_of_your_own_is_not_closed_and_a_closed_client_says_so() -> None:
    closings: list[bool] = []

    class Mine(WordEngine):
        async def aclose(self) -> None:
            closings.append(True)

    client = RivaASRClient(engine=Mine())
    assert client.engine_name == "words"
    assert (await client.health()).ready
    assert [model.name for model in await client.models()] == ["words-en", "words-de"]
    await client.aclose()
    await client.aclose()
    assert closings == []
    with pytest.raises(ASRError, match="The client is closed"):
        await client.models()


# --- files


async def test_a_file_becomes_a_transcript() -> None:
    seen: list[tuple[int, int | None]] = []
    async with RivaASRClient(engine=WordEngine()) as client:
        transcript = await client.transcribe_file(
            speech.path("greeting_44k_stereo.wav"),
            on_progress=lambda done_ms, total_ms: seen.append((done_ms, total_ms)),
            punctuate=True,
        )
    length = speech.clip("greeting").duration_ms
    assert transcript.text.startswith("w1 w2 w3 w4 w5 w6")
    assert (transcript.language, transcript.model) == ("en-US", "words-en")
    assert abs(transcript.duration_ms - length) <= 2
    assert len(transcript.words) == length // 200
    assert ["punctuation" in w or "channels" in w for w in transcript.warnings] == [True, True]
    assert [done for done, _ in seen] == sorted({done for done, _ in seen} | {seen[-1][0]})
    assert seen[-1] == (transcript.duration_ms, transcript.duration_ms)
    assert all(total is not None and abs(total - length) <= 2 for _, total in seen)


async def test_an_open_file_is_read_and_left_open() -> None:
    with speech.path("greeting.wav").open("rb") as file:
        whole = await RivaASRClient(engine=WordEngine()).transcribe_file(file)
        assert not file.closed
    again = await RivaASRClient(engine=WordEngine()).transcribe_file(str(speech.path("greeting.wav")), Options())
    assert replace(whole, finals=()) == replace(again, finals=())


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("no_such.wav", Code.NOT_FOUND),
        (".", Code.BAD_REQUEST),
        (io.BytesIO(b""), Code.BAD_AUDIO),
        (io.BytesIO(b"no audio at all, only a text that is long enough to be looked at"), Code.BAD_AUDIO),
    ],
)
async def test_bad_files_are_refused_before_an_engine_is_asked(source: Any, code: Code) -> None:
    engine = WordEngine("refuses")
    with pytest.raises(ASRError) as caught:
        await RivaASRClient(engine=engine).transcribe_file(source)
    assert (caught.value.code, engine.streams) == (code, 0)


async def test_the_loop_is_not_held_up_by_decoding() -> None:
    gate = threading.Event()

    class Slow(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            assert gate.wait(10)
            return super().read(size)

    slow = Slow(speech.path("greeting.wav").read_bytes())
    task = asyncio.create_task(RivaASRClient(engine=WordEngine()).transcribe_file(slow))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not task.done()
    gate.set()
    assert (await task).text


# --- the package


def run_script(code: str) -> tuple[int, str, str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


def test_importing_is_light() -> None:
    heavy = "{'grpc', 'numpy', 'av', 'pocketsphinx', 'pydantic', 'websockets', 'asyncio', 'google'}"
    code = f"import sys, asr; print(sorted({heavy} & set(sys.modules)))"
    assert run_script(code) == (0, "[]\n", "")
    code = (
        "import sys; from asr import RivaASRClient; RivaASRClient(mock_mode=True)\n"
        f"print(sorted(({heavy} - {{'asyncio', 'pydantic'}}) & set(sys.modules)))"
    )
    assert run_script(code) == (0, "[]\n", "")


def test_every_public_name_is_there() -> None:
    for name in asr.__all__:
        assert getattr(asr, name) is not None
    assert set(asr.__all__) <= set(dir(asr))
    assert len(asr.__all__) <= 21
    with pytest.raises(AttributeError, match="'asr' has no attribute 'Nothing'"):
        asr.Nothing  # noqa: B018
