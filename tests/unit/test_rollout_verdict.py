"""Does the canary's verdict keep what it promises? Made-up canaries, of which it is known whether they are worse.

Streams differ in how late their finals come and how much is said in them; some say nothing at all. A canary that is no
worse must be called worse in at most 5 % of all canaries, looked at after every stream; a planted harm must be found
within a stated number of the canary's streams. `ROLLOUT_LONG=1` rehearses as many as `docs/rollout.md` tells of (two
minutes); without it as many as tell a rule that is broken.
"""

from __future__ import annotations

import math
import os
import random
from dataclasses import dataclass

import pytest

from evaluation.statistics import binomial_bounds
from server.rollout.verdict import ALPHA, Comparison, Figure, Lot

LONG = bool(os.environ.get("ROLLOUT_LONG"))


@dataclass(frozen=True)
class Harm:
    """What is wrong with a canary: the rate of errors, factors of latency and words, the share that hears nothing."""

    errors: float = 0.01
    latency: float = 1.0
    words: float = 1.0
    deaf: float = 0.0


def stream(comparison: Comparison, dice: random.Random, share: float, harm: Harm, *, hour: float = 0.0) -> Lot:
    """One more stream; `hour` makes all of them slower and worse, of both arms."""
    lot = Lot(dice.random() < share, share, comparison.step)
    own = harm if lot.canary else Harm()
    rate = own.errors * (1 + 2 * hour)
    if dice.random() < rate:
        comparison.failed(lot, spoke=dice.random() < 0.5)
        return lot
    comparison.latency(lot, own.latency * 0.5 * math.exp(dice.gauss(0.3 * hour, 0.35)))
    silent = dice.random() < 0.08 or (lot.canary and dice.random() < harm.deaf)
    said = 0.0 if silent else max(own.words * dice.gauss(130, 35), 5.0)
    comparison.words(lot, said)
    comparison.ended(lot)
    return lot


def found_after(seed: int, harm: Harm, *, share: float = 0.2, good_for: int = 0, most: int = 1500) -> int | None:
    """How many streams the canary had when it was called worse; None: never."""
    dice, comparison, had = random.Random(seed), Comparison(50), 0
    while had < most:
        bad = harm if had >= good_for else Harm()
        had += stream(comparison, dice, share, bad).canary
        if comparison.worse is not None:
            return had
    return None


# --- no harm


@pytest.mark.parametrize(("share", "most"), [(0.05, 200 if LONG else 40), (0.5, 300 if LONG else 200)])
def test_a_canary_that_is_no_worse_is_seldom_aborted(share: float, most: int) -> None:
    runs = 400 if LONG else 40
    alarms = sum(found_after(seed, Harm(), share=share, most=most) is not None for seed in range(runs))
    assert alarms / runs <= ALPHA, binomial_bounds(alarms, runs)


def test_neither_the_time_of_day_nor_its_steps_make_a_canary_worse() -> None:
    """The percentage rises while everything becomes slower, and errors three times as frequent: for both."""
    alarms, runs = 0, 200 if LONG else 20
    for seed in range(runs):
        dice, comparison = random.Random(seed), Comparison(50)
        for share, hour in ((0.01, 0.0), (0.05, 0.3), (0.25, 0.7), (0.5, 1.0)):
            comparison.next_step()
            for _ in range(500):
                stream(comparison, dice, share, Harm(), hour=hour)
        alarms += comparison.worse is not None
    assert alarms <= runs * ALPHA, alarms


def test_a_little_slower_is_nobody_s_trouble() -> None:
    runs = 100 if LONG else 20
    little = Harm(latency=1.05, words=0.98)
    alarms = sum(found_after(seed, little, share=0.5, most=200) is not None for seed in range(runs))
    assert alarms <= runs * ALPHA, alarms


# --- planted harm: 95 of 100 are found within so many streams of the canary


@pytest.mark.parametrize(
    ("harm", "share", "within", "figure"),
    [
        (Harm(errors=0.06), 0.05, 320, Figure.ERRORS),
        (Harm(errors=0.06), 0.5, 550, Figure.ERRORS),
        (Harm(errors=0.5), 0.05, 15, Figure.ERRORS),
        (Harm(latency=1.5), 0.05, 60, Figure.LATENCY),
        (Harm(latency=1.5), 0.5, 90, Figure.LATENCY),
        (Harm(words=0.85), 0.05, 450, Figure.WORDS),
        (Harm(words=0.85), 0.5, 700, Figure.WORDS),
        (Harm(deaf=0.3), 0.05, 60, None),
    ],
)
def test_a_planted_harm_is_found(harm: Harm, share: float, within: int, figure: Figure | None) -> None:
    runs = 100 if LONG else 10
    times = sorted(found_after(seed, harm, share=share, most=within) or 10**9 for seed in range(runs))
    assert times[runs * 95 // 100 - 1] <= within, times


def test_a_canary_that_becomes_bad_after_a_good_beginning_is_found() -> None:
    runs, good_for = (20, 600) if LONG else (6, 200)
    late = Harm(latency=1.5)
    times = sorted(found_after(seed, late, good_for=good_for, most=1500) or 10**9 for seed in range(runs))
    assert times[runs * 95 // 100 - 1] <= good_for + 120, times
