"""Tests of two runs: by all permutations where they can be counted, by their own equations where not."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from evaluation.paired import PairedTest, blocks_needed, detectable, holm, paired_test
from evaluation.statistics import SAMPLES, Interval, percentile_of, rate_of, total_of


def test_p_values_of_signs_are_those_of_all_signs() -> None:
    differences = [3, 1, 4, 1, -2, 6, 2]
    n = len(differences)
    totals = [sum(d if code >> i & 1 else -d for i, d in enumerate(differences)) for code in range(2**n)]
    exact = sum(total >= sum(differences) for total in totals) / 2**n
    found = sign_flip_test(differences, samples=20_000)
    assert found.difference == 15
    assert found.p_worse == pytest.approx(exact, abs=0.005)
    assert found.p_better > 0.95
    assert found.lowest_p == 2**-n
    assert sign_flip_test([-d for d in differences], samples=20_000).p_better == pytest.approx(exact, abs=0.005)


def test_equal_runs_are_no_evidence_at_all() -> None:
    found = sign_flip_test([0] * 30)
    assert (found.p_worse, found.p_better, found.lowest_p, found.error, found.interval) == (1, 1, 1, 0, None)


def test_one_long_clip_decides_nothing_by_its_size() -> None:
    assert sign_flip_test([500] + [0] * 50).p_worse == pytest.approx(0.5, abs=0.05)


def test_rates_with_unequal_references_are_compared_as_rates() -> None:
    # B shows twice the words and revises twice as many: the rate is the same.
    found = paired_test(rate_of([1, 2, 1] * 4 + [2, 4, 2] * 4, [10] * 12 + [20] * 12), [True] * 12)
    assert found.difference == pytest.approx(0, abs=1e-9)
    assert found.p_worse > 0.4


def test_the_standard_error_is_that_of_a_mean_of_differences() -> None:
    each = np.random.default_rng(8).normal(1.0, 1.0, size=200)
    found = sign_flip_test(each)
    assert found.error == pytest.approx(np.std(each, ddof=1) * math.sqrt(200), rel=0.1)
    assert found.interval is not None
    assert width(found.interval) == pytest.approx(2 * 1.97 * found.error, rel=0.15)
    assert (found.blocks, found.effective) == (200, 200)
    uneven = paired_test(rate_of([0, 0, 0, 1, 2, 3], [1, 1, 8, 1, 1, 8]), [True] * 3, sizes=[1, 1, 8])
    assert uneven.effective == pytest.approx(100 / 66)


def test_shifts_tell_what_a_median_of_few_hides() -> None:
    of_a = [[400.0 * at] for at in range(10)]
    of_b = [[400.0 * at + 300] for at in range(10)]
    coarse = paired_test(percentile_of(of_a + of_b, 0.5), [True] * 10)
    found = paired_test(percentile_of(of_a + of_b, 0.5), [True] * 10, shifts=[300.0] * 10)
    assert coarse.difference == found.difference == 300
    assert coarse.p_worse > 0.1
    assert found.p_worse == pytest.approx(2**-10, abs=0.002)
    assert found.p_better == 1


def test_one_stream_that_hung_in_a_hides_no_shift_of_the_others() -> None:
    shifts = [*np.random.default_rng(3).normal(100.0, 50.0, size=39), -60_000.0]
    values = [[500.0]] * 40 + [[600.0]] * 40
    found = paired_test(percentile_of(values, 0.5), [True] * 40, shifts=shifts)
    assert found.p_worse < 0.01
    # None turned round counts otherwise: the shifts of B against A are those of A against B with the other sign.
    back = paired_test(percentile_of(values[::-1], 0.5), [True] * 40, shifts=[-each for each in shifts])
    assert (back.p_better, back.p_worse) == (found.p_worse, found.p_better)


def test_holm_multiplies_by_what_is_left() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert holm([0.9, 0.8]) == (1.0, 1.0)
    assert holm([]) == ()


def test_the_detectable_difference_is_that_of_a_test_of_known_power() -> None:
    assert detectable(1.0, alpha=0.05, effective=math.inf) == pytest.approx(1.6449 + 0.8416, abs=1e-3)
    assert detectable(1.0, alpha=0.05, effective=math.inf, margin=10) == pytest.approx(10.8416, abs=1e-3)
    few = detectable(1.0, alpha=0.05, effective=20)
    assert few is not None
    # It satisfies its own equation.
    assert few == pytest.approx(1.6449 * math.sqrt(1 + few**2 / 20) + 0.8416, abs=1e-3)
    assert detectable(1.0, alpha=0.01, effective=5) is None
    # A recognizer that never varies: so many new events that their number, of Poisson, is above what chance could do.
    events = detectable(0.0, alpha=0.05, effective=math.inf, grain=1.0)
    assert events == pytest.approx((1.6449 + 0.8416) ** 2, abs=1e-2)
    assert (blocks_needed(0.05), blocks_needed(0.01), blocks_needed(0.5)) == (5, 7, 1)


def sign_flip_test(differences: Sequence[float], samples: int = SAMPLES) -> PairedTest:
    """Is the sum of per-sentence differences above 0?"""
    each = np.asarray(differences, dtype=np.float64)
    return paired_test(total_of(np.concatenate([np.zeros(len(each)), each])), list(each != 0), samples=samples)


def width(interval: Interval) -> float:
    return interval.high - interval.low
