"""Does `compare` keep what it promises? Runs of a made-up recognizer, of which it is known whether one is worse.

A made-up recognizer hears a made-up set twice. Sentences differ in difficulty and length, conditions make all of them
harder, streams are slow or quick for their own reasons; over all that lies the chance of each single run. Two runs that
differ by nothing but chance must not raise more alarms than alpha; a run with a planted rise must raise one as often as
`Difference.detectable` claims. Pure: the same seed makes the same runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from evaluation.compare import ALPHA, DECIDING, Comparison, compare
from evaluation.results import ClipResult, ErrorCounts, GoldenRun, RunInfo, Timings
from evaluation.statistics import Interval, binomial_bounds

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class World:
    """A made-up set and what a made-up recognizer makes of it, on average.

    Attributes:
        sentences, conditions: every sentence is heard in every condition.
        wer: of the recognizer, about.
        steadiness: 0 for a recognizer that draws its errors anew in every run; 1 for one that makes the same ones
            always; between, that share of its words is heard the same way in every run.
        first_partial_ms, final_ms: the medians.
        seed: of the difficulties, of what is steady, and of how slow each stream is.
    """

    sentences: int = 50
    conditions: int = 2
    wer: float = 0.12
    steadiness: float = 0.0
    first_partial_ms: float = 220.0
    final_ms: float = 550.0
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Rise:
    """What is planted in a run: it is this much worse in truth.

    Attributes:
        wer: points of word error rate, as a fraction.
        latency_ms: added to every latency.
    """

    wer: float = 0.0
    latency_ms: float = 0.0


NO_RISE = Rise()


@dataclass(frozen=True, slots=True)
class Alarms:
    """How often B was called worse.

    Attributes:
        runs: pairs of runs.
        alarms: how many of them.
        bounds: of its probability, 95 %, exact.
        detectable: the mean of what the comparisons claimed to find with 80 %, by metric.
        found: how often each metric was called worse.
    """

    runs: int
    alarms: int
    bounds: Interval
    detectable: dict[str, float]
    found: dict[str, int]

    @property
    def share(self) -> float:
        """Of the pairs."""
        return self.alarms / self.runs


def made_up(world: World, *, seed: int, rise: Rise = NO_RISE) -> GoldenRun:
    """One run of the made-up recognizer; the seed is its chance."""
    fixed, chance = np.random.default_rng(world.seed), np.random.default_rng((world.seed, seed, 7))
    shape = (world.conditions, world.sentences)
    lengths = fixed.integers(5, 26, size=world.sentences)
    hardness = fixed.normal(0.0, 0.6, size=world.sentences) + 0.3 * np.arange(world.conditions)[:, None]
    share = world.wer * np.exp(hardness)
    share = np.clip(share * world.wer / (share @ lengths / lengths.sum()).mean(), 0.0, 0.9)
    steady = fixed.binomial(lengths, world.steadiness, size=shape)
    errors = fixed.binomial(steady, share) + chance.binomial(lengths - steady, share)
    errors = errors + chance.binomial(lengths - errors, np.clip(rise.wer / (1 - share), 0, 1))
    revised = chance.binomial(lengths, 0.1, size=shape)
    first = world.first_partial_ms * np.exp(fixed.normal(0, 0.25, shape) + chance.normal(0, 0.2, shape))
    final = world.final_ms * np.exp(fixed.normal(0, 0.2, shape) + chance.normal(0, 0.15, shape))
    clips = tuple(
        _clip(
            f"condition_{i}/sentence_{j}",
            int(lengths[j]),
            int(errors[i, j]),
            int(revised[i, j]),
            float(first[i, j]) + rise.latency_ms,
            float(final[i, j]) + rise.latency_ms,
        )
        for i in range(world.conditions)
        for j in range(world.sentences)
    )
    return GoldenRun(_INFO, clips)


def rehearse(
    world: World,
    runs: int,
    *,
    rise: Rise = NO_RISE,
    metrics: Sequence[str] = DECIDING,
    alpha: float = ALPHA,
    samples: int | None = None,
    seed: int = 0,
) -> Alarms:
    """Compare pairs of made-up runs, B with the rise planted, and count the alarms.

    Args:
        world: what is heard.
        runs: how many pairs.
        rise: none for the rate of false alarms.
        metrics: the figures that decide.
        alpha: of the comparison.
        samples: draws of each test, as `compare` takes them.
        seed: of the first run; each run has its own.
    """
    made = [
        compare(
            made_up(world, seed=2 * (seed + i)),
            made_up(world, seed=2 * (seed + i) + 1, rise=rise),
            alpha=alpha,
            metrics=metrics,
            samples=samples,
            by_condition=False,
        )
        for i in range(runs)
    ]
    names = [row.metric for row in made[0].differences]
    found = {name: sum(_worse(each, name) for each in made) for name in names}
    alarms = sum(each.worse for each in made)
    claimed = {
        name: [row.detectable for each in made for row in each.differences if row.metric == name and row.detectable]
        for name in names
    }
    return Alarms(
        runs,
        alarms,
        binomial_bounds(alarms, runs),
        {name: fmean(sizes) for name, sizes in claimed.items() if sizes},
        found,
    )


def _worse(comparison: Comparison, metric: str) -> bool:
    return any(row.worse for row in comparison.differences if row.metric == metric)


def _clip(name: str, words: int, errors: int, revised: int, first_ms: float, final_ms: float) -> ClipResult:
    return ClipResult(
        id=name,
        condition=name.partition("/")[0],
        reference=name.partition("/")[2],
        hypothesis=f"{errors} of {words} wrong",
        audio_ms=400 * words,
        words=ErrorCounts(hits=words - errors, substitutions=errors),
        chars=ErrorCounts(hits=5 * (words - errors), substitutions=5 * errors),
        timings=Timings(
            first_partial_ms=first_ms,
            first_text_ms=first_ms,
            final_ms=(final_ms,),
            partial_words=words,
            revised_words=revised,
        ),
        partials=words,
        finals=1,
        realtime=True,
        elapsed_ms=400.0 * words,
    )


_INFO = RunInfo(
    target="made up",
    engine="made up",
    model="",
    set_name="made up",
    set_fingerprint="made-up",
    chunk_ms=100,
    tail_ms=1500,
    concurrency=1,
    normalizer="none",
    started_at="2000-01-01T00:00:00Z",
    machine="none",
    version="",
    labels={},
)
