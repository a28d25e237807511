"""What two runs of one set are compared by: each figure over the sentences that both have, ready to be drawn anew.

One sentence is heard under several conditions and within long clips; what became of all of them is one draw
(`summary.block_of`, `summary.units_of`).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from statistics import fmean

from evaluation.results import ClipResult, ErrorCounts, PartErrors
from evaluation.statistics import Statistic, percentile_of, rate_of, total_of, values_needed
from evaluation.summary import (
    Counts,
    block_of,
    char_errors,
    false_finals,
    first_partial,
    revisions,
    silent,
    units_of,
    word_errors,
)

RATE_MARGIN = 0.005
"""Half a point of word or character error rate: less is no reason to keep a release back."""

REVISED_MARGIN = 0.02
"""Two words in a hundred more that are changed after they were shown."""

LATENCY_MARGIN_MS = 20.0
LATENCY_MARGIN_SHARE = 0.1
"""Latencies may grow by the larger of the two: 20 ms, or a tenth of what A has."""

MEDIAN = 0.5

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
        shifts: for each sentence, how much larger its mean value is in B, where a median is compared; else None.
        enough: whether there are values enough for an interval.
        left_out: the clips of sentences larger than `MAX_SHARE`.
    """

    statistic: Statistic
    differs: tuple[bool, ...]
    sizes: tuple[float, ...]
    clips: int
    step: float
    shifts: tuple[float, ...] | None = None
    enough: bool = True
    left_out: tuple[Pair, ...] = ()


def rates(
    whole: Callable[[ClipResult], Counts],
    of_part: Callable[[PartErrors], ErrorCounts] | None = None,
    together: int = 1,
) -> Callable[[Sequence[Pair]], Sample | None]:
    """A pooled rate; so many of the numerator come at once.

    Args:
        whole: numerator and denominator of a clip.
        of_part: those of a part of a joined clip, where they are known by part.
        together: so many of the numerator come at once.
    """

    def units(a: ClipResult, b: ClipResult) -> list[tuple[Hashable, Counts, Counts]]:
        alike = [(part.id, part.reference) for part in a.parts] == [(part.id, part.reference) for part in b.parts]
        if of_part is None or not a.parts or not alike or a.outcome != "ok" or b.outcome != "ok":
            return [(block_of(a), whole(a), whole(b))]
        both = zip(units_of(a, whole, of_part), units_of(b, whole, of_part), strict=True)
        return [(block, of_a, of_b) for (block, of_a), (_, of_b) in both]

    def sample(pairs: Sequence[Pair]) -> Sample | None:
        having = [(pair, *unit) for pair in pairs for unit in units(*pair) if any(unit[1]) or any(unit[2])]
        giants = _giants([(block, of_a[1]) for _, block, of_a, _ in having])
        kept = [each for each in having if each[1] not in giants]
        left_out = {pair[0].id: pair for pair, block, _, _ in having if block in giants}
        sums: dict[Hashable, list[int]] = {}
        for _, block, of_a, of_b in kept:
            total = sums.setdefault(block, [0, 0, 0, 0])
            total[:] = [x + y for x, y in zip(total, (*of_a, *of_b), strict=True)]
        a_above, a_below, b_above, b_below = zip(*sums.values(), strict=True) if sums else ((), (), (), ())
        if not sum(a_below) or not sum(b_below):
            return None
        return Sample(
            statistic=rate_of(a_above + b_above, a_below + b_below),
            differs=tuple(total[:2] != total[2:] for total in sums.values()),
            sizes=a_below,
            clips=len({pair[0].id for pair, _, _, _ in kept}),
            step=together / sum(a_below),
            left_out=tuple(left_out.values()),
        )

    return sample


def totals(
    count: Callable[[ClipResult], int], of: Callable[[ClipResult], bool] = lambda clip: True
) -> Callable[[Sequence[Pair]], Sample | None]:
    """A sum over all clips that can add to it."""

    def sample(pairs: Sequence[Pair]) -> Sample | None:
        pairs = [pair for pair in pairs if of(pair[0])]
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
        giants = _giants([(block_of(a), len(values(a))) for a, _ in having])
        kept = [pair for pair in having if block_of(pair[0]) not in giants]
        left_out = tuple(pair for pair in having if block_of(pair[0]) in giants)
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
            shifts=tuple(fmean(b) - fmean(a) for a, b in groups.values()) if share == MEDIAN else None,
            enough=min(sum(map(len, of_a)), sum(map(len, of_b))) >= values_needed(share),
            left_out=left_out,
        )

    return sample


def _giants(units: Sequence[tuple[Hashable, int]]) -> set[Hashable]:
    """The sentences that would outweigh the others; none where too few others are left. Units: (sentence, size)."""
    sizes: dict[Hashable, int] = {}
    for block, size in units:
        sizes[block] = sizes.get(block, 0) + size
    most = MAX_SHARE * sum(sizes.values())
    giants = {block for block, size in sizes.items() if size > most}
    return giants if len(sizes) - len(giants) >= 1 / MAX_SHARE else set()


def _first_words(clip: ClipResult) -> tuple[float, ...]:
    return first_partial(clip.timings) if clip.outcome == "ok" else ()


def _finals(clip: ClipResult) -> tuple[float, ...]:
    return clip.timings.final_ms if clip.outcome == "ok" else ()


def _words(clip: ClipResult) -> Counts:
    counts = word_errors(clip)
    return counts.errors, counts.reference


def _chars(clip: ClipResult) -> Counts:
    counts = char_errors(clip)
    return counts.errors, counts.reference


SAMPLES_OF: dict[str, Callable[[Sequence[Pair]], Sample | None]] = {
    "wer": rates(_words, lambda part: part.words),
    "cer": rates(_chars, lambda part: part.chars, together=LETTERS),
    "first_partial_p50_ms": percentiles(_first_words, MEDIAN),
    "first_partial_p95_ms": percentiles(_first_words, 0.95),
    "final_p50_ms": percentiles(_finals, MEDIAN),
    "final_p95_ms": percentiles(_finals, 0.95),
    "revised": rates(revisions),
    "failed": totals(lambda clip: int(clip.outcome != "ok")),
    "false_finals": totals(false_finals, silent),
}
"""The figures that decide, in the order in which they are shown, and how each is drawn from pairs of clips."""


def margin_of(metric: str, value: float) -> float:
    """How much worse than `value` a figure may be before it counts; 0 for failures and false finals."""
    if metric in ("wer", "cer"):
        return RATE_MARGIN
    if metric == "revised":
        return REVISED_MARGIN
    return max(LATENCY_MARGIN_MS, LATENCY_MARGIN_SHARE * value) if metric.endswith("_ms") else 0.0
