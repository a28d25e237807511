"""What two runs of one set are compared by: each figure over the sentences that both have, ready to be drawn anew.

One sentence is heard under several conditions; what became of all of them is one draw (`summary.block_of`).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from evaluation.results import ClipResult
from evaluation.statistics import Statistic, percentile_of, rate_of, total_of, values_needed
from evaluation.summary import block_of, char_errors, false_finals, revisions, word_errors

RATE_MARGIN = 0.005
"""Half a point of word or character error rate: less is no reason to keep a release back."""

REVISED_MARGIN = 0.02
"""Two words in a hundred more that are changed after they were shown."""

LATENCY_MARGIN_MS = 20.0
LATENCY_MARGIN_SHARE = 0.1
"""Latencies may grow by the larger of the two: 20 ms, or a tenth of what A has."""

LETTERS = 5
"""Characters that go wrong at a time, about: those of a word."""

MAX_SHARE = 0.05
"""A sentence with more of all words (or values) than this would decide alone, and is left out where others can."""

Pair = tuple[ClipResult, ClipResult]


@dataclass(frozen=True, slots=True)
class Sample:
    """One figure of both runs.

    Attributes:
        statistic: of 2·n weights: n sentences as of A, then as of B.
        differs: for each sentence, whether A and B differ in it.
        sizes: for each sentence, its words or values in A.
        clips: how many pairs.
        step: how much one event (a wrong word, a failed clip) adds to the figure; 0 for latencies, which only shift.
        enough: whether there are values enough for an interval.
        left_out: the clips of sentences larger than `MAX_SHARE`.
    """

    statistic: Statistic
    differs: tuple[bool, ...]
    sizes: tuple[float, ...]
    clips: int
    step: float
    enough: bool = True
    left_out: tuple[Pair, ...] = ()


def rates(
    part: Callable[[ClipResult], tuple[int, int]], together: int = 1
) -> Callable[[Sequence[Pair]], Sample | None]:
    """A pooled rate; `part` tells numerator and denominator of a clip; so many of the numerator come at once."""

    def sample(pairs: Sequence[Pair]) -> Sample | None:
        having = [(a, b) for a, b in pairs if any(part(a)) or any(part(b))]
        kept, left_out = _without_giants(having, lambda clip: part(clip)[1])
        sums: dict[Hashable, list[int]] = {}
        for a, b in kept:
            total = sums.setdefault(block_of(a), [0, 0, 0, 0])
            total[:] = [x + y for x, y in zip(total, (*part(a), *part(b)), strict=True)]
        a_above, a_below, b_above, b_below = zip(*sums.values(), strict=True) if sums else ((), (), (), ())
        if not sum(a_below) or not sum(b_below):
            return None
        return Sample(
            statistic=rate_of(a_above + b_above, a_below + b_below),
            differs=tuple(total[:2] != total[2:] for total in sums.values()),
            sizes=a_below,
            clips=len(kept),
            step=together / sum(a_below),
            left_out=left_out,
        )

    return sample


def totals(count: Callable[[ClipResult], int]) -> Callable[[Sequence[Pair]], Sample | None]:
    """A sum over all clips."""

    def sample(pairs: Sequence[Pair]) -> Sample | None:
        sums: dict[Hashable, list[int]] = {}
        for a, b in pairs:
            total = sums.setdefault(block_of(a), [0, 0])
            total[0] += count(a)
            total[1] += count(b)
        if not sums:
            return None
        return Sample(
            statistic=total_of([a for a, _ in sums.values()] + [b for _, b in sums.values()]),
            differs=tuple(a != b for a, b in sums.values()),
            sizes=(1.0,) * len(sums),
            clips=len(pairs),
            step=1.0,
        )

    return sample


def percentiles(
    values: Callable[[ClipResult], Sequence[float]], share: float
) -> Callable[[Sequence[Pair]], Sample | None]:
    """A percentile over the values of all clips for which both runs have some."""

    def sample(pairs: Sequence[Pair]) -> Sample | None:
        having = [(a, b) for a, b in pairs if values(a) and values(b) and a.realtime == b.realtime]
        kept, left_out = _without_giants(having, lambda clip: len(values(clip)))
        groups: dict[Hashable, tuple[list[float], list[float]]] = {}
        for a, b in kept:
            both = groups.setdefault(block_of(a), ([], []))
            both[0].extend(values(a))
            both[1].extend(values(b))
        if not groups:
            return None
        of_a, of_b = zip(*groups.values(), strict=True)
        return Sample(
            statistic=percentile_of(of_a + of_b, share),
            differs=tuple(sorted(a) != sorted(b) for a, b in groups.values()),
            sizes=tuple(float(len(a)) for a in of_a),
            clips=len(kept),
            step=0.0,
            enough=min(sum(map(len, of_a)), sum(map(len, of_b))) >= values_needed(share),
            left_out=left_out,
        )

    return sample


def _without_giants(pairs: Sequence[Pair], size: Callable[[ClipResult], int]) -> tuple[list[Pair], tuple[Pair, ...]]:
    """The pairs of ordinary sentences, and those of sentences that would outweigh the others (never most of them)."""
    sizes: dict[Hashable, int] = {}
    for a, _ in pairs:
        sizes[block_of(a)] = sizes.get(block_of(a), 0) + size(a)
    giants = {key for key, each in sizes.items() if each > MAX_SHARE * sum(sizes.values())}
    if len(sizes) - len(giants) < 1 / MAX_SHARE:
        return list(pairs), ()
    return (
        [pair for pair in pairs if block_of(pair[0]) not in giants],
        tuple(pair for pair in pairs if block_of(pair[0]) in giants),
    )


def _first_words(clip: ClipResult) -> tuple[float, ...]:
    """When it showed its first words: without partials in the final, so that partials that stay away count as late."""
    timings = clip.timings
    first = timings.first_text_ms if timings.first_partial_ms is None else timings.first_partial_ms
    return () if clip.outcome != "ok" or first is None else (first,)


def _finals(clip: ClipResult) -> tuple[float, ...]:
    return clip.timings.final_ms if clip.outcome == "ok" else ()


def _words(clip: ClipResult) -> tuple[int, int]:
    counts = word_errors(clip)
    return counts.errors, counts.reference


def _chars(clip: ClipResult) -> tuple[int, int]:
    counts = char_errors(clip)
    return counts.errors, counts.reference


SAMPLES_OF: dict[str, Callable[[Sequence[Pair]], Sample | None]] = {
    "wer": rates(_words),
    "cer": rates(_chars, together=LETTERS),
    "first_partial_p50_ms": percentiles(_first_words, 0.5),
    "first_partial_p95_ms": percentiles(_first_words, 0.95),
    "final_p50_ms": percentiles(_finals, 0.5),
    "final_p95_ms": percentiles(_finals, 0.95),
    "revised": rates(revisions),
    "failed": totals(lambda clip: int(clip.outcome != "ok")),
    "false_finals": totals(false_finals),
}
"""The figures that decide, in the order in which they are shown, and how each is drawn from pairs of clips."""


def margin_of(metric: str, value: float) -> float:
    """How much worse than `value` a figure may be before it counts; 0 for failures and false finals."""
    if metric in ("wer", "cer"):
        return RATE_MARGIN
    if metric == "revised":
        return REVISED_MARGIN
    return max(LATENCY_MARGIN_MS, LATENCY_MARGIN_SHARE * value) if metric.endswith("_ms") else 0.0
