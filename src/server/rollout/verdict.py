"""Is the canary worse than the base? Tallies of both arms, evidence, intervals, a verdict. Pure.

Four figures are compared, of streams only that either arm could have served: errors (streams whose recognizer failed),
the latency of finals, words per minute of audio, and streams without any word. `evidence` says when one of them is
*worse*: over a whole canary, with a look after every stream, a canary that is as good as the base is called worse in
less than `ALPHA` of all cases (a fourth of it for each figure). Small differences of latency and words are nobody's
trouble: the canary is granted `LATENCY_GRACE` and `WORDS_GRACE`.

The intervals are for reading, and for `good`: those of the mixture test (Johari, Koomen, Pekelis, Walsh: Always valid
inference, Operations Research 70, 2022), which hold at every look, for means of many streams about. With a difference D
of variance V, and tau the size of differences that matter, they are

    D ± sqrt( V·(V+tau²)/tau² · (2·ln(1/alpha) + ln((V+tau²)/V)) ).

`tests/unit/test_rollout_verdict.py` rehearses both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from enum import StrEnum

from server.rollout.evidence import Evidence

ALPHA = 0.05
"""Of a false alarm, over all figures and all looks of a canary."""
LATENCY_GRACE = 1.10
WORDS_GRACE = 0.97

ERROR_RATIOS = (2.0, 4.0, 8.0, 16.0)
EMPTY_RATIOS = (1.5, 2.0, 4.0)
LATENCY_RATIOS = (1.25, 1.5, 2.0, 4.0)
WORDS_RATIOS = (0.9, 0.8, 0.6, 0.3)
"""How much worse a bad canary is thought to be."""

MIN_BASE = 10
"""Streams of the base that must be known before latencies and words can be weighed."""
MIN_SHOWN = 5
"""Streams of each arm before a difference has an interval."""

_MAX_Z = 4.0
_MAX_SHIFT = 3.0
_ALARM = 4 / ALPHA


class Figure(StrEnum):
    """What is compared."""

    ERRORS = "errors"
    LATENCY = "final_latency"
    WORDS = "words_per_minute"
    EMPTY = "without_words"


@dataclass(frozen=True, slots=True)
class Lot:
    """What was drawn for a stream.

    Attributes:
        canary: whether it is the canary's.
        share: the probability that it would be.
        step: of the canary; each change of its percentage begins a new one.
    """

    canary: bool
    share: float
    step: int


@dataclass(slots=True)
class Moments:
    """Mean and variance of what has come by (Welford)."""

    n: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, value: float) -> None:
        """One more."""
        self.n += 1
        delta = value - self.mean
        self.mean += delta / self.n
        self.squares += delta * (value - self.mean)

    @property
    def variance(self) -> float:
        """Of a single value; 0 for fewer than two."""
        return self.squares / (self.n - 1) if self.n > 1 else 0.0


@dataclass(slots=True)
class ArmTally:
    """What the streams of one arm came to in this step.

    Attributes:
        streams: over by now, or failed.
        errors: of them, those whose recognizer failed.
        errors_before_words: of these, those that had not said a word.
        latency: logarithms of the streams' early final latencies (s).
        words: per minute of audio, for each stream.
        empty: streams without a word, of those in `words`.
        confidence: of their finals, where it is told.
    """

    streams: int = 0
    errors: int = 0
    errors_before_words: int = 0
    latency: Moments = field(default_factory=Moments)
    words: Moments = field(default_factory=Moments)
    empty: int = 0
    confidence: Moments = field(default_factory=Moments)


@dataclass(frozen=True, slots=True)
class Compared:
    """One figure of both arms.

    Attributes:
        figure: which.
        base, canary: as shares (errors, without words), seconds (median latency, about) or words per minute; None
            where nothing is known.
        difference: the canary's less the base's (shares), or the canary's in proportion to the base's less 1; None
            with `low` and `high`, its interval, where there is too little.
        evidence: against the canary; `worse` at 80.
    """

    figure: Figure
    base: float | None
    canary: float | None
    difference: float | None
    low: float | None
    high: float | None
    evidence: float


class State(StrEnum):
    """What is to be said of a canary."""

    GOING = "going"
    """Nothing yet."""
    WORSE = "worse"
    """It is worse than the base, beyond doubt."""
    GOOD = "good"
    """It is not worse by anything that matters."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Of a canary. `figure` is the one that is worse; `words` say all of it in a sentence."""

    state: State
    words: str
    figures: tuple[Compared, ...]
    figure: Figure | None = None


@dataclass(frozen=True, slots=True)
class _Rule:
    """What `good` asks of an interval, and how large a difference is one (tau above)."""

    tau: float
    limit: float
    is_loss: bool = False


_RULES = {
    Figure.ERRORS: _Rule(0.02, 0.02),
    Figure.LATENCY: _Rule(0.2, math.log(1.2)),
    Figure.WORDS: _Rule(0.15, -0.10, is_loss=True),
    Figure.EMPTY: _Rule(0.10, 0.10),
}
_NAMES = {
    Figure.ERRORS: "errors",
    Figure.LATENCY: "the latency of finals",
    Figure.WORDS: "words per minute of audio",
    Figure.EMPTY: "streams without a word",
}


class Comparison:
    """Base and canary, from the canary's beginning to its end.

    Args:
        min_streams: of the canary in one step, before it may be called good.

    Attributes:
        base, canary: their tallies of this step.
        step: its number.
    """

    def __init__(self, min_streams: int) -> None:
        self._min_streams = min_streams
        self._evidence = {
            Figure.ERRORS: Evidence(len(ERROR_RATIOS)),
            Figure.LATENCY: Evidence(len(LATENCY_RATIOS)),
            Figure.WORDS: Evidence(len(WORDS_RATIOS)),
            Figure.EMPTY: Evidence(len(EMPTY_RATIOS)),
        }
        self._base_latency = Moments()
        self._base_words = Moments()
        self._worse: Verdict | None = None
        self.step = 0
        self.base = ArmTally()
        self.canary = ArmTally()

    def next_step(self) -> None:
        """Another percentage: figures to read begin anew, the evidence stays."""
        self.step += 1
        self.base, self.canary = ArmTally(), ArmTally()

    # What happened ------------------------------------------------------------------------------

    def failed(self, lot: Lot, *, spoke: bool) -> None:
        """A stream's recognizer failed, now, with or without having said a word; told once for each stream."""
        arm = self._arm(lot)
        if arm is not None:
            arm.streams += 1
            arm.errors += 1
            arm.errors_before_words += not spoke
        # Only those that fail are weighed: whose they are says as much as all streams together.
        self._weigh(Figure.ERRORS, lot, ERROR_RATIOS)

    def ended(self, lot: Lot) -> None:
        """A stream is over that did not fail."""
        arm = self._arm(lot)
        if arm is not None:
            arm.streams += 1

    def latency(self, lot: Lot, seconds: float) -> None:
        """How late a stream's first finals came, in the mean."""
        value = math.log(max(seconds, 0.001))
        arm = self._arm(lot)
        if arm is not None:
            arm.latency.add(value)
        past = self._base_latency
        if past.n >= MIN_BASE:
            deviation = max(math.sqrt(past.variance), 0.05)
            seen = value - math.log(LATENCY_GRACE) if lot.canary else value
            shifts = [math.log(ratio / LATENCY_GRACE) / deviation for ratio in LATENCY_RATIOS]
            self._weigh(Figure.LATENCY, lot, _ratios((seen - past.mean) / deviation, shifts))
        if not lot.canary:
            past.add(value)

    def words(self, lot: Lot, per_minute: float) -> None:
        """How much was said in a stream's first minute, or in all of a shorter one."""
        arm = self._arm(lot)
        if arm is not None:
            arm.words.add(per_minute)
            arm.empty += not per_minute
        past = self._base_words
        if past.n >= MIN_BASE and past.mean > 0:
            deviation = max(math.sqrt(past.variance), 0.05 * past.mean)
            seen = per_minute / WORDS_GRACE if lot.canary else per_minute
            shifts = [(ratio / WORDS_GRACE - 1) * past.mean / deviation for ratio in WORDS_RATIOS]
            self._weigh(Figure.WORDS, lot, _ratios((seen - past.mean) / deviation, shifts))
        if not per_minute:
            self._weigh(Figure.EMPTY, lot, EMPTY_RATIOS)
        if not lot.canary:
            past.add(per_minute)

    def confidence(self, lot: Lot, value: float) -> None:
        """A final's; shown, and not judged: two models' mean different things."""
        arm = self._arm(lot)
        if arm is not None:
            arm.confidence.add(value)

    # What that means ----------------------------------------------------------------------------

    @property
    def worse(self) -> Verdict | None:
        """The verdict `worse`, as soon as it is so. It stays."""
        return self._worse

    def verdict(self) -> Verdict:
        """What is to be said now."""
        if self._worse is not None:
            return self._worse
        figures = self.figures()
        missing = [_NAMES[each.figure] for each in figures if not _is_fine(each)]
        seen = self.canary.streams
        if seen >= self._min_streams and not missing:
            return Verdict(State.GOOD, f"The canary is as good as the base, after {seen} streams.", figures)
        if seen < self._min_streams:
            words = f"{seen} of at least {self._min_streams} streams of the canary are over; nothing speaks against it."
        else:
            words = f"Nothing speaks against the canary; more streams must tell about {', '.join(missing)}."
        return Verdict(State.GOING, words, figures)

    def figures(self) -> tuple[Compared, ...]:
        """All four, of this step."""
        base, canary = self.base, self.canary
        return (
            self._share(Figure.ERRORS, base.errors, base.streams, canary.errors, canary.streams),
            self._latency(base.latency, canary.latency),
            self._words(base.words, canary.words),
            self._share(Figure.EMPTY, base.empty, base.words.n, canary.empty, canary.words.n),
        )

    def _arm(self, lot: Lot) -> ArmTally | None:
        if lot.step != self.step or self._worse is not None:
            return None
        return self.canary if lot.canary else self.base

    def _weigh(self, figure: Figure, lot: Lot, ratios: tuple[float, ...]) -> None:
        if self._worse is not None or not 0 < lot.share < 1:
            return
        evidence = self._evidence[figure]
        evidence.weigh(lot.canary, lot.share, ratios)
        if lot.canary and evidence.value >= _ALARM:
            figures = self.figures()
            row = next(each for each in figures if each.figure is figure)
            self._worse = Verdict(State.WORSE, f"The canary is worse: {in_words(row)}.", figures, figure)

    def _share(self, figure: Figure, base: int, of_base: int, canary: int, of_canary: int) -> Compared:
        shares = (base / of_base if of_base else None, canary / of_canary if of_canary else None)
        spread = _binomial_variance(base, of_base) + _binomial_variance(canary, of_canary)
        return self._row(figure, shares, (of_base, of_canary), (shares[1] or 0.0) - (shares[0] or 0.0), spread)

    def _latency(self, base: Moments, canary: Moments) -> Compared:
        shown = (math.exp(base.mean) if base.n else None, math.exp(canary.mean) if canary.n else None)
        spread = base.variance / max(base.n, 1) + canary.variance / max(canary.n, 1)
        row = self._row(Figure.LATENCY, shown, (base.n, canary.n), canary.mean - base.mean, spread)
        if row.difference is None or row.low is None or row.high is None:
            return row
        middle, low, high = (math.expm1(end) for end in (row.difference, row.low, row.high))
        return replace(row, difference=middle, low=low, high=high)

    def _words(self, base: Moments, canary: Moments) -> Compared:
        shown = (base.mean if base.n else None, canary.mean if canary.n else None)
        if not base.mean:
            return self._row(Figure.WORDS, shown, (0, 0), 0.0, 0.0)
        ratio = canary.mean / base.mean
        spread = canary.variance / max(canary.n, 1) + ratio**2 * base.variance / max(base.n, 1)
        return self._row(Figure.WORDS, shown, (base.n, canary.n), ratio - 1, spread / base.mean**2)

    def _row(
        self,
        figure: Figure,
        shown: tuple[float | None, float | None],
        counts: tuple[int, int],
        difference: float,
        variance: float,
    ) -> Compared:
        evidence = self._evidence[figure].value
        if min(counts) < MIN_SHOWN:
            return Compared(figure, *shown, None, None, None, evidence)
        half = _half_width(max(variance, 1e-9), _RULES[figure].tau)
        return Compared(figure, *shown, difference, difference - half, difference + half, evidence)


def in_words(row: Compared) -> str:
    """A figure of both arms, for people."""
    return f"{_NAMES[row.figure]}: {_value(row.figure, row.canary)}, the base {_value(row.figure, row.base)}"


def _value(figure: Figure, value: float | None) -> str:
    if value is None:
        return "not known yet"
    if figure in (Figure.ERRORS, Figure.EMPTY):
        return f"{value:.1%}"
    return f"{value * 1000:.0f} ms" if figure is Figure.LATENCY else f"{value:.0f}"


def _is_fine(row: Compared) -> bool:
    rule = _RULES[row.figure]
    if row.low is None or row.high is None:
        return False
    if rule.is_loss:
        return row.low >= rule.limit
    return row.high <= (math.expm1(rule.limit) if row.figure is Figure.LATENCY else rule.limit)


def _ratios(z: float, shifts: list[float]) -> tuple[float, ...]:
    """Likelihoods of `z` where a canary's values are shifted by so many deviations, divided by that where not."""
    held = min(max(z, -_MAX_Z), _MAX_Z)
    bounded = (min(max(shift, -_MAX_SHIFT), _MAX_SHIFT) for shift in shifts)
    return tuple(math.exp(shift * held - shift * shift / 2) for shift in bounded)


def _binomial_variance(hits: int, of: int) -> float:
    share = (hits + 1) / (of + 2)
    return share * (1 - share) / max(of, 1)


def _half_width(variance: float, tau: float) -> float:
    whole = variance + tau * tau
    return math.sqrt(variance * whole / tau**2 * (2 * math.log(1 / ALPHA) + math.log(whole / variance)))
