"""Pooled figures of a run, per condition and over all, with confidence intervals."""

from __future__ import annotations

from dataclasses import dataclass

from evaluation.statistics import Interval


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured figure.

    Attributes:
        value: None where nothing was there to measure.
        interval: its 95 % confidence interval, where the sample allows one.
        count: what it rests on (words, characters, clips, utterances: as the figure's name says).
    """

    value: float | None
    interval: Interval | None = None
    count: int = 0


@dataclass(frozen=True, slots=True)
class Row:
    """The figures of one condition, or of all (`condition` is then "all").

    Rates are fractions (0.12 is 12 %), times milliseconds.

    Attributes:
        clips, audio_ms: how much there was.
        failed: clips whose stream did not end well; their words count as deleted.
        wer, cer: word and character error rate.
        first_partial_p50_ms, first_partial_p95_ms: see `Timings.first_partial_ms`.
        first_text_p50_ms, first_text_p95_ms: see `Timings.first_text_ms`.
        word_partial_p50_ms, word_partial_p95_ms: see `Timings.word_partial_ms`.
        final_p50_ms, final_p95_ms: see `Timings.final_ms`.
        partial_gap_p50_ms: see `Timings.partial_gap_ms`.
        revised: share of the words shown in partials that were changed or taken back later.
        false_finals: finals with text of clips in which nobody speaks.
        speed: seconds of audio per second (RTFx) of the clips that were not streamed in real time.
    """

    condition: str
    clips: int
    audio_ms: int
    failed: int
    wer: Figure
    cer: Figure
    first_partial_p50_ms: Figure
    first_partial_p95_ms: Figure
    first_text_p50_ms: Figure
    first_text_p95_ms: Figure
    word_partial_p50_ms: Figure
    word_partial_p95_ms: Figure
    final_p50_ms: Figure
    final_p95_ms: Figure
    partial_gap_p50_ms: Figure
    revised: Figure
    false_finals: int
    speed: Figure


@dataclass(frozen=True, slots=True)
class Summary:
    """All rows of a run: one for each condition, in the set's order, and one over all."""

    conditions: tuple[Row, ...]
    all: Row
