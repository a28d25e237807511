"""Is a figure of run B larger than that of run A? Permutation tests, several at a time, and what they can find.

Pure, as `statistics`, whose blocks these are drawn by.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from evaluation.statistics import (
    LEVEL,
    MIN_BLOCKS,
    NORMAL,
    SAMPLES,
    SEED,
    Floats,
    Interval,
    Statistic,
    Weights,
    draws,
    expanded,
    solve,
)

BOUND = 3.0
"""So many times the median of all shifts one of them counts at most: rarer than one in twenty where they are normal."""

POWER = 0.8
"""Probability with which a difference of the stated size is found."""


@dataclass(frozen=True, slots=True)
class PairedTest:
    """What `paired_test` found.

    Attributes:
        difference: figure of B minus figure of A.
        p_worse, p_better: one-sided: how often chance alone gives a difference as large (as small) as this.
        lowest_p: no outcome could have had a smaller one; 1 where A and B are equal throughout.
        error: standard error of the difference between two runs of these very sentences.
        shift_error: the same of what was tested, where `shifts` were; else `error`.
        interval: its 95 % confidence interval; None for fewer than `MIN_BLOCKS` blocks, or where A and B are equal.
        blocks: how many the figures rest on.
        effective: how many of one size would tell as much.
    """

    difference: float
    p_worse: float
    p_better: float
    lowest_p: float
    error: float
    shift_error: float
    interval: Interval | None
    blocks: int
    effective: float


def paired_test(
    statistic: Statistic,
    differs: Sequence[bool],
    *,
    sizes: Sequence[float] | None = None,
    shifts: Sequence[float] | None = None,
    samples: int = SAMPLES,
    seed: int = SEED,
    level: float = LEVEL,
) -> PairedTest:
    """Is a figure of B larger than that of A, over blocks that both have?

    A permutation test: if the runs are of a kind, then the two results of any block could as well have come the other
    way round. The figure's difference is computed with the results of every block swapped or not, by a coin, and p is
    the share of draws with a difference no smaller than the one seen, that one among them: (1 + hits) / (1 + draws)
    (Phipson, Smyth: Permutation p-values should never be zero, Statistical Applications in Genetics 9, 2010). For a
    rate over equal references this is the sign-flip test of the per-block error differences (Fisher: The Design of
    Experiments, 1935; Gillick, Cox, ICASSP 1989, test the same differences by their mean). Blocks count with the words
    or latencies that they have, so unequal sizes do no harm. The interval comes from a bootstrap of the blocks with
    both their results (Bisani, Ney 2004), the standard error from the spread of the swaps.

    A median of few values moves in steps when single blocks are swapped, and hides what all blocks show alike: ten of
    ten slower by the same. So the p-values of such a figure are better those of the mean of the blocks' own
    differences, the `shifts`; no single one of them counts as more than `BOUND` times the median of their sizes, so
    that one stream that hung decides nothing. Any statistic keeps the error rate of a permutation test; this one has
    the power.

    Args:
        statistic: takes weights of 2·n units: blocks 0 … n-1 as of run A, then the same as of run B.
        differs: for each of the n blocks, whether the two results differ at all.
        sizes: words (or values) of each block, for `effective`: (Σ size)² / Σ size² (Kish: Survey Sampling, 1965); all
            of one size by default.
        shifts: for each block, how much larger it is in B than in A; the figure itself is tested by default.
        samples: draws, of both.
        seed: of the draws.
        level: of the interval.
    """
    n = len(differs)
    once, none = np.ones((1, n), np.float32), np.zeros((1, n), np.float32)
    seen = float((statistic(np.hstack([none, once])) - statistic(np.hstack([once, none])))[0])
    swapped = _swaps(n, samples // 2, seed)
    chance = statistic(np.hstack([swapped, 1 - swapped])) - statistic(np.hstack([1 - swapped, swapped]))
    # Swapping just the others gives the same with the other sign.
    chance = np.concatenate([chance, -chance])
    tested, of_tested = seen, chance
    if shifts is not None:
        bounded = _bounded(np.asarray(shifts, dtype=np.float64))
        tested, of_tested = float(bounded.mean()), (2 * swapped - 1).astype(np.float64) @ bounded / n
        of_tested = np.concatenate([of_tested, -of_tested])
    drawn = draws(n, samples, seed)
    none = np.zeros_like(drawn)
    spread = statistic(np.hstack([none, drawn])) - statistic(np.hstack([drawn, none]))
    # A draw that is equal but for rounding is equal; one in which nothing was left to measure speaks for chance.
    slack = 1e-6 * abs(tested) + 1e-9
    weights = np.ones(n) if sizes is None else np.asarray(sizes, dtype=np.float64)
    effective = float(weights.sum() ** 2 / (weights**2).sum())
    return PairedTest(
        difference=seen,
        p_worse=float(1 + np.count_nonzero(~(of_tested < tested - slack))) / (1 + len(of_tested)),
        p_better=float(1 + np.count_nonzero(~(of_tested > tested + slack))) / (1 + len(of_tested)),
        lowest_p=max(2.0 ** -sum(differs), 1 / (1 + len(chance))),
        error=_error(chance, seen, effective),
        shift_error=_error(of_tested, tested, effective if shifts is None else float(n)),
        interval=expanded(spread, n, level) if n >= MIN_BLOCKS and any(differs) else None,
        blocks=n,
        effective=effective,
    )


def _error(chance: Floats, seen: float, effective: float) -> float:
    """The standard error that the spread of the swaps tells.

    The difference itself widens the swaps: what it adds is taken out again, as a variance is taken about the mean.
    """
    variance = max(float(np.nanmean(chance**2)) - seen**2 / effective, 0.0) * effective / max(effective - 1, 1.0)
    return math.sqrt(variance)


def _bounded(shifts: Floats) -> Floats:
    """None further from 0 than `BOUND` times the median distance; the same whichever way any of them points."""
    bound = BOUND * float(np.median(np.abs(shifts)))
    return np.clip(shifts, -bound, bound) if bound > 0 else shifts


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """p-values adjusted for being several: any of them ≤ α by chance alone has a probability ≤ α, however they depend.

    Holm: A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6 (1979): the i-th
    smallest of m is multiplied by m - i + 1, and none may be below its predecessor.
    """
    adjusted = [1.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(p_values[index] * (len(p_values) - rank), 1.0))
        adjusted[index] = highest
    return tuple(adjusted)


def detectable(
    error: float,
    *,
    alpha: float,
    effective: float,
    margin: float = 0.0,
    grain: float = 0.0,
    power: float = POWER,
    shift_error: float | None = None,
) -> float | None:
    """The smallest true difference that `paired_test` finds with probability `power`, None where it finds none.

    "Found" is: significant, one-sided at `alpha`, and above the margin. The difference seen is about normal around the
    true one, δ, with the standard error e(δ) = √(error² + grain·δ): what gets worse does so by whole events (a wrong
    word, a failed clip), each a matter of chance, and their number varies as of Poisson. To be above the margin so
    often, δ must be margin + z(power)·e. To be significant, the difference seen must be above z(1-alpha) times the
    spread of the swaps, which grows with what it measures: √(e² + δ²/effective). The answer is where
    δ = max(margin, z(1-alpha)·√(e² + δ²/effective)) + z(power)·e: the usual formula of power (Cohen: Statistical Power
    Analysis, 2nd edition, 1988) for a permutation test.

    Args:
        error: standard error between two runs that are of a kind.
        alpha: of the one test.
        effective: blocks of one size that would tell as much.
        margin: what is not called worse.
        grain: how much one event adds to the figure; 0 for latencies.
        power: how often it is to be found.
        shift_error: standard error of what is tested for significance, where that is not the figure itself: the answer
            is then the larger of both, what is significant so often and what is above the margin so often.
    """
    if shift_error is not None:
        significant = detectable(shift_error, alpha=alpha, effective=effective, power=power)
        return None if significant is None else max(significant, margin + NORMAL.inv_cdf(power) * error)
    bar, aim = NORMAL.inv_cdf(1 - alpha), NORMAL.inv_cdf(power)
    if bar**2 >= effective:
        return None

    def beyond(true: float) -> float:
        variance = error**2 + grain * true
        return true - max(margin, bar * math.sqrt(variance + true**2 / effective)) - aim * math.sqrt(variance)

    high = 1e-6
    while beyond(high) < 0:
        high *= 2
    return solve(beyond, 0.0, high)


def blocks_needed(alpha: float) -> int:
    """How many blocks must differ, all one way, before a sign-flip test can be significant at `alpha`: 2^-n ≤ alpha."""
    return math.ceil(-math.log2(alpha) - 1e-9)


@lru_cache(maxsize=4)
def _swaps(n: int, samples: int, seed: int) -> Weights:
    """For each of n blocks 1 or 0, by a coin (samples x n)."""
    return np.random.default_rng((seed, 1)).integers(0, 2, size=(samples, n)).astype(np.float32)
