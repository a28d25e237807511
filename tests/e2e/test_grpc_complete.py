"""The Riva face field by field: every encoding, every wish, several channels, reflection, and what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable
from dataclasses import fields
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

import sound
import speech
from asr.audio.g711 import alaw_table, mulaw_table
from asr.engine import AudioInput, EndUtterance, Features, Model, Readiness
from asr.errors import ASRError
from asr.events import Alternative, Event, Final, FinalReason, Flushed, Partial, Progress, Word
from asr.options import Endpointing, Options
from asr.riva_proto import asr as pb
from asr.riva_proto import audio as audio_pb
from e2e.test_grpc_face import LIMIT_S, audio, config, face, finals, in_thread, stub, talk
from server.faces.riva_grpc import RivaFaceLimits
from word_engine import WordEngine

ALL = Features(**{field.name: True for field in fields(Features)})


class Able:
    """Can do everything that is asked, and remembers what that was. Each channel's final tells how loud it was."""

    name = "able"

    def __init__(self, features: Features = ALL) -> None:
        self.features = features
        self.asked: list[Options] = []
        self.heard = b""
        self.ends = 0

    async def models(self) -> tuple[Model, ...]:
        return (Model("able-1", ("en-US",)),)

    async def ready(self) -> Readiness:
        return Readiness(True)

    def refusal(self) -> ASRError | None:
        return None

    async def aclose(self) -> None:
        return None

    async def stream(self, audio: AsyncIterable[AudioInput], options: Options) -> AsyncGenerator[Event]:
        self.asked.append(options)
        async for item in audio:
            if isinstance(item, EndUtterance):
                self.ends += 1
                yield Flushed(len(self.heard) // 32 // options.channels)
            else:
                self.heard += item
        samples = np.frombuffer(self.heard, "<i2").reshape(-1, options.channels)
        end_ms = len(samples) // 16
        for channel in range(options.channels):
            loud = int(np.abs(samples[:, channel].astype(int)).max())
            words = (Word("hello", 0, 100, 0.5, speaker="2"), Word("there", 100, 200, 0.25, speaker="anna"))
            if options.partials:
                yield Partial(0, 1, "hel", 0, 50, channel=channel, words=words[:1])
            other = Alternative("hallo", words[:1], 0.125)
            text = f"hello there {loud}"
            yield Final(0, 2, text, 0, 200, words, (other,), 0.75, None, "en-US", FinalReason.STOP, channel)
        yield Progress(end_ms)


async def recognize(target: str, sent: bytes, **chosen: Any) -> tuple[Any, list[str]]:
    """The answer of `Recognize`, and the notes beside it."""
    request = pb.RecognizeRequest(config=pb.RecognitionConfig(**chosen), audio=sent)
    request.id.value = "id-1"
    async with stub(target) as client:
        call = client.Recognize(request, timeout=LIMIT_S, metadata=(("function-id", "1598d209"),))
        response = await call
        notes = [str(value) for key, value in await call.trailing_metadata() or () if key == "riva-gateway-note"]
    return response, notes


def g711(table: np.ndarray[Any, Any], pcm: bytes) -> bytes:
    """The codes whose values come nearest to these samples."""
    order = np.argsort(table)
    samples = np.frombuffer(pcm, "<i2")
    places = np.clip(np.searchsorted(table[order], samples), 0, 255)
    return order[places].astype(np.uint8).tobytes()


SPOKEN = speech.pcm("greeting")[: 32 * 1000]
NUMBERS = np.frombuffer(SPOKEN, "<i2")
MULAW, ALAW = g711(mulaw_table(), SPOKEN), g711(alaw_table(), SPOKEN)


@pytest.mark.parametrize(
    ("sent", "chosen", "exactly"),
    [
        (SPOKEN, {"encoding": audio_pb.LINEAR_PCM, "sample_rate_hertz": 16_000}, SPOKEN),
        (sound.wav(SPOKEN), {"encoding": audio_pb.LINEAR_PCM, "sample_rate_hertz": 16_000}, SPOKEN),
        (sound.wav(SPOKEN), {"encoding": audio_pb.LINEAR_PCM}, SPOKEN),
        (sound.wav(SPOKEN), {}, SPOKEN),
        (sound.encoded(NUMBERS, 16_000, "flac", "flac"), {"encoding": audio_pb.FLAC}, SPOKEN),
        (
            sound.encoded(NUMBERS, 16_000, "flac", "flac"),
            {"encoding": audio_pb.FLAC, "sample_rate_hertz": 16_000},
            SPOKEN,
        ),
        (sound.encoded(NUMBERS, 16_000, "flac", "flac"), {}, SPOKEN),
        (
            MULAW,
            {"encoding": audio_pb.MULAW, "sample_rate_hertz": 16_000},
            mulaw_table()[np.frombuffer(MULAW, np.uint8)].astype("<i2").tobytes(),
        ),
        (
            ALAW,
            {"encoding": audio_pb.ALAW, "sample_rate_hertz": 16_000},
            alaw_table()[np.frombuffer(ALAW, np.uint8)].astype("<i2").tobytes(),
        ),
        (sound.encoded(NUMBERS, 16_000, "libopus", "ogg"), {"encoding": audio_pb.OGGOPUS}, None),
        (sound.encoded(NUMBERS, 16_000, "libopus", "ogg"), {}, None),
    ],
    ids=[
        "pcm",
        "riff",
        "riff-no-rate",
        "riff-unset",
        "flac",
        "flac-rate",
        "flac-unset",
        "mulaw",
        "alaw",
        "opus",
        "opus-unset",
    ],
)
async def test_a_recording_in_every_encoding(sent: bytes, chosen: dict[str, Any], exactly: bytes | None) -> None:
    engine = Able()
    async with face(engine) as target:
        response, notes = await recognize(target, sent, **chosen)
        streamed = await talk(target, [config(**{"encoding": 0, "sample_rate_hertz": 0} | chosen), *audio(sent, 997)])
    assert response.results[0].alternatives[0].transcript.startswith("hello there")
    assert response.id.value == "id-1"
    assert notes == []
    assert len(finals(streamed)) == 1
    # Both calls, one after the other.
    half = len(engine.heard) // 2
    assert engine.heard[:half] == engine.heard[half:]
    if exactly is not None:
        assert engine.heard[:half] == exactly
    else:
        assert abs(half - len(SPOKEN)) < 32 * 30


async def test_a_recording_over_the_bound_is_refused() -> None:
    # Opus of an hour is a few megabytes, far below the bound on messages.
    sent = sound.encoded(np.zeros(16_000 * 120, np.int16), 16_000, "libopus", "ogg")
    async with face(Able(), limits=RivaFaceLimits(max_audio_ms=60_000)) as target:
        with pytest.raises(grpc.RpcError, match="longer than 1 min,") as caught:
            await recognize(target, sent, encoding=audio_pb.OGGOPUS)
        assert len((await recognize(target, sound.wav(SPOKEN)))[0].results) == 1
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


WISHES: dict[str, Any] = {
    "language_code": "en-US",
    "max_alternatives": 2,
    "profanity_filter": True,
    "enable_word_time_offsets": True,
    "enable_automatic_punctuation": True,
    "verbatim_transcripts": True,
    "speech_contexts": [
        pb.SpeechContext(phrases=["Ann Arbor", "Riva"], boost=20),
        pb.SpeechContext(phrases=["Boston"], boost=-2),
    ],
    "diarization_config": pb.SpeakerDiarizationConfig(enable_speaker_diarization=True, max_speaker_count=3),
    "endpointing_config": pb.EndpointingConfig(
        start_history=300, start_threshold=0.25, stop_history=800, stop_history_eou=400, stop_threshold=0.5
    ),
    "custom_configuration": {"neural_vad.onset": "0.65"},
}


async def test_every_wish_reaches_the_recognizer_and_its_answer_comes_back() -> None:
    engine = Able()
    async with face(engine) as target:
        response, notes = await recognize(target, sound.wav(SPOKEN), **WISHES)
        streamed = await talk(target, [config(request_id="s-2", **WISHES), *audio(SPOKEN)])
    assert notes == []
    for asked, request_id in zip(engine.asked, ("id-1", "s-2"), strict=True):
        assert (asked.language, asked.max_alternatives, asked.profanity_filter) == ("en-US", 2, True)
        assert (asked.words, asked.punctuate, asked.verbatim) == (True, True, True)
        assert [(p.text, p.raw_boost) for p in asked.phrases] == [("Ann Arbor", 20), ("Riva", 20), ("Boston", -2)]
        assert asked.diarization is not None
        assert asked.diarization.max_speakers == 3
        assert asked.endpointing == Endpointing(
            silence_ms=800, eager_ms=400, start_ms=300, start_threshold=0.25, stop_threshold=0.5
        )
        assert dict(asked.upstream_options) == {"neural_vad.onset": "0.65"}
        assert asked.request_id == request_id
    for result in (response.results[0], next(x for r in streamed for x in r.results if x.is_final)):
        best, second = result.alternatives
        assert (best.confidence, second.transcript, second.confidence) == (0.75, "hallo ", 0.125)
        assert [(w.word, w.start_time, w.end_time, w.confidence) for w in best.words] == [
            ("hello", 0, 100, 0.5),
            ("there", 100, 200, 0.25),
        ]
        assert [w.speaker_tag for w in best.words] == [2, 1]
        assert list(best.language_code) == ["en-US"]
        assert result.channel_tag == 1
    assert {r.id.value for r in streamed} == {"s-2"}
    assert response.results[0].audio_processed == 1.0


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("enable_automatic_punctuation", True, "enable_automatic_punctuation"),
        ("profanity_filter", True, "profanity_filter"),
        ("max_alternatives", 3, "max_alternatives"),
        ("speech_contexts", [pb.SpeechContext(phrases=["Riva"], boost=4)], "speech_contexts"),
        ("diarization_config", pb.SpeakerDiarizationConfig(enable_speaker_diarization=True), "diarization_config"),
        ("endpointing_config", pb.EndpointingConfig(stop_history=800), "endpointing_config"),
        ("custom_configuration", {"a": "b"}, "custom_configuration"),
    ],
)
async def test_what_the_recognizer_cannot_do_is_noted_or_refused_by_name(field: str, value: Any, named: str) -> None:
    able = Able(Features())
    async with face(able) as target:
        _, notes = await recognize(target, sound.wav(SPOKEN), **{field: value})
        told: list[str] = []
        await talk(target, [config(**{field: value}), *audio(SPOKEN)], told)
    assert notes == told
    assert len(notes) == 1
    assert "does not support" in notes[0]
    async with face(Able(Features()), refuse_unsupported=True) as target:
        with pytest.raises(grpc.RpcError) as unary:
            await recognize(target, sound.wav(SPOKEN), **{field: value})
        with pytest.raises(grpc.RpcError) as streaming:
            await talk(target, [config(**{field: value}), *audio(SPOKEN)])
    for caught in (unary.value, streaming.value):
        assert caught.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert caught.details().startswith(f"{named}: ")
        said = dict(caught.trailing_metadata())
        assert (said["riva-gateway-field"], said["riva-gateway-code"]) == (named, "unsupported")


async def test_a_request_id_may_come_beside_the_message() -> None:
    engine = Able()
    async with face(engine) as target, stub(target) as client:
        request = pb.RecognizeRequest(audio=sound.wav(SPOKEN))
        response = await client.Recognize(request, metadata=(("x-request-id", "beside"),), timeout=LIMIT_S)
    assert response.id.value == engine.asked[0].request_id == "beside"


async def test_runtime_configuration() -> None:
    engine = Able()
    notes: list[str] = []
    both = pb.StreamingRecognizeRequest(audio_content=SPOKEN, runtime_config={"force_eou": "true", "tempo": "3"})
    off = pb.StreamingRecognizeRequest(audio_content=SPOKEN, runtime_config={"force_eou": "false"})
    async with face(engine) as target:
        await talk(target, [config(), both, off], notes)
    assert engine.ends == 1
    assert engine.heard == SPOKEN * 2
    assert len(notes) == 1
    assert "'tempo'" in notes[0]


# --- several channels

LEFT, RIGHT = b"\x00\x10" * 8_000, b"\x00\x04" * 8_000
BOTH = np.stack([np.frombuffer(LEFT, "<i2"), np.frombuffer(RIGHT, "<i2")], axis=1).tobytes()
SEPARATE = {"audio_channel_count": 2, "enable_separate_recognition_per_channel": True}


@pytest.mark.parametrize(
    ("setup", "chosen", "sent"),
    [
        ({}, SEPARATE | {"encoding": 1, "sample_rate_hertz": 16_000}, BOTH),
        ({}, SEPARATE | {"encoding": 0, "sample_rate_hertz": 0}, sound.wav(BOTH, sound.fmt(channels=2))),
        ({"stereo": "split"}, {"encoding": 0, "sample_rate_hertz": 0}, sound.wav(BOTH, sound.fmt(channels=2))),
    ],
    ids=["raw", "header", "setting"],
)
async def test_each_channel_is_recognized_on_its_own(
    setup: dict[str, Any], chosen: dict[str, Any], sent: bytes
) -> None:
    engine = Able()
    async with face(engine, **setup) as target:
        response, notes = await recognize(target, sent, **chosen)
        engine.heard = b""
        first = pb.StreamingRecognizeRequest(runtime_config={"force_eou": "true"})
        streamed = await talk(target, [config(**chosen), first, *audio(sent, 999)])
    assert [options.channels for options in engine.asked] == [2, 2]
    assert engine.heard == BOTH
    assert engine.ends == 1
    assert notes == []
    told = [(r.channel_tag, r.alternatives[0].transcript) for r in response.results]
    assert told == [(1, "hello there 4096 "), (2, "hello there 1024 ")]
    results = [x for r in streamed for x in r.results]
    spoken = [(x.channel_tag, x.alternatives[0].transcript) for x in results if x.is_final]
    assert [part for part in spoken if part[1]] == told
    assert [x.channel_tag for x in results if not x.is_final] == [1, 2]


async def test_mono_is_mono_also_where_channels_are_to_be_separate() -> None:
    engine = Able()
    async with face(engine) as target:
        await recognize(target, sound.wav(SPOKEN), enable_separate_recognition_per_channel=True)
        await talk(target, [config(enable_separate_recognition_per_channel=True)])
    assert [options.channels for options in engine.asked] == [1, 1]


async def test_channels_stay_refused_where_the_operator_refuses_them() -> None:
    async with face(Able(), stereo="refuse") as target:
        with pytest.raises(grpc.RpcError, match="channel") as caught:
            await recognize(target, BOTH, encoding=1, sample_rate_hertz=16_000, **SEPARATE)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_more_channels_than_can_be_recognized_are_refused() -> None:
    chosen = SEPARATE | {"audio_channel_count": 9, "encoding": 1, "sample_rate_hertz": 16_000}
    async with face(Able()) as target:
        with pytest.raises(grpc.RpcError, match="channels") as caught:
            await recognize(target, bytes(18 * 1600), **chosen)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


# --- the service itself


async def test_the_list_of_models_understands_names_as_calls_do() -> None:
    async with face(WordEngine(), aliases={"fast": "words-de"}) as target, stub(target) as client:

        async def listed(name: str) -> list[str]:
            answer = await client.GetRivaSpeechRecognitionConfig(
                pb.RivaSpeechRecognitionConfigRequest(model_name=name), timeout=LIMIT_S
            )
            assert {"type", "language_code", "sample_rate"} <= set(answer.model_config[0].parameters)
            return sorted({row.model_name for row in answer.model_config})

        assert await listed("fast") == ["words-de"]
        assert await listed("parakeet-1.1b-en-US-asr-streaming") == ["words-de", "words-en"]
        assert await listed("") == ["words-de", "words-en"]


async def test_reflection_tells_a_real_client_what_there_is() -> None:
    def look(target: str) -> tuple[list[str], list[str]]:
        with grpc.insecure_channel(target) as channel:
            pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
            names = sorted(ProtoReflectionDescriptorDatabase(channel).get_services())
            service = pool.FindServiceByName("nvidia.riva.asr.RivaSpeechRecognition")
            pool.FindServiceByName("grpc.health.v1.Health")
            request = service.FindMethodByName("StreamingRecognize").input_type
            return names, sorted(field.name for field in request.fields)

    async with face(WordEngine()) as target:
        names, wire_fields = await in_thread(lambda: look(target))
    assert names == [
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
        "nvidia.riva.asr.RivaSpeechRecognition",
    ]
    assert wire_fields == ["audio_content", "id", "runtime_config", "streaming_config"]


@pytest.mark.parametrize(
    "method", ["/nvidia.riva.asr.RivaSpeechRecognition/Other", "/nvidia.riva.tts.RivaSpeechSynthesis/Synthesize"]
)
async def test_what_is_not_served_is_unimplemented(method: str) -> None:
    async with face(WordEngine()) as target, grpc.aio.insecure_channel(target) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            async with asyncio.timeout(LIMIT_S):
                await channel.unary_unary(method)(b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
