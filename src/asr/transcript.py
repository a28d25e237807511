"""A whole transcript: the finals of one piece of audio, joined, and as JSON and back.

The JSON is described by `schemas/transcript.v1.schema.json`; within version 1 it only grows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from importlib import resources
from typing import Any

from asr.errors import ASRError, Code
from asr.events import Event, Final, Gap, Partial, Progress, Word
from asr.wire import decode, encode

SCHEMA = "riva-gateway.transcript/1"

Json = dict[str, Any]

_UNSPACED_LANGUAGES = frozenset({"zh", "cmn", "yue", "wuu", "ja", "th", "lo", "km", "my"})
_UNSPACED_RANGES = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x3000, 0x30FF),  # CJK punctuation, Hiragana, Katakana
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0xFF01, 0xFF0F),  # full-width punctuation
    (0xFF1A, 0xFF20),
    (0x20000, 0x3FFFF),
)


@dataclass(frozen=True, slots=True)
class Transcript:
    """What was said in one piece of audio.

    Attributes:
        text: the finals' texts, joined.
        finals: in the order they came, and those of several channels in the order in which they begin; those without
            text included.
        language: BCP-47, or "" where not known.
        model: the model's name, or "" where not known.
        duration_ms: length of the audio.
        warnings: sentences about what was odd in the audio or left out of the request.
        gaps: audio that could not be recognized, because the recognizer was lost.
    """

    text: str
    finals: tuple[Final, ...] = ()
    language: str = ""
    model: str = ""
    duration_ms: int = 0
    warnings: tuple[str, ...] = ()
    gaps: tuple[Gap, ...] = ()

    @property
    def words(self) -> tuple[Word, ...]:
        """All words with times, in the finals' order; empty where none were asked for."""
        return tuple(word for final in self.finals for word in final.words)


class TranscriptBuilder:
    """Collects a stream's events into a `Transcript`; what is not a final only moves the clock."""

    def __init__(self, *, language: str = "", model: str = "", warnings: Iterable[str] = ()) -> None:
        self.language = language
        self.model = model
        self._finals: list[Final] = []
        self._gaps: list[Gap] = []
        self._warnings = list(dict.fromkeys(warnings))
        self._heard_ms = 0

    def add(self, event: Event) -> None:
        """Take the next event."""
        match event:
            case Final():
                self._finals.append(event)
                heard_ms = event.end_ms
            case Progress():
                heard_ms = event.processed_ms
            case Gap():
                self._gaps.append(event)
                heard_ms = event.end_ms
            case Partial():
                heard_ms = event.end_ms
            case _:
                heard_ms = event.audio_ms
        self._heard_ms = max(self._heard_ms, heard_ms)

    def warn(self, sentence: str) -> None:
        """Note a warning, once."""
        if sentence not in self._warnings:
            self._warnings.append(sentence)

    def build(self, duration_ms: int | None = None) -> Transcript:
        """The transcript so far. Without `duration_ms` the audio lasts until the last thing heard of it."""
        finals = self._finals
        if any(final.channel for final in finals):
            finals = sorted(finals, key=lambda final: (final.start_ms, final.channel))
        language = self.language or next((final.language for final in finals if final.language), "")
        return Transcript(
            text=join((final.text for final in finals), language),
            finals=tuple(finals),
            language=language,
            model=self.model,
            duration_ms=self._heard_ms if duration_ms is None else duration_ms,
            warnings=tuple(self._warnings),
            gaps=tuple(self._gaps),
        )


def fold(
    events: Iterable[Event],
    *,
    language: str = "",
    model: str = "",
    duration_ms: int | None = None,
    warnings: Iterable[str] = (),
) -> Transcript:
    """The transcript of a whole stream's events."""
    builder = TranscriptBuilder(language=language, model=model, warnings=warnings)
    for event in events:
        builder.add(event)
    return builder.build(duration_ms)


def join(texts: Iterable[str], language: str = "") -> str:
    """Texts (or words) as one: a single blank between them, none where the script is written without."""
    parts = (text.strip() for text in texts)
    return reduce(lambda left, right: left + seam(left, right, language) + right, (part for part in parts if part), "")


def seam(left: str, right: str, language: str = "") -> str:
    """What stands between two texts: a blank or nothing."""
    if not left or not right:
        return ""
    unspaced = is_unspaced(left[-1]) + is_unspaced(right[0])
    mostly = language.split("-")[0].lower() in _UNSPACED_LANGUAGES
    return "" if unspaced == 2 or (unspaced == 1 and mostly) else " "


def to_json(transcript: Transcript) -> Json:
    """The JSON object of a transcript."""
    return {
        "schema": SCHEMA,
        "text": transcript.text,
        "language": transcript.language,
        "model": transcript.model,
        "duration_ms": transcript.duration_ms,
        "warnings": list(transcript.warnings),
        "finals": [encode(final) for final in transcript.finals],
        "gaps": [encode(gap) for gap in transcript.gaps],
    }


def from_json(message: Mapping[str, Any]) -> Transcript:
    """The transcript that a JSON object spells; unknown fields are ignored.

    Raises:
        ASRError: `bad_request` where it is not a transcript of version 1.
    """
    if message.get("schema") != SCHEMA:
        raise ASRError(
            Code.BAD_REQUEST,
            f"This is not a transcript: its schema is {message.get('schema')!r}, not {SCHEMA!r}.",
            param="schema",
        )
    try:
        finals = [decode(final) for final in message["finals"]]
        gaps = [decode(gap) for gap in message.get("gaps", ())]
        return Transcript(
            text=str(message["text"]),
            finals=tuple(final for final in finals if isinstance(final, Final)),
            language=str(message.get("language", "")),
            model=str(message.get("model", "")),
            duration_ms=int(message["duration_ms"]),
            warnings=tuple(str(warning) for warning in message.get("warnings", ())),
            gaps=tuple(gap for gap in gaps if isinstance(gap, Gap)),
        )
    except (ASRError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ASRError(Code.BAD_REQUEST, f"The transcript breaks its schema: {error!r}.") from error


def schema() -> Json:
    """The JSON Schema (2020-12) of a transcript."""
    text = resources.files("asr").joinpath("schemas/transcript.v1.schema.json").read_text("utf-8")
    loaded: Json = json.loads(text)
    return loaded


def is_unspaced(character: str) -> bool:
    """Whether it belongs to a script that is written without blanks between words."""
    code = ord(character)
    return any(first <= code <= last for first, last in _UNSPACED_RANGES)
