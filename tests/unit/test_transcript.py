"""Transcripts: joining finals, and JSON there and back."""

import json
from dataclasses import replace

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr.errors import ASRError, Code
from asr.events import Alternative, Final, FinalReason, Flushed, Gap, GapCause, Partial, Progress, SpeechStarted, Word
from asr.transcript import SCHEMA, Transcript, TranscriptBuilder, fold, from_json, join, schema, to_json

HELLO = Final(
    0,
    3,
    "hello there",
    100,
    900,
    words=(Word("hello", 100, 400, confidence=0.5), Word("there", 450, 900, confidence_raw=-1.5, speaker="1")),
    alternatives=(Alternative("hello hair", confidence=0.25),),
    confidence=0.875,
    language="en-US",
)
SILENCE = Final(1, 1, "", 900, 2000, reason=FinalReason.STOP)
WORLD = Final(2, 1, "world", 2000, 2500, reason=FinalReason.STOP)


def test_fold_joins_finals_with_single_blanks_and_keeps_empty_ones() -> None:
    transcript = fold([Partial(0, 1, "hel", 100, 300), HELLO, SILENCE, WORLD], model="m")
    assert transcript.text == "hello there world"
    assert transcript.finals == (HELLO, SILENCE, WORLD)
    assert [word.text for word in transcript.words] == ["hello", "there"]
    assert (transcript.language, transcript.model) == ("en-US", "m")


def test_the_length_is_the_last_thing_heard_unless_it_is_known() -> None:
    events = [SpeechStarted(50), HELLO, Progress(3000), Flushed(2900)]
    assert fold(events).duration_ms == 3000
    assert fold(events, duration_ms=3123).duration_ms == 3123
    assert fold([]) == Transcript("")


def test_warnings_are_said_once() -> None:
    builder = TranscriptBuilder(warnings=["a", "a"])
    builder.warn("b")
    builder.warn("b")
    assert builder.build().warnings == ("a", "b")


@pytest.mark.parametrize(
    ("texts", "language", "joined"),
    [
        (["one", "", " two "], "en-US", "one two"),
        (["你好。", "世界"], "zh-CN", "你好。世界"),
        (["你好", "世界"], "", "你好世界"),
        (["今日は", "いい天気"], "ja-JP", "今日はいい天気"),
        (["第3", "章"], "zh", "第3章"),
        (["hello", "world"], "zh-CN", "hello world"),
        (["안녕", "세상"], "ko-KR", "안녕 세상"),
        (["see", "日本"], "en-US", "see 日本"),
        (["สวัสดี", "ครับ"], "th-TH", "สวัสดีครับ"),
    ],
)
def test_scripts_without_blanks_are_joined_without(texts: list[str], language: str, joined: str) -> None:
    assert join(texts, language) == joined


@given(st.lists(st.text("ab \n", max_size=6), max_size=6))
def test_joining_never_doubles_a_blank_between_texts(texts: list[str]) -> None:
    stripped = [text.strip() for text in texts if text.strip()]
    assert join(texts) == " ".join(stripped)


def test_json_fits_the_schema_and_comes_back() -> None:
    transcript = replace(fold([HELLO, SILENCE, WORLD], model="m", duration_ms=2500), warnings=("w",))
    message = json.loads(json.dumps(to_json(transcript)))
    jsonschema.Draft202012Validator.check_schema(schema())
    jsonschema.validate(message, schema())
    jsonschema.validate(to_json(Transcript("")), schema())
    assert message["schema"] == SCHEMA == "riva-gateway.transcript/1"
    assert from_json(message) == transcript
    assert from_json({**message, "later": 1}) == transcript


def test_the_schema_refuses_what_is_no_transcript() -> None:
    message = to_json(fold([HELLO]))
    for broken in ({**message, "duration_ms": 0.5}, {**message, "schema": "x"}, {**message, "finals": [{"text": "x"}]}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, schema())


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"schema": "riva-gateway.transcript/2"},
        {"schema": SCHEMA},
        {"schema": SCHEMA, "finals": [3]},
        {"schema": SCHEMA, "text": "", "duration_ms": 0, "finals": [{"type": "final"}]},
    ],
)
def test_reading_what_is_no_transcript_is_a_clear_error(message: dict[str, object]) -> None:
    with pytest.raises(ASRError) as caught:
        from_json(message)
    assert caught.value.code is Code.BAD_REQUEST


def test_a_gap_is_kept_and_comes_back() -> None:
    gap = Gap(900, 2_000, GapCause.UPSTREAM_LOST)
    transcript = fold([HELLO, gap])
    assert transcript.gaps == (gap,)
    assert transcript.duration_ms >= 2_000
    assert from_json(json.loads(json.dumps(to_json(transcript)))) == transcript
    older = to_json(transcript)
    del older["gaps"]
    assert from_json(older).gaps == ()
