"""Percentiles and intervals: by hand where that can be done, by coverage where it cannot."""

from __future__ import annotations

import math

import numpy as np
import pytest

from evaluation.statistics import (
    Interval,
    binomial_bounds,
    bootstrap_percentile,
    bootstrap_rate,
    percentile,
    percentile_of,
    values_needed,
)


@pytest.mark.parametrize(("share", "expected"), [(0, 10), (0.5, 25), (0.95, 38.5), (1, 40), (1 / 3, 20)])
def test_a_percentile_lies_between_two_ranks(share: float, expected: float) -> None:
    assert percentile([40, 10, 30, 20], share) == pytest.approx(expected)


def test_one_value_is_every_percentile_and_none_is_an_error() -> None:
    assert percentile([7.5], 0.95) == 7.5
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


def test_a_95th_percentile_takes_72_values_and_a_median_6() -> None:
    assert (values_needed(0.95), values_needed(0.5), values_needed(0.05)) == (72, 6, 72)
    # By hand: 71 values leave the largest below the percentile too often, 72 do not.
    assert 0.95**71 > 0.025 >= 0.95**72


def test_an_interval_of_a_rate_covers_the_truth_as_often_as_it_says() -> None:
    random = np.random.default_rng(4)
    covered = 0
    for _ in range(200):
        words = random.integers(5, 26, size=40)
        share = np.clip(random.normal(0.15, 0.08, size=40), 0.01, 0.9)
        errors = random.binomial(words, share)
        found = bootstrap_rate(list(zip(errors.tolist(), words.tolist(), strict=True)), samples=300)
        assert found is not None
        covered += found.low <= 0.15 <= found.high
    # 95 % of 200 are 190; fewer than 182 or more than 199 would come by chance once in a hundred.
    assert 182 <= covered <= 199


def test_clips_of_one_sentence_do_not_count_as_independent() -> None:
    pairs = [(i % 5, 10) for i in range(40)]
    alone = bootstrap_rate(pairs)
    four_times = bootstrap_rate(pairs * 4, blocks=list(range(40)) * 4)
    independent = bootstrap_rate(pairs * 4)
    assert alone is not None
    assert four_times is not None
    assert independent is not None
    assert four_times == alone
    assert width(independent) == pytest.approx(width(alone) / 2, rel=0.15)


def test_few_sentences_have_wider_intervals_or_none() -> None:
    assert bootstrap_rate([(1, 10)] * 4) is None
    assert bootstrap_rate([(1, 10)] * 40, blocks=["one", "two"] * 20) is None
    assert bootstrap_rate([(0, 0)] * 40) is None
    assert bootstrap_rate([]) is None
    few, many = bootstrap_rate([(0, 10), (2, 10)] * 3), bootstrap_rate([(0, 10), (2, 10)] * 50)
    assert few is not None
    assert many is not None
    # Of a normal distribution: 1.96 standard errors, with Student's t and n-1 for few.
    assert width(many) / 2 == pytest.approx(1.984 * 0.1 / math.sqrt(99), rel=0.1)
    assert width(few) / 2 == pytest.approx(2.571 * 0.1 / math.sqrt(5), rel=0.15)


def test_no_error_at_all_is_no_certainty() -> None:
    assert bootstrap_rate([(0, 10)] * 10) == binomial_bounds(0, 100) == Interval(0.0, pytest.approx(0.0362, abs=1e-4))


def test_an_interval_of_a_percentile_needs_values_and_covers_the_truth() -> None:
    random = np.random.default_rng(5)
    assert bootstrap_percentile([[1.0]] * 71, 0.95) is None
    assert bootstrap_percentile([[1.0] * 100] * 4, 0.95) is None
    assert bootstrap_percentile([[1.0], []] * 71, 0.95) is None
    covered = [0, 0]
    for _ in range(100):
        groups = random.lognormal(5.0, 0.5, size=(150, 1)).tolist()
        for side, (share, truth) in enumerate(((0.5, math.exp(5.0)), (0.95, math.exp(5.0 + 0.5 * 1.6449)))):
            found = bootstrap_percentile(groups, share, samples=200)
            assert found is not None
            covered[side] += found.low <= truth <= found.high
    assert all(88 <= each <= 100 for each in covered), covered


def test_a_drawn_percentile_is_that_of_the_repeated_values() -> None:
    random = np.random.default_rng(6)
    groups = [random.normal(size=size).tolist() for size in (1, 4, 0, 2, 7)]
    weights = random.integers(0, 4, size=(30, 5)).astype(np.float32)
    weights[0] = 0
    for share in (0.5, 0.95):
        drawn = percentile_of(groups, share)(weights)
        assert math.isnan(drawn[0])
        for row, found in zip(weights[1:], drawn[1:], strict=True):
            repeated = [value for group, times in zip(groups, row, strict=True) for value in group * int(times)]
            assert found == pytest.approx(percentile(repeated, share)) if repeated else math.isnan(found)


@pytest.mark.parametrize(
    ("hits", "trials", "low", "high"),
    [(0, 10, 0.0, 0.3085), (10, 10, 0.6915, 1.0), (5, 100, 0.0164, 0.1128), (50, 1000, 0.0373, 0.0654)],
)
def test_binomial_bounds_are_those_of_the_tables(hits: int, trials: int, low: float, high: float) -> None:
    found = binomial_bounds(hits, trials)
    assert (found.low, found.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


def test_the_same_data_give_the_same_figures() -> None:
    pairs = [(i % 7, 10 + i) for i in range(30)]
    assert bootstrap_rate(pairs) == bootstrap_rate(pairs)
    assert bootstrap_rate(pairs, seed=1) != bootstrap_rate(pairs, seed=2)


def width(interval: Interval) -> float:
    return interval.high - interval.low
