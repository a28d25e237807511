"""One clip of a set: what is said in it, when, and where its sound is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class SpokenWord:
    """A word of the reference, and where it is spoken (milliseconds from the clip's first sample)."""

    text: str
    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class Speech:
    """A stretch of the clip in which somebody speaks, without a pause long enough to end an utterance."""

    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class Clip:
    """A recording with the text that is spoken in it.

    Attributes:
        id: unique in its set, as `noise_10db/brother`.
        condition: the class it is scored with (`clean`, `noise_10db`, `silence` …).
        text: what is said, as a person would write it down; "" where nobody speaks.
        source: the audio file; or the clips and pauses (milliseconds) that it is joined of, in order.
        audio_ms: its length.
        sample_rate_hz: of its samples as they are streamed (PCM16, mono).
        words: each spoken word with its place, where that is known, else empty.
        speech: the stretches of speech, where they are known, else empty.
        sha256: of the audio file, or "" where nobody noted it.
    """

    id: str
    condition: str
    text: str
    source: Path | tuple[Clip | int, ...]
    audio_ms: int
    sample_rate_hz: int = 16_000
    words: tuple[SpokenWord, ...] = ()
    speech: tuple[Speech, ...] = ()
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class ClipSet:
    """The clips that are scored together.

    Attributes:
        name: for people.
        clips: in a fixed order, ids unique.
        fingerprint: short hash over ids, texts and audio: two runs can be compared clip by clip when theirs are equal.
        notes: what was odd about the folder (files without a text, say), for people.
    """

    name: str
    clips: tuple[Clip, ...]
    fingerprint: str
    notes: tuple[str, ...] = ()
