"""What a client may set in OpenAI's realtime transcription, in both spellings, and what it is told of the rest."""

from __future__ import annotations

import json
from typing import Any

import pytest

from asr.audio import Encoding
from asr.errors import ASRError, Code
from server.faces.realtime.openai_session import OpenAISession, updated


def nested(**heard: Any) -> dict[str, Any]:
    return {"type": "transcription", "audio": {"input": heard}}


def after(*updates: dict[str, Any], flat: bool = False) -> OpenAISession:
    session = OpenAISession()
    for update in updates:
        session, _ = updated(session, update, flat=flat)
    return session


def warnings(update: dict[str, Any], *, flat: bool = False) -> str:
    return " ".join(updated(OpenAISession(), update, flat=flat)[1])


@pytest.mark.parametrize(
    ("said", "encoding", "rate_hz"),
    [
        ({"type": "audio/pcm"}, Encoding.PCM_S16LE, 24_000),
        ({"type": "audio/pcm", "rate": 24_000}, Encoding.PCM_S16LE, 24_000),
        ({"type": "audio/pcm", "rate": 16_000}, Encoding.PCM_S16LE, 16_000),
        ({"type": "audio/pcmu"}, Encoding.MULAW, 8_000),
        ({"type": "audio/pcma"}, Encoding.ALAW, 8_000),
    ],
)
def test_formats(said: dict[str, Any], encoding: Encoding, rate_hz: int) -> None:
    session = after(nested(format=said))
    assert (session.format.encoding, session.format.sample_rate_hz) == (encoding, rate_hz)
    assert session.bytes_per_ms == rate_hz * (2 if encoding is Encoding.PCM_S16LE else 1) / 1000


@pytest.mark.parametrize(
    ("name", "encoding"),
    [("pcm16", Encoding.PCM_S16LE), ("g711_ulaw", Encoding.MULAW), ("g711_alaw", Encoding.ALAW)],
)
def test_formats_of_the_beta(name: str, encoding: Encoding) -> None:
    session = after({"input_audio_format": name}, flat=True)
    assert session.format.encoding is encoding
    assert session.to_json("s", flat=True)["input_audio_format"] == name


def test_a_field_that_is_left_out_keeps_its_value() -> None:
    session = after(
        nested(transcription={"model": "m", "language": "de"}, turn_detection=None, format={"type": "audio/pcmu"}),
        nested(transcription={"prompt": "Zyntriq"}),
    )
    options = session.options()
    assert (options.model, options.language, [p.text for p in options.phrases]) == ("m", "de", ["Zyntriq"])
    assert session.turns is None
    assert session.type == "audio/pcmu"


def test_what_is_said_is_shown_again() -> None:
    said = {"type": "server_vad", "silence_duration_ms": 350, "prefix_padding_ms": 600}
    session = after(nested(turn_detection=said, noise_reduction={"type": "far_field"}))
    shown = session.to_json("sess_1", flat=False)
    assert shown["audio"]["input"]["turn_detection"] == said
    assert shown["audio"]["input"]["noise_reduction"] == {"type": "far_field"}
    assert shown["type"] == "transcription"
    assert session.options().endpointing is not None
    assert session.options().endpointing.silence_ms == 350  # type: ignore[union-attr]


def test_turns_nobody_spoke_of_are_the_recognizers_own() -> None:
    assert OpenAISession().turns is not None
    assert OpenAISession().options().endpointing is None


@pytest.mark.parametrize("model", ["gpt-realtime-whisper", "gpt-live-transcribe"])
def test_models_that_openai_serves_without_turns_leave_them_to_the_client(model: str) -> None:
    assert after(nested(transcription={"model": model})).turns is None
    said = nested(transcription={"model": model}, turn_detection={"type": "server_vad"})
    assert after(said).turns is not None


@pytest.mark.parametrize(("eagerness", "silence_ms"), [("low", 1500), ("medium", 800), ("high", 400), (None, 800)])
def test_eagerness_is_a_pause(eagerness: str | None, silence_ms: int) -> None:
    said = {"type": "semantic_vad", **({"eagerness": eagerness} if eagerness else {})}
    assert after(nested(turn_detection=said)).options().endpointing.silence_ms == silence_ms  # type: ignore[union-attr]
    assert str(silence_ms) in warnings(nested(turn_detection=said))


def test_languages_and_keywords() -> None:
    session = after(nested(transcription={"languages": ["english", "de"], "keywords": ["Aoife", "Zyntriq"]}))
    assert session.options().language == "en"
    assert [phrase.text for phrase in session.options().phrases] == ["Aoife", "Zyntriq"]
    later, _ = updated(session, nested(transcription={"language": "fr"}), flat=False)
    assert later.options().language == "fr"
    assert "One language" in warnings(nested(transcription={"languages": ["en", "de"]}))


@pytest.mark.parametrize(
    ("update", "word"),
    [
        (nested(noise_reduction={"type": "near_field"}), "Noise"),
        (nested(turn_detection={"type": "server_vad", "threshold": 0.5}), "threshold"),
        (nested(turn_detection={"type": "server_vad", "idle_timeout_ms": 5000}), "idle_timeout_ms"),
        (nested(turn_detection={"type": "server_vad", "create_response": True}), "create_response"),
        (nested(transcription={"delay": "low"}), "delay"),
        (nested(transcription=None), "null"),
        ({"include": ["item.input_audio_transcription.logprobs"]}, "probabilities"),
        ({"include": ["something.else"]}, "something.else"),
        ({"instructions": "be kind"}, "session.instructions"),
        (nested(gain=2), "session.audio.input.gain"),
        ({"audio": {"output": {"voice": "x"}}}, "session.audio.output"),
        ({f"field{n}": 1 for n in range(30)}, "20 more"),
    ],
)
def test_what_is_not_granted_is_told(update: dict[str, Any], word: str) -> None:
    assert word in warnings(update)


def test_what_is_granted_needs_no_words() -> None:
    assert warnings(nested(format={"type": "audio/pcm", "rate": 24_000}, transcription={"model": "whisper-1"})) == ""
    assert warnings(nested(turn_detection=None, noise_reduction=None)) == ""
    assert warnings({"id": "s", "object": "o", "client_secret": None, "expires_at": 1}) == ""


@pytest.mark.parametrize(
    ("update", "param"),
    [
        ([], "session"),
        ({"audio": 3}, "session.audio"),
        ({"audio": {"input": []}}, "session.audio.input"),
        ({"type": "realtime"}, "session.type"),
        ({"include": "logprobs"}, "session.include"),
        (nested(format={"type": "audio/opus"}), "session.audio.input.format.type"),
        (nested(format={"type": []}), "session.audio.input.format.type"),
        (nested(format={"type": "audio/pcmu", "rate": 16_000}), "session.audio.input.format.rate"),
        (nested(format={"type": "audio/pcm", "rate": 1}), "session.audio.input.format.rate"),
        (nested(format={"type": "audio/pcm", "rate": True}), "session.audio.input.format.rate"),
        (nested(transcription="whisper-1"), "session.audio.input.transcription"),
        (nested(transcription={"model": 1}), "session.audio.input.transcription.model"),
        (nested(transcription={"keywords": "a"}), "session.audio.input.transcription.keywords"),
        (nested(turn_detection={"type": "magic"}), "session.audio.input.turn_detection.type"),
        (
            nested(turn_detection={"type": "server_vad", "silence_duration_ms": -1}),
            "session.audio.input.turn_detection.silence_duration_ms",
        ),
        (
            nested(turn_detection={"type": "semantic_vad", "eagerness": "x"}),
            "session.audio.input.turn_detection.eagerness",
        ),
        (nested(noise_reduction="far"), "session.audio.input.noise_reduction"),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_name(update: Any, param: str) -> None:
    with pytest.raises(ASRError) as refused:
        updated(OpenAISession(), update, flat=False)
    assert (refused.value.code, refused.value.param) == (Code.BAD_REQUEST, param)


@pytest.mark.parametrize(
    ("update", "param"),
    [
        ({"input_audio_format": "mp3"}, "session.input_audio_format"),
        ({"input_audio_format": ["pcm16"]}, "session.input_audio_format"),
        ({"input_audio_transcription": []}, "session.input_audio_transcription"),
        ({"input_audio_transcription": {"language": 1}}, "session.input_audio_transcription.language"),
        ({"turn_detection": {"type": "magic"}}, "session.turn_detection.type"),
    ],
)
def test_refusals_of_the_beta_name_its_own_fields(update: Any, param: str) -> None:
    with pytest.raises(ASRError) as refused:
        updated(OpenAISession(), update, flat=True)
    assert refused.value.param == param


ODD: tuple[Any, ...] = (
    None,
    0,
    -1,
    0.5,
    1e308,
    True,
    "",
    "x" * 5000,
    "\x00",
    [],
    [1],
    [[]],
    ["a"],
    {},
    {"type": []},
    {"a": 1},
)
NESTED = (
    "format",
    "format.type",
    "format.rate",
    "transcription",
    "transcription.model",
    "transcription.language",
    "transcription.languages",
    "transcription.prompt",
    "transcription.keywords",
    "transcription.delay",
    "noise_reduction",
    "noise_reduction.type",
    "turn_detection",
    "turn_detection.type",
    "turn_detection.threshold",
    "turn_detection.prefix_padding_ms",
    "turn_detection.silence_duration_ms",
    "turn_detection.eagerness",
    "turn_detection.create_response",
)
FLAT = (
    "input_audio_format",
    "input_audio_transcription",
    "input_audio_noise_reduction",
    "turn_detection",
    "include",
    "type",
)


@pytest.mark.parametrize("name", [*NESTED, *(f"flat {name}" for name in FLAT)])
def test_odd_values_are_taken_or_refused_and_nothing_else(name: str) -> None:
    flat = name.startswith("flat ")
    outer, _, inner = name.removeprefix("flat ").partition(".")
    for value in ODD:
        within = {"type": "semantic_vad", inner: value} if inner == "eagerness" else {inner: value}
        fields = {outer: within if inner else value}
        session, refused = OpenAISession(), None
        try:
            session, _ = updated(session, fields if flat else nested(**fields), flat=flat)
            session.options()
        except ASRError as error:
            refused = error
        assert refused is None or (refused.code is Code.BAD_REQUEST and refused.param), value
        for as_flat in (True, False):
            json.dumps(session.to_json("s", flat=as_flat))
