"""The Riva gRPC face over real sockets: by NVIDIA's own client, by stubs, by our riva engine, and on speech."""

from __future__ import annotations

import asyncio
import gc
import io
import time
import wave
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import riva.client
from grpc.aio import EOF

import speech
from asr.config import LocalConfig, RivaConfig
from asr.engine import AudioInput, EndUtterance, Engine, agree
from asr.engines.local import LocalEngine
from asr.engines.riva import RivaEngine
from asr.errors import ASRError, Code
from asr.events import Event, Final, FinalReason, Flushed, Gap, GapCause, State, Status
from asr.options import Options
from asr.riva_proto import asr as pb
from asr.riva_proto import asr_grpc, health, health_grpc
from e2e.gateway import running
from riva_tls import make_certificates
from server.admission import Admission
from server.faces.riva_grpc import RivaFace, RivaFaceLimits, add_riva_face
from timing import in_time
from word_engine import WordEngine

LIMIT_S = 20.0
LIVEKIT_MODEL = "parakeet-1.1b-en-US-asr-streaming-silero-vad-sortformer"


@asynccontextmanager
async def face(
    engine: Engine,
    credentials: grpc.ServerCredentials | None = None,
    made: list[RivaFace] | None = None,
    admission: Admission | None = None,
    **setup: Any,
) -> AsyncIterator[str]:
    """A server with the face on a free port; afterwards no stream of the engine is left open."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    admission = admission or Admission(100, random=lambda: 0.5, clock=time.monotonic)
    registered = add_riva_face(server, engine, admission, **setup)
    if made is not None:
        made.append(registered)
    if credentials is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        yield f"localhost:{port}"
    finally:
        await server.stop(1)
    if isinstance(engine, WordEngine):
        assert engine.open_streams == 0


@asynccontextmanager
async def stub(target: str) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(target) as channel:
        yield asr_grpc.RivaSpeechRecognitionStub(channel)


def config(interim: bool = True, request_id: str = "", **fields: Any) -> Any:
    chosen = {"encoding": 1, "sample_rate_hertz": 16_000, "enable_word_time_offsets": True} | fields
    message = pb.StreamingRecognizeRequest(
        streaming_config=pb.StreamingRecognitionConfig(config=pb.RecognitionConfig(**chosen), interim_results=interim)
    )
    if request_id:
        message.id.value = request_id
    return message


def audio(data: bytes, step: int = 3200) -> list[Any]:
    return [pb.StreamingRecognizeRequest(audio_content=data[at : at + step]) for at in range(0, len(data), step)]


def wav(pcm: bytes, rate_hz: int = 16_000, channels: int = 1) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(pcm)
    return out.getvalue()


async def talk(target: str, messages: list[Any], notes: list[str] | None = None) -> list[Any]:
    """One stream by gRPC's blocking client: the other one loses the status of a call that ends while it writes."""

    def work() -> list[Any]:
        with grpc.insecure_channel(target) as channel:
            stream = asr_grpc.RivaSpeechRecognitionStub(channel).StreamingRecognize(iter(messages), timeout=LIMIT_S)
            responses = list(stream)
            if notes is not None:
                notes.extend(str(value) for key, value in stream.trailing_metadata() if key == "riva-gateway-note")
            return responses

    return list(await in_thread(work))


def finals(responses: list[Any]) -> list[str]:
    return [x.alternatives[0].transcript for r in responses for x in r.results if x.is_final]


# --- NVIDIA's own library, in a thread as its users run it


def service(target: str, **auth: Any) -> riva.client.ASRService:
    return riva.client.ASRService(riva.client.Auth(uri=target, **auth))


async def in_thread(work: Callable[[], Any]) -> Any:
    async with asyncio.timeout(LIMIT_S):
        return await asyncio.to_thread(work)


def streamed(client: riva.client.ASRService, chunks: Iterator[bytes], **fields: Any) -> list[Any]:
    chosen = riva.client.StreamingRecognitionConfig(
        config=riva.client.RecognitionConfig(**fields), interim_results=True
    )
    return list(client.streaming_response_generator(chunks, chosen))


def cut(data: bytes, step: int = 3200) -> Iterator[bytes]:
    return (data[at : at + step] for at in range(0, len(data), step))


async def test_nvidias_client_streams_with_everything_unset() -> None:
    # As their transcribe_file.py does: the file with its header, no encoding, no rate, no language.
    async with face(WordEngine()) as target:
        responses = await in_thread(lambda: streamed(service(target), cut(wav(bytes(32 * 1500)))))
    assert finals(responses) == ["w1 w2 w3 w4 w5 ", "w6 w7 "]
    results = [x for r in responses for x in r.results]
    assert all(x.alternatives and x.channel_tag == 1 for x in results)
    assert any(not x.is_final for x in results)
    processed = [x.audio_processed for x in results]
    assert processed == sorted(processed)
    assert not any(x.alternatives[0].words for x in results)


async def test_nvidias_client_recognizes_a_recording() -> None:
    def work(target: str) -> Any:
        chosen = riva.client.RecognitionConfig(enable_word_time_offsets=True, max_alternatives=1)
        return service(target).offline_recognize(wav(bytes(32 * 1500)), chosen)

    async with face(WordEngine()) as target:
        response = await in_thread(lambda: work(target))
    assert "".join(r.alternatives[0].transcript for r in response.results) == "w1 w2 w3 w4 w5 w6 w7 "
    assert [(w.start_time, w.end_time) for w in response.results[1].alternatives[0].words] == [
        (1000, 1200),
        (1200, 1400),
    ]


async def test_nvidias_client_lists_the_models() -> None:
    def work(target: str) -> Any:
        return service(target).stub.GetRivaSpeechRecognitionConfig(pb.RivaSpeechRecognitionConfigRequest())

    async with face(WordEngine()) as target:
        rows = (await in_thread(lambda: work(target))).model_config
        assert [(r.model_name, r.parameters["type"], r.parameters["language_code"]) for r in rows] == [
            ("words-en", "online", "en-US,en-GB"),
            ("words-en", "offline", "en-US,en-GB"),
            ("words-de", "online", "de-DE"),
            ("words-de", "offline", "de-DE"),
        ]
        async with stub(target) as client:
            one = await client.GetRivaSpeechRecognitionConfig(
                pb.RivaSpeechRecognitionConfigRequest(model_name="words-de")
            )
            assert {r.model_name for r in one.model_config} == {"words-de"}
            with pytest.raises(grpc.RpcError, match="words-en, words-de") as caught:
                await client.GetRivaSpeechRecognitionConfig(pb.RivaSpeechRecognitionConfigRequest(model_name="x"))
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_nvidias_client_over_tls_and_mutual_tls(tmp_path: Path) -> None:
    made = make_certificates(tmp_path)
    pair = [(made.server_key.read_bytes(), made.server_cert.read_bytes())]
    # Over TLS that client delivers its metadata twice.
    metadata = [["function-id", "f"], ["authorization", "Bearer k"]]
    async with face(WordEngine(), grpc.ssl_server_credentials(pair)) as target:
        client = service(target, ssl_root_cert=str(made.ca), metadata_args=metadata)
        assert finals(await in_thread(lambda: streamed(client, cut(wav(bytes(32 * 400)))))) == ["w1 w2 "]
    mutual = grpc.ssl_server_credentials(pair, made.ca.read_bytes(), require_client_auth=True)
    async with face(WordEngine(), mutual) as target:
        client = service(
            target,
            ssl_root_cert=str(made.ca),
            ssl_client_cert=str(made.client_cert),
            ssl_client_key=str(made.client_key),
        )
        assert finals(await in_thread(lambda: streamed(client, cut(wav(bytes(32 * 400)))))) == ["w1 w2 "]
        stranger = service(target, ssl_root_cert=str(made.ca))
        with pytest.raises(grpc.RpcError):
            await in_thread(lambda: streamed(stranger, cut(wav(bytes(32 * 400)))))


# --- what is asked for


async def test_only_finals_unless_partials_are_asked_for() -> None:
    async with face(WordEngine()) as target:
        responses = await talk(target, [config(interim=False, request_id="r-7"), *audio(bytes(32 * 1500))])
    assert finals(responses) == ["w1 w2 w3 w4 w5 ", "w6 w7 "]
    assert len(responses) == 2
    assert {r.id.value for r in responses} == {"r-7"}
    assert [w.word for w in responses[1].results[0].alternatives[0].words] == ["w6", "w7"]


async def test_a_final_comes_while_the_stream_stays_open() -> None:
    async with face(WordEngine()) as target, stub(target) as client:
        call = client.StreamingRecognize(timeout=LIMIT_S)
        await call.write(config(interim=False))
        # The stream is known to stand before there is any result.
        await call.initial_metadata()
        for message in audio(bytes(32 * 1000)):
            await call.write(message)
        assert finals([await call.read()]) == ["w1 w2 w3 w4 w5 "]
        await call.write(pb.StreamingRecognizeRequest(audio_content=bytes(32 * 400)))
        await call.write(pb.StreamingRecognizeRequest(audio_content=b"", runtime_config={"force_eou": "true"}))
        assert finals([await call.read()]) == ["w6 w7 "]
        await call.write(pb.StreamingRecognizeRequest(runtime_config={"force_eou": "true"}))
        assert finals([await call.read()]) == [""]
        await call.done_writing()
        assert await call.read() is EOF


async def test_force_eou_is_ignored_with_a_note_where_it_cannot_be() -> None:
    notes: list[str] = []
    async with face(WordEngine("no-cut")) as target:
        forced = pb.StreamingRecognizeRequest(audio_content=bytes(6400), runtime_config={"force_eou": "true"})
        assert finals(await talk(target, [config(), forced, *audio(bytes(6400))], notes)) == ["w1 w2 "]
    assert any("force_eou" in note for note in notes)


@pytest.mark.parametrize("name", [LIVEKIT_MODEL, "parakeet-ctc-1.1b-asr", "ai-canary-1b-asr", "my-alias"])
async def test_other_names_of_the_served_model(name: str) -> None:
    notes: list[str] = []
    async with face(WordEngine(), aliases={"my-alias": "words-en"}) as target:
        message = config(model=name, language_code="en-US")
        assert finals(await talk(target, [message, *audio(bytes(12_800))], notes)) == ["w1 w2 "]
    assert any(name in note for note in notes)


async def test_unsupported_wishes_are_left_out_with_a_note() -> None:
    notes: list[str] = []
    async with face(WordEngine()) as target:
        message = config(enable_automatic_punctuation=True, max_alternatives=3)
        assert finals(await talk(target, [message, *audio(bytes(12_800))], notes)) == ["w1 w2 "]
    assert any("punctuation" in note for note in notes)


# --- audio


@pytest.mark.parametrize(
    ("name", "fields", "seconds"),
    [
        ("greeting.wav", {"encoding": 0, "sample_rate_hertz": 0}, 1),
        ("greeting.wav", {}, 1),
        ("greeting.flac", {"encoding": 0, "sample_rate_hertz": 0}, 1),
        ("greeting.flac", {"encoding": 2, "sample_rate_hertz": 0}, 1),
        ("greeting_8k.wav", {"encoding": 0, "sample_rate_hertz": 0}, 1),
        ("greeting_48k.wav", {"encoding": 0, "sample_rate_hertz": 0}, 1),
    ],
)
async def test_the_header_decides(name: str, fields: dict[str, int], seconds: int) -> None:
    engine = WordEngine()
    async with face(engine) as target:
        await talk(target, [config(**fields), *audio(speech.path(name).read_bytes(), 1001)])
    expected = len(speech.pcm("greeting"))
    assert abs(len(engine.heard_bytes) - expected) < 32 * 60 * seconds


async def test_stereo_is_mixed_with_a_note_or_refused() -> None:
    sound = wav(bytes(4 * 16 * 400), channels=2)
    message = config(encoding=0, sample_rate_hertz=0)
    notes: list[str] = []
    async with face(WordEngine()) as target:
        assert finals(await talk(target, [message, *audio(sound)], notes)) == ["w1 w2 "]
    assert notes
    async with face(WordEngine(), stereo="refuse") as target:
        with pytest.raises(grpc.RpcError) as caught:
            await talk(target, [message, *audio(sound)])
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


# --- refusals


@pytest.mark.parametrize(
    ("messages", "status", "said"),
    [
        ([], "INVALID_ARGUMENT", "before any message"),
        (audio(bytes(320)), "INVALID_ARGUMENT", "streaming_config"),
        ([config(), config()], "INVALID_ARGUMENT", "second streaming_config"),
        ([config(language_code="xx-XX")], "NOT_FOUND", "en-US"),
        ([config(model="nope")], "NOT_FOUND", "words-en"),
        ([config(model="parrot-asr-1")], "NOT_FOUND", "words-en"),
        ([config(encoding=9)], "INVALID_ARGUMENT", "LINEAR_PCM"),
        ([config(sample_rate_hertz=12)], "INVALID_ARGUMENT", "12 Hz"),
        ([config(max_alternatives=-1)], "INVALID_ARGUMENT", "max_alternatives"),
        ([config(encoding=2), *audio(bytes(3200))], "INVALID_ARGUMENT", "flac"),
        ([config(encoding=0, sample_rate_hertz=0), *audio(b"no sound at all. " * 9)], "INVALID_ARGUMENT", "not audio"),
    ],
)
async def test_bad_requests_are_told_what_is_wrong(messages: list[Any], status: str, said: str) -> None:
    async with face(WordEngine()) as target:
        with pytest.raises(grpc.RpcError) as caught:
            await talk(target, messages)
    assert caught.value.code().name == status
    assert said in str(caught.value.details())


@pytest.mark.parametrize(
    ("fault", "status"),
    [("unavailable@400", "UNAVAILABLE"), ("refuses", "UNAVAILABLE"), ("no-model", "UNAVAILABLE"), ("bug", "INTERNAL")],
)
async def test_failures_of_the_engine(fault: str, status: str) -> None:
    async with face(WordEngine(fault)) as target:
        with pytest.raises(grpc.RpcError) as caught:
            await talk(target, [config(), *audio(bytes(32 * 1000))])
        assert caught.value.code().name == status
        assert "defect" not in str(caught.value.details())
        trailing = dict(caught.value.trailing_metadata())
        if fault == "refuses":
            assert trailing["riva-gateway-code"] == "overloaded"
            assert trailing["riva-gateway-retry-after-ms"] == "2000"
        async with stub(target) as client:
            with pytest.raises(grpc.RpcError) as caught:
                await client.Recognize(pb.RecognizeRequest(audio=wav(bytes(32 * 1000))))
        assert caught.value.code().name == status


async def test_recordings_without_sound_are_refused() -> None:
    async with face(WordEngine()) as target, stub(target) as client:
        for data, said in [(b"", "empty"), (wav(b""), "no sound"), (b"%PDF-1.7 hello", "not audio")]:
            with pytest.raises(grpc.RpcError, match=said) as caught:
                await client.Recognize(pb.RecognizeRequest(audio=data))
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_stream_without_audio_ends_well() -> None:
    async with face(WordEngine()) as target:
        assert await talk(target, [config()]) == []


@pytest.mark.parametrize(
    ("limits", "messages", "said"),
    [
        (RivaFaceLimits(first_message_timeout_ms=100), [], "streaming_config first"),
        (RivaFaceLimits(idle_timeout_ms=100), [config()], "No audio came"),
    ],
)
async def test_silent_clients_are_let_go(limits: RivaFaceLimits, messages: list[Any], said: str) -> None:
    async with face(WordEngine(), limits=limits) as target, stub(target) as client:
        call = client.StreamingRecognize(timeout=LIMIT_S)
        for message in messages:
            await call.write(message)
        with pytest.raises(grpc.RpcError, match=said) as caught:
            await call.read()
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


class Chatter(WordEngine):
    """Says far more than it hears."""

    async def stream(self, audio: AsyncIterable[AudioInput], options: Options) -> Any:
        self.open_streams += 1
        try:
            for number in range(1_000_000):
                yield Final(number, 1, "many words " * 5000, number, number)
        finally:
            self.open_streams -= 1


async def test_a_client_that_does_not_read_is_let_go() -> None:
    engine = Chatter()
    async with face(engine, limits=RivaFaceLimits(slow_reader_timeout_ms=200)) as target, stub(target) as client:
        call = client.StreamingRecognize(timeout=LIMIT_S)
        await call.write(config())
        await until(lambda: engine.open_streams == 1)
        await until(lambda: engine.open_streams == 0)
        with pytest.raises(grpc.RpcError):
            await read_out(call)


class FinalsLast(WordEngine):
    """Says every final at the end of the audio, and not before."""

    async def stream(self, audio: AsyncIterable[AudioInput], options: Options) -> Any:
        held: list[Event] = []
        async for event in super().stream(audio, options):
            if isinstance(event, Final):
                held.append(event)
            else:
                yield event
        for event in held:
            yield event


async def failing(target: str, messages: list[Any]) -> tuple[list[str], grpc.RpcError]:
    """The finals before the failure of a stream, and the failure."""

    def work() -> tuple[list[str], grpc.RpcError]:
        with grpc.insecure_channel(target) as channel:
            heard: list[Any] = []
            stream = asr_grpc.RivaSpeechRecognitionStub(channel).StreamingRecognize(iter(messages), timeout=LIMIT_S)
            try:
                for response in stream:
                    heard.append(response)
            except grpc.RpcError as error:
                return finals(heard), error
            raise AssertionError("the stream did not fail")

    found: tuple[list[str], grpc.RpcError] = await in_thread(work)
    return found


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([config(), *audio(bytes(32 * 400)), config()], "second streaming_config"),
        (
            [config(encoding=0, sample_rate_hertz=0), *audio(wav(bytes(32 * 400))), *audio(wav(bytes(3200), 8000))],
            "changes its format",
        ),
    ],
)
async def test_what_was_said_before_a_mistake_is_answered(messages: list[Any], said: str) -> None:
    async with face(FinalsLast()) as target:
        heard, error = await failing(target, messages)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert said in str(error.details())
    assert heard == ["w1 w2 "]


async def test_what_was_said_before_a_silence_is_answered() -> None:
    limits = RivaFaceLimits(idle_timeout_ms=200)
    async with face(FinalsLast(), limits=limits) as target, stub(target) as client:
        call = client.StreamingRecognize(timeout=LIMIT_S)
        for message in (config(interim=False), *audio(bytes(32 * 400))):
            await call.write(message)
        assert finals([await call.read()]) == ["w1 w2 "]
        with pytest.raises(grpc.RpcError, match="No audio came"):
            await call.read()


@pytest.mark.parametrize("letter", ["x", "é", "語", "%"])
@pytest.mark.parametrize("field", ["language_code", "model"])
async def test_a_huge_wish_does_not_hide_what_is_wrong(field: str, letter: str) -> None:
    async with face(WordEngine()) as target:
        with pytest.raises(grpc.RpcError) as caught:
            await talk(target, [config(**{field: letter * 20_000})])
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        assert letter * 50 in str(caught.value.details())
        assert ("en-US" if field == "language_code" else "words-en") in str(caught.value.details())
        async with stub(target) as client:
            with pytest.raises(grpc.RpcError) as caught:
                await client.GetRivaSpeechRecognitionConfig(
                    pb.RivaSpeechRecognitionConfigRequest(model_name=letter * 20_000)
                )
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


class Gappy(WordEngine):
    """Loses its upstream after the second word, and finds another."""

    async def stream(self, audio: AsyncIterable[AudioInput], options: Options) -> Any:
        async for event in super().stream(audio, options):
            yield event
            if isinstance(event, Final) and event.utterance == 0:
                yield Status(State.FAILING_OVER, 1000)
                yield Gap(1000, 1200, GapCause.UPSTREAM_LOST)
                yield Status(State.RECOVERED, 1200)


async def test_audio_that_no_result_covers_is_noted_at_the_end() -> None:
    said = "Audio from 1000 to 1200 ms could not be recognized (upstream_lost)."
    async with face(Gappy()) as target, stub(target) as client:
        notes: list[str] = []
        responses = await talk(target, [config(interim=False), *audio(bytes(32 * 1500))], notes)
        assert finals(responses) == ["w1 w2 w3 w4 w5 ", "w6 w7 "]
        assert len(responses) == 2
        assert notes == [said]
        call = client.Recognize(pb.RecognizeRequest(audio=wav(bytes(32 * 1500))))
        await call
        assert dict(await call.trailing_metadata())["riva-gateway-note"] == said


class Wordy(WordEngine):
    """Fails with more words than a header holds."""

    async def models(self) -> Any:
        raise ASRError(Code.UNAVAILABLE, "語" * 20_000)


async def test_a_long_failure_keeps_its_status() -> None:
    async with face(Wordy()) as target:
        with pytest.raises(grpc.RpcError, match="語語語") as caught:
            await talk(target, [config()])
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_more_streams_than_there_are_places_are_refused() -> None:
    engine = WordEngine()
    async with (
        face(engine, admission=Admission(1, random=lambda: 0.5, clock=time.monotonic)) as target,
        stub(target) as client,
    ):
        call = client.StreamingRecognize(timeout=LIMIT_S)
        await call.write(config())
        await call.initial_metadata()
        with pytest.raises(grpc.RpcError, match="All 1 streams") as caught:
            await talk(target, [config()])
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert dict(caught.value.trailing_metadata())["riva-gateway-code"] == "overloaded"
        with pytest.raises(grpc.RpcError, match="All 1 streams"):
            await client.Recognize(pb.RecognizeRequest(audio=wav(bytes(3200))))
        await call.done_writing()
        await read_out(call)
        assert await talk(target, [config()]) == []


# --- ends


async def test_a_server_that_stops_first_answers_what_was_said(tmp_path: Path) -> None:
    async with AsyncExitStack() as rest:
        async with running(FinalsLast(), tmp_path) as addresses:
            channel = await rest.enter_async_context(grpc.aio.insecure_channel(f"localhost:{addresses.grpc_port}"))
            watch = health_grpc.HealthStub(channel).Watch(health.HealthCheckRequest(), timeout=LIMIT_S)
            assert (await watch.read()).status == health.HealthCheckResponse.SERVING
            call = asr_grpc.RivaSpeechRecognitionStub(channel).StreamingRecognize(timeout=LIMIT_S)
            silent = asr_grpc.RivaSpeechRecognitionStub(channel).StreamingRecognize(timeout=LIMIT_S)
            await silent.write(config(interim=False))
            await silent.initial_metadata()
            for message in (config(), *audio(bytes(32 * 400))):
                await call.write(message)
            while "w1 w2" not in (await call.read()).results[0].alternatives[0].transcript:
                pass
            begun = time.monotonic()
        # Far from the ten seconds that a call may hold up the end of the server.
        in_time(time.monotonic() - begun, 4)
        assert finals([await call.read()]) == ["w1 w2 "]
        for ended in (call, silent):
            assert await ended.read() is EOF
            assert await ended.code() is grpc.StatusCode.OK
            assert any("shutting down" in str(value) for _, value in await ended.trailing_metadata())
        assert (await watch.read()).status == health.HealthCheckResponse.NOT_SERVING
        assert await watch.read() is EOF


async def test_nobody_is_let_in_while_draining() -> None:
    made: list[RivaFace] = []
    async with face(WordEngine(), made=made) as target, grpc.aio.insecure_channel(target) as channel:
        client = asr_grpc.RivaSpeechRecognitionStub(channel)
        early = client.StreamingRecognize(timeout=LIMIT_S)
        await early.wait_for_connection()
        probe = health_grpc.HealthStub(channel)
        assert (await probe.Check(health.HealthCheckRequest())).status == health.HealthCheckResponse.SERVING
        made[0].drain()
        assert (await probe.Check(health.HealthCheckRequest())).status == health.HealthCheckResponse.NOT_SERVING
        calls: list[Callable[[], Any]] = [
            early.read,
            client.StreamingRecognize(timeout=LIMIT_S).read,
            lambda: client.Recognize(pb.RecognizeRequest(audio=wav(bytes(3200)))),
            lambda: client.GetRivaSpeechRecognitionConfig(pb.RivaSpeechRecognitionConfigRequest()),
        ]
        for attempt in calls:
            with pytest.raises(grpc.RpcError, match="shutting down") as caught:
                await attempt()
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("sent", [b"fLaC", b"RIFF"])
async def test_a_recording_cut_short_by_the_end_of_the_server_is_no_mistake(sent: bytes) -> None:
    made: list[RivaFace] = []
    async with face(WordEngine(), made=made) as target, stub(target) as client:
        call = client.StreamingRecognize(timeout=LIMIT_S)
        await call.write(config(encoding=0, sample_rate_hertz=0))
        await call.write(pb.StreamingRecognizeRequest(audio_content=sent))
        await call.initial_metadata()
        made[0].drain()
        assert await call.read() is EOF
        assert await call.code() is grpc.StatusCode.OK


async def read_out(call: Any) -> None:
    while await call.read() is not EOF:
        pass


async def until(condition: Callable[[], bool]) -> None:
    begun = time.monotonic()
    while not condition():
        in_time(time.monotonic() - begun, 5)
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("fault", ["", "hang"])
@pytest.mark.parametrize("end", ["cancel", "disconnect", "deadline"])
async def test_a_client_that_goes_ends_the_engines_stream(fault: str, end: str) -> None:
    engine = WordEngine(fault)
    async with face(engine) as target:
        before = asyncio.all_tasks()
        async with stub(target) as client:
            call = client.StreamingRecognize(timeout=0.5 if end == "deadline" else LIMIT_S)
            await call.write(config())
            await call.write(pb.StreamingRecognizeRequest(audio_content=bytes(6400)))
            await until(lambda: engine.open_streams == 1)
            if end == "cancel":
                call.cancel()
            elif end == "deadline":
                with pytest.raises(grpc.RpcError) as caught:
                    await read_out(call)
                assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            if end != "disconnect":
                await until(lambda: engine.open_streams == 0)
        await until(lambda: engine.open_streams == 0)
        await until(lambda: not {t for t in asyncio.all_tasks() - before if "riva_grpc" in repr(t)})
        gc.collect()


# --- health


async def test_health() -> None:
    engine = WordEngine()
    async with (
        face(engine, limits=RivaFaceLimits(health_interval_ms=20)) as target,
        grpc.aio.insecure_channel(target) as channel,
    ):
        client = health_grpc.HealthStub(channel)
        kinds = health.HealthCheckResponse
        for name in ("", "nvidia.riva.asr.RivaSpeechRecognition"):
            assert (await client.Check(health.HealthCheckRequest(service=name))).status == kinds.SERVING
        with pytest.raises(grpc.RpcError) as caught:
            await client.Check(health.HealthCheckRequest(service="other"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        watch = client.Watch(health.HealthCheckRequest(), timeout=LIMIT_S)
        assert (await watch.read()).status == kinds.SERVING
        engine.fault = "no-model"
        assert (await watch.read()).status == kinds.NOT_SERVING
        assert (await client.Check(health.HealthCheckRequest())).status == kinds.NOT_SERVING
        watch.cancel()


# --- the riva engine in front of the face


async def collect(engine: Engine, pieces: AsyncIterable[AudioInput], options: Options) -> list[Event]:
    async with asyncio.timeout(60):
        agreed = agree(options, await engine.models(), engine.features).options
        return [event async for event in engine.stream(pieces, agreed)]


async def test_events_pass_through_engine_and_face_unchanged() -> None:
    async def pieces() -> AsyncIterator[AudioInput]:
        for number in range(16):
            yield bytes(3200)
            if number == 12:
                yield EndUtterance()

    def plain(events: list[Event]) -> list[Event]:
        # Fed this fast, the server hears of the end of the audio before its pauses have been reported.
        found = [e for e in events if isinstance(e, Final | Flushed)]
        return [
            replace(e, reason=FinalReason.ENDPOINT) if isinstance(e, Final) and e.reason is FinalReason.STOP else e
            for e in found
        ]

    direct = await collect(WordEngine(), pieces(), Options())
    async with face(WordEngine()) as target:
        riva_engine = RivaEngine(RivaConfig(endpoint=target, force_eou="on"))
        through = await collect(riva_engine, pieces(), Options())
        await riva_engine.aclose()
    assert plain(through) == plain(direct)
    assert [e.reason for e in direct if isinstance(e, Final)] == [
        FinalReason.ENDPOINT,
        FinalReason.FINALIZE,
        FinalReason.STOP,
    ]


async def test_errors_keep_their_meaning_through_engine_and_face() -> None:
    async with face(WordEngine("unavailable@400")) as target:
        riva_engine = RivaEngine(RivaConfig(endpoint=target))
        with pytest.raises(ASRError) as caught:
            await collect(riva_engine, speech.chunks(bytes(32 * 1000)), Options())
        await riva_engine.aclose()
    assert caught.value.code.value == "unavailable"
    assert caught.value.retryable


async def test_real_speech_through_client_face_and_pocketsphinx() -> None:
    clip = speech.clip("greeting")
    local = LocalEngine(LocalConfig(workers=1))
    try:
        async with face(local) as target:
            engine = RivaEngine(RivaConfig(endpoint=target))
            direct = await collect(local, speech.chunks(clip.pcm), Options())
            through = await collect(engine, speech.chunks(clip.pcm), Options())
            await engine.aclose()
            sound = speech.path("greeting.wav").read_bytes()
            responses = await in_thread(lambda: streamed(service(target), cut(sound), enable_word_time_offsets=True))
    finally:
        await local.aclose()
    texts = [e.text for e in through if isinstance(e, Final)]
    assert texts == [e.text for e in direct if isinstance(e, Final)]
    assert speech.wer(clip.text, " ".join(texts)) <= clip.max_wer
    assert "".join(finals(responses)).split() == " ".join(texts).split()
    assert any(not x.is_final for r in responses for x in r.results)
    assert all(w.end_time > w.start_time for r in responses for x in r.results for w in x.alternatives[0].words)
