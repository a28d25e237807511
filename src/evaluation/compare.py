"""Is run B worse than run A? The release gate: paired, with its error rates stated.

What decides are the figures of `DECIDING`, over all clips that both runs have. Each is tested one-sided ("B is not
worse") by swapping the runs' results sentence by sentence (`paired.paired_test`; medians of latencies by how much each
sentence's own shift), and the p-values are adjusted for their number (Holm), so that the probability of calling B worse
in *any* of them although it is as good as A is at most alpha. Figures that could not become significant whatever the
signs of their differences (too few sentences differ) are not tested and cost the others nothing (Tarone: A modified
Bonferroni method for discrete data, Biometrics 46, 1990). A difference must also be larger than its margin
(`margin_of`): what is certain and small does not stop a release.
Rows of single conditions are there to read: they never decide, and their p-values are not adjusted.

What no such test sees is what makes a whole run slower, as a machine that is busy with other work: run both at the same
hour on the same machine, or together (`evaluation.shadow`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from asr.errors import ASRError, Code
from evaluation.normalizer import normalize
from evaluation.paired import PairedTest, blocks_needed, detectable, holm, paired_test
from evaluation.results import GoldenRun, RunInfo
from evaluation.samples import SAMPLES_OF, Pair, Sample, margin_of
from evaluation.statistics import SAMPLES, Interval
from evaluation.summary import word_errors

ALPHA = 0.05
"""Probability of a false alarm that is accepted, unless another is asked for."""

MIN_ALPHA, MAX_ALPHA = 0.001, 0.5
"""Less would take more draws than are worth while; more is no test."""

RATES = ("wer", "cer", "revised")
"""The figures that are shares."""

MAX_DRAWN = 20_000_000
"""Draws times clips beyond which there are only as many draws as alpha needs: bounds the memory of a large set."""

COUNTS = ("failed", "false_finals")
"""The figures that are numbers of clips, or nearly so."""

MOST_OF_THE_REST = 0.5
"""Of the words that A has right: where fewer could not be told to be lost, nothing is claimed."""

DECIDING = tuple(SAMPLES_OF)
"""The figures that decide, in the order in which they are shown."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One figure of both runs, over the clips that both have.

    Attributes:
        metric: as in `evaluation.summary.Row`.
        condition: a condition, or "all".
        a, b: the figure of each run; rates as fractions, times in milliseconds.
        difference: b - a.
        interval: its 95 % confidence interval (paired bootstrap over clips), where the sample allows one.
        p_value: of "B is not worse", one-sided, paired; adjusted for the number of figures tested (Holm) where the
            condition is "all", as it is elsewhere.
        margin: a difference below this is not called worse, however certain.
        detectable: the smallest true difference that this comparison finds with a probability of 80 %; None where for
            want of clips it finds none, or none that there could be.
        worse, better: significantly, and by more than the margin; never for a single condition.
        clips: how many pairs it rests on.
    """

    metric: str
    condition: str
    a: float
    b: float
    difference: float
    interval: Interval | None
    p_value: float
    margin: float
    detectable: float | None
    worse: bool
    better: bool
    clips: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs of one set.

    Attributes:
        a, b: what was measured.
        alpha: the probability of calling B worse in any figure although it is not.
        differences: the figures that decide ("all" rows), then those per condition, for reading.
        notes: what limits the comparison (clips missing on one side, different machines …), for people.
    """

    a: RunInfo
    b: RunInfo
    alpha: float
    differences: tuple[Difference, ...]
    notes: tuple[str, ...] = ()

    @property
    def worse(self) -> bool:
        """Whether B is worse in any figure that decides."""
        return any(difference.worse for difference in self.differences)


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A clip in which two runs heard different words (after normalizing).

    Attributes:
        id, condition, reference: the clip's.
        a, b: the hypotheses as they came.
        a_errors, b_errors: word errors of each against the reference.
    """

    id: str
    condition: str
    reference: str
    a: str
    b: str
    a_errors: int
    b_errors: int


def compare(
    a: GoldenRun,
    b: GoldenRun,
    *,
    alpha: float = ALPHA,
    metrics: Sequence[str] = DECIDING,
    samples: int | None = None,
    by_condition: bool = True,
) -> Comparison:
    """Hold run B against run A, clip by clip.

    Args:
        a: what is good enough.
        b: what may be worse.
        alpha: the probability of a false alarm that is accepted, `MIN_ALPHA` to `MAX_ALPHA`.
        metrics: the figures that decide, chosen before the runs were seen: fewer of them find smaller differences.
        samples: draws of each test and interval; by default as many as alpha, shared by all figures, can be told with.
        by_condition: whether to add the rows of single conditions.

    Raises:
        ASRError: `bad_request`, when the runs have no clip in common or were scored by different rules, or alpha is out
            of its range.
    """
    if not MIN_ALPHA <= alpha <= MAX_ALPHA:
        raise ASRError(
            Code.BAD_REQUEST,
            f"The probability of a false alarm lies between {MIN_ALPHA} and {MAX_ALPHA}, not at {alpha}.",
            param="alpha",
        )
    pairs, notes = _paired(a, b)
    if samples is None:
        fewest, enough = (round(times * len(metrics) / alpha) for times in (2, 10))
        samples = max(SAMPLES, min(enough, max(fewest, MAX_DRAWN // len(pairs))))
    conditions = dict.fromkeys(clip.condition for clip, _ in pairs)
    pairs.sort(key=lambda pair: pair[0].id)  # the draws, and so the figures, are the same in whatever order clips came
    differences = _decide(pairs, alpha, metrics, samples)
    if by_condition and len(conditions) > 1:
        for condition in conditions:
            differences += _read(
                [pair for pair in pairs if pair[0].condition == condition], condition, alpha, metrics, samples
            )
    return Comparison(a.info, b.info, alpha, tuple(differences), (*notes, *_remarks(pairs, differences)))


def disagreements(a: GoldenRun, b: GoldenRun) -> tuple[Disagreement, ...]:
    """The clips in which the runs heard different words, those first in which their errors differ most."""
    others = {clip.id: clip for clip in b.clips}
    found = [
        Disagreement(
            clip.id,
            clip.condition,
            clip.reference,
            clip.hypothesis,
            other.hypothesis,
            word_errors(clip).errors,
            word_errors(other).errors,
        )
        for clip in a.clips
        if (other := others.get(clip.id)) is not None
        and clip.reference == other.reference
        and normalize(clip.hypothesis) != normalize(other.hypothesis)
    ]
    return tuple(sorted(found, key=lambda each: -abs(each.b_errors - each.a_errors)))


def _decide(pairs: Sequence[Pair], alpha: float, metrics: Sequence[str], samples: int) -> list[Difference]:
    """The rows over all clips, adjusted for their number."""
    found = {metric: sample for metric in metrics if (sample := SAMPLES_OF[metric](pairs)) is not None}
    tests = {metric: _tested(sample, samples) for metric, sample in found.items()}
    tested = _testable({metric: test.lowest_p for metric, test in tests.items()}, alpha)
    worse = dict(zip(tested, holm([tests[metric].p_worse for metric in tested]), strict=True))
    better = dict(zip(tested, holm([tests[metric].p_better for metric in tested]), strict=True))
    rows = []
    for metric, test in tests.items():
        each = _alpha_for(metric, tests, alpha)
        row = _row(metric, "all", found[metric], test, each, worse.get(metric, 1.0))
        rows.append(
            replace(
                row,
                worse=metric in worse and worse[metric] <= alpha and row.difference > row.margin,
                better=metric in better and better[metric] <= alpha and -row.difference > row.margin,
            )
        )
    return rows


def _alpha_for(metric: str, tests: Mapping[str, PairedTest], alpha: float) -> float | None:
    """The error rate that a figure is tested at, or would be if all of its sentences differed; else None."""
    lowest = {name: test.lowest_p for name, test in tests.items()}
    if metric not in _testable(lowest, alpha):
        lowest[metric] = 2.0 ** -tests[metric].blocks
    tested = _testable(lowest, alpha)
    return alpha / len(tested) if metric in tested else None


def _read(
    pairs: Sequence[Pair], condition: str, alpha: float, metrics: Sequence[str], samples: int
) -> list[Difference]:
    """The rows of one condition, which decide nothing."""
    rows = []
    for metric in metrics:
        if (sample := SAMPLES_OF[metric](pairs)) is not None:
            test = _tested(sample, samples)
            rows.append(_row(metric, condition, sample, test, alpha, test.p_worse))
    return rows


def _tested(sample: Sample, samples: int) -> PairedTest:
    return paired_test(sample.statistic, sample.differs, sizes=sample.sizes, shifts=sample.shifts, samples=samples)


def _row(
    metric: str, condition: str, sample: Sample, test: PairedTest, alpha: float | None, p_value: float
) -> Difference:
    n = test.blocks
    as_of_a = np.repeat(np.array([[1, 0]], dtype=np.float32), n, axis=1)
    of_a = float(sample.statistic(as_of_a)[0])
    margin = margin_of(metric, of_a)
    found = None
    if alpha is not None and n >= blocks_needed(alpha) and sample.enough:
        found = detectable(
            test.error,
            alpha=alpha,
            effective=test.effective if sample.shifts is None else float(n),
            margin=margin,
            grain=sample.step,
            shift_error=None if sample.shifts is None else test.shift_error,
        )
        if found is not None:
            found = max(found, blocks_needed(alpha) * sample.step)
            found = None if found > _largest(metric, of_a, sample.clips) else found
    return Difference(
        metric=metric,
        condition=condition,
        a=of_a,
        b=of_a + test.difference,
        difference=test.difference,
        interval=test.interval if sample.enough else None,
        p_value=p_value,
        margin=margin,
        detectable=found,
        worse=False,
        better=False,
        clips=sample.clips,
    )


def _largest(metric: str, of_a: float, clips: int) -> float:
    """The largest rise that can be claimed to be found.

    No more can fail than there are clips, or as good as that be heard in silence. A share cannot rise above all; and
    where it would have to rise by most of what is left, the sentences are so few that the normal distribution, by which
    the claim is reckoned, is far off.
    """
    if metric in RATES:
        return max(1.0 - of_a, 0.0) * MOST_OF_THE_REST
    return clips - of_a if metric in COUNTS else math.inf


def _testable(lowest: Mapping[str, float], alpha: float) -> list[str]:
    """The figures that can be significant when all of them are tested: the most of them, as of Tarone 1990."""
    for count in range(1, len(lowest) + 1):
        able = [metric for metric, p in lowest.items() if p <= alpha / count]
        if len(able) <= count:
            return able
    return []


def _paired(a: GoldenRun, b: GoldenRun) -> tuple[list[Pair], list[str]]:
    """The clips that both have, and what there is to say about the others."""
    if a.info.normalizer != b.info.normalizer:
        raise ASRError(
            Code.BAD_REQUEST,
            f"These runs were scored by different rules ({a.info.normalizer} and {b.info.normalizer}), so their error "
            "rates mean different things. Run the older one again.",
        )
    others = {clip.id: clip for clip in b.clips}
    common = [(clip, others[clip.id]) for clip in a.clips if clip.id in others]
    pairs = [(clip, other) for clip, other in common if clip.reference == other.reference]
    if not pairs:
        raise ASRError(
            Code.BAD_REQUEST,
            f"These runs have no clip in common: A is of the set {a.info.set_name!r} with {len(a.clips)} clips, B of "
            f"{b.info.set_name!r} with {len(b.clips)}. Compare two runs of one set.",
        )
    notes = []
    if a.info.set_fingerprint != b.info.set_fingerprint:
        notes.append(
            f"The sets differ (A: {a.info.set_name} {a.info.set_fingerprint}; B: {b.info.set_name} "
            f"{b.info.set_fingerprint}): compared are the {_clips(len(pairs))} that both have with the same text; "
            "their sound may differ."
        )
    for name, run in (("A", a), ("B", b)):
        if left := len(run.clips) - len(pairs):
            notes.append(f"{_clips(left)} of {name} not compared: the other run has none with that name and text.")
    for what, of_a, of_b in (
        ("machines", *(info.machine.partition(";")[0] for info in (a.info, b.info))),
        ("chunk lengths", f"{a.info.chunk_ms} ms", f"{b.info.chunk_ms} ms"),
        ("silence after the clips", f"{a.info.tail_ms} ms", f"{b.info.tail_ms} ms"),
        ("numbers of clips at a time", str(a.info.concurrency), str(b.info.concurrency)),
    ):
        if of_a != of_b:
            notes.append(f"The runs differ in {what} ({of_a}; {of_b}): latencies may differ for that alone.")
    notes += [
        f"The machine that streamed {name} was busy (load average up to {info.load_average:.1f} on {info.cores} "
        "cores): its latencies are partly its own."
        for name, info in (("A", a.info), ("B", b.info))
        if info.busy and info.load_average is not None
    ]
    return pairs, notes


def _remarks(pairs: Sequence[Pair], differences: Sequence[Difference]) -> list[str]:
    """What a reader of the figures should know besides."""
    notes = []
    if failed := [b.id for a, b in pairs if b.outcome != "ok" and a.outcome == "ok"]:
        notes.append(f"{_clips(len(failed))} failed in B and not in A: {_some(failed)}. Their words count as missed.")
    if paced := sum(a.realtime != b.realtime for a, b in pairs):
        notes.append(f"{_clips(paced)} streamed in real time in one run only: their latencies are not compared.")
    silent = [b.id for a, b in pairs if b.outcome == "ok" and a.partials and not b.partials and b.realtime]
    if silent:
        notes.append(
            f"B showed no partial in {_clips(len(silent))} in which A did: {_some(silent)}. There its first words are "
            "those of the final, and count as that late."
        )
    words = SAMPLES_OF["wer"](pairs)
    notes += [
        f"{a.id} has so many of the words that it would decide alone, and is left out of the word error rate of all: "
        f"{a.words.errors} errors in A, {word_errors(b).errors} in B, of {a.words.reference} words."
        for a, b in (words.left_out if words is not None else ())
    ]
    if all(a.hypothesis == b.hypothesis for a, b in pairs):
        notes.append(
            "Both runs heard the same words in every clip. If the recognizer always does, then any change of its words "
            "is a change of the recognizer."
        )
    notes += [
        f"{row.metric} of B is above A's by more than is usually found, and yet not significantly: it comes of few "
        "clips. Look at the conditions and at the clips themselves."
        for row in differences
        if row.condition == "all"
        and not row.worse
        and row.difference > row.margin
        and row.detectable is not None
        and row.difference > row.detectable
    ]
    if differences and all(row.detectable is None for row in differences if row.condition == "all"):
        notes.append("There are too few clips to call any difference significant.")
    return notes


def _clips(count: int) -> str:
    return "1 clip" if count == 1 else f"{count} clips"


def _some(ids: Sequence[str], most: int = 5) -> str:
    return ", ".join(ids[:most]) + (f" and {len(ids) - most} more" if len(ids) > most else "")
