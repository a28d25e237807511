"""What a scripted recognizer answers, as plain records with the fields of Riva's streaming response.

Kept apart from protobuf so that the script stays pure; `asr.mock.messages` turns them into Riva's messages.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RawWord:
    """A word with its times in ms from the start of the stream."""

    text: str
    start_ms: int
    end_ms: int
    confidence: float = 0.0
    speaker_tag: int = 0
    language: str = ""


@dataclass(frozen=True, slots=True)
class RawAlternative:
    """One reading of a result."""

    transcript: str
    confidence: float = 0.0
    words: tuple[RawWord, ...] = ()
    languages: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RawResult:
    """One result; `audio_processed_ms` becomes seconds on the wire, `vad` the pipeline states."""

    alternatives: tuple[RawAlternative, ...] = ()
    is_final: bool = False
    stability: float = 0.0
    channel_tag: int = 1
    audio_processed_ms: int = 0
    vad: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class RawResponse:
    """One response: any number of results, often none."""

    results: tuple[RawResult, ...] = ()


EMPTY = RawResponse()


@dataclass(frozen=True, slots=True)
class Request:
    """What a stream asked for, as far as the script heeds it.

    Attributes:
        rate_hz: of the PCM16 mono audio that will come.
        interim_results: whether partials are wanted.
        words: word times wanted.
        diarization: speaker tags wanted; word times come with them.
        max_alternatives: readings per final.
        vad_probabilities: voice activity wanted.
        silence_ms: the silence that ends an utterance (Riva: stop_history); None = the plan's.
        eager_ms: the silence of the first pass (Riva: stop_history_eou); None = the plan's.
        manual: no silence ends an utterance.
    """

    rate_hz: int = 16_000
    interim_results: bool = True
    words: bool = False
    diarization: bool = False
    max_alternatives: int = 1
    vad_probabilities: bool = False
    silence_ms: int | None = None
    eager_ms: int | None = None
    manual: bool = False
