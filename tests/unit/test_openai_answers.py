"""Transcripts as OpenAI's bodies."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from asr.events import Final, Gap, GapCause, Word
from asr.options import Options
from asr.transcript import Transcript, fold
from server.faces.openai_answers import Turns, body_of, delta_event, done_event, notes_of, sse
from server.faces.openai_form import ResponseFormat, Wanted

FIRST = Final(
    0,
    1,
    "Well hello.",
    100,
    1_250,
    (Word("Well", 100, 480), Word("hello.", 480, 1_250)),
    confidence=0.5,
)
SECOND = Final(1, 1, "Bye.", 2_001, 2_400, (Word("Bye.", 2_001, 2_400),), confidence_raw=-1.78)
EMPTY = Final(2, 1, "", 2_400, 3_000)
TALK = fold([FIRST, SECOND, EMPTY], language="en-US", duration_ms=3_210)


def made(response_format: ResponseFormat, *granularities: str, transcript: Transcript = TALK) -> bytes:
    return body_of(transcript, Wanted(Options(), response_format, granularities=granularities)).content


def parsed(response_format: ResponseFormat, *granularities: str) -> dict[str, Any]:
    answer: dict[str, Any] = orjson.loads(made(response_format, *granularities))
    return answer


def test_json_is_the_text_and_what_was_used() -> None:
    assert parsed("json") == {"text": "Well hello. Bye.", "usage": {"type": "duration", "seconds": 3.21}}


def test_text_ends_its_line() -> None:
    assert made("text") == b"Well hello. Bye.\n"


def test_captions_are_plain_bodies() -> None:
    assert made("srt").startswith(b"1\n00:00:00,100 --> 00:00:01,250\nWell hello.\n")
    assert made("vtt").startswith(b"WEBVTT\n\n00:00:00.100 --> 00:00:01.250\n")
    for kind in ("text", "srt", "vtt"):
        assert body_of(TALK, Wanted(Options(), kind)).media_type == "text/plain; charset=utf-8"  # type: ignore[arg-type]


def test_verbose_json_has_segments_in_seconds_and_the_language_by_name() -> None:
    answer = parsed("verbose_json", "segment")
    assert {key: answer[key] for key in ("task", "language", "duration", "text")} == {
        "task": "transcribe",
        "language": "english",
        "duration": 3.21,
        "text": "Well hello. Bye.",
    }
    first, second = answer["segments"]
    assert (first["id"], first["start"], first["end"], first["seek"]) == (0, 0.1, 1.25, 10)
    assert (second["id"], second["start"], second["end"]) == (1, 2.001, 2.4)
    assert first["text"] + second["text"] == answer["text"]
    assert first["avg_logprob"] == pytest.approx(-0.6931)
    assert second["avg_logprob"] == -1.78
    assert set(first) == {
        "id", "seek", "start", "end", "text", "tokens", "temperature", "avg_logprob", "compression_ratio",
        "no_speech_prob",
    }  # fmt: skip
    assert "words" not in answer


def test_verbose_json_shows_the_times_that_were_asked_for() -> None:
    answer = parsed("verbose_json", "word")
    assert answer["words"][1] == {"word": "hello.", "start": 0.48, "end": 1.25}
    assert "segments" not in answer
    assert {"words", "segments"} <= set(parsed("verbose_json", "word", "segment"))


def test_text_that_repeats_itself_shows_by_its_compression() -> None:
    def ratio(text: str) -> float:
        body = made("verbose_json", "segment", transcript=fold([Final(0, 1, text, 0, 9)]))
        value: float = orjson.loads(body)["segments"][0]["compression_ratio"]
        return value

    assert ratio("again and " * 60) > 2.4 > ratio("Well hello there, everyone.")


def spoken(*words: tuple[str, str | None], channel: int = 0) -> Final:
    told = tuple(Word(text, n * 100, n * 100 + 90, speaker=who) for n, (text, who) in enumerate(words))
    return Final(0, 1, " ".join(text for text, _ in words), 0, 1_000, told, channel=channel)


def test_diarized_json_has_a_segment_for_each_turn() -> None:
    talk = fold([spoken(("hi", "7"), ("there", "7"), ("hello", "3"), ("you", None)), spoken(("ok", "7"))])
    answer = orjson.loads(made("diarized_json", transcript=talk))
    assert [(s["speaker"], s["text"], s["start"]) for s in answer["segments"]] == [
        ("A", "hi there", 0.0),
        ("B", "hello you", 0.2),
        ("A", "ok", 0.0),
    ]
    assert [s["id"] for s in answer["segments"]] == ["seg_1", "seg_2", "seg_3"]
    assert answer["task"] == "transcribe"


def test_speakers_on_two_channels_are_two_and_letters_do_not_run_out() -> None:
    turns = Turns()
    assert [s["speaker"] for s in turns.of(spoken(("a", "1")))] == ["A"]
    assert [s["speaker"] for s in turns.of(spoken(("b", "1"), channel=1))] == ["B"]
    many = turns.of(spoken(*((f"w{n}", f"s{n}") for n in range(30))))
    assert [s["speaker"] for s in many][-6:] == ["AA", "AB", "AC", "AD", "AE", "AF"]


def test_a_final_without_words_is_one_segment() -> None:
    (segment,) = Turns().of(Final(0, 1, "hi", 10, 20))
    assert (segment["speaker"], segment["text"], segment["start"], segment["end"]) == ("A", "hi", 0.01, 0.02)


def test_events_of_a_stream() -> None:
    assert delta_event("hi") == {"type": "transcript.text.delta", "delta": "hi"}
    assert delta_event("hi", "seg_1")["segment_id"] == "seg_1"
    assert done_event(TALK)["text"] == TALK.text
    assert "warnings" not in done_event(TALK)
    assert done_event(TALK, ["odd"])["warnings"] == ["odd"]
    assert sse({"a": 1}) == b'data: {"a":1}\n\n'


def test_audio_that_no_words_stand_for_is_said() -> None:
    talk = fold([FIRST, Gap(1_250, 2_000, GapCause.UPSTREAM_LOST)], warnings=["odd"])
    lost = "The audio from 1.25 s to 2 s could not be recognized."
    assert notes_of(talk) == ("odd", lost)
    for written in ("json", "verbose_json", "diarized_json"):
        assert orjson.loads(made(written, transcript=talk))["warnings"] == [lost]
        assert "warnings" not in orjson.loads(made(written))
