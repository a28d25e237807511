"""What an engine says about the audio it hears.

Times are integer milliseconds on the audio clock of one stream: 0 is its first sample, and they
never go back. An engine numbers its utterances from 0; each has any number of partials and at
most one final. A partial replaces the partial before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class FinalReason(StrEnum):
    """Why an utterance ended."""

    ENDPOINT = "endpoint"
    """The speaker paused."""
    FINALIZE = "finalize"
    """The caller asked for it."""
    STOP = "stop"
    """The audio ended."""
    MAX_LENGTH = "max_length"
    """The utterance grew over the engine's limit and was cut."""
    FAILOVER = "failover"
    """The recognizer was lost for good: what it had guessed until then."""
    TIMEOUT = "timeout"
    """The recognizer did not answer in time: what it had guessed until then."""
    UPSTREAM_SILENT = "upstream_silent"
    """The recognizer never said that the utterance was over: made of its last partial after a quiet while."""


class SpeechSource(StrEnum):
    """Who noticed that speech began or ended."""

    VAD = "vad"
    UPSTREAM = "upstream"
    CLIENT = "client"


class GapCause(StrEnum):
    """Why audio will never be covered."""

    BUFFER_OVERRUN = "buffer_overrun"
    """It had fallen out of the bounded replay memory when the recognizer was lost."""
    UPSTREAM_LOST = "upstream_lost"
    """The recognizer was lost, and no other could be found in time."""
    DECODE_ERROR = "decode_error"
    """It could not be decoded."""


class State(StrEnum):
    """How a stream is doing, where a listener should know."""

    DEGRADED = "degraded"
    """The recognizer is slow; nothing is lost."""
    FAILING_OVER = "failing_over"
    """The recognizer was lost; the audio since the last final is kept and given to another."""
    RECOVERED = "recovered"
    """A recognizer listens again, and has what was kept."""
    THROTTLED = "throttled"
    """The recognizer is full; the stream waits for a place."""


@dataclass(frozen=True, slots=True)
class Word:
    """One recognized word.

    Attributes:
        text: the word as written.
        start_ms: where it begins on the audio clock.
        end_ms: where it ends.
        confidence: a probability 0..1, or None where the engine gives none.
        confidence_raw: the engine's own number, on its own scale (Riva: about a log probability).
        speaker: an opaque speaker label, or None without diarization.
        language: BCP-47, where the engine tells it per word.
    """

    text: str
    start_ms: int
    end_ms: int
    confidence: float | None = None
    confidence_raw: float | None = None
    speaker: str | None = None
    language: str | None = None


@dataclass(frozen=True, slots=True)
class Alternative:
    """A further reading of an utterance, less likely than the final's own text."""

    text: str
    words: tuple[Word, ...] = ()
    confidence: float | None = None
    confidence_raw: float | None = None


@dataclass(frozen=True, slots=True)
class Partial:
    """What the engine believes so far of an utterance that is still being spoken.

    Attributes:
        utterance: 0, 1, 2 … within the stream.
        revision: grows with each partial of the utterance, from 1.
        text: the whole hypothesis; it replaces the one before.
        start_ms, end_ms: the audio it covers so far.
        stable_chars: length of the head of `text` that successive partials agree on.
        stability: the engine's own figure 0..1, or None.
        words: words with times, where the engine gives them on partials.
        eager_eou: the engine guesses that the utterance is over (Riva's two-pass end of
            utterance); a final may still differ.
        channel: 0-based audio channel.
    """

    utterance: int
    revision: int
    text: str
    start_ms: int
    end_ms: int
    stable_chars: int = 0
    stability: float | None = None
    words: tuple[Word, ...] = ()
    eager_eou: bool = False
    channel: int = 0


@dataclass(frozen=True, slots=True)
class Final:
    """The last word on an utterance. It is never revised.

    Attributes:
        utterance, revision, start_ms, end_ms, channel: as in `Partial`.
        text: without leading or trailing blanks; may be empty.
        words: empty where word times were not asked for or are not known.
        alternatives: further readings, best first, without the text itself.
        confidence: a probability 0..1, or None where the engine gives none.
        confidence_raw: the engine's own number, on its own scale.
        language: BCP-47, or None where not known.
        reason: why the utterance ended.
    """

    utterance: int
    revision: int
    text: str
    start_ms: int
    end_ms: int
    words: tuple[Word, ...] = ()
    alternatives: tuple[Alternative, ...] = ()
    confidence: float | None = None
    confidence_raw: float | None = None
    language: str | None = None
    reason: FinalReason = FinalReason.ENDPOINT
    channel: int = 0


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """Speech began at `audio_ms`."""

    audio_ms: int
    source: SpeechSource = SpeechSource.VAD
    channel: int = 0


@dataclass(frozen=True, slots=True)
class SpeechEnded:
    """Speech ended at `audio_ms`."""

    audio_ms: int
    source: SpeechSource = SpeechSource.VAD
    channel: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """The engine has consumed the audio up to `processed_ms`; results before it are out."""

    processed_ms: int


@dataclass(frozen=True, slots=True)
class Flushed:
    """The answer to one `EndUtterance`: every result of the audio before it is out.

    Exactly one for each `EndUtterance`, in order, also where nothing had been said.
    """

    audio_ms: int


@dataclass(frozen=True, slots=True)
class Gap:
    """Audio from `start_ms` to `end_ms` that no final will ever cover."""

    start_ms: int
    end_ms: int
    cause: GapCause
    channel: int = 0


@dataclass(frozen=True, slots=True)
class Status:
    """The stream's state changed when its audio had come to `audio_ms`.

    Attributes:
        state: the new state.
        audio_ms: how far the audio had come.
        retry_after_ms: when the next attempt is made, where that is known.
        detail: a sentence for people, or "".
        replayed_ms: audio that the recognizer which was found was given again; of a recovery.
    """

    state: State
    audio_ms: int
    retry_after_ms: int | None = None
    detail: str = ""
    replayed_ms: int = 0


Event = Partial | Final | SpeechStarted | SpeechEnded | Progress | Flushed | Gap | Status
"""Anything that an engine's stream yields."""
