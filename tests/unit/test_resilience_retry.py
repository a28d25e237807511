"""What is retried, after which pause, and how much of it there may be."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.errors import ASRError, Code
from asr.resilience.retry import Backoff, RetryBudget, Verdict, counts_as_failure, verdict


@pytest.mark.parametrize(
    ("code", "retryable", "expected", "failure"),
    [
        (Code.UNAVAILABLE, True, Verdict.RETRY_ANYWHERE, True),
        (Code.TIMEOUT, True, Verdict.RETRY_ANYWHERE, True),
        (Code.INTERNAL, True, Verdict.RETRY_ANYWHERE, True),
        (Code.UNAVAILABLE, False, Verdict.RETRY_ELSEWHERE, True),
        (Code.INTERNAL, False, Verdict.RETRY_ELSEWHERE, True),
        (Code.OVERLOADED, True, Verdict.BACK_OFF, False),
        (Code.RATE_LIMITED, True, Verdict.BACK_OFF, False),
        (Code.OVERLOADED, False, Verdict.BACK_OFF, False),
    ],
)
def test_failures_of_recognizers(code: Code, retryable: bool, expected: Verdict, failure: bool) -> None:
    error = ASRError(code, "It failed.", retryable=retryable)
    assert verdict(error) is expected
    assert counts_as_failure(error) is failure


CALLERS = sorted(set(Code) - {Code.UNAVAILABLE, Code.TIMEOUT, Code.INTERNAL, Code.OVERLOADED, Code.RATE_LIMITED})


@pytest.mark.parametrize("code", CALLERS)
@pytest.mark.parametrize("retryable", [True, False])
def test_the_callers_faults_are_theirs(code: Code, retryable: bool) -> None:
    error = ASRError(code, "It failed.", retryable=retryable)
    assert verdict(error) is Verdict.GIVE_UP
    assert not counts_as_failure(error)


def test_pauses_grow_to_the_cap() -> None:
    longest = Backoff(100, 2_000, lambda: 1.0)
    assert [longest.pause_ms(n) for n in (1, 2, 3, 4, 5, 6, 7)] == [100, 200, 400, 800, 1_600, 2_000, 2_000]


def test_jitter_is_full() -> None:
    draws = iter([0.0, 0.25, 0.5, 0.75])
    backoff = Backoff(100, 2_000, lambda: next(draws))
    assert [backoff.pause_ms(3) for _ in range(4)] == [0, 100, 200, 300]


@given(st.integers(1, 10_000), st.integers(1, 60_000), st.integers(1, 10**9), st.floats(0, 1, exclude_max=True))
def test_no_pause_is_longer_than_the_cap(base_ms: int, cap_ms: int, attempt: int, draw: float) -> None:
    assert 0 <= Backoff(base_ms, cap_ms, lambda: draw).pause_ms(attempt) <= cap_ms


def test_no_base_means_no_pauses() -> None:
    assert [Backoff(0, 2_000, lambda: 0.9).pause_ms(n) for n in (1, 5, 5_000)] == [0, 0, 0]


def test_the_floor_is_there_from_the_start() -> None:
    budget = RetryBudget(10, floor=3)
    assert [budget.spend() for _ in range(5)] == [True, True, True, False, False]


def test_ten_streams_earn_a_whole_retry() -> None:
    budget = RetryBudget(10, floor=0)
    for _ in range(9):
        budget.started()
    assert not budget.spend()
    budget.started()
    assert budget.spend()
    assert not budget.spend()


def test_no_hoard_of_retries() -> None:
    budget = RetryBudget(20, floor=5)
    for _ in range(100_000):
        budget.started()
    assert sum(budget.spend() for _ in range(1_000)) == 20


@pytest.mark.parametrize("percent", [0, 10, 25])
def test_an_outage_is_not_multiplied(percent: int) -> None:
    budget = RetryBudget(percent)
    attempts = 0
    for _ in range(1_000):
        budget.started()
        attempts += 1
        for _ in range(20):  # all fail, each stream is patient
            attempts += budget.spend()
    assert 1_000 * (1 + percent / 100) <= attempts <= 1_000 * (1 + percent / 100) + 10


def test_the_floor_comes_back_with_time() -> None:
    budget = RetryBudget(10, floor=10, refill_ms=60_000)
    assert sum(budget.spend(100.0) for _ in range(20)) == 10
    assert not budget.spend(105.9)
    assert budget.spend(106.1)
    assert sum(budget.spend(160.0) for _ in range(20)) == 9
    assert sum(budget.spend(10_000.0) for _ in range(20)) == 10


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.floats(0, 30)), max_size=80), st.integers(0, 100), st.integers(0, 10))
def test_retries_stay_in_proportion(moves: list[tuple[bool, float]], percent: int, floor: int) -> None:
    budget = RetryBudget(percent, floor)
    starts = spent = 0
    now = 0.0
    for start, pause in moves:
        now += pause
        if start:
            budget.started()
            starts += 1
        else:
            spent += budget.spend(now)
    assert spent <= starts * percent / 100 + floor * (1 + now / 60) + 1e-6
