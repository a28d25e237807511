"""Percentiles and confidence intervals. Pure; randomness comes in as a seed. Tests of two runs are in `paired`.

What is drawn anew is never a word or a single latency but a *block*: a clip, or all clips of one sentence. Words of
one sentence are hard together and latencies of one stream are slow together; who counts them as independent prints
intervals that are too narrow (Liu, Peng: Statistical testing on ASR performance via blockwise bootstrap, Interspeech
2020).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Weights = NDArray[np.float32]

LEVEL = 0.95
"""Of every confidence interval, unless another is asked for."""

SAMPLES = 2000
"""Draws of a bootstrap or permutation, unless another number is asked for."""

SEED = 20_240_229
"""Of every draw, unless another is asked for: the same data give the same figures."""

MIN_BLOCKS = 5
"""Fewer blocks than this have no interval: what differs between them cannot be told."""

NORMAL = NormalDist()
"""The standard normal distribution."""

_MAX_CELLS = 2_000_000
"""Draws x values held at a time: bounds the memory of a bootstrap over many latencies."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval."""

    low: float
    high: float


def percentile(values: Sequence[float] | Floats, share: float) -> float:
    """The value below which `share` (0 to 1) of the values lie.

    Between two ranks it is interpolated linearly: with values sorted from x[0] to x[n-1] and h = (n-1)·share it is
    x[⌊h⌋] + (h-⌊h⌋)·(x[⌊h⌋+1] - x[⌊h⌋]). That is definition 7 of Hyndman, Fan: Sample quantiles in statistical
    packages, The American Statistician 50 (1996), the one of NumPy and of spreadsheets.

    Raises:
        ValueError: when there are no values.
    """
    if not len(values):
        raise ValueError("no values, no percentile")
    return float(np.quantile(np.asarray(values, dtype=np.float64), share))


def values_needed(share: float, *, level: float = LEVEL) -> int:
    """How many independent values it takes before a percentile has an interval at all: 72 for p95, 6 for the median.

    The largest of n values lies above the percentile with probability 1 - share^n, the smallest below it with
    1 - (1-share)^n; both must reach the level's side, else no value that was seen bounds it (order statistics: David,
    Nagaraja: Order Statistics).
    """
    tail = (1 - level) / 2
    return math.ceil(math.log(tail) / math.log(max(share, 1 - share)) - 1e-9)


Statistic = Callable[[Weights], Floats]
"""A figure of a sample whose units may count several times or not at all: weights (draws x units) → (draws,)."""


def rate_of(numerators: Sequence[float] | Floats, denominators: Sequence[float] | Floats) -> Statistic:
    """The pooled rate, Σ numerator / Σ denominator; NaN where the denominators drawn sum to 0."""
    above, below = np.asarray(numerators, dtype=np.float32), np.asarray(denominators, dtype=np.float32)

    def statistic(weights: Weights) -> Floats:
        total = _weighted_sums(weights, below)
        rates: Floats = np.divide(
            _weighted_sums(weights, above), total, out=np.full(len(weights), np.nan), where=total != 0
        )
        return rates

    return statistic


def total_of(counts: Sequence[float] | Floats) -> Statistic:
    """The sum of the units' counts."""
    each = np.asarray(counts, dtype=np.float32)

    def statistic(weights: Weights) -> Floats:
        return _weighted_sums(weights, each)

    return statistic


def percentile_of(groups: Sequence[Sequence[float]], share: float) -> Statistic:
    """The `percentile` of all values of the units together; NaN where no value was drawn."""
    values = np.array([value for group in groups for value in group], dtype=np.float64)
    units = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    order = np.argsort(values, kind="stable")
    values, units = values[order], units[order]

    def statistic(weights: Weights) -> Floats:
        drawn = np.any(weights, axis=0)[units]
        return _weighted_percentile(values[drawn], weights, units[drawn], share)

    return statistic


def _weighted_sums(weights: Weights, values: Weights) -> Floats:
    """Σ weight·value of every draw; in one thread, because for so little others cost more than they bring."""
    sums: Floats = np.einsum("ij,j->i", weights, values).astype(np.float64)
    return sums


def _weighted_percentile(values: Floats, weights: Weights, units: NDArray[np.intp], share: float) -> Floats:
    """`percentile` of sorted values, each repeated as often as its unit was drawn, for every draw."""
    found = np.full(len(weights), np.nan)
    if not len(values):
        return found
    step = max(_MAX_CELLS // len(values), 1)
    for start in range(0, len(weights), step):
        ends = np.cumsum(weights[start : start + step].astype(np.int32)[:, units], axis=1, dtype=np.int32)
        rank = np.maximum(ends[:, -1] - 1, 0) * share
        low = np.floor(rank).astype(np.int32)
        last = len(values) - 1
        below = np.minimum((ends <= low[:, None]).sum(axis=1), last)
        high = np.minimum(low + 1, np.maximum(ends[:, -1] - 1, 0))
        above = np.minimum((ends <= high[:, None]).sum(axis=1), last)
        here = values[below] + (rank - low) * (values[above] - values[below])
        found[start : start + step] = np.where(ends[:, -1] > 0, here, np.nan)
    return found


def bootstrap_rate(
    pairs: Sequence[tuple[float, float]],
    *,
    blocks: Sequence[Hashable] | None = None,
    level: float = LEVEL,
    samples: int = SAMPLES,
    seed: int = SEED,
) -> Interval | None:
    """The interval of a pooled rate (a word error rate, say), by drawing clips anew with replacement.

    Bisani, Ney: Bootstrap estimates for confidence intervals in ASR performance evaluation, ICASSP 2004; drawn in
    blocks as of Liu, Peng 2020. The ends are percentiles of the draws, moved outward for few blocks (see `expanded`).
    Where no clip has any error the draws have none either, and the upper end is the exact binomial bound instead, as if
    words failed independently.

    Args:
        pairs: (errors, length of the reference) of each clip.
        blocks: for each clip, the sentence it belongs to; each clip on its own by default.
        level: of the interval.
        samples: draws.
        seed: of the draws.

    Returns:
        None for fewer than `MIN_BLOCKS` blocks, or no reference at all.
    """
    summed = _sums(np.array(pairs, dtype=np.float64).reshape(-1, 2), blocks)
    above, below = summed.T
    if len(summed) < MIN_BLOCKS or not below.sum():
        return None
    if not above.any():
        return Interval(0.0, binomial_bounds(0, round(below.sum()), level=level).high)
    return expanded(rate_of(above, below)(draws(len(summed), samples, seed)), len(summed), level)


def bootstrap_percentile(
    groups: Sequence[Sequence[float]],
    share: float,
    *,
    blocks: Sequence[Hashable] | None = None,
    level: float = LEVEL,
    samples: int = SAMPLES,
    seed: int = SEED,
) -> Interval | None:
    """The interval of a percentile of all values, by drawing clips (groups of values) anew with replacement.

    Efron, Tibshirani: An Introduction to the Bootstrap, 1993, chapter 13; in blocks as `bootstrap_rate`.

    Returns:
        None for fewer values than `values_needed` tells, or fewer than `MIN_BLOCKS` blocks with values.
    """
    keys = range(len(groups)) if blocks is None else blocks
    merged: dict[Hashable, list[float]] = {}
    for key, group in zip(keys, groups, strict=True):
        if len(group):
            merged.setdefault(key, []).extend(group)
    if len(merged) < MIN_BLOCKS or sum(map(len, merged.values())) < values_needed(share, level=level):
        return None
    drawn = draws(len(merged), samples, seed)
    return expanded(percentile_of(list(merged.values()), share)(drawn), len(merged), level)


def binomial_bounds(hits: int, trials: int, *, level: float = LEVEL) -> Interval:
    """The exact interval of a probability, of which `hits` in `trials` were seen.

    Clopper, Pearson: The use of confidence or fiducial limits illustrated in the case of the binomial, Biometrika 26
    (1934). For 0 hits the upper end is about 3.7 / trials.
    """
    tail = (1 - level) / 2
    low = 0.0 if hits == 0 else solve(lambda p: 1 - _binomial_cdf(hits - 1, trials, p), tail)
    high = 1.0 if hits == trials else solve(lambda p: 1 - _binomial_cdf(hits, trials, p), 1 - tail)
    return Interval(low, high)


def _binomial_cdf(hits: int, trials: int, p: float) -> float:
    """Probability of at most `hits` in `trials`, 0 < p < 1; by logarithms, so that large numbers do no harm."""
    counts = np.arange(hits + 1)
    logs = np.array([math.lgamma(trials + 1) - math.lgamma(k + 1) - math.lgamma(trials - k + 1) for k in counts])
    return float(np.exp(logs + counts * math.log(p) + (trials - counts) * math.log1p(-p)).sum())


def solve(rising: Callable[[float], float], target: float, high: float = 1.0) -> float:
    """Where a function that is below a value at 0 and not at `high` reaches it, by halving."""
    low = 0.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < target else (low, middle)
    return high


def _sums(values: Floats, blocks: Sequence[Hashable] | None) -> Floats:
    """The rows of each block added up; rows are blocks of their own when none are told."""
    if blocks is None:
        return values
    index = {key: i for i, key in enumerate(dict.fromkeys(blocks))}
    summed = np.zeros((len(index), values.shape[1]))
    np.add.at(summed, [index[key] for key in blocks], values)
    return summed


@lru_cache(maxsize=4)
def draws(n: int, samples: int, seed: int) -> Weights:
    """How often each of n units is drawn, when n are drawn with replacement (samples x n)."""
    drawn = np.random.default_rng(seed).integers(0, n, size=(samples, n)) + n * np.arange(samples)[:, None]
    return np.bincount(drawn.ravel(), minlength=n * samples).reshape(samples, n).astype(np.float32)


def expanded(drawn: Floats, n: int, level: float) -> Interval:
    """The middle `level` of the draws, moved outward for few units.

    Percentiles of a bootstrap are those of a normal distribution with n instead of n-1 in its variance: too narrow for
    small n. Expanded as of Hesterberg: What teachers should know about the bootstrap, The American Statistician 69
    (2015): the tail becomes Φ(-√(n/(n-1))·t), t being Student's for n-1 degrees of freedom (by the expansion 26.7.5 of
    Abramowitz, Stegun: Handbook of Mathematical Functions).
    """
    drawn = drawn[~np.isnan(drawn)]
    z, f = NORMAL.inv_cdf((1 + level) / 2), n - 1
    t = z + (z**3 + z) / (4 * f) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * f**2)
    tail = NORMAL.cdf(-math.sqrt(n / (n - 1)) * t)
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Interval(float(low), float(high))
