"""Pooled figures of a run, per condition and over all, with confidence intervals.

Rates are pooled: all errors over all words, so that long clips weigh more than short ones. Percentiles are of all
values of all clips together, interpolated linearly between ranks. Intervals draw sentences anew (those of joined clips
one by one), not words or latencies, and there is none where the sample is too small for one: fewer than 5 sentences;
fewer than 6 values for a median; fewer than 72 for a 95th percentile. See `evaluation.statistics` for both.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from evaluation.results import ClipResult, ErrorCounts, GoldenRun, PartErrors, Timings
from evaluation.statistics import Interval, bootstrap_percentile, bootstrap_rate, percentile

Counts = tuple[int, int]
"""Errors (or the like), and how many there could be."""


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
        first_partial_p50_ms, first_partial_p95_ms: see `Timings.first_partial_ms`; a clip that showed its first text in
            a final counts with that (`first_text_ms`), so that nobody gains by showing no partials.
        first_text_p50_ms, first_text_p95_ms: see `Timings.first_text_ms`.
        word_partial_p50_ms, word_partial_p95_ms: see `Timings.word_partial_ms`.
        final_p50_ms, final_p95_ms: see `Timings.final_ms`.
        partial_gap_p50_ms: see `Timings.partial_gap_ms`.
        revised: share of the words shown in partials that were changed or taken back later.
        false_finals: finals with text of clips in which nobody speaks.
        speed: seconds of audio (the silence after the clips included) per second (RTFx) of one stream; of the clips
            that were not streamed in real time.
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


def summarize(run: GoldenRun) -> Summary:
    """All figures of a run."""
    conditions = dict.fromkeys(clip.condition for clip in run.clips)
    return Summary(
        tuple(pool([clip for clip in run.clips if clip.condition == name], name) for name in conditions),
        pool(run.clips, "all"),
    )


def pool(clips: Sequence[ClipResult], condition: str) -> Row:
    """The figures of these clips together.

    A clip whose stream failed counts with all its words deleted, whatever came before, and with no latency. Words heard
    in clips without text count as inserted, so the word error rate over all conditions knows them too; with such clips
    alone there is no rate.
    """
    blocks = [block_of(clip) for clip in clips]

    def rate(errors: Callable[[ClipResult], Counts], of_part: Callable[[PartErrors], ErrorCounts]) -> Figure:
        units = [unit for clip in clips for unit in units_of(clip, errors, of_part)]
        return _rate([counts for _, counts in units], [block for block, _ in units])

    def at(share: float, values: Callable[[Timings], Sequence[float]]) -> Figure:
        return _percentile([values(clip.timings) if clip.outcome == "ok" else () for clip in clips], share, blocks)

    fast = [clip for clip in clips if clip.outcome == "ok" and not clip.realtime and clip.elapsed_ms > 0]
    speed = _rate(
        [(clip.sent_ms or clip.audio_ms, clip.elapsed_ms) for clip in fast], [block_of(clip) for clip in fast]
    )
    return Row(
        condition=condition,
        clips=len(clips),
        audio_ms=sum(clip.audio_ms for clip in clips),
        failed=sum(clip.outcome != "ok" for clip in clips),
        wer=rate(lambda clip: _counts(word_errors(clip)), lambda part: part.words),
        cer=rate(lambda clip: _counts(char_errors(clip)), lambda part: part.chars),
        first_partial_p50_ms=at(0.5, first_partial),
        first_partial_p95_ms=at(0.95, first_partial),
        first_text_p50_ms=at(0.5, first_text),
        first_text_p95_ms=at(0.95, first_text),
        word_partial_p50_ms=at(0.5, LATENCIES["word_partial"]),
        word_partial_p95_ms=at(0.95, LATENCIES["word_partial"]),
        final_p50_ms=at(0.5, LATENCIES["final"]),
        final_p95_ms=at(0.95, LATENCIES["final"]),
        partial_gap_p50_ms=at(0.5, LATENCIES["partial_gap"]),
        revised=_rate([revisions(clip) for clip in clips], blocks),
        false_finals=sum(false_finals(clip) for clip in clips),
        speed=Figure(speed.value, speed.interval, len(fast)),
    )


def block_of(clip: ClipResult) -> Hashable:
    """What the clip shares its difficulty with: clips with the same text and the same last part of their ids.

    `clean/brother` and `noise_10db/brother` are one sentence, heard twice.
    """
    return clip.id.rpartition("/")[2], clip.reference


def units_of(
    clip: ClipResult, whole: Callable[[ClipResult], Counts], of_part: Callable[[PartErrors], ErrorCounts]
) -> list[tuple[Hashable, Counts]]:
    """(sentence, errors and length of the reference): of each part of a joined clip, else of the clip as a whole.

    A part belongs to the sentence that it is, as every clip of that sentence does. A joined clip whose stream failed is
    one unit: it failed once, not once for each sentence in it.
    """
    if clip.outcome != "ok" or not clip.parts:
        return [(block_of(clip), whole(clip))]
    return [((part.id.rpartition("/")[2], part.reference), _counts(of_part(part))) for part in clip.parts]


def word_errors(clip: ClipResult) -> ErrorCounts:
    """Its word errors; all of its words are deleted where its stream failed."""
    return clip.words if clip.outcome == "ok" else ErrorCounts(deletions=clip.words.reference)


def char_errors(clip: ClipResult) -> ErrorCounts:
    """Its character errors; all of its characters are deleted where its stream failed."""
    return clip.chars if clip.outcome == "ok" else ErrorCounts(deletions=clip.chars.reference)


def revisions(clip: ClipResult) -> tuple[int, int]:
    """(words of partials changed or taken back later, words shown in partials); nothing where its stream failed."""
    if clip.outcome != "ok":
        return 0, 0
    return clip.timings.revised_words, clip.timings.partial_words


def false_finals(clip: ClipResult) -> int:
    """Finals with text where nobody speaks."""
    return clip.finals if silent(clip) else 0


def tells(clip: ClipResult, metric: str) -> bool:
    """Whether a figure of a row rests on this clip, among others."""
    if metric.endswith("_ms"):
        return clip.outcome == "ok" and bool(LATENCIES[metric.rpartition("_p")[0]](clip.timings))
    match metric:
        case "wer":
            return any((word_errors(clip).reference, word_errors(clip).errors))
        case "cer":
            return any((char_errors(clip).reference, char_errors(clip).errors))
        case "revised":
            return revisions(clip)[1] > 0
        case "false_finals":
            return silent(clip)
        case _:
            return True


def silent(clip: ClipResult) -> bool:
    """Whether nobody speaks in it."""
    return not clip.reference.strip()


def first_partial(timings: Timings) -> tuple[float, ...]:
    """When the first words were shown, in a partial or, where none showed any, in the final; or none."""
    first = timings.first_text_ms if timings.first_partial_ms is None else timings.first_partial_ms
    return () if first is None else (first,)


def first_text(timings: Timings) -> tuple[float, ...]:
    """The one value, or none."""
    return () if timings.first_text_ms is None else (timings.first_text_ms,)


LATENCIES: dict[str, Callable[[Timings], Sequence[float]]] = {
    "first_partial": first_partial,
    "first_text": first_text,
    "word_partial": lambda timings: timings.word_partial_ms,
    "final": lambda timings: timings.final_ms,
    "partial_gap": lambda timings: timings.partial_gap_ms,
}
"""The values of a clip that a row's percentiles are of, by the percentile's name up to its `_p`."""


def _counts(counts: ErrorCounts) -> Counts:
    return counts.errors, counts.reference


def _rate(parts: Sequence[tuple[float, float]], blocks: Sequence[Hashable]) -> Figure:
    above, below = sum(part[0] for part in parts), sum(part[1] for part in parts)
    if not below:
        return Figure(None)
    return Figure(above / below, bootstrap_rate(parts, blocks=blocks), round(below))


def _percentile(groups: list[Sequence[float]], share: float, blocks: Sequence[Hashable]) -> Figure:
    values = [value for group in groups for value in group]
    if not values:
        return Figure(None)
    return Figure(percentile(values, share), bootstrap_percentile(groups, share, blocks=blocks), len(values))
