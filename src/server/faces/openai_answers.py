"""A `Transcript` as OpenAI's bodies (json, text, srt, vtt, verbose_json, diarized_json) and a stream's events. Pure.

Times are seconds as floats, to the millisecond. What OpenAI's schema demands and no recognizer here knows (token ids,
`no_speech_prob`) is empty or 0.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import orjson

from asr.captions import to_srt, to_vtt
from asr.errors import ASRError
from asr.events import Final, Word
from asr.transcript import Transcript, join, seam
from server.faces.openai_form import Wanted
from server.languages import name_of
from server.refusals import openai_error

Json = dict[str, Any]

TEXT_TYPE = "text/plain; charset=utf-8"
_SEEK_MS = 10


@dataclass(frozen=True, slots=True)
class Body:
    """An answer: its bytes and their media type."""

    content: bytes
    media_type: str


def body_of(transcript: Transcript, wanted: Wanted) -> Body:
    """The answer in the format that is wanted."""
    match wanted.response_format:
        case "text":
            return Body(f"{transcript.text}\n".encode(), TEXT_TYPE)
        case "srt":
            return Body(to_srt(transcript).encode(), TEXT_TYPE)
        case "vtt":
            return Body(to_vtt(transcript).encode(), TEXT_TYPE)
        case "verbose_json":
            answer = verbose(transcript, wanted)
        case "diarized_json":
            answer = diarized(transcript)
        case _:
            answer = {"text": transcript.text, "usage": usage(transcript.duration_ms)}
    if lost := _lost(transcript):  # such a text must not look complete
        answer["warnings"] = lost
    return Body(orjson.dumps(answer), "application/json")


def notes_of(transcript: Transcript) -> tuple[str, ...]:
    """What a client should know of an answer beside its text: warnings, and audio that no words stand for."""
    return (*transcript.warnings, *_lost(transcript))


def usage(duration_ms: int) -> Json:
    """What was used: seconds of audio."""
    return {"type": "duration", "seconds": _seconds(duration_ms)}


def verbose(transcript: Transcript, wanted: Wanted) -> Json:
    """The `verbose_json` object: with segments, words or both, as asked."""
    answer: Json = {
        "task": "transcribe",
        "language": name_of(transcript.language),
        "duration": _seconds(transcript.duration_ms),
        "text": transcript.text,
    }
    if "segment" in wanted.granularities:
        answer["segments"] = segments(transcript, wanted.temperature)
    if "word" in wanted.granularities:
        answer["words"] = [
            {"word": word.text, "start": _seconds(word.start_ms), "end": _seconds(word.end_ms)}
            for word in transcript.words
        ]
    answer["usage"] = usage(transcript.duration_ms)
    return answer


def segments(transcript: Transcript, temperature: float = 0.0) -> list[Json]:
    """One segment for each final that has text. Their texts joined are the transcript's text, blanks included."""
    made: list[Json] = []
    before = ""
    for final in transcript.finals:
        text = final.text.strip()
        if not text:
            continue
        text = seam(before, text, transcript.language) + text
        before = text
        made.append(
            {
                "id": len(made),
                "seek": final.start_ms // _SEEK_MS,
                "start": _seconds(final.start_ms),
                "end": _seconds(final.end_ms),
                "text": text,
                "tokens": [],
                "temperature": temperature,
                "avg_logprob": _log_probability(final),
                "compression_ratio": _compression_ratio(text),
                "no_speech_prob": 0.0,
            }
        )
    return made


def diarized(transcript: Transcript) -> Json:
    """The `diarized_json` object."""
    turns = Turns(transcript.language)
    return {
        "task": "transcribe",
        "duration": _seconds(transcript.duration_ms),
        "text": transcript.text,
        "segments": [segment for final in transcript.finals for segment in turns.of(final)],
        "usage": usage(transcript.duration_ms),
    }


class Turns:
    """Finals as segments of one speaker each; speakers are A, B, C … in the order they are first heard."""

    def __init__(self, language: str = "") -> None:
        self._language = language
        self._letters: dict[tuple[int, str], str] = {}
        self._speaker = ""
        self._count = 0

    def of(self, final: Final) -> Iterator[Json]:
        """The segments of a final. A word without a speaker belongs to whoever spoke before it."""
        if not final.words:
            if final.text:
                yield self._segment(
                    self._letter(final.channel, self._speaker), final.start_ms, final.end_ms, final.text
                )
            return
        for letter, run in groupby(self._named(final), lambda pair: pair[0]):
            words = [word for _, word in run]
            text = join((word.text for word in words), final.language or self._language)
            yield self._segment(letter, words[0].start_ms, words[-1].end_ms, text)

    def _named(self, final: Final) -> Iterator[tuple[str, Word]]:
        for word in final.words:
            self._speaker = word.speaker or self._speaker
            yield self._letter(final.channel, self._speaker), word

    def _letter(self, channel: int, speaker: str) -> str:
        return self._letters.setdefault((channel, speaker), _letters(len(self._letters)))

    def _segment(self, speaker: str, start_ms: int, end_ms: int, text: str) -> Json:
        self._count += 1
        return {
            "type": "transcript.text.segment",
            "id": f"seg_{self._count}",
            "start": _seconds(start_ms),
            "end": _seconds(end_ms),
            "speaker": speaker,
            "text": text,
        }


def delta_event(delta: str, segment_id: str = "") -> Json:
    """`transcript.text.delta`: more text behind what was sent before."""
    event: Json = {"type": "transcript.text.delta", "delta": delta}
    return event | {"segment_id": segment_id} if segment_id else event


def done_event(transcript: Transcript, notes: Sequence[str] = ()) -> Json:
    """`transcript.text.done`: the whole text, which is right where the deltas were not; `notes` as `warnings`."""
    event = {"type": "transcript.text.done", "text": transcript.text, "usage": usage(transcript.duration_ms)}
    return event | {"warnings": list(notes)} if notes else event


def error_event(error: ASRError) -> Json:
    """What ends a stream that breaks; OpenAI's clients raise it."""
    return openai_error(error)


def sse(event: Json) -> bytes:
    """One server-sent event."""
    return b"data: " + orjson.dumps(event) + b"\n\n"


def _lost(transcript: Transcript) -> list[str]:
    return [
        f"The audio from {_seconds(gap.start_ms):g} s to {_seconds(gap.end_ms):g} s could not be recognized."
        for gap in transcript.gaps
    ]


def _seconds(ms: int) -> float:
    return round(ms / 1000, 3)


def _log_probability(final: Final) -> float:
    """Of its confidence, or the recognizer's own number where that is one (Riva); 0 where there is none."""
    if final.confidence is not None:
        return round(math.log(max(final.confidence, 1e-6)), 4)
    raw = final.confidence_raw
    return round(raw, 4) if raw is not None and raw < 0 else 0.0


def _compression_ratio(text: str) -> float:
    """How much shorter it gets when it is compressed: text that repeats itself shows by a high figure."""
    plain = text.encode()
    return round(len(plain) / len(zlib.compress(plain)), 4)


def _letters(number: int) -> str:
    """A, B … Z, AA, AB …"""
    text = ""
    number += 1
    while number:
        number, rest = divmod(number - 1, 26)
        text = chr(ord("A") + rest) + text
    return text
