"""A NIM session's fields, and what they ask of the recognizer."""

from __future__ import annotations

from typing import Any

import pytest

from asr.audio import AudioFormat, Encoding
from asr.errors import ASRError, Code
from asr.options import Diarization, Endpointing, Options, Phrase
from server.faces.realtime.nim_session import merged, new_session, read_session

BASE = new_session("sess_1")


def reading(**changes: Any) -> Any:
    return read_session(merged(BASE, changes))


def test_session_as_it_is_made_asks_for_nothing() -> None:
    wishes = reading()
    assert wishes.options == Options(words=False)
    assert wishes.format == AudioFormat(Encoding.PCM_S16LE, 16_000)
    assert (wishes.is_file, wishes.words, wishes.warnings) == (False, False, ())


def test_every_field_means_what_it_says() -> None:
    wishes = reading(
        input_audio_transcription={"language": "de-DE", "model": "m", "prompt": "Parakeet, Zyntriq"},
        input_audio_params={"sample_rate_hz": 48_000, "num_channels": 1},
        recognition_config={
            "enable_automatic_punctuation": True,
            "enable_word_time_offsets": True,
            "enable_profanity_filter": True,
            "enable_verbatim_transcripts": True,
            "custom_configuration": "neural_vad.onset:0.85, enable_vad_endpointing:true",
        },
        speaker_diarization={"enable_speaker_diarization": True, "max_speaker_count": 3},
        word_boosting={"enable_word_boosting": True, "word_boosting_list": [{"phrases": ["Aoife"], "boost": 10}]},
        endpointing_config={"start_history": 300, "stop_history": 700, "stop_threshold": 0.9, "stop_history_eou": -1},
    )
    assert wishes.options == Options(
        language="de-DE",
        model="m",
        words=True,
        punctuate=True,
        verbatim=True,
        profanity_filter=True,
        diarization=Diarization(3),
        phrases=(Phrase("Aoife", 0.5, raw_boost=10.0), Phrase("Parakeet"), Phrase("Zyntriq")),
        endpointing=Endpointing(start_ms=300, silence_ms=700, stop_threshold=0.9),
        upstream_options={"neural_vad.onset": "0.85", "enable_vad_endpointing": "true"},
    )
    assert wishes.format.sample_rate_hz == 48_000


def test_file_tells_itself_what_it_is() -> None:
    wishes = reading(input_audio_format="none", input_audio_params={"sample_rate_hz": 8_000, "num_channels": 2})
    assert wishes.is_file
    assert wishes.format == AudioFormat(Encoding.AUTO, None)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"input_audio_params": {"num_channels": 2}}, "mixed"),
        ({"recognition_config": {"max_alternatives": 3}}, "reading"),
        (
            {"input_audio_transcription": {"prompt": "please be careful with what you hear in this long line today"}},
            "prompt",
        ),
    ],
)
def test_what_means_less_than_it_says_is_told(change: dict[str, Any], word: str) -> None:
    (warning,) = reading(**change).warnings
    assert word in warning


def test_boosting_that_is_switched_off_boosts_nothing() -> None:
    rows = [{"phrases": ["x"], "boost": 4}]
    assert reading(word_boosting={"word_boosting_list": rows}).options.phrases == ()


@pytest.mark.parametrize(
    "change",
    [
        {"input_audio_format": "mp3"},
        {"input_audio_format": 7},
        {"input_audio_params": {"sample_rate_hz": "16000"}},
        {"input_audio_params": {"sample_rate_hz": 1}},
        {"input_audio_params": {"sample_rate_hz": 16000.5}},
        {"input_audio_params": {"num_channels": 99}},
        {"input_audio_transcription": {"language": 3}},
        {"recognition_config": {"enable_word_time_offsets": 3}},
        {"recognition_config": {"custom_configuration": "a"}},
        {"recognition_config": {"custom_configuration": ":a"}},
        {"recognition_config": {"custom_configuration": ",".join(f"k{n}:v" for n in range(200))}},
        {"speaker_diarization": {"enable_speaker_diarization": "maybe"}},
        {"word_boosting": {"enable_word_boosting": True, "word_boosting_list": {"a": 1}}},
        {"word_boosting": {"enable_word_boosting": True, "word_boosting_list": ["a"]}},
        {"word_boosting": {"enable_word_boosting": True, "word_boosting_list": [{"phrases": ["a"], "boost": "x"}]}},
        {"endpointing_config": {"stop_history": 1_000_000}},
        {"endpointing_config": {"stop_threshold": 2}},
        {"word_boosting": {"enable_word_boosting": True, "word_boosting_list": [{"phrases": ["a"], "boost": 1e300}]}},
        {"speaker_diarization": {"enable_speaker_diarization": True, "max_speaker_count": 1e30}},
        {"endpointing_config": 7},
    ],
)
def test_impossible_values_are_refused_by_name(change: dict[str, Any]) -> None:
    with pytest.raises(ASRError) as caught:
        reading(**change)
    assert caught.value.code is Code.BAD_REQUEST
    assert caught.value.param


def test_unknown_fields_are_kept_and_a_null_section_changes_nothing() -> None:
    session = merged(BASE, {"mine": {"a": 1}, "endpointing_config": None, "id": "other"})
    assert session["mine"] == {"a": 1}
    assert session["endpointing_config"] == BASE["endpointing_config"]
    assert session["id"] == "other"
