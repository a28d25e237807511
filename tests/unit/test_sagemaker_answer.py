"""The shape of a SageMaker answer: that of the documents, seconds and whole speaker numbers included."""

from __future__ import annotations

import json

from asr.errors import ASRError, Code
from asr.events import Alternative, Final, Gap, GapCause, Word
from asr.transcript import Transcript
from server.faces.sagemaker_answer import attributes, from_error, from_text, from_transcript


def final(text: str, *words: Word, **more: object) -> Final:
    return Final(0, 1, text, 0, 1000, words=words, **more)  # type: ignore[arg-type]


def test_the_documented_shape_with_speakers() -> None:
    words = (
        Word("I", 2080, 2160, confidence_raw=0.2953037917613983, speaker="0"),
        Word("will", 2560, 2640, confidence_raw=0.1699565052986145, speaker="1"),
    )
    spoken = final("I will", *words, confidence_raw=0.18058110773563385)
    answer = from_transcript(Transcript("I will", (spoken,), model="parakeet-1-1b-ctc-en-us"), "grpc")
    assert answer == {
        "predictions": [
            {
                "results": [
                    {
                        "alternatives": [
                            {
                                "transcript": "I will",
                                "confidence": 0.18058110773563385,
                                "words": [
                                    {
                                        "word": "I",
                                        "start_time": 2.08,
                                        "end_time": 2.16,
                                        "confidence": 0.2953037917613983,
                                        "speaker_tag": 0,
                                    },
                                    {
                                        "word": "will",
                                        "start_time": 2.56,
                                        "end_time": 2.64,
                                        "confidence": 0.1699565052986145,
                                        "speaker_tag": 1,
                                    },
                                ],
                            }
                        ],
                        "is_final": True,
                        "channel_tag": 1,
                    }
                ],
                "model_version": "parakeet-1-1b-ctc-en-us",
                "transport": "grpc",
            }
        ]
    }


def test_a_text_alone_has_the_same_shape() -> None:
    (prediction,) = from_text("one two", "m", "http")["predictions"]
    (result,) = prediction["results"]
    assert result == {
        "alternatives": [{"transcript": "one two", "confidence": 0.0, "words": []}],
        "is_final": True,
        "channel_tag": 1,
    }
    assert (prediction["model_version"], prediction["transport"]) == ("m", "http")


def test_silence_is_one_result_with_an_empty_transcript() -> None:
    for finals in ((), (final(""),)):
        (prediction,) = from_transcript(Transcript("", finals), "grpc")["predictions"]
        assert [result["alternatives"][0]["transcript"] for result in prediction["results"]] == [""]


def test_alternatives_channels_and_speakers_without_numbers() -> None:
    spoken = final(
        "a", Word("a", 0, 1, speaker="anna"), Word("b", 1, 2, speaker="ben"), Word("c", 2, 3, speaker="anna"), channel=1
    )
    other = final("d", alternatives=(Alternative("dee", confidence=0.5),))
    (prediction,) = from_transcript(Transcript("a d", (spoken, other)), "grpc")["predictions"]
    first, second = prediction["results"]
    assert first["channel_tag"] == 2
    assert [word["speaker_tag"] for word in first["alternatives"][0]["words"]] == [0, 1, 0]
    assert [(one["transcript"], one["confidence"]) for one in second["alternatives"]] == [("d", 0.0), ("dee", 0.5)]


def test_what_was_left_out_and_what_was_lost_is_said() -> None:
    lost = Transcript("a", (final("a"),), warnings=("w",), gaps=(Gap(1000, 2500, GapCause.UPSTREAM_LOST),))
    (prediction,) = from_transcript(lost, "grpc", ["n", "w"])["predictions"]
    assert prediction["gaps"] == [{"start_time": 1.0, "end_time": 2.5}]
    assert prediction["warnings"][:2] == ["n", "w"]
    assert "gaps" in prediction["warnings"][2]


def test_an_error_is_a_short_json_object() -> None:
    body = from_error(ASRError(Code.TOO_LARGE, "Too much.", param="file"))
    assert body == {"error": "Too much.", "code": "too_large", "param": "file"}
    assert len(json.dumps(from_error(ASRError(Code.TIMEOUT, "Late.")))) < 100


def test_the_attributes_are_visible_ascii() -> None:
    assert attributes("http") == "transport=http"
    assert attributes("grpc", "local", "not-configured") == "transport=grpc;engine=local;http=not-configured"
