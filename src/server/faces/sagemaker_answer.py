"""What a SageMaker invocation is answered: `{"predictions": [{"results": […], "model_version"}]}`.

Pure. Times are seconds, speakers whole numbers, and a confidence is the recognizer's own number (Riva's is about a log
probability), 0.0 where it gives none. Silence is one result with an empty transcript, so that a client always finds
one. `transport`, `warnings` and `gaps` are ours: SageMaker passes no other header on than the custom attributes, and an
asynchronous endpoint keeps the body alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from asr.errors import ASRError
from asr.events import Final, Gap, Word
from asr.transcript import Transcript

Json = dict[str, Any]


def from_transcript(transcript: Transcript, transport: str, notes: Iterable[str] = ()) -> Json:
    """The answer for what the recognizer made of a recording."""
    speakers: dict[str, int] = {}
    results = [_result(final, speakers) for final in transcript.finals if final.text]
    warnings = [*notes, *transcript.warnings]
    if transcript.gaps:
        warnings.append("Some of the audio could not be recognized, because the recognizer was lost; see gaps.")
    return _answer(results or [_plain("")], transcript.model, transport, warnings, transcript.gaps)


def from_text(text: str, model: str, transport: str, notes: Iterable[str] = ()) -> Json:
    """The answer for a text without times, as a NIM's HTTP API gives it."""
    return _answer([_plain(text)], model, transport, notes, ())


def from_error(error: ASRError) -> Json:
    """The body of a failure. SageMaker shows it inside a sentence of its own, so it is short."""
    body: Json = {"error": error.message, "code": error.code.value}
    return body if error.param is None else {**body, "param": error.param}


def attributes(transport: str, engine: str = "", why_not: str = "") -> str:
    """The response's custom attributes: which way served the request.

    >>> attributes("grpc", "riva", "unavailable")
    'transport=grpc;engine=riva;http=unavailable'
    """
    more = (("engine", engine), ("http", why_not))
    return ";".join([f"transport={transport}", *(f"{name}={value}" for name, value in more if value)])


def _answer(results: list[Json], model: str, transport: str, warnings: Iterable[str], gaps: Iterable[Gap]) -> Json:
    prediction: Json = {"results": results, "model_version": model, "transport": transport}
    if said := list(dict.fromkeys(warnings)):
        prediction["warnings"] = said
    if lost := [{"start_time": gap.start_ms / 1000, "end_time": gap.end_ms / 1000} for gap in gaps]:
        prediction["gaps"] = lost
    return {"predictions": [prediction]}


def _plain(text: str) -> Json:
    return {
        "alternatives": [{"transcript": text, "confidence": 0.0, "words": []}],
        "is_final": True,
        "channel_tag": 1,
    }


def _result(final: Final, speakers: dict[str, int]) -> Json:
    first = {
        "transcript": final.text,
        "confidence": _confidence(final.confidence_raw, final.confidence),
        "words": [_word(word, speakers) for word in final.words],
    }
    more = [
        {
            "transcript": other.text,
            "confidence": _confidence(other.confidence_raw, other.confidence),
            "words": [_word(word, speakers) for word in other.words],
        }
        for other in final.alternatives
    ]
    return {"alternatives": [first, *more], "is_final": True, "channel_tag": final.channel + 1}


def _word(word: Word, speakers: dict[str, int]) -> Json:
    return {
        "word": word.text,
        "start_time": word.start_ms / 1000,
        "end_time": word.end_ms / 1000,
        "confidence": _confidence(word.confidence_raw, word.confidence),
        "speaker_tag": _tag(word.speaker, speakers),
    }


def _tag(speaker: str | None, speakers: dict[str, int]) -> int:
    if speaker is None:
        return 0
    return int(speaker) if speaker.isdecimal() else speakers.setdefault(speaker, len(speakers))


def _confidence(raw: float | None, probability: float | None) -> float:
    return raw if raw is not None else probability if probability is not None else 0.0
